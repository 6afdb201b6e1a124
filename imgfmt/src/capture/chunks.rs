//! From the planned disk to stored chunks: the jobs, the work on each, and the tree that grows from the results.

use std::ops::Range;
use std::sync::Arc;

use crate::capture::bad::read_tolerant;
use crate::disk::{Disk, Extent, ExtentKind, Extents};
use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result};
use crate::image::codec::{Compression, Compressor, Decompressor};
use crate::image::frame;
use crate::image::generation::{Found, Tree};
use crate::image::id::{Id, Place, Pointer};
use crate::image::index::DedupIndex;
use crate::image::layout::{Codec, FRAME_HEADER_LEN, FrameType, NODE_SLOTS};
use crate::image::node::{Node, RUN_UNIT, Run as SlotRun, Slot};
use crate::image::reader::{Decoder, Image};
use crate::image::tree::{TreeBuilder, TreeShape};
use crate::image::writer::ImageWriter;

/// Bytes that a worker takes at once, where chunks are smaller.
const JOB_LEN: u64 = 1 << 20;
/// Places at which a chunk is compared with the one before to see whether a difference is worth trying.
const SAMPLES: usize = 64;
/// Bytes compared at each.
const SAMPLE_LEN: usize = 32;

/// What a pass over the disk counted, in bytes of the disk and in chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of Data.
    pub data: u64,
    /// Bytes of Zero.
    pub zero: u64,
    /// Bytes of Absent.
    pub absent: u64,
    /// Unreadable ranges, ascending.
    pub bad: Vec<Range<u64>>,
    /// Chunks stored whole.
    pub chunks_new: u64,
    /// Chunks stored as a difference.
    pub chunks_difference: u64,
    /// Chunks that were there already.
    pub chunks_reused: u64,
}

/// What a pass is given besides the disk and the writer.
#[derive(Clone, Copy, Debug)]
pub struct PassOptions<'a> {
    /// How new chunks are compressed.
    pub compression: Compression,
    /// Decode and hash every new chunk again before it counts as stored.
    pub decode_verify: bool,
    /// The generation before: its chunks are the first candidates for reuse and the bases of differences.
    pub previous: Option<&'a Tree>,
}

/// Stores all of `disk` and returns its tree's root with the totals. Nothing is visible until the writer commits.
pub fn store_disk(
    disk: &dyn Disk,
    writer: &mut ImageWriter,
    options: PassOptions<'_>,
    run: Run<'_>,
) -> Result<(Pointer, Totals)> {
    let image = Arc::clone(writer.image());
    let index = Arc::clone(writer.index());
    let shape = TreeShape::new(disk.len(), image.chunk_size())?;
    let mut builder = TreeBuilder::new(shape);
    let mut totals = Totals::default();
    let mut jobs = Jobs { extents: Extents::new(disk), shape, chunk: 0, image: &image, previous: options.previous };
    let work = Work { disk, shape, image: &image, index: &index, options };
    run_ordered(
        run,
        || jobs.next(),
        || Hands::new(options.compression, shape.chunk_size()),
        |hands, job| work.run(hands, job),
        |done| {
            if matches!(done.outcome, Outcome::Chunks { .. }) {
                run.progress.advance(done.bytes);
            }
            collect(done, &shape, writer, &mut builder, &mut totals)
        },
    )?;
    let root = builder.finish(&mut |node| writer.append_node(node))?;
    Ok((root, totals))
}

/// A piece of work.
enum Job {
    /// Whole chunks of one kind other than Data.
    Fill { kind: ExtentKind, count: u64, bytes: u64 },
    /// Chunks to look at: never across the end of a leaf node.
    Chunks { first: u64, count: u64, extents: Vec<Extent>, previous: Option<Arc<Node>> },
}

/// Cuts the disk into jobs, in order.
struct Jobs<'a> {
    shape: TreeShape,
    extents: Extents<'a>,
    chunk: u64,
    image: &'a Image,
    previous: Option<&'a Tree>,
}

