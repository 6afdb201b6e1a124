//! QEMU's monitor: JSON lines on a socket. Source: QEMU, docs/interop/qmp-spec.txt.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// No answer that is asked for here is longer.
const LONGEST_LINE: u64 = 4 << 20;

/// A connection to the monitor of one machine.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    /// What happened to the machine, by name, with the reason that QEMU gives.
    events: Vec<(String, String)>,
}

impl Qmp {
    /// Connects to a machine that listens there. An answer that takes longer than `patience` is a failure.
    pub(crate) fn connect(socket: &Path, patience: Duration) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err("it does not greet as a QEMU monitor does".into());
        }
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer. Events that come meanwhile are kept.
    pub(crate) fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        loop {
            let mut message = self.read()?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                return Err(error["desc"].as_str().unwrap_or("an error without a description").to_owned());
            }
            if let Some(event) = message["event"].as_str() {
                let reason = message["data"]["reason"].as_str().unwrap_or_default();
                self.events.push((event.to_owned(), reason.to_owned()));
            }
        }
    }

    /// The reason that the last event of a name gave; `None` where there was none.
    pub(crate) fn reason_of(&self, event: &str) -> Option<&str> {
        self.events.iter().rfind(|(name, _)| name == event).map(|(_, reason)| reason.as_str())
    }

    fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_line(&mut line).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("it closed the connection".into());
        }
        serde_json::from_str(&line).map_err(|error| format!("it answers what is no JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A monitor that says what is given, whatever it is asked.
    fn monitor(lines: &'static str) -> Result<(Qmp, UnixStream), String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let talk = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(lines.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream
        });
        let qmp = Qmp::connect(&socket, Duration::from_secs(5));
        // Its end stays open, so that it can be asked.
        let stream = talk.join().unwrap();
        qmp.map(|qmp| (qmp, stream))
    }

    #[test]
    fn answers_are_told_from_events_and_errors() {
        let lines = "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n{\"return\": 5}\n{\"error\": {\"desc\": \"no\"}}\n";
        let (mut qmp, _open) = monitor(lines).unwrap();
        assert_eq!(qmp.ask("one", json!({})), Ok(json!(5)));
        assert_eq!(qmp.reason_of("SHUTDOWN"), Some("guest-reset"));
        assert_eq!(qmp.reason_of("RESET"), None);
        assert_eq!(qmp.ask("two", json!({})), Err("no".into()));
    }

    #[test]
    fn what_is_no_monitor_is_refused() {
        assert!(monitor("SSH-2.0\n").is_err());
        assert!(monitor("{}\n").is_err());
        assert!(monitor("").is_err());
    }
}
