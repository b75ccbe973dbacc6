//! The object behind one user's preferences in strong mode: [`crate::patterns::preference::strong`] decides.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use worker::{Env, Result, State};

use super::Call;
use super::class::Object;
use super::kept::{Kept, set_alarm};
use crate::clock::{Clock, Timestamp};
use crate::kv::Tenant;
use crate::patterns::preference::{Error, Preferences, strong};
use crate::recent::Recent;
use crate::stamp::Stamps;
use crate::worker::clock::WorkerClock;
use crate::worker::kv::WorkersKv;
use crate::worker::random::WorkerRandom;

/// One user's preferences.
#[derive(Debug)]
pub(super) struct Preference {
    state: State,
    env: Env,
    kept: Kept<Record>,
    /// This life's clock for stamps.
    stamps: Stamps,
    /// When the alarm will go off, as far as this life of the object knows.
    alarm_at: Cell<Option<Timestamp>>,
}

/// What the object keeps: the state, and whose it is, for the copy in KV.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    tenant: String,
    user: String,
    state: strong::State,
}

impl Record {
    fn preferences(&self, env: &Env) -> Result<Preferences<WorkersKv>> {
        let tenant = Tenant::new(&self.tenant).map_err(|error| worker::Error::from(error.to_string()))?;
        let store = WorkersKv::bound(env, "CONFIG").ok_or_else(|| worker::Error::from("CONFIG is not bound"))?;
        Ok(Preferences::new(store, &tenant, Recent::new(1)))
    }
}

impl Preference {
    /// Load, decide, store: no `await` in between.
    fn decide(&self, call: Call<strong::Request>, now: Timestamp) -> Result<(Option<strong::State>, strong::Answer)> {
        let known = self.kept.load()?.unwrap_or_default();
        let (state, answer) = strong::decide(&known.state, &call.request, now, &self.stamps);
        if state == known.state {
            return Ok((None, answer));
        }
        let record = Record { tenant: call.tenant, user: call.name, state };
        self.kept.save(record.clone())?;
        Ok((Some(record.state), answer))
    }

    async fn wake(&self, at: Timestamp) -> Result<()> {
        if self.alarm_at.get().is_none_or(|set| at < set || set <= WorkerClock.now()) {
            set_alarm(&self.state, &WorkerClock, at).await?;
            self.alarm_at.set(Some(at));
        }
        Ok(())
    }

    /// Gives KV what is due, or looks whether it has everything. Whether all may be forgotten.
    async fn tend(&self, record: &Record) -> std::result::Result<bool, Error> {
        let unbound = |error: worker::Error| crate::kv::Error::Unavailable(error.to_string());
        let preferences = record.preferences(&self.env).map_err(unbound)?;
        let due = record.state.to_copy();
        if !due.is_empty() {
            preferences.write(&record.user, &due).await?;
            self.update(|state| state.copied(&due, WorkerClock.now())).map_err(unbound)?;
        }
        if !record.state.is_idle(WorkerClock.now()) {
            return Ok(false);
        }
        let found = preferences.find(&record.user).await?;
        let now = WorkerClock.now();
        let state = self.update(|state| state.join(&found.schema, &found.overrides, now)).map_err(unbound)?;
        Ok(state.is_some_and(|state| state.is_idle(now)))
    }

    /// Changes what is kept, as it is now: requests may have come since it was loaded.
    fn update(&self, change: impl FnOnce(&mut strong::State)) -> Result<Option<strong::State>> {
        let Some(mut record) = self.kept.load()? else { return Ok(None) };
        change(&mut record.state);
        self.kept.save(record.clone())?;
        Ok(Some(record.state))
    }
}

impl Object for Preference {
    type Request = strong::Request;
    type Answer = strong::Answer;

    fn new(state: State, env: Env) -> Self {
        Self {
            kept: Kept::new(&state, None),
            state,
            env,
            stamps: Stamps::new(&WorkerRandom),
            alarm_at: Cell::new(None),
        }
    }

    async fn ask(&self, call: Call<strong::Request>) -> Result<strong::Answer> {
        let now = WorkerClock.now();
        let (changed, answer) = self.decide(call, now)?;
        if let Some(state) = changed {
            self.wake(state.next_alarm(now)).await?;
        }
        Ok(answer)
    }

    /// Looks after the copy in KV; what fails is tried again later, for as long as it takes.
    async fn alarm(&self) -> Result<()> {
        self.alarm_at.set(None);
        let Some(record) = self.kept.load()? else { return Ok(()) };
        match self.tend(&record).await {
            Ok(true) => self.kept.forget(&self.state).await?,
            Ok(false) => {
                let now = WorkerClock.now();
                let known = self.kept.load()?.unwrap_or_default();
                self.wake(known.state.next_alarm(now)).await?;
            }
            Err(error) => {
                worker::console_error!("preferences were not copied to KV: {error}");
                self.wake(WorkerClock.now().plus_seconds(strong::RETRY_SECONDS)).await?;
            }
        }
        Ok(())
    }
}
