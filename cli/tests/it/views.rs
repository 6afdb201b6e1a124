//! A generation in a mount as a file of every format: other programs read it, and machines start from it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::boot::{machine, tiny};
use crate::machine::{hikae, run, shell, text};

const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/judges/check-image.py");
/// The files, with the names that QEMU has for their formats.
pub(crate) const VIEWS: [(&str, &str); 6] = [
    ("disk.raw", "raw"),
    ("disk.vmdk", "vmdk"),
    ("disk.vhd", "vpc"),
    ("disk.vhdx", "vhdx"),
    ("disk.vdi", "vdi"),
    ("disk.qcow2", "qcow2"),
];

/// A mount that ends with the test.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    /// Mounts `image` on the new folder `mnt`.
    pub(crate) fn new(folder: &Path, args: &[&str]) -> Self {
        let dir = folder.join("mnt");
        std::fs::create_dir_all(&dir).unwrap();
        hikae(folder, [&["mount"], args, &["mnt"]].concat()).expect(0);
        Self(dir)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").args(["-uz", text(&self.0)]).output();
    }
}

#[test]
fn a_machine_starts_from_every_view_of_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let disk = tiny(path);
    hikae(path, ["capture", "disk.img", "a.hik"]).expect(0);
    let mount = Mount::new(path, &["a.hik@1"]);
    let images = VIEWS.iter().map(|(name, _)| mount.0.join(name));
    let images: Vec<PathBuf> = images.collect();
    let ran = run(JUDGE, [&disk].into_iter().chain(&images));
    assert_eq!(ran.code, 0, "{ran:?}");
    for ((name, format), image) in VIEWS.iter().zip(&images) {
        for cache in ["cache=writeback", "cache=none,aio=threads"] {
            let drive = format!("file={},format={format},if=ide,snapshot=on,{cache}", text(image));
            let ran = machine(120, &["-m", "32", "-drive", &drive]);
            assert!(ran.code == 33 && ran.out.contains("SUM OK"), "{name}: {ran:?}");
        }
    }
}

#[test]
fn views_are_read_only_and_can_be_read_past_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    tiny(path);
    hikae(path, ["capture", "disk.img", "a.hik"]).expect(0);
    let _mount = Mount::new(path, &["a.hik"]);
    for (name, _) in VIEWS {
        let file = path.join("mnt/latest").join(name);
        let error = std::fs::File::options().write(true).open(&file).unwrap_err();
        // EROFS, which virtual machines answer by opening the file for reading.
        assert_eq!(error.raw_os_error(), Some(30), "{name}");
        shell(
            path,
            &format!(
                "dd if=mnt/latest/{name} of=direct bs=1M iflag=direct status=none; cmp direct mnt/latest/{name}
                 hikae=$(stat -c %s mnt/latest/{name}); test $hikae = $(stat -c %s direct); rm direct"
            ),
        );
    }
}

#[test]
fn what_cannot_be_shown_is_told_beside_it_and_by_info() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(path, "truncate -s 2041G long.raw; qemu-img create -q -f vhdx small.vhdx 1M");
    hikae(path, ["info", "long.raw"]).expect(0).says(&["in a mount: disk.raw", "no disk.vhd: the disk is longer than"]);
    let info = hikae(path, ["info", "--json", "long.raw"]).expect(0).json();
    let views = info["views"].as_array().unwrap();
    let reasons: Vec<_> = views.iter().filter(|view| view["reason"].is_string()).collect();
    assert!(views.len() == 7 && reasons.len() == 1 && reasons[0]["name"] == "disk.vhd", "{info}");
    let mount = Mount::new(path, &["long.raw"]);
    assert!(!mount.0.join("disk.vhd").exists() && mount.0.join("disk.vhdx").exists());
    let text = std::fs::read_to_string(mount.0.join("README.txt")).unwrap();
    assert!(text.starts_with("There is no disk.vhd: the disk is longer than the 2040 GiB that VHD can hold."));
    drop(mount);
    // A disk whose table speaks of sectors of 4096 bytes.
    shell(
        path,
        "truncate -s 4M large.raw; printf 'EFI PART' | dd of=large.raw bs=1 seek=4096 conv=notrunc status=none",
    );
    hikae(path, ["capture", "--all-blocks", "large.raw", "large.hik"]).expect(0);
    for disk in ["large.raw", "large.hik"] {
        let readme = hikae(path, ["cat", &format!("{disk}:/README.txt")]).expect(0);
        let info = hikae(path, ["info", disk]).expect(0);
        assert!(info.out.contains("in a mount: disk.raw disk.vhdx disk.qcow2\n"), "{info:?}");
        for (name, format) in
            [("disk.vmdk", "VMDK"), ("disk-flat.vmdk", "VMDK"), ("disk.vhd", "VHD"), ("disk.vdi", "VDI")]
        {
            let why =
                format!("{name}: the disk has sectors of 4096 bytes, and {format} knows only sectors of 512 bytes");
            assert!(readme.out.contains(&format!("There is no {why}.")), "{readme:?}");
            assert!(info.out.contains(&format!("no {why}\n")), "{info:?}");
        }
    }
    // The same file tomorrow, and another one of another generation.
    shell(path, "truncate -s 2M d.raw");
    for _ in 0..2 {
        hikae(path, ["capture", "--all-blocks", "d.raw", "b.hik"]).expect(0);
    }
    let sum = |image: &str| {
        let _mount = Mount::new(path, &[image]);
        shell(path, "cat mnt/disk.vdi mnt/disk.vmdk mnt/disk.vhd mnt/disk.vhdx mnt/disk.qcow2 | sha256sum").out
    };
    assert_eq!(sum("b.hik@1"), sum("b.hik@1"));
    assert_ne!(sum("b.hik@1"), sum("b.hik@2"));
}
