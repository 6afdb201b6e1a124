//! Paths inside a filesystem, with links followed as the system that wrote them would: an absolute link starts at the root of its own filesystem.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::filesystem::files::{FileSystem, NodeId, NodeKind};

/// Links that one path may lead through: as on Linux.
const MAX_LINKS: usize = 40;
/// Names that a path may have once its links are put in.
const MAX_NAMES: usize = 10_000;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The node.
    pub node: NodeId,
    /// Its names from the start down, as they are stored, links followed.
    pub names: Vec<Vec<u8>>,
}

impl Resolved {
    /// The path as text, with `/` before each name; "/" for the start itself.
    pub fn path(&self) -> String {
        if self.names.is_empty() {
            return "/".into();
        }
        self.names.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect()
    }
}

/// Follows `path` from the folder `start`, which nothing leads above. `follow_last` says whether a link at its very end is followed too; one
/// with a slash behind it is always. `is_root` says which nodes below the start are roots of filesystems of their own.
pub fn resolve<F: FileSystem + ?Sized>(
    files: &F,
    is_root: impl Fn(NodeId) -> bool,
    start: NodeId,
    path: &[u8],
    follow_last: bool,
) -> Result<Resolved> {
    let mut names: VecDeque<Vec<u8>> = split(path);
    let follow_last = follow_last || path.ends_with(b"/");
    let mut at: Vec<(NodeId, Vec<u8>)> = Vec::new();
    let mut links = 0_usize;
    let missing = |at: &[(NodeId, Vec<u8>)], name: &[u8]| {
        let names = at.iter().map(|(_, name)| name.clone()).chain([name.to_vec()]).collect();
        Error::NotFound(format!("there is no {}", Resolved { node: start, names }.path()))
    };
    while let Some(name) = names.pop_front() {
        if name == b".." {
            at.pop();
            continue;
        }
        let folder = at.last().map_or(start, |(node, _)| *node);
        let kind = files.attributes(folder)?.kind;
        if kind != NodeKind::Folder {
            return Err(missing(&at, &name));
        }
        let entry = files.lookup(folder, &name)?.ok_or_else(|| missing(&at, &name))?;
        let is_link = match entry.kind {
            Some(kind) => kind == NodeKind::Symlink,
            None => files.attributes(entry.node)?.kind == NodeKind::Symlink,
        };
        if !is_link || (names.is_empty() && !follow_last) {
            at.push((entry.node, entry.name));
            continue;
        }
        links = links.saturating_add(1);
        if links > MAX_LINKS {
            return Err(Error::corrupt("symbolic link", 0, "the path leads through too many links"));
        }
        let target = files.link_target(entry.node)?;
        let target = match without_drive(&target) {
            Some(rest) => {
                // The first name below the start is the filesystem: a partition, or a generation's partition.
                let root = at.iter().position(|(node, _)| is_root(*node)).map_or(0, |root| root.saturating_add(1));
                at.truncate(root);
                rest
            }
            None => &target[..],
        };
        for name in split(target).into_iter().rev() {
            names.push_front(name);
        }
        if names.len() > MAX_NAMES {
            return Err(Error::corrupt("symbolic link", 0, "the path becomes too long"));
        }
    }
    let node = at.last().map_or(start, |(node, _)| *node);
    Ok(Resolved { node, names: at.into_iter().map(|(_, name)| name).collect() })
}

fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// What follows the root of an absolute path, `/x` or `C:/x`; `None` for a relative one.
fn without_drive(target: &[u8]) -> Option<&[u8]> {
    match target {
        [b'/', rest @ ..] => Some(rest),
        [letter, b':', b'/', rest @ ..] if letter.is_ascii_alphabetic() => Some(rest),
        _ => None,
    }
}
