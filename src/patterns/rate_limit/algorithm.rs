//! The algorithms, as pure functions over integer time: no float, no rounding that drifts.
//!
//! What each promises of the units admitted in any span of one window:
//!
//! | algorithm | at most | a unit comes back |
//! |---|---|---|
//! | token bucket | the limit at once, and twice it in an unlucky window (a full bucket, and what refills) | evenly |
//! | fixed window | twice the limit, across the seam of two windows | at the window's end |
//! | sliding window | the limit, always | when it leaves the window, at most 1/60 window late |
//!
//! The token bucket is the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371 annex A): the level is
//! counted in units of 1/limit milliseconds, in which both a request's increment (the window) and the leak (the limit
//! per millisecond) are integers.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Decision, Policy};
use crate::clock::Timestamp;

/// Parts of a window that the sliding window and the approximate mode tell apart.
pub const SLOTS: u64 = 60;

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The window's units at once, refilled evenly.
    #[default]
    TokenBucket,
    /// Windows aligned to the epoch.
    FixedWindow,
    /// Never more than the limit in any span of one window.
    SlidingWindow,
}

/// What was used under a policy. It belongs to the policy's limit, window and algorithm: see [`Usage::adapt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Usage {
    /// A bucket's level, in units of 1/limit milliseconds, at a moment.
    TokenBucket {
        /// The level; at most limit times window, below 2^62.
        level: u64,
        /// When it was that.
        at: Timestamp,
    },
    /// What one window took.
    FixedWindow {
        /// The window's number since the epoch.
        window: u64,
        /// Units.
        used: u64,
    },
    /// What each sixtieth of a window took.
    SlidingWindow {
        /// The slots, oldest first.
        slots: Slots,
    },
}

/// Units per slot, oldest first; a slot is a sixtieth of the window, numbered since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SlotsText", into = "SlotsText")]
pub struct Slots(VecDeque<(u64, u64)>);

/// Slots as they are stored: the first one's number, then the units of it and of each one after. At most 700 bytes for
/// a window's worth, so they fit the metadata of a key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotsText {
    first: u64,
    units: Vec<u64>,
}

impl From<SlotsText> for Slots {
    fn from(text: SlotsText) -> Self {
        Self((text.first..).zip(text.units).filter(|(_, units)| *units > 0).collect())
    }
}

impl From<Slots> for SlotsText {
    fn from(slots: Slots) -> Self {
        let first = slots.0.front().map_or(0, |(slot, _)| *slot);
        let mut units = Vec::new();
        for (slot, used) in slots.0 {
            // Only a window's worth is ever kept, which bounds the gaps.
            let gap = usize::try_from(slot.saturating_sub(first).min(SLOTS)).unwrap_or_default();
            units.resize(gap, 0);
            units.push(used);
        }
        Self { first, units }
    }
}

/// The number of the slot that holds `millis`: exact, because it multiplies before it divides.
fn slot_of(millis: u64, window_millis: u64) -> u64 {
    let slot = u128::from(millis) * u128::from(SLOTS) / u128::from(window_millis.max(1));
    u64::try_from(slot).unwrap_or(u64::MAX)
}

/// The first millisecond that belongs to `slot`.
fn slot_start(slot: u64, window_millis: u64) -> u64 {
    let start = (u128::from(slot) * u128::from(window_millis)).div_ceil(u128::from(SLOTS));
    u64::try_from(start).unwrap_or(u64::MAX)
}

impl Slots {
    /// Units in all.
    pub fn used(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }

    /// Forgets slots that ended a whole window before `now`.
    pub fn expire(&mut self, now: Timestamp, window_millis: u64) {
        let oldest = slot_of(now.millis(), window_millis).saturating_sub(SLOTS);
        self.0.retain(|(slot, _)| *slot >= oldest);
    }

    /// Adds units at `now`, which must not be before the newest slot.
    pub fn add(&mut self, units: u64, now: Timestamp, window_millis: u64) {
        let slot = slot_of(now.millis(), window_millis);
        match self.0.back_mut() {
            Some((newest, used)) if *newest >= slot => *used = used.saturating_add(units),
            _ if units > 0 => self.0.push_back((slot, units)),
            _ => {}
        }
    }

