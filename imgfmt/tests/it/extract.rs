//! Extraction against filesystems that lie: nothing outside of the target is touched, and everything that cannot be taken is told.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use imgfmt::engine::{Cancel, quiet};
use imgfmt::extract::metadata::Keep;
use imgfmt::extract::{ExtractOptions, Extracted, Streams, extract};
use imgfmt::filesystem::Summary;
use imgfmt::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use imgfmt::{Error, Extent, ExtentKind, Result};

/// A node of the model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<NodeKind>,
    pub(crate) bytes: Vec<u8>,
    /// Bytes that cannot be read.
    pub(crate) bad: Range<u64>,
    pub(crate) entries: Vec<(Vec<u8>, u64)>,
    pub(crate) links: u32,
    pub(crate) permissions: u16,
    pub(crate) xattrs: Vec<(&'static str, Vec<u8>)>,
    pub(crate) streams: Vec<(&'static str, Vec<u8>)>,
}

/// A filesystem made of whatever a test says, however wrong.
#[derive(Debug, Default)]
pub(crate) struct Model(pub(crate) BTreeMap<u64, Node>);

impl Model {
    pub(crate) fn add(&mut self, node: u64, kind: NodeKind) -> &mut Node {
        let made = Node { kind: Some(kind), links: 1, permissions: 0o644, ..Node::default() };
        self.0.entry(node).or_insert(made)
    }
    pub(crate) fn file(&mut self, folder: u64, name: &[u8], node: u64, bytes: &[u8]) -> &mut Node {
        self.0.get_mut(&folder).unwrap().entries.push((name.to_vec(), node));
        let file = self.add(node, NodeKind::File);
        file.bytes = bytes.to_vec();
        file
    }
    pub(crate) fn folder(&mut self, parent: u64, name: &[u8], node: u64) {
        if let Some(parent) = self.0.get_mut(&parent) {
            parent.entries.push((name.to_vec(), node));
        }
        self.add(node, NodeKind::Folder).permissions = 0o755;
    }
    fn node(&self, node: NodeId) -> Result<&Node> {
        self.0.get(&node.0).ok_or_else(|| Error::corrupt("model", node.0, "there is no such node"))
    }
}

#[derive(Debug)]
struct ModelContent(Vec<u8>, Range<u64>);

impl Content for ModelContent {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        if offset < self.1.end && end > self.1.start {
            return Err(Error::Bad { offset: self.1.start, end: self.1.end });
        }
        buf.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        // Holes of 64 KiB wherever all is zero.
        let end = ((offset / 65_536 + 1) * 65_536).min(self.len());
        let zero = self.0[offset as usize..end as usize].iter().all(|byte| *byte == 0);
        let kind = if zero { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { offset, len: end - offset, kind })
    }
    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl FileSystem for Model {
    fn summary(&self) -> Summary {
        Summary::default()
    }
    fn space(&self) -> Result<Space> {
        Ok(Space::default())
    }
    fn root(&self) -> NodeId {
        NodeId(1)
    }
    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let found = self.node(node)?;
        let time = Some(Time { seconds: 1_000_000_000 + node.0 as i64, nanoseconds: 123_456_700 });
        Ok(Attributes {
            kind: found.kind.unwrap(),
            len: found.bytes.len() as u64,
            allocated: 0,
            links: found.links,
            permissions: Some(found.permissions),
            uid: None,
            gid: None,
            modified: time,
            accessed: time,
            changed: time,
            created: time,
            dos_attributes: None,
        })
    }
    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let entries = &self.node(folder)?.entries;
        let found = entries.iter().find(|(entry, _)| entry == name);
        Ok(found.map(|(name, node)| Entry { name: name.clone(), node: NodeId(*node), kind: None }))
    }
    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        for (name, node) in &self.node(folder)?.entries {
            if visit(Entry { name: name.clone(), node: NodeId(*node), kind: None }).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let found = self.node(node)?;
        let bytes = match stream {
            None => found.bytes.clone(),
            Some(stream) => found.streams.iter().find(|(name, _)| name.as_bytes() == stream).unwrap().1.clone(),
        };
        Ok(Box::new(ModelContent(bytes, found.bad.clone())))
    }
    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        Ok(self.node(node)?.bytes.clone())
    }
    fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>> {
        let streams = &self.node(node)?.streams;
        Ok(streams
            .iter()
            .map(|(name, bytes)| StreamEntry { name: name.as_bytes().to_vec(), len: bytes.len() as u64 })
            .collect())
    }
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let xattrs = &self.node(node)?.xattrs;
        Ok(xattrs.iter().map(|(name, value)| Xattr { name: name.as_bytes().to_vec(), value: value.clone() }).collect())
    }
}

