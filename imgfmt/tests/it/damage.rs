//! Damage of every kind: what is damaged is named or provably irrelevant, and never returned as data.

use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::{FolderStore, Image, OpenOptions, PackStore};
use imgfmt::verify::verify;

use crate::capture::{open, options, random_bytes, run_capture};
use crate::conformance::Random;
use crate::memory_store::MemoryStore;

/// A small image of two generations with stored, compressed and difference chunks, in two packs.
fn small_image(folder: &std::path::Path) -> (MemoryStore, Vec<Vec<u8>>) {
    let store = MemoryStore::new(folder);
    let shared: Arc<dyn PackStore> = Arc::new(store.clone());
    let mut random = Random::new(99);
    let mut bytes = vec![0; 40_000];
    random.fill(&mut bytes[0..8192]);
    bytes[12_000..20_000].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n / 50) as u8);
    let options = options(12, 1 << 30, Compression::Zstd(3));
    let first = bytes.clone();
    run_capture(MemoryDisk::new(bytes.clone()), &shared, &options);
    random.fill(&mut bytes[100..200]);
    random.fill(&mut bytes[30_000..31_000]);
    let record = run_capture(MemoryDisk::new(bytes.clone()), &shared, &options).record;
    assert!(record.counts.chunks_difference > 0, "the image is to hold a difference");
    (store, vec![first, bytes])
}

/// Opens, verifies and reads everything. Returns whether the damage was noticed; panics where wrong bytes came out.
fn examine(store: &MemoryStore, models: &[Vec<u8>]) -> bool {
    let shared: Arc<dyn PackStore> = Arc::new(store.clone());
    let image = match Image::open(shared, &OpenOptions::default()) {
        Ok(image) => Arc::new(image),
        Err(_) => return true,
    };
    let mut noticed = !image.warnings().is_empty();
    for entry in image.generations() {
        let Some(model) = models.get(entry.number as usize - 1) else { panic!("a generation out of nowhere") };
        let Ok(generation) = image.generation(entry.number) else {
            noticed = true;
            continue;
        };
        for (n, piece) in model.chunks(4096).enumerate() {
            let mut buf = vec![0; piece.len()];
            match generation.read_at(&mut buf, n as u64 * 4096) {
                Ok(()) => assert!(buf == piece, "wrong bytes in generation {}", entry.number),
                Err(_) => noticed = true,
            }
        }
    }
    let clean = verify(&image, quiet(&Cancel::default())).unwrap().is_clean();
    assert!(!(clean && noticed), "damage that reading noticed was not found by verify");
    noticed || !clean || image.generations().len() < models.len()
}

#[test]
fn every_flipped_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, models) = small_image(folder.path());
    assert!(!examine(&store, &models), "the image is clean to begin with");
    let packs: Vec<u32> = store.list().unwrap().iter().map(|(number, _)| *number).collect();
    let work: Vec<(u32, usize)> =
        packs.iter().flat_map(|number| (0..store.pack(*number).len()).map(move |at| (*number, at))).collect();
    std::thread::scope(|scope| {
        for half in work.chunks(work.len().div_ceil(2)) {
            let (store, models, folder) = (&store, &models, tempfile::tempdir().unwrap());
            scope.spawn(move || {
                let mut random = Random::new(half.len() as u64);
                for (number, at) in half {
                    let copy = MemoryStore::new(folder.path());
                    for pack in store.list().unwrap() {
                        copy.set_pack(pack.0, store.pack(pack.0));
                    }
                    let mut bytes = store.pack(*number);
                    bytes[*at] ^= if at % 2 == 0 { 1 << random.below(8) } else { 0xff };
                    copy.set_pack(*number, bytes);
                    assert!(examine(&copy, models), "byte {at} of pack {number} was flipped and nobody noticed");
                }
            });
        }
    });
}

