//! `NAME.lck` folders: VMware makes one beside each disk that it opens for writing, with small files in it, and does not open a disk where it cannot.
//!
//! They live in memory, as long as the mount does, only beside files that take writes, and are nobody's business but the one program's that makes them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fuser::Errno;
use imgfmt::filesystem::files::{Attributes, Entry, NodeId, NodeKind, Time};

/// The bits of a number that is one of these: the tree never sets the higher one, and named streams never the lower one.
const LOCK: u64 = 0b11 << 62;
/// What the name of such a folder ends with.
const ENDING: &[u8] = b".lck";
/// Nodes there can be.
const MAX_NODES: usize = 4096;
/// Most bytes in a file.
const MAX_LEN: u64 = 64 << 10;
/// Longest name, in bytes.
const MAX_NAME: usize = 255;

/// A file or folder.
#[derive(Debug)]
struct Node {
    folder: NodeId,
    name: Vec<u8>,
    /// Bytes of a file; `None` is a folder.
    bytes: Option<Vec<u8>>,
    modified: Time,
}

/// All of them, in all folders of a mount.
#[derive(Debug, Default)]
pub(crate) struct LockFolders(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

impl Table {
    fn find(&self, folder: NodeId, name: &[u8]) -> Option<u64> {
        let found = self.nodes.iter().find(|(_, node)| node.folder == folder && node.name == name);
        found.map(|(number, _)| *number)
    }

    fn has_children(&self, number: u64) -> bool {
        self.nodes.values().any(|node| node.folder == NodeId(number))
    }

    /// The bytes of a file.
    fn file(&mut self, node: NodeId) -> Result<&mut Node, Errno> {
        let found = self.nodes.get_mut(&node.0).ok_or(Errno::ENOENT)?;
        if found.bytes.is_some() { Ok(found) } else { Err(Errno::EISDIR) }
    }
}

/// Says whether a number is one of these nodes'.
pub(crate) fn is_lock(node: NodeId) -> bool {
    node.0 & LOCK == LOCK
}

/// Counts these nodes, in the order in which they were made.
pub(crate) fn lock_number(node: NodeId) -> u64 {
    node.0 & !LOCK
}

/// Says whether a folder with this name may be made beside the files of a disk.
pub(crate) fn is_lock_name(name: &[u8]) -> bool {
    name.len() > ENDING.len() && name.ends_with(ENDING)
}

impl LockFolders {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// The node with a name.
    pub(crate) fn find(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.table().find(folder, name).map(NodeId)
    }

    /// What lies in a folder.
    pub(crate) fn list(&self, folder: NodeId) -> Vec<Entry> {
        let table = self.table();
        let entry = |(number, node): (&u64, &Node)| Entry {
            name: node.name.clone(),
            node: NodeId(*number),
            kind: Some(kind(node)),
        };
        table.nodes.iter().filter(|(_, node)| node.folder == folder).map(entry).collect()
    }

    /// Makes a folder, or an empty file.
    pub(crate) fn make(&self, folder: NodeId, name: &[u8], is_file: bool) -> Result<NodeId, Errno> {
        let mut table = self.table();
        if table.find(folder, name).is_some() {
            return Err(Errno::EEXIST);
        }
        if is_lock(folder) && table.nodes.get(&folder.0).is_none_or(|node| node.bytes.is_some()) {
            return Err(Errno::ENOENT);
        }
        if name.len() > MAX_NAME {
            return Err(Errno::ENAMETOOLONG);
        }
        if table.nodes.len() >= MAX_NODES {
            return Err(Errno::ENOSPC);
        }
        let number = LOCK | table.next;
        table.next = table.next.saturating_add(1);
        let bytes = is_file.then(Vec::new);
        table.nodes.insert(number, Node { folder, name: name.to_vec(), bytes, modified: now() });
        Ok(NodeId(number))
    }

    /// Removes a file, or an empty folder.
    pub(crate) fn remove(&self, folder: NodeId, name: &[u8], is_file: bool) -> Result<(), Errno> {
        let mut table = self.table();
        let number = table.find(folder, name).ok_or(Errno::ENOENT)?;
        match table.nodes.get(&number).map(|node| node.bytes.is_some()) {
            Some(true) if !is_file => return Err(Errno::ENOTDIR),
            Some(false) if is_file => return Err(Errno::EISDIR),
            _ if table.has_children(number) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        table.nodes.remove(&number);
        Ok(())
    }

    /// Gives a file another name, in any of these folders; a file with that name is gone then. Folders keep theirs.
    pub(crate) fn rename(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), replace: bool) -> Result<(), Errno> {
        let mut table = self.table();
        let number = table.find(from.0, from.1).ok_or(Errno::ENOENT)?;
        let to_is_folder = table.nodes.get(&to.0.0).is_some_and(|node| node.bytes.is_none());
        if !to_is_folder || table.file(NodeId(number)).is_err() || to.1.len() > MAX_NAME {
            return Err(Errno::EPERM);
        }
        if let Some(old) = table.find(to.0, to.1).filter(|old| *old != number) {
            if !replace {
                return Err(Errno::EEXIST);
            }
            table.file(NodeId(old))?;
            table.nodes.remove(&old);
        }
        let node = table.file(NodeId(number))?;
        (node.folder, node.name) = (to.0, to.1.to_vec());
        Ok(())
    }

    /// Reads at most `size` bytes.
    pub(crate) fn read(&self, node: NodeId, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let mut table = self.table();
        let bytes = table.file(node)?.bytes.as_deref().unwrap_or_default();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(bytes.iter().skip(skip).take(usize::try_from(size).unwrap_or(0)).copied().collect())
    }

    /// Writes bytes; what lies between the end of the file and them is zero.
    pub(crate) fn write(&self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(len).filter(|end| *end <= MAX_LEN).ok_or(Errno::EFBIG)?;
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        let mut table = self.table();
        let found = table.file(node)?;
        found.modified = now();
        let file = found.bytes.get_or_insert_default();
        if file.len() < at(end) {
            file.resize(at(end), 0);
        }
        file.get_mut(at(offset)..at(end)).unwrap_or_default().copy_from_slice(bytes);
        Ok(())
    }

    /// Cuts a file, or lets it grow with zeros.
    pub(crate) fn set_len(&self, node: NodeId, len: u64) -> Result<(), Errno> {
        let len = usize::try_from(len).ok().filter(|_| len <= MAX_LEN).ok_or(Errno::EFBIG)?;
        let mut table = self.table();
        let found = table.file(node)?;
        found.modified = now();
        found.bytes.get_or_insert_default().resize(len, 0);
        Ok(())
    }

    /// What is said of a node; `None` where it is gone.
    pub(crate) fn attributes(&self, node: NodeId) -> Option<Attributes> {
        let table = self.table();
        let found = table.nodes.get(&node.0)?;
        let len = found.bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0));
        let time = Some(found.modified);
        Some(Attributes {
            kind: kind(found),
            len,
            allocated: len,
            links: 1,
            permissions: Some(if found.bytes.is_some() { 0o644 } else { 0o755 }),
            uid: None,
            gid: None,
            modified: time,
            accessed: time,
            changed: time,
            created: time,
            dos_attributes: None,
        })
    }
}

