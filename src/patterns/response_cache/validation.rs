//! Conditional requests: the ones this cache sends (RFC 9111 §4.3.1), what a 304 or a `HEAD` changes (§4.3.4, §4.3.5), and the
//! ones clients send, answered from what is stored (§4.3.2).

use std::rc::Rc;

use super::entry::{Entry, Stored};
use super::freshness::smoothed_cost;
use super::headers::{Headers, trim};
use super::policy::OriginPolicy;
use super::store_rule::{self, Refusal};
use super::{Exchange, RequestHead, ResponseHead, date, forward};

/// Fields a 304 never changes, since the stored bytes depend on them (RFC 9111 §3.2).
const NOT_UPDATED: [&str; 3] = ["content-length", "content-encoding", "content-range"];

/// The conditions to send for `entry`: both validators, so that an origin knowing only one can answer (RFC 9111 §4.3.1).
pub fn conditions(entry: &Entry) -> Vec<(&'static str, String)> {
    let mut conditions = Vec::new();
    if let Some(etag) = entry.etag() {
        conditions.push(("if-none-match", etag.to_owned()));
    }
    if let Some(modified) =
        entry.stored().headers.single("last-modified").filter(|_| entry.last_modified_seconds().is_some())
    {
        conditions.push(("if-modified-since", modified.to_owned()));
    }
    conditions
}

/// What a 304 made of a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshened {
    /// The response as it now is, to answer and to store.
    Stored(Rc<Entry>),
    /// To answer this request, but the stored one stays as it was: this exchange must not be shared.
    ThisRequestOnly(Rc<Entry>),
    /// To answer this request; the stored one must go, because the origin no longer allows storing it.
    Withdrawn(Rc<Entry>),
    /// The 304 is about another representation (RFC 9111 §4.3.4): ask again without conditions.
    Mismatch,
}

/// Takes the fields of a 304 into the stored response and keeps its body (RFC 9111 §3.2 and §4.3.4).
pub fn freshen(entry: &Entry, exchange: Exchange<'_>, policy: &OriginPolicy) -> Freshened {
    if !validates(entry, &exchange.response.headers, exchange) {
        return Freshened::Mismatch;
    }
    merge(entry, exchange, policy)
}

/// RFC 9111 §4.3.4: the tag of the 304 must be the stored one; without a tag, its `Last-Modified` must be; without either, the 304
/// is taken for what was asked about.
fn validates(entry: &Entry, answer: &Headers, exchange: Exchange<'_>) -> bool {
    if let (Some(new), Some(old)) = (answer.single("etag"), entry.etag()) {
        return same_weak_tag(new, old);
    }
    let modified = answer.single("last-modified").and_then(|text| date::parse(text, exchange.received_at));
    match (modified, entry.last_modified_seconds()) {
        (Some(new), Some(old)) => new == old,
        _ => true,
    }
}

fn merge(entry: &Entry, exchange: Exchange<'_>, policy: &OriginPolicy) -> Freshened {
    let old = entry.stored();
    let headers = merged(&old.headers, &exchange.response.headers, exchange);
    let response = ResponseHead { status: old.status, headers: headers.clone() };
    // The stored response was a GET's, whatever asked about it now; and it was stored without a range.
    let request = RequestHead { method: "GET".to_owned(), ..exchange.request.clone() };
    let cost_millis = smoothed_cost(old.cost_millis, exchange.received_at.millis_since(exchange.requested_at));
    let updated = Stored {
        headers,
        requested_at: exchange.requested_at,
        received_at: exchange.received_at,
        cost_millis,
        ..old.clone()
    };
    match store_rule::decide_store(Exchange { request: &request, response: &response, ..exchange }, policy) {
        Ok(draft) => match draft.finish(old.body.clone()) {
            Ok(stored) => Freshened::Stored(Rc::new(Entry::new(Stored { cost_millis, ..stored.stored().clone() }))),
            Err(_) => Freshened::Withdrawn(Rc::new(Entry::new(updated))),
        },
        Err(Refusal::Authorization | Refusal::RequestNoStore | Refusal::Personal | Refusal::SetCookie) => {
            Freshened::ThisRequestOnly(Rc::new(Entry::new(updated)))
        }
        Err(_) => Freshened::Withdrawn(Rc::new(Entry::new(updated))),
    }
}

/// Every field of the answer replaces the stored one of its name. `Age` belongs to one response, so the old one goes; a missing `Date` is
/// the time of arrival (RFC 9110 §6.6.1).
fn merged(stored: &Headers, answer: &Headers, exchange: Exchange<'_>) -> Headers {
    let mut fields = answer.clone();
    forward::strip_hop_by_hop(&mut fields);
    fields.retain(|name| !NOT_UPDATED.contains(&name));
    let mut merged = stored.clone();
    merged.retain(|name| name != "age" && name != "date" && !fields.contains(name));
    for (name, value) in fields.iter() {
        merged.append(name, value);
    }
    if !merged.contains("date") {
        merged.append("date", date::format(exchange.received_at));
    }
    merged
}

