//! Several identifiers in one check (a user and an address, say): all must admit, or nothing is taken.
//!
//! They are asked one after another, always in the same order, up to the first that refuses; what those before it gave
//! is then given back, before the answer. So callers with the same identifiers never refuse each other in turn, as they
//! would if each held what the other needs: a limit of ten admits ten of any number at once.
//!
//! - **No overshoot**, ever: each count is exact by itself, and giving back returns at most what is still used of it.
//! - **Not one transaction.** Until a refused check has given back, others may be refused for the units it holds (no
//!   isolate remembers such a refusal); when giving back fails, they stay used until they come back by time. Both only ever
//!   refuse more.
//! - An identifier whose count cannot be had is decided by the policy's `onFailure`, the others by their counts.
//!
//! Cost: 1 object call per identifier; when one refuses, 1 more for each before it.

use std::future::Future;

use futures_util::future::join_all;

use super::Decision;
use super::exact::{Answer, Question, Taken};

/// Identifiers that one check may name.
pub const IDENTIFIERS_MAX: usize = 10;

/// The counts of one policy, by identifier.
pub trait Counts {
    /// Why a count cannot be had.
    type Lost;

    /// Asks the count of `identifier`.
    fn check(&self, identifier: &str, question: &Question) -> impl Future<Output = Result<Answer, Self::Lost>>;

    /// Gives back to the count of `identifier`, if it can be had.
    fn give_back(&self, identifier: &str, taken: Taken) -> impl Future<Output = ()>;
}

/// What became of one identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place among those that were asked for.
    pub place: usize,
    /// What is decided of it.
    pub decision: Decision,
    /// Whether its count could not be had, so that the policy decided.
    pub degraded: bool,
    /// Whether it may be otherwise in a moment: [`Answer::passing`].
    pub passing: bool,
}

impl Outcome {
    /// What the count of the identifier in this place says.
    pub const fn counted(place: usize, decision: Decision) -> Self {
        Self { place, decision, degraded: false, passing: false }
    }
}

/// Checks all of `identifiers`, which are in an order of their own and each there once; the answer is the most
/// restrictive outcome, or nothing where there is no identifier.
pub async fn check(counts: &impl Counts, identifiers: &[&str], question: &Question) -> Option<Outcome> {
    let (mut outcomes, mut held) = (Vec::new(), Vec::new());
    let question = &Question { beside_others: identifiers.len() > 1, ..question.clone() };
    for (place, identifier) in identifiers.iter().enumerate() {
        let outcome = match counts.check(identifier, question).await {
            Ok(Answer { decision, taken, passing }) => {
                held.extend(taken.map(|taken| (*identifier, taken)));
                Outcome { passing, ..Outcome::counted(place, decision) }
            }
            Err(_) => Outcome { degraded: true, ..Outcome::counted(place, Decision::uncounted(&question.policy)) },
        };
        outcomes.push(outcome);
        // Who only looks wants to know of all.
        if !outcome.decision.allowed && !question.peek {
            join_all(held.iter().map(|(identifier, taken)| counts.give_back(identifier, *taken))).await;
            break;
        }
    }
    most_restrictive(&outcomes)
}

/// Checks all of `identifiers` where a count answers at once and nobody comes between: looks at all, and takes from all
/// if all admit.
pub fn check_at_once(
    identifiers: &[&str],
    peek: bool,
    mut count: impl FnMut(&str, bool) -> Decision,
) -> Option<Outcome> {
    let mut ask = |peek| {
        let outcomes =
            identifiers.iter().enumerate().map(|(place, identifier)| Outcome::counted(place, count(identifier, peek)));
        most_restrictive(&outcomes.collect::<Vec<_>>())
    };
    // One identifier is decided in one step.
    let looked = if peek || identifiers.len() > 1 { ask(true) } else { None };
    match looked {
        Some(outcome) if peek || !outcome.decision.allowed => Some(outcome),
        _ => ask(false),
    }
}

/// The most restrictive of several outcomes: denied wins, the longest wait first; then the least remaining. It is sure
/// only if all that stand behind it are.
pub fn most_restrictive(outcomes: &[Outcome]) -> Option<Outcome> {
    let wait =
        |decision: &Decision| if decision.allowed { 0 } else { decision.retry_after_seconds.unwrap_or(u64::MAX) };
    let strictest = outcomes.iter().copied().min_by_key(|Outcome { decision, .. }| {
        (decision.allowed, std::cmp::Reverse(wait(decision)), decision.remaining)
    })?;
    let degraded = strictest.degraded || strictest.decision.allowed && outcomes.iter().any(|outcome| outcome.degraded);
    Some(Outcome { degraded, ..strictest })
}
