//! `--new-ids`: copies with identities of their own, whose systems still find themselves.

use std::path::Path;

use serde_json::Value;

use crate::boot::{boot, boot_uefi};
use crate::machine::{HIKAE, Loop, Mounted, hikae, run, shell, target_id, text};
use crate::windows;

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/boot");

/// Restores `disk.img` into the existing file `target.img` with new identities.
#[track_caller]
fn renewed(folder: &Path, code: i32) -> Value {
    shell(folder, "rm -f target.img; truncate -s $(stat -c%s disk.img) target.img; rm -f a.hik* u.undo");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let args = [
        "restore",
        "a.hik",
        "target.img",
        "--in-place",
        "--new-ids",
        "--yes",
        "--verify",
        "--json",
        "--undo",
        "u.undo",
    ];
    let ran = hikae(folder, args).expect(code);
    // Progress comes first, one line each.
    let report = ran.out.find("\n{\n").map_or(&ran.out[..], |at| &ran.out[at..]);
    serde_json::from_str::<Value>(report).unwrap_or_else(|error| panic!("{error}: {}", ran.out))["ids"].clone()
}

/// What became of each name: path, and whether it is repaired.
fn named(ids: &Value) -> Vec<(String, bool)> {
    let named = ids["named"].as_array().unwrap().iter();
    let mut named: Vec<_> =
        named.map(|named| (named["path"].as_str().unwrap().to_owned(), named["repaired"].as_bool().unwrap())).collect();
    named.sort();
    named
}

/// The new value of something.
fn new(ids: &Value, what: &str) -> String {
    let renewed = ids["renewed"].as_array().unwrap();
    let found = renewed.iter().find(|renewed| renewed["what"] == what).unwrap_or_else(|| panic!("{what}: {ids}"));
    assert_ne!(found["old"], found["new"]);
    found["new"].as_str().unwrap().to_owned()
}

/// Bytes of two files that differ, as ranges of at most 16 unchanged bytes between.
fn differing(folder: &Path) -> Vec<std::ops::Range<usize>> {
    let (one, two) =
        (std::fs::read(folder.join("disk.img")).unwrap(), std::fs::read(folder.join("target.img")).unwrap());
    assert_eq!(one.len(), two.len());
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..one.len()).filter(|at| one[*at] != two[*at]) {
        match ranges.last_mut() {
            Some(last) if at < last.end + 16 => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

#[test]
fn a_disk_that_grub_starts_finds_itself_under_its_new_signature() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, &format!("{BOOT}/mk-grub disk.img bios"));
    let ids = renewed(folder, 0);
    let signature = new(&ids, "disk signature");
    let repaired = ["/boot/grub/grub.cfg", "/boot/grub/grub.cfg", "/etc/fstab"].map(|path| (path.to_owned(), true));
    assert_eq!(named(&ids), repaired);
    // Not a byte more than the signature and the three names.
    let changed = differing(folder);
    assert_eq!(changed.len(), 1 + 3, "{changed:?}");
    assert!(changed.iter().all(|range| range.len() <= 8), "{changed:?}");
    // GRUB itself says that the name in its configuration is that of the partition.
    let ran = boot(&folder.join("target.img"), 120);
    assert!(ran.code == 33 && ran.out.contains(&format!("IDENTITY OK {signature}-01")), "{ran:?}");
    hikae(folder, ["info", "--boot", "target.img"]).expect(0).says(&["BIOS: whole"]);
    assert_eq!(
        run("sfdisk", ["--disk-id", text(&folder.join("target.img"))]).expect(0).out.trim(),
        format!("0x{signature}")
    );
    run("sfdisk", ["--verify", text(&folder.join("target.img"))]).expect(0);
    shell(folder, "dd if=target.img of=p.img bs=1M skip=1 status=none; e2fsck -fn p.img");
    // The old names alone do not do: the test above can fail.
    shell(
        folder,
        &format!("cp disk.img bad.img; sfdisk -q --no-reread --no-tell-kernel --disk-id bad.img 0x{signature}"),
    );
    assert_eq!(boot(&folder.join("bad.img"), 120).code, 35);

    // An interrupted run goes on with the ids that it began with: the undo file is cut as if the run had ended before its tables.
    let before = std::fs::read(folder.join("target.img")).unwrap();
    shell(folder, "grep -v '\"finished\"' u.undo > cut.undo");
    hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--resume", "--undo", "cut.undo", "--yes"])
        .expect(0);
    assert!(std::fs::read(folder.join("target.img")).unwrap() == before);
}

