//! Bodies that change a document: a whole one, a merge patch or a JSON Patch, told apart by method and media type.

use serde_json::{Map, Value};
use worker::Request;

use super::extract;
use super::problem::{Problem, sentence};
use super::reply::Consistency;
use crate::json;
use crate::patch::{Patch, PatchError};

/// The media types that `PATCH` takes. Sources: RFC 7396 §4, RFC 6902 §6.
const MERGE: &str = "application/merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";

/// The patch in the body of `request`, of at most `limit` bytes.
///
/// # Errors
///
/// 415: neither a merge patch nor a JSON Patch. 413: too large. 400: not acceptable JSON, or not a patch.
pub async fn patch(request: &Request, limit: usize) -> Result<Patch, Problem> {
    let media_type = extract::header(request, "content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let operations = match media_type.as_str() {
        OPERATIONS => true,
        MERGE | "application/json" | "" => false,
        _ => {
            let expected = format!("{MERGE}, {OPERATIONS}");
            return Err(Problem::unsupported_media_type(&expected).header("Accept-Patch", expected));
        }
    };
    let bytes = extract::bytes(request, limit).await?;
    let body = json::parse(&bytes, json::DEPTH_MAX).map_err(|error| Problem::malformed(&error))?;
    if operations { Ok(Patch::operations(body)?) } else { Ok(Patch::Merge(body)) }
}

/// The object that replaces a document.
///
/// # Errors
///
/// As [`extract::json`]; and 400 when it is not an object.
pub async fn replacement(request: &Request, limit: usize) -> Result<Map<String, Value>, Problem> {
    match extract::json(request, limit).await? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Problem::new(400, "invalid-request", "The request is not valid", "The body must be an object.")),
    }
}

impl From<PatchError> for Problem {
    /// 409 for a `test` that failed, because the document is not the one the client believed in; 400 otherwise.
    fn from(error: PatchError) -> Self {
        let detail = error.to_string();
        match error {
            PatchError::TestFailed(_) => Self::new(409, "patch-test-failed", "A test of the patch failed", detail)
                .consistency(Consistency::Eventual),
            PatchError::NotAnArray => Self::invalid("", "The body must be an array of operations."),
            PatchError::Malformed { operation, member, why } => {
                let field = member.map_or_else(|| operation.to_string(), |member| format!("{operation}/{member}"));
                Self::invalid(field, sentence(why))
            }
            PatchError::Impossible { operation, .. } => Self::invalid(operation.to_string(), detail),
            PatchError::ForbiddenName(name) => Self::invalid(name, detail),
            _ => Self::new(400, "invalid-request", "The request is not valid", detail),
        }
    }
}
