//! Which clusters are used: by the table, and by what the directories reach.

use std::ops::{ControlFlow, Range};

use crate::bytes::array;
use crate::disk::read_vec;
use crate::error::{Error, Result};
use crate::filesystem::chain::all::{Chains, Owner};
use crate::filesystem::chain::search::{self, Met};
use crate::filesystem::chain::table::{Next, Width};
use crate::filesystem::fat::boot::Root;
use crate::filesystem::fat::directory::{Short, Slot};
use crate::filesystem::fat::volume::{Found, Place, Volume};
use crate::filesystem::{Elidable, Reach, Reached, Summary, UsedBlocks, bits, elision};
use crate::partition::signature;
use crate::ranges::RangeSet;

/// Bytes of two tables that are compared at once.
const PIECE: u64 = 1 << 20;
/// Directories that wait to be walked, at the most: 256 MiB of them.
const MAX_PENDING: usize = 16 << 20;
/// The swap file of Windows 95 to Me, which makes it anew where it is not there.
const WIN9X_SWAP: &str = "win386.swp";
/// What owns a chain.
const ENTRY: &str = "FAT directory entry";

impl Volume {
    fn cluster_bytes(&self, first: u32, count: u32) -> Range<u64> {
        let start = self.boot.place(first);
        start..start.saturating_add(u64::from(count).saturating_mul(self.boot.cluster_size))
    }

    /// Says whether all tables have the same entries for the clusters.
    fn tables_differ(&self) -> Result<bool> {
        let entries = self.boot.entries();
        let place = |table: u64, at: u64| {
            self.boot.table_offset.saturating_add(table.saturating_mul(self.boot.table_len)).saturating_add(at)
        };
        let mut at = entries.start;
        while at < entries.end {
            let len = usize::try_from(entries.end.saturating_sub(at).min(PIECE)).expect("at most a piece");
            let first = read_vec(&self.disk, place(0, at), len)?;
            for table in 1..self.boot.table_count {
                if read_vec(&self.disk, place(table, at), len)? != first {
                    return Ok(true);
                }
            }
            at = at.saturating_add(PIECE);
        }
        Ok(false)
    }

    /// What the first two entries of the table and the state in the boot sector say.
    ///
    /// Source: fatgen103, "FAT Data Structure" (`ClnShutBitMask`, `HrdErrBitMask`); Linux sets the state in the boot sector alone.
    fn state_doubts(&self) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        let mut cursor = self.table.cursor();
        let mask = self.boot.width.mask();
        if cursor.entry(0)? != mask & 0xffff_ff00 | u32::from(self.boot.media) {
            doubts.push("the table does not start with the media descriptor".into());
        }
        let state = cursor.entry(1)?;
        let (clean, no_errors) = match self.boot.width {
            Width::Sixteen => (state & 0x8000 != 0, state & 0x4000 != 0),
            Width::ThirtyTwo => (state & 0x0800_0000 != 0, state & 0x0400_0000 != 0),
            Width::Twelve | Width::Exfat => (true, true),
        };
        if !clean || self.boot.state & 1 != 0 {
            doubts.push("the dirty flag is set: the volume was not unmounted cleanly".into());
        }
        if !no_errors || self.boot.state & 2 != 0 {
            doubts.push("the error flag is set: the last mount met errors of the disk".into());
        }
        Ok(doubts)
    }

    /// Visits what one entry reaches, and says which directory it opens.
    fn reach(
        &self,
        place: u64,
        entry: &Short,
        chains: &mut Chains<'_>,
        visit: &mut dyn FnMut(Reached) -> Result<()>,
    ) -> Result<Option<u32>> {
        let owner = Owner { kind: ENTRY, place };
        let start = self.first_cluster(entry);
        if start == 0 {
            if entry.is_directory() {
                return Err(owner.corrupt("it is a directory without a cluster"));
            }
            if entry.len != 0 {
                return Err(owner.corrupt("it has a size but no cluster"));
            }
            return Ok(None);
        }
        let reach = if entry.is_directory() { Reach::Metadata } else { Reach::Content };
        let followed = chains.follow(start, owner, &mut |first, count| {
            let range = self.cluster_bytes(first, count);
            visit(Reached { range, reach, owner_kind: "directory entry at byte", owner: place })
        })?;
        if entry.is_directory() {
            // An improper end was told to `visit`, and the cross-check finds it.
            return Ok(Some(start));
        }
        if followed.ended && followed.clusters.saturating_mul(self.boot.cluster_size) < u64::from(entry.len) {
            return Err(owner.corrupt("it is longer than its clusters"));
        }
        Ok(None)
    }

    fn elidable_file(&self, found: &Found, name: &str) -> Result<Option<Elidable>> {
        let owner = Owner { kind: ENTRY, place: found.place };
        let start = self.first_cluster(&found.short);
        if found.short.is_directory() || found.short.len == 0 || start == 0 {
            return Ok(None);
        }
        let mut ranges = Vec::new();
        let mut chains = Chains::new(&self.table, self.boot.cluster_count);
        let followed = chains.follow(start, owner, &mut |first, count| {
            ranges.push(self.cluster_bytes(first, count));
            Ok(())
        })?;
        if !followed.ended {
            return Ok(None);
        }
        let warning = if name == "hiberfil.sys" && found.short.len >= 4 {
            let magic = read_vec(&self.disk, self.boot.place(start), 4)?;
            elision::hibernation_warning(array(&magic, 0).expect("four bytes"))
        } else {
            None
        };
        Ok(Some(Elidable { path: name.to_owned(), ranges: RangeSet::from_unsorted(ranges), warning }))
    }

    /// Looks through all directories for the entry at byte `owner`.
    fn find_path(&self, owner: u64) -> Result<Option<String>> {
        search::find_path(Place::Root, &mut |directory, met| {
            self.entries(directory, &mut |found| {
                let name = || String::from_utf8_lossy(&found.name()).into_owned();
                if found.place == owner {
                    return Ok(met(Met::Wanted(name())));
                }
                if !found.short.is_directory() {
                    return Ok(ControlFlow::Continue(()));
                }
                let start = self.first_cluster(&found.short);
                Ok(met(Met::Directory(name(), start, Place::Chain(start))))
            })
        })
    }
}

