//! Ranges cut from what is stored (RFC 9110 §14, RFC 9111 §3.3).
//!
//! One range is answered; for several the whole representation is (RFC 9110 §14.2 allows a server to ignore `Range`).

use super::RequestHead;
use super::date;
use super::entry::Entry;
use super::headers::{Headers, trim};
use super::validation::same_strong_tag;

/// What of a stored response answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it: no range was asked for, or none that counts.
    Whole,
    /// These bytes of the representation, both ends included.
    Bytes {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
        /// The length of the whole representation.
        complete_length: u64,
    },
    /// No byte of the range exists (416).
    Unsatisfiable {
        /// The length of the whole representation.
        complete_length: u64,
    },
    /// The stored part does not hold all bytes asked for.
    NotHeld,
}

/// One range as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    FromTo(u64, Option<u64>),
    Last(u64),
}

/// What of `entry` answers `request`.
pub fn cut(request: &RequestHead, entry: &Entry) -> Cut {
    let stored = entry.stored();
    let held_length = stored.body.len() as u64;
    let (held_first, complete_length) = stored.part.map_or((0, held_length), |part| (part.first, part.complete_length));
    let whole = if stored.part.is_some() { Cut::NotHeld } else { Cut::Whole };
    // Range is defined for GET alone, and only where the answer would be a 200 (RFC 9110 §14.2).
    // The platform decoded the content, so what is held are not the bytes the positions count.
    if stored.headers.contains("content-encoding") && stored.part.is_none() {
        return whole;
    }
    if !request.is_get() || !matches!(stored.status, 200 | 206) || !if_range_holds(&request.headers, entry) {
        return whole;
    }
    let Some(wanted) = request.headers.single("range").and_then(parse) else { return whole };
    let bounds = match wanted {
        Wanted::FromTo(first, last) => {
            let end = complete_length.checked_sub(1);
            end.filter(|end| first <= *end).map(|end| (first, last.unwrap_or(end).min(end)))
        }
        Wanted::Last(0) => None,
        Wanted::Last(length) => complete_length.checked_sub(1).map(|end| (complete_length.saturating_sub(length), end)),
    };
    let Some((first, last)) = bounds else {
        return if stored.part.is_some() { Cut::NotHeld } else { Cut::Unsatisfiable { complete_length } };
    };
    let held_end = held_first.saturating_add(held_length);
    if first < held_first || last >= held_end {
        return Cut::NotHeld;
    }
    Cut::Bytes { first, last, complete_length }
}

/// One `bytes` range (RFC 9110 §14.1.2); anything else, several ranges among it, is `None` and so ignored.
fn parse(value: &str) -> Option<Wanted> {
    let (unit, set) = value.split_once('=')?;
    if !trim(unit).eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = trim(set).split_once('-')?;
    if first.is_empty() {
        return position(last).map(Wanted::Last);
    }
    let first = position(first)?;
    let last = if last.is_empty() { None } else { Some(position(last)?) };
    last.is_none_or(|last| first <= last).then_some(Wanted::FromTo(first, last))
}

fn position(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether `If-Range` lets the range stand (RFC 9110 §13.1.5): a strong match of the tag, or exactly the `Last-Modified` that is
/// a strong validator because it lies at least a second before `Date` (§8.8.2.2).
fn if_range_holds(headers: &Headers, entry: &Entry) -> bool {
    if !headers.contains("if-range") {
        return true;
    }
    let Some(condition) = headers.single("if-range") else { return false };
    if condition.starts_with('"') || condition.starts_with("W/") {
        return entry.etag().is_some_and(|etag| same_strong_tag(etag, condition));
    }
    let wanted = date::parse(condition, entry.stored().received_at);
    wanted.is_some()
        && wanted == entry.last_modified_seconds()
        && entry.last_modified_seconds().is_some_and(|modified| modified < entry.date_seconds())
}

/// First byte, last byte and complete length of a `Content-Range` for `bytes` with a known length (RFC 9110 §14.4).
pub fn content_range(headers: &Headers) -> Option<(u64, u64, u64)> {
    let (unit, rest) = headers.single("content-range")?.split_once(' ')?;
    let (bounds, length) = trim(rest).split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    let (first, last, length) = (position(first)?, position(last)?, position(length)?);
    (unit.eq_ignore_ascii_case("bytes") && first <= last && last < length).then_some((first, last, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9110_14_1_2_one_range_of_bytes() {
        for (value, expected) in [
            ("bytes=0-1", Some(Wanted::FromTo(0, Some(1)))),
            ("Bytes=1-", Some(Wanted::FromTo(1, None))),
            ("bytes=-5", Some(Wanted::Last(5))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("items=0-1", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("0-1", None),
            ("bytes=0-99999999999999999999999", Some(Wanted::FromTo(0, Some(u64::MAX)))),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
    }

    #[test]
    fn rfc_9110_14_4_content_range() {
        for (value, expected) in [
            ("bytes 0-4/10", Some((0, 4, 10))),
            ("bytes 4-9/*", None),
            ("bytes */10", None),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("x 0-4/10", None),
        ] {
            let headers = Headers::from_pairs([("content-range", value)]).unwrap();
            assert_eq!(content_range(&headers), expected, "{value}");
        }
    }
}
