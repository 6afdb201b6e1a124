//! Which clusters are used: by `$Bitmap`, and by what the MFT reaches.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use crate::bytes::{le16, le64, u8_at};
use crate::error::{Error, Result};
use crate::filesystem::ntfs::attribute::{Stream, Value, Want};
use crate::filesystem::ntfs::index::Index;
use crate::filesystem::ntfs::names::{FileName, I30, to_text};
use crate::filesystem::ntfs::record::{Form, Record, attribute_type, record_number, sequence_number, undo_fixup};
use crate::filesystem::ntfs::volume::{Volume, system_file};
use crate::filesystem::{Elidable, Reach, Reached, Summary, UsedBlocks, bits, elision};
use crate::ranges::RangeSet;

/// Bytes of the MFT and of the bitmap that are read at once.
const PIECE: usize = 1 << 20;
/// Bytes of $Boot.
const BOOT_LEN: u64 = 8192;
/// Folders that a path is followed through.
const MAX_DEPTH: usize = 256;

/// Volume flags that say that the bitmap may be wrong: dirty, resize $LogFile, upgrade on mount, delete USN underway,
/// repair object ids, chkdsk underway.
const UNTRUSTED_FLAGS: u16 = 0x4037;

impl Volume {
    fn cluster_bytes(&self, lcn: u64, len: u64) -> Range<u64> {
        let start = lcn.saturating_mul(self.boot.cluster_size);
        start..start.saturating_add(len.saturating_mul(self.boot.cluster_size))
    }

