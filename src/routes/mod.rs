//! HTTP: the groups of routes, whose routes stand in the file of each, and what happens to a request before and after its
//! handler: origins' paths, authentication, scopes, routing, request id, cost, CORS. Also what a handler may touch ([`App`]): the
//! caller, clock and randomness, and stores with the breakers of this isolate.
//!
//! The platform's `Router` is built anew for every request, so only the routes that can match are put into it: it decides
//! between them and takes the path's parameters. No rule of a pattern is here.

mod cache;
pub mod chores;
pub mod conditional;
mod counter;
mod document;
mod experiment;
pub mod extract;
mod flag;
mod hierarchy;
mod lock;
mod meta;
mod ofrep;
pub mod page;
pub mod patch;
mod preference;
pub mod problem;
mod profile;
mod rate_limit;
mod replica;
pub mod reply;
mod response_cache;
mod session;
mod setting;
mod turn;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use wasm_bindgen::JsValue;
use worker::{Env, Request, RouteContext, Router};

use crate::clock::{Clock, Timestamp};
use crate::kv::{Breaker, Meter, Metered, Policy, Resilient};
use crate::random::Random;
use crate::worker::background::WaitUntil;
use crate::worker::clock::WorkerClock;
use crate::worker::config::{self, Caller, Config};
use crate::worker::http::{self, Head};
use crate::worker::kv::WorkersKv;
use crate::worker::objects::Remote;
use crate::worker::random::WorkerRandom;
use problem::Problem;
use reply::Reply;
use response_cache::Mount;

/// The routes below a path's first segment (its second below `/v1`). One line per group, in the order of the contract.
fn group(path: &str) -> &'static [&'static [Route]] {
    let mut segments = path.split('/').skip(1);
    match (segments.next().unwrap_or_default(), segments.next().unwrap_or_default()) {
        ("health" | "openapi.json", _) => &[meta::ROUTES],
        ("v1", "flags") => &[flag::ROUTES],
        ("v1", "experiments") => &[experiment::ROUTES],
        ("ofrep", _) => &[ofrep::ROUTES],
        ("v1", "cache") => &[cache::ROUTES],
        ("v1", "origins") => &[response_cache::ROUTES],
        ("v1", "counters") => &[counter::ROUTES],
        ("v1", "rate-limits") => &[rate_limit::ROUTES],
        ("v1", "locks") => &[lock::ROUTES],
        ("v1", "sessions") => &[session::ROUTES],
        ("v1", "users") => &[session::USER_ROUTES, preference::ROUTES, profile::ROUTES],
        ("v1", "collections") => &[document::ROUTES],
        ("v1", "replicated") => &[replica::ROUTES],
        ("v1", "settings") => &[setting::ROUTES],
        ("v1", "keys") => &[hierarchy::ROUTES],
        _ => &[],
    }
}

/// What a handler gives back.
pub type Outcome = Result<Reply, Problem>;
/// What a handler gets beside the request: path parameters, and the [`App`] as `data`.
pub type Context = RouteContext<App>;
type Handler = fn(Request, Context) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// One line of the contract.
#[derive(Debug)]
pub struct Route {
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: Handler,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// Anybody.
    Open,
    /// Who may read one of these resources.
    Read(&'static [&'static str]),
    /// Who may change one of these resources.
    Write(&'static [&'static str]),
}

/// One [`Route`]: `route!(POST "/v1/sessions", Write(&["sessions"]), create)`.
macro_rules! route {
    ($method:ident $path:literal, $access:expr, $handler:path) => {
        $crate::routes::Route {
            method: stringify!($method),
            path: $path,
            access: $access,
            handler: |request, context| Box::pin($handler(request, context)),
        }
    };
}
use route;

/// Everything a handler may touch.
#[derive(Clone, Debug)]
pub struct App {
    /// The settings of the deployment.
    pub config: Rc<Config>,
    /// The request's head.
    pub head: Rc<Head>,
    /// Who calls; nobody on open routes.
    pub caller: Option<Caller>,
    /// Counts this request's KV operations.
    pub meter: Meter,
    /// Work that goes on after the reply.
    pub background: WaitUntil,
    /// The platform's clock.
    pub clock: WorkerClock,
    /// The platform's randomness.
    pub random: WorkerRandom,
    env: Env,
    /// Where the handler leaves its reply: the router can only carry the platform's own, which costs more crossings.
    reply: Rc<RefCell<Option<Outcome>>>,
}

/// A namespace with everything around it: deadline, retries, breaker, meter.
pub type AppStore = Resilient<Metered<WorkersKv>, WorkerClock, WorkerRandom>;

