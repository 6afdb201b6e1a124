//! The bytes of a file: in blocks, or in the inode.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::filesystem::ext::inode::{Inode, flag};
use crate::filesystem::ext::map::{Leaf, Piece};
use crate::filesystem::ext::volume::Volume;
use crate::filesystem::ext::xattr;
use crate::filesystem::files::Content;

/// Parts of its map that an open file keeps.
const LEAVES: usize = 8;
/// More pieces than this are not told by [`Content::places`].
const MAX_PLACES: usize = 1 << 20;

/// Opens the content of a file, a directory or a symbolic link that has some.
pub(super) fn open(volume: &Arc<Volume>, inode: Inode) -> Result<Box<dyn Content>> {
    if inode.has(flag::ENCRYPT) {
        return Err(Error::unsupported(format_args!("ext inode {}", inode.number), "its content is encrypted"));
    }
    if inode.has(flag::INLINE_DATA) {
        return Ok(Box::new(Inline::open(volume, &inode)?));
    }
    Ok(Box::new(Mapped { volume: Arc::clone(volume), inode, leaves: Mutex::new(Vec::new()) }))
}

/// Content in the inode: in place of its map, and as the value of an extended attribute.
#[derive(Debug)]
struct Inline {
    /// What is stored; what is behind reads as zero.
    bytes: Vec<u8>,
    len: u64,
    places: Option<Vec<Range<u64>>>,
}

impl Inline {
    fn open(volume: &Volume, inode: &Inode) -> Result<Self> {
        let rest = xattr::inline_rest(inode).map_err(|reason| inode.corrupt(0, reason))?;
        let mut bytes = inode.block.to_vec();
        bytes.extend(rest);
        bytes.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
        let place = volume.inode_place(inode.number)?;
        Ok(Self { bytes, len: inode.size, places: volume.is_in_place(&place).then(|| vec![place]) })
    }
}

impl Content for Inline {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let stored = self.bytes.get(start..).unwrap_or_default();
        let (now, zeros) = buf.split_at_mut(stored.len().min(buf.len()));
        now.copy_from_slice(stored.get(..now.len()).expect("at most as long"));
        zeros.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let stored = buf_len(&self.bytes);
        let (kind, end) = if offset < stored { (ExtentKind::Data, stored) } else { (ExtentKind::Zero, self.len) };
        Ok(Extent { offset, len: end.saturating_sub(offset), kind })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        self.places.clone()
    }
}

/// Content in blocks.
#[derive(Debug)]
struct Mapped {
    volume: Arc<Volume>,
    inode: Inode,
    /// The parts of the map that were used last, the newest at the end.
    leaves: Mutex<Vec<Arc<Leaf>>>,
}

impl Mapped {
    /// The part of the map that holds block `logical` of the file. The lock is never held while the disk is read.
    fn leaf(&self, logical: u64) -> Result<Arc<Leaf>> {
        let lock = || self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut leaves = lock();
            if let Some(at) = leaves.iter().position(|leaf| leaf.range.contains(&logical)) {
                let leaf = leaves.remove(at);
                leaves.push(Arc::clone(&leaf));
                return Ok(leaf);
            }
        }
        let leaf = Arc::new(self.volume.leaf(&self.inode, logical)?);
        let mut leaves = lock();
        if leaves.len() >= LEAVES {
            leaves.remove(0);
        }
        leaves.push(Arc::clone(&leaf));
        Ok(leaf)
    }

    /// Where the byte at `offset` lies in the partition, or `None` where it reads as zero; and how many bytes from there on the same is true of.
    fn place(&self, offset: u64) -> Result<(Option<u64>, u64)> {
        let block_size = self.volume.superblock.block_size;
        let (block, within) = (offset.checked_div(block_size), offset.checked_rem(block_size));
        let (Some(block), Some(within)) = (block, within) else { return Ok((None, u64::MAX)) };
        let (physical, blocks) = self.leaf(block)?.find(block);
        let place = physical.map(|physical| self.volume.offset_of(physical).saturating_add(within));
        Ok((place, blocks.saturating_mul(block_size).saturating_sub(within)))
    }
}

impl Content for Mapped {
    fn len(&self) -> u64 {
        self.inode.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (place, len) = self.place(at)?;
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            match place {
                Some(place) => self.volume.disk.read_at(now, place)?,
                None => now.fill(0),
            }
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let (place, len) = self.place(offset)?;
        let kind = if place.is_some() { ExtentKind::Data } else { ExtentKind::Zero };
        Ok(Extent { offset, len: len.min(self.len().saturating_sub(offset)), kind })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        let volume = &self.volume;
        let block_size = volume.superblock.block_size;
        let blocks = self.len().div_ceil(block_size.max(1));
        let (mut nodes, mut runs, mut next, mut holes) = (Vec::new(), Vec::new(), 0, false);
        let followed = volume.follow(&self.inode, &mut HashSet::new(), &mut |piece| {
            if nodes.len().saturating_add(runs.len()) > MAX_PLACES {
                return Err(Error::Cancelled);
            }
            match piece {
                Piece::Node(block) => nodes.push(volume.superblock.bytes_of(block, 1)),
                Piece::Run(run) if run.logical < blocks => {
                    holes |= run.logical != next || !run.written;
                    next = run.logical.saturating_add(run.len);
                    let place = volume.superblock.bytes_of(run.physical, run.len);
                    let left = self.len().saturating_sub(run.logical.saturating_mul(block_size));
                    if run.written {
                        runs.push(place.start..place.end.min(place.start.saturating_add(left)));
                    }
                }
                Piece::Run(_) => {}
            }
            Ok(())
        });
        followed.ok()?;
        // Where the holes are is told by the map alone.
        let mut places = Vec::new();
        if holes || next < blocks {
            places.push(volume.inode_place(self.inode.number).ok()?);
            places.extend(nodes);
        }
        places.extend(runs);
        places.iter().all(|place| volume.is_in_place(place)).then_some(places)
    }
}
