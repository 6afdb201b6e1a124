//! Reading: the header, and where each cluster lies.

use crate::bytes::{be32, be64};
use crate::error::{Error, Result};
use crate::format::chain::{BaseWish, Opened, Opener};
use crate::format::file::{Entries, ImageFile, Table};
use crate::format::layer::{Layer, MAX_CLUSTER, Packed, Place, Run};
use crate::format::qcow2::layout::{
    ALL_ZERO, CLUSTER_BITS, COMPRESSED, COPIED, EXTENSION_BACKING_FORMAT, EXTENSION_DATA_FILE, EXTENSION_END,
    EXTENSION_FEATURE_NAMES, HEADER_LEN_V2, HEADER_LEN_V3, HeaderRaw, INCOMPATIBLE_COMPRESSION, INCOMPATIBLE_CORRUPT,
    INCOMPATIBLE_DATA_FILE, INCOMPATIBLE_DIRTY, INCOMPATIBLE_EXTENDED_L2, INCOMPATIBLE_KNOWN, MAGIC, MAX_BACKING_NAME,
    OFFSET_MASK,
};
use crate::format::qcow2::snapshot;
use crate::format::unpack::{Codec, Unpacker};
use crate::format::{About, Format, Snapshot};

const HEADER: &str = "qcow2 header";
/// Subclusters of a cluster with extended L2 entries.
const SUBCLUSTERS: u64 = 32;

/// An opened file.
struct Qcow2 {
    file: ImageFile,
    /// Where data lie that are not compressed.
    data: ImageFile,
    has_data_file: bool,
    len: u64,
    cluster_bits: u32,
    extended: bool,
    codec: Codec,
    l1: Table,
    unpacker: Unpacker,
    header: HeaderRaw,
}

/// What the header extensions say.
#[derive(Default)]
struct Extensions {
    backing_format: Option<String>,
    data_file: Option<Vec<u8>>,
    /// Names of incompatible features, by bit.
    names: Vec<(u8, String)>,
}

pub(super) fn open(opener: &Opener<'_>, file: &ImageFile) -> Result<Opened> {
    let header = read_header(file)?;
    let cluster_bits = header.cluster_bits.get();
    let extensions = read_extensions(file, &header)?;
    let features = check_features(file, &header, &extensions)?;
    let has = |bit: u64| features & bit != 0;

    let mut notes = Vec::new();
    if has(INCOMPATIBLE_DIRTY) {
        notes.push(
            "it was not closed cleanly: its reference counts may be wrong, which reading does not need".to_owned(),
        );
    }
    if has(INCOMPATIBLE_CORRUPT) {
        notes.push("it is marked as corrupt by a program that wrote to it".to_owned());
    }
    let extended = has(INCOMPATIBLE_EXTENDED_L2);
    if extended && cluster_bits < 14 {
        return Err(file.corrupt(HEADER, 20, "its clusters are too small for extended L2 entries"));
    }
    let codec = match (has(INCOMPATIBLE_COMPRESSION), header.compression_type) {
        (false, 0) => Codec::Deflate,
        (true, 1) => Codec::Zstd,
        (true, 2..) => return Err(file.unsupported(format_args!("compression type {}", header.compression_type))),
        _ => return Err(file.corrupt(HEADER, 104, "its compression type and its feature bit disagree")),
    };
    let data = if has(INCOMPATIBLE_DATA_FILE) {
        let name = extensions.data_file.as_deref();
        let name = name.ok_or_else(|| file.corrupt(HEADER, 0, "it names no external data file"))?;
        opener.open_named(file, "external data file", name)?
    } else {
        file.clone()
    };
    let base = backing_file(file, &header, &extensions)?;

    let (len, l1_offset, l1_size) = match opener.snapshot() {
        None => (header.size.get(), header.l1_table_offset.get(), header.l1_size.get()),
        Some(wanted) => {
            let snapshots = snapshot::read(file, &header)?;
            let by = |key: fn(&snapshot::Entry) -> &str| snapshots.iter().find(|entry| key(entry) == wanted);
            let found = by(|entry| &entry.snapshot.id).or_else(|| by(|entry| &entry.snapshot.name));
            let missing = || Error::NotFound(format!("{} has no snapshot {wanted:?}", file.name()));
            let entry = found.ok_or_else(missing)?;
            (entry.snapshot.len, entry.l1_table_offset, entry.l1_size)
        }
    };
    let about = About {
        format: Format::Qcow2,
        variant: variant(&header, codec, extended, has(INCOMPATIBLE_DATA_FILE)),
        file: file.place(),
        more_files: has(INCOMPATIBLE_DATA_FILE).then(|| data.place()).into_iter().collect(),
        identity: String::new(),
        notes,
        base: None,
    };
    let l1 = l1_table(file, (l1_offset, l1_size), len, cluster_bits, extended)?;
    let layer = Qcow2 {
        file: file.clone(),
        data,
        has_data_file: has(INCOMPATIBLE_DATA_FILE),
        len,
        cluster_bits,
        extended,
        codec,
        l1,
        unpacker: Unpacker::default(),
        header,
    };
    Ok(Opened { layer: Box::new(layer), about, base, sector_size: None })
}

