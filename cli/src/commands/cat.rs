//! `hikae cat`: the bytes of files of an image.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use imgfmt::Error;
use imgfmt::engine::run_ordered;
use imgfmt::filesystem::files::{Content, FileSystem};

use crate::exit::{DONE, Failure};
use crate::inside::Inside;
use crate::text::parse_size;
use crate::work::quietly;

/// Bytes that a worker reads at once.
const PIECE: u64 = 1 << 20;

/// Prints files of an image; FILE:STREAM is a named stream.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE[@GEN]:/PATH.
    #[arg(required = true, value_name = "PATH", add = crate::complete::paths())]
    paths: Vec<OsString>,
    /// First byte to print, such as 10M.
    #[arg(long, value_parser = parse_size, default_value = "0", value_name = "BYTES")]
    offset: u64,
    /// Most bytes to print.
    #[arg(long, value_parser = parse_size, value_name = "BYTES")]
    length: Option<u64>,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    for text in &arguments.paths {
        let inside = Inside::parse(text);
        let opened = inside.open(&arguments.packs)?;
        let found = opened.find(&inside.path, true)?;
        if found.stream.is_none() && opened.is_folder(found.resolved.node)? {
            let path = crate::inside::shown(text);
            return Err(Failure::WrongUse(format!("{path} is a folder: hikae ls lists it, hikae cp -r copies it")));
        }
        let content = opened.tree.open(found.resolved.node, found.stream.as_deref())?;
        let end = arguments.length.map_or(u64::MAX, |length| arguments.offset.saturating_add(length));
        if !print(&*content, arguments.offset, end.min(content.len()))? {
            break;
        }
    }
    Ok(DONE)
}

/// Prints a range, decoding ahead on all cores. `false` where nobody reads on.
fn print(content: &dyn Content, start: u64, end: u64) -> Result<bool, Failure> {
    let mut at = start;
    let mut wanted = true;
    let mut out = std::io::stdout().lock();
    let printed = quietly(|run| {
        run_ordered(
            run,
            || {
                let piece = (at < end).then_some((at, at.saturating_add(PIECE).min(end)));
                at = at.saturating_add(PIECE);
                Ok(piece)
            },
            || (),
            |(), (start, end)| {
                let mut buf = vec![0; usize::try_from(end.saturating_sub(start)).expect("at most a piece")];
                content.read_at(&mut buf, start)?;
                Ok(buf)
            },
            |buf: Vec<u8>| match out.write_all(&buf) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    wanted = false;
                    Err(Error::Cancelled)
                }
                Err(error) => Err(Error::io("write to", "the standard output", error)),
            },
        )
    });
    match printed {
        Err(Failure::Library(Error::Cancelled)) if !wanted => Ok(false),
        printed => printed.map(|()| true),
    }
}
