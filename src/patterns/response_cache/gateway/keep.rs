//! What is remembered of the origin's answers: in memory at once, in KV in the background; and what an unsafe request made wrong.

use std::rc::Rc;

use super::render::changed;
use super::upstream::{Arrived, Visit};
use super::{BODY_BYTES_MAX, Gateway, RECORD_SECONDS_MAX};
use crate::clock::Clock;
use crate::kv::{Key, Store, Write};
use crate::patterns::cache::Launcher;
use crate::patterns::response_cache::entry::Entry;
use crate::patterns::response_cache::freshness::Freshness;
use crate::patterns::response_cache::isolate::{Slot, Unstorable};
use crate::patterns::response_cache::origin::Origin;
use crate::patterns::response_cache::validation::{HeadUpdate, update_from_head};
use crate::patterns::response_cache::{Exchange, invalidation};
use crate::random::Random;

/// For how long an invalidation counts in this isolate, in seconds: KV may show the old copy for that long.
const INVALIDATED_SECONDS: u64 = 90;
/// For how long beyond its use an entry with a validator stays in KV, in seconds: a 304 is cheaper than a body.
const VALIDATOR_SECONDS: u64 = 86_400;

impl<S, O, C, R, L> Gateway<S, O, C, R, L>
where
    S: Store + Clone + 'static,
    O: Origin + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    L: Launcher,
{
    pub(super) fn life(&self, entry: &Entry) -> Freshness {
        Freshness::of(entry, &self.site.policy, self.host.clock.now())
    }

    /// Remembers an entry, and writes it to KV in the background if that is `worth_writing`.
    pub(super) fn keep(&self, key: &Key, entry: &Rc<Entry>, worth_writing: bool) {
        let mut slot = self.isolate.slot(key.as_str()).unwrap_or_default();
        if entry.stored().requested_at < slot.not_before {
            return;
        }
        slot.record = Rc::new(slot.record.with(Rc::clone(entry), BODY_BYTES_MAX));
        // Older variants keep their own moment, so that filling one never puts off a purge of another.
        if slot.record.entries().len() == 1 {
            slot.unpurged_at = entry.stored().received_at;
        }
        slot.origin_failed_at = None;
        slot.unstorable = None;
        self.settle(key, slot, worth_writing);
    }

    pub(super) fn withdraw(&self, key: &Key, entry: &Entry) {
        let mut slot = self.isolate.slot(key.as_str()).unwrap_or_default();
        slot.record = Rc::new(slot.record.without(entry));
        self.settle(key, slot, true);
    }

    fn settle(&self, key: &Key, mut slot: Slot, worth_writing: bool) {
        let now = self.host.clock.now();
        let seconds = self.site.policy.memory_seconds;
        let seconds = if slot.record.is_empty() { seconds.max(INVALIDATED_SECONDS) } else { seconds };
        slot.kept_until = now.plus_seconds(seconds);
        let record = Rc::clone(&slot.record);
        self.isolate.keep(key.as_str(), slot);
        if !worth_writing {
            return;
        }
        let (store, key) = (self.store.clone(), key.clone());
        let seconds = record.entries().iter().map(|entry| {
            let extra = if entry.has_validator() { VALIDATOR_SECONDS } else { 0 };
            (self.life(entry).useful_millis() / 1000).saturating_add(extra)
        });
        let write = Write::expiring_in(seconds.max().unwrap_or(0).min(RECORD_SECONDS_MAX));
        self.host.launcher.launch(async move {
            // A write that fails leaves the older copy, which has its own freshness; the next fill tries again.
            let outcome = if record.is_empty() {
                store.delete(&key).await
            } else {
                store.put(&key, &record.encode(), write).await
            };
            drop(outcome);
        });
    }

    pub(super) fn remember_unstorable(&self, key: &Key, why: Unstorable) {
        let mut slot = self.isolate.slot(key.as_str()).unwrap_or_default();
        if slot.record.is_empty() {
            slot.unstorable = Some(why);
            slot.kept_until = self.host.clock.now().plus_seconds(self.site.policy.memory_seconds).max(slot.kept_until);
            self.isolate.keep(key.as_str(), slot);
        }
    }

    /// Forgets what a successful unsafe request made wrong (RFC 9111 §4.4); `replaced` is about to be written anew.
    pub(super) fn invalidate<T>(&self, arrived: &Arrived<T>, replaced: Option<&Key>) {
        for target in invalidation::targets(&arrived.forwarded, &arrived.head) {
            let key = self.site.key(&target);
            let now = self.host.clock.now();
            let kept_until = now.plus_seconds(INVALIDATED_SECONDS);
            // What was asked for before the change took effect is as wrong as what is stored.
            let not_before = if replaced == Some(&key) { arrived.requested_at } else { arrived.received_at };
            self.isolate.keep(key.as_str(), Slot { kept_until, not_before, ..Slot::default() });
            if replaced != Some(&key) {
                let store = self.store.clone();
                self.host.launcher.launch(async move { drop(store.delete(&key).await) });
            }
        }
    }

    /// RFC 9111 §4.3.5
    pub(super) fn learn_from_head(&self, visit: &Visit<'_>, exchange: Exchange<'_>) {
        let Some(entry) = &visit.fallback else { return };
        match update_from_head(entry, exchange, &self.site.policy) {
            HeadUpdate::Freshened(fresh) => {
                self.keep(visit.key, &fresh, changed(entry, &fresh) || self.life(&fresh).is_fresh());
            }
            HeadUpdate::Outdated => self.withdraw(visit.key, entry),
            HeadUpdate::Unrelated => {}
        }
    }
}
