//! Adding a generation to an image: one writer at a time, packs of a limited size, nothing visible before it is finished.
//!
//! Source: docs/format.md sections 2, 3 and 8.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::image::catalogue::{Catalogue, GenerationEntry, PackEntry};
use crate::image::codec::{Compression, Compressor};
use crate::image::frame;
use crate::image::id::{Id, Place, Pointer, image_id_hex};
use crate::image::index::DedupIndex;
use crate::image::layout::{Codec, FRAME_HEADER_LEN, FrameType};
use crate::image::node::Node;
use crate::image::pack::{Header, Pack, PackWriter};
use crate::image::reader::{Head, Image, OpenOptions};
use crate::image::record::{Record, Root};
use crate::image::store::PackStore;
use crate::image::verdict;
use crate::platform;

/// Largest pack by default: what FAT32 takes.
pub const DEFAULT_PACK_SIZE: u64 = (4 << 30) - 1;
/// Smallest allowed pack size. Whether a pack has room for an object is checked besides.
pub const MIN_PACK_SIZE: u64 = 1 << 20;
/// What a pack has at least besides chunks: header, a block of its table, catalogue, footer and their frames.
const PACK_OVERHEAD: u64 = 16 << 10;
/// Frames of one pack, so that its table stays small in memory.
const MAX_PACK_ENTRIES: usize = 512 << 10;
/// Default chunk size as a power of two: 64 KiB.
pub const DEFAULT_CHUNK_LOG2: u8 = 16;

/// How an image is written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Chunk size of a new image as a power of two; `None` keeps that of the image, or takes the default.
    pub chunk_log2: Option<u8>,
    /// Most bytes of a pack.
    pub pack_size: u64,
    /// For chunks and for the lists of the image.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { chunk_log2: None, pack_size: DEFAULT_PACK_SIZE, compression: Compression::default() }
    }
}

/// What the writer found of an interrupted one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Packs that were closed and kept.
    pub packs: Vec<String>,
    /// Chunks and nodes in them, which this capture can reuse.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Partial files without anything of use, removed.
    pub removed: Vec<String>,
}

/// Writes one generation.
#[derive(Debug)]
pub struct ImageWriter {
    /// Held until the writer is dropped.
    _lock: File,
    store: Arc<dyn PackStore>,
    image: Arc<Image>,
    index: Arc<DedupIndex>,
    options: WriterOptions,
    compressor: Compressor,
    catalogue: Catalogue,
    next_pack: u32,
    pack: Option<PackWriter>,
    salvage: Salvage,
    stored: u64,
    syncing: Duration,
}

impl ImageWriter {
    /// Locks the image, closes what an interrupted writer left, and opens it. Creates it where there is none.
    ///
    /// [`Error::Refused`] where another process is writing, or where the options do not fit the image.
    pub fn open(store: Arc<dyn PackStore>, options: WriterOptions) -> Result<Self> {
        if options.pack_size < MIN_PACK_SIZE {
            let least = MIN_PACK_SIZE >> 20;
            return Err(Error::Refused(format!("a pack needs at least {least} MiB: choose a larger --pack-size")));
        }
        let lock = lock(&*store)?;
        let mut image = match Image::open(Arc::clone(&store), &OpenOptions::default()) {
            Ok(image) => {
                if let Some(log2) = options.chunk_log2.filter(|log2| *log2 != image.chunk_log2()) {
                    let (have, want) = (image.chunk_size() >> 10, (1_u32 << log2) >> 10);
                    let name = store.name(0);
                    return Err(Error::Refused(format!(
                        "{name} has chunks of {have} KiB, and --chunk-size asks for {want} KiB: the chunk size of an image is fixed"
                    )));
                }
                Some(image)
            }
            // No finished pack: either nothing at all, or only what a torn first capture left.
            Err(Error::NotFound(_)) if store.list()?.is_empty() => None,
            Err(error) => return Err(error),
        };
        let mut compressor = Compressor::new(options.compression);
        let salvage = salvage(&store, &mut image, &options, &mut compressor)?;
        let image = match image {
            Some(image) => image,
            None => {
                let id = *uuid::Uuid::new_v4().as_bytes();
                Image::empty(Arc::clone(&store), id, options.chunk_log2.unwrap_or(DEFAULT_CHUNK_LOG2))
            }
        };
        // Not only when the first chunk that does not shrink comes along.
        if options.pack_size < u64::from(image.chunk_size()).saturating_add(PACK_OVERHEAD) {
            let (pack, chunk) = (options.pack_size, image.chunk_size());
            return Err(Error::Refused(format!(
                "packs of {pack} bytes have no room for a chunk of {chunk} bytes: choose a larger --pack-size"
            )));
        }
        let head = Head::read(&*store, image.id());
        let listed = store.list()?.last().map(|(number, _)| *number);
        let known = image.catalogue().packs.last().map(|pack| pack.number);
        let last = listed.max(known).max(head.as_ref().map(|head| head.pack));
        let next_pack = match last {
            None => 0,
            Some(last) => {
                last.checked_add(1).ok_or_else(|| Error::Refused("the image has no pack numbers left".into()))?
            }
        };
        let mut catalogue = image.catalogue().clone();
        let after_head = head.map_or(1, |head| head.generation.saturating_add(1));
        catalogue.next_generation = catalogue.next_generation.max(after_head).max(1);
        let damaged = verdict::damaged_places(&*store, image.id());
        let index = Arc::new(DedupIndex::open(&image, damaged));
        Ok(Self {
            _lock: lock,
            store,
            image: Arc::new(image),
            index,
            options,
            compressor,
            catalogue,
            next_pack,
            pack: None,
            salvage,
            stored: 0,
            syncing: Duration::ZERO,
        })
    }

