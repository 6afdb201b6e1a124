//! Files added, removed, changed and moved between two generations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use crate::compare::{Comparison, What};
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::{Attributes, FileSystem, NodeId, NodeKind, Time};
use crate::tree::Tree;

/// Folders within folders that are compared.
const MAX_DEPTH: usize = 400;

/// Removed files of one length and time that a new one is compared with.
const MOST_ALIKE: usize = 16;

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is still there, but different.
    Changed(What),
    /// The same node has another path now, and may be different too. Of a moved folder only the folder is told, not what moved with it.
    Moved {
        /// Its path before.
        from: Vec<u8>,
        /// What else differs.
        what: What,
    },
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path in the later generation, or in the earlier one where it is gone; names with `/` before each, untrusted bytes.
    pub path: Vec<u8>,
    /// What happened.
    pub change: Change,
    /// Attributes before; `None` where it is new.
    pub before: Option<Attributes>,
    /// Attributes after; `None` where it is gone.
    pub after: Option<Attributes>,
}

/// The differences, by path, and what could not be compared.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// By path.
    pub found: Vec<Difference>,
    /// Paths that could not be compared, with the reason.
    pub problems: Vec<(Vec<u8>, String)>,
}

/// A path that only one side has.
struct Alone {
    path: Vec<u8>,
    node: NodeId,
    attributes: Attributes,
    /// Its number in its filesystem, and where that partition starts: what a move keeps.
    identity: Option<(NodeId, u64)>,
}

/// Compares everything below two folders, which lie at `path` in two generations.
pub fn diff(
    tree: &Tree,
    comparison: &Comparison<'_>,
    before: NodeId,
    after: NodeId,
    path: &[u8],
) -> Result<Differences> {
    let mut walk = Walk {
        tree,
        comparison,
        out: Differences::default(),
        removed: Vec::new(),
        added: Vec::new(),
        entered: HashSet::new(),
    };
    walk.pair(before, after, path.to_vec(), 0)?;
    walk.find_moves()?;
    walk.out.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.out)
}

struct Walk<'a> {
    tree: &'a Tree,
    comparison: &'a Comparison<'a>,
    out: Differences,
    removed: Vec<Alone>,
    added: Vec<Alone>,
    /// Folders that were entered, so that loops end.
    entered: HashSet<NodeId>,
}

/// Errors that end the whole comparison; others are told for their path.
fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Cancelled)
}

