//! Goal: limits admit what their algorithm says, to the millisecond. Method: the GCRA table known from redis-cell and
//! throttled, written as data; differential properties against logs of everything admitted; isolates by hand.

use kv_patterns::background::Deferred;
use kv_patterns::clock::{ManualClock, Timestamp};
use kv_patterns::kv::{MemoryStore, Meter, Metered, PageRequest};
use kv_patterns::patterns::rate_limit::approximate::{Approximate, Counts};
use kv_patterns::patterns::rate_limit::exact::{self, Question, State};
use kv_patterns::patterns::rate_limit::header::{self, Draft};
use kv_patterns::patterns::rate_limit::local::Local;
use kv_patterns::patterns::rate_limit::policy::{self, LIMIT_MAX, WINDOW_SECONDS_MAX};
use kv_patterns::patterns::rate_limit::{
    Algorithm, Decision, Mode, OnFailure, Policy, PolicyInvalid, Usage, normalise,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{START, SharedRandom, block_on, store, tenant};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];

fn policy(algorithm: Algorithm, limit: u64, window_seconds: u64) -> Policy {
    let (mode, on_failure, updated_at) = (Mode::Exact, OnFailure::Allow, START);
    Policy { limit, window_seconds, algorithm, mode, on_failure, updated_at }
}

/// One row: milliseconds since the start, units asked for; remaining, seconds until full, seconds to wait or none,
/// whether denied. One unit a second, at most five at once.
const GCRA: [(u64, u64, u64, u64, Option<u64>, bool); 15] = [
    (0, 6, 5, 0, None, true),
    (0, 1, 4, 1, None, false),
    (0, 1, 3, 2, None, false),
    (0, 1, 2, 3, None, false),
    (0, 1, 1, 4, None, false),
    (0, 1, 0, 5, None, false),
    (0, 1, 0, 5, Some(1), true),
    (3000, 1, 2, 3, None, false),
    (3100, 1, 1, 4, None, false), // 3.9 s, rounded up
    (4000, 1, 1, 4, None, false),
    (8000, 1, 4, 1, None, false),
    (9500, 1, 4, 1, None, false),
    (9500, 0, 4, 1, None, false),
    (9500, 2, 2, 3, None, false),
    (9500, 5, 2, 3, Some(3), true),
];

#[test]
fn the_token_bucket_gives_the_gcra_table() {
    let policy = policy(Algorithm::TokenBucket, 5, 5);
    let mut usage = Usage::new(Algorithm::TokenBucket, START);
    for (row, (at, cost, remaining, reset, retry, limited)) in GCRA.into_iter().enumerate() {
        let (next, decision) = usage.check(&policy, cost, false, START.plus_millis(at));
        usage = next;
        let seen = (decision.remaining, decision.reset_seconds, decision.retry_after_seconds, !decision.allowed);
        assert_eq!(seen, (remaining, reset, retry, limited), "row {row}");
    }
}

/// Everything admitted, and what each algorithm means by it, without any cleverness.
#[derive(Default)]
struct Log(Vec<(u64, u64)>);

impl Log {
    fn within(&self, from: u64, to: u64) -> u64 {
        self.0.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, cost)| cost).sum()
    }

    /// Whether a bucket of `limit` units, refilled evenly, has `cost` left: from every moment since which it has not
    /// been full, no more was taken than the bucket and its refill. In units of 1/limit milliseconds.
    fn bucket_allows(&self, policy: &Policy, cost: u64, now: u64) -> bool {
        let window = u128::from(policy.window_millis());
        let capacity = u128::from(policy.limit) * window;
        let mut starts: Vec<u64> = self.0.iter().map(|(at, _)| *at).collect();
        starts.push(now);
        starts.into_iter().all(|start| {
            let taken = u128::from(self.within(start, now) + cost) * window;
            taken <= capacity + u128::from(now - start) * u128::from(policy.limit)
        })
    }

    fn fixed_allows(&self, policy: &Policy, cost: u64, now: u64) -> bool {
        let start = now / policy.window_millis() * policy.window_millis();
        self.within(start, now) + cost <= policy.limit
    }

    fn sliding_allows(&self, policy: &Policy, cost: u64, now: u64, slack_millis: u64) -> bool {
        let from = (now + 1).saturating_sub(policy.window_millis() + slack_millis);
        self.within(from, now) + cost <= policy.limit
    }
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((prop_oneof![0..50_u64, 0..2000_u64, 0..40_000_u64], 0..7_u64), 1..60)
}

