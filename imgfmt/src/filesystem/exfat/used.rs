//! Which clusters are used: by the allocation bitmap, and by what the directories reach.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::filesystem::chain::all::{Chains, Owner};
use crate::filesystem::chain::search::{self, Met};
use crate::filesystem::exfat::boot::flag;
use crate::filesystem::exfat::directory::{Allocation, File, Item, table_checksum};
use crate::filesystem::exfat::volume::Volume;
use crate::filesystem::{Elidable, Reach, Reached, Summary, UsedBlocks, bits, utf16};
use crate::partition::signature;
use crate::ranges::RangeSet;

/// Directories that wait to be walked, at the most: 384 MiB of them.
const MAX_PENDING: usize = 16 << 20;
/// Bytes of the longest up-case table: two for each of 65536 units, once over for ranges that are compressed badly.
const MAX_UPCASE: u64 = 4 * 65536;
/// What owns a chain.
const ENTRY: &str = "exFAT directory entry";

/// A walk under way.
struct Walk<'a, 'v> {
    volume: &'a Volume,
    chains: Chains<'a>,
    visit: &'v mut dyn FnMut(Reached) -> Result<()>,
}

impl Walk<'_, '_> {
    /// Visits the clusters of an allocation, all of them.
    fn reach(&mut self, data: Allocation, reach: Reach, owner: Owner) -> Result<()> {
        if data.len == 0 {
            return Ok(());
        }
        let volume = self.volume;
        let mut reached = |first, count| {
            let range = volume.cluster_bytes(first, count);
            (self.visit)(Reached { range, reach, owner_kind: "directory entry at byte", owner: owner.place })
        };
        if data.contiguous {
            let count = data.len.div_ceil(volume.boot.cluster_size);
            self.chains.contiguous(data.start, count, owner)?;
            return reached(data.start, count);
        }
        let followed = self.chains.follow(data.start, owner, &mut |first, count| reached(first, u64::from(count)))?;
        if !followed.ended {
            return Err(owner.corrupt("its chain holds a cluster that the table calls free"));
        }
        // The root directory is as long as its chain.
        if data.len != u64::MAX && followed.clusters.saturating_mul(volume.boot.cluster_size) < data.len {
            return Err(owner.corrupt("it is longer than its clusters"));
        }
        Ok(())
    }

    /// Visits what a set of entries reaches, and says which directory it opens.
    fn item(&mut self, place: u64, item: &Item) -> Result<Option<Allocation>> {
        let owner = Owner { kind: ENTRY, place };
        match item {
            Item::Bitmap { data, .. } => self.reach(*data, Reach::Metadata, owner)?,
            Item::Upcase { data, checksum } => {
                self.reach(*data, Reach::Metadata, owner)?;
                if data.len > MAX_UPCASE || self.volume.upcase_checksum(*data)? != *checksum {
                    return Err(owner.corrupt("the up-case table is damaged"));
                }
            }
            Item::File(file) => {
                for vendor in &file.vendor {
                    self.reach(*vendor, Reach::Metadata, owner)?;
                }
                let directory = file.is_directory();
                self.reach(file.data, if directory { Reach::Metadata } else { Reach::Content }, owner)?;
                return Ok(directory.then_some(file.data));
            }
            Item::Broken(reason) => return Err(owner.corrupt(reason)),
            Item::Label(_) | Item::Ignored => {}
        }
        Ok(None)
    }
}

impl Volume {
    fn upcase_checksum(&self, data: Allocation) -> Result<u32> {
        let mut sum = 0;
        self.read_pieces(data, &mut |bytes| sum = table_checksum(sum, bytes))?;
        Ok(sum)
    }

    /// The allocation bitmap that is in force.
    fn bitmap(&self) -> Result<Allocation> {
        let second_in_force = self.boot.second_in_force();
        let mut bitmap = None;
        self.scan(self.root(), &mut |_, item| match item {
            Item::Bitmap { second, data } if second == second_in_force => {
                bitmap = Some(data);
                Ok(ControlFlow::Break(()))
            }
            _ => Ok(ControlFlow::Continue(())),
        })?;
        let corrupt = |reason| Error::corrupt("exFAT allocation bitmap", 0, reason);
        let bitmap = bitmap.ok_or_else(|| corrupt("it is not there"))?;
        let len = u64::from(self.boot.cluster_count).div_ceil(8);
        if bitmap.len < len {
            return Err(corrupt("it is shorter than the volume"));
        }
        Ok(Allocation { len, ..bitmap })
    }

