//! `hikae capture`: a disk becomes a generation of an image.

use std::path::PathBuf;
use std::sync::Arc;

use imgfmt::capture::plan::{Plan, PlanOptions, plan};
use imgfmt::capture::{CaptureOptions, CaptureSource, Captured, capture};
use imgfmt::image::codec::Compression;
use imgfmt::image::writer::{DEFAULT_PACK_SIZE, MIN_PACK_SIZE};
use imgfmt::image::{PackStore, WriterOptions};
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::{ImageName, folder_store};
use crate::source::{self, DiskOptions, Readable};
use crate::text::{parse_size, printable, short_size, size, table};
use crate::work::with_progress;

/// Adds a generation of a disk to an image, which is created if it is new.
///
/// Unallocated space is left out where the filesystem is known and its allocation map can be trusted; the content of page files and swap is
/// left out too, but the files stay. Everything else is kept, byte for byte.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The disk: a block device, a raw file, or a virtual disk file (qcow2, VHD, VHDX, VMDK, VDI). With --overlay also IMAGE[@GEN].
    source: PathBuf,
    /// The image, NAME.hik.
    image: PathBuf,
    /// Take the disk as it is with what was written to this overlay over it.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Show what would be kept, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Most bytes of a pack, such as 2G (FAT16 takes 2147483647).
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pack_size: Option<u64>,
    /// Chunk size of a new image: 4K to 4M, a power of two.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    chunk_size: Option<u64>,
    /// none, lz4, zstd or zstd:LEVEL.
    #[arg(long, default_value = "zstd")]
    compression: Compression,
    /// Keep unallocated space too.
    #[arg(long)]
    all_blocks: bool,
    /// Keep the content of page files and swap too.
    #[arg(long)]
    keep_swap: bool,
    /// Capture the disk although it is mounted for writing. On Windows its volumes are read from shadow copies, which hikae makes and removes;
    /// elsewhere it is read as it is, and the generation is marked.
    #[arg(long)]
    live: bool,
    /// It is the same disk although it looks different.
    #[arg(long)]
    same_disk: bool,
    /// Read only the sectors that the latest generation could not, and take everything else from it.
    #[arg(long)]
    retry_bad: bool,
    /// Write although the plan says that there may not be enough space.
    #[arg(long)]
    ignore_space: bool,
    /// Logical sector size of a raw file, where its partition table does not tell: 512 or 4096.
    #[arg(long, value_parser = parse_size, value_name = "BYTES")]
    sector_size: Option<u64>,
    /// A short name for the generation.
    #[arg(long)]
    label: Option<String>,
    /// A longer text to keep with it.
    #[arg(long)]
    note: Option<String>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disk: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let mut options = options(arguments)?;
    let sector_size = match arguments.sector_size {
        None => None,
        Some(512) => Some(512),
        Some(4096) => Some(4096),
        Some(other) => return Err(Failure::WrongUse(format!("--sector-size {other}: 512 and 4096 are possible"))),
    };
    let store: Arc<dyn PackStore> = Arc::new(folder_store(&arguments.image, &[])?);
    let (mut source, is_own_image) = match &arguments.overlay {
        None => {
            let opened = source::open(&arguments.source, None, sector_size, &arguments.disk)?;
            opened.tell_notes();
            (opened.source, false)
        }
        Some(overlay) => {
            let name = ImageName::parse(&arguments.source.to_string_lossy());
            // A generation and its image lie in one place by nature.
            let is_own_image = name.is_hikae();
            let any = AnyDisk::open(name, &[], &arguments.disk)?.with_overlay(overlay)?;
            let AnyDisk { disk, identity, physical_sector_size, .. } = any;
            (CaptureSource { disk, identity, physical_sector_size }, is_own_image)
        }
    };
    if arguments.dry_run {
        let plan = plan(&source.disk, &options.plan)?;
        show_plan(&source, &plan, arguments.json);
        return Ok(DONE);
    }
    let readable = if is_own_image {
        Readable::default()
    } else {
        source::guard_image_place(&arguments.source, &arguments.image)?;
        source::guard_live(&arguments.source, arguments.live)?
    };
    readable.prepare(&mut source)?;
    options.warnings = readable.warnings();
    options.plan.flushed = readable.flushed();
    if !arguments.ignore_space {
        guard_space(&source, &*store, &options.plan)?;
    }
    let captured = with_progress(arguments.threads, |run| Ok(capture(&source, Arc::clone(&store), &options, run)?));
    let captured = captured.map_err(|failure| {
        failure.if_stopped(|| "nothing of this run is visible, and a new capture reuses what was written".into())
    })?;
    readable.finish();
    report(arguments, &*store, &captured);
    Ok(if captured.bad.is_empty() { DONE } else { FOUND })
}

