//! Many callers at once, in virtual time: 300 of them for 20 cold keys, whatever becomes of those who compute.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use kv_patterns::patterns::cache::{
    Bucket, Cache, Computed, Failure, Flights, Host, Json, Memory, Policy, ReadThrough, Resources, Scope, Severity,
    SharedLauncher, Source, Tiers,
};
use kv_patterns::sim::{Isolate, Setup, SimBackground, SimClock, SimRandom, SimStore, World};

use super::{Name, name};
use crate::support::tenant;

pub(super) type Through =
    ReadThrough<SimStore, Json<Name>, &'static str, SimClock, SimRandom, SharedLauncher<SimBackground>>;

const KEYS: usize = 20;
const CALLERS: usize = 300;

pub(super) fn through(isolate: &Isolate, policy: Policy) -> Through {
    let bucket = Bucket::new(&tenant("acme"), Resources::CACHE, "shop");
    let tiers = Tiers::new(isolate.store("CACHE"), Memory::new(1 << 20), 30);
    let launcher = SharedLauncher(isolate.background());
    let host = Host { clock: isolate.clock(), random: isolate.random(), launcher };
    ReadThrough::new(tiers, bucket, Flights::default(), host, policy)
}

/// What one computation does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Takes(u64),
    Fails,
    NeverEnds,
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    calls: usize,
    computed: usize,
    joined: usize,
    failed: usize,
    timed_out: usize,
    given_up: usize,
}

/// All callers at the same moment; `fate` of the n-th computation of a key. Callers that lead give up after
/// `patience_millis`, as when their client goes away.
fn stampede(fate: impl Fn(usize) -> Fate + Clone + 'static, patience_millis: Option<u64>) -> Outcome {
    let world = World::new(Setup::ideal(1));
    let isolate = world.isolate(0);
    let cache = through(&isolate, Policy::default());
    let calls: Rc<RefCell<BTreeMap<usize, usize>>> = Rc::default();
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    for caller in 0..CALLERS {
        let (cache, clock, calls, fate) = (cache.clone(), isolate.clock(), calls.clone(), fate.clone());
        let (outcome, world, leads) = (outcome.clone(), world.clone(), caller < KEYS);
        let key = caller % KEYS;
        isolate.spawn(async move {
            let compute = async move || {
                let number = {
                    let mut calls = calls.borrow_mut();
                    let count = calls.entry(key).or_default();
                    *count += 1;
                    *count
                };
                match fate(number) {
                    Fate::Takes(millis) => kv_patterns::clock::Clock::sleep(&clock, millis).await,
                    Fate::Fails => {
                        kv_patterns::clock::Clock::sleep(&clock, 100).await;
                        return Err("failed");
                    }
                    Fate::NeverEnds => std::future::pending().await,
                }
                Ok(Computed::of(Some(name("v"))))
            };
            let key = key.to_string();
            let asked = Box::pin(cache.get_or_compute(&key, compute));
            let patience = patience_millis.filter(|_| leads).unwrap_or(u64::MAX / 2);
            let answer = futures_util::future::select(asked, world.sleep(patience)).await;
            let mut outcome = outcome.borrow_mut();
            match answer {
                futures_util::future::Either::Right(_) => outcome.given_up += 1,
                futures_util::future::Either::Left((Ok(answer), _)) => match answer.source {
                    Source::Computed => outcome.computed += 1,
                    Source::Joined | Source::Tier(_) => outcome.joined += 1,
                },
                futures_util::future::Either::Left((Err(Failure::Compute(_)), _)) => outcome.failed += 1,
                futures_util::future::Either::Left((Err(Failure::TimedOut), _)) => outcome.timed_out += 1,
            }
        });
    }
    world.run().unwrap();
    let mut outcome = outcome.take();
    outcome.calls = calls.borrow().values().sum();
    outcome
}

#[test]
fn three_hundred_callers_of_twenty_cold_keys_compute_twenty_times() {
    let expected = Outcome { calls: 20, computed: 20, joined: 280, ..Outcome::default() };
    assert_eq!(stampede(|_| Fate::Takes(200), None), expected);
    assert_eq!(stampede(|_| Fate::Takes(9000), None), expected, "slow, but within the followers' patience");
}

#[test]
fn a_computation_that_fails_once_fails_nobody() {
    let fate = |number| if number == 1 { Fate::Fails } else { Fate::Takes(200) };
    let outcome = stampede(fate, None);
    assert_eq!((outcome.calls, outcome.failed, outcome.timed_out), (40, 0, 0), "{outcome:?}");
}

#[test]
fn an_origin_that_is_down_is_asked_twice_a_key_by_all_callers_together() {
    let outcome = stampede(|_| Fate::Fails, None);
    assert_eq!((outcome.calls, outcome.failed), (40, 300), "{outcome:?}");
}

#[test]
fn a_leader_that_never_ends_delays_its_followers_and_fails_none() {
    let fate = |number| if number == 1 { Fate::NeverEnds } else { Fate::Takes(200) };
    let outcome = stampede(fate, None);
    let expected = Outcome { calls: 40, computed: 20, joined: 260, timed_out: 20, ..Outcome::default() };
    assert_eq!(outcome, expected, "only those whose own computation is dead are told so");
}

#[test]
fn a_leader_whose_client_goes_away_still_computes_for_all() {
    let outcome = stampede(|_| Fate::Takes(200), Some(50));
    assert_eq!(outcome, Outcome { calls: 20, joined: 280, given_up: 20, ..Outcome::default() });
}

#[test]
fn whoever_comes_after_a_purge_gets_nothing_that_was_asked_for_before_it() {
    let world = World::new(Setup::ideal(2));
    let isolate = world.isolate(0);
    let cache = through(&isolate, Policy::default());
    let version = Rc::new(Cell::new(0));
    let ask = |cache: Through, clock: SimClock| {
        let version = version.clone();
        async move {
            let compute = async move || {
                let read = version.get();
                kv_patterns::clock::Clock::sleep(&clock, 1000).await;
                Ok(Computed { tags: vec!["t".to_owned()], ..Computed::of(Some(name(&read.to_string()))) })
            };
            cache.get_or_compute("x", compute).await.map(|answer| answer.entry.value.clone())
        }
    };
    let before = isolate.spawn(ask(cache.clone(), isolate.clock()));
    let (purging, clock, later, asking) = (cache.clone(), isolate.clock(), world.clone(), version.clone());
    let after = isolate.spawn(ask(cache.clone(), isolate.clock()));
    let late = isolate.clone();
    let purged = isolate.spawn(async move {
        later.sleep(500).await;
        asking.set(1);
        let aside: &Cache<SimStore, Json<Name>> = purging.cache();
        kv_patterns::clock::Clock::sleep(&clock, 1).await;
        let now = kv_patterns::clock::Clock::now(&clock);
        aside.invalidate(Scope::Tag("t"), Severity::Hard, now).await.unwrap();
    });
    let asked = world.block_on(async {
        purged.await.unwrap();
        late.spawn(ask(cache.clone(), late.clock())).await.unwrap()
    });
    assert_eq!(asked.unwrap(), Ok(Some(name("1"))));
    assert_eq!(world.block_on(before).unwrap().unwrap(), Ok(Some(name("0"))), "asked before the purge");
    assert!(world.block_on(after).unwrap().unwrap().is_ok());
}
