//! The commands, one file each.

#[cfg(unix)]
mod boot;
mod capture;
mod cat;
mod clone;
mod completions;
mod cp;
mod diff;
mod disks;
mod export;
mod find;
mod info;
mod list;
mod log;
mod ls;
mod mount;
mod overlay;
mod restore;
mod serve;
mod umount;
mod verify;

use clap::Subcommand;
use imgfmt::engine::{Cancel, Run, quiet};

use crate::exit::Failure;
use crate::progress::Shown;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Capture(capture::Arguments),
    List(list::Arguments),
    Info(info::Arguments),
    Disks(disks::Arguments),
    Ls(ls::Arguments),
    Cat(cat::Arguments),
    Cp(cp::Arguments),
    Find(find::Arguments),
    Log(log::Arguments),
    Diff(diff::Arguments),
    Mount(mount::Arguments),
    Umount(umount::Arguments),
    Serve(serve::Arguments),
    Overlay(overlay::Arguments),
    Verify(verify::Arguments),
    #[cfg(unix)]
    Boot(Box<boot::Arguments>),
    Completions(completions::Arguments),
    Export(export::Arguments),
    Restore(Box<restore::Arguments>),
    Clone(clone::Arguments),
}

impl Command {
    /// Runs the command; the result is its exit code.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Capture(arguments) => capture::run(&arguments),
            Self::List(arguments) => list::run(&arguments),
            Self::Info(arguments) => info::run(&arguments),
            Self::Disks(arguments) => disks::run(&arguments),
            Self::Ls(arguments) => ls::run(&arguments),
            Self::Cat(arguments) => cat::run(&arguments),
            Self::Cp(arguments) => cp::run(&arguments),
            Self::Find(arguments) => find::run(&arguments),
            Self::Log(arguments) => log::run(&arguments),
            Self::Diff(arguments) => diff::run(&arguments),
            Self::Mount(arguments) => mount::run(&arguments),
            Self::Umount(arguments) => umount::run(&arguments),
            Self::Serve(arguments) => serve::run(&arguments),
            Self::Overlay(arguments) => overlay::run(&arguments),
            Self::Verify(arguments) => verify::run(&arguments),
            #[cfg(unix)]
            Self::Boot(arguments) => boot::run(&arguments),
            Self::Completions(arguments) => completions::run(&arguments),
            Self::Export(arguments) => export::run(&arguments),
            Self::Restore(arguments) => restore::run(&arguments),
            Self::Clone(arguments) => clone::run(&arguments),
        }
    }
}

/// Runs `work` on all cores without a word on stderr; Ctrl-C ends the program at once.
fn quietly<T>(work: impl FnOnce(Run<'_>) -> imgfmt::Result<T>) -> Result<T, Failure> {
    Ok(work(quiet(&Cancel::default()))?)
}

/// Runs `work` with progress on stderr, ended by Ctrl-C or a polite kill.
fn with_progress<T>(threads: usize, work: impl FnOnce(Run<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    with_progress_for(Shown::new(), threads, work)
}

/// The same with the given kind of progress.
pub(crate) fn with_progress_for<T>(
    shown: Shown,
    threads: usize,
    work: impl FnOnce(Run<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cancel = Cancel::default();
    let asked = cancel.clone();
    // A second handler cannot be set; a command sets one at most.
    let _ = ctrlc::set_handler(move || asked.cancel());
    let result = work(Run { threads, cancel: &cancel, progress: &shown });
    shown.end();
    result
}
