//! Other disks of this machine that have the identity which a target will have.

use crate::partition::{Scheme, read_layout};
use crate::restore::facts::Facts;
use crate::source::{FileDisk, System};

/// What to say of each attached disk whose signature or GUID is `disk_id`, the target itself left out. Disks that cannot be read are left out too.
pub fn same_identity(system: &System, target: &Facts, disk_id: &str) -> Vec<String> {
    let own = target.disk().map(|disk| disk.device);
    if disk_id.is_empty() || disk_id == "00000000" || own.is_none() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for disk in system.disks().unwrap_or_default() {
        if Some(disk.device) == own {
            continue;
        }
        let layout = FileDisk::open(&disk.path, disk.logical_sector_size).and_then(|disk| read_layout(&disk));
        let Ok(layout) = layout else { continue };
        if layout.disk_id == disk_id {
            let what = if layout.scheme == Scheme::Mbr { "disk signature" } else { "disk GUID" };
            warnings.push(format!(
                "{} is attached too, and has the same {what} {disk_id}: Windows takes one of two such disks offline, and PARTUUID means either; pull one of them, or give the copy its own with --new-ids",
                disk.path.display()
            ));
        }
    }
    warnings
}
