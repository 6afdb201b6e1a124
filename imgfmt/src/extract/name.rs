//! Names as the target can have them.

use std::ffi::{OsStr, OsString};

use crate::extract::folder::{plain_part, representable, to_os};
use crate::image::id::Id;

/// Bytes of a name that are kept where it is too long; the rest makes room for a digest and the extension.
const KEPT: usize = 200;
/// Longest extension that is kept.
const MAX_EXTENSION: usize = 16;

/// A name for the target, and a phrase where it is not the source's own. `None` where there is no safe one: it is empty, "." or "..", or holds `/` or NUL.
pub(crate) fn target_name(name: &[u8]) -> Option<(OsString, Option<String>)> {
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return None;
    }
    if representable(name) {
        return Some((to_os(name), None));
    }
    Some(other_name(name))
}

/// Another name for a safe one that cannot be had, and a phrase that says so.
pub(crate) fn other_name(name: &[u8]) -> (OsString, Option<String>) {
    // A digest of the whole name keeps two long names apart that start alike.
    let digest = Id::of_chunk(name).to_string();
    let digest = digest.get(..8).unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').and_then(|at| name.get(at..));
    let extension = extension.filter(|extension| extension.len() <= MAX_EXTENSION).unwrap_or_default();
    let text = String::from_utf8_lossy(name);
    let mut end = KEPT.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    // What stands before the extension, which is put behind the digest again.
    let stem = text.strip_suffix(&*String::from_utf8_lossy(extension)).unwrap_or(&text);
    let start = stem.get(..end.min(stem.len())).unwrap_or_default();
    let short = format!("{}~{digest}{}", plain_part(start), plain_part(&String::from_utf8_lossy(extension)));
    let short = if representable(short.as_bytes()) { short } else { format!("name~{digest}") };
    let phrase = if text.len() > KEPT { "its name is too long here" } else { "its name cannot be had here" };
    let phrase = format!("{phrase}: it is called {short:?}");
    (to_os(short.as_bytes()), Some(phrase))
}

/// The name of the file that a named stream becomes, beside the file `name` that it belongs to; as [`target_name`].
pub(crate) fn stream_file_name(name: &OsStr, stream: &[u8]) -> Option<(OsString, Option<String>)> {
    target_name(&[name.as_encoded_bytes(), b":", stream].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_not_taken() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b"] {
            assert_eq!(target_name(name), None, "{name:?}");
        }
        // Windows takes dots from the end of a name.
        let (dots, said) = target_name(b"...").unwrap();
        assert!(dots != "." && dots != ".." && !dots.to_str().unwrap().contains('/'));
        assert_eq!((dots == "...", said.is_none()), (representable(b"..."), representable(b"...")));
        assert_eq!(target_name(b"a b\xc3\xa9").unwrap(), (OsString::from("a b\u{e9}"), None));
    }

    #[test]
    fn long_names_are_shortened_and_stay_different() {
        let long = |last: char| format!("{}{last}.tar.gz", "\u{65e5}".repeat(300));
        let (a, said) = target_name(long('a').as_bytes()).unwrap();
        let (b, _) = target_name(long('b').as_bytes()).unwrap();
        assert!(a.len() <= 255 && a != b);
        assert!(a.to_str().unwrap().ends_with(".gz"));
        assert!(said.unwrap().contains("too long"));
    }
}
