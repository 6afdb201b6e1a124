//! Where a restore goes: devices and files, and those that it must not touch.

use std::path::Path;
use std::sync::Arc;

use imgfmt::image::{FolderStore, Image, OpenOptions};
use imgfmt::{Disk, ExtentKind};

use crate::disks::{Part, build};
use crate::machine::{HIKAE, Loop, Mounted, Ran, Random, as_root, hikae, run, shell, sparse_file, target_id, text};
use crate::volumes::Kind;

/// Runs `hikae` as root in a folder, whatever the exit code.
fn hikae_as_root(folder: &Path, args: &[&str]) -> Ran {
    let folder = ["-C", text(folder), HIKAE];
    if rustix::process::geteuid().is_root() {
        run("env", folder.iter().chain(args))
    } else {
        run("sudo", ["-n", "env"].iter().chain(&folder).chain(args))
    }
}

/// Restores onto a device, named by what it holds now.
fn restore_to(folder: &Path, image: &str, device: &Path, more: &[&str]) -> Ran {
    let id = target_id(device);
    let args = ["restore", image, text(device), "--yes", "--target-id", &id];
    hikae_as_root(folder, &args.iter().chain(more).copied().collect::<Vec<_>>())
}

fn small_image(folder: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    Random::new(63).fill(&mut bytes[100_000..1_000_000]);
    std::fs::write(folder.join("disk.img"), &bytes).unwrap();
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    bytes
}

#[test]
fn a_restore_to_a_device_leaves_every_absent_sector_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let len = 64 << 20;
    // From sector 63 on: chunks of 64 KiB straddle the gap before the partition and the partition.
    let parts = [Part { number: 1, start: 63 * 512, len: 100_000 * 512, kind: Kind::Ntfs }];
    let built = build(folder.path(), len, 512, &parts, |disk| {
        let script = "label: dos\\nunit: sectors\\nstart=63, size=100000, type=7\\n";
        shell(disk.parent().unwrap(), &format!("printf '{script}' | sfdisk --quiet disk.img"));
    });
    hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.path().join("target.img");
    std::fs::write(&target, vec![0xa5; len as usize]).unwrap();
    {
        let device = Loop::over(&target, 512);
        restore_to(folder.path(), "a.hik", &device.path, &[]).expect(0);
    }
    let (source, restored) = (std::fs::read(&built.path).unwrap(), std::fs::read(&target).unwrap());
    let store = FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap();
    let image = Arc::new(Image::open(Arc::new(store), &OpenOptions::default()).unwrap());
    let generation = image.generation(1).unwrap();
    let (mut at, mut absent, mut odd) = (0, 0_u64, 0);
    while at < len {
        let extent = generation.extent_at(at).unwrap();
        let (from, to) = (at as usize, extent.end() as usize);
        match extent.kind {
            ExtentKind::Absent => {
                absent += extent.len;
                odd += u64::from(at % 65536 != 0);
                assert!(
                    restored[from..to].iter().all(|byte| *byte == 0xa5),
                    "absent bytes {from:#x} to {to:#x} were written"
                );
            }
            ExtentKind::Zero => {
                assert!(restored[from..to].iter().all(|byte| *byte == 0), "zero bytes {from:#x} to {to:#x}")
            }
            _ => assert!(restored[from..to] == source[from..to], "bytes {from:#x} to {to:#x} differ"),
        }
        at = extent.end();
    }
    assert!(absent > len / 4 && odd > 0, "{absent} bytes are absent, {odd} runs of them start inside a chunk");
    // --wipe leaves nothing of what was there.
    let device = Loop::over(&target, 512);
    restore_to(folder.path(), "a.hik", &device.path, &["--wipe"]).expect(0);
    drop(device);
    let restored = std::fs::read(&target).unwrap();
    assert!(!restored.windows(512).step_by(512).any(|sector| sector.iter().all(|byte| *byte == 0xa5)));
}

