//! Files of ext2, ext3 and ext4: no panic, no endless tree, and contents that are as long and tiled as they say.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem;
use imgfmt::filesystem::files::{Content, NodeKind};

/// Nodes that are looked at, and extents of each.
const MOST: usize = 1000;

/// Opens `data` as a partition and reads everything in it.
pub fn run(data: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(data.to_vec()));
    let Ok(Some(files)) = filesystem::open_files(&disk) else { return };
    let _ = (files.summary(), files.space());
    let mut seen = HashSet::from([files.root()]);
    let mut queue = vec![files.root()];
    while let Some(node) = queue.pop() {
        let _ = (files.xattrs(node), files.streams(node), files.link_target(node));
        let Ok(attributes) = files.attributes(node) else { continue };
        if let Ok(content) = files.open(node, None) {
            assert_eq!(content.len(), attributes.len, "a content is as long as its node says");
            read(&*content);
        }
        if attributes.kind != NodeKind::Folder {
            continue;
        }
        let mut names = Vec::new();
        let _ = files.list(node, &mut |entry| {
            assert!(!matches!(&entry.name[..], b"" | b"." | b".."), "names can stand in a path");
            assert!(!entry.name.iter().any(|byte| matches!(byte, 0 | b'/')), "names can stand in a path");
            if seen.len() < MOST && seen.insert(entry.node) {
                queue.push(entry.node);
            }
            names.push(entry.name);
            if names.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        for name in names.iter().take(20) {
            let _ = files.lookup(node, name);
        }
        let _ = files.lookup(node, b"not there");
    }
}

fn read(content: &dyn Content) {
    let len = content.len();
    let mut buf = vec![0; 5000];
    for at in [0, len / 2, len.saturating_sub(5000)] {
        let part = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let _ = content.read_at(buf.get_mut(..part).unwrap_or_default(), at);
    }
    assert!(content.read_at(buf.get_mut(..1).unwrap_or_default(), len).is_err(), "nothing is behind the end");
    let mut at = 0;
    for _ in 0..MOST {
        if at >= len {
            break;
        }
        let Ok(extent) = content.extent_at(at) else { break };
        assert!(extent.offset == at && extent.len > 0 && extent.end() <= len, "extents tile a content");
        at = extent.end();
    }
    let _ = content.places();
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_mutations_of_them() {
        crate::ext_seed::on_mutations(1200, super::run);
    }
}
