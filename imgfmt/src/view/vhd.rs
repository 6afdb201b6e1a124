//! A fixed VHD: the disk, and a footer behind it.

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::identity::Identity;
use crate::format::vhd::write::{MAX_LEN, fixed_footer};
use crate::view::pieces::{Builder, View};
use crate::view::{check, whole_sectors};

pub(super) fn view(disk: Arc<dyn Disk>, identity: &Identity) -> Result<View, String> {
    check(&disk, "VHD", MAX_LEN, true)?;
    let len = whole_sectors(&disk);
    Ok(Builder::new(disk).disk().zeros_to(len).bytes(fixed_footer(len, identity)).build())
}
