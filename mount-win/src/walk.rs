//! From a path to a node, through folders and symbolic links.
//!
//! Windows would have to follow links itself, by a call that Dokan does not offer, so they are followed here: a link is shown as what it
//! leads to, wherever that lies in the tree. One that leads nowhere, in a circle or out of the tree is a file that holds its target as text,
//! as Git for Windows has it.

use std::sync::Arc;

use imgfmt::filesystem::files::{Attributes, FileSystem, NodeId, NodeKind};
use imgfmt::tree::Tree;
use imgfmt::tree::resolve::resolve;
use imgfmt::{Error, Result};

use crate::folders::Folders;
use crate::information::{Information, Link};

/// A node that a path leads to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The node, links followed.
    pub(crate) node: NodeId,
    /// What is known of it.
    pub(crate) information: Information,
    /// The text of a link that leads nowhere.
    pub(crate) text: Option<Arc<[u8]>>,
    /// A device, pipe or socket: nothing can be read of it.
    pub(crate) is_special: bool,
}

/// Where a path ends that does not lead to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The last name is not there.
    Name,
    /// A folder before it is not there, or is no folder.
    Path,
}

/// Finds nodes in a tree.
#[derive(Debug)]
pub(crate) struct Walker {
    tree: Arc<Tree>,
    folders: Folders,
}

impl Walker {
    pub(crate) fn new(tree: Arc<Tree>) -> Self {
        Self { tree, folders: Folders::default() }
    }

    pub(crate) fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Follows names from the root.
    pub(crate) fn walk(&self, names: &[Vec<u16>]) -> Result<Result<Found, Missing>> {
        let mut at = Place { node: self.tree.root(), names: Vec::new() };
        let Some((last, folders)) = names.split_last() else { return self.look(at.node, Link::None).map(Ok) };
        for name in folders {
            match self.step(&at, name)? {
                Some(Step::Place(place, _)) => at = place,
                Some(Step::Text(..)) | None => return Ok(Err(Missing::Path)),
            }
        }
        if !self.is_folder(at.node)? {
            return Ok(Err(Missing::Path));
        }
        match self.step(&at, last)? {
            Some(Step::Place(place, link)) => self.look(place.node, link).map(Ok),
            Some(Step::Text(node, text)) => self.text(node, text).map(Ok),
            None => Ok(Err(Missing::Name)),
        }
    }

    /// What an entry of the folder with these names leads to.
    pub(crate) fn entry(&self, folder: &Place, name: &[u8], node: NodeId, kind: Option<NodeKind>) -> Result<Found> {
        let is_link = match kind {
            Some(kind) => kind == NodeKind::Symlink,
            None => self.tree.attributes(node)?.kind == NodeKind::Symlink,
        };
        if !is_link {
            return self.look(node, Link::None);
        }
        match self.follow(folder, name, node)? {
            Step::Place(place, link) => self.look(place.node, link),
            Step::Text(node, text) => self.text(node, text),
        }
    }

    /// The place that names lead to, which is a folder.
    pub(crate) fn folder(&self, names: &[Vec<u16>]) -> Result<Option<Place>> {
        let mut at = Place { node: self.tree.root(), names: Vec::new() };
        for name in names {
            match self.step(&at, name)? {
                Some(Step::Place(place, _)) => at = place,
                _ => return Ok(None),
            }
        }
        Ok(self.is_folder(at.node)?.then_some(at))
    }

    fn is_folder(&self, node: NodeId) -> Result<bool> {
        Ok(self.tree.attributes(node)?.kind == NodeKind::Folder)
    }

    fn step(&self, at: &Place, name: &[u16]) -> Result<Option<Step>> {
        if !self.is_folder(at.node)? {
            return Ok(None);
        }
        let Some(entry) = self.folders.find(&self.tree, at.node, name)? else { return Ok(None) };
        let kind = match entry.kind {
            Some(kind) => kind,
            None => self.tree.attributes(entry.node)?.kind,
        };
        if kind == NodeKind::Symlink {
            return self.follow(at, &entry.name, entry.node).map(Some);
        }
        let mut names = at.names.clone();
        names.push(entry.name);
        Ok(Some(Step::Place(Place { node: entry.node, names }, Link::None)))
    }

    /// Follows the link `name` in the folder `at`.
    fn follow(&self, at: &Place, name: &[u8], node: NodeId) -> Result<Step> {
        let mut path = Vec::new();
        for name in at.names.iter().map(Vec::as_slice).chain([name]) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        let resolved = match resolve(&self.tree, self.tree.root(), &path, true) {
            Ok(resolved) => resolved,
            // It leads nowhere, or in a circle.
            Err(Error::NotFound(_) | Error::Corrupt { .. }) => {
                return Ok(Step::Text(node, self.tree.link_target(node)?.into()));
            }
            Err(error) => return Err(error),
        };
        // `latest` is the tree's own, and leads down.
        let link = if at.names.is_empty() && self.tree.origin(node)?.is_none() { Link::Plain } else { Link::Folder };
        Ok(Step::Place(Place { node: resolved.node, names: resolved.names }, link))
    }

    fn look(&self, node: NodeId, link: Link) -> Result<Found> {
        let attributes = self.tree.attributes(node)?;
        let is_folder = attributes.kind == NodeKind::Folder;
        let is_special = !matches!(attributes.kind, NodeKind::File | NodeKind::Folder);
        let link = if is_folder { link } else { Link::None };
        let len = if is_special { 0 } else { attributes.len };
        Ok(Found { node, information: Information::new(node, &attributes, len, link), text: None, is_special })
    }

    fn text(&self, node: NodeId, text: Arc<[u8]>) -> Result<Found> {
        let attributes = Attributes { kind: NodeKind::File, ..self.tree.attributes(node)? };
        let len = u64::try_from(text.len()).unwrap_or(0);
        let information = Information::new(node, &attributes, len, Link::None);
        Ok(Found { node, information, text: Some(text), is_special: false })
    }
}

/// A folder on the way, with the names by which its tree knows it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    names: Vec<Vec<u8>>,
}

enum Step {
    /// A node, and by what kind of link.
    Place(Place, Link),
    /// A link that leads nowhere, and its target.
    Text(NodeId, Arc<[u8]>),
}
