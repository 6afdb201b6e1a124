//! Completion of images, generations and paths inside images. Nothing here prints or fails: what cannot be read completes to nothing.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use imgfmt::filesystem::files::{FileSystem, NodeKind};
use imgfmt::image::OpenOptions;
use imgfmt::tree::resolve::resolve;

use crate::image_name::ImageName;
use crate::inside::Inside;

/// Entries of one folder that are offered: more help nobody.
const MOST: usize = 2000;

/// Completes `IMAGE[@GEN][:/PATH]`.
pub(crate) fn paths() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| inside(current).unwrap_or_default())
}

/// Completes `IMAGE[@GEN]`.
pub(crate) fn generations() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| image(current, false))
}

fn inside(current: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let inside = Inside::parse(current);
    if !inside.has_path {
        return Some(image(current, true));
    }
    let opened = inside.open_quietly(&[]).ok()?;
    let typed = current.as_encoded_bytes();
    let last = inside.path.iter().rposition(|byte| *byte == b'/')?.saturating_add(1);
    let (folder, start) = inside.path.split_at_checked(last)?;
    let before = typed.get(..typed.len().checked_sub(start.len())?)?;
    let folder = resolve(&opened.tree, opened.start, folder, true).ok()?.node;
    let mut found = Vec::new();
    let listed = opened.tree.list(folder, &mut |entry| {
        if entry.name.starts_with(start) {
            let mut value = [before, &entry.name].concat();
            let kind = entry.kind.or_else(|| opened.tree.attributes(entry.node).ok().map(|found| found.kind));
            if kind == Some(NodeKind::Folder) {
                value.push(b'/');
            }
            // Names that are no text cannot be typed in every shell; they are left to patterns.
            if let Ok(value) = String::from_utf8(value)
                && !value.chars().any(char::is_control)
            {
                found.push(CompletionCandidate::new(value));
            }
        }
        if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    listed.ok()?;
    Some(found)
}

fn image(current: &OsStr, with_paths: bool) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    if let Some((path, start)) = text.rsplit_once('@')
        && Path::new(path).is_file()
    {
        return generations_of(path, start);
    }
    let mut found = PathCompleter::any().complete(current);
    if with_paths && Path::new(current).is_file() {
        let mut path = OsString::from(current);
        path.push(":/");
        found.push(CompletionCandidate::new(path));
    }
    if Path::new(current).extension() == Some(OsStr::new("hik")) && Path::new(current).is_file() {
        let mut generation = OsString::from(current);
        generation.push("@");
        found.push(CompletionCandidate::new(generation));
    }
    found
}

fn generations_of(path: &str, start: &str) -> Vec<CompletionCandidate> {
    let name = ImageName { path: path.into(), generation: None };
    let Ok(image) = name.open_quietly(&[], &OpenOptions::default()) else { return Vec::new() };
    let mut names = vec!["latest".to_owned()];
    names.extend(image.generations().iter().rev().map(|entry| entry.number.to_string()));
    names.retain(|name| name.starts_with(start));
    names.into_iter().take(MOST).map(|name| CompletionCandidate::new(format!("{path}@{name}"))).collect()
}
