//! QEMU as a process of ours: it ends when this one does, however that ends (without the disk that is served to it a machine is of no use), and what it has used of
//! the processor can be asked.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
#[expect(unsafe_code, reason = "job objects are functions of C")]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{Tie, become_program, command, set_apart};
#[cfg(windows)]
pub(crate) use windows::{Tie, become_program, command, set_apart};
