//! `hikae cp`: files and folders of an image, copied out with all that belongs to them.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use imgfmt::extract::metadata::Keep;
use imgfmt::extract::{ExtractOptions, Extracted, Note, Streams, extract};
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::inside::Inside;
use crate::text::{printable, size};
use crate::work::with_progress;

/// Problems and notes that are printed; the rest is counted.
const PRINTED: usize = 50;

/// Copies files and folders out of an image.
///
/// Times, permissions, owners (as root), extended attributes, access control lists, holes, hard and symbolic links are kept. Nothing is ever
/// written outside of the target folder, whatever names and links the image holds, and files take their names only when they are whole.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Arguments {
    /// What to copy, IMAGE[@GEN]:/PATH, and last where to: a folder of this machine, or a new name.
    #[arg(required = true, value_name = "PATH ... TARGET", add = crate::complete::paths())]
    paths: Vec<OsString>,
    /// Folders with everything below them, but the disk as a file (disk.raw, disk.vmdk, p1.raw ...), which is copied where it is named.
    #[arg(short, long)]
    recursive: bool,
    /// TARGET is what the source becomes, not a folder to put it into.
    #[arg(short = 'T', long)]
    no_target_directory: bool,
    /// Write only what differs from what is there.
    #[arg(long)]
    update: bool,
    /// Remove from the target folders what the source does not have (asks first).
    #[arg(long, requires = "recursive")]
    delete: bool,
    /// Do not ask before --delete removes.
    #[arg(long)]
    yes: bool,
    /// What becomes of named streams (NTFS).
    #[arg(long, value_enum, default_value = crate::system::DEFAULT_STREAMS)]
    streams: StreamsChoice,
    /// Keep files that are damaged in the image, with a marker in place of what is missing.
    #[arg(long)]
    salvage: bool,
    /// Keep nothing but the content.
    #[arg(long)]
    no_preserve: bool,
    /// Do not keep owners and groups (kept by default when run as root).
    #[arg(long)]
    no_owner: bool,
    /// Also make device nodes, and keep set-uid and set-gid bits and capabilities.
    #[arg(long)]
    privileged: bool,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Worker threads; one a core by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

/// What becomes of named streams.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum StreamsChoice {
    /// They are left out and counted.
    LeaveOut,
    /// Each becomes a file NAME:STREAM.
    Files,
    /// Each becomes an extended attribute user.STREAM.
    Xattrs,
    /// Each stays a stream of its file (Windows).
    Keep,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let (target, sources) = arguments.paths.split_last().expect("clap asks for one");
    if sources.is_empty() {
        return Err(Failure::WrongUse("cp needs what to copy, IMAGE[@GEN]:/PATH, and last where to".into()));
    }
    let target = Path::new(target);
    if Inside::parse(target.as_os_str()).has_path && target.to_string_lossy().contains(".hik") {
        return Err(Failure::WrongUse("the target lies inside an image: images are never written to".into()));
    }
    let into_folder = target.is_dir() && !arguments.no_target_directory;
    if !into_folder && sources.len() > 1 {
        return Err(Failure::WrongUse(format!("{} is no folder, and there are several sources", target.display())));
    }
    let options = options(arguments);
    let mut report = Extracted::default();
    for text in sources {
        let copied = copy_one(arguments, text, target, into_folder, &options)?;
        if sources.len() > 1 && !arguments.json {
            println!("{}:", crate::inside::shown(text));
        }
        show(arguments, &copied);
        report.problem_count = report.problem_count.saturating_add(copied.problem_count);
    }
    Ok(if report.problem_count > 0 { FOUND } else { DONE })
}

fn options(arguments: &Arguments) -> ExtractOptions {
    let keep = if arguments.no_preserve {
        Keep::NOTHING
    } else {
        let owner = !arguments.no_owner && crate::system::is_root();
        Keep { owner, privileged: arguments.privileged, ..Keep::SAFE }
    };
    ExtractOptions {
        keep,
        recursive: arguments.recursive,
        update: arguments.update,
        delete: arguments.delete,
        streams: match arguments.streams {
            StreamsChoice::LeaveOut => Streams::LeaveOut,
            StreamsChoice::Files => Streams::AsFiles,
            StreamsChoice::Xattrs => Streams::AsXattrs,
            StreamsChoice::Keep => Streams::AsStreams,
        },
        salvage: arguments.salvage,
    }
}

