//! LVM2: the logical volumes whose linear and striped segments lie on the physical volumes of one disk.
//!
//! A physical volume starts with a [`label`] that says where its metadata areas are; each of those holds, as [`text`], the
//! description of the whole volume group ([`metadata`]). Checksums are checked, the newest valid description wins.
//!
//! Source: "LVM2 on-disk format" as documented by libvslvm, and lvm.conf(5), lvmsystemid(7) for the text.
//!
//! # Not supported
//!
//! Segments other than linear, striped and zero: mirrors, RAID, thin pools, caches, snapshots, VDO, integrity. Volumes that have
//! them are named with their kind. Volumes with a part on another disk are named with what is missing. LVM1 is not read.

pub mod label;
pub mod metadata;
pub mod text;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::volume::lvm2::label::Label;
use crate::volume::lvm2::metadata::{Mapping, VolumeGroup};
use crate::volume::mapped::{Leg, MappedDisk, Segment};

/// One physical volume: a partition, or a disk without a table.
#[derive(Clone)]
pub struct PhysicalVolume {
    disk: Arc<dyn Disk>,
    label: Label,
    /// The newest description that its own metadata areas hold; a volume may hold none.
    group: Option<Arc<VolumeGroup>>,
}

impl std::fmt::Debug for PhysicalVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PhysicalVolume").field("label", &self.label).field("group", &self.group).finish_non_exhaustive()
    }
}

impl PhysicalVolume {
    /// Opens a partition as a physical volume; `None` where it has no label.
    pub fn open(disk: &Arc<dyn Disk>) -> Result<Option<Self>> {
        let Some(label) = Label::read(disk)? else { return Ok(None) };
        let mut group: Option<VolumeGroup> = None;
        let mut problem = None;
        for area in &label.metadata_areas {
            match label::read_area(disk, *area).and_then(|text| text.map(|text| metadata::parse(&text)).transpose()) {
                Ok(Some(found)) if group.as_ref().is_none_or(|group| group.sequence < found.sequence) => {
                    group = Some(found);
                }
                Ok(_) => {}
                Err(error) => problem = Some(error),
            }
        }
        match (group, problem) {
            // A second copy is there for the case that the first is damaged.
            (None, Some(error)) => Err(error),
            (group, _) => Ok(Some(Self { disk: Arc::clone(disk), label, group: group.map(Arc::new) })),
        }
    }

    /// The volume group that it says it belongs to.
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.name.as_str())
    }
}

/// A logical volume.
pub struct LogicalVolume {
    /// `group-volume`, each hyphen inside the two names doubled, as Linux names it below /dev/mapper.
    pub name: String,
    /// The volume as a disk, or why there is none.
    pub disk: Result<Arc<dyn Disk>>,
}

impl std::fmt::Debug for LogicalVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalVolume").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Assembles the logical volumes of all groups that have a physical volume among `volumes`, by name.
pub fn assemble(volumes: &[PhysicalVolume]) -> Vec<LogicalVolume> {
    let mut groups: BTreeMap<&str, &Arc<VolumeGroup>> = BTreeMap::new();
    for group in volumes.iter().filter_map(|volume| volume.group.as_ref()) {
        let newest = groups.entry(&group.id).or_insert(group);
        if newest.sequence < group.sequence {
            *newest = group;
        }
    }
    let mut found = Vec::new();
    for group in groups.values() {
        for volume in group.volumes.iter().filter(|volume| volume.visible) {
            let name = format!("{}-{}", group.name.replace('-', "--"), volume.name.replace('-', "--"));
            let disk = map(group, &name, &volume.mappings, volumes);
            found.push(LogicalVolume { name, disk });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Builds the disk of a logical volume.
fn map(group: &VolumeGroup, name: &str, mappings: &[Mapping], volumes: &[PhysicalVolume]) -> Result<Arc<dyn Disk>> {
    let what = || format!("LVM2 volume {name}");
    let corrupt = |reason| Error::corrupt(what(), 0, reason);
    let mut sector_size = 512;
    let mut segments = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        if let Some(kind) = &mapping.unsupported {
            return Err(Error::unsupported(what(), format!("a segment of type {kind}")));
        }
        let mut legs = Vec::with_capacity(mapping.stripes.len());
        for (volume_name, extent) in &mapping.stripes {
            let described = group.physical.get(volume_name).ok_or_else(|| corrupt("a stripe names no known volume"))?;
            let volume = volumes.iter().find(|volume| volume.label.id == described.id).ok_or_else(|| {
                let (id, device) = (&described.id, &described.device);
                Error::NotFound(format!("{name} has a part on physical volume {id} (once {device}), on another disk"))
            })?;
            sector_size = sector_size.max(volume.disk.sector_size());
            let offset = extent
                .checked_mul(group.extent_len.get())
                .and_then(|offset| offset.checked_add(described.start))
                .ok_or_else(|| corrupt("a stripe lies past all bounds"))?;
            legs.push(Leg { disk: Arc::clone(&volume.disk), offset });
        }
        let len = mapping
            .extents
            .checked_mul(group.extent_len.get())
            .ok_or_else(|| corrupt("a segment is longer than any disk"))?;
        segments.push(Segment { len, stripe_len: mapping.stripe_len.unwrap_or(NonZeroU64::MIN), legs });
    }
    Ok(Arc::new(MappedDisk::open(segments, sector_size)?))
}
