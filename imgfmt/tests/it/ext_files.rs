//! Files of ext2, ext3 and ext4 that the kernel wrote, held against its own view.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::filesystem::files::{Entry, FileSystem, NodeId, NodeKind};
use imgfmt::source::FileDisk;

use crate::ext::{as_root_python, make_empty, mount, work_folder};
use crate::filesystem_oracle::{check_clean, open};
use crate::tools::{as_root, run, run_any_status};
use crate::tree_oracle::{Oracle, bytes_of, compare, entries, find, open_files};

/// What the kernel shows of ext beyond what the oracle compares: inode numbers, what folders say, and times of creation.
fn extra(files: &dyn FileSystem, entry: &Entry, there: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    let mut tell = |what: &str, ours: u64, theirs: u64| {
        if ours != theirs {
            differences.push(format!("{what} {ours} and not {theirs}"));
        }
    };
    let theirs = std::fs::symlink_metadata(there).unwrap();
    let ours = files.attributes(entry.node).unwrap();
    tell("inode", entry.node.0, theirs.ino());
    tell("links", u64::from(ours.links), theirs.nlink());
    // Of content that lies in the inode, the driver makes up what it takes.
    if ours.allocated != 0 || theirs.blocks() != theirs.len().div_ceil(512) || theirs.len() > 400 {
        tell("sectors", ours.allocated / 512, theirs.blocks());
    }
    if ours.kind == NodeKind::Folder {
        tell("length", ours.len, theirs.len());
    }
    let statx =
        rustix::fs::statx(rustix::fs::CWD, there, rustix::fs::AtFlags::SYMLINK_NOFOLLOW, rustix::fs::StatxFlags::BTIME)
            .unwrap();
    let has_created = statx.stx_mask & rustix::fs::StatxFlags::BTIME.bits() != 0;
    let theirs = has_created.then_some((statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec));
    if ours.created.map(|time| (time.seconds, time.nanoseconds)) != theirs {
        differences.push(format!("created {:?} and not {theirs:?}", ours.created));
    }
    differences
}

/// Holds the files of an image against a mounted folder.
pub(crate) fn check(image: &Path, mounted: &Path) -> usize {
    // Six GiB of nothing take long to read through the driver.
    let skip = |path: &Path| path == Path::new("far");
    let oracle = Oracle { accessed: 1, all_xattrs: true, skip: &skip, extra: &extra, ..Oracle::default() };
    compare(&*open_files(image), mounted, &oracle)
}

/// Changes that reach the journal and not their places: names, attributes, files that take the blocks of deleted folders.
const CHANGES: &str = "
import os, random, shutil
random.seed(9)
for n in range(300): open(f'many/{n}', 'wb').write(random.randbytes(n * 7))
# Not sync, which also writes what is in the journal to its place.
os.fsync(os.open('many/299', os.O_RDONLY))
for n in range(0, 300, 3): os.remove(f'many/{n}')
shutil.rmtree('gone')
# What was a directory, and is in the journal as one, becomes content: it must not be replayed.
for n in range(60): open(f'taken{n}', 'wb').write(b'content' * 700)
# The first bytes are the journal's magic number: blocks of content in the journal are escaped.
open('magic', 'wb').write((b'\\xc0\\x3b\\x39\\x98' + b'm' * 4092) * 20)
os.rename('many', 'renamed'); os.symlink('x' * 200, 'slow'); os.setxattr('magic', 'user.x', b'y' * 300)
os.truncate('old', 100); os.chmod('old', 0o640)
for name in os.listdir('.'):
    if os.path.isfile(name): os.fsync(os.open(name, os.O_RDONLY))
";

/// Before them: files that are changed, and folders that give their blocks to others.
const BEFORE: &str = "
import os
for name in ['many', 'gone']: os.mkdir(name)
open('old', 'wb').write(b'o' * 50000)
for n in range(40):
    os.mkdir(f'gone/{n}')
    for m in range(30): open(f'gone/{n}/a name that takes some room {m}', 'wb').close()
";

