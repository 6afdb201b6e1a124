//! One pack: its header and footer, reading its frames, scanning it, and writing a new one.
//!
//! Source: docs/format.md section 3.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::image::frame::{self, Frame};
use crate::image::id::{Id, Place, Pointer};
use crate::image::layout::{
    CHUNK_LOG2_RANGE, Codec, FOOTER_LEN, FOOTER_MAGIC, FRAME_HEADER_LEN, FooterRaw, FrameType, HEADER_LEN,
    HEADER_MAGIC, HeaderRaw, VERSION, context,
};
use crate::image::store::{NewPack, PackFile};
use crate::image::table;

/// A pack header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The image that the pack belongs to.
    pub image_id: [u8; 16],
    /// Which pack of it this is.
    pub number: u32,
    /// Chunk size as a power of two, in bytes.
    pub chunk_log2: u8,
    /// Seconds since 1970.
    pub created: u64,
}

impl Header {
    /// The stored form of a pack that needs no feature.
    fn encode(&self) -> Vec<u8> {
        let mut raw = HeaderRaw {
            magic: HEADER_MAGIC,
            version: VERSION.into(),
            header_len: u16::try_from(HEADER_LEN).expect("a small constant").into(),
            checksum: 0.into(),
            image_id: self.image_id,
            pack_number: self.number.into(),
            chunk_log2: self.chunk_log2,
            reserved: [0; 3],
            created: self.created.into(),
            incompatible_len: 0.into(),
            compatible_len: 0.into(),
            reserved_2: 0.into(),
        };
        raw.checksum = crc32fast::hash(raw.as_bytes()).into();
        raw.as_bytes().to_vec()
    }

    /// Bytes in a chunk.
    pub fn chunk_size(&self) -> u32 {
        1_u32 << self.chunk_log2.min(*CHUNK_LOG2_RANGE.end())
    }

    /// Reads and checks the header of a pack; also returns its bytes.
    fn read(file: &dyn PackFile, name: &str) -> Result<(Self, Vec<u8>)> {
        let corrupt = |reason| Error::corrupt(format_args!("header of {name}"), 0, reason);
        let file_len = file.len()?;
        if file_len < u64::try_from(HEADER_LEN).unwrap_or(u64::MAX) {
            return Err(corrupt("the file is shorter than a header"));
        }
        let mut bytes = vec![0; HEADER_LEN];
        file.read_at(&mut bytes, 0)?;
        let (raw, _) = HeaderRaw::read_from_prefix(&bytes).map_err(|_| corrupt("it is cut short"))?;
        if raw.magic != HEADER_MAGIC {
            return Err(corrupt("this is no pack of a hikae image"));
        }
        if raw.version.get() != VERSION {
            let version = format!("version {} of the format (this program reads version 1)", raw.version.get());
            return Err(Error::unsupported(name, version));
        }
        let lists = usize::from(raw.incompatible_len.get()).saturating_add(usize::from(raw.compatible_len.get()));
        let len = HEADER_LEN.saturating_add(lists);
        if usize::from(raw.header_len.get()) != len {
            return Err(corrupt("its length does not match its lists of features"));
        }
        bytes.resize(len, 0);
        if file_len < u64::try_from(len).unwrap_or(u64::MAX) {
            return Err(corrupt("the file is shorter than its header"));
        }
        file.read_at(&mut bytes, 0)?;
        let mut zeroed = bytes.clone();
        zeroed.get_mut(0x0c..0x10).expect("a header is longer").fill(0);
        if crc32fast::hash(&zeroed) != raw.checksum.get() {
            return Err(corrupt("its checksum does not match"));
        }
        let features = bytes.get(HEADER_LEN..).unwrap_or_default();
        let features = features.get(..usize::from(raw.incompatible_len.get())).unwrap_or_default();
        if !features.is_empty() {
            let features = String::from_utf8_lossy(features).replace(|c: char| !(c.is_ascii_graphic()), "?");
            return Err(Error::unsupported(name, format!("it needs {features}, which this program does not know")));
        }
        if raw.reserved != [0; 3] || raw.reserved_2.get() != 0 {
            return Err(corrupt("a reserved field is not 0"));
        }
        if !CHUNK_LOG2_RANGE.contains(&raw.chunk_log2) {
            return Err(corrupt("its chunk size is out of range"));
        }
        let header = Self {
            image_id: raw.image_id,
            number: raw.pack_number.get(),
            chunk_log2: raw.chunk_log2,
            created: raw.created.get(),
        };
        Ok((header, bytes))
    }
}

