//! Names, links, streams and damage, as Windows is shown them.

use dokan2::calls::{Calls, DIRECTORY_FILE, LIST, LOOK, OPEN, READ, status, units};
use dokan2::direct::Direct;
use dokan2::walk::list;

use crate::{disks, drive};

fn read(drive: &Direct, path: &str) -> Result<String, u32> {
    let read = drive.with(&units(path), READ, 0, |open| drive.read_all(open, 4096));
    read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn odd_names_are_shown_mapped_and_found_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let (drive, _) = drive(&disks::odd(folder.path()));
    let cases = [
        (r"\p1\a%3Ab", "1\n"),
        (r"\p1\A%3aB", "1\n"),
        (r"\p1\a%253Ab", "2\n"),
        (r"\p1\trailing%2E", "3\n"),
        (r"\p1\trailing%20", "4\n"),
        (r"\p1\%63on", "5\n"),
        (r"\P1\%4EUL.TXT", "6\n"),
        (r"\p1\back%5Cslash", "7\n"),
        (r"\p1\latin%E9", "8\n"),
        (r"\p1\tab%09here", "9\n"),
        (r"\p1\foo%20bar", "x\n"),
        (r"\p1\Makefile", "upper\n"),
        (r"\p1\makefile", "lower\n"),
        (r"\p1\MAKEFILE", "shout\n"),
        (r"\p1\dir%3A with%3F\FILE%2a", "in\n"),
        // Links that lead nowhere, or out.
        (r"\p1\dangling", "nowhere"),
        (r"\p1\loop", "loop"),
        (r"\p1\outside", "/etc/passwd"),
    ];
    for (path, content) in cases {
        assert_eq!(read(&drive, path).as_deref(), Ok(content), "{path}");
    }
    for path in [r"\p1\a:b", r"\p1\con", r"\p1\trailing.", r"\p1\link\x", r"\p1\nothing"] {
        assert!(read(&drive, path).is_err(), "{path}");
    }
    assert!(read(&drive, r"\p1\absolute") == read(&drive, r"\p1\sub\big"));
    let names: Vec<String> = list(&drive, &units(r"\p1"), Some(&units("make*")))
        .iter()
        .map(|entry| String::from_utf16(&entry.name).unwrap())
        .collect();
    assert_eq!((names.len(), names.iter().filter(|name| name.contains("%~")).count()), (3, 2), "{names:?}");
    for name in names {
        assert!(read(&drive, &format!(r"\p1\{}", name.to_lowercase())).is_ok(), "{name}");
    }
    // A search for a name finds what it opens.
    let found = list(&drive, &units(r"\p1"), Some(&units("makefile")));
    assert_eq!((found.len(), found[0].len), (1, 6));
}

#[test]
fn links_to_folders_are_followed_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let (drive, _) = drive(&disks::odd(folder.path()));
    let deep = units(r"\p1\folderlink\deep\up\deep\up\big");
    let len = drive.with(&deep, LOOK, 0, |open| drive.information(open)).unwrap().len;
    assert_eq!(len, 3_000_000);
    let of = |path: &str| drive.with(&units(path), LIST, DIRECTORY_FILE, |open| drive.information(open));
    assert_eq!(of(r"\p1\folderlink").unwrap().attributes, 0x410);
    assert_eq!(of(r"\p1\sub").unwrap().attributes, 0x10);
    let names = |path: &str| list(&drive, &units(path), None).into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(r"\p1\folderlink"), names(r"\p1\sub"));
}

#[test]
fn streams_and_descriptors_of_ntfs_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (drive, _) = drive(&disks::odd(folder.path()));
    for path in [r"\p2\resident:small", r"\P2\RESIDENT:SMALL", r"\p2\resident:small:$DATA"] {
        assert_eq!(read(&drive, path).as_deref(), Ok("stream\n"), "{path}");
    }
    assert_eq!(read(&drive, r"\p2\resident::$DATA").as_deref(), Ok("small\n"));
    assert_eq!(read(&drive, r"\p2\resident:none"), Err(status::OBJECT_NAME_NOT_FOUND));
    // The 8.3 name leads there too, and a search for it finds the long one.
    assert_eq!(read(&drive, r"\p2\LONG~1").as_deref(), Ok("long\n"));
    let found = list(&drive, &units(r"\p2"), Some(&units("long~1")));
    assert_eq!(found.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), [units("a long name")]);
    assert_eq!(drive.create(&units(r"\p2\many::$DATA"), READ, OPEN, 0), Err(status::FILE_IS_A_DIRECTORY));
    let (whole, owner) = drive
        .with(&units(r"\p2\resident"), READ, 0, |open| Ok((drive.security(open, 7)?, drive.security(open, 1)?)))
        .unwrap();
    assert!(owner.len() < whole.len() && owner[0] == 1);
}

#[test]
fn damage_is_an_error_of_its_own_and_a_line_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::odd(folder.path());
    // All of the NTFS but its boot sector.
    disks::shell(folder.path(), "dd if=/dev/zero of=disk bs=512 seek=104456 count=6136 conv=notrunc status=none");
    let (drive, heard) = drive(&disk);
    let opened = drive.create(&units(r"\p2"), LIST, OPEN, DIRECTORY_FILE);
    assert_eq!(opened, Err(0xc000_0102));
    // It is listed, as a folder.
    let entry = list(&drive, &units("\\"), Some(&units("P2"))).pop().unwrap();
    assert_eq!(entry.attributes, 0x10);
    let heard = heard.lock().unwrap();
    assert!(!heard.is_empty() && heard.iter().all(|line| line.contains("p2") && line.contains("corrupt")), "{heard:?}");
}
