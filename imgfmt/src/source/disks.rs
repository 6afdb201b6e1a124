//! The disks of a machine: what they are, what is built upon them, and who uses them.

use std::path::PathBuf;

use crate::source::device::{DeviceNumber, Use, is_system_place};

#[cfg(unix)]
pub(crate) mod unix;
#[cfg(windows)]
mod windows;

/// Something that is built upon a disk or partition and holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's name of it: `dm-0`, `md127`.
    pub device: String,
    /// What it is, in words: "LVM volume vg-root", "LUKS volume home", "RAID raid1".
    pub what: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.what, self.device)
    }
}

/// A partition as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPart {
    /// Its number.
    pub number: u32,
    /// Its device.
    pub device: DeviceNumber,
    /// Its node.
    pub path: PathBuf,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Mounts and swap on it and on what is built upon it.
    pub uses: Vec<Use>,
    /// What is built upon it.
    pub holders: Vec<Holder>,
}

/// A whole disk, described without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDescription {
    /// Its device.
    pub device: DeviceNumber,
    /// Its node, such as `/dev/sda` or `\\.\PhysicalDrive0`.
    pub path: PathBuf,
    /// Names that stay with it, such as `ata-MODEL_SERIAL`; sorted.
    pub aliases: Vec<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// How it is attached: `usb`, `ata`, `nvme`, `virtio`, `mmc`, `loop` and the like.
    pub bus: Option<String>,
    /// Bytes.
    pub len: u64,
    /// Logical sector size in bytes.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether the kernel refuses to write to it.
    pub read_only: bool,
    /// Counts every disk that the kernel ever saw: another disk under the same name has another number.
    pub sequence: Option<u64>,
    /// The file behind a loop device.
    pub backing: Option<PathBuf>,
    /// Partitions that the kernel knows, by number.
    pub parts: Vec<DiskPart>,
    /// Mounts and swap on the disk itself, on its partitions, and on what is built upon those.
    pub uses: Vec<Use>,
    /// What is built upon the disk itself.
    pub holders: Vec<Holder>,
}

impl DiskDescription {
    /// Says whether the running system needs this disk: its root, boot or system folders lie on it, or it swaps to it.
    pub fn is_system(&self) -> bool {
        self.uses.iter().any(|use_| match use_ {
            Use::MountedWritable(place) | Use::MountedReadOnly(place) => is_system_place(place),
            Use::Swap => true,
        })
    }

    /// Everything that is built upon the disk and upon its partitions.
    pub fn all_holders(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().chain(self.parts.iter().flat_map(|part| &part.holders))
    }
}
