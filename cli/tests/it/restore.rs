//! Restores and clones of disks made by real tools, judged by those tools.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disks::{Built, Part, build};
use crate::machine::{
    HIKAE, Loop, Mounted, Ran, Random, as_root, hikae, run, shell, sparse_file, start, target_id, text,
};
use crate::volumes::{Kind, judge};

const MIB: u64 = 1 << 20;

/// Runs `hikae` as root in a folder.
fn as_root_in(folder: &Path, args: &[&str]) -> Ran {
    let folder = ["-C", text(folder), HIKAE];
    if rustix::process::geteuid().is_root() {
        run("env", folder.iter().chain(args))
    } else {
        run("sudo", ["-n", "env"].iter().chain(&folder).chain(args))
    }
}

/// Runs a command that overwrites a device, named by what it holds now.
fn onto(folder: &Path, args: &[&str], device: &Loop) -> Ran {
    let id = target_id(&device.path);
    let args: Vec<&str> = args.iter().copied().chain(["--yes", "--target-id", &id, "--json"]).collect();
    as_root_in(folder, &args)
}

/// The report of a command that was given `--json`.
fn report(ran: Ran) -> Value {
    ran.expect(0).json()
}

/// An MBR disk: NTFS active, FAT32, and two logical partitions; 8 MiB at its end are free.
fn mbr_disk(folder: &Path) -> Built {
    let parts = [
        Part { number: 1, start: MIB, len: 48 * MIB, kind: Kind::Ntfs },
        Part { number: 2, start: 49 * MIB, len: 36 * MIB, kind: Kind::Fat32 },
        Part { number: 5, start: 86 * MIB, len: 24 * MIB, kind: Kind::Ext4 },
        Part { number: 6, start: 111 * MIB, len: 8 * MIB, kind: Kind::Swap },
    ];
    build(folder, 128 * MIB, 512, &parts, |disk| {
        let table = "label: dos\\nlabel-id: 0x5ca1ab1e\\nstart=2048,size=98304,type=7,bootable\\nstart=100352,size=73728,type=c\\nstart=174080,size=71680,type=f\\nstart=176128,size=49152,type=83\\nstart=227328,size=16384,type=82\\n";
        shell(folder, &format!("printf '{table}' | sfdisk -q --no-reread --no-tell-kernel {}", text(disk)));
    })
}

/// A GPT disk: ESP, ext4 and NTFS; 8 MiB at its end are free.
fn gpt_disk(folder: &Path) -> Built {
    let parts = [
        Part { number: 1, start: MIB, len: 36 * MIB, kind: Kind::Fat32 },
        Part { number: 2, start: 37 * MIB, len: 24 * MIB, kind: Kind::Ext4 },
        Part { number: 3, start: 61 * MIB, len: 48 * MIB, kind: Kind::Ntfs },
    ];
    build(folder, 118 * MIB, 512, &parts, |disk| {
        let disk = text(disk);
        shell(
            folder,
            &format!(
                "sgdisk -a 1 -n 1:2048:75775 -t 1:ef00 -c 1:ESP -n 2:75776:124927 -n 3:124928:223231 -t 3:0700 {disk} >/dev/null"
            ),
        );
    })
}

/// The table is sound by its own tool.
fn table_is_clean(file: &Path, is_gpt: bool) {
    if is_gpt {
        let said = run("sgdisk", ["-v", text(file)]).expect(0);
        assert!(said.out.contains("No problems found"), "{said:?}");
    } else {
        let said = run("sfdisk", ["--verify", text(file)]).expect(0);
        assert!(said.err.is_empty() || !said.err.contains("rror"), "{said:?}");
    }
}

fn judge_all(built: &Built, folder: &Path, file: &Path) {
    for part in &built.parts {
        let original = Loop::part(&built.path, part.start, part.len, 512);
        let restored = Loop::part(file, part.start, part.len, 512);
        judge(part.kind, folder, &original, &restored, false);
    }
}

/// A file full of bytes that were there before.
fn used_target(path: &Path, len: u64) {
    std::fs::write(path, vec![0xa5; len as usize]).unwrap();
}

