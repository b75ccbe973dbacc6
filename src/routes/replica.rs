//! Replicated keys over HTTP. The pattern's promises are in [`crate::patterns::replica`].

use serde::Serialize;
use serde_json::json;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::turn::{self, Turn};
use super::{Access, AppStore, Context, Outcome, Route, route};
use crate::kv;
use crate::patterns::replica::{Content, Error, ReadPolicy, Replica, Replicas, Verdict, WritePolicy, Written};
use crate::stamp::{Stamp, Stamps};
use crate::worker::clock::WorkerClock;
use crate::worker::http;
use crate::worker::random::WorkerRandom;

const READ: Access = Access::Read(&["replicated"]);
const WRITE: Access = Access::Write(&["replicated"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/replicated/*key", WRITE, put),
    route!(GET "/v1/replicated/*key", READ, get),
    route!(DELETE "/v1/replicated/*key", WRITE, delete),
];

/// Largest value, in bytes: three copies of it are held at once.
const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest time to live, in seconds: a year.
const TTL_SECONDS_MAX: u64 = 31_536_000;

const WRITE_POLICIES: &[(&str, WritePolicy)] =
    &[("any", WritePolicy::Any), ("quorum", WritePolicy::Quorum), ("all", WritePolicy::All)];
const READ_POLICIES: &[(&str, ReadPolicy)] =
    &[("nearest", ReadPolicy::Nearest), ("newest", ReadPolicy::Newest), ("quorum", ReadPolicy::Quorum)];

thread_local! {
    /// This isolate's clock for stamps.
    static STAMPS: Stamps = Stamps::new(&WorkerRandom);
}

#[derive(Serialize)]
struct OutcomeBody {
    replica: &'static str,
    outcome: &'static str,
}

#[derive(Serialize)]
struct WrittenBody {
    replicas: Vec<OutcomeBody>,
}

/// The replicas over the stores that `bind` gives. Cloudflare's continents: AF, AN, AS, EU, NA, OC, SA.
pub(super) fn members<E>(bind: impl Fn(&'static str) -> Result<AppStore, E>) -> Result<Vec<Replica<AppStore>>, E> {
    Ok(vec![
        Replica { name: "us", continents: &["NA", "SA", "AN"], store: bind("REPLICA_US")? },
        Replica { name: "eu", continents: &["EU", "AF"], store: bind("REPLICA_EU")? },
        Replica { name: "asia", continents: &["AS", "OC"], store: bind("REPLICA_ASIA")? },
    ])
}

fn replicas(context: &Context) -> Result<Replicas<AppStore, WorkerClock>, Problem> {
    let app = &context.data;
    Ok(Replicas::new(members(|binding| app.store(binding))?, app.clock, &app.caller()?.tenant))
}

async fn put(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    let query = Query::of(&context.data)?;
    let policy = query.one_of("write", WRITE_POLICIES)?.unwrap_or(WritePolicy::Quorum);
    let ttl_seconds = match query.integer("ttlSeconds", 1..=TTL_SECONDS_MAX, 0)? {
        0 => None,
        seconds => Some(seconds),
    };
    let content_type = extract::content_type(&request)?;
    let bytes = extract::bytes(&request, VALUE_BYTES_MAX).await?;
    let _turn = check_conditions(&request, &context, &key).await?;
    let stamps = STAMPS.with(Clone::clone);
    let written = replicas(&context)?.put(&key, Content { bytes, content_type }, ttl_seconds, policy, &stamps).await;
    Ok(written_reply(&written, false)?.header("ETag", tag(written.stamp)))
}

/// Every write has a stamp of its own, so that is the tag.
fn tag(stamp: Stamp) -> String {
    format!("\"{stamp}\"")
}

/// 412 unless the conditions of a write hold for the newest value that a majority knows; the turn to write, until it is
/// written. Only a request that sets some pays for the reads, which may be stale, and waits.
async fn check_conditions(request: &Request, context: &Context, key: &str) -> Result<Option<Turn>, Problem> {
    let conditions = Conditions::of(request);
    if conditions.is_empty() {
        return Ok(None);
    }
    let turn = turn::take(&context.data, &["replicated", key]).await?;
    let found = replicas(context)?.get(key, ReadPolicy::Quorum, None, &context.data.background).await?;
    let stored = found.filter(|found| found.value.content.is_some());
    conditions.check_write(stored.map(|found| tag(found.value.stamp)).as_deref())?;
    Ok(Some(turn))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    let query = Query::of(&context.data)?;
    let policy = query.one_of("write", WRITE_POLICIES)?.unwrap_or(WritePolicy::Quorum);
    let _turn = check_conditions(&request, &context, &key).await?;
    let stamps = STAMPS.with(Clone::clone);
    let written = replicas(&context)?.delete(&key, policy, &stamps).await;
    written_reply(&written, true)
}

/// 200 (or 204, for a delete) when every replica took it, 207 when enough did, 503 when not.
fn written_reply(written: &Written, deleted: bool) -> Outcome {
    let outcome = |outcome: &crate::patterns::replica::Outcome| {
        if let Some(failure) = &outcome.failure {
            worker::console_error!("replica {} did not take a write: {failure}", outcome.replica);
        }
        OutcomeBody { replica: outcome.replica, outcome: if outcome.failure.is_none() { "written" } else { "failed" } }
    };
    let body = WrittenBody { replicas: written.outcomes.iter().map(outcome).collect() };
    let reply = match written.verdict {
        Verdict::Everywhere if deleted => Reply::empty(204),
        Verdict::Everywhere => Reply::json(200, &body),
        Verdict::Enough => Reply::json(207, &body),
        Verdict::TooFew => {
            let detail = "Some replicas may have it. Repeating is safe.";
            let problem = Problem::new(503, "too-few-replicas", "Too few replicas took the write", detail)
                .with("replicas", json!(body.replicas));
            return Err(problem.header("Retry-After", "5").consistency(Consistency::Eventual));
        }
    };
    Ok(reply.consistency(Consistency::Eventual))
}

async fn get(request: Request, context: Context) -> Outcome {
    let app = &context.data;
    let key = path_id(&context, "key")?;
    let policy = Query::of(app)?.one_of("read", READ_POLICIES)?.unwrap_or(ReadPolicy::Nearest);
    let continent = http::cf(request.inner(), "continent");
    let continent = Some(continent.as_str()).filter(|continent| !continent.is_empty());
    let found = replicas(&context)?.get(&key, policy, continent, &app.background).await?;
    let found = found.and_then(|found| Some((found.value.content?, found.value.stamp, found.replica)));
    let Some((Content { bytes, content_type }, stamp, replica)) = found else {
        return Err(Problem::absent("There is no such key."));
    };
    let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let reply = Reply::bytes(200, &content_type, bytes).header("X-Content-Type-Options", "nosniff");
    let reply = Conditions::of(&request).read(&tag(stamp), reply)?;
    Ok(reply.header("Replica", replica).consistency(Consistency::Eventual))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::TooFew(error) => error.into(),
            Error::Corrupt(why) => kv::Error::Corrupt(why).into(),
        }
    }
}
