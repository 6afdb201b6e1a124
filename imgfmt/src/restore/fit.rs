//! A disk made to fit a target of another length: its tables are changed, its filesystems never.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, ExtentKind, Slice, read_vec};
use crate::error::{Error, Result};
use crate::filesystem;
use crate::partition::edit::{self, Gpt};
use crate::partition::{Layout, Partition, Scheme, signature};
use crate::restore::wanted::Wanted;

/// Partitions end at multiples of this where they grow.
const GROW_ALIGN: u64 = 1 << 20;

/// How a disk is fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct FitOptions {
    /// Let the last partition grow to the end of a bigger target.
    pub grow: bool,
    /// Logical sector size of the target; `None` for a file, which takes the source's.
    pub sector_size: Option<u32>,
}

/// A disk that fits.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// What the target shall hold.
    pub wanted: Wanted,
    /// What was changed, and what is left to the user, in sentences.
    pub notes: Vec<String>,
}

/// Fits `source` to a target of `target_len` bytes, or refuses with what is missing.
pub fn fit(source: &Arc<dyn Disk>, layout: &Layout, target_len: u64, options: FitOptions) -> Result<Fitted> {
    check_sectors(source, layout, options.sector_size)?;
    let mut fitted = Fitted { wanted: Wanted::new(Arc::clone(source), target_len), notes: Vec::new() };
    let gpt = match layout.scheme {
        Scheme::Gpt | Scheme::HybridGpt => Gpt::read(source)?,
        Scheme::None | Scheme::Mbr => None,
    };
    if target_len == source.len() {
        if options.grow {
            fitted.notes.push("the target is not bigger than the source: nothing grows".into());
        }
        return Ok(fitted);
    }
    let places = gpt.as_ref().map_or(Vec::new(), |gpt| gpt.places().to_vec());
    let end = match &gpt {
        Some(gpt) => gpt.usable_end(target_len).unwrap_or(0),
        None => target_len,
    };
    let mut ends: Vec<(u32, u64)> = Vec::new();
    if target_len < source.len() {
        let dropped = check_used(source, layout, &places, end, target_len)?;
        if dropped > 0 {
            fitted.notes.push(format!(
                "{dropped} bytes outside of partitions, behind the end of the target, are not restored: they belong to nothing that is known"
            ));
        }
        ends = shortened(source, layout, end)?;
        for (number, _) in &ends {
            fitted.notes.push(format!(
                "partition {number} ends earlier, at the end of the target: its filesystem ends before that"
            ));
        }
    } else if options.grow {
        ends.extend(grown(source, layout, end, &mut fitted.notes)?);
    }
    match gpt {
        Some(gpt) => fit_gpt(source, gpt, &places, &ends, &mut fitted)?,
        None if layout.scheme == Scheme::Mbr => fit_mbr(source, layout, &ends, end, &mut fitted)?,
        None => {}
    }
    Ok(fitted)
}

fn fit_gpt(
    source: &Arc<dyn Disk>,
    mut gpt: Gpt,
    places: &[Range<u64>],
    ends: &[(u32, u64)],
    fitted: &mut Fitted,
) -> Result<()> {
    for (number, end) in ends {
        gpt.set_end(*number, *end)?;
    }
    let target_len = fitted.wanted.len();
    // The old backup would be a second, wrong one.
    for place in places.iter().filter(|place| place.start > 0) {
        fitted.wanted.zero(place.start, place.end.saturating_sub(place.start));
    }
    for patch in gpt.render(target_len)? {
        fitted.wanted.patch(patch.offset, &patch.bytes);
    }
    let first = read_vec(source, 0, 512)?;
    let sector = u64::from(source.sector_size());
    if let Some(bytes) = edit::protective_mbr(&first, source.len(), target_len, sector) {
        fitted.wanted.patch(0, &bytes);
    }
    fitted.notes.push("the backup GPT lies at the end of the target, and both copies were made for its size".into());
    Ok(())
}

