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