#[test]
fn a_journal_that_was_not_replayed_is_replayed_in_memory() {
    for (options, mount_options) in [
        ("-t ext4", "noatime"),
        ("-t ext3 -b 1024", "noatime"),
        ("-t ext4 -b 1024 -O ^64bit,^metadata_csum", "noatime,journal_checksum"),
        ("-t ext4 -b 4096", "noatime,data=journal"),
        ("-t ext3 -b 4096", "noatime,data=journal"),
    ] {
        let folder = work_folder();
        let image = make_empty(folder.path(), options, 64);
        let mounted = mount(folder.path(), &image, "noatime");
        as_root_python(&mounted.path, BEFORE);
        drop(mounted);
        let mounted = mount(folder.path(), &image, mount_options);
        as_root_python(&mounted.path, CHANGES);
        let (copy, theirs) = (folder.path().join("copy.img"), folder.path().join("theirs.img"));
        std::fs::copy(&image, &copy).unwrap();
        drop(mounted);
        std::fs::copy(&copy, &theirs).unwrap();
        let doubts = open(&copy).doubts().unwrap();
        assert!(doubts.iter().any(|doubt| doubt.contains("holds changes")), "{options}: {doubts:?}");
        // The driver replays for good.
        let mounted = mount(&folder.path().join("theirs"), &theirs, "noatime");
        let before = std::fs::read(&copy).unwrap();
        assert!(check(&copy, &mounted.path) > 250, "{options}");
        assert!(before == std::fs::read(&copy).unwrap(), "nothing is written");
        // Without the journal, another tree is there: the replay is what made them equal.
        let off = folder.path().join("off.img");
        std::fs::copy(&copy, &off).unwrap();
        run("debugfs", ["-w", "-R", "feature -needs_recovery", off.to_str().unwrap()]);
        let unreplayed = std::panic::catch_unwind(|| check(&off, &mounted.path));
        assert!(unreplayed.is_err(), "{options}: the journal held nothing");
    }
}

#[test]
fn damage_in_a_journal_is_an_error() {
    let folder = work_folder();
    let image = make_empty(folder.path(), "-t ext4 -b 1024", 32);
    let mounted = mount(folder.path(), &image, "noatime");
    as_root_python(
        &mounted.path,
        "import os\nfor n in range(50): os.mkdir(f'{n}')\nos.fsync(os.open('0', os.O_RDONLY))",
    );
    let mut bytes = std::fs::read(&image).unwrap();
    drop(mounted);
    // The first descriptor of the log, which follows the superblock of the journal.
    let magic = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 1];
    let at = (0..bytes.len()).step_by(1024).find(|at| bytes[*at..].starts_with(&magic)).unwrap();
    bytes[at + 1024 + 100] ^= 1;
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes.clone()));
    let error = imgfmt::filesystem::open_files(&disk).unwrap_err().to_string();
    assert!(error.contains("journal block") && error.contains("checksum"), "{error}");
    bytes[at + 1024 + 100] ^= 1;
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
    assert_eq!(entries(&*imgfmt::filesystem::open_files(&disk).unwrap().unwrap(), NodeId(2)).len(), 51);
}

#[test]
fn names_are_found_by_every_hash() {
    for (version, flags) in [("legacy", 1), ("half_md4", 1), ("tea", 1), ("legacy", 2), ("half_md4", 2), ("tea", 2)] {
        let folder = work_folder();
        let image = make_empty(folder.path(), "-t ext4 -b 1024 -N 3000", 32);
        for request in [format!("ssv def_hash_version {version}"), format!("ssv flags {flags}")] {
            run("debugfs", ["-w", "-R", &request, image.to_str().unwrap()]);
        }
        let mounted = mount(folder.path(), &image, "noatime");
        // Long names, so that the tree has two levels of nodes; bytes above 0x7f, which the hashes take in two ways.
        let fill = "
import os
os.mkdir('many')
for n in range(2000): open(b'many/' + bytes([n % 256 or 1]).replace(b'/', b'x') * 7 + b'%d' % n + b'\\xe4\\xff' * 100, 'wb').close()
";
        as_root_python(&mounted.path, fill);
        drop(mounted);
        let mounted = mount(folder.path(), &image, "ro");
        assert_eq!(check(&image, &mounted.path), 2002, "{version} {flags}");
        // By the hash alone: what one look-up reads is a small part of the folder.
        let files = open_files(&image);
        let many = find(&*files, "many");
        let name = entries(&*files, many)[1500].name.clone();
        let counted = Arc::new(Counted { below: FileDisk::open(&image, 512).unwrap(), read: AtomicU64::new(0) });
        let disk: Arc<dyn Disk> = Arc::clone(&counted) as Arc<dyn Disk>;
        let files = imgfmt::filesystem::open_files(&disk).unwrap().unwrap();
        files.attributes(many).unwrap();
        let before = counted.read.load(Ordering::Relaxed);
        assert!(files.lookup(many, &name).unwrap().is_some());
        let read = counted.read.load(Ordering::Relaxed) - before;
        assert!(read <= 8 * 1024, "{version} {flags}: {read} bytes for one name");
        assert!(files.lookup(many, b"not there").unwrap().is_none());
    }
}

