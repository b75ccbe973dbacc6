//! A user's profile: one record instead of a key per field.
//!
//! # What one record saves
//!
//! | 20 fields, read together | reads billed | round trips | price of a million views |
//! |---|---|---|---|
//! | a key per field, one after the other | 20 | 20 | $10.00 |
//! | a key per field, one bulk read | 20 | 1 | $10.00 |
//! | one record | 1 | 1 | $0.50 |
//!
//! and one warm cache entry instead of twenty that grow cold each on its own. Price: $0.50 per million reads,
//! <https://developers.cloudflare.com/kv/platform/pricing/>, as of November 2026.
//!
//! # What it costs
//!
//! It breaks "one writer per key": a patch reads the record, changes it, writes it whole. Two patches within about a
//! minute in different locations, also of different fields: the later one may not have seen the earlier one, whose
//! change is then lost. `If-Match` makes that rare, not impossible, for it compares with what this location sees.
//! Fields that are changed independently of each other belong into [`preference`](super::preference); roles and rights
//! do not belong into an eventually consistent record at all.
//!
//! Reading is one read, patching one read and one write, replacing and deleting one write (and a read with a
//! precondition).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::clock::Timestamp;
use crate::etag::{Precondition, entity_tag};
use crate::json;
use crate::kv::codec::{self, Record};
use crate::kv::{self, Key, KeySpace, Read, Store, Tenant, Write};
use crate::patch::{Bounds, Patch, PatchError, check};

/// How large a profile may be.
pub const BOUNDS: Bounds = Bounds { bytes_max: 64 * 1024, depth_max: 16 };

/// A stored profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    fields: Map<String, Value>,
    updated_at: Timestamp,
}

impl Record for Profile {
    const KIND: &'static str = "profile";
    const VERSION: u32 = 1;
}

impl Profile {
    /// The fields.
    pub const fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// When it was last written.
    pub const fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// The tag of the whole, whatever is selected of it.
    pub fn etag(&self) -> String {
        entity_tag(&self.fields)
    }

    /// Only the fields of these names, those that there are.
    pub fn select(&self, names: &[&str]) -> Map<String, Value> {
        let known = names.iter().filter_map(|name| self.fields.get_key_value(*name));
        json::object(known.map(|(name, value)| (name.clone(), value.clone())))
    }
}

/// A change of one profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The profile has these fields and no others.
    Replace(Map<String, Value>),
    /// The profile changes; one that is not there counts as empty.
    Patch(Patch),
}

/// Why a profile was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The profile is another one than the caller wants changed.
    #[error("the profile is another one")]
    PreconditionFailed,
    /// The patch would leave something that is not an object.
    #[error("a profile is an object")]
    NotAnObject,
    /// The patch cannot be applied, or the profile would break a limit.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// KV failed, or the stored profile is unreadable.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}

/// The profile after `change` of `current`.
///
/// # Errors
///
/// The precondition does not hold, or the result is not a profile.
pub fn decide(
    current: Option<&Profile>,
    change: &Change,
    precondition: &Precondition,
    now: Timestamp,
) -> Result<Profile, Error> {
    if !precondition.holds(current.map(Profile::etag).as_deref()) {
        return Err(Error::PreconditionFailed);
    }
    let document = match change {
        Change::Replace(fields) => {
            let document = Value::Object(fields.clone());
            check(&document, BOUNDS)?;
            document
        }
        Change::Patch(patch) => {
            let fields = current.map(|profile| profile.fields.clone()).unwrap_or_default();
            patch.apply(Value::Object(fields), BOUNDS)?
        }
    };
    match document {
        Value::Object(fields) => Ok(Profile { fields, updated_at: now }),
        _ => Err(Error::NotAnObject),
    }
}

/// The profiles of one tenant's users.
#[derive(Clone, Debug)]
pub struct Profiles<S> {
    store: S,
    space: KeySpace,
}

impl<S: Store> Profiles<S> {
    /// The profiles of `tenant` in `store`.
    pub fn new(store: S, tenant: &Tenant) -> Self {
        Self { store, space: tenant.space("profile") }
    }

    fn key(&self, user: &str) -> Key {
        self.space.key(&[user])
    }

    /// The profile of `user`, or nothing. One read.
    ///
    /// # Errors
    ///
    /// KV failed, or the record is unreadable.
    pub async fn read(&self, user: &str) -> Result<Option<Profile>, Error> {
        Ok(codec::decode_found(self.store.get(&self.key(user), Read::default()).await?)?)
    }

    /// Changes the profile of `user`. One write, and one read where the change or the precondition needs it.
    ///
    /// # Errors
    ///
    /// The change is refused, KV failed, or a patch found an unreadable record.
    pub async fn change(
        &self,
        user: &str,
        change: &Change,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Profile, Error> {
        let blind = matches!(change, Change::Replace(_)) && precondition.is_none();
        let current = if blind { None } else { self.read(user).await? };
        let profile = decide(current.as_ref(), change, precondition, now)?;
        self.store.put(&self.key(user), &codec::encode(&profile)?, Write::default()).await?;
        Ok(profile)
    }

    /// Removes the profile of `user`, also when it is not there. One delete, and one read with a precondition.
    ///
    /// # Errors
    ///
    /// The precondition does not hold, or KV failed.
    pub async fn delete(&self, user: &str, precondition: &Precondition) -> Result<(), Error> {
        if !precondition.is_none() {
            let current = self.read(user).await?;
            if !precondition.holds(current.as_ref().map(Profile::etag).as_deref()) {
                return Err(Error::PreconditionFailed);
            }
        }
        Ok(self.store.delete(&self.key(user)).await?)
    }
}
