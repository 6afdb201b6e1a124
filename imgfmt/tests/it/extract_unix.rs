//! Extraction of what only files of Unix have: links, owners and permissions, extended attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use imgfmt::extract::{ExtractOptions, Streams};
use imgfmt::filesystem::files::NodeKind;

use crate::extract::{EVERYTHING, Model, run, told, walk};

/// Adds a symbolic link to a model.
fn link(model: &mut Model, folder: u64, name: &[u8], node: u64, target: &str) {
    model.file(folder, name, node, target.as_bytes()).kind = Some(NodeKind::Symlink);
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
    link(&mut model, 2, b"link", 6, "../small");
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
fn a_folder_of_the_name_of_a_link_out_does_not_go_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "whole").unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    link(&mut model, 1, b"door", 20, outside.to_str().unwrap());
    model.folder(1, b"door", 21);
    model.file(21, b"victim", 22, b"overwritten");
    let report = run(&model, &target, &EVERYTHING).unwrap();
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"whole");
    assert_eq!(walk(&outside).len(), 1);
    assert_eq!(report.problem_count, 1, "{:?}", report.problems);
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
fn an_update_writes_no_equal_file_again_and_removes_links() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    model.folder(0, b"", 1);
    model.file(1, b"same", 3, b"same");
    run(&model, folder.path(), &EVERYTHING).unwrap();
    let out = folder.path().join("out");
    let inode = fs::metadata(out.join("same")).unwrap().ino();
    symlink("/", out.join("root")).unwrap();
    let options = ExtractOptions { update: true, delete: true, ..EVERYTHING };
    let report = run(&model, folder.path(), &options).unwrap();
    assert_eq!((report.files, report.unchanged, report.removed), (0, 1, 1), "{report:?}");
    assert_eq!(fs::metadata(out.join("same")).unwrap().ino(), inode);
    assert!(fs::symlink_metadata(out.join("root")).is_err());
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
