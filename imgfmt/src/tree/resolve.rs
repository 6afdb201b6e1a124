//! Paths inside a tree: an absolute link starts at the root of its own filesystem, which lies somewhere in the tree.

use crate::error::Result;
use crate::filesystem::files::NodeId;
use crate::filesystem::resolve;
pub use crate::filesystem::resolve::Resolved;
use crate::tree::Tree;

/// Follows `path` from the folder `start`, which nothing leads above. `follow_last` says whether a link at its very end is followed too; one
/// with a slash behind it is always.
pub fn resolve(tree: &Tree, start: NodeId, path: &[u8], follow_last: bool) -> Result<Resolved> {
    resolve::resolve(tree, |node| tree.is_filesystem_root(node), start, path, follow_last)
}
