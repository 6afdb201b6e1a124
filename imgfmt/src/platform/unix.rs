//! Files on Linux and other Unix systems.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::FileRun;

/// Fills all of `buf` from `offset`, or fails.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Writes all of `bytes` at `offset`, or fails.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Length in bytes of a file or block device.
pub(crate) fn device_len(file: &File) -> io::Result<u64> {
    // Seeking to the end is the one way that serves both.
    Ok(seek(file, SeekFrom::End(0))?)
}

/// What lies at `offset`, which must be below the length.
pub(crate) fn data_or_hole(file: &File, offset: u64) -> FileRun {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => FileRun::Hole(data),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => FileRun::Data(hole),
            _ => FileRun::Data(u64::MAX),
        },
        // "No data from here to the end of the file."
        Err(Errno::NXIO) => FileRun::Hole(u64::MAX),
        // Block devices and some filesystems have no holes.
        Err(_) => FileRun::Data(u64::MAX),
    }
}

/// Lets a new file have holes: here every file can.
pub(crate) fn make_sparse(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Bytes that can still be written into a folder, where that is known.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Says whether two paths lead to one file.
pub(crate) fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (std::fs::metadata(a)?, std::fs::metadata(b)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}
