//! Unix: sockets in a folder that nobody else can enter.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serve::Address;

use crate::boot::argument::value_with_path;
use crate::exit::Failure;

/// A connection.
pub(crate) type Stream = UnixStream;

/// A door that QEMU comes in by.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Opens a door of this name in `folder`.
    pub(crate) fn bind(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        let socket = UnixListener::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    /// How a character device of QEMU connects to it, as the end of its description.
    pub(crate) fn argument(&self) -> io::Result<OsString> {
        Ok(value_with_path("path=", &self.path))
    }

    /// Who has come, if somebody has.
    pub(crate) fn accept(&self) -> io::Result<Option<Stream>> {
        match self.socket.accept() {
            Ok((stream, _)) => stream.set_nonblocking(false).map(|()| Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Says whether a connection is the one that QEMU's monitor describes so. Nobody else can have come.
pub(crate) fn is_end_of(_stream: &Stream, _told: &str) -> bool {
    true
}

/// Where the disk is served, and by what name.
pub(crate) fn disk(folder: &Path) -> Result<(Address, String), Failure> {
    Ok((Address::Unix(folder.join("disk")), String::new()))
}
