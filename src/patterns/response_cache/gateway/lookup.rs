//! What is known before the origin is asked: isolate memory, then KV, without what a purge covers; and the decision over it.

use std::rc::Rc;

use super::{BODY_BYTES_MAX, Gateway};
use crate::clock::{Clock, Timestamp};
use crate::kv::{Key, Read, Store};
use crate::patterns::cache::Launcher;
use crate::patterns::response_cache::decision::{Decision, OnError, OriginFailure, decide_request, on_origin_error};
use crate::patterns::response_cache::entry::{Entry, Record};
use crate::patterns::response_cache::isolate::{Slot, Unstorable};
use crate::patterns::response_cache::origin::Origin;
use crate::patterns::response_cache::{RequestHead, purge};
use crate::random::Random;

/// For how long a failing origin is left alone while a stored response can answer, in seconds.
const FAILED_SECONDS: u64 = 5;

impl<S, O, C, R, L> Gateway<S, O, C, R, L>
where
    S: Store + Clone + 'static,
    O: Origin + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    L: Launcher,
{
    /// The decision over what is stored. KV is read only where it can make a difference.
    pub(super) async fn decide(&self, request: &RequestHead, key: &Key) -> Decision {
        let now = self.host.clock.now();
        let unit = self.host.random.unit();
        let decide = |record: &Record, now| decide_request(request, record, &self.site.policy, now, unit);
        if !request.is_get() && !request.is_head() {
            return decide(&Record::default(), now);
        }
        let slot = self.isolate.slot(key.as_str());
        if let Some(slot) = slot.as_ref().filter(|slot| now < slot.kept_until) {
            let slot = self.unpurged(request, slot.clone()).await;
            return self.spare_failing_origin(request, &slot, decide(&slot.record, now));
        }
        let without = decide(&Record::default(), now);
        if matches!(without, Decision::Bypass(_)) {
            return without;
        }
        let slot = self.read(key, slot).await;
        let slot = self.unpurged(request, slot).await;
        self.spare_failing_origin(request, &slot, decide(&slot.record, self.host.clock.now()))
    }

    /// What KV has, remembered for the next time; what this isolate had before if KV does not answer.
    async fn read(&self, key: &Key, before: Option<Slot>) -> Slot {
        let found = self.store.get(key, Read::FRESHEST).await;
        let now = self.host.clock.now();
        // Somebody else may have filled it while KV was asked.
        if let Some(slot) = self.isolate.slot(key.as_str()).filter(|slot| now < slot.kept_until) {
            return slot;
        }
        let before = before.unwrap_or_default();
        let Ok(found) = found else { return before };
        let not_before = before.not_before;
        // What is corrupt or of another format is a miss: the next fill replaces it.
        let record = found.and_then(|bytes| Record::decode(&bytes).ok()).unwrap_or_default();
        let record = record.only(|entry| entry.stored().requested_at >= not_before);
        let kept_until = now.plus_seconds(self.site.policy.memory_seconds);
        let slot = Slot { record: Rc::new(record), kept_until, not_before, ..Slot::default() };
        if !slot.record.is_empty() {
            self.isolate.keep(key.as_str(), slot.clone());
        }
        slot
    }

    /// Without the responses that a purge covers; those that a soft one covers are stale.
    async fn unpurged(&self, request: &RequestHead, slot: Slot) -> Slot {
        if slot.record.is_empty() || !self.site.is_purgeable() {
            return slot;
        }
        let tags = slot.record.entries().iter().flat_map(|entry| entry.stored().tags.iter().map(String::as_str));
        let now = self.host.clock.now();
        let (store, since) = (&self.store, slot.unpurged_at);
        let purged = purge::purged_at(store, &self.isolate, &self.site, &request.target, tags, since, now).await;
        let covers = |mark: Option<Timestamp>, entry: &Entry| mark.filter(|at| entry.stored().requested_at <= *at);
        let is_purged = |entry: &Entry| covers(purged.gone.max(purged.stale), entry).is_some();
        if !slot.record.entries().iter().any(|entry| is_purged(entry)) {
            return slot;
        }
        // Tags of all variants are looked at together: purging more than asked is a miss, less would be wrong.
        let record = slot.record.revised(|entry| match (covers(purged.gone, entry), covers(purged.stale, entry)) {
            (Some(_), _) => None,
            (None, Some(at)) => Some(Rc::new(entry.expired(at))),
            (None, None) => Some(Rc::clone(entry)),
        });
        Slot { record: Rc::new(record), ..slot }
    }

    /// While the origin is known to fail, what may replace an error answers at once.
    fn spare_failing_origin(&self, request: &RequestHead, slot: &Slot, decision: Decision) -> Decision {
        let now = self.host.clock.now();
        let failing = slot.origin_failed_at.is_some_and(|at| now < at.plus_seconds(FAILED_SECONDS));
        let (Decision::Revalidate(entry, life, _)
        | Decision::Fetch(Some((entry, life)), _)
        | Decision::ServeAndRefresh(entry, life)) = &decision
        else {
            return decision;
        };
        let error = OriginFailure::Status(503);
        let replaces = on_origin_error(request, entry, error, &self.site.policy, now) == OnError::ServeStored;
        if failing && replaces { Decision::Serve(Rc::clone(entry), *life) } else { decision }
    }

    /// The last answer could not be stored: then each request needs its own.
    pub(super) fn is_unstorable(&self, key: &Key) -> bool {
        self.isolate.slot(key.as_str()).is_some_and(|slot| slot.unstorable.is_some())
    }

    /// By its announced length; where none is, by what the last one turned out to be.
    pub(super) fn is_too_large(&self, key: &Key, length: Option<u64>) -> bool {
        length.map_or_else(
            || self.isolate.slot(key.as_str()).is_some_and(|slot| slot.unstorable == Some(Unstorable::TooLarge)),
            |length| length > BODY_BYTES_MAX as u64,
        )
    }
}
