//! Rate limits over HTTP. The pattern's promises are in [`crate::patterns::rate_limit`].
//!
//! Checking needs only the scope `rate-limits:read`, so that an application's token cannot change its own limits.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Fields, Query, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, App, Context, Outcome, Route, page, route, turn};
use crate::etag::etag;
use crate::kv::Tenant;
use crate::patterns::rate_limit::approximate::{Approximate, Counts};
use crate::patterns::rate_limit::header::{self, DRAFT};
use crate::patterns::rate_limit::local::Local;
use crate::patterns::rate_limit::policy::{self, LIMIT_MAX};
use crate::patterns::rate_limit::several::{self, IDENTIFIERS_MAX, Outcome as Checked};
use crate::patterns::rate_limit::{Algorithm, Decision, Mode, OnFailure, Policy, PolicyInvalid, exact, normalise};
use crate::worker::objects::CallError;

const READ: Access = Access::Read(&["rate-limits"]);
const WRITE: Access = Access::Write(&["rate-limits"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/rate-limits/:policy", WRITE, put),
    route!(GET "/v1/rate-limits/:policy", READ, get),
    route!(DELETE "/v1/rate-limits/:policy", WRITE, delete),
    route!(GET "/v1/rate-limits", READ, list),
    route!(POST "/v1/rate-limits/:policy/check", READ, check),
];

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
struct Verdict<'a> {
    allowed: bool,
    limit: u64,
    remaining: u64,
    reset_seconds: u64,
    mode: Mode,
    /// Of several identifiers the one that the numbers are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a str>,
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
    let _turn = turn::take(app, &["rate limit", &name]).await?;
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
    let _turn = turn::take(app, &["rate limit", &name]).await?;
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

/// Who is checked: `identifier`, or each of `identifiers` once, in an order of their own.
struct Who {
    /// What is counted, and how the caller wrote it.
    identifiers: Vec<(String, String)>,
    /// Whether the caller gave a list, and wants to know which of it decided.
    is_list: bool,
}

impl Who {
    fn of(fields: &mut Fields) -> Result<Self, Problem> {
        let is_list = fields.has("identifiers");
        // `null` is as good as absent.
        if !is_list {
            fields.take("identifiers");
            let identifier = fields.id("identifier")?;
            return Ok(Self { identifiers: vec![(normalise(&identifier), identifier)], is_list });
        }
        if fields.has("identifier") {
            return Err(Problem::invalid("identifiers", "Give either `identifier` or `identifiers`."));
        }
        fields.take("identifier");
        let given = fields.texts("identifiers", IDENTIFIERS_MAX, extract::ID_BYTES_MAX)?;
        if given.is_empty() {
            return Err(Problem::invalid("identifiers", format!("Must have 1 to {IDENTIFIERS_MAX} items.")));
        }
        let mut identifiers: Vec<_> = given.into_iter().map(|given| (normalise(&given), given)).collect();
        identifiers.sort();
        identifiers.dedup_by(|(one, _), (other, _)| one == other);
        Ok(Self { identifiers, is_list })
    }

    fn counted(&self) -> Vec<&str> {
        self.identifiers.iter().map(|(counted, _)| counted.as_str()).collect()
    }

    /// The one in this place, as the caller wrote it, if it must be told apart.
    fn named(&self, place: usize) -> Option<&str> {
        self.identifiers.get(place).map(|(_, given)| given.as_str()).filter(|_| self.is_list)
    }
}

async fn check(request: Request, context: Context) -> Outcome {
    let (app, name) = (&context.data, path_id(&context, "policy")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let who = Who::of(&mut fields)?;
    let cost = fields.count("cost", 1..=LIMIT_MAX)?.unwrap_or(1);
    let peek = fields.boolean("peek")?.unwrap_or(false);
    fields.finish()?;
    let (tenant, local) = (&app.caller()?.tenant, LOCAL.with(Clone::clone));
    for (place, identifier) in who.counted().into_iter().enumerate() {
        if let Some((policy, decision)) = local.denied(tenant, &name, identifier, cost, app.now()) {
            return Ok(verdict(&name, &policy, &who, &Checked::counted(place, decision)));
        }
    }
    let policy = policy_of(app, &name).await?.ok_or_else(no_policy)?;
    if cost > policy.limit {
        let detail = format!("The policy's limit is {}: a greater cost is never admitted.", policy.limit);
        return Err(Problem::invalid("cost", detail));
    }
    let identifiers = who.counted();
    let checked = match policy.mode {
        Mode::Approximate => {
            let counts = COUNTS.with(Clone::clone);
            let store = app.store_once("COUNTERS")?;
            let limits = Approximate::new(store, app.clock, app.random, tenant.clone(), counts);
            several::check_at_once(&identifiers, peek, |identifier, peek| {
                limits.check((&name, &policy), identifier, cost, peek, &app.background)
            })
        }
        Mode::Exact => {
            let question = exact::Question { policy: policy.clone(), cost, peek, beside_others: false };
            several::check(&Objects { app, tenant, name: &name }, &identifiers, &question).await
        }
    };
    let checked = checked.ok_or_else(|| missing("identifier"))?;
    if !checked.degraded && !checked.passing {
        // All of them have admitted, or this one has not.
        let refusing = identifiers.get(checked.place..=checked.place).unwrap_or_default();
        for identifier in if checked.decision.allowed { &identifiers } else { refusing } {
            local.remember(tenant, (&name, &policy), identifier, cost, checked.decision, app.now());
        }
    }
    Ok(verdict(&name, &policy, &who, &checked))
}

/// The objects that count under a policy.
struct Objects<'a> {
    app: &'a App,
    tenant: &'a Tenant,
    name: &'a str,
}

impl Objects<'_> {
    async fn ask<A: DeserializeOwned>(
        &self,
        identifier: &str,
        request: exact::Request,
        repeatable: bool,
    ) -> Result<A, CallError> {
        let object = self.app.object("LIMITER", exact::object_name(self.tenant, self.name, identifier));
        let outcome = object.ask((self.tenant.id(), self.name), request, repeatable).await;
        outcome.inspect_err(|error| worker::console_error!("a limit's count cannot be had: {error}"))
    }
}

