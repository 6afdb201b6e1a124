//! `hikae serve`: an image or disk as network block devices.

use std::path::PathBuf;
use std::sync::Arc;

use imgfmt::error::full_message;
use serde_json::json;
use serve::Address;

use crate::exit::{DONE, FAILED, Failure};
use crate::image_name::ImageName;
use crate::last_lines::log_to_stderr;
use crate::served::Served;
use crate::source::DiskOptions;
use crate::text::parse_size;

/// Serves an image or disk as network block devices (NBD): QEMU, libvirt and nbd-client attach them.
///
/// The default export is what IMAGE[@GEN] names; `pN` is a partition of it, `GEN` another generation, `GEN/pN` a partition of that one.
/// Without --overlay everything is read-only. Ends with Ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE[@GEN] (the latest generation by default), a virtual disk file, a raw file or a device.
    #[arg(value_name = "IMAGE[@GEN]", add = crate::complete::generations())]
    image: String,
    /// Where to listen: unix:PATH, or HOST:PORT (port 0 chooses one).
    #[arg(long, value_name = "ADDRESS", default_value = "localhost:10809")]
    nbd: Address,
    /// Let clients write to the default export: writes go into this file, which is made where it is not there. The image is never written.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Most memory for decoded data.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    cache: u64,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 128)]
    connections: usize,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// Say where it listens as JSON, and at the end what was read and what was decoded for that, in bytes.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disk: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let name = ImageName::parse(&arguments.image);
    let served = Served::open(&name, &arguments.packs, arguments.cache, &arguments.disk, arguments.overlay.as_deref())?;
    let served = Arc::new(served);
    let server = served.listen(&arguments.nbd, arguments.connections, log_to_stderr())?;
    let stop = server.stopper();
    let asked = std::sync::atomic::AtomicBool::new(false);
    let handler = move || {
        if asked.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::process::exit(FAILED.into());
        }
        stop.stop();
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")))?;
    let place = server.place().clone();
    // The line says that clients can connect now.
    if arguments.json {
        println!("{}", json!({"uri": place.to_string(), "writable": served.is_writable()}));
    } else {
        println!("serving {} at {place}{}", served.description(), if served.is_writable() { ", writable" } else { "" });
    }
    server.run();
    served.flush().map_err(|error| Failure::Failed(full_message(&error)))?;
    if arguments.json {
        println!("{}", served.counts().json());
    } else {
        eprintln!("hikae: {}", served.counts().text());
    }
    Ok(DONE)
}
