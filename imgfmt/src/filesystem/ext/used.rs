//! Which blocks are used: by the block bitmaps, and by what the inodes reach.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{ControlFlow, Range};

use crate::bytes::{be32, le32};
use crate::crc32c;
use crate::disk::{Disk, ExtentKind, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::bits::UsedUnits;
use crate::filesystem::ext::inode::{Inode, file_type, is_in_use, number};
use crate::filesystem::ext::map::{Piece, Run};
use crate::filesystem::ext::superblock::{compat, incompat, ro_compat};
use crate::filesystem::ext::volume::Volume;
use crate::filesystem::ext::xattr::{self, Place};
use crate::filesystem::{Elidable, Reach, Reached, Summary, UsedBlocks};
use crate::ranges::RangeSet;

/// Bytes of an inode table or a directory that are read at once.
const PIECE: u64 = 1 << 20;
/// Directories that a search for a path looks into.
const MAX_FOLDERS: usize = 1 << 20;
/// Values of the sequence number of multi-mount protection: nobody has mounted the filesystem.
const MMP_CLEAN: u32 = 0xff4d_4d50;

/// A set of inode numbers, in pieces that exist only where numbers do.
#[derive(Default)]
struct InodeSet {
    pieces: HashMap<u32, Box<[u8; 512]>>,
}

impl InodeSet {
    fn split(inode: u32) -> (u32, usize, u8) {
        let byte = usize::try_from((inode / 8) % 512).expect("below 512");
        (inode / 4096, byte, 1 << (inode % 8))
    }

    fn insert(&mut self, inode: u32) {
        let (piece, byte, bit) = Self::split(inode);
        self.pieces.entry(piece).or_insert_with(|| Box::new([0; 512]))[byte] |= bit;
    }

    /// The smallest number that is in `self` and not in `other`.
    fn first_not_in(&self, other: &Self) -> Option<u32> {
        let mut pieces: Vec<_> = self.pieces.keys().copied().collect();
        pieces.sort_unstable();
        for piece in pieces {
            let others = other.pieces.get(&piece);
            for (index, byte) in (0_u32..).zip(self.pieces[&piece].iter()) {
                let place = usize::try_from(index).expect("below 512");
                let missing = byte & !others.map_or(0, |others| others[place]);
                if missing != 0 {
                    let bit = index.saturating_mul(8).saturating_add(missing.trailing_zeros());
                    return Some(piece.saturating_mul(4096).saturating_add(bit));
                }
            }
        }
        None
    }
}

/// A walk over all metadata.
struct Walk<'a> {
    volume: &'a Volume,
    visit: &'a mut dyn FnMut(Reached) -> Result<()>,
    /// Inodes in use, by their own bytes.
    used: InodeSet,
    /// Inodes that entries of directories and attributes name.
    named: InodeSet,
    /// Blocks of maps.
    nodes: HashSet<u64>,
}

