//! Goal: counters, limits and locks keep their promises under every profile, and the naive code does not. Method: the
//! scenarios on a handful of seeds each; the published table takes a hundred.

use kv_patterns::clock::Timestamp;
use kv_patterns::sim::linear::{Operation, is_linearizable};
use kv_patterns::sim::{Faults, Profile, START, Setup};

use crate::scenarios::counter::CounterScenario;
use crate::scenarios::counter_reset::{self, Reset};
use crate::scenarios::lock::{Asked, LockScenario, Seen, step};
use crate::scenarios::lock_queue::{self, Line};
use crate::scenarios::rate_limit::{GiveBack, RateLimitScenario, run_exact};
use crate::scenarios::{Code, Run, Scenario, report, run_seeds};

/// Runs seeds under every profile; every promise must hold in each run.
#[track_caller]
fn keeps_its_promises(scenario: &dyn Scenario, seeds: u64) {
    for profile in Profile::ALL {
        for seed in 0..seeds {
            let run = scenario.run(Code::Ours, profile, seed);
            assert!(run.violations.is_empty(), "{}", report(scenario, Code::Ours, profile, seed, &run));
            for promise in scenario.promises() {
                let samples = run.samples.get(promise.figure).map_or(&[][..], Vec::as_slice);
                let measured = promise.statistic.of(samples);
                let kept = (promise.promised)(&profile).is_none_or(|most| measured <= most);
                assert!(kept, "{} under {}, seed {seed}: {measured}", promise.what, profile.name);
            }
        }
    }
}

fn naive(scenario: &dyn Scenario) -> Run {
    run_seeds(scenario, Code::Naive, Profile::DOCUMENTED, 0..12)
}

fn sum(run: &Run, figure: &str) -> u64 {
    run.samples[figure].iter().sum()
}

#[test]
fn counters_keep_every_increment_and_the_naive_one_loses_most() {
    keeps_its_promises(&CounterScenario, 12);
    let naive = naive(&CounterScenario);
    assert!(sum(&naive, "wrong, nobody died") > 0);
    assert!(sum(&naive, "429") > 0);
    assert!(sum(&naive, "exact: no order explains") > 0);
}

#[test]
fn limits_hold_within_their_bound_and_the_naive_one_hardly_limits() {
    keeps_its_promises(&RateLimitScenario, 3);
    let ours = run_seeds(&RateLimitScenario, Code::Ours, Profile::DOCUMENTED, 0..3);
    let naive = run_seeds(&RateLimitScenario, Code::Naive, Profile::DOCUMENTED, 0..3);
    let over = "approximate: above the limit";
    assert!(sum(&naive, over) > sum(&ours, over), "{} and {}", sum(&naive, over), sum(&ours, over));
}

#[test]
fn locks_exclude_and_locks_on_kv_do_not() {
    keeps_its_promises(&LockScenario, 40);
    let naive = naive(&LockScenario);
    for figure in ["overlaps", "no order explains", "out of turn"] {
        assert!(sum(&naive, figure) > 0, "{figure}");
    }
    let ours = run_seeds(&LockScenario, Code::Ours, Profile::DOCUMENTED, 0..12);
    assert!(sum(&ours, "kv-demo: overlapped") > 0);
}

/// Found by the simulator: a write that was given up was answered while the next one was under way, so a third began, and
/// the second, slower, landed over it.
#[test]
fn an_answer_that_comes_too_late_does_not_let_two_writes_race() {
    let run = CounterScenario.run(Code::Ours, Profile::PATHOLOGICAL, 104);
    assert_eq!(run.violations, []);
}

/// Found by the simulator: a writer that heard of one of two resets, and then of the other, counted what came between.
#[test]
fn two_resets_heard_of_one_after_the_other_are_both_applied() {
    let run = counter_reset::run_approximate(Reset::Ours, 8, Profile::OPTIMISTIC);
    assert_eq!(run.violations, []);
}

/// The first seed at which `run` is found out by `checker`.
fn caught(checker: &str, run: impl Fn(u64) -> Run) -> Option<u64> {
    (0..20).find(|seed| run(*seed).violations.iter().any(|found| found.checker == checker))
}

#[test]
fn planted_bugs_are_found() {
    let twice = |seed| run_exact(Setup::swarm(seed, Profile::DOCUMENTED), GiveBack::Twice);
    assert!(caught("exact overshoot", twice).is_some(), "giving back twice");
    let subtracting = |seed| counter_reset::run_approximate(Reset::BySubtracting, seed, Profile::DOCUMENTED);
    assert!(caught("conservation after resets", subtracting).is_some(), "a reset by subtracting what was read");
    let jumped = |seed| lock_queue::run(Setup::swarm(seed, Profile::DOCUMENTED), Line::Jumped);
    assert!(caught("first come, first served", jumped).is_some(), "a lock for whoever asks next");
}

#[test]
fn in_the_line_for_a_lock_most_are_served_after_waiting() {
    let setup = Setup { faults: Faults::none(), ..Setup::swarm(1, Profile::OPTIMISTIC) };
    let run = lock_queue::run(setup, Line::Kept);
    assert!(sum(&run, "waited") > 10, "{} waited: the scenario shows nothing", sum(&run, "waited"));
    assert_eq!(run.violations, []);
}

/// What a lock may answer, by hand: times are seconds, leases last sixty.
#[test]
fn the_model_of_a_lock_accuses_what_is_wrong() {
    let at = |seconds: u64| START.plus_seconds(seconds);
    let said = |began: Timestamp, ended: Timestamp, what| Operation { began, ended, is_certain: true, what };
    let allowed = |operations: &[Operation<Asked>]| is_linearizable(operations, Seen::default(), step);
    let granted = |seconds, token| said(at(seconds), at(seconds + 1), Asked::Granted(token));
    let released = |seconds, token| said(at(seconds), at(seconds + 1), Asked::Released(token));
    assert!(allowed(&[granted(0, 1), released(5, 1), granted(7, 2)]));
    assert!(allowed(&[granted(0, 1), granted(61, 2)]), "the lease may be over");
    assert!(!allowed(&[granted(0, 1), granted(50, 2)]), "two hold it");
    assert!(!allowed(&[granted(0, 2), released(5, 2), granted(7, 1)]), "a token that goes back");
    assert!(!allowed(&[granted(0, 1), released(5, 1), said(at(7), at(8), Asked::Held)]), "nobody holds it");
    assert!(!allowed(&[granted(0, 1), released(5, 9)]), "given back by who does not hold it");
    assert!(!allowed(&[granted(0, 1), said(at(5), at(6), Asked::NotHeld(1))]), "the holder is told it is not");
    let lost = Operation { is_certain: false, ..granted(0, 0) };
    assert!(allowed(&[lost.clone(), said(at(7), at(8), Asked::Held)]), "a grant nobody heard of");
    assert!(!allowed(&[lost, said(at(70), at(71), Asked::Held)]), "not for ever");
}
