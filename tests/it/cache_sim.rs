//! Goal: few compute what all want, nothing is served past its life, and a purge is seen in time. Method: the shared scenario
//! over many seeds and all profiles; the recipe of the web and no protection at all beside it, in the same worlds.

use kv_patterns::sim::Profile;

use crate::scenarios::cache::{CacheScenario, Guard, calm, stampede};
use crate::scenarios::{Code, Scenario, Statistic, report, run_seeds};

const SEEDS: std::ops::Range<u64> = 1000..1024;

#[test]
fn nothing_is_served_past_its_life_and_a_purge_is_seen_in_time() {
    for profile in Profile::ALL {
        for seed in SEEDS {
            let run = CacheScenario.run(Code::Ours, profile, seed);
            assert!(run.violations.is_empty(), "{}", report(&CacheScenario, Code::Ours, profile, seed, &run));
        }
    }
}

#[test]
fn the_recipe_computes_more_and_serves_what_was_purged() {
    let naive = run_seeds(&CacheScenario, Code::Naive, Profile::DOCUMENTED, SEEDS);
    let ours = run_seeds(&CacheScenario, Code::Ours, Profile::DOCUMENTED, SEEDS);
    for figure in ["cold", "expiry"] {
        let sum = |samples: &[u64]| Statistic::Sum.of(samples);
        assert!(sum(&naive.samples[figure]) > 2 * sum(&ours.samples[figure]), "{figure}: {naive:?} and {ours:?}");
    }
    let longest = |samples: &[u64]| Statistic::Max.of(samples);
    let seen = "purged and served";
    assert!(longest(&naive.samples[seen]) > longest(&ours.samples[seen]));
}

/// The mean of computations at one location: when cold, at the expiry, after a purge.
fn mean(guard: Guard, rate: f64, seeds: u64) -> [f64; 3] {
    let mut sums = [0, 0, 0];
    for seed in 0..seeds {
        let counted = stampede(guard, calm(seed, Profile::OPTIMISTIC, 1), rate);
        for (sum, counts) in sums.iter_mut().zip([counted.cold, counted.expiry, counted.purge]) {
            *sum += counts.iter().sum::<u64>();
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    sums.map(|sum| sum as f64 / seeds as f64)
}

#[test]
fn a_stampede_does_not_grow_with_the_rate_and_the_recipes_does() {
    for (rate, seeds) in [(1.0, 12), (10.0, 12), (100.0, 6), (1000.0, 1)] {
        let [ours, recipe, nothing] =
            [Guard::Ours, Guard::Recipe, Guard::Nothing].map(|guard| mean(guard, rate, seeds));
        assert!(ours.iter().all(|mean| *mean <= 6.0), "{rate}/s: {ours:?}");
        if rate >= 100.0 {
            assert!(recipe[1] > 50.0 && nothing[1] > 50.0, "{rate}/s: {recipe:?}, {nothing:?}");
        }
    }
}

#[test]
fn a_run_twice_is_the_same_run() {
    for seed in 0..3 {
        let run = || CacheScenario.run(Code::Ours, Profile::DOCUMENTED, seed);
        let (one, two) = (run(), run());
        assert_eq!((one.fingerprint, &one.samples), (two.fingerprint, &two.samples), "seed {seed}");
    }
}
