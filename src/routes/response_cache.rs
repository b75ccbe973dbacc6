//! The read-through HTTP cache over HTTP: origins, `/v1/fetch`, and the origin mounted at the root.
//!
//! The pattern's promises are in [`crate::patterns::response_cache`]. An origin's configuration is remembered for [`SITE_SECONDS`] by
//! an isolate, so that a hit from memory reads nothing. Names longer than 128 bytes are refused: a list could not show them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Serialize;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Fields, Query, check_id, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, App, AppStore, Context, Outcome, Route, allowed, page, route, session, turn};
use crate::clock::Timestamp;
use crate::etag::etag;
use crate::kv::Tenant;
use crate::patterns::cache::{Flights, Host, Severity};
use crate::patterns::response_cache::RequestHead;
use crate::patterns::response_cache::address;
use crate::patterns::response_cache::directives::MAX_DELTA_SECONDS;
use crate::patterns::response_cache::gateway::{Answer, Failure, Gateway, Landed, Payload};
use crate::patterns::response_cache::headers::{MAX_BYTES, MAX_FIELDS};
use crate::patterns::response_cache::isolate::Isolate;
use crate::patterns::response_cache::origin::Unreached;
use crate::patterns::response_cache::origins::{OriginConfig, Origins};
use crate::patterns::response_cache::policy::{MAX_TIMEOUT_SECONDS, OriginPolicy, SetCookie};
use crate::patterns::response_cache::purge::{self, PREFIX_SEGMENTS_MAX, Scope};
use crate::patterns::response_cache::site::Site;
use crate::worker::clock::WorkerClock;
use crate::worker::flight::PromiseLauncher;
use crate::worker::http::Body;
use crate::worker::origin::{Network, request_fields};
use crate::worker::random::WorkerRandom;

const READ: Access = Access::Read(&["origins"]);
const WRITE: Access = Access::Write(&["origins"]);

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/origins", READ, list),
    route!(GET "/v1/origins/:name", READ, get),
    route!(PUT "/v1/origins/:name", WRITE, put),
    route!(DELETE "/v1/origins/:name", WRITE, delete),
    route!(POST "/v1/origins/:name/purge", WRITE, purge_origin),
];

/// The Worker's own paths, and the first segments of the others; everything else is the root origin's, if there is one.
const OWN: [&str; 2] = ["/health", "/openapi.json"];
const OWN_FIRST_SEGMENTS: [&str; 2] = ["v1", "ofrep"];
/// Longest name of an origin, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Tags one purge may name, each of which is a write.
const PURGE_TAGS_MAX: usize = 30;
/// Longest path prefix of a purge, in bytes.
const PREFIX_BYTES_MAX: usize = 1024;
/// How long an isolate goes without reading an origin's configuration again, in seconds.
const SITE_SECONDS: u64 = 30;
/// How many configurations an isolate remembers.
const SITES_MAX: usize = 256;
/// What stored responses may take of an isolate's 128 MB, in bytes.
const MEMORY_BYTES: usize = 24 * 1024 * 1024;

type AppGateway = Gateway<AppStore, Network, WorkerClock, WorkerRandom, PromiseLauncher>;
/// The root origin, with the two variables it was made of.
type Root = ((String, String), Rc<Site>);
type Sites = HashMap<(String, String), (Timestamp, Option<Rc<Site>>)>;

thread_local! {
    static ISOLATE: Isolate = Isolate::new(MEMORY_BYTES);
    static FLIGHTS: Flights<Landed, PromiseLauncher> = Flights::default();
    static SITES: RefCell<Sites> = RefCell::default();
    /// The root origin, with the variables it was made of.
    static ROOT: RefCell<Option<Root>> = const { RefCell::new(None) };
}

/// What a path outside the router belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mount<'a> {
    /// The root origin.
    Root,
    /// A named origin: its name as it stands in the path, and the path at the origin.
    Named(&'a str, &'a str),
}