/// What a `HEAD` made of the stored `GET` response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// It is still right, and fresher.
    Freshened(Rc<Entry>),
    /// It is not what the origin has now, and must go.
    Outdated,
    /// The answer says nothing about it.
    Unrelated,
}

/// RFC 9111 §4.3.5: a 200 to a `HEAD` freshens the stored response if validators and length, where it has them, are the same.
pub fn update_from_head(entry: &Entry, exchange: Exchange<'_>, policy: &OriginPolicy) -> HeadUpdate {
    let answer = &exchange.response.headers;
    if exchange.response.status != 200 || entry.stored().status != 200 {
        return HeadUpdate::Unrelated;
    }
    let seconds = |text: &str| date::parse(text, exchange.received_at);
    let same_tag = answer.single("etag").is_none_or(|new| entry.etag() == Some(new));
    let same_date = answer.single("last-modified").is_none_or(|new| seconds(new) == entry.last_modified_seconds());
    let decodable = entry.stored().headers.contains("content-encoding");
    let length = entry.stored().body.len().to_string();
    let same_length = decodable || answer.single("content-length").is_none_or(|new| new == length);
    if !(same_tag && same_date && same_length) {
        return HeadUpdate::Outdated;
    }
    match merge(entry, exchange, policy) {
        Freshened::Stored(entry) => HeadUpdate::Freshened(entry),
        Freshened::Withdrawn(_) => HeadUpdate::Outdated,
        Freshened::ThisRequestOnly(_) | Freshened::Mismatch => HeadUpdate::Unrelated,
    }
}

/// Whether a client's own copy is as good as the stored response, so that a 304 answers it (RFC 9111 §4.3.2).
/// `If-None-Match` alone counts where both are present (RFC 9110 §13.2.2).
pub fn client_copy_is_current(request: &RequestHead, entry: &Entry) -> bool {
    if entry.stored().status != 200 && entry.stored().status != 206 {
        return false;
    }
    if request.headers.contains("if-none-match") {
        let mut lines = request.headers.values("if-none-match");
        return lines.any(|line| {
            line == "*" || entry.etag().is_some_and(|etag| entity_tags(line).any(|tag| same_weak_tag(tag, etag)))
        });
    }
    let now = entry.stored().received_at;
    let since = request.headers.single("if-modified-since").and_then(|text| date::parse(text, now));
    // Without a Last-Modified the response is as old as its Date (§4.3.2).
    since.is_some_and(|since| entry.last_modified_seconds().unwrap_or(entry.date_seconds()) <= since)
}

/// RFC 9110 §8.8.3.2, weak comparison: the same text, weak or not.
pub fn same_weak_tag(one: &str, other: &str) -> bool {
    opaque(one) == opaque(other)
}

/// RFC 9110 §8.8.3.2, strong comparison: the same text and neither weak.
pub fn same_strong_tag(one: &str, other: &str) -> bool {
    one == other && one.starts_with('"')
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The entity tags of a list. Commas may stand inside the quotes, where a backslash is a character like any other (RFC 9110 §8.8.3).
fn entity_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return None;
        }
        let quoted = opaque(rest).starts_with('"');
        let end = if quoted {
            rest.match_indices('"').nth(1).map_or(rest.len(), |(at, _)| at.saturating_add(1))
        } else {
            rest.find(',').unwrap_or(rest.len())
        };
        let (tag, behind) = rest.split_at_checked(end)?;
        rest = behind;
        Some(trim(tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9110_8_8_3_lists_of_entity_tags() {
        let tags = |list| entity_tags(list).collect::<Vec<_>>();
        assert_eq!(tags(r#""a", W/"b,c" ,,"d\""#), ["\"a\"", "W/\"b,c\"", "\"d\\\""]);
        assert_eq!(tags("abc, \"x\""), ["abc", "\"x\""]);
        assert_eq!(tags("\"open"), ["\"open"]);
        assert!(tags(" , ").is_empty());
    }

    #[test]
    fn rfc_9110_8_8_3_2_comparison() {
        assert!(
            same_weak_tag("W/\"1\"", "\"1\"") && same_weak_tag("W/\"1\"", "W/\"1\"") && same_weak_tag("\"1\"", "\"1\"")
        );
        assert!(!same_weak_tag("\"1\"", "\"2\"") && !same_weak_tag("w/\"1\"", "\"1\""));
        assert!(same_strong_tag("\"1\"", "\"1\""));
        assert!(!same_strong_tag("W/\"1\"", "W/\"1\"") && !same_strong_tag("W/\"1\"", "\"1\""));
    }
}
