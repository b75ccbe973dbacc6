//! Settings over HTTP. The pattern's promises are in [`crate::patterns::setting`].

use serde::Serialize;
use serde_json::Value;
use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, route, turn};
use crate::etag::entity_tag;
use crate::json;
use crate::patch::check as bounded;
use crate::patterns::preference::{DEFAULTS_SETTING, Schema};
use crate::patterns::setting::{Answer, BOUNDS, Error, Failure, Settings, Source};
use crate::recent::Recent;

const READ: Access = Access::Read(&["settings"]);
const WRITE: Access = Access::Write(&["settings"]);

pub(super) const ROUTES: &[Route] = &[
    route!(PUT "/v1/settings/:name", WRITE, put),
    route!(GET "/v1/settings/:name", READ, get),
    route!(DELETE "/v1/settings/:name", WRITE, delete),
];

/// Settings an isolate remembers for the time when KV fails.
const REMEMBERED_MAX: usize = 256;

thread_local! {
    static KNOWN: Recent<Value> = Recent::new(REMEMBERED_MAX);
}

#[derive(Serialize)]
struct ValueBody {
    value: Value,
    source: Source,
}

/// Shadows lie in another namespace, which fails on its own.
fn settings(context: &Context) -> Result<Settings<AppStore, AppStore>, Problem> {
    let app = &context.data;
    let tenant = app.caller()?.tenant.clone();
    Ok(Settings::new(app.store("CONFIG")?, app.store("CACHE")?, tenant, KNOWN.with(Clone::clone)))
}

async fn put(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let fallback = Query::of(&context.data)?.flag("fallback")?;
    let value = extract::json(&request, BOUNDS.bytes_max).await?;
    if name == DEFAULTS_SETTING {
        Schema::check_defaults(&value).map_err(|error| Problem::invalid(error.field, error.expected))?;
    }
    let _turn = turn::take(&context.data, &["setting", &name]).await?;
    let settings = settings(&context)?;
    check(&settings, &name, &Conditions::of(&request)).await?;
    settings.write(&name, value.clone(), fallback).await?;
    let tag = entity_tag(&value);
    let reply = Reply::json(200, &ValueBody { value, source: Source::Stored });
    Ok(reply.header("ETag", tag).consistency(Consistency::Eventual))
}

/// One read where the request sets conditions, none otherwise.
async fn check(settings: &Settings<AppStore, AppStore>, name: &str, conditions: &Conditions) -> Result<(), Problem> {
    if conditions.is_empty() {
        return Ok(());
    }
    match settings.read(name, None).await {
        Ok(Answer { etag: Some(tag), .. }) => conditions.check_write(Some(&tag)),
        Err(Failure::Missing) => conditions.check_write(None),
        // What KV does not say now cannot be compared with.
        Ok(_) => Err(Problem::unavailable(5)),
        Err(failure) => Err(failure.into()),
    }
}

/// Only a value that KV gave has a tag, that of what is stored: the last known one may be another.
async fn get(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let query = Query::of(&context.data)?;
    let parsed = query.get("default").map(|text| json::parse(text.as_bytes(), BOUNDS.depth_max)).transpose();
    let default = parsed.map_err(|error| Problem::invalid("default", error.to_string()))?;
    if let Some(default) = &default {
        bounded(default, BOUNDS).map_err(|error| Problem::invalid("default", error.to_string()))?;
    }
    match settings(&context)?.read(&name, default.as_ref()).await {
        Ok(Answer { value, source, etag, failure }) => {
            let (conditions, reply) = (Conditions::of(&request), Reply::json(200, &ValueBody { value, source }));
            match failure {
                // No version is there to match, whatever the default is.
                Some(Failure::Missing) => conditions.check_write(None)?,
                Some(failure) => worker::console_warn!("a setting was answered without KV: {failure}"),
                None => {}
            }
            let reply = match etag {
                Some(tag) => conditions.read(&tag, reply)?,
                None => reply,
            };
            Ok(reply.consistency(Consistency::Eventual))
        }
        Err(failure) => Err(failure.into()),
    }
}

async fn delete(request: Request, context: Context) -> Outcome {
    let name = path_id(&context, "name")?;
    let _turn = turn::take(&context.data, &["setting", &name]).await?;
    let settings = settings(&context)?;
    check(&settings, &name, &Conditions::of(&request)).await?;
    settings.delete(&name).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Missing => Self::absent("Nothing is stored, and no default was given."),
            Failure::Corrupt(why) => crate::kv::Error::Corrupt(why).into(),
            Failure::Unreachable(error) => error.into(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Value(error) => error.into(),
            Error::Kv(error) => error.into(),
        }
    }
}