    /// The label in the root directory.
    pub fn label(&self) -> String {
        let mut label = Vec::new();
        // Shown where it can be read; what is wrong with the directory is told by the walk.
        let _ = self.scan(self.root(), &mut |_, item| match item {
            Item::Label(units) => {
                label = units;
                Ok(ControlFlow::Break(()))
            }
            _ => Ok(ControlFlow::Continue(())),
        });
        String::from_utf16_lossy(&label)
    }

    /// Looks through all directories for the set at byte `owner`.
    fn find_path(&self, owner: u64) -> Result<Option<String>> {
        let name = |file: &File| String::from_utf8_lossy(&utf16::to_wtf8(&file.name)).into_owned();
        search::find_path(self.root(), &mut |directory, met| {
            self.scan(directory, &mut |place, item| {
                Ok(match &item {
                    Item::File(file) if place == owner => met(Met::Wanted(name(file))),
                    Item::Bitmap { .. } if place == owner => met(Met::Wanted("allocation bitmap".into())),
                    Item::Upcase { .. } if place == owner => met(Met::Wanted("up-case table".into())),
                    Item::File(file) if file.is_directory() && file.data.len > 0 => {
                        met(Met::Directory(name(file), file.data.start, file.data))
                    }
                    _ => ControlFlow::Continue(()),
                })
            })
        })
    }
}

impl UsedBlocks for Volume {
    fn summary(&self) -> Summary {
        let serial = self.boot.serial;
        Summary {
            kind: "exFAT",
            label: self.label(),
            id: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
            block_size: self.boot.cluster_size,
            len: self.boot.len,
        }
    }

    fn doubts(&self) -> Result<Vec<String>> {
        let mut doubts: Vec<String> = self.boot.oddities.iter().map(|oddity| (*oddity).to_owned()).collect();
        let (major, minor) = self.boot.revision;
        if major != 1 {
            doubts.push(format!("exFAT revision {major}.{minor} is not known"));
        }
        if self.boot.table_count != 1 {
            doubts.push("it has two tables and bitmaps (TexFAT)".into());
        }
        if self.boot.flags & flag::DIRTY != 0 {
            doubts.push("the dirty flag is set: the volume was not unmounted cleanly".into());
        }
        if self.boot.flags & flag::MEDIA_FAILURE != 0 {
            doubts.push("the error flag is set: the last mount met errors of the disk".into());
        }
        for other in signature::filesystems(&self.disk)?.into_iter().filter(|name| *name != "exFAT") {
            doubts.push(format!("it has the signature of {other} too"));
        }
        Ok(doubts)
    }

    fn allocated(&self) -> Result<RangeSet> {
        let mut used =
            bits::UsedUnits::starting_at(self.boot.heap_offset, self.boot.cluster_size, self.boot.cluster_count.into());
        self.read_pieces(self.bitmap()?, &mut |bytes| used.push(bytes))?;
        // The boot regions, the tables and the gaps around them, and the rest behind the last cluster.
        let ends = [0..self.boot.heap_offset, self.boot.heap_end()..self.disk.len()];
        Ok(used.finish().union(&RangeSet::from_unsorted(ends.into())))
    }

    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()> {
        let boot = 0..self.boot.heap_offset;
        visit(Reached { range: boot, reach: Reach::Metadata, owner_kind: "boot sector at byte", owner: 0 })?;
        let chains = Chains::new(&self.table, self.boot.cluster_count);
        let mut walk = Walk { volume: self, chains, visit };
        let owner = Owner { kind: "exFAT root directory", place: self.boot.place(self.boot.root) };
        walk.reach(self.root(), Reach::Metadata, owner)?;
        let mut pending = vec![self.root()];
        while let Some(directory) = pending.pop() {
            self.scan(directory, &mut |place, item| {
                pending.extend(walk.item(place, &item)?);
                if pending.len() > MAX_PENDING {
                    return Err(Error::corrupt("exFAT directory", place, "there are too many directories"));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    /// None: Windows pages and hibernates to no exFAT volume.
    fn elidable(&self) -> Result<Vec<Elidable>> {
        Ok(Vec::new())
    }

    fn path_of(&self, owner: u64) -> Result<Option<String>> {
        self.find_path(owner)
    }
}
