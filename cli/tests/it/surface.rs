//! Exit codes, JSON, refusals, and what hostile text does to a terminal.

use std::path::Path;
use std::process::{Command, Stdio};

use imgfmt::image::record::{ElidedRecord, LayoutPartition, LayoutRecord, PartitionRecord, Source, StructureRecord};

use crate::crafted::add;
use crate::crash::wait_for_partial;
use crate::machine::{
    HIKAE, Loop, Mounted, Ran, Random, as_root, disk_full, hikae, is_exe, run, shell, sparse_file, start, text,
};

fn noise_disk(folder: &Path, seed: u64) {
    let mut bytes = vec![0; 1 << 20];
    Random::new(seed).fill(&mut bytes[10_000..600_000]);
    std::fs::write(folder.join("disk.img"), bytes).unwrap();
}

#[test]
fn exit_codes_tell_success_damage_wrong_use_failure_and_refusal_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    noise_disk(folder, 1);
    let cases: &[(&[&str], i32)] = &[
        (&["--help"], 0),
        (&["--version"], 0),
        (&["capture", "--help"], 0),
        (&[], 2),
        (&["no-such-command"], 2),
        (&["capture"], 2),
        (&["capture", "disk.img", "a.hik", "--chunk-size", "3K"], 2),
        (&["capture", "disk.img", "a.hik", "--chunk-size", "8M"], 2),
        (&["capture", "disk.img", "a.hik", "--chunk-size", "2K"], 2),
        (&["capture", "disk.img", "a.hik", "--pack-size", "1000"], 2),
        (&["capture", "disk.img", "a.hik", "--pack-size", "4X"], 2),
        (&["capture", "disk.img", "a.hik", "--compression", "gzip"], 2),
        (&["capture", "disk.img", "a.hik", "--compression", "zstd:20"], 2),
        (&["capture", "disk.img", "a.hik", "--sector-size", "1024"], 2),
        (&["capture", "disk.img", "a.img"], 2),
        (&["capture", "disk.img", ".hik"], 2),
        (&["list", "a.img"], 2),
        (&["list", "a.hik"], 3),
        (&["verify", "a.hik"], 3),
        (&["capture", "no-such-disk", "a.hik"], 3),
        (&["capture", "disk.img", "no/such/folder/a.hik"], 3),
        (&["capture", ".", "a.hik"], 4),
        (&["capture", "disk.img", "a.hik", "--retry-bad"], 3),
        (&["capture", "disk.img", "a.hik"], 0),
        (&["capture", "disk.img", "a.hik", "--chunk-size", "64K"], 0),
        (&["capture", "disk.img", "a.hik", "--chunk-size", "4K"], 4),
        (&["list", "a.hik"], 0),
        (&["info", "a.hik@9"], 3),
        (&["verify", "a.hik"], 0),
    ];
    for (args, code) in cases {
        let ran = hikae(folder, *args);
        assert_eq!(ran.code, *code, "{args:?}: {}{}", ran.out, ran.err);
        assert!(!(ran.out.is_empty() && ran.err.is_empty()), "{args:?} says nothing");
        if *code > 1 {
            assert!(ran.out.is_empty(), "{args:?} fails with an answer: {}", ran.out);
        }
    }
    // Nothing that was refused or failed before the first capture has left an image behind.
    assert_eq!(hikae(folder, ["list", "a.hik", "--json"]).json()["generations"].as_array().unwrap().len(), 2);
    let mut pack = std::fs::read(folder.join("a.hik")).unwrap();
    pack[100_000] ^= 1;
    std::fs::write(folder.join("a.hik"), pack).unwrap();
    hikae(folder, ["verify", "a.hik"]).expect(1).says(&["a.hik at byte", "generation 1", "generation 2"]);
    hikae(folder, ["list", "a.hik"]).expect(0).says(&["DAMAGED"]);
    hikae(folder, ["restore", "a.hik", "out.img"]).expect(1).says(&["a.hik", "corrupt"]);
    assert!(!folder.join("out.img").exists());
}

