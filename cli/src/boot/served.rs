//! The disk as a block device for QEMU: a server of ours that nobody else gets the disk from, for as long as this value lives.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use imgfmt::image::id::Id;
use imgfmt::overlay::Overlay;
use serve::{Export, ExportName, Exports, Limits, ServedDisk, Server, Stop};

use crate::boot::channel;
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

/// The one disk of the machine, and its name, which is listed to nobody.
struct One {
    name: String,
    export: Export,
}

impl Exports for One {
    fn list(&self) -> Vec<ExportName> {
        Vec::new()
    }

    fn open(&self, name: &str) -> imgfmt::Result<Option<Export>> {
        // Where the name is a secret, the time that a comparison takes must not tell how much of it was right: that of digests says nothing of the names.
        let [asked, own] = [name, &self.name].map(|name| Id::of_chunk(name.as_bytes()));
        Ok((asked == own).then(|| self.export.clone()))
    }
}

impl Served {
    /// Serves a disk; what is written goes to the overlay it comes with. `folder` takes a socket, where there are those.
    pub(crate) fn start(disk: ServedDisk, overlay: Option<Overlay>, folder: &Path) -> Result<Self, Failure> {
        let (address, name) = channel::disk(folder)?;
        let sector_size = disk.disk().sector_size();
        let keeps_writes = disk.writable().is_some();
        let exports = Arc::new(One { name: name.clone(), export: Export { disk, description: "the disk".into() } });
        let server = Server::bind(&address, exports, Limits::default(), log_to_stderr())
            .map_err(|error| Failure::Failed(format!("cannot show the disk to QEMU: {error}")))?;
        let stop = server.stopper();
        let place = server.place().clone();
        let server = Some(std::thread::spawn(move || server.run()));
        Ok(Self { stop, server, overlay, drive: Drive { place, name, sector_size, keeps_writes } })
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
