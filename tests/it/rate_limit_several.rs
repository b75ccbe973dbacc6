//! Goal: a check of several identifiers takes from all or from none, and never overshoots. Method: counts by hand that note
//! what they are asked, each failure once; the simulator has the races.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::patterns::rate_limit::exact::{self, Answer, Question, State, Taken};
use kv_patterns::patterns::rate_limit::several::{self, Counts, Outcome, most_restrictive};
use kv_patterns::patterns::rate_limit::{Algorithm, Decision, Mode, OnFailure, Policy};

use crate::support::{START, block_on};

fn policy(limit: u64, on_failure: OnFailure) -> Policy {
    let algorithm = Algorithm::FixedWindow;
    Policy { limit, window_seconds: 3600, algorithm, mode: Mode::Exact, on_failure, updated_at: START }
}

/// Objects in memory; those whose name is `down` cannot be had.
struct Objects {
    clock: ManualClock,
    states: RefCell<BTreeMap<String, State>>,
    calls: RefCell<Vec<String>>,
}

impl Objects {
    fn new() -> Self {
        Self { clock: ManualClock::at(START), states: RefCell::default(), calls: RefCell::default() }
    }

    fn ask(&self, identifiers: &[&str], cost: u64, peek: bool, policy: Policy) -> Outcome {
        block_on(several::check(self, identifiers, &Question { policy, cost, peek, beside_others: false }))
            .expect("an identifier")
    }

    fn remaining(&self, identifier: &str) -> u64 {
        let question = Question { policy: policy(3, OnFailure::Deny), cost: 0, peek: true, beside_others: false };
        exact::decide(self.states.borrow().get(identifier), &question, self.clock.now()).1.decision.remaining
    }

    /// What was asked since the last time.
    fn calls(&self) -> Vec<String> {
        self.calls.take()
    }
}

impl Counts for Objects {
    type Lost = ();

    async fn check(&self, identifier: &str, question: &Question) -> Result<Answer, ()> {
        self.calls.borrow_mut().push(format!("check {identifier}"));
        if identifier == "down" {
            return Err(());
        }
        let mut states = self.states.borrow_mut();
        let (state, answer) = exact::decide(states.get(identifier), question, self.clock.now());
        states.insert(identifier.to_owned(), state);
        Ok(answer)
    }

    async fn give_back(&self, identifier: &str, taken: Taken) {
        self.calls.borrow_mut().push(format!("give back {} to {identifier}", taken.cost));
        let mut states = self.states.borrow_mut();
        let state = states.remove(identifier).expect("something was taken");
        states.insert(identifier.to_owned(), exact::give_back(state, &taken, self.clock.now()));
    }
}

fn allows() -> Policy {
    policy(3, OnFailure::Allow)
}

#[test]
fn all_admit_for_one_call_each_and_the_least_remaining_is_told() {
    let objects = Objects::new();
    objects.ask(&["b"], 1, false, allows());
    let outcome = objects.ask(&["a", "b", "c"], 2, false, allows());
    assert_eq!((outcome.place, outcome.decision.allowed, outcome.decision.remaining), (1, true, 0));
    assert_eq!(objects.calls()[1..], ["check a", "check b", "check c"]);
    assert_eq!(["a", "b", "c"].map(|identifier| objects.remaining(identifier)), [1, 0, 1]);
}

#[test]
fn one_that_refuses_ends_it_and_what_the_others_gave_goes_back() {
    let objects = Objects::new();
    objects.ask(&["c"], 3, false, allows());
    objects.calls();
    let outcome = objects.ask(&["a", "b", "c", "d"], 1, false, allows());
    assert_eq!((outcome.place, outcome.decision.allowed, outcome.degraded), (2, false, false));
    assert_eq!(objects.calls(), ["check a", "check b", "check c", "give back 1 to a", "give back 1 to b"]);
    assert_eq!(["a", "b", "c", "d"].map(|identifier| objects.remaining(identifier)), [3, 3, 0, 3]);
}

#[test]
fn a_refusal_for_units_that_may_be_given_back_is_a_passing_one() {
    let check = |state: Option<&State>, cost, beside_others, at| {
        let question = Question { policy: allows(), cost, peek: false, beside_others };
        exact::decide(state, &question, at)
    };
    let (state, answer) = check(None, 3, true, START);
    assert!(!answer.passing, "it was admitted");
    assert!(check(Some(&state), 1, false, START.plus_seconds(1)).1.passing);
    assert!(!check(Some(&state), 1, false, START.plus_seconds(10)).1.passing, "by then its check has ended");
    let (state, _) = check(None, 3, false, START);
    assert!(!check(Some(&state), 1, false, START).1.passing, "nobody gives these back");
    let objects = Objects::new();
    objects.ask(&["a", "b"], 3, false, allows());
    assert!(objects.ask(&["a"], 1, true, allows()).passing);
    objects.ask(&["c"], 3, false, allows());
    assert!(!objects.ask(&["c"], 1, false, allows()).passing);
}

