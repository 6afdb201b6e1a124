//! Names in UTF-16, which may hold lone surrogates, as the bytes of [`Entry::name`](crate::filesystem::files::Entry::name) and back.
//!
//! Source: "The WTF-8 encoding", <https://simonsapin.github.io/wtf-8/>.

/// UTF-16 code units of little-endian bytes; an odd byte at the end is dropped.
pub fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect()
}

/// UTF-8, with a lone surrogate in three bytes.
pub fn to_wtf8(units: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let [high, low] = lone.unpaired_surrogate().to_be_bytes();
                // 1110xxxx 10xxxxxx 10xxxxxx.
                bytes.extend_from_slice(&[
                    0xe0 | (high >> 4),
                    0x80 | ((high & 0x0f) << 2) | (low >> 6),
                    0x80 | (low & 0x3f),
                ]);
            }
        }
    }
    bytes
}

/// The code units of a name; `None` where it is neither UTF-8 nor WTF-8, and so no name in UTF-16.
pub fn from_wtf8(bytes: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(_) => rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let (good, behind) = rest.split_at(valid);
        units.extend(std::str::from_utf8(good).ok()?.encode_utf16());
        rest = match behind {
            [] => behind,
            [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, more @ ..] => {
                units.push(0xd000 | (u16::from(second & 0x3f) << 6) | u16::from(third & 0x3f));
                more
            }
            _ => return None,
        };
    }
    Some(units)
}

/// The name as it is compared without regard to case: each character by its simple upper case, as far as that is one character.
pub fn simple_upper_case(units: &[u16]) -> Vec<u16> {
    let mut upper = Vec::with_capacity(units.len());
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(char) => {
                let mut mapped = char.to_uppercase();
                let single = mapped.next().filter(|_| mapped.next().is_none());
                upper.extend_from_slice(single.unwrap_or(char).encode_utf16(&mut [0; 2]));
            }
            Err(lone) => upper.push(lone.unpaired_surrogate()),
        }
    }
    upper
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_of_units_comes_back() {
        let cases: [&[u16]; 6] = [
            &[],
            &[0x61, 0xe9, 0x65e5],
            &[0xd83d, 0xde00],
            &[0xd800],
            &[0xdfff, 0x61, 0xdbff],
            &[0xffff, 0x7ff, 0x800],
        ];
        for units in cases {
            assert_eq!(from_wtf8(&to_wtf8(units)).as_deref(), Some(units));
        }
        assert_eq!(to_wtf8(&[0xd83d, 0xde00]), "\u{1f600}".as_bytes());
        assert_eq!(to_wtf8(&[0xdc80]), [0xed, 0xb2, 0x80]);
    }

    #[test]
    fn case_is_that_of_single_characters() {
        let upper =
            |text: &str| String::from_utf16(&simple_upper_case(&text.encode_utf16().collect::<Vec<_>>())).unwrap();
        assert_eq!(upper("a\u{e4}\u{df}\u{3c9}\u{10428}"), "A\u{c4}\u{df}\u{3a9}\u{10400}");
        assert_eq!(simple_upper_case(&[0xd801, 0x61]), [0xd801, 0x41]);
    }

    #[test]
    fn bytes_that_are_no_name_are_told() {
        for bytes in [&[0xff_u8][..], &[0x61, 0x80], &[0xed, 0xa0], &[0xc0, 0x80]] {
            assert_eq!(from_wtf8(bytes), None);
        }
    }
}
