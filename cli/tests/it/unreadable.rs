//! A disk with unreadable sectors, from the first capture to the restore: a mount whose image is damaged answers with I/O errors, as a dying disk does.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::{Random, hikae, text};

/// Where the sectors lie that cannot be read: a chunk of the image that is mounted.
const BAD: std::ops::Range<usize> = 0x30_0000..0x31_0000;

/// Takes the mount away at the end of a test, whatever state it is in.
struct AtEnd(PathBuf);

impl Drop for AtEnd {
    fn drop(&mut self) {
        hikae(Path::new("/"), ["umount", text(&self.0)]);
    }
}

/// Makes `disk.img` of noise, and mounts an image of it with one chunk damaged on `mnt`.
fn dying_disk(folder: &Path) -> (Vec<u8>, AtEnd) {
    let mut bytes = vec![0; 8 << 20];
    Random::new(3).fill(&mut bytes);
    fs::write(folder.join("disk.img"), &bytes).unwrap();
    hikae(folder, ["capture", "disk.img", "disk.hik"]).expect(0);
    let pack = folder.join("disk.hik");
    let mut stored = fs::read(&pack).unwrap();
    let needle = &bytes[BAD.start + 100..BAD.start + 200];
    let at = stored.windows(needle.len()).position(|window| window == needle).unwrap();
    stored[at] ^= 1;
    fs::write(&pack, stored).unwrap();
    let mount = folder.join("mnt");
    fs::create_dir(&mount).unwrap();
    hikae(folder, ["mount", "disk.hik", "mnt"]).expect(0);
    (bytes, AtEnd(mount))
}

#[test]
fn unreadable_sectors_are_kept_count_of_marked_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (bytes, mount) = dying_disk(folder);
    // Everything else is kept, and the exit code says that something is missing.
    let ran = hikae(folder, ["capture", "mnt/latest/disk.raw", "kept.hik", "--json"]).expect(1);
    let record = &ran.json()["record"];
    assert_eq!(record["bad"], serde_json::json!([[BAD.start, BAD.len()]]));
    assert_eq!(record["counts"]["bad"], BAD.len());
    hikae(folder, ["list", "kept.hik"]).expect(0).says(&["64.0 KiB unreadable"]);
    // Reading them is an error that names them; a restore marks and lists them.
    hikae(folder, ["cat", "kept.hik:/disk.raw"]).expect(1).says(&["0x300000", "unreadable at the source"]);
    let ran = hikae(folder, ["restore", "kept.hik", "out.raw"]).expect(1);
    ran.says(&["0x300000", "0x310000"]);
    let out = fs::read(folder.join("out.raw")).unwrap();
    assert!(out[..BAD.start] == bytes[..BAD.start] && out[BAD.end..] == bytes[BAD.end..], "all that could be read");
    assert!(out[BAD].iter().any(|byte| *byte != 0) && out[BAD] != bytes[BAD], "a mark, never zeros");
    // Still unreadable: a second try says so too. Then the disk answers again, and only what was missing is read.
    hikae(folder, ["capture", "--retry-bad", "mnt/latest/disk.raw", "kept.hik"]).expect(1);
    drop(mount);
    let ran = hikae(folder, ["capture", "--retry-bad", "disk.img", "kept.hik", "--json"]).expect(0);
    assert_eq!(ran.json()["record"]["counts"]["chunks_new"], 1);
    hikae(folder, ["export", "kept.hik", "whole.raw"]).expect(0);
    assert!(fs::read(folder.join("whole.raw")).unwrap() == bytes);
    hikae(folder, ["verify", "kept.hik"]).expect(0);
}
