//! Requests as they come from a connection: taken several at a time, handed out one by one.

use std::io::{self, Read};

use crate::server::Limits;
use crate::stream::Stream;
use crate::wire::{Fields, REQUEST_MAGIC, command};

/// Bytes of a request without its payload.
const REQUEST_LEN: usize = 28;
/// What is taken from the connection at once: many requests, or one with a small payload.
const BUFFER: usize = 16 << 10;
/// What a request counts for beside its data.
const REQUEST_WEIGHT: u64 = 4096;

/// A request with its payload.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    /// What the client knows it by.
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) payload: Vec<u8>,
}

impl Request {
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of memory that it takes until it is answered, about. A read that is longer than was agreed on is not done.
    pub(crate) fn weight(&self, limits: &Limits) -> u64 {
        let data = match self.command {
            command::READ | command::WRITE if self.len <= limits.request => u64::from(self.len),
            _ => 0,
        };
        data.saturating_add(REQUEST_WEIGHT)
    }

    fn parse(header: &[u8]) -> Option<Self> {
        let mut fields = Fields(header);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
            payload: Vec::new(),
        })
    }
}

/// Takes requests from a connection. One thread at a time has it.
#[derive(Debug)]
pub(crate) struct Requests {
    buf: Vec<u8>,
    /// Part of `buf` that was received and not handed out yet.
    from: usize,
    to: usize,
}

impl Default for Requests {
    fn default() -> Self {
        Self { buf: vec![0; BUFFER], from: 0, to: 0 }
    }
}

impl Requests {
    /// Whether nothing of another request was received yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The next request, without its payload. `None` where the client leaves.
    pub(crate) fn next(&mut self, mut stream: &Stream) -> io::Result<Option<Request>> {
        if self.to.saturating_sub(self.from) < REQUEST_LEN {
            self.buf.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to.saturating_sub(self.from));
        }
        // A client may be silent between requests for as long as it likes, and no longer within one.
        while self.to.saturating_sub(self.from) < REQUEST_LEN {
            match stream.read(self.buf.get_mut(self.to..).unwrap_or_default()) {
                Ok(0) if self.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.to = self.to.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_empty() && is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let end = self.from.saturating_add(REQUEST_LEN);
        let request = Request::parse(self.buf.get(self.from..end).unwrap_or_default());
        self.from = end;
        match request {
            Some(request) if request.command == command::DISCONNECT => Ok(None),
            Some(request) => Ok(Some(request)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "a request is not as the protocol has it")),
        }
    }

    /// Fills the payload of the request that was taken last.
    pub(crate) fn payload(&mut self, mut stream: &Stream, payload: &mut [u8]) -> io::Result<()> {
        let there = self.buf.get(self.from..self.to).unwrap_or_default();
        let part = there.len().min(payload.len());
        let (now, later) = payload.split_at_mut(part);
        now.copy_from_slice(there.get(..part).unwrap_or_default());
        self.from = self.from.saturating_add(part);
        stream.read_exact(later)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
