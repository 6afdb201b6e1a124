//! `hikae mount --overlay --nbd`: the files of a mount and the block device are one disk, whose changes stay in the overlay.

use std::fs;
use std::path::{Path, PathBuf};

use crate::boot::machine;
use crate::boot_systems::linux;
use crate::machine::{Ran, as_root, hikae, run, shell, text, wait_until};

/// The mount, taken away at the end.
struct AtEnd(PathBuf);

impl Drop for AtEnd {
    fn drop(&mut self) {
        hikae(Path::new("/"), ["umount", "--lazy", text(&self.0)]);
    }
}

fn umount(folder: &Path) -> Ran {
    hikae(folder, ["umount", "mnt"]).expect(0)
}

/// Two generations of a disk with an NTFS partition in `a.hik`.
fn image(folder: &Path) {
    fs::create_dir(folder.join("mnt")).unwrap();
    shell(
        folder,
        "truncate -s 16M part.img; mkntfs -Q -F -q part.img; head -c 16M part.img > p
         truncate -s 18M disk.img; printf 'label: dos\\nlabel-id: 0x1\\nstart=2048,size=32768,type=7\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
         dd if=p of=disk.img bs=1M seek=1 conv=notrunc status=none",
    );
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "printf x | dd of=disk.img bs=1 seek=100 conv=notrunc status=none");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
}

#[test]
fn files_and_block_device_are_one_disk_and_the_image_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder);
    let _end = AtEnd(folder.join("mnt"));
    let packs = run("sh", ["-c", &format!("sha256sum {}/a.hik*", folder.display())]).out;
    let address = format!("unix:{}/s", folder.display());
    let socket = format!("nbd+unix:///?socket={}/s", folder.display());
    let mount = ["mount", "a.hik", "mnt", "--overlay", "changes", "--nbd", &address];
    hikae(folder, mount).expect(0).says(&["the disk is at nbd+unix:", "end it with: hikae umount mnt"]);
    let latest = folder.join("mnt/latest");
    // Written to the block device, read from files, and the other way round.
    run("qemu-io", ["-f", "raw", &socket, "-c", "write -P 7 5M 64k", "-c", "flush"]).expect(0);
    let vdi = latest.join("disk.vdi");
    run("qemu-io", ["-r", "-f", "vdi", text(&vdi), "-c", "read -P 7 5M 64k"]).expect(0);
    run("qemu-io", ["-f", "vdi", text(&vdi), "-c", "write -P 9 6M 64k"]).expect(0);
    run("qemu-io", ["-r", "-f", "raw", &socket, "-c", "read -P 9 6M 64k"]).expect(0);
    run("qemu-img", ["compare", "-f", "raw", "-F", "vhdx", &socket, text(&latest.join("disk.vhdx"))]).expect(0);
    // A driver writes a file into the partition; the folder of its files shows the image.
    fs::create_dir(folder.join("ntfs")).unwrap();
    let ntfs = folder.join("ntfs");
    run("ntfs-3g", [text(&latest.join("p1.raw")), text(&ntfs)]).expect(0);
    fs::write(ntfs.join("written.txt"), "by ntfs-3g").unwrap();
    run("fusermount3", ["-u", text(&ntfs)]).expect(0);
    assert!(!latest.join("p1/written.txt").exists());
    assert!(fs::read_to_string(latest.join("README.txt")).unwrap().contains("take writes"));
    // One owner.
    hikae(folder, ["serve", "a.hik", "--overlay", "changes", "--nbd", "localhost:0"]).expect(4).says(&["process"]);
    umount(folder);
    assert_eq!(packs, run("sh", ["-c", &format!("sha256sum {}/a.hik*", folder.display())]).out);

    // Everything is there the next time, as a new generation too, and gone with the overlay.
    hikae(folder, ["mount", "a.hik@2", "mnt", "--overlay", "changes"]).expect(0);
    run("qemu-io", ["-r", "-f", "qcow2", text(&folder.join("mnt/disk.qcow2")), "-c", "read -P 7 5M 64k"]).expect(0);
    umount(folder);
    hikae(folder, ["mount", "a.hik@1", "mnt", "--overlay", "changes"]).expect(4).says(&["belongs to generation 2"]);
    hikae(folder, ["capture", "a.hik", "a.hik", "--overlay", "changes"]).expect(0);
    assert_eq!(hikae(folder, ["cat", "a.hik@3:/p1/written.txt"]).expect(0).out, "by ntfs-3g");
    hikae(folder, ["overlay", "discard", "changes", "--yes"]).expect(0);
    hikae(folder, ["mount", "a.hik@2", "mnt", "--overlay", "changes"]).expect(0);
    run("cmp", [text(&folder.join("mnt/disk.raw")), text(&folder.join("disk.img"))]).expect(0);
    umount(folder);
}

