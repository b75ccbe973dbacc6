//! The object cache over HTTP. The pattern's promises are in [`crate::patterns::cache`].
//!
//! Nobody computes here: `staleSeconds` after its time to live an object is still served, and `Cache-Status` says so by a
//! `ttl` that is not positive. All requests of an isolate share one memory.

use std::rc::Rc;

use futures_util::future::try_join_all;
use serde::Serialize;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::turn::{self, Turn};
use super::{Access, AppStore, Context, Outcome, Route, route};
use crate::clock::Timestamp;
use crate::etag::etag;
use crate::patterns::cache::{
    Bucket, Cache, Found, Freshness, Life, Lookup, MEMORY_SECONDS, Memory, Object, PREFIXES_MAX, Resources,
    SECONDS_MAX, Scope, Severity, TAGS_MAX, Tier, Tiers,
};
use crate::worker::http::Body;

const READ: Access = Access::Read(&["cache"]);
const WRITE: Access = Access::Write(&["cache"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/cache/:bucket/*key", WRITE, put),
    route!(GET "/v1/cache/:bucket/*key", READ, get),
    route!(DELETE "/v1/cache/:bucket/*key", WRITE, delete),
    route!(POST "/v1/cache/:bucket/purge", WRITE, purge),
];

/// Largest object, in bytes (10 MiB). KV takes 25 MiB; an isolate has 128 MiB for everything, and a body is there several
/// times on its way from the socket to KV.
const OBJECT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Memory for objects and marks in an isolate, in bytes (16 MiB).
const MEMORY_BYTES_MAX: u64 = 16 * 1024 * 1024;
const TTL_SECONDS_DEFAULT: u64 = 300;
const TAG_BYTES_MAX: usize = 128;
/// Of an object that was put without one: RFC 9110 §8.3.
const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

thread_local! {
    static MEMORY: Memory<Object> = Memory::new(MEMORY_BYTES_MAX);
}

fn cache(context: &Context) -> Result<Cache<AppStore, Object>, Problem> {
    cache_remembering(context, MEMORY_SECONDS)
}

/// The cache that takes from memory what KV gave or took within `memory_seconds`.
fn cache_remembering(context: &Context, memory_seconds: u32) -> Result<Cache<AppStore, Object>, Problem> {
    let app = &context.data;
    let bucket = Bucket::new(&app.caller()?.tenant, Resources::CACHE, &path_id(context, "bucket")?).with_soft_marks();
    let tiers = Tiers::new(app.store("CACHE")?, MEMORY.with(Memory::clone), memory_seconds);
    Ok(Cache::new(tiers, bucket))
}

async fn put(request: Request, context: Context) -> Outcome {
    let (cache, key) = (cache(&context)?, path_id(&context, "key")?);
    let query = Query::of(&context.data)?;
    let life = Life {
        ttl_seconds: query.integer("ttlSeconds", 1..=SECONDS_MAX, TTL_SECONDS_DEFAULT)?,
        stale_while_revalidate_seconds: query.integer("staleSeconds", 0..=SECONDS_MAX, 0)?,
        stale_if_error_seconds: 0,
    };
    let tags = tags(&query)?;
    let content_type = extract::content_type(&request)?.unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
    let bytes = extract::bytes(&request, OBJECT_BYTES_MAX).await?;
    let _turn = check_conditions(&request, &context, &cache, &key).await?;
    let etag = etag(&bytes);
    let object = Object { content_type, etag: etag.clone(), bytes: Rc::new(bytes) };
    cache.set(&key, Some(object), life, tags, context.data.now()).await?;
    Ok(done().header("ETag", etag))
}

async fn get(request: Request, context: Context) -> Outcome {
    // RFC 9111 §5.2.1.4: who wants no cached answer is not given this isolate's.
    let asks_kv = extract::header(&request, "cache-control").is_some_and(|field| asks_anew(&field));
    let cache = cache_remembering(&context, if asks_kv { 0 } else { MEMORY_SECONDS })?;
    let key = path_id(&context, "key")?;
    let now = context.data.now();
    let lookup = cache.get(&key, now).await?;
    if let Lookup::Unreadable(why) = lookup {
        worker::console_error!("a cached record is unreadable ({why}); it was kept");
    }
    let Some((found, object)) = usable(lookup, now) else {
        return Err(Problem::absent("There is no such object, or it is past its life.")
            .header("Cache-Status", "kv-patterns; detail=absent"));
    };
    let head = &found.entry.head;
    let reply = Reply { status: 200, body: Body::Shared(Rc::clone(&object.bytes)), ..Reply::default() }
        .header("Content-Type", &object.content_type)
        .header("X-Content-Type-Options", "nosniff");
    let reply = Conditions::of(&request).read(&object.etag, reply)?;
    Ok(reply
        .header("Age", (head.age_millis(now) / 1000).to_string())
        .header("Cache-Status", cache_status(&found, now))
        .consistency(Consistency::Eventual))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let (cache, key) = (cache(&context)?, path_id(&context, "key")?);
    let _turn = check_conditions(&request, &context, &cache, &key).await?;
    cache.delete(&key, context.data.now()).await?;
    Ok(done())
}

#[derive(Serialize)]
struct Purged {
    purged: &'static str,
}

async fn purge(request: Request, context: Context) -> Outcome {
    let cache = cache(&context)?;
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let tags = fields.texts("tags", TAGS_MAX, TAG_BYTES_MAX)?;
    let prefix = fields.text("prefix", extract::ID_BYTES_MAX)?;
    let all = fields.boolean("all")?.unwrap_or(false);
    let severity = if fields.boolean("soft")?.unwrap_or(false) { Severity::Soft } else { Severity::Hard };
    fields.finish()?;
    if let Some(prefix) = &prefix {
        check_prefix(prefix)?;
    }
    let mut scopes: Vec<Scope<'_>> = tags.iter().map(|tag| Scope::Tag(tag)).collect();
    scopes.extend(prefix.as_deref().map(Scope::Prefix));
    scopes.extend(all.then_some(Scope::All));
    if scopes.is_empty() {
        let detail = "Say what to purge: `tags`, `prefix`, `\"all\": true`, or several of them.";
        return Err(Problem::invalid("all", detail));
    }
    let now = context.data.now();
    try_join_all(scopes.into_iter().map(|scope| cache.invalidate(scope, severity, now))).await?;
    Ok(Reply::json(202, &Purged { purged: "logical" }).consistency(Consistency::Eventual))
}

/// Whether a request's `Cache-Control` has `no-cache`.
fn asks_anew(field: &str) -> bool {
    field.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}

/// The object that may be served now.
fn usable(lookup: Lookup<Object>, now: Timestamp) -> Option<(Found<Object>, Object)> {
    let found = lookup.found()?;
    let object = found.entry.value.clone()?;
    match found.freshness(now) {
        Freshness::Fresh | Freshness::Early | Freshness::Stale => Some((found, object)),
        Freshness::IfError | Freshness::Over => None,
    }
}

/// RFC 9211: `hit`, the seconds of freshness left (0 or less when stale), and which tier had it.
fn cache_status(found: &Found<Object>, now: Timestamp) -> String {
    let fresh_until = found.fresh_until();
    let left = fresh_until.millis_since(now) / 1000;
    let past = now.millis_since(fresh_until) / 1000;
    let sign = if past > 0 { "-" } else { "" };
    let tier = match found.tier {
        Tier::Memory => "memory",
        Tier::Kv => "kv",
    };
    format!("kv-patterns; hit; ttl={sign}{}; detail={tier}", left.max(past))
}

/// 412 unless the conditions of a write hold; the turn to write, until it is written. Only a request that sets some pays for
/// the look, which may be stale, and waits.
async fn check_conditions(
    request: &Request,
    context: &Context,
    cache: &Cache<AppStore, Object>,
    key: &str,
) -> Result<Option<Turn>, Problem> {
    let conditions = Conditions::of(request);
    if conditions.is_empty() {
        return Ok(None);
    }
    let turn = turn::take(&context.data, &["cache", &path_id(context, "bucket")?, key]).await?;
    let now = context.data.now();
    let current = usable(cache.get(key, now).await?, now).map(|(_, object)| object.etag);
    conditions.check_write(current.as_deref())?;
    Ok(Some(turn))
}

fn tags(query: &Query) -> Result<Vec<String>, Problem> {
    let Some(text) = query.get("tags") else { return Ok(Vec::new()) };
    let mut tags: Vec<String> = text.split(',').map(str::to_owned).collect();
    tags.sort();
    tags.dedup();
    if tags.len() > TAGS_MAX {
        return Err(Problem::invalid("tags", format!("Must be at most {TAGS_MAX} tags.")));
    }
    let fits = |tag: &String| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !tag.chars().any(char::is_control);
    if !tags.iter().all(fits) {
        let detail = format!("Each tag must have 1 to {TAG_BYTES_MAX} bytes and no control characters.");
        return Err(Problem::invalid("tags", detail));
    }
    Ok(tags)
}

/// Only prefixes that some entry looks for: [`Scope::Prefix`].
fn check_prefix(prefix: &str) -> Result<(), Problem> {
    let segments = prefix.strip_suffix('/').unwrap_or(prefix).split('/').count();
    if prefix.is_empty() || segments > PREFIXES_MAX {
        let detail = format!("Must have 1 to {PREFIXES_MAX} segments; `\"all\": true` takes the whole bucket.");
        return Err(Problem::invalid("prefix", detail));
    }
    Ok(())
}

fn done() -> Reply {
    Reply::empty(204).consistency(Consistency::Eventual)
}
