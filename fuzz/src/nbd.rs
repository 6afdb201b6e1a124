//! The NBD server, fed with whatever a client may send, against disks in memory.
//!
//! The oracle is a client that knows the protocol: each answer to an option and each reply to a request is well formed and answers something that
//! was asked, every byte that is read is the disk's, no request makes the server read more at once than was agreed on, the disk below an
//! overlay never changes, and the server lets go of the connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use imgfmt::disk::{MemoryDisk, buf_len};
use imgfmt::overlay::{About, Overlay, Proof};
use imgfmt::{Disk, Extent, Result};
use serve::stream::Place;
use serve::{Address, Export, ExportName, Exports, Limits, ServedDisk, Server};

use crate::overlay::Memory;

/// Length of the disk: not a multiple of a sector.
const LEN: usize = (1 << 20) + 700;
/// Where its hole is.
const HOLE: std::ops::Range<usize> = 300_000..600_000;
/// Longest request that is agreed on.
const REQUEST: u32 = 64 << 10;
/// Bytes that the server may read at once, whatever the request: a piece of a reply, or the block around a write.
const MOST_AT_ONCE: u64 = 1 << 20;
/// How long a client waits for a server that should have answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest data of an option; see `serve::handshake`.
const MAX_OPTION: usize = 64 << 10;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const GO: u32 = 7;
const ACK: u32 = 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const BLOCK_STATUS: u16 = 7;
const DONE: u16 = 1;

/// What the disk holds.
fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let byte = |at: usize| if HOLE.contains(&at) { 0 } else { (at ^ (at >> 9)).to_le_bytes()[0] | 1 };
        (0..LEN).map(byte).collect()
    })
}

/// The disk, which watches how much is read from it at once.
struct Watched {
    disk: MemoryDisk,
    /// Most bytes that one read asked for.
    most: AtomicU64,
}

impl Disk for Watched {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.most.fetch_max(buf_len(buf), Ordering::Relaxed);
        self.disk.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

/// The disk as it is, and under an overlay that takes the writes of all runs.
struct Both {
    disk: Arc<Watched>,
    overlay: Overlay,
}

impl Exports for Both {
    fn list(&self) -> Vec<ExportName> {
        ["", "w"].map(|name| ExportName { name: name.to_owned(), description: "a disk".to_owned() }).into()
    }
    fn open(&self, name: &str) -> Result<Option<Export>> {
        let disk = match name {
            "" => ServedDisk::ReadOnly(Arc::<Watched>::clone(&self.disk)),
            "w" => ServedDisk::Writable(self.overlay.disk(Arc::<Watched>::clone(&self.disk))?),
            _ => return Ok(None),
        };
        Ok(Some(Export { disk, description: "a disk".to_owned() }))
    }
}

/// The server, which runs as long as the process does, and where it listens.
fn server() -> &'static (Arc<Both>, Place) {
    static SERVER: OnceLock<(Arc<Both>, Place)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let disk = Arc::new(Watched { disk: MemoryDisk::new(content().to_vec()), most: AtomicU64::new(0) });
        let proof = Proof::Other { format: "raw".to_owned(), digest: [1; 32] };
        let about = About { name: "disk".into(), proof, modified: 0, disk_len: disk.len(), sector_size: 512 };
        let overlay = Overlay::create_on(Arc::new(Memory::default()), &about).expect("memory takes it");
        let both = Arc::new(Both { disk, overlay });
        let limits = Limits {
            request: REQUEST,
            in_flight: 256 << 10,
            threads: 3,
            handshake: Duration::from_secs(10),
            ..Limits::default()
        };
        let exports = Arc::<Both>::clone(&both);
        let server = Server::bind(&Address::Tcp("127.0.0.1:0".to_owned()), exports, limits, Box::new(|_| ()));
        let server = server.expect("there is a free port");
        let place = server.place().clone();
        std::thread::spawn(|| server.run());
        (both, place)
    })
}

/// Sends `data` as a client that goes on as long as the server does.
pub fn run(data: &[u8]) {
    talk(data);
}

