//! The judges: each reads a history and names what must not have happened.
//!
//! They know nothing of patterns, only of [`What`] clients did and saw, and they take the bound that the pattern
//! promises, in milliseconds. Time is the world's true time, so no clock in the world can excuse anything. An operation
//! counts from when it was sent to when its answer came; whatever may lie in between is given the benefit of the doubt.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{Event, What};
use crate::clock::Timestamp;

/// Something that must not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker that found it.
    pub checker: &'static str,
    /// What happened, for people.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.checker, self.text)
    }
}

/// Events by subject, in the order of their ends.
fn by_subject(events: &[Event]) -> BTreeMap<&str, Vec<&Event>> {
    let mut subjects: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        subjects.entry(&event.subject).or_default().push(event);
    }
    subjects
}

/// Whether `later` began more than `bound` milliseconds after `earlier` had ended.
fn is_past(earlier: &Event, later: &Event, bound: u64) -> bool {
    later.began > earlier.ended.plus_millis(bound)
}

/// **No lost acknowledged write**: a read that begins more than `bound` milliseconds after a change was acknowledged
/// sees that version or a later one, unless the subject was (perhaps) deleted later than that.
pub fn lost_writes(events: &[Event], bound: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        for read in &events {
            let What::Read(seen) = read.what else { continue };
            let due = |event: &&&Event| matches!(event.what, What::Wrote(_)) && is_past(event, read, bound);
            let Some(write) = events.iter().filter(due).max_by_key(|event| version(event)) else { continue };
            let is_removal = |event: &&Event| matches!(event.what, What::Deleted | What::MaybeDeleted);
            let removed = events.iter().any(|event| is_removal(event) && event.ended >= write.began);
            if seen < version(write) && !(seen.is_none() && removed) {
                found.push(Violation {
                    checker: "no lost acknowledged write",
                    text: format!("{subject}: [{write}] was not seen by [{read}]"),
                });
            }
        }
    }
    found
}

/// **No resurrected delete**: a read that begins more than `bound` milliseconds after a removal was acknowledged sees
/// nothing that was written before the removal was sent.
pub fn resurrections(events: &[Event], bound: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        for read in &events {
            let What::Read(Some(seen)) = read.what else { continue };
            let due = |event: &&&Event| event.what == What::Deleted && is_past(event, read, bound);
            let Some(delete) = events.iter().filter(due).max_by_key(|event| event.began) else { continue };
            let is_newer = |event: &&Event| version(event) == Some(seen) && event.ended >= delete.began;
            if !events.iter().filter(|event| !matches!(event.what, What::Read(_))).any(is_newer) {
                found.push(Violation {
                    checker: "no resurrected delete",
                    text: format!("{subject}: [{delete}] was undone for [{read}]"),
                });
            }
        }
    }
    found
}

/// Milliseconds from each acknowledged revocation to the start of each acceptance after it. Empty is perfect.
pub fn revocation_lags(events: &[Event]) -> Vec<u64> {
    let mut lags = Vec::new();
    for events in by_subject(events).values() {
        let Some(revoked) = events.iter().find(|event| event.what == What::Revoked) else { continue };
        let late = |event: &&&Event| event.what == What::Accepted && event.began > revoked.ended;
        lags.extend(events.iter().filter(late).map(|event| event.began.millis_since(revoked.ended)));
    }
    lags
}

/// **Revocation lag**: nothing is accepted that is asked more than `bound` milliseconds after its acknowledged revocation.
pub fn late_acceptances(events: &[Event], bound: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        let Some(revoked) = events.iter().find(|event| event.what == What::Revoked) else { continue };
        let late = |event: &&&Event| event.what == What::Accepted && is_past(revoked, event, bound);
        found.extend(events.iter().filter(late).map(|accepted| Violation {
            checker: "revocation lag",
            text: format!("{subject}: [{accepted}] although [{revoked}]"),
        }));
    }
    found
}

/// **Monotonic reads per client**: a client that waits for each answer never sees a version older than one it saw.
pub fn backward_reads(events: &[Event]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut latest: BTreeMap<(usize, &str), (u64, &Event)> = BTreeMap::new();
    for event in events {
        let What::Read(seen) = event.what else { continue };
        let place = (event.client, event.subject.as_str());
        match latest.get(&place) {
            Some((version, before)) if seen.unwrap_or(0) < *version && event.began >= before.ended => {
                found.push(Violation {
                    checker: "monotonic reads per client",
                    text: format!("[{event}] after [{before}]"),
                });
            }
            _ => {
                latest.insert(place, (seen.unwrap_or(0), event));
            }
        }
    }
    found
}

/// **Conservation**: a total asked more than `bound` milliseconds after the last change holds every acknowledged
/// increment, each once, less at most `loss_max`, plus at most what may have happened.
pub fn unconserved(events: &[Event], bound: u64, loss_max: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        let last = events.iter().filter(|event| is_addition(event)).map(|event| event.ended).max();
        let sum = |sign: i64, certain: bool| -> i64 {
            let amount = |event: &&Event| match event.what {
                What::Added(amount) if certain => amount,
                What::MaybeAdded(amount) if !certain && amount.signum() == sign => amount,
                _ => 0,
            };
            events.iter().map(amount).sum()
        };
        let (certain, up, down) = (sum(0, true), sum(1, false), sum(-1, false));
        let loss = i64::try_from(loss_max).unwrap_or(i64::MAX);
        let range = certain.saturating_add(down).saturating_sub(loss)..=certain.saturating_add(up);
        for event in &events {
            let What::Total(total) = event.what else { continue };
            let is_settled = last.is_none_or(|last| event.began > last.plus_millis(bound));
            if is_settled && !range.contains(&total) {
                found.push(Violation {
                    checker: "conservation",
                    text: format!("{subject}: [{event}], but it must lie in {range:?}"),
                });
            }
        }
    }
    found
}

