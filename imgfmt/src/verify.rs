//! Proving an image: every frame of every pack, every pointer of every generation, and what damage means for whom.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result, full_message};
use crate::image::id::{Id, Place, Pointer, image_id_hex};
use crate::image::layout::FrameType;
use crate::image::node::Slot;
use crate::image::pack::Pack;
use crate::image::reader::{Decoder, Image};
use crate::image::record::Record;
use crate::image::table;
use crate::image::tree::{TreeShape, span};
use crate::image::verdict::{Verdict, Verdicts};

/// Bytes of frames that a worker checks at once.
const BATCH_LEN: u64 = 2 << 20;
/// Damaged runs listed for each generation.
const MAX_LISTED: usize = 1000;

/// A piece of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The pack's file name.
    pub pack: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

/// What is known of one generation after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationVerdict {
    /// Its number.
    pub number: u32,
    /// Its record, where it could be read.
    pub record: Option<Record>,
    /// Runs of the disk that cannot be read, in bytes; empty where it is whole.
    pub damaged: Vec<Range<u64>>,
    /// Why the record or the tree cannot be read, where that is so.
    pub error: Option<String>,
}

impl GenerationVerdict {
    /// Says whether every byte of the generation was proven.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.error.is_none()
    }
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Bytes of packs that were read.
    pub bytes: u64,
    /// Frames that were proven.
    pub frames: u64,
    /// Damage, in pack order.
    pub damage: Vec<Damage>,
    /// Missing packs and the like, in words.
    pub warnings: Vec<String>,
    /// Every generation.
    pub generations: Vec<GenerationVerdict>,
}

impl Report {
    /// Says whether nothing at all is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.warnings.is_empty() && self.generations.iter().all(GenerationVerdict::is_whole)
    }
}

/// Reads and proves everything, and keeps the verdicts beside the image (best effort).
pub fn verify(image: &Arc<Image>, run: Run<'_>) -> Result<Report> {
    let mut report = Report { warnings: image.warnings().to_vec(), ..Report::default() };
    let missing = image.missing_packs();
    let packs: Vec<_> = image
        .catalogue()
        .packs
        .iter()
        .filter(|pack| pack.replaced_by.is_none() && !missing.contains(&pack.number))
        .copied()
        .collect();
    run.progress.begin("verifying", packs.iter().map(|pack| pack.file_len).sum());
    let mut damaged = HashSet::new();
    for entry in &packs {
        let name = image.store().name(entry.number);
        match image.pack(entry.number) {
            Ok(pack) => verify_pack(image, &pack, entry.footer_hash, &mut report, &mut damaged, run)?,
            Err(error) => report.damage.push(Damage { pack: name, offset: 0, reason: full_message(&error) }),
        }
    }
    run.progress.begin("checking every generation", 0);
    let mut walker = Walker { image, damaged: &damaged, good: HashMap::new(), cancel: run };
    for entry in image.generations() {
        run.cancel.check()?;
        let mut verdict = GenerationVerdict { number: entry.number, record: None, damaged: Vec::new(), error: None };
        match image.record(entry) {
            Err(error) => verdict.error = Some(full_message(&error)),
            Ok(record) => {
                if let Err(error) = walker.generation(&record, &mut verdict.damaged) {
                    if matches!(error, Error::Cancelled) {
                        return Err(error);
                    }
                    verdict.error = Some(full_message(&error));
                }
                verdict.record = Some(record);
            }
        }
        report.generations.push(verdict);
    }
    keep_verdicts(image, &report, &damaged);
    Ok(report)
}

fn keep_verdicts(image: &Image, report: &Report, damaged: &HashSet<Place>) {
    let verified = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    // Boot tests stay: this run says nothing of them.
    let boots = Verdicts::read(&**image.store(), image.id()).boots;
    let mut verdicts = Verdicts { image: image_id_hex(&image.id()), boots, ..Verdicts::default() };
    for verdict in &report.generations {
        if let Some(record) = &verdict.record {
            let whole = verdict.is_whole();
            let (root, verified) = (record.root.id.clone(), verified.clone());
            verdicts.generations.insert(verdict.number, Verdict { root, verified, whole });
        }
    }
    let mut places: Vec<_> = damaged.iter().map(|place| (place.pack, place.offset, place.len)).collect();
    places.sort_unstable();
    verdicts.damaged = places;
    // Derived: a folder that cannot be written loses nothing.
    let _ = verdicts.write(&**image.store());
}