#[test]
fn looking_asks_all_and_takes_nothing() {
    let objects = Objects::new();
    objects.ask(&["b"], 3, false, allows());
    objects.calls();
    let outcome = objects.ask(&["a", "b", "c"], 1, true, allows());
    assert_eq!((outcome.place, outcome.decision.allowed), (1, false));
    assert_eq!(objects.calls(), ["check a", "check b", "check c"]);
    assert_eq!(["a", "b", "c"].map(|identifier| objects.remaining(identifier)), [3, 0, 3]);
}

#[test]
fn a_count_that_cannot_be_had_is_left_to_the_policy() {
    let objects = Objects::new();
    let allowed = objects.ask(&["a", "down"], 1, false, allows());
    assert_eq!((allowed.decision.allowed, allowed.degraded, objects.remaining("a")), (true, true, 2));
    let denied = objects.ask(&["a", "down"], 1, false, policy(3, OnFailure::Deny));
    assert_eq!((denied.decision.allowed, denied.degraded, objects.remaining("a")), (false, true, 2));
    objects.ask(&["b"], 3, false, allows());
    let counted = objects.ask(&["down", "b"], 1, false, allows());
    assert_eq!((counted.place, counted.decision.allowed, counted.degraded), (1, false, false), "a count is a count");
}

#[test]
fn what_was_taken_under_another_policy_stays_used() {
    let old = Question { policy: allows(), cost: 2, peek: false, beside_others: false };
    let (state, answer) = exact::decide(None, &old, START);
    let new = Policy { limit: 5, updated_at: START.plus_seconds(1), ..allows() };
    let (state, _) =
        exact::decide(Some(&state), &Question { policy: new, cost: 1, peek: false, beside_others: false }, START);
    let taken = answer.taken.expect("it was admitted");
    assert_eq!(exact::give_back(state.clone(), &taken, START), state);
}

#[test]
fn refused_and_looking_leave_no_receipt() {
    let taken = |cost, peek| {
        exact::decide(None, &Question { policy: allows(), cost, peek, beside_others: false }, START).1.taken
    };
    assert_eq!((taken(4, false), taken(1, true), taken(0, false)), (None, None, None));
    assert_eq!(taken(2, false), Some(Taken { cost: 2, at: START, policy_at: START }));
}

#[test]
fn where_counts_answer_at_once_nothing_is_taken_and_given_back() {
    let decision = |allowed, remaining| Decision { allowed, remaining, ..Decision::uncounted(&allows()) };
    let mut asked = Vec::new();
    let mut ask = |identifiers: &[&str], peek| {
        asked.clear();
        let outcome = several::check_at_once(identifiers, peek, |identifier, peek| {
            asked.push((identifier.to_owned(), peek));
            decision(identifier != "full", 1)
        });
        let asked: Vec<String> = asked.iter().map(|(name, peek)| format!("{name} {peek}")).collect();
        (outcome.expect("an identifier").decision.allowed, asked.join(", "))
    };
    assert_eq!(ask(&["a"], false), (true, "a false".into()));
    assert_eq!(ask(&["a"], true), (true, "a true".into()));
    assert_eq!(ask(&["a", "b"], false), (true, "a true, b true, a false, b false".into()));
    assert_eq!(ask(&["a", "full"], false), (false, "a true, full true".into()));
}

#[test]
fn of_several_outcomes_the_most_restrictive_counts() {
    let base = Decision::uncounted(&allows());
    let allowed = |place, remaining| {
        let decision = Decision { allowed: true, remaining, retry_after_seconds: None, ..base };
        Outcome::counted(place, decision)
    };
    let denied = |place, wait| {
        let decision = Decision { allowed: false, retry_after_seconds: Some(wait), ..base };
        Outcome::counted(place, decision)
    };
    assert_eq!(most_restrictive(&[allowed(0, 3), denied(1, 5), denied(2, 9)]), Some(denied(2, 9)));
    assert_eq!(most_restrictive(&[allowed(0, 3), allowed(1, 2)]), Some(allowed(1, 2)));
    let unsure = Outcome { degraded: true, ..allowed(0, 3) };
    assert_eq!(most_restrictive(&[unsure, allowed(1, 2)]), Some(Outcome { degraded: true, ..allowed(1, 2) }));
    assert_eq!(most_restrictive(&[unsure, denied(1, 2)]), Some(denied(1, 2)));
    assert_eq!(most_restrictive(&[]), None);
}
