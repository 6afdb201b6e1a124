//! Windows: ports of the loopback interface, to which every user of the machine can connect. Nobody else can take one that is open: that is only possible for
//! sockets which allow it.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serve::Address;

use crate::exit::Failure;

/// A connection.
pub(crate) type Stream = TcpStream;

/// A door that QEMU comes in by, and others may try.
#[derive(Debug)]
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Opens a door. It has no name.
    pub(crate) fn bind(_folder: &Path, _name: &str) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// How a character device of QEMU connects to it, as the end of its description.
    pub(crate) fn argument(&self) -> io::Result<OsString> {
        let address = self.0.local_addr()?;
        Ok(format!("host={},port={}", address.ip(), address.port()).into())
    }

    /// Who has come, if somebody has.
    pub(crate) fn accept(&self) -> io::Result<Option<Stream>> {
        match self.0.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                // Each request is one small write, and waits for its answer.
                stream.set_nodelay(true)?;
                Ok(Some(stream))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Says whether a connection is the one that QEMU's monitor describes so: `tcp:ITS ADDRESS <-> OURS`. Source: QEMU, `qemu_chr_compute_filename` in chardev/char-socket.c.
pub(crate) fn is_end_of(stream: &Stream, told: &str) -> bool {
    let Some((theirs, ours)) = told.strip_prefix("tcp:").and_then(|ends| ends.split_once(" <-> ")) else {
        return false;
    };
    let is = |text: &str, address: io::Result<SocketAddr>| {
        text.parse().is_ok_and(|told: SocketAddr| address.is_ok_and(|address| address == told))
    };
    is(theirs, stream.peer_addr()) && is(ours, stream.local_addr())
}

/// Where the disk is served, and by what name.
pub(crate) fn disk(_folder: &Path) -> Result<(Address, String), Failure> {
    Ok((Address::Tcp("127.0.0.1:0".into()), super::secret()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_both_of_its_ends() {
        let door = Listener::bind(Path::new(""), "").unwrap();
        assert!(door.accept().unwrap().is_none());
        let address = door.0.local_addr().unwrap();
        assert_eq!(door.argument().unwrap(), *format!("host=127.0.0.1,port={}", address.port()));
        let [one, two] = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let first = loop {
            if let Some(first) = door.accept().unwrap() {
                break first;
            }
        };
        let told = |stream: &TcpStream| format!("tcp:{} <-> {address}", stream.local_addr().unwrap());
        assert!(is_end_of(&first, &told(&one)) && !is_end_of(&first, &told(&two)));
        for wrong in [format!("disconnected:tcp:{address}"), told(&one).replace("tcp:", ""), String::new()] {
            assert!(!is_end_of(&first, &wrong), "{wrong}");
        }
    }
}
