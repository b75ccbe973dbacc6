//! Strict JSON for what strangers send: bounded in depth, no key twice, every error with its place.
//!
//! `serde_json` alone keeps the last of two equal keys, so two parsers could read one document differently; here that
//! is an error (RFC 8259 §4 leaves it open, I-JSON, RFC 7493 §2.3, forbids it).

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// Deepest nesting of arrays and objects that is taken when nothing else is said.
pub const DEPTH_MAX: usize = 32;

/// Why a text is not acceptable JSON.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is not JSON; the line and column are those of the first offence.
    #[error("not valid JSON at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An object has the same key twice.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// Arrays and objects are nested too deeply.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
}

/// The value that `text` holds.
///
/// # Errors
///
/// The text is not JSON (UTF-8 included), nests deeper than `depth_max`, or has a key twice in one object.
pub fn parse(text: &[u8], depth_max: usize) -> Result<Value, JsonError> {
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let strict = Strict { depth_left: depth_max, depth_max, fault: &fault };
    let parsed = strict.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| {
        let syntax = JsonError::Syntax { line: error.line(), column: error.column() };
        fault.take().unwrap_or(syntax)
    })
}

/// The integer that `value` is: `60.0` and `6e1` are 60 (JSON Schema 2020-12 core §4.2.3), as far as doubles tell integers apart.
pub fn integer(value: &Value) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "a whole number within 2^53")]
    let of_double = |double: f64| (double.fract() == 0.0 && double.abs() <= EXACT_MAX).then_some(double as i64);
    value.as_i64().or_else(|| of_double(value.as_f64()?))
}

/// An object of `members`, the last of equal names. `collect` would sort first, with a sort of its own in the bundle for
/// every kind of iterator.
pub fn object(members: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, value) in members {
        object.insert(name, value);
    }
    object
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: usize,
    depth_max: usize,
    /// The fault that is ours rather than the parser's: serde's own errors carry only text.
    fault: &'a RefCell<Option<JsonError>>,
}

impl Strict<'_> {
    fn refuse<E: serde::de::Error>(self, fault: JsonError) -> E {
        let error = E::custom(&fault);
        self.fault.replace(Some(fault));
        error
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(self.refuse(JsonError::TooDeep(self.depth_max))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(self.refuse(JsonError::DuplicateKey(key)));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, JsonError>) {
        let parsed = parse(text.as_bytes(), 3).map(|value| value.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn what_is_taken_keeps_its_value() {
        check("{\"b\":[1,2.0,-3,1e-7],\"a\":null}", Ok("{\"a\":null,\"b\":[1,2.0,-3,1e-7]}"));
        check(" \"\\ud83d\\ude00\" ", Ok("\"😀\""));
        check("[[[]]]", Ok("[[[]]]"));
    }

    #[test]
    fn what_is_refused_says_why() {
        check("[[[[]]]]", Err(JsonError::TooDeep(3)));
        check("{\"a\":{\"b\":1,\"b\":2}}", Err(JsonError::DuplicateKey("b".to_owned())));
        check("{\"a\":1}\nx", Err(JsonError::Syntax { line: 2, column: 1 }));
        check("", Err(JsonError::Syntax { line: 1, column: 0 }));
        check("1e999", Err(JsonError::Syntax { line: 1, column: 5 }));
        check("[\"\\ud800\"]", Err(JsonError::Syntax { line: 1, column: 9 }));
    }
}
