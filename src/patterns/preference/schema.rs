//! Which fields preferences have, what values they take, and their defaults: the built-in ones under the tenant's.
//!
//! A tenant's setting `preference-defaults` is an object. A built-in field in it changes that field's default; any other
//! field is added, and takes values of its default's JSON type, or of any type when the default is `null`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::patch::{Bounds, check};

/// Fields a tenant may add.
pub const EXTRA_FIELDS_MAX: usize = 64;
/// Longest name of a field, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How large one user's preferences, or a tenant's defaults, may be.
pub const BOUNDS: Bounds = Bounds { bytes_max: 32 * 1024, depth_max: 8 };

/// A field is unknown or its value is not one it takes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {expected}")]
pub struct FieldError {
    /// The field to blame; empty when it is the whole.
    pub field: String,
    /// What would be right.
    pub expected: String,
}

fn refuse<T>(field: &str, expected: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError { field: field.to_owned(), expected: expected.into() })
}

/// The fields of one tenant's preferences and their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    defaults: Map<String, Value>,
}

impl Default for Schema {
    fn default() -> Self {
        let built_in = json!({ "theme": "light", "language": "en", "notifications": true, "timezone": "UTC" });
        Self { defaults: if let Value::Object(defaults) = built_in { defaults } else { Map::new() } }
    }
}

impl Schema {
    /// The names of the fields every tenant has.
    pub fn built_in_fields() -> impl Iterator<Item = &'static str> {
        ["theme", "language", "notifications", "timezone"].into_iter()
    }

    /// The schema of a tenant whose defaults are `tenant`. What [`Schema::check_defaults`] would refuse is left out, so
    /// that a bad default spoils one field and not everyone's preferences.
    pub fn with_defaults(tenant: Option<&Value>) -> Self {
        let mut schema = Self::default();
        let given = tenant.and_then(Value::as_object).into_iter().flatten();
        let good = given.filter(|(field, value)| schema.check_default(field, value).is_ok());
        let (built_in, extra): (Vec<_>, Vec<_>) = good.partition(|(field, _)| Self::is_built_in(field));
        for (field, value) in built_in.into_iter().chain(extra.into_iter().take(EXTRA_FIELDS_MAX)) {
            schema.defaults.insert(field.clone(), value.clone());
        }
        schema
    }

    /// Whether `value` can be a tenant's defaults.
    ///
    /// # Errors
    ///
    /// It is not an object, too large, has too many fields, or a field's name or value is not acceptable.
    pub fn check_defaults(value: &Value) -> Result<(), FieldError> {
        let Value::Object(fields) = value else { return refuse("", "must be an object") };
        if let Err(error) = check(value, BOUNDS) {
            return refuse("", error.to_string());
        }
        if fields.keys().filter(|field| !Self::is_built_in(field)).count() > EXTRA_FIELDS_MAX {
            return refuse("", format!("may add at most {EXTRA_FIELDS_MAX} fields"));
        }
        fields.iter().try_for_each(|(field, value)| Self::default().check_default(field, value))
    }

    fn check_default(&self, field: &str, value: &Value) -> Result<(), FieldError> {
        if Self::is_built_in(field) {
            return self.check(field, value);
        }
        let well_formed = field.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if field.is_empty() || field.len() > NAME_BYTES_MAX || !well_formed {
            return refuse(field, format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, '_', '-' and '.'"));
        }
        check(value, BOUNDS).or_else(|error| refuse(field, error.to_string()))
    }

    /// Whether `field` takes `value`.
    ///
    /// # Errors
    ///
    /// The field is unknown, or it takes other values.
    pub fn check(&self, field: &str, value: &Value) -> Result<(), FieldError> {
        let text = value.as_str();
        let (good, expected) = match field {
            "theme" => (matches!(text, Some("light" | "dark" | "system")), "must be light, dark or system"),
            "language" => (text.is_some_and(is_language_tag), "must be a language tag such as en or pt-BR (BCP 47)"),
            "notifications" => (value.is_boolean(), "must be true or false"),
            "timezone" => (text.is_some_and(is_timezone), "must be a timezone name such as UTC or Europe/Paris (IANA)"),
            _ => match self.defaults.get(field) {
                None => (false, "is not a known field"),
                Some(default) => (default.is_null() || same_type(default, value), type_expected(default)),
            },
        };
        if good { Ok(()) } else { refuse(field, expected) }
    }

    /// Every field.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().map(String::as_str)
    }

    /// The fields the tenant added.
    pub fn extra_fields(&self) -> impl Iterator<Item = &str> {
        self.fields().filter(|field| !Self::is_built_in(field))
    }

    /// Whether there is such a field.
    pub fn has(&self, field: &str) -> bool {
        self.defaults.contains_key(field)
    }

    /// The default of `field`; `null` when there is no such field.
    pub fn default_of(&self, field: &str) -> &Value {
        self.defaults.get(field).unwrap_or(&Value::Null)
    }

    fn is_built_in(field: &str) -> bool {
        Self::built_in_fields().any(|known| known == field)
    }
}

fn same_type(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

fn type_expected(default: &Value) -> &'static str {
    match default {
        Value::Null => "may be anything",
        Value::Bool(_) => "must be true or false",
        Value::Number(_) => "must be a number",
        Value::String(_) => "must be a string",
        Value::Array(_) => "must be an array",
        Value::Object(_) => "must be an object",
    }
}

/// The shape of a language tag: a language of 2 to 8 letters, then subtags of 1 to 8 letters or digits, 35 bytes in all.
/// Whether it is registered is not checked. Source: BCP 47 (RFC 5646 §§2.1, 4.4.1).
fn is_language_tag(tag: &str) -> bool {
    let mut subtags = tag.split('-');
    let language = subtags.next().unwrap_or_default();
    tag.len() <= 35
        && (2..=8).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && subtags
            .all(|subtag| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The shape of a timezone name: `UTC`, or parts of at most 14 letters, digits, `_`, `-`, `+` between slashes, each part
/// starting with a letter. Whether the database knows it is not checked. Source: the theory file of the IANA time zone
/// database, "Timezone identifiers".
fn is_timezone(name: &str) -> bool {
    let part = |part: &str| {
        (1..=14).contains(&part.len())
            && part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
    };
    name.split('/').count() <= 3 && name.split('/').all(part)
}