#[test]
fn a_pack_cut_at_any_length_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, models) = small_image(folder.path());
    for (number, len) in store.list().unwrap() {
        let whole = store.pack(number);
        for cut in 0..len as usize {
            store.set_pack(number, whole[..cut].to_vec());
            assert!(examine(&store, &models), "pack {number} was cut at {cut} and nobody noticed");
        }
        for junk in [1, 100, 5000] {
            let mut longer = whole.clone();
            longer.resize(whole.len() + junk, 0xa5);
            store.set_pack(number, longer);
            assert!(examine(&store, &models), "{junk} bytes of junk behind pack {number} were not noticed");
        }
        store.set_pack(number, whole);
    }
}

/// An image of several packs and three generations in a folder.
fn packs_in_folder(folder: &std::path::Path) -> (Arc<dyn PackStore>, Vec<Vec<u8>>) {
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.join("a.hik"), &[]).unwrap());
    let mut random = Random::new(4);
    let options = options(16, 1 << 20, Compression::Zstd(1));
    let mut bytes = random_bytes(6 << 20, &mut random);
    let mut models = Vec::new();
    for _ in 0..3 {
        run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
        models.push(bytes.clone());
        let at = random.below(4 << 20) as usize;
        random.fill(&mut bytes[at..at + (1 << 20) + 300_000]);
    }
    (store, models)
}

/// Generations that can be read wholly; wrong bytes panic.
fn readable(store: &Arc<dyn PackStore>, models: &[Vec<u8>]) -> Vec<u32> {
    let image = open(store);
    let mut whole = Vec::new();
    for entry in image.generations() {
        let model = &models[entry.number as usize - 1];
        let mut buf = vec![0; model.len()];
        let read = image.generation(entry.number).and_then(|generation| generation.read_at(&mut buf, 0));
        if read.is_ok() {
            assert!(buf == *model);
            whole.push(entry.number);
        }
    }
    whole
}

#[test]
fn a_missing_swapped_renamed_or_cut_pack_is_named_and_the_rest_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let (store, models) = packs_in_folder(folder.path());
    let packs = store.list().unwrap();
    assert!(packs.len() >= 6, "{packs:?}");
    assert!(packs.iter().all(|(_, len)| *len <= 1 << 20));
    assert_eq!(readable(&store, &models), [1, 2, 3]);
    let path = |number: u32| folder.path().join(store.name(number));
    let aside = folder.path().join("aside");
    let problems = || {
        let image = open(&store);
        let report = verify(&image, quiet(&Cancel::default())).unwrap();
        let mut text = report.warnings.clone();
        text.extend(report.damage.iter().map(|damage| format!("{}: {}", damage.pack, damage.reason)));
        text.join("\n")
    };
    for (number, len) in &packs {
        // Removed.
        std::fs::rename(path(*number), &aside).unwrap();
        assert!(problems().contains(&store.name(*number)), "removed: {}", problems());
        assert!(readable(&store, &models).len() < 3);
        std::fs::rename(&aside, path(*number)).unwrap();
        // Cut.
        let whole = std::fs::read(path(*number)).unwrap();
        std::fs::write(path(*number), &whole[..(*len as usize) / 2]).unwrap();
        assert!(problems().contains(&store.name(*number)), "cut: {}", problems());
        readable(&store, &models);
        std::fs::write(path(*number), &whole).unwrap();
        // Swapped with the next one.
        let other = if *number == 0 { 1 } else { number - 1 };
        let (a, b) = (whole, std::fs::read(path(other)).unwrap());
        std::fs::write(path(*number), &b).unwrap();
        std::fs::write(path(other), &a).unwrap();
        let text = problems();
        assert!(text.contains(&store.name(*number)) && text.contains(&store.name(other)), "swapped: {text}");
        readable(&store, &models);
        std::fs::write(path(*number), &a).unwrap();
        std::fs::write(path(other), &b).unwrap();
        // Under another number.
        std::fs::rename(path(*number), path(77)).unwrap();
        let text = problems();
        assert!(text.contains(&store.name(*number)) && text.contains(&store.name(77)), "renamed: {text}");
        readable(&store, &models);
        std::fs::rename(path(77), path(*number)).unwrap();
    }
    // The last generation does not need what only the first one uses, and the other way round.
    let last = packs.last().unwrap().0;
    std::fs::rename(path(last), &aside).unwrap();
    assert_eq!(readable(&store, &models), [1, 2]);
    std::fs::rename(&aside, path(last)).unwrap();
    assert_eq!(readable(&store, &models), [1, 2, 3]);
}

