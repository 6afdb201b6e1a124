//! Writing: disks whose clusters are all mapped, and streamed ones.

use zerocopy::IntoBytes;

use crate::disk::Disk;
use crate::engine::Run;
use crate::error::Result;
pub(crate) use crate::format::qcow2::layout::ALL_ZERO;
use crate::format::qcow2::layout::{COMPRESSED, COPIED, HeaderRaw, INCOMPATIBLE_COMPRESSION, MAGIC};
use crate::format::write::{Encoding, write_units};
use crate::target::{Copied, NewFile};

/// Longest disk, in bytes: far below what the tables could place, and what QEMU takes.
pub(crate) const MAX_LEN: u64 = 1 << 60;
/// Longest disk that is streamed, in bytes: what an L1 table of 32 MiB can place, the longest that QEMU takes.
pub(crate) const MAX_STREAMED: u64 = 1 << 51;
/// Bits of the place in an L2 entry of a compressed cluster.
const COMPRESSED_PLACE_BITS: u32 = 62 - (CLUSTER_BITS - 8);
/// Bytes of a cluster, as a power of two: what QEMU writes.
const CLUSTER_BITS: u32 = 16;
/// The same for mapped disks longer than [`LONG`], so that their tables stay short: the longest there may be.
const LONG_CLUSTER_BITS: u32 = 21;
/// 64 GiB.
const LONG: u64 = 64 << 30;
/// Bits of a reference count, as a power of two.
const REFCOUNT_ORDER: u32 = 4;
/// Bytes of a reference count.
const REFCOUNT_LEN: u64 = 2;
/// Bytes of an entry of the other tables.
const ENTRY_LEN: u64 = 8;

/// Where everything lies in a file of which every cluster is mapped, in the order of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// Bytes of the disk; a multiple of 512.
    pub(crate) len: u64,
    /// Bytes of a cluster, as a power of two.
    pub(crate) cluster_bits: u32,
    /// Where the reference count table lies.
    pub(crate) refcount_table: u64,
    /// Where the reference count blocks lie.
    pub(crate) refcount_blocks: u64,
    /// How many of them there are.
    pub(crate) refcount_blocks_count: u64,
    /// Where the L1 table lies.
    pub(crate) l1: u64,
    /// Where the L2 tables lie, one behind the other.
    pub(crate) l2: u64,
    /// How many of them there are.
    pub(crate) l2_count: u64,
    /// Where the disk lies.
    pub(crate) data: u64,
    /// Clusters of the disk.
    pub(crate) data_clusters: u64,
    /// Clusters of the file.
    pub(crate) clusters: u64,
}

impl Mapped {
    /// The layout for a disk of `len` bytes, at most [`MAX_LEN`].
    pub(crate) fn of(len: u64) -> Self {
        let cluster_bits = if len > LONG { LONG_CLUSTER_BITS } else { CLUSTER_BITS };
        let cluster = 1_u64 << cluster_bits;
        let clusters_for = |entries: u64, each: u64| entries.saturating_mul(each).div_ceil(cluster);
        let data_clusters = len.div_ceil(cluster);
        let l2_count = clusters_for(data_clusters, ENTRY_LEN);
        let others = [1, clusters_for(l2_count, ENTRY_LEN), l2_count, data_clusters];
        let others = others.into_iter().fold(0_u64, u64::saturating_add);
        // The counts count their own clusters too.
        let (mut blocks, mut table, mut clusters) = (0, 0, 0);
        while clusters_for(clusters, REFCOUNT_LEN) != blocks || clusters == 0 {
            blocks = clusters_for(clusters, REFCOUNT_LEN).max(1);
            table = clusters_for(blocks, ENTRY_LEN);
            clusters = others.saturating_add(blocks).saturating_add(table);
        }
        let refcount_blocks = cluster.saturating_add(table.saturating_mul(cluster));
        let l1 = refcount_blocks.saturating_add(blocks.saturating_mul(cluster));
        let l2 = l1.saturating_add(clusters_for(l2_count, ENTRY_LEN).saturating_mul(cluster));
        Self {
            len,
            cluster_bits,
            refcount_table: cluster,
            refcount_blocks,
            refcount_blocks_count: blocks,
            l1,
            l2,
            l2_count,
            data: l2.saturating_add(l2_count.saturating_mul(cluster)),
            data_clusters,
            clusters,
        }
    }

