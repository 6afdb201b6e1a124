//! Virtual disk files of other programs, wherever a disk is taken.

use std::path::Path;

use crate::machine::{Random, hikae, shell, text};

/// Makes `disk.raw`: an MBR with an ext4 partition that holds a file, and some noise behind it.
fn disk(folder: &Path) -> Vec<u8> {
    shell(
        folder,
        "truncate -s 24M disk.raw; printf 'label: dos\\nunit: sectors\\nstart=2048, size=32768, type=83\\n' | sfdisk --quiet disk.raw
         mkdir tree; echo kept in reserve > tree/file; mke2fs -q -t ext4 -d tree -E offset=1048576 disk.raw 16M 2> /dev/null",
    );
    let path = folder.join("disk.raw");
    let mut bytes = std::fs::read(&path).unwrap();
    Random::new(9).fill(&mut bytes[20 << 20..21 << 20]);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

fn same(folder: &Path, name: &str, bytes: &[u8]) {
    assert!(std::fs::read(folder.join(name)).unwrap() == bytes, "{name} differs");
}

#[test]
fn every_format_is_captured_shown_exported_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = disk(folder);
    for (name, options) in [
        ("a.qcow2", "-O qcow2 -c -o compression_type=zstd"),
        ("a.vhd", "-O vpc -o force_size=on"),
        ("fixed.vhd", "-O vpc -o subformat=fixed,force_size=on"),
        ("a.vhdx", "-O vhdx"),
        ("a.vmdk", "-O vmdk -o subformat=streamOptimized"),
        ("split.vmdk", "-O vmdk -o subformat=twoGbMaxExtentFlat"),
        ("a.vdi", "-O vdi"),
    ] {
        shell(folder, &format!("qemu-img convert -f raw {options} disk.raw {name}"));
        let format = name.rsplit('.').next().unwrap();
        let info = hikae(folder, ["info", name, "--json"]).expect(0).json();
        assert_eq!(info["format"], format);
        assert_eq!(info["len"], bytes.len());
        assert!(info["partitions"][0]["filesystem"].as_str().unwrap().contains("ext4"));
        hikae(folder, ["info", name]).expect(0).says(&[&format!("format: {format}"), "ext4"]);
        hikae(folder, ["ls", name]).expect(0).says(&["p1"]);
        let image = format!("{name}.hik");
        hikae(folder, ["capture", name, &image, "--all-blocks"]).expect(0);
        hikae(folder, ["export", &image, "back.raw", "--overwrite"]).expect(0);
        same(folder, "back.raw", &bytes);
        hikae(folder, ["export", name, "out.raw", "--overwrite"]).expect(0).says(&[name]);
        same(folder, "out.raw", &bytes);
        hikae(folder, ["restore", name, "restored.raw", "--yes"]).expect(0).says(&[name]);
        same(folder, "restored.raw", &bytes);
    }
    hikae(folder, ["info", "split.vmdk"]).expect(0).says(&["twoGbMaxExtentFlat", "split-f001.vmdk"]);
    let split = hikae(folder, ["info", "split.vmdk", "--json"]).expect(0).json();
    assert_eq!(split["files"][0]["more_files"].as_array().unwrap().len(), 1);
}

#[test]
fn snapshots_are_named_behind_an_at_sign() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = disk(folder);
    shell(
        folder,
        "qemu-img convert -f raw -O qcow2 disk.raw a.qcow2; qemu-img snapshot -c before a.qcow2
         qemu-io a.qcow2 -c 'write -P 3 20M 1M' > io.log",
    );
    hikae(folder, ["info", "a.qcow2"]).expect(0).says(&["snapshot 1: before"]);
    hikae(folder, ["export", "a.qcow2@before", "before.raw"]).expect(0);
    same(folder, "before.raw", &bytes);
    hikae(folder, ["export", "a.qcow2", "now.raw"]).expect(0);
    assert!(std::fs::read(folder.join("now.raw")).unwrap()[20 << 20..21 << 20] == [3; 1 << 20]);
    hikae(folder, ["ls", "a.qcow2@1"]).expect(0).says(&["p1"]);
    hikae(folder, ["ls", "a.qcow2@gone"]).expect(3).says(&["no snapshot \"gone\""]);
    hikae(folder, ["export", "disk.raw@before", "x.raw"]).expect(3).says(&["no snapshot \"before\""]);
}

#[test]
fn a_base_elsewhere_is_refused_unless_its_folder_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = disk(folder);
    shell(
        folder,
        "mkdir bases tops; mv disk.raw bases; qemu-img create -q -f qcow2 -b ../bases/disk.raw -F raw tops/top.qcow2",
    );
    for command in ["export", "capture"] {
        let args = [command, "tops/top.qcow2", if command == "export" { "out.raw" } else { "out.hik" }];
        hikae(folder, args).expect(4).says(&["the policy refuses", "../bases/disk.raw"]);
        hikae(folder, args.into_iter().chain(["--allow-base", "bases"])).expect(0);
    }
    same(folder, "out.raw", &bytes);
    hikae(folder, ["info", "tops/top.qcow2", "--allow-base", "bases"]).expect(0).says(&["over ", "bases/disk.raw"]);
    // A disk of a virtual machine that says it is something else is raw where the user says so.
    hikae(folder, ["export", "tops/top.qcow2", "as.raw", "--image-format", "raw"]).expect(0);
    assert!(std::fs::read(folder.join("as.raw")).unwrap() == std::fs::read(folder.join("tops/top.qcow2")).unwrap());
    hikae(folder, ["export", "tops/top.qcow2", "as2.raw", "--image-format", "qcow3"])
        .expect(2)
        .says(&["no image format"]);
}

#[test]
fn what_is_being_read_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = disk(folder);
    shell(folder, "qemu-img create -q -f qcow2 -b disk.raw -F raw top.qcow2; ln disk.raw other-name.raw");
    for args in [
        ["export", "top.qcow2", "disk.raw", "--overwrite"],
        ["export", "top.qcow2", "other-name.raw", "--overwrite"],
        ["restore", "top.qcow2", "disk.raw", "--yes"],
        ["restore", "top.qcow2", "top.qcow2", "--yes"],
        ["restore", "disk.raw", "disk.raw", "--yes"],
    ] {
        hikae(folder, args).expect(4).says(&["would destroy what is to be read"]);
    }
    same(folder, "disk.raw", &bytes);
    assert!(text(folder).starts_with('/'));
}

#[test]
fn a_disk_that_was_not_closed_cleanly_is_read_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    disk(folder);
    shell(
        folder,
        "qemu-img convert -f raw -O qcow2 -o lazy_refcounts=on disk.raw a.qcow2
         ! qemu-io a.qcow2 -c 'write -P 3 22M 1M' -c flush -c abort > io.log 2>&1",
    );
    hikae(folder, ["export", "a.qcow2", "a.raw"]).expect(0).says(&["warning: ", "not closed cleanly"]);
    hikae(folder, ["info", "a.qcow2"]).expect(0).says(&["note: it was not closed cleanly"]);
}
