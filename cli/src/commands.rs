//! The commands, one file each.

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

use crate::exit::Failure;

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
            Self::Boot(arguments) => boot::run(&arguments),
            Self::Completions(arguments) => completions::run(&arguments),
            Self::Export(arguments) => export::run(&arguments),
            Self::Restore(arguments) => restore::run(&arguments),
            Self::Clone(arguments) => clone::run(&arguments),
        }
    }
}
