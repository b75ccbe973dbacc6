//! Documents with a schema version over HTTP. The pattern's promises are in [`crate::patterns::document`].

use serde::Serialize;
use serde_json::Value;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Query, missing, path_id};
use super::problem::{Problem, sentence};
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, page, patch, route, turn};
use crate::clock::Timestamp;
use crate::etag::entity_tag;
use crate::kv;
use crate::patterns::document::{
    BOUNDS, Collection, Collections, Documents, Error, Migrate, Served, Sweep, VERSION_MAX, WriteBack,
};
use crate::recent::Recent;
use crate::stamp::Stamps;
use crate::worker::random::WorkerRandom;

const READ: Access = Access::Read(&["collections", "documents"]);
const WRITE: Access = Access::Write(&["collections", "documents"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/collections/:collection", WRITE, publish),
    route!(GET "/v1/collections/:collection/documents", READ, list),
    route!(PUT "/v1/collections/:collection/documents/:id", WRITE, put),
    route!(GET "/v1/collections/:collection/documents/:id", READ, get),
    route!(PATCH "/v1/collections/:collection/documents/:id", WRITE, patch_some),
    route!(DELETE "/v1/collections/:collection/documents/:id", WRITE, delete),
    route!(POST "/v1/collections/:collection/migrate", WRITE, migrate),
];

/// Collections, and documents written back, that an isolate remembers.
const REMEMBERED_MAX: usize = 256;
/// Longest time to live, in seconds: a year.
const TTL_SECONDS_MAX: u64 = 31_536_000;
/// Documents a sweep looks at where nothing else is said.
const BUDGET_DEFAULT: u64 = 100;
/// Documents a sweep may look at.
const BUDGET_MAX: u64 = 250;

thread_local! {
    static COLLECTIONS: Recent<(Collection, Timestamp)> = Recent::new(REMEMBERED_MAX);
    static WRITTEN_BACK: Recent<WriteBack> = Recent::new(REMEMBERED_MAX);
    /// This isolate's clock for stamps.
    static STAMPS: Stamps = Stamps::new(&WorkerRandom);
}

#[derive(Serialize)]
struct Published {
    version: u32,
}

fn collections(context: &Context) -> Result<Collections<AppStore>, Problem> {
    let app = &context.data;
    Ok(Collections::new(app.store("CONFIG")?, &app.caller()?.tenant, COLLECTIONS.with(Clone::clone)))
}

/// The documents the path speaks of, and their schema.
async fn documents(context: &Context) -> Result<(Documents<AppStore>, Collection), Problem> {
    let app = &context.data;
    let name = path_id(context, "collection")?;
    let schema = collections(context)?.read(&name, app.now()).await?;
    let schema = schema.ok_or_else(|| Problem::absent("There is no such collection."))?;
    let tenant = &app.caller()?.tenant;
    Ok((Documents::new(app.store("CONFIG")?, tenant, &name, WRITTEN_BACK.with(Clone::clone)), schema))
}

fn ttl_seconds(context: &Context) -> Result<Option<u64>, Problem> {
    let seconds = Query::of(&context.data)?.integer("ttlSeconds", 1..=TTL_SECONDS_MAX, 0)?;
    Ok(Some(seconds).filter(|seconds| *seconds > 0))
}

async fn document_turn(context: &Context, id: &str) -> Result<turn::Turn, Problem> {
    turn::take(&context.data, &["document", &path_id(context, "collection")?, id]).await
}

async fn publish(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "collection")?;
    let mut fields = extract::object(&request, BOUNDS.bytes_max).await?;
    let version = fields.count("version", 1..=u64::from(VERSION_MAX))?.ok_or_else(|| missing("version"))?;
    let migrations = fields.take("migrations").unwrap_or_else(|| Value::Array(Vec::new()));
    fields.finish()?;
    let collection = Collection::new(u32::try_from(version).unwrap_or(u32::MAX), migrations)
        .map_err(|error| Problem::invalid(error.field, sentence(&error.expected)))?;
    let _turn = turn::take(&context.data, &["collection", &name]).await?;
    let collections = collections(&context)?;
    let before = collections.newest(&name).await?;
    Conditions::of(&request).check_write(before.as_ref().map(entity_tag).as_deref())?;
    let collection = collections.publish(&name, before.as_ref(), collection, context.data.now()).await?;
    let reply = Reply::json(200, &Published { version: collection.version() });
    Ok(reply.header("ETag", entity_tag(&collection)).consistency(Consistency::Eventual))
}

