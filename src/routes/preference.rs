//! Preferences over HTTP. The pattern's promises are in [`crate::patterns::preference`].

use worker::Request;

use super::conditional::Conditions;
use super::extract::{Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, patch, route, turn};
use crate::etag::Precondition;
use crate::patterns::preference::{BOUNDS, Change, Error, Preferences, Refusal, View, strong};
use crate::recent::Recent;
use crate::stamp::Stamps;
use crate::worker::random::WorkerRandom;

const READ: Access = Access::Read(&["preferences", "users"]);
const WRITE: Access = Access::Write(&["preferences", "users"]);

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/users/:user/preferences", READ, get),
    route!(PUT "/v1/users/:user/preferences", WRITE, put),
    route!(PATCH "/v1/users/:user/preferences", WRITE, patch_some),
    route!(DELETE "/v1/users/:user/preferences", WRITE, delete),
];

const MODES: &[(&str, Consistency)] = &[("eventual", Consistency::Eventual), ("strong", Consistency::Strong)];

/// Tenants whose own fields an isolate remembers.
const REMEMBERED_MAX: usize = 256;

thread_local! {
    static FIELDS_SEEN: Recent<Vec<String>> = Recent::new(REMEMBERED_MAX);
    /// This isolate's clock for stamps.
    static STAMPS: Stamps = Stamps::new(&WorkerRandom);
}

/// `?mode=`: who decides, KV as it is seen here or the user's object.
fn mode(context: &Context) -> Result<Consistency, Problem> {
    Ok(Query::of(&context.data)?.one_of("mode", MODES)?.unwrap_or(Consistency::Eventual))
}

fn preferences(context: &Context) -> Result<Preferences<AppStore>, Problem> {
    let app = &context.data;
    Ok(Preferences::new(app.store("CONFIG")?, &app.caller()?.tenant, FIELDS_SEEN.with(Clone::clone)))
}

async fn get(request: Request, context: Context) -> Outcome {
    let user = path_id(&context, "user")?;
    let (view, consistency) = match mode(&context)? {
        Consistency::Eventual => (preferences(&context)?.read(&user).await?, Consistency::Eventual),
        Consistency::Strong => (ask(&context, &user, None).await?, Consistency::Strong),
    };
    report(&view);
    let reply = Conditions::of(&request).read(&view.etag, Reply::json(200, &view.document));
    reply.map(|reply| reply.consistency(consistency)).map_err(|problem| problem.consistency(consistency))
}

async fn put(request: Request, context: Context) -> Outcome {
    let fields = patch::replacement(&request, BOUNDS.bytes_max).await?;
    change(&request, &context, Change::Replace(fields)).await
}

async fn patch_some(request: Request, context: Context) -> Outcome {
    let patch = patch::patch(&request, BOUNDS.bytes_max).await?;
    change(&request, &context, Change::Patch(patch)).await
}

async fn delete(request: Request, context: Context) -> Outcome {
    let (_, consistency) = apply(&request, &context, Change::Clear).await?;
    Ok(Reply::empty(204).consistency(consistency))
}

async fn change(request: &Request, context: &Context, change: Change) -> Outcome {
    let (view, consistency) = apply(request, context, change).await?;
    report(&view);
    Ok(Reply::json(200, &view.document).header("ETag", view.etag).consistency(consistency))
}

async fn apply(request: &Request, context: &Context, change: Change) -> Result<(View, Consistency), Problem> {
    let user = path_id(context, "user")?;
    let precondition: Precondition = Conditions::of(request).into_precondition();
    let mode = mode(context)?;
    let view = match mode {
        Consistency::Eventual => {
            let _turn = turn::take(&context.data, &["preferences", &user]).await?;
            let stamps = STAMPS.with(Clone::clone);
            preferences(context)?.change(&user, &change, &precondition, context.data.now(), &stamps).await?
        }
        Consistency::Strong => ask(context, &user, Some((change, precondition))).await?,
    };
    Ok((view, mode))
}

/// Has the user's object read or change.
async fn ask(context: &Context, user: &str, change: Option<(Change, Precondition)>) -> Result<View, Problem> {
    let (app, tenant) = (&context.data, &context.data.caller()?.tenant);
    let found = preferences(context)?.find(user).await?;
    let request = strong::Request::new(&found, change);
    let object = app.object("PREFERENCE", strong::object_name(tenant, user));
    let answer = object.ask((tenant.id(), user), &request, request.is_repeatable()).await?;
    let view = request.view(answer, found.unreadable, app.now(), &STAMPS.with(Clone::clone));
    // The object decided: what it refuses is no more stale than what it does.
    view.map_err(|error| Problem::from(error).consistency(Consistency::Strong))
}

fn report(view: &View) {
    if !view.unreadable.is_empty() {
        worker::console_error!("{} preferences of one user are unreadable; they were kept", view.unreadable.len());
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(Refusal::PreconditionFailed) => Self::precondition_failed(),
            Error::Refused(Refusal::Field(error)) => Self::invalid(error.field, error.expected),
            Error::Refused(Refusal::Patch(error)) => error.into(),
            Error::Kv(error) => error.into(),
        }
    }
}
