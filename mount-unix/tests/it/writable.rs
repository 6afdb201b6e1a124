//! Files that take writes into an overlay, through the kernel and by QEMU's tools.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::image::{FolderStore, Image};
use imgfmt::overlay::{About, Overlay, Proof};
use imgfmt::tree::{Tree, TreeOptions};
use rustix::fs::FallocateFlags;

use crate::served::{Random, Served, bytes, capture_bytes, run};

const MIB: usize = 1 << 20;
const EPERM: i32 = 1;
const EROFS: i32 = 30;
const ENOTEMPTY: i32 = 39;

/// A disk with one partition of noise.
fn disk(folder: &Path) -> Vec<u8> {
    let path = folder.join("made");
    fs::write(&path, vec![0; MIB]).unwrap();
    let script = "truncate -s 12M \"$1\"; printf 'label: dos\\nlabel-id: 0x1234\\nstart=2048,size=8192,type=83\\n' | sfdisk -q --no-reread --no-tell-kernel \"$1\"";
    run("sh", &["-euc", script, "sh", path.to_str().unwrap()]);
    let mut disk = fs::read(&path).unwrap();
    let rest = bytes(disk.len() - MIB, 3);
    disk[MIB..].copy_from_slice(&rest);
    disk
}

/// The image with an overlay over its latest generation.
fn with_overlay(folder: &Path) -> Tree {
    let store = Arc::new(FolderStore::new(&folder.join("a.hik"), &[]).unwrap());
    let image = Arc::new(Image::open(store, &Default::default()).unwrap());
    let number = image.generations().last().unwrap().number;
    let generation = image.generation(number).unwrap();
    let about = About {
        name: "the base".into(),
        proof: Proof::Generation { image: image.id(), root: generation.tree().root().id.0 },
        modified: 0,
        disk_len: generation.record().disk.len,
        sector_size: 512,
    };
    let overlay = Overlay::open_or_create(&folder.join("changes"), &about).unwrap();
    Tree::of_image(image, &TreeOptions::default()).with_overlay(number, &overlay).unwrap()
}

fn served(folder: &Path) -> Served {
    Served::new(folder, with_overlay(folder), 4 << 20)
}

/// Opens for reading and writing.
fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn code<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Reads all of a file past every cache.
fn whole(path: &Path) -> Vec<u8> {
    run("dd", &[&format!("if={}", path.display()), "iflag=direct", "bs=1M", "status=none"]).stdout
}

