//! FAT12, FAT16 and FAT32 made by mkfs.vfat and filled by mtools.

use std::path::{Path, PathBuf};

use imgfmt::filesystem::UsedBlocks;

use crate::files::sparse_file;
use crate::filesystem_oracle::{check_clean, open, poison, walked};
use crate::tools::{run, shell};

/// A kind of volume: name, bits, bytes of the partition, of a sector, sectors in a cluster.
pub(crate) const KINDS: [(&str, &str, u64, &str, &str); 7] = [
    ("FAT12", "12", 1_474_560, "512", "1"),
    ("FAT12", "12", 12 << 20, "512", "8"),
    ("FAT16", "16", 24 << 20, "512", "4"),
    ("FAT16", "16", 120 << 20, "4096", "2"),
    ("FAT32", "32", 40 << 20, "512", "1"),
    ("FAT32", "32", 72 << 20, "512", "2"),
    ("FAT32", "32", 300 << 20, "4096", "1"),
];

pub(crate) fn make(folder: &Path, (_, bits, len, sector, cluster): (&str, &str, u64, &str, &str)) -> PathBuf {
    let image = folder.join("fat.img");
    sparse_file(&image, len);
    let options = ["-F", bits, "-S", sector, "-s", cluster, "-n", "UEBUNG", "-i", "1234abcd"];
    run("mkfs.vfat", options.into_iter().chain([image.to_str().unwrap()]));
    image
}

