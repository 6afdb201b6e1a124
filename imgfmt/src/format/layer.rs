//! One image file as a layer: where each byte of its disk lies, and the disk that layers make when stacked.

use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::format::Snapshot;
use crate::format::cache::{Caches, ClusterKey};
use crate::format::file::ImageFile;

/// Where a run of a disk lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// As it is, in a file.
    Stored {
        /// The file.
        file: &'a ImageFile,
        /// First byte in the file.
        offset: u64,
    },
    /// In a cluster that must be decoded.
    Packed(Packed<'a>),
    /// Nowhere: it is zero.
    Zero,
    /// Not in this layer: its base decides.
    Base,
}

/// A run inside an encoded cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    /// The file.
    pub(crate) file: &'a ImageFile,
    /// First byte of the encoded cluster in the file.
    pub(crate) offset: u64,
    /// Encoded bytes, where a table tells them, else 0.
    pub(crate) stored: u64,
    /// Bytes of the decoded cluster; at most 2 MiB.
    pub(crate) cluster_len: usize,
    /// First byte of the run in the decoded cluster.
    pub(crate) within: usize,
}

/// A run of a disk and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    /// Bytes; never 0. A run of a packed cluster never reaches past it. May reach past the end of the disk.
    pub(crate) len: u64,
    /// Where.
    pub(crate) place: Place<'a>,
}

/// The longest encoded or decoded cluster of any format, in bytes.
pub(crate) const MAX_CLUSTER: u64 = 2 << 20;

/// One opened image file, without its base.
pub(crate) trait Layer: Send + Sync {
    /// Bytes of its disk.
    fn len(&self) -> u64;

    /// The run that starts at `offset`, which lies in the disk. It may end before its kind does, and need not be longer than `most`.
    fn run_at(&self, offset: u64, most: u64) -> Result<Run<'_>>;

    /// Decodes a cluster that [`Layer::run_at`] named; `out` is as long as it said.
    fn unpack(&self, packed: &Packed<'_>, out: &mut [u8]) -> Result<()> {
        let _ = out;
        Err(packed.file.corrupt("cluster", packed.offset, "it is compressed, which this format has not"))
    }

    /// Its internal snapshots.
    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        Ok(Vec::new())
    }
}

/// What a [`Stack`] does where its layer is silent.
pub(crate) enum Below {
    /// Reads this disk, and zeros past its end.
    Disk(Arc<dyn Disk>),
    /// Reads zeros; the extent is of this kind.
    Nothing(ExtentKind),
}

/// A layer over what lies below it.
pub(crate) struct Stack {
    layer: Box<dyn Layer>,
    below: Below,
    sector_size: u32,
    caches: Arc<Caches>,
}

impl Stack {
    /// Puts `layer` over `below`.
    pub(crate) fn new(layer: Box<dyn Layer>, below: Below, sector_size: u32, caches: Arc<Caches>) -> Self {
        Self { layer, below, sector_size, caches }
    }

    /// The same with another sector size.
    pub(crate) fn with_sector_size(self, sector_size: u32) -> Self {
        Self { sector_size, ..self }
    }

    fn run_at(&self, offset: u64, most: u64) -> Result<Run<'_>> {
        let run = self.layer.run_at(offset, most)?;
        if run.len == 0 {
            return Err(Error::corrupt("map of the image", offset, "a run is empty"));
        }
        Ok(run)
    }

    fn read_run(&self, place: Place<'_>, buf: &mut [u8], offset: u64) -> Result<()> {
        match place {
            Place::Stored { file, offset } => file.read_at("data", buf, offset),
            Place::Packed(packed) => {
                let key = ClusterKey { file: packed.file.number(), offset: packed.offset, stored: packed.stored };
                let cluster = self.caches.cluster(key, || {
                    let mut bytes = vec![0; packed.cluster_len];
                    self.layer.unpack(&packed, &mut bytes)?;
                    Ok(bytes.into())
                })?;
                let part = cluster.get(packed.within..packed.within.saturating_add(buf.len()));
                let reason = "a run leaves its cluster";
                buf.copy_from_slice(part.ok_or_else(|| packed.file.corrupt("cluster", packed.offset, reason))?);
                Ok(())
            }
            Place::Zero => {
                buf.fill(0);
                Ok(())
            }
            Place::Base => {
                let Below::Disk(base) = &self.below else {
                    buf.fill(0);
                    return Ok(());
                };
                let inside = usize::try_from(base.len().saturating_sub(offset)).unwrap_or(usize::MAX);
                let (inside, past) = buf.split_at_mut(inside.min(buf.len()));
                past.fill(0);
                if inside.is_empty() { Ok(()) } else { base.read_at(inside, offset) }
            }
        }
    }
}

impl Disk for Stack {
    fn len(&self) -> u64 {
        self.layer.len()
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let run = self.run_at(at, buf_len(rest))?;
            let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            self.read_run(run.place, part, at)?;
            at = at.saturating_add(buf_len(part));
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let rest = self.len().saturating_sub(offset);
        let run = self.run_at(offset, rest)?;
        let most = run.len.min(rest);
        let (len, kind) = match run.place {
            Place::Zero => (most, ExtentKind::Zero),
            Place::Packed(_) => (most, ExtentKind::Data),
            Place::Stored { file, offset } => below_extent(file.disk(), offset, most, ExtentKind::Data)?,
            Place::Base => match &self.below {
                Below::Disk(base) => below_extent(base, offset, most, ExtentKind::Zero)?,
                Below::Nothing(kind) => (most, *kind),
            },
        };
        Ok(Extent { offset, len, kind })
    }
}

/// Length and kind of the extent of `disk` at `offset`, of at most `most` bytes; `past_end` where that is past its end.
fn below_extent(disk: &dyn Disk, offset: u64, most: u64, past_end: ExtentKind) -> Result<(u64, ExtentKind)> {
    if offset >= disk.len() {
        return Ok((most, past_end));
    }
    let extent = disk.extent_at(offset)?;
    Ok((extent.len.min(most), extent.kind))
}
