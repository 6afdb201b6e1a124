//! Directory records, and the dates in them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::bytes::{array, le32, u8_at};
use crate::filesystem::files::Time;

/// Bytes of a record without name and system use.
pub const FIXED: usize = 33;

/// Bits of [`Record::flags`].
pub mod flag {
    /// Need not be shown.
    pub const HIDDEN: u8 = 0x01;
    /// A directory.
    pub const DIRECTORY: u8 = 0x02;
    /// Belongs to the file of the same name: a resource fork.
    pub const ASSOCIATED: u8 = 0x04;
    /// The file goes on in the next record.
    pub const MORE: u8 = 0x80;
}

/// A directory record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bytes of the record, so where the next one starts.
    pub record_len: usize,
    /// Block where the extent starts, with the extended attribute record in front.
    pub block: u32,
    /// Blocks of the extended attribute record.
    pub attribute_blocks: u8,
    /// Bytes of the extent.
    pub len: u32,
    /// Recording date.
    pub recorded: Option<Time>,
    /// See [`flag`].
    pub flags: u8,
    /// Whether the extent is interleaved with another.
    pub interleaved: bool,
    /// Identifier, as stored: one byte 0 for the directory itself, one byte 1 for its parent.
    pub name: Vec<u8>,
    /// What follows the name.
    pub system_use: Vec<u8>,
}

impl Record {
    /// Parses the record that `bytes` starts with; `None` where it is none.
    ///
    /// Source: ECMA-119 10.1. All numbers are stored in both byte orders; the little-endian one is read.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let record_len = usize::from(u8_at(bytes, 0)?);
        let bytes = bytes.get(..record_len)?;
        let name_len = usize::from(u8_at(bytes, 32)?);
        let name_end = FIXED.checked_add(name_len)?;
        let name = bytes.get(FIXED..name_end)?;
        // A byte behind names of even length keeps the system use even.
        let system_use = name_end.checked_add(usize::from(name_len % 2 == 0))?;
        (name_len > 0).then_some(())?;
        Some(Self {
            record_len,
            block: le32(bytes, 2)?,
            attribute_blocks: u8_at(bytes, 1)?,
            len: le32(bytes, 10)?,
            recorded: short_date(&array(bytes, 18)?),
            flags: u8_at(bytes, 25)?,
            interleaved: u8_at(bytes, 26)? != 0 || u8_at(bytes, 27)? != 0,
            name: name.to_vec(),
            system_use: bytes.get(system_use..).unwrap_or_default().to_vec(),
        })
    }

    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.flags & flag::DIRECTORY != 0
    }

    /// Says whether it is the directory itself or its parent.
    pub fn is_dot(&self) -> bool {
        matches!(self.name[..], [0 | 1])
    }
}

/// The moment of a civil date `quarters` of an hour east of UTC. A distance that no place on earth has is none, as in Linux: genisoimage writes such
/// ones past 2027.
fn moment(civil: DateTime, hundredths: u32, quarters: u8) -> Option<Time> {
    let seconds = TimeZone::UTC.to_timestamp(civil).ok()?.as_second();
    let quarters =
        Some(i64::from(quarters.cast_signed())).filter(|quarters| (-52..=52).contains(quarters)).unwrap_or(0);
    let distance = quarters.checked_mul(900)?;
    Some(Time { seconds: seconds.checked_sub(distance)?, nanoseconds: hundredths.checked_mul(10_000_000)? })
}

/// A date in seven bytes: years from 1900, month, day, hour, minute, second, distance to UTC. `None` where it is no date.
///
/// Source: ECMA-119 10.1.6.
pub fn short_date(bytes: &[u8; 7]) -> Option<Time> {
    let [year, month, day, hour, minute, second, quarters] = *bytes;
    let year = i16::from(year).checked_add(1900)?;
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|field| i8::try_from(field).ok());
    moment(DateTime::new(year, month?, day?, hour?, minute?, second?, 0).ok()?, 0, quarters)
}

/// A date in 17 bytes: sixteen digits (the last two hundredths of a second) and the distance to UTC. `None` where it is no date.
///
/// Source: ECMA-119 9.4.27.2.
pub fn long_date(bytes: &[u8; 17]) -> Option<Time> {
    let (digits, quarters) = bytes.split_at(16);
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let year = digits.get(..4)?.parse::<i16>().ok()?;
    let field = |at: usize| digits.get(at..at.checked_add(2)?)?.parse::<i8>().ok();
    let civil = DateTime::new(year, field(4)?, field(6)?, field(8)?, field(10)?, field(12)?, 0).ok()?;
    moment(civil, u32::try_from(field(14)?).ok()?, *quarters.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_how_far_they_are_from_utc() {
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(short_date(&[124, 2, 29, 23, 59, 58, 0]), time(1_709_251_198, 0));
        assert_eq!(short_date(&[124, 2, 29, 23, 59, 58, 4]), time(1_709_247_598, 0));
        assert_eq!(short_date(&[124, 2, 29, 23, 59, 58, 0xfc]), time(1_709_254_798, 0));
        assert_eq!(short_date(&[124, 2, 29, 23, 59, 58, 160]), time(1_709_251_198, 0));
        assert_eq!(short_date(&[0; 7]), None);
        assert_eq!(short_date(&[124, 2, 30, 0, 0, 0, 0]), None);
        assert_eq!(long_date(b"2024022923595899\x04"), time(1_709_247_598, 990_000_000));
        assert_eq!(long_date(b"0000000000000000\0"), None);
        assert_eq!(long_date(b"20240229235958+9\0"), None);
    }

    #[test]
    fn records_are_cut_out_of_what_follows_them() {
        let mut bytes = vec![0; 60];
        (bytes[0], bytes[2], bytes[10], bytes[25], bytes[32]) = (42, 20, 100, 2, 4);
        bytes[33..37].copy_from_slice(b"NAME");
        bytes[38..44].copy_from_slice(b"RRxxYY");
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.block, record.len, record.is_directory()), (20, 100, true));
        assert_eq!((&record.name[..], &record.system_use[..]), (&b"NAME"[..], &b"RRxx"[..]));
        bytes[32] = 10;
        assert_eq!(Record::parse(&bytes), None, "the name is longer than the record");
        bytes[32] = 0;
        assert_eq!(Record::parse(&bytes), None, "there is no name");
        assert_eq!(Record::parse(&bytes[..41]), None);
    }
}
