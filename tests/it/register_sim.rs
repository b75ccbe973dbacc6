//! Goal: users' data keeps its promises on a KV that is stale, lossy and slow: nothing acknowledged is lost, nothing
//! deleted comes back, all locations agree in the end, and settings never know less than they knew. Method: the shared
//! scenarios over many seeds and all profiles, and the same seeds with the usual naive code for comparison.
//!
//! A failing seed prints the command that repeats it and the smallest plan that still fails.

use kv_patterns::sim::Profile;

use crate::scenarios::document::Document;
use crate::scenarios::preference::Preference;
use crate::scenarios::register::{Register, RegisterScenario};
use crate::scenarios::replica::Replicated;
use crate::scenarios::setting::Setting;
use crate::scenarios::{Code, Run, Scenario, Statistic, report, run_seeds};

const SEEDS: std::ops::Range<u64> = 1000..1060;

fn figure(run: &Run, name: &str) -> u64 {
    Statistic::Sum.of(run.samples.get(name).map_or(&[], Vec::as_slice))
}

#[track_caller]
fn check<R: Register>() {
    let scenario = RegisterScenario::<R>::new();
    for profile in Profile::ALL {
        for seed in SEEDS {
            let run = scenario.run(Code::Ours, profile, seed);
            assert!(run.violations.is_empty(), "{}", report(&scenario, Code::Ours, profile, seed, &run));
        }
    }
}

/// The naive code on the same seeds: the worlds are hostile enough to show the fault.
#[track_caller]
fn check_naive<R: Register>(fault: &str) {
    let naive = run_seeds(&RegisterScenario::<R>::new(), Code::Naive, Profile::DOCUMENTED, SEEDS);
    assert!(figure(&naive, fault) > 0, "{fault}: {:?}", naive.samples);
}

#[test]
fn preferences_lose_no_field_and_converge() {
    check::<Preference>();
    check_naive::<Preference>("lost");
}

#[test]
fn no_migration_covers_a_newer_document_or_brings_back_a_deleted_one() {
    check::<Document>();
    check_naive::<Document>("lost");
    check_naive::<Document>("back");
}

#[test]
fn replicas_converge_and_lose_nothing_they_acknowledged() {
    check::<Replicated>();
    check_naive::<Replicated>("apart");
}

#[test]
fn settings_never_know_less_than_they_knew() {
    check::<Setting>();
    check_naive::<Setting>("slips");
}

#[test]
fn a_run_twice_is_the_same_run() {
    let scenario = RegisterScenario::<Replicated>::new();
    for seed in 0..5 {
        let run = || scenario.run(Code::Ours, Profile::DOCUMENTED, seed);
        let (one, two) = (run(), run());
        assert_eq!((one.fingerprint, &one.samples), (two.fingerprint, &two.samples), "seed {seed}");
    }
}