#[test]
fn the_tiny_disk_boots_under_its_new_signature() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run("bash", [&format!("{BOOT}/mk-tiny"), text(&folder.join("disk.img"))]).expect(0);
    // As a file that is made anew, too.
    hikae(folder, ["restore", "disk.img", "target.img", "--new-ids", "--yes"]).expect(0).says(&["new disk signature"]);
    let ran = boot(&folder.join("target.img"), 120);
    assert!(ran.code == 33 && ran.out.contains("SUM OK"), "{ran:?}");
    // Signatures are random: some of their bytes can be what they were.
    let changed = differing(folder);
    assert!(changed.len() == 1 && changed[0].start >= 440 && changed[0].end <= 444, "{changed:?}");
}

#[test]
fn a_gpt_disk_gets_new_guids_everywhere_and_boots() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, &format!("{BOOT}/mk-grub disk.img uefi; truncate -s 70M target.img"));
    let ran = hikae(folder, ["clone", "disk.img", "target.img", "--new-ids", "--yes"]).expect(0);
    let ran = ran.says(&[
        "new disk GUID",
        "new GUID of partition 1",
        "new GUID of partition 2",
        "3 names of the old one are repaired, 0 are not",
    ]);
    assert!(!ran.err.contains("NOT repaired"), "{ran:?}");
    let sgdisk = run("sgdisk", ["-v", "-p", text(&folder.join("target.img"))]).expect(0);
    assert!(sgdisk.out.contains("No problems found") && !sgdisk.out.contains("B007B007"), "{sgdisk:?}");
    let old = run("grep", ["-c", "-a", "-i", "b007b007-0000-4000-8000", text(&folder.join("target.img"))]);
    // The journal of ext4 and free blocks have no copies of these files: mke2fs wrote them.
    assert_eq!(old.out.trim(), "0");
    hikae(folder, ["info", "--boot", "target.img"]).expect(0).says(&["UEFI: whole"]);
    shell(folder, "dd if=target.img of=p.img bs=512 skip=71680 count=53248 status=none; e2fsck -fn p.img");
    let ran = boot_uefi(&folder.join("target.img"), 200);
    assert!(ran.code == 33 && ran.out.contains("IDENTITY OK"), "{ran:?}");
}

/// The data of a value of a hive that lies in an image, as hivexget gives it.
fn hive_value(folder: &Path, image: &str, path: &str, key: &str, name: &str) -> Vec<u8> {
    let output = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    std::fs::write(folder.join("hive"), output(HIKAE, &["cat", &format!("{image}:{path}")])).unwrap();
    output("hivexget", &["hive", key, name])
}

fn bytes_of(signature: &str) -> [u8; 4] {
    u32::from_str_radix(signature, 16).unwrap().to_le_bytes()
}

#[test]
fn windows_on_an_mbr_disk_finds_itself_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::bios_disk(folder);
    let ids = renewed(folder, 0);
    let signature = new(&ids, "disk signature");
    let repaired: Vec<_> = ["/Boot/BCD", "/Boot/BCD", "/Boot/BCD", "/Windows/System32/config/SYSTEM", "/boot.ini"]
        .into_iter()
        .map(|path| (path.to_owned(), true))
        .collect();
    assert_eq!(named(&ids), repaired);
    hikae(folder, ["info", "--boot", "target.img"]).expect(0).says(&["BIOS: whole"]);
    // hivex and ntfs-3g agree.
    let key = format!("\\Objects\\{}\\Elements\\11000001", windows::SYSTEM);
    let element = hive_value(folder, "target.img", "/p1/Boot/BCD", &key, "Element");
    let mut wanted = hive_value(folder, "disk.img", "/p1/Boot/BCD", &key, "Element");
    assert_eq!(wanted[56..60], bytes_of(windows::SIGNATURE));
    wanted[56..60].copy_from_slice(&bytes_of(&signature));
    assert_eq!(element, wanted);
    let registry = "/p1/Windows/System32/config/SYSTEM";
    let letter = hive_value(folder, "target.img", registry, "\\MountedDevices", "\\DosDevices\\C:");
    assert_eq!(letter, [&bytes_of(&signature)[..], &(1_u64 << 20).to_le_bytes()].concat());
    shell(folder, "dd if=target.img of=p.img bs=1M skip=1 count=16 status=none; ntfsfix -n p.img");
    let mounted = Mounted::new(&folder.join("mnt"), &["ntfs-3g", "-o", "ro"], &folder.join("p.img"));
    let ini = std::fs::read_to_string(mounted.path.join("boot.ini")).unwrap();
    assert!(ini.contains(&format!("signature({signature})")), "{ini}");
    drop(mounted);
    run("sfdisk", ["--verify", text(&folder.join("target.img"))]).expect(0);
}

#[test]
fn ntldr_on_fat_finds_itself_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::ntldr_disk(folder);
    let ids = renewed(folder, 0);
    let signature = new(&ids, "disk signature");
    assert_eq!(named(&ids).iter().filter(|(path, repaired)| path == "/boot.ini" && *repaired).count(), 2);
    hikae(folder, ["info", "--boot", "target.img"]).expect(0).says(&["BIOS: whole"]);
    let ini = run("mtype", ["-i", &format!("{}@@32256", text(&folder.join("target.img"))), "::/boot.ini"]).out;
    assert_eq!(ini.matches(&format!("signature({signature})")).count(), 2, "{ini}");
    shell(folder, "dd if=target.img of=p.img bs=512 skip=63 count=32256 status=none; fsck.vfat -n p.img");
}

