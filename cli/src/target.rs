//! What commands that overwrite disks have in common: both sides are shown, the target's name is asked for, and a session runs.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::partition::Layout;
use imgfmt::restore::facts::{Facts, Place};
use imgfmt::restore::guard::{self, Opened, Scope};
use imgfmt::restore::identity::Renewal;
use imgfmt::restore::plan::{Plan, tables_now};
use imgfmt::restore::undo::{OptionsRecord, Phase, SourceRecord, Start, TargetRecord, Undo};
use imgfmt::restore::write::{Restored, Session, WriteOptions, structures_to_save};
use imgfmt::source::System;
use imgfmt::source::device::Use;
use imgfmt::{Disk, Error};
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::progress::Shown;
use crate::source::Readable;
use crate::text::{printable, short_size, size, table};
use crate::work::with_progress_for;

/// What a target is overwritten with.
pub(crate) struct From {
    /// The disk.
    pub(crate) disk: Arc<dyn Disk>,
    /// Its table.
    pub(crate) layout: Layout,
    /// What the undo file says of it.
    pub(crate) record: SourceRecord,
    /// What messages call it: "generation 3".
    pub(crate) what: String,
    /// Where that is and when it was made.
    pub(crate) from: String,
    /// Files and devices that must not be touched while it is read.
    pub(crate) keep: Vec<PathBuf>,
    /// It cannot have changed since an interrupted run.
    pub(crate) is_stable: bool,
    /// Keeps a disk that is read from changing meanwhile.
    pub(crate) _readable: Readable,
}

/// How the user says that it is meant.
pub(crate) struct Consent<'a> {
    pub(crate) yes: bool,
    pub(crate) target_id: Option<&'a str>,
    pub(crate) dry_run: bool,
}

/// What a run of a session is given.
pub(crate) struct Options<'a> {
    pub(crate) work: String,
    pub(crate) scope: Scope,
    pub(crate) write: WriteOptions,
    pub(crate) record: OptionsRecord,
    pub(crate) threads: usize,
    pub(crate) json: bool,
    /// What to say for going on after an interruption: command and arguments.
    pub(crate) resume_hint: &'a str,
}

/// Collects the reasons against a target: those of the guards, and that of a plan which did not come off.
pub(crate) fn reasons(
    system: &System,
    facts: &Facts,
    scope: Scope,
    keep: &[PathBuf],
    plan: Option<&Error>,
) -> Result<Vec<String>, Failure> {
    let mut reasons = guard::refusals(system, facts, scope, keep)?;
    reasons.extend(plan.map(|error| imgfmt::error::full_message(error)));
    Ok(reasons)
}

/// Shows both sides, and asks. `Ok(false)` where the user only wanted to see.
pub(crate) fn show_and_ask(
    from: Option<&From>,
    facts: &Facts,
    work: &str,
    notes: &[String],
    reasons: &[String],
    consent: &Consent<'_>,
) -> Result<bool, Failure> {
    show_sides(from, facts);
    eprintln!("work  {work}");
    for note in notes {
        eprintln!("note  {}", printable(note));
    }
    if !reasons.is_empty() {
        return Err(Failure::Refused(reasons.join("; ")));
    }
    if consent.dry_run {
        return Ok(false);
    }
    let name = facts.given.display().to_string();
    if let Some(id) = consent.target_id {
        if !facts.is_named_by(id) {
            return Err(Failure::Refused(format!(
                "{name} is not the disk {id:?}: its serial number is {}, and its identity {}",
                facts.serial().map_or("not known".into(), |serial| format!("{serial:?}")),
                facts.digest
            )));
        }
    } else if consent.yes && facts.place != Place::File {
        return Err(Failure::Refused(format!(
            "--yes alone could hit a swapped disk: say --target-id with the serial number of {name} or its identity, as hikae disks shows them (now {})",
            facts.digest
        )));
    }
    if !consent.yes {
        confirm(&name)?;
    }
    Ok(true)
}

