//! Trees of files in a mount against the view of another driver of the same filesystem.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::format::identity::Identity;
use imgfmt::source::FileDisk;
use imgfmt::tree::{Tree, TreeOptions};

use crate::served::{Served, as_root, run};

/// A mount by another driver.
struct Theirs(PathBuf);

impl Theirs {
    fn new(folder: &Path, image: &Path, command: &[&str]) -> Self {
        let dir = folder.join("theirs");
        fs::create_dir_all(&dir).unwrap();
        as_root(&[command, &[image.to_str().unwrap(), dir.to_str().unwrap()]].concat());
        Self(dir)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        as_root(&["umount", self.0.to_str().unwrap()]);
    }
}

/// A file as a block device.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Self {
        let told = as_root(&["losetup", "--find", "--show", image.to_str().unwrap()]);
        Self(String::from_utf8(told.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        as_root(&["losetup", "--detach", &self.0]);
    }
}

fn shell(folder: &Path, script: &str) {
    run("sh", &["-euc", &format!("cd '{}'\n{script}", folder.display())]);
}

/// Mounts a raw disk as hikae shows it.
fn ours(folder: &Path, image: &Path) -> Served {
    let disk = Arc::new(FileDisk::open(image, 512).unwrap());
    Served::new(folder, Tree::of_disk(disk, &Identity::random(0), &TreeOptions::default()), 16 << 20)
}

/// Runs the tool that anybody can run on his own disks.
fn compare(ours: &Path, theirs: &Path, options: &[&str]) -> String {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/compare-trees");
    let paths = [ours.to_str().unwrap(), theirs.to_str().unwrap()];
    let output = run("python3", &[&["-B", tool.to_str().unwrap()], options, &paths].concat());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ntfs_is_seen_as_ntfs_3g_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    shell(folder.path(), "truncate -s 128M disk.img; mkntfs -F -q disk.img");
    {
        let theirs = Theirs::new(folder.path(), &image, &["ntfs-3g", "-o", "streams_interface=windows,compression"]);
        let tree = "
            mkdir -p many deep/a/b/c packed; for n in $(seq 3000); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
            head -c 3000000 /dev/urandom > big; ln big hard; ln -s deep/a link; ln -s nowhere dangling; echo x > deep/a/b/c/file
            truncate -s 30M sparse; head -c 5000 /dev/urandom | dd of=sparse bs=1M seek=20 conv=notrunc status=none
            echo stream > big:note; : > aside; head -c 300000 /dev/urandom > aside:large; echo f > many:of-a-folder
            setfattr -h -v 0x00000800 -n system.ntfs_attrib_be packed; seq 200000 > packed/text
            touch -d '1999-12-31 23:59:59.1234567 UTC' big; : > empty; echo y > \"n\u{e4}me \u{65e5}\u{672c} \u{1f4be}\"
        ";
        shell(&theirs.0, tree);
        fs::write(folder.path().join("large"), fs::read(theirs.0.join("aside:large")).unwrap()).unwrap();
    }
    let served = ours(folder.path(), &image);
    let root = served.dir.join("p1");
    {
        let theirs = Theirs::new(folder.path(), &image, &["ntfs-3g", "-o", "ro,streams_interface=xattr"]);
        // It makes up modes and owners, and lists a stream that is too long to be an attribute.
        let told = compare(&root, &theirs.0, &["--no-mode", "--no-owner", "--xattrs", "user.", "--skip", "aside"]);
        assert!(told.starts_with("0 differences in 6 folders, 3007 files, 2 others"), "{told}");
    }
    // Streams can be opened by name, and files by any case.
    assert_eq!(fs::read(root.join("big:note")).unwrap(), b"stream\n");
    assert_eq!(fs::read(root.join("many:of-a-folder")).unwrap(), b"f\n");
    assert!(fs::read(root.join("aside:large")).unwrap() == fs::read(folder.path().join("large")).unwrap());
    assert_eq!(fs::metadata(root.join("big:note")).unwrap().len(), 7);
    assert_eq!(fs::metadata(root.join("big:none")).unwrap_err().raw_os_error(), Some(2));
    assert_eq!(fs::metadata(root.join("DEEP/A/b/C/FILE")).unwrap().len(), 2);
    assert_eq!(fs::metadata(root.join("big")).unwrap().ino(), fs::metadata(root.join("hard")).unwrap().ino());
    // Named attributes can be read though they are not listed, as with ntfs-3g.
    let acl = run("getfattr", &["--only-values", "-n", "system.ntfs_acl", root.join("big").to_str().unwrap()]);
    assert!(acl.stdout.len() >= 20);
    let listed = run("getfattr", &["-m", "-", root.join("big").to_str().unwrap()]);
    assert!(!String::from_utf8(listed.stdout).unwrap().contains("system.ntfs"));
    let space = rustix::fs::statvfs(&root).unwrap();
    assert!(space.f_blocks * space.f_frsize > 127 << 20 && space.f_bfree > 0 && space.f_bfree < space.f_blocks);
    assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
}

