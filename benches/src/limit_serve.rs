//! The limit of a block device server: the least that a program must do to answer NBD reads from the chunks of `bench-limit store`.
//!
//! A read is decoded and hashed chunk by chunk and answered in one write, by the thread that took the request. Nothing is cached or read ahead, nothing is
//! checked, and one client is served after the other.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;

use clap::Parser;
use zstd_safe::DCtx;

use hikae_benches::chunks::{CHUNK, Entry, read_index};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const READ: u16 = 0;
const EXPORT_NAME: u32 = 1;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;

#[derive(Debug, Parser)]
struct Arguments {
    /// What `bench-limit store` made.
    input: PathBuf,
    /// Length of the disk in bytes.
    len: u64,
    /// The Unix socket to listen on.
    socket: PathBuf,
    /// What `bench-limit store --known INPUT` made of a later state of the disk, which is then served: chunks that are in both are differences.
    #[arg(long)]
    later: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

struct Stored {
    file: File,
    entries: HashMap<u64, Entry>,
}

impl Stored {
    fn open(path: &PathBuf) -> Self {
        let entries = read_index(path).into_iter().map(|entry| (entry.chunk, entry)).collect();
        Self { file: File::open(path).unwrap(), entries }
    }
}

struct Limit {
    first: Stored,
    later: Option<Stored>,
    len: u64,
}

/// What a thread decodes with.
struct Decoder {
    context: DCtx<'static>,
    payload: Vec<u8>,
    base: Vec<u8>,
    chunk: Vec<u8>,
}

impl Limit {
    /// Whether the chunk is there; then `out`, which is [`CHUNK`] long, has it.
    fn chunk(&self, number: u64, decoder: &mut Decoder, out: &mut [u8]) -> bool {
        let Decoder { context, payload, base, .. } = decoder;
        let first = self.first.entries.get(&number);
        let Some((later, entry)) = self.later.as_ref().and_then(|later| Some((later, later.entries.get(&number)?)))
        else {
            return first.is_some_and(|entry| {
                entry.read(&self.first.file, context, payload, out);
                true
            });
        };
        match first {
            Some(first) => {
                first.read(&self.first.file, context, payload, base);
                entry.read_difference(&later.file, context, payload, base, out);
            }
            None => entry.read(&later.file, context, payload, out),
        }
        true
    }

    /// Fills `out` from `offset`. Says whether any of it is there.
    fn read(&self, offset: u64, out: &mut [u8], decoder: &mut Decoder) -> bool {
        let chunk_len = u64::try_from(CHUNK).unwrap();
        let (mut at, mut rest, mut any) = (offset, out, false);
        while !rest.is_empty() {
            let within = usize::try_from(at % chunk_len).unwrap();
            let (part, later) = rest.split_at_mut((CHUNK - within).min(rest.len()));
            let found = if part.len() == CHUNK {
                self.chunk(at / chunk_len, decoder, part)
            } else {
                let mut chunk = std::mem::take(&mut decoder.chunk);
                let found = self.chunk(at / chunk_len, decoder, &mut chunk);
                part.copy_from_slice(&chunk[within..within + part.len()]);
                decoder.chunk = chunk;
                found
            };
            if !found {
                part.fill(0);
            }
            any |= found;
            at += u64::try_from(part.len()).unwrap();
            rest = later;
        }
        any
    }

    /// Answers reads until the client leaves.
    fn work(&self, structured: bool, requests: &Mutex<UnixStream>, replies: &Mutex<UnixStream>) {
        let mut decoder =
            Decoder { context: DCtx::create(), payload: vec![0; CHUNK], base: vec![0; CHUNK], chunk: vec![0; CHUNK] };
        let mut reply = Vec::new();
        loop {
            let mut request = [0; 28];
            if requests.lock().unwrap().read_exact(&mut request).is_err() {
                return;
            }
            assert_eq!(request[..4], REQUEST_MAGIC.to_be_bytes());
            if u16::from_be_bytes([request[6], request[7]]) != READ {
                return;
            }
            let cookie = &request[8..16];
            let offset = u64::from_be_bytes(request[16..24].try_into().unwrap());
            let len = u32::from_be_bytes(request[24..].try_into().unwrap());
            let head = if structured { 28 } else { 16 };
            reply.resize(head + usize::try_from(len).unwrap(), 0);
            let any = self.read(offset, &mut reply[head..], &mut decoder);
            if structured {
                let (kind, data) = if any { (1_u16, len + 8) } else { (2, 12) };
                let fields = [&0x668e_33ef_u32.to_be_bytes()[..], &[0, 1], &kind.to_be_bytes(), cookie];
                reply[..16].copy_from_slice(&fields.concat());
                reply[16..20].copy_from_slice(&data.to_be_bytes());
                reply[20..28].copy_from_slice(&offset.to_be_bytes());
                if !any {
                    reply[28..32].copy_from_slice(&len.to_be_bytes());
                    reply.truncate(32);
                }
            } else {
                reply[..8].copy_from_slice(&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
                reply[8..16].copy_from_slice(cookie);
            }
            if replies.lock().unwrap().write_all(&reply).is_err() {
                return;
            }
        }
    }

    /// Goes through the handshake with a client that knows what it wants. Says whether replies are structured; `None` where the client leaves.
    fn handshake(&self, mut stream: &UnixStream) -> Option<bool> {
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").ok()?;
        stream.read_exact(&mut [0; 4]).ok()?;
        let mut structured = false;
        loop {
            let mut head = [0; 16];
            stream.read_exact(&mut head).ok()?;
            let option = u32::from_be_bytes(head[8..12].try_into().unwrap());
            let len = u32::from_be_bytes(head[12..].try_into().unwrap());
            stream.read_exact(&mut vec![0; usize::try_from(len).unwrap()]).ok()?;
            let mut answer = |kind: u32, data: &[u8]| {
                let len = u32::try_from(data.len()).unwrap();
                let head = [&0x0003_e889_0455_65a9_u64.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()];
                stream.write_all(&[&head.concat(), &len.to_be_bytes()[..], data].concat()).ok()
            };
            // Flags: it has flags, and is read only.
            let export = [&self.len.to_be_bytes()[..], &[0, 3]].concat();
            match option {
                STRUCTURED_REPLY => {
                    structured = true;
                    answer(1, &[])?;
                }
                GO => {
                    answer(3, &[&[0, 0], &export[..]].concat())?;
                    answer(1, &[])?;
                    return Some(structured);
                }
                EXPORT_NAME => {
                    stream.write_all(&export).ok()?;
                    return Some(structured);
                }
                _ => answer(0x8000_0001, &[])?,
            }
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let (first, later) = (Stored::open(&arguments.input), arguments.later.as_ref().map(Stored::open));
    let limit = Limit { first, later, len: arguments.len };
    for stream in UnixListener::bind(&arguments.socket).unwrap().incoming() {
        let stream = stream.unwrap();
        let Some(structured) = limit.handshake(&stream) else { continue };
        let (requests, replies) = (Mutex::new(stream.try_clone().unwrap()), Mutex::new(stream));
        std::thread::scope(|scope| {
            for _ in 0..arguments.threads {
                scope.spawn(|| {
                    limit.work(structured, &requests, &replies);
                    // The other threads wait for requests of a client that is gone.
                    let _ = replies.lock().unwrap().shutdown(std::net::Shutdown::Both);
                });
            }
        });
    }
}
