//! A tenant's keys as a hierarchy: listing with a delimiter, and deletion of a subtree; both bounded and resumable.
//!
//! - A prefix is whole segments, so `user/1` never matches `user/12`.
//! - Resources whose keys are secret (token hashes) or that guard others are not there: not listed, not deleted.
//! - A call makes at most [`LISTS_MAX`] list operations and [`DELETES_MAX`] deletes, then gives a cursor to go on from.
//!   Pages are filled up to the limit as long as that budget lasts, because KV gives short and empty pages.
//! - Lists lag behind writes: a key deleted a moment ago may still be listed, and counted again when it is deleted again.
//!
//! A listing costs one list operation per 1000 keys looked at, whether they are shown or rolled up into a prefix.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::clock::Timestamp;
use crate::kv::limits::LIST_LIMIT_MAX;
use crate::kv::{self, PageKey, PageRequest, Prefix, Store, Tenant, unescape};

/// List operations of one call, at most.
pub const LISTS_MAX: u32 = 10;
/// Keys that one call deletes, at most; well below the 1000 operations of one invocation.
pub const DELETES_MAX: u32 = 500;
/// Deletes that run at the same time; a Worker has six connections. Source:
/// <https://developers.cloudflare.com/workers/platform/limits/#simultaneous-open-connections>
const DELETES_AT_ONCE: usize = 6;

/// Resources that are never shown: the keys of sessions are token hashes, and epochs and revocations end sessions.
pub const HIDDEN: &[&str] = &["session", "epoch", "revoked"];

/// What to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Escaped segments, as listings show them, divided by `/`; empty for everything.
    pub prefix: String,
    /// Whether keys that go on behind a `/` are rolled up into the prefix up to there.
    pub roll_up: bool,
    /// Items and prefixes at most, 1 to 1000.
    pub limit: u32,
    /// Fields of the metadata that must have these values.
    pub metadata: Vec<(String, Value)>,
    /// Where the page before ended; nothing for the first page.
    pub cursor: Option<String>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its segments, escaped, without the tenant.
    pub key: String,
    /// When KV may collect it.
    pub expires_at: Option<Timestamp>,
    /// Its metadata; `null` when there is none.
    pub metadata: Value,
}

/// One page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Listing {
    /// Keys, in the order of their bytes.
    pub items: Vec<Item>,
    /// Prefixes that keys were rolled up into, in the same order; each ends in `/`.
    pub prefixes: Vec<String>,
    /// Where the next page starts; nothing when this was the last.
    pub cursor: Option<String>,
    /// Keys looked at.
    pub scanned: u32,
}

/// What a deletion did: its receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deletion {
    /// Keys deleted.
    pub deleted: u32,
    /// Where to go on; nothing when the subtree was gone through.
    pub cursor: Option<String>,
}

/// Why a subtree cannot be listed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The prefix is too long, or holds what no key holds.
    #[error("not a prefix of keys")]
    PrefixInvalid,
    /// The cursor is not one that a page before gave.
    #[error("not a cursor of this list")]
    CursorInvalid,
    /// KV failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}

/// Where a page ended: inside the page of KV that starts at `page`, after the name `after`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<String>,
    after: String,
}

impl Position {
    fn read(cursor: Option<&str>) -> Result<Self, Error> {
        cursor.map_or(Ok(Self::default()), |text| {
            serde_json::from_slice(text.as_bytes()).map_err(|_| Error::CursorInvalid)
        })
    }

    fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// The keys of one tenant in one namespace.
#[derive(Clone, Debug)]
pub struct Hierarchy<S> {
    store: S,
    tenant: Tenant,
    hidden: &'static [&'static str],
}

