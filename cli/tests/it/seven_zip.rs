//! 7-Zip as a second reader of NTFS, FAT and ext4, which shares no code with the drivers that filled them: names, lengths, content, streams, times.

use std::collections::BTreeMap;
use std::path::Path;

use crate::machine::{Mounted, hikae, run, shell, text};

/// Files for all of them, each dated as 7-Zip can tell it.
const TREE: &str = "mkdir -p many deep/a/b packed; seq 20000 > deep/text; head -c 700000 /dev/urandom > deep/a/noise; : > empty
    for n in $(seq 300); do echo file $n > many/a-rather-long-name-of-a-file-$n; done; echo y > 'n\u{e4}me \u{65e5}\u{672c}'; echo z > UPPER.TXT";
const DATES: &str = "find . -mindepth 1 -exec touch -h -d '2021-03-04 05:06:08 UTC' {} +";

/// Compares what 7-Zip unpacks from the filesystem in `image` with what hikae copies out of it.
fn compare(folder: &Path, image: &str, streams: &str, least: usize) {
    let (theirs, ours) = (format!("{image}.theirs"), format!("{image}.ours"));
    // What lies in "[SYSTEM]" and "[SYS]" is no file of the user; times of FAT are local.
    shell(
        folder,
        &format!(
            "TZ=UTC0 7zz x -y -snl {streams} -bd '-x![SYSTEM]' -o{theirs} {image} > log || {{ cat log; exit 1; }}"
        ),
    );
    let options: &[&str] = if streams.is_empty() { &[] } else { &["--streams", "files"] };
    let source = format!("{image}:/p1");
    hikae(folder, [&["cp", "-rT", "--no-owner"], options, &[&source, &ours]].concat()).expect(0);
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/compare-trees");
    // It keeps no rights and makes no hard links.
    let options = ["--no-mode", "--no-owner", "--no-links", "--skip", "lost+found,[SYSTEM],[SYS]"];
    let (ours, theirs) = (folder.join(ours), folder.join(theirs));
    let told = run("python3", [&["-B", text(&tool)], &options[..], &[text(&ours), text(&theirs)]].concat());
    assert!(told.code == 0, "{image}: {told:?}");
    let files: usize = told.out.split(" folders, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(files >= least, "{image}: {told:?}");
}

/// What 7-Zip says of each node of a filesystem, by path.
fn listed(folder: &Path, image: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let out = run("7zz", ["l", "-slt", "-ba", "-sns", text(&folder.join(image))]).expect(0).out;
    let node = |block: &str| {
        let fields = block.lines().filter_map(|line| line.split_once(" = "));
        let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields.get("Path").cloned().map(|path| (path, fields))
    };
    out.split("\n\n").filter_map(node).filter(|(path, _)| !path.starts_with("[SYSTEM]")).collect()
}

#[test]
fn ntfs_is_what_7_zip_unpacks_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(path, "truncate -s 64M ntfs.img; mkntfs -F -q ntfs.img 2>/dev/null");
    {
        let options = ["ntfs-3g", "-o", "streams_interface=windows,compression"];
        let mounted = Mounted::new(&path.join("m"), &options, &path.join("ntfs.img"));
        // Sparse files are data errors to it, and links of ntfs-3g are files.
        let more = "setfattr -h -v 0x00000800 -n system.ntfs_attrib_be packed; seq 100000 > packed/text
            ln deep/text hard; echo side > deep/a/noise:side; head -c 90000 /dev/urandom > empty:large
            setfattr -h -v 0x00000003 -n system.ntfs_attrib_be empty";
        shell(&mounted.path, &format!("{TREE}; {more}; {DATES}"));
    }
    compare(path, "ntfs.img", "-sns", 306);

    let theirs = listed(path, "ntfs.img");
    let ours = hikae(path, ["ls", "-R", "--json", "ntfs.img:/p1"]).expect(0).json();
    let ours = ours.as_array().unwrap();
    assert!(ours.len() > 306, "{}", ours.len());
    for node in ours {
        let name = node["path"].as_str().unwrap().strip_prefix("/p1/").unwrap();
        let theirs = &theirs[name];
        // Read only, hidden, system, archive, as letters.
        let bits = node["dos_attributes"].as_u64().unwrap();
        for (letter, bit) in [('R', 1), ('H', 2), ('S', 4), ('A', 0x20), ('C', 0x800)] {
            assert_eq!(theirs["Attributes"].contains(letter), bits & bit != 0, "{letter} of {node} and {theirs:?}");
        }
        for (field, of) in [("Created", "created"), ("Modified", "modified"), ("Metadata Changed", "changed")] {
            let time = |text: &str| {
                text.replace(['T', 'Z'], " ").trim().trim_end_matches('0').trim_end_matches('.').to_owned()
            };
            assert_eq!(time(&theirs[field]), time(node[of].as_str().unwrap()), "{node} and {theirs:?}");
        }
        if node["kind"] == "file" {
            assert_eq!(theirs["Size"], node["len"].to_string(), "{node}");
            assert_eq!(theirs["Links"].parse().unwrap_or(1), node["links"].as_u64().unwrap(), "{node} and {theirs:?}");
        }
    }
}

#[test]
fn fat_and_ext4_are_what_7_zip_unpacks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    shell(path, &format!("mkdir tree; cd tree; {TREE}; {DATES}"));
    for (image, options) in [("fat16.img", "-F 16"), ("fat32.img", "-F 32 -s 1")] {
        let make = "mkfs.fat {options} {image} > /dev/null; cd tree; TZ=UTC0 mcopy -i ../{image} -s -m -Q * ::/";
        let make = make.replace("{options}", options).replace("{image}", image);
        shell(path, &format!("truncate -s 64M {image}; {make}"));
        compare(path, image, "", 305);
    }
    shell(path, "truncate -s 64M ext4.img; mke2fs -q -F -t ext4 ext4.img");
    {
        let mounted = Mounted::new(&path.join("m"), &["mount", "-o", "loop"], &path.join("ext4.img"));
        let more = "ln deep/text hard; ln -s deep/text link; truncate -s 9M sparse; echo end >> sparse";
        shell(&mounted.path, &format!("{TREE}; {more}; {DATES}"));
    }
    compare(path, "ext4.img", "", 307);
}
