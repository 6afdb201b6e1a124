//! `hikae export`: which file is written, and which is not.

use crate::machine::{Random, hikae, shell};

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
