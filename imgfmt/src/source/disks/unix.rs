//! Unix: the disks in sysfs.
//!
//! Source: Documentation/ABI/stable/sysfs-block of Linux; SPC-4 section 7.8.13 for the unit serial number page.

use std::path::{Path, PathBuf};

use crate::bytes::be16;
use crate::error::{Error, Result};
use crate::source::device::unix::trimmed;
use crate::source::device::{DeviceNumber, System};
use crate::source::disks::{DiskDescription, DiskPart, Holder};

/// What sysfs counts sizes in, whatever the sectors of the disk are.
const SYSFS_SECTOR: u64 = 512;

impl System {
    /// Every disk that has a size: physical disks, and loop, mapped and RAID devices. Sorted by name.
    pub fn disks(&self) -> Result<Vec<DiskDescription>> {
        let folder = self.sysfs.join("block");
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("list", &folder, error))?;
        let mut disks = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("ram") || name.starts_with("zram") {
                continue;
            }
            if let Some(disk) = self.describe_folder(&entry.path())
                && disk.len > 0
            {
                disks.push(disk);
            }
        }
        disks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(disks)
    }

    /// Describes the disk that a device is or is part of. `None` where sysfs does not know the device.
    pub fn disk_of(&self, device: DeviceNumber) -> Option<DiskDescription> {
        self.describe_folder(&self.disk_folder(device))
    }

    fn describe_folder(&self, folder: &Path) -> Option<DiskDescription> {
        // Links are resolved, since the way to a device says how it is attached.
        let folder = std::fs::canonicalize(folder).ok()?;
        let device = Self::number_in(&folder)?;
        let number = |name: &str| trimmed(&folder.join(name)).and_then(|text| text.parse::<u64>().ok());
        let size_of = |name: &str| number(name).and_then(|size| u32::try_from(size).ok()).unwrap_or(512);
        let mut parts = self.parts_in(&folder);
        parts.sort_by_key(|part| part.number);
        let mut devices = self.with_dependents(device);
        if let Some(backing) = trimmed(&folder.join("loop/backing_file")) {
            // The same bytes under another loop device, perhaps at an offset.
            devices
                .extend(self.loops_over(Path::new(&backing)).into_iter().flat_map(|other| self.with_dependents(other)));
            devices.sort_unstable();
            devices.dedup();
        }
        Some(DiskDescription {
            device,
            path: self.node(device),
            aliases: self.aliases_of(device),
            model: trimmed(&folder.join("device/model")),
            serial: self.serial_in(&folder),
            bus: bus_of(&folder),
            len: number("size").unwrap_or(0).saturating_mul(SYSFS_SECTOR),
            logical_sector_size: size_of("queue/logical_block_size"),
            physical_sector_size: size_of("queue/physical_block_size"),
            removable: number("removable") == Some(1),
            read_only: number("ro") == Some(1),
            sequence: number("diskseq"),
            backing: trimmed(&folder.join("loop/backing_file")).map(PathBuf::from),
            parts,
            uses: self.uses_of_devices(&devices),
            holders: self.holders_in(&folder),
        })
    }

    fn parts_in(&self, folder: &Path) -> Vec<DiskPart> {
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let folder = entry.path();
            let number = |name: &str| trimmed(&folder.join(name)).and_then(|text| text.parse::<u64>().ok());
            let Some(index) = number("partition").and_then(|number| u32::try_from(number).ok()) else { continue };
            let Some(device) = Self::number_in(&folder) else { continue };
            parts.push(DiskPart {
                number: index,
                device,
                path: self.node(device),
                start: number("start").unwrap_or(0).saturating_mul(SYSFS_SECTOR),
                len: number("size").unwrap_or(0).saturating_mul(SYSFS_SECTOR),
                uses: self.uses_of_devices(&self.with_dependents(device)),
                holders: self.holders_in(&folder),
            });
        }
        parts
    }

    fn holders_in(&self, folder: &Path) -> Vec<Holder> {
        let entries = std::fs::read_dir(folder.join("holders")).into_iter().flatten().flatten();
        let mut holders: Vec<_> = entries.filter_map(|entry| self.holder(&entry.path())).collect();
        holders.sort_by(|a, b| a.device.cmp(&b.device));
        holders
    }

    /// Names what holds a device, from its sysfs folder.
    fn holder(&self, folder: &Path) -> Option<Holder> {
        let device = folder.file_name()?.to_string_lossy().into_owned();
        Self::number_in(folder)?;
        let name = trimmed(&folder.join("dm/name"));
        let uuid = trimmed(&folder.join("dm/uuid")).unwrap_or_default();
        let what = match (name, trimmed(&folder.join("md/level"))) {
            (Some(name), _) => {
                let kind = match uuid.split('-').next().unwrap_or_default() {
                    "LVM" => "LVM volume",
                    "CRYPT" => "encrypted volume",
                    "mpath" => "multipath device",
                    _ => "mapped device",
                };
                format!("{kind} {name}")
            }
            (None, Some(level)) => format!("RAID {level}"),
            (None, None) => "unknown holder".to_owned(),
        };
        Some(Holder { device, what })
    }

    /// Serial number of the disk with this sysfs folder: from the driver, the SCSI unit serial number page, or udev.
    pub(crate) fn serial_in(&self, folder: &Path) -> Option<String> {
        let from_driver = trimmed(&folder.join("device/serial")).or_else(|| trimmed(&folder.join("serial")));
        from_driver.or_else(|| unit_serial(&folder.join("device/vpd_pg80"))).or_else(|| {
            let device = Self::number_in(folder)?;
            let text = std::fs::read_to_string(self.udev.join(format!("b{device}"))).ok()?;
            let serial = text.lines().find_map(|line| line.strip_prefix("E:ID_SERIAL_SHORT="))?;
            (!serial.trim().is_empty()).then(|| serial.trim().to_owned())
        })
    }

    /// The lasting names of a device, which are links to its node.
    fn aliases_of(&self, device: DeviceNumber) -> Vec<String> {
        let Ok(node) = std::fs::canonicalize(self.node(device)) else { return Vec::new() };
        let entries = std::fs::read_dir(&self.by_id).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| std::fs::canonicalize(entry.path()).is_ok_and(|target| target == node))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// The text of a SCSI unit serial number page.
fn unit_serial(path: &Path) -> Option<String> {
    let page = std::fs::read(path).ok()?;
    let len = usize::from(be16(&page, 2)?);
    let text = page.get(4..4_usize.checked_add(len)?)?;
    let text = String::from_utf8_lossy(text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// How a disk is attached, from the way to it through sysfs: the nearest bus counts.
fn bus_of(folder: &Path) -> Option<String> {
    let components: Vec<_> = folder.iter().map(|part| part.to_string_lossy()).collect();
    let starts = |part: &str, bus: &str| {
        part.strip_prefix(bus).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    for part in components.iter().rev() {
        for bus in ["usb", "ata", "nvme", "virtio", "mmc", "loop", "md", "vd", "xvd"] {
            if starts(part, bus) {
                return Some(bus.to_owned());
            }
        }
        if part.starts_with("dm-") {
            return Some("mapped".to_owned());
        }
        // iSCSI and Fibre Channel lie between the SCSI host and its parent.
        for (prefix, bus) in [("session", "iscsi"), ("rport-", "fc"), ("end_device-", "sas"), ("fw", "firewire")] {
            if part.starts_with(prefix) {
                return Some(bus.to_owned());
            }
        }
    }
    components.iter().any(|part| starts(part, "host")).then(|| "scsi".to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
