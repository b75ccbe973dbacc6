//! Sessions over HTTP. The pattern's promises are in [`crate::patterns::session`].

use serde::Serialize;
use serde_json::Value;
use worker::Request;

use super::extract::{self, Fields, Query, missing, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, page, route};
use crate::clock::Timestamp;
use crate::patterns::session::{
    ABSOLUTE_SECONDS_DEFAULT, Error, IDLE_SECONDS_DEFAULT, Issued, LIMIT_SECONDS_MAX, LIMIT_SECONDS_MIN, NewSession,
    RECENT_MAX, Refusal, Rotation, Session, Sessions, Verdict,
};
use crate::recent::Recent;

const READ: Access = Access::Read(&["sessions"]);
const WRITE: Access = Access::Write(&["sessions"]);

pub(super) const ROUTES: &[Route] = &[
    route!(POST "/v1/sessions", WRITE, create),
    route!(POST "/v1/sessions/verify", READ, verify),
    route!(POST "/v1/sessions/refresh", WRITE, refresh),
    route!(POST "/v1/sessions/rotate", WRITE, rotate),
    route!(POST "/v1/sessions/revoke", WRITE, revoke),
];

pub(super) const USER_ROUTES: &[Route] = &[
    route!(GET "/v1/users/:user/sessions", READ, list),
    route!(DELETE "/v1/users/:user/sessions", WRITE, revoke_all),
    route!(DELETE "/v1/users/:user/sessions/:id", WRITE, revoke_one),
];

const EMAIL_BYTES_MAX: usize = 320;
const ROLES_MAX: usize = 64;
const ROLE_BYTES_MAX: usize = 128;
const DATA_BYTES_MAX: usize = 16 * 1024;
/// The `__Host-` prefix makes browsers insist on `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2).
pub(super) const COOKIE: &str = "__Host-session";

thread_local! {
    /// When this isolate refreshed which session.
    static RECENT: Recent<Timestamp> = Recent::new(RECENT_MAX);
}

fn sessions(context: &Context) -> Result<Sessions<AppStore>, Problem> {
    let app = &context.data;
    let recent = RECENT.with(Clone::clone);
    // Only `create` asks for the cap, and that refuses where there is none to be read.
    let per_user_max = app.config.sessions_per_user_max.unwrap_or_default();
    Ok(Sessions::new(app.store("SESSIONS")?, &app.caller()?.tenant, per_user_max, recent))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuedBody<'a> {
    token: &'a str,
    session: &'a Session,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_still_valid: Option<bool>,
}

/// The user's id. No path can name `.` and `..`, which are resolved before it gets here (RFC 3986 §6.2.2.3), and then nobody
/// could list or end that user's sessions.
fn user_id(fields: &mut Fields) -> Result<String, Problem> {
    let id = fields.id("userId")?;
    if matches!(id.as_str(), "." | "..") {
        return Err(Problem::invalid("userId", "Must not be `.` or `..`."));
    }
    Ok(id)
}

async fn create(request: Request, context: Context) -> Outcome {
    if context.data.config.sessions_per_user_max.is_none() {
        return Err(Problem::not_configured("`SESSIONS_PER_USER_MAX` is no whole number"));
    }
    let with_cookie = Query::of(&context.data)?.flag("cookie")?;
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let limits = LIMIT_SECONDS_MIN..=LIMIT_SECONDS_MAX;
    let new = NewSession {
        user_id: user_id(&mut fields)?,
        email: fields.text("email", EMAIL_BYTES_MAX)?,
        roles: fields.texts("roles", ROLES_MAX, ROLE_BYTES_MAX)?,
        data: data(&mut fields)?,
        idle_seconds: fields.count("idleSeconds", limits.clone())?.unwrap_or(IDLE_SECONDS_DEFAULT),
        absolute_seconds: fields.count("absoluteSeconds", limits)?.unwrap_or(ABSOLUTE_SECONDS_DEFAULT),
    };
    fields.finish()?;
    let app = &context.data;
    let issued = sessions(&context)?.create(new, app.now(), &app.random).await?;
    Ok(issued_reply(201, &issued, with_cookie, None))
}

async fn verify(request: Request, context: Context) -> Outcome {
    let token = token(&request).await?;
    verdict(sessions(&context)?.verify(&token, context.data.now()).await?)
}

