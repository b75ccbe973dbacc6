//! Sessions: a bearer token proves a user until it expires, idles out or is revoked; elsewhere, a little longer.
//!
//! # What a call promises
//!
//! - A token is 256 random bits. Only its SHA-256 is stored, and compared in constant time; no key and no id leads
//!   back to it.
//! - A session ends at the earlier of its idle and its absolute limit, exactly, in every location: both stand in the
//!   record, KV's own expiry only collects garbage.
//! - **Revocation is eventual.** In the revoking location it is usually seen at once; elsewhere a token may be
//!   accepted for as long as that location keeps what it read, 30 seconds (the smallest KV allows) plus propagation, and
//!   twice that when a location that has not heard of it refreshes the session meanwhile (below).
//! - **Revoke-all is one write**, of the user's epoch: every session created before it is dead, also those a list
//!   would miss, and no stale location can undo it, because nothing else writes that key.
//! - A record that is damaged, foreign or of a newer format is refused and reported, never served, never deleted.
//!
//! # Keys
//!
//! `tag` is a hash of the user id, carried by the token, so that both keys of a verification are known before any read.
//!
//! | key | holds | written by |
//! |---|---|---|
//! | `session/<tag>/<id>` | the record; listing it gives a user's sessions | create once, then refresh at most once a minute |
//! | `epoch/<tag>` | sessions created up to this moment are dead | revoke-all |
//! | `revoked/<tag>/<id>` | this session is revoked; kept for as long as any session can live | revoke, rotate |
//!
//! # Where the two rules of KV are bent
//!
//! *A key is read before it may be created*: every verification reads the epoch, which mostly does not exist, so a
//! revoke-all elsewhere is hidden by the remembered miss for the same 30 seconds as by a stale copy.
//!
//! *A record has two writers*: a refresh in a location that has not yet seen a revocation would write the record back.
//! So a refresh looks at `revoked/...` **after** its write and takes the write back. Only refreshes and rotations read
//! that key, a minute apart, so no location remembers an old miss of it; and the revoker writes it before deleting.
//! Until it is taken back, other locations may read what was written: hence the doubled bound. What is left is an isolate
//! that dies between its write and its look, and a write that KV reports as failed and performs after the revocation:
//! either brings the session back until its next refresh, which finds the mark, or its end. A verification that also read
//! the mark would close this and cost a third read each time; the simulator's `limit_` tests pin the case.
//!
//! # Short idle limits
//!
//! A refresh counts from a minute after the last write, so an idle limit near 60 seconds can hardly be put off.
//!
//! # Cost in KV operations (asserted in `tests/it/session.rs`)
//!
//! | call | reads | writes | deletes | lists |
//! |---|---|---|---|---|
//! | create | 0 | 1 | 0 | 0, or 1 where a cap is set |
//! | verify | 2, in one bulk read | 0 | 0 | 0 |
//! | refresh | 2, once a minute 3 | 0, once a minute 1 | 0 | 0 |
//! | rotate | 3 | 2 | 1 | 0 |
//! | revoke, revoke one of a user | 0 | 1 | 1 | 0 |
//! | revoke all of a user | 0 | 1 | 0 | 0 |
//! | list | 1 and one per session | 0 | 0 | 1 |

mod record;
mod token;

use serde_json::Value;
use thiserror::Error as ThisError;

use crate::clock::Timestamp;
use crate::kv::{self, Corrupt, Key, KeySpace, PageRequest, Read, Store, Tenant, Write, codec, limits};
use crate::random::Random;
use crate::recent::Recent;

pub use record::Session;
use record::{Epoch, Revoked, Stored};
pub use token::Token;
use token::{Tag, is_id};

/// Shortest idle or absolute limit, in seconds: KV's own shortest time to live.
pub const LIMIT_SECONDS_MIN: u64 = limits::TTL_SECONDS_MIN;
/// Longest idle or absolute limit, in seconds: one year.
pub const LIMIT_SECONDS_MAX: u64 = 31_536_000;
/// Idle limit when none is given, in seconds: one day.
pub const IDLE_SECONDS_DEFAULT: u64 = 86_400;
/// Absolute limit when none is given, in seconds: one week.
pub const ABSOLUTE_SECONDS_DEFAULT: u64 = 604_800;