/// Reads the header; fields that its version has not are as if they were 0. Checks what needs no other structure, encryption first.
fn read_header(file: &ImageFile) -> Result<HeaderRaw> {
    let corrupt = |offset, reason| file.corrupt(HEADER, offset, reason);
    let mut bytes = file.read_vec(HEADER, 0, usize::try_from(HEADER_LEN_V2).expect("a small constant"))?;
    let field = |bytes: &[u8], at| be32(bytes, at).unwrap_or(0);
    if field(&bytes, 0) != MAGIC {
        return Err(corrupt(0, "its signature is wrong"));
    }
    let version = field(&bytes, 4);
    let header_length = match version {
        2 => HEADER_LEN_V2,
        3 => field(&file.read_vec(HEADER, 100, 4)?, 0),
        _ => return Err(file.unsupported(format_args!("version {version} of qcow2"))),
    };
    match field(&bytes, 32) {
        0 => {}
        1 => return Err(file.unsupported("AES encryption; decrypt it with qemu-img convert first")),
        2 => return Err(file.unsupported("LUKS encryption; decrypt it with qemu-img convert first")),
        other => return Err(file.unsupported(format_args!("encryption method {other}"))),
    }
    let cluster_bits = field(&bytes, 20);
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(corrupt(20, "its cluster size is out of range"));
    }
    let cluster = 1_u64 << cluster_bits;
    if version == 3
        && (header_length < HEADER_LEN_V3 || !header_length.is_multiple_of(8) || u64::from(header_length) > cluster)
    {
        return Err(corrupt(100, "its length is out of range"));
    }
    let known = header_length.min(u32::try_from(size_of::<HeaderRaw>()).expect("a small constant"));
    bytes = file.read_vec(HEADER, 0, usize::try_from(known).expect("a small number"))?;
    bytes.resize(size_of::<HeaderRaw>(), 0);
    let mut header: HeaderRaw = zerocopy::FromBytes::read_from_bytes(&bytes).expect("it was resized to this length");
    header.header_length.set(header_length);
    if i64::try_from(header.size.get()).is_err() {
        return Err(corrupt(24, "its disk size is out of range"));
    }
    if !header.l1_table_offset.get().is_multiple_of(cluster) {
        return Err(corrupt(40, "its L1 table is not aligned to a cluster"));
    }
    if header.nb_snapshots.get() > 0 && !header.snapshots_offset.get().is_multiple_of(cluster) {
        return Err(corrupt(64, "its snapshot table is not aligned to a cluster"));
    }
    Ok(header)
}

