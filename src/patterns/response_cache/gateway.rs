//! The read-through cache: one request through isolate memory, then KV, then the origin, by the rules of this module.
//!
//! - **Reads before it creates**, which the store's contract warns of: a location that has just missed in KV may keep missing for
//!   half a minute, in isolates other than the one that filled the entry. That costs requests to the origin, never a wrong answer.
//! - **A KV failure is a miss**, and a write that fails is forgotten, as long as the origin or memory can answer.
//! - **An invalidation** is seen by this isolate at once, by other isolates and locations when their memory (`memorySeconds`) and their
//!   copy from KV (30 seconds or more) have run out.
//! - Cost: a hit from memory reads nothing, one from KV reads one key, a miss and a refresh write one, an unsafe request deletes one per URI.
//!
//! Limits: 8 MiB per body and per URI in KV; larger ones stream through. Rules are in the modules beside this one.

use std::ops::Range;
use std::rc::Rc;

use super::decision::{Decision, OnError, OriginFailure, decide_request, on_origin_error};
use super::entry::{Entry, Record};
use super::forward::{self, Conditions};
use super::freshness::Freshness;
use super::headers::Headers;
use super::isolate::{Isolate, Lead, Slot};
use super::origin::{CutOff, Gathered, Origin, OriginBody, Unreached};
use super::policy::SetCookie;
use super::reply::{self, Content};
use super::site::Site;
use super::status::{CacheStatus, CacheWord, Forwarded};
use super::store_rule::{Draft, decide_store};
use super::validation::{Freshened, HeadUpdate, freshen, update_from_head};
use super::{Exchange, RequestHead, ResponseHead, invalidation, purge};
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::kv::{Key, Read, Store, Write};
use crate::random::Random;

/// The largest body that is stored, and all bodies of one URI together, in bytes.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Up to this length a body is read before it is answered, in bytes; longer and unannounced ones are sent while they arrive.
const GATHERED_BYTES_MAX: u64 = 128 * 1024;
/// The longest a stored response stays in KV, in seconds (a year); purge marks last longer.
pub const RECORD_SECONDS_MAX: u64 = 31_536_000;
/// For how long an invalidation counts in this isolate, in seconds: KV may show the old copy for that long.
const INVALIDATED_SECONDS: u64 = 90;
/// For how long a failing origin is left alone while a stored response can answer, in seconds.
const FAILED_SECONDS: u64 = 5;
/// For how long beyond its use an entry with a validator stays in KV, in seconds: a 304 is cheaper than a body.
const VALIDATOR_SECONDS: u64 = 86_400;
/// For how long a request waits for the one that is asking the origin for the same, in milliseconds.
const WAIT_MILLIS: u64 = 5_000;

/// The body of an answer.
#[derive(Debug)]
pub enum Payload<T> {
    /// None.
    Nothing,
    /// These bytes of a stored body.
    Held(Rc<[u8]>, Range<usize>),
    /// Bytes that arrive while they are sent.
    Stream(T),
}

/// The answer to a client.
#[derive(Debug)]
pub struct Answer<T> {
    /// The status code.
    pub status: u16,
    /// Its fields, `Cache-Status` and `X-Cache` among them.
    pub headers: Headers,
    /// Its content.
    pub payload: Payload<T>,
    /// What the cache did.
    pub word: CacheWord,
}

/// The cache in front of one origin.
#[derive(Clone, Debug)]
pub struct Gateway<S, O, C, R, B> {
    /// Where responses are stored.
    pub store: S,
    /// Who is asked.
    pub origin: O,
    /// The time.
    pub clock: C,
    /// For early refresh.
    pub random: R,
    /// Where stores and refreshes go on after the answer.
    pub background: B,
    /// What this isolate remembers.
    pub isolate: Isolate,
    /// The origin's settings and keys.
    pub site: Rc<Site>,
}

type StreamOf<O> = <<O as Origin>::Body as OriginBody>::Stream;
type Reply<O> = Answer<StreamOf<O>>;

/// One request on its way to the origin.
struct Visit<'a> {
    request: &'a RequestHead,
    key: &'a Key,
    /// What is stored that may replace an error.
    fallback: Option<Rc<Entry>>,
    why: Forwarded,
    may_store: bool,
    invalidates: bool,
    lead: Option<Lead>,
    collapsed: bool,
    detail: Option<&'static str>,
}

