//! One key in several namespaces: written to all, read from the nearest, the newest, or a majority; repaired behind.
//!
//! # What several namespaces buy, and what not
//!
//! Not locality: a KV namespace is already served from the caches of every location, so a second one brings nothing
//! nearer. They buy independent failures and limits (one write a second per key *each*), and, where a namespace is
//! created in a jurisdiction, a place where the data rests. They cost one write per namespace and value.
//!
//! # Promise
//!
//! - Every value carries a [`Stamp`]. Of several copies the one with the greatest stamp wins, tombstones included.
//! - A write is blind and reports what each replica said. A write that reached enough replicas but not all leaves a
//!   *hint*, a key of its own that nothing overwrites, and [`Replicas::hand_off`] carries it to the others later.
//! - When writes stop, replicas become equal: repairs and hints only ever carry a value to a replica that showed an
//!   older one.
//! - A repair is made only for a value older than [`SETTLE_SECONDS`], because until then most differences are stale
//!   caches and not missing writes, and it looks at the replica again before it writes. KV has no compare-and-set, so a
//!   write that arrives within that look can be covered by the repair in *that* replica. It is still in the others or in
//!   its hint, from where it comes back; no acknowledged write is lost by that.
//! - Two writes that did not see each other: one of them wins, and not in every replica at once the same.
//! - A deleted key stays deleted as long as each replica takes the tombstone, a repair or a hint within
//!   [`TOMBSTONE_SECONDS`].
//!
//! # Cost
//!
//! Nearest read: one read while the nearest replica answers. Newest and quorum: one read per replica. Write and delete:
//! one write per replica, and one more for a hint. A repair: one read and one write.
//!
//! Sources: `DeCandia` et al., "Dynamo" (SOSP 2007) §4.6 on hinted handoff; Cassandra's documentation of read repair and
//! of tombstones' grace.

mod hint;
mod value;

use futures_util::future::{Either, join_all, select};
use thiserror::Error;

pub use hint::{HandOff, HandedOff};
pub use value::{Content, Value};

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::kv::{self, Corrupt, Key, KeySpace, Read, Store, Tenant, Write};
use crate::stamp::{Stamp, Stamps};

/// Age from which a difference between replicas counts as real, in seconds: fifteen times the minute in which KV usually
/// makes a write visible everywhere.
pub const SETTLE_SECONDS: u64 = 900;
/// How long a tombstone is kept, in seconds (30 days).
pub const TOMBSTONE_SECONDS: u64 = 30 * 86_400;
/// How long the nearest replica may take before the next one is asked too, in milliseconds.
pub const HEDGE_MILLIS: u64 = 250;

/// One namespace that holds a copy.
#[derive(Clone, Debug)]
pub struct Replica<S> {
    /// Its name, as replies show it.
    pub name: &'static str,
    /// The continents it is nearest to, as Cloudflare's two letters.
    pub continents: &'static [&'static str],
    /// Where it keeps its copies.
    pub store: S,
}

/// How many replicas must take a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// One.
    Any,
    /// More than half.
    Quorum,
    /// Every one.
    All,
}

impl WritePolicy {
    const fn needed(self, replicas: usize) -> usize {
        match self {
            Self::Any => 1,
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }
}

/// Which replicas a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPolicy {
    /// The nearest one; the others where it has nothing, fails, or is slow.
    Nearest,
    /// All; the newest value among those that answer.
    Newest,
    /// All; the newest value, if more than half answer.
    Quorum,
}

/// What became of a write in one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The replica.
    pub replica: &'static str,
    /// Why it did not take the value; nothing when it did.
    pub failure: Option<kv::Error>,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The stamp of the value.
    pub stamp: Stamp,
    /// One outcome per replica.
    pub outcomes: Vec<Outcome>,
    /// Whether it counts as done.
    pub verdict: Verdict,
}

/// Whether a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every replica has it.
    Everywhere,
    /// Enough replicas have it, and a hint will carry it to the others.
    Enough,
    /// Too few replicas have it, or its hint could not be left. It may be seen, and may be gone again.
    TooFew,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// The replica it came from.
    pub replica: &'static str,
}

/// Why a read or write was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Too few replicas answered.
    #[error("too few replicas answered: {0}")]
    TooFew(kv::Error),
    /// A copy is unreadable and no other replica had one to give.
    #[error("a stored copy is unreadable: {0}")]
    Corrupt(Corrupt),
}

/// The replicated keys of one tenant.
#[derive(Clone, Debug)]
pub struct Replicas<S, C> {
    members: Vec<Replica<S>>,
    clock: C,
    values: KeySpace,
    hints: KeySpace,
    /// In each replica, how far its hints were looked through.
    progress: Key,
}

