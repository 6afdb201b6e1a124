//! Connections: TCP and Unix sockets behind one interface.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, MetadataExt};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`; port 0 lets the system choose.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("unix: lacks a path".to_owned()) } else { Ok(Self::Unix(path.into())) };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("{text:?} is no address: say unix:PATH or HOST:PORT, such as localhost:10809")),
        }
    }
}

/// A socket that takes connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With the number of its file.
    #[cfg(unix)]
    Unix(UnixListener, PathBuf, Option<FileNumber>),
}

/// Device and inode number.
#[cfg(unix)]
type FileNumber = (u64, u64);

/// The number of what stands at a path, no link followed.
#[cfg(unix)]
fn number_of(path: &Path) -> Option<FileNumber> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(text) => {
                let addresses: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
                Ok(Self::Tcp(TcpListener::bind(addresses.as_slice())?))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                // A socket that nobody listens on is what a killed server left.
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
                let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if is_socket && UnixStream::connect(path).is_err_and(refused) {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, path.clone(), number_of(path)))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets")),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Answers are written whole: waiting for more of them only delays.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix(listener, ..) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }

    /// Where it listens, as clients are told.
    pub(crate) fn place(&self) -> io::Result<Place> {
        match self {
            Self::Tcp(listener) => Ok(Place::Tcp(listener.local_addr()?)),
            #[cfg(unix)]
            Self::Unix(_, path, _) => Ok(Place::Unix(path.clone())),
        }
    }

    /// What wakes who waits for connections here.
    pub(crate) fn bell(&self) -> io::Result<Bell> {
        match self {
            Self::Tcp(listener) => Ok(Bell::Address(listener.local_addr()?)),
            #[cfg(unix)]
            Self::Unix(listener, ..) => Ok(Bell::Socket(OwnedFd::from(listener.try_clone()?).into())),
        }
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path, number) = self {
            // Where it is gone, somebody else has removed it, and perhaps made another one.
            if number.is_some() && number_of(path) == *number {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Wakes who waits for connections.
pub(crate) enum Bell {
    /// By a connection that is let go at once.
    Address(SocketAddr),
    /// By the end of the listening socket, whose path may be gone.
    #[cfg(unix)]
    Socket(UnixStream),
}

impl Bell {
    pub(crate) fn ring(&self) {
        match self {
            Self::Address(address) => {
                let mut address = *address;
                // Who listens at all addresses is reached at this one; Windows connects to no unspecified one.
                match address {
                    SocketAddr::V4(all) if all.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                    SocketAddr::V6(all) if all.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                    _ => {}
                }
                drop(TcpStream::connect_timeout(&address, Duration::from_secs(1)));
            }
            #[cfg(unix)]
            Self::Socket(listener) => {
                let _ = listener.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Where a server listens in fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Address and port.
    Tcp(SocketAddr),
    /// Path of the socket.
    Unix(PathBuf),
}

impl Place {
    /// Whether others than this machine can reach it.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Place {
    /// As a URI of the NBD project.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "nbd://{address}"),
            Self::Unix(path) => write!(f, "nbd+unix:///?socket={}", path.display()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => Ok(Self::Tcp(stream.try_clone()?)),
            #[cfg(unix)]
            Self::Unix(stream) => Ok(Self::Unix(stream.try_clone()?)),
        }
    }

    /// Whether a read would return at once. Where the system does not tell, it may.
    #[cfg(unix)]
    pub(crate) fn has_bytes(&self) -> bool {
        let count = match self {
            Self::Tcp(stream) => rustix::io::ioctl_fionread(stream),
            Self::Unix(stream) => rustix::io::ioctl_fionread(stream),
        };
        count.is_ok_and(|count| count > 0)
    }

    #[cfg(not(unix))]
    pub(crate) fn has_bytes(&self) -> bool {
        true
    }

    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(time),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_read_timeout(time),
        }
    }

    pub(crate) fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(time),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_write_timeout(time),
        }
    }

    /// Ends the connection for every thread that uses it.
    pub(crate) fn end(&self) {
        // A connection that is gone already needs no end.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buf),
            #[cfg(unix)]
            Stream::Unix(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(buf),
            #[cfg(unix)]
            Stream::Unix(stream) => (&mut &*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_ports() {
        assert_eq!("unix:/run/a".parse(), Ok(Address::Unix("/run/a".into())));
        assert_eq!("[::1]:10809".parse(), Ok(Address::Tcp("[::1]:10809".into())));
        for wrong in ["unix:", "localhost", ":1", "localhost:port", "localhost:70000", ""] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
