//! The tree that people see in a mount, built once for every front: FUSE, Dokan and the shell commands only translate.
//!
//! A hikae image has a folder for each generation, and `latest`:
//!
//! ```text
//! 0012_2026-11-15T093000Z/    number, UTC
//!     disk.raw                the whole disk, and the same as a file of each format that can hold it:
//!     disk.vmdk disk-flat.vmdk disk.vhd disk.vhdx disk.vdi disk.qcow2
//!     README.txt              where one of them is missing: why
//!     p1/ ... pN/             files of the partitions
//!     p1.raw ... pN.raw       the partitions
//!     vg-lv/  vg-lv.raw       LVM2 logical volumes
//! latest -> 0012_2026-11-15T093000Z
//! ```
//!
//! Any other disk (a raw file, a device, another image format, one generation alone) is shown without the level of generations: `disk.raw`
//! and `p1` lie at the root. Files of disks are computed as they are read ([`crate::view`]). A folder whose files cannot be shown holds one file, `README.txt`, which says what lies there and how to get at it;
//! it is never an empty folder. What is damaged is an error of its own kind, never a folder that looks whole.
//!
//! The tree is itself a [`FileSystem`], so whoever can walk one can walk the other. It does not change: generations that are added while it
//! is open are not in it. With an overlay, the files of one disk take writes ([`Tree::with_overlay`]), and nothing else does.

pub mod content;
pub mod disk_folder;
pub mod node;
pub mod notice;
pub mod resolve;
pub mod volume;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::filesystem::Summary;
use crate::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use crate::format::identity::Identity;
use crate::image::Image;
use crate::image::catalogue::GenerationEntry;
use crate::image::record::folder_name;
use crate::overlay::Overlay;
use crate::tree::disk_folder::{DiskFolder, Item};
use crate::tree::node::{Domain, Domains, FOLDER};
use crate::tree::volume::Volume;
use crate::view::writable::WritableView;

/// The link to the highest generation, at the root.
const LATEST: u64 = 2;
/// Its name.
const LATEST_NAME: &[u8] = b"latest";

/// How a tree is opened.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// Generations whose tables are kept in memory.
    pub generations: usize,
    /// Filesystems that are kept open.
    pub filesystems: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { generations: 128, filesystems: 64 }
    }
}

/// What the tree shows.
enum Shown {
    /// The generations of an image.
    Image(Arc<Image>),
    /// One disk.
    Disk(Arc<DiskFolder>),
}

/// The tree. Any number of threads may use it at once.
pub struct Tree {
    shown: Shown,
    /// The generation whose files take writes, and its folder.
    over: Option<(u32, Arc<DiskFolder>)>,
    domains: Domains,
    disks: Cache<u32, Arc<DiskFolder>>,
    volumes: Cache<(u32, u32), Arc<Volume>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("domains", &self.domains).finish_non_exhaustive()
    }
}

/// Where a node lies, with what answers for it.
enum Place {
    /// The root of an image, or `latest`.
    Top(u64),
    /// The folder of a disk, or a file in it.
    Disk(Arc<DiskFolder>, u32, u64),
    /// A node of a filesystem.
    Volume(Inside),
}

/// Where a node of a filesystem comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node as its filesystem counts.
    pub node: NodeId,
    /// Bytes of the disk that the filesystem's partition takes; `None` for a logical volume.
    pub partition: Option<Range<u64>>,
}

/// A node of a filesystem.
struct Inside {
    volume: Arc<Volume>,
    /// The node as the filesystem counts.
    node: NodeId,
    /// The domain that its nodes are in.
    slot: u32,
    /// The filesystem's root as the tree counts.
    folder: NodeId,
}

impl Tree {
    /// Shows all generations of an image.
    pub fn of_image(image: Arc<Image>, options: &TreeOptions) -> Self {
        Self::open(Shown::Image(image), options)
    }

    /// Shows one disk; its identity also tells when it was captured (0 where that is not known).
    pub fn of_disk(disk: Arc<dyn Disk>, identity: &Identity, options: &TreeOptions) -> Self {
        Self::open(Shown::Disk(Arc::new(DiskFolder::open(disk, identity))), options)
    }