/// The same. Returns how many requests had no answer, where it came to requests.
fn talk(data: &[u8]) -> Option<usize> {
    let (both, place) = server();
    let Place::Tcp(address) = place else { unreachable!("it listens on a port") };
    let stream = TcpStream::connect(address).expect("the server takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    let mut client = Client { stream, rest: data, structured: false, no_zeroes: false, left: None };
    match client.converse() {
        Ok(()) => {}
        Err(error) if is_end(&error) => {}
        Err(error) => panic!("the server is silent and keeps the connection: {error}"),
    }
    let mut now = vec![0; LEN];
    both.disk.disk.read_at(&mut now, 0).expect("memory can be read");
    assert!(now == content(), "the disk below has changed");
    let most = both.disk.most.load(Ordering::Relaxed);
    assert!(most <= MOST_AT_ONCE, "{most} bytes are read at once");
    if data.len().is_multiple_of(64) {
        // The overlay is whole, whatever was written.
        let disk = both.overlay.disk(Arc::<Watched>::clone(&both.disk)).expect("it is the disk of the overlay");
        for (part, offset) in now.chunks_mut(1 << 16).zip((0..).step_by(1 << 16)) {
            disk.read_at(part, offset).expect("all of it can be read");
        }
    }
    client.left
}

/// Says whether the server ended the connection, which is its right.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// A request as it was sent.
#[derive(Clone, Copy, Debug)]
struct Asked {
    command: u16,
    offset: u64,
    len: u32,
    /// Bytes of a structured answer that have come.
    answered: u64,
}

struct Client<'a> {
    stream: TcpStream,
    rest: &'a [u8],
    structured: bool,
    no_zeroes: bool,
    /// Requests that were not answered.
    left: Option<usize>,
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(*bytes.get(at..).and_then(<[u8]>::first_chunk).expect("checked by the caller"))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes.get(at..).and_then(<[u8]>::first_chunk).expect("checked by the caller"))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*bytes.get(at..).and_then(<[u8]>::first_chunk).expect("checked by the caller"))
}