/// The most that was admitted beyond `limit` in any window of `window` milliseconds, over all subjects.
pub fn overshoot(events: &[Event], limit: u64, window: u64) -> u64 {
    let mut worst = 0;
    for events in by_subject(events).values() {
        let mut admitted: Vec<(Timestamp, u64)> = events.iter().filter_map(|event| admission(event)).collect();
        admitted.sort_unstable();
        let (mut start, mut sum) = (0, 0_u64);
        for (index, (moment, cost)) in admitted.iter().enumerate() {
            sum += cost;
            while let Some((first, cost)) =
                admitted.get(start).filter(|(first, _)| first.plus_millis(window) <= *moment)
            {
                debug_assert!(first <= moment && start <= index);
                sum -= cost;
                start += 1;
            }
            worst = worst.max(sum.saturating_sub(limit));
        }
    }
    worst
}

/// **Overshoot**: in no window of `window` milliseconds was more admitted than `limit` and `allowance`.
///
/// The window runs over the moments at which the answers came.
pub fn overshoots(events: &[Event], limit: u64, window: u64, allowance: u64) -> Vec<Violation> {
    let over = overshoot(events, limit, window);
    let violation = || Violation {
        checker: "overshoot",
        text: format!("{over} above the limit of {limit} within {window} ms; {allowance} were allowed for"),
    };
    if over > allowance { vec![violation()] } else { Vec::new() }
}

/// **Mutual exclusion**: of two holders of one lock, one had released it, or its lease was over, before the other's
/// acquisition was answered. Counts each acquisition that overlapped an earlier one.
pub fn overlaps(events: &[Event]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        let mut held: Vec<(&Event, Timestamp)> = Vec::new();
        for event in &events {
            let What::Acquired { fence, until } = event.what else { continue };
            // A release counts from when it was sent: the holder has stopped using the lock by then.
            let release = |other: &&&Event| other.what == What::Released(fence) && other.client == event.client;
            let end = events.iter().filter(release).map(|other| other.began).min().map_or(until, |at| at.min(until));
            if let Some((holder, _)) = held.iter().find(|(_, end)| *end > event.ended) {
                found.push(Violation {
                    checker: "mutual exclusion",
                    text: format!("{subject}: [{event}] while [{holder}]"),
                });
            }
            held.push((event, end));
        }
    }
    found
}

/// **Fencing order**: tokens never repeat, a lock obtained after another was answered has a larger one, and a guarded
/// resource takes no write with a smaller token than one it took before.
pub fn unfenced(events: &[Event]) -> Vec<Violation> {
    let mut found = Vec::new();
    let checker = "fencing order";
    for (subject, events) in by_subject(events) {
        let mut earlier: Vec<(u64, &Event)> = Vec::new();
        let mut guarded = 0;
        for event in &events {
            match event.what {
                What::Acquired { fence, .. } => {
                    let clash = |(other, before): &&(u64, &Event)| {
                        *other == fence || (*other > fence && before.ended <= event.began)
                    };
                    if let Some((_, before)) = earlier.iter().find(clash) {
                        found.push(Violation { checker, text: format!("{subject}: [{event}] after [{before}]") });
                    }
                    earlier.push((fence, event));
                }
                What::Guarded(fence) if fence < guarded => {
                    let text = format!("{subject}: [{event}] was taken after token {guarded}");
                    found.push(Violation { checker, text });
                }
                What::Guarded(fence) => guarded = fence,
                _ => {}
            }
        }
    }
    found
}

/// **Convergence**: all reads that begin more than `bound` milliseconds after the last change to a subject agree.
pub fn divergences(events: &[Event], bound: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for (subject, events) in by_subject(events) {
        let last = events.iter().filter(|event| changes(event)).map(|event| event.ended).max();
        let Some(quiet) = last.map(|last| last.plus_millis(bound)) else { continue };
        let mut settled = events.iter().filter(|event| event.began > quiet && matches!(event.what, What::Read(_)));
        let Some(first) = settled.next() else { continue };
        if let Some(other) = settled.find(|event| event.what != first.what) {
            let text = format!("{subject}: [{first}] and [{other}], long after the last change");
            found.push(Violation { checker: "convergence", text });
        }
    }
    found
}

/// **No throttling**: KV never refused a write of a client because it came too soon.
pub fn throttled(events: &[Event]) -> Vec<Violation> {
    let refused = events.iter().filter(|event| event.what == What::Throttled);
    refused.map(|event| Violation { checker: "no throttling", text: event.to_string() }).collect()
}

fn version(event: &Event) -> Option<u64> {
    match event.what {
        What::Wrote(version) | What::MaybeWrote(version) => Some(version),
        _ => None,
    }
}

fn admission(event: &Event) -> Option<(Timestamp, u64)> {
    match event.what {
        What::Admitted(cost) => Some((event.ended, cost)),
        _ => None,
    }
}

const fn is_addition(event: &Event) -> bool {
    matches!(event.what, What::Added(_) | What::MaybeAdded(_))
}

const fn changes(event: &Event) -> bool {
    matches!(event.what, What::Wrote(_) | What::MaybeWrote(_) | What::Deleted | What::MaybeDeleted)
}
