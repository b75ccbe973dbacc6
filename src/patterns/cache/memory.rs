//! The memory of one isolate: entries and marks, bounded by bytes, kept no longer than the caller allows.
//!
//! It is not coherent with any other isolate and never needed for an answer to be right. An entry here keeps its own
//! head, so its age goes on; what is remembered beside it is only when KV last confirmed it. Newer never gives way to
//! older: an answer of KV that arrives late cannot undo a write or a purge of this isolate.
//!
//! Reusable by any cache whose entries are [`Entry`]s, also of several tenants: keys are whole KV keys.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::fmt;
use std::rc::Rc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::entry::Entry;
use crate::clock::Timestamp;
use crate::kv::Key;

/// What an item is taken to weigh beside its bytes: key, head, table.
const OVERHEAD_BYTES: u64 = 256;
/// The weight of an item for which the table makes room beforehand.
const ITEM_BYTES_USUAL: u64 = 4096;

/// How far ahead of this isolate's clock another one's is believed to be, in milliseconds.
const AHEAD_MILLIS_MAX: u64 = 60_000;
/// How long a deletion is remembered, in milliseconds: longer than KV documents a location to go on serving what was
/// deleted there, 30 seconds of its cache and 60 of propagation.
const DELETED_MILLIS: u64 = 120_000;

/// Bounded memory, shared by its clones.
pub struct Memory<V>(Rc<Inner<V>>);

struct Inner<V> {
    kept: RefCell<Cache<String, Kept<V>, Weight>>,
    /// The latest moment this isolate has given out or seen.
    latest: Cell<Timestamp>,
}

impl<V> Clone for Memory<V> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<V> fmt::Debug for Memory<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.0.kept.borrow();
        write!(formatter, "Memory({} items, {} bytes)", cache.len(), cache.weight())
    }
}

/// An entry as it is remembered.
#[derive(Debug)]
pub(super) struct Remembered<V> {
    pub(super) entry: Rc<Entry<V>>,
    /// When KV last gave or took it.
    pub(super) checked: Timestamp,
    /// Before this moment nobody should try to refresh it, because that failed.
    pub(super) retry_at: Timestamp,
    /// How many bytes it has when stored.
    pub(super) bytes: usize,
}

impl<V> Clone for Remembered<V> {
    fn clone(&self) -> Self {
        Self { entry: Rc::clone(&self.entry), ..*self }
    }
}

impl<V> Remembered<V> {
    /// Of one value the copy whose freshness was ended early is the later.
    fn is_after(&self, other: &Self) -> bool {
        let (head, other) = (&self.entry.head, &other.entry.head);
        (head.asked, Reverse(head.fresh_until)) > (other.asked, Reverse(other.fresh_until))
    }
}

/// What stands under a key: an entry, or the moment up to which entries are invalid, of a mark or of a deleted entry.
enum Kept<V> {
    Entry(Remembered<V>),
    Mark { at: Option<Timestamp>, checked: Timestamp },
}

#[derive(Clone)]
struct Weight;

impl<V> Weighter<String, Kept<V>> for Weight {
    fn weight(&self, key: &String, kept: &Kept<V>) -> u64 {
        let bytes = match kept {
            Kept::Entry(remembered) => remembered.bytes,
            Kept::Mark { .. } => 0,
        };
        OVERHEAD_BYTES + u64::try_from(key.len().saturating_add(bytes)).unwrap_or(u64::MAX / 2)
    }
}

