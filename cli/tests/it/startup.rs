//! `info --boot`: whole chains are called whole, and every missing link is found.

use std::path::Path;

use crate::machine::{Mounted, Ran, hikae, shell, text};
use crate::windows;

const MK_GRUB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/boot/mk-grub");

/// The verdict for a firmware, and the codes of the findings that weigh.
#[track_caller]
fn chain(folder: &Path, disk: &str, firmware: &str) -> (String, Vec<String>) {
    let ran = hikae(folder, ["info", "--boot", "--json", disk]);
    let json = ran.json();
    let chain = &json[firmware];
    let verdict = chain["verdict"].as_str().unwrap().to_owned();
    let broken = ["bios", "uefi"].iter().any(|firmware| json[*firmware]["verdict"] == "broken");
    assert_eq!(ran.code, i32::from(broken), "{ran:?}");
    let heavy = chain["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "note");
    (verdict, heavy.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect())
}

/// Does damage to a copy of `disk.img` and looks at it.
#[track_caller]
fn damaged(folder: &Path, firmware: &str, script: &str, verdict: &str, code: &str) {
    std::fs::copy(folder.join("disk.img"), folder.join("bad.img")).unwrap();
    shell(folder, script);
    let found = chain(folder, "bad.img", firmware);
    assert_eq!(found, (verdict.to_owned(), vec![code.to_owned()]), "{script}");
}

fn says(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(ran.out.contains(part), "{part:?} is not in {}", ran.out);
    }
}

/// `{n} bytes of zeros at sector {at}`.
fn zeros(at: u64, sectors: u64) -> String {
    format!("dd if=/dev/zero of=bad.img bs=512 seek={at} count={sectors} conv=notrunc status=none")
}

#[test]
fn grub_on_an_mbr_disk_is_followed_to_the_root_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, &format!("{MK_GRUB} disk.img bios"));
    let ran = hikae(folder, ["info", "--boot", "disk.img"]).expect(0);
    says(
        &ran,
        &[
            "BIOS: whole",
            "UEFI: not made for it",
            "starts the kernel /boot/vmlinuz",
            "/etc/fstab",
            "PARTUUID b007b007-01",
        ],
    );
    // The same through an image, and for a generation.
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    says(&hikae(folder, ["info", "--boot", "a.hik@1"]).expect(0), &["BIOS: whole", "generation 1"]);

    let debugfs = |command: &str| {
        format!(
            "dd if=bad.img of=p.img bs=1M skip=1 status=none; debugfs -w -R '{command}' p.img 2>/dev/null; dd if=p.img of=bad.img bs=1M seek=1 conv=notrunc status=none"
        )
    };
    let broken = |script: &str, code: &str| damaged(folder, "bios", script, "broken", code);
    broken("dd if=/dev/zero of=bad.img bs=440 count=1 conv=notrunc status=none", "boot-code-absent");
    broken(&zeros(1, 1), "grub-core-absent");
    broken(&debugfs("rm /boot/grub/grub.cfg"), "grub-config-absent");
    broken(&debugfs("rm /boot/vmlinuz"), "kernel-absent");
    broken(&debugfs("rm /boot/initrd.img"), "file-absent");
    broken(&debugfs("rm /sbin/init"), "init-absent");
    broken(&debugfs("ssv uuid 11111111-2222-3333-4444-555555555555"), "grub-search");
    // The kernel is told of a PARTUUID that is no more, and so is fstab.
    std::fs::copy(folder.join("disk.img"), folder.join("bad.img")).unwrap();
    shell(folder, "sfdisk -q --no-reread --no-tell-kernel --disk-id bad.img 0x11223344");
    assert_eq!(chain(folder, "bad.img", "bios"), ("broken".into(), vec!["root-absent".into()]));
    // A core image that is damaged inside is not called whole: GRUB's folder is looked for instead, and a note says so.
    std::fs::copy(folder.join("disk.img"), folder.join("bad.img")).unwrap();
    shell(folder, &zeros(10, 4));
    says(&hikae(folder, ["info", "--boot", "bad.img"]), &["the core image could not be unpacked"]);
}

