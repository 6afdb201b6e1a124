//! NTFS made by mkntfs and filled by ntfs-3g.

use std::path::Path;
use std::sync::Arc;

use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::disk::{Disk, MemoryDisk};

use crate::files::sparse_file;
use crate::filesystem_oracle::{check_clean, open, poison, walked};
use crate::tools::{Mounted, as_root, run, shell};

/// Makes a volume and fills it with everything that lays clusters out in its own way.
fn make(folder: &Path, len: u64, cluster: u32) -> std::path::PathBuf {
    let image = folder.join("ntfs.img");
    sparse_file(&image, len);
    run("mkntfs", ["-F", "-q", "-L", "Übung", "-c", &cluster.to_string(), image.to_str().unwrap()]);
    let mounted = mount(folder, &image, "rw");
    fill(&mounted.path);
    drop(mounted);
    // A second mount, so that what was deleted leaves its marks among the new.
    let mounted = mount(folder, &image, "rw");
    shell(&mounted.path, "rm -r few; rm many/*7; for n in $(seq 40); do head -c 3000 /dev/urandom > again$n; done");
    // Last, since the driver mounts a hibernated volume only for reading.
    shell(&mounted.path, "printf hibr > hiberfil.sys; head -c 1000000 /dev/zero >> hiberfil.sys");
    drop(mounted);
    image
}

fn mount(folder: &Path, image: &Path, mode: &str) -> Mounted {
    let options = format!("{mode},streams_interface=windows,compression,permissions");
    Mounted::new(folder, &["ntfs-3g", "-o", &options], image)
}

fn fill(root: &Path) {
    shell(
        root,
        "
        mkdir many few deep; for n in $(seq 1500); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
        for n in $(seq 60); do head -c 20000 /dev/urandom > few/$n; done
        d=deep; for n in $(seq 30); do d=$d/folder$n; mkdir $d; echo deep > $d/f; done
        # Two files written in turn lie in many fragments.
        for n in $(seq 300); do head -c 9000 /dev/urandom >> one; head -c 9000 /dev/zero | tr '\\0' x >> two; done
        truncate -s 40M sparse; for n in 3 11 29; do head -c 5000 /dev/urandom | dd of=sparse bs=1M seek=$n conv=notrunc status=none; done
        mkdir packed; setfattr -h -v 0x00000800 -n system.ntfs_attrib_be packed
        for n in $(seq 20000); do echo line $n of a text that compresses; done > packed/text
        ln many/a-rather-long-name-of-a-file-3 hard; echo hidden > 'hard:stream'; head -c 300000 /dev/urandom > 'one:big'
        echo x > 'n\u{e4}me \u{65e5}\u{672c}'
        head -c 3000000 /dev/urandom > pagefile.sys
        ",
    );
}

#[test]
fn used_clusters_are_those_of_the_driver() {
    for (len, cluster) in [(96 << 20, 4096), (96 << 20, 512), (160 << 20, 65536)] {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), len, cluster);
        let unreached = check_clean(&image);
        // Nothing is allocated that no record reaches, but the rest behind the last cluster.
        let covered = open(&image).summary().len;
        assert!(unreached.iter().all(|range| range.start >= covered), "{unreached:?}");
        // ntfs-3g's own counting.
        let counted = run("ntfsinfo", ["-m", "-f", image.to_str().unwrap()]);
        let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
        let field = |name: &str| {
            let line = counted.lines().find(|line| line.contains(name)).expect(name);
            line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let allocated = open(&image).allocated().unwrap().clipped(covered).total();
        assert_eq!(allocated, (covered / u64::from(cluster) - field("Free Clusters")) * u64::from(cluster));
        // The driver finds everything in a copy whose unused bytes are garbage.
        let copy = folder.path().join("poisoned.img");
        poison(&image, &copy);
        let (a, b) = (mount(&folder.path().join("a"), &image, "ro"), mount(&folder.path().join("b"), &copy, "ro"));
        run("diff", ["-r", a.path.to_str().unwrap(), b.path.to_str().unwrap()]);
        shell(folder.path(), &format!("cmp '{}/one:big' '{}/one:big'", a.path.display(), b.path.display()));
    }
}

#[test]
fn page_files_are_found_with_their_clusters() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 96 << 20, 4096);
    let volume = open(&image);
    let mut files = volume.elidable().unwrap();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let found: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.ranges.total())).collect();
    assert_eq!(found, [("hiberfil.sys", 1_003_520), ("pagefile.sys", 3_002_368)]);
    assert!(files[0].warning.as_ref().unwrap().contains("hibernated"));
    assert!(files[1].warning.is_none());
    assert_eq!(volume.summary().label, "Übung");
}

