//! Time as an argument: a millisecond timestamp, the [`Clock`] that gives it, and the clock tests move by hand.
//!
//! On Workers the clock stands still between I/O operations, so two reads in a row may be equal; nothing here
//! assumes that time has passed because code has run.
//! Source: <https://developers.cloudflare.com/workers/runtime-apis/performance>

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The moment `seconds` seconds after the Unix epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This moment, `seconds` later. Saturates at the end of time.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// This moment, `millis` milliseconds later. Saturates at the end of time.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; zero when `earlier` is in fact later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where time comes from.
#[allow(async_fn_in_trait, reason = "isolates have one thread, so futures need not be Send")]
pub trait Clock {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Waits for `millis` milliseconds.
    async fn sleep(&self, millis: u64);
}

/// A clock that moves only when told to, or when somebody sleeps on it. Clones share the time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Rc<Cell<Timestamp>>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Rc::new(Cell::new(now)))
    }

    /// Moves the clock on by `millis` milliseconds.
    pub fn advance_millis(&self, millis: u64) {
        self.0.set(self.0.get().plus_millis(millis));
    }

    /// Moves the clock on by `seconds` seconds.
    pub fn advance_seconds(&self, seconds: u64) {
        self.0.set(self.0.get().plus_seconds(seconds));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.get()
    }

    /// Moves the clock on and returns at once.
    async fn sleep(&self, millis: u64) {
        self.advance_millis(millis);
    }
}
