//! Names and paths by the rules of Windows. No call of the system: the rules are the same everywhere, and tested everywhere.
//!
//! Source: "Naming Files, Paths, and Namespaces" and "CreateFileW" in the Windows documentation.

/// Longest name of a file, in UTF-16 code units.
pub(crate) const MAX_UNITS: usize = 255;
/// Paths below this length need no `\\?\` before them.
const MAX_PLAIN_PATH: usize = 240;

/// Says whether the name means a device to programs of Windows, with any extension: `NUL`, `com1.txt`.
pub(crate) fn is_reserved(name: &str) -> bool {
    let stem = name.split(['.', ':']).next().unwrap_or_default().trim_end_matches(' ');
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].iter().any(|device| stem.eq_ignore_ascii_case(device)) {
        return true;
    }
    let mut chars = stem.chars();
    let (head, digit): (String, _) = (chars.by_ref().take(3).collect(), chars.next());
    // The superscript digits of Latin-1 count as digits there.
    let numbered = digit.is_some_and(|digit| digit.is_ascii_digit() || "\u{b9}\u{b2}\u{b3}".contains(digit));
    numbered && chars.next().is_none() && ["COM", "LPT"].iter().any(|port| head.eq_ignore_ascii_case(port))
}

/// Says whether a character cannot be in a name.
pub(crate) fn is_forbidden(c: char) -> bool {
    c.is_ascii_control() || r#"<>:"/\|?*"#.contains(c)
}

/// Says whether Explorer, cmd and every other program of Windows can name this file.
pub(crate) fn is_plain(name: &str) -> bool {
    let fits = name.encode_utf16().count() <= MAX_UNITS;
    !name.is_empty() && fits && !name.ends_with(['.', ' ']) && !name.contains(is_forbidden) && !is_reserved(name)
}

/// The name with `_` for what Windows cannot have in one.
pub(crate) fn plain_part(name: &str) -> String {
    let mut plain: String = name.chars().map(|c| if is_forbidden(c) { '_' } else { c }).collect();
    if plain.ends_with(['.', ' ']) {
        plain.pop();
        plain.push('_');
    }
    if is_reserved(&plain) { format!("_{plain}") } else { plain }
}

