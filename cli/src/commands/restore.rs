//! `hikae restore`: a generation goes back onto a disk. So far to regular files and loop devices.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use imgfmt::Disk;
use imgfmt::source::System;
use imgfmt::target::device::{TargetKind, kind_of};
use imgfmt::target::{CopyOptions, DeviceTarget, FileTarget, Target, copy};
use serde_json::json;

use crate::commands::with_progress;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::text::{printable, short_size, size};

/// Streams a generation back onto a whole disk: a regular file or a loop device.
///
/// Other block devices are refused until their guards exist. Unallocated space of the target is left alone unless --wipe is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, and the generation: a number, latest (the default), ~1, a date or an age.
    #[arg(value_name = "IMAGE[@GEN]")]
    image: String,
    /// The file or loop device to write.
    target: PathBuf,
    /// Show source and target, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Make unallocated space zero, rather than leaving alone what the target has there.
    #[arg(long)]
    wipe: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
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
    let name = ImageName::parse(&arguments.image);
    let generation = name.open_generation(&arguments.packs)?;
    let path = arguments.target.display();
    let kind = kind_of(&arguments.target)?;
    name.guard_target(&arguments.packs, &arguments.target)?;
    let about = match kind {
        TargetKind::New => "a new file".to_owned(),
        TargetKind::File => {
            let len = std::fs::metadata(&arguments.target).map_or(0, |metadata| metadata.len());
            format!("an existing file of {}, which will be replaced", size(len))
        }
        TargetKind::Loop => "a loop device, which will be overwritten".to_owned(),
        TargetKind::BlockDevice => {
            return Err(Failure::Refused(format!(
                "{path} is a block device: restoring to one needs guards that do not exist yet; restore to a file or a loop device"
            )));
        }
        TargetKind::Other => return Err(Failure::Refused(format!("{path} is neither a file nor a block device"))),
    };
    if kind == TargetKind::Loop {
        let image_folder =
            name.path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
        if System::default().lies_on(&image_folder, &arguments.target)? {
            return Err(Failure::Refused(format!("{path} holds the image itself")));
        }
        if !System::default().uses_of(&arguments.target)?.is_empty() {
            return Err(Failure::Refused(format!("{path} is in use: unmount what lies on it first")));
        }
    }
    let record = generation.record();
    eprintln!(
        "from  generation {} of {}, captured {} from {}: {}",
        record.generation,
        name.path.display(),
        printable(&record.created),
        printable(&record.source.path),
        size(generation.len())
    );
    eprintln!("to    {path}: {about}");
    if arguments.dry_run {
        return Ok(DONE);
    }
    if kind != TargetKind::New && !arguments.yes {
        confirm(&arguments.target.display().to_string())?;
    }
    let target: Box<dyn Target> = if kind == TargetKind::Loop {
        Box::new(DeviceTarget::open(&arguments.target, generation.sector_size())?)
    } else {
        Box::new(FileTarget::create(&arguments.target, generation.len())?)
    };
    let options = CopyOptions { wipe: arguments.wipe };
    let copied = with_progress(arguments.threads, |run| {
        run.progress.begin("restoring", generation.len());
        Ok(copy(&generation, &*target, options, run)?)
    })?;
    target.finish()?;
    if arguments.json {
        let report = json!({"target": path.to_string(), "generation": record.generation,
            "data": copied.data, "zero": copied.zero, "absent": copied.absent, "bad": copied.bad});
        println!("{report:#}");
    } else {
        println!(
            "generation {} is restored to {path}: {} written, {} zero, {} left alone",
            record.generation,
            short_size(copied.data),
            short_size(copied.zero),
            short_size(copied.absent)
        );
        for (start, len) in &copied.bad {
            let end = start.saturating_add(*len);
            println!(
                "unreadable at the source, filled with a marker: bytes {start:#x} to {end:#x} ({})",
                short_size(*len)
            );
        }
    }
    Ok(if copied.bad.is_empty() { DONE } else { FOUND })
}

/// Asks for the target's name to be typed.
fn confirm(target: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused(format!("{target} would be overwritten, and nobody is there to ask: say --yes")));
    }
    eprint!("type the target's name to overwrite it: ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == target {
        return Ok(());
    }
    Err(Failure::Refused("nothing was written".into()))
}
