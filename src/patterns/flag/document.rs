//! A flag document in flagd's JSON format, read once per revision: every fault named by its place.
//!
//! [`FlagSet::load`] reads what is stored and stays lenient: a wrong rule breaks its own flag only, as in flagd.
//! [`FlagSet::validate`] reads what somebody wants to store and refuses everything doubtful. Beyond flagd's format:
//! - `settings.bucketing`: `v1`, `v2` or `v3`, the hash generation of `fractional` (default `v3`);
//! - `settings.serveDefaultWhenDisabled`: a disabled flag answers its default variant instead of no value, for clients
//!   that cannot take an answer without a value (default `false`);
//! - `overrides` of a flag: targeting key to variant, checked before the rule and after `state`. The keys are members
//!   of their own object, so no user id collides with anything.
//!
//! Sources: <https://flagd.dev/schema/v0/flags.json>, <https://flagd.dev/reference/flag-definitions/>.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::bounds::{DOCUMENT, METADATA};
use super::bucketing::HashGeneration;
use super::logic::{Compiler, EvaluatorTable, Expr, pointer_token};
use super::{evaluators, results};
use crate::json;

/// Flags of one document.
pub const MAX_FLAGS: usize = 5_000;
/// Shared rules (`$evaluators`) of one document.
pub const MAX_EVALUATORS: usize = 1_000;
/// Variants of one flag.
pub const MAX_VARIANTS: usize = 100;
/// Overrides of one flag.
pub const MAX_OVERRIDES: usize = 1_000;
/// Bytes of a flag's key, a variant's name, an overridden user's id.
const MAX_NAME_BYTES: usize = 256;
/// Problems reported for one document.
const MAX_PROBLEMS: usize = 50;

/// Something wrong in a document: where, as a JSON Pointer (RFC 6901), and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place, such as `/flags/new-checkout/targeting/if/0`; empty for the document as a whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }

    /// The same, told to who sent `member` of a body that became what lies at `place`; the body itself where the name is
    /// empty. What lies elsewhere stays told by its place in the document.
    #[must_use]
    pub fn within(self, place: &str, member: &str) -> Self {
        let path = match self.path.strip_prefix(place) {
            Some("") => member.to_owned(),
            Some(rest) if rest.starts_with('/') => {
                let path = [member, rest].concat();
                path.strip_prefix('/').unwrap_or(&path).to_owned()
            }
            _ => self.path,
        };
        Self { path, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// The problems found so far, up to [`MAX_PROBLEMS`]: a hostile document has more than memory for them.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(problem);
        }
    }

    /// Adds the doubts of a compiled rule.
    pub(super) fn extend(&mut self, lints: Vec<(String, String)>) {
        for (path, message) in lints {
            self.push(Problem { path, message });
        }
    }
}

/// What a document says about the set as a whole, under `settings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How `fractional` hashes (`bucketing`).
    pub bucketing: HashGeneration,
    /// Whether a disabled flag answers its default variant (`serveDefaultWhenDisabled`).
    pub serve_default_when_disabled: bool,
}

/// A document, compiled.
#[derive(Clone, Debug)]
pub struct FlagSet {
    pub(super) flags: BTreeMap<String, Result<Flag, Problem>>,
    pub(super) evaluators: Vec<Expr>,
    pub(super) metadata: Map<String, Value>,
    pub(super) settings: Settings,
}

/// One flag, compiled.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub(super) enabled: bool,
    pub(super) variants: Map<String, Value>,
    pub(super) default_variant: Option<String>,
    pub(super) targeting: Targeting,
    pub(super) overrides: BTreeMap<String, String>,
    /// The set's metadata overridden by the flag's own; `None` where the flag has none.
    pub(super) metadata: Option<Map<String, Value>>,
}

#[derive(Clone, Debug)]
pub(super) enum Targeting {
    Absent,
    Rule(Expr),
    Broken(Problem),
}

impl FlagSet {
    /// Reads a stored document. A flag that is wrong answers `PARSE_ERROR`; the others work.
    ///
    /// # Errors
    /// A [`Problem`] when the document as a whole cannot be used: too large, no object, no `flags`, or wrong
    /// `metadata`, `settings` or `$evaluators`.
    pub fn load(document: &Value) -> Result<Self, Problem> {
        read(document).map(|(set, _)| set)
    }

    /// Reads a document about to be stored, and refuses it unless everything in it is right: the schema's rules,
    /// references, variants that rules name, weights, unknown members.
    ///
    /// # Errors
    /// Every [`Problem`] found, up to 50, in the order of the document.
    pub fn validate(document: &Value) -> Result<Self, Vec<Problem>> {
        let (set, problems) = read(document).map_err(|problem| vec![problem])?;
        if problems.0.is_empty() { Ok(set) } else { Err(problems.0) }
    }

