//! Disks made by real tools: captured, restored, and judged by those tools.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::machine::{Loop, Ran, Random, as_root, hikae, shell, sparse_file, text};
use crate::volumes::{Kind, judge, make, name, table, tree, used_blocks_are_equal};

/// A partition that a test put on its disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) number: u64,
    /// In bytes.
    pub(crate) start: u64,
    /// In bytes.
    pub(crate) len: u64,
    pub(crate) kind: Kind,
}

/// A disk with its partitions.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) parts: Vec<Part>,
    pub(crate) sector_size: u32,
}

/// Makes a disk of `len` bytes: noise (what an earlier life left) everywhere, then the table by `write_table`, then the filesystems.
pub(crate) fn build(folder: &Path, len: u64, sector_size: u32, parts: &[Part], write_table: impl Fn(&Path)) -> Built {
    let path = folder.join("disk.img");
    noise(&path, len);
    write_table(&path);
    let tree = tree(folder);
    for part in parts {
        let volume = folder.join("volume.img");
        make(part.kind, &volume, part.len, sector_size, &tree);
        // Holes of the volume are holes of the disk too, over the noise: as a fresh filesystem on a used disk has them where
        // its tool wrote nothing, the noise stays there.
        copy_data(&volume, &path, part.start);
        std::fs::remove_file(&volume).unwrap();
    }
    Built { path, parts: parts.to_vec(), sector_size }
}

/// Fills a file with noise, apart from a hole now and then.
fn noise(path: &Path, len: u64) {
    sparse_file(path, len);
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    let mut random = Random::new(len);
    let mut piece = vec![0; 1 << 20];
    for at in (0..len).step_by(1 << 20) {
        if random.below(4) > 0 {
            let part = (len - at).min(1 << 20) as usize;
            random.fill(&mut piece[..part]);
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&piece[..part]).unwrap();
        }
    }
    // No table, and no backup of one.
    for at in [0, len - (1 << 20)] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&vec![0; 1 << 20]).unwrap();
    }
}

/// Copies what is data of a sparse file into another at an offset.
fn copy_data(from: &Path, to: &Path, offset: u64) {
    let mut from = std::fs::File::open(from).unwrap();
    let mut to = std::fs::File::options().write(true).open(to).unwrap();
    let len = from.metadata().unwrap().len();
    let mut at = 0;
    while at < len {
        let Ok(start) = rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(start)).unwrap();
        from.seek(SeekFrom::Start(start)).unwrap();
        to.seek(SeekFrom::Start(offset + start)).unwrap();
        assert_eq!(std::io::copy(&mut (&mut from).take(end - start), &mut to).unwrap(), end - start);
        at = end;
    }
}

/// Captures with the given options and restores into `out`.
fn capture_and_restore(built: &Built, image: &str, options: &[&str], out: &Path) -> Value {
    let folder = built.path.parent().unwrap();
    let capture = ["capture", "disk.img", image, "--json"];
    let captured = hikae(folder, capture.iter().chain(options)).expect(0).json();
    hikae(folder, ["restore", image, text(out), "--yes"]).expect(0);
    captured["record"].clone()
}

/// All that is promised of a disk, by its tools.
pub(crate) fn check(built: &Built) {
    let folder = built.path.parent().unwrap();
    let out = folder.join("out.img");
    let len = std::fs::metadata(&built.path).unwrap().len();
    // Every byte, where it is asked for.
    capture_and_restore(built, "all.hik", &["--all-blocks", "--keep-swap"], &out);
    shell(folder, "cmp disk.img out.img; rm out.img");
    // Every used block.
    for swap_kept in [true, false] {
        let options: &[&str] = if swap_kept { &["--keep-swap"] } else { &[] };
        let image = if swap_kept { "kept.hik" } else { "default.hik" };
        let record = capture_and_restore(built, image, options, &out);
        let (whole, copy) = (Loop::over(&built.path, built.sector_size), Loop::over(&out, built.sector_size));
        if !table_is_missing(&record) {
            assert_eq!(table(&whole), table(&copy));
        }
        check_record(built, &record);
        for part in &built.parts {
            let original = Loop::part(&built.path, part.start, part.len, built.sector_size);
            let restored = Loop::part(&out, part.start, part.len, built.sector_size);
            judge(part.kind, folder, &original, &restored, swap_kept);
            if swap_kept {
                used_blocks_are_equal(part.kind, folder, &original, &restored);
            }
        }
        outside_of_partitions_is_equal(built, &out, len);
        drop((whole, copy));
        std::fs::remove_file(&out).unwrap();
        hikae(folder, ["verify", image]).expect(0);
    }
}

