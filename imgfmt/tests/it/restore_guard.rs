//! Guards of a restore against real loop devices: every test tries to get past one.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use imgfmt::restore::facts::Facts;
use imgfmt::restore::guard::{Scope, open, refusals};
use imgfmt::source::System;
use imgfmt::target::InPlace;
use imgfmt::{Disk, Error, WritableDisk};

use crate::files::sparse_file;
use crate::tools::{Loop, Mounted, run_any_status, shell};

/// A raw file with an MBR and an ext4 filesystem in partition 1, which starts at 1 MiB.
fn disk_file(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    sparse_file(&path, 16 << 20);
    shell(
        folder,
        "printf 'label: dos\\nlabel-id: 0x11223344\\nstart=2048, type=83\\n' | sfdisk -q disk.raw
         mke2fs -q -t ext4 -E offset=1048576 disk.raw 15360k",
    );
    path
}

fn reasons(target: &Path, scope: Scope, keep: &[PathBuf]) -> Vec<String> {
    let system = System::default();
    let facts = Facts::examine(&system, target).unwrap();
    refusals(&system, &facts, scope, keep).unwrap()
}

#[test]
fn a_partition_mounted_through_another_loop_device_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let whole = Loop::over(&file, 0);
    assert_eq!(reasons(&whole.path, Scope::Disk, &[]), Vec::<String>::new());
    let part = Loop::over(&file, 1 << 20);
    let mounted = Mounted::new(folder.path(), &["mount"], &part.path);
    for target in [&whole.path, &part.path, &file] {
        let reasons = reasons(target, Scope::Disk, &[]);
        assert!(reasons.iter().any(|reason| reason.contains("is mounted at")), "{target:?}: {reasons:?}");
    }
    // The system refuses the mounted one itself, too.
    let facts = Facts::examine(&System::default(), &part.path).unwrap();
    let refused = open(&System::default(), &facts, Scope::Disk).unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{refused}");
    drop(mounted);
    assert_eq!(reasons(&part.path, Scope::Disk, &[]), Vec::<String>::new());
}

#[test]
fn a_file_that_a_loop_device_shows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    assert_eq!(reasons(&file, Scope::Disk, &[]), Vec::<String>::new());
    let shown = Loop::over(&file, 0);
    let reasons = reasons(&file, Scope::Disk, &[]);
    assert!(reasons[0].contains("losetup -d"), "{reasons:?}");
    drop(shown);
}

#[test]
fn an_image_on_the_target_is_seen_through_mounts_loops_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let part = Loop::over(&file, 1 << 20);
    let mounted = Mounted::new(folder.path(), &["mount"], &part.path);
    let image = mounted.path.join("backup.hik");
    std::fs::write(&image, b"x").unwrap();
    let whole = Loop::over(&file, 0);
    let link = folder.path().join("by-id-of-the-target");
    symlink(&whole.path, &link).unwrap();
    let other = folder.path().join("link-to-the-image");
    symlink(&image, &other).unwrap();
    for target in [&whole.path, &part.path, &link] {
        for kept in [&image, &other, &mounted.path.join("not-made-yet.undo")] {
            let reasons = reasons(target, Scope::Disk, std::slice::from_ref(kept));
            assert!(reasons.iter().any(|reason| reason.contains("itself")), "{target:?} {kept:?}: {reasons:?}");
        }
    }
}

#[test]
fn what_is_read_is_never_written_whatever_name_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let (one, two) = (Loop::over(&file, 0), Loop::over(&file, 0));
    let link = folder.path().join("link");
    symlink(&one.path, &link).unwrap();
    let hard = folder.path().join("hard");
    std::fs::hard_link(&file, &hard).unwrap();
    for target in [&one.path, &two.path, &link, &file] {
        for source in [&one.path, &two.path, &link, &file, &hard] {
            let reasons = reasons(target, Scope::Disk, std::slice::from_ref(source));
            assert!(reasons.iter().any(|reason| reason.contains("are the same")), "{target:?} {source:?}: {reasons:?}");
        }
    }
    let another = folder.path().join("another");
    sparse_file(&another, 1 << 20);
    assert_eq!(reasons(&one.path, Scope::Disk, &[another]), Vec::<String>::new());
}

#[test]
fn a_read_only_target_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let device = Loop::read_only(&file);
    let seen = reasons(&device.path, Scope::Disk, &[]);
    assert!(seen[0].contains("read-only"), "{seen:?}");
    let facts = Facts::examine(&System::default(), &device.path).unwrap();
    let refused = open(&System::default(), &facts, Scope::Disk).unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{refused}");
}

