//! Follows the chains of a whole volume, and sees that none meets another or itself.

use crate::error::{Error, Result};
use crate::filesystem::chain::table::{Cursor, Next, Table};

/// Who owns a chain, for errors: the kind of structure, and the byte of the partition where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// "FAT directory entry".
    pub kind: &'static str,
    /// Where it lies.
    pub place: u64,
}

impl Owner {
    /// Builds [`Error::Corrupt`].
    pub fn corrupt(self, reason: &'static str) -> Error {
        Error::corrupt(self.kind, self.place, reason)
    }
}

/// A chain that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Clusters in it.
    pub clusters: u64,
    /// Whether its last cluster is marked as one; otherwise it is free.
    pub ended: bool,
}

/// All chains that were followed so far.
#[derive(Debug)]
pub struct Chains<'a> {
    table: &'a Table,
    cursor: Cursor<'a>,
    /// One bit a cluster.
    seen: Vec<u64>,
}

impl<'a> Chains<'a> {
    /// No chain yet, of `cluster_count` clusters: an eighth of a byte each.
    pub fn new(table: &'a Table, cluster_count: u32) -> Self {
        let words = usize::try_from(cluster_count.saturating_add(2).div_ceil(64)).expect("32 bits");
        Self { table, cursor: table.cursor(), seen: vec![0; words] }
    }

    /// Marks a cluster; fails where it is none or was marked before.
    fn mark(&mut self, cluster: u32, owner: Owner) -> Result<()> {
        if !self.table.has(cluster) {
            return Err(owner.corrupt("it uses a cluster that the volume does not have"));
        }
        let index = usize::try_from(cluster / 64).expect("32 bits");
        let word = self.seen.get_mut(index).expect("a bit for each cluster");
        let bit = 1_u64 << (cluster % 64);
        if *word & bit != 0 {
            return Err(owner.corrupt("a cluster of it is used twice"));
        }
        *word |= bit;
        Ok(())
    }

    /// Marks `count` clusters from `start` on, without a look at the table.
    pub fn contiguous(&mut self, start: u32, count: u64, owner: Owner) -> Result<()> {
        let mut cluster = start;
        for _ in 0..count {
            self.mark(cluster, owner)?;
            cluster = cluster.saturating_add(1);
        }
        Ok(())
    }

    /// Follows the chain from `start` to its end and calls `run` with the first cluster and the length of each run of clusters. A
    /// free cluster is told before the chain ends with it.
    pub fn follow(
        &mut self,
        start: u32,
        owner: Owner,
        run: &mut dyn FnMut(u32, u32) -> Result<()>,
    ) -> Result<Followed> {
        let (mut first, mut count) = (start, 0_u32);
        let mut cluster = start;
        let mut clusters = 0_u64;
        loop {
            self.mark(cluster, owner)?;
            clusters = clusters.saturating_add(1);
            count = count.saturating_add(1);
            let next = self.cursor.next(cluster)?;
            if let Next::Cluster(next) = next {
                if cluster.checked_add(1) != Some(next) {
                    run(first, count)?;
                    (first, count) = (next, 0);
                }
                cluster = next;
                continue;
            }
            run(first, count)?;
            return match next {
                Next::End | Next::Free => Ok(Followed { clusters, ended: next == Next::End }),
                Next::Bad => Err(owner.corrupt("its chain holds a cluster that is marked as bad")),
                _ => Err(owner.corrupt("its chain leads nowhere")),
            };
        }
    }
}
