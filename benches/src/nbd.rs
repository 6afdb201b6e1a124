//! A client of the NBD protocol that reads and times: the same for every server.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

const OPTION_MAGIC: &[u8] = b"IHAVEOPT";
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const ACK: u32 = 1;
const INFO: u32 = 3;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// A connection that is through with the handshake.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
    /// Length of the export in bytes.
    pub len: u64,
}

impl Client {
    /// Connects to the default export of the server at `socket`. `structured` asks for structured replies, as QEMU and libnbd do; the kernel's client does
    /// not. `None` where nobody listens there yet.
    pub fn connect(socket: &Path, structured: bool) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        let replies = BufReader::with_capacity(64 << 10, stream.try_clone().unwrap());
        let mut client = Self { stream, replies, len: 0 };
        assert_eq!(&client.take::<16>(), b"NBDMAGICIHAVEOPT");
        let flags = u16::from_be_bytes(client.take());
        client.stream.write_all(&u32::from(flags & 3).to_be_bytes()).unwrap();
        if structured {
            client.option(STRUCTURED_REPLY, &[]);
            client.answer();
        }
        client.option(GO, &[0; 6]);
        loop {
            let (kind, data) = client.answer();
            match kind {
                ACK => return Some(client),
                INFO if data[..2] == [0, 0] => client.len = u64::from_be_bytes(data[2..10].try_into().unwrap()),
                INFO => {}
                _ => panic!("the server refuses: {kind:#x}"),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.replies.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn option(&mut self, option: u32, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        let message = [OPTION_MAGIC, &option.to_be_bytes(), &len.to_be_bytes(), data].concat();
        self.stream.write_all(&message).unwrap();
    }

    fn answer(&mut self) -> (u32, Vec<u8>) {
        let _: [u8; 12] = self.take();
        let kind = u32::from_be_bytes(self.take());
        let len = u32::from_be_bytes(self.take());
        let mut data = vec![0; usize::try_from(len).unwrap()];
        self.replies.read_exact(&mut data).unwrap();
        (kind, data)
    }

    fn ask(&mut self, cookie: usize, (offset, len): (u64, u32)) {
        let cookie = u64::try_from(cookie).unwrap();
        let mut request = [0; 28];
        request[..4].copy_from_slice(&0x2560_9513_u32.to_be_bytes());
        request[8..16].copy_from_slice(&cookie.to_be_bytes());
        request[16..24].copy_from_slice(&offset.to_be_bytes());
        request[24..].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&request).unwrap();
    }

    /// Takes replies until one read is answered whole, and returns which. `bytes` is room for a whole answer.
    fn reply(&mut self, reads: &[(u64, u32)], bytes: &mut [u8], raw: Option<&File>) -> usize {
        loop {
            let magic = u32::from_be_bytes(self.take());
            let (done, cookie, at, len) = match magic {
                SIMPLE_MAGIC => {
                    assert_eq!(u32::from_be_bytes(self.take()), 0, "the server reports an error");
                    let cookie = usize::try_from(u64::from_be_bytes(self.take())).unwrap();
                    let (offset, len) = reads[cookie];
                    (true, cookie, offset, len)
                }
                STRUCTURED_MAGIC => {
                    let done = u16::from_be_bytes(self.take()) & 1 != 0;
                    let kind = u16::from_be_bytes(self.take());
                    let cookie = usize::try_from(u64::from_be_bytes(self.take())).unwrap();
                    let len = u32::from_be_bytes(self.take());
                    match kind {
                        0 => (done, cookie, 0, 0),
                        1 => (done, cookie, u64::from_be_bytes(self.take()), len - 8),
                        2 => {
                            let at = u64::from_be_bytes(self.take());
                            let len = usize::try_from(u32::from_be_bytes(self.take())).unwrap();
                            if let Some(raw) = raw {
                                bytes[..len].fill(0);
                                compare(raw, at, &mut bytes[..len]);
                            }
                            (done, cookie, 0, 0)
                        }
                        _ => panic!("the server reports an error of kind {kind:#x}"),
                    }
                }
                _ => panic!("{magic:#x} begins no reply"),
            };
            let bytes = &mut bytes[..usize::try_from(len).unwrap()];
            self.replies.read_exact(bytes).unwrap();
            if let Some(raw) = raw {
                compare(raw, at, bytes);
            }
            if done {
                return cookie;
            }
        }
    }

    /// Makes all reads, `depth` of them under way at once, and compares what comes with `raw` where that is given. Returns the seconds that each took.
    pub fn read(&mut self, reads: &[(u64, u32)], depth: usize, raw: Option<&File>) -> Vec<f64> {
        let largest = reads.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let mut bytes = vec![0; usize::try_from(largest).unwrap()];
        let (mut asked, mut took) = (HashMap::new(), Vec::with_capacity(reads.len()));
        let mut next = 0;
        while took.len() < reads.len() {
            while next < reads.len() && asked.len() < depth {
                asked.insert(next, Instant::now());
                self.ask(next, reads[next]);
                next += 1;
            }
            let cookie = self.reply(reads, &mut bytes, raw);
            took.push(asked.remove(&cookie).unwrap().elapsed().as_secs_f64());
        }
        took
    }
}

fn compare(raw: &File, at: u64, bytes: &mut [u8]) {
    let mut expected = vec![0; bytes.len()];
    raw.read_exact_at(&mut expected, at).unwrap();
    assert!(bytes == expected, "the server answers a read at {at} wrongly");
}
