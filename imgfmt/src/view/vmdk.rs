//! A flat VMDK: a descriptor, and an extent that is the disk.

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::identity::Identity;
use crate::format::vmdk::descriptor::{Kind, MAX_FLAT, descriptor as text};
use crate::view::pieces::{Builder, View};
use crate::view::{check, whole_sectors};

/// The descriptor; `extent` is the file beside it.
pub(super) fn descriptor(disk: Arc<dyn Disk>, extent: &str, identity: &Identity) -> Result<View, String> {
    check(&disk, "VMDK", MAX_FLAT, true)?;
    let text = text(Kind::MonolithicFlat, whole_sectors(&disk), extent, identity);
    Ok(Builder::new(disk).bytes(text.into_bytes()).build())
}

/// The extent.
pub(super) fn extent(disk: Arc<dyn Disk>) -> Result<View, String> {
    check(&disk, "VMDK", MAX_FLAT, true)?;
    let len = whole_sectors(&disk);
    Ok(Builder::new(disk).disk().zeros_to(len).build())
}