/// Asks for the target's name to be typed.
pub(crate) fn confirm(target: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused(format!("{target} would be overwritten, and nobody is there to ask: say --yes")));
    }
    eprint!("type the target's name to overwrite it ({target}): ");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == target {
        return Ok(());
    }
    Err(Failure::Refused("nothing was written".into()))
}

fn partitions(layout: &Layout) -> String {
    let one = |partition: &imgfmt::partition::Partition| {
        let kind = if partition.type_name.is_empty() { &partition.type_code } else { partition.type_name };
        let len = short_size(partition.range.end.saturating_sub(partition.range.start));
        format!("{}: {len} {kind}", partition.number)
    };
    let mut all: Vec<_> = layout.partitions.iter().take(16).map(one).collect();
    if layout.partitions.len() > 16 {
        all.push("...".into());
    }
    all.join(", ")
}

fn show_sides(from: Option<&From>, facts: &Facts) {
    let source = |text: &dyn Fn(&From) -> String| from.map_or(String::new(), text);
    let disk = facts.disk();
    let used = disk.map_or(String::new(), |disk| {
        let place = |use_: &Use| match use_ {
            Use::MountedWritable(place) | Use::MountedReadOnly(place) => format!("mounted at {}", place.display()),
            Use::Swap => "swap".into(),
        };
        disk.uses.iter().map(place).chain(disk.all_holders().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
    });
    let what = match &facts.place {
        Place::File => "a file, written in place".to_owned(),
        Place::Disk(disk) => {
            let bus = disk.bus.clone().unwrap_or_default();
            format!("disk {}{}", bus, if disk.removable { ", removable" } else { "" })
        }
        Place::Part { number, .. } => format!("partition {number} of a disk"),
    };
    let text = |value: Option<&String>| value.map_or(String::new(), |value| printable(value));
    let rows = [
        ["", "from", "to"].map(str::to_owned),
        ["name".into(), source(&|from| printable(&from.record.path)), printable(&facts.given.display().to_string())],
        ["what".into(), source(&|from| printable(&from.from)), what],
        ["model".into(), String::new(), text(disk.and_then(|disk| disk.model.as_ref()))],
        ["serial".into(), String::new(), text(disk.and_then(|disk| disk.serial.as_ref()))],
        ["size".into(), source(&|from| size(from.disk.len())), size(facts.len)],
        ["sectors".into(), source(&|from| from.disk.sector_size().to_string()), facts.sector_size.to_string()],
        [
            "table".into(),
            source(&|from| format!("{} {}", from.layout.scheme.name(), from.layout.disk_id)),
            format!("{} {}", facts.layout.scheme.name(), facts.layout.disk_id),
        ],
        ["partitions".into(), source(&|from| partitions(&from.layout)), partitions(&facts.layout)],
        ["used".into(), String::new(), printable(&used)],
        ["identity".into(), String::new(), facts.digest.clone()],
    ];
    let rows: Vec<_> =
        rows.into_iter().filter(|row| !row[1].is_empty() || !row[2].is_empty()).map(|row| row.to_vec()).collect();
    eprint!("{}", table(&rows, &[]));
}

/// The undo file of a new session: as named, or `hikae-TARGET-TIME.undo` in the current folder.
pub(crate) fn undo_path(given: Option<&Path>, facts: &Facts) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let time: String = now().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let name = |more: &str| PathBuf::from(format!("{}{time}{more}.undo", undo_prefix(facts)));
    // Two runs in one second.
    let more = (2..100).map(|n| format!("-{n}"));
    let free = std::iter::once(String::new()).chain(more).map(|more| name(&more)).find(|path| !path.exists());
    free.unwrap_or_else(|| name(""))
}

fn undo_prefix(facts: &Facts) -> String {
    // A path of a device of Windows is a prefix without a name.
    let name = facts.given.file_name().unwrap_or(facts.given.as_os_str()).to_string_lossy();
    format!("hikae-{}-", plain_name(&name))
}