#[test]
fn every_answer_can_be_had_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    noise_disk(folder, 2);
    let json = |args: &[&str]| hikae(folder, args.iter().chain(&["--json"])).expect(0).json();
    let plan = json(&["capture", "disk.img", "a.hik", "--dry-run"]);
    assert_eq!((&plan["disk"]["len"], &plan["scheme"]), (&(1 << 20).into(), &"none".into()));
    assert!(!folder.join("a.hik").exists(), "a dry run writes nothing");
    let captured = json(&["capture", "disk.img", "a.hik", "--label", "L\u{e4}bel", "--note", "two\nlines"]);
    assert_eq!(captured["record"]["generation"], 1);
    let list = json(&["list", "a.hik"]);
    assert_eq!(list["generations"][0]["label"], "L\u{e4}bel");
    assert_eq!(list["generations"][0]["note"], "two\nlines");
    assert_eq!(list["generations"][0]["verified"], serde_json::Value::Null);
    assert_eq!(json(&["info", "a.hik"])["record"], captured["record"]);
    assert_eq!(json(&["info", "disk.img"])["len"], 1 << 20);
    let verify = json(&["verify", "a.hik"]);
    assert_eq!((&verify["clean"], &verify["generations"][0]["whole"]), (&true.into(), &true.into()));
    assert_eq!(json(&["list", "a.hik"])["generations"][0]["verified"], true);
    assert_eq!(json(&["restore", "a.hik", "out.img"])["generation"], 1);
    assert_eq!(json(&["export", "a.hik", "out.raw"])["generation"], 1);
}

#[test]
fn a_source_in_use_is_refused_without_a_word_and_marked_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    sparse_file(&disk, 16 << 20);
    as_root("mke2fs", ["-q", "-F", "-t", "ext4", text(&disk)]);
    let device = Loop::over(&disk, 512);
    let at = folder.path().join("mounted here");
    let as_user = |args: &[&str]| -> Ran {
        if rustix::process::geteuid().is_root() {
            hikae(folder.path(), args)
        } else {
            run("sudo", ["-n", "env", "-C", text(folder.path()), HIKAE].iter().chain(args))
        }
    };
    {
        let _mounted = Mounted::new(&at, &["mount", "-o", "rw"], &device.path);
        // As the device, as the file below it, and through a link.
        std::os::unix::fs::symlink(&disk, folder.path().join("link.img")).unwrap();
        for source in [text(&device.path), "disk.img", "link.img"] {
            let ran = as_user(&["capture", source, "a.hik"]).expect(4);
            ran.says(&[
                "may change while it is read",
                "mounted for writing at",
                "mounted here",
                "--live",
                "LVM",
                "btrfs",
            ]);
        }
        assert!(!folder.path().join("a.hik").exists());
        let record = as_user(&["capture", "disk.img", "a.hik", "--live", "--json"]).expect(0).json()["record"].clone();
        assert_eq!(record["source"]["live"], true);
        as_user(&["list", "a.hik"]).expect(0).says(&["live"]);
        as_user(&["info", "a.hik"]).expect(0).says(&["captured while it was in use"]);
    }
    let _mounted = Mounted::new(&at, &["mount", "-o", "ro"], &device.path);
    let record = as_user(&["capture", "disk.img", "a.hik", "--live", "--json"]).expect(0).json()["record"].clone();
    assert_eq!(record["source"]["live"], false, "mounted for reading only it cannot change");
}

#[test]
fn a_file_that_a_fuse_driver_has_mounted_is_in_use_too() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    sparse_file(&disk, 16 << 20);
    as_root("mkntfs", ["-F", "-q", text(&disk)]);
    {
        let _mounted = Mounted::new(&folder.path().join("mnt"), &["ntfs-3g", "-o", "rw"], &disk);
        hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(4).says(&["mounted for writing at", "--live"]);
    }
    let _mounted = Mounted::new(&folder.path().join("mnt"), &["ntfs-3g", "-o", "ro"], &disk);
    hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(0);
}