    fn nth(&self, start: u64, index: u64) -> u64 {
        start.saturating_add(index << self.cluster_bits)
    }

    /// Entry of the reference count table.
    pub(crate) fn refcount_block(&self, index: u64) -> u64 {
        self.nth(self.refcount_blocks, index)
    }

    /// Entry of the L1 table.
    pub(crate) fn l1_entry(&self, index: u64) -> u64 {
        self.nth(self.l2, index) | COPIED
    }

    /// Entry of the L2 tables, as if they were one.
    pub(crate) fn l2_entry(&self, index: u64) -> u64 {
        self.nth(self.data, index) | COPIED
    }

    /// First byte behind the last cluster.
    pub(crate) fn data_end(&self) -> u64 {
        self.nth(self.data, self.data_clusters)
    }
}

/// The header of a mapped disk, with an empty list of extensions behind it.
pub(crate) fn mapped_header(map: &Mapped) -> Vec<u8> {
    let tables = Tables {
        l1: map.l1,
        l1_entries: map.l2_count,
        refcounts: map.refcount_table,
        refcount_clusters: map.refcount_blocks.saturating_sub(map.refcount_table) >> map.cluster_bits,
    };
    header(map.len, map.cluster_bits, &tables).as_bytes().to_vec()
}

/// What a header says of tables.
struct Tables {
    /// Where the L1 table lies.
    l1: u64,
    l1_entries: u64,
    /// Where the reference count table lies.
    refcounts: u64,
    refcount_clusters: u64,
}

fn header(len: u64, cluster_bits: u32, tables: &Tables) -> HeaderRaw {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).into();
    HeaderRaw {
        magic: MAGIC.into(),
        version: 3.into(),
        backing_file_offset: 0.into(),
        backing_file_size: 0.into(),
        cluster_bits: cluster_bits.into(),
        size: len.into(),
        crypt_method: 0.into(),
        l1_size: count(tables.l1_entries),
        l1_table_offset: tables.l1.into(),
        refcount_table_offset: tables.refcounts.into(),
        refcount_table_clusters: count(tables.refcount_clusters),
        nb_snapshots: 0.into(),
        snapshots_offset: 0.into(),
        incompatible_features: 0.into(),
        compatible_features: 0.into(),
        autoclear_features: 0.into(),
        refcount_order: REFCOUNT_ORDER.into(),
        header_length: u32::try_from(size_of::<HeaderRaw>()).unwrap_or(u32::MAX).into(),
        compression_type: 0,
        padding: [0; 7],
    }
}

/// How a streamed disk is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Deflate, which every program reads.
    Zlib,
    /// Zstandard, which QEMU reads since version 5.1: shorter, and several times as fast.
    Zstd,
}

/// Counts references to clusters while they are placed in ascending order, and writes the blocks of counts that are full.
struct Refcounts {
    /// Counts of the block that fills.
    block: Vec<u16>,
    /// Where the blocks before it lie.
    table: Vec<u64>,
}

impl Refcounts {
    /// Clusters whose counts fill a block.
    const EACH: u64 = (1 << CLUSTER_BITS) / REFCOUNT_LEN;

    fn new() -> Self {
        Self { block: vec![0; usize::try_from(Self::EACH).expect("a small constant")], table: Vec::new() }
    }

    fn first(&self) -> u64 {
        u64::try_from(self.table.len()).unwrap_or(u64::MAX).saturating_mul(Self::EACH)
    }

