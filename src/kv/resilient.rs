//! A store that gives up in time: a deadline, bounded retries with full jitter and a budget, and a breaker.
//!
//! - An attempt that takes too long is abandoned; a read that was abandoned is lost, a write may have happened.
//! - Only [`Error::Throttled`] (after a second) and [`Error::Unavailable`] are tried again; a broken limit never is.
//! - Retries are paid from a budget that successes fill slowly, so an outage is not answered with three times the load.
//! - After many failures in a row the breaker refuses at once, and lets one probe through when its time is over.
//! - A spent daily quota closes that kind of operation until 00:00 UTC, when quotas start anew.
//!
//! Sources: full jitter, Brooker, "Exponential backoff and jitter" (AWS Architecture Blog, 2015); retry budgets and
//! timeouts, "Timeouts, retries, and backoff with jitter" (Amazon Builders' Library).

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};

use super::limits::SAME_KEY_WRITE_MILLIS;
use super::{Error, Key, Page, PageRequest, Prefix, Read, Store, Write};
use crate::clock::{Clock, Timestamp};
use crate::random::Random;

/// How long and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// Longest time one attempt may take, in milliseconds.
    pub attempt_millis: u64,
    /// Longest time all attempts and waits may take, in milliseconds.
    pub deadline_millis: u64,
    /// Longest wait before the second attempt, in milliseconds; it doubles with each one after.
    pub backoff_millis: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempts_max: 3, attempt_millis: 1500, deadline_millis: 4000, backoff_millis: 50 }
    }
}

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 30;
/// How long the breaker stays open the first time, in milliseconds; it doubles while probes fail.
const OPEN_MILLIS_MIN: u64 = 1000;
/// How long it stays open at most, in milliseconds.
const OPEN_MILLIS_MAX: u64 = 30_000;
/// Retries that may be made in a burst.
const BUDGET_MAX_TENTHS: u32 = 100;
/// What one retry costs, in tenths; a success earns one tenth.
const RETRY_COST_TENTHS: u32 = 10;
/// A day, in milliseconds.
const DAY_MILLIS: u64 = 86_400_000;

/// The memory of one isolate about one namespace: failures in a row, the retry budget, spent quotas. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Breaker(Rc<RefCell<BreakerState>>);

#[derive(Debug)]
struct BreakerState {
    failures: u32,
    open_until: Option<Timestamp>,
    open_millis: u64,
    budget_tenths: u32,
    /// Until when each kind of operation has no quota left.
    spent_until: [Option<Timestamp>; 4],
}

impl Default for BreakerState {
    fn default() -> Self {
        Self {
            failures: 0,
            open_until: None,
            open_millis: OPEN_MILLIS_MIN,
            budget_tenths: BUDGET_MAX_TENTHS,
            spent_until: [None; 4],
        }
    }
}

/// What KV counts and bills apart.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Write,
    Delete,
    List,
}

impl Breaker {
    /// Whether an operation may be tried now. Of those that find the open time over, one is the probe.
    fn admit(&self, kind: Kind, now: Timestamp) -> Result<(), Error> {
        let mut state = self.0.borrow_mut();
        if state.spent_until.get(kind as usize).copied().flatten().is_some_and(|until| now < until) {
            return Err(Error::QuotaSpent);
        }
        match state.open_until {
            Some(until) if now < until => Err(Error::Unavailable("the breaker is open".to_owned())),
            Some(_) => {
                // This one probes; the others wait for one more period, or for its success.
                state.open_until = Some(now.plus_millis(state.open_millis));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn record<T>(&self, kind: Kind, outcome: &Result<T, Error>, now: Timestamp) {
        let mut state = self.0.borrow_mut();
        match outcome {
            Err(Error::Unavailable(_)) => {
                state.failures = state.failures.saturating_add(1);
                if state.open_until.is_some() {
                    state.open_millis = (state.open_millis * 2).min(OPEN_MILLIS_MAX);
                }
                if state.failures >= FAILURES_TO_OPEN {
                    state.open_until = Some(now.plus_millis(state.open_millis));
                }
            }
            Err(Error::QuotaSpent) => {
                let midnight = Timestamp::from_millis((now.millis() / DAY_MILLIS + 1) * DAY_MILLIS);
                if let Some(until) = state.spent_until.get_mut(kind as usize) {
                    *until = Some(midnight);
                }
            }
            // Every other answer, refusals included, shows that KV is there.
            Ok(_) | Err(_) => {
                state.failures = 0;
                state.open_until = None;
                state.open_millis = OPEN_MILLIS_MIN;
                state.budget_tenths = (state.budget_tenths + 1).min(BUDGET_MAX_TENTHS);
            }
        }
    }

    fn pay_for_retry(&self) -> bool {
        let mut state = self.0.borrow_mut();
        match state.budget_tenths.checked_sub(RETRY_COST_TENTHS) {
            Some(left) => {
                state.budget_tenths = left;
                true
            }
            None => false,
        }
    }
}

/// A store with a deadline, retries and a breaker.
#[derive(Clone, Debug)]
pub struct Resilient<S, C, R> {
    store: S,
    clock: C,
    random: R,
    policy: Policy,
    breaker: Breaker,
}

impl<S: Store, C: Clock, R: Random> Resilient<S, C, R> {
    /// Wraps `store`; `breaker` is what the isolate remembers of this namespace.
    pub const fn new(store: S, clock: C, random: R, policy: Policy, breaker: Breaker) -> Self {
        Self { store, clock, random, policy, breaker }
    }

    async fn run<T>(&self, kind: Kind, attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        let mut now = self.clock.now();
        let deadline = now.plus_millis(self.policy.deadline_millis);
        let mut attempts = 0;
        loop {
            self.breaker.admit(kind, now)?;
            let left = deadline.millis_since(now);
            let outcome = self.in_time(left.min(self.policy.attempt_millis), &attempt).await;
            now = self.clock.now();
            self.breaker.record(kind, &outcome, now);
            attempts += 1;
            let wait = match &outcome {
                Err(error) if error.is_transient() && attempts < self.policy.attempts_max => self.wait(error, attempts),
                _ => return outcome,
            };
            let too_late = now.plus_millis(wait) >= deadline;
            if too_late || !self.breaker.pay_for_retry() {
                return outcome;
            }
            self.clock.sleep(wait).await;
            now = self.clock.now();
        }
    }

    async fn in_time<T>(&self, millis: u64, attempt: &impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        match select(pin!(attempt()), pin!(self.clock.sleep(millis))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(Error::Unavailable("no answer in time".to_owned())),
        }
    }

    /// The wait before the next attempt, in milliseconds: full jitter, and past the second in which KV refuses a key.
    fn wait(&self, error: &Error, attempts: u32) -> u64 {
        let spread = self.policy.backoff_millis.saturating_mul(1 << attempts.min(16));
        let jitter = self.random.below(spread.saturating_add(1));
        if *error == Error::Throttled { SAME_KEY_WRITE_MILLIS + jitter } else { jitter }
    }
}

impl<S: Store, C: Clock, R: Random> Store for Resilient<S, C, R> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        self.run(Kind::Read, async || self.store.get(key, read).await).await
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.run(Kind::Read, async || self.store.get_many(keys, read).await).await
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        self.run(Kind::Write, async || self.store.put(key, value, write.clone()).await).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.run(Kind::Delete, async || self.store.delete(key).await).await
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        self.run(Kind::List, async || self.store.list(prefix, request).await).await
    }
}
