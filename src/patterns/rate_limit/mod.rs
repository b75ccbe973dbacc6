//! Rate limits: exact on one object per policy and identifier, approximate on KV, both deciding by the same functions.
//!
//! - **Exact** ([`exact`]): never admits more than the algorithm allows, windows of 1 second to 30 days.
//! - **Approximate** ([`approximate`]): no object and no KV operation on the request path; writers learn of each other
//!   by list, so a limit may be overshot by what arrives while they do not know; windows shorter than five minutes
//!   are refused, because the answer would come after the window.
//! - A client far over its limit is denied from memory ([`local`]): no object, no KV.
//! - An identifier that is an IPv6 address counts as its /64, the least a customer gets (RFC 6177 §2, and RIPE-690
//!   §4.2), an IPv4-mapped one as its IPv4 address.
//!
//! Cost: exact check 1 object call and at most 1 KV read (the policy, once per half minute and isolate); denied
//! locally 0; approximate check 0, and in the background per active identifier and isolate at most 1 write per second and
//! 1 list per ten seconds.

pub mod algorithm;
pub mod approximate;
pub mod exact;
pub mod header;
pub mod local;
pub mod policy;

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use algorithm::{Algorithm, Usage};
pub use policy::{Mode, OnFailure, Policy, PolicyInvalid};

/// What a check answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// Whether the request may go on.
    pub allowed: bool,
    /// The policy's limit.
    pub limit: u64,
    /// Units left.
    pub remaining: u64,
    /// Seconds until everything is available again, rounded up; zero when it is.
    pub reset_seconds: u64,
    /// Seconds until at least one more unit is available, rounded up; zero when none is used.
    pub next_seconds: u64,
    /// When denied: seconds until the same cost would be admitted if nobody else came, rounded up. Nothing when the
    /// cost is beyond the limit and never will be.
    pub retry_after_seconds: Option<u64>,
}

/// The most restrictive of several decisions about one request: denied wins, then the least remaining.
pub fn most_restrictive(decisions: &[Decision]) -> Option<Decision> {
    let retry = |decision: &Decision| decision.retry_after_seconds.unwrap_or(u64::MAX);
    decisions.iter().copied().min_by_key(|decision| {
        (decision.allowed, std::cmp::Reverse(if decision.allowed { 0 } else { retry(decision) }), decision.remaining)
    })
}

/// The identifier that is counted: an address in its one form, an IPv6 address as its /64; everything else unchanged.
pub fn normalise(identifier: &str) -> String {
    match identifier.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        Err(_) => identifier.to_owned(),
    }
}
