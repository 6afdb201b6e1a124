//! A raw file: the bytes of the disk and nothing else.

use std::sync::Arc;

use crate::disk::Disk;
use crate::view::pieces::{Builder, View};

pub(super) fn view(disk: Arc<dyn Disk>) -> View {
    Builder::new(disk).disk().build()
}
