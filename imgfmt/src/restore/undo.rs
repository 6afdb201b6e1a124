//! The undo file: what the target was before, and how far a restore came. Laid out in `docs/restore.md` section 4.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::partition::Structure;
use crate::platform;

/// Most bytes of the target in one entry.
const SAVED_PIECE: u64 = 64 << 10;
/// Most bytes of an undo file that is read: saved tables are a few MiB at the worst, in two digits a byte.
const MAX_FILE: u64 = 256 << 20;
/// Ranges listed in a `wrong` entry.
const MAX_WRONG: usize = 1000;

/// What a session is about: the first entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// 1.
    pub version: u32,
    /// A UUID.
    pub session: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// Name and version of the program.
    #[serde(default)]
    pub tool: String,
    /// What is done, in words: "whole disk", "partition 2".
    pub work: String,
    /// Where to.
    pub target: TargetRecord,
    /// Where from; `None` where nothing is read.
    #[serde(default)]
    pub source: Option<SourceRecord>,
    /// How.
    #[serde(default)]
    pub options: OptionsRecord,
}

/// The target as it was before anything was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Its path.
    pub path: String,
    /// Its serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// Its model.
    #[serde(default)]
    pub model: Option<String>,
    /// Bytes of the whole disk.
    pub disk_len: u64,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Digest of its tables.
    pub table_digest: String,
    /// First byte of the scope on the disk.
    #[serde(default)]
    pub start: u64,
    /// Bytes of the scope.
    pub len: u64,
}

/// The source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its path.
    pub path: String,
    /// The image's id, of a hikae image.
    #[serde(default)]
    pub image: Option<String>,
    /// The generation's number.
    #[serde(default)]
    pub generation: Option<u32>,
    /// The id of the generation's root node, which proves all of its bytes.
    #[serde(default)]
    pub root: Option<String>,
}

/// Options that say what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsRecord {
    /// Absent ranges become zero.
    #[serde(default)]
    pub wipe: bool,
    /// The last partition grows.
    #[serde(default)]
    pub grow: bool,
    /// Partition of the source.
    #[serde(default)]
    pub from_partition: Option<u32>,
    /// Partition of the target.
    #[serde(default)]
    pub to_partition: Option<u32>,
    /// New identity: a seed that every new id is derived from, in hexadecimal digits.
    #[serde(default)]
    pub ids: Option<String>,
}

/// An entry of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Start(Box<Start>),
    Saved { what: String, offset: u64, len: u64, hex: String },
    Unreadable { what: String, offset: u64, len: u64 },
    Ready,
    Invalidated,
    Done(u64),
    Wrong(Vec<(u64, u64)>),
    Body,
    Finished,
}

/// Bytes of the target as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// What they are.
    pub what: String,
    /// Where they lie in the scope.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// How far a session came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everything is saved: nothing was written.
    #[default]
    Saving,
    /// Everything is saved; the target may still be as it was.
    Ready,
    /// The tables of the target are invalid.
    Invalidated,
    /// The body is on the medium.
    Body,
    /// It is over.
    Finished,
}

/// An undo file that is open for this run alone.
#[derive(Debug)]
pub struct Undo {
    file: File,
    path: PathBuf,
    start: Start,
    saved: Vec<Saved>,
    phase: Phase,
    done: u64,
}

