//! Where a tenant's flag document lives: immutable revisions, and one small head that names the current one.
//!
//! # Keys
//!
//! | key | holds | written by |
//! |---|---|---|
//! | `flag/revision/<content hash>` | one document, for ever | an edit, before the head; the same content gives the same key and value |
//! | `flag/head` | current revision, its sequence number, the 50 before it, and the document itself up to 512 KiB | every edit and rollback |
//!
//! A document of usual size travels with its pointer, so a cold isolate needs one read, and there is no moment in
//! which the pointer has arrived and what it names has not. A larger one is read from its revision, once per isolate.
//!
//! # What a call promises
//!
//! - An edit that was acknowledged is seen here at once, elsewhere after 30 seconds (what KV keeps) plus 10 (what an
//!   isolate keeps; one more while it asks) plus propagation: that is how long a kill switch takes. This holds while KV
//!   answers; when it does not, an isolate goes on with the last revision it has seen.
//! - Within an isolate the sequence number never decreases, as long as it remembers the tenant ([`super::Memory`]).
//! - A write that fails half way leaves a revision nobody points to, never a pointer to nothing.
//!
//! # What a concurrent editor can lose
//!
//! KV has no compare-and-set. Two editors who start from the same document and write within the time a head takes to
//! reach the other (seconds in one location, up to the 30 seconds above across locations) overwrite each other: the
//! later write wins **whole**, and the earlier edit is gone from the document and from the history. Its revision stays
//! stored. `If-Match` narrows this to edits that crossed: an editor whose location already shows the other edit is
//! refused. Documents edited by several people at once need a queue in front, such as a repository and its pipeline.
//!
//! # Where the rules of KV are bent
//!
//! *A key is read before it is created*: evaluation and editing read `flag/head` of a tenant that has none yet. So the
//! first document of a tenant may stay unseen for those 30 seconds more in a location that asked before.
//! *A key has many writers*: `flag/head`, as said above.
//!
//! # Cost in KV operations (asserted in `tests/it/flag_store.rs`)
//!
//! | call | reads | writes |
//! |---|---|---|
//! | evaluation, of one flag or all | 0; every 10 seconds, and in a cold isolate or one that slept, 1 (2 when a document above 512 KiB is new to the isolate) | 0 |
//! | reading the document, a flag, the history | 1 (2 as above) | 0 |
//! | an edit, also one that changes nothing | 1 (2 as above) | 2 |
//! | a rollback | 2 | 1 |

use std::rc::Rc;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;

use super::document::{FlagSet, Problem};
use super::edit::{self, Edit, Refused};
use super::memory::{Document, Freshness, Memory, Revision, Snapshot};
use crate::clock::Timestamp;
use crate::kv::codec::{self, Record};
use crate::kv::{self, Corrupt, Key, KeySpace, Read, Store, Tenant, Write};

/// The member of the context that holds where a request came from, as the platform knows it: `country`, `continent`,
/// `colo`. It takes the place of what the caller sent under this name.
pub const PLACE: &str = "cf";
/// Entries of the history.
pub const HISTORY_MAX: usize = 50;
/// Largest document that travels with its pointer, in bytes.
const INLINE_BYTES_MAX: usize = 512 << 10;
/// Bytes of the content hash that name a revision. 16 cannot be hit by chance, and to make two documents of one name
/// takes 2^64 hashes and harms the forger's own tenant only.
const REVISION_BYTES: usize = 16;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// KV failed; a write may nevertheless have happened, and repeating the call is safe.
    #[error(transparent)]
    Store(#[from] kv::Error),
    /// The edited document would be wrong in these places. Nothing was written.
    #[error("the document is not valid")]
    Invalid(Vec<Problem>),
    /// The flag to change is not there. Nothing was written.
    #[error("no such flag")]
    NoSuchFlag,
    /// The history does not name this revision. Nothing was written.
    #[error("no such revision")]
    NoSuchRevision,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    /// Newest first; the first is current.
    history: Vec<Revision>,
    /// The current document, unless it is large.
    document: Option<String>,
}

impl Record for Head {
    const KIND: &'static str = "flag-head";
    const VERSION: u32 = 1;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    document: String,
}

impl Record for Stored {
    const KIND: &'static str = "flag-revision";
    const VERSION: u32 = 1;
}

/// The flag document of one tenant.
#[derive(Clone, Debug)]
pub struct Flags<S> {
    store: S,
    space: KeySpace,
    tenant: Tenant,
    memory: Memory,
}

impl<S: Store> Flags<S> {
    /// The document of `tenant` in `store`; `memory` is the isolate's.
    pub fn new(store: S, tenant: &Tenant, memory: Memory) -> Self {
        Self { store, space: tenant.space("flag"), tenant: tenant.clone(), memory }
    }

    /// The document to evaluate with: at most 11 seconds older than what KV shows here, or, when KV fails, the last
    /// one seen. Nothing when the tenant has none.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed and this isolate has seen no document.
    pub async fn snapshot(&self, now: Timestamp) -> Result<Option<Rc<Snapshot>>, Error> {
        let last = match self.memory.freshness(self.tenant.id(), now) {
            Freshness::Fresh(snapshot) => return Ok(snapshot),
            Freshness::Ask(last) => last,
        };
        match self.newest(now).await {
            Err(_) if last.is_some() => {
                self.memory.go_on(self.tenant.id(), now);
                Ok(last)
            }
            outcome => outcome,
        }
    }

    /// The newest document that KV shows here or this isolate has seen; what an edit starts from.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed.
    pub async fn newest(&self, now: Timestamp) -> Result<Option<Rc<Snapshot>>, Error> {
        let head: Option<Head> = codec::decode_found(self.store.get(&self.head(), Read::FRESHEST).await?)?;
        let snapshot = match head {
            Some(head) => Some(self.open(head).await?),
            None => None,
        };
        Ok(self.memory.learn(self.tenant.id(), snapshot, now))
    }

