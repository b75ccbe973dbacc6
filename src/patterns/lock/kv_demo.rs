//! A lock on KV, to show that it is none: read, write if free, read again. **Not for use.**
//!
//! It is the well-known recipe with its plain bugs removed (a time to live below KV's minimum, a release that deletes
//! somebody else's lock without looking), so that what is left is what KV itself cannot give: two locations
//! both read "free" for a minute or more, both write, and each reads its own write back. It breaks this project's two
//! rules, one writer per key and no read before the first write, because a lock on KV cannot do otherwise.

use serde::{Deserialize, Serialize};

use super::exact::Inspection;
use super::hash;
use crate::clock::{Clock, Timestamp};
use crate::kv::codec::{self, Record};
use crate::kv::{Error, Key, Read, Store, Tenant, Write};

/// What every reply of the demonstration says. Its figure is the share of acquisitions that overlapped another holder's
/// in the simulator's `documented` profile; a test compares it with the measured table.
pub const WARNING: &str = "Workers KV cannot lock. This is a demonstration: locations see each other's writes after a \
                           minute or more, so several callers may hold it at once (31.2 % of acquisitions overlapped \
                           another holder in simulation), and tokens may repeat or go back. Use mode exact.";

/// How long the recipe waits before it reads its own write back, in milliseconds.
const VERIFY_MILLIS: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grant {
    /// Hash of the lock id.
    id: String,
    owner: Option<String>,
    expires_at: Timestamp,
    /// The moment of the grant, times 2^20: it may repeat or go back, like everything here.
    token: u64,
}

impl Record for Grant {
    const KIND: &'static str = "lock-demo";
    const VERSION: u32 = 1;
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller believes it holds the lock. Others may believe so too.
    Granted {
        /// Not unique, not growing.
        fencing_token: u64,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// Somebody holds it, as far as this location can see.
    Held {
        /// The holder's name.
        owner: Option<String>,
        /// When the grant ends; nothing when the race was lost to somebody unseen.
        expires_at: Option<Timestamp>,
    },
}

fn key(tenant: &Tenant, resource: &str) -> Key {
    tenant.space("lock-demo").key(&[resource])
}

async fn read(store: &impl Store, key: &Key, now: Timestamp) -> Result<Option<Grant>, Error> {
    let found = codec::decode_found::<Grant>(store.get(key, Read::FRESHEST).await?)?;
    Ok(found.filter(|grant| now < grant.expires_at))
}

/// Tries to take the lock for `lock_id`.
///
/// # Errors
///
/// KV's own.
pub async fn acquire(
    store: &impl Store,
    clock: &impl Clock,
    tenant: &Tenant,
    resource: &str,
    lock_id: &str,
    owner: Option<String>,
    ttl_seconds: u64,
) -> Result<Outcome, Error> {
    let key = key(tenant, resource);
    let now = clock.now();
    if let Some(grant) = read(store, &key, now).await? {
        return Ok(Outcome::Held { owner: grant.owner, expires_at: Some(grant.expires_at) });
    }
    let (expires_at, token) = (now.plus_seconds(ttl_seconds), now.millis() << 20);
    let grant = Grant { id: hash(lock_id), owner, expires_at, token };
    match store.put(&key, &codec::encode(&grant)?, Write::expiring_in(ttl_seconds)).await {
        Ok(()) => {}
        Err(Error::Throttled) => return Ok(Outcome::Held { owner: None, expires_at: None }),
        Err(error) => return Err(error),
    }
    clock.sleep(VERIFY_MILLIS).await;
    match read(store, &key, clock.now()).await? {
        Some(seen) if seen.id == grant.id => Ok(Outcome::Granted { fencing_token: token, expires_at }),
        Some(seen) => Ok(Outcome::Held { owner: seen.owner, expires_at: Some(seen.expires_at) }),
        None => Ok(Outcome::Held { owner: None, expires_at: None }),
    }
}

/// Holds the lock longer if this location sees it as the caller's; answers with its token and new end, or nothing.
///
/// # Errors
///
/// KV's own.
pub async fn renew(
    store: &impl Store,
    clock: &impl Clock,
    tenant: &Tenant,
    resource: &str,
    lock_id: &str,
    ttl_seconds: u64,
) -> Result<Option<(u64, Timestamp)>, Error> {
    let (key, now) = (key(tenant, resource), clock.now());
    let Some(grant) = read(store, &key, now).await?.filter(|grant| grant.id == hash(lock_id)) else { return Ok(None) };
    let grant = Grant { expires_at: now.plus_seconds(ttl_seconds), ..grant };
    store.put(&key, &codec::encode(&grant)?, Write::expiring_in(ttl_seconds)).await?;
    Ok(Some((grant.token, grant.expires_at)))
}

/// Gives the lock back if this location sees it as the caller's; answers whether it is free, as far as this location
/// can see.
///
/// # Errors
///
/// KV's own.
pub async fn release(
    store: &impl Store,
    clock: &impl Clock,
    tenant: &Tenant,
    resource: &str,
    lock_id: &str,
) -> Result<bool, Error> {
    let key = key(tenant, resource);
    match read(store, &key, clock.now()).await? {
        Some(grant) if grant.id == hash(lock_id) => store.delete(&key).await.map(|()| true),
        Some(_) => Ok(false),
        None => Ok(true),
    }
}

/// The lock as this location sees it.
///
/// # Errors
///
/// KV's own.
pub async fn inspect(
    store: &impl Store,
    clock: &impl Clock,
    tenant: &Tenant,
    resource: &str,
) -> Result<Inspection, Error> {
    let seen = read(store, &key(tenant, resource), clock.now()).await?;
    Ok(Inspection {
        held: seen.is_some(),
        expires_at: seen.as_ref().map(|grant| grant.expires_at),
        fencing_token: seen.as_ref().map(|grant| grant.token.to_string()),
        owner: seen.and_then(|grant| grant.owner),
    })
}