#[test]
fn a_target_that_vanishes_or_changes_between_check_and_open_is_not_written() {
    let system = System::default();
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let refused = |facts: &Facts| {
        let error = open(&system, facts, Scope::Disk).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        error.to_string()
    };
    // The file is gone, then another one has its name.
    let facts = Facts::examine(&system, &file).unwrap();
    open(&system, &facts, Scope::Disk).unwrap();
    let away = folder.path().join("away");
    std::fs::rename(&file, &away).unwrap();
    assert!(refused(&facts).contains("has vanished"));
    std::fs::copy(&away, &file).unwrap();
    assert!(refused(&facts).contains("what its name leads to"));
    std::fs::rename(&away, &file).unwrap();
    open(&system, &facts, Scope::Disk).unwrap();
    // The table changes.
    let bytes = std::fs::read(&file).unwrap();
    let mut changed = bytes.clone();
    changed[440] ^= 1;
    std::fs::write(&file, &changed).unwrap();
    assert!(refused(&facts).contains("its partition table"));
    std::fs::write(&file, &bytes).unwrap();
    open(&system, &facts, Scope::Disk).unwrap();
    std::fs::write(&file, &bytes[..8 << 20]).unwrap();
    assert!(refused(&facts).contains("its size"));
    std::fs::write(&file, &bytes).unwrap();

    // A link that leads to another device with the same bytes.
    let twin = folder.path().join("twin");
    std::fs::copy(&file, &twin).unwrap();
    let (device, other) = (Loop::over(&file, 0), Loop::over(&twin, 0));
    let link = folder.path().join("by-id");
    symlink(&device.path, &link).unwrap();
    let facts = Facts::examine(&system, &link).unwrap();
    open(&system, &facts, Scope::Disk).unwrap();
    std::fs::remove_file(&link).unwrap();
    symlink(&other.path, &link).unwrap();
    assert!(refused(&facts).contains("what its name leads to"));
    drop((device, other));
    // A device that is detached, and shows another file with the same bytes when it comes back. Its number is free for a moment, so that another
    // test can take it: then once more.
    for round in 0.. {
        let device = Loop::over(&file, 0);
        let facts = Facts::examine(&system, &device.path).unwrap();
        let path = device.path.clone();
        drop(device);
        let gone = open(&system, &facts, Scope::Disk).unwrap_err();
        assert!(matches!(gone, Error::Refused(_)), "{gone:?}");
        if run_any_status("losetup", [path.as_os_str(), twin.as_os_str()]).status.success() {
            let device = Loop { path };
            assert!(refused(&facts).contains("not the disk that was looked at"));
            drop(device);
            break;
        }
        assert!(round < 100, "no loop device stays free");
    }
}

#[test]
fn a_target_is_locked_while_it_is_written() {
    let system = System::default();
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let facts = Facts::examine(&system, &file).unwrap();
    let first = open(&system, &facts, Scope::Disk).unwrap();
    let second = open(&system, &facts, Scope::Disk).unwrap_err();
    assert!(second.to_string().contains("locked by another program"), "{second}");
    drop(first);
    let device = Loop::over(&file, 0);
    let facts = Facts::examine(&system, &device.path).unwrap();
    let first = open(&system, &facts, Scope::Disk).unwrap();
    let second = open(&system, &facts, Scope::Disk).unwrap_err();
    assert!(matches!(second, Error::Refused(_)), "{second}");
    drop(first);
}

#[test]
fn a_partition_without_a_node_is_a_slice_of_its_disk() {
    let system = System::default();
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let facts = Facts::examine(&system, &file).unwrap();
    let opened = open(&system, &facts, Scope::Partition(1)).unwrap();
    assert_eq!((opened.start(), opened.len()), (1 << 20, 15 << 20));
    let mut magic = [0; 2];
    opened.read_at(&mut magic, 0x438).unwrap();
    assert_eq!(magic, [0x53, 0xef]);
}

#[test]
fn what_is_written_is_read_back_from_the_medium() {
    let folder = tempfile::tempdir().unwrap();
    let file = disk_file(folder.path());
    let mut model = std::fs::read(&file).unwrap();
    let device = Loop::over(&file, 0);
    let facts = Facts::examine(&System::default(), &device.path).unwrap();
    let opened = open(&System::default(), &facts, Scope::Disk).unwrap();
    for (at, len) in [(0, 512), (511, 3), (5000, 70_000), ((16 << 20) - 1, 1)] {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 7 + at) as u8).collect();
        opened.write_at(&bytes, at as u64).unwrap();
        model[at..at + len].copy_from_slice(&bytes);
    }
    opened.zero_at(1_000_001, 100_000).unwrap();
    model[1_000_001..1_100_001].fill(0);
    opened.zero_at(2 << 20, 1 << 20).unwrap();
    model[2 << 20..3 << 20].fill(0);
    let back = opened.read_back().unwrap();
    crate::conformance::disk_suite(&*back, &model, 5);
    crate::conformance::disk_suite(&opened, &model, 6);
    opened.device().reread_table().unwrap();
}