impl<V> Memory<V> {
    /// Memory for at most `bytes_max` bytes. An entry too large for its share of that is not remembered.
    pub fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ITEM_BYTES_USUAL).unwrap_or(1);
        let kept = RefCell::new(Cache::with_weighter(items, bytes_max, Weight));
        Self(Rc::new(Inner { kept, latest: Cell::default() }))
    }

    /// How many bytes are held, keys and overhead included.
    pub fn bytes(&self) -> u64 {
        self.0.kept.borrow().weight()
    }

    /// A moment later than every one given out or seen before: a hybrid logical clock, so that of two things done in
    /// this isolate within one millisecond the second is later, also when another location's clock is ahead.
    /// Source: Kulkarni et al., "Logical physical clocks", OPODIS 2014.
    pub(super) fn tick(&self, now: Timestamp) -> Timestamp {
        let later = now.max(self.0.latest.get().plus_millis(1));
        self.0.latest.set(later);
        later
    }

    /// Another isolate gave out `moment`. A clock that is more than a minute ahead is not followed.
    pub(super) fn observe(&self, moment: Timestamp, now: Timestamp) {
        if moment <= now.plus_millis(AHEAD_MILLIS_MAX) {
            self.0.latest.set(self.0.latest.get().max(moment));
        }
    }

    /// The entry under `key`, however long ago it was checked.
    pub(super) fn entry(&self, key: &Key) -> Option<Remembered<V>> {
        match self.0.kept.borrow().get(key.as_str()) {
            Some(Kept::Entry(remembered)) => Some(remembered.clone()),
            _ => None,
        }
    }

    /// Remembers an entry, unless a newer one, or a deletion that covers it, is here. Gives what is here afterwards.
    pub(super) fn offer(&self, key: &Key, offered: Remembered<V>) -> Option<Remembered<V>> {
        let mut cache = self.0.kept.borrow_mut();
        let mut retry_at = offered.retry_at;
        match cache.peek(key.as_str()) {
            Some(Kept::Entry(known)) if known.is_after(&offered) => return Some(known.clone()),
            Some(Kept::Mark { at: Some(deleted), checked })
                if offered.entry.head.asked <= *deleted && offered.checked.millis_since(*checked) < DELETED_MILLIS =>
            {
                return None;
            }
            Some(Kept::Entry(known)) if known.entry.head == offered.entry.head => {
                retry_at = retry_at.max(known.retry_at);
            }
            _ => {}
        }
        let offered = Remembered { retry_at, ..offered };
        cache.insert(key.as_str().to_owned(), Kept::Entry(offered.clone()));
        Some(offered)
    }

    /// Forgets the entry that was asked for at `asked`; a newer one stays.
    pub(super) fn forget(&self, key: &Key, asked: Timestamp) {
        let same = |kept: &Kept<V>| matches!(kept, Kept::Entry(known) if known.entry.head.asked == asked);
        self.0.kept.borrow_mut().remove_if(key.as_str(), same);
    }

    /// Nobody should try to refresh the entry before `retry_at`.
    pub(super) fn postpone(&self, key: &Key, retry_at: Timestamp) {
        if let Some(remembered) = self.entry(key) {
            let later = Kept::Entry(Remembered { retry_at, ..remembered });
            self.0.kept.borrow_mut().insert(key.as_str().to_owned(), later);
        }
    }

    /// The mark under `key` (or its known absence), and when it was checked.
    pub(super) fn mark(&self, key: &Key) -> Option<(Option<Timestamp>, Timestamp)> {
        match self.0.kept.borrow().get(key.as_str()) {
            Some(Kept::Mark { at, checked }) => Some((*at, *checked)),
            _ => None,
        }
    }

    /// Remembers a mark; a later one that is here stays. Gives the later of both.
    pub(super) fn set_mark(&self, key: &Key, at: Option<Timestamp>, checked: Timestamp) -> Option<Timestamp> {
        let at = at.max(self.mark(key).and_then(|(known, _)| known));
        self.0.kept.borrow_mut().insert(key.as_str().to_owned(), Kept::Mark { at, checked });
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Tenant;
    use crate::patterns::cache::entry::Head;

    fn key(name: &str) -> Key {
        Tenant::new("acme").unwrap().space("cache").key(&[name])
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn remembered(asked: u64, bytes: usize) -> Remembered<u8> {
        let head = Head {
            value: String::new(),
            asked: at(asked),
            born: at(asked),
            fresh_until: at(asked),
            stale_until: at(asked),
            error_until: at(asked),
            cost_millis: 0,
            tags: Vec::new(),
            nothing: true,
        };
        let entry = Rc::new(Entry { head, value: None });
        Remembered { entry, checked: at(0), retry_at: at(0), bytes }
    }

    fn asked(memory: &Memory<u8>, name: &str) -> Option<u64> {
        memory.entry(&key(name)).map(|known| known.entry.head.asked.millis())
    }

    #[test]
    fn it_never_holds_more_bytes_than_it_may() {
        let memory = Memory::new(100_000);
        for number in 0..10_000_u64 {
            memory.offer(&key(&number.to_string()), remembered(1, usize::try_from(number % 3000).unwrap()));
            memory.set_mark(&key(&format!("mark {number}")), None, at(0));
            assert!(memory.bytes() <= 100_000, "{memory:?}");
        }
        assert!(memory.bytes() > 50_000, "{memory:?}");
        memory.offer(&key("huge"), remembered(1, 1_000_000));
        assert_eq!(asked(&memory, "huge"), None);
    }

    #[test]
    fn newer_never_gives_way_to_older() {
        let memory = Memory::new(1 << 20);
        memory.offer(&key("x"), remembered(5, 1));
        memory.offer(&key("x"), remembered(4, 1));
        assert_eq!(asked(&memory, "x"), Some(5));
        memory.forget(&key("x"), at(4));
        assert_eq!(asked(&memory, "x"), Some(5));
        memory.set_mark(&key("x"), Some(at(7)), at(0));
        assert!(memory.offer(&key("x"), remembered(7, 1)).is_none());
        assert_eq!(asked(&memory, "x"), None);
        memory.offer(&key("x"), remembered(8, 1));
        assert_eq!(asked(&memory, "x"), Some(8));
    }

    #[test]
    fn a_mark_only_grows() {
        let memory = Memory::<u8>::new(1 << 20);
        assert_eq!(memory.set_mark(&key("m"), Some(at(5)), at(1)), Some(at(5)));
        assert_eq!(memory.set_mark(&key("m"), None, at(2)), Some(at(5)));
        assert_eq!(memory.set_mark(&key("m"), Some(at(4)), at(3)), Some(at(5)));
        assert_eq!(memory.mark(&key("m")), Some((Some(at(5)), at(3))));
    }

    #[test]
    fn what_is_done_later_is_later_whatever_the_clock_says() {
        let memory = Memory::<u8>::new(1 << 20);
        assert_eq!([memory.tick(at(5)), memory.tick(at(5)), memory.tick(at(3))], [at(5), at(6), at(7)]);
        memory.observe(at(1000), at(7));
        assert_eq!(memory.tick(at(8)), at(1001));
        memory.observe(at(1_000_000), at(9));
        assert_eq!(memory.tick(at(9)), at(1002), "a clock far ahead is not followed");
    }

    #[test]
    fn a_deletion_is_forgotten_when_no_location_can_hold_the_value_any_more() {
        let memory = Memory::new(1 << 20);
        memory.set_mark(&key("x"), Some(at(7)), at(7));
        let read = |checked| Remembered { checked: at(checked), ..remembered(6, 1) };
        assert!(memory.offer(&key("x"), read(7 + DELETED_MILLIS - 1)).is_none());
        assert!(memory.offer(&key("x"), read(7 + DELETED_MILLIS)).is_some());
    }

    #[test]
    fn a_value_read_again_is_not_tried_again_too_early() {
        let memory = Memory::new(1 << 20);
        memory.offer(&key("x"), remembered(5, 1));
        memory.postpone(&key("x"), at(50));
        memory.offer(&key("x"), remembered(5, 1));
        assert_eq!(memory.entry(&key("x")).unwrap().retry_at, at(50));
        memory.offer(&key("x"), remembered(6, 1));
        assert_eq!(memory.entry(&key("x")).unwrap().retry_at, at(0));
    }
}
