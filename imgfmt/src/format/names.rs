//! Names of bases as Windows programs write them.

/// The path of UTF-16 units with `/` between names: `.\base.vhd` becomes `./base.vhd`. Ends at the first zero.
pub(crate) fn from_utf16(units: impl Iterator<Item = u16>) -> Vec<u8> {
    let text = char::decode_utf16(units.take_while(|unit| *unit != 0));
    let text: String = text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text.replace('\\', "/").into_bytes()
}

/// The units of little-endian bytes; an odd byte at the end is left out.
pub(crate) fn units_le(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair))
}

/// The units of big-endian bytes; an odd byte at the end is left out.
pub(crate) fn units_be(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
}

/// What is behind the last `/` of a path: the file's own name, which may lie beside the child although the folder is another machine's.
pub(crate) fn file_name(path: &[u8]) -> Vec<u8> {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
}

/// Puts the names to try in order: each as it is and, last, each file name alone; none twice, none empty.
pub(crate) fn to_try(paths: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in paths.iter().cloned().chain(paths.iter().map(|path| file_name(path))) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_paths_are_tried_as_they_are_and_by_their_file_name() {
        let relative = from_utf16(r".\sub\base.vhd".encode_utf16().chain([0, 65]));
        assert_eq!(relative, b"./sub/base.vhd");
        let absolute = from_utf16(r"C:\disks\base.vhd".encode_utf16());
        let names: Vec<_> =
            to_try(&[relative, absolute, vec![]]).into_iter().map(String::from_utf8).map(Result::unwrap).collect();
        assert_eq!(names, ["./sub/base.vhd", "C:/disks/base.vhd", "base.vhd"]);
    }
}
