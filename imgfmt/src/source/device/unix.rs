//! Unix: what sysfs, the table of mounts and udev say.
//!
//! Source: Documentation/ABI/stable/sysfs-block and proc_pid_mountinfo(5) of Linux.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{ioctl_blkpbszget, ioctl_blksszget, major, minor};

use crate::error::{Error, Result};
use crate::source::device::{Description, DeviceNumber, Kind, Use};

/// Links that are followed from a filesystem down to the disk below: partitions, loops, mapped devices.
const MAX_DEPTH: usize = 16;

/// Where the system tells of its devices; other places in tests.
#[derive(Clone, Debug)]
pub struct System {
    /// The sysfs root.
    pub sysfs: PathBuf,
    /// The table of mounts.
    pub mountinfo: PathBuf,
    /// The table of active swap areas.
    pub swaps: PathBuf,
    /// The folder of device nodes.
    pub dev: PathBuf,
    /// The folder of names that stay with a disk wherever it is plugged in.
    pub by_id: PathBuf,
    /// What udev keeps of each device.
    pub udev: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self {
            sysfs: "/sys".into(),
            mountinfo: "/proc/self/mountinfo".into(),
            swaps: "/proc/swaps".into(),
            dev: "/dev".into(),
            by_id: "/dev/disk/by-id".into(),
            udev: "/run/udev/data".into(),
        }
    }
}

impl DeviceNumber {
    /// Takes apart what `stat` gives.
    pub fn from_raw(raw: u64) -> Self {
        Self { major: major(raw), minor: minor(raw) }
    }
}

