//! Sequences of calls: those of programs, random ones, and such as are given up.

use dokan2::programs;
use dokan2::random::{Model, give_up};
use dokan2::walk::walk;

use crate::{disks, drive};

/// Sequences for each of four threads.
const SEQUENCES: u64 = 2_500;

#[test]
fn random_sequences_are_answered_as_documented_and_leave_nothing_open() {
    let folder = tempfile::tempdir().unwrap();
    let (drive, heard) = drive(&disks::plain(folder.path()));
    let seen = walk(&drive, |_| false);
    Model::learn(&drive, &seen).run(&drive, 4, SEQUENCES);
    give_up(&drive, &seen, 300);
    assert_eq!(drive.0.open_files(), 0);
    assert_eq!(*heard.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn programs_get_what_they_expect() {
    let folder = tempfile::tempdir().unwrap();
    let (drive, heard) = drive(&disks::odd(folder.path()));
    let seen = walk(&drive, |path| path.len() < 12);
    programs::run(&drive, &seen);
    assert_eq!(drive.0.open_files(), 0);
    assert_eq!(*heard.lock().unwrap(), Vec::<String>::new());
}
