//! The table of internal snapshots.

use crate::bytes::be64;
use crate::error::Result;
use crate::format::Snapshot;
use crate::format::file::ImageFile;
use crate::format::qcow2::layout::{HeaderRaw, MAX_SNAPSHOTS, SnapshotRaw};

const WHAT: &str = "qcow2 snapshot table";
/// Longest identifier or name that is taken, in bytes; QEMU writes at most 255.
const MAX_TEXT: u16 = 1024;
/// Longest table that is read, in bytes.
const MAX_TABLE: u64 = 16 << 20;

/// A snapshot and where its L1 table lies.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) snapshot: Snapshot,
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u32,
}

/// Reads the table. A snapshot of version 2 may not tell the size of its disk, which then is the current one.
pub(super) fn read(file: &ImageFile, header: &HeaderRaw) -> Result<Vec<Entry>> {
    let count = header.nb_snapshots.get();
    let start = header.snapshots_offset.get();
    if count > MAX_SNAPSHOTS {
        return Err(file.corrupt(WHAT, start, "it has more entries than there may be"));
    }
    let mut entries = Vec::new();
    let mut at = start;
    for _ in 0..count {
        if at.saturating_sub(start) > MAX_TABLE {
            return Err(file.unsupported("a snapshot table of more than 16 MiB"));
        }
        let raw: SnapshotRaw = file.read_struct(WHAT, at)?;
        let (id_len, name_len) = (raw.id_str_size.get(), raw.name_size.get());
        if id_len > MAX_TEXT || name_len > MAX_TEXT {
            return Err(file.corrupt(WHAT, at, "a name is too long"));
        }
        let extra_at = at.saturating_add(40);
        let extra_len = raw.extra_data_size.get();
        let mut len = header.size.get();
        if extra_len >= 16 {
            let extra = file.read_vec(WHAT, extra_at, 16)?;
            len = be64(&extra, 8).expect("16 bytes were read");
        }
        let id_at = extra_at.saturating_add(extra_len.into());
        let texts = file.read_vec(WHAT, id_at, usize::from(id_len).saturating_add(name_len.into()))?;
        let (id, name) = texts.split_at(id_len.into());
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        entries.push(Entry {
            snapshot: Snapshot { id: text(id), name: text(name), created: raw.date_sec.get().into(), len },
            l1_table_offset: raw.l1_table_offset.get(),
            l1_size: raw.l1_size.get(),
        });
        let end = id_at.saturating_add(id_len.into()).saturating_add(name_len.into());
        at = end.saturating_add(7) & !7;
    }
    Ok(entries)
}
