//! The whole tree as Windows is shown it against the mount by FUSE.

use dokan2::walk::walk;

use crate::{disks, drive, fuse, tree};

#[test]
fn every_byte_is_that_of_the_mount_by_fuse() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::odd(folder.path());
    let (drive, heard) = drive(&disk);
    let seen = walk(&drive, |_| true);
    let mut ours: Vec<String> = seen.iter().flat_map(|seen| seen.lines()).collect();
    ours.sort();
    let theirs = fuse::lines(folder.path(), tree(&disk), &ours);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.len() > 600, "{}", ours.len());
    assert_eq!(*heard.lock().unwrap(), Vec::<String>::new());
    assert_eq!(drive.0.open_files(), 0);
}
