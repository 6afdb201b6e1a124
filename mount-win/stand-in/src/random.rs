//! Random sequences of calls, each answer compared with what a model says.
//!
//! The model knows the paths, kinds and bytes of a tree that nobody can write to, and the documented answers ([MS-FSA] 2.1.5.1 for opening, .3 for reading, .6 to .8 for
//! listing, flushing and locks); it shares no code with what it judges.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::calls::{
    CHANGES, Calls, DIRECTORY_FILE, LOOK, NON_DIRECTORY_FILE, OPEN, Open, READ, REPARSE_POINT, join, status, units,
};
use crate::library;
use crate::walk::Seen;

/// Longest file whose bytes the model keeps.
const KEPT: u64 = 4 << 20;

/// What the model knows of a path.
struct Fact {
    is_folder: bool,
    len: u64,
    attributes: u32,
    /// Its bytes, where it is a file and small.
    bytes: Option<Vec<u8>>,
    /// Names in it, where it is a folder.
    names: Vec<Vec<u16>>,
}

/// The model.
pub struct Model {
    facts: HashMap<Vec<u16>, Fact>,
    paths: Vec<Vec<u16>>,
}

/// Random numbers: xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

impl Model {
    /// Learns a tree, or the part of one below a folder, from a walk over it; bytes are read once more.
    pub fn learn(calls: &impl Calls, seen: &[Seen]) -> Self {
        let root = units("\\");
        let folder = |attributes| Fact { is_folder: true, len: 0, attributes, bytes: None, names: Vec::new() };
        let mut facts = HashMap::new();
        for one in seen {
            let mut fact = folder(one.entry.attributes);
            if !one.is_folder() {
                fact.is_folder = false;
                fact.len = one.entry.len;
                if fact.len <= KEPT {
                    let read = calls.with(&one.path, READ, 0, |open| calls.read_all(open, 100_000));
                    fact.bytes = Some(read.unwrap());
                }
            }
            facts.insert(one.path.clone(), fact);
        }
        for one in seen {
            let slash = one.path.iter().rposition(|unit| *unit == 0x5c).unwrap();
            let parent = if slash == 0 { &root[..] } else { &one.path[..slash] };
            if let Some(parent) = facts.get_mut(parent) {
                parent.names.push(one.entry.name.clone());
            }
        }
        let paths = facts.keys().cloned().collect();
        Self { facts, paths }
    }