fn options(arguments: &Arguments) -> Result<CaptureOptions, Failure> {
    let chunk_log2 = match arguments.chunk_size {
        None => None,
        Some(size) if size.is_power_of_two() && (4 << 10..=4 << 20).contains(&size) => {
            u8::try_from(size.trailing_zeros()).ok()
        }
        Some(size) => {
            return Err(Failure::WrongUse(format!("--chunk-size {size}: powers of two from 4K to 4M are possible")));
        }
    };
    if let Some(size) = arguments.pack_size.filter(|size| *size < MIN_PACK_SIZE) {
        return Err(Failure::WrongUse(format!(
            "--pack-size {size}: a pack needs at least {}",
            short_size(MIN_PACK_SIZE)
        )));
    }
    Ok(CaptureOptions {
        plan: PlanOptions { all_blocks: arguments.all_blocks, keep_swap: arguments.keep_swap, flushed: Vec::new() },
        writer: WriterOptions {
            chunk_log2,
            pack_size: arguments.pack_size.unwrap_or(DEFAULT_PACK_SIZE),
            compression: arguments.compression,
        },
        same_disk: arguments.same_disk,
        retry_bad: arguments.retry_bad,
        label: arguments.label.clone(),
        note: arguments.note.clone(),
        ..CaptureOptions::default()
    })
}

/// Refuses a first capture that would not fit even when it is compressed well. Later ones store only what changed, which nobody knows before.
fn guard_space(source: &CaptureSource, store: &dyn PackStore, options: &PlanOptions) -> Result<(), Failure> {
    if !store.list()?.is_empty() {
        return Ok(());
    }
    let Some(free) = store.free_space() else { return Ok(()) };
    let plan = plan(&source.disk, options)?;
    let estimate = imgfmt::capture::estimate::estimate(&source.disk, &plan)?;
    if estimate <= free {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "{} would need about {}, and there are {} free beside {}; choose another place, or --ignore-space (older generations cannot be removed yet: pruning does not exist)",
        source.identity.path,
        short_size(estimate),
        short_size(free),
        store.name(0)
    )))
}

