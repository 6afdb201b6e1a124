//! The folder of one disk: its partitions and logical volumes, as folders and as raw files, and the disk itself as a file of each format.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Slice, WritableDisk};
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::Content;
use crate::format::identity::Identity;
use crate::overlay::Overlay;
use crate::partition::signature::{container_type, recognise};
use crate::partition::{Layout, Partition, read_layout};
use crate::tree::content::{RawFile, TextFile};
use crate::tree::notice::{self, README_NAME};
use crate::view::table::{WITH_TABLE, offers_of_disk};
use crate::view::writable::{WritableView, writable_offers, writable_raw};
use crate::volume::lvm2::{self, PhysicalVolume};

/// First number of the files in a disk's folder.
const FILES: u64 = 0x100;
/// First number of its volumes' folders.
const VOLUMES: u64 = 0x1_0000;
/// Volumes of one disk that are shown. LVM2 and GPT allow more; people do not have them.
const MAX_VOLUMES: usize = 0x4000;

/// The number of the folder of volume `index`.
pub fn volume_number(index: u32) -> u64 {
    VOLUMES.saturating_add(u64::from(index))
}

/// What a volume is made of.
#[derive(Clone)]
pub enum Source {
    /// A disk whose filesystem is looked for, and the name of the raw file beside the folder.
    Disk(Arc<dyn Disk>, String),
    /// Nothing that can be looked into; the text says why.
    Notice(String),
}

/// Something in a disk's folder.
pub enum Item {
    /// The folder of a volume.
    Volume {
        /// Its name.
        name: String,
        /// Which volume.
        index: u32,
    },
    /// A file.
    File {
        /// Its name.
        name: String,
        /// Its bytes.
        content: Arc<dyn Content>,
        /// Bytes that are not holes, as far as that is known.
        allocated: u64,
        /// The same file where it takes writes.
        writable: Option<Arc<WritableView>>,
    },
}

impl Item {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Volume { name, .. } | Self::File { name, .. } => name,
        }
    }
}

/// What a file in the folder holds.
struct DiskFile {
    content: Arc<dyn Content>,
    writable: Option<Arc<WritableView>>,
}

impl DiskFile {
    fn read_only(disk: Arc<impl Disk + 'static>) -> Self {
        Self { content: Arc::new(RawFile(disk)), writable: None }
    }

    fn writable(view: Arc<WritableView>) -> Self {
        Self { content: Arc::new(RawFile(Arc::<WritableView>::clone(&view))), writable: Some(view) }
    }
}

/// The folder of one disk.
pub struct DiskFolder {
    disk: Arc<dyn Disk>,
    /// The disk with an overlay, which its files take writes into.
    over: Option<Arc<dyn WritableDisk>>,
    identity: Identity,
    /// How many of the items, the first, are the disk as a file.
    views: usize,
    items: Vec<(u64, Item)>,
    by_number: HashMap<u64, usize>,
    by_name: HashMap<String, usize>,
    volumes: Vec<Source>,
    /// Bytes of the disk that each partition takes, by index of its volume.
    ranges: HashMap<u32, Range<u64>>,
}

impl std::fmt::Debug for DiskFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskFolder").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

impl DiskFolder {
    /// Reads the partition table and LVM2's labels. What is damaged is told in the folder that it concerns, so this never fails.
    pub fn open(disk: Arc<dyn Disk>, identity: &Identity) -> Self {
        let files = offers_of_disk(&disk, identity).into_iter();
        let files = files.map(|offer| (offer.name, offer.view.map(DiskFile::read_only))).collect();
        Self::around(disk, None, identity, files)
    }

    /// The same disk with what is written to an overlay: its files, and those of its partitions, take writes. The folders of files show the disk without it.
    pub fn over(&self, overlay: &Overlay) -> Result<Self> {
        let disk = overlay.disk(Arc::clone(&self.disk))?;
        let files = writable_offers(overlay, Arc::clone(&self.disk), &self.identity)?.into_iter();
        let files = files.map(|offer| (offer.name, offer.view.map(DiskFile::writable))).collect();
        Ok(Self::around(Arc::clone(&self.disk), Some(disk), &self.identity, files))
    }

