//! The exact limit, decided: what one object per policy and identifier keeps and answers, as a pure function.
//!
//! Never admits more than the algorithm allows ([`super::algorithm`]); linearizable, because the object decides one
//! request at a time. It goes by the newest policy it was shown. When nothing is used it forgets itself: an empty
//! object answers the same.

use serde::{Deserialize, Serialize};

use super::{Decision, Policy, Usage};
use crate::clock::Timestamp;
use crate::kv::Tenant;

/// What the object keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The newest policy seen.
    pub policy: Policy,
    /// What was used under it.
    pub usage: Usage,
}

/// What is asked of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The policy, as the caller knows it.
    pub policy: Policy,
    /// Units asked for.
    pub cost: u64,
    /// Whether only to look.
    pub peek: bool,
}

/// Decides a request; the state is nothing for an object that was never asked or forgot itself.
pub fn decide(state: Option<&State>, request: &Request, now: Timestamp) -> (State, Decision) {
    let (policy, usage) = match state {
        Some(known) if known.policy.updated_at >= request.policy.updated_at => {
            (known.policy.clone(), known.usage.clone())
        }
        Some(known) => (request.policy.clone(), known.usage.clone().adapt(&known.policy, &request.policy, now)),
        None => (request.policy.clone(), Usage::new(request.policy.algorithm, now)),
    };
    let (usage, decision) = usage.check(&policy, request.cost, request.peek, now);
    (State { policy, usage }, decision)
}

/// When the object may forget everything: when nothing is used any more.
pub fn forget_at(state: &State, now: Timestamp) -> Timestamp {
    let (_, decision) = state.usage.clone().check(&state.policy, 0, true, now);
    now.plus_seconds(decision.reset_seconds.saturating_add(1))
}

/// The name of the object that counts `identifier` (normalised) under `policy`.
pub fn object_name(tenant: &Tenant, policy: &str, identifier: &str) -> String {
    tenant.space("rate-limit-exact").key(&[policy, identifier]).as_str().to_owned()
}
