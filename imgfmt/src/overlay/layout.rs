//! The structures of an overlay's file, and what is refused in them.
//!
//! Source: docs/overlay.md sections 3 to 5.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Error, Result};
use crate::overlay::About;

/// Bytes of a slot, of a block and of a page.
pub const SLOT: usize = 4096;
/// The same as a length.
pub(super) const SLOT_LEN: u64 = 4096;
/// Bytes of a sector: what one bit of a mask stands for.
pub(super) const SECTOR: u64 = 512;
/// First slot behind header, commits and holder.
pub(super) const FIRST_SLOT: u64 = 4;
/// The slot with the process id of the last writer.
pub(super) const HOLDER_SLOT: u64 = 3;
/// Entries of a page.
pub(super) const ENTRIES: usize = 256;
/// Highest level of a page: 2^56 blocks are more than 2^64 bytes have.
pub(super) const MAX_LEVEL: u8 = 6;
/// Most layers.
pub(super) const MAX_LAYERS: usize = 16;
/// Most runs in a page of the free list.
pub(super) const RUNS: usize = 510;
/// Most slots in one run of the free list.
pub(super) const MAX_RUN: u64 = 0xffff;
/// Commits have numbers below this one, so that there is always a next one.
const MAX_SEQUENCE: u64 = 1 << 63;
/// Slots have numbers below this one.
pub(super) const MAX_SLOTS: u64 = 1 << 48;
/// Most bytes of a base's name that are kept.
pub const MAX_NAME: usize = 1024;
/// The key of the layer that takes the writes to the disk.
pub(super) const DISK_KEY: &str = "disk";

const VERSION: u16 = 1;
const HEADER_MAGIC: [u8; 8] = *b"hikaeOV\n";
const COMMIT_MAGIC: [u8; 8] = *b"hikaeOC\n";
const GENERATION: u8 = 1;
const OTHER: u8 = 2;

/// What proves that a base is the one that an overlay was made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A generation of a hikae image.
    Generation {
        /// The image's id.
        image: [u8; 16],
        /// The id of the generation's root, which proves every byte.
        root: [u8; 32],
    },
    /// Any other disk.
    Other {
        /// Its format in at most 16 ASCII letters.
        format: String,
        /// See [`super::digest_of`].
        digest: [u8; 32],
    },
}

/// Slot 0.
///
/// Source: docs/overlay.md section 3.1.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeaderRaw {
    /// +0x00: [`HEADER_MAGIC`].
    magic: [u8; 8],
    /// +0x08: [`VERSION`].
    version: U16,
    /// +0x0a: 0.
    reserved: U16,
    /// +0x0c: crc32 of the slot with this field as 0.
    checksum: U32,
    /// +0x10: random.
    id: [u8; 16],
    /// +0x20: seconds since 1970.
    created: U64,
    /// +0x28: bytes.
    disk_len: U64,
    /// +0x30: 512 or 4096.
    sector_size: U32,
    /// +0x34: [`GENERATION`] or [`OTHER`].
    base_kind: u8,
    /// +0x35: 0.
    reserved_2: [u8; 3],
    /// +0x38: seconds since 1970, or 0.
    base_modified: U64,
    /// +0x40: root id or digest.
    base_proof: [u8; 32],
    /// +0x60: image id, or 0.
    base_image: [u8; 16],
    /// +0x70: ASCII.
    base_format: [u8; 16],
    /// +0x80: names of features that a reader must know.
    incompatible: [u8; 64],
    /// +0xc0: names of features that a reader may not know.
    compatible: [u8; 64],
    /// +0x100: bytes of the name.
    name_len: U16,
    /// +0x102: UTF-8.
    name: [u8; MAX_NAME],
    /// +0x502: 0.
    reserved_3: [u8; 2814],
}
const _: () = assert!(size_of::<HeaderRaw>() == SLOT);