/// A footer, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the table lies.
    pub table: Place,
    /// Where the catalogue lies.
    pub catalogue: Place,
    /// Offset of the first place map segment in bytes.
    pub place_map_offset: u64,
    /// Number of place map segments.
    pub place_map_count: u32,
    /// Proves the pack.
    pub hash: [u8; 32],
}

/// A pack opened for reading. Its header has been checked.
#[derive(Clone, Debug)]
pub struct Pack {
    file: Arc<dyn PackFile>,
    header: Header,
    header_bytes: Vec<u8>,
    name: String,
}

/// What a scan of a pack found.
#[derive(Clone, Copy, Debug)]
pub struct ScannedFrame<'a> {
    /// The header.
    pub frame: Frame,
    /// Where the frame lies.
    pub place: Place,
    /// The whole frame, checksum checked.
    pub bytes: &'a [u8],
}

impl Pack {
    /// Opens a pack and checks its header. `name` is for messages.
    pub fn open(file: Arc<dyn PackFile>, name: String) -> Result<Self> {
        let (header, header_bytes) = Header::read(&*file, &name)?;
        Ok(Self { file, header, header_bytes, name })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn file(&self) -> &Arc<dyn PackFile> {
        &self.file
    }

    /// Reads and checks the footer.
    pub fn footer(&self) -> Result<Footer> {
        let file_len = self.file.len()?;
        let footer_len = u64::try_from(FOOTER_LEN).expect("a small constant");
        let offset = file_len.saturating_sub(footer_len);
        let corrupt = |reason| Error::corrupt(format_args!("footer of {}", self.name), offset, reason);
        if file_len < footer_len.saturating_add(self.first_frame()) {
            return Err(corrupt("the file is too short to have one"));
        }
        let mut bytes = [0; FOOTER_LEN];
        self.file.read_at(&mut bytes, offset)?;
        let raw = FooterRaw::read_from_bytes(&bytes).map_err(|_| corrupt("it is cut short"))?;
        if raw.magic != FOOTER_MAGIC {
            return Err(corrupt("it is not there: the file is cut short or is still being written"));
        }
        let mut zeroed = raw;
        zeroed.checksum = 0.into();
        if crc32fast::hash(zeroed.as_bytes()) != raw.checksum.get() {
            return Err(corrupt("its checksum does not match"));
        }
        if raw.reserved.get() != 0 || raw.reserved_2 != [0; 16] {
            return Err(corrupt("a reserved field is not 0"));
        }
        if raw.pack_number.get() != self.header.number || raw.image_id != self.header.image_id {
            return Err(corrupt("it belongs to another pack"));
        }
        if raw.file_len.get() != file_len {
            return Err(corrupt("the file is not as long as it says"));
        }
        let pack = self.header.number;
        let table = Place { pack, offset: raw.table_offset.get(), len: raw.table_len.get() };
        let catalogue = Place { pack, offset: raw.catalogue_offset.get(), len: raw.catalogue_len.get() };
        if table.end() > catalogue.offset || catalogue.end() != offset {
            return Err(corrupt("table and catalogue do not lie where they should"));
        }
        Ok(Footer {
            table,
            catalogue,
            place_map_offset: raw.place_map_offset.get(),
            place_map_count: raw.place_map_count.get(),
            hash: raw.hash,
        })
    }

    /// Checks the footer's hash against the header and the ids of table, record and catalogue.
    pub fn check_footer_hash(&self, table: Id, record: Id, catalogue: Id) -> Result<()> {
        let offset = self.file.len()?.saturating_sub(u64::try_from(FOOTER_LEN).expect("a small constant"));
        let mut bytes = [0; FOOTER_LEN];
        self.file.read_at(&mut bytes, offset)?;
        let middle = bytes.get(0x0c..0x60).expect("a footer has 128 bytes");
        if footer_hash(&self.header_bytes, middle, table, record, catalogue) != bytes.get(0x60..).unwrap_or_default() {
            let reason = "its hash does not match header, table, record and catalogue";
            return Err(Error::corrupt(format_args!("footer of {}", self.name), offset, reason));
        }
        Ok(())
    }

    /// Offset of the first frame.
    pub fn first_frame(&self) -> u64 {
        u64::try_from(self.header_bytes.len()).unwrap_or(u64::MAX)
    }

    /// Reads the frame header at `offset`, without its payload.
    pub fn frame_header_at(&self, offset: u64) -> Result<(Frame, Place)> {
        let mut bytes = [0; FRAME_HEADER_LEN];
        let mut place = Place { pack: self.header.number, offset, len: 0 };
        self.file.read_at(&mut bytes, offset)?;
        let frame = frame::parse_header(&bytes, self.header.chunk_size(), place)?;
        place.len = frame.payload_len.saturating_add(u32::try_from(FRAME_HEADER_LEN).expect("a small constant"));
        Ok((frame, place))
    }

    /// Reads a whole frame into `buf` and checks header, length and checksum. The payload still has to be decoded.
    pub fn read_frame<'a>(&self, place: Place, buf: &'a mut Vec<u8>) -> Result<(Frame, &'a [u8])> {
        let corrupt = |reason| Error::corrupt(format_args!("frame in {}", self.name), place.offset, reason);
        let len = usize::try_from(place.len).unwrap_or(usize::MAX);
        if len < FRAME_HEADER_LEN {
            return Err(corrupt("the length in its pointer is shorter than a frame header"));
        }
        // A pointer comes from a checked node, but a node may be hostile: allocate for what is in the file.
        if buf.capacity() < len && place.end() > self.file.len()? {
            return Err(corrupt("it reaches past the end of the pack"));
        }
        buf.resize(len, 0);
        self.file.read_at(buf, place.offset)?;
        frame::split(buf, self.header.chunk_size(), place)
    }

