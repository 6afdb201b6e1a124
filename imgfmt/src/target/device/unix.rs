//! Unix, by the calls of Linux.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::platform;
use crate::target::device::ioctl;

/// Major number of loop devices on Linux.
const LOOP_MAJOR: u32 = 7;
/// How long a lock is waited for: udev holds one for a moment while it looks at a device.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The open file holds everything.
pub(super) type Held = ();

/// Says whether a folder, given by its real path, is one of devices. `/dev/shm` holds files of programs.
pub(super) fn is_of_devices(folder: &Path) -> bool {
    folder.starts_with("/dev") && !folder.starts_with("/dev/shm")
}

/// Says whether a device is a loop device.
pub(super) fn is_loop(device: u64) -> bool {
    rustix::fs::major(device) == LOOP_MAJOR
}

/// Opens a file or block device for reading and writing, and keeps others away.
pub(super) fn open_alone(path: &Path, is_device: bool) -> Result<(File, Held)> {
    let flags = if is_device { OFlags::EXCL } else { OFlags::empty() };
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => Error::Refused(format!(
            "{} is in use: it is mounted, or held by LVM, RAID, encryption or another program",
            path.display()
        )),
        Some(Errno::ROFS | Errno::PERM) => {
            Error::Refused(format!("{} is read-only: the system does not let it be written", path.display()))
        }
        _ => Error::io("open", path, error),
    })?;
    lock(&file, path)?;
    Ok((file, ()))
}

/// Locks an open target for this run. The lock ends with the open file.
fn lock(file: &File, path: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Refused(format!("{} is locked by another program", path.display())));
            }
            Err(error) => return Err(Error::io("lock", path, error.into())),
        }
    }
}

/// Has the system forget what it caches of a range.
pub(super) fn forget(file: &File, offset: u64, len: u64) {
    if let Some(len) = NonZero::new(len) {
        // Advice: where it is not taken, nothing is lost.
        let _ = fadvise(file, offset, Some(len), Advice::DontNeed);
    }
}

/// Has a device write out and forget its buffers. Not every device has buffers of its own.
pub(super) fn drop_buffers(device: &File) {
    let _ = ioctl::flush_buffers(device);
}

/// Opens what stands at the path of an open target once more for reading.
pub(super) fn open_again(_file: &File, path: &Path) -> io::Result<File> {
    platform::open_disk(path)
}

/// Opens for reading past the caches; `None` where the filesystem has no such reads.
pub(super) fn open_direct(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_refused_direct(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says whether a read past the caches failed because there are none such.
pub(super) fn is_refused_direct(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INVAL)
}

/// Makes a range zero without writing it; `false` where that cannot be done.
pub(super) fn make_zero(file: &File, is_device: bool, offset: u64, len: u64) -> bool {
    // A device zeroes by itself, with the promise that it reads as zero; a file gets a hole.
    let how = if is_device { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
    fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, len).is_ok()
}

/// Says that a range is not needed. A hint: what does not take it keeps its bytes.
pub(super) fn discard(file: &File, offset: u64, len: u64) {
    let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
}

/// Has the kernel read the partition table of a device again.
pub(super) fn reread_table(device: &File) -> io::Result<()> {
    match ioctl::reread_table(device) {
        // Devices that take no partitions, such as loop devices made without them.
        Ok(()) | Err(Errno::INVAL | Errno::NOTTY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
