//! Node numbers of the tree: which part of it, and which node there, in one `u64`.
//!
//! The parts ("domains") are numbered as they are first visited, so a number means the same for as long as the tree is open, whatever is
//! dropped from its caches in between. Bit 63 stays free for the fronts, and number 1 is the root, as FUSE wants it.

use std::collections::HashMap;
use std::sync::RwLock;

use crate::error::{Error, Result};
use crate::filesystem::files::NodeId;

/// Bits for the node: filesystems that number nodes by their place have room for 64 TiB.
const NODE_BITS: u32 = 46;
/// Domains there can be: some 20,000 generations with all their partitions.
const MAX_DOMAINS: u32 = 1 << 17;

/// The folder itself, in the domains that are no filesystem.
pub const FOLDER: u64 = 1;

/// A part of the tree with nodes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The root of an image: its folder and `latest`.
    Top,
    /// The folder of a disk: generation, or 0 where there is only one disk.
    Disk(u32),
    /// The filesystem in one volume of a disk: generation, index of the volume.
    Volume(u32, u32),
}

/// Gives numbers to domains.
#[derive(Debug)]
pub struct Domains(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<Domain, u32>,
    domains: Vec<Domain>,
}

impl Domains {
    /// A table that has `root` as its first domain.
    pub fn new(root: Domain) -> Self {
        Self(RwLock::new(Table { slots: HashMap::from([(root, 0)]), domains: vec![root] }))
    }

    /// The slot of a domain, which it keeps from its first visit on.
    pub fn slot(&self, domain: Domain) -> Result<u32> {
        if let Some(slot) = self.0.read().expect("no holder of the lock panics").slots.get(&domain) {
            return Ok(*slot);
        }
        let mut table = self.0.write().expect("no holder of the lock panics");
        if let Some(slot) = table.slots.get(&domain) {
            return Ok(*slot);
        }
        let slot = u32::try_from(table.domains.len()).ok().filter(|slot| *slot < MAX_DOMAINS);
        let slot = slot.ok_or_else(|| {
            Error::Refused(format!("more than {MAX_DOMAINS} filesystems were visited: show one generation by itself"))
        })?;
        table.domains.push(domain);
        table.slots.insert(domain, slot);
        Ok(slot)
    }

    /// The number of a node in a domain.
    pub fn node(&self, domain: Domain, node: u64) -> Result<NodeId> {
        self.join(self.slot(domain)?, node)
    }

    /// The number of a node in the domain of a slot.
    pub fn join(&self, slot: u32, node: u64) -> Result<NodeId> {
        if node >> NODE_BITS != 0 {
            return Err(Error::unsupported(format_args!("node {node}"), "numbers of nodes from 2^46 on"));
        }
        Ok(NodeId(u64::from(slot) << NODE_BITS | node))
    }

    /// The domain of a node, its slot, and the number of the node there.
    pub fn domain(&self, node: NodeId) -> Result<(Domain, u32, u64)> {
        let slot = u32::try_from(node.0 >> NODE_BITS).unwrap_or(u32::MAX);
        let table = self.0.read().expect("no holder of the lock panics");
        let domain = usize::try_from(slot).ok().and_then(|slot| table.domains.get(slot));
        let domain = domain.ok_or_else(|| Error::NotFound(format!("there is no node {}", node.0)))?;
        Ok((*domain, slot, node.0 & ((1 << NODE_BITS) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_nodes_and_the_root_is_number_1() {
        let domains = Domains::new(Domain::Top);
        assert_eq!(domains.node(Domain::Top, FOLDER).unwrap(), NodeId(1));
        let mut seen = std::collections::HashSet::new();
        for domain in [Domain::Disk(7), Domain::Volume(7, 0), Domain::Volume(u32::MAX, 3), Domain::Top] {
            for node in [1, 5, (1 << 46) - 1] {
                let id = domains.node(domain, node).unwrap();
                let (found, slot, number) = domains.domain(id).unwrap();
                assert_eq!((found, number), (domain, node));
                assert_eq!(domains.join(slot, number).unwrap(), id);
                assert!(id.0 < 1 << 63 && seen.insert(id));
            }
        }
        assert!(domains.node(Domain::Top, 1 << 46).is_err());
        assert!(domains.domain(NodeId(99 << 46)).is_err());
        assert!(domains.domain(NodeId(u64::MAX)).is_err());
    }

    #[test]
    fn there_is_an_end_to_domains() {
        let domains = Domains::new(Domain::Top);
        let refused = (0..=MAX_DOMAINS).find_map(|number| domains.slot(Domain::Disk(number)).err());
        assert!(matches!(refused, Some(Error::Refused(_))));
        assert!(domains.slot(Domain::Disk(0)).is_ok());
    }
}
