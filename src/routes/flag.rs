//! Flag documents over HTTP. The pattern's promises are in [`crate::patterns::flag`]; evaluation is in [`super::ofrep`].
//!
//! `revisions` and `rollback` are also names a flag may have. Only `GET /v1/flags/revisions` means something else then;
//! such a flag is read as `/v1/flags/%72evisions`, because routes are matched before ids are decoded.

use std::rc::Rc;

use worker::Request;

use super::conditional::Conditions;
use super::extract::{self, Query, path_id};
use super::problem::{Problem, sentence};
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, page, route, turn};
use crate::etag::etag;
use crate::patterns::flag::bounds::DOCUMENT;
use crate::patterns::flag::{Edit, Error, Flags, HISTORY_MAX, Memory, Snapshot, flag_of};

const READ: Access = Access::Read(&["flags"]);
const WRITE: Access = Access::Write(&["flags"]);

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/flags", READ, get_document),
    route!(PUT "/v1/flags", WRITE, put_document),
    route!(GET "/v1/flags/revisions", READ, revisions),
    route!(POST "/v1/flags/rollback", WRITE, rollback),
    route!(GET "/v1/flags/:key", READ, get_flag),
    route!(PUT "/v1/flags/:key", WRITE, put_flag),
    route!(DELETE "/v1/flags/:key", WRITE, delete_flag),
    route!(PUT "/v1/flags/:key/overrides/:user", WRITE, put_override),
    route!(DELETE "/v1/flags/:key/overrides/:user", WRITE, delete_override),
];

/// A tenant's flags are one document.
const DOCUMENT_TURN: &[&str] = &["flags"];
/// Longest name of a revision that is looked up, in bytes.
const REVISION_BYTES_MAX: usize = 64;
/// Faults of a document that one problem describes; the first is its `field`.
const FAULTS_TOLD: usize = 5;

thread_local! {
    /// What this isolate remembers of flag documents.
    static MEMORY: Memory = Memory::default();
}

/// The caller's flags.
pub(super) fn flags(context: &Context) -> Result<Flags<AppStore>, Problem> {
    let app = &context.data;
    Ok(Flags::new(app.store("CONFIG")?, &app.caller()?.tenant, MEMORY.with(Clone::clone)))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::NoSuchFlag => Self::absent("There is no such flag."),
            Error::NoSuchRevision => Self::absent(format!("The last {HISTORY_MAX} revisions do not include this one.")),
            Error::Invalid(faults) => {
                let Some((first, others)) = faults.split_first() else { return Self::invalid("", "Not valid.") };
                let told = others.iter().take(FAULTS_TOLD - 1).map(|fault| format!(" Also {fault}."));
                let more = others.len().saturating_sub(FAULTS_TOLD - 1);
                let rest = if more > 0 { format!(" And {more} more.") } else { String::new() };
                let detail = format!("{}{}{rest}", sentence(&first.message), told.collect::<String>());
                Self::invalid(first.path.clone(), detail)
            }
        }
    }
}

/// The document's entity tag: revisions are named by their content.
fn tag(snapshot: &Snapshot) -> String {
    format!("\"{}\"", snapshot.current().revision)
}

/// The flag `key` as JSON text.
fn flag_text(snapshot: Option<&Rc<Snapshot>>, key: &str) -> Result<Option<String>, Problem> {
    let Some(snapshot) = snapshot else { return Ok(None) };
    Ok(flag_of(&snapshot.value()?, key).map(ToString::to_string))
}

async fn get_document(request: Request, context: Context) -> Outcome {
    let found = flags(&context)?.newest(context.data.now()).await?;
    let document = found.ok_or_else(|| Problem::absent("No flag document is stored."))?;
    let reply = Reply::bytes(200, "application/json", document.text().as_bytes().to_vec());
    Ok(Conditions::of(&request).read(&tag(&document), reply)?.consistency(Consistency::Eventual))
}

async fn put_document(request: Request, context: Context) -> Outcome {
    let document = extract::json_of_depth(&request, DOCUMENT.bytes, DOCUMENT.depth).await?;
    let _turn = turn::take(&context.data, DOCUMENT_TURN).await?;
    let (flags, now) = (flags(&context)?, context.data.now());
    let base = flags.newest(now).await?;
    Conditions::of(&request).check_write(base.as_deref().map(tag).as_deref())?;
    let committed = flags.commit(base.as_ref(), Edit::Replace(document), now).await?;
    let status = if base.is_some() { 200 } else { 201 };
    Ok(receipt(status, &committed).header("ETag", tag(&committed)))
}

