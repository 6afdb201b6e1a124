//! Packs that are missing, cut, swapped or under a wrong name: each is named, and what does not need it is read.

use std::path::Path;

use crate::machine::{Random, hikae, shell};

const PACK_SIZE: u64 = 2 << 20;

/// Three generations in packs of 2 MiB; each has 3 MiB of its own, and generation 3 shares nothing with generation 1.
fn image(folder: &Path) -> Vec<String> {
    let mut random = Random::new(64);
    let mut bytes = vec![0; 6 << 20];
    for number in 1..=3_usize {
        let half = (number - 1) % 2 * (3 << 20);
        random.fill(&mut bytes[half..half + (3 << 20)]);
        if number == 1 {
            random.fill(&mut bytes[3 << 20..]);
        }
        std::fs::write(folder.join("disk.img"), &bytes).unwrap();
        std::fs::copy(folder.join("disk.img"), folder.join(format!("copy{number}.img"))).unwrap();
        hikae(folder, ["capture", "disk.img", "a.hik", "--pack-size", "2M"]).expect(0);
    }
    let mut packs: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".hik"))
        .collect();
    // The first pack has no number.
    packs.sort_by_key(|name| (name.len(), name.clone()));
    packs
}

/// Generations that restore wholly; the others name a pack and leave no file.
fn whole(folder: &Path, extra: &[&str]) -> Vec<u32> {
    let mut whole = Vec::new();
    for number in 1..=3 {
        let name = format!("a.hik@{number}");
        let ran = hikae(folder, ["restore", &name, "out.img", "--yes"].iter().chain(extra));
        if ran.code == 0 {
            shell(folder, &format!("cmp out.img copy{number}.img; rm out.img"));
            whole.push(number);
        } else {
            assert!(matches!(ran.code, 1 | 3), "{}", ran.err);
            assert!(ran.err.contains("a.") && ran.err.contains(".hik"), "{}", ran.err);
            assert!(!folder.join("out.img").exists());
        }
    }
    whole
}

#[test]
fn a_pack_that_is_missing_cut_swapped_or_renamed_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let packs = image(folder);
    assert!(packs.len() >= 6, "{packs:?}");
    for pack in &packs {
        let len = std::fs::metadata(folder.join(pack)).unwrap().len();
        assert!(len <= PACK_SIZE, "{pack} has {len} bytes");
    }
    assert_eq!(whole(folder, &[]), [1, 2, 3]);
    hikae(folder, ["verify", "a.hik"]).expect(0);
    // Says what is readable after some harm was done; all of `names` are in the words of both verify and list.
    let after = |what: &str, pack: &str, names: &[&str]| {
        let verify = hikae(folder, ["verify", "a.hik"]).expect(1);
        let list = hikae(folder, ["list", "a.hik"]);
        assert!(matches!(list.code, 0 | 1), "{what} {pack}: {}", list.err);
        for name in names {
            assert!(
                verify.out.contains(name) || verify.err.contains(name),
                "{what} {pack}: {name} is not in {verify:?}"
            );
        }
        whole(folder, &[])
    };
    // Removed: what lives without each of them.
    let mut without: Vec<Vec<u32>> = Vec::new();
    for pack in &packs {
        let path = folder.join(pack);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let left = after("removed", pack, &[pack, "missing"]);
        assert!(!left.is_empty() && left.len() < 3, "without {pack}: {left:?}");
        without.push(left);
        // Found again in another folder.
        std::fs::create_dir_all(folder.join("elsewhere")).unwrap();
        std::fs::write(folder.join("elsewhere").join(pack), &bytes).unwrap();
        assert_eq!(whole(folder, &["--packs", "elsewhere"]), [1, 2, 3]);
        hikae(folder, ["verify", "a.hik", "--packs", "elsewhere"]).expect(0);
        std::fs::remove_file(folder.join("elsewhere").join(pack)).unwrap();
        std::fs::write(&path, &bytes).unwrap();
    }
    for (index, pack) in packs.iter().enumerate() {
        let path = folder.join(pack);
        let bytes = std::fs::read(&path).unwrap();
        let lives = |found: &[u32], harmed: &[usize]| {
            (1..=3).all(|number| found.contains(&number) || harmed.iter().any(|pack| !without[*pack].contains(&number)))
        };
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let found = after("cut", pack, &[pack]);
        assert!(lives(&found, &[index]), "cut {pack}: {found:?}");

        let neighbour = if index == 0 { 1 } else { index - 1 };
        let other = folder.join(&packs[neighbour]);
        let others = std::fs::read(&other).unwrap();
        std::fs::write(&path, &others).unwrap();
        std::fs::write(&other, &bytes).unwrap();
        let found = after("swapped", pack, &[pack, &packs[neighbour], "is not the pack it is called"]);
        assert!(lives(&found, &[index, neighbour]), "swapped {pack}: {found:?}");
        std::fs::write(&other, &others).unwrap();

        std::fs::rename(&path, folder.join("a.00077.hik")).unwrap();
        std::fs::write(folder.join("a.00077.hik"), &bytes).unwrap();
        let found = after("renamed", pack, &[pack, "a.00077.hik", "is not the pack it is called"]);
        assert!(lives(&found, &[index]), "renamed {pack}: {found:?}");
        std::fs::remove_file(folder.join("a.00077.hik")).unwrap();
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(whole(folder, &[]), [1, 2, 3]);
    hikae(folder, ["verify", "a.hik"]).expect(0);
}

