//! The operators that look only at their arguments' values: comparison, arithmetic, text and lists.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::coerce::{self, Num};
use super::eval::{Evaluated, Machine};
use super::{EvalError, Op, semver};

static NULL: Value = Value::Null;

impl<'e> Machine<'e> {
    pub(super) fn operate<'v>(&mut self, op: Op, values: Vec<Cow<'v, Value>>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let at = |index: usize| values.get(index).map_or(&NULL, |value| &**value);
        Ok(Cow::Owned(match op {
            Op::Fractional => self.fractional(&values)?,
            Op::Not => Value::Bool(!coerce::truthy(at(0))),
            Op::Truthy => Value::Bool(coerce::truthy(at(0))),
            Op::LooseEqual | Op::StrictEqual => Value::Bool(self.equal(op, at(0), at(1))?),
            Op::LooseUnequal => Value::Bool(!self.equal(Op::LooseEqual, at(0), at(1))?),
            Op::StrictUnequal => Value::Bool(!self.equal(Op::StrictEqual, at(0), at(1))?),
            Op::Greater => self.ordered(&values, Ordering::is_gt)?,
            Op::GreaterOrEqual => self.ordered(&values, Ordering::is_ge)?,
            Op::Less => self.ordered(&values, Ordering::is_lt)?,
            Op::LessOrEqual => self.ordered(&values, Ordering::is_le)?,
            Op::Cat => self.cat(&values)?,
            Op::Merge => self.merge(values)?,
            Op::In => Value::Bool(self.contains(at(0), at(1))?),
            Op::Substr => self.substr(at(0), at(1), values.get(2).map(|length| &**length))?,
            Op::SemVer | Op::StartsWith | Op::EndsWith => self.text_test(op, &values)?,
            _ => arithmetic(op, &values)?,
        }))
    }

    fn text_test(&mut self, op: Op, values: &[Cow<'_, Value>]) -> Result<Value, EvalError> {
        for value in values {
            self.charge_value(value)?;
        }
        Ok(if op == Op::SemVer {
            semver::compare(&values.iter().map(|value| &**value).collect::<Vec<_>>())
        } else {
            affix(op, values)
        })
    }

    fn equal(&mut self, op: Op, a: &Value, b: &Value) -> Result<bool, EvalError> {
        // Scalars, by far the most frequent, cost the step already paid; text and lists cost their size.
        if a.is_string() || a.is_array() {
            self.charge_value(a)?;
        }
        if b.is_array() {
            self.charge_value(b)?;
        }
        Ok(if op == Op::StrictEqual { coerce::strict_equal(a, b) } else { coerce::loose_equal(a, b) })
    }

    /// Whether each neighbouring pair is in order; `<` with three arguments means "between".
    fn ordered(&mut self, values: &[Cow<'_, Value>], holds: fn(Ordering) -> bool) -> Result<Value, EvalError> {
        if values.len() < 2 {
            return Ok(Value::Bool(false));
        }
        for pair in values.windows(2) {
            if let [a, b] = pair {
                self.charge_value(a)?;
                self.charge_value(b)?;
                if !coerce::order(a, b).is_some_and(holds) {
                    return Ok(Value::Bool(false));
                }
            }
        }
        Ok(Value::Bool(true))
    }

    fn cat(&mut self, values: &[Cow<'_, Value>]) -> Result<Value, EvalError> {
        let mut out = String::new();
        for value in values {
            out.push_str(&self.text(value)?);
        }
        Ok(Value::String(out))
    }

    fn merge(&mut self, values: Vec<Cow<'_, Value>>) -> Result<Value, EvalError> {
        let mut out = Vec::new();
        for value in values {
            match self.own(value)? {
                Value::Array(items) => {
                    self.charge(items.len())?;
                    out.extend(items);
                }
                single => out.push(single),
            }
        }
        Ok(Value::Array(out))
    }

    /// `in`: an element of a list, or a part of a text.
    fn contains(&mut self, needle: &Value, haystack: &Value) -> Result<bool, EvalError> {
        self.charge_value(haystack)?;
        Ok(match haystack {
            Value::Array(items) => items.iter().any(|item| coerce::strict_equal(item, needle)),
            Value::String(text) => text.contains(&*self.text(needle)?),
            _ => false,
        })
    }

    /// `substr`, counted in characters: a negative start counts from the end, a negative length leaves that many off.
    fn substr(&mut self, text: &Value, start: &Value, length: Option<&Value>) -> Result<Value, EvalError> {
        let text = self.text(text)?;
        let count = text.chars().count();
        let start = match whole(start) {
            from_end if from_end < 0 => count.saturating_sub(magnitude(from_end)),
            start => magnitude(start).min(count),
        };
        let rest = count - start;
        let length = match length {
            None | Some(Value::Null) => rest,
            Some(length) => match whole(length) {
                off_end if off_end < 0 => rest.saturating_sub(magnitude(off_end)),
                length => magnitude(length).min(rest),
            },
        };
        Ok(Value::String(text.chars().skip(start).take(length).collect()))
    }
}

/// A number cut to an integer; zero for what is none. Saturates, as positions beyond the text do no harm.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates and takes NaN for zero, both as wanted")]
fn whole(value: &Value) -> i64 {
    coerce::number(value).to_f64() as i64
}

fn magnitude(number: i64) -> usize {
    usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX)
}

/// `starts_with` and `ends_with`: null unless there are exactly two texts.
fn affix(op: Op, values: &[Cow<'_, Value>]) -> Value {
    match values {
        [text, affix] => match (text.as_str(), affix.as_str()) {
            (Some(text), Some(affix)) if op == Op::StartsWith => Value::Bool(text.starts_with(affix)),
            (Some(text), Some(affix)) => Value::Bool(text.ends_with(affix)),
            _ => Value::Null,
        },
        _ => Value::Null,
    }
}

/// The operators whose arguments are numbers.
fn arithmetic(op: Op, values: &[Cow<'_, Value>]) -> Result<Value, EvalError> {
    let mut numbers = values.iter().map(|value| coerce::number(value));
    let first = numbers.next();
    let result = match (op, first) {
        (Op::Add, _) => first.into_iter().chain(numbers).fold(Num::Int(0), add),
        (Op::Multiply, _) => first.into_iter().chain(numbers).fold(Num::Int(1), multiply),
        (Op::Subtract, Some(first)) if values.len() == 1 => subtract(Num::Int(0), first),
        (Op::Subtract, Some(first)) => numbers.fold(first, subtract),
        (Op::Divide, Some(first)) if values.len() > 1 => numbers.fold(first, divide),
        (Op::Remainder, Some(first)) if values.len() > 1 => numbers.fold(first, remainder),
        (Op::Max, Some(first)) => numbers.fold(first, |a, b| pick(a, b, Ordering::is_lt)),
        (Op::Min, Some(first)) => numbers.fold(first, |a, b| pick(a, b, Ordering::is_gt)),
        _ => return Err(EvalError::NotANumber),
    };
    result.to_value()
}

fn add(a: Num, b: Num) -> Num {
    a.combine(b, i128::checked_add, |a, b| a + b)
}

fn subtract(a: Num, b: Num) -> Num {
    a.combine(b, i128::checked_sub, |a, b| a - b)
}

fn multiply(a: Num, b: Num) -> Num {
    a.combine(b, i128::checked_mul, |a, b| a * b)
}

/// An integer where the division leaves no remainder.
fn divide(a: Num, b: Num) -> Num {
    let exact = |a: i128, b: i128| (a.checked_rem(b)? == 0).then(|| a.checked_div(b)).flatten();
    a.combine(b, exact, |a, b| a / b)
}

/// With the dividend's sign, as in JavaScript.
fn remainder(a: Num, b: Num) -> Num {
    a.combine(b, i128::checked_rem, |a, b| a % b)
}

/// `b` instead of `a` where `replaces` says so of their order, or where there is none, so that NaN is not lost.
fn pick(a: Num, b: Num, replaces: fn(Ordering) -> bool) -> Num {
    match a.compare(b) {
        Some(order) if !replaces(order) => a,
        Some(_) => b,
        None => Num::Float(f64::NAN),
    }
}