    /// Counts a reference to a cluster of the block that fills.
    fn add(&mut self, cluster: u64) {
        let at = usize::try_from(cluster.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let count = self.block.get_mut(at).expect("clusters are counted before their block is full");
        *count = count.saturating_add(1);
    }

    /// The block that is full, and a new one in its place.
    fn take(&mut self, place: u64) -> Vec<u8> {
        self.table.push(place);
        let counts = std::mem::replace(&mut self.block, Self::new().block);
        counts.into_iter().flat_map(u16::to_be_bytes).collect()
    }
}

/// A file that grows by clusters.
struct Stream<'a> {
    file: &'a NewFile,
    /// Clusters that are taken.
    clusters: u64,
    refcounts: Refcounts,
    /// Where encoded clusters are packed on, and the end of the clusters that are taken for them.
    packed: (u64, u64),
    /// The L2 table that fills: its number and entries.
    l2: (u64, Vec<u8>),
    l1: Vec<u8>,
}

const CLUSTER: u64 = 1 << CLUSTER_BITS;

impl Stream<'_> {
    /// Takes a cluster and returns where it lies. Where the counts of all before fill a block, that is written first, into a cluster of its own.
    fn take(&mut self) -> Result<u64> {
        let cluster = self.clusters;
        if cluster == self.refcounts.first().saturating_add(Refcounts::EACH) {
            // The first cluster of the next block of counts holds this one.
            let place = cluster.saturating_mul(CLUSTER);
            let bytes = self.refcounts.take(place);
            self.file.write_at(&bytes, place)?;
            self.refcounts.add(cluster);
            self.clusters = cluster.saturating_add(1);
            // Nothing is added to a cluster whose count is written.
            self.packed = (0, 0);
            return self.take();
        }
        self.clusters = cluster.saturating_add(1);
        Ok(cluster.saturating_mul(CLUSTER))
    }

    /// Takes a cluster that is referenced once.
    fn take_whole(&mut self) -> Result<u64> {
        let place = self.take()?;
        self.refcounts.add(place / CLUSTER);
        Ok(place)
    }

    /// Writes the L2 table that fills, unless it is empty, and begins with that of number `next`.
    fn go_to(&mut self, next: u64) -> Result<()> {
        if self.l2.1.iter().any(|byte| *byte != 0) {
            let place = self.take_whole()?;
            self.file.write_at(&self.l2.1, place)?;
            let at = usize::try_from(self.l2.0.saturating_mul(ENTRY_LEN)).unwrap_or(usize::MAX);
            let entry = self.l1.get_mut(at..at.saturating_add(8)).expect("it has room for all tables");
            entry.copy_from_slice(&(place | COPIED).to_be_bytes());
        }
        self.l2 = (next, vec![0; usize::try_from(CLUSTER).expect("a small constant")]);
        Ok(())
    }

    fn map(&mut self, cluster: u64, entry: u64) -> Result<()> {
        let each = CLUSTER / ENTRY_LEN;
        if cluster / each != self.l2.0 {
            self.go_to(cluster / each)?;
        }
        let at = usize::try_from((cluster % each).saturating_mul(ENTRY_LEN)).expect("within a table");
        self.l2.1.get_mut(at..at.saturating_add(8)).expect("within a table").copy_from_slice(&entry.to_be_bytes());
        Ok(())
    }

    /// Adds clusters as they are.
    fn add_plain(&mut self, first: u64, bytes: &[u8]) -> Result<()> {
        for (cluster, bytes) in (first..).zip(bytes.chunks(usize::try_from(CLUSTER).expect("a small constant"))) {
            let place = self.take_whole()?;
            self.file.write_at(bytes, place)?;
            self.map(cluster, place | COPIED)?;
        }
        Ok(())
    }

    /// Adds an encoded cluster behind the one before, where it fits there or goes on in the next cluster, and in a new cluster otherwise.
    fn add_encoded(&mut self, cluster: u64, bytes: &[u8]) -> Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.packed.0.saturating_add(len) > self.packed.1 {
            let (_, end) = self.packed;
            let place = self.take()?;
            let start = if place == end { self.packed.0 } else { place };
            self.packed = (start, place.saturating_add(CLUSTER));
        }
        let place = self.packed.0;
        self.packed.0 = place.saturating_add(len);
        let last = self.packed.0.saturating_sub(1);
        for cluster in place / CLUSTER..=last / CLUSTER {
            self.refcounts.add(cluster);
        }
        self.file.write_at(bytes, place)?;
        let more_sectors = (last >> 9).saturating_sub(place >> 9);
        self.map(cluster, COMPRESSED | more_sectors << COMPRESSED_PLACE_BITS | place)
    }

    /// Writes all tables. Returns place and clusters of the reference count table.
    fn finish(&mut self) -> Result<(u64, u64)> {
        self.go_to(0)?;
        // The table and the last blocks count themselves: how many there will be is found step by step.
        let written = u64::try_from(self.refcounts.table.len()).unwrap_or(u64::MAX);
        let (mut blocks, mut table) = (0_u64, 0_u64);
        loop {
            let end = self.clusters.saturating_add(blocks).saturating_add(table);
            let all = end.div_ceil(Refcounts::EACH);
            let next = (all.saturating_sub(written), all.saturating_mul(ENTRY_LEN).div_ceil(CLUSTER));
            if next == (blocks, table) {
                break;
            }
            (blocks, table) = next;
        }
        let first = self.clusters;
        let start = first.saturating_add(blocks);
        let end = start.saturating_add(table);
        let mut cluster = first;
        for block in 0..blocks {
            let full = self.refcounts.first().saturating_add(Refcounts::EACH);
            while cluster < end.min(full) {
                self.refcounts.add(cluster);
                cluster = cluster.saturating_add(1);
            }
            let place = first.saturating_add(block).saturating_mul(CLUSTER);
            let bytes = self.refcounts.take(place);
            self.file.write_at(&bytes, place)?;
        }
        let entries: Vec<u8> = self.refcounts.table.iter().flat_map(|place| place.to_be_bytes()).collect();
        self.file.write_at(&entries, start.saturating_mul(CLUSTER))?;
        self.file.set_len(end.saturating_mul(CLUSTER))?;
        Ok((start.saturating_mul(CLUSTER), table))
    }
}

