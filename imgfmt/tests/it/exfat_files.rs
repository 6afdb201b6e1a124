//! Files of exFAT, held against exfat-fuse and The Sleuth Kit.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use imgfmt::Error;
use imgfmt::disk::ExtentKind;
use imgfmt::filesystem::files::{FileSystem, NodeId, NodeKind};

use crate::exfat::{fill, make, mount};
use crate::tools::{run, shell};
use crate::tree_oracle::{Oracle, bytes_of, compare, entries, find, open_files};

/// What exfat-fuse knows: names, content, what files take, and times of modification ten milliseconds fine.
fn driver<'a>() -> Oracle<'a> {
    Oracle {
        permissions: false,
        owners: false,
        links: false,
        allocated: true,
        changed: 0,
        modified: 10_000_000,
        accessed: 2_000_000_000,
        ..Oracle::default()
    }
}

#[test]
fn files_are_those_of_the_driver() {
    for (len, cluster, sector) in
        [(48 << 20, "512", 512), (48 << 20, "4K", 512), (160 << 20, "128K", 512), (64 << 20, "4K", 4096)]
    {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), len, cluster, sector);
        fill(folder.path(), &image);
        let volume = mount(folder.path(), &image, "rw");
        shell(
            &volume.mounted.path,
            "
            n=$(printf 'n%.0s' $(seq 255)); echo x > \"$n\"; echo y > 'an \u{1f600} in a name'; echo z > ' .leading'; mkdir '\u{39a}\u{3b1}'
            touch -d '2011-03-04 05:06:07.89' large; touch -d '1980-01-01 00:00:00' one; touch -d '2099-12-31 23:59:59' empty
            ",
        );
        drop(volume);
        let volume = mount(folder.path(), &image, "ro");
        let files = open_files(&image);
        let nodes = compare(&*files, &volume.mounted.path, &driver());
        assert!(nodes > 700, "{nodes}");
        let theirs = rustix::fs::statvfs(&volume.mounted.path).unwrap();
        let space = files.space().unwrap();
        assert_eq!(space.free, theirs.f_bfree * theirs.f_frsize);
        // The driver counts what lies before the clusters too.
        assert!(space.total < len && space.total > len - (3 << 20));
        let root = files.root();
        let found = |name: &str| {
            files.lookup(root, name.as_bytes()).unwrap().map(|entry| String::from_utf8(entry.name).unwrap())
        };
        assert_eq!(found("LARGE").as_deref(), Some("large"));
        assert_eq!(found("AN \u{1f600} IN A NAME").as_deref(), Some("an \u{1f600} in a name"));
        assert_eq!(found("\u{39a}\u{391}").as_deref(), Some("\u{39a}\u{3b1}"));
        assert_eq!((found("larg"), found(""), found(".")), (None, None, None));
        assert_eq!(files.lookup(root, b"\xff").unwrap(), None);
    }
}

#[test]
fn times_and_attributes_are_those_of_the_sleuth_kit() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), 48 << 20, "4K", 512);
    fill(folder.path(), &image);
    let files = open_files(&image);
    let table = run("fls", ["-m", "/", "-r", "-p", "-z", "UTC", "-f", "exfat", image.to_str().unwrap()]);
    let table = String::from_utf8(table.stdout).unwrap();
    let mut seen = 0;
    for line in table
        .lines()
        .filter(|line| !line.contains("/$") && !line.contains("(Volume Label") && !line.contains("(deleted"))
    {
        let fields: Vec<_> = line.split('|').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap();
        let attributes = files.attributes(find(&*files, fields[1].trim_start_matches('/'))).unwrap();
        assert_eq!(attributes.len as i64, number(6), "{line}");
        let seconds = |time: Option<imgfmt::filesystem::files::Time>| time.map_or(0, |time| time.seconds);
        // The Sleuth Kit leaves out the hundredths, which can make up a second.
        assert_eq!(seconds(attributes.created) / 2 * 2, number(10), "{line}");
        assert_eq!(seconds(attributes.accessed), number(7), "{line}");
        assert_eq!(attributes.kind == NodeKind::Folder, fields[3].starts_with("d/"), "{line}");
        seen += 1;
    }
    assert!(seen > 600, "{seen}");
}