#[test]
fn grub_and_systemd_boot_in_an_esp_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, &format!("{MK_GRUB} disk.img uefi"));
    says(
        &hikae(folder, ["info", "--boot", "disk.img"]).expect(0),
        &["UEFI: whole", "is GRUB", "BIOS: not made for it"],
    );
    let broken = |script: &str, code: &str| damaged(folder, "uefi", script, "broken", code);
    let esp = "export MTOOLS_SKIP_CHECK=1; esp=\"$PWD/bad.img@@1048576\";";
    broken(&format!("{esp} mdel -i $esp ::/EFI/BOOT/BOOTX64.EFI"), "efi-loader-absent");
    broken(&format!("{esp} echo x > x; mcopy -o -i $esp x ::/EFI/BOOT/BOOTX64.EFI"), "efi-loader-damaged");
    broken(&zeros(2048, 32), "efi-partition-unreadable");
    // Only a machine with a boot entry for it starts this one.
    let moved = format!(
        "{esp} mmd -i $esp ::/EFI/debian; mcopy -i $esp ::/EFI/BOOT/BOOTX64.EFI grubx64.efi; mcopy -i $esp grubx64.efi ::/EFI/debian/; mdel -i $esp ::/EFI/BOOT/BOOTX64.EFI"
    );
    damaged(folder, "uefi", &moved, "doubtful", "efi-fallback-absent");

    // systemd-boot in place of GRUB.
    shell(
        folder,
        "export MTOOLS_SKIP_CHECK=1; esp=\"$PWD/disk.img@@1048576\"
         mcopy -o -i $esp /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
         mmd -i $esp ::/loader ::/loader/entries ::/debian; echo k > k; mcopy -i $esp k ::/debian/vmlinuz; mcopy -i $esp k ::/debian/initrd
         printf 'default debian*\\n' > loader.conf; mcopy -i $esp loader.conf ::/loader/
         printf 'title D\\nlinux /debian/vmlinuz\\ninitrd /debian/initrd\\noptions root=PARTUUID=b007b007-0000-4000-8000-000000000003 ro\\n' > debian.conf
         mcopy -i $esp debian.conf ::/loader/entries/",
    );
    says(
        &hikae(folder, ["info", "--boot", "disk.img"]).expect(0),
        &["UEFI: whole", "is systemd-boot", "/loader/entries/debian.conf"],
    );
    broken(&format!("{esp} mdel -i $esp ::/debian/vmlinuz"), "kernel-absent");
    broken(&format!("{esp} mdel -i $esp ::/loader/entries/debian.conf"), "entries-absent");
    broken("sgdisk -u 2:11111111-2222-3333-4444-555555555555 bad.img >/dev/null", "root-absent");
}

#[test]
fn bootmgr_with_its_store_is_followed_to_the_page_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::bios_disk(folder);
    let ran = hikae(folder, ["info", "--boot", "disk.img"]).expect(0);
    says(
        &ran,
        &[
            "BIOS: whole",
            "loads /bootmgr",
            "the system lies in \\Windows",
            "MountedDevices, \\DosDevices\\C:",
            "element 11000001",
        ],
    );
    assert_eq!(ran.out.matches("disk signature 8b467c12").count(), 5, "{}", ran.out);
    let broken = |script: &str, code: &str| damaged(folder, "bios", script, "broken", code);
    broken("printf '\\0' | dd of=bad.img bs=1 seek=446 conv=notrunc status=none", "active-partition-missing");
    broken("dd if=/dev/zero of=bad.img bs=440 count=1 conv=notrunc status=none", "boot-code-absent");
    broken("printf '\\0\\0' | dd of=bad.img bs=1 seek=1049086 conv=notrunc status=none", "boot-sector-absent");
    let without = |path: &str, verdict: &str, code: &str| {
        std::fs::copy(folder.join("part.img"), folder.join("cut.img")).unwrap();
        {
            let mounted = Mounted::new(&folder.join("mnt"), &["ntfs-3g"], &folder.join("cut.img"));
            shell(folder, &format!("rm '{}/{path}'", text(&mounted.path)));
        }
        damaged(folder, "bios", "dd if=cut.img of=bad.img bs=1M seek=1 conv=notrunc status=none", verdict, code);
    };
    without("bootmgr", "broken", "bootmgr-absent");
    without("Boot/BCD", "broken", "bcd-absent");
    without("Windows/System32/winload.exe", "broken", "file-absent");
    without("Windows/System32/ntoskrnl.exe", "broken", "kernel-absent");
    without("pagefile.sys", "doubtful", "page-file-absent");
    // The store names a disk with another signature.
    broken("sfdisk -q --no-reread --no-tell-kernel --disk-id bad.img 0x11223344", "bcd-partition-absent");
}

