//! Profiles over HTTP. The pattern's promises are in [`crate::patterns::profile`].

use worker::Request;

use super::conditional::Conditions;
use super::extract::{Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, patch, route, turn};
use crate::patterns::profile::{BOUNDS, Change, Error, Profiles};

const READ: Access = Access::Read(&["profiles", "profile", "users"]);
const WRITE: Access = Access::Write(&["profiles", "profile", "users"]);

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/users/:user/profile", READ, get),
    route!(PUT "/v1/users/:user/profile", WRITE, put),
    route!(PATCH "/v1/users/:user/profile", WRITE, patch_some),
    route!(DELETE "/v1/users/:user/profile", WRITE, delete),
];

fn profiles(context: &Context) -> Result<Profiles<AppStore>, Problem> {
    let app = &context.data;
    Ok(Profiles::new(app.store("CONFIG")?, &app.caller()?.tenant))
}

/// `?fields=a,b` selects; the tag is that of the whole.
async fn get(request: Request, context: Context) -> Outcome {
    let user = path_id(&context, "user")?;
    let query = Query::of(&context.data)?;
    let profile = profiles(&context)?.read(&user).await?;
    let profile = profile.ok_or_else(|| Problem::absent("This user has no profile."))?;
    let reply = match query.get("fields") {
        Some(names) => Reply::json(200, &profile.select(&names.split(',').collect::<Vec<_>>())),
        None => Reply::json(200, profile.fields()),
    };
    Ok(Conditions::of(&request).read(&profile.etag(), reply)?.consistency(Consistency::Eventual))
}

async fn put(request: Request, context: Context) -> Outcome {
    let fields = patch::replacement(&request, BOUNDS.bytes_max).await?;
    change(&request, &context, Change::Replace(fields)).await
}

async fn patch_some(request: Request, context: Context) -> Outcome {
    let patch = patch::patch(&request, BOUNDS.bytes_max).await?;
    change(&request, &context, Change::Patch(patch)).await
}

async fn change(request: &Request, context: &Context, change: Change) -> Outcome {
    let user = path_id(context, "user")?;
    let precondition = Conditions::of(request).into_precondition();
    let _turn = turn::take(&context.data, &["profile", &user]).await?;
    let profile = profiles(context)?.change(&user, &change, &precondition, context.data.now()).await?;
    Ok(Reply::json(200, profile.fields()).header("ETag", profile.etag()).consistency(Consistency::Eventual))
}

async fn delete(request: Request, context: Context) -> Outcome {
    let user = path_id(&context, "user")?;
    let _turn = turn::take(&context.data, &["profile", &user]).await?;
    profiles(&context)?.delete(&user, &Conditions::of(&request).into_precondition()).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::NotAnObject => {
                Self::new(400, "invalid-request", "The request is not valid", "A profile must stay an object.")
            }
            Error::Patch(error) => error.into(),
            Error::Kv(error) => error.into(),
        }
    }
}