impl<'a> Client<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(front)
    }

    fn receive(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends what is left, which is no message of the protocol, and sees the connection end.
    fn give_up(&mut self) -> io::Result<()> {
        self.stream.write_all(self.rest)?;
        self.stream.shutdown(Shutdown::Write)?;
        let mut left = Vec::new();
        self.stream.read_to_end(&mut left)?;
        Ok(())
    }

    fn converse(&mut self) -> io::Result<()> {
        let greeting = self.receive(18)?;
        assert_eq!((&greeting[..16], be16(&greeting, 16)), (&b"NBDMAGICIHAVEOPT"[..], 3));
        let Some(flags) = self.take(4) else { return self.give_up() };
        self.no_zeroes = flags[3] & 2 != 0;
        self.stream.write_all(flags)?;
        loop {
            let head = self.rest.get(..16).filter(|head| head.starts_with(OPTION_MAGIC));
            let len = head.and_then(|head| usize::try_from(be32(head, 12)).ok()).filter(|len| *len <= MAX_OPTION);
            let Some(message) = len.and_then(|len| self.take(len.saturating_add(16))) else { return self.give_up() };
            self.stream.write_all(message)?;
            let option = be32(message, 8);
            let opened = match option {
                EXPORT_NAME => self.export()?,
                _ => self.answers(option, message)?,
            };
            if option == ABORT {
                return self.give_up();
            }
            if opened {
                return self.requests();
            }
        }
    }

    /// The answer to `EXPORT_NAME`, which is the export or the end.
    fn export(&mut self) -> io::Result<bool> {
        let fields = self.receive(if self.no_zeroes { 10 } else { 134 })?;
        assert_eq!(usize::try_from(be64(&fields, 0)), Ok(LEN));
        assert!(fields[10..].iter().all(|byte| *byte == 0));
        Ok(true)
    }

    /// The answers to another option, up to the last one. Says whether the transmission begins.
    fn answers(&mut self, option: u32, message: &[u8]) -> io::Result<bool> {
        loop {
            let head = self.receive(20)?;
            let (kind, len) = (be32(&head, 12), be32(&head, 16));
            assert_eq!((be64(&head, 0), be32(&head, 8)), (OPTION_REPLY_MAGIC, option));
            let data = self.receive(usize::try_from(len).expect("a short answer"))?;
            match kind {
                ACK => {
                    assert!(data.is_empty());
                    self.structured |= option == 8;
                    return Ok(option == GO);
                }
                kind if kind >> 31 == 1 => {
                    assert!(std::str::from_utf8(&data).is_ok(), "a reason is text");
                    return Ok(false);
                }
                2 => assert!(option == 3 && be32(&data, 0) <= len),
                3 => {
                    assert!(matches!(option, 6 | GO));
                    if be16(&data, 0) == 0 {
                        assert_eq!((usize::try_from(be64(&data, 2)), len), (Ok(LEN), 12));
                    }
                }
                4 => assert!(matches!(option, 9 | 10) && &data[4..] == b"base:allocation"),
                _ => panic!("an answer of kind {kind} to {message:?}"),
            }
        }
    }

    /// Sends requests, each with a cookie of its own, and takes what comes back.
    fn requests(&mut self) -> io::Result<()> {
        let asked: Mutex<HashMap<u64, Asked>> = Mutex::default();
        let mut sender = self.stream.try_clone()?;
        let (rest, asked) = (self.rest, &asked);
        let structured = self.structured;
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                // The server may end the connection at any time; then there is nobody to send to.
                let _ = send(&mut sender, rest, asked);
                let _ = sender.shutdown(Shutdown::Write);
            });
            loop {
                let mut magic = [0; 4];
                match self.stream.read_exact(&mut magic) {
                    Err(error) if is_end(&error) => return Ok(()),
                    other => other?,
                }
                match be32(&magic, 0) {
                    SIMPLE => self.simple(asked, structured)?,
                    STRUCTURED => self.chunk(asked, structured)?,
                    other => panic!("{other:#x} is no reply"),
                }
            }
        });
        self.left = Some(lock(asked).len());
        result
    }

    fn simple(&mut self, asked: &Mutex<HashMap<u64, Asked>>, structured: bool) -> io::Result<()> {
        let head = self.receive(12)?;
        let request = lock(asked).remove(&be64(&head, 4)).expect("it answers a request");
        let needs_structure = structured && matches!(request.command, READ | BLOCK_STATUS);
        assert!(!needs_structure, "{request:?} has a simple reply");
        if request.command == READ && be32(&head, 0) == 0 {
            let data = self.receive(usize::try_from(request.len).expect("at most what was agreed on"))?;
            compare(request.offset, &data);
        }
        Ok(())
    }

    fn chunk(&mut self, asked: &Mutex<HashMap<u64, Asked>>, structured: bool) -> io::Result<()> {
        assert!(structured, "nobody agreed on structured replies");
        let head = self.receive(16)?;
        let (flags, kind, cookie) = (be16(&head, 0), be16(&head, 2), be64(&head, 4));
        let data = self.receive(usize::try_from(be32(&head, 12)).expect("a short reply"))?;
        let mut request = lock(asked).remove(&cookie).expect("it answers a request");
        let end = request.offset.saturating_add(request.len.into());
        let is_error = kind >> 15 == 1;
        match kind {
            0 => assert!(data.is_empty() && flags == DONE),
            1 => {
                let (offset, data) = (be64(&data, 0), &data[8..]);
                assert!(request.command == READ && offset >= request.offset && !data.is_empty());
                request.answered = request.answered.saturating_add(buf_len(data));
                compare(offset, data);
            }
            2 => {
                let (offset, len) = (be64(&data, 0), be32(&data, 8));
                assert!(request.command == READ && offset >= request.offset && len > 0);
                request.answered = request.answered.saturating_add(len.into());
                compare(offset, &vec![0; usize::try_from(len).expect("at most what was agreed on")]);
            }
            5 => {
                assert!(request.command == BLOCK_STATUS && flags == DONE && be32(&data, 0) == 1);
                let runs = data[4..].chunks(8).map(|run| u64::from(be32(run, 0)));
                let (count, len) = runs.fold((0_u32, 0_u64), |(count, sum), len| {
                    assert!(len > 0);
                    (count.saturating_add(1), sum.saturating_add(len))
                });
                assert!(count > 0 && request.offset.saturating_add(len) <= end);
            }
            _ => {
                assert!(is_error && flags == DONE, "a chunk of kind {kind}");
                assert!(be32(&data, 0) != 0);
            }
        }
        if flags & DONE == 0 {
            lock(asked).insert(cookie, request);
        } else if request.command == READ && !is_error {
            assert_eq!(request.answered, u64::from(request.len), "{request:?} was answered in part");
        }
        Ok(())
    }
}