fn fit_mbr(source: &Arc<dyn Disk>, layout: &Layout, ends: &[(u32, u64)], end: u64, fitted: &mut Fitted) -> Result<()> {
    for (number, end) in ends {
        for patch in edit::set_mbr_end(&fitted.wanted.clone(), layout, *number, *end)? {
            fitted.wanted.patch(patch.offset, &patch.bytes);
        }
    }
    let first = read_vec(&fitted.wanted, 0, 512)?;
    if let Some(bytes) = edit::clip_extended(&first, end, u64::from(source.sector_size())) {
        fitted.wanted.patch(0, &bytes);
        fitted.notes.push("the extended partition ends earlier, at the end of the target".into());
    }
    Ok(())
}

/// Tables and the boot sectors of some filesystems count in sectors: a disk of the one kind is none of the other.
fn check_sectors(source: &Arc<dyn Disk>, layout: &Layout, target: Option<u32>) -> Result<()> {
    let (have, Some(target)) = (source.sector_size(), target) else { return Ok(()) };
    if have == target {
        return Ok(());
    }
    let mut reasons = Vec::new();
    if layout.scheme != Scheme::None {
        reasons.push(format!("its partition table ({}) counts in sectors", layout.scheme.name()));
    }
    for partition in usable(layout) {
        let slice = Slice::open(Arc::clone(source), partition.range.clone())?;
        if let Some(found) = signature::recognise(&slice)?
            && ["NTFS", "FAT32", "FAT16", "FAT12", "exFAT"].contains(&found.name)
        {
            reasons.push(format!("{} in partition {} does too", found.name, partition.number));
        }
    }
    let reasons =
        if reasons.is_empty() { "what lies on it may count in sectors".into() } else { reasons.join(", and ") };
    Err(Error::Refused(format!(
        "the disk was captured with sectors of {have} bytes, and the target has sectors of {target}: {reasons}; restore to a target with sectors of {have} bytes, or single files with hikae cp"
    )))
}

fn usable(layout: &Layout) -> impl Iterator<Item = &Partition> {
    layout.partitions.iter().filter(|partition| partition.unusable.is_none())
}

/// Refuses where something that is used lies behind `end`. Returns how many bytes lie there that belong to nothing.
fn check_used(
    source: &Arc<dyn Disk>,
    layout: &Layout,
    places: &[Range<u64>],
    end: u64,
    target_len: u64,
) -> Result<u64> {
    let used = last_used(source, layout, places, end)?;
    let Some(used_end) = used.end else { return Ok(used.stray) };
    let overhead = target_len.saturating_sub(end);
    let lacking = used_end.saturating_add(overhead).saturating_sub(target_len);
    let last = used_end.saturating_sub(1);
    let owner = layout.partitions.iter().find(|partition| partition.range.contains(&last));
    let owner = owner.map_or("outside of every partition".into(), |owner| format!("in partition {}", owner.number));
    Err(Error::Refused(format!(
        "the target has {target_len} bytes, {lacking} too few: the last used block of the source ends at byte {used_end}, {owner}"
    )))
}

/// What lies behind a place.
#[derive(Default)]
struct Behind {
    /// The end of what is used.
    end: Option<u64>,
    /// Bytes of data that belong to nothing that is known.
    stray: u64,
}

/// Where filesystems lie on the disk: of what is not known, the whole partition.
fn filesystem_ranges(source: &Arc<dyn Disk>, layout: &Layout) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    for partition in usable(layout) {
        let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(source), partition.range.clone())?);
        let len = filesystem::open(&slice).ok().flatten().map_or(slice.len(), |filesystem| filesystem.summary().len);
        ranges.push(partition.range.start..partition.range.start.saturating_add(len.min(slice.len())));
    }
    Ok(ranges)
}

