//! Files of FAT12, FAT16 and FAT32, held against mtools and The Sleuth Kit.

use std::path::{Path, PathBuf};

use imgfmt::Error;
use imgfmt::filesystem::files::{FileSystem, NodeKind};

use crate::fat::{KINDS, extract, fill, make};
use crate::tools::{run, shell};
use crate::tree_oracle::{Oracle, bytes_of, compare, entries, find, open_files};

/// What mtools knows: names, content, and times of modification two seconds fine.
fn mtools<'a>() -> Oracle<'a> {
    Oracle { permissions: false, owners: false, links: false, changed: 0, modified: 2_000_000_000, ..Oracle::default() }
}

/// Runs mtools with a script; `$i` is the image.
fn with_mtools(folder: &Path, image: &Path, script: &str) {
    let settings = "export LC_ALL=C.UTF-8 TZ=UTC MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null";
    shell(folder, &format!("{settings}; i='{}'\n{script}", image.display()));
}

#[test]
fn files_are_those_of_mtools() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), kind);
        fill(folder.path(), &image);
        let out = folder.path().join("out");
        extract(&image, &out);
        let files = open_files(&image);
        let nodes = compare(&*files, &out, &mtools());
        assert!(nodes > 150, "{nodes}");
        let space = files.space().unwrap();
        let blocks = crate::fat::cluster_counts(&image);
        let size = files.summary().block_size;
        assert_eq!((space.free, space.total), ((blocks.1 - blocks.0) * size, blocks.1 * size));
    }
}

#[test]
fn names_in_any_script_and_any_length_are_found_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[4]);
    with_mtools(
        folder.path(),
        &image,
        "
        mkdir tree; cd tree; n=$(printf 'n%.0s' $(seq 255)); for f in \"$n\" exactly13unit thirteen-and-a-bit 'F\u{fc}\u{df}e \u{65e5}\u{672c}' \
            '\u{39a}\u{3b1}\u{3bb}\u{3b7}\u{3bc}\u{3ad}\u{3c1}\u{3b1}' '.dot' 'two  spaces.and.dots' 'a+b,c;d=e[f]' LOWER.txt lower.TXT both.txt UPPER.TXT; do
            echo \"$f\" > \"$f\" || true; done; rm -f lower.TXT
        touch -d '2011-03-04 05:06:08' *; mcopy -s -m -i $i * .dot ::; mkdir ../out; mcopy -s -m -n -i $i ::/ ../out; cd ..; diff -r tree out
        ",
    );
    let files = open_files(&image);
    compare(&*files, &folder.path().join("out"), &mtools());
    let root = files.root();
    let found =
        |name: &str| files.lookup(root, name.as_bytes()).unwrap().map(|entry| String::from_utf8(entry.name).unwrap());
    for (asked, stored) in [
        ("f\u{dc}\u{df}E \u{65e5}\u{672c}", "F\u{fc}\u{df}e \u{65e5}\u{672c}"),
        (
            "\u{39a}\u{391}\u{39b}\u{397}\u{39c}\u{388}\u{3a1}\u{391}",
            "\u{39a}\u{3b1}\u{3bb}\u{3b7}\u{3bc}\u{3ad}\u{3c1}\u{3b1}",
        ),
        ("EXACTL~1", "exactly13unit"),
        ("exactl~1", "exactly13unit"),
        ("TWOSPA~1.DOT", "two  spaces.and.dots"),
        ("BOTH.TXT", "both.txt"),
        ("upper.txt", "UPPER.TXT"),
    ] {
        assert_eq!(found(asked).as_deref(), Some(stored), "{asked}");
    }
    for asked in ["EXACTL~2", "exactly13uni", "", ".", "..", "\u{ff}"] {
        assert_eq!(found(asked), None, "{asked}");
    }
    assert_eq!(files.lookup(root, b"\xff").unwrap(), None);
    assert_eq!(files.lookup(root, b"a/b").unwrap(), None);
}

