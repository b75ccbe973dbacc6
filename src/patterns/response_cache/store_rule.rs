//! Whether a response may be stored by a shared cache (RFC 9111 §3), and what of it.

use std::rc::Rc;

use super::controls::{ResponseControls, Scope};
use super::entry::{self, Entry, Part, Stored};
use super::freshness::{Freshness, is_heuristically_cacheable};
use super::headers::Headers;
use super::policy::{OriginPolicy, SetCookie};
use super::vary::{Selector, Unselectable};
use super::{Exchange, date, directives::RequestDirectives, forward, guard, range};
use crate::clock::Timestamp;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only `GET`, and `POST` with a lifetime and its own `Content-Location`, give responses to store (RFC 9110 §9.3).
    Method,
    /// The status is not final, or answers one request alone: 206 without a usable range, 304, 412, 416, and 428, 429, 431, 511
    /// (RFC 6585 §3 to §6).
    Status,
    /// The request said `no-store` (RFC 9111 §5.2.1.5).
    RequestNoStore,
    /// The response said `no-store` (RFC 9111 §5.2.2.5).
    NoStore,
    /// `must-understand`, and the status is not known here (RFC 9111 §5.2.2.3).
    NotUnderstood,
    /// `private` (RFC 9111 §5.2.2.7).
    Private,
    /// The request carried `Authorization`, and nothing allows sharing the answer (RFC 9111 §3.5).
    Authorization,
    /// It sets a cookie, and the operator does not want such responses stored.
    SetCookie,
    /// `Vary: *` (RFC 9111 §4.1).
    VaryStar,
    /// It varies by too much to be worth storing.
    TooVarious,
    /// Nothing allows it: no lifetime, not `public`, and not a status with heuristic freshness (RFC 9111 §3).
    NoPermission,
    /// It states no lifetime and the request carried a cookie, so it may be one user's.
    Personal,
    /// It states no lifetime and is not what its name says (web cache deception).
    Disguised,
    /// It could hardly be used: no lifetime at all, no validator, and no window to serve it stale.
    Useless,
    /// The body is not as long as announced.
    Truncated,
    /// The header section is too large.
    HeadersTooLarge,
}

impl Refusal {
    /// A token for `Cache-Status: detail` and counters.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::NotUnderstood => "not-understood",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::TooVarious => "vary",
            Self::NoPermission => "no-lifetime",
            Self::Personal => "cookie",
            Self::Disguised => "disguised",
            Self::Useless => "useless",
            Self::Truncated => "truncated",
            Self::HeadersTooLarge => "headers-too-large",
        }
    }
}

impl Refusal {
    /// Whether it lies in this request alone, so that the answer to the next one may well be stored.
    pub const fn is_of_request(self) -> bool {
        matches!(self, Self::Method | Self::Status | Self::RequestNoStore | Self::Authorization | Self::Personal)
    }
}

/// A response that may be stored once its body is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    stored: Stored,
    expected_length: Option<u64>,
}

impl Draft {
    /// The entry with its body.
    ///
    /// # Errors
    /// [`Refusal::Truncated`] if the body is not as long as announced: an incomplete response must not pass for a
    /// complete one (RFC 9111 §3.3).
    pub fn finish(mut self, body: Rc<[u8]>) -> Result<Entry, Refusal> {
        if self.expected_length.is_some_and(|expected| expected != body.len() as u64) {
            return Err(Refusal::Truncated);
        }
        self.stored.body = body;
        Ok(Entry::new(self.stored))
    }

    /// The length the body must have, if it is known.
    pub const fn expected_length(&self) -> Option<u64> {
        self.expected_length
    }
}

/// Whether the response may be stored.
///
/// # Errors
/// The first [`Refusal`] that applies.
pub fn decide_store(exchange: Exchange<'_>, policy: &OriginPolicy) -> Result<Draft, Refusal> {
    let headers = &exchange.response.headers;
    let controls = ResponseControls::read(headers);
    check_method_and_status(&exchange)?;
    check_directives(&exchange, &controls, policy)?;
    let draft = draft(&exchange, &controls, policy)?;
    // Freshness needs no body.
    let entry = Entry::new(draft.stored.clone());
    check_lifetime(&exchange, &entry, policy)?;
    Ok(draft)
}

fn check_method_and_status(exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let (request, response) = (exchange.request, exchange.response);
    let ranged = request.headers.contains("range");
    match request.method.as_str() {
        "GET" => {}
        // RFC 9110 §9.3.3: the response to a POST can answer a later GET if it names the same URI as its content's.
        "POST" if response.status == 200 => {
            let location = response.headers.single("content-location");
            let own = location.and_then(|reference| request.target.resolve(reference));
            if own.as_ref() != Some(&request.target) {
                return Err(Refusal::Method);
            }
        }
        _ => return Err(Refusal::Method),
    }
    match response.status {
        // Part of a coded content cannot be decoded, which the platform does as soon as it is read.
        206 if response.headers.contains("content-encoding") => Err(Refusal::Status),
        206 if ranged && range::content_range(&response.headers).is_some() => Ok(()),
        206 | 304 | 412 | 416 | 428 | 429 | 431 | 511 => Err(Refusal::Status),
        // An answer to a range request that is neither the part nor the whole is about the range.
        200 => Ok(()),
        201..=599 if !ranged => Ok(()),
        _ => Err(Refusal::Status),
    }
}

