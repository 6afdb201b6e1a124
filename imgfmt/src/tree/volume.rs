//! One partition or logical volume as a folder: its files, or a notice of why there are none.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::disk::{Disk, ExtentKind};
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::{Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Xattr};
use crate::filesystem::open_files;
use crate::partition::signature::recognise;
use crate::tree::content::TextFile;
use crate::tree::disk_folder::Source;
use crate::tree::node::FOLDER;
use crate::tree::notice::{self, README_NAME};
use crate::tree::{not_a_folder, plain, seconds, stale};

/// The notice, in the folder of a volume without files.
const README: NodeId = NodeId(2);
/// Extents that are looked at to find out whether a volume is blank.
const BLANK_EXTENTS: usize = 10_000;

/// An opened volume.
#[derive(Debug)]
pub enum Volume {
    /// A filesystem.
    Files(Box<dyn FileSystem>),
    /// A text instead.
    Notice {
        /// What it says.
        text: TextFile,
        /// Seconds since 1970 that the folder shows.
        created: u64,
    },
}

impl Volume {
    /// Looks for a filesystem. Fails where one is there but damaged: that must not look like a folder without files.
    pub fn open(source: &Source, created: u64) -> Result<Self> {
        let notice = |text| Ok(Self::Notice { text: TextFile(text), created });
        let (disk, raw) = match source {
            Source::Notice(text) => return notice(text.clone()),
            Source::Disk(disk, raw) => (disk, raw),
        };
        let signature = recognise(disk)?;
        if let Some(signature) = signature.filter(|signature| signature.whole) {
            return notice(notice::not_read(signature.name, raw));
        }
        match open_files(disk) {
            Ok(Some(files)) => Ok(Self::Files(files)),
            Ok(None) => match signature {
                Some(signature) => notice(notice::not_read(signature.name, raw)),
                None if is_blank(disk)? => notice(notice::blank(raw)),
                None => notice(notice::unknown(raw)),
            },
            Err(error @ Error::Unsupported { .. }) => notice(notice::unsupported(&full_message(&error), raw)),
            Err(error) => Err(error),
        }
    }

    /// The filesystem, where there is one.
    pub fn files(&self) -> Option<&dyn FileSystem> {
        match self {
            Self::Files(files) => Some(&**files),
            Self::Notice { .. } => None,
        }
    }

    /// Its folder.
    pub fn root(&self) -> NodeId {
        self.files().map_or(NodeId(FOLDER), FileSystem::root)
    }

    /// How full it is.
    pub fn space(&self) -> Result<Space> {
        self.files().map_or(Ok(Space::default()), FileSystem::space)
    }

    /// Attributes of a node.
    pub fn attributes(&self, node: NodeId) -> Result<Attributes> {
        match self {
            Self::Files(files) => files.attributes(node),
            Self::Notice { created, .. } if node.0 == FOLDER => {
                Ok(plain(NodeKind::Folder, 0, 0, Some(seconds(*created))))
            }
            Self::Notice { text, created } if node == README => {
                Ok(plain(NodeKind::File, text.len(), text.len(), Some(seconds(*created))))
            }
            Self::Notice { .. } => Err(stale(node.0)),
        }
    }

    /// Finds a name in a folder.
    pub fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        match self {
            Self::Files(files) => files.lookup(folder, name),
            Self::Notice { .. } if folder.0 != FOLDER => Err(not_a_folder(folder)),
            Self::Notice { .. } => Ok((name == README_NAME.as_bytes()).then(readme)),
        }
    }

    /// Lists a folder.
    pub fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        match self {
            Self::Files(files) => files.list(folder, visit),
            Self::Notice { .. } if folder.0 != FOLDER => Err(not_a_folder(folder)),
            Self::Notice { .. } => {
                let _ = visit(readme());
                Ok(())
            }
        }
    }

    /// Opens a file or a named stream.
    pub fn open_file(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        match self {
            Self::Files(files) => files.open(node, stream),
            Self::Notice { text, .. } if node == README && stream.is_none() => Ok(Box::new(text.clone())),
            Self::Notice { .. } => Err(stale(node.0)),
        }
    }

    /// Where a symbolic link points.
    pub fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        self.files().map_or_else(|| Err(stale(node.0)), |files| files.link_target(node))
    }

    /// Named streams of a node.
    pub fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>> {
        self.files().map_or(Ok(Vec::new()), |files| files.streams(node))
    }

    /// Extended attributes of a node.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.files().map_or(Ok(Vec::new()), |files| files.xattrs(node))
    }
}

fn readme() -> Entry {
    Entry { name: README_NAME.as_bytes().to_vec(), node: README, kind: Some(NodeKind::File) }
}

/// Says whether no extent of the disk has data, as far as a bounded look can tell.
fn is_blank(disk: &Arc<dyn Disk>) -> Result<bool> {
    let mut at = 0;
    for _ in 0..BLANK_EXTENTS {
        if at >= disk.len() {
            return Ok(true);
        }
        let extent = disk.extent_at(at)?;
        if !matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent) {
            return Ok(false);
        }
        at = extent.end();
    }
    Ok(false)
}
