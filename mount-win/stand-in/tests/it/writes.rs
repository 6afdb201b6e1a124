//! Files that take writes into an overlay.

use std::path::Path;
use std::sync::Arc;

use dokan2::calls::{Calls, units};
use dokan2::mixed::Mixed;
use dokan2::programs::virtualbox_writes;
use dokan2::walk::walk;
use dokan2::writes::{append_together, refused_and_taken, write_and_read};
use imgfmt::Disk;
use imgfmt::overlay::{About, Overlay, Proof, digest_of};
use imgfmt::source::FileDisk;

use crate::{disks, drive_of, tree};

fn overlay(disk: &Path, file: &Path) -> Overlay {
    let base = FileDisk::open(disk, 512).unwrap();
    let proof = Proof::Other { format: "raw".to_owned(), digest: digest_of(&base).unwrap() };
    let about = About { name: "disk".into(), proof, modified: 0, disk_len: base.len(), sector_size: 512 };
    Overlay::open_or_create(file, &about).unwrap()
}

#[test]
fn writes_through_one_file_are_read_through_all_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::plain(folder.path());
    let base = std::fs::read(&disk).unwrap();
    let (mut model, len) = (base.clone(), std::fs::metadata(&disk).unwrap().len());
    let root = units("\\");
    for round in 0..2 {
        let overlay = overlay(&disk, &folder.path().join("changes"));
        let (drive, heard) = drive_of(tree(&disk).with_overlay(0, &overlay).unwrap());
        // `FILE_READ_ONLY_VOLUME` is not said.
        assert_eq!(drive.volume().unwrap().3 & 0x0008_0000, 0);
        virtualbox_writes(&drive, &root);
        write_and_read(&drive, &root, &mut model, round, 400);
        assert_eq!(*heard.lock().unwrap(), Vec::<String>::new());
        append_together(&drive, &root);
        refused_and_taken(&drive, &root, len);
        let end = model.len() - 512;
        model[end..].fill(7);
        assert_eq!(drive.0.open_files(), 0);
        let said = heard.lock().unwrap().join("\n");
        assert!(said.contains("cannot make 0 bytes long") && said.contains("cannot empty \\disk.raw"), "{said}");
        overlay.flush().unwrap();
    }
    assert!(std::fs::read(&disk).unwrap() == base);
}

/// A random run can be made again by its seed, which its failure says.
fn seed() -> u64 {
    std::env::var("HIKAE_STAND_IN_SEED").map_or(1, |seed| seed.parse().unwrap())
}

#[test]
fn mixed_calls_are_answered_as_documented_and_leave_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::odd(folder.path());
    let before = std::fs::read(&disk).unwrap();
    let file = folder.path().join("changes");
    let mut model = None;
    for (round, threads, steps) in [(0, 1, 12_000), (1, 4, 3_000)] {
        let overlay = overlay(&disk, &file);
        let (drive, heard) = drive_of(tree(&disk).with_overlay(0, &overlay).unwrap());
        let model = model.get_or_insert_with(|| Mixed::learn(&drive, &walk(&drive, |_| false), before.clone()));
        model.meet(&drive);
        model.run(&drive, seed() + round, threads, steps);
        model.check(&drive);
        assert_eq!(drive.0.open_files(), 0);
        // Only what was refused is heard of.
        let refused = |line: &&String| {
            ["cannot write ", "cannot make ", "cannot empty "].iter().any(|start| line.starts_with(start))
        };
        let heard = heard.lock().unwrap();
        assert_eq!(heard.iter().find(|line| !refused(line)), None);
        overlay.flush().unwrap();
    }
    // What was written is there without a drive, and the disk below is as it was.
    let base = Arc::new(FileDisk::open(&disk, 512).unwrap());
    let kept = overlay(&disk, &file).disk(Arc::<FileDisk>::clone(&base)).unwrap();
    let mut bytes = vec![0; usize::try_from(kept.len()).unwrap()];
    kept.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == model.unwrap().disk());
    assert!(std::fs::read(&disk).unwrap() == before);
}

#[test]
fn what_is_written_through_is_durable_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::plain(folder.path());
    let changes = overlay(&disk, &folder.path().join("changes"));
    let (drive, _) = drive_of(tree(&disk).with_overlay(0, &changes).unwrap());
    // What a crash would leave now.
    let left = |name: &str| {
        let copy = folder.path().join(name);
        std::fs::copy(folder.path().join("changes"), &copy).unwrap();
        let kept = overlay(&disk, &copy).disk(Arc::new(FileDisk::open(&disk, 512).unwrap())).unwrap();
        let mut bytes = [0; 512];
        kept.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    // FILE_GENERIC_READ | FILE_GENERIC_WRITE; FILE_WRITE_THROUGH.
    let open = |options| drive.create(&units(r"\disk.raw"), 0x0012_019f, 1, options).unwrap();
    let (plain, through) = (open(0), open(2));
    assert_eq!(drive.write(&plain, &[1; 512], Some(0), false), Ok(512));
    assert_ne!(left("before"), [1; 512]);
    assert_eq!(drive.write(&through, &[2; 512], Some(0), false), Ok(512));
    assert_eq!(left("after"), [2; 512]);
    for open in [plain, through] {
        drive.cleanup(&open);
        drive.close(&open);
    }
}
