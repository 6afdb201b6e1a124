//! A machine without a display, watched until it is clear whether it boots.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use imgfmt::engine::Cancel;
use serde_json::json;

use crate::boot::agent::Agent;
use crate::boot::doors::Doors;
use crate::boot::evidence::{Decision, Look, ScreenText, Watch};
use crate::boot::phrases::Reading;
use crate::boot::process::{Tie, set_apart};
use crate::boot::programs::{tesseract, told};
use crate::boot::qmp::Qmp;
use crate::boot::screen::{self, CURSOR, Picture, TEXT_LEN, TEXT_MEMORY};
use crate::exit::Failure;
use crate::text::printable;

/// Time between two looks at the screen.
const PERIOD: Duration = Duration::from_millis(500);
/// Text of QEMU's own complaints that is kept.
const COMPLAINTS: u64 = 4096;

/// What was seen of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What was decided.
    pub(crate) decision: Decision,
    /// Time from its start to the decision.
    pub(crate) took: Duration,
    /// What it wrote to its serial port, the end of it.
    pub(crate) serial: String,
    /// What its screen said at the end, where that could be read.
    pub(crate) screen: Option<ScreenText>,
    /// The last picture, as a PNG file.
    pub(crate) picture: Option<Vec<u8>>,
}

/// A running machine; it ends with this value.
struct Running {
    child: Child,
    tie: Tie,
    qmp: Option<Qmp>,
    /// Takes pictures and the like.
    folder: PathBuf,
    /// The last picture whose text was recognised, which takes long: it is not done again while the picture stands still.
    recognised: Option<(Picture, Option<ScreenText>)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first, so that it lets its disk go in order. The answer may get lost where it is quick.
        if let Some(qmp) = &mut self.qmp {
            let _ = qmp.ask("quit", json!({}));
        }
        let start = Instant::now();
        while self.qmp.is_some() && start.elapsed() < Duration::from_secs(5) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `command`, a machine without a display, and watches it for `limit` at most. `folder` takes its sockets and pictures.
pub(crate) fn watch(
    command: Command,
    expected: Vec<String>,
    limit: Duration,
    folder: &Path,
    cancel: &Cancel,
) -> Result<Seen, Failure> {
    let (mut running, mut agent, serial) = start(command, folder)?;
    let mut watch = Watch::new(expected);
    let begun = Instant::now();
    ask(&mut running, "cont", json!({}))?;
    let mut last: Option<Picture> = None;
    let mut blind = false;
    let mut next_look = PERIOD;
    let (mut picture, mut text) = (None, None);
    let decision = 'decided: loop {
        cancel.check()?;
        let until_look = next_look.saturating_sub(begun.elapsed());
        match serial.recv_timeout(until_look.min(PERIOD)) {
            Ok(bytes) => {
                if let Some(decision) = watch.heard(&bytes) {
                    break decision;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // QEMU has closed its end: it is about to end, or has.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
        }
        if let Ok(Some(status)) = running.child.try_wait() {
            // What it said at the end may still be on its way.
            while let Ok(bytes) = serial.recv_timeout(Duration::from_millis(200)) {
                if let Some(decision) = watch.heard(&bytes) {
                    break 'decided decision;
                }
            }
            // Who ended both says nothing of the disk.
            cancel.check()?;
            break watch.ended(&format!("the virtual machine ended: {status}"));
        }
        if begun.elapsed() >= limit {
            break watch.time_is_over(limit);
        }
        if begun.elapsed() < next_look {
            continue;
        }
        next_look = begun.elapsed().saturating_add(PERIOD);
        if agent.as_mut().is_some_and(Agent::answers)
            && let Some(decision) = watch.agent_answered()
        {
            break decision;
        }
        // The machine stops where it would restart or switch itself off. Where the monitor is gone QEMU has ended, which the next round finds.
        if ask(&mut running, "query-status", json!({})).is_err() {
            continue;
        }
        if let Some(reason) = running.qmp.as_ref().and_then(|qmp| qmp.reason_of("SHUTDOWN")) {
            let why = if reason == "guest-reset" {
                "the guest restarted the machine"
            } else {
                "the guest switched the machine off"
            };
            while let Ok(bytes) = serial.recv_timeout(Duration::from_millis(200)) {
                if let Some(decision) = watch.heard(&bytes) {
                    break 'decided decision;
                }
            }
            break watch.ended(why);
        }
        let current = take_picture(&mut running);
        if let Err(why) = &current
            && !std::mem::replace(&mut blind, true)
        {
            eprintln!("hikae: warning: the screen cannot be seen, so what it shows does not count: {}", printable(why));
        }
        let (Ok(current), Some(read)) = (current, bytes_read(&mut running)) else { continue };
        let look = Look {
            at: begun.elapsed(),
            changed: last.as_ref().is_none_or(|last| last.differences(&current) > CURSOR),
            blank: current.is_blank(),
            processor: running.tie.processor_time(),
            paging: has_paging(&mut running),
            read,
        };
        let decision = watch.looked(look, || read_text(&mut running, &current));
        if look.changed {
            // Compared with the picture that was there when it last changed: small steps add up.
            last = Some(current);
        }
        if let Some(decision) = decision {
            break decision;
        }
    };
    let took = begun.elapsed();
    if matches!(running.child.try_wait(), Ok(None)) {
        // A line that has just been written is on the screen a moment later.
        std::thread::sleep(Duration::from_millis(300));
        picture = png(&mut running);
        text = take_picture(&mut running).ok().and_then(|picture| read_text(&mut running, &picture));
    }
    Ok(Seen { decision, took, serial: watch.serial(), screen: text, picture })
}

/// A machine, the port of its agent, and what it says on its serial port.
type Started = (Running, Option<Agent>, Receiver<Vec<u8>>);

fn start(mut command: Command, folder: &Path) -> Result<Started, Failure> {
    let mut doors = Doors::open(folder)?;
    // Stopped until everything is connected; a restart or the end of the guest stops it again, with an event that says which.
    command.args(["-S", "-display", "none", "-no-reboot", "-no-shutdown"]);
    command.args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
    command.args(doors.arguments()?);
    // Ctrl-C is for this process, which asks QEMU to end.
    set_apart(&mut command);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| Failure::Failed(format!("cannot start QEMU: {error}")))?;
    let tie = Tie::of(&child);
    let (heard, serial) = channel();
    let (out, complaints) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        let Some(mut out) = out else { return };
        let mut buf = [0; 4096];
        while let Ok(len @ 1..) = out.read(&mut buf) {
            if heard.send(buf.get(..len).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut complaints) = complaints {
            let _ = (&mut complaints).take(COMPLAINTS).read_to_string(&mut text);
            // A pipe that nobody empties would stop QEMU.
            let _ = std::io::copy(&mut complaints, &mut std::io::sink());
        }
        text
    });
    let mut running = Running { child, tie, qmp: None, folder: folder.to_owned(), recognised: None };
    loop {
        if let Ok(Some(status)) = running.child.try_wait() {
            let text = complaints.join().unwrap_or_default();
            return Err(Failure::Failed(format!("QEMU does not start ({status}): {}", text.trim())));
        }
        if let Some((qmp, agent)) = doors.wait(Duration::from_millis(20))? {
            running.qmp = Some(qmp);
            return Ok((running, agent, serial));
        }
    }
}

