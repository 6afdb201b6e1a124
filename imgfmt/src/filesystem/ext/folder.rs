//! Directories: their blocks and entries in order, and names found by hash.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::bytes::{le16, le32, u8_at};
use crate::disk::read_vec;
use crate::error::Result;
use crate::filesystem::ext::directory::{Entries, RawEntry, check_block};
use crate::filesystem::ext::hash::{Hash, hash};
use crate::filesystem::ext::inode::{Inode, flag};
use crate::filesystem::ext::map::Piece;
use crate::filesystem::ext::superblock::{compat, incompat};
use crate::filesystem::ext::volume::Volume;
use crate::filesystem::ext::xattr;

/// Bytes of a directory that are read at once.
const PIECE: u64 = 1 << 20;
/// Bits of the number of a block in a hash tree.
const HASH_BLOCK: u32 = 0x0fff_ffff;
/// Bytes of the root of a hash tree before its entries: "." and "..", and 8 bytes about the tree.
const ROOT_HEADER: usize = 32;
/// Bytes of other nodes before their entries: an entry of a directory that is as long as the block.
const NODE_HEADER: usize = 8;

impl Volume {
    fn check_folder_block(&self, folder: &Inode, block: u64, bytes: &[u8]) -> Result<()> {
        if self.superblock.has_metadata_csum() && !check_block(bytes, folder.csum_seed) {
            let offset = self.offset_of(block);
            return Err(folder.corrupt(offset, "the checksum of a block of the directory is wrong"));
        }
        Ok(())
    }

    /// Calls `visit` for each block of a directory, in order, with its number.
    fn folder_blocks(
        &self,
        folder: &Inode,
        mut visit: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let block_size = self.superblock.block_size;
        let blocks = folder.size.div_ceil(block_size.max(1));
        let per_piece = PIECE.checked_div(block_size).unwrap_or(1);
        let mut next = 0;
        let mut runs = Vec::new();
        self.follow(folder, &mut HashSet::new(), &mut |piece| {
            let Piece::Run(run) = piece else { return Ok(()) };
            if run.logical < blocks {
                if run.logical != next || !run.written {
                    return Err(folder.corrupt(self.offset_of(run.physical), "the directory has a hole"));
                }
                next = run.logical.saturating_add(run.len);
                runs.push(run);
            }
            Ok(())
        })?;
        if next < blocks {
            return Err(folder.corrupt(0, "the directory is longer than its blocks"));
        }
        for run in runs {
            let len = run.len.min(blocks.saturating_sub(run.logical));
            let mut done = 0;
            while done < len {
                let count = len.saturating_sub(done).min(per_piece);
                let first = run.physical.saturating_add(done);
                let bytes_len = usize::try_from(count.saturating_mul(block_size)).expect("at most a piece");
                let bytes = read_vec(&self.disk, self.offset_of(first), bytes_len)?;
                for (block, bytes) in (first..).zip(bytes.chunks_exact(self.block_len())) {
                    self.check_folder_block(folder, block, bytes)?;
                    if visit(block, bytes)?.is_break() {
                        return Ok(());
                    }
                }
                done = done.saturating_add(count);
            }
        }
        Ok(())
    }

