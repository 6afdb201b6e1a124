//! Requests and replies: one thread takes requests from the connection, several answer them.
//!
//! Source: the NBD protocol, `doc/proto.md`, section "Transmission".

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use imgfmt::{Disk, Error, ExtentKind};

use crate::handshake::Agreed;
use crate::server::Limits;
use crate::stream::Stream;
use crate::wire::{
    ALLOCATION_ID, Errno, Fields, HOLE_AND_ZERO, Message, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
    chunk, command, command_flag,
};

/// Bytes of a request without its payload.
const REQUEST_LEN: usize = 28;
/// Most bytes of data in one structured reply.
const PIECE: u64 = 1 << 20;
/// Shorter holes between data are sent as data: a reply of their own costs more.
const MIN_HOLE: u64 = 16 << 10;
/// Most runs in an answer about block status.
const MAX_RUNS: usize = 4096;
/// What a request counts for beside its data.
const REQUEST_WEIGHT: u64 = 4096;
/// Room in front of data for the longest header: a structured reply with an offset.
const ROOM: usize = 28;

/// A request with its payload.
#[derive(Debug)]
struct Request {
    flags: u16,
    command: u16,
    /// What the client knows it by.
    cookie: u64,
    offset: u64,
    len: u32,
    payload: Vec<u8>,
}

impl Request {
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of memory that it takes until it is answered, about. A read that is longer than was agreed on is not done.
    fn weight(&self, limits: &Limits) -> u64 {
        let data = match self.command {
            command::READ | command::WRITE if self.len <= limits.request => u64::from(self.len),
            _ => 0,
        };
        data.saturating_add(REQUEST_WEIGHT)
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Weight of all requests that are not answered yet.
    weight: u64,
    /// Threads that have nothing to do.
    idle: usize,
    threads: usize,
    closed: bool,
}

struct Connection<'a> {
    stream: &'a Stream,
    agreed: &'a Agreed,
    limits: &'a Limits,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Held by who sends a reply.
    sending: Mutex<()>,
}

/// Serves requests until the client leaves. An error says why the connection had to end.
pub(crate) fn serve(stream: &Stream, agreed: &Agreed, limits: &Limits) -> io::Result<()> {
    stream.set_write_timeout(Some(limits.stall))?;
    stream.set_read_timeout(Some(limits.stall))?;
    let connection = Connection {
        stream,
        agreed,
        limits,
        queue: Mutex::default(),
        changed: Condvar::new(),
        sending: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let result = loop {
            let request = match connection.receive() {
                Ok(Some(request)) => request,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if connection.put(request)
                && let Err(error) = std::thread::Builder::new().spawn_scoped(scope, || connection.work())
            {
                let mut queue = connection.queue();
                queue.threads = queue.threads.saturating_sub(1);
                if queue.threads == 0 {
                    break Err(error);
                }
            }
        };
        connection.queue().closed = true;
        connection.changed.notify_all();
        result
    })
}

