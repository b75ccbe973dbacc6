//! Experiments: the same user, the same variant, in every location and without a write; and what the counts say.
//!
//! # What a call promises
//!
//! - **Assignment is a pure function** ([`assign`]) of salt, user and weights. Two locations that have the same version
//!   give the same answer, and a change of weights moves only the users it must.
//! - **An edit that moves users is refused** with the share it would move, unless the caller insists. It is compared
//!   with what users were last served, so pausing, editing and resuming does not get around it ([`config`]).
//! - **Status comes first**: pausing or ending reaches everybody, sticky or not. It is seen here at once, elsewhere
//!   after 30 seconds (what KV keeps) plus 10 (what an isolate keeps; one more while it asks) plus propagation. Until
//!   then two locations may give one user two variants, if the edit moved that user; an edit that moves nobody has no
//!   such window. When KV does not answer, an isolate goes on with what it knows.
//! - **An event counts once** per user and metric: the 202 comes after KV has taken it. Repeating it is safe; a repeated
//!   event with another value replaces the first. Events of users placed by nobody (not running, testers) do not count.
//! - **Results** count users who saw exactly one variant, and of their conversions those of that variant; who saw two is
//!   left out and counted apart. The sample ratio is checked on users placed by the current weights.
//!
//! # Stickiness
//!
//! A sticky experiment gives each user a token that names the phase in which the user was placed, sealed with a secret
//! of the experiment. Who sends it back, with assignments and events, keeps the variant of that phase for as long as
//! the phase is among the last [`PHASES_MAX`] and the variant is still offered. Who does not send it is placed by the
//! current weights. Nothing is stored per user. Tokens never expire; a new experiment under the old name voids them.
//!
//! # Layers
//!
//! Experiments that name the same layer and slots that do not overlap share no user. An edit is refused while another
//! experiment that has not ended holds one of its slots. Of two such edits that cross, or follow each other before lists
//! show the first, both may be taken; and a location that has one edit and not yet the other may place a user in both.
//!
//! # Keys
//!
//! | namespace | key | holds | written by |
//! |---|---|---|---|
//! | CONFIG | `experiment/<name>` | definition, phases, secret | every edit |
//! | COUNTERS | `experiment-event/<id>/<pseudonym>/<phase>/<metric>` | one event, in its metadata | this event; with another value when it is repeated with one |
//!
//! A pseudonym is a keyed hash: KV holds no user id but those of testers. Events are kept for 400 days, also when the
//! experiment is deleted; their names then lead nowhere.
//!
//! # Where the rules of KV are bent
//!
//! *A key is read before it is created*: an edit, and whoever asks for an experiment that is not there yet. So a new
//! experiment may stay unseen for those 30 seconds more in a location that asked before.
//! *A key has many writers*: `experiment/<name>`; of two edits that cross, the later wins whole, `If-Match` narrows it.
//! *An event may be written twice within a second*: KV refuses the second, which is as good as taken, unless its value
//! differs: then the first one stays until the second is repeated. Nor does an isolate hear of another's: of a value sent
//! here, another one there, and the first again here, the second stays.
//!
//! # Cost in KV operations (asserted in `tests/it/experiment_store.rs`)
//!
//! | call | reads | writes | deletes | lists |
//! |---|---|---|---|---|
//! | assignment | 0; every 10 seconds, and in a cold isolate or one that slept, 1 | 0 | 0 | 0 |
//! | event | as an assignment | 1; 0 when this isolate has stored it | 0 | 0 |
//! | results | as an assignment | 0 | 0 | 1 per 1000 events, at most [`PAGES_MAX`] |
//! | read | 1 | 0 | 0 | 0 |
//! | edit | 1 | 1; 0 when it changes nothing | 0 | 0 |
//! | edit in a layer | 1 per experiment more, in bulk | 1 | 0 | 1 per 1000 experiments, at most [`PAGES_MAX`] |
//! | delete | 1 | 0 | 1 | 0 |
//! | list | 1 per experiment, in bulk | 0 | 0 | 1 |
//!
//! An event costs a write per user and metric: that is the price of counting users exactly, and what an account's write
//! quota bounds. Beyond 20 000 events results are those of a sample: users are listed in the order of their pseudonyms,
//! which is random, so the users of the first pages are a fair one. The reply says `truncated`, and which share it saw.

pub mod assign;
pub mod config;
mod events;
mod memory;
mod results;
pub mod stats;

use std::rc::Rc;

use thiserror::Error as ThisError;

