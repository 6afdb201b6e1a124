//! Names that Windows cannot show, and the names that it is shown instead.
//!
//! Most names are shown as they are. A name is mapped where Windows could not show or open it (`docs/mount.md` has this for users):
//!
//! - it holds one of `" * : < > ? \ |`, a control character (1 to 31), or bytes that are not UTF-8;
//! - it ends with a dot or a space;
//! - up to its first dot it is the name of a device: `CON`, `NUL`, `COM1` ...;
//! - it looks like what another name is mapped to.
//!
//! A mapped name has `%XX` (two hexadecimal digits, upper case) in the place of each such byte (of a device's name, its first), and `%25` for
//! a `%` that two such digits follow. So each name is shown in one way, no two names are shown alike, and [`raw`] leads back.
//!
//! What is still longer than Windows takes, or differs from another name of its folder by nothing but case, is shown as `START%~DIGEST.EXT`,
//! with 16 digits of the name's BLAKE3 hash ([`tagged`]); that is led back by looking through the folder.
//!
//! Source: "Naming Files, Paths, and Namespaces" (learn.microsoft.com, Win32); [MS-FSCC] 2.1.5.

use std::borrow::Cow;

use imgfmt::filesystem::utf16::{from_wtf8, simple_upper_case};
use imgfmt::image::id::Id;

/// Longest name that Windows takes, in UTF-16 units.
pub const MAX_UNITS: usize = 255;
/// Longest name that is mapped, in bytes; a longer one is shown by its digest.
const MAX_MAPPED: usize = 1024;
/// What stands before the digest of a name.
const TAG: &str = "%~";
/// UTF-16 units of the start of a name that are kept before its digest.
const KEPT: usize = 180;
/// Longest extension that is kept behind it, in bytes.
const MAX_EXTENSION: usize = 16;

/// Names that lead to devices wherever they stand.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The name as Windows is shown it; `None` where it would be too long and [`tagged`] must serve.
pub fn shown(name: &[u8]) -> Option<Vec<u16>> {
    if name.len() > MAX_MAPPED {
        return None;
    }
    let mapped = if must_be_mapped(name) { Cow::Owned(escape(name)) } else { Cow::Borrowed(name) };
    from_wtf8(&mapped).filter(|units| units.len() <= MAX_UNITS)
}

/// The stored name that is shown as `shown`; `None` where no name is shown so, or only a [`tagged`] one.
pub fn raw(shown: &[u8]) -> Option<Vec<u8>> {
    if shown.len() > MAX_MAPPED.saturating_mul(3) {
        return None;
    }
    if !must_be_mapped(shown) {
        return Some(shown.to_vec());
    }
    let raw = unescape(shown);
    (must_be_mapped(&raw) && escape(&raw) == shown).then_some(raw)
}

/// The name that is shown where [`shown`] cannot serve: its start, a digest of all of it, its extension.
pub fn tagged(name: &[u8]) -> Vec<u16> {
    let digest = Id::of_chunk(name).to_string();
    let digest = digest.get(..16).unwrap_or_default();
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0).unwrap_or(name.len());
    let (start, extension) = name.split_at(dot);
    let is_extension = extension.len() <= MAX_EXTENSION && !must_be_mapped(extension);
    let (start, extension) = if is_extension { (start, extension) } else { (name, &b""[..]) };
    let start = start.get(..MAX_MAPPED).unwrap_or(start);
    let mut units = from_wtf8(&escape(start)).unwrap_or_default();
    units.truncate(KEPT);
    // Half of a surrogate pair would be another character than the one that was there.
    if units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
        units.pop();
    }
    units.extend(TAG.encode_utf16());
    units.extend(digest.encode_utf16());
    units.extend(from_wtf8(extension).unwrap_or_default());
    units
}

/// Says whether a shown name may be a [`tagged`] one.
pub fn may_be_tagged(shown: &[u8]) -> bool {
    shown.windows(TAG.len()).any(|part| part == TAG.as_bytes())
}

/// The key under which names that differ by nothing but case are the same.
pub fn key(units: &[u16]) -> Vec<u16> {
    simple_upper_case(units)
}

/// Says whether a name is not shown as it is.
fn must_be_mapped(name: &[u8]) -> bool {
    let mut name = Cow::Borrowed(name);
    loop {
        if is_impossible(&name) {
            return true;
        }
        // The name of another one, mapped, looks like this one.
        let other = unescape(&name);
        if other == *name || escape(&other) != *name {
            return false;
        }
        name = Cow::Owned(other);
    }
}

/// Says whether Windows cannot have this name.
fn is_impossible(name: &[u8]) -> bool {
    device_len(name).is_some()
        || matches!(name.last(), None | Some(b'.' | b' '))
        || name.iter().any(|byte| is_forbidden(*byte))
        || from_wtf8(name).is_none()
}

fn is_forbidden(byte: u8) -> bool {
    matches!(byte, 0..=31 | b'"' | b'*' | b'/' | b':' | b'<' | b'>' | b'?' | b'\\' | b'|')
}

/// Bytes of the device's name that a name is, up to its first dot.
fn device_len(name: &[u8]) -> Option<usize> {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let stem = std::str::from_utf8(stem).ok()?.trim_end_matches(' ').to_ascii_uppercase();
    let numbered = |prefix| {
        let rest = stem.strip_prefix(prefix)?;
        matches!(rest, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "\u{b9}" | "\u{b2}" | "\u{b3}")
            .then_some(())
    };
    let is_device = DEVICES.contains(&stem.as_str()) || numbered("COM").or_else(|| numbered("LPT")).is_some();
    is_device.then_some(stem.len())
}

