//! Entity tags and the conditions that name them (RFC 9110 §8.8.3, §13.1): a tag is a hash of what it stands for, so equal
//! contents have equal tags, and a change and its undoing cannot be told from none.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The strong entity tag of a document: equal documents have equal tags.
pub fn entity_tag(document: &impl Serialize) -> String {
    // What has no JSON has no tag that any condition could name.
    etag(&serde_json::to_vec(document).unwrap_or_default())
}

/// The strong entity tag of these bytes, quotes included. Source: RFC 9110 §8.8.3.
pub fn etag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("\"{}\"", Base64UrlUnpadded::encode_string(digest.get(..16).unwrap_or_default()))
}

/// What a writer demands of the document as it stands. Source: RFC 9110 §§13.1.1, 13.1.2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Precondition {
    /// The value of `If-Match`: `*` or a list of tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// The value of `If-None-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

impl Precondition {
    /// Whether nothing is demanded.
    pub fn is_none(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Whether it holds for the document whose tag is `current`; nothing: there is no document.
    pub fn holds(&self, current: Option<&str>) -> bool {
        let matched = self.if_match.as_deref().is_none_or(|tags| names(tags, current, false));
        matched && self.if_none_match.as_deref().is_none_or(|tags| !names(tags, current, true))
    }
}

/// Whether the list `tags` names `current`. The weak comparison ignores the mark `W/`; the strong one never matches it.
fn names(tags: &str, current: Option<&str>, weak: bool) -> bool {
    let Some(current) = current else { return false };
    tags.split(',').map(str::trim).any(|tag| {
        let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == current
    })
}
