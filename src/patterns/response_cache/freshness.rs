//! How old a stored response is, how long it lives, how long it may be served stale, and when to refresh it early.
//!
//! Ages count from the origin's clock where it is ahead of what we measured, so several caches in a row add up (RFC 9111 §4.2.3).

use super::directives::MAX_DELTA_SECONDS;
use super::entry::{Entry, Expires};
use super::policy::{DEFAULT_FRESH_SECONDS, OriginPolicy};
use crate::clock::Timestamp;

/// The heuristic lifetime is at most this, in seconds; RFC 9111 §4.2.2 leaves the cap to the cache.
pub const MAX_HEURISTIC_SECONDS: u64 = 86_400;
/// XFetch's delta is at least this, in milliseconds: the platform's clock stands still while code runs, so a short
/// computation measures 0 and would never be refreshed early.
pub const MIN_COST_MILLIS: u64 = 100;

/// The life of one stored response at one moment, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `freshness_lifetime` of RFC 9111 §4.2.1.
    pub lifetime_millis: u64,
    /// `current_age` of RFC 9111 §4.2.3.
    pub age_millis: u64,
    /// For how long past the lifetime it may be served while it is refreshed (RFC 5861 §3).
    pub stale_while_revalidate_millis: u64,
    /// For how long past the lifetime it may replace an error (RFC 5861 §4).
    pub stale_if_error_millis: u64,
    /// For how long past the lifetime it may be served when the origin cannot be reached (RFC 9111 §4.2.4).
    pub stale_if_unreachable_millis: u64,
    /// Whether serving it stale is forbidden altogether.
    pub forbids_stale: bool,
}

impl Freshness {
    /// The life of `entry` at `now`.
    pub fn of(entry: &Entry, policy: &OriginPolicy, now: Timestamp) -> Self {
        let controls = entry.controls();
        let respected = policy.respect_cache_control;
        let forbids_stale = respected && controls.forbids_stale();
        let window = |stated: Option<u64>, default: u64| {
            let seconds = if respected { stated.unwrap_or(default) } else { default };
            if forbids_stale { 0 } else { millis(seconds) }
        };
        let stated_error = controls.stale_if_error_seconds;
        let unreachable = if policy.stale_on_connection_failure { policy.stale_if_error_seconds } else { 0 };
        Self {
            lifetime_millis: lifetime_millis(entry, policy),
            age_millis: age_millis(entry, now),
            stale_while_revalidate_millis: window(controls.stale_while_revalidate_seconds, policy.stale_seconds),
            stale_if_error_millis: window(stated_error, policy.stale_if_error_seconds),
            stale_if_unreachable_millis: window(stated_error, unreachable),
            forbids_stale,
        }
    }

    /// `response_is_fresh` (RFC 9111 §4.2).
    pub const fn is_fresh(&self) -> bool {
        self.lifetime_millis > self.age_millis
    }

    /// For how long it has been stale.
    pub const fn staleness_millis(&self) -> u64 {
        self.age_millis.saturating_sub(self.lifetime_millis)
    }

    /// How much of the lifetime is left.
    pub const fn remaining_millis(&self) -> u64 {
        self.lifetime_millis.saturating_sub(self.age_millis)
    }

    /// Whether it is stale by no more than `window_millis`, and may be.
    pub const fn stale_within(&self, window_millis: u64) -> bool {
        !self.forbids_stale && !self.is_fresh() && self.staleness_millis() < window_millis
    }

    /// What is left in seconds, negative when stale (`ttl` of RFC 9211 §2.6).
    pub fn ttl_seconds(&self) -> i64 {
        let signed = |millis: u64| i64::try_from(millis / 1000).unwrap_or(i64::MAX);
        signed(self.lifetime_millis).saturating_sub(signed(self.age_millis))
    }

    /// `Age` in seconds (RFC 9111 §5.1).
    pub const fn age_seconds(&self) -> u64 {
        self.age_millis / 1000
    }

    /// For how long from now the response can be of any use without a validator, in milliseconds.
    pub fn useful_millis(&self) -> u64 {
        let windows =
            [self.stale_while_revalidate_millis, self.stale_if_error_millis, self.stale_if_unreachable_millis];
        let longest = windows.into_iter().max().unwrap_or(0);
        self.lifetime_millis.saturating_add(longest).saturating_sub(self.age_millis)
    }
}

