//! The approximate limit: each isolate counts for itself, publishes what it admitted, and learns what others did.
//!
//! One key per writer, policy and identifier, with the admitted units of each sixtieth of the window in its metadata,
//! written at most once a second; others' keys are listed at most every ten seconds, both in the background. So a check
//! costs the request no KV operation.
//!
//! **Overshoot.** Writers do not know of each other for about [`LEARN_SECONDS`]. Above the limit at most what arrives in
//! that time is admitted, and never more than the limit per isolate that sees the identifier. The first check
//! of an isolate knows nothing of the others. Windows shorter than four such times are refused
//! ([`super::policy::APPROXIMATE_WINDOW_SECONDS_MIN`]).
//!
//! A write that KV gave up and that lands late hides what its writer admitted since, until it admits again.
//!
//! Never the other way round: no unit is counted twice, so nobody under the limit is denied (but for the sixtieth of a
//! window at its edges). The memory is bounded; an identifier pushed out of it starts anew in that isolate, its
//! published units being known from the list.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::algorithm::{Algorithm, Slots, Usage};
use super::{Decision, Policy};
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::kv::codec::{self, Record};
use crate::kv::limits::SAME_KEY_WRITE_MILLIS;
use crate::kv::{Corrupt, Error, Key, PageRequest, Prefix, Store, Tenant, Write};
use crate::random::{Random, unique_name};

/// How long a writer's units may be unknown to another, in seconds: written within 2, listed within 60 (as KV
/// documents, "or more"), asked for every 10.
pub const LEARN_SECONDS: u64 = 72;

/// How often others' units are asked for, in milliseconds.
const LEARN_MILLIS: u64 = 10_000;
/// Identifiers one isolate counts at once.
const IDENTIFIERS_MAX: usize = 2000;
/// How long a scheduled publication may be overdue before it is taken for dead, in milliseconds.
const PUBLISH_LOST_MILLIS: u64 = 10_000;

/// What one isolate counts. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Counts(Rc<RefCell<BTreeMap<Key, Count>>>);

/// What is known of one policy and identifier.
#[derive(Debug)]
struct Count {
    /// The name of this isolate's key.
    writer: String,
    policy: Policy,
    own: Slots,
    others: Slots,
    is_published: bool,
    /// When the publication began that is under way; two at once could land in the wrong order.
    publishing_since: Option<Timestamp>,
    published_at: Option<Timestamp>,
    learned_at: Option<Timestamp>,
    /// When the scheduled publication is to run.
    scheduled_at: Option<Timestamp>,
    used_at: Timestamp,
}

/// What one writer admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Published {
    window_seconds: u64,
    slots: Slots,
}

impl Record for Published {
    const KIND: &'static str = "rate-limit-share";
    const VERSION: u32 = 1;
}

/// The approximate limits of one tenant.
#[derive(Clone, Debug)]
pub struct Approximate<S, C, R> {
    store: S,
    clock: C,
    random: R,
    tenant: Tenant,
    counts: Counts,
}

impl<S, C, R> Approximate<S, C, R>
where
    S: Store + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
{
    /// The limits of `tenant` in `store`; `counts` is this isolate's memory.
    pub const fn new(store: S, clock: C, random: R, tenant: Tenant, counts: Counts) -> Self {
        Self { store, clock, random, tenant, counts }
    }

    /// Decides about `cost` units of `identifier` (normalised) under the policy `name`. No KV operation; publishing and
    /// learning happen in `background`.
    pub fn check(
        &self,
        (name, policy): (&str, &Policy),
        identifier: &str,
        cost: u64,
        peek: bool,
        background: &impl Background,
    ) -> Decision {
        let now = self.clock.now();
        let id = self.tenant.space("rate-limit-share").key(&[name, identifier]);
        let (decision, due) = self.counts.check(&id, policy, cost, peek, now, || unique_name(&self.random));
        if let Some(wait_millis) = due {
            let (limits, name, identifier) = (self.clone(), name.to_owned(), identifier.to_owned());
            background.spawn(async move {
                limits.clock.sleep(wait_millis).await;
                limits.exchange(&id, &name, &identifier).await;
            });
        }
        decision
    }

    /// Publishes what was admitted here, and learns what was admitted elsewhere. What fails is tried with the next
    /// check.
    async fn exchange(&self, id: &Key, name: &str, identifier: &str) {
        let space = self.tenant.space("rate-limit-share");
        if let Some((writer, published)) = self.counts.to_publish(id, self.clock.now()) {
            let key = space.key(&[name, identifier, &writer]);
            let outcome = put(&self.store, &key, &published).await;
            self.counts.published(id, &published, outcome.is_ok(), self.clock.now());
        }
        if self.counts.wants_to_learn(id, self.clock.now())
            && let Ok(prefix) = space.below(&[name, identifier])
            && let Ok(others) = learn(&self.store, &prefix, |writer| self.counts.is_writer(id, writer)).await
        {
            self.counts.learned(id, &others);
        }
    }
}

async fn put(store: &impl Store, key: &Key, published: &Published) -> Result<(), Error> {
    let metadata = serde_json::to_string(published).map_err(|error| Error::Invalid(error.to_string()))?;
    let write = Write::expiring_in(published.window_seconds.saturating_mul(2)).with_metadata(metadata);
    store.put(key, &codec::encode(published)?, write).await
}