/// Frames of a pack in the order of the file, found by their headers.
struct Frames<'a> {
    pack: &'a Pack,
    at: u64,
    end: u64,
}

impl Frames<'_> {
    /// The next frames of about [`BATCH_LEN`] bytes together; `None` at the end. Where a header breaks off the walk, the error says so.
    fn next(&mut self) -> Result<Option<Vec<(FrameType, Place)>>> {
        let mut batch = Vec::new();
        let mut len = 0_u64;
        while self.at < self.end && len < BATCH_LEN {
            let (frame, place) = self.pack.frame_header_at(self.at)?;
            if place.end() > self.end {
                let what = format!("frame in {}", self.pack.name());
                return Err(Error::corrupt(what, self.at, "it reaches past the end of the frames"));
            }
            batch.push((frame.frame_type, place));
            self.at = place.end();
            len = len.saturating_add(u64::from(place.len));
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }
}

/// What a worker found in a batch of frames.
struct Checked {
    bytes: u64,
    frames: u64,
    proven: Vec<Pointer>,
    special: Vec<(FrameType, Id)>,
    bad: Vec<(Place, String)>,
}

fn verify_pack(
    image: &Arc<Image>,
    pack: &Pack,
    listed_hash: [u8; 32],
    report: &mut Report,
    damaged: &mut HashSet<Place>,
    run: Run<'_>,
) -> Result<()> {
    let mut problems: Vec<(u64, String)> = Vec::new();
    let file_len = pack.file().len()?;
    let footer = pack.footer();
    let end = match &footer {
        Ok(_) => file_len.saturating_sub(u64::try_from(crate::image::layout::FOOTER_LEN).expect("a small constant")),
        Err(error) => {
            problems.push((file_len, full_message(error)));
            file_len
        }
    };
    let mut proven: Vec<Pointer> = Vec::new();
    let (mut table_id, mut record_id, mut catalogue_id) = (Id::NONE, Id::NONE, Id::NONE);
    let mut start = pack.first_frame();
    // A damaged frame header hides where the next frame starts: the table knows more starts.
    let starts = footer.as_ref().ok().and_then(|footer| table_starts(pack, footer)).unwrap_or_default();
    loop {
        let mut frames = Frames { pack, at: start, end };
        let outcome = run_ordered(
            run,
            || frames.next(),
            Decoder::default,
            |decoder, batch| Ok(check_batch(image, decoder, batch)),
            |checked: Checked| {
                run.progress.advance(checked.bytes);
                report.bytes = report.bytes.saturating_add(checked.bytes);
                report.frames = report.frames.saturating_add(checked.frames);
                proven.extend(checked.proven);
                for (frame_type, id) in checked.special {
                    match frame_type {
                        // The footer's hash covers the record behind the table; those before it came from replaced packs.
                        FrameType::Table => (table_id, record_id) = (id, Id::NONE),
                        FrameType::Record => record_id = id,
                        FrameType::Catalogue => catalogue_id = id,
                        _ => {}
                    }
                }
                for (place, reason) in checked.bad {
                    damaged.insert(place);
                    problems.push((place.offset, reason));
                }
                Ok(())
            },
        );
        match outcome {
            Ok(()) => break,
            Err(error @ (Error::Corrupt { .. } | Error::Io { .. })) => {
                let at = frames.at;
                // Behind a pack without a footer nothing is expected to be whole.
                if footer.is_ok() {
                    problems.push((at, full_message(&error)));
                }
                let next = starts.partition_point(|place| place.offset <= at);
                if let Some(lost) = next.checked_sub(1).and_then(|index| starts.get(index)).filter(|p| p.offset == at) {
                    damaged.insert(*lost);
                }
                match starts.get(next) {
                    Some(place) => start = place.offset,
                    None => break,
                }
            }
            Err(error) => return Err(error),
        }
    }
    if let Ok(footer) = &footer {
        if footer.hash != listed_hash {
            problems.push((end, "its footer is not the one that the catalogue lists".into()));
        }
        if let Err(error) = pack.check_footer_hash(table_id, record_id, catalogue_id) {
            problems.push((end, full_message(&error)));
        }
        if let Err(error) = check_table(pack, footer, &mut proven, problems.is_empty()) {
            problems.push((footer.table.offset, full_message(&error)));
        }
    }
    problems.sort();
    let pack = pack.name().to_owned();
    report.damage.extend(problems.into_iter().map(|(offset, reason)| Damage { pack: pack.clone(), offset, reason }));
    Ok(())
}