    /// Calls `visit` for each MFT record in use.
    fn scan_mft(&self, visit: &mut dyn FnMut(u64, &Record<'_>) -> Result<()>) -> Result<()> {
        let in_use = self.value(system_file::MFT, attribute_type::BITMAP, &[])?;
        let in_use = in_use.ok_or_else(|| Error::corrupt("NTFS MFT record 0", 0, "it has no bitmap"))?;
        let record_size = self.boot.record_size;
        let per_piece = u64::try_from(PIECE.checked_div(record_size).unwrap_or(0).max(1)).unwrap_or(1);
        let count = self.record_count();
        let mut first = 0_u64;
        let mut buf = Vec::new();
        while first < count {
            let here = per_piece.min(count.saturating_sub(first));
            let len = usize::try_from(here).unwrap_or(1).saturating_mul(record_size);
            buf.resize(len, 0);
            self.read_stream(&self.mft, &mut buf, first.saturating_mul(u64::try_from(record_size).unwrap_or(0)))?;
            for (number, raw) in (first..).zip(buf.chunks_exact_mut(record_size)) {
                let byte = usize::try_from(number / 8).ok().and_then(|at| in_use.get(at)).copied().unwrap_or(0);
                let marked = byte & (1 << (number % 8)) != 0;
                // Not even FILE: never used, or damaged. The MFT's own bitmap tells which.
                let magic = raw.starts_with(b"FILE");
                if !magic {
                    if marked {
                        let what = format!("NTFS MFT record {number}");
                        return Err(Error::corrupt(what, 0, "it is in use but no record is there"));
                    }
                    continue;
                }
                let flags = le16(raw, 0x16).unwrap_or(0);
                if flags & 1 == 0 && !marked {
                    continue;
                }
                let named = |error: Error| match error {
                    Error::Corrupt { reason, .. } => {
                        Error::corrupt(format_args!("NTFS MFT record {number}"), 0, reason)
                    }
                    other => other,
                };
                if let Some(record) = Record::parse(raw).map_err(named)?
                    && record.in_use
                {
                    visit(number, &record).map_err(|error| match error {
                        Error::Corrupt { structure, reason, offset } => {
                            Error::Corrupt { structure: format!("{structure} in MFT record {number}"), reason, offset }
                        }
                        other => other,
                    })?;
                }
            }
            first = first.saturating_add(here);
        }
        Ok(())
    }

    /// Says what keeps `$LogFile` from being empty; `None` where nothing is to be replayed.
    ///
    /// Source: `ntfs_is_logfile_clean` of ntfs-3g for the meaning of the restart area.
    fn journal_doubt(&self) -> Result<Option<String>> {
        let Some(Value::NonResident(log)) = self.attribute(system_file::LOG_FILE, attribute_type::DATA, &[])? else {
            return Ok(Some("the journal $LogFile has no data".into()));
        };
        let dirty = || Some("the journal $LogFile holds changes that are not replayed".to_owned());
        let mut page = vec![0; 4096];
        let mut newest: Option<(u64, bool)> = None;
        let mut empty = true;
        for (offset, end) in [(0, 4096), (4096, 8192)] {
            if log.data_size < end {
                break;
            }
            self.read_stream(&log, &mut page, offset)?;
            if page.iter().all(|byte| *byte == 0xff) {
                continue;
            }
            empty = false;
            let Ok(Some(())) = undo_fixup_any(&mut page) else { continue };
            let area = usize::from(le16(&page, 0x18).unwrap_or(0));
            let (lsn, in_use, flags) =
                (le64(&page, area), le16(&page, area.saturating_add(12)), le16(&page, area.saturating_add(14)));
            if let (Some(lsn), Some(in_use), Some(flags)) = (lsn, in_use, flags) {
                let clean = in_use == 0xffff || flags & 2 != 0;
                if newest.is_none_or(|(newest, _)| lsn > newest) {
                    newest = Some((lsn, clean));
                }
            }
        }
        Ok(match newest {
            Some((_, true)) => None,
            None if empty => None,
            _ => dirty(),
        })
    }

    /// References and names in the root folder that `matches` takes.
    fn root_entries(&self, matches: &dyn Fn(&str) -> bool) -> Result<Vec<(u64, String)>> {
        let mut entries = Vec::new();
        let root = self.file(system_file::ROOT, &Index::want)?;
        if let Some(index) = Index::open(self, &root, &I30)? {
            index.for_each(self, &mut |entry| {
                let name = FileName::parse(entry.key).map(|name| to_text(name.name));
                entries.extend(name.filter(|name| matches(name)).map(|name| (entry.reference, name)));
                ControlFlow::Continue(())
            })?;
        }
        Ok(entries)
    }

    /// The names of a file and the folders they lie in, long ones before those in 8.3.
    fn names_of(&self, number: u64) -> Result<Vec<OwnName>> {
        let only_names = |of| if of == attribute_type::FILE_NAME { Want::Whole } else { Want::Nothing };
        let file = self.file(number, &only_names)?;
        let mut names: Vec<_> = file
            .attributes
            .iter()
            .filter_map(|attribute| match &attribute.value {
                Value::Resident(value) => FileName::parse(value),
                Value::NonResident(_) => None,
            })
            .map(|name| OwnName { parent: name.parent, is_short: name.is_short, name: to_text(name.name) })
            .collect();
        names.sort_by_key(|name| name.is_short);
        Ok(names)
    }

    fn elidable_file(&self, number: u64, sequence: u16, name: &str) -> Result<Option<Elidable>> {
        let mut bytes = Vec::new();
        // A stale index entry names a record that is free or another file by now.
        let Ok(record) = self.read_record(number, &mut bytes) else { return Ok(None) };
        if record.sequence != sequence {
            return Ok(None);
        }
        // Under a second name it is somebody's file besides.
        let names = self.names_of(number)?;
        let mut long = names.iter().filter(|name| !name.is_short);
        match (long.next(), long.next()) {
            (Some(found), None) if found.parent == system_file::ROOT && found.name.eq_ignore_ascii_case(name) => {}
            _ => return Ok(None),
        }
        let Some(Value::NonResident(stream)) = self.attribute(number, attribute_type::DATA, &[])? else {
            return Ok(None);
        };
        // Compressed, encrypted or sparse: no page file that Windows uses is.
        if stream.flags & 0xc0ff != 0 {
            return Ok(None);
        }
        let ranges = stream.runs.iter().filter_map(|run| Some(self.cluster_bytes(run.lcn?, run.len))).collect();
        let warning = if name == "hiberfil.sys" { self.hibernation_warning(&stream)? } else { None };
        Ok(Some(Elidable { path: name.to_owned(), ranges: RangeSet::from_unsorted(ranges), warning }))
    }

    fn hibernation_warning(&self, stream: &Stream) -> Result<Option<String>> {
        let mut magic = [0; 4];
        if stream.data_size < 4 || stream.initialized_size < 4 {
            return Ok(None);
        }
        self.read_stream(stream, &mut magic, 0)?;
        Ok(elision::hibernation_warning(magic))
    }
}

/// Undoes the fixup of a restart page, whatever its length says, as far as 4096 bytes reach.
fn undo_fixup_any(page: &mut [u8]) -> Result<Option<()>> {
    undo_fixup(page, b"RSTR")
}

/// A name of a file, and the folder it is in.
struct OwnName {
    parent: u64,
    is_short: bool,
    name: String,
}

/// Clusters of an attribute that is in several pieces: found so far, and expected in all.
#[derive(Default)]
struct Coverage {
    found: u64,
    expected: Option<u64>,
}

impl UsedBlocks for Volume {
    fn summary(&self) -> Summary {
        let label = self.value(system_file::VOLUME, attribute_type::VOLUME_NAME, &[]).ok().flatten();
        Summary {
            kind: "NTFS",
            label: to_text(&label.unwrap_or_default()),
            id: format!("{:016X}", self.boot.serial),
            block_size: self.boot.cluster_size,
            len: self.boot.cluster_count.saturating_mul(self.boot.cluster_size),
        }
    }