#[test]
fn packs_are_read_from_further_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (store, models) = packs_in_folder(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    for (number, _) in store.list().unwrap().iter().filter(|(number, _)| number % 2 == 1) {
        let name = store.name(*number);
        std::fs::copy(folder.path().join(&name), elsewhere.path().join(&name)).unwrap();
        std::fs::remove_file(folder.path().join(&name)).unwrap();
    }
    let both = FolderStore::new(&folder.path().join("a.hik"), &[elsewhere.path().to_owned()]).unwrap();
    assert_eq!(readable(&(Arc::new(both) as Arc<dyn PackStore>), &models), [1, 2, 3]);
}

#[test]
fn what_verify_found_damaged_is_stored_anew_by_the_next_capture() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let bytes = random_bytes(1 << 20, &mut Random::new(8));
    let options = options(16, 1 << 30, Compression::Zstd(1));
    run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    let path = folder.path().join("a.hik");
    let mut pack = std::fs::read(&path).unwrap();
    pack[2000] ^= 1;
    std::fs::write(&path, pack).unwrap();
    let report = verify(&open(&store), quiet(&Cancel::default())).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.generations[0].damaged.len(), 1);
    run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    assert_eq!(readable(&store, &[bytes.clone(), bytes]), [2]);
}

#[test]
fn derived_files_may_be_missing_or_nonsense() {
    let folder = tempfile::tempdir().unwrap();
    let (store, models) = packs_in_folder(folder.path());
    for suffix in ["index", "head", "verdicts", "lock"] {
        std::fs::write(store.side_file(suffix), b"nonsense \xff\x00").unwrap();
    }
    assert_eq!(readable(&store, &models), [1, 2, 3]);
    let options = options(16, 1 << 20, Compression::Zstd(1));
    let record = run_capture(MemoryDisk::new(models[2].clone()), &store, &options).record;
    assert_eq!((record.generation, record.counts.chunks_new), (4, 0));
}