/// The origin that `path` belongs to, whatever the method.
pub(super) fn mount<'a>(app: &App, path: &'a str) -> Option<Mount<'a>> {
    if let Some(rest) = path.strip_prefix("/v1/fetch/") {
        let (name, _) = rest.split_once('/')?;
        return rest.get(name.len()..).map(|path| Mount::Named(name, path));
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    let is_own = OWN.contains(&path) || OWN_FIRST_SEGMENTS.contains(&first);
    (app.config.root_origin.is_some() && !is_own).then_some(Mount::Root)
}

/// Sends a request through the cache of the origin it belongs to.
pub(super) async fn proxy(request: Request, app: &App, mount: Mount<'_>) -> Outcome {
    let mut headers = request_fields(request.inner()).map_err(|_| {
        let detail = format!("At most {MAX_FIELDS} fields and {} KiB.", MAX_BYTES / 1024);
        Problem::new(431, "headers-too-large", "The header section is too large", detail)
    })?;
    let (site, path) = match mount {
        Mount::Root => (root(app)?, app.head.path()),
        Mount::Named(name, path) => {
            let method = app.head.method.as_str();
            let access = if matches!(method, "GET" | "HEAD" | "OPTIONS") { READ } else { WRITE };
            allowed(access, app.caller.as_ref())?;
            // Ours is a secret of the caller's; the origin gets the one that is meant for it.
            headers.remove("authorization");
            let theirs: Vec<String> = headers.values("origin-authorization").map(str::to_owned).collect();
            headers.remove("origin-authorization");
            for value in theirs {
                headers.append("authorization", value);
            }
            if let Some(cookies) = headers.joined("cookie") {
                headers.remove("cookie");
                let others = without_session(&cookies);
                if !others.is_empty() {
                    headers.append("cookie", others);
                }
            }
            (named(app, &extract::decode_id("name", name)?).await?, path)
        }
    };
    let query = app.head.url.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
    let target = site.target(&format!("{path}{query}"));
    let target = target.ok_or_else(|| Problem::invalid("path", "Not a path of a URL."))?;
    let head = RequestHead { method: app.head.method.clone(), target, headers };
    // The request itself, not JavaScript's `clone()`, which would keep a second copy of the body.
    let upload = (!head.is_get() && !head.is_head()).then(|| Clone::clone(request.inner()));
    let answer = gateway(app, site)?.answer(&head, upload).await;
    Ok(render(answer, head.is_head(), matches!(mount, Mount::Root)))
}

/// The cookies without that of our sessions, which is a secret of the caller's too.
fn without_session(cookies: &str) -> String {
    let others = cookies.split(';').map(str::trim);
    others.filter(|pair| pair.split('=').next() != Some(session::COOKIE)).collect::<Vec<_>>().join("; ")
}

fn gateway(app: &App, site: Rc<Site>) -> Result<AppGateway, Problem> {
    Ok(Gateway {
        store: app.store("CACHE")?,
        origin: Network,
        host: Host { clock: app.clock, random: app.random, launcher: PromiseLauncher::new(app.background.clone()) },
        isolate: ISOLATE.with(Clone::clone),
        flights: FLIGHTS.with(Clone::clone),
        site,
    })
}

fn root(app: &App) -> Result<Rc<Site>, Problem> {
    let variables = app.config.root_origin.clone().unwrap_or_default();
    ROOT.with_borrow_mut(|root| {
        if let Some((_, site)) = root.as_ref().filter(|(made_of, _)| *made_of == variables) {
            return Ok(Rc::clone(site));
        }
        let (base_url, policy) = &variables;
        let policy: Option<OriginPolicy> = if policy.trim().is_empty() {
            Some(OriginPolicy::default())
        } else {
            serde_json::from_slice(policy.as_bytes()).ok()
        };
        let policy = policy.filter(|policy| policy.validate().is_ok());
        let policy = policy.ok_or_else(|| Problem::not_configured("`ROOT_ORIGIN_POLICY` is no valid policy"))?;
        // A resource of its own: whatever a tenant is called, it reaches none of these keys.
        let space = Tenant::new("root").map(|tenant| tenant.space("root-response")).ok();
        let site = space.and_then(|space| Site::new(space, "root", base_url, policy));
        let site = Rc::new(site.ok_or_else(|| Problem::not_configured("`ROOT_ORIGIN` is no base URL"))?);
        *root = Some((variables, Rc::clone(&site)));
        Ok(site)
    })
}

