//! A source in use as it was at one moment: where a volume has a shadow copy, that is read, and everywhere else the source.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use crate::capture::bad::still_there;
use crate::disk::{Disk, Extent};
use crate::error::{Error, Result};
use crate::volume::mapped::{Leg, MappedDisk, Segment};

/// A shadow copy.
pub struct Copy {
    /// What its volume is called.
    pub volume: String,
    /// The bytes of the source that it stands for.
    pub range: Range<u64>,
    /// Its content.
    pub disk: Arc<dyn Disk>,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("volume", &self.volume).field("range", &self.range).finish_non_exhaustive()
    }
}

/// A copy that may be gone at any time: Windows gives it up where the old state of what is written has no space left. The source around it can still be
/// read then, so that each of its sectors would look like an unreadable one.
struct MayGo {
    volume: String,
    disk: Arc<dyn Disk>,
}

impl Disk for MayGo {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Err(error) = self.disk.read_at(buf, offset) else { return Ok(()) };
        if !error.is_unreadable_medium() {
            return Err(error);
        }
        match still_there(&*self.disk, Error::Cancelled) {
            Ok(()) => Err(error),
            Err(_) => Err(Error::Refused(format!(
                "the shadow copy of {} is gone: Windows gives it up where there is no space for it",
                self.volume
            ))),
        }
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

/// Puts `copies` over `source`, which keeps its length: of a copy that is shorter than its range only that much is there, and of a longer one the front.
///
/// Fails with [`Error::Refused`] where two copies overlap or one lies outside of the source.
pub fn over(source: &Arc<dyn Disk>, mut copies: Vec<Copy>) -> Result<Arc<dyn Disk>> {
    copies.sort_by_key(|copy| copy.range.start);
    let segment = |disk: &Arc<dyn Disk>, offset, len| Segment {
        len,
        stripe_len: NonZeroU64::MIN,
        legs: vec![Leg { disk: Arc::clone(disk), offset }],
    };
    let (mut segments, mut at) = (Vec::new(), 0_u64);
    for Copy { volume, range, disk } in copies {
        let end = range.end.min(range.start.saturating_add(disk.len()));
        if range.start < at || end > source.len() {
            return Err(Error::Refused(format!(
                "the shadow copy of {volume}, bytes {:#x} to {end:#x}, does not fit on a disk of {:#x} bytes beside the others",
                range.start,
                source.len()
            )));
        }
        if range.start > at {
            segments.push(segment(source, at, range.start.saturating_sub(at)));
        }
        if end > range.start {
            let copy: Arc<dyn Disk> = Arc::new(MayGo { volume, disk });
            segments.push(segment(&copy, 0, end.saturating_sub(range.start)));
        }
        at = end.max(range.start);
    }
    if at < source.len() {
        segments.push(segment(source, at, source.len().saturating_sub(at)));
    }
    Ok(Arc::new(MappedDisk::open(segments, source.sector_size())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::bad::tests::BadDisk;
    use crate::disk::{MemoryDisk, read_vec};

    fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
        Arc::new(MemoryDisk::new(bytes))
    }

    fn copy(range: Range<u64>, disk: Arc<dyn Disk>) -> Copy {
        Copy { volume: "C:".into(), range, disk }
    }

    fn shown(copies: Vec<(Range<u64>, usize, u8)>) -> Result<Vec<u8>> {
        let copies = copies.into_iter().map(|(range, len, byte)| copy(range, disk(vec![byte; len]))).collect();
        let over = over(&disk(vec![b'.'; 4096]), copies)?;
        assert_eq!((over.len(), over.sector_size()), (4096, 512));
        read_vec(&*over, 0, 4096)
    }

    #[test]
    fn copies_stand_where_their_volumes_lie() {
        let mut expected = vec![b'.'; 4096];
        expected[512..1024].fill(b'a');
        expected[1024..1536].fill(b'b');
        expected[3584..].fill(b'c');
        let copies = vec![(3584..4096, 512, b'c'), (512..1024, 512, b'a'), (1024..2048, 512, b'b')];
        assert_eq!(shown(copies).unwrap(), expected);
        // The front of a longer one, and the whole source.
        expected.fill(b'd');
        assert_eq!(shown(vec![(0..4096, 8192, b'd')]).unwrap(), expected);
        assert_eq!(shown(vec![]).unwrap(), vec![b'.'; 4096]);
        assert_eq!(shown(vec![(512..1024, 0, b'x')]).unwrap(), vec![b'.'; 4096]);
    }

    #[test]
    fn copies_that_do_not_fit_are_refused() {
        assert!(matches!(shown(vec![(0..1024, 1024, b'a'), (512..1024, 512, b'b')]), Err(Error::Refused(_))));
        assert!(matches!(shown(vec![(3584..8192, 4096, b'a')]), Err(Error::Refused(_))));
        assert!(matches!(shown(vec![(u64::MAX - 1..u64::MAX, 4096, b'a')]), Err(Error::Refused(_))));
    }

    #[test]
    fn a_copy_that_is_gone_is_told_from_one_with_unreadable_sectors() {
        let failing = |bad| -> Arc<dyn Disk> {
            Arc::new(BadDisk { inner: MemoryDisk::new(vec![b'a'; 2048]), bad, failed_reads: 0.into() })
        };
        let read = |bad, at| {
            let over = over(&disk(vec![b'.'; 4096]), vec![copy(1024..3072, failing(bad))]).unwrap();
            read_vec(&*over, at, 512)
        };
        let bad = 512..1024;
        assert!(read(vec![bad.clone()], 1536).unwrap_err().is_unreadable_medium());
        assert_eq!(read(vec![bad], 1024).unwrap(), vec![b'a'; 512]);
        let gone = read(vec![0..2048], 1536).unwrap_err();
        assert!(matches!(&gone, Error::Refused(said) if said.contains("the shadow copy of C: is gone")), "{gone}");
        assert_eq!(read(vec![0..2048], 0).unwrap(), vec![b'.'; 512]);
    }
}
