//! Files on Linux and other Unix systems.

use std::ffi::OsStr;
use std::fs::{File, FileType, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom, seek};
use rustix::io::Errno;

use super::{FileId, FileRun, Standing};

/// Fills all of `buf` from `offset`, or fails.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Writes all of `bytes` at `offset`, or fails.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Locks a file for this handle alone, or says that another one has it.
pub(crate) fn try_lock(file: &File) -> Result<(), TryLockError> {
    file.try_lock()
}

/// Locks a file together with others that do the same.
pub(crate) fn try_lock_shared(file: &File) -> Result<(), TryLockError> {
    file.try_lock_shared()
}

/// Gives a lock up.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

/// Opens a file or block device for reading.
pub(crate) fn open_disk(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// The absolute path, symbolic links resolved.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// An absolute path without links as people write it: as it is.
pub(crate) fn written_path(real: PathBuf) -> PathBuf {
    real
}

/// Says what stands at a path, symbolic links followed.
pub(crate) fn standing(path: &Path) -> io::Result<Standing> {
    let metadata = std::fs::metadata(path)?;
    let kind = metadata.file_type();
    Ok(match () {
        () if kind.is_file() => Standing::File,
        () if kind.is_dir() => Standing::Folder,
        () if kind.is_block_device() => Standing::Device(metadata.rdev()),
        () => Standing::Other,
    })
}

/// What makes a file or a device itself: the node, and the device that it stands for.
pub(crate) type Identity = (FileId, u64);

/// The identity of an open file or device.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok(((metadata.dev(), metadata.ino()), metadata.rdev()))
}

/// The identity of what stands at a path, symbolic links followed.
pub(crate) fn identity_of_path(path: &Path) -> io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    Ok(((metadata.dev(), metadata.ino()), metadata.rdev()))
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

/// What makes an open file itself.
pub(crate) fn file_id(file: &File) -> io::Result<FileId> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What something is that is no regular file, in words.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_symlink() => "a symbolic link",
        () => "a device",
    }
}

/// The path that bytes inside an image stand for, where they can stand for one.
pub(crate) fn path_of(name: &[u8]) -> Option<PathBuf> {
    (!name.contains(&0)).then(|| OsStr::from_bytes(name).into())
}

/// Opens a path without links for reading, following no link on the way and waiting for nothing.
pub(crate) fn open_plain(real: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, Mode, ResolveFlags, openat2};
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(CWD, real, flags | OFlags::RDONLY, Mode::empty(), resolve) {
            // Before Linux 5.6, and in sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return Ok(opened?.into()),
        }
    }
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(real)
}
