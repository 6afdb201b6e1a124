//! Folders as Windows sees them: every entry under the one name that it is shown by, found whatever the case of its letters.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use imgfmt::Result;
use imgfmt::filesystem::files::{Entry, FileSystem, NodeId};
use imgfmt::filesystem::utf16::to_wtf8;
use imgfmt::tree::Tree;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::names;

/// Bytes of folders that are kept, about.
const KEPT: u64 = 64 << 20;
/// Bytes of an entry besides its names, about.
const OVERHEAD: usize = 96;
/// Filesystems that find names without regard to case themselves, and fast.
const OWN_RULES: [&str; 6] = ["NTFS", "FAT12", "FAT16", "FAT32", "FAT", "exFAT"];

/// An entry and its name here.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) name: Vec<u16>,
    pub(crate) entry: Entry,
}

/// The entries of a folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    entries: Vec<Shown>,
    /// Names without regard to case.
    keys: HashMap<Vec<u16>, usize>,
    weight: usize,
}

impl Folder {
    fn push(&mut self, entry: Entry) {
        let plain = names::shown(&entry.name).map(|name| (names::key(&name), name));
        // The first of several names that differ by nothing but case keeps its own.
        let free = plain.filter(|(key, _)| !self.keys.contains_key(key));
        let (key, name) = free.unwrap_or_else(|| {
            let name = names::tagged(&entry.name);
            (names::key(&name), name)
        });
        let len = entry.name.len().saturating_add(name.len().saturating_mul(4));
        self.weight = self.weight.saturating_add(len).saturating_add(OVERHEAD);
        self.keys.entry(key).or_insert(self.entries.len());
        self.entries.push(Shown { name, entry });
    }

    pub(crate) fn entries(&self) -> &[Shown] {
        &self.entries
    }

    /// How an entry is shown that the filesystem found by some name.
    pub(crate) fn shown(&self, entry: &Entry) -> Option<&Shown> {
        let same = |shown: &&Shown| shown.entry.name == entry.name;
        let found = self.entries.iter().find(same);
        found.or_else(|| self.entries.iter().find(|shown| shown.entry.node == entry.node))
    }

    fn find(&self, name: &[u16]) -> Option<&Shown> {
        self.entries.get(*self.keys.get(&names::key(name))?)
    }
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<NodeId, Arc<Folder>> for ByWeight {
    fn weight(&self, _: &NodeId, folder: &Arc<Folder>) -> u64 {
        u64::try_from(folder.weight.saturating_add(OVERHEAD)).unwrap_or(u64::MAX)
    }
}

/// The folders that were looked into last.
pub(crate) struct Folders(Cache<NodeId, Arc<Folder>, ByWeight>);

impl std::fmt::Debug for Folders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folders").field("len", &self.0.len()).finish()
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self(Cache::with_weighter(256, KEPT, ByWeight))
    }
}

impl Folders {
    /// The entries of a folder.
    pub(crate) fn get(&self, tree: &Tree, node: NodeId) -> Result<Arc<Folder>> {
        self.0.get_or_insert_with(&node, || {
            let mut folder = Folder::default();
            tree.list(node, &mut |entry| {
                folder.push(entry);
                ControlFlow::Continue(())
            })?;
            Ok(Arc::new(folder))
        })
    }

    /// Finds a name in a folder: as it is stored, by the rules of the filesystem, and by the names that are shown.
    pub(crate) fn find(&self, tree: &Tree, node: NodeId, name: &[u16]) -> Result<Option<Entry>> {
        let shown = to_wtf8(name);
        if let Some(raw) = names::raw(&shown)
            && let Some(entry) = tree.lookup(node, &raw)?
        {
            return Ok(Some(entry));
        }
        // Programs ask for many names that are not there; where the filesystem has said so, no folder is listed for it.
        if !names::may_be_tagged(&shown)
            && tree.filesystem_at(node)?.is_some_and(|summary| OWN_RULES.contains(&summary.kind))
        {
            return Ok(None);
        }
        Ok(self.get(tree, node)?.find(name).map(|shown| shown.entry.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&[u8]]) -> Folder {
        let mut folder = Folder::default();
        for (node, name) in (1..).zip(names) {
            folder.push(Entry { name: name.to_vec(), node: NodeId(node), kind: None });
        }
        folder
    }

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn names_that_differ_by_case_are_all_shown_and_found() {
        let folder = folder(&[b"Makefile", b"makefile", b"MAKEFILE", b"a:b", b"A:B", b"a%3Ab"]);
        let mut seen = std::collections::HashSet::new();
        for shown in folder.entries() {
            assert!(seen.insert(names::key(&shown.name)), "{shown:?}");
            assert_eq!(folder.find(&shown.name).unwrap().entry.node, shown.entry.node);
        }
        assert_eq!(folder.find(&units("mAKEFILE")).unwrap().entry.node, NodeId(1));
        assert_eq!(folder.find(&units("a%3ab")).unwrap().entry.node, NodeId(4));
        assert!(folder.find(&units("other")).is_none());
    }

    #[test]
    fn long_names_are_found_by_their_digest() {
        let long = [b'x'; 400];
        let folder = folder(&[&long]);
        let shown = &folder.entries()[0].name;
        assert!(shown.len() <= names::MAX_UNITS && folder.find(shown).is_some());
    }
}
