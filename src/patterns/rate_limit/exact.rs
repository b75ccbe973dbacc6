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
    /// Until when units that were taken beside others may be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
}

/// For how long units taken beside others may be given back, in seconds: their check has ended by then.
const HOLD_SECONDS: u64 = 10;

/// What is asked of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Request {
    /// Whether there is room, and to take it.
    Check(Question),
    /// Something that was taken is given back.
    GiveBack(Taken),
}

/// Whether there is room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The policy, as the caller knows it.
    pub policy: Policy,
    /// Units asked for.
    pub cost: u64,
    /// Whether only to look.
    pub peek: bool,
    /// Whether others are asked too, so that what is taken may be given back.
    #[serde(default)]
    pub beside_others: bool,
}

/// What the object answers to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// What was taken by it; nothing when it was refused or only looked.
    pub taken: Option<Taken>,
    /// Refused perhaps for units that will be given back, so not to be remembered.
    #[serde(default)]
    pub passing: bool,
}

/// The receipt for units that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// How many.
    pub cost: u64,
    /// When, by the object's clock.
    pub at: Timestamp,
    /// The `updated_at` of the policy they were taken under.
    pub policy_at: Timestamp,
}

/// Decides a question; the state is nothing for an object that was never asked or forgot itself.
pub fn decide(state: Option<&State>, question: &Question, now: Timestamp) -> (State, Answer) {
    let (policy, usage) = match state {
        Some(known) if known.policy.updated_at >= question.policy.updated_at => {
            (known.policy.clone(), known.usage.clone())
        }
        Some(known) => (question.policy.clone(), known.usage.clone().adapt(&known.policy, &question.policy, now)),
        None => (question.policy.clone(), Usage::new(question.policy.algorithm, now)),
    };
    let (usage, decision) = usage.check(&policy, question.cost, question.peek, now);
    let is_taken = decision.allowed && !question.peek && question.cost > 0;
    let taken = is_taken.then_some(Taken { cost: question.cost, at: now, policy_at: policy.updated_at });
    let hold = (is_taken && question.beside_others).then(|| now.plus_seconds(HOLD_SECONDS));
    let held_until = hold.or_else(|| state.and_then(|known| known.held_until));
    let passing = !decision.allowed && held_until.is_some_and(|until| now < until);
    (State { policy, usage, held_until }, Answer { decision, taken, passing })
}

/// Whether what was decided must be kept: units were taken, or use was carried over to a changed policy. Otherwise each
/// refusal would carry it over anew, as if just used, and it would never come back.
pub fn must_keep(known: Option<&State>, state: &State, answer: &Answer) -> bool {
    let is_carried_over = known.is_some_and(|known| known.policy != state.policy);
    (answer.taken.is_some() || is_carried_over) && known != Some(state)
}

/// The state after something that was taken is given back. Under another policy by now it stays used: what became of
/// it there cannot be told apart any more.
#[must_use]
pub fn give_back(state: State, taken: &Taken, now: Timestamp) -> State {
    if state.policy.updated_at != taken.policy_at {
        return state;
    }
    let usage = state.usage.give_back(&state.policy, taken.cost, taken.at, now);
    State { usage, ..state }
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
