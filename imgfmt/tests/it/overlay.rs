//! Overlays: a disk that takes writes without its base being written, and that is never older than its last flush.

use std::fs;
use std::sync::Arc;

use imgfmt::disk::MemoryDisk;
use imgfmt::overlay::{About, Overlay, Proof, digest_of};
use imgfmt::{Disk, Error, Extent, ExtentKind, Result, WritableDisk};

use crate::conformance::{Random, disk_suite};
use crate::volatile_storage::VolatileStorage;

/// Not a multiple of a block, nor of a sector.
const LEN: usize = (3 << 20) + 5 * 512 + 100;

fn base(seed: u64) -> (Vec<u8>, Arc<dyn Disk>) {
    let mut bytes = vec![0; LEN];
    Random::new(seed).fill(&mut bytes[1 << 20..]);
    (bytes.clone(), Arc::new(MemoryDisk::new(bytes)))
}

fn about(disk: &dyn Disk) -> About {
    let proof = Proof::Other { format: "raw".to_owned(), digest: digest_of(disk).unwrap() };
    About { name: "disk.raw".to_owned(), proof, modified: 0, disk_len: disk.len(), sector_size: disk.sector_size() }
}

fn read(disk: &dyn Disk, offset: u64, len: usize) -> Vec<u8> {
    imgfmt::disk::read_vec(disk, offset, len).unwrap()
}

/// One random change, made to a disk and to its model.
fn change(disk: &dyn WritableDisk, model: &mut [u8], random: &mut Random) -> Result<()> {
    let len = model.len() as u64;
    let most = [600, 9000, 300_000, 1_500_000][random.below(4) as usize];
    let offset = random.below(len);
    let mut part = (1 + random.below(most)).min(len - offset);
    let mut offset = offset;
    if random.below(2) == 0 {
        offset -= offset % 4096;
        part = (part.div_ceil(4096) * 4096).min(len - offset);
    }
    let range = offset as usize..(offset + part) as usize;
    match random.below(8) {
        0 => {
            disk.zero_at(offset, part)?;
            model[range].fill(0);
        }
        1 => {
            disk.discard(offset, part)?;
            let start = (offset.div_ceil(512) * 512) as usize;
            let end = if range.end == model.len() { range.end } else { range.end / 512 * 512 };
            if start < end {
                model[start..end].fill(0);
            }
        }
        kind => {
            let mut bytes = vec![0; part as usize];
            if kind != 2 {
                random.fill(&mut bytes);
            }
            disk.write_at(&bytes, offset)?;
            model[range].copy_from_slice(&bytes);
        }
    }
    Ok(())
}

#[test]
fn a_disk_with_an_overlay_is_a_disk() {
    let (mut model, base) = base(1);
    let storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about(&*base)).unwrap();
    let disk = overlay.disk(Arc::clone(&base)).unwrap();
    disk_suite(&*disk, &model, 1);
    let mut random = Random::new(2);
    for round in 0..60 {
        change(&*disk, &mut model, &mut random).unwrap();
        if round % 20 == 0 {
            disk.flush().unwrap();
        }
    }
    disk_suite(&*disk, &model, 3);
    assert!(matches!(disk.write_at(&[1; 2], LEN as u64 - 1), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.zero_at(u64::MAX, 2), Err(Error::OutOfRange { .. })));
    // What was written is there after a restart, and every part of the file is proved.
    drop((disk, overlay));
    let overlay = Overlay::open_on(Arc::new(VolatileStorage::new(storage.bytes())), &about(&*base)).unwrap();
    let disk = overlay.disk(base).unwrap();
    disk_suite(&*disk, &model, 4);
    assert!(overlay.summary().layers[0].data > 0);
}