#[test]
fn the_boot_manager_of_uefi_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::uefi_disk(folder);
    let ran = hikae(folder, ["info", "--boot", "disk.img"]).expect(0);
    says(&ran, &["UEFI: whole", "is the Windows boot manager", "disk GUID D15C0000-1122-3344-5566-77889900AABB"]);
    let broken = |script: &str, code: &str| damaged(folder, "uefi", script, "broken", code);
    broken("sgdisk -u 2:11111111-2222-3333-4444-555555555555 bad.img >/dev/null", "bcd-partition-absent");
    broken("sgdisk -U 11111111-2222-3333-4444-555555555555 bad.img >/dev/null", "bcd-partition-absent");
    let esp = "export MTOOLS_SKIP_CHECK=1; esp=\"$PWD/bad.img@@1048576\";";
    broken(&format!("{esp} mdel -i $esp ::/EFI/Microsoft/Boot/BCD"), "bcd-absent");
    broken(&format!("{esp} echo regf > x; mcopy -o -i $esp x ::/EFI/Microsoft/Boot/BCD"), "unreadable");
}

#[test]
fn ntldr_is_followed_through_boot_ini() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::ntldr_disk(folder);
    let ran = hikae(folder, ["info", "--boot", "disk.img"]).expect(0);
    says(&ran, &["BIOS: whole", "loads /ntldr", "NTLDR reads /boot.ini", "starts \\WINNT"]);
    let at = "export MTOOLS_SKIP_CHECK=1; p=\"$PWD/bad.img@@32256\";";
    let found =
        |script: &str, verdict: &str, code: &str| damaged(folder, "bios", &format!("{at} {script}"), verdict, code);
    found("mdel -i $p ::/ntldr", "broken", "ntldr-absent");
    found("mdel -i $p ::/ntdetect.com", "broken", "file-absent");
    found("mdel -i $p ::/WINNT/system32/ntoskrnl.exe", "broken", "kernel-absent");
    // S6: the backup without the page file.
    found("mdel -i $p ::/pagefile.sys", "doubtful", "page-file-absent");
    found("sfdisk -q --no-reread --no-tell-kernel --disk-id bad.img 0x11223344", "broken", "boot-ini-signature");
    found(
        "sed 's/partition(1)/partition(3)/' boot.ini > b; mcopy -o -i $p b ::/boot.ini",
        "broken",
        "boot-ini-partition-absent",
    );
    // S5: a system that counts disks is told from one that goes by signatures.
    found(
        "sed 's/signature(8b467c12)disk(0)rdisk(0)/multi(0)disk(0)rdisk(1)/' boot.ini > b; mcopy -o -i $p b ::/boot.ini",
        "doubtful",
        "other-disk",
    );
}

#[test]
fn a_disk_that_is_nothing_is_made_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
    let ran = hikae(folder.path(), ["info", "--boot", "disk.img"]).expect(0);
    says(&ran, &["BIOS: not made for it", "UEFI: not made for it", "none found"]);
}
