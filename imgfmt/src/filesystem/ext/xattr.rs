//! Extended attributes: lists of entries in an inode and in a block.

use std::sync::Arc;

use crate::bytes::{le16, le32, u8_at};
use crate::crc32c;
use crate::error::Result;
use crate::filesystem::ext::checksum::crc32c_without;
use crate::filesystem::ext::content;
use crate::filesystem::ext::inode::{Inode, flag};
use crate::filesystem::ext::volume::Volume;
use crate::filesystem::files::Xattr;

/// First four bytes of a list.
const MAGIC: u32 = 0xea02_0000;
/// Bytes of the header of a block of attributes.
const BLOCK_HEADER: usize = 32;
/// Number of the name space of the filesystem's own attributes.
pub const SYSTEM: u8 = 7;
/// Longest value that Linux hands out.
const MAX_VALUE: u64 = 65536;

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the list's own bytes, at this offset.
    Here(usize),
    /// In an inode of its own.
    Inode(u32),
}

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawXattr<'a> {
    /// Number of the name space.
    pub index: u8,
    /// Name without its name space.
    pub name: &'a [u8],
    /// Bytes of the value.
    pub len: u32,
    /// Where the value lies.
    pub place: Place,
}

/// The entries of the list at `first` of `bytes`; offsets of values count from `base`. The error is a broken rule.
fn entries(bytes: &[u8], first: usize, base: usize) -> Result<Vec<RawXattr<'_>>, &'static str> {
    let mut found = Vec::new();
    let mut at = first;
    // Four zero bytes end the list; in an inode it may also end where the inode does.
    while le32(bytes, at).is_some_and(|word| word != 0) {
        let field = |offset| le32(bytes, at.saturating_add(offset));
        let name_len = usize::from(u8_at(bytes, at).unwrap_or(0));
        let name_at = at.saturating_add(16);
        let name = bytes.get(name_at..name_at.saturating_add(name_len));
        let (Some(name), Some(offset), Some(inode), Some(len)) =
            (name, le16(bytes, at.saturating_add(2)), field(4), field(8))
        else {
            return Err("the list of its extended attributes is cut short");
        };
        let value_at = base.saturating_add(usize::from(offset));
        let end = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(value_at);
        if inode == 0 && len != 0 && end > bytes.len() {
            return Err("the value of an extended attribute reaches past its block");
        }
        let index = u8_at(bytes, at.saturating_add(1)).unwrap_or(0);
        let place = if inode == 0 { Place::Here(value_at) } else { Place::Inode(inode) };
        found.push(RawXattr { index, name, len, place });
        at = name_at.saturating_add(name_len).next_multiple_of(4);
    }
    Ok(found)
}

/// The extended attributes in the inode itself; places count from the start of the inode.
pub fn in_inode(inode: &Inode) -> Result<Vec<RawXattr<'_>>, &'static str> {
    let (start, area) = inode.attribute_area();
    if le32(area, 0) != Some(MAGIC) {
        return Ok(Vec::new());
    }
    let first = start.saturating_add(4);
    entries(&inode.raw, first, first)
}

/// The extended attributes in a block of them; places count from the start of the block.
pub fn in_block(block: &[u8]) -> Result<Vec<RawXattr<'_>>, &'static str> {
    if le32(block, 0) != Some(MAGIC) || le32(block, 8) != Some(1) {
        return Err("its block of extended attributes has no valid header");
    }
    entries(block, BLOCK_HEADER, 0)
}

/// The part of inline data that does not fit in place of the map: the value of `system.data`.
pub fn inline_rest(inode: &Inode) -> Result<&[u8], &'static str> {
    let list = in_inode(inode)?;
    let Some(data) = list.iter().find(|xattr| xattr.index == SYSTEM && xattr.name == b"data") else {
        return Ok(&[]);
    };
    let Place::Here(at) = data.place else { return Err("its inline data lie in another inode") };
    let len = usize::try_from(data.len).unwrap_or(usize::MAX);
    inode.raw.get(at..at.saturating_add(len)).ok_or("its inline data are cut short")
}

impl Volume {
    /// Number of the block of extended attributes of an inode; `None` where it has none.
    pub fn xattr_block_number(&self, inode: &Inode) -> Result<Option<u64>> {
        match inode.file_acl {
            0 => Ok(None),
            number if self.superblock.holds(number, 1) => Ok(Some(number)),
            number => {
                let offset = self.offset_of(number);
                Err(inode.corrupt(offset, "its extended attributes lie outside of the filesystem"))
            }
        }
    }

