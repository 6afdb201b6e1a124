//! What was logged lately: a program that tries again and again says nothing new.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::text::printable;

/// Lines that are not logged again as long as they are among the last ones.
const LAST_LINES: usize = 64;

/// The last lines of a log.
#[derive(Debug, Default)]
pub(crate) struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    /// Says whether a line is none of the last ones, of which it is one from now on.
    pub(crate) fn is_new(&self, line: &str) -> bool {
        let mut last = self.0.lock().expect("no holder of the lock panics");
        if last.iter().any(|said| said == line) {
            return false;
        }
        if last.len() >= LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
        true
    }
}

/// A log on standard error.
pub(crate) fn log_to_stderr() -> Box<serve::server::Log> {
    let last = LastLines::default();
    Box::new(move |line: &str| {
        let line = printable(line);
        if last.is_new(&line) {
            eprintln!("hikae: {line}");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_new_until_it_was_said_and_again_when_many_others_were() {
        let last = LastLines::default();
        assert!(last.is_new("a"));
        assert!((0..LAST_LINES - 1).all(|number| last.is_new(&number.to_string())));
        assert!(!last.is_new("a") && !last.is_new("0"));
        assert!(last.is_new("another"));
        assert!(last.is_new("a"));
    }
}