#[test]
fn windows_on_a_gpt_disk_finds_itself_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::uefi_disk(folder);
    let ids = renewed(folder, 0);
    assert!(named(&ids).iter().all(|(_, repaired)| *repaired) && named(&ids).len() == 4, "{ids}");
    hikae(folder, ["info", "--boot", "target.img"]).expect(0).says(&["UEFI: whole"]);
    let sgdisk = run("sgdisk", ["-v", "-p", text(&folder.join("target.img"))]).expect(0);
    assert!(sgdisk.out.contains("No problems found") && sgdisk.out.contains(&new(&ids, "disk GUID")), "{sgdisk:?}");
    assert!(!sgdisk.out.contains(windows::DISK_GUID) && !sgdisk.out.contains(windows::WINDOWS_GUID));
}

#[test]
fn what_cannot_be_repaired_stays_and_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    windows::bios_disk(folder);
    // A hive whose last write was not finished, and a boot.ini whose signature has lost its zeros.
    {
        let mounted = Mounted::new(&folder.join("mnt"), &["ntfs-3g"], &folder.join("part.img"));
        shell(
            folder,
            &format!(
                "cd '{}'; printf '\\377' | dd of=Boot/BCD bs=1 seek=4 conv=notrunc status=none
                 printf '[boot loader]\\r\\ndefault=signature(08b467c12)disk(0)rdisk(0)partition(1)\\\\WINDOWS\\r\\n' > boot.ini",
                text(&mounted.path)
            ),
        );
    }
    shell(folder, "dd if=part.img of=disk.img bs=1M seek=1 conv=notrunc status=none");
    let ids = renewed(folder, 1);
    let left: Vec<_> = named(&ids).into_iter().filter(|(_, repaired)| !repaired).map(|(path, _)| path).collect();
    assert_eq!(left, ["/Boot/BCD", "/Boot/BCD", "/Boot/BCD", "/boot.ini"]);
    let reasons: Vec<_> =
        ids["named"].as_array().unwrap().iter().filter_map(|named| named["reason"].as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("not finished")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("another length")), "{reasons:?}");
    // Only the signature and the drive letter are others.
    assert_eq!(differing(folder).len(), 2);

    // Small files of ext4 in their inodes, whose checksum covers them.
    shell(
        folder,
        "mkdir -p r/etc; echo 'PARTUUID=b007b007-01 / ext4 defaults 0 1' > r/etc/fstab
         rm disk.img; truncate -s 18M disk.img
         printf 'label: dos\\nlabel-id: 0xb007b007\\nstart=2048,type=83\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img
         mke2fs -q -F -t ext4 -O inline_data -d r -E offset=1048576 disk.img 17408k",
    );
    let ids = renewed(folder, 1);
    assert_eq!(named(&ids), [("/etc/fstab".to_owned(), false)]);
    // Signatures are random: some of their bytes can be what they were.
    let changed = differing(folder);
    assert!(changed.len() == 1 && changed[0].start >= 440 && changed[0].end <= 444, "{changed:?}");
}

#[test]
fn new_ids_are_of_whole_disks_with_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, "truncate -s 8M disk.img; mke2fs -q -F -t ext4 disk.img; cp disk.img target.img");
    hikae(folder, ["restore", "disk.img", "target.img", "--new-ids", "--in-place", "--yes"])
        .expect(4)
        .says(&["has no partition table"]);
    hikae(folder, ["restore", "disk.img", "target.img", "--new-ids", "--partition", "1", "--yes"]).expect(2);
}

#[test]
fn a_disk_that_is_attached_with_the_same_identity_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run("bash", [&format!("{BOOT}/mk-tiny"), text(&folder.join("disk.img"))]).expect(0);
    shell(folder, "sfdisk -q --no-reread --no-tell-kernel --disk-id disk.img 0x5a17c0de; truncate -s 16M target.img");
    let (source, target) = (Loop::over(&folder.join("disk.img"), 512), Loop::over(&folder.join("target.img"), 512));
    let id = target_id(&target.path);
    let clone = |more: &[&str]| {
        let args = ["-n", HIKAE, "clone", text(&source.path), text(&target.path), "--dry-run", "--target-id", &id];
        let args: Vec<&str> = args.iter().chain(more).copied().collect();
        if rustix::process::geteuid().is_root() { run(args[1], &args[2..]) } else { run("sudo", args) }.expect(0)
    };
    clone(&[]).says(&["is attached too", "5a17c0de"]);
    assert!(!clone(&["--new-ids"]).err.contains("is attached too"));
}