proptest! {
    #[test]
    fn token_bucket_and_fixed_window_equal_the_log(limit in 1..20_u64, window in 1..30_u64, steps in steps()) {
        for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
            let policy = policy(algorithm, limit, window);
            let (mut usage, mut log, mut now) = (Usage::new(algorithm, START), Log::default(), START);
            for (wait, cost) in &steps {
                now = now.plus_millis(*wait);
                let expected = match algorithm {
                    Algorithm::TokenBucket => log.bucket_allows(&policy, *cost, now.millis()),
                    _ => log.fixed_allows(&policy, *cost, now.millis()),
                };
                let (next, decision) = usage.check(&policy, *cost, false, now);
                usage = next;
                prop_assert_eq!(decision.allowed, expected, "{:?} at {:?}", algorithm, now);
                if decision.allowed {
                    log.0.push((now.millis(), *cost));
                }
            }
        }
    }

    #[test]
    fn the_sliding_window_never_overshoots_and_is_late_by_a_sixtieth_at_most(
        limit in 1..20_u64, window in 1..30_u64, steps in steps(),
    ) {
        let policy = policy(Algorithm::SlidingWindow, limit, window);
        let (mut usage, mut log, mut now) = (Usage::new(policy.algorithm, START), Log::default(), START);
        let slack = policy.window_millis().div_ceil(60) + 1;
        for (wait, cost) in steps {
            now = now.plus_millis(wait);
            let (next, decision) = usage.check(&policy, cost, false, now);
            usage = next;
            if decision.allowed {
                prop_assert!(log.sliding_allows(&policy, cost, now.millis(), 0), "overshot at {now:?}");
                log.0.push((now.millis(), cost));
            } else {
                prop_assert!(!log.sliding_allows(&policy, cost, now.millis(), slack), "denied too long at {now:?}");
            }
        }
    }

    /// Units that are given back leave nothing behind, and never more room than if they had not been taken.
    #[test]
    fn giving_back_never_overshoots_and_at_once_it_changes_nothing(
        algorithm in 0..3_usize, limit in 1..20_u64, window in 1..30_u64, steps in steps(), held in vec((1..5_u64, 0..4_usize), 60),
    ) {
        let policy = policy(ALGORITHMS[algorithm], limit, window);
        let (mut usage, mut log, mut now) = (Usage::new(policy.algorithm, START), Log::default(), START);
        // What is to be given back, and after how many steps.
        let mut due: Vec<(usize, u64, Timestamp)> = Vec::new();
        for (step, ((wait, cost), (units, after))) in steps.into_iter().zip(held).enumerate() {
            now = now.plus_millis(wait);
            let before = usage.clone().at(&policy, now);
            let (taken, decision) = usage.check(&policy, units, false, now);
            if decision.allowed && after == 0 {
                usage = taken.give_back(&policy, units, now, now);
                prop_assert_eq!(&usage, &before);
            } else {
                if decision.allowed {
                    due.push((step + after, units, now));
                }
                usage = taken;
            }
            let (next, decision) = usage.check(&policy, cost, false, now);
            usage = next;
            if decision.allowed {
                let allowed = match policy.algorithm {
                    Algorithm::TokenBucket => log.bucket_allows(&policy, cost, now.millis()),
                    Algorithm::FixedWindow => log.fixed_allows(&policy, cost, now.millis()),
                    Algorithm::SlidingWindow => log.sliding_allows(&policy, cost, now.millis(), 0),
                };
                prop_assert!(allowed, "overshot at {:?}", now);
                log.0.push((now.millis(), cost));
            }
            for (_, units, then) in due.extract_if(.., |(at, ..)| *at <= step) {
                usage = usage.give_back(&policy, units, then, now);
            }
        }
    }

    #[test]
    fn retry_after_is_enough_and_never_a_second_too_long(
        algorithm in 0..3_usize, limit in 1..20_u64, window in 1..30_u64, steps in steps(), cost in 1..20_u64,
    ) {
        let policy = policy(ALGORITHMS[algorithm], limit, window);
        let (mut usage, mut now) = (Usage::new(policy.algorithm, START), START);
        for (wait, cost) in steps {
            now = now.plus_millis(wait);
            usage = usage.check(&policy, cost, false, now).0;
        }
        let (_, decision) = usage.clone().check(&policy, cost, true, now);
        prop_assert_eq!(decision.allowed && decision.retry_after_seconds.is_some(), false);
        if let Some(seconds) = decision.retry_after_seconds {
            prop_assert!(usage.clone().check(&policy, cost, true, now.plus_seconds(seconds)).1.allowed);
            if seconds > 1 {
                prop_assert!(!usage.clone().check(&policy, cost, true, now.plus_seconds(seconds - 1)).1.allowed);
            }
        } else if !decision.allowed {
            prop_assert!(cost > limit);
        }
        let later = now.plus_seconds(decision.reset_seconds);
        prop_assert!(usage.is_empty(&policy, later), "{usage:?} is not empty at {later:?}");
        if decision.next_seconds > 0 {
            let next = usage.check(&policy, 0, true, now.plus_seconds(decision.next_seconds)).1;
            prop_assert!(next.remaining > decision.remaining || policy.algorithm == Algorithm::TokenBucket && next.remaining == limit);
        }
    }

    #[test]
    fn extremes_neither_panic_nor_overflow(
        algorithm in 0..3_usize,
        limit in prop_oneof![1..3_u64, LIMIT_MAX - 2..=LIMIT_MAX],
        window in prop_oneof![1..3_u64, WINDOW_SECONDS_MAX - 2..=WINDOW_SECONDS_MAX],
        steps in vec((any::<u64>(), any::<u64>()), 1..20),
    ) {
        let policy = policy(ALGORITHMS[algorithm], limit, window);
        prop_assert_eq!(policy.validate(), Ok(()));
        let mut usage = Usage::new(policy.algorithm, START);
        for (at, cost) in steps {
            let (next, decision) = usage.check(&policy, cost, false, Timestamp::from_millis(at));
            prop_assert!(decision.remaining <= limit && (!decision.allowed || cost <= limit));
            usage = next;
        }
    }

    #[test]
    fn usage_survives_storage(algorithm in 0..3_usize, steps in steps()) {
        let policy = policy(ALGORITHMS[algorithm], 9, 10);
        let (mut usage, mut now) = (Usage::new(policy.algorithm, START), START);
        for (wait, cost) in steps {
            now = now.plus_millis(wait);
            usage = usage.check(&policy, cost, false, now).0;
            let stored = serde_json::to_string(&usage).unwrap();
            prop_assert_eq!(serde_json::from_str::<Usage>(&stored).unwrap(), usage.clone());
        }
    }
}

