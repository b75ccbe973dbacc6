//! Counters: approximate ones that cost a request nothing, and exact ones on a Durable Object.
//!
//! # Approximate ([`Counters`])
//!
//! Every isolate gathers its increments in memory and writes them, at most once a second, as a running total under a
//! key of its own (a *shard*); the total is one list, because the running totals stand in the keys' metadata. One
//! writer per key and no read-modify-write, so no update is lost, except:
//!
//! - what an isolate gathered since its last write when it dies: about a second's increments ([`LOSS_SECONDS`]);
//! - after an outage of KV longer than ten minutes past the hour, the write that was under way when it began.
//!
//! The store given should not retry by itself: a write that was given up may land after a newer one, and only who
//! knows of the failure can make that harmless.
//!
//! Only what an isolate holds unwritten is kept from overflowing: an increment beyond ±[`VALUE_MAX`] there is refused. No
//! writer knows the total, so that is not checked; a reading is brought into the same range.
//!
//! A reading lags by the unwritten second and by what KV's lists lag ([`LAG_SECONDS`], as documented; "or more").
//!
//! A shard belongs to one hour and is never written after it (and ten minutes' grace), so a finished hour can be
//! folded into one record by the scheduled handler ([`fold`]).
//!
//! A reset is a moment, with a key of its own: shards begun before it do not count. Writers look for resets by list,
//! in the background, with what they write and at most once per half minute, so one elsewhere may hear of it a minute or
//! more late. It then moves what it counted since the reset into a new shard: those increments come into sight late but
//! are not lost, unless that isolate dies, or counts nothing more, before it hears. An increment and a reset within the
//! difference of two locations' clocks, and the second in which increments are gathered, may be taken in either order.
//!
//! Cost: increment 0 KV operations on the request path (in the background at most 1 write per second and 1 list per
//! half minute per active counter); read 1 list per 1000 shards; reset 1 write.
//! Sources: PN-counters, Shapiro et al., "A comprehensive study of convergent and commutative replicated data types"
//! (INRIA RR-7506, 2011), of which one signed total per writer is the form that suffices when a key has one writer;
//! finished windows: Netflix, "Netflix's Distributed Counter Abstraction" (2024).
//!
//! # Exact ([`exact`])
//!
//! One object per counter decides; a KV snapshot, at most one second old when the object lives, serves cheap reads.

pub mod exact;
pub mod fold;
mod gather;
mod total;

pub use gather::{Gather, Refused};
pub use total::{Listed, ListedPage};

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::kv::codec::{self, Record};
use crate::kv::{self, Key, KeySpace, KeyTooLong, PageRequest, Prefix, Store, Tenant, Write, unescape};
use crate::random::{Random, unique_name};
use gather::{Next, ShardWrite};
use total::Tally;

/// Largest value and delta, and the negation of the smallest: 2^53 - 1, what a JSON number keeps in every language
/// (RFC 8259 §6).
pub const VALUE_MAX: i64 = (1 << 53) - 1;

/// How long an increment may stay invisible: the second it is gathered, a second to write, and the 60 seconds KV
/// documents for lists (the platform says "or more").
/// Source: <https://developers.cloudflare.com/kv/api/list-keys/>
pub const LAG_SECONDS: u64 = 62;

/// The increments an isolate that dies may take with it: those of so many seconds.
pub const LOSS_SECONDS: u64 = 1;

/// One hour: how long a shard is written.
const BUCKET_SECONDS: u64 = 3600;

/// How long after its hour a shard whose write failed may be tried again, in seconds.
const GRACE_SECONDS: u64 = 600;

/// Pages of a list one reading may take; each holds 1000 shards.
const PAGES_MAX: usize = 50;

/// Waits before the attempts of one flush, in milliseconds; the platform ends background work after 30 seconds.
const ATTEMPT_WAITS_MILLIS: [u64; 4] = [0, 1000, 2000, 4000];

/// The hour a moment belongs to.
fn bucket_of(now: Timestamp) -> u64 {
    now.seconds() / BUCKET_SECONDS
}

/// What a counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The value, kept within ±[`VALUE_MAX`].
    pub value: i64,
    /// When it was put together.
    pub as_of: Timestamp,
    /// Increments made this long before [`Reading::as_of`] are in it, in seconds.
    pub max_lag_seconds: u64,
}