#[test]
fn a_lost_newest_pack_is_missed_and_its_number_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let packs = image(folder);
    let newest = packs.last().unwrap();
    shell(folder, &format!("mkdir away; mv {newest} away"));
    hikae(folder, ["list", "a.hik"]).expect(0).says(&[newest, "missing", "generation 3"]);
    hikae(folder, ["verify", "a.hik"]).expect(1).says(&[newest]);
    let record = hikae(folder, ["capture", "disk.img", "a.hik", "--json"]).expect(0).json()["record"].clone();
    assert_eq!(record["generation"], 4);
    shell(folder, &format!("mv away/{newest} ."));
    let list = hikae(folder, ["list", "a.hik", "--json"]).expect(0).json();
    let numbers: Vec<_> =
        list["generations"].as_array().unwrap().iter().map(|entry| entry["generation"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    hikae(folder, ["verify", "a.hik"]).expect(0);
    assert_eq!(whole(folder, &[]), [1, 2, 3]);
}

#[test]
fn the_pack_size_that_was_asked_for_is_kept_down_to_the_smallest() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = vec![0; 20 << 20];
    Random::new(65).fill(&mut bytes);
    std::fs::write(folder.join("disk.img"), &bytes).unwrap();
    for (size, limit, chunk) in
        [("1M", 1_u64 << 20, "64K"), ("1M", 1 << 20, "4K"), ("5M", 5 << 20, "4M"), ("1500K", 1500 << 10, "1M")]
    {
        let image = format!("{size}{chunk}.hik");
        hikae(folder, ["capture", "disk.img", &image, "--pack-size", size, "--chunk-size", chunk]).expect(0);
        let stem = image.strip_suffix(".hik").unwrap();
        let packs = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let packs = packs.filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with(stem) && name.ends_with(".hik")
        });
        let lens: Vec<u64> = packs.map(|entry| entry.metadata().unwrap().len()).collect();
        assert!(lens.len() > 3 && lens.iter().all(|len| *len <= limit), "{image}: {lens:?}");
        hikae(folder, ["restore", &image, "out.img", "--yes"]).expect(0);
        shell(folder, "cmp disk.img out.img");
    }
    // A chunk that no pack of this size can hold.
    let ran = hikae(folder, ["capture", "disk.img", "no.hik", "--pack-size", "1M", "--chunk-size", "4M"]);
    ran.expect(4).says(&["--pack-size"]);
    assert!(!folder.join("no.hik").exists() && !folder.join("no.hik.partial").exists());
}