#[test]
fn after_a_crash_it_is_as_of_the_last_flush() {
    let (start, base) = base(5);
    let about = about(&*base);
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut storage = VolatileStorage::default();
        drop(Overlay::create_on(Arc::new(storage.clone()), &about).unwrap());
        let mut flushed = start.clone();
        for _ in 0..3 {
            let overlay = Overlay::open_on(Arc::new(storage.clone()), &about).unwrap();
            let disk = overlay.disk(Arc::clone(&base)).unwrap();
            let mut model = flushed.clone();
            storage.pull_the_plug_after(random.below(60));
            // The state that a flush was about to make durable when the plug was pulled.
            let mut perhaps = None;
            loop {
                if change(&*disk, &mut model, &mut random).is_err() {
                    break;
                }
                if random.below(3) == 0 {
                    if disk.flush().is_err() {
                        perhaps = Some(model.clone());
                        break;
                    }
                    flushed = model.clone();
                }
            }
            drop((disk, overlay));
            storage = VolatileStorage::new(storage.after_the_plug(&mut random));
            let overlay = Overlay::open_on(Arc::new(storage.clone()), &about).unwrap();
            let now = read(&*overlay.disk(Arc::clone(&base)).unwrap(), 0, LEN);
            assert!(now == flushed || perhaps.is_some_and(|perhaps| now == perhaps), "seed {seed}");
            flushed = now;
        }
    }
}

#[test]
fn commits_that_come_by_themselves_are_whole_states() {
    const BLOCKS: u64 = 12_000;
    let base: Arc<dyn Disk> = Arc::new(MemoryDisk::new(vec![0; BLOCKS as usize * 4096]));
    let about = about(&*base);
    let mut random = Random::new(6);
    let storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about).unwrap();
    let disk = overlay.disk(Arc::clone(&base)).unwrap();
    let mut latest = vec![Vec::new(); BLOCKS as usize];
    // More than the 128 MiB after which a commit comes.
    for version in 1..40_000_u64 {
        let block = random.below(BLOCKS);
        let bytes: Vec<u8> = (0..512).flat_map(|_| version.to_le_bytes()).collect();
        disk.write_at(&bytes, block * 4096).unwrap();
        latest[block as usize].push(version);
    }
    storage.pull_the_plug_after(0);
    drop((disk, overlay));
    let storage = VolatileStorage::new(storage.after_the_plug(&mut random));
    let overlay = Overlay::open_on(Arc::new(storage), &about).unwrap();
    assert!(overlay.summary().sequence > 1, "a commit came");
    let disk = overlay.disk(base).unwrap();
    let seen: Vec<u64> = (0..BLOCKS)
        .map(|block| {
            let bytes = read(&*disk, block * 4096, 4096);
            assert!(bytes.chunks(8).all(|part| part == &bytes[..8]), "block {block} is a mix");
            u64::from_le_bytes(bytes[..8].try_into().unwrap())
        })
        .collect();
    let moment = *seen.iter().max().unwrap();
    for (block, versions) in latest.iter().enumerate() {
        let expected = versions.iter().rev().find(|version| **version <= moment).copied().unwrap_or(0);
        assert_eq!(seen[block], expected, "block {block} at moment {moment}");
    }
}

#[test]
fn slots_that_are_given_up_are_used_again() {
    const BLOCKS: u64 = 24_000;
    let base: Arc<dyn Disk> = Arc::new(MemoryDisk::new(vec![0; BLOCKS as usize * 4096]));
    let about = about(&*base);
    let mut storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about).unwrap();
    let disk = overlay.disk(Arc::clone(&base)).unwrap();
    disk.write_at(&vec![1; BLOCKS as usize * 4096], 0).unwrap();
    // 12,000 runs of one slot: more than stay in memory.
    for block in (0..BLOCKS).step_by(2) {
        disk.discard(block * 4096, 4096).unwrap();
    }
    disk.flush().unwrap();
    let before = overlay.summary();
    assert_eq!(before.layers[0].data, BLOCKS / 2 * 4096);
    // The list of what is free takes some of it.
    assert!(before.free > BLOCKS / 2 * 4096 * 99 / 100, "{before:?}");
    drop((disk, overlay));
    for round in 2..5_u8 {
        storage = VolatileStorage::new(storage.bytes());
        let overlay = Overlay::open_on(Arc::new(storage.clone()), &about).unwrap();
        assert_eq!(overlay.summary().layers[0].data, BLOCKS / 2 * 4096);
        let disk = overlay.disk(Arc::clone(&base)).unwrap();
        for block in (0..BLOCKS).step_by(2) {
            disk.write_at(&[round; 4096], block * 4096).unwrap();
        }
        disk.flush().unwrap();
        for block in 0..BLOCKS {
            let expected = if block % 2 == 0 { round } else { 1 };
            assert!(read(&*disk, block * 4096, 4096) == vec![expected; 4096], "block {block}");
        }
        let after = overlay.summary();
        assert!(after.file_len < before.file_len * 7 / 4, "{} became {}", before.file_len, after.file_len);
        disk.discard(0, BLOCKS * 4096).unwrap();
        assert_eq!(overlay.summary().layers[0].data, 0);
        disk.write_at(&vec![1; BLOCKS as usize * 4096], 0).unwrap();
        for block in (0..BLOCKS).step_by(2) {
            disk.zero_at(block * 4096, 4096).unwrap();
        }
        disk.flush().unwrap();
    }
}

