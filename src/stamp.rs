//! Hybrid logical clock stamps: a total order on the writes of many places, close to real time and never behind what
//! was seen.
//!
//! A stamp is a time, a counter and the writer's id, compared in that order. A writer that saw a stamp writes a greater
//! one, even if its own clock is behind; writers that did not see each other are ordered by their clocks, so between
//! those the order is only as good as the clocks. Two writers share an id with a chance of 2^-48.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases" (OPODIS 2014).

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::random::Random;

/// Times and writer ids have 48 bits: milliseconds until the year 10889.
const BITS_48: u64 = (1 << 48) - 1;

/// When and by whom something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    millis: u64,
    count: u16,
    writer: u64,
}

impl Stamp {
    /// The least stamp after `seen` that `writer` may give at `now`.
    #[must_use]
    pub fn next(now: Timestamp, seen: Option<Self>, writer: u64) -> Self {
        let (now, writer) = (now.millis().min(BITS_48), writer & BITS_48);
        match seen {
            Some(seen) if seen.millis >= now => match seen.count.checked_add(1) {
                Some(count) => Self { millis: seen.millis, count, writer },
                None => Self { millis: (seen.millis + 1).min(BITS_48), count: 0, writer },
            },
            _ => Self { millis: now, count: 0, writer },
        }
    }

    /// The time in it: that of the writer's clock, or later when it had seen a later one.
    pub const fn at(self) -> Timestamp {
        Timestamp::from_millis(self.millis)
    }
}

/// `0199f0c3a5b2-0000-8c1d2e3f4a5b`: fixed width, so the order of the texts is the order of the stamps.
impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:012x}-{:04x}-{:012x}", self.millis, self.count, self.writer)
    }
}

/// A text is not a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a stamp")]
pub struct StampInvalid;

impl FromStr for Stamp {
    type Err = StampInvalid;

    fn from_str(text: &str) -> Result<Self, StampInvalid> {
        let read = |range| text.get(range).and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(StampInvalid);
        let count = u16::try_from(read(13..17)?).map_err(|_| StampInvalid)?;
        let stamp = Self { millis: read(0..12)?, count, writer: read(18..30)? };
        // Refuses every other spelling, such as upper case or a sign.
        if stamp.to_string() == text { Ok(stamp) } else { Err(StampInvalid) }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One writer's clock: the memory of an isolate. Clones share it.
#[derive(Clone, Debug)]
pub struct Stamps {
    writer: u64,
    last: Rc<Cell<Option<Stamp>>>,
}

impl Stamps {
    /// The clock of a new writer with a random id.
    pub fn new(random: &impl Random) -> Self {
        Self { writer: random.next_u64() & BITS_48, last: Rc::default() }
    }

    /// A stamp greater than every one this clock gave before, and than `seen`.
    pub fn next(&self, now: Timestamp, seen: Option<Stamp>) -> Stamp {
        let stamp = Stamp::next(now, self.last.get().max(seen), self.writer);
        self.last.set(Some(stamp));
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn a_stamp_is_greater_than_what_was_seen_even_if_the_clock_is_behind() {
        let ahead = Stamp::next(NOON.plus_seconds(60), None, 7);
        let after = Stamp::next(NOON, Some(ahead), 1);
        assert!(after > ahead);
        assert_eq!(after.at(), ahead.at());
        assert_eq!(Stamp::next(NOON.plus_seconds(61), Some(after), 1).at(), NOON.plus_seconds(61));
    }

    #[test]
    fn a_spent_counter_moves_the_time() {
        let mut stamp = Stamp::next(NOON, None, 1);
        for _ in 0..70_000 {
            let next = Stamp::next(NOON, Some(stamp), 1);
            assert!(next > stamp);
            stamp = next;
        }
        assert_eq!(stamp.at(), NOON.plus_millis(1));
    }

    #[test]
    fn the_text_is_golden_and_keeps_the_order() {
        let stamp = Stamp::next(NOON, None, 0x8c1d_2e3f_4a5b);
        assert_eq!(stamp.to_string(), "0000000f4240-0000-8c1d2e3f4a5b");
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        let later = Stamp::next(NOON, Some(stamp), 0);
        assert!(later.to_string() > stamp.to_string());
        for other in
            ["", "0000000F4240-0000-8c1d2e3f4a5b", "0000000f4240-0000-8c1d2e3f4a5b ", "+00000f4240-0000-000000000000"]
        {
            assert_eq!(other.parse::<Stamp>(), Err(StampInvalid), "{other}");
        }
    }
}
