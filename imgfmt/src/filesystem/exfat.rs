//! exFAT: which clusters are used, by the bitmap and by the directories; and the files in them.
//!
//! Layers, from the bytes upwards: [`boot`] the boot regions, [`directory`] sets of directory entries, [`volume`] finds directories
//! and chains, [`used`] answers the questions of [`UsedBlocks`], [`files`] those of
//! [`FileSystem`], which compares names by [`upcase`]. The file allocation table is in [`chain`](crate::filesystem::chain).
//!
//! Source: "exFAT file system specification", Microsoft, 2019.
//!
//! # Not supported
//!
//! Revisions other than 1.x, and TexFAT (two tables and bitmaps): it is read, but
//! [`doubts`](crate::filesystem::UsedBlocks::doubts) says that its bitmap is not to be trusted.

pub mod boot;
pub mod directory;
pub mod files;
pub mod upcase;
pub mod used;
pub mod volume;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::files::FileSystem;
use crate::filesystem::{Driver, UsedBlocks};

/// exFAT among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: Some(open_files) };

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(volume)),
        None => None,
    })
}

fn open_files(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn FileSystem>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(files::Files::new(volume))),
        None => None,
    })
}
