//! VHDX files with entries in their log, made by hand.
//!
//! What is read must be what QEMU reads from a file into which the test itself put the changes, and what QEMU leaves when it has replayed the log. The
//! latter is left out where QEMU 10 goes wrong: it reads no more than one sector of descriptors, and of a sequence that runs round the end of the log
//! it takes only the part from the start on.

use std::path::{Path, PathBuf};

use imgfmt::Error;
use imgfmt::format::{OpenOptions, open};

use crate::conformance::{Random, disk_suite};
use crate::image_files::{Workshop, all_of, opened};
use crate::qemu::{qemu_reads, random_writes};
use crate::tools::shell;
use crate::vhdx::{le64, regions, seal};

const MIB: u64 = 1 << 20;
const GUID: [u8; 16] = *b"a log of our own";

/// A change that an entry makes.
#[derive(Clone)]
enum Change {
    /// These 4096 bytes at this place.
    Sector(u64, Vec<u8>),
    /// So many zeros at this place.
    Zero(u64, u64),
}

/// An entry, before it has a place in the log.
struct Entry {
    sequence: u64,
    changes: Vec<Change>,
    guid: [u8; 16],
    flushed: u64,
    last: u64,
}

/// A file whose log is filled.
struct Maker {
    bytes: Vec<u8>,
    log: usize,
    len: usize,
    /// Where the next entry goes.
    at: usize,
    /// Where the oldest entry that is still needed lies.
    tail: usize,
    /// The file as a replay must leave it, with an empty log.
    replayed: Vec<u8>,
}

impl Maker {
    /// Takes a clean file; entries will begin `at` bytes into the log.
    fn new(path: &Path, at: usize) -> Self {
        let mut bytes = std::fs::read(path).unwrap();
        let newest = [64 << 10, 128 << 10].into_iter().max_by_key(|at| le64(&bytes, at + 8)).unwrap();
        let header = bytes[newest..newest + 4096].to_vec();
        let len = u32::from_le_bytes(header[68..72].try_into().unwrap()) as usize;
        let log = le64(&header, 72) as usize;
        let replayed = bytes.clone();
        bytes[newest + 48..newest + 64].copy_from_slice(&GUID);
        seal(&mut bytes[newest..newest + 4096]);
        bytes[log..log + len].fill(0);
        Self { bytes, log, len, at, tail: at, replayed }
    }

    fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn entry(&self, sequence: u64, changes: Vec<Change>) -> Entry {
        Entry { sequence, changes, guid: GUID, flushed: self.file_len(), last: self.file_len() }
    }

    /// Writes an entry that is to be replayed.
    fn put(&mut self, entry: &Entry) {
        self.put_only(entry);
        let len = self.replayed.len().max(entry.last as usize);
        self.replayed.resize(len, 0);
        for change in &entry.changes {
            match change {
                Change::Sector(at, bytes) => self.replayed[*at as usize..][..4096].copy_from_slice(bytes),
                Change::Zero(at, len) => self.replayed[*at as usize..][..*len as usize].fill(0),
            }
        }
    }

