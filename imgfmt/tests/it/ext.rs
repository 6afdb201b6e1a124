//! ext2, ext3 and ext4 made by mke2fs and filled by the kernel.

use std::path::{Path, PathBuf};

use imgfmt::ranges::RangeSet;

use crate::ext_files;
use crate::files::sparse_file;
use crate::filesystem_oracle::{check_clean, open, poison, walked};
use crate::tools::{Mounted, as_root, run, run_any_status};

/// Filesystems with every layout that the tools and the kernel make: name, options of mke2fs, MiB.
const KINDS: &[(&str, &str, u64)] = &[
    ("ext2 with blocks of 1 KiB", "-t ext2 -b 1024", 40),
    ("ext2 of revision 0", "-t ext2 -b 1024 -r 0", 40),
    ("ext2 with blocks of 4 KiB", "-t ext2 -b 4096 -g 4096 -I 128", 64),
    ("ext3", "-t ext3 -b 4096 -g 4096", 64),
    ("ext3 with blocks of 1 KiB", "-t ext3 -b 1024", 48),
    ("ext4 as it comes", "-t ext4", 64),
    ("ext4 with groups like those of a large disk", "-t ext4 -b 4096 -g 4096 -G 4", 96),
    ("ext4 with blocks of 1 KiB", "-t ext4 -b 1024 -E lazy_itable_init=1", 64),
    ("ext4 with blocks of 2 KiB", "-t ext4 -b 2048 -O ^64bit", 64),
    ("ext4 of ten years ago", "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg", 64),
    ("ext4 without extents", "-t ext4 -b 1024 -O ^extent,^64bit", 64),
    ("ext4 without flex_bg", "-t ext4 -b 4096 -g 4096 -O ^flex_bg,^resize_inode", 96),
    ("ext4 with meta_bg", "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode -I 1024", 64),
    ("ext4 with sparse_super2", "-t ext4 -b 1024 -O sparse_super2", 64),
    ("ext4 with inline data", "-t ext4 -b 4096 -g 4096 -O inline_data -I 512", 96),
    ("ext4 with bigalloc", "-t ext4 -b 4096 -O bigalloc -C 16384", 96),
    ("ext4 with bigalloc and blocks of 1 KiB", "-t ext4 -b 1024 -O bigalloc -C 8192", 64),
    ("ext4 with all sorts", "-t ext4 -b 1024 -O ea_inode,large_dir,mmp,metadata_csum_seed,orphan_file -I 256", 96),
];

/// A folder for images: in memory where the system has such a place, since the kernel waits for the medium at every turn.
pub(crate) fn work_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}

/// Makes an empty filesystem.
pub(crate) fn make_empty(folder: &Path, options: &str, mib: u64) -> PathBuf {
    let image = folder.join("ext.img");
    sparse_file(&image, mib << 20);
    let mut args: Vec<&str> = "-q -F -L Notgroschen -U 0a1b2c3d-0000-4444-8888-123456789abc".split(' ').collect();
    args.extend(options.split(' '));
    args.push(image.to_str().unwrap());
    run("mke2fs", args);
    image
}

/// Makes a filesystem and fills it with everything that lays blocks out in its own way.
fn make(folder: &Path, options: &str, mib: u64) -> PathBuf {
    let image = make_empty(folder, options, mib);
    let mounted = mount(folder, &image, "rw");
    as_root_python(&mounted.path, FILL);
    drop(mounted);
    // A second mount, so that what was deleted leaves its marks among the new.
    let mounted = mount(folder, &image, "rw");
    as_root_python(&mounted.path, REFILL);
    drop(mounted);
    image
}

/// Runs a shell script as root in a folder.
pub(crate) fn as_root_shell(folder: &Path, script: &str) {
    as_root("sh", ["-euc", &format!("cd '{}'\n{script}", folder.display())]);
}

/// Runs a Python script as root in a folder: one process where a shell would start thousands.
pub(crate) fn as_root_python(folder: &Path, script: &str) {
    as_root("python3", ["-c", &format!("import os\nos.chdir('{}')\n{script}", folder.display())]);
}

pub(crate) fn mount(folder: &Path, image: &Path, mode: &str) -> Mounted {
    Mounted::new(folder, &["mount", "-t", "ext4", "-o", &format!("loop,{mode}")], image)
}

