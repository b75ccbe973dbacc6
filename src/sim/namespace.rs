//! One simulated namespace: every version of every key, when each location can see it, and what locations keep.
//!
//! Synchronous and without randomness of its own: callers pass the moment and the draws.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::faults::Profile;
use crate::clock::Timestamp;
use crate::kv::limits::SAME_KEY_WRITE_MILLIS;
use crate::kv::{Page, PageKey};

/// The text of the refusal of a second write within a second, as the runtime gives it.
pub(super) const THROTTLED: &str = "429 Too Many Requests";

/// Marks a cursor as ours; the rest is the last name that was looked at.
const CURSOR_MARK: &str = "sim:";

/// Keys one page looks at, at most.
const SCAN_MAX: usize = 10_000;

/// A stored value with what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) metadata: Option<String>,
}

impl Stored {
    /// Whether the value is served at `now`, when expiry may come `late_millis` late.
    fn is_live(&self, now: Timestamp, late_millis: u64) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at.plus_millis(late_millis))
    }
}

/// The state of a key between two writes.
#[derive(Debug)]
struct Version {
    /// Nothing: deleted.
    value: Option<Rc<Stored>>,
    written_at: Timestamp,
    /// From when each location can fetch it.
    visible_at: Vec<Timestamp>,
    /// What lists lag behind that, in milliseconds.
    list_lag_millis: u64,
}

/// A location's copy of what it read, misses included.
#[derive(Debug)]
struct Copy {
    value: Option<Rc<Stored>>,
    until: Timestamp,
}

/// How a read is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) location: usize,
    pub(super) now: Timestamp,
    pub(super) cache_ttl_seconds: u32,
    pub(super) evicted: bool,
    pub(super) steps_back: bool,
    pub(super) late_millis: u64,
}

/// When a new version becomes visible, drawn by the caller.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub(super) visible_at: Vec<Timestamp>,
    pub(super) list_lag_millis: u64,
}

/// All keys of one namespace.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    keys: BTreeMap<String, VecDeque<Version>>,
    copies: BTreeMap<(usize, String), Copy>,
}

impl Namespace {
    /// Whether `location` can answer a read of `name` without asking further.
    pub(super) fn is_near(&self, location: usize, name: &str, now: Timestamp) -> bool {
        self.copies.get(&(location, name.to_owned())).is_some_and(|copy| now < copy.until)
    }

    /// Reads: from the location's copy while that is kept, else from what the location can fetch, which is then kept.
    pub(super) fn read(&mut self, name: &str, fetch: Fetch, profile: &Profile) -> Option<Rc<Stored>> {
        let place = (fetch.location, name.to_owned());
        let copy = self.copies.get(&place).filter(|copy| fetch.now < copy.until && !fetch.evicted);
        let value = if let Some(copy) = copy {
            copy.value.clone()
        } else {
            let value = self.fetch(name, fetch, profile);
            let until = fetch.now.plus_seconds(u64::from(fetch.cache_ttl_seconds));
            self.copies.insert(place, Copy { value: value.clone(), until });
            value
        };
        value.filter(|stored| stored.is_live(fetch.now, fetch.late_millis))
    }

    fn fetch(&self, name: &str, fetch: Fetch, profile: &Profile) -> Option<Rc<Stored>> {
        let seen = self.keys.get(name)?.iter().rev().find(|version| {
            if fetch.steps_back {
                version.written_at.plus_millis(profile.propagation.millis_max) <= fetch.now
            } else {
                version.visible_at.get(fetch.location).is_none_or(|visible_at| *visible_at <= fetch.now)
            }
        });
        seen.and_then(|version| version.value.clone())
    }

    /// Whether `name` was never written, and no location has looked for it.
    pub(super) fn is_new(&self, name: &str, locations: usize) -> bool {
        let is_unread = |location| !self.copies.contains_key(&(location, name.to_owned()));
        !self.keys.contains_key(name) && (0..locations).all(is_unread)
    }

    /// Whether a write of `name` at `now` comes too soon after the one before.
    pub(super) fn is_throttled(&self, name: &str, now: Timestamp) -> bool {
        self.latest(name).is_some_and(|version| now.millis_since(version.written_at) < SAME_KEY_WRITE_MILLIS)
    }

    /// Writes (or deletes, with nothing for a value). The writing location forgets its copy when it sees its own write.
    pub(super) fn write(&mut self, location: usize, name: &str, value: Option<Stored>, now: Timestamp, spread: Spread) {
        let Spread { visible_at, list_lag_millis } = spread;
        if visible_at.get(location).is_some_and(|visible_at| *visible_at <= now) {
            self.copies.remove(&(location, name.to_owned()));
        }
        let versions = self.keys.entry(name.to_owned()).or_default();
        versions.push_back(Version { value: value.map(Rc::new), written_at: now, visible_at, list_lag_millis });
    }

    /// Drops versions that no read and no list can see any more, given the profile's longest delays.
    pub(super) fn forget_old_versions(&mut self, name: &str, now: Timestamp, profile: &Profile) {
        let Some(versions) = self.keys.get_mut(name) else { return };
        let horizon = profile.list_stale_millis_max();
        while versions.get(1).is_some_and(|next| next.written_at.plus_millis(horizon) <= now) {
            versions.pop_front();
        }
    }

    /// What the central store holds, past every cache: the truth, for checkers and tests.
    pub(super) fn truth(&self, name: &str, now: Timestamp) -> Option<Rc<Stored>> {
        self.latest(name)?.value.clone().filter(|stored| stored.is_live(now, 0))
    }

    /// Every name that the central store holds a live value for.
    pub(super) fn names(&self, now: Timestamp) -> Vec<String> {
        self.keys.keys().filter(|name| self.truth(name, now).is_some()).cloned().collect()
    }

    fn latest(&self, name: &str) -> Option<&Version> {
        self.keys.get(name)?.back()
    }

    /// A page of names below `prefix`, of at most `keys_max` keys although the caller wanted `limit`.
    pub(super) fn list(&self, prefix: &str, cursor: Option<&str>, limits: PageLimits, fetch: Fetch) -> Page {
        let after = cursor.and_then(|cursor| cursor.strip_prefix(CURSOR_MARK));
        let start = after.unwrap_or(prefix).max(prefix);
        let mut page = Page::default();
        let mut last = after.unwrap_or_default().to_owned();
        let names = self.keys.range(start.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        for (scanned, (name, versions)) in names.filter(|(name, _)| Some(name.as_str()) != after).enumerate() {
            let Some(stored) = listed(versions, fetch) else { continue };
            if page.keys.len() >= limits.keys_max || scanned >= SCAN_MAX {
                page.cursor = Some(format!("{CURSOR_MARK}{last}"));
                break;
            }
            last.clone_from(name);
            page.keys.push(PageKey {
                name: name.clone(),
                expiration_seconds: stored.expires_at.map(Timestamp::seconds),
                metadata: stored.metadata.clone(),
            });
        }
        page
    }
}

/// How large a page may get.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLimits {
    pub(super) keys_max: usize,
}

/// What a list shows of a key.
fn listed(versions: &VecDeque<Version>, fetch: Fetch) -> Option<&Rc<Stored>> {
    let seen = versions.iter().rev().find(|version| {
        let visible_at = version.visible_at.get(fetch.location).copied().unwrap_or_default();
        visible_at.plus_millis(version.list_lag_millis) <= fetch.now
    });
    seen?.value.as_ref().filter(|stored| stored.is_live(fetch.now, fetch.late_millis))
}