/// Shortest time between two writes of one record, in milliseconds.
const REFRESH_MILLIS: u64 = 60_000;
/// For how long an isolate remembers a rotation, in milliseconds: KV may show it the old record, and hide the mark, for
/// as long as its location keeps what it read.
const ROTATION_MILLIS: u64 = 60_000;
/// How many of its refreshes and rotations an isolate should remember: a minute's worth of a busy one, some 200 KB.
pub const RECENT_MAX: usize = 1024;
/// How long a revocation is remembered, in seconds: no session, brought back or not, lives longer.
const REVOKED_SECONDS: u64 = LIMIT_SECONDS_MAX + COLLECT_MARGIN_SECONDS;
/// How long KV keeps a record past its end, in seconds, so that garbage collection never races the decision.
const COLLECT_MARGIN_SECONDS: u64 = 60;

/// What a new session is made of. Bounds are the caller's business, except the limits, which are brought into range.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSession {
    /// Whose session it is.
    pub user_id: String,
    /// The user's address, if it is to travel with the session.
    pub email: Option<String>,
    /// The user's roles at the time of login. A change of roles should rotate or revoke.
    pub roles: Vec<String>,
    /// Anything else.
    pub data: Value,
    /// The session ends when it was not refreshed for so long, in seconds.
    pub idle_seconds: u64,
    /// The session ends this long after its creation, whatever happens, in seconds.
    pub absolute_seconds: u64,
}

/// What is true of a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It proves this session.
    Valid(Session),
    /// It proves nothing; clients must not learn why.
    Refused(Refusal),
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a token of this service: wrong form or checksum. KV was not asked.
    Malformed,
    /// No such session: never created, collected, revoked, or of another tenant.
    Unknown,
    /// It idled out or reached its absolute limit.
    Expired,
    /// All sessions of the user, or this one, were revoked.
    Revoked,
    /// The record is there and cannot be read. Worth an alarm.
    Unreadable(Corrupt),
}

/// A token that was just made, with its session.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// The secret, to be handed to the user once.
    pub token: Token,
    /// The session it proves.
    pub session: Session,
    /// Its absolute limit, which no refresh moves.
    pub ends_at: Timestamp,
}

/// What became of a rotation.
#[derive(Clone, Debug, PartialEq)]
pub enum Rotation {
    /// The new token is valid, the old one is revoked.
    Rotated(Issued),
    /// The new token is valid, and KV failed to take the old one back: it is still valid until it expires.
    OldStillValid(Issued),
    /// The old token proves nothing, so there is no new one.
    Refused(Refusal),
}

/// A page of a user's live sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPage {
    /// Sessions that are alive as far as this location knows.
    pub sessions: Vec<Session>,
    /// Records that could not be read, and were kept.
    pub unreadable: u32,
    /// KV's cursor of the next page.
    pub cursor: Option<String>,
}

/// Why a call failed. Nothing is half done unless the variant says so.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// KV failed; a write may nevertheless have happened, and repeating the call is safe.
    #[error(transparent)]
    Store(#[from] kv::Error),
}

/// The sessions of one tenant.
#[derive(Clone, Debug)]
pub struct Sessions<S> {
    store: S,
    records: KeySpace,
    epochs: KeySpace,
    revoked: KeySpace,
    tenant: Tenant,
    per_user_max: u32,
    recent: Recent<Timestamp>,
}

impl<S: Store> Sessions<S> {
    /// The sessions of `tenant` in `store`. A user keeps at most `per_user_max` of them, the newest; 0 means any
    /// number. The cap is approximate: it counts what a list shows, and lists lag. `recent` is the isolate's memory of its
    /// own refreshes and rotations, shared by all its requests.
    pub fn new(store: S, tenant: &Tenant, per_user_max: u32, recent: Recent<Timestamp>) -> Self {
        Self {
            store,
            records: tenant.space("session"),
            epochs: tenant.space("epoch"),
            revoked: tenant.space("revoked"),
            tenant: tenant.clone(),
            per_user_max,
            recent,
        }
    }

