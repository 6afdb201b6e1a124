//! What is kept of a node beside its content.

use crate::error::Result;
use crate::filesystem::files::{Attributes, FileSystem, NodeId, Time, Xattr};

/// Set-uid and set-gid.
const PRIVILEGED_BITS: u16 = 0o6000;

/// What to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Owner and group.
    pub owner: bool,
    /// Permission bits.
    pub permissions: bool,
    /// Times of last change and access.
    pub times: bool,
    /// Extended attributes, access control lists among them.
    pub xattrs: bool,
    /// Set-uid and set-gid bits, and device nodes: what can hand out rights on this machine.
    pub privileged: bool,
}

impl Keep {
    /// Everything that is harmless.
    pub const SAFE: Self = Self { owner: true, permissions: true, times: true, xattrs: true, privileged: false };
    /// Content alone.
    pub const NOTHING: Self = Self { owner: false, permissions: false, times: false, xattrs: false, privileged: false };
}

/// What a new node gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) permissions: Option<u16>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) accessed: Option<Time>,
    pub(crate) modified: Option<Time>,
    /// Only Windows lets it be set.
    pub(crate) created: Option<Time>,
    /// `FILE_ATTRIBUTE_*` bits; only Windows has them.
    pub(crate) dos_attributes: Option<u32>,
    pub(crate) xattrs: Vec<Xattr>,
}

impl Metadata {
    /// What is to be kept of a node. `fallback` are the permissions where the filesystem has none, or none are kept.
    pub(crate) fn of(
        files: &dyn FileSystem,
        node: NodeId,
        attributes: &Attributes,
        keep: Keep,
        fallback: u16,
    ) -> Result<Self> {
        let permissions = attributes.permissions.filter(|_| keep.permissions).unwrap_or(fallback);
        let allowed = if keep.privileged { 0o7777 } else { 0o7777 & !PRIVILEGED_BITS };
        Ok(Self {
            permissions: Some(permissions & allowed),
            uid: attributes.uid.filter(|_| keep.owner),
            gid: attributes.gid.filter(|_| keep.owner),
            accessed: attributes.accessed.filter(|_| keep.times),
            modified: attributes.modified.filter(|_| keep.times),
            created: attributes.created.filter(|_| keep.times),
            dos_attributes: attributes.dos_attributes.filter(|_| keep.permissions),
            xattrs: if keep.xattrs { wanted_xattrs(files.xattrs(node)?, keep) } else { Vec::new() },
        })
    }
}

/// Attributes of NTFS that another NTFS volume takes; the others describe how that volume stores a file.
const NTFS_KEPT: [&[u8]; 3] = [b"system.ntfs_acl", b"system.ntfs_attrib", b"system.ntfs_attrib_be"];

/// Says whether an attribute means something only where the target is of the same kind: then its loss is no news.
pub(crate) fn is_foreign(name: &[u8]) -> bool {
    NTFS_KEPT.contains(&name)
}

fn wanted_xattrs(mut xattrs: Vec<Xattr>, keep: Keep) -> Vec<Xattr> {
    xattrs.retain(|xattr| {
        let name = xattr.name.as_slice();
        let foreign = name.starts_with(b"system.ntfs_") && !NTFS_KEPT.contains(&name);
        let privileged = name == b"security.capability" || name.starts_with(b"trusted.");
        !foreign && (keep.privileged || !privileged)
    });
    xattrs
}
