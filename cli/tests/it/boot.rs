//! Restored disks boot: a virtual machine starts them, and what starts in it proves their content.

use std::path::{Path, PathBuf};

use crate::machine::{Ran, Random, hikae, run, shell, text};

pub(crate) const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/boot");

/// Starts a disk without writing to it. The exit code is that of `timeout` (124) where nothing ends the machine.
pub(crate) fn boot(disk: &Path, seconds: u32) -> Ran {
    boot_with(disk, seconds, &["-m", "32"])
}

/// The same with arguments of QEMU.
pub(crate) fn boot_with(disk: &Path, seconds: u32, arguments: &[&str]) -> Ran {
    let drive = format!("file={},format=raw,if=ide,snapshot=on", text(disk));
    machine(seconds, &[&["-drive", &drive], arguments].concat())
}

/// Starts a machine with these arguments of QEMU, which describe its disk too.
pub(crate) fn machine(seconds: u32, arguments: &[&str]) -> Ran {
    let seconds = seconds.to_string();
    let usual = ["-accel", "tcg", "-display", "none", "-nodefaults", "-vga", "std", "-serial", "stdio", "-no-reboot"];
    let start = [seconds.as_str(), "qemu-system-x86_64"];
    let exit = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];
    run("timeout", start.iter().chain(&usual).chain(&exit).chain(arguments))
}

/// The same with UEFI firmware whose memory has no entries yet.
pub(crate) fn boot_uefi(disk: &Path, seconds: u32) -> Ran {
    let code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
    let variables = "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd";
    boot_with(disk, seconds, &["-m", "128", "-drive", code, "-drive", variables])
}

/// The tiny disk of `samples/boot` boots, and its content is right.
fn boots_tiny(disk: &Path) {
    // A busy machine can take its time; one that boots ends by itself.
    let ran = boot(disk, 120);
    assert!(ran.code == 33 && ran.out.contains("SUM OK"), "{ran:?}");
}

fn does_not_boot(disk: &Path) {
    let ran = boot(disk, 6);
    assert!(ran.code != 33 && !ran.out.contains("BOOTPROOF") && !ran.out.contains("boot:"), "{ran:?}");
}

pub(crate) fn tiny(folder: &Path) -> PathBuf {
    let disk = folder.join("disk.img");
    run("bash", [&format!("{SAMPLES}/mk-tiny"), text(&disk)]).expect(0);
    disk
}

/// Fills bytes of a file with noise.
fn destroy(disk: &Path, range: std::ops::Range<usize>) {
    let mut bytes = std::fs::read(disk).unwrap();
    Random::new(8).fill(&mut bytes[range]);
    std::fs::write(disk, bytes).unwrap();
}

#[test]
fn a_restored_disk_boots_and_so_does_a_repaired_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let disk = tiny(folder);
    boots_tiny(&disk);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.join("target.img");

    // Onto a wiped disk, and onto a bigger one that held something else.
    std::fs::write(&target, vec![0; 16 << 20]).unwrap();
    hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--yes"]).expect(0);
    boots_tiny(&target);
    let mut noise = vec![0; 20 << 20];
    Random::new(1).fill(&mut noise);
    std::fs::write(&target, noise).unwrap();
    hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--yes", "--verify"]).expect(0);
    boots_tiny(&target);

    // Boot code broken: from the image, and the standard one, which needs no image.
    destroy(&target, 0..440);
    does_not_boot(&target);
    hikae(folder, ["restore", "a.hik", "target.img", "--boot-code", "--yes"]).expect(0).says(&["boot code", "undo"]);
    boots_tiny(&target);
    destroy(&target, 0..440);
    hikae(folder, ["restore", "target.img", "--boot-code=standard", "--yes"]).expect(0);
    boots_tiny(&target);

    // Table gone, boot code intact.
    destroy(&target, 440..512);
    does_not_boot(&target);
    hikae(folder, ["restore", "target.img", "--boot-code=standard", "--yes"]).expect(4).says(&["no partition table"]);
    hikae(folder, ["restore", "a.hik", "target.img", "--table", "--yes"]).expect(0);
    boots_tiny(&target);

    // The partition overwritten: its boot sector and a part of its content.
    destroy(&target, 1 << 20..3 << 20);
    does_not_boot(&target);
    hikae(folder, ["restore", "a.hik", "target.img", "--partition", "1", "--yes"]).expect(0);
    boots_tiny(&target);
    // One wrong byte of content is noticed by what boots: the proof proves something.
    destroy(&target, (1 << 20) + 4096..(1 << 20) + 4097);
    let ran = boot(&target, 120);
    assert!(ran.code == 35 && ran.out.contains("BAD"), "{ran:?}");
    hikae(folder, ["restore", "a.hik", "target.img", "--delta", "--yes"]).expect(0);
    boots_tiny(&target);

    // A clone of it.
    std::fs::write(folder.join("clone.img"), vec![0x5a; 16 << 20]).unwrap();
    hikae(folder, ["clone", "disk.img", "clone.img", "--yes"]).expect(0);
    boots_tiny(&folder.join("clone.img"));
}