    /// Makes `sequences` random sequences of calls on each of `threads` threads. Panics where an answer is not the model's.
    pub fn run(&self, calls: &impl Calls, threads: u64, sequences: u64) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    for sequence in 0..sequences {
                        let seed = thread * 1_000_003 + sequence + 1;
                        self.sequence(calls, &mut Random::new(seed));
                    }
                });
            }
        });
    }

    /// Opens something in some way, uses it, closes it, and uses it once more.
    fn sequence(&self, calls: &impl Calls, random: &mut Random) {
        let known = &self.paths[random.below(self.paths.len() as u64) as usize];
        let fact = &self.facts[known];
        // What is missing: a name in a folder, a name below that, a name below a file.
        let (mut path, exists, parent_exists) = match random.below(10) {
            0 => (join(known, &units("nix")), false, fact.is_folder),
            1 => (join(&join(known, &units("nix")), &units("nix")), false, false),
            _ => (known.clone(), true, true),
        };
        if random.below(3) == 0 {
            for unit in &mut path {
                let upper = (0x61..=0x7a).contains(unit);
                let lower = (0x41..=0x5a).contains(unit);
                if (upper || lower) && random.below(2) == 0 {
                    *unit ^= 0x20;
                }
            }
        }
        let ends_like_folder = path.len() > 1 && random.below(8) == 0;
        if ends_like_folder {
            path.push(0x5c);
        }
        let disposition = if random.below(2) == 0 { OPEN } else { random.below(7) as u32 };
        let access =
            random.one_of(&[READ, READ, READ, LOOK, LOOK, 0x0200_0000, READ | 2, READ | 4, 0x100, 0x40, 0x1_0000]);
        let options = random.one_of(&[0, 0, 0, DIRECTORY_FILE, NON_DIRECTORY_FILE, 0x1000, 0x4020, 0x41]);
        let wanted = match (exists, parent_exists) {
            _ if disposition > 5 || options == 0x41 => Err(status::INVALID_PARAMETER),
            _ if options == DIRECTORY_FILE && matches!(disposition, 0 | 4 | 5) => Err(status::INVALID_PARAMETER),
            _ if options == 0x1000 && access & (0x1_0000 | 0x0200_0000) == 0 => Err(status::INVALID_PARAMETER),
            _ if ends_like_folder && options == NON_DIRECTORY_FILE => Err(status::OBJECT_NAME_INVALID),
            // Whatever is there: the volume is read only.
            _ if matches!(disposition, 0 | 2 | 4 | 5) => Err(status::MEDIA_WRITE_PROTECTED),
            (false, false) => Err(status::OBJECT_PATH_NOT_FOUND),
            (false, true) if disposition == OPEN => Err(status::OBJECT_NAME_NOT_FOUND),
            (false, true) => Err(status::MEDIA_WRITE_PROTECTED),
            _ if fact.is_folder && options == NON_DIRECTORY_FILE => Err(status::FILE_IS_A_DIRECTORY),
            _ if !fact.is_folder && (ends_like_folder || options == DIRECTORY_FILE) => Err(status::NOT_A_DIRECTORY),
            _ if options == 0x1000 => Err(status::CANNOT_DELETE),
            _ if access & (2 | 4 | 0x40 | 0x100 | 0x1_0000) != 0 && access != READ => {
                // READ itself has none of these bits.
                Err(status::MEDIA_WRITE_PROTECTED)
            }
            _ => Ok((fact.is_folder, disposition == 3)),
        };
        let opened = calls.create(&path, access, disposition, options);
        let what = || format!("{} {access:#x} {disposition} {options:#x}", String::from_utf16_lossy(&path));
        assert_eq!(opened.map(|open| (open.is_folder, open.existed)), wanted, "{}", what());
        let Ok(open) = opened else { return };
        for _ in 0..random.below(6) {
            self.use_it(calls, random, &open, (known, fact), &what());
        }
        calls.cleanup(&open);
        // The cache may still read.
        if !fact.is_folder && fact.len > 0 {
            assert_eq!(calls.read(&open, 1, 0).map(|bytes| bytes.len()), Ok(1), "{}", what());
        }
        calls.close(&open);
        assert_eq!(calls.read(&open, 1, 0), Err(status::INVALID_HANDLE), "{}", what());
        assert_eq!(calls.information(&open), Err(status::INVALID_HANDLE), "{}", what());
        if random.below(4) == 0 {
            calls.close(&open);
            calls.cleanup(&open);
        }
    }

    fn use_it(&self, calls: &impl Calls, random: &mut Random, open: &Open, (path, fact): (&[u16], &Fact), what: &str) {
        match random.below(9) {
            0..=3 => {
                let offset = match random.below(12) {
                    0 => -1 - random.below(1 << 20) as i64,
                    1 => i64::MAX - random.below(3) as i64,
                    2 => (fact.len + random.below(3)) as i64,
                    _ => random.below(fact.len + 1) as i64,
                };
                let len = random.one_of(&[1, 7, 512, 4096, 65_536, 300_000]);
                let read = calls.read(open, len, offset);
                let wanted = match u64::try_from(offset) {
                    _ if fact.is_folder => Err(status::INVALID_DEVICE_REQUEST),
                    Err(_) => Err(status::INVALID_PARAMETER),
                    Ok(offset) if offset > i64::MAX as u64 - len as u64 => Err(status::INVALID_PARAMETER),
                    Ok(offset) if offset >= fact.len => Err(status::END_OF_FILE),
                    Ok(offset) => Ok((fact.len - offset).min(len as u64) as usize),
                };
                assert_eq!(read.as_ref().map(Vec::len), wanted.as_ref().copied(), "{what}: {len} at {offset}");
                if let (Ok(read), Some(bytes)) = (&read, &fact.bytes) {
                    let start = offset as usize;
                    assert!(*read == bytes[start..start + read.len()], "{what}: {len} at {offset}");
                }
            }
            4 => {
                let known = calls.information(open).unwrap();
                assert_eq!((known.attributes, known.len), (fact.attributes, fact.len), "{what}");
            }
            5 => {
                let listed = calls.list(open, None);
                if !fact.is_folder {
                    assert_eq!(listed, Err(status::INVALID_PARAMETER), "{what}");
                } else if fact.attributes & REPARSE_POINT == 0 {
                    let mut names: Vec<_> = listed.unwrap().into_iter().map(|entry| entry.name).collect();
                    let mut wanted = fact.names.clone();
                    names.sort();
                    wanted.sort();
                    assert_eq!(names, wanted, "{what}");
                }
            }
            6 => {
                let streams = calls.streams(open).unwrap();
                assert_eq!(streams.iter().any(|(name, _)| *name == units("::$DATA")), !fact.is_folder, "{what}");
            }
            7 => {
                const PROTECTED: u32 = status::MEDIA_WRITE_PROTECTED;
                let change = CHANGES[random.below(CHANGES.len() as u64) as usize];
                assert_eq!(calls.change(open, change), Err(PROTECTED), "{what}: {change:?}");
                let stays = fact.attributes & library::READ_ONLY != 0;
                let deleted = Err(if stays { status::CANNOT_DELETE } else { PROTECTED });
                assert_eq!(library::delete(calls, open), deleted, "{what}: delete");
                // Something else is renamed to a name in here.
                let to = library::open_target(calls, &join(path, &units("new name")), 0x0010_0002);
                assert_eq!(to, Err(if fact.is_folder { PROTECTED } else { status::NOT_A_DIRECTORY }), "{what}: rename");
            }
            _ => {
                assert_eq!(calls.flush(open), Err(status::MEDIA_WRITE_PROTECTED), "{what}");
                let locked = if fact.is_folder { Err(status::INVALID_PARAMETER) } else { Ok(()) };
                assert_eq!(calls.lock(open, 0, 10, random.below(2) == 0), locked, "{what}");
                assert!(calls.security(open, random.below(16) as u32).unwrap().len() >= 20, "{what}");
            }
        }
    }
}

/// Programs that give up: Dokan answers them itself and closes the file, while the call that they made still runs.
pub fn give_up(calls: &impl Calls, seen: &[Seen], times: u64) {
    let files: Vec<_> = seen.iter().filter(|seen| !seen.is_folder() && seen.entry.len > 0).collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..times {
        let file = files[random.below(files.len() as u64) as usize];
        let open = calls.create(&file.path, READ, OPEN, 0).unwrap();
        let is_closed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let closed_before = is_closed.load(Ordering::Acquire);
                        match calls.read(&open, 100_000, 0) {
                            Ok(bytes) => assert!(!closed_before && !bytes.is_empty()),
                            Err(status) => {
                                assert_eq!(status, status::INVALID_HANDLE);
                                break;
                            }
                        }
                    }
                });
            }
            calls.cleanup(&open);
            calls.close(&open);
            is_closed.store(true, Ordering::Release);
        });
    }
}