fn no_origin() -> Problem {
    Problem::absent("There is no such origin.")
}

/// The origin `name` of the caller's tenant.
async fn named(app: &App, name: &str) -> Result<Rc<Site>, Problem> {
    let tenant = &app.caller()?.tenant;
    let remembered = (tenant.id().to_owned(), name.to_owned());
    let now = app.now();
    let known = SITES.with_borrow(|sites| sites.get(&remembered).cloned());
    if let Some((_, site)) = known.as_ref().filter(|(until, _)| now < *until) {
        return site.clone().ok_or_else(no_origin);
    }
    let site = match Origins::new(app.store("CONFIG")?, tenant).get(name).await {
        Ok(Some(config)) => site_of(tenant, name, config),
        Ok(None) => None,
        // The last known configuration is better than none.
        Err(error) => match known {
            Some((_, Some(site))) => return Ok(site),
            _ => return Err(error.into()),
        },
    };
    remember(remembered, now, site.clone());
    site.ok_or_else(no_origin)
}

fn site_of(tenant: &Tenant, name: &str, config: OriginConfig) -> Option<Rc<Site>> {
    let site = Site::new(tenant.space("response"), name, &config.base_url, config.policy)?;
    Some(Rc::new(site.purgeable(tenant.space("response-purge"))))
}

fn remember(key: (String, String), now: Timestamp, site: Option<Rc<Site>>) {
    SITES.with_borrow_mut(|sites| {
        if sites.len() >= SITES_MAX && !sites.contains_key(&key) {
            sites.clear();
        }
        sites.insert(key, (now.plus_seconds(SITE_SECONDS), site));
    });
}

/// Statuses whose responses have no body (Fetch standard, "null body status"), and what else the platform refuses.
const fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// What this Worker says itself below `/v1/fetch/`: a stored request id would be that of another request, and which pages
/// of other sites may read an answer is for `CORS_ORIGINS` to say.
fn is_ours(name: &str) -> bool {
    matches!(name, "x-request-id" | "consistency") || name.starts_with("access-control-")
}

fn render(answer: Answer<Option<web_sys::ReadableStream>>, is_head: bool, transparent: bool) -> Reply {
    if !(200..600).contains(&answer.status) {
        return Reply { transparent, ..Reply::empty(502) };
    }
    let mut reply = match answer.payload {
        Payload::Failed(failure) => Reply { transparent, ..unanswered(failure, answer.status).into_reply() },
        _ => Reply { transparent, ..Reply::empty(answer.status) },
    };
    let bodiless = is_head || is_bodiless(answer.status);
    if !bodiless {
        reply.body = match answer.payload {
            Payload::Failed(_) => reply.body,
            Payload::Nothing | Payload::Stream(None) => Body::Empty,
            Payload::Held(bytes, range) => Body::Part(bytes, range),
            Payload::Stream(Some(stream)) => Body::Stream(stream),
        };
    }
    // The platform counts the body itself; without one the length is that of the body which is not sent.
    for (name, value) in answer.headers.iter() {
        if (is_head || name != "content-length") && (transparent || !is_ours(name)) {
            reply = reply.raw_header(name, value);
        }
    }
    reply
}

