//! A cache that fills itself: what is not there is computed, by one caller for all, within the time that callers have.
//!
//! What a caller gets, in this order: a fresh value; a stale one within its window, with a refresh in the background; the
//! value just computed; after the soft timeout or a failure a stale value within its error window; an error, at the
//! latest after the hard timeout. A computation that took too long for its callers goes on and is kept.
//!
//! A computation that fails is tried once more, by whoever gets there first, before anybody is told. It must therefore be
//! safe to repeat. After that a stale value is served for [`Policy::retry_seconds`] without trying.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use super::entry::{Entry, Head, Value, label};
use super::flight::{Flights, Launcher, Ticket};
use super::marks::Place;
use super::policy::{Freshness, Life, Policy, SECONDS_MAX, jittered_millis, refreshes_early, smoothed_cost_millis};
use super::tiers::{Found, Lookup, Tier};
use super::{Bucket, Cache, Tiers};
use crate::clock::{Clock, Timestamp};
use crate::kv::codec::{self, Record};
use crate::kv::{Read, Store, Write};
use crate::random::Random;

/// Flights one caller takes at most: one that fails or never lands, one that fails, one more.
const FLIGHTS_MAX: u32 = 3;
/// Failures after which a caller is told.
const FAILURES_MAX: u32 = 2;

/// What the platform gives.
#[derive(Clone, Debug)]
pub struct Host<C, R, L> {
    /// Time.
    pub clock: C,
    /// Randomness.
    pub random: R,
    /// Work that outlives its request.
    pub launcher: L,
}

/// What a computation gives.
#[derive(Clone, Debug)]
pub struct Computed<V> {
    /// The value; nothing when there is nothing.
    pub value: Option<V>,
    /// Its life; the policy's when nothing is said.
    pub life: Option<Life>,
    /// The tags by which it can be invalidated.
    pub tags: Vec<String>,
}

impl<V> Computed<V> {
    /// A value, or nothing, with the policy's life and without tags.
    pub const fn of(value: Option<V>) -> Self {
        Self { value, life: None, tags: Vec::new() }
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tier.
    Tier(Tier),
    /// This caller's computation.
    Computed,
    /// Another caller's computation, which this one waited for.
    Joined,
}

/// A usable value.
#[derive(Debug)]
pub struct Answer<V> {
    /// The value and what is known of it.
    pub entry: Rc<Entry<V>>,
    /// How fresh it is: [`Freshness::Over`] never.
    pub freshness: Freshness,
    /// Where it comes from.
    pub source: Source,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Failure<E> {
    /// The computation failed, twice.
    #[error("the computation failed")]
    Compute(E),
    /// No computation ended in time.
    #[error("no computation ended in time")]
    TimedOut,
}

/// What became of a flight; in the error nothing stands for a refresh that was left to another location.
type Landed<V, E> = Result<Rc<Entry<V>>, Option<E>>;

/// A cache with a way to compute what it lacks.
#[derive(Debug)]
pub struct ReadThrough<S, V, E, C, R, L: Launcher> {
    cache: Cache<S, V>,
    flights: Flights<Landed<V, E>, L>,
    host: Host<C, R, L>,
    policy: Policy,
}

impl<S: Clone, V, E, C: Clone, R: Clone, L: Launcher> Clone for ReadThrough<S, V, E, C, R, L> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), flights: self.flights.clone(), host: self.host.clone(), policy: self.policy }
    }
}

/// A lease as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    until: Timestamp,
}

impl Record for Lease {
    const KIND: &'static str = "cache-lease";
    const VERSION: u32 = 1;
}

