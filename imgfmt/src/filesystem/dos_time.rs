//! Dates and times of DOS, in FAT and exFAT: two seconds fine, from 1980 to 2107, in local time.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::filesystem::files::Time;

/// The moment of a date (year from 1980 in 7 bits, month in 4, day in 5) and a time (hour in 5 bits, minute in 6, two seconds in 5) with
/// hundredths of a second to be added (0 to 199), taken as UTC. `None` where there is no such date or time; 0 is the usual way to say so.
///
/// Source: fatgen103, "Date and Time Formats".
pub fn time(date: u16, time: u16, hundredths: u8) -> Option<Time> {
    let field = |value: u16, shift: u32, mask: u16| i8::try_from(value >> shift & mask).ok();
    let seconds = field(time, 0, 0x1f)?.checked_mul(2)?;
    let year = i16::try_from(date >> 9).ok()?.checked_add(1980)?;
    let (month, day) = (field(date, 5, 0x0f)?, field(date, 0, 0x1f)?);
    let civil = DateTime::new(year, month, day, field(time, 11, 0x1f)?, field(time, 5, 0x3f)?, seconds, 0).ok()?;
    let seconds = TimeZone::UTC.to_timestamp(civil).ok()?.as_second();
    let hundredths = u32::from(hundredths);
    if hundredths > 199 {
        return None;
    }
    Some(Time {
        seconds: seconds.checked_add(i64::from(hundredths / 100))?,
        nanoseconds: (hundredths % 100).checked_mul(10_000_000)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_put_together() {
        // 2024-02-29 23:59:58 and 1.99 seconds.
        let date = 44 << 9 | 2 << 5 | 29;
        let clock = 23 << 11 | 59 << 5 | 29;
        assert_eq!(time(date, clock, 199), Some(Time { seconds: 1_709_251_199, nanoseconds: 990_000_000 }));
        assert_eq!(time(1 << 5 | 1, 0, 0), Some(Time { seconds: 315_532_800, nanoseconds: 0 }));
        assert_eq!(time(127 << 9 | 12 << 5 | 31, 0, 0).unwrap().seconds, 4_354_732_800);
    }

    #[test]
    fn what_is_no_date_is_no_time() {
        for (date, clock, hundredths) in [
            (0, 0, 0),
            (13 << 5 | 1, 0, 0),
            (2 << 5 | 30, 0, 0),
            (33, 24 << 11, 0),
            (33, 30, 0),
            (33, 60 << 5, 0),
            (33, 0, 200),
        ] {
            assert_eq!(time(date, clock, hundredths), None, "{date:#x} {clock:#x} {hundredths}");
        }
    }
}