/// The approximate counters of one tenant.
#[derive(Clone, Debug)]
pub struct Counters<S, C, R> {
    store: S,
    clock: C,
    random: R,
    tenant: Tenant,
    gather: Gather,
}

impl<S: Store, C: Clock, R: Random> Counters<S, C, R> {
    /// The counters of `tenant` in `store`; `gather` is what this isolate has not written yet.
    pub const fn new(store: S, clock: C, random: R, tenant: Tenant, gather: Gather) -> Self {
        Self { store, clock, random, tenant, gather }
    }

    /// Adds `delta` to the counter `name`. No KV operation; the write happens in `background`.
    ///
    /// # Errors
    ///
    /// [`Refused::OutOfRange`]: `delta`, or all that this isolate holds unwritten, is beyond ±[`VALUE_MAX`];
    /// [`Refused::Busy`]: this isolate holds as many unwritten counters as it may.
    pub fn add(&self, name: &str, delta: i64, background: &impl Background) -> Result<(), Refused>
    where
        S: Clone + 'static,
        C: Clone + 'static,
        R: Clone + 'static,
    {
        let Some(wait_millis) = self.gather.add(&self.tenant, name, delta, self.clock.now())? else { return Ok(()) };
        let (counters, name) = (self.clone(), Rc::<str>::from(name));
        background.spawn(async move {
            counters.clock.sleep(wait_millis).await;
            counters.flush(&name).await;
            // What an earlier background task left behind when it was cut off.
            for (tenant, name) in counters.gather.overdue(counters.clock.now()) {
                Self { tenant, ..counters.clone() }.flush(&name).await;
            }
        });
        Ok(())
    }

    /// Writes what this isolate holds of the counter `name`, trying a bounded number of times.
    async fn flush(&self, name: &str) {
        for wait_millis in ATTEMPT_WAITS_MILLIS {
            if wait_millis > 0 {
                self.clock.sleep(wait_millis).await;
            }
            self.hear_of_reset(name).await;
            if self.write_shards(name).await.is_ok() {
                return;
            }
        }
    }

    async fn write_shards(&self, name: &str) -> Result<(), kv::Error> {
        let id = id(&self.tenant, name);
        for _ in 0..ATTEMPT_WAITS_MILLIS.len() {
            match self.gather.next(&id, self.clock.now(), || unique_name(&self.random)) {
                Next::Done => return Ok(()),
                Next::Wait(millis) => self.clock.sleep(millis).await,
                Next::Write(write) => {
                    let outcome = self.put_shard(name, &write).await;
                    self.gather.written(&id, &write, &outcome, self.clock.now());
                    outcome?;
                }
            }
        }
        Ok(())
    }

    async fn put_shard(&self, name: &str, write: &ShardWrite) -> Result<(), kv::Error> {
        let bucket = write.bucket.to_string();
        let key = space(&self.tenant).key(&[name, SHARDS, &bucket, &write.shard]);
        let shard = Shard { value: write.value, since: write.since, name: long_name(&key, name) };
        put(&self.store, &key, &shard).await
    }

    /// Learns of a reset made elsewhere; a failed list is tried again with the next flush.
    async fn hear_of_reset(&self, name: &str) {
        let id = id(&self.tenant, name);
        if !self.gather.wants_reset(&id, self.clock.now()) {
            return;
        }
        let Ok(prefix) = space(&self.tenant).below(&[name, RESET]) else { return };
        // One page is enough: the scheduled handler removes old resets.
        if let Ok(page) = self.store.list(&prefix, &PageRequest::default()).await {
            let moments = page.keys.iter().filter_map(|key| prefix.rest(&key.name)?.parse().ok());
            self.gather.heard(&id, moments.max().map(Timestamp::from_millis), self.clock.now());
        }
    }