impl Jobs<'_> {
    fn byte_of(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.shape.chunk_size()).min(self.shape.len())
    }

    fn next(&mut self) -> Result<Option<Job>> {
        if self.chunk >= self.shape.chunks() {
            return Ok(None);
        }
        let first = self.chunk;
        let start = self.byte_of(first);
        let extent = self.extents.rest_at(start)?;
        if extent.kind != ExtentKind::Data {
            let end = extent.end();
            let whole = end.checked_div(self.shape.chunk_size()).unwrap_or(0);
            let end_chunk = if end >= self.shape.len() { self.shape.chunks() } else { whole };
            if end_chunk > first {
                self.chunk = end_chunk;
                let bytes = self.byte_of(end_chunk).saturating_sub(start);
                return Ok(Some(Job::Fill { kind: extent.kind, count: end_chunk.saturating_sub(first), bytes }));
            }
        }
        let per_job = JOB_LEN.checked_div(self.shape.chunk_size()).unwrap_or(0).max(1);
        let leaf_end = (first / NODE_SLOTS).saturating_add(1).saturating_mul(NODE_SLOTS);
        let mut end_chunk = first.saturating_add(per_job).min(leaf_end).min(self.shape.chunks());
        let mut extents = Vec::new();
        let mut at = start;
        while at < self.byte_of(end_chunk) {
            let extent = self.extents.rest_at(at)?;
            // A long run of nothing is a job of its own: end this one at the first chunk that is wholly in it.
            if extent.kind != ExtentKind::Data && extent.len >= JOB_LEN.saturating_add(self.shape.chunk_size()) {
                let chunk = extent.offset.div_ceil(self.shape.chunk_size());
                end_chunk = end_chunk.min(chunk.max(first.saturating_add(1)));
            }
            let end = extent.end().min(self.byte_of(end_chunk));
            if end <= at {
                break;
            }
            extents.push(Extent { offset: at, len: end.saturating_sub(at), kind: extent.kind });
            at = end;
        }
        let previous = match self.previous {
            Some(tree) if first < tree.shape().chunks() => match tree.find(self.image, first) {
                Ok(Found::Leaf(node, _)) => Some(node),
                Ok(Found::Fill { .. }) => None,
                // A damaged node of an older generation costs its reuse, not this capture.
                Err(_) => None,
            },
            _ => None,
        };
        self.chunk = end_chunk;
        Ok(Some(Job::Chunks { first, count: end_chunk.saturating_sub(first), extents, previous }))
    }
}

/// What a worker made of a job.
struct Done {
    bytes: u64,
    outcome: Outcome,
}

enum Outcome {
    Fill { kind: ExtentKind, count: u64 },
    Chunks { first: u64, chunks: Vec<Prepared>, frames: Vec<u8>, bad: Vec<Range<u64>> },
}

/// A chunk on its way into the tree.
struct Prepared {
    /// `None` where it is all Data or all of one other kind (`fill`).
    runs: Option<Box<[SlotRun]>>,
    bytes: Bytes,
}

enum Bytes {
    /// None are needed: the chunk is of this kind, or of several that are not Data.
    None(Option<ExtentKind>),
    /// The image has them.
    Known(Pointer),
    /// They are in `frames`.
    New { id: Id, frame: Range<usize>, difference: bool },
}

/// What each worker keeps from job to job.
struct Hands {
    buf: Vec<u8>,
    zeros: Vec<u8>,
    base: Vec<u8>,
    difference: Vec<u8>,
    check: Vec<u8>,
    compressor: Compressor,
    decompressor: Decompressor,
    decoder: Decoder,
}

impl Hands {
    fn new(compression: Compression, chunk_size: u64) -> Self {
        let zeros = vec![0; usize::try_from(chunk_size).expect("at most 4 MiB")];
        Self {
            buf: Vec::new(),
            zeros,
            base: Vec::new(),
            difference: Vec::new(),
            check: Vec::new(),
            compressor: Compressor::new(compression),
            decompressor: Decompressor::default(),
            decoder: Decoder::default(),
        }
    }
}

/// What all workers share.
struct Work<'a> {
    disk: &'a dyn Disk,
    shape: TreeShape,
    image: &'a Image,
    index: &'a DedupIndex,
    options: PassOptions<'a>,
}