impl Walk<'_> {
    fn reach(&mut self, blocks: Range<u64>, reach: Reach, owner_kind: &'static str, owner: u64) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let count = blocks.end.saturating_sub(blocks.start);
        let range = self.volume.superblock.bytes_of(blocks.start, count);
        (self.visit)(Reached { range, reach, owner_kind, owner })
    }

    fn group_metadata(&mut self, number: u64) -> Result<()> {
        let superblock = &self.volume.superblock;
        let group = self.volume.group(number)?;
        let base = superblock.base_blocks(number);
        let table = group.inode_table..group.inode_table.saturating_add(superblock.inode_table_blocks());
        for blocks in [base, one(group.block_bitmap), one(group.inode_bitmap), table] {
            self.reach(blocks, Reach::Metadata, "group", number)?;
        }
        Ok(())
    }

    /// Reads the part of a group's inode table that can be in use.
    fn inode_table(&mut self, number: u64) -> Result<()> {
        let volume = self.volume;
        let superblock = &volume.superblock;
        let group = volume.group(number)?;
        let inode_len = u64::try_from(superblock.inode_size).unwrap_or(u64::MAX);
        let start = volume.offset_of(group.inode_table);
        let end = start.saturating_add(group.inodes_used.saturating_mul(inode_len));
        let first = number.saturating_mul(superblock.inodes_per_group).saturating_add(1);
        let mut at = start;
        while at < end {
            let extent = volume.disk.extent_at(at)?;
            let extent_end = extent.end().min(end);
            if matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent) {
                // Whole inodes of zeros are not in use; the one across the border is read.
                let inodes = extent_end.saturating_sub(start).checked_div(inode_len).unwrap_or(0);
                let skip = start.saturating_add(inodes.saturating_mul(inode_len));
                if skip > at {
                    at = skip;
                    continue;
                }
            }
            let len = end.saturating_sub(at).min(PIECE);
            let bytes = read_vec(&volume.disk, at, usize::try_from(len).expect("at most a piece"))?;
            let index = at.saturating_sub(start).checked_div(inode_len).unwrap_or(0);
            for (index, raw) in (index..).zip(bytes.chunks_exact(superblock.inode_size)) {
                let inode = u32::try_from(first.saturating_add(index)).expect("the number of inodes has 32 bits");
                if is_in_use(inode, raw) {
                    let offset = start.saturating_add(index.saturating_mul(inode_len));
                    self.inode(inode, raw, offset)?;
                }
            }
            at = at.saturating_add(len);
        }
        Ok(())
    }

    fn inode(&mut self, number: u32, raw: &[u8], offset: u64) -> Result<()> {
        let volume = self.volume;
        let superblock = &volume.superblock;
        let inode = match Inode::parse(raw, number, superblock, offset) {
            Ok(inode) => inode,
            // A table that was not zeroed when the filesystem was made can hold inodes of another one. If this one is ours and damaged,
            // something names it, and the walk fails at its end.
            Err(_) if superblock.has_metadata_csum() && number > number::ROOT => return Ok(()),
            Err(error) => return Err(error),
        };
        self.used.insert(number);
        let is_folder = inode.file_type() == file_type::DIRECTORY;
        let content = if number >= superblock.first_ino && !is_folder { Reach::Content } else { Reach::Metadata };
        let owner = u64::from(number);
        // The visitor wants `self`, so the map's own set of blocks is lent to it.
        let mut nodes = std::mem::take(&mut self.nodes);
        let followed = volume.follow(&inode, &mut nodes, &mut |piece| match piece {
            Piece::Node(block) => self.reach(one(block), Reach::Metadata, "inode", owner),
            Piece::Run(run) => self.reach(run.physical..run.physical.saturating_add(run.len), content, "inode", owner),
        });
        self.nodes = nodes;
        followed?;
        if is_folder {
            volume.folder_entries(&inode, &mut |entry| {
                self.named.insert(entry.inode);
                ControlFlow::Continue(())
            })?;
        }
        self.xattrs(&inode)
    }

    fn xattrs(&mut self, inode: &Inode) -> Result<()> {
        let volume = self.volume;
        let corrupt = |reason| inode.corrupt(volume.offset_of(inode.file_acl), reason);
        if let Some(block) = volume.xattr_block_number(inode)? {
            self.reach(one(block), Reach::Metadata, "inode", u64::from(inode.number))?;
        }
        // Otherwise values lie beside their names, and the block need not be read.
        if volume.superblock.incompat & incompat::EA_INODE != 0 {
            let block = volume.xattr_block(inode)?;
            let block = block.as_deref().map(xattr::in_block).transpose().map_err(corrupt)?.unwrap_or_default();
            for xattr in xattr::in_inode(inode).map_err(corrupt)?.into_iter().chain(block) {
                if let Place::Inode(value) = xattr.place {
                    self.named.insert(value);
                }
            }
        }
        Ok(())
    }
}

/// The range of one block.
fn one(block: u64) -> Range<u64> {
    block..block.saturating_add(1)
}

impl Volume {
    /// Fails where the filesystem is not at rest. Reads the superblock of the journal and the block of multi-mount protection.
    fn activity_doubts(&self) -> Result<Vec<String>> {
        let superblock = &self.superblock;
        let mut doubts = Vec::new();
        if superblock.compat & compat::HAS_JOURNAL != 0 {
            if superblock.journal_inum == 0 {
                doubts.push("the journal is on another device".to_owned());
            } else {
                let journal = self.inode(superblock.journal_inum)?;
                let mut first = None;
                self.follow(&journal, &mut HashSet::new(), &mut |piece| {
                    if let Piece::Run(Run { logical: 0, physical, .. }) = piece {
                        first = Some(physical);
                    }
                    Ok(())
                })?;
                let first = first.ok_or_else(|| journal.corrupt(0, "the journal has no blocks"))?;
                let header = read_vec(&self.disk, self.offset_of(first), 1024)?;
                // h_magic, s_start, s_errno: big-endian, unlike everything else.
                if be32(&header, 0) != Some(0xc03b_3998) {
                    doubts.push("the journal has no superblock".into());
                } else if be32(&header, 0x1c) != Some(0) {
                    doubts.push("the journal holds changes that are not replayed".into());
                } else if be32(&header, 0x20) != Some(0) {
                    doubts.push("the journal was ended by an error".into());
                }
            }
        }
        if superblock.incompat & incompat::MMP != 0 {
            if !superblock.holds(superblock.mmp_block, 1) {
                doubts.push("the block of multi-mount protection lies outside of the filesystem".to_owned());
            } else {
                // mmp_seq
                let sequence = le32(&read_vec(&self.disk, self.offset_of(superblock.mmp_block), 1024)?, 4);
                if sequence != Some(MMP_CLEAN) {
                    doubts.push("multi-mount protection says that it is in use".to_owned());
                }
            }
        }
        Ok(doubts)
    }

