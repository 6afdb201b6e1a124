//! Whether there is a desktop that can show a window.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
#[expect(unsafe_code, reason = "the session is told by a function of C")]
mod windows;

#[cfg(unix)]
pub(crate) use unix::has_desktop;
#[cfg(windows)]
pub(crate) use windows::has_desktop;