    /// Walks frame headers from the first on until they end or break off, without reading payloads.
    ///
    /// Returns the offset behind the last one. Cheap: 72 bytes a frame are read.
    pub fn hop(&self, visit: &mut dyn FnMut(&Frame, Place)) -> Result<u64> {
        let end = self.file.len()?;
        let mut at = self.first_frame();
        while let Ok((frame, place)) = self.frame_header_at(at) {
            if place.end() > end {
                break;
            }
            visit(&frame, place);
            at = place.end();
        }
        Ok(at)
    }

    /// Reads every frame in file order, checksums checked, until they end, break off, or `visit` says stop (`false`).
    /// Returns the offset behind the last frame that `visit` took.
    pub fn scan(&self, visit: &mut dyn FnMut(ScannedFrame<'_>) -> Result<bool>) -> Result<u64> {
        let end = self.file.len()?;
        let mut at = self.first_frame();
        let mut buf = Vec::new();
        while let Ok((_, place)) = self.frame_header_at(at) {
            if place.end() > end {
                break;
            }
            let Ok((frame, _)) = self.read_frame(place, &mut buf) else { break };
            if !visit(ScannedFrame { frame, place, bytes: &buf })? {
                break;
            }
            at = place.end();
        }
        Ok(at)
    }

    /// The table as blocks that can be searched.
    pub fn table_blocks(&self, footer: &Footer) -> Result<PackTable> {
        let (frame, place) = self.frame_header_at(footer.table.offset)?;
        let len = u64::from(frame.payload_len);
        const BLOCK: u64 = 4096;
        const _: () = assert!(table::BLOCK_LEN == 4096);
        if frame.frame_type != FrameType::Table || place != footer.table || !len.is_multiple_of(BLOCK) {
            let name = format!("table of {}", self.name);
            return Err(Error::corrupt(name, footer.table.offset, "it does not lie where the footer says"));
        }
        let start = footer.table.offset.saturating_add(u64::try_from(FRAME_HEADER_LEN).expect("a small constant"));
        Ok(PackTable { file: Arc::clone(&self.file), start, count: len / BLOCK })
    }
}

fn footer_hash(header: &[u8], middle: &[u8], table: Id, record: Id, catalogue: Id) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context::PACK);
    hasher.update(header).update(middle);
    hasher.update(&table.0).update(&record.0).update(&catalogue.0);
    *hasher.finalize().as_bytes()
}

