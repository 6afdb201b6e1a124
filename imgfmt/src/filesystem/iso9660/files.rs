//! The files of a volume. A node is the byte of the image where its (first) directory record lies.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::filesystem::files::{Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Xattr};
use crate::filesystem::iso9660::record::{Record, flag};
use crate::filesystem::iso9660::rock_ridge::RockRidge;
use crate::filesystem::iso9660::volume::{Names, SECTOR, Volume, plain_name};
use crate::filesystem::listing::{Listing, Listings, Read, no_folder, no_node};
use crate::filesystem::{Summary, utf16};

/// Records of one file, at the most: 32 TiB of it.
const MAX_SECTIONS: usize = 8192;

/// A volume, and what was read of it.
#[derive(Debug)]
pub struct Files {
    volume: Volume,
    listings: Listings,
}

/// A node with all that its records say.
struct Node {
    record: Record,
    extra: RockRidge,
}

impl Node {
    fn kind(&self) -> NodeKind {
        let by_flag = if self.record.is_directory() { NodeKind::Folder } else { NodeKind::File };
        // A moved directory leaves a file that names it. What has no extents of a directory is none, whatever its mode says.
        match self.extra.kind() {
            _ if self.extra.child.is_some() || self.record.is_directory() => NodeKind::Folder,
            Some(NodeKind::Folder) | None => by_flag,
            Some(kind) => kind,
        }
    }
}

impl Files {
    /// Shows the files of a volume.
    pub fn new(volume: Volume) -> Self {
        Self { volume, listings: Listings::default() }
    }

    fn node(&self, node: NodeId) -> Result<Node> {
        let place = node.0;
        let record = self.volume.record(place).map_err(|error| match error {
            Error::Corrupt { .. } => no_node(place),
            other => other,
        })?;
        let extra = self.volume.extra(&record, place)?;
        // A directory that was moved, and the root, say what they are in the first record of their own.
        let (own, child) = match extra.child {
            Some(child) => (child, true),
            None if place == self.volume.root => (record.block, false),
            None => return Ok(Node { record, extra }),
        };
        let dot = self.volume.dot(u64::from(own))?;
        let dot = dot.ok_or_else(|| Error::corrupt("ISO 9660 directory", place, "it does not start with itself"))?;
        let own = RockRidge { child: extra.child, ..self.volume.extra(&dot, place)? };
        Ok(Node { record: if child { dot } else { record }, extra: own })
    }

    /// Block and bytes of a directory.
    fn directory(&self, folder: NodeId) -> Result<(u64, u64)> {
        let node = self.node(folder)?;
        if !node.record.is_directory() {
            return Err(no_folder(folder.0));
        }
        let start = u64::from(node.record.block).saturating_add(u64::from(node.record.attribute_blocks));
        Ok((start, u64::from(node.record.len)))
    }

    fn read(&self, (block, len): (u64, u64)) -> Read {
        let mut listing = Listing::default();
        let mut more = false;
        let outcome = self.volume.scan(block, len, &mut |place, record| {
            // Records behind the first of a file belong to it.
            let first = !std::mem::replace(&mut more, record.flags & flag::MORE != 0);
            if first && record.flags & flag::ASSOCIATED == 0 {
                let extra = self.volume.extra(&record, place)?;
                if !extra.relocated {
                    self.push(&mut listing, place, Node { record, extra });
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        Read { listing, outcome }
    }

    fn push(&self, listing: &mut Listing, place: u64, node: Node) {
        let kind = Some(node.kind());
        let names = self.volume.names;
        let name = node.extra.name.unwrap_or_else(|| plain_name(names, &node.record.name));
        let mut keys = vec![name.clone()];
        keys.extend(folded(names, &name));
        listing.push(Entry { name, node: NodeId(place), kind }, keys);
    }

    /// The records of a file, which follow each other.
    fn sections(&self, node: NodeId, first: Record) -> Result<Vec<Section>> {
        let corrupt = |reason| Error::corrupt("ISO 9660 directory record", node.0, reason);
        let mut sections = Vec::new();
        let (mut place, mut record) = (node.0, first);
        let name = record.name.clone();
        let mut offset = 0_u64;
        for _ in 0..MAX_SECTIONS {
            if record.interleaved {
                return Err(Error::unsupported("ISO 9660 file", "interleaved extents"));
            }
            let block = u64::from(record.block).saturating_add(u64::from(record.attribute_blocks));
            let start = block.saturating_mul(self.volume.block_size);
            let len = u64::from(record.len);
            if check_range(start, len, self.volume.disk.len()).is_err() {
                return Err(corrupt("its content lies past the end of the volume"));
            }
            if len > 0 {
                sections.push(Section { offset, place: start..start.saturating_add(len) });
            }
            offset = offset.saturating_add(len);
            if record.flags & flag::MORE == 0 {
                return Ok(sections);
            }
            place = place.saturating_add(u64::try_from(record.record_len).expect("at most 255"));
            record = match self.volume.record(place) {
                Ok(next) => next,
                // The next one lies in the next sector.
                Err(Error::Corrupt { .. }) => {
                    place = place.div_ceil(SECTOR).saturating_mul(SECTOR);
                    self.volume.record(place)?
                }
                Err(other) => return Err(other),
            };
            if record.name != name {
                return Err(corrupt("its last extent is missing"));
            }
        }
        Err(corrupt("it has too many extents"))
    }
}

/// The name as it is compared without regard to case, where that is done; no name looks like it.
fn folded(names: Names, name: &[u8]) -> Option<Vec<u8>> {
    if matches!(names, Names::RockRidge(_)) {
        return None;
    }
    let upper = match utf16::from_wtf8(name) {
        Some(units) => utf16::to_wtf8(&utf16::simple_upper_case(&units)),
        None => name.to_ascii_uppercase(),
    };
    Some([&[0][..], &upper].concat())
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    /// Where it starts in the file.
    offset: u64,
    /// Where it lies; never empty.
    place: Range<u64>,
}

/// Bytes of all sections of a file.
fn len_of(sections: &[Section]) -> u64 {
    let end = |last: &Section| last.place.end.saturating_sub(last.place.start).saturating_add(last.offset);
    sections.last().map_or(0, end)
}

/// The content of a file.
struct Sections {
    disk: Arc<dyn Disk>,
    sections: Vec<Section>,
    len: u64,
}

impl std::fmt::Debug for Sections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sections").field("sections", &self.sections).finish_non_exhaustive()
    }
}

impl Sections {
    /// Where the bytes from `offset` (below the length) on lie.
    fn piece(&self, offset: u64) -> Range<u64> {
        let next = self.sections.partition_point(|section| section.offset <= offset);
        let section = next.checked_sub(1).and_then(|index| self.sections.get(index)).expect("the first starts at 0");
        let within = offset.saturating_sub(section.offset);
        section.place.start.saturating_add(within)..section.place.end
    }
}

impl Content for Sections {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let piece = self.piece(at);
            let len = usize::try_from(piece.end.saturating_sub(piece.start)).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.disk.read_at(now, piece.start)?;
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let piece = self.piece(offset);
        Ok(Extent { offset, len: piece.end.saturating_sub(piece.start), kind: ExtentKind::Data })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        Some(self.sections.iter().map(|section| section.place.clone()).collect())
    }
}

impl FileSystem for Files {
    fn summary(&self) -> Summary {
        let date = &self.volume.date;
        let part = |range: Range<usize>| date.get(range).unwrap_or_default();
        let id = [part(0..4), part(4..6), part(6..8), part(8..10), part(10..12), part(12..14), part(14..16)].join("-");
        Summary {
            kind: "ISO 9660",
            label: self.volume.label.clone(),
            id: if date.is_empty() { String::new() } else { id },
            block_size: self.volume.block_size,
            len: self.volume.len,
        }
    }

