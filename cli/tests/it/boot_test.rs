//! `hikae boot --test` tells disks that boot from disks that do not, says what shows it, and keeps a picture.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use imgfmt::image::FolderStore;
use imgfmt::image::store::PackStore;

use crate::boot::SAMPLES;
use crate::boot_systems::linux;
use crate::machine::{HIKAE, Ran, hikae, run, shell, sparse_file, start, text, wait_until};

/// Runs the test on a disk with little memory. Machines are slow where others run beside them, so the limit is generous.
fn test(folder: &Path, arguments: &[&str]) -> Ran {
    let usual = ["boot", "--test", "--memory", "256M", "--limit", "240s"];
    hikae(folder, usual.iter().chain(arguments))
}

/// The report beside a disk, with a picture that shows something.
fn report(folder: &Path, name: &str) -> serde_json::Value {
    let report = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let picture = std::fs::read(folder.join(format!("{name}.png"))).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 500, "{} bytes", picture.len());
    report
}

#[test]
fn a_generation_that_boots_is_told_kept_and_listed_and_its_packs_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    linux(folder, "disk.img", "bios", &[]);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "sha256sum a.hik >sums");
    test(folder, &["a.hik"]).expect(0).says(&["boots: serial text: sample login:", "a.hik.boot-1.png"]);
    let report = report(folder, "a.hik.boot-1");
    assert_eq!((&report["verdict"], &report["evidence"]), (&"boots".into(), &"serial text".into()));
    assert_eq!((&report["firmware"], &report["generation"]), (&"BIOS".into(), &1.into()));
    assert!(report["serial"].to_string().contains("BOOTPROOF files=OK write=OK boots=1"), "{report}");
    // The picture is that of the screen whose text is here.
    assert!(report["screen"]["lines"].to_string().contains("sample login:"), "{report}");
    shell(folder, "sha256sum --check --quiet sums");
    hikae(folder, ["list", "a.hik"]).expect(0).says(&["not verified, boots"]);
    // A verify run keeps what it does not know, and another root makes the verdict worth nothing.
    hikae(folder, ["verify", "a.hik"]).expect(0);
    let listed = hikae(folder, ["list", "a.hik", "--json"]).json();
    assert_eq!(listed["generations"][0]["boot"]["evidence"], "serial text");
    let side = FolderStore::new(&folder.join("a.hik"), &[]).unwrap().side_file("verdicts");
    let root = report["root"].as_str().unwrap();
    let stale = std::fs::read_to_string(&side).unwrap().replace(root, &root.replace(['0', '1'], "2"));
    std::fs::write(&side, stale).unwrap();
    assert!(hikae(folder, ["list", "a.hik", "--json"]).json()["generations"][0]["boot"].is_null());
}

#[test]
fn a_disk_that_boots_by_uefi_is_started_by_uefi() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    linux(folder, "disk.img", "uefi", &[]);
    // The guest's kernel, made for clouds, knows no SATA.
    test(folder, &["disk.img", "--bus", "virtio"])
        .expect(0)
        .says(&["boots", "starts by UEFI: its way from UEFI to a system is whole"]);
    assert!(report(folder, "disk.img.boot")["serial"].to_string().contains("files=OK"));
}

#[test]
fn a_kernel_panic_is_no_boot() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    linux(folder, "disk.img", "bios", &["init=/bin/dies"]);
    test(folder, &["disk.img"]).expect(1).says(&["does not boot", "Kernel panic - not syncing", "  | "]);
    assert_eq!(report(folder, "disk.img.boot")["boots"], false);
}

#[test]
fn a_boot_loader_alone_is_no_boot() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // GRUB without a kernel or a menu.
    let empty = folder.join("empty");
    run(&format!("{SAMPLES}/lay-out"), [text(&empty), text(&folder.join("disk.img")), "bios", "16"]).expect(0);
    let ran = test(folder, &["disk.img"]).expect(1);
    ran.says(&["does not boot: screen text", "a boot loader waits: grub>"]);
    // GRUB whose second half lies in a filesystem that is not there.
    shell(
        folder,
        "
        grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o core.img biosdisk part_msdos ext2
        dd if=core.img of=disk.img bs=512 seek=1 conv=notrunc status=none
        dd if=/dev/urandom of=disk.img bs=1M seek=1 count=2 conv=notrunc status=none
        ",
    );
    test(folder, &["disk.img", "--out", "."]).expect(1).says(&["does not boot: screen text", "grub rescue>"]);
    let report = report(folder, "disk.img.boot");
    assert!(report["screen"]["lines"].to_string().contains("grub rescue>"), "{report}");
}