fn comes_back_at_every_size(built: &Built, folder: &Path, is_gpt: bool) {
    let len = std::fs::metadata(&built.path).unwrap().len();
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.join("target.img");
    for (size, verify) in [(len, true), (len + 33 * MIB + 7 * 512, false), (len - 7 * MIB, true)] {
        used_target(&target, size);
        {
            let device = Loop::over(&target, 512);
            let mut args = vec!["restore", "a.hik", text(&device.path)];
            if verify {
                args.push("--verify");
            }
            let first = report(onto(folder, &args, &device));
            assert_eq!(first["verified"].as_u64().unwrap() > 0, verify);
            // Behind the last partition lies noise that belongs to nothing.
            assert_eq!(first["notes"].to_string().contains("outside of partitions"), size < len, "{first:#}");
            // What is there already is not written again.
            let again = report(onto(folder, &["restore", "a.hik", text(&device.path), "--delta"], &device));
            assert_eq!(again["written"], 0, "{again:#}");
        }
        table_is_clean(&target, is_gpt);
        judge_all(built, folder, &target);
        // Unallocated space keeps what it had.
        let bytes = std::fs::read(&target).unwrap();
        let kept = bytes.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 0xa5)).count();
        assert!(kept > 5000, "{kept} pages were left alone");
    }
    // Too small for what is used.
    let last = built.parts.last().unwrap();
    used_target(&target, last.start + last.len - MIB);
    {
        let device = Loop::over(&target, 512);
        let refused = onto(folder, &["restore", "a.hik", text(&device.path)], &device);
        refused.expect(4).says(&["too few: the last used block of the source ends at byte", "in partition"]);
        assert!(std::fs::read(&target).unwrap().iter().all(|byte| *byte == 0xa5));
    }
    // The last partition grows in the table, and its filesystem does not.
    used_target(&target, len + 64 * MIB);
    {
        let device = Loop::over(&target, 512);
        let grown = report(onto(folder, &["restore", "a.hik", text(&device.path), "--grow"], &device));
        assert!(grown["notes"].to_string().contains("grows by"), "{grown:#}");
        let shown = as_root(HIKAE, ["info", text(&device.path), "--json"]).json();
        let parts = shown["partitions"].as_array().unwrap();
        let (now, before) = (parts.last().unwrap()["len"].as_u64().unwrap(), last.len);
        assert!(now > before + 60 * MIB, "{now}");
        assert_eq!((last.start + now) % MIB, 0);
    }
    table_is_clean(&target, is_gpt);
    judge_all(built, folder, &target);
}

#[test]
fn an_mbr_disk_comes_back_at_every_size() {
    let folder = tempfile::tempdir().unwrap();
    let built = mbr_disk(folder.path());
    comes_back_at_every_size(&built, folder.path(), false);
}

#[test]
fn a_gpt_disk_comes_back_at_every_size() {
    let folder = tempfile::tempdir().unwrap();
    let built = gpt_disk(folder.path());
    comes_back_at_every_size(&built, folder.path(), true);
}

#[test]
fn one_partition_comes_back_into_one_of_the_same_or_a_bigger_size() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let built = mbr_disk(folder);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    // In place: S4, case 1.
    let target = folder.join("target.img");
    std::fs::copy(&built.path, &target).unwrap();
    let before = std::fs::read(&target).unwrap();
    let mut bytes = before.clone();
    Random::new(4).fill(&mut bytes[MIB as usize..9 * MIB as usize]);
    std::fs::write(&target, &bytes).unwrap();
    let args = ["restore", "a.hik", "target.img", "--partition", "1", "--verify", "--yes", "--json"];
    report(hikae(folder, args));
    let after = std::fs::read(&target).unwrap();
    assert!(
        after[..MIB as usize] == before[..MIB as usize] && after[49 * MIB as usize..] == before[49 * MIB as usize..]
    );
    judge_all(&built, folder, &target);
    // Elsewhere, and bigger: the boot sectors know where they lie now.
    used_target(&target, 160 * MIB);
    shell(
        folder,
        "printf 'label: dos\\nstart=4096,size=204800,type=7\\nstart=208896,size=81920,type=c\\n' | sfdisk -q --no-reread --no-tell-kernel target.img",
    );
    for (pair, start, kind) in [("1=1", 4096, Kind::Ntfs), ("2=2", 208_896, Kind::Fat32)] {
        let args = ["restore", "a.hik", "target.img", "--partition", pair, "--yes", "--json"];
        let moved = report(hikae(folder, args));
        assert!(moved["notes"].to_string().contains("boot sectors say now"), "{moved:#}");
        let bytes = std::fs::read(&target).unwrap();
        let at = start as usize * 512 + 28;
        assert_eq!(bytes[at..at + 4], (start as u32).to_le_bytes());
        let part = built.parts.iter().find(|part| part.kind == kind).unwrap();
        let original = Loop::part(&built.path, part.start, part.len, 512);
        let restored = Loop::part(&target, start * 512, part.len, 512);
        judge(kind, folder, &original, &restored, false);
    }
    // A partition that is too small.
    let args = ["restore", "a.hik", "target.img", "--partition", "1=2", "--yes"];
    hikae(folder, args).expect(4).says(&["too few"]);
    hikae(folder, ["restore", "a.hik", "target.img", "--partition", "9=1", "--yes"])
        .expect(4)
        .says(&["no partition 9"]);
    hikae(folder, ["restore", "a.hik", "target.img", "--partition", "1=9", "--yes"])
        .expect(3)
        .says(&["no partition 9"]);
}

