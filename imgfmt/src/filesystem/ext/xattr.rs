//! Extended attributes: lists of entries in an inode and in a block.

use std::sync::Arc;

use crate::bytes::{le16, le32, u8_at};
use crate::crc32c;
use crate::error::Result;
use crate::filesystem::ext::checksum::crc32c_without;
use crate::filesystem::ext::inode::Inode;
use crate::filesystem::ext::volume::Volume;

/// First four bytes of a list.
const MAGIC: u32 = 0xea02_0000;
/// Bytes of the header of a block of attributes.
const BLOCK_HEADER: usize = 32;
/// Number of the name space of the filesystem's own attributes.
pub const SYSTEM: u8 = 7;

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