    fn doubts(&self) -> Result<Vec<String>> {
        let mut doubts = self.doubts_of_a_flushed_copy()?;
        doubts.extend(self.journal_doubt()?);
        Ok(doubts)
    }

    /// Source: `IOCTL_VOLSNAP_FLUSH_AND_HOLD_WRITES` in the Windows documentation: NTFS brings its structures into a consistent state first.
    fn doubts_of_a_flushed_copy(&self) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        let information = self.value(system_file::VOLUME, attribute_type::VOLUME_INFORMATION, &[])?;
        let information =
            information.ok_or_else(|| Error::corrupt("NTFS $Volume", 0, "it has no volume information"))?;
        let version = (u8_at(&information, 8), u8_at(&information, 9));
        if !matches!(version, (Some(3), Some(0 | 1)) | (Some(1), Some(2))) {
            doubts.push(format!("NTFS version {}.{} is not known", version.0.unwrap_or(0), version.1.unwrap_or(0)));
        }
        let flags = le16(&information, 10).unwrap_or(u16::MAX);
        if flags & 1 != 0 {
            doubts.push("the dirty flag is set: the volume was not unmounted cleanly".into());
        } else if flags & UNTRUSTED_FLAGS != 0 {
            doubts.push(format!("a repair or upgrade of the volume is pending (flags {flags:#06x})"));
        }
        if self.mirror_used {
            doubts.push("the first record of the MFT is damaged, its mirror was read".into());
        }
        Ok(doubts)
    }

