//! The reference store: one strongly consistent map with KV's limits and none of its delays.
//!
//! It refuses what KV refuses (with the runtime's texts) and expires what KV expires, so a pattern that passes here
//! breaks no static rule. It proves nothing about staleness or throttling: the simulator does. Clones share the map.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::limits::{
    BULK_KEYS_MAX, CACHE_TTL_SECONDS_MIN, LIST_LIMIT_MAX, METADATA_BYTES_MAX, TTL_SECONDS_MIN, VALUE_BYTES_MAX,
};
use super::{Error, Key, Page, PageKey, PageRequest, Prefix, Read, Store, Write};
use crate::clock::{Clock, Timestamp};

/// A namespace held in memory, on clock `C`.
#[derive(Clone, Debug)]
pub struct MemoryStore<C> {
    clock: C,
    entries: Rc<RefCell<BTreeMap<String, Entry>>>,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    expires_at: Option<Timestamp>,
    metadata: Option<String>,
}

impl Entry {
    fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

impl<C: Clock> MemoryStore<C> {
    /// An empty namespace.
    pub fn new(clock: C) -> Self {
        Self { clock, entries: Rc::default() }
    }

    /// What is stored under the name `name`, past every envelope and prefix; for tests that look at bytes.
    pub fn raw(&self, name: &str) -> Option<Vec<u8>> {
        self.entries.borrow().get(name).map(|entry| entry.value.clone())
    }

    /// Stores bytes under a raw name, for tests that plant damaged records.
    pub fn plant(&self, name: &str, value: &[u8]) {
        let entry = Entry { value: value.to_vec(), expires_at: None, metadata: None };
        self.entries.borrow_mut().insert(name.to_owned(), entry);
    }

    /// Every stored name, expired ones included.
    pub fn names(&self) -> Vec<String> {
        self.entries.borrow().keys().cloned().collect()
    }
}

impl<C: Clock> Store for MemoryStore<C> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        check_read(read, "GET")?;
        let now = self.clock.now();
        Ok(self.entries.borrow().get(key.as_str()).filter(|entry| entry.is_live(now)).map(|entry| entry.value.clone()))
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        check_bulk(keys)?;
        check_read(read, "GET_BULK")?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            // Bulk reads decode text: what is not text comes back damaged, here as in the runtime.
            let value = self.get(key, read).await?;
            found.push(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into_bytes()));
        }
        Ok(found)
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        check_write(value, &write)?;
        let expires_at = write.ttl_seconds.map(|ttl| self.clock.now().plus_seconds(ttl));
        let entry = Entry { value: value.to_vec(), expires_at, metadata: write.metadata };
        self.entries.borrow_mut().insert(key.as_str().to_owned(), entry);
        Ok(())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.entries.borrow_mut().remove(key.as_str());
        Ok(())
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        check_list(request)?;
        let now = self.clock.now();
        let entries = self.entries.borrow();
        let after = request.cursor.as_deref().unwrap_or_default();
        let mut live = entries
            .range(prefix.as_str().to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix.as_str()))
            .filter(|(name, entry)| entry.is_live(now) && name.as_str() > after);
        let mut page = Page::default();
        for (name, entry) in live.by_ref().take(request.limit as usize) {
            page.keys.push(PageKey {
                name: name.clone(),
                expiration_seconds: entry.expires_at.map(Timestamp::seconds),
                metadata: entry.metadata.clone(),
            });
        }
        if live.next().is_some() {
            page.cursor = page.keys.last().map(|last| last.name.clone());
        }
        Ok(page)
    }
}

/// Refuses a `cacheTtl` that KV refuses, with its text.
pub(crate) fn check_read(read: Read, operation: &str) -> Result<(), Error> {
    match read.cache_ttl_seconds {
        Some(ttl) if ttl < CACHE_TTL_SECONDS_MIN => Err(Error::Invalid(format!(
            "KV {operation} failed: 400 Invalid cache_ttl of {ttl}. Cache TTL must be at least {CACHE_TTL_SECONDS_MIN}."
        ))),
        _ => Ok(()),
    }
}

/// Refuses a bulk read of no key or of too many, with KV's text.
pub(crate) fn check_bulk(keys: &[Key]) -> Result<(), Error> {
    if keys.is_empty() {
        return Err(Error::Invalid("KV GET_BULK failed: 400 You must request a minimum of 1 key".to_owned()));
    }
    if keys.len() > BULK_KEYS_MAX {
        let text = format!("KV GET_BULK failed: 400 You can request a maximum of {BULK_KEYS_MAX} keys");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// Refuses a write that breaks a limit, with KV's text.
pub(crate) fn check_write(value: &[u8], write: &Write) -> Result<(), Error> {
    if let Some(ttl) = write.ttl_seconds.filter(|ttl| *ttl < TTL_SECONDS_MIN) {
        return Err(Error::Invalid(format!(
            "KV PUT failed: 400 Invalid expiration_ttl of {ttl}. Expiration TTL must be at least {TTL_SECONDS_MIN}."
        )));
    }
    if value.len() > VALUE_BYTES_MAX {
        let length = value.len();
        let text = format!("KV PUT failed: 413 Value length of {length} exceeds limit of {VALUE_BYTES_MAX}.");
        return Err(Error::Invalid(text));
    }
    let length = write.metadata.as_ref().map_or(0, String::len);
    if length > METADATA_BYTES_MAX {
        let text = format!("KV PUT failed: 413 Metadata length of {length} exceeds limit of {METADATA_BYTES_MAX}.");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// Refuses a page size that KV refuses, with its text.
pub(crate) fn check_list(request: &PageRequest) -> Result<(), Error> {
    if (1..=LIST_LIMIT_MAX).contains(&request.limit) {
        return Ok(());
    }
    let limit = request.limit;
    Err(Error::Invalid(format!(
        "KV GET failed: 400 Invalid key_count_limit of {limit}. Please specify an integer between 1 and {LIST_LIMIT_MAX}."
    )))
}
