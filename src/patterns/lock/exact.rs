//! The lock, decided: what one object per resource keeps and answers, as pure functions over its state.
//!
//! - **At most one holder** at any moment by the object's clock, from the grant to `expires_at`.
//! - **Fencing tokens grow**: each grant's is greater than every one before it for that resource. A token is at least
//!   the milliseconds of the grant times 2^20, so it also grows past what an object forgot, if the clock did not go
//!   back by more than the day the object waits before it forgets.
//! - **First come, first served** among those who wait and are still there: a waiter asks again every moment, one who
//!   has not asked for [`WAITER_LOST_MILLIS`] is taken for gone. The platform may let a waiter go on whose client has left
//!   (seen on workerd), so who has waited is offered the lock for [`OFFER_SECONDS`] and takes it by [`Request::Renew`], which
//!   only a request whose client is there comes to send. At most [`WAITERS_MAX`] wait. Waiters are requests in flight: they
//!   are kept in memory and end with the object.
//! - **Acquiring again** with the idempotency key of the present grant gives that grant again, with another lock id;
//!   both ids hold it.
//! - Only hashes of lock ids are kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use crate::clock::Timestamp;
use crate::kv::Tenant;

/// Requests that may wait for one lock.
pub const WAITERS_MAX: usize = 100;
/// A waiter that has not asked for so long is gone, in milliseconds.
pub const WAITER_LOST_MILLIS: u64 = 2000;
/// How long one who has waited may take to take the lock, in seconds.
pub const OFFER_SECONDS: u64 = 2;
/// Lock ids that one grant may have.
const IDS_MAX: usize = 8;
/// Grants per millisecond for which tokens stay below the clock.
const TOKEN_SHIFT: u32 = 20;
/// How long an object stays idle before it forgets its last token, in milliseconds.
const FORGET_MILLIS: u64 = 86_400_000;

/// What the object keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The last fencing token given.
    pub token: u64,
    /// The last grant, unless it was released; it may have expired.
    pub holder: Option<Holder>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Holder {
    /// Who holds it, for people.
    pub owner: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Hashes of the lock ids that hold it.
    ids: VecDeque<String>,
    /// Hash of the idempotency key it was acquired with.
    key: Option<String>,
    /// Whether it has yet to be taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_offer: bool,
}

/// Somebody who wants the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acquire {
    /// How long to hold it, in seconds; brought into 1 to 3600.
    pub ttl_seconds: u64,
    /// Who, for people.
    pub owner: Option<String>,
    /// Hash of the lock id that is to hold it.
    pub id: String,
    /// Hash of the idempotency key.
    pub key: Option<String>,
    /// How long the caller waits, in seconds.
    pub wait_seconds: u64,
}

/// The lock as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inspection {
    /// Whether somebody holds it.
    pub held: bool,
    /// The holder's name.
    pub owner: Option<String>,
    /// When the grant ends.
    pub expires_at: Option<Timestamp>,
    /// The last fencing token given, as decimal text.
    pub fencing_token: Option<String>,
}

/// What is asked of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Wants the lock.
    Acquire(Acquire),
    /// Wants to hold it longer.
    Renew {
        /// Hash of the lock id.
        id: String,
        /// From now, in seconds; brought into 1 to 3600.
        ttl_seconds: u64,
    },
    /// Gives it back.
    Release {
        /// Hash of the lock id.
        id: String,
    },
    /// Only looks.
    Inspect,
}

/// What the object answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The lock is the caller's.
    Granted {
        /// As decimal text, because it is larger than a JSON number keeps.
        fencing_token: String,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// The lock is kept for the caller, who has waited, for [`OFFER_SECONDS`]: [`Request::Renew`] takes it.
    Offered,
    /// Somebody else holds it.
    Held {
        /// The holder's name.
        owner: Option<String>,
        /// Seconds until the grant ends, rounded up.
        retry_after_seconds: u64,
    },
    /// It is held, and the caller waits: ask again with [`Queue::poll`].
    Queued,
    /// The idempotency key is that of another owner's grant.
    KeyReused,
    /// As many wait as may.
    QueueFull {
        /// The holder's name.
        owner: Option<String>,
    },
    /// The lock id holds nothing (any more).
    NotHeld,
    /// The lock was given back; also when nobody held it any more.
    Released,
    /// The lock as it stands.
    Inspected(Inspection),
}