    /// Calls `visit` for each entry of a directory until it breaks, "." and ".." included where they are stored.
    pub fn folder_entries(&self, folder: &Inode, visit: &mut dyn FnMut(RawEntry<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut visit_all = |bytes: &[u8], offset: u64| {
            for entry in Entries::new(bytes, &self.superblock) {
                if visit(entry.map_err(|reason| folder.corrupt(offset, reason))?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if folder.has(flag::INLINE_DATA) {
            // The parent's number comes first, then entries; more of them are the value of an attribute.
            let rest = xattr::inline_rest(folder).map_err(|reason| folder.corrupt(0, reason))?;
            for part in [&folder.block[4..], rest] {
                if visit_all(part, 0)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        self.folder_blocks(folder, |block, bytes| visit_all(bytes, self.offset_of(block)))
    }

    /// Finds a name in a directory: the inode and the type that the directory says. By its hash where there is a hash tree that can be read, by looking at all
    /// entries otherwise.
    pub fn find(&self, folder: &Inode, name: &[u8]) -> Result<Option<(u32, u8)>> {
        // Of a folder without case, the hash is that of another name.
        let has_tree = folder.has(flag::INDEX) && self.superblock.compat & compat::DIR_INDEX != 0;
        let by_hash = has_tree && !folder.has(flag::CASEFOLD | flag::INLINE_DATA);
        if by_hash && let Ok(Some(found)) = self.find_by_hash(folder, name) {
            return Ok(found);
        }
        let mut found = None;
        self.folder_entries(folder, &mut |entry| {
            if entry.name == name {
                found = Some((entry.inode, entry.file_type));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Finds a name in the hash tree; `None` where there is none of a kind that is known.
    fn find_by_hash(&self, folder: &Inode, name: &[u8]) -> Result<Option<Option<(u32, u8)>>> {
        let root = self.folder_block(folder, 0)?;
        let (Some(version), Some(info_len), Some(levels)) = (u8_at(&root, 28), u8_at(&root, 29), u8_at(&root, 30))
        else {
            return Ok(None);
        };
        let most = if self.superblock.incompat & incompat::LARGEDIR != 0 { 2 } else { 1 };
        let Some(kind) = Hash::from_version(version, &self.superblock) else { return Ok(None) };
        if le32(&root, 24) != Some(0) || info_len != 8 || levels > most {
            return Ok(None);
        }
        let mut search = Search {
            volume: self,
            folder,
            name,
            hash: hash(kind, name, self.superblock.hash_seed),
            blocks_left: folder.size.div_ceil(self.superblock.block_size.max(1)),
        };
        search.node(&root, ROOT_HEADER, levels).map(Some)
    }

    /// Block `logical` of a directory, its checksum checked.
    fn folder_block(&self, folder: &Inode, logical: u64) -> Result<std::sync::Arc<[u8]>> {
        let (Some(block), _) = self.leaf(folder, logical)?.find(logical) else {
            return Err(folder.corrupt(0, "the directory has a hole"));
        };
        let bytes = self.block(block)?;
        self.check_folder_block(folder, block, &bytes)?;
        Ok(bytes)
    }
}

/// A search through a hash tree.
struct Search<'a> {
    volume: &'a Volume,
    folder: &'a Inode,
    name: &'a [u8],
    hash: u32,
    /// Blocks that may still be read: no more than the directory has.
    blocks_left: u64,
}

impl Search<'_> {
    /// Looks below a node with `levels` levels of nodes below it.
    fn node(&mut self, node: &[u8], header: usize, levels: u8) -> Result<Option<(u32, u8)>> {
        let corrupt = |reason| self.folder.corrupt(0, reason);
        let (entries, _) = node.get(header..).unwrap_or_default().as_chunks::<8>();
        // In place of the first entry's hash, which is 0, stand limit and count.
        let count = usize::from(le16(node, header.saturating_add(2)).unwrap_or(0));
        let entries = entries.get(..count).filter(|entries| !entries.is_empty());
        let entries = entries.ok_or_else(|| corrupt("a node of its hash tree has a wrong count"))?;
        let hash_of = |entry: &[u8; 8]| le32(entry, 0).unwrap_or(0);
        let after = entries.get(1..).unwrap_or_default().partition_point(|entry| hash_of(entry) <= self.hash);
        for (index, entry) in entries.iter().enumerate().skip(after) {
            // The lowest bit says that names with the same hash began in the block before.
            if index > after && hash_of(entry) & !1 != self.hash {
                break;
            }
            self.blocks_left = self.blocks_left.checked_sub(1).ok_or_else(|| corrupt("its hash tree has a loop"))?;
            let logical = u64::from(le32(entry, 4).unwrap_or(0) & HASH_BLOCK);
            let block = self.volume.folder_block(self.folder, logical)?;
            let found = match levels.checked_sub(1) {
                Some(below) => self.node(&block, NODE_HEADER, below)?,
                None => self.leaf(&block)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn leaf(&self, block: &[u8]) -> Result<Option<(u32, u8)>> {
        for entry in Entries::new(block, &self.volume.superblock) {
            let entry = entry.map_err(|reason| self.folder.corrupt(0, reason))?;
            if entry.name == self.name {
                return Ok(Some((entry.inode, entry.file_type)));
            }
        }
        Ok(None)
    }
}
