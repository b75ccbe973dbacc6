//! Strong mode: one object per user decides every change, so of many who name the same version exactly one succeeds.
//!
//! # Promise
//!
//! - Among calls in strong mode a read gives the last change, and 412 is exact. The object is the authority, and KV its
//!   copy for everybody else.
//! - Before it decides, the object joins what KV shows where the call was made, per field the greater stamp. So what was
//!   set before anybody used strong mode counts; and a change made without strong mode is taken up by the first strong
//!   call at whose place KV shows it. Until then strong calls do not know of it: their 412 says nothing about it.
//! - What it decided is written to KV behind the answer, at most once a second, where calls without strong mode see it
//!   after KV's own delay. A copy that fails is tried again every [`RETRY_SECONDS`] until KV takes it.
//! - One field changed in both modes at about the same time: the object keeps the greater stamp, KV what reached it
//!   last. If that is the older one, it is written over once it has stayed for [`SETTLE_SECONDS`].
//! - A day after the last change the object compares KV with what it knows, writes what KV lacks, and forgets everything
//!   once KV lacks nothing. Exactness so rests on KV showing a write within a day; it documents 60 seconds "or more".
//!   Keys that were removed from KV behind its back (`DELETE /v1/keys/CONFIG`) are so written again until then: who wants
//!   to remove preferences clears them.
//!
//! # Cost
//!
//! One bulk read and one object call, for a read as for a change; behind it one write per changed field, and one bulk
//! read a day after the last change.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::overrides::{Change, Decision, Overrides, decide as decide_change};
use super::schema::Schema;
use super::{Error, Found, View};
use crate::clock::Timestamp;
use crate::etag::Precondition;
use crate::kv::{self, Tenant};
use crate::patch::Patch;
use crate::stamp::Stamps;

/// Age from which an older entry in KV counts as wrong and not as late, in seconds: fifteen times KV's usual minute.
pub const SETTLE_SECONDS: u64 = 900;
/// Shortest time between two copies to KV, in milliseconds: KV takes one write a second per key.
/// Source: <https://developers.cloudflare.com/kv/platform/limits/>
pub const COPY_MILLIS: u64 = 1000;
/// How long after a copy that failed the next one is tried, in seconds.
pub const RETRY_SECONDS: u64 = 30;
/// How long after the last change everything may be forgotten, in seconds.
pub const IDLE_SECONDS: u64 = 86_400;

/// What an object knows of its user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    overrides: Overrides,
    /// Fields that KV has to be given.
    due: BTreeSet<String>,
    copied_at: Timestamp,
    /// When something was changed, joined, or found missing in KV.
    changed_at: Timestamp,
}

/// What an object is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    schema: Schema,
    /// What KV shows where the caller is.
    seen: Overrides,
    /// Nothing: the caller only reads.
    change: Option<(Change, Precondition)>,
}

/// What an object answers, with what the user has set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It was read or changed: as it is now.
    Done(Overrides),
    /// The change was refused: what it was refused upon.
    Refused(Overrides),
}

impl Request {
    /// The question of a caller to whom KV showed `found`.
    pub fn new(found: &Found, change: Option<(Change, Precondition)>) -> Self {
        Self { schema: found.schema.clone(), seen: found.overrides.clone(), change }
    }

    /// Whether asking twice does no harm: a condition would fail the second time, and operations would add up.
    pub fn is_repeatable(&self) -> bool {
        match &self.change {
            None => true,
            Some((change, precondition)) => {
                precondition.is_none() && !matches!(change, Change::Patch(Patch::Operations(_)))
            }
        }
    }

    /// What `answer` means to the caller. The decision is pure, so the reason of a refusal is found by deciding again.
    ///
    /// # Errors
    ///
    /// The change is refused, with its reason; or object and caller are of different versions and do not agree.
    pub fn view(self, answer: Answer, unreadable: Vec<String>, now: Timestamp, stamps: &Stamps) -> Result<View, Error> {
        let overrides = match (answer, &self.change) {
            (Answer::Done(overrides), _) => overrides,
            (Answer::Refused(overrides), Some((change, precondition))) => {
                let stamp = stamps.next(now, overrides.newest());
                decide_change(&overrides, &self.schema, change, precondition, stamp)?;
                return Err(disagreement());
            }
            (Answer::Refused(_), None) => return Err(disagreement()),
        };
        Ok(Found { schema: self.schema, overrides, unreadable }.view())
    }
}

/// The name of the object that decides for `user`.
pub fn object_name(tenant: &Tenant, user: &str) -> String {
    tenant.space("preference").key(&[user]).as_str().to_owned()
}

fn disagreement() -> Error {
    kv::Error::Unavailable("the object is of another version".to_owned()).into()
}

/// Decides `request` of a user of whom `state` is known; the state afterwards, and the answer.
pub fn decide(state: &State, request: &Request, now: Timestamp, stamps: &Stamps) -> (State, Answer) {
    let mut next = state.clone();
    next.join(&request.schema, &request.seen, now);
    let Some((change, precondition)) = &request.change else {
        let overrides = next.overrides.clone();
        return (next, Answer::Done(overrides));
    };
    let stamp = stamps.next(now, next.overrides.newest());
    let decided = decide_change(&next.overrides, &request.schema, change, precondition, stamp);
    let is_done = decided.is_ok();
    if let Ok(Decision { entries }) = decided {
        next.due.extend(entries.iter().map(|(field, _)| field.to_owned()));
        next.overrides.merge(entries);
        next.changed_at = now;
    }
    let overrides = next.overrides.clone();
    (next, if is_done { Answer::Done(overrides) } else { Answer::Refused(overrides) })
}

impl State {
    /// Takes up what KV shows, and notes what it should show by now and does not.
    pub fn join(&mut self, schema: &Schema, seen: &Overrides, now: Timestamp) {
        let before = self.overrides.clone();
        self.overrides.merge(seen.clone());
        self.overrides.forget_tombstones(now);
        let is_settled = |at: Timestamp| at.plus_seconds(SETTLE_SECONDS) <= now;
        let mut is_behind = false;
        if is_settled(self.copied_at) {
            // Fields that the tenant has dropped are never shown.
            let known = self.overrides.stamps().filter(|(field, stamp)| schema.has(field) && is_settled(stamp.at()));
            let behind = known.filter(|(field, stamp)| seen.stamp_of(field).is_none_or(|shown| shown < *stamp));
            let behind: Vec<String> = behind.map(|(field, _)| field.to_owned()).collect();
            is_behind = !behind.is_empty();
            self.due.extend(behind);
        }
        if is_behind || self.overrides != before {
            self.changed_at = now;
        }
    }

    /// What KV has to be given.
    pub fn to_copy(&self) -> Overrides {
        self.overrides.only(&self.due)
    }

    /// KV took `entries`; those changed meanwhile stay due.
    pub fn copied(&mut self, entries: &Overrides, now: Timestamp) {
        self.due.retain(|field| {
            let stamp = self.overrides.stamp_of(field);
            stamp.is_some() && stamp != entries.stamp_of(field)
        });
        self.copied_at = now;
    }

    /// Whether nothing has happened for so long that everything may be forgotten, if KV has it all.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.due.is_empty() && self.changed_at.plus_seconds(IDLE_SECONDS) <= now
    }

    /// When the object must look after its copy next.
    pub fn next_alarm(&self, now: Timestamp) -> Timestamp {
        let at = if self.due.is_empty() {
            self.changed_at.plus_seconds(IDLE_SECONDS)
        } else {
            self.copied_at.plus_millis(COPY_MILLIS)
        };
        at.max(now)
    }
}