#[test]
fn a_disk_without_boot_code_holds_data_and_its_filesystems_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(
        folder,
        "
        truncate -s 32M disk.img
        printf 'label: dos\\nstart=2048,size=16384,type=83\\nstart=18432,type=c\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
        mkdir files
        head -c 100000 /dev/urandom >files/a
        truncate -s 8M one
        mke2fs -q -F -t ext4 -d files one
        dd if=one of=disk.img bs=1M seek=1 conv=notrunc status=none
        truncate -s 23M two
        mkfs.vfat two >/dev/null
        dd if=two of=disk.img bs=1M seek=9 conv=notrunc status=none
        ",
    );
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let ran = test(folder, &["a.hik"]).expect(0);
    ran.says(&[
        "data only: the first sector has no boot code",
        "partition 1: ext4, whole",
        "partition 2: FAT",
        "whole",
    ]);
    hikae(folder, ["list", "a.hik"]).expect(0).says(&["data only"]);
    assert!(!folder.join("a.hik.boot-1.png").exists(), "nothing was started");
    // Started all the same, the BIOS says it.
    sparse_file(&folder.join("blank.img"), 1 << 20);
    hikae(folder, ["capture", "blank.img", "b.hik"]).expect(0);
    let ran = test(folder, &["b.hik", "--firmware", "bios"]).expect(1);
    ran.says(&["does not boot: screen text", "No bootable device"]);
    assert!(report(folder, "b.hik.boot-1")["screen"]["lines"].to_string().contains("No bootable device"));
    hikae(folder, ["list", "b.hik"]).expect(0).says(&["DOES NOT BOOT"]);
    // Damage: the ext4 superblock stays, its first group's descriptors and inodes do not.
    shell(folder, "dd if=/dev/urandom of=disk.img bs=1024 seek=$((1024 + 2)) count=2000 conv=notrunc status=none");
    test(folder, &["disk.img"]).expect(1).says(&["data only", "partition 1: ext", "DAMAGED", "partition 2: FAT"]);
}

#[test]
fn what_the_user_expects_decides_and_time_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run("bash", [&format!("{SAMPLES}/mk-tiny"), text(&folder.join("disk.img"))]).expect(0);
    test(folder, &["disk.img", "--expect", "BOOTPROOF-TINY", "--expect", "SUM OK"])
        .expect(0)
        .says(&["boots: serial text"]);
    let ran = hikae(folder, ["boot", "--test", "disk.img", "--limit", "8s", "--expect", "something else"]).expect(1);
    ran.says(&["\"something else\" did not appear within 8 s"]);
}

#[test]
fn what_cannot_be_started_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let start = ["boot", "--test", "--firmware", "bios", "disk.img"];
    hikae(folder, start.iter().chain(&["--", "-no-such-option"]))
        .expect(3)
        .says(&["QEMU does not start", "-no-such-option"]);
    hikae(folder, start.iter().chain(&["--limit", "0s"])).expect(2);
    hikae(folder, start.iter().chain(&["--out", "no/such/folder"])).expect(3).says(&["no/such/folder", "--out"]);
    let without_qemu =
        run("env", ["PATH=/nowhere", HIKAE, "boot", "--firmware", "bios", text(&folder.join("disk.img"))]);
    without_qemu.expect(3).says(&["install QEMU", "qemu-system-x86"]);
}

#[test]
fn a_machine_of_virtualbox_is_made_over_a_file_or_the_commands_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run("bash", [&format!("{SAMPLES}/mk-tiny"), text(&folder.join("disk.img"))]).expect(0);
    shell(folder, "mkdir 'the view'; qemu-img convert -f raw -O vmdk disk.img 'the view/disk.vmdk'");
    let start = ["boot", "--vm", "virtualbox", "--memory", "512M", "the view/disk.vmdk"];
    let printed = hikae(folder, start).expect(0);
    let medium = format!("--mtype normal --medium '{}/the view/disk.vmdk'", folder.canonicalize().unwrap().display());
    let printed = printed.says(&[
        "VBoxManage createvm --name 'hikae ",
        "--memory 512",
        "--firmware bios --nic1 none",
        "startvm",
        &medium,
    ]);
    // The commands are what a shell runs: a stand-in writes down what it is asked, whether hikae or the shell calls it.
    shell(
        folder,
        "
        mkdir bin
        printf '#!/bin/sh\\nfor word in \"$@\"; do printf \"%%s\\\\n\" \"$word\"; done >>\"$LOG\"\\n' >bin/VBoxManage
        chmod +x bin/VBoxManage
        ",
    );
    std::fs::write(folder.join("commands"), &printed.out).unwrap();
    let with = |log: &str| format!("PATH=\"$PWD/bin:$PATH\"; export LOG=\"$PWD/{log}\" PATH;");
    shell(folder, &format!("{} sh -eu ./commands", with("by-shell")));
    shell(folder, &format!("{} {HIKAE} boot --vm virtualbox --memory 512M 'the view/disk.vmdk'", with("by-hikae")));
    // The name of the machine has the time in it; the first word is that of the question whether it is installed.
    shell(
        folder,
        "for log in by-shell by-hikae; do sed -e 's/^hikae [0-9].*/NAME/' -e '/^--version$/d' $log >$log.plain; done; cmp by-shell.plain by-hikae.plain",
    );
    shell(
        folder,
        &format!(
            "printf '#!/bin/sh\\necho no such machine >&2; [ $1 = --version ]\\n' >bin/VBoxManage; {} ! {HIKAE} boot --vm virtualbox 'the view/disk.vmdk' 2>said; grep -q 'no such machine; not done: VBoxManage createvm' said",
            with("log")
        ),
    );
    // A hikae image is no file that VirtualBox could attach.
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    hikae(folder, ["boot", "--vm", "virtualbox", "a.hik"]).expect(2).says(&["hikae mount a.hik DIR", "disk.vdi"]);
    hikae(folder, ["boot", "--vm", "virtualbox", "disk.img"]).expect(2).says(&[".vmdk"]);
}