    /// Clusters of a group that only metadata of its own use, as bits in the form of a bitmap.
    ///
    /// Source: `ext4_init_block_bitmap` of Linux.
    fn computed_bitmap(&self, number: u64) -> Result<Vec<u8>> {
        let superblock = &self.superblock;
        let group = self.group(number)?;
        let (start, end) = (superblock.group_start(number), superblock.group_end(number));
        let mut bitmap = vec![0_u8; usize::try_from(superblock.clusters_per_group() / 8).expect("at most a block")];
        let table = group.inode_table..group.inode_table.saturating_add(superblock.inode_table_blocks());
        for blocks in [superblock.base_blocks(number), one(group.block_bitmap), one(group.inode_bitmap), table] {
            for block in blocks.start.max(start)..blocks.end.min(end) {
                let cluster = block.saturating_sub(start).checked_div(superblock.cluster_blocks).unwrap_or(0);
                let byte = usize::try_from(cluster / 8).ok().and_then(|byte| bitmap.get_mut(byte));
                *byte.expect("inside the group") |= 1 << (cluster % 8);
            }
        }
        Ok(bitmap)
    }

    /// The block bitmap of a group, one bit for each cluster, held against its checksum and against the count of free clusters.
    fn bitmap(&self, number: u64) -> Result<Vec<u8>> {
        let superblock = &self.superblock;
        let group = self.group(number)?;
        let offset = self.offset_of(group.block_bitmap);
        let corrupt = |reason| Error::corrupt(format_args!("ext block bitmap of group {number}"), offset, reason);
        let len = usize::try_from(superblock.clusters_per_group() / 8).expect("at most a block");
        let bitmap = if group.block_uninit {
            self.computed_bitmap(number)?
        } else {
            let bitmap = read_vec(&self.disk, offset, len)?;
            let (stored, mask) = group.block_bitmap_csum;
            if superblock.has_metadata_csum() && crc32c::update(superblock.csum_seed, &bitmap) & mask != stored {
                return Err(corrupt("its checksum does not match"));
            }
            bitmap
        };
        let blocks = superblock.group_end(number).saturating_sub(superblock.group_start(number));
        let clusters = blocks.div_ceil(superblock.cluster_blocks.max(1));
        if clusters.saturating_sub(count_ones(&bitmap, clusters)) != group.free_clusters {
            return Err(corrupt("the count of free blocks does not match it"));
        }
        Ok(bitmap)
    }
}

/// Set bits among the first `count`.
fn count_ones(bitmap: &[u8], count: u64) -> u64 {
    let whole = usize::try_from(count / 8).unwrap_or(usize::MAX).min(bitmap.len());
    let (full, rest) = bitmap.split_at(whole);
    let ones = full.iter().fold(0_u64, |sum, byte| sum.saturating_add(u64::from(byte.count_ones())));
    let partial = rest.first().map_or(0, |byte| byte & !(0xff_u8 << (count % 8)));
    ones.saturating_add(u64::from(partial.count_ones()))
}

impl UsedBlocks for Volume {
    fn summary(&self) -> Summary {
        Summary {
            kind: self.superblock.kind(),
            label: String::from_utf8_lossy(&self.superblock.volume_name).into_owned(),
            id: self.superblock.uuid_text(),
            block_size: self.superblock.block_size,
            len: self.superblock.blocks_count.saturating_mul(self.superblock.block_size),
        }
    }

    fn doubts(&self) -> Result<Vec<String>> {
        let superblock = &self.superblock;
        let mut doubts = Vec::new();
        for feature in superblock.unknown_incompat().into_iter().chain(superblock.unknown_ro_compat()) {
            doubts.push(format!("the feature {feature} is not known"));
        }
        if !doubts.is_empty() {
            // What they change, nobody knows: nothing else is looked at.
            return Ok(doubts);
        }
        if superblock.incompat & incompat::RECOVER != 0 {
            doubts.push("the journal must be replayed (needs_recovery)".into());
        }
        if superblock.state & 1 == 0 {
            doubts.push("it was not unmounted cleanly, or is mounted".into());
        }
        if superblock.state & 2 != 0 || superblock.error_count != 0 {
            doubts.push("errors were found in it and not repaired".into());
        }
        let orphans = superblock.last_orphan != 0 || superblock.ro_compat & ro_compat::ORPHAN_PRESENT != 0;
        if superblock.state & 4 != 0 || orphans {
            doubts.push("deleted files wait to be freed (orphans)".into());
        }
        doubts.extend(self.activity_doubts()?);
        Ok(doubts)
    }