#[test]
fn a_clone_writes_only_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let built = gpt_disk(folder);
    let target = folder.join("target.img");
    used_target(&target, 118 * MIB);
    let clone = |more: &[&str]| {
        let device = Loop::over(&target, 512);
        let args: Vec<&str> = ["clone", "disk.img", text(&device.path)].iter().chain(more).copied().collect();
        report(onto(folder, &args, &device))
    };
    let first = clone(&["--verify"]);
    assert!(first["written"].as_u64().unwrap() > 20 * MIB);
    table_is_clean(&target, true);
    judge_all(&built, folder, &target);
    assert_eq!(clone(&[])["written"], 0);
    // A file of 300,000 bytes more, in ext4.
    {
        let part = Loop::part(&built.path, 37 * MIB, 24 * MIB, 512);
        let mounted = Mounted::new(&folder.join("mnt"), &["mount"], &part.path);
        shell(&mounted.path, "head -c 300000 /dev/urandom > new");
    }
    let second = clone(&[]);
    let written = second["written"].as_u64().unwrap();
    assert!((300_000..2 * MIB).contains(&written), "{written}");
    judge_all(&built, folder, &target);
    // Every byte, on request.
    clone(&["--all-blocks", "--keep-swap"]);
    shell(folder, "cmp disk.img target.img");
}

#[test]
fn a_killed_restore_is_completed_by_resume() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(9);
    let mut bytes = vec![0; 48 * MIB as usize];
    random.fill(&mut bytes[MIB as usize..40 * MIB as usize]);
    std::fs::write(folder.join("disk.img"), &bytes).unwrap();
    let sfdisk = "sfdisk -q --no-reread --no-tell-kernel";
    shell(folder, &format!("printf 'label: gpt\\nstart=2048,size=40960\\nstart=45056\\n' | {sfdisk} disk.img"));
    let bytes = std::fs::read(folder.join("disk.img")).unwrap();
    hikae(folder, ["capture", "disk.img", "a.hik", "--compression", "none"]).expect(0);
    let mut old = vec![0x77; bytes.len()];
    shell(folder, &format!("truncate -s 48M old.img; printf 'label: dos\\nstart=2048,type=83\\n' | {sfdisk} old.img"));
    old[..512].copy_from_slice(&std::fs::read(folder.join("old.img")).unwrap()[..512]);
    let target = folder.join("target.img");
    let points = if std::env::var_os("HIKAE_LONG").is_some() { 100 } else { 12 };
    let (mut interrupted, mut completed) = (0, 0);
    // How long a whole run takes here, measured each time: the machine may be busy.
    let mut longest = {
        std::fs::write(&target, &old).unwrap();
        let begun = std::time::Instant::now();
        hikae(folder, ["restore", "a.hik", "target.img", "--in-place", "--yes", "--verify", "--threads", "1"])
            .expect(0);
        begun.elapsed().as_micros() as u64
    };
    for point in 0..points {
        std::fs::write(&target, &old).unwrap();
        let undo = format!("{point}.undo");
        let args =
            ["restore", "a.hik", "target.img", "--in-place", "--yes", "--verify", "--threads", "1", "--undo", &undo];
        let begun = std::time::Instant::now();
        let mut child = start(folder, &args);
        std::thread::sleep(std::time::Duration::from_micros(random.below(longest)));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if ended {
            assert!(status.success());
            longest = begun.elapsed().as_micros() as u64;
            completed += 1;
        }
        let now = std::fs::read(&target).unwrap();
        let table = hikae(folder, ["info", "target.img", "--json"]).expect(0).json();
        // The tables themselves are written one after the other, when everything else is there.
        let body = MIB as usize..bytes.len() - MIB as usize;
        if now[body.clone()] != bytes[body] && now != old {
            assert_eq!(table["scheme"], "none", "point {point}: a table is valid before everything is there");
        }
        let resume = ["restore", "a.hik", "target.img", "--resume", "--yes", "--verify", "--undo", &undo];
        let resumed = hikae(folder, resume);
        let began = std::fs::read_to_string(folder.join(&undo)).is_ok_and(|text| text.contains("\"ready\""));
        match resumed.code {
            0 => interrupted += 1,
            // It was finished, or had not begun.
            4 if !ended && !began => assert!(now == old),
            3 if !folder.join(&undo).exists() => assert!(now == old),
            1 | 4 => {
                resumed.says(&[if began { "finished" } else { "undo" }]);
                assert!(now == if began { bytes.clone() } else { old.clone() });
            }
            _ => panic!("{resumed:?}"),
        }
        let now = std::fs::read(&target).unwrap();
        assert!(now == bytes || !began && now == old, "point {point}");
    }
    assert!(
        interrupted * 3 >= points,
        "only {interrupted} of {points} runs were caught at work, {completed} were too quick"
    );
}

