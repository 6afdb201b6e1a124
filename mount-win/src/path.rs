//! Paths as the driver sends them: `\folder\file:stream:$DATA`, from the root of the drive.
//!
//! Source: [MS-FSCC] 2.1.5 (names), 2.1.5.3 (streams).

use crate::names::MAX_UNITS;
use crate::status::Status;

const BACKSLASH: u16 = 0x5c;
const COLON: u16 = 0x3a;
const DOT: u16 = 0x2e;

/// What of a file a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The file or folder itself.
    Whole,
    /// Its unnamed stream, asked for as such (`::$DATA`): a file.
    Content,
    /// A named stream.
    Stream(Vec<u16>),
    /// What lies in it (`::$INDEX_ALLOCATION`): a folder.
    Folder,
}

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Names of the folders and of the file, from the root down; none for the root.
    pub names: Vec<Vec<u16>>,
    /// What of it is named.
    pub part: Part,
    /// It ends with a backslash.
    pub must_be_folder: bool,
}

impl Path {
    /// Takes a path apart, which starts with a backslash.
    pub fn parse(path: &[u16]) -> Result<Self, Status> {
        let Some((&BACKSLASH, path)) = path.split_first() else { return Err(Status::OBJECT_NAME_INVALID) };
        let (path, must_be_folder) = match path.split_last() {
            Some((&BACKSLASH, path)) => (path, true),
            _ => (path, false),
        };
        if path.is_empty() {
            // The root has one name and is a folder however it is written, but "\\" with a second backslash is no name.
            let root = Self { names: Vec::new(), part: Part::Whole, must_be_folder };
            return if must_be_folder { Err(Status::OBJECT_NAME_INVALID) } else { Ok(root) };
        }
        let mut names: Vec<Vec<u16>> = path.split(|unit| *unit == BACKSLASH).map(<[u16]>::to_vec).collect();
        let last = names.pop().ok_or(Status::OBJECT_NAME_INVALID)?;
        let (name, part) = split_stream(&last)?;
        // Only the root has no name: "\:stream".
        if !name.is_empty() || !names.is_empty() {
            names.push(name);
        }
        if !names.iter().all(|name| is_name(name)) {
            return Err(Status::OBJECT_NAME_INVALID);
        }
        Ok(Self { names, part, must_be_folder })
    }
}

/// Takes the stream off a name.
fn split_stream(name: &[u16]) -> Result<(Vec<u16>, Part), Status> {
    let mut parts = name.split(|unit| *unit == COLON);
    let name = parts.next().unwrap_or_default().to_vec();
    let (stream, kind) = (parts.next(), parts.next());
    let is = |wanted: &str| kind.is_some_and(|kind| String::from_utf16_lossy(kind).eq_ignore_ascii_case(wanted));
    let part = match stream {
        _ if parts.next().is_some() => return Err(Status::OBJECT_NAME_INVALID),
        None => Part::Whole,
        Some([]) if is("$DATA") => Part::Content,
        Some(stream) if is("$INDEX_ALLOCATION") => {
            let stream = String::from_utf16_lossy(stream);
            if !stream.is_empty() && !stream.eq_ignore_ascii_case("$I30") {
                // [MS-FSA] 2.1.5.1, phase 5.
                return Err(Status::INVALID_PARAMETER);
            }
            Part::Folder
        }
        Some(stream) if !stream.is_empty() && stream.len() <= MAX_UNITS && (kind.is_none() || is("$DATA")) => {
            if stream.contains(&0) || stream.contains(&0x2f) {
                return Err(Status::OBJECT_NAME_INVALID);
            }
            Part::Stream(stream.to_vec())
        }
        Some(_) => return Err(Status::OBJECT_NAME_INVALID),
    };
    Ok((name, part))
}

/// Says whether a file can have this name.
fn is_name(name: &[u16]) -> bool {
    let forbidden = |unit: &u16| matches!(*unit, 0..=31 | 0x22 | 0x2a | 0x2f | 0x3a | 0x3c | 0x3e | 0x3f | 0x5c | 0x7c);
    !name.is_empty() && name.len() <= MAX_UNITS && name != [DOT] && name != [DOT, DOT] && !name.iter().any(forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn parse(path: &str) -> Result<(Vec<String>, Part, bool), Status> {
        let path = Path::parse(&units(path))?;
        let names = path.names.iter().map(|name| String::from_utf16(name).unwrap()).collect();
        Ok((names, path.part, path.must_be_folder))
    }

    #[test]
    fn paths_are_taken_apart() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let stream = |text| Part::Stream(units(text));
        let cases = [
            (r"\", names(&[]), Part::Whole, false),
            (r"\a", names(&["a"]), Part::Whole, false),
            (r"\a\b c\", names(&["a", "b c"]), Part::Whole, true),
            (r"\a\b:s", names(&["a", "b"]), stream("s"), false),
            (r"\b:s<>?*:$data", names(&["b"]), stream("s<>?*"), false),
            (r"\b::$DATA", names(&["b"]), Part::Content, false),
            (r"\b:$I30:$INDEX_ALLOCATION", names(&["b"]), Part::Folder, false),
            (r"\b::$index_allocation", names(&["b"]), Part::Folder, false),
            (r"\:s", names(&[]), stream("s"), false),
        ];
        for (path, names, part, must_be_folder) in cases {
            assert_eq!(parse(path), Ok((names, part, must_be_folder)), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_told() {
        let long = format!(r"\{}", "a".repeat(256));
        let cases = [
            "",
            "a",
            r"\\",
            r"\a\\b",
            r"\a\.\b",
            r"\..",
            r"\a*",
            r"\a<",
            r"\a|b",
            r"\a:",
            r"\a:b:",
            r"\a:b:c:d",
            r"\a:b\c",
            r"\a::",
            r"\a:b:$BITMAP",
            r"\a/b",
            "\\a\tb",
            "\\a\0b",
            r"\a:b/c",
            r"\a\:s",
            &long,
        ];
        for path in cases {
            assert_eq!(parse(path), Err(Status::OBJECT_NAME_INVALID), "{path:?}");
        }
        assert_eq!(parse(r"\a:x:$INDEX_ALLOCATION"), Err(Status::INVALID_PARAMETER));
    }
}
