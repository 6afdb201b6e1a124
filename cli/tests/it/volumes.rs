//! Filesystems made and filled by their own tools, and judged by them after a restore.

use std::path::{Path, PathBuf};

use crate::machine::{Loop, Mounted, as_root, shell, sparse_file, text};

/// A kind of filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ntfs,
    Fat32,
    Fat16,
    Exfat,
    Ext4,
    Swap,
}

/// What `hikae` calls it.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Ntfs => "NTFS",
        Kind::Fat32 => "FAT32",
        Kind::Fat16 => "FAT16",
        Kind::Exfat => "exFAT",
        Kind::Ext4 => "ext",
        Kind::Swap => "swap",
    }
}

/// A folder of files of every texture, made once for each test.
pub(crate) fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).unwrap();
    shell(
        &tree,
        "
        mkdir -p many deep/a/b/c
        for n in $(seq 60); do echo file $n > many/a-rather-long-name-$n.txt; done
        for n in $(seq 12); do head -c 70000 /dev/urandom > deep/noise$n; done
        for n in $(seq 20000); do echo line $n of a text; done > deep/a/text
        head -c 1500000 /dev/urandom > big; head -c 400000 /dev/zero > zeros; : > empty; head -c 513 /dev/urandom > deep/a/b/c/odd
        ",
    );
    tree
}

/// Makes the filesystem in a file of its own and fills it; what was deleted again leaves garbage in its free space.
pub(crate) fn make(kind: Kind, file: &Path, len: u64, sector_size: u32, tree: &Path) {
    sparse_file(file, len);
    let sector = sector_size.to_string();
    let mnt = file.with_extension("mnt");
    let (image, from) = (text(file), text(tree));
    let fill = |mounted: &Mounted| {
        let script =
            format!("cp -r '{from}/.' .; cp big junk; sync; rm junk many/*7.txt; head -c 300000 /dev/urandom > again");
        shell(&mounted.path, &script);
    };
    match kind {
        Kind::Ntfs => {
            as_root("mkntfs", ["-F", "-q", "-c", "4096", "-s", &sector, "-L", "Win dows", image]);
            let mounted = mount(kind, &mnt, file, "rw");
            fill(&mounted);
            shell(&mounted.path, "head -c 2000000 /dev/urandom > pagefile.sys");
        }
        Kind::Fat32 | Kind::Fat16 => {
            let bits = if kind == Kind::Fat32 { "32" } else { "16" };
            as_root("mkfs.vfat", ["-F", bits, "-S", &sector, "-s", "1", "-n", "EFI", image]);
            shell(
                tree,
                &format!("mcopy -Q -s -i '{image}' big zeros empty many deep ::; mcopy -i '{image}' big ::junk"),
            );
            shell(tree, &format!("mdel -i '{image}' ::junk ::big; mcopy -i '{image}' deep/noise1 ::again"));
        }
        Kind::Exfat => {
            as_root("mkfs.exfat", ["-L", "card", "-c", "4K", image]);
            // This driver takes no plain files.
            let device = Loop::over(file, sector_size);
            fill(&mount(kind, &mnt, &device.path, "rw"));
        }
        Kind::Ext4 => {
            let block = if sector_size == 4096 { "4096" } else { "1024" };
            as_root("mke2fs", ["-q", "-F", "-t", "ext4", "-b", block, "-L", "root", "-d", from, image]);
            fill(&mount(kind, &mnt, file, "rw,loop"));
        }
        Kind::Swap => {
            as_root("mkswap", ["-q", "-L", "swap", image]);
            let script =
                format!("head -c 2000000 /dev/urandom | dd of='{image}' bs=4K seek=2 conv=notrunc status=none");
            shell(file.parent().unwrap(), &script);
        }
    }
}

fn mount(kind: Kind, path: &Path, device: &Path, options: &str) -> Mounted {
    match kind {
        Kind::Ntfs => Mounted::new(path, &["ntfs-3g", "-o", options], device),
        Kind::Exfat => Mounted::new(path, &["mount.exfat-fuse", "-o", options], device),
        Kind::Ext4 => Mounted::new(path, &["mount", "-t", "ext4", "-o", options], device),
        Kind::Fat32 | Kind::Fat16 | Kind::Swap => panic!("{kind:?} is not mounted here"),
    }
}

