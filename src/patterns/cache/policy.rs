//! How long a value may be used and when it is refreshed: pure decisions, `now` and randomness passed in.
//!
//! Early refresh is `XFetch`: Vattani, Chierichetti, Lowenstein, "Optimal probabilistic cache stampede prevention", PVLDB
//! 8(8), 2015. A request refreshes early when `now + δ β Exp(1) ≥ expiry`, with δ the time the last computation took; at a
//! steady rate about e^(1/β) requests do so, however many there are. Three corrections for Workers KV:
//!
//! - the promise holds **per location**: another location keeps its old copy for as long as KV lets it;
//! - δ has a floor, because the platform's clock stands still while code computes, and a computation without I/O takes 0;
//! - the head start is at most half of the time to live, so a slow computation does not refresh all the time.
//!
//! Windows of staleness count from the moment a value stops being fresh: RFC 5861 §§3, 4.

use crate::clock::Timestamp;
use crate::random::Random;

use super::entry::Head;
use super::marks::Marked;

/// Longest lifetime and longest window of staleness, in seconds: one year.
pub const SECONDS_MAX: u64 = 31_536_000;

/// For how long one value may be used, in seconds. Each is brought to at most [`SECONDS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// It is fresh for so long.
    pub ttl_seconds: u64,
    /// After that it may be served for so long while it is being refreshed.
    pub stale_while_revalidate_seconds: u64,
    /// After that it may be served for so long when refreshing it fails.
    pub stale_if_error_seconds: u64,
}

impl Life {
    /// Fresh for `ttl_seconds`, and nothing after.
    pub const fn seconds(ttl_seconds: u64) -> Self {
        Self { ttl_seconds, stale_while_revalidate_seconds: 0, stale_if_error_seconds: 0 }
    }
}

/// How a read-through cache behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The life of a value for which the computation says nothing else.
    pub life: Life,
    /// The life of a negative result; not cached when its `ttl_seconds` is 0.
    pub negative: Life,
    /// By how many thousandths, at most, a time to live is cut at random, so that what was filled together does not expire
    /// together.
    pub jitter_permille: u32,
    /// The β of `XFetch`: larger refreshes earlier, 0 not at all before the expiry.
    pub early_refresh_beta: f64,
    /// The least δ taken for granted, in milliseconds.
    pub cost_millis_min: u64,
    /// How long a caller who could get a stale value waits for a new one, in milliseconds.
    pub soft_timeout_millis: u64,
    /// How long a caller waits who could get nothing else, in milliseconds.
    pub hard_timeout_millis: u64,
    /// How long a caller waits for a computation that another one began, before it begins its own, in milliseconds.
    pub join_millis: u64,
    /// After a failure, for how long a stale value is served without trying again, in seconds.
    pub retry_seconds: u64,
    /// How long a refresh keeps other locations from refreshing too, in seconds; nothing: they are not told. It costs a
    /// read and a write per refresh and is a hint: see the pattern's head.
    pub lease_seconds: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            life: Life { ttl_seconds: 300, stale_while_revalidate_seconds: 60, stale_if_error_seconds: 3600 },
            negative: Life::seconds(10),
            jitter_permille: 50,
            early_refresh_beta: 1.0,
            cost_millis_min: 100,
            soft_timeout_millis: 1000,
            hard_timeout_millis: 30_000,
            join_millis: 10_000,
            retry_seconds: 10,
            lease_seconds: None,
        }
    }
}

/// What may be done with a value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and refresh it in the background: its expiry is near.
    Early,
    /// Serve it, and refresh it in the background: it is stale.
    Stale,
    /// Refresh it, and serve it only if that fails.
    IfError,
    /// It must not be used.
    Over,
}

/// What may be done with the value of `head`, where `marked` is what invalidated it.
pub fn freshness(head: &Head, marked: Marked, now: Timestamp) -> Freshness {
    if marked.gone.is_some_and(|gone| head.asked <= gone) {
        return Freshness::Over;
    }
    let soft = marked.stale.filter(|stale| head.asked <= *stale);
    // A soft mark ends freshness early; the windows after it move along.
    let early_millis = soft.map_or(0, |stale| head.fresh_until.millis_since(stale));
    let before = |until: Timestamp| now.plus_millis(early_millis) < until;
    if before(head.fresh_until) {
        Freshness::Fresh
    } else if before(head.stale_until) {
        Freshness::Stale
    } else if before(head.error_until) {
        Freshness::IfError
    } else {
        Freshness::Over
    }
}

/// Whether a fresh value should be refreshed already: `XFetch` with the corrections above.
#[allow(clippy::cast_precision_loss, reason = "milliseconds of at most a year are exact in a double")]
pub fn refreshes_early(head: &Head, policy: &Policy, now: Timestamp, random: &impl Random) -> bool {
    let life = head.fresh_until.millis_since(head.born) as f64;
    let left = head.fresh_until.millis_since(now) as f64;
    let cost = head.cost_millis.max(policy.cost_millis_min) as f64;
    // `unit` can be 0 and is never 1, and the logarithm of 0 is infinite.
    let exponential = -(1.0 - random.unit()).ln();
    let head_start = (cost * policy.early_refresh_beta * exponential).min(life / 2.0);
    policy.early_refresh_beta > 0.0 && head_start >= left
}

/// The time to live in milliseconds, cut by a random part of at most `jitter_permille` thousandths.
pub fn jittered_millis(ttl_seconds: u64, jitter_permille: u32, random: &impl Random) -> u64 {
    let millis = ttl_seconds.min(SECONDS_MAX) * 1000;
    let cut_max = millis / 1000 * u64::from(jitter_permille.min(1000));
    // A value is fresh for a millisecond at least, however much is cut.
    millis.saturating_sub(random.below(cut_max.saturating_add(1))).max(1)
}

