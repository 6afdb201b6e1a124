//! The journal (jbd2): which blocks of the filesystem have newer versions in it.
//!
//! Sources: "Ext4 Data Structures and Algorithms", "Journal (jbd2)", and `fs/jbd2/recovery.c` of Linux for what ends a log. All numbers are
//! big-endian, unlike those of the filesystem.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::bytes::{be16, be32, be64, le16, le32, u8_at};
use crate::crc32c;
use crate::disk::read_vec;
use crate::error::{Error, Result};
use crate::filesystem::ext::checksum::{crc32_be, crc32c_without};
use crate::filesystem::ext::inode::Inode;
use crate::filesystem::ext::map::{Piece, Run};
use crate::filesystem::ext::replay::{Logged, MAGIC};
use crate::filesystem::ext::volume::Volume;

/// Types of blocks in the log.
mod block_type {
    pub(super) const DESCRIPTOR: u32 = 1;
    pub(super) const COMMIT: u32 = 2;
    pub(super) const SUPERBLOCK_V1: u32 = 3;
    pub(super) const SUPERBLOCK_V2: u32 = 4;
    pub(super) const REVOKE: u32 = 5;
}

/// Incompatible features, and a compatible one.
mod feature {
    pub(super) const BIT64: u32 = 0x2;
    pub(super) const ASYNC_COMMIT: u32 = 0x4;
    pub(super) const CSUM_V2: u32 = 0x8;
    pub(super) const CSUM_V3: u32 = 0x10;
    pub(super) const FAST_COMMIT: u32 = 0x20;
    pub(super) const KNOWN: u32 = 0x3f;
    /// Compatible: a checksum of whole transactions.
    pub(super) const CHECKSUM: u32 = 0x1;
}

/// Flags of a tag: which block of the filesystem a block of the log is.
mod tag_flag {
    pub(super) const ESCAPED: u32 = 0x1;
    pub(super) const SAME_UUID: u32 = 0x2;
    pub(super) const LAST: u32 = 0x8;
}

/// Bytes of the header of a block in the log.
const HEADER: usize = 12;
/// Blocks of the log of fast commits, where the superblock does not say.
const FAST_COMMIT_BLOCKS: u32 = 256;
/// Blocks that a log must have besides.
const MIN_BLOCKS: u32 = 1024;
/// The first tag of fast commits.
const FAST_COMMIT_HEAD: u16 = 9;

/// How blocks of the log are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    None,
    /// A CRC-32 of each transaction in its commit block.
    V1,
    /// CRC-32C of each block, the lower half of it in tags.
    V2,
    /// CRC-32C of each block.
    V3,
}

/// An open journal.
struct Journal<'a> {
    volume: &'a Volume,
    inode: Inode,
    runs: Vec<Run>,
    /// First block of the log.
    first: u32,
    /// First block after the log.
    end: u32,
    /// Where the log starts to count; 0 where it is empty.
    start: u32,
    /// Number of the first transaction.
    sequence: u32,
    checks: Checks,
    incompat: u32,
    csum_seed: u32,
}

/// The blocks of a filesystem that have newer versions in its journal. Fails where the journal cannot be replayed as a whole.
pub(super) fn logged_blocks(volume: &Volume) -> Result<BTreeMap<u64, Logged>> {
    let journal = Journal::open(volume)?;
    if journal.start == 0 {
        return Ok(BTreeMap::new());
    }
    let mut log = Log::default();
    let next = journal.scan(&mut log)?;
    journal.refuse_fast_commits(next)?;
    journal.newest(log)
}

/// A block of the log that is a newer version of a block of the filesystem.
struct Entry {
    /// The block of the filesystem.
    block: u64,
    /// The block of the journal, in the journal's own numbers.
    logged: u32,
    sequence: u32,
    escaped: bool,
    checksum: u32,
}

/// What complete transactions say.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    /// Blocks of the filesystem that must not be replayed from this transaction and those before it.
    revoked: HashMap<u64, u32>,
}

/// A transaction whose commit block has not been read yet.
struct Pending {
    entries: Vec<Entry>,
    revoked: Vec<u64>,
    /// CRC-32 of its descriptors and blocks (version 1).
    crc: u32,
    /// A checksum was wrong: either the log ends here, in the remains of an older one, or it is damaged.
    damaged: bool,
}

