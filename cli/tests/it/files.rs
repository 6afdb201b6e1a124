//! `hikae ls`, `cat`, `cp` and `find` on a disk that real drivers filled, from an older generation too.

use std::fs;
use std::path::Path;

use crate::machine::{Mounted, hikae, run, shell, text};

/// Where the second partition starts, in bytes.
const SECOND: u64 = 65 << 20;

/// A disk with NTFS in partition 1 and ext4 in partition 2, captured before and after a change. Returns the folder.
fn make() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(
        path,
        "truncate -s 130M disk.img; printf 'label: gpt\nstart=2048, size=131072\nstart=133120, size=131072\n' | sfdisk -q disk.img
         truncate -s 64M ntfs ext4; mkntfs -q -F ntfs 2>/dev/null; mke2fs -q -F -t ext4 ext4",
    );
    fill(
        path,
        "mkdir -p docs/deep; echo first > docs/note.txt; echo same > docs/deep/same; echo side > docs/note.txt:side",
    );
    hikae(path, ["capture", "disk.img", "disk.hik"]).expect(0);
    fill(path, "echo second, and longer > docs/note.txt; echo new > docs/new.txt");
    hikae(path, ["capture", "disk.img", "disk.hik"]).expect(0);
    folder
}

/// Runs a script in both filesystems and puts them into the disk.
fn fill(folder: &Path, script: &str) {
    let disk = |name: &str, command: &[&str], script: &str| {
        let mounted = Mounted::new(&folder.join("m"), command, &folder.join(name));
        shell(&mounted.path, script);
    };
    disk("ntfs", &["ntfs-3g", "-o", "streams_interface=windows"], script);
    let extra =
        "head -c 500000 /dev/urandom > bytes; ln -f bytes hard; ln -sf docs/note.txt link; truncate -s 9M sparse
         setfattr -n user.note -v kept bytes; setfacl -m u:1234:rw bytes; chown 1000:100 docs; chmod 4755 hard";
    disk(
        "ext4",
        &["mount", "-o", "loop"],
        &format!("{}; {extra}", script.replace("; echo side > docs/note.txt:side", "")),
    );
    shell(
        folder,
        &format!(
            "dd if=ntfs of=disk.img bs=1M seek=1 conv=notrunc status=none; dd if=ext4 of=disk.img bs=1M seek={} conv=notrunc status=none",
            SECOND >> 20
        ),
    );
}

#[test]
fn one_file_comes_back_from_any_generation_without_a_mount() {
    let folder = make();
    let path = folder.path();
    for part in ["p1", "p2"] {
        let cat = |generation: &str| {
            hikae(path, ["cat", &format!("disk.hik{generation}:/{part}/docs/note.txt")]).expect(0).out
        };
        assert_eq!(
            (cat("@1"), cat(""), cat("@~1")),
            ("first\n".into(), "second, and longer\n".into(), "first\n".into())
        );
        hikae(path, ["ls", &format!("disk.hik@1:/{part}/docs/new.txt")]).expect(3).says(&["there is no /"]);
        let listed = hikae(path, ["ls", &format!("disk.hik:/{part}/docs")]).expect(0).out;
        assert_eq!(listed, "deep\nnew.txt\nnote.txt\n");
    }
    assert_eq!(hikae(path, ["cat", "disk.hik:/p1/docs/note.txt:side"]).expect(0).out, "side\n");
    assert_eq!(hikae(path, ["cat", "disk.hik:/p1/DOCS/Note.TXT"]).expect(0).out, "second, and longer\n");
    assert_eq!(hikae(path, ["cat", "disk.hik:/p2/link"]).expect(0).out, "second, and longer\n");
    assert_eq!(hikae(path, ["cat", "--offset", "7", "--length", "3", "disk.hik:/p2/link"]).expect(0).out, " an");
    let listed = hikae(path, ["ls", "-l", "--streams", "disk.hik:/p1/docs"]).expect(0).out;
    assert!(listed.contains("note.txt:side"), "{listed}");
    let json = hikae(path, ["ls", "--json", "-R", "disk.hik:/p2"]).expect(0).json();
    let kinds: Vec<_> = json.as_array().unwrap().iter().map(|entry| (&entry["path"], &entry["kind"])).collect();
    assert!(kinds.iter().any(|(path, kind)| *path == "/p2/link" && *kind == "symlink"), "{kinds:?}");
    // The raw file and the image say the same.
    assert_eq!(hikae(path, ["cat", "disk.img:/p2/docs/new.txt"]).expect(0).out, "new\n");
}

