//! `hikae umount`: ends a mount, dead ones included.

use std::path::PathBuf;

use crate::commands::mount;
use crate::exit::{DONE, Failure};

/// Ends a mount of hikae: also one whose process is gone.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder or, on Windows, the drive letter that it is mounted on.
    dir: PathBuf,
    /// Take it out of sight even where it is in use; it ends when the last file in it is closed.
    #[arg(long)]
    lazy: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    mount::unmount(&arguments.dir, arguments.lazy)?;
    Ok(DONE)
}
