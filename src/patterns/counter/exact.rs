//! The exact counter, decided: what one object per counter answers, keeps and does, as a pure function.
//!
//! - Linearizable: the object is one place and decides one request at a time.
//! - An increment with an idempotency key counts once in [`KEY_SECONDS`]; the same key with another delta is refused.
//!   At most [`KEYS_MAX`] keys are remembered; beyond it keyed increments are refused rather than forgotten early.
//! - A sum beyond ±[`VALUE_MAX`] is refused and changes nothing.
//! - A reset keeps the keys: an increment of before it, sent again, gets its old answer and does not count.
//! - A snapshot goes to KV at most once a second, by alarm, so it survives the object's eviction.
//! - Lists show what has a snapshot: every counter something was added to, also at zero, until it is reset.
//! - The object forgets itself, and its snapshot goes, after an hour or more with neither a value nor keys: an empty one
//!   answers the same.
//!
//! Cost: 1 object call; reading the snapshot 1 KV read.
//! Source of the key's rules: draft-ietf-httpapi-idempotency-key-header-07.

use serde::{Deserialize, Serialize};

use super::{LAG_SECONDS, Reading, VALUE_MAX, total};
use crate::clock::Timestamp;
use crate::kv::codec::{self, Record};
use crate::kv::{Error, Key, Read, Store, Tenant, Write};

/// How long an idempotency key is remembered, in seconds.
pub const KEY_SECONDS: u64 = 86_400;

/// Idempotency keys remembered at once.
pub const KEYS_MAX: u32 = 200_000;

/// Least time between two snapshots, in milliseconds.
const SNAPSHOT_MILLIS: u64 = 1000;

/// Least time between two clean-ups of old keys, in milliseconds.
const PURGE_MILLIS: u64 = 3_600_000;

/// What the object keeps, besides the keys it remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The value.
    pub value: i64,
    /// Whether anything was added since the last reset.
    #[serde(default)]
    pub is_used: bool,
    /// Idempotency keys remembered.
    pub keys: u32,
    /// Whether the snapshot in KV is behind.
    pub is_snapshot_due: bool,
    /// When the last snapshot was written.
    pub snapshot_at: Timestamp,
    /// When old keys were last cleaned up.
    pub purged_at: Timestamp,
}

impl State {
    /// What the snapshot has to say; nothing when there has to be none.
    pub fn listed(&self) -> Option<i64> {
        // Those stored before `is_used` was do not have it.
        (self.is_used || self.value != 0).then_some(self.value)
    }

    /// At zero, and as if nothing had been added; the keys stay.
    #[must_use]
    pub fn reset(&self) -> Self {
        self.set(0, false)
    }

    /// With this value, and the snapshot due if it is another than what that says.
    fn set(&self, value: i64, is_used: bool) -> Self {
        let next = Self { value, is_used, ..self.clone() };
        Self { is_snapshot_due: self.is_snapshot_due || next.listed() != self.listed(), ..next }
    }
}

/// What is asked of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Add to the value.
    Add {
        /// Within ±[`VALUE_MAX`].
        delta: i64,
        /// A hash of the idempotency key, so that its length is bounded.
        key: Option<String>,
    },
    /// Tell the value.
    Read,
    /// Set the value to zero.
    Reset,
}

/// What the object remembers of a keyed increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What was added.
    pub delta: i64,
    /// What was answered.
    pub value: i64,
    /// When.
    pub at: Timestamp,
}

/// What the object answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The value; after an increment, the value with it.
    Value {
        /// The value.
        value: i64,
    },
    /// The sum would be beyond ±[`VALUE_MAX`]; nothing changed.
    OutOfRange,
    /// The idempotency key was used with another delta; nothing changed.
    KeyReused,
    /// The object remembers as many keys as it may; nothing changed.
    TooManyKeys,
}

/// What follows from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To be stored, if it differs, before the answer leaves.
    pub state: State,
    /// The answer.
    pub answer: Answer,
    /// To be remembered under the request's key, together with the state.
    pub remember: Option<Seen>,
}

/// Decides a request; `seen` is what is remembered under its key.
pub fn decide(state: &State, seen: Option<Seen>, request: &Request, now: Timestamp) -> Decision {
    let unchanged = |answer| Decision { state: state.clone(), answer, remember: None };
    match request {
        Request::Read => unchanged(Answer::Value { value: state.value }),
        Request::Reset => Decision { state: state.reset(), answer: Answer::Value { value: 0 }, remember: None },
        Request::Add { delta, key } => {
            let fresh = seen.filter(|seen| !is_old(seen.at, now));
            if let Some(seen) = fresh.filter(|_| key.is_some()) {
                let is_same = seen.delta == *delta;
                return unchanged(if is_same { Answer::Value { value: seen.value } } else { Answer::KeyReused });
            }
            let sum = state.value.checked_add(*delta).filter(|sum| sum.abs() <= VALUE_MAX);
            let Some(value) = sum.filter(|_| delta.checked_abs().is_some_and(|size| size <= VALUE_MAX)) else {
                return unchanged(Answer::OutOfRange);
            };
            let mut next = state.set(value, true);
            if key.is_none() {
                return Decision { state: next, answer: Answer::Value { value }, remember: None };
            }
            if seen.is_none() {
                // An old record under the key is replaced, a new one is one more.
                if state.keys >= KEYS_MAX {
                    return unchanged(Answer::TooManyKeys);
                }
                next.keys += 1;
            }
            let remember = Some(Seen { delta: *delta, value, at: now });
            Decision { state: next, answer: Answer::Value { value }, remember }
        }
    }
}