/// The table of a pack, read block by block.
#[derive(Clone, Debug)]
pub struct PackTable {
    file: Arc<dyn PackFile>,
    start: u64,
    count: u64,
}

impl table::Blocks for PackTable {
    fn count(&self) -> u64 {
        self.count
    }
    fn read(&self, index: u64, buf: &mut [u8]) -> Result<()> {
        let block = u64::try_from(table::BLOCK_LEN).expect("a small constant");
        self.file.read_at(buf, index.saturating_mul(block).saturating_add(self.start))
    }
}

/// The chunks and nodes of the pack that is being written, shared with those who look for duplicates.
pub type OpenTable = Arc<RwLock<HashMap<Id, Place>>>;

/// Bytes that are gathered before they are written.
const BUFFER_LEN: usize = 1 << 20;

/// Compresses an object: its codec and its payload.
pub type Compress<'a> = dyn FnMut(&[u8]) -> (Codec, Vec<u8>) + 'a;

/// A pack that is being written.
#[derive(Debug)]
pub struct PackWriter {
    file: Box<dyn NewPack>,
    header_bytes: Vec<u8>,
    header: Header,
    buffer: Vec<u8>,
    offset: u64,
    table: OpenTable,
    syncing: Duration,
}

/// A finished pack, as the next catalogue lists it.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Its length in bytes.
    pub file_len: u64,
    /// Its footer's hash.
    pub footer_hash: [u8; 32],
    /// Where its record lies, where it has one.
    pub record: Option<Pointer>,
    /// How long the system took to make it durable.
    pub syncing: Duration,
}

impl PackWriter {
    /// Starts a pack by writing its header.
    pub fn create(mut file: Box<dyn NewPack>, header: Header) -> Result<Self> {
        let header_bytes = header.encode();
        file.append(&header_bytes)?;
        let offset = u64::try_from(header_bytes.len()).expect("a small constant");
        Ok(Self {
            file,
            header_bytes,
            header,
            buffer: Vec::new(),
            offset,
            table: OpenTable::default(),
            syncing: Duration::ZERO,
        })
    }