    fn around(
        disk: Arc<dyn Disk>,
        over: Option<Arc<dyn WritableDisk>>,
        identity: &Identity,
        files: Vec<(String, Result<DiskFile, String>)>,
    ) -> Self {
        let mut folder = Self {
            disk: Arc::clone(&disk),
            over,
            identity: identity.clone(),
            views: 0,
            items: Vec::new(),
            by_number: HashMap::new(),
            by_name: HashMap::new(),
            volumes: Vec::new(),
            ranges: HashMap::new(),
        };
        let layout = read_layout(&disk);
        let mut text = String::new();
        if folder.over.is_some() {
            text += notice::OVERLAY;
        }
        if files.iter().any(|(name, _)| name.starts_with(WITH_TABLE)) {
            text += notice::ALONE;
        }
        for (name, file) in files {
            match file {
                Ok(file) => folder.add_file(&name, file),
                Err(reason) => text += &notice::no_view(&name, &reason),
            }
        }
        folder.views = folder.items.len();
        if let Err(error) = &layout {
            text += &notice::unreadable_table(&full_message(error));
        }
        if !text.is_empty() {
            folder.add_file(README_NAME, DiskFile { content: Arc::new(TextFile(text)), writable: None });
        }
        if let Ok(layout) = &layout {
            folder.add_layout(layout);
        }
        folder
    }