/// The name with `_` for what is not plain in names of files everywhere, and not at its start.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '_' };
    name.trim_start_matches(['\\', '/', '.', '?']).chars().map(plain).collect()
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Finds the undo file of the session that `--resume` takes up: as named, or the newest unfinished one of this target in the current folder.
pub(crate) fn find_undo(given: Option<&Path>, facts: &Facts) -> Result<Undo, Failure> {
    if let Some(given) = given {
        return Ok(Undo::open(given)?);
    }
    let prefix = undo_prefix(facts);
    let entries = std::fs::read_dir(".").map_err(|error| Error::io("list", ".", error))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix) && name.ends_with(".undo"))
        .collect();
    // Their names hold the time.
    names.sort();
    for name in names.iter().rev() {
        let undo = Undo::open(Path::new(name))?;
        if undo.phase() != Phase::Finished {
            return Ok(undo);
        }
    }
    Err(Failure::Library(Error::NotFound(format!(
        "no unfinished {prefix}*.undo lies in this folder: name the undo file of the interrupted restore with --undo"
    ))))
}

/// What the undo file says of a session.
pub(crate) fn start_record(
    work: &str,
    facts: &Facts,
    place: (u64, u64),
    from: Option<&From>,
    options: OptionsRecord,
) -> Start {
    Start {
        version: 1,
        session: imgfmt::restore::undo::new_session(),
        created: now(),
        tool: concat!("hikae ", env!("CARGO_PKG_VERSION")).into(),
        work: work.into(),
        target: TargetRecord {
            path: facts.path.display().to_string(),
            serial: facts.serial().map(str::to_owned),
            model: facts.disk().and_then(|disk| disk.model.clone()),
            disk_len: facts.len,
            sector_size: facts.sector_size,
            table_digest: facts.digest.clone(),
            start: place.0,
            len: place.1,
        },
        source: from.map(|from| from.record.clone()),
        options,
    }
}

/// Opens the target and starts a session, or takes one up, and reports.
pub(crate) fn run_session(
    system: &System,
    from: &From,
    facts: &Facts,
    plan: &Plan,
    undo: UndoFor,
    options: &Options<'_>,
) -> Result<u8, Failure> {
    let mut opened = guard::open(system, facts, options.scope)?;
    if facts.place == Place::File {
        opened.set_sector_size(from.disk.sector_size());
    }
    let session = Session { wanted: &plan.wanted, target: &opened, tables: &plan.tables, options: options.write };
    let shown = if options.json { Shown::json() } else { Shown::new() };
    let (path, result) = match undo {
        UndoFor::New(path) => {
            let is_partition = matches!(options.scope, Scope::Partition(_));
            let old = tables_now(&opened, facts, is_partition)?;
            let save = structures_to_save(&plan.tables, &old, opened.sector_size(), opened.len());
            let place = place_on_disk(facts, options.scope, &opened);
            let start = start_record(&options.work, facts, place, Some(from), options.record.clone());
            let mut undo = Undo::create(&path, start)?;
            let result = with_progress_for(shown, options.threads, |run| Ok(session.start(&mut undo, &save, run)?));
            (path, result)
        }
        UndoFor::Resume(mut undo) => {
            let path = undo.path().to_owned();
            (path, with_progress_for(shown, options.threads, |run| Ok(session.resume(&mut undo, run)?)))
        }
    };
    let restored = result.map_err(|failure| interrupted(failure, &path, options))?;
    finish(&opened, options.scope)?;
    report(from, facts, plan, &restored, &path, options);
    let left = plan.renewal.as_ref().is_some_and(|renewal| renewal.left().next().is_some());
    Ok(if restored.bad.is_empty() && !left { DONE } else { FOUND })
}

