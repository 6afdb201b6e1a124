//! Requests and replies: several threads take requests from the connection in turn, and each answers what it took.
//!
//! A thread that takes a request passes the connection on to another one before it answers, so that requests of a client that has several under way are
//! answered on all cores. For a client that waits for each answer that would only cost: waking a thread takes longer than reading from the cache. So
//! the connection is passed on only where requests were there lately before the answer to an earlier one.
//!
//! Source: the NBD protocol, `doc/proto.md`, section "Transmission".

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};

use imgfmt::error::full_message;
use imgfmt::{Disk, Error, Extent, ExtentKind};

use crate::handshake::Agreed;
use crate::requests::{Request, Requests};
use crate::server::{Limits, Log};
use crate::stream::Stream;
use crate::wire::{
    ALLOCATION_ID, Errno, HOLE_AND_ZERO, Message, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command,
    command_flag,
};

/// Most bytes of data in one structured reply.
const PIECE: u64 = 1 << 20;
/// Shorter holes between data are sent as data: a reply of their own costs more.
const MIN_HOLE: u64 = 16 << 10;
/// Most runs in an answer about block status.
const MAX_RUNS: usize = 4096;
/// Room in front of data for the longest header: a structured reply with an offset.
const ROOM: usize = 28;
/// Requests for which a client counts as one that has several under way, after it had.
const MEMORY: u32 = 32;

/// What the thread has that takes requests.
#[derive(Default)]
struct Source {
    requests: Requests,
    /// Why there are no more requests.
    end: Option<io::Result<()>>,
}

#[derive(Default)]
struct Load {
    /// Weight of all requests that are not answered yet.
    weight: u64,
    /// The thread that takes requests waits for that to become less.
    is_full: bool,
    /// Requests whose last reply is not on its way yet.
    unanswered: usize,
    /// Requests for which the connection is still passed on before they are answered.
    several: u32,
    /// Threads that answer a request, while another one may take the next.
    answering: usize,
    threads: usize,
}

struct Connection<'a> {
    stream: &'a Stream,
    agreed: &'a Agreed,
    limits: &'a Limits,
    log: &'a Log,
    source: Mutex<Source>,
    load: Mutex<Load>,
    /// A request was answered.
    answered: Condvar,
    /// Held by who sends a reply.
    sending: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves requests until the client leaves. An error says why the connection had to end.
pub(crate) fn serve(stream: &Stream, agreed: &Agreed, limits: &Limits, log: &Log) -> io::Result<()> {
    stream.set_write_timeout(Some(limits.stall))?;
    stream.set_read_timeout(Some(limits.stall))?;
    let connection = Connection {
        stream,
        agreed,
        limits,
        log,
        source: Mutex::default(),
        load: Mutex::new(Load { threads: 1, ..Load::default() }),
        answered: Condvar::new(),
        sending: Mutex::default(),
    };
    std::thread::scope(|scope| connection.work(scope));
    lock(&connection.source).end.take().unwrap_or(Ok(()))
}

