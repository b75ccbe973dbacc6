//! A copy as it is stored: a head with its stamp, and the caller's bytes, untouched, behind it.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::kv::codec::{self, Record};
use crate::kv::{Corrupt, Error};
use crate::stamp::Stamp;

/// The caller's bytes and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their media type, as the caller said.
    pub content_type: Option<String>,
}

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// When and by whom it was written.
    pub stamp: Stamp,
    /// When it ends; never when nothing. A tombstone's end is that of its grace.
    pub expires_at: Option<Timestamp>,
    /// What was written; nothing in a tombstone.
    pub content: Option<Content>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl Record for Head {
    const KIND: &'static str = "replica";
    const VERSION: u32 = 1;
}

impl Value {
    /// Whether it is neither a tombstone nor at its end.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.content.is_some() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// The bytes to store: the head's two lines, then the content.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = codec::encode(&Head {
            stamp: self.stamp,
            expires_at: self.expires_at,
            content_type: self.content.as_ref().and_then(|content| content.content_type.clone()),
            deleted: self.content.is_none(),
        })?;
        bytes.push(b'\n');
        bytes.extend_from_slice(self.content.as_ref().map_or(&[], |content| content.bytes.as_slice()));
        Ok(bytes)
    }

    /// The version in `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        // JSON on one line has no line break, so the second one ends the head.
        let mut breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index);
        let end = breaks.nth(1).unwrap_or(bytes.len());
        let (head, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let head: Head = codec::decode(head)?;
        let body = rest.strip_prefix(b"\n").ok_or(Error::Corrupt(Corrupt::Damaged))?;
        let content = Content { bytes: body.to_vec(), content_type: head.content_type };
        Ok(Self { stamp: head.stamp, expires_at: head.expires_at, content: (!head.deleted).then_some(content) })
    }
}