    fn open(shown: Shown, options: &TreeOptions) -> Self {
        let root = match &shown {
            Shown::Image(_) => Domain::Top,
            Shown::Disk(_) => Domain::Disk(0),
        };
        Self {
            shown,
            over: None,
            domains: Domains::new(root),
            disks: Cache::new(options.generations.max(1)),
            volumes: Cache::new(options.filesystems.max(1)),
        }
    }

    /// Lets the files of a generation's disk take writes, which go to `overlay`; of the one disk, whatever the number, where there is only one.
    ///
    /// Fails where the overlay is of a disk of another length or sector size.
    pub fn with_overlay(mut self, generation: u32, overlay: &Overlay) -> Result<Self> {
        let over = Arc::new(self.disk_folder(generation)?.over(overlay)?);
        match &self.shown {
            Shown::Disk(_) => self.shown = Shown::Disk(over),
            Shown::Image(_) => self.over = Some((generation, over)),
        }
        Ok(self)
    }

    /// Returns once everything that was written to its files is durable.
    pub fn flush(&self) -> Result<()> {
        match (&self.over, &self.shown) {
            (Some((_, folder)), _) | (None, Shown::Disk(folder)) => folder.flush(),
            (None, Shown::Image(_)) => Ok(()),
        }
    }

    /// Says whether something in the tree takes writes.
    pub fn takes_writes(&self) -> bool {
        match &self.shown {
            Shown::Disk(disk) => disk.takes_writes(),
            Shown::Image(_) => self.over.is_some(),
        }
    }