fn table_is_missing(record: &Value) -> bool {
    record["layout"]["scheme"] == "none"
}

/// The record tells what was done, and of "used blocks" that the closure check found them complete.
fn check_record(built: &Built, record: &Value) {
    let partitions = record["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), built.parts.len(), "{partitions:#?}");
    for (part, kept) in built.parts.iter().zip(partitions) {
        assert_eq!(kept["number"], part.number);
        let filesystem = kept["filesystem"].as_str().unwrap();
        assert!(filesystem.contains(name(part.kind)), "{filesystem} for {part:?}");
        match kept["captured"].as_str().unwrap() {
            "used blocks" => {
                assert_eq!(kept["closure"], "complete", "{kept}");
                assert_eq!(kept["reasons"], serde_json::json!([]), "{kept}");
                let used = kept["used"].as_u64().unwrap();
                assert!(used < part.len || part.kind == Kind::Swap && used == part.len, "{kept}");
            }
            "whole" => assert!(!kept["reasons"].as_array().unwrap().is_empty(), "{kept}"),
            other => panic!("{other}"),
        }
    }
    if built.parts.iter().any(|part| part.kind == Kind::Ntfs) {
        assert!(record["counts"]["absent"].as_u64().unwrap() > 0, "free clusters of NTFS are left out");
        assert!(partitions.iter().any(|kept| kept["captured"] == "used blocks"));
    }
}

/// Gaps, tables and boot code are the same byte for byte.
fn outside_of_partitions_is_equal(built: &Built, out: &Path, len: u64) {
    let mut at = 0;
    let mut ends: Vec<(u64, u64)> = built.parts.iter().map(|part| (part.start, part.start + part.len)).collect();
    ends.push((len, len));
    for (start, end) in ends {
        let gap = (start - at).to_string();
        let skip = at.to_string();
        as_root("cmp", ["--bytes", &gap, "--ignore-initial", &skip, text(&built.path), text(out)]);
        at = end;
    }
}

const MIB: u64 = 1 << 20;

fn sfdisk(disk: &Path, script: &str) {
    shell(disk.parent().unwrap(), &format!("printf '{script}' | sfdisk --quiet '{}'", disk.display()));
}

#[test]
fn an_mbr_with_primary_and_logical_partitions_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    // As old systems lay out disks: from sector 63 on, so that chunks straddle gaps and partitions.
    let part = |number, start: u64, sectors: u64, kind| Part { number, start: start * 512, len: sectors * 512, kind };
    let parts = [
        part(1, 63, 100_001, Kind::Ntfs),
        part(2, 100_100, 90_000, Kind::Fat32),
        part(5, 200_063, 61_440, Kind::Ext4),
        part(6, 270_000, 40_000, Kind::Exfat),
        part(7, 320_063, 20_000, Kind::Swap),
    ];
    let script = "label: dos\\nlabel-id: 0xcafe1234\\nunit: sectors\\nstart=63, size=100001, type=7, bootable\\nstart=100100, size=90000, type=c\\n\
                  start=200000, size=150000, type=5\\nstart=200063, size=61440, type=83\\nstart=270000, size=40000, type=7\\nstart=320063, size=20000, type=82\\n";
    let built = build(folder.path(), 190 * MIB, 512, &parts, |disk| sfdisk(disk, script));
    check(&built);
}

#[test]
fn a_gpt_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let part = |number, start: u64, len: u64, kind| Part { number, start: start * MIB, len: len * MIB, kind };
    let parts = [
        part(1, 1, 40, Kind::Fat32),
        part(2, 41, 48, Kind::Ntfs),
        part(3, 90, 40, Kind::Ext4),
        part(7, 130, 8, Kind::Swap),
    ];
    let built = build(folder.path(), 140 * MIB, 512, &parts, |disk| {
        let args = "--new=1:1M:+40M --typecode=1:ef00 --change-name=1:EFI --new=2:41M:+48M --typecode=2:0700 --new=3:90M:+40M --new=7:130M:+8M --typecode=7:8200";
        as_root("sgdisk", args.split(' ').chain([text(disk)]));
    });
    check(&built);
    let out = folder.path().join("out.img");
    capture_and_restore(&built, "default.hik", &[], &out);
    as_root("sgdisk", ["--verify", text(&out)]).says(&["No problems found"]);
}

