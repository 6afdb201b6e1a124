//! qcow2, versions 2 and 3: QEMU's copy-on-write format.
//!
//! A disk is cut into clusters. A table of two levels (L1, L2) says of each whether it lies in the file as it is, compressed, is zero, or
//! comes from the backing file. An image that was not closed cleanly (dirty, for its reference counts may be wrong) is read like any other: reading needs
//! no reference count.
//!
//! Source: docs/interop/qcow2.rst of QEMU 10.
//!
//! # Not supported
//!
//! Version 1 and encryption, which are refused by name; persistent bitmaps are ignored, as the specification allows.

mod layout;
mod read;
mod snapshot;
pub(crate) mod write;

use crate::format::{Driver, Format};

pub use write::Compression;

/// Its place in the table of formats.
pub(super) const DRIVER: Driver = Driver {
    format: Format::Qcow2,
    probe: |sample| sample.head.starts_with(&layout::MAGIC.to_be_bytes()),
    open: read::open,
};
