//! Windows: volumes are locked and dismounted before their disk is written.
//!
//! Source: "FSCTL_LOCK_VOLUME", "FSCTL_DISMOUNT_VOLUME", "FSCTL_SET_ZERO_DATA" and "Blocking Direct Write Operations to Volumes and Disks" in the Windows documentation.

use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

use windows_sys::Win32::Foundation::{
    ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER, ERROR_NOT_SUPPORTED, ERROR_SHARING_VIOLATION, ERROR_WRITE_PROTECT,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_NO_BUFFERING, FILE_FLAG_WRITE_THROUGH, FILE_SHARE_READ, FILE_SHARE_WRITE,
};
use windows_sys::Win32::System::Ioctl::{FSCTL_SET_ZERO_DATA, IOCTL_DISK_UPDATE_PROPERTIES};

use crate::error::{Error, Result};
use crate::platform::windows::{allow_all_sectors, control_bytes, open_disk};
use crate::platform::windows_names::{DevicePath, device_path};
use crate::source::device::windows::runs_at;
use crate::source::device::windows::volumes::{dismount, lock, lock_all};

/// The volumes of a disk, locked while they are open.
pub(super) type Held = Vec<File>;

/// Says whether a folder is one of devices: here none is.
pub(super) fn is_of_devices(_: &Path) -> bool {
    false
}

/// Says whether a device is a loop device: Windows has none.
pub(super) fn is_loop(_device: u64) -> bool {
    false
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().is_some_and(|found| found.cast_unsigned() == code)
}

fn in_use(volume: &str) -> Error {
    Error::Refused(format!("{volume} is in use: close the programs and windows that have files of it open"))
}

/// Opens a file, disk or volume for reading and writing, and keeps others away.
pub(super) fn open_alone(path: &Path, is_device: bool) -> Result<(File, Held)> {
    let device = device_path(&path.to_string_lossy());
    // The volumes first: while one is mounted, Windows lets nobody write to its sectors.
    let held = match device {
        Some(DevicePath::Disk(_)) => lock_all(&runs_at(path), true)?.map_err(|volume| in_use(&volume))?,
        _ => Vec::new(),
    };
    // Others must be able to open a device, or it could not be opened at all; a file is ours.
    let (share, flags) =
        if is_device { (FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_FLAG_WRITE_THROUGH) } else { (FILE_SHARE_READ, 0) };
    let file = File::options().read(true).write(true).share_mode(share).custom_flags(flags).open(path);
    let file = file.map_err(|error| match () {
        () if is(&error, ERROR_SHARING_VIOLATION) => {
            Error::Refused(format!("{} is in use by another program", path.display()))
        }
        () if is(&error, ERROR_WRITE_PROTECT) => {
            Error::Refused(format!("{} is read-only: the system does not let it be written", path.display()))
        }
        () => Error::io("open", path, error),
    })?;
    if let Some(DevicePath::Volume(_)) = device {
        if !lock(&file).map_err(|error| Error::io("lock", path, error))? {
            return Err(in_use(&path.display().to_string()));
        }
        dismount(&file).map_err(|error| Error::io("dismount", path, error))?;
        allow_all_sectors(&file);
    }
    Ok((file, held))
}

/// Has the system forget what it caches of a range: there is no such call, and devices are written through.
pub(super) fn forget(_file: &File, _offset: u64, _len: u64) {}

/// Has a device forget its buffers: there is no such call, and reads past them need none.
pub(super) fn drop_buffers(_device: &File) {}

fn is_volume(path: &Path) -> bool {
    matches!(device_path(&path.to_string_lossy()), Some(DevicePath::Volume(_)))
}

/// Opens what stands at the path of an open target once more for reading. A volume is locked: only its own handle reaches it, and the system caches nothing
/// of what is read and written by that.
pub(super) fn open_again(file: &File, path: &Path) -> io::Result<File> {
    if is_volume(path) { file.try_clone() } else { open_disk(path) }
}

/// Opens for reading past the caches; `None` where the filesystem has no such reads, and for a locked volume, which only its own handle reaches.
pub(super) fn open_direct(path: &Path) -> io::Result<Option<File>> {
    if is_volume(path) {
        return Ok(None);
    }
    match File::options().read(true).custom_flags(FILE_FLAG_NO_BUFFERING).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_refused_direct(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says whether a read past the caches failed because it was not aligned to the sectors.
pub(super) fn is_refused_direct(error: &io::Error) -> bool {
    is(error, ERROR_INVALID_PARAMETER)
}

/// Makes a range of a file zero without writing it; `false` where that cannot be done.
pub(super) fn make_zero(file: &File, is_device: bool, offset: u64, len: u64) -> bool {
    if is_device {
        return false;
    }
    // FILE_ZERO_DATA_INFORMATION: first byte, and first byte behind.
    let range = [offset.to_le_bytes(), offset.saturating_add(len).to_le_bytes()].concat();
    control_bytes(file, FSCTL_SET_ZERO_DATA, &range, &mut []).is_ok()
}

/// Says that a range is not needed: a hint, which is not given here.
pub(super) fn discard(_file: &File, _offset: u64, _len: u64) {}

/// Has the system read the partition table of a device again.
pub(super) fn reread_table(device: &File) -> io::Result<()> {
    match control_bytes(device, IOCTL_DISK_UPDATE_PROPERTIES, &[], &mut []) {
        // A volume has no table.
        Err(error) if is(&error, ERROR_INVALID_FUNCTION) || is(&error, ERROR_NOT_SUPPORTED) => Ok(()),
        done => done.map(|_| ()),
    }
}
