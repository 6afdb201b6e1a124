//! Attributes as `stat` shows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use imgfmt::filesystem::files::{Attributes, NodeId, NodeKind, Time};

/// Owner of what has none, and of everything where the user said so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    /// Everything belongs to this user.
    pub(crate) uid: Option<u32>,
    /// Everything belongs to this group.
    pub(crate) gid: Option<u32>,
    /// What has no owner belongs to whoever made the mount.
    pub(crate) mounter: (u32, u32),
}

pub(crate) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Folder => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::CharacterDevice { .. } => FileType::CharDevice,
        NodeKind::BlockDevice { .. } => FileType::BlockDevice,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
    }
}

pub(crate) fn file_attr(node: NodeId, attributes: &Attributes, owners: &Owners) -> FileAttr {
    let time = |time: Option<Time>| time.or(attributes.modified).or(attributes.created).unwrap_or_default();
    let permissions = attributes.permissions.unwrap_or(match attributes.kind {
        NodeKind::Folder => 0o555,
        NodeKind::Symlink => 0o777,
        _ => 0o444,
    });
    FileAttr {
        ino: INodeNo(node.0),
        size: attributes.len,
        blocks: attributes.allocated.div_ceil(512),
        atime: system_time(time(attributes.accessed)),
        mtime: system_time(time(attributes.modified)),
        ctime: system_time(time(attributes.changed)),
        crtime: system_time(time(attributes.created)),
        kind: file_type(attributes.kind),
        perm: permissions & 0o7777,
        nlink: attributes.links,
        uid: owners.uid.or(attributes.uid).unwrap_or(owners.mounter.0),
        gid: owners.gid.or(attributes.gid).unwrap_or(owners.mounter.1),
        rdev: device_number(attributes.kind),
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes of a node of which only the kind is known.
pub(crate) fn unknown_attr(node: NodeId, kind: NodeKind, owners: &Owners) -> FileAttr {
    let attributes = Attributes {
        kind,
        len: 0,
        allocated: 0,
        links: 1,
        permissions: None,
        uid: None,
        gid: None,
        modified: None,
        accessed: None,
        changed: None,
        created: None,
        dos_attributes: None,
    };
    file_attr(node, &attributes, owners)
}

/// A device number as the kernel packs it into 32 bits: 20 for the minor number, 12 for the major one.
fn device_number(kind: NodeKind) -> u32 {
    match kind {
        NodeKind::CharacterDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
        }
        _ => 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let nanoseconds = Duration::from_nanos(time.nanoseconds.min(999_999_999).into());
    whole.and_then(|time| time.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_absurd_ones_are_told_without_a_panic() {
        let half_before = Time { seconds: -1, nanoseconds: 500_000_000 };
        assert_eq!(system_time(half_before), UNIX_EPOCH - Duration::from_millis(500));
        for seconds in [i64::MIN, i64::MAX] {
            system_time(Time { seconds, nanoseconds: u32::MAX });
        }
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_unpacks_them() {
        assert_eq!(device_number(NodeKind::BlockDevice { major: 8, minor: 1 }), 0x801);
        assert_eq!(device_number(NodeKind::CharacterDevice { major: 0xabc, minor: 0x1_2345 }), 0x123a_bc45);
        assert_eq!(device_number(NodeKind::File), 0);
    }
}