#[test]
fn writes_through_one_file_are_read_through_all_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut model = disk(folder);
    capture_bytes(folder, bytes(model.len(), 8));
    capture_bytes(folder, model.clone());
    let base = model.clone();
    let mut random = Random::new(3);
    for round in 0..2_u64 {
        let served = served(folder);
        let generation = served.dir.join("latest");
        let names =
            ["disk.raw", "disk-flat.vmdk", "disk.vhd", "disk.vhdx", "disk.vdi", "disk.qcow2", "disk.vmdk", "p1.raw"];
        let paths: Vec<PathBuf> = names.iter().map(|name| generation.join(name)).collect();
        assert!(whole(&paths[0]) == model, "what was written before is there");
        // By the kernel: with the page cache, which must not keep anything, and past it.
        let shift = [0, 0, 0, 4 * MIB, MIB];
        for n in 0..120 {
            let which = n % shift.len();
            let at = random.below((model.len() - 300_000) as u64) as usize;
            let part = bytes(random.below(300_000) as usize, round * 1000 + n as u64);
            let file = open(&paths[which]);
            file.write_all_at(&part, (shift[which] + at) as u64).unwrap();
            model[at..at + part.len()].copy_from_slice(&part);
            let from = (n + 1) % shift.len();
            let mut back = vec![0; part.len()];
            File::open(&paths[from]).unwrap().read_exact_at(&mut back, (shift[from] + at) as u64).unwrap();
            assert!(back == part, "written to {}, read from {}", names[which], names[from]);
        }
        let aligned = OpenOptions::new().write(true).custom_flags(0o40000).open(&paths[0]);
        drop(aligned.unwrap());
        run(
            "dd",
            &[
                "if=/dev/zero",
                &format!("of={}", paths[7].display()),
                "oflag=direct",
                "bs=64k",
                "seek=3",
                "count=2",
                "conv=notrunc",
                "status=none",
            ],
        );
        model[MIB + 3 * 65536..MIB + 5 * 65536].fill(0);
        // By QEMU, as it writes a disk of each format, past the page cache and with it.
        for (n, (name, format)) in [
            ("disk.vmdk", "vmdk"),
            ("disk.vhd", "vpc"),
            ("disk.vhdx", "vhdx"),
            ("disk.vdi", "vdi"),
            ("disk.qcow2", "qcow2"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = generation.join(name);
            let at = (2 + n) * MIB;
            let cache = if n % 2 == 0 { "none" } else { "writeback" };
            run(
                "qemu-io",
                &[
                    "-t",
                    cache,
                    "-f",
                    format,
                    path.to_str().unwrap(),
                    "-c",
                    &format!("write -P {} {at} 100k", 40 + n),
                    "-c",
                    &format!("write -z {} 64k", at + 512 * 1024),
                    "-c",
                    "flush",
                ],
            );
            model[at..at + 100 * 1024].fill(40 + n as u8);
            model[at + 512 * 1024..at + 512 * 1024 + 65536].fill(0);
        }
        fs::write(folder.join("model"), &model).unwrap();
        for (name, format) in [
            ("disk.raw", "raw"),
            ("disk.vmdk", "vmdk"),
            ("disk.vhd", "vpc"),
            ("disk.vhdx", "vhdx"),
            ("disk.vdi", "vdi"),
            ("disk.qcow2", "qcow2"),
        ] {
            let args = ["compare", "-f", "raw", "-F", format, "model"].map(str::to_owned);
            let args = [&args[..], &[generation.join(name).display().to_string()]].concat();
            let mut command = std::process::Command::new("qemu-img");
            let compared = command.current_dir(folder).args(args).output().unwrap();
            assert!(compared.status.success(), "{name}: {compared:?}");
        }
        assert!(whole(&paths[7]) == model[MIB..5 * MIB]);
        run("qemu-img", &["check", "-q", paths[5].to_str().unwrap()]);
        // The other generation is as it was.
        let first = fs::read_dir(&served.dir).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
        assert!(fs::read(first.join("disk.raw")).unwrap() == bytes(model.len(), 8));
        assert_eq!(code(OpenOptions::new().write(true).open(first.join("disk.raw"))), Some(EROFS));
        assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
    }
    // The image was never written.
    let served = Served::new(folder, crate::served::tree(folder, 1 << 20), 0);
    assert!(fs::read(served.dir.join("latest/disk.raw")).unwrap() == base);
    assert_eq!(code(OpenOptions::new().write(true).open(served.dir.join("latest/disk.raw"))), Some(EROFS));
}