impl Connection<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request, with its payload. `None` where the client leaves.
    fn receive(&self) -> io::Result<Option<Request>> {
        let mut header = [0; REQUEST_LEN];
        // A client may be silent between requests for as long as it likes, and no longer within one.
        let mut filled = 0;
        let mut stream = self.stream;
        while filled < REQUEST_LEN {
            match stream.read(header.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 && is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut fields = Fields(&header);
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "a request is not as the protocol has it");
        if fields.u32() != Some(REQUEST_MAGIC) {
            return Err(odd());
        }
        let flags = fields.u16().ok_or_else(odd)?;
        let command = fields.u16().ok_or_else(odd)?;
        let cookie = fields.u64().ok_or_else(odd)?;
        let offset = fields.u64().ok_or_else(odd)?;
        let len = fields.u32().ok_or_else(odd)?;
        if command == command::DISCONNECT {
            return Ok(None);
        }
        let mut request = Request { flags, command, cookie, offset, len, payload: Vec::new() };
        if command == command::WRITE && len > self.limits.request {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a write is longer than was agreed on"));
        }
        self.wait_for_room(request.weight(self.limits));
        if command == command::WRITE {
            request.payload = vec![0; usize::try_from(len).unwrap_or(0)];
            stream.read_exact(&mut request.payload)?;
        }
        Ok(Some(request))
    }

    /// Waits until the requests that are not answered yet leave room for another one.
    fn wait_for_room(&self, weight: u64) {
        let mut queue = self.queue();
        while queue.weight > 0 && queue.weight.saturating_add(weight) > self.limits.in_flight {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands a request to the threads. Says whether there should be one more of them.
    fn put(&self, request: Request) -> bool {
        let mut queue = self.queue();
        queue.weight = queue.weight.saturating_add(request.weight(self.limits));
        queue.waiting.push_back(request);
        let more = queue.idle < queue.waiting.len() && queue.threads < self.limits.threads.max(1);
        if more {
            queue.threads = queue.threads.saturating_add(1);
        }
        drop(queue);
        self.changed.notify_all();
        more
    }

    /// Answers requests until there are no more.
    fn work(&self) {
        let mut buf = Vec::new();
        let mut queue = self.queue();
        loop {
            if let Some(request) = queue.waiting.pop_front() {
                drop(queue);
                let weight = request.weight(self.limits);
                if self.answer(request, &mut buf).is_err() {
                    // Nobody takes the answers: no more requests either.
                    self.stream.end();
                }
                queue = self.queue();
                queue.weight = queue.weight.saturating_sub(weight);
                self.changed.notify_all();
                continue;
            }
            if queue.closed {
                return;
            }
            queue.idle = queue.idle.saturating_add(1);
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = queue.idle.saturating_sub(1);
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
                Err(error) => self.send_error(&request, errno_of(&error), None),
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
            return self.send_error(request, errno_of(&error), None);
        }
        header.copy_from_slice(&Message::default().u32(SIMPLE_REPLY_MAGIC).u32(0).u64(request.cookie).0);
        let sent = self.send(buf);
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
            let hole = hole_at(disk, at, end);
            if hole > at {
                let len = u32::try_from(hole.saturating_sub(at)).unwrap_or(u32::MAX);
                let data = Message::default().u64(at).u32(len);
                self.send(&structured(request, hole == end, chunk::OFFSET_HOLE, data.0.len()).bytes(&data.0).0)?;
                at = hole;
                continue;
            }
            // Data up to a hole that is worth a reply of its own.
            let most = at.saturating_add(PIECE).min(end);
            let mut stop = at;
            while stop < most {
                let hole = hole_at(disk, stop, end);
                if hole > stop && hole.saturating_sub(stop) >= MIN_HOLE {
                    break;
                }
                stop = if hole > stop { hole.min(most) } else { data_end(disk, stop, most) };
            }
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
            self.send_error(request, errno_of(&error), Some(place))?;
            return Ok(false);
        }
        let head = structured(request, stop == end, chunk::OFFSET_DATA, len.saturating_add(8)).u64(at);
        header.copy_from_slice(&head.0);
        self.send(buf)?;
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
                Err(error) => return self.send_error(request, errno_of(&error), None),
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
        self.send(&structured(request, true, chunk::BLOCK_STATUS, data.0.len()).bytes(&data.0).0)
    }

    fn send_done(&self, request: &Request) -> io::Result<()> {
        let message = if self.agreed.structured && request.command == command::READ {
            structured(request, true, chunk::NONE, 0)
        } else {
            Message::default().u32(SIMPLE_REPLY_MAGIC).u32(0).u64(request.cookie)
        };
        self.send(&message.0)
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
        self.send(&message.0)
    }

    /// Sends a whole reply. After a failure the connection is of no use.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Where the hole ends that starts at `at`, or `at` where there is none.
fn hole_at(disk: &dyn Disk, at: u64, end: u64) -> u64 {
    match disk.extent_at(at) {
        Ok(extent) if matches!(extent.kind, ExtentKind::Zero | ExtentKind::Absent) => extent.end().min(end),
        // What is wrong is told by the read.
        _ => at,
    }
}

/// Where the data end that start at `at`.
fn data_end(disk: &dyn Disk, at: u64, end: u64) -> u64 {
    disk.extent_at(at).map_or(end, |extent| extent.end().min(end))
}

fn errno_of(error: &Error) -> Errno {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded) => Errno::NoSpace,
        Error::OutOfRange { .. } => Errno::Invalid,
        _ => Errno::Io,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Lets go of the memory of a large answer: a connection that is silent holds little.
fn shrink(buf: &mut Vec<u8>) {
    let most = usize::try_from(PIECE).unwrap_or(0).saturating_add(ROOM);
    if buf.capacity() > most {
        buf.truncate(most);
        buf.shrink_to(most);
    }
}
