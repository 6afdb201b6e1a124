//! The disk as a file for QEMU: a mount in a folder that nobody else can enter, for as long as this value lives.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use imgfmt::Disk;
use imgfmt::format::identity::Identity;
use imgfmt::tree::{Tree, TreeOptions};
use mount_unix::{Log, Mount, MountOptions, Unmounter};

use crate::boot::machine::Drive;
use crate::exit::Failure;
use crate::text::printable;

/// A disk that QEMU can open.
pub(crate) struct Served {
    unmounter: Unmounter,
    server: Option<JoinHandle<()>>,
    /// Where it is.
    pub(crate) drive: Drive,
}

impl Served {
    /// Shows a disk in `folder`.
    pub(crate) fn start(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Failed(format!("cannot show the disk to QEMU: {error}"));
        let at = folder.join("disk");
        std::fs::create_dir(&at).map_err(failed)?;
        let sector_size = disk.sector_size();
        let tree = Tree::of_disk(disk, &Identity::random(0), &TreeOptions::default());
        let log: Log = Arc::new(|line: &str| eprintln!("hikae: {}", printable(line)));
        let options = MountOptions {
            source: "hikae boot".into(),
            allow_other: false,
            uid: None,
            gid: None,
            readahead_bytes: 64 << 20,
            log,
        };
        let mount = Mount::new(Arc::new(tree), &at, &options)?;
        let unmounter = mount.unmounter();
        let server = std::thread::spawn(move || {
            if let Err(error) = mount.serve() {
                eprintln!("hikae: {error}");
            }
        });
        let drive = Drive { file: at.join("disk.raw"), sector_size };
        Ok(Self { unmounter, server: Some(server), drive })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.unmounter.unmount().is_ok()
            && let Some(server) = self.server.take()
        {
            let _ = server.join();
        }
    }
}
