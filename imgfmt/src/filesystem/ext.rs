//! ext2, ext3 and ext4: which blocks are used, by the bitmaps and by the metadata, and the files.
//!
//! Layers, from the bytes upwards: [`superblock`], [`group`] descriptors, [`inode`], [`volume`] reads all of them with their checksums, through the
//! [`journal`] where that must be replayed; [`map`] follows extents and block maps, [`directory`] and [`xattr`] parse what blocks hold, [`folder`] reads
//! directories, with the help of [`hash`]; [`used`] answers the questions of [`UsedBlocks`], [`files`] and
//! [`content`] those of [`FileSystem`](crate::filesystem::files::FileSystem).
//!
//! Sources: "Ext4 Data Structures and Algorithms" in the documentation of the Linux kernel, and the drivers of Linux where it is silent.
//!
//! # Not supported
//!
//! Compression (e2compr), Lustre's `dirdata`, snapshots and replicas; what is encrypted; journals on other devices and fast commits, where they must be
//! replayed. Filesystems with a journal to replay, errors, or deleted files that wait to be freed are read, but
//! [`doubts`](crate::filesystem::UsedBlocks::doubts) says that their bitmaps are not to be trusted.

pub mod checksum;
pub mod content;
pub mod directory;
pub mod files;
pub mod folder;
pub mod group;
pub mod hash;
pub mod inode;
pub mod journal;
pub mod map;
pub mod replay;
pub mod superblock;
pub mod used;
pub mod volume;
pub mod xattr;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::{Driver, UsedBlocks};

/// ext2, ext3 and ext4 among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: Some(files::open) };

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    Ok(match volume::Volume::open(partition)? {
        Some(volume) => Some(Box::new(volume)),
        None => None,
    })
}
