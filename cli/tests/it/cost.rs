//! What generations cost on the disk, and what commands cost in memory.

use std::os::unix::fs::FileExt;
use std::path::Path;

use imgfmt::image::codec::{Compression, Compressor};

use crate::machine::{HIKAE, Random, hikae, run, sparse_file};

const PAGE: usize = 4096;

/// A page as disks have them: noise, text, a table of numbers, or zeros.
fn page(random: &mut Random, words: &[String]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    match random.below(10) {
        0..=3 => random.fill(&mut page),
        4..=6 => {
            let mut text = String::new();
            while text.len() < PAGE {
                text += &words[random.below(words.len() as u64) as usize];
                text.push(' ');
            }
            page.copy_from_slice(&text.as_bytes()[..PAGE]);
        }
        7 | 8 => {
            for (n, piece) in page.chunks_mut(16).enumerate() {
                piece[..4].copy_from_slice(&(n as u32).to_le_bytes());
                piece[4..8].copy_from_slice(&(random.next() as u32).to_le_bytes());
            }
        }
        _ => {}
    }
    page
}

/// Bytes of all packs of an image.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let packs = entries.filter(|entry| entry.file_name().to_str().unwrap().ends_with(".hik"));
    packs.map(|pack| pack.metadata().unwrap().len()).sum()
}

#[test]
fn a_generation_costs_what_changed() {
    // 3 GiB where there is time.
    let len: u64 = if std::env::var_os("HIKAE_LONG").is_some() { 3 << 30 } else { 192 << 20 };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    let mut random = Random::new(2026);
    let words: Vec<String> = (0..3000).map(|_| format!("{:x}", random.next() % 0x0fff_ffff)).collect();
    sparse_file(&disk, len);
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    let pages = len / PAGE as u64;
    for first in (0..pages).step_by(256) {
        let piece: Vec<u8> = (0..256).flat_map(|_| page(&mut random, &words)).collect();
        file.write_all_at(&piece, first * PAGE as u64).unwrap();
    }
    hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(0);
    let first = size(folder.path());
    // Nothing changed: below 1 MiB, whatever the size of the disk.
    hikae(folder.path(), ["capture", "disk.img", "a.hik"]).expect(0);
    let second = size(folder.path());
    assert!(second - first < 1 << 20, "{} bytes for an unchanged disk", second - first);

    let mut changed = std::collections::BTreeSet::new();
    while (changed.len() as u64) < pages * 3 / 100 {
        changed.insert(random.below(pages));
    }
    let mut compressor = Compressor::new(Compression::default());
    let mut alone = 0;
    for number in &changed {
        let page = page(&mut random, &words);
        alone += compressor.compress(&page).1.len() as u64;
        file.write_all_at(&page, number * PAGE as u64).unwrap();
    }
    let record = hikae(folder.path(), ["capture", "disk.img", "a.hik", "--json"]).expect(0).json()["record"].clone();
    let cost = size(folder.path()) - second;
    // The nodes: every leaf has changed, and has an id of 32 bytes, a place of 16 and a tag for each chunk. The table: 48 bytes for each new chunk.
    let new =
        record["counts"]["chunks_new"].as_u64().unwrap() + record["counts"]["chunks_difference"].as_u64().unwrap();
    let nodes = len / 65536 * 52 + new * 49 + (64 << 10);
    assert!(
        cost <= alone * 13 / 10 + nodes,
        "{cost} bytes for pages worth {alone}, with {nodes} for nodes and table: {record}"
    );
    hikae(folder.path(), ["verify", "a.hik"]).expect(0);
    hikae(folder.path(), ["restore", "a.hik", "out.img"]).expect(0);
    assert_eq!(run("cmp", [&disk, &folder.path().join("out.img")]).code, 0);
}

/// Runs `hikae` and returns the most memory that it had at once, in KiB.
fn peak_memory(folder: &Path, args: &[&str]) -> u64 {
    let time = folder.join("time.txt");
    let path = time.to_str().unwrap();
    let ran = run("env", ["-C", folder.to_str().unwrap(), "time", "-f", "%M", "-o", path, HIKAE].iter().chain(args));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    std::fs::read_to_string(time).unwrap().trim().parse().unwrap()
}

#[test]
fn a_sparse_disk_of_10_tib_fits_into_256_mib_of_memory() {
    let data: u64 = if std::env::var_os("HIKAE_LONG").is_some() { 1 << 30 } else { 64 << 20 };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    let len = 10_u64 << 40;
    sparse_file(&disk, len);
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    let mut random = Random::new(10);
    let mut piece = vec![0; 64 << 10];
    let mut places = Vec::new();
    for _ in 0..data / piece.len() as u64 {
        random.fill(&mut piece);
        let at = random.below(len / 4096 - 16) * 4096;
        file.write_all_at(&piece, at).unwrap();
        places.push(at);
    }
    let commands: [&[&str]; 6] = [
        &["capture", "disk.img", "a.hik"],
        &["capture", "disk.img", "a.hik"],
        &["list", "a.hik"],
        &["info", "a.hik"],
        &["verify", "a.hik"],
        &["restore", "a.hik", "out.img"],
    ];
    for command in commands {
        let peak = peak_memory(folder.path(), command);
        assert!(peak < 256 << 10, "{command:?} had {peak} KiB");
    }
    let (one, two) = (std::fs::File::open(&disk).unwrap(), std::fs::File::open(folder.path().join("out.img")).unwrap());
    let mut other = piece.clone();
    for at in places {
        one.read_exact_at(&mut piece, at).unwrap();
        two.read_exact_at(&mut other, at).unwrap();
        assert!(piece == other, "at {at}");
    }
}
