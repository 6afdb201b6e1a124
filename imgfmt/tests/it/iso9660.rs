//! ISO 9660 made by xorriso and genisoimage, held against what was put in, xorriso and 7-Zip.

use std::path::{Path, PathBuf};

use imgfmt::Error;
use imgfmt::filesystem::files::{FileSystem, NodeKind};

use crate::tools::{as_root, run, shell};
use crate::tree_oracle::{Oracle, bytes_of, compare, entries, find, open_files};

/// A tree with everything that Rock Ridge knows.
fn tree(folder: &Path) {
    shell(
        folder,
        "
        mkdir -p tree/many tree/a/b/c/d/e/f/g/h/i/j; cd tree; for n in $(seq 300); do echo file $n > many/a-rather-long-name-of-a-file-$n.text; done
        echo deep > a/b/c/d/e/f/g/h/i/j/deep; : > empty; head -c 100000 /dev/urandom > large; head -c 4096 /dev/urandom > 'two blocks'
        echo x > \"$(printf 'n%.0s' $(seq 250))\"; echo y > 'F\u{fc}\u{df}e \u{65e5}\u{672c}'; echo z > .hidden; echo w > UPPER.TXT
        ln -s ../a/./b link; ln -s / root; ln -s \"/$(printf 'long/%.0s' $(seq 200))x\" far; mkfifo pipe; chmod 4751 large; chmod 700 a
        touch -d '1999-12-31 23:59:59' large; touch -d '2030-02-03 04:05:06' a
        ",
    );
    as_root("mknod", [folder.join("tree/null").to_str().unwrap(), "c", "1", "3"]);
    as_root("chown", ["1234:567", folder.join("tree/large").to_str().unwrap()]);
}

fn make(folder: &Path, program: &[&str]) -> PathBuf {
    let image = folder.join("disc.iso");
    let (program, options) = program.split_first().unwrap();
    let (image, tree) = (image.to_str().unwrap(), folder.join("tree"));
    run(program, options.iter().copied().chain(["-V", "DISC", "-o", image, tree.to_str().unwrap()]));
    image.into()
}

/// Names, content, times, modes, owners and targets; not the modes of links, which Linux makes up.
fn all<'a>(skip: &'a dyn Fn(&Path) -> bool) -> Oracle<'a> {
    Oracle { links: false, modified: 1_000_000_000, changed: 0, skip, ..Oracle::default() }
}

#[test]
fn rock_ridge_shows_what_was_put_in() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    // genisoimage moves deep folders to one that is made for that.
    let programs: [&[&str]; 3] = [
        &["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-iso-level", "3"],
        &["genisoimage", "-quiet", "-R"],
        &["genisoimage", "-quiet", "-R", "-J", "-joliet-long"],
    ];
    for program in programs {
        if program[0] == "genisoimage" {
            // It never comes back from a link that needs more than one continuation.
            shell(folder.path(), "rm -f tree/far");
        }
        let image = make(folder.path(), program);
        let files = open_files(&image);
        assert_eq!((files.summary().kind, files.summary().label.as_str()), ("ISO 9660", "DISC"));
        let nodes = compare(&*files, &folder.path().join("tree"), &all(&|path| path == Path::new("rr_moved")));
        assert!(nodes > 320, "{nodes}");
        assert_eq!(files.lookup(files.root(), b"upper.txt").unwrap(), None, "case matters");
        let null = files.attributes(find(&*files, "null")).unwrap().kind;
        assert_eq!(null, NodeKind::CharacterDevice { major: 1, minor: 3 });
        if let Ok(Some(moved)) = files.lookup(files.root(), b"rr_moved") {
            assert_eq!(entries(&*files, moved.node), vec![], "what was moved there is shown where it came from");
        }
    }
}

fn unpack(folder: &Path, image: &Path) -> PathBuf {
    let out = folder.join("out");
    let _ = std::fs::remove_dir_all(&out);
    run("env", ["LC_ALL=C.UTF-8", "7zz", "x", "-y", &format!("-o{}", out.display()), image.to_str().unwrap()]);
    out
}

#[test]
fn joliet_and_plain_names_are_those_of_7_zip() {
    let folder = tempfile::tempdir().unwrap();
    shell(
        folder.path(),
        "mkdir -p tree/many tree/sub/deeper; cd tree; for n in $(seq 100); do echo $n > many/a-rather-long-name-$n.text; done; : > sub/empty
         echo x > 'F\u{fc}\u{df}e \u{65e5}\u{672c}'; head -c 5000 /dev/urandom > sub/deeper/data.bin; echo n > noext",
    );
    for (options, name, other) in [
        (&["-J"][..], "sub/deeper/data.bin", "SUB/Deeper/DATA.bin"),
        (&["-iso-level", "1"], "SUB/DEEPER/DATA.BIN", "sub/deeper/data.bin"),
    ] {
        let image = make(folder.path(), &[&["genisoimage", "-quiet", "-input-charset", "utf-8"], options].concat());
        let files = open_files(&image);
        let oracle = Oracle {
            permissions: false,
            owners: false,
            links: false,
            modified: 1_000_000_000,
            changed: 0,
            ..Oracle::default()
        };
        let nodes = compare(&*files, &unpack(folder.path(), &image), &oracle);
        assert!(nodes > 100, "{nodes}");
        assert_eq!(find(&*files, name), find(&*files, other), "case does not matter");
        let attributes = files.attributes(find(&*files, name)).unwrap();
        assert_eq!((attributes.permissions, attributes.uid, attributes.dos_attributes), (None, None, Some(1)));
        let data = std::fs::read(folder.path().join("tree/sub/deeper/data.bin")).unwrap();
        assert_eq!(bytes_of(&*files.open(find(&*files, name), None).unwrap()), data);
    }
}

