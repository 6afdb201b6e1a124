//! `hikae ls`: what is in a folder of an image.

use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;

use imgfmt::error::full_message;
use imgfmt::filesystem::files::{Attributes, Entry, FileSystem, NodeId, NodeKind};
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::inside::{Inside, Opened};
use crate::listing::{kind_name, mode_text, node_json, time_text};
use crate::text::{printable, short_size, table};

/// Folders within folders that `-R` goes through.
const MAX_DEPTH: usize = 400;

/// Lists files in an image, without root and without mounting anything.
///
/// A path is IMAGE[@GEN]:/pN/folder/file: p1 is partition 1, and the generation is the latest unless one is named (a number, latest, ~1,
/// a date such as 2026-11-15, an age such as 7d).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE[@GEN][:/PATH]; the image can be a hikae image, any disk image that is read, or a device.
    #[arg(required = true, value_name = "PATH", add = crate::complete::paths())]
    paths: Vec<OsString>,
    /// Mode, links, owner, group, size, time, and where links point.
    #[arg(short, long)]
    long: bool,
    /// Sizes with units.
    #[arg(short = 'H', long)]
    human: bool,
    /// Folders with everything below them.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The folder itself rather than what is in it.
    #[arg(short, long)]
    directory: bool,
    /// Named streams too.
    #[arg(long)]
    streams: bool,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// One line.
struct Row {
    name: String,
    node: NodeId,
    attributes: Result<Attributes, String>,
    target: Option<Vec<u8>>,
    streams: Vec<(String, u64)>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let mut lister = Lister { arguments, entries: Vec::new(), problems: 0, entered: HashSet::new() };
    for text in &arguments.paths {
        let inside = Inside::parse(text);
        let opened = inside.open(&arguments.packs)?;
        let found = opened.find(&inside.path, !arguments.long && !arguments.directory)?;
        let path = found.resolved.path();
        let node = found.resolved.node;
        if arguments.directory || !opened.is_folder(node)? {
            let row = lister.row(&opened, path.clone(), node, None);
            lister.show(&opened, &path, vec![row]);
            continue;
        }
        lister.folder(&opened, node, path.trim_end_matches('/'), arguments.paths.len() > 1, 0);
    }
    if arguments.json {
        println!("{:#}", json!(lister.entries));
    }
    Ok(if lister.problems > 0 { FOUND } else { DONE })
}

struct Lister<'a> {
    arguments: &'a Arguments,
    entries: Vec<serde_json::Value>,
    problems: u64,
    entered: HashSet<NodeId>,
}

