//! Errors as RFC 9457 problem details: those that several routes share, and which status a failure of KV or of an object
//! is. A problem of one route alone is made in its file.
//!
//! A [`Problem`] says what the client can act on. Internal text goes to the log at the place where it is known.

use serde::Serialize;
use serde_json::{Map, Value};

use super::reply::{Consistency, Reply};
use crate::json::JsonError;
use crate::kv;
use crate::worker::objects::CallError;

/// What is wrong with a request, or with answering it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    slug: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    field: Option<String>,
    headers: Vec<(&'static str, String)>,
    /// Members of its own (RFC 9457 §3.2).
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

impl Problem {
    /// A problem with a name of its own. `slug` ends its type URI, `/problems/<slug>`.
    pub fn new(status: u16, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { slug, title, status, detail: detail.into(), field: None, headers: Vec::new(), more: Map::new() }
    }

    /// The same, with the field to blame.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The same, with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, with a member of its own, whose name is none of the standard's.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// 400: `field` breaks a rule of the contract; an empty name means that the whole does.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let problem = Self::new(400, "invalid-request", "The request is not valid", detail);
        let field = Some(field.into()).filter(|field| !field.is_empty());
        Self { field, ..problem }
    }

    /// 400: the body is not acceptable JSON.
    pub fn malformed(error: &JsonError) -> Self {
        let problem = Self::new(400, "malformed-json", "The body is not acceptable JSON", error.to_string());
        match error {
            JsonError::DuplicateKey(key) => problem.at(key.clone()),
            _ => problem,
        }
    }

    /// 401: the caller did not prove who it is.
    pub fn unauthorized() -> Self {
        let detail = "Send a valid API token as `Authorization: Bearer <token>`.";
        Self::new(401, "unauthorized", "Authentication is needed", detail).header("WWW-Authenticate", "Bearer")
    }

    /// 403: the caller's token lacks a scope.
    pub fn forbidden(resource: &str, write: bool) -> Self {
        let scope = if write { resource.to_owned() } else { format!("{resource}:read") };
        Self::new(403, "forbidden", "The token's scopes do not allow this", format!("The scope `{scope}` is needed."))
    }

    /// The same, saying how far it may be behind, whatever it said before.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.headers.retain(|(name, _)| *name != "Consistency");
        self.header("Consistency", consistency.as_str())
    }

    /// 404: KV shows no such thing, which it may do for a while after one was made.
    pub fn absent(detail: impl Into<String>) -> Self {
        Self::not_found(detail).consistency(Consistency::Eventual)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "Not found", detail)
    }

    /// 405: the path exists and the method does not. `allow` names those that do.
    pub fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("This path takes {allow}.");
        Self::new(405, "method-not-allowed", "The method is not allowed here", detail).header("Allow", allow)
    }

    /// 412: the document, as KV shows it, is not the one the caller has seen. It carries no `ETag`: who is told this has to
    /// read the new version, and its tag comes with it.
    pub fn precondition_failed() -> Self {
        let detail = "The current version does not match `If-Match` or `If-None-Match`; read it again.";
        Self::new(412, "precondition-failed", "The precondition failed", detail).consistency(Consistency::Eventual)
    }

    /// 413: the body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "too-large", "The body is too large", format!("At most {limit} bytes are taken here."))
    }

    /// 415: the body's media type is not `expected`.
    pub fn unsupported_media_type(expected: &str) -> Self {
        let detail = format!("Send the body as `{expected}`.");
        Self::new(415, "unsupported-media-type", "The media type is not supported", detail)
    }

    /// 503: KV, or what else an answer needs, does not answer. Retrying after some seconds is safe.
    pub fn unavailable(retry_after_seconds: u64) -> Self {
        let detail = "The store cannot answer at the moment. Nothing is known to have changed; repeating is safe.";
        Self::new(503, "unavailable", "Temporarily unavailable", detail)
            .header("Retry-After", retry_after_seconds.to_string())
    }

    /// 503: the deployment lacks a setting.
    pub fn not_configured(what: &str) -> Self {
        let detail = format!("The deployment is not complete: {what}.");
        Self::new(503, "not-configured", "The deployment is not complete", detail).header("Retry-After", "60")
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Status, detail and headers, for a protocol with an error format of its own.
    pub(super) fn into_parts(self) -> (u16, String, Vec<(&'static str, String)>) {
        (self.status, self.detail, self.headers)
    }

    /// The reply that tells the client.
    pub fn into_reply(self) -> Reply {
        let document = Document {
            r#type: format!("/problems/{}", self.slug),
            title: self.title,
            status: self.status,
            detail: &self.detail,
            field: self.field.as_deref(),
            more: &self.more,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut reply = Reply::bytes(self.status, "application/problem+json", body);
        for (name, value) in self.headers {
            reply = reply.header(name, value);
        }
        reply
    }
}

/// `message` with a capital letter and a full stop. What begins with a name in quotes keeps that.
pub(super) fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect()
}

impl From<kv::Error> for Problem {
    /// KV failing is never the client's fault, whatever KV calls it: inputs are checked before they get there.
    fn from(error: kv::Error) -> Self {
        worker::console_error!("KV failed: {error}");
        match error {
            kv::Error::Throttled => Self::unavailable(1),
            kv::Error::QuotaSpent => Self::unavailable(3600),
            kv::Error::Corrupt(_) => {
                let detail = "A stored record cannot be read. It was kept, and the operator was told.";
                Self::new(500, "corrupt-record", "A stored record is unreadable", detail)
            }
            _ => Self::unavailable(5),
        }
    }
}

impl From<CallError> for Problem {
    /// An object failing is never the client's fault; what was asked may have happened.
    fn from(error: CallError) -> Self {
        worker::console_error!("{error}");
        let retry_after_seconds = if error == CallError::Overloaded { "2" } else { "1" };
        let detail = "The place that decides this cannot answer at the moment. What was asked may have happened: \
                      repeating is safe with the same `Idempotency-Key`, where this call takes one.";
        Self::new(503, "unavailable", "Temporarily unavailable", detail).header("Retry-After", retry_after_seconds)
    }
}
