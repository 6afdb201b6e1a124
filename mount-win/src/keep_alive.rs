//! Asks for more time for calls that take long.
//!
//! Dokan takes the whole drive away when one call does not answer within its timeout. Decoding is fast, but an image on a network or a disk that
//! spins up is not. So every call is in a list while it runs; a thread looks at the list, and for each call that has been in it for longer than
//! an interval it asks Dokan for another while. A call that never ends keeps its drive, as a hung disk does; all others go on meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The list of calls, and the thread that looks at it.
#[derive(Debug)]
pub struct KeepAlive<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T> {
    calls: Mutex<Calls<T>>,
    ended: Condvar,
}

#[derive(Debug)]
struct Calls<T> {
    running: HashMap<u64, (Instant, T)>,
    next: u64,
    is_over: bool,
}

/// A call that is running; it ends with this value.
#[derive(Debug)]
pub struct Running<'a, T> {
    shared: &'a Shared<T>,
    number: u64,
}

impl<T: Send + 'static> KeepAlive<T> {
    /// Starts the thread. `extend` is called every `interval` for each call that has run for longer than that; the call cannot end meanwhile.
    pub fn start(interval: Duration, extend: impl Fn(&T) + Send + 'static) -> std::io::Result<Self> {
        let calls = Calls { running: HashMap::new(), next: 0, is_over: false };
        let shared = Arc::new(Shared { calls: Mutex::new(calls), ended: Condvar::new() });
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("keep alive".into()).spawn(move || {
            let mut calls = seen.calls.lock().expect("no holder of the lock panics");
            while !calls.is_over {
                calls = seen.ended.wait_timeout(calls, interval).expect("no holder of the lock panics").0;
                let now = Instant::now();
                for (since, call) in calls.running.values() {
                    if now.saturating_duration_since(*since) >= interval {
                        extend(call);
                    }
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Puts a call into the list until the result is dropped.
    pub fn run(&self, call: T) -> Running<'_, T> {
        let mut calls = self.shared.calls.lock().expect("no holder of the lock panics");
        let number = calls.next;
        calls.next = number.wrapping_add(1);
        calls.running.insert(number, (Instant::now(), call));
        Running { shared: &self.shared, number }
    }
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        self.shared.calls.lock().expect("no holder of the lock panics").running.remove(&self.number);
    }
}

impl<T> Drop for KeepAlive<T> {
    fn drop(&mut self) {
        self.shared.calls.lock().expect("no holder of the lock panics").is_over = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn only_calls_that_take_long_get_more_time_and_ended_ones_never() {
        let (said, heard) = mpsc::channel();
        let keep_alive =
            KeepAlive::start(Duration::from_millis(20), move |call: &u32| said.send(*call).unwrap()).unwrap();
        let slow = keep_alive.run(1);
        // Every call after it ends at once.
        for number in 2..200 {
            drop(keep_alive.run(number));
        }
        assert_eq!((heard.recv().unwrap(), heard.recv().unwrap()), (1, 1));
        drop(slow);
        while heard.try_recv().is_ok() {}
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
        drop(keep_alive);
    }
}