/// Writes a disk as a qcow2 that holds only the clusters with a byte that is not zero. Its length is made a multiple of 512 by zeros, and must not
/// exceed [`MAX_STREAMED`].
pub(crate) fn write_streamed(
    disk: &dyn Disk,
    file: &NewFile,
    compression: Option<Compression>,
    run: Run<'_>,
) -> Result<Copied> {
    let len = disk.len().next_multiple_of(512);
    let l2_count = len.div_ceil(CLUSTER).div_ceil(CLUSTER / ENTRY_LEN);
    let l1_clusters = l2_count.saturating_mul(ENTRY_LEN).div_ceil(CLUSTER);
    let l1_len = usize::try_from(l2_count.saturating_mul(ENTRY_LEN)).unwrap_or(usize::MAX);
    let mut stream = Stream {
        file,
        clusters: 0,
        refcounts: Refcounts::new(),
        packed: (0, 0),
        l2: (0, Vec::new()),
        l1: vec![0; l1_len],
    };
    stream.go_to(0)?;
    // The header and the L1 table.
    for _ in 0..l1_clusters.saturating_add(1) {
        stream.take_whole()?;
    }
    let encoding = match compression {
        None => Encoding::Plain,
        Some(Compression::Zlib) => Encoding::ShortDeflate,
        Some(Compression::Zstd) => Encoding::Zstd,
    };
    let copied = write_units(disk, CLUSTER, encoding, run, |unit| {
        let cluster = unit.offset / CLUSTER;
        if unit.encoded { stream.add_encoded(cluster, &unit.bytes) } else { stream.add_plain(cluster, &unit.bytes) }
    })?;
    let (table, table_clusters) = stream.finish()?;
    file.write_at(&stream.l1, CLUSTER)?;
    let tables = Tables { l1: CLUSTER, l1_entries: l2_count, refcounts: table, refcount_clusters: table_clusters };
    let mut header = header(len, CLUSTER_BITS, &tables);
    if compression == Some(Compression::Zstd) {
        header.incompatible_features = INCOMPATIBLE_COMPRESSION.into();
        header.compression_type = 1;
    }
    file.write_at(header.as_bytes(), 0)?;
    Ok(copied)
}
