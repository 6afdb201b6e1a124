//! `hikae verify`: reads and proves everything.

use std::path::PathBuf;

use imgfmt::verify::{damage_by_partition, verify};
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::text::{printable, short_size, size};
use crate::work::with_progress;

/// Reads and proves every byte of an image. Damage is named by pack, by generation and by partition.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, NAME.hik.
    image: String,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let image = ImageName::parse(&arguments.image).open_whole(&arguments.packs)?;
    let report = with_progress(arguments.threads, |run| Ok(verify(&image, run)?))?;
    let code = if report.is_clean() { DONE } else { FOUND };
    if arguments.json {
        let generations: Vec<_> = report
            .generations
            .iter()
            .map(|verdict| {
                let damaged: Vec<_> = verdict.damaged.iter().map(|range| (range.start, range.end.saturating_sub(range.start))).collect();
                json!({"generation": verdict.number, "whole": verdict.is_whole(), "damaged": damaged, "error": verdict.error})
            })
            .collect();
        let damage: Vec<_> = report
            .damage
            .iter()
            .map(|damage| json!({"pack": damage.pack, "offset": damage.offset, "reason": damage.reason}))
            .collect();
        let all = json!({
            "clean": report.is_clean(),
            "bytes": report.bytes,
            "frames": report.frames,
            "damage": damage,
            "warnings": report.warnings,
            "generations": generations,
        });
        println!("{all:#}");
        return Ok(code);
    }
    for damage in &report.damage {
        println!("{} at byte {:#x}: {}", damage.pack, damage.offset, printable(&damage.reason));
    }
    for verdict in &report.generations {
        if verdict.is_whole() {
            continue;
        }
        if let Some(error) = &verdict.error {
            println!("generation {} cannot be read: {}", verdict.number, printable(error));
        }
        let Some(record) = &verdict.record else { continue };
        for (number, bytes) in damage_by_partition(record, &verdict.damaged) {
            let place = if number == 0 { "outside of partitions".to_owned() } else { format!("in partition {number}") };
            println!("generation {}: {} {place} cannot be read", verdict.number, size(bytes));
        }
        for range in verdict.damaged.iter().take(10) {
            println!("  bytes {:#x} to {:#x}", range.start, range.end);
        }
        if verdict.damaged.len() > 10 {
            println!("  and {} more runs", verdict.damaged.len().saturating_sub(10));
        }
    }
    let whole = report.generations.iter().filter(|verdict| verdict.is_whole()).count();
    println!(
        "{} of {} generations are whole; {} in {} objects read",
        whole,
        report.generations.len(),
        short_size(report.bytes),
        report.frames
    );
    Ok(code)
}
