//! A Worker of one's own on the patterns: `POST /login`, `GET /me`, `POST /logout`, `GET /prices/:article`.
//!
//! Sessions in a cookie, at most 10 logins per address in five minutes (approximately: no Durable Object, no KV operation on
//! the way), and a price that is computed once a minute however many ask. It shows how the parts fit; it checks no password.
#![cfg(target_arch = "wasm32")]

use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::codec::Record;
use kv_patterns::kv::{self, Breaker, Resilient, Tenant};
use kv_patterns::patterns::cache::{
    self, Bucket, Computed, Entry, Flights, Host, Json, Life, MEMORY_SECONDS, Memory, ReadThrough, Resources, Tiers,
};
use kv_patterns::patterns::rate_limit::approximate::{Approximate, Counts};
use kv_patterns::patterns::rate_limit::{Algorithm, Mode, OnFailure, Policy, normalise};
use kv_patterns::patterns::session::{
    ABSOLUTE_SECONDS_DEFAULT, IDLE_SECONDS_DEFAULT, NewSession, RECENT_MAX, Session, Sessions, Verdict,
};
use kv_patterns::recent::Recent;
use kv_patterns::worker::background::WaitUntil;
use kv_patterns::worker::clock::WorkerClock;
use kv_patterns::worker::flight::PromiseLauncher;
use kv_patterns::worker::kv::WorkersKv;
use kv_patterns::worker::random::WorkerRandom;
use serde::{Deserialize, Serialize};
use worker::{Context, Env, Error, Headers, Request, Response, Result, Router, event};

/// A namespace with a deadline, retries and a breaker around it.
type Store = Resilient<WorkersKv, WorkerClock, WorkerRandom>;
/// What requests of one isolate wait for together.
type PriceFlights = Flights<std::result::Result<Rc<Entry<Json<Price>>>, Option<NoPrice>>, PromiseLauncher>;

/// Everybody's data is one tenant's here; a Worker for several customers has one for each.
const TENANT: &str = "shop";
const COOKIE: &str = "__Host-session";
const CACHE_BYTES_MAX: u64 = 4 * 1024 * 1024;

thread_local! {
    // What an isolate remembers. Nothing here is needed for an answer to be right.
    static BREAKER: Breaker = Breaker::default();
    static COUNTS: Counts = Counts::default();
    static PRICES: Memory<Json<Price>> = Memory::new(CACHE_BYTES_MAX);
    static FLIGHTS: PriceFlights = Flights::default();
    static RECENT: Recent<Timestamp> = Recent::new(RECENT_MAX);
}

/// A price as cached. Its kind and version stand in front of every stored one, so that formats can change.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Price {
    article: String,
    cents: u64,
}

impl Record for Price {
    const KIND: &'static str = "price";
    const VERSION: u32 = 1;
}

/// The price cannot be computed.
#[derive(Clone, Copy, Debug)]
struct NoPrice;

/// What every handler may touch.
struct Shop {
    namespace: WorkersKv,
    tenant: Tenant,
    background: WaitUntil,
}

impl Shop {
    fn store(&self, attempts: kv::Policy) -> Store {
        Resilient::new(self.namespace.clone(), WorkerClock, WorkerRandom, attempts, BREAKER.with(Clone::clone))
    }

    fn sessions(&self) -> Sessions<Store> {
        Sessions::new(self.store(kv::Policy::default()), &self.tenant, 0, RECENT.with(Clone::clone))
    }

    /// Whether this address may try to log in once more.
    fn may_log_in(&self, address: &str) -> bool {
        let policy = Policy {
            limit: 10,
            window_seconds: 300,
            algorithm: Algorithm::SlidingWindow,
            mode: Mode::Approximate,
            on_failure: OnFailure::Allow,
            updated_at: Timestamp::default(),
        };
        // It repeats its writes itself, so the store tries each once.
        let once = kv::Policy { attempts_max: 1, ..kv::Policy::default() };
        let counts = COUNTS.with(Clone::clone);
        let limits = Approximate::new(self.store(once), WorkerClock, WorkerRandom, self.tenant.clone(), counts);
        limits.check(("login", &policy), &normalise(address), 1, false, &self.background).allowed
    }

