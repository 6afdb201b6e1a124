//! An opened image: which packs and generations it has, and how a pointer becomes bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::{Error, Result, full_message};
use crate::image::catalogue::{Catalogue, GenerationEntry, PackEntry};
use crate::image::chunk_cache::ChunkCache;
use crate::image::codec::Decompressor;
use crate::image::frame::Frame;
use crate::image::generation::Generation;
use crate::image::id::{Id, Place, Pointer, image_id_hex};
use crate::image::layout::{Codec, FrameType};
use crate::image::node::{Node, Shape};
use crate::image::pack::{Footer, Pack};
use crate::image::place_map::PlaceMaps;
use crate::image::record::Record;
use crate::image::store::PackStore;

/// Packs that are held open at once.
const MAX_OPEN_PACKS: usize = 200;
/// Bytes of decoded nodes that are kept.
const NODE_CACHE_BYTES: u64 = 24 << 20;
/// How many nodes that is, about.
const NODES_ESTIMATED: usize = 1536;
/// Default of [`OpenOptions::cache_bytes`].
const CHUNK_CACHE_BYTES: u64 = 64 << 20;

/// How an image is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Most bytes of decoded chunks that are kept, shared by all generations.
    pub cache_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { cache_bytes: CHUNK_CACHE_BYTES }
    }
}

#[derive(Clone)]
struct NodeWeight;

impl Weighter<Pointer, Arc<Node>> for NodeWeight {
    fn weight(&self, _: &Pointer, node: &Arc<Node>) -> u64 {
        u64::try_from(node.slots.len()).unwrap_or(u64::MAX).saturating_mul(72).saturating_add(128)
    }
}

/// A hikae image, opened for reading. Any number of threads may read at once.
pub struct Image {
    store: Arc<dyn PackStore>,
    id: [u8; 16],
    chunk_log2: u8,
    catalogue: Catalogue,
    newest_footer: Option<(u32, [u8; 32])>,
    missing: Vec<u32>,
    warnings: Vec<String>,
    packs: Mutex<HashMap<u32, Arc<Pack>>>,
    /// The pack that a writer in this process has not finished yet.
    open_pack: Mutex<Option<Arc<Pack>>>,
    place_maps: PlaceMaps,
    chunks: ChunkCache,
    /// By place as well: two nodes of one id can point at different copies of a chunk, one of them damaged.
    nodes: Cache<Pointer, Arc<Node>, NodeWeight>,
    decoders: Mutex<Vec<Decoder>>,
    /// Bytes of chunks that were decoded.
    decoded: AtomicU64,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("store", &self.store).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// Buffers and contexts that a thread needs to turn pointers into bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    decompressor: Decompressor,
    frame: Vec<u8>,
    base_frame: Vec<u8>,
    base: Vec<u8>,
    object: Vec<u8>,
}

/// Image id and chunk size (as a power of two): what all packs of an image have in common.
type Identity = ([u8; 16], u8);

fn identity_of(pack: &Pack) -> Identity {
    (pack.header().image_id, pack.header().chunk_log2)
}

/// How the fallback of a damaged newest pack found generations.
struct Found {
    catalogue: Catalogue,
    newest_footer: Option<(u32, [u8; 32])>,
    header: Identity,
    warnings: Vec<String>,
}

impl Image {
    /// Opens the image whose packs lie in `store`: reads one footer and one catalogue where nothing is damaged.
    ///
    /// Damage and missing packs do not prevent it as long as one generation can be found: [`Image::warnings`] names them.
    pub fn open(store: Arc<dyn PackStore>, options: &OpenOptions) -> Result<Self> {
        let listed: BTreeMap<u32, u64> = store.list()?.into_iter().collect();
        if listed.is_empty() {
            return Err(Error::NotFound(format!("there is no image {}", store.name(0))));
        }
        let found = find_catalogue(&*store, &listed)?;
        let Found { catalogue, newest_footer, header: (id, chunk_log2), mut warnings } = found;
        let mut missing = Vec::new();
        for pack in &catalogue.packs {
            match listed.get(&pack.number) {
                _ if pack.replaced_by.is_some() => {}
                None => {
                    missing.push(pack.number);
                    let name = store.name(pack.number);
                    warnings.push(format!("{name} is missing: what needs it cannot be read until it is back"));
                }
                Some(len) if *len != pack.file_len => warnings.push(format!(
                    "{} is {len} bytes long but was {} when it was finished: part of it is lost",
                    store.name(pack.number),
                    pack.file_len
                )),
                Some(_) => {}
            }
        }
        warnings.extend(head_warning(&*store, id, newest_footer));
        Ok(Self::with_parts(store, (id, chunk_log2), catalogue, newest_footer, (missing, warnings), options))
    }

