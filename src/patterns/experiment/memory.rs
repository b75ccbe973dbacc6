//! What one isolate remembers: experiments it has seen, and events it has stored.
//!
//! Both are bounded, the least recently used forgotten first: [`EXPERIMENTS_MAX`] experiments (about 60 KB each at
//! most), [`EVENTS_MAX`] events of 32 bytes. Forgetting costs one read, or one write of what is there already.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::config::Experiment;
use super::events::Fingerprint;
use crate::clock::Timestamp;
use crate::recent::Belief;

/// How long an isolate takes what it knows for the newest, in seconds.
pub const FRESH_SECONDS: u64 = 10;
/// Experiments an isolate remembers.
pub const EXPERIMENTS_MAX: usize = 64;
/// Events an isolate remembers to have stored.
pub const EVENTS_MAX: usize = 1024;
/// How long after its last change a miss is not believed: it may be older than the experiment, in seconds.
const MISS_DOUBTED_SECONDS: u64 = 90;

/// The memory of one isolate. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Newest use first.
    experiments: Vec<Known>,
    /// Keys and the metadata last stored under each, newest first.
    events: VecDeque<(Fingerprint, Fingerprint)>,
}

#[derive(Debug)]
struct Known {
    tenant: String,
    experiment: Rc<Experiment>,
    belief: Belief,
}

impl Known {
    fn is(&self, tenant: &str, name: &str) -> bool {
        self.tenant == tenant && self.experiment.name() == name
    }
}

/// What to do before a placement.
#[derive(Debug)]
pub(super) enum Freshness {
    /// Answer from this.
    Fresh(Rc<Experiment>),
    /// Ask KV; when it fails, answer from this.
    Ask(Option<Rc<Experiment>>),
}

impl Memory {
    /// Whether KV must be asked.
    pub(super) fn freshness(&self, tenant: &str, name: &str, now: Timestamp) -> Freshness {
        let known = &mut self.0.borrow_mut().experiments;
        let Some(at) = known.iter().position(|known| known.is(tenant, name)) else { return Freshness::Ask(None) };
        let mut found = known.remove(at);
        let (asks, experiment) = (found.belief.must_ask(now, FRESH_SECONDS), Rc::clone(&found.experiment));
        known.insert(0, found);
        if asks { Freshness::Ask(Some(experiment)) } else { Freshness::Fresh(experiment) }
    }

    /// Remembers what KV said, or what was written here; gives back what is newest now.
    pub(super) fn learn(
        &self,
        tenant: &str,
        name: &str,
        heard: Option<Experiment>,
        now: Timestamp,
    ) -> Option<Rc<Experiment>> {
        let known = &mut self.0.borrow_mut().experiments;
        let at = known.iter().position(|known| known.is(tenant, name));
        let before = at.map(|at| known.remove(at).experiment);
        let newest = match (before, heard) {
            (Some(before), Some(heard)) if before.sequence() > heard.sequence() => before,
            (Some(before), None) if now.millis_since(before.updated_at()) < MISS_DOUBTED_SECONDS * 1000 => before,
            (_, None) => return None,
            (_, Some(heard)) => Rc::new(heard),
        };
        let belief = Belief::new(now, FRESH_SECONDS);
        known.insert(0, Known { tenant: tenant.to_owned(), experiment: Rc::clone(&newest), belief });
        known.truncate(EXPERIMENTS_MAX);
        Some(newest)
    }

    /// KV failed at `now`: placements go on with what is known.
    pub(super) fn go_on(&self, tenant: &str, name: &str, now: Timestamp) {
        for known in self.0.borrow_mut().experiments.iter_mut().filter(|known| known.is(tenant, name)) {
            known.belief = Belief::new(now, FRESH_SECONDS);
        }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self, tenant: &str, name: &str) {
        self.0.borrow_mut().experiments.retain(|known| !known.is(tenant, name));
    }

    /// Whether `metadata` is what this isolate stored under `key` last.
    pub(super) fn has_stored(&self, key: &Fingerprint, metadata: &Fingerprint) -> bool {
        let events = &self.0.borrow().events;
        events.iter().find(|(known, _)| known == key).is_some_and(|(_, last)| last == metadata)
    }

    /// Something else is being written under `key`: what is there is not known before that is done.
    pub(super) fn storing(&self, key: &Fingerprint) {
        self.0.borrow_mut().events.retain(|(known, _)| known != key);
    }

    /// It was written.
    pub(super) fn stored(&self, key: Fingerprint, metadata: Fingerprint) {
        let events = &mut self.0.borrow_mut().events;
        events.push_front((key, metadata));
        events.truncate(EVENTS_MAX);
    }
}