    /// Takes units out of the slot of `then`, as far as it holds so many.
    fn remove(&mut self, units: u64, then: Timestamp, window_millis: u64) {
        let slot = slot_of(then.millis(), window_millis);
        if let Ok(place) = self.0.binary_search_by_key(&slot, |(known, _)| *known)
            && let Some((_, used)) = self.0.get_mut(place)
        {
            *used = used.saturating_sub(units);
        }
        self.0.retain(|(_, used)| *used > 0);
    }

    /// Adds another writer's slots.
    pub fn merge(&mut self, other: &Self) {
        for (slot, units) in &other.0 {
            match self.0.binary_search_by_key(slot, |(known, _)| *known) {
                Ok(place) => {
                    if let Some((_, used)) = self.0.get_mut(place) {
                        *used = used.saturating_add(*units);
                    }
                }
                Err(place) => self.0.insert(place, (*slot, *units)),
            }
        }
    }

    /// The slots, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// When at least `units` of these will have left the window, in milliseconds since the epoch.
    fn freed_at(&self, units: u64, window_millis: u64) -> u64 {
        let mut freed: u64 = 0;
        for (slot, used) in &self.0 {
            freed = freed.saturating_add(*used);
            if freed >= units {
                return slot_start(slot.saturating_add(SLOTS + 1), window_millis);
            }
        }
        0
    }

    /// What a token bucket would hold had it seen these slots, each at its end: never less than the truth, and more by
    /// what leaks in a slot at most.
    pub fn as_bucket(&self, policy: &Policy) -> Usage {
        let (mut level, mut at) = (0, Timestamp::default());
        for (slot, units) in &self.0 {
            let end = Timestamp::from_millis(slot_start(slot.saturating_add(1), policy.window_millis()));
            level = leaked(level, end.millis_since(at), policy)
                .saturating_add(units.saturating_mul(policy.window_millis()));
            at = end;
        }
        let capacity = policy.limit.saturating_mul(policy.window_millis());
        Usage::TokenBucket { level: level.min(capacity), at }
    }

    /// What a fixed window would have counted of these slots.
    pub fn as_fixed(&self, policy: &Policy, now: Timestamp) -> Usage {
        let window = now.millis() / policy.window_millis().max(1);
        let inside = self.0.iter().filter(|(slot, _)| *slot / SLOTS == window);
        Usage::FixedWindow { window, used: inside.fold(0, |sum, (_, units)| sum.saturating_add(*units)) }
    }
}

/// The level after `elapsed_millis` of leaking.
fn leaked(level: u64, elapsed_millis: u64, policy: &Policy) -> u64 {
    let leak = u128::from(elapsed_millis) * u128::from(policy.limit);
    level.saturating_sub(u64::try_from(leak).unwrap_or(u64::MAX))
}

fn seconds_up(millis: u64) -> u64 {
    millis.div_ceil(1000)
}

/// How a cost stands against what is used.
struct Standing {
    remaining: u64,
    /// Milliseconds until everything is available.
    reset_millis: u64,
    /// Milliseconds until one more unit is available.
    next_millis: u64,
    /// Milliseconds until the cost is available; zero when it is.
    wait_millis: u64,
}

impl Usage {
    /// Nothing used.
    pub fn new(algorithm: Algorithm, now: Timestamp) -> Self {
        match algorithm {
            Algorithm::TokenBucket => Self::TokenBucket { level: 0, at: now },
            Algorithm::FixedWindow => Self::FixedWindow { window: 0, used: 0 },
            Algorithm::SlidingWindow => Self::SlidingWindow { slots: Slots::default() },
        }
    }

    /// The usage at `now`. A clock that went back makes nothing come back twice.
    #[must_use]
    pub fn at(mut self, policy: &Policy, now: Timestamp) -> Self {
        let window_millis = policy.window_millis();
        match &mut self {
            Self::TokenBucket { level, at } => {
                *level = leaked(*level, now.millis_since(*at), policy);
                *at = now.max(*at);
            }
            Self::FixedWindow { window, used } => {
                let present = now.millis() / window_millis.max(1);
                if present > *window {
                    (*window, *used) = (present, 0);
                }
            }
            Self::SlidingWindow { slots } => slots.expire(now, window_millis),
        }
        self
    }