    /// An image without packs, for its first writer.
    pub(crate) fn empty(store: Arc<dyn PackStore>, id: [u8; 16], chunk_log2: u8) -> Self {
        let catalogue = Catalogue { next_generation: 1, ..Catalogue::default() };
        Self::with_parts(store, (id, chunk_log2), catalogue, None, Default::default(), &OpenOptions::default())
    }

    fn with_parts(
        store: Arc<dyn PackStore>,
        (id, chunk_log2): ([u8; 16], u8),
        catalogue: Catalogue,
        newest_footer: Option<(u32, [u8; 32])>,
        (missing, warnings): (Vec<u32>, Vec<String>),
        options: &OpenOptions,
    ) -> Self {
        Self {
            place_maps: PlaceMaps::new(&catalogue),
            catalogue,
            newest_footer,
            missing,
            warnings,
            id,
            chunk_log2,
            store,
            packs: Mutex::default(),
            open_pack: Mutex::default(),
            chunks: ChunkCache::new(options.cache_bytes.max(1 << 20), 1 << chunk_log2),
            nodes: Cache::with_weighter(NODES_ESTIMATED, NODE_CACHE_BYTES, NodeWeight),
            decoders: Mutex::default(),
            decoded: AtomicU64::new(0),
        }
    }

    /// The 16 random bytes that all its packs share.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Bytes in a chunk.
    pub fn chunk_size(&self) -> u32 {
        1 << self.chunk_log2
    }

    /// Chunk size as a power of two.
    pub fn chunk_log2(&self) -> u8 {
        self.chunk_log2
    }

    /// Where its packs lie.
    pub fn store(&self) -> &Arc<dyn PackStore> {
        &self.store
    }

    /// All that is listed.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Number and footer hash of the pack whose catalogue was used; `None` where every footer was damaged.
    pub fn newest_footer(&self) -> Option<(u32, [u8; 32])> {
        self.newest_footer
    }

    /// Missing and damaged packs, in words.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bytes of chunks that were decoded for readers since the image was opened, bases of differences included. Verifying and capturing
    /// do not count.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn count_decoded(&self, bytes: &[u8]) {
        self.decoded.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Numbers of packs that the catalogue lists but that are not there.
    pub fn missing_packs(&self) -> HashSet<u32> {
        self.missing.iter().copied().collect()
    }

    /// The generations, ascending by number.
    pub fn generations(&self) -> &[GenerationEntry] {
        &self.catalogue.generations
    }

    /// Reads the record of a generation.
    pub fn record(&self, entry: &GenerationEntry) -> Result<Record> {
        let pointer = Pointer { id: entry.record_id, place: entry.record };
        let mut json = Vec::new();
        self.with_decoder(|decoder| self.read_object(decoder, pointer, FrameType::Record, &mut json))?;
        let record = Record::decode(&json)?;
        if record.generation != entry.number || record.chunk_size != self.chunk_size() {
            let what = format!("record of generation {}", entry.number);
            return Err(Error::corrupt(what, entry.record.offset, "it is that of another generation or image"));
        }
        Ok(record)
    }

    /// Opens a generation as a disk.
    pub fn generation(self: &Arc<Self>, number: u32) -> Result<Generation> {
        let entry = self.catalogue.generations.iter().find(|entry| entry.number == number);
        let entry = entry.ok_or_else(|| Error::NotFound(format!("there is no generation {number}")))?;
        Generation::open(Arc::clone(self), self.record(entry)?)
    }