/// Reads the extensions behind the header, which end before the backing file's name or with the first cluster.
fn read_extensions(file: &ImageFile, header: &HeaderRaw) -> Result<Extensions> {
    let cluster = 1_u64 << header.cluster_bits.get();
    let name_at = header.backing_file_offset.get();
    let end = if name_at == 0 { cluster } else { name_at.min(cluster) }.min(file.len());
    let mut at = u64::from(header.header_length.get());
    let mut found = Extensions::default();
    while at.saturating_add(8) <= end {
        let head = file.read_vec(HEADER, at, 8)?;
        let (kind, len) = (be32(&head, 0).unwrap_or(0), be32(&head, 4).unwrap_or(0));
        if kind == EXTENSION_END {
            break;
        }
        let start = at.saturating_add(8);
        at = start.saturating_add(len.into()).saturating_add(7) & !7;
        if start.saturating_add(len.into()) > end {
            return Err(file.corrupt("qcow2 header extension", start, "it reaches past the first cluster"));
        }
        // At most a cluster, by the check above.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match kind {
            EXTENSION_BACKING_FORMAT => {
                let name = file.read_vec(HEADER, start, len.min(64))?;
                found.backing_format = Some(String::from_utf8_lossy(&name).into_owned());
            }
            EXTENSION_DATA_FILE => found.data_file = Some(file.read_vec(HEADER, start, len.min(4096))?),
            EXTENSION_FEATURE_NAMES => {
                let table = file.read_vec(HEADER, start, len.min(64 * 48))?;
                for entry in table.chunks_exact(48) {
                    if let [0, bit, name @ ..] = entry {
                        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                        found.names.push((*bit, String::from_utf8_lossy(name).into_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Returns the incompatible feature bits, all of which are known.
fn check_features(file: &ImageFile, header: &HeaderRaw, extensions: &Extensions) -> Result<u64> {
    if header.version.get() == 2 {
        return Ok(0);
    }
    let features = header.incompatible_features.get();
    let unknown = features & !INCOMPATIBLE_KNOWN;
    if unknown != 0 {
        let bit = unknown.trailing_zeros();
        let name = extensions.names.iter().find(|(known, _)| u32::from(*known) == bit);
        let name = name.map_or("unnamed", |(_, name)| name);
        return Err(file.unsupported(format_args!("the incompatible feature {name:?} (bit {bit})")));
    }
    Ok(features)
}

fn backing_file(file: &ImageFile, header: &HeaderRaw, extensions: &Extensions) -> Result<Option<BaseWish>> {
    let (offset, len) = (header.backing_file_offset.get(), header.backing_file_size.get());
    if offset == 0 || len == 0 {
        return Ok(None);
    }
    let corrupt = |reason| file.corrupt(HEADER, 8, reason);
    if len > MAX_BACKING_NAME {
        return Err(corrupt("the name of its backing file is too long"));
    }
    if offset.saturating_add(len.into()) > 1 << header.cluster_bits.get() {
        return Err(corrupt("the name of its backing file leaves the first cluster"));
    }
    let name = file.read_vec(HEADER, offset, usize::try_from(len).expect("at most 1023"))?;
    let format = match extensions.backing_format.as_deref() {
        None => None,
        Some("vpc") => Some(Format::Vhd),
        // What QEMU calls a device or file whose content is not interpreted.
        Some("host_device" | "file") => Some(Format::Raw),
        Some(text) => {
            Some(text.parse().map_err(|_| file.unsupported(format_args!("a backing file of format {text:?}")))?)
        }
    };
    Ok(Some(BaseWish { what: "backing file", names: vec![name], format, identity: None }))
}

/// The part of an L1 table that a disk of `len` bytes needs.
fn l1_table(
    file: &ImageFile,
    (offset, size): (u64, u32),
    len: u64,
    cluster_bits: u32,
    extended: bool,
) -> Result<Table> {
    let what = "qcow2 L1 table";
    let needed = len.div_ceil(1_u64 << l1_bits(cluster_bits, extended));
    if u64::from(size) < needed {
        return Err(file.corrupt(what, offset, "it is too small for the disk"));
    }
    if !offset.is_multiple_of(1 << cluster_bits) {
        return Err(file.corrupt(what, offset, "it is not aligned to a cluster"));
    }
    Table::new(file, what, offset, needed, 8)
}

/// Bytes of the disk that an L1 entry covers, as a power of two; at most 2^39.
fn l1_bits(cluster_bits: u32, extended: bool) -> u32 {
    cluster_bits.saturating_add(l2_bits(cluster_bits, extended))
}

/// Entries of an L2 table, as a power of two.
fn l2_bits(cluster_bits: u32, extended: bool) -> u32 {
    cluster_bits.saturating_sub(if extended { 4 } else { 3 })
}

fn variant(header: &HeaderRaw, codec: Codec, extended: bool, data_file: bool) -> String {
    let cluster = 1_u64 << header.cluster_bits.get();
    let cluster = if cluster >= 1024 { format!("{} KiB", cluster >> 10) } else { format!("{cluster} B") };
    let mut text = format!("version {}, clusters of {cluster}", header.version.get());
    if codec == Codec::Zstd {
        text += ", zstd";
    }
    if extended {
        text += ", extended L2";
    }
    if data_file {
        text += ", external data file";
    }
    text
}

/// An L2 entry: its first 64 bits, and the bitmap of its subclusters where it has one.
#[derive(Clone, Copy)]
struct L2Entry {
    entry: u64,
    bitmap: u64,
}

impl Qcow2 {
    /// Bytes of the unit that is mapped at once: a cluster, or a subcluster.
    fn unit_bits(&self) -> u32 {
        if self.extended { self.cluster_bits.saturating_sub(5) } else { self.cluster_bits }
    }

    fn cluster_len(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn entry_of(&self, entries: &[u8], index: usize) -> Option<L2Entry> {
        let at = index.checked_mul(if self.extended { 16 } else { 8 })?;
        let bitmap = if self.extended { be64(entries, at.checked_add(8)?)? } else { 0 };
        Some(L2Entry { entry: be64(entries, at)?, bitmap })
    }

    /// Where the unit lies that starts `within` bytes into the cluster of `entry`; `at` is the place of the entry.
    fn place_of(&self, l2: L2Entry, within: u64, at: u64) -> Result<Place<'_>> {
        let corrupt = |reason| Err(self.file.corrupt("qcow2 L2 entry", at, reason));
        if l2.entry & COMPRESSED != 0 {
            return self.packed(l2.entry, within, at);
        }
        let offset = l2.entry & OFFSET_MASK;
        if !offset.is_multiple_of(self.cluster_len()) {
            return corrupt("its cluster is not aligned");
        }
        let stored = Place::Stored { file: &self.data, offset: offset.saturating_add(within) };
        let allocated = offset != 0 || (self.has_data_file && l2.entry & COPIED != 0);
        if self.extended {
            let unit = within >> self.unit_bits();
            let has = |bit: u64| l2.bitmap & 1_u64.checked_shl(u32::try_from(bit).unwrap_or(64)).unwrap_or(0) != 0;
            return match (has(unit), has(unit.saturating_add(SUBCLUSTERS))) {
                (true, true) => corrupt("a subcluster is both allocated and zero"),
                (false, true) => Ok(Place::Zero),
                (false, false) => Ok(Place::Base),
                (true, false) if allocated => Ok(stored),
                (true, false) => corrupt("a subcluster is allocated in no cluster"),
            };
        }
        if l2.entry & ALL_ZERO != 0 {
            return if self.header.version.get() >= 3 {
                Ok(Place::Zero)
            } else {
                corrupt("it is zero, which version 2 has not")
            };
        }
        Ok(if allocated { stored } else { Place::Base })
    }

    /// A compressed cluster. Source: qcow2.rst "Compressed Clusters Descriptor".
    fn packed(&self, entry: u64, within: u64, at: u64) -> Result<Place<'_>> {
        if self.has_data_file {
            return Err(self.file.corrupt(
                "qcow2 L2 entry",
                at,
                "it is compressed although there is an external data file",
            ));
        }
        let offset_bits = 62_u32.saturating_sub(self.cluster_bits.saturating_sub(8));
        let offset = entry & (1_u64 << offset_bits).saturating_sub(1);
        let sectors = ((entry & (COMPRESSED - 1)) >> offset_bits).saturating_add(1);
        let stored = sectors.saturating_mul(512).saturating_sub(offset % 512);
        Ok(Place::Packed(Packed {
            file: &self.file,
            offset,
            stored,
            cluster_len: usize::try_from(self.cluster_len()).expect("at most 2 MiB"),
            within: usize::try_from(within).expect("below a cluster"),
        }))
    }

    /// The run of the disk without an L2 table from `index` on, as far as a page of the L1 table tells.
    fn unmapped(&self, entries: &Entries, index: u64, offset: u64) -> Run<'static> {
        let empty =
            entries.chunks_exact(8).take_while(|entry| be64(entry, 0).is_some_and(|entry| entry & OFFSET_MASK == 0));
        let end = index.saturating_add(u64::try_from(empty.count()).unwrap_or(0));
        let end = end.saturating_mul(1 << l1_bits(self.cluster_bits, self.extended));
        Run { len: end.saturating_sub(offset), place: Place::Base }
    }
}

/// Says whether `next` continues a run of `len` bytes at `place`.
fn continues(place: Place<'_>, len: u64, next: Place<'_>) -> bool {
    match (place, next) {
        (Place::Zero, Place::Zero) | (Place::Base, Place::Base) => true,
        (Place::Stored { offset, .. }, Place::Stored { offset: next, .. }) => offset.checked_add(len) == Some(next),
        _ => false,
    }
}

impl Layer for Qcow2 {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, most: u64) -> Result<Run<'_>> {
        let l1_index = offset >> l1_bits(self.cluster_bits, self.extended);
        let l1 = self.l1.entries(&self.file, l1_index)?;
        let l2_offset = be64(&l1, 0).unwrap_or(0) & OFFSET_MASK;
        if l2_offset == 0 {
            return Ok(self.unmapped(&l1, l1_index, offset));
        }
        if !l2_offset.is_multiple_of(self.cluster_len()) {
            return Err(self.file.corrupt(self.l1.what(), self.l1.place_of(l1_index), "its L2 table is not aligned"));
        }
        let (l2_count, width) =
            (1_u64 << l2_bits(self.cluster_bits, self.extended), if self.extended { 16 } else { 8 });
        let l2 = Table::new(&self.file, "qcow2 L2 table", l2_offset, l2_count, width)?;
        let first = (offset >> self.cluster_bits) & l2_count.saturating_sub(1);
        let entries = l2.entries(&self.file, first)?;

        let unit = 1_u64 << self.unit_bits();
        let mut run: Option<Run<'_>> = None;
        // From `offset` to the end of its unit, then whole units.
        let mut at = offset;
        loop {
            let index = (at >> self.cluster_bits).saturating_sub(offset >> self.cluster_bits);
            let Some(entry) = self.entry_of(&entries, usize::try_from(index).unwrap_or(usize::MAX)) else { break };
            let within = at & self.cluster_len().saturating_sub(1);
            let unit_start = within & !unit.saturating_sub(1);
            let place_of_entry = l2.place_of(first.saturating_add(index));
            let mut place = match self.place_of(entry, unit_start, place_of_entry) {
                // An error in a later unit is met when that unit is asked for.
                Err(_) if run.is_some() => break,
                place => place?,
            };
            let skipped = within.saturating_sub(unit_start);
            match &mut place {
                Place::Stored { offset, .. } => *offset = offset.saturating_add(skipped),
                Place::Packed(packed) => {
                    packed.within = usize::try_from(within).expect("below a cluster");
                    if run.is_none() {
                        return Ok(Run { len: self.cluster_len().saturating_sub(within), place });
                    }
                }
                Place::Zero | Place::Base => {}
            }
            let len = unit.saturating_sub(skipped);
            match &mut run {
                None => run = Some(Run { len, place }),
                Some(run) if continues(run.place, run.len, place) => run.len = run.len.saturating_add(len),
                Some(_) => break,
            }
            at = at.saturating_add(len);
            if run.is_some_and(|run| run.len >= most) {
                break;
            }
        }
        run.ok_or_else(|| self.file.corrupt(l2.what(), l2_offset, "it has too few entries"))
    }

    fn unpack(&self, packed: &Packed<'_>, out: &mut [u8]) -> Result<()> {
        let what = "compressed cluster";
        // The last cluster of a file may end before the last of its sectors does.
        let stored =
            packed.stored.min(self.file.len().saturating_sub(packed.offset)).min(MAX_CLUSTER.saturating_mul(2));
        let decoded = self.unpacker.decode(self.codec, out, |encoded| {
            encoded.resize(usize::try_from(stored).expect("at most 4 MiB"), 0);
            self.file.read_at(what, encoded, packed.offset)
        })?;
        decoded.map(|_| ()).map_err(|reason| self.file.corrupt(what, packed.offset, reason))
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let entries = snapshot::read(&self.file, &self.header)?;
        Ok(entries.into_iter().map(|entry| entry.snapshot).collect())
    }
}