impl Walk<'_> {
    fn problem(&mut self, path: &[u8], error: &Error) -> Result<()> {
        if is_fatal(error) {
            return Err(Error::Cancelled);
        }
        self.out.problems.push((path.to_vec(), full_message(error)));
        Ok(())
    }

    fn list(&mut self, folder: NodeId, path: &[u8]) -> Result<BTreeMap<Vec<u8>, NodeId>> {
        let mut entries = BTreeMap::new();
        let listed = self.tree.list(folder, &mut |entry| {
            entries.insert(entry.name, entry.node);
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.problem(path, &error)?;
        }
        Ok(entries)
    }

    /// Compares two versions of one path.
    fn pair(&mut self, before: NodeId, after: NodeId, path: Vec<u8>, depth: usize) -> Result<()> {
        let attributes = self.tree.attributes(before).and_then(|a| Ok((a, self.tree.attributes(after)?)));
        let (a, b) = match attributes {
            Ok(pair) => pair,
            Err(error) => return self.problem(&path, &error),
        };
        match self.comparison.compare((before, &a), (after, &b)) {
            Ok(what) if what.is_nothing() => {}
            Ok(what) => self.out.found.push(Difference {
                path: path.clone(),
                change: Change::Changed(what),
                before: Some(a.clone()),
                after: Some(b.clone()),
            }),
            Err(error) => self.problem(&path, &error)?,
        }
        let folders = (a.kind == NodeKind::Folder, b.kind == NodeKind::Folder);
        if folders == (false, false) {
            return Ok(());
        }
        if depth > MAX_DEPTH || (folders.1 && !self.entered.insert(after)) {
            self.out.problems.push((path, "this folder was compared already, or lies too deep".into()));
            return Ok(());
        }
        let in_a = if folders.0 { self.list(before, &path)? } else { BTreeMap::new() };
        let mut in_b = if folders.1 { self.list(after, &path)? } else { BTreeMap::new() };
        for (name, node_a) in in_a {
            let inner = joined(&path, &name);
            match in_b.remove(&name) {
                // Its content is the partitions', which are compared file by file.
                _ if self.tree.is_disk_file(node_a) => {}
                Some(node_b) => self.pair(node_a, node_b, inner, depth.saturating_add(1))?,
                None => self.alone(node_a, inner, false, depth.saturating_add(1))?,
            }
        }
        for (name, node_b) in in_b {
            let inner = joined(&path, &name);
            if !self.tree.is_disk_file(node_b) {
                self.alone(node_b, inner, true, depth.saturating_add(1))?;
            }
        }
        Ok(())
    }

    /// Takes a path that only one side has, with everything below it.
    fn alone(&mut self, node: NodeId, path: Vec<u8>, is_new: bool, depth: usize) -> Result<()> {
        let looked = self.tree.attributes(node).and_then(|found| Ok((found, self.tree.origin(node)?)));
        let (attributes, origin) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.problem(&path, &error),
        };
        let is_folder = attributes.kind == NodeKind::Folder;
        let identity = origin.and_then(|origin| Some((origin.node, origin.partition?.start)));
        let side = if is_new { &mut self.added } else { &mut self.removed };
        side.push(Alone { path: path.clone(), node, attributes, identity });
        if !is_folder {
            return Ok(());
        }
        if depth > MAX_DEPTH || !self.entered.insert(node) {
            self.out.problems.push((path, "this folder was compared already, or lies too deep".into()));
            return Ok(());
        }
        for (name, inner) in self.list(node, &path)? {
            self.alone(inner, joined(&path, &name), is_new, depth.saturating_add(1))?;
        }
        Ok(())
    }

    /// Finds nodes that are on both sides under different paths. What is left is added or removed.
    fn find_moves(&mut self) -> Result<()> {
        let removed = std::mem::take(&mut self.removed);
        let added = std::mem::take(&mut self.added);
        let mut by_identity: HashMap<(NodeId, u64), usize> = HashMap::new();
        // Filesystems that number nodes by their place (FAT) give a moved file another number: there, equal bytes of equal time tell.
        let mut by_look: HashMap<(u64, Time), Vec<usize>> = HashMap::new();
        for (at, alone) in removed.iter().enumerate() {
            if let Some(identity) = alone.identity {
                by_identity.entry(identity).or_insert(at);
            }
            if let Some(look) = look_of(&alone.attributes) {
                by_look.entry(look).or_default().push(at);
            }
        }
        let mut taken = HashSet::new();
        // New path -> old path of folders that moved.
        let mut moved_folders: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for new in added {
            let old = new.identity.and_then(|identity| by_identity.get(&identity)).copied();
            let old = old.and_then(|at| Some((at, removed.get(at)?))).filter(|(at, _)| !taken.contains(at));
            let mut moved = match old {
                Some((at, old)) => self.is_moved(old, &new)?.map(|what| (at, old, what)),
                None => None,
            };
            if moved.is_none() {
                let alike = look_of(&new.attributes).and_then(|look| by_look.get(&look)).into_iter().flatten();
                for at in alike.copied().filter(|at| !taken.contains(at)).take(MOST_ALIKE) {
                    let Some(old) = removed.get(at) else { continue };
                    let what = self.comparison.compare((old.node, &old.attributes), (new.node, &new.attributes));
                    if let Ok(what) = what
                        && !what.content
                    {
                        moved = Some((at, old, what));
                        break;
                    }
                }
            }
            let Some((at, old, what)) = moved else {
                self.push(new.path, Change::Added, None, Some(new.attributes));
                continue;
            };
            taken.insert(at);
            if new.attributes.kind == NodeKind::Folder {
                moved_folders.insert(new.path.clone(), old.path.clone());
            }
            let went_along =
                split_last(&new.path).zip(split_last(&old.path)).is_some_and(|((to, name), (from, old_name))| {
                    name == old_name && moved_folders.get(to).is_some_and(|folder| folder == from)
                });
            if !went_along || !what.is_nothing() {
                let change = Change::Moved { from: old.path.clone(), what };
                self.push(new.path, change, Some(old.attributes.clone()), Some(new.attributes));
            }
        }
        for (at, old) in removed.into_iter().enumerate() {
            if !taken.contains(&at) {
                self.push(old.path, Change::Removed, Some(old.attributes), None);
            }
        }
        Ok(())
    }

    fn push(&mut self, path: Vec<u8>, change: Change, before: Option<Attributes>, after: Option<Attributes>) {
        self.out.found.push(Difference { path, change, before, after });
    }

    /// Says whether two nodes with one number are one node that moved, and what differs: numbers are used again for new files.
    fn is_moved(&mut self, old: &Alone, new: &Alone) -> Result<Option<What>> {
        let (a, b) = (&old.attributes, &new.attributes);
        if std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind) {
            return Ok(None);
        }
        let what = match self.comparison.compare((old.node, a), (new.node, b)) {
            Ok(what) => what,
            Err(error) => {
                self.problem(&new.path, &error)?;
                return Ok(None);
            }
        };
        // The time of creation tells a node from its successor. Without one, only equal content does.
        let is_one = match (a.created, b.created) {
            (Some(a), Some(b)) => a == b,
            _ => !what.content && !what.modified,
        };
        Ok(is_one.then_some(what))
    }
}

/// What a moved file keeps that is cheap to look at: its length and time. Empty files are all alike.
fn look_of(attributes: &Attributes) -> Option<(u64, Time)> {
    let is_file = attributes.kind == NodeKind::File && attributes.len > 0;
    attributes.modified.filter(|_| is_file).map(|modified| (attributes.len, modified))
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let path = if path == b"/" { &[][..] } else { path };
    [path, b"/", name].concat()
}

/// Folder and name of a path.
fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    Some((path.get(..at)?, path.get(at.saturating_add(1)..)?))
}
