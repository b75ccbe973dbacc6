//! What one isolate remembers: stored responses within a number of bytes, and purge marks.
//!
//! Limits: the least recently used go beyond the budget. Nothing here outlives the isolate, and no other isolate sees it; a slot counts
//! for a bounded time, after which KV is asked again, and an entry's age is carried in the entry, never restarted.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::entry::Record;
use crate::clock::Timestamp;

/// What a slot costs beside its bodies, in bytes: fields, keys, maps.
const SLOT_BYTES: usize = 2048;
/// How many purge marks are remembered; beyond that all are read again.
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
    /// The last answer could not be stored, so nobody should wait for the next one.
    pub unstorable: bool,
}

#[derive(Debug, Default)]
struct Memory {
    slots: HashMap<String, (u64, usize, Slot)>,
    by_use: BTreeMap<u64, String>,
    bytes: usize,
    tick: u64,
    marks: HashMap<String, (Option<Timestamp>, Timestamp)>,
}

/// The memory of one isolate. Clones share it.
#[derive(Clone, Debug)]
pub struct Isolate {
    memory: Rc<RefCell<Memory>>,
    bytes_max: usize,
}

impl Isolate {
    /// A memory of about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { memory: Rc::default(), bytes_max }
    }

    /// What is remembered under `key`, also if it no longer counts without KV.
    pub fn slot(&self, key: &str) -> Option<Slot> {
        let mut memory = self.memory.borrow_mut();
        memory.tick = memory.tick.saturating_add(1);
        let tick = memory.tick;
        let (used, _, slot) = memory.slots.get_mut(key)?;
        let before = std::mem::replace(used, tick);
        let slot = slot.clone();
        if let Some(key) = memory.by_use.remove(&before) {
            memory.by_use.insert(tick, key);
        }
        Some(slot)
    }

    /// Remembers `slot`. What alone is larger than half of the memory is not kept; the largest body that can be stored is less, so
    /// that whoever waited for it finds it.
    pub fn keep(&self, key: &str, slot: Slot) {
        let mut memory = self.memory.borrow_mut();
        memory.forget(key);
        let bytes = SLOT_BYTES.saturating_add(slot.record.bytes());
        if bytes > self.bytes_max / 2 {
            return;
        }
        memory.tick = memory.tick.saturating_add(1);
        let tick = memory.tick;
        memory.bytes = memory.bytes.saturating_add(bytes);
        memory.slots.insert(key.to_owned(), (tick, bytes, slot));
        memory.by_use.insert(tick, key.to_owned());
        while memory.bytes > self.bytes_max {
            let Some((_, oldest)) = memory.by_use.first_key_value() else { break };
            let oldest = oldest.clone();
            memory.forget(&oldest);
        }
    }

    /// How many bytes are in use.
    pub fn bytes(&self) -> usize {
        self.memory.borrow().bytes
    }

    /// A purge mark, and when KV was last asked for it.
    pub fn mark(&self, key: &str) -> Option<(Option<Timestamp>, Timestamp)> {
        self.memory.borrow().marks.get(key).copied()
    }

    /// Remembers a purge mark. An older one never takes the place of a later one, which is given back.
    pub fn set_mark(&self, key: &str, at: Option<Timestamp>, checked: Timestamp) -> Option<Timestamp> {
        let mut memory = self.memory.borrow_mut();
        if memory.marks.len() >= MARKS_MAX && !memory.marks.contains_key(key) {
            memory.marks.clear();
        }
        let mark = memory.marks.entry(key.to_owned()).or_insert((None, checked));
        *mark = (mark.0.max(at), checked);
        mark.0
    }
}

impl Memory {
    fn forget(&mut self, key: &str) {
        if let Some((tick, bytes, _)) = self.slots.remove(key) {
            self.by_use.remove(&tick);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(at: u64) -> Slot {
        Slot { kept_until: Timestamp::from_millis(at), ..Slot::default() }
    }

    #[test]
    fn the_least_recently_used_goes_when_the_bytes_are_spent() {
        let isolate = Isolate::new(SLOT_BYTES * 8);
        for at in 0..8 {
            isolate.keep(&at.to_string(), slot(at));
        }
        assert!(isolate.slot("0").is_some());
        isolate.keep("8", slot(8));
        assert!(isolate.slot("1").is_none() && isolate.slot("0").is_some() && isolate.slot("8").is_some());
        assert_eq!(isolate.bytes(), SLOT_BYTES * 8);
        isolate.keep("8", slot(9));
        assert_eq!((isolate.bytes(), isolate.slot("8").unwrap().kept_until.millis()), (SLOT_BYTES * 8, 9));
    }
}
