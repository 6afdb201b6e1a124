//! The server: takes connections, one thread each, within limits.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::export::Exports;
use crate::handshake::handshake;
use crate::stream::{Address, Bell, Listener, Place, Stream};
use crate::transmission;

/// What clients may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; further ones are closed at once.
    pub connections: usize,
    /// Longest read and write in bytes.
    pub request: u32,
    /// Bytes of requests of one connection that are being answered; further ones wait.
    pub in_flight: u64,
    /// Threads that answer requests of one connection.
    pub threads: usize,
    /// Time for the whole handshake.
    pub handshake: Duration,
    /// Time without progress within a request or an answer.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            request: 32 << 20,
            in_flight: 64 << 20,
            threads: 8,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// Takes a line about a client that had to be sent away, or about a request that the disk failed.
pub type Log = dyn Fn(&str) + Send + Sync;

/// A server that listens.
pub struct Server {
    listener: Listener,
    place: Place,
    bell: Arc<Bell>,
    shared: Arc<Shared>,
}

struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    log: Box<Log>,
    stopping: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    streams: HashMap<u64, Stream>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a server from another thread.
#[derive(Clone)]
pub struct Stop {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
}

impl Stop {
    /// Lets no client in any more and ends all connections. Requests that were received are done; their answers may get lost.
    pub fn stop(&self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.bell.ring();
        self.shared.connections().streams.values().for_each(Stream::end);
    }
}

impl Server {
    /// Listens. Fails where the address is taken or may not be used.
    pub fn bind(address: &Address, exports: Arc<dyn Exports>, limits: Limits, log: Box<Log>) -> io::Result<Self> {
        let listener = Listener::bind(address)?;
        let (place, bell) = (listener.place()?, Arc::new(listener.bell()?));
        let shared = Shared { exports, limits, log, stopping: AtomicBool::new(false), connections: Mutex::default() };
        Ok(Self { listener, place, bell, shared: Arc::new(shared) })
    }

    /// Where clients reach it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What ends it.
    pub fn stopper(&self) -> Stop {
        Stop { shared: Arc::clone(&self.shared), bell: Arc::clone(&self.bell) }
    }

    /// Serves until it is stopped, and returns when all that was received is done.
    pub fn run(self) {
        std::thread::scope(|scope| {
            while !self.shared.stopping.load(Ordering::SeqCst) {
                let stream = match self.listener.accept() {
                    Ok(stream) => stream,
                    Err(_) if self.shared.stopping.load(Ordering::SeqCst) => break,
                    Err(error) => {
                        // Out of descriptors, or a client that was gone before it came: others may still come.
                        (self.shared.log)(&format!("cannot take a connection: {error}"));
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                };
                if self.shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Some(id) = self.admit(&stream) else { continue };
                let shared = &self.shared;
                let started = std::thread::Builder::new().spawn_scoped(scope, move || {
                    if let Err(error) = serve(shared, &stream) {
                        (shared.log)(&format!("a connection ended: {error}"));
                    }
                    stream.end();
                    shared.connections().streams.remove(&id);
                });
                if let Err(error) = started {
                    (self.shared.log)(&format!("cannot serve a connection: {error}"));
                    self.shared.connections().streams.remove(&id);
                }
            }
            self.shared.connections().streams.values().for_each(Stream::end);
        });
    }

    /// Keeps a connection in the list, where there is room for it.
    fn admit(&self, stream: &Stream) -> Option<u64> {
        let mut connections = self.shared.connections();
        if connections.streams.len() >= self.shared.limits.connections {
            drop(connections);
            (self.shared.log)("a connection was closed: there are as many as are allowed");
            return None;
        }
        let other = match stream.try_clone() {
            Ok(other) => other,
            Err(error) => {
                drop(connections);
                (self.shared.log)(&format!("a connection was closed: {error}"));
                return None;
            }
        };
        let id = connections.next;
        connections.next = id.saturating_add(1);
        connections.streams.insert(id, other);
        Some(id)
    }
}

fn serve(shared: &Shared, stream: &Stream) -> io::Result<()> {
    match handshake(stream, &*shared.exports, &shared.limits)? {
        Some(agreed) => transmission::serve(stream, &agreed, &shared.limits, &*shared.log),
        None => Ok(()),
    }
}