#[test]
fn a_gpt_on_sectors_of_4096_bytes_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let part = |number, start: u64, len: u64, kind| Part { number, start: start * MIB, len: len * MIB, kind };
    let parts = [part(1, 1, 40, Kind::Ntfs), part(2, 42, 40, Kind::Ext4), part(3, 83, 70, Kind::Fat16)];
    let built = build(folder.path(), 156 * MIB, 4096, &parts, |disk| {
        let device = Loop::over(disk, 4096);
        let args = "--new=1:256:+40M --typecode=1:0700 --new=2:10752:+40M --new=3:21248:+70M --typecode=3:0700";
        as_root("sgdisk", args.split(' ').chain([text(&device.path)]));
    });
    check(&built);
    // The same disk as a device tells of its sectors by itself.
    let device = Loop::over(&built.path, 4096);
    as_root(crate::machine::HIKAE, ["capture", text(&device.path), text(&folder.path().join("device.hik"))]);
    let info = hikae(folder.path(), ["info", "device.hik", "--json"]).expect(0).json();
    assert_eq!(info["record"]["disk"]["logical_sector_size"], 4096);
    let starts = |info: &Value| -> Vec<u64> {
        info["record"]["layout"]["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["start"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(starts(&info), [MIB, 42 * MIB, 83 * MIB]);
    let file = hikae(folder.path(), ["info", "default.hik", "--json"]).expect(0).json();
    assert_eq!(file["record"]["disk"]["logical_sector_size"], 4096, "a raw file is known by its GPT");
}

#[test]
fn an_mbr_on_sectors_of_4096_bytes_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    noise(&disk, 32 * MIB);
    {
        let device = Loop::over(&disk, 4096);
        let script = "label: dos\\nunit: sectors\\nstart=256, size=1000, type=83\\nstart=2000, size=4000, type=5\\nstart=2300, size=700, type=82\\n";
        as_root("sh", ["-c", &format!("printf '{script}' | sfdisk --quiet '{}'", device.path.display())]);
    }
    let args = ["capture", "disk.img", "a.hik", "--sector-size", "4096", "--json"];
    let record = hikae(folder.path(), args).expect(0).json()["record"].clone();
    let found: Vec<_> = record["layout"]["partitions"].as_array().unwrap().iter().collect();
    let found: Vec<_> = found.iter().map(|p| (p["number"].as_u64(), p["start"].as_u64(), p["len"].as_u64())).collect();
    assert_eq!(found, [(Some(1), Some(1 << 20), Some(4_096_000)), (Some(5), Some(2300 * 4096), Some(700 * 4096))]);
    hikae(folder.path(), ["restore", "a.hik", "out.img"]).expect(0);
    shell(folder.path(), "cmp disk.img out.img");
}

#[test]
fn a_filesystem_without_a_table_comes_back() {
    for (kind, len) in [(Kind::Fat32, 40), (Kind::Fat16, 20), (Kind::Ext4, 40), (Kind::Ntfs, 40), (Kind::Exfat, 32)] {
        let folder = tempfile::tempdir().unwrap();
        let parts = [Part { number: 1, start: 0, len: len * MIB, kind }];
        check(&build(folder.path(), len * MIB, 512, &parts, |_| ()));
    }
}

fn random_file(path: &Path, len: usize, seed: u64) {
    let mut bytes = vec![0; len];
    Random::new(seed).fill(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_disk_of_no_known_shape_comes_back_whatever_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    for len in [1, 511, 512, 513, 4095, 4097, 65_535, 65_537, 1_000_003, 5_242_881] {
        random_file(&disk, len, len as u64);
        for options in [
            &["--chunk-size", "4K"][..],
            &["--chunk-size", "4M"],
            &["--compression", "lz4"],
            &["--sector-size", "4096"],
        ] {
            let image = format!("{len}{}.hik", options.concat());
            hikae(folder.path(), ["capture", "disk.img", &image].iter().chain(options)).expect(0);
            hikae(folder.path(), ["restore", &image, "out.img", "--yes"]).expect(0);
            hikae(folder.path(), ["export", &image, "out.raw", "--overwrite"]).expect(0);
            shell(folder.path(), "cmp disk.img out.img; cmp disk.img out.raw");
        }
    }
    sparse_file(&disk, 0);
    let refused: Ran = hikae(folder.path(), ["capture", "disk.img", "none.hik"]);
    refused.expect(4).says(&["disk.img has no bytes"]);
    assert!(!folder.path().join("none.hik").exists() && !folder.path().join("none.hik.lock").exists());
}
