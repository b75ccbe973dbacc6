//! `fractional`: a pseudorandom, stable choice among weighted variants.
//!
//! Arguments: an optional bucketing value, then buckets `[variant, weight]` (weight 1 when left out, negative counts as
//! 0, integers only, sum at most 2^31 - 1). Anything malformed, a null bucketing value and weights that are all zero
//! answer null, so that the flag's default applies.
//! Source: <https://flagd.dev/reference/custom-operations/fractional-operation/>.

use std::borrow::Cow;

use serde_json::Value;

use super::super::bucketing::MAX_TOTAL_WEIGHT;
use super::EvalError;
use super::coerce::{self, Num};
use super::eval::Machine;

impl Machine<'_> {
    pub(super) fn fractional(&mut self, values: &[Cow<'_, Value>]) -> Result<Value, EvalError> {
        let Some((bucket_by, buckets)) = self.bucketing_value(values) else { return Ok(Value::Null) };
        let Some((variants, weights)) = read_buckets(buckets) else { return Ok(Value::Null) };
        self.charge_value(&bucket_by)?;
        let Some(hash) = self.generation.hash(&bucket_by)? else { return Ok(Value::Null) };
        let chosen = self.generation.choose(hash, &weights).and_then(|index| variants.get(index));
        self.split |= chosen.is_some();
        Ok(chosen.map_or(Value::Null, |variant| Value::clone(variant)))
    }

    /// What is hashed, and the buckets after it; `None` when the shorthand is used without a targeting key.
    fn bucketing_value<'v>(&self, values: &'v [Cow<'_, Value>]) -> Option<(Cow<'v, Value>, &'v [Cow<'v, Value>])> {
        match values {
            [first, buckets @ ..] if !first.is_array() => Some((Cow::Borrowed(first), buckets)),
            _ => {
                let targeting_key = self.context.get("targetingKey")?.as_str().filter(|key| !key.is_empty())?;
                Some((Cow::Owned(self.generation.shorthand(self.flag_key, targeting_key)), values))
            }
        }
    }
}

/// The variants and their weights; `None` when a bucket is malformed or the sum too large.
fn read_buckets<'v>(buckets: &'v [Cow<'_, Value>]) -> Option<(Vec<&'v Value>, Vec<u64>)> {
    let mut variants = Vec::with_capacity(buckets.len());
    let mut weights = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        let (variant, weight) = match bucket.as_array()?.as_slice() {
            [variant] => (variant, 1),
            [variant, weight] => (variant, weight_of(weight)?),
            _ => return None,
        };
        if variant.is_array() || variant.is_object() {
            return None;
        }
        variants.push(variant);
        weights.push(weight);
    }
    let total = weights.iter().try_fold(0_u64, |sum, weight| sum.checked_add(*weight))?;
    (total <= MAX_TOTAL_WEIGHT).then_some((variants, weights))
}

/// An integer, also when spelled `50.0`; below zero is zero.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a huge weight is refused by its sum"
)]
fn weight_of(value: &Value) -> Option<u64> {
    match (value.is_number(), coerce::number(value)) {
        (true, Num::Int(int)) => Some(u64::try_from(int).unwrap_or(0)),
        (true, Num::Float(float)) if float.fract() == 0.0 => Some(float as u64),
        _ => None,
    }
}
