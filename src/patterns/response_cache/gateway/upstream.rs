//! One request on its way to the origin, and what its answer means for the client and for the cache.

use std::rc::Rc;

use super::render::{append_cookies, asks_for_more, changed, from_entry, pass, passed};
use super::{BODY_BYTES_MAX, Failure, Gateway, Landed, Outcome, Payload, Reply, Unanswered};
use crate::clock::{Clock, Timestamp};
use crate::kv::{Key, Store};
use crate::patterns::cache::{Launcher, Lead};
use crate::patterns::response_cache::decision::{Decision, OnError, OriginFailure, on_origin_error};
use crate::patterns::response_cache::entry::Entry;
use crate::patterns::response_cache::forward::{self, Conditions};
use crate::patterns::response_cache::freshness::Freshness;
use crate::patterns::response_cache::isolate::Unstorable;
use crate::patterns::response_cache::origin::{Copied, Gathered, Origin, OriginBody, Unreached};
use crate::patterns::response_cache::policy::SetCookie;
use crate::patterns::response_cache::status::{CacheStatus, CacheWord, Forwarded};
use crate::patterns::response_cache::store_rule::{Draft, Refusal, complete_date, decide_store};
use crate::patterns::response_cache::validation::{Freshened, freshen};
use crate::patterns::response_cache::{Exchange, RequestHead, ResponseHead};
use crate::random::Random;

/// Up to this length a body is read before it is answered, in bytes; longer and unannounced ones are sent while they arrive.
const GATHERED_BYTES_MAX: u64 = 128 * 1024;

/// Those by which an origin says nothing of the resource, only that it was asked too soon, too often or too slowly
/// (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4).
const PASSING_STATUSES: [u16; 3] = [408, 425, 429];

/// One request on its way to the origin.
pub(super) struct Visit<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) key: &'a Key,
    /// What is stored that may replace an error.
    pub(super) fallback: Option<Rc<Entry>>,
    pub(super) why: Forwarded,
    pub(super) may_store: bool,
    pub(super) invalidates: bool,
    pub(super) lead: Option<Lead<Landed>>,
    pub(super) collapsed: bool,
    pub(super) detail: Option<&'static str>,
}

impl<'a> Visit<'a> {
    pub(super) const fn new(request: &'a RequestHead, key: &'a Key) -> Self {
        Self {
            request,
            key,
            fallback: None,
            why: Forwarded::UriMiss,
            may_store: true,
            invalidates: false,
            lead: None,
            collapsed: false,
            detail: None,
        }
    }

    /// Why the origin is to be asked, and what may replace an error.
    pub(super) fn is_for(&mut self, decision: Decision) {
        match decision {
            Decision::Revalidate(entry, _, why) => (self.fallback, self.why) = (Some(entry), why),
            Decision::Fetch(stored, why) => (self.fallback, self.why) = (stored.map(|(entry, _)| entry), why),
            _ => {}
        }
    }
}

/// The origin's answer before its body.
pub(super) struct Arrived<B> {
    pub(super) forwarded: RequestHead,
    pub(super) head: ResponseHead,
    pub(super) body: B,
    pub(super) requested_at: Timestamp,
    pub(super) received_at: Timestamp,
}

impl<B> Arrived<B> {
    pub(super) fn exchange(&self) -> Exchange<'_> {
        Exchange {
            request: &self.forwarded,
            response: &self.head,
            requested_at: self.requested_at,
            received_at: self.received_at,
        }
    }
}

