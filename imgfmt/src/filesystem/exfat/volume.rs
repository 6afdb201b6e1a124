//! A volume: finds directories and follows chains.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::bytes::array;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::chain::table::{Next, Table, Width};
use crate::filesystem::exfat::boot::Boot;
use crate::filesystem::exfat::directory::{Allocation, Item, MAX_LEN, SLOT, Sets, Step};

/// Bytes of a directory that are read at once.
const PIECE: u64 = 32 << 10;

/// An exFAT volume.
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

/// A set of entries in a directory.
pub type Visit<'a> = &'a mut dyn FnMut(u64, Item) -> Result<ControlFlow<()>>;

impl Volume {
    /// Opens the volume in a partition; `None` where there is no exFAT boot sector.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Option<Self>> {
        let Some(boot) = Boot::read(&disk)? else { return Ok(None) };
        let second = if boot.second_in_force() { boot.table_len } else { 0 };
        let offset = boot.table_offset.saturating_add(second);
        let table = Table::new(Arc::clone(&disk), offset, boot.table_len, Width::Exfat, boot.cluster_count);
        Ok(Some(Self { disk, boot, table }))
    }

    /// The root directory: its length is that of its chain.
    pub fn root(&self) -> Allocation {
        Allocation { start: self.boot.root, len: u64::MAX, contiguous: false }
    }

    /// Bytes of a run of clusters.
    pub fn cluster_bytes(&self, first: u32, count: u64) -> Range<u64> {
        let start = self.boot.place(first);
        start..start.saturating_add(count.saturating_mul(self.boot.cluster_size))
    }

    /// Calls `visit` for each cluster of an allocation as far as its length goes, with how many bytes of it belong to it.
    pub fn clusters(&self, data: Allocation, visit: &mut dyn FnMut(u32, u64) -> Result<ControlFlow<()>>) -> Result<()> {
        let corrupt = |cluster, reason| Error::corrupt("exFAT cluster chain", self.boot.place(cluster), reason);
        let mut cursor = self.table.cursor();
        let mut cluster = data.start;
        let mut left = data.len;
        let mut seen = HashSet::new();
        while left > 0 {
            if !self.table.has(cluster) {
                return Err(corrupt(data.start, "it leaves the volume"));
            }
            if !data.contiguous && !seen.insert(cluster) {
                return Err(corrupt(cluster, "it comes back to a cluster of its own"));
            }
            let here = left.min(self.boot.cluster_size);
            if visit(cluster, here)?.is_break() {
                return Ok(());
            }
            left = left.saturating_sub(here);
            if left == 0 {
                return Ok(());
            }
            cluster = if data.contiguous {
                cluster.saturating_add(1)
            } else {
                match cursor.next(cluster)? {
                    Next::Cluster(next) => next,
                    // The root directory is as long as its chain.
                    Next::End if data.len == u64::MAX => return Ok(()),
                    _ => return Err(corrupt(cluster, "it ends before what it holds")),
                }
            };
        }
        Ok(())
    }

    /// Calls `visit` for each set of entries of a directory, with the byte where it starts, up to the end of the directory.
    pub fn scan(&self, directory: Allocation, visit: Visit<'_>) -> Result<()> {
        let mut sets = Sets::default();
        let mut scanned = 0_u64;
        self.clusters(directory, &mut |cluster, len| {
            if scanned > MAX_LEN {
                let place = self.boot.place(directory.start);
                return Err(Error::corrupt("exFAT directory", place, "it is longer than a directory can be"));
            }
            scanned = scanned.saturating_add(len);
            self.scan_run(self.boot.place(cluster), len, &mut sets, visit)
        })?;
        if let Some(place) = sets.end() {
            return visit(place, Item::Broken("entries of the set are missing")).map(|_| ());
        }
        Ok(())
    }

    fn scan_run(&self, offset: u64, len: u64, sets: &mut Sets, visit: Visit<'_>) -> Result<ControlFlow<()>> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let piece = usize::try_from(end.saturating_sub(at).min(PIECE)).expect("at most a piece");
            for bytes in read_vec(&self.disk, at, piece)?.chunks_exact(SLOT) {
                let bytes = array(bytes, 0).expect("chunks of that length");
                let mut step = sets.push(at, &bytes);
                if let Step::Cut(place) = step {
                    if visit(place, Item::Broken("entries of the set are missing"))?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    step = sets.push(at, &bytes);
                }
                match step {
                    Step::Nothing | Step::Cut(_) => {}
                    Step::End => return Ok(ControlFlow::Break(())),
                    Step::Set(place, item) => {
                        if visit(place, item)?.is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                }
                at = at.saturating_add(32);
            }
            // A length that is no multiple of an entry ends here.
            if piece % SLOT != 0 {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads an allocation as far as its length goes and calls `visit` with its pieces of at most 1 MiB.
    pub fn read_pieces(&self, data: Allocation, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.clusters(data, &mut |cluster, len| {
            let start = self.boot.place(cluster);
            let mut done = 0_u64;
            while done < len {
                let piece = len.saturating_sub(done).min(1 << 20);
                let bytes = usize::try_from(piece).expect("at most 1 MiB");
                visit(&read_vec(&self.disk, start.saturating_add(done), bytes)?);
                done = done.saturating_add(piece);
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}