    /// What the document says under `settings`.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The set's own metadata.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Whether a rule may look at `path` of the context, such as `$flagd` and `timestamp`, the time. Never falsely no.
    pub fn may_read(&self, path: &[&str]) -> bool {
        let targeting = |flag: &Result<Flag, Problem>| match flag {
            Ok(Flag { targeting: Targeting::Rule(rule), .. }) => rule.may_read(path),
            _ => false,
        };
        self.evaluators.iter().any(|rule| rule.may_read(path)) || self.flags.values().any(targeting)
    }

    /// The keys of all flags, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.flags.keys().map(String::as_str)
    }
}

fn read(document: &Value) -> Result<(FlagSet, Problems), Problem> {
    DOCUMENT.check(document).map_err(|error| Problem::new("", format_args!("the document {error}")))?;
    let members = object(document, "")?;
    let mut problems = Problems::default();
    known_members(members, "", &["$schema", "$evaluators", "flags", "metadata", "settings"], &mut problems);
    let metadata = metadata(members.get("metadata"), "/metadata")?;
    let settings = settings(members.get("settings"), &mut problems)?;
    let (table, evaluators) = evaluators::compile(members.get("$evaluators"), &mut problems)?;
    let mut flags = BTreeMap::new();
    for (key, path, value) in listed_flags(members.get("flags"))? {
        let flag = check_name(&key, &path).and_then(|()| flag(value, &path, &table, &metadata, &mut problems));
        if let Err(problem) = &flag {
            problems.push(problem.clone());
        }
        if value.get("key").is_some_and(|named| named.as_str() != Some(key.as_str())) {
            problems.push(Problem::new(format!("{path}/key"), "must be the flag's own key"));
        }
        if flags.insert(key, flag).is_some() {
            problems.push(Problem::new(path, "a flag with this key came before"));
        }
    }
    Ok((FlagSet { flags, evaluators, metadata, settings }, problems))
}

/// The flags with their keys and places: members of an object, or elements of an array that carry their `key`.
fn listed_flags(flags: Option<&Value>) -> Result<Vec<(String, String, &Value)>, Problem> {
    let at = |token: &str| format!("/flags/{}", pointer_token(token));
    let listed: Vec<_> = match flags {
        Some(Value::Object(members)) => members.iter().map(|(key, flag)| (key.clone(), at(key), flag)).collect(),
        Some(Value::Array(items)) => {
            let keyed = |(index, flag): (usize, &'_ Value)| match flag.get("key").and_then(Value::as_str) {
                Some(key) => Ok((key.to_owned(), at(&index.to_string()))),
                None => Err(Problem::new(at(&index.to_string()), "a flag in an array needs a \"key\"")),
            };
            let keys = items.iter().enumerate().map(keyed).collect::<Result<Vec<_>, _>>()?;
            keys.into_iter().zip(items).map(|((key, path), flag)| (key, path, flag)).collect()
        }
        _ => return Err(Problem::new("/flags", "a document needs its flags, as an object or an array")),
    };
    at_most(MAX_FLAGS, listed.len(), "/flags")?;
    Ok(listed)
}

fn settings(value: Option<&Value>, problems: &mut Problems) -> Result<Settings, Problem> {
    let Some(value) = value else { return Ok(Settings::default()) };
    let members = object(value, "/settings")?;
    known_members(members, "/settings", &["bucketing", "serveDefaultWhenDisabled"], problems);
    let bucketing = match members.get("bucketing") {
        None => HashGeneration::default(),
        Some(name) => name
            .as_str()
            .and_then(HashGeneration::from_name)
            .ok_or_else(|| Problem::new("/settings/bucketing", "must be one of \"v1\", \"v2\", \"v3\""))?,
    };
    let serve_default_when_disabled = match members.get("serveDefaultWhenDisabled") {
        None => false,
        Some(Value::Bool(serve)) => *serve,
        Some(_) => return Err(Problem::new("/settings/serveDefaultWhenDisabled", "must be true or false")),
    };
    Ok(Settings { bucketing, serve_default_when_disabled })
}

/// One flag. An error breaks it; a problem only keeps it from being stored.
fn flag(
    value: &Value,
    path: &str,
    table: &EvaluatorTable,
    set_metadata: &Map<String, Value>,
    problems: &mut Problems,
) -> Result<Flag, Problem> {
    let members = object(value, path)?;
    let known = ["key", "state", "variants", "defaultVariant", "targeting", "metadata", "overrides"];
    known_members(members, path, &known, problems);
    let enabled = match members.get("state").and_then(Value::as_str) {
        Some("ENABLED") => true,
        Some("DISABLED") => false,
        _ => return Err(Problem::new(format!("{path}/state"), "must be \"ENABLED\" or \"DISABLED\"")),
    };
    let variants = variants(members.get("variants"), path, problems)?;
    let default_variant = match members.get("defaultVariant") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if variants.contains_key(name) => Some(name.clone()),
        Some(_) => {
            return Err(Problem::new(
                format!("{path}/defaultVariant"),
                "must be the name of one of the variants, or null",
            ));
        }
    };
    let overrides = overrides(members.get("overrides"), path, &variants)?;
    let own = metadata(members.get("metadata"), &format!("{path}/metadata"))?;
    let merged = (!own.is_empty()).then(|| json::object(set_metadata.clone().into_iter().chain(own)));
    let targeting = targeting(members.get("targeting"), path, table, &variants, problems);
    Ok(Flag { enabled, variants, default_variant, targeting, overrides, metadata: merged })
}