thread_local! {
    /// What this isolate remembers of each namespace's failures.
    static BREAKERS: RefCell<Vec<(&'static str, Breaker)>> = const { RefCell::new(Vec::new()) };
}

/// The namespace bound as `binding`, with everything around it but retries.
pub(crate) fn store_once(env: &Env, binding: &'static str, meter: Meter) -> Option<AppStore> {
    let policy = Policy { attempts_max: 1, ..Policy::default() };
    let metered = Metered::new(WorkersKv::bound(env, binding)?, meter);
    Some(Resilient::new(metered, WorkerClock, WorkerRandom, policy, breaker(binding)))
}

fn breaker(binding: &'static str) -> Breaker {
    BREAKERS.with_borrow_mut(|breakers| {
        if let Some((_, breaker)) = breakers.iter().find(|(name, _)| *name == binding) {
            return breaker.clone();
        }
        let breaker = Breaker::default();
        breakers.push((binding, breaker.clone()));
        breaker
    })
}

impl App {
    /// The namespace bound as `binding`.
    ///
    /// # Errors
    ///
    /// 503: the deployment has no such binding.
    pub fn store(&self, binding: &'static str) -> Result<AppStore, Problem> {
        let namespace = WorkersKv::bound(&self.env, binding)
            .ok_or_else(|| Problem::not_configured(&format!("bind a KV namespace as `{binding}`")))?;
        let metered = Metered::new(namespace, self.meter.clone());
        Ok(Resilient::new(metered, self.clock, self.random, Policy::default(), breaker(binding)))
    }

    /// The namespace bound as `binding` for a writer that repeats its writes itself: each operation is tried once.
    ///
    /// # Errors
    ///
    /// 503: the deployment has no such binding.
    pub fn store_once(&self, binding: &'static str) -> Result<AppStore, Problem> {
        let store = store_once(&self.env, binding, self.meter.clone());
        store.ok_or_else(|| Problem::not_configured(&format!("bind a KV namespace as `{binding}`")))
    }

    /// The object `name` of the class bound as `binding`.
    pub const fn object(&self, binding: &'static str, name: String) -> Remote<'_> {
        Remote::new(&self.env, binding, name)
    }

    /// Who calls.
    ///
    /// # Errors
    ///
    /// 401 on an open route, where nobody had to say.
    pub fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(Problem::unauthorized)
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Answers a request.
///
/// # Errors
///
/// The platform refused to make a response, which no reply made here gives it a reason to.
pub async fn handle(request: Request, env: Env, context: worker::Context) -> Result<web_sys::Response, JsValue> {
    let config = config::current(&env);
    let head = Rc::new(Head::of(request.inner()));
    let app = App {
        config,
        head: Rc::clone(&head),
        caller: None,
        meter: Meter::default(),
        background: WaitUntil::new(context),
        clock: WorkerClock,
        random: WorkerRandom,
        env,
        reply: Rc::default(),
    };
    let outcome = answer(request, app.clone()).await;
    let reply = outcome.unwrap_or_else(|problem| match head.path() {
        path if ofrep::speaks(path) => ofrep::refusal(problem, path),
        _ => problem.into_reply(),
    });
    finish(reply, &app)
}

/// Preflight, authentication, routing, handler.
async fn answer(request: Request, mut app: App) -> Outcome {
    let head = Rc::clone(&app.head);
    let path = head.path();
    let groups = group(path);
    let open = groups.iter().copied().flatten().any(|route| matches!(route.access, Access::Open));
    let preflight = head.method == "OPTIONS";
    // Any method at all may go to an origin, and the router knows only some.
    let mount = response_cache::mount(&app, path);
    if let Some(mount @ Mount::Root) = mount {
        return response_cache::proxy(request, &app, mount).await;
    }
    if app.config.tokens.is_none() && path != "/health" {
        return Err(Problem::not_configured("set the secret `API_TOKENS`, see README.md"));
    }
    app.caller = bearer(&head.authorization).and_then(|token| app.config.caller(token));
    if head.authorization.is_empty() && ofrep::speaks(path) {
        app.caller = extract::header(&request, "x-api-key").and_then(|key| app.config.caller(key.trim()));
    }
    if app.caller.is_none() && !open && !preflight {
        return Err(Problem::unauthorized());
    }
    if let Some(mount) = mount {
        // A browser asks beforehand without a token; with one, OPTIONS is the origin's.
        let asks_us = app.caller.is_none();
        return if asks_us { Ok(Reply::empty(204)) } else { response_cache::proxy(request, &app, mount).await };
    }
    let method = if head.method == "HEAD" { "GET" } else { head.method.as_str() };
    let mut router = Router::with_data(app.clone());
    let candidates = groups.iter().copied().flatten();
    for route in candidates.filter(|route| route.method == method && matches(route.path, path)) {
        router = register(router, route, &head.method);
    }
    // Its result says nothing: see `run`.
    let _ = router.run(request, app.env.clone()).await;
    let handled = app.reply.take();
    handled.unwrap_or_else(|| no_route(groups, path, preflight))
}

/// The token of an `Authorization` header; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

fn register<'a>(router: Router<'a, App>, route: &'static Route, method: &str) -> Router<'a, App> {
    let run = move |request, context| run(route, request, context);
    match method {
        "GET" => router.get_async(route.path, run),
        "HEAD" => router.head_async(route.path, run),
        "POST" => router.post_async(route.path, run),
        "PUT" => router.put_async(route.path, run),
        "PATCH" => router.patch_async(route.path, run),
        "DELETE" => router.delete_async(route.path, run),
        _ => router,
    }
}

async fn run(route: &'static Route, request: Request, context: Context) -> worker::Result<worker::Response> {
    let slot = Rc::clone(&context.data.reply);
    let outcome = match allowed(route.access, context.data.caller.as_ref()) {
        Ok(()) => (route.handler)(request, context).await,
        Err(problem) => Err(problem),
    };
    slot.replace(Some(outcome));
    // The reply is in the slot. A `worker::Response` would cost JavaScript headers that nobody reads.
    Err(worker::Error::Infallible)
}

fn allowed(access: Access, caller: Option<&Caller>) -> Result<(), Problem> {
    let (resources, write) = match access {
        Access::Open => return Ok(()),
        Access::Read(resources) => (resources, false),
        Access::Write(resources) => (resources, true),
    };
    let caller = caller.ok_or_else(Problem::unauthorized)?;
    if resources.iter().any(|resource| caller.may(resource, write)) {
        return Ok(());
    }
    Err(Problem::forbidden(resources.first().copied().unwrap_or_default(), write))
}

/// The answer where no route took the request: `OPTIONS`, 405 or 404.
fn no_route(groups: &[&[Route]], path: &str, preflight: bool) -> Outcome {
    let mut methods: Vec<&str> = Vec::new();
    for route in groups.iter().copied().flatten().filter(|route| matches(route.path, path)) {
        let names = if route.method == "GET" { &["GET", "HEAD"][..] } else { &[route.method] };
        // A path may be two things: `/v1/flags/revisions` is also the flag of that name.
        let new = names.iter().filter(|name| !methods.contains(name)).copied().collect::<Vec<_>>();
        methods.extend(new);
    }
    if methods.is_empty() {
        return Err(Problem::not_found("There is no such path."));
    }
    methods.push("OPTIONS");
    let allow = methods.join(", ");
    if preflight { Ok(Reply::empty(204).header("Allow", allow)) } else { Err(Problem::method_not_allowed(&allow)) }
}

/// Whether the router's `pattern` takes `path`: `:name` is one segment, `*name` is the rest.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(name), Some(segment)) if name.starts_with('*') => {
                return !segment.is_empty() || path.next().is_some();
            }
            // An empty one too, but not at the end: its handler says what is wrong with it.
            (Some(name), Some(segment))
                if name.starts_with(':') && (!segment.is_empty() || path.clone().next().is_some()) => {}
            (Some(name), Some(segment)) if name == segment => {}
            _ => return false,
        }
    }
}