/// Changes an image in place.
fn change(image: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Box<dyn FileSystem> {
    let mut bytes = std::fs::read(image).unwrap();
    change(&mut bytes);
    std::fs::write(image, bytes).unwrap();
    open_files(image)
}

/// Where an 8.3 entry lies.
fn entry_at(bytes: &[u8], name: &[u8; 11]) -> usize {
    (0..bytes.len()).step_by(32).find(|at| bytes[*at..].starts_with(name)).expect("the entry")
}

fn names(files: &dyn FileSystem) -> Vec<String> {
    entries(files, files.root()).into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
}

#[test]
fn names_that_mtools_does_not_write_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[2]);
    with_mtools(
        folder.path(),
        &image,
        "for f in CAFE.TXT EFILE 'a QQ in a name' ORPHAN.TXT 'slash in name'; do echo \"$f\" > \"$f\"; mcopy -i $i \"$f\" ::; done",
    );
    let files = change(&image, |bytes| {
        // An upper-case E with an acute accent in code page 437, shown in lower case.
        let cafe = entry_at(bytes, b"CAFE    TXT");
        bytes[cafe + 3] = 0x90;
        bytes[cafe + 12] = 0x18;
        // 0x05 stands for 0xe5, a sigma.
        let file = entry_at(bytes, b"EFILE      ");
        bytes[file] = 0x05;
        // A pair of surrogates, and half of one.
        let q = (0..bytes.len()).find(|at| bytes[*at..].starts_with(b"Q\0Q\0")).unwrap();
        bytes[q..q + 4].copy_from_slice(b"\x3d\xd8\x00\xde");
        // Parts of long names that belong to nothing: in front of an entry with another checksum, and of a deleted one.
        let long = entry_at(bytes, b"AQQIN~1    ") - 32;
        let orphan = entry_at(bytes, b"ORPHAN  TXT");
        let part: Vec<u8> = bytes[long..long + 32].into();
        let slash = entry_at(bytes, b"SLASHI~1   ");
        bytes[slash - 31] = b'/';
        bytes.copy_within(orphan..slash + 32, orphan + 32);
        bytes[orphan..orphan + 32].copy_from_slice(&part);
    });
    // A long name that nobody can ask for leaves the short one.
    assert_eq!(names(&*files), ["caf\u{e9}.txt", "\u{3c3}FILE", "a \u{1f600} in a name", "ORPHAN.TXT", "SLASHI~1"]);
    for name in ["CAF\u{c9}.TXT", "\u{3c3}file", "A \u{1f600} IN A NAME", "orphan.txt", "slashi~1"] {
        assert!(files.lookup(files.root(), name.as_bytes()).unwrap().is_some(), "{name}");
    }
    let content = files.open(find(&*files, "a \u{1f600} in a name"), None).unwrap();
    assert_eq!(bytes_of(&*content), b"a QQ in a name\n");
}