/// Counts what is read.
struct Counted {
    below: FileDisk,
    read: AtomicU64,
}

impl Disk for Counted {
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn sector_size(&self) -> u32 {
        self.below.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.below.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<imgfmt::Extent> {
        self.below.extent_at(offset)
    }
}

/// Makes an encrypted folder with a key that is forgotten at the end of the mount.
const ENCRYPTED: &str = "
import fcntl, os, struct
os.mkdir('secret')
mounted = os.open('.', os.O_RDONLY)
# FS_IOC_ADD_ENCRYPTION_KEY with a raw key of 64 bytes, which is known by its identifier (2).
key = bytearray(struct.pack('<II32sII32s', 2, 0, b'', 64, 0, b'') + bytes(range(64)))
fcntl.ioctl(mounted, 0xc0506617, key)
# FS_IOC_SET_ENCRYPTION_POLICY of version 2: AES-256-XTS, AES-256-CTS, names padded to 32 bytes.
policy = struct.pack('<BBBBB3s16s', 2, 1, 4, 3, 0, b'', bytes(key[8:24]))
fcntl.ioctl(os.open('secret', os.O_RDONLY), 0x800c6613, policy)
open('secret/file', 'wb').write(b'hidden' * 1000)
os.symlink('somewhere', 'secret/link')
print(os.stat('secret/file').st_ino, os.lstat('secret/link').st_ino)
";

#[test]
fn what_is_encrypted_is_unsupported_by_name() {
    let folder = work_folder();
    let image = make_empty(folder.path(), "-t ext4 -b 4096 -O encrypt", 32);
    let mounted = mount(folder.path(), &image, "rw");
    let script = format!("import os\nos.chdir('{}')\n{ENCRYPTED}", mounted.path.display());
    let printed = String::from_utf8(as_root("python3", ["-c", &script]).stdout).unwrap();
    let inodes: Vec<u64> = printed.split_whitespace().map(|number| number.parse().unwrap()).collect();
    drop(mounted);
    let files = open_files(&image);
    let secret = find(&*files, "secret");
    let is_named = |error: imgfmt::Error| {
        assert!(
            matches!(error, imgfmt::Error::Unsupported { .. }) && error.to_string().contains("encrypted"),
            "{error}"
        );
    };
    assert_eq!(files.attributes(secret).unwrap().kind, NodeKind::Folder);
    is_named(files.list(secret, &mut |_| std::ops::ControlFlow::Continue(())).unwrap_err());
    is_named(files.lookup(secret, b"file").unwrap_err());
    assert_eq!(files.attributes(NodeId(inodes[0])).unwrap().len, 6000);
    is_named(files.open(NodeId(inodes[0]), None).unwrap_err());
    is_named(files.link_target(NodeId(inodes[1])).unwrap_err());
    // What is used does not hang on keys.
    assert!(open(&image).doubts().unwrap().is_empty());
}

#[test]
fn names_in_folders_without_case_are_found_as_they_are_stored() {
    let folder = work_folder();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("folded")).unwrap();
    std::fs::write(tree.join("folded/Name"), "content").unwrap();
    let image = make_empty(folder.path(), &format!("-t ext4 -O casefold -d {}", tree.display()), 32);
    run("debugfs", ["-w", "-R", "set_inode_field /folded flags 0x40080000", image.to_str().unwrap()]);
    let files = open_files(&image);
    let folded = find(&*files, "folded");
    assert_eq!(entries(&*files, folded).len(), 1);
    let found = files.lookup(folded, b"Name").unwrap().unwrap();
    assert_eq!(bytes_of(&*files.open(found.node, None).unwrap()), b"content");
}