#[test]
fn peeking_uses_nothing_and_says_what_a_check_would() {
    for algorithm in ALGORITHMS {
        let policy = policy(algorithm, 3, 60);
        let usage = Usage::new(algorithm, START);
        let (usage, peeked) = usage.check(&policy, 3, true, START);
        assert_eq!((peeked.allowed, peeked.remaining), (true, 3), "{algorithm:?}");
        let (usage, checked) = usage.check(&policy, 3, false, START);
        assert_eq!((checked.allowed, checked.remaining), (true, 0));
        let (_, peeked) = usage.check(&policy, 1, true, START);
        assert_eq!((peeked.allowed, peeked.remaining), (false, 0));
        assert!(peeked.retry_after_seconds.is_some());
    }
}

#[test]
fn windows_from_a_second_to_thirty_days_are_exact() {
    for window in [1, 59, 60, 3600, WINDOW_SECONDS_MAX] {
        for algorithm in ALGORITHMS {
            let policy = policy(algorithm, 1, window);
            let start = Timestamp::from_seconds(START.seconds() / window * window);
            let usage = Usage::new(algorithm, start).check(&policy, 1, false, start).0;
            let slack = if algorithm == Algorithm::SlidingWindow { policy.window_millis().div_ceil(60) } else { 0 };
            let end = policy.window_millis() + slack;
            assert!(!usage.clone().check(&policy, 1, true, start.plus_millis(end - 1 - slack)).1.allowed, "{window}");
            assert!(usage.check(&policy, 1, true, start.plus_millis(end)).1.allowed, "{algorithm:?} {window}");
        }
    }
}

