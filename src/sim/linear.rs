//! **Linearizability**: whether answers are those of one place that does one thing at a time, each operation at some
//! moment between its request and its answer.
//!
//! The search tries the orders that real time allows, each state once: it decides, it does not sample. Exponential at
//! worst in how many operations overlap, so it is for a few clients.
//! Source: Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of states of Lowe, "Testing
//! for linearizability" (2017).

use std::collections::BTreeSet;

use crate::clock::Timestamp;

/// What was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<T> {
    /// When it was sent.
    pub began: Timestamp,
    /// When its answer came, or its failure; it took no effect later.
    pub ended: Timestamp,
    /// Whether it surely happened. One that failed happened in this time, or never.
    pub is_certain: bool,
    /// The question and its answer.
    pub what: T,
}

/// Whether there is an order of `operations` that `step` allows, from `start`. `step` gives the state after an operation,
/// or nothing where its answer is not one that this state gives.
pub fn is_linearizable<T, S: Clone + Ord>(
    operations: &[Operation<T>],
    start: S,
    step: impl Fn(&S, &Operation<T>) -> Option<S>,
) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![(vec![false; operations.len()], start)];
    while let Some((done, state)) = open.pop() {
        let rest = || operations.iter().zip(&done).filter(|(_, done)| !**done).map(|(operation, _)| operation);
        // What is not done yet ends no earlier than this; what begins later comes later.
        let Some(first_end) = rest().filter(|operation| operation.is_certain).map(|operation| operation.ended).min()
        else {
            return true;
        };
        // What has been done began no later than this; what ended earlier can no longer happen.
        let last_begin =
            operations.iter().zip(&done).filter(|(_, done)| **done).map(|(operation, _)| operation.began).max();
        for (place, operation) in operations.iter().enumerate() {
            let is_open = done.get(place) == Some(&false) && operation.began <= first_end;
            let is_over = last_begin.is_some_and(|begin| operation.ended < begin);
            if !is_open || is_over {
                continue;
            }
            if let Some(next) = step(&state, operation) {
                let mut done = done.clone();
                if let Some(mark) = done.get_mut(place) {
                    *mark = true;
                }
                if seen.insert((done.clone(), next.clone())) {
                    open.push((done, next));
                }
            }
        }
    }
    false
}
