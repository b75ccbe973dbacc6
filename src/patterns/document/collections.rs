//! The collections of a tenant: their schemas, remembered for a while, and the sweep of all of them by a timer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Collection, Documents, Migrate, SCHEMA_SECONDS, Sweep, SweepReport};
use crate::clock::Timestamp;
use crate::kv::codec::{decode_found, encode};
use crate::kv::{self, KeySpace, PageKey, PageRequest, Prefix, Read, Store, Tenant, Write, position, unescape};
use crate::recent::Recent;

/// Collections that one call of a timer looks at.
const COLLECTIONS_MAX: u32 = 100;

/// The collections of one tenant.
#[derive(Clone, Debug)]
pub struct Collections<S> {
    store: S,
    tenant: Tenant,
    space: KeySpace,
    known: Recent<(Collection, Timestamp)>,
}

impl<S: Store> Collections<S> {
    /// The collections of `tenant`; `known` is the isolate's memory.
    pub fn new(store: S, tenant: &Tenant, known: Recent<(Collection, Timestamp)>) -> Self {
        Self { store, tenant: tenant.clone(), space: tenant.space("collection"), known }
    }

    /// The schema of the collection `name`, or nothing. One read, none while the isolate remembers it.
    ///
    /// # Errors
    ///
    /// KV failed, or the schema is unreadable.
    pub async fn read(&self, name: &str, now: Timestamp) -> Result<Option<Collection>, kv::Error> {
        let key = self.space.key(&[name]);
        if let Some((collection, at)) = self.known.get(key.as_str())
            && now < at.plus_seconds(SCHEMA_SECONDS)
        {
            return Ok(Some(collection));
        }
        let found: Option<Collection> = decode_found(self.store.get(&key, Read::default()).await?)?;
        match &found {
            Some(collection) => self.known.put(key.as_str(), (collection.clone(), now)),
            None => self.known.remove(key.as_str()),
        }
        Ok(found)
    }

    /// The schema of the collection `name` as KV shows it now, or nothing. One read.
    ///
    /// # Errors
    ///
    /// KV failed, or the schema is unreadable.
    pub async fn newest(&self, name: &str) -> Result<Option<Collection>, kv::Error> {
        decode_found(self.store.get(&self.space.key(&[name]), Read::default()).await?)
    }

    /// Publishes `collection` as the schema `name` after `before`, the newest one, because it must not forget that there
    /// was a higher version once. One write.
    ///
    /// # Errors
    ///
    /// KV failed.
    pub async fn publish(
        &self,
        name: &str,
        before: Option<&Collection>,
        collection: Collection,
        now: Timestamp,
    ) -> Result<Collection, kv::Error> {
        let key = self.space.key(&[name]);
        let collection = collection.after(before);
        // A long name is hashed in the key, and the timer has to know it.
        let write = Write::default().with_metadata(Value::from(name).to_string());
        self.store.put(&key, &encode(&collection)?, write).await?;
        self.known.put(key.as_str(), (collection.clone(), now));
        Ok(collection)
    }

    /// Sweeps the documents of all collections, one after the other, as far as `budget` documents and keys of theirs go,
    /// from where the last call ended: for a timer. One list and one read per collection, and what their sweeps cost.
    ///
    /// # Errors
    ///
    /// The collections could not be listed. A collection that fails is only counted, and the next one is swept.
    pub async fn sweep_all(&self, budget: u32, now: Timestamp) -> Result<Swept, kv::Error>
    where
        S: Clone + 'static,
    {
        let progress = self.tenant.space("collection-sweep").key(&["position"]);
        position::resume(&self.store, &progress, async |cursor| {
            let from = cursor.and_then(|text| serde_json::from_slice(text.as_bytes()).ok()).unwrap_or_default();
            let (swept, position) = self.sweep_page(from, budget, now).await?;
            Ok((swept, position.and_then(|position| serde_json::to_string(&position).ok())))
        })
        .await
    }

    async fn sweep_page(
        &self,
        from: Position,
        budget: u32,
        now: Timestamp,
    ) -> Result<(Swept, Option<Position>), kv::Error>
    where
        S: Clone + 'static,
    {
        let all = self.space.all();
        let page = self.store.list(&all, &PageRequest { limit: COLLECTIONS_MAX, cursor: from.page.clone() }).await?;
        let (mut swept, mut budget) = (Swept::default(), budget.max(1));
        for key in page.keys.iter().filter(|key| from.key.as_ref().is_none_or(|first| key.name >= *first)) {
            if budget == 0 {
                let here = Position { page: from.page, key: Some(key.name.clone()), documents: None };
                return Ok((swept, Some(here)));
            }
            let Some(name) = collection_name(&all, key) else { continue };
            let cursor = from.documents.clone().filter(|_| from.key.as_ref() == Some(&key.name));
            match self.sweep_one(&name, cursor, budget, now).await {
                Ok(report) => {
                    swept.add(&report);
                    budget = budget.saturating_sub(report.scanned.max(1));
                    if let documents @ Some(_) = report.cursor {
                        let here = Position { page: from.page, key: Some(key.name.clone()), documents };
                        return Ok((swept, Some(here)));
                    }
                }
                Err(_) => swept.collections_failed += 1,
            }
        }
        Ok((swept, page.cursor.map(|page| Position { page: Some(page), ..Position::default() })))
    }

    async fn sweep_one(
        &self,
        name: &str,
        cursor: Option<String>,
        budget: u32,
        now: Timestamp,
    ) -> Result<SweepReport, kv::Error>
    where
        S: Clone + 'static,
    {
        match self.read(name, now).await? {
            Some(schema) if schema.version() > 1 => {
                let documents = Documents::new(self.store.clone(), &self.tenant, name, Recent::new(1));
                documents.sweep(&schema, &Sweep { dry_run: false, budget, cursor }, now).await
            }
            // Nothing can be behind the first version.
            _ => Ok(SweepReport::default()),
        }
    }
}

/// What a timer's sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Documents looked at.
    pub scanned: u32,
    /// Documents that were migrated.
    pub migrated: u32,
    /// Documents that could not be migrated or read.
    pub failed: u32,
    /// Collections whose schema or list could not be read.
    pub collections_failed: u32,
}

impl Swept {
    fn add(&mut self, report: &SweepReport) {
        self.scanned += report.scanned;
        self.migrated += report.migrated;
        self.failed += report.failed;
    }
}

/// Where a timer's sweep goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    /// The page of collections.
    page: Option<String>,
    /// The collection in it, by its key.
    key: Option<String>,
    /// The documents of that collection.
    documents: Option<String>,
}

fn collection_name(all: &Prefix, key: &PageKey) -> Option<String> {
    let told = key.metadata.as_deref().and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
    told.or_else(|| all.rest(&key.name).and_then(unescape))
}