fn is_old(at: Timestamp, now: Timestamp) -> bool {
    now >= at.plus_seconds(KEY_SECONDS)
}

/// What the alarm has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chores {
    /// Nobody used it for long: [`State::reset`] it, so that the snapshot goes before the rest does.
    pub unlist: bool,
    /// Forget keys remembered at or before this moment.
    pub purge: Option<Timestamp>,
    /// Forget everything: nothing is kept that an empty object would not answer.
    pub forget: bool,
}

/// What is due at `now`.
pub fn chores(state: &State, now: Timestamp) -> Chores {
    let is_purge_due = state.keys > 0 && now >= state.purged_at.plus_millis(PURGE_MILLIS);
    let purge = is_purge_due.then(|| Timestamp::from_millis(now.millis().saturating_sub(KEY_SECONDS * 1000)));
    let is_idle = state.value == 0 && state.keys == 0 && !state.is_snapshot_due;
    Chores { unlist: is_idle && state.is_used, purge, forget: is_idle && !state.is_used }
}

/// When the alarm must go off next; nothing when there is nothing to do.
pub fn next_alarm(state: &State, now: Timestamp) -> Option<Timestamp> {
    let snapshot = state.is_snapshot_due.then(|| now.max(state.snapshot_at.plus_millis(SNAPSHOT_MILLIS)));
    let purge = (state.keys > 0).then(|| now.max(state.purged_at.plus_millis(PURGE_MILLIS)));
    let forget = (state.value == 0 && state.keys == 0).then(|| now.plus_millis(PURGE_MILLIS));
    [snapshot, purge, forget].into_iter().flatten().min()
}

/// The snapshot in KV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Snapshot {
    value: i64,
    at: Timestamp,
    name: String,
}

impl Record for Snapshot {
    const KIND: &'static str = "counter-snapshot";
    const VERSION: u32 = 1;
}

/// The snapshot's key. Only the object writes it.
fn snapshot_key(tenant: &Tenant, name: &str) -> Key {
    tenant.space("counter-exact").key(&[name])
}

/// The name of the object that owns the counter.
pub fn object_name(tenant: &Tenant, name: &str) -> String {
    snapshot_key(tenant, name).as_str().to_owned()
}

/// Writes the snapshot. One write.
///
/// # Errors
///
/// KV's own.
pub async fn write_snapshot(
    store: &impl Store,
    tenant: &Tenant,
    name: &str,
    value: i64,
    at: Timestamp,
) -> Result<(), Error> {
    let record = Snapshot { value, at, name: name.to_owned() };
    let metadata = serde_json::to_string(&record).map_err(|error| Error::Invalid(error.to_string()))?;
    let write = Write::default().with_metadata(metadata);
    store.put(&snapshot_key(tenant, name), &codec::encode(&record)?, write).await
}

/// Removes the snapshot of a counter that forgot itself. One delete.
///
/// # Errors
///
/// KV's own.
pub async fn delete_snapshot(store: &impl Store, tenant: &Tenant, name: &str) -> Result<(), Error> {
    store.delete(&snapshot_key(tenant, name)).await
}

/// The value as the last snapshot has it; nothing when none is in sight. One read.
///
/// # Errors
///
/// KV's own; [`Error::Corrupt`] when it is unreadable.
pub async fn read_snapshot(store: &impl Store, tenant: &Tenant, name: &str) -> Result<Option<Reading>, Error> {
    let found = store.get(&snapshot_key(tenant, name), Read::FRESHEST).await?;
    let snapshot = codec::decode_found::<Snapshot>(found)?;
    Ok(snapshot.map(|snapshot| Reading {
        value: total::clamp(i128::from(snapshot.value)),
        as_of: snapshot.at,
        max_lag_seconds: LAG_SECONDS,
    }))
}

/// A page of the tenant's exact counters, from their snapshots. One list.
///
/// # Errors
///
/// KV's own.
pub async fn list(
    store: &impl Store,
    tenant: &Tenant,
    start: &str,
    limit: u32,
    cursor: Option<String>,
) -> Result<super::ListedPage, Error> {
    let request = crate::kv::PageRequest { cursor, ..crate::kv::PageRequest::first(limit) };
    let page = store.list(&tenant.space("counter-exact").all(), &request).await?;
    let records =
        page.keys.iter().filter_map(|key| serde_json::from_slice::<Snapshot>(key.metadata.as_deref()?.as_bytes()).ok());
    let named = records.filter(|record| record.name.starts_with(start));
    let items = named.map(|record| super::Listed { name: record.name, value: record.value }).collect();
    Ok(super::ListedPage { items, cursor: page.cursor })
}
