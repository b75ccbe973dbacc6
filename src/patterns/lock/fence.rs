//! Refusing writers whose lock is over: the other half of a lock.
//!
//! [`Fence`] is the rule; put it where the protected data is changed, in the same transaction. [`Fenced`] applies it to
//! a [`Store`]: exact where reads see the last write, such as one object's storage. On Workers KV, whose reads may be
//! a minute old and which has no compare-and-set, it narrows the gap and does not close it; and it reads a key
//! before the first write, against this project's first rule.

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use crate::kv::codec::{self, Record};
use crate::kv::{Error, Key, Read, Store, Write};

/// The highest fencing token seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(u64);

/// The writer's token is older than one already seen: it no longer holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("fencing token {token} is older than {newest}")]
pub struct Stale {
    /// The writer's.
    pub token: u64,
    /// The newest seen.
    pub newest: u64,
}

impl Fence {
    /// Lets `token` pass if none newer was seen.
    ///
    /// # Errors
    ///
    /// [`Stale`].
    pub const fn admit(self, token: u64) -> Result<Self, Stale> {
        if token < self.0 { Err(Stale { token, newest: self.0 }) } else { Ok(Self(token)) }
    }
}

/// Why a fenced write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum FencedError {
    /// The writer no longer holds the lock.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The store's own.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A store whose writes carry a fencing token.
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    store: S,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    fence: Fence,
    value: String,
}

impl Record for Stored {
    const KIND: &'static str = "fenced";
    const VERSION: u32 = 1;
}

impl<S: Store> Fenced<S> {
    /// Guards what is written through it to `store`.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// The text under `key`. One read.
    ///
    /// # Errors
    ///
    /// The store's own; [`Error::Corrupt`] for what was not written through a fence.
    pub async fn get(&self, key: &Key) -> Result<Option<String>, Error> {
        let found = codec::decode_found::<Stored>(self.store.get(key, Read::FRESHEST).await?)?;
        Ok(found.map(|stored| stored.value))
    }

    /// Writes `value` for the holder of `token`. One read and one write.
    ///
    /// # Errors
    ///
    /// [`FencedError::Stale`] when a newer token has written; the store's own.
    pub async fn put(&self, key: &Key, value: &str, token: u64) -> Result<(), FencedError> {
        let found = codec::decode_found::<Stored>(self.store.get(key, Read::FRESHEST).await?)?;
        let fence = found.map_or(Fence::default(), |stored| stored.fence).admit(token)?;
        let bytes = codec::encode(&Stored { fence, value: value.to_owned() })?;
        Ok(self.store.put(key, &bytes, Write::default()).await?)
    }
}
