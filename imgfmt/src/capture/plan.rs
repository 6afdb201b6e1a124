//! The plan of a capture: what is kept of each partition, and why.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Slice};
use crate::error::{Error, Result, full_message};
use crate::filesystem::{self, Summary, UsedBlocks};
use crate::partition::signature::{container_type, recognise};
use crate::partition::{Layout, Partition, Scheme, read_layout};
use crate::ranges::RangeSet;

/// Violations of the cross-check that are listed.
const LISTED: usize = 10;

/// What the user wants kept.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Keep unallocated space too.
    pub all_blocks: bool,
    /// Keep the content of page files and swap too.
    pub keep_swap: bool,
    /// Bytes of the disk where the system wrote out all metadata of a filesystem, and then made the copy that is read there.
    pub flushed: Vec<Range<u64>>,
}

/// What is kept of one partition.
#[derive(Clone, Debug)]
pub struct PartitionPlan {
    /// The partition.
    pub partition: Partition,
    /// What is in it: "NTFS", "LUKS"; empty where nothing is recognised.
    pub filesystem: String,
    /// More of it, where its filesystem is read.
    pub summary: Option<Summary>,
    /// Whether only used blocks are kept.
    pub used_blocks: bool,
    /// Why it is kept whole, where it is.
    pub reasons: Vec<String>,
    /// Bytes that are wanted.
    pub used: u64,
}

/// A file whose content is not kept.
#[derive(Clone, Debug)]
pub struct ElidedFile {
    /// Number of its partition.
    pub partition: u32,
    /// Its path.
    pub path: String,
    /// Where its content lies on the disk.
    pub ranges: RangeSet,
    /// What the user should know.
    pub warning: Option<String>,
}

/// The plan of a capture.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The partition table.
    pub layout: Layout,
    /// The usable partitions.
    pub partitions: Vec<PartitionPlan>,
    /// Bytes of the disk that nobody wants.
    pub unwanted: RangeSet,
    /// Bytes of the disk that become zero.
    pub elided: RangeSet,
    /// The files that those are.
    pub elided_files: Vec<ElidedFile>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Plans the capture of a disk.
pub fn plan(source: &Arc<dyn Disk>, options: &PlanOptions) -> Result<Plan> {
    let mut warnings = Vec::new();
    let layout = match read_layout(source) {
        Err(error) if error.is_unreadable_medium() => {
            warnings
                .push(format!("the start of the disk cannot be read, so it is kept whole: {}", full_message(&error)));
            Layout {
                scheme: Scheme::None,
                disk_id: String::new(),
                partitions: Vec::new(),
                problems: Vec::new(),
                structures: Vec::new(),
            }
        }
        layout => layout?,
    };
    let mut plan = Plan {
        partitions: Vec::new(),
        unwanted: RangeSet::empty(),
        elided: RangeSet::empty(),
        elided_files: Vec::new(),
        warnings,
        layout,
    };
    for partition in plan.layout.partitions.clone() {
        if partition.unusable.is_none() {
            plan_partition(source, partition, options, &mut plan)?;
        }
    }
    Ok(plan)
}

fn plan_partition(source: &Arc<dyn Disk>, partition: Partition, options: &PlanOptions, plan: &mut Plan) -> Result<()> {
    let len = partition.range.end.saturating_sub(partition.range.start);
    let start = partition.range.start;
    let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(source), partition.range.clone())?);
    let mut kept = PartitionPlan {
        filesystem: String::new(),
        summary: None,
        used_blocks: false,
        reasons: Vec::new(),
        used: len,
        partition,
    };
    let signature = recognise(&slice)?;
    kept.filesystem = signature.map_or(String::new(), |signature| signature.name.to_owned());
    let container = signature.filter(|signature| signature.whole).map(|signature| signature.name);
    if let Some(name) = container.or(container_type(&kept.partition)) {
        if kept.filesystem.is_empty() {
            kept.filesystem = name.to_owned();
        }
        kept.reasons.push(format!("{name} is not looked into"));
        plan.partitions.push(kept);
        return Ok(());
    }
    let within = |range: &Range<u64>| range.start <= start && start.saturating_add(len) <= range.end;
    match look_into(&slice, options.flushed.iter().any(within)) {
        Ok(Some(Inside { summary, doubts, allocated, elidable })) => {
            kept.filesystem = summary.kind.to_owned();
            kept.summary = Some(summary);
            if doubts.is_empty() {
                if !options.keep_swap {
                    elide(plan, &kept.partition, elidable);
                }
                if options.all_blocks {
                    kept.reasons.push("all blocks were asked for".into());
                } else {
                    let free = RangeSet::from_range(0..len).minus(&allocated);
                    kept.used = len.saturating_sub(free.total());
                    kept.used_blocks = true;
                    plan.unwanted = plan.unwanted.union(&free.shifted(start));
                }
            }
            kept.reasons.extend(doubts);
        }
        Ok(None) if kept.filesystem.is_empty() => kept.reasons.push("no filesystem is recognised".into()),
        Ok(None) => kept.reasons.push(format!("used blocks of {} are not read", kept.filesystem)),
        // The medium or the metadata are damaged: what cannot be understood is kept whole.
        Err(error) => kept.reasons.push(full_message(&error)),
    }
    plan.partitions.push(kept);
    Ok(())
}

