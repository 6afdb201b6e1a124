//! Holds a reader of files against the real driver: every node below a mounted folder is compared with what the reader says of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::{Disk, ExtentKind};
use imgfmt::filesystem;
use imgfmt::filesystem::files::{Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Time};
use imgfmt::source::FileDisk;

/// What the driver shows as the filesystem has it; what it makes up is not compared. Names, kinds, lengths of files, content and link targets always are.
pub(crate) struct Oracle<'a> {
    /// Permission bits.
    pub(crate) permissions: bool,
    /// Owner and group.
    pub(crate) owners: bool,
    /// Hard links of files.
    pub(crate) links: bool,
    /// Bytes that files take, in units of 512.
    pub(crate) allocated: bool,
    /// Times of modification, in steps of so many nanoseconds; 0 for not at all.
    pub(crate) modified: u64,
    /// Times of access; likewise.
    pub(crate) accessed: u64,
    /// Times of change; likewise.
    pub(crate) changed: u64,
    /// Which extended attributes are asked for by name, whether the driver lists them or not.
    pub(crate) xattrs: &'a [&'a str],
    /// Whether the reader must have exactly the extended attributes that the driver lists, `xattrs` aside.
    pub(crate) all_xattrs: bool,
    /// Left out with all below, by path from the root.
    pub(crate) skip: &'a dyn Fn(&Path) -> bool,
    /// Where the driver shows links in its own way.
    pub(crate) targets: bool,
    /// Called for each node, for what only this filesystem has.
    pub(crate) extra: &'a dyn Fn(&dyn FileSystem, &Entry, &Path) -> Vec<String>,
}

impl Default for Oracle<'_> {
    fn default() -> Self {
        Self {
            permissions: true,
            owners: true,
            links: true,
            allocated: false,
            modified: 1,
            accessed: 0,
            changed: 1,
            xattrs: &[],
            all_xattrs: false,
            skip: &|_| false,
            targets: true,
            extra: &|_, _, _| Vec::new(),
        }
    }
}

/// Opens the files in an image of one partition.
pub(crate) fn open_files(path: &Path) -> Box<dyn FileSystem> {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(path, 512).unwrap());
    filesystem::open_files(&disk).unwrap().expect("a filesystem whose files are read")
}

