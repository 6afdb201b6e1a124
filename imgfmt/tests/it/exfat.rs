//! exFAT made by mkfs.exfat and filled through exfat-fuse.

use std::path::{Path, PathBuf};

use imgfmt::filesystem::UsedBlocks;

use crate::files::sparse_file;
use crate::filesystem_oracle::{check_clean, open, poison, walked};
use crate::tools::{LoopDevice, Mounted, as_root, run, shell};

/// The tools take names in the encoding of the locale.
const UTF8: &str = "LC_ALL=C.UTF-8";
const UTF8_MKFS: [&str; 2] = [UTF8, "mkfs.exfat"];

/// Makes a volume of `len` bytes with clusters of `cluster` bytes on a device of `sector`-byte sectors.
pub(crate) fn make(folder: &Path, len: u64, cluster: &str, sector: u32) -> PathBuf {
    let image = folder.join("exfat.img");
    sparse_file(&image, len);
    let options = ["-L", "\u{dc}bung", "-c", cluster];
    if sector == 512 {
        run("env", UTF8_MKFS.iter().chain(&options).copied().chain([image.to_str().unwrap()]));
    } else {
        let device = LoopDevice::new(&image, sector);
        as_root("env", UTF8_MKFS.iter().chain(&options).copied().chain([device.path.as_str()]));
    }
    image
}

/// A volume mounted by the driver, which as root takes devices only.
pub(crate) struct Volume {
    pub(crate) mounted: Mounted,
    _device: LoopDevice,
}

pub(crate) fn mount(folder: &Path, image: &Path, mode: &str) -> Volume {
    let sector = 1 << std::fs::read(image).unwrap()[108];
    let device = LoopDevice::new(image, sector);
    let mounted = Mounted::new(folder, &["env", UTF8, "mount.exfat-fuse", "-o", mode], Path::new(&device.path));
    Volume { mounted, _device: device }
}