#[test]
fn any_disk_takes_an_overlay_and_what_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("mnt")).unwrap();
    let _end = AtEnd(folder.join("mnt"));
    shell(folder, "head -c 3M /dev/urandom > a.raw; qemu-img convert -O qcow2 a.raw a.qcow2; cp a.qcow2 copy");
    hikae(folder, ["mount", "a.qcow2", "mnt", "--overlay", "changes", "--foreground", "--nbd", "nonsense:port"])
        .expect(2);
    hikae(folder, ["mount", "a.qcow2", "mnt", "--overlay", "changes", "--nbd", "localhost:0"])
        .expect(0)
        .says(&["the disk is at nbd://"]);
    run("qemu-io", ["-f", "raw", text(&folder.join("mnt/disk.raw")), "-c", "write -P 1 1M 1M"]).expect(0);
    umount(folder);
    run("cmp", [text(&folder.join("a.qcow2")), text(&folder.join("copy"))]).expect(0);
    hikae(folder, ["export", "a.qcow2", "out.raw", "--overlay", "changes"]).expect(0);
    let (mut wanted, out) = (fs::read(folder.join("a.raw")).unwrap(), fs::read(folder.join("out.raw")).unwrap());
    wanted[1 << 20..2 << 20].fill(1);
    assert!(out == wanted);
    // The image itself is no overlay.
    hikae(folder, ["mount", "a.qcow2", "mnt", "--overlay", "a.qcow2"]).expect(4);
    hikae(folder, ["mount", "a.qcow2", "mnt", "--overlay", "a.raw"]).expect(1).says(&["it is no overlay of hikae"]);
}

#[test]
fn a_guest_counts_on_through_whatever_file_it_is_started_from() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("mnt")).unwrap();
    let _end = AtEnd(folder.join("mnt"));
    linux(folder, "disk.img", "bios", &["proof=off"]);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let mount = || hikae(folder, ["mount", "a.hik", "mnt", "--overlay", "changes"]).expect(0);
    let boots = |name: &str, format: &str, how: &str, count: u32| {
        let drive = format!("file={}/mnt/latest/{name},format={format},{how}", text(folder));
        let ran = machine(240, &["-m", "256", "-cpu", "Nehalem", "-drive", &drive]);
        let said = format!("BOOTPROOF files=OK write=OK boots={count}");
        assert!(ran.code == 0 && ran.out.contains(&said), "{name}: {ran:?}");
    };
    mount();
    boots("disk.vdi", "vdi", "if=ide,cache=none", 1);
    boots("disk.qcow2", "qcow2", "if=virtio,cache=writeback", 2);
    umount(folder);
    mount();
    boots("disk.vmdk", "vmdk", "if=virtio,cache=none", 3);
    umount(folder);
    hikae(folder, ["overlay", "discard", "changes", "--yes"]).expect(0);
    mount();
    boots("disk.vhdx", "vhdx", "if=ide,cache=writeback", 1);
    umount(folder);
}

/// A small filesystem, taken away at the end.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        as_root("umount", ["--lazy", text(&self.0)]);
    }
}

#[test]
fn an_unmount_that_would_lose_what_was_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder);
    fs::create_dir(folder.join("small")).unwrap();
    as_root("mount", ["-t", "tmpfs", "-o", "size=3M,mode=1777", "none", text(&folder.join("small"))]);
    let _small = Small(folder.join("small"));
    let _end = AtEnd(folder.join("mnt"));
    let mount = ["mount", "a.hik", "mnt", "--overlay", "small/changes", "--log", "log"];
    // A program that does not sync hears nothing of a full disk that its writes found room on, and the commit does not.
    let write_and_fill = |at: &str| {
        hikae(folder, mount).expect(0);
        shell(
            folder,
            &format!("head -c 1M /dev/urandom > data; dd if=data of=mnt/latest/disk.raw bs=1M seek={at} conv=notrunc status=none
             dd if=/dev/zero of=small/fill bs=4k 2> /dev/null || true"),
        );
    };
    write_and_fill("3");
    hikae(folder, ["umount", "mnt"]).expect(3).says(&["is not all on the disk yet", "No space left"]);
    shell(folder, "rm small/fill");
    umount(folder);
    let overlaid = |out: &str| {
        hikae(folder, ["export", "a.hik", out, "--overlay", "small/changes"]).expect(0);
        fs::read(folder.join(out)).unwrap()
    };
    let kept = overlaid("first.raw");
    assert!(kept[3 << 20..4 << 20] == fs::read(folder.join("data")).unwrap());
    // On a signal there is nobody to refuse anything to, but the log.
    write_and_fill("5");
    let info = hikae(folder, ["overlay", "info", "--json", "small/changes"]).expect(0).json();
    let holder = info["in_use_by"].as_str().unwrap().strip_prefix("process ").unwrap().to_owned();
    run("kill", [holder]).expect(0);
    wait_until("the mount is gone", || {
        hikae(folder, ["overlay", "info", "--json", "small/changes"]).json()["in_use_by"].is_null()
    });
    assert!(fs::read_to_string(folder.join("log")).unwrap().contains("what was written last is lost"));
    shell(folder, "rm small/fill");
    assert!(overlaid("second.raw") == kept);
}

#[test]
fn nothing_that_a_mount_needs_takes_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder);
    let _end = AtEnd(folder.join("mnt"));
    hikae(folder, ["mount", "a.hik", "mnt", "--overlay", "changes"]).expect(0);
    umount(folder);
    shell(folder, "ln -s a.hik link; sha256sum a.hik* changes disk.img > sums");
    for (image, log) in [
        ("a.hik", "a.hik"),
        ("a.hik", "a.00001.hik"),
        ("a.hik", "link"),
        ("a.hik", "changes"),
        ("disk.img", "./disk.img"),
    ] {
        let mount =
            ["mount", image, "mnt", "--overlay", if image == "a.hik" { "changes" } else { "others" }, "--log", log];
        hikae(folder, mount).expect(4).says(&[log.trim_start_matches("./")]);
    }
    shell(folder, "sha256sum --check --quiet sums");
}