    /// Continues a pack that an interrupted writer left: `known` are its frames, which end at `offset`.
    pub fn resume(file: Box<dyn NewPack>, pack: &Pack, known: HashMap<Id, Place>, offset: u64) -> Self {
        let table = Arc::new(RwLock::new(known));
        let (header_bytes, header) = (pack.header_bytes.clone(), pack.header);
        Self { file, header_bytes, header, buffer: Vec::new(), offset, table, syncing: Duration::ZERO }
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its chunks and nodes so far.
    pub fn table(&self) -> &OpenTable {
        &self.table
    }

    /// Length so far in bytes.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Length that the pack would have with `more` bytes of frames, its table and a catalogue of `catalogue_len` bytes.
    pub fn projected_len(&self, more: u64, catalogue_len: u64) -> u64 {
        let entries = self.table.read().expect("no holder of the lock panics").len().saturating_add(1);
        let blocks = entries.div_ceil(table::BLOCK_ENTRIES).saturating_mul(table::BLOCK_LEN);
        // Three frame headers (table, record, catalogue) and the footer.
        let fixed = FRAME_HEADER_LEN.saturating_mul(3).saturating_add(FOOTER_LEN);
        let blocks = u64::try_from(blocks.saturating_add(fixed)).unwrap_or(u64::MAX);
        self.offset.saturating_add(more).saturating_add(blocks).saturating_add(catalogue_len)
    }

    /// Appends a frame that was encoded before, and lists it in the table.
    pub fn append_frame(&mut self, frame: &[u8], id: Id) -> Result<Place> {
        let place = self.append_unlisted(frame)?;
        self.table.write().expect("no holder of the lock panics").insert(id, place);
        Ok(place)
    }

    fn append_unlisted(&mut self, frame: &[u8]) -> Result<Place> {
        let len = u32::try_from(frame.len()).expect("frames are far below 4 GiB");
        let place = Place { pack: self.header.number, offset: self.offset, len };
        self.buffer.extend_from_slice(frame);
        self.offset = place.end();
        if self.buffer.len() >= BUFFER_LEN {
            self.flush()?;
        }
        Ok(place)
    }

    /// Hands what was gathered to the operating system, so that [`PackWriter::reader`] sees it.
    pub fn flush(&mut self) -> Result<()> {
        let result = self.file.append(&self.buffer);
        self.buffer.clear();
        result
    }

    fn sync(&mut self) -> Result<()> {
        let begun = Instant::now();
        let result = self.file.sync();
        self.syncing = self.syncing.saturating_add(begun.elapsed());
        result
    }

    /// The pack so far, for reading. [`PackWriter::flush`] first.
    pub fn reader(&self, name: String) -> Pack {
        Pack { file: self.file.reader(), header: self.header, header_bytes: self.header_bytes.clone(), name }
    }

    /// Writes table, record, catalogue and footer, syncs, and gives the pack its final name.
    ///
    /// `record` is the decoded JSON; `catalogue` makes the catalogue, given where the record lies.
    pub fn finish(
        mut self,
        record: Option<&[u8]>,
        catalogue: impl FnOnce(Option<Pointer>) -> Vec<u8>,
        compress: &mut Compress<'_>,
    ) -> Result<Finished> {
        self.flush()?;
        self.sync()?;
        let pointers = std::mem::take(&mut *self.table.write().expect("no holder of the lock panics"));
        let mut pointers: Vec<_> = pointers.into_iter().map(|(id, place)| Pointer { id, place }).collect();
        pointers.sort_unstable();
        let blocks = table::build(&pointers);
        drop(pointers);
        let table_id = Id::derived(context::TABLE, &blocks);
        let mut frame_bytes = Vec::new();
        frame::append(&mut frame_bytes, FrameType::Table, Codec::Stored, None, table_id, blocks.len(), &blocks);
        drop(blocks);
        let table = self.append_unlisted(&frame_bytes)?;
        self.flush()?;
        self.sync()?;

        let mut append = |writer: &mut Self, frame_type: FrameType, content: &[u8]| -> Result<Pointer> {
            let id = Id::derived(frame_type.id_context().expect("no chunk"), content);
            let (codec, payload) = compress(content);
            frame_bytes.clear();
            frame::append(&mut frame_bytes, frame_type, codec, None, id, content.len(), &payload);
            Ok(Pointer { id, place: writer.append_unlisted(&frame_bytes)? })
        };
        let record = match record {
            Some(json) => Some(append(&mut self, FrameType::Record, json)?),
            None => None,
        };
        let catalogue = append(&mut self, FrameType::Catalogue, &catalogue(record))?;

        let file_len = self.offset.saturating_add(u64::try_from(FOOTER_LEN).expect("a small constant"));
        let mut footer = FooterRaw {
            magic: FOOTER_MAGIC,
            checksum: 0.into(),
            pack_number: self.header.number.into(),
            image_id: self.header.image_id,
            table_offset: table.offset.into(),
            table_len: table.len.into(),
            place_map_count: 0.into(),
            catalogue_offset: catalogue.place.offset.into(),
            catalogue_len: catalogue.place.len.into(),
            reserved: 0.into(),
            place_map_offset: 0.into(),
            file_len: file_len.into(),
            reserved_2: [0; 16],
            hash: [0; 32],
        };
        let middle = footer.as_bytes().get(0x0c..0x60).expect("a footer has 128 bytes");
        let record_id = record.map_or(Id::NONE, |record| record.id);
        footer.hash = footer_hash(&self.header_bytes, middle, table_id, record_id, catalogue.id);
        footer.checksum = crc32fast::hash(footer.as_bytes()).into();
        self.buffer.extend_from_slice(footer.as_bytes());
        self.flush()?;
        self.sync()?;
        let begun = Instant::now();
        self.file.publish()?;
        let syncing = self.syncing.saturating_add(begun.elapsed());
        Ok(Finished { file_len, footer_hash: footer.hash, record, syncing })
    }
}
