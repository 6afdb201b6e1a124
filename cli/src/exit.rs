//! Exit codes, and how errors of the library become them.

use imgfmt::Error;
use imgfmt::error::full_message;

use crate::text::printable;

/// Done.
pub(crate) const DONE: u8 = 0;
/// A difference, damage or unreadable sectors were found.
pub(crate) const FOUND: u8 = 1;
/// Wrong use.
pub(crate) const WRONG_USE: u8 = 2;
/// Failed.
pub(crate) const FAILED: u8 = 3;
/// Refused for safety.
pub(crate) const REFUSED: u8 = 4;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's reason.
    Library(Error),
    /// Arguments that make no sense together.
    WrongUse(String),
    /// Something that is not done for safety, with what to do instead.
    Refused(String),
    /// Something outside of the library that did not work.
    Failed(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl Failure {
    /// The same, but a run that was stopped on request says what is left of it.
    pub(crate) fn if_stopped(self, left: impl FnOnce() -> String) -> Self {
        match self {
            Self::Library(Error::Cancelled) => Self::Failed(format!("stopped on request; {}", left())),
            failure => failure,
        }
    }

    /// The sentence for the user.
    pub(crate) fn message(&self) -> String {
        let text = match self {
            Self::Library(Error::Cancelled) => "stopped on request".to_owned(),
            Self::Library(error) => full_message(error),
            Self::WrongUse(text) | Self::Refused(text) | Self::Failed(text) => text.clone(),
        };
        printable(&text)
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Library(Error::Refused(_)) | Self::Refused(_) => REFUSED,
            Self::Library(Error::Corrupt { .. } | Error::Bad { .. }) => FOUND,
            Self::Library(_) | Self::Failed(_) => FAILED,
            Self::WrongUse(_) => WRONG_USE,
        }
    }
}