/// What one replica said of one key.
struct Copy {
    index: usize,
    found: Result<Option<Value>, kv::Error>,
}

impl<S: Store + Clone + 'static, C: Clock + Clone + 'static> Replicas<S, C> {
    /// The keys of `tenant` in `replicas`, in the order in which they are asked when none is near.
    pub fn new(replicas: Vec<Replica<S>>, clock: C, tenant: &Tenant) -> Self {
        let [values, hints, progress] =
            ["replicated", "replicated-hint", "replicated-hand-off"].map(|resource| tenant.space(resource));
        Self { members: replicas, clock, values, hints, progress: progress.key(&["position"]) }
    }

    /// Writes `content` under `key` for `ttl_seconds`, or for ever, to every replica. One write each.
    pub async fn put(
        &self,
        key: &str,
        content: Content,
        ttl_seconds: Option<u64>,
        policy: WritePolicy,
        stamps: &Stamps,
    ) -> Written {
        let now = self.clock.now();
        let expires_at = ttl_seconds.map(|seconds| now.plus_seconds(seconds));
        self.write(key, &Value { stamp: stamps.next(now, None), expires_at, content: Some(content) }, policy).await
    }

    /// Writes a tombstone under `key` to every replica. One write each.
    pub async fn delete(&self, key: &str, policy: WritePolicy, stamps: &Stamps) -> Written {
        let now = self.clock.now();
        let expires_at = Some(now.plus_seconds(TOMBSTONE_SECONDS));
        self.write(key, &Value { stamp: stamps.next(now, None), expires_at, content: None }, policy).await
    }

    async fn write(&self, key: &str, value: &Value, policy: WritePolicy) -> Written {
        let results = join_all(self.members.iter().map(|replica| self.put_copy(replica, key, value))).await;
        let outcomes: Vec<Outcome> = self
            .members
            .iter()
            .zip(results)
            .map(|(replica, result)| Outcome { replica: replica.name, failure: result.err() })
            .collect();
        let taken = outcomes.iter().filter(|outcome| outcome.failure.is_none()).count();
        let verdict = if taken == self.members.len() {
            Verdict::Everywhere
        } else if taken >= policy.needed(self.members.len()) && self.leave_hint(key, value, &outcomes).await {
            Verdict::Enough
        } else {
            Verdict::TooFew
        };
        Written { stamp: value.stamp, outcomes, verdict }
    }

    async fn put_copy(&self, replica: &Replica<S>, key: &str, value: &Value) -> Result<(), kv::Error> {
        let now = self.clock.now();
        let left = value.expires_at.map(|expires_at| expires_at.millis_since(now).div_ceil(1000));
        let write = left.map_or_else(Write::default, Write::expiring_in);
        replica.store.put(&self.values.key(&[key]), &value.encode()?, write).await
    }

    /// The value of `key` for a reader on `continent`, or nothing. What looks like a missed write is repaired by
    /// `background`.
    ///
    /// # Errors
    ///
    /// Too few replicas answered, or there is only an unreadable copy.
    pub async fn get(
        &self,
        key: &str,
        policy: ReadPolicy,
        continent: Option<&str>,
        background: &impl Background,
    ) -> Result<Option<Found>, Error> {
        let order = self.by_nearness(continent);
        let copies = match policy {
            ReadPolicy::Nearest => self.nearest(key, &order).await,
            ReadPolicy::Newest | ReadPolicy::Quorum => join_all(order.iter().map(|index| self.copy(*index, key))).await,
        };
        let answered = copies.iter().filter(|copy| copy.found.is_ok()).count();
        let needed = if policy == ReadPolicy::Quorum { WritePolicy::Quorum.needed(self.members.len()) } else { 1 };
        if answered < needed {
            return Err(failure(copies));
        }
        let Some((index, newest)) = newest(&copies) else {
            // Nothing anywhere; an unreadable copy is not nothing.
            let corrupt = copies.iter().find(|copy| matches!(copy.found, Err(kv::Error::Corrupt(_))));
            return if corrupt.is_some() { Err(failure(copies)) } else { Ok(None) };
        };
        self.repair_later(key, &copies, &newest, background);
        let replica = self.members.get(index).map_or("", |replica| replica.name);
        let live = newest.is_live(self.clock.now());
        Ok(live.then_some(Found { value: newest, replica }))
    }

    /// The replicas' indices: those near `continent` first.
    fn by_nearness(&self, continent: Option<&str>) -> Vec<usize> {
        let near = |index: &usize| {
            let replica = self.members.get(*index);
            replica.is_some_and(|replica| continent.is_some_and(|continent| replica.continents.contains(&continent)))
        };
        let (near, far): (Vec<_>, Vec<_>) = (0..self.members.len()).partition(near);
        near.into_iter().chain(far).collect()
    }