    /// Reads the block of extended attributes of an inode; `None` where it has none.
    pub fn xattr_block(&self, inode: &Inode) -> Result<Option<Arc<[u8]>>> {
        let Some(number) = self.xattr_block_number(inode)? else { return Ok(None) };
        let offset = self.offset_of(number);
        let block = self.block(number)?;
        if self.superblock.has_metadata_csum() {
            let seed = crc32c::update(self.superblock.csum_seed, &number.to_le_bytes());
            if le32(&block, 0x10) != Some(crc32c_without(seed, &block, &[(0x10, 4)])) {
                return Err(inode.corrupt(offset, "the checksum of its extended attributes is wrong"));
            }
        }
        Ok(Some(block))
    }
}

/// The name that Linux shows for an attribute; `None` for what it does not show.
fn shown_name(index: u8, name: &[u8]) -> Option<Vec<u8>> {
    let prefix: &[u8] = match index {
        1 => b"user.",
        2 if name.is_empty() => b"system.posix_acl_access",
        3 if name.is_empty() => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        10 => b"gnu.",
        _ => return None,
    };
    let is_acl = matches!(index, 2 | 3);
    (is_acl || !name.is_empty()).then(|| [prefix, name].concat())
}

/// An access control list in the form of Linux' system calls, from the one that is stored; `None` where it is none.
fn shown_acl(stored: &[u8]) -> Option<Vec<u8>> {
    /// Tags of entries for one user, and for one group: the others have no number.
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    if le32(stored, 0) != Some(1) {
        return None;
    }
    let mut shown = 2_u32.to_le_bytes().to_vec();
    let mut rest = stored.get(4..)?;
    while !rest.is_empty() {
        let (tag, permissions) = (le16(rest, 0)?, le16(rest, 2)?);
        let (id, len) = match tag {
            USER | GROUP => (le32(rest, 4)?, 8),
            0x01 | 0x04 | 0x10 | 0x20 => (u32::MAX, 4),
            _ => return None,
        };
        shown.extend(tag.to_le_bytes());
        shown.extend(permissions.to_le_bytes());
        shown.extend(id.to_le_bytes());
        rest = rest.get(len..)?;
    }
    Some(shown)
}

/// All extended attributes of an inode, as Linux shows them.
pub(super) fn shown(volume: &Arc<Volume>, inode: &Inode) -> Result<Vec<Xattr>> {
    let corrupt = |reason| inode.corrupt(volume.offset_of(inode.file_acl), reason);
    let block = volume.xattr_block(inode)?;
    let block = block.as_deref().unwrap_or_default();
    let in_block = if block.is_empty() { Vec::new() } else { in_block(block).map_err(corrupt)? };
    let in_inode = in_inode(inode).map_err(corrupt)?;
    let here = in_inode.into_iter().map(|xattr| (&inode.raw[..], xattr));
    let mut found = Vec::new();
    for (bytes, xattr) in here.chain(in_block.into_iter().map(|xattr| (block, xattr))) {
        let Some(name) = shown_name(xattr.index, xattr.name) else { continue };
        let value = match xattr.place {
            Place::Here(at) => {
                let len = usize::try_from(xattr.len).unwrap_or(usize::MAX);
                let value = if len == 0 { Some(&[][..]) } else { bytes.get(at..at.saturating_add(len)) };
                value.ok_or_else(|| corrupt("the value of an extended attribute is cut short"))?.to_vec()
            }
            Place::Inode(number) => value_in_inode(volume, inode, number, xattr.len)?,
        };
        let value = match xattr.index {
            2 | 3 => shown_acl(&value).ok_or_else(|| corrupt("an access control list of it is none"))?,
            _ => value,
        };
        found.push(Xattr { name, value });
    }
    Ok(found)
}

/// The value of an extended attribute of `owner` that lies in an inode of its own.
fn value_in_inode(volume: &Arc<Volume>, owner: &Inode, number: u32, len: u32) -> Result<Vec<u8>> {
    let inode = volume.inode(number)?;
    if !inode.has(flag::EA_INODE) || inode.links == 0 || inode.size != u64::from(len) || inode.size > MAX_VALUE {
        return Err(inode.corrupt(0, "it is not the value of the extended attribute that names it"));
    }
    // Times of such an inode hold other things: the hash of the value, or (Lustre) the inode that it belongs to.
    let field = |at| le32(&inode.raw, at);
    let (hash, parent, generation) = (field(0x08), field(0x10), field(0x64));
    let mut value = vec![0; usize::try_from(len).expect("at most 64 KiB")];
    content::open(volume, inode.clone())?.read_at(&mut value, 0)?;
    let is_lustre = parent == Some(owner.number) && generation == le32(&owner.raw, 0x64);
    if hash != Some(crc32c::update(volume.superblock.csum_seed, &value)) && !is_lustre {
        return Err(inode.corrupt(0, "the value of an extended attribute does not match its hash"));
    }
    Ok(value)
}