/// Sectors 8 to 10 cannot be read, what follows them is Absent.
struct Holey(u64);

impl Disk for Holey {
    fn len(&self) -> u64 {
        self.0
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset < 10 * 512 && offset + buf.len() as u64 > 8 * 512 {
            return Err(Error::Bad { offset: 8 * 512, end: 10 * 512 });
        }
        buf.fill(if offset < 8 * 512 { 7 } else { 0 });
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (end, kind) = match offset / 512 {
            0..8 => (8 * 512, ExtentKind::Data),
            8..10 => (10 * 512, ExtentKind::Bad),
            _ => (self.0, ExtentKind::Absent),
        };
        Ok(Extent { offset, len: end - offset, kind })
    }
}

#[test]
fn what_the_base_cannot_read_stays_unreadable_beside_what_was_written() {
    let base: Arc<dyn Disk> = Arc::new(Holey(1 << 40));
    let overlay = Overlay::create_on(Arc::new(VolatileStorage::default()), &about(&*base)).unwrap();
    let disk = overlay.disk(base).unwrap();
    disk.write_at(&[1; 512], 9 * 512).unwrap();
    let kinds = |from: u64| {
        let extent = disk.extent_at(from * 512).unwrap();
        (extent.kind, extent.len / 512)
    };
    assert_eq!(kinds(0), (ExtentKind::Data, 8));
    assert_eq!(kinds(8), (ExtentKind::Bad, 1));
    assert_eq!(kinds(9), (ExtentKind::Data, 1));
    assert_eq!(kinds(10).0, ExtentKind::Absent);
    assert!(matches!(disk.read_at(&mut [0; 512], 8 * 512), Err(Error::Bad { .. })));
    assert_eq!(read(&*disk, 9 * 512, 512), [1; 512]);
    // A part of an unreadable sector cannot be written, since nobody knows the rest; all of it can.
    assert!(matches!(disk.write_at(&[2; 10], 8 * 512), Err(Error::Bad { .. })));
    disk.zero_at(8 * 512, 512).unwrap();
    assert_eq!(kinds(8), (ExtentKind::Zero, 1));
    // A huge disk costs what was written to it: a TiB of zeros is a few entries.
    disk.zero_at(1 << 30, (1 << 40) - (1 << 30)).unwrap();
    disk.write_at(&[3; 4096], (1 << 40) - 4096).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.extent_at(1 << 30).unwrap().kind, ExtentKind::Zero);
    assert!(overlay.summary().file_len < 4 << 20, "{:?}", overlay.summary());
}

#[test]
fn a_container_grows_and_shrinks_and_forgets_what_was_cut_off() {
    let (_, base) = base(8);
    let file: Vec<u8> = (0..10_000).map(|at| at as u8 | 1).collect();
    let container: Arc<dyn Disk> = Arc::new(MemoryDisk::new(file.clone()));
    let storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about(&*base)).unwrap();
    let view = overlay.container("vmdk", Arc::clone(&container)).unwrap();
    view.set_len(5001).unwrap();
    assert_eq!(read(&*view, 0, 5001), file[..5001]);
    view.set_len(20_000).unwrap();
    let mut model = file[..5001].to_vec();
    model.resize(20_000, 0);
    disk_suite(&*view, &model, 9);
    view.write_at(b"new", 19_000).unwrap();
    model[19_000..19_003].copy_from_slice(b"new");
    view.flush().unwrap();
    // The disk knows nothing of it.
    assert_eq!(read(&*overlay.disk(Arc::clone(&base)).unwrap(), 0, LEN), read(&*base, 0, LEN));
    drop((view, overlay));
    let overlay = Overlay::open_on(Arc::new(VolatileStorage::new(storage.bytes())), &about(&*base)).unwrap();
    disk_suite(&*overlay.container("vmdk", container).unwrap(), &model, 10);
    let other: Arc<dyn Disk> = Arc::new(MemoryDisk::new(vec![0; 10]));
    assert!(matches!(overlay.container("vmdk", other), Err(Error::Refused(_))), "another container");
    assert!(overlay.container("disk", base).is_err());
}

