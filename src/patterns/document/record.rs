//! A document as it is stored, and what its metadata says to lists that read no values.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OWN;
use crate::clock::Timestamp;
use crate::kv::codec::Record;
use crate::kv::{Error, Page, PageKey, Prefix, Write, unescape};
use crate::stamp::Stamp;

/// What a user wrote, or its copy in a newer version: that has the same stamp, and the time of its making.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    version: u32,
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrated_at: Option<Timestamp>,
    data: Value,
}

impl Record for Document {
    const KIND: &'static str = "document";
    const VERSION: u32 = 1;
}

impl Document {
    /// What a user wrote.
    pub const fn new(stamp: Stamp, version: u32, expires_at: Option<Timestamp>, data: Value) -> Self {
        Self { version, stamp, expires_at, migrated_at: None, data }
    }

    /// The copy of this document in `version`.
    #[must_use]
    pub fn migrated(&self, version: u32, data: Value, now: Timestamp) -> Self {
        Self { version, data, migrated_at: Some(now), ..*self }
    }

    /// Whether this is a newer version of just what `own` holds.
    pub fn is_copy_of(&self, own: &Self) -> bool {
        self.stamp == own.stamp && self.version > own.version
    }

    /// The schema version of the content.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// When and by whom the original was written.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// When it ends.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The content.
    pub const fn data(&self) -> &Value {
        &self.data
    }

    /// Whether it has not ended.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// How it is written: with what is left of its time, and with its metadata.
    ///
    /// # Errors
    ///
    /// The metadata has no JSON, which does not happen.
    pub(super) fn write(&self, id: &str, now: Timestamp) -> Result<Write, Error> {
        let left = self.expires_at.map(|expires_at| expires_at.millis_since(now).div_ceil(1000));
        let metadata = Metadata {
            version: self.version,
            stamp: self.stamp,
            expires_at: self.expires_at,
            migrated_at: self.migrated_at,
            id: id.to_owned(),
        };
        let metadata = serde_json::to_string(&metadata).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(left.map_or_else(Write::default, Write::expiring_in).with_metadata(metadata))
    }
}

/// What lists see of a document. The id stands in it because long ids are hashed in keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) version: u32,
    pub(super) stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) migrated_at: Option<Timestamp>,
    id: String,
}

/// A document in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its id.
    pub id: String,
    /// The newest version it is stored in; nothing when its metadata is unreadable.
    pub version: Option<u32>,
    /// When its user wrote it.
    pub updated_at: Option<Timestamp>,
    /// When its newest version was made by a migration; nothing when its user wrote that version.
    pub migrated_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// What a list showed of one id: the metadata of the original, if that was there, and of a copy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// As it stands in the key, escaped or hashed.
    segment: String,
    /// Whether the original was there.
    pub(super) has_own: bool,
    /// Its metadata, where readable.
    pub(super) own: Option<Metadata>,
    pub(super) copy: Option<Metadata>,
}

impl Pair {
    /// The id; nothing when it is hashed and no metadata tells it.
    pub(super) fn id(&self) -> Option<String> {
        self.own.as_ref().or(self.copy.as_ref()).map(|metadata| metadata.id.clone()).or_else(|| unescape(&self.segment))
    }

    /// The newest that counts under a schema of `version`: the copy, if it is one of this original and of no version
    /// that was taken back since, otherwise the original.
    pub(super) fn newest(&self, version: u32) -> Option<&Metadata> {
        let own = self.own.as_ref()?;
        let counts =
            |copy: &&Metadata| copy.stamp == own.stamp && copy.version > own.version && copy.version <= version;
        self.copy.as_ref().filter(counts).or(Some(own))
    }

    pub(super) fn summary(self, version: u32) -> Option<Summary> {
        if !self.has_own {
            return None;
        }
        let own = self.own.as_ref();
        let newest = self.newest(version);
        Some(Summary {
            id: self.id()?,
            version: newest.map(|metadata| metadata.version),
            updated_at: own.map(|own| own.stamp.at()),
            migrated_at: newest.and_then(|metadata| metadata.migrated_at),
            expires_at: own.and_then(|own| own.expires_at),
        })
    }
}

/// A page of a list, with originals and copies brought together.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) pairs: Vec<Pair>,
    pub(super) cursor: Option<String>,
}

/// Where a page ended; a copy at its very end is kept for the original that comes first on the next one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    page: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copy: Option<(String, Metadata)>,
}

impl Pairs {
    pub(super) fn resume(cursor: Option<&str>) -> Result<(Option<String>, Option<Pair>), Error> {
        let Some(text) = cursor else { return Ok((None, None)) };
        let position: Position =
            serde_json::from_slice(text.as_bytes()).map_err(|error| Error::Invalid(error.to_string()))?;
        let pending =
            position.copy.map(|(segment, copy)| Pair { segment, has_own: false, own: None, copy: Some(copy) });
        Ok((Some(position.page), pending))
    }

    pub(super) fn join(prefix: &Prefix, page: Page, pending: Option<Pair>) -> Self {
        let mut pairs: Vec<Pair> = pending.into_iter().collect();
        for key in &page.keys {
            let Some((segment, part)) = prefix.rest(&key.name).and_then(|rest| rest.rsplit_once('/')) else { continue };
            if pairs.last().is_none_or(|last| last.segment != segment) {
                pairs.push(Pair { segment: segment.to_owned(), has_own: false, own: None, copy: None });
            }
            if let Some(pair) = pairs.last_mut() {
                if part == OWN {
                    (pair.has_own, pair.own) = (true, metadata(key));
                } else {
                    pair.copy = metadata(key);
                }
            }
        }
        let unfinished = if page.cursor.is_some() { pairs.pop_if(|last| !last.has_own) } else { None };
        let copy = unfinished.and_then(|pair| Some((pair.segment, pair.copy?)));
        let cursor = page.cursor.and_then(|page| serde_json::to_string(&Position { page, copy }).ok());
        Self { pairs, cursor }
    }
}

fn metadata(key: &PageKey) -> Option<Metadata> {
    serde_json::from_slice(key.metadata.as_deref()?.as_bytes()).ok()
}
