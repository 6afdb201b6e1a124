//! A raw file or block device as a disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::platform::{self, FileRun};

/// A raw file or block device, opened for reading only. Holes of a file are Zero.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    path: PathBuf,
    len: u64,
    sector_size: u32,
}

impl FileDisk {
    /// Opens a regular file or block device for reading, with the given logical sector size (512 or 4096).
    pub fn open(path: &Path, sector_size: u32) -> Result<Self> {
        let file = platform::open_disk(path).map_err(|error| Error::io("open", path, error))?;
        Self::from_file(file, path, sector_size)
    }

    /// Takes a regular file or block device that is open for reading; `path` is what it is called.
    pub fn from_file(file: File, path: &Path, sector_size: u32) -> Result<Self> {
        let len = platform::device_len(&file).map_err(|error| Error::io("measure", path, error))?;
        Ok(Self { file, path: path.to_owned(), len, sector_size })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = check_range(offset, buf_len(buf), self.len)?;
        platform::read_exact_at(&self.file, buf, offset).map_err(|source| Error::Io {
            action: "read",
            what: format!("{} at bytes {offset:#x} to {end:#x}", self.path.display()),
            source,
        })
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let (end, kind) = match platform::data_or_hole(&self.file, offset) {
            FileRun::Data(end) => (end, ExtentKind::Data),
            FileRun::Hole(end) => (end, ExtentKind::Zero),
        };
        Ok(Extent { offset, len: end.min(self.len).saturating_sub(offset), kind })
    }
}
