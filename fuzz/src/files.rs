//! What every reader of files must stand, whatever lies in the partition: no panic, no endless folder, and answers that agree with each other.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use imgfmt::disk::{Disk, ExtentKind, MemoryDisk};
use imgfmt::filesystem;
use imgfmt::filesystem::files::{Content, Entry, FileSystem, NodeId, NodeKind};

/// Nodes that are looked at, and folders that are entered.
const NODES: usize = 400;
/// Bytes of a file that are read.
const READ: u64 = 64 << 10;

/// Opens `data` as a partition and walks its files.
pub fn run(data: &[u8]) {
    walk(data, Folders::Names);
}

/// The same for a filesystem whose folders are sorted and hold copies of what their files say: where these are damaged, a name can be listed
/// and not found, and be of another kind.
pub fn run_with_copies(data: &[u8]) {
    walk(data, Folders::Copies);
}

/// What folders hold besides names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folders {
    Names,
    Copies,
}

fn walk(data: &[u8], folders: Folders) {
    let len = u64::try_from(data.len()).expect("usize is at most 64 bits");
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(data.to_vec()));
    let Ok(Some(files)) = filesystem::open_files(&disk) else { return };
    let _ = files.summary();
    if let Ok(space) = files.space() {
        assert!(space.free <= space.total, "no more is free than there is");
    }
    let (mut pending, mut entered) = (vec![files.root()], HashSet::new());
    let mut nodes = 0_usize;
    while let Some(folder) = pending.pop() {
        if !entered.insert(folder) {
            continue;
        }
        let _ = files.attributes(folder);
        let mut entries: Vec<Entry> = Vec::new();
        let listed = files.list(folder, &mut |entry| {
            entries.push(entry);
            nodes = nodes.saturating_add(1);
            if nodes > NODES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        for entry in &entries {
            check_entry(&*files, folder, entry, folders, listed.is_ok(), len);
            if entry.kind == Some(NodeKind::Folder) || folders == Folders::Copies && entry.kind.is_none() {
                pending.push(entry.node);
            }
        }
        if nodes > NODES {
            return;
        }
    }
}

fn check_entry(
    files: &dyn FileSystem,
    folder: NodeId,
    entry: &Entry,
    folders: Folders,
    whole: bool,
    partition_len: u64,
) {
    let name = &entry.name;
    assert!(
        !matches!(&name[..], b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0),
        "{name:?} is a name"
    );
    let found = files.lookup(folder, name);
    if whole && folders == Folders::Names {
        assert!(matches!(found, Ok(Some(_))), "what is listed is found: {name:?}");
    }
    let _ = files.xattrs(entry.node);
    for stream in files.streams(entry.node).unwrap_or_default() {
        assert!(!stream.name.is_empty(), "a named stream has a name");
        if let Ok(content) = files.open(entry.node, Some(&stream.name)) {
            check_content(&*content, partition_len);
        }
    }
    let target = files.link_target(entry.node);
    let Ok(attributes) = files.attributes(entry.node) else { return };
    if let (NodeKind::Symlink, Ok(target)) = (attributes.kind, target) {
        assert_eq!(u64::try_from(target.len()), Ok(attributes.len), "a link is as long as its target");
    }
    if let Some(kind) = entry.kind
        && folders == Folders::Names
    {
        assert_eq!(kind, attributes.kind, "the folder says what the node does");
    }
    if attributes.kind == NodeKind::File
        && let Ok(content) = files.open(entry.node, None)
    {
        assert_eq!(content.len(), attributes.len, "a file is as long as it says");
        check_content(&*content, partition_len);
    }
}

fn read(content: &dyn Content, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut buf = vec![0xaa; usize::try_from(len).expect("small")];
    content.read_at(&mut buf, offset).ok().map(|()| buf)
}

/// Checks that reads agree with each other and with the extents, which tile the content.
fn check_content(content: &dyn Content, partition_len: u64) {
    let len = content.len();
    assert!(content.read_at(&mut [0], len).is_err(), "nothing is behind the end");
    let part = len.min(READ);
    if let Some(whole) = read(content, 0, part) {
        let middle = part / 2;
        let halves = [read(content, 0, middle), read(content, middle, part.saturating_sub(middle))];
        let halves: Vec<u8> = halves.into_iter().flat_map(|half| half.expect("part of what was read")).collect();
        assert!(whole == halves, "reads agree");
    }
    let _ = read(content, len.saturating_sub(part), part);
    let mut at = 0_u64;
    for _ in 0..200 {
        if at >= len {
            break;
        }
        let Ok(extent) = content.extent_at(at) else { break };
        assert!(extent.offset == at && extent.len > 0 && extent.end() <= len, "extents tile the content");
        if extent.kind == ExtentKind::Zero {
            let bytes = read(content, at, extent.len.min(READ)).expect("zeros can be read");
            assert!(bytes.iter().all(|byte| *byte == 0), "zero is zero");
        }
        at = extent.end();
    }
    for place in content.places().unwrap_or_default() {
        assert!(place.start < place.end && place.end <= partition_len, "places lie inside the partition");
    }
}
