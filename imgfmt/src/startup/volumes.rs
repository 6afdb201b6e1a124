//! What lies on a disk, by the names that configurations use: numbers, UUIDs, labels, and the files inside.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::bytes::array;
use crate::disk::{Disk, Slice, read_vec};
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::{Content, FileSystem, NodeId, NodeKind};
use crate::filesystem::resolve::resolve;
use crate::filesystem::{open, open_files};
use crate::partition::signature::recognise;
use crate::partition::{Layout, Partition, Scheme, read_layout};
use crate::volume::lvm2::{self, PhysicalVolume};

/// Longest text file that is read as a configuration.
const MAX_TEXT: u64 = 4 << 20;
/// Most names of a folder that are looked at.
const MAX_NAMES: usize = 10_000;

/// A partition or a logical volume.
#[derive(Debug)]
pub struct Volume {
    /// What messages call it: "partition 2", "logical volume vg-root".
    pub name: String,
    /// The partition; `None` for a logical volume.
    pub partition: Option<Partition>,
    /// The name that Linux gives a logical volume below /dev/mapper.
    pub mapped_name: Option<String>,
    /// What lies in it: "ext4", "LUKS"; empty where that is not known.
    pub content: String,
    /// UUID or serial number of what lies in it, as Linux writes it; may be empty.
    pub uuid: String,
    /// Its label; may be empty. Untrusted text.
    pub label: String,
    /// Why its files are not read, where they should be.
    pub problem: Option<String>,
    files: Option<Box<dyn FileSystem>>,
}

/// A file, as a path led to it.
#[derive(Debug)]
pub struct Found {
    /// Its path, links followed.
    pub path: String,
    /// Its node.
    pub node: NodeId,
}

