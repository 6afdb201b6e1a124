//! What readers of image formats keep in memory: pages of tables and decoded clusters, both bounded in bytes.
//!
//! One pair of caches serves an image and all its bases. What is missing is read or decoded once, however many threads ask for it.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::error::Result;

/// Bytes of pages of tables that are kept: the tables of 32 GiB of qcow2 with usual clusters.
const PAGE_BYTES: u64 = 8 << 20;
/// The smallest cache of clusters that holds four of the largest (2 MiB).
const MIN_CLUSTER_BYTES: u64 = 8 << 20;

/// A page of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// The file, as numbered by [`Caches::next_file`].
    pub(crate) file: u32,
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: usize,
}

/// A decoded cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterKey {
    /// The file, as numbered by [`Caches::next_file`].
    pub(crate) file: u32,
    /// First byte of its encoded form in the file.
    pub(crate) offset: u64,
    /// Encoded bytes, where a table tells them, else 0: two clusters can start at the same byte only in a damaged file.
    pub(crate) stored: u64,
}

#[derive(Clone)]
struct ByteWeight;

impl<K> Weighter<K, Arc<[u8]>> for ByteWeight {
    fn weight(&self, _: &K, bytes: &Arc<[u8]>) -> u64 {
        u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(128)
    }
}

/// The caches of an image and its bases.
pub(crate) struct Caches {
    pages: Cache<PageKey, Arc<[u8]>, ByteWeight>,
    clusters: Cache<ClusterKey, Arc<[u8]>, ByteWeight>,
    files: AtomicU32,
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").field("files", &self.files).finish_non_exhaustive()
    }
}

fn cache<K: Eq + Hash>(bytes: u64) -> Cache<K, Arc<[u8]>, ByteWeight> {
    // Each shard must hold several of the largest items, or it would take none of them.
    let shards = if bytes < 32 << 20 { 1 } else { 4 };
    let options = OptionsBuilder::new().shards(shards).estimated_items_capacity(1024).weight_capacity(bytes).build();
    let options = options.expect("capacities are set");
    Cache::with_options(options, ByteWeight, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

impl Caches {
    /// Makes empty caches that keep at most `cluster_bytes` of decoded clusters.
    pub(crate) fn new(cluster_bytes: u64) -> Self {
        Self {
            pages: cache(PAGE_BYTES),
            clusters: cache(cluster_bytes.max(MIN_CLUSTER_BYTES)),
            files: AtomicU32::new(0),
        }
    }

    /// A number for a file that no other file of these caches has.
    pub(crate) fn next_file(&self) -> u32 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    /// The page, from the cache or from `read`.
    pub(crate) fn page(&self, key: PageKey, read: impl FnOnce() -> Result<Arc<[u8]>>) -> Result<Arc<[u8]>> {
        self.pages.get_or_insert_with(&key, read)
    }

    /// The cluster, from the cache or from `decode`.
    pub(crate) fn cluster(&self, key: ClusterKey, decode: impl FnOnce() -> Result<Arc<[u8]>>) -> Result<Arc<[u8]>> {
        self.clusters.get_or_insert_with(&key, decode)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_cluster_is_decoded_once_however_many_threads_ask() {
        let (caches, decoded) = (Caches::new(64 << 20), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for offset in 0..20 {
                        let cluster = caches.cluster(ClusterKey { file: 0, offset, stored: 0 }, || {
                            decoded.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(2));
                            Ok(Arc::from(vec![0; 2 << 20]))
                        });
                        assert_eq!(cluster.unwrap().len(), 2 << 20);
                    }
                });
            }
        });
        assert_eq!(decoded.into_inner(), 20);
    }

    #[test]
    fn clusters_are_dropped_when_the_cache_is_full() {
        let caches = Caches::new(16 << 20);
        for offset in 0..1000 {
            let decode = || Ok(Arc::from(vec![0; 65536]));
            caches.cluster(ClusterKey { file: 0, offset, stored: 0 }, decode).unwrap();
        }
        assert!(caches.clusters.weight() <= 16 << 20);
        assert!(caches.clusters.weight() > 8 << 20);
    }
}
