//! Windows: the disks that have a number.

use std::path::Path;

use windows_sys::Win32::Foundation::ERROR_WRITE_PROTECT;
use windows_sys::Win32::System::Ioctl::{IOCTL_DISK_GET_DRIVE_LAYOUT_EX, IOCTL_DISK_IS_WRITABLE};

use crate::error::Result;
use crate::platform::windows::{control_bytes, open_for_questions};
use crate::source::device::replies::{DiskRun, partitions};
use crate::source::device::windows::volumes::{Volume, disk_numbers, volumes};
use crate::source::device::windows::{ask, uses_in};
use crate::source::device::{DeviceNumber, System};
use crate::source::disks::{DiskDescription, DiskPart};

/// Bytes of the longest list of partitions that is taken: 128 of them, and some more.
const LAYOUT_ROOM: usize = 64 << 10;

impl System {
    /// Every disk that has a size, by number.
    pub fn disks(&self) -> Result<Vec<DiskDescription>> {
        let volumes = volumes()?;
        let disks = disk_numbers()?.into_iter().filter_map(|number| self.describe_disk(number, &volumes));
        Ok(disks.filter(|disk| disk.len > 0).collect())
    }

    /// Describes a disk without reading it, which needs no rights. `None` where it does not answer.
    pub(crate) fn describe_disk(&self, number: u32, volumes: &[Volume]) -> Option<DiskDescription> {
        let device = DeviceNumber { major: number, minor: 0 };
        let path = self.node(device);
        let disk = open_for_questions(Path::new(&path)).ok()?;
        let asked = ask(&disk);
        let mut layout = vec![0; LAYOUT_ROOM];
        let layout_len = control_bytes(&disk, IOCTL_DISK_GET_DRIVE_LAYOUT_EX, &[], &mut layout).unwrap_or(0);
        let parts = partitions(layout.get(..layout_len).unwrap_or_default()).into_iter().map(|part| {
            let run = DiskRun { disk: number, start: part.start, len: part.len };
            let device = DeviceNumber { major: number, minor: part.number };
            // The volume of just this partition is its path: only by that its filesystem lets go of it.
            let own = volumes.iter().find(|volume| volume.runs == [run]);
            DiskPart {
                number: part.number,
                device,
                path: own.map_or_else(|| self.node(device), |volume| volume.path.clone()),
                start: part.start,
                len: part.len,
                uses: uses_in(volumes, &[run]),
                holders: Vec::new(),
            }
        });
        let writable = control_bytes(&disk, IOCTL_DISK_IS_WRITABLE, &[], &mut []);
        let read_only = writable
            .is_err_and(|error| error.raw_os_error().is_some_and(|code| code.cast_unsigned() == ERROR_WRITE_PROTECT));
        Some(DiskDescription {
            device,
            path,
            aliases: Vec::new(),
            model: asked.device.model,
            serial: asked.device.serial,
            bus: asked.device.bus.map(str::to_owned),
            len: asked.disk_len,
            logical_sector_size: asked.logical.unwrap_or(512),
            physical_sector_size: asked.physical.or(asked.logical).unwrap_or(512),
            removable: asked.device.removable,
            read_only,
            sequence: None,
            backing: None,
            parts: parts.collect(),
            uses: uses_in(volumes, &[DiskRun { disk: number, start: 0, len: u64::MAX }]),
            holders: Vec::new(),
        })
    }
}