/// Files that FAT and exFAT can hold, each with a time of its own.
const PLAIN_TREE: &str = "
    mkdir -p tree/many tree/deep/a/b/c; cd tree
    for n in $(seq 400); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
    head -c 3000000 /dev/urandom > big; : > empty; echo x > deep/a/b/c/file; echo y > 'n\u{e4}me \u{65e5}\u{672c}'; echo z > UPPER.TXT
    seconds=0; find . -type f | sort | while read -r name; do
        seconds=$((seconds + 2)); touch -d \"2021-03-04 05:06:00 UTC + $seconds seconds\" \"$name\"; done
";

#[test]
fn fat_is_seen_as_mtools_filled_it() {
    for kind in ["12", "16", "32"] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        shell(folder.path(), PLAIN_TREE);
        let len = if kind == "12" { 8 } else { 64 };
        let options = format!("-F {kind} {}", if kind == "32" { "-s 1" } else { "" });
        let make = "mcopy -i disk.img -s -m -Q tree/* ::/";
        shell(folder.path(), &format!("truncate -s {len}M disk.img; mkfs.fat {options} disk.img > /dev/null; {make}"));
        let served = ours(folder.path(), &image);
        // The filesystem has no hard links, owners or modes, and mtools does not keep the times of folders.
        let options = ["--no-mode", "--no-owner", "--no-folder-times"];
        let told = compare(&served.dir.join("p1"), &folder.path().join("tree"), &options);
        assert!(told.starts_with("0 differences in 5 folders, 405 files"), "{told}");
        assert_eq!(fs::read(served.dir.join("p1/upper.txt")).unwrap(), b"z\n");
        assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn exfat_is_seen_as_its_driver_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    shell(folder.path(), PLAIN_TREE);
    // mtools knows no characters beyond the first 65,536; this driver does.
    shell(folder.path(), "echo disk > 'tree/\u{1f4be}'; truncate -s 64M disk.img; mkfs.exfat disk.img > /dev/null");
    // Declared before the mounts, so that it goes after them.
    let device = Loop::new(&image);
    let device_path = Path::new(&device.0);
    {
        let theirs = Theirs::new(folder.path(), device_path, &["mount.exfat-fuse", "-o", "rw"]);
        shell(folder.path(), &format!("cp -r --preserve=timestamps tree/* '{}/'", theirs.0.display()));
    }
    run("sync", &["-f", image.to_str().unwrap()]);
    let served = ours(folder.path(), &image);
    let theirs = Theirs::new(folder.path(), device_path, &["mount.exfat-fuse", "-o", "ro"]);
    let told = compare(&served.dir.join("p1"), &theirs.0, &["--no-mode", "--no-owner"]);
    assert!(told.starts_with("0 differences in 5 folders, 406 files"), "{told}");
    assert_eq!(fs::read(served.dir.join("p1/upper.txt")).unwrap(), b"z\n");
    assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn ext4_is_seen_as_the_kernel_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    shell(folder.path(), "truncate -s 96M disk.img; mke2fs -q -F -t ext4 disk.img");
    {
        let theirs = Theirs::new(folder.path(), &image, &["mount", "-o", "loop"]);
        let tree = "
            mkdir -p many deep/a/b/c; for n in $(seq 1500); do echo file $n > many/a-rather-long-name-of-a-file-$n; done
            head -c 3000000 /dev/urandom > big; ln big hard; ln -s deep/a link; ln -s /nowhere/at/all dangling; echo x > deep/a/b/c/file
            truncate -s 30M sparse; head -c 5000 /dev/urandom | dd of=sparse bs=1M seek=20 conv=notrunc status=none
            setfattr -n user.note -v kept big; setfacl -m u:1234:rw,g:77:r,m:rw big; setfacl -d -m u:9:rwx deep
            chown 1000:100 many; chmod 4750 hard; mknod null c 1 3; mkfifo pipe; touch -d '1999-12-31 23:59:59.123456789 UTC' empty
        ";
        shell(&theirs.0, tree);
    }
    let served = ours(folder.path(), &image);
    let theirs = Theirs::new(folder.path(), &image, &["mount", "-o", "loop,ro"]);
    // What fsck puts into lost+found only root sees; both show it.
    let told = compare(&served.dir.join("p1"), &theirs.0, &["--xattrs", "user.,system.posix_acl"]);
    assert!(told.starts_with("0 differences in 6 folders, 1505 files, 4 others"), "{told}");
    let acl = |root: &Path| run("getfacl", &["-cp", root.join("big").to_str().unwrap()]).stdout;
    assert_eq!(acl(&served.dir.join("p1")), acl(&theirs.0));
    assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
}