pub(crate) const EVERYTHING: ExtractOptions = ExtractOptions {
    keep: Keep { owner: false, ..Keep::SAFE },
    recursive: true,
    update: false,
    delete: false,
    streams: Streams::LeaveOut,
    salvage: false,
};

pub(crate) fn run(model: &Model, target: &Path, options: &ExtractOptions) -> Result<Extracted> {
    extract(model, NodeId(1), "/p1", target, b"out", options, &|_| true, quiet(&Cancel::default()))
}

pub(crate) fn told(report: &Extracted, path: &str, part: &str) {
    let found = report.problems.iter().chain(&report.notes).any(|note| note.path == path && note.what.contains(part));
    assert!(found, "{path}: {part} is not in {:?} {:?}", report.problems, report.notes);
}

/// Everything below a folder with its kind, for comparison.
pub(crate) fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        found.push(path.display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn names_that_point_out_touch_nothing_outside() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "whole").unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    for (node, name) in [&b".."[..], b".", b"", b"../escape", b"/etc/escape", b"a\0b", b"sub/name"].iter().enumerate() {
        model.file(1, name, 10 + node as u64, b"bad");
    }
    // Two files of one name.
    model.file(1, b"twin", 23, b"1");
    model.file(1, b"twin", 24, b"2");
    // Devices only on request.
    model.file(1, b"null", 25, b"").kind = Some(NodeKind::CharacterDevice { major: 1, minor: 3 });
    model.file(1, b"x\nname\x1b[2J", 26, b"fine");
    model.file(1, "\u{65e5}".repeat(200).as_bytes(), 27, b"long");
    let report = run(&model, &target, &EVERYTHING).unwrap();
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"whole");
    assert_eq!(walk(&outside).len(), 1);
    assert_eq!(report.problem_count, 7 + 1 + 1, "{:?}", report.problems);
    told(&report, "/p1/null", "device");
    told(&report, "/p1/twin", "this name");
    assert_eq!(fs::read(target.join("out/twin")).unwrap(), b"1");
    assert_eq!(report.note_count, 1, "{:?}", report.notes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn loops_and_folders_within_folders_without_end_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    model.folder(1, b"a", 2);
    model.folder(2, b"up", 1);
    model.folder(2, b"self", 2);
    // Each level names the next twice: two to the power of 600 paths.
    for level in 10..610 {
        model.folder(if level == 10 { 1 } else { level - 1 }, b"x", level);
        let parent = if level == 10 { 1 } else { level - 1 };
        model.0.get_mut(&parent).unwrap().entries.push((b"y".to_vec(), level));
    }
    model.0.get_mut(&1).unwrap().entries.push((b"nowhere".to_vec(), 9999));
    model.file(1, b"good", 5000, b"still here");
    let report = run(&model, folder.path(), &EVERYTHING).unwrap();
    told(&report, "/p1/a/up", "twice");
    told(&report, "/p1/a/self", "twice");
    told(&report, "/p1/nowhere", "no such node");
    assert!(report.problems.iter().any(|note| note.what.contains("deeper than")));
    assert_eq!(fs::read(folder.path().join("out/good")).unwrap(), b"still here");
}

#[test]
fn damaged_files_are_left_out_or_salvaged_with_a_mark() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    for (node, name, len) in [(2, &b"small"[..], 100_000), (3, b"large", 20 << 20)] {
        model.file(1, name, node, &vec![5; len]).bad = 8192..12_288;
    }
    model.file(1, b"good", 4, b"good");
    let report = run(&model, folder.path(), &EVERYTHING).unwrap();
    assert_eq!((report.problem_count, report.files), (2, 1));
    told(&report, "/p1/large", "unreadable");
    assert_eq!(walk(folder.path()).len(), 2, "nothing half-done is left");
    let report = run(&model, folder.path(), &ExtractOptions { salvage: true, ..EVERYTHING }).unwrap();
    assert_eq!((report.problem_count, report.files, report.note_count), (0, 3, 2));
    for name in ["small", "large"] {
        let bytes = fs::read(folder.path().join("out").join(name)).unwrap();
        let marked = bytes[8192..12_288].starts_with(b"<unreadable");
        assert!(marked && bytes[..8192].iter().chain(&bytes[12_288..]).all(|byte| *byte == 5), "{name}");
    }
}

