//! Reasons not to write to a target, and opening it only while it is the one that was looked at.
//!
//! Every reason is a sentence that says what to do. All of them are collected, so that a person sees them at once.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, Extent, ExtentKind, Slice, WritableDisk, buf_len, check_range};
use crate::error::{Error, Result};
use crate::partition::digest::table_digest;
use crate::platform::{self, FileId, Standing};
use crate::restore::facts::{Facts, Place, read_layout_or_none};
use crate::source::device::{DeviceNumber, System};
use crate::source::disks::{DiskDescription, DiskPart};
use crate::target::{DeviceTarget, InPlace};

/// How much of a disk will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The disk, or structures that belong to all of it.
    Disk,
    /// One partition: others may be in use.
    Partition(u32),
}

/// Finds every reason why `target` must not be written. `keep` are files and devices that must not be touched by that: the image, its packs, the source
/// of a clone, the undo file.
pub fn refusals(system: &System, target: &Facts, scope: Scope, keep: &[PathBuf]) -> Result<Vec<String>> {
    let name = target.given.display();
    let mut reasons = Vec::new();
    match &target.place {
        Place::File => file_in_use(system, target, &mut reasons)?,
        Place::Disk(disk) => match scope {
            Scope::Disk => disk_in_use(disk, &mut reasons),
            Scope::Partition(number) => match disk.parts.iter().find(|part| part.number == number) {
                Some(part) => part_in_use(part, &mut reasons),
                // A partition that the kernel does not know cannot be told apart from the rest of its disk.
                None => disk_in_use(disk, &mut reasons),
            },
        },
        Place::Part { disk, number } => match disk.parts.iter().find(|part| part.number == *number) {
            Some(part) => part_in_use(part, &mut reasons),
            None => disk_in_use(disk, &mut reasons),
        },
    }
    if is_read_only(target)? {
        reasons
            .push(format!("{name} is read-only: look for a write-protect switch, or {}", System::HOW_TO_ALLOW_WRITING));
    }
    let (node, ..) = place_of(target, scope)?;
    for kept in keep {
        if let Some(reason) = touches(system, kept, target, &node)? {
            reasons.push(reason);
        }
    }
    Ok(reasons)
}

fn file_in_use(system: &System, target: &Facts, reasons: &mut Vec<String>) -> Result<()> {
    let name = target.given.display();
    let name = name.to_string();
    let uses = system.uses_of(&target.path)?;
    reasons.extend(uses.iter().filter_map(|use_| System::objection(&name, use_)));
    for device in system.loops_over(&target.path) {
        reasons.push(System::objection_to_loop(&name, &system.node(device)));
    }
    Ok(())
}

fn disk_in_use(disk: &DiskDescription, reasons: &mut Vec<String>) {
    let name = disk.path.display().to_string();
    if disk.is_system() {
        reasons.push(format!("{name} is the disk that this system runs from"));
    }
    let mut of_parts = Vec::new();
    for part in &disk.parts {
        part_in_use(part, reasons);
        of_parts.extend(&part.uses);
    }
    // What is left lies on the disk itself, or on another loop device over the same file.
    for use_ in disk.uses.iter().filter(|use_| !of_parts.contains(use_)) {
        reasons.extend(System::objection(&name, use_));
    }
    for holder in &disk.holders {
        reasons.push(format!("{name} is held by {holder}: deactivate that first"));
    }
}

fn part_in_use(part: &DiskPart, reasons: &mut Vec<String>) {
    let name = part.path.display().to_string();
    for use_ in &part.uses {
        reasons.extend(System::objection(&name, use_));
    }
    for holder in &part.holders {
        reasons.push(format!("{name} is held by {holder}: deactivate that first"));
    }
}

fn is_read_only(target: &Facts) -> Result<bool> {
    if let Some(disk) = target.disk() {
        return Ok(disk.read_only);
    }
    let metadata = std::fs::metadata(&target.path).map_err(|error| Error::io("examine", &target.path, error))?;
    Ok(metadata.permissions().readonly())
}

/// What a path's bytes lie in, for telling whether two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Storage {
    File(FileId),
    Disk(DeviceNumber),
    Part(DeviceNumber, u32),
}