pub(crate) fn trimmed(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Keeps a source from changing; nothing on Unix, where a mounted disk cannot be kept still.
#[derive(Debug)]
pub struct Still(());

/// Says whether the running system needs what is mounted at this place.
pub(crate) fn is_system_place(place: &Path) -> bool {
    const PLACES: [&str; 8] = ["/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home", "/run/live/medium"];
    PLACES.iter().any(|system| place == Path::new(system))
}

impl System {
    /// What lets a read-only target be written, besides a switch on it.
    pub(crate) const HOW_TO_ALLOW_WRITING: &str = "blockdev --setrw";
    /// What has the system read a partition table again.
    pub(crate) const HOW_TO_READ_TABLE_AGAIN: &str = "blockdev --rereadpt";

    /// Says why a target in this use must not be written.
    pub(crate) fn objection(name: &str, use_: &Use) -> Option<String> {
        Some(match use_ {
            Use::MountedWritable(place) | Use::MountedReadOnly(place) => {
                let place = place.display();
                format!(
                    "{name}, or something built upon it, is mounted at {place}: unmount that first (umount {place})"
                )
            }
            Use::Swap => format!("{name}, or something built upon it, is used as swap: swapoff first"),
        })
    }

    /// Says why a file must not be written that is shown by this device.
    pub(crate) fn objection_to_loop(name: &str, node: &Path) -> String {
        let node = node.display();
        format!("{name} is shown by {node}: write to that, or detach it first (losetup -d {node})")
    }

    /// Keeps everybody from writing to a source while the answer lives; `None` where that cannot be done.
    pub fn keep_still(&self, _source: &Path) -> Result<Option<Still>> {
        Ok(None)
    }

    /// Gives the partitions the numbers of the disk's table, where the system counts in its own way: not here.
    pub(crate) fn renumber(_disk: &mut crate::source::disks::DiskDescription, _by_start: &[(u64, u32)]) {}

    /// Describes a regular file or block device. Everything else is refused by name.
    pub fn describe(&self, path: &Path) -> Result<Description> {
        let real = std::fs::canonicalize(path).map_err(|error| Error::io("find", path, error))?;
        let metadata = std::fs::metadata(&real).map_err(|error| Error::io("examine", &real, error))?;
        let kind = metadata.file_type();
        let mut description = Description {
            path: real.clone(),
            kind: Kind::File,
            logical_sector_size: None,
            physical_sector_size: None,
            model: None,
            serial: None,
        };
        if kind.is_file() {
            return Ok(description);
        }
        if !kind.is_block_device() {
            let what = if kind.is_dir() { "a folder" } else { "neither a file nor a block device" };
            return Err(Error::Refused(format!("{} is {what}: a disk or a file with one is needed", path.display())));
        }
        description.kind = Kind::BlockDevice;
        let file = File::open(&real).map_err(|error| Error::io("open", &real, error))?;
        description.logical_sector_size = ioctl_blksszget(&file).ok();
        description.physical_sector_size = ioctl_blkpbszget(&file).ok();
        let disk = self.disk_folder(DeviceNumber::from_raw(metadata.rdev()));
        description.model = trimmed(&disk.join("device/model"));
        description.serial = self.serial_in(&disk);
        Ok(description)
    }

    /// The sysfs folder of a device.
    pub(crate) fn folder(&self, device: DeviceNumber) -> PathBuf {
        let link = self.sysfs.join("dev/block").join(device.to_string());
        std::fs::canonicalize(&link).unwrap_or(link)
    }

    /// The sysfs folder of the whole disk that a device is or is part of.
    pub(crate) fn disk_folder(&self, device: DeviceNumber) -> PathBuf {
        let folder = self.folder(device);
        match folder.parent() {
            Some(parent) if folder.join("partition").exists() => parent.to_owned(),
            _ => folder,
        }
    }

    pub(crate) fn number_in(folder: &Path) -> Option<DeviceNumber> {
        let text = trimmed(&folder.join("dev"))?;
        let (major, minor) = text.split_once(':')?;
        Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The device with everything that lies on it: its partitions, and what holds it (LVM, RAID, LUKS), over any number of steps.
    pub(crate) fn with_dependents(&self, device: DeviceNumber) -> Vec<DeviceNumber> {
        let mut all = vec![device];
        let mut next = 0;
        while let Some(&device) = all.get(next) {
            next = next.saturating_add(1);
            let folder = self.folder(device);
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().join("partition").exists() {
                    found.extend(Self::number_in(&entry.path()));
                }
            }
            for entry in std::fs::read_dir(folder.join("holders")).into_iter().flatten().flatten() {
                found.extend(Self::number_in(&entry.path()));
            }
            for device in found {
                if !all.contains(&device) && all.len() < 4096 {
                    all.push(device);
                }
            }
        }
        all
    }

    /// Loop devices over a regular file.
    pub(crate) fn loops_over(&self, file: &Path) -> Vec<DeviceNumber> {
        let Ok(file) = std::fs::metadata(file) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.sysfs.join("block")).into_iter().flatten().flatten() {
            let Some(backing) = trimmed(&entry.path().join("loop/backing_file")) else { continue };
            let same =
                std::fs::metadata(&backing).is_ok_and(|other| other.dev() == file.dev() && other.ino() == file.ino());
            if same {
                found.extend(Self::number_in(&entry.path()));
            }
        }
        found
    }

    /// The devices that a source is made of: itself, and the loop devices over it or over the file that it shows.
    fn devices_of(&self, source: &Path) -> Result<Vec<DeviceNumber>> {
        let metadata = std::fs::metadata(source).map_err(|error| Error::io("examine", source, error))?;
        if !metadata.file_type().is_block_device() {
            return Ok(self.loops_over(source));
        }
        let device = DeviceNumber::from_raw(metadata.rdev());
        let mut devices = vec![device];
        if let Some(backing) = trimmed(&self.disk_folder(device).join("loop/backing_file")) {
            devices.extend(self.loops_over(Path::new(&backing)).into_iter().filter(|other| *other != device));
        }
        Ok(devices)
    }

    /// Who uses a source: mounts and swap on it, on its partitions, and on what is built upon those.
    pub fn uses_of(&self, source: &Path) -> Result<Vec<Use>> {
        let devices: Vec<_> =
            self.devices_of(source)?.into_iter().flat_map(|device| self.with_dependents(device)).collect();
        let mut uses = self.uses_of_devices(&devices);
        // A driver in user space (ntfs-3g, fuse2fs) mounts a file without a device.
        if let Ok(file) = std::fs::metadata(source)
            && file.is_file()
        {
            uses.extend(self.mounts(|_, name| {
                std::fs::metadata(name)
                    .is_ok_and(|other| other.is_file() && (other.dev(), other.ino()) == (file.dev(), file.ino()))
            }));
        }
        Ok(uses)
    }

    /// The mounts that are of a device number, or of the name that stands for the device, for which `is_ours` says so.
    fn mounts(&self, is_ours: impl Fn(&str, &str) -> bool) -> Vec<Use> {
        let mut uses = Vec::new();
        let mounts = std::fs::read_to_string(&self.mountinfo).unwrap_or_default();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (Some(number), Some(place), Some(options)) = (fields.get(2), fields.get(4), fields.get(5)) else {
                continue;
            };
            let name =
                fields.iter().position(|field| *field == "-").and_then(|dash| fields.get(dash.saturating_add(2)));
            if is_ours(number, &unescape(name.unwrap_or(&""))) {
                let place = PathBuf::from(unescape(place));
                let writable = options.split(',').any(|option| option == "rw");
                uses.push(if writable { Use::MountedWritable(place) } else { Use::MountedReadOnly(place) });
            }
        }
        uses
    }

    /// Who uses these very devices.
    pub fn uses_of_devices(&self, devices: &[DeviceNumber]) -> Vec<Use> {
        let names: Vec<PathBuf> = devices.iter().map(|device| self.node(*device)).collect();
        // A device is known by its number, by its node, and by the number of whatever node a name leads to.
        let is_ours = |name: &str| {
            names.iter().any(|ours| ours == Path::new(name))
                || std::fs::metadata(name).is_ok_and(|metadata| {
                    metadata.file_type().is_block_device() && devices.contains(&DeviceNumber::from_raw(metadata.rdev()))
                })
        };
        // btrfs and some others show a number of their own: their source device tells.
        let mut uses =
            self.mounts(|number, name| devices.iter().any(|device| number == device.to_string()) || is_ours(name));
        let swaps = std::fs::read_to_string(&self.swaps).unwrap_or_default();
        for line in swaps.lines().skip(1) {
            if line.split_whitespace().next().is_some_and(|name| is_ours(&unescape(name))) {
                uses.push(Use::Swap);
            }
        }
        uses
    }

    /// The node of a device, by the name that the kernel gives it.
    pub fn node(&self, device: DeviceNumber) -> PathBuf {
        let folder = self.folder(device);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().replace('!', "/");
        self.dev.join(name)
    }

    /// Says whether the file or folder `path` lies on `source`: on the device itself, on a part of it, on something built upon it, or
    /// on a loop device over it.
    pub fn lies_on(&self, path: &Path, source: &Path) -> Result<bool> {
        let sources: Vec<_> =
            self.devices_of(source)?.into_iter().flat_map(|device| self.with_dependents(device)).collect();
        let mut path = path.to_owned();
        for _ in 0..MAX_DEPTH {
            let metadata = std::fs::metadata(&path).map_err(|error| Error::io("examine", &path, error))?;
            let device = DeviceNumber::from_raw(metadata.dev());
            if sources.contains(&device) {
                return Ok(true);
            }
            // A filesystem on a loop device lies where the file below lies.
            match trimmed(&self.disk_folder(device).join("loop/backing_file")) {
                Some(backing) if Path::new(&backing).exists() => path = PathBuf::from(backing),
                _ => break,
            }
        }
        Ok(false)
    }
}

