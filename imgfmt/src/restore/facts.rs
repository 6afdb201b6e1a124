//! What is known of a target before it is opened for writing.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::partition::digest::table_digest;
use crate::partition::{Layout, detect_sector_size, read_layout};
use crate::platform::{self, Standing};
use crate::source::device::DeviceNumber;
use crate::source::disks::DiskDescription;
use crate::source::{FileDisk, System};
use crate::target::DeviceTarget;

/// What stands at the path of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A regular file that is used as a disk.
    File,
    /// A whole disk.
    Disk(Box<DiskDescription>),
    /// A partition of a disk.
    Part {
        /// The disk.
        disk: Box<DiskDescription>,
        /// Number of the partition.
        number: u32,
    },
}

/// A target as it was when it was looked at. It is opened only if it is still the same.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The path as the user gave it.
    pub given: PathBuf,
    /// The path with symbolic links resolved.
    pub path: PathBuf,
    /// What stands there.
    pub place: Place,
    /// Device and inode of the node or file.
    pub inode: (u64, u64),
    /// The device that the node stands for.
    pub device: Option<DeviceNumber>,
    /// Length in bytes.
    pub len: u64,
    /// Logical sector size in bytes; of a file, what its table speaks for.
    pub sector_size: u32,
    /// What its table says now.
    pub layout: Layout,
    /// The digest of its tables, by which it can be named.
    pub digest: String,
}

impl Facts {
    /// Looks at an existing file or block device.
    pub fn examine(system: &System, path: &Path) -> Result<Self> {
        Self::examine_by(system, path, &|real, sector_size| FileDisk::open(real, sector_size))
    }

    /// Looks once more at what stands at a path, while `opened` keeps others from it: where that is what was opened, it may not open otherwise.
    pub(crate) fn examine_again(system: &System, path: &Path, opened: &DeviceTarget) -> Result<Self> {
        Self::examine_by(system, path, &|real, sector_size| {
            if real != opened.path() {
                return FileDisk::open(real, sector_size);
            }
            let again = opened.again().map_err(|error| Error::io("open", real, error))?;
            FileDisk::from_file(again, real, sector_size)
        })
    }

    fn examine_by(system: &System, path: &Path, open: &dyn Fn(&Path, u32) -> Result<FileDisk>) -> Result<Self> {
        let real = platform::real_path(path).map_err(|error| Error::io("find", path, error))?;
        let failed = |error| Error::io("examine", &real, error);
        let standing = platform::standing(&real).map_err(failed)?;
        let (place, device) = if standing == Standing::File {
            (Place::File, None)
        } else if let Standing::Device(number) = standing {
            let device = DeviceNumber::from_raw(number);
            let disk = system.disk_of(device).ok_or_else(|| {
                Error::Refused(format!(
                    "{} is a block device that the system tells nothing about: its guards cannot work",
                    real.display()
                ))
            })?;
            let number = disk.parts.iter().find(|part| part.device == device).map(|part| part.number);
            let disk = Box::new(disk);
            let place =
                number.map_or_else(|| Place::Disk(disk.clone()), |number| Place::Part { disk: disk.clone(), number });
            (place, Some(device))
        } else {
            let what = if standing == Standing::Folder { "a folder" } else { "neither a file nor a block device" };
            return Err(Error::Refused(format!("{} is {what}: it cannot be a target", path.display())));
        };
        let probe = match (open(&real, 512), &place) {
            // Where even reading is refused, the reason that matters comes first.
            (Err(_), Place::Disk(disk) | Place::Part { disk, .. }) if disk.is_system() => {
                return Err(Error::Refused(format!("{} is the disk that this system runs from", path.display())));
            }
            (probe, _) => probe?,
        };
        let sector_size = match &place {
            Place::File => detect_sector_size(&probe),
            Place::Disk(disk) | Place::Part { disk, .. } => disk.logical_sector_size,
        };
        if !matches!(sector_size, 512 | 4096) {
            return Err(Error::Refused(format!(
                "{} has sectors of {sector_size} bytes: 512 and 4096 are possible",
                path.display()
            )));
        }
        let disk = open(&real, sector_size)?;
        let layout = read_layout_or_none(&disk)?;
        let digest = table_digest(&disk, &layout)?;
        let (inode, _) = platform::identity_of_path(&real).map_err(failed)?;
        let mut place = place;
        if let Place::Disk(described) = &mut place {
            let by_start: Vec<_> = layout.partitions.iter().map(|part| (part.range.start, part.number)).collect();
            System::renumber(described, &by_start);
        }
        Ok(Self {
            given: path.to_owned(),
            path: real,
            place,
            inode,
            device,
            len: disk.len(),
            sector_size,
            layout,
            digest,
        })
    }

    /// The disk that it is or is part of; `None` for a file.
    pub fn disk(&self) -> Option<&DiskDescription> {
        match &self.place {
            Place::File => None,
            Place::Disk(disk) | Place::Part { disk, .. } => Some(disk),
        }
    }

    /// Serial number of the disk.
    pub fn serial(&self) -> Option<&str> {
        self.disk()?.serial.as_deref()
    }

    /// Says whether `id` names this target: its serial number, or at least sixteen digits of its table digest.
    pub fn is_named_by(&self, id: &str) -> bool {
        let id = id.trim();
        let digest = id.strip_prefix("table:").unwrap_or(id);
        digest.eq_ignore_ascii_case(&self.digest) || self.serial().is_some_and(|serial| serial.eq_ignore_ascii_case(id))
    }
}

/// A disk whose first sector cannot be read can still be a target: it has no table then.
pub fn read_layout_or_none(disk: &dyn Disk) -> Result<Layout> {
    match read_layout(disk) {
        Err(error) if error.is_unreadable_medium() => {
            let mut layout = read_layout(&crate::disk::MemoryDisk::new(Vec::new()))?;
            layout.problems.push("the start of the disk cannot be read".into());
            Ok(layout)
        }
        layout => layout,
    }
}