/// The δ to remember: half of what it was, half of what it took this time, so that one slow answer does not decide.
pub fn smoothed_cost_millis(before: Option<u64>, took: u64) -> u64 {
    before.map_or(took, |before| before.midpoint(took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn head(life: Life) -> Head {
        let fresh_until = NOW.plus_seconds(life.ttl_seconds);
        Head {
            value: "x.1".to_owned(),
            asked: NOW,
            born: NOW,
            fresh_until,
            stale_until: fresh_until.plus_seconds(life.stale_while_revalidate_seconds),
            error_until: fresh_until.plus_seconds(life.stale_if_error_seconds),
            cost_millis: 0,
            tags: Vec::new(),
            nothing: false,
        }
    }

    const LIFE: Life = Life { ttl_seconds: 10, stale_while_revalidate_seconds: 5, stale_if_error_seconds: 20 };

    #[track_caller]
    fn check(marked: Marked, after_millis: u64, expected: Freshness) {
        assert_eq!(freshness(&head(LIFE), marked, NOW.plus_millis(after_millis)), expected);
    }

    #[test]
    fn both_windows_count_from_the_moment_of_becoming_stale() {
        for (after, expected) in [
            (0, Freshness::Fresh),
            (9_999, Freshness::Fresh),
            (10_000, Freshness::Stale),
            (14_999, Freshness::Stale),
            (15_000, Freshness::IfError),
            (29_999, Freshness::IfError),
            (30_000, Freshness::Over),
        ] {
            check(Marked::default(), after, expected);
        }
    }

    #[test]
    fn a_mark_covers_what_was_asked_for_up_to_it_and_nothing_after() {
        let gone = |gone| Marked { gone: Some(gone), stale: None };
        check(gone(NOW), 1, Freshness::Over);
        check(gone(Timestamp::from_millis(NOW.millis() - 1)), 1, Freshness::Fresh);
        let soft = Marked { gone: None, stale: Some(NOW.plus_seconds(2)) };
        check(soft, 2000, Freshness::Stale);
        check(soft, 7000, Freshness::IfError);
        check(soft, 22_000, Freshness::Over);
        check(Marked { gone: None, stale: Some(NOW.plus_seconds(12)) }, 14_000, Freshness::Stale);
    }

    #[test]
    fn the_chance_of_an_early_refresh_is_the_exponential_of_the_time_left() {
        let random = SeededRandom::new(1);
        let policy = Policy { cost_millis_min: 0, ..Policy::default() };
        let head = Head { cost_millis: 1000, ..head(Life::seconds(300)) };
        for left_millis in [500, 1000, 2000, 4000] {
            let now = Timestamp::from_millis(head.fresh_until.millis() - left_millis);
            let count = (0..100_000).filter(|_| refreshes_early(&head, &policy, now, &random)).count();
            let expected = (-(f64::from(u32::try_from(left_millis).unwrap())) / 1000.0).exp();
            let measured = f64::from(u32::try_from(count).unwrap()) / 100_000.0;
            assert!((measured - expected).abs() < 0.01, "{left_millis} ms before: {measured}, not {expected}");
        }
    }

    #[test]
    fn a_computation_that_took_no_time_is_still_refreshed_early() {
        let random = SeededRandom::new(2);
        let head = head(Life::seconds(300));
        let now = Timestamp::from_millis(head.fresh_until.millis() - 100);
        let count = |policy: &Policy| (0..10_000).filter(|_| refreshes_early(&head, policy, now, &random)).count();
        let policy = Policy { cost_millis_min: 100, ..Policy::default() };
        assert!((3000..4400).contains(&count(&policy)), "{} of 10000, expected 1/e", count(&policy));
        assert_eq!(count(&Policy { early_refresh_beta: 0.0, ..policy }), 0);
    }

    proptest! {
        #[test]
        fn the_head_start_never_passes_half_of_the_life(
            cost_millis in 0_u64..10_000_000, beta in 0.0_f64..1000.0, seed: u64, ttl_seconds in 1_u64..1000,
        ) {
            let head = Head { cost_millis, ..head(Life::seconds(ttl_seconds)) };
            let policy = Policy { early_refresh_beta: beta, ..Policy::default() };
            let now = NOW.plus_millis(ttl_seconds * 500 - 1);
            prop_assert!(!refreshes_early(&head, &policy, now, &SeededRandom::new(seed)));
        }

        #[test]
        fn jitter_only_shortens_and_never_to_nothing(ttl in 0_u64..100_000_000, permille: u32, seed: u64) {
            let millis = jittered_millis(ttl, permille, &SeededRandom::new(seed));
            prop_assert!(millis >= 1 && millis <= (ttl.min(SECONDS_MAX) * 1000).max(1));
        }

        #[test]
        fn a_value_never_gets_fresher(after in 0_u64..40_000, later in 0_u64..40_000, mark in 0_u64..40_000, soft: bool) {
            let at = Some(NOW.plus_millis(mark));
            let marked = if soft { Marked { gone: None, stale: at } } else { Marked { gone: at, stale: None } };
            let at = |millis| freshness(&head(LIFE), marked, NOW.plus_millis(millis));
            let unmarked = |millis| freshness(&head(LIFE), Marked::default(), NOW.plus_millis(millis));
            prop_assert!(at(after) <= at(after + later));
            prop_assert!(unmarked(after) <= at(after));
        }
    }

    #[test]
    fn one_slow_answer_does_not_decide() {
        assert_eq!(smoothed_cost_millis(None, 80), 80);
        assert_eq!(smoothed_cost_millis(Some(100), 1000), 550);
        assert_eq!(smoothed_cost_millis(Some(u64::MAX), u64::MAX), u64::MAX);
    }
}
