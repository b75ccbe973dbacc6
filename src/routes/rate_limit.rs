//! Rate limits over HTTP. The pattern's promises are in [`crate::patterns::rate_limit`].
//!
//! Checking needs only the scope `rate-limits:read`, so that an application's token cannot change its own limits.

use serde::Serialize;
use serde_json::Value;
use worker::Request;

use super::conditional::{Conditions, etag};
use super::extract::{self, Query, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, App, Context, Outcome, Route, page, route};
use crate::kv::Tenant;
use crate::patterns::rate_limit::approximate::{Approximate, Counts};
use crate::patterns::rate_limit::header::{self, DRAFT};
use crate::patterns::rate_limit::local::Local;
use crate::patterns::rate_limit::policy::{self, LIMIT_MAX};
use crate::patterns::rate_limit::{Algorithm, Decision, Mode, OnFailure, Policy, PolicyInvalid, exact, normalise};

const READ: Access = Access::Read(&["rate-limits"]);
const WRITE: Access = Access::Write(&["rate-limits"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/rate-limits/:policy", WRITE, put),
    route!(GET "/v1/rate-limits/:policy", READ, get),
    route!(DELETE "/v1/rate-limits/:policy", WRITE, delete),
    route!(GET "/v1/rate-limits", READ, list),
    route!(POST "/v1/rate-limits/:policy/check", READ, check),
];

/// When to come back after a refusal that no count stands behind, in seconds.
const FAILURE_RETRY_SECONDS: u64 = 5;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("token-bucket", Algorithm::TokenBucket),
    ("fixed-window", Algorithm::FixedWindow),
    ("sliding-window", Algorithm::SlidingWindow),
];
const MODES: &[(&str, Mode)] = &[("exact", Mode::Exact), ("approximate", Mode::Approximate)];
const ON_FAILURE: &[(&str, OnFailure)] = &[("allow", OnFailure::Allow), ("deny", OnFailure::Deny)];

thread_local! {
    /// Denials and policies this isolate remembers; bounded by itself.
    static LOCAL: Local = Local::default();
    /// What this isolate counts for approximate limits; bounded by itself.
    static COUNTS: Counts = Counts::default();
}

#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    policy: Policy,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    allowed: bool,
    limit: u64,
    remaining: u64,
    reset_seconds: u64,
    mode: Mode,
    /// Nothing was counted: the policy's `onFailure` answered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    degraded: bool,
}

impl From<PolicyInvalid> for Problem {
    fn from(invalid: PolicyInvalid) -> Self {
        Self::invalid(invalid.field(), format!("{invalid}."))
    }
}

fn no_policy() -> Problem {
    Problem::absent("There is no such policy.")
}

fn document(name: String, policy: Policy) -> (String, Vec<u8>) {
    let body = serde_json::to_vec(&Named { name, policy }).unwrap_or_default();
    (etag(&body), body)
}

/// The stored policy's tag, read only if the request sets conditions.
async fn check_conditions(request: &Request, app: &App, name: &str) -> Result<(), Problem> {
    let conditions = Conditions::of(request);
    if conditions.is_empty() {
        return Ok(());
    }
    let stored = policy_of(app, name).await?;
    conditions.check_write(stored.map(|policy| document(name.to_owned(), policy).0).as_deref())
}

async fn put(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "policy")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let limit = fields.count("limit", 1..=LIMIT_MAX)?.ok_or_else(|| missing("limit"))?;
    let window = fields.count("windowSeconds", 1..=policy::WINDOW_SECONDS_MAX)?;
    let policy = Policy {
        limit,
        window_seconds: window.ok_or_else(|| missing("windowSeconds"))?,
        algorithm: fields.one_of("algorithm", ALGORITHMS)?.unwrap_or_default(),
        mode: fields.one_of("mode", MODES)?.unwrap_or_default(),
        on_failure: fields.one_of("onFailure", ON_FAILURE)?.unwrap_or_default(),
        updated_at: app.now(),
    };
    fields.finish()?;
    policy.validate()?;
    check_conditions(&request, app, &name).await?;
    let tenant = &app.caller()?.tenant;
    policy::put(&app.store("CONFIG")?, tenant, &name, &policy).await?;
    remember(tenant, &name, Some(&policy), app);
    let (tag, body) = document(name, policy);
    Ok(Reply::bytes(200, "application/json", body).header("ETag", tag).consistency(Consistency::Eventual))
}

/// After an edit, what this isolate denied by the old policy no longer holds.
fn remember(tenant: &Tenant, name: &str, policy: Option<&Policy>, app: &App) {
    LOCAL.with(|local| {
        local.remember_policy(tenant, name, policy, app.now());
        local.forget_denials(tenant, name);
    });
}

