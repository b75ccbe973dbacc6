//! Edits of a document: pure, each giving the whole new document, which is then validated as one.
//!
//! A document is kept with its flags as an object, whatever form it came in; a flag's definition never changes by
//! being stored (numbers keep their kind: `1` stays `1`, `1.0` stays `1.0`), only members are sorted.

use serde_json::{Map, Value};
use thiserror::Error as ThisError;

use super::logic::pointer_token;

/// What is to change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The whole document.
    Replace(Value),
    /// One flag, new or not.
    PutFlag {
        /// The flag's key.
        key: String,
        /// Its definition.
        flag: Value,
    },
    /// One flag, which must be there.
    RemoveFlag {
        /// The flag's key.
        key: String,
    },
    /// What one user gets of a flag, which must be there.
    PutOverride {
        /// The flag's key.
        key: String,
        /// The user's targeting key.
        user: String,
        /// The name of a variant.
        variant: String,
    },
    /// The same, taken back; also when there is none.
    RemoveOverride {
        /// The flag's key.
        key: String,
        /// The user's targeting key.
        user: String,
    },
}

impl Edit {
    /// Where in the document lies what the caller sent, and the member of the body that held it (empty: the body did).
    /// Nothing where the body was the document, or there was none.
    pub fn place(&self) -> Option<(String, &'static str)> {
        match self {
            Self::PutFlag { key, .. } => Some((format!("/flags/{}", pointer_token(key)), "")),
            Self::PutOverride { key, user, .. } => {
                let place = format!("/flags/{}/overrides/{}", pointer_token(key), pointer_token(user));
                Some((place, "variant"))
            }
            Self::Replace(_) | Self::RemoveFlag { .. } | Self::RemoveOverride { .. } => None,
        }
    }
}

/// Why an edit is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub(super) enum Refused {
    /// There is no such flag.
    #[error("no such flag")]
    NoSuchFlag,
}

/// The document after `edit`; before it, `document`.
///
/// # Errors
///
/// [`Refused::NoSuchFlag`]: the flag to change is not there.
pub(super) fn apply(document: Option<Value>, edit: Edit) -> Result<Value, Refused> {
    let mut members = match document {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let mut flags = taken(&mut members, "flags");
    match edit {
        Edit::Replace(document) => return Ok(with_flags_as_object(document)),
        Edit::PutFlag { key, flag } => {
            flags.insert(key, flag);
        }
        Edit::RemoveFlag { key } => {
            flags.remove(&key).ok_or(Refused::NoSuchFlag)?;
        }
        Edit::PutOverride { key, user, variant } => {
            overrides(&mut flags, &key, |overrides| drop(overrides.insert(user, Value::String(variant))))?;
        }
        Edit::RemoveOverride { key, user } => {
            overrides(&mut flags, &key, |overrides| drop(overrides.remove(&user)))?;
        }
    }
    members.insert("flags".to_owned(), Value::Object(flags));
    Ok(Value::Object(members))
}

/// Changes the overrides of flag `key`; an empty set of them is not kept.
fn overrides(
    flags: &mut Map<String, Value>,
    key: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), Refused> {
    let flag = flags.get_mut(key).and_then(Value::as_object_mut).ok_or(Refused::NoSuchFlag)?;
    let mut overrides = taken(flag, "overrides");
    change(&mut overrides);
    if !overrides.is_empty() {
        flag.insert("overrides".to_owned(), Value::Object(overrides));
    }
    Ok(())
}

/// The object that was the member `name`; an empty one when there was none.
fn taken(members: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match members.remove(name) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    }
}

/// The definition of flag `key` in a stored document.
pub fn flag_of<'v>(document: &'v Value, key: &str) -> Option<&'v Value> {
    document.get("flags")?.as_object()?.get(key)
}

/// An array of flags that carry their keys becomes an object, unless a key is missing or stands twice: validation then
/// says so.
fn with_flags_as_object(mut document: Value) -> Value {
    if let Some(flags) = document.get_mut("flags")
        && let Value::Array(items) = &*flags
        && let Some(keyed) = keyed(items)
    {
        *flags = Value::Object(keyed);
    }
    document
}

fn keyed(items: &[Value]) -> Option<Map<String, Value>> {
    let mut flags = Map::new();
    for item in items {
        let mut flag = item.as_object()?.clone();
        let Some(Value::String(key)) = flag.remove("key") else { return None };
        if flags.insert(key, Value::Object(flag)).is_some() {
            return None;
        }
    }
    Some(flags)
}
