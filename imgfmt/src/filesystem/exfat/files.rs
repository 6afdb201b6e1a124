//! The files of a volume.
//!
//! A node is the byte of the partition where its set of entries starts, in units of 16 bytes; since sets start every 32 bytes, there is a bit left that
//! says whether the directory lies in clusters that follow each other, which tells where a set goes on that crosses a cluster's end. The root
//! is 0.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use crate::bytes::array;
use crate::disk::read_vec;
use crate::error::{Error, Result};
use crate::filesystem::chain::all::Owner;
use crate::filesystem::chain::content::{ClusterContent, Runs};
use crate::filesystem::chain::table::Next;
use crate::filesystem::dos_time::time;
use crate::filesystem::exfat::directory::{Allocation, File, Item, SLOT, Sets, Stamp, Step, following};
use crate::filesystem::exfat::upcase::Upcase;
use crate::filesystem::exfat::volume::Volume;
use crate::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use crate::filesystem::listing::{Listing, Listings, Read, no_folder, no_node};
use crate::filesystem::{Summary, UsedBlocks, utf16};

/// The root directory.
const ROOT: u64 = 0;
/// Attribute bits that Windows shows: read-only, hidden, system, directory, archive.
const SHOWN: u16 = 0x37;
/// The one of a directory.
const DIRECTORY: u32 = 0x10;

/// A volume, and what was read of it.
#[derive(Debug)]
pub struct Files {
    volume: Volume,
    listings: Listings,
    upcase: OnceLock<Upcase>,
    /// Free bytes, counted once.
    free: OnceLock<u64>,
}

/// The number of the node whose set starts at byte `place` of a directory.
fn node(place: u64, directory: Allocation) -> NodeId {
    NodeId((place / 16) | u64::from(directory.contiguous))
}

impl Files {
    /// Shows the files of a volume.
    pub fn new(volume: Volume) -> Self {
        Self { volume, listings: Listings::default(), upcase: OnceLock::new(), free: OnceLock::new() }
    }

    fn upcase(&self) -> Result<&Upcase> {
        if let Some(upcase) = self.upcase.get() {
            return Ok(upcase);
        }
        let upcase = Upcase::read(&self.volume)?;
        Ok(self.upcase.get_or_init(|| upcase))
    }

    /// The set of a node that is not the root.
    fn file(&self, node: u64) -> Result<File> {
        let boot = &self.volume.boot;
        let contiguous = node & 1 != 0;
        let place = (node & !1).checked_mul(16).filter(|place| place % 32 == 0);
        let within = place.and_then(|place| place.checked_sub(boot.heap_offset));
        let cluster = within.and_then(|within| u32::try_from(within.checked_div(boot.cluster_size)?).ok());
        let cluster =
            cluster.and_then(|cluster| cluster.checked_add(2)).filter(|cluster| self.volume.table.has(*cluster));
        let (Some(mut at), Some(mut cluster)) = (place, cluster) else { return Err(no_node(node)) };
        let first = self.slot(at)?;
        if following(&first).is_none() {
            return Err(no_node(node));
        }
        let mut sets = Sets::default();
        let mut slot = first;
        loop {
            match sets.push(at, &slot) {
                Step::Nothing => {}
                Step::Set(_, Item::File(file)) => return Ok(*file),
                Step::Set(place, Item::Broken(reason)) => return Err(broken(place, reason)),
                _ => return Err(broken(place.unwrap_or(0), "entries of the set are missing")),
            }
            at = at.saturating_add(32);
            if at == self.volume.cluster_bytes(cluster, 1).end {
                let next = match contiguous {
                    true => Next::Cluster(cluster.saturating_add(1)),
                    false => self.volume.table.cursor().next(cluster)?,
                };
                match next {
                    Next::Cluster(next) if self.volume.table.has(next) => cluster = next,
                    _ => return Err(broken(at, "entries of the set are missing")),
                }
                at = boot.place(cluster);
            }
            slot = self.slot(at)?;
        }
    }

    fn slot(&self, at: u64) -> Result<[u8; SLOT]> {
        let bytes = read_vec(&self.volume.disk, at, SLOT)?;
        Ok(array(&bytes, 0).expect("as long as it was read"))
    }

    fn directory(&self, folder: u64) -> Result<Allocation> {
        if folder == ROOT {
            return Ok(self.volume.root());
        }
        let file = self.file(folder)?;
        if file.is_directory() { Ok(file.data) } else { Err(no_folder(folder)) }
    }

