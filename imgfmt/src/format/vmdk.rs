//! VMDK: VMware's format; sparse, stream-optimized and flat files, in one piece or many, and snapshots over parents.
//!
//! A descriptor, a text of its own or inside a sparse file, lists extents: runs of the disk that lie in files. A sparse extent places grains (64 KiB mostly) by
//! a directory and tables. A descriptor that names a parent is a snapshot: what its extents are silent about comes from there.
//!
//! Source: "Virtual Disk Format 5.0", VMware, 2011.
//!
//! # Not supported
//!
//! ESX's own sparse files (COWD, seSparse), raw device mappings and encryption: all refused by name.

pub(crate) mod descriptor;
mod layout;
mod read;
mod sparse;
pub(crate) mod write;

use crate::format::{Driver, Format};

/// Its place in the table of formats.
pub(super) const DRIVER: Driver = Driver { format: Format::Vmdk, probe: read::probe, open: read::open };