async fn get(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "policy")?);
    let policy = policy_of(app, &name).await?.ok_or_else(no_policy)?;
    let (tag, body) = document(name, policy);
    let reply = Reply::bytes(200, "application/json", body);
    Ok(Conditions::of(&request).read(&tag, reply)?.consistency(Consistency::Eventual))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "policy")?);
    check_conditions(&request, app, &name).await?;
    let tenant = &app.caller()?.tenant;
    policy::delete(&app.store("CONFIG")?, tenant, &name).await?;
    remember(tenant, &name, None, app);
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["rate limits"])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let (found, cursor) = policy::list(&app.store("CONFIG")?, &app.caller()?.tenant, &request).await?;
    let items = found.into_iter().map(|(name, policy)| Named { name, policy }).collect();
    let list = page::list(app, &scope, items, cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

/// The policy: from this isolate's memory for half a minute, then from KV, then, when KV fails, what was last known.
async fn policy_of(app: &App, name: &str) -> Result<Option<Policy>, Problem> {
    let (tenant, local) = (&app.caller()?.tenant, LOCAL.with(Clone::clone));
    if let Some(policy) = local.policy(tenant, name, app.now()) {
        return Ok(Some(policy));
    }
    match policy::get(&app.store("CONFIG")?, tenant, name).await {
        Ok(Some(read)) => {
            // KV may show less than this isolate wrote itself.
            let known = local.last_policy(tenant, name).filter(|known| known.updated_at > read.updated_at);
            let policy = known.unwrap_or(read);
            local.remember_policy(tenant, name, Some(&policy), app.now());
            Ok(Some(policy))
        }
        Ok(None) => Ok(None),
        Err(error) => local.last_policy(tenant, name).map(Some).ok_or_else(|| error.into()),
    }
}

async fn check(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "policy")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let identifier = normalise(&fields.id("identifier")?);
    let cost = fields.count("cost", 1..=LIMIT_MAX)?.unwrap_or(1);
    let peek = fields.boolean("peek")?.unwrap_or(false);
    fields.finish()?;
    let (tenant, local) = (&app.caller()?.tenant, LOCAL.with(Clone::clone));
    if let Some((policy, decision)) = local.denied(tenant, &name, &identifier, cost, app.now()) {
        return Ok(verdict(&name, &policy, decision, false));
    }
    let policy = policy_of(app, &name).await?.ok_or_else(no_policy)?;
    if cost > policy.limit {
        let detail = format!("The policy's limit is {}: a greater cost is never admitted.", policy.limit);
        return Err(Problem::invalid("cost", detail));
    }
    let decision = match policy.mode {
        Mode::Approximate => {
            let counts = COUNTS.with(Clone::clone);
            let store = app.store_once("COUNTERS")?;
            let limits = Approximate::new(store, app.clock, app.random, tenant.clone(), counts);
            limits.check((&name, &policy), &identifier, cost, peek, &app.background)
        }
        Mode::Exact => {
            let object = app.object("LIMITER", exact::object_name(tenant, &name, &identifier));
            let question = exact::Request { policy: policy.clone(), cost, peek };
            // Asking twice could count twice, unless it only looks.
            match object.ask::<_, Decision>((tenant.id(), &name), question, peek).await {
                Ok(decision) => decision,
                Err(error) => {
                    worker::console_error!("a limit was answered without its count: {error}");
                    return Ok(verdict(&name, &policy, uncounted(&policy), true));
                }
            }
        }
    };
    local.remember(tenant, (&name, &policy), &identifier, cost, decision, app.now());
    Ok(verdict(&name, &policy, decision, false))
}

/// What the policy says where the count cannot be had.
fn uncounted(policy: &Policy) -> Decision {
    let allowed = policy.on_failure == OnFailure::Allow;
    Decision {
        allowed,
        limit: policy.limit,
        remaining: 0,
        reset_seconds: FAILURE_RETRY_SECONDS,
        next_seconds: FAILURE_RETRY_SECONDS,
        retry_after_seconds: (!allowed).then_some(FAILURE_RETRY_SECONDS),
    }
}

fn verdict(name: &str, policy: &Policy, decision: Decision, degraded: bool) -> Reply {
    let Decision { allowed, limit, remaining, reset_seconds, .. } = decision;
    let fields = [
        ("RateLimit-Policy", header::policy(DRAFT, name, policy)),
        ("RateLimit", header::limit(DRAFT, name, &decision)),
    ];
    let is_sure = policy.mode == Mode::Exact && !degraded;
    let consistency = if is_sure { Consistency::Strong } else { Consistency::Eventual };
    let body = Verdict { allowed, limit, remaining, reset_seconds, mode: policy.mode, degraded };
    let mut reply = if allowed {
        Reply::json(200, &body)
    } else {
        let detail = if degraded {
            "The count cannot be had at the moment, and the policy denies then."
        } else {
            "The quota of this identifier is used up."
        };
        let mut problem = Problem::new(429, "quota-exceeded", "The quota is exceeded", detail);
        if let Ok(Value::Object(members)) = serde_json::to_value(&body) {
            for (member, value) in members {
                problem = problem.with(&member, value);
            }
        }
        let retry_after = header::retry_after(&decision).unwrap_or(reset_seconds).max(1);
        problem.into_reply().header("Retry-After", retry_after.to_string())
    };
    for (field, value) in fields {
        reply = reply.header(field, value);
    }
    reply.consistency(consistency)
}
