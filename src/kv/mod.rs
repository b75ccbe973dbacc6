//! What Workers KV is, as a Rust contract: [`Store`], and what a caller may and may not conclude from its answers.
//!
//! # The consistency model
//!
//! - **Reads may be stale.** Every location keeps what it read for `cache_ttl_seconds` (at least 30, 60 when not
//!   said) and may answer from that copy; a change made elsewhere is seen after that time *or more*.
//! - **Misses are kept too.** Reading an absent key hides it, in that location, from whoever creates it in the
//!   next half minute or more. So nothing here reads a key before creating it, or its head says why.
//! - **The writing location usually sees its own write at once**, and nothing may rely on that.
//! - **The last write wins**, there is no compare-and-set, and a second write of one key within a second is refused
//!   ([`Error::Throttled`]). So every key has one writer, or its head says why.
//! - **A failed write may have happened.** [`Error::Unavailable`] of a write says nothing about the stored value.
//! - **Lists lag like reads**, and a page may be empty although more follow: only a missing cursor ends a list.
//!
//! Sources: <https://developers.cloudflare.com/kv/concepts/how-kv-works/>,
//! <https://developers.cloudflare.com/kv/api/list-keys/>.
//!
//! # The parts
//!
//! [`Key`] and [`Prefix`] cannot be forged from ids; [`codec`] tells missing, corrupt and unreachable apart;
//! [`Error`] says what the caller must do. [`MemoryStore`] is the strongly consistent reference; [`Resilient`] and
//! [`Metered`] wrap any store.

pub mod codec;
mod error;
mod key;
pub mod limits;
mod list;
pub(crate) mod memory;
mod metered;
pub mod position;
mod resilient;
mod seal;

pub use error::{Corrupt, Error};
pub use key::{Key, KeySpace, KeyTooLong, Prefix, Tenant, TenantInvalid, escape, unescape};
pub use list::{Page, PageKey, PageRequest};
pub use memory::MemoryStore;
pub use metered::{Meter, Metered};
pub use resilient::{Breaker, Policy, Resilient};
pub use seal::CursorSeal;

use limits::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// How long this location may keep the answer, in seconds; 60 when not said, never less than 30.
    pub cache_ttl_seconds: Option<u32>,
}

impl Read {
    /// Reads as fresh as KV allows: the answer is kept for 30 seconds.
    pub const FRESHEST: Self = Self { cache_ttl_seconds: Some(limits::CACHE_TTL_SECONDS_MIN) };

    /// Reads what never changes once written, such as an immutable revision: kept for a day.
    pub const IMMUTABLE: Self = Self { cache_ttl_seconds: Some(86_400) };
}

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// When KV may collect the key, in seconds from now; for ever when not said. It is garbage collection, never
    /// the moment a value stops being valid: that stands in the value.
    pub ttl_seconds: Option<u64>,
    /// Serialised JSON, at most 1024 bytes, given back by lists.
    pub metadata: Option<String>,
}

impl Write {
    /// KV may collect the key after `seconds`, raised to the 60 seconds KV wants at least.
    pub fn expiring_in(seconds: u64) -> Self {
        Self { ttl_seconds: Some(seconds.clamp(TTL_SECONDS_MIN, TTL_SECONDS_MAX)), metadata: None }
    }

    /// The same, with `metadata` (serialised JSON).
    #[must_use]
    pub fn with_metadata(self, metadata: String) -> Self {
        Self { metadata: Some(metadata), ..self }
    }
}

/// One namespace of Workers KV, or something that behaves like it.
///
/// # Errors
///
/// Every call can fail with [`Error::Unavailable`] and [`Error::QuotaSpent`]; writes also with [`Error::Throttled`]
/// (the same key was written less than a second ago) and [`Error::Invalid`] (a limit was broken).
#[allow(async_fn_in_trait, reason = "isolates have one thread, so futures need not be Send")]
pub trait Store {
    /// The value of `key`, or nothing. One read.
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error>;

    /// The values of at most 100 `keys`, in their order. One operation, billed as a read per key. Values must be
    /// UTF-8: the runtime decodes them as text, and bytes that are not text come back damaged.
    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Writes `value`, whatever was there. One write.
    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error>;

    /// Removes `key`, also when it is not there. One delete.
    async fn delete(&self, key: &Key) -> Result<(), Error>;

    /// A page of the keys below `prefix`, in the order of their bytes. One list operation.
    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error>;
}

/// A reference to a store is a store.
impl<S: Store> Store for &S {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        (**self).get(key, read).await
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        (**self).get_many(keys, read).await
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        (**self).put(key, value, write).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        (**self).delete(key).await
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        (**self).list(prefix, request).await
    }
}