    /// The image as it was found, and as it can be read while it is being written.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// The lookup of what is stored already.
    pub fn index(&self) -> &Arc<DedupIndex> {
        &self.index
    }

    /// What an interrupted writer had left.
    pub fn salvage(&self) -> &Salvage {
        &self.salvage
    }

    /// The number that the generation will get.
    pub fn next_generation(&self) -> u32 {
        self.catalogue.next_generation
    }

    /// Bytes of frames written so far.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    fn catalogue_len(&self) -> u64 {
        let len = self
            .catalogue
            .packs
            .len()
            .saturating_mul(56)
            .saturating_add(self.catalogue.generations.len().saturating_mul(64));
        u64::try_from(len).unwrap_or(u64::MAX).saturating_add(256)
    }

    /// The pack that has room for a frame of `len` bytes more; ends the one before where it has none.
    fn pack_with_room(&mut self, len: u64) -> Result<&mut PackWriter> {
        let catalogue_len = self.catalogue_len();
        let limit = self.options.pack_size;
        let full = self.pack.as_ref().is_some_and(|pack| {
            let entries = pack.table().read().expect("no holder of the lock panics").len();
            pack.projected_len(len, catalogue_len) > limit || entries >= MAX_PACK_ENTRIES
        });
        if full {
            self.finish_pack(None)?;
        }
        if self.pack.is_none() {
            let number = self.next_pack;
            let next =
                number.checked_add(1).ok_or_else(|| Error::Refused("the image has no pack numbers left".into()))?;
            let header = Header {
                image_id: self.image.id(),
                number,
                chunk_log2: self.image.chunk_log2(),
                created: now_seconds(),
            };
            let pack = PackWriter::create(self.store.create(number)?, header)?;
            if pack.projected_len(len, catalogue_len) > limit {
                let name = self.store.name(number);
                return Err(Error::Refused(format!(
                    "{name} cannot hold even one more object: choose a larger --pack-size"
                )));
            }
            self.next_pack = next;
            self.index.set_open_pack(Arc::clone(pack.table()));
            self.pack = Some(pack);
        }
        Ok(self.pack.as_mut().expect("just made"))
    }

    /// Appends a chunk that was encoded as a whole frame, unless this run stored the same one meanwhile.
    /// Returns where it lies, and whether it was appended.
    pub fn append_chunk(&mut self, frame: &[u8], id: Id) -> Result<(Place, bool)> {
        if let Some(place) = self.index.find_open(&id) {
            return Ok((place, false));
        }
        Ok((self.append(frame, id)?, true))
    }

    fn append(&mut self, frame: &[u8], id: Id) -> Result<Place> {
        let len = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let place = self.pack_with_room(len)?.append_frame(frame, id)?;
        self.stored = self.stored.saturating_add(len);
        Ok(place)
    }

    /// Stores a node, unless the image has it.
    pub fn append_node(&mut self, node: &Node) -> Result<Pointer> {
        let id = node.id();
        if let Some(place) =
            self.index.find(&id).filter(|place| self.can_reuse_node(node, Pointer { id, place: *place }))
        {
            return Ok(Pointer { id, place });
        }
        let bytes = node.encode();
        let mut frame = Vec::new();
        let (codec, payload) = self.compressor.compress(&bytes);
        frame::append(&mut frame, FrameType::Node, codec, None, id, bytes.len(), payload);
        Ok(Pointer { id, place: self.append(&frame, id)? })
    }

    /// The id of a node does not depend on places, so the stored one can point at chunks that are damaged or missing where the new one
    /// does not. Where such are known, the stored node is looked at.
    fn can_reuse_node(&self, node: &Node, stored: Pointer) -> bool {
        if !self.index.knows_of_damage() {
            return true;
        }
        let mut bytes = Vec::new();
        let image = &self.image;
        let read = image.with_decoder(|decoder| image.read_object(decoder, stored, FrameType::Node, &mut bytes));
        read.is_ok() && bytes == node.encode()
    }

    /// Lets [`ImageWriter::image`] read everything appended so far.
    pub fn make_readable(&mut self) -> Result<()> {
        if let Some(pack) = &mut self.pack {
            pack.flush()?;
            let number = pack.header().number;
            self.image.set_open_pack(Some(pack.reader(self.store.name(number))));
        }
        Ok(())
    }

    fn finish_pack(&mut self, record: Option<(&[u8], u32, u64)>) -> Result<Option<Pointer>> {
        let Some(pack) = self.pack.take() else { return Ok(None) };
        let number = pack.header().number;
        let mut catalogue = self.catalogue.clone();
        let compressor = &mut self.compressor;
        let finished = pack.finish(
            record.map(|(json, ..)| json),
            |pointer| {
                if let (Some(pointer), Some((_, generation, created))) = (pointer, record) {
                    catalogue.generations.push(GenerationEntry {
                        number: generation,
                        created,
                        record: pointer.place,
                        record_id: pointer.id,
                    });
                    catalogue.next_generation = generation.saturating_add(1);
                }
                catalogue.encode()
            },
            &mut |bytes| compress(compressor, bytes),
        )?;
        self.catalogue = catalogue;
        self.syncing = self.syncing.saturating_add(finished.syncing);
        self.catalogue.packs.push(PackEntry {
            number,
            file_len: finished.file_len,
            replaced_by: None,
            footer_hash: finished.footer_hash,
        });
        self.image.set_open_pack(None);
        self.index.set_open_pack(Arc::default());
        let pack = Pack::open(self.store.open(number)?, self.store.name(number))?;
        self.index.add_finished(Arc::new(pack.table_blocks(&pack.footer()?)?));
        Ok(finished.record)
    }

    /// Finishes the generation: fills number, image id and root into the record, writes it, and gives the last pack its name.
    /// Returns the record as it was written, and how long the system took in all to make the packs of this capture durable.
    pub fn commit(mut self, mut record: Record, root: Pointer, level: u8) -> Result<(Record, Duration)> {
        record.generation = self.catalogue.next_generation;
        record.image = image_id_hex(&self.image.id());
        record.chunk_size = self.image.chunk_size();
        record.counts.stored = self.stored;
        let Pointer { id, place } = root;
        record.root = Root { id: id.to_string(), pack: place.pack, offset: place.offset, len: place.len, level };
        let json = record.encode();
        let len = u64::try_from(json.len().saturating_add(FRAME_HEADER_LEN)).unwrap_or(u64::MAX);
        if json.len() > usize::try_from(crate::image::layout::MAX_NODE_LEN).unwrap_or(usize::MAX) {
            return Err(Error::Refused(format!(
                "the record of the generation would be {} bytes long, which is too much",
                json.len()
            )));
        }
        self.pack_with_room(len)?;
        self.finish_pack(Some((&json, record.generation, record.created_seconds())))?;
        let image = record.image.clone();
        let head = Head { image, pack: self.next_pack.saturating_sub(1), generation: record.generation };
        write_head(&*self.store, &head);
        Ok((record, self.syncing))
    }
}