const FILL: &str = "
import random, socket, stat, subprocess
random.seed(7)
def put(path, data, mode='wb', at=None, sync=False):
    with open(path, mode) as file:
        if at is not None: file.seek(at)
        file.write(data)
        if sync: file.flush(); os.fsync(file.fileno())
noise = random.randbytes
for folder in ['many', 'few', 'deep', 'special']: os.mkdir(folder)
for n in range(700): put(f'many/a-rather-long-name-of-a-file-to-fill-some-blocks-of-a-directory-{n}', b'file %d' % n)
for n in range(60): put(f'few/{n}', noise(20000))
path = 'deep'
for n in range(1, 31):
    path += f'/folder{n}'; os.mkdir(path); put(path + '/f', b'deep')
# Two files written in turn, in pieces that reach the disk apart, lie in many fragments.
for n in range(24):
    put('one', noise(9000), 'ab', sync=True); put('two', b'x' * 9000, 'ab', sync=True)
# Holes, so that maps have many levels; many small pieces.
os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 80 << 20)
for n in [0, 3, 11, 70]: put('sparse', noise(5000), 'r+b', n << 20)
os.truncate(os.open('far', os.O_CREAT | os.O_WRONLY), 6 << 30); put('far', noise(5000), 'r+b', 5 << 30)
put('comb', b'')
for n in range(1, 600, 3): put('comb', b'%d' % n, 'r+b', n * 4096)
put('preallocated', b'p')
try: os.posix_fallocate(os.open('preallocated', os.O_WRONLY), 0, 3 << 20)
except OSError: pass
put('tiny', noise(50)); put('small', noise(150)); os.link('tiny', 'hard')
os.symlink('tiny', 'fast'); os.symlink('l' * 900, 'slow')
os.mknod('special/character', stat.S_IFCHR | 0o600, os.makedev(4, 70))
os.mknod('special/block', stat.S_IFBLK | 0o600, os.makedev(259, 1048575)); os.mkfifo('special/pipe')
os.setxattr('one', 'user.short', b'x'); os.setxattr('one', 'user.long', b'v' * 700)
for n in range(3):
    put(f'same{n}', b''); os.setxattr(f'same{n}', 'user.shared', b's' * 300)
try: os.setxattr('two', 'user.huge', noise(20000))
except OSError: pass
put('large', noise(3000000)); os.truncate('large', 100000); put('empty', b'')
# What inodes and attributes say.
os.mkdir('told')
for n, seconds in enumerate([0, -1, -(1 << 31), (1 << 31) - 1, 1 << 31, 6 << 31, (1 << 34) - (1 << 31) - 1]):
    put(f'told/time{n}', b''); os.utime(f'told/time{n}', ns=(seconds * 10**9 + 123456789, seconds * 10**9 + 987654321))
put('told/owner', b''); os.chown('told/owner', 70000, 4000000000); os.chmod('told/owner', 0o7751)
for name in [b'n' * 255, b'new\\nline', b'\\xff\\xfe not a text', 'n\u{e4}me \u{65e5}'.encode(), b'-', b' ', b'back\\\\slash']: put(b'told/' + name, name)
for n in range(0, 400, 13): put(f'told/size{n}', noise(n))
put('told/grown', b'short'); os.truncate('told/grown', 7000)
os.mkdir('told/folder')
for n in range(9): put(f'told/folder/{n}', b'')
os.symlink('x' * 59, 'told/link59'); os.symlink('x' * 60, 'told/link60'); os.symlink('x' * 61, 'told/link61')
for path in ['told/owner', 'told/folder', 'told/link59']:
    for name, value in [('trusted.t', b't'), ('security.s', b's' * 30), ('user.u', b'')]:
        try: os.setxattr(path, name, value, follow_symlinks=False)
        except OSError: pass
subprocess.run('setfacl -m u:1234:rwx,u:70001:r,g:77:-,m:rw told/owner && setfacl -d -m g:5:rx told/folder', shell=True, check=True)
for n in range(70): os.setxattr('told/folder/1', 'user.%d' % n, b'%d' % n) if n < 8 else None
socket.socket(socket.AF_UNIX).bind('special/socket')
";

/// What comes after another mount, so that what is deleted leaves its marks among the new.
const REFILL: &str = "
import random, shutil
random.seed(8)
shutil.rmtree('few')
for name in os.listdir('many'):
    if name.endswith('7'): os.remove('many/' + name)
for n in range(40): open(f'again{n}', 'wb').write(random.randbytes(3000))
";