    /// Writes an entry behind the last one, round the end of the log where it must. Returns its place and length.
    fn put_only(&mut self, entry: &Entry) -> (usize, usize) {
        let head_len = (64 + 32 * entry.changes.len()).next_multiple_of(4096);
        let sectors = entry.changes.iter().filter(|change| matches!(change, Change::Sector(..))).count();
        let mut out = vec![0; head_len + 4096 * sectors];
        let len = out.len();
        out[..4].copy_from_slice(b"loge");
        out[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        out[12..16].copy_from_slice(&(self.tail as u32).to_le_bytes());
        out[16..24].copy_from_slice(&entry.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&(entry.changes.len() as u32).to_le_bytes());
        out[32..48].copy_from_slice(&entry.guid);
        out[48..56].copy_from_slice(&entry.flushed.to_le_bytes());
        out[56..64].copy_from_slice(&entry.last.to_le_bytes());
        let mut data = head_len;
        for (number, change) in entry.changes.iter().enumerate() {
            let at = 64 + 32 * number;
            out[at + 24..at + 32].copy_from_slice(&entry.sequence.to_le_bytes());
            match change {
                Change::Sector(place, bytes) => {
                    out[at..at + 4].copy_from_slice(b"desc");
                    out[at + 4..at + 8].copy_from_slice(&bytes[4092..]);
                    out[at + 8..at + 16].copy_from_slice(&bytes[..8]);
                    out[at + 16..at + 24].copy_from_slice(&place.to_le_bytes());
                    out[data..data + 4].copy_from_slice(b"data");
                    out[data + 4..data + 8].copy_from_slice(&((entry.sequence >> 32) as u32).to_le_bytes());
                    out[data + 8..data + 4092].copy_from_slice(&bytes[8..4092]);
                    out[data + 4092..data + 4096].copy_from_slice(&(entry.sequence as u32).to_le_bytes());
                    data += 4096;
                }
                Change::Zero(place, len) => {
                    out[at..at + 4].copy_from_slice(b"zero");
                    out[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
                    out[at + 16..at + 24].copy_from_slice(&place.to_le_bytes());
                }
            }
        }
        seal(&mut out);
        let at = self.at;
        for (number, sector) in out.chunks(4096).enumerate() {
            let place = self.log + (at + number * 4096) % self.len;
            self.bytes[place..place + 4096].copy_from_slice(sector);
        }
        self.at = (at + len) % self.len;
        (at, len)
    }

    fn save(&self, path: &Path) {
        std::fs::write(path, &self.bytes).unwrap();
    }
}

/// A clean file of 5 blocks, some of them allocated; and where its first block lies.
fn clean(shop: &Workshop, options: &str) -> (PathBuf, u64) {
    shop.qemu_img(&format!("create -f vhdx -o block_size=1M{options} d.vhdx 5M"));
    random_writes(shop.folder.path(), "d.vhdx", 4 * MIB, 8, 5, &["write"]);
    shell(shop.folder.path(), "qemu-io -t unsafe d.vhdx -c 'write -P 1 0 8k' > /dev/null");
    let path = shop.path("d.vhdx");
    let bytes = std::fs::read(&path).unwrap();
    let (bat, _) = regions(&bytes);
    (path, le64(&bytes, bat) & !0xf_ffff)
}

/// Holds a dirty file against the same file with its changes in place, as QEMU reads that. Our file must not be touched.
fn same_as_replayed(maker: &Maker, path: &Path) -> Vec<u8> {
    maker.save(path);
    let image = opened(path);
    assert!(image.about().notes.iter().any(|note| note.contains("replayed in memory")), "{:?}", image.about());
    let clean = path.with_extension("clean.vhdx");
    std::fs::write(&clean, &maker.replayed).unwrap();
    let model = qemu_reads(&clean, "");
    disk_suite(&image, &model, 5);
    assert!(std::fs::read(path).unwrap() == maker.bytes);
    model
}

/// The same, and against what QEMU itself makes of the log.
fn same_as_qemu_replays(maker: &Maker, path: &Path) -> Vec<u8> {
    let model = same_as_replayed(maker, path);
    let copy = path.with_extension("copy.vhdx");
    std::fs::copy(path, &copy).unwrap();
    shell(path.parent().unwrap(), &format!("qemu-img check -T unsafe -r all {} > check.log 2>&1", copy.display()));
    assert!(std::fs::read(&copy).unwrap() != maker.bytes, "QEMU replayed something");
    assert!(qemu_reads(&copy, "") == model);
    model
}

fn noise(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    random.fill(&mut bytes);
    bytes
}

#[test]
fn sectors_and_zeros_are_replayed_over_each_other() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let clean_bytes = all_of(&opened(&path));
    let mut random = Random::new(1);
    let mut maker = Maker::new(&path, 0);
    let mut model = clean_bytes.clone();
    let mut set = |at: u64, bytes: &[u8]| model[(at - block) as usize..][..bytes.len()].copy_from_slice(bytes);
    let (a, b, c) = (noise(&mut random), noise(&mut random), noise(&mut random));
    let first = maker.entry(7, vec![Change::Sector(block + 4096, a.clone()), Change::Zero(block + 8192, 40_960)]);
    maker.put(&first);
    set(block + 4096, &a);
    set(block + 8192, &[0; 40_960]);
    let second = maker.entry(
        8,
        vec![
            Change::Sector(block + 16384, b.clone()),
            Change::Zero(block + 4096, 4096),
            Change::Sector(block + 20480, c.clone()),
        ],
    );
    maker.put(&second);
    set(block + 16384, &b);
    set(block + 4096, &[0; 4096]);
    set(block + 20480, &c);
    assert!(same_as_qemu_replays(&maker, &path) == model);
}

#[test]
fn a_block_that_only_the_log_allocates_is_read() {
    let shop = Workshop::new(512, 1);
    let (path, _) = clean(&shop, "");
    let mut maker = Maker::new(&path, 0);
    let (bat, _) = regions(&maker.bytes);
    let free = (0..5).find(|n| le64(&maker.bytes, bat + n * 8) & 7 != 6).expect("a block is free");
    let end = maker.file_len().next_multiple_of(MIB);
    let mut table = maker.bytes[bat..bat + 4096].to_vec();
    table[free * 8..free * 8 + 8].copy_from_slice(&(end | 6).to_le_bytes());
    let data = noise(&mut Random::new(3));
    // The last sector too, since QEMU does not lengthen the file by `last_file_offset` alone.
    let last = Change::Sector(end + MIB - 4096, data.clone());
    let mut entry =
        maker.entry(1, vec![Change::Sector(bat as u64, table), Change::Sector(end + 8192, data.clone()), last]);
    entry.last = end + MIB;
    maker.put(&entry);
    let model = same_as_qemu_replays(&maker, &path);
    assert!(model[free << 20..][8192..12288] == data);
}

#[test]
fn an_entry_with_hundreds_of_descriptors_is_replayed() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut random = Random::new(4);
    let mut maker = Maker::new(&path, 0);
    let changes = (0..150).map(|n| Change::Sector(block + n * 4096, noise(&mut random)));
    let zeros = (0..150).map(|n| Change::Zero(block + (n % 200) * 8192 % MIB, 4096));
    let entry = maker.entry(1 << 40, changes.chain(zeros).collect());
    maker.put(&entry);
    same_as_replayed(&maker, &path);
}

