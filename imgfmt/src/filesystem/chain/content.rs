//! The bytes of a file in clusters: its chain is followed once, and kept as runs.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::filesystem::chain::all::Owner;
use crate::filesystem::chain::table::{Next, Table};
use crate::filesystem::files::Content;

/// Runs of one file, at the most: 128 MiB of them.
const MAX_RUNS: usize = 16 << 20;

/// Clusters that follow each other on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Where the run starts in the file, in clusters.
    index: u32,
    /// Its first cluster.
    cluster: u32,
}

/// The clusters of a file in the order of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Ascending by index, the first at 0; each as long as the next one says.
    runs: Vec<Run>,
    /// Clusters of all runs.
    clusters: u32,
}

impl Runs {
    /// Clusters that follow each other from `start` on.
    pub fn contiguous(table: &Table, start: u32, clusters: u32, owner: Owner) -> Result<Self> {
        let last = clusters.checked_sub(1).map(|more| start.checked_add(more));
        match last {
            None => Ok(Self { runs: Vec::new(), clusters: 0 }),
            Some(Some(last)) if table.has(start) && table.has(last) => {
                Ok(Self { runs: vec![Run { index: 0, cluster: start }], clusters })
            }
            _ => Err(owner.corrupt("it uses a cluster that the volume does not have")),
        }
    }

    /// Follows the chain from `start` on for at most `most` clusters. It can be shorter; then it ended where it had to or not.
    pub fn follow(table: &Table, start: u32, most: u32, owner: Owner) -> Result<Self> {
        let mut cursor = table.cursor();
        let mut runs: Vec<Run> = Vec::new();
        let mut next = Next::Cluster(start);
        let mut expected = None;
        let mut clusters = 0_u32;
        while let Next::Cluster(cluster) = next
            && clusters < most
        {
            if !table.has(cluster) {
                return Err(owner.corrupt("it uses a cluster that the volume does not have"));
            }
            if expected != Some(cluster) {
                if runs.len() >= MAX_RUNS {
                    return Err(Error::unsupported(owner.kind, format_args!("more than {MAX_RUNS} fragments")));
                }
                runs.push(Run { index: clusters, cluster });
            }
            expected = cluster.checked_add(1);
            clusters = clusters.saturating_add(1);
            if clusters < most {
                next = cursor.next(cluster)?;
            }
        }
        let runs = Self { runs, clusters };
        runs.check_loops(owner)?;
        Ok(runs)
    }

    /// A cluster that comes twice means a chain that never ends, and content that only seems to be there.
    fn check_loops(&self, owner: Owner) -> Result<()> {
        let mut places: Vec<Range<u32>> =
            self.iter().map(|(run, len)| run.cluster..run.cluster.saturating_add(len)).collect();
        places.sort_unstable_by_key(|range| range.start);
        let overlap = places.windows(2).any(|pair| matches!(pair, [a, b] if b.start < a.end));
        if overlap { Err(owner.corrupt("its chain comes back to a cluster of its own")) } else { Ok(()) }
    }

    /// The runs with their lengths in clusters.
    fn iter(&self) -> impl Iterator<Item = (Run, u32)> + '_ {
        let ends = self.runs.iter().skip(1).map(|next| next.index).chain([self.clusters]);
        self.runs.iter().zip(ends).map(|(run, end)| (*run, end.saturating_sub(run.index)))
    }

    /// The run that holds cluster `index` of the file, and its length.
    fn at(&self, index: u32) -> Option<(Run, u32)> {
        if index >= self.clusters {
            return None;
        }
        let next = self.runs.partition_point(|run| run.index <= index);
        let run = *self.runs.get(next.checked_sub(1)?)?;
        let end = self.runs.get(next).map_or(self.clusters, |next| next.index);
        Some((run, end.saturating_sub(run.index)))
    }

    /// Clusters of the file.
    pub fn clusters(&self) -> u32 {
        self.clusters
    }
}

/// Where clusters lie in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// First byte of cluster 2.
    pub offset: u64,
    /// Bytes in a cluster; not 0.
    pub cluster_size: u64,
}

impl Heap {
    /// Clusters that `len` bytes take; `None` where no volume has so many.
    pub fn clusters(self, len: u64) -> Option<u32> {
        u32::try_from(len.div_ceil(self.cluster_size)).ok()
    }

    fn place(self, cluster: u32) -> u64 {
        u64::from(cluster.saturating_sub(2)).saturating_mul(self.cluster_size).saturating_add(self.offset)
    }
}

/// The content of a file in clusters.
pub struct ClusterContent {
    /// The partition.
    pub disk: Arc<dyn Disk>,
    /// Where its clusters lie.
    pub heap: Heap,
    /// The clusters of the file.
    pub runs: Runs,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes of it that were written, at most `len`; what is behind reads as zero.
    pub valid_len: u64,
    /// For errors.
    pub owner: Owner,
}

