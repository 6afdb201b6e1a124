//! How a disk starts, and what on it names disks, partitions and filesystems.
//!
//! [`examine`] follows the chain of a BIOS and that of UEFI to the system, reading files through their filesystems only and running nothing, and lists every
//! reference to an identity that it finds: boot.ini, BCD, `MountedDevices`, fstab, crypttab, the configurations of GRUB, systemd-boot and Syslinux.
//!
//! # Not supported
//!
//! What lies in encrypted volumes and in filesystems whose files are not read, GRUB legacy, LILO, and anything that the machine keeps in its own
//! memory (NVRAM): a chain that leads there is doubtful, not whole.

pub mod bcd;
mod bios;
pub mod boot_code;
pub mod boot_ini;
pub mod chain;
mod collect;
pub mod core_image;
mod grub;
pub mod grub_cfg;
pub mod hive;
mod linux;
pub mod lzma;
pub mod mounted_devices;
pub mod reference;
pub mod text_files;
mod uefi;
pub mod volumes;
mod windows;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::startup::chain::Chain;
use crate::startup::reference::Reference;
use crate::startup::volumes::Volumes;

/// What is known of how a disk starts.
#[derive(Debug)]
pub struct Startup {
    /// What lies on it.
    pub volumes: Volumes,
    /// From a BIOS.
    pub bios: Chain,
    /// From UEFI firmware.
    pub uefi: Chain,
    /// Everything that names a disk, partition or filesystem.
    pub references: Vec<Reference>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

/// Looks at a disk.
pub fn examine(disk: &Arc<dyn Disk>) -> Result<Startup> {
    let volumes = Volumes::open(disk)?;
    let bios = bios::follow_bios(disk, &volumes)?;
    let uefi = uefi::follow_uefi(&volumes);
    let collected = collect::collect(&volumes);
    Ok(Startup { bios, uefi, references: collected.references, notes: collected.notes, volumes })
}
