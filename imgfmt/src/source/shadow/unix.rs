//! Unix: a filesystem or volume manager may make snapshots (LVM, btrfs, ZFS), each in a way of its own, and none for any disk. So none are made here.

use std::path::Path;

use crate::error::Result;
use crate::source::System;
use crate::source::shadow::ShadowCopies;

/// Keeps shadow copies, of which there are none.
#[derive(Debug)]
pub enum Held {}

impl Held {
    pub(super) fn finish(self) {
        match self {}
    }
}

impl System {
    /// Makes shadow copies of the volumes of `source`. `None` on a system that makes none.
    pub fn shadow_copies(&self, _source: &Path, _note: &mut dyn FnMut(&str)) -> Result<Option<ShadowCopies>> {
        Ok(None)
    }
}