/// Every place that the table lists, by offset, with the frames behind it; `None` where the table cannot be read.
fn table_starts(pack: &Pack, footer: &crate::image::pack::Footer) -> Option<Vec<Place>> {
    let blocks = pack.table_blocks(footer).ok()?;
    let mut places = Vec::new();
    let mut buf = [0; table::BLOCK_LEN];
    for index in 0..table::Blocks::count(&blocks) {
        table::Blocks::read(&blocks, index, &mut buf).ok()?;
        places.extend(table::Block::parse(&buf, index).ok()?.iter().map(|pointer| pointer.place));
    }
    places.push(footer.table);
    places.push(footer.catalogue);
    places.sort_unstable();
    Some(places)
}

/// The table must list exactly the chunks and nodes that were proven (where nothing is damaged).
fn check_table(pack: &Pack, footer: &crate::image::pack::Footer, proven: &mut Vec<Pointer>, all: bool) -> Result<()> {
    let corrupt = |reason| Error::corrupt(format_args!("table of {}", pack.name()), footer.table.offset, reason);
    proven.sort_unstable();
    proven.dedup_by_key(|pointer| pointer.id);
    let blocks = pack.table_blocks(footer)?;
    let mut listed = Vec::new();
    let mut buf = [0; table::BLOCK_LEN];
    for index in 0..table::Blocks::count(&blocks) {
        table::Blocks::read(&blocks, index, &mut buf)?;
        listed.extend(table::Block::parse(&buf, index)?.iter());
    }
    if !listed.is_sorted_by(|a, b| a < b) {
        return Err(corrupt("its entries are not in ascending order"));
    }
    let ids = |pointers: &[Pointer]| pointers.iter().map(|pointer| pointer.id).collect::<Vec<_>>();
    if all && ids(&listed) != ids(proven) {
        return Err(corrupt("it does not list what the pack holds"));
    }
    Ok(())
}

fn check_batch(image: &Image, decoder: &mut Decoder, batch: Vec<(FrameType, Place)>) -> Checked {
    let mut checked = Checked { bytes: 0, frames: 0, proven: Vec::new(), special: Vec::new(), bad: Vec::new() };
    for (frame_type, place) in batch {
        checked.bytes = checked.bytes.saturating_add(u64::from(place.len));
        match image.prove_frame(decoder, frame_type, place) {
            Ok(id) => {
                checked.frames = checked.frames.saturating_add(1);
                match frame_type {
                    FrameType::Chunk | FrameType::Node => checked.proven.push(Pointer { id, place }),
                    _ => checked.special.push((frame_type, id)),
                }
            }
            Err(error) => checked.bad.push((place, full_message(&error))),
        }
    }
    checked
}

/// Walks the trees of generations, each shared node once.
struct Walker<'a> {
    image: &'a Arc<Image>,
    damaged: &'a HashSet<Place>,
    /// Nodes below which nothing is damaged, by where they lie.
    good: HashMap<Place, Id>,
    cancel: Run<'a>,
}

