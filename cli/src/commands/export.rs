//! `hikae export`: a generation as a virtual disk file.

use std::path::PathBuf;
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::export::{Kind, export};
use imgfmt::format::Format;
use imgfmt::format::identity::Identity;
use imgfmt::format::qcow2::Compression;
use imgfmt::target::device::{TargetKind, kind_of};
use imgfmt::view::table::partition_with_table;
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::source::DiskOptions;
use crate::text::{short_size, size};
use crate::work::with_progress;

/// Writes a generation as a virtual disk file that is there once it is whole.
///
/// Of qcow2, VHD, VHDX, VMDK and VDI only what is not zero is stored, and a raw file has holes. Each file gets an identity of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, and the generation: a number, latest (the default), ~1, a date or an age. Or a virtual disk file, raw file or device.
    #[arg(value_name = "IMAGE[@GEN]", add = crate::complete::generations())]
    image: String,
    /// The new file. What its name ends in is its format, unless --format says otherwise: .raw, .img, .dd, .qcow2, .vhd, .vhdx, .vmdk, .vdi.
    out: PathBuf,
    /// The format: raw, qcow2, vhd, vhdx, vmdk or vdi.
    #[arg(long)]
    format: Option<Format>,
    /// Compress it: qcow2 (with zlib, which every program reads, or zstd), and VMDK (always with zlib; the stream-optimized kind, as in OVA files).
    #[arg(long, value_name = "METHOD", num_args = 0..=1, require_equals = true, default_missing_value = "zlib", conflicts_with = "fixed")]
    compress: Option<Compressed>,
    /// VHD, VHDX, VDI: of the fixed kind, which takes up as much as the disk.
    #[arg(long)]
    fixed: bool,
    /// Write this partition alone, with a partition table made up around it; its own bytes are as they are.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Write the disk as it is with what was written to this overlay over it.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
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
    let kind = kind(arguments)?;
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
    let mut from = AnyDisk::open(ImageName::parse(&arguments.image), &arguments.packs, &arguments.disk)?;
    if let Some(overlay) = &arguments.overlay {
        from = from.with_overlay(overlay)?;
    }
    from.guard_target(&arguments.packs, &arguments.out)?;
    let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let identity = Identity::random(created);
    let (disk, what): (Arc<dyn Disk>, _) = match arguments.partition {
        Some(number) => {
            let whole = partition_with_table(&from.disk, number, &identity)?;
            (whole, format!("partition {number} of {}", from.what))
        }
        None => (Arc::clone(&from.disk), from.what.clone()),
    };
    let copied = with_progress(arguments.threads, |run| {
        run.progress.begin("exporting", disk.len());
        Ok(export(&disk, &arguments.out, kind, &identity, run)?)
    });
    let copied =
        copied.map_err(|failure| failure.if_stopped(|| format!("{} is as it was", arguments.out.display())))?;
    if arguments.json {
        let report = json!({"out": arguments.out.display().to_string(), "generation": from.generation, "partition": arguments.partition,
            "format": kind.format().name(),
            "data": copied.data, "zero": copied.zero, "absent": copied.absent, "bad": copied.bad});
        println!("{report:#}");
    } else {
        let out = arguments.out.display();
        println!("{what} is in {out}: {}", size(disk.len()));
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

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compressed {
    Zlib,
    Zstd,
}

/// Which file is asked for.
fn kind(arguments: &Arguments) -> Result<Kind, Failure> {
    let format = arguments.format.or_else(|| Format::of_extension(&arguments.out));
    let Some(format) = format else {
        let (out, known) = (arguments.out.display(), Format::ALL.map(Format::name).join(", "));
        return Err(Failure::WrongUse(format!(
            "{out}: its name does not say which format is wanted; say --format: {known}"
        )));
    };
    match (format, arguments.compress, arguments.fixed) {
        (Format::Raw, None, _) => Ok(Kind::Raw),
        (Format::Qcow2, None, false) => Ok(Kind::Qcow2(None)),
        (Format::Qcow2, Some(Compressed::Zlib), _) => Ok(Kind::Qcow2(Some(Compression::Zlib))),
        (Format::Qcow2, Some(Compressed::Zstd), _) => Ok(Kind::Qcow2(Some(Compression::Zstd))),
        (Format::Vhd, None, fixed) => Ok(if fixed { Kind::VhdFixed } else { Kind::Vhd }),
        (Format::Vhdx, None, fixed) => Ok(if fixed { Kind::VhdxFixed } else { Kind::Vhdx }),
        (Format::Vdi, None, fixed) => Ok(if fixed { Kind::VdiFixed } else { Kind::Vdi }),
        (Format::Vmdk, None, false) => Ok(Kind::Vmdk),
        (Format::Vmdk, Some(Compressed::Zlib), _) => Ok(Kind::VmdkStream),
        (_, Some(Compressed::Zstd), _) => Err(Failure::WrongUse(format!("{format} cannot be compressed with zstd"))),
        (_, Some(_), _) => Err(Failure::WrongUse(format!("{format} cannot be compressed"))),
        _ => Err(Failure::WrongUse(format!("{format} is not written as a fixed file: VHD, VHDX and VDI are"))),
    }
}
