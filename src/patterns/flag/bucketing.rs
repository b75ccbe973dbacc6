//! Which bucket a unit falls into: flagd's three hash generations, bit for bit, and the native SHA-256 one.
//!
//! flagd changed its hash twice and its engines disagree: JavaScript 4.0 uses v2, Python 2.0 and Rust 0.1 use v3, Go
//! before April 2026 v1. A flag set names its generation, so its users stay where they are whoever evaluates.
//! Experiments use [`sha256_bucket`], which has 2^64 buckets.
//! Source: <https://flagd.dev/reference/custom-operations/fractional-operation/>.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cbor;
use super::logic::EvalError;

/// The largest sum of weights `fractional` accepts, 2^31 - 1 (flagd's `MaxInt32`).
pub const MAX_TOTAL_WEIGHT: u64 = 2_147_483_647;

/// How `fractional` turns a value into a bucket. The default never changes, or users would move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashGeneration {
    /// murmur3 of the text as a signed float percentage (flagd until early 2026).
    V1,
    /// murmur3 of the text, scaled to the sum of weights in integers (flagd in Go and JavaScript, 2026-04).
    V2,
    /// murmur3 of the value's deterministic CBOR, scaled as in v2 (flagd in Python and Rust, 2026-10).
    #[default]
    V3,
}

impl HashGeneration {
    /// The generation called `name` in a document: `v1`, `v2` or `v3`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            "v3" => Some(Self::V3),
            _ => None,
        }
    }

    /// The hash of a bucketing value; `None` when this generation cannot hash it (v1 and v2 take text only, and
    /// nothing hashes null).
    ///
    /// # Errors
    /// [`EvalError::TooDeep`] for a value nested too deep to encode.
    pub fn hash(self, value: &Value) -> Result<Option<u32>, EvalError> {
        match (self, value) {
            (Self::V1 | Self::V2, Value::String(text)) => Ok(Some(murmur3(text.as_bytes()))),
            (Self::V1 | Self::V2, _) | (Self::V3, Value::Null) => Ok(None),
            (Self::V3, value) => Ok(Some(murmur3(&cbor::encode(value)?))),
        }
    }

    /// The bucketing value of the shorthand form, which names none: flag key and targeting key, concatenated in v1 and
    /// v2 (so `a` + `bc` is `ab` + `c`), an array of two in v3.
    pub fn shorthand(self, flag_key: &str, targeting_key: &str) -> Value {
        match self {
            Self::V1 | Self::V2 => Value::String([flag_key, targeting_key].concat()),
            Self::V3 => Value::Array(vec![Value::from(flag_key), Value::from(targeting_key)]),
        }
    }

    /// The index of the weight that `hash` falls into; `None` when all weights are zero.
    /// The caller keeps the sum at or below [`MAX_TOTAL_WEIGHT`].
    pub fn choose(self, hash: u32, weights: &[u64]) -> Option<usize> {
        let total = weights.iter().fold(0_u64, |sum, weight| sum.saturating_add(*weight));
        let chosen = match self {
            Self::V1 => choose_by_percentage(hash, weights, total),
            Self::V2 | Self::V3 => {
                let bucket = scale(u64::from(hash) << 32, total);
                weights
                    .iter()
                    .scan(0_u64, |end, weight| {
                        *end = end.saturating_add(*weight);
                        Some(*end)
                    })
                    .position(|end| bucket < end)
            }
        };
        // In v1 the largest hashes reach 100 % and rounding may leave a gap below it; both belong to the last weight.
        chosen.or_else(|| weights.iter().rposition(|weight| *weight > 0))
    }
}

/// v1: |hash as i32| / (2^31 - 1) as a percentage, against running percentages. Order and rounding are flagd's.
#[allow(clippy::cast_precision_loss, reason = "weights are below 2^31")]
fn choose_by_percentage(hash: u32, weights: &[u64], total: u64) -> Option<usize> {
    if total == 0 {
        return None;
    }
    let bucket = f64::from(hash.cast_signed()).abs() / f64::from(i32::MAX) * 100.0;
    let mut end = 0.0;
    weights.iter().position(|weight| {
        end += 100.0 * *weight as f64 / total as f64;
        bucket < end
    })
}

/// A 64-bit hash scaled to `0..total` by multiplication, which has no modulo bias to speak of.
/// Source: <https://arxiv.org/abs/1805.10941> (Lemire 2018), without the rejection step.
#[allow(clippy::cast_possible_truncation, reason = "the product's upper half is below `total`")]
fn scale(hash: u64, total: u64) -> u64 {
    ((u128::from(hash) * u128::from(total)) >> 64) as u64
}

/// The first eight bytes of SHA-256(salt, 0x1f, unit), big-endian: a unit's place among 2^64, independent per salt.
/// 0x1f is ASCII's unit separator; salts and ids may not hold control characters, so no two pairs collide.
pub fn sha256_hash(salt: &str, unit: &str) -> u64 {
    let digest = Sha256::new().chain_update(salt).chain_update([0x1f]).chain_update(unit).finalize();
    digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

/// The bucket, below `total`, of `unit` under `salt`; zero when `total` is zero.
pub fn sha256_bucket(salt: &str, unit: &str, total: u64) -> u64 {
    scale(sha256_hash(salt, unit), total)
}

/// `MurmurHash3` for 32-bit results with seed zero, by Austin Appleby.
/// Source: <https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>.
pub fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    hash ^= mix(tail.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte)));
    // The reference takes the length as 32 bits too, so longer inputs wrap.
    #[allow(clippy::cast_possible_truncation, reason = "the reference wraps the length")]
    let length = bytes.len() as u32;
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