#[test]
fn another_disk_is_refused_and_says_how_it_differs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    noise_disk(folder, 3);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "truncate -s 2M disk.img");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(4).says(&[
        "its length",
        "1048576",
        "2097152",
        "generation 1",
        "--same-disk",
    ]);
    hikae(folder, ["capture", "disk.img", "a.hik", "--same-disk"]).expect(0);
    shell(folder, "printf 'label: dos\\nlabel-id: 0x11111111\\nstart=63, size=100\\n' | sfdisk -q disk.img");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "printf 'label: dos\\nlabel-id: 0x22222222\\nstart=63, size=100\\n' | sfdisk -q disk.img");
    let ran = hikae(folder, ["capture", "disk.img", "a.hik"]).expect(4);
    ran.says(&["the id in its partition table", "11111111", "22222222", "--same-disk"]);
    hikae(folder, ["capture", "disk.img", "a.hik", "--sector-size", "4096"]).expect(4).says(&["its sector size"]);
    // The image as its own source.
    hikae(folder, ["capture", "a.hik", "a.hik"]).expect(4).says(&["itself"]);
}

#[test]
fn a_first_capture_that_cannot_fit_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small.img");
    sparse_file(&small, 8 << 20);
    as_root("mke2fs", ["-q", "-F", "-m", "0", text(&small)]);
    let mounted = Mounted::new(&folder.path().join("mnt"), &["mount", "-o", "loop"], &small);
    as_root("chmod", ["a+rwx", text(&mounted.path)]);
    shell(folder.path(), "head -c 20000000 /dev/urandom > disk.img");
    let ran = hikae(folder.path(), ["capture", "disk.img", "mnt/a.hik"]).expect(4);
    ran.says(&["would need about 19", "free beside a.hik", "--ignore-space", "pruning does not exist"]);
    assert!(!mounted.path.join("a.hik.partial").exists());
    hikae(folder.path(), ["capture", "disk.img", "mnt/a.hik", "--ignore-space"]).expect(3).says(&[disk_full()]);
    // Much that compresses well fits.
    shell(folder.path(), "yes 'the copy kept in reserve' | head -c 20000000 > disk2.img");
    hikae(folder.path(), ["capture", "disk2.img", "mnt/b.hik"]).expect(0);
}

#[test]
fn an_image_on_a_filesystem_that_cannot_be_written_is_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    noise_disk(folder, 4);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    sparse_file(&folder.join("small.img"), 8 << 20);
    shell(folder, "mkdir tree; cp a.hik a.hik.lock tree");
    as_root("mke2fs", ["-q", "-F", "-d", text(&folder.join("tree")), text(&folder.join("small.img"))]);
    let _mounted = Mounted::new(&folder.join("mnt"), &["mount", "-o", "loop,ro"], &folder.join("small.img"));
    hikae(folder, ["list", "mnt/a.hik"]).expect(0);
    hikae(folder, ["info", "mnt/a.hik"]).expect(0);
    hikae(folder, ["verify", "mnt/a.hik"]).expect(0);
    hikae(folder, ["restore", "mnt/a.hik", "out.img"]).expect(0);
    shell(folder, "cmp disk.img out.img");
    // Wine does not say why.
    let why = if is_exe() { "(os error 5)" } else { "Read-only file system" };
    hikae(folder, ["capture", "disk.img", "mnt/a.hik"]).expect(3).says(&["mnt/a.hik.lock", why]);
    hikae(folder, ["capture", "disk.img", "mnt/new.hik"]).expect(3).says(&[why]);
    hikae(folder, ["restore", "a.hik", "mnt/x.img"]).expect(3).says(&[why]);
}

#[test]
fn a_source_that_shrinks_while_it_is_read_ends_the_capture_and_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(folder, "head -c 60000000 /dev/urandom | od -An -tx1 | head -c 60000000 > disk.img");
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(folder, "head -c 60000000 /dev/urandom | od -An -tx1 | head -c 60000000 > disk.img");
    let mut child = start(folder, &["capture", "disk.img", "a.hik", "--compression", "zstd:19", "--threads", "1"]);
    wait_for_partial(folder, &mut child);
    shell(folder, "truncate -s 30000000 disk.img");
    Ran::from(child.wait_with_output().unwrap()).expect(3).says(&["cannot read", "disk.img at bytes"]);
    assert_eq!(hikae(folder, ["list", "a.hik", "--json"]).expect(0).json()["generations"].as_array().unwrap().len(), 1);
    hikae(folder, ["verify", "a.hik"]).expect(0);
}

/// Text that would clear a terminal, set its title and hide what follows.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{9b}31m\u{0}y";

