//! The headers `RateLimit-Policy` and `RateLimit`: drafts of the IETF, so this is the one place that knows their form.
//!
//! [`DRAFT`] is the version that replies carry; another arm of [`Draft`] is all that a new one needs. Both are lists of
//! strings with parameters (RFC 9651). Source: draft-ietf-httpapi-ratelimit-headers-11, 2026-05-23.

use super::{Decision, Policy};

/// A version of the draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Draft {
    /// Revisions 08 to 11: `"name";q=100;w=60` and `"name";r=50;t=30`.
    V11,
    /// Revision 07: `100;w=60` and `limit=100, remaining=50, reset=30`, which older client libraries read.
    V07,
}

/// The version that replies carry.
pub const DRAFT: Draft = Draft::V11;

/// The type of the problem when a quota is exceeded, of the draft's section on problem types (status 429). The service
/// writes its last part as `/problems/quota-exceeded`, like every problem of its contract.
pub const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Largest integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// The value of `RateLimit-Policy`.
pub fn policy(draft: Draft, name: &str, policy: &Policy) -> String {
    let (limit, window) = (policy.limit.min(INTEGER_MAX), policy.window_seconds.min(INTEGER_MAX));
    match draft {
        Draft::V11 => format!("{};q={limit};w={window}", string(name)),
        Draft::V07 => format!("{limit};w={window}"),
    }
}

/// The value of `RateLimit`.
pub fn limit(draft: Draft, name: &str, decision: &Decision) -> String {
    let remaining = decision.remaining.min(INTEGER_MAX);
    // Revision 10 means "until more is available", revision 11 "the time to which the rest applies": the time until at
    // least one more unit is available is true for both.
    let next = decision.next_seconds.max(u64::from(remaining == 0)).min(INTEGER_MAX);
    match draft {
        Draft::V11 => format!("{};r={remaining};t={next}", string(name)),
        Draft::V07 => {
            let reset = decision.reset_seconds.min(INTEGER_MAX);
            format!("limit={}, remaining={remaining}, reset={reset}", decision.limit.min(INTEGER_MAX))
        }
    }
}

/// The value of `Retry-After`, in seconds; never before the end of `t`, as the draft wants it.
pub fn retry_after(decision: &Decision) -> Option<u64> {
    decision
        .retry_after_seconds
        .map(|seconds| seconds.max(decision.next_seconds.max(u64::from(decision.remaining == 0))))
}

/// A string of a structured field: printable ASCII, quotes and backslashes escaped. A name may hold more than that, so
/// `%` and everything else is written as `%XX` of its UTF-8 bytes, which keeps different names different.
fn string(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                text.push('%');
                text.push_str(&base16ct::upper::encode_string(&[byte]));
            }
        }
    }
    text.push('"');
    text
}
