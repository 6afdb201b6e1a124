//! Windows: what disks and volumes answer.
//!
//! A disk is `\\.\PhysicalDriveN`, a volume `\\.\E:` or `\\?\Volume{...}`, a shadow copy `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopyN`. Windows has no loop
//! devices; a mounted virtual disk file is a disk like any other, and the system keeps its file from being written meanwhile.
//!
//! Source: IOCTL_DISK_GET_DRIVE_GEOMETRY_EX, IOCTL_STORAGE_QUERY_PROPERTY and IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS in the Windows documentation.
#![expect(unsafe_code, reason = "one call of the Windows API that names the folder of the system")]

pub(crate) mod volumes;

use std::fs::File;
use std::path::{Path, PathBuf};

use windows_sys::Win32::System::Ioctl::{
    IOCTL_DISK_GET_DRIVE_GEOMETRY_EX, IOCTL_STORAGE_QUERY_PROPERTY, StorageAccessAlignmentProperty,
    StorageDeviceProperty,
};
use windows_sys::Win32::System::SystemInformation::GetSystemWindowsDirectoryW;

use crate::error::{Error, Result};
use crate::platform::windows::{UNKNOWN_DEVICE, control_bytes, open_for_questions, sector_of};
use crate::platform::windows_names::{DevicePath, device_path, volume_name};
use crate::platform::{self, Standing};
use crate::source::device::replies::{self, Device, DiskRun};
use crate::source::device::windows::volumes::{
    Volume, is_read_only, lock_all, places_at, runs_of, runs_under, volumes,
};
use crate::source::device::{Description, DeviceNumber, Kind, Use};
use crate::source::disks::DiskDescription;

/// Bytes of the longest answer about a disk.
const REPLY_ROOM: usize = 4096;

/// What the system tells of its devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

/// Keeps a source from changing: its volumes are locked while this lives.
#[derive(Debug)]
pub struct Still {
    _volumes: Vec<File>,
}

impl DeviceNumber {
    /// Takes apart the number of a disk and of a partition of it.
    pub fn from_raw(raw: u64) -> Self {
        let part = |shift: u32| u32::try_from((raw >> shift) & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { major: part(32), minor: part(0) }
    }
}

/// Says whether the running system needs what is mounted at this place.
pub(crate) fn is_system_place(place: &Path) -> bool {
    let mut folder = [0_u16; 260];
    let room = u32::try_from(folder.len()).unwrap_or(0);
    // SAFETY: the buffer is as long as is said.
    let used = unsafe { GetSystemWindowsDirectoryW(folder.as_mut_ptr(), room) };
    let used = usize::try_from(used).unwrap_or(0);
    let folder = String::from_utf16_lossy(folder.get(..used).unwrap_or_default());
    let place = place.display().to_string();
    // Its volume is a drive: "C:\".
    !folder.is_empty() && folder.get(..3).is_some_and(|drive| drive.eq_ignore_ascii_case(&place))
}

/// Asks for a property of a disk. Empty where the disk does not answer.
fn property(disk: &File, id: i32) -> Vec<u8> {
    let mut query = [0; 12];
    if let Some(number) = query.get_mut(..4) {
        number.copy_from_slice(&id.to_le_bytes());
    }
    asked(disk, IOCTL_STORAGE_QUERY_PROPERTY, &query)
}

/// Asks a disk. Empty where it does not answer.
pub(crate) fn asked(disk: &File, code: u32, query: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; REPLY_ROOM];
    let len = control_bytes(disk, code, query, &mut reply).unwrap_or(0);
    reply.truncate(len);
    reply
}

/// What an open disk or volume says of itself.
pub(crate) struct Asked {
    pub(crate) device: Device,
    /// Bytes of a logical sector.
    pub(crate) logical: Option<u32>,
    /// Bytes of a physical sector.
    pub(crate) physical: Option<u32>,
    /// Bytes of the disk that it is or is part of.
    pub(crate) disk_len: u64,
}

pub(crate) fn ask(disk: &File) -> Asked {
    let geometry = replies::geometry(&asked(disk, IOCTL_DISK_GET_DRIVE_GEOMETRY_EX, &[]));
    let sectors = replies::sectors(&property(disk, StorageAccessAlignmentProperty));
    let oldest = || sector_of(disk).and_then(|sector| u32::try_from(sector).ok());
    Asked {
        device: replies::device(&property(disk, StorageDeviceProperty)),
        // Shadow copies answer to the oldest of the three questions only.
        logical: geometry.map(|(sector, _)| sector).or(sectors.map(|(logical, _)| logical)).or_else(oldest),
        physical: sectors.map(|(_, physical)| physical),
        disk_len: geometry.map_or(0, |(_, len)| len),
    }
}

/// Where a disk or volume lies; nothing for a file, and for a volume of which the system does not say.
pub(crate) fn runs_at(path: &Path) -> Vec<DiskRun> {
    match device_path(&path.to_string_lossy()) {
        Some(DevicePath::Disk(disk)) => vec![DiskRun { disk, start: 0, len: u64::MAX }],
        Some(DevicePath::Volume(volume)) => open_for_questions(Path::new(&volume)).map_or(Vec::new(), |v| runs_of(&v)),
        None => Vec::new(),
    }
}

/// The uses of the volumes in these runs.
pub(crate) fn uses_in(volumes: &[Volume], runs: &[DiskRun]) -> Vec<Use> {
    let places = volumes.iter().filter(|volume| volume.meets(runs)).flat_map(|volume| &volume.places);
    places.cloned().map(Use::MountedWritable).collect()
}