impl std::fmt::Debug for ClusterContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterContent").field("len", &self.len).field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl ClusterContent {
    /// The bytes of the partition that hold the content from `offset` (below `valid_len`) on, as far as its run goes.
    fn piece(&self, offset: u64) -> Result<Range<u64>> {
        let size = self.heap.cluster_size;
        let index = u32::try_from(offset.checked_div(size).unwrap_or(u64::MAX)).ok();
        let (run, clusters) = index
            .and_then(|index| self.runs.at(index))
            .ok_or_else(|| self.owner.corrupt("its chain ends before its content does"))?;
        let start = self.heap.place(run.cluster);
        let within = offset.saturating_sub(u64::from(run.index).saturating_mul(size));
        let end = start.saturating_add(u64::from(clusters).saturating_mul(size));
        let start = start.saturating_add(within);
        Ok(start..end.min(start.saturating_add(self.valid_len.saturating_sub(offset))))
    }
}

impl Content for ClusterContent {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            if at >= self.valid_len {
                rest.fill(0);
                return Ok(());
            }
            let piece = self.piece(at)?;
            let len = usize::try_from(piece.end.saturating_sub(piece.start)).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.disk.read_at(now, piece.start)?;
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        if offset >= self.valid_len {
            return Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Zero });
        }
        let piece = self.piece(offset)?;
        Ok(Extent { offset, len: piece.end.saturating_sub(piece.start), kind: ExtentKind::Data })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        let mut places = Vec::with_capacity(self.runs.runs.len());
        let mut at = 0_u64;
        while at < self.valid_len {
            let piece = self.piece(at).ok()?;
            at = at.saturating_add(piece.end.saturating_sub(piece.start));
            places.push(piece);
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::filesystem::chain::table::Width;

    const OWNER: Owner = Owner { kind: "test", place: 0 };

    /// A volume of eight clusters of 4 bytes behind a table in front, each filled with its number.
    fn volume(chain: [u16; 8]) -> (Arc<dyn Disk>, Table) {
        let mut bytes: Vec<u8> = [0_u16; 2].into_iter().chain(chain).flat_map(u16::to_le_bytes).collect();
        bytes.extend((2..10).flat_map(|cluster| [cluster; 4]));
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
        let table = Table::new(Arc::clone(&disk), 0, 20, Width::Sixteen, 8);
        (disk, table)
    }

    fn content(chain: [u16; 8], start: u32, len: u64, valid_len: u64) -> Result<ClusterContent> {
        let (disk, table) = volume(chain);
        let heap = Heap { offset: 20, cluster_size: 4 };
        let runs = Runs::follow(&table, start, heap.clusters(len).unwrap(), OWNER)?;
        Ok(ClusterContent { disk, heap, runs, len, valid_len, owner: OWNER })
    }

    #[test]
    fn any_part_of_a_file_in_fragments_is_read() {
        // 3, 4, 8, 9, 2.
        let content = content([0xffff, 4, 8, 0, 0, 0, 9, 2], 3, 18, 15).unwrap();
        let model: Vec<u8> =
            [3, 4, 8, 9, 2].into_iter().flat_map(|cluster| [cluster; 4]).take(15).chain([0; 3]).collect();
        for start in 0..=18 {
            for end in start..=18 {
                let mut buf = vec![0xaa; end - start];
                content.read_at(&mut buf, start as u64).unwrap();
                assert_eq!(buf, model[start..end], "{start}..{end}");
            }
        }
        assert!(content.read_at(&mut [0; 2], 17).is_err());
        assert_eq!(content.places(), Some(vec![24..32, 44..51]));
        let kinds: Vec<_> = [0, 7, 8, 15].into_iter().map(|at| content.extent_at(at).unwrap()).collect();
        assert_eq!(kinds.iter().map(|extent| extent.len).collect::<Vec<_>>(), [8, 1, 7, 3]);
        assert_eq!(kinds[3].kind, ExtentKind::Zero);
    }

    #[test]
    fn a_chain_that_is_too_short_is_read_as_far_as_it_goes() {
        let content = content([3, 0xffff, 0, 0, 0, 0, 0, 0], 2, 12, 12).unwrap();
        let mut buf = [0; 8];
        content.read_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [2, 2, 2, 2, 3, 3, 3, 3]);
        assert!(matches!(content.read_at(&mut buf, 1), Err(Error::Corrupt { .. })));
        assert_eq!(content.places(), None);
    }

    #[test]
    fn chains_that_come_back_are_refused() {
        assert!(content([3, 4, 2, 0, 0, 0, 0, 0], 2, 12, 12).is_ok(), "it is read no further");
        for chain in [[3, 4, 2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0], [3, 4, 3, 0, 0, 0, 0, 0]] {
            assert!(content(chain, 2, 30, 30).is_err());
        }
        assert!(content([0; 8], 10, 4, 4).is_err());
    }
}
