//! Capture: a disk becomes a generation of an image.
//!
//! The [`plan`] says what is wanted, [`planned`] shows the source as the plan sees it, [`chunks`] stores it, [`closure`] proves from the image
//! alone that nothing is missing that the metadata need. Only then is the generation committed.

pub mod bad;
pub mod chunks;
pub mod closure;
pub mod estimate;
pub mod live;
pub mod plan;
pub mod planned;
pub mod retry;
pub mod shadow;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::chunks::{PassOptions, Totals, store_disk};
use crate::capture::plan::{Plan, PlanOptions};
use crate::capture::planned::PlannedDisk;
use crate::disk::{Disk, read_vec};
use crate::engine::Run;
use crate::error::{Error, Result};
use crate::image::generation::{Generation, Tree, UnfinishedGeneration};
use crate::image::id::{Id, Pointer};
use crate::image::record::{
    Counts, DiskShape, ElidedRecord, LayoutPartition, LayoutRecord, OptionsRecord, PartitionRecord, Record, Source,
    StructureRecord,
};
use crate::image::store::PackStore;
use crate::image::tree::TreeShape;
use crate::image::writer::{ImageWriter, Salvage, WriterOptions};

/// Longest boot structure whose digest goes into the record.
const MAX_STRUCTURE: u64 = 4 << 20;
/// Longest list of unreadable ranges in a record; the map in the tree has all of them.
const MAX_BAD_LISTED: usize = 100_000;

/// How a disk is captured.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// What is kept.
    pub plan: PlanOptions,
    /// How the image is written.
    pub writer: WriterOptions,
    /// The user says that it is the same disk although it looks different.
    pub same_disk: bool,
    /// Read only what the latest generation could not, and take everything else from it.
    pub retry_bad: bool,
    /// Decode and hash every new chunk before it counts as stored.
    pub decode_verify: bool,
    /// Walk the filesystems in the image before the generation is committed.
    pub closure_check: bool,
    /// A short name.
    pub label: Option<String>,
    /// A longer text.
    pub note: Option<String>,
    /// What else the record should warn of: what is known of the source that its bytes do not tell.
    pub warnings: Vec<String>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            plan: PlanOptions::default(),
            writer: WriterOptions::default(),
            same_disk: false,
            retry_bad: false,
            decode_verify: true,
            closure_check: true,
            label: None,
            note: None,
            warnings: Vec::new(),
        }
    }
}

/// The source and what is known of it.
#[derive(Clone)]
pub struct CaptureSource {
    /// Its bytes.
    pub disk: Arc<dyn Disk>,
    /// Its identity.
    pub identity: Source,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
}

impl std::fmt::Debug for CaptureSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureSource").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a capture did.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The record as it was written.
    pub record: Record,
    /// What an interrupted capture had left.
    pub salvage: Salvage,
    /// Missing and damaged packs, in words.
    pub image_warnings: Vec<String>,
    /// Unreadable ranges in bytes.
    pub bad: Vec<Range<u64>>,
    /// How long each stage took.
    pub timings: Timings,
}

/// Wall-clock times of the stages of a capture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Reading tables and filesystems of the source.
    pub plan: Duration,
    /// Locking and opening the image, and closing what an interrupted capture left.
    pub open: Duration,
    /// Reading, hashing, compressing and appending; again for what failed the closure check.
    pub store: Duration,
    /// The closure check, and reading metadata again where the source was in use.
    pub check: Duration,
    /// Making record, table and catalogue, without what follows.
    pub commit: Duration,
    /// Waiting for the system to make packs durable.
    pub sync: Duration,
}

/// Runs a stage and adds its time.
fn timed<T>(sum: &mut Duration, stage: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = stage();
    *sum = sum.saturating_add(begun.elapsed());
    result
}

