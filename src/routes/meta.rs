//! `/health` and `/openapi.json`.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Serialize;
use worker::Request;

use super::extract::Query;
use super::problem::Problem;
use super::reply::Reply;
use super::{Access, App, Context, Outcome, Route, route};
use crate::kv::{Read, Store, Write};
use crate::random::Random;

pub(super) const ROUTES: &[Route] =
    &[route!(GET "/health", Access::Open, health), route!(GET "/openapi.json", Access::Open, openapi)];

/// Every namespace the project knows.
pub(super) const BINDINGS: [&str; 7] =
    ["SESSIONS", "CACHE", "CONFIG", "COUNTERS", "REPLICA_US", "REPLICA_EU", "REPLICA_ASIA"];

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bindings: Option<BTreeMap<&'static str, &'static str>>,
}

/// `GET /health`; `?deep=1` writes and reads a fresh key in every namespace.
async fn health(_: Request, context: Context) -> Outcome {
    let app = context.data;
    let mut health = Health { status: "ok", version: env!("CARGO_PKG_VERSION"), bindings: None };
    if !Query::of(&app)?.flag("deep")? {
        return Ok(Reply::json(200, &health));
    }
    app.caller()?;
    // All at once, so that several that hang take one deadline and not one each.
    let states = join_all(
        BINDINGS.map(async |binding| (binding, if probe(&app, binding).await.is_ok() { "ok" } else { "failing" })),
    );
    let bindings: BTreeMap<_, _> = states.await.into_iter().collect();
    let well = bindings.values().all(|state| *state == "ok");
    health.bindings = Some(bindings);
    if well {
        return Ok(Reply::json(200, &health));
    }
    health.status = "degraded";
    Ok(Reply::json(503, &health).header("Retry-After", "5"))
}

/// A key nobody has read, so that no location remembers it as missing and none is written twice in a second.
async fn probe(app: &App, binding: &'static str) -> Result<(), Problem> {
    let store = app.store(binding)?;
    let key = app.caller()?.tenant.space("health").key(&[&format!("{:016x}", app.random.next_u64())]);
    store.put(&key, b"ok", Write::expiring_in(60)).await?;
    let found = store.get(&key, Read::default()).await?;
    if found.is_some() { Ok(()) } else { Err(Problem::unavailable(5)) }
}

/// `GET /openapi.json`, put together from `openapi/` when the Worker is built.
async fn openapi(_: Request, _: Context) -> Outcome {
    let document = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json"));
    Ok(Reply::bytes(200, "application/json", document.to_vec()))
}
