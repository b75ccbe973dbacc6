//! The configured origins of a tenant: one record each, written blind; the last write of a name wins.
//!
//! Eventual: another location may use an older configuration for the time it keeps what it read (30 seconds, and what isolates remember
//! on top). Cost: put 1 write, get 1 read, delete 1 delete, list 1 list and a read per origin.

use serde::{Deserialize, Serialize};

use super::policy::OriginPolicy;
use crate::kv::codec::{self, Record};
use crate::kv::limits::BULK_KEYS_MAX;
use crate::kv::{Error, KeySpace, PageRequest, Read, Store, Tenant, Write, unescape};

/// One origin as configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginConfig {
    /// Where it is.
    pub base_url: String,
    /// How its responses are cached.
    pub policy: OriginPolicy,
}

impl Record for OriginConfig {
    const KIND: &'static str = "origin";
    const VERSION: u32 = 1;
}

/// A page of origins.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Names and configurations.
    pub items: Vec<(String, OriginConfig)>,
    /// Where the next page starts; nothing at the end.
    pub cursor: Option<String>,
}

/// The origins of one tenant.
#[derive(Clone, Debug)]
pub struct Origins<S> {
    store: S,
    space: KeySpace,
}

impl<S: Store> Origins<S> {
    /// Those of `tenant`.
    pub fn new(store: S, tenant: &Tenant) -> Self {
        Self { store, space: tenant.space("origin") }
    }

    /// Writes one.
    ///
    /// # Errors
    /// KV's.
    pub async fn put(&self, name: &str, config: &OriginConfig) -> Result<(), Error> {
        self.store.put(&self.space.key(&[name]), &codec::encode(config)?, Write::default()).await
    }

    /// Reads one.
    ///
    /// # Errors
    /// KV's, and [`Error::Corrupt`].
    pub async fn get(&self, name: &str) -> Result<Option<OriginConfig>, Error> {
        codec::decode_found(self.store.get(&self.space.key(&[name]), Read::FRESHEST).await?)
    }

    /// Removes one. Its stored responses stay unreachable in KV until they are collected.
    ///
    /// # Errors
    /// KV's.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.store.delete(&self.space.key(&[name])).await
    }

    /// A page of them. What cannot be read is left out.
    ///
    /// # Errors
    /// KV's.
    pub async fn list(&self, request: &PageRequest) -> Result<Listed, Error> {
        let prefix = self.space.all();
        let page = self.store.list(&prefix, request).await?;
        let mut items = Vec::new();
        for names in page.keys.chunks(BULK_KEYS_MAX) {
            let keys: Vec<_> = names.iter().filter_map(|found| prefix.key(&found.name)).collect();
            let values = self.store.get_many(&keys, Read::FRESHEST).await?;
            for (key, value) in keys.iter().zip(values) {
                let name = prefix.rest(key.as_str()).and_then(unescape);
                if let (Some(name), Ok(Some(config))) = (name, codec::decode_found(value)) {
                    items.push((name, config));
                }
            }
        }
        Ok(Listed { items, cursor: page.cursor })
    }
}