async fn get_flag(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    let newest = flags(&context)?.newest(context.data.now()).await?;
    let text = flag_text(newest.as_ref(), &key)?.ok_or(Error::NoSuchFlag)?;
    let tag = etag(text.as_bytes());
    let reply = Reply::bytes(200, "application/json", text.into_bytes());
    Ok(Conditions::of(&request).read(&tag, reply)?.consistency(Consistency::Eventual))
}

async fn put_flag(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    let flag = extract::json_of_depth(&request, DOCUMENT.bytes, DOCUMENT.depth).await?;
    let (existed, committed) = edit(&request, &context, &key, Edit::PutFlag { key: key.clone(), flag }).await?;
    flag_receipt(if existed { 200 } else { 201 }, &committed, &key)
}

async fn delete_flag(request: Request, context: Context) -> Outcome {
    let key = path_id(&context, "key")?;
    edit(&request, &context, &key.clone(), Edit::RemoveFlag { key }).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

async fn put_override(request: Request, context: Context) -> Outcome {
    let (key, user) = (path_id(&context, "key")?, path_id(&context, "user")?);
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let variant = fields.id("variant")?;
    fields.finish()?;
    let change = Edit::PutOverride { key: key.clone(), user, variant };
    let (_, committed) = edit(&request, &context, &key, change).await?;
    flag_receipt(200, &committed, &key)
}

async fn delete_override(request: Request, context: Context) -> Outcome {
    let (key, user) = (path_id(&context, "key")?, path_id(&context, "user")?);
    edit(&request, &context, &key.clone(), Edit::RemoveOverride { key, user }).await?;
    Ok(Reply::empty(204).consistency(Consistency::Eventual))
}

/// Makes `edit` under the request's conditions on flag `key`; whether that flag was there before. Faults are named by
/// their place in the body.
async fn edit(request: &Request, context: &Context, key: &str, edit: Edit) -> Result<(bool, Rc<Snapshot>), Problem> {
    let _turn = turn::take(&context.data, DOCUMENT_TURN).await?;
    let (flags, now) = (flags(context)?, context.data.now());
    let base = flags.newest(now).await?;
    let before = flag_text(base.as_ref(), key)?.map(|text| etag(text.as_bytes()));
    Conditions::of(request).check_write(before.as_deref())?;
    let place = edit.place();
    let committed = flags.commit(base.as_ref(), edit, now).await.map_err(|error| match (error, place) {
        (Error::Invalid(faults), Some((place, member))) => {
            Error::Invalid(faults.into_iter().map(|fault| fault.within(&place, member)).collect())
        }
        (error, _) => error,
    })?;
    Ok((before.is_some(), committed))
}

async fn revisions(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let scope = page::scope(&context, &["flag revisions"])?;
    let request = page::request(app, &Query::of(app)?, &scope)?;
    let start: usize = request.cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let newest = flags(&context)?.newest(app.now()).await?;
    let history = newest.as_ref().map(|newest| newest.history()).unwrap_or_default();
    let items: Vec<_> = history.iter().skip(start).take(request.limit as usize).collect();
    let end = start.saturating_add(items.len());
    let cursor = (end < history.len()).then(|| end.to_string());
    let list = page::list(app, &scope, items, cursor.as_deref());
    Ok(Reply::json(200, &list).consistency(Consistency::Eventual))
}

async fn rollback(request: Request, context: Context) -> Outcome {
    let mut fields = extract::object(&request, extract::JSON_BYTES_MAX).await?;
    let revision = fields.text("revision", REVISION_BYTES_MAX)?.ok_or_else(|| extract::missing("revision"))?;
    fields.finish()?;
    let _turn = turn::take(&context.data, DOCUMENT_TURN).await?;
    let (flags, now) = (flags(&context)?, context.data.now());
    let base = flags.newest(now).await?.ok_or(Error::NoSuchRevision)?;
    Conditions::of(&request).check_write(Some(&tag(&base)))?;
    let committed = flags.rollback(&base, &revision, now).await?;
    Ok(receipt(200, &committed).header("ETag", tag(&committed)))
}

/// The same for one flag, with its tag.
fn flag_receipt(status: u16, committed: &Rc<Snapshot>, key: &str) -> Outcome {
    let text = flag_text(Some(committed), key)?.ok_or(Error::NoSuchFlag)?;
    Ok(receipt(status, committed).header("ETag", etag(text.as_bytes())))
}

/// Which revision is current after a write.
fn receipt(status: u16, committed: &Snapshot) -> Reply {
    Reply::json(status, committed.current()).consistency(Consistency::Eventual)
}