    /// Writes `base` after `edit`, if the result is right in every place.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::NoSuchFlag`]: nothing was written. [`Error::Store`]: KV failed, also because the
    /// head was written less than a second ago ([`kv::Error::Throttled`]).
    pub async fn commit(&self, base: Option<&Rc<Snapshot>>, edit: Edit, now: Timestamp) -> Result<Rc<Snapshot>, Error> {
        let before = base.map(|base| base.value()).transpose()?;
        let after = edit::apply(before, edit).map_err(|Refused::NoSuchFlag| Error::NoSuchFlag)?;
        let set = FlagSet::validate(&after).map_err(Error::Invalid)?;
        let document = Document::new(after.to_string(), set);
        let revision = revision_of(&document.text);
        // Written also when `base` says the same: it may be stale, and what is current elsewhere may be another.
        let stored = codec::encode(&Stored { document: document.text.clone() })?;
        self.store.put(&self.space.key(&["revision", &revision]), &stored, Write::default()).await?;
        self.point(base, revision, Rc::new(document), now).await
    }

    /// Makes a revision of the history current again, as a change of its own.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchRevision`]: nothing was written. [`Error::Store`]: KV failed.
    pub async fn rollback(&self, base: &Rc<Snapshot>, revision: &str, now: Timestamp) -> Result<Rc<Snapshot>, Error> {
        // Only what the history names is read: asking for a name at random would hide it from its later creation.
        if !base.history.iter().any(|entry| entry.revision == revision) {
            return Err(Error::NoSuchRevision);
        }
        let document = Document::load(self.stored(revision).await?)?;
        self.point(Some(base), revision.to_owned(), Rc::new(document), now).await
    }

    /// Writes the head, and remembers it.
    async fn point(
        &self,
        base: Option<&Rc<Snapshot>>,
        revision: String,
        document: Rc<Document>,
        now: Timestamp,
    ) -> Result<Rc<Snapshot>, Error> {
        let before = base.map(|base| base.history.as_slice()).unwrap_or_default();
        let after_base = base.map_or(1, |base| base.current.sequence.saturating_add(1));
        let current = Revision { revision, sequence: after_base.max(now.millis()), updated_at: now };
        // What changes nothing takes no other revision's place in the history.
        let same = before.first().is_some_and(|last| last.revision == current.revision);
        let past = before.iter().skip(usize::from(same));
        let history: Vec<Revision> = std::iter::once(&current).chain(past).take(HISTORY_MAX).cloned().collect();
        let inline = (document.text.len() <= INLINE_BYTES_MAX).then(|| document.text.clone());
        let head = codec::encode(&Head { history: history.clone(), document: inline })?;
        if let Err(error) = self.store.put(&self.head(), &head, Write::default()).await {
            self.memory.doubt(self.tenant.id());
            return Err(error.into());
        }
        let snapshot = Rc::new(Snapshot { document, history, current });
        self.memory.learn(self.tenant.id(), Some(Rc::clone(&snapshot)), now);
        Ok(snapshot)
    }

    /// The document that `head` names, from this isolate's memory, the head itself, or its revision.
    async fn open(&self, head: Head) -> Result<Rc<Snapshot>, Error> {
        let current = head.history.first().cloned().ok_or(kv::Error::Corrupt(Corrupt::Damaged))?;
        let known = self.memory.known(self.tenant.id());
        let document = match known {
            Some(known) if known.current.sequence > current.sequence => return Ok(known),
            Some(known) if known.current.revision == current.revision => Rc::clone(&known.document),
            _ => {
                let text = match head.document {
                    Some(text) => text,
                    None => self.stored(&current.revision).await?,
                };
                Rc::new(Document::load(text)?)
            }
        };
        Ok(Rc::new(Snapshot { document, history: head.history, current }))
    }

    /// The text of a revision that was written, so a miss is only that it has not arrived here.
    async fn stored(&self, revision: &str) -> Result<String, Error> {
        let key = self.space.key(&["revision", revision]);
        let found: Option<Stored> = codec::decode_found(self.store.get(&key, Read::FRESHEST).await?)?;
        let arrived = found.ok_or_else(|| kv::Error::Unavailable("a revision has not arrived".to_owned()))?;
        Ok(arrived.document)
    }

    fn head(&self) -> Key {
        self.space.key(&["head"])
    }
}

impl Document {
    fn new(text: String, set: FlagSet) -> Self {
        let reads_time = set.may_read(&["$flagd", "timestamp"]);
        let reads_place = set.may_read(&[PLACE]);
        Self { text, set, reads_time, reads_place }
    }

    fn load(text: String) -> Result<Self, kv::Error> {
        let damaged = || kv::Error::Corrupt(Corrupt::Damaged);
        let value: Value = serde_json::from_slice(text.as_bytes()).map_err(|_| damaged())?;
        let set = FlagSet::load(&value).map_err(|_| damaged())?;
        Ok(Self::new(text, set))
    }
}

impl Snapshot {
    /// The document as JSON.
    ///
    /// # Errors
    ///
    /// [`kv::Error::Corrupt`], which what was loaded once is not.
    pub fn value(&self) -> Result<Value, kv::Error> {
        serde_json::from_slice(self.text().as_bytes()).map_err(|_| kv::Error::Corrupt(Corrupt::Damaged))
    }
}

fn revision_of(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    Base64UrlUnpadded::encode_string(digest.get(..REVISION_BYTES).unwrap_or_default())
}