fn compress(compressor: &mut Compressor, bytes: &[u8]) -> (Codec, Vec<u8>) {
    let (codec, payload) = compressor.compress(bytes);
    (codec, payload.to_vec())
}

/// Seconds since 1970, from the system's clock.
pub fn now_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// Times that a held lock is tried again, and the time between two of them.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of the image, or says who has it.
fn lock(store: &dyn PackStore) -> Result<File> {
    let path = store.side_file("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(|error| Error::io("open", &path, error))?;
    // A program that this process starts in another thread holds its open files from fork to exec, and with them a lock that was just
    // given up: so one that is held is tried again for a moment.
    let mut held = platform::try_lock(&file);
    for _ in 0..LOCK_TRIES {
        if !matches!(held, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        held = platform::try_lock(&file);
    }
    match held {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The text is for the message only.
            let _ = (&file).take(32).read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            let name = store.name(0);
            return Err(Error::Refused(format!(
                "another program{holder} is writing to {name}: wait until it has finished"
            )));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
    }
    // Best effort: the lock holds without it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Best effort: the file only helps to name a newest pack that went missing.
fn write_head(store: &dyn PackStore, head: &Head) {
    let path = store.side_file("head");
    let temporary = store.side_file("head.new");
    let json = serde_json::to_vec(head).expect("a text and two numbers are valid JSON");
    let _ = std::fs::write(&temporary, json).and_then(|()| std::fs::rename(&temporary, &path));
}

/// Closes the packs that an interrupted writer left, as finished packs without a generation.
fn salvage(
    store: &Arc<dyn PackStore>,
    image: &mut Option<Image>,
    options: &WriterOptions,
    compressor: &mut Compressor,
) -> Result<Salvage> {
    let mut salvage = Salvage::default();
    for number in store.list_partial()? {
        let name = store.name(number) + ".partial";
        let taken = store.list()?.iter().any(|(finished, _)| *finished == number);
        let usable = if taken { None } else { scan_partial(&**store, number, image.as_ref(), options)? };
        let Some((pack, known, end)) = usable else {
            store.delete_partial(number)?;
            salvage.removed.push(name);
            continue;
        };
        salvage.frames = salvage.frames.saturating_add(u64::try_from(known.len()).unwrap_or(0));
        salvage.bytes = salvage.bytes.saturating_add(end.saturating_sub(pack.first_frame()));
        let mut catalogue = image.as_ref().map(|image| image.catalogue().clone()).unwrap_or_default();
        catalogue.next_generation = catalogue.next_generation.max(1);
        let writer = PackWriter::resume(store.resume(number, end)?, &pack, known, end);
        writer.finish(None, |_| catalogue.encode(), &mut |bytes| compress(compressor, bytes))?;
        salvage.packs.push(store.name(number));
        *image = Some(Image::open(Arc::clone(store), &OpenOptions::default())?);
    }
    Ok(salvage)
}

/// The frames of a partial pack that can be kept, and where they end; `None` where there are none, or where they are of another
/// image or chunk size.
#[expect(clippy::type_complexity, reason = "the three values are used once, by the caller below")]
fn scan_partial(
    store: &dyn PackStore,
    number: u32,
    image: Option<&Image>,
    options: &WriterOptions,
) -> Result<Option<(Pack, HashMap<Id, Place>, u64)>> {
    let Ok(pack) = Pack::open(store.open_partial(number)?, store.name(number)) else { return Ok(None) };
    let header = pack.header();
    let expected = match image {
        Some(image) => header.image_id == image.id() && header.chunk_log2 == image.chunk_log2(),
        None => header.chunk_log2 == options.chunk_log2.unwrap_or(DEFAULT_CHUNK_LOG2),
    };
    if !expected || header.number != number {
        return Ok(None);
    }
    let mut known = HashMap::new();
    let end = pack.scan(&mut |scanned| {
        let keep = matches!(scanned.frame.frame_type, FrameType::Chunk | FrameType::Node);
        if keep {
            known.insert(scanned.frame.id, scanned.place);
        }
        Ok(keep)
    })?;
    Ok(if known.is_empty() { None } else { Some((pack, known, end)) })
}