impl Undo {
    /// Creates the file; one that is there is never touched.
    pub fn create(path: &Path, start: Start) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Refused(format!(
                "{} exists, and an undo file is never overwritten: name another with --undo, or go on with --resume",
                path.display()
            )),
            _ => Error::io("create", path, error),
        })?;
        lock(&file, path)?;
        let mut undo = Self {
            file,
            path: path.to_owned(),
            start: start.clone(),
            saved: Vec::new(),
            phase: Phase::Saving,
            done: 0,
        };
        undo.append(&Entry::Start(Box::new(start)))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        platform::sync_folder(folder).map_err(|error| Error::io("sync", folder, error))?;
        Ok(undo)
    }

    /// Opens a file to go on with its session or to put back what it saved.
    pub fn open(path: &Path) -> Result<Self> {
        // Not for appending: on Windows such a handle may not shorten the file.
        let file = OpenOptions::new().read(true).write(true).open(path);
        let mut file = file.map_err(|error| Error::io("open", path, error))?;
        lock(&file, path)?;
        let mut text = Vec::new();
        let read = file.metadata().map_err(|error| Error::io("examine", path, error))?.len();
        if read > MAX_FILE {
            return Err(Error::corrupt(path.display(), 0, "it is longer than an undo file can be"));
        }
        (&file).take(MAX_FILE).read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
        let (entries, valid) = parse(&text, path)?;
        let mut entries = entries.into_iter();
        let Some(Entry::Start(start)) = entries.next() else {
            return Err(Error::corrupt(path.display(), 0, "it is no undo file"));
        };
        if start.version != 1 {
            return Err(Error::unsupported(path.display(), format!("version {}", start.version)));
        }
        // What was torn is cut off, so that the next entry starts a line.
        file.set_len(valid)
            .and_then(|()| file.seek(SeekFrom::Start(valid)))
            .map_err(|error| Error::io("cut the torn end of", path, error))?;
        let mut undo =
            Self { file, path: path.to_owned(), start: *start, saved: Vec::new(), phase: Phase::Saving, done: 0 };
        for entry in entries {
            undo.take(entry)?;
        }
        Ok(undo)
    }

    fn take(&mut self, entry: Entry) -> Result<()> {
        match entry {
            Entry::Start(_) => return Err(Error::corrupt(self.path.display(), 0, "it starts twice")),
            Entry::Saved { what, offset, len, hex } => {
                let bytes = from_hex(&hex).filter(|bytes| u64::try_from(bytes.len()) == Ok(len));
                let bytes = bytes.ok_or_else(|| {
                    Error::corrupt(self.path.display(), offset, "saved bytes are no hexadecimal digits of their length")
                })?;
                self.saved.push(Saved { what, offset, bytes });
            }
            Entry::Unreadable { .. } => {}
            Entry::Ready => self.phase = self.phase.max(Phase::Ready),
            Entry::Invalidated => self.phase = self.phase.max(Phase::Invalidated),
            Entry::Done(offset) => self.done = offset,
            Entry::Wrong(_) => {
                self.done = 0;
                self.phase = Phase::Invalidated;
            }
            Entry::Body => self.phase = self.phase.max(Phase::Body),
            Entry::Finished => self.phase = Phase::Finished,
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<()> {
        let json = serde_json::to_string(entry).expect("an entry has no maps with keys that are no text");
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        (&self.file).write_all(line.as_bytes()).map_err(|error| Error::io("write", &self.path, error))?;
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Saves ranges of the target, in whole, before anything is written. What cannot be read is noted.
    pub fn save(&mut self, target: &dyn Disk, structures: &[Structure]) -> Result<()> {
        for structure in structures {
            let mut at = structure.range.start;
            while at < structure.range.end {
                let end = structure.range.end.min(at.saturating_add(SAVED_PIECE));
                self.save_piece(target, &structure.what, at..end)?;
                at = end;
            }
        }
        self.append(&Entry::Ready)?;
        self.phase = Phase::Ready;
        Ok(())
    }

    fn save_piece(&mut self, target: &dyn Disk, what: &str, range: Range<u64>) -> Result<()> {
        let (offset, len) = (range.start, range.end.saturating_sub(range.start));
        match read_vec(target, offset, usize::try_from(len).unwrap_or(usize::MAX)) {
            Ok(bytes) => {
                self.append(&Entry::Saved { what: what.to_owned(), offset, len, hex: to_hex(&bytes) })?;
                self.saved.push(Saved { what: what.to_owned(), offset, bytes });
                Ok(())
            }
            Err(error) if error.is_unreadable_medium() => {
                self.append(&Entry::Unreadable { what: what.to_owned(), offset, len })
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that the tables of the target are invalid on the medium.
    pub fn invalidated(&mut self) -> Result<()> {
        self.phase = Phase::Invalidated;
        self.append(&Entry::Invalidated)
    }

    /// Notes that the body up to `offset` is on the medium.
    pub fn done_to(&mut self, offset: u64) -> Result<()> {
        self.done = offset;
        self.append(&Entry::Done(offset))
    }

    /// Notes that the whole body is on the medium.
    pub fn body_done(&mut self) -> Result<()> {
        self.phase = self.phase.max(Phase::Body);
        self.append(&Entry::Body)
    }

    /// Notes what reading back found.
    pub fn wrong(&mut self, ranges: &[Range<u64>]) -> Result<()> {
        self.done = 0;
        self.phase = Phase::Invalidated;
        let listed = ranges.iter().take(MAX_WRONG).map(|range| (range.start, range.end.saturating_sub(range.start)));
        self.append(&Entry::Wrong(listed.collect()))
    }

    /// Ends the session.
    pub fn finished(&mut self) -> Result<()> {
        self.phase = Phase::Finished;
        self.append(&Entry::Finished)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the session is about.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// How far it came.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The body is on the medium up to this byte of the scope.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// What was saved.
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }
}

/// The name of a new session.
pub fn new_session() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// One run at a time writes an undo file.
fn lock(file: &File, path: &Path) -> Result<()> {
    match platform::try_lock(file) {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::Refused(format!("another run of this program is at work with {}", path.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

/// Parses the lines. Returns the entries that this version knows, and the bytes that they take.
fn parse(text: &[u8], path: &Path) -> Result<(Vec<Entry>, u64)> {
    let mut entries = Vec::new();
    let mut valid = 0_usize;
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (rest.get(..end).unwrap_or_default(), rest.get(end.saturating_add(1)..).unwrap_or_default()),
            // Torn: no entry ends here.
            None => break,
        };
        let crc = line.get(..8).and_then(|crc| std::str::from_utf8(crc).ok());
        let crc = crc.and_then(|crc| u32::from_str_radix(crc, 16).ok());
        let json = line.get(9..).unwrap_or_default();
        if line.get(8) != Some(&b' ') || crc != Some(crc32fast::hash(json)) {
            if after.is_empty() {
                break;
            }
            let offset = u64::try_from(valid).unwrap_or(u64::MAX);
            return Err(Error::corrupt(path.display(), offset, "the checksum of a line does not match"));
        }
        // Entries of later versions are skipped.
        if let Ok(entry) = serde_json::from_slice(json) {
            entries.push(entry);
        }
        valid = text.len().saturating_sub(after.len());
        rest = after;
    }
    Ok((entries, u64::try_from(valid).unwrap_or(u64::MAX)))
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks_exact(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn start() -> Start {
        Start { version: 1, session: "s".into(), work: "whole disk".into(), ..Start::default() }
    }

    fn structure(range: Range<u64>) -> Structure {
        Structure { what: "table".into(), range }
    }

    #[test]
    fn what_is_saved_comes_back_with_how_far_the_run_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.undo");
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
        let disk = MemoryDisk::new(bytes.clone());
        let mut undo = Undo::create(&path, start()).unwrap();
        undo.save(&disk, &[structure(0..512), structure(1000..150_000)]).unwrap();
        undo.invalidated().unwrap();
        undo.done_to(77).unwrap();
        assert!(matches!(Undo::open(&path), Err(Error::Refused(_))), "one run at a time");
        assert!(matches!(Undo::create(&path, start()), Err(Error::Refused(_))), "never overwritten");
        drop(undo);
        let mut undo = Undo::open(&path).unwrap();
        assert_eq!((undo.phase(), undo.done(), undo.start()), (Phase::Invalidated, 77, &start()));
        let mut back = vec![0; bytes.len()];
        for saved in undo.saved() {
            let at = saved.offset as usize;
            back[at..at + saved.bytes.len()].copy_from_slice(&saved.bytes);
        }
        assert!(back[..512] == bytes[..512] && back[1000..150_000] == bytes[1000..150_000]);
        assert!(back[512..1000].iter().all(|byte| *byte == 0));
        undo.wrong(&[5..9]).unwrap();
        undo.done_to(50).unwrap();
        undo.body_done().unwrap();
        drop(undo);
        let mut undo = Undo::open(&path).unwrap();
        assert_eq!((undo.phase(), undo.done()), (Phase::Body, 50));
        undo.finished().unwrap();
        drop(undo);
        assert_eq!(Undo::open(&path).unwrap().phase(), Phase::Finished);
    }

    #[test]
    fn a_file_cut_anywhere_opens_as_what_it_was_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.undo");
        let mut undo = Undo::create(&path, start()).unwrap();
        undo.save(&MemoryDisk::new(vec![7; 600]), &[structure(0..512)]).unwrap();
        undo.invalidated().unwrap();
        undo.done_to(300).unwrap();
        drop(undo);
        let text = std::fs::read(&path).unwrap();
        let first_line = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut phase = Phase::Saving;
        for len in 0..=text.len() {
            std::fs::write(&path, &text[..len]).unwrap();
            let opened = Undo::open(&path);
            if len < first_line {
                assert!(matches!(opened, Err(Error::Corrupt { .. })));
                continue;
            }
            let mut undo = opened.unwrap();
            assert!(undo.phase() >= phase, "at {len}");
            phase = undo.phase();
            // Each append is synced, which takes its time.
            if len % 13 > 0 && len < text.len() {
                continue;
            }
            undo.done_to(301).unwrap();
            drop(undo);
            assert_eq!(Undo::open(&path).unwrap().done(), 301, "at {len}");
        }
        // A flipped byte is never believed: the line is the torn last one, or the file is corrupt.
        for at in (first_line..text.len()).step_by(3) {
            let mut flipped = text.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            match Undo::open(&path) {
                Err(Error::Corrupt { .. }) => {}
                Ok(undo) => assert!(undo.done() == 0 || text[at] == b'\n', "at {at}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn entries_of_later_versions_are_skipped_and_later_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.undo");
        let line = |json: &str| format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let first = serde_json::to_string(&Entry::Start(Box::new(start()))).unwrap();
        std::fs::write(&path, line(&first) + &line(r#"{"weather":"fine"}"#) + &line(r#"{"done":9}"#)).unwrap();
        assert_eq!(Undo::open(&path).unwrap().done(), 9);
        std::fs::write(&path, line(&first.replace("\"version\":1", "\"version\":2"))).unwrap();
        assert!(matches!(Undo::open(&path), Err(Error::Unsupported { .. })));
        std::fs::write(&path, line(&first) + &line(&first)).unwrap();
        assert!(matches!(Undo::open(&path), Err(Error::Corrupt { .. })));
    }
}
