//! What is served: disks by name.

use std::sync::Arc;

use imgfmt::{Disk, Result, WritableDisk};

/// A disk, and whether clients may write to it.
#[derive(Clone)]
pub enum ServedDisk {
    /// Writes are refused.
    ReadOnly(Arc<dyn Disk>),
    /// Writes go to it: an overlay.
    Writable(Arc<dyn WritableDisk>),
}

impl ServedDisk {
    /// The disk for reading.
    pub fn disk(&self) -> &dyn Disk {
        match self {
            Self::ReadOnly(disk) => &**disk,
            Self::Writable(disk) => &**disk,
        }
    }

    /// The disk for writing, where clients may.
    pub fn writable(&self) -> Option<&dyn WritableDisk> {
        match self {
            Self::ReadOnly(_) => None,
            Self::Writable(disk) => Some(&**disk),
        }
    }
}

/// A disk that a client asked for.
#[derive(Clone)]
pub struct Export {
    /// Its bytes.
    pub disk: ServedDisk,
    /// One line for people.
    pub description: String,
}

/// An entry in the list of what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportName {
    /// What a client asks for; at most 4096 bytes.
    pub name: String,
    /// One line for people.
    pub description: String,
}

/// All that is served. Asked by many threads.
pub trait Exports: Send + Sync {
    /// What there is, for clients that ask.
    fn list(&self) -> Vec<ExportName>;

    /// Opens what a client asks for; the empty name is the default. `None` where there is nothing of that name.
    fn open(&self, name: &str) -> Result<Option<Export>>;
}
