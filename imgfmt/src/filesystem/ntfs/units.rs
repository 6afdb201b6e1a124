//! Content that is unpacked unit by unit, with the units last used at hand.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Extent, buf_len, check_range};
use crate::error::Result;
use crate::filesystem::files::Content;

/// Bytes of unpacked units that an open stream keeps.
const KEPT: usize = 256 << 10;

/// A stream in units of one size, each of which is unpacked by itself.
pub(super) trait Units: Send + Sync + Debug {
    /// Bytes of the stream.
    fn len(&self) -> u64;

    /// Bytes of a unit, at most 1 MiB.
    fn unit_len(&self) -> usize;

    /// Unpacks units from `first` on into all of `out`, which is a number of whole units; only the last unit of the stream may be shorter.
    fn unpack(&self, first: u64, out: &mut [u8]) -> Result<()>;

    /// See [`Content::extent_at`].
    fn extent_at(&self, offset: u64) -> Result<Extent>;

    /// See [`Content::places`].
    fn places(&self) -> Vec<Range<u64>>;
}

/// A unit's number and its bytes.
type Kept = (u64, Arc<Vec<u8>>);

/// Such a stream as content.
#[derive(Debug)]
pub(super) struct Packed<U> {
    units: U,
    /// The one used last comes last.
    kept: Mutex<VecDeque<Kept>>,
}

impl<U: Units> Packed<U> {
    pub(super) fn new(units: U) -> Self {
        Self { units, kept: Mutex::default() }
    }

    /// A unit that is not wanted as a whole: its neighbours will be asked for next.
    fn unit(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = kept.iter().position(|(kept, _)| *kept == number).and_then(|at| kept.remove(at)) {
                let bytes = Arc::clone(&found.1);
                kept.push_back(found);
                return Ok(bytes);
            }
        }
        // Other threads unpack other units meanwhile.
        let unit_len = wide(self.units.unit_len());
        let start = number.saturating_mul(unit_len);
        let len = unit_len.min(self.units.len().saturating_sub(start));
        let mut bytes = vec![0; usize::try_from(len).expect("at most a unit")];
        self.units.unpack(number, &mut bytes)?;
        let bytes = Arc::new(bytes);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((number, Arc::clone(&bytes)));
        let most = KEPT.checked_div(self.units.unit_len()).unwrap_or(1).max(2);
        while kept.len() > most {
            kept.pop_front();
        }
        Ok(bytes)
    }
}

/// A length in memory as one on a disk.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("usize is at most 64 bits")
}

impl<U: Units> Content for Packed<U> {
    fn len(&self) -> u64 {
        self.units.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let unit = self.units.unit_len();
        let unit_len = wide(unit);
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let number = at.checked_div(unit_len).unwrap_or(0);
            let within = usize::try_from(at.checked_rem(unit_len).unwrap_or(0)).expect("less than a unit");
            let whole = if within == 0 { rest.len().checked_div(unit).unwrap_or(0).saturating_mul(unit) } else { 0 };
            let part = if whole > 0 { whole } else { rest.len().min(unit.saturating_sub(within)) };
            let (now, later) = rest.split_at_mut(part);
            if whole > 0 {
                self.units.unpack(number, now)?;
            } else {
                let bytes = self.unit(number)?;
                let end = within.saturating_add(part);
                now.copy_from_slice(bytes.get(within..end).expect("a unit reaches to the end of the stream"));
            }
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        self.units.extent_at(offset)
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        Some(self.units.places())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::disk::ExtentKind;

    /// Ten units of 100 bytes and one of 50; every byte is its unit's number.
    #[derive(Debug, Default)]
    struct Numbers(AtomicUsize);

    impl Units for Numbers {
        fn len(&self) -> u64 {
            1050
        }
        fn unit_len(&self) -> usize {
            100
        }
        fn unpack(&self, first: u64, out: &mut [u8]) -> Result<()> {
            for (number, unit) in (first..).zip(out.chunks_mut(100)) {
                assert!(unit.len() == 100 || number == 10 && unit.len() == 50);
                self.0.fetch_add(1, Ordering::Relaxed);
                unit.fill(u8::try_from(number).unwrap());
            }
            Ok(())
        }
        fn extent_at(&self, offset: u64) -> Result<Extent> {
            Ok(Extent { offset, len: 1, kind: ExtentKind::Data })
        }
        fn places(&self) -> Vec<Range<u64>> {
            Vec::new()
        }
    }

    #[test]
    fn every_range_reads_right_and_small_reads_unpack_once() {
        let content = Packed::new(Numbers::default());
        let model: Vec<u8> = (0..1050_usize).map(|at| u8::try_from(at / 100).unwrap()).collect();
        for start in (0..1050).step_by(7) {
            for end in (start..=1050).step_by(13) {
                let mut buf = vec![0xff; end - start];
                content.read_at(&mut buf, u64::try_from(start).unwrap()).unwrap();
                assert_eq!(buf, model[start..end]);
            }
        }
        assert!(content.read_at(&mut [0; 2], 1049).is_err());
        let content = Packed::new(Numbers::default());
        for at in 0..1050 {
            content.read_at(&mut [0], at).unwrap();
        }
        assert_eq!(content.units.0.load(Ordering::Relaxed), 11);
    }
}
