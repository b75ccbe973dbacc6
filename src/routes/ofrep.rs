//! The OpenFeature Remote Evaluation Protocol, version 0.3.0: any OpenFeature SDK is a client.
//!
//! - As in flagd, an empty body and a context without `targetingKey` are taken; rules then see no such member.
//! - Failures are `application/json` with `key` (single evaluation), `errorCode` and `errorDetails`, whatever their
//!   status: published clients call anything else an unexpected response.
//! - An answer without a value carries `"variant": ""`, which the protocol allows and the Python client needs.
//! - The bulk `ETag` stands for the answers to this context. Where no rule reads the time it is a hash of revision and
//!   context, and a 304 costs no evaluation; otherwise it is a hash of the body. The protocol compares it on POST,
//!   where RFC 9110 would not answer 304.
//! - The place of the request (`cf.country`, `cf.continent`, `cf.colo`) joins the context where a rule may read it.
//! - Credentials are a bearer token or `X-API-Key`. `flagConfigEtag` and `flagConfigLastModified` are for event streams,
//!   which there are none of, and are ignored.
//!
//! Source: <https://github.com/open-feature/protocol>, `service/openapi.yaml`.

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use worker::Request;

use super::extract::{self, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, Context, Outcome, Route, flag, route};
use crate::etag::etag;
use crate::json;
use crate::patterns::flag::bounds::CONTEXT;
use crate::patterns::flag::{ErrorCode, Evaluation, EvaluationContext, FlagSet, Outcome as Decided, PLACE, Snapshot};
use crate::worker::http;

const READ: Access = Access::Read(&["flags"]);
const SINGLE: &str = "/ofrep/v1/evaluate/flags/";

pub(super) const ROUTES: &[Route] = &[
    route!(POST "/ofrep/v1/evaluate/flags", READ, evaluate_all),
    route!(POST "/ofrep/v1/evaluate/flags/", READ, evaluate_all),
    route!(POST "/ofrep/v1/evaluate/flags/*key", READ, evaluate),
];

/// Largest body, in bytes: a context, with room for escapes and what is around it.
const BODY_BYTES_MAX: usize = 2 * CONTEXT.bytes;
/// Deepest body: a context inside `{"context": ...}`.
const BODY_DEPTH_MAX: usize = CONTEXT.depth + 2;

/// One flag's answer, of either kind.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_details: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct Bulk<'a> {
    flags: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map<String, Value>>,
}

impl<'a> Item<'a> {
    fn failure(key: Option<&'a str>, code: ErrorCode, details: &'a str) -> Self {
        Self { key, error_code: Some(code.as_str()), error_details: Some(details), ..Self::default() }
    }

    fn of(evaluation: &'a Evaluation<'a>) -> Self {
        let key = Some(evaluation.key);
        let item = match &evaluation.outcome {
            Decided::Value { value, variant, reason } => Self {
                key,
                value: Some(value),
                reason: Some(reason.as_str()),
                variant: Some(variant),
                ..Self::default()
            },
            Decided::CodeDefault { reason } => {
                Self { key, reason: Some(reason.as_str()), variant: Some(""), ..Self::default() }
            }
            Decided::Error { code, details } => Self::failure(key, *code, details),
        };
        Self { metadata: shown(evaluation.metadata), ..item }
    }
}

fn shown(metadata: &Map<String, Value>) -> Option<&Map<String, Value>> {
    (!metadata.is_empty()).then_some(metadata)
}

/// A request that cannot be evaluated.
struct Unusable {
    code: ErrorCode,
    details: String,
}

impl Unusable {
    fn new(code: ErrorCode, details: &impl ToString) -> Self {
        Self { code, details: details.to_string() }
    }

    fn reply(&self, key: Option<&str>) -> Reply {
        Reply::json(400, &Item::failure(key, self.code, &self.details))
    }
}

async fn evaluate(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    let asked = match asked(&request).await? {
        Ok(asked) => asked,
        Err(unusable) => return Ok(unusable.reply(Some(&key))),
    };
    let now = context.data.now();
    let snapshot = flag::flags(&context)?.snapshot(now).await?;
    let Some(snapshot) = snapshot else {
        let details = "there is no flag document";
        let item = Item::failure(Some(&key), ErrorCode::FlagNotFound, details);
        return Ok(Reply::json(404, &item).consistency(Consistency::Eventual));
    };
    let asked = placed(asked, &request, &snapshot);
    let evaluation = snapshot.flags().evaluate(&key, &asked, now);
    let status = match evaluation.outcome {
        Decided::Error { code: ErrorCode::FlagNotFound, .. } => 404,
        Decided::Error { .. } => 400,
        _ => 200,
    };
    Ok(Reply::json(status, &Item::of(&evaluation)).consistency(Consistency::Eventual))
}

