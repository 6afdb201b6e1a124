//! `hikae find`: files of an image by name, kind, size and time, in one generation or in all.

use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;

use imgfmt::error::full_message;
use imgfmt::filesystem::files::{Attributes, Entry, FileSystem, NodeId, NodeKind};
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::time_of;
use crate::inside::{Inside, Opened};
use crate::listing::node_json;
use crate::text::{parse_size, printable};

/// Folders within folders that are searched.
const MAX_DEPTH: usize = 400;

/// Searches files in an image.
///
/// All conditions given must hold. The disk as a file (disk.raw, disk.vmdk, p1.raw ...) is left out unless it is named. Patterns know * ? [abc] [!abc].
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to start: IMAGE[@GEN][:/PATH].
    #[arg(value_name = "PATH", add = crate::complete::paths())]
    path: OsString,
    /// Name, with * and ?.
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// The same, upper and lower case being equal.
    #[arg(long, value_name = "PATTERN")]
    iname: Option<String>,
    /// Kind: f file, d folder, l symbolic link.
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Kind>,
    /// Size: 10M for at least that, -10M for at most that.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_bound)]
    size: Option<Bound>,
    /// Changed at or after this time, date, or age (7d).
    #[arg(long, value_name = "TIME")]
    newer: Option<String>,
    /// Changed before this time, date, or age.
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// In every generation.
    #[arg(long)]
    all: bool,
    /// End each path with a zero byte, and print it as it is: for xargs -0.
    #[arg(short = '0', long)]
    print0: bool,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// As JSON, one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// File.
    F,
    /// Folder.
    D,
    /// Symbolic link.
    L,
}

/// A limit on sizes.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(u64),
    AtMost(u64),
}

fn parse_bound(text: &str) -> Result<Bound, String> {
    match text.strip_prefix('-') {
        Some(rest) => parse_size(rest).map(Bound::AtMost),
        None => parse_size(text.strip_prefix('+').unwrap_or(text)).map(Bound::AtLeast),
    }
}

/// The conditions, ready to use.
struct Conditions {
    name: Option<glob::Pattern>,
    iname: Option<glob::Pattern>,
    kind: Option<Kind>,
    size: Option<Bound>,
    newer: Option<i64>,
    older: Option<i64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let conditions = conditions(arguments)?;
    let inside = Inside::parse(&arguments.path);
    let opened = inside.open(&arguments.packs)?;
    let prefix = opened.prefix.clone();
    let mut search = Search { arguments, conditions, problems: 0, entered: HashSet::new(), disk_files: 0, prefix };
    let Some((image, _)) = opened.image.as_ref().filter(|_| arguments.all) else {
        let found = opened.find(&inside.path, true)?;
        search.start(&opened, found.resolved.node, &found.resolved.path())?;
        return Ok(search.end());
    };
    let mut found_anywhere = false;
    for entry in image.generations() {
        let start = opened.tree.generation(entry.number)?;
        search.prefix = format!("{}@{}", inside.name.path.display(), entry.number);
        search.entered.clear();
        // A path that one generation lacks is no failure.
        match imgfmt::tree::resolve::resolve(&opened.tree, start, &inside.path, true) {
            Ok(resolved) => {
                found_anywhere = true;
                search.start(&opened, resolved.node, &resolved.path())?;
            }
            Err(imgfmt::Error::NotFound(_)) => {}
            Err(error) => search.problem("", &full_message(&error)),
        }
    }
    if !found_anywhere && search.problems == 0 {
        let path = printable(&String::from_utf8_lossy(&inside.path));
        return Err(imgfmt::Error::NotFound(format!("no generation has {path}")).into());
    }
    Ok(search.end())
}

fn conditions(arguments: &Arguments) -> Result<Conditions, Failure> {
    let pattern = |text: &Option<String>| {
        let pattern = text.as_deref().map(glob::Pattern::new).transpose();
        pattern.map_err(|error| Failure::WrongUse(format!("a pattern is not understood: {error}")))
    };
    let time = |text: &Option<String>, start_of_day: bool| {
        let Some(text) = text else { return Ok::<_, Failure>(None) };
        // A date means its whole day: newer than its first second, older than it.
        let seconds = match text.parse::<jiff::civil::Date>() {
            Ok(date) if start_of_day => {
                date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_second())
            }
            _ => time_of(text).and_then(|seconds| i64::try_from(seconds).ok()),
        };
        let seconds = seconds.ok_or_else(|| Failure::WrongUse(format!("{text:?} is no time, date or age")))?;
        Ok(Some(seconds))
    };
    Ok(Conditions {
        name: pattern(&arguments.name)?,
        iname: pattern(&arguments.iname)?,
        kind: arguments.kind,
        size: arguments.size,
        newer: time(&arguments.newer, true)?,
        older: time(&arguments.older, true)?,
    })
}

