//! The disk as a block device for QEMU: a server of ours on a socket in a folder that nobody else can enter, for as long as this value lives.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use imgfmt::overlay::Overlay;
use serve::{Address, Export, ExportName, Exports, Limits, ServedDisk, Server, Stop};

use crate::boot::machine::Drive;
use crate::exit::Failure;
use crate::last_lines::log_to_stderr;

/// A disk that QEMU can open.
pub(crate) struct Served {
    stop: Stop,
    server: Option<JoinHandle<()>>,
    /// Takes what the guest writes, where it is to be kept.
    overlay: Option<Overlay>,
    /// Where it is.
    pub(crate) drive: Drive,
}

/// The one disk of the machine.
struct One(Export);

impl Exports for One {
    fn list(&self) -> Vec<ExportName> {
        vec![ExportName { name: String::new(), description: self.0.description.clone() }]
    }

    fn open(&self, name: &str) -> imgfmt::Result<Option<Export>> {
        Ok(name.is_empty().then(|| self.0.clone()))
    }
}

impl Served {
    /// Serves a disk from a socket in `folder`; what is written goes to the overlay it comes with.
    pub(crate) fn start(disk: ServedDisk, overlay: Option<Overlay>, folder: &Path) -> Result<Self, Failure> {
        let socket = folder.join("disk");
        let sector_size = disk.disk().sector_size();
        let keeps_writes = disk.writable().is_some();
        let exports = Arc::new(One(Export { disk, description: "the disk".into() }));
        let server = Server::bind(&Address::Unix(socket.clone()), exports, Limits::default(), log_to_stderr())
            .map_err(|error| Failure::Failed(format!("cannot show the disk to QEMU: {error}")))?;
        let stop = server.stopper();
        let server = Some(std::thread::spawn(move || server.run()));
        Ok(Self { stop, server, overlay, drive: Drive { socket, sector_size, keeps_writes } })
    }

    /// Ends the server and makes all that the guest wrote durable.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.end();
        match self.overlay.take() {
            Some(overlay) => Ok(overlay.flush()?),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.stop.stop();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
