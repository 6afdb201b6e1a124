//! NTFS: which clusters are used, by the bitmap and by the metadata, and the files.
//!
//! Layers, from the bytes upwards: [`boot`] the boot sector, [`record`] MFT records and their attributes, [`runs`] run lists, [`volume`] finds
//! records, [`attribute`] joins the pieces of a file's attributes. On these, [`used`] answers the questions of
//! [`UsedBlocks`], and `files` those of [`FileSystem`](crate::filesystem::files::FileSystem): with `index` for
//! folders, `content`, `compressed` and `wof` for the bytes of streams, `reparse` for links, `security`, `ea` and `xattrs` for the rest.
//! [`lznt1`], [`xpress`] and [`lzx`] decompress.
//!
//! Sources: the documentation of the Linux-NTFS project (attributes, run lists, $LogFile), and `layout.h` of ntfs-3g for field names.
//!
//! # Not supported
//!
//! - Volumes whose version is not 1.2, 3.0 or 3.1, and volumes with a dirty flag or a journal to replay: they are read as they are, but
//!   [`doubts`](crate::filesystem::UsedBlocks::doubts) says that their bitmap is not to be trusted. The journal is not replayed.
//! - Content that is encrypted (EFS), deduplicated, in the cloud or in another file: refused by name when it is opened.
//! - Named pipes and sockets of Interix (system files of 0 and 1 bytes): shown as files, since nothing tells them from files of Windows.

pub mod attribute;
pub mod boot;
mod compressed;
mod content;
pub mod decode;
mod ea;
mod files;
mod index;
pub mod lznt1;
pub mod lzx;
mod names;
pub mod record;
mod reparse;
pub mod runs;
mod security;
mod units;
pub mod used;
pub mod volume;
mod wof;
mod xattrs;
pub mod xpress;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::{Driver, UsedBlocks};

/// NTFS among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: Some(files::open) };

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(volume)),
        None => None,
    })
}
