//! What one isolate remembers: the newest document it has seen of each tenant, compiled once.
//!
//! - **It never steps back**: what is older than what is remembered, by sequence number, is not taken.
//! - It is bounded: [`TENANTS_MAX`] tenants and [`BYTES_MAX`] bytes of documents, the least recently used forgotten
//!   first; the newest stays however large it is. Forgetting costs a read, and forgets the sequence number too.
//! - It asks KV for news of a tenant every [`POINTER_SECONDS`], also when KV fails, by one request; by all of them when
//!   it has slept through its time ([`Belief`]).

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::document::FlagSet;
use crate::clock::Timestamp;
use crate::recent::Belief;

/// How long an isolate takes what it knows for the newest, in seconds.
pub const POINTER_SECONDS: u64 = 10;
/// Tenants an isolate remembers.
pub const TENANTS_MAX: usize = 32;
/// Bytes of documents an isolate remembers; compiled they take several times as much of its 128 MB.
pub const BYTES_MAX: usize = 8 << 20;

/// Which document, and when it became the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revision {
    /// The document's content hash: the same content has the same name.
    pub revision: String,
    /// Greater than that of every change the editor knew of, and not below the time in milliseconds: a hybrid
    /// logical clock (Kulkarni et al., "Logical physical clocks", OPODIS 2014).
    pub sequence: u64,
    /// When it became current.
    pub updated_at: Timestamp,
}

/// A document as text and as compiled rules.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: String,
    pub(super) set: FlagSet,
    pub(super) reads_time: bool,
    pub(super) reads_place: bool,
}

/// The current document of a tenant, as far as this isolate knows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) document: Rc<Document>,
    /// What was current, newest first; the first is current.
    pub(super) history: Vec<Revision>,
    pub(super) current: Revision,
}

impl Snapshot {
    /// Which document this is.
    pub fn current(&self) -> &Revision {
        &self.current
    }

    /// What was current, newest first, this one included.
    pub fn history(&self) -> &[Revision] {
        &self.history
    }

    /// The document as JSON text, its members sorted.
    pub fn text(&self) -> &str {
        &self.document.text
    }

    /// The compiled rules.
    pub fn flags(&self) -> &FlagSet {
        &self.document.set
    }

    /// Whether the answers may change with time alone.
    pub fn reads_time(&self) -> bool {
        self.document.reads_time
    }

    /// Whether the answers may depend on where the request came from ([`super::PLACE`]).
    pub fn reads_place(&self) -> bool {
        self.document.reads_place
    }
}

/// The memory of one isolate. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<RefCell<Vec<Known>>>);

#[derive(Debug)]
struct Known {
    tenant: String,
    /// Nothing: the tenant has no document, as far as KV said.
    snapshot: Option<Rc<Snapshot>>,
    belief: Belief,
}

/// What to do before an evaluation.
#[derive(Debug)]
pub(super) enum Freshness {
    /// Answer from this.
    Fresh(Option<Rc<Snapshot>>),
    /// Ask KV; when it fails, answer from this.
    Ask(Option<Rc<Snapshot>>),
}

impl Memory {
    /// What is known of `tenant`, without asking anybody.
    pub(super) fn known(&self, tenant: &str) -> Option<Rc<Snapshot>> {
        self.0.borrow().iter().find(|known| known.tenant == tenant)?.snapshot.clone()
    }

    /// Whether KV must be asked about `tenant`.
    pub(super) fn freshness(&self, tenant: &str, now: Timestamp) -> Freshness {
        let mut entries = self.0.borrow_mut();
        let Some(at) = entries.iter().position(|known| known.tenant == tenant) else { return Freshness::Ask(None) };
        let mut known = entries.remove(at);
        let (asks, snapshot) = (known.belief.must_ask(now, POINTER_SECONDS), known.snapshot.clone());
        entries.insert(0, known);
        if asks { Freshness::Ask(snapshot) } else { Freshness::Fresh(snapshot) }
    }

    /// Remembers what KV said, or an edit made here; gives back what is newest now.
    pub(super) fn learn(&self, tenant: &str, heard: Option<Rc<Snapshot>>, asked_at: Timestamp) -> Option<Rc<Snapshot>> {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|known| known.tenant == tenant).map(|at| entries.remove(at));
        let sequence = |snapshot: &Option<Rc<Snapshot>>| snapshot.as_ref().map_or(0, |it| it.current.sequence);
        let snapshot = match known {
            Some(known) if sequence(&known.snapshot) > sequence(&heard) => known.snapshot,
            _ => heard,
        };
        let belief = Belief::new(asked_at, POINTER_SECONDS);
        entries.insert(0, Known { tenant: tenant.to_owned(), snapshot: snapshot.clone(), belief });
        forget(&mut entries);
        snapshot
    }

    /// Nothing is known to be fresh about `tenant`: the next evaluation asks KV.
    pub(super) fn doubt(&self, tenant: &str) {
        self.believe(tenant, Belief::default());
    }

    /// KV failed at `now`: evaluations go on with what is known.
    pub(super) fn go_on(&self, tenant: &str, now: Timestamp) {
        self.believe(tenant, Belief::new(now, POINTER_SECONDS));
    }

    fn believe(&self, tenant: &str, belief: Belief) {
        for known in self.0.borrow_mut().iter_mut().filter(|known| known.tenant == tenant) {
            known.belief = belief;
        }
    }
}

/// Keeps the first entry, and of the others as many as fit.
fn forget(entries: &mut Vec<Known>) {
    let mut bytes = 0_usize;
    let mut keep = 0_usize;
    for known in entries.iter().take(TENANTS_MAX) {
        bytes = bytes.saturating_add(known.snapshot.as_ref().map_or(0, |snapshot| snapshot.document.text.len()));
        if bytes > BYTES_MAX && keep > 0 {
            break;
        }
        keep += 1;
    }
    entries.truncate(keep);
}
