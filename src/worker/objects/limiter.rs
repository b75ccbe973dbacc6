//! The object behind an exact limit of one identifier: [`crate::patterns::rate_limit::exact`] decides.

use std::cell::Cell;

use worker::{Env, Result, State};

use super::Call;
use super::class::Object;
use super::kept::{Kept, set_alarm};
use crate::clock::{Clock, Timestamp};
use crate::patterns::rate_limit::exact;
use crate::worker::clock::WorkerClock;

/// One policy's count of one identifier.
#[derive(Debug)]
pub(super) struct Limiter {
    state: State,
    kept: Kept<exact::State>,
    /// When the alarm will go off, as far as this life of the object knows.
    alarm_at: Cell<Option<Timestamp>>,
}

impl Limiter {
    /// Decides, and stores what it changed.
    async fn check(&self, question: &exact::Question, now: Timestamp) -> Result<exact::Answer> {
        let known = self.kept.load()?;
        let (state, answer) = exact::decide(known.as_ref(), question, now);
        let is_change = exact::must_keep(known.as_ref(), &state, &answer);
        if is_change {
            self.kept.save(state.clone())?;
        }
        // An alarm that goes off too early looks again, so one that is set needs no moving.
        if is_change && self.alarm_at.get().is_none_or(|set| set <= now) {
            let at = exact::forget_at(&state, now);
            set_alarm(&self.state, &WorkerClock, at).await?;
            self.alarm_at.set(Some(at));
        }
        Ok(answer)
    }

    /// Stores what is left when something is given back; the alarm that was set when it was taken stays.
    fn give_back(&self, taken: &exact::Taken, now: Timestamp) -> Result<()> {
        match self.kept.load()? {
            Some(known) => self.kept.save(exact::give_back(known, taken, now)),
            None => Ok(()),
        }
    }
}

impl Object for Limiter {
    type Request = exact::Request;
    /// Nothing where something was given back.
    type Answer = Option<exact::Answer>;

    fn new(state: State, _env: Env) -> Self {
        Self { kept: Kept::new(&state, None), state, alarm_at: Cell::new(None) }
    }

    async fn ask(&self, call: Call<exact::Request>) -> Result<Self::Answer> {
        let now = WorkerClock.now();
        match &call.request {
            exact::Request::Check(question) => self.check(question, now).await.map(Some),
            exact::Request::GiveBack(taken) => self.give_back(taken, now).map(|()| None),
        }
    }

    /// Forgets everything once nothing is used any more.
    async fn alarm(&self) -> Result<()> {
        self.alarm_at.set(None);
        let now = WorkerClock.now();
        let known = self.kept.load()?;
        match known.filter(|state| !state.usage.is_empty(&state.policy, now)) {
            Some(state) => {
                let at = exact::forget_at(&state, now);
                set_alarm(&self.state, &WorkerClock, at).await?;
                self.alarm_at.set(Some(at));
            }
            None => self.kept.forget(&self.state).await?,
        }
        Ok(())
    }
}