/// The free blocks by dumpe2fs, as bytes.
fn free_by_dumpe2fs(image: &Path) -> RangeSet {
    let output = run("dumpe2fs", [image.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    let block = field("Block size:");
    // Of a run of clusters, it prints the first block of the last one.
    let cluster = if text.contains("Cluster size:") { field("Cluster size:") } else { block };
    let mut free = Vec::new();
    // "  Free blocks: 1234-2345, 2347": a line of each group.
    for list in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for part in list.split(", ").filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            free.push(first * block..last * block + cluster);
        }
    }
    RangeSet::from_unsorted(free)
}

#[test]
fn used_blocks_are_those_of_the_tools_and_of_the_kernel() {
    for (name, options, mib) in KINDS {
        let folder = work_folder();
        let image = make(folder.path(), options, *mib);
        check_against_tools(name, folder.path(), &image);
    }
}

#[test]
fn used_blocks_are_those_of_the_tools_where_the_kernel_cannot_write() {
    // Features that kernels are often built without, so mke2fs copies a tree.
    let folder = work_folder();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("deep/er")).unwrap();
    for n in 0..300 {
        std::fs::write(tree.join(format!("deep/file {n}")), vec![7; n * 97]).unwrap();
    }
    for options in [
        "-t ext4 -b 1024 -O quota,project,encrypt,casefold,verity,inline_data",
        "-t ext4 -b 4096 -O quota,bigalloc -C 65536",
        "-t ext4 -b 65536 -O large_dir",
        "-t ext4 -b 16384 -O ^has_journal,fast_commit",
    ] {
        let image = make_empty(folder.path(), &format!("{options} -d {}", tree.display()), 128);
        // mke2fs does not count what it copied into quotas; the checker does. 1 says that it has.
        let checked = run_any_status("e2fsck", ["-fy", image.to_str().unwrap()]);
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
        check_bitmaps(options, &image);
        let copy = folder.path().join("poisoned.img");
        poison(&image, &copy);
        run("e2fsck", ["-fn", copy.to_str().unwrap()]);
        for n in [17, 150, 299] {
            let request = format!("cat \"/deep/file {n}\"");
            let read = run("debugfs", ["-R", &request, copy.to_str().unwrap()]).stdout;
            assert_eq!(read, std::fs::read(tree.join(format!("deep/file {n}"))).unwrap());
        }
    }
}

/// Holds the map against its own metadata and against dumpe2fs.
fn check_bitmaps(name: &str, image: &Path) {
    let unreached = check_clean(image);
    let filesystem = open(image);
    let summary = filesystem.summary();
    let all = RangeSet::from_range(0..std::fs::metadata(image).unwrap().len());
    // To the block, what dumpe2fs says, and what its bitmap does not tell of.
    let allocated = filesystem.allocated().unwrap();
    assert_eq!(all.minus(&allocated), free_by_dumpe2fs(image).clipped(summary.len), "{name}");
    // Nothing is allocated that nothing reaches, but the rest behind the last block and the rest of clusters.
    let unreached: Vec<_> = unreached.iter().filter(|range| range.start < summary.len).collect();
    if !name.contains("bigalloc") {
        assert_eq!(unreached, [], "{name}");
    }
}

fn check_against_tools(name: &str, folder: &Path, image: &Path) {
    check_bitmaps(name, image);
    // The checker and the kernel find everything in a copy whose unused bytes are garbage.
    let copy = folder.join("poisoned.img");
    poison(image, &copy);
    run("e2fsck", ["-fn", copy.to_str().unwrap()]);
    let (a, b) = (mount(&folder.join("a"), image, "ro,noatime"), mount(&folder.join("b"), &copy, "ro"));
    // And our reader what the kernel finds.
    ext_files::check(&copy, &a.path);
    // What is only an inode is left out, and so is what takes long to read.
    let left_out = ["-x", "special", "-x", "far"];
    let (a, b) = (a.path.to_str().unwrap(), b.path.to_str().unwrap());
    as_root("diff", ["-r", "--no-dereference"].into_iter().chain(left_out).chain([a, b]));
}

#[test]
fn labels_and_kinds_are_told() {
    for (options, kind) in
        [("-t ext2", "ext2"), ("-t ext3", "ext3"), ("-t ext4", "ext4"), ("-t ext4 -O ^has_journal", "ext4")]
    {
        let folder = work_folder();
        let image = make_empty(folder.path(), options, 16);
        let summary = open(&image).summary();
        assert_eq!((summary.kind, summary.label.as_str()), (kind, "Notgroschen"));
        assert_eq!(summary.id, "0a1b2c3d-0000-4444-8888-123456789abc");
        assert_eq!((summary.block_size, summary.len), (1024, 16 << 20));
    }
}

