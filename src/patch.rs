//! Changing JSON documents of strangers: JSON Merge Patch (RFC 7396), JSON Patch (RFC 6902); all bounded.
//!
//! - At most 100 operations. A `copy` can double a document, so sizes are checked while operations are applied.
//! - A patch applies wholly or not at all, and never panics on what it is given.
//! - The names `__proto__`, `constructor` and `prototype` are refused wherever they stand: they are harmless here, and
//!   change every object of a JavaScript client that copies them (prototype pollution, CWE-1321).

use std::collections::BTreeSet;

use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation, ReplaceOperation,
    TestOperation, patch_unsafe,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Operations of one JSON Patch, at most.
pub const OPERATIONS_MAX: usize = 100;

/// What an operation may be.
const KINDS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// Names that no object may have.
const NAMES_FORBIDDEN: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// How large a document may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of its JSON.
    pub bytes_max: usize,
    /// Levels of arrays and objects.
    pub depth_max: usize,
}

/// Why a patch cannot be applied, or a document not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PatchError {
    /// A JSON Patch is an array of operations.
    #[error("a patch is an array of operations")]
    NotAnArray,
    /// What is not an operation of RFC 6902.
    #[error("operation {operation}: {why}")]
    Malformed {
        /// Its place in the patch, from 0.
        operation: usize,
        /// The member to blame; nothing when the whole is no object.
        member: Option<&'static str>,
        /// What would be right.
        why: &'static str,
    },
    /// More than [`OPERATIONS_MAX`] operations.
    #[error("a patch has at most {OPERATIONS_MAX} operations")]
    TooManyOperations,
    /// The value of a `test` is another one.
    #[error("operation {0}: the tested value is different")]
    TestFailed(usize),
    /// An operation points to what is not there, or moves a value into itself.
    #[error("operation {operation}: {why}")]
    Impossible {
        /// Its place in the patch, from 0.
        operation: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The document would be too large.
    #[error("the document would have more than {0} bytes")]
    TooLarge(usize),
    /// The document would be nested too deeply.
    #[error("the document would be nested deeper than {0} levels")]
    TooDeep(usize),
    /// An object would have one of the forbidden names.
    #[error("the name {0} is not allowed")]
    ForbiddenName(&'static str),
}

/// A change of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Patch {
    /// A JSON Merge Patch.
    Merge(Value),
    /// The operations of a JSON Patch.
    Operations(#[serde(deserialize_with = "operations_again")] Vec<PatchOperation>),
}

/// Operations that were written out by this code. By way of [`Patch::operations`], for the same reason as [`operation`].
fn operations_again<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PatchOperation>, D::Error> {
    match Patch::operations(Value::deserialize(deserializer)?) {
        Ok(Patch::Operations(operations)) => Ok(operations),
        _ => Err(serde::de::Error::custom("not operations")),
    }
}

impl Patch {
    /// The JSON Patch that `value` is.
    ///
    /// # Errors
    ///
    /// It is not an array of operations, or has too many.
    pub fn operations(value: Value) -> Result<Self, PatchError> {
        let Value::Array(items) = value else { return Err(PatchError::NotAnArray) };
        if items.len() > OPERATIONS_MAX {
            return Err(PatchError::TooManyOperations);
        }
        let read = |(index, item)| operation(index, item);
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self::Operations)
    }

    /// `document` after this change.
    ///
    /// # Errors
    ///
    /// An operation cannot be applied, or the result breaks `bounds` or has a forbidden name.
    pub fn apply(&self, mut document: Value, bounds: Bounds) -> Result<Value, PatchError> {
        match self {
            Self::Merge(patch) => json_patch::merge(&mut document, patch),
            Self::Operations(operations) => {
                for (index, operation) in operations.iter().enumerate() {
                    apply_one(&mut document, index, operation, bounds)?;
                }
            }
        }
        check(&document, bounds)?;
        Ok(document)
    }

    /// The members of the document's top level that this changes; nothing when it replaces the whole.
    pub fn touched(&self) -> Option<BTreeSet<String>> {
        match self {
            Self::Merge(Value::Object(members)) => Some(members.keys().cloned().collect()),
            Self::Merge(_) => None,
            Self::Operations(operations) => {
                let mut touched = BTreeSet::new();
                for operation in operations {
                    let (path, from) = match operation {
                        PatchOperation::Test(_) => continue,
                        PatchOperation::Move(moved) => (&moved.path, Some(&moved.from)),
                        other => (&other.path().to_owned(), None),
                    };
                    for pointer in [Some(path), from].into_iter().flatten() {
                        touched.insert(pointer.first()?.decoded().into_owned());
                    }
                }
                Some(touched)
            }
        }
    }
}

