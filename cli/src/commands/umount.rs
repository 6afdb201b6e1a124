//! `hikae umount`: ends a mount, dead ones included.

use std::path::PathBuf;

use imgfmt::error::full_message;
use mount_unix::{Unmounted, unmount};

use crate::exit::{DONE, Failure};

/// Ends a mount of hikae: also one whose process is gone.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder that it is mounted on.
    dir: PathBuf,
    /// Take it out of sight even where it is in use; it ends when the last file in it is closed.
    #[arg(long)]
    lazy: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match unmount(&arguments.dir, arguments.lazy) {
        Ok(Unmounted::Gone | Unmounted::Detached) => Ok(DONE),
        Err(error) => Err(Failure::Failed(full_message(&error))),
    }
}
