//! Times as Windows counts them: units of 100 ns since 1601-01-01T00:00:00Z.
//!
//! Source: `FILETIME` (minwinbase.h); [MS-DTYP] 2.3.3.

use imgfmt::filesystem::files::{Attributes, Time};

/// Seconds from 1601 to 1970.
const TO_1970: i64 = 11_644_473_600;

/// The time of a file as Windows counts it. What Windows has no number for, before 1601 or after 30828, is the nearest that it has.
pub fn file_time(time: Time) -> u64 {
    let since_1601 = i128::from(time.seconds).saturating_add(i128::from(TO_1970));
    let units = since_1601.saturating_mul(10_000_000).saturating_add(i128::from(time.nanoseconds / 100));
    u64::try_from(units.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
}

/// Creation, last access and last change of the content, as far as the filesystem has them, else the nearest that it has; 0 where it has none.
pub fn file_times(attributes: &Attributes) -> [u64; 3] {
    let time = |time: Option<Time>| time.or(attributes.modified).or(attributes.created).map_or(0, file_time);
    [time(attributes.created), time(attributes.accessed), time(attributes.modified)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1601() {
        let time = |seconds, nanoseconds| file_time(Time { seconds, nanoseconds });
        assert_eq!(time(0, 0), 116_444_736_000_000_000);
        assert_eq!(time(-11_644_473_600, 0), 0);
        // 2020-09-13T12:26:40.1234567Z.
        assert_eq!(time(1_600_000_000, 123_456_789), 132_444_736_001_234_567);
        // Half a second before 1970.
        assert_eq!(time(-1, 500_000_000), 116_444_735_995_000_000);
        assert_eq!(time(i64::MIN, u32::MAX), 0);
        assert_eq!(time(i64::MAX, u32::MAX), i64::MAX as u64);
    }
}
