//! Where entries are looked for and kept: the isolate's memory, then KV; and the marks that invalidate them.
//!
//! - An entry is taken from memory for `memory_seconds` after KV gave or took it, then read again; its age goes on.
//! - Marks likewise: those of one entry that memory does not know are read by one bulk read.
//! - **While KV fails**, what memory still holds is used beyond that time, until the entry's own end, with the marks that
//!   were known last. Without either, the failure is the answer.
//!
//! Reusable: this knows nothing of computing. A gateway puts its own values and buckets through the same tiers.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::join_all;

use super::entry::{Entry, Value};
use super::marks::{Mark, Marked, Place, Severity};
use super::memory::{Memory, Remembered};
use super::policy::{Freshness, SECONDS_MAX, freshness};
use crate::clock::Timestamp;
use crate::kv::limits::{BULK_KEYS_MAX, CACHE_TTL_SECONDS_DEFAULT};
use crate::kv::{Corrupt, Error, Key, Read, Store, Write, codec};

/// How long KV keeps an entry or mark past its end, in seconds, so that garbage collection never races a decision.
const COLLECT_MARGIN_SECONDS: u64 = 60;

/// Memory, then KV. Clones share the memory.
#[derive(Debug)]
pub struct Tiers<S, V> {
    store: S,
    memory: Memory<V>,
    memory_millis: u64,
}

impl<S: Clone, V> Clone for Tiers<S, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), memory: self.memory.clone(), memory_millis: self.memory_millis }
    }
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In this isolate: no KV operation, but for marks.
    Memory,
    /// In KV.
    Kv,
}

/// An entry and what is known of its validity.
#[derive(Debug)]
pub struct Found<V> {
    /// The entry.
    pub entry: Rc<Entry<V>>,
    /// The marks that cover its place and tags.
    pub marked: Marked,
    /// Where it was.
    pub tier: Tier,
    /// Before this moment nobody should try to refresh it, because that failed.
    pub(super) retry_at: Timestamp,
}

impl<V> Found<V> {
    /// What may be done with the entry.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        freshness(&self.entry.head, self.marked, now)
    }

    /// When it stops being fresh, or did: at a soft purge if that came first.
    pub fn fresh_until(&self) -> Timestamp {
        let head = &self.entry.head;
        let softly = self.marked.stale.filter(|stale| head.asked <= *stale);
        softly.map_or(head.fresh_until, |at| head.fresh_until.min(at))
    }
}

/// What a look into the tiers gave.
#[derive(Debug)]
pub enum Lookup<V> {
    /// An entry, valid or not: ask [`Found::freshness`].
    Found(Found<V>),
    /// No entry.
    Absent,
    /// A record that cannot be read: damaged, foreign, of a newer format, or refused by its own validation.
    /// It counts as absent and is kept until something overwrites it.
    Unreadable(Corrupt),
}

