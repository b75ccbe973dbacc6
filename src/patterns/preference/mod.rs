//! A user's preferences: only what the user set is stored, and defaults are merged in when read, so a changed default
//! reaches everyone who never set the field.
//!
//! # Promise
//!
//! - **A change of one field never undoes a change of another**, wherever the two are made: each field is its own key,
//!   written without having been read ("one writer per key", as far as one user's one field can have it).
//! - Two changes of the *same* field: the one that reaches KV last wins, and within a second of the first one KV may
//!   refuse the second. Objects inside a field are one field.
//! - A read elsewhere may show the old value for a minute or more. `If-Match` compares with what this location sees, so
//!   over plain KV it makes lost updates rare, not impossible. In [`strong`] mode a Durable Object decides and 412 is exact.
//! - A change of several fields is several writes: after a failure some may have happened. Repeating it is safe.
//! - Reading the preferences of a new user looks up keys before they exist, so this location may show the defaults for
//!   up to a minute after another one has set them. The writes themselves do not depend on it.
//!
//! # Cost
//!
//! A read is one bulk read: the tenant's defaults and a key per field (5 keys without fields of the tenant's own). Fields
//! the tenant adds are known from the isolate's memory; an isolate that does not know them yet makes a second bulk read.
//! A change is one such read and one write per changed field, so one write for the usual change of one field: that is
//! the price of keys that no change of another field can touch. Replacing or deleting writes every field.

mod overrides;
mod schema;
pub mod strong;

use futures_util::future::try_join_all;
use serde_json::{Map, Value};
use thiserror::Error;

pub use overrides::{Change, Decision, Entry, Overrides, Refusal, TOMBSTONE_SECONDS, decide};
pub use schema::{BOUNDS, EXTRA_FIELDS_MAX, FieldError, Schema};

use super::setting;
use crate::clock::Timestamp;
use crate::etag::{Precondition, entity_tag};
use crate::kv::limits::BULK_KEYS_MAX;
use crate::kv::{self, Key, KeySpace, Read, Store, Tenant, Write, codec};
use crate::recent::Recent;
use crate::stamp::Stamps;

/// The setting that holds a tenant's defaults.
pub const DEFAULTS_SETTING: &str = "preference-defaults";

// The defaults and every field fit one bulk read.
const _: () = assert!(1 + 4 + EXTRA_FIELDS_MAX <= BULK_KEYS_MAX);

/// A user's preferences as they are served.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Every field, set or default.
    pub document: Map<String, Value>,
    /// The tag of the document.
    pub etag: String,
    /// Fields whose stored value is unreadable; the default is served for them, and the next change replaces it.
    pub unreadable: Vec<String>,
}

/// Why preferences were not read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The change cannot be made.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// KV failed; of several fields, some may have been written.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}

/// The preferences of one tenant's users.
#[derive(Clone, Debug)]
pub struct Preferences<S> {
    store: S,
    space: KeySpace,
    defaults: Key,
    /// Per tenant, the fields it added, as this isolate saw them last.
    fields_seen: Recent<Vec<String>>,
}

/// What one read found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The tenant's fields.
    pub schema: Schema,
    /// What the user set, as KV shows it here.
    pub overrides: Overrides,
    /// Fields whose stored value is unreadable.
    pub unreadable: Vec<String>,
}

impl Found {
    /// As it is served.
    #[must_use]
    pub fn view(self) -> View {
        let document = self.overrides.over(&self.schema);
        View { etag: entity_tag(&document), document, unreadable: self.unreadable }
    }
}

impl<S: Store> Preferences<S> {
    /// The preferences of `tenant` in `store`; `fields_seen` is the isolate's memory of tenants' fields.
    pub fn new(store: S, tenant: &Tenant, fields_seen: Recent<Vec<String>>) -> Self {
        let defaults = setting::key(tenant, DEFAULTS_SETTING);
        Self { store, space: tenant.space("preference"), defaults, fields_seen }
    }