impl Work<'_> {
    fn run(&self, hands: &mut Hands, job: Job) -> Result<Done> {
        let (first, count, extents, previous) = match job {
            Job::Fill { kind, count, bytes } => return Ok(Done { bytes, outcome: Outcome::Fill { kind, count } }),
            Job::Chunks { first, count, extents, previous } => (first, count, extents, previous),
        };
        let start = first.saturating_mul(self.shape.chunk_size());
        let end = extents.last().map_or(start, Extent::end);
        let mut buf = std::mem::take(&mut hands.buf);
        buf.resize(usize::try_from(end.saturating_sub(start)).expect("a job is small"), 0);
        let mut bad = Vec::new();
        // The extents cover all of the buffer, which still holds another job's bytes.
        for extent in &extents {
            let part = within(&mut buf, start, extent.offset..extent.end());
            if extent.kind == ExtentKind::Data {
                read_tolerant(self.disk, part, extent.offset, &mut bad)?;
            } else {
                part.fill(0);
            }
        }
        let mut chunks = Vec::new();
        let mut frames = Vec::new();
        for chunk in first..first.saturating_add(count) {
            let chunk_start = chunk.saturating_mul(self.shape.chunk_size());
            let chunk_end = chunk_start.saturating_add(self.shape.chunk_len(chunk));
            let bytes = within(&mut buf, start, chunk_start..chunk_end);
            let slot = usize::try_from(chunk % NODE_SLOTS).expect("below 256");
            let before = previous.as_ref().and_then(|node| match node.slots.get(slot) {
                Some(Slot::Pointer(pointer) | Slot::Mixed { chunk: Some(pointer), .. }) => Some(*pointer),
                _ => None,
            });
            let runs = runs_of(chunk_start..chunk_end, &extents, &bad);
            chunks.push(self.prepare(hands, bytes, runs, before, &mut frames)?);
        }
        hands.buf = buf;
        Ok(Done { bytes: end.saturating_sub(start), outcome: Outcome::Chunks { first, chunks, frames, bad } })
    }

    /// Decides how one chunk is kept; encodes it where it is new.
    fn prepare(
        &self,
        hands: &mut Hands,
        bytes: &[u8],
        mut runs: Vec<SlotRun>,
        before: Option<Pointer>,
        frames: &mut Vec<u8>,
    ) -> Result<Prepared> {
        let has_data = runs.iter().any(|run| run.kind == ExtentKind::Data);
        if has_data && hands.zeros.get(..bytes.len()) == Some(bytes) {
            for run in runs.iter_mut().filter(|run| run.kind == ExtentKind::Data) {
                run.kind = ExtentKind::Zero;
            }
            merge_runs(&mut runs);
        }
        let single = if let [run] = runs.as_slice() { Some(run.kind) } else { None };
        let runs = if single.is_some() { None } else { Some(runs.into_boxed_slice()) };
        let wants_bytes = match (&runs, single) {
            (Some(runs), _) => runs.iter().any(|run| run.kind == ExtentKind::Data),
            (None, kind) => kind == Some(ExtentKind::Data),
        };
        if !wants_bytes {
            return Ok(Prepared { runs, bytes: Bytes::None(single) });
        }
        let id = Id::of_chunk(bytes);
        let before = before.and_then(|pointer| {
            let place = self.image.resolve(pointer.place).ok()?;
            self.index.is_usable(place).then_some(Pointer { id: pointer.id, place })
        });
        if let Some(pointer) = before.filter(|pointer| pointer.id == id) {
            return Ok(Prepared { runs, bytes: Bytes::Known(pointer) });
        }
        if let Some(place) = self.index.find(&id) {
            return Ok(Prepared { runs, bytes: Bytes::Known(Pointer { id, place }) });
        }
        let frame_start = frames.len();
        let difference = self.encode(hands, bytes, id, before, frames)?;
        Ok(Prepared { runs, bytes: Bytes::New { id, frame: frame_start..frames.len(), difference } })
    }

    /// Appends the chunk's frame to `frames`; says whether it became a difference.
    fn encode(
        &self,
        hands: &mut Hands,
        bytes: &[u8],
        id: Id,
        before: Option<Pointer>,
        frames: &mut Vec<u8>,
    ) -> Result<bool> {
        let base = before.and_then(|pointer| self.find_base(hands, bytes, pointer));
        if let Some((place, len)) = base {
            let payload = hands.difference.get(..len).expect("the compressor wrote that many bytes");
            // Only a difference that is clearly small against its base is taken without a look at the alternative.
            let base_payload = usize::try_from(place.len).unwrap_or(usize::MAX).saturating_sub(FRAME_HEADER_LEN);
            let is_small = len < base_payload / 2 || {
                let whole = hands.compressor.compress(bytes).1.len();
                len.saturating_mul(4) < whole.saturating_mul(3)
            };
            if is_small {
                if self.options.decode_verify {
                    hands.check.resize(bytes.len(), 0);
                    hands.decompressor.decode_difference(payload, &hands.base, &mut hands.check)?;
                    verify(&hands.check, id)?;
                }
                let codec = Codec::ZstdWithBase;
                frame::append(frames, FrameType::Chunk, codec, Some(place), id, bytes.len(), payload);
                return Ok(true);
            }
        }
        let (codec, payload) = hands.compressor.compress(bytes);
        if self.options.decode_verify {
            hands.check.resize(bytes.len(), 0);
            hands.decompressor.decode(codec, payload, &mut hands.check)?;
            verify(&hands.check, id)?;
        }
        frame::append(frames, FrameType::Chunk, codec, None, id, bytes.len(), payload);
        Ok(false)
    }

    /// Compresses against the chunk that lay here before, where they are alike. The result is in `hands.difference`.
    fn find_base(&self, hands: &mut Hands, bytes: &[u8], before: Pointer) -> Option<(Place, usize)> {
        if self.options.compression == Compression::None {
            return None;
        }
        // A damaged base costs the difference, not the capture.
        let place = self.image.read_as_base(&mut hands.decoder, before, &mut hands.base).ok()?;
        if !self.index.is_usable(place) || !are_alike(bytes, &hands.base) {
            return None;
        }
        let len = hands.compressor.compress_difference(bytes, &hands.base, &mut hands.difference)?;
        Some((place, len))
    }
}

