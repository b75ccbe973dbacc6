//! Brings a collection to its schema's version in bounded steps: for a call, or for a timer.
//!
//! A step looks at some documents by their metadata and reads only those that are behind. It can be repeated or dropped
//! at any point. Documents that change meanwhile are safe, because a sweep writes copies, never originals.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::Pair;
use super::{Document, Documents, MIGRATED, Migrate, OWN, serve};
use crate::clock::Timestamp;
use crate::kv::codec::decode;
use crate::kv::limits::BULK_KEYS_MAX;
use crate::kv::{self, Read, Store};

/// Errors that a report tells one by one.
pub const ERRORS_MAX: usize = 20;
/// Keys that one step looks at, at most.
const BUDGET_MAX: u32 = 250;
/// Age from which a copy without its original is garbage, in seconds: an original can be listed later than its copy.
const ORPHAN_SECONDS: u64 = 3600;

/// One step of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Keys to look at, 1 to 250: documents, and copies of documents.
    pub budget: u32,
    /// Where the step before ended.
    pub cursor: Option<String>,
}

/// A document that could not be migrated or read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SweepError {
    /// Which one.
    pub id: String,
    /// What is wrong, fit for clients.
    pub reason: String,
}

/// What a step saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SweepReport {
    /// Documents looked at.
    pub scanned: u32,
    /// How many documents were stored in which version before this step.
    pub versions: BTreeMap<u32, u32>,
    /// Documents that were, or in a dry run would be, migrated.
    pub migrated: u32,
    /// Documents that could not be migrated or read.
    pub failed: u32,
    /// Copies without an original that were, or would be, removed.
    pub orphans: u32,
    /// The first failures.
    pub errors: Vec<SweepError>,
    /// Where the next step goes on; nothing at the end.
    pub cursor: Option<String>,
}

impl SweepReport {
    fn fail(&mut self, id: &str, why: &str) {
        self.failed += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(SweepError { id: id.to_owned(), reason: why.to_owned() });
        }
    }
}

impl<S: Store + Clone + 'static> Documents<S> {
    /// One step of a sweep. One list, and per document that is behind one read and one write.
    ///
    /// # Errors
    ///
    /// The list or a bulk read failed, or the cursor is not one. What was written until then stays good.
    pub async fn sweep(&self, schema: &impl Migrate, order: &Sweep, now: Timestamp) -> Result<SweepReport, kv::Error> {
        let pairs = self.pairs(order.budget.clamp(1, BUDGET_MAX), order.cursor.as_deref()).await?;
        let mut report = SweepReport { cursor: pairs.cursor, ..SweepReport::default() };
        let mut behind = Vec::new();
        for pair in &pairs.pairs {
            let Some(id) = pair.id() else { continue };
            if !pair.has_own {
                self.collect(&id, pair, order, now, &mut report).await;
                continue;
            }
            report.scanned += 1;
            // Unreadable metadata says nothing about the record, so that is read.
            let version = pair.newest(schema.version()).map(|newest| newest.version);
            *report.versions.entry(version.unwrap_or(0)).or_default() += 1;
            if version.is_none_or(|version| version < schema.version()) {
                behind.push(id);
            }
        }
        for batch in behind.chunks(BULK_KEYS_MAX) {
            self.migrate_batch(schema, batch, order.dry_run, now, &mut report).await?;
        }
        Ok(report)
    }

    /// Removes a copy whose original is gone for long.
    async fn collect(&self, id: &str, pair: &Pair, order: &Sweep, now: Timestamp, report: &mut SweepReport) {
        let made = pair.copy.as_ref().and_then(|copy| copy.migrated_at);
        if made.is_none_or(|made| made.plus_seconds(ORPHAN_SECONDS) > now) {
            return;
        }
        if order.dry_run || self.store.delete(&self.key(id, MIGRATED)).await.is_ok() {
            report.orphans += 1;
        }
    }

    async fn migrate_batch(
        &self,
        schema: &impl Migrate,
        batch: &[String],
        dry_run: bool,
        now: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), kv::Error> {
        let keys: Vec<_> = batch.iter().map(|id| self.key(id, OWN)).collect();
        let values = self.store.get_many(&keys, Read::default()).await?;
        for (id, own) in batch.iter().zip(values) {
            // What has gone since it was listed needs nothing.
            let Some(own) = own else { continue };
            match migrate_one(schema, &own, now) {
                Err(why) => report.fail(id, &why),
                Ok(None) => {}
                Ok(Some(_)) if dry_run => report.migrated += 1,
                Ok(Some(document)) => match self.write(id, MIGRATED, &document, now).await {
                    Ok(()) => report.migrated += 1,
                    Err(_) => report.fail(id, "KV did not take the copy"),
                },
            }
        }
        Ok(())
    }
}

/// The copy to write for the original in `own`; nothing when there is nothing to do. The error is fit for clients.
fn migrate_one(schema: &impl Migrate, own: &[u8], now: Timestamp) -> Result<Option<Document>, String> {
    let own: Document = decode(own).map_err(|_| "the stored record is unreadable".to_owned())?;
    if !own.is_live(now) {
        return Ok(None);
    }
    let served = serve(schema, &own).map_err(|error| error.to_string())?;
    Ok(served.migrated_from.map(|_| own.migrated(served.version, served.data, now)))
}
