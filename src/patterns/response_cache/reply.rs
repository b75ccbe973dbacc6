//! The client's answer built from a stored response: age, conditions, ranges, `HEAD` (RFC 9111 §4, RFC 9110 §13 to §15).

use std::ops::Range;
use std::rc::Rc;

use super::RequestHead;
use super::entry::Entry;
use super::forward;
use super::freshness::Freshness;
use super::headers::Headers;
use super::range::{Cut, cut};
use super::validation::client_copy_is_current;

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// None.
    Nothing,
    /// These bytes of a stored body.
    Bytes(Rc<[u8]>, Range<usize>),
}

impl Content {
    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Bytes(body, range) => body.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// An answer for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Its header fields, `Age` among them; `Cache-Status` is the caller's.
    pub headers: Headers,
    /// Its content.
    pub content: Content,
}

/// Fields that describe content a 304 does not have (RFC 9110 §15.4.5).
const CONTENT_FIELDS: [&str; 7] = [
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
];

/// The answer to `request` from `entry`, whose life at this moment is `freshness`.
///
/// Order of conditions: RFC 9110 §13.2.2. A stored response's `Date` stays as it was; `Age` is always sent (RFC 9111 §5.1).
pub fn from_entry(entry: &Entry, request: &RequestHead, freshness: &Freshness) -> Reply {
    let stored = entry.stored();
    let mut headers = stored.headers.clone();
    forward::strip_response(&mut headers);
    headers.set("age", freshness.age_seconds().to_string());
    if (request.is_get() || request.is_head()) && client_copy_is_current(request, entry) {
        headers.retain(|name| !CONTENT_FIELDS.contains(&name));
        return Reply { status: 304, headers, content: Content::Nothing };
    }
    let whole = 0..stored.body.len();
    match cut(request, entry) {
        _ if request.is_head() => Reply { status: stored.status, headers, content: Content::Nothing },
        Cut::Bytes { first, last, complete_length } => {
            headers.set("content-range", format!("bytes {first}-{last}/{complete_length}"));
            headers.set("content-length", last.saturating_sub(first).saturating_add(1).to_string());
            let content = Content::Bytes(stored.body.clone(), held_range(entry, first, last));
            Reply { status: 206, headers, content }
        }
        Cut::Unsatisfiable { complete_length } => {
            headers.retain(|name| !CONTENT_FIELDS.contains(&name));
            headers.set("content-range", format!("bytes */{complete_length}"));
            Reply { status: 416, headers, content: Content::Nothing }
        }
        Cut::Whole | Cut::NotHeld => {
            Reply { status: stored.status, headers, content: Content::Bytes(stored.body.clone(), whole) }
        }
    }
}

/// Positions of the representation as positions of the stored bytes.
fn held_range(entry: &Entry, first: u64, last: u64) -> Range<usize> {
    let offset = entry.stored().part.map_or(0, |part| part.first);
    let index = |position: u64| usize::try_from(position.saturating_sub(offset)).unwrap_or(usize::MAX);
    index(first)..index(last).saturating_add(1)
}