    /// Opens a pack, or finds it among the open ones. Checks that it is the pack it is called.
    pub fn pack(&self, number: u32) -> Result<Arc<Pack>> {
        if let Some(pack) = self.packs.lock().expect("no holder of the lock panics").get(&number) {
            return Ok(Arc::clone(pack));
        }
        if let Some(pack) = &*self.open_pack.lock().expect("no holder of the lock panics")
            && pack.header().number == number
        {
            return Ok(Arc::clone(pack));
        }
        let pack = Arc::new(open_pack(&*self.store, number)?);
        if pack.header().image_id != self.id || pack.header().chunk_log2 != self.chunk_log2 {
            let reason = "it belongs to another image";
            return Err(Error::corrupt(format_args!("header of {}", pack.name()), 0, reason));
        }
        let mut packs = self.packs.lock().expect("no holder of the lock panics");
        if packs.len() >= MAX_OPEN_PACKS {
            packs.clear();
        }
        packs.insert(number, Arc::clone(&pack));
        Ok(pack)
    }

    /// Lets the image read a pack that is still being written; `None` ends that.
    pub(crate) fn set_open_pack(&self, pack: Option<Pack>) {
        *self.open_pack.lock().expect("no holder of the lock panics") = pack.map(Arc::new);
    }

    /// Where a frame lies now: follows the place map of a pack that was replaced.
    pub fn resolve(&self, place: Place) -> Result<Place> {
        self.place_maps.resolve(self, place)
    }

    /// Reads and decodes a whole object of a type other than a chunk into `out`, and proves it.
    pub fn read_object(
        &self,
        decoder: &mut Decoder,
        pointer: Pointer,
        frame_type: FrameType,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let place = self.resolve(pointer.place)?;
        let pack = self.pack(place.pack)?;
        let (frame, payload) = pack.read_frame(place, &mut decoder.frame)?;
        expect_type(&frame, frame_type, &pack, place)?;
        decoder.decompressor.decode_frame(&frame, payload, out, &pack, place)?;
        // The id of a node leaves out places, so its user computes it.
        let proven = match frame_type {
            FrameType::Node => frame.id == pointer.id,
            _ => {
                let context = frame_type.id_context().expect("callers ask for no chunk");
                frame.id == pointer.id && Id::derived(context, out) == pointer.id
            }
        };
        if proven { Ok(()) } else { Err(wrong_content(frame_type, &pack, place)) }
    }

    /// Reads and proves a chunk into `out`, whose length is the chunk's.
    pub fn read_chunk(&self, decoder: &mut Decoder, pointer: Pointer, out: &mut [u8]) -> Result<()> {
        let place = self.resolve(pointer.place)?;
        let pack = self.pack(place.pack)?;
        let (frame, payload) = pack.read_frame(place, &mut decoder.frame)?;
        expect_type(&frame, FrameType::Chunk, &pack, place)?;
        if usize::try_from(frame.logical_len).ok() != Some(out.len()) {
            let what = format!("chunk in {}", pack.name());
            return Err(Error::corrupt(what, place.offset, "it is not as long as its place on the disk"));
        }
        match frame.base {
            None => decoder.decompressor.decode(frame.codec, payload, out).map_err(|e| located(e, &pack, place))?,
            Some(base) => {
                self.read_base(&mut decoder.decompressor, &mut decoder.base_frame, &mut decoder.base, base)?;
                decoder
                    .decompressor
                    .decode_difference(payload, &decoder.base, out)
                    .map_err(|e| located(e, &pack, place))?;
            }
        }
        self.count_decoded(out);
        if frame.id != pointer.id || Id::of_chunk(out) != pointer.id {
            return Err(wrong_content(FrameType::Chunk, &pack, place));
        }
        Ok(())
    }