    /// The preferences of `user`; the defaults when nothing was set. One bulk read.
    ///
    /// # Errors
    ///
    /// KV failed, or the tenant's defaults are unreadable.
    pub async fn read(&self, user: &str) -> Result<View, Error> {
        Ok(self.find(user).await?.view())
    }

    /// Changes the preferences of `user` if `precondition` holds here. One bulk read, one write per changed field.
    ///
    /// # Errors
    ///
    /// The change is refused, with its reason; or KV failed, in which case some fields may have been written.
    pub async fn change(
        &self,
        user: &str,
        change: &Change,
        precondition: &Precondition,
        now: Timestamp,
        stamps: &Stamps,
    ) -> Result<View, Error> {
        let Found { schema, mut overrides, mut unreadable } = self.find(user).await?;
        let stamp = stamps.next(now, overrides.newest());
        let Decision { entries } = decide(&overrides, &schema, change, precondition, stamp)?;
        self.write(user, &entries).await?;
        unreadable.retain(|field| !entries.contains(field));
        overrides.merge(entries);
        Ok(Found { schema, overrides, unreadable }.view())
    }

    /// Writes `entries`, one key each: the second half of a change, also of one that an object decided.
    ///
    /// # Errors
    ///
    /// KV failed; some entries may have been written.
    pub async fn write(&self, user: &str, entries: &Overrides) -> Result<(), kv::Error> {
        let write = async |field: &str, entry: &Entry| {
            let bytes = codec::encode(entry)?;
            // An unset field leaves a tombstone, so that an older copy of the field cannot come back; KV collects it.
            let options = if entry.is_set() { Write::default() } else { Write::expiring_in(TOMBSTONE_SECONDS) };
            self.store.put(&self.space.key(&[user, field]), &bytes, options).await
        };
        try_join_all(entries.iter().map(|(field, entry)| write(field, entry))).await.map(|_| ())
    }

    /// What the user set, as this location sees it, and the tenant's schema: what [`strong`] mode joins before it
    /// decides. One bulk read.
    ///
    /// # Errors
    ///
    /// KV failed, or the tenant's defaults are unreadable.
    pub async fn find(&self, user: &str) -> Result<Found, Error> {
        let extra = self.fields_seen.get(self.defaults.as_str()).unwrap_or_default();
        let mut fields: Vec<String> = Schema::built_in_fields().map(str::to_owned).chain(extra).collect();
        let mut keys = vec![self.defaults.clone()];
        keys.extend(fields.iter().map(|field| self.space.key(&[user, field])));
        let mut values = self.store.get_many(&keys, Read::default()).await?.into_iter();
        let defaults: Option<setting::Stored> = codec::decode_found(values.next().flatten())?;
        let schema = Schema::with_defaults(defaults.as_ref().map(setting::Stored::value));
        let unseen: Vec<String> =
            schema.fields().filter(|field| !fields.iter().any(|known| known == field)).map(str::to_owned).collect();
        let mut values: Vec<_> = values.collect();
        if !unseen.is_empty() {
            let keys: Vec<Key> = unseen.iter().map(|field| self.space.key(&[user, field])).collect();
            values.extend(self.store.get_many(&keys, Read::default()).await?);
            fields.extend(unseen);
        }
        self.fields_seen.put(self.defaults.as_str(), schema.extra_fields().map(str::to_owned).collect());
        Ok(join(schema, fields, values))
    }
}

/// Puts together what the keys held. Fields the tenant has dropped since are left out.
fn join(schema: Schema, fields: Vec<String>, values: Vec<Option<Vec<u8>>>) -> Found {
    let (mut overrides, mut unreadable) = (Overrides::default(), Vec::new());
    for (field, value) in fields.into_iter().zip(values) {
        if !schema.has(&field) {
            continue;
        }
        match codec::decode_found::<Entry>(value) {
            Ok(Some(entry)) => overrides.put(field, entry),
            Ok(None) => {}
            Err(_) => unreadable.push(field),
        }
    }
    Found { schema, overrides, unreadable }
}
