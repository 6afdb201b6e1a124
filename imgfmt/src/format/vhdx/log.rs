//! The log: which entries are to be replayed, and what they change.
//!
//! Source: [MS-VHDX] 2.3.

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::error::Result;
use crate::format::file::ImageFile;
use crate::format::vhdx::crc32c::Crc32c;
use crate::format::vhdx::layout::{HeaderRaw, LOG_SECTOR, LogDescriptorRaw, LogEntryRaw};
use crate::format::vhdx::replay::{Change, Changes};

const LOG: &str = "VHDX log";
/// Longest log that is replayed, in bytes.
const MAX_LOG: u64 = 64 << 20;
/// Bytes that are checked for entries, as a multiple of the log. Entries follow one another, and what is left of earlier rounds is cut by
/// later ones, so an honest log needs four at most.
const EFFORT: u64 = 8;

/// The log as a ring of sectors.
struct Ring<'a> {
    file: &'a ImageFile,
    /// Where it lies in the file.
    start: u64,
    len: u64,
    guid: [u8; 16],
    /// Bytes that may still be checked.
    effort: u64,
}

/// A valid entry.
#[derive(Clone, Copy)]
struct Entry {
    /// Where it lies in the ring.
    at: u64,
    raw: LogEntryRaw,
}

/// Returns what the log changes; `None` where there is nothing to replay.
pub(super) fn replay(file: &ImageFile, header: &HeaderRaw) -> Result<Option<Changes>> {
    if Uuid::from_bytes(header.log_guid).is_nil() {
        return Ok(None);
    }
    let (start, len) = (header.log_offset.get(), u64::from(header.log_length.get()));
    if header.log_version.get() != 0 {
        return Err(file.unsupported(format_args!("version {} of the VHDX log", header.log_version.get())));
    }
    if len == 0 || !len.is_multiple_of(1 << 20) || !start.is_multiple_of(1 << 20) || start == 0 {
        return Err(file.corrupt(LOG, start, "its place or length is no multiple of a megabyte"));
    }
    file.check(LOG, start, len)?;
    if len > MAX_LOG {
        return Err(file.unsupported("a log longer than 64 MiB"));
    }
    let mut ring = Ring { file, start, len, guid: header.log_guid, effort: len.saturating_mul(EFFORT) };
    let active = ring.active_sequence()?;
    let mut changes = Changes::default();
    for entry in &active {
        ring.apply(entry, &mut changes)?;
    }
    Ok(Some(changes))
}

