//! `hikae diff` and `hikae log` over generations whose files a real driver changed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::program;

/// Runs a shell script in a folder, with the tools saying what went wrong.
fn shell(folder: &Path, script: &str) {
    let done = Command::new("sh").args(["-ec", script]).current_dir(folder).env("TZ", "UTC").output().unwrap();
    assert!(done.status.success(), "{script}\n{}", String::from_utf8_lossy(&done.stderr));
}

fn hikae(folder: &Path, args: &[&str]) -> (i32, String) {
    let done = Command::new(program()).args(args).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.stderr.is_empty() || args[0] == "capture", "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    (done.status.code().unwrap(), text)
}

fn capture(folder: &Path) {
    assert_eq!(hikae(folder, &["capture", "disk.img", "d.hik"]).0, 0);
}

/// `change path (from) [what]` of each difference.
fn differences(folder: &Path, before: &str, after: &str) -> Vec<String> {
    let (code, text) = hikae(folder, &["diff", "d.hik", before, after, "--json"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(all["problems"], Value::Array(Vec::new()), "{text}");
    let found: Vec<_> = all["differences"].as_array().unwrap().iter().map(line).collect();
    assert_eq!(code, i32::from(!found.is_empty()));
    found
}

fn line(difference: &Value) -> String {
    let text = |key: &str| difference[key].as_str().unwrap_or("").to_owned();
    let what: Vec<_> = difference["what"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut line = format!("{} {}", text("change"), text("path"));
    if !text("from").is_empty() {
        line += &format!(" from {}", text("from"));
    }
    if !what.is_empty() {
        line += &format!(" [{}]", what.join(", "));
    }
    line
}

/// `first-last [what]` of each version.
fn versions(folder: &Path, path: &str) -> Vec<String> {
    let (code, text) = hikae(folder, &["log", &format!("d.hik:{path}"), "--json"]);
    assert_eq!(code, 0, "{text}");
    let all: Value = serde_json::from_str(&text).unwrap();
    let line = |version: &Value| {
        let range = format!("{}-{}", version["first"], version["last"]);
        match version["what"].as_array() {
            Some(what) => {
                let words: Vec<_> = what.iter().map(|word| word.as_str().unwrap()).collect();
                format!("{range} [{}]", words.join(", "))
            }
            None => format!("{range} {}", version["state"].as_str().unwrap()),
        }
    };
    all.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn neighbours_and_moved_clusters_are_no_new_versions_on_fat() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shell(
        folder,
        "truncate -s 20M disk.img; mkfs.vfat -F 16 -s 1 disk.img > out
         printf one > a; printf two > b; head -c 300000 /dev/urandom > c; head -c 100000 /dev/urandom > d
         touch -d 2026-01-01T00:00:00Z a b c d
         mmd -i disk.img ::sub; mcopy -m -i disk.img a b c d ::",
    );
    capture(folder);
    // The neighbour in the same chunk changes.
    shell(folder, "printf two! > b; touch -d 2026-01-02T00:00:00Z b; mdel -i disk.img ::b; mcopy -m -i disk.img b ::");
    capture(folder);
    assert_eq!(differences(folder, "1", "2"), ["changed /p1/b [content, time]"]);
    // Another file takes the place of c, and c lies elsewhere with the same bytes.
    shell(folder, "mdel -i disk.img ::c; mcopy -m -i disk.img d ::e; mcopy -m -i disk.img c ::");
    capture(folder);
    assert_eq!(differences(folder, "2", "3"), ["added /p1/e"]);
    // A file goes into a folder.
    shell(folder, "mmove -i disk.img ::a ::sub");
    capture(folder);
    assert_eq!(differences(folder, "3", "4"), ["moved /p1/sub/a from /p1/a"]);
    // Bytes change behind the back of the times: the same name, length and time, other content.
    shell(
        folder,
        "head -c 300000 /dev/urandom > c; touch -d 2026-01-01T00:00:00Z c; mdel -i disk.img ::c ::d; mcopy -m -i disk.img c ::",
    );
    capture(folder);
    assert_eq!(differences(folder, "4", "5"), ["changed /p1/c [content]", "removed /p1/d"]);
    assert_eq!(differences(folder, "5", "5"), Vec::<String>::new());
    assert_eq!(versions(folder, "/p1/a"), ["1-3 there", "4-5 absent"]);
    assert_eq!(versions(folder, "/p1/b"), ["1-1 there", "2-5 [content, time]"]);
    assert_eq!(versions(folder, "/p1/c"), ["1-4 there", "5-5 [content]"]);
    assert_eq!(versions(folder, "/p1/e"), ["3-5 there"]);
    let (code, _) = hikae(folder, &["cat", "d.hik@1:/p1/b"]);
    assert_eq!(code, 0);
    let none = Command::new(program()).args(["log", "d.hik:/p1/none"]).current_dir(folder).output().unwrap();
    assert_eq!(none.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no generation has /p1/none"));
}

#[test]
fn renames_links_and_streams_are_told_on_ntfs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let in_mount = |script: &str| {
        shell(
            folder,
            &format!(
                "mkdir -p m; ntfs-3g -o streams_interface=windows disk.img m
                 (cd m; {script}) || {{ fusermount3 -u m || umount m; exit 1; }}
                 fusermount3 -u m || umount m"
            ),
        );
    };
    shell(folder, "truncate -s 30M disk.img; mkntfs -q -F disk.img");
    in_mount(
        "mkdir dir other; for n in 1 2 3; do echo $n > dir/$n; done; head -c 100000 /dev/urandom > big; echo s > 'big:side'",
    );
    capture(folder);
    in_mount("mv dir other/moved; echo 4 > other/moved/4");
    capture(folder);
    assert_eq!(
        differences(folder, "1", "2"),
        ["moved /p1/other/moved from /p1/dir", "added /p1/other/moved/4"].map(str::to_owned)
    );
    in_mount("echo t > 'big:side'; mv other/moved/1 one; echo more >> one");
    capture(folder);
    let found = differences(folder, "2", "3");
    assert!(found.contains(&"changed /p1/big [time, streams]".to_owned()), "{found:?}");
    assert!(found.contains(&"moved /p1/one from /p1/other/moved/1 [content, time]".to_owned()), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    in_mount("rm one; echo new > another");
    capture(folder);
    // The record of `one` is used again: a new file all the same.
    assert_eq!(differences(folder, "3", "4"), ["added /p1/another", "removed /p1/one"]);
}