#[test]
fn a_full_disk_loses_nothing_that_was_flushed() {
    let (start, base) = base(11);
    let about = about(&*base);
    let make = |storage: &VolatileStorage| Overlay::create_on(Arc::new(storage.clone()), &about).unwrap();
    for room in [0, 4096, 5000, 100_000] {
        let storage = VolatileStorage::default();
        let overlay = make(&storage);
        let disk = overlay.disk(Arc::clone(&base)).unwrap();
        let mut model = start.clone();
        let mut random = Random::new(12);
        for _ in 0..3 {
            change(&*disk, &mut model, &mut random).unwrap();
        }
        disk.flush().unwrap();
        storage.limit(Some(room));
        let message = disk.write_at(&vec![9; 3 << 20], 0).unwrap_err();
        assert!(matches!(&message, Error::Io { action: "write to", .. }), "{message}");
        // It goes on when there is room again.
        storage.limit(None);
        disk.write_at(&model[..3 << 20], 0).unwrap();
        disk.flush().unwrap();
        let again = Overlay::open_on(Arc::new(VolatileStorage::new(storage.bytes())), &about).unwrap();
        assert!(read(&*again.disk(Arc::clone(&base)).unwrap(), 0, LEN) == model);
    }
    let storage = VolatileStorage::default();
    let overlay = make(&storage);
    let disk = overlay.disk(base).unwrap();
    // A sync that failed is the end: nobody knows what of the writes before it is lost.
    storage.fail_syncs(true);
    disk.write_at(&[1; 4096], 0).unwrap();
    assert!(disk.flush().is_err());
    storage.fail_syncs(false);
    for failed in [disk.flush(), disk.write_at(&[2; 4096], 0)] {
        assert!(failed.unwrap_err().to_string().contains("takes no writes any more"));
    }
}

#[test]
fn a_flush_after_one_that_failed_makes_everything_durable_or_fails() {
    let (start, base) = base(21);
    let about = about(&*base);
    let (mut again, mut refused) = (0, 0);
    for operations in 0.. {
        let storage = VolatileStorage::default();
        let overlay = Overlay::create_on(Arc::new(storage.clone()), &about).unwrap();
        let disk = overlay.disk(Arc::clone(&base)).unwrap();
        let mut model = start.clone();
        let mut random = Random::new(22);
        for _ in 0..6 {
            change(&*disk, &mut model, &mut random).unwrap();
        }
        storage.pull_the_plug_after(operations);
        let first = disk.flush();
        storage.pull_the_plug_after(u64::MAX);
        match (first, disk.flush()) {
            (Ok(()), _) => break,
            (Err(_), Err(_)) => refused += 1,
            (Err(_), Ok(())) => {
                again += 1;
                let left = VolatileStorage::new(storage.after_the_plug(&mut random));
                let after = Overlay::open_on(Arc::new(left), &about).unwrap();
                let after = after.disk(Arc::clone(&base)).unwrap();
                assert!(read(&*after, 0, LEN) == model, "the flush failed at operation {operations}");
            }
        }
    }
    assert!(again > 3 && refused == 2, "{again} {refused}");
}

#[test]
fn one_process_owns_an_overlay_and_only_over_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("week.overlay");
    let (_, disk) = base(13);
    let (_, other) = base(14);
    let about_it = about(&*disk);
    let overlay = Overlay::create(&path, &about_it).unwrap();
    overlay.disk(Arc::clone(&disk)).unwrap().write_at(b"kept", 3000).unwrap();
    let refused = Overlay::open(&path, &about_it).unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
    assert!(Overlay::open_read_only(&path, &about_it).is_err() && Overlay::remove(&path).is_err());
    assert!(Overlay::examine(&path).unwrap().1.is_some());
    assert!(matches!(Overlay::create(&path, &about_it), Err(Error::Io { .. })), "there is one with this name");
    drop(overlay);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left in the folder");
    let one = Overlay::open_read_only(&path, &about_it).unwrap();
    let two = Overlay::open_read_only(&path, &about_it).unwrap();
    let seen = two.disk(Arc::clone(&disk)).unwrap();
    assert_eq!(read(&*seen, 3000, 4), b"kept");
    assert!(seen.write_at(b"x", 0).unwrap_err().to_string().contains("reading only"));
    drop((one, two, seen));
    let wrong = About { name: "other.raw".to_owned(), ..about(&*other) };
    let refused = Overlay::open(&path, &wrong).unwrap_err();
    let message = refused.to_string();
    assert!(matches!(refused, Error::Refused(_)) && message.contains("disk.raw") && message.contains("other.raw"));
    assert_eq!(Overlay::examine(&path).unwrap().1, None);
    Overlay::remove(&path).unwrap();
    assert!(!path.exists());
    fs::write(&path, vec![0; 20_000]).unwrap();
    assert!(Overlay::remove(&path).is_err() && path.exists(), "a file that is no overlay is not removed");
}