    fn read(&self, directory: Allocation, upcase: &Upcase) -> Read {
        let mut listing = Listing::default();
        let mut first_broken = None;
        let outcome = self.volume.scan(directory, &mut |place, item| {
            match item {
                Item::File(file) => {
                    let kind = Some(if file.is_directory() { NodeKind::Folder } else { NodeKind::File });
                    let entry = Entry { name: utf16::to_wtf8(&file.name), node: node(place, directory), kind };
                    listing.push(entry, [utf16::to_wtf8(&upcase.upper_case(&file.name))]);
                }
                // What lies behind is whole again.
                Item::Broken(reason) => first_broken = first_broken.take().or(Some((place, reason))),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        });
        let outcome = outcome.and(match first_broken {
            Some((place, reason)) => Err(broken(place, reason)),
            None => Ok(()),
        });
        Read { listing, outcome }
    }

    fn free(&self) -> Result<u64> {
        if let Some(free) = self.free.get() {
            return Ok(*free);
        }
        let (start, end) = (self.volume.boot.heap_offset, self.volume.boot.heap_end());
        let used = self.volume.allocated()?.clipped(end).total().saturating_sub(start);
        Ok(*self.free.get_or_init(|| end.saturating_sub(start).saturating_sub(used)))
    }
}

fn broken(place: u64, reason: &'static str) -> Error {
    Error::corrupt("exFAT directory entry", place, reason)
}

/// The moment of a stamp: in UTC where it says how far its local time was from that, else as if it were.
fn moment(stamp: Stamp) -> Option<Time> {
    let [low, high] = [stamp.time & 0xffff, stamp.time >> 16].map(|half| u16::try_from(half).expect("sixteen bits"));
    let local = time(high, low, stamp.hundredths)?;
    let quarters = if stamp.utc_offset & 0x80 == 0 {
        0
    } else {
        // Seven bits with a sign, moved up to where a byte has its own.
        i64::from((stamp.utc_offset << 1).cast_signed() / 2)
    };
    Some(Time { seconds: local.seconds.checked_sub(quarters.checked_mul(900)?)?, ..local })
}

impl FileSystem for Files {
    fn summary(&self) -> Summary {
        UsedBlocks::summary(&self.volume)
    }

    fn space(&self) -> Result<Space> {
        let boot = &self.volume.boot;
        let total = boot.heap_end().saturating_sub(boot.heap_offset);
        Ok(Space { total, free: self.free()?, nodes: 0, nodes_free: 0 })
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT)
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let cluster_size = self.volume.boot.cluster_size;
        if node.0 == ROOT {
            let mut len = 0_u64;
            self.volume.clusters(self.volume.root(), &mut |_, _| {
                len = len.saturating_add(cluster_size);
                Ok(ControlFlow::Continue(()))
            })?;
            return Ok(Attributes {
                kind: NodeKind::Folder,
                len,
                allocated: len,
                links: 1,
                permissions: None,
                uid: None,
                gid: None,
                modified: None,
                accessed: None,
                changed: None,
                created: None,
                dos_attributes: Some(DIRECTORY),
            });
        }
        let file = self.file(node.0)?;
        Ok(Attributes {
            kind: if file.is_directory() { NodeKind::Folder } else { NodeKind::File },
            len: file.data.len,
            allocated: file.data.len.div_ceil(cluster_size).saturating_mul(cluster_size),
            links: 1,
            permissions: None,
            uid: None,
            gid: None,
            modified: moment(file.modified),
            accessed: moment(file.accessed),
            changed: None,
            created: moment(file.created),
            dos_attributes: Some(u32::from(file.attributes & SHOWN)),
        })
    }

    /// Without regard to case, as the up-case table of the volume says.
    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let directory = self.directory(folder.0)?;
        let Some(units) = utf16::from_wtf8(name) else { return Ok(None) };
        let upcase = self.upcase()?;
        let key = utf16::to_wtf8(&upcase.upper_case(&units));
        self.listings.find(folder.0, &key, || self.read(directory, upcase))
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let directory = self.directory(folder.0)?;
        let upcase = self.upcase()?;
        self.listings.list(folder.0, visit, || self.read(directory, upcase))
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let file = if node.0 == ROOT { None } else { Some(self.file(node.0)?) };
        let Some(file) = file.filter(|file| !file.is_directory() && stream.is_none()) else {
            return Err(Error::NotFound(format!("node {} has no such content", node.0)));
        };
        let owner = Owner { kind: "exFAT directory entry", place: (node.0 & !1).saturating_mul(16) };
        let (heap, table) = (self.volume.boot.heap(), &self.volume.table);
        // Clusters behind what was written hold nothing that is read.
        let clusters = heap.clusters(file.valid_len).filter(|clusters| *clusters <= self.volume.boot.cluster_count);
        let clusters = clusters.ok_or_else(|| owner.corrupt("it is longer than the volume"))?;
        let runs = if file.data.contiguous {
            Runs::contiguous(table, file.data.start, clusters, owner)?
        } else {
            Runs::follow(table, file.data.start, clusters, owner)?
        };
        let (len, valid_len) = (file.data.len, file.valid_len);
        Ok(Box::new(ClusterContent { disk: Arc::clone(&self.volume.disk), heap, runs, len, valid_len, owner }))
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