/// A volume with a few files, and what they hold.
fn small(folder: &Path) -> PathBuf {
    let image = make(folder, 16 << 20, "512", 512);
    let volume = mount(folder, &image, "rw");
    shell(
        &volume.mounted.path,
        "mkdir deep; for n in $(seq 40); do echo $n > deep/file-with-a-long-name-$n; done; head -c 3000 /dev/urandom > whole; cp whole /tmp/$$; mv /tmp/$$ copy
         for n in $(seq 8); do head -c 700 /dev/zero | tr '\\0' a >> one; head -c 700 /dev/zero | tr '\\0' b >> two; done",
    );
    drop(volume);
    image
}

/// The offset of the first slot of the set of a file: its name starts with `name`, 15 units at the most.
fn set_of(bytes: &[u8], name: &str) -> usize {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = (0..bytes.len()).step_by(32).find(|at| bytes[*at] == 0xc1 && bytes[at + 2..].starts_with(&name));
    at.expect("the set") - 64
}

/// Changes an image in place, mends the checksum of the set at `set`, and opens it.
fn change(image: &Path, set: Option<usize>, change: impl FnOnce(&mut Vec<u8>)) -> Box<dyn FileSystem> {
    let mut bytes = std::fs::read(image).unwrap();
    change(&mut bytes);
    if let Some(set) = set {
        let len = 32 * (usize::from(bytes[set + 1]) + 1);
        let sum = bytes[set..set + len].iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
        let sum = sum.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
        bytes[set + 2..set + 4].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(image, bytes).unwrap();
    open_files(image)
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn sets_that_cross_clusters_are_found_from_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let files = open_files(&image);
    for entry in entries(&*files, find(&*files, "deep")) {
        let text = String::from_utf8(bytes_of(&*files.open(entry.node, None).unwrap())).unwrap();
        assert_eq!(entry.name, format!("file-with-a-long-name-{}", text.trim()).into_bytes());
    }
    // Names of another length put the sets out of step with the clusters.
    let volume = mount(folder.path(), &image, "rw");
    shell(
        &volume.mounted.path,
        "mkdir odd; for n in $(seq 60); do echo $n > odd/$n; echo a$n > odd/a-longer-name-of-a-file-so-that-sets-differ-$n; done",
    );
    drop(volume);
    let files = open_files(&image);
    let mut crossing = 0;
    for entry in entries(&*files, find(&*files, "odd")) {
        let start = (entry.node.0 & !1) * 16;
        let slots = 2 + (String::from_utf8_lossy(&entry.name).len() as u64).div_ceil(15);
        crossing += usize::from(start / 512 != (start + slots * 32 - 1) / 512);
        assert!(files.attributes(entry.node).unwrap().len > 0);
        assert!(!bytes_of(&*files.open(entry.node, None).unwrap()).is_empty());
    }
    assert!(crossing > 5, "{crossing}");
}

#[test]
fn what_was_never_written_reads_as_zero() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let model = bytes_of(&*open_files(&image).open(find(&*open_files(&image), "whole"), None).unwrap());
    let set = set_of(&std::fs::read(&image).unwrap(), "whole");
    let files = change(&image, Some(set), |bytes| bytes[set + 40..set + 48].copy_from_slice(&1000_u64.to_le_bytes()));
    let content = files.open(find(&*files, "whole"), None).unwrap();
    let bytes = bytes_of(&*content);
    assert_eq!(bytes[..1000], model[..1000]);
    assert!(bytes.len() == 3000 && bytes[1000..].iter().all(|byte| *byte == 0));
    let extent = content.extent_at(1000).unwrap();
    assert_eq!((extent.len, extent.kind), (2000, ExtentKind::Zero));
    assert_eq!(content.places().unwrap().iter().map(|range| range.end - range.start).sum::<u64>(), 1000);
}

#[test]
fn times_say_how_far_they_are_from_utc() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let set = set_of(&std::fs::read(&image).unwrap(), "whole");
    // 2024-02-29 23:59:58 and 1.99 seconds.
    let stamp = u32::to_le_bytes((44 << 9 | 2 << 5 | 29) << 16 | 23 << 11 | 59 << 5 | 29);
    for (offset, distance) in
        [(0_u8, 0), (0x80, 0), (0x84, 3600), (0xfc, -3600), (0x7f, 0), (0xff, -900), (0xb8, 14 * 3600)]
    {
        let files = change(&image, Some(set), |bytes| {
            bytes[set + 8..set + 12].copy_from_slice(&stamp);
            (bytes[set + 20], bytes[set + 22]) = (199, offset);
        });
        let created = files.attributes(find(&*files, "whole")).unwrap().created.unwrap();
        assert_eq!((created.seconds, created.nanoseconds), (1_709_251_199 - distance, 990_000_000), "{offset:#x}");
    }
}

