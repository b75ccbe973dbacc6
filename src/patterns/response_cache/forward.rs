//! What may pass between client and origin: hop-by-hop fields never do, nor what could make an origin answer something
//! that the cache key does not show.

use super::RequestHead;
use super::controls::CONSUMED;
use super::entry::Entry;
use super::headers::{Headers, list_members};
use super::validation;

/// Fields of one connection alone (RFC 9110 §7.6.1, RFC 9111 §3.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Request fields by which a client can make an origin answer for another host, path or method, although the key knows only
/// the request line: the cache poisoning fields of Kettle, "Practical Web Cache Poisoning" (2018), those Workers Cache
/// puts into its key, what frameworks and servers tell themselves by (Next.js, nginx, CGI), and made-up addresses of clients,
/// with their families. They never reach the origin, also not with `_` for `-`, which CGI takes for the same.
const POISONING: [&str; 28] = [
    "base-url",
    "client-ip",
    "forwarded",
    "front-end-https",
    "http-host",
    "method-override",
    "proxy",
    "request-uri",
    "true-client-ip",
    "x-amz-website-redirect-location",
    "x-backend-host",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-host",
    "x-matched-path",
    "x-method",
    "x-method-override",
    "x-now-route-matches",
    "x-real-ip",
    "x-request-uri",
    "x-scheme",
    "x-script-name",
    "x-sendfile",
    "x-uri",
    "x-url",
    "x-url-scheme",
];
const POISONING_FAMILIES: [&str; 9] = [
    "x-accel-",
    "x-forwarded",
    "x-http-",
    "x-invoke-",
    "x-middleware-",
    "x-original-",
    "x-override-",
    "x-proxy-",
    "x-rewrite-",
];
/// The client's address is no part of the answer's identity, and each proxy on the way adds to it.
const HARMLESS: &str = "x-forwarded-for";

/// Fields a sender may not take away by naming them in `Connection` (RFC 9110 §7.6.1: what is meant for all recipients must not
/// be named there); dropping them would change what the cache may do.
const NOT_NOMINATED: [&str; 11] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cookie",
    "date",
    "expires",
    "host",
    "kv-patterns-cache-control",
    "set-cookie",
    "vary",
];

/// How this cache names itself on the way to an origin, as in `Cache-Status`. The platform does not say in which version of the
/// protocol a client spoke; all of them are 1.1 in meaning (RFC 9110 §2.5).
const VIA: &str = "1.1 kv-patterns";

/// Conditions and ranges, which the cache answers itself when it validates.
const CONDITIONAL: [&str; 4] = ["if-none-match", "if-modified-since", "if-range", "range"];

/// Which conditions go to the origin.
#[derive(Clone, Copy, Debug)]
pub enum Conditions<'a> {
    /// The client's, unchanged: nothing usable is stored, so the origin decides (RFC 9111 §4.3.2).
    Clients,
    /// Those of the stored response that is to be validated (RFC 9111 §4.3.1); the client's are answered from the outcome.
    Validate(&'a Entry),
    /// None: the whole representation is wanted.
    None,
}

/// Drops what belongs to one connection (RFC 9110 §7.6.1).
pub fn strip_hop_by_hop(headers: &mut Headers) {
    let nominated: Vec<String> =
        headers.values("connection").flat_map(list_members).map(str::to_ascii_lowercase).collect();
    headers.retain(|name| {
        let dropped = nominated.iter().any(|named| named == name) && !NOT_NOMINATED.contains(&name);
        !HOP_BY_HOP.contains(&name) && !dropped
    });
}

/// Drops, beside that, what is meant for this cache alone.
pub fn strip_response(headers: &mut Headers) {
    strip_hop_by_hop(headers);
    headers.retain(|name| !CONSUMED.contains(&name));
}

/// Whether a request field of this name may reach an origin at all; what may not cannot select a response either.
pub fn reaches_origin(name: &str) -> bool {
    name != "host" && !is_poisoning(name) && !HOP_BY_HOP.contains(&name)
}

fn is_poisoning(name: &str) -> bool {
    let name = name.replace('_', "-");
    let of_family = POISONING_FAMILIES.iter().any(|family| name.starts_with(family)) && name != HARMLESS;
    of_family || POISONING.contains(&name.as_str())
}

/// Through how many more recipients an `OPTIONS` or `TRACE` may go, if the client limits that (RFC 9110 §7.6.2).
pub fn hops_left(request: &RequestHead) -> Option<u64> {
    let limited = matches!(request.method.as_str(), "OPTIONS" | "TRACE");
    let text = request.headers.single("max-forwards").filter(|_| limited)?;
    text.trim().parse().ok()
}

/// The request that refreshes a stored response in the background on behalf of `request`, whatever part or proof of it
/// that one asked for. To be sent with [`Conditions::Validate`] or [`Conditions::None`]. Without cookies, by which no stored
/// response varies; `Authorization` stays, because what it gets is stored only where the origin says that it is for all.
#[must_use]
pub fn refresh_of(request: &RequestHead) -> RequestHead {
    let mut refresh = RequestHead { method: "GET".to_owned(), ..request.clone() };
    refresh.headers.retain(|name| !CONDITIONAL.contains(&name) && !matches!(name, "cache-control" | "cookie"));
    refresh
}

/// The request as the origin gets it. A body of a `GET` or `HEAD` has no meaning (RFC 9110 §9.3.1) and must be dropped by the caller; the
/// fields that describe it are dropped here.
#[must_use]
pub fn to_origin(request: &RequestHead, conditions: Conditions<'_>) -> RequestHead {
    let mut forwarded = request.clone();
    let headers = &mut forwarded.headers;
    strip_hop_by_hop(headers);
    headers.retain(reaches_origin);
    if request.is_get() || request.is_head() {
        headers.retain(|name| !matches!(name, "content-length" | "content-type" | "content-encoding" | "expect"));
    }
    if !matches!(conditions, Conditions::Clients) {
        headers.retain(|name| !CONDITIONAL.contains(&name));
    }
    if let Conditions::Validate(entry) = conditions {
        for (name, value) in validation::conditions(entry) {
            headers.set(name, value);
        }
    }
    if let Some(hops) = hops_left(request) {
        headers.set("max-forwards", hops.saturating_sub(1).to_string());
    }
    // RFC 9110 §7.6.3
    headers.append("via", VIA);
    forwarded
}
