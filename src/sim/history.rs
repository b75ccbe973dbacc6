//! What each client did and saw, in words common to all patterns, so that one set of checkers judges them all.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::world::START;
use crate::clock::Timestamp;

/// What an operation was, and what came of it. Versions are numbers that grow with every change of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A change to this version was acknowledged.
    Wrote(u64),
    /// A change to this version may have happened: no answer, or an error after which nothing is known.
    MaybeWrote(u64),
    /// A removal was acknowledged.
    Deleted,
    /// A removal may have happened.
    MaybeDeleted,
    /// This version was seen, or nothing.
    Read(Option<u64>),
    /// An increment was acknowledged.
    Added(i64),
    /// An increment may have happened.
    MaybeAdded(i64),
    /// This total was seen.
    Total(i64),
    /// A limiter let this much through.
    Admitted(u64),
    /// A limiter refused.
    Denied,
    /// A lock was obtained with this fencing token and held until that moment, or until it was released.
    Acquired {
        /// The fencing token.
        fence: u64,
        /// When the lease ends by itself, in true time.
        until: Timestamp,
    },
    /// The lock with this fencing token was given back, whatever the answer.
    Released(u64),
    /// A guarded resource took a write with this fencing token.
    Guarded(u64),
    /// A revocation was acknowledged: from now on nothing may be accepted.
    Revoked,
    /// A credential was accepted.
    Accepted,
    /// A credential was refused as invalid, not for lack of an answer.
    Refused,
    /// An operation gave no answer, or an error that tells nothing about the subject.
    Failed,
    /// KV refused a write because the key was written less than a second before.
    Throttled,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who.
    pub client: usize,
    /// What it was about: a key, a session, a counter, a lock.
    pub subject: String,
    /// When it was sent, in true time.
    pub began: Timestamp,
    /// When its answer came, in true time.
    pub ended: Timestamp,
    /// What it was and what came of it.
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (began, ended) = (self.began.millis_since(START), self.ended.millis_since(START));
        write!(formatter, "{began}..{ended} client {} {} {:?}", self.client, self.subject, self.what)
    }
}

/// Everything that clients noted, in the order of the answers. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History(Rc<RefCell<Vec<Event>>>);

impl History {
    /// Notes an operation that `client` began at `began` and whose answer came at `ended`.
    pub fn note(&self, client: usize, subject: &str, began: Timestamp, ended: Timestamp, what: What) {
        self.0.borrow_mut().push(Event { client, subject: subject.to_owned(), began, ended, what });
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.borrow().clone()
    }
}

/// One event a line.
impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().iter().try_for_each(|event| writeln!(formatter, "{event}"))
    }
}
