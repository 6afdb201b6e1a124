//! Files of NTFS volumes that ntfs-3g filled, held against its own view; system-compressed files against what was packed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use imgfmt::error::Error;
use imgfmt::filesystem::files::{FileSystem, NodeId, NodeKind};

use crate::files::sparse_file;
use crate::tools::{Mounted, run, shell};
use crate::tree_oracle::{Oracle, bytes_of, compare, entries, find, open_files, paths, xattr, xattr_names};

/// Extended attributes by which ntfs-3g shows what Windows keeps.
const XATTRS: [&str; 8] = [
    "system.ntfs_acl",
    "system.ntfs_attrib",
    "system.ntfs_attrib_be",
    "system.ntfs_times",
    "system.ntfs_reparse_data",
    "system.ntfs_dos_name",
    "system.ntfs_object_id",
    "system.ntfs_ea",
];

fn mount(folder: &Path, image: &Path, options: &str) -> Mounted {
    let options = format!("{options},streams_interface=windows,compression,permissions");
    Mounted::new(folder, &["ntfs-3g", "-o", &options], image)
}

fn format(folder: &Path, len: u64, options: &[&str]) -> PathBuf {
    let image = folder.join("ntfs.img");
    sparse_file(&image, len);
    let mut args = vec!["-F", "-q", "-L", "files"];
    args.extend(options);
    args.push(image.to_str().unwrap());
    run("mkntfs", args);
    image
}

/// What ntfs-3g shows of NTFS: permissions and owners are its own reading of security descriptors.
fn oracle() -> Oracle<'static> {
    Oracle { permissions: false, owners: false, allocated: true, accessed: 1, xattrs: &XATTRS, ..Oracle::default() }
}

