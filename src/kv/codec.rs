//! The envelope of every stored record: `<kind>.<version>`, a line break, JSON.
//!
//! Missing, corrupt and unreachable stay three different results: missing is `None`, corrupt is
//! [`Error::Corrupt`], unreachable is the store's own error. A corrupt record is never served and never deleted here.
//!
//! The line in front names the format before anything is parsed, so a foreign or newer record is told apart from a
//! damaged one; and the bytes are text, so bulk reads, which decode text only, carry them undamaged.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Corrupt, Error};

/// Something stored: its kind and format version, and JSON by serde.
///
/// Fields unknown to this code make a record corrupt only if the type says `deny_unknown_fields`; stored types do, so
/// that old code never rewrites what newer code wrote. A changed format needs a new [`Record::VERSION`].
pub trait Record: Serialize + DeserializeOwned {
    /// What this is, such as `session`; lower case letters and `-`.
    const KIND: &'static str;
    /// The version of the format, from 1.
    const VERSION: u32;
}

/// The bytes to store for `record`.
///
/// # Errors
///
/// [`Error::Invalid`] when the record cannot be written as JSON, such as a map whose keys are not text.
pub fn encode<T: Record>(record: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = format!("{}.{}\n", T::KIND, T::VERSION).into_bytes();
    serde_json::to_writer(&mut bytes, record).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(bytes)
}

/// The record in `bytes`.
///
/// # Errors
///
/// [`Error::Corrupt`]: another kind of record, a newer version, or a damaged body.
pub fn decode<T: Record>(bytes: &[u8]) -> Result<T, Error> {
    let (version, body) = open(bytes, T::KIND).ok_or(Error::Corrupt(Corrupt::Foreign))?;
    if version > T::VERSION {
        return Err(Error::Corrupt(Corrupt::Newer));
    }
    if version < T::VERSION {
        // A pattern that changes its format reads the old one through `version_of` before coming here.
        return Err(Error::Corrupt(Corrupt::Foreign));
    }
    serde_json::from_slice(body).map_err(|_| Error::Corrupt(Corrupt::Damaged))
}

/// [`decode`] for what a read gave: nothing stays nothing.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_found<T: Record>(found: Option<Vec<u8>>) -> Result<Option<T>, Error> {
    found.map(|bytes| decode(&bytes)).transpose()
}

/// The format version of a record of `kind`; nothing when it is not one.
pub fn version_of(bytes: &[u8], kind: &str) -> Option<u32> {
    open(bytes, kind).map(|(version, _)| version)
}

fn open<'a>(bytes: &'a [u8], kind: &str) -> Option<(u32, &'a [u8])> {
    let rest = bytes.strip_prefix(kind.as_bytes())?.strip_prefix(b".")?;
    let end = rest.iter().take(12).position(|byte| *byte == b'\n')?;
    let (digits, body) = rest.split_at_checked(end)?;
    let version = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((version, body.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: i32,
    }

    impl Record for Point {
        const KIND: &'static str = "point";
        const VERSION: u32 = 2;
    }

    #[test]
    fn the_bytes_are_golden() {
        assert_eq!(encode(&Point { x: -1 }).unwrap(), b"point.2\n{\"x\":-1}");
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Point, Corrupt>) {
        assert_eq!(decode::<Point>(bytes), expected.map_err(Error::Corrupt));
    }

    #[test]
    fn each_way_to_be_unreadable_has_its_name() {
        check(b"point.2\n{\"x\":7}", Ok(Point { x: 7 }));
        check(b"point.3\n{\"x\":7}", Err(Corrupt::Newer));
        check(b"points.2\n{\"x\":7}", Err(Corrupt::Foreign));
        check(b"point.\n{\"x\":7}", Err(Corrupt::Foreign));
        check(b"point.99999999999999\n{}", Err(Corrupt::Foreign));
        check(b"{\"x\":7}", Err(Corrupt::Foreign));
        check(b"", Err(Corrupt::Foreign));
        check(b"point.2\n{\"x\":7", Err(Corrupt::Damaged));
        check(b"point.2\n{\"x\":7,\"y\":8}", Err(Corrupt::Damaged));
        check(b"point.2\n", Err(Corrupt::Damaged));
    }

    #[test]
    fn missing_is_not_corrupt() {
        assert_eq!(decode_found::<Point>(None), Ok(None));
    }
}