fn storage_of(system: &System, path: &Path) -> Result<Option<Storage>> {
    let failed = |error| Error::io("examine", path, error);
    let number = match platform::standing(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(Standing::File) => {
            let (file, _) = platform::identity_of_path(path).map_err(failed)?;
            return Ok(Some(Storage::File(file)));
        }
        Ok(Standing::Device(number)) => number,
        Ok(Standing::Folder | Standing::Other) => return Ok(None),
    };
    let device = DeviceNumber::from_raw(number);
    let Some(disk) = system.disk_of(device) else { return Ok(Some(Storage::Disk(device))) };
    let number = disk.parts.iter().find(|part| part.device == device).map(|part| part.number);
    match (number, &disk.backing) {
        (Some(number), _) => Ok(Some(Storage::Part(disk.device, number))),
        // A loop device is the file that it shows; the file may be gone by now.
        (None, Some(backing)) => Ok(storage_of(system, backing)?.or(Some(Storage::Disk(disk.device)))),
        (None, None) => Ok(Some(Storage::Disk(disk.device))),
    }
}

/// Says why writing to `node`, the wanted part of `target`, would destroy `kept`.
fn touches(system: &System, kept: &Path, target: &Facts, node: &Path) -> Result<Option<String>> {
    let (name, kept_name) = (target.given.display(), kept.display());
    if kept.is_dir() {
        let lies = target.device.is_some() && system.lies_on(kept, node)?;
        return Ok(lies.then(|| format!("{kept_name} lies on {name} itself: put it on another disk")));
    }
    let (Some(a), Some(b)) = (storage_of(system, kept)?, storage_of(system, node)?) else {
        // A file that is still to be made: its folder counts.
        let folder = kept.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lies = folder.exists() && target.device.is_some() && system.lies_on(folder, node)?;
        return Ok(lies.then(|| format!("{kept_name} lies on {name} itself: put it on another disk")));
    };
    let same = match (&a, &b) {
        (Storage::Part(disk, x), Storage::Part(other, y)) => disk == other && x == y,
        (Storage::Part(disk, _), Storage::Disk(other)) | (Storage::Disk(disk), Storage::Part(other, _)) => {
            disk == other
        }
        (a, b) => a == b,
    };
    if same {
        return Ok(Some(format!("{kept_name} and {name} are the same: nothing may be written onto what is read")));
    }
    if target.device.is_some() && system.lies_on(kept, node)? {
        return Ok(Some(format!("{kept_name} lies on {name} itself: put it on another disk")));
    }
    Ok(None)
}

/// The scope of a target that was opened.
#[derive(Debug)]
pub struct Opened {
    target: DeviceTarget,
    start: u64,
    len: u64,
}

impl Opened {
    /// The device or file that was opened.
    pub fn device(&self) -> &DeviceTarget {
        &self.target
    }

    /// First byte of the scope in what was opened: not 0 where a partition has no node of its own.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Lets a file have sectors of another size than its old table spoke for.
    pub fn set_sector_size(&mut self, sector_size: u32) {
        self.target.set_sector_size(sector_size);
    }

    fn at(&self, offset: u64, len: u64) -> Result<u64> {
        check_range(offset, len, self.len)?;
        Ok(self.start.saturating_add(offset))
    }
}

impl Disk for Opened {
    fn len(&self) -> u64 {
        self.len
    }
    fn sector_size(&self) -> u32 {
        self.target.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.target.read_at(buf, self.at(offset, buf_len(buf))?)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }
}

impl WritableDisk for Opened {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        WritableDisk::write_at(&self.target, bytes, self.at(offset, buf_len(bytes))?)
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        WritableDisk::zero_at(&self.target, self.at(offset, len)?, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.target.discard(self.at(offset, len)?, len)
    }
    fn flush(&self) -> Result<()> {
        self.target.flush()
    }
}

impl InPlace for Opened {
    fn read_back(&self) -> Result<Box<dyn Disk + '_>> {
        let whole = self.target.read_back()?;
        Ok(Box::new(Slice::open(whole, self.start..self.start.saturating_add(self.len))?))
    }
    fn forget(&self, offset: u64, len: u64) {
        self.target.forget(self.start.saturating_add(offset), len);
    }
}

