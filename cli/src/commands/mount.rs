//! `hikae mount`: an image or disk as a folder, or on Windows as a drive letter.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use imgfmt::error::full_message;
use imgfmt::image::{Image, OpenOptions};
use imgfmt::tree::{Tree, TreeOptions};
use serve::{Address, Limits, Stop};

use crate::ahead::part_of;
use crate::exit::{DONE, FAILED, Failure};
use crate::image_name::{ImageName, choose};
use crate::last_lines::LastLines;
use crate::served::Served;
use crate::source::{self, DiskOptions};
use crate::text::{parse_size, printable};

/// Set for the process that serves a mount in the background: it says on its standard output when the mount is there.
const IN_BACKGROUND: &str = "HIKAE_MOUNT_IN_BACKGROUND";
/// What it says.
const READY: &[u8] = b"mounted\n";

/// Shows an image or disk as a folder: its generations, their files, and their partitions and disks as files.
///
/// Everything is read-only; with --overlay the files of one disk take writes, which go to the overlay. Returns when the mount is there, and leaves a process that serves it until `hikae umount DIR`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// IMAGE (all generations), IMAGE@GEN (one), a virtual disk file, a raw file or a device.
    image: String,
    /// The folder to mount on; on Windows a drive letter (X:) or an empty folder.
    dir: PathBuf,
    /// Let the disk files of the generation (the latest, where IMAGE names none) take writes: they go into this file, which is made where it is not there. The image is never written.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Also serve the disk as a network block device, as `hikae serve` does: unix:PATH, or HOST:PORT (port 0 chooses one).
    #[arg(long, value_name = "ADDRESS")]
    nbd: Option<Address>,
    /// Most memory for decoded data.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    cache: u64,
    /// Let other users see the mount, with the permissions that the files have.
    #[arg(long)]
    allow_other: bool,
    #[command(flatten)]
    system: system::Options,
    /// Serve the mount in this process, until Ctrl-C or hikae umount.
    #[arg(long)]
    foreground: bool,
    /// Add what goes wrong while it is served to this file, besides the system's log (which Windows has none of).
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    #[command(flatten)]
    disk: DiskOptions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let in_background = std::env::var_os(IN_BACKGROUND).is_some();
    if arguments.foreground || in_background { serve(arguments, in_background) } else { start(arguments) }
}

/// Starts a process that serves the mount, and waits until it is there.
fn start(arguments: &Arguments) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot start a process for the mount: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(IN_BACKGROUND, "1");
    system::start_apart(&mut command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(failed)?;
    }
    if let Some(more) = said.strip_prefix(READY) {
        eprint!("{}", String::from_utf8_lossy(more));
        let dir = arguments.dir.display().to_string();
        eprintln!("hikae: mounted on {}; end it with: hikae umount {0}", printable(&dir));
        return Ok(DONE);
    }
    // It has said itself what went wrong.
    let status = child.wait().map_err(failed)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code != DONE => Ok(code),
        _ => Err(Failure::Failed(format!("the process for the mount ended early: {status}"))),
    }
}

fn serve(arguments: &Arguments, in_background: bool) -> Result<u8, Failure> {
    if in_background {
        system::leave_terminal();
    }
    guard_log(arguments)?;
    let log = Arc::new(LogLines::open(arguments.log.as_deref(), in_background)?);
    let readahead_bytes = part_of(arguments.cache);
    let (tree, served) = open(arguments, arguments.cache.saturating_sub(readahead_bytes))?;
    let lines = Arc::clone(&log);
    let heard: Log = Arc::new(move |line: &str| lines.add(line));
    let at_end = Arc::clone(&log);
    let source =
        std::path::absolute(&arguments.image).map_or(arguments.image.clone(), |path| path.display().to_string());
    let wish = Wish {
        dir: &arguments.dir,
        source,
        allow_other: arguments.allow_other,
        readahead_bytes,
        options: &arguments.system,
    };
    let block_device = match (&served, &arguments.nbd) {
        (Some(served), Some(address)) => Some(BlockDevice::start(served, address, &heard)?),
        _ => None,
    };
    let mount = system::Mount::new(Arc::new(tree), wish, heard)?;
    let end = mount.ender();
    let asked = AtomicBool::new(false);
    let handler = move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(FAILED.into());
        }
        if let Err(error) = end() {
            log.add(&error.message());
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")))?;
    let place =
        block_device.as_ref().map(|device| format!("hikae: the disk is at {}\n", device.place)).unwrap_or_default();
    if in_background {
        say_ready(&place)?;
    } else {
        eprint!("{place}");
    }
    let ended = mount.serve();
    drop(block_device);
    // What was written is durable, however the mount ended.
    let flushed = served.as_ref().map_or(Ok(()), |served| served.flush());
    if let Err(error) = &flushed {
        // In the background nobody else is told. The overlay is still ours, so whoever finds it free finds this line as well.
        at_end.add(&format!("what was written last is lost: {}", full_message(error)));
    }
    flushed?;
    ended?;
    Ok(DONE)
}

/// The disk as a network block device, as long as this value lives.
struct BlockDevice {
    place: String,
    stop: Stop,
    server: Option<JoinHandle<()>>,
}

impl BlockDevice {
    fn start(served: &Arc<Served>, address: &Address, log: &Log) -> Result<Self, Failure> {
        let log = Arc::clone(log);
        let server = served.listen(address, Limits::default().connections, Box::new(move |line: &str| log(line)))?;
        let (place, stop) = (server.place().to_string(), server.stopper());
        Ok(Self { place, stop, server: Some(std::thread::spawn(move || server.run())) })
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(server) = self.server.take() {
            // It has said itself what went wrong.
            let _ = server.join();
        }
    }
}

