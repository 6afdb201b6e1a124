//! The guest agent, where one runs in the guest: it answers, so services run. Source: QEMU, docs/interop/qemu-ga.rst and qga/qapi-schema.json.

use std::io::{Read, Write};

use crate::boot::channel::Stream;

/// The name of the agent's port in the guest.
pub(crate) const PORT: &str = "org.qemu.guest_agent.0";

/// A connection to the port of the agent, whether one listens or not.
#[derive(Debug)]
pub(crate) struct Agent(Stream);

impl Agent {
    /// Takes a connection whose other end is the port.
    pub(crate) fn open(stream: Stream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }

    /// Looks whether a sign of life has come, and asks for the next one. Never waits.
    pub(crate) fn answers(&mut self) -> bool {
        let mut answer = [0; 4096];
        let answered = self.0.read(&mut answer).is_ok_and(|len| {
            let text = String::from_utf8_lossy(answer.get(..len).unwrap_or_default());
            text.contains("\"return\"")
        });
        // An agent that has started meanwhile finds old requests; what cannot be written now is asked next time.
        let _ = self.0.write(b"{\"execute\":\"guest-ping\"}\n");
        answered
    }
}