/// What the other writers published.
async fn learn(store: &impl Store, prefix: &Prefix, is_own: impl Fn(&str) -> bool) -> Result<Vec<Published>, Error> {
    let (mut others, mut request) = (Vec::new(), PageRequest::default());
    loop {
        let page = store.list(prefix, &request).await?;
        for key in &page.keys {
            if prefix.rest(&key.name).is_some_and(|writer| !is_own(writer)) {
                let published = key.metadata.as_deref().and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
                others.push(published.ok_or(Error::Corrupt(Corrupt::Damaged))?);
            }
        }
        match page.cursor {
            // A thousand writers for one identifier are enough to know that it is over its limit.
            Some(cursor) if others.len() < 1000 => request = request.after(cursor),
            _ => return Ok(others),
        }
    }
}

impl Counts {
    /// Decides; answers in how many milliseconds an exchange must run, if none is scheduled.
    fn check(
        &self,
        id: &Key,
        policy: &Policy,
        cost: u64,
        peek: bool,
        now: Timestamp,
        new_writer: impl FnOnce() -> String,
    ) -> (Decision, Option<u64>) {
        let mut all = self.0.borrow_mut();
        make_room(&mut all, id);
        let count = all.entry(id.clone()).or_insert_with(|| Count::new(new_writer(), policy.clone(), now));
        count.adopt(policy);
        count.used_at = now;
        let window_millis = policy.window_millis();
        count.own.expire(now, window_millis);
        let mut slots = count.own.clone();
        slots.merge(&count.others);
        slots.expire(now, window_millis);
        let usage = match policy.algorithm {
            Algorithm::TokenBucket => slots.as_bucket(policy),
            Algorithm::FixedWindow => slots.as_fixed(policy, now),
            Algorithm::SlidingWindow => Usage::SlidingWindow { slots },
        };
        let (_, decision) = usage.check(policy, cost, peek, now);
        if decision.allowed && !peek && cost > 0 {
            count.own.add(cost, now, window_millis);
            count.is_published = false;
        }
        (decision, count.schedule(now))
    }

    fn to_publish(&self, id: &Key, now: Timestamp) -> Option<(String, Published)> {
        let mut all = self.0.borrow_mut();
        let count = all.get_mut(id)?;
        count.scheduled_at = None;
        let is_free = count.published_at.is_none_or(|at| now >= at.plus_millis(SAME_KEY_WRITE_MILLIS));
        let is_busy = count.publishing_since.is_some_and(|since| now < since.plus_millis(PUBLISH_LOST_MILLIS));
        if count.is_published || !is_free || is_busy {
            return None;
        }
        (count.published_at, count.publishing_since) = (Some(now), Some(now));
        let published = Published { window_seconds: count.policy.window_seconds, slots: count.own.clone() };
        Some((count.writer.clone(), published))
    }

    fn published(&self, id: &Key, published: &Published, was_stored: bool, now: Timestamp) {
        if let Some(count) = self.0.borrow_mut().get_mut(id) {
            (count.published_at, count.publishing_since) = (Some(now), None);
            count.is_published = was_stored && count.own == published.slots;
        }
    }

    fn wants_to_learn(&self, id: &Key, now: Timestamp) -> bool {
        self.0.borrow_mut().get_mut(id).is_some_and(|count| {
            let is_time = count.learned_at.is_none_or(|at| now >= at.plus_millis(LEARN_MILLIS));
            if is_time {
                count.learned_at = Some(now);
            }
            is_time
        })
    }

    fn learned(&self, id: &Key, others: &[Published]) {
        if let Some(count) = self.0.borrow_mut().get_mut(id) {
            count.others = Slots::default();
            for other in others.iter().filter(|other| other.window_seconds == count.policy.window_seconds) {
                count.others.merge(&other.slots);
            }
        }
    }

    fn is_writer(&self, id: &Key, writer: &str) -> bool {
        self.0.borrow().get(id).is_some_and(|count| count.writer == writer)
    }
}

/// Drops the identifier that was idle longest when there are too many.
fn make_room(all: &mut BTreeMap<Key, Count>, id: &Key) {
    if all.len() >= IDENTIFIERS_MAX
        && !all.contains_key(id)
        && let Some(idlest) = all.iter().min_by_key(|(_, count)| count.used_at).map(|(id, _)| id.clone())
    {
        all.remove(&idlest);
    }
}

impl Count {
    fn new(writer: String, policy: Policy, now: Timestamp) -> Self {
        Self {
            writer,
            policy,
            own: Slots::default(),
            others: Slots::default(),
            is_published: true,
            publishing_since: None,
            published_at: None,
            learned_at: None,
            scheduled_at: None,
            used_at: now,
        }
    }

    /// Goes by the newest policy; slots belong to a window, so another window starts anew.
    fn adopt(&mut self, policy: &Policy) {
        if policy.window_seconds != self.policy.window_seconds {
            (self.own, self.others) = (Slots::default(), Slots::default());
        }
        self.policy = policy.clone();
    }

    fn schedule(&mut self, now: Timestamp) -> Option<u64> {
        let is_time_to_learn = self.learned_at.is_none_or(|at| now >= at.plus_millis(LEARN_MILLIS));
        let is_scheduled = self.scheduled_at.is_some_and(|at| now < at.plus_millis(PUBLISH_LOST_MILLIS));
        if is_scheduled || (self.is_published && !is_time_to_learn) {
            return None;
        }
        let free_at = self.published_at.map_or(now, |at| at.plus_millis(SAME_KEY_WRITE_MILLIS));
        let at = if self.is_published { now } else { now.max(free_at) };
        self.scheduled_at = Some(at);
        Some(at.millis_since(now))
    }
}