#[test]
fn nothing_gets_past_the_guards_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sparse_file(&folder.join("disk.img"), 8 * MIB);
    shell(folder, "printf 'label: dos\\nstart=2048,type=83\\n' | sfdisk -q --no-reread --no-tell-kernel disk.img");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.join("target.img");
    used_target(&target, 8 * MIB);
    let device = Loop::over(&target, 512);
    let path = text(&device.path);
    let id = target_id(&device.path);
    let refused = |args: &[&str], parts: &[&str]| {
        as_root_in(folder, args).expect(4).says(parts);
    };
    refused(&["restore", "a.hik", path, "--yes"], &["--target-id", &id]);
    refused(&["restore", "a.hik", path, "--yes", "--target-id", "0123456789abcdef"], &["is not the disk", &id]);
    refused(&["restore", "a.hik", path, "--target-id", &id], &["nobody is there to ask"]);
    refused(&["restore", "a.hik", path], &["nobody is there to ask"]);
    as_root_in(folder, &["restore", "a.hik", path, "--dry-run"]).expect(0).says(&["from", "identity", &id]);
    // Everything that writes has the same guards.
    for what in ["--table", "--boot-code", "--partition=1", "--boot-sector=1"] {
        refused(&["restore", "a.hik", path, what, "--yes"], &[]);
    }
    refused(&["restore", path, "--boot-code=standard", "--yes"], &[]);
    refused(&["clone", "disk.img", path, "--yes"], &["--target-id"]);
    refused(&["clone", path, path, "--yes", "--target-id", &id], &["are the same"]);
    refused(&["clone", "target.img", path, "--yes", "--target-id", &id], &["are the same"]);
    // An undo file on the disk that is overwritten.
    let mnt = folder.join("mnt");
    as_root("mke2fs", ["-q", "-F", path]);
    let id = target_id(&device.path);
    {
        let _mounted = Mounted::new(&mnt, &["mount"], &device.path);
        let undo = text(&mnt).to_owned() + "/u.undo";
        refused(
            &["restore", "a.hik", path, "--yes", "--target-id", &id, "--undo", &undo],
            &["u.undo lies on", "mounted"],
        );
    }
    let before = std::fs::read(&target).unwrap();
    // The superblock changed while it was mounted, and with it the identity.
    refused(&["restore", "a.hik", path, "--yes", "--target-id", &id], &["is not the disk"]);
    let id = target_id(&device.path);
    let written = as_root_in(folder, &["restore", "a.hik", path, "--yes", "--target-id", &id, "--undo", "one.undo"]);
    written.expect(0);
    refused(&["restore", "a.hik", path, "--yes", "--target-id", &id], &["is not the disk"]);
    assert!(std::fs::read(&target).unwrap() != before);
    // An undo file is never overwritten.
    let id = target_id(&device.path);
    refused(&["restore", "a.hik", path, "--yes", "--target-id", &id, "--undo", "one.undo"], &["never overwritten"]);
    // A disk does not go onto a partition, and options that make no sense together are wrong use.
    hikae(folder, ["restore", "a.hik", "target.img", "--table", "--boot-code"]).expect(2);
    hikae(folder, ["restore", "a.hik"]).expect(2);
    hikae(folder, ["restore", "a.hik", "target.img", "--partition", "x"]).expect(2);
    hikae(folder, ["clone", "disk.img", "no-such-target", "--yes"]).expect(2);
}

