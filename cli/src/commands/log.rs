//! `hikae log`: the versions of one path over the generations.

use std::ffi::OsString;
use std::path::PathBuf;

use imgfmt::compare::history::{State, Version, history};
use imgfmt::engine::Cancel;
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::inside::Inside;
use crate::listing::{exact_time, kind_name, time_text};
use crate::text::{printable, short_size, table};

/// Shows each distinct version of a file or folder over the generations, oldest first.
///
/// A version begins where the content (compared byte for byte), the time, the rights, named streams or attributes differ from the
/// generation before. Files that were deleted before the first generation are out of scope.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE:/PATH.
    #[arg(value_name = "PATH", add = crate::complete::paths())]
    path: OsString,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let inside = Inside::parse(&arguments.path);
    if inside.name.generation.is_some() || !inside.has_path {
        return Err(Failure::WrongUse("a path of an image without a generation is needed: IMAGE:/p1/...".into()));
    }
    let opened = inside.open(&arguments.packs)?;
    let Some((image, _)) = &opened.image else {
        return Err(Failure::WrongUse("only a hikae image has generations".into()));
    };
    let versions = history(image, &opened.tree, &inside.path, &Cancel::default())?;
    if versions.is_empty() {
        let path = printable(&String::from_utf8_lossy(&inside.path));
        return Err(imgfmt::Error::NotFound(format!("no generation has {path}")).into());
    }
    let damaged = versions.iter().any(|version| matches!(version.state, State::Unreadable(_)));
    if arguments.json {
        let versions: Vec<_> = versions.iter().map(as_json).collect();
        println!("{:#}", json!(versions));
    } else {
        let head = ["generations", "size", "modified (UTC)", "what changed"].map(str::to_owned).to_vec();
        let mut rows = vec![head];
        rows.extend(versions.iter().map(row));
        print!("{}", table(&rows, &[1]));
    }
    Ok(if damaged { FOUND } else { DONE })
}

fn row(version: &Version) -> Vec<String> {
    let generations = if version.first == version.last {
        version.first.to_string()
    } else {
        format!("{}-{}", version.first, version.last)
    };
    let (size, modified, what) = match &version.state {
        State::Absent => (String::new(), String::new(), "not there".to_owned()),
        State::Unreadable(reason) => (String::new(), String::new(), format!("cannot be read: {}", printable(reason))),
        State::There { attributes, what } => (
            short_size(attributes.len),
            attributes.modified.map_or(String::new(), time_text),
            what.map_or_else(|| "first seen".to_owned(), |what| what.words().join(", ")),
        ),
    };
    vec![generations, size, modified, what]
}

fn as_json(version: &Version) -> serde_json::Value {
    let (first, last) = (version.first, version.last);
    match &version.state {
        State::Absent => json!({"first": first, "last": last, "state": "absent"}),
        State::Unreadable(reason) => json!({"first": first, "last": last, "state": "unreadable", "reason": reason}),
        State::There { attributes, what } => json!({
            "first": first,
            "last": last,
            "state": "there",
            "kind": kind_name(attributes.kind),
            "len": attributes.len,
            "modified": attributes.modified.map(exact_time),
            "what": what.map(|what| what.words()),
        }),
    }
}