/// What is used behind byte `from`: data and unreadable ranges of partitions, and zeros inside of filesystems. The GPT does not count, and neither does
/// what lies between partitions, unless something is known to keep its data there.
fn last_used(source: &Arc<dyn Disk>, layout: &Layout, places: &[Range<u64>], from: u64) -> Result<Behind> {
    let filesystems = filesystem_ranges(source, layout)?;
    let everywhere = layout.scheme == Scheme::None
        || signature::recognise(source)?.is_some_and(|found| found.whole)
        || layout.partitions.iter().any(|partition| signature::container_type(partition).is_some());
    let borders: Vec<u64> = layout
        .partitions
        .iter()
        .flat_map(|partition| [partition.range.start, partition.range.end])
        .chain(places.iter().flat_map(|place| [place.start, place.end]))
        .collect();
    let mut behind = Behind::default();
    let mut at = from;
    while at < source.len() {
        if let Some(place) = places.iter().find(|place| place.contains(&at)) {
            at = place.end;
            continue;
        }
        let extent = source.extent_at(at)?;
        let border = borders.iter().copied().filter(|border| *border > at).min().unwrap_or(u64::MAX);
        let end = extent.end().min(border).max(at.saturating_add(1));
        let owned = everywhere || layout.partitions.iter().any(|partition| partition.range.contains(&at));
        match extent.kind {
            ExtentKind::Data | ExtentKind::Bad if owned => behind.end = Some(end),
            ExtentKind::Data | ExtentKind::Bad => {
                behind.stray = behind.stray.saturating_add(end.saturating_sub(at));
            }
            // A page file that was left out is zero, and the filesystem needs its place.
            ExtentKind::Zero if filesystems.iter().any(|range| range.start < end && at < range.end) => {
                behind.end = Some(end);
            }
            ExtentKind::Zero | ExtentKind::Absent => {}
        }
        at = end;
    }
    Ok(behind)
}

/// Partitions that reach past `end`, with the end that they get. Nothing that is used lies there.
fn shortened(source: &Arc<dyn Disk>, layout: &Layout, end: u64) -> Result<Vec<(u32, u64)>> {
    let mut ends = Vec::new();
    for partition in layout.partitions.iter().filter(|partition| partition.range.end > end) {
        let number = partition.number;
        if partition.range.start >= end {
            return Err(Error::Refused(format!(
                "partition {number} begins behind the end of the target: remove it at the source, or choose a bigger target"
            )));
        }
        let slice: Arc<dyn Disk> =
            Arc::new(Slice::open(Arc::clone(source), partition.range.start..partition.range.end.min(source.len()))?);
        let room = end.saturating_sub(partition.range.start);
        let summary = filesystem::open(&slice).ok().flatten().map(|filesystem| filesystem.summary());
        match summary {
            Some(summary) if summary.len <= room => ends.push((number, end)),
            Some(summary) => {
                let (kind, lacking) = (summary.kind, summary.len.saturating_sub(room));
                return Err(Error::Refused(format!(
                    "everything that is used would fit, but {kind} in partition {number} itself reaches {lacking} bytes past the end of the target: shrink it at the source first ({})",
                    shrinker(kind)
                )));
            }
            None => {
                return Err(Error::Refused(format!(
                    "partition {number} reaches past the end of the target, and what it holds is not known: it cannot be shortened"
                )));
            }
        }
    }
    Ok(ends)
}

