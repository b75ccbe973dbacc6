//! What one isolate remembers: stored responses within a number of bytes, and purge marks.
//!
//! Limits: beyond the budget what is used least goes (S3-FIFO). Nothing here outlives the isolate, and no other isolate sees it; a slot counts
//! for a bounded time, after which KV is asked again, and an entry's age is carried in the entry, never restarted.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::entry::Record;
use crate::clock::Timestamp;

/// What a slot costs beside its bodies, in bytes: fields, keys, maps.
const SLOT_BYTES: usize = 2048;
/// The weight of a slot for which the table makes room beforehand, in bytes.
const SLOT_BYTES_USUAL: usize = 16_384;
/// How many purge marks are remembered; one that is not is read again.
const MARKS_MAX: usize = 4096;

/// What is remembered of one URI.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The stored responses; none after an invalidation, or when nothing could be stored.
    pub record: Rc<Record>,
    /// Until when this counts without asking KV.
    pub kept_until: Timestamp,
    /// Nothing requested before this moment may be stored: an unsafe request has made it wrong.
    pub not_before: Timestamp,
    /// When its responses were last known to be covered by no purge.
    pub unpurged_at: Timestamp,
    /// When the origin last failed while a stored response could answer.
    pub origin_failed_at: Option<Timestamp>,
    /// Why the last answer could not be stored, so that nobody waits for the next one.
    pub unstorable: Option<Unstorable>,
}

/// Why an answer could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// By the rules.
    Refused,
    /// Its body has more bytes than are stored.
    TooLarge,
}

/// A purge mark, and when KV was last asked for it.
type Mark = (Option<Timestamp>, Timestamp);

#[derive(Clone)]
struct Weight;

impl Weighter<String, Slot> for Weight {
    fn weight(&self, _: &String, slot: &Slot) -> u64 {
        u64::try_from(SLOT_BYTES.saturating_add(slot.record.bytes())).unwrap_or(u64::MAX / 2)
    }
}

struct Memory {
    slots: RefCell<Cache<String, Slot, Weight>>,
    marks: RefCell<Cache<String, Mark>>,
}

/// The memory of one isolate. Clones share it.
#[derive(Clone)]
pub struct Isolate(Rc<Memory>);

impl fmt::Debug for Isolate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Isolate({} bytes)", self.bytes())
    }
}

impl Isolate {
    /// A memory of at most `bytes_max` bytes. A slot that alone is nearly as large is not kept; the largest body that can be
    /// stored should be at most a third, so that whoever waited for it finds it.
    pub fn new(bytes_max: usize) -> Self {
        let weight = u64::try_from(bytes_max).unwrap_or(u64::MAX / 2);
        let slots = RefCell::new(Cache::with_weighter(bytes_max / SLOT_BYTES_USUAL, weight, Weight));
        Self(Rc::new(Memory { slots, marks: RefCell::new(Cache::new(MARKS_MAX)) }))
    }

    /// What is remembered under `key`, also if it no longer counts without KV.
    pub fn slot(&self, key: &str) -> Option<Slot> {
        self.0.slots.borrow().get(key).cloned()
    }

    /// Remembers `slot`.
    pub fn keep(&self, key: &str, slot: Slot) {
        self.0.slots.borrow_mut().insert(key.to_owned(), slot);
    }

    /// How many bytes are in use.
    pub fn bytes(&self) -> u64 {
        self.0.slots.borrow().weight()
    }

    /// A purge mark, and when KV was last asked for it.
    pub fn mark(&self, key: &str) -> Option<Mark> {
        self.0.marks.borrow().get(key).copied()
    }

    /// Remembers a purge mark. An older one never takes the place of a later one, which is given back.
    pub fn set_mark(&self, key: &str, at: Option<Timestamp>, checked: Timestamp) -> Option<Timestamp> {
        let at = at.max(self.mark(key).and_then(|(known, _)| known));
        self.0.marks.borrow_mut().insert(key.to_owned(), (at, checked));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::response_cache::entry::{Entry, Stored};
    use crate::patterns::response_cache::gateway::BODY_BYTES_MAX;
    use crate::patterns::response_cache::headers::Headers;
    use crate::patterns::response_cache::vary::Selector;

    fn slot(at: u64, bytes: usize) -> Slot {
        let entry = Entry::new(Stored {
            status: 200,
            headers: Headers::default(),
            requested_at: Timestamp::default(),
            received_at: Timestamp::default(),
            cost_millis: 0,
            selector: Selector::default(),
            part: None,
            tags: Vec::new(),
            body: vec![0; bytes].into(),
        });
        let record = Rc::new(Record::default().with(Rc::new(entry), usize::MAX));
        Slot { kept_until: Timestamp::from_millis(at), record, ..Slot::default() }
    }

    #[test]
    fn it_never_holds_more_bytes_than_it_may() {
        let isolate = Isolate::new(1 << 20);
        for at in 0..5_000_u64 {
            isolate.keep(&at.to_string(), slot(at, usize::try_from(at % 9_000).unwrap()));
            assert!(isolate.bytes() <= 1 << 20, "{isolate:?}");
        }
        assert!(isolate.bytes() > 1 << 19, "{isolate:?}");
        isolate.keep("same", slot(8, 100));
        let bytes = isolate.bytes();
        isolate.keep("same", slot(9, 100));
        assert_eq!((isolate.bytes(), isolate.slot("same").unwrap().kept_until.millis()), (bytes, 9));
        isolate.keep("huge", slot(1, 1 << 21));
        assert!(isolate.slot("huge").is_none());
    }

    #[test]
    fn the_largest_body_is_found_by_whoever_waited_for_it() {
        let isolate = Isolate::new(3 * BODY_BYTES_MAX);
        for at in 0..2_000 {
            isolate.keep(&at.to_string(), slot(at, 20_000));
        }
        isolate.keep("large", slot(1, BODY_BYTES_MAX));
        assert!(isolate.slot("large").is_some());
    }
}
