//! What a folder says whose files cannot be shown.

use std::fmt::Write;

/// The one file in such a folder.
pub const README_NAME: &str = "README.txt";
/// How [`recognise`](crate::partition::signature::recognise) names a physical volume.
pub const LVM2: &str = "LVM2 physical volume";

/// How Linux gets at contents that are not read here: what follows "To see its files, on Linux:". `RAW` is the file, `DIR` an empty folder.
const KERNEL: &[(&str, &str)] = &[
    ("XFS", "mount -t xfs -o loop,ro,norecovery,nouuid RAW DIR"),
    ("btrfs", "mount -t btrfs -o loop,ro RAW DIR"),
    ("bcachefs", "mount -t bcachefs -o loop,ro,norecovery RAW DIR"),
    ("F2FS", "mount -t f2fs -o loop,ro RAW DIR"),
    ("JFS", "mount -t jfs -o loop,ro RAW DIR"),
    ("NILFS2", "mount -t nilfs2 -o loop,ro,norecovery RAW DIR"),
    ("squashfs", "mount -t squashfs -o loop,ro RAW DIR"),
    ("EROFS", "mount -t erofs -o loop,ro RAW DIR"),
    ("UDF", "mount -t udf -o loop,ro RAW DIR"),
    ("HFS+", "mount -t hfsplus -o loop,ro RAW DIR"),
    ("HFSX", "mount -t hfsplus -o loop,ro RAW DIR"),
    ("APFS", "apfs-fuse RAW DIR"),
    ("LUKS", "cryptsetup open --readonly --type luks RAW NAME\n    mount -o ro /dev/mapper/NAME DIR"),
    ("BitLocker", "cryptsetup open --readonly --type bitlk RAW NAME\n    mount -o ro /dev/mapper/NAME DIR"),
];

/// What lies in a volume whose files are not read, and how to get at them.
pub fn not_read(kind: &str, raw: &str) -> String {
    let mut text = format!("This is no empty folder: {raw}, beside it, holds {kind}.\n\n");
    text += match kind {
        "LUKS" | "BitLocker" => "It is encrypted, and hikae has no key.",
        _ if kind.starts_with("Linux swap") => "It holds no files.",
        _ => "hikae does not show what is in it.",
    };
    if let Some((_, command)) = KERNEL.iter().find(|(name, _)| *name == kind) {
        let command = command.replace("RAW", raw);
        let _ = write!(
            text,
            " To see its files, on Linux and as root, for an empty folder DIR:\n\n    {command}\n\n\
             Root sees the mount of another user only where that was made with --allow-other."
        );
    }
    text.push('\n');
    text
}

/// A filesystem of a known kind with a feature that is not read.
pub fn unsupported(reason: &str, raw: &str) -> String {
    format!(
        "This is no empty folder: its files cannot be shown.\n\n{}\n\nThe whole of it is in {raw}, beside this folder.\n",
        printable(reason)
    )
}

/// Contents that nothing recognises.
pub fn unknown(raw: &str) -> String {
    format!(
        "What lies here is not recognised: no filesystem, volume manager or encryption that hikae knows.\n\n\
         The whole of it is in {raw}, beside this folder.\n"
    )
}

/// A volume without a byte that is not zero.
pub fn blank(raw: &str) -> String {
    format!("Nothing lies here: every byte of {raw}, beside this folder, is zero or was not in use.\n")
}

/// A physical volume of LVM2 that was read.
pub fn physical_volume<'a>(group: &str, volumes: impl Iterator<Item = &'a str>) -> String {
    let mut text = format!("This is a physical volume of the LVM2 volume group {group:?}.\n\n");
    let before = text.len();
    for volume in volumes {
        let _ = writeln!(text, "    {volume}");
    }
    if text.len() > before {
        text.insert_str(before, "The logical volumes on this disk are folders beside this one:\n\n");
    } else {
        text += "No logical volume is described on this disk.\n";
    }
    text
}

/// A physical volume of LVM2 whose metadata are damaged.
pub fn damaged_lvm2(reason: &str) -> String {
    format!(
        "This is an LVM2 physical volume whose description could not be read, so its logical volumes are missing:\n\n{}\n",
        printable(reason)
    )
}

/// A logical volume that cannot be put together.
pub fn unmapped(name: &str, reason: &str) -> String {
    format!("This is no empty folder: the LVM2 volume {name} cannot be shown.\n\n{}\n", printable(reason))
}

/// An entry of a partition table that makes no sense.
pub fn unusable(number: u32, reason: &str) -> String {
    format!(
        "Partition {number} is not shown: {}.\n\nThe whole disk is in disk.raw, beside this folder.\n",
        printable(reason)
    )
}

/// A disk that is shown with an overlay.
pub const OVERLAY: &str = "The files of disks here take writes: disk.raw, the same disk as a file of other formats, and p1.raw and so on.\n\
     All of it goes to one overlay file, so each of them shows at once what was written to another; the image is never written.\n\
     The folders p1 and so on, and logical volumes, show what the image has, without the overlay.\n\n";

/// A disk without a table.
pub const ALONE: &str = "This is a partition alone: disk.raw, and the same as a file of other formats, have no partition table. Linux takes such a disk as it is.\n\
     For what wants a table, such as Windows, with-table.raw and so on are the same partition with a table made up around it, 1 MiB from the start.\n\n";

/// A format that cannot show the disk.
pub fn no_view(name: &str, reason: &str) -> String {
    format!("There is no {name}: {reason}.\n\n")
}

/// A partition table that could not be read.
pub fn unreadable_table(reason: &str) -> String {
    format!("The partition table could not be read, so no partition is shown:\n\n{}\n", printable(reason))
}

/// Untrusted text without control characters.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}
