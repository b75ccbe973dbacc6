//! A collection's schema: a version and the migrations that lead to it, checked when published.
//!
//! Fields are members of the document's top level; `move` reaches deeper by JSON Pointer (RFC 6901) and makes the objects
//! on its way. A step on a field that is not there does nothing; a step that would cover a value fails, and the document
//! stays in its old version. Applying is a pure function.

use std::collections::BTreeSet;
use std::slice::from_ref;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::BOUNDS;
use crate::json::integer;
use crate::kv::codec::Record;
use crate::patch::{PatchError, check};

/// Highest version of a schema.
pub const VERSION_MAX: u32 = 100;
/// Steps of one migration, at most.
const STEPS_MAX: usize = 50;
/// Segments of a pointer, at most.
const POINTER_SEGMENTS_MAX: usize = 16;
/// Bytes of a field's name or a pointer, at most.
const NAME_BYTES_MAX: usize = 256;

/// Something that brings documents to its version.
pub trait Migrate {
    /// The version it leads to.
    fn version(&self) -> u32;

    /// The highest version there ever was; more than [`Migrate::version`] after one was taken back.
    fn version_highest(&self) -> u32 {
        self.version()
    }

    /// `data` of version `from`, in the version this leads to.
    ///
    /// # Errors
    ///
    /// A step cannot handle the data.
    fn migrate(&self, from: u32, data: Value) -> Result<Value, MigrationError>;
}

/// A migration cannot handle a document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the migration from version {from} failed: {why}")]
pub struct MigrationError {
    /// The version it starts from.
    pub from: u32,
    /// What is wrong with the document.
    pub why: String,
}

/// A schema is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {expected}")]
pub struct SchemaError {
    /// The field to blame, such as `migrations/0/steps/2`.
    pub field: String,
    /// What would be right.
    pub expected: String,
}

/// The schema of one collection. It can only be made from one that was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collection {
    version: u32,
    version_highest: u32,
    /// The migration at index 0 leads from version 1 to 2, and so on.
    migrations: Vec<Vec<Step>>,
}

impl Record for Collection {
    const KIND: &'static str = "collection";
    const VERSION: u32 = 1;
}