/// Judges a restored filesystem by its own checker, and holds its files against those of the original.
///
/// `swap_kept` says that page files and swap are to have their content; otherwise they are zeros of the same length.
pub(crate) fn judge(kind: Kind, folder: &Path, original: &Loop, restored: &Loop, swap_kept: bool) {
    let (a, b) = (text(&original.path), text(&restored.path));
    match kind {
        Kind::Ntfs => as_root("ntfsresize", ["--info", "--force", "--no-progress-bar", b]),
        Kind::Fat32 | Kind::Fat16 => as_root("fsck.vfat", ["-n", b]),
        Kind::Exfat => as_root("fsck.exfat", ["-n", b]),
        Kind::Ext4 => as_root("e2fsck", ["-f", "-n", b]),
        Kind::Swap => as_root("swaplabel", [b]),
    };
    match kind {
        Kind::Ntfs | Kind::Exfat | Kind::Ext4 => {
            let options = if kind == Kind::Ext4 { "ro,noload" } else { "ro" };
            let one = mount(kind, &folder.join("original"), &original.path, options);
            let two = mount(kind, &folder.join("restored"), &restored.path, options);
            let exclude =
                if kind == Kind::Ntfs && !swap_kept { "--exclude=pagefile.sys" } else { "--exclude=lost+found" };
            as_root("diff", ["-r", exclude, text(&one.path), text(&two.path)]);
            if kind == Kind::Ntfs && !swap_kept {
                let page = std::fs::read(two.path.join("pagefile.sys")).unwrap();
                assert_eq!(page.len(), 2_000_000);
                assert!(page.iter().all(|byte| *byte == 0), "a page file that was left out is zero");
            }
        }
        Kind::Fat32 | Kind::Fat16 => {
            for (device, out) in [(a, "original"), (b, "restored")] {
                let out = folder.join(out);
                std::fs::create_dir_all(&out).unwrap();
                as_root("mcopy", ["-Q", "-n", "-s", "-m", "-i", device, "::*", text(&out)]);
            }
            let script = "diff -r original restored; cmp original/again restored/again; rm -r original restored";
            shell(folder, script);
        }
        Kind::Swap => {
            assert_eq!(as_root("swaplabel", [a]).out, as_root("swaplabel", [b]).out);
            if swap_kept {
                as_root("cmp", [a, b]);
            }
        }
    }
}

/// Every used block, as another program that knows the filesystem picks them, is the same on both.
pub(crate) fn used_blocks_are_equal(kind: Kind, folder: &Path, original: &Loop, restored: &Loop) {
    let save = |device: &Loop, out: &str| {
        let (device, out) = (text(&device.path).to_owned(), text(&folder.join(out)).to_owned());
        match kind {
            Kind::Ntfs => as_root("ntfsclone", ["--save-image", "--quiet", "--overwrite", &out, &device]),
            Kind::Ext4 => as_root("e2image", ["-r", "-a", &device, &out]),
            Kind::Fat32 | Kind::Fat16 => partclone("partclone.vfat", &device, &out),
            Kind::Exfat => partclone("partclone.exfat", &device, &out),
            Kind::Swap => as_root("cp", [&device, &out]),
        };
    };
    save(original, "original.used");
    save(restored, "restored.used");
    shell(folder, "test -s original.used");
    as_root("cmp", [text(&folder.join("original.used")), text(&folder.join("restored.used"))]);
    as_root("rm", [text(&folder.join("original.used")), text(&folder.join("restored.used"))]);
}

fn partclone(program: &str, device: &str, out: &str) -> crate::machine::Ran {
    as_root(program, ["--clone", "--quiet", "--logfile", "/dev/null", "--source", device, "--overwrite", out])
}

/// The table as `sfdisk` prints it, without the name of the disk.
pub(crate) fn table(disk: &Loop) -> String {
    let dump = as_root("sfdisk", ["--dump", text(&disk.path)]).out;
    dump.replace(text(&disk.path), "disk")
}