    /// The price of `article`: from memory, from KV, or computed by one request for all that wait.
    async fn price(&self, article: &str) -> Option<Price> {
        let tiers = Tiers::new(self.store(kv::Policy::default()), PRICES.with(Memory::clone), MEMORY_SECONDS);
        let bucket = Bucket::new(&self.tenant, Resources::CACHE, "prices");
        let launcher = PromiseLauncher::new(self.background.clone());
        let host = Host { clock: WorkerClock, random: WorkerRandom, launcher };
        let life = Life { ttl_seconds: 60, stale_while_revalidate_seconds: 60, stale_if_error_seconds: 3600 };
        let policy = cache::Policy { life, ..cache::Policy::default() };
        let prices = ReadThrough::new(tiers, bucket, FLIGHTS.with(Clone::clone), host, policy);
        let wanted = article.to_owned();
        let answer = prices.get_or_compute(article, async move || compute(&wanted).await).await.ok()?;
        answer.entry.value.as_ref().map(|Json(price)| price.clone())
    }

    /// The session that the request's cookie proves.
    async fn session(&self, request: &Request) -> Result<Option<Session>> {
        let Some(token) = cookie(request)? else { return Ok(None) };
        match self.sessions().verify(&token, WorkerClock.now()).await.map_err(failed)? {
            Verdict::Valid(session) => Ok(Some(session)),
            Verdict::Refused(_) => Ok(None),
        }
    }
}

/// Stands for what takes long: a database, another service.
async fn compute(article: &str) -> std::result::Result<Computed<Json<Price>>, NoPrice> {
    WorkerClock.sleep(50).await;
    let cents = u64::try_from(article.len()).map_err(|_| NoPrice)? * 100;
    Ok(Computed::of(Some(Json(Price { article: article.to_owned(), cents }))))
}

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let (Some(namespace), Ok(tenant)) = (WorkersKv::bound(&env, "KV"), Tenant::new(TENANT)) else {
        return Response::error("bind a KV namespace as `KV`", 503);
    };
    let shop = Shop { namespace, tenant, background: WaitUntil::new(context) };
    let answered = Router::with_data(shop)
        .post_async("/login", |request, context| async move { log_in(request, &context.data).await })
        .get_async("/me", |request, context| async move { who(&request, &context.data).await })
        .post_async("/logout", |request, context| async move { log_out(&request, &context.data).await })
        .get_async("/prices/:article", |_, context| async move {
            let article = context.param("article").map_or("", String::as_str);
            match context.data.price(article).await {
                Some(price) => Response::from_json(&price),
                None => Response::error("no price at the moment", 503),
            }
        })
        .run(request, env)
        .await;
    answered.or_else(|_| Response::error("try again", 503))
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

async fn log_in(mut request: Request, shop: &Shop) -> Result<Response> {
    let address = request.headers().get("cf-connecting-ip")?.unwrap_or_default();
    if !shop.may_log_in(&address) {
        return Response::error("too many logins", 429);
    }
    let Ok(Login { user }) = request.json().await else { return Response::error("send {\"user\": ...}", 400) };
    if user.is_empty() || user.len() > 256 {
        return Response::error("`user` has 1 to 256 bytes", 400);
    }
    let new = NewSession {
        user_id: user,
        email: None,
        roles: Vec::new(),
        data: serde_json::Value::Null,
        idle_seconds: IDLE_SECONDS_DEFAULT,
        absolute_seconds: ABSOLUTE_SECONDS_DEFAULT,
    };
    let issued = shop.sessions().create(new, WorkerClock.now(), &WorkerRandom).await.map_err(failed)?;
    let headers = Headers::new();
    let token = issued.token.secret();
    headers.set("Set-Cookie", &format!("{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Lax"))?;
    Ok(Response::from_json(&issued.session)?.with_headers(headers))
}

async fn who(request: &Request, shop: &Shop) -> Result<Response> {
    match shop.session(request).await? {
        Some(session) => Response::from_json(&session),
        None => Response::error("log in first", 401),
    }
}

async fn log_out(request: &Request, shop: &Shop) -> Result<Response> {
    if let Some(token) = cookie(request)? {
        shop.sessions().revoke(&token).await.map_err(failed)?;
    }
    let headers = Headers::new();
    headers.set("Set-Cookie", &format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"))?;
    Ok(Response::empty()?.with_status(204).with_headers(headers))
}

fn cookie(request: &Request) -> Result<Option<String>> {
    let cookies = request.headers().get("cookie")?.unwrap_or_default();
    let value = |pair: &str| Some(pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')?.to_owned());
    Ok(cookies.split(';').find_map(value))
}

/// KV did not answer: the caller hears 503, the log hears why.
fn failed(error: impl std::fmt::Display) -> Error {
    worker::console_error!("{error}");
    Error::RustError("KV did not answer".to_owned())
}