#[test]
fn a_target_that_is_too_small_or_in_use_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = small_image(folder.path());
    let target = folder.path().join("target.img");
    std::fs::write(&target, vec![0xa5; (2 << 20) + 512]).unwrap();
    let device = Loop::over(&target, 512);
    let refused = restore_to(folder.path(), "a.hik", &device.path, &[]);
    refused.expect(4).says(&[&(3 << 20).to_string(), &((2 << 20) + 512).to_string()]);
    drop(device);
    assert!(std::fs::read(&target).unwrap().iter().all(|byte| *byte == 0xa5));
    // Mounted, for reading only.
    sparse_file(&target, 8 << 20);
    as_root("mke2fs", ["-q", "-F", text(&target)]);
    let before = std::fs::read(&target).unwrap();
    let device = Loop::over(&target, 512);
    let mounted = Mounted::new(&folder.path().join("mnt"), &["mount", "-o", "ro"], &device.path);
    let refused = restore_to(folder.path(), "a.hik", &device.path, &[]);
    refused.expect(4).says(&[text(&device.path), "is mounted at"]);
    drop(mounted);
    assert!(std::fs::read(&target).unwrap() == before);
    // A larger one is fine, and keeps what lies behind.
    restore_to(folder.path(), "a.hik", &device.path, &[]).expect(0);
    drop(device);
    let after = std::fs::read(&target).unwrap();
    assert!(after[..bytes.len()] == bytes && after[bytes.len()..] == before[bytes.len()..]);
}

#[test]
fn a_device_that_holds_the_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    small_image(folder.path());
    let target = folder.path().join("target.img");
    sparse_file(&target, 16 << 20);
    as_root("mke2fs", ["-q", "-F", text(&target)]);
    let device = Loop::over(&target, 512);
    let mounted = Mounted::new(&folder.path().join("mnt"), &["mount"], &device.path);
    as_root("cp", [text(&folder.path().join("a.hik")), text(&mounted.path)]);
    let refused = restore_to(folder.path(), "mnt/a.hik", &device.path, &[]);
    refused.expect(4).says(&["mnt/a.hik lies on", text(&device.path), "itself"]);
    // Nor is a capture of it written onto it.
    let refused = hikae_as_root(folder.path(), &["capture", text(&device.path), "mnt/b.hik", "--live"]);
    refused.expect(4).says(&["mnt/b.hik", "itself", "another disk"]);
    let refused = hikae_as_root(folder.path(), &["capture", "target.img", "mnt/b.hik", "--live"]);
    refused.expect(4).says(&["mnt/b.hik", "itself"]);
}

#[test]
fn devices_that_the_system_tells_nothing_about_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    small_image(folder.path());
    let node = folder.path().join("disk");
    // A device number that nothing answers to: the refusal must come before anything is opened.
    as_root("mknod", [text(&node), "b", "8", "240"]);
    let refused = hikae_as_root(folder.path(), &["restore", "a.hik", text(&node), "--yes"]);
    refused.expect(4).says(&["block device", "guards"]);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&node, &link).unwrap();
    hikae_as_root(folder.path(), &["restore", "a.hik", text(&link), "--yes"]).expect(4);
    hikae(folder.path(), ["restore", "a.hik", "/dev/null", "--yes"]).expect(4).says(&["/dev/null"]);
    let ran = hikae(folder.path(), ["capture", "/dev/null", "null.hik"]).expect(4).says(&["/dev/null"]);
    assert!(ran.out.is_empty() && !folder.path().join("null.hik").exists());
    hikae(folder.path(), ["restore", "a.hik", ".", "--yes"]).expect(4);
    as_root("rm", [text(&node)]);
}

