//! QEMU's monitor: JSON lines on a connection. Source: QEMU, docs/interop/qmp-spec.txt.

use std::io::{BufRead, BufReader, Read, Write};

use serde_json::{Value, json};

use crate::boot::channel::Stream;

/// No answer that is asked for here is longer.
const LONGEST_LINE: u64 = 4 << 20;

/// A connection to the monitor of one machine.
#[derive(Debug)]
pub(crate) struct Qmp<S = Stream> {
    stream: BufReader<S>,
    /// What happened to the machine, by name, with the reason that QEMU gives.
    events: Vec<(String, String)>,
}

impl<S: Read + Write> Qmp<S> {
    /// Takes a connection whose other end greets as a monitor does.
    pub(crate) fn open(stream: S) -> Result<Self, String> {
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err("it does not greet as a QEMU monitor does".into());
        }
        qmp.ask("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Says whether the other end has a character device with this label.
    pub(crate) fn knows(&mut self, label: &str) -> Result<bool, String> {
        Ok(self.character_device(label)?.is_some())
    }

    /// What it says of its character device with this label: for a socket, how it is connected. `None` where it has no such one.
    pub(crate) fn character_device(&mut self, label: &str) -> Result<Option<String>, String> {
        let devices = self.ask("query-chardev", json!({}))?;
        let device = devices.as_array().and_then(|all| all.iter().find(|device| device["label"] == label));
        Ok(device.map(|device| device["filename"].as_str().unwrap_or_default().to_owned()))
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
    use std::io::Cursor;

    use super::*;

    /// A monitor that says what is given, whatever it is asked.
    struct Monitor(Cursor<&'static [u8]>);

    impl Read for Monitor {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl Write for Monitor {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn monitor(lines: &'static str) -> Result<Qmp<Monitor>, String> {
        Qmp::open(Monitor(Cursor::new(lines.as_bytes())))
    }

    #[test]
    fn answers_are_told_from_events_and_errors() {
        let lines = "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n{\"return\": 5}\n{\"error\": {\"desc\": \"no\"}}\n";
        let mut qmp = monitor(lines).unwrap();
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

    #[test]
    fn a_monitor_knows_its_own_character_devices() {
        let lines = "{\"QMP\": {}}\n{\"return\": {}}\n{\"return\": [{\"label\": \"a\", \"filename\": \"tcp:1\"}, {\"label\": \"b\"}]}\n{\"return\": [{\"label\": \"a\"}]}\n{\"return\": {}}\n";
        let mut qmp = monitor(lines).unwrap();
        assert_eq!(qmp.character_device("a"), Ok(Some("tcp:1".into())));
        assert_eq!(qmp.knows("b"), Ok(false));
        assert_eq!(qmp.knows("a"), Ok(false), "it is no list");
        assert!(qmp.knows("a").is_err());
    }
}