    /// Reads the frame at `place`, whatever pointer leads there, and proves its content against the id in its header.
    /// Returns that id.
    pub fn prove_frame(&self, decoder: &mut Decoder, frame_type: FrameType, place: Place) -> Result<Id> {
        let pack = self.pack(place.pack)?;
        let (frame, payload) = pack.read_frame(place, &mut decoder.frame)?;
        expect_type(&frame, frame_type, &pack, place)?;
        let out = &mut decoder.object;
        out.resize(usize::try_from(frame.logical_len).unwrap_or(0), 0);
        match frame.base {
            None => decoder.decompressor.decode(frame.codec, payload, out).map_err(|e| located(e, &pack, place))?,
            Some(base) => {
                self.read_base(&mut decoder.decompressor, &mut decoder.base_frame, &mut decoder.base, base)?;
                decoder
                    .decompressor
                    .decode_difference(payload, &decoder.base, out)
                    .map_err(|e| located(e, &pack, place))?;
            }
        }
        let id = match (frame_type, frame_type.id_context()) {
            (FrameType::Node, _) => Node::id_of_stored(out)?,
            (_, Some(context)) => Id::derived(context, out),
            (_, None) => Id::of_chunk(out),
        };
        if id == frame.id { Ok(id) } else { Err(wrong_content(frame_type, &pack, place)) }
    }

    /// Reads the whole chunk that a difference is based on. Returns its id and codec.
    fn read_base(
        &self,
        decompressor: &mut Decompressor,
        frame_buf: &mut Vec<u8>,
        out: &mut Vec<u8>,
        place: Place,
    ) -> Result<Id> {
        let place = self.resolve(place)?;
        let pack = self.pack(place.pack)?;
        let (frame, payload) = pack.read_frame(place, frame_buf)?;
        expect_type(&frame, FrameType::Chunk, &pack, place)?;
        decompressor.decode_frame(&frame, payload, out, &pack, place)?;
        self.count_decoded(out);
        if Id::of_chunk(out) != frame.id {
            return Err(wrong_content(FrameType::Chunk, &pack, place));
        }
        Ok(frame.id)
    }

    /// Reads the chunk at `pointer`, or its base where it is a difference: what a new difference can be based on.
    /// Returns its place and leaves its bytes in `out`.
    pub fn read_as_base(&self, decoder: &mut Decoder, pointer: Pointer, out: &mut Vec<u8>) -> Result<Place> {
        let mut place = self.resolve(pointer.place)?;
        let pack = self.pack(place.pack)?;
        let (frame, payload) = pack.read_frame(place, &mut decoder.frame)?;
        expect_type(&frame, FrameType::Chunk, &pack, place)?;
        match frame.base {
            None => {
                decoder.decompressor.decode_frame(&frame, payload, out, &pack, place)?;
                if Id::of_chunk(out) != pointer.id {
                    return Err(wrong_content(FrameType::Chunk, &pack, place));
                }
            }
            Some(base) => {
                place = self.resolve(base)?;
                self.read_base(&mut decoder.decompressor, &mut decoder.base_frame, out, place)?;
            }
        }
        Ok(place)
    }

    /// The chunk at `pointer` (`len` bytes) from the cache, decoded once however many threads ask for it.
    pub fn cached_chunk(&self, pointer: Pointer, len: usize) -> Result<Arc<Vec<u8>>> {
        let chunk = self.chunks.get_or_decode(&pointer.id, len, |bytes| {
            self.with_decoder(|decoder| self.read_chunk(decoder, pointer, bytes))
        })?;
        if chunk.len() == len {
            return Ok(chunk);
        }
        let what = format!("node that names the chunk at {}", pointer.place);
        Err(Error::corrupt(what, pointer.place.offset, "the chunk is not as long as its place on the disk"))
    }

    /// The chunk at `pointer` where the cache has it.
    pub fn chunk_if_cached(&self, pointer: Pointer) -> Option<Arc<Vec<u8>>> {
        self.chunks.get(&pointer.id)
    }

