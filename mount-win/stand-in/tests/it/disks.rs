//! Disks to be mounted, made by the tools of their filesystems.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a shell script in a folder.
pub(crate) fn shell(folder: &Path, script: &str) {
    let mut command = Command::new("sh");
    let output = command.args(["-euc", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A disk with a partition table, an ext4 of names that Windows cannot show, and an NTFS with streams.
///
/// The NTFS is the seed of the fuzz targets; `fuzz/seeds/ntfs.sh` says what is in it.
pub(crate) fn odd(folder: &Path) -> PathBuf {
    shell(
        folder,
        r#"mkdir -p files/sub/deep 'files/dir: with?' files/many
        cd files
        echo 1 > 'a:b'; echo 2 > 'a%3Ab'; echo 3 > 'trailing.'; echo 4 > 'trailing '; echo 5 > con; echo 6 > NUL.txt
        echo 7 > 'back\slash'; echo 8 > "$(printf 'latin\351')"; echo 9 > "$(printf 'tab\there')"; echo x > 'foo%20bar'
        echo upper > Makefile; echo lower > makefile; echo shout > MAKEFILE; echo 'in' > 'dir: with?/file*'
        long=$(printf '\346\227\245%.0s' $(seq 80)); echo long > "$long"
        colons=$(printf ':%.0s' $(seq 200)); echo colons > "$colons"
        for n in $(seq 500); do echo $n > many/file$n; done
        head -c 3000000 /dev/urandom > sub/big; truncate -s 5M sub/sparse; : > empty
        ln -s sub/big link; ln -s sub folderlink; ln -s .. sub/deep/up; ln -s nowhere dangling; ln -s loop loop
        ln -s /sub/big absolute; ln -s /etc/passwd outside; mkfifo pipe; ln sub/big hard
        cd ..
        truncate -s 48M p1; mke2fs -q -F -t ext4 -d files p1
        truncate -s 64M disk; printf '2048,98304,83\n104448,6144,7\n' | sfdisk -q disk
        dd if=p1 of=disk bs=1M seek=1 conv=notrunc status=none"#,
    );
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ntfs.img.zst");
    shell(
        folder,
        &format!("zstd -dq '{}' -o p2; dd if=p2 of=disk bs=1M seek=51 conv=notrunc status=none", seed.display()),
    );
    folder.join("disk")
}

/// A disk without a table, whose names are all shown as they are and differ by more than case.
pub(crate) fn plain(folder: &Path) -> PathBuf {
    shell(
        folder,
        r#"mkdir -p tree/Docs/Old tree/data/a/b/c
        cd tree
        for n in $(seq 40); do seq $((n * n)) > Docs/Text$n.txt; done
        head -c 700000 /dev/urandom > data/Blob.bin; head -c 65536 /dev/urandom > data/a/b/c/Exact; : > data/Empty
        truncate -s 2M data/Hole; printf tail >> data/Hole
        cd ..
        truncate -s 16M plain; mke2fs -q -F -t ext4 -d tree plain"#,
    );
    folder.join("plain")
}