    /// The file `node` where it takes writes.
    pub fn writable(&self, node: NodeId) -> Result<Option<Arc<WritableView>>> {
        if !self.takes_writes() {
            return Ok(None);
        }
        match self.place(node)? {
            Place::Disk(disk, _, number) => match disk.item(number) {
                Some(Item::File { writable, .. }) => Ok(writable.clone()),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Says whether `node` is a folder with files that take writes.
    pub fn has_writable_files(&self, node: NodeId) -> Result<bool> {
        Ok(self.takes_writes() && matches!(self.place(node)?, Place::Disk(disk, _, FOLDER) if disk.takes_writes()))
    }

    /// The folder of a generation; the root of a tree that shows one disk, whatever the number.
    pub fn generation(&self, number: u32) -> Result<NodeId> {
        match &self.shown {
            Shown::Disk(_) => Ok(self.root()),
            Shown::Image(image) => match find(image, number) {
                Some(_) => self.domains.node(Domain::Disk(number), FOLDER),
                None => Err(Error::NotFound(format!("there is no generation {number}"))),
            },
        }
    }

    /// The disk whose folder `node` lies in; `None` for the root of an image.
    pub fn disk_of(&self, node: NodeId) -> Result<Option<Arc<dyn Disk>>> {
        let domain = self.domains.domain(node)?.0;
        let generation = match domain {
            Domain::Top => return Ok(None),
            Domain::Disk(generation) | Domain::Volume(generation, _) => generation,
        };
        Ok(Some(Arc::clone(self.disk_folder(generation)?.disk())))
    }

    /// Where a node comes from; `None` outside of filesystems.
    pub fn origin(&self, node: NodeId) -> Result<Option<Origin>> {
        let (domain, _, number) = self.domains.domain(node)?;
        let (generation, index, inside) = match domain {
            Domain::Top => return Ok(None),
            Domain::Volume(generation, index) => (generation, index, Some(NodeId(number))),
            Domain::Disk(generation) => match self.disk_folder(generation)?.item(number) {
                Some(Item::Volume { index, .. }) => (generation, *index, None),
                _ => return Ok(None),
            },
        };
        let volume = self.volume(generation, index)?;
        if volume.files().is_none() {
            return Ok(None);
        }
        let partition = self.disk_folder(generation)?.range_of_volume(index);
        Ok(Some(Origin { node: inside.unwrap_or(volume.root()), partition }))
    }

    /// Says whether `node` is the root folder of a filesystem, or of a volume whose files are not read.
    pub fn is_filesystem_root(&self, node: NodeId) -> bool {
        match self.place(node) {
            Ok(Place::Volume(inside)) => inside.folder == node,
            _ => false,
        }
    }

    /// How full the filesystem is that `node` lies in; outside of filesystems, the length of the disk.
    pub fn space_at(&self, node: NodeId) -> Result<Space> {
        let of_disk = |disk: &DiskFolder| Space { total: disk.disk().len(), ..Space::default() };
        match self.place(node)? {
            Place::Top(_) => match &self.shown {
                Shown::Disk(disk) => Ok(of_disk(disk)),
                Shown::Image(image) => {
                    let total =
                        image.catalogue().packs.iter().fold(0, |sum: u64, pack| sum.saturating_add(pack.file_len));
                    Ok(Space { total, ..Space::default() })
                }
            },
            Place::Disk(disk, ..) => Ok(of_disk(&disk)),
            Place::Volume(inside) => inside.volume.space(),
        }
    }

    /// Where a node lies, for messages: `disk.raw of 0012_2026-11-15T093000Z`, `node 17 of p2 of 0012_2026-11-15T093000Z`.
    pub fn describe(&self, node: NodeId) -> String {
        let of = |generation: u32| match &self.shown {
            Shown::Image(image) => match find(image, generation) {
                Some(entry) => format!(" of {}", folder_name(entry.number, entry.created)),
                None => format!(" of generation {generation}"),
            },
            Shown::Disk(_) => String::new(),
        };
        let item = |generation: u32, number: u64| {
            let disk = self.disk_folder(generation).ok()?;
            disk.item(number).map(|item| item.name().to_owned())
        };
        match self.domains.domain(node) {
            Ok((Domain::Top, ..)) => "the root".to_owned(),
            Ok((Domain::Disk(generation), _, FOLDER)) => format!("the folder{}", of(generation)),
            Ok((Domain::Disk(generation), _, number)) => match item(generation, number) {
                Some(name) => format!("{name}{}", of(generation)),
                None => format!("file {number}{}", of(generation)),
            },
            Ok((Domain::Volume(generation, index), _, number)) => {
                let name = item(generation, disk_folder::volume_number(index));
                format!("node {number} of {}{}", name.unwrap_or_else(|| format!("volume {index}")), of(generation))
            }
            Err(_) => format!("node {}", node.0),
        }
    }

    /// What the filesystem is that `node` lies in; `None` outside of filesystems and where its files are not read.
    pub fn filesystem_at(&self, node: NodeId) -> Result<Option<Summary>> {
        match self.place(node)? {
            Place::Volume(inside) => Ok(inside.volume.files().map(FileSystem::summary)),
            _ => Ok(None),
        }
    }

    fn disk_folder(&self, generation: u32) -> Result<Arc<DiskFolder>> {
        match (&self.over, &self.shown) {
            (Some((number, over)), _) if *number == generation => return Ok(Arc::clone(over)),
            _ => {}
        }
        match &self.shown {
            Shown::Disk(disk) => Ok(Arc::clone(disk)),
            Shown::Image(image) => self.disks.get_or_insert_with(&generation, || {
                find(image, generation).ok_or_else(|| stale(generation))?;
                let disk = image.generation(generation)?;
                let (allocated, identity) = (disk.record().counts.data, disk.record().identity());
                Ok(Arc::new(DiskFolder::open(Arc::new(disk), &identity).with_allocated(allocated)))
            }),
        }
    }

    fn volume(&self, generation: u32, index: u32) -> Result<Arc<Volume>> {
        self.volumes.get_or_insert_with(&(generation, index), || {
            let disk = self.disk_folder(generation)?;
            Ok(Arc::new(Volume::open(disk.volume(index)?, disk.created())?))
        })
    }

    fn place(&self, node: NodeId) -> Result<Place> {
        let (domain, _, number) = self.domains.domain(node)?;
        match domain {
            Domain::Top => Ok(Place::Top(number)),
            Domain::Disk(generation) => {
                let disk = self.disk_folder(generation)?;
                match disk.item(number) {
                    Some(Item::Volume { index, .. }) => self.inside(generation, *index, None),
                    _ => Ok(Place::Disk(disk, generation, number)),
                }
            }
            Domain::Volume(generation, index) => self.inside(generation, index, Some(NodeId(number))),
        }
    }

    /// A node of the filesystem in volume `index`; its root where none is given.
    fn inside(&self, generation: u32, index: u32, node: Option<NodeId>) -> Result<Place> {
        let volume = self.volume(generation, index)?;
        let node = node.unwrap_or(volume.root());
        let slot = self.domains.slot(Domain::Volume(generation, index))?;
        let folder = self.domains.node(Domain::Disk(generation), disk_folder::volume_number(index))?;
        Ok(Place::Volume(Inside { volume, node, slot, folder }))
    }

    /// An entry of a filesystem as the tree counts.
    fn entry_inside(&self, inside: &Inside, entry: Entry) -> Result<Entry> {
        if entry.node == inside.volume.root() {
            return Ok(Entry { node: inside.folder, ..entry });
        }
        Ok(Entry { node: self.domains.join(inside.slot, entry.node.0)?, ..entry })
    }

    /// Lists the generations, then `latest`.
    fn list_top(&self, image: &Image, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        for entry in image.generations() {
            if visit(self.generation_entry(entry)?).is_break() {
                return Ok(());
            }
        }
        if !image.generations().is_empty() {
            let _ = visit(Entry { name: LATEST_NAME.to_vec(), node: NodeId(LATEST), kind: Some(NodeKind::Symlink) });
        }
        Ok(())
    }

    fn generation_entry(&self, entry: &GenerationEntry) -> Result<Entry> {
        Ok(Entry {
            name: folder_name(entry.number, entry.created).into_bytes(),
            node: self.domains.node(Domain::Disk(entry.number), FOLDER)?,
            kind: Some(NodeKind::Folder),
        })
    }

    fn disk_entry(&self, generation: u32, item: &Item, number: u64) -> Result<Entry> {
        let kind = match item {
            Item::Volume { .. } => NodeKind::Folder,
            Item::File { .. } => NodeKind::File,
        };
        let node = self.domains.node(Domain::Disk(generation), number)?;
        Ok(Entry { name: item.name().as_bytes().to_vec(), node, kind: Some(kind) })
    }

    fn attributes_of_top(&self, image: &Image, number: u64) -> Result<Attributes> {
        let last = image.generations().last();
        let time = last.map(|entry| seconds(entry.created));
        match number {
            FOLDER => Ok(plain(NodeKind::Folder, 0, 0, time)),
            LATEST => Ok(plain(NodeKind::Symlink, target_of_latest(image)?.len().try_into().unwrap_or(0), 0, time)),
            _ => Err(stale(number)),
        }
    }
}

fn find(image: &Image, number: u32) -> Option<&GenerationEntry> {
    image.generations().iter().find(|entry| entry.number == number)
}

fn target_of_latest(image: &Image) -> Result<Vec<u8>> {
    let last = image.generations().last().ok_or_else(|| Error::NotFound("the image has no generation yet".into()))?;
    Ok(folder_name(last.number, last.created).into_bytes())
}

fn seconds(since_1970: u64) -> Time {
    Time { seconds: i64::try_from(since_1970).unwrap_or(i64::MAX), nanoseconds: 0 }
}

/// A node that nobody gave out.
fn stale(node: impl std::fmt::Display) -> Error {
    Error::NotFound(format!("there is no node {node}"))
}

fn not_a_folder(node: NodeId) -> Error {
    Error::NotFound(format!("node {} is no folder", node.0))
}

/// Attributes of a node that the tree itself makes.
fn plain(kind: NodeKind, len: u64, allocated: u64, time: Option<Time>) -> Attributes {
    let permissions = match kind {
        NodeKind::Folder => 0o555,
        NodeKind::Symlink => 0o777,
        _ => 0o444,
    };
    Attributes {
        kind,
        len,
        allocated,
        // Not 2 for a folder: programs that count links to find subfolders then do not try.
        links: 1,
        permissions: Some(permissions),
        uid: None,
        gid: None,
        modified: time,
        accessed: time,
        changed: time,
        created: time,
        dos_attributes: None,
    }
}

/// The same with the permission to write for its owner.
fn writable(attributes: Attributes) -> Attributes {
    Attributes { permissions: attributes.permissions.map(|permissions| permissions | 0o200), ..attributes }
}

impl FileSystem for Tree {
    fn summary(&self) -> Summary {
        let len = match &self.shown {
            Shown::Disk(disk) => disk.disk().len(),
            Shown::Image(_) => 0,
        };
        Summary { kind: "hikae", len, ..Summary::default() }
    }

    fn space(&self) -> Result<Space> {
        self.space_at(self.root())
    }

    fn root(&self) -> NodeId {
        NodeId(FOLDER)
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        match self.place(node)? {
            Place::Top(number) => match &self.shown {
                Shown::Image(image) => self.attributes_of_top(image, number),
                Shown::Disk(_) => Err(stale(number)),
            },
            Place::Disk(disk, _, FOLDER) => {
                let folder = plain(NodeKind::Folder, 0, 0, Some(seconds(disk.created())));
                Ok(if disk.takes_writes() { writable(folder) } else { folder })
            }
            Place::Disk(disk, _, number) => match disk.item(number) {
                Some(Item::File { content, allocated, writable: takes_writes, .. }) => {
                    let file = plain(NodeKind::File, content.len(), *allocated, Some(seconds(disk.created())));
                    Ok(if takes_writes.is_some() { writable(file) } else { file })
                }
                _ => Err(stale(number)),
            },
            Place::Volume(Inside { volume, node, .. }) => volume.attributes(node),
        }
    }

    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        match (self.place(folder)?, &self.shown) {
            (Place::Top(FOLDER), Shown::Image(image)) => {
                if name == LATEST_NAME && !image.generations().is_empty() {
                    return Ok(Some(Entry {
                        name: name.to_vec(),
                        node: NodeId(LATEST),
                        kind: Some(NodeKind::Symlink),
                    }));
                }
                let number = std::str::from_utf8(name).ok().and_then(|name| name.split('_').next()?.parse().ok());
                match number.and_then(|number| find(image, number)) {
                    Some(entry) if folder_name(entry.number, entry.created).as_bytes() == name => {
                        self.generation_entry(entry).map(Some)
                    }
                    _ => Ok(None),
                }
            }
            (Place::Disk(disk, generation, FOLDER), _) => match disk.find(name) {
                Some((number, item)) => self.disk_entry(generation, item, number).map(Some),
                None => Ok(None),
            },
            (Place::Volume(inside), _) => match inside.volume.lookup(inside.node, name)? {
                Some(entry) => self.entry_inside(&inside, entry).map(Some),
                None => Ok(None),
            },
            _ => Err(not_a_folder(folder)),
        }
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        match (self.place(folder)?, &self.shown) {
            (Place::Top(FOLDER), Shown::Image(image)) => self.list_top(image, visit),
            (Place::Disk(disk, generation, FOLDER), _) => {
                for (number, item) in disk.items() {
                    if visit(self.disk_entry(generation, item, number)?).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            (Place::Volume(inside), _) => {
                let mut failed = None;
                inside.volume.list(inside.node, &mut |entry| match self.entry_inside(&inside, entry) {
                    Ok(entry) => visit(entry),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                })?;
                failed.map_or(Ok(()), Err)
            }
            _ => Err(not_a_folder(folder)),
        }
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        match (self.place(node)?, stream) {
            (Place::Disk(disk, _, number), None) => match disk.item(number) {
                Some(Item::File { content, .. }) => Ok(Box::new(Arc::clone(content))),
                _ => Err(stale(number)),
            },
            (Place::Volume(Inside { volume, node, .. }), stream) => volume.open_file(node, stream),
            _ => Err(Error::NotFound(format!("node {} has no such content", node.0))),
        }
    }

    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        match (self.place(node)?, &self.shown) {
            (Place::Top(LATEST), Shown::Image(image)) => target_of_latest(image),
            (Place::Volume(Inside { volume, node, .. }), _) => volume.link_target(node),
            _ => Err(Error::NotFound(format!("node {} is no symbolic link", node.0))),
        }
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>> {
        match self.place(node)? {
            Place::Volume(Inside { volume, node, .. }) => volume.streams(node),
            _ => Ok(Vec::new()),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        match self.place(node)? {
            Place::Volume(Inside { volume, node, .. }) => volume.xattrs(node),
            _ => Ok(Vec::new()),
        }
    }

    fn is_disk_file(&self, node: NodeId) -> bool {
        match self.domains.domain(node) {
            Ok((Domain::Disk(generation), _, number)) => {
                self.disk_folder(generation).is_ok_and(|folder| folder.is_disk_file(number))
            }
            _ => false,
        }
    }
}
