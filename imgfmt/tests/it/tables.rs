//! Partition tables written by sfdisk and sgdisk, read by us and held against what sfdisk says; and damaged ones.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::PackStore;
use imgfmt::image::codec::Compression;
use imgfmt::partition::{Layout, Scheme, read_layout};
use imgfmt::source::FileDisk;
use imgfmt::target::{CopyOptions, copy};
use serde_json::Value;

use crate::capture::{open, options, run_capture};
use crate::conformance::Random;
use crate::files::sparse_file;
use crate::memory_store::MemoryStore;
use crate::memory_target::MemoryTarget;
use crate::tools::run;

/// Feeds a script to sfdisk.
fn sfdisk(disk: &Path, script: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = std::process::Command::new("sfdisk");
    command.args(["--quiet", "--no-reread", "--no-tell-kernel", disk.to_str().unwrap()]).env("PATH", path);
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sfdisk is needed by this test");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// What sfdisk reads.
fn oracle(disk: &Path) -> Value {
    let json = run("sfdisk", ["--json", disk.to_str().unwrap()]).stdout;
    serde_json::from_slice::<Value>(&json).unwrap()["partitiontable"].clone()
}

/// A run of sectors inside `from..to` for a partition, sometimes right at the edge; `None` where no room is left.
fn place(random: &mut Random, from: u64, to: u64) -> Option<(u64, u64)> {
    let room = to.checked_sub(from).filter(|room| *room > 4)?;
    let skip = [0, 0, random.below(room / 4 + 1), 2048 - from % 2048][random.below(4) as usize];
    let start = from + skip;
    let room = to.checked_sub(start).filter(|room| *room > 0)?;
    let len = if random.below(5) == 0 { room } else { 1 + random.below(room / 2 + 1) };
    Some((start, len.min(room)))
}

fn mbr_script(random: &mut Random, sectors: u64) -> String {
    let mut script = format!("label: dos\nlabel-id: 0x{:08x}\nunit: sectors\n", random.next() as u32);
    let mut at = if random.below(2) == 0 { 1 } else { 63 };
    let extended = random.below(5);
    for number in 1..=4_u64 {
        if random.below(5) == 0 {
            continue;
        }
        let Some((start, len)) = place(random, at, sectors) else { break };
        at = start + len;
        if number == extended && len > 100 {
            script +=
                &format!("{number}: start={start}, size={len}, type={}\n", ["5", "f", "85"][random.below(3) as usize]);
            let mut inside = start + 2048;
            for logical in 5..5 + random.below(12) {
                let Some((first, size)) = place(random, inside, at) else { break };
                script += &format!(
                    "{logical}: start={first}, size={size}, type={}\n",
                    ["83", "7", "82"][random.below(3) as usize]
                );
                // sfdisk leaves as much before each logical partition as before the first.
                inside = first + size + 2048;
            }
        } else {
            let kind = ["7", "c", "83", "82", "ef", "27", "8e", "1c"][random.below(8) as usize];
            let bootable = if random.below(4) == 0 { ", bootable" } else { "" };
            script += &format!("{number}: start={start}, size={len}, type={kind}{bootable}\n");
        }
    }
    script
}

/// A table that no sfdisk writes: logical partitions right behind their records, records in any place of the extended partition.
fn tight_mbr(random: &mut Random, sectors: u64, disk: &Path) {
    let file = std::fs::File::options().write(true).open(disk).unwrap();
    let put = |at: u64, sector: [u8; 512]| std::os::unix::fs::FileExt::write_all_at(&file, &sector, at * 512).unwrap();
    let entry = |sector: &mut [u8; 512], index: usize, kind: u8, start: u64, len: u64| {
        let at = 446 + index * 16;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&(start as u32).to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&(len as u32).to_le_bytes());
        (sector[510], sector[511]) = (0x55, 0xaa);
    };
    let mut table = [0; 512];
    random.fill(&mut table[..446]);
    let primary = 1 + random.below(sectors / 4);
    entry(&mut table, random.below(2) as usize, 0x83, 1, primary);
    let start = 1 + primary + random.below(50);
    entry(&mut table, 2 + random.below(2) as usize, 0x05, start, sectors - start);
    put(0, table);
    let count = 1 + random.below(40);
    // Records and their partitions in random order of the disk: the chain may jump backwards.
    let room = (sectors - start - 2) / count;
    let mut order: Vec<u64> = (1..count).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order.insert(0, 0);
    for (index, piece) in order.iter().enumerate() {
        let mut record = [0; 512];
        entry(&mut record, 0, 0x07, 1, 1 + random.below(room - 2));
        if let Some(next) = order.get(index + 1) {
            entry(&mut record, 1, 0x05, next * room, room);
        }
        put(start + piece * room, record);
    }
}

