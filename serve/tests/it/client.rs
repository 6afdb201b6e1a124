//! A server over a disk in memory, and a client that says what it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use imgfmt::{Disk, Error, Extent, ExtentKind, Result, WritableDisk};
use serve::server::Log;
use serve::stream::Place;
use serve::{Address, Export, ExportName, Exports, Limits, ServedDisk, Server, Stop};

pub(crate) const LEN: u64 = 4 << 20;
/// This part of the disk cannot be read.
pub(crate) const BAD: std::ops::Range<u64> = 1 << 20..(1 << 20) + 4096;
/// This part is a hole.
pub(crate) const HOLE: std::ops::Range<u64> = 2 << 20..3 << 20;

/// A disk in memory with a hole and unreadable sectors.
pub(crate) struct Model(pub(crate) RwLock<Vec<u8>>);

pub(crate) fn content() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..LEN).map(|at| (at / 512) as u8 ^ at as u8).collect();
    bytes[HOLE.start as usize..HOLE.end as usize].fill(0);
    bytes
}

impl Disk for Model {
    fn len(&self) -> u64 {
        LEN
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        imgfmt::disk::check_range(offset, buf.len() as u64, LEN)?;
        if offset < BAD.end && end > BAD.start {
            return Err(Error::Bad { offset: BAD.start, end: BAD.end });
        }
        buf.copy_from_slice(&self.0.read().unwrap()[offset as usize..end as usize]);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (end, kind) = match offset {
            at if at < BAD.start => (BAD.start, ExtentKind::Data),
            at if at < BAD.end => (BAD.end, ExtentKind::Bad),
            at if at < HOLE.start => (HOLE.start, ExtentKind::Data),
            at if at < HOLE.end => (HOLE.end, ExtentKind::Zero),
            _ => (LEN, ExtentKind::Data),
        };
        Ok(Extent { offset, len: end - offset, kind })
    }
}

impl WritableDisk for Model {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.write().unwrap()[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.write_at(&vec![0; len as usize], offset)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.zero_at(offset, len)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

struct Both(Arc<Model>);

impl Exports for Both {
    fn list(&self) -> Vec<ExportName> {
        ["", "writable"].map(|name| ExportName { name: name.to_owned(), description: String::new() }).into()
    }
    fn open(&self, name: &str) -> Result<Option<Export>> {
        let disk = match name {
            "" => ServedDisk::ReadOnly(Arc::<Model>::clone(&self.0)),
            "writable" => ServedDisk::Writable(Arc::<Model>::clone(&self.0)),
            _ => return Ok(None),
        };
        Ok(Some(Export { disk, description: "a model".to_owned() }))
    }
}

/// A server that runs, and is stopped at the end.
pub(crate) struct Running {
    pub(crate) model: Arc<Model>,
    place: Place,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(limits: Limits) -> Self {
        Self::start_at(&Address::Tcp("127.0.0.1:0".to_owned()), limits)
    }

    pub(crate) fn start_at(address: &Address, limits: Limits) -> Self {
        let model = Arc::new(Model(RwLock::new(content())));
        let log: Box<Log> = Box::new(|_| ());
        let exports = Arc::new(Both(Arc::clone(&model)));
        let server = Server::bind(address, exports, limits, log).unwrap();
        let (place, stop) = (server.place().clone(), server.stopper());
        Self { model, place, stop, thread: Some(std::thread::spawn(|| server.run())) }
    }

    pub(crate) fn connect(&self) -> Client {
        let Place::Tcp(address) = &self.place else { unreachable!("it listens on a port") };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        // A server that says nothing fails the test instead of stopping it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }

    /// A client that is through with the handshake.
    pub(crate) fn ready(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.greet();
        client.option(8, &[]);
        assert_eq!(client.option_reply().0, 1);
        let query = [
            &(name.len() as u32).to_be_bytes(),
            name.as_bytes(),
            &1_u32.to_be_bytes(),
            &15_u32.to_be_bytes(),
            b"base:allocation",
        ]
        .concat();
        client.option(10, &query);
        assert_eq!(client.option_reply().0, 4);
        assert_eq!(client.option_reply().0, 1);
        client.option(7, &[&(name.len() as u32).to_be_bytes(), name.as_bytes(), &[0, 0]].concat());
        let (kind, info) = client.option_reply();
        assert_eq!((kind, &info[2..10]), (3, &LEN.to_be_bytes()[..]));
        assert_eq!(client.option_reply().0, 1);
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

pub(crate) struct Client(pub(crate) TcpStream);

/// A part of an answer: flags, kind, cookie, data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) done: bool,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) data: Vec<u8>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn take_vec(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn greet(&mut self) {
        assert_eq!(&self.take::<18>(), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&3_u32.to_be_bytes());
    }

    pub(crate) fn option(&mut self, option: u32, data: &[u8]) {
        self.send(&[b"IHAVEOPT", &option.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat());
    }

    /// Kind and data of the answer to an option.
    pub(crate) fn option_reply(&mut self) -> (u32, Vec<u8>) {
        assert_eq!(u64::from_be_bytes(self.take()), 0x0003_e889_0455_65a9);
        let _: [u8; 4] = self.take();
        let kind = u32::from_be_bytes(self.take());
        let len = u32::from_be_bytes(self.take());
        (kind, self.take_vec(len as usize))
    }

    pub(crate) fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, len: u32, payload: &[u8]) {
        let fields = [
            &0x2560_9513_u32.to_be_bytes()[..],
            &flags.to_be_bytes(),
            &command.to_be_bytes(),
            &cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &len.to_be_bytes(),
            payload,
        ];
        self.send(&fields.concat());
    }

    /// A simple or structured reply; a simple one is of kind 0x100 plus its error.
    pub(crate) fn reply(&mut self) -> Reply {
        match u32::from_be_bytes(self.take()) {
            0x6744_6698 => {
                let error = u32::from_be_bytes(self.take());
                let cookie = u64::from_be_bytes(self.take());
                Reply { done: true, kind: 0x100 + error as u16, cookie, data: Vec::new() }
            }
            0x668e_33ef => {
                let done = u16::from_be_bytes(self.take()) & 1 != 0;
                let kind = u16::from_be_bytes(self.take());
                let cookie = u64::from_be_bytes(self.take());
                let len = u32::from_be_bytes(self.take());
                Reply { done, kind, cookie, data: self.take_vec(len as usize) }
            }
            magic => panic!("{magic:#x} begins no reply"),
        }
    }

    /// Says that the server has ended the connection, or does so now.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