impl Ring<'_> {
    /// The place in the file of a place in the ring.
    fn place(&self, at: u64) -> u64 {
        self.start.saturating_add(at.checked_rem(self.len).expect("the length is not 0"))
    }

    fn sector(&self, at: u64) -> Result<Vec<u8>> {
        self.file.read_vec(LOG, self.place(at), 4096)
    }

    /// The newest sequence of valid entries that is complete, from the entry at its tail on.
    ///
    /// Source: [MS-VHDX] 2.3.3.
    fn active_sequence(&mut self) -> Result<Vec<Entry>> {
        let mut best: Vec<Entry> = Vec::new();
        let mut tail = 0;
        while tail < self.len {
            let sequence = self.sequence_at(tail)?;
            let Some(head) = sequence.last().copied() else {
                tail = tail.saturating_add(LOG_SECTOR);
                continue;
            };
            let is_newer = best.last().is_none_or(|best| head.raw.sequence_number > best.raw.sequence_number);
            let oldest = sequence.iter().position(|entry| entry.at == u64::from(head.raw.tail.get()));
            if let Some(oldest) = oldest.filter(|_| is_newer) {
                best = sequence.get(oldest..).unwrap_or_default().to_vec();
            }
            // Entries that do not overlap follow this sequence, or a new one starts at the next sector of the ring.
            tail = head.at.saturating_add(head.raw.entry_length.get().into()).max(tail.saturating_add(LOG_SECTOR));
            if head.at < sequence.first().map_or(0, |first| first.at) {
                break;
            }
        }
        if best.is_empty() {
            return Err(self.file.corrupt(LOG, self.start, "it should hold entries, and none is whole"));
        }
        Ok(best)
    }

    /// The valid entries that follow one another from `tail` on.
    fn sequence_at(&mut self, tail: u64) -> Result<Vec<Entry>> {
        let mut sequence: Vec<Entry> = Vec::new();
        let (mut at, mut total) = (tail, 0_u64);
        while let Some(raw) = self.entry_at(at)? {
            let expected = sequence.last().map(|last| last.raw.sequence_number.get().wrapping_add(1));
            let len = u64::from(raw.entry_length.get());
            total = total.saturating_add(len);
            if expected.is_some_and(|expected| raw.sequence_number.get() != expected) || total > self.len {
                break;
            }
            sequence.push(Entry { at: at.checked_rem(self.len).expect("the length is not 0"), raw });
            at = at.saturating_add(len);
        }
        Ok(sequence)
    }

    /// The entry at a place, where there is a valid one.
    fn entry_at(&mut self, at: u64) -> Result<Option<LogEntryRaw>> {
        let first = self.sector(at)?;
        let (raw, _) = LogEntryRaw::read_from_prefix(&first).expect("a sector is longer");
        let len = u64::from(raw.entry_length.get());
        let tail = u64::from(raw.tail.get());
        let head_len =
            u64::from(raw.descriptor_count.get()).saturating_mul(32).saturating_add(64).next_multiple_of(LOG_SECTOR);
        let plausible = raw.signature == *b"loge"
            && raw.log_guid == self.guid
            && raw.sequence_number.get() != 0
            && (len >= LOG_SECTOR && len.is_multiple_of(LOG_SECTOR) && len <= self.len)
            && (tail.is_multiple_of(LOG_SECTOR) && tail < self.len)
            && head_len <= len;
        if !plausible {
            return Ok(None);
        }
        self.effort =
            self.effort.checked_sub(len).ok_or_else(|| self.file.corrupt(LOG, self.start, "its entries overlap"))?;
        let mut crc = Crc32c::start();
        let mut data_sectors = 0_u64;
        for part in (0..len).step_by(4096) {
            self.effort = self.effort.saturating_sub(LOG_SECTOR);
            if self.effort == 0 {
                return Err(self.file.corrupt(LOG, self.start, "its entries overlap"));
            }
            let mut sector = self.sector(at.saturating_add(part))?;
            if part == 0 {
                sector.get_mut(4..8).expect("a sector is longer").fill(0);
            }
            crc.update(&sector);
            if part >= head_len {
                if !is_data_sector(&sector, raw.sequence_number.get()) {
                    return Ok(None);
                }
                data_sectors = data_sectors.saturating_add(1);
            }
        }
        if crc.finish() != raw.checksum.get() {
            return Ok(None);
        }
        let mut wanted = 0_u64;
        let mut valid = true;
        self.descriptors(at, &raw, |descriptor| {
            valid &= descriptor.sequence_number == raw.sequence_number && is_descriptor(descriptor);
            wanted = wanted.saturating_add(u64::from(descriptor.signature == *b"desc"));
            Ok(())
        })?;
        Ok((valid && wanted == data_sectors).then_some(raw))
    }

    /// Calls `visit` for each descriptor of an entry.
    fn descriptors(
        &self,
        at: u64,
        raw: &LogEntryRaw,
        mut visit: impl FnMut(&LogDescriptorRaw) -> Result<()>,
    ) -> Result<()> {
        let mut left = raw.descriptor_count.get();
        let mut part = 0_u64;
        while left > 0 {
            let sector = self.sector(at.saturating_add(part))?;
            let from = if part == 0 { 64 } else { 0 };
            for bytes in sector.get(from..).unwrap_or_default().chunks_exact(32) {
                let Some(next) = left.checked_sub(1) else { break };
                left = next;
                visit(&LogDescriptorRaw::read_from_bytes(bytes).expect("as many bytes as it has"))?;
            }
            part = part.saturating_add(LOG_SECTOR);
        }
        Ok(())
    }

    /// Adds what an entry changes.
    fn apply(&self, entry: &Entry, changes: &mut Changes) -> Result<()> {
        let raw = &entry.raw;
        let flushed = raw.flushed_file_offset.get();
        if flushed > self.file.len() {
            return Err(self.file.corrupt(
                LOG,
                self.place(entry.at),
                "the file is shorter than it was when this was written",
            ));
        }
        changes.lengthen(raw.last_file_offset.get());
        let head_len =
            u64::from(raw.descriptor_count.get()).saturating_mul(32).saturating_add(64).next_multiple_of(LOG_SECTOR);
        let mut data_at = entry.at.saturating_add(head_len);
        self.descriptors(entry.at, raw, |descriptor| {
            let start = descriptor.file_offset.get();
            if descriptor.signature == *b"zero" {
                let end = start.saturating_add(u64::from_le_bytes(descriptor.leading_bytes));
                changes.put(start, end, Change::Zero);
            } else {
                let (leading, trailing) = (descriptor.leading_bytes, descriptor.trailing_bytes);
                let change = Change::Sector { leading, data_at: self.place(data_at), trailing };
                changes.put(start, start.saturating_add(LOG_SECTOR), change);
                changes.lengthen(start.saturating_add(LOG_SECTOR));
                data_at = data_at.saturating_add(LOG_SECTOR);
            }
            Ok(())
        })
    }
}

/// Says whether a descriptor makes sense: places and lengths are whole sectors, and nothing reaches past what a file can have.
fn is_descriptor(descriptor: &LogDescriptorRaw) -> bool {
    let start = descriptor.file_offset.get();
    let len = match &descriptor.signature {
        b"desc" => LOG_SECTOR,
        b"zero" => u64::from_le_bytes(descriptor.leading_bytes),
        _ => return false,
    };
    let end = start.checked_add(len).and_then(|end| i64::try_from(end).ok());
    len > 0 && len.is_multiple_of(LOG_SECTOR) && start.is_multiple_of(LOG_SECTOR) && end.is_some()
}

/// Says whether a sector holds data of the entry with this sequence number.
fn is_data_sector(sector: &[u8], sequence_number: u64) -> bool {
    let word = |at: usize| crate::bytes::le32(sector, at).map(u64::from).unwrap_or(0);
    sector.starts_with(b"data") && (word(4) << 32 | word(4092)) == sequence_number
}
