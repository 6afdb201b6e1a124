//! VHDX: Hyper-V's format; fixed, dynamic and differencing, with sectors of 512 and 4096 bytes.
//!
//! Two headers, of which the newer valid one counts; two region tables; a metadata table; a block allocation table that places blocks of 1 to 256 MiB, with a block of
//! sector bitmaps after every so many. Changes of these go through a log. A file that was not closed cleanly has entries in it that belong before
//! everything else: they are replayed into memory, and the file stays as it is.
//!
//! Source: [MS-VHDX], version 20240423.
//!
//! # Not supported
//!
//! Logs longer than 64 MiB (Hyper-V writes 1 MiB) that hold entries.

mod crc32c;
mod layout;
mod log;
mod metadata;
mod read;
mod replay;
pub(crate) mod write;

use crate::format::{Driver, Format};

/// Its place in the table of formats.
pub(super) const DRIVER: Driver =
    Driver { format: Format::Vhdx, probe: |sample| sample.head.starts_with(layout::FILE_SIGNATURE), open: read::open };