/// Maps a name, whether it must be or not.
fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len().saturating_add(8));
    let is_device = device_len(name).is_some();
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        let is_first = rest.len() == name.len();
        let len = character_len(rest);
        let must = len == 0
            || is_forbidden(byte)
            || (is_first && is_device)
            || (behind.is_empty() && matches!(byte, b'.' | b' '))
            || escaped_byte(rest).is_some();
        if must {
            push_escaped(&mut escaped, byte);
            rest = behind;
        } else {
            let (character, behind) = rest.split_at(len);
            escaped.extend_from_slice(character);
            rest = behind;
        }
    }
    escaped
}

fn push_escaped(escaped: &mut Vec<u8>, byte: u8) {
    escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
}

/// Bytes of the character that `bytes` starts with; 0 where it starts with none.
fn character_len(bytes: &[u8]) -> usize {
    (1..=4).find(|len| bytes.get(..*len).is_some_and(|start| from_wtf8(start).is_some())).unwrap_or(0)
}

/// The byte that the start of `bytes` stands for: `%XX`.
fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    let &[b'%', high @ (b'0'..=b'9' | b'A'..=b'F'), low @ (b'0'..=b'9' | b'A'..=b'F'), ..] = bytes else {
        return None;
    };
    u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok()
}

/// Puts the bytes back that `%XX` stands for.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        match escaped_byte(rest) {
            Some(byte) => {
                raw.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                raw.push(byte);
                rest = behind;
            }
        }
    }
    raw
}

#[cfg(test)]
mod tests {
    use imgfmt::filesystem::utf16::to_wtf8;

    use super::*;

    fn shown_text(name: &[u8]) -> String {
        String::from_utf16(&shown(name).unwrap()).unwrap()
    }

    #[test]
    fn what_windows_can_show_stays_and_the_rest_is_mapped() {
        let same =
            ["a", "a b", ".profile", "100%", "foo%20bar.html", "a%3a", "\u{65e5}\u{672c}", "com0", "CONSOLE", "%~"];
        for name in same {
            assert_eq!(shown_text(name.as_bytes()), name);
        }
        let mapped: [(&[u8], &str); 14] = [
            (b"a:b", "a%3Ab"),
            (b"12:30:00", "12%3A30%3A00"),
            (b"what?", "what%3F"),
            (b"a\\b", "a%5Cb"),
            (b"tab\there", "tab%09here"),
            (b"dot.", "dot%2E"),
            (b"...", "..%2E"),
            (b"space ", "space%20"),
            (b"con", "%63on"),
            (b"NUL.tar.gz", "%4EUL.tar.gz"),
            (b"com1 .txt", "%63om1 .txt"),
            ("LPT\u{b2}".as_bytes(), "%4CPT\u{b2}"),
            (b"caf\xe9", "caf%E9"),
            (b"100%25:", "100%2525%3A"),
        ];
        for (name, text) in mapped {
            assert_eq!(shown_text(name), text);
            assert_eq!(raw(text.as_bytes()).as_deref(), Some(name), "{text}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_mapped_one_is_mapped_itself() {
        assert_eq!(shown_text(b"a%3Ab"), "a%253Ab");
        assert_eq!(shown_text(b"a%253Ab"), "a%25253Ab");
        assert_eq!(raw(b"a%3Ab").unwrap(), b"a:b");
        assert_eq!(raw(b"a%253Ab").unwrap(), b"a%3Ab");
        assert_eq!(raw(b"a%253A"), Some(b"a%3A".to_vec()));
        // Not how anything is mapped: the dot is not the last.
        assert_eq!(raw(b"a%2Eb").unwrap(), b"a%2Eb");
    }

    #[test]
    fn short_names_all_come_back_and_no_two_are_shown_alike() {
        let letters: &[&[u8]] = &[b"%", b"2", b"5", b"E", b"3", b"A", b":", b".", b" ", b"\xff", b"c", b"\xc3\xa9"];
        let mut seen = std::collections::HashMap::new();
        let mut names = vec![Vec::new()];
        for _ in 0..5 {
            names = names
                .iter()
                .flat_map(|name: &Vec<u8>| letters.iter().map(move |letter| [name, *letter].concat()))
                .collect();
            for name in names.iter().filter(|name| !matches!(name.as_slice(), b"." | b"..")) {
                let shown = shown(name).unwrap();
                assert!(!is_impossible(&to_wtf8(&shown)), "{name:?}");
                assert_eq!(raw(&to_wtf8(&shown)).as_ref(), Some(name));
                let other = seen.insert(shown, name.clone());
                assert_eq!(other, None, "{name:?}");
            }
        }
    }

    #[test]
    fn long_names_are_told_apart_by_their_digest() {
        let long = |last: char| format!("{}{last}.tar.gz", "\u{65e5}:".repeat(100));
        let (a, b) = (long('a').into_bytes(), long('b').into_bytes());
        assert_eq!(shown(&a), None);
        for name in [&a[..], &vec![b'x'; 70_000], b"x", "\u{1f600}".repeat(200).as_bytes()] {
            let tagged = tagged(name);
            assert!(tagged.len() <= MAX_UNITS && String::from_utf16(&tagged).is_ok());
            assert!(may_be_tagged(&to_wtf8(&tagged)) && !is_impossible(&to_wtf8(&tagged)));
        }
        assert_ne!(tagged(&a), tagged(&b));
        assert!(String::from_utf16(&tagged(&a)).unwrap().ends_with(".gz"));
        assert!(shown(&[b'a'; 255]).is_some() && shown(&[b'a'; 256]).is_none());
    }
}