fn show_plan(source: &CaptureSource, plan: &Plan, json: bool) {
    if json {
        let partitions: Vec<_> = plan
            .partitions
            .iter()
            .map(|kept| {
                json!({
                    "number": kept.partition.number,
                    "start": kept.partition.range.start,
                    "len": kept.partition.range.end.saturating_sub(kept.partition.range.start),
                    "filesystem": kept.filesystem,
                    "captured": if kept.used_blocks { "used blocks" } else { "whole" },
                    "used": kept.used,
                    "reasons": kept.reasons,
                })
            })
            .collect();
        let elided: Vec<_> = plan
            .elided_files
            .iter()
            .map(|file| json!({"partition": file.partition, "path": file.path, "bytes": file.ranges.total()}))
            .collect();
        let plan = json!({
            "disk": {"len": source.disk.len(), "logical_sector_size": source.disk.sector_size()},
            "scheme": plan.layout.scheme.name(),
            "id": plan.layout.disk_id,
            "problems": plan.layout.problems,
            "partitions": partitions,
            "elided": elided,
            "unwanted": plan.unwanted.total(),
            "warnings": plan.warnings,
        });
        println!("{plan:#}");
        return;
    }
    println!("{}: {}, {}-byte sectors", source.identity.path, size(source.disk.len()), source.disk.sector_size());
    println!("partition table: {} {}", plan.layout.scheme.name(), plan.layout.disk_id);
    for problem in &plan.layout.problems {
        println!("  problem: {}", printable(problem));
    }
    let mut rows = vec![["partition", "start", "size", "content", "kept", "bytes kept"].map(str::to_owned).to_vec()];
    for kept in &plan.partitions {
        rows.push(vec![
            kept.partition.number.to_string(),
            kept.partition.range.start.to_string(),
            short_size(kept.partition.range.end.saturating_sub(kept.partition.range.start)),
            printable(&kept.filesystem),
            if kept.used_blocks { "used blocks".into() } else { "whole".into() },
            short_size(kept.used),
        ]);
    }
    print!("{}", table(&rows, &[1, 2, 5]));
    for kept in &plan.partitions {
        for reason in &kept.reasons {
            println!("partition {}: {}", kept.partition.number, printable(reason));
        }
    }
    for file in &plan.elided_files {
        let bytes = size(file.ranges.total());
        println!("partition {}: content of {} left out: {bytes}", file.partition, printable(&file.path));
    }
    for warning in &plan.warnings {
        println!("warning: {}", printable(warning));
    }
}

fn report(arguments: &Arguments, store: &dyn PackStore, captured: &Captured) {
    let record = &captured.record;
    if arguments.json {
        let report = json!({
            "image": arguments.image.display().to_string(),
            "record": record,
            "salvaged": {"packs": captured.salvage.packs, "frames": captured.salvage.frames, "bytes": captured.salvage.bytes},
            "warnings": captured.image_warnings,
            "timings": {
                "plan": captured.timings.plan.as_secs_f64(),
                "open": captured.timings.open.as_secs_f64(),
                "store": captured.timings.store.as_secs_f64(),
                "check": captured.timings.check.as_secs_f64(),
                "commit": captured.timings.commit.as_secs_f64(),
                "sync": captured.timings.sync.as_secs_f64(),
            },
        });
        println!("{report:#}");
        return;
    }
    for warning in captured.image_warnings.iter().chain(&record.warnings) {
        eprintln!("hikae: warning: {}", printable(warning));
    }
    let salvage = &captured.salvage;
    if !salvage.packs.is_empty() {
        eprintln!(
            "an interrupted capture had left {} in {}: its chunks were reused where they still fit",
            short_size(salvage.bytes),
            salvage.packs.join(", ")
        );
    }
    let counts = &record.counts;
    println!(
        "generation {} of {}: {} of data, {} stored ({} chunks new, {} as differences, {} reused)",
        record.generation,
        store.name(0),
        short_size(counts.data),
        size(counts.stored),
        counts.chunks_new,
        counts.chunks_difference,
        counts.chunks_reused
    );
    for kept in &record.partitions {
        println!(
            "partition {}: {}, {} kept, {}, closure {}",
            kept.number,
            if kept.filesystem.is_empty() { "unknown content" } else { kept.filesystem.as_str() },
            short_size(kept.used),
            kept.captured,
            printable(&kept.closure)
        );
        for reason in &kept.reasons {
            println!("  {}", printable(reason));
        }
    }
    for file in &record.elided {
        println!("partition {}: content of {} left out ({})", file.partition, printable(&file.path), size(file.bytes));
    }
    for (start, len) in &record.bad {
        println!("unreadable: bytes {start:#x} to {:#x} ({})", start.saturating_add(*len), size(*len));
    }
}
