//! Folding: finished hours of a counter become one record, and their shards are deleted later.
//!
//! Without double counting, wherever it dies:
//!
//! 1. An hour is folded when nobody writes it any more (it ended [`SETTLE_SECONDS`] and the grace for retries ago),
//!    so every list shows its shards as they will always be.
//! 2. The record says through which hour it goes. Readers ignore shards of those hours from the moment they see it,
//!    whether or not the shards are still there; until they see it, they count the shards.
//! 3. Shards are deleted only by a later run, which finds the record written [`SETTLE_SECONDS`] ago: by then everybody
//!    sees it. Dying before, between or after leaves work for the next run, never a wrong sum.
//!
//! Two runs at once write the same record. What it rests on: KV shows a write everywhere within [`SETTLE_SECONDS`]
//! (documented: 60 seconds "or more"). Cost: 1 list per 1000 keys of the tenant, and for each counter with a finished
//! hour 1 list, 1 write, and later 1 delete per shard.

use std::collections::BTreeSet;

use super::total::{Part, counts_hour};
use super::{BUCKET_SECONDS, FOLD, Fold, GRACE_SECONDS, PAGES_MAX, below, long_name, put, space};
use crate::clock::Timestamp;
use crate::kv::{Error, Key, PageRequest, Store, Tenant, position};

/// How long KV is given to show a write everywhere, in seconds: thirty times what it documents.
pub const SETTLE_SECONDS: u64 = 1800;

/// Lists that look for work, per run.
const SCANS_MAX: usize = 20;
/// Shards deleted per run; the platform allows 1000 operations per invocation.
const DELETES_MAX: usize = 500;
/// Counters folded per run.
const FOLDS_MAX: usize = 100;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counters that have a new record.
    pub folded: usize,
    /// Keys deleted.
    pub deleted: usize,
    /// Counters that were left alone because KV failed or a shard is unreadable.
    pub failed: usize,
    /// Where the next run should start; nothing when everything was looked at.
    pub cursor: Option<String>,
}

/// One counter's keys, as a list shows them.
#[derive(Debug, Default)]
struct Found {
    fold: Option<(Key, Fold)>,
    resets: Vec<(Key, Timestamp)>,
    shards: Vec<FoundShard>,
}

#[derive(Debug)]
struct FoundShard {
    key: Key,
    bucket: u64,
    /// First increment and value; nothing when unreadable.
    record: Option<(Timestamp, i64)>,
}

/// What is to be done for one counter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The new record's value, last hour and reset.
    fold: Option<(i128, u64, Timestamp)>,
    delete: Vec<Key>,
}

/// Folds the counters of `tenant`, from `cursor` on, within one invocation's budget.
///
/// # Errors
///
/// KV's own, from looking for work; a failure at one counter is only counted.
pub async fn run(store: &impl Store, tenant: &Tenant, cursor: Option<String>, now: Timestamp) -> Result<Report, Error> {
    let all = space(tenant).all();
    let mut report = Report { cursor, ..Report::default() };
    for _ in 0..SCANS_MAX {
        let page = store.list(&all, &PageRequest { cursor: report.cursor.take(), ..PageRequest::default() }).await?;
        let mut names = BTreeSet::new();
        for key in &page.keys {
            let Some((segment, rest)) = all.rest(&key.name).and_then(|rest| rest.split_once('/')) else { continue };
            let part = Part::parse(rest, key.metadata.as_deref()).ok().flatten();
            let is_work = match &part {
                Some(Part::Shard { bucket, .. }) => *bucket <= last_finished(now),
                Some(_) => true,
                None => false,
            };
            let name = crate::kv::unescape(segment).or_else(|| part.and_then(|part| part.name().map(str::to_owned)));
            names.extend(name.filter(|_| is_work));
        }
        for name in names {
            match fold_counter(store, tenant, &name, now, DELETES_MAX.saturating_sub(report.deleted)).await {
                Ok((folded, deleted)) => {
                    report.folded += usize::from(folded);
                    report.deleted += deleted;
                }
                Err(_) => report.failed += 1,
            }
        }
        report.cursor = page.cursor;
        if report.cursor.is_none() || report.deleted >= DELETES_MAX || report.folded >= FOLDS_MAX {
            break;
        }
    }
    Ok(report)
}

/// [`run`], from where the last one ended. Costs what [`position::resume`] adds.
///
/// # Errors
///
/// As [`run`]; the next one then starts from the beginning.
pub async fn resume(store: &impl Store, tenant: &Tenant, now: Timestamp) -> Result<Report, Error> {
    let key = tenant.space("counter-fold").key(&["position"]);
    position::resume(store, &key, async |cursor| {
        let report = run(store, tenant, cursor, now).await?;
        let cursor = report.cursor.clone();
        Ok((report, cursor))
    })
    .await
}