/// What a migration does to one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Step {
    Rename { from: String, to: String },
    Add { field: String, default: Value },
    Remove { field: String },
    Move { from: String, to: String },
    Convert { field: String, to: Type },
    Wrap { field: String, into: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Type {
    String,
    Number,
    Boolean,
}

/// The kinds of steps, as they are sent.
const KINDS: [&str; 6] = ["rename", "add", "remove", "move", "convert", "wrap"];

/// An object as it was sent, whose members are taken one by one.
struct Sent {
    place: String,
    members: Map<String, Value>,
}

impl Sent {
    fn of(place: String, value: Value) -> Result<Self, SchemaError> {
        match value {
            Value::Object(members) => Ok(Self { place, members }),
            _ => refuse(place, "must be an object"),
        }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    fn take(&mut self, name: &str) -> Result<Value, SchemaError> {
        self.members.remove(name).map_or_else(|| refuse(self.at(name), "is missing"), Ok)
    }

    fn text(&mut self, name: &str) -> Result<String, SchemaError> {
        match self.take(name)? {
            Value::String(text) => Ok(text),
            _ => refuse(self.at(name), "must be a string"),
        }
    }

    fn version(&mut self, name: &str) -> Result<u32, SchemaError> {
        let version = integer(&self.take(name)?).and_then(|version| u32::try_from(version).ok());
        version.map_or_else(|| refuse(self.at(name), "must be the number of a version"), Ok)
    }

    fn kind(&mut self, name: &str) -> Result<Type, SchemaError> {
        match self.text(name)?.as_str() {
            "string" => Ok(Type::String),
            "number" => Ok(Type::Number),
            "boolean" => Ok(Type::Boolean),
            _ => refuse(self.at(name), "must be string, number or boolean"),
        }
    }

    fn finish(self) -> Result<(), SchemaError> {
        self.members.keys().next().map_or(Ok(()), |name| refuse(self.at(name), "is unknown"))
    }
}

fn refuse<T>(field: impl Into<String>, expected: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError { field: field.into(), expected: expected.into() })
}

impl Collection {
    /// The schema of `version` whose `migrations` are as the API takes them: `[{from, to, steps}]`, in any order.
    ///
    /// # Errors
    ///
    /// The version is not 1 to 100; a migration is missing, doubled or leads elsewhere than one version up; a step is
    /// unknown or ill-formed, or contradicts one before it.
    pub fn new(version: u32, migrations: Value) -> Result<Self, SchemaError> {
        if !(1..=VERSION_MAX).contains(&version) {
            return refuse("version", format!("must be an integer from 1 to {VERSION_MAX}"));
        }
        let Value::Array(sent) = migrations else { return refuse("migrations", "must be an array") };
        if sent.len() >= VERSION_MAX as usize {
            return refuse("migrations", format!("must have less than {VERSION_MAX} items"));
        }
        let mut chain: Vec<Option<Vec<Step>>> = (1..version).map(|_| None).collect();
        for (index, item) in sent.into_iter().enumerate() {
            let field = format!("migrations/{index}");
            let mut sent = Sent::of(field.clone(), item)?;
            let (from, to, steps) = (sent.version("from")?, sent.version("to")?, sent.take("steps")?);
            sent.finish()?;
            if from.checked_add(1) != Some(to) {
                return refuse(field, "must lead from one version to the next, \"to\" being \"from\" plus 1");
            }
            let place = from.checked_sub(1).and_then(|place| chain.get_mut(place as usize));
            let Some(place) = place else { return refuse(field, format!("must lie between version 1 and {version}")) };
            if place.replace(read_steps(&format!("{field}/steps"), steps)?).is_some() {
                return refuse(field, format!("is a second migration from version {from}"));
            }
        }
        if let Some(gap) = chain.iter().position(Option::is_none) {
            return refuse("migrations", format!("lacks the migration from version {} to {}", gap + 1, gap + 2));
        }
        Ok(Self { version, version_highest: version, migrations: chain.into_iter().flatten().collect() })
    }

    /// This schema, as the successor of `before`.
    #[must_use]
    pub fn after(self, before: Option<&Self>) -> Self {
        let highest = before.map_or(0, |before| before.version_highest);
        Self { version_highest: self.version_highest.max(highest), ..self }
    }
}

impl Migrate for Collection {
    fn version(&self) -> u32 {
        self.version
    }

    fn version_highest(&self) -> u32 {
        self.version_highest
    }

    fn migrate(&self, from: u32, mut data: Value) -> Result<Value, MigrationError> {
        for version in from..self.version {
            let index = version.checked_sub(1).and_then(|index| usize::try_from(index).ok());
            let failed = |why: String| MigrationError { from: version, why };
            let steps = index.and_then(|index| self.migrations.get(index));
            let steps = steps.ok_or_else(|| failed("there is no such migration".to_owned()))?;
            let Value::Object(fields) = &mut data else {
                return Err(failed("the document is not an object".to_owned()));
            };
            for step in steps {
                step.apply(fields).map_err(failed)?;
            }
        }
        check(&data, BOUNDS).map_err(|error: PatchError| MigrationError { from, why: error.to_string() })?;
        Ok(data)
    }
}

fn read_steps(field: &str, sent: Value) -> Result<Vec<Step>, SchemaError> {
    let Value::Array(sent) = sent else { return refuse(field, "must be an array") };
    if sent.len() > STEPS_MAX {
        return refuse(field, format!("must have at most {STEPS_MAX} items"));
    }
    let mut steps = Vec::with_capacity(sent.len());
    let mut history = History::default();
    for (index, item) in sent.into_iter().enumerate() {
        let field = format!("{field}/{index}");
        let step = Step::read(&field, item)?;
        step.check().or_else(|expected| refuse(&field, expected))?;
        history.take(&step).or_else(|expected| refuse(&field, expected))?;
        steps.push(step);
    }
    Ok(steps)
}

/// What the steps of one migration did so far, by pointer: enough to see that a later one contradicts an earlier one.
#[derive(Default)]
struct History {
    made: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl History {
    fn take(&mut self, step: &Step) -> Result<(), String> {
        let (takes, makes) = match step {
            Step::Rename { from, to } => (Some(pointer_to(from)), Some(pointer_to(to))),
            Step::Move { from, to } => (Some(from.clone()), Some(to.clone())),
            Step::Wrap { field, into } => (Some(pointer_to(field)), Some(pointer_to(into) + &pointer_to(field))),
            Step::Remove { field } => (Some(pointer_to(field)), None),
            Step::Add { field, .. } => (None, Some(pointer_to(field))),
            Step::Convert { field, .. } if self.gone.contains(&pointer_to(field)) => {
                return Err(format!("{field} was taken away by an earlier step"));
            }
            Step::Convert { .. } => (None, None),
        };
        if let Some(taken) = takes
            && !self.gone.insert(taken.clone())
        {
            return Err(format!("{taken} was taken away by an earlier step"));
        }
        if let Some(made) = makes {
            // To fill a removed field anew is sensible; to move values in a circle is not.
            if self.gone.contains(&made) && !matches!(step, Step::Add { .. }) {
                return Err(format!("{made} was taken away by an earlier step: the steps form a cycle"));
            }
            if !self.made.insert(made.clone()) {
                return Err(format!("{made} was made by an earlier step"));
            }
        }
        Ok(())
    }
}

/// The pointer to a member of the top level. Source: RFC 6901 §3.
fn pointer_to(field: &str) -> String {
    format!("/{}", field.replace('~', "~0").replace('/', "~1"))
}

/// The segments of a pointer, unescaped; nothing when it is not one, or points to the whole.
fn segments(pointer: &str) -> Option<Vec<String>> {
    let segments: Vec<&str> = pointer.strip_prefix('/')?.split('/').collect();
    let unescape = |segment: &&str| {
        let escapes_are_whole = segment.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        escapes_are_whole.then(|| segment.replace("~1", "/").replace("~0", "~"))
    };
    let bounded = pointer.len() <= NAME_BYTES_MAX && segments.len() <= POINTER_SEGMENTS_MAX;
    segments.iter().filter(|_| bounded).map(unescape).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("a field's name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    let member = Value::Object(Map::from_iter([(name.to_owned(), Value::Null)]));
    check(&member, BOUNDS).map_err(|error| error.to_string())
}

impl Step {
    /// By hand, because the derived reader does not say which member is wrong.
    fn read(field: &str, item: Value) -> Result<Self, SchemaError> {
        let one_key = || refuse(field, "must have one key: rename, add, remove, move, convert or wrap");
        let Value::Object(kinds) = item else { return one_key() };
        let mut kinds = kinds.into_iter();
        let (Some((kind, members)), None) = (kinds.next(), kinds.next()) else { return one_key() };
        if !KINDS.contains(&kind.as_str()) {
            return one_key();
        }
        let mut sent = Sent::of(format!("{field}/{kind}"), members)?;
        let step = match kind.as_str() {
            "rename" => Self::Rename { from: sent.text("from")?, to: sent.text("to")? },
            "add" => Self::Add { field: sent.text("field")?, default: sent.take("default")? },
            "remove" => Self::Remove { field: sent.text("field")? },
            "move" => Self::Move { from: sent.text("from")?, to: sent.text("to")? },
            "convert" => Self::Convert { field: sent.text("field")?, to: sent.kind("to")? },
            _ => Self::Wrap { field: sent.text("field")?, into: sent.text("into")? },
        };
        sent.finish().map(|()| step)
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Rename { from, to } if from == to => Err("\"from\" and \"to\" are the same".to_owned()),
            Self::Rename { from: first, to: second } | Self::Wrap { field: first, into: second } => {
                check_name(first).and_then(|()| check_name(second))
            }
            Self::Add { field, default } => {
                check_name(field).and_then(|()| check(default, BOUNDS).map_err(|error| error.to_string()))
            }
            Self::Remove { field } | Self::Convert { field, .. } => check_name(field),
            Self::Move { from, to } => {
                let wrong = || format!("a pointer starts with / and has at most {POINTER_SEGMENTS_MAX} segments");
                let (source, target) = (segments(from).ok_or_else(wrong)?, segments(to).ok_or_else(wrong)?);
                if target.starts_with(&source) {
                    return Err("a value cannot be moved into itself".to_owned());
                }
                if source.starts_with(&target) {
                    return Err("a value cannot be moved to where it lies: the object around it is there".to_owned());
                }
                source.iter().chain(&target).try_for_each(|segment| check_name(segment))
            }
        }
    }

    fn apply(&self, fields: &mut Map<String, Value>) -> Result<(), String> {
        match self {
            Self::Rename { from, to } => relocate(fields, from_ref(from), from_ref(to)),
            Self::Move { from, to } => {
                let wrong = || "an ill-formed pointer".to_owned();
                relocate(fields, &segments(from).ok_or_else(wrong)?, &segments(to).ok_or_else(wrong)?)
            }
            Self::Wrap { field, into } => match fields.remove(field) {
                Some(value) => place(fields, &[into.clone(), field.clone()], value),
                None => Ok(()),
            },
            Self::Add { field, default } => {
                fields.entry(field).or_insert_with(|| default.clone());
                Ok(())
            }
            Self::Remove { field } => {
                fields.remove(field);
                Ok(())
            }
            Self::Convert { field, to } => match fields.get_mut(field) {
                Some(value) => {
                    *value = convert(value, *to).ok_or_else(|| format!("{field} cannot be converted"))?;
                    Ok(())
                }
                None => Ok(()),
            },
        }
    }
}

fn relocate(fields: &mut Map<String, Value>, from: &[String], to: &[String]) -> Result<(), String> {
    match take(fields, from)? {
        Some(value) => place(fields, to, value),
        None => Ok(()),
    }
}

/// Takes the value at `path` out of its object; nothing when it is not there. What is in an array stays there.
fn take(fields: &mut Map<String, Value>, path: &[String]) -> Result<Option<Value>, String> {
    match path {
        [] => Ok(None),
        [last] => Ok(fields.remove(last)),
        [first, rest @ ..] => match fields.get_mut(first) {
            Some(Value::Object(inner)) => take(inner, rest),
            Some(Value::Array(_)) => Err(format!("{first} is not an object")),
            _ => Ok(None),
        },
    }
}

/// Puts `value` at `path`, making the objects on the way; never over a value.
fn place(fields: &mut Map<String, Value>, path: &[String], value: Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [last] if fields.contains_key(last) => Err(format!("{last} is already there")),
        [last] => {
            fields.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => match fields.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => place(inner, rest, value),
            _ => Err(format!("{first} is not an object")),
        },
    }
}

/// `value` as another type; `null` stays. Nothing when it has no meaning there.
fn convert(value: &Value, to: Type) -> Option<Value> {
    match (value, to) {
        (Value::Null, _)
        | (Value::String(_), Type::String)
        | (Value::Number(_), Type::Number)
        | (Value::Bool(_), Type::Boolean) => Some(value.clone()),
        (Value::Number(number), Type::String) => Some(number.to_string().into()),
        (Value::Bool(truth), Type::String) => Some(truth.to_string().into()),
        (Value::Bool(truth), Type::Number) => Some(u8::from(*truth).into()),
        (Value::String(text), Type::Number) => text.trim().parse::<Number>().ok().map(Value::Number),
        (Value::String(text), Type::Boolean) => match text.trim() {
            "true" | "1" => Some(true.into()),
            "false" | "0" => Some(false.into()),
            _ => None,
        },
        (Value::Number(number), Type::Boolean) => match number.as_f64() {
            Some(0.0) => Some(false.into()),
            Some(1.0) => Some(true.into()),
            _ => None,
        },
        (Value::Array(_) | Value::Object(_), _) => None,
    }
}
