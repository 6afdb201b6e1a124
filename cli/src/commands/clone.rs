//! `hikae clone`: a disk onto another disk, without an image in between.

use std::path::PathBuf;
use std::sync::Arc;

use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::capture::planned::PlannedDisk;
use imgfmt::restore::attached::same_identity;
use imgfmt::restore::facts::Facts;
use imgfmt::restore::guard::Scope;
use imgfmt::restore::identity::ids::NewIds;
use imgfmt::restore::plan::whole_disk;
use imgfmt::restore::undo::{OptionsRecord, SourceRecord};
use imgfmt::restore::write::WriteOptions;
use imgfmt::source::System;
use imgfmt::target::device::{TargetKind, kind_of};

use crate::exit::{DONE, Failure};
use crate::source::{self, DiskOptions};
use crate::target::{Consent, From, Options, UndoFor, find_undo, reasons, run_session, show_and_ask, undo_path};

/// Makes a disk a bootable copy of another disk, and writes only what differs.
///
/// Unallocated space is left alone where the filesystem is known, and the content of page files and swap becomes zero, as in a capture. The target is read and compared;
/// a second run after small changes writes little.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The disk to copy: a block device or a raw file.
    source: PathBuf,
    /// The disk to overwrite: a block device, or an existing file that is written in place.
    target: PathBuf,
    /// Show both sides, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Copy unallocated space too.
    #[arg(long)]
    all_blocks: bool,
    /// Copy the content of page files and swap too.
    #[arg(long)]
    keep_swap: bool,
    /// Read the source although it is mounted for writing; on Windows from shadow copies of its volumes, which hikae makes and removes.
    #[arg(long)]
    live: bool,
    /// Make unallocated space of the target zero.
    #[arg(long)]
    wipe: bool,
    /// Let the last partition grow to the end of a bigger target.
    #[arg(long)]
    grow: bool,
    /// Give the copy a new disk signature, or new GUIDs of disk and partitions, and repair what names them, so that both disks can stay attached. What could not be
    /// repaired is listed, and the exit code is 1.
    #[arg(long)]
    new_ids: bool,
    /// Read everything back from the medium before the target becomes valid.
    #[arg(long)]
    verify: bool,
    /// Go on with an interrupted clone.
    #[arg(long)]
    resume: bool,
    /// Keep what the target's tables were in this file; hikae-TARGET-TIME.undo by default.
    #[arg(long, value_name = "FILE")]
    undo: Option<PathBuf>,
    /// Do not ask; a device needs --target-id with it.
    #[arg(long)]
    yes: bool,
    /// Serial number of the target, or its identity as hikae disks shows it: another disk is refused.
    #[arg(long, value_name = "ID")]
    target_id: Option<String>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Report, and progress, as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let system = System::default();
    if kind_of(&arguments.target)? == TargetKind::New {
        let target = arguments.target.display();
        return Err(Failure::WrongUse(format!(
            "{target} does not exist: clone writes onto a disk; hikae capture, or truncate -s SIZE {target} first"
        )));
    }
    let facts = Facts::examine(&system, &arguments.target)?;
    let mut wipe = arguments.wipe;
    let mut grow = arguments.grow;
    let mut ids = arguments.new_ids.then(NewIds::random);
    let resumed = if arguments.resume {
        let undo = find_undo(arguments.undo.as_deref(), &facts)?;
        let options = &undo.start().options;
        (wipe, grow) = (options.wipe, options.grow);
        ids = options.ids.as_deref().map(NewIds::from_seed);
        Some(undo)
    } else {
        None
    };
    let undo = match &resumed {
        Some(undo) => undo.path().to_owned(),
        None => undo_path(arguments.undo.as_deref(), &facts),
    };
    // The guards come before the source is read: a target that is the source needs no long look.
    let keep = vec![arguments.source.clone(), undo.clone()];
    let early = reasons(&system, &facts, Scope::Disk, &keep, None)?;
    if !early.is_empty() {
        return Err(Failure::Refused(early.join("; ")));
    }
    let from = open(arguments, keep)?;
    let planned = whole_disk(&from.disk, &from.layout, &facts, grow, ids.as_ref());
    let against = reasons(&system, &facts, Scope::Disk, &from.keep, planned.as_ref().err())?;
    let mut notes = planned.as_ref().map_or(Vec::new(), |plan| plan.notes.clone());
    if ids.is_none() {
        notes.extend(same_identity(&system, &facts, &from.layout.disk_id));
    }
    let consent = Consent { yes: arguments.yes, target_id: arguments.target_id.as_deref(), dry_run: arguments.dry_run };
    if !show_and_ask(Some(&from), &facts, "whole disk, only what differs", &notes, &against, &consent)? {
        return Ok(DONE);
    }
    let plan = planned?;
    let write =
        WriteOptions { wipe, compare: true, verify: arguments.verify, stable_source: false, ..WriteOptions::default() };
    let hint = format!("hikae clone {} {}", arguments.source.display(), arguments.target.display());
    let options = Options {
        work: "whole disk".into(),
        scope: Scope::Disk,
        write,
        record: OptionsRecord {
            wipe,
            grow,
            ids: ids.as_ref().map(|ids| ids.seed().to_owned()),
            ..OptionsRecord::default()
        },
        threads: arguments.threads,
        json: arguments.json,
        resume_hint: &hint,
    };
    let undo = resumed.map_or(UndoFor::New(undo), |undo| UndoFor::Resume(Box::new(undo)));
    run_session(&system, &from, &facts, &plan, undo, &options)
}

fn open(arguments: &Arguments, keep: Vec<PathBuf>) -> Result<From, Failure> {
    let readable = source::guard_live(&arguments.source, arguments.live)?;
    let opened = source::open(&arguments.source, None, None, &DiskOptions::default())?;
    opened.tell_notes();
    let mut source = opened.source;
    readable.prepare(&mut source)?;
    for warning in readable.warnings() {
        eprintln!("hikae: warning: {}", crate::text::printable(&warning));
    }
    let options =
        PlanOptions { all_blocks: arguments.all_blocks, keep_swap: arguments.keep_swap, flushed: readable.flushed() };
    let plan = plan(&source.disk, &options)?;
    for warning in &plan.warnings {
        eprintln!("hikae: warning: {}", crate::text::printable(warning));
    }
    let what = crate::text::printable(&arguments.source.display().to_string());
    let from = format!("{}, read as it is now", source.identity.kind);
    let record = SourceRecord { path: source.identity.path.clone(), ..SourceRecord::default() };
    let disk = PlannedDisk::new(Arc::clone(&source.disk), &plan.unwanted, &plan.elided);
    Ok(From {
        disk: Arc::new(disk),
        layout: plan.layout,
        record,
        what,
        from,
        keep,
        is_stable: false,
        _readable: readable,
    })
}