/// What the client is told when nobody can answer.
fn unanswered(failure: Failure, status: u16) -> Problem {
    let (slug, title, detail) = match failure {
        Failure::Unreached(Unreached::Failed) => {
            ("origin-unreachable", "The origin gave no answer", "Nothing that is stored may stand for it.")
        }
        Failure::Unreached(Unreached::TimedOut) => {
            ("origin-timeout", "The origin took too long", "Nothing that is stored may stand for its answer.")
        }
        Failure::CannotValidate => {
            ("not-validated", "The origin gave no answer", "What is stored must be validated before it is used again.")
        }
        Failure::OnlyIfCached => {
            ("not-cached", "Nothing is stored that could answer", "The request forbids to ask the origin.")
        }
    };
    Problem::new(status, slug, title, detail)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OriginBody<'a> {
    name: &'a str,
    base_url: &'a str,
    #[serde(flatten)]
    policy: &'a OriginPolicy,
}

fn body<'a>(name: &'a str, config: &'a OriginConfig) -> OriginBody<'a> {
    OriginBody { name, base_url: &config.base_url, policy: &config.policy }
}

fn origins(context: &Context) -> Result<Origins<AppStore>, Problem> {
    let app = &context.data;
    Ok(Origins::new(app.store("CONFIG")?, &app.caller()?.tenant))
}

fn name(context: &Context) -> Result<String, Problem> {
    let name = path_id(context, "name")?;
    check_name(&name)?;
    Ok(name)
}

