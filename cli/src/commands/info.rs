//! `hikae info`: everything about a generation, a virtual disk file, a raw disk or a device.

use std::path::PathBuf;
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::format::{About, Format};
use imgfmt::image::Generation;
use imgfmt::image::record::Record;
use imgfmt::view::Offer;
use imgfmt::view::table::offers_of_disk;
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::boot_chain;
use crate::exit::{DONE, Failure};
use crate::image_name::ImageName;
use crate::source::{self, DiskOptions};
use crate::text::{printable, short_size, size, table};

/// Shows everything about a generation of an image, a virtual disk file, a raw disk or a device: tables, filesystems, sizes, identity.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The disk: an image and a generation of it, a virtual disk file and a snapshot in it, a raw file or a device.
    #[arg(value_name = "IMAGE[@GEN]")]
    disk: String,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Show how the disk starts: from a BIOS and from UEFI to the loader, its configuration and the system, what is missing on the way, and everything that names
    /// a disk, partition or filesystem. The exit code is 1 where a chain is broken.
    #[arg(long)]
    boot: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let name = ImageName::parse(&arguments.disk);
    if arguments.boot {
        let any = AnyDisk::open(name, &arguments.packs, &arguments.options)?;
        return boot_chain::show(&any.disk, &any.from, arguments.json);
    }
    if name.is_hikae() {
        let generation = Arc::new(name.open_generation(&arguments.packs)?);
        let image = generation.image();
        let disk: Arc<dyn Disk> = Arc::<Generation>::clone(&generation);
        let views = offers_of_disk(&disk, &generation.record().identity());
        if arguments.json {
            let packs: Vec<_> = image
                .catalogue()
                .packs
                .iter()
                .map(|pack| json!({"name": image.store().name(pack.number), "len": pack.file_len}))
                .collect();
            let info = json!({"record": generation.record(), "packs": packs, "warnings": image.warnings(),
                "views": views_json(&views)});
            println!("{info:#}");
        } else {
            let len: u64 = image.catalogue().packs.iter().map(|pack| pack.file_len).sum();
            println!(
                "image {}: {} generations, {} packs, {}, chunks of {}",
                generation.record().image,
                image.generations().len(),
                image.catalogue().packs.len(),
                size(len),
                short_size(image.chunk_size().into())
            );
            show_record(generation.record());
            show_views(&views);
        }
        return Ok(DONE);
    }
    show_source(&name, arguments)
}

fn show_source(name: &ImageName, arguments: &Arguments) -> Result<u8, Failure> {
    let opened = source::open(&name.path, name.generation.as_deref(), None, &arguments.options)?;
    let source = &opened.source;
    let plan = plan(&source.disk, &PlanOptions::default())?;
    let views = offers_of_disk(&source.disk, &name.identity_of_file());
    if arguments.json {
        let partitions: Vec<_> = plan
            .partitions
            .iter()
            .map(|kept| {
                let summary = kept.summary.clone().unwrap_or_default();
                json!({
                    "number": kept.partition.number,
                    "start": kept.partition.range.start,
                    "len": kept.partition.range.end.saturating_sub(kept.partition.range.start),
                    "type": kept.partition.type_code,
                    "type_name": kept.partition.type_name,
                    "name": kept.partition.name,
                    "id": kept.partition.id,
                    "active": kept.partition.active,
                    "filesystem": kept.filesystem,
                    "label": summary.label,
                    "filesystem_id": summary.id,
                    "used": kept.used,
                    "reasons": kept.reasons,
                })
            })
            .collect();
        let info = json!({
            "path": source.identity.path,
            "kind": source.identity.kind,
            "model": source.identity.model,
            "serial": source.identity.serial,
            "len": source.disk.len(),
            "logical_sector_size": source.disk.sector_size(),
            "physical_sector_size": source.physical_sector_size,
            "scheme": plan.layout.scheme.name(),
            "id": plan.layout.disk_id,
            "problems": plan.layout.problems,
            "partitions": partitions,
            "views": views_json(&views),
            "format": opened.about.format.name(),
            "files": opened.about.chain().map(layer_json).collect::<Vec<_>>(),
            "snapshots": opened.snapshots.iter().map(|snapshot| json!({
                "id": snapshot.id, "name": snapshot.name, "created": snapshot.created, "len": snapshot.len,
            })).collect::<Vec<_>>(),
        });
        println!("{info:#}");
        return Ok(DONE);
    }
    println!("{} ({}): {}", source.identity.path, source.identity.kind, size(source.disk.len()));
    show_files(&opened);
    println!("sectors: {} logical, {} physical", source.disk.sector_size(), source.physical_sector_size);
    for (what, value) in [("model", &source.identity.model), ("serial", &source.identity.serial)] {
        if let Some(value) = value {
            println!("{what}: {}", printable(value));
        }
    }
    println!("partition table: {} {}", plan.layout.scheme.name(), plan.layout.disk_id);
    for problem in &plan.layout.problems {
        println!("  problem: {}", printable(problem));
    }
    let mut rows = vec![
        ["partition", "start", "size", "type", "active", "content", "label", "id", "used"].map(str::to_owned).to_vec(),
    ];
    for kept in &plan.partitions {
        let summary = kept.summary.clone().unwrap_or_default();
        rows.push(vec![
            kept.partition.number.to_string(),
            kept.partition.range.start.to_string(),
            short_size(kept.partition.range.end.saturating_sub(kept.partition.range.start)),
            if kept.partition.type_name.is_empty() {
                kept.partition.type_code.clone()
            } else {
                kept.partition.type_name.into()
            },
            if kept.partition.active { "yes".into() } else { String::new() },
            printable(&kept.filesystem),
            printable(&summary.label),
            summary.id,
            short_size(kept.used),
        ]);
    }
    print!("{}", table(&rows, &[1, 2, 8]));
    for kept in &plan.partitions {
        for reason in &kept.reasons {
            println!("partition {}: {}", kept.partition.number, printable(reason));
        }
    }
    show_views(&views);
    Ok(DONE)
}

