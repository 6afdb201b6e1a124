//! The files of a volume.
//!
//! A node is the byte of the partition where its 8.3 entry lies, the root is 0. Times are local times of whoever wrote them, and are shown
//! as if they were UTC: the volume does not say where that was.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, OnceLock};

use crate::bytes::array;
use crate::disk::read_vec;
use crate::error::{Error, Result};
use crate::filesystem::chain::all::Owner;
use crate::filesystem::chain::content::{ClusterContent, Runs};
use crate::filesystem::chain::table::Next;
use crate::filesystem::dos_time::time;
use crate::filesystem::fat::boot::Root;
use crate::filesystem::fat::code_page::cp437;
use crate::filesystem::fat::directory::{MAX_LEN, SLOT, Short, Slot};
use crate::filesystem::fat::volume::{Found, Place, Volume};
use crate::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use crate::filesystem::listing::{Listing, Listings, Read, is_name, no_folder, no_node};
use crate::filesystem::{Summary, UsedBlocks, utf16};

/// The root directory.
const ROOT: u64 = 0;
/// Attribute bits that Windows shows: read-only, hidden, system, directory, archive.
const SHOWN: u8 = 0x37;
/// The one of a directory.
const DIRECTORY: u32 = 0x10;

/// A volume, and what was read of it.
#[derive(Debug)]
pub struct Files {
    volume: Volume,
    listings: Listings,
    /// Free clusters, counted once.
    free: OnceLock<u64>,
}

impl Files {
    /// Shows the files of a volume.
    pub fn new(volume: Volume) -> Self {
        Self { volume, listings: Listings::default(), free: OnceLock::new() }
    }

    /// The 8.3 entry of a node that is not the root.
    fn entry(&self, node: u64) -> Result<Short> {
        let boot = &self.volume.boot;
        let inside = |range: &Range<u64>| range.contains(&node);
        let in_root = matches!(&boot.root, Root::Area(area) if inside(area));
        if !node.is_multiple_of(32) || !(in_root || inside(&(boot.data_offset..boot.data_end()))) {
            return Err(no_node(node));
        }
        let bytes = read_vec(&self.volume.disk, node, SLOT)?;
        match Slot::parse(&array(&bytes, 0).expect("as long as it was read")) {
            Slot::Short(short) if !short.is_label() && !short.is_dot() => Ok(short),
            _ => Err(no_node(node)),
        }
    }

    fn place(&self, folder: u64) -> Result<Place> {
        if folder == ROOT {
            return Ok(Place::Root);
        }
        let entry = self.entry(folder)?;
        if !entry.is_directory() {
            return Err(no_folder(folder));
        }
        Ok(Place::Chain(self.volume.first_cluster(&entry)))
    }

    fn read(&self, place: Place) -> Read {
        let mut listing = Listing::default();
        let outcome = self.volume.entries(place, &mut |found| {
            if let Some((entry, keys)) = named(&found) {
                listing.push(entry, keys);
            }
            Ok(ControlFlow::Continue(()))
        });
        Read { listing, outcome }
    }

    /// Bytes of the clusters of a directory.
    fn directory_len(&self, place: Place) -> Result<u64> {
        let start = match (place, &self.volume.boot.root) {
            (Place::Root, Root::Area(area)) => return Ok(area.end.saturating_sub(area.start)),
            (Place::Root, Root::Chain(start)) => *start,
            (Place::Chain(start), _) => start,
        };
        let owner = Owner { kind: "FAT directory", place: self.volume.boot.place(start) };
        let heap = self.volume.boot.heap();
        // One cluster more than there can be, so that a longer chain is told from the longest one.
        let most = heap.clusters(MAX_LEN).unwrap_or(u32::MAX).saturating_add(1);
        let clusters = Runs::follow(&self.volume.table, start, most, owner)?.clusters();
        if clusters >= most {
            return Err(owner.corrupt("it is longer than a directory can be"));
        }
        Ok(u64::from(clusters).saturating_mul(heap.cluster_size))
    }

    fn free(&self) -> Result<u64> {
        if let Some(free) = self.free.get() {
            return Ok(*free);
        }
        let mut cursor = self.volume.table.cursor();
        let mut clusters = 0_u64;
        for cluster in (2_u32..).take(usize::try_from(self.volume.boot.cluster_count).expect("32 bits")) {
            clusters = clusters.saturating_add(u64::from(cursor.next(cluster)? == Next::Free));
        }
        Ok(*self.free.get_or_init(|| clusters.saturating_mul(self.volume.boot.cluster_size)))
    }
}

