//! A qcow2 whose clusters are all mapped, in order, each referenced once.

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::qcow2::write::{ALL_ZERO, MAX_LEN, Mapped, mapped_header};
use crate::view::pieces::{Builder, View};
use crate::view::{check, whole_sectors};

pub(super) fn view(disk: Arc<dyn Disk>) -> Result<View, String> {
    check(&disk, "qcow2", MAX_LEN, false)?;
    let map = Mapped::of(whole_sectors(&disk));
    let file = Builder::new(disk)
        .bytes(mapped_header(&map))
        .zeros_to(map.refcount_table)
        .table(map.refcount_blocks_count, 8, move |index| map.refcount_block(index).to_be_bytes())
        .zeros_to(map.refcount_blocks)
        .table(map.clusters, 2, |_| [0, 1, 0, 0, 0, 0, 0, 0])
        .zeros_to(map.l1)
        .table(map.l2_count, 8, move |index| map.l1_entry(index).to_be_bytes())
        .zeros_to(map.l2)
        .zero_map(
            map.data_clusters,
            move |index| map.l2_entry(index).to_be_bytes(),
            ALL_ZERO.to_be_bytes(),
            1 << map.cluster_bits,
        )
        .zeros_to(map.data)
        .disk()
        .zeros_to(map.data_end());
    Ok(file.build())
}