impl Conditions {
    /// Whether the name and kind fit; the rest needs attributes.
    fn fits_entry(&self, name: &str, kind: NodeKind) -> bool {
        let insensitive = glob::MatchOptions { case_sensitive: false, ..glob::MatchOptions::new() };
        self.name.as_ref().is_none_or(|pattern| pattern.matches(name))
            && self.iname.as_ref().is_none_or(|pattern| pattern.matches_with(name, insensitive))
            && self.kind.is_none_or(|wanted| {
                matches!(
                    (wanted, kind),
                    (Kind::F, NodeKind::File) | (Kind::D, NodeKind::Folder) | (Kind::L, NodeKind::Symlink)
                )
            })
    }

    fn needs_attributes(&self) -> bool {
        self.size.is_some() || self.newer.is_some() || self.older.is_some()
    }

    fn fits(&self, attributes: &Attributes) -> bool {
        let modified = attributes.modified.map(|time| time.seconds);
        let size = match self.size {
            None => true,
            Some(Bound::AtLeast(least)) => attributes.len >= least,
            Some(Bound::AtMost(most)) => attributes.len <= most,
        };
        size && self.newer.is_none_or(|newer| modified.is_some_and(|modified| modified >= newer))
            && self.older.is_none_or(|older| modified.is_some_and(|modified| modified < older))
    }
}

struct Search<'a> {
    arguments: &'a Arguments,
    conditions: Conditions,
    problems: u64,
    entered: HashSet<NodeId>,
    /// Disk files that were left out and could have been meant.
    disk_files: u64,
    /// What stands before `:/` of the paths found.
    prefix: String,
}

impl Search<'_> {
    /// Says what was left out, and returns the exit code.
    fn end(&self) -> u8 {
        if self.disk_files > 0 {
            let count = self.disk_files;
            eprintln!(
                "hikae: {count} disk files left out (ls lists them; find shows one that is named: IMAGE:/disk.raw)"
            );
        }
        if self.problems > 0 { FOUND } else { DONE }
    }

    fn problem(&mut self, path: &str, what: &str) {
        self.problems = self.problems.saturating_add(1);
        eprintln!("hikae: {}:{}: {}", printable(&self.prefix), printable(path), printable(what));
    }

    fn start(&mut self, opened: &Opened, node: NodeId, path: &str) -> Result<(), Failure> {
        let attributes = opened.tree.attributes(node)?;
        let name = path.rsplit('/').next().unwrap_or("").as_bytes().to_vec();
        self.visit(opened, &Entry { name, node, kind: Some(attributes.kind) }, path.trim_end_matches('/'), 0);
        Ok(())
    }

    fn visit(&mut self, opened: &Opened, entry: &Entry, path: &str, depth: usize) {
        let mut attributes = None;
        let look = |node| match opened.tree.attributes(node) {
            Ok(found) => Ok(found),
            Err(error) => Err(full_message(&error)),
        };
        let kind = match entry.kind {
            Some(kind) => kind,
            None => match look(entry.node) {
                Ok(found) => {
                    let kind = found.kind;
                    attributes = Some(found);
                    kind
                }
                Err(what) => return self.problem(path, &what),
            },
        };
        if self.conditions.fits_entry(&String::from_utf8_lossy(&entry.name), kind) {
            if attributes.is_none() && (self.conditions.needs_attributes() || self.arguments.json) {
                match look(entry.node) {
                    Ok(found) => attributes = Some(found),
                    Err(what) => self.problem(path, &what),
                }
            }
            let fits = match &attributes {
                Some(attributes) => self.conditions.fits(attributes),
                None => !self.conditions.needs_attributes(),
            };
            if fits {
                self.show(entry.node, path, attributes.as_ref());
            }
        }
        if kind == NodeKind::Folder {
            self.folder(opened, entry.node, path, depth);
        }
    }

    fn folder(&mut self, opened: &Opened, folder: NodeId, path: &str, depth: usize) {
        if depth > MAX_DEPTH || !self.entered.insert(folder) {
            return self.problem(path, "this folder was searched already, or lies too deep");
        }
        let mut entries = Vec::new();
        let listed = opened.tree.list(folder, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.problem(path, &full_message(&error));
        }
        for entry in entries {
            if opened.tree.is_disk_file(entry.node) {
                let name = String::from_utf8_lossy(&entry.name);
                if self.conditions.fits_entry(&name, NodeKind::File) {
                    self.disk_files = self.disk_files.saturating_add(1);
                }
                continue;
            }
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            self.visit(opened, &entry, &path, depth.saturating_add(1));
        }
    }

    fn show(&self, node: NodeId, path: &str, attributes: Option<&Attributes>) {
        let path = if path.is_empty() { "/" } else { path };
        let whole = format!("{}:{path}", self.prefix);
        if self.arguments.json {
            let mut value = node_json(path, node, attributes, None);
            value["image"] = json!(self.prefix);
            println!("{value}");
        } else if self.arguments.print0 {
            print!("{whole}\0");
        } else {
            println!("{}", printable(&whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn bounds_are_read_with_their_sign() {
        assert!(matches!(parse_bound("10M"), Ok(Bound::AtLeast(10_485_760))));
        assert!(matches!(parse_bound("-1K"), Ok(Bound::AtMost(1024))));
        assert!(parse_bound("x").is_err());
        assert_eq!(Inside::parse(OsStr::new("no.hik")).path, b"/");
    }
}
