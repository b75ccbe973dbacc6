//! The cache that fills itself, one caller at a time.

use std::cell::Cell;
use std::rc::Rc;

use kv_patterns::background::Deferred;
use kv_patterns::clock::ManualClock;
use kv_patterns::patterns::cache::{
    Answer, Computed, Failure, Flights, Freshness, Host, Json, Life, Policy, ReadThrough, SharedLauncher, Source, Tier,
};
use kv_patterns::random::SeededRandom;

use super::{Name, Under, World, bucket, name, tiers, world};
use crate::support::block_on;

type Through = ReadThrough<Under, Json<Name>, &'static str, ManualClock, SeededRandom, SharedLauncher<Deferred>>;

const LIFE: Life = Life { ttl_seconds: 100, stale_while_revalidate_seconds: 20, stale_if_error_seconds: 200 };
const POLICY: Policy = Policy {
    life: LIFE,
    negative: Life::seconds(5),
    jitter_permille: 0,
    early_refresh_beta: 0.0,
    cost_millis_min: 0,
    soft_timeout_millis: 500,
    hard_timeout_millis: 5000,
    join_millis: 2000,
    retry_seconds: 10,
    lease_seconds: None,
};

/// What the origin does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    Counts,
    Nothing,
    Down,
    Hangs,
}

struct Site {
    world: World,
    background: Deferred,
    through: Through,
    origin: Rc<Cell<Origin>>,
    calls: Rc<Cell<u32>>,
}

fn site_with(policy: Policy) -> Site {
    let world = world();
    let background = Deferred::default();
    let through = isolate(&world, &background, policy);
    Site { world, background, through, origin: Rc::new(Cell::new(Origin::Counts)), calls: Rc::default() }
}

fn isolate(world: &World, background: &Deferred, policy: Policy) -> Through {
    let launcher = SharedLauncher(background.clone());
    let host = Host { clock: world.clock.clone(), random: SeededRandom::new(3), launcher };
    ReadThrough::new(tiers(&world.under), bucket(), Flights::default(), host, policy)
}

impl Site {
    fn ask(&self, through: &Through) -> Result<Answer<Json<Name>>, Failure<&'static str>> {
        let (origin, calls) = (self.origin.clone(), self.calls.clone());
        block_on(through.get_or_compute("x", async move || {
            calls.set(calls.get() + 1);
            match origin.get() {
                Origin::Counts => Ok(Computed::of(Some(name(&calls.get().to_string())))),
                Origin::Nothing => Ok(Computed::of(None)),
                Origin::Down => Err("down"),
                Origin::Hangs => std::future::pending().await,
            }
        }))
    }

    /// The value, how fresh, from where.
    fn get(&self) -> (Option<Json<Name>>, Freshness, Source) {
        let answer = self.ask(&self.through).unwrap();
        (answer.entry.value.clone(), answer.freshness, answer.source)
    }

    #[track_caller]
    fn gets(&self, value: &str, freshness: Freshness, source: Source) {
        assert_eq!(self.get(), (Some(name(value)), freshness, source));
    }

    fn settle(&self) {
        block_on(self.background.run());
    }
}

const MEMORY: Source = Source::Tier(Tier::Memory);
const KV: Source = Source::Tier(Tier::Kv);

#[test]
fn a_miss_is_computed_once_and_kept_in_both_tiers_by_one_write() {
    let site = site_with(POLICY);
    let cost = site.world.cost(|| {
        site.gets("1", Freshness::Fresh, Source::Computed);
        site.settle();
    });
    assert_eq!(cost, "r=1 w=1 d=0");
    site.gets("1", Freshness::Fresh, MEMORY);
    let other = isolate(&site.world, &site.background, POLICY);
    assert_eq!(site.ask(&other).unwrap().source, KV);
    assert_eq!(site.calls.get(), 1);
    let cost = site.world.cost(|| site.gets("1", Freshness::Fresh, MEMORY));
    assert_eq!(cost, "r=0 w=0 d=0", "a warm hit");
}

#[test]
fn a_stale_value_is_served_at_once_and_refreshed_by_one_write() {
    let site = site_with(POLICY);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.world.clock.advance_seconds(100);
    site.gets("1", Freshness::Stale, KV);
    site.gets("1", Freshness::Stale, MEMORY);
    assert_eq!(site.world.cost(|| site.settle()), "r=0 w=1 d=0");
    site.gets("2", Freshness::Fresh, MEMORY);
    assert_eq!(site.calls.get(), 2, "one refresh for both");
}

#[test]
fn an_early_refresh_serves_the_old_value() {
    let site = site_with(Policy { early_refresh_beta: 1.0, cost_millis_min: 1_000_000, ..POLICY });
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.world.clock.advance_seconds(99);
    site.gets("1", Freshness::Early, KV);
    site.settle();
    site.gets("2", Freshness::Fresh, MEMORY);
}