/// Fills a volume with files in many fragments, deep and large directories, and what deleted ones leave behind.
pub(crate) fn fill(folder: &Path, image: &Path) {
    shell(
        folder,
        &format!(
            "
            export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null; i='{}'
            mkdir -p tree/many tree/a/b/c/d/e/f; for n in $(seq 150); do echo file $n > tree/many/a-rather-long-name-of-a-file-$n; done
            for n in $(seq 90); do head -c 5000 /dev/urandom > tree/$n.bin; done; echo deep > tree/a/b/c/d/e/f/deep; : > tree/empty
            head -c 5000 /dev/urandom > tree/pagefile.sys; printf hibr > tree/HIBERFIL.SYS; head -c 9000 /dev/zero >> tree/HIBERFIL.SYS
            mmd -i $i ::sub; mcopy -s -i $i tree/* ::sub; mcopy -i $i tree/pagefile.sys tree/HIBERFIL.SYS tree/empty ::
            for n in $(seq 1 2 89); do mdel -i $i ::sub/$n.bin; done
            head -c 150000 /dev/urandom > large; mcopy -i $i large ::; mcopy -i $i large ::'an even larger name'
            mdel -i $i ::sub/many/*7; mattrib -i $i +h +s ::large
            ",
            image.display()
        ),
    );
}

/// Copies everything out of a volume.
pub(crate) fn extract(image: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let script = "export LC_ALL=C.UTF-8 TZ=UTC MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null; mcopy -s -n -m -i";
    shell(to, &format!("{script} '{}' ::/ .", image.display()));
}

fn fsck(image: &Path) -> String {
    let output = run("fsck.vfat", ["-n", "-v", image.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Used clusters and all clusters, as the checker counts them.
pub(crate) fn cluster_counts(image: &Path) -> (u64, u64) {
    // "fat.img: 150 files, 100/2000 clusters".
    let report = fsck(image);
    let counts = report.lines().find(|line| line.ends_with(" clusters")).expect("counts");
    let counts = counts.split(", ").nth(1).unwrap().trim_end_matches(" clusters");
    let (used, total) = counts.split_once('/').unwrap();
    (used.parse().unwrap(), total.parse().unwrap())
}

#[test]
fn used_clusters_are_those_of_the_tools() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), kind);
        fill(folder.path(), &image);
        let unreached = check_clean(&image);
        let volume = open(&image);
        let summary = volume.summary();
        assert_eq!((summary.kind, summary.label.as_str(), summary.id.as_str()), (kind.0, "UEBUNG", "1234-ABCD"));
        let report = fsck(&image);
        let (used, total) = cluster_counts(&image);
        let free = std::fs::metadata(&image).unwrap().len() - volume.allocated().unwrap().total();
        assert_eq!(free, (total - used) * summary.block_size, "{kind:?}");
        // Nothing is allocated that no directory reaches, but the rest behind the last cluster.
        assert!(unreached.total() < summary.block_size, "{unreached:?}");
        // The tools find everything in a copy whose unused bytes are garbage.
        let copy = folder.path().join("poisoned.img");
        poison(&image, &copy);
        assert_eq!(fsck(&copy).replace("poisoned.img", "fat.img"), report);
        extract(&image, &folder.path().join("a"));
        extract(&copy, &folder.path().join("b"));
        shell(
            folder.path(),
            "diff -r a b; cmp a/large large; cmp a/sub/2.bin tree/2.bin; cmp a/sub/a/b/c/d/e/f/deep tree/a/b/c/d/e/f/deep",
        );
    }
}

#[test]
fn page_files_are_found_with_their_clusters() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[4]);
    fill(folder.path(), &image);
    let mut files = open(&image).elidable().unwrap();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let found: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.ranges.total())).collect();
    assert_eq!(found, [("hiberfil.sys", 9216), ("pagefile.sys", 5120)]);
    assert!(files[0].warning.as_ref().unwrap().contains("hibernated"));
    assert!(files[1].warning.is_none());
}

#[test]
fn paths_are_found_from_places_of_entries() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[2]);
    fill(folder.path(), &image);
    let volume = open(&image);
    let mut owners = std::collections::BTreeSet::new();
    volume
        .walk(&mut |reached| {
            owners.insert(reached.owner);
            Ok(())
        })
        .unwrap();
    let mut paths = std::collections::BTreeSet::new();
    for owner in owners {
        paths.extend(volume.path_of(owner).unwrap());
    }
    for path in ["large", "an even larger name", "sub/a/b/c/d/e/f/deep", "sub/many/a-rather-long-name-of-a-file-2"] {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
}

/// Opens a copy of the image with some bytes changed.
fn changed(image: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Box<dyn UsedBlocks> {
    let mut bytes = std::fs::read(image).unwrap();
    change(&mut bytes);
    let copy = image.with_extension("changed");
    std::fs::write(&copy, bytes).unwrap();
    open(&copy)
}

#[test]
fn flags_of_a_volume_in_use_are_doubted() {
    for (kind, table, state) in
        [(KINDS[0], None, 0x25), (KINDS[2], Some((3, 0x80, 0x40)), 0x25), (KINDS[4], Some((7, 0x08, 0x04)), 0x41)]
    {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), kind);
        let reserved = 512 * usize::from(std::fs::read(&image).unwrap()[0x0e]);
        let doubts =
            |change: &dyn Fn(&mut Vec<u8>)| changed(&image, |bytes| change(bytes)).doubts().unwrap().join("; ");
        assert_eq!(doubts(&|_| {}), "");
        assert!(doubts(&|bytes| bytes[state] |= 1).contains("dirty"));
        assert!(doubts(&|bytes| bytes[state] |= 2).contains("errors"));
        if let Some((at, clean, good)) = table {
            // Linux and Windows clear the flag in all tables.
            assert!(doubts(&|bytes| bytes[reserved + at] &= !clean).contains("dirty"));
            assert!(doubts(&|bytes| bytes[reserved + at] &= !good).contains("errors"));
        }
        assert!(doubts(&|bytes| bytes[reserved] = 0).contains("media descriptor"));
        assert!(doubts(&|bytes| bytes[reserved + 40] = 1).contains("differ"));
        assert!(doubts(&|bytes| bytes[0x438..0x43a].copy_from_slice(b"\x53\xef")).contains("ext2"));
        assert!(
            doubts(&|bytes| bytes[0x1a8..0x1b8]
                .copy_from_slice(b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"))
            .contains("BitLocker")
        );
    }
}

#[test]
fn the_table_in_force_is_the_one_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[4]);
    fill(folder.path(), &image);
    let used = open(&image).allocated().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let (reserved, len) =
        (512 * usize::from(bytes[0x0e]), 512 * usize::from(bytes[0x24]) + 512 * 256 * usize::from(bytes[0x25]));
    // Mirroring off, the second table in force, the first one wiped behind its first entries.
    let volume = changed(&image, |bytes| {
        bytes[0x28] = 0x81;
        bytes[reserved + 12..reserved + len].fill(0);
    });
    assert_eq!(volume.allocated().unwrap(), used);
    assert_eq!(walked(&*volume).minus(&used).total(), 0);
    assert!(volume.doubts().unwrap().join("; ").contains("differ"));
}

/// Where a file starts, by its content.
fn place_of(bytes: &[u8], content: &[u8]) -> usize {
    (0..bytes.len()).step_by(512).find(|at| bytes[*at..].starts_with(content)).expect("the content")
}

#[test]
fn a_table_that_claims_too_little_is_found_out_by_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[4]);
    fill(folder.path(), &image);
    let bytes = std::fs::read(&image).unwrap();
    let reserved = 512 * usize::from(bytes[0x0e]);
    let content = std::fs::read(folder.path().join("tree/2.bin")).unwrap();
    let data = place_of(&bytes, &content[..512]);
    let data_offset = reserved + 2 * 512 * (usize::from(bytes[0x24]) + 256 * usize::from(bytes[0x25]));
    let entry = reserved + 4 * ((data - data_offset) / 512 + 2);
    let volume = changed(&image, |bytes| bytes[entry..entry + 4].fill(0));
    let violations = walked(&*volume).minus(&volume.allocated().unwrap());
    let data = data as u64;
    assert_eq!(violations.iter().collect::<Vec<_>>(), vec![data..data + 512]);

    // A chain that meets itself, or another, ends the walk.
    let error = |value: u32| {
        let volume = changed(&image, |bytes| bytes[entry..entry + 4].copy_from_slice(&value.to_le_bytes()));
        volume.walk(&mut |_| Ok(())).unwrap_err().to_string()
    };
    assert!(error(u32::try_from((entry - reserved) / 4).unwrap()).contains("used twice"));
    assert!(error(3).contains("used twice"));
    assert!(error(0x0fff_fff7).contains("bad"));
    assert!(error(0x0fff_fff0).contains("nowhere"));
    assert!(error(0x0fff_ffff).contains("longer than its clusters"));
}