fn gpt_script(random: &mut Random, sectors: u64) -> String {
    let guid = |random: &mut Random| {
        let (a, b) = (random.next(), random.next());
        format!(
            "{:08X}-{:04X}-4{:03X}-A{:03X}-{:012X}",
            a as u32,
            (a >> 32) as u16,
            (a >> 48) & 0xfff,
            b & 0xfff,
            b >> 16
        )
    };
    let entries = [128, 128, 4, 36, 200][random.below(5) as usize];
    let mut script =
        format!("label: gpt\nlabel-id: {}\nunit: sectors\ntable-length: {entries}\nfirst-lba: 100\n", guid(random));
    let types = [
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    ];
    let mut at = 100;
    for number in 1..=entries {
        if random.below(3) == 0 && number < entries {
            continue;
        }
        let Some((start, len)) = place(random, at, sectors - 100) else { break };
        at = start + len;
        let name = ["", "EFI system", "x y-z_\u{e4}\u{65e5}", "0123456789012345678901234567890123456"]
            [random.below(4) as usize];
        let name: String = name.chars().take(36).collect();
        let attribute = if random.below(3) == 0 { ", attrs=LegacyBIOSBootable" } else { "" };
        let (kind, uuid) = (types[random.below(4) as usize], guid(random));
        script +=
            &format!("{number}: start={start}, size={len}, type={kind}, uuid={uuid}, name=\"{name}\"{attribute}\n");
    }
    script
}

/// Our reading against sfdisk's. Extended partitions are containers of the table, not partitions to us.
fn compare(layout: &Layout, oracle: &Value, seed: u64) {
    let label = oracle["label"].as_str().unwrap();
    let is_gpt = label == "gpt";
    assert_eq!(layout.scheme, if is_gpt { Scheme::Gpt } else { Scheme::Mbr }, "seed {seed}");
    let id = oracle["id"].as_str().unwrap().trim_start_matches("0x").to_owned();
    assert_eq!(layout.disk_id, id, "seed {seed}");
    let empty = Vec::new();
    let expected = oracle["partitions"].as_array().unwrap_or(&empty).iter();
    let expected: Vec<_> = expected
        .filter(|partition| is_gpt || !matches!(partition["type"].as_str().unwrap(), "5" | "f" | "85"))
        .map(|partition| {
            let node = partition["node"].as_str().unwrap();
            let number: u32 = node.rsplit_once("img").unwrap().1.parse().unwrap();
            let kind = partition["type"].as_str().unwrap();
            let kind = if is_gpt { kind.to_owned() } else { format!("{kind:0>2}") };
            let active = partition["bootable"] == true
                || partition["attrs"].as_str().is_some_and(|attrs| attrs.contains("LegacyBIOSBootable"));
            let text = |key: &str| partition[key].as_str().unwrap_or("").to_owned();
            let range = |key: &str| partition[key].as_u64().unwrap() * 512;
            (number, range("start"), range("start") + range("size"), kind, active, text("name"), text("uuid"))
        })
        .collect();
    let found = layout.partitions.iter();
    let found: Vec<_> = found
        .map(|p| {
            let uuid = if is_gpt { p.id.clone() } else { String::new() };
            (p.number, p.range.start, p.range.end, p.type_code.clone(), p.active, p.name.clone(), uuid)
        })
        .collect();
    assert_eq!(found, expected, "seed {seed}");
    assert_eq!(layout.problems, Vec::<String>::new(), "seed {seed}");
    assert!(layout.partitions.iter().all(|partition| partition.unusable.is_none()));
}