/// What a filesystem says of itself.
struct Inside {
    summary: Summary,
    doubts: Vec<String>,
    allocated: RangeSet,
    elidable: Vec<filesystem::Elidable>,
}

fn look_into(partition: &Arc<dyn Disk>, flushed: bool) -> Result<Option<Inside>> {
    let Some(filesystem) = filesystem::open(partition)? else { return Ok(None) };
    let summary = filesystem.summary();
    let mut doubts = if flushed { filesystem.doubts_of_a_flushed_copy()? } else { filesystem.doubts()? };
    if !doubts.is_empty() {
        return Ok(Some(Inside { summary, doubts, allocated: RangeSet::empty(), elidable: Vec::new() }));
    }
    let allocated = filesystem.allocated()?;
    let mut elidable = filesystem.elidable()?;
    doubts.extend(cross_check(&*filesystem, partition.len(), &allocated, &mut elidable)?);
    Ok(Some(Inside { summary, doubts, allocated, elidable }))
}

/// Holds the allocation map against the metadata: everything that they reach must be marked used. Also drops elidable files that share bytes with
/// anything else.
fn cross_check(
    filesystem: &dyn UsedBlocks,
    len: u64,
    allocated: &RangeSet,
    elidable: &mut Vec<filesystem::Elidable>,
) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut count = 0_u64;
    let mut overlap = vec![0_u64; elidable.len()];
    filesystem.walk(&mut |reached| {
        if reached.range.end > len {
            return Err(Error::corrupt(
                format_args!("{} {}", reached.owner_kind, reached.owner),
                reached.range.start,
                "it reaches past the end of the partition",
            ));
        }
        for (file, overlap) in elidable.iter().zip(&mut overlap) {
            let reached = RangeSet::from_range(reached.range.clone());
            let shared = reached.total().saturating_sub(reached.minus(&file.ranges).total());
            *overlap = overlap.saturating_add(shared);
        }
        if !allocated.contains(reached.range.clone()) {
            count = count.saturating_add(1);
            if violations.len() < LISTED {
                violations.push(format!(
                    "{} {} uses bytes {:#x} to {:#x}, which the allocation map calls free",
                    reached.owner_kind, reached.owner, reached.range.start, reached.range.end
                ));
            }
        }
        Ok(())
    })?;
    if count > 0 {
        violations
            .insert(0, format!("the allocation map cannot be trusted: {count} violations, the first of them listed"));
    }
    let mut overlap = overlap.into_iter();
    // Metadata that reach a file's bytes must be the file's own, once each; a swap area has no metadata that do.
    elidable.retain(|file| overlap.next().is_some_and(|overlap| overlap == 0 || overlap == file.ranges.total()));
    Ok(violations)
}

fn elide(plan: &mut Plan, partition: &Partition, files: Vec<filesystem::Elidable>) {
    for file in files {
        let ranges = file.ranges.shifted(partition.range.start).clipped(partition.range.end);
        plan.elided = plan.elided.union(&ranges);
        if let Some(warning) = &file.warning {
            plan.warnings.push(format!("partition {}: {}: {warning}", partition.number, file.path));
        }
        plan.elided_files.push(ElidedFile {
            partition: partition.number,
            path: file.path,
            ranges,
            warning: file.warning,
        });
    }
}

impl Plan {
    /// Drops everything that was decided for a partition by its filesystem: it is kept whole after all.
    pub fn keep_whole(&mut self, number: u32, reason: String) {
        let Some(kept) = self.partitions.iter_mut().find(|kept| kept.partition.number == number) else { return };
        let range = RangeSet::from_range(kept.partition.range.clone());
        self.unwanted = self.unwanted.minus(&range);
        self.elided = self.elided.minus(&range);
        self.elided_files.retain(|file| file.partition != number);
        kept.used_blocks = false;
        kept.used = range.total();
        kept.reasons.push(reason);
    }
}