/// A name as it is compared.
fn key(units: &[u16]) -> Vec<u8> {
    utf16::to_wtf8(&utf16::simple_upper_case(units))
}

/// An entry as it is shown, with all the names by which it is found; `None` where it has no name that can be shown.
fn named(found: &Found) -> Option<(Entry, Vec<Vec<u8>>)> {
    let short = found.short.shown(cp437);
    let mut keys = vec![key(&short.encode_utf16().collect::<Vec<_>>())];
    let mut name = short.into_bytes();
    if let Some(long) = &found.long {
        let shown = utf16::to_wtf8(long);
        // A long name that no system lets anybody write does not hide the file.
        if is_name(&shown) {
            keys.insert(0, key(long));
            name = shown;
        }
    }
    let kind = if found.short.is_directory() { NodeKind::Folder } else { NodeKind::File };
    is_name(&name).then_some((Entry { name, node: NodeId(found.place), kind: Some(kind) }, keys))
}

/// Dates of which 0 says that there is none.
fn stamp((clock, date): (u16, u16), hundredths: u8) -> Option<Time> {
    time(date, clock, hundredths)
}

impl FileSystem for Files {
    fn summary(&self) -> Summary {
        UsedBlocks::summary(&self.volume)
    }

    fn space(&self) -> Result<Space> {
        let boot = &self.volume.boot;
        let total = u64::from(boot.cluster_count).saturating_mul(boot.cluster_size);
        Ok(Space { total, free: self.free()?, nodes: 0, nodes_free: 0 })
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT)
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let entry = if node.0 == ROOT { None } else { Some(self.entry(node.0)?) };
        let cluster_size = self.volume.boot.cluster_size;
        let folder = entry.is_none_or(|entry| entry.is_directory());
        let (len, allocated) = match &entry {
            Some(entry) if !folder => {
                let len = u64::from(entry.len);
                let clusters = if self.volume.first_cluster(entry) == 0 { 0 } else { len.div_ceil(cluster_size) };
                (len, clusters.saturating_mul(cluster_size))
            }
            _ => {
                let len = self.directory_len(self.place(node.0)?)?;
                (len, len)
            }
        };
        Ok(Attributes {
            kind: if folder { NodeKind::Folder } else { NodeKind::File },
            len,
            allocated,
            links: 1,
            permissions: None,
            uid: None,
            gid: None,
            modified: entry.and_then(|entry| stamp(entry.modified, 0)),
            accessed: entry.and_then(|entry| stamp((0, entry.accessed), 0)),
            changed: None,
            created: entry.and_then(|entry| stamp(entry.created, entry.created_hundredths)),
            dos_attributes: Some(entry.map_or(DIRECTORY, |entry| u32::from(entry.attributes & SHOWN))),
        })
    }

    /// By the long name and by the 8.3 name, without regard to case.
    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let place = self.place(folder.0)?;
        let Some(units) = utf16::from_wtf8(name) else { return Ok(None) };
        self.listings.find(folder.0, &key(&units), || self.read(place))
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let place = self.place(folder.0)?;
        self.listings.list(folder.0, visit, || self.read(place))
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let entry = if node.0 == ROOT { None } else { Some(self.entry(node.0)?) };
        let Some(entry) = entry.filter(|entry| !entry.is_directory() && stream.is_none()) else {
            return Err(Error::NotFound(format!("node {} has no such content", node.0)));
        };
        let owner = Owner { kind: "FAT directory entry", place: node.0 };
        let (heap, len) = (self.volume.boot.heap(), u64::from(entry.len));
        let start = self.volume.first_cluster(&entry);
        // A chain that is longer than the file is of no interest, and one without a start is told when it is read.
        let most = if start == 0 { 0 } else { heap.clusters(len).expect("a file of 32 bits") };
        let runs = Runs::follow(&self.volume.table, start, most, owner)?;
        Ok(Box::new(ClusterContent { disk: Arc::clone(&self.volume.disk), heap, runs, len, valid_len: len, owner }))
    }

    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(Error::NotFound(format!("node {} is no symbolic link", node.0)))
    }

    fn streams(&self, _node: NodeId) -> Result<Vec<StreamEntry>> {
        Ok(Vec::new())
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }
}