impl Default for Pending {
    fn default() -> Self {
        Self { entries: Vec::new(), revoked: Vec::new(), crc: !0, damaged: false }
    }
}

impl<'a> Journal<'a> {
    fn open(volume: &'a Volume) -> Result<Self> {
        let superblock = &volume.superblock;
        if superblock.journal_inum == 0 {
            return Err(Error::unsupported("ext superblock", "the journal to replay is on another device"));
        }
        let inode = volume.inode(superblock.journal_inum)?;
        let mut runs: Vec<Run> = Vec::new();
        let mut blocks = 0;
        volume.follow(&inode, &mut HashSet::new(), &mut |piece| {
            if let Piece::Run(run) = piece {
                if run.logical != blocks || !run.written {
                    return Err(inode.corrupt(0, "the journal has a hole"));
                }
                blocks = run.logical.saturating_add(run.len);
                runs.push(run);
            }
            Ok(())
        })?;
        let corrupt = |reason| Error::corrupt("ext journal superblock", 0, reason);
        let first = runs.first().ok_or_else(|| corrupt("it is not there"))?;
        let bytes = read_vec(&volume.disk, volume.offset_of(first.physical), 1024)?;
        let word = |at| be32(&bytes, at).expect("1024 bytes were read");
        if !bytes.starts_with(&MAGIC) {
            return Err(corrupt("it has no magic number"));
        }
        // Version 1 has no features.
        let (compat, incompat) = match word(4) {
            block_type::SUPERBLOCK_V1 => (0, 0),
            block_type::SUPERBLOCK_V2 => (word(0x24), word(0x28)),
            _ => return Err(corrupt("it is none")),
        };
        let unknown = incompat & !feature::KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported("ext journal superblock", format_args!("features {unknown:#x}")));
        }
        let checks = match (incompat & feature::CSUM_V3 != 0, incompat & feature::CSUM_V2 != 0) {
            (true, _) => Checks::V3,
            (_, true) => Checks::V2,
            _ if compat & feature::CHECKSUM != 0 => Checks::V1,
            _ => Checks::None,
        };
        if matches!(checks, Checks::V2 | Checks::V3) {
            if u8_at(&bytes, 0x50) != Some(4) {
                return Err(Error::unsupported("ext journal superblock", "its kind of checksum"));
            }
            if crc32c_without(!0, &bytes, &[(0xfc, 4)]) != word(0xfc) {
                return Err(corrupt("its checksum does not match"));
            }
        }
        // s_blocksize, s_maxlen, s_first, s_start
        let (maxlen, first, start) = (word(0x10), word(0x14), word(0x1c));
        if u64::from(word(0x0c)) != superblock.block_size || u64::from(maxlen) > blocks {
            return Err(corrupt("its sizes do not fit the filesystem"));
        }
        let mut end = maxlen;
        if incompat & feature::FAST_COMMIT != 0 {
            let fast = match word(0x54) {
                0 => FAST_COMMIT_BLOCKS,
                count => count,
            };
            end = maxlen.checked_sub(fast).filter(|end| *end >= MIN_BLOCKS).unwrap_or(maxlen);
        }
        if first == 0 || first >= end || (start != 0 && !(first..end).contains(&start)) {
            return Err(corrupt("its log lies outside of it"));
        }
        let csum_seed = crc32c::update(!0, bytes.get(0x30..0x40).expect("1024 bytes were read"));
        Ok(Self { volume, inode, runs, first, end, start, sequence: word(0x18), checks, incompat, csum_seed })
    }

    fn has_block_checksums(&self) -> bool {
        matches!(self.checks, Checks::V2 | Checks::V3)
    }

    /// The block of the filesystem that is block `number` of the journal.
    fn place(&self, number: u32) -> Result<u64> {
        let number = u64::from(number);
        let next = self.runs.partition_point(|run| run.logical <= number);
        let run = next.checked_sub(1).and_then(|at| self.runs.get(at));
        let within = run.and_then(|run| {
            let within = number.checked_sub(run.logical)?;
            (within < run.len).then(|| run.physical.saturating_add(within))
        });
        within.ok_or_else(|| self.inode.corrupt(0, "the journal is shorter than it says"))
    }

    fn block(&self, number: u32) -> Result<Vec<u8>> {
        read_vec(&self.volume.disk, self.volume.offset_of(self.place(number)?), self.volume.block_len())
    }

    fn corrupt(&self, number: u32, reason: &'static str) -> Error {
        let offset = self.place(number).map_or(0, |block| self.volume.offset_of(block));
        Error::corrupt(format_args!("ext journal block {number}"), offset, reason)
    }

    /// The block of the log after `number`.
    fn after(&self, number: u32) -> u32 {
        let next = number.saturating_add(1);
        if next >= self.end { self.first } else { next }
    }

    /// Reads the log up to its end, and returns the number of the transaction that would come next.
    fn scan(&self, log: &mut Log) -> Result<u32> {
        let mut at = self.start;
        let mut sequence = self.sequence;
        let mut pending = Pending::default();
        let mut last_commit = 0;
        // The log cannot be longer than it is: a hostile one that goes around ends here.
        let mut left = self.end.saturating_sub(self.first);
        while left > 0 {
            left = left.saturating_sub(1);
            let block = self.block(at)?;
            if !block.starts_with(&MAGIC) || be32(&block, 8) != Some(sequence) {
                break;
            }
            let here = at;
            at = self.after(at);
            match be32(&block, 4) {
                Some(block_type::DESCRIPTOR) => {
                    pending.damaged |= self.has_block_checksums() && !self.check_tail(&block);
                    if self.checks == Checks::V1 {
                        pending.crc = crc32_be(pending.crc, &block);
                    }
                    for mut entry in self.tags(&block, sequence) {
                        entry.logged = at;
                        if self.checks == Checks::V1 {
                            pending.crc = crc32_be(pending.crc, &self.block(at)?);
                        }
                        pending.entries.push(entry);
                        at = self.after(at);
                        left = left.saturating_sub(1);
                    }
                }
                Some(block_type::REVOKE) => {
                    pending.damaged |= self.has_block_checksums() && !self.check_tail(&block);
                    self.revoke(&block, &mut pending.revoked).map_err(|reason| self.corrupt(here, reason))?;
                }
                Some(block_type::COMMIT) => {
                    let time = be64(&block, 48).unwrap_or(0);
                    if pending.damaged || !self.check_commit(&block, pending.crc) {
                        // Remains of an older log, with the right number by chance; or a commit that never came to its end.
                        if time < last_commit || self.incompat & feature::ASYNC_COMMIT != 0 {
                            break;
                        }
                        return Err(self.corrupt(here, "a transaction does not match its checksum"));
                    }
                    last_commit = time;
                    let transaction = std::mem::take(&mut pending);
                    log.entries.extend(transaction.entries);
                    log.revoked.extend(transaction.revoked.into_iter().map(|block| (block, sequence)));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        Ok(sequence)
    }

    /// Checks the checksum in the last four bytes of a descriptor or a revoke block.
    fn check_tail(&self, block: &[u8]) -> bool {
        let tail = block.len().saturating_sub(4);
        be32(block, tail) == Some(crc32c_without(self.csum_seed, block, &[(tail, 4)]))
    }

    fn check_commit(&self, block: &[u8], crc: u32) -> bool {
        let stored = be32(block, 16);
        match self.checks {
            Checks::None => true,
            Checks::V2 | Checks::V3 => stored == Some(crc32c_without(self.csum_seed, block, &[(16, 4)])),
            // h_chksum_type and h_chksum_size: CRC-32 with four bytes, or none.
            Checks::V1 => match (u8_at(block, 12), u8_at(block, 13)) {
                (Some(1), Some(4)) => stored == Some(crc),
                (Some(0), Some(0)) => stored == Some(0),
                _ => false,
            },
        }
    }

    /// The blocks that a descriptor says the blocks behind it are.
    fn tags(&self, block: &[u8], sequence: u32) -> Vec<Entry> {
        let is_64bit = self.incompat & feature::BIT64 != 0;
        let len = match (self.checks, is_64bit) {
            (Checks::V3, _) => 16,
            // The checksum makes tags two bytes longer, though it has its place without.
            (Checks::V2, true) => 14,
            (Checks::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        };
        let end = block.len().saturating_sub(if self.has_block_checksums() { 4 } else { 0 });
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at.saturating_add(len) <= end {
            let word = |offset| be32(block, at.saturating_add(offset)).unwrap_or(0);
            let half = |offset| u32::from(be16(block, at.saturating_add(offset)).unwrap_or(0));
            let (flags, checksum) = if self.checks == Checks::V3 { (word(4), word(12)) } else { (half(6), half(4)) };
            let high = if is_64bit { u64::from(word(8)) << 32 } else { 0 };
            let escaped = flags & tag_flag::ESCAPED != 0;
            tags.push(Entry { block: u64::from(word(0)) | high, logged: 0, sequence, escaped, checksum });
            at = at.saturating_add(len);
            if flags & tag_flag::SAME_UUID == 0 {
                at = at.saturating_add(16);
            }
            if flags & tag_flag::LAST != 0 {
                break;
            }
        }
        tags
    }

    fn revoke(&self, block: &[u8], revoked: &mut Vec<u64>) -> Result<(), &'static str> {
        // Whether the superblock knows the feature does not count: the driver may log a revoke block before it writes the flag.
        let end = usize::try_from(be32(block, HEADER).unwrap_or(0)).unwrap_or(usize::MAX);
        let tail = if self.has_block_checksums() { 4 } else { 0 };
        let records = block.get(HEADER.saturating_add(4)..end).filter(|_| end <= block.len().saturating_sub(tail));
        let records = records.ok_or("its number of revoked blocks is out of range")?;
        if self.incompat & feature::BIT64 != 0 {
            revoked.extend(records.as_chunks::<8>().0.iter().map(|record| u64::from_be_bytes(*record)));
        } else {
            revoked.extend(records.as_chunks::<4>().0.iter().map(|record| u64::from(u32::from_be_bytes(*record))));
        }
        Ok(())
    }

    /// Fails where changes were logged by fast commits after the last transaction.
    fn refuse_fast_commits(&self, next: u32) -> Result<()> {
        if self.incompat & feature::FAST_COMMIT == 0 {
            return Ok(());
        }
        // The log of fast commits leaves out a block.
        let Ok(head) = self.block(self.end.saturating_add(1)) else { return Ok(()) };
        // Tag, length, features, and the number of the transaction that they follow: little-endian.
        if le16(&head, 0) == Some(FAST_COMMIT_HEAD) && le32(&head, 8) == Some(next) {
            return Err(Error::unsupported("ext journal", "fast commits that are not replayed"));
        }
        Ok(())
    }

    /// The newest version of each block, but those that must not be replayed.
    fn newest(&self, log: Log) -> Result<BTreeMap<u64, Logged>> {
        let mut newest: BTreeMap<u64, Entry> = BTreeMap::new();
        for entry in log.entries {
            // Numbers of transactions wrap around.
            let is_later = |revoked: u32| entry.sequence.wrapping_sub(revoked).cast_signed() > 0;
            if log.revoked.get(&entry.block).is_none_or(|revoked| is_later(*revoked)) {
                if entry.block >= self.volume.superblock.blocks_count {
                    return Err(self.corrupt(entry.logged, "it belongs outside of the filesystem"));
                }
                newest.insert(entry.block, entry);
            }
        }
        let mut logged = BTreeMap::new();
        for (block, entry) in newest {
            if self.has_block_checksums() {
                let state = crc32c::update(self.csum_seed, &entry.sequence.to_be_bytes());
                let computed = crc32c::update(state, &self.block(entry.logged)?);
                let mask = if self.checks == Checks::V3 { u32::MAX } else { 0xffff };
                if computed & mask != entry.checksum {
                    return Err(self.corrupt(entry.logged, "it does not match its checksum"));
                }
            }
            logged.insert(block, Logged { block: self.place(entry.logged)?, escaped: entry.escaped });
        }
        Ok(logged)
    }
}