fn kind(node: &Node) -> NodeKind {
    if node.bytes.is_some() { NodeKind::File } else { NodeKind::Folder }
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BESIDE: NodeId = NodeId(7);

    #[test]
    fn a_lock_folder_is_made_filled_and_removed() {
        let locks = LockFolders::default();
        let folder = locks.make(BESIDE, b"disk.vmdk.lck", false).unwrap();
        assert!(is_lock(folder) && !is_lock(BESIDE) && !is_lock(NodeId(1 << 63)));
        assert!(matches!(locks.make(BESIDE, b"disk.vmdk.lck", false), Err(Errno::EEXIST)));
        let file = locks.make(folder, b"M1.lck", true).unwrap();
        locks.write(file, 3, b"me").unwrap();
        assert_eq!(locks.read(file, 0, 100).unwrap(), b"\0\0\0me");
        assert_eq!(locks.read(file, 4, 100).unwrap(), b"e");
        locks.set_len(file, 4).unwrap();
        assert_eq!(locks.attributes(file).unwrap().len, 4);
        assert!(matches!(locks.remove(BESIDE, b"disk.vmdk.lck", false), Err(Errno::ENOTEMPTY)));
        locks.make(folder, b"M2.lck", true).unwrap();
        assert!(matches!(locks.rename((folder, b"M1.lck"), (folder, b"M2.lck"), false), Err(Errno::EEXIST)));
        locks.rename((folder, b"M1.lck"), (folder, b"M2.lck"), true).unwrap();
        assert_eq!(locks.list(folder).len(), 1);
        assert_eq!(locks.find(folder, b"M2.lck"), Some(file));
        // Nothing leaves the lock folders.
        assert!(locks.rename((folder, b"M2.lck"), (BESIDE, b"x"), true).is_err());
        locks.remove(folder, b"M2.lck", true).unwrap();
        locks.remove(BESIDE, b"disk.vmdk.lck", false).unwrap();
        assert!(locks.list(BESIDE).is_empty() && locks.attributes(folder).is_none());
        assert!(matches!(locks.make(folder, b"late", true), Err(Errno::ENOENT)));
    }

    #[test]
    fn there_is_an_end_to_what_they_hold() {
        let locks = LockFolders::default();
        let folder = locks.make(BESIDE, b"a.lck", false).unwrap();
        let file = locks.make(folder, b"f", true).unwrap();
        assert!(matches!(locks.write(file, MAX_LEN, b"x"), Err(Errno::EFBIG)));
        assert!(matches!(locks.write(file, u64::MAX, b"x"), Err(Errno::EFBIG)));
        assert!(matches!(locks.set_len(file, MAX_LEN + 1), Err(Errno::EFBIG)));
        assert!(locks.make(folder, &[b'n'; 256], true).is_err());
        let made = (0..MAX_NODES).filter(|n| locks.make(folder, n.to_string().as_bytes(), true).is_ok()).count();
        assert_eq!(made, MAX_NODES - 2);
    }
}