    fn space(&self) -> Result<Space> {
        Ok(Space { total: self.volume.len, free: 0, nodes: 0, nodes_free: 0 })
    }

    fn root(&self) -> NodeId {
        NodeId(self.volume.root)
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let found = self.node(node)?;
        let kind = found.kind();
        let extra = &found.extra;
        let len = match kind {
            NodeKind::Symlink => extra.link_target().map_or(0, |target| buf_len(target)),
            // Where its content cannot be read, the first record tells the length that it claims.
            NodeKind::File => match self.sections(node, found.record.clone()) {
                Ok(sections) => len_of(&sections),
                Err(_) => u64::from(found.record.len),
            },
            NodeKind::Folder => u64::from(found.record.len),
            _ => 0,
        };
        let stored = if matches!(kind, NodeKind::File | NodeKind::Folder) { len } else { 0 };
        let unix = extra.mode.is_some();
        let hidden = if found.record.flags & flag::HIDDEN != 0 { 0x02 } else { 0 };
        let directory = if kind == NodeKind::Folder { 0x10 } else { 0 };
        Ok(Attributes {
            kind,
            len,
            allocated: stored.div_ceil(self.volume.block_size).saturating_mul(self.volume.block_size),
            links: extra.links.max(1),
            permissions: extra.mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()),
            uid: unix.then_some(extra.uid),
            gid: unix.then_some(extra.gid),
            modified: extra.modified.or(found.record.recorded),
            accessed: extra.accessed,
            changed: extra.changed,
            created: extra.created,
            dos_attributes: (!unix).then_some(0x01 | hidden | directory),
        })
    }

    /// Names of Rock Ridge are compared byte by byte; others at first so, then without regard to case.
    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let directory = self.directory(folder)?;
        // The folded key starts with a byte that no name holds.
        if name.first() == Some(&0) {
            return Ok(None);
        }
        let exact = self.listings.find(folder.0, name, || self.read(directory));
        match (exact, folded(self.volume.names, name)) {
            (Ok(None), Some(key)) => self.listings.find(folder.0, &key, || self.read(directory)),
            (exact, _) => exact,
        }
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let directory = self.directory(folder)?;
        self.listings.list(folder.0, visit, || self.read(directory))
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let found = self.node(node)?;
        if found.kind() != NodeKind::File || stream.is_some() {
            return Err(Error::NotFound(format!("node {} has no such content", node.0)));
        }
        if let Some(feature) = found.extra.unsupported {
            return Err(Error::unsupported("ISO 9660 file", feature));
        }
        let sections = self.sections(node, found.record)?;
        let len = len_of(&sections);
        Ok(Box::new(Sections { disk: Arc::clone(&self.volume.disk), sections, len }))
    }

    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        let found = self.node(node)?;
        found
            .extra
            .link_target()
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("node {} is no symbolic link", node.0)))
    }

    fn streams(&self, _node: NodeId) -> Result<Vec<StreamEntry>> {
        Ok(Vec::new())
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}
