//! `hikae restore`: a generation goes back onto a disk, whole or in parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::Slice;
use imgfmt::partition::read_layout;
use imgfmt::restore::attached::same_identity;
use imgfmt::restore::edits::{self, Edit};
use imgfmt::restore::facts::Facts;
use imgfmt::restore::guard::{self, Scope, usable_partition};
use imgfmt::restore::identity::ids::NewIds;
use imgfmt::restore::identity::{Renewal, renew};
use imgfmt::restore::plan;
use imgfmt::restore::undo::{OptionsRecord, SourceRecord, Undo};
use imgfmt::restore::wanted::Wanted;
use imgfmt::restore::write::{Session, WriteOptions};
use imgfmt::source::System;
use imgfmt::target::device::{TargetKind, kind_of};
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::{Disk, Error};
use serde_json::json;

use crate::any_disk::AnyDisk;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::progress::Shown;
use crate::source::{self, DiskOptions, Readable};
use crate::target::{
    Consent, From, Options, UndoFor, confirm, find_undo, finish, reasons, renewal_json, run_session, show_and_ask,
    start_record, undo_path,
};
use crate::text::{printable, short_size, size};
use crate::work::with_progress_for;

/// Streams a generation back onto a disk, or puts back a part of it: a partition, boot code, the table, boot sectors.
///
/// The disk that the system runs from, disks in use, the disk that holds the image and disks that are too small are refused. Before the first byte is written the target's tables are
/// saved to an undo file and made invalid; the new ones are written last, so that a half-restored disk is never taken for a good one. Unallocated space is left
/// alone unless --wipe is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image and the generation (a number, latest, ~1, a date or an age) or a virtual disk file, raw file or device; and the target: a block device or a file. A new file is made; an existing one is replaced
    /// when everything is there, or written in place with one of the options that say so. --boot-code=standard and --undo-apply need the target only.
    #[arg(value_names = ["IMAGE[@GEN]", "TARGET"], num_args = 1..=2, required = true, add = crate::complete::generations())]
    names: Vec<PathBuf>,
    /// Show source and target side by side, with the reasons against it, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Write into an existing file as into a disk, rather than replacing it.
    #[arg(long)]
    in_place: bool,
    /// Read the target, and write only where it differs.
    #[arg(long)]
    delta: bool,
    /// Read everything back from the medium before the target becomes valid.
    #[arg(long)]
    verify: bool,
    /// Go on with an interrupted restore: what is right already is not written again.
    #[arg(long)]
    resume: bool,
    /// Make unallocated space zero, rather than leaving alone what the target has there.
    #[arg(long)]
    wipe: bool,
    /// Let the last partition grow to the end of a bigger target (its filesystem stays: the message names the tool that grows it).
    #[arg(long)]
    grow: bool,
    /// Give the copy a new disk signature, or new GUIDs of disk and partitions, and repair what names them: boot.ini, BCD, MountedDevices, and PARTUUID in fstab, crypttab and the
    /// configurations of loaders. What could not be repaired is listed, and the exit code is 1. UUIDs of filesystems stay.
    #[arg(long, conflicts_with = "work")]
    new_ids: bool,
    /// Restore only partition N, into partition M of the target (N where it is left out).
    #[arg(long, value_name = "N[=M]", value_parser = parse_pair, group = "work")]
    partition: Option<(u32, u32)>,
    /// Restore only the boot code: that of the image with the gap behind it, or the standard one of this program.
    #[arg(long, value_name = "standard", num_args = 0..=1, require_equals = true, default_missing_value = "image", group = "work")]
    boot_code: Option<String>,
    /// Restore only the partition table; boot code and content stay.
    #[arg(long, group = "work")]
    table: bool,
    /// Restore only the boot sectors of partition N, into partition M of the target.
    #[arg(long, value_name = "N[=M]", value_parser = parse_pair, group = "work")]
    boot_sector: Option<(u32, u32)>,
    /// Put back what an undo file saved.
    #[arg(long, value_name = "FILE", group = "work")]
    undo_apply: Option<PathBuf>,
    /// Keep what is overwritten of tables and boot code in this file; hikae-TARGET-TIME.undo by default.
    #[arg(long, value_name = "FILE")]
    undo: Option<PathBuf>,
    /// Do not ask; a device needs --target-id with it.
    #[arg(long)]
    yes: bool,
    /// Serial number of the target, or its identity as hikae disks shows it: another disk is refused.
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Report, and progress, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disk: DiskOptions,
}