#[test]
fn a_newest_pack_that_was_away_brings_its_generation_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut models) = packs_in_folder(folder.path());
    let last = store.list().unwrap().last().unwrap().0;
    let (path, aside) = (folder.path().join(store.name(last)), folder.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    assert_eq!(readable(&store, &models), [1, 2]);
    // While it is away, two more generations are written. Numbers are not used twice.
    let options = options(16, 1 << 20, Compression::Zstd(1));
    for number in [4, 5] {
        models.push(random_bytes(6 << 20, &mut Random::new(number)));
        let disk = MemoryDisk::new(models.last().unwrap().clone());
        assert_eq!(u64::from(run_capture(disk, &store, &options).record.generation), number);
    }
    assert_eq!(readable(&store, &models), [1, 2, 4, 5]);
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(readable(&store, &models), [1, 2, 3, 4, 5]);
    let report = verify(&open(&store), quiet(&Cancel::default())).unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.warnings, report.damage);
    // And the next capture lists it again.
    run_capture(MemoryDisk::new(models[4].clone()), &store, &options);
    models.push(models[4].clone());
    assert_eq!(readable(&store, &models), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_pack_of_another_image_hides_nothing_of_this_one() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, models) = packs_in_folder(folder.path());
    let (foreign, _) = packs_in_folder(other.path());
    let packs = store.list().unwrap();
    let last = packs.last().unwrap().0;
    // More packs than this image has, so that one of them would be the newest.
    while foreign.list().unwrap().last().unwrap().0 <= last {
        let disk = MemoryDisk::new(random_bytes(6 << 20, &mut Random::new(77)));
        run_capture(disk, &foreign, &options(16, 1 << 20, Compression::None));
    }
    for number in [0, 1, last, last + 1] {
        let name = store.name(number);
        let path = folder.path().join(&name);
        let own = std::fs::read(&path).ok();
        std::fs::copy(other.path().join(&name), &path).unwrap();
        let whole = readable(&store, &models);
        let expected: &[u32] = if number > last {
            &[1, 2, 3]
        } else if number == last {
            &[1, 2]
        } else {
            &[]
        };
        assert!(whole.len() >= expected.len() && whole.starts_with(expected), "pack {number}: {whole:?}");
        let report = verify(&open(&store), quiet(&Cancel::default())).unwrap();
        let mut text = report.warnings.join("\n");
        text += &report.damage.iter().map(|damage| format!("{}: {}\n", damage.pack, damage.reason)).collect::<String>();
        assert!(text.contains(&name) && text.contains("another image"), "pack {number}: {text}");
        match own {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    assert_eq!(readable(&store, &models), [1, 2, 3]);
}

#[test]
fn an_older_copy_of_a_pack_is_never_taken_for_the_newer_one() {
    // Two histories that parted after the first generation: same image, same pack numbers, other content.
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let parted: Arc<dyn PackStore> = Arc::new(FolderStore::new(&other.path().join("a.hik"), &[]).unwrap());
    let options = options(16, 1 << 30, Compression::Zstd(1));
    let mut models = vec![random_bytes(1 << 20, &mut Random::new(1))];
    run_capture(MemoryDisk::new(models[0].clone()), &store, &options);
    std::fs::copy(folder.path().join("a.hik"), other.path().join("a.hik")).unwrap();
    for seed in [2, 3] {
        run_capture(MemoryDisk::new(random_bytes(1 << 20, &mut Random::new(10 + seed))), &parted, &options);
        models.push(random_bytes(1 << 20, &mut Random::new(seed)));
        run_capture(MemoryDisk::new(models.last().unwrap().clone()), &store, &options);
    }
    // Pack 1 of the other history: generation 2 of this one cannot be read, and nothing else comes out in its place.
    std::fs::copy(other.path().join("a.00001.hik"), folder.path().join("a.00001.hik")).unwrap();
    assert_eq!(readable(&store, &models), [1, 3]);
    let report = verify(&open(&store), quiet(&Cancel::default())).unwrap();
    assert!(report.damage.iter().any(|damage| damage.pack == "a.00001.hik"), "{:?}", report.damage);
    assert_eq!(report.generations.iter().map(|verdict| verdict.is_whole()).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_second_copy_of_a_pack_in_another_folder_changes_nothing() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, models) = packs_in_folder(folder.path());
    for (number, len) in store.list().unwrap() {
        let name = store.name(number);
        let mut bytes = std::fs::read(folder.path().join(&name)).unwrap();
        bytes.truncate(len as usize / 2);
        std::fs::write(other.path().join(&name), bytes).unwrap();
    }
    let both = FolderStore::new(&folder.path().join("a.hik"), &[other.path().to_owned()]).unwrap();
    assert_eq!(readable(&(Arc::new(both) as Arc<dyn PackStore>), &models), [1, 2, 3]);
}

#[test]
fn of_two_generations_with_one_root_the_damaged_one_is_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(&folder.path().join("a.hik"), &[]).unwrap());
    let bytes = random_bytes(1 << 20, &mut Random::new(8));
    let options = options(16, 1 << 30, Compression::Zstd(1));
    run_capture(MemoryDisk::new(bytes.clone()), &store, &options);
    let path = folder.path().join("a.hik");
    let mut pack = std::fs::read(&path).unwrap();
    pack[2000] ^= 1;
    std::fs::write(&path, pack).unwrap();
    verify(&open(&store), quiet(&Cancel::default())).unwrap();
    run_capture(MemoryDisk::new(bytes), &store, &options);
    let image = open(&store);
    verify(&image, quiet(&Cancel::default())).unwrap();
    let verdicts = imgfmt::image::verdict::Verdicts::read(&*store, open(&store).id());
    let records: Vec<_> = image.generations().iter().map(|entry| image.record(entry).unwrap()).collect();
    assert_eq!(records[0].root.id, records[1].root.id);
    assert_eq!((verdicts.of(&records[0]), verdicts.of(&records[1])), (Some(false), Some(true)));
}
