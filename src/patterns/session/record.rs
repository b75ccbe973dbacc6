//! What is stored of a session and what is shown of it. Stored forms are versioned; their bytes are golden.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LIMIT_SECONDS_MAX, LIMIT_SECONDS_MIN, NewSession};
use crate::clock::Timestamp;
use crate::kv::codec::Record;

/// A session as everybody may see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its public id, which cannot be turned into the token.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// The user's address, if one was given.
    pub email: Option<String>,
    /// The user's roles at the time of login.
    pub roles: Vec<String>,
    /// Anything else that was given.
    pub data: Value,
    /// When the user logged in; rotation keeps it.
    pub created_at: Timestamp,
    /// When it was last refreshed, as far as it was written: up to a minute ago.
    pub last_seen_at: Timestamp,
    /// When it ends if it is not refreshed.
    pub expires_at: Timestamp,
}

/// Stored under `session/<tag>/<id>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    /// SHA-256 of the token's body, base64url.
    pub(super) hash: String,
    pub(super) user: String,
    pub(super) email: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) data: Value,
    pub(super) created: Timestamp,
    pub(super) seen: Timestamp,
    pub(super) idle_seconds: u64,
    pub(super) absolute_seconds: u64,
}

impl Record for Stored {
    const KIND: &'static str = "session";
    const VERSION: u32 = 1;
}

/// Stored under `epoch/<tag>`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Epoch {
    /// Sessions created up to and including this moment are dead.
    pub(super) revoked_to: Timestamp,
}

impl Record for Epoch {
    const KIND: &'static str = "session-epoch";
    const VERSION: u32 = 1;
}

/// Stored under `revoked/<tag>/<id>`: that it is there says everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Revoked {}

impl Record for Revoked {
    const KIND: &'static str = "session-revoked";
    const VERSION: u32 = 1;
}

impl Stored {
    /// The content of a new session; the hash is added with the token.
    pub(super) fn new(new: NewSession, now: Timestamp) -> Self {
        let in_range = |seconds: u64| seconds.clamp(LIMIT_SECONDS_MIN, LIMIT_SECONDS_MAX);
        Self {
            hash: String::new(),
            user: new.user_id,
            email: new.email,
            roles: new.roles,
            data: new.data,
            created: now,
            seen: now,
            idle_seconds: in_range(new.idle_seconds),
            absolute_seconds: in_range(new.absolute_seconds),
        }
    }

    /// The absolute limit.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.created.plus_seconds(self.absolute_seconds)
    }

    /// The earlier of the idle and the absolute limit.
    pub(super) fn expires_at(&self) -> Timestamp {
        self.seen.plus_seconds(self.idle_seconds).min(self.ends_at())
    }

    /// Whether it is neither over nor revoked with all of its user's. A session made in the very millisecond of a
    /// revoke-all counts as revoked.
    pub(super) fn is_alive(&self, epoch: Option<&Epoch>, now: Timestamp) -> bool {
        now < self.expires_at() && epoch.is_none_or(|epoch| self.created > epoch.revoked_to)
    }

    pub(super) fn into_session(self, id: String) -> Session {
        let expires_at = self.expires_at();
        Session {
            id,
            user_id: self.user,
            email: self.email,
            roles: self.roles,
            data: self.data,
            created_at: self.created,
            last_seen_at: self.seen,
            expires_at,
        }
    }
}

/// The time of creation in a record's metadata, in milliseconds.
pub(super) fn created_in(metadata: &str) -> Option<u64> {
    let metadata: Value = serde_json::from_slice(metadata.as_bytes()).ok()?;
    metadata.get("createdAt")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::codec;

    #[test]
    fn the_stored_bytes_are_golden() {
        let stored = Stored {
            hash: "h".to_owned(),
            user: "alice".to_owned(),
            email: None,
            roles: vec!["admin".to_owned()],
            data: serde_json::json!({"a": 1.0}),
            created: Timestamp::from_millis(1),
            seen: Timestamp::from_millis(2),
            idle_seconds: 60,
            absolute_seconds: 120,
        };
        let golden = "session.1\n{\"hash\":\"h\",\"user\":\"alice\",\"email\":null,\"roles\":[\"admin\"],\"data\":{\"a\":1.0},\
                      \"created\":1,\"seen\":2,\"idle_seconds\":60,\"absolute_seconds\":120}";
        assert_eq!(String::from_utf8(codec::encode(&stored).unwrap()).unwrap(), golden);
        assert_eq!(codec::decode::<Stored>(golden.as_bytes()), Ok(stored));
        let epoch = Epoch { revoked_to: Timestamp::from_millis(7) };
        assert_eq!(codec::encode(&epoch).unwrap(), b"session-epoch.1\n{\"revoked_to\":7}");
        assert_eq!(codec::encode(&Revoked {}).unwrap(), b"session-revoked.1\n{}");
    }
}