/// Slots 1 and 2.
///
/// Source: docs/overlay.md section 3.3.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CommitRaw {
    /// +0x00: [`COMMIT_MAGIC`].
    magic: [u8; 8],
    /// +0x08: 1 to [`MAX_LAYERS`].
    layer_count: U32,
    /// +0x0c: crc32 of the slot with this field as 0.
    checksum: U32,
    /// +0x10: as in the header.
    id: [u8; 16],
    /// +0x20: from 1.
    sequence: U64,
    /// +0x28: slots of the file.
    slots: U64,
    /// +0x30: slots in the free list.
    free_slots: U64,
    /// +0x38: first page of the free list, or 0.
    free_slot: U64,
    /// +0x40: crc32 of that page.
    free_checksum: U32,
    /// +0x44: 0.
    reserved: [u8; 60],
    /// +0x80: the layers.
    layers: [LayerRaw; MAX_LAYERS],
    /// +0x480: 0.
    reserved_2: [u8; 2944],
}
const _: () = assert!(size_of::<CommitRaw>() == SLOT);

/// A layer in a commit.
///
/// Source: docs/overlay.md section 3.3.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LayerRaw {
    /// +0x00: ASCII.
    key: [u8; 8],
    /// +0x08: bytes.
    len: U64,
    /// +0x10: bytes.
    base_len: U64,
    /// +0x18: root page, or 0.
    root_slot: U64,
    /// +0x20: crc32 of that page.
    root_checksum: U32,
    /// +0x24: 0 to [`MAX_LEVEL`].
    root_level: u8,
    /// +0x25: 0.
    reserved: [u8; 3],
    /// +0x28: blocks with data.
    data_blocks: U64,
    /// +0x30: 0.
    reserved_2: [u8; 16],
}
const _: () = assert!(size_of::<LayerRaw>() == 64);

/// An entry of a page.
///
/// Source: docs/overlay.md section 4.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryRaw {
    /// +0x0: where the data or the page lie, or 0.
    slot: U64,
    /// +0x8: crc32 of the slot, or 0.
    checksum: U32,
    /// +0xc: sectors in the slot.
    data: u8,
    /// +0xd: sectors that are zero.
    zero: u8,
    /// +0xe: 0.
    reserved: U16,
}
const _: () = assert!(size_of::<EntryRaw>() == 16);

/// A page of the free list.
///
/// Source: docs/overlay.md section 5.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FreeRaw {
    /// +0x00: the next page, or 0.
    next_slot: U64,
    /// +0x08: crc32 of that page.
    next_checksum: U32,
    /// +0x0c: 1 to [`RUNS`].
    count: U32,
    /// +0x10: first slot in 48 bits, number of slots in 16.
    runs: [U64; RUNS],
}
const _: () = assert!(size_of::<FreeRaw>() == SLOT);

/// Where something lies, with its checksum. Slot 0 is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u64,
    pub(super) checksum: u32,
}

/// What the map says of a block, or of all blocks of a page below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the data lie, or the page.
    pub(super) place: Place,
    /// Sectors that are in the slot; 0xff for a page.
    pub(super) data: u8,
    /// Sectors that are zero.
    pub(super) zero: u8,
}

/// All sectors.
pub(super) const ALL: u8 = 0xff;

impl Entry {
    /// Silent.
    pub(super) const SILENT: Self = Self { place: Place { slot: 0, checksum: 0 }, data: 0, zero: 0 };
    /// All zero.
    pub(super) const ZERO: Self = Self { place: Place { slot: 0, checksum: 0 }, data: 0, zero: ALL };

    /// Says that all of it is silent.
    pub(super) fn is_silent(self) -> bool {
        self.data == 0 && self.zero == 0
    }

    /// Says that all of it is zero.
    pub(super) fn is_zero(self) -> bool {
        self.zero == ALL
    }
}

/// 256 entries.
pub(super) type Page = [Entry; ENTRIES];

