//! The object behind a lock: [`crate::patterns::lock::exact`] decides.
//!
//! A caller who waits is a request that asks again every moment, on its own timer: a request cannot be woken by another
//! one here, and one whose client went away stops asking and loses its place.

#![allow(missing_docs, reason = "the class macro makes methods that carry no documentation")]

use std::cell::{Cell, RefCell};

use worker::{DurableObject, Env, Request, Response, Result, State, durable_object};

use super::kept::{Kept, call, reply, set_alarm};
use crate::clock::{Clock, Timestamp};
use crate::patterns::lock::exact::{self, Answer, Queue};
use crate::worker::clock::WorkerClock;

/// How often a waiting request asks, in milliseconds.
const POLL_MILLIS: u64 = 50;

/// One lock.
#[durable_object]
#[derive(Debug)]
pub struct Lock {
    state: State,
    kept: Kept,
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
        let known = self.kept.load::<exact::State>()?.unwrap_or_default();
        let mut next = known.clone();
        let outcome = decision(&mut next, &mut self.queue.borrow_mut());
        let is_changed = next != known;
        if is_changed {
            self.kept.save(&next)?;
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

impl DurableObject for Lock {
    fn new(state: State, _env: Env) -> Self {
        Self { kept: Kept::new(&state, None), state, queue: RefCell::default(), alarm_at: Cell::new(None) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let call = call::<exact::Request>(&request).await?;
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
        reply(&answer)
    }

    /// Forgets everything when the last fencing token is a day behind the clock.
    async fn alarm(&self) -> Result<Response> {
        self.alarm_at.set(None);
        let now = WorkerClock.now();
        let known = self.kept.load::<exact::State>()?;
        match known.filter(|state| !state.may_forget(now)) {
            Some(state) => self.wake(Some(state), now).await?,
            None => self.kept.forget(&self.state).await?,
        }
        Response::empty()
    }
}
