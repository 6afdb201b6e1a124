//! Other programs that read the image files which are written here. They are programs of Linux: what is built for Windows is judged by our own readers alone.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{found, judged, whole};
#[cfg(windows)]
pub(crate) use windows::{found, judged, whole};