/// The bytes of `range` in a buffer that starts at `start` of the disk.
fn within(buf: &mut [u8], start: u64, range: Range<u64>) -> &mut [u8] {
    let at = |offset: u64| usize::try_from(offset.saturating_sub(start)).expect("inside a job");
    buf.get_mut(at(range.start)..at(range.end)).expect("the job's extents cover its chunks")
}

/// A chunk that was just encoded must decode to what its id says; anything else is a fault of this machine or program.
fn verify(decoded: &[u8], id: Id) -> Result<()> {
    if Id::of_chunk(decoded) == id {
        return Ok(());
    }
    Err(Error::corrupt(
        "a chunk that was just compressed",
        0,
        "it does not decode to what was read: memory or processor cannot be trusted, and nothing was kept",
    ))
}

/// Says whether two chunks share some of their bytes at the same places.
fn are_alike(new: &[u8], old: &[u8]) -> bool {
    let len = new.len().min(old.len());
    let step = (len / SAMPLES).max(SAMPLE_LEN);
    let pairs = new.chunks(step).zip(old.chunks(step));
    let same = pairs.filter(|(a, b)| {
        let (a, b) = (a.get(..SAMPLE_LEN), b.get(..SAMPLE_LEN));
        a == b && a.is_some_and(|a| a.iter().any(|byte| *byte != 0))
    });
    same.take(2).count() == 2
}

