//! Documents with a schema version: migrated when read, written back behind, swept in bounded steps.
//!
//! # Promise
//!
//! - A read answers in the newest version. Migrating is a pure function of what is stored, so every location gives the
//!   same answer, whether or not anything was written back.
//! - **No migration ever covers what a user wrote.** KV has no compare-and-set and any read may be old, so a migrated
//!   record written over its original could undo a newer write, whatever is checked before. It goes to a second key
//!   instead, and counts only for the original that carries the same stamp. It tells lists and sweeps, from metadata,
//!   how far a collection has come. Reads do not use it: to know that it counts they would need the original as well,
//!   and to migrate that again is cheaper than a second read, and right even after a migration was corrected.
//! - The time to live is kept by both; a record newer than the schema is served read-only.
//! - Two users' writes of one document: the later wins as a whole; `If-Match` compares with what this location sees.
//! - The schema is remembered by an isolate for [`SCHEMA_SECONDS`]; with KV's own delay a new version is used
//!   everywhere after some minutes. Until then old and new versions are written side by side, which reads settle.
//!
//! # Cost
//!
//! A read is one read, whatever version the record is of. If that is an older one, one read of its migrated copy follows
//! behind the answer, and one write where there is none: at most once a minute and isolate, and no more once the isolate
//! knows that there is one. A write is blind: one write; one read more with a precondition, for a patch, and after a
//! schema was taken back. Not knowing the schema costs one read, once in [`SCHEMA_SECONDS`]. A list is one list operation
//! and no reads.

mod chain;
mod collections;
mod record;
mod schema;
mod sweep;

use serde_json::Value;
use thiserror::Error;

pub use chain::{Chain, ChainError, First, Next, Typed};
pub use collections::{Collections, Swept};
pub use record::{Document, Summary};
pub use schema::{Collection, Migrate, MigrationError, SchemaError, VERSION_MAX};
pub use sweep::{ERRORS_MAX, Sweep, SweepError, SweepReport};

use crate::background::Background;
use crate::clock::Timestamp;
use crate::etag::{Precondition, entity_tag};
use crate::kv::codec::{decode_found, encode};
use crate::kv::{self, Key, KeySpace, PageRequest, Prefix, Read, Store, Tenant};
use crate::patch::{Bounds, Patch, PatchError, check};
use crate::recent::Recent;
use crate::stamp::{Stamp, Stamps};

/// How large a document may be.
pub const BOUNDS: Bounds = Bounds { bytes_max: 256 * 1024, depth_max: 32 };
/// How long an isolate remembers a collection's schema, in seconds.
pub const SCHEMA_SECONDS: u64 = 30;
/// Shortest time between two write-backs of one document by one isolate, in seconds.
pub const WRITE_BACK_SECONDS: u64 = 60;

/// What is kept for one document: what the user wrote, and the copy of it in a newer version. Listed, the copy comes
/// directly before its original.
const OWN: &str = "own";
const MIGRATED: &str = "migrated";

/// A document as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// The content, in `version`.
    pub data: Value,
    /// The version it is served in.
    pub version: u32,
    /// The version it is stored in, if that is older and no copy in `version` is known to be stored.
    pub migrated_from: Option<u32>,
    /// Whether it is newer than the schema and so cannot be changed.
    pub read_only: bool,
    /// When its user wrote it.
    pub updated_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The tag of the content.
    pub etag: String,
}

/// Why a document was not read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such document.
    #[error("there is no such document")]
    Missing,
    /// The document is another one than the caller wants changed.
    #[error("the document is another one")]
    PreconditionFailed,
    /// The stored record has this version, which the schema does not know.
    #[error("the stored record has the newer version {0}")]
    Newer(u32),
    /// A migration cannot handle the stored content.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// The patch cannot be applied, or the document would break a limit.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// KV failed, or the record is unreadable.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}

/// The documents of one collection.
#[derive(Clone, Debug)]
pub struct Documents<S> {
    store: S,
    space: KeySpace,
    collection: String,
    written_back: Recent<WriteBack>,
}

/// What an isolate remembers of writing one document back.
#[derive(Clone, Copy, Debug)]
pub struct WriteBack {
    tried_at: Timestamp,
    /// Of which original, in which version, a copy is stored; nothing while that is not known.
    stored: Option<(Stamp, u32)>,
}

/// A page of documents, from metadata alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The documents, in the order of their ids' bytes.
    pub items: Vec<Summary>,
    /// Where the next page starts; nothing when this was the last.
    pub cursor: Option<String>,
}