/// The header, understood.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) id: [u8; 16],
    pub(super) created: u64,
    pub(super) about: About,
}

/// A layer in a commit, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerState {
    pub(super) key: String,
    pub(super) len: u64,
    pub(super) base_len: u64,
    pub(super) root: Place,
    pub(super) level: u8,
    pub(super) data_blocks: u64,
}

/// A commit, understood.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) sequence: u64,
    pub(super) slots: u64,
    pub(super) free_slots: u64,
    pub(super) free: Place,
    pub(super) layers: Vec<LayerState>,
}

/// ASCII text padded with zeros.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

fn text_of(bytes: &[u8]) -> Option<String> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at(len);
    let fine = text.iter().all(|byte| byte.is_ascii_graphic()) && rest.iter().all(|byte| *byte == 0);
    fine.then(|| text.iter().map(|byte| char::from(*byte)).collect())
}

/// The longest beginning of `name` that fits.
fn cut(name: &str) -> &str {
    let mut len = name.len().min(MAX_NAME);
    while !name.is_char_boundary(len) {
        len = len.saturating_sub(1);
    }
    name.get(..len).unwrap_or("")
}

/// The checksum of a slot whose checksum field is 0.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

impl Header {
    pub(super) fn write(&self) -> [u8; SLOT] {
        let mut raw = HeaderRaw::new_zeroed();
        raw.magic = HEADER_MAGIC;
        raw.version = VERSION.into();
        raw.id = self.id;
        raw.created = self.created.into();
        raw.disk_len = self.about.disk_len.into();
        raw.sector_size = self.about.sector_size.into();
        match &self.about.proof {
            Proof::Generation { image, root } => {
                raw.base_kind = GENERATION;
                raw.base_image = *image;
                raw.base_proof = *root;
                raw.base_format = padded("hikae");
            }
            Proof::Other { format, digest } => {
                raw.base_kind = OTHER;
                raw.base_proof = *digest;
                raw.base_format = padded(format);
                raw.base_modified = self.about.modified.into();
            }
        }
        let name = cut(&self.about.name);
        raw.name_len = u16::try_from(name.len()).unwrap_or(0).into();
        for (to, from) in raw.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        raw.checksum = checksum(raw.as_bytes()).into();
        zerocopy::transmute!(raw)
    }

    pub(super) fn parse(bytes: &[u8; SLOT], file: &str) -> Result<Self> {
        let raw: &HeaderRaw = zerocopy::transmute_ref!(bytes);
        let corrupt = |offset, reason| Error::corrupt(format_args!("header of {file}"), offset, reason);
        if raw.magic != HEADER_MAGIC {
            return Err(corrupt(0, "it is no overlay of hikae"));
        }
        if raw.version.get() != VERSION {
            return Err(Error::unsupported(format_args!("overlay {file}"), format_args!("version {}", raw.version)));
        }
        let mut plain = raw.clone();
        plain.checksum = 0.into();
        if checksum(plain.as_bytes()) != raw.checksum.get() {
            return Err(corrupt(0, "its checksum is wrong"));
        }
        let features = text_of(&raw.incompatible).ok_or_else(|| corrupt(0x80, "the names of features are no text"))?;
        if let Some(feature) = features.split(',').find(|feature| !feature.is_empty()) {
            return Err(Error::unsupported(format_args!("overlay {file}"), format_args!("feature {feature}")));
        }
        let reserved = [&raw.reserved_2[..], &raw.reserved_3[..]];
        if raw.reserved.get() != 0 || reserved.iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return Err(corrupt(0, "reserved bytes are not 0"));
        }
        if !matches!(raw.sector_size.get(), 512 | 4096) {
            return Err(corrupt(0x30, "the sector size is neither 512 nor 4096"));
        }
        let format = text_of(&raw.base_format).ok_or_else(|| corrupt(0x70, "the format of the base is no text"))?;
        let proof = match raw.base_kind {
            GENERATION => Proof::Generation { image: raw.base_image, root: raw.base_proof },
            OTHER => Proof::Other { format, digest: raw.base_proof },
            _ => return Err(corrupt(0x34, "the kind of the base is unknown")),
        };
        let name = raw.name.get(..usize::from(raw.name_len.get()));
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or_else(|| corrupt(0x100, "the name of the base is no text"))?.to_owned();
        let about = About {
            name,
            proof,
            modified: raw.base_modified.get(),
            disk_len: raw.disk_len.get(),
            sector_size: raw.sector_size.get(),
        };
        Ok(Self { id: raw.id, created: raw.created.get(), about })
    }
}

