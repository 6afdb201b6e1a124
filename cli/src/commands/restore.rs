//! `hikae restore`: a generation goes back onto a disk. So far to regular files and loop devices.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use imgfmt::Disk;
use imgfmt::source::System;
use imgfmt::target::device::{TargetKind, kind_of};
use imgfmt::target::{CopyOptions, DeviceTarget, FileTarget, Target, copy};
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::commands::with_progress;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::source::DiskOptions;
use crate::text::{short_size, size};

/// Streams a generation back onto a whole disk: a regular file or a loop device.
///
/// Other block devices are refused until their guards exist. Unallocated space of the target is left alone unless --wipe is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, and the generation: a number, latest (the default), ~1, a date or an age. Or a virtual disk file, raw file or device.
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
    #[command(flatten)]
    disk: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let from = AnyDisk::open(ImageName::parse(&arguments.image), &arguments.packs, &arguments.disk)?;
    let disk = &from.disk;
    let path = arguments.target.display();
    let kind = kind_of(&arguments.target)?;
    from.guard_target(&arguments.packs, &arguments.target)?;
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
        for folder in from.folders() {
            if System::default().lies_on(&folder, &arguments.target)? {
                return Err(Failure::Refused(format!("{path} holds the image itself")));
            }
        }
        if !System::default().uses_of(&arguments.target)?.is_empty() {
            return Err(Failure::Refused(format!("{path} is in use: unmount what lies on it first")));
        }
    }
    eprintln!("from  {}: {}", from.from, size(disk.len()));
    eprintln!("to    {path}: {about}");
    if arguments.dry_run {
        return Ok(DONE);
    }
    if kind != TargetKind::New && !arguments.yes {
        confirm(&arguments.target.display().to_string())?;
    }
    let target: Box<dyn Target> = if kind == TargetKind::Loop {
        Box::new(DeviceTarget::open(&arguments.target, disk.sector_size())?)
    } else {
        Box::new(FileTarget::create(&arguments.target, disk.len())?)
    };
    let options = CopyOptions { wipe: arguments.wipe };
    let copied = with_progress(arguments.threads, |run| {
        run.progress.begin("restoring", disk.len());
        Ok(copy(disk, &*target, options, run)?)
    })?;
    target.finish()?;
    if arguments.json {
        let report = json!({"target": path.to_string(), "generation": from.generation,
            "data": copied.data, "zero": copied.zero, "absent": copied.absent, "bad": copied.bad});
        println!("{report:#}");
    } else {
        println!(
            "{} is restored to {path}: {} written, {} zero, {} left alone",
            from.what,
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
