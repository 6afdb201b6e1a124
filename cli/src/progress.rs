//! Progress on stderr: a bar on a terminal, a line now and then otherwise, and JSON lines for programs.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imgfmt::engine::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::text::{printable, short_size};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Time between two lines for a program.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Shows progress of one command.
pub(crate) struct Shown {
    how: How,
    stage: Mutex<Stage>,
    done: AtomicU64,
    written: AtomicU64,
}

/// For whom it is shown.
enum How {
    Bar(ProgressBar),
    Lines,
    Json,
}

struct Stage {
    name: String,
    total: u64,
    started: Instant,
    said: Instant,
}

impl Shown {
    /// A bar where stderr is a terminal.
    pub(crate) fn new() -> Self {
        let how = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(0);
            let style = "{msg:<12} {wide_bar} {binary_bytes:>10} / {binary_total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>4} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            How::Bar(bar)
        } else {
            How::Lines
        };
        Self::with(how)
    }

    /// A line of JSON each second: `stage`, and in bytes `done`, `total`, `written`, `rate` (a second), and `left` (seconds, null where nobody knows).
    pub(crate) fn json() -> Self {
        Self::with(How::Json)
    }

    fn with(how: How) -> Self {
        let now = Instant::now();
        let stage = Stage { name: String::new(), total: 0, started: now, said: now };
        Self { how, stage: Mutex::new(stage), done: AtomicU64::new(0), written: AtomicU64::new(0) }
    }

    /// Takes the bar away, or says how far it came.
    pub(crate) fn end(&self) {
        match &self.how {
            How::Bar(bar) => bar.finish_and_clear(),
            How::Lines => {}
            How::Json => self.say(&self.stage.lock().expect("no holder of the lock panics")),
        }
    }

    fn say(&self, stage: &Stage) {
        if stage.name.is_empty() {
            return;
        }
        let (done, written) = (self.done.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        let milliseconds = u64::try_from(stage.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1000).checked_div(milliseconds).unwrap_or(0);
        let left = stage.total.saturating_sub(done).checked_div(rate);
        if matches!(self.how, How::Json) {
            let line = json!({"stage": stage.name, "done": done, "total": stage.total, "written": written,
                "rate": rate, "left": left});
            eprintln!("{line}");
            return;
        }
        if stage.total == 0 {
            // Nobody knew how much it would be: files are found as they are copied.
            eprintln!("{}: {}, {}/s", stage.name, short_size(done), short_size(rate));
            return;
        }
        let left = left.map_or_else(String::new, |left| format!(", about {left} s left"));
        let written = if written > 0 { format!(", {} written", short_size(written)) } else { String::new() };
        eprintln!(
            "{}: {} of {}{written}, {}/s{left}",
            stage.name,
            short_size(done),
            short_size(stage.total),
            short_size(rate)
        );
    }
}

impl Progress for Shown {
    fn begin(&self, name: &str, total: u64) {
        let now = Instant::now();
        let mut stage = self.stage.lock().expect("no holder of the lock panics");
        if matches!(self.how, How::Json) {
            self.say(&stage);
        }
        *stage = Stage { name: name.to_owned(), total, started: now, said: now };
        self.done.store(0, Ordering::Relaxed);
        self.written.store(0, Ordering::Relaxed);
        if let How::Bar(bar) = &self.how {
            bar.reset();
            bar.set_length(total);
            bar.set_message(name.to_owned());
        }
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let every = match &self.how {
            How::Bar(bar) => {
                if bar.length() < Some(done) {
                    bar.set_length(done);
                }
                bar.set_position(done);
                return;
            }
            How::Lines => LINE_EVERY,
            How::Json => JSON_EVERY,
        };
        let mut stage = self.stage.lock().expect("no holder of the lock panics");
        if stage.said.elapsed() >= every {
            stage.said = Instant::now();
            self.say(&stage);
        }
    }

    fn written(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let How::Bar(bar) = &self.how {
            let stage = self.stage.lock().expect("no holder of the lock panics");
            bar.set_message(format!("{}, {} written", stage.name, short_size(written)));
        }
    }

    fn note(&self, message: &str) {
        let message = printable(message);
        match &self.how {
            How::Bar(bar) => bar.suspend(|| eprintln!("{message}")),
            How::Lines => eprintln!("{message}"),
            How::Json => eprintln!("{}", json!({ "note": message })),
        }
    }
}