#[test]
fn many_threads_write_and_read_one_overlay() {
    let (_, base) = base(15);
    let overlay = Overlay::create_on(Arc::new(VolatileStorage::default()), &about(&*base)).unwrap();
    let disk = overlay.disk(base).unwrap();
    // Threads write sectors that lie in the same blocks, and none is lost.
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 1..=20_u8 {
                    for block in 0..100_u64 {
                        let at = block * 4096 + u64::from(thread) * 512;
                        disk.write_at(&[thread * 20 + round; 512], at).unwrap();
                        let back = read(&**disk, at, 512);
                        assert_eq!(back, [thread * 20 + round; 512]);
                    }
                    if thread == 0 {
                        disk.flush().unwrap();
                    }
                }
            });
        }
    });
    for sector in 0..800_u64 {
        assert_eq!(read(&*disk, sector * 512, 512), [(sector % 8) as u8 * 20 + 20; 512], "sector {sector}");
    }
}

/// A base whose reads take as long as nobody lets them go on.
struct Slow {
    disk: Arc<dyn Disk>,
    gate: std::sync::RwLock<()>,
}

impl Disk for Slow {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _open = self.gate.read().unwrap();
        self.disk.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

#[test]
fn a_write_that_waits_for_the_base_keeps_no_other_write_waiting() {
    let (mut model, base) = base(18);
    let about = about(&*base);
    let slow = Arc::new(Slow { disk: base, gate: std::sync::RwLock::new(()) });
    let overlay = Overlay::create_on(Arc::new(VolatileStorage::default()), &about).unwrap();
    let disk = overlay.disk(Arc::<Slow>::clone(&slow)).unwrap();
    let shut = slow.gate.write().unwrap();
    let (started, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            started.send(()).unwrap();
            // Both ends lie within sectors that only the base has.
            disk.write_at(&[1; 2000], 2_000_100)
        });
        waits.recv().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!writer.is_finished());
        // Whole sectors need nothing of the base; the second one is what the waiting write cuts.
        disk.write_at(&[2; 1024], 1 << 20).unwrap();
        disk.write_at(&[3; 512], 2_000_100 / 512 * 512).unwrap();
        disk.flush().unwrap();
        drop(shut);
        writer.join().unwrap().unwrap();
    });
    model[1 << 20..(1 << 20) + 1024].fill(2);
    model[2_000_100 / 512 * 512..2_000_100].fill(3);
    model[2_000_100..2_002_100].fill(1);
    disk_suite(&*disk, &model, 19);
}

#[test]
fn blocks_that_follow_each_other_are_read_at_once() {
    let (_, base) = base(23);
    let storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about(&*base)).unwrap();
    let disk = overlay.disk(base).unwrap();
    let mut bytes = vec![0; 1 << 20];
    Random::new(24).fill(&mut bytes);
    disk.write_at(&bytes, 4096 * 3).unwrap();
    // One block in the middle lies elsewhere now.
    disk.write_at(&[5; 4096], 4096 * 100).unwrap();
    bytes[4096 * 97..4096 * 98].fill(5);
    let before = storage.reads();
    assert!(read(&*disk, 4096 * 3, 1 << 20) == bytes);
    // Blocks 3 to 99, 100, 101 to 255, and those of the next page of the map.
    assert_eq!(storage.reads() - before, 4);
}

