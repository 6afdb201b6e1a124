//! A fixed VHDX: headers, regions, an empty log, and all blocks in order.

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::identity::Identity;
use crate::format::vhdx::write::{FIXED_BLOCKS, Geometry, Kind, MAX_LEN, places_and_headers};
use crate::view::pieces::{Builder, View};
use crate::view::{check, whole_sectors};

pub(super) fn view(disk: Arc<dyn Disk>, identity: &Identity) -> Result<View, String> {
    check(&disk, "VHDX", MAX_LEN, false)?;
    let geometry = Geometry::of(whole_sectors(&disk), disk.sector_size(), FIXED_BLOCKS);
    let (blocks, end) = (geometry, geometry.data_end());
    let mut file = Builder::new(disk);
    for (place, bytes) in places_and_headers(&geometry, Kind::Fixed, identity) {
        file = file.zeros_to(place).bytes(bytes);
    }
    let file = file
        .zeros_to(geometry.bat)
        .table(geometry.entries(), 8, move |index| blocks.fixed_entry(index).to_le_bytes())
        .zeros_to(geometry.data)
        .disk()
        .zeros_to(end);
    Ok(file.build())
}