#[test]
fn the_image_is_never_its_own_target() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = small_image(folder.path());
    // A second pack.
    let mut changed = bytes.clone();
    changed[5] = 1;
    std::fs::write(folder.path().join("disk.img"), &changed).unwrap();
    hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(0);
    let image = std::fs::read(folder.path().join("a.hik")).unwrap();
    shell(folder.path(), "ln a.hik hard.img; ln -s a.00001.hik soft.raw; touch a.00002.hik.partial");
    for target in ["a.hik", "./a.hik", "a.00001.hik", "hard.img", "soft.raw", "a.00002.hik.partial"] {
        hikae(folder.path(), ["restore", "a.hik", target, "--yes"]).expect(4).says(&[target, "part of the image"]);
    }
    hikae(folder.path(), ["export", "a.hik", "soft.raw", "--overwrite"]).expect(4).says(&["part of the image"]);
    assert!(std::fs::read(folder.path().join("a.hik")).unwrap() == image);
    hikae(folder.path(), ["verify", "a.hik"]).expect(0);
}

#[test]
fn an_existing_file_is_replaced_only_on_a_word_and_only_by_a_whole_disk() {
    let folder = tempfile::tempdir().unwrap();
    small_image(folder.path());
    std::fs::write(folder.path().join("old.img"), b"precious").unwrap();
    hikae(folder.path(), ["restore", "a.hik", "old.img"]).expect(4).says(&["old.img", "--yes"]);
    hikae(folder.path(), ["restore", "a.hik", "old.img", "--dry-run"]).expect(0).says(&["old.img"]);
    hikae(folder.path(), ["export", "a.hik", "old.img"]).expect(4).says(&["old.img", "--overwrite"]);
    hikae(folder.path(), ["export", "a.hik", "old.qcow9"]).expect(2);
    assert_eq!(std::fs::read(folder.path().join("old.img")).unwrap(), b"precious");
    // Damage on the way: the old file stays, and nothing half-made lies about.
    let whole = std::fs::read(folder.path().join("a.hik")).unwrap();
    let mut damaged = whole.clone();
    damaged[2000] ^= 1;
    std::fs::write(folder.path().join("a.hik"), damaged).unwrap();
    hikae(folder.path(), ["restore", "a.hik", "old.img", "--yes"]).expect(1).says(&["a.hik", "corrupt"]);
    assert_eq!(std::fs::read(folder.path().join("old.img")).unwrap(), b"precious");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().contains(".hikae-")), "{left:?}");
    std::fs::write(folder.path().join("a.hik"), whole).unwrap();
    hikae(folder.path(), ["restore", "a.hik", "no/such/folder/x.img"]).expect(3).says(&["no/such/folder"]);
}

#[test]
fn a_link_is_followed_to_a_file_and_refused_where_it_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = small_image(folder.path());
    // Through a symbolic link the file that it leads to is replaced, and the link stays one.
    shell(folder.path(), "mkdir sub; echo old > sub/old.img; ln -s sub/old.img link.img");
    hikae(folder.path(), ["restore", "a.hik", "link.img", "--yes"]).expect(0);
    assert!(folder.path().join("link.img").symlink_metadata().unwrap().is_symlink());
    assert!(std::fs::read(folder.path().join("sub/old.img")).unwrap() == bytes);
    // A device that was pulled leaves no place for a file.
    shell(folder.path(), "ln -s gone dangling.img; ln -s /dev devices");
    for (target, said) in [
        ("dangling.img", "leads nowhere"),
        ("/dev/hikae-has-no-such", "there is no device"),
        ("/dev/pts/../hikae-has-no-such", "there is no device"),
        ("devices/hikae-has-no-such", "there is no device"),
    ] {
        hikae(folder.path(), ["restore", "a.hik", target, "--yes"]).expect(4).says(&[said]);
        hikae(folder.path(), ["export", "a.hik", target, "--format", "raw", "--overwrite"]).expect(4).says(&[said]);
        let left = folder.path().join(target).symlink_metadata();
        assert!(left.is_err() || left.unwrap().is_symlink(), "{target}");
    }
    assert!(!folder.path().join("gone").exists());
}