impl<S: Store> Hierarchy<S> {
    /// The keys of `tenant` in `store`, without the resources `hidden`.
    pub const fn new(store: S, tenant: Tenant, hidden: &'static [&'static str]) -> Self {
        Self { store, tenant, hidden }
    }

    /// A page of keys. The cursor is KV's own and not yet fit for strangers: seal it to tenant, namespace and query.
    ///
    /// # Errors
    ///
    /// The prefix or the cursor is not one, or KV failed.
    pub async fn list(&self, query: &Query) -> Result<Listing, Error> {
        let below = self.prefix(&query.prefix)?;
        let mut filling = Filling::new(query, &below, Position::read(query.cursor.as_deref())?);
        for _ in 0..LISTS_MAX {
            let request = PageRequest { limit: LIST_LIMIT_MAX, cursor: filling.position.page.clone() };
            let page = self.store.list(&below.prefix, &request).await?;
            for key in &page.keys {
                if !filling.take(key, self) {
                    return Ok(filling.listing(true));
                }
            }
            match page.cursor {
                None => return Ok(filling.listing(false)),
                cursor => filling.position.page = cursor,
            }
        }
        Ok(filling.listing(true))
    }

    /// Deletes keys below `prefix`, at most [`DELETES_MAX`].
    ///
    /// # Errors
    ///
    /// The prefix or the cursor is not one; or KV failed, in which case some keys are deleted and the same call goes on.
    pub async fn delete(&self, prefix: &str, cursor: Option<&str>) -> Result<Deletion, Error> {
        let below = self.prefix(prefix)?;
        let mut position = Position::read(cursor)?;
        let mut deletion = Deletion::default();
        for _ in 0..LISTS_MAX {
            let request = PageRequest { limit: LIST_LIMIT_MAX, cursor: position.page.clone() };
            let page = self.store.list(&below.prefix, &request).await?;
            let room = (DELETES_MAX - deletion.deleted) as usize;
            let after = std::mem::take(&mut position.after);
            let names = page.keys.iter().map(|key| key.name.as_str()).filter(|name| *name > after.as_str());
            let names: Vec<&str> = names.filter(|name| self.shown(name).is_some()).collect();
            for batch in names.get(..room.min(names.len())).unwrap_or_default().chunks(DELETES_AT_ONCE) {
                let keys = batch.iter().filter_map(|name| below.prefix.key(name));
                for result in join_all(keys.map(async |key| self.store.delete(&key).await)).await {
                    result?;
                    deletion.deleted += 1;
                }
            }
            if let Some(last) = names.get(..room).and_then(<[_]>::last).filter(|_| names.len() > room) {
                (*last).clone_into(&mut position.after);
                return Ok(Deletion { cursor: position.text(), ..deletion });
            }
            match page.cursor {
                None => return Ok(deletion),
                cursor => position.page = cursor,
            }
            if deletion.deleted == DELETES_MAX {
                break;
            }
        }
        Ok(Deletion { cursor: position.text(), ..deletion })
    }

    fn prefix(&self, text: &str) -> Result<Below, Error> {
        let segments = text.strip_suffix('/').unwrap_or(text);
        let segments: Vec<&str> = if text.is_empty() { Vec::new() } else { segments.split('/').collect() };
        let plain: Option<Vec<String>> = segments.iter().map(|segment| unescape(segment)).collect();
        let plain = plain.ok_or(Error::PrefixInvalid)?;
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
        let prefix = self.tenant.below(&plain).map_err(|_| Error::PrefixInvalid)?;
        Ok(Below { prefix })
    }

    /// The key as it is shown; nothing when it is hidden, or not the tenant's.
    fn shown<'a>(&self, name: &'a str) -> Option<&'a str> {
        let shown = self.tenant.everything().rest(name)?;
        let resource = shown.split('/').next().unwrap_or_default();
        (!self.hidden.contains(&resource)).then_some(shown)
    }
}

struct Below {
    prefix: Prefix,
}

/// A page of answers while it fills.
struct Filling<'a> {
    query: &'a Query,
    below: &'a Below,
    position: Position,
    listing: Listing,
}

impl<'a> Filling<'a> {
    fn new(query: &'a Query, below: &'a Below, position: Position) -> Self {
        Self { query, below, position, listing: Listing::default() }
    }

    /// Looks at the next key; false when there is no room for it any more.
    fn take<S: Store>(&mut self, key: &PageKey, hierarchy: &Hierarchy<S>) -> bool {
        if key.name.as_str() <= self.position.after.as_str() {
            return true;
        }
        self.listing.scanned = self.listing.scanned.saturating_add(1);
        let full = self.listing.items.len() + self.listing.prefixes.len() >= self.query.limit.clamp(1, 1000) as usize;
        if let Some(shown) = hierarchy.shown(&key.name) {
            match self.rolled_up(&key.name, shown) {
                Some(prefix) => {
                    let known = self.listing.prefixes.last().is_some_and(|last| last == prefix);
                    let told_before = self.ended_below(&key.name, shown, prefix);
                    if !known && !told_before {
                        if full {
                            return false;
                        }
                        self.listing.prefixes.push(prefix.to_owned());
                    }
                }
                None => {
                    if let Some(item) = self.item(key, shown) {
                        if full {
                            return false;
                        }
                        self.listing.items.push(item);
                    }
                }
            }
        }
        self.position.after.clone_from(&key.name);
        true
    }

    /// The prefix that `shown` is rolled up into, its `/` included.
    fn rolled_up<'b>(&self, name: &str, shown: &'b str) -> Option<&'b str> {
        if !self.query.roll_up {
            return None;
        }
        let rest = self.below.prefix.rest(name)?;
        let slash = rest.find('/')?;
        shown.get(..shown.len() - rest.len() + slash + 1)
    }

    /// Whether the page before ended below this prefix, and so has told it.
    fn ended_below(&self, name: &str, shown: &str, prefix: &str) -> bool {
        let tenant = name.len() - shown.len();
        self.position.after.get(tenant..).is_some_and(|after| after.starts_with(prefix))
    }

    fn item(&self, key: &PageKey, shown: &str) -> Option<Item> {
        let metadata = key
            .metadata
            .as_deref()
            .and_then(|text| serde_json::from_slice(text.as_bytes()).ok())
            .unwrap_or(Value::Null);
        let wanted = |(field, value): &(String, Value)| metadata.get(field) == Some(value);
        self.query.metadata.iter().all(wanted).then(|| Item {
            key: shown.to_owned(),
            expires_at: key.expiration_seconds.map(Timestamp::from_seconds),
            metadata: metadata.clone(),
        })
    }

    fn listing(self, more: bool) -> Listing {
        let cursor = if more { self.position.text() } else { None };
        Listing { cursor, ..self.listing }
    }
}
