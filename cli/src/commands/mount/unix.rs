//! Mounts by FUSE.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use imgfmt::error::full_message;
use imgfmt::tree::Tree;
use mount_unix::{MountError, MountOptions, Unmounted};

use crate::commands::mount::{Ender, Log, Wish};
use crate::exit::Failure;

/// What only these systems have to say of a mount.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Everything belongs to this user, by number.
    #[arg(long)]
    uid: Option<u32>,
    /// Everything belongs to this group, by number.
    #[arg(long)]
    gid: Option<u32>,
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::Failed(full_message(&error))
    }
}

/// A mount that is there.
pub(super) struct Mount(mount_unix::Mount);

impl Mount {
    /// Makes a mount.
    pub(super) fn new(tree: Arc<Tree>, wish: Wish<'_>, log: Log) -> Result<Self, Failure> {
        let options = MountOptions {
            source: wish.source,
            allow_other: wish.allow_other,
            uid: wish.options.uid,
            gid: wish.options.gid,
            readahead_bytes: wish.readahead_bytes,
            log,
        };
        Ok(Self(mount_unix::Mount::new(tree, wish.dir, &options)?))
    }

    /// What ends it.
    pub(super) fn ender(&self) -> Ender {
        let unmounter = self.0.unmounter();
        Box::new(move || Ok(unmounter.unmount().map(|_| ())?))
    }

    /// Serves it until it is taken away.
    pub(super) fn serve(self) -> Result<(), Failure> {
        Ok(self.0.serve()?)
    }
}

/// Ends the mount on `dir`.
pub(super) fn unmount(dir: &Path, lazy: bool) -> Result<(), Failure> {
    match mount_unix::unmount(dir, lazy)? {
        Unmounted::Gone | Unmounted::Detached => Ok(()),
    }
}

/// A process that is started leaves the terminal by itself.
pub(super) fn start_apart(_: &mut Command) {}

/// Makes sure that the end of the terminal is not the end of the mount.
pub(super) fn leave_terminal() {
    // It fails only for who leads a session already.
    let _ = rustix::process::setsid();
}

/// Lets go of the streams that this process was started with.
pub(super) fn let_go_of_output() -> std::io::Result<()> {
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(rustix::stdio::dup2_stdout(&nowhere)?)
}

/// The system's log.
pub(super) struct SystemLog(UnixDatagram);

impl SystemLog {
    /// Opens it; `None` where nobody listens.
    pub(super) fn open() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect("/dev/log").ok()?;
        Some(Self(socket))
    }

    /// Adds a line.
    pub(super) fn add(&self, line: &str) {
        // Facility "daemon", severity "error" (RFC 3164). There is nobody to tell where that fails.
        let _ = self.0.send(format!("<27>hikae[{}]: {line}", std::process::id()).as_bytes());
    }
}