impl<S, V, E, C, R, L> ReadThrough<S, V, E, C, R, L>
where
    S: Store + Clone + 'static,
    V: Value,
    E: Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    L: Launcher,
{
    /// The entries of `bucket`; `flights` are those of the isolate, so that requests find each other.
    pub const fn new(
        tiers: Tiers<S, V>,
        bucket: Bucket,
        flights: Flights<Landed<V, E>, L>,
        host: Host<C, R, L>,
        policy: Policy,
    ) -> Self {
        Self { cache: Cache::new(tiers, bucket), flights, host, policy }
    }

    /// The same entries without the way to compute.
    pub const fn cache(&self) -> &Cache<S, V> {
        &self.cache
    }

    /// What is under `key`; what is missing or too old is computed.
    ///
    /// # Errors
    ///
    /// There is no usable value, and the computation failed twice or did not end within the hard timeout. KV failing is
    /// never a reason.
    pub async fn get_or_compute<F>(&self, key: &str, compute: F) -> Result<Answer<V>, Failure<E>>
    where
        F: AsyncFn() -> Result<Computed<V>, E> + 'static,
    {
        let place = self.cache.bucket.place(key);
        let compute = Rc::new(compute);
        let looked = self.cache.tiers.find(&place, self.host.clock.now()).await;
        let found = looked.ok().and_then(Lookup::found);
        let now = self.host.clock.now();
        match found.map(|found| (self.judge(&found, now), found)) {
            Some((freshness @ Freshness::Fresh, found)) => Ok(Self::answer(found, freshness)),
            Some((freshness @ (Freshness::Early | Freshness::Stale), found)) => {
                self.refresh(&place, &found, compute, now);
                Ok(Self::answer(found, freshness))
            }
            Some((freshness @ Freshness::IfError, found)) => {
                if found.retry_at > now {
                    return Ok(Self::answer(found, freshness));
                }
                let cost = Some(found.entry.head.cost_millis);
                let refreshed = self.computed(&place, cost, compute, self.policy.soft_timeout_millis).await;
                refreshed.or_else(|_| Ok(Self::answer(found, freshness)))
            }
            Some((Freshness::Over, _)) | None => {
                self.computed(&place, None, compute, self.policy.hard_timeout_millis).await
            }
        }
    }

    fn judge(&self, found: &Found<V>, now: Timestamp) -> Freshness {
        match found.freshness(now) {
            Freshness::Fresh if refreshes_early(&found.entry.head, &self.policy, now, &self.host.random) => {
                Freshness::Early
            }
            freshness => freshness,
        }
    }

    fn answer(found: Found<V>, freshness: Freshness) -> Answer<V> {
        Answer { entry: found.entry, freshness, source: Source::Tier(found.tier) }
    }

    /// Computes in the background, unless somebody does, or a failure is too recent.
    fn refresh<F>(&self, place: &Place, found: &Found<V>, compute: Rc<F>, now: Timestamp)
    where
        F: AsyncFn() -> Result<Computed<V>, E> + 'static,
    {
        if found.retry_at <= now {
            self.join(place, Some(found.entry.head.cost_millis), compute, self.policy.lease_seconds);
        }
    }

    /// A value that is computed now, by whomever, within `patience_millis`.
    async fn computed<F>(
        &self,
        place: &Place,
        cost_before: Option<u64>,
        compute: Rc<F>,
        patience_millis: u64,
    ) -> Result<Answer<V>, Failure<E>>
    where
        F: AsyncFn() -> Result<Computed<V>, E> + 'static,
    {
        let deadline = self.host.clock.now().plus_millis(patience_millis);
        let (mut failures, mut failure) = (0, Failure::TimedOut);
        for _ in 0..FLIGHTS_MAX {
            let left = deadline.millis_since(self.host.clock.now());
            if left == 0 || failures >= FAILURES_MAX {
                break;
            }
            let ticket = self.join(place, cost_before, Rc::clone(&compute), None);
            let wait = if ticket.leads { left } else { left.min(self.policy.join_millis) };
            match ticket.wait(&self.host.clock, wait).await {
                // Whoever came after a purge must not get what was asked for before it.
                Some(Ok(entry)) if ticket.leads || !self.cache.tiers.is_known_gone(place, &entry) => {
                    let source = if ticket.leads { Source::Computed } else { Source::Joined };
                    return Ok(Answer { entry, freshness: Freshness::Fresh, source });
                }
                Some(Err(Some(error))) => {
                    failures += 1;
                    failure = Failure::Compute(error);
                }
                Some(Ok(_) | Err(None)) | None => {}
            }
        }
        Err(failure)
    }

    /// A place on the flight that computes what belongs at `place`.
    fn join<F>(
        &self,
        place: &Place,
        cost_before: Option<u64>,
        compute: Rc<F>,
        lease_seconds: Option<u64>,
    ) -> Ticket<Landed<V, E>, L>
    where
        F: AsyncFn() -> Result<Computed<V>, E> + 'static,
    {
        let work = || {
            let (cache, place) = (self.clone(), place.clone());
            async move {
                if !cache.may_refresh(&place, lease_seconds).await {
                    return Err(None);
                }
                cache.fill(&place, cost_before, compute).await.map_err(Some)
            }
        };
        let now = self.host.clock.now();
        self.flights.join(place.key.as_str(), now, self.policy.join_millis, &self.host.launcher, work)
    }

    /// Computes, and keeps what came: in memory at once, in KV when it gets there.
    async fn fill<F>(&self, place: &Place, cost_before: Option<u64>, compute: Rc<F>) -> Result<Rc<Entry<V>>, E>
    where
        F: AsyncFn() -> Result<Computed<V>, E>,
    {
        let began = self.host.clock.now();
        let asked = self.cache.tiers.tick(began);
        let computed = compute().await;
        let now = self.host.clock.now();
        let computed = computed.inspect_err(|_| {
            self.cache.tiers.postpone(place, now.plus_seconds(self.policy.retry_seconds));
        })?;
        let cost_millis = smoothed_cost_millis(cost_before, now.millis_since(began));
        let (entry, is_kept) = self.entry(computed, asked, now, cost_millis);
        let entry = Rc::new(entry);
        // What cannot be written is an answer all the same.
        if let (true, Ok(bytes)) = (is_kept, entry.encode()) {
            self.cache.tiers.remember(place, &entry, bytes.len(), now);
            let (tiers, place, entry) = (self.cache.tiers.clone(), place.clone(), Rc::clone(&entry));
            self.host.launcher.launch(async move {
                // A refused write is one that another isolate or location has just made; others are made up for by the
                // next miss.
                let _ = tiers.write(&place, &entry, &bytes).await;
            });
        }
        Ok(entry)
    }

    /// The entry of what was computed, and whether it is to be kept.
    fn entry(&self, computed: Computed<V>, asked: Timestamp, now: Timestamp, cost_millis: u64) -> (Entry<V>, bool) {
        let usual = if computed.value.is_none() { self.policy.negative } else { self.policy.life };
        let life = computed.life.unwrap_or(usual);
        let fresh_millis = jittered_millis(life.ttl_seconds, self.policy.jitter_permille, &self.host.random);
        let fresh_until = now.plus_millis(fresh_millis);
        let until = |seconds: u64| fresh_until.plus_seconds(seconds.min(SECONDS_MAX));
        let head = Head {
            value: label::<V>(),
            asked,
            born: now,
            fresh_until,
            stale_until: until(life.stale_while_revalidate_seconds),
            error_until: until(life.stale_if_error_seconds),
            cost_millis,
            tags: computed.tags,
            nothing: computed.value.is_none(),
        };
        (Entry { head, value: computed.value }, life != Life::default())
    }

    /// Whether this location may refresh: no other one has said that it does. The lease is taken.
    async fn may_refresh(&self, place: &Place, lease_seconds: Option<u64>) -> bool {
        let Some(seconds) = lease_seconds else { return true };
        let (store, key, now) = (self.cache.tiers.store(), place.lease_key(), self.host.clock.now());
        let held = store.get(&key, Read::FRESHEST).await.and_then(codec::decode_found::<Lease>);
        // A lease that cannot be read is none: it saves work, and nothing depends on it.
        if held.ok().flatten().is_some_and(|lease| now < lease.until) {
            return false;
        }
        if let Ok(bytes) = codec::encode(&Lease { until: now.plus_seconds(seconds) }) {
            let _ = store.put(&key, &bytes, Write::expiring_in(seconds)).await;
        }
        true
    }
}
