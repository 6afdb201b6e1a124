//! FAT12, FAT16 and FAT32: which clusters are used, by the table and by the directories.
//!
//! Layers, from the bytes upwards: [`boot`] the boot sector, [`directory`] entries and their names,
//! [`volume`] finds directories, [`used`] answers the questions of [`UsedBlocks`](crate::filesystem::UsedBlocks). The
//! file allocation table is in [`chain`](crate::filesystem::chain).
//!
//! Sources: "Microsoft Extensible Firmware Initiative FAT32 File System Specification", version 1.03 ("fatgen103"); where drivers
//! differ from it, the drivers of Linux (`fs/fat`) and of Windows (`fastfat`, published as a sample).
//!
//! # Not supported
//!
//! Volumes without a jump and the signature 0x55AA in the boot sector (Atari, DOS before 3.0), and FAT+ (files past 4 GiB).

pub mod boot;
pub mod code_page;
pub mod directory;
pub mod used;
pub mod volume;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::{Driver, UsedBlocks};

/// FAT among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: None };

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(volume)),
        None => None,
    })
}