/// `N` or `N=M`.
fn parse_pair(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no number of a partition"));
    match text.split_once('=') {
        Some((from, to)) => Ok((number(from)?, number(to)?)),
        None => number(text).map(|number| (number, number)),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let standard = match arguments.boot_code.as_deref() {
        None | Some("image") => false,
        Some("standard") => true,
        Some(other) => {
            return Err(Failure::WrongUse(format!(
                "--boot-code={other}: --boot-code takes that of the image, --boot-code=standard that of this program"
            )));
        }
    };
    let needs_image = !standard && arguments.undo_apply.is_none();
    let (image, target) = match (arguments.names.as_slice(), needs_image) {
        ([target], false) => (None, target),
        ([image, target], true) => (Some(image), target),
        ([_], true) => return Err(Failure::WrongUse("an image and a target are needed".into())),
        _ => return Err(Failure::WrongUse("with this option only the target is named".into())),
    };
    if let Some(file) = &arguments.undo_apply {
        return put_back(arguments, file, target);
    }
    if standard {
        return repair(arguments, None, target);
    }
    let image = image.ok_or_else(|| Failure::WrongUse("an image is needed".into()))?;
    if arguments.boot_code.is_some() || arguments.table || arguments.boot_sector.is_some() {
        let from = open(arguments, image, target)?;
        return repair(arguments, Some(&from), target);
    }
    let in_place = arguments.in_place || arguments.delta || arguments.resume || arguments.grow;
    let in_place = in_place || arguments.partition.is_some();
    match kind_of(target)? {
        TargetKind::New if !in_place => to_file(arguments, image, target),
        TargetKind::File if !in_place => to_file(arguments, image, target),
        TargetKind::New => Err(Failure::Library(Error::NotFound(format!("{} does not exist", target.display())))),
        TargetKind::Other => {
            Err(Failure::Refused(format!("{} is neither a file nor a block device", target.display())))
        }
        TargetKind::File | TargetKind::Loop | TargetKind::BlockDevice => session(arguments, image, target),
    }
}

/// Opens what is restored.
fn open(arguments: &Arguments, image: &Path, target: &Path) -> Result<From, Failure> {
    let name = ImageName::parse(&image.to_string_lossy());
    let readable = if name.is_hikae() { Readable::default() } else { source::guard_live(&name.path, false)? };
    let path = name.path.display().to_string();
    let any = AnyDisk::open(name, &arguments.packs, &arguments.disk)?;
    any.guard_target(&arguments.packs, target)?;
    let mut keep = any.files();
    keep.extend(arguments.packs.iter().cloned());
    let (image, root) = any.proof.clone().unzip();
    let is_stable = root.is_some();
    let source = SourceRecord { path, image, generation: any.generation, root };
    let layout = read_layout(&any.disk)?;
    Ok(From {
        disk: any.disk,
        layout,
        record: source,
        what: any.what,
        from: any.from,
        keep,
        is_stable,
        _readable: readable,
    })
}

fn consent(arguments: &Arguments) -> Consent<'_> {
    Consent { yes: arguments.yes, target_id: arguments.target_id.as_deref(), dry_run: arguments.dry_run }
}