/// All entries of a folder.
pub(crate) fn entries(files: &dyn FileSystem, folder: NodeId) -> Vec<Entry> {
    let mut entries = Vec::new();
    files
        .list(folder, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

/// The node at a path from the root.
pub(crate) fn find(files: &dyn FileSystem, path: &str) -> NodeId {
    path.split('/').fold(files.root(), |folder, name| {
        let found = files.lookup(folder, name.as_bytes()).unwrap();
        found.unwrap_or_else(|| panic!("{name:?} of {path:?} is not found")).node
    })
}

/// All bytes of a content.
pub(crate) fn bytes_of(content: &dyn Content) -> Vec<u8> {
    let mut bytes = vec![0; content.len() as usize];
    content.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Compares all that is below `mounted` with `files`, and returns how many nodes that were.
pub(crate) fn compare(files: &dyn FileSystem, mounted: &Path, oracle: &Oracle<'_>) -> usize {
    let mut walk = Walk { files, mounted, oracle, nodes: 0, links: BTreeMap::new(), differences: Vec::new() };
    walk.folder(files.root(), Path::new(""));
    assert!(walk.differences.is_empty(), "{} nodes:\n{}", walk.nodes, walk.differences.join("\n"));
    walk.nodes
}

struct Walk<'a> {
    files: &'a dyn FileSystem,
    mounted: &'a Path,
    oracle: &'a Oracle<'a>,
    nodes: usize,
    /// Inode numbers of the driver, and the nodes that they are.
    links: BTreeMap<u64, NodeId>,
    differences: Vec<String>,
}

impl Walk<'_> {
    fn tell(&mut self, path: &Path, what: &str, ours: impl std::fmt::Debug, theirs: impl std::fmt::Debug) {
        if self.differences.len() < 50 {
            self.differences.push(format!("{}: {what} is {ours:?}, the driver says {theirs:?}", path.display()));
        }
    }

    fn folder(&mut self, folder: NodeId, path: &Path) {
        let mut ours: BTreeMap<OsString, Entry> = BTreeMap::new();
        for entry in entries(self.files, folder) {
            let name = OsString::from_vec(entry.name.clone());
            if ours.insert(name.clone(), entry).is_some() {
                self.tell(&path.join(&name), "name", "listed twice", "once");
            }
        }
        let theirs = std::fs::read_dir(self.mounted.join(path)).unwrap();
        let mut theirs: Vec<OsString> = theirs.map(|entry| entry.unwrap().file_name()).collect();
        theirs.sort();
        theirs.retain(|name| !(self.oracle.skip)(&path.join(name)));
        ours.retain(|name, _| !(self.oracle.skip)(&path.join(name)));
        if !ours.keys().eq(theirs.iter()) {
            let here: Vec<_> = ours.keys().filter(|name| theirs.binary_search(name).is_err()).collect();
            let there: Vec<_> = theirs.iter().filter(|name| !ours.contains_key(*name)).collect();
            self.tell(path, "list of names", here, there);
        }
        for name in theirs {
            if let Some(entry) = ours.get(&name) {
                self.node(folder, entry, &path.join(&name));
            }
        }
    }

    fn node(&mut self, folder: NodeId, entry: &Entry, path: &Path) {
        self.nodes += 1;
        let found = self.files.lookup(folder, &entry.name);
        match &found {
            Ok(Some(found)) if found == entry => {}
            other => self.tell(path, "what looking it up finds", other, entry),
        }
        let attributes = match self.files.attributes(entry.node) {
            Ok(attributes) => attributes,
            Err(error) => return self.tell(path, "its attributes", error, "it is there"),
        };
        let there = self.mounted.join(path);
        let theirs = std::fs::symlink_metadata(&there).unwrap();
        if let Some(kind) = entry.kind
            && kind != attributes.kind
        {
            self.tell(path, "the kind that its folder says", kind, attributes.kind);
        }
        self.attributes(path, &attributes, &theirs);
        if let Some(before) = self.links.insert(theirs.ino(), entry.node)
            && before != entry.node
        {
            self.tell(path, "its node", entry.node, before);
        }
        self.xattrs(path, &there, entry.node);
        match attributes.kind {
            NodeKind::Folder => self.folder(entry.node, path),
            NodeKind::Symlink if self.oracle.targets => {
                let target = std::fs::read_link(&there).unwrap();
                match self.files.link_target(entry.node) {
                    Ok(ours) if ours == target.as_os_str().as_bytes() => {}
                    ours => self.tell(path, "its target", ours.map(OsString::from_vec), target),
                }
            }
            NodeKind::File if theirs.is_file() => match self.files.open(entry.node, None) {
                Ok(content) => {
                    if let Some(difference) = different_content(&*content, &File::open(&there).unwrap()) {
                        self.tell(path, "its content", difference, "other");
                    }
                }
                Err(error) => self.tell(path, "its content", error, "it can be read"),
            },
            _ => {}
        }
        for difference in (self.oracle.extra)(self.files, entry, &there) {
            self.tell(path, "it", difference, "other");
        }
    }

    fn attributes(&mut self, path: &Path, ours: &Attributes, theirs: &Metadata) {
        let kind = kind_of(theirs);
        if ours.kind != kind {
            return self.tell(path, "its kind", ours.kind, kind);
        }
        let is_file = ours.kind == NodeKind::File;
        if (is_file || ours.kind == NodeKind::Symlink && self.oracle.targets) && ours.len != theirs.len() {
            self.tell(path, "its length", ours.len, theirs.len());
        }
        if self.oracle.allocated && is_file && ours.allocated.div_ceil(512) != theirs.blocks() {
            self.tell(path, "what it takes", ours.allocated, theirs.blocks() * 512);
        }
        if self.oracle.links && is_file && u64::from(ours.links) != theirs.nlink() {
            self.tell(path, "its number of links", ours.links, theirs.nlink());
        }
        if self.oracle.permissions && ours.permissions.map(u32::from) != Some(theirs.mode() & 0o7777) {
            self.tell(path, "its mode", ours.permissions, theirs.mode() & 0o7777);
        }
        if self.oracle.owners && (ours.uid, ours.gid) != (Some(theirs.uid()), Some(theirs.gid())) {
            self.tell(path, "its owner", (ours.uid, ours.gid), (theirs.uid(), theirs.gid()));
        }
        let times = [
            ("its time of modification", ours.modified, theirs.mtime(), theirs.mtime_nsec(), self.oracle.modified),
            ("its time of access", ours.accessed, theirs.atime(), theirs.atime_nsec(), self.oracle.accessed),
            ("its time of change", ours.changed, theirs.ctime(), theirs.ctime_nsec(), self.oracle.changed),
        ];
        for (what, ours, seconds, nanoseconds, step) in times {
            let whole = |seconds: i64, nanoseconds: i64| {
                (i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)).div_euclid(i128::from(step.max(1)))
            };
            let ours_in = |time: Time| whole(time.seconds, i64::from(time.nanoseconds));
            if step > 0 && ours.map(ours_in) != Some(whole(seconds, nanoseconds)) {
                self.tell(path, what, ours, (seconds, nanoseconds));
            }
        }
    }

    fn xattrs(&mut self, path: &Path, there: &Path, node: NodeId) {
        if self.oracle.xattrs.is_empty() && !self.oracle.all_xattrs {
            return;
        }
        let ours = match self.files.xattrs(node) {
            Ok(ours) => ours,
            Err(error) => return self.tell(path, "its extended attributes", error, "they can be read"),
        };
        let mut ours: BTreeMap<_, _> =
            ours.into_iter().map(|xattr| (OsString::from_vec(xattr.name), xattr.value)).collect();
        for name in self.oracle.xattrs {
            let (value, theirs) = (ours.remove(OsStr::new(name)), xattr(there, OsStr::new(name)));
            if value != theirs {
                self.tell(path, name, value, theirs);
            }
        }
        if self.oracle.all_xattrs {
            let theirs: BTreeMap<_, _> =
                xattr_names(there).into_iter().filter_map(|name| Some((name.clone(), xattr(there, &name)?))).collect();
            if ours != theirs {
                self.tell(path, "its extended attributes", ours, theirs);
            }
        }
    }
}