/// Opens a target exclusively, and only if it is still the one that `facts` tell of: another disk under the same name is refused.
pub fn open(system: &System, facts: &Facts, scope: Scope) -> Result<Opened> {
    let (path, start, len) = place_of(facts, scope)?;
    let name = facts.given.display();
    let target = match DeviceTarget::open(&path, facts.sector_size) {
        Err(error) if error.is_gone() => {
            return Err(Error::Refused(format!("{name} has vanished since it was looked at")));
        }
        target => target?,
    };
    let changed = |what: &str| {
        Err(Error::Refused(format!("{name} is not the disk that was looked at: {what} changed; nothing was written")))
    };
    // Everything is asked again now that nobody else can change it, and through the open file where that is possible.
    let now = Facts::examine_again(system, &facts.given, &target)?;
    if now.path != facts.path || now.inode != facts.inode || now.device != facts.device {
        return changed("what its name leads to");
    }
    if now.disk().is_some_and(|disk| disk.read_only) {
        // Opening such a device for writing succeeds on some kernels, and every write fails.
        return Err(Error::Refused(format!("{name} is read-only")));
    }
    let opened = platform::identity(target.file()).map_err(|error| Error::io("examine", &path, error))?;
    let on_node = platform::identity_of_path(&path).map_err(|error| Error::io("examine", &path, error))?;
    if opened != on_node {
        return changed("its node");
    }
    if now.len != facts.len || start.saturating_add(len) > target_len(&target) {
        return changed("its size");
    }
    if let (Some(now), Some(then)) = (now.disk(), facts.disk()) {
        if now.sequence != then.sequence || now.backing != then.backing {
            return changed("the medium");
        }
        if now.serial != then.serial || now.model != then.model {
            return changed("its serial number or model");
        }
    }
    if now.digest != facts.digest {
        return changed("its partition table");
    }
    if path == facts.path {
        // What was opened, not only what the name leads to.
        let layout = read_layout_or_none(&target)?;
        if table_digest(&target, &layout)? != facts.digest {
            return changed("its partition table");
        }
    }
    target.drop_caches()?;
    Ok(Opened { target, start, len })
}

/// Opens a file that this program just made.
pub fn open_file(path: &Path, sector_size: u32) -> Result<Opened> {
    let target = DeviceTarget::open(path, sector_size)?;
    let len = target_len(&target);
    Ok(Opened { target, start: 0, len })
}

fn target_len(target: &DeviceTarget) -> u64 {
    Disk::len(target)
}

/// The node to open for a scope, and where the scope lies in it.
fn place_of(facts: &Facts, scope: Scope) -> Result<(PathBuf, u64, u64)> {
    let Scope::Partition(number) = scope else { return Ok((facts.path.clone(), 0, facts.len)) };
    if let Place::Part { number: own, .. } = facts.place {
        return Err(Error::Refused(format!(
            "{} is partition {own} itself: give its disk and --partition, or leave --partition away",
            facts.given.display()
        )));
    }
    let partition = usable_partition(facts, number)?;
    let (start, len) = (partition.start, partition.end.saturating_sub(partition.start));
    let node = facts.disk().and_then(|disk| disk.parts.iter().find(|part| part.number == number));
    match node {
        Some(node) if node.start == start && node.len == len => Ok((node.path.clone(), 0, len)),
        Some(_) => Err(Error::Refused(format!(
            "partition {number} of {} lies elsewhere in the table than the system believes: have it read the table again ({})",
            facts.given.display(),
            System::HOW_TO_READ_TABLE_AGAIN
        ))),
        None => Ok((facts.path.clone(), start, len)),
    }
}

/// The bytes of a partition of the target that can be written.
pub fn usable_partition(facts: &Facts, number: u32) -> Result<std::ops::Range<u64>> {
    let name = facts.given.display();
    let partition = facts.layout.partitions.iter().find(|partition| partition.number == number);
    let partition = partition.ok_or_else(|| Error::NotFound(format!("{name} has no partition {number}")))?;
    if let Some(reason) = partition.unusable {
        return Err(Error::Refused(format!("partition {number} of {name} {reason}")));
    }
    Ok(partition.range.clone())
}

// They take a machine whose /sys and /proc they have made.
#[cfg(unix)]
#[cfg(test)]
mod tests;