/// A new file, or one that is replaced when everything is there.
fn to_file(arguments: &Arguments, image: &Path, target: &Path) -> Result<u8, Failure> {
    if arguments.undo.is_some() {
        return Err(Failure::WrongUse(
            "a file that is made anew needs no undo file; --in-place writes into an existing one".into(),
        ));
    }
    let from = open(arguments, image, target)?;
    let (disk, renewal) = with_new_ids(&from.disk, arguments.new_ids)?;
    let disk = &disk;
    let path = target.display();
    let is_new = kind_of(target)? == TargetKind::New;
    let about = if is_new {
        "a new file".to_owned()
    } else {
        let len = std::fs::metadata(target).map_or(0, |metadata| metadata.len());
        format!("an existing file of {}, which will be replaced", size(len))
    };
    eprintln!("from  {}: {}", from.from, size(disk.len()));
    eprintln!("to    {path}: {about}");
    for sentence in renewal.iter().flat_map(Renewal::sentences) {
        eprintln!("note  {}", printable(&sentence));
    }
    if arguments.dry_run {
        return Ok(DONE);
    }
    if !is_new && !arguments.yes {
        confirm(&target.display().to_string())?;
    }
    let file: Box<dyn Target> = Box::new(FileTarget::create(target, disk.len())?);
    let shown = if arguments.json { Shown::json() } else { Shown::new() };
    let copied = with_progress_for(shown, arguments.threads, |run| {
        run.progress.begin("restoring", disk.len());
        Ok(copy(disk, &*file, CopyOptions { wipe: arguments.wipe }, run)?)
    });
    let copied = copied.map_err(|failure| failure.if_stopped(|| format!("{path} is as it was")))?;
    file.finish()?;
    let verified = if arguments.verify { read_back(arguments, disk, target)? } else { 0 };
    if arguments.json {
        let report = json!({"target": path.to_string(), "generation": from.record.generation, "data": copied.data,
            "zero": copied.zero, "absent": copied.absent, "bad": copied.bad, "verified": verified,
            "ids": renewal.as_ref().map(renewal_json)});
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
    let left = renewal.as_ref().is_some_and(|renewal| renewal.left().next().is_some());
    Ok(if copied.bad.is_empty() && !left { DONE } else { FOUND })
}

/// The disk, with new identities where they are wanted.
fn with_new_ids(disk: &Arc<dyn Disk>, new: bool) -> Result<(Arc<dyn Disk>, Option<Renewal>), Failure> {
    if !new {
        return Ok((Arc::clone(disk), None));
    }
    let mut wanted = Wanted::new(Arc::clone(disk), disk.len());
    let renewal = renew(&mut wanted, &NewIds::random())?;
    Ok((Arc::new(wanted), Some(renewal)))
}

/// Reads a file that was just made back from its medium.
fn read_back(arguments: &Arguments, disk: &dyn Disk, path: &Path) -> Result<u64, Failure> {
    let file = guard::open_file(path, disk.sector_size())?;
    let tables = imgfmt::restore::tables::Tables::default();
    let options = WriteOptions { wipe: arguments.wipe, ..WriteOptions::default() };
    let session = Session { wanted: disk, target: &file, tables: &tables, options };
    let shown = if arguments.json { Shown::json() } else { Shown::new() };
    let (bytes, wrong) = with_progress_for(shown, arguments.threads, |run| Ok(session.read_back(run)?))?;
    match wrong.first() {
        None => Ok(bytes),
        Some(first) => Err(Failure::Library(Error::corrupt(
            path.display(),
            first.start,
            "the medium does not hold what was written to it",
        ))),
    }
}

/// A whole disk or a partition, in place.
fn session(arguments: &Arguments, image: &Path, target: &Path) -> Result<u8, Failure> {
    let system = System::default();
    let facts = Facts::examine(&system, target)?;
    let mut record = OptionsRecord {
        wipe: arguments.wipe,
        grow: arguments.grow,
        from_partition: arguments.partition.map(|(from, _)| from),
        to_partition: arguments.partition.map(|(_, to)| to),
        ids: arguments.new_ids.then(|| NewIds::random().seed().to_owned()),
    };
    let mut from = open(arguments, image, target)?;
    let resumed = if arguments.resume {
        let undo = find_undo(arguments.undo.as_deref(), &facts)?;
        check_same(&undo, &from, &facts)?;
        record = undo.start().options.clone();
        Some(undo)
    } else {
        None
    };
    let undo = resumed.as_ref().map_or_else(|| undo_path(arguments.undo.as_deref(), &facts), |undo| undo.path().into());
    from.keep.push(undo.clone());
    let partitions = record.from_partition.zip(record.to_partition);
    let scope = partitions.map_or(Scope::Disk, |(_, to)| Scope::Partition(to));
    let planned = match partitions {
        Some((n, m)) => plan::partition(&from.disk, &from.layout, n, &facts, m),
        None => {
            let ids = record.ids.as_deref().map(NewIds::from_seed);
            plan::whole_disk(&from.disk, &from.layout, &facts, record.grow, ids.as_ref())
        }
    };
    let work = match partitions {
        Some((n, m)) if n == m => format!("partition {n}"),
        Some((n, m)) => format!("partition {n} into partition {m}"),
        None => "whole disk".into(),
    };
    let against = reasons(&system, &facts, scope, &from.keep, planned.as_ref().err())?;
    let mut notes = planned.as_ref().map_or(Vec::new(), |plan| plan.notes.clone());
    if scope == Scope::Disk && record.ids.is_none() {
        notes.extend(same_identity(&system, &facts, &from.layout.disk_id));
    }
    // The mark of the session on the target says more than any identity; `resume` checks it.
    let mut consent = consent(arguments);
    let own = facts.digest.clone();
    if resumed.is_some() && consent.yes && consent.target_id.is_none() {
        consent.target_id = Some(&own);
    }
    if !show_and_ask(Some(&from), &facts, &work, &notes, &against, &consent)? {
        return Ok(DONE);
    }
    let write = WriteOptions {
        wipe: record.wipe,
        compare: arguments.delta,
        verify: arguments.verify,
        stable_source: from.is_stable,
        ..WriteOptions::default()
    };
    let hint = format!("hikae restore {} {}", image.display(), target.display());
    let json = arguments.json;
    let options = Options { work, scope, write, record, threads: arguments.threads, json, resume_hint: &hint };
    let undo = resumed.map_or(UndoFor::New(undo), |undo| UndoFor::Resume(Box::new(undo)));
    run_session(&system, &from, &facts, &planned?, undo, &options)
}

/// Refuses to go on with another source or another target than those of the session.
fn check_same(undo: &Undo, from: &From, facts: &Facts) -> Result<(), Failure> {
    let start = undo.start();
    let path = undo.path().display();
    let refused = |what: &str| Err(Failure::Refused(format!("{path} is of a session with another {what}")));
    let source = start.source.clone().unwrap_or_default();
    if source.root != from.record.root || (source.root.is_none() && source.path != from.record.path) {
        return refused("source: name that one");
    }
    let target = &start.target;
    if target.disk_len != facts.len || (target.serial.is_some() && target.serial.as_deref() != facts.serial()) {
        return refused("target");
    }
    Ok(())
}

/// Boot code, table or boot sectors.
fn repair(arguments: &Arguments, from: Option<&From>, target: &Path) -> Result<u8, Failure> {
    let system = System::default();
    let facts = Facts::examine(&system, target)?;
    let scope = arguments.boot_sector.map_or(Scope::Disk, |(_, to)| Scope::Partition(to));
    let edits = planned_edits(arguments, from, &facts);
    let work = match (&arguments.boot_sector, arguments.table, from) {
        (Some((_, to)), ..) => format!("boot sectors of partition {to}"),
        (None, true, _) => "partition table".into(),
        (None, false, Some(_)) => "boot code".into(),
        (None, false, None) => "standard boot code".into(),
    };
    write_edits(&system, arguments, from, &facts, scope, &work, edits)
}

fn planned_edits(arguments: &Arguments, from: Option<&From>, facts: &Facts) -> imgfmt::Result<Vec<Edit>> {
    let Some(from) = from else { return edits::standard_boot_code(&facts.layout) };
    let now = imgfmt::source::FileDisk::open(&facts.path, facts.sector_size)?;
    let sector_size = facts.device.map(|_| facts.sector_size);
    if let Some((n, m)) = arguments.boot_sector {
        let missing = || Error::NotFound(format!("the source has no partition {n}"));
        let partition = from.layout.partitions.iter().find(|partition| partition.number == n).ok_or_else(missing)?;
        let place = usable_partition(facts, m)?;
        let slice = Slice::open(Arc::clone(&from.disk), partition.range.clone())?;
        return edits::boot_sectors(slice, place.start, place.end.saturating_sub(place.start));
    }
    if arguments.table {
        return edits::table(&from.disk, &from.layout, &now, &facts.layout, sector_size);
    }
    edits::boot_code(&from.disk, &from.layout, &now, &facts.layout)
}

/// What an undo file saved.
fn put_back(arguments: &Arguments, file: &Path, target: &Path) -> Result<u8, Failure> {
    let system = System::default();
    let facts = Facts::examine(&system, target)?;
    let saved = Undo::open(file)?;
    let start = saved.start();
    if start.target.disk_len != facts.len {
        return Err(Failure::Refused(format!(
            "{} was saved from a disk of {} bytes, and {} has {}",
            file.display(),
            start.target.disk_len,
            target.display(),
            facts.len
        )));
    }
    if start.target.serial.is_some() && start.target.serial.as_deref() != facts.serial() {
        return Err(Failure::Refused(format!("{} was saved from a disk with another serial number", file.display())));
    }
    let scope = start.options.to_partition.map_or(Scope::Disk, Scope::Partition);
    let edits = edits::put_back(&saved);
    let work = format!("what {} was before ({})", start.work, start.created);
    write_edits(&system, arguments, None, &facts, scope, &work, Ok(edits))
}

fn write_edits(
    system: &System,
    arguments: &Arguments,
    from: Option<&From>,
    facts: &Facts,
    scope: Scope,
    work: &str,
    edits: imgfmt::Result<Vec<Edit>>,
) -> Result<u8, Failure> {
    let path = undo_path(arguments.undo.as_deref(), facts);
    let mut keep = from.map_or(Vec::new(), |from| from.keep.clone());
    keep.extend(arguments.undo_apply.clone());
    keep.push(path.clone());
    let against = reasons(system, facts, scope, &keep, edits.as_ref().err())?;
    let notes: Vec<_> = edits.as_ref().map_or(Vec::new(), |edits| edits.iter().map(describe).collect());
    if !show_and_ask(from, facts, work, &notes, &against, &consent(arguments))? {
        return Ok(DONE);
    }
    let edits = edits?;
    let opened = guard::open(system, facts, scope)?;
    let to_partition = match scope {
        Scope::Disk => None,
        Scope::Partition(number) => Some(number),
    };
    let record = OptionsRecord { to_partition, ..OptionsRecord::default() };
    let start = match scope {
        Scope::Disk => 0,
        Scope::Partition(number) => usable_partition(facts, number)?.start,
    };
    let mut undo = Undo::create(&path, start_record(work, facts, (start, opened.len()), from, record))?;
    let changed = edits::apply(&opened, &mut undo, &edits)?;
    finish(&opened, scope)?;
    let name = facts.given.display().to_string();
    if arguments.json {
        let ranges: Vec<_> = edits
            .iter()
            .map(|edit| json!({"what": edit.what, "offset": edit.offset, "len": edit.bytes.len()}))
            .collect();
        let report = json!({"target": name, "work": work, "edits": ranges, "written": changed,
            "undo": path.display().to_string()});
        println!("{report:#}");
    } else {
        println!("{work}: {changed} bytes written to {name} and read back");
        println!("what was there before is in {}: --undo-apply puts it back", path.display());
    }
    Ok(DONE)
}

fn describe(edit: &Edit) -> String {
    format!("{}: {} bytes at byte {}", edit.what, edit.bytes.len(), edit.offset)
}