    /// Asks one replica after the other until one has the key. One that is slow is not waited for alone.
    async fn nearest(&self, key: &str, order: &[usize]) -> Vec<Copy> {
        let mut copies = Vec::new();
        let mut rest = order.iter().copied();
        while let Some(index) = rest.next() {
            let first = Box::pin(self.copy(index, key));
            let copy = match select(first, Box::pin(self.clock.sleep(HEDGE_MILLIS))).await {
                Either::Left((copy, _)) => copy,
                Either::Right(((), slow)) => match rest.next() {
                    None => slow.await,
                    Some(next) => match select(slow, Box::pin(self.copy(next, key))).await {
                        Either::Left((copy, other)) | Either::Right((copy, other)) => {
                            if matches!(copy.found, Ok(Some(_))) {
                                copy
                            } else {
                                copies.push(copy);
                                other.await
                            }
                        }
                    },
                },
            };
            let found = matches!(copy.found, Ok(Some(_)));
            copies.push(copy);
            if found {
                break;
            }
        }
        copies
    }

    async fn copy(&self, index: usize, key: &str) -> Copy {
        let found = match self.members.get(index) {
            None => Ok(None),
            Some(replica) => read_copy(&replica.store, &self.values.key(&[key]), Read::default()).await,
        };
        Copy { index, found }
    }

    fn repair_later(&self, key: &str, copies: &[Copy], newest: &Value, background: &impl Background) {
        for index in to_repair(copies, newest, self.clock.now()) {
            if let Some(replica) = self.members.get(index).cloned() {
                let (replicas, key, value) = (self.clone(), key.to_owned(), newest.clone());
                background.spawn(async move {
                    // A repair that fails is made by the next reader.
                    let _ = replicas.bring_up(&replica, &key, &value).await;
                });
            }
        }
    }

    /// Carries `value` to `replica` if what that shows, asked again, is older.
    async fn bring_up(&self, replica: &Replica<S>, key: &str, value: &Value) -> Result<(), kv::Error> {
        match read_copy(&replica.store, &self.values.key(&[key]), Read::FRESHEST).await {
            Ok(Some(copy)) if copy.stamp >= value.stamp => Ok(()),
            Ok(_) | Err(kv::Error::Corrupt(Corrupt::Damaged | Corrupt::Foreign)) => {
                self.put_copy(replica, key, value).await
            }
            Err(error) => Err(error),
        }
    }
}

async fn read_copy<S: Store>(store: &S, key: &Key, read: Read) -> Result<Option<Value>, kv::Error> {
    store.get(key, read).await?.map(|bytes| Value::decode(&bytes)).transpose()
}

/// The copy with the greatest stamp, and which replica holds it; of equal ones the first asked.
fn newest(copies: &[Copy]) -> Option<(usize, Value)> {
    let mut newest: Option<(usize, &Value)> = None;
    for copy in copies {
        if let Ok(Some(value)) = &copy.found
            && newest.is_none_or(|(_, best)| value.stamp > best.stamp)
        {
            newest = Some((copy.index, value));
        }
    }
    newest.map(|(index, value)| (index, value.clone()))
}

/// The replicas that miss `newest`, once that is old enough for it to be more than a stale cache. What ended is left to
/// end, tombstones whose time is over included.
fn to_repair(copies: &[Copy], newest: &Value, now: Timestamp) -> Vec<usize> {
    let settled = newest.stamp.at().plus_seconds(SETTLE_SECONDS) <= now;
    let ended = newest.expires_at.is_some_and(|expires_at| expires_at <= now);
    if !settled || ended {
        return Vec::new();
    }
    let behind = |copy: &&Copy| match &copy.found {
        Ok(found) => found.as_ref().is_none_or(|value| value.stamp < newest.stamp),
        Err(kv::Error::Corrupt(why)) => *why != Corrupt::Newer,
        Err(_) => false,
    };
    copies.iter().filter(behind).map(|copy| copy.index).collect()
}

/// Why a read cannot be answered: a corrupt copy where there is one, because waiting does not help against that.
fn failure(copies: Vec<Copy>) -> Error {
    let mut failures: Vec<_> = copies.into_iter().filter_map(|copy| copy.found.err()).collect();
    failures.sort_by_key(|error| !matches!(error, kv::Error::Corrupt(_)));
    match failures.into_iter().next() {
        Some(kv::Error::Corrupt(why)) => Error::Corrupt(why),
        Some(error) => Error::TooFew(error),
        None => Error::TooFew(kv::Error::Unavailable("no replica".to_owned())),
    }
}