/// The last partition, with the end that it gets on a bigger target.
fn grown(source: &Arc<dyn Disk>, layout: &Layout, end: u64, notes: &mut Vec<String>) -> Result<Option<(u32, u64)>> {
    let Some(last) = layout.partitions.iter().max_by_key(|partition| partition.range.end) else {
        notes.push("there is no partition that could grow".into());
        return Ok(None);
    };
    let number = last.number;
    if let Some(reason) = last.unusable {
        notes.push(format!("partition {number} does not grow: it {reason}"));
        return Ok(None);
    }
    let mut new_end = (end / GROW_ALIGN).saturating_mul(GROW_ALIGN);
    if layout.scheme == Scheme::Mbr {
        // An entry counts 2^32 - 1 sectors, and an extended partition around it starts earlier.
        let most = u64::from(u32::MAX).saturating_mul(u64::from(source.sector_size()));
        let start = if number > 4 { 0 } else { last.range.start };
        let limit = start.saturating_add(most);
        if new_end > limit {
            notes.push("an MBR ends at 2^32 sectors: what lies behind stays unused".into());
            new_end = (limit / GROW_ALIGN).saturating_mul(GROW_ALIGN);
        }
    }
    if layout.scheme == Scheme::None || new_end <= last.range.end {
        notes.push(format!("partition {number} has no room to grow"));
        return Ok(None);
    }
    let slice = Slice::open(Arc::clone(source), last.range.clone())?;
    let kind = signature::recognise(&slice)?.map_or("", |found| found.name);
    notes.push(format!(
        "partition {number} grows by {} bytes; what lies in it does not: {}",
        new_end.saturating_sub(last.range.end),
        grower(kind)
    ));
    Ok(Some((number, new_end)))
}

/// What makes a filesystem bigger.
fn grower(kind: &str) -> &'static str {
    match kind {
        "NTFS" => "use \"Extend Volume\" in Windows, or ntfsresize",
        "ext2, ext3 or ext4" => "use resize2fs",
        "XFS" => "use xfs_growfs on the mounted filesystem",
        "btrfs" => "use btrfs filesystem resize max on the mounted filesystem",
        "FAT32" | "FAT16" | "FAT12" => "use fatresize",
        "LVM2 physical volume" => "use pvresize",
        "LUKS" => "use cryptsetup resize, then the tool of the filesystem inside",
        "Linux swap" | "Linux swap (hibernated)" => "use mkswap with the same UUID",
        _ => "use the tool of its filesystem",
    }
}

/// What makes a filesystem smaller.
fn shrinker(kind: &str) -> &'static str {
    match kind {
        "NTFS" => "\"Shrink Volume\" in Windows, or ntfsresize",
        "ext2" | "ext3" | "ext4" => "resize2fs",
        "FAT12" | "FAT16" | "FAT32" => "fatresize",
        _ => "with the tool of the filesystem",
    }
}

/// A partition fitted into another one of `len` bytes that starts at byte `start` of its disk.
pub fn fit_partition(
    source: &Arc<dyn Disk>,
    partition: &Partition,
    start: u64,
    len: u64,
    sector_size: Option<u32>,
) -> Result<Fitted> {
    let number = partition.number;
    if let Some(reason) = partition.unusable {
        return Err(Error::Refused(format!("partition {number} of the source {reason}")));
    }
    let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(source), partition.range.clone())?);
    let whole = Layout {
        scheme: Scheme::None,
        disk_id: String::new(),
        partitions: vec![Partition { range: 0..slice.len(), ..partition.clone() }],
        problems: Vec::new(),
        structures: Vec::new(),
    };
    check_sectors(&slice, &whole, sector_size)?;
    if len < slice.len() {
        check_used(&slice, &whole, &[], len, len)?;
        shortened(&slice, &whole, len)?;
    }
    let mut fitted = Fitted { wanted: Wanted::new(Arc::clone(&slice), len), notes: Vec::new() };
    if start != partition.range.start {
        let patches = edit::moved_boot_sectors(&fitted.wanted, start)?;
        if !patches.is_empty() {
            fitted.notes.push(format!("its boot sectors say now that the partition starts at byte {start}"));
        }
        for patch in patches {
            fitted.wanted.patch(patch.offset, &patch.bytes);
        }
    }
    if len > slice.len() {
        let kind = signature::recognise(&slice)?.map_or("", |found| found.name);
        fitted.notes.push(format!(
            "the partition of the target is {} bytes bigger than what lies in it: {}",
            len.saturating_sub(slice.len()),
            grower(kind)
        ));
    }
    Ok(fitted)
}
