//! Walks a whole tree, reads every byte of it, and checks that all ways to a file say the same.

use crate::calls::{
    Calls, DIRECTORY, DIRECTORY_FILE, Entry, LIST, LOOK, NON_DIRECTORY_FILE, READ, REPARSE_POINT, join, units,
};

/// Bytes that a program copies at once.
const PIECE: usize = 1 << 20;

/// Something in the tree.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its path from the root of the drive.
    pub path: Vec<u16>,
    /// What its folder says of it.
    pub entry: Entry,
    /// Names and hashes of its streams, the unnamed one first; none for a folder without.
    pub streams: Vec<(Vec<u16>, u64, String)>,
}

impl Seen {
    /// Says whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.entry.attributes & DIRECTORY != 0
    }

    /// Lines of a listing: for a folder `d PATH`, for each stream `f LENGTH HASH PATH:STREAM`.
    pub fn lines(&self) -> Vec<String> {
        let path = String::from_utf16_lossy(&self.path);
        let kind = if self.entry.attributes & REPARSE_POINT != 0 { 'l' } else { 'd' };
        let mut lines = if self.is_folder() { vec![format!("{kind} {path}")] } else { Vec::new() };
        for (name, len, hash) in &self.streams {
            let name = String::from_utf16_lossy(name);
            let name = name.strip_suffix(":$DATA").unwrap().trim_end_matches(':');
            lines.push(format!("f {len} {hash} {path}{name}"));
        }
        lines
    }
}

/// Walks all that `calls` shows, but not through links to folders. `content` says whether the bytes of a path are read too.
///
/// Panics where two ways to a file say different things of it.
pub fn walk(calls: &impl Calls, content: impl Fn(&str) -> bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut folders = vec![units("\\")];
    while let Some(folder) = folders.pop() {
        let entries = list(calls, &folder, None);
        for entry in entries {
            let path = join(&folder, &entry.name);
            let shown = String::from_utf16_lossy(&path);
            let is_folder = entry.attributes & DIRECTORY != 0;
            check_entry(calls, &path, &entry, &shown);
            let mut streams = Vec::new();
            let listed = calls.with(&path, LOOK, 0, |open| calls.streams(open));
            for (name, len) in listed.unwrap_or_else(|status| panic!("streams of {shown}: {status:#x}")) {
                let bytes = if content(&shown) { hash(calls, &path, &name, len) } else { "-".into() };
                streams.push((name, len, bytes));
            }
            if is_folder && entry.attributes & REPARSE_POINT == 0 {
                folders.push(path.clone());
            }
            seen.push(Seen { path, entry, streams });
        }
    }
    seen.sort_by(|a, b| a.path.cmp(&b.path));
    seen
}

/// Lists a folder.
pub fn list(calls: &impl Calls, folder: &[u16], pattern: Option<&[u16]>) -> Vec<Entry> {
    let listed = calls.with(folder, LIST, DIRECTORY_FILE, |open| calls.list(open, pattern));
    listed.unwrap_or_else(|status| panic!("list {}: {status:#x}", String::from_utf16_lossy(folder)))
}

/// What an open file says of itself is what its folder says of it.
fn check_entry(calls: &impl Calls, path: &[u16], entry: &Entry, shown: &str) {
    let options = if entry.attributes & DIRECTORY != 0 { DIRECTORY_FILE } else { NON_DIRECTORY_FILE };
    let known = calls.with(path, LOOK, options, |open| calls.information(open));
    let known = known.unwrap_or_else(|status| panic!("look at {shown}: {status:#x}"));
    let both = (known.attributes, known.len, known.times);
    assert_eq!(both, (entry.attributes, entry.len, entry.times), "{shown}");
    assert!(known.links > 0, "{shown}");
}

/// Reads a stream by its full name, and by the name that most programs use, and returns its hash.
fn hash(calls: &impl Calls, path: &[u16], stream: &[u16], len: u64) -> String {
    let full = [path, stream].concat();
    let shown = String::from_utf16_lossy(&full);
    let usual = if stream == units("::$DATA") { path } else { full.strip_suffix(&units(":$DATA")[..]).unwrap() };
    let mut hasher = blake3::Hasher::new();
    let read = calls.with(&full, READ, NON_DIRECTORY_FILE, |open| {
        let mut at = 0;
        while at < len {
            let part = calls.read(open, PIECE, at as i64)?;
            assert!(!part.is_empty() && (part.len() == PIECE || at + part.len() as u64 == len), "{shown} at {at}");
            hasher.update(&part);
            at += part.len() as u64;
        }
        Ok(())
    });
    read.unwrap_or_else(|status| panic!("read {shown}: {status:#x}"));
    let known = calls.with(usual, LOOK, 0, |open| calls.information(open)).unwrap();
    assert_eq!(known.len, len, "{shown}");
    hasher.finalize().to_hex().to_string()
}