#[test]
fn paths_are_found_from_record_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 96 << 20, 4096);
    let volume = open(&image);
    let mut paths = std::collections::BTreeSet::new();
    let mut owners = std::collections::BTreeSet::new();
    volume
        .walk(&mut |reached| {
            owners.insert(reached.owner);
            Ok(())
        })
        .unwrap();
    for owner in owners {
        paths.extend(volume.path_of(owner).unwrap());
    }
    for path in ["pagefile.sys", "packed/text", "one", "$Bitmap", "again40"] {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
}

#[test]
fn a_volume_that_was_not_unmounted_is_doubted() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("ntfs.img");
    sparse_file(&image, 32 << 20);
    run("mkntfs", ["-F", "-q", image.to_str().unwrap()]);
    assert_eq!(open(&image).doubts().unwrap(), Vec::<String>::new());
    // Sets the dirty flag, as chkdsk is asked for.
    as_root("ntfsfix", [image.to_str().unwrap()]);
    let doubts = open(&image).doubts().unwrap();
    assert!(doubts.iter().any(|doubt| doubt.contains("dirty")), "{doubts:?}");
}

/// Has the journal of a fresh volume say that a system has it mounted, as that of a shadow copy does: both restart pages name a client.
fn open_the_journal(bytes: &mut [u8]) {
    let page = |at: usize| at..at + 4096;
    // mkntfs fills the journal with ones.
    let journal = (0..bytes.len()).step_by(4096).find(|at| bytes[page(*at)].iter().all(|byte| *byte == 0xff)).unwrap();
    for at in [journal, journal + 4096] {
        let restart = &mut bytes[page(at)];
        restart.fill(0);
        restart[..4].copy_from_slice(b"RSTR");
        let mut put = |at: usize, value: u16| restart[at..at + 2].copy_from_slice(&value.to_le_bytes());
        // The fixup: its place, its length, its number, and that at the end of each sector.
        for (at, value) in [(4, 0x1e), (6, 9), (0x1e, 1)] {
            put(at, value);
        }
        (1..=8).for_each(|sector| put(sector * 512 - 2, 1));
        // Where the restart area lies; in it a number, and the first client in use.
        for (at, value) in [(0x18, 0x30), (0x30, 7), (0x30 + 12, 0)] {
            put(at, value);
        }
    }
}

#[test]
fn the_journal_of_a_shadow_copy_says_nothing_against_its_bitmap() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("ntfs.img");
    sparse_file(&image, 32 << 20);
    run("mkntfs", ["-F", "-q", image.to_str().unwrap()]);
    let mut bytes = std::fs::read(&image).unwrap();
    open_the_journal(&mut bytes);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes.clone()));
    let kept = |flushed: Vec<std::ops::Range<u64>>| {
        let options = PlanOptions { flushed, ..PlanOptions::default() };
        let plan = plan(&disk, &options).unwrap();
        (plan.partitions[0].used_blocks, plan.partitions[0].reasons.join("; "))
    };
    let (used_blocks, reasons) = kept(vec![]);
    assert!(!used_blocks && reasons.contains("$LogFile"), "{reasons}");
    assert_eq!(kept(vec![0..disk.len()]), (true, String::new()));
    // Not where the copy is of another partition, or of a part of this one.
    assert!(!kept(vec![512..disk.len()]).0 && !kept(vec![0..disk.len() - 1]).0);
    // A dirty flag is one.
    std::fs::write(&image, &bytes).unwrap();
    as_root("ntfsfix", [image.to_str().unwrap()]);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(std::fs::read(&image).unwrap()));
    let options = PlanOptions { flushed: vec![0..disk.len()], ..PlanOptions::default() };
    let plan = plan(&disk, &options).unwrap();
    assert!(!plan.partitions[0].used_blocks, "{:?}", plan.partitions[0].reasons);
}

