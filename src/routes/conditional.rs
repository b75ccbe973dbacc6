//! `ETag`, `If-Match` and `If-None-Match` of mutable documents. Source: RFC 9110 §§8.8.3, 13.1.1, 13.1.2.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::extract::header;
use super::problem::Problem;
use super::reply::Reply;

/// The strong entity tag of these bytes.
pub fn etag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("\"{}\"", Base64UrlUnpadded::encode_string(digest.get(..16).unwrap_or_default()))
}

/// The conditions a request sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl Conditions {
    /// The conditions of `request`.
    pub fn of(request: &worker::Request) -> Self {
        Self { if_match: header(request, "if-match"), if_none_match: header(request, "if-none-match") }
    }

    /// Whether the request sets any.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// May a document whose tag is `current` (nothing: there is none) be changed?
    ///
    /// # Errors
    ///
    /// 412: `If-Match` names another version, or `If-None-Match` this one.
    pub fn check_write(&self, current: Option<&str>) -> Result<(), Problem> {
        let matched = self.if_match.as_deref().is_none_or(|tags| names(tags, current, false));
        let unmatched = self.if_none_match.as_deref().is_none_or(|tags| !names(tags, current, true));
        if matched && unmatched { Ok(()) } else { Err(Problem::precondition_failed()) }
    }

    /// The reply to a read of the document whose tag is `current`: `reply` with its tag, or 304.
    ///
    /// # Errors
    ///
    /// 412: `If-Match` names another version.
    pub fn read(&self, current: &str, reply: Reply) -> Result<Reply, Problem> {
        if self.if_match.as_deref().is_some_and(|tags| !names(tags, Some(current), false)) {
            return Err(Problem::precondition_failed());
        }
        let known = self.if_none_match.as_deref().is_some_and(|tags| names(tags, Some(current), true));
        Ok(if known { Reply::empty(304) } else { reply }.header("ETag", current))
    }
}

/// Whether the list `tags` names `current`; `*` names anything that exists. `weak` compares without the `W/` mark.
fn names(tags: &str, current: Option<&str>, weak: bool) -> bool {
    let Some(current) = current else { return false };
    tags.split(',').map(str::trim).any(|tag| {
        let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == current
    })
}
