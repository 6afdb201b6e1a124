//! The guest's screen: its picture, and its text where it shows text.

use std::collections::HashSet;

/// Width and height of the text screen of the VGA, in characters.
const COLUMNS: usize = 80;
const ROWS: usize = 25;
/// Where its memory lies in the guest, and bytes of it: a character and an attribute for each place.
pub(crate) const TEXT_MEMORY: u64 = 0xb8000;
pub(crate) const TEXT_LEN: usize = COLUMNS * ROWS * 2;

/// Pixels that a cursor changes at most when it blinks.
pub(crate) const CURSOR: usize = 200;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Pixels in a row.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<u8>,
}

impl Picture {
    /// Parses a PPM file of the kind P6 with 8 bits for each colour, as QEMU writes it. Source: netpbm, ppm(5).
    pub(crate) fn parse(file: &[u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(b"P6")?;
        let mut numbers = [0_usize; 3];
        for number in &mut numbers {
            rest = rest.trim_ascii_start();
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (text, behind) = rest.split_at_checked(digits)?;
            *number = std::str::from_utf8(text).ok()?.parse().ok()?;
            rest = behind;
        }
        let [width, height, most] = numbers;
        // One white space behind the header.
        let pixels = rest.get(1..)?;
        let len = width.checked_mul(height)?.checked_mul(3)?;
        (most == 255 && pixels.len() == len).then(|| Self { width, height, pixels: pixels.to_vec() })
    }

    /// How many pixels differ from another picture; all of them where it has another size.
    pub(crate) fn differences(&self, other: &Self) -> usize {
        if (self.width, self.height) != (other.width, other.height) {
            return self.width.saturating_mul(self.height).max(1);
        }
        if self.pixels == other.pixels {
            return 0;
        }
        self.pixels.chunks_exact(3).zip(other.pixels.chunks_exact(3)).filter(|(one, two)| one != two).count()
    }

    /// Says whether all but a cursor has one colour: what a screen shows that nobody has written to yet.
    pub(crate) fn is_blank(&self) -> bool {
        // The one colour that more than half of the pixels have, if there is one (Boyer and Moore's vote).
        let (mut most, mut votes) = (None, 0_usize);
        for pixel in self.pixels.chunks_exact(3) {
            if votes == 0 {
                most = Some(pixel);
            }
            votes = if most == Some(pixel) { votes.saturating_add(1) } else { votes.saturating_sub(1) };
        }
        self.pixels.chunks_exact(3).filter(|pixel| Some(*pixel) != most).count() <= CURSOR
    }

    /// Says whether it has the size of the text screen: 80 characters of 8 or 9 pixels, 25 of 16.
    pub(crate) fn may_be_text(&self) -> bool {
        matches!((self.width, self.height), (720 | 640, 400))
    }
}

/// The lines of the text screen, from its memory; `None` where that holds no text, as in a graphics mode.
pub(crate) fn text(memory: &[u8]) -> Option<Vec<String>> {
    let (cells, _) = memory.get(..TEXT_LEN)?.as_chunks::<2>();
    let attributes: HashSet<u8> = cells.iter().map(|[_, attribute]| *attribute).collect();
    // Text has few colours and few control characters.
    let strange = cells.iter().filter(|[c, _]| matches!(c, 1..=31 | 127)).count();
    if attributes.len() > 24 || strange > 100 || cells.iter().all(|[c, _]| *c == 0) {
        return None;
    }
    let line = |row: &[[u8; 2]]| {
        let line: String = row.iter().map(|[c, _]| character(*c)).collect();
        line.trim_end().to_owned()
    };
    Some(cells.chunks(COLUMNS).map(line).collect())
}

/// A character of the VGA's own set; what frames and blocks are made of, and letters with accents, are of no use here.
fn character(byte: u8) -> char {
    match byte {
        0 => ' ',
        32..=126 => char::from(byte),
        _ => '.',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
        [format!("P6\n{width} {height}\n255\n").as_bytes(), pixels].concat()
    }

    #[test]
    fn pictures_are_parsed_and_compared() {
        let one = Picture::parse(&picture(2, 1, &[0, 0, 0, 1, 2, 3])).unwrap();
        let two = Picture::parse(&picture(2, 1, &[0, 0, 0, 1, 2, 4])).unwrap();
        let wide = Picture::parse(&picture(1, 2, &[0, 0, 0, 1, 2, 3])).unwrap();
        assert_eq!((one.differences(&one), one.differences(&two), one.differences(&wide)), (0, 1, 2));
        let with_dots = |dots: usize| {
            let pixels: Vec<u8> = (0..1000).flat_map(|n| if n < dots { [200, 7, 7] } else { [7, 7, 7] }).collect();
            Picture::parse(&picture(40, 25, &pixels)).unwrap()
        };
        assert!(with_dots(0).is_blank() && with_dots(16).is_blank(), "a cursor is no picture");
        assert!(!with_dots(300).is_blank());
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let huge = format!("P6 {0} {0} 255\n", usize::MAX);
        for bad in [
            &b""[..],
            b"P5 1 1 255\n\0\0\0",
            b"P6 1 1 65535\n\0\0\0\0\0\0",
            b"P6 1 1 255\n\0\0",
            b"P6 -1 1 255\n",
            huge.as_bytes(),
        ] {
            assert_eq!(Picture::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn text_is_read_from_the_memory_of_the_screen() {
        let mut memory = [b' ', 7].repeat(COLUMNS * ROWS);
        for (n, c) in b"No bootable device.".iter().enumerate() {
            memory[(COLUMNS + n) * 2] = *c;
        }
        let lines = text(&memory).unwrap();
        assert_eq!((lines.len(), lines[0].as_str(), lines[1].as_str()), (25, "", "No bootable device."));
        assert_eq!(text(&memory[1..]), None, "too short");
        assert_eq!(text(&[0; TEXT_LEN]), None);
        let noise: Vec<u8> = (0..TEXT_LEN).map(|n| u8::try_from(n * 7919 % 251).unwrap()).collect();
        assert_eq!(text(&noise), None);
    }
}