#[test]
fn a_bitmap_that_claims_too_little_is_found_out_by_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 96 << 20, 4096);
    let volume = open(&image);
    // The bitmap's own clusters are reached by record 6.
    let mut place = None;
    volume
        .walk(&mut |reached| {
            if reached.owner == 6 {
                place = Some(reached.range);
            }
            Ok(())
        })
        .unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    let at = place.unwrap().start as usize;
    let page = volume.elidable().unwrap().into_iter().find(|file| file.path == "pagefile.sys").unwrap();
    let cluster = page.ranges.iter().next().unwrap().start / 4096;
    bytes[at + cluster as usize / 8] &= !(1 << (cluster % 8));
    let forged = folder.path().join("forged.img");
    std::fs::write(&forged, bytes).unwrap();
    let volume = open(&forged);
    let violations = walked(&*volume).minus(&volume.allocated().unwrap());
    assert_eq!(violations.iter().collect::<Vec<_>>(), vec![cluster * 4096..(cluster + 1) * 4096]);
}

#[test]
fn streams_in_many_pieces_keep_apart() {
    use imgfmt::filesystem::ntfs::attribute::Value;
    use imgfmt::filesystem::ntfs::volume::Volume;
    use std::os::unix::fs::{FileExt, MetadataExt};

    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("ntfs.img");
    sparse_file(&image, 64 << 20);
    run("mkntfs", ["-F", "-q", image.to_str().unwrap()]);
    let mounted = mount(folder.path(), &image, "rw");
    let path = |stream: &str| format!("{}/f{stream}", mounted.path.display());
    let streams = ["", ":a", ":b"].map(|stream| std::fs::File::create(path(stream)).unwrap());
    let block = |stream: usize, n: u64| [(stream as u8) << 6 | (n % 64) as u8; 4096];
    // Written in turn and with holes, each stream has a thousand fragments, and the file an attribute list with pieces of all of them.
    for n in 0..1000 {
        for (index, stream) in streams.iter().enumerate() {
            stream.write_all_at(&block(index, n), n * 12288).unwrap();
        }
    }
    let number = std::fs::metadata(path("")).unwrap().ino();
    drop(streams);
    drop(mounted);
    check_clean(&image);
    let volume = Volume::open(Arc::new(imgfmt::source::FileDisk::open(&image, 512).unwrap())).unwrap().unwrap();
    for (index, name) in [&b""[..], b"a\0", b"b\0"].into_iter().enumerate() {
        let Some(Value::NonResident(stream)) = volume.attribute(number, 0x80, name).unwrap() else {
            panic!("{name:?}")
        };
        assert!(stream.runs.len() > 1000, "{} runs", stream.runs.len());
        for n in 0..1000 {
            let mut read = [0; 4096];
            volume.read_stream(&stream, &mut read, n * 12288).unwrap();
            assert!(read == block(index, n), "block {n} of stream {name:?}");
        }
    }
}

/// A volume whose MFT is in hundreds of pieces, described by an extension record that a list in clusters names.
fn with_mft_in_pieces(folder: &Path) -> std::path::PathBuf {
    let image = folder.join("ntfs.img");
    sparse_file(&image, 12 << 20);
    run("mkntfs", ["-F", "-q", "-c", "1024", "-z", "1", image.to_str().unwrap()]);
    let mounted = mount(folder, &image, "rw");
    // A full volume, holes all over it, and then files that need nothing but records.
    let script = "
        for n in $(seq 20000); do head -c 1024 /dev/urandom >d$n 2>/dev/null || break; done
        rm d*5
        for n in $(seq 3000); do echo $n >e$n 2>/dev/null || break; done
    ";
    shell(&mounted.path, script);
    drop(mounted);
    image
}

#[test]
fn an_mft_in_pieces_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = with_mft_in_pieces(folder.path());
    let listed = run("ntfsinfo", ["-i", "0", "-v", image.to_str().unwrap()]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("Dumping attribute $ATTRIBUTE_LIST"), "the MFT has no list, so this proves nothing");
    let unreached = check_clean(&image);
    let covered = open(&image).summary().len;
    assert!(unreached.iter().all(|range| range.start >= covered), "{unreached:?}");
}

#[test]
fn a_damaged_first_record_is_read_from_the_mirror_and_doubted() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("ntfs.img");
    sparse_file(&image, 32 << 20);
    run("mkntfs", ["-F", "-q", image.to_str().unwrap()]);
    let mut bytes = std::fs::read(&image).unwrap();
    let lcn = u64::from_le_bytes(bytes[0x30..0x38].try_into().unwrap()) as usize;
    bytes[lcn * 4096..lcn * 4096 + 4].copy_from_slice(b"BAAD");
    std::fs::write(&image, bytes).unwrap();
    let doubts = open(&image).doubts().unwrap();
    assert!(doubts.iter().any(|doubt| doubt.contains("mirror")), "{doubts:?}");
}