async fn refresh(request: Request, context: Context) -> Outcome {
    let token = token(&request).await?;
    verdict(sessions(&context)?.refresh(&token, context.data.now()).await?)
}

async fn rotate(request: Request, context: Context) -> Outcome {
    let with_cookie = Query::of(&context.data)?.flag("cookie")?;
    let token = token(&request).await?;
    let app = &context.data;
    match sessions(&context)?.rotate(&token, app.now(), &app.random).await? {
        Rotation::Rotated(issued) => Ok(issued_reply(200, &issued, with_cookie, None)),
        Rotation::OldStillValid(issued) => Ok(issued_reply(200, &issued, with_cookie, Some(true))),
        Rotation::Refused(refusal) => Err(session_invalid(refusal)),
    }
}

async fn revoke(request: Request, context: Context) -> Outcome {
    let token = token(&request).await?;
    sessions(&context)?.revoke(&token).await?;
    Ok(done())
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let user = path_id(&context, "user")?;
    let scope = page::scope(&context, &["sessions", &user])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let listed = sessions(&context)?.list(&user, &request, app.now()).await?;
    if listed.unreadable > 0 {
        worker::console_error!("{} session records of one user are unreadable; they were kept", listed.unreadable);
    }
    let list = page::list(app, &scope, listed.sessions, listed.cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

async fn revoke_all(_: Request, context: Context) -> Outcome {
    let user = path_id(&context, "user")?;
    sessions(&context)?.revoke_all(&user, context.data.now()).await?;
    Ok(done())
}

async fn revoke_one(_: Request, context: Context) -> Outcome {
    let (user, id) = (path_id(&context, "user")?, path_id(&context, "id")?);
    sessions(&context)?.revoke_of_user(&user, &id).await?;
    Ok(done())
}

fn data(fields: &mut Fields) -> Result<Value, Problem> {
    let data = fields.take("data").unwrap_or_default();
    if data.to_string().len() > DATA_BYTES_MAX {
        return Err(Problem::invalid("data", format!("Must have at most {DATA_BYTES_MAX} bytes as JSON.")));
    }
    Ok(data)
}

/// The token of the body, or else of the cookie.
async fn token(request: &Request) -> Result<String, Problem> {
    let mut fields = extract::object_or_nothing(request, extract::JSON_BYTES_MAX).await?;
    let token = match fields.take("token") {
        Some(Value::String(token)) => Some(token),
        Some(_) => return Err(Problem::invalid("token", "Must be a string.")),
        None => None,
    };
    fields.finish()?;
    token.or_else(|| cookie(request)).ok_or_else(|| missing("token"))
}

fn cookie(request: &Request) -> Option<String> {
    let cookies = extract::header(request, "cookie")?;
    let mut values = cookies.split(';').filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    values.next_back().map(|value| value.trim_matches('"').to_owned())
}

fn verdict(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Valid(session) => Ok(Reply::json(200, &session).consistency(Consistency::Eventual)),
        Verdict::Refused(refusal) => Err(session_invalid(refusal)),
    }
}

/// The same answer whatever the reason: a client that probes must learn nothing.
fn session_invalid(refusal: Refusal) -> Problem {
    if let Refusal::Unreadable(why) = refusal {
        worker::console_error!("a session record is unreadable ({why}); it was refused and kept");
    }
    let detail = "The session token is unknown, expired, revoked or malformed.";
    Problem::new(401, "session-invalid", "The session is not valid", detail)
        .header("WWW-Authenticate", "Bearer")
        .consistency(Consistency::Eventual)
}

fn issued_reply(status: u16, issued: &Issued, with_cookie: bool, previous_still_valid: Option<bool>) -> Reply {
    let token = issued.token.secret();
    let body = IssuedBody { token, session: &issued.session, previous_still_valid };
    let reply = Reply::json(status, &body).consistency(Consistency::Eventual).header("Cache-Control", "no-store");
    if !with_cookie {
        return reply;
    }
    // Up to the absolute limit: the idle one moves with each refresh, and is ours to enforce.
    let seconds = issued.ends_at.millis_since(issued.session.last_seen_at) / 1000;
    reply.header("Set-Cookie", format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax"))
}

fn done() -> Reply {
    Reply::empty(204).consistency(Consistency::Eventual)
}
