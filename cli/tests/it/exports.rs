//! `hikae export`: which file is written, and which is not.

use crate::machine::{Random, hikae, run, shell};

#[test]
fn the_name_says_which_format_is_written_unless_format_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut bytes = vec![0; 3 << 20];
    Random::new(4).fill(&mut bytes[1 << 20..2 << 20]);
    bytes[..1 << 20].fill(b'a');
    std::fs::write(path.join("disk.raw"), &bytes).unwrap();
    hikae(path, ["capture", "--all-blocks", "disk.raw", "d.hik"]).expect(0);
    let files: [(&str, &[&str], &str); 12] = [
        ("a.img", &[], "raw"),
        ("a.qcow2", &[], "qcow2"),
        ("b.qcow2", &["--compress"], "qcow2"),
        ("c.qcow2", &["--compress=zstd"], "qcow2"),
        ("a.vhd", &[], "vpc"),
        ("b.VHD", &["--fixed"], "vpc"),
        ("a.vhdx", &[], "vhdx"),
        ("b.vhdx", &["--fixed"], "vhdx"),
        ("a.vmdk", &[], "vmdk"),
        ("b.vmdk", &["--compress"], "vmdk"),
        ("a.vdi", &[], "vdi"),
        ("without-a-dot", &["--format", "vdi", "--fixed"], "vdi"),
    ];
    for (name, options, format) in files {
        let report = hikae(path, [&["export", "d.hik", name, "--json"], options].concat()).expect(0).json();
        assert_eq!(report["format"], if format == "vpc" { "vhd" } else { format }, "{name}");
        assert_eq!(report["data"], 2 << 20, "{name}");
        shell(path, &format!("qemu-img compare -f raw -F {format} disk.raw {name}"));
        // Once more: refused as it is, replaced on request, by the file of another identity.
        hikae(path, [&["export", "d.hik", name], options].concat()).expect(4).says(&["exists", "--overwrite"]);
    }
    let before = std::fs::read(path.join("a.vdi")).unwrap();
    hikae(path, ["export", "d.hik", "a.vdi", "--overwrite"]).expect(0);
    assert_ne!(std::fs::read(path.join("a.vdi")).unwrap()[0x188..0x198], before[0x188..0x198]);
    // From a file of one format to another.
    hikae(path, ["export", "c.qcow2", "again.vhdx"]).expect(0);
    shell(path, "qemu-img compare -f raw -F vhdx disk.raw again.vhdx");
}

#[test]
fn a_partition_alone_becomes_a_disk_with_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let script = "truncate -s 24M disk.raw; printf 'label: dos\\nstart=2048,size=4096,type=83\\nstart=8192,size=20480,type=83\\n' | sfdisk -q disk.raw
        mkdir tree; echo text > tree/file; mke2fs -q -t ext4 -d tree -E offset=4194304 disk.raw 10M 2> /dev/null
        dd if=disk.raw of=p2.raw bs=1M skip=4 count=10 status=none";
    shell(path, script);
    hikae(path, ["capture", "--all-blocks", "disk.raw", "d.hik"]).expect(0);
    hikae(path, ["capture", "--all-blocks", "p2.raw", "alone.hik"]).expect(0);
    for (image, number) in [("d.hik", "2"), ("alone.hik", "1"), ("p2.raw", "1")] {
        let args = ["export", image, "out.vhdx", "--partition", number, "--overwrite", "--json"];
        assert_eq!(hikae(path, args).expect(0).json()["partition"], number.parse::<u32>().unwrap());
        // Another program reads the file, finds the table, and the partition has every byte.
        let judge =
            "qemu-img convert -f vhdx -O raw out.vhdx out.raw; sfdisk --verify out.raw 2>&1 | grep -q 'No errors'
            test $(sfdisk -J out.raw | grep -c '\"node\"') = 1
            cmp <(dd if=out.raw bs=1M skip=1 count=10 status=none) p2.raw";
        run("bash", ["-euc", &format!("cd '{}'; {judge}", path.display())]).expect(0);
        assert_eq!(hikae(path, ["cat", "out.raw:/p1/file"]).expect(0).out, "text\n");
    }
    hikae(path, ["export", "d.hik", "x.raw", "--partition", "7"]).says(&["no partition 7"]);
    assert!(!path.join("x.raw").exists());
    // In a mount, and in what info says of one, there are both.
    hikae(path, ["info", "alone.hik"]).expect(0).says(&["disk.vhdx", "with-table.vhdx"]);
    assert!(!hikae(path, ["info", "d.hik"]).expect(0).out.contains("with-table"));
    hikae(path, ["cat", "alone.hik:/README.txt"]).expect(0).says(&["no partition table", "with-table.raw"]);
}

#[test]
fn what_a_format_cannot_be_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(path, "truncate -s 3T long.raw");
    let cases: [(&[&str], i32, &str); 8] = [
        (&["a.txt"], 2, "say --format: raw, qcow2"),
        (&["a.qcow2", "--fixed"], 2, "qcow2 is not written as a fixed file"),
        (&["a.vhd", "--compress"], 2, "vhd cannot be compressed"),
        (&["a.vmdk", "--compress=zstd"], 2, "vmdk cannot be compressed with zstd"),
        (&["a.vmdk", "--fixed"], 2, "vmdk is not written as a fixed file"),
        (&["a.raw", "--format", "qed"], 2, "is no image format"),
        (&["a.vhd"], 4, "a.vhd cannot be written as vhd: the disk is longer than the 2040 GiB that VHD can hold"),
        (&["a.vhd", "--fixed"], 4, "the 2040 GiB"),
    ];
    for (args, code, message) in cases {
        hikae(path, [&["export", "long.raw"], args].concat()).expect(code).says(&[message]);
    }
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 1);
}

#[test]
fn the_overlay_that_is_read_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(path, "truncate -s 3M disk.raw; ln -s changes link");
    hikae(path, ["capture", "--all-blocks", "disk.raw", "d.hik"]).expect(0);
    hikae(path, ["mount", "d.hik", ".", "--overlay", "changes"]).expect(4);
    shell(path, "mkdir mnt");
    hikae(path, ["mount", "d.hik@1", "mnt", "--overlay", "changes"]).expect(0);
    shell(path, "printf text | dd of=mnt/disk.raw conv=notrunc status=none");
    hikae(path, ["umount", "mnt"]).expect(0);
    for out in ["changes", "./changes", "link"] {
        let args = ["export", "d.hik", out, "--format", "raw", "--overwrite", "--overlay", "changes"];
        hikae(path, args).expect(4).says(&["is the overlay that is read"]);
    }
    hikae(path, ["export", "d.hik", "out.raw", "--overlay", "link"]).expect(0);
    shell(path, "test $(head -c 4 out.raw) = text; test -L link");
    hikae(path, ["overlay", "discard", "link", "--yes"]).expect(0);
    shell(path, "! test -e changes; ! test -L link");
}