#[test]
fn journals_that_cannot_be_replayed_are_named() {
    let folder = work_folder();
    let unsupported = |image: &Path, feature: &str| {
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(image, 512).unwrap());
        let error = imgfmt::filesystem::open_files(&disk).unwrap_err();
        assert!(matches!(error, imgfmt::Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(feature), "{error}");
    };
    let image = make_empty(folder.path(), "-t ext4", 32);
    for request in ["feature needs_recovery", "ssv journal_inum 0"] {
        run("debugfs", ["-w", "-R", request, image.to_str().unwrap()]);
    }
    unsupported(&image, "another device");
    // Changes that only fast commits hold.
    let image = make_empty(folder.path(), "-t ext4 -b 4096 -O fast_commit", 64);
    let mounted = mount(folder.path(), &image, "noatime");
    let script = "
import os
for n in range(5):
    file = os.open('file', os.O_CREAT | os.O_WRONLY | os.O_APPEND); os.write(file, b'x' * 5000); os.fsync(file)
";
    as_root_python(&mounted.path, script);
    let copy = folder.path().join("copy.img");
    std::fs::copy(&image, &copy).unwrap();
    drop(mounted);
    unsupported(&copy, "fast commits");
    assert!(entries(&*open_files(&image), NodeId(2)).iter().any(|entry| entry.name == b"file"));
    // A feature that no driver knows.
    let image = make_empty(folder.path(), "-t ext4", 32);
    run("debugfs", ["-w", "-R", "feature FEATURE_I31", image.to_str().unwrap()]);
    unsupported(&image, "feature 0x80000000");
}

#[test]
fn journals_of_every_version_are_replayed_as_the_checker_replays_them() {
    for (features, version) in [
        ("metadata_csum,64bit", 2),
        ("metadata_csum,^64bit", 2),
        ("metadata_csum,^64bit", 3),
        ("metadata_csum,64bit", 3),
    ] {
        let folder = work_folder();
        let path = |name: &str| folder.path().join(name);
        for (name, letter) in [("old", b'o'), ("first", b'1'), ("second", b'2')] {
            std::fs::write(path(name), vec![letter; 2048]).unwrap();
        }
        let image = make_empty(folder.path(), &format!("-t ext4 -b 1024 -O {features}"), 32);
        let text = image.to_str().unwrap();
        run("debugfs", ["-w", "-R", &format!("write {} file", path("old").display()), text]);
        let blocks = run("debugfs", ["-R", "blocks /file", text]).stdout;
        let blocks: Vec<u64> =
            String::from_utf8(blocks).unwrap().split_whitespace().map(|block| block.parse().unwrap()).collect();
        let [a, b] = blocks[..] else { panic!("{blocks:?}") };
        // Both blocks; then the second is revoked, and the first written again.
        let commands = format!(
            "jo -c -v {version}\njw -b {a},{b} {}\njw -r {b}\njw -b {a} {}\njc\n",
            path("first").display(),
            path("second").display()
        );
        std::fs::write(path("commands"), commands).unwrap();
        run("debugfs", ["-w", "-f", path("commands").to_str().unwrap(), text]);
        assert!(open(&image).doubts().unwrap().iter().any(|doubt| doubt.contains("holds changes")));
        let ours = bytes_of(&*open_files(&image).open(find(&*open_files(&image), "file"), None).unwrap());
        let expected = [[b'2'; 1024], [b'o'; 1024]].concat();
        assert_eq!(ours, expected, "{features} {version}");
        run_any_status("e2fsck", ["-fy", text]);
        assert_eq!(run("debugfs", ["-R", "cat /file", text]).stdout, expected, "{features} {version}");
    }
}

/// A tree as systems have it; long, so asked for by `HIKAE_LONG=1`, and otherwise a part of it.
#[test]
fn a_tree_of_a_real_system_is_what_the_kernel_shows() {
    let is_long = std::env::var_os("HIKAE_LONG").is_some();
    let (tree, mib, least) = if is_long { ("/usr/share", 4 << 10, 5000) } else { ("/usr/sbin", 512, 50) };
    let folder = if is_long { tempfile::tempdir().unwrap() } else { work_folder() };
    let image = make_empty(folder.path(), "-t ext4 -b 4096", mib);
    let mounted = mount(folder.path(), &image, "noatime");
    as_root("cp", ["-a", "--sparse=always", tree, mounted.path.to_str().unwrap()]);
    drop(mounted);
    check_clean(&image);
    let mounted = mount(folder.path(), &image, "ro");
    let nodes = check(&image, &mounted.path);
    assert!(nodes >= least, "{nodes} nodes of {tree}");
}
