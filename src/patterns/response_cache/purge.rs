//! Purging without enumeration: a mark is the moment up to which everything with a tag, below a path prefix, or of an origin is invalid
//! (hard), or stale, so that its windows of staleness begin (soft).
//!
//! One write per scope. What was asked for **at or before** the mark is covered, whenever it arrived, so a
//! tie is decided against the response. A prefix is whole
//! path segments: `/a/b` covers `/a/b/c` and not `/a/bc`. Seen by this isolate at once, elsewhere when memory (`memorySeconds`) and the copy
//! from KV (30 seconds or more) have run out; between locations it relies on their clocks. A mark lasts longer than any stored response.

use serde::{Deserialize, Serialize};

use super::gateway::RECORD_SECONDS_MAX;
use super::isolate::Isolate;
use super::site::Site;
use super::target::Target;
use crate::clock::Timestamp;
use crate::kv::codec;
use crate::kv::limits::BULK_KEYS_MAX;
use crate::kv::{Error, Key, Read, Store, Write};
use crate::patterns::cache::Severity;

/// Prefixes of a path that can be purged: those of its first segments.
pub const PREFIX_SEGMENTS_MAX: usize = 16;

/// What is purged at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every response of the origin with this tag.
    Tag(&'a str),
    /// Every response whose path begins with these whole segments, as they stand in the URL; at most [`PREFIX_SEGMENTS_MAX`].
    Prefix(&'a str),
    /// Every response of the origin.
    All,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    at: Timestamp,
}

impl codec::Record for Mark {
    const KIND: &'static str = "response-purge";
    const VERSION: u32 = 1;
}

/// What covers a response, by hardness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// What was asked for up to here is invalid.
    pub gone: Option<Timestamp>,
    /// What was asked for up to here is stale from here on.
    pub stale: Option<Timestamp>,
}

impl Purged {
    fn and(self, severity: Severity, at: Option<Timestamp>) -> Self {
        match severity {
            Severity::Hard => Self { gone: self.gone.max(at), ..self },
            Severity::Soft => Self { stale: self.stale.max(at), ..self },
        }
    }
}

fn key(site: &Site, scope: Scope<'_>, severity: Severity) -> Key {
    let mut segments = match severity {
        Severity::Hard => vec![],
        Severity::Soft => vec!["soft"],
    };
    match scope {
        Scope::Tag(tag) => segments.extend(["tag", tag]),
        Scope::Prefix(prefix) if !prefix.trim_matches('/').is_empty() => {
            segments.push("prefix");
            segments.extend(prefix.trim_matches('/').split('/'));
        }
        // Every path begins with `/`.
        Scope::Prefix(_) | Scope::All => segments.push("all"),
    }
    site.mark_key(&segments)
}

/// The marks that can cover a response at `target` with these tags.
fn keys<'a>(site: &Site, target: &Target, tags: impl Iterator<Item = &'a str>) -> Vec<(Key, Severity)> {
    let path = site.relative_path(target);
    let path = path.trim_start_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).take(PREFIX_SEGMENTS_MAX);
    let both = |scope| [Severity::Hard, Severity::Soft].map(|severity| (key(site, scope, severity), severity));
    let mut keys = both(Scope::All).to_vec();
    keys.extend(ends.filter_map(|end| path.get(..end)).flat_map(|prefix| both(Scope::Prefix(prefix))));
    keys.extend(tags.flat_map(|tag| both(Scope::Tag(tag))));
    keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    keys.dedup_by(|(one, _), (other, _)| one == other);
    keys
}

/// Purges; one write.
///
/// # Errors
/// KV's.
pub async fn purge<S: Store>(
    store: &S,
    isolate: &Isolate,
    site: &Site,
    (scope, severity): (Scope<'_>, Severity),
    now: Timestamp,
) -> Result<(), Error> {
    let key = key(site, scope, severity);
    let value = codec::encode(&Mark { at: now })?;
    store.put(&key, &value, Write::expiring_in(RECORD_SECONDS_MAX.saturating_add(86_400))).await?;
    isolate.set_mark(key.as_str(), Some(now), now);
    Ok(())
}

/// The latest known marks that cover a response at `target` with these tags, which was covered by none at `unpurged_at`. What memory
/// has not heard of for `memorySeconds` is read in bulk, one operation per hundred keys (so one up to 33 tags); what KV does not give is taken as last known.
pub async fn purged_at<'a, S: Store>(
    store: &S,
    isolate: &Isolate,
    site: &Site,
    target: &Target,
    tags: impl Iterator<Item = &'a str>,
    unpurged_at: Timestamp,
    now: Timestamp,
) -> Purged {
    let mut purged = Purged::default();
    let mut unknown = Vec::new();
    for (key, severity) in keys(site, target, tags) {
        let known = isolate.mark(key.as_str());
        purged = purged.and(severity, known.and_then(|(at, _)| at));
        let checked = known.map_or(unpurged_at, |(_, checked)| checked.max(unpurged_at));
        if now.millis_since(checked) >= site.policy.memory_seconds.saturating_mul(1000) {
            unknown.push((key, severity));
        }
    }
    for chunk in unknown.chunks(BULK_KEYS_MAX) {
        let keys: Vec<Key> = chunk.iter().map(|(key, _)| key.clone()).collect();
        let Ok(values) = store.get_many(&keys, Read::FRESHEST).await else { continue };
        for ((key, severity), value) in chunk.iter().zip(values) {
            // A mark that cannot be read covers everything up to now: the careful reading.
            let at = match codec::decode_found::<Mark>(value) {
                Ok(mark) => mark.map(|mark| mark.at),
                Err(_) => Some(now),
            };
            purged = purged.and(*severity, isolate.set_mark(key.as_str(), at, now));
        }
    }
    purged
}