fn reparse(path: &Path, tag: u32, data: &[u8]) {
    let mut value = tag.to_le_bytes().to_vec();
    value.extend((data.len() as u32).to_le_bytes());
    value.extend(data);
    set_xattr(path, "system.ntfs_reparse_data", &value);
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Data of a symbolic link (with flags) or a junction (without).
fn link_data(target: &str, flags: Option<u32>) -> Vec<u8> {
    let target = utf16(target);
    let len = target.len() as u16;
    let mut data: Vec<u8> = [0, len, 0, len].into_iter().flat_map(u16::to_le_bytes).collect();
    data.extend(flags.iter().flat_map(|flags| flags.to_le_bytes()));
    data.extend(target);
    data
}

/// Everything that ntfs-3g can make, on clusters of any size. What is not shown by it as it is stored lies below `aside`.
fn fill(root: &Path) {
    shell(
        root,
        r#"
        mkdir many deep packed aside
        for n in $(seq 300); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
        rm many/*7
        d=deep; for n in $(seq 30); do d=$d/folder$n; mkdir $d; echo deep > $d/f; done
        for n in $(seq 200); do head -c 9000 /dev/urandom >> one; head -c 9000 /dev/zero | tr '\0' x >> two; done
        truncate -s 40M sparse; for n in 3 11 29; do head -c 5000 /dev/urandom | dd of=sparse bs=1M seek=$n conv=notrunc status=none; done
        truncate -s 3M never-written; truncate -s 700 small-hole
        : > empty; for n in $(seq 0 40 1200); do head -c $n /dev/urandom > size-$n; done
        mkdir links; for n in $(seq 150); do ln one links/another-rather-long-name-of-one-file-$n; done
        ln many/a-rather-long-name-of-a-file-3 hard; ln hard deep/hard; echo s > hard:stream
        echo hidden > 'one:a stream'; head -c 300000 /dev/urandom > one:big; echo f > many:of-a-folder
        ln -s many/x link; ln -s ../one deep/link; ln -s /etc/passwd absolute; ln -s "$(printf 'l%.0s' $(seq 200))" long-link
        mknod null c 1 3; mknod disk b 8 17
        echo x > 'näme 日本 😀'; mkdir 'Ordner mit Ümlaut'; echo y > 'Ordner mit Ümlaut/ß'
        echo 1 > CaSe; echo 2 > case; echo 3 > CASE
        printf 'a\nb' > "$(printf 'new\nline')"; echo q > 'q"<>|?*\:'
        touch -d '1969-07-20 20:17:40 UTC' old; touch -d '1969-07-20 20:17:40.123456789 UTC' aside/older; touch -d '2262-01-01 UTC' future; touch -d '1601-01-02 UTC' first
        "#,
    );
    let n255 = "n".repeat(255);
    fs::write(root.join(n255), "long").unwrap();
    let path = |name: &str| root.join(name);
    set_xattr(&path("old"), "system.ntfs_attrib", &0x0000_2007_u32.to_le_bytes());
    set_xattr(&path("old"), "system.ntfs_object_id", &[0xa7; 16]);
    set_xattr(&path("hard"), "system.ntfs_object_id", &(0..64).collect::<Vec<u8>>());
    // Two attributes of OS/2: "ONE" with 1 byte, "TWO" with 2.
    let ea = b"\x10\0\0\0\0\x03\x01\0ONE\0A\0\0\0\x10\0\0\0\0\x03\x02\0TWO\0BC\0\0";
    set_xattr(&path("hard"), "system.ntfs_ea", ea);
    fs::write(path("aside/the long name of a file"), "dos").unwrap();
    set_xattr(&path("aside/the long name of a file"), "system.ntfs_dos_name", b"LONG~1.TXT");
    reparse_points(root);
    fragments(root);
}

fn reparse_points(root: &Path) {
    let point = |name: &str, is_folder: bool, tag: u32, data: &[u8]| {
        let path = root.join(name);
        if is_folder {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, "").unwrap()
        }
        reparse(&path, tag, data);
    };
    point("win-link", false, 0xa000_000c, &link_data(r"many\x", Some(1)));
    point("deep/win-link", true, 0xa000_000c, &link_data(r"..\Ordner mit Ümlaut", Some(1)));
    point("aside/junction", true, 0xa000_0003, &link_data(r"\??\C:\many", None));
    point("aside/volume", true, 0xa000_0003, &link_data(r"\??\Volume{d1f0-11}\", None));
    point("aside/absolute", false, 0xa000_000c, &link_data(r"\??\D:\x y", Some(0)));
    point("aside/broken", false, 0xa000_000c, &link_data("a\0b", Some(1)));
    point("aside/deduplicated", false, 0x8000_0013, &[0; 16]);
    point("aside/unknown", false, 0x8000_7777, &[7; 24]);
}

/// A file whose runs need an attribute list: three streams, written in turn.
fn fragments(root: &Path) {
    let streams = ["", ":a", ":b"].map(|stream| File::create(format!("{}/pieces{stream}", root.display())).unwrap());
    for n in 0..700 {
        for (stream, file) in streams.iter().enumerate() {
            file.write_all_at(&vec![(n * 3 + stream as u64) as u8; 5000], n * 12000).unwrap();
        }
    }
}

/// Texts, noise, mixtures and holes in a folder of compressed files, some of them written in pieces and out of order.
fn fill_packed(folder: &Path) {
    set_xattr(folder, "system.ntfs_attrib", &0x800_u32.to_le_bytes());
    shell(
        folder,
        r"
        seq -f 'line %g of a text that compresses well' 20000 > text
        head -c 200000 /dev/urandom > noise
        (seq 5000; head -c 70000 /dev/urandom; seq 9000; head -c 100000 /dev/zero; seq 100) > mixture
        truncate -s 900000 holes; for n in 1 3 4 9; do seq $n 2000 | dd of=holes bs=65536 seek=$n conv=notrunc status=none; done
        seq 30000 > cut && truncate -s 100001 cut
        seq 2000 | dd of=backwards bs=1000 seek=200 conv=notrunc status=none; seq 500 | dd of=backwards bs=1000 seek=3 conv=notrunc status=none
        head -c 4096 /dev/zero > zeros; printf x > tiny; : > empty
        for n in $(seq 60); do seq $n 3000 | head -c 7000 >> appended; done
        ",
    );
}

fn check(image: &Path, folder: &Path) -> usize {
    let files = open_files(image);
    // What streams there are is told by one interface of ntfs-3g, what is in them by the other.
    let mut streams: BTreeMap<PathBuf, BTreeSet<Vec<u8>>> = BTreeMap::new();
    {
        let mounted = Mounted::new(folder, &["ntfs-3g", "-o", "ro,streams_interface=xattr"], image);
        for path in paths(&mounted.path) {
            let names = xattr_names(&mounted.path.join(&path));
            let names = names.iter().filter_map(|name| name.as_bytes().strip_prefix(b"user.")).map(<[u8]>::to_vec);
            streams.insert(path, names.collect());
        }
    }
    let mounted = mount(folder, image, "ro");
    let skip = |path: &Path| path.starts_with("aside");
    let extra = |files: &dyn FileSystem, entry: &imgfmt::filesystem::files::Entry, there: &Path| {
        let path = there.strip_prefix(&mounted.path).unwrap();
        check_streams(files, entry.node, there, &streams[path])
    };
    compare(&*files, &mounted.path, &Oracle { skip: &skip, extra: &extra, ..oracle() })
}

fn check_streams(files: &dyn FileSystem, node: NodeId, there: &Path, theirs: &BTreeSet<Vec<u8>>) -> Vec<String> {
    let mut differences = Vec::new();
    let ours = files.streams(node).unwrap();
    let names: BTreeSet<Vec<u8>> = ours.iter().map(|stream| stream.name.clone()).collect();
    if &names != theirs {
        differences.push(format!("streams {names:?} and not {theirs:?}"));
    }
    for stream in ours {
        let name = String::from_utf8(stream.name.clone()).unwrap();
        let content = files.open(node, Some(name.to_uppercase().as_bytes())).unwrap();
        let theirs = File::open(format!("{}:{name}", there.display())).unwrap();
        assert_eq!(content.len(), stream.len);
        differences.extend(crate::tree_oracle::different_content(&*content, &theirs));
    }
    differences
}

#[test]
fn files_are_those_of_the_driver_whatever_the_sizes() {
    // Clusters smaller than records and blocks, and records of 4 KiB; then what most volumes have, and blocks smaller than clusters.
    let mut shapes: Vec<(u64, &[&str])> = vec![(128 << 20, &["-c", "512"]), (160 << 20, &["-s", "4096"])];
    if std::env::var_os("HIKAE_LONG").is_some() {
        shapes.extend([(160 << 20, &["-c", "4096"][..]), (512 << 20, &["-c", "65536"])]);
    }
    for (len, options) in shapes {
        let folder = tempfile::tempdir().unwrap();
        let image = format(folder.path(), len, options);
        let mounted = mount(folder.path(), &image, "rw");
        fill(&mounted.path);
        // ntfs-3g compresses as Windows does, only clusters of 4 KiB and less.
        if !options.contains(&"65536") {
            fill_packed(&mounted.path.join("packed"));
        }
        drop(mounted);
        let nodes = check(&image, folder.path());
        assert!(nodes > 390, "{nodes}");
        check_aside(&image, folder.path());
        let files = open_files(&image);
        if !options.contains(&"65536") {
            let content = files.open(find(&*files, "packed/text"), None).unwrap();
            let allocated = files.attributes(find(&*files, "packed/text")).unwrap().allocated;
            assert!(allocated < content.len() / 2, "not compressed, so this proves nothing");
        }
    }
}

/// What ntfs-3g shows in its own way.
fn check_aside(image: &Path, folder: &Path) {
    let files = open_files(image);
    let node = |name: &str| find(&*files, &format!("aside/{name}"));
    let target = |name: &str| String::from_utf8(files.link_target(node(name)).unwrap()).unwrap();
    assert_eq!(target("junction"), "C:/many");
    assert_eq!(target("volume"), "//?/Volume{d1f0-11}/");
    assert_eq!(target("absolute"), "D:/x y");
    assert_eq!(files.attributes(node("broken")).unwrap().kind, NodeKind::Symlink);
    assert!(matches!(files.link_target(node("broken")), Err(Error::Corrupt { .. })));
    let refused = files.open(node("deduplicated"), None).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { feature, .. } if feature.contains("deduplicated")), "{refused}");
    assert_eq!(files.attributes(node("unknown")).unwrap().kind, NodeKind::File);
    let kinds: BTreeMap<_, _> =
        entries(&*files, find(&*files, "aside")).into_iter().map(|e| (e.name, e.kind)).collect();
    assert_eq!(kinds.len(), 8);
    // ntfs-3g rounds fractions before 1970 to the wrong second.
    let modified = files.attributes(node("older")).unwrap().modified.unwrap();
    assert_eq!((modified.seconds, modified.nanoseconds), (-14_182_940, 123_456_700));
    // The 8.3 name is found but not listed, and is no link.
    let short = files.lookup(find(&*files, "aside"), b"long~1.txt").unwrap().unwrap();
    assert_eq!((&short.name[..], short.node), (&b"LONG~1.TXT"[..], node("The Long Name of a FILE")));
    assert_eq!(files.attributes(short.node).unwrap().links, 1);
    let mounted = mount(folder, image, "ro");
    let skip = |path: &Path| !path.starts_with("aside");
    let oracle = Oracle { skip: &skip, targets: false, links: false, ..oracle() };
    let ours = |name: &str| {
        let all = files.xattrs(node(name)).unwrap();
        all.into_iter().map(|xattr| (String::from_utf8(xattr.name).unwrap(), xattr.value)).collect::<BTreeMap<_, _>>()
    };
    for (name, _) in kinds {
        let name = String::from_utf8(name).unwrap();
        let ours = ours(&name);
        for xattr_name in oracle.xattrs {
            let theirs = xattr(&mounted.path.join("aside").join(&name), OsStr::new(xattr_name));
            assert_eq!(ours.get(*xattr_name), theirs.as_ref(), "{xattr_name} of {name}");
        }
    }
}

/// A way of system compression: the number of its algorithm, how wimlib calls it, its chunks.
struct Packing {
    algorithm: u32,
    method: &'static str,
    chunk: usize,
}

const PACKINGS: [Packing; 4] = [
    Packing { algorithm: 0, method: "XPRESS", chunk: 4096 },
    Packing { algorithm: 1, method: "LZX", chunk: 32768 },
    Packing { algorithm: 2, method: "XPRESS", chunk: 8192 },
    Packing { algorithm: 3, method: "XPRESS", chunk: 16384 },
];

/// What wimlib makes of a file: its resource in a WIM, which is laid out as the stream of a system-compressed file is.
fn pack(folder: &Path, bytes: &[u8], packing: &Packing) -> Vec<u8> {
    let (source, wim) = (folder.join("source"), folder.join("packed.wim"));
    let _ = fs::remove_dir_all(&source);
    let _ = fs::remove_file(&wim);
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), bytes).unwrap();
    let (compress, chunk) = (format!("--compress={}", packing.method), format!("--chunk-size={}", packing.chunk));
    run("wimlib-imagex", ["capture", source.to_str().unwrap(), wim.to_str().unwrap(), &compress, &chunk]);
    let blobs = run("wimlib-imagex", ["info", wim.to_str().unwrap(), "--blobs"]);
    let blobs = String::from_utf8(blobs.stdout).unwrap();
    let blob = blobs.split("\n\n").find(|blob| blob.contains("_COMPRESSED") && !blob.contains("METADATA"));
    let blob = blob.expect("wimlib compressed the file");
    let field = |name: &str| {
        let line = blob.lines().find(|line| line.starts_with(name)).expect(name);
        line.split('=').nth(1).unwrap().split_whitespace().next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(field("Uncompressed size"), bytes.len());
    fs::read(&wim).unwrap()[field("Offset in WIM")..][..field("Compressed size")].to_vec()
}

/// Makes a system-compressed file as Windows lays it out.
fn put_packed(path: &Path, len: u64, packed: &[u8], algorithm: u32) {
    File::create(path).unwrap().set_len(len).unwrap();
    fs::write(format!("{}:WofCompressedData", path.display()), packed).unwrap();
    fs::write(format!("{}:other", path.display()), "another stream").unwrap();
    let data: Vec<u8> = [1, 2, 1, algorithm].into_iter().flat_map(u32::to_le_bytes).collect();
    reparse(path, 0x8000_0017, &data);
}

#[test]
fn system_compressed_files_are_what_was_packed() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 96 << 20, &[]);
    let program = fs::read("/bin/bash").unwrap();
    let text: Vec<u8> = (0..9000).flat_map(|n| format!("line {n} of a text\n").into_bytes()).collect();
    let mut state = 1_u32;
    let mut noise = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len)
        .collect()
    };
    // Chunks that shrink beside chunks that do not; ends at, before and behind the end of a chunk; long runs.
    let sources: Vec<(&str, Vec<u8>)> = vec![
        ("program", program),
        ("text", text.clone()),
        ("one-chunk", text[..4096].to_vec()),
        ("short", text[..1900].to_vec()),
        ("edge", [&text[..65535], &[0; 70000][..], &text[..1]].concat()),
        ("mixture", [noise(50_000), text[..60_000].to_vec(), noise(40_000), vec![7; 100_000]].concat()),
    ];
    let mounted = mount(folder.path(), &image, "rw");
    for packing in &PACKINGS {
        for (name, bytes) in &sources {
            let packed = pack(folder.path(), bytes, packing);
            put_packed(
                &mounted.path.join(format!("{name}-{}", packing.algorithm)),
                bytes.len() as u64,
                &packed,
                packing.algorithm,
            );
        }
    }
    fs::write(mounted.path.join("damaged"), "").unwrap();
    let mut packed = pack(folder.path(), &text, &PACKINGS[1]);
    packed.truncate(packed.len() - 100);
    put_packed(&mounted.path.join("damaged"), text.len() as u64, &packed, 1);
    put_packed(&mounted.path.join("newer"), text.len() as u64, &packed, 4);
    drop(mounted);

    let files = open_files(&image);
    for packing in &PACKINGS {
        for (name, bytes) in &sources {
            let name = format!("{name}-{}", packing.algorithm);
            let node = find(&*files, &name);
            let attributes = files.attributes(node).unwrap();
            assert_eq!((attributes.kind, attributes.len), (NodeKind::File, bytes.len() as u64));
            let content = files.open(node, None).unwrap();
            let original = folder.path().join("original");
            fs::write(&original, bytes).unwrap();
            let different = crate::tree_oracle::different_content(&*content, &File::open(&original).unwrap());
            assert_eq!(different, None, "{name}");
            // The packed stream is no stream of the user's; the other one is.
            let streams = files.streams(node).unwrap();
            assert_eq!(streams.iter().map(|stream| &stream.name[..]).collect::<Vec<_>>(), [b"other"]);
            assert!(matches!(files.open(node, Some(b"WofCompressedData")), Err(Error::NotFound(_))));
        }
    }
    let large = files.attributes(find(&*files, "text-1")).unwrap();
    assert!(large.allocated < large.len / 4, "what the packed stream takes: {}", large.allocated);
    let content = files.open(find(&*files, "damaged"), None).unwrap();
    let read = content.read_at(&mut vec![0; text.len()], 0);
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    // What lies before the damage is whole.
    let mut start = vec![0; 32768];
    content.read_at(&mut start, 0).unwrap();
    assert!(start == text[..32768]);
    assert!(matches!(files.open(find(&*files, "newer"), None), Err(Error::Unsupported { .. })));
}

#[test]
fn long_folders_are_listed_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 192 << 20, &[]);
    let mounted = mount(folder.path(), &image, "rw");
    let count = if std::env::var_os("HIKAE_LONG").is_some() { 200_000 } else { 20_000 };
    let many = mounted.path.join("many");
    fs::create_dir(&many).unwrap();
    // No order of names is that of their making.
    let name = |n: u32| format!("Datei \u{e4} {:08x} with a name of some length.txt", n.wrapping_mul(0x9e37_79b9));
    for n in 0..count {
        File::create(many.join(name(n))).unwrap();
    }
    for n in (0..count).step_by(10) {
        fs::remove_file(many.join(name(n))).unwrap();
    }
    drop(mounted);
    let files = open_files(&image);
    let node = find(&*files, "MANY");
    let listed: BTreeSet<Vec<u8>> = entries(&*files, node).into_iter().map(|entry| entry.name).collect();
    let expected: BTreeSet<Vec<u8>> = (0..count).filter(|n| n % 10 != 0).map(|n| name(n).into_bytes()).collect();
    assert!(listed == expected, "{} names and not {}", listed.len(), expected.len());
    for n in 0..count {
        let upper = name(n).to_uppercase();
        let found = files.lookup(node, upper.as_bytes()).unwrap();
        assert_eq!(found.map(|entry| entry.name), (n % 10 != 0).then(|| name(n).into_bytes()));
    }
    // A listing can be left.
    let mut left = 3;
    files
        .list(node, &mut |_| {
            left -= 1;
            if left == 0 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn names_equal_but_for_case_are_found_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 64 << 20, &[]);
    let mounted = mount(folder.path(), &image, "rw");
    // All 1024 ways to write ten letters: they fill many blocks of the index.
    let names: Vec<String> = (0..1024_u32)
        .map(|bits| {
            ('a'..='j').zip(0..).map(|(c, n)| if bits >> n & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect()
        })
        .collect();
    for name in &names {
        fs::write(mounted.path.join(name), name).unwrap();
    }
    drop(mounted);
    let files = open_files(&image);
    for name in &names {
        let found = files.lookup(files.root(), name.as_bytes()).unwrap().unwrap();
        assert_eq!(found.name, name.as_bytes());
        assert_eq!(bytes_of(&*files.open(found.node, None).unwrap()), name.as_bytes());
    }
    assert_eq!(files.lookup(files.root(), b"abcdefghi").unwrap(), None);
}

#[test]
fn system_files_are_hidden_but_found() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 64 << 20, &[]);
    let files = open_files(&image);
    assert_eq!(entries(&*files, files.root()), []);
    let upcase = bytes_of(&*files.open(find(&*files, "$UpCase"), None).unwrap());
    assert_eq!(upcase.len(), 131_072);
    assert_eq!(upcase[usize::from(b'a') * 2], b'A');
    let volume = files.open(find(&*files, "$badclus"), Some(b"$bad")).unwrap();
    assert_eq!(volume.extent_at(0).unwrap().kind, imgfmt::disk::ExtentKind::Zero);
    assert_eq!(volume.len(), files.space().unwrap().total);
    assert!(files.attributes(find(&*files, "$Extend/$ObjId")).unwrap().kind == NodeKind::File);
    let listed: Vec<_> = entries(&*files, find(&*files, "$Extend")).into_iter().map(|entry| entry.name).collect();
    assert!(listed.contains(&b"$Quota".to_vec()), "{listed:?}");
    // ntfs-3g counts the same free clusters.
    let counted = run("ntfsinfo", ["-m", "-f", image.to_str().unwrap()]);
    let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
    let line = counted.lines().find(|line| line.contains("Free Clusters")).unwrap();
    let free: u64 = line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(files.space().unwrap().free, free * 4096);
}

/// Offsets of the index blocks in an image.
fn index_blocks(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"INDX")).collect()
}

#[test]
fn a_tree_that_bites_its_tail_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 64 << 20, &[]);
    let mounted = mount(folder.path(), &image, "rw");
    fs::create_dir(mounted.path.join("many")).unwrap();
    for n in 0..300 {
        fs::write(mounted.path.join(format!("many/a name of some length {n:03}")), "").unwrap();
    }
    drop(mounted);
    let mut bytes = fs::read(&image).unwrap();
    let le = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    // The last entry of each leaf gets a child: its own block.
    let mut forged = 0;
    for block in index_blocks(&bytes) {
        let (header, end) = (block + 24, block + 24 + le(&bytes, block + 28, 4));
        let last = end - 16;
        // No byte that the fixup holds, and a block of the folder.
        if (last..end + 8).any(|at| at % 512 > 509)
            || le(&bytes, last + 12, 2) != 2
            || le(&bytes, block + 32, 4) < end + 8 - header
        {
            continue;
        }
        let vcn = bytes[block + 16..block + 24].to_vec();
        bytes[header + 4..header + 8].copy_from_slice(&((end + 8 - header) as u32).to_le_bytes());
        bytes[header + 12] = 1;
        bytes[last + 8] = 24;
        bytes[last + 12] = 3;
        bytes[end..end + 8].copy_from_slice(&vcn);
        forged += 1;
    }
    assert!(forged > 5, "{forged} blocks are forged");
    fs::write(&image, bytes).unwrap();
    let files = open_files(&image);
    let node = find(&*files, "many");
    assert_eq!(entries(&*files, node).len(), 300);
    let looked_up = (0..1000).map(|n| files.lookup(node, format!("a name of some length {n:03}x").as_bytes()));
    let endless = looked_up.filter(|found| matches!(found, Err(Error::Corrupt { .. }))).count();
    assert!(endless > 100, "{endless} searches went into a loop");
}

#[test]
fn a_reference_to_a_record_that_was_used_again_finds_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 64 << 20, &[]);
    let mounted = mount(folder.path(), &image, "rw");
    fs::write(mounted.path.join("before"), "secret").unwrap();
    drop(mounted);
    let node = find(&*open_files(&image), "before");
    let number = node.0 & 0xffff_ffff;
    let mut bytes = fs::read(&image).unwrap();
    let mft = u64::from_le_bytes(bytes[0x30..0x38].try_into().unwrap()) * 4096;
    let record = (mft + number * 1024) as usize;
    assert!(bytes[record..].starts_with(b"FILE"));
    // As if the record had been freed and taken again, and the folder had not noticed.
    bytes[record + 16] += 1;
    fs::write(&image, bytes).unwrap();
    let files = open_files(&image);
    assert_eq!(find(&*files, "before"), node);
    assert!(matches!(files.attributes(node), Err(Error::NotFound(_))));
    assert!(matches!(files.open(node, None), Err(Error::NotFound(_))));
    // By its number alone it is whatever is there now.
    assert_eq!(bytes_of(&*files.open(NodeId(number), None).unwrap()), b"secret");
}

#[test]
fn without_a_table_of_letters_names_are_found_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let image = format(folder.path(), 64 << 20, &[]);
    let mounted = mount(folder.path(), &image, "rw");
    fs::write(mounted.path.join("Name"), "x").unwrap();
    drop(mounted);
    let mut bytes = fs::read(&image).unwrap();
    let mft = u64::from_le_bytes(bytes[0x30..0x38].try_into().unwrap()) as usize * 4096;
    bytes[mft + 10 * 1024..][..4].copy_from_slice(b"BAAD");
    fs::write(&image, bytes).unwrap();
    let files = open_files(&image);
    assert!(files.lookup(files.root(), b"Name").unwrap().is_some());
    assert!(files.lookup(files.root(), b"name").unwrap().is_none());
}