/// Folds one counter; answers whether it has a new record, and how many keys were deleted.
async fn fold_counter(
    store: &impl Store,
    tenant: &Tenant,
    name: &str,
    now: Timestamp,
    deletes_max: usize,
) -> Result<(bool, usize), Error> {
    let plan = plan(&find(store, tenant, name).await?, now)?;
    for key in plan.delete.iter().take(deletes_max) {
        store.delete(key).await?;
    }
    if let Some((value, through, reset)) = plan.fold {
        let key = space(tenant).key(&[name, FOLD]);
        let record = Fold { value, through, reset, at: now, name: long_name(&key, name) };
        put(store, &key, &record).await?;
    }
    Ok((plan.fold.is_some(), plan.delete.len().min(deletes_max)))
}

async fn find(store: &impl Store, tenant: &Tenant, name: &str) -> Result<Found, Error> {
    let prefix = below(tenant, name)?;
    let (mut found, mut request) = (Found::default(), PageRequest::default());
    for _ in 0..PAGES_MAX {
        let page = store.list(&prefix, &request).await?;
        for listed in &page.keys {
            let (Some(rest), Some(key)) = (prefix.rest(&listed.name), prefix.key(&listed.name)) else { continue };
            match Part::parse(rest, listed.metadata.as_deref())? {
                Some(Part::Fold(fold)) => found.fold = Some((key, fold)),
                Some(Part::Reset(at, _)) => found.resets.push((key, at)),
                Some(Part::Shard { bucket, record, .. }) => {
                    let record = record.ok().map(|shard| (shard.since, shard.value));
                    found.shards.push(FoundShard { key, bucket, record });
                }
                None => {}
            }
        }
        match page.cursor {
            Some(cursor) => request = request.after(cursor),
            None => return Ok(found),
        }
    }
    Err(Error::Invalid("the counter has more shards than one run may list".to_owned()))
}

/// The last hour whose shards nobody writes and everybody sees.
fn last_finished(now: Timestamp) -> u64 {
    let settled = now.seconds().saturating_sub(GRACE_SECONDS + SETTLE_SECONDS);
    (settled / BUCKET_SECONDS).saturating_sub(1)
}

/// Decides. Refuses to fold over an unreadable shard, because its count would be lost for good.
fn plan(found: &Found, now: Timestamp) -> Result<Plan, Error> {
    let is_settled = |at: Timestamp| now.millis_since(at) >= SETTLE_SECONDS * 1000;
    let old = found.fold.as_ref().map(|(_, fold)| fold);
    let old_reset = old.map_or(Timestamp::default(), |fold| fold.reset);
    let through_old = old.map(|fold| fold.through);
    let through = through_old.map_or(last_finished(now), |through| through.max(last_finished(now)));
    let settled = found.resets.iter().map(|(_, at)| *at).filter(|at| is_settled(*at));
    let reset = settled.max().filter(|at| *at > old_reset);
    let epoch = reset.unwrap_or(old_reset);
    let is_foldable = |shard: &&FoundShard| shard.bucket <= through && through_old.is_none_or(|old| shard.bucket > old);

    let mut plan = Plan::default();
    if reset.is_some() || found.shards.iter().any(|shard| is_foldable(&shard)) {
        let mut value = old.filter(|_| reset.is_none()).map_or(0, |fold| fold.value);
        for shard in found.shards.iter().filter(is_foldable) {
            if counts_hour(shard.bucket, through_old, epoch) {
                let (since, count) = shard.record.ok_or(Error::Corrupt(crate::kv::Corrupt::Damaged))?;
                value = value.saturating_add(if since >= epoch { i128::from(count) } else { 0 });
            }
        }
        plan.fold = Some((value, through, epoch));
    }
    if let Some((fold_key, fold)) = found.fold.as_ref().filter(|(_, fold)| is_settled(fold.at)) {
        let gone = found.shards.iter().filter(|shard| shard.bucket <= fold.through);
        plan.delete.extend(gone.map(|shard| shard.key.clone()));
        let old = found.resets.iter().filter(|(_, at)| *at <= fold.reset);
        plan.delete.extend(old.map(|(key, _)| key.clone()));
        let is_empty = found.shards.is_empty() && found.resets.is_empty();
        if fold.value == 0 && plan.fold.is_none() && is_empty {
            // Nothing is left to count and nothing to refuse: the counter is forgotten.
            plan.delete.push(fold_key.clone());
        }
    }
    Ok(plan)
}