/// A text file.
#[derive(Debug)]
pub struct Text {
    /// Its path, links followed.
    pub path: String,
    /// Its node.
    pub node: NodeId,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Volume {
    /// Its filesystem, where its files are read.
    pub fn files(&self) -> Option<&dyn FileSystem> {
        self.files.as_deref()
    }

    /// Where a path leads, with `/` or `\` between names; `None` where there is nothing, or no filesystem.
    pub fn find(&self, path: &str) -> Result<Option<Found>> {
        let Some(files) = self.files() else { return Ok(None) };
        let path = path.replace('\\', "/");
        match resolve(files, |_| false, files.root(), path.as_bytes(), true) {
            Ok(resolved) => Ok(Some(Found { path: resolved.path(), node: resolved.node })),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a path leads to a file.
    pub fn find_file(&self, path: &str) -> Result<Option<Found>> {
        let (Some(files), Some(found)) = (self.files(), self.find(path)?) else { return Ok(None) };
        Ok((files.attributes(found.node)?.kind == NodeKind::File).then_some(found))
    }

    /// Says whether a path leads to a file.
    pub fn has_file(&self, path: &str) -> Result<bool> {
        Ok(self.find_file(path)?.is_some())
    }

    /// Opens a file.
    pub fn open(&self, path: &str) -> Result<Option<(Found, Box<dyn Content>)>> {
        let (Some(files), Some(found)) = (self.files(), self.find_file(path)?) else { return Ok(None) };
        let content = files.open(found.node, None)?;
        Ok(Some((found, content)))
    }

    /// Reads a text file. One that is too long for a configuration is an error.
    pub fn read_text(&self, path: &str) -> Result<Option<Text>> {
        let Some((found, content)) = self.open(path)? else { return Ok(None) };
        let bytes = read_all(&*content, MAX_TEXT)?;
        Ok(Some(Text { path: found.path, node: found.node, bytes }))
    }

    /// Names in a folder, sorted; none where there is no such folder.
    pub fn names(&self, path: &str) -> Result<Vec<String>> {
        let (Some(files), Some(found)) = (self.files(), self.find(path)?) else { return Ok(Vec::new()) };
        if files.attributes(found.node)?.kind != NodeKind::Folder {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        files.list(found.node, &mut |entry| {
            names.push(String::from_utf8_lossy(&entry.name).into_owned());
            if names.len() < MAX_NAMES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        names.sort();
        Ok(names)
    }
}

/// Reads a whole content of at most `limit` bytes.
pub fn read_all(content: &dyn Content, limit: u64) -> Result<Vec<u8>> {
    if content.len() > limit {
        return Err(Error::unsupported("the file", format!("it has {} bytes, and {limit} are read", content.len())));
    }
    let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or(0)];
    content.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// All that lies on a disk.
#[derive(Debug)]
pub struct Volumes {
    /// Its table.
    pub layout: Layout,
    /// Partitions by number, then logical volumes by name.
    pub all: Vec<Volume>,
}

impl Volumes {
    /// Looks at a disk. What cannot be opened has a `problem`.
    pub fn open(disk: &Arc<dyn Disk>) -> Result<Self> {
        let layout = read_layout(disk)?;
        let mut all = Vec::new();
        let mut physical = Vec::new();
        for partition in &layout.partitions {
            let name = if layout.scheme == Scheme::None {
                "the disk".into()
            } else {
                format!("partition {}", partition.number)
            };
            let mut volume = empty(name);
            volume.partition = Some(partition.clone());
            if let Some(reason) = partition.unusable {
                volume.problem = Some(format!("it {reason}"));
            } else {
                let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(disk), partition.range.clone())?);
                look(&mut volume, &slice);
                if volume.content == "LVM2 physical volume" {
                    match PhysicalVolume::open(&slice) {
                        Ok(opened) => physical.extend(opened),
                        Err(error) => volume.problem = Some(full_message(&error)),
                    }
                }
            }
            all.push(volume);
        }
        for logical in lvm2::assemble(&physical) {
            let mut volume = empty(format!("logical volume {}", logical.name));
            volume.mapped_name = Some(logical.name);
            match logical.disk {
                Ok(disk) => look(&mut volume, &disk),
                Err(error) => volume.problem = Some(full_message(&error)),
            }
            all.push(volume);
        }
        Ok(Self { layout, all })
    }

    fn position(&self, test: impl Fn(&Volume) -> bool) -> Option<usize> {
        self.all.iter().position(test)
    }

    /// The volume with an index that one of these functions returned.
    pub fn get(&self, index: usize) -> &Volume {
        self.all.get(index).expect("indexes come from this list")
    }

    /// What lies in it has this UUID or serial number.
    pub fn by_uuid(&self, uuid: &str) -> Option<usize> {
        self.position(|volume| !uuid.is_empty() && volume.uuid.eq_ignore_ascii_case(uuid))
    }

    /// What lies in it has this label.
    pub fn by_label(&self, label: &str) -> Option<usize> {
        self.position(|volume| !label.is_empty() && volume.label == label)
    }

    fn by_partition(&self, test: impl Fn(&Partition) -> bool) -> Option<usize> {
        self.position(|volume| volume.partition.as_ref().is_some_and(&test))
    }

    /// The partition with this GUID, or, on a disk with an MBR, this disk signature and number.
    pub fn by_partuuid(&self, partuuid: &str) -> Option<usize> {
        self.by_partition(|partition| !partuuid.is_empty() && partition.id.eq_ignore_ascii_case(partuuid))
    }

    /// The partition with this name in the GPT.
    pub fn by_partlabel(&self, name: &str) -> Option<usize> {
        self.by_partition(|partition| !name.is_empty() && partition.name == name)
    }

    /// The partition with this number.
    pub fn by_number(&self, number: u32) -> Option<usize> {
        self.by_partition(|partition| partition.number == number)
    }

    /// The partition that starts at this byte of the disk.
    pub fn by_start(&self, start: u64) -> Option<usize> {
        self.by_partition(|partition| partition.range.start == start)
    }

    /// The partition that the loaders of Windows NT count as number `n`, from 1 on: primary ones first, then logical ones.
    pub fn by_arc_number(&self, n: u32) -> Option<usize> {
        let index = usize::try_from(n).ok()?.checked_sub(1)?;
        let all = self.all.iter().enumerate().filter(|(_, volume)| volume.partition.is_some());
        all.map(|(position, _)| position).nth(index)
    }

    /// The logical volume that Linux names so below /dev/mapper.
    pub fn by_mapped_name(&self, name: &str) -> Option<usize> {
        self.position(|volume| volume.mapped_name.as_deref() == Some(name))
    }
}

fn empty(name: String) -> Volume {
    Volume {
        name,
        partition: None,
        mapped_name: None,
        content: String::new(),
        uuid: String::new(),
        label: String::new(),
        problem: None,
        files: None,
    }
}

/// Finds out what lies in a volume.
fn look(volume: &mut Volume, disk: &Arc<dyn Disk>) {
    let recognised = match recognise(disk) {
        Ok(recognised) => recognised,
        Err(error) => {
            volume.problem = Some(full_message(&error));
            return;
        }
    };
    if let Some(signature) = recognised {
        volume.content = signature.name.into();
        volume.uuid = other_uuid(disk, signature.name).unwrap_or_default();
        if signature.whole {
            return;
        }
    }
    match open_files(disk) {
        Ok(Some(files)) => {
            let summary = files.summary();
            (volume.content, volume.uuid, volume.label) = (summary.kind.into(), summary.id, summary.label);
            volume.files = Some(files);
        }
        Ok(None) => {
            // Swap has a UUID and no files.
            if let Ok(Some(used)) = open(disk) {
                let summary = used.summary();
                (volume.content, volume.uuid, volume.label) = (summary.kind.into(), summary.id, summary.label);
            } else if !volume.content.is_empty() {
                volume.problem = Some(format!("{} is not read", volume.content));
            }
        }
        Err(error) => volume.problem = Some(full_message(&error)),
    }
}

/// The UUID of something whose files are not read.
///
/// Sources: the XFS Algorithms and Data Structures document, "Superblocks"; the btrfs on-disk format, "Superblock"; LUKS1 and LUKS2 On-Disk Format
/// Specification, "PHDR" and "Binary Header".
fn other_uuid(disk: &dyn Disk, kind: &str) -> Option<String> {
    let read = |at, len| read_vec(disk, at, len).ok();
    match kind {
        "XFS" => Some(uuid::Uuid::from_bytes(array(&read(32, 16)?, 0)?).to_string()),
        "btrfs" => Some(uuid::Uuid::from_bytes(array(&read(0x1_0020, 16)?, 0)?).to_string()),
        "LUKS" => {
            let bytes = read(0xa8, 40)?;
            let text: Vec<u8> = bytes.into_iter().take_while(|byte| *byte != 0).collect();
            String::from_utf8(text).ok().filter(|text| text.chars().all(|c| c.is_ascii_hexdigit() || c == '-'))
        }
        _ => None,
    }
}