async fn put(request: Request, context: Context) -> Outcome {
    let id = path_id(&context, "id")?;
    let ttl_seconds = ttl_seconds(&context)?;
    let data = extract::json(&request, BOUNDS.bytes_max).await?;
    let (documents, schema) = documents(&context).await?;
    let (precondition, stamps) = (Conditions::of(&request).into_precondition(), STAMPS.with(Clone::clone));
    let _turn = document_turn(&context, &id).await?;
    let now = context.data.now();
    let served = documents.put(&schema, &id, data, ttl_seconds, &precondition, now, &stamps).await?;
    Ok(changed(&served))
}

async fn get(request: Request, context: Context) -> Outcome {
    let id = path_id(&context, "id")?;
    let (documents, schema) = documents(&context).await?;
    let app = &context.data;
    let served = documents.read(&schema, &id, app.now(), &app.background).await?;
    let served = served.ok_or_else(|| Problem::absent("There is no such document."))?;
    let reply = Conditions::of(&request).read(&served.etag, Reply::json(200, &served.data))?;
    Ok(versioned(reply, &served))
}

async fn patch_some(request: Request, context: Context) -> Outcome {
    let id = path_id(&context, "id")?;
    let ttl_seconds = ttl_seconds(&context)?;
    let patch = patch::patch(&request, BOUNDS.bytes_max).await?;
    let (documents, schema) = documents(&context).await?;
    let (precondition, stamps) = (Conditions::of(&request).into_precondition(), STAMPS.with(Clone::clone));
    let _turn = document_turn(&context, &id).await?;
    let now = context.data.now();
    let served = documents.patch(&schema, &id, &patch, ttl_seconds, &precondition, now, &stamps).await?;
    Ok(changed(&served))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let id = path_id(&context, "id")?;
    let (documents, schema) = documents(&context).await?;
    let precondition = Conditions::of(&request).into_precondition();
    let _turn = document_turn(&context, &id).await?;
    documents.delete(&schema, &id, &precondition, context.data.now()).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["documents", &path_id(&context, "collection")?])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let (documents, schema) = documents(&context).await?;
    let listed = documents.list(&schema, request.limit, request.cursor.as_deref(), app.now()).await?;
    let list = page::list(app, &scope, listed.items, listed.cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

async fn migrate(request: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["migrate", &path_id(&context, "collection")?])?;
    let mut fields = extract::object_or_nothing(&request, extract::JSON_BYTES_MAX).await?;
    let dry_run = fields.boolean("dryRun")?.unwrap_or(false);
    let budget = fields.count("budget", 1..=BUDGET_MAX)?.unwrap_or(BUDGET_DEFAULT);
    let cursor = page::open(app, &scope, fields.text("cursor", 4096)?.as_deref())?;
    fields.finish()?;
    let (documents, schema) = documents(&context).await?;
    let order = Sweep { dry_run, budget: u32::try_from(budget).unwrap_or(1), cursor };
    let mut report = documents.sweep(&schema, &order, app.now()).await?;
    report.cursor = page::list::<()>(app, &scope, Vec::new(), report.cursor.as_deref()).cursor;
    Ok(Reply::json(200, &report).consistency(Consistency::Eventual))
}

/// The answer to a change: the document as it is now.
fn changed(served: &Served) -> Reply {
    versioned(Reply::json(200, &served.data).header("ETag", &served.etag), served)
}

fn versioned(reply: Reply, served: &Served) -> Reply {
    let reply = reply.header("Document-Version", served.version.to_string()).consistency(Consistency::Eventual);
    match served.migrated_from {
        Some(from) => reply.header("Migrated-From", from.to_string()),
        None => reply,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::Missing => Self::absent("There is no such document."),
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::Newer(_) => Self::new(409, "newer-version", "The record is newer than the schema", detail)
                .consistency(Consistency::Eventual),
            Error::Migration(_) => Self::new(422, "migration-failed", "The document cannot be migrated", detail)
                .consistency(Consistency::Eventual),
            Error::Patch(error) => error.into(),
            Error::Kv(error @ kv::Error::Invalid(_)) => {
                worker::console_error!("KV refused a document: {error}");
                Self::new(400, "invalid-request", "The request is not valid", "The document or its list is too large.")
            }
            Error::Kv(error) => error.into(),
        }
    }
}
