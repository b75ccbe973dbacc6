//! Locks over HTTP. The patterns' promises are in [`crate::patterns::lock`].
//!
//! The lock ids of the demonstration on KV start with `kv-demo.`, so that renewing and releasing know what they are of;
//! inspecting it takes `?mode=kv-demo`. Each of its replies carries its warning in a header, those with a body of its own
//! also there.

use serde::Serialize;
use worker::Request;

use super::extract::{self, Fields, Query, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, App, Context, Outcome, Route, route};
use crate::clock::Timestamp;
use crate::patterns::lock::exact::{self, Acquire, Answer, Inspection};
use crate::patterns::lock::{
    OWNER_BYTES_MAX, TTL_SECONDS_MAX, TTL_SECONDS_MIN, WAIT_SECONDS_MAX, hash, kv_demo, new_lock_id,
};

const READ: Access = Access::Read(&["locks"]);
const WRITE: Access = Access::Write(&["locks"]);

pub(super) const ROUTES: &[Route] = &[
    route!(POST "/v1/locks/:resource/acquire", WRITE, acquire),
    route!(POST "/v1/locks/:resource/renew", WRITE, renew),
    route!(POST "/v1/locks/:resource/release", WRITE, release),
    route!(GET "/v1/locks/:resource", READ, inspect),
];

/// Longest lock id that is looked up, in bytes.
const ID_BYTES_MAX: usize = 128;
/// What the lock ids of the demonstration start with.
const DEMO: &str = "kv-demo.";
/// The header in which every reply of the demonstration warns, also those without a body.
const DEMO_WARNING: &str = "Kv-Demo-Warning";

#[derive(Clone, Copy, Debug)]
enum Mode {
    Exact,
    KvDemo,
}

const MODES: &[(&str, Mode)] = &[("exact", Mode::Exact), ("kv-demo", Mode::KvDemo)];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    lock_id: String,
    fencing_token: String,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    held: bool,
    owner: Option<String>,
    expires_at: Option<Timestamp>,
    fencing_token: Option<String>,
}

/// Asks the lock's object. Every question may be repeated: an acquisition carries what makes the second answer the first.
async fn ask(app: &App, resource: &str, request: exact::Request, wait_seconds: u64) -> Result<Answer, Problem> {
    let tenant = &app.caller()?.tenant;
    let object = app.object("LOCK", exact::object_name(tenant, resource)).waiting(wait_seconds);
    Ok(object.ask((tenant.id(), resource), request, true).await?)
}

/// The object answered something that is no answer to the question.
fn unexpected(answer: &Answer) -> Problem {
    worker::console_error!("a lock's object answered {answer:?}");
    Problem::unavailable(5)
}

fn held(owner: Option<String>, retry_after_seconds: u64, consistency: Consistency) -> Problem {
    Problem::new(409, "lock-held", "The lock is held", "Somebody else holds this lock.")
        .with("owner", owner)
        .consistency(consistency)
        .header("Retry-After", retry_after_seconds.max(1).to_string())
}

fn not_held(consistency: Consistency) -> Problem {
    let detail = "This lock id does not hold the lock: it ended, was released, or belongs to another lock.";
    Problem::new(409, "lock-not-held", "The lock is not held by this id", detail).consistency(consistency)
}

fn ttl_seconds(fields: &mut Fields) -> Result<u64, Problem> {
    fields.count("ttlSeconds", TTL_SECONDS_MIN..=TTL_SECONDS_MAX)?.ok_or_else(|| missing("ttlSeconds"))
}

fn lock_id(fields: &mut Fields) -> Result<String, Problem> {
    let id = fields.text("lockId", ID_BYTES_MAX)?.filter(|id| !id.is_empty());
    id.ok_or_else(|| missing("lockId"))
}

fn granted(lock_id: String, fencing_token: String, expires_at: Timestamp) -> Reply {
    let grant = Grant { lock_id, fencing_token, expires_at, warning: None };
    Reply::json(200, &grant).consistency(Consistency::Strong)
}