/// Adds a generation to the image in `store`, which is created where there is none.
pub fn capture(
    source: &CaptureSource,
    store: Arc<dyn PackStore>,
    options: &CaptureOptions,
    run: Run<'_>,
) -> Result<Captured> {
    if source.disk.len() == 0 {
        return Err(Error::Refused(format!("{} has no bytes", source.identity.path)));
    }
    run.progress.begin("planning", 0);
    let mut timings = Timings::default();
    let mut plan = timed(&mut timings.plan, || plan::plan(&source.disk, &options.plan))?;
    let mut writer = timed(&mut timings.open, || ImageWriter::open(store, options.writer.clone()))?;
    let image_warnings = writer.image().warnings().to_vec();
    let previous = latest(&writer);
    if let Some(previous) = &previous {
        check_same_disk(source, &plan, previous.record(), options.same_disk)?;
    }
    let previous_tree = previous.as_ref().map(|generation| generation.tree().clone());
    let pass = |tree| PassOptions {
        compression: options.writer.compression,
        decode_verify: options.decode_verify,
        previous: tree,
    };
    let shape = TreeShape::new(source.disk.len(), writer.image().chunk_size())?;
    let (mut root, mut totals) = if options.retry_bad {
        let previous = previous.clone().ok_or_else(|| {
            Error::NotFound("there is no generation whose unreadable sectors could be read again".into())
        })?;
        let disk = retry::RetryDisk::open(Arc::clone(&source.disk), previous)?;
        run.progress.begin("reading unreadable sectors again", disk.len());
        timed(&mut timings.store, || store_disk(&disk, &mut writer, pass(previous_tree.as_ref()), run))?
    } else {
        timed(&mut timings.store, || store_pass(source, &plan, &mut writer, pass(previous_tree.as_ref()), run))?
    };
    let mut verdicts = Vec::new();
    if options.closure_check && !options.retry_bad {
        run.progress.begin("checking that nothing is missing", 0);
        let sector_size = source.disk.sector_size();
        verdicts = timed(&mut timings.check, || check_closure(&mut writer, &plan, root, shape, sector_size))?;
        let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict != COMPLETE).cloned().collect();
        if !failed.is_empty() {
            for (number, reason) in failed {
                run.progress.note(&format!("partition {number} is captured whole after all: {reason}"));
                plan.keep_whole(number, reason);
            }
            let first = Tree::new(root, shape, source.disk.sector_size());
            let stored = totals;
            (root, totals) =
                timed(&mut timings.store, || store_pass(source, &plan, &mut writer, pass(Some(&first)), run))?;
            totals.chunks_new = totals.chunks_new.saturating_add(stored.chunks_new);
            totals.chunks_difference = totals.chunks_difference.saturating_add(stored.chunks_difference);
        }
    }
    let mut live_changes = Vec::new();
    if source.identity.live {
        run.progress.begin("reading metadata again", 0);
        let disk = unfinished(&mut writer, root, shape, source.disk.sector_size())?;
        live_changes = timed(&mut timings.check, || live::changes(&source.disk, &disk, &plan, run.cancel))?;
    }
    let mut record = make_record(source, &plan, &totals, &verdicts, options);
    record.warnings.extend(options.warnings.iter().cloned().chain(live_changes));
    if let Some(previous) = previous.filter(|_| options.retry_bad) {
        // The disk was not looked at anew: what is known of it is what was known before.
        let before = previous.record().clone();
        record = Record {
            layout: before.layout,
            structures: before.structures,
            partitions: before.partitions,
            elided: before.elided,
            ..record
        };
    }
    let salvage = writer.salvage().clone();
    run.cancel.check()?;
    let (record, syncing) = timed(&mut timings.commit, || writer.commit(record, root, shape.root_level()))?;
    // Packs that were full have been synced while others were stored: that much is in both.
    timings.sync = syncing;
    timings.commit = timings.commit.saturating_sub(syncing);
    Ok(Captured { record, salvage, image_warnings, bad: totals.bad, timings })
}

/// The verdict of a partition whose metadata reach nothing that is missing.
const COMPLETE: &str = "complete";

fn store_pass(
    source: &CaptureSource,
    plan: &Plan,
    writer: &mut ImageWriter,
    options: PassOptions<'_>,
    run: Run<'_>,
) -> Result<(Pointer, Totals)> {
    let disk = PlannedDisk::new(Arc::clone(&source.disk), &plan.unwanted, &plan.elided);
    run.progress.begin("capturing", disk.wanted());
    store_disk(&disk, writer, options, run)
}

/// The generation before, where it can be read: a damaged one costs reuse, not the capture.
fn latest(writer: &ImageWriter) -> Option<Generation> {
    let image = writer.image();
    image.generations().iter().rev().find_map(|entry| image.generation(entry.number).ok())
}

/// What has been stored so far, as a disk.
fn unfinished(writer: &mut ImageWriter, root: Pointer, shape: TreeShape, sector_size: u32) -> Result<Arc<dyn Disk>> {
    writer.make_readable()?;
    let tree = Tree::new(root, shape, sector_size);
    Ok(Arc::new(UnfinishedGeneration::new(Arc::clone(writer.image()), tree)))
}

fn check_closure(
    writer: &mut ImageWriter,
    plan: &Plan,
    root: Pointer,
    shape: TreeShape,
    sector_size: u32,
) -> Result<Vec<(u32, String)>> {
    let disk = unfinished(writer, root, shape, sector_size)?;
    let kept = plan.partitions.iter().filter(|kept| kept.used_blocks);
    Ok(kept
        .map(|kept| {
            let verdict = closure::check(&disk, kept).err();
            (kept.partition.number, verdict.unwrap_or_else(|| COMPLETE.to_owned()))
        })
        .collect())
}