impl Commit {
    /// The slot that the commit with this sequence lies in.
    pub(super) fn slot_of(sequence: u64) -> u64 {
        (sequence & 1).saturating_add(1)
    }

    pub(super) fn write(&self, id: [u8; 16]) -> [u8; SLOT] {
        let mut raw = CommitRaw::new_zeroed();
        raw.magic = COMMIT_MAGIC;
        raw.layer_count = u32::try_from(self.layers.len()).unwrap_or(0).into();
        raw.id = id;
        raw.sequence = self.sequence.into();
        raw.slots = self.slots.into();
        raw.free_slots = self.free_slots.into();
        raw.free_slot = self.free.slot.into();
        raw.free_checksum = self.free.checksum.into();
        for (to, from) in raw.layers.iter_mut().zip(&self.layers) {
            to.key = padded(&from.key);
            to.len = from.len.into();
            to.base_len = from.base_len.into();
            to.root_slot = from.root.slot.into();
            to.root_checksum = from.root.checksum.into();
            to.root_level = from.level;
            to.data_blocks = from.data_blocks.into();
        }
        raw.checksum = checksum(raw.as_bytes()).into();
        zerocopy::transmute!(raw)
    }

    /// The commit in a slot, where there is a valid one. Its fields are checked.
    pub(super) fn parse(bytes: &[u8; SLOT], slot: u64, header: &Header, file: &str) -> Result<Option<Self>> {
        let raw: &CommitRaw = zerocopy::transmute_ref!(bytes);
        let mut plain = raw.clone();
        plain.checksum = 0.into();
        let valid = raw.magic == COMMIT_MAGIC
            && raw.id == header.id
            && checksum(plain.as_bytes()) == raw.checksum.get()
            && Self::slot_of(raw.sequence.get()) == slot;
        if !valid {
            return Ok(None);
        }
        let corrupt = |reason| Error::corrupt(format_args!("commit of {file}"), slot.saturating_mul(SLOT_LEN), reason);
        let slots = raw.slots.get();
        if !(FIRST_SLOT..MAX_SLOTS).contains(&slots) {
            return Err(corrupt("the number of slots is out of range"));
        }
        if !(1..MAX_SEQUENCE).contains(&raw.sequence.get()) {
            return Err(corrupt("its number is out of range"));
        }
        let place = |slot: u64, checksum: u32| {
            let place = Place { slot, checksum };
            (slot == 0 || (FIRST_SLOT..slots).contains(&slot)).then_some(place)
        };
        let count = usize::try_from(raw.layer_count.get()).unwrap_or(usize::MAX);
        let layers = raw.layers.get(..count).filter(|layers| !layers.is_empty());
        let layers = layers.ok_or_else(|| corrupt("the number of layers is out of range"))?;
        let layers = layers.iter().map(|layer| {
            let root = place(layer.root_slot.get(), layer.root_checksum.get());
            let reserved = layer.reserved.iter().chain(&layer.reserved_2).all(|byte| *byte == 0);
            let key = text_of(&layer.key).filter(|key| !key.is_empty() && layer.root_level <= MAX_LEVEL && reserved)?;
            Some(LayerState {
                key,
                len: layer.len.get(),
                base_len: layer.base_len.get(),
                root: root?,
                level: layer.root_level,
                data_blocks: layer.data_blocks.get(),
            })
        });
        let layers: Option<Vec<_>> = layers.collect();
        let layers = layers.ok_or_else(|| corrupt("a layer breaks a rule"))?;
        let first = layers.first().filter(|layer| layer.key == DISK_KEY && layer.len == header.about.disk_len);
        if first.is_none() {
            return Err(corrupt("the first layer is not the disk's"));
        }
        let free = place(raw.free_slot.get(), raw.free_checksum.get());
        let free = free.ok_or_else(|| corrupt("the free list lies outside of the file"))?;
        Ok(Some(Self { sequence: raw.sequence.get(), slots, free_slots: raw.free_slots.get(), free, layers }))
    }
}

