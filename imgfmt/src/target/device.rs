//! A block device as a target, written in place.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};

use crate::error::{Error, Result};
use crate::target::Target;

/// Major number of loop devices on Linux.
const LOOP_MAJOR: u32 = 7;
/// Zeros are written in pieces of this many bytes where the device cannot make them by itself.
const ZERO_PIECE: u64 = 1 << 20;

/// A block device that nobody else uses.
#[derive(Debug)]
pub struct DeviceTarget {
    file: File,
    path: PathBuf,
    len: u64,
}

/// What stands at the path of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Nothing: a file will be made.
    New,
    /// A regular file.
    File,
    /// A loop device.
    Loop,
    /// Another block device.
    BlockDevice,
    /// Something that cannot be a target.
    Other,
}

/// Says what stands at `path`, symbolic links followed.
pub fn kind_of(path: &Path) -> Result<TargetKind> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(TargetKind::New),
        metadata => metadata.map_err(|error| Error::io("examine", path, error))?,
    };
    let kind = metadata.file_type();
    Ok(if kind.is_file() {
        TargetKind::File
    } else if kind.is_block_device() {
        if rustix::fs::major(metadata.rdev()) == LOOP_MAJOR { TargetKind::Loop } else { TargetKind::BlockDevice }
    } else {
        TargetKind::Other
    })
}

impl DeviceTarget {
    /// Opens a block device exclusively: the system refuses one that is mounted or held by anything.
    pub fn open(path: &Path) -> Result<Self> {
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path);
        let file = file.map_err(|error| match error.raw_os_error() {
            // EBUSY: mounted, or held by LVM, RAID, swap.
            Some(16) => Error::Refused(format!("{} is in use (mounted, or held by something)", path.display())),
            _ => Error::io("open", path, error),
        })?;
        let len = seek(&file, SeekFrom::End(0)).map_err(|error| Error::io("measure", path, error.into()))?;
        Ok(Self { file, path: path.to_owned(), len })
    }
}

impl Target for DeviceTarget {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|source| Error::Io {
            action: "write",
            what: format!("{} at byte {offset:#x}", self.path.display()),
            source,
        })
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        if fallocate(&self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(ZERO_PIECE.min(len)).unwrap_or(0)];
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(zeros.len());
            self.write_at(zeros.get(..part).expect("at most its length"), at)?;
            at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))
    }
}
