//! A cache of values, in the isolate's memory, then in KV, then computed: never older than it says, eventually consistent.
//!
//! # What a call promises
//!
//! - **Freshness is exact**: it stands in the envelope, in every location; KV's expiry only collects garbage, so one
//!   second is a time to live like any other. An age is carried through the tiers and never starts anew.
//! - **A value is never used past its windows**, whatever fails.
//! - **KV is never in the way**: for who can compute, a failing KV and an unreadable record are a miss. While KV fails, what
//!   memory holds is used until its own end.
//! - **A write, deletion or purge is seen by the next call in the same isolate.** Elsewhere it is seen after 60 seconds
//!   plus propagation: 30 in an isolate's memory, 30 in the location's copy ([`MEMORY_SECONDS`], and the least KV
//!   allows). Another isolate of the same location sees it within the first 30, usually.
//! - **Purging is one write** per tag, prefix or bucket, and nothing is enumerated (`marks.rs`).
//! - Nothing, `null`, `false`, `0` and no bytes are results like any other.
//! - [`ReadThrough`]: of many callers in one isolate one computes (`flight.rs`), a value about to expire is refreshed by
//!   few (`policy.rs`), and a caller waits no longer than it was told to.
//!
//! # Keys
//!
//! | key | holds | written by |
//! |---|---|---|
//! | `cache/<bucket>/<key>...` | an entry: head and bytes | whoever puts or computes it |
//! | `cache-version/<bucket>/<version>/<key>...` | the same, for a bucket with a version | the same |
//! | `cache-mark/<bucket>/hard/all`, `.../tag/<tag>`, `.../prefix/<segment>...` | what was asked for up to here is invalid | a purge |
//! | `cache-mark/<bucket>/soft/...` | what was asked for up to here is stale | a soft purge |
//! | `cache-mark/<bucket>/lease/<entry's key>` | a location is refreshing this entry | a refresh, where leases are on |
//!
//! # Where the two rules of KV are bent
//!
//! *A key is read before it may be created*: a cache looks before it fills, so a location that has looked for a key may not
//! see it for 30 seconds after another one has filled it, and fills it itself. Marks are looked for before anybody purges:
//! that is in the bound above.
//!
//! *An entry has many writers*: the last one wins, and each wrote a valid value. Two within a second: one is refused with
//! 429; a refresh drops its write then, because what it would store is in the other's already.
//!
//! *The lease* across locations is a hint that saves work and guarantees nothing: the others learn of it after
//! propagation, and not for 30 seconds if they have just looked. It is asked only before refreshing a value that can be
//! served meanwhile, never before filling a miss, where nobody could wait for so long.
//!
//! # Cost in KV operations (asserted in `tests/it/cache`)
//!
//! `m` is 1, plus 1 for each `/` of the key (at most 16) and each tag, twice that with soft marks: the marks, read at most
//! every 30 seconds by an isolate, by one bulk read. Over HTTP buckets have soft marks.
//!
//! | call | reads | writes | deletes |
//! |---|---|---|---|
//! | get, in memory | 0, every 30 s `m` | 0 | 0 |
//! | get, from KV | 1, every 30 s `m` more | 0 | 0 |
//! | get of an absent key | 1 | 0 | 0 |
//! | get many texts | 1 a key and their marks, in two bulk reads a hundred | 0 | 0 |
//! | set, refresh | 0; with a lease 1 | 1; with a lease 2 | 0 |
//! | expire | as get | 1 | 0 |
//! | delete | 0 | 0 | 1 |
//! | purge | 0 | 1 for each tag, prefix or bucket | 1 for a prefix without a `/` at its end; soft: as expire |
//!
//! # For other caches
//!
//! [`Tiers`], [`Bucket`], [`Flights`] and [`freshness`] know nothing of each other's callers: a gateway puts its own
//! [`Value`] through them, with [`Resources`] of its own.

mod entry;
mod flight;
mod marks;
mod memory;
mod object;
mod policy;
mod read_through;
mod tiers;

use std::rc::Rc;

pub use entry::{Entry, Head, Json, Value, label};
pub use flight::{Flights, Launcher, Lead, Seat, SharedLauncher, Ticket};
pub use marks::{Bucket, Marked, PREFIXES_MAX, Place, Resources, Scope, Severity, TAGS_MAX};
pub use memory::Memory;
pub use object::Object;
pub use policy::{
    Freshness, Life, Policy, SECONDS_MAX, freshness, jittered_millis, refreshes_early, smoothed_cost_millis,
};
pub use read_through::{Answer, Computed, Failure, Host, ReadThrough, Source};
pub use tiers::{Found, Lookup, Tier, Tiers};

use crate::clock::Timestamp;
use crate::kv::{Error, Store};

/// How long an isolate takes an entry or a mark from its memory before it asks KV again, in seconds, where nothing else is
/// said: as long as a location's own copy lives at least, so that memory at most doubles the wait for a change.
pub const MEMORY_SECONDS: u32 = 30;

