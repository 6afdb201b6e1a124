//! `hikae export`: a generation as a raw disk file.

use std::path::PathBuf;

use imgfmt::Disk;
use imgfmt::target::device::{TargetKind, kind_of};
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::commands::with_progress;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::source::DiskOptions;
use crate::text::{short_size, size};

/// Writes a generation as a sparse raw disk file.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, and the generation: a number, latest (the default), ~1, a date or an age. Or a virtual disk file, raw file or device.
    #[arg(value_name = "IMAGE[@GEN]", add = crate::complete::generations())]
    image: String,
    /// The new file; its name ends in .raw, .img or .dd.
    out: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    overwrite: bool,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disk: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let extension = arguments.out.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    if !matches!(extension, "raw" | "img" | "dd") {
        let out = arguments.out.display();
        return Err(Failure::WrongUse(format!("{out}: raw files are written so far; name it .raw, .img or .dd")));
    }
    match kind_of(&arguments.out)? {
        TargetKind::New => {}
        TargetKind::File if arguments.overwrite => {}
        TargetKind::File => {
            let out = arguments.out.display();
            return Err(Failure::Refused(format!("{out} exists: say --overwrite to replace it")));
        }
        _ => {
            let out = arguments.out.display();
            return Err(Failure::Refused(format!("{out} is no regular file: hikae restore writes to devices")));
        }
    }
    let from = AnyDisk::open(ImageName::parse(&arguments.image), &arguments.packs, &arguments.disk)?;
    from.guard_target(&arguments.packs, &arguments.out)?;
    let disk = &from.disk;
    let target = FileTarget::create(&arguments.out, disk.len())?;
    let copied = with_progress(arguments.threads, |run| {
        run.progress.begin("exporting", disk.len());
        let copied = copy(disk, &target, CopyOptions::default(), run)?;
        Ok(copied)
    });
    let copied =
        copied.map_err(|failure| failure.if_stopped(|| format!("{} is as it was", arguments.out.display())))?;
    Box::new(target).finish()?;
    if arguments.json {
        let report = json!({"out": arguments.out.display().to_string(), "generation": from.generation,
            "data": copied.data, "zero": copied.zero, "absent": copied.absent, "bad": copied.bad});
        println!("{report:#}");
    } else {
        let out = arguments.out.display();
        println!("{} is in {out}: {}", from.what, size(disk.len()));
        for (start, len) in &copied.bad {
            println!(
                "unreadable at the source, filled with a marker: bytes {start:#x} to {:#x} ({})",
                start.saturating_add(*len),
                short_size(*len)
            );
        }
    }
    Ok(if copied.bad.is_empty() { DONE } else { FOUND })
}