#[test]
fn times_and_attributes_are_those_of_the_sleuth_kit() {
    for (kind, name) in [(KINDS[1], "fat12"), (KINDS[2], "fat16"), (KINDS[4], "fat32")] {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), kind);
        with_mtools(
            folder.path(),
            &image,
            "
            mkdir -p tree/sub; for n in 1 2 3 4 5; do echo $n > tree/$n; touch -d \"201$n-0$n-1$n 1$n:2$n:3$n\" tree/$n; done
            cp -p tree/3 tree/sub/three; touch -d '1980-01-01 00:00:00' tree/1; touch -d '2107-12-31 23:59:58' tree/2
            mcopy -s -m -i $i tree/* ::; mattrib -i $i +r +h +s -a ::1
            ",
        );
        let files = open_files(&image);
        let table = run("fls", ["-m", "/", "-r", "-p", "-z", "UTC", "-f", name, image.to_str().unwrap()]);
        let table = String::from_utf8(table.stdout).unwrap();
        let mut seen = 0;
        // The Sleuth Kit knows no year past 2037.
        for line in table
            .lines()
            .filter(|line| !line.contains("/$") && !line.contains("(Volume Label") && !line.contains("|/2|"))
        {
            let fields: Vec<_> = line.split('|').collect();
            let number = |at: usize| fields[at].parse::<i64>().unwrap();
            let node = find(&*files, fields[1].trim_start_matches('/'));
            let attributes = files.attributes(node).unwrap();
            let seconds = |time: Option<imgfmt::filesystem::files::Time>| time.map_or(0, |time| time.seconds);
            assert_eq!(attributes.len as i64, number(6), "{line}");
            let ours = [attributes.accessed, attributes.modified, attributes.created].map(seconds);
            assert_eq!(ours, [number(7), number(8), number(10)], "{line}");
            seen += 1;
        }
        assert_eq!(seen, 6);
        let attributes = |path| files.attributes(find(&*files, path)).unwrap();
        assert_eq!(attributes("1").dos_attributes, Some(0x07));
        assert_eq!(attributes("2").dos_attributes, Some(0x20));
        assert_eq!((attributes("sub").dos_attributes, attributes("sub").kind), (Some(0x10), NodeKind::Folder));
        assert_eq!(attributes("1").modified.unwrap().seconds, 315_532_800);
        assert_eq!(attributes("2").modified.unwrap().seconds, 4_354_819_198);
    }
}

/// The slots of an empty file with a long name.
fn slots(number: u32, name: &str) -> Vec<u8> {
    let mut short = [0; 32];
    short[..11].copy_from_slice(format!("{number:08X}   ").as_bytes());
    let checksum = short[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let mut all = Vec::new();
    for (index, part) in units.chunks(13).enumerate().rev() {
        let mut slot = [0xff; 32];
        slot[0] = index as u8 + 1 + if all.is_empty() { 0x40 } else { 0 };
        (slot[11], slot[12], slot[13]) = (0x0f, 0, checksum);
        slot[26..28].fill(0);
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        for (at, unit) in places.into_iter().zip(part.iter().copied().chain([0]).take(13)) {
            slot[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        all.extend(slot);
    }
    all.extend(short);
    all
}

#[test]
fn large_folders_are_listed_and_searched_fast() {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), KINDS[5]);
    // A file whose content is that of a folder becomes one.
    let names: Vec<String> = (0..8000).map(|n| format!("a file with a rather long name, number {n}")).collect();
    let content: Vec<u8> = (0..).zip(&names).flat_map(|(n, name)| slots(n, name)).collect();
    std::fs::write(folder.path().join("LARGE"), content).unwrap();
    with_mtools(folder.path(), &image, "mcopy -i $i LARGE ::");
    let files = change(&image, |bytes| {
        let at = entry_at(bytes, b"LARGE      ");
        bytes[at + 11] = 0x10;
        bytes[at + 28..at + 32].fill(0);
    });
    let large = find(&*files, "LARGE");
    let start = std::time::Instant::now();
    let all = entries(&*files, large);
    assert!(all.iter().map(|entry| &entry.name[..]).eq(names.iter().map(|name| name.as_bytes())));
    for entry in &all {
        assert_eq!(files.lookup(large, &entry.name.to_ascii_uppercase()).unwrap().as_ref(), Some(entry));
        assert_eq!(files.attributes(entry.node).unwrap().len, 0);
    }
    // A scan of the folder for each of them would take minutes.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

/// A volume with a file in fragments and a deep folder, and where the entries of its table lie.
fn hostile(folder: &Path) -> (PathBuf, usize) {
    let image = make(folder, KINDS[4]);
    with_mtools(
        folder,
        &image,
        "mmd -i $i ::DEEP ::DEEP/ER; head -c 5000 /dev/urandom > FILE; mcopy -i $i FILE ::; mcopy -i $i FILE ::DEEP; mcopy -i $i FILE ::DEEP/ER",
    );
    let bytes = std::fs::read(&image).unwrap();
    (image, 512 * usize::from(bytes[0x0e]))
}

fn cluster_of(bytes: &[u8], name: &[u8; 11]) -> usize {
    let at = entry_at(bytes, name);
    usize::from(u16::from_le_bytes([bytes[at + 26], bytes[at + 27]]))
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn broken_chains_are_errors_and_what_lies_before_the_break_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (image, table) = hostile(folder.path());
    let content = std::fs::read(folder.path().join("FILE")).unwrap();
    let before = std::fs::read(&image).unwrap();
    let first = cluster_of(&before, b"FILE       ");
    let third = table + 4 * (first + 2);
    for (value, opens) in
        [(0_u32, true), (0x0fff_fff7, true), (0x0fff_fff0, true), (0x0fff_ffff, true), (first as u32, false)]
    {
        let files = change(&image, |bytes| bytes[third..third + 4].copy_from_slice(&value.to_le_bytes()));
        match files.open(find(&*files, "FILE"), None) {
            Ok(opened) => {
                assert!(opens, "{value:#x}");
                let mut buf = vec![0; 1536];
                opened.read_at(&mut buf, 0).unwrap();
                assert_eq!(buf, content[..1536]);
                assert!(is_corrupt(opened.read_at(&mut buf[..2], 1535)));
                assert_eq!(opened.places(), None);
            }
            Err(error) => assert!(!opens && error.to_string().contains("comes back"), "{value:#x}: {error}"),
        }
    }
    // A length that no volume has, and a length without a cluster.
    let files = change(&image, |bytes| {
        bytes.copy_from_slice(&before);
        let at = entry_at(bytes, b"FILE       ");
        bytes[at + 28..at + 32].fill(0xff);
    });
    let opened = files.open(find(&*files, "FILE"), None).unwrap();
    assert_eq!(opened.len(), u64::from(u32::MAX));
    assert!(is_corrupt(opened.read_at(&mut [0; 512], 1 << 31)));
    let files = change(&image, |bytes| {
        bytes.copy_from_slice(&before);
        let at = entry_at(bytes, b"FILE       ");
        bytes[at + 20..at + 22].fill(0);
        bytes[at + 26..at + 28].fill(0);
    });
    assert!(is_corrupt(files.open(find(&*files, "FILE"), None).unwrap().read_at(&mut [0; 1], 0)));
}

#[test]
fn folders_that_loop_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let (image, table) = hostile(folder.path());
    let before = std::fs::read(&image).unwrap();
    let deep = cluster_of(&before, b"DEEP       ");
    // A chain that comes back to its start; the folder is filled so that it has no mark of its end.
    let data = before.len() - (before.len() - table) / 512 * 512;
    assert!(data <= table);
    let files = change(&image, |bytes| bytes[table + 4 * deep..][..4].copy_from_slice(&(deep as u32).to_le_bytes()));
    assert_eq!(entries(&*files, find(&*files, "DEEP")).len(), 2, "the mark of the end comes first");
    assert!(is_corrupt(files.attributes(find(&*files, "DEEP"))));
    let files = change(&image, |bytes| {
        let start = bytes.windows(11).position(|name| name == b".          ").unwrap();
        let slot: Vec<u8> = bytes[start + 64..start + 96].into();
        for at in (start + 96..start + 512).step_by(32) {
            bytes[at..at + 32].copy_from_slice(&slot);
        }
    });
    let deep_folder = find(&*files, "DEEP");
    let mut count = 0;
    let result = files.list(deep_folder, &mut |_| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert!(is_corrupt(result));
    assert_eq!(count, 14, "each entry once");
    assert!(files.lookup(deep_folder, b"ER").unwrap().is_some());
    assert!(is_corrupt(files.lookup(deep_folder, b"NONE")), "what is not found may lie behind the break");

    // A folder in itself has the same number at every depth, so that whoever walks can see it.
    let files = change(&image, |bytes| {
        bytes.copy_from_slice(&before);
        let er = entry_at(bytes, b"ER         ");
        bytes[er + 26..er + 28].copy_from_slice(&(deep as u16).to_le_bytes());
    });
    assert_eq!(find(&*files, "DEEP/ER"), find(&*files, "DEEP/ER/ER/ER"));
    // And one whose entry names no cluster at all is no empty folder.
    let files = change(&image, |bytes| {
        bytes.copy_from_slice(&before);
        let er = entry_at(bytes, b"ER         ");
        bytes[er + 26..er + 28].fill(0);
    });
    assert!(is_corrupt(files.list(find(&*files, "DEEP/ER"), &mut |_| std::ops::ControlFlow::Continue(()))));
}

#[test]
fn nodes_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (image, _) = hostile(folder.path());
    let files = open_files(&image);
    let file = find(&*files, "FILE");
    let len = std::fs::metadata(&image).unwrap().len();
    for node in [1, 31, 512, file.0 + 1, len - 32, len, u64::MAX, u64::MAX - 31] {
        let node = imgfmt::filesystem::files::NodeId(node);
        assert!(matches!(files.attributes(node), Err(Error::NotFound(_))), "{node:?}");
        assert!(files.open(node, None).is_err() && files.lookup(node, b"x").is_err());
    }
    assert!(matches!(files.lookup(file, b"x"), Err(Error::NotFound(_))));
    assert!(matches!(files.open(file, Some(b"stream")), Err(Error::NotFound(_))));
    assert!(matches!(files.open(files.root(), None), Err(Error::NotFound(_))));
    assert!(files.link_target(file).is_err());
    assert!(files.streams(file).unwrap().is_empty() && files.xattrs(file).unwrap().is_empty());
}