/// Fills a volume with files in many fragments, deep and large directories, and what deleted ones leave behind.
pub(crate) fn fill(folder: &Path, image: &Path) {
    let volume = mount(folder, image, "rw");
    shell(
        &volume.mounted.path,
        "
        mkdir -p many few a/b/c/d/e/f; for n in $(seq 700); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
        for n in $(seq 60); do head -c 20000 /dev/urandom > few/$n; done; echo deep > a/b/c/d/e/f/deep; : > empty
        # Two files written in turn lie in many fragments.
        for n in $(seq 60); do head -c 9000 /dev/urandom >> one; head -c 9000 /dev/zero | tr '\\0' x >> two; done
        truncate -s 3M behind; rm few/*7 many/*7; head -c 400000 /dev/urandom > large; echo x > '\u{e4}\u{65e5}\u{672c}'
        ",
    );
}

fn report(tool: &str, image: &Path) -> String {
    let args: &[&str] = if tool == "fsck.exfat" { &["-n", "-v"] } else { &[] };
    let output = run(tool, args.iter().copied().chain([image.to_str().unwrap()]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn used_clusters_are_those_of_the_tools() {
    for (len, cluster, sector) in
        [(48 << 20, "512", 512), (48 << 20, "4K", 512), (160 << 20, "128K", 512), (64 << 20, "4K", 4096)]
    {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), len, cluster, sector);
        fill(folder.path(), &image);
        let unreached = check_clean(&image);
        let volume = open(&image);
        let summary = volume.summary();
        assert_eq!((summary.kind, summary.label.as_str()), ("exFAT", "\u{dc}bung"));
        let dump = report("dump.exfat", &image);
        let field = |name: &str| {
            let line = dump.lines().find(|line| line.starts_with(name)).expect(name);
            line.split(':').nth(1).unwrap().trim().parse::<u64>().unwrap()
        };
        assert_eq!(summary.block_size, field("Cluster size"));
        let free = len - volume.allocated().unwrap().total();
        assert_eq!(free, field("Free Clusters") * summary.block_size);
        // Nothing is allocated that no directory reaches, but the rest behind the last cluster.
        let heap_end = summary.len / summary.block_size * summary.block_size;
        assert!(unreached.iter().all(|range| range.start >= heap_end - summary.block_size), "{unreached:?}");
        // The tools find everything in a copy whose unused bytes are garbage.
        let copy = folder.path().join("poisoned.img");
        poison(&image, &copy);
        assert!(report("fsck.exfat", &copy).contains("clean"));
        let (a, b) = (mount(&folder.path().join("a"), &image, "ro"), mount(&folder.path().join("b"), &copy, "ro"));
        run("diff", ["-r", a.mounted.path.to_str().unwrap(), b.mounted.path.to_str().unwrap()]);
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
fn flags_and_damaged_boot_regions_are_doubted() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 16 << 20, "4K", 512);
    let doubts = |change: &dyn Fn(&mut Vec<u8>)| changed(&image, |bytes| change(bytes)).doubts().unwrap().join("; ");
    assert_eq!(doubts(&|_| {}), "");
    assert!(doubts(&|bytes| bytes[106] |= 2).contains("dirty"));
    assert!(doubts(&|bytes| bytes[106] |= 4).contains("errors"));
    // The serial number, without a new checksum.
    assert!(doubts(&|bytes| bytes[100] ^= 1).contains("its backup is used"));
    assert!(
        doubts(&|bytes| {
            bytes[100] ^= 1;
            bytes[12 * 512 + 100] ^= 1;
        })
        .contains("no better")
    );
    // A field that cannot be used at all.
    assert!(doubts(&|bytes| bytes[108] = 3).contains("its backup is used"));
    assert!(doubts(&|bytes| bytes[0x438..0x43a].copy_from_slice(b"\x53\xef")).contains("ext2"));
}

#[test]
fn a_bitmap_that_claims_too_little_is_found_out_by_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 48 << 20, "4K", 512);
    fill(folder.path(), &image);
    let bytes = std::fs::read(&image).unwrap();
    let heap = 512 * u32::from_le_bytes(bytes[88..92].try_into().unwrap()) as usize;
    // The bitmap starts with cluster 2. A cluster in the middle of what is used is forged to be free.
    let cluster = 200;
    assert_eq!(bytes[heap + cluster / 8] & 1 << (cluster % 8), 1 << (cluster % 8));
    let volume = changed(&image, |bytes| bytes[heap + cluster / 8] &= !(1 << (cluster % 8)));
    let violations = walked(&*volume).minus(&volume.allocated().unwrap());
    let place = (heap + cluster * 4096) as u64;
    assert_eq!(violations.iter().collect::<Vec<_>>(), vec![place..place + 4096]);
}

#[test]
fn damaged_entries_end_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 48 << 20, "4K", 512);
    fill(folder.path(), &image);
    let bytes = std::fs::read(&image).unwrap();
    // The set of the file "large": its first name entry starts with its name in UTF-16.
    let name: Vec<u8> = "large\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let entry =
        (0..bytes.len()).step_by(32).find(|at| bytes[*at] == 0xc1 && bytes[at + 2..].starts_with(&name)).unwrap();
    let walk = |change: &dyn Fn(&mut Vec<u8>)| {
        let volume = changed(&image, |bytes| change(bytes));
        volume.walk(&mut |_| Ok(())).unwrap_err().to_string()
    };
    assert!(walk(&|bytes| bytes[entry + 2] ^= 1).contains("checksum of the set"));
    assert!(walk(&|bytes| bytes[entry] = 0x41).contains("missing"));
    assert!(walk(&|bytes| bytes[entry - 32] = 0).contains("missing"));
    // The up-case table starts with the cluster behind the bitmap.
    let heap = 512 * u32::from_le_bytes(bytes[88..92].try_into().unwrap()) as usize;
    assert!(walk(&|bytes| bytes[heap + 4096] ^= 1).contains("up-case table"));
}

#[test]
fn paths_are_found_from_places_of_entries() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 48 << 20, "4K", 512);
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
    for owner in owners.into_iter().take(150) {
        paths.extend(volume.path_of(owner).unwrap());
    }
    for path in ["large", "two", "allocation bitmap", "few", "few/1"] {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
}