/// As which virtual disk files a mount shows the disk, and why not as others.
fn show_views(views: &[Offer]) {
    let there: Vec<_> = views.iter().filter(|offer| offer.view.is_ok()).map(|offer| offer.name.as_str()).collect();
    println!("in a mount: {}", there.join(" "));
    for offer in views {
        if let Err(reason) = &offer.view {
            println!("  no {}: {reason}", offer.name);
        }
    }
}

fn views_json(views: &[Offer]) -> Vec<serde_json::Value> {
    let json = |offer: &Offer| match &offer.view {
        Ok(view) => json!({"name": offer.name, "format": offer.format.name(), "len": view.len()}),
        Err(reason) => json!({"name": offer.name, "format": offer.format.name(), "reason": reason}),
    };
    views.iter().map(json).collect()
}

fn layer_json(about: &About) -> serde_json::Value {
    let path = |path: &PathBuf| path.display().to_string();
    json!({
        "file": path(&about.file),
        "more_files": about.more_files.iter().map(path).collect::<Vec<_>>(),
        "format": about.format.name(),
        "variant": about.variant,
        "identity": about.identity,
        "notes": about.notes,
    })
}

/// What the files of a disk are, from the top down, and which snapshots are in them.
fn show_files(opened: &source::Opened) {
    for (depth, about) in opened.about.chain().enumerate() {
        if depth > 0 {
            println!("over {}", printable(&about.file.display().to_string()));
        }
        if about.format != Format::Raw || !about.variant.is_empty() {
            let variant = if about.variant.is_empty() { String::new() } else { format!(": {}", about.variant) };
            println!("format: {}{}", about.format, printable(&variant));
        }
        for file in &about.more_files {
            println!("  with {}", printable(&file.display().to_string()));
        }
        for note in &about.notes {
            println!("  note: {}", printable(note));
        }
    }
    for snapshot in &opened.snapshots {
        println!("snapshot {}: {}, {}", printable(&snapshot.id), printable(&snapshot.name), size(snapshot.len));
    }
}

fn show_record(record: &Record) {
    println!("generation {} ({}), {}", record.generation, record.folder_name(), printable(&record.tool));
    for (what, text) in [("label", &record.label), ("note", &record.note)] {
        if let Some(text) = text {
            println!("{what}: {}", printable(text));
        }
    }
    println!(
        "source: {} ({}){}{}{}",
        printable(&record.source.path),
        printable(&record.source.kind),
        record.source.model.as_ref().map_or(String::new(), |model| format!(", {}", printable(model))),
        record.source.serial.as_ref().map_or(String::new(), |serial| format!(", serial {}", printable(serial))),
        if record.source.live { ", captured while it was in use" } else { "" }
    );
    if !record.source.shadow_copies.is_empty() {
        println!("read from shadow copies, all of one moment: {}", printable(&record.source.shadow_copies.join(", ")));
    }
    println!(
        "disk: {}, sectors: {} logical, {} physical",
        size(record.disk.len),
        record.disk.logical_sector_size,
        record.disk.physical_sector_size
    );
    println!("partition table: {} {}", printable(&record.layout.scheme), printable(&record.layout.id));
    for problem in &record.layout.problems {
        println!("  problem: {}", printable(problem));
    }
    let mut rows = vec![
        ["partition", "start", "size", "type", "active", "content", "label", "kept", "bytes", "closure"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for partition in &record.layout.partitions {
        let kept = record.partitions.iter().find(|kept| kept.number == partition.number).cloned().unwrap_or_default();
        rows.push(vec![
            partition.number.to_string(),
            partition.start.to_string(),
            short_size(partition.len),
            printable(if partition.type_name.is_empty() { &partition.type_code } else { &partition.type_name }),
            if partition.active { "yes".into() } else { String::new() },
            printable(&kept.filesystem),
            printable(&kept.label),
            printable(&kept.captured),
            short_size(kept.used),
            printable(&kept.closure),
        ]);
    }
    print!("{}", table(&rows, &[1, 2, 8]));
    for kept in &record.partitions {
        for reason in &kept.reasons {
            println!("partition {}: {}", kept.number, printable(reason));
        }
    }
    for file in &record.elided {
        println!("partition {}: content of {} left out ({})", file.partition, printable(&file.path), size(file.bytes));
    }
    for structure in &record.structures {
        let digest: String = printable(&structure.blake3).chars().take(16).collect();
        println!(
            "{}: byte {}, {} bytes, blake3 {digest}...",
            printable(&structure.what),
            structure.start,
            structure.len
        );
    }
    for (start, len) in &record.bad {
        println!("unreadable: bytes {start:#x} to {:#x} ({})", start.saturating_add(*len), size(*len));
    }
    let counts = &record.counts;
    println!(
        "data {}, zero {}, absent {}, unreadable {}",
        size(counts.data),
        size(counts.zero),
        size(counts.absent),
        size(counts.bad)
    );
    println!(
        "this capture stored {} ({} chunks new, {} as differences, {} reused), {}{}",
        size(counts.stored),
        counts.chunks_new,
        counts.chunks_difference,
        counts.chunks_reused,
        printable(&record.options.compression),
        if record.options.decode_verified { ", each decoded and hashed again" } else { "" }
    );
    for warning in &record.warnings {
        println!("warning: {}", printable(warning));
    }
}