pub use config::{Definition, Experiment, OVERRIDES_MAX, PHASES_MAX, Placement, Reason, Refused, Status};
pub use events::{EVENT_SECONDS, EXPOSURE, METRIC_BYTES_MAX, METRICS_MAX, Tally};
pub use memory::{EVENTS_MAX, EXPERIMENTS_MAX, FRESH_SECONDS, Memory};
pub use results::{CONVERSIONS_MIN, EXPOSURES_MIN, Report, VERDICT_ALPHA, Verdict, Withheld};

use crate::clock::Timestamp;
use crate::kv::limits::BULK_KEYS_MAX;
use crate::kv::{self, Key, KeySpace, PageRequest, Read, Store, Tenant, Write, codec};
use crate::random::Random;
use events::Event;
use memory::Freshness;

/// Pages of 1000 events that results read, and of experiments that an edit in a layer is compared with.
pub const PAGES_MAX: u32 = 20;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// KV failed; a write may nevertheless have happened, and repeating the call is safe.
    #[error(transparent)]
    Store(#[from] kv::Error),
    /// The edit is wrong, or would move users. Nothing was written.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A page of experiments.
#[derive(Clone, Debug)]
pub struct Listed {
    /// In the order of their keys.
    pub experiments: Vec<Experiment>,
    /// Records that cannot be read; they were kept.
    pub unreadable: usize,
    /// Where the next page starts.
    pub cursor: Option<String>,
}

/// The experiments of one tenant.
#[derive(Clone, Debug)]
pub struct Experiments<S> {
    store: S,
    space: KeySpace,
    tenant: Tenant,
    memory: Memory,
}

impl<S: Store> Experiments<S> {
    /// The experiments of `tenant` in `store`; `memory` is the isolate's.
    pub fn new(store: S, tenant: &Tenant, memory: Memory) -> Self {
        Self { store, space: tenant.space("experiment"), tenant: tenant.clone(), memory }
    }

    /// The experiment to place users with: at most 11 seconds older than what KV shows here, or, when KV fails, the
    /// last version seen. Nothing when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed and this isolate has not seen it.
    pub async fn current(&self, name: &str, now: Timestamp) -> Result<Option<Rc<Experiment>>, Error> {
        let last = match self.memory.freshness(self.tenant.id(), name, now) {
            Freshness::Fresh(experiment) => return Ok(Some(experiment)),
            Freshness::Ask(last) => last,
        };
        match self.newest(name, now).await {
            Err(_) if last.is_some() => {
                self.memory.go_on(self.tenant.id(), name, now);
                Ok(last)
            }
            outcome => outcome,
        }
    }

    /// The newest version that KV shows here or this isolate has seen; what an edit starts from.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed.
    pub async fn newest(&self, name: &str, now: Timestamp) -> Result<Option<Rc<Experiment>>, Error> {
        let heard = codec::decode_found(self.store.get(&self.key(name), Read::FRESHEST).await?)?;
        Ok(self.memory.learn(self.tenant.id(), name, heard, now))
    }

    /// Writes `base` after the edit. Writes nothing when that changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: nothing was written. [`Error::Store`]: KV failed.
    pub async fn put(
        &self,
        base: Option<&Rc<Experiment>>,
        name: &str,
        definition: Definition,
        allow_reassign: bool,
        now: Timestamp,
        random: &impl Random,
    ) -> Result<Rc<Experiment>, Error> {
        let before = base.map(Rc::as_ref);
        let edited = Experiment::edited(before, name, definition, allow_reassign, now, random)?;
        if let Some(base) = base.filter(|base| base.says_the_same_as(&edited)) {
            return Ok(Rc::clone(base));
        }
        if let Some(rival) = self.rival(&edited).await? {
            return Err(Refused::Overlaps(rival).into());
        }
        if let Err(error) = self.store.put(&self.key(name), &codec::encode(&edited)?, Write::default()).await {
            // It may have happened: whoever comes next asks KV.
            self.memory.forget(self.tenant.id(), name);
            return Err(error.into());
        }
        let learned = self.memory.learn(self.tenant.id(), name, Some(edited.clone()), now);
        Ok(learned.unwrap_or_else(|| Rc::new(edited)))
    }

    /// Removes the experiment. Its events stay until they are too old, and lead nowhere.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.memory.forget(self.tenant.id(), name);
        Ok(self.store.delete(&self.key(name)).await?)
    }

    /// A page of experiments.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed.
    pub async fn list(&self, request: &PageRequest) -> Result<Listed, Error> {
        let prefix = self.space.all();
        let page = self.store.list(&prefix, request).await?;
        let keys: Vec<Key> = page.keys.iter().filter_map(|key| prefix.key(&key.name)).collect();
        let mut listed = Listed { experiments: Vec::with_capacity(keys.len()), unreadable: 0, cursor: page.cursor };
        for keys in keys.chunks(BULK_KEYS_MAX) {
            // What was deleted since it was listed is not there.
            for bytes in self.store.get_many(keys, Read::FRESHEST).await?.into_iter().flatten() {
                match codec::decode(&bytes) {
                    Ok(experiment) => listed.experiments.push(experiment),
                    Err(_) => listed.unreadable += 1,
                }
            }
        }
        Ok(listed)
    }

    /// Another experiment that has some of the slots of `edited`, unless one of the two has ended.
    async fn rival(&self, edited: &Experiment) -> Result<Option<String>, Error> {
        let Some(slots) = edited.slots().filter(|_| edited.status() != Status::Ended) else { return Ok(None) };
        let rivals = |other: &Experiment| {
            let is_another = other.name() != edited.name() && other.status() != Status::Ended;
            is_another && other.slots().is_some_and(|others| slots.overlap(others))
        };
        let mut request = PageRequest::default();
        for _ in 0..PAGES_MAX {
            let listed = self.list(&request).await?;
            if let Some(rival) = listed.experiments.iter().find(|other| rivals(other)) {
                return Ok(Some(rival.name().to_owned()));
            }
            let Some(cursor) = listed.cursor else { break };
            request = request.after(cursor);
        }
        Ok(None)
    }

    fn key(&self, name: &str) -> Key {
        self.space.key(&[name])
    }
}

