//! What an isolate remembers of limits: denials that hold for a while, and policies. Bounded and plain memory.
//!
//! A denial is never wrong by other clients' doing: they can only use more, and what may be given back is not remembered.
//! It ends with an admission here, which moves what it says; it can outlive a changed policy, and what other isolates
//! admit, so it is kept for at most a minute.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Decision, Policy};
use crate::clock::Timestamp;
use crate::kv::Tenant;

/// Entries kept of each kind.
const ENTRIES_MAX: usize = 5000;
/// How long a denial is trusted at most, in seconds.
const DENIAL_SECONDS_MAX: u64 = 60;
/// How long a policy is trusted, in seconds: no longer than KV's own cache keeps it.
const POLICY_SECONDS: u64 = 30;

/// A bounded map whose entries end.
#[derive(Clone, Debug)]
struct Recent<T>(BTreeMap<String, (Timestamp, T)>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Recent<T> {
    fn get(&self, key: &str, now: Timestamp) -> Option<(Timestamp, &T)> {
        self.0.get(key).filter(|(until, _)| now < *until).map(|(until, value)| (*until, value))
    }

    fn put(&mut self, key: String, value: T, until: Timestamp, now: Timestamp) {
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, (until, _)| now < *until);
            if self.0.len() >= ENTRIES_MAX {
                // Everything still holds: forgetting one costs one call more, keeping all would cost memory.
                self.0.pop_first();
            }
        }
        self.0.insert(key, (until, value));
    }
}

/// A policy's limit denied a cost.
#[derive(Clone, Debug)]
struct Denial {
    policy: Policy,
    cost: u64,
    at: Timestamp,
    decision: Decision,
}

/// The memory of one isolate. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Local {
    denials: Rc<RefCell<Recent<Denial>>>,
    policies: Rc<RefCell<Recent<Policy>>>,
}

fn denial_key(tenant: &Tenant, policy: &str, identifier: &str) -> String {
    super::exact::object_name(tenant, policy, identifier)
}

fn policy_key(tenant: &Tenant, policy: &str) -> String {
    tenant.space("rate-limit").key(&[policy]).as_str().to_owned()
}

impl Local {
    /// The denial that still holds for this cost, with the policy it is of.
    pub fn denied(
        &self,
        tenant: &Tenant,
        policy: &str,
        identifier: &str,
        cost: u64,
        now: Timestamp,
    ) -> Option<(Policy, Decision)> {
        let denials = self.denials.borrow();
        let (_, denial) = denials.get(&denial_key(tenant, policy, identifier), now)?;
        if cost < denial.cost {
            return None;
        }
        let passed = now.millis_since(denial.at) / 1000;
        let later = |seconds: u64| seconds.saturating_sub(passed);
        let decision = Decision {
            reset_seconds: later(denial.decision.reset_seconds).max(1),
            next_seconds: later(denial.decision.next_seconds).max(1),
            retry_after_seconds: denial.decision.retry_after_seconds.map(|seconds| later(seconds).max(1)),
            ..denial.decision
        };
        Some((denial.policy.clone(), decision))
    }

    /// Remembers a denial, and forgets it where something is admitted; a cost that is never admitted is not remembered.
    pub fn remember(
        &self,
        tenant: &Tenant,
        (name, policy): (&str, &Policy),
        identifier: &str,
        cost: u64,
        decision: Decision,
        now: Timestamp,
    ) {
        if decision.allowed {
            self.denials.borrow_mut().0.remove(&denial_key(tenant, name, identifier));
            return;
        }
        let Some(retry_after) = decision.retry_after_seconds else { return };
        // The seconds are rounded up, so the last of them is not certain.
        let seconds = retry_after.saturating_sub(1).min(DENIAL_SECONDS_MAX);
        if seconds > 0 {
            let denial = Denial { policy: policy.clone(), cost, at: now, decision };
            let key = denial_key(tenant, name, identifier);
            self.denials.borrow_mut().put(key, denial, now.plus_seconds(seconds), now);
        }
    }

    /// The policy, if it was read or written lately.
    pub fn policy(&self, tenant: &Tenant, name: &str, now: Timestamp) -> Option<Policy> {
        self.policies.borrow().get(&policy_key(tenant, name), now).map(|(_, policy)| policy.clone())
    }

    /// The policy as it was last read or written here, however long ago: for the time when KV fails.
    pub fn last_policy(&self, tenant: &Tenant, name: &str) -> Option<Policy> {
        self.policies.borrow().0.get(&policy_key(tenant, name)).map(|(_, policy)| policy.clone())
    }

    /// Forgets the denials of a policy that was changed here.
    pub fn forget_denials(&self, tenant: &Tenant, policy: &str) {
        let below = tenant.space("rate-limit-exact").below(&[policy]);
        // A name too long for a prefix stands in keys as a hash: forgetting more than needed costs calls, no truth.
        let is_of = |key: &str| below.as_ref().map_or(true, |below| below.rest(key).is_some());
        self.denials.borrow_mut().0.retain(|key, _| !is_of(key));
    }

    /// Remembers a policy; nothing forgets it.
    pub fn remember_policy(&self, tenant: &Tenant, name: &str, policy: Option<&Policy>, now: Timestamp) {
        let key = policy_key(tenant, name);
        let mut policies = self.policies.borrow_mut();
        match policy {
            Some(policy) => policies.put(key, policy.clone(), now.plus_seconds(POLICY_SECONDS), now),
            None => {
                policies.0.remove(&key);
            }
        }
    }
}
