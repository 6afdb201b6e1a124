//! Requests to Linux block devices that have no safe wrapper elsewhere.
//!
//! Source: include/uapi/linux/fs.h of Linux.
#![expect(unsafe_code, reason = "each request is one system call without pointers, declared here")]

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};

/// `BLKRRPART`: read the partition table again.
const BLKRRPART: Opcode = opcode::none(0x12, 95);
/// `BLKFLSBUF`: write out and forget what is cached of the device.
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);

/// Has the kernel read the partition table again. Fails where a partition is in use.
pub(super) fn reread_table(device: impl AsFd) -> Result<()> {
    // SAFETY: the opcode is the kernel's own, and the request takes no argument: no memory is read or written.
    unsafe { ioctl(device, NoArg::<BLKRRPART>::new()) }
}

/// Has the kernel write out and forget what it caches of the device.
pub(super) fn flush_buffers(device: impl AsFd) -> Result<()> {
    // SAFETY: the opcode is the kernel's own, and the request takes no argument: no memory is read or written.
    unsafe { ioctl(device, NoArg::<BLKFLSBUF>::new()) }
}