async fn acquire(request: Request, context: Context) -> Outcome {
    let (app, resource) = (&context.data, path_id(&context, "resource")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let ttl_seconds = ttl_seconds(&mut fields)?;
    let owner = fields.text("owner", OWNER_BYTES_MAX)?;
    let wait_seconds = fields.count("waitSeconds", 0..=WAIT_SECONDS_MAX)?.unwrap_or(0);
    let mode = fields.one_of("mode", MODES)?.unwrap_or(Mode::Exact);
    fields.finish()?;
    let key = extract::idempotency_key(&request)?;
    let lock_id = new_lock_id(&app.random);
    match mode {
        Mode::KvDemo if wait_seconds > 0 => warned(Err(Problem::invalid("waitSeconds", "Not in mode kv-demo."))),
        Mode::KvDemo => warned(demo_acquire(app, &resource, owner, ttl_seconds).await),
        Mode::Exact => {
            let id = hash(&lock_id);
            // Without a key of the caller's, ours makes a repeated attempt harmless; no caller's hash is like it.
            let key = Some(key.map_or_else(|| format!("attempt {id}"), |key| hash(&key)));
            let wanted = exact::Request::Acquire(Acquire { ttl_seconds, owner, id: id.clone(), key, wait_seconds });
            let mut answer = ask(app, &resource, wanted, wait_seconds).await?;
            if answer == Answer::Offered {
                // Where the client is gone, the platform has ended this request, and somebody else has its turn.
                answer = ask(app, &resource, exact::Request::Renew { id, ttl_seconds }, 0).await?;
            }
            match answer {
                Answer::Granted { fencing_token, expires_at } => Ok(granted(lock_id, fencing_token, expires_at)),
                Answer::Held { owner, retry_after_seconds } => {
                    Err(held(owner, retry_after_seconds, Consistency::Strong))
                }
                Answer::KeyReused => {
                    let detail = "This `Idempotency-Key` is that of another owner's grant; nothing changed.";
                    let problem =
                        Problem::new(422, "idempotency-key-reused", "The key was used for another request", detail);
                    Err(problem.at("Idempotency-Key").consistency(Consistency::Strong))
                }
                Answer::QueueFull { owner } => {
                    let detail = "As many callers wait for this lock as may.";
                    let problem = Problem::new(409, "lock-queue-full", "Too many wait for the lock", detail);
                    let problem = problem.with("owner", owner).consistency(Consistency::Strong);
                    Err(problem.header("Retry-After", "1"))
                }
                // It came to take it when the offer was over.
                Answer::NotHeld => Err(held(None, 1, Consistency::Strong)),
                answer => Err(unexpected(&answer)),
            }
        }
    }
}

async fn renew(request: Request, context: Context) -> Outcome {
    let (app, resource) = (&context.data, path_id(&context, "resource")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let (lock_id, ttl_seconds) = (lock_id(&mut fields)?, ttl_seconds(&mut fields)?);
    fields.finish()?;
    if lock_id.starts_with(DEMO) {
        return warned(demo_renew(app, &resource, lock_id, ttl_seconds).await);
    }
    let wanted = exact::Request::Renew { id: hash(&lock_id), ttl_seconds };
    match ask(app, &resource, wanted, 0).await? {
        Answer::Granted { fencing_token, expires_at } => Ok(granted(lock_id, fencing_token, expires_at)),
        Answer::NotHeld => Err(not_held(Consistency::Strong)),
        answer => Err(unexpected(&answer)),
    }
}

async fn release(request: Request, context: Context) -> Outcome {
    let (app, resource) = (&context.data, path_id(&context, "resource")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let lock_id = lock_id(&mut fields)?;
    fields.finish()?;
    if lock_id.starts_with(DEMO) {
        return warned(demo_release(app, &resource, &lock_id).await);
    }
    match ask(app, &resource, exact::Request::Release { id: hash(&lock_id) }, 0).await? {
        Answer::Released => Ok(Reply::empty(204).consistency(Consistency::Strong)),
        Answer::NotHeld => Err(not_held(Consistency::Strong)),
        answer => Err(unexpected(&answer)),
    }
}

async fn inspect(_: Request, context: Context) -> Outcome {
    let (app, resource) = (&context.data, path_id(&context, "resource")?);
    if let Some(Mode::KvDemo) = Query::of(app)?.one_of("mode", MODES)? {
        return warned(demo_inspect(app, &resource).await);
    }
    match ask(app, &resource, exact::Request::Inspect, 0).await? {
        Answer::Inspected(inspection) => Ok(inspected(inspection).consistency(Consistency::Strong)),
        answer => Err(unexpected(&answer)),
    }
}

fn inspected(Inspection { held, owner, expires_at, fencing_token }: Inspection) -> Reply {
    Reply::json(200, &Inspected { held, owner, expires_at, fencing_token })
}

/// The demonstration's answer, with its warning whatever it is.
fn warned(outcome: Outcome) -> Outcome {
    match outcome {
        Ok(reply) => Ok(reply.header(DEMO_WARNING, kv_demo::WARNING)),
        Err(problem) => Err(problem.header(DEMO_WARNING, kv_demo::WARNING)),
    }
}

fn demo_granted(lock_id: String, fencing_token: u64, expires_at: Timestamp) -> Reply {
    let fencing_token = fencing_token.to_string();
    let grant = Grant { lock_id, fencing_token, expires_at, warning: Some(kv_demo::WARNING) };
    Reply::json(200, &grant).consistency(Consistency::Eventual)
}

fn demo_not_held() -> Problem {
    not_held(Consistency::Eventual).with("warning", kv_demo::WARNING)
}

async fn demo_acquire(app: &App, resource: &str, owner: Option<String>, ttl_seconds: u64) -> Outcome {
    let lock_id = format!("{DEMO}{}", new_lock_id(&app.random));
    let (store, tenant) = (app.store("COUNTERS")?, &app.caller()?.tenant);
    match kv_demo::acquire(&store, &app.clock, tenant, resource, &lock_id, owner, ttl_seconds).await? {
        kv_demo::Outcome::Granted { fencing_token, expires_at } => Ok(demo_granted(lock_id, fencing_token, expires_at)),
        kv_demo::Outcome::Held { owner, expires_at } => {
            let left_millis = expires_at.map_or(0, |at| at.millis_since(app.now()));
            let problem = held(owner, left_millis.div_ceil(1000), Consistency::Eventual);
            Err(problem.with("warning", kv_demo::WARNING))
        }
    }
}

async fn demo_renew(app: &App, resource: &str, lock_id: String, ttl_seconds: u64) -> Outcome {
    let (store, tenant) = (app.store("COUNTERS")?, &app.caller()?.tenant);
    let renewed = kv_demo::renew(&store, &app.clock, tenant, resource, &lock_id, ttl_seconds).await?;
    let (fencing_token, expires_at) = renewed.ok_or_else(demo_not_held)?;
    Ok(demo_granted(lock_id, fencing_token, expires_at))
}

async fn demo_release(app: &App, resource: &str, lock_id: &str) -> Outcome {
    let (store, tenant) = (app.store("COUNTERS")?, &app.caller()?.tenant);
    if kv_demo::release(&store, &app.clock, tenant, resource, lock_id).await? {
        return Ok(Reply::empty(204).consistency(Consistency::Eventual));
    }
    Err(demo_not_held())
}

async fn demo_inspect(app: &App, resource: &str) -> Outcome {
    let (store, tenant) = (app.store("COUNTERS")?, &app.caller()?.tenant);
    let seen = kv_demo::inspect(&store, &app.clock, tenant, resource).await?;
    Ok(inspected(seen).consistency(Consistency::Eventual))
}