    /// The node at `pointer`, proven, from the cache or the pack.
    pub fn node(&self, pointer: Pointer, shape: &Shape) -> Result<Arc<Node>> {
        let node = self.nodes.get_or_insert_with(&pointer, || {
            let mut bytes = Vec::new();
            self.with_decoder(|decoder| self.read_object(decoder, pointer, FrameType::Node, &mut bytes))?;
            let node = Node::decode(&bytes, shape).map_err(|error| {
                Error::corrupt(
                    format_args!("node in {}", self.store.name(pointer.place.pack)),
                    pointer.place.offset,
                    reason_of(&error),
                )
            })?;
            if node.id() != pointer.id {
                return Err(wrong_content(
                    FrameType::Node,
                    &*self.pack(self.resolve(pointer.place)?.pack)?,
                    pointer.place,
                ));
            }
            Ok::<_, Error>(Arc::new(node))
        })?;
        if node.level == shape.level && u64::try_from(node.slots.len()).ok() == Some(shape.slots) {
            return Ok(node);
        }
        Err(Error::corrupt(
            format_args!("node at {}", pointer.place),
            pointer.place.offset,
            "it is not of the shape of its position",
        ))
    }

    /// Lends a decoder of the pool for the length of a call.
    pub fn with_decoder<T>(&self, work: impl FnOnce(&mut Decoder) -> T) -> T {
        let pooled = self.decoders.lock().expect("no holder of the lock panics").pop();
        let mut decoder = pooled.unwrap_or_default();
        let result = work(&mut decoder);
        self.decoders.lock().expect("no holder of the lock panics").push(decoder);
        result
    }
}

impl Decompressor {
    /// Decodes a frame that is no difference into `out`, which becomes as long as the frame says (checked to be within
    /// the limit of its type).
    fn decode_frame(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        out: &mut Vec<u8>,
        pack: &Pack,
        place: Place,
    ) -> Result<()> {
        out.resize(usize::try_from(frame.logical_len).unwrap_or(0), 0);
        self.decode(frame.codec, payload, out).map_err(|error| located(error, pack, place))
    }
}

/// Says where a payload lies that did not decode.
fn located(error: Error, pack: &Pack, place: Place) -> Error {
    Error::corrupt(format_args!("frame in {}", pack.name()), place.offset, reason_of(&error))
}

fn reason_of(error: &Error) -> &'static str {
    match error {
        Error::Corrupt { reason, .. } => reason,
        _ => "it cannot be read",
    }
}

fn expect_type(frame: &Frame, frame_type: FrameType, pack: &Pack, place: Place) -> Result<()> {
    if frame.frame_type == frame_type && (frame.codec != Codec::ZstdWithBase || frame_type == FrameType::Chunk) {
        return Ok(());
    }
    let what = format!("{} in {}", frame_type.name(), pack.name());
    Err(Error::corrupt(what, place.offset, "a frame of another type lies there"))
}

fn wrong_content(frame_type: FrameType, pack: &Pack, place: Place) -> Error {
    let what = format!("{} in {}", frame_type.name(), pack.name());
    Error::corrupt(what, place.offset, "its content does not match its id")
}

/// Opens a pack by number and checks that its header says the same number.
fn open_pack(store: &dyn PackStore, number: u32) -> Result<Pack> {
    let name = store.name(number);
    let pack = Pack::open(store.open(number)?, name.clone())?;
    let inside = pack.header().number;
    if inside != number {
        let right = store.name(inside);
        return Err(Error::NotFound(format!(
            "{name} is not the pack it is called: it holds pack {inside} and should be {right}"
        )));
    }
    Ok(pack)
}

/// What the packs have in common: first and last tell. Where they differ, a pack of another image lies among them, and the most decide.
fn identity(store: &dyn PackStore, listed: &BTreeMap<u32, u64>) -> Option<Identity> {
    let of = |number: &u32| open_pack(store, *number).ok().map(|pack| identity_of(&pack));
    let first = listed.keys().find_map(of)?;
    if listed.keys().rev().find_map(of) == Some(first) {
        return Some(first);
    }
    let mut votes: BTreeMap<Identity, usize> = BTreeMap::new();
    for identity in listed.keys().filter_map(of) {
        let count = votes.entry(identity).or_default();
        *count = count.saturating_add(1);
    }
    let most = votes.values().max().copied()?;
    let leads = |identity: &Identity| votes.get(identity) == Some(&most);
    if leads(&first) { Some(first) } else { votes.into_iter().find(|(_, count)| *count == most).map(|(id, _)| id) }
}

