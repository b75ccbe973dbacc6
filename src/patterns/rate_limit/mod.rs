//! Rate limits: exact on one object per policy and identifier, approximate on KV, both deciding by the same functions.
//!
//! - **Exact** ([`exact`]): never admits more than the algorithm allows, windows of 1 second to 30 days.
//! - **Approximate** ([`approximate`]): no object and no KV operation on the request path; writers learn of each other
//!   by list, so a limit may be overshot by what arrives while they do not know; windows shorter than five minutes
//!   are refused, because the answer would come after the window.
//! - A client far over its limit is denied from memory ([`local`]): no object, no KV.
//! - An identifier that is an IPv6 address counts as its /64, the least a customer gets (RFC 6177 §2, and RIPE-690
//!   §4.2), an IPv4-mapped one as its IPv4 address.
//! - One check may name several identifiers ([`several`]): all must admit, or nothing is taken.
//!
//! Cost: exact check 1 object call and at most 1 KV read (the policy, once per half minute and isolate), per identifier
//! 1 object call, and when one refuses 1 more for each that had admitted; denied locally 0; approximate check 0, and in
//! the background per active identifier and isolate at most 1 write per second and 1 list per ten seconds.

pub mod algorithm;
pub mod approximate;
pub mod exact;
pub mod header;
pub mod local;
pub mod policy;
pub mod several;

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

/// When to come back after a refusal that no count stands behind, in seconds.
const UNCOUNTED_RETRY_SECONDS: u64 = 5;

impl Decision {
    /// What `policy` says where the count cannot be had.
    pub fn uncounted(policy: &Policy) -> Self {
        let allowed = policy.on_failure == OnFailure::Allow;
        Self {
            allowed,
            limit: policy.limit,
            remaining: 0,
            reset_seconds: UNCOUNTED_RETRY_SECONDS,
            next_seconds: UNCOUNTED_RETRY_SECONDS,
            retry_after_seconds: (!allowed).then_some(UNCOUNTED_RETRY_SECONDS),
        }
    }
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