impl<S, O, C, R, L> Gateway<S, O, C, R, L>
where
    S: Store + Clone + 'static,
    O: Origin + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    L: Launcher,
{
    /// Asks whether `entry` is still right (RFC 9111 §4.3).
    ///
    /// # Errors
    /// There is no answer, and nothing stored may replace one.
    pub(super) async fn revalidate(&self, mut visit: Visit<'_>, entry: Rc<Entry>) -> Outcome<O> {
        visit.fallback = Some(Rc::clone(&entry));
        let arrived = match self.ask(&visit, Conditions::Validate(&entry), None).await {
            Ok(arrived) => arrived,
            Err(unreached) => return self.unreached(&mut visit, unreached),
        };
        if arrived.head.status != 304 {
            return self.take(visit, arrived, true).await;
        }
        let freshened = freshen(&entry, arrived.exchange(), &self.site.policy);
        let (fresh, stored) = match freshened {
            Freshened::Stored(fresh) => {
                let worth_writing = changed(&entry, &fresh) || self.life(&fresh).is_fresh();
                self.keep(visit.key, &fresh, worth_writing);
                (fresh, true)
            }
            Freshened::ThisRequestOnly(fresh) => (fresh, false),
            Freshened::Withdrawn(fresh) => {
                self.withdraw(visit.key, &entry);
                (fresh, false)
            }
            Freshened::Mismatch => return self.fetch(visit, Conditions::None, None).await,
        };
        let status = CacheStatus {
            forwarded: Some(visit.why),
            forwarded_status: Some(304),
            stored,
            collapsed: visit.collapsed,
            ..CacheStatus::default()
        };
        let mut reply = from_entry(visit.request, &fresh, &self.life(&fresh), status);
        if !reply.headers.contains("set-cookie") {
            append_cookies(&mut reply.headers, &arrived.head.headers);
        }
        reply.word = CacheWord::Hit;
        Ok(reply)
    }

    /// Asks for the whole.
    ///
    /// # Errors
    /// There is no answer, and nothing stored may replace one.
    pub(super) async fn fetch(
        &self,
        mut visit: Visit<'_>,
        conditions: Conditions<'_>,
        upload: Option<O::Upload>,
    ) -> Outcome<O> {
        let unconditional = matches!(conditions, Conditions::None);
        match self.ask(&visit, conditions, upload).await {
            Ok(arrived) => self.take(visit, arrived, unconditional).await,
            Err(unreached) => self.unreached(&mut visit, unreached),
        }
    }

    async fn ask(
        &self,
        visit: &Visit<'_>,
        conditions: Conditions<'_>,
        upload: Option<O::Upload>,
    ) -> Result<Arrived<O::Body>, Unreached> {
        let forwarded = forward::to_origin(visit.request, conditions);
        let requested_at = self.host.clock.now();
        let (mut head, body) = self.origin.send(&forwarded, upload, self.site.policy.timeout_seconds).await?;
        let received_at = self.host.clock.now();
        complete_date(&mut head.headers, received_at);
        Ok(Arrived { forwarded, head, body, requested_at, received_at })
    }

    /// What is stored instead, if it may be; otherwise those who wait for this request are told that it failed.
    pub(super) fn unreached(&self, visit: &mut Visit<'_>, unreached: Unreached) -> Outcome<O> {
        let cannot_validate = match self.instead_of(visit, OriginFailure::Unreachable) {
            Ok(reply) => return Ok(reply),
            Err(on_error) => on_error == OnError::CannotValidate,
        };
        if let Some(lead) = &mut visit.lead {
            lead.will_land_with(Landed::Failed(unreached));
        }
        // Of a timeout the client is told as such.
        let failure = match unreached {
            Unreached::Failed if cannot_validate => Failure::CannotValidate,
            _ => Failure::Unreached(unreached),
        };
        Err(Unanswered { unreached, failure, why: visit.why, detail: visit.detail })
    }

    /// What is stored, if it may replace this failure (RFC 5861 §4, RFC 9111 §4.2.4).
    fn instead_of(&self, visit: &Visit<'_>, error: OriginFailure) -> Result<Reply<O>, OnError> {
        let now = self.host.clock.now();
        let entry = visit.fallback.as_ref().ok_or(OnError::PassOn)?;
        match on_origin_error(visit.request, entry, error, &self.site.policy, now) {
            OnError::ServeStored => {}
            otherwise => return Err(otherwise),
        }
        if let Some(mut slot) = self.isolate.slot(visit.key.as_str()) {
            slot.origin_failed_at = Some(now);
            self.isolate.keep(visit.key.as_str(), slot);
        }
        let life = Freshness::of(entry, &self.site.policy, now);
        let (forwarded_status, detail) = match error {
            OriginFailure::Status(status) => (Some(status), "stale-if-error"),
            OriginFailure::Unreachable => (None, "origin-unreachable"),
        };
        let status = CacheStatus {
            forwarded: Some(visit.why),
            forwarded_status,
            detail: Some(detail.to_owned()),
            collapsed: visit.collapsed,
            ..CacheStatus::default()
        };
        let mut reply = from_entry(visit.request, entry, &life, status);
        // Fresh or not: the client gets an older one than it asked for.
        reply.word = CacheWord::Stale;
        Ok(reply)
    }

    /// Takes an answer that is more than "still right". `hidden`: the origin never saw the client's conditions and range.
    async fn take(&self, mut visit: Visit<'_>, arrived: Arrived<O::Body>, hidden: bool) -> Outcome<O> {
        if let Ok(reply) = self.instead_of(&visit, OriginFailure::Status(arrived.head.status)) {
            return Ok(reply);
        }
        let draft = if visit.request.is_head() || !visit.may_store {
            None
        } else {
            match decide_store(arrived.exchange(), &self.site.policy) {
                Ok(draft) => Some(draft),
                Err(refusal) => {
                    self.refused(&mut visit, refusal, arrived.head.status);
                    None
                }
            }
        };
        if visit.invalidates {
            self.invalidate(&arrived, draft.is_some().then_some(visit.key));
        }
        if visit.request.is_head() {
            self.learn_from_head(&visit, arrived.exchange());
        }
        match draft {
            Some(draft) if !self.is_too_large(visit.key, draft.expected_length()) => {
                self.take_and_store(visit, arrived, draft, hidden).await
            }
            Some(_) => {
                self.too_large(&mut visit);
                Ok(pass(&visit, arrived))
            }
            None => Ok(pass(&visit, arrived)),
        }
    }

    /// What an answer that may not be stored means for the next request, and for what it was to replace.
    fn refused(&self, visit: &mut Visit<'_>, refusal: Refusal, status: u16) {
        visit.detail = Some(refusal.token());
        if status >= 500 {
            // Those who wait may have more luck, one of them at a time.
            if let Some(lead) = &mut visit.lead {
                lead.will_land_with(Landed::Erred);
            }
            return;
        }
        let is_answer = if refusal == Refusal::Authorization { status < 400 } else { !refusal.is_of_request() };
        if is_answer && !PASSING_STATUSES.contains(&status) {
            self.supersede(visit);
        }
        if !refusal.is_of_request() {
            self.remember_unstorable(visit.key, Unstorable::Refused);
        }
    }

    fn too_large(&self, visit: &mut Visit<'_>) {
        self.supersede(visit);
        self.remember_unstorable(visit.key, Unstorable::TooLarge);
        visit.detail = Some("too-large");
    }

    /// The origin has answered otherwise than with what is stored and stale (RFC 9111 §4.3.3), so that must not stand for it
    /// any more. What is fresh stays: a client that asks past it decides nothing for others.
    fn supersede(&self, visit: &Visit<'_>) {
        if let Some(entry) = visit.fallback.as_ref().filter(|entry| !self.life(entry).is_fresh()) {
            self.withdraw(visit.key, entry);
        }
    }

    async fn take_and_store(
        &self,
        mut visit: Visit<'_>,
        arrived: Arrived<O::Body>,
        draft: Draft,
        hidden: bool,
    ) -> Outcome<O> {
        let length = draft.expected_length();
        // Whoever may need another answer once the body is known waits for it: conditions to evaluate, a broken body to
        // replace, a refresh that nobody reads. Short ones are cheaper that way too.
        let short = length.is_some_and(|length| length <= GATHERED_BYTES_MAX);
        if !short && !hidden && visit.fallback.is_none() {
            return Ok(self.copy_and_store(visit, arrived, draft));
        }
        let Arrived { head, body, .. } = arrived;
        // What is empty is not read: as coded content it would be broken.
        let gathered =
            if length == Some(0) { Ok(Gathered::Whole(Vec::new())) } else { body.gather(BODY_BYTES_MAX).await };
        match gathered {
            Ok(Gathered::Whole(bytes)) => match draft.finish(Rc::from(bytes)) {
                Ok(entry) => {
                    let entry = Rc::new(entry);
                    self.keep(visit.key, &entry, true);
                    Ok(self.reply_stored(&visit, &head, &entry, hidden))
                }
                Err(_) => self.unreached(&mut visit, Unreached::Failed),
            },
            Ok(Gathered::TooLarge(stream)) => {
                self.too_large(&mut visit);
                Ok(passed(&visit, head, Payload::Stream(stream), false))
            }
            Err(unreached) => self.unreached(&mut visit, unreached),
        }
    }

    /// The client's answer to what was just stored.
    fn reply_stored(&self, visit: &Visit<'_>, head: &ResponseHead, entry: &Entry, hidden: bool) -> Reply<O> {
        if hidden && asks_for_more(visit.request) {
            let status = CacheStatus {
                forwarded: Some(visit.why),
                forwarded_status: Some(head.status),
                stored: true,
                collapsed: visit.collapsed,
                ..CacheStatus::default()
            };
            let mut reply = from_entry(visit.request, entry, &self.life(entry), status);
            if self.site.policy.set_cookie == SetCookie::Strip {
                append_cookies(&mut reply.headers, &head.headers);
            }
            reply.word = CacheWord::Miss;
            return reply;
        }
        let body = Rc::clone(&entry.stored().body);
        let whole = 0..body.len();
        passed(visit, head.clone(), Payload::Held(body, whole), true)
    }

    /// Streams the body to the client and stores it when it is complete, before the client sees its end. The flight lands
    /// then too, so that whoever waits finds it stored.
    fn copy_and_store(&self, mut visit: Visit<'_>, arrived: Arrived<O::Body>, draft: Draft) -> Reply<O> {
        let (gateway, key) = (self.clone(), visit.key.clone());
        let length = draft.expected_length();
        let Arrived { head, body, .. } = arrived;
        let mut lead = visit.lead.take();
        if let Some(lead) = &lead {
            lead.makes_progress();
        }
        let stream = body.copy(BODY_BYTES_MAX, length, move |copied| {
            let whole = match copied {
                Copied::Whole(bytes) => draft.finish(Rc::from(bytes)).ok(),
                Copied::TooLarge => return gateway.remember_unstorable(&key, Unstorable::TooLarge),
                Copied::CutOff => None,
            };
            match (whole, &mut lead) {
                (Some(entry), _) => gateway.keep(&key, &Rc::new(entry), true),
                (None, Some(lead)) => lead.will_land_with(Landed::Failed(Unreached::Failed)),
                (None, None) => {}
            }
        });
        passed(&visit, head, Payload::Stream(stream), true)
    }
}
