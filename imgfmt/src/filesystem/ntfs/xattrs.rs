//! Extended attributes, by the names that ntfs-3g gives them.
//!
//! | name | value |
//! |---|---|
//! | `system.ntfs_acl` | the security descriptor as Windows keeps it (self-relative) |
//! | `system.ntfs_attrib`, `system.ntfs_attrib_be` | `FILE_ATTRIBUTE_*`, little-endian, big-endian |
//! | `system.ntfs_times` | creation, modification, access, change: 8 bytes each in units of 100 ns since 1601, little-endian |
//! | `system.ntfs_reparse_data` | the reparse point, its tag first |
//! | `system.ntfs_dos_name` | the 8.3 name, where there is a long one too |
//! | `system.ntfs_object_id` | the object id and the three ids of its birth, as far as the volume knows them |
//! | `system.ntfs_ea` | all extended attributes of OS/2 as they are stored |
//! | `user.NAME` | each of them |
//! | `user.ntfs.efsinfo` | the keys of an encrypted file |

use crate::error::{Error, Result};
use crate::filesystem::files::{FileSystem, NodeId, Xattr};
use crate::filesystem::ntfs::attribute::{File, Value, Want};
use crate::filesystem::ntfs::ea;
use crate::filesystem::ntfs::files::{Files, StandardInformation};
use crate::filesystem::ntfs::index::Index;
use crate::filesystem::ntfs::names::{FileName, stored, to_wtf8};
use crate::filesystem::ntfs::record::attribute_type;
use crate::filesystem::ntfs::security;
use crate::filesystem::ntfs::volume::system_file;

/// `FILE_ATTRIBUTE_NORMAL`: no other one is set.
const NORMAL: u32 = 0x80;
/// Longest value of $EFS.
const MAX_EFS: u64 = 256 << 10;

/// All of a node's.
pub(super) fn of(files: &Files, node: NodeId) -> Result<Vec<Xattr>> {
    let node = files.node(node, &|of| match of {
        attribute_type::FILE_NAME
        | attribute_type::OBJECT_ID
        | attribute_type::SECURITY_DESCRIPTOR
        | attribute_type::LOGGED_UTILITY_STREAM => Want::Whole,
        _ => Want::Nothing,
    })?;
    let mut xattrs = Vec::new();
    let mut add = |name: &str, value: Option<Vec<u8>>| {
        xattrs.extend(value.map(|value| Xattr { name: name.as_bytes().to_vec(), value }));
    };
    let information = StandardInformation::of(&node.file);
    add("system.ntfs_acl", descriptor(files, &node.file, information)?);
    let attributes = if node.dos_attributes == 0 { NORMAL } else { node.dos_attributes };
    add("system.ntfs_attrib", Some(attributes.to_le_bytes().to_vec()));
    add("system.ntfs_attrib_be", Some(attributes.to_be_bytes().to_vec()));
    add("system.ntfs_times", information.map(times));
    add("system.ntfs_reparse_data", node.reparse.clone());
    add("system.ntfs_dos_name", short_name(&node.file));
    add("system.ntfs_object_id", object_id(files, &node.file)?);
    add("system.ntfs_ea", node.ea.clone());
    for (name, value) in ea::parse(node.ea.as_deref().unwrap_or_default()) {
        let name = String::from_utf8_lossy(name);
        if !name.is_empty() && !name.contains('\0') {
            add(&format!("user.{name}"), Some(value.to_vec()));
        }
    }
    let efs = node.file.attribute(attribute_type::LOGGED_UTILITY_STREAM, &stored("$EFS"));
    add("user.ntfs.efsinfo", efs.map(|efs| whole(files, &efs.value, MAX_EFS)).transpose()?);
    Ok(xattrs)
}

fn whole(files: &Files, value: &Value, most: u64) -> Result<Vec<u8>> {
    match value {
        Value::Resident(value) => Ok(value.clone()),
        Value::NonResident(stream) => files.volume.whole_stream(stream, most),
    }
}

/// The security descriptor: the file's own, or the one in $Secure.
fn descriptor(files: &Files, file: &File, information: Option<StandardInformation>) -> Result<Option<Vec<u8>>> {
    if let Some(own) = file.attribute(attribute_type::SECURITY_DESCRIPTOR, &[]) {
        return whole(files, &own.value, u64::from(security::MAX_LEN)).map(Some);
    }
    match (information.and_then(|information| information.security), files.secure()?) {
        (Some(id), Some(secure)) => secure.descriptor(&files.volume, id),
        _ => Ok(None),
    }
}

fn times(information: StandardInformation) -> Vec<u8> {
    let StandardInformation { created, modified, accessed, changed, .. } = information;
    [created, modified, accessed, changed].into_iter().flat_map(u64::to_le_bytes).collect()
}

fn short_name(file: &File) -> Option<Vec<u8>> {
    file.attributes.iter().find_map(|attribute| match (attribute.type_code, &attribute.value) {
        (attribute_type::FILE_NAME, Value::Resident(value)) => {
            FileName::parse(value).filter(|name| name.is_short).map(|name| to_wtf8(name.name))
        }
        _ => None,
    })
}

/// The object id; the rest of the 64 bytes is in the index `$O` of `$Extend\$ObjId`.
fn object_id(files: &Files, file: &File) -> Result<Option<Vec<u8>>> {
    let Some(id) = file.resident(attribute_type::OBJECT_ID).and_then(|value| value.get(..16)) else { return Ok(None) };
    let mut value = id.to_vec();
    let extend = NodeId(system_file::EXTEND);
    let index = match files.lookup(extend, b"$ObjId") {
        Ok(Some(entry)) => Index::open(&files.volume, &files.file(entry.node, &Index::want)?, &stored("$O"))?,
        Ok(None) | Err(Error::NotFound(_)) => None,
        Err(other) => return Err(other),
    };
    if let Some(index) = index {
        // Sorted by the id as four little-endian numbers.
        let words = |id: &[u8]| {
            let words = id.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            words.collect::<Vec<_>>()
        };
        let found = index.find(&files.volume, &|key| words(id).cmp(&words(key)))?;
        // A reference to the file comes first.
        value.extend(found.as_deref().and_then(|found| found.get(8..56)).unwrap_or_default());
    }
    Ok(Some(value))
}
