//! What is different between generations, file by file: [`diff`] between two of them, [`history`] of one path over all.
//!
//! The trees of chunks tell cheaply which bytes of the disk can have changed. A file whose bytes lie where they lay, in chunks that did not change,
//! is the same without being read; every other candidate is compared byte for byte before it is called changed, since a chunk holds several
//! small files and files move.

pub mod diff;
pub mod history;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::disk::buf_len;
use crate::engine::Cancel;
use crate::error::Result;
use crate::filesystem::files::{Attributes, Content, FileSystem, NodeId, NodeKind, Xattr};
use crate::image::Image;
use crate::image::changes::changed_ranges;
use crate::ranges::RangeSet;
use crate::tree::Tree;

/// Bytes compared at once.
const PIECE: u64 = 1 << 20;

/// What differs between two versions of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// It is something else now: a file and not a folder.
    pub kind: bool,
    /// Bytes of a file, or where a link points.
    pub content: bool,
    /// Time of the last change of the content.
    pub modified: bool,
    /// Permissions, owner, group or DOS attributes.
    pub rights: bool,
    /// Names and contents of named streams.
    pub streams: bool,
    /// Extended attributes.
    pub xattrs: bool,
}

impl What {
    /// Nothing differs.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The differences as words.
    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (self.kind, "kind"),
            (self.content, "content"),
            (self.modified, "time"),
            (self.rights, "rights"),
            (self.streams, "streams"),
            (self.xattrs, "attributes"),
        ];
        all.into_iter().filter(|(differs, _)| *differs).map(|(_, word)| word).collect()
    }
}

/// Compares nodes of two generations of one image.
pub struct Comparison<'a> {
    tree: &'a Tree,
    /// Bytes of the disk that may have changed between the two.
    changed: Arc<RangeSet>,
    cancel: &'a Cancel,
}

impl std::fmt::Debug for Comparison<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison").field("changed", &self.changed.total()).finish_non_exhaustive()
    }
}

/// Changed ranges between pairs of generations, each found once.
#[derive(Debug, Default)]
pub struct Changes(Mutex<HashMap<(u32, u32), Arc<RangeSet>>>);

impl Changes {
    /// Bytes of the disk that may have changed between two generations.
    pub fn between(&self, image: &Arc<Image>, before: u32, after: u32) -> Result<Arc<RangeSet>> {
        let key = (before, after);
        if let Some(found) = self.0.lock().expect("no holder of the lock panics").get(&key) {
            return Ok(Arc::clone(found));
        }
        let changed = Arc::new(changed_ranges(&image.generation(before)?, &image.generation(after)?)?);
        self.0.lock().expect("no holder of the lock panics").insert(key, Arc::clone(&changed));
        Ok(changed)
    }
}

impl<'a> Comparison<'a> {
    /// `changed` are the bytes of the disk that may differ between the generations whose nodes are compared.
    pub fn new(tree: &'a Tree, changed: Arc<RangeSet>, cancel: &'a Cancel) -> Self {
        Self { tree, changed, cancel }
    }

    /// What differs between two versions of a node, given their attributes.
    pub fn compare(&self, before: (NodeId, &Attributes), after: (NodeId, &Attributes)) -> Result<What> {
        self.cancel.check()?;
        let ((node_a, a), (node_b, b)) = (before, after);
        let mut what = What {
            kind: std::mem::discriminant(&a.kind) != std::mem::discriminant(&b.kind),
            // A file that the tree itself makes has the time of its generation.
            modified: a.modified != b.modified && a.kind != NodeKind::Folder && self.tree.origin(node_b)?.is_some(),
            rights: (a.permissions, a.uid, a.gid, a.dos_attributes) != (b.permissions, b.uid, b.gid, b.dos_attributes),
            ..What::default()
        };
        if what.kind {
            return Ok(what);
        }
        what.content = match a.kind {
            NodeKind::File => a.len != b.len || !self.same_content(node_a, node_b, None)?,
            NodeKind::Symlink => self.tree.link_target(node_a)? != self.tree.link_target(node_b)?,
            NodeKind::CharacterDevice { .. } | NodeKind::BlockDevice { .. } => a.kind != b.kind,
            _ => false,
        };
        // Both are written through the node, so the node's own time tells when to look; where there is none, always.
        if a.changed != b.changed || a.changed.is_none() {
            what.streams = !self.same_streams(node_a, node_b)?;
            what.xattrs = self.xattrs(node_a)? != self.xattrs(node_b)?;
        }
        Ok(what)
    }

    /// Extended attributes but the one that repeats the times.
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let mut xattrs = self.tree.xattrs(node)?;
        xattrs.retain(|xattr| xattr.name != b"system.ntfs_times");
        Ok(xattrs)
    }

    fn same_streams(&self, a: NodeId, b: NodeId) -> Result<bool> {
        let (streams_a, streams_b) = (self.tree.streams(a)?, self.tree.streams(b)?);
        if streams_a != streams_b {
            return Ok(false);
        }
        for stream in streams_a {
            if !self.same_content(a, b, Some(&stream.name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says whether two contents are equal, reading them only where they may differ.
    pub fn same_content(&self, a: NodeId, b: NodeId, stream: Option<&[u8]>) -> Result<bool> {
        let (content_a, content_b) = (self.tree.open(a, stream)?, self.tree.open(b, stream)?);
        if content_a.len() != content_b.len() {
            return Ok(false);
        }
        if content_a.len() == 0 || self.lies_unchanged((a, &*content_a), (b, &*content_b))? {
            return Ok(true);
        }
        self.same_bytes(&*content_a, &*content_b)
    }

    /// Says whether both lie in the same bytes of the disk and none of those changed.
    fn lies_unchanged(&self, a: (NodeId, &dyn Content), b: (NodeId, &dyn Content)) -> Result<bool> {
        let place = |(node, content): (NodeId, &dyn Content)| -> Result<Option<Vec<Range<u64>>>> {
            let Some(origin) = self.tree.origin(node)? else { return Ok(None) };
            let (Some(partition), Some(places)) = (origin.partition, content.places()) else { return Ok(None) };
            let moved = |at: u64| at.saturating_add(partition.start);
            Ok(Some(places.into_iter().map(|range| moved(range.start)..moved(range.end)).collect()))
        };
        let (Some(places_a), Some(places_b)) = (place(a)?, place(b)?) else { return Ok(false) };
        if places_a != places_b || places_a.is_empty() {
            return Ok(false);
        }
        Ok(places_a.iter().all(|range| match self.changed.run_at(range.start) {
            None => true,
            Some((end, inside)) => !inside && end >= range.end,
        }))
    }

    fn same_bytes(&self, a: &dyn Content, b: &dyn Content) -> Result<bool> {
        let (mut buf_a, mut buf_b) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < a.len() {
            self.cancel.check()?;
            let len = usize::try_from(a.len().saturating_sub(at).min(PIECE)).expect("at most a piece");
            buf_a.resize(len, 0);
            buf_b.resize(len, 0);
            a.read_at(&mut buf_a, at)?;
            b.read_at(&mut buf_b, at)?;
            if buf_a != buf_b {
                return Ok(false);
            }
            at = at.saturating_add(buf_len(&buf_a));
        }
        Ok(true)
    }
}