#[test]
fn policies_are_refused_by_the_field_to_blame() {
    let check = |limit, window_seconds, mode, expected| {
        let policy = Policy { mode, ..policy(Algorithm::TokenBucket, limit, window_seconds) };
        assert_eq!(policy.validate(), expected);
    };
    check(0, 60, Mode::Exact, Err(PolicyInvalid::Limit));
    check(LIMIT_MAX + 1, 60, Mode::Exact, Err(PolicyInvalid::Limit));
    check(1, 0, Mode::Exact, Err(PolicyInvalid::Window));
    check(1, WINDOW_SECONDS_MAX + 1, Mode::Exact, Err(PolicyInvalid::Window));
    check(1, 1, Mode::Exact, Ok(()));
    check(1, 299, Mode::Approximate, Err(PolicyInvalid::WindowTooShortForKv));
    check(1, 300, Mode::Approximate, Ok(()));
    assert_eq!(PolicyInvalid::WindowTooShortForKv.field(), "windowSeconds");
}

#[test]
fn an_object_goes_by_the_newest_policy_and_keeps_what_was_used() {
    let old = policy(Algorithm::TokenBucket, 10, 60);
    let new = Policy { updated_at: START.plus_seconds(1), ..policy(Algorithm::FixedWindow, 12, 3600) };
    let ask = |state: Option<&State>, policy: &Policy, cost| {
        let question = Question { policy: policy.clone(), cost, peek: false, beside_others: false };
        let (state, answer) = exact::decide(state, &question, START);
        (state, answer.decision)
    };
    let (state, decision) = ask(None, &old, 8);
    assert_eq!((decision.allowed, decision.remaining), (true, 2));
    let (state, decision) = ask(Some(&state), &new, 1);
    assert_eq!((decision.allowed, decision.limit, decision.remaining), (true, 12, 3));
    let (state, decision) = ask(Some(&state), &old, 1);
    assert_eq!((decision.limit, decision.remaining), (12, 2), "a stale copy elsewhere changes nothing");
    let smaller = Policy { limit: 1, updated_at: START.plus_seconds(2), ..new };
    assert!(!ask(Some(&state), &smaller, 1).1.allowed);
}

#[test]
fn use_carried_over_to_a_shorter_window_comes_back_though_everything_is_refused_meanwhile() {
    for algorithm in ALGORITHMS {
        let old = policy(algorithm, 3, 2_592_000);
        let new = Policy { updated_at: START.plus_seconds(1), ..policy(algorithm, 3, 2) };
        let ask = |state: Option<State>, policy: &Policy, cost, at| {
            let question = Question { policy: policy.clone(), cost, peek: false, beside_others: false };
            let (next, answer) = exact::decide(state.as_ref(), &question, at);
            let kept = if exact::must_keep(state.as_ref(), &next, &answer) { Some(next) } else { state };
            (kept, answer.decision.allowed)
        };
        let (mut state, _) = ask(None, &old, 3, START);
        let mut admitted = false;
        for second in 2..10 {
            let (next, allowed) = ask(state, &new, 1, START.plus_seconds(second));
            state = next;
            admitted |= allowed;
        }
        assert!(admitted, "{algorithm:?}");
    }
}

#[test]
fn an_object_forgets_itself_only_when_that_changes_no_answer() {
    for algorithm in ALGORITHMS {
        let policy = policy(algorithm, 5, 60);
        let request = Question { policy: policy.clone(), cost: 3, peek: false, beside_others: false };
        let (state, _) = exact::decide(None, &request, START);
        assert!(!state.usage.is_empty(&policy, START.plus_seconds(1)));
        let at = exact::forget_at(&state, START);
        assert!(state.usage.is_empty(&policy, at));
        let decided = |state| exact::decide(state, &request, at).1.decision;
        assert_eq!(decided(Some(&state)), decided(None), "{algorithm:?}");
    }
}

fn denied(retry_after: u64) -> Decision {
    Decision {
        allowed: false,
        limit: 5,
        remaining: 0,
        reset_seconds: 50,
        next_seconds: 10,
        retry_after_seconds: Some(retry_after),
    }
}

