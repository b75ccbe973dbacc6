//! A cached value and its envelope: `cache.1`, a line of JSON about the value, then the value's bytes as they are.
//!
//! Everything that decides how long a value may be used stands in the envelope, never in KV's expiry. Values need not be
//! text, so an entry is read with a single get: bulk reads decode text. A value that is a [`Json`] is text, and so is
//! its whole entry.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::kv::codec::{self, Record};
use crate::kv::{Corrupt, Error};

/// What can be cached: its own format, read strictly, older versions included.
pub trait Value: Clone + 'static {
    /// What this is, such as `object`; lower case letters and `-`.
    const KIND: &'static str;
    /// The version of the format that [`Value::write`] writes, from 1.
    const VERSION: u32;
    /// Whether the bytes are always UTF-8, so that many entries can be read by one bulk read.
    const IS_TEXT: bool;

    /// Appends the bytes of this value, in [`Value::VERSION`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the value cannot be written.
    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Error>;

    /// The value in `bytes`, which were written in `version` (never a later one than [`Value::VERSION`]). This is where an
    /// older format is migrated and where a value is validated: nothing means that the bytes cannot be used.
    fn read(version: u32, bytes: &[u8]) -> Option<Self>;
}

/// A record of [`codec`] as a cached value; `null`, `false`, `0` and `""` are values like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Record + Clone + 'static> Value for Json<T> {
    const KIND: &'static str = T::KIND;
    const VERSION: u32 = T::VERSION;
    const IS_TEXT: bool = true;

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        serde_json::to_writer(bytes, &self.0).map_err(|error| Error::Invalid(error.to_string()))
    }

    fn read(version: u32, bytes: &[u8]) -> Option<Self> {
        if version == T::VERSION { serde_json::from_slice(bytes).ok().map(Self) } else { None }
    }
}

/// What is known of a cached value beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Kind and format version of the value, such as `object.1`.
    pub value: String,
    /// When the work on the value began. A mark of invalidation covers everything asked for up to it, so that what was
    /// read from the origin before a purge does not come back after it.
    pub asked: Timestamp,
    /// When the value was there; its age counts from here, in every tier.
    pub born: Timestamp,
    /// It is fresh before this moment.
    pub fresh_until: Timestamp,
    /// Before this moment it may be served while it is being refreshed, or where nobody can refresh it.
    pub stale_until: Timestamp,
    /// Before this moment it may be served when refreshing it failed.
    pub error_until: Timestamp,
    /// How long it took to compute, smoothed, in milliseconds: the δ of `XFetch`.
    pub cost_millis: u64,
    /// The tags by which it can be invalidated.
    pub tags: Vec<String>,
    /// Whether the result is that there is nothing (a negative result); the value's bytes are then empty.
    pub nothing: bool,
}

impl Record for Head {
    const KIND: &'static str = "cache";
    const VERSION: u32 = 1;
}

impl Head {
    /// The end of every use of the value.
    pub fn last_until(&self) -> Timestamp {
        self.fresh_until.max(self.stale_until).max(self.error_until)
    }

    /// How old the value is, in milliseconds.
    pub fn age_millis(&self, now: Timestamp) -> u64 {
        now.millis_since(self.born)
    }
}

/// A value with its head; no value for a negative result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    /// What is known of the value.
    pub head: Head,
    /// The value; nothing when the result was that there is nothing.
    pub value: Option<V>,
}

impl<V: Value> Entry<V> {
    /// The bytes to store.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the value cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = codec::encode(&self.head)?;
        bytes.push(b'\n');
        if let Some(value) = &self.value {
            value.write(&mut bytes)?;
        }
        Ok(bytes)
    }

    /// The entry in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`]: another kind of record or of value, a newer version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = Error::Corrupt(Corrupt::Damaged);
        let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default().len() + 1;
        let second = lines.next().map_or(0, <[u8]>::len);
        let (head, rest) = bytes.split_at_checked(first + second).unwrap_or((bytes, &[]));
        let head: Head = codec::decode(head)?;
        let body = rest.strip_prefix(b"\n").ok_or_else(|| damaged.clone())?;
        let version = version::<V>(&head.value)?;
        let value = match (head.nothing, body) {
            (true, []) => None,
            (true, _) => return Err(damaged),
            (false, body) => Some(V::read(version, body).ok_or(damaged)?),
        };
        Ok(Self { head, value })
    }
}

/// The `value` of a head: kind and version of what `V` writes.
pub fn label<V: Value>() -> String {
    format!("{}.{}", V::KIND, V::VERSION)
}

