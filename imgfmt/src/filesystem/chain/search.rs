//! Finding the path of what a directory entry at a known place describes.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::error::Result;

/// Directories that are looked through at the most.
const MAX_DIRECTORIES: usize = 1 << 20;

/// What a directory holds that matters to a search.
pub(crate) enum Met<P> {
    /// The entry that is searched for, by its name.
    Wanted(String),
    /// A directory: its name, its first cluster, and how it is listed.
    Directory(String, u32, P),
}

/// Lists one directory: calls back for each thing that matters, until it is told to stop.
pub(crate) type List<'a, P> = dyn FnMut(P, &mut dyn FnMut(Met<P>) -> ControlFlow<()>) -> Result<()> + 'a;

/// Looks through all directories from `root` and returns the path of the wanted entry, names joined by `/`. Directories that share a first
/// cluster are looked through once, so loops end.
pub(crate) fn find_path<P: Copy>(root: P, list: &mut List<'_, P>) -> Result<Option<String>> {
    // Directories that were found: name, which of these it lies in, place.
    let mut directories = vec![(String::new(), 0_usize, root)];
    let mut seen = HashSet::new();
    let mut next = 0;
    while let Some((_, _, directory)) = directories.get(next) {
        let mut wanted = None;
        list(*directory, &mut |met| match met {
            Met::Wanted(name) => {
                wanted = Some(name);
                ControlFlow::Break(())
            }
            Met::Directory(name, start, place) => {
                if directories.len() < MAX_DIRECTORIES && seen.insert(start) {
                    directories.push((name, next, place));
                }
                ControlFlow::Continue(())
            }
        })?;
        if let Some(name) = wanted {
            let mut path = vec![name];
            while let Some((name, parent, _)) = directories.get(next).filter(|_| next != 0) {
                path.push(name.clone());
                next = *parent;
            }
            path.reverse();
            return Ok(Some(path.join("/")));
        }
        next = next.saturating_add(1);
    }
    Ok(None)
}
