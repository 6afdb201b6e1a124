//! The doors that QEMU comes in by: that of its monitor, and that of the guest agent's port. On Windows others can come in by them, too: a program of another user
//! that knows which ports are open. It could say that a disk boots which does not; it is sent away.

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::boot::agent::{self, Agent};
use crate::boot::channel::{self, Listener, Stream, is_end_of};
use crate::boot::qmp::Qmp;
use crate::exit::Failure;

/// How long QEMU may take to connect, and to answer. A busy machine can be slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that are looked at, at each door.
const MOST: usize = 64;
/// The label of the agent's port.
const AGENT: &str = "agent";

/// The doors of one machine.
pub(crate) struct Doors {
    opened: Instant,
    monitor: Listener,
    agent: Listener,
    /// What QEMU calls its end of the monitor: nobody else knows that.
    label: String,
    /// How many were asked for the label.
    asked: usize,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Who came in by the agent's door.
    agents: Vec<Stream>,
}

/// The monitor, or why somebody was sent away.
type Answer = Result<Qmp, String>;

impl Doors {
    /// Opens them. `folder` takes sockets, where there are those.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        let open = |name| {
            Listener::bind(folder, name)
                .map_err(|error| Failure::Failed(format!("cannot open a channel to QEMU: {error}")))
        };
        Ok(Self {
            opened: Instant::now(),
            monitor: open("monitor")?,
            agent: open("agent")?,
            label: format!("monitor-{}", channel::secret()?),
            asked: 0,
            answers: channel(),
            agents: Vec::new(),
        })
    }

    /// The arguments that bring QEMU here.
    pub(crate) fn arguments(&self) -> Result<Vec<OsString>, Failure> {
        let device = |label: &str, door: &Listener| {
            let mut device = OsString::from(format!("socket,id={label},server=off,"));
            device.push(
                door.argument().map_err(|error| Failure::Failed(format!("cannot open a channel to QEMU: {error}")))?,
            );
            Ok::<_, Failure>(device)
        };
        Ok(vec![
            "-chardev".into(),
            device(&self.label, &self.monitor)?,
            "-mon".into(),
            format!("mode=control,chardev={}", self.label).into(),
            "-chardev".into(),
            device(AGENT, &self.agent)?,
            "-device".into(),
            "virtio-serial".into(),
            "-device".into(),
            format!("virtserialport,chardev={AGENT},name={}", agent::PORT).into(),
        ])
    }

    /// Waits a while for QEMU. Fails where it has not come for too long.
    pub(crate) fn wait(&mut self, while_: Duration) -> Result<Option<(Qmp, Option<Agent>)>, Failure> {
        self.let_in();
        match self.answers.1.recv_timeout(while_) {
            Ok(Ok(qmp)) => return Ok(Some(self.with_agent(qmp))),
            Ok(Err(why)) => {
                eprintln!(
                    "hikae: warning: something that is not QEMU connected to its monitor and was sent away: {why}"
                );
            }
            Err(_) => {}
        }
        if self.opened.elapsed() > PATIENCE {
            let others = match self.asked {
                0 => String::new(),
                count => format!("; {count} connections came, and none was its own"),
            };
            return Err(Failure::Failed(format!(
                "QEMU's monitor does not connect within {} s{others}",
                PATIENCE.as_secs()
            )));
        }
        Ok(None)
    }

    /// Takes all who have come. One that is gone already is none.
    fn let_in(&mut self) {
        while let Ok(Some(stream)) = self.monitor.accept() {
            if self.asked < MOST {
                self.asked = self.asked.saturating_add(1);
                let (label, answers) = (self.label.clone(), self.answers.0.clone());
                // One that says nothing keeps nobody else waiting.
                std::thread::spawn(move || {
                    let _ = answers.send(ask(stream, &label));
                });
            }
        }
        while let Ok(Some(stream)) = self.agent.accept() {
            if self.agents.len() < MOST {
                self.agents.push(stream);
            }
        }
    }

    /// The monitor, with the connection of the agent's port, which it tells from others.
    fn with_agent(&mut self, mut qmp: Qmp) -> (Qmp, Option<Agent>) {
        // QEMU connects all before its monitor speaks.
        self.let_in();
        let told = qmp.character_device(AGENT).ok().flatten().unwrap_or_default();
        let own = self.agents.drain(..).find(|stream| is_end_of(stream, &told));
        let agent = own.and_then(|stream| Agent::open(stream).ok());
        if agent.is_none() {
            eprintln!("hikae: warning: the port of the guest agent is not connected, so an agent cannot be heard");
        }
        (qmp, agent)
    }
}

/// Talks to who came in by the monitor's door: it must know the label.
fn ask(stream: Stream, label: &str) -> Answer {
    let patient = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    patient.map_err(|error| error.to_string())?;
    let mut qmp = Qmp::open(stream)?;
    match qmp.knows(label)? {
        true => Ok(qmp),
        false => Err("it does not know what QEMU was told".into()),
    }
}