impl Running {
    /// A file in the folder, and how QEMU is told of it.
    fn file(&self, name: &str) -> (PathBuf, String) {
        let path = self.folder.join(name);
        let told = told(&path.to_string_lossy());
        (path, told)
    }
}

fn ask(running: &mut Running, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value, Failure> {
    let Some(qmp) = &mut running.qmp else { return Err(Failure::Failed("QEMU's monitor is not connected".into())) };
    qmp.ask(command, arguments).map_err(|error| Failure::Failed(format!("QEMU's monitor: {command}: {error}")))
}

fn take_picture(running: &mut Running) -> Result<Picture, String> {
    let (file, told) = running.file("picture.ppm");
    ask(running, "screendump", json!({"filename": told})).map_err(|error| error.message())?;
    let picture = std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Picture::parse(&picture).ok_or_else(|| format!("{} is no picture", file.display()))
}

/// The screen as a PNG file; QEMU writes those since 7.1.
fn png(running: &mut Running) -> Option<Vec<u8>> {
    let (file, told) = running.file("picture.png");
    ask(running, "screendump", json!({"filename": told, "format": "png"})).ok()?;
    std::fs::read(file).ok()
}

fn bytes_read(running: &mut Running) -> Option<u64> {
    let drives = ask(running, "query-blockstats", json!({})).ok()?;
    let read = drives.as_array()?.iter().filter_map(|drive| drive["stats"]["rd_bytes"].as_u64());
    Some(read.fold(0, u64::saturating_add))
}

/// Whether paging is on: bit 31 of control register 0, as the monitor for people prints it. Source: Intel SDM 3A, 2.5.
fn has_paging(running: &mut Running) -> bool {
    let registers = ask(running, "human-monitor-command", json!({"command-line": "info registers"}));
    let text = registers.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
    let register = text.split_whitespace().find_map(|word| word.strip_prefix("CR0="));
    register.and_then(|digits| u64::from_str_radix(digits, 16).ok()).is_some_and(|bits| bits & (1 << 31) != 0)
}

/// The text of the screen: from the guest's memory in a text mode, else by tesseract where that is installed.
fn read_text(running: &mut Running, picture: &Picture) -> Option<ScreenText> {
    if picture.may_be_text() {
        let (file, told) = running.file("text");
        ask(running, "pmemsave", json!({"val": TEXT_MEMORY, "size": TEXT_LEN, "filename": told})).ok()?;
        if let Some(lines) = screen::text(&std::fs::read(file).ok()?) {
            return Some(ScreenText { text: lines.join("\n"), reading: Reading::Exact });
        }
    }
    if let Some((of, text)) = &running.recognised
        && of.differences(picture) <= CURSOR
    {
        return text.clone();
    }
    let text = recognise(running);
    running.recognised = Some((picture.clone(), text.clone()));
    text
}

/// What tesseract reads from the screen; `None` where it is not installed or sees nothing.
fn recognise(running: &mut Running) -> Option<ScreenText> {
    png(running)?;
    let mut tesseract = Command::new(tesseract());
    // One thread: the guest needs the processor too.
    tesseract.arg(running.folder.join("picture.png")).args(["-", "--psm", "6"]).env("OMP_THREAD_LIMIT", "1");
    let ran = tesseract.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    (ran.status.success() && !text.trim().is_empty()).then_some(ScreenText { text, reading: Reading::Recognised })
}