fn copy_one(
    arguments: &Arguments,
    text: &OsStr,
    target: &Path,
    into_folder: bool,
    options: &ExtractOptions,
) -> Result<Extracted, Failure> {
    let inside = Inside::parse(text);
    if !inside.has_path {
        let path = printable(&text.to_string_lossy());
        return Err(Failure::WrongUse(format!("{path} names no path inside an image: IMAGE[@GEN]:/p1/...")));
    }
    let opened = inside.open(&arguments.packs)?;
    let found = opened.find(&inside.path, false)?;
    if found.stream.is_some() {
        return Err(Failure::WrongUse("a stream alone is printed by hikae cat".into()));
    }
    let path = found.resolved.path();
    let own_name = found.resolved.names.last();
    let (folder, name) = if into_folder {
        let Some(name) = own_name else {
            return Err(Failure::WrongUse("a whole generation needs a new name: -T TARGET".into()));
        };
        (target.to_owned(), name.clone())
    } else {
        let name = target
            .file_name()
            .ok_or_else(|| Failure::WrongUse(format!("{} names no file or folder to make", target.display())))?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (folder.to_owned(), name.as_encoded_bytes().to_vec())
    };
    if !folder.is_dir() {
        return Err(Failure::WrongUse(format!("there is no folder {}", folder.display())));
    }
    crate::system::allow_many_open_files();
    let confirm = |names: &[String]| arguments.yes || ask(names);
    let copied = with_progress(arguments.threads, |run| {
        run.progress.begin("copying", 0);
        let copied = extract(&opened.tree, found.resolved.node, &path, &folder, &name, options, &confirm, run)?;
        Ok(copied)
    });
    copied.map_err(|failure| {
        failure.if_stopped(|| {
            "files that have their names are whole, folders do not have their times and rights yet; go on with --update"
                .into()
        })
    })
}

/// Asks whether these may be removed; without a terminal the answer is no.
fn ask(names: &[String]) -> bool {
    for name in names.iter().take(PRINTED) {
        eprintln!("would remove {}", printable(name));
    }
    if names.len() > PRINTED {
        eprintln!("... and {} more", names.len().saturating_sub(PRINTED));
    }
    if !std::io::stdin().is_terminal() {
        eprintln!("nothing is removed: say --yes to remove {} names", names.len());
        return false;
    }
    eprintln!("Remove these {} names with everything below them? Type yes:", names.len());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

fn show(arguments: &Arguments, copied: &Extracted) {
    if arguments.json {
        let notes = |notes: &[Note]| -> Vec<_> {
            notes.iter().map(|note| json!({"path": note.path, "what": note.what})).collect()
        };
        let report = json!({
            "folders": copied.folders,
            "files": copied.files,
            "bytes": copied.bytes,
            "unchanged": copied.unchanged,
            "links": copied.links,
            "removed": copied.removed,
            "streams_left_out": copied.streams_left_out,
            "disk_files_left_out": copied.disk_files_left_out,
            "problems": notes(&copied.problems),
            "problem_count": copied.problem_count,
            "notes": notes(&copied.notes),
            "note_count": copied.note_count,
        });
        println!("{report:#}");
        return;
    }
    let tell = |head: &str, notes: &[Note], count: u64| {
        for note in notes.iter().take(PRINTED) {
            eprintln!("hikae: {head}{}: {}", printable(&note.path), printable(&note.what));
        }
        let more = count.saturating_sub(u64::try_from(notes.len().min(PRINTED)).unwrap_or(0));
        if more > 0 {
            eprintln!("hikae: {head}... and {more} more");
        }
    };
    tell("note: ", &copied.notes, copied.note_count);
    tell("", &copied.problems, copied.problem_count);
    let mut line = format!("{} files ({}) in {} folders", copied.files, size(copied.bytes), copied.folders);
    for (count, what) in [
        (copied.links, "links"),
        (copied.unchanged, "unchanged"),
        (copied.removed, "removed"),
        (copied.streams_left_out, "named streams left out (--streams keeps them)"),
        (copied.disk_files_left_out, "disk files left out (name one to copy it: IMAGE:/disk.raw)"),
        (copied.problem_count, "problems"),
    ] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    println!("{line}");
}