/// Takes the catalogue of the newest pack that is whole; finds by scanning what packs behind it hold.
fn find_catalogue(store: &dyn PackStore, listed: &BTreeMap<u32, u64>) -> Result<Found> {
    let mut warnings = Vec::new();
    let mut damaged = Vec::new();
    let mut chosen = None;
    let mut first_error = None;
    let mut header = identity(store, listed);
    for number in listed.keys().rev().copied() {
        match read_catalogue(store, number) {
            Ok((pack, ..)) if header.is_some_and(|header| header != identity_of(&pack)) => {
                warnings.push(format!("{} belongs to another image and is left out", store.name(number)));
            }
            Ok((pack, footer, catalogue)) => {
                chosen = Some((pack, footer, catalogue));
                break;
            }
            // A feature that is not known is no damage: the packs before it are not the whole truth.
            Err(error @ Error::Unsupported { .. }) => return Err(error),
            Err(error) => {
                warnings.push(format!("{} cannot be used as it is: {}", store.name(number), full_message(&error)));
                damaged.push(number);
                first_error.get_or_insert(error);
            }
        }
    }
    let newest_footer = chosen.as_ref().map(|(pack, footer, _)| (pack.header().number, footer.hash));
    let mut catalogue = match chosen {
        Some((pack, footer, mut catalogue)) => {
            if catalogue.packs.last().is_none_or(|last| last.number < pack.header().number) {
                catalogue.packs.push(PackEntry {
                    number: pack.header().number,
                    file_len: pack.file().len()?,
                    replaced_by: None,
                    footer_hash: footer.hash,
                });
            }
            catalogue
        }
        None => Catalogue { next_generation: 1, ..Catalogue::default() },
    };
    // Ascending, so that what is found is added in order.
    for number in damaged.into_iter().rev() {
        let Ok(pack) = open_pack(store, number) else { continue };
        let identity = identity_of(&pack);
        if *header.get_or_insert(identity) != identity {
            warnings.push(format!("{} belongs to another image and is left out", store.name(number)));
            continue;
        }
        let found = recover_generations(store, &pack);
        for entry in found {
            if catalogue.generations.last().is_none_or(|last| last.number < entry.number) {
                catalogue.next_generation = catalogue.next_generation.max(entry.number.saturating_add(1));
                warnings.push(format!("generation {} was found by scanning {}", entry.number, pack.name()));
                catalogue.generations.push(entry);
            }
        }
        if catalogue.packs.iter().all(|entry| entry.number != number) {
            let file_len = listed.get(&number).copied().unwrap_or(0);
            catalogue.packs.push(PackEntry { number, file_len, replaced_by: None, footer_hash: [0; 32] });
        }
    }
    catalogue.packs.sort_unstable_by_key(|pack| pack.number);
    if let (Some(identity), Some((newest, _))) = (header, newest_footer) {
        let is_listed = |number: &u32| catalogue.packs.binary_search_by_key(number, |pack| pack.number).is_ok();
        let unlisted = listed.range(..newest).filter(|(number, _)| !is_listed(number));
        for (number, len) in unlisted.map(|(number, len)| (*number, *len)).collect::<Vec<_>>() {
            take_back(store, number, len, identity, &mut catalogue, &mut warnings);
        }
        catalogue.packs.sort_unstable_by_key(|pack| pack.number);
    }
    match header {
        Some(header) if newest_footer.is_some() || !catalogue.generations.is_empty() => {
            Ok(Found { catalogue, newest_footer, header, warnings })
        }
        _ => Err(first_error.unwrap_or_else(|| Error::NotFound(format!("there is no image {}", store.name(0))))),
    }
}