/// Those who wait, first come first; in memory.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    waiters: VecDeque<Waiter>,
    last_ticket: u64,
}

#[derive(Clone, Debug)]
struct Waiter {
    ticket: u64,
    acquire: Acquire,
    until: Timestamp,
    asked_at: Timestamp,
}

impl Queue {
    /// Those who wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Drops who is gone, and who asked with the same idempotency key before: the later request takes the place.
    fn tidy(&mut self, now: Timestamp) {
        self.waiters.retain(|waiter| now.millis_since(waiter.asked_at) < WAITER_LOST_MILLIS && now < waiter.until);
    }

    /// Puts a caller at the end, or in the place of an earlier request with its idempotency key; nothing when full.
    fn join(&mut self, acquire: &Acquire, now: Timestamp) -> Option<u64> {
        self.last_ticket += 1;
        let until = now.plus_seconds(acquire.wait_seconds);
        let waiter = Waiter { ticket: self.last_ticket, acquire: acquire.clone(), until, asked_at: now };
        let is_same = |other: &&mut Waiter| acquire.key.is_some() && other.acquire.key == acquire.key;
        if let Some(place) = self.waiters.iter_mut().find(is_same) {
            *place = waiter;
        } else if self.waiters.len() < WAITERS_MAX {
            self.waiters.push_back(waiter);
        } else {
            return None;
        }
        Some(self.last_ticket)
    }

    /// A waiter asks whether its turn has come: [`Answer::Offered`]. [`Answer::Queued`] means not yet; [`Answer::Held`] that it
    /// waited long enough, or that a later request took its place.
    pub fn poll(&mut self, state: &mut State, ticket: u64, now: Timestamp) -> Answer {
        if let Some(waiter) = self.waiters.iter_mut().find(|waiter| waiter.ticket == ticket) {
            waiter.asked_at = now;
        }
        self.tidy(now);
        let is_first = self.waiters.front().is_some_and(|first| first.ticket == ticket);
        if is_first
            && state.live(now).is_none()
            && let Some(waiter) = self.waiters.pop_front()
        {
            return state.offer(&waiter.acquire, now);
        }
        let waits = self.waiters.iter().any(|waiter| waiter.ticket == ticket);
        if waits { Answer::Queued } else { state.refusal(now) }
    }

    /// A waiter leaves.
    pub fn leave(&mut self, ticket: u64) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
    }
}

impl Holder {
    /// Holds it for so long from now.
    fn take(&mut self, ttl_seconds: u64, now: Timestamp) {
        self.expires_at = now.plus_seconds(ttl_seconds.clamp(TTL_SECONDS_MIN, TTL_SECONDS_MAX));
        self.is_offer = false;
    }
}

/// Decides a request; changes the state and the queue. The ticket is for [`Queue::poll`], when the caller is to wait.
pub fn decide(state: &mut State, queue: &mut Queue, request: &Request, now: Timestamp) -> (Answer, Option<u64>) {
    let answer = match request {
        Request::Acquire(acquire) => return state.acquire(queue, acquire, now),
        Request::Renew { id, ttl_seconds } => state.renew(id, *ttl_seconds, now),
        Request::Release { id } => state.release(id, now),
        Request::Inspect => Answer::Inspected(state.inspect(now)),
    };
    (answer, None)
}