/// A cache that callers fill themselves.
#[derive(Debug)]
pub struct Cache<S, V> {
    tiers: Tiers<S, V>,
    bucket: Bucket,
}

impl<S: Clone, V> Clone for Cache<S, V> {
    fn clone(&self) -> Self {
        Self { tiers: self.tiers.clone(), bucket: self.bucket.clone() }
    }
}

impl<S: Store, V: Value> Cache<S, V> {
    /// The entries of `bucket` in `tiers`.
    pub const fn new(tiers: Tiers<S, V>, bucket: Bucket) -> Self {
        Self { tiers, bucket }
    }

    /// What is under `key`, to be judged by [`Found::freshness`].
    ///
    /// # Errors
    ///
    /// KV failed, and memory does not know enough.
    pub async fn get(&self, key: &str, now: Timestamp) -> Result<Lookup<V>, Error> {
        self.tiers.find(&self.bucket.place(key), now).await
    }

    /// What is under each of `keys`, in their order. What KV failed for counts as absent.
    pub async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Lookup<V>> {
        let places: Vec<Place> = keys.iter().map(|key| self.bucket.place(key)).collect();
        self.tiers.find_many(&places, now).await
    }

    /// Puts `value` under `key`; no value says that there is nothing, which is remembered too. At most [`TAGS_MAX`] tags
    /// are looked for.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the value cannot be written, or is larger than KV takes. Otherwise KV failed, and the value may
    /// have been stored.
    pub async fn set(
        &self,
        key: &str,
        value: Option<V>,
        life: Life,
        tags: Vec<String>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let place = self.bucket.place(key);
        let fresh_until = now.plus_seconds(life.ttl_seconds.min(SECONDS_MAX));
        let entry = self.entry(value, tags, now, fresh_until, life);
        self.store(&place, Rc::new(entry), now).await
    }

    /// Removes what is under `key`.
    ///
    /// # Errors
    ///
    /// KV failed; the entry may be gone.
    pub async fn delete(&self, key: &str, now: Timestamp) -> Result<(), Error> {
        self.tiers.remove(&self.bucket.place(key), now).await
    }

    /// Makes what is under `key` stale from now on; its windows of staleness begin. Nothing happens when there is nothing.
    ///
    /// # Errors
    ///
    /// KV failed; the entry may have become stale.
    pub async fn expire(&self, key: &str, now: Timestamp) -> Result<(), Error> {
        let place = self.bucket.place(key);
        let Some(found) = self.tiers.find(&place, now).await?.found() else { return Ok(()) };
        let head = &found.entry.head;
        if found.freshness(now) != Freshness::Fresh {
            return Ok(());
        }
        let early_millis = head.fresh_until.millis_since(now);
        let earlier = |until: Timestamp| Timestamp::from_millis(until.millis().saturating_sub(early_millis));
        // `asked` stays: the value is as old as it was, and a purge that is not seen here yet must cover it.
        let head = Head {
            fresh_until: now,
            stale_until: earlier(head.stale_until),
            error_until: earlier(head.error_until),
            ..head.clone()
        };
        let entry = Entry { head, value: found.entry.value.clone() };
        self.store(&place, Rc::new(entry), now).await
    }

    /// Invalidates everything within `scope` that was put or asked for up to now. One write; the key that equals a prefix looks
    /// for no mark of that name, which would be a read more for every key, and is deleted, or softly expired.
    ///
    /// # Errors
    ///
    /// KV failed; it holds in this isolate, and may hold elsewhere.
    pub async fn invalidate(&self, scope: Scope<'_>, severity: Severity, now: Timestamp) -> Result<(), Error> {
        self.tiers.mark(&self.bucket.mark_key(scope, severity), now).await?;
        match scope {
            Scope::Prefix(key) if !key.ends_with('/') => match self.bucket.severity(severity) {
                Severity::Hard => self.delete(key, now).await,
                Severity::Soft => self.expire(key, now).await,
            },
            Scope::Prefix(_) | Scope::Tag(_) | Scope::All => Ok(()),
        }
    }

    async fn store(&self, place: &Place, entry: Rc<Entry<V>>, now: Timestamp) -> Result<(), Error> {
        let bytes = entry.encode()?;
        self.tiers.write(place, &entry, &bytes).await?;
        // Memory last: what a read of KV brings meanwhile is older and gives way.
        self.tiers.remember(place, &entry, bytes.len(), now);
        Ok(())
    }

    /// An entry whose work began and ended now.
    fn entry(
        &self,
        value: Option<V>,
        tags: Vec<String>,
        now: Timestamp,
        fresh_until: Timestamp,
        life: Life,
    ) -> Entry<V> {
        let until = |seconds: u64| fresh_until.plus_seconds(seconds.min(SECONDS_MAX));
        let head = Head {
            value: label::<V>(),
            asked: self.tiers.tick(now),
            born: now,
            fresh_until,
            stale_until: until(life.stale_while_revalidate_seconds),
            error_until: until(life.stale_if_error_seconds),
            cost_millis: 0,
            tags,
            nothing: value.is_none(),
        };
        Entry { head, value }
    }
}