/// The bytes of a page.
pub(super) fn write_page(page: &Page) -> [u8; SLOT] {
    let raw: [EntryRaw; ENTRIES] = std::array::from_fn(|at| {
        let entry = page.get(at).copied().unwrap_or_default();
        EntryRaw {
            slot: entry.place.slot.into(),
            checksum: entry.place.checksum.into(),
            data: entry.data,
            zero: entry.zero,
            reserved: 0.into(),
        }
    });
    zerocopy::transmute!(raw)
}

/// The page that bytes with the right checksum are. `None` where it breaks a rule.
pub(super) fn parse_page(bytes: &[u8; SLOT], level: u8, slots: u64) -> Option<Page> {
    let raw: &[EntryRaw; ENTRIES] = zerocopy::transmute_ref!(bytes);
    let mut page = [Entry::SILENT; ENTRIES];
    for (to, from) in page.iter_mut().zip(raw) {
        let place = Place { slot: from.slot.get(), checksum: from.checksum.get() };
        let fine = from.reserved.get() == 0
            && from.data & from.zero == 0
            && if from.data == 0 { place == Place::default() } else { (FIRST_SLOT..slots).contains(&place.slot) }
            && (level == 0 || (matches!(from.data, 0 | ALL) && matches!(from.zero, 0 | ALL)));
        if !fine {
            return None;
        }
        *to = Entry { place, data: from.data, zero: from.zero };
    }
    Some(page)
}

/// A run of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Run {
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// The bytes of a page of the free list. Runs have at most [`MAX_RUN`] slots, and there are at most [`RUNS`].
pub(super) fn write_free_page(runs: &[Run], next: Place) -> [u8; SLOT] {
    let mut raw = FreeRaw::new_zeroed();
    raw.next_slot = next.slot.into();
    raw.next_checksum = next.checksum.into();
    raw.count = u32::try_from(runs.len().min(RUNS)).unwrap_or(0).into();
    for (to, from) in raw.runs.iter_mut().zip(runs) {
        *to = (from.start | (from.len << 48)).into();
    }
    zerocopy::transmute!(raw)
}

/// The runs in a page of the free list, and the next page. `None` where it breaks a rule.
pub(super) fn parse_free_page(bytes: &[u8; SLOT], slots: u64) -> Option<(Vec<Run>, Place)> {
    let raw: &FreeRaw = zerocopy::transmute_ref!(bytes);
    let next = Place { slot: raw.next_slot.get(), checksum: raw.next_checksum.get() };
    let count = usize::try_from(raw.count.get()).ok()?;
    let runs = raw.runs.get(..count)?.iter().map(|run| {
        let run = Run { start: run.get() & (MAX_SLOTS - 1), len: run.get() >> 48 };
        (run.start >= FIRST_SLOT && run.len > 0 && run.end() <= slots).then_some(run)
    });
    let runs: Vec<_> = runs.collect::<Option<_>>()?;
    let fine = !runs.is_empty() && (next.slot == 0 || (FIRST_SLOT..slots).contains(&next.slot));
    fine.then_some((runs, next))
}
