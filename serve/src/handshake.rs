//! The handshake: a client chooses an export, and both sides agree on what they can do.
//!
//! Source: the NBD protocol, `doc/proto.md`, section "Fixed newstyle negotiation".

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::export::{Export, Exports};
use crate::server::Limits;
use crate::stream::Stream;
use crate::wire::{
    ALLOCATION, ALLOCATION_ID, FIXED_NEWSTYLE, Fields, INIT_MAGIC, Message, NO_ZEROES, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, answer, flag, info, option,
};

/// Longest name of an export.
const MAX_NAME: usize = 4096;
/// Longest data of an option that is looked at.
const MAX_OPTION: usize = 64 << 10;
/// Most options of one client.
const MAX_OPTIONS: usize = 256;

/// What was agreed on.
pub(crate) struct Agreed {
    pub(crate) export: Export,
    pub(crate) structured: bool,
    /// Block status may be asked for.
    pub(crate) allocation: bool,
}

/// A client that has to be through with this by a moment.
struct Handshake<'a> {
    stream: &'a Stream,
    exports: &'a dyn Exports,
    limits: &'a Limits,
    until: Instant,
    no_zeroes: bool,
    structured: bool,
    /// The name of the export for which block status was agreed on.
    allocation: Option<String>,
}

fn odd(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What an export can do, and what is always said of it: length and flags.
fn export_fields(export: &Export, structured: bool) -> Message {
    let mut flags = flag::HAS_FLAGS | flag::CAN_MULTI_CONN | flag::SEND_CACHE | flag::SEND_FLUSH;
    flags |= match export.disk.writable() {
        Some(_) => flag::SEND_FUA | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES,
        None => flag::READ_ONLY,
    };
    if structured {
        flags |= flag::SEND_DF;
    }
    Message::default().u64(export.disk.disk().len()).u16(flags)
}

/// Goes through the handshake. `None` where the client left in good order.
pub(crate) fn handshake(stream: &Stream, exports: &dyn Exports, limits: &Limits) -> io::Result<Option<Agreed>> {
    let until = Instant::now().checked_add(limits.handshake).unwrap_or_else(Instant::now);
    let mut handshake =
        Handshake { stream, exports, limits, until, no_zeroes: false, structured: false, allocation: None };
    let agreed = handshake.run();
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    agreed
}

/// The export of `INFO` and `GO`, and what is asked of it.
fn info_of(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u16()?;
    let wanted: Option<Vec<u16>> = (0..count).map(|_| fields.u16()).collect();
    fields.0.is_empty().then_some((name, wanted?))
}

/// The export of the options about metadata contexts, and the queries.
fn contexts_of(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u32()?;
    let queries: Option<Vec<&str>> = (0..count).map(|_| fields.text()).collect();
    fields.0.is_empty().then_some((name, queries?))
}

impl Handshake<'_> {
    fn run(&mut self) -> io::Result<Option<Agreed>> {
        self.send(Message::default().u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(FIXED_NEWSTYLE | NO_ZEROES))?;
        let flags = u32::from_be_bytes(self.receive()?);
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(odd("the client has unknown flags"));
        }
        self.no_zeroes = flags & u32::from(NO_ZEROES) != 0;
        for _ in 0..MAX_OPTIONS {
            if u64::from_be_bytes(self.receive()?) != OPTION_MAGIC {
                return Err(odd("the client speaks another protocol"));
            }
            let option = u32::from_be_bytes(self.receive()?);
            let len = usize::try_from(u32::from_be_bytes(self.receive()?)).unwrap_or(usize::MAX);
            if len > MAX_OPTION {
                return Err(odd("an option of the client is too long"));
            }
            let mut data = vec![0; len];
            self.fill(&mut data)?;
            match option {
                option::EXPORT_NAME => return self.export_name(&data).map(Some),
                option::ABORT => {
                    self.answer(option, answer::ACK, &[])?;
                    return Ok(None);
                }
                option::LIST => self.list(&data)?,
                option::INFO | option::GO => {
                    if let Some(agreed) = self.info(option, &data)? {
                        return Ok(Some(agreed));
                    }
                }
                option::STRUCTURED_REPLY if data.is_empty() => {
                    self.structured = true;
                    self.answer(option, answer::ACK, &[])?;
                }
                option::STRUCTURED_REPLY => self.refuse(option, answer::INVALID, "this option has no data")?,
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(option, &data)?,
                _ => self.refuse(option, answer::UNSUPPORTED, "this option is not known here")?,
            }
        }
        Err(odd("the client has too many options"))
    }

    /// The oldest way to choose an export: there is no answer but the export, or the end.
    fn export_name(&mut self, data: &[u8]) -> io::Result<Agreed> {
        let name = std::str::from_utf8(data).ok().filter(|name| name.len() <= MAX_NAME);
        let export = self.open(name.ok_or_else(|| odd("the name of the export is no text"))?)?;
        let export = export.ok_or_else(|| odd("there is no such export"))?;
        let mut message = export_fields(&export, self.structured);
        if !self.no_zeroes {
            message = message.bytes(&[0; 124]);
        }
        self.send(message)?;
        Ok(Agreed { export, structured: self.structured, allocation: self.allocation.is_some() })
    }

    fn open(&self, name: &str) -> io::Result<Option<Export>> {
        self.exports.open(name).map_err(io::Error::other)
    }

    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.refuse(option::LIST, answer::INVALID, "this option has no data");
        }
        for export in self.exports.list() {
            let len = u32::try_from(export.name.len()).unwrap_or(0);
            let message = Message::default().u32(len).bytes(export.name.as_bytes());
            let message = message.bytes(export.description.as_bytes());
            self.answer(option::LIST, answer::SERVER, &message.0)?;
        }
        self.answer(option::LIST, answer::ACK, &[])
    }

    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Option<Agreed>> {
        let Some((name, wanted)) = info_of(data) else {
            self.refuse(option, answer::INVALID, "the option is not as the protocol has it")?;
            return Ok(None);
        };
        if name.len() > MAX_NAME {
            self.refuse(option, answer::TOO_BIG, "the name is too long")?;
            return Ok(None);
        }
        let export = match self.exports.open(name) {
            Ok(Some(export)) => export,
            Ok(None) => {
                self.refuse(option, answer::UNKNOWN, "there is no export of that name")?;
                return Ok(None);
            }
            Err(error) => {
                self.refuse(option, answer::UNKNOWN, &error.to_string())?;
                return Ok(None);
            }
        };
        let message = Message::default().u16(info::EXPORT).bytes(&export_fields(&export, self.structured).0);
        self.answer(option, answer::INFO, &message.0)?;
        for wanted in wanted {
            let message = Message::default().u16(wanted);
            let message = match wanted {
                info::NAME => message.bytes(name.as_bytes()),
                info::DESCRIPTION => message.bytes(export.description.as_bytes()),
                info::BLOCK_SIZE => {
                    let (least, best) = self.block_sizes(&export);
                    message.u32(least).u32(best).u32(self.limits.request)
                }
                _ => continue,
            };
            self.answer(option, answer::INFO, &message.0)?;
        }
        self.answer(option, answer::ACK, &[])?;
        if option == option::INFO {
            return Ok(None);
        }
        let allocation = self.allocation.as_deref() == Some(name);
        Ok(Some(Agreed { export, structured: self.structured, allocation }))
    }

    /// The smallest requests that make sense, and those that are answered best. Others are answered as well.
    fn block_sizes(&self, export: &Export) -> (u32, u32) {
        let disk = export.disk.disk();
        let sector = disk.sector_size();
        // A disk that ends within a sector could not be read to its end in sectors.
        let least = if disk.len().is_multiple_of(sector.into()) { sector } else { 1 };
        (least, 4096)
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let Some((name, queries)) = contexts_of(data) else {
            return self.refuse(option, answer::INVALID, "the option is not as the protocol has it");
        };
        if !self.structured {
            return self.refuse(option, answer::INVALID, "structured replies have to be agreed on first");
        }
        if self.open(name)?.is_none() {
            return self.refuse(option, answer::UNKNOWN, "there is no export of that name");
        }
        let setting = option == option::SET_META_CONTEXT;
        let all = !setting && queries.is_empty();
        let found = all || queries.iter().any(|query| *query == ALLOCATION || (!setting && *query == "base:"));
        if setting {
            self.allocation = found.then(|| name.to_owned());
        }
        if found {
            let message = Message::default().u32(if setting { ALLOCATION_ID } else { 0 });
            self.answer(option, answer::META_CONTEXT, &message.bytes(ALLOCATION.as_bytes()).0)?;
        }
        self.answer(option, answer::ACK, &[])
    }

    fn refuse(&mut self, option: u32, reason: u32, text: &str) -> io::Result<()> {
        self.answer(option, reason, text.as_bytes())
    }

    fn answer(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(|_| odd("the answer is too long"))?;
        self.send(Message::default().u64(OPTION_REPLY_MAGIC).u32(option).u32(kind).u32(len).bytes(data))
    }

    /// Sends a message, and gives up when the time of the whole handshake is over.
    fn send(&mut self, message: Message) -> io::Result<()> {
        let mut bytes = &message.0[..];
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.time_left()?))?;
            let mut stream = self.stream;
            let count = stream.write(bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Fails where no time is left.
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
    }

    fn receive<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills a buffer, and gives up when the time of the whole handshake is over: a client that sends a byte now and then gains nothing.
    fn fill(&mut self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            self.stream.set_read_timeout(Some(self.time_left()?))?;
            let mut stream = self.stream;
            let count = stream.read(buf)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = buf.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }
}