#[test]
fn lengths_holes_and_descriptors_change_as_far_as_the_format_goes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = disk(folder);
    capture_bytes(folder, model.clone());
    let rewritten = {
        let served = served(folder);
        let generation = served.dir.join("latest");
        let raw = open(&generation.join("disk.raw"));
        assert_eq!(code(raw.set_len(0)), Some(EPERM));
        assert_eq!(code(raw.write_at(b"x", model.len() as u64)), Some(EPERM));
        assert_eq!(code(File::create(generation.join("disk.vdi"))), Some(EPERM));
        // A hole, zeros, and room that is there already.
        let (hole, zeros) = (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, FallocateFlags::ZERO_RANGE);
        rustix::fs::fallocate(&raw, hole, 2 << 20, 100_000).unwrap();
        rustix::fs::fallocate(&raw, zeros, 4 << 20, 4096).unwrap();
        rustix::fs::fallocate(&raw, FallocateFlags::empty(), 0, 4096).unwrap();
        assert!(rustix::fs::fallocate(&raw, zeros, 0, 100 << 20).is_err());
        let mut wanted = model.clone();
        wanted[2 << 20..(2 << 20) + 100_000].fill(0);
        wanted[4 << 20..(4 << 20) + 4096].fill(0);
        assert!(whole(&generation.join("disk-flat.vmdk")) == wanted);
        raw.sync_all().unwrap();
        // A descriptor that is written anew, shorter and then longer, as VirtualBox does.
        let descriptor = generation.join("disk.vmdk");
        let text = fs::read(&descriptor).unwrap();
        fs::write(&descriptor, b"short").unwrap();
        assert_eq!(fs::read(&descriptor).unwrap(), b"short");
        let text = [text, b"ddb.comment = \"x\"\n".repeat(200)].concat();
        fs::write(&descriptor, &text).unwrap();
        assert_eq!(fs::metadata(&descriptor).unwrap().len(), text.len() as u64);
        assert_eq!(fs::read(&descriptor).unwrap(), text);
        // Clusters that QEMU notes as zero in a table are zero in every file, and what it writes into them later is there.
        let qcow2 = |commands: &[&str]| {
            let path = generation.join("disk.qcow2");
            let commands = commands.iter().flat_map(|command| ["-c", *command]);
            let args: Vec<&str> = ["-f", "qcow2", path.to_str().unwrap()].into_iter().chain(commands).collect();
            run("qemu-io", &args);
            run("qemu-img", &["check", "-q", path.to_str().unwrap()]);
        };
        qcow2(&["write -z 6M 1M", "flush", "write -P 5 6200k 4k", "write -P 6 6M 128k", "write -z 6M 64k"]);
        wanted[6 * MIB..7 * MIB].fill(0);
        wanted[6200 * 1024..6204 * 1024].fill(5);
        wanted[6 * MIB..6 * MIB + 128 * 1024].fill(6);
        wanted[6 * MIB..6 * MIB + 64 * 1024].fill(0);
        assert!(whole(&generation.join("disk.raw")) == wanted);
        qcow2(&["read -P 0 6M 64k", "write -P 7 6150k 3k"]);
        wanted[6150 * 1024..6153 * 1024].fill(7);
        assert!(whole(&generation.join("disk.raw")) == wanted);
        // A cluster that QEMU gives up is refused, and it hears of that. It has punched the hole in the file then.
        let path = generation.join("disk.qcow2");
        let script = "! qemu-io -d unmap -f qcow2 \"$1\" -c 'discard 8M 64k' -c flush && qemu-img check -q \"$1\"";
        run("sh", &["-euc", script, "sh", path.to_str().unwrap()]);
        wanted[8 * MIB..8 * MIB + 64 * 1024].fill(0);
        assert!(whole(&generation.join("disk.raw")) == wanted);
        // Tables that say where the disk lies stay, whoever wants to move a block.
        let qcow2 = open(&generation.join("disk.qcow2"));
        assert_eq!(code(qcow2.write_at(&[0xff; 8], 65536)), Some(EPERM));
        assert!(served.log.lock().unwrap().iter().any(|line| line.contains("cannot change")));
        text
    };
    let served = served(folder);
    assert_eq!(fs::read(served.dir.join("latest/disk.vmdk")).unwrap(), rewritten);
}

#[test]
fn vmware_finds_room_for_its_locks_and_nothing_else_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    capture_bytes(folder, disk(folder));
    let served = served(folder);
    let generation = served.dir.join("latest");
    let before = fs::read_dir(&generation).unwrap().count();
    let lock = generation.join("disk.vmdk.lck");
    fs::create_dir(&lock).unwrap();
    fs::write(lock.join("M1.lck"), b"host and process").unwrap();
    fs::rename(lock.join("M1.lck"), lock.join("M2.lck")).unwrap();
    assert_eq!(fs::read(lock.join("M2.lck")).unwrap(), b"host and process");
    assert_eq!(fs::read_dir(&lock).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&generation).unwrap().count(), before + 1);
    assert_eq!(code(fs::remove_dir(&lock)), Some(ENOTEMPTY));
    assert!(fs::create_dir(&lock).is_err());
    run("ls", &["-laR", generation.to_str().unwrap()]);
    fs::remove_file(lock.join("M2.lck")).unwrap();
    fs::remove_dir(&lock).unwrap();
    assert_eq!(fs::read_dir(&generation).unwrap().count(), before);
    // Nothing else can be made, renamed or removed.
    assert_eq!(code(fs::create_dir(generation.join("folder"))), Some(EPERM));
    assert_eq!(code(fs::write(generation.join("file"), b"x")), Some(EPERM));
    assert_eq!(code(fs::create_dir(served.dir.join("x.lck"))), Some(EROFS));
    assert_eq!(code(fs::create_dir(generation.join("p1/x.lck"))), Some(EROFS));
    assert_eq!(code(fs::remove_file(generation.join("disk.raw"))), Some(EROFS));
    assert_eq!(code(fs::rename(generation.join("disk.raw"), generation.join("x.lck"))), Some(EROFS));
    assert_eq!(code(OpenOptions::new().write(true).open(generation.join("README.txt"))), Some(EROFS));
    assert!(std::os::unix::fs::symlink("x", generation.join("link")).is_err());
}
