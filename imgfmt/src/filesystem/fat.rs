//! FAT12, FAT16 and FAT32: which clusters are used, by the table and by the directories; and the files in them.
//!
//! Layers, from the bytes upwards: [`boot`] the boot sector, [`directory`] entries and their names,
//! [`volume`] finds directories, [`used`] answers the questions of [`UsedBlocks`], [`files`]
//! those of [`FileSystem`]. The file allocation table is in [`chain`](crate::filesystem::chain).
//!
//! Sources: "Microsoft Extensible Firmware Initiative FAT32 File System Specification", version 1.03 ("fatgen103"); where drivers
//! differ from it, the drivers of Linux (`fs/fat`) and of Windows (`fastfat`, published as a sample).
//!
//! # Not supported
//!
//! 8.3 names in another OEM code page than 437: nothing on a volume tells which one it is; long names need none. Volumes without a jump and the signature 0x55AA in the boot sector (Atari, DOS before 3.0), and FAT+ (files past 4 GiB).

pub mod boot;
pub mod code_page;
pub mod directory;
pub mod files;
pub mod used;
pub mod volume;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::files::FileSystem;
use crate::filesystem::{Driver, UsedBlocks};

/// FAT among the filesystems.
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
