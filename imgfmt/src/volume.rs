//! Volumes that lie across partitions: what a volume manager joins to a disk.
//!
//! [`lvm2`] reads the metadata of Linux's logical volumes, [`mapped`] is a disk made of pieces of other disks.

pub mod lvm2;
pub mod mapped;
