//! `ETag`, `If-Match` and `If-None-Match` of mutable documents. Source: RFC 9110 §§8.8.3, 13.1.1, 13.1.2.

use super::extract::header;
use super::problem::Problem;
use super::reply::Reply;
use crate::etag::Precondition;

/// The conditions a request sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(Precondition);

impl Conditions {
    /// The conditions of `request`.
    pub fn of(request: &worker::Request) -> Self {
        Self(Precondition { if_match: header(request, "if-match"), if_none_match: header(request, "if-none-match") })
    }

    /// For a pattern that checks them itself.
    pub fn into_precondition(self) -> Precondition {
        self.0
    }

    /// Whether the request sets any.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// May a document whose tag is `current` (nothing: there is none) be changed?
    ///
    /// # Errors
    ///
    /// 412: `If-Match` names another version, or `If-None-Match` this one.
    pub fn check_write(&self, current: Option<&str>) -> Result<(), Problem> {
        if self.0.holds(current) { Ok(()) } else { Err(Problem::precondition_failed()) }
    }

    /// The reply to a read of the document whose tag is `current`: `reply` with its tag, or 304.
    ///
    /// # Errors
    ///
    /// 412: `If-Match` names another version.
    pub fn read(self, current: &str, reply: Reply) -> Result<Reply, Problem> {
        let Precondition { if_match, if_none_match } = self.0;
        if !(Precondition { if_match, if_none_match: None }).holds(Some(current)) {
            return Err(Problem::precondition_failed());
        }
        let changed = Precondition { if_match: None, if_none_match }.holds(Some(current));
        Ok(if changed { reply } else { Reply::empty(304) }.header("ETag", current))
    }
}