#[test]
fn a_denial_is_remembered_for_its_cost_and_at_most_a_minute() {
    let (local, t, policy) = (Local::default(), tenant("t"), policy(Algorithm::TokenBucket, 5, 300));
    local.remember(&t, ("p", &policy), "x", 2, denied(600), START);
    let at = |seconds| START.plus_seconds(seconds);
    let (_, decision) = local.denied(&t, "p", "x", 2, at(7)).unwrap();
    assert_eq!((decision.retry_after_seconds, decision.next_seconds), (Some(593), 3));
    assert!(local.denied(&t, "p", "x", 3, at(59)).is_some(), "a greater cost is denied too");
    assert!(local.denied(&t, "p", "x", 1, at(7)).is_none(), "a smaller one may pass");
    assert!(local.denied(&t, "p", "x", 2, at(60)).is_none(), "a changed policy must come through");
    assert!(local.denied(&t, "p", "y", 2, at(7)).is_none());
    assert!(local.denied(&t, "q", "x", 2, at(7)).is_none());
    assert!(local.denied(&tenant("u"), "p", "x", 2, at(7)).is_none());
    local.remember(&t, ("p", &policy), "short", 1, denied(1), START);
    let admitted = Decision { allowed: true, retry_after_seconds: None, ..denied(600) };
    local.remember(&t, ("p", &policy), "moved", 2, denied(600), START);
    local.remember(&t, ("p", &policy), "moved", 1, admitted, START);
    assert_eq!(local.denied(&t, "p", "moved", 2, START), None, "what it said is no longer so");
    assert!(local.denied(&t, "p", "short", 1, START).is_none(), "the last second is not certain");
    local.remember(&t, ("p", &policy), "ok", 1, Decision { allowed: true, ..denied(9) }, START);
    assert!(local.denied(&t, "p", "ok", 1, START).is_none());
}

#[test]
fn local_memory_is_bounded() {
    let (local, t, policy) = (Local::default(), tenant("t"), policy(Algorithm::TokenBucket, 5, 300));
    for number in 0..6000 {
        local.remember(&t, ("p", &policy), &format!("{number:05}"), 1, denied(600), START);
    }
    let held = (0..6000).filter(|number| local.denied(&t, "p", &format!("{number:05}"), 1, START).is_some()).count();
    assert_eq!(held, 5000);
}

#[test]
fn a_policy_is_remembered_for_half_a_minute() {
    let (local, t, policy) = (Local::default(), tenant("t"), policy(Algorithm::TokenBucket, 5, 300));
    local.remember_policy(&t, "p", Some(&policy), START);
    assert_eq!(local.policy(&t, "p", START.plus_seconds(29)), Some(policy));
    assert_eq!(local.policy(&t, "p", START.plus_seconds(30)), None);
    local.remember_policy(&t, "p", None, START);
    assert_eq!(local.policy(&t, "p", START), None);
}

#[test]
fn an_ipv6_address_counts_as_its_network_and_addresses_have_one_form() {
    let check = |given: &str, expected: &str| assert_eq!(normalise(given), expected);
    check("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64");
    check("2001:0DB8:0001:0002:bbbb:0:0:2", "2001:db8:1:2::/64");
    check("::1", "::/64");
    check("::ffff:192.0.2.1", "192.0.2.1");
    check("192.0.2.1", "192.0.2.1");
    check("user:42", "user:42");
    check("2001:db8:1:2::/64", "2001:db8:1:2::/64");
}

#[test]
fn the_headers_are_those_of_the_draft() {
    let policy = policy(Algorithm::TokenBucket, 100, 60);
    let decision = Decision { remaining: 50, ..denied(30) };
    assert_eq!(header::policy(header::DRAFT, "burst", &policy), "\"burst\";q=100;w=60");
    assert_eq!(header::limit(header::DRAFT, "burst", &decision), "\"burst\";r=50;t=10");
    assert_eq!(header::policy(Draft::V07, "burst", &policy), "100;w=60");
    assert_eq!(header::limit(Draft::V07, "burst", &decision), "limit=5, remaining=50, reset=50");
    assert_eq!(header::retry_after(&denied(3)), Some(10), "never before the end of t");
    let empty = Decision { next_seconds: 0, ..denied(3) };
    assert_eq!(header::limit(header::DRAFT, "b", &empty), "\"b\";r=0;t=1");
}

#[test]
fn a_policys_name_cannot_break_out_of_its_header() {
    let policy = policy(Algorithm::TokenBucket, 1, 1);
    let name = header::policy(Draft::V11, "a\";q=9\\,é%", &policy);
    assert_eq!(name, "\"a\\\";q=9\\\\,%C3%A9%25\";q=1;w=1");
}