fn kind_of(theirs: &Metadata) -> NodeKind {
    let kind = theirs.file_type();
    let (major, minor) = (rustix::fs::major(theirs.rdev()), rustix::fs::minor(theirs.rdev()));
    if kind.is_dir() {
        NodeKind::Folder
    } else if kind.is_symlink() {
        NodeKind::Symlink
    } else if kind.is_char_device() {
        NodeKind::CharacterDevice { major, minor }
    } else if kind.is_block_device() {
        NodeKind::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        NodeKind::Fifo
    } else if kind.is_socket() {
        NodeKind::Socket
    } else {
        NodeKind::File
    }
}

/// The value of an extended attribute of a node itself, whatever a link points at; `None` where there is none.
pub(crate) fn xattr(path: &Path, name: &OsStr) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Some(value)
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => None,
        Err(error) => panic!("{name:?} of {}: {error}", path.display()),
    }
}

/// The names of a node's extended attributes that the driver lists.
pub(crate) fn xattr_names(path: &Path) -> Vec<OsString> {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

/// What is wrong with a content, if anything: read in large and in small pieces, with extents that tile it and holes that are zero.
pub(crate) fn different_content(ours: &dyn Content, theirs: &File) -> Option<String> {
    let len = theirs.metadata().unwrap().len();
    if ours.len() != len {
        return Some(format!("{} bytes and not {len}", ours.len()));
    }
    const PIECE: u64 = 1 << 20;
    let (mut a, mut b) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
    let mut at = 0;
    while at < len {
        let part = PIECE.min(len - at) as usize;
        if let Err(error) = ours.read_at(&mut a[..part], at) {
            return Some(format!("{error} at {at}"));
        }
        theirs.read_exact_at(&mut b[..part], at).unwrap();
        if let Some(byte) = a[..part].iter().zip(&b[..part]).position(|(a, b)| a != b) {
            return Some(format!("different at byte {}", at + byte as u64));
        }
        at += part as u64;
    }
    // Some small reads, the last bytes among them.
    for n in 0..len.min(20) {
        let at = if n == 0 { len - 1 } else { (len / 20 * n).saturating_add(n * 37) % len };
        let part = (n * 97 + 1).min(len - at) as usize;
        theirs.read_exact_at(&mut b[..part], at).unwrap();
        if let Err(error) = ours.read_at(&mut a[..part], at) {
            return Some(format!("{error} at {at}"));
        }
        if a[..part] != b[..part] {
            return Some(format!("different in a small read at {at}"));
        }
    }
    if ours.read_at(&mut a[..1], len).is_ok() {
        return Some("readable past its end".into());
    }
    let mut at = 0;
    while at < len {
        let extent = match ours.extent_at(at) {
            Ok(extent) => extent,
            Err(error) => return Some(format!("without an extent at {at}: {error}")),
        };
        if extent.offset != at || extent.len == 0 || extent.end() > len {
            return Some(format!("in extents that do not tile it: {extent:?} at {at}"));
        }
        if extent.kind == ExtentKind::Zero {
            let part = PIECE.min(extent.len) as usize;
            ours.read_at(&mut a[..part], at).unwrap();
            if a[..part].iter().any(|byte| *byte != 0) {
                return Some(format!("not zero where it says so at {at}"));
            }
        }
        at = extent.end();
    }
    None
}

/// Paths of all files below a folder, from there.
pub(crate) fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}
