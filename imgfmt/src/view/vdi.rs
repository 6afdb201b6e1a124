//! A fixed VDI: header, block map, and all blocks in order.

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::identity::Identity;
use crate::format::vdi::write::{Geometry, MAX_LEN, fixed_header};
use crate::view::pieces::{Builder, View};
use crate::view::{check, whole_sectors};

pub(super) fn view(disk: Arc<dyn Disk>, identity: &Identity) -> Result<View, String> {
    check(&disk, "VDI", MAX_LEN, true)?;
    let geometry = Geometry::of(whole_sectors(&disk));
    let entry = |block: u64| {
        let [a, b, c, d, ..] = block.to_le_bytes();
        [a, b, c, d, 0, 0, 0, 0]
    };
    let file = Builder::new(disk)
        .bytes(fixed_header(&geometry, identity))
        .table(geometry.blocks, 4, entry)
        .zeros_to(geometry.data)
        .disk()
        .zeros_to(geometry.data_end());
    Ok(file.build())
}