impl State {
    /// The holder, if its time is not over.
    fn live(&self, now: Timestamp) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| now < holder.expires_at)
    }

    fn acquire(&mut self, queue: &mut Queue, acquire: &Acquire, now: Timestamp) -> (Answer, Option<u64>) {
        if let Some(answer) = self.grant_again(acquire, now) {
            return (answer, None);
        }
        queue.tidy(now);
        if self.live(now).is_none() && queue.is_empty() {
            return (self.grant(acquire, now), None);
        }
        if acquire.wait_seconds == 0 {
            return (self.refusal(now), None);
        }
        match queue.join(acquire, now) {
            Some(ticket) => (Answer::Queued, Some(ticket)),
            None => (Answer::QueueFull { owner: self.live(now).and_then(|holder| holder.owner.clone()) }, None),
        }
    }

    /// The present grant again, for the same owner with its idempotency key; a grant that was only offered is taken.
    fn grant_again(&mut self, acquire: &Acquire, now: Timestamp) -> Option<Answer> {
        let token = self.token;
        let holder = self.holder.as_mut().filter(|holder| now < holder.expires_at)?;
        if acquire.key.is_none() || holder.key != acquire.key {
            return None;
        }
        if holder.owner != acquire.owner {
            return Some(Answer::KeyReused);
        }
        if holder.is_offer {
            holder.take(acquire.ttl_seconds, now);
        }
        if !holder.ids.contains(&acquire.id) {
            if holder.ids.len() >= IDS_MAX {
                holder.ids.pop_front();
            }
            holder.ids.push_back(acquire.id.clone());
        }
        Some(Answer::Granted { fencing_token: token.to_string(), expires_at: holder.expires_at })
    }

    fn grant(&mut self, acquire: &Acquire, now: Timestamp) -> Answer {
        let clock = now.millis().saturating_mul(1 << TOKEN_SHIFT);
        self.token = self.token.saturating_add(1).max(clock);
        let expires_at = now.plus_seconds(acquire.ttl_seconds.clamp(TTL_SECONDS_MIN, TTL_SECONDS_MAX));
        let (owner, key) = (acquire.owner.clone(), acquire.key.clone());
        self.holder =
            Some(Holder { owner, expires_at, ids: VecDeque::from([acquire.id.clone()]), key, is_offer: false });
        Answer::Granted { fencing_token: self.token.to_string(), expires_at }
    }

    /// A grant that ends soon unless it is taken.
    fn offer(&mut self, acquire: &Acquire, now: Timestamp) -> Answer {
        self.grant(&Acquire { ttl_seconds: OFFER_SECONDS, ..acquire.clone() }, now);
        self.holder.iter_mut().for_each(|holder| holder.is_offer = true);
        Answer::Offered
    }

    fn refusal(&self, now: Timestamp) -> Answer {
        let holder = self.live(now);
        let left_millis = holder.map_or(0, |holder| holder.expires_at.millis_since(now));
        let retry_after_seconds = left_millis.div_ceil(1000).max(1);
        Answer::Held { owner: holder.and_then(|holder| holder.owner.clone()), retry_after_seconds }
    }

    fn renew(&mut self, id: &String, ttl_seconds: u64, now: Timestamp) -> Answer {
        let token = self.token;
        let holder = self.holder.as_mut().filter(|holder| now < holder.expires_at && holder.ids.contains(id));
        let Some(holder) = holder else { return Answer::NotHeld };
        holder.take(ttl_seconds, now);
        Answer::Granted { fencing_token: token.to_string(), expires_at: holder.expires_at }
    }

    fn release(&mut self, id: &String, now: Timestamp) -> Answer {
        match &self.holder {
            Some(holder) if holder.ids.contains(id) => {
                self.holder = None;
                Answer::Released
            }
            Some(holder) if now < holder.expires_at => Answer::NotHeld,
            _ => Answer::Released,
        }
    }

    fn inspect(&self, now: Timestamp) -> Inspection {
        let holder = self.live(now);
        Inspection {
            held: holder.is_some(),
            owner: holder.and_then(|holder| holder.owner.clone()),
            expires_at: holder.map(|holder| holder.expires_at),
            fencing_token: (self.token > 0).then(|| self.token.to_string()),
        }
    }

    /// When the object may forget everything: a day after the last grant ended, and when the clock is past every token
    /// it gave.
    pub fn forget_at(&self, now: Timestamp) -> Timestamp {
        let ended = self.holder.as_ref().map_or(now, |holder| holder.expires_at.max(now));
        let past_tokens = Timestamp::from_millis((self.token >> TOKEN_SHIFT).saturating_add(1));
        ended.max(past_tokens).plus_millis(FORGET_MILLIS)
    }

    /// Whether everything may be forgotten now.
    pub fn may_forget(&self, now: Timestamp) -> bool {
        let is_past_tokens = now.millis() > (self.token >> TOKEN_SHIFT).saturating_add(FORGET_MILLIS);
        let is_past_grant =
            self.holder.as_ref().is_none_or(|holder| now.millis_since(holder.expires_at) >= FORGET_MILLIS);
        is_past_tokens && is_past_grant
    }
}

/// The name of the object that owns the lock on `resource`.
pub fn object_name(tenant: &Tenant, resource: &str) -> String {
    tenant.space("lock").key(&[resource]).as_str().to_owned()
}