/// The disk through an image and back, byte for byte.
fn round_trip(disk: &Path, seed: u64) {
    let side = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(side.path()));
    let source = FileDisk::open(disk, 512).unwrap();
    run_capture(source, &store, &options(16, 1 << 30, Compression::Lz4));
    let generation = open(&store).generation(1).unwrap();
    let target = MemoryTarget::new(generation.len());
    copy(&generation, &target, CopyOptions::default(), quiet(&Cancel::default())).unwrap();
    assert!(target.into_parts().0 == std::fs::read(disk).unwrap(), "seed {seed}");
}

#[test]
fn two_hundred_random_tables_are_read_as_sfdisk_reads_them_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    let (mut partitions, mut logical) = (0, 0);
    for seed in 0..200 {
        let mut random = Random::new(1000 + seed);
        let sectors = 2000 + random.below(20_000);
        sparse_file(&disk, sectors * 512 + random.below(2) * random.below(512));
        // Something of an earlier life all over the disk.
        let mut noise = vec![0; 700];
        for at in (0..sectors * 512 - 700).step_by(100_000) {
            random.fill(&mut noise);
            let file = std::fs::File::options().write(true).open(&disk).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &noise, at + 3000).unwrap();
        }
        match seed % 3 {
            0 => sfdisk(&disk, &mbr_script(&mut random, sectors)),
            1 => sfdisk(&disk, &gpt_script(&mut random, sectors)),
            _ => tight_mbr(&mut random, sectors, &disk),
        }
        let layout = read_layout(&FileDisk::open(&disk, 512).unwrap()).unwrap();
        compare(&layout, &oracle(&disk), seed);
        partitions += layout.partitions.len();
        logical += layout.partitions.iter().filter(|p| layout.scheme == Scheme::Mbr && p.number > 4).count();
        round_trip(&disk, seed);
    }
    assert!(partitions > 500 && logical > 50, "{partitions} partitions, {logical} logical");
}

/// A disk of 16 MiB with a GPT of two partitions by sgdisk.
fn gpt_bytes(extra: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    sparse_file(&disk, 16 << 20);
    let args = ["--new=1:2048:+4M", "--typecode=1:ef00", "--new=2:12288:+6M", "--change-name=2:data"];
    run("sgdisk", args.iter().chain(extra).copied().chain([disk.to_str().unwrap()]));
    std::fs::read(&disk).unwrap()
}

fn layout_of(bytes: &[u8]) -> Layout {
    read_layout(&MemoryDisk::new(bytes.to_vec())).unwrap()
}

/// Captures the disk and holds the generation against it.
fn comes_back(bytes: &[u8]) -> imgfmt::image::record::Record {
    let side = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(MemoryStore::new(side.path()));
    let record = run_capture(MemoryDisk::new(bytes.to_vec()), &store, &options(16, 1 << 30, Compression::Lz4)).record;
    let mut back = vec![0; bytes.len()];
    open(&store).generation(1).unwrap().read_at(&mut back, 0).unwrap();
    assert!(back == bytes);
    record
}

fn ranges(layout: &Layout) -> Vec<(u32, u64, u64)> {
    layout.partitions.iter().map(|p| (p.number, p.range.start, p.range.end)).collect()
}

#[test]
fn the_backup_gpt_serves_where_the_primary_is_damaged() {
    let good = gpt_bytes(&[]);
    let expected = [(1, 1 << 20, 5 << 20), (2, 6 << 20, 12 << 20)];
    assert_eq!(ranges(&layout_of(&good)), expected);
    // The header, its checksum, an entry, the whole start of the disk but for the protective MBR.
    for (at, len) in [(512, 8), (512 + 16, 1), (1024 + 40, 1), (512, 16896)] {
        let mut bytes = good.clone();
        bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x55);
        let layout = layout_of(&bytes);
        assert_eq!(ranges(&layout), expected, "damage at {at}");
        let problems = layout.problems.join("; ");
        assert!(problems.contains("the primary GPT is damaged") && problems.contains("backup"), "{problems}");
        assert!(comes_back(&bytes).layout.problems.iter().any(|problem| problem.contains("backup")));
    }
    let end = good.len();
    for (at, len) in [(end - 512, 8), (end - 512 + 16, 1), (end - 16896 + 40, 1)] {
        let mut bytes = good.clone();
        bytes[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x55);
        let layout = layout_of(&bytes);
        assert_eq!(ranges(&layout), expected, "damage at {at}");
        assert!(layout.problems.iter().any(|problem| problem.contains("the backup GPT is damaged")));
    }
    // Both: said, and kept whole.
    let mut bytes = good;
    bytes[512] ^= 1;
    bytes[end - 512] ^= 1;
    let record = comes_back(&bytes);
    assert!(record.layout.problems.iter().any(|problem| problem.contains("both copies are damaged")), "{record:?}");
    assert_eq!(record.counts.absent, 0);
}