#[test]
fn sectors_of_another_size_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let built = gpt_disk(folder);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target = folder.join("target.img");
    used_target(&target, std::fs::metadata(&built.path).unwrap().len());
    let device = Loop::over(&target, 4096);
    let refused = onto(folder, &["restore", "a.hik", text(&device.path)], &device).expect(4);
    refused.says(&["sectors of 512 bytes", "sectors of 4096", "GPT) counts in sectors", "NTFS in partition 3"]);
    drop(device);
    assert!(std::fs::read(&target).unwrap().iter().all(|byte| *byte == 0xa5));
    // And back: a disk with sectors of 4096 bytes onto one with 512.
    let source = folder.join("large.img");
    sparse_file(&source, 16 * MIB);
    let large = Loop::over(&source, 4096);
    let table =
        format!("printf 'label: gpt\\nstart=256\\n' | sfdisk -q --no-reread --no-tell-kernel {}", text(&large.path));
    as_root("sh", ["-euc", &table]);
    as_root_in(folder, &["capture", text(&large.path), "large.hik"]).expect(0);
    let device = Loop::over(&target, 512);
    let refused = onto(folder, &["restore", "large.hik", text(&device.path)], &device).expect(4);
    refused.says(&["sectors of 4096 bytes", "sectors of 512", "GPT) counts in sectors"]);
    let refused = onto(folder, &["clone", text(&large.path), text(&device.path)], &device).expect(4);
    refused.says(&["sectors of 4096 bytes", "sectors of 512"]);
    drop(device);
    assert!(std::fs::read(&target).unwrap().iter().all(|byte| *byte == 0xa5));
}

#[test]
fn what_a_restore_overwrote_of_the_tables_can_be_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sfdisk = "sfdisk -q --no-reread --no-tell-kernel";
    sparse_file(&folder.join("disk.img"), 16 * MIB);
    shell(folder, &format!("printf 'label: dos\\nstart=2048,type=83\\n' | {sfdisk} disk.img"));
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let target: PathBuf = folder.join("target.img");
    used_target(&target, 20 * MIB);
    shell(folder, &format!("printf 'label: gpt\\nstart=2048,size=8192\\nstart=12288\\n' | {sfdisk} target.img"));
    let before = std::fs::read(&target).unwrap();
    let table = report(hikae(folder, ["info", "target.img", "--json"]));
    let args = ["restore", "a.hik", "target.img", "--table", "--yes", "--undo", "t.undo", "--json"];
    report(hikae(folder, args));
    let now = report(hikae(folder, ["info", "target.img", "--json"]));
    assert_eq!(now["scheme"], "MBR");
    table_is_clean(&target, false);
    report(hikae(folder, ["restore", "target.img", "--undo-apply", "t.undo", "--yes", "--undo", "u.undo", "--json"]));
    assert!(std::fs::read(&target).unwrap() == before);
    assert_eq!(report(hikae(folder, ["info", "target.img", "--json"])), table);
    // And that in turn.
    report(hikae(folder, ["restore", "target.img", "--undo-apply", "u.undo", "--yes", "--json"]));
    table_is_clean(&target, false);
    // Another disk.
    sparse_file(&folder.join("other.img"), 21 * MIB);
    let refused = hikae(folder, ["restore", "other.img", "--undo-apply", "u.undo", "--yes"]);
    refused.expect(4).says(&["was saved from a disk of"]);
}
