//! The client's answer, from what is stored or from what the origin said.

use super::upstream::{Arrived, Visit};
use super::{Answer, Failure, Payload, Unanswered};
use crate::patterns::response_cache::entry::Entry;
use crate::patterns::response_cache::freshness::Freshness;
use crate::patterns::response_cache::headers::Headers;
use crate::patterns::response_cache::origin::{OriginBody, Unreached};
use crate::patterns::response_cache::reply::{self, Content};
use crate::patterns::response_cache::status::{CACHE_NAME, CacheStatus, CacheWord, Forwarded};
use crate::patterns::response_cache::{RequestHead, ResponseHead, forward};

pub(super) fn serve<T>(visit: &Visit<'_>, entry: &Entry, life: &Freshness) -> Answer<T> {
    let status = CacheStatus { collapsed: visit.collapsed, ..CacheStatus::default() };
    from_entry(visit.request, entry, life, status)
}

/// Whether the client set conditions or asked for a part.
pub(super) fn asks_for_more(request: &RequestHead) -> bool {
    ["if-none-match", "if-modified-since", "range"].iter().any(|name| request.headers.contains(name))
}

/// Whether a validation changed more than the dates.
pub(super) fn changed(old: &Entry, new: &Entry) -> bool {
    let essence = |entry: &Entry| {
        let mut headers = entry.stored().headers.clone();
        headers.retain(|name| name != "date" && name != "age");
        let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort_unstable();
        pairs
    };
    essence(old) != essence(new)
}

pub(super) fn append_cookies(headers: &mut Headers, from: &Headers) {
    for cookie in from.values("set-cookie") {
        headers.append("set-cookie", cookie);
    }
}

pub(super) fn from_entry<T>(
    request: &RequestHead,
    entry: &Entry,
    life: &Freshness,
    mut status: CacheStatus,
) -> Answer<T> {
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
pub(super) fn pass<T: OriginBody>(visit: &Visit<'_>, arrived: Arrived<T>) -> Answer<T::Stream> {
    let bodiless = visit.request.is_head() || matches!(arrived.head.status, 204 | 205 | 304);
    let payload = if bodiless { Payload::Nothing } else { Payload::Stream(arrived.body.pass()) };
    passed(visit, arrived.head, payload, false)
}

pub(super) fn passed<T>(visit: &Visit<'_>, head: ResponseHead, payload: Payload<T>, stored: bool) -> Answer<T> {
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
    let word = word(visit.why);
    Answer { status: head.status, headers, payload, word }
}

const fn word(why: Forwarded) -> CacheWord {
    match why {
        Forwarded::Bypass | Forwarded::Method => CacheWord::Bypass,
        _ => CacheWord::Miss,
    }
}

/// Nobody can answer.
pub(super) fn failed<T>(unanswered: &Unanswered) -> Answer<T> {
    let Unanswered { failure, why, detail, .. } = *unanswered;
    let status = if failure == Failure::Unreached(Unreached::Failed) { 502 } else { 504 };
    let mut headers = Headers::new();
    CacheStatus { forwarded: Some(why), detail: detail.map(str::to_owned), ..CacheStatus::default() }
        .append_to(&mut headers);
    Answer { status, headers, payload: Payload::Failed(failure), word: word(why) }
}

/// Nothing that is stored can answer, and the origin must not be asked: neither a hit nor forwarded (RFC 9211 §2).
pub(super) fn not_cached<T>() -> Answer<T> {
    let mut headers = Headers::new();
    headers.append("cache-status", CACHE_NAME);
    Answer { status: 504, headers, payload: Payload::Failed(Failure::OnlyIfCached), word: CacheWord::Miss }
}

/// The answer to a request that may go no further (RFC 9110 §7.6.2).
pub(super) fn final_recipient<T>(request: &RequestHead) -> Answer<T> {
    // A `TRACE` is not answered here: what it would show are fields that the client did not send (RFC 9110 §9.3.8).
    let status = if request.method == "OPTIONS" { 204 } else { 501 };
    let mut headers = Headers::new();
    headers.append("cache-status", CACHE_NAME);
    Answer { status, headers, payload: Payload::Nothing, word: CacheWord::Bypass }
}
