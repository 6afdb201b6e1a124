//! VDI: VirtualBox's format; dynamic, fixed and differencing.
//!
//! A disk is cut into blocks (1 MiB mostly), and a block map places them. A differencing file knows its parent by an identifier only, so the folder is searched for it.
//!
//! Source: the fields as in QEMU's block/vdi.c and in VirtualBox's description of the format ("All about VDIs").
//!
//! # Not supported
//!
//! Files of version 0 (VirtualBox before 2.0), undo files, and extra bytes before each block, which no program writes; all refused by name.

mod layout;
mod read;
pub(crate) mod write;

use crate::format::{Driver, Format};

/// Its place in the table of formats.
pub(super) const DRIVER: Driver = Driver { format: Format::Vdi, probe: read::probe, open: read::open };
