//! The rules of a shared HTTP cache as pure functions: what may be stored, for how long, and what answers a request.
//!
//! RFC 9111 (caching), RFC 5861 (stale content), RFC 9211 (`Cache-Status`), RFC 9213 (targeted fields), and the parts of RFC 9110
//! a cache needs (conditional and range requests, hop-by-hop fields). Each rule names its section beside the code.
//! Only [`gateway`], [`purge`] and [`origins`] do I/O, generic over store, origin, clock and randomness. Everything else gets the time
//! and a random number and returns an enum named for the world. What the gateway does with one request, in this order:
//!
//! 1. [`guard::suspicious`] and [`decision::decide_request`] over the stored [`entry::Record`];
//! 2. if the origin is asked: [`forward::to_origin`] builds its request;
//! 3. [`store_rule::decide_store`], [`validation::freshen`], [`validation::update_from_head`] or [`decision::on_origin_error`] take its answer;
//! 4. [`reply::from_entry`] builds the client's answer, [`invalidation::targets`] says what an unsafe method made wrong.
//!
//! Limits: a stored response is one record per URI with at most 8 variants. Left out, with the reason: `multipart/byteranges`
//! (several ranges are answered by the whole representation, RFC 9110 §14.2 allows it), completing a stored part by asking for the
//! rest (§3.4 needs a strong validator on both, and one full fetch is simpler), `Warning` and `Pragma` (RFC 9111 §5.4 and §5.5 retired
//! them), `no-transform` (this cache transforms nothing).

pub mod address;
pub mod controls;
pub mod date;
pub mod decision;
pub mod directives;
pub mod entry;
pub mod forward;
pub mod freshness;
pub mod gateway;
pub mod guard;
pub mod headers;
pub mod invalidation;
pub mod isolate;
pub mod key;
pub mod origin;
pub mod origins;
pub mod policy;
pub mod purge;
pub mod range;
pub mod reply;
pub mod site;
pub mod status;
pub mod store_rule;
pub mod structured;
pub mod target;
pub mod validation;
pub mod vary;

use crate::clock::Timestamp;
use headers::Headers;
use target::Target;

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// As sent: methods are case-sensitive (RFC 9110 §9.1).
    pub method: String,
    /// The URI at the origin.
    pub target: Target,
    /// Its header fields.
    pub headers: Headers,
}

impl RequestHead {
    /// Whether the method is `GET`.
    pub fn is_get(&self) -> bool {
        self.method == "GET"
    }

    /// Whether the method is `HEAD`.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// A response without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
}

/// One request to the origin and what came back.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// What the origin was sent: what a client sent that never reached it cannot select a response.
    pub request: &'a RequestHead,
    /// What it answered.
    pub response: &'a ResponseHead,
    /// When the request left (`request_time` in RFC 9111 §4.2.3).
    pub requested_at: Timestamp,
    /// When the response head arrived (`response_time`).
    pub received_at: Timestamp,
}