    fn allocated(&self) -> Result<RangeSet> {
        let corrupt = |reason| Error::corrupt("NTFS $Bitmap", 0, reason);
        let value = self.attribute(system_file::BITMAP, attribute_type::DATA, &[])?;
        let bitmap_len = self.boot.cluster_count.div_ceil(8);
        let mut used = bits::UsedUnits::new(self.boot.cluster_size, self.boot.cluster_count);
        match value.ok_or_else(|| corrupt("it has no data"))? {
            Value::Resident(bytes) => {
                if u64::try_from(bytes.len()).unwrap_or(0) < bitmap_len {
                    return Err(corrupt("it is shorter than the volume"));
                }
                used.push(&bytes);
            }
            Value::NonResident(stream) => {
                if stream.data_size < bitmap_len || stream.initialized_size < bitmap_len {
                    return Err(corrupt("it is shorter than the volume"));
                }
                let mut buf = vec![0; PIECE];
                let mut at = 0_u64;
                while at < bitmap_len {
                    let len = usize::try_from(bitmap_len.saturating_sub(at)).unwrap_or(usize::MAX).min(PIECE);
                    let part = buf.get_mut(..len).expect("at most a piece");
                    self.read_stream(&stream, part, at)?;
                    used.push(part);
                    at = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
                }
            }
        }
        let mut set = used.finish();
        // The rest behind the last cluster, with the backup boot sector in it.
        let end = self.boot.cluster_count.saturating_mul(self.boot.cluster_size);
        set.push(end..self.disk.len());
        // The boot sector and the loader behind it, should the map forget them.
        Ok(set.union(&RangeSet::from_range(0..BOOT_LEN)).clipped(self.disk.len()))
    }

    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()> {
        let mut incomplete: HashMap<(u64, u32, Vec<u8>), Coverage> = HashMap::new();
        let cluster = self.boot.cluster_size;
        self.scan_mft(&mut |number, record| {
            let owner = record.base.unwrap_or(number);
            for attribute in record.attributes() {
                let attribute = attribute?;
                let Form::NonResident(piece) = attribute.form else { continue };
                let runs = self.runs_of(&piece)?;
                let found = piece.highest_vcn.wrapping_add(1).saturating_sub(piece.lowest_vcn);
                let expected = (piece.lowest_vcn == 0).then(|| piece.allocated_size.div_ceil(cluster));
                if expected != Some(found) {
                    let key = (owner, attribute.type_code, attribute.name.to_vec());
                    let coverage = incomplete.entry(key).or_default();
                    coverage.found = coverage.found.saturating_add(found);
                    coverage.expected = coverage.expected.or(expected);
                }
                let is_content = attribute.type_code == attribute_type::DATA && owner >= system_file::FIRST_USER;
                for run in runs {
                    let Some(lcn) = run.lcn else { continue };
                    visit(Reached {
                        range: self.cluster_bytes(lcn, run.len),
                        reach: if is_content { Reach::Content } else { Reach::Metadata },
                        owner_kind: "MFT record",
                        owner,
                    })?;
                }
            }
            Ok(())
        })?;
        for ((owner, ..), coverage) in incomplete {
            if coverage.expected != Some(coverage.found) {
                let what = format!("NTFS MFT record {owner}");
                return Err(Error::corrupt(what, 0, "pieces of an attribute are missing"));
            }
        }
        Ok(())
    }

    fn elidable(&self) -> Result<Vec<Elidable>> {
        let mut found: Vec<Elidable> = Vec::new();
        let is_elidable = |name: &str| elision::NAMES.iter().any(|elidable| elidable.eq_ignore_ascii_case(name));
        for (reference, name) in self.root_entries(&is_elidable)? {
            let lower = name.to_ascii_lowercase();
            if found.iter().all(|file| file.path != lower) {
                found.extend(self.elidable_file(record_number(reference), sequence_number(reference), &lower)?);
            }
        }
        Ok(found)
    }

    fn path_of(&self, owner: u64) -> Result<Option<String>> {
        let mut parts = Vec::new();
        let mut number = owner;
        while number != system_file::ROOT {
            if parts.len() >= MAX_DEPTH {
                return Ok(None);
            }
            let Some(OwnName { parent, name, .. }) = self.names_of(number)?.into_iter().next() else {
                return Ok(None);
            };
            parts.push(name);
            number = parent;
        }
        parts.reverse();
        Ok(Some(parts.join("/")))
    }
}