#[test]
fn broken_sets_are_told_behind_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let set = set_of(&std::fs::read(&image).unwrap(), "whole");
    let files = change(&image, None, |bytes| bytes[set + 66] ^= 1);
    let mut names = Vec::new();
    let result = files.list(files.root(), &mut |entry| {
        names.push(String::from_utf8(entry.name).unwrap());
        ControlFlow::Continue(())
    });
    assert!(is_corrupt(result));
    assert_eq!(names, ["deep", "copy", "one", "two"]);
    assert!(files.lookup(files.root(), b"copy").unwrap().is_some());
    assert!(is_corrupt(files.lookup(files.root(), b"whole")));
    assert!(is_corrupt(files.attributes(NodeId(set as u64 / 16))));
}

#[test]
fn hostile_sets_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let before = std::fs::read(&image).unwrap();
    let set = set_of(&before, "whole");
    let put = |at: usize, value: &[u8]| {
        change(&image, Some(set), |bytes| {
            bytes.copy_from_slice(&before);
            bytes[set + at..set + at + value.len()].copy_from_slice(value);
        })
    };
    let open = |files: &dyn FileSystem| {
        files.open(find(files, "whole"), None).and_then(|content| content.read_at(&mut [0; 1], 2999))
    };
    assert!(open(&*put(0, &[0x85])).is_ok());
    // First cluster, length with what is valid, flags.
    assert!(is_corrupt(open(&*put(52, &[0xff; 4]))));
    assert!(is_corrupt(open(&*put(52, &[0; 4]))));
    assert!(open(&*put(40, &[0; 8])).is_ok(), "nothing of it is valid, so it is zero");
    let longest = u64::MAX.to_le_bytes();
    let mut value = [0; 24];
    value[..8].copy_from_slice(&longest);
    value[12..16].copy_from_slice(&before[set + 52..set + 56]);
    value[16..].copy_from_slice(&longest);
    let files = put(40, &value);
    assert!(is_corrupt(files.open(find(&*files, "whole"), None)));
    assert_eq!(files.attributes(find(&*files, "whole")).unwrap().len, u64::MAX);
    // More valid than there is; a name that is longer than its slots.
    for (at, value) in [(40, &longest[..]), (35, &[200])] {
        let files = put(at, value);
        assert!(is_corrupt(files.lookup(files.root(), b"whole")));
    }
    // A chain in a loop, of a file and of a folder.
    let table = 512 * u32::from_le_bytes(before[80..84].try_into().unwrap()) as usize;
    let one = set_of(&before, "one");
    let first = u32::from_le_bytes(before[one + 52..one + 56].try_into().unwrap());
    assert_eq!(before[one + 33] & 2, 0, "it is in fragments");
    let files = change(&image, None, |bytes| {
        bytes.copy_from_slice(&before);
        bytes[table + 4 * first as usize..][..4].copy_from_slice(&first.to_le_bytes());
    });
    assert!(is_corrupt(files.open(find(&*files, "one"), None)));
    let root = u32::from_le_bytes(before[96..100].try_into().unwrap());
    let heap = 512 * u32::from_le_bytes(before[88..92].try_into().unwrap()) as usize;
    let files = change(&image, None, |bytes| {
        bytes[table + 4 * root as usize..][..4].copy_from_slice(&root.to_le_bytes());
        // No mark of the end: the rest of the cluster is deleted entries.
        let start = heap + (root as usize - 2) * 512;
        for slot in bytes[start..start + 512].chunks_mut(32).filter(|slot| slot[0] == 0) {
            slot[0] = 5;
        }
    });
    assert!(is_corrupt(files.list(files.root(), &mut |_| ControlFlow::Continue(()))));
    assert!(is_corrupt(files.attributes(files.root())));
}

#[test]
fn nodes_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path());
    let files = open_files(&image);
    let file = find(&*files, "whole");
    for node in [1, 2, 512, file.0 + 2, file.0 + 4, (16 << 20) / 16, u64::MAX, u64::MAX - 1] {
        assert!(matches!(files.attributes(NodeId(node)), Err(Error::NotFound(_))), "{node:?}");
        assert!(files.open(NodeId(node), None).is_err() && files.lookup(NodeId(node), b"x").is_err());
    }
    assert!(matches!(files.lookup(file, b"x"), Err(Error::NotFound(_))));
    assert!(matches!(files.open(file, Some(b"stream")), Err(Error::NotFound(_))));
    assert!(matches!(files.open(files.root(), None), Err(Error::NotFound(_))));
    assert!(files.link_target(file).is_err());
}
