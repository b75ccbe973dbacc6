//! What one isolate has counted and not yet written: increments, its current shard, and enough of the past to split
//! it at a reset heard of late. Plain memory, shared by the requests of an isolate; bounded in number of counters.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use thiserror::Error;

use super::{BUCKET_SECONDS, GRACE_SECONDS, VALUE_MAX, bucket_of, id};
use crate::clock::Timestamp;
use crate::kv::limits::SAME_KEY_WRITE_MILLIS;
use crate::kv::{Error, Key, Tenant};

/// Counters one isolate keeps at once. One that is wholly written makes room for a new one.
const COUNTERS_MAX: usize = 1000;
/// Flushes remembered per counter, at least a second apart: twelve minutes, longer than a reset takes to be heard of.
const POURED_MAX: usize = 720;
/// How long a scheduled flush may be overdue before it is taken for dead, in milliseconds.
const FLUSH_LOST_MILLIS: u64 = 10_000;
/// How often a writer looks for a reset, in milliseconds.
const RESET_CHECK_MILLIS: u64 = 30_000;
/// Other counters one background task helps out.
const HELPED_MAX: usize = 4;

/// Why an increment is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The delta, or the sum of what is still unwritten, is beyond 2^53 - 1.
    #[error("the sum is beyond 2^53 - 1")]
    OutOfRange,
    /// The isolate holds as many unwritten counters as it may: try again in a second.
    #[error("too many counters wait to be written")]
    Busy,
}

/// The unwritten counts of one isolate. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Gather(Rc<RefCell<BTreeMap<Key, Held>>>);

/// What is held of one counter.
#[derive(Debug)]
struct Held {
    tenant: Tenant,
    name: String,
    /// Counted and in no shard yet.
    pending: i64,
    /// When the first of the pending increments came.
    pending_since: Timestamp,
    current: Option<ShardHeld>,
    /// A finished shard whose last write is not known to have happened. It is written again with the same value, so
    /// that an attempt which was given up and lands late changes nothing; until then no new shard is begun.
    previous: Option<ShardHeld>,
    /// What was put into shards when, oldest first, since the last reset known.
    poured: VecDeque<Poured>,
    /// When the last write began, or ended if it has.
    flushed_at: Option<Timestamp>,
    /// The number of the write that is under way.
    writing: Option<u64>,
    /// Writes begun.
    writes: u64,
    /// When the scheduled flush is to run.
    flush_at: Option<Timestamp>,
    /// The last reset known.
    reset: Timestamp,
    reset_checked_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct ShardHeld {
    shard: String,
    bucket: u64,
    since: Timestamp,
    value: i64,
    /// Whether KV is known to hold this value.
    is_stored: bool,
}

/// Increments that were put into a shard at one moment.
#[derive(Clone, Copy, Debug)]
struct Poured {
    at: Timestamp,
    amount: i128,
    /// When that shard began, which decides whether it counts; nothing while the increments wait for a new one, because
    /// theirs does not.
    since: Option<Timestamp>,
}

/// One write of a shard.
#[derive(Clone, Debug)]
pub(super) struct ShardWrite {
    /// Which of the counter's writes it is, once it has begun.
    number: u64,
    pub(super) shard: String,
    pub(super) bucket: u64,
    pub(super) since: Timestamp,
    pub(super) value: i64,
}

/// What a flush does next.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Write(ShardWrite),
    /// The key was written less than a second ago: so many milliseconds.
    Wait(u64),
    Done,
}

/// What an isolate knows better than any list: its own shards, what it has not written, and its last reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    /// Name, hour, first increment and value of each of its shards.
    pub(super) shards: Vec<ShardWrite>,
    pub(super) pending: i64,
    pub(super) reset: Timestamp,
}

impl Gather {
    /// Takes an increment; answers in how many milliseconds a flush must be run, if none is scheduled.
    pub(super) fn add(&self, tenant: &Tenant, name: &str, delta: i64, now: Timestamp) -> Result<Option<u64>, Refused> {
        let mut all = self.0.borrow_mut();
        let held = hold(&mut all, tenant, name).ok_or(Refused::Busy)?;
        let sum = held.pending.checked_add(delta).filter(|sum| in_range(*sum) && in_range(delta));
        let sum = sum.ok_or(Refused::OutOfRange)?;
        if held.pending == 0 {
            held.pending_since = now.max(held.reset);
        }
        held.pending = sum;
        if held.is_written() || held.flush_at.is_some_and(|at| now < at.plus_millis(FLUSH_LOST_MILLIS)) {
            return Ok(None);
        }
        let at = held.flushed_at.map_or(now, |last| now.max(last.plus_millis(SAME_KEY_WRITE_MILLIS)));
        held.flush_at = Some(at);
        Ok(Some(at.millis_since(now)))
    }

