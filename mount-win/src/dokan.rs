//! The only module that talks to Dokan: finding its library, making a drive, serving it, ending it.
//!
//! `dokan2.dll` is loaded when a drive is made and not before, so the program starts and does everything else where Dokan is not installed.
//! It is taken from the system's folder, where Dokan's installer puts it, or from the folder that the installer names in the environment
//! (`DokanLibrary2`); never from the current folder, that of the program, or `PATH`.
//!
//! Source: `dokan.h` of Dokan 2.

mod callbacks;
mod ending;
mod library;
mod mount;
mod output;

pub use ending::unmount;
pub use mount::{Mount, MountError, MountOptions, Unmounter};
pub use output::let_go_of_output;