    fn standing(&self, policy: &Policy, cost: u64, now: Timestamp) -> Standing {
        let (limit, window_millis) = (policy.limit, policy.window_millis());
        match self {
            Self::TokenBucket { level, at } => {
                // Milliseconds until the level has sunk to leave room for so many units.
                let until = |units: u64| {
                    let allowed = limit.saturating_sub(units).saturating_mul(window_millis);
                    match level.saturating_sub(allowed) {
                        0 => 0,
                        excess => excess.div_ceil(limit.max(1)).saturating_add(at.millis_since(now)),
                    }
                };
                let remaining = limit.saturating_mul(window_millis).saturating_sub(*level) / window_millis.max(1);
                let next_millis = if *level == 0 { 0 } else { until(remaining.saturating_add(1).min(limit)) };
                Standing { remaining, reset_millis: until(limit), next_millis, wait_millis: until(cost.min(limit)) }
            }
            Self::FixedWindow { window, used } => {
                let end = window.saturating_add(1).saturating_mul(window_millis).saturating_sub(now.millis());
                let remaining = limit.saturating_sub(*used);
                let reset_millis = if *used == 0 { 0 } else { end };
                let wait_millis = if cost <= remaining { 0 } else { end };
                Standing { remaining, reset_millis, next_millis: reset_millis, wait_millis }
            }
            Self::SlidingWindow { slots } => {
                let used = slots.used();
                let remaining = limit.saturating_sub(used);
                let until = |units: u64| match units {
                    0 => 0,
                    units => slots.freed_at(units, window_millis).saturating_sub(now.millis()),
                };
                let wait_millis = until(cost.min(limit).saturating_sub(remaining));
                Standing { remaining, reset_millis: until(used), next_millis: until(used.min(1)), wait_millis }
            }
        }
    }

    /// Decides about `cost` units; answers with what is used after it. A cost of zero, or a `peek`, only looks: the
    /// decision then says whether the cost would be admitted.
    pub fn check(self, policy: &Policy, cost: u64, peek: bool, now: Timestamp) -> (Self, Decision) {
        let mut usage = self.at(policy, now);
        let before = usage.standing(policy, cost, now);
        let allowed = cost <= policy.limit && before.wait_millis == 0;
        if allowed && !peek {
            usage.take(policy, cost, now);
        }
        let after = usage.standing(policy, 0, now);
        let will_ever = !allowed && cost <= policy.limit;
        let decision = Decision {
            allowed,
            limit: policy.limit,
            remaining: after.remaining,
            reset_seconds: seconds_up(after.reset_millis),
            next_seconds: seconds_up(after.next_millis),
            retry_after_seconds: will_ever.then(|| seconds_up(before.wait_millis).max(1)),
        };
        (usage, decision)
    }

    fn take(&mut self, policy: &Policy, cost: u64, now: Timestamp) {
        match self {
            Self::TokenBucket { level, .. } => {
                *level = level.saturating_add(cost.saturating_mul(policy.window_millis()));
            }
            Self::FixedWindow { used, .. } => *used = used.saturating_add(cost),
            Self::SlidingWindow { slots } => slots.add(cost, now, policy.window_millis()),
        }
    }

    /// The usage without `cost` units that were taken at `then`: never less than if they had not been taken, so giving
    /// back cannot overshoot. What came back by itself since then is not given twice, so a bucket may get less.
    #[must_use]
    pub fn give_back(self, policy: &Policy, cost: u64, then: Timestamp, now: Timestamp) -> Self {
        let mut usage = self.at(policy, now);
        let window_millis = policy.window_millis();
        match &mut usage {
            Self::TokenBucket { level, .. } => {
                // The units may have been all that leaked since.
                let left = leaked(cost.saturating_mul(window_millis), now.millis_since(then), policy);
                *level = level.saturating_sub(left);
            }
            Self::FixedWindow { window, used } if *window == then.millis() / window_millis.max(1) => {
                *used = used.saturating_sub(cost);
            }
            Self::FixedWindow { .. } => {}
            Self::SlidingWindow { slots } => slots.remove(cost, then, window_millis),
        }
        usage
    }

    /// The same use under a changed policy: as many units are used as before, rounded up, as if just now.
    #[must_use]
    pub fn adapt(self, old: &Policy, new: &Policy, now: Timestamp) -> Self {
        let usage = self.at(old, now);
        let used = old.limit.saturating_sub(usage.standing(old, 0, now).remaining).min(new.limit);
        let mut adapted = Self::new(new.algorithm, now).at(new, now);
        adapted.take(new, used, now);
        adapted
    }

    /// Whether nothing is used at `now`, so that forgetting it changes no answer.
    pub fn is_empty(&self, policy: &Policy, now: Timestamp) -> bool {
        self.clone().at(policy, now).standing(policy, 0, now).reset_millis == 0
    }
}