impl several::Counts for Objects<'_> {
    type Lost = CallError;

    async fn check(&self, identifier: &str, question: &exact::Question) -> Result<exact::Answer, CallError> {
        // Asking twice could count twice, unless it only looks.
        self.ask(identifier, exact::Request::Check(question.clone()), question.peek).await
    }

    async fn give_back(&self, identifier: &str, taken: exact::Taken) {
        // What is lost stays used until it comes back by time; twice could give back somebody else's.
        drop(self.ask::<()>(identifier, exact::Request::GiveBack(taken), false).await);
    }
}

fn verdict(name: &str, policy: &Policy, who: &Who, checked: &Checked) -> Reply {
    let Checked { place, decision, degraded, .. } = *checked;
    let fields = [
        ("RateLimit-Policy", header::policy(DRAFT, name, policy)),
        ("RateLimit", header::limit(DRAFT, name, &decision)),
    ];
    let is_sure = policy.mode == Mode::Exact && !degraded;
    let consistency = if is_sure { Consistency::Strong } else { Consistency::Eventual };
    let body = Verdict {
        allowed: decision.allowed,
        limit: decision.limit,
        remaining: decision.remaining,
        reset_seconds: decision.reset_seconds,
        mode: policy.mode,
        identifier: who.named(place),
        degraded,
    };
    let mut reply = if decision.allowed { Reply::json(200, &body) } else { exceeded(name, &decision, &body) };
    for (field, value) in fields {
        reply = reply.header(field, value);
    }
    reply.consistency(consistency)
}

/// 429, with the verdict and, as the draft wants it, the policies that were violated.
fn exceeded(name: &str, decision: &Decision, body: &Verdict<'_>) -> Reply {
    let detail = if body.degraded {
        "The count cannot be had at the moment, and the policy denies then."
    } else {
        "The quota of this identifier is used up."
    };
    let problem = Problem::new(429, "quota-exceeded", "The quota is exceeded", detail);
    let mut problem = problem.with("violated-policies", vec![name]);
    if let Ok(Value::Object(members)) = serde_json::to_value(body) {
        for (member, value) in members {
            problem = problem.with(&member, value);
        }
    }
    let retry_after = header::retry_after(decision).unwrap_or(decision.reset_seconds).max(1);
    problem.into_reply().header("Retry-After", retry_after.to_string())
}
