//! `hikae diff`: what changed between two generations, file by file.

use std::ffi::OsString;
use std::path::PathBuf;

use imgfmt::compare::diff::{Change, Difference, Differences, diff};
use imgfmt::compare::{Changes, Comparison};
use imgfmt::engine::Cancel;
use imgfmt::tree::resolve::resolve;
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::choose;
use crate::inside::Inside;
use crate::listing::{exact_time, kind_name};
use crate::text::{printable, short_size, table};

/// Shows which files were added, removed, changed or moved between two generations.
///
/// Exits with 1 where there is a difference. Contents are compared, not only times; times of last access are not. Deleted files
/// whose names are gone from the filesystem are not searched for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE[:/PATH]: everything, or what is below a path.
    #[arg(value_name = "IMAGE[:/PATH]", add = crate::complete::paths())]
    image: OsString,
    /// The generation before: a number, ~1, a date, an age.
    #[arg(default_value = "~1", value_name = "GEN1")]
    before: String,
    /// The generation after.
    #[arg(default_value = "latest", value_name = "GEN2")]
    after: String,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let inside = Inside::parse(&arguments.image);
    if inside.name.generation.is_some() {
        return Err(Failure::WrongUse("generations follow the image: hikae diff IMAGE GEN1 GEN2".into()));
    }
    let opened = inside.open(&arguments.packs)?;
    let Some((image, _)) = &opened.image else {
        return Err(Failure::WrongUse("only a hikae image has generations to compare".into()));
    };
    let (before, after) = (choose(image, &arguments.before)?, choose(image, &arguments.after)?);
    let cancel = Cancel::default();
    let changed = Changes::default().between(image, before.number, after.number)?;
    let comparison = Comparison::new(&opened.tree, changed, &cancel);
    let at = |number| resolve(&opened.tree, opened.tree.generation(number)?, &inside.path, true);
    let (old, new) = (at(before.number)?, at(after.number)?);
    let path = new.path().into_bytes();
    let differences = diff(&opened.tree, &comparison, old.node, new.node, &path)?;
    if arguments.json {
        let found: Vec<_> = differences.found.iter().map(as_json).collect();
        let problems: Vec<_> = differences
            .problems
            .iter()
            .map(|(path, what)| json!({"path": String::from_utf8_lossy(path), "what": what}))
            .collect();
        let all = json!({"before": before.number, "after": after.number, "differences": found, "problems": problems});
        println!("{all:#}");
    } else {
        show(&differences);
    }
    let same = differences.found.is_empty() && differences.problems.is_empty();
    Ok(if same { DONE } else { FOUND })
}

fn show(differences: &Differences) {
    let text = |path: &[u8]| printable(&String::from_utf8_lossy(path));
    let mut rows = Vec::new();
    for difference in &differences.found {
        let len = |attributes: &Option<_>| {
            attributes
                .as_ref()
                .map_or(String::new(), |found: &imgfmt::filesystem::files::Attributes| short_size(found.len))
        };
        let (before, after) = (len(&difference.before), len(&difference.after));
        let (word, detail) = match &difference.change {
            Change::Added => ("added", String::new()),
            Change::Removed => ("removed", String::new()),
            Change::Changed(what) => ("changed", what.words().join(", ")),
            Change::Moved { from, what } => {
                let mut detail = format!("from {}", text(from));
                if !what.is_nothing() {
                    detail += &format!("; {}", what.words().join(", "));
                }
                ("moved", detail)
            }
        };
        let sizes = match (before.as_str(), after.as_str()) {
            ("", after) => after.to_owned(),
            (before, "") => before.to_owned(),
            (before, after) if before == after => after.to_owned(),
            (before, after) => format!("{before} -> {after}"),
        };
        let path = text(&difference.path);
        rows.push(vec![word.to_owned(), sizes, if detail.is_empty() { path } else { format!("{path}  ({detail})") }]);
    }
    print!("{}", table(&rows, &[1]));
    for (path, what) in &differences.problems {
        eprintln!("hikae: {}: {}", text(path), printable(what));
    }
}

fn as_json(difference: &Difference) -> serde_json::Value {
    let side = |attributes: &Option<imgfmt::filesystem::files::Attributes>| {
        attributes.as_ref().map(|found| {
            json!({"kind": kind_name(found.kind), "len": found.len, "modified": found.modified.map(exact_time)})
        })
    };
    let (change, from, what) = match &difference.change {
        Change::Added => ("added", None, Vec::new()),
        Change::Removed => ("removed", None, Vec::new()),
        Change::Changed(what) => ("changed", None, what.words()),
        Change::Moved { from, what } => ("moved", Some(String::from_utf8_lossy(from)), what.words()),
    };
    json!({
        "path": String::from_utf8_lossy(&difference.path),
        "change": change,
        "from": from,
        "what": what,
        "before": side(&difference.before),
        "after": side(&difference.after),
    })
}
