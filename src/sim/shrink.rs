//! Makes a failing plan small: fewer faults, fewer clients, fewer operations, as long as it still fails.

use super::faults::Fault;
use super::workload::Plan;

/// Runs that one shrinking may take.
const RUNS_MAX: u32 = 2000;

/// A plan that fails like `plan` and from which no single fault kind, client or operation can be taken away, or as far
/// as 2,000 runs got. Greedy: ever smaller pieces are left out while `fails` says the rest still fails.
pub fn shrink<O: Clone>(plan: Plan<O>, fails: impl Fn(&Plan<O>) -> bool) -> Plan<O> {
    let mut best = plan;
    let mut runs = 0;
    loop {
        let before = size(&best);
        for fault in Fault::ALL {
            let mut smaller = best.clone();
            smaller.setup.faults = smaller.setup.faults.without(fault);
            keep_if_failing(&mut best, smaller, &fails, &mut runs);
        }
        let count = best.clients.len();
        without_pieces(count, &mut |from, to| {
            let mut smaller = best.clone();
            // Emptied, not removed: the others keep their numbers.
            smaller.clients.iter_mut().take(to).skip(from).for_each(|client| client.steps.clear());
            keep_if_failing(&mut best, smaller, &fails, &mut runs)
        });
        for client in 0..count {
            let steps = best.clients.get(client).map_or(0, |client| client.steps.len());
            without_pieces(steps, &mut |from, to| {
                let mut smaller = best.clone();
                if let Some(client) = smaller.clients.get_mut(client) {
                    // The waits of what goes are kept, so that the rest stays where it was in time.
                    let to = to.min(client.steps.len());
                    let waits: u64 = client.steps.drain(from.min(to)..to).map(|step| step.wait_millis).sum();
                    if let Some(next) = client.steps.get_mut(from) {
                        next.wait_millis += waits;
                    }
                }
                keep_if_failing(&mut best, smaller, &fails, &mut runs)
            });
        }
        if size(&best) == before || runs >= RUNS_MAX {
            return best;
        }
    }
}

/// Asks `leave_out` for ever smaller pieces `from..to` of `count`, from the end, until it was asked for single ones.
fn without_pieces(count: usize, leave_out: &mut impl FnMut(usize, usize) -> bool) {
    let mut piece = count;
    while piece > 0 {
        let mut to = count;
        while to > 0 {
            let from = to.saturating_sub(piece);
            leave_out(from, to);
            to = from;
        }
        piece /= 2;
    }
}

fn keep_if_failing<O>(best: &mut Plan<O>, smaller: Plan<O>, fails: &impl Fn(&Plan<O>) -> bool, runs: &mut u32) -> bool {
    if *runs >= RUNS_MAX || size(&smaller) == size(best) {
        return false;
    }
    *runs += 1;
    let is_smaller = fails(&smaller);
    if is_smaller {
        *best = smaller;
    }
    is_smaller
}

fn size<O>(plan: &Plan<O>) -> (usize, usize) {
    (plan.steps(), plan.setup.faults.kinds().count())
}
