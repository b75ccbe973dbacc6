//! What an isolate remembers between requests: a map of bounded size that forgets its oldest entry first, and how long
//! what was read may be answered from.
//!
//! It is a hint, never the truth: isolates come and go, each knows only what it did itself, and a platform may end one
//! at any moment.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::clock::Timestamp;

/// How much longer than its time something is believed while one request asks for news, in seconds: longer than most
/// reads take.
pub const ASKING_SECONDS: u64 = 1;

/// Until when an isolate takes what it read for the newest.
///
/// When the time is over, the first request asks; others go on with what is known for [`ASKING_SECONDS`] more. After
/// those, as in an isolate that slept, everybody asks, because nobody can tell how old the knowledge is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Belief {
    until: Timestamp,
    somebody_asks: bool,
}

impl Belief {
    /// What was asked for at `asked_at` and is believed for `seconds`.
    pub fn new(asked_at: Timestamp, seconds: u64) -> Self {
        Self { until: asked_at.plus_seconds(seconds), somebody_asks: false }
    }

    /// Whether the request at `now` must ask. A clock that went back makes it ask.
    pub fn must_ask(&mut self, now: Timestamp, seconds: u64) -> bool {
        let is_believed = now < self.until && self.until <= now.plus_seconds(seconds);
        let is_bridged = self.somebody_asks && self.until <= now && now < self.until.plus_seconds(ASKING_SECONDS);
        let asks = !is_believed && !is_bridged;
        self.somebody_asks |= asks;
        asks
    }
}

/// A bounded map. Clones share it.
#[derive(Clone, Debug)]
pub struct Recent<V> {
    entries: Rc<RefCell<Entries<V>>>,
    count_max: usize,
}

#[derive(Debug)]
struct Entries<V> {
    values: BTreeMap<String, V>,
    /// Each key once, in the order in which they first came.
    order: VecDeque<String>,
}

impl<V: Clone> Recent<V> {
    /// An empty map for at most `count_max` entries.
    pub fn new(count_max: usize) -> Self {
        let entries = Entries { values: BTreeMap::new(), order: VecDeque::new() };
        Self { entries: Rc::new(RefCell::new(entries)), count_max }
    }

    /// What is remembered under `key`.
    pub fn get(&self, key: &str) -> Option<V> {
        self.entries.borrow().values.get(key).cloned()
    }

    /// Remembers `value` under `key`, instead of what was there.
    pub fn put(&self, key: &str, value: V) {
        let mut entries = self.entries.borrow_mut();
        if entries.values.insert(key.to_owned(), value).is_none() {
            entries.order.push_back(key.to_owned());
        }
        while entries.order.len() > self.count_max {
            if let Some(oldest) = entries.order.pop_front() {
                entries.values.remove(&oldest);
            }
        }
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &str) {
        let mut entries = self.entries.borrow_mut();
        if entries.values.remove(key).is_some() {
            entries.order.retain(|known| known != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_while_the_others_go_on_for_a_moment_and_all_ask_after_a_sleep() {
        let at = Timestamp::from_seconds;
        let belief = Belief::new(at(1000), 10);
        let asks = |mut belief: Belief, times: &[u64]| {
            times.iter().map(|time| belief.must_ask(at(*time), 10)).collect::<Vec<_>>()
        };
        assert_eq!(asks(belief, &[1000, 1009, 1010, 1010, 1011]), [false, false, true, false, true]);
        assert_eq!(asks(belief, &[5000, 5000, 5001]), [true, true, true], "nobody knows how old it is");
        assert_eq!(asks(belief, &[999, 999]), [true, true], "the clock went back");
        assert_eq!(asks(Belief::default(), &[1000, 1000]), [true, true]);
    }

    #[test]
    fn the_oldest_entry_goes_first_and_an_update_does_not_count_twice() {
        let recent = Recent::new(2);
        recent.put("a", 1);
        recent.put("a", 2);
        recent.put("b", 3);
        assert_eq!(recent.get("a"), Some(2));
        recent.put("c", 4);
        assert_eq!((recent.get("a"), recent.get("b"), recent.get("c")), (None, Some(3), Some(4)));
        recent.remove("b");
        recent.put("d", 5);
        assert_eq!((recent.get("b"), recent.get("c"), recent.get("d")), (None, Some(4), Some(5)));
    }
}