/// Refuses a source that is not the disk of the last generation.
fn check_same_disk(source: &CaptureSource, plan: &Plan, last: &Record, allowed: bool) -> Result<()> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, now: &str, then: &str| {
        if now != then {
            differences.push(format!("{what} is {now:?} and was {then:?}"));
        }
    };
    compare("its length", &source.disk.len().to_string(), &last.disk.len.to_string());
    compare("its sector size", &source.disk.sector_size().to_string(), &last.disk.logical_sector_size.to_string());
    for (what, now, then) in [
        ("its model", &source.identity.model, &last.source.model),
        ("its serial number", &source.identity.serial, &last.source.serial),
    ] {
        if let (Some(now), Some(then)) = (now, then) {
            compare(what, now, then);
        }
    }
    if !plan.layout.disk_id.is_empty() && !last.layout.id.is_empty() {
        compare("the id in its partition table", &plan.layout.disk_id, &last.layout.id);
    }
    if differences.is_empty() || allowed {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{} does not look like the disk of generation {}: {}; an image is the history of one disk: use another image, or --same-disk",
        source.identity.path,
        last.generation,
        differences.join(", ")
    )))
}

fn make_record(
    source: &CaptureSource,
    plan: &Plan,
    totals: &Totals,
    verdicts: &[(u32, String)],
    options: &CaptureOptions,
) -> Record {
    let range_pair = |range: Range<u64>| (range.start, range.end.saturating_sub(range.start));
    let disk = &source.disk;
    let mut warnings = plan.warnings.clone();
    if totals.bad.len() > MAX_BAD_LISTED {
        warnings.push(format!("{} ranges are unreadable; the first {MAX_BAD_LISTED} are listed", totals.bad.len()));
    }
    Record {
        format: 1,
        created: jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
            .map_or_else(|_| String::new(), |time| time.to_string()),
        tool: concat!("hikae ", env!("CARGO_PKG_VERSION")).into(),
        disk: DiskShape {
            len: disk.len(),
            logical_sector_size: disk.sector_size(),
            physical_sector_size: source.physical_sector_size,
        },
        source: source.identity.clone(),
        layout: layout_record(plan),
        structures: plan.layout.structures.iter().filter_map(|structure| structure_record(disk, structure)).collect(),
        partitions: plan
            .partitions
            .iter()
            .map(|kept| {
                let summary = kept.summary.clone().unwrap_or_default();
                let verdict = verdicts.iter().find(|(number, _)| *number == kept.partition.number);
                PartitionRecord {
                    number: kept.partition.number,
                    filesystem: kept.filesystem.clone(),
                    label: summary.label,
                    id: summary.id,
                    block_size: summary.block_size,
                    captured: if kept.used_blocks { "used blocks" } else { "whole" }.into(),
                    reasons: kept.reasons.clone(),
                    used: kept.used,
                    closure: match verdict {
                        None => "not walked".into(),
                        Some((_, verdict)) if verdict == COMPLETE => COMPLETE.into(),
                        Some((_, reason)) => format!("captured whole after: {reason}"),
                    },
                }
            })
            .collect(),
        elided: plan
            .elided_files
            .iter()
            .map(|file| ElidedRecord {
                partition: file.partition,
                path: file.path.clone(),
                bytes: file.ranges.total(),
                ranges: file.ranges.iter().map(range_pair).collect(),
                warning: file.warning.clone(),
            })
            .collect(),
        bad: totals.bad.iter().take(MAX_BAD_LISTED).cloned().map(range_pair).collect(),
        warnings,
        options: OptionsRecord {
            all_blocks: options.plan.all_blocks,
            keep_swap: options.plan.keep_swap,
            compression: options.writer.compression.to_string(),
            decode_verified: options.decode_verify,
            same_disk: options.same_disk,
        },
        label: options.label.clone(),
        note: options.note.clone(),
        counts: Counts {
            data: totals.data,
            zero: totals.zero,
            absent: totals.absent,
            bad: totals.bad.iter().map(|range| range.end.saturating_sub(range.start)).sum(),
            chunks_new: totals.chunks_new,
            chunks_difference: totals.chunks_difference,
            chunks_reused: totals.chunks_reused,
            stored: 0,
        },
        ..Record::default()
    }
}

fn layout_record(plan: &Plan) -> LayoutRecord {
    LayoutRecord {
        scheme: plan.layout.scheme.name().into(),
        id: plan.layout.disk_id.clone(),
        problems: plan.layout.problems.clone(),
        partitions: plan
            .layout
            .partitions
            .iter()
            .map(|partition| LayoutPartition {
                number: partition.number,
                start: partition.range.start,
                len: partition.range.end.saturating_sub(partition.range.start),
                type_code: partition.type_code.clone(),
                type_name: partition.type_name.into(),
                name: partition.name.clone(),
                id: partition.id.clone(),
                active: partition.active,
            })
            .collect(),
    }
}

fn structure_record(disk: &Arc<dyn Disk>, structure: &crate::partition::Structure) -> Option<StructureRecord> {
    let start = structure.range.start;
    let len = structure.range.end.saturating_sub(start).min(MAX_STRUCTURE);
    let bytes = read_vec(disk, start, usize::try_from(len).ok()?).ok()?;
    Some(StructureRecord { what: structure.what.clone(), start, len, blake3: Id::of_chunk(&bytes).to_string() })
}