#[test]
fn the_standard_boot_code_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let disk = tiny(folder);
    let original = std::fs::read(&disk).unwrap();
    // No active partition: refused, since it would find nothing to start.
    let mut bytes = original.clone();
    bytes[446] = 0;
    std::fs::write(&disk, &bytes).unwrap();
    hikae(folder, ["restore", "disk.img", "--boot-code=standard", "--yes"]).expect(4).says(&["no partition", "active"]);
    // On the screen, as the machine shows it: the text memory of the VGA, read by the monitor.
    let cases = [
        (446, 0, "No active partition"),
        (446, 0x12, "Invalid partition table"),
        ((1 << 20) + 510, 0, "Missing operating system"),
    ];
    for (at, value, text) in cases {
        let mut bytes = original.clone();
        bytes[at] = value;
        std::fs::write(&disk, &bytes).unwrap();
        assert!(screen(folder, &disk).contains(text), "{text}");
    }
}

/// What the screen of a machine shows a while after it started from a disk.
fn screen(folder: &Path, disk: &Path) -> String {
    let drive = format!("file={},format=raw,if=ide,snapshot=on", text(disk));
    let dump = folder.join("screen");
    for wait in [3, 6, 12, 40] {
        let script = format!(
            "(sleep {wait}; echo 'pmemsave 0xb8000 4000 \"{}\"'; echo quit) | timeout 120 qemu-system-x86_64 -accel tcg -m 32 -display none -nodefaults -vga std -monitor stdio -drive {drive} >/dev/null",
            text(&dump)
        );
        shell(folder, &script);
        let memory = std::fs::read(&dump).unwrap();
        let shown: String = memory.iter().step_by(2).map(|byte| char::from(*byte)).collect();
        // A busy machine may still be at its BIOS.
        if shown.contains("operating system") || shown.contains("partition") {
            return shown;
        }
    }
    String::new()
}

#[test]
fn a_fat_disk_made_bootable_with_syslinux_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // `sys c:` of today.
    shell(
        folder,
        "
        truncate -s 24M disk.img
        printf 'label: dos\\nlabel-id: 0x0badb001\\nstart=63,size=40000,type=6,bootable\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
        truncate -s 20480000 part.img
        mkfs.vfat -F 16 -h 63 part.img >/dev/null
        printf 'SERIAL 0 115200\\nDEFAULT none\\nPROMPT 1\\n' > syslinux.cfg
        mcopy -i part.img syslinux.cfg ::syslinux.cfg
        syslinux --install part.img
        dd if=part.img of=disk.img bs=512 seek=63 conv=notrunc status=none
        ",
    );
    let standard =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../imgfmt/src/restore/standard_mbr.bin")).unwrap();
    let disk = folder.join("disk.img");
    let mut bytes = std::fs::read(&disk).unwrap();
    bytes[..440].copy_from_slice(&standard);
    std::fs::write(&disk, bytes).unwrap();
    let boots = |disk: &Path| {
        // It waits at its prompt, so the time limit ends it: longer only where that is needed. It speaks to the serial port because its
        // configuration, a file, says so.
        let said = [5, 15, 60].into_iter().any(|seconds| {
            let out = boot(disk, seconds).out;
            out.contains("SYSLINUX") && out.contains("boot:")
        });
        assert!(said, "{} does not boot", disk.display());
    };
    boots(&disk);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.join("target.img");
    std::fs::write(&target, vec![0xff; 24 << 20]).unwrap();
    hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--yes"]).expect(0);
    boots(&target);
    // The partition's boot sector alone: S1.
    destroy(&target, 63 * 512..64 * 512);
    does_not_boot(&target);
    hikae(folder, ["restore", "a.hik", "target.img", "--boot-sector", "1", "--yes"])
        .expect(0)
        .says(&["FAT boot sectors"]);
    boots(&target);
    destroy(&target, 63 * 512..1063 * 512);
    hikae(folder, ["restore", "a.hik", "target.img", "--partition", "1", "--yes"]).expect(0);
    boots(&target);
}
