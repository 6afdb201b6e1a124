//! A raw file or block device as a disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};

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
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        // Seeking to the end is the one way that gives the length of files and block devices alike.
        let len = seek(&file, SeekFrom::End(0)).map_err(|error| Error::io("measure", path, error.into()))?;
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
        self.file.read_exact_at(buf, offset).map_err(|source| Error::Io {
            action: "read",
            what: format!("{} at bytes {offset:#x} to {end:#x}", self.path.display()),
            source,
        })
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let extent = |end: u64, kind| Extent { offset, len: end.min(self.len).saturating_sub(offset), kind };
        // Seeking moves the file's own position, which nothing here uses: all reads are positional.
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok(extent(data, ExtentKind::Zero)),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Ok(extent(hole, ExtentKind::Data)),
                _ => Ok(extent(self.len, ExtentKind::Data)),
            },
            // "No data from here to the end of the file."
            Err(Errno::NXIO) => Ok(extent(self.len, ExtentKind::Zero)),
            // Block devices and some filesystems have no holes.
            Err(_) => Ok(extent(self.len, ExtentKind::Data)),
        }
    }
}