fn version<V: Value>(label: &str) -> Result<u32, Error> {
    let digits = label.strip_prefix(V::KIND).and_then(|rest| rest.strip_prefix('.'));
    let version = digits.and_then(|digits| digits.parse::<u32>().ok()).ok_or(Error::Corrupt(Corrupt::Foreign))?;
    if version > V::VERSION { Err(Error::Corrupt(Corrupt::Newer)) } else { Ok(version) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of any kind; version 1 had a mark in front.
    #[derive(Clone, Debug, PartialEq)]
    struct Blob(Vec<u8>);

    impl Value for Blob {
        const KIND: &'static str = "blob";
        const VERSION: u32 = 2;
        const IS_TEXT: bool = false;

        fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
            bytes.extend_from_slice(&self.0);
            Ok(())
        }

        fn read(version: u32, bytes: &[u8]) -> Option<Self> {
            let bytes = if version == 1 { bytes.strip_prefix(b"!")? } else { bytes };
            (bytes != b"refuse me").then(|| Self(bytes.to_vec()))
        }
    }

    fn head() -> Head {
        Head {
            value: label::<Blob>(),
            asked: Timestamp::from_millis(1),
            born: Timestamp::from_millis(2),
            fresh_until: Timestamp::from_millis(3),
            stale_until: Timestamp::from_millis(4),
            error_until: Timestamp::from_millis(5),
            cost_millis: 6,
            tags: vec!["a".to_owned()],
            nothing: false,
        }
    }

    const GOLDEN: &[u8] = b"cache.1\n{\"value\":\"blob.2\",\"asked\":1,\"born\":2,\"fresh_until\":3,\"stale_until\":4,\
        \"error_until\":5,\"cost_millis\":6,\"tags\":[\"a\"],\"nothing\":false}\n\x00\xFF\n\n";

    #[test]
    fn the_bytes_are_golden() {
        let entry = Entry { head: head(), value: Some(Blob(b"\x00\xFF\n\n".to_vec())) };
        assert_eq!(entry.encode().unwrap(), GOLDEN);
        assert_eq!(Entry::decode(GOLDEN), Ok(entry));
    }

    #[test]
    fn empty_bytes_are_a_value_and_nothing_is_not() {
        let empty = Entry { head: head(), value: Some(Blob(Vec::new())) };
        assert_eq!(Entry::decode(&empty.encode().unwrap()), Ok(empty));
        let nothing = Entry::<Blob> { head: Head { nothing: true, ..head() }, value: None };
        assert_eq!(Entry::decode(&nothing.encode().unwrap()), Ok(nothing));
    }

    fn with(replace: &str, by: &str) -> Vec<u8> {
        let (head, body) = GOLDEN.split_at(GOLDEN.len() - 4);
        let head = std::str::from_utf8(head).unwrap().replace(replace, by);
        [head.as_bytes(), body].concat()
    }

    #[track_caller]
    fn refused(bytes: &[u8], why: Corrupt) {
        assert_eq!(Entry::<Blob>::decode(bytes), Err(Error::Corrupt(why)));
    }

    #[test]
    fn each_way_to_be_unreadable_has_its_name() {
        refused(&with("cache.1", "cache.2"), Corrupt::Newer);
        refused(&with("blob.2", "blob.3"), Corrupt::Newer);
        refused(&with("blob.2", "page.1"), Corrupt::Foreign);
        refused(&with("blob.2", "blob.x"), Corrupt::Foreign);
        refused(&with("cache.1", "session.1"), Corrupt::Foreign);
        refused(&with("\"asked\":1", "\"asked\":-1"), Corrupt::Damaged);
        refused(&with("\"nothing\":false", "\"nothing\":true"), Corrupt::Damaged);
        refused(b"", Corrupt::Foreign);
        refused(b"cache.1", Corrupt::Foreign);
        refused(b"cache.1\n", Corrupt::Damaged);
        refused(GOLDEN[..GOLDEN.len() - 4].strip_suffix(b"\n").unwrap(), Corrupt::Damaged);
    }

    #[test]
    fn an_older_format_is_migrated_and_an_invalid_value_refused() {
        let head = |value: &str| codec::encode(&Head { value: value.to_owned(), ..head() }).unwrap();
        let old = [head("blob.1"), b"\n!abc".to_vec()].concat();
        assert_eq!(Entry::decode(&old).unwrap().value, Some(Blob(b"abc".to_vec())));
        refused(&[head("blob.1"), b"\nabc".to_vec()].concat(), Corrupt::Damaged);
        refused(&[head("blob.2"), b"\nrefuse me".to_vec()].concat(), Corrupt::Damaged);
    }
}
