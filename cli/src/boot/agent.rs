//! The guest agent, where one runs in the guest: it answers, so services run. Source: QEMU, docs/interop/qemu-ga.rst and qga/qapi-schema.json.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The name of the agent's port in the guest.
pub(crate) const PORT: &str = "org.qemu.guest_agent.0";

/// A connection to the port of the agent, whether one listens or not.
#[derive(Debug)]
pub(crate) struct Agent(UnixStream);

impl Agent {
    /// Connects to QEMU's end of the port.
    pub(crate) fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        stream.set_write_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self(stream))
    }

    /// Asks for a sign of life and looks whether one has come, of this or an earlier call.
    pub(crate) fn answers(&mut self) -> bool {
        let mut answer = [0; 4096];
        // An agent that has started meanwhile finds old requests; what cannot be written now is asked next time.
        let _ = self.0.write(b"{\"execute\":\"guest-ping\"}\n");
        self.0.read(&mut answer).is_ok_and(|len| {
            let text = String::from_utf8_lossy(answer.get(..len).unwrap_or_default());
            text.contains("\"return\"")
        })
    }
}