fn check_directives(
    exchange: &Exchange<'_>,
    controls: &ResponseControls,
    policy: &OriginPolicy,
) -> Result<(), Refusal> {
    let request = &exchange.request.headers;
    if policy.respect_request_directives && RequestDirectives::read(request).no_store {
        return Err(Refusal::RequestNoStore);
    }
    // §5.2.2.3: with must-understand, knowing the status takes the place of obeying no-store.
    if controls.must_understand {
        if !is_understood(exchange.response.status) {
            return Err(Refusal::NotUnderstood);
        }
    } else if controls.no_store {
        return Err(Refusal::NoStore);
    }
    if controls.private == Scope::Response {
        return Err(Refusal::Private);
    }
    let shareable = controls.public || controls.must_revalidate || controls.s_maxage_seconds.is_some();
    if request.contains("authorization") && !shareable {
        return Err(Refusal::Authorization);
    }
    Ok(())
}

/// What would be stored: without the fields of one connection, those withheld by `no-cache="…"` and `private="…"`, and cookies
/// if the operator wants them stripped (RFC 9111 §3.1, §5.2.2.4, §5.2.2.7).
fn draft(exchange: &Exchange<'_>, controls: &ResponseControls, policy: &OriginPolicy) -> Result<Draft, Refusal> {
    let response = exchange.response;
    response.headers.check_size().map_err(|_| Refusal::HeadersTooLarge)?;
    let mut headers = response.headers.clone();
    forward::strip_hop_by_hop(&mut headers);
    let withheld = |name: &str| {
        [&controls.no_cache, &controls.private].iter().any(|scope| scope.fields().iter().any(|field| field == name))
    };
    headers.retain(|name| !withheld(name));
    if headers.contains("set-cookie") {
        match policy.set_cookie {
            SetCookie::Refuse => return Err(Refusal::SetCookie),
            SetCookie::Strip => headers.remove("set-cookie"),
            SetCookie::Store => {}
        }
    }
    let selector = Selector::of(&exchange.request.headers, &response.headers).map_err(|reason| match reason {
        Unselectable::Star => Refusal::VaryStar,
        Unselectable::TooVarious => Refusal::TooVarious,
    })?;
    complete_date(&mut headers, exchange.received_at);
    let (status, part, expected_length) = extent(response.status, &mut headers);
    let cost_millis = exchange.received_at.millis_since(exchange.requested_at);
    let tags = entry::tags(&policy.tags, &headers);
    let (requested_at, received_at) = (exchange.requested_at, exchange.received_at);
    let body = Rc::from([]);
    let stored = Stored { status, headers, requested_at, received_at, cost_millis, selector, part, tags, body };
    Ok(Draft { stored, expected_length })
}

/// RFC 9110 §6.6.1: a recipient with a clock records the time of arrival where a valid `Date` is missing.
pub fn complete_date(headers: &mut Headers, received_at: Timestamp) {
    let valid = headers.single("date").and_then(|text| date::parse(text, received_at)).is_some();
    if !valid {
        headers.set("date", date::format(received_at));
    }
}

/// Status, part and expected body length. A part that is everything is stored as the whole (RFC 9111 §3.3 and §3.4).
fn extent(status: u16, headers: &mut Headers) -> (u16, Option<Part>, Option<u64>) {
    let ranged = if status == 206 { range::content_range(headers) } else { None };
    let Some((first, last, complete_length)) = ranged else {
        // The platform may have decoded the content, and then its length says nothing, unless there is none.
        let counts = |length: &&str| *length == "0" || !headers.contains("content-encoding");
        let announced = headers.single("content-length").filter(counts);
        let expected = announced.and_then(|text| text.parse().ok());
        return (status, None, expected);
    };
    headers.remove("content-range");
    headers.remove("content-length");
    let length = last.saturating_sub(first).saturating_add(1);
    if length == complete_length {
        return (200, None, Some(length));
    }
    (206, Some(Part { first, complete_length }), Some(length))
}

fn check_lifetime(exchange: &Exchange<'_>, entry: &Entry, policy: &OriginPolicy) -> Result<(), Refusal> {
    let controls = entry.controls();
    let explicit = policy.respect_cache_control && entry.has_explicit_lifetime();
    if !explicit {
        // RFC 9110 §9.3.3: a POST needs a lifetime of its own.
        if !exchange.request.is_get() {
            return Err(Refusal::Method);
        }
        if !controls.public && !is_heuristically_cacheable(entry.stored().status) {
            return Err(Refusal::NoPermission);
        }
        if !controls.public && exchange.request.headers.contains("cookie") {
            return Err(Refusal::Personal);
        }
        if policy.guard_paths && guard::disguised(&exchange.request.target, &exchange.response.headers) {
            return Err(Refusal::Disguised);
        }
    }
    let freshness = Freshness::of(entry, policy, exchange.received_at);
    let must_validate = policy.respect_cache_control && controls.no_cache == Scope::Response;
    // What arrives too old for its lifetime can still answer a client that accepts stale, or replace an error.
    let stale_use = !freshness.forbids_stale
        && (freshness.lifetime_millis > 0
            || controls.stale_while_revalidate_seconds.is_some()
            || controls.stale_if_error_seconds.is_some());
    if (freshness.is_fresh() && !must_validate) || entry.has_validator() || stale_use {
        return Ok(());
    }
    Err(Refusal::Useless)
}

/// The statuses whose caching this code knows (RFC 9110 §15; RFC 9111 §3 "understands").
const fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=204 | 206 | 300..=303 | 307 | 308 | 400..=406 | 408..=411 | 413..=415 | 417 | 421 | 422 | 451 | 500..=505
    )
}
