//! Folders that can only be read from front to back: read once, and kept with an index of their names.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::{Error, Result};
use crate::filesystem::files::Entry;

/// Bytes of listings that are kept, as [`Listing::weight`] counts them.
const KEPT: u64 = 64 << 20;
/// What an entry and a key weigh besides their names: allocations, hash slots.
const OVERHEAD: u64 = 64;

/// The entries of a folder.
#[derive(Debug, Default)]
pub struct Listing {
    entries: Vec<Entry>,
    /// Names as they are compared, and the entry that each is of.
    keys: HashMap<Vec<u8>, usize>,
    weight: u64,
}

impl Listing {
    /// Adds an entry that is found by any of `keys`. Of two entries with one key the first is found.
    ///
    /// An entry is left out where its name is empty, "." or "..", or holds `/` or NUL.
    pub fn push(&mut self, entry: Entry, keys: impl IntoIterator<Item = Vec<u8>>) {
        if !is_name(&entry.name) {
            return;
        }
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).expect("64 bits").saturating_add(OVERHEAD);
        self.weight = self.weight.saturating_add(len(&entry.name));
        for key in keys {
            self.weight = self.weight.saturating_add(len(&key));
            self.keys.entry(key).or_insert(self.entries.len());
        }
        self.entries.push(entry);
    }

    /// The entry with this key.
    pub fn find(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(*self.keys.get(key)?)
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Says whether a name can be one of a folder's: it is neither empty nor "." nor "..", and holds neither `/` nor NUL.
pub fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// What a reader found in a folder, as far as it came, and what ended it.
pub struct Read {
    /// The entries.
    pub listing: Listing,
    /// What broke the folder, behind or between the entries.
    pub outcome: Result<()>,
}

/// How listings are weighed in the cache.
#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<u64, Arc<Listing>> for ByWeight {
    fn weight(&self, _folder: &u64, listing: &Arc<Listing>) -> u64 {
        listing.weight.saturating_add(OVERHEAD)
    }
}

/// The listings that were used last.
pub struct Listings(Cache<u64, Arc<Listing>, ByWeight>);

impl std::fmt::Debug for Listings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listings").field("len", &self.0.len()).finish()
    }
}

impl Default for Listings {
    fn default() -> Self {
        Self(Cache::with_weighter(64, KEPT, ByWeight))
    }
}

impl Listings {
    /// The listing of a folder, by `read` where it is not kept. What is broken is not kept.
    fn get(&self, folder: u64, read: impl FnOnce() -> Read) -> (Arc<Listing>, Result<()>) {
        if let Some(listing) = self.0.get(&folder) {
            return (listing, Ok(()));
        }
        let Read { listing, outcome } = read();
        let listing = Arc::new(listing);
        if outcome.is_ok() {
            self.0.insert(folder, Arc::clone(&listing));
        }
        (listing, outcome)
    }

    /// Finds a key in a folder. Fails where it is not found and the folder is broken.
    pub fn find(&self, folder: u64, key: &[u8], read: impl FnOnce() -> Read) -> Result<Option<Entry>> {
        let (listing, outcome) = self.get(folder, read);
        match listing.find(key) {
            Some(entry) => Ok(Some(entry.clone())),
            None => outcome.map(|()| None),
        }
    }

    /// Visits the entries of a folder until `visit` breaks. Fails behind the last of them where the folder is broken.
    pub fn list(
        &self,
        folder: u64,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
        read: impl FnOnce() -> Read,
    ) -> Result<()> {
        let (listing, outcome) = self.get(folder, read);
        for entry in &listing.entries {
            if visit(entry.clone()).is_break() {
                return Ok(());
            }
        }
        outcome
    }
}

/// The error for a node that is not there.
pub fn no_node(node: u64) -> Error {
    Error::NotFound(format!("there is no node {node}"))
}

/// The error for a node that is not a folder.
pub fn no_folder(node: u64) -> Error {
    Error::NotFound(format!("node {node} is no folder"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::files::NodeId;

    fn entry(name: &str, node: u64) -> Entry {
        Entry { name: name.into(), node: NodeId(node), kind: None }
    }

    #[test]
    fn what_is_broken_is_told_behind_what_was_found() {
        let listings = Listings::default();
        let mut reads = 0;
        let mut read = || {
            reads += 1;
            let mut listing = Listing::default();
            listing.push(entry("a", 1), [b"A".to_vec()]);
            listing.push(entry("..", 2), [b"..".to_vec()]);
            Read { listing, outcome: Err(Error::corrupt("folder", 0, "it is broken")) }
        };
        assert_eq!(listings.find(9, b"A", &mut read).unwrap().unwrap().node, NodeId(1));
        assert!(listings.find(9, b"B", &mut read).is_err());
        let mut seen = 0;
        let result = listings.list(
            9,
            &mut |_| {
                seen += 1;
                ControlFlow::Continue(())
            },
            &mut read,
        );
        assert!(result.is_err());
        assert_eq!((seen, reads), (1, 3));
    }

    #[test]
    fn whole_listings_are_read_once() {
        let listings = Listings::default();
        let read = || {
            let mut listing = Listing::default();
            listing.push(entry("a", 1), [b"A".to_vec(), b"A~1".to_vec()]);
            listing.push(entry("A", 2), [b"A".to_vec()]);
            Read { listing, outcome: Ok(()) }
        };
        assert_eq!(listings.find(9, b"A~1", read).unwrap().unwrap().node, NodeId(1));
        let unread = || panic!("it is kept");
        assert_eq!(listings.find(9, b"A", unread).unwrap().unwrap().node, NodeId(1), "the first of two");
        assert_eq!(listings.find(9, b"b", unread).unwrap(), None);
    }
}