/// The operation that `item` is; members that its kind does not define are ignored (RFC 6902 §4). By hand, because the
/// crate's derived reader is 10 KB of the compressed bundle, and does not say which member is wrong.
fn operation(index: usize, item: Value) -> Result<PatchOperation, PatchError> {
    let wrong = |member, why| PatchError::Malformed { operation: index, member, why };
    let Value::Object(mut members) = item else { return Err(wrong(None, "must be an object")) };
    let mut take = |name| members.remove(name).ok_or_else(|| wrong(Some(name), "required"));
    let pointer = |name, value| {
        let text = if let Value::String(text) = value { Some(text) } else { None };
        let pointer = text.and_then(|text| PointerBuf::parse(text).ok());
        pointer.ok_or_else(|| wrong(Some(name), "must be a JSON Pointer, such as \"/a/0\" (RFC 6901)"))
    };
    let kind = take("op")?;
    let kind = kind.as_str().filter(|kind| KINDS.contains(kind));
    let kind = kind.ok_or_else(|| wrong(Some("op"), "must be one of: add, remove, replace, move, copy, test"))?;
    let path = pointer("path", take("path")?)?;
    Ok(match kind {
        "add" => PatchOperation::Add(AddOperation { path, value: take("value")? }),
        "remove" => PatchOperation::Remove(RemoveOperation { path }),
        "replace" => PatchOperation::Replace(ReplaceOperation { path, value: take("value")? }),
        "move" => PatchOperation::Move(MoveOperation { from: pointer("from", take("from")?)?, path }),
        "copy" => PatchOperation::Copy(CopyOperation { from: pointer("from", take("from")?)?, path }),
        _ => PatchOperation::Test(TestOperation { path, value: take("value")? }),
    })
}

fn apply_one(document: &mut Value, index: usize, operation: &PatchOperation, bounds: Bounds) -> Result<(), PatchError> {
    if let PatchOperation::Test(test) = operation {
        // The crate compares representations; RFC 6902 §4.6 compares numbers by value.
        let found = document.pointer(test.path.as_str());
        let equal = found.is_some_and(|found| equals(found, &test.value));
        return if equal { Ok(()) } else { Err(PatchError::TestFailed(index)) };
    }
    patch_unsafe(document, std::slice::from_ref(operation)).map_err(|error| {
        let why = match error.kind {
            PatchErrorKind::InvalidFromPointer => "\"from\" points to nothing",
            PatchErrorKind::CannotMoveInsideItself => "a value cannot be moved into itself",
            _ => "\"path\" points to nothing",
        };
        PatchError::Impossible { operation: index, why }
    })?;
    if matches!(operation, PatchOperation::Copy(_)) { check_size(document, bounds) } else { Ok(()) }
}

/// Equal as RFC 6902 §4.6 says: numbers by value, objects whatever the order of their members.
fn equals(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || left.as_f64() == right.as_f64() && !both_integers(left, right)
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equals(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(name, value)| right.get(name).is_some_and(|other| equals(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

/// Integers compare exactly: as doubles, large ones would run into each other.
fn both_integers(left: &serde_json::Number, right: &serde_json::Number) -> bool {
    !left.is_f64() && !right.is_f64()
}

/// Whether a document may be kept as it is.
///
/// # Errors
///
/// It breaks `bounds`, or an object in it has a forbidden name.
pub fn check(document: &Value, bounds: Bounds) -> Result<(), PatchError> {
    check_names_and_depth(document, bounds.depth_max, bounds.depth_max)?;
    check_size(document, bounds)
}

fn check_size(document: &Value, bounds: Bounds) -> Result<(), PatchError> {
    let mut room = Room(bounds.bytes_max);
    serde_json::to_writer(&mut room, document).map_err(|_| PatchError::TooLarge(bounds.bytes_max))
}

/// Takes so many bytes and fails with the next one, so that measuring what is huge stops early.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn check_names_and_depth(value: &Value, depth_left: usize, depth_max: usize) -> Result<(), PatchError> {
    let deeper = || depth_left.checked_sub(1).ok_or(PatchError::TooDeep(depth_max));
    match value {
        Value::Array(items) => {
            let left = deeper()?;
            items.iter().try_for_each(|item| check_names_and_depth(item, left, depth_max))
        }
        Value::Object(members) => {
            let left = deeper()?;
            if let Some(name) = NAMES_FORBIDDEN.into_iter().find(|name| members.contains_key(*name)) {
                return Err(PatchError::ForbiddenName(name));
            }
            members.values().try_for_each(|member| check_names_and_depth(member, left, depth_max))
        }
        _ => Ok(()),
    }
}

/// `over` laid over `under`: objects member by member, everything else as a whole.
pub fn overlay(under: &Value, over: &Value) -> Value {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            let mut joined = under.clone();
            for (name, value) in over {
                let below = under.get(name).unwrap_or(&Value::Null);
                joined.insert(name.clone(), overlay(below, value));
            }
            Value::Object(joined)
        }
        _ => over.clone(),
    }
}