#[test]
fn the_rest_of_a_partition_behind_the_last_block_is_kept() {
    let folder = work_folder();
    let image = make_empty(folder.path(), "-t ext4 -b 4096", 32);
    let len = (32 << 20) + 5 * 512;
    std::fs::File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
    assert!(open(&image).allocated().unwrap().contains(32 << 20..len));
    assert!(check_clean(&image).contains(32 << 20..len));
}

#[test]
fn paths_are_found_from_inode_numbers() {
    for options in ["-t ext2 -b 1024 -r 0", "-t ext4 -b 1024 -O inline_data"] {
        let folder = work_folder();
        let image = make(folder.path(), options, 64);
        let mounted = mount(&folder.path().join("a"), &image, "ro");
        let filesystem = open(&image);
        let path = format!("deep/{}/f", (1..=30).map(|n| format!("folder{n}")).collect::<Vec<_>>().join("/"));
        for path in ["tiny", "many", "many/a-rather-long-name-of-a-file-to-fill-some-blocks-of-a-directory-699", &path]
        {
            let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(mounted.path.join(path)).unwrap());
            let found = filesystem.path_of(inode).unwrap().expect(path);
            // A hard link has two.
            assert!(found == path || (path == "tiny" && found == "hard"), "{found} for {path}");
        }
        assert_eq!(filesystem.path_of(2).unwrap().as_deref(), Some(""));
        assert_eq!(filesystem.path_of(1 << 40).unwrap(), None);
    }
}

#[test]
fn a_filesystem_that_is_not_at_rest_is_doubted() {
    let folder = work_folder();
    let doubts_after = |options: &str, requests: &[&str]| {
        let image = make_empty(folder.path(), options, 32);
        assert_eq!(open(&image).doubts().unwrap(), Vec::<String>::new());
        for request in requests {
            run("debugfs", ["-w", "-R", request, image.to_str().unwrap()]);
        }
        open(&image).doubts().unwrap()
    };
    for (options, request, expected) in [
        ("-t ext4", "feature needs_recovery", "needs_recovery"),
        ("-t ext3", "feature needs_recovery", "needs_recovery"),
        ("-t ext4", "ssv state 0", "not unmounted cleanly"),
        ("-t ext2", "ssv state 3", "errors were found"),
        ("-t ext4", "ssv state 5", "orphans"),
        ("-t ext4", "ssv last_orphan 12", "orphans"),
        ("-t ext4", "ssv error_count 2", "errors were found"),
        ("-t ext4", "feature FEATURE_I31", "the feature 0x80000000 is not known"),
        ("-t ext4", "feature FEATURE_R30", "the feature 0x40000000 is not known"),
        ("-t ext4", "ssv journal_inum 0", "the journal is on another device"),
    ] {
        let doubts = doubts_after(options, &[request]);
        assert!(doubts.iter().any(|doubt| doubt.contains(expected)), "{request}: {doubts:?}");
    }
}

