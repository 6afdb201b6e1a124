//! Private channels to QEMU: its monitor, the port of the guest agent, and the disk. This process listens and QEMU connects, so QEMU opens nothing that others
//! could use.
//!
//! On Unix they are sockets in a folder that nobody else can enter. On Windows, where the standard library has none, they are ports of the loopback interface,
//! which all users of the machine can connect to. So there
//!
//! - the disk has a name that nobody can guess, which is never listed;
//! - the monitor must know a word that only the QEMU we started was given ([`Qmp::knows`](crate::boot::qmp::Qmp::knows));
//! - that monitor says which of the other connections is its own ([`is_end_of`]).
//!
//! Who connects and is not QEMU is told nothing, and is sent away. That other users do not see the arguments of a process is Windows' own rule.

#[cfg(unix)]
mod unix;
#[cfg(any(windows, test))]
#[cfg_attr(not(windows), expect(dead_code, reason = "only tested here"))]
mod windows;

use std::ffi::OsString;
use std::fmt::Write;

use serve::stream::Place;
#[cfg(unix)]
pub(crate) use unix::{Listener, Stream, disk, is_end_of};
#[cfg(windows)]
pub(crate) use windows::{Listener, Stream, disk, is_end_of};

use crate::boot::argument::value_with_path;
use crate::exit::Failure;

/// A word that nobody can guess: 128 bits of the system's random numbers.
pub(crate) fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// QEMU's words for the disk of a server.
pub(crate) fn disk_argument(before: &str, place: &Place, name: &str) -> OsString {
    let name = if name.is_empty() { String::new() } else { format!("file.export={name},") };
    let before = format!("{before}file.driver=nbd,{name}file.server.type=");
    match place {
        Place::Unix(path) => value_with_path(&format!("{before}unix,file.server.path="), path),
        Place::Tcp(address) => {
            format!("{before}inet,file.server.host={},file.server.port={}", address.ip(), address.port()).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let [one, two] = [secret().unwrap(), secret().unwrap()];
        assert!(one != two && one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one} {two}");
    }

    #[test]
    fn a_disk_is_a_socket_or_a_name_behind_a_port() {
        assert_eq!(
            disk_argument("if=none,", &Place::Unix("/a,b/disk".into()), ""),
            "if=none,file.driver=nbd,file.server.type=unix,file.server.path=/a,,b/disk"
        );
        assert_eq!(
            disk_argument("", &Place::Tcp("127.0.0.1:7".parse().unwrap()), "word"),
            "file.driver=nbd,file.export=word,file.server.type=inet,file.server.host=127.0.0.1,file.server.port=7"
        );
    }
}