#[test]
fn an_update_writes_what_differs_and_delete_removes_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    model.folder(1, b"sub", 2);
    model.file(1, b"same", 3, b"same");
    model.file(2, b"other", 4, b"before");
    model.file(1, b"touched", 5, b"touched");
    run(&model, folder.path(), &EVERYTHING).unwrap();
    let out = folder.path().join("out");
    fs::write(out.join("touched"), "touched").unwrap();
    fs::create_dir_all(out.join("sub/gone/deep")).unwrap();
    fs::write(out.join("sub/gone/deep/file"), "x").unwrap();
    fs::write(out.join("stray"), "x").unwrap();
    model.0.get_mut(&4).unwrap().bytes = b"after!".to_vec();
    // Same length and time on purpose is what --update takes for equal; a changed time is looked into.
    fs::write(out.join("sub/other"), "before").unwrap();
    let options = ExtractOptions { update: true, delete: true, ..EVERYTHING };
    let report = run(&model, folder.path(), &options).unwrap();
    assert_eq!((report.files, report.unchanged, report.removed), (1, 2, 4), "{report:?}");
    let touched = fs::metadata(out.join("touched")).unwrap().modified().unwrap();
    assert_eq!(touched.duration_since(UNIX_EPOCH).unwrap(), Duration::new(1_000_000_005, 123_456_700));
    assert_eq!(fs::read(out.join("sub/other")).unwrap(), b"after!");
    let left: Vec<_> = walk(&out).iter().map(|path| path.rsplit(['/', '\\']).next().unwrap().to_owned()).collect();
    assert_eq!(left, ["same", "sub", "other", "touched"]);
    // One unreadable thing in the source, and nothing is removed.
    fs::write(out.join("stray"), "x").unwrap();
    model.0.get_mut(&1).unwrap().entries.push((b"nowhere".to_vec(), 9999));
    let report = run(&model, folder.path(), &options).unwrap();
    assert_eq!(report.removed, 0);
    assert!(out.join("stray").exists());
    told(&report, "", "nothing was removed");
}

#[test]
fn nothing_that_a_run_is_still_writing_counts_as_gone_from_the_source() {
    let target = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    for folder in 100..200 {
        model.folder(1, folder.to_string().as_bytes(), folder);
        for file in 0..8 {
            let node = folder * 100 + file;
            let file = model.file(folder, node.to_string().as_bytes(), node, &vec![1; 20_000]);
            file.streams.push(("side", b"aside".to_vec()));
        }
    }
    // Folders have streams too.
    model.0.get_mut(&101).unwrap().streams.push(("side", b"of a folder".to_vec()));
    let options = ExtractOptions { delete: true, streams: Streams::AsFiles, ..EVERYTHING };
    for _ in 0..2 {
        let report = run(&model, target.path(), &options).unwrap();
        assert_eq!((report.files, report.removed, report.problem_count), (800, 0, 0), "{:?}", report.problems);
    }
    // A stream that the source no longer has goes, its file stays.
    model.0.get_mut(&10_000).unwrap().streams.clear();
    assert_eq!(run(&model, target.path(), &options).unwrap().removed, 1);
    // Where a name cannot have a colon the files of streams have others.
    let found = fs::read_dir(target.path().join("out")).unwrap().map(|entry| entry.unwrap().path());
    let of_folders: Vec<_> = found.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(of_folders, [b"of a folder"]);
    let left_out = run(&model, target.path(), &ExtractOptions { streams: Streams::LeaveOut, ..options }).unwrap();
    assert_eq!(left_out.streams_left_out, 800, "799 of files and one of a folder");
    run(&model, target.path(), &options).unwrap();
    assert!(target.path().join("out/100/10000").exists());
    assert_eq!(fs::read_dir(target.path().join("out/100")).unwrap().count(), 8 + 7, "all but the stream that is gone");
}
