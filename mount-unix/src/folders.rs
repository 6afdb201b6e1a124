//! Open folders. A listing has no place to go on from, so an open folder keeps a window of it.

use std::ops::ControlFlow;
use std::sync::Mutex;

use imgfmt::Result;
use imgfmt::filesystem::files::{Entry, FileSystem, NodeId};

/// Entries that an open folder keeps: a few MiB. Larger folders are listed again for each window.
const WINDOW: usize = 1 << 16;

/// An open folder.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    node: NodeId,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// Index of the first entry that is kept.
    first: u64,
    entries: Vec<Entry>,
    /// No entry follows.
    is_last: bool,
    filled: bool,
}

impl OpenFolder {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, window: Mutex::default() }
    }

    /// Calls `visit` with entries from number `index` on and the numbers of the entries behind them, until it breaks or the folder ends.
    pub(crate) fn visit(
        &self,
        files: &dyn FileSystem,
        mut index: u64,
        mut visit: impl FnMut(&Entry, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut window = self.window.lock().expect("no holder of the lock panics");
        loop {
            let kept = window.first..window.first.saturating_add(window.entries.len().try_into().unwrap_or(0));
            if !window.filled || !(kept.contains(&index) || (window.is_last && index >= kept.end)) {
                *window = self.read(files, index)?;
            }
            let skip = usize::try_from(index.saturating_sub(window.first)).unwrap_or(usize::MAX);
            for entry in window.entries.iter().skip(skip) {
                index = index.saturating_add(1);
                if visit(entry, index).is_break() {
                    return Ok(());
                }
            }
            if window.is_last {
                return Ok(());
            }
        }
    }

    fn read(&self, files: &dyn FileSystem, first: u64) -> Result<Window> {
        let mut window = Window { first, entries: Vec::new(), is_last: true, filled: true };
        let mut skip = first;
        files.list(self.node, &mut |entry| {
            if skip > 0 {
                skip = skip.saturating_sub(1);
            } else if window.entries.len() < WINDOW {
                window.entries.push(entry);
            } else {
                window.is_last = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use imgfmt::Error;
    use imgfmt::filesystem::Summary;
    use imgfmt::filesystem::files::{Attributes, Content, Space, StreamEntry, Xattr};

    use super::*;

    /// A filesystem of one folder with so many entries.
    #[derive(Debug)]
    struct Model(u64);

    fn nothing<T>() -> Result<T> {
        Err(Error::NotFound("the model has nothing else".into()))
    }

    impl FileSystem for Model {
        fn summary(&self) -> Summary {
            Summary::default()
        }
        fn space(&self) -> Result<Space> {
            nothing()
        }
        fn root(&self) -> NodeId {
            NodeId(1)
        }
        fn attributes(&self, _: NodeId) -> Result<Attributes> {
            nothing()
        }
        fn lookup(&self, _: NodeId, _: &[u8]) -> Result<Option<Entry>> {
            nothing()
        }
        fn list(&self, _: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
            for n in 0..self.0 {
                if visit(Entry { name: n.to_string().into(), node: NodeId(n), kind: None }).is_break() {
                    break;
                }
            }
            Ok(())
        }
        fn open(&self, _: NodeId, _: Option<&[u8]>) -> Result<Box<dyn Content>> {
            nothing()
        }
        fn link_target(&self, _: NodeId) -> Result<Vec<u8>> {
            nothing()
        }
        fn streams(&self, _: NodeId) -> Result<Vec<StreamEntry>> {
            nothing()
        }
        fn xattrs(&self, _: NodeId) -> Result<Vec<Xattr>> {
            nothing()
        }
    }

    /// Entries from `index` on, at most so many.
    fn read(folder: &OpenFolder, files: &Model, index: u64, most: usize) -> Vec<u64> {
        let mut read = Vec::new();
        let mut expected = index;
        folder
            .visit(files, index, |entry, next| {
                expected += 1;
                assert_eq!(next, expected);
                read.push(entry.node.0);
                if read.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        read
    }

    #[test]
    fn every_entry_is_seen_once_wherever_a_listing_goes_on() {
        let window = WINDOW as u64;
        for len in [0, 1, window - 1, window, window + 1, 2 * window + 100] {
            let (files, folder) = (Model(len), OpenFolder::new(NodeId(1)));
            let mut seen = Vec::new();
            loop {
                let part = read(&folder, &files, seen.len() as u64, 1000);
                if part.is_empty() {
                    break;
                }
                seen.extend(part);
            }
            assert!(seen.iter().copied().eq(0..len), "{len}");
            // Back and forth.
            for index in [len / 2, 0, len, len + 5, len.saturating_sub(1), 1] {
                assert!(
                    read(&folder, &files, index, 10).into_iter().eq(index..len.min(index + 10)),
                    "{index} of {len}"
                );
            }
        }
    }
}