/// Lists a pack that was missing while newer ones were written, and is back: their catalogues know nothing of it.
fn take_back(
    store: &dyn PackStore,
    number: u32,
    file_len: u64,
    identity: Identity,
    catalogue: &mut Catalogue,
    warnings: &mut Vec<String>,
) {
    let name = store.name(number);
    let pack = match open_pack(store, number) {
        Ok(pack) if identity_of(&pack) == identity => pack,
        Ok(_) => return warnings.push(format!("{name} belongs to another image and is left out")),
        Err(error) => return warnings.push(format!("{name} cannot be used as it is: {}", full_message(&error))),
    };
    let (found, footer_hash) = match read_catalogue(store, number) {
        Ok((_, footer, own)) => (own.generations, footer.hash),
        Err(error) => {
            warnings.push(format!("{name} cannot be used as it is: {}", full_message(&error)));
            (recover_generations(store, &pack), [0; 32])
        }
    };
    catalogue.packs.push(PackEntry { number, file_len, replaced_by: None, footer_hash });
    for entry in found.into_iter().filter(|entry| entry.record.pack == number) {
        match catalogue.generations.binary_search_by_key(&entry.number, |other| other.number) {
            Ok(_) => warnings.push(format!(
                "{name} holds another generation {}, which was captured while this pack was missing: it is left out",
                entry.number
            )),
            Err(at) => catalogue.generations.insert(at, entry),
        }
        catalogue.next_generation = catalogue.next_generation.max(entry.number.saturating_add(1));
    }
}

fn read_catalogue(store: &dyn PackStore, number: u32) -> Result<(Pack, Footer, Catalogue)> {
    let pack = open_pack(store, number)?;
    let footer = pack.footer()?;
    let mut buf = Vec::new();
    let (frame, payload) = pack.read_frame(footer.catalogue, &mut buf)?;
    expect_type(&frame, FrameType::Catalogue, &pack, footer.catalogue)?;
    let mut bytes = Vec::new();
    Decompressor::default().decode_frame(&frame, payload, &mut bytes, &pack, footer.catalogue)?;
    if Id::derived(crate::image::layout::context::CATALOGUE, &bytes) != frame.id {
        return Err(wrong_content(FrameType::Catalogue, &pack, footer.catalogue));
    }
    Ok((pack, footer, Catalogue::decode(&bytes)?))
}

/// Finds the records in a pack whose end is damaged, by hopping over its frames.
fn recover_generations(_store: &dyn PackStore, pack: &Pack) -> Vec<GenerationEntry> {
    let mut places = Vec::new();
    let hopped = pack.hop(&mut |frame, place| {
        if frame.frame_type == FrameType::Record {
            places.push(place);
        }
    });
    if hopped.is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (mut buf, mut json) = (Vec::new(), Vec::new());
    for place in places {
        let Ok((frame, payload)) = pack.read_frame(place, &mut buf) else { continue };
        if Decompressor::default().decode_frame(&frame, payload, &mut json, pack, place).is_err()
            || Id::derived(crate::image::layout::context::RECORD, &json) != frame.id
        {
            continue;
        }
        if let Ok(record) = Record::decode(&json) {
            found.push(GenerationEntry {
                number: record.generation,
                created: record.created_seconds(),
                record: place,
                record_id: frame.id,
            });
        }
    }
    found
}

/// The text of `NAME.hik.head`: which pack was the newest when the last capture ended.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Head {
    /// Image id: a new image can take the name of an old one whose derived files are still there.
    pub(crate) image: String,
    /// Pack number.
    pub(crate) pack: u32,
    /// Generation whose record it holds.
    pub(crate) generation: u32,
}

impl Head {
    /// Reads the file where it is that of the image `id`.
    pub(crate) fn read(store: &dyn PackStore, id: [u8; 16]) -> Option<Self> {
        let head: Self = serde_json::from_slice(&std::fs::read(store.side_file("head")).ok()?).ok()?;
        (head.image == image_id_hex(&id)).then_some(head)
    }
}

/// Says so where the newest pack is gone altogether: no catalogue can know that.
fn head_warning(store: &dyn PackStore, id: [u8; 16], newest: Option<(u32, [u8; 32])>) -> Option<String> {
    let head = Head::read(store, id)?;
    let known = newest.map_or(0, |(number, _)| number);
    (head.pack > known && !store.list().ok()?.iter().any(|(number, _)| *number == head.pack)).then(|| {
        let (name, generation) = (store.name(head.pack), head.generation);
        format!("{name} is missing: generation {generation} is in it, and cannot be read until it is back")
    })
}