impl System {
    /// What lets a read-only target be written, besides a switch on it.
    pub(crate) const HOW_TO_ALLOW_WRITING: &str = "attributes disk clear readonly in diskpart";
    /// What has the system read a partition table again.
    pub(crate) const HOW_TO_READ_TABLE_AGAIN: &str = "Update-HostStorageCache in PowerShell";

    /// Says why a target in this use must not be written: mounted volumes are no reason, they are locked and dismounted first, which fails where files
    /// of them are open.
    pub(crate) fn objection(name: &str, use_: &Use) -> Option<String> {
        match use_ {
            Use::MountedWritable(_) | Use::MountedReadOnly(_) => None,
            Use::Swap => Some(format!("{name} holds a page file that is in use")),
        }
    }

    /// Says why a file must not be written that is shown by this device.
    pub(crate) fn objection_to_loop(name: &str, node: &Path) -> String {
        format!("{name} is shown by {}: write to that, or detach it first", node.display())
    }

    /// Keeps everybody from writing to a disk while the answer lives: its volumes are locked. `None` where files of one are in use, and for a
    /// volume, which a lock would close for the reader too.
    pub fn keep_still(&self, source: &Path) -> Result<Option<Still>> {
        match device_path(&source.to_string_lossy()) {
            Some(DevicePath::Disk(_)) => {
                Ok(lock_all(&runs_at(source), false)?.ok().map(|volumes| Still { _volumes: volumes }))
            }
            _ => Ok(None),
        }
    }

    /// Gives the partitions the numbers of the disk's table: Windows numbers those that it uses one after the other.
    pub(crate) fn renumber(disk: &mut DiskDescription, by_start: &[(u64, u32)]) {
        disk.parts.retain_mut(|part| {
            let found = by_start.iter().find(|(start, _)| *start == part.start);
            if let Some((_, number)) = found {
                part.number = *number;
            }
            found.is_some()
        });
    }

    /// Describes a regular file, a disk or a volume. Everything else is refused by name.
    pub fn describe(&self, path: &Path) -> Result<Description> {
        let standing = platform::standing(path).map_err(|error| Error::io("find", path, error))?;
        let real = platform::real_path(path).map_err(|error| Error::io("find", path, error))?;
        let kind = match standing {
            Standing::File => Kind::File,
            Standing::Device(_) => Kind::BlockDevice,
            Standing::Folder | Standing::Other => {
                let hint = match (standing, path.display().to_string().trim_end_matches('\\')) {
                    (Standing::Folder, drive) if drive.len() == 2 && drive.ends_with(':') => {
                        format!(r" (the volume itself is \\.\{drive})")
                    }
                    _ => String::new(),
                };
                return Err(Error::Refused(format!(
                    "{} is neither a file nor a disk: a disk or a file with one is needed{hint}",
                    path.display()
                )));
            }
        };
        let mut description = Description {
            path: real.clone(),
            kind,
            logical_sector_size: None,
            physical_sector_size: None,
            model: None,
            serial: None,
        };
        if kind == Kind::BlockDevice {
            let device = open_for_questions(&real).map_err(|error| Error::io("open", &real, error))?;
            let asked = ask(&device);
            description.logical_sector_size = asked.logical;
            description.physical_sector_size = asked.physical;
            description.model = asked.device.model;
            description.serial = asked.device.serial;
        }
        Ok(description)
    }

    /// Loop devices over a regular file: Windows has none.
    pub(crate) fn loops_over(&self, _file: &Path) -> Vec<DeviceNumber> {
        Vec::new()
    }

    /// Who uses a source: where volumes of it are mounted.
    pub fn uses_of(&self, source: &Path) -> Result<Vec<Use>> {
        let runs = runs_at(source);
        if !runs.is_empty() {
            return Ok(uses_in(&volumes()?, &runs));
        }
        // A volume that lies on no disk, such as one in memory or on a DVD.
        Ok(match device_path(&source.to_string_lossy()) {
            Some(DevicePath::Volume(volume)) => {
                let places = places_at(&volume_name(&volume)).into_iter();
                places
                    .map(
                        |place| {
                            if is_read_only(&place) { Use::MountedReadOnly(place) } else { Use::MountedWritable(place) }
                        },
                    )
                    .collect()
            }
            _ => Vec::new(),
        })
    }

    /// The path of a device.
    pub fn node(&self, device: DeviceNumber) -> PathBuf {
        match device.minor {
            0 => format!(r"\\.\PhysicalDrive{}", device.major).into(),
            part => format!(r"\\?\GLOBALROOT\Device\Harddisk{}\Partition{part}", device.major).into(),
        }
    }

    /// Says whether the file or folder `path` lies on `source`.
    pub fn lies_on(&self, path: &Path, source: &Path) -> Result<bool> {
        let runs = runs_at(source);
        if runs.is_empty() {
            return Ok(false);
        }
        let under = match runs_at(path) {
            device if !device.is_empty() => device,
            _ => runs_under(path),
        };
        Ok(under.iter().any(|run| runs.iter().any(|other| run.meets(other))))
    }

    /// Describes the disk that a device is or is part of. `None` where the system does not say.
    pub fn disk_of(&self, device: DeviceNumber) -> Option<DiskDescription> {
        (device != DeviceNumber::from_raw(UNKNOWN_DEVICE)).then_some(())?;
        self.describe_disk(device.major, &volumes().ok()?)
    }
}
