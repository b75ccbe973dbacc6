//! Counters over HTTP. The patterns' promises are in [`crate::patterns::counter`].
//!
//! An approximate increment costs its request no KV operation: this isolate's memory takes it, and one background task
//! a second and counter writes it. An exact one is a call to the counter's object.

use serde::Serialize;
use worker::Request;

use super::extract::{self, Fields, Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, App, AppStore, Context, Outcome, Route, page, route};
use crate::clock::Timestamp;
use crate::patterns::counter::exact::{self, Answer};
use crate::patterns::counter::{Counters, Gather, LAG_SECONDS, Reading, Refused, VALUE_MAX};
use crate::patterns::lock::hash;
use crate::worker::clock::WorkerClock;
use crate::worker::random::WorkerRandom;

const READ: Access = Access::Read(&["counters"]);
const WRITE: Access = Access::Write(&["counters"]);

pub(super) const ROUTES: &[Route] = &[
    route!(POST "/v1/counters/:name", WRITE, add),
    route!(GET "/v1/counters/:name", READ, read),
    route!(DELETE "/v1/counters/:name", WRITE, reset),
    route!(GET "/v1/counters", READ, list),
];

thread_local! {
    /// The increments of this isolate that are not written yet; bounded by itself.
    static GATHER: Gather = Gather::default();
}

/// Which kind of counter is meant; one name may be both, and they have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Approximate,
    Exact,
}

const MODES: &[(&str, Mode)] = &[("approximate", Mode::Approximate), ("exact", Mode::Exact)];

#[derive(Serialize)]
struct Accepted {
    accepted: bool,
}

#[derive(Serialize)]
struct Value {
    value: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadingBody {
    value: i64,
    mode: Mode,
    as_of: Timestamp,
    max_lag_seconds: u64,
}

#[derive(Serialize)]
struct Item {
    name: String,
    value: i64,
    mode: Mode,
}

type AppCounters = Counters<AppStore, WorkerClock, WorkerRandom>;

fn counters(app: &App, store: AppStore) -> Result<AppCounters, Problem> {
    let (tenant, gather) = (app.caller()?.tenant.clone(), GATHER.with(Clone::clone));
    Ok(Counters::new(store, app.clock, app.random, tenant, gather))
}

fn query_mode(query: &Query) -> Result<Mode, Problem> {
    Ok(query.one_of("mode", MODES)?.unwrap_or(Mode::Approximate))
}

/// Asks the counter's object.
async fn ask(app: &App, name: &str, request: exact::Request, repeatable: bool) -> Result<i64, Problem> {
    let tenant = &app.caller()?.tenant;
    let object = app.object("COUNTER", exact::object_name(tenant, name));
    match object.ask((tenant.id(), name), request, repeatable).await? {
        Answer::Value { value } => Ok(value),
        Answer::OutOfRange => Err(overflow(Consistency::Strong)),
        Answer::KeyReused => {
            let detail = "This `Idempotency-Key` was used with another `delta`; nothing changed.";
            let problem = Problem::new(422, "idempotency-key-reused", "The key was used for another request", detail);
            Err(problem.at("Idempotency-Key").consistency(Consistency::Strong))
        }
        Answer::TooManyKeys => {
            let detail = "This counter remembers as many keys as it may; one is forgotten a day after its use.";
            let problem = Problem::new(503, "too-many-idempotency-keys", "Temporarily unavailable", detail);
            Err(problem.header("Retry-After", "3600"))
        }
    }
}

fn overflow(consistency: Consistency) -> Problem {
    let detail = "The sum would be beyond 2^53 - 1, or below its negation; nothing changed.";
    Problem::new(409, "counter-overflow", "The counter would overflow", detail).at("delta").consistency(consistency)
}

async fn add(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "name")?);
    if Query::of(app)?.get("mode").is_some() {
        return Err(Problem::invalid("mode", "Must be in the body, not in the query."));
    }
    let mut fields: Fields = extract::object_or_nothing(&request, extract::JSON_BYTES_MAX).await?;
    let delta = fields.integer("delta", -VALUE_MAX..=VALUE_MAX)?.unwrap_or(1);
    let mode = fields.one_of("mode", MODES)?.unwrap_or(Mode::Approximate);
    fields.finish()?;
    let key = extract::idempotency_key(&request)?;
    match mode {
        Mode::Approximate => {
            counters(app, app.store_once("COUNTERS")?)?.add(&name, delta, &app.background)?;
            Ok(Reply::json(202, &Accepted { accepted: true }).consistency(Consistency::Eventual))
        }
        Mode::Exact => {
            let key = key.map(|key| hash(&key));
            let is_repeatable = key.is_some();
            let value = ask(app, &name, exact::Request::Add { delta, key }, is_repeatable).await?;
            Ok(Reply::json(200, &Value { value }).consistency(Consistency::Strong))
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::OutOfRange => overflow(Consistency::Eventual),
            Refused::Busy => Self::unavailable(1),
        }
    }
}

async fn read(_: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "name")?);
    let query = Query::of(app)?;
    let (mode, snapshot) = (query_mode(&query)?, query.flag("snapshot")?);
    if mode == Mode::Exact && !snapshot {
        let value = ask(app, &name, exact::Request::Read, true).await?;
        let reading = Reading { value, as_of: app.now(), max_lag_seconds: 0 };
        return Ok(reply(mode, reading).consistency(Consistency::Strong));
    }
    if snapshot && mode == Mode::Approximate {
        return Err(Problem::invalid("snapshot", "Only exact counters have one: add `mode=exact`."));
    }
    let store = app.store("COUNTERS")?;
    let reading = if snapshot {
        let found = exact::read_snapshot(&store, &app.caller()?.tenant, &name).await?;
        found.unwrap_or(Reading { value: 0, as_of: app.now(), max_lag_seconds: LAG_SECONDS })
    } else {
        counters(app, store)?.read(&name).await?
    };
    Ok(reply(mode, reading).consistency(Consistency::Eventual))
}

fn reply(mode: Mode, Reading { value, as_of, max_lag_seconds }: Reading) -> Reply {
    Reply::json(200, &ReadingBody { value, mode, as_of, max_lag_seconds })
}

async fn reset(_: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "name")?);
    let consistency = match query_mode(&Query::of(app)?)? {
        Mode::Approximate => {
            counters(app, app.store("COUNTERS")?)?.reset(&name).await?;
            Consistency::Eventual
        }
        Mode::Exact => {
            ask(app, &name, exact::Request::Reset, true).await?;
            Consistency::Strong
        }
    };
    Ok(Reply::empty(204).consistency(consistency))
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let query = Query::of(app)?;
    let mode = query_mode(&query)?;
    let start = query.get("prefix").unwrap_or_default();
    if !start.is_empty() {
        extract::check_id("prefix", start)?;
    }
    let kind = if mode == Mode::Exact { "exact counters" } else { "counters" };
    let scope = page::scope(&context, &[kind, start])?;
    let request = page::request(app, &query, &scope)?;
    let store = app.store("COUNTERS")?;
    let page = match mode {
        Mode::Approximate => counters(app, store)?.list(start, request.limit, request.cursor.as_deref()).await?,
        Mode::Exact => exact::list(&store, &app.caller()?.tenant, start, request.limit, request.cursor).await?,
    };
    let items = page.items.into_iter().map(|item| Item { name: item.name, value: item.value, mode }).collect();
    let list = page::list(app, &scope, items, page.cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}