#[test]
fn a_filesystem_that_another_machine_has_mounted_is_doubted() {
    let folder = work_folder();
    let image = make_empty(folder.path(), "-t ext4 -O mmp", 32);
    assert_eq!(open(&image).doubts().unwrap(), Vec::<String>::new());
    let shown = run("debugfs", ["-R", "dump_mmp", image.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let block: usize = shown.lines().next().unwrap().split(": ").nth(1).unwrap().parse().unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[block * 1024 + 4..][..4].copy_from_slice(&77_u32.to_le_bytes());
    std::fs::write(&image, bytes).unwrap();
    let doubts = open(&image).doubts().unwrap();
    assert!(doubts.iter().any(|doubt| doubt.contains("multi-mount protection")), "{doubts:?}");
}

#[test]
fn a_copy_of_a_mounted_filesystem_is_doubted() {
    for options in ["-t ext2 -b 1024", "-t ext3", "-t ext4"] {
        let folder = work_folder();
        let image = make_empty(folder.path(), options, 32);
        let mounted = mount(folder.path(), &image, "rw");
        as_root_shell(&mounted.path, "echo new > file; sync");
        let copy = folder.path().join("copy.img");
        std::fs::copy(&image, &copy).unwrap();
        drop(mounted);
        assert_ne!(open(&copy).doubts().unwrap(), Vec::<String>::new(), "{options}");
        assert_eq!(open(&image).doubts().unwrap(), Vec::<String>::new(), "{options}");
    }
}

#[test]
fn a_bitmap_that_claims_too_little_is_found_out_by_the_walk() {
    let folder = work_folder();
    // No checksums, so that a forger has less to do.
    let image = make(folder.path(), "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg", 64);
    let mounted = mount(folder.path(), &image, "ro");
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(mounted.path.join("one")).unwrap());
    drop(mounted);
    let mut place = None;
    open(&image)
        .walk(&mut |reached| {
            if reached.owner == inode && reached.owner_kind == "inode" {
                place = Some(reached.range);
            }
            Ok(())
        })
        .unwrap();
    let block = place.unwrap().start / 1024;
    let image_path = image.to_str().unwrap();
    let group = (block - 1) / 8192;
    let free = free_by_dumpe2fs(&image).clipped((8192 * (group + 1) + 1) * 1024).total()
        - free_by_dumpe2fs(&image).clipped((8192 * group + 1) * 1024).total();
    run("debugfs", ["-w", "-R", &format!("freeb {block}"), image_path]);
    // A count that still is the old one would give the forger away.
    assert!(open(&image).allocated().is_err());
    let count = format!("set_bg {group} free_blocks_count {}", free / 1024 + 1);
    run("debugfs", ["-w", "-R", &count, image_path]);
    let filesystem = open(&image);
    let violations = walked(&*filesystem).minus(&filesystem.allocated().unwrap());
    assert_eq!(violations.iter().collect::<Vec<_>>(), vec![block * 1024..(block + 1) * 1024]);
}

#[test]
fn damage_to_checked_metadata_is_an_error() {
    let folder = work_folder();
    let image = make(folder.path(), "-t ext4 -b 1024", 64);
    let bytes = std::fs::read(&image).unwrap();
    let show = |request: &str| {
        String::from_utf8_lossy(&run("debugfs", ["-R", request, image.to_str().unwrap()]).stdout).into_owned()
    };
    let number_after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1).expect(mark);
        rest.trim_start().split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap()
    };
    // "block bitmap at 1, inode bitmap at 2, inode table at 3" of a group whose bitmap is stored.
    let group = show("show_super_stats");
    let group = group.split("Group  0:").nth(1).unwrap();
    let block_bitmap = number_after(group, "block bitmap at") * 1024;
    let inode = show("imap /one");
    let inode_at = number_after(&inode, "located at block") * 1024
        + usize::from_str_radix(inode.split("0x").nth(1).unwrap().trim(), 16).unwrap();
    let folder_block = show("bmap /many 0").trim().parse::<usize>().unwrap() * 1024;
    for (what, at) in [
        ("superblock", 1024 + 0x28),
        ("group descriptors", 2048 + 3),
        ("bitmap", block_bitmap + 100),
        ("inode", inode_at + 0x28),
        ("directory", folder_block + 40),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let copy = folder.path().join("damaged.img");
        std::fs::write(&copy, damaged).unwrap();
        let disk: std::sync::Arc<dyn imgfmt::Disk> =
            std::sync::Arc::new(imgfmt::source::FileDisk::open(&copy, 512).unwrap());
        let found = imgfmt::filesystem::open(&disk).and_then(|filesystem| {
            let filesystem = filesystem.unwrap();
            filesystem.allocated()?;
            filesystem.walk(&mut |_| Ok(()))
        });
        assert!(matches!(found, Err(imgfmt::Error::Corrupt { .. })), "{what}: {found:?}");
    }
}

#[test]
fn journals_and_unknown_revisions_are_named() {
    let folder = work_folder();
    let image = folder.path().join("journal.img");
    sparse_file(&image, 8 << 20);
    run("mke2fs", ["-q", "-F", "-O", "journal_dev", "-b", "1024", image.to_str().unwrap()]);
    let disk: std::sync::Arc<dyn imgfmt::Disk> =
        std::sync::Arc::new(imgfmt::source::FileDisk::open(&image, 512).unwrap());
    let error = imgfmt::filesystem::open(&disk).err().unwrap().to_string();
    assert!(error.contains("the journal of another filesystem"), "{error}");
    assert!(run_any_status("dumpe2fs", ["-h", image.to_str().unwrap()]).status.success());
}