    /// A few counters whose flush was due long ago and never came.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<(Tenant, String)> {
        let all = self.0.borrow();
        let late = all.values().filter(|held| {
            let is_late = held.flush_at.is_none_or(|at| now >= at.plus_millis(FLUSH_LOST_MILLIS));
            let is_idle = held.flushed_at.is_none_or(|at| now >= at.plus_millis(FLUSH_LOST_MILLIS));
            !held.is_written() && is_late && is_idle
        });
        late.take(HELPED_MAX).map(|held| (held.tenant.clone(), held.name.clone())).collect()
    }

    /// What to write next for the counter.
    pub(super) fn next(&self, id: &Key, now: Timestamp, new_shard: impl FnOnce() -> String) -> Next {
        let mut all = self.0.borrow_mut();
        all.get_mut(id).map_or(Next::Done, |held| held.next(now, new_shard))
    }

    /// Notes how a write ended.
    pub(super) fn written(&self, id: &Key, write: &ShardWrite, outcome: &Result<(), Error>, now: Timestamp) {
        let mut all = self.0.borrow_mut();
        if let Some(held) = all.get_mut(id) {
            // One that was given up meanwhile says nothing about what is under way now.
            if held.writing == Some(write.number) {
                held.writing = None;
                held.flushed_at = held.flushed_at.max(Some(now));
                held.written(write, outcome);
            }
        }
    }

    /// Whether it is time to look for a reset; notes that it is being done.
    pub(super) fn wants_reset(&self, id: &Key, now: Timestamp) -> bool {
        let mut all = self.0.borrow_mut();
        let Some(held) = all.get_mut(id) else { return false };
        held.reset_checked_at.is_none_or(|at| now >= at.plus_millis(RESET_CHECK_MILLIS))
    }

    /// Notes the reset that was found, if one was.
    pub(super) fn heard(&self, id: &Key, reset: Option<Timestamp>, now: Timestamp) {
        let mut all = self.0.borrow_mut();
        let Some(held) = all.get_mut(id) else { return };
        held.reset_checked_at = Some(now);
        if let Some(reset) = reset.filter(|reset| *reset > held.reset) {
            held.split_at(reset);
        }
    }

    /// Forgets everything counted before a reset made here.
    pub(super) fn reset(&self, tenant: &Tenant, name: &str, at: Timestamp) {
        let mut all = self.0.borrow_mut();
        if let Some(held) = hold(&mut all, tenant, name) {
            *held = Held { reset: at.max(held.reset), ..Held::new(tenant, name) };
        }
    }

    /// What this isolate knows of the counter.
    pub(super) fn own(&self, id: &Key) -> Own {
        let all = self.0.borrow();
        let Some(held) = all.get(id) else { return Own::default() };
        let shards = held.previous.iter().chain(&held.current).map(ShardHeld::write).collect();
        Own { shards, pending: held.pending, reset: held.reset }
    }

    /// Counters held.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn in_range(value: i64) -> bool {
    (-VALUE_MAX..=VALUE_MAX).contains(&value)
}

/// The counter's place in memory, made if there is room; nothing when every place holds unwritten counts.
fn hold<'a>(all: &'a mut BTreeMap<Key, Held>, tenant: &Tenant, name: &str) -> Option<&'a mut Held> {
    let id = id(tenant, name);
    if !all.contains_key(&id) && all.len() >= COUNTERS_MAX {
        let written = all.iter().filter(|(_, held)| held.is_written());
        let oldest = written.min_by_key(|(_, held)| held.flushed_at).map(|(id, _)| id.clone())?;
        all.remove(&oldest);
    }
    Some(all.entry(id).or_insert_with(|| Held::new(tenant, name)))
}

impl Held {
    fn new(tenant: &Tenant, name: &str) -> Self {
        Self {
            tenant: tenant.clone(),
            name: name.to_owned(),
            pending: 0,
            pending_since: Timestamp::default(),
            current: None,
            previous: None,
            poured: VecDeque::new(),
            flushed_at: None,
            writing: None,
            writes: 0,
            flush_at: None,
            reset: Timestamp::default(),
            reset_checked_at: None,
        }
    }

    /// Whether KV is known to hold everything counted.
    fn is_written(&self) -> bool {
        self.pending == 0 && self.previous.is_none() && self.current.as_ref().is_none_or(|shard| shard.is_stored)
    }

    fn next(&mut self, now: Timestamp, new_shard: impl FnOnce() -> String) -> Next {
        self.flush_at = None;
        if let Some(millis) = self.wait_for_writing(now) {
            return Next::Wait(millis);
        }
        self.end_hour(now);
        if let Some(previous) = &self.previous {
            if now.seconds() < (previous.bucket + 1) * BUCKET_SECONDS + GRACE_SECONDS {
                let write = previous.write();
                return self.wait(now).map_or_else(|| self.begin(write), Next::Wait);
            }
            // The outage outlasted the grace: whether this value was stored stays unknown.
            self.previous = None;
        }
        if self.is_written() {
            return Next::Done;
        }
        if let Some(millis) = self.wait(now) {
            return Next::Wait(millis);
        }
        self.pour(now, new_shard)
    }

    /// Whether another write is under way, and when to look again. One that takes too long was cut off with its
    /// background task: its outcome is unknown like that of a failed one.
    fn wait_for_writing(&mut self, now: Timestamp) -> Option<u64> {
        self.writing?;
        if self.flushed_at.is_some_and(|at| now < at.plus_millis(FLUSH_LOST_MILLIS)) {
            return Some(SAME_KEY_WRITE_MILLIS);
        }
        self.writing = None;
        if self.previous.is_none() {
            self.previous = self.current.take_if(|shard| !shard.is_stored);
        }
        None
    }

