//! `?limit=`, `?cursor=`, and the list they page through.

use serde::Serialize;

use super::extract::Query;
use super::problem::Problem;
use super::{App, Context};
use crate::kv::{CursorSeal, PageRequest};

/// Items of a page where nothing else is said.
const LIMIT_DEFAULT: u64 = 100;

/// A page as every list gives it.
#[derive(Debug, Serialize)]
pub struct List<T> {
    /// The items, possibly none although more follow.
    pub items: Vec<T>,
    /// Opaque; `null` ends the list.
    pub cursor: Option<String>,
}

/// The page that `query` asks for. `scope` names what is listed, for example the prefix in KV: a cursor is void
/// anywhere else.
///
/// # Errors
///
/// 400: the limit is not 1 to 1000, or the cursor is not one of this list.
pub fn request(app: &App, query: &Query, scope: &str) -> Result<PageRequest, Problem> {
    let limit = query.integer("limit", 1..=1000, LIMIT_DEFAULT)?;
    let request = PageRequest::first(u32::try_from(limit).unwrap_or(1));
    let cursor = open(app, scope, query.get("cursor"))?;
    Ok(PageRequest { cursor, ..request })
}

/// The cursor that was sealed for `scope`.
///
/// # Errors
///
/// 400: it is not one of this list.
pub fn open(app: &App, scope: &str, sealed: Option<&str>) -> Result<Option<String>, Problem> {
    let open =
        |sealed| seal(app).open(scope, sealed).ok_or_else(|| Problem::invalid("cursor", "Not a cursor of this list."));
    sealed.map(open).transpose()
}

/// The page to answer with.
pub fn list<T>(app: &App, scope: &str, items: Vec<T>, cursor: Option<&str>) -> List<T> {
    List { items, cursor: cursor.map(|cursor| seal(app).seal(scope, cursor)) }
}

fn seal(app: &App) -> CursorSeal {
    CursorSeal::new(app.config.cursor_secret)
}

/// The scope of a list that belongs to the caller's tenant: what is listed, in which namespace, below what.
///
/// # Errors
///
/// 401 on an open route.
pub fn scope(context: &Context, parts: &[&str]) -> Result<String, Problem> {
    // A zero byte is in no tenant id and in no path id, so parts cannot run into each other.
    Ok(format!("{}\0{}", context.data.caller()?.tenant.id(), parts.join("\0")))
}