#[test]
fn when_refreshing_fails_a_stale_value_is_served_and_the_origin_left_alone_for_a_while() {
    let site = site_with(POLICY);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.origin.set(Origin::Down);
    site.world.clock.advance_seconds(120);
    site.gets("1", Freshness::IfError, KV);
    assert_eq!(site.calls.get(), 3, "it was tried twice");
    site.world.clock.advance_seconds(9);
    site.gets("1", Freshness::IfError, MEMORY);
    assert_eq!(site.calls.get(), 3, "and not again within the ten seconds");
    site.world.clock.advance_seconds(1);
    site.gets("1", Freshness::IfError, MEMORY);
    assert_eq!(site.calls.get(), 5);
    site.world.clock.advance_seconds(170);
    assert_eq!(site.ask(&site.through).unwrap_err(), Failure::Compute("down"), "past its last window");
}

#[test]
fn a_failed_refresh_in_the_background_is_not_repeated_at_once() {
    let site = site_with(POLICY);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.origin.set(Origin::Down);
    site.world.clock.advance_seconds(100);
    for _ in 0..5 {
        site.gets("1", Freshness::Stale, if site.calls.get() == 1 { KV } else { MEMORY });
        site.settle();
    }
    assert_eq!(site.calls.get(), 2);
}

#[test]
fn a_slow_origin_costs_the_soft_timeout_with_a_stale_value_and_the_hard_one_without() {
    let site = site_with(POLICY);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.origin.set(Origin::Hangs);
    site.world.clock.advance_seconds(120);
    let before = site.world.now();
    site.gets("1", Freshness::IfError, KV);
    assert_eq!(site.world.now().millis_since(before), 500);
    let cold = site_with(POLICY);
    cold.origin.set(Origin::Hangs);
    let before = cold.world.now();
    assert_eq!(cold.ask(&cold.through).unwrap_err(), Failure::TimedOut);
    assert_eq!(cold.world.now().millis_since(before), 5000);
}

#[test]
fn nothing_is_cached_for_a_time_of_its_own() {
    let site = site_with(POLICY);
    site.origin.set(Origin::Nothing);
    assert_eq!(site.get(), (None, Freshness::Fresh, Source::Computed));
    assert_eq!(site.get(), (None, Freshness::Fresh, MEMORY));
    site.settle();
    site.world.clock.advance_seconds(5);
    assert_eq!(site.get(), (None, Freshness::Fresh, Source::Computed));
    let site = site_with(Policy { negative: Life::default(), ..POLICY });
    site.origin.set(Origin::Nothing);
    for calls in 1..4 {
        assert_eq!(site.get().2, Source::Computed);
        assert_eq!(site.calls.get(), calls, "not kept");
    }
}

#[test]
fn kv_failing_is_a_miss_and_never_an_error() {
    let site = site_with(POLICY);
    site.world.under.reads_fail.set(true);
    site.world.under.writes_fail.set(true);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    assert!(site.world.memory.names().is_empty());
    let other = isolate(&site.world, &site.background, POLICY);
    assert_eq!(site.ask(&other).unwrap().source, Source::Computed);
}

#[test]
fn an_unreadable_record_is_a_miss_and_is_overwritten() {
    let site = site_with(POLICY);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    let stored = site.world.memory.names().pop().unwrap();
    let damaged: [&[u8]; 3] = [b"", b"cache.2\n{}\n", b"cache.1\n{}\n"];
    for (calls, bytes) in (2..).zip(damaged) {
        site.world.memory.plant(&stored, bytes);
        let other = isolate(&site.world, &site.background, POLICY);
        assert_eq!(site.ask(&other).unwrap().source, Source::Computed);
        site.settle();
        assert_eq!(site.calls.get(), calls);
        assert!(site.world.memory.raw(&stored).unwrap().starts_with(b"cache.1\n{\"value\""));
    }
}

#[test]
fn with_a_lease_another_location_refreshes_only_when_the_first_does_not() {
    let policy = Policy { lease_seconds: Some(15), ..POLICY };
    let site = site_with(policy);
    site.gets("1", Freshness::Fresh, Source::Computed);
    site.settle();
    site.world.clock.advance_seconds(100);
    site.origin.set(Origin::Down);
    site.gets("1", Freshness::Stale, KV);
    assert_eq!(site.world.cost(|| site.settle()), "r=1 w=1 d=0", "the lease; the refresh fails");
    site.origin.set(Origin::Counts);
    let other = isolate(&site.world, &site.background, policy);
    let calls = site.calls.get();
    assert_eq!(site.ask(&other).unwrap().freshness, Freshness::Stale);
    site.settle();
    assert_eq!(site.calls.get(), calls, "it is left to the other location");
    site.world.clock.advance_seconds(15);
    assert_eq!(site.ask(&other).unwrap().freshness, Freshness::Stale);
    assert_eq!(site.world.cost(|| site.settle()), "r=1 w=2 d=0");
    assert_eq!(site.calls.get(), calls + 1);
}

#[test]
fn the_cost_of_computing_is_smoothed_and_kept_with_the_value() {
    let site = site_with(POLICY);
    let clock = site.world.clock.clone();
    let slow = |millis: u64| {
        let clock = clock.clone();
        async move || {
            clock.advance_millis(millis);
            Ok(Computed::of(Some(name("v"))))
        }
    };
    let cost = |millis| {
        let answer = block_on(site.through.get_or_compute("slow", slow(millis)));
        site.settle();
        site.world.clock.advance_seconds(120);
        answer.unwrap().entry.head.cost_millis
    };
    assert_eq!([cost(400), cost(800), cost(800)], [400, 600, 700]);
}
