//! Goal: sessions keep their promises on a KV that is stale, lossy and slow. Method: the shared scenario over many seeds
//! and all profiles, the same seeds with the usual naive code for comparison, and regressions by name.
//!
//! A failing seed prints the command that repeats it and the smallest plan that still fails.

use std::time::Instant;

use kv_patterns::sim::{Fault, Faults, Profile, Setup};

use crate::scenarios::session::{ABSOLUTE_SECONDS, SessionScenario, plan, run_alone, run_plan};
use crate::scenarios::{Code, Run, Scenario, Statistic, report, run_seeds};

const SEEDS: u64 = 100;

fn figure(run: &Run, name: &str, statistic: Statistic) -> u64 {
    statistic.of(run.samples.get(name).map_or(&[], Vec::as_slice))
}

#[track_caller]
fn check(profile: Profile) {
    for seed in 1000..1000 + SEEDS {
        let run = SessionScenario.run(Code::Ours, profile, seed);
        assert!(run.violations.is_empty(), "{}", report(&SessionScenario, Code::Ours, profile, seed, &run));
    }
}

#[test]
fn promises_hold_when_kv_is_at_its_best() {
    check(Profile::OPTIMISTIC);
}

#[test]
fn promises_hold_as_documented() {
    check(Profile::DOCUMENTED);
}

#[test]
fn promises_hold_when_kv_is_at_its_worst() {
    check(Profile::PATHOLOGICAL);
}

#[test]
fn a_run_twice_is_the_same_run() {
    for seed in 0..5 {
        let run = || SessionScenario.run(Code::Ours, Profile::DOCUMENTED, seed);
        let (one, two) = (run(), run());
        assert_eq!((one.fingerprint, &one.samples), (two.fingerprint, &two.samples), "seed {seed}");
    }
}

#[test]
fn the_naive_code_breaks_on_the_same_seeds() {
    let naive = run_seeds(&SessionScenario, Code::Naive, Profile::DOCUMENTED, 1000..1000 + SEEDS);
    assert!(figure(&naive, "alive again", Statistic::Sum) > 0, "sessions come back for good");
    assert!(figure(&naive, "past the absolute limit", Statistic::Sum) > 0, "sessions live for ever");
    assert!(figure(&naive, "alone, refused with 429", Statistic::Sum) > 0, "a client draws 429 all alone");
}

#[test]
fn a_client_alone_never_draws_429_also_where_kv_hides_its_own_writes() {
    for profile in [Profile::OPTIMISTIC, Profile::DOCUMENTED, Profile::PATHOLOGICAL] {
        for seed in 0..60 {
            let run = run_alone(Code::Ours, Setup::swarm(seed, profile));
            assert_eq!(figure(&run, "alone, refused with 429", Statistic::Sum), 0, "seed {seed}");
            assert_eq!(figure(&run, "past the absolute limit", Statistic::Sum), 0, "{ABSOLUTE_SECONDS} s, seed {seed}");
        }
    }
}

#[test]
fn without_faults_a_new_session_is_valid_everywhere_at_once() {
    for seed in 0..50 {
        let setup = Setup { faults: Faults::none(), ..Setup::swarm(seed, Profile::DOCUMENTED) };
        let run = run_plan(Code::Ours, &plan(setup));
        assert_eq!(run.samples.get("refused although valid, after"), None, "seed {seed}");
    }
}

#[test]
fn regression_a_refresh_in_a_location_that_has_not_heard_revives_a_session_for_a_while() {
    // Found by the simulator: what such a refresh writes is taken back, but other locations may read it meanwhile and
    // keep it. So the bound of a revocation that races a refresh is twice the stale time; the head of the pattern
    // stated it once. Checked here: it happens, and stays within the doubled bound.
    let stale = Profile::DOCUMENTED.stale_millis_max(Some(30));
    let revived = (0..100).filter(|seed| {
        let faults = Faults::none().with(Fault::StepsBack, 50).with(Fault::WriteFailsBefore, 30);
        let run = run_plan(Code::Ours, &plan(Setup { faults, ..Setup::swarm(*seed, Profile::DOCUMENTED) }));
        assert!(run.violations.is_empty(), "seed {seed}: {:?}", run.violations.first());
        figure(&run, "after any revocation", Statistic::Max) > stale
    });
    let revived: Vec<u64> = revived.collect();
    assert_eq!(revived, REVIVING_SEEDS);
}

/// Seeds, of the first hundred, with which it happens.
const REVIVING_SEEDS: [u64; 2] = [27, 78];

#[test]
fn limit_a_write_that_lands_after_the_revocation_brings_a_session_back() {
    // Not what one wants, but what is: a verification reads the record and the epoch, not the mark of the revocation, so
    // a write that KV refused and performed seconds later undoes a delete. The scenario leaves this fault out, and this
    // test will fail, and should go, when verification looks at the mark too.
    let profile = Profile::OPTIMISTIC;
    let setup = Setup { faults: Faults::none().with(Fault::LateWrite, 100), ..Setup::swarm(0, profile) };
    let seeds = (0..SEEDS).filter(|seed| {
        let run = run_plan(Code::Ours, &plan(Setup { seed: *seed, ..setup.clone() }));
        run.violations.iter().any(|violation| violation.checker == "revocation lag")
    });
    assert!(seeds.count() > 0);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures real speed")]
fn at_least_ten_thousand_operations_are_simulated_per_second() {
    let began = Instant::now();
    let run = run_seeds(&SessionScenario, Code::Ours, Profile::DOCUMENTED, 0..20);
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap().max(1);
    let rate = run.operations * 1000 / millis;
    assert!(rate >= 10_000, "{rate} operations per second");
}