/// The origin's answer before its body.
struct Arrived<B> {
    forwarded: RequestHead,
    head: ResponseHead,
    body: B,
    requested_at: Timestamp,
    received_at: Timestamp,
}

impl<B> Arrived<B> {
    fn exchange(&self) -> Exchange<'_> {
        Exchange {
            request: &self.forwarded,
            response: &self.head,
            requested_at: self.requested_at,
            received_at: self.received_at,
        }
    }
}

impl<S, O, C, R, B> Gateway<S, O, C, R, B>
where
    S: Store + Clone + 'static,
    O: Origin + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    B: Background + Clone + 'static,
{
    /// Answers a request for the origin. `upload` is its body; that of a `GET` or `HEAD` is dropped (RFC 9110 §9.3.1).
    pub async fn answer(&self, request: &RequestHead, upload: Option<O::Upload>) -> Reply<O> {
        let key = self.site.key(&request.target);
        let mut decision = self.decide(request, &key).await;
        let (mut lead, mut collapsed) = (None, false);
        if request.is_get() && matches!(decision, Decision::Revalidate(..) | Decision::Fetch(..)) {
            lead = self.lead(&key);
            if lead.is_none() && self.worth_waiting(&key) {
                self.isolate.wait(key.as_str(), &self.clock, WAIT_MILLIS).await;
                decision = self.decide(request, &key).await;
                collapsed = true;
            }
        }
        let mut visit = Visit {
            request,
            key: &key,
            fallback: None,
            why: Forwarded::UriMiss,
            may_store: true,
            invalidates: false,
            lead,
            collapsed,
            detail: None,
        };
        let mut reply = match decision {
            Decision::Serve(entry, life) => serve(&visit, &entry, &life),
            Decision::ServeAndRefresh(entry, life) => {
                let reply = serve(&visit, &entry, &life);
                self.refresh(&entry, request, &key);
                reply
            }
            Decision::Revalidate(entry, _, why) => {
                visit.why = why;
                self.revalidate(visit, entry).await
            }
            Decision::Fetch(fallback, why) => {
                visit.why = why;
                visit.fallback = fallback.map(|(entry, _)| entry);
                self.fetch(visit, Conditions::Clients, None).await
            }
            Decision::Forward { invalidates } => {
                visit.why = Forwarded::Method;
                visit.invalidates = invalidates;
                self.fetch(visit, Conditions::Clients, upload).await
            }
            Decision::Bypass(bypass) => {
                visit.why = Forwarded::Bypass;
                visit.may_store = false;
                visit.detail = Some(bypass.token());
                self.fetch(visit, Conditions::Clients, None).await
            }
            Decision::GatewayTimeout => failure(504, CacheWord::Miss),
        };
        reply.headers.append("x-cache", reply.word.as_str());
        reply
    }

    /// The decision over what is stored. KV is read only where it can make a difference.
    async fn decide(&self, request: &RequestHead, key: &Key) -> Decision {
        let now = self.clock.now();
        let unit = self.random.unit();
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
        self.spare_failing_origin(request, &slot, decide(&slot.record, self.clock.now()))
    }

    /// What KV has, remembered for the next time; what this isolate had before if KV does not answer.
    async fn read(&self, key: &Key, before: Option<Slot>) -> Slot {
        let found = self.store.get(key, Read::FRESHEST).await;
        let now = self.clock.now();
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

    /// Without the responses that a purge covers.
    async fn unpurged(&self, request: &RequestHead, slot: Slot) -> Slot {
        if slot.record.is_empty() || !self.site.is_purgeable() {
            return slot;
        }
        let tags = slot.record.entries().iter().flat_map(|entry| entry.stored().tags.iter().map(String::as_str));
        let now = self.clock.now();
        let (store, since) = (&self.store, slot.unpurged_at);
        match purge::purged_at(store, &self.isolate, &self.site, &request.target, tags, since, now).await {
            Some(at) if slot.record.entries().iter().any(|entry| entry.stored().received_at <= at) => {
                // Tags of all variants are looked at together: purging more than asked is a miss, less would be wrong.
                let record = slot.record.only(|entry| entry.stored().received_at > at);
                Slot { record: Rc::new(record), ..slot }
            }
            _ => slot,
        }
    }

    /// While the origin is known to fail, what may replace an error answers at once.
    fn spare_failing_origin(&self, request: &RequestHead, slot: &Slot, decision: Decision) -> Decision {
        let now = self.clock.now();
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

    fn lead(&self, key: &Key) -> Option<Lead> {
        let now = self.clock.now();
        self.isolate.lead(key.as_str(), now, now.plus_seconds(self.site.policy.timeout_seconds))
    }

    /// Not where the last answer could not be stored: then each request needs its own.
    fn worth_waiting(&self, key: &Key) -> bool {
        !self.isolate.slot(key.as_str()).is_some_and(|slot| slot.unstorable)
    }

    /// Asks the origin in the background, unless somebody is doing so already.
    fn refresh(&self, entry: &Rc<Entry>, request: &RequestHead, key: &Key) {
        let Some(lead) = self.lead(key) else { return };
        let (gateway, entry, key, request) =
            (self.clone(), Rc::clone(entry), key.clone(), forward::refresh_of(request));
        self.background.spawn(async move {
            let visit = Visit {
                request: &request,
                key: &key,
                fallback: Some(Rc::clone(&entry)),
                why: Forwarded::Stale,
                may_store: true,
                invalidates: false,
                lead: Some(lead),
                collapsed: false,
                detail: None,
            };
            let reply = if entry.has_validator() {
                gateway.revalidate(visit, entry).await
            } else {
                // Without the client's conditions the body is gathered: nobody reads a stream here.
                gateway.fetch(visit, Conditions::None, None).await
            };
            drop(reply);
        });
    }

    async fn revalidate(&self, mut visit: Visit<'_>, entry: Rc<Entry>) -> Reply<O> {
        visit.fallback = Some(Rc::clone(&entry));
        let arrived = match self.ask(&visit, Conditions::Validate(&entry), None).await {
            Ok(arrived) => arrived,
            Err(unreached) => return self.unreached(&visit, unreached),
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
        reply
    }

    async fn fetch(&self, visit: Visit<'_>, conditions: Conditions<'_>, upload: Option<O::Upload>) -> Reply<O> {
        let unconditional = matches!(conditions, Conditions::None);
        match self.ask(&visit, conditions, upload).await {
            Ok(arrived) => self.take(visit, arrived, unconditional).await,
            Err(unreached) => self.unreached(&visit, unreached),
        }
    }

    async fn ask(
        &self,
        visit: &Visit<'_>,
        conditions: Conditions<'_>,
        upload: Option<O::Upload>,
    ) -> Result<Arrived<O::Body>, Unreached> {
        let forwarded = forward::to_origin(visit.request, conditions);
        let requested_at = self.clock.now();
        let (head, body) = self.origin.send(&forwarded, upload, self.site.policy.timeout_seconds).await?;
        Ok(Arrived { forwarded, head, body, requested_at, received_at: self.clock.now() })
    }

    fn unreached(&self, visit: &Visit<'_>, unreached: Unreached) -> Reply<O> {
        if let Some(reply) = self.instead_of(visit, OriginFailure::Unreachable) {
            return reply;
        }
        failure(if unreached == Unreached::TimedOut { 504 } else { 502 }, CacheWord::Miss)
    }

    /// What is stored, if it may replace this failure (RFC 5861 §4, RFC 9111 §4.2.4).
    fn instead_of(&self, visit: &Visit<'_>, error: OriginFailure) -> Option<Reply<O>> {
        let now = self.clock.now();
        let entry = visit.fallback.as_ref()?;
        if on_origin_error(visit.request, entry, error, &self.site.policy, now) != OnError::ServeStored {
            return None;
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
        Some(reply)
    }

    /// Takes an answer that is more than "still right". `hidden`: the origin never saw the client's conditions and range.
    async fn take(&self, mut visit: Visit<'_>, arrived: Arrived<O::Body>, hidden: bool) -> Reply<O> {
        if let Some(reply) = self.instead_of(&visit, OriginFailure::Status(arrived.head.status)) {
            return reply;
        }
        let draft = if visit.request.is_head() || !visit.may_store {
            None
        } else {
            match decide_store(arrived.exchange(), &self.site.policy) {
                Ok(draft) => Some(draft),
                Err(refusal) => {
                    visit.detail = Some(refusal.token());
                    if !refusal.is_of_request() {
                        self.remember_unstorable(visit.key);
                    }
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
            Some(draft) if draft.expected_length().is_none_or(|length| length <= BODY_BYTES_MAX as u64) => {
                self.take_and_store(visit, arrived, draft, hidden).await
            }
            Some(_) => {
                visit.detail = Some("too-large");
                pass(&visit, arrived)
            }
            None => pass(&visit, arrived),
        }
    }

    async fn take_and_store(
        &self,
        visit: Visit<'_>,
        arrived: Arrived<O::Body>,
        draft: Draft,
        hidden: bool,
    ) -> Reply<O> {
        let length = draft.expected_length();
        // Whoever may need another answer once the body is known waits for it: conditions to evaluate, a broken body to
        // replace, a refresh that nobody reads. Short ones are cheaper that way too.
        let short = length.is_some_and(|length| length <= GATHERED_BYTES_MAX);
        if !short && !hidden && visit.fallback.is_none() {
            return self.copy_and_store(visit, arrived, draft);
        }
        let Arrived { head, body, .. } = arrived;
        match body.gather(BODY_BYTES_MAX).await {
            Ok(Gathered::Whole(bytes)) => match draft.finish(Rc::from(bytes)) {
                Ok(entry) => {
                    let entry = Rc::new(entry);
                    self.keep(visit.key, &entry, true);
                    self.reply_stored(&visit, &head, &entry, hidden)
                }
                Err(_) => self.cut_off(&visit),
            },
            Ok(Gathered::TooLarge(stream)) => {
                self.remember_unstorable(visit.key);
                let visit = Visit { detail: Some("too-large"), ..visit };
                passed(&visit, head, Payload::Stream(stream), false)
            }
            Err(CutOff) => self.cut_off(&visit),
        }
    }

    fn cut_off(&self, visit: &Visit<'_>) -> Reply<O> {
        self.unreached(visit, Unreached::Failed)
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

    /// Streams the body to the client and stores it when it is complete, before the client sees its end.
    fn copy_and_store(&self, visit: Visit<'_>, arrived: Arrived<O::Body>, draft: Draft) -> Reply<O> {
        let (gateway, key) = (self.clone(), visit.key.clone());
        let length = draft.expected_length();
        let Arrived { head, body, .. } = arrived;
        let mut visit = visit;
        let lead = visit.lead.take();
        let stream = body.copy(BODY_BYTES_MAX, length, move |bytes| {
            let entry = bytes.and_then(|bytes| draft.finish(Rc::from(bytes)).ok());
            match entry {
                Some(entry) => gateway.keep(&key, &Rc::new(entry), true),
                None => gateway.remember_unstorable(&key),
            }
            drop(lead);
        });
        passed(&visit, head, Payload::Stream(stream), true)
    }

    fn life(&self, entry: &Entry) -> Freshness {
        Freshness::of(entry, &self.site.policy, self.clock.now())
    }

    /// Remembers an entry, and writes it to KV in the background if that is `worth_writing`.
    fn keep(&self, key: &Key, entry: &Rc<Entry>, worth_writing: bool) {
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
        slot.unstorable = false;
        self.settle(key, slot, worth_writing);
    }

    fn withdraw(&self, key: &Key, entry: &Entry) {
        let mut slot = self.isolate.slot(key.as_str()).unwrap_or_default();
        slot.record = Rc::new(slot.record.without(entry));
        self.settle(key, slot, true);
    }

    fn settle(&self, key: &Key, mut slot: Slot, worth_writing: bool) {
        let now = self.clock.now();
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
        self.background.spawn(async move {
            // A write that fails leaves the older copy, which has its own freshness; the next fill tries again.
            let outcome = if record.is_empty() {
                store.delete(&key).await
            } else {
                store.put(&key, &record.encode(), write).await
            };
            drop(outcome);
        });
    }

    fn remember_unstorable(&self, key: &Key) {
        let mut slot = self.isolate.slot(key.as_str()).unwrap_or_default();
        if slot.record.is_empty() {
            slot.unstorable = true;
            slot.kept_until = self.clock.now().plus_seconds(self.site.policy.memory_seconds).max(slot.kept_until);
            self.isolate.keep(key.as_str(), slot);
        }
    }

    /// Forgets what a successful unsafe request made wrong (RFC 9111 §4.4); `replaced` is about to be written anew.
    fn invalidate<T>(&self, arrived: &Arrived<T>, replaced: Option<&Key>) {
        for target in invalidation::targets(&arrived.forwarded, &arrived.head) {
            let key = self.site.key(&target);
            let now = self.clock.now();
            let kept_until = now.plus_seconds(INVALIDATED_SECONDS);
            // What was asked for before the change took effect is as wrong as what is stored.
            let not_before = if replaced == Some(&key) { arrived.requested_at } else { arrived.received_at };
            self.isolate.keep(key.as_str(), Slot { kept_until, not_before, ..Slot::default() });
            if replaced != Some(&key) {
                let store = self.store.clone();
                self.background.spawn(async move { drop(store.delete(&key).await) });
            }
        }
    }

    /// RFC 9111 §4.3.5
    fn learn_from_head(&self, visit: &Visit<'_>, exchange: Exchange<'_>) {
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

fn serve<T>(visit: &Visit<'_>, entry: &Entry, life: &Freshness) -> Answer<T> {
    let status = CacheStatus { collapsed: visit.collapsed, ..CacheStatus::default() };
    from_entry(visit.request, entry, life, status)
}

/// Whether the client set conditions or asked for a part.
fn asks_for_more(request: &RequestHead) -> bool {
    ["if-none-match", "if-modified-since", "range"].iter().any(|name| request.headers.contains(name))
}

/// Whether a validation changed more than the dates.
fn changed(old: &Entry, new: &Entry) -> bool {
    let essence = |entry: &Entry| {
        let mut headers = entry.stored().headers.clone();
        headers.retain(|name| name != "date" && name != "age");
        let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort_unstable();
        pairs
    };
    essence(old) != essence(new)
}

fn append_cookies(headers: &mut Headers, from: &Headers) {
    for cookie in from.values("set-cookie") {
        headers.append("set-cookie", cookie);
    }
}

fn from_entry<T>(request: &RequestHead, entry: &Entry, life: &Freshness, mut status: CacheStatus) -> Answer<T> {
    let reply = reply::from_entry(entry, request, life);
    status.ttl_seconds = Some(life.ttl_seconds());
    let mut headers = reply.headers;
    status.append_to(&mut headers);
    let payload = match reply.content {
        Content::Nothing => Payload::Nothing,
        Content::Bytes(body, range) => Payload::Held(body, range),
    };
    let word = if life.is_fresh() { CacheWord::Hit } else { CacheWord::Stale };
    Answer { status: reply.status, headers, payload, word }
}

/// The origin's answer as it came.
fn pass<T: OriginBody>(visit: &Visit<'_>, arrived: Arrived<T>) -> Answer<T::Stream> {
    let bodiless = visit.request.is_head() || matches!(arrived.head.status, 204 | 205 | 304);
    let payload = if bodiless { Payload::Nothing } else { Payload::Stream(arrived.body.pass()) };
    passed(visit, arrived.head, payload, false)
}

fn passed<T>(visit: &Visit<'_>, head: ResponseHead, payload: Payload<T>, stored: bool) -> Answer<T> {
    let mut headers = head.headers;
    forward::strip_response(&mut headers);
    let status = CacheStatus {
        forwarded: Some(visit.why),
        forwarded_status: Some(head.status),
        stored,
        collapsed: visit.collapsed,
        detail: visit.detail.map(str::to_owned),
        ..CacheStatus::default()
    };
    status.append_to(&mut headers);
    let bypassed = matches!(visit.why, Forwarded::Bypass | Forwarded::Method);
    let word = if bypassed { CacheWord::Bypass } else { CacheWord::Miss };
    Answer { status: head.status, headers, payload, word }
}

fn failure<T>(status: u16, word: CacheWord) -> Answer<T> {
    Answer { status, headers: Headers::new(), payload: Payload::Nothing, word }
}
