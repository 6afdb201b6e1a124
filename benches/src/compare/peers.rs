//! The programs that people use instead, each as the commands that its manual suggests for the job.
//!
//! Commands run in bash with `$DISK` (the raw disk), `$PART` (its first generation's partition as a file), `$FS` (`ntfs` or
//! `extfs`), `$STORE` (an empty folder of the program's own) and `$BENCH` (the folder of `bench-limit`).
//! Every program reads the whole disk again for each generation, as hikae does: those that would trust the time of a file's last change are told not to.

use crate::Kind;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// The first capture.
    Full,
    /// Reading back and proving what that stored.
    Verify,
    /// The same disk again.
    Unchanged,
    /// The disk with 3 % of the pages of its files changed.
    Changed,
    /// The disk after a day of work: files edited, removed, added, the page file rewritten in part.
    Day,
}

impl Job {
    pub(crate) const ALL: [Self; 5] = [Self::Full, Self::Verify, Self::Unchanged, Self::Changed, Self::Day];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Verify => "verify",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Day => "day",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Full => "full capture",
            Self::Verify => "verify",
            Self::Unchanged => "nothing changed",
            Self::Changed => "3 % of the pages changed",
            Self::Day => "a day of work later",
        }
    }
}

/// A program and its commands. An empty command: the program has nothing for that job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What the table says of it besides.
    pub(crate) remark: &'static str,
    /// Not measured.
    pub(crate) prepare: &'static str,
    pub(crate) full: &'static str,
    pub(crate) verify: &'static str,
    /// Adds another generation.
    pub(crate) again: &'static str,
    /// The filesystem that it needs, where it needs one.
    pub(crate) only: Option<Kind>,
    /// Rounds that it takes part in at most. Where that is fewer than there are, it begins with the first that counts.
    pub(crate) rounds: u32,
}

impl Peer {
    pub(crate) fn command(&self, job: Job) -> Option<&'static str> {
        let command = match job {
            Job::Full => self.full,
            Job::Verify => self.verify,
            Job::Unchanged | Job::Changed | Job::Day => self.again,
        };
        // It has only the first generation as a partition.
        let fits = !(command.contains("$PART") && matches!(job, Job::Changed | Job::Day));
        (!command.is_empty() && fits).then_some(command)
    }
}

/// Rounds of programs that take some times as long as hikae: what they take differs from it by more than it spreads.
const SLOW: u32 = 2;
/// Rounds of programs that take ten times as long.
const SLOWEST: u32 = 1;

const NONE: Peer =
    Peer { name: "", remark: "", prepare: "", full: "", verify: "", again: "", only: None, rounds: u32::MAX };

/// A repository of borg without encryption, and an archive of the disk in chunks of a fixed length.
const BORG: Peer = Peer {
    prepare: r#"borg init -e none "$STORE/repo""#,
    verify: r#"borg check --verify-data "$STORE/repo""#,
    rounds: SLOW,
    ..NONE
};

/// The command that adds an archive.
macro_rules! borg_create {
    ($chunk:literal, $codec:literal) => {
        concat!(
            "borg create --chunker-params fixed,",
            $chunk,
            " --sparse --files-cache disabled -C ",
            $codec,
            r#" "$STORE/repo::{utcnow:%H%M%S%f}" "$DISK""#
        )
    };
}

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "qemu-img zstd",
        remark: "level 3 (fixed), all blocks, one thread; no checksums",
        full: r#"qemu-img convert -f raw -c -O qcow2 -o compression_type=zstd "$DISK" "$STORE/disk.qcow2""#,
        ..NONE
    },
    Peer {
        name: "qemu-img zlib",
        remark: "all blocks, one thread; no checksums",
        full: r#"qemu-img convert -f raw -c -O qcow2 "$DISK" "$STORE/disk.qcow2""#,
        rounds: SLOWEST,
        ..NONE
    },
    Peer {
        name: "partclone + zstd",
        remark: "level 3, -T0, used blocks with the page file; a stream",
        full: r#"partclone.$FS -c -F -L "$STORE/log" -s "$PART" -o - 2>"$STORE/words" | zstd -q -T0 >"$STORE/part.zst""#,
        verify: r#"zstd -q -dc "$STORE/part.zst" | partclone.chkimg -L "$STORE/log" -s - 2>"$STORE/words""#,
        rounds: SLOW,
        ..NONE
    },
    Peer {
        name: "restic",
        remark: "all blocks, content-defined 1 MiB, encrypts",
        prepare: "restic init -q",
        full: r#"restic backup -q --no-cache --force "$DISK""#,
        verify: "restic check -q --no-cache --read-data",
        again: r#"restic backup -q --no-cache --force "$DISK""#,
        rounds: SLOW,
        ..NONE
    },
    Peer {
        name: "borg lz4",
        remark: "all blocks, fixed 64 KiB",
        full: borg_create!("65536", "lz4"),
        again: borg_create!("65536", "lz4"),
        ..BORG
    },
    Peer {
        name: "borg zstd",
        remark: "level 3, all blocks, fixed 64 KiB",
        full: borg_create!("65536", "zstd,3"),
        again: borg_create!("65536", "zstd,3"),
        ..BORG
    },
    Peer {
        name: "borg 4M lz4",
        remark: "all blocks, fixed 4 MiB",
        full: borg_create!("4194304", "lz4"),
        again: borg_create!("4194304", "lz4"),
        rounds: SLOWEST,
        ..BORG
    },
    Peer {
        name: "borg 4M zstd",
        remark: "level 3, all blocks, fixed 4 MiB",
        full: borg_create!("4194304", "zstd,3"),
        again: borg_create!("4194304", "zstd,3"),
        rounds: SLOWEST,
        ..BORG
    },
    Peer {
        name: "casync",
        remark: "all blocks, content-defined 64 KiB",
        full: r#"casync make --store="$STORE/chunks" "$STORE/$(basename "$DISK").caibx" "$DISK" >"$STORE/digest""#,
        verify: r#"casync digest --store="$STORE/chunks" "$STORE"/*.caibx >"$STORE/digest""#,
        again: r#"casync make --store="$STORE/chunks" "$STORE/$(basename "$DISK").caibx" "$DISK" >"$STORE/digest""#,
        rounds: SLOWEST,
        ..NONE
    },
    Peer {
        name: "mksquashfs zstd",
        remark: "level 3, all blocks, 64 KiB; no checksums",
        full: r#"mksquashfs "$DISK" "$STORE/disk.squashfs" -comp zstd -Xcompression-level 3 -b 65536 -noappend -no-progress -quiet"#,
        ..NONE
    },
    Peer {
        name: "wimlib",
        remark: "XPRESS, files of NTFS, without the page file",
        full: r#"wimcapture "$PART" "$STORE/part.wim" g1 --compress=XPRESS --check >"$STORE/words""#,
        verify: r#"wimverify "$STORE/part.wim" >"$STORE/words""#,
        again: r#"wimappend "$PART" "$STORE/part.wim" g2 --check >"$STORE/words""#,
        only: Some(Kind::Ntfs),
        rounds: SLOWEST,
        ..NONE
    },
];
