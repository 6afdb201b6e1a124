//! Swap areas made by mkswap.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::source::FileDisk;

use crate::files::sparse_file;
use crate::filesystem_oracle::{check_clean, open, walked};
use crate::tools::run;

const UUID: &str = "6a2c1a5e-93a4-4d9e-8f3d-0a3b5c7d9e1f";

fn make(folder: &Path, len: u64, options: &[&str]) -> PathBuf {
    let image = folder.join("swap.img");
    sparse_file(&image, len);
    run("mkswap", ["-L", "spare", "-U", UUID].iter().chain(options).chain([&image.to_str().unwrap()]));
    image
}

#[test]
fn everything_but_the_header_page_can_be_left_out() {
    for (options, page) in
        [(&[][..], 4096), (&["-p", "4096"], 4096), (&["-p", "16384"], 16384), (&["-p", "65536"], 65536)]
    {
        let folder = tempfile::tempdir().unwrap();
        // The rest behind the last page belongs to nobody, and is kept.
        let image = make(folder.path(), (8 << 20) + 3 * 512, options);
        check_clean(&image);
        let area = open(&image);
        let summary = area.summary();
        assert_eq!((summary.kind, summary.label.as_str(), summary.id.as_str()), ("swap", "spare", UUID));
        assert_eq!((summary.block_size, summary.len), (page, 8 << 20));
        assert_eq!(area.allocated().unwrap().total(), (8 << 20) + 3 * 512);
        assert_eq!(walked(&*area).iter().collect::<Vec<_>>(), vec![0..page]);
        let elidable = area.elidable().unwrap();
        assert_eq!((elidable.len(), elidable[0].path.as_str(), &elidable[0].warning), (1, "swap area", &None));
        assert_eq!(elidable[0].ranges.iter().collect::<Vec<_>>(), vec![page..8 << 20]);
    }
}

#[test]
fn areas_of_big_endian_machines_and_of_old_kernels_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 1 << 20, &[]);
    // Version, last page and number of bad pages.
    change(&image, 1024, &[0, 0, 0, 1, 0, 0, 0, 0x7f, 0, 0, 0, 0]);
    check_clean(&image);
    let area = open(&image);
    assert_eq!((area.summary().id.as_str(), area.summary().len), (UUID, 512 << 10));
    change(&image, 4086, b"SWAP-SPACE");
    check_clean(&image);
    let area = open(&image);
    assert_eq!((area.summary().id.as_str(), area.summary().len), ("", 1 << 20));
    assert_eq!(area.elidable().unwrap()[0].ranges.iter().collect::<Vec<_>>(), vec![4096..1 << 20]);
}

/// Writes into a swap area.
fn change(image: &Path, at: usize, with: &[u8]) {
    let mut bytes = std::fs::read(image).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    std::fs::write(image, bytes).unwrap();
}

#[test]
fn a_hibernated_system_is_reported() {
    for signature in [&b"S1SUSPEND\0"[..], b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"] {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), 1 << 20, &[]);
        change(&image, 4086, signature);
        let warning = open(&image).elidable().unwrap().remove(0).warning.expect("a warning");
        assert!(warning.contains("hibernated"), "{warning}");
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&image, 512).unwrap());
        let plan = plan(&disk, &PlanOptions::default()).unwrap();
        assert!(plan.warnings.iter().any(|warning| warning.contains("hibernated")), "{:?}", plan.warnings);
        assert_eq!(plan.elided.total(), (1 << 20) - 4096);
    }
}

#[test]
fn headers_that_cannot_be_trusted_keep_the_partition_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 1 << 20, &[]);
    // One bad page is fine, one past the end is not.
    change(&image, 1032, &1_u32.to_le_bytes());
    change(&image, 1536, &255_u32.to_le_bytes());
    check_clean(&image);
    let refused = |at: usize, with: &[u8]| {
        let before = std::fs::read(&image).unwrap();
        change(&image, at, with);
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&image, 512).unwrap());
        let plan = plan(&disk, &PlanOptions::default()).unwrap();
        assert_eq!(plan.elided.total(), 0);
        assert!(!plan.partitions[0].used_blocks);
        std::fs::write(&image, before).unwrap();
        plan.partitions[0].reasons.join("; ")
    };
    assert!(refused(1536, &256_u32.to_le_bytes()).contains("bad page"));
    assert!(refused(1032, &u32::MAX.to_le_bytes()).contains("bad pages"));
    assert!(refused(1028, &256_u32.to_le_bytes()).contains("longer than the partition"));
    assert!(refused(1024, &7_u32.to_le_bytes()).contains("version 7"));
    assert!(refused(1068, b"x").contains("no tool"));
    assert!(refused(0, b"XFSB").contains("XFS"));
}