impl Walker<'_> {
    fn generation(&mut self, record: &Record, out: &mut Vec<Range<u64>>) -> Result<()> {
        let shape = TreeShape::new(record.disk.len, record.chunk_size)?;
        if shape.root_level() != record.root.level {
            return Err(Error::corrupt("generation record", 0, "its root is not of the level that the disk needs"));
        }
        self.node(&shape, shape.root_level(), 0, record.root_pointer()?, out)
    }

    /// Appends what is damaged below a node. The depth is that of the tree, at most 8.
    fn node(
        &mut self,
        shape: &TreeShape,
        level: u8,
        first: u64,
        pointer: Pointer,
        out: &mut Vec<Range<u64>>,
    ) -> Result<()> {
        self.cancel.cancel.check()?;
        // Of the same shape as well: the last node of a disk can be shorter.
        let node_shape = shape.node(level, first);
        let key = Place { len: pointer.place.len, ..pointer.place };
        if self.good.get(&key) == Some(&pointer.id) && node_shape.slots == crate::image::layout::NODE_SLOTS {
            return Ok(());
        }
        let before = out.len();
        let node = match self.image.node(pointer, &node_shape) {
            Ok(node) if self.frame_is_good(pointer, FrameType::Node) => node,
            _ => {
                let end = first.saturating_add(span(level.saturating_add(1)).unwrap_or(u64::MAX));
                push_run(out, self.bytes(shape, first, end));
                return Ok(());
            }
        };
        let slot_span = span(level).unwrap_or(u64::MAX);
        for (index, slot) in (0_u64..).zip(&node.slots) {
            let at = first.saturating_add(index.saturating_mul(slot_span));
            match slot {
                Slot::Pointer(child) if level > 0 => self.node(shape, level.saturating_sub(1), at, *child, out)?,
                Slot::Pointer(chunk) | Slot::Mixed { chunk: Some(chunk), .. }
                    if !self.frame_is_good(*chunk, FrameType::Chunk) =>
                {
                    push_run(out, self.bytes(shape, at, at.saturating_add(1)));
                }
                _ => {}
            }
        }
        if out.len() == before {
            self.good.insert(key, pointer.id);
        }
        Ok(())
    }

    /// A frame is good when it was proven in the first stage and is of the type and id that its pointer wants.
    fn frame_is_good(&self, pointer: Pointer, frame_type: FrameType) -> bool {
        let Ok(place) = self.image.resolve(pointer.place) else { return false };
        if self.damaged.contains(&place) {
            return false;
        }
        let header = self.image.pack(place.pack).and_then(|pack| pack.frame_header_at(place.offset));
        header.is_ok_and(|(frame, found)| found == place && frame.id == pointer.id && frame.frame_type == frame_type)
    }

    fn bytes(&self, shape: &TreeShape, first: u64, end: u64) -> Range<u64> {
        let byte = |chunk: u64| chunk.saturating_mul(shape.chunk_size()).min(shape.len());
        byte(first)..byte(end)
    }
}

fn push_run(out: &mut Vec<Range<u64>>, range: Range<u64>) {
    let full = out.len() >= MAX_LISTED;
    match out.last_mut() {
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        Some(last) if full => last.end = range.end,
        _ => out.push(range),
    }
}

/// Damaged runs as counted by partition number, for messages: bytes of each partition that are hit; 0 is outside of all.
pub fn damage_by_partition(record: &Record, damaged: &[Range<u64>]) -> BTreeMap<u32, u64> {
    let mut hit = BTreeMap::new();
    for range in damaged {
        let mut inside = 0_u64;
        for partition in &record.layout.partitions {
            let end = partition.start.saturating_add(partition.len);
            let shared = range.end.min(end).saturating_sub(range.start.max(partition.start));
            if shared > 0 {
                let bytes: &mut u64 = hit.entry(partition.number).or_default();
                *bytes = bytes.saturating_add(shared);
                inside = inside.saturating_add(shared);
            }
        }
        let outside = range.end.saturating_sub(range.start).saturating_sub(inside);
        if outside > 0 {
            let bytes: &mut u64 = hit.entry(0).or_default();
            *bytes = bytes.saturating_add(outside);
        }
    }
    hit
}
