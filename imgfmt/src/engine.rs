//! The one copy engine: jobs in order, work on all cores, results in order, memory bounded.
//!
//! Capture, verify, export and restore are all this loop with other jobs, work and sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::error::{Error, Result};

/// A request to stop, shared between whoever asks and whoever works.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop at the next job.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// [`Error::Cancelled`] once somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Hears of progress, from any thread.
pub trait Progress: Sync {
    /// A stage begins: what it does, and how many bytes it will go through.
    fn begin(&self, stage: &str, total: u64);
    /// So many bytes more are done.
    fn advance(&self, bytes: u64);
    /// So many of these bytes were written; the others were right already.
    fn written(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Something the user should see now.
    fn note(&self, message: &str);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
}

/// What every run of the engine is given.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// Stops the run between two jobs.
    pub cancel: &'a Cancel,
    /// Hears of progress.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Run<'_> {
    /// Worker threads, at least one.
    pub fn workers(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(2, usize::from) }
    }
}

/// Jobs that may be under way or wait for the sink, for each worker: enough that a slow one does not stop the others.
const WINDOW_PER_WORKER: usize = 4;

/// The state between workers and sink.
struct Window<Out> {
    /// Results that came before their turn.
    done: BTreeMap<u64, Result<Out>>,
    /// Results that the sink has taken.
    taken: u64,
    /// Jobs that there were, once that is known.
    total: Option<u64>,
    /// Somebody failed: start nothing more.
    stop: bool,
}

/// Takes jobs from `next` (under a lock, in order) until it returns `None`, does `work` on them on all workers, and hands the
/// results to `sink` on this thread, in the order of the jobs.
///
/// At most a few jobs for each worker are in memory. The first error in the order of the jobs ends the run and is returned.
pub fn run_ordered<Job: Send, Out: Send, State>(
    run: Run<'_>,
    next: impl FnMut() -> Result<Option<Job>> + Send,
    state: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, Job) -> Result<Out> + Sync,
    mut sink: impl FnMut(Out) -> Result<()>,
) -> Result<()> {
    let workers = run.workers();
    let most = u64::try_from(workers.saturating_mul(WINDOW_PER_WORKER)).unwrap_or(u64::MAX);
    let feed = Mutex::new((next, 0_u64));
    let window = Mutex::new(Window { done: BTreeMap::new(), taken: 0, total: None, stop: false });
    let (ready, room) = (Condvar::new(), Condvar::new());

    let worker = || {
        // A worker that panics must not leave the sink waiting.
        let _guard = StopOnDrop { window: &window, ready: &ready, room: &room };
        let mut state = state();
        loop {
            let (job, number) = {
                let mut feed = feed.lock().expect("no holder of the lock panics");
                let (next, number) = &mut *feed;
                let mut waiting = window.lock().expect("no holder of the lock panics");
                while !waiting.stop && number.saturating_sub(waiting.taken) >= most {
                    waiting = room.wait(waiting).expect("no holder of the lock panics");
                }
                if waiting.stop || waiting.total.is_some() {
                    return;
                }
                drop(waiting);
                let job = run.cancel.check().and_then(|()| next());
                let mine = *number;
                match job {
                    Ok(None) => {
                        window.lock().expect("no holder of the lock panics").total = Some(mine);
                        ready.notify_all();
                        return;
                    }
                    Ok(Some(job)) => {
                        *number = mine.saturating_add(1);
                        (Ok(job), mine)
                    }
                    Err(error) => {
                        *number = mine.saturating_add(1);
                        window.lock().expect("no holder of the lock panics").total = Some(*number);
                        (Err(error), mine)
                    }
                }
            };
            let out = job.and_then(|job| work(&mut state, job));
            window.lock().expect("no holder of the lock panics").done.insert(number, out);
            ready.notify_all();
        }
    };

    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
        let mut result = Ok(());
        loop {
            let mut waiting = window.lock().expect("no holder of the lock panics");
            let out = loop {
                let turn = waiting.taken;
                if let Some(out) = waiting.done.remove(&turn) {
                    break Some(out);
                }
                if waiting.stop || waiting.total == Some(turn) {
                    break None;
                }
                waiting = ready.wait(waiting).expect("no holder of the lock panics");
            };
            waiting.taken = waiting.taken.saturating_add(1);
            drop(waiting);
            room.notify_all();
            match out {
                None => break,
                Some(out) => result = out.and_then(&mut sink),
            }
            if result.is_err() {
                break;
            }
        }
        window.lock().expect("no holder of the lock panics").stop = true;
        room.notify_all();
        result
    })
}

/// Stops the run when a worker unwinds.
struct StopOnDrop<'a, Out> {
    window: &'a Mutex<Window<Out>>,
    ready: &'a Condvar,
    room: &'a Condvar,
}

impl<Out> Drop for StopOnDrop<'_, Out> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Ok(mut window) = self.window.lock() {
                window.stop = true;
            }
            self.ready.notify_all();
            self.room.notify_all();
        }
    }
}

/// A run that nobody watches and nobody stops, on all cores.
pub fn quiet(cancel: &Cancel) -> Run<'_> {
    Run { threads: 0, cancel, progress: &Quiet }
}

/// [`Error::Cancelled`], for callers that only have the error.
pub fn is_cancelled(error: &Error) -> bool {
    matches!(error, Error::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn counting(end: u64) -> impl FnMut() -> Result<Option<u64>> + Send {
        let mut at = 0;
        move || {
            at += 1;
            Ok((at <= end).then_some(at))
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let cancel = Cancel::default();
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            run_ordered(
                Run { threads, ..quiet(&cancel) },
                counting(1000),
                || (),
                |(), n| {
                    if n % 17 == 0 {
                        std::thread::sleep(std::time::Duration::from_micros(300));
                    }
                    Ok(n * 2)
                },
                |n| {
                    seen.push(n);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(seen, (1..=1000).map(|n| n * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_than_the_window_is_under_way() {
        let (cancel, under_way, most) = (Cancel::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        run_ordered(
            Run { threads: 3, ..quiet(&cancel) },
            counting(200),
            || (),
            |(), n| {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Ok(n)
            },
            |_| {
                std::thread::sleep(std::time::Duration::from_micros(200));
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
        )
        .unwrap();
        assert!(most.load(Ordering::SeqCst) <= 3 * WINDOW_PER_WORKER + 1);
    }

    #[test]
    fn the_first_error_ends_the_run_wherever_it_comes_from() {
        let cancel = Cancel::default();
        let failed = |n: u64| Error::NotFound(n.to_string());
        let text = |result: Result<()>| result.unwrap_err().to_string();
        let work = |(): &mut (), n| if n >= 10 { Err(failed(n)) } else { Ok(n) };
        assert_eq!(text(run_ordered(quiet(&cancel), counting(50), || (), work, |_| Ok(()))), "10");
        let sink = |n| if n == 5 { Err(failed(n)) } else { Ok(()) };
        assert_eq!(text(run_ordered(quiet(&cancel), counting(50), || (), |(), n| Ok(n), sink)), "5");
        let mut at = 0;
        let next = move || {
            at += 1;
            if at == 3 { Err(Error::NotFound("next".into())) } else { Ok(Some(at)) }
        };
        assert_eq!(text(run_ordered(quiet(&cancel), next, || (), |(), n: i32| Ok(n), |_| Ok(()))), "next");
        cancel.cancel();
        assert!(run_ordered(quiet(&cancel), counting(50), || (), |(), n| Ok(n), |_| Ok(())).is_err());
    }
}