impl Lister<'_> {
    fn problem(&mut self, path: &str, what: &str) {
        self.problems = self.problems.saturating_add(1);
        eprintln!("hikae: {}: {}", printable(path), printable(what));
    }

    fn row(&mut self, opened: &Opened, name: String, node: NodeId, kind: Option<NodeKind>) -> Row {
        let arguments = self.arguments;
        let mut row = Row { name, node, attributes: Err(String::new()), target: None, streams: Vec::new() };
        if !arguments.long && !arguments.json && !arguments.streams && kind.is_some() {
            // The kind is all that the short form shows, and the folder told it: no look at each node.
            return row;
        }
        row.attributes = opened.tree.attributes(node).map_err(|error| full_message(&error));
        if row.attributes.as_ref().is_ok_and(|attributes| attributes.kind == NodeKind::Symlink) {
            row.target = opened.tree.link_target(node).ok();
        }
        if arguments.streams {
            match opened.tree.streams(node) {
                Ok(streams) => {
                    row.streams = streams
                        .into_iter()
                        .map(|stream| (String::from_utf8_lossy(&stream.name).into_owned(), stream.len))
                        .collect();
                }
                Err(error) => row.attributes = Err(full_message(&error)),
            }
        }
        row
    }

    fn folder(&mut self, opened: &Opened, folder: NodeId, path: &str, with_head: bool, depth: usize) {
        let mut entries: Vec<Entry> = Vec::new();
        let listed = opened.tree.list(folder, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.problem(path, &full_message(&error));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if (with_head || self.arguments.recursive) && !self.arguments.json {
            let gap = if depth > 0 { "\n" } else { "" };
            println!("{gap}{}:{}:", printable(&opened.prefix), printable(if path.is_empty() { "/" } else { path }));
        }
        let rows = entries
            .iter()
            .map(|entry| {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                self.row(opened, name, entry.node, entry.kind)
            })
            .collect();
        self.show(opened, path, rows);
        if !self.arguments.recursive {
            return;
        }
        self.entered.insert(folder);
        for entry in entries {
            let kind = entry.kind.or_else(|| opened.tree.attributes(entry.node).ok().map(|found| found.kind));
            if kind != Some(NodeKind::Folder) {
                continue;
            }
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            if depth >= MAX_DEPTH || self.entered.contains(&entry.node) {
                self.problem(&path, "this folder was listed already, or lies too deep");
                continue;
            }
            self.folder(opened, entry.node, &path, true, depth.saturating_add(1));
        }
    }

    /// Prints rows of one folder, or keeps them for JSON.
    fn show(&mut self, opened: &Opened, folder: &str, rows: Vec<Row>) {
        let mut lines = Vec::new();
        for row in rows {
            if let Err(what) = &row.attributes
                && !what.is_empty()
            {
                self.problem(&format!("{folder}/{}", row.name), what);
            }
            if self.arguments.json {
                let path = if row.name.starts_with('/') { row.name.clone() } else { format!("{folder}/{}", row.name) };
                let mut value = node_json(&path, row.node, row.attributes.as_ref().ok(), row.target.as_deref());
                if self.arguments.streams {
                    let streams: Vec<_> =
                        row.streams.iter().map(|(name, len)| json!({"name": name, "len": len})).collect();
                    value["streams"] = json!(streams);
                }
                value["image"] = json!(opened.prefix);
                self.entries.push(value);
                continue;
            }
            self.lines(&row, &mut lines);
        }
        if self.arguments.long {
            print!("{}", table(&lines, &[1, 4]));
        } else {
            lines.iter().for_each(|line| println!("{}", line.join("")));
        }
    }

    fn lines(&self, row: &Row, lines: &mut Vec<Vec<String>>) {
        let name = printable(&row.name);
        let size = |len: u64| if self.arguments.human { short_size(len) } else { len.to_string() };
        if !self.arguments.long {
            lines.push(vec![name.clone()]);
            lines.extend(row.streams.iter().map(|(stream, _)| vec![format!("{name}:{}", printable(stream))]));
            return;
        }
        let id = |id: Option<u32>| id.map_or("-".into(), |id: u32| id.to_string());
        let Ok(attributes) = &row.attributes else {
            let unknown = || "?".to_owned();
            lines.push(vec!["??????????".into(), unknown(), unknown(), unknown(), unknown(), unknown(), name]);
            return;
        };
        let shown = match &row.target {
            Some(target) => format!("{name} -> {}", printable(&String::from_utf8_lossy(target))),
            None => name.clone(),
        };
        let bytes = match attributes.kind {
            NodeKind::CharacterDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                format!("{major},{minor}")
            }
            _ => size(attributes.len),
        };
        lines.push(vec![
            mode_text(attributes),
            attributes.links.to_string(),
            id(attributes.uid),
            id(attributes.gid),
            bytes,
            attributes.modified.map_or("-".into(), time_text),
            shown,
        ]);
        for (stream, len) in &row.streams {
            let kind = kind_name(NodeKind::File);
            let dash = || "-".to_owned();
            let name = format!("{name}:{}", printable(stream));
            lines.push(vec![format!("{kind} stream"), dash(), dash(), dash(), size(*len), dash(), name]);
        }
    }
}
