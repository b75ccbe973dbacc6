//! Listing and deleting keys over HTTP. The pattern's promises are in [`crate::patterns::hierarchy`].

use serde::Serialize;
use serde_json::Value;
use worker::Request;

use super::extract::{Query, path_id};
use super::problem::Problem;
use super::reply::{Consistency, Reply};
use super::{Access, AppStore, Context, Outcome, Route, meta, page, route};
use crate::patterns::hierarchy::{self, Error, HIDDEN, Hierarchy, Item};

pub(super) const ROUTES: &[Route] = &[
    route!(GET "/v1/keys/:binding", Access::Read(&["keys"]), list),
    route!(DELETE "/v1/keys/:binding", Access::Write(&["keys"]), delete),
];

/// Longest prefix that is looked at, in bytes; a stored key has no more.
const PREFIX_BYTES_MAX: usize = crate::kv::limits::KEY_BYTES_MAX;

#[derive(Serialize)]
struct Listing {
    items: Vec<Item>,
    prefixes: Vec<String>,
    cursor: Option<String>,
}

fn binding(context: &Context) -> Result<&'static str, Problem> {
    let asked = path_id(context, "binding")?;
    let known = meta::BINDINGS.into_iter().find(|binding| binding.eq_ignore_ascii_case(&asked));
    known.ok_or_else(|| Problem::not_found("There is no such binding."))
}

fn keys(context: &Context, binding: &'static str) -> Result<Hierarchy<AppStore>, Problem> {
    let app = &context.data;
    Ok(Hierarchy::new(app.store(binding)?, app.caller()?.tenant.clone(), HIDDEN))
}

fn prefix(query: &Query) -> Result<&str, Problem> {
    let prefix = query.get("prefix").unwrap_or_default();
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(Problem::invalid("prefix", format!("Must have at most {PREFIX_BYTES_MAX} bytes.")));
    }
    Ok(prefix)
}

async fn list(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let (binding, query) = (binding(&context)?, Query::of(app)?);
    let roll_up = match query.get("delimiter") {
        None | Some("") => false,
        Some("/") => true,
        Some(_) => return Err(Problem::invalid("delimiter", "Must be `/`.")),
    };
    let filters: Vec<(&str, &str)> =
        query.pairs().filter_map(|(name, value)| Some((name.strip_prefix("metadata.")?, value))).collect();
    let scope = page::scope(
        &context,
        &["keys", binding, prefix(&query)?, if roll_up { "/" } else { "" }, &format!("{filters:?}")],
    )?;
    let request = page::request(app, &query, &scope)?;
    // A filter's value is JSON where it reads as such, otherwise a text.
    let filter = |(name, value): (&str, &str)| {
        (name.to_owned(), serde_json::from_slice(value.as_bytes()).unwrap_or_else(|_| Value::String(value.to_owned())))
    };
    let listed = keys(&context, binding)?
        .list(&hierarchy::Query {
            prefix: prefix(&query)?.to_owned(),
            roll_up,
            limit: request.limit,
            metadata: filters.into_iter().map(filter).collect(),
            cursor: request.cursor,
        })
        .await?;
    let cursor = page::list::<()>(app, &scope, Vec::new(), listed.cursor.as_deref()).cursor;
    let listing = Listing { items: listed.items, prefixes: listed.prefixes, cursor };
    Ok(Reply::json(200, &listing).consistency(Consistency::Eventual))
}

async fn delete(_: Request, context: Context) -> Outcome {
    let app = &context.data;
    let (binding, query) = (binding(&context)?, Query::of(app)?);
    let prefix = prefix(&query)?;
    let scope = page::scope(&context, &["delete keys", binding, prefix])?;
    let cursor = page::open(app, &scope, query.get("cursor"))?;
    if !query.flag("confirm")? {
        return Err(Problem::invalid("confirm", "Must be 1: this deletes everything below the prefix."));
    }
    let mut receipt = keys(&context, binding)?.delete(prefix, cursor.as_deref()).await?;
    receipt.cursor = page::list::<()>(app, &scope, Vec::new(), receipt.cursor.as_deref()).cursor;
    Ok(Reply::json(200, &receipt).consistency(Consistency::Eventual))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::PrefixInvalid => Self::invalid("prefix", "Not a prefix of keys."),
            Error::CursorInvalid => Self::invalid("cursor", "Not a cursor of this list."),
            Error::Kv(error) => error.into(),
        }
    }
}