    /// Whether the last write was less than a second ago, and for how long yet; if not, one begins now.
    fn wait(&mut self, now: Timestamp) -> Option<u64> {
        let free_at = self.flushed_at.map_or(now, |last| last.plus_millis(SAME_KEY_WRITE_MILLIS));
        if now < free_at {
            return Some(free_at.millis_since(now));
        }
        self.flushed_at = Some(now);
        None
    }

    fn begin(&mut self, write: ShardWrite) -> Next {
        self.writes += 1;
        self.writing = Some(self.writes);
        Next::Write(ShardWrite { number: self.writes, ..write })
    }

    fn written(&mut self, write: &ShardWrite, outcome: &Result<(), Error>) {
        if self.previous.as_ref().is_some_and(|previous| previous.shard == write.shard) {
            if outcome.is_ok() {
                self.previous = None;
            }
            return;
        }
        let Some(mut shard) = self.current.take_if(|current| current.shard == write.shard) else { return };
        match outcome {
            Ok(()) => shard.is_stored = shard.value == write.value,
            // Surely not written: the next write holds this one's increments too.
            Err(Error::Throttled) => shard.is_stored = false,
            // Perhaps written, perhaps later: this shard is finished.
            Err(_) => {
                shard.is_stored = false;
                self.previous = Some(shard);
                return;
            }
        }
        self.current = Some(shard);
    }

    /// Moves the pending increments into the shard, and the shard on its way.
    fn pour(&mut self, now: Timestamp, new_shard: impl FnOnce() -> String) -> Next {
        let joined = self.current.as_ref().map(|shard| shard.value.saturating_add(self.pending));
        if joined.is_some_and(|value| !in_range(value)) && self.previous.is_none() {
            // The sum leaves the range: this shard is finished, and a new one takes the rest.
            self.previous = self.current.take().filter(|shard| !shard.is_stored);
        }
        let (since, bucket) = (self.pending_since, bucket_of(now));
        let shard = self.current.get_or_insert_with(|| ShardHeld {
            shard: new_shard(),
            bucket,
            since,
            value: 0,
            is_stored: false,
        });
        if let Some(value) = shard.value.checked_add(self.pending).filter(|value| in_range(*value)) {
            if self.pending != 0 {
                shard.is_stored = false;
                // It may take in what waited since a reset before it began.
                let began = shard.since;
                shard.since = began.min(since);
                note(&mut self.poured, self.pending, now, (began, shard.since));
            }
            shard.value = value;
            self.pending = 0;
        }
        let write = shard.write();
        self.begin(write)
    }

    /// Leaves the shard of an hour that is over.
    fn end_hour(&mut self, now: Timestamp) {
        if self.current.as_ref().is_some_and(|shard| shard.bucket != bucket_of(now)) {
            self.previous = self.current.take().filter(|shard| !shard.is_stored).or_else(|| self.previous.take());
        }
    }

    /// Applies a reset heard of late: shards begun before it no longer count, so what they took in after it is
    /// counted anew, in a shard that begins with it.
    fn split_at(&mut self, reset: Timestamp) {
        self.reset = reset;
        self.current = self.current.take_if(|shard| shard.since >= reset);
        self.previous = self.previous.take_if(|shard| shard.since >= reset);
        let waiting = |poured: &VecDeque<Poured>| -> i128 {
            poured.iter().filter(|part| part.since.is_none()).map(|part| part.amount).sum()
        };
        let fresh = i128::from(self.pending) - waiting(&self.poured);
        self.poured.retain(|part| part.at >= reset);
        for part in &mut self.poured {
            // What is in a shard that counts is counted.
            part.since = part.since.filter(|since| *since >= reset);
        }
        let recovered = waiting(&self.poured);
        let sum = fresh.saturating_add(recovered);
        self.pending = i64::try_from(sum.clamp(i128::from(-VALUE_MAX), i128::from(VALUE_MAX))).unwrap_or_default();
        self.pending_since = if recovered == 0 { self.pending_since.max(reset) } else { reset };
    }
}

/// Notes that all of `pending` is in a shard now, which began at the second of `(before, since)`, and was taken to begin at
/// the first before that: what waited for a shard, and what is new.
fn note(poured: &mut VecDeque<Poured>, pending: i64, now: Timestamp, (before, since): (Timestamp, Timestamp)) {
    let mut amount = i128::from(pending);
    for part in poured.iter_mut() {
        if part.since.is_none() {
            amount -= part.amount;
        }
        part.since = part.since.filter(|began| *began != before).or(Some(since));
    }
    if poured.len() >= POURED_MAX {
        poured.pop_front();
    }
    poured.push_back(Poured { at: now, amount, since: Some(since) });
}

impl ShardHeld {
    fn write(&self) -> ShardWrite {
        ShardWrite { number: 0, shard: self.shard.clone(), bucket: self.bucket, since: self.since, value: self.value }
    }
}