async fn evaluate_all(request: Request, context: Context) -> Outcome {
    let asked = match asked(&request).await? {
        Ok(asked) => asked,
        Err(unusable) => return Ok(unusable.reply(None)),
    };
    let now = context.data.now();
    let known = extract::header(&request, "if-none-match").unwrap_or_default();
    let Some(snapshot) = flag::flags(&context)?.snapshot(now).await? else {
        return Ok(answer(br#"{"flags":[]}"#.to_vec(), &known));
    };
    let asked = placed(asked, &request, &snapshot);
    if snapshot.reads_time() {
        return Ok(answer(bulk(snapshot.flags(), &asked, now), &known));
    }
    let tag = tag_without_time(&snapshot, &asked);
    if names(&known, &tag) {
        return Ok(tagged(Reply::empty(304), &tag));
    }
    let body = bulk(snapshot.flags(), &asked, now);
    Ok(tagged(Reply::bytes(200, "application/json", body), &tag))
}

fn bulk(flags: &FlagSet, asked: &EvaluationContext, now: crate::clock::Timestamp) -> Vec<u8> {
    let evaluations = flags.evaluate_all(asked, now);
    let bulk = Bulk { flags: evaluations.iter().map(Item::of).collect(), metadata: shown(flags.metadata()) };
    // Text keys and finite numbers: nothing here can fail to be written.
    serde_json::to_vec(&bulk).unwrap_or_default()
}

/// The body under its own hash, or 304.
fn answer(body: Vec<u8>, known: &str) -> Reply {
    let tag = etag(&body);
    let reply = if names(known, &tag) { Reply::empty(304) } else { Reply::bytes(200, "application/json", body) };
    tagged(reply, &tag)
}

fn tagged(reply: Reply, tag: &str) -> Reply {
    reply.header("ETag", tag).consistency(Consistency::Eventual)
}

/// What the answers depend on when no rule reads the time: the engine, the document (its hash algorithm included) and
/// the context with the request's place, whose members are sorted.
fn tag_without_time(snapshot: &Snapshot, asked: &EvaluationContext) -> String {
    let mut hash = Sha256::new();
    for part in [env!("CARGO_PKG_VERSION").as_bytes(), snapshot.current().revision.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(serde_json::to_vec(asked.fields()).unwrap_or_default());
    etag(&hash.finalize())
}

/// Whether `If-None-Match` names `tag`: lists, `*`, `W/`, and the bare values that some clients send.
fn names(known: &str, tag: &str) -> bool {
    let bare = |text: &str| text.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let wanted = bare(tag);
    known.split(',').map(bare).any(|known| known == "*" || known == wanted)
}

/// The context in the body.
async fn asked(request: &Request) -> Result<Result<EvaluationContext, Unusable>, Problem> {
    let bytes = match extract::bytes(request, BODY_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(problem) if problem.status() == 413 => {
            let details = format!("the request is larger than {BODY_BYTES_MAX} bytes");
            return Ok(Err(Unusable::new(ErrorCode::InvalidContext, &details)));
        }
        Err(problem) => return Err(problem),
    };
    Ok(context_in(&bytes))
}

fn context_in(bytes: &[u8]) -> Result<EvaluationContext, Unusable> {
    if bytes.is_empty() {
        return Ok(EvaluationContext::default());
    }
    let body = json::parse(bytes, BODY_DEPTH_MAX).map_err(|error| Unusable::new(ErrorCode::ParseError, &error))?;
    let Value::Object(mut members) = body else {
        return Err(Unusable::new(ErrorCode::ParseError, &"the body is not an object"));
    };
    match members.remove("context") {
        None | Some(Value::Null) => Ok(EvaluationContext::default()),
        Some(context) => {
            EvaluationContext::new(context).map_err(|error| Unusable::new(ErrorCode::InvalidContext, &error))
        }
    }
}

/// The context with the request's place, if a rule may read it.
fn placed(asked: EvaluationContext, request: &Request, snapshot: &Snapshot) -> EvaluationContext {
    if !snapshot.reads_place() {
        return asked;
    }
    let said = ["country", "continent", "colo"].map(|name| (name, http::cf(request.inner(), name)));
    let said = said.into_iter().filter(|(_, text)| !text.is_empty());
    let place = json::object(said.map(|(name, text)| (name.to_owned(), json!(text))));
    asked.with(PLACE, Value::Object(place))
}

/// A failure met outside a handler (or by KV), as clients of this protocol read it.
pub(super) fn refusal(problem: Problem, path: &str) -> Reply {
    let key = path.strip_prefix(SINGLE).filter(|key| !key.is_empty());
    let key = key.map(|key| percent_encoding::percent_decode_str(key).decode_utf8_lossy());
    let (status, details, headers) = problem.into_parts();
    let reply = Reply::json(status, &Item::failure(key.as_deref(), ErrorCode::General, &details));
    headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, value))
}

/// Whether `path` is one of this protocol.
pub(super) fn speaks(path: &str) -> bool {
    path.starts_with("/ofrep/")
}
