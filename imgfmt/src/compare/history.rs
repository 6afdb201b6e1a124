//! The versions of one path over the generations.

use std::sync::Arc;

use crate::compare::{Changes, Comparison, What};
use crate::engine::Cancel;
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::{Attributes, FileSystem, NodeId};
use crate::image::Image;
use crate::tree::Tree;
use crate::tree::resolve::resolve;

/// A run of generations in which a path is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// First generation of the run.
    pub first: u32,
    /// Last generation of the run.
    pub last: u32,
    /// What the path is in that run.
    pub state: State,
}

/// What a path is in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    There {
        /// Its attributes in the first generation of the run.
        attributes: Box<Attributes>,
        /// What differs from the version before; `None` where it was not there before.
        what: Option<What>,
    },
    /// It is not there.
    Absent,
    /// It cannot be read; the reason.
    Unreadable(String),
}

/// The distinct versions of `path`, oldest first. Generations before its first appearance are not told.
pub fn history(image: &Arc<Image>, tree: &Tree, path: &[u8], cancel: &Cancel) -> Result<Vec<Version>> {
    let changes = Changes::default();
    let mut versions: Vec<Version> = Vec::new();
    let mut before: Option<(u32, NodeId, Attributes)> = None;
    for entry in image.generations() {
        cancel.check()?;
        let number = entry.number;
        let (state, now) = match look(tree, number, path) {
            Ok(None) => (State::Absent, None),
            Ok(Some((node, attributes))) => {
                let what = match &before {
                    None => None,
                    Some((then, node_then, attributes_then)) => {
                        let changed = changes.between(image, *then, number)?;
                        let comparison = Comparison::new(tree, changed, cancel);
                        Some(comparison.compare((*node_then, attributes_then), (node, &attributes)))
                    }
                };
                let state = match what.transpose() {
                    Ok(what) => State::There { attributes: Box::new(attributes.clone()), what },
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => State::Unreadable(full_message(&error)),
                };
                (state, Some((number, node, attributes)))
            }
            Err(error) => (State::Unreadable(full_message(&error)), None),
        };
        before = now;
        let same = match (versions.last().map(|version| &version.state), &state) {
            (Some(State::There { .. }), State::There { what: Some(what), .. }) => what.is_nothing(),
            (Some(State::Absent), State::Absent) => true,
            (Some(State::Unreadable(then)), State::Unreadable(now)) => then == now,
            _ => false,
        };
        match versions.last_mut() {
            Some(version) if same => version.last = number,
            None if state == State::Absent => {}
            _ => versions.push(Version { first: number, last: number, state }),
        }
    }
    Ok(versions)
}

fn look(tree: &Tree, generation: u32, path: &[u8]) -> Result<Option<(NodeId, Attributes)>> {
    let start = tree.generation(generation)?;
    match resolve(tree, start, path, false) {
        Ok(resolved) => Ok(Some((resolved.node, tree.attributes(resolved.node)?))),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