    fn allocated(&self) -> Result<RangeSet> {
        let superblock = &self.superblock;
        let first = superblock.first_data_block;
        let clusters = superblock.blocks_count.saturating_sub(first).div_ceil(superblock.cluster_blocks.max(1));
        let cluster_len = superblock.cluster_blocks.saturating_mul(superblock.block_size);
        let mut used = UsedUnits::starting_at(self.offset_of(first), cluster_len, clusters);
        for group in 0..superblock.groups() {
            used.push(&self.bitmap(group)?);
        }
        // The last cluster may reach past the last block, where the rest of the partition is kept anyway.
        let end = superblock.blocks_count.saturating_mul(superblock.block_size);
        let mut set = RangeSet::from_range(0..self.offset_of(first));
        for range in used.finish().clipped(end).iter() {
            set.push(range);
        }
        set.push(end..self.disk.len());
        Ok(set)
    }

    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()> {
        let superblock = &self.superblock;
        let mut walk =
            Walk { volume: self, visit, used: InodeSet::default(), named: InodeSet::default(), nodes: HashSet::new() };
        // The boot block and the superblock; with larger blocks they are one block.
        walk.reach(0..2048_u64.div_ceil(superblock.block_size), Reach::Metadata, "superblock", 0)?;
        if superblock.incompat & incompat::MMP != 0 {
            if !superblock.holds(superblock.mmp_block, 1) {
                return Err(Error::corrupt("ext superblock", 1024, "its block of multi-mount protection lies outside"));
            }
            walk.reach(one(superblock.mmp_block), Reach::Metadata, "superblock", 0)?;
        }
        for group in 0..superblock.groups() {
            walk.group_metadata(group)?;
        }
        for group in 0..superblock.groups() {
            walk.inode_table(group)?;
        }
        for inode in superblock.own_inodes.iter().chain([&number::ROOT]) {
            walk.named.insert(*inode);
        }
        match walk.named.first_not_in(&walk.used) {
            Some(inode) => Err(self
                .inode(inode)
                .err()
                .unwrap_or_else(|| Error::corrupt(format_args!("ext inode {inode}"), 0, "it is named but not in use"))),
            None => Ok(()),
        }
    }

    fn elidable(&self) -> Result<Vec<Elidable>> {
        // Swap files have no fixed name, and a header that any file may have: they are kept.
        Ok(Vec::new())
    }

    fn path_of(&self, owner: u64) -> Result<Option<String>> {
        let Ok(wanted) = u32::try_from(owner) else { return Ok(None) };
        if wanted == number::ROOT {
            return Ok(Some(String::new()));
        }
        // Folders by number, with their parent and their name in it.
        let mut folders: HashMap<u32, (u32, Vec<u8>)> = HashMap::new();
        let mut queue = VecDeque::from([number::ROOT]);
        let mut found = None;
        while let Some(folder) = queue.pop_front() {
            // What is damaged elsewhere does not hide a path.
            let Ok(inode) = self.inode(folder) else { continue };
            let _ = self.folder_entries(&inode, &mut |entry| {
                if matches!(entry.name, b"." | b"..") {
                    return ControlFlow::Continue(());
                }
                if entry.inode == wanted {
                    found = Some((folder, entry.name.to_vec()));
                    return ControlFlow::Break(());
                }
                let may_be_folder = matches!(entry.file_type, 0 | 2);
                if may_be_folder && folders.len() < MAX_FOLDERS && !folders.contains_key(&entry.inode) {
                    let is_folder = entry.file_type == 2
                        || self.inode(entry.inode).is_ok_and(|inode| inode.file_type() == file_type::DIRECTORY);
                    if is_folder {
                        folders.insert(entry.inode, (folder, entry.name.to_vec()));
                        queue.push_back(entry.inode);
                    }
                }
                ControlFlow::Continue(())
            });
            if found.is_some() {
                break;
            }
        }
        let Some((mut parent, name)) = found else { return Ok(None) };
        let mut parts = vec![name];
        while parent != number::ROOT && parts.len() < MAX_FOLDERS {
            let Some((above, name)) = folders.get(&parent) else { return Ok(None) };
            parts.push(name.clone());
            parent = *above;
        }
        parts.reverse();
        Ok(Some(String::from_utf8_lossy(&parts.join(&b'/')).into_owned()))
    }
}
