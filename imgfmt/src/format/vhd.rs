//! VHD: Virtual PC's and early Hyper-V's format; fixed, dynamic and differencing.
//!
//! A fixed file is the disk with a footer of 512 bytes behind it. The others begin with a copy of that footer and a second header, whose block
//! allocation table places blocks (2 MiB mostly), each behind a bitmap of its sectors. Where the footer at the end is damaged or lost, the copy at the start is used.
//!
//! The length of the disk is the footer's `current_size`, as Windows and VirtualBox have it. Virtual PC and some versions of QEMU took the geometry instead, which can be less; a note
//! says so.
//!
//! Source: "Virtual Hard Disk Image Format Specification", version 1.0, Microsoft, 2006.

mod layout;
mod read;
pub(crate) mod write;

use crate::format::{Driver, Format};

/// Its place in the table of formats.
pub(super) const DRIVER: Driver = Driver { format: Format::Vhd, probe: read::probe, open: read::open };