#[test]
fn text_from_an_image_never_drives_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hostile = || HOSTILE.to_owned();
    add(&folder.join("a.hik"), &[1], |record| {
        record.created = hostile();
        record.tool = hostile();
        record.source = Source {
            path: hostile(),
            kind: hostile(),
            model: Some(hostile()),
            serial: Some(hostile()),
            live: true,
            shadow_copies: vec![hostile()],
        };
        let partition = LayoutPartition {
            number: 1,
            start: 512,
            len: 100_000,
            type_code: hostile(),
            type_name: hostile(),
            name: hostile(),
            id: hostile(),
            active: true,
        };
        let untyped = LayoutPartition { number: 2, type_name: String::new(), ..partition.clone() };
        record.layout = LayoutRecord {
            scheme: hostile(),
            id: hostile(),
            problems: vec![hostile()],
            partitions: vec![partition, untyped],
        };
        let structure = StructureRecord { what: hostile(), start: 0, len: 512, blake3: hostile() };
        record.structures = vec![structure];
        let kept = PartitionRecord {
            number: 1,
            filesystem: hostile(),
            label: hostile(),
            id: hostile(),
            block_size: 4096,
            captured: hostile(),
            reasons: vec![hostile()],
            used: 5,
            closure: hostile(),
        };
        record.partitions = vec![kept.clone(), PartitionRecord { number: 2, ..kept }];
        let elided =
            ElidedRecord { partition: 1, path: hostile(), bytes: 1, ranges: vec![(0, 1)], warning: Some(hostile()) };
        record.elided = vec![elided];
        record.warnings = vec![hostile()];
        record.options.compression = hostile();
        (record.label, record.note) = (Some(hostile()), Some(hostile()));
    });
    let harmless = |ran: Ran, args: &[&str]| {
        for text in [&ran.out, &ran.err] {
            let bad = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bad, None, "{args:?}: {text:?}");
        }
        ran
    };
    for args in [
        &["list", "a.hik"][..],
        &["info", "a.hik"],
        &["verify", "a.hik"],
        &["restore", "a.hik", "out.img", "--yes"],
        &["export", "a.hik", "out.raw", "--overwrite"],
        &["list", "a.hik", "--json"],
        &["info", "a.hik", "--json"],
    ] {
        let ran = harmless(hikae(folder, args), args).expect(0);
        if args.contains(&"--json") {
            ran.json();
        }
    }
    // The same from a disk: the name of a GPT partition and the label of a filesystem.
    sparse_file(&folder.join("disk.img"), 16 << 20);
    as_root("mke2fs", ["-q", "-F", "-L", "a\u{1b}[2Jb", text(&folder.join("fs.img")), "8M"]);
    shell(folder, "printf 'label: gpt\\nstart=2048, size=16384, name=\"a\\033[2Jb\"\\n' | sfdisk -q disk.img");
    shell(folder, "dd if=fs.img of=disk.img bs=1M seek=1 conv=notrunc status=none");
    for args in [
        &["info", "disk.img"][..],
        &["capture", "disk.img", "b.hik", "--dry-run"],
        &["capture", "disk.img", "b.hik"],
        &["info", "b.hik"],
        &["list", "b.hik"],
    ] {
        harmless(hikae(folder, args), args).expect(0);
    }
    // And errors name what they could not find without obeying it.
    let args = ["info", "a.hik@\u{1b}[2J"];
    harmless(hikae(folder, args), &args).expect(3);
    let args = ["info", "no\u{1b}[2J.hik"];
    harmless(hikae(folder, args), &args).expect(3);
}

#[test]
fn a_closed_pipe_is_no_failure_and_a_full_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    noise_disk(folder, 5);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let run_into = |out: Stdio, args: &[&str]| -> Ran {
        Command::new(HIKAE).args(args).current_dir(folder).stdout(out).stderr(Stdio::piped()).output().unwrap().into()
    };
    for args in [&["list", "a.hik"][..], &["info", "a.hik"], &["verify", "a.hik"], &["info", "a.hik", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = run_into(writer.into(), args).expect(0);
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        run_into(full.into(), args).expect(3).says(&["cannot write the answer"]);
    }
}