impl Connection<'_> {
    /// Takes and answers requests until there are no more.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut buf = Vec::new();
        loop {
            let mut source = lock(&self.source);
            if source.end.is_some() {
                return;
            }
            let request = match self.receive(&mut source.requests) {
                Ok(Some(request)) => request,
                ended => {
                    source.end = Some(ended.map(|_| ()));
                    return;
                }
            };
            let mut load = lock(&self.load);
            load.weight = load.weight.saturating_add(request.weight(self.limits));
            load.unanswered = load.unanswered.saturating_add(1);
            let several = load.unanswered > 1 || !source.requests.is_empty();
            load.several = if several { MEMORY } else { load.several.saturating_sub(1) };
            if load.several == 0 {
                drop(load);
                self.answer_and_count(request, &mut buf);
                continue;
            }
            drop(source);
            load.answering = load.answering.saturating_add(1);
            let more = load.answering == load.threads && load.threads < self.limits.threads.max(1);
            if more {
                load.threads = load.threads.saturating_add(1);
            }
            drop(load);
            if more && Builder::new().spawn_scoped(scope, || self.work(scope)).is_err() {
                // Then those that are there do it.
                let mut load = lock(&self.load);
                load.threads = load.threads.saturating_sub(1);
            }
            self.answer_and_count(request, &mut buf);
            let mut load = lock(&self.load);
            load.answering = load.answering.saturating_sub(1);
        }
    }

    /// The next request, with its payload. `None` where the client leaves.
    fn receive(&self, requests: &mut Requests) -> io::Result<Option<Request>> {
        let Some(mut request) = requests.next(self.stream)? else { return Ok(None) };
        if request.command == command::WRITE && request.len > self.limits.request {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a write is longer than was agreed on"));
        }
        self.wait_for_room(request.weight(self.limits));
        if request.command == command::WRITE {
            request.payload = vec![0; usize::try_from(request.len).unwrap_or(0)];
            requests.payload(self.stream, &mut request.payload)?;
        }
        Ok(Some(request))
    }

    /// Waits until the requests that are not answered yet leave room for another one.
    fn wait_for_room(&self, weight: u64) {
        let mut load = lock(&self.load);
        while load.weight > 0 && load.weight.saturating_add(weight) > self.limits.in_flight {
            load.is_full = true;
            load = self.answered.wait(load).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answer_and_count(&self, request: Request, buf: &mut Vec<u8>) {
        let weight = request.weight(self.limits);
        // A bug in a parser costs this connection and not the server.
        if !matches!(catch_unwind(AssertUnwindSafe(|| self.answer(request, buf))), Ok(Ok(()))) {
            // Nobody takes the answers: no more requests either.
            self.stream.end();
        }
        let mut load = lock(&self.load);
        load.weight = load.weight.saturating_sub(weight);
        // Telling nobody would cost a system call all the same.
        if std::mem::take(&mut load.is_full) {
            self.answered.notify_all();
        }
    }

    fn answer(&self, request: Request, buf: &mut Vec<u8>) -> io::Result<()> {
        let checked = self.check(&request);
        match (request.command, checked) {
            (_, Err(errno)) => self.send_error(&request, errno, None),
            (command::READ, Ok(())) if self.agreed.structured => self.read_structured(&request, buf),
            (command::READ, Ok(())) => self.read_simple(&request, buf),
            (command::BLOCK_STATUS, Ok(())) => self.block_status(&request),
            (_, Ok(())) => match self.change(&request, buf) {
                Ok(()) => self.send_done(&request),
                Err(error) => self.send_error(&request, self.failed(&request, &error), None),
            },
        }
    }

    /// Says why a request cannot be done, where that is clear from itself.
    fn check(&self, request: &Request) -> Result<(), Errno> {
        let known = match request.command {
            command::READ => command_flag::DF,
            command::WRITE_ZEROES => command_flag::NO_HOLE,
            command::BLOCK_STATUS if self.agreed.allocation => command_flag::REQ_ONE,
            command::WRITE | command::FLUSH | command::TRIM | command::CACHE => 0,
            command::BLOCK_STATUS => return Err(Errno::Invalid),
            _ => return Err(Errno::NotSupported),
        };
        if request.flags & !(known | command_flag::FUA) != 0 {
            return Err(Errno::Invalid);
        }
        let writes = matches!(request.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if writes && self.agreed.export.disk.writable().is_none() {
            return Err(Errno::NotPermitted);
        }
        if matches!(request.command, command::READ) && request.len > self.limits.request {
            return Err(Errno::TooBig);
        }
        if request.command == command::FLUSH {
            return Ok(());
        }
        let end = request.offset.checked_add(request.len.into());
        let inside = end.is_some_and(|end| end <= self.agreed.export.disk.disk().len());
        match inside {
            false if writes => Err(Errno::NoSpace),
            false => Err(Errno::Invalid),
            true if request.len == 0 && request.command == command::BLOCK_STATUS => Err(Errno::Invalid),
            true => Ok(()),
        }
    }

    /// Does what has no data to answer with.
    fn change(&self, request: &Request, buf: &mut Vec<u8>) -> imgfmt::Result<()> {
        let disk = &self.agreed.export.disk;
        if request.command == command::CACHE {
            let (mut at, end) = (request.offset, request.offset.saturating_add(request.len.into()));
            while at < end {
                let part = end.saturating_sub(at).min(PIECE);
                buf.resize(usize::try_from(part).unwrap_or(0), 0);
                disk.disk().read_at(buf, at)?;
                at = at.saturating_add(part);
            }
            return Ok(());
        }
        // Without an overlay there is nothing to flush.
        let Some(disk) = disk.writable() else { return Ok(()) };
        match request.command {
            command::WRITE => disk.write_at(&request.payload, request.offset)?,
            command::WRITE_ZEROES => disk.zero_at(request.offset, request.len.into())?,
            command::TRIM => disk.discard(request.offset, request.len.into())?,
            _ => return disk.flush(),
        }
        if request.has(command_flag::FUA) { disk.flush() } else { Ok(()) }
    }

    fn read_simple(&self, request: &Request, buf: &mut Vec<u8>) -> io::Result<()> {
        const HEADER: usize = 16;
        let len = usize::try_from(request.len).unwrap_or(0);
        buf.resize(HEADER.saturating_add(len), 0);
        let (header, data) = buf.split_at_mut(HEADER);
        if let Err(error) = self.agreed.export.disk.disk().read_at(data, request.offset) {
            return self.send_error(request, self.failed(request, &error), None);
        }
        header.copy_from_slice(&Message::default().u32(SIMPLE_REPLY_MAGIC).u32(0).u64(request.cookie).0);
        let sent = self.send_last(buf);
        shrink(buf);
        sent
    }

    fn read_structured(&self, request: &Request, buf: &mut Vec<u8>) -> io::Result<()> {
        let disk = self.agreed.export.disk.disk();
        let end = request.offset.saturating_add(request.len.into());
        if request.len == 0 {
            return self.send_done(request);
        }
        if request.has(command_flag::DF) {
            self.send_piece(request, disk, request.offset, end, end, buf)?;
            shrink(buf);
            return Ok(());
        }
        let mut at = request.offset;
        while at < end {
            let extent = extent_at(disk, at, end);
            let mut stop = extent.end();
            if is_hole(&extent) {
                let len = u32::try_from(extent.len).unwrap_or(u32::MAX);
                let data = Message::default().u64(at).u32(len);
                let message = structured(request, stop == end, chunk::OFFSET_HOLE, data.0.len()).bytes(&data.0);
                if stop == end {
                    return self.send_last(&message.0);
                }
                self.send(&message.0)?;
                at = stop;
                continue;
            }
            // Data up to a hole that is worth a reply of its own.
            let most = at.saturating_add(PIECE).min(end);
            while stop < most {
                let extent = extent_at(disk, stop, end);
                if is_hole(&extent) && extent.len >= MIN_HOLE {
                    break;
                }
                stop = extent.end();
            }
            stop = stop.min(most);
            if !self.send_piece(request, disk, at, stop, end, buf)? {
                return Ok(());
            }
            at = stop;
        }
        shrink(buf);
        Ok(())
    }

    /// Sends bytes `at..stop` of a read that goes up to `end`. Returns false where they could not be read, which ends the answer.
    fn send_piece(
        &self,
        request: &Request,
        disk: &dyn Disk,
        at: u64,
        stop: u64,
        end: u64,
        buf: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let len = usize::try_from(stop.saturating_sub(at)).unwrap_or(0);
        buf.resize(ROOM.saturating_add(len), 0);
        let (header, data) = buf.split_at_mut(ROOM);
        if let Err(error) = disk.read_at(data, at) {
            let place =
                if let Error::Bad { offset, .. } = error { offset.clamp(at, stop.saturating_sub(1)) } else { at };
            self.send_error(request, self.failed(request, &error), Some(place))?;
            return Ok(false);
        }
        let head = structured(request, stop == end, chunk::OFFSET_DATA, len.saturating_add(8)).u64(at);
        header.copy_from_slice(&head.0);
        if stop == end { self.send_last(buf) } else { self.send(buf) }?;
        Ok(true)
    }

    fn block_status(&self, request: &Request) -> io::Result<()> {
        let disk = self.agreed.export.disk.disk();
        let end = request.offset.saturating_add(request.len.into());
        let most = if request.has(command_flag::REQ_ONE) { 1 } else { MAX_RUNS };
        let mut runs: Vec<(u64, u32)> = Vec::new();
        let mut at = request.offset;
        while at < end {
            let extent = match disk.extent_at(at) {
                Ok(extent) => extent,
                Err(error) => return self.send_error(request, self.failed(request, &error), None),
            };
            let flags = match extent.kind {
                ExtentKind::Zero | ExtentKind::Absent => HOLE_AND_ZERO,
                ExtentKind::Data | ExtentKind::Bad => 0,
            };
            let stop = extent.end().min(end);
            let len = stop.saturating_sub(at);
            let full = runs.len() >= most;
            match runs.last_mut() {
                Some((run, last)) if *last == flags => *run = run.saturating_add(len),
                _ if full => break,
                _ => runs.push((len, flags)),
            }
            at = stop;
        }
        let mut data = Message::default().u32(ALLOCATION_ID);
        for (len, flags) in runs {
            data = data.u32(u32::try_from(len).unwrap_or(u32::MAX)).u32(flags);
        }
        self.send_last(&structured(request, true, chunk::BLOCK_STATUS, data.0.len()).bytes(&data.0).0)
    }

    fn send_done(&self, request: &Request) -> io::Result<()> {
        let message = if self.agreed.structured && request.command == command::READ {
            structured(request, true, chunk::NONE, 0)
        } else {
            Message::default().u32(SIMPLE_REPLY_MAGIC).u32(0).u64(request.cookie)
        };
        self.send_last(&message.0)
    }

    /// Logs what the disk failed to do, since few clients say more than "input/output error". Returns the number that they get.
    fn failed(&self, request: &Request, error: &Error) -> Errno {
        let what = match request.command {
            command::READ => "read",
            command::WRITE => "write",
            command::WRITE_ZEROES => "zero",
            command::TRIM => "discard",
            command::BLOCK_STATUS => "map",
            _ => "flush",
        };
        let (Request { offset, len, .. }, of) = (request, &self.agreed.export.description);
        (self.log)(&format!("cannot {what} {len} bytes at {offset:#x} of {of}: {}", full_message(error)));
        errno_of(error)
    }

    fn send_error(&self, request: &Request, errno: Errno, place: Option<u64>) -> io::Result<()> {
        let needs_structure = matches!(request.command, command::READ | command::BLOCK_STATUS);
        let message = if self.agreed.structured && needs_structure {
            let data = Message::default().u32(errno.number()).u16(0);
            let (kind, data) = match place {
                Some(place) => (chunk::ERROR_OFFSET, data.u64(place)),
                None => (chunk::ERROR, data),
            };
            structured(request, true, kind, data.0.len()).bytes(&data.0)
        } else {
            Message::default().u32(SIMPLE_REPLY_MAGIC).u32(errno.number()).u64(request.cookie)
        };
        self.send_last(&message.0)
    }

    /// Sends the last reply to a request.
    fn send_last(&self, bytes: &[u8]) -> io::Result<()> {
        let mut load = lock(&self.load);
        load.unanswered = load.unanswered.saturating_sub(1);
        // Looked at before the client knows of the answer, and so before it can send what it waited with.
        if load.several == 0 && self.stream.has_bytes() {
            load.several = MEMORY;
        }
        drop(load);
        self.send(bytes)
    }

    /// Sends a whole reply. After a failure the connection is of no use.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _sending = lock(&self.sending);
        let mut stream = self.stream;
        stream.write_all(bytes)
    }
}

/// The header of a structured reply.
fn structured(request: &Request, done: bool, kind: u16, len: usize) -> Message {
    let flags = if done { chunk::DONE } else { 0 };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Message::default().u32(STRUCTURED_REPLY_MAGIC).u16(flags).u16(kind).u64(request.cookie).u32(len)
}

/// The extent that starts at `at`, up to `end`. What is wrong is told by the read.
fn extent_at(disk: &dyn Disk, at: u64, end: u64) -> Extent {
    let rest = Extent { offset: at, len: end.saturating_sub(at), kind: ExtentKind::Data };
    disk.extent_at(at).map_or(rest, |extent| Extent { len: extent.len.clamp(1, rest.len.max(1)), ..extent })
}

fn is_hole(extent: &Extent) -> bool {
    matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent)
}

fn errno_of(error: &Error) -> Errno {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded) => Errno::NoSpace,
        Error::OutOfRange { .. } => Errno::Invalid,
        _ => Errno::Io,
    }
}

/// Lets go of the memory of a large answer: a connection that is silent holds little.
fn shrink(buf: &mut Vec<u8>) {
    let most = usize::try_from(PIECE).unwrap_or(0).saturating_add(ROOM);
    if buf.capacity() > most {
        buf.truncate(most);
        buf.shrink_to(most);
    }
}
