//! What an isolate remembers between requests: a map of bounded size that forgets its oldest entry first.
//!
//! It is a hint, never the truth: isolates come and go, each knows only what it did itself, and a platform may end one
//! at any moment.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

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