/// New identities, for programs.
pub(crate) fn renewal_json(renewal: &Renewal) -> serde_json::Value {
    let renewed: Vec<_> =
        renewal.renewed.iter().map(|new| json!({"what": new.what, "old": new.old, "new": new.new})).collect();
    let named: Vec<_> = renewal
        .named
        .iter()
        .map(|named| {
            json!({"volume": named.volume, "path": named.path, "place": named.place, "old": named.old,
                "new": named.new, "repaired": named.left.is_none(), "reason": named.left})
        })
        .collect();
    json!({"renewed": renewed, "named": named, "notes": renewal.notes})
}

/// A new undo file, or that of a session to take up.
pub(crate) enum UndoFor {
    New(PathBuf),
    Resume(Box<Undo>),
}

/// Where the scope lies on the disk.
fn place_on_disk(facts: &Facts, scope: Scope, opened: &Opened) -> (u64, u64) {
    let start = match scope {
        Scope::Disk => 0,
        Scope::Partition(number) => facts
            .layout
            .partitions
            .iter()
            .find(|partition| partition.number == number)
            .map_or(0, |partition| partition.range.start),
    };
    (start, opened.len())
}

/// Says how to go on after a session ended early.
fn interrupted(failure: Failure, undo: &Path, options: &Options<'_>) -> Failure {
    let hint = format!(
        "the target has no valid table until the restore is complete; go on with: {} --resume --undo {}",
        options.resume_hint,
        undo.display()
    );
    match failure {
        Failure::Library(Error::Cancelled) => Failure::Failed(format!("stopped on request; {hint}")),
        Failure::Library(Error::Refused(reason)) => Failure::Refused(reason),
        failure => {
            eprintln!("hikae: {}", printable(&hint));
            failure
        }
    }
}

/// Has the system take the new table.
pub(crate) fn finish(opened: &Opened, scope: Scope) -> Result<(), Failure> {
    if scope == Scope::Disk
        && let Err(error) = opened.device().reread_table()
    {
        // The bytes are all there: the user has to pull and plug the disk, or to boot.
        eprintln!("hikae: warning: {}", printable(&imgfmt::error::full_message(&error)));
    }
    Ok(())
}

fn report(from: &From, facts: &Facts, plan: &Plan, restored: &Restored, undo: &Path, options: &Options<'_>) {
    let name = facts.given.display().to_string();
    if options.json {
        let report = json!({
            "target": name, "work": options.work, "generation": from.record.generation,
            "data": restored.data, "zero": restored.zero, "absent": restored.absent, "bad": restored.bad,
            "written": restored.written, "skipped": restored.skipped, "verified": restored.verified,
            "notes": plan.notes, "undo": undo.display().to_string(), "ids": plan.renewal.as_ref().map(renewal_json),
        });
        println!("{report:#}");
        return;
    }
    println!(
        "{} is restored to {name} ({}): {} written, {} were right already, {} left alone{}",
        from.what,
        options.work,
        short_size(restored.written),
        short_size(restored.skipped),
        short_size(if options.write.wipe { 0 } else { restored.absent }),
        if restored.verified > 0 { format!(", {} read back", short_size(restored.verified)) } else { String::new() }
    );
    println!("what its tables were before is in {}", undo.display());
    if let Some(renewal) = &plan.renewal {
        let left = renewal.left().count();
        println!(
            "it has a new identity; {} names of the old one are repaired, {left} are not",
            renewal.named.len().saturating_sub(left)
        );
        for named in renewal.left() {
            println!("  {}", printable(&named.to_string()));
        }
    }
    for (start, len) in &restored.bad {
        println!(
            "unreadable at the source, filled with a marker: bytes {start:#x} to {:#x} ({})",
            start.saturating_add(*len),
            short_size(*len)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_files_are_named_after_their_target() {
        for (name, plain) in [
            ("sdb", "sdb"),
            (r"\\.\PhysicalDrive12", "PhysicalDrive12"),
            (r"\\.\E:", "E_"),
            (r"\\?\Volume{0a-1b}", "Volume_0a_1b_"),
            ("my disk.img", "my_disk.img"),
        ] {
            assert_eq!(plain_name(name), plain);
        }
    }
}