const fn millis(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

/// `freshness_lifetime`, in milliseconds. A soft purge ends it, and the windows of staleness begin there.
fn lifetime_millis(entry: &Entry, policy: &OriginPolicy) -> u64 {
    let lifetime = millis(lifetime_seconds(entry, policy));
    entry.expired_at().map_or(lifetime, |at| lifetime.min(age_millis(entry, at)))
}

/// `current_age` (RFC 9111 §4.2.3).
fn age_millis(entry: &Entry, now: Timestamp) -> u64 {
    let stored = entry.stored();
    // `Date` has whole seconds, so it is compared with whole seconds; else each response would start up to a second old.
    let received_seconds = super::date::whole_seconds(stored.received_at);
    let apparent_age = u64::try_from(received_seconds.saturating_sub(entry.date_seconds())).unwrap_or(0);
    let response_delay = stored.received_at.millis_since(stored.requested_at);
    let corrected_age_value = millis(entry.age_value_seconds()).saturating_add(response_delay);
    let corrected_initial_age = millis(apparent_age).max(corrected_age_value);
    corrected_initial_age.saturating_add(now.millis_since(stored.received_at))
}

/// `freshness_lifetime` (RFC 9111 §4.2.1): `s-maxage`, `max-age`, `Expires`, then the operator's, then the heuristic.
pub fn lifetime_seconds(entry: &Entry, policy: &OriginPolicy) -> u64 {
    let status = entry.stored().status;
    if !policy.respect_cache_control {
        let configured = policy.fresh_seconds.unwrap_or(DEFAULT_FRESH_SECONDS);
        return if takes_configured_lifetime(status) { configured } else { 0 };
    }
    let controls = entry.controls();
    if let Some(seconds) = controls.s_maxage_seconds.or(controls.max_age_seconds) {
        return seconds;
    }
    if !controls.targeted {
        match entry.expires() {
            Expires::At(at) => return between(entry.date_seconds(), at),
            // An invalid date, especially 0, is in the past (RFC 9111 §5.3).
            Expires::Invalid => return 0,
            Expires::Absent => {}
        }
    }
    match policy.fresh_seconds {
        Some(configured) if takes_configured_lifetime(status) => configured,
        _ if is_heuristically_cacheable(status) || controls.public => heuristic_seconds(entry),
        _ => 0,
    }
}

fn between(earlier: i64, later: i64) -> u64 {
    u64::try_from(later.saturating_sub(earlier)).unwrap_or(0).min(MAX_DELTA_SECONDS)
}

/// A tenth of the time since the last modification (RFC 9111 §4.2.2), and never anything without one.
fn heuristic_seconds(entry: &Entry) -> u64 {
    let Some(modified) = entry.last_modified_seconds() else { return 0 };
    (between(modified, entry.date_seconds()) / 10).min(MAX_HEURISTIC_SECONDS)
}

/// RFC 9110 §15.1
pub const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Responses an operator's default lifetime applies to: not those an odd request can provoke (405, 414, 501), which
/// would let one client replace a page by an error for all.
const fn takes_configured_lifetime(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 410)
}

/// XFetch: whether this request should refresh a fresh response before it expires. `unit` is uniform in \[0, 1).
///
/// Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015: refresh when
/// `now - delta * beta * ln(rand) >= expiry`, so each request does with probability exp(-remaining / (beta * delta)). Corrected for
/// Workers: delta has a floor and is at most half the lifetime, and the head start is at most a quarter of it, so that a slow origin does not eat the lifetime.
#[allow(clippy::cast_precision_loss, reason = "milliseconds of a lifetime are far below 2^53")]
pub fn refreshes_early(freshness: &Freshness, cost_millis: u64, beta: f64, unit: f64) -> bool {
    let lifetime = freshness.lifetime_millis;
    let remaining = freshness.remaining_millis();
    if beta <= 0.0 || remaining == 0 || remaining > lifetime / 4 {
        return false;
    }
    let delta = cost_millis.max(MIN_COST_MILLIS).min(lifetime / 2);
    // `unit` may be 0 and the logarithm must not see it.
    let head_start = delta as f64 * beta * -(1.0 - unit).ln();
    head_start >= remaining as f64
}

/// The cost to remember after another fetch: three quarters of the old, one of the new.
pub const fn smoothed_cost(old_millis: u64, new_millis: u64) -> u64 {
    old_millis.saturating_mul(3).saturating_add(new_millis) / 4
}
