//! Drives by Dokan.

use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use imgfmt::error::full_message;
use imgfmt::image::id::Id;
use imgfmt::tree::Tree;
use mount_win::place::Place;
use mount_win::{MountError, MountOptions};

use crate::commands::mount::{Ender, Log, Wish};
use crate::exit::Failure;

/// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP`: without the console, and without its Ctrl-C.
const APART: u32 = 0x0000_0008 | 0x0000_0200;

/// What only Windows has to say of a mount: nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Options {}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::Failed(full_message(&error))
    }
}

/// A drive that is there.
pub(super) struct Mount {
    mount: mount_win::Mount,
    log: Log,
}

impl Mount {
    /// Makes a drive.
    pub(super) fn new(tree: Arc<Tree>, wish: Wish<'_>, log: Log) -> Result<Self, Failure> {
        let Options {} = wish.options;
        let label = Path::new(&wish.source).file_stem().map(|name| name.to_string_lossy().into_owned());
        let options = MountOptions {
            label: label.unwrap_or_default(),
            // The same image has the same number whenever it is mounted.
            serial: serial(&wish.source),
            allow_other: wish.allow_other,
            readahead_bytes: wish.readahead_bytes,
            log: Arc::clone(&log),
        };
        Ok(Self { mount: mount_win::Mount::new(tree, wish.dir, &options)?, log })
    }

    /// What ends it.
    pub(super) fn ender(&self) -> Ender {
        let unmounter = self.mount.unmounter();
        Box::new(move || {
            unmounter.unmount();
            Ok(())
        })
    }

    /// Serves it until it is taken away.
    pub(super) fn serve(self) -> Result<(), Failure> {
        let open = self.mount.serve();
        if open > 0 {
            (self.log)(&format!("the mount ended while {open} files were open in it"));
        }
        Ok(())
    }
}

fn serial(source: &str) -> u32 {
    let id = Id::of_chunk(source.as_bytes()).to_string();
    id.get(..8).and_then(|start| u32::from_str_radix(start, 16).ok()).unwrap_or(0)
}

/// Ends the drive on `dir`. Windows takes a drive away whether it is in use or not; with `lazy`, whatever was written last too.
pub(super) fn unmount(dir: &Path, lazy: bool) -> Result<(), Failure> {
    let place = match Place::parse(dir) {
        Place::Folder(folder) => Place::Folder(std::path::absolute(&folder).unwrap_or(folder)),
        letter => letter,
    };
    Ok(mount_win::unmount(&place, lazy)?)
}

/// Starts a process without the console of this one.
pub(super) fn start_apart(command: &mut Command) {
    command.creation_flags(APART);
}

/// It was started without one.
pub(super) fn leave_terminal() {}

/// Lets go of the streams that this process was started with.
pub(super) fn let_go_of_output() -> std::io::Result<()> {
    mount_win::let_go_of_output()
}

/// Windows has a log of events, for which programs must be registered; this one is not.
pub(super) enum SystemLog {}

impl SystemLog {
    /// There is none.
    pub(super) fn open() -> Option<Self> {
        None
    }

    /// Adds a line.
    pub(super) fn add(&self, _line: &str) {
        match *self {}
    }
}