    /// Starts a session. Its key is new and was never read, so the token works everywhere at once.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed. An unknown session may be left behind; nobody has its token.
    pub async fn create(&self, new: NewSession, now: Timestamp, random: &impl Random) -> Result<Issued, Error> {
        let tag = self.tag(&new.user_id);
        let issued = self.issue(&tag, Stored::new(new, now), random, now).await?;
        if self.per_user_max > 0 {
            self.end_oldest(&tag, &issued.session.id).await?;
        }
        Ok(issued)
    }

    /// What `token` proves now. It never writes.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed, so nothing is known about the token.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Verdict, Error> {
        Ok(match self.find(token, now).await? {
            Ok((token, stored)) => Verdict::Valid(stored.into_session(token.id())),
            Err(refusal) => Verdict::Refused(refusal),
        })
    }

    /// Proves `token` and puts its idle limit off, at most once a minute. Within that minute, and when KV refuses the
    /// write because another request made it just now, the answer is the session as it is stored.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed. The session is as it was, or refreshed.
    pub async fn refresh(&self, token: &str, now: Timestamp) -> Result<Verdict, Error> {
        let (token, stored) = match self.find(token, now).await? {
            Ok(found) => found,
            Err(refusal) => return Ok(Verdict::Refused(refusal)),
        };
        let key = self.record_key(token.tag(), &token.id());
        // KV may hide a write from the very isolate that made it, for as long as its location keeps the older copy.
        let seen = self.recent.get(key.as_str()).map_or(stored.seen, |own| own.max(stored.seen));
        if now.millis_since(seen) < REFRESH_MILLIS {
            return Ok(Verdict::Valid(Stored { seen, ..stored }.into_session(token.id())));
        }
        let refreshed = Stored { seen: now, ..stored.clone() };
        // Before the write, so that requests meanwhile do not make it too.
        self.recent.put(key.as_str(), now);
        match self.write(&key, &refreshed, now).await {
            Ok(()) => {}
            Err(kv::Error::Throttled) => return Ok(Verdict::Valid(stored.into_session(token.id()))),
            Err(error) => {
                self.recent.remove(key.as_str());
                return Err(error.into());
            }
        }
        if self.is_revoked(token.tag(), &token.id()).await? {
            self.store.delete(&key).await?;
            return Ok(Verdict::Refused(Refusal::Revoked));
        }
        Ok(Verdict::Valid(refreshed.into_session(token.id())))
    }

    /// Exchanges `token` for a new one of a new session with the same content and the same absolute limit, once in an
    /// isolate; of two that cross in different ones both may get a session:
    ///
    /// 1. the new record is written, under a key nobody has read;
    /// 2. if the old session was revoked meanwhile, the new one is taken back;
    /// 3. the old one is revoked.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed before step 3. The old token is as it was; an unknown session may be left behind.
    pub async fn rotate(&self, token: &str, now: Timestamp, random: &impl Random) -> Result<Rotation, Error> {
        let (old, stored) = match self.find(token, now).await? {
            Ok(found) => found,
            Err(refusal) => return Ok(Rotation::Refused(refusal)),
        };
        let mark = self.revoked.key(&[old.tag().as_str(), &old.id()]);
        // Not for ever: the request that put it may have ended in the middle, with the token as it was.
        if self.recent.get(mark.as_str()).is_some_and(|at| now.millis_since(at) < ROTATION_MILLIS) {
            return Ok(Rotation::Refused(Refusal::Revoked));
        }
        // Before the first write, so that whoever comes with the same token meanwhile does not get a session too.
        self.recent.put(mark.as_str(), now);
        let outcome = self.exchange(&old, stored, random, now).await;
        if !matches!(outcome, Ok(Rotation::Rotated(_) | Rotation::Refused(_))) {
            self.recent.remove(mark.as_str());
        }
        outcome
    }

    async fn exchange(
        &self,
        old: &Token,
        stored: Stored,
        random: &impl Random,
        now: Timestamp,
    ) -> Result<Rotation, Error> {
        let issued = self.issue(old.tag(), Stored { seen: now, ..stored }, random, now).await?;
        if self.is_revoked(old.tag(), &old.id()).await? {
            self.store.delete(&self.record_key(old.tag(), &issued.session.id)).await?;
            return Ok(Rotation::Refused(Refusal::Revoked));
        }
        Ok(match self.revoke_one(old.tag(), &old.id()).await {
            Ok(()) => Rotation::Rotated(issued),
            Err(_) => Rotation::OldStillValid(issued),
        })
    }

    /// Ends the session of `token`, also when it is already gone. Nothing is read.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed; the session may still be alive.
    pub async fn revoke(&self, token: &str) -> Result<(), Error> {
        match Token::parse(token) {
            Some(token) => self.revoke_one(token.tag(), &token.id()).await,
            None => Ok(()),
        }
    }

    /// Ends the session `id` of `user`, also when there is none. It cannot touch another user's session: the user is
    /// part of the key.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed; the session may still be alive.
    pub async fn revoke_of_user(&self, user: &str, id: &str) -> Result<(), Error> {
        if is_id(id) { self.revoke_one(&self.tag(user), id).await } else { Ok(()) }
    }

    /// Ends every session of `user` created up to now, by one write.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed; the sessions may still be alive.
    pub async fn revoke_all(&self, user: &str, now: Timestamp) -> Result<(), Error> {
        let key = self.epochs.key(&[self.tag(user).as_str()]);
        let bytes = codec::encode(&Epoch { revoked_to: now })?;
        // Sessions the epoch speaks of are all past their absolute limit when KV may collect it.
        Ok(self.store.put(&key, &bytes, Write::expiring_in(LIMIT_SECONDS_MAX + COLLECT_MARGIN_SECONDS)).await?)
    }

    /// A page of `user`'s live sessions, `request.limit` records at most. Sessions created or ended in the last minute
    /// may be wrongly missing or present: lists lag.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: KV failed.
    pub async fn list(&self, user: &str, request: &PageRequest, now: Timestamp) -> Result<SessionPage, Error> {
        let tag = self.tag(user);
        let epoch_key = self.epochs.key(&[tag.as_str()]);
        let prefix = self.sessions_of(&tag);
        let page = self.store.list(&prefix, request).await?;
        let keys: Vec<Key> = page.keys.iter().filter_map(|key| prefix.key(&key.name)).collect();
        let mut listed = SessionPage { sessions: Vec::new(), unreadable: 0, cursor: page.cursor };
        let epoch = self.store.get(&epoch_key, Read::FRESHEST).await?;
        // Without a readable epoch no session can be shown to be alive, and none is accepted either.
        let Ok(epoch) = codec::decode_found::<Epoch>(epoch) else {
            listed.unreadable = 1;
            return Ok(listed);
        };
        for keys in keys.chunks(limits::BULK_KEYS_MAX) {
            let values = self.store.get_many(keys, Read::FRESHEST).await?;
            for (key, value) in keys.iter().zip(values) {
                let Some(bytes) = value else { continue };
                let id = prefix.rest(key.as_str()).unwrap_or_default().to_owned();
                match codec::decode::<Stored>(&bytes) {
                    Ok(stored) if stored.is_alive(epoch.as_ref(), now) => listed.sessions.push(stored.into_session(id)),
                    Ok(_) => {}
                    Err(_) => listed.unreadable += 1,
                }
            }
        }
        Ok(listed)
    }

    async fn find(&self, token: &str, now: Timestamp) -> Result<Result<(Token, Stored), Refusal>, Error> {
        let Some(token) = Token::parse(token) else { return Ok(Err(Refusal::Malformed)) };
        let keys = [self.record_key(token.tag(), &token.id()), self.epochs.key(&[token.tag().as_str()])];
        let mut found = self.store.get_many(&keys, Read::FRESHEST).await?.into_iter();
        let (record, epoch) = (found.next().flatten(), found.next().flatten());
        Ok(judge(&token, record.as_deref(), epoch.as_deref(), now).map(|stored| (token, stored)))
    }

    async fn issue(&self, tag: &Tag, content: Stored, random: &impl Random, now: Timestamp) -> Result<Issued, Error> {
        let token = Token::generate(tag, random);
        let stored = Stored { hash: token.hash(), ..content };
        self.write(&self.record_key(tag, &token.id()), &stored, now).await?;
        let ends_at = stored.ends_at();
        let session = stored.into_session(token.id());
        Ok(Issued { token, session, ends_at })
    }

    async fn write(&self, key: &Key, stored: &Stored, now: Timestamp) -> Result<(), kv::Error> {
        let seconds = stored.expires_at().millis_since(now).div_ceil(1000) + COLLECT_MARGIN_SECONDS;
        let metadata = format!("{{\"createdAt\":{}}}", stored.created.millis());
        let write = Write::expiring_in(seconds).with_metadata(metadata);
        self.store.put(key, &codec::encode(stored)?, write).await
    }

    async fn is_revoked(&self, tag: &Tag, id: &str) -> Result<bool, Error> {
        let key = self.revoked.key(&[tag.as_str(), id]);
        Ok(self.store.get(&key, Read::FRESHEST).await?.is_some())
    }

    /// The mark first: whoever writes the record back after the delete finds it.
    async fn revoke_one(&self, tag: &Tag, id: &str) -> Result<(), Error> {
        let mark = self.revoked.key(&[tag.as_str(), id]);
        match self.store.put(&mark, &codec::encode(&Revoked {})?, Write::expiring_in(REVOKED_SECONDS)).await {
            // The mark was written less than a second ago, so it is there.
            Ok(()) | Err(kv::Error::Throttled) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.store.delete(&self.record_key(tag, id)).await?)
    }

    async fn end_oldest(&self, tag: &Tag, newest: &str) -> Result<(), Error> {
        let prefix = self.sessions_of(tag);
        let page = self.store.list(&prefix, &PageRequest::default()).await?;
        let mut others: Vec<(u64, String)> = page
            .keys
            .iter()
            .filter_map(|key| Some((record::created_in(key.metadata.as_deref()?)?, prefix.rest(&key.name)?.to_owned())))
            .filter(|(_, id)| id != newest)
            .collect();
        others.sort_unstable();
        let keep = usize::try_from(self.per_user_max.saturating_sub(1)).unwrap_or(usize::MAX);
        let ended = others.len().saturating_sub(keep);
        for (_, id) in others.into_iter().take(ended) {
            self.revoke_one(tag, &id).await?;
        }
        Ok(())
    }

    fn tag(&self, user: &str) -> Tag {
        Tag::of(&self.tenant, user)
    }

    fn record_key(&self, tag: &Tag, id: &str) -> Key {
        self.records.key(&[tag.as_str(), id])
    }

    fn sessions_of(&self, tag: &Tag) -> kv::Prefix {
        // A tag has 22 characters, so the prefix is never too long to follow.
        self.records.below(&[tag.as_str()]).unwrap_or_else(|_| self.records.all())
    }
}

/// What the two records say about `token` at `now`.
fn judge(token: &Token, record: Option<&[u8]>, epoch: Option<&[u8]>, now: Timestamp) -> Result<Stored, Refusal> {
    let unreadable = |error| match error {
        kv::Error::Corrupt(why) => Refusal::Unreadable(why),
        _ => Refusal::Unreadable(Corrupt::Damaged),
    };
    let record = record.ok_or(Refusal::Unknown)?;
    let stored: Stored = codec::decode(record).map_err(unreadable)?;
    if !token.matches(&stored.hash) {
        return Err(Refusal::Unknown);
    }
    let epoch: Option<Epoch> = epoch.map(codec::decode).transpose().map_err(unreadable)?;
    if now >= stored.expires_at() {
        Err(Refusal::Expired)
    } else if stored.is_alive(epoch.as_ref(), now) {
        Ok(stored)
    } else {
        Err(Refusal::Revoked)
    }
}
