//! The object behind an exact counter: [`crate::patterns::counter::exact`] decides.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use worker::{Env, Result, SqlStorageValue, State};

use super::Call;
use super::class::Object;
use super::kept::{Kept, set_alarm};
use crate::clock::{Clock, Timestamp};
use crate::kv::Tenant;
use crate::patterns::counter::exact;
use crate::worker::clock::WorkerClock;
use crate::worker::kv::WorkersKv;

/// The idempotency keys that were seen.
const SEEN: &str = "CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, delta INTEGER, value INTEGER, at INTEGER)";

/// One exact counter.
#[derive(Debug)]
pub(super) struct Counter {
    state: State,
    env: Env,
    kept: Kept<Record>,
    /// When the alarm will go off, as far as this life of the object knows: setting it costs a row.
    alarm_at: Cell<Option<Timestamp>>,
}

/// What the object keeps: the state, and whose it is, for the snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    tenant: String,
    name: String,
    state: exact::State,
}

#[derive(Deserialize)]
struct SeenRow {
    delta: f64,
    value: f64,
    at: f64,
}

#[derive(Deserialize)]
struct CountRow {
    keys: f64,
}

/// Integers come out of SQLite as doubles; ours are within 2^53, where doubles are exact.
#[allow(clippy::cast_possible_truncation, reason = "within 2^53 by construction")]
const fn integer(double: f64) -> i64 {
    double as i64
}

impl Counter {
    fn seen(&self, request: &exact::Request) -> Result<Option<exact::Seen>> {
        let exact::Request::Add { key: Some(key), .. } = request else { return Ok(None) };
        let query = "SELECT delta, value, at FROM seen WHERE key = ?";
        let rows = self.kept.sql()?.exec(query, vec![key.as_str().into()])?.to_array::<SeenRow>()?;
        Ok(rows.first().map(|row| {
            let at = Timestamp::from_millis(integer(row.at).unsigned_abs());
            exact::Seen { delta: integer(row.delta), value: integer(row.value), at }
        }))
    }

    fn remember(&self, request: &exact::Request, seen: exact::Seen) -> Result<()> {
        let exact::Request::Add { key: Some(key), .. } = request else { return Ok(()) };
        let at = i64::try_from(seen.at.millis()).unwrap_or(i64::MAX);
        let numbers = [seen.delta, seen.value, at].into_iter().map(SqlStorageValue::Integer);
        let row = std::iter::once(key.as_str().into()).chain(numbers).collect::<Vec<_>>();
        self.kept.sql()?.exec("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", row)?;
        Ok(())
    }

    /// Load, decide, store: no `await` in between.
    fn decide(&self, call: &Call<exact::Request>, now: Timestamp) -> Result<(exact::State, exact::Answer)> {
        let known = self.kept.load()?.unwrap_or_default();
        let seen = self.seen(&call.request)?;
        let decision = exact::decide(&known.state, seen, &call.request, now);
        if decision.state != known.state {
            let (tenant, name, state) = (call.tenant.clone(), call.name.clone(), decision.state.clone());
            self.kept.save(Record { tenant, name, state })?;
        }
        if let Some(seen) = decision.remember {
            self.remember(&call.request, seen)?;
        }
        Ok((decision.state, decision.answer))
    }

    async fn wake(&self, state: &exact::State, now: Timestamp) -> Result<()> {
        let Some(at) = exact::next_alarm(state, now) else { return Ok(()) };
        if self.alarm_at.get().is_none_or(|set| at < set || set <= now) {
            set_alarm(&self.state, &WorkerClock, at).await?;
            self.alarm_at.set(Some(at));
        }
        Ok(())
    }

    async fn snapshot(&self, record: &Record, listed: Option<i64>, now: Timestamp) -> Result<()> {
        let (Ok(tenant), Some(store)) = (Tenant::new(&record.tenant), WorkersKv::bound(&self.env, "COUNTERS")) else {
            return Ok(());
        };
        let written = match listed {
            Some(value) => exact::write_snapshot(&store, &tenant, &record.name, value, now).await,
            None => exact::delete_snapshot(&store, &tenant, &record.name).await,
        };
        written.map_err(|error| worker::Error::from(error.to_string()))
    }

    fn purge(&self, until: Timestamp) -> Result<u32> {
        let until = i64::try_from(until.millis()).unwrap_or(i64::MAX);
        let sql = self.kept.sql()?;
        sql.exec("DELETE FROM seen WHERE at <= ?", vec![SqlStorageValue::Integer(until)])?;
        let left = sql.exec("SELECT COUNT(*) AS keys FROM seen", None)?.one::<CountRow>()?;
        Ok(u32::try_from(integer(left.keys)).unwrap_or(u32::MAX))
    }
}

impl Object for Counter {
    type Request = exact::Request;
    type Answer = exact::Answer;

    fn new(state: State, env: Env) -> Self {
        Self { kept: Kept::new(&state, Some(SEEN)), state, env, alarm_at: Cell::new(None) }
    }

    async fn ask(&self, call: Call<exact::Request>) -> Result<exact::Answer> {
        let now = WorkerClock.now();
        let (state, answer) = self.decide(&call, now)?;
        self.wake(&state, now).await?;
        Ok(answer)
    }

    /// Writes the snapshot, forgets old keys, forgets everything when nothing is left. Failing makes the platform
    /// call again, a bounded number of times; the next increment sets the alarm anew.
    async fn alarm(&self) -> Result<()> {
        self.alarm_at.set(None);
        let now = WorkerClock.now();
        let Some(mut record) = self.kept.load()? else { return Ok(()) };
        let chores = exact::chores(&record.state, now);
        if chores.forget {
            self.kept.forget(&self.state).await?;
            return Ok(());
        }
        if let Some(until) = chores.purge {
            record.state.keys = self.purge(until)?;
            record.state.purged_at = now;
            self.kept.save(record.clone())?;
        }
        if chores.unlist {
            record.state = record.state.reset();
            self.kept.save(record.clone())?;
        }
        if record.state.is_snapshot_due {
            let listed = record.state.listed();
            self.snapshot(&record, listed, now).await?;
            // Requests came between: only what was written is no longer due.
            record = self.kept.load()?.unwrap_or_default();
            record.state.is_snapshot_due = record.state.listed() != listed;
            record.state.snapshot_at = now;
            self.kept.save(record.clone())?;
        }
        self.wake(&record.state, WorkerClock.now()).await?;
        Ok(())
    }
}
