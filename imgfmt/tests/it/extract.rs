//! Extraction against filesystems that lie: nothing outside of the target is touched, and everything that cannot be taken is told.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

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
struct Node {
    kind: Option<NodeKind>,
    bytes: Vec<u8>,
    /// Bytes that cannot be read.
    bad: Range<u64>,
    entries: Vec<(Vec<u8>, u64)>,
    links: u32,
    permissions: u16,
    xattrs: Vec<(&'static str, Vec<u8>)>,
    streams: Vec<(&'static str, Vec<u8>)>,
}

/// A filesystem made of whatever a test says, however wrong.
#[derive(Debug, Default)]
struct Model(BTreeMap<u64, Node>);

impl Model {
    fn add(&mut self, node: u64, kind: NodeKind) -> &mut Node {
        let made = Node { kind: Some(kind), links: 1, permissions: 0o644, ..Node::default() };
        self.0.entry(node).or_insert(made)
    }
    fn file(&mut self, folder: u64, name: &[u8], node: u64, bytes: &[u8]) -> &mut Node {
        self.0.get_mut(&folder).unwrap().entries.push((name.to_vec(), node));
        let file = self.add(node, NodeKind::File);
        file.bytes = bytes.to_vec();
        file
    }
    fn folder(&mut self, parent: u64, name: &[u8], node: u64) {
        if let Some(parent) = self.0.get_mut(&parent) {
            parent.entries.push((name.to_vec(), node));
        }
        self.add(node, NodeKind::Folder).permissions = 0o755;
    }
    fn link(&mut self, folder: u64, name: &[u8], node: u64, target: &str) {
        self.file(folder, name, node, target.as_bytes()).kind = Some(NodeKind::Symlink);
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

const EVERYTHING: ExtractOptions = ExtractOptions {
    keep: Keep { owner: false, ..Keep::SAFE },
    recursive: true,
    update: false,
    delete: false,
    streams: Streams::LeaveOut,
    salvage: false,
};

fn run(model: &Model, target: &Path, options: &ExtractOptions) -> Result<Extracted> {
    extract(model, NodeId(1), "/p1", target, b"out", options, &|_| true, quiet(&Cancel::default()))
}

fn told(report: &Extracted, path: &str, part: &str) {
    let found = report.problems.iter().chain(&report.notes).any(|note| note.path == path && note.what.contains(part));
    assert!(found, "{path}: {part} is not in {:?} {:?}", report.problems, report.notes);
}

/// Everything below a folder with its kind, for comparison.
fn walk(folder: &Path) -> Vec<String> {
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
fn a_tree_comes_out_with_all_that_belongs_to_it() {
    let mut model = Model::default();
    model.folder(0, b"", 1);
    model.folder(1, b"sub", 2);
    let mut large = vec![7; 21 << 20];
    large[5 << 20..17 << 20].fill(0);
    large[20 << 20] = 1;
    model.file(2, b"large", 3, &large);
    model.file(1, b"small", 4, b"hello").permissions = 0o6755;
    model.0.get_mut(&4).unwrap().xattrs.push(("user.note", b"kept".to_vec()));
    model.file(1, b"first", 5, b"twice").links = 2;
    model.0.get_mut(&2).unwrap().entries.push((b"second".to_vec(), 5));
    model.link(2, b"link", 6, "../small");
    model.file(1, b"empty", 7, b"");
    model.file(1, b"streams", 8, b"main").streams.push(("side", b"aside".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let report = run(&model, folder.path(), &EVERYTHING).unwrap();
    assert_eq!((report.problem_count, report.folders, report.files, report.links), (0, 2, 5, 2), "{report:?}");
    assert_eq!(report.streams_left_out, 1);
    let out = folder.path().join("out");
    assert_eq!(fs::read(out.join("sub/large")).unwrap(), large);
    let stat = fs::metadata(out.join("sub/large")).unwrap();
    assert!(stat.blocks() * 512 < 12 << 20, "the hole is a hole: {} blocks", stat.blocks());
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_000_000_003, 123_456_700));
    assert_eq!(fs::metadata(out.join("sub")).unwrap().mtime(), 1_000_000_002, "after its files");
    let small = fs::metadata(out.join("small")).unwrap();
    assert_eq!(small.permissions().mode() & 0o7777, 0o755, "no set-uid bit unless it is asked for");
    let value =
        crate::tools::run("getfattr", ["--only-values", "-n", "user.note", out.join("small").to_str().unwrap()]);
    assert_eq!(value.stdout, b"kept");
    assert_eq!(fs::metadata(out.join("first")).unwrap().ino(), fs::metadata(out.join("sub/second")).unwrap().ino());
    assert_eq!(fs::read_link(out.join("sub/link")).unwrap(), Path::new("../small"));
    // Streams as files, on a second run over the first.
    let report = run(&model, folder.path(), &ExtractOptions { streams: Streams::AsFiles, ..EVERYTHING }).unwrap();
    assert_eq!(report.problem_count, 0, "{report:?}");
    assert_eq!(fs::read(out.join("streams:side")).unwrap(), b"aside");
    let stat = fs::metadata(out.join("streams:side")).unwrap();
    assert_eq!((stat.mtime(), stat.permissions().mode() & 0o7777), (1_000_000_008, 0o644), "as its file");
    assert!(walk(&out).iter().all(|path| !path.contains(".hikae-")), "no temporary name is left");
}

#[test]
fn names_and_links_that_point_out_touch_nothing_outside() {
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
    // A link out, and then a folder of the same name: its files must not go through the link.
    model.link(1, b"door", 20, outside.to_str().unwrap());
    model.folder(1, b"door", 21);
    model.file(21, b"victim", 22, b"overwritten");
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
    assert_eq!(report.problem_count, 7 + 1 + 1 + 1, "{:?}", report.problems);
    told(&report, "/p1/null", "device");
    told(&report, "/p1/twin", "this name");
    assert_eq!(fs::read(target.join("out/twin")).unwrap(), b"1");
    assert_eq!(report.note_count, 1, "{:?}", report.notes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn links_that_lie_in_the_target_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "whole").unwrap();
    let target = folder.path().join("target/out");
    fs::create_dir_all(&target).unwrap();
    symlink(&outside, target.join("sub")).unwrap();
    symlink(outside.join("file"), target.join("file")).unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    model.folder(1, b"sub", 2);
    model.file(2, b"file", 3, b"new");
    model.file(1, b"file", 4, b"new");
    for update in [false, true] {
        let options = ExtractOptions { update, ..EVERYTHING };
        let report = run(&model, &folder.path().join("target"), &options).unwrap();
        told(&report, "/p1/sub", "in the way");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"whole");
        assert_eq!(fs::read(target.join("file")).unwrap(), b"new");
        assert!(fs::symlink_metadata(target.join("file")).unwrap().is_file(), "the link was replaced, not followed");
        assert!(fs::symlink_metadata(target.join("sub")).unwrap().is_symlink());
    }
}

#[test]
fn a_folder_swapped_for_a_link_during_the_run_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    for sub in 0..10 {
        model.folder(1, format!("sub{sub}").as_bytes(), 100 + sub);
        for file in 0..20 {
            model.file(100 + sub, format!("f{file}").as_bytes(), 1000 + sub * 100 + file, b"x");
        }
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let sub = target.join("out").join(format!("sub{}", round % 10));
                // Whatever is there becomes a link out, and later a folder again.
                let _ = fs::remove_dir_all(&sub).or_else(|_| fs::remove_file(&sub));
                let _ = symlink(&outside, &sub);
                round += 1;
            }
        });
        for _ in 0..60 {
            // Losing files to the one who removes them is right; failing is too.
            let _ = run(&model, &target, &EVERYTHING);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(walk(&outside), Vec::<String>::new());
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
    let inode = fs::metadata(out.join("same")).unwrap().ino();
    fs::write(out.join("touched"), "touched").unwrap();
    fs::create_dir_all(out.join("sub/gone/deep")).unwrap();
    fs::write(out.join("sub/gone/deep/file"), "x").unwrap();
    fs::write(out.join("stray"), "x").unwrap();
    symlink("/", out.join("root")).unwrap();
    model.0.get_mut(&4).unwrap().bytes = b"after!".to_vec();
    // Same length and time on purpose is what --update takes for equal; a changed time is looked into.
    fs::write(out.join("sub/other"), "before").unwrap();
    let options = ExtractOptions { update: true, delete: true, ..EVERYTHING };
    let report = run(&model, folder.path(), &options).unwrap();
    assert_eq!((report.files, report.unchanged, report.removed), (1, 2, 5), "{report:?}");
    assert_eq!(fs::metadata(out.join("same")).unwrap().ino(), inode, "not written again");
    assert_eq!(fs::metadata(out.join("touched")).unwrap().mtime(), 1_000_000_005);
    assert_eq!(fs::read(out.join("sub/other")).unwrap(), b"after!");
    let left: Vec<_> = walk(&out).iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
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
fn an_update_renews_streams_and_metadata_of_a_file_whose_content_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    let file = model.file(1, b"file", 3, b"main");
    file.streams.push(("side", b"aside".to_vec()));
    file.streams.push(("still", b"still".to_vec()));
    file.xattrs.push(("user.note", b"kept".to_vec()));
    model.file(1, b"other", 4, b"other");
    let with = |streams| ExtractOptions { update: true, streams, ..EVERYTHING };
    run(&model, folder.path(), &with(Streams::AsFiles)).unwrap();
    let out = folder.path().join("out");
    let still = fs::metadata(out.join("file:still")).unwrap().ino();
    let inode = fs::metadata(out.join("file")).unwrap().ino();
    let attribute = |name: &str| {
        let path = out.join("file");
        let shown = crate::tools::run_any_status("getfattr", ["--only-values", "-n", name, path.to_str().unwrap()]);
        shown.status.success().then_some(shown.stdout)
    };

    // Nothing changed, nothing is written.
    let report = run(&model, folder.path(), &with(Streams::AsFiles)).unwrap();
    assert_eq!((report.files, report.unchanged, report.bytes), (0, 2, 0), "{report:?}");
    // A stream of the same length, a new one, permissions and an attribute: none of them changes the time of the file.
    let file = model.0.get_mut(&3).unwrap();
    file.streams[0].1 = b"ASIDE".to_vec();
    file.streams.push(("more", b"new".to_vec()));
    file.permissions = 0o600;
    file.xattrs[0].1 = b"renewed".to_vec();
    let report = run(&model, folder.path(), &with(Streams::AsFiles)).unwrap();
    assert_eq!((report.files, report.unchanged, report.bytes, report.note_count), (1, 1, 8, 0), "{report:?}");
    assert_eq!(fs::read(out.join("file:side")).unwrap(), b"ASIDE");
    assert_eq!(fs::read(out.join("file:more")).unwrap(), b"new");
    assert_eq!(fs::metadata(out.join("file:still")).unwrap().ino(), still, "not written again");
    assert_eq!(fs::metadata(out.join("file")).unwrap().ino(), inode, "not written again");
    assert_eq!(fs::metadata(out.join("file")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(attribute("user.note").unwrap(), b"renewed");

    // As attributes: they come, change, and go.
    run(&model, folder.path(), &with(Streams::AsXattrs)).unwrap();
    assert_eq!(attribute("user.side").unwrap(), b"ASIDE");
    let streams = &mut model.0.get_mut(&3).unwrap().streams;
    streams[0].1 = b"other".to_vec();
    streams.pop();
    run(&model, folder.path(), &with(Streams::AsXattrs)).unwrap();
    assert_eq!(attribute("user.side").unwrap(), b"other");
    assert_eq!(attribute("user.more"), None);
    assert_eq!(attribute("user.note").unwrap(), b"renewed");
    let report = run(&model, folder.path(), &with(Streams::AsXattrs)).unwrap();
    assert_eq!((report.files, report.unchanged), (0, 2), "{report:?}");
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
    let out = target.path().join("out/100");
    assert_eq!(fs::read(target.path().join("out/101:side")).unwrap(), b"of a folder");
    let left_out = run(&model, target.path(), &ExtractOptions { streams: Streams::LeaveOut, ..options }).unwrap();
    assert_eq!(left_out.streams_left_out, 800, "799 of files and one of a folder");
    run(&model, target.path(), &options).unwrap();
    assert!(out.join("10000").exists() && !out.join("10000:side").exists() && out.join("10001:side").exists());
}