/// The runs of one chunk: its extents, with unreadable sectors as Bad. Units of 512 bytes.
fn runs_of(chunk: Range<u64>, extents: &[Extent], bad: &[Range<u64>]) -> Vec<SlotRun> {
    let mut runs = Vec::new();
    let mut push = |range: Range<u64>, kind| {
        let units = range.end.saturating_sub(range.start).div_ceil(RUN_UNIT);
        if units > 0 {
            runs.push(SlotRun { kind, units: u32::try_from(units).expect("a chunk is at most 4 MiB") });
        }
    };
    let first = extents.partition_point(|extent| extent.end() <= chunk.start);
    for extent in extents.iter().skip(first).take_while(|extent| extent.offset < chunk.end) {
        let (mut at, end) = (extent.offset.max(chunk.start), extent.end().min(chunk.end));
        let first_bad = bad.partition_point(|range| range.end <= at);
        for range in bad.iter().skip(first_bad).take_while(|range| range.start < end) {
            push(at..range.start.clamp(at, end), extent.kind);
            push(range.start.max(at)..range.end.min(end), ExtentKind::Bad);
            at = range.end.min(end);
        }
        push(at..end, extent.kind);
    }
    merge_runs(&mut runs);
    runs
}

fn merge_runs(runs: &mut Vec<SlotRun>) {
    runs.dedup_by(|next, kept| {
        let same = next.kind == kept.kind;
        if same {
            kept.units = kept.units.saturating_add(next.units);
        }
        same
    });
}

/// Takes one job's results, in order: appends what is new and grows the tree.
fn collect(
    done: Done,
    shape: &TreeShape,
    writer: &mut ImageWriter,
    builder: &mut TreeBuilder,
    totals: &mut Totals,
) -> Result<()> {
    let (first, chunks, frames, bad) = match done.outcome {
        Outcome::Fill { kind, count } => {
            count_bytes(totals, kind, done.bytes);
            return builder.push_fill(kind, count, &mut |node| writer.append_node(node));
        }
        Outcome::Chunks { first, chunks, frames, bad } => (first, chunks, frames, bad),
    };
    for range in bad {
        match totals.bad.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => totals.bad.push(range),
        }
    }
    for (chunk, prepared) in (first..).zip(chunks) {
        let len = shape.chunk_len(chunk);
        match (&prepared.runs, &prepared.bytes) {
            (Some(runs), _) => count_runs(totals, runs, len),
            (None, Bytes::None(Some(kind))) => count_bytes(totals, *kind, len),
            (None, _) => count_bytes(totals, ExtentKind::Data, len),
        }
        let pointer = match &prepared.bytes {
            Bytes::None(_) => None,
            Bytes::Known(pointer) => {
                totals.chunks_reused = totals.chunks_reused.saturating_add(1);
                Some(*pointer)
            }
            &Bytes::New { id, ref frame, difference } => {
                let frame = frames.get(frame.clone()).expect("the worker's range lies in its frames");
                let (place, appended) = writer.append_chunk(frame, id)?;
                let counter = match (appended, difference) {
                    (false, _) => &mut totals.chunks_reused,
                    (true, true) => &mut totals.chunks_difference,
                    (true, false) => &mut totals.chunks_new,
                };
                *counter = counter.saturating_add(1);
                Some(Pointer { id, place })
            }
        };
        let slot = match (prepared.runs, prepared.bytes) {
            (Some(runs), _) => Slot::Mixed { runs, chunk: pointer },
            (None, Bytes::None(Some(kind))) => Slot::Fill(kind),
            (None, _) => Slot::Pointer(pointer.expect("a chunk of data has a pointer")),
        };
        builder.push(slot, &mut |node| writer.append_node(node))?;
    }
    Ok(())
}

fn count_runs(totals: &mut Totals, runs: &[SlotRun], chunk_len: u64) {
    let mut left = chunk_len;
    for run in runs {
        let len = u64::from(run.units).saturating_mul(RUN_UNIT).min(left);
        left = left.saturating_sub(len);
        count_bytes(totals, run.kind, len);
    }
}

fn count_bytes(totals: &mut Totals, kind: ExtentKind, len: u64) {
    let counter = match kind {
        ExtentKind::Data => &mut totals.data,
        ExtentKind::Zero => &mut totals.zero,
        ExtentKind::Absent => &mut totals.absent,
        // Unreadable bytes are counted by their ranges.
        ExtentKind::Bad => return,
    };
    *counter = counter.saturating_add(len);
}