fn check_name(name: &str) -> Result<(), Problem> {
    check_id("name", name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(Problem::invalid("name", format!("Must have 1 to {NAME_BYTES_MAX} bytes.")));
    }
    Ok(())
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["origins"])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let listed = origins(&context)?.list(&request).await?;
    let items = listed.items.iter().map(|(name, config)| body(name, config)).collect();
    let list = page::list(app, &scope, items, listed.cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

/// The origin as JSON, and its tag.
fn document(name: &str, config: &OriginConfig) -> (String, Vec<u8>) {
    let body = serde_json::to_vec(&body(name, config)).unwrap_or_default();
    (etag(&body), body)
}

async fn get(request: Request, context: Context) -> Outcome {
    let name = name(&context)?;
    let config = origins(&context)?.get(&name).await?;
    let (tag, body) = document(&name, &config.ok_or_else(no_origin)?);
    let reply = Reply::bytes(200, "application/json", body);
    Ok(Conditions::of(&request).read(&tag, reply)?.consistency(Consistency::Eventual))
}

/// 412 unless the conditions of a write hold. Only a request that sets some pays for the read, which may be stale.
async fn check_conditions(request: &Request, context: &Context, name: &str) -> Result<(), Problem> {
    let conditions = Conditions::of(request);
    if conditions.is_empty() {
        return Ok(());
    }
    let stored = origins(context)?.get(name).await?;
    conditions.check_write(stored.map(|config| document(name, &config).0).as_deref())
}

async fn put(request: Request, context: Context) -> Outcome {
    let name = name(&context)?;
    let app = &context.data;
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let base_url = fields.text("baseUrl", address::BASE_URL_BYTES_MAX)?.ok_or_else(|| missing("baseUrl"))?;
    address::check(&base_url, app.config.allow_loopback_origins)
        .map_err(|refused| Problem::invalid("baseUrl", refused.to_string()))?;
    let policy = policy(&mut fields)?;
    fields.finish()?;
    let config = OriginConfig { base_url, policy };
    let _turn = turn::take(app, &["origin", &name]).await?;
    check_conditions(&request, &context, &name).await?;
    origins(&context)?.put(&name, &config).await?;
    let tenant = &app.caller()?.tenant;
    remember((tenant.id().to_owned(), name.clone()), app.now(), site_of(tenant, &name, config.clone()));
    let (tag, body) = document(&name, &config);
    Ok(Reply::bytes(200, "application/json", body).header("ETag", tag).consistency(Consistency::Eventual))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let name = name(&context)?;
    let app = &context.data;
    let _turn = turn::take(app, &["origin", &name]).await?;
    check_conditions(&request, &context, &name).await?;
    origins(&context)?.delete(&name).await?;
    remember((app.caller()?.tenant.id().to_owned(), name), app.now(), None);
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

async fn purge_origin(request: Request, context: Context) -> Outcome {
    let app = &context.data;
    let site = named(app, &name(&context)?).await?;
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let tags = fields.texts("tags", PURGE_TAGS_MAX, 256)?;
    let prefix = fields.text("prefix", PREFIX_BYTES_MAX)?;
    let all = fields.boolean("all")?.unwrap_or(false);
    let severity = if fields.boolean("soft")?.unwrap_or(false) { Severity::Soft } else { Severity::Hard };
    fields.finish()?;
    if prefix.as_deref().is_some_and(|prefix| prefix.trim_matches('/').split('/').count() > PREFIX_SEGMENTS_MAX) {
        return Err(Problem::invalid("prefix", format!("Must have at most {PREFIX_SEGMENTS_MAX} segments.")));
    }
    let mut scopes: Vec<Scope<'_>> = tags.iter().map(|tag| Scope::Tag(tag)).collect();
    scopes.extend(prefix.as_deref().map(Scope::Prefix));
    scopes.extend(all.then_some(Scope::All));
    if scopes.is_empty() {
        return Err(Problem::invalid("all", "Name `tags`, a `prefix`, or set `all`."));
    }
    let (store, isolate) = (app.store("CACHE")?, ISOLATE.with(Clone::clone));
    for scope in scopes {
        purge::purge(&store, &isolate, &site, (scope, severity), app.now()).await?;
    }
    Ok(Reply::json(202, &serde_json::json!({ "purged": "logical" })).consistency(Consistency::Eventual))
}

/// The policy in `fields`; what is absent has its default.
fn policy(fields: &mut Fields) -> Result<OriginPolicy, Problem> {
    let usual = OriginPolicy::default();
    let any = 0..=MAX_DELTA_SECONDS;
    let set_cookie = [("refuse", SetCookie::Refuse), ("strip", SetCookie::Strip), ("store", SetCookie::Store)];
    let beta = match fields.take("earlyRefreshBeta") {
        None => usual.early_refresh_beta,
        Some(value) => value.as_f64().ok_or_else(|| Problem::invalid("earlyRefreshBeta", "Must be a number."))?,
    };
    let policy = OriginPolicy {
        memory_seconds: fields.count("memorySeconds", any.clone())?.unwrap_or(usual.memory_seconds),
        fresh_seconds: fields.count("freshSeconds", any.clone())?,
        stale_seconds: fields.count("staleSeconds", any.clone())?.unwrap_or(usual.stale_seconds),
        stale_if_error_seconds: fields
            .count("staleIfErrorSeconds", any.clone())?
            .unwrap_or(usual.stale_if_error_seconds),
        stale_on_connection_failure: fields
            .boolean("staleOnConnectionFailure")?
            .unwrap_or(usual.stale_on_connection_failure),
        early_refresh_beta: beta,
        tags: fields.texts("tags", 64, 256)?,
        respect_cache_control: fields.boolean("respectCacheControl")?.unwrap_or(usual.respect_cache_control),
        respect_request_directives: fields
            .boolean("respectRequestDirectives")?
            .unwrap_or(usual.respect_request_directives),
        set_cookie: fields.one_of("setCookie", &set_cookie)?.unwrap_or(usual.set_cookie),
        timeout_seconds: fields.count("timeoutSeconds", 1..=MAX_TIMEOUT_SECONDS)?.unwrap_or(usual.timeout_seconds),
        sort_query: fields.boolean("sortQuery")?.unwrap_or(usual.sort_query),
        ignored_query_parameters: fields.texts("ignoredQueryParameters", 64, 256)?,
        guard_paths: fields.boolean("guardPaths")?.unwrap_or(usual.guard_paths),
    };
    policy.validate().map_err(|error| Problem::invalid(error.field, format!("Must be {}.", error.expected)))?;
    Ok(policy)
}
