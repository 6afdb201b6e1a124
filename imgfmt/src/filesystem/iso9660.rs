//! ISO 9660 with Rock Ridge or Joliet: the files of a CD, DVD or their image.
//!
//! Layers, from the bytes upwards: [`record`] directory records and dates, [`rock_ridge`] what Unix keeps in them, [`volume`] the volume
//! descriptors and which names are used (Rock Ridge before Joliet before plain ones), [`files`] the files.
//!
//! Sources: ECMA-119 4th edition; "System Use Sharing Protocol" (IEEE P1281) 1.12 and "Rock Ridge Interchange Protocol" (IEEE P1282)
//! 1.12; "Joliet Specification", Microsoft, 1995.
//!
//! # Not supported
//!
//! Files stored interleaved, sparse (RRIP SF) or compressed (zisofs): opening one says so. Sessions after the first, associated files (which are
//! left out), ACLs and extended attributes of AAIP, UDF. Its used blocks are not told: the partition is kept whole.

pub mod files;
pub mod record;
pub mod rock_ridge;
pub mod volume;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::Driver;
use crate::filesystem::files::FileSystem;

/// ISO 9660 among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: None, files: Some(open_files) };

fn open_files(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn FileSystem>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(files::Files::new(volume))),
        None => None,
    })
}