impl UsedBlocks for Volume {
    fn summary(&self) -> Summary {
        Summary {
            kind: match self.boot.width {
                Width::Twelve => "FAT12",
                Width::Sixteen => "FAT16",
                Width::ThirtyTwo | Width::Exfat => "FAT32",
            },
            label: self.label(),
            id: self
                .boot
                .serial
                .map_or(String::new(), |serial| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
            block_size: self.boot.cluster_size,
            len: self.boot.len,
        }
    }

    fn doubts(&self) -> Result<Vec<String>> {
        let mut doubts: Vec<String> = self.boot.oddities.iter().map(|oddity| (*oddity).to_owned()).collect();
        if self.boot.version != 0 {
            doubts.push(format!("FAT32 version {:#06x} is not known", self.boot.version));
        }
        for other in signature::filesystems(&self.disk)?.into_iter().filter(|name| !name.starts_with("FAT")) {
            doubts.push(format!("it has the signature of {other} too"));
        }
        doubts.extend(self.state_doubts()?);
        if self.tables_differ()? {
            doubts.push("the copies of the file allocation table differ".into());
        }
        Ok(doubts)
    }

    /// Clusters that are marked as bad are used: somebody may have put something there, and never less than the truth is told.
    fn allocated(&self) -> Result<RangeSet> {
        let mut used =
            bits::UsedUnits::starting_at(self.boot.data_offset, self.boot.cluster_size, self.boot.cluster_count.into());
        let mut cursor = self.table.cursor();
        for cluster in (2_u32..).take(usize::try_from(self.boot.cluster_count).expect("32 bits")) {
            used.push_units(cursor.next(cluster)? != Next::Free, 1);
        }
        // The boot sector, the reserved area, the tables and the root directory before the clusters, and the rest behind them.
        let ends = [0..self.boot.data_offset, self.boot.data_end()..self.disk.len()];
        Ok(used.finish().union(&RangeSet::from_unsorted(ends.into())))
    }

    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()> {
        let system = |range| Reached { range, reach: Reach::Metadata, owner_kind: "boot sector at byte", owner: 0 };
        visit(system(0..self.boot.data_offset))?;
        let mut chains = Chains::new(&self.table, self.boot.cluster_count);
        if let Root::Chain(start) = self.boot.root {
            let owner = Owner { kind: "FAT root directory", place: self.boot.place(start) };
            chains.follow(start, owner, &mut |first, count| visit(system(self.cluster_bytes(first, count))))?;
        }
        let mut pending = vec![Place::Root];
        while let Some(directory) = pending.pop() {
            self.scan(directory, &mut |place, slot| {
                if let Slot::Short(entry) = slot
                    && !entry.is_label()
                    && !entry.is_dot()
                    && let Some(start) = self.reach(place, &entry, &mut chains, visit)?
                {
                    pending.push(Place::Chain(start));
                }
                if pending.len() > MAX_PENDING {
                    return Err(Error::corrupt("FAT directory", place, "there are too many directories"));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    fn elidable(&self) -> Result<Vec<Elidable>> {
        let mut found: Vec<Elidable> = Vec::new();
        self.entries(Place::Root, &mut |entry| {
            let name = String::from_utf8_lossy(&entry.name()).to_ascii_lowercase();
            let wanted = elision::NAMES.contains(&name.as_str()) || name == WIN9X_SWAP;
            if wanted && found.iter().all(|file| file.path != name) {
                found.extend(self.elidable_file(&entry, &name)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn path_of(&self, owner: u64) -> Result<Option<String>> {
        self.find_path(owner)
    }
}
