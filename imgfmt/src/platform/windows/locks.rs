//! Locks of files.
//!
//! Windows keeps all others from the bytes that are locked, even from reading them, and the standard library locks all bytes of a file. Here a lock only says who
//! has a file: others may look at it, and find there who that is. So one byte is locked, far behind the end of any file.

use std::fs::{File, TryLockError};
use std::io;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION};
use windows_sys::Win32::Storage::FileSystem::{
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};

/// The upper half of the offset of the byte that is locked.
const OFFSET_HIGH: u32 = 0x4000_0000;

/// Locks a file for this handle alone, or says that another one has it.
pub(crate) fn try_lock(file: &File) -> Result<(), TryLockError> {
    lock(file, LOCKFILE_EXCLUSIVE_LOCK)
}

/// Locks a file together with others that do the same.
pub(crate) fn try_lock_shared(file: &File) -> Result<(), TryLockError> {
    lock(file, 0)
}

/// Gives a lock up.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    let mut place = place();
    // SAFETY: the handle is open, and the call is over when it returns.
    match unsafe { UnlockFileEx(file.as_raw_handle(), 0, 1, 0, &raw mut place) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn lock(file: &File, flags: u32) -> Result<(), TryLockError> {
    let mut place = place();
    // SAFETY: the handle is open, and the call, which is told not to wait, is over when it returns.
    let locked =
        unsafe { LockFileEx(file.as_raw_handle(), flags | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &raw mut place) };
    if locked != 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Err(TryLockError::WouldBlock),
        _ => Err(TryLockError::Error(error)),
    }
}

fn place() -> OVERLAPPED {
    let at = OVERLAPPED_0_0 { Offset: 0, OffsetHigh: OFFSET_HIGH };
    OVERLAPPED { Anonymous: OVERLAPPED_0 { Anonymous: at }, ..OVERLAPPED::default() }
}
