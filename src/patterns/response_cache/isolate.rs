//! What one isolate remembers: stored responses within a number of bytes, and which of them somebody is fetching right now.
//!
//! Limits: the least recently used go beyond the budget. Nothing here outlives the isolate, and no other isolate sees it; a slot counts
//! for a bounded time, after which KV is asked again, and an entry's age is carried in the entry, never restarted.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::entry::Record;
use crate::clock::{Clock, Timestamp};

/// What a slot costs beside its bodies, in bytes: fields, keys, maps.
const SLOT_BYTES: usize = 2048;
/// How many purge marks are remembered; beyond that all are read again.
const MARKS_MAX: usize = 4096;
/// How often a request that waits for another's looks again, in milliseconds.
const POLL_MILLIS: u64 = 10;

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
    leaders: HashMap<String, (u64, Timestamp)>,
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

    /// Remembers `slot`. What alone is larger than an eighth of the memory is not kept.
    pub fn keep(&self, key: &str, slot: Slot) {
        let mut memory = self.memory.borrow_mut();
        memory.forget(key);
        let bytes = SLOT_BYTES.saturating_add(slot.record.bytes());
        if bytes > self.bytes_max / 8 {
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

    /// The right to be the one that asks the origin for `key`, unless somebody has it. It ends with the [`Lead`], and at
    /// `until` in any case: a request that the platform ended drops nothing.
    pub fn lead(&self, key: &str, now: Timestamp, until: Timestamp) -> Option<Lead> {
        let mut memory = self.memory.borrow_mut();
        if memory.leaders.get(key).is_some_and(|(_, held_until)| now < *held_until) {
            return None;
        }
        memory.tick = memory.tick.saturating_add(1);
        let number = memory.tick;
        memory.leaders.insert(key.to_owned(), (number, until));
        Some(Lead { isolate: self.clone(), key: key.to_owned(), number })
    }

    /// Waits until nobody leads for `key`, at most `millis`. Each request waits on a timer of its own, because the platform
    /// lets no request await what another one started.
    pub async fn wait(&self, key: &str, clock: &impl Clock, millis: u64) {
        let end = clock.now().plus_millis(millis);
        loop {
            clock.sleep(POLL_MILLIS).await;
            let now = clock.now();
            let led = self.memory.borrow().leaders.get(key).is_some_and(|(_, until)| now < *until);
            if !led || now >= end {
                return;
            }
        }
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

/// The right to ask the origin for one key, given back when dropped.
#[derive(Debug)]
pub struct Lead {
    isolate: Isolate,
    key: String,
    number: u64,
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut memory = self.isolate.memory.borrow_mut();
        // After the time ran out somebody else may lead.
        if memory.leaders.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            memory.leaders.remove(&self.key);
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

    #[test]
    fn one_leads_until_it_ends_or_its_time_runs_out() {
        let isolate = Isolate::new(1 << 20);
        let at = Timestamp::from_millis;
        let first = isolate.lead("k", at(0), at(100)).unwrap();
        assert!(isolate.lead("k", at(99), at(200)).is_none());
        assert!(isolate.lead("other", at(99), at(200)).is_some());
        let second = isolate.lead("k", at(100), at(200)).unwrap();
        drop(first);
        assert!(isolate.lead("k", at(101), at(200)).is_none(), "the first one's end is not the second one's");
        drop(second);
        assert!(isolate.lead("k", at(101), at(200)).is_some());
    }
}