/// What users of one tenant's experiments did.
#[derive(Clone, Debug)]
pub struct Events<S> {
    store: S,
    space: KeySpace,
    memory: Memory,
}

impl<S: Store> Events<S> {
    /// The events of `tenant` in `store`; `memory` is the isolate's.
    pub fn new(store: S, tenant: &Tenant, memory: Memory) -> Self {
        Self { store, space: tenant.space("experiment-event"), memory }
    }

    /// Counts that `user`, who stands at `placement`, did `metric`; whether it counts at all.
    ///
    /// # Errors
    ///
    /// KV failed: it may have been counted, and repeating is safe.
    pub async fn record(
        &self,
        experiment: &Experiment,
        placement: &Placement<'_>,
        user: &str,
        metric: &str,
        value: Option<f64>,
    ) -> Result<bool, Error> {
        let Some(phase) = placement.phase else { return Ok(false) };
        let event = Event { metric: metric.to_owned(), variant: placement.variant.to_owned(), phase, value };
        // The phase is padded so that later ones come later.
        let segments = [experiment.id(), &experiment.pseudonym(user), &format!("{phase:010}"), metric];
        let key = self.space.key(&segments);
        let metadata = serde_json::to_string(&event).map_err(|error| kv::Error::Invalid(error.to_string()))?;
        let (place, content) = (events::fingerprint(key.as_str()), events::fingerprint(&metadata));
        if self.memory.has_stored(&place, &content) {
            return Ok(true);
        }
        self.memory.storing(&place);
        let write = Write::expiring_in(EVENT_SECONDS).with_metadata(metadata);
        match self.store.put(&key, &codec::encode(&event)?, write).await {
            Ok(()) => self.memory.stored(place, content),
            // Somebody wrote this very key within the second: the event is there, perhaps with another value.
            Err(kv::Error::Throttled) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Counts the events of `experiment`, at most [`PAGES_MAX`] pages of them.
    ///
    /// # Errors
    ///
    /// KV failed.
    pub async fn tally(&self, experiment: &Experiment) -> Result<Tally, Error> {
        let too_long = |_| kv::Error::Invalid("an experiment's id is too long".to_owned());
        let prefix = self.space.below(&[experiment.id()]).map_err(too_long)?;
        let mut tally = Tally::of(experiment);
        let mut request = PageRequest::default();
        for _ in 0..PAGES_MAX {
            let page = self.store.list(&prefix, &request).await?;
            for key in &page.keys {
                let user = prefix.rest(&key.name).and_then(|rest| rest.split('/').next()).unwrap_or_default();
                let event =
                    key.metadata.as_deref().and_then(|metadata| serde_json::from_slice(metadata.as_bytes()).ok());
                tally.add(user, event);
            }
            let Some(cursor) = page.cursor else {
                tally.complete();
                return Ok(tally);
            };
            request = request.after(cursor);
        }
        tally.stop();
        Ok(tally)
    }
}
