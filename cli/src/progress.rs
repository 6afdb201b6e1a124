//! Progress on stderr: a bar on a terminal, a line now and then otherwise, and JSON lines for programs.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imgfmt::engine::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::text::{printable, short_size};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows progress of one command.
pub(crate) struct Shown {
    bar: Option<ProgressBar>,
    stage: Mutex<Stage>,
    done: AtomicU64,
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
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{msg:<12} {wide_bar} {binary_bytes:>10} / {binary_total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>4} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        let stage = Stage { name: String::new(), total: 0, started: now, said: now };
        Self { bar, stage: Mutex::new(stage), done: AtomicU64::new(0) }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn begin(&self, name: &str, total: u64) {
        let now = Instant::now();
        *self.stage.lock().expect("no holder of the lock panics") =
            Stage { name: name.to_owned(), total, started: now, said: now };
        self.done.store(0, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(total);
            bar.set_message(name.to_owned());
        }
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(bar) = &self.bar {
            if bar.length() < Some(done) {
                bar.set_length(done);
            }
            bar.set_position(done);
            return;
        }
        let mut stage = self.stage.lock().expect("no holder of the lock panics");
        if stage.said.elapsed() < LINE_EVERY {
            return;
        }
        stage.said = Instant::now();
        let milliseconds = u64::try_from(stage.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1000).checked_div(milliseconds).unwrap_or(0).max(1);
        let left = stage.total.saturating_sub(done).checked_div(rate).unwrap_or(0);
        if stage.total == 0 {
            // Nobody knew how much it would be: files are found as they are copied.
            eprintln!("{}: {}, {}/s", stage.name, short_size(done), short_size(rate));
            return;
        }
        eprintln!(
            "{}: {} of {}, {}/s, about {left} s left",
            stage.name,
            short_size(done),
            short_size(stage.total),
            short_size(rate)
        );
    }

    fn note(&self, message: &str) {
        let message = printable(message);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }
}
