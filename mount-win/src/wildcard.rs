//! Patterns of directory searches, with the characters into which Win32 turns those of MS-DOS.
//!
//! | character | matches |
//! |---|---|
//! | `*` | any characters, also none |
//! | `?` | one character |
//! | `<` (`DOS_STAR`) | any characters, also none, but not the last dot of the name |
//! | `>` (`DOS_QM`) | one character that is no dot; nothing, before a dot or at the end of the name |
//! | `"` (`DOS_DOT`) | a dot; nothing, at the end of the name |
//!
//! Source: `FsRtlIsNameInExpression` (ntifs.h); [MS-FSA] 2.1.4.4.

use crate::names::key;

const STAR: u16 = 0x2a;
const QM: u16 = 0x3f;
const DOS_STAR: u16 = 0x3c;
const DOS_QM: u16 = 0x3e;
const DOS_DOT: u16 = 0x22;
const DOT: u16 = 0x2e;

/// Says whether a pattern has wildcards, or is just a name.
pub fn has_wildcards(pattern: &[u16]) -> bool {
    pattern.iter().any(|unit| matches!(*unit, STAR | QM | DOS_STAR | DOS_QM | DOS_DOT))
}

/// A pattern, prepared for many names.
#[derive(Debug)]
pub struct Pattern(Vec<u16>);

impl Pattern {
    /// Prepares a pattern.
    pub fn new(pattern: &[u16]) -> Self {
        Self(key(pattern))
    }

    /// Says whether a name matches, whatever the case of its letters. An empty pattern matches nothing but an empty name.
    pub fn matches(&self, name: &[u16]) -> bool {
        if self.0 == [STAR] {
            return !name.is_empty();
        }
        if name.is_empty() || self.0.is_empty() {
            return name.is_empty() && self.0.is_empty();
        }
        let name = key(name);
        let last_dot = name.iter().rposition(|unit| *unit == DOT);
        // Places in the pattern that the name has led to so far.
        let mut places = vec![false; self.0.len().saturating_add(1)];
        if let Some(first) = places.first_mut() {
            *first = true;
        }
        for (index, unit) in name.iter().enumerate() {
            self.skip(&mut places, |wildcard| match wildcard {
                STAR | DOS_STAR => true,
                DOS_QM => *unit == DOT,
                _ => false,
            });
            let mut next = vec![false; places.len()];
            for (place, expected) in self.0.iter().enumerate() {
                if places.get(place) != Some(&true) {
                    continue;
                }
                let (takes, stays) = match *expected {
                    STAR => (false, true),
                    DOS_STAR => (false, Some(index) != last_dot),
                    QM => (true, false),
                    DOS_QM => (*unit != DOT, false),
                    DOS_DOT => (*unit == DOT, false),
                    other => (other == *unit, false),
                };
                if takes && let Some(behind) = next.get_mut(place.saturating_add(1)) {
                    *behind = true;
                }
                if stays && let Some(same) = next.get_mut(place) {
                    *same = true;
                }
            }
            places = next;
        }
        self.skip(&mut places, |wildcard| matches!(wildcard, STAR | DOS_STAR | DOS_QM | DOS_DOT));
        places.last() == Some(&true)
    }

    /// Goes on behind wildcards that may match nothing here.
    fn skip(&self, places: &mut [bool], may: impl Fn(u16) -> bool) {
        for (place, wildcard) in self.0.iter().enumerate() {
            if places.get(place) == Some(&true)
                && may(*wildcard)
                && let Some(behind) = places.get_mut(place.saturating_add(1))
            {
                *behind = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        Pattern::new(&units(pattern)).matches(&units(name))
    }

    #[test]
    fn patterns_match_as_documented() {
        let cases: [(&str, &[&str], &[&str]); 14] = [
            ("*", &["a", "a.b", ".x"], &[""]),
            ("A.TXT", &["a.txt", "A.Txt"], &["a.tx", "ba.txt"]),
            ("*.txt", &[".txt", "a.b.txt"], &["a.txt.b", "txt"]),
            ("a?c", &["abc", "a.c"], &["ac", "abbc"]),
            // "*.c" of a program becomes "<.c".
            ("<.c", &["a.c", "a.b.c", ".c"], &["a.c.d", "ac"]),
            // "*." becomes "<": names without an extension.
            ("<", &["a", "abc"], &["a.b", ".b"]),
            ("<\"", &["a", "a."], &["a.b"]),
            // "????.???" becomes ">>>>\">>>".
            (">>>>\">>>", &["a", "abcd", "ab.c", "abcd.efg"], &["abcde", "a.bcde", "a.b.c"]),
            ("a>>", &["a", "ab", "abc"], &["abcd", "a.b"]),
            ("a>>.b", &["a.b", "abc.b"], &["abcd.b"]),
            ("\"", &["."], &["a"]),
            ("a\"", &["a", "a."], &["a.b"]),
            ("*\"*", &["a", "a.b"], &[]),
            ("<.*", &["a.b", "a.b.c"], &["a"]),
        ];
        for (pattern, yes, no) in cases {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
        assert!(matches("", "") && !matches("a", ""));
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = "*a".repeat(10_000);
        assert!(!matches(&pattern, &"a".repeat(255)));
    }
}
