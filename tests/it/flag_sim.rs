//! Goal: a kill switch is seen everywhere in time, and no isolate steps back, on a KV that is stale, lossy and slow.
//! Method: the shared scenario over many seeds and all profiles, and the same seeds with the usual naive code.

use kv_patterns::sim::Profile;

use crate::scenarios::flag::FlagScenario;
use crate::scenarios::{Code, Scenario, Statistic, report, run_seeds};

const SEEDS: u64 = 100;

#[track_caller]
fn check(profile: Profile) {
    for seed in 1000..1000 + SEEDS {
        let run = FlagScenario.run(Code::Ours, profile, seed);
        assert!(run.violations.is_empty(), "{}", report(&FlagScenario, Code::Ours, profile, seed, &run));
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
        let run = || FlagScenario.run(Code::Ours, Profile::DOCUMENTED, seed);
        let (one, two) = (run(), run());
        assert_eq!((one.fingerprint, &one.samples), (two.fingerprint, &two.samples), "seed {seed}");
    }
}

#[test]
fn the_naive_code_steps_back_on_the_same_seeds() {
    let naive = run_seeds(&FlagScenario, Code::Naive, Profile::DOCUMENTED, 1000..1000 + SEEDS);
    let back = naive.samples.get("isolate stepped back").map_or(&[][..], Vec::as_slice);
    assert!(Statistic::Sum.of(back) > 0, "an isolate answers with an older document than before");
}