    /// The counter's value. One list per 1000 shards; this isolate's own unwritten increments are in it.
    ///
    /// # Errors
    ///
    /// KV's own; [`kv::Error::Corrupt`] when a shard is unreadable; [`kv::Error::Invalid`] for more shards than one
    /// reading may list.
    pub async fn read(&self, name: &str) -> Result<Reading, kv::Error> {
        let own = self.gather.own(&id(&self.tenant, name));
        let mut tally = Tally::new(name, own);
        let prefix = below(&self.tenant, name)?;
        let mut request = PageRequest::default();
        for _ in 0..PAGES_MAX {
            let page = self.store.list(&prefix, &request).await?;
            for key in &page.keys {
                if let Some(rest) = prefix.rest(&key.name) {
                    tally.take(rest, key.metadata.as_deref())?;
                }
            }
            let Some(cursor) = page.cursor else {
                let as_of = self.clock.now();
                return Ok(Reading { value: tally.value(), as_of, max_lag_seconds: LAG_SECONDS });
            };
            request = request.after(cursor);
        }
        Err(kv::Error::Invalid("the counter has more shards than one reading may list".to_owned()))
    }

    /// Sets the counter to zero, and forgets what this isolate gathered for it. One write.
    ///
    /// # Errors
    ///
    /// KV's own. After [`kv::Error::Unavailable`] the reset may have happened.
    pub async fn reset(&self, name: &str) -> Result<(), kv::Error> {
        // A millisecond ahead, because increments of this very millisecond came before.
        let at = self.clock.now().plus_millis(1);
        let key = space(&self.tenant).key(&[name, RESET, &at.millis().to_string()]);
        let reset = Reset { name: long_name(&key, name) };
        put(&self.store, &key, &reset).await?;
        self.gather.reset(&self.tenant, name, at);
        Ok(())
    }

    /// A page of the tenant's counters whose names start with `start`, in the order of their keys; `cursor` is what
    /// the page before gave. One list per 1000 shards looked at, at most ten.
    ///
    /// # Errors
    ///
    /// KV's own; [`kv::Error::Corrupt`] when a shard is unreadable; [`kv::Error::Invalid`] for a foreign `cursor`.
    pub async fn list(&self, start: &str, limit: u32, cursor: Option<&str>) -> Result<ListedPage, kv::Error> {
        total::list(&self.store, &space(&self.tenant).all(), start, limit, cursor).await
    }
}

/// The segment below a counter's name that its shards share. It sorts after [`FOLD`] and [`RESET`], so whoever lists
/// knows both before the first shard comes.
const SHARDS: &str = "s";
/// The segment of the record that finished hours were folded into.
const FOLD: &str = "fold";
/// The segment below which a key stands for each moment at which the counter was reset, in milliseconds.
const RESET: &str = "reset";

fn space(tenant: &Tenant) -> KeySpace {
    tenant.space("counter")
}

/// What names a counter in memory, injectively over tenants and names.
fn id(tenant: &Tenant, name: &str) -> Key {
    space(tenant).key(&[name])
}

fn below(tenant: &Tenant, name: &str) -> Result<Prefix, kv::Error> {
    space(tenant).below(&[name]).map_err(|KeyTooLong| kv::Error::Invalid("the counter's name is too long".to_owned()))
}

/// The name, if the key hides it behind a hash; lists need it then.
fn long_name(key: &Key, name: &str) -> Option<String> {
    let hidden = !key.as_str().split('/').any(|segment| unescape(segment).is_some_and(|plain| plain == name));
    hidden.then(|| name.to_owned())
}

/// Writes `record` as the value (for people and repair) and as the metadata (for lists).
async fn put<T: Record>(store: &impl Store, key: &Key, record: &T) -> Result<(), kv::Error> {
    let metadata = serde_json::to_string(record).map_err(|error| kv::Error::Invalid(error.to_string()))?;
    store.put(key, &codec::encode(record)?, Write::default().with_metadata(metadata)).await
}

/// One writer's running total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shard {
    value: i64,
    /// The first increment in it.
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Record for Shard {
    const KIND: &'static str = "counter-shard";
    const VERSION: u32 = 1;
}

/// Finished hours, added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fold {
    /// As text, because a sum may leave the range in which the platform's JSON is exact.
    #[serde(with = "decimal")]
    value: i128,
    /// The last hour in it; shards of it and of earlier ones no longer count.
    through: u64,
    /// The reset it has taken into account; a later one makes its value zero.
    reset: Timestamp,
    /// When it was written.
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Record for Fold {
    const KIND: &'static str = "counter-fold";
    const VERSION: u32 = 1;
}

/// The counter was set to zero; the key says when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reset {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Record for Reset {
    const KIND: &'static str = "counter-reset";
    const VERSION: u32 = 1;
}

/// A whole number as decimal text.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