/// Response headers a browser's script may read.
const EXPOSED: &str = "ETag, Link, Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, Server-Timing, \
                       Consistency, Age, Cache-Status, X-Cache, Document-Version, Migrated-From, Replica, \
                       Kv-Demo-Warning";
/// Request headers a browser may send.
const ALLOWED: &str = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Origin-Authorization, \
                       X-API-Key, X-Request-Id";

/// What every reply carries: request id, cost, CORS.
fn finish(mut reply: Reply, app: &App) -> Result<web_sys::Response, JsValue> {
    let head = &app.head;
    if !reply.has("x-request-id") {
        reply = reply.header("X-Request-Id", request_id(&head.request_id, &app.random));
    }
    reply = reply.header("Server-Timing", format!("kv;desc=\"{}\"", app.meter));
    if reply.transparent {
        return http::response(reply.status, &reply.fields, &reply.body);
    }
    if !app.config.cors_origins.is_empty() {
        reply = reply.header("Vary", "Origin");
        if app.config.cors_origins.contains(&head.origin) {
            reply = reply
                .header("Access-Control-Allow-Origin", &head.origin)
                .header("Access-Control-Expose-Headers", EXPOSED);
            if head.method == "OPTIONS" {
                reply = reply
                    .header("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
                    .header("Access-Control-Allow-Headers", ALLOWED)
                    .header("Access-Control-Max-Age", "86400");
            }
        }
    }
    if head.method == "HEAD" {
        // RFC 9110 §9.3.2: what a GET would have been told.
        if let Some(length) = reply.body.length().filter(|_| !reply.has("content-length")) {
            reply = reply.header("Content-Length", length.to_string());
        }
        reply.body = http::Body::Empty;
    }
    http::response(reply.status, &reply.fields, &reply.body)
}

/// The caller's request id, if it is 1 to 128 letters, digits, `-`, `_`, `.`; otherwise a new one.
fn request_id(given: &str, random: &impl Random) -> String {
    let well_formed = (1..=128).contains(&given.len())
        && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if well_formed {
        return given.to_owned();
    }
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    base16ct::lower::encode_string(&bytes)
}
