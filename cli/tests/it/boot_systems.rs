//! Whole systems come back: disks with GRUB, four filesystems and a real Linux are captured, restored and started, by BIOS and by UEFI.

use std::path::{Path, PathBuf};

use crate::boot::{SAMPLES, boot_with};
use crate::machine::{hikae, run, shell, sparse_file, text};

/// The kernel and the busybox that `.ci/install` has fetched.
pub(crate) const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guest");

/// A small real Linux, by `bios` or `uefi`.
pub(crate) fn linux(folder: &Path, name: &str, firmware: &str, arguments: &[&str]) -> PathBuf {
    let disk = folder.join(name);
    let maker = format!("{SAMPLES}/mk-linux");
    run(&maker, [GUEST, text(&disk), firmware].iter().chain(arguments)).expect(0);
    disk
}

/// Captures a disk and restores it onto one that held something else.
fn restored(folder: &Path, disk: &Path) -> PathBuf {
    let target = folder.join("target.img");
    sparse_file(&target, std::fs::metadata(disk).unwrap().len());
    shell(folder, "head -c 3M /dev/urandom | dd of=target.img conv=notrunc status=none");
    hikae(folder, ["capture", text(disk), "a.hik"]).expect(0);
    hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--yes"]).expect(0);
    target
}

#[test]
fn grub_reads_every_file_of_a_restored_disk_with_its_own_drivers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let disk = folder.join("disk.img");
    run(&format!("{SAMPLES}/mk-filesystems"), [text(&disk)]).expect(0);
    let target = restored(folder, &disk);
    let ran = boot_with(&target, 180, &["-m", "128"]);
    let parts = (1..=4).all(|n| ran.out.contains(&format!("PART {n} OK")));
    assert!(ran.code == 33 && parts, "{ran:?}");
    // A wrong byte in the content of the NTFS partition is noticed: the proof proves something.
    let sums = std::fs::read(&target).unwrap();
    let needle = b"  FILE00.BIN\n";
    let at = (51_200 * 512..).find(|at| sums[*at..].starts_with(needle)).unwrap();
    shell(folder, &format!("printf 0 | dd of=target.img bs=1 seek={} conv=notrunc status=none", at - 3));
    shell(folder, &format!("printf z | dd of=target.img bs=1 seek={} conv=notrunc status=none", at - 2));
    let ran = boot_with(&target, 180, &["-m", "128"]);
    assert!(ran.code == 35 && ran.out.contains("PART 2 BAD") && ran.out.contains("PART 1 OK"), "{ran:?}");
}

#[test]
fn a_real_linux_comes_up_from_a_restored_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let disk = linux(folder, "disk.img", "bios", &["proof=off"]);
    let target = restored(folder, &disk);
    // It switches the machine off after its proof.
    let ran = boot_with(&target, 240, &["-m", "256", "-cpu", "Nehalem"]);
    assert!(ran.code == 0 && ran.out.contains("BOOTPROOF files=OK write=OK boots=1"), "{ran:?}");
}
