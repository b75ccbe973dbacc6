//! What a successful unsafe request makes wrong: its own URI, and the `Location` and `Content-Location` of the same origin (RFC 9111 §4.4).

use super::target::Target;
use super::{RequestHead, ResponseHead};

/// Whether a method only reads (RFC 9110 §9.2.1 and IANA's registry of methods). Of an unknown one nobody knows, so it is
/// unsafe (RFC 9111 §4.4).
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "QUERY" | "REPORT" | "SEARCH")
}

/// The URIs whose stored responses must go: none for a safe method or an error; other hosts are never touched, so that one
/// origin cannot empty the cache of another.
pub fn targets(request: &RequestHead, response: &ResponseHead) -> Vec<Target> {
    if is_safe(&request.method) || !(200..400).contains(&response.status) {
        return Vec::new();
    }
    let mut targets = vec![request.target.clone()];
    for name in ["location", "content-location"] {
        let named = response.headers.single(name).and_then(|reference| request.target.resolve(reference));
        if let Some(target) = named.filter(|target| target.same_origin(&request.target) && !targets.contains(target)) {
            targets.push(target);
        }
    }
    targets
}
