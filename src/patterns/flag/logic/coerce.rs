//! JavaScript's conversions, as JSONLogic needs them, over JSON values; integers stay exact.
//!
//! Source: <https://tc39.es/ecma262/#sec-type-conversion> (§7.1 and §7.2). Deviations: arrays and objects are no
//! numbers, and text in hexadecimal, octal or binary is none either.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::EvalError;

/// A number on its way through arithmetic. NaN and infinities live here only, never in a [`Value`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    const NAN: Self = Self::Float(f64::NAN);

    #[allow(clippy::cast_precision_loss, reason = "that is what mixing with a float means")]
    pub(super) fn to_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// As JSON: an integer where it fits 64 bits.
    pub(super) fn to_value(self) -> Result<Value, EvalError> {
        if let Self::Int(int) = self {
            if let Ok(int) = i64::try_from(int) {
                return Ok(Value::from(int));
            }
            if let Ok(int) = u64::try_from(int) {
                return Ok(Value::from(int));
            }
        }
        Number::from_f64(self.to_f64()).map(Value::Number).ok_or(EvalError::NotANumber)
    }

    /// Applies `exact` to two integers, or `float` where one is no integer or `exact` does not hold the result.
    pub(super) fn combine(
        self,
        other: Self,
        exact: fn(i128, i128) -> Option<i128>,
        float: fn(f64, f64) -> f64,
    ) -> Self {
        if let (Self::Int(a), Self::Int(b)) = (self, other)
            && let Some(result) = exact(a, b)
        {
            return Self::Int(result);
        }
        Self::Float(float(self.to_f64(), other.to_f64()))
    }

    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            _ => self.to_f64().partial_cmp(&other.to_f64()),
        }
    }
}

/// The number a value stands for; NaN where it stands for none.
pub(super) fn number(value: &Value) -> Num {
    match value {
        Value::Null | Value::Bool(false) => Num::Int(0),
        Value::Bool(true) => Num::Int(1),
        Value::Number(number) => from_json(number),
        Value::String(text) => from_text(text.trim()),
        Value::Array(_) | Value::Object(_) => Num::NAN,
    }
}

fn from_json(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64()) {
        (Some(int), _) => Num::Int(int.into()),
        (None, Some(int)) => Num::Int(int.into()),
        (None, None) => Num::Float(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn from_text(text: &str) -> Num {
    if text.is_empty() {
        return Num::Int(0);
    }
    if let Ok(int) = text.parse::<i64>() {
        return Num::Int(int.into());
    }
    // Rust also reads "inf", "nan" and the like; JavaScript does not.
    let decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if decimal { text.parse().map_or(Num::NAN, Num::Float) } else { Num::NAN }
}

/// Whether JSONLogic takes a value for true: JavaScript's rule, but an empty array is false.
/// Source: <https://jsonlogic.com/truthy.html>.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64().is_none_or(|float| float != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

/// The text a value stands for, as JavaScript's `String(value)`. The caller has bounded the depth.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null => Cow::Borrowed("null"),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Number(number) => Cow::Owned(number_text(number)),
        Value::Object(_) => Cow::Borrowed("[object Object]"),
        Value::Array(items) => {
            let part = |item| if matches!(item, &Value::Null) { Cow::Borrowed("") } else { text(item) };
            Cow::Owned(items.iter().map(part).collect::<Vec<_>>().join(","))
        }
    }
}

/// A number as JavaScript writes it: no fraction for whole floats, an exponent from 1e21 and below 1e-6
/// (ECMA-262 §6.1.6.1.20).
fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let size = float.abs();
    let mut out = String::new();
    let written = if size == 0.0 {
        out.write_char('0')
    } else if (1e-6..1e21).contains(&size) {
        write!(out, "{float}")
    } else {
        let plain = format!("{float:e}");
        let sign = if size >= 1.0 { "e+" } else { "e" };
        out.write_str(&plain.replacen('e', sign, 1))
    };
    // Writing to a String cannot fail.
    debug_assert!(written.is_ok());
    out
}

/// `===`: same type and value. Arrays and objects are never the same, as in JavaScript, where they compare by identity.
pub(super) fn strict_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => from_json(a).compare(from_json(b)) == Some(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a == b,
        _ => false,
    }
}

/// `==`: JavaScript's abstract equality (§7.2.13).
pub(super) fn loose_equal(a: &Value, b: &Value) -> bool {
    let composite = |value: &Value| value.is_array() || value.is_object();
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => a.is_null() && b.is_null(),
        (Value::String(a), Value::String(b)) => a == b,
        (a, b) if composite(a) && composite(b) => false,
        (a, b) if composite(a) => loose_equal(&Value::from(text(a)), b),
        (a, b) if composite(b) => loose_equal(a, &Value::from(text(b))),
        (a, b) => number(a).compare(number(b)) == Some(Ordering::Equal),
    }
}

/// The order of two values for `<` and its kin (§7.2.12): text by code point, everything else as numbers; `None` when
/// one is no number, and then every comparison is false.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Array(_) | Value::Object(_), _) => order(&Value::from(text(a)), b),
        (_, Value::Array(_) | Value::Object(_)) => order(a, &Value::from(text(b))),
        (a, b) => number(a).compare(number(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        let cases = [
            (json!(1.0), "1"),
            (json!(-0.0), "0"),
            (json!(0.1), "0.1"),
            (json!(1e21), "1e+21"),
            (json!(1.5e300), "1.5e+300"),
            (json!(1e-7), "1e-7"),
            (json!(1.25e-9), "1.25e-9"),
            (json!(0.000_001), "0.000001"),
            (json!(1e20), "100000000000000000000"),
            (json!(-2.5), "-2.5"),
            (json!(u64::MAX), "18446744073709551615"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn equality_follows_the_abstract_equality_table() {
        let equal = [
            (json!(1), json!("1")),
            (json!(true), json!("1")),
            (json!(0), json!("")),
            (json!([1]), json!(1)),
            (json!([]), json!("")),
            (json!(1.0), json!(1)),
            (json!(null), json!(null)),
            (json!([1, 2]), json!("1,2")),
        ];
        for (a, b) in equal {
            assert!(loose_equal(&a, &b) && loose_equal(&b, &a), "{a} == {b}");
        }
        let unequal = [
            (json!(null), json!(0)),
            (json!("a"), json!(0)),
            (json!([1]), json!([1])),
            (json!({}), json!({})),
            (json!("inf"), json!(1e308)),
        ];
        for (a, b) in unequal {
            assert!(!loose_equal(&a, &b) && !loose_equal(&b, &a), "{a} != {b}");
        }
    }
}