#[test]
fn a_log_that_runs_round_its_end_is_replayed() {
    for options in ["", ",log_size=2M"] {
        let shop = Workshop::new(512, 1);
        let (path, block) = clean(&shop, options);
        let mut random = Random::new(5);
        let log_len = Maker::new(&path, 0).len;
        // The first sectors of the first entry, or only some of its data, are before the end.
        for start in [log_len - 4096, log_len - 3 * 4096, log_len - 40 * 4096] {
            let mut maker = Maker::new(&path, start);
            for sequence in 100..108 {
                let changes = (0..4).map(|_| Change::Sector(block + random.below(256) * 4096, noise(&mut random)));
                let entry = maker.entry(sequence, changes.collect());
                maker.put(&entry);
            }
            same_as_replayed(&maker, &shop.path("wrapped.vhdx"));
            // Where only the last entry runs round the end, QEMU finds the whole sequence.
            let mut maker = Maker::new(&path, start);
            let changes = (0..60).map(|_| Change::Sector(block + random.below(256) * 4096, noise(&mut random)));
            let entry = maker.entry(1, changes.collect());
            maker.put(&entry);
            same_as_qemu_replays(&maker, &shop.path("wrapped.vhdx"));
        }
    }
}

#[test]
fn of_two_sequences_the_newer_counts() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut random = Random::new(6);
    for (old, new) in [(10, 500), (500, 10)] {
        let mut maker = Maker::new(&path, 8192);
        for (start, first) in [(8192, old), (512 << 10, new)] {
            (maker.at, maker.tail) = (start, start);
            for sequence in first..first + 3 {
                let change = Change::Sector(block + random.below(256) * 4096, noise(&mut random));
                let entry = maker.entry(sequence, vec![change]);
                if first == 500 {
                    maker.put(&entry)
                } else {
                    let _ = maker.put_only(&entry);
                }
            }
        }
        let two = shop.path("two.vhdx");
        same_as_qemu_replays(&maker, &two);
    }
}

#[test]
fn entries_of_an_earlier_log_are_not_replayed() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut random = Random::new(7);
    let mut maker = Maker::new(&path, 0);
    let entry = maker.entry(5, vec![Change::Sector(block, noise(&mut random))]);
    maker.put(&entry);
    // The next in order and higher, but written for another log.
    let mut stale = maker.entry(6, vec![Change::Sector(block, noise(&mut random))]);
    stale.guid[0] ^= 1;
    maker.put_only(&stale);
    same_as_qemu_replays(&maker, &path);
}

#[test]
fn a_torn_last_entry_is_left_out() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut random = Random::new(8);
    // In its checksum, in a data sector's number, in a data sector, missing altogether behind its first sector.
    for damage in 0..4 {
        let mut maker = Maker::new(&path, 4096);
        for sequence in 1..4 {
            let entry = maker.entry(sequence, vec![Change::Sector(block + sequence * 4096, noise(&mut random))]);
            maker.put(&entry);
        }
        let last = maker.entry(
            4,
            vec![Change::Sector(block + 4096, noise(&mut random)), Change::Sector(block + 8192, noise(&mut random))],
        );
        let (at, len) = maker.put_only(&last);
        let at = maker.log + at;
        match damage {
            0 => maker.bytes[at + 5] ^= 1,
            1 => maker.bytes[at + 4096 + 4092] ^= 1,
            2 => maker.bytes[at + 8192 + 100] ^= 1,
            _ => maker.bytes[at + 4096..at + len].fill(0),
        }
        let torn = shop.path("torn.vhdx");
        same_as_qemu_replays(&maker, &torn);
    }
}