#[test]
fn a_tree_copied_out_is_the_tree_that_the_driver_shows() {
    let folder = make();
    let path = folder.path();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/compare-trees");
    let same = |ours: &str, theirs: &Path, options: &[&str]| {
        let ours = path.join(ours);
        let args = ["-B", text(&tool)].into_iter().chain(options.iter().copied()).chain([text(&ours), text(theirs)]);
        let ran = run("python3", args).expect(0);
        assert!(ran.out.starts_with("0 differences"), "{}", ran.out);
    };
    hikae(path, ["cp", "-rT", "--privileged", "disk.hik:/p2", "out2"]).expect(0);
    {
        let theirs = Mounted::new(&path.join("m"), &["mount", "-o", "loop,ro"], &path.join("ext4"));
        same("out2", &theirs.path, &["--xattrs", "user.,system.posix_acl"]);
    }
    hikae(path, ["cp", "-rT", "--streams", "xattrs", "disk.hik:/p1", "out1"]).expect(0);
    {
        let theirs =
            Mounted::new(&path.join("m"), &["ntfs-3g", "-o", "ro,streams_interface=xattr"], &path.join("ntfs"));
        same("out1", &theirs.path, &["--no-mode", "--no-owner", "--xattrs", "user."]);
    }
    // A second run has nothing to write; a changed file and a stray one are put right.
    let again =
        hikae(path, ["cp", "-rT", "--update", "--privileged", "--json", "disk.hik:/p2", "out2"]).expect(0).json();
    assert_eq!((&again["files"], &again["bytes"]), (&serde_json::json!(0), &serde_json::json!(0)), "{again}");
    fs::write(path.join("out2/docs/new.txt"), "NEW\n").unwrap();
    fs::write(path.join("out2/stray"), "x").unwrap();
    let told = hikae(path, ["cp", "-rT", "--update", "--delete", "--privileged", "disk.hik:/p2", "out2"]).expect(0);
    told.says(&["would remove", "stray", "--yes"]);
    assert!(path.join("out2/stray").exists(), "nothing is removed without a yes");
    hikae(path, ["cp", "-rT", "--update", "--delete", "--yes", "--privileged", "disk.hik:/p2", "out2"]).expect(0);
    assert!(!path.join("out2/stray").exists());
    assert_eq!(fs::read(path.join("out2/docs/new.txt")).unwrap(), b"new\n");
    // Wrong use.
    hikae(path, ["cp", "disk.hik:/p2"]).expect(2);
    hikae(path, ["cp", "-r", "disk.hik", "out3"]).expect(2);
    hikae(path, ["cp", "-r", "disk.hik:/p2", "nowhere/out"]).expect(2);
    hikae(path, ["cp", "disk.hik:/p2/docs", "out2"]).expect(1).says(&["--recursive"]);
}

#[test]
fn files_are_found_by_name_size_and_time_in_one_generation_or_all() {
    let folder = make();
    let path = folder.path();
    let found = |args: &[&str]| -> Vec<String> {
        let ran = hikae(path, ["find"].into_iter().chain(args.iter().copied())).expect(0);
        ran.out.lines().map(str::to_owned).collect()
    };
    assert_eq!(found(&["disk.hik:/p2", "--name", "new.*"]), ["disk.hik@2:/p2/docs/new.txt"]);
    assert_eq!(found(&["disk.hik@1:/p2", "--name", "new.*"]), Vec::<String>::new());
    let all = found(&["disk.hik", "--all", "--iname", "NOTE.TXT", "--type", "f"]);
    let expected = ["1:/p1", "1:/p2", "2:/p1", "2:/p2"].map(|place| format!("disk.hik@{place}/docs/note.txt"));
    assert_eq!(all, expected);
    assert_eq!(found(&["disk.hik:/p2", "--type", "f", "--size", "1M"]), ["disk.hik@2:/p2/sparse"]);
    assert_eq!(found(&["disk.hik:/p2", "--type", "l"]), ["disk.hik@2:/p2/link"]);
    assert_eq!(found(&["disk.hik:/p2/docs", "--older", "2001-01-01"]), Vec::<String>::new());
    assert_eq!(
        found(&["disk.hik:/p2/docs/deep", "--newer", "2001-01-01", "--type", "f"]),
        ["disk.hik@2:/p2/docs/deep/same"]
    );
    // What was found can be copied out.
    hikae(path, ["cp", "disk.hik@1:/p2/docs/note.txt", "back"]).expect(0);
    assert_eq!(fs::read(path.join("back")).unwrap(), b"first\n");
}

#[test]
fn disk_files_are_left_out_unless_they_are_named() {
    let folder = make();
    let path = folder.path();
    // Seven views of the disk, and two partitions.
    let copied = hikae(path, ["cp", "-rT", "disk.hik:/", "all"]).expect(0);
    assert!(copied.out.contains(", 9 disk files left out (name one to copy it: IMAGE:/disk.raw)"), "{}", copied.out);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(path.join("all")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["p1", "p2"]);
    assert_eq!(fs::read(path.join("all/p2/docs/new.txt")).unwrap(), b"new\n");
    hikae(path, ["cp", "disk.hik:/disk.raw", "all"]).expect(0);
    hikae(path, ["export", "disk.hik", "whole.raw"]).expect(0);
    shell(path, "cmp whole.raw all/disk.raw");
    // It is no stray file that --delete takes away.
    hikae(path, ["cp", "-rT", "--update", "--delete", "--yes", "disk.hik:/", "all"]).expect(0);
    assert_eq!(names(), ["disk.raw", "p1", "p2"]);
    let report = hikae(path, ["cp", "-rT", "--update", "--json", "disk.hik:/", "all"]).expect(0).json();
    assert_eq!(report["disk_files_left_out"], 9);

    let found = hikae(path, ["find", "disk.hik", "--type", "f", "--name", "*.raw"]).expect(0);
    assert_eq!(found.out, "");
    found.says(&["3 disk files left out", "IMAGE:/disk.raw"]);
    assert_eq!(hikae(path, ["find", "disk.hik:/disk.raw"]).expect(0).out, "disk.hik@2:/disk.raw\n");
    let quiet = hikae(path, ["find", "disk.hik", "--name", "new.txt"]).expect(0);
    assert_eq!((quiet.out.lines().count(), quiet.err.as_str()), (2, ""));
}