/// Undoes the octal escapes of mountinfo (`\040` for a space).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine made of folders: sda with two partitions, dm-0 on the second, mounted.
    fn machine(folder: &Path, mounts: &str) -> System {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("sys/devices/sda/dev", "8:0\n");
        write("sys/devices/sda/device/model", "Reserve 9000   \n");
        write("sys/devices/sda/device/serial", "HK-1\n");
        for (n, name) in [(1, "sda1"), (2, "sda2")] {
            write(&format!("sys/devices/sda/{name}/dev"), &format!("8:{n}\n"));
            write(&format!("sys/devices/sda/{name}/partition"), &format!("{n}\n"));
        }
        write("sys/devices/dm-0/dev", "253:0\n");
        write("sys/devices/sda/sda2/holders/.keep", "");
        symlink(folder.join("sys/devices/dm-0"), folder.join("sys/devices/sda/sda2/holders/dm-0")).unwrap();
        std::fs::create_dir_all(folder.join("sys/dev/block")).unwrap();
        for (number, target) in [("8:0", "sda"), ("8:1", "sda/sda1"), ("8:2", "sda/sda2"), ("253:0", "dm-0")] {
            symlink(folder.join("sys/devices").join(target), folder.join("sys/dev/block").join(number)).unwrap();
        }
        write("mountinfo", mounts);
        write("swaps", "Filename Type Size Used Priority\n");
        System {
            sysfs: folder.join("sys"),
            mountinfo: folder.join("mountinfo"),
            swaps: folder.join("swaps"),
            ..System::default()
        }
    }

    #[test]
    fn what_is_built_upon_a_disk_belongs_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let system = machine(folder.path(), "");
        let disk = DeviceNumber { major: 8, minor: 0 };
        let mut all = system.with_dependents(disk);
        all.sort_unstable();
        let text: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["8:0", "8:1", "8:2", "253:0"]);
        let partition = DeviceNumber { major: 8, minor: 2 };
        assert_eq!(system.with_dependents(partition).len(), 2);
        assert_eq!(trimmed(&system.disk_folder(partition).join("device/serial")).as_deref(), Some("HK-1"));
    }

    #[test]
    fn octal_escapes_of_mount_points_are_undone() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"/mnt/\9"), r"/mnt/\9");
    }

    #[test]
    fn folders_and_devices_of_characters_are_refused_by_name() {
        let system = System::default();
        assert!(system.describe(Path::new("/")).unwrap_err().to_string().contains("a folder"));
        assert!(system.describe(Path::new("/dev/null")).unwrap_err().to_string().contains("neither"));
    }
}