/// Changes an image in place.
fn change(image: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Box<dyn FileSystem> {
    let mut bytes = std::fs::read(image).unwrap();
    change(&mut bytes);
    std::fs::write(image, bytes).unwrap();
    open_files(image)
}

/// Where the record with an identifier starts.
fn record(bytes: &[u8], name: &[u8]) -> usize {
    let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(name) && bytes[*at - 1] == name.len() as u8);
    at.expect("the record") - 33
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn files_in_several_extents_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    shell(
        folder.path(),
        "mkdir tree; head -c 4096 /dev/urandom > tree/AAAA; head -c 3000 /dev/urandom > tree/AAAB; echo c > tree/CCCC",
    );
    let image = make(folder.path(), &["genisoimage", "-quiet", "-iso-level", "1"]);
    let read = |name: &str| std::fs::read(folder.path().join("tree").join(name)).unwrap();
    // Two files become two extents of one.
    let files = change(&image, |bytes| {
        let (first, second) = (record(bytes, b"AAAA.;1"), record(bytes, b"AAAB.;1"));
        bytes[first + 25] |= 0x80;
        bytes[second + 36] = b'A';
    });
    let names: Vec<_> = entries(&*files, files.root()).into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [b"AAAA", b"CCCC"]);
    let content = files.open(find(&*files, "AAAA"), None).unwrap();
    assert_eq!(bytes_of(&*content), [read("AAAA"), read("AAAB")].concat());
    assert_eq!(files.attributes(find(&*files, "AAAA")).unwrap().len, 7096);
    let mut middle = [0; 200];
    content.read_at(&mut middle, 4000).unwrap();
    assert_eq!(middle[..], [read("AAAA"), read("AAAB")].concat()[4000..4200]);
    // The last extent is missing.
    let files = change(&image, |bytes| {
        let second = record(bytes, b"AAAA.;1") + 40;
        bytes[second + 36] = b'X';
    });
    assert!(is_corrupt(files.open(find(&*files, "AAAA"), None)));
    let files = change(&image, |bytes| {
        let record = record(bytes, b"CCCC.;1");
        bytes[record + 26] = 1;
    });
    assert!(matches!(files.open(find(&*files, "CCCC"), None), Err(Error::Unsupported { .. })));
}

#[test]
fn hostile_records_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    shell(folder.path(), "mkdir -p tree/DIR; echo f > tree/FILE; echo g > tree/DIR/GGGG");
    let image = make(folder.path(), &["genisoimage", "-quiet", "-iso-level", "1"]);
    let before = std::fs::read(&image).unwrap();
    let put = |name: &[u8], at: usize, value: &[u8]| {
        change(&image, |bytes| {
            bytes.copy_from_slice(&before);
            let record = record(bytes, name);
            bytes[record + at..][..value.len()].copy_from_slice(value);
        })
    };
    let list = |files: &dyn FileSystem, path: &str| {
        files.list(find(files, path), &mut |_| std::ops::ControlFlow::Continue(()))
    };
    assert!(list(&*put(b"DIR", 0, &[]), "DIR").is_ok());
    for (at, value) in [(2, [0xff; 4]), (10, [0xff; 4])] {
        assert!(is_corrupt(list(&*put(b"DIR", at, &value), "DIR")));
        let files = put(b"FILE.;1", at, &value);
        assert!(is_corrupt(files.open(find(&*files, "FILE"), None)));
    }
    // A record that is longer than its sector, behind others of the root.
    let files = put(b"FILE.;1", 32, &[200]);
    assert!(files.lookup(files.root(), b"DIR").unwrap().is_some());
    assert!(is_corrupt(files.lookup(files.root(), b"FILE")));
    // A folder in itself has the same number at every depth.
    let at = record(&before, b"GGGG.;1");
    let own = before[record(&before, b"DIR") + 2..][..4].to_vec();
    let files = change(&image, |bytes| {
        bytes.copy_from_slice(&before);
        bytes[at + 25] = 2;
        bytes[at + 2..at + 6].copy_from_slice(&own);
        bytes[at + 10..at + 14].copy_from_slice(&2048_u32.to_le_bytes());
    });
    assert_eq!(find(&*files, "DIR/GGGG"), find(&*files, "DIR/GGGG/GGGG/GGGG"));
    assert!(files.attributes(imgfmt::filesystem::files::NodeId(u64::MAX)).is_err());
}