/// Hears what goes wrong while a mount is served.
type Log = Arc<dyn Fn(&str) + Send + Sync>;
/// Ends a mount, from any thread.
type Ender = Box<dyn Fn() -> Result<(), Failure> + Send>;

/// A mount that is to be made.
struct Wish<'a> {
    dir: &'a Path,
    /// What the mount is called: the image.
    source: String,
    allow_other: bool,
    readahead_bytes: u64,
    options: &'a system::Options,
}

/// Ends the mount of hikae on `dir`.
pub(super) fn unmount(dir: &Path, lazy: bool) -> Result<(), Failure> {
    system::unmount(dir, lazy)
}

/// Opens what is to be seen; with an overlay or a block device also the disk that it is about.
fn open(arguments: &Arguments, cache_bytes: u64) -> Result<(Tree, Option<Arc<Served>>), Failure> {
    let name = ImageName::parse(&arguments.image);
    if name.is_hikae() {
        let packs = arguments.packs.iter().map(|path| &**path);
        for folder in [name.path.parent().unwrap_or(Path::new(""))].into_iter().chain(packs) {
            guard_hidden(folder, &arguments.dir)?;
        }
    }
    let overlay = arguments.overlay.as_deref();
    if overlay.is_some() || arguments.nbd.is_some() {
        let served = Served::open(&name, &arguments.packs, cache_bytes, &arguments.disk, overlay)?;
        let base = served.base();
        let tree = match served.image() {
            Some(image) => tree_of_image(image, &name)?,
            None => Tree::of_disk(Arc::clone(&base.disk), &name.identity_of_file(), &TreeOptions::default()),
        };
        let tree = match served.overlay() {
            Some(overlay) => tree.with_overlay(base.generation.unwrap_or_default(), overlay)?,
            None => tree,
        };
        return Ok((tree, Some(Arc::new(served))));
    }
    if name.is_hikae() {
        let image = name.open_with(&arguments.packs, &OpenOptions { cache_bytes })?;
        return Ok((tree_of_image(&image, &name)?, None));
    }
    let opened = source::open(&name.path, name.generation.as_deref(), None, &arguments.disk)?;
    opened.tell_notes();
    Ok((Tree::of_disk(opened.source.disk, &name.identity_of_file(), &TreeOptions::default()), None))
}

/// All generations of an image, or the one that `name` says.
fn tree_of_image(image: &Arc<Image>, name: &ImageName) -> Result<Tree, Failure> {
    let options = TreeOptions::default();
    let Some(wish) = &name.generation else { return Ok(Tree::of_image(Arc::clone(image), &options)) };
    let disk = image.generation(choose(image, wish)?.number)?;
    let identity = disk.record().identity();
    Ok(Tree::of_disk(Arc::new(disk), &identity, &options))
}

/// Refuses a mount that would hide the packs that it is made of.
fn guard_hidden(folder: &Path, dir: &Path) -> Result<(), Failure> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (folder.canonicalize(), dir.canonicalize()) {
        (Ok(folder), Ok(dir)) if folder.starts_with(&dir) => Err(Failure::Refused(format!(
            "{} holds the image itself: a mount there would hide it; choose an empty folder",
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses to log into what is shown, or into what takes its writes.
fn guard_log(arguments: &Arguments) -> Result<(), Failure> {
    let Some(log) = &arguments.log else { return Ok(()) };
    let name = ImageName::parse(&arguments.image);
    if name.is_hikae() {
        name.guard_target(&arguments.packs, log)?;
    }
    let is_log = |file: &PathBuf| file.canonicalize().is_ok_and(|file| log.canonicalize().is_ok_and(|log| log == file));
    match std::iter::once(&name.path).chain(&arguments.overlay).find(|file| is_log(file)) {
        None => Ok(()),
        Some(file) => {
            let text = format!("{} is needed for the mount: the log cannot be written into it", file.display());
            Err(Failure::Refused(text))
        }
    }
}

/// Tells the process that waits, with what it is to print, and lets go of everything that it was given.
fn say_ready(print: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot go into the background: {error}"));
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(READY)
        .and_then(|()| stdout.write_all(print.as_bytes()))
        .and_then(|()| stdout.flush())
        .map_err(failed)?;
    system::let_go_of_output().map_err(failed)
}

/// Where lines about trouble go.
struct LogLines {
    file: Option<File>,
    /// The system's log, for a process without a terminal.
    system: Option<system::SystemLog>,
    last: LastLines,
}

impl LogLines {
    fn open(file: Option<&Path>, in_background: bool) -> Result<Self, Failure> {
        let cannot = |path: &Path, error| Failure::from(imgfmt::Error::io("open", path, error));
        let file = match file {
            Some(path) => {
                Some(File::options().append(true).create(true).open(path).map_err(|error| cannot(path, error))?)
            }
            None => None,
        };
        let system = if in_background { system::SystemLog::open() } else { None };
        Ok(Self { file, system, last: LastLines::default() })
    }

    /// Logs a line, unless it was among the last ones: a program that tries again and again says nothing new.
    fn add(&self, line: &str) {
        let line = printable(line);
        if !self.last.is_new(&line) {
            return;
        }
        eprintln!("hikae: {line}");
        // There is nobody to tell where a log cannot be written.
        if let Some(mut file) = self.file.as_ref() {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
            let _ = file.write_all(format!("{now} {line}\n").as_bytes());
        }
        if let Some(system) = &self.system {
            system.add(&line);
        }
    }
}
