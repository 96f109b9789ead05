//! Points in time, and their RFC 3339 text.
//!
//! [`UnixMillis`] is the only time type of the workspace. It is always handed in by the caller.
//! The parser is stricter than JavaScript's `Date`: a day that is not in the calendar, a leap
//! second or a missing zone is refused instead of being moved to another instant.
//!
//! **Error semantics.** [`parse_rfc3339`] answers `None`: an instant that cannot be read, that
//! lies before 1970, or that [`format_rfc3339`] could not write.
//!
//! **What stays out.** Clocks, time zones, durations of timers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The last instant with a four-digit year: 9999-12-31T23:59:59.999Z.
    pub const RFC3339_MAX: UnixMillis = UnixMillis(253_402_300_799_999);

    /// This instant `ms` milliseconds later, at most `u64::MAX`.
    #[must_use]
    pub const fn saturating_add_ms(self, ms: u64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; 0 when `earlier` is later. A wall clock may be
    /// set back, so that is not an error.
    #[must_use]
    pub const fn saturating_since_ms(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The plain number of milliseconds.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

const SECONDS_PER_DAY: i64 = 86_400;
const MS_PER_DAY: u64 = 86_400_000;

/// Reads an RFC 3339 date-time: `2026-01-31T12:00:00Z`, `2026-01-31t12:00:00.5+02:00`.
///
/// `T` and `Z` may be lower case, the fraction has any number of digits (cut to milliseconds,
/// not rounded), the offset is at most ±23:59. `None` for anything else, for days that do not
/// exist, for second 60, and for instants before 1970 or after [`UnixMillis::RFC3339_MAX`].
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    let (days, rest) = parse_date(text.as_bytes())?;
    let (seconds, rest) = parse_clock(rest)?;
    let (millis, rest) = parse_fraction(rest)?;
    let offset_seconds = parse_zone(rest)?;
    let total_seconds = days * SECONDS_PER_DAY + seconds - offset_seconds;
    let at = UnixMillis(u64::try_from(total_seconds * 1000 + millis).ok()?);
    (at <= UnixMillis::RFC3339_MAX).then_some(at)
}

/// Writes `at` as `2026-01-31T12:00:00.000Z`: UTC, always three digits of fraction.
///
/// Later instants than [`UnixMillis::RFC3339_MAX`] have no RFC 3339 form and are written as that.
#[must_use]
pub fn format_rfc3339(at: UnixMillis) -> String {
    let ms = at.min(UnixMillis::RFC3339_MAX).0;
    let (year, month, day) = civil_from_days(ms / MS_PER_DAY);
    let of_day = ms % MS_PER_DAY;
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// `YYYY-MM-DD` to days since 1970 (negative before), and what follows.
fn parse_date(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    let valid = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    valid.then(|| (days_from_civil(year, month, day), rest))
}

/// `Thh:mm:ss` to the second of the day, and what follows.
fn parse_clock(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (&[b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2], rest) = bytes.split_first_chunk()?
    else {
        return None;
    };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let valid = hour < 24 && minute < 60 && second < 60;
    valid.then_some((hour * 3600 + minute * 60 + second, rest))
}

/// An optional `.` with at least one digit, to milliseconds, and what follows.
fn parse_fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', rest)) = bytes.split_first() else {
        return Some((0, bytes));
    };
    let digit_count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at_checked(digit_count)?;
    if digits.is_empty() {
        return None;
    }
    let padded = digits.iter().chain(b"00").take(3);
    let millis = padded.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some((millis, rest))
}

/// `Z` or `±hh:mm` at the end, to seconds east of UTC.
fn parse_zone(bytes: &[u8]) -> Option<i64> {
    let (sign, h1, h2, m1, m2) = match *bytes {
        [b'Z' | b'z'] => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, h1, h2, m1, m2),
        [b'-', h1, h2, b':', m1, m2] => (-1, h1, h2, m1, m2),
        _ => return None,
    };
    let (hour, minute) = (number(&[h1, h2])?, number(&[m1, m2])?);
    (hour < 24 && minute < 60).then_some(sign * (hour * 3600 + minute * 60))
}

/// A few ASCII digits as a number.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar. Years are counted from
/// 1 March, so that the leap day is the last of its year and months have a closed form.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`] for days from 1970 on: (year, month, day).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2024-10-09t00:00:00z", 1_728_432_000_000),
            ("2026-01-31T12:00:00.5+02:00", 1_769_853_600_500),
            ("2026-01-31T12:00:00.1239-00:00", 1_769_860_800_123),
            ("1969-12-31T23:30:00-01:00", 1_800_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(parse_rfc3339(text), Some(UnixMillis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            "not-a-timestamp",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-1-31T12:00:00Z",
            "2026-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-13-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+01:60",
            "2026-01-01T00:00:00ZZ",
            " 2026-01-01T00:00:00Z",
            "+02026-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "２026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn formats_as_javascript_does() {
        assert_eq!(format_rfc3339(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_rfc3339(UnixMillis(1_769_853_600_500)), "2026-01-31T10:00:00.500Z");
        assert_eq!(format_rfc3339(UnixMillis(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_of_eight_centuries() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194_u64 {
            assert_eq!(civil_from_days(days), (year as u64, month as u64, day as u64));
            assert_eq!(days_from_civil(year, month, day), days as i64);
            day += 1;
            if day > days_in_month(year, month) {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixMillis(5).saturating_since_ms(UnixMillis(7)), 0);
        assert_eq!(UnixMillis(7).saturating_since_ms(UnixMillis(5)), 2);
        assert_eq!(UnixMillis(7).saturating_add_ms(u64::MAX), UnixMillis(u64::MAX));
    }

    proptest! {
        #[test]
        fn round_trip(ms in 0..=UnixMillis::RFC3339_MAX.0) {
            prop_assert_eq!(parse_rfc3339(&format_rfc3339(UnixMillis(ms))), Some(UnixMillis(ms)));
        }

        #[test]
        fn an_offset_names_the_same_instant(
            ms in 86_400_000..=UnixMillis::RFC3339_MAX.0 - 86_400_000, minutes in -1439_i64..=1439,
        ) {
            let local = UnixMillis(ms.saturating_add_signed(minutes * 60_000));
            let sign = if minutes < 0 { '-' } else { '+' };
            let (hour, minute) = (minutes.abs() / 60, minutes.abs() % 60);
            let text = format_rfc3339(local).replace('Z', &format!("{sign}{hour:02}:{minute:02}"));
            prop_assert_eq!(parse_rfc3339(&text), Some(UnixMillis(ms)));
        }

        #[test]
        fn never_panics(text in "\\PC*|[0-9TZtz:.+\\-]{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
