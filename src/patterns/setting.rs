//! Settings behind an error boundary: a value whenever there is one, and where it came from.
//!
//! - Missing, corrupt and unreachable are told apart. Only a setting that is *missing* has no last known value; a
//!   corrupt or unreachable one is answered from the isolate's memory, then from its shadow key, then from the default.
//! - A stored object is merged over the default field by field, so a setting stored by older code has the new fields.
//!   A stored `null` is a value.
//! - [`Resilient`](crate::kv::Resilient) around the store brings deadline, retries and the breaker that stops hammering.
//! - The memory is one isolate's: a fresh isolate during an outage knows only shadow and default. The shadow is written
//!   on request and lives in the store it is given: a namespace of its own fails on its own.
//!
//! A read is one read (two where it fails and a shadow is asked), a write one write, or two with a shadow.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::etag::entity_tag;
use crate::kv::codec::{self, Record};
use crate::kv::{self, Corrupt, Key, Read, Store, Tenant, Write};
use crate::patch::{Bounds, PatchError, check, overlay};
use crate::recent::Recent;

/// How large a setting may be.
pub const BOUNDS: Bounds = Bounds { bytes_max: 64 * 1024, depth_max: 32 };
/// Largest setting that an isolate remembers, in bytes of its JSON.
const REMEMBERED_BYTES_MAX: usize = 16 * 1024;

/// A stored setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    value: Value,
}

impl Record for Stored {
    const KIND: &'static str = "setting";
    const VERSION: u32 = 1;
}

impl Stored {
    /// The value.
    pub const fn value(&self) -> &Value {
        &self.value
    }
}

/// Where the setting `name` of `tenant` is kept.
pub fn key(tenant: &Tenant, name: &str) -> Key {
    tenant.space("setting").key(&[name])
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// KV gave it just now.
    Stored,
    /// KV failed: the last known value.
    Stale,
    /// Nothing is stored, or nothing is known: the caller's default.
    Default,
}

/// Why KV did not give the setting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing is stored.
    #[error("nothing is stored")]
    Missing,
    /// What is stored is unreadable.
    #[error("what is stored is unreadable: {0}")]
    Corrupt(Corrupt),
    /// KV did not answer as it should.
    #[error(transparent)]
    Unreachable(kv::Error),
}

impl From<kv::Error> for Failure {
    fn from(error: kv::Error) -> Self {
        match error {
            kv::Error::Corrupt(why) => Self::Corrupt(why),
            other => Self::Unreachable(other),
        }
    }
}

/// A setting as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The value, over the default.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
    /// The entity tag of what is stored, which no default changes; nothing when KV did not give it.
    pub etag: Option<String>,
    /// Why KV did not give it; nothing when it did.
    pub failure: Option<Failure>,
}

/// The answer to a reader with `default`, when KV said `found` and `known` is the last known value.
///
/// # Errors
///
/// There is nothing to answer with: the failure.
pub fn answer(found: Result<Value, Failure>, known: Option<Value>, default: Option<&Value>) -> Result<Answer, Failure> {
    let over_default = |value: Value| default.map_or_else(|| value.clone(), |default| overlay(default, &value));
    let failure = match found {
        Ok(value) => {
            let etag = Some(entity_tag(&value));
            return Ok(Answer { value: over_default(value), source: Source::Stored, etag, failure: None });
        }
        Err(failure) => failure,
    };
    let known = known.filter(|_| failure != Failure::Missing);
    let (value, source) = match (known, default) {
        (Some(value), _) => (over_default(value), Source::Stale),
        (None, Some(default)) => (default.clone(), Source::Default),
        (None, None) => return Err(failure),
    };
    Ok(Answer { value, source, etag: None, failure: Some(failure) })
}

/// The settings of one tenant. `F` is the store of the shadows.
#[derive(Clone, Debug)]
pub struct Settings<S, F> {
    store: S,
    shadows: F,
    tenant: Tenant,
    /// What this isolate read or wrote last, by key.
    known: Recent<Value>,
}

impl<S: Store, F: Store> Settings<S, F> {
    /// The settings of `tenant` in `store`, with shadows in `shadows`; `known` is the isolate's memory.
    pub const fn new(store: S, shadows: F, tenant: Tenant, known: Recent<Value>) -> Self {
        Self { store, shadows, tenant, known }
    }

    fn shadow_key(&self, name: &str) -> Key {
        self.tenant.space("setting-shadow").key(&[name])
    }

    /// The setting `name`, or the last known value, or `default`. One read, two where the first fails.
    ///
    /// # Errors
    ///
    /// KV did not give it, no last value is known and there is no default.
    pub async fn read(&self, name: &str, default: Option<&Value>) -> Result<Answer, Failure> {
        let key = key(&self.tenant, name);
        let found = match self.store.get(&key, Read::default()).await.and_then(codec::decode_found::<Stored>) {
            Ok(Some(stored)) => Ok(stored.value),
            Ok(None) => Err(Failure::Missing),
            Err(error) => Err(error.into()),
        };
        let known = match &found {
            Ok(value) => {
                self.remember(&key, value);
                None
            }
            Err(Failure::Missing) => {
                self.known.remove(key.as_str());
                None
            }
            Err(_) => match self.known.get(key.as_str()) {
                Some(value) => Some(value),
                None => self.shadow(name).await,
            },
        };
        answer(found, known, default)
    }

    /// What the shadow holds, if it can be read; its own failures change nothing.
    async fn shadow(&self, name: &str) -> Option<Value> {
        let bytes = self.shadows.get(&self.shadow_key(name), Read::default()).await.ok()?;
        codec::decode_found::<Stored>(bytes).ok()?.map(|stored| stored.value)
    }

    fn remember(&self, key: &Key, value: &Value) {
        if check(value, Bounds { bytes_max: REMEMBERED_BYTES_MAX, ..BOUNDS }).is_ok() {
            self.known.put(key.as_str(), value.clone());
        } else {
            self.known.remove(key.as_str());
        }
    }

    /// Stores `value` under `name`, and with `fallback` in its shadow too. One write or two.
    ///
    /// # Errors
    ///
    /// The value breaks a limit, or KV failed.
    pub async fn write(&self, name: &str, value: Value, fallback: bool) -> Result<(), Error> {
        check(&value, BOUNDS)?;
        let stored = Stored { value };
        let bytes = codec::encode(&stored)?;
        // The shadow goes first: were it the second, a failure in between would leave a shadow older than its setting.
        if fallback {
            self.shadows.put(&self.shadow_key(name), &bytes, Write::default()).await?;
        }
        let key = key(&self.tenant, name);
        self.store.put(&key, &bytes, Write::default()).await?;
        self.remember(&key, &stored.value);
        Ok(())
    }

    /// Removes the setting `name` and its shadow. Two deletes.
    ///
    /// # Errors
    ///
    /// KV failed.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let key = key(&self.tenant, name);
        self.known.remove(key.as_str());
        self.shadows.delete(&self.shadow_key(name)).await?;
        Ok(self.store.delete(&key).await?)
    }
}

/// Why a setting was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The value breaks a limit.
    #[error(transparent)]
    Value(#[from] PatchError),
    /// KV failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}