#[test]
fn a_container_that_was_made_absurdly_long_becomes_short_again() {
    let (start, base) = base(25);
    let overlay = Overlay::create_on(Arc::new(VolatileStorage::default()), &about(&*base)).unwrap();
    let disk = overlay.container("vmdk", base).unwrap();
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        disk.set_len(i64::MAX as u64).unwrap();
        disk.write_at(&[1; 700], 1 << 60).unwrap();
        disk.set_len(1 << 20).unwrap();
        disk.set_len(i64::MAX as u64).unwrap();
        assert!(read(&*disk, 0, 1 << 20) == start[..1 << 20]);
        for at in [1 << 20, 2 << 20, 1 << 60, i64::MAX as u64 - 1000] {
            assert_eq!(read(&*disk, at, 1000), [0; 1000]);
        }
        done.send(()).unwrap();
    });
    waits.recv_timeout(std::time::Duration::from_secs(30)).expect("it takes no time");
}

#[test]
fn damage_is_an_error_and_never_data() {
    let (mut model, base) = base(16);
    let start = model.clone();
    let about = about(&*base);
    let storage = VolatileStorage::default();
    let overlay = Overlay::create_on(Arc::new(storage.clone()), &about).unwrap();
    let disk = overlay.disk(Arc::clone(&base)).unwrap();
    let mut random = Random::new(17);
    for _ in 0..30 {
        change(&*disk, &mut model, &mut random).unwrap();
    }
    drop((disk, overlay));
    let good = storage.bytes();
    let mut refused = 0;
    for round in 0..400 {
        let mut bytes = good.clone();
        // The structures at the front more often than data.
        let at = random.below(if round % 2 == 0 { 3 * 4096 } else { bytes.len() as u64 }) as usize;
        bytes[at] ^= 1 << random.below(8);
        if round % 7 == 0 {
            bytes.truncate(random.below(good.len() as u64) as usize);
        }
        let Ok(overlay) = Overlay::open_on(Arc::new(VolatileStorage::new(bytes)), &about) else {
            refused += 1;
            continue;
        };
        let disk = overlay.disk(Arc::clone(&base)).unwrap();
        // Without its last commit it is as of the one before, as after a crash: here, of the start.
        let model = if overlay.summary().sequence == 1 { &start } else { &model };
        for block in 0..LEN.div_ceil(4096) {
            let range = block * 4096..(block * 4096 + 4096).min(LEN);
            let mut buf = vec![0; range.len()];
            match disk.read_at(&mut buf, range.start as u64) {
                Ok(()) => assert!(buf == model[range], "byte {at:#x} changed, and block {block} is wrong"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn containers_that_were_only_looked_at_leave_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changes");
    let (_, base) = base(1);
    for round in 0..3_u8 {
        let overlay = Overlay::open_or_create(&path, &about(&base)).unwrap();
        let disk = overlay.disk(Arc::clone(&base)).unwrap();
        for number in 0..13 {
            overlay.container(&format!("t{round}n{number}"), Arc::clone(&base)).unwrap();
        }
        let written = overlay.container("written", Arc::clone(&base)).unwrap();
        let longer = overlay.container("longer", Arc::clone(&base)).unwrap();
        if round == 0 {
            written.write_at(&[7; 512], 0).unwrap();
            longer.set_len(LEN as u64 + 1).unwrap();
        }
        assert_eq!((read(&*written, 0, 512), longer.len()), (vec![7; 512], LEN as u64 + 1));
        disk.write_at(&[round; 512], 0).unwrap();
        disk.flush().unwrap();
        drop((disk, written, longer, overlay));
        let layers = Overlay::examine(&path).unwrap().0.layers;
        let keys: Vec<_> = layers.iter().map(|layer| layer.key.as_str()).collect();
        assert_eq!(keys, ["disk", "written", "longer"]);
    }
}

#[test]
#[cfg(unix)]
fn an_overlay_that_is_removed_by_a_link_to_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let [path, link, copy] = ["changes", "link", "copy"].map(|name| folder.path().join(name));
    let (_, base) = base(1);
    drop(Overlay::create(&path, &about(&base)).unwrap());
    fs::copy(&path, &copy).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    Overlay::remove(&link).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [copy]);
}

#[test]
fn a_file_that_is_too_short_is_no_overlay_and_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changes");
    let (_, base) = base(1);
    drop(Overlay::create(&path, &about(&base)).unwrap());
    let whole = fs::read(&path).unwrap();
    for len in [0, 1, 4095, 4096, 8192, 4 * 4096 - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let results =
            [Overlay::open(&path, &about(&base)).err(), Overlay::examine(&path).err(), Overlay::remove(&path).err()];
        for error in results {
            let error = error.unwrap();
            assert!(matches!(&error, Error::Corrupt { .. }) && error.to_string().contains("too short"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), whole[..len]);
    }
}
