//! The operations of a drive, called as Dokan would call them, on every system that has the tools.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step in a test fails the test, which is what it is for")]

mod disks;
mod fuse;
mod names;
mod sequences;
mod tree;
mod writes;

use std::path::Path;
use std::sync::{Arc, Mutex};

use dokan2::direct::Direct;
use imgfmt::format::identity::Identity;
use imgfmt::readahead::Readahead;
use imgfmt::source::FileDisk;
use imgfmt::tree::{Tree, TreeOptions};
use mount_win::operations::Operations;
use mount_win::volume::VolumeInformation;

/// A tree of a raw disk.
fn tree(disk: &Path) -> Tree {
    let disk = Arc::new(FileDisk::open(disk, 512).unwrap());
    Tree::of_disk(disk, &Identity::of(&["disk"], 1_700_000_000), &TreeOptions::default())
}

/// A drive, and what it logs.
fn drive(disk: &Path) -> (Direct, Arc<Mutex<Vec<String>>>) {
    drive_of(tree(disk))
}

fn drive_of(tree: Tree) -> (Direct, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let log = Arc::new(move |line: &str| log.lock().unwrap().push(line.to_owned()));
    let tree = Arc::new(tree);
    let volume = VolumeInformation::new("disk", 0x1234_5678, tree.takes_writes());
    let readahead = Readahead::start(2, 16 << 20).unwrap();
    (Direct(Operations::new(tree, volume, readahead, log)), heard)
}
