//! Files of ext2, ext3 and ext4 that the kernel wrote, held against its own view.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use imgfmt::filesystem::files::{Entry, FileSystem, NodeKind};

use crate::tree_oracle::{Oracle, compare, open_files};

/// What the kernel shows of ext beyond what the oracle compares: inode numbers, what folders say, and times of creation.
fn extra(files: &dyn FileSystem, entry: &Entry, there: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    let mut tell = |what: &str, ours: u64, theirs: u64| {
        if ours != theirs {
            differences.push(format!("{what} {ours} and not {theirs}"));
        }
    };
    let theirs = std::fs::symlink_metadata(there).unwrap();
    let ours = files.attributes(entry.node).unwrap();
    tell("inode", entry.node.0, theirs.ino());
    tell("links", u64::from(ours.links), theirs.nlink());
    // Of content that lies in the inode, the driver makes up what it takes.
    if ours.allocated != 0 || theirs.blocks() != theirs.len().div_ceil(512) || theirs.len() > 400 {
        tell("sectors", ours.allocated / 512, theirs.blocks());
    }
    if ours.kind == NodeKind::Folder {
        tell("length", ours.len, theirs.len());
    }
    let statx =
        rustix::fs::statx(rustix::fs::CWD, there, rustix::fs::AtFlags::SYMLINK_NOFOLLOW, rustix::fs::StatxFlags::BTIME)
            .unwrap();
    let has_created = statx.stx_mask & rustix::fs::StatxFlags::BTIME.bits() != 0;
    let theirs = has_created.then_some((statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec));
    if ours.created.map(|time| (time.seconds, time.nanoseconds)) != theirs {
        differences.push(format!("created {:?} and not {theirs:?}", ours.created));
    }
    differences
}

/// Holds the files of an image against a mounted folder.
pub(crate) fn check(image: &Path, mounted: &Path) -> usize {
    // Six GiB of nothing take long to read through the driver.
    let skip = |path: &Path| path == PathBuf::from("far");
    let oracle = Oracle { accessed: 1, all_xattrs: true, skip: &skip, extra: &extra, ..Oracle::default() };
    compare(&*open_files(image), mounted, &oracle)
}