fn variants(value: Option<&Value>, path: &str, problems: &mut Problems) -> Result<Map<String, Value>, Problem> {
    let path = format!("{path}/variants");
    let variants = value.and_then(Value::as_object).filter(|variants| !variants.is_empty());
    let variants = variants.ok_or_else(|| Problem::new(&path, "must be an object with at least one variant"))?;
    at_most(MAX_VARIANTS, variants.len(), &path)?;
    let mut first = None;
    for (name, value) in variants {
        let place = || format!("{path}/{}", pointer_token(name));
        check_name(name, &place())?;
        let kind = kind(value);
        match kind {
            None => problems.push(Problem::new(place(), "a variant is a boolean, a string, a number or an object")),
            Some(kind) if *first.get_or_insert(kind) != kind => {
                problems.push(Problem::new(place(), "the variants of a flag are all of one type"));
            }
            Some(_) => {}
        }
    }
    Ok(variants.clone())
}

/// The type of a variant, `None` for what cannot be one.
fn kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(_) => Some("boolean"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Object(_) => Some("object"),
        Value::Null | Value::Array(_) => None,
    }
}

fn overrides(
    value: Option<&Value>,
    path: &str,
    variants: &Map<String, Value>,
) -> Result<BTreeMap<String, String>, Problem> {
    let path = format!("{path}/overrides");
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let members = object(value, &path)?;
    at_most(MAX_OVERRIDES, members.len(), &path)?;
    let checked = members.iter().map(|(user, variant)| {
        let place = format!("{path}/{}", pointer_token(user));
        check_name(user, &place)?;
        let variant = variant.as_str().filter(|variant| variants.contains_key(*variant));
        let variant = variant.ok_or_else(|| Problem::new(place, "must be the name of one of the variants"))?;
        Ok((user.clone(), variant.to_owned()))
    });
    checked.collect()
}

fn targeting(
    value: Option<&Value>,
    path: &str,
    table: &EvaluatorTable,
    variants: &Map<String, Value>,
    problems: &mut Problems,
) -> Targeting {
    let path = format!("{path}/targeting");
    let rule = match value {
        None => return Targeting::Absent,
        Some(Value::Object(members)) if members.is_empty() => return Targeting::Absent,
        Some(rule @ Value::Object(_)) => rule,
        Some(_) => {
            let problem = Problem::new(path, "a rule is an object");
            problems.push(problem.clone());
            return Targeting::Broken(problem);
        }
    };
    match Compiler::new(table, path.clone()).compile(rule) {
        Ok(compiled) => {
            problems.extend(compiled.lints);
            results::check_variants(rule, &path, variants, problems);
            Targeting::Rule(compiled.root)
        }
        Err((path, error)) => {
            let problem = Problem::new(path, error);
            problems.push(problem.clone());
            Targeting::Broken(problem)
        }
    }
}

/// Metadata: names to booleans, strings and numbers.
fn metadata(value: Option<&Value>, path: &str) -> Result<Map<String, Value>, Problem> {
    let Some(value) = value else { return Ok(Map::new()) };
    let members = object(value, path)?;
    METADATA.check(value).map_err(|error| Problem::new(path, format_args!("the metadata {error}")))?;
    let nested = members.iter().find(|(_, value)| value.is_null() || value.is_array() || value.is_object());
    match nested {
        Some((name, _)) => {
            Err(Problem::new(format!("{path}/{}", pointer_token(name)), "must be a boolean, a string or a number"))
        }
        None => Ok(members.clone()),
    }
}

pub(super) fn object<'v>(value: &'v Value, path: &str) -> Result<&'v Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| Problem::new(path, "must be an object"))
}

pub(super) fn at_most(limit: usize, count: usize, path: &str) -> Result<(), Problem> {
    if count > limit { Err(Problem::new(path, format_args!("must have at most {limit} entries"))) } else { Ok(()) }
}

/// A name is 1 to 256 bytes without control characters, as ids are everywhere in this API.
pub(super) fn check_name(name: &str, path: &str) -> Result<(), Problem> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Problem::new(path, "a name is 1 to 256 bytes long, without control characters"))
}

/// A member nobody reads is most often a misspelled one.
fn known_members(members: &Map<String, Value>, path: &str, known: &[&str], problems: &mut Problems) {
    for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
        problems.push(Problem::new(format!("{path}/{}", pointer_token(name)), "unknown member"));
    }
}