#[test]
fn a_gpt_that_the_mbr_does_not_announce_is_not_believed() {
    // A disk that got an MBR by a tool that knows no GPT: systems follow the MBR.
    let mut bytes = gpt_bytes(&[]);
    bytes[446..510].fill(0);
    bytes[446 + 4] = 0x83;
    bytes[446 + 8..446 + 12].copy_from_slice(&63_u32.to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&20_000_u32.to_le_bytes());
    let layout = layout_of(&bytes);
    assert_eq!((layout.scheme, ranges(&layout)), (Scheme::Mbr, vec![(1, 63 * 512, 20_063 * 512)]));
    assert!(layout.problems.iter().any(|problem| problem.contains("GPT")), "{:?}", layout.problems);
    // Without any MBR the GPT is what there is.
    bytes[..512].fill(0);
    assert_eq!(layout_of(&bytes).scheme, Scheme::Gpt);
}

#[test]
fn a_hybrid_mbr_is_recognised() {
    let layout = layout_of(&gpt_bytes(&["--hybrid=2"]));
    assert_eq!(layout.scheme, Scheme::HybridGpt);
    assert_eq!(ranges(&layout), [(1, 1 << 20, 5 << 20), (2, 6 << 20, 12 << 20)]);
}

/// An MBR with these entries: type, first sector, sectors.
fn mbr_bytes(len: usize, entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    put_entries(&mut bytes, 0, entries);
    bytes
}

fn put_entries(bytes: &mut [u8], sector: usize, entries: &[(u8, u32, u32)]) {
    let base = sector * 512;
    for (index, (kind, start, len)) in entries.iter().enumerate() {
        let at = base + 446 + index * 16;
        bytes[at + 4] = *kind;
        bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
    }
    (bytes[base + 510], bytes[base + 511]) = (0x55, 0xaa);
}

#[test]
fn tables_that_loop_overlap_or_leave_the_disk_are_told_of_and_the_disk_is_kept_whole() {
    let cases: [(&str, Vec<u8>); 7] = [
        ("overlaps another", mbr_bytes(1 << 20, &[(0x83, 63, 500), (0x07, 500, 600)])),
        ("overlaps another", mbr_bytes(1 << 20, &[(0x83, 63, 1500), (0x07, 500, 600), (0x83, 1200, 10)])),
        ("past the end of the disk", mbr_bytes(1 << 20, &[(0x83, 63, 0xffff_ffff)])),
        ("loops", {
            let mut bytes = mbr_bytes(1 << 20, &[(0x05, 100, 1000)]);
            put_entries(&mut bytes, 100, &[(0x83, 1, 50), (0x05, 200, 100)]);
            put_entries(&mut bytes, 300, &[(0x83, 1, 50), (0x05, 0, 100)]);
            bytes
        }),
        ("leaves the disk", {
            let mut bytes = mbr_bytes(1 << 20, &[(0x0f, 100, 1000)]);
            put_entries(&mut bytes, 100, &[(0x83, 1, 50), (0x05, 0xffff_fff0, 100)]);
            bytes
        }),
        ("no signature", mbr_bytes(1 << 20, &[(0x05, 100, 1000)])),
        ("2 extended partitions", {
            let mut bytes = mbr_bytes(1 << 20, &[(0x05, 100, 100), (0x0f, 300, 100)]);
            put_entries(&mut bytes, 100, &[(0x83, 1, 50)]);
            put_entries(&mut bytes, 300, &[(0x83, 1, 50)]);
            bytes
        }),
    ];
    for (expected, mut bytes) in cases {
        let mut random = Random::new(5);
        random.fill(&mut bytes[700_000..800_000]);
        let record = comes_back(&bytes);
        let problems = record.layout.problems.join("; ");
        assert!(problems.contains(expected), "{expected}: {problems}");
        assert_eq!(record.counts.absent, 0);
    }
}