    /// The same with the bytes of the disk that are known to be data.
    pub fn with_allocated(mut self, bytes: u64) -> Self {
        for (_, item) in self.items.iter_mut().take(self.views) {
            if let Item::File { content, allocated, .. } = item {
                // What is made up around the disk.
                *allocated = content.len().saturating_sub(self.disk.len()).saturating_add(bytes).min(content.len());
            }
        }
        self
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Seconds since 1970 at its capture; 0 where that is not known.
    pub fn created(&self) -> u64 {
        self.identity.created()
    }

    /// Returns once everything that was written to its files is durable.
    pub fn flush(&self) -> Result<()> {
        self.over.as_ref().map_or(Ok(()), |over| over.flush())
    }

    /// Says whether its files of disks take writes.
    pub fn takes_writes(&self) -> bool {
        self.over.is_some()
    }

    /// All that lies in the folder, with its numbers.
    pub fn items(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.items.iter().map(|(number, item)| (*number, item))
    }

    /// The item with a number.
    pub fn item(&self, number: u64) -> Option<&Item> {
        self.items.get(*self.by_number.get(&number)?).map(|(_, item)| item)
    }

    /// The item with a name, and its number.
    pub fn find(&self, name: &[u8]) -> Option<(u64, &Item)> {
        let at = self.by_name.get(std::str::from_utf8(name).ok()?)?;
        self.items.get(*at).map(|(number, item)| (*number, item))
    }

    /// Says whether an item is a disk as a file, of whatever format: every file here is, but the notice.
    pub fn is_disk_file(&self, number: u64) -> bool {
        matches!(self.item(number), Some(Item::File { name, .. }) if name != README_NAME)
    }

    /// What volume `index` is made of.
    pub fn volume(&self, index: u32) -> Result<&Source> {
        let found = usize::try_from(index).ok().and_then(|index| self.volumes.get(index));
        found.ok_or_else(|| Error::NotFound(format!("the disk has no volume {index}")))
    }

    /// Bytes of the disk that volume `index` takes, where it is a partition and not a logical volume.
    pub fn range_of_volume(&self, index: u32) -> Option<Range<u64>> {
        self.ranges.get(&index).cloned()
    }

    fn add(&mut self, number: u64, item: Item) {
        let at = self.items.len();
        self.by_number.insert(number, at);
        self.by_name.insert(item.name().to_owned(), at);
        self.items.push((number, item));
    }

    fn add_file(&mut self, name: &str, file: DiskFile) {
        // Numbers follow the order of the table, which is the same whenever this disk is opened.
        let number = FILES.saturating_add(u64::try_from(self.items.len()).unwrap_or(0));
        let DiskFile { content, writable } = file;
        let allocated = content.len();
        self.add(number, Item::File { name: self.free_name(name), content, allocated, writable });
    }

    /// A partition as a raw file.
    fn partition_file(&self, disk: Arc<dyn Disk>, range: &Range<u64>) -> DiskFile {
        let over = self.over.as_ref().and_then(|over| Slice::open(Arc::clone(over), range.clone()).ok());
        match over {
            Some(over) => DiskFile::writable(Arc::new(writable_raw(Arc::new(over)))),
            None => DiskFile { content: Arc::new(RawFile(disk)), writable: None },
        }
    }

    fn add_volume(&mut self, name: &str, source: Source) {
        if self.volumes.len() >= MAX_VOLUMES {
            return;
        }
        let index = u32::try_from(self.volumes.len()).unwrap_or(u32::MAX);
        self.volumes.push(source);
        self.add(volume_number(index), Item::Volume { name: self.free_name(name), index });
    }

    /// The name, or the name with a number where something else has it: a hostile volume group can call a volume anything.
    fn free_name(&self, name: &str) -> String {
        let mut free = name.to_owned();
        let mut count = 1_u32;
        while self.by_name.contains_key(&free) {
            count = count.saturating_add(1);
            free = format!("{name}~{count}");
        }
        free
    }

    fn add_layout(&mut self, layout: &Layout) {
        let mut physical = Vec::new();
        let mut opened = Vec::new();
        for partition in &layout.partitions {
            let name = format!("p{}", partition.number);
            let disk = match self.partition(partition) {
                Ok(disk) => disk,
                Err(text) => {
                    self.add_volume(&name, Source::Notice(text));
                    continue;
                }
            };
            let source = match self.physical_volume(&disk, partition) {
                Ok(Some(volume)) => {
                    physical.push(volume);
                    None
                }
                Ok(None) => {
                    let raw = format!("{name}.raw");
                    Some(match container_type(partition) {
                        Some(kind) => Source::Notice(notice::not_read(kind, &raw)),
                        None => Source::Disk(Arc::clone(&disk), raw),
                    })
                }
                Err(error) => Some(Source::Notice(notice::damaged_lvm2(&full_message(&error)))),
            };
            opened.push((name, disk, source.ok_or(physical.len().saturating_sub(1)), partition.range.clone()));
        }
        let logical = lvm2::assemble(&physical);
        for (name, disk, source, range) in opened {
            let source = source.unwrap_or_else(|at| {
                let volume = physical.get(at).expect("pushed above");
                let group = volume.group_name().unwrap_or_default();
                Source::Notice(notice::physical_volume(group, logical.iter().map(|volume| volume.name.as_str())))
            });
            let file = self.partition_file(disk, &range);
            if let Ok(index) = u32::try_from(self.volumes.len()) {
                self.ranges.insert(index, range);
            }
            self.add_volume(&name, source);
            self.add_file(&format!("{name}.raw"), file);
        }
        for volume in logical {
            match volume.disk {
                Ok(disk) => {
                    let raw = format!("{}.raw", volume.name);
                    self.add_volume(&volume.name, Source::Disk(Arc::clone(&disk), raw.clone()));
                    self.add_file(&raw, DiskFile { content: Arc::new(RawFile(disk)), writable: None });
                }
                Err(error) => {
                    let text = notice::unmapped(&volume.name, &full_message(&error));
                    self.add_volume(&volume.name, Source::Notice(text));
                }
            }
        }
    }

    /// A partition as a disk, or why it is none.
    fn partition(&self, partition: &Partition) -> Result<Arc<dyn Disk>, String> {
        if let Some(reason) = partition.unusable {
            return Err(notice::unusable(partition.number, reason));
        }
        match Slice::open(Arc::clone(&self.disk), partition.range.clone()) {
            Ok(slice) => Ok(Arc::new(slice)),
            Err(error) => Err(notice::unusable(partition.number, &full_message(&error))),
        }
    }

    /// Opens a partition as a physical volume of LVM2, where it is one.
    fn physical_volume(&self, disk: &Arc<dyn Disk>, partition: &Partition) -> Result<Option<PhysicalVolume>> {
        if container_type(partition).is_some() {
            return Ok(None);
        }
        match recognise(disk) {
            Ok(Some(signature)) if signature.name == notice::LVM2 => PhysicalVolume::open(disk),
            // An error comes back when the folder is entered.
            _ => Ok(None),
        }
    }
}