fn lock(asked: &Mutex<HashMap<u64, Asked>>) -> std::sync::MutexGuard<'_, HashMap<u64, Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the disk as they were captured, or what some run wrote over them: its writes hold bytes that are even, as the disk has none.
fn compare(offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("inside the disk");
    let model = content().get(start..start.saturating_add(data.len())).expect("inside the disk");
    let fits = data.iter().zip(model).all(|(found, byte)| found == byte || found & 1 == 0);
    assert!(fits, "{} bytes at {offset} are wrong", data.len());
}

/// Sends requests as they are, but for their cookies, which count up, and for what is written, which is even. What is none is sent as it is.
fn send(stream: &mut TcpStream, mut rest: &[u8], asked: &Mutex<HashMap<u64, Asked>>) -> io::Result<()> {
    for cookie in 0_u64.. {
        let Some((head, behind)) = rest.split_at_checked(28) else { break };
        if be32(head, 0) != REQUEST_MAGIC {
            break;
        }
        let (command, len) = (be16(head, 6), be32(head, 24));
        let payload = if command == WRITE { usize::try_from(len).unwrap_or(usize::MAX) } else { 0 };
        let Some((payload, behind)) = behind.split_at_checked(payload) else { break };
        if command != DISCONNECT {
            let request = Asked { command, offset: be64(head, 16), len, answered: 0 };
            lock(asked).insert(cookie, request);
        }
        let mut head = head.to_vec();
        head[8..16].copy_from_slice(&cookie.to_be_bytes());
        let payload: Vec<u8> = payload.iter().map(|byte| byte & 0xfe).collect();
        stream.write_all(&[head, payload].concat())?;
        rest = behind;
    }
    stream.write_all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::{Random, mutate};

    fn option(option: u32, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        [OPTION_MAGIC, &option.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn request(flags: u16, command: u16, offset: u64, len: u32, payload: &[u8]) -> Vec<u8> {
        let head = [&REQUEST_MAGIC.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes(), &[0; 8]];
        [&head.concat()[..], &offset.to_be_bytes(), &len.to_be_bytes(), payload].concat()
    }

    /// All options, then all requests, to an export.
    fn seed(export: &str, structured: bool) -> Vec<u8> {
        let name = text(export);
        let contexts = [&name[..], &1_u32.to_be_bytes(), &text("base:allocation")].concat();
        let infos = [&name[..], &3_u16.to_be_bytes(), &[0, 1, 0, 2, 0, 3]].concat();
        let mut bytes = vec![0, 0, 0, 3];
        if structured {
            bytes.extend([option(8, &[]), option(9, &contexts), option(10, &contexts)].concat());
        }
        bytes.extend([option(3, &[]), option(99, &[1]), option(6, &infos), option(GO, &infos)].concat());
        let near_end = u64::try_from(LEN).unwrap().saturating_sub(100);
        for (flags, command, offset, len) in [
            (0, READ, 0, 4096),
            (0, READ, 299_000, 60_000),
            (4, READ, 299_000, 2000),
            (0, BLOCK_STATUS, 0, 1 << 20),
            (8, BLOCK_STATUS, 290_000, 1 << 19),
            (0, 3, 0, 0),
            (1, 4, 1000, 5000),
            (0, 5, 0, 1 << 20),
            (2, 6, 4096, 9000),
            (0, READ, near_end, 100),
            (0, READ, near_end, 101),
            (0, READ, u64::MAX, REQUEST),
        ] {
            bytes.extend(request(flags, command, offset, len, &[]));
        }
        bytes.extend(request(1, WRITE, 700, 900, &[8; 900]));
        bytes.extend(request(0, READ, 0, REQUEST, &[]));
        bytes.extend(request(0, DISCONNECT, 0, 0, &[]));
        bytes
    }

    #[test]
    fn seeds_and_mutations_of_them() {
        let mut random = Random::new(67);
        let old = [vec![0, 0, 0, 1], option(EXPORT_NAME, b"w"), request(0, READ, 5, 999, &[])].concat();
        let seeds = [seed("", true), seed("", false), seed("w", true), seed("w", false), old];
        for seed in &seeds {
            assert_eq!(talk(seed), Some(0), "a request of a seed has no answer");
        }
        for round in 0..3000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..random.below(3) {
                let limit = bytes.len();
                mutate(&mut bytes, limit, &mut random);
            }
            if round % 9 == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            run(&bytes);
        }
    }
}
