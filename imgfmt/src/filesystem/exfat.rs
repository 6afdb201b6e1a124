//! exFAT: which clusters are used, by the bitmap and by the directories.
//!
//! Layers, from the bytes upwards: [`boot`] the boot regions, [`directory`] sets of directory entries, [`volume`] finds directories
//! and chains, [`used`] answers the questions of [`UsedBlocks`](crate::filesystem::UsedBlocks). The file
//! allocation table is in [`chain`](crate::filesystem::chain).
//!
//! Source: "exFAT file system specification", Microsoft, 2019.
//!
//! # Not supported
//!
//! Revisions other than 1.x, and TexFAT (two tables and bitmaps): it is read, but
//! [`doubts`](crate::filesystem::UsedBlocks::doubts) says that its bitmap is not to be trusted.

pub mod boot;
pub mod directory;
pub mod used;
pub mod volume;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::{Driver, UsedBlocks};

/// exFAT among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: None };

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(volume)),
        None => None,
    })
}