/// The path that people write for one that starts with `\\?\`, where it means the same without that.
pub(crate) fn without_prefix(path: &str) -> Option<String> {
    let rest = path.strip_prefix(r"\\?\")?;
    let (head, names) = match rest.strip_prefix(r"UNC\") {
        Some(share) => (r"\\", share),
        None => {
            let names = rest.get(1..)?.strip_prefix(r":\")?;
            rest.starts_with(|drive: char| drive.is_ascii_alphabetic()).then_some(())?;
            (rest.get(..3)?, names)
        }
    };
    let plain = names.is_empty() || names.split('\\').all(is_plain);
    (plain && path.len() < MAX_PLAIN_PATH).then(|| format!("{head}{names}"))
}

/// What a path names that is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DevicePath {
    /// `\\.\PhysicalDrive3`.
    Disk(u32),
    /// A volume, a partition, or a shadow copy; the path as the system takes it, without a `\` at its end.
    Volume(String),
}

/// Tells a path of a device from that of a file. `\\.\E:` is the volume, `\\.\E:\` and `\\.\E:\x` are files of it.
pub(crate) fn device_path(path: &str) -> Option<DevicePath> {
    let path = path.replace('/', r"\");
    let rest = path.strip_prefix(r"\\.\").or_else(|| path.strip_prefix(r"\\?\"))?;
    let with_prefix = |prefix: &str| {
        let head = rest.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then(|| rest.get(prefix.len()..)).flatten()
    };
    if let Some(number) = with_prefix("PhysicalDrive") {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        return digits.then(|| number.parse().ok()).flatten().map(DevicePath::Disk);
    }
    let volume = DevicePath::Volume(path.clone());
    let mut chars = rest.chars();
    if chars.next().is_some_and(|drive| drive.is_ascii_alphabetic()) && chars.as_str() == ":" {
        return Some(volume);
    }
    if let Some(guid) = with_prefix("Volume{") {
        return guid.ends_with('}').then_some(volume);
    }
    let device = with_prefix(r"GLOBALROOT\Device\").unwrap_or(rest);
    let head = device.get(..8)?;
    let tail = device.get(8..)?;
    let is_part = match tail.split_once('\\') {
        None => tail.get(..6).is_some_and(|volume| volume.eq_ignore_ascii_case("Volume")),
        Some((number, part)) => {
            let part = part.get(..9).filter(|part| part.eq_ignore_ascii_case("Partition")).and(part.get(9..));
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number(number) && part.is_some_and(is_number)
        }
    };
    (head.eq_ignore_ascii_case("Harddisk") && is_part).then_some(volume)
}

/// The path of a volume with the `\` at its end that names of volumes have there; `\\.\E:` is known as `E:\`.
pub(crate) fn volume_name(path: &str) -> String {
    let path = path.trim_end_matches('\\');
    let drive = path.strip_prefix(r"\\.\").or_else(|| path.strip_prefix(r"\\?\"));
    let drive = drive.filter(|drive| matches!(drive.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic()));
    format!(r"{}\", drive.unwrap_or(path))
}

/// The place where a volume is mounted, `\\?\C:\` or `\\?\C:\folder\`, as calls that ask for the volume's name are told it: without what is before a letter.
pub(crate) fn written_place(place: &str) -> &str {
    let drive = place.strip_prefix(r"\\?\");
    drive
        .filter(|drive| matches!(drive.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic()))
        .unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_reserved_with_every_extension() {
        for name in ["con", "NUL", "nul.tar.gz", "Com1", "lpt9.txt", "COM\u{b9}", "aux .x", "conin$", "com0", "NUL:a"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["console", "com", "com10", "nulx", "x.nul", "lpt\u{665}", ""] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn what_windows_cannot_have_becomes_an_underscore() {
        for (name, plain) in [
            ("a:b?.txt", "a_b_.txt"),
            ("dot.", "dot_"),
            ("space ", "space_"),
            ("con.txt", "_con.txt"),
            ("a\\b\x01", "a_b_"),
            ("\u{e9}\u{65e5}", "\u{e9}\u{65e5}"),
        ] {
            assert_eq!(plain_part(name), plain);
            assert!(is_plain(plain));
            assert_eq!(is_plain(name), name == plain);
        }
        assert!(is_plain(&"\u{65e5}".repeat(255)) && !is_plain(&"\u{65e5}".repeat(256)));
    }

    #[test]
    fn prefixes_go_only_where_nothing_changes_without_them() {
        assert_eq!(without_prefix(r"\\?\C:\a b\c.hik").as_deref(), Some(r"C:\a b\c.hik"));
        assert_eq!(without_prefix(r"\\?\C:\").as_deref(), Some(r"C:\"));
        assert_eq!(without_prefix(r"\\?\UNC\server\share\x").as_deref(), Some(r"\\server\share\x"));
        for kept in [r"\\?\C:\dot.", r"\\?\C:\nul", r"\\?\Volume{1}\x", r"C:\x", r"\\?\C:", r"\\?\1:\x"] {
            assert_eq!(without_prefix(kept), None, "{kept}");
        }
        assert_eq!(without_prefix(&format!(r"\\?\C:\{}", r"abc\".repeat(80))), None);
    }

    #[test]
    fn devices_are_told_from_files() {
        let disk = |text: &str| match device_path(text) {
            Some(DevicePath::Disk(number)) => Some(number),
            _ => None,
        };
        assert_eq!(disk(r"\\.\PhysicalDrive0"), Some(0));
        assert_eq!(disk(r"\\?\physicaldrive12"), Some(12));
        assert_eq!(disk("//./PhysicalDrive3"), Some(3));
        for volume in [
            r"\\.\E:",
            r"\\?\Volume{0a1b}",
            r"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7",
            r"\\.\HarddiskVolume3",
            r"\\?\GLOBALROOT\Device\Harddisk1\Partition2",
        ] {
            assert_eq!(device_path(volume), Some(DevicePath::Volume(volume.into())), "{volume}");
        }
        for file in [
            r"\\.\E:\",
            r"\\.\E:\x",
            r"E:",
            r"E:\",
            r"\\server\share",
            r"\\.\PhysicalDrive",
            r"\\.\PhysicalDrive1x",
            r"\\.\PhysicalDrive99999999999",
            r"\\?\Volume{1}\x",
            r"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7\Users",
            r"\\?\GLOBALROOT\Device\Harddisk1\Partition2\x",
            r"\\?\C:\a",
            r"\\.\COM1",
            r"\\.\\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "",
        ] {
            assert_eq!(device_path(file), None, "{file}");
        }
    }

    #[test]
    fn places_of_volumes_start_with_their_letter() {
        for (place, written) in [
            (r"\\?\C:\", r"C:\"),
            (r"\\?\d:\mounted here\", r"d:\mounted here\"),
            (r"E:\", r"E:\"),
            (r"\\?\Volume{1-2}\", r"\\?\Volume{1-2}\"),
            (r"\\?\UNC\server\share\", r"\\?\UNC\server\share\"),
        ] {
            assert_eq!(written_place(place), written);
        }
    }

    #[test]
    fn names_of_volumes_end_with_a_backslash() {
        for (path, name) in [
            (r"\\.\E:", r"E:\"),
            (r"\\?\e:", r"e:\"),
            (r"\\?\Volume{1-2}", r"\\?\Volume{1-2}\"),
            (r"\\?\Volume{1-2}\", r"\\?\Volume{1-2}\"),
            (r"\\?\GLOBALROOT\Device\HarddiskVolume3", r"\\?\GLOBALROOT\Device\HarddiskVolume3\"),
        ] {
            assert_eq!(volume_name(path), name);
        }
    }
}
