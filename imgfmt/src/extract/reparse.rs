//! Symbolic links as Windows keeps them. No call of the system is here, so it is tested everywhere.
//!
//! Source: [MS-FSCC] 2.1.2.4 (Symbolic Link Reparse Data Buffer).

/// `IO_REPARSE_TAG_SYMLINK`.
const SYMLINK: u32 = 0xa000_000c;
/// The target starts at the folder of the link, or at the root of its drive.
const RELATIVE: u32 = 1;

/// The reparse data of a symbolic link; `target` has `/` between names. `None` where the target is no text, or too long for a link.
pub(crate) fn symlink(target: &[u8]) -> Option<Vec<u8>> {
    let print = std::str::from_utf8(target).ok().filter(|text| !text.is_empty())?.replace('/', r"\");
    let mut chars = print.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':');
    // The system wants its own name of what is absolute, and shows the other.
    let (substitute, flags) = match print.strip_prefix(r"\\") {
        Some(share) => (format!(r"\??\UNC\{share}"), 0),
        None if drive => (format!(r"\??\{print}"), 0),
        None => (print.clone(), RELATIVE),
    };
    let units = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (substitute, print) = (units(&substitute), units(&print));
    let len = |bytes: usize| u16::try_from(bytes).ok();
    let data_len = len(substitute.len().checked_add(print.len())?.checked_add(12)?)?;
    let mut data = Vec::new();
    data.extend(SYMLINK.to_le_bytes());
    data.extend(data_len.to_le_bytes());
    data.extend([0, 0]);
    for field in [0, len(substitute.len())?, len(substitute.len())?, len(print.len())?] {
        data.extend(field.to_le_bytes());
    }
    data.extend(flags.to_le_bytes());
    data.extend(substitute);
    data.extend(print);
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str) -> (String, String, u32) {
        let data = symlink(target.as_bytes()).unwrap();
        let field = |at: usize| usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
        assert_eq!((field(4), data[..4].to_vec()), (data.len() - 8, SYMLINK.to_le_bytes().to_vec()));
        let text = |at: usize, len: usize| {
            let units: Vec<_> =
                data[20 + at..20 + at + len].chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
            String::from_utf16(&units).unwrap()
        };
        let flags = u32::from_le_bytes(data[16..20].try_into().unwrap());
        (text(field(8), field(10)), text(field(12), field(14)), flags)
    }

    #[test]
    fn relative_and_absolute_targets() {
        assert_eq!(parts("../a/\u{e9}"), (r"..\a\é".into(), r"..\a\é".into(), 1));
        assert_eq!(parts("/usr/bin"), (r"\usr\bin".into(), r"\usr\bin".into(), 1));
        assert_eq!(parts("C:/Users"), (r"\??\C:\Users".into(), r"C:\Users".into(), 0));
        assert_eq!(parts("//server/share"), (r"\??\UNC\server\share".into(), r"\\server\share".into(), 0));
    }

    #[test]
    fn what_is_no_target_of_windows_makes_no_link() {
        assert_eq!(symlink(b""), None);
        assert_eq!(symlink(b"\xff"), None);
        assert_eq!(symlink(&[b'a'; 20_000]), None);
    }
}
