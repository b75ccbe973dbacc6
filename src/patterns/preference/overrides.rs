//! What a user set, per field with its stamp; how copies join; and the one decision that changes them.
//!
//! Joining keeps, per field, the entry with the greater stamp. That is commutative, associative and idempotent, so
//! copies that saw the same changes in whatever order are equal (a last-writer-wins map; Shapiro, Preguiça, Baquero,
//! Zawirski, "Conflict-free Replicated Data Types", SSS 2011).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::schema::{BOUNDS, FieldError, Schema};
use crate::clock::Timestamp;
use crate::etag::{Precondition, entity_tag};
use crate::kv::codec::Record;
use crate::patch::{Patch, PatchError, check, overlay};
use crate::stamp::Stamp;

/// How long the trace of an unset field is kept, in seconds (30 days): far longer than any copy stays stale.
pub const TOMBSTONE_SECONDS: u64 = 30 * 86_400;

/// One field as it was last changed: set, or unset when there is no value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Value>,
}

/// A `null` that is there is a value, unlike a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Record for Entry {
    const KIND: &'static str = "preference";
    const VERSION: u32 = 1;
}

impl Entry {
    /// The field was set to `value`.
    pub const fn set(stamp: Stamp, value: Value) -> Self {
        Self { stamp, value: Some(value) }
    }

    /// The field was given back to its default.
    pub const fn unset(stamp: Stamp) -> Self {
        Self { stamp, value: None }
    }

    /// Whether the user has a value of their own.
    pub const fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// The order in which entries win. Two writers never give one stamp; should they, the value decides, so that every
    /// copy decides alike.
    fn rank(&self) -> (Stamp, Option<String>) {
        (self.stamp, self.value.as_ref().map(Value::to_string))
    }
}

/// What one user changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(BTreeMap<String, Entry>);

impl Overrides {
    /// Takes `entry` for `field`, unless a later one is there.
    pub fn put(&mut self, field: String, entry: Entry) {
        let stays = self.0.get(&field).is_some_and(|known| known.stamp > entry.stamp || known.rank() >= entry.rank());
        if !stays {
            self.0.insert(field, entry);
        }
    }

    /// Joins another copy into this one.
    pub fn merge(&mut self, other: Self) {
        for (field, entry) in other.0 {
            self.put(field, entry);
        }
    }

    /// The entries, by field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(field, entry)| (field.as_str(), entry))
    }

    /// Whether nothing was ever set or unset.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `field` has an entry.
    pub fn contains(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The greatest stamp.
    pub fn newest(&self) -> Option<Stamp> {
        self.stamps().map(|(_, stamp)| stamp).max()
    }

    /// The stamp of each field.
    pub fn stamps(&self) -> impl Iterator<Item = (&str, Stamp)> {
        self.iter().map(|(field, entry)| (field, entry.stamp))
    }

    /// The stamp of `field`; nothing when it has no entry.
    pub fn stamp_of(&self, field: &str) -> Option<Stamp> {
        self.0.get(field).map(|entry| entry.stamp)
    }

    /// The entries of `fields` alone.
    #[must_use]
    pub fn only(&self, fields: &BTreeSet<String>) -> Self {
        let entries = self.0.iter().filter(|(field, _)| fields.contains(*field));
        Self(entries.map(|(field, entry)| (field.clone(), entry.clone())).collect())
    }

    /// Forgets unset fields whose trace has served its time before `now`.
    pub fn forget_tombstones(&mut self, now: Timestamp) {
        self.0.retain(|_, entry| entry.is_set() || entry.stamp.at().plus_seconds(TOMBSTONE_SECONDS) > now);
    }

    /// The values that are set, alone.
    fn values(&self) -> Map<String, Value> {
        let set = |(field, entry): (&String, &Entry)| Some((field.clone(), entry.value.clone()?));
        self.0.iter().filter_map(set).collect()
    }

    /// Every field of `schema`: the user's value over the default. A value that the schema no longer takes gives way.
    pub fn over(&self, schema: &Schema) -> Map<String, Value> {
        let field = |field: &str| {
            let default = schema.default_of(field);
            let own = self.0.get(field).and_then(|entry| entry.value.as_ref());
            let value = own.map(|own| overlay(default, own)).filter(|value| schema.check(field, value).is_ok());
            (field.to_owned(), value.unwrap_or_else(|| default.clone()))
        };
        schema.fields().map(field).collect()
    }
}

/// The least value that gives `value` when it is laid over `under`: members equal to the default are not frozen.
fn sparse(under: &Value, value: &Value) -> Value {
    match (under, value) {
        (Value::Object(under), Value::Object(members)) => {
            let own = members.iter().filter(|(name, value)| under.get(*name) != Some(value));
            let own = own.map(|(name, value)| (name.clone(), sparse(under.get(name).unwrap_or(&Value::Null), value)));
            Value::Object(own.collect())
        }
        _ => value.clone(),
    }
}

/// A change of one user's preferences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// These fields and no others are the user's own from now on.
    Replace(Map<String, Value>),
    /// A merge patch is applied to what the user set (`null` gives a field back to its default), a JSON Patch to the
    /// whole document, which is what its author sees.
    Patch(Patch),
    /// Every field goes back to its default.
    Clear,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The document is another one than the caller wants changed.
    #[error("the document is another one")]
    PreconditionFailed,
    /// A field is unknown, or takes other values.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The patch cannot be applied, or the result is too large.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// What to write: the changed fields, all with one stamp.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// One entry per changed field.
    pub entries: Overrides,
}

/// Decides `change` of a user whose overrides are `current`. `stamp` must be greater than every stamp in there.
///
/// The entries of a patch are the fields it names, also those that keep their value: where `current` is an old copy,
/// leaving those out would lose them.
///
/// # Errors
///
/// The precondition does not hold, or the change is not acceptable.
pub fn decide(
    current: &Overrides,
    schema: &Schema,
    change: &Change,
    precondition: &Precondition,
    stamp: Stamp,
) -> Result<Decision, Refusal> {
    let document = current.over(schema);
    if !precondition.holds(Some(&entity_tag(&document))) {
        return Err(Refusal::PreconditionFailed);
    }
    let (own, touched) = match change {
        Change::Clear => (Map::new(), None),
        Change::Replace(fields) => (fields.clone(), None),
        Change::Patch(patch @ Patch::Merge(_)) => {
            (members(patch.apply(Value::Object(current.values()), BOUNDS)?)?, patch.touched())
        }
        Change::Patch(patch @ Patch::Operations(_)) => {
            let after = members(patch.apply(Value::Object(document), BOUNDS)?)?;
            let own = after.iter().map(|(field, value)| (field.clone(), sparse(schema.default_of(field), value)));
            (own.collect(), patch.touched())
        }
    };
    check(&Value::Object(own.clone()), BOUNDS)?;
    let everything = || schema.fields().map(str::to_owned).chain(own.keys().cloned()).collect();
    let mut entries = Overrides::default();
    for field in touched.unwrap_or_else(everything) {
        let entry = match own.get(&field) {
            Some(value) => {
                schema.check(&field, &overlay(schema.default_of(&field), value))?;
                Entry::set(stamp, value.clone())
            }
            None if schema.has(&field) => Entry::unset(stamp),
            None => return Err(FieldError { field, expected: "is not a known field".to_owned() }.into()),
        };
        entries.put(field, entry);
    }
    Ok(Decision { entries })
}

fn members(document: Value) -> Result<Map<String, Value>, FieldError> {
    match document {
        Value::Object(members) => Ok(members),
        _ => Err(FieldError { field: String::new(), expected: "must be an object".to_owned() }),
    }
}