#[test]
fn what_a_guest_writes_is_kept_in_an_overlay_until_that_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    linux(folder, "disk.img", "bios", &[]);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "sha256sum a.hik >sums");
    let boots = |overlay: &[&str], count: u32| {
        test(folder, &[&["a.hik"], overlay].concat()).expect(0);
        let serial = report(folder, "a.hik.boot-1")["serial"].to_string();
        assert!(serial.contains(&format!("BOOTPROOF files=OK write=OK boots={count}")), "{serial}");
    };
    let overlay = ["--overlay", "guest.overlay"];
    boots(&overlay, 1);
    boots(&overlay, 2);
    // That was another disk than the generation, of which nothing is known.
    assert!(hikae(folder, ["list", "a.hik", "--json"]).json()["generations"][0]["boot"].is_null());
    hikae(folder, ["overlay", "discard", "guest.overlay", "--yes"]).expect(0);
    boots(&overlay, 1);
    shell(folder, "sha256sum --check --quiet sums");
}

/// Processes whose parent is `parent` and that run a program with this word in its name.
fn children(parent: u32, word: &str) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_one = |id: &u32| {
        // "id (name) state parent ..."; a process may be gone by now.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
        name.contains(word) && rest.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    processes.filter(is_one).collect()
}

#[test]
fn a_screen_that_cannot_be_seen_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let (says, mut said) = bios_speaks_to(&folder.join("bios"));
    let tested = ["boot", "--test", "--memory", "32M", "--firmware", "bios", "--limit", "15s", "disk.img", "--"];
    let mut hikae = Command::new(HIKAE);
    hikae.args(tested).args(&says).current_dir(folder).env("TMPDIR", folder).stderr(Stdio::piped());
    let hikae = hikae.stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the machine runs", &mut said);
    // Where the pictures go, none can be written any more.
    shell(folder, "cd hikae-boot.*; until rm -f picture.ppm; mkdir picture.ppm; do :; done");
    let ran = Ran::from(hikae.wait_with_output().unwrap());
    ran.expect(1).says(&["undecided", "the screen cannot be seen", "screendump"]);
}

#[test]
fn a_test_that_is_given_up_by_ctrl_c_says_nothing_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let (says, said) = bios_speaks_to(&folder.join("bios"));
    let tested = ["boot", "--test", "--memory", "32M", "--firmware", "bios", "--expect", "never", "disk.img", "--"];
    // As in a terminal, whose Ctrl-C reaches all processes of the job.
    let mut hikae = Command::new(HIKAE);
    hikae.args(tested).args(&says).current_dir(folder).process_group(0);
    let mut hikae = hikae.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the machine runs", said);
    let machine = children(hikae.id(), "qemu-system");
    run("kill", ["-INT", "--", &format!("-{}", hikae.id())]).expect(0);
    assert_eq!(hikae.wait().unwrap().code(), Some(3));
    assert!(!folder.join("disk.img.boot.json").exists());
    assert!(!Path::new(&format!("/proc/{}", machine[0])).exists(), "the machine has ended, too");
}

/// Arguments of QEMU by which the BIOS writes to a file what it does, and what says whether it has looked at the disk. A machine that has not come so far ends
/// by itself where its disk is gone.
pub(crate) fn bios_speaks_to(file: &Path) -> ([String; 4], impl FnMut() -> bool + use<>) {
    let device = "isa-debugcon,iobase=0x402,chardev=bios".to_owned();
    let arguments = ["-chardev".to_owned(), format!("file,id=bios,path={}", text(file)), "-device".to_owned(), device];
    let file = file.to_owned();
    (arguments, move || std::fs::read_to_string(&file).is_ok_and(|said| said.contains("Booting from Hard Disk")))
}

#[test]
fn killed_hard_it_takes_the_machine_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let plain = ["boot", "--memory", "32M", "--firmware", "bios", "disk.img", "--", "-display", "none"];
    let tested = ["boot", "--test", "--memory", "32M", "--firmware", "bios", "--limit", "100s", "disk.img", "--"];
    for (arguments, kind) in [(&plain[..], "plain"), (&tested, "tested")] {
        let (says, said) = bios_speaks_to(&folder.join(kind));
        let mut hikae = start(folder, &[arguments, &says.each_ref().map(String::as_str)].concat());
        wait_until("the machine runs", said);
        let machine = children(hikae.id(), "qemu-system");
        assert_eq!(machine.len(), 1);
        hikae.kill().unwrap();
        hikae.wait().unwrap();
        wait_until("the machine is gone", || {
            // A dead process that nobody waited for is gone, too.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", machine[0])).unwrap_or_default();
            !stat.contains("qemu-system") || stat.contains(") Z ")
        });
    }
}
