//! Policies: what is limited, by how much; validated, and stored as one record each.
//!
//! Consistency: eventual. A changed policy is seen elsewhere after a minute or more; an object goes by the newest one
//! it was shown, so two locations with different copies do not undo each other's counts. The last write wins.

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use super::algorithm::Algorithm;
use crate::clock::Timestamp;
use crate::kv::codec::{self, Record};
use crate::kv::{Error, Key, PageRequest, Read, Store, Tenant, Write};

/// Largest limit; the integers of structured fields and of our arithmetic have room for it.
pub const LIMIT_MAX: u64 = 1_000_000_000;
/// Longest window, in seconds: 30 days.
pub const WINDOW_SECONDS_MAX: u64 = 2_592_000;
/// Shortest window in approximate mode, in seconds: writers learn of each other in about 75 seconds, and a window must
/// hold several such times to be worth counting.
pub const APPROXIMATE_WINDOW_SECONDS_MIN: u64 = 300;

/// Where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// On an object: never more than the limit.
    #[default]
    Exact,
    /// On KV: cheap, and may overshoot.
    Approximate,
}

/// What to answer when the count cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Let the request go on.
    #[default]
    Allow,
    /// Refuse it.
    Deny,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Units per window, 1 to [`LIMIT_MAX`].
    pub limit: u64,
    /// The window, 1 to [`WINDOW_SECONDS_MAX`].
    pub window_seconds: u64,
    /// How it is counted.
    pub algorithm: Algorithm,
    /// Where it is counted.
    pub mode: Mode,
    /// What to answer when the count cannot be had.
    pub on_failure: OnFailure,
    /// When it was last changed; the later of two copies counts.
    pub updated_at: Timestamp,
}

/// Why a policy is refused. The names are those of the fields to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum PolicyInvalid {
    /// `limit` is zero or too large.
    #[error("limit must be an integer from 1 to {LIMIT_MAX}")]
    Limit,
    /// `windowSeconds` is zero or too long.
    #[error("windowSeconds must be an integer from 1 to {WINDOW_SECONDS_MAX}")]
    Window,
    /// `windowSeconds` is too short for approximate mode.
    #[error(
        "windowSeconds must be at least {APPROXIMATE_WINDOW_SECONDS_MIN} in approximate mode: writers see each other's \
         counts only after about a minute, so a shorter window would end before it is counted; use mode exact"
    )]
    WindowTooShortForKv,
}

impl PolicyInvalid {
    /// The field to blame, as clients write it.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Window | Self::WindowTooShortForKv => "windowSeconds",
        }
    }
}

impl Policy {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// One of [`PolicyInvalid`].
    pub const fn validate(&self) -> Result<(), PolicyInvalid> {
        if self.limit == 0 || self.limit > LIMIT_MAX {
            return Err(PolicyInvalid::Limit);
        }
        if self.window_seconds == 0 || self.window_seconds > WINDOW_SECONDS_MAX {
            return Err(PolicyInvalid::Window);
        }
        if matches!(self.mode, Mode::Approximate) && self.window_seconds < APPROXIMATE_WINDOW_SECONDS_MIN {
            return Err(PolicyInvalid::WindowTooShortForKv);
        }
        Ok(())
    }

    /// The window, in milliseconds.
    pub const fn window_millis(&self) -> u64 {
        self.window_seconds.saturating_mul(1000)
    }
}

impl Record for Policy {
    const KIND: &'static str = "rate-limit-policy";
    const VERSION: u32 = 1;
}

fn key(tenant: &Tenant, name: &str) -> Key {
    tenant.space("rate-limit").key(&[name])
}

/// What lists need of a policy.
#[derive(Serialize, Deserialize)]
struct Listed {
    name: String,
    policy: Policy,
}

/// Stores the policy `name`. One write, and no read before it.
///
/// # Errors
///
/// KV's own.
pub async fn put(store: &impl Store, tenant: &Tenant, name: &str, policy: &Policy) -> Result<(), Error> {
    let listed = Listed { name: name.to_owned(), policy: policy.clone() };
    let metadata = serde_json::to_string(&listed).map_err(|error| Error::Invalid(error.to_string()))?;
    store.put(&key(tenant, name), &codec::encode(policy)?, Write::default().with_metadata(metadata)).await
}

/// The policy `name`. One read.
///
/// # Errors
///
/// KV's own; [`Error::Corrupt`] when it is unreadable.
pub async fn get(store: &impl Store, tenant: &Tenant, name: &str) -> Result<Option<Policy>, Error> {
    codec::decode_found(store.get(&key(tenant, name), Read::FRESHEST).await?)
}

/// Removes the policy `name`. One delete.
///
/// # Errors
///
/// KV's own.
pub async fn delete(store: &impl Store, tenant: &Tenant, name: &str) -> Result<(), Error> {
    store.delete(&key(tenant, name)).await
}

/// A page of the tenant's policies with their names, and where the next page starts. One list.
///
/// # Errors
///
/// KV's own; [`Error::Corrupt`] when one is unreadable.
pub async fn list(
    store: &impl Store,
    tenant: &Tenant,
    request: &PageRequest,
) -> Result<(Vec<(String, Policy)>, Option<String>), Error> {
    let page = store.list(&tenant.space("rate-limit").all(), request).await?;
    let read = |metadata: &str| serde_json::from_slice::<Listed>(metadata.as_bytes()).ok();
    let listed = page.keys.iter().map(|key| key.metadata.as_deref().and_then(read));
    let listed: Option<Vec<_>> = listed.map(|found| found.map(|listed| (listed.name, listed.policy))).collect();
    Ok((listed.ok_or(Error::Corrupt(crate::kv::Corrupt::Damaged))?, page.cursor))
}