impl<V> Lookup<V> {
    /// The entry, if there is one.
    pub fn found(self) -> Option<Found<V>> {
        match self {
            Self::Found(found) => Some(found),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

impl<S: Store, V: Value> Tiers<S, V> {
    /// Tiers that take an answer from `memory` for `memory_seconds`, at most the 60 for which KV's own locations do.
    pub fn new(store: S, memory: Memory<V>, memory_seconds: u32) -> Self {
        let memory_millis = u64::from(memory_seconds.min(CACHE_TTL_SECONDS_DEFAULT)) * 1000;
        Self { store, memory, memory_millis }
    }

    /// A moment for something that is done now, later than that of everything done before in this isolate.
    pub fn tick(&self, now: Timestamp) -> Timestamp {
        self.memory.tick(now)
    }

    /// What is at `place`. At most one get and one bulk get; nothing when memory knows all.
    ///
    /// # Errors
    ///
    /// KV failed, and memory does not know enough; or a mark is unreadable.
    pub async fn find(&self, place: &Place, now: Timestamp) -> Result<Lookup<V>, Error> {
        let known = self.memory.entry(&place.key);
        if let Some(known) = known.filter(|known| self.is_recent(known.checked, now)) {
            return self.judge(place, known, Tier::Memory, now).await;
        }
        let read = self.store.get(&place.key, Read::FRESHEST).await;
        match self.take(&place.key, read, now)? {
            Taken::Entry(known, tier) => self.judge(place, known, tier, now).await,
            Taken::Absent => Ok(Lookup::Absent),
            Taken::Unreadable(why) => Ok(Lookup::Unreadable(why)),
        }
    }

    /// What is at each of `places`, in their order. Text values are read a hundred at a time, with one more bulk read
    /// for their marks; others one by one, because bulk reads would damage them. A place for which KV failed counts as
    /// absent.
    pub async fn find_many(&self, places: &[Place], now: Timestamp) -> Vec<Lookup<V>> {
        if !V::IS_TEXT {
            let finds = places.iter().map(|place| self.find(place, now));
            return join_all(finds).await.into_iter().map(|found| found.unwrap_or(Lookup::Absent)).collect();
        }
        let taken = self.take_many(places, now).await;
        let entries = places.iter().zip(&taken).filter_map(|(place, taken)| match taken {
            Taken::Entry(known, _) => Some(place.mark_keys(&known.entry.head.tags)),
            Taken::Absent | Taken::Unreadable(_) => None,
        });
        let mut marks: Vec<(Severity, Key)> = entries.flatten().collect();
        marks.sort_by(|one, other| one.1.cmp(&other.1));
        marks.dedup();
        // A failure shows again, and counts, where each entry is judged.
        let _ = self.load_marks(&marks, now).await;
        let judged = places.iter().zip(taken).map(async |(place, taken)| match taken {
            Taken::Entry(known, tier) => self.judge(place, known, tier, now).await.unwrap_or(Lookup::Absent),
            Taken::Absent => Lookup::Absent,
            Taken::Unreadable(why) => Lookup::Unreadable(why),
        });
        join_all(judged).await
    }

    /// Keeps an entry of `bytes` stored bytes in memory alone.
    pub fn remember(&self, place: &Place, entry: &Rc<Entry<V>>, bytes: usize, now: Timestamp) {
        let retry_at = Timestamp::default();
        self.memory.offer(&place.key, Remembered { entry: Rc::clone(entry), checked: now, retry_at, bytes });
    }

    /// Writes `bytes`, those of `entry`. KV may collect them when nobody can use them any more.
    ///
    /// # Errors
    ///
    /// KV failed; the entry may have been written.
    pub async fn write(&self, place: &Place, entry: &Entry<V>, bytes: &[u8]) -> Result<(), Error> {
        let life_millis = entry.head.last_until().millis_since(entry.head.born);
        let write = Write::expiring_in(life_millis.div_ceil(1000) + COLLECT_MARGIN_SECONDS);
        self.store.put(&place.key, bytes, write).await
    }

    /// Removes what is at `place`, also when there is nothing. One delete.
    ///
    /// # Errors
    ///
    /// KV failed; the entry may be gone.
    pub async fn remove(&self, place: &Place, now: Timestamp) -> Result<(), Error> {
        self.store.delete(&place.key).await?;
        self.memory.set_mark(&place.key, Some(self.memory.tick(now)), now);
        Ok(())
    }

    /// Writes a mark under `key`: what was asked for up to now is covered. One write.
    ///
    /// # Errors
    ///
    /// KV failed; the mark may have been written. In this isolate it holds.
    pub(super) async fn mark(&self, key: &Key, now: Timestamp) -> Result<(), Error> {
        let at = self.memory.tick(now);
        self.memory.set_mark(key, Some(at), now);
        let bytes = codec::encode(&Mark { at })?;
        // No entry that the mark can cover outlives its two longest windows.
        self.store.put(key, &bytes, Write::expiring_in(2 * SECONDS_MAX + COLLECT_MARGIN_SECONDS)).await
    }

    /// Whether an entry asked for at `asked` is invalid by what this isolate knows without asking.
    pub(super) fn is_known_gone(&self, place: &Place, entry: &Entry<V>) -> bool {
        let keys = place.mark_keys(&entry.head.tags);
        let hard = keys.iter().filter(|(severity, _)| *severity == Severity::Hard).map(|(_, key)| key);
        let marks = hard.chain([&place.key]).filter_map(|key| self.memory.mark(key)?.0);
        marks.max().is_some_and(|gone| entry.head.asked <= gone)
    }

    /// Nobody in this isolate should try to refresh what is at `place` before `retry_at`.
    pub(super) fn postpone(&self, place: &Place, retry_at: Timestamp) {
        self.memory.postpone(&place.key, retry_at);
    }

    /// The store, for what is neither an entry nor a mark.
    pub(super) const fn store(&self) -> &S {
        &self.store
    }

    fn is_recent(&self, checked: Timestamp, now: Timestamp) -> bool {
        now.millis_since(checked) < self.memory_millis
    }

    /// What memory knows after KV's answer about one key.
    fn take(&self, key: &Key, read: Result<Option<Vec<u8>>, Error>, now: Timestamp) -> Result<Taken<V>, Error> {
        let known = self.memory.entry(key);
        // Something was put here while KV was being asked.
        if let Some(known) = known.clone().filter(|known| self.is_recent(known.checked, now)) {
            return Ok(Taken::Entry(known, Tier::Memory));
        }
        match (read, known) {
            (Ok(Some(bytes)), _) => match Entry::decode(&bytes) {
                Ok(entry) => {
                    self.memory.observe(entry.head.asked, now);
                    let (entry, retry_at) = (Rc::new(entry), Timestamp::default());
                    let read = Remembered { entry, checked: now, retry_at, bytes: bytes.len() };
                    let taken = self.memory.offer(key, read);
                    Ok(taken.map_or(Taken::Absent, |known| Taken::Entry(known, Tier::Kv)))
                }
                Err(Error::Corrupt(why)) => Ok(Taken::Unreadable(why)),
                Err(error) => Err(error),
            },
            (Ok(None), known) => {
                known.inspect(|known| self.memory.forget(key, known.entry.head.asked));
                Ok(Taken::Absent)
            }
            (Err(_), Some(known)) => Ok(Taken::Entry(known, Tier::Memory)),
            (Err(error), None) => Err(error),
        }
    }

    async fn judge(&self, place: &Place, known: Remembered<V>, tier: Tier, now: Timestamp) -> Result<Lookup<V>, Error> {
        let marked = self.load_marks(&place.mark_keys(&known.entry.head.tags), now).await?;
        Ok(Lookup::Found(Found { entry: known.entry, marked, tier, retry_at: known.retry_at }))
    }

    /// What memory knows of each place after as few bulk reads as can be.
    async fn take_many(&self, places: &[Place], now: Timestamp) -> Vec<Taken<V>> {
        let is_unknown =
            |place: &&Place| !self.memory.entry(&place.key).is_some_and(|known| self.is_recent(known.checked, now));
        let mut unknown: Vec<Key> = places.iter().filter(is_unknown).map(|place| place.key.clone()).collect();
        unknown.sort();
        unknown.dedup();
        let mut reads = BTreeMap::new();
        for keys in unknown.chunks(BULK_KEYS_MAX) {
            let values = match self.store.get_many(keys, Read::FRESHEST).await {
                Ok(values) => values.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); keys.len()],
            };
            reads.extend(keys.iter().zip(values));
        }
        let read = |place: &Place| reads.get(&place.key).cloned().unwrap_or(Ok(None));
        places.iter().map(|place| self.take(&place.key, read(place), now).unwrap_or(Taken::Absent)).collect()
    }

    /// All these marks together, of which those that memory does not know well are read.
    async fn load_marks(&self, keys: &[(Severity, Key)], now: Timestamp) -> Result<Marked, Error> {
        let mut marked = Marked::default();
        let (mut asked, mut all_known) = (Vec::new(), true);
        for (severity, key) in keys {
            let known = self.memory.mark(key);
            all_known &= known.is_some();
            if !known.is_some_and(|(_, checked)| self.is_recent(checked, now)) {
                asked.push((*severity, key.clone()));
            }
            marked = marked.and(*severity, known.and_then(|(at, _)| at));
        }
        for chunk in asked.chunks(BULK_KEYS_MAX) {
            let names: Vec<Key> = chunk.iter().map(|(_, key)| key.clone()).collect();
            let values = match self.store.get_many(&names, Read::FRESHEST).await {
                Ok(values) => values,
                Err(_) if all_known => return Ok(marked),
                Err(error) => return Err(error),
            };
            for ((severity, key), value) in chunk.iter().zip(values) {
                let at = codec::decode_found::<Mark>(value)?.map(|mark| mark.at);
                at.inspect(|at| self.memory.observe(*at, now));
                marked = marked.and(*severity, self.memory.set_mark(key, at, now));
            }
        }
        Ok(marked)
    }
}

/// What became of KV's answer.
enum Taken<V> {
    Entry(Remembered<V>, Tier),
    Absent,
    Unreadable(Corrupt),
}
