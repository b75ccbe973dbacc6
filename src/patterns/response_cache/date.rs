//! HTTP dates: the three formats of RFC 9110 §5.6.7 and nothing else; names ignore case, everything else is strict.
//!
//! The day's name is not compared with the date: a wrong one is common and harmless. Years are 1 to 9999.

use crate::clock::Timestamp;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const LONG_DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: i64 = 86_400;

/// Seconds since the Unix epoch of an HTTP date, negative before 1970; `None` for anything but the three formats.
///
/// `now` decides the century of a two-digit year: one that would lie more than 50 years ahead is in the past.
pub fn parse(text: &str, now: Timestamp) -> Option<i64> {
    parse_fixdate(text).or_else(|| parse_rfc850(text, now)).or_else(|| parse_asctime(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn parse_fixdate(text: &str) -> Option<i64> {
    let (day_name, rest) = text.split_once(", ")?;
    index_of(&DAYS, day_name)?;
    let [day, month, year, time, zone] = fields(rest)?;
    zone.eq_ignore_ascii_case("GMT").then_some(())?;
    seconds(number(year, 4)?, index_of(&MONTHS, month)?, number(day, 2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn parse_rfc850(text: &str, now: Timestamp) -> Option<i64> {
    let (day_name, rest) = text.split_once(", ")?;
    index_of(&LONG_DAYS, day_name)?;
    let [date, time, zone] = fields(rest)?;
    zone.eq_ignore_ascii_case("GMT").then_some(())?;
    let mut parts = date.split('-');
    let (day, month, year) = (number(parts.next()?, 2)?, index_of(&MONTHS, parts.next()?)?, number(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    let this_year = civil(whole_seconds(now).div_euclid(SECONDS_PER_DAY)).0;
    let mut year = this_year.div_euclid(100).checked_mul(100)?.checked_add(year)?;
    if year > this_year.checked_add(50)? {
        year = year.checked_sub(100)?;
    }
    seconds(year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`, the day of month padded by a space
fn parse_asctime(text: &str) -> Option<i64> {
    if !text.is_ascii() || text.len() != 24 {
        return None;
    }
    index_of(&DAYS, text.get(..3)?)?;
    let month = index_of(&MONTHS, text.get(4..7)?)?;
    let day = text.get(8..10)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let spaces = [3, 7, 10, 19].iter().all(|at| text.as_bytes().get(*at) == Some(&b' '));
    spaces.then_some(())?;
    seconds(number(text.get(20..)?, 4)?, month, day, text.get(11..19)?)
}

/// Exactly `N` fields separated by single spaces.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(' ').collect::<Vec<_>>().try_into().ok()
}

fn index_of(names: &[&str], name: &str) -> Option<i64> {
    let at = names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    i64::try_from(at).ok()
}

/// Exactly `digits` decimal digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let well_formed = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if well_formed { text.parse().ok() } else { None }
}

/// `month` counts from 0.
fn seconds(year: i64, month: i64, day: i64, time: &str) -> Option<i64> {
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    // 60 is a leap second (RFC 9110 §5.6.7 takes the grammar of RFC 5322).
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 || year < 1 {
        return None;
    }
    let days = days_from_civil(year, month.checked_add(1)?, day);
    // A day the month does not have comes back as another date.
    if civil(days) != (year, month.checked_add(1)?, day) {
        return None;
    }
    Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date in the Gregorian calendar, counting eras of 400 years from March; years 1 to 9999.
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month (1 to 12) and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The moment in whole seconds, as HTTP dates count.
pub fn whole_seconds(moment: Timestamp) -> i64 {
    i64::try_from(moment.seconds()).unwrap_or(i64::MAX)
}

/// The preferred format, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn format(moment: Timestamp) -> String {
    // The format has four digits for the year.
    let total = whole_seconds(moment).min(253_402_300_799);
    let (days, second) = (total.div_euclid(SECONDS_PER_DAY), total.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], at: i64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    let (day_name, month_name) = (name(&DAYS, (days + 4).rem_euclid(7)), name(&MONTHS, month - 1));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day_name}, {day:02} {month_name} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_763_683_200); // 2025-11-21

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse(text, NOW), expected, "{text}");
    }

    #[test]
    fn rfc_9110_5_6_7_the_three_formats_name_the_same_moment() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Wed Nov 16 08:49:37 1994", Some(784_975_777));
    }

    #[test]
    fn rfc_9110_5_6_7_a_two_digit_year_is_at_most_fifty_years_ahead() {
        check("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878));
        check("Monday, 18-Aug-75 02:01:18 GMT", parse("Mon, 18 Aug 2075 02:01:18 GMT", NOW));
        check("Monday, 18-Aug-76 02:01:18 GMT", parse("Mon, 18 Aug 1976 02:01:18 GMT", NOW));
    }

    #[test]
    fn names_ignore_case_and_dates_before_1970_are_dates() {
        check("sun, 06 NOV 1994 08:49:37 gMT", Some(784_111_777));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1));
        check("Tue, 29 Feb 2000 00:00:60 GMT", Some(951_782_460));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "784111777",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 8 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:00:00 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
            "Thursday, 18 Aug 2050 02:01:18 GMT",
            "Thu Aug 8 02:01:18 2050",
            "2050-08-18T02:01:18Z",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thu, +8 Aug 2050 02:01:18 GMT",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn formatting_and_parsing_agree() {
        for seconds in [0, 784_111_777, 951_782_400, 1_763_683_200, 4_102_444_800, 253_402_300_799] {
            let text = format(Timestamp::from_seconds(seconds));
            check(&text, i64::try_from(seconds).ok());
        }
        assert_eq!(format(Timestamp::from_seconds(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
