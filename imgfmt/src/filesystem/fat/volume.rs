//! A volume: finds directories and follows chains.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::bytes::array;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::chain::table::{Next, Table};
use crate::filesystem::fat::boot::{Boot, Root};
use crate::filesystem::fat::code_page::cp437;
use crate::filesystem::fat::directory::{LongName, MAX_LEN, SLOT, Short, Slot};
use crate::filesystem::utf16;

/// Bytes of a directory that are read at once.
const PIECE: u64 = 32 << 10;

/// A FAT12, FAT16 or FAT32 volume.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) boot: Boot,
    pub(crate) table: Table,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// Where a directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The root directory, wherever that is.
    Root,
    /// The chain that starts with this cluster.
    Chain(u32),
}

/// An entry of a directory with all of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Byte of the partition where the 8.3 entry lies.
    pub place: u64,
    /// The 8.3 entry.
    pub short: Short,
    /// The long name in UTF-16, where it has one.
    pub long: Option<Vec<u16>>,
}

impl Volume {
    /// Opens the volume in a partition; `None` where there is no FAT boot sector.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Option<Self>> {
        if disk.len() < 512 {
            return Ok(None);
        }
        let Some(boot) = Boot::parse(&read_vec(&disk, 0, 512)?, disk.len())? else { return Ok(None) };
        let offset = boot.active_table.saturating_mul(boot.table_len).saturating_add(boot.table_offset);
        let table = Table::new(Arc::clone(&disk), offset, boot.table_len, boot.width, boot.cluster_count);
        Ok(Some(Self { disk, boot, table }))
    }

    /// First cluster of an entry: FAT12 and FAT16 use the upper half for something else.
    pub fn first_cluster(&self, entry: &Short) -> u32 {
        match self.boot.root {
            Root::Area(_) => entry.cluster & 0xffff,
            Root::Chain(_) => entry.cluster,
        }
    }

    /// Calls `visit` for each place of 32 bytes of a directory, with where it lies, up to the mark of its end.
    pub fn scan(&self, directory: Place, visit: &mut dyn FnMut(u64, Slot) -> Result<ControlFlow<()>>) -> Result<()> {
        let start = match (directory, &self.boot.root) {
            (Place::Root, Root::Area(area)) => {
                let len = area.end.saturating_sub(area.start);
                return self.scan_run(area.start, len, visit).map(|_| ());
            }
            (Place::Root, Root::Chain(start)) => *start,
            (Place::Chain(start), _) => start,
        };
        let corrupt = |at, reason| Error::corrupt("FAT directory", at, reason);
        if !self.table.has(start) {
            return Err(corrupt(0, "it starts with a cluster that the volume does not have"));
        }
        let mut cursor = self.table.cursor();
        let mut cluster = start;
        let mut scanned = 0_u64;
        let mut seen = HashSet::new();
        loop {
            let at = self.boot.place(cluster);
            if !seen.insert(cluster) {
                return Err(corrupt(at, "its chain comes back to a cluster of its own"));
            }
            scanned = scanned.saturating_add(self.boot.cluster_size);
            if scanned > MAX_LEN.max(self.boot.cluster_size) {
                return Err(corrupt(self.boot.place(start), "it is longer than a directory can be"));
            }
            if self.scan_run(at, self.boot.cluster_size, visit)?.is_break() {
                return Ok(());
            }
            cluster = match cursor.next(cluster)? {
                Next::Cluster(next) => next,
                // A free cluster is no proper end, and what lies behind it cannot be known.
                Next::End | Next::Free => return Ok(()),
                Next::Bad | Next::Invalid => return Err(corrupt(at, "its chain leads nowhere")),
            };
        }
    }

    fn scan_run(
        &self,
        offset: u64,
        len: u64,
        visit: &mut dyn FnMut(u64, Slot) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let piece = usize::try_from(end.saturating_sub(at).min(PIECE)).expect("at most a piece");
            for bytes in read_vec(&self.disk, at, piece)?.chunks_exact(SLOT) {
                let slot = Slot::parse(&array(bytes, 0).expect("chunks of that length"));
                if slot == Slot::End || visit(at, slot)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                at = at.saturating_add(32);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `visit` for each entry of a directory but the volume label, "." and "..".
    pub fn entries(&self, directory: Place, visit: &mut dyn FnMut(Found) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut name = LongName::default();
        self.scan(directory, &mut |place, slot| {
            match slot {
                Slot::Long(part) => name.push(&part),
                Slot::Short(short) if !short.is_label() && !short.is_dot() => {
                    let long = name.take(&short);
                    return visit(Found { place, short, long });
                }
                _ => name.forget(),
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The label in the root directory, else the one in the boot sector.
    pub fn label(&self) -> String {
        let mut label = self.boot.label;
        // Labels are shown where they can be read; what is wrong with the directory is told by the walk.
        let _ = self.scan(Place::Root, &mut |_, slot| match slot {
            Slot::Short(short) if short.is_label() => {
                label = short.name;
                Ok(ControlFlow::Break(()))
            }
            _ => Ok(ControlFlow::Continue(())),
        });
        if &label == b"NO NAME    " {
            return String::new();
        }
        label.iter().map(|byte| cp437(*byte)).collect::<String>().trim_end().to_owned()
    }
}

impl Found {
    /// The name that people see, as [`Entry::name`](crate::filesystem::files::Entry::name).
    pub fn name(&self) -> Vec<u8> {
        match &self.long {
            Some(units) => utf16::to_wtf8(units),
            None => self.short.shown(cp437).into_bytes(),
        }
    }
}
