//! The object behind a lock: [`crate::patterns::lock::exact`] decides.
//!
//! A caller who waits is a call that asks again every moment, on its own timer: one cannot be woken by another here. It may
//! go on when its caller is gone, which is why the pattern only offers the lock to who has waited.

use std::cell::{Cell, RefCell};

use worker::{Env, Result, State};

use super::Call;
use super::class::Object;
use super::kept::{Kept, set_alarm};
use crate::clock::{Clock, Timestamp};
use crate::patterns::lock::exact::{self, Answer, Queue};
use crate::worker::clock::WorkerClock;

/// How often a waiting request asks, in milliseconds.
const POLL_MILLIS: u64 = 50;

/// One lock.
#[derive(Debug)]
pub(super) struct Lock {
    state: State,
    kept: Kept<exact::State>,
    queue: RefCell<Queue>,
    /// When the alarm will go off, as far as this life of the object knows.
    alarm_at: Cell<Option<Timestamp>>,
}

impl Lock {
    /// Load, decide, store: no `await` in between.
    fn decide<T>(
        &self,
        decision: impl FnOnce(&mut exact::State, &mut Queue) -> T,
    ) -> Result<(T, Option<exact::State>)> {
        let known = self.kept.load()?.unwrap_or_default();
        let mut next = known.clone();
        let outcome = decision(&mut next, &mut self.queue.borrow_mut());
        let is_changed = next != known;
        if is_changed {
            self.kept.save(next.clone())?;
        }
        Ok((outcome, is_changed.then_some(next)))
    }

    /// Makes sure an alarm will look whether everything may be forgotten. One that goes off too early looks again.
    async fn wake(&self, changed: Option<exact::State>, now: Timestamp) -> Result<()> {
        if let Some(state) = changed.filter(|_| self.alarm_at.get().is_none_or(|set| set <= now)) {
            let at = state.forget_at(now);
            set_alarm(&self.state, &WorkerClock, at).await?;
            self.alarm_at.set(Some(at));
        }
        Ok(())
    }
}

impl Object for Lock {
    type Request = exact::Request;
    type Answer = Answer;

    fn new(state: State, _env: Env) -> Self {
        Self { kept: Kept::new(&state, None), state, queue: RefCell::default(), alarm_at: Cell::new(None) }
    }

    async fn ask(&self, call: Call<exact::Request>) -> Result<Answer> {
        let now = WorkerClock.now();
        let ((mut answer, ticket), changed) =
            self.decide(|state, queue| exact::decide(state, queue, &call.request, now))?;
        self.wake(changed, now).await?;
        while let (Answer::Queued, Some(ticket)) = (&answer, ticket) {
            WorkerClock.sleep(POLL_MILLIS).await;
            let now = WorkerClock.now();
            let (next, changed) = self.decide(|state, queue| queue.poll(state, ticket, now))?;
            self.wake(changed, now).await?;
            answer = next;
        }
        Ok(answer)
    }

    /// Forgets everything when the last fencing token is a day behind the clock.
    async fn alarm(&self) -> Result<()> {
        self.alarm_at.set(None);
        let now = WorkerClock.now();
        let known = self.kept.load()?;
        match known.filter(|state| !state.may_forget(now)) {
            Some(state) => self.wake(Some(state), now).await,
            None => self.kept.forget(&self.state).await,
        }
    }
}