#[test]
fn a_tail_inside_the_sequence_starts_the_replay_there() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut random = Random::new(9);
    let mut maker = Maker::new(&path, 0);
    for sequence in 1..6 {
        // Everything before the third entry is in the file already.
        let change = Change::Sector(block + sequence * 4096, noise(&mut random));
        if sequence < 3
            && let Change::Sector(place, bytes) = &change
        {
            maker.bytes[*place as usize..][..4096].copy_from_slice(bytes);
        }
        if sequence == 3 {
            maker.tail = maker.at;
        }
        let entry = maker.entry(sequence, vec![change]);
        maker.put(&entry);
    }
    same_as_qemu_replays(&maker, &path);
}

#[test]
fn a_parent_with_entries_in_its_log_is_read_as_they_make_it() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut maker = Maker::new(&path, 0);
    let entry = maker.entry(1, vec![Change::Sector(block, noise(&mut Random::new(10)))]);
    maker.put(&entry);
    let model = same_as_qemu_replays(&maker, &path);
    shop.qemu_img("create -f qcow2 -u -b d.vhdx -F vhdx top.qcow2 5M");
    assert!(all_of(&opened(&shop.path("top.qcow2"))) == model);
}

#[test]
fn a_log_without_a_whole_entry_and_a_file_that_was_cut_are_errors() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let mut maker = Maker::new(&path, 0);
    let refusal = |maker: &Maker| {
        let bad = shop.path("bad.vhdx");
        maker.save(&bad);
        match open(&bad, &OpenOptions::default()) {
            Err(error @ Error::Corrupt { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal(&maker).contains("none is whole"));
    let mut entry = maker.entry(1, vec![Change::Zero(block, 4096)]);
    entry.flushed += MIB;
    maker.put_only(&entry);
    assert!(refusal(&maker).contains("shorter than it was"));
    // Places that are no places.
    for change in [
        Change::Zero(block, 0),
        Change::Zero(block + 1, 4096),
        Change::Zero(block, 100),
        Change::Zero(u64::MAX - 4095, 8192),
    ] {
        let mut maker = Maker::new(&path, 0);
        let entry = maker.entry(1, vec![change]);
        maker.put_only(&entry);
        assert!(refusal(&maker).contains("none is whole"));
    }
}

#[test]
fn a_log_of_overlapping_entries_ends_the_search_in_time() {
    let shop = Workshop::new(512, 1);
    let (path, _) = clean(&shop, "");
    let mut maker = Maker::new(&path, 0);
    // Every sector begins an entry as long as the log, all of it descriptors.
    for at in (0..maker.len).step_by(4096) {
        let place = maker.log + at;
        let len = maker.len as u32;
        maker.bytes[place..place + 4].copy_from_slice(b"loge");
        maker.bytes[place + 8..place + 12].copy_from_slice(&len.to_le_bytes());
        maker.bytes[place + 16] = 1;
        maker.bytes[place + 24..place + 28].copy_from_slice(&(len / 32 - 2).to_le_bytes());
        maker.bytes[place + 32..place + 48].copy_from_slice(&GUID);
    }
    let bad = shop.path("bad.vhdx");
    maker.save(&bad);
    let started = std::time::Instant::now();
    assert!(matches!(open(&bad, &OpenOptions::default()), Err(Error::Corrupt { .. })));
    assert!(started.elapsed().as_secs() < 2);
}

#[test]
fn logs_at_random_are_replayed_as_qemu_does() {
    let shop = Workshop::new(512, 1);
    let (path, block) = clean(&shop, "");
    let rounds = if std::env::var_os("HIKAE_LONG").is_some() { 200 } else { 12 };
    for seed in 0..rounds {
        let mut random = Random::new(seed + 100);
        let mut maker = Maker::new(&path, random.below(256) as usize * 4096);
        let first = random.below(1 << 50) + 1;
        for sequence in first..=first + random.below(12) {
            let changes = (0..=random.below(8)).map(|_| {
                let place = block + random.below(200) * 4096;
                if random.below(3) == 0 {
                    Change::Zero(place, (random.below(20) + 1) * 4096)
                } else {
                    Change::Sector(place, noise(&mut random))
                }
            });
            let changes: Vec<_> = changes.collect();
            let entry = maker.entry(sequence, changes);
            maker.put(&entry);
        }
        let dirty = shop.path("random.vhdx");
        if maker.at < maker.tail {
            same_as_replayed(&maker, &dirty);
        } else {
            same_as_qemu_replays(&maker, &dirty);
        }
    }
}