#[test]
fn policies_are_stored_read_and_listed() {
    let (_, store) = store();
    let meter = Meter::default();
    let store = Metered::new(store, meter.clone());
    let (t, policy) = (tenant("t"), policy(Algorithm::SlidingWindow, 5, 60));
    let long = "p".repeat(200);
    block_on(policy::put(&store, &t, &long, &policy)).unwrap();
    assert_eq!(block_on(policy::get(&store, &t, &long)), Ok(Some(policy.clone())));
    assert_eq!(block_on(policy::list(&store, &t, &PageRequest::default())), Ok((vec![(long.clone(), policy)], None)));
    assert_eq!(block_on(policy::get(&store, &tenant("u"), &long)), Ok(None));
    block_on(policy::delete(&store, &t, &long)).unwrap();
    assert_eq!(block_on(policy::get(&store, &t, &long)), Ok(None));
    assert_eq!(meter.to_string(), "r=3 w=1 d=1 l=1");
}

/// An isolate that limits approximately.
struct Isolate {
    limits: Approximate<Metered<MemoryStore<ManualClock>>, ManualClock, SharedRandom>,
    background: Deferred,
    meter: Meter,
}

impl Isolate {
    fn new(clock: &ManualClock, store: &MemoryStore<ManualClock>, seed: u64) -> Self {
        let meter = Meter::default();
        let store = Metered::new(store.clone(), meter.clone());
        let random = SharedRandom::new(seed);
        let limits = Approximate::new(store, clock.clone(), random, tenant("t"), Counts::default());
        Self { limits, background: Deferred::default(), meter }
    }

    fn check(&self, policy: &Policy, cost: u64) -> Decision {
        self.limits.check(("p", policy), "x", cost, false, &self.background)
    }
}

#[test]
fn an_approximate_check_costs_the_request_nothing() {
    let (clock, store) = store();
    let isolate = Isolate::new(&clock, &store, 1);
    let policy = policy(Algorithm::SlidingWindow, 10, 300);
    let allowed = (0..20).filter(|_| isolate.check(&policy, 1).allowed).count();
    assert_eq!((allowed, isolate.meter.to_string().as_str()), (10, "r=0 w=0 d=0 l=0"));
    block_on(isolate.background.run());
    assert_eq!(isolate.meter.to_string(), "r=0 w=1 d=0 l=1");
}

#[test]
fn isolates_learn_of_each_other_and_a_new_one_of_all() {
    for algorithm in ALGORITHMS {
        let (clock, store) = store();
        let isolates: Vec<Isolate> = (0..3).map(|seed| Isolate::new(&clock, &store, seed)).collect();
        let policy = policy(algorithm, 10, 600);
        for isolate in &isolates[..2] {
            for _ in 0..4 {
                assert!(isolate.check(&policy, 1).allowed);
            }
            block_on(isolate.background.run());
        }
        clock.advance_seconds(11);
        // The first check of each knows nothing new, and asks.
        for isolate in &isolates {
            isolate.check(&policy, 0);
            block_on(isolate.background.run());
        }
        let more = isolates.iter().map(|isolate| isolate.check(&policy, 0).remaining).collect::<Vec<_>>();
        assert!(more.iter().all(|remaining| *remaining == 2), "{algorithm:?}: {more:?}");
    }
}

#[test]
fn an_approximate_limit_opens_again_when_the_window_is_over() {
    for algorithm in ALGORITHMS {
        let (clock, store) = store();
        let isolate = Isolate::new(&clock, &store, 1);
        let policy = policy(algorithm, 10, 300);
        assert!(isolate.check(&policy, 10).allowed);
        let denied = isolate.check(&policy, 1);
        assert!(!denied.allowed);
        clock.advance_seconds(denied.retry_after_seconds.unwrap());
        assert!(isolate.check(&policy, 1).allowed, "{algorithm:?}");
    }
}

#[test]
fn what_a_writer_publishes_fits_a_keys_metadata_at_the_largest_limit() {
    let (clock, store) = store();
    let isolate = Isolate::new(&clock, &store, 1);
    let policy = policy(Algorithm::SlidingWindow, LIMIT_MAX, 300);
    for _ in 0..100 {
        isolate.check(&policy, LIMIT_MAX / 61);
        block_on(isolate.background.run());
        clock.advance_seconds(5);
    }
    let other = Isolate::new(&clock, &store, 2);
    other.check(&policy, 0);
    block_on(other.background.run());
    assert!(other.check(&policy, 0).remaining < LIMIT_MAX / 10, "the other one knows");
}
