//! The one error type of the library: what, where, why.

use std::fmt;
use std::path::PathBuf;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::UNREADABLE_SECTOR;
#[cfg(unix)]
use unix::{GONE_ERRORS, MEDIUM_ERRORS};
#[cfg(windows)]
pub use windows::UNREADABLE_SECTOR;
#[cfg(windows)]
use windows::{GONE_ERRORS, MEDIUM_ERRORS};

/// The result of every call in this library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a front needs to tell it apart.
///
/// Messages are lower case without a full stop; the cause of an [`Error::Io`] is reached through
/// [`std::error::Error::source`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on `what`.
    #[error("cannot {action} {what}")]
    Io {
        /// The verb: "read", "write", "open".
        action: &'static str,
        /// The file, device or object, with the offset where there is one.
        what: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Stored bytes break the rules of their format or fail their checksum. They are never returned as data.
    #[error("{structure} at byte {offset:#x} is corrupt: {reason}")]
    Corrupt {
        /// The structure of the format, in its specification's words, with the object it belongs to.
        structure: String,
        /// Where it lies, in bytes from the start of its file, disk or partition.
        offset: u64,
        /// The rule that is broken.
        reason: &'static str,
    },
    /// The bytes are valid, but name a feature that this version does not read.
    #[error("{structure} is not supported: {feature}")]
    Unsupported {
        /// The structure that names the feature.
        structure: String,
        /// The feature, by its name where it has one.
        feature: String,
    },
    /// A read or write reaches past the end of a disk.
    #[error("bytes {offset:#x} to {end:#x} reach past the end of the disk, which is {len:#x} bytes long")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// First byte not asked for; saturated at `u64::MAX`.
        end: u64,
        /// Length of the disk in bytes.
        len: u64,
    },
    /// These sectors could not be read at the source when the disk was captured.
    #[error("bytes {offset:#x} to {end:#x} were unreadable at the source when the disk was captured")]
    Bad {
        /// First byte of the unreadable run.
        offset: u64,
        /// First byte after it.
        end: u64,
    },
    /// Something named does not exist: a generation, a pack, a partition.
    #[error("{0}")]
    NotFound(String),
    /// The operation is possible but was refused for safety.
    #[error("{0}")]
    Refused(String),
    /// The operation was cancelled by its caller.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps an operating system error with the verb and the path it happened on.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, what: path.into().display().to_string(), source }
    }

    /// Builds [`Error::Corrupt`].
    pub fn corrupt(structure: impl fmt::Display, offset: u64, reason: &'static str) -> Self {
        Self::Corrupt { structure: structure.to_string(), offset, reason }
    }

    /// Builds [`Error::Unsupported`].
    pub fn unsupported(structure: impl fmt::Display, feature: impl fmt::Display) -> Self {
        Self::Unsupported { structure: structure.to_string(), feature: feature.to_string() }
    }

    /// Says whether a read failed because the medium could not be read (and not because the device is gone).
    pub fn is_unreadable_medium(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.raw_os_error().is_some_and(|code| MEDIUM_ERRORS.contains(&code)),
            Self::Bad { .. } => true,
            _ => false,
        }
    }

    /// Says whether a call failed because nothing stands at its path, or because the device there is gone or has no medium.
    pub fn is_gone(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        let by_code = source.raw_os_error().is_some_and(|code| GONE_ERRORS.contains(&code));
        by_code || source.kind() == std::io::ErrorKind::NotFound
    }
}

/// A message with its causes, on one line.
pub fn full_message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_sector_is_told_from_every_other_failure() {
        let failed = |code| Error::io("read", "a disk", std::io::Error::from_raw_os_error(code));
        assert!(failed(UNREADABLE_SECTOR).is_unreadable_medium());
        // No file, no right, no space, no device: whatever the system calls them.
        let others = (0..2000).map(std::io::Error::from_raw_os_error).filter(|error| {
            use std::io::ErrorKind::{NotFound, PermissionDenied, StorageFull, Unsupported};
            matches!(error.kind(), NotFound | PermissionDenied | StorageFull | Unsupported)
        });
        let others: Vec<_> = others.filter_map(|error| error.raw_os_error()).collect();
        assert!(others.len() > 3);
        assert!(others.into_iter().all(|code| !failed(code).is_unreadable_medium()));
    }

    #[test]
    fn a_device_that_is_gone_is_told_from_every_other_failure() {
        use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, ResourceBusy, StorageFull};
        let failed = |code| Error::io("open", "a disk", std::io::Error::from_raw_os_error(code));
        let codes_of = |kinds: &[std::io::ErrorKind]| -> Vec<i32> {
            (1..2000).filter(|code| kinds.contains(&std::io::Error::from_raw_os_error(*code).kind())).collect()
        };
        let (missing, others) =
            (codes_of(&[NotFound]), codes_of(&[PermissionDenied, ReadOnlyFilesystem, ResourceBusy, StorageFull]));
        assert!(!missing.is_empty() && missing.into_iter().all(|code| failed(code).is_gone()));
        assert!(others.len() > 3 && others.into_iter().all(|code| !failed(code).is_gone()));
        assert!(GONE_ERRORS.iter().all(|code| failed(*code).is_gone() && !failed(*code).is_unreadable_medium()));
        assert!(!failed(UNREADABLE_SECTOR).is_gone() && !Error::Cancelled.is_gone());
    }
}