impl<S: Store + Clone + 'static> Documents<S> {
    /// The documents of `collection` of `tenant`; `written_back` is the isolate's memory.
    pub fn new(store: S, tenant: &Tenant, collection: &str, written_back: Recent<WriteBack>) -> Self {
        Self { store, space: tenant.space("document"), collection: collection.to_owned(), written_back }
    }

    fn key(&self, id: &str, part: &str) -> Key {
        self.space.key(&[&self.collection, id, part])
    }

    /// Where everything of this collection lies.
    fn prefix(&self) -> Result<Prefix, kv::Error> {
        self.space.below(&[&self.collection]).map_err(|error| kv::Error::Invalid(error.to_string()))
    }

    /// The document `id` in the schema's version; `background` writes it back if it was older.
    ///
    /// # Errors
    ///
    /// A migration cannot handle it, KV failed, or the record is unreadable.
    pub async fn read(
        &self,
        schema: &impl Migrate,
        id: &str,
        now: Timestamp,
        background: &impl Background,
    ) -> Result<Option<Served>, Error> {
        let Some(own) = self.find(id, now).await? else { return Ok(None) };
        let mut served = serve(schema, &own)?;
        if served.migrated_from.is_none() {
            return Ok(Some(served));
        }
        let key = self.key(id, MIGRATED);
        let known = self.written_back.get(key.as_str());
        if known.is_some_and(|known| known.stored == Some((own.stamp(), served.version))) {
            served.migrated_from = None;
        } else if known.is_none_or(|known| known.tried_at.plus_seconds(WRITE_BACK_SECONDS) <= now) {
            self.written_back.put(key.as_str(), WriteBack { tried_at: now, stored: None });
            let copy = own.migrated(served.version, served.data.clone(), now);
            let (documents, id) = (self.clone(), id.to_owned());
            // One that fails is tried by a later read.
            background.spawn(async move {
                if documents.write_back(&id, &own, &copy, now).await.is_ok() {
                    let stored = Some((own.stamp(), copy.version()));
                    documents.written_back.put(key.as_str(), WriteBack { tried_at: now, stored });
                }
            });
        }
        Ok(Some(served))
    }

    async fn find(&self, id: &str, now: Timestamp) -> Result<Option<Document>, Error> {
        let own: Option<Document> = decode_found(self.store.get(&self.key(id, OWN), Read::default()).await?)?;
        Ok(own.filter(|own| own.is_live(now)))
    }

    /// Writes `copy` unless there is one of `own` in its version. An unreadable one is no loss.
    async fn write_back(&self, id: &str, own: &Document, copy: &Document, now: Timestamp) -> Result<(), kv::Error> {
        let known = self.store.get(&self.key(id, MIGRATED), Read::default()).await?;
        let known = decode_found::<Document>(known).ok().flatten();
        if known.is_some_and(|known| known.is_copy_of(own) && known.version() == copy.version()) {
            return Ok(());
        }
        self.write(id, MIGRATED, copy, now).await
    }

    async fn write(&self, id: &str, part: &str, document: &Document, now: Timestamp) -> Result<(), kv::Error> {
        let write = document.write(id, now)?;
        self.store.put(&self.key(id, part), &encode(document)?, write).await
    }

    /// Stores `data` as the document `id`, in the schema's version, for `ttl_seconds` or for ever.
    ///
    /// # Errors
    ///
    /// The precondition does not hold, the stored record is newer than the schema, the document breaks a limit, or KV
    /// failed.
    #[allow(clippy::too_many_arguments, reason = "each is a different thing, and the caller has them one by one")]
    pub async fn put(
        &self,
        schema: &impl Migrate,
        id: &str,
        data: Value,
        ttl_seconds: Option<u64>,
        precondition: &Precondition,
        now: Timestamp,
        stamps: &Stamps,
    ) -> Result<Served, Error> {
        check(&data, BOUNDS)?;
        let seen = self.guard(schema, id, precondition, now).await?;
        let expires_at = ttl_seconds.map(|seconds| now.plus_seconds(seconds));
        let stamp = stamps.next(now, seen.map(|own| own.stamp()));
        let document = Document::new(stamp, schema.version(), expires_at, data);
        self.write(id, OWN, &document, now).await?;
        Ok(serve(schema, &document)?)
    }

    /// Changes the document `id`; its end stays what it was unless `ttl_seconds` says otherwise.
    ///
    /// # Errors
    ///
    /// There is no such document, and those of [`Documents::put`] and of the patch.
    #[allow(clippy::too_many_arguments, reason = "each is a different thing, and the caller has them one by one")]
    pub async fn patch(
        &self,
        schema: &impl Migrate,
        id: &str,
        patch: &Patch,
        ttl_seconds: Option<u64>,
        precondition: &Precondition,
        now: Timestamp,
        stamps: &Stamps,
    ) -> Result<Served, Error> {
        let own = self.find(id, now).await?.ok_or(Error::Missing)?;
        let before = changeable(schema, &own, precondition)?;
        let data = patch.apply(before.data, BOUNDS)?;
        let expires_at = ttl_seconds.map(|seconds| now.plus_seconds(seconds)).or(before.expires_at);
        let stamp = stamps.next(now, Some(own.stamp()));
        let document = Document::new(stamp, schema.version(), expires_at, data);
        self.write(id, OWN, &document, now).await?;
        Ok(serve(schema, &document)?)
    }

    /// Removes the document `id`, also when it is not there. One delete, or two where copies can exist.
    ///
    /// # Errors
    ///
    /// The precondition does not hold, the stored record is newer than the schema, or KV failed.
    pub async fn delete(
        &self,
        schema: &impl Migrate,
        id: &str,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.guard(schema, id, precondition, now).await?;
        self.store.delete(&self.key(id, OWN)).await?;
        // A copy without its original is never served; this only saves its space.
        if schema.version_highest() > 1 {
            self.store.delete(&self.key(id, MIGRATED)).await?;
        }
        Ok(())
    }

    /// Reads the stored document where that is needed to know whether it may be replaced: with a precondition, and when
    /// the schema was taken back, so that newer records may exist.
    async fn guard(
        &self,
        schema: &impl Migrate,
        id: &str,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Option<Document>, Error> {
        if precondition.is_none() && schema.version_highest() <= schema.version() {
            return Ok(None);
        }
        match self.find(id, now).await? {
            None if precondition.holds(None) => Ok(None),
            None => Err(Error::PreconditionFailed),
            Some(own) => changeable(schema, &own, precondition).map(|_| Some(own)),
        }
    }

    /// A page of at most `limit` documents, 1 to 1000; fewer where copies lie between them. The cursor is not yet fit for
    /// strangers: seal it to tenant and collection. One list.
    ///
    /// # Errors
    ///
    /// KV failed, or the cursor is not one of this list.
    pub async fn list(
        &self,
        schema: &impl Migrate,
        limit: u32,
        cursor: Option<&str>,
        now: Timestamp,
    ) -> Result<Listing, kv::Error> {
        let pairs = self.pairs(limit, cursor).await?;
        let summaries = pairs.pairs.into_iter().filter_map(|pair| pair.summary(schema.version()));
        // KV may keep what has ended for another minute.
        let items = summaries.filter(|summary| summary.expires_at.is_none_or(|expires_at| now < expires_at)).collect();
        Ok(Listing { items, cursor: pairs.cursor })
    }

    async fn pairs(&self, limit: u32, cursor: Option<&str>) -> Result<record::Pairs, kv::Error> {
        let (cursor, pending) = record::Pairs::resume(cursor)?;
        let prefix = self.prefix()?;
        let page = self.store.list(&prefix, &PageRequest { limit, cursor }).await?;
        Ok(record::Pairs::join(&prefix, page, pending))
    }
}

/// The document that `own` is in the schema's version.
fn serve(schema: &impl Migrate, own: &Document) -> Result<Served, MigrationError> {
    let (from, to) = (own.version(), schema.version());
    let data = if from < to { schema.migrate(from, own.data().clone())? } else { own.data().clone() };
    Ok(Served {
        etag: entity_tag(&data),
        data,
        version: from.max(to),
        migrated_from: (from < to).then_some(from),
        read_only: from > to,
        updated_at: own.stamp().at(),
        expires_at: own.expires_at(),
    })
}

/// The document that may be replaced.
fn changeable(schema: &impl Migrate, own: &Document, precondition: &Precondition) -> Result<Served, Error> {
    let served = serve(schema, own)?;
    if served.read_only {
        return Err(Error::Newer(served.version));
    }
    if precondition.holds(Some(&served.etag)) { Ok(served) } else { Err(Error::PreconditionFailed) }
}
