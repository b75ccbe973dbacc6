//! Deterministic CBOR of a JSON value: equal values give equal bytes, however their numbers were spelled.
//!
//! RFC 8949 §4.2.1 (shortest heads, shortest floats, map keys sorted by their encoded bytes), with one rule on top that
//! flagd's third hash generation needs: a float without a fraction that fits 64 bits is encoded as an integer, so
//! `1.0` and `1` are one bucketing value. Decoding is not needed and not offered.

use serde_json::{Number, Value};

use super::logic::EvalError;

/// Deeper values are refused; contexts and rules are bounded lower, so only a library caller can meet it.
const MAX_DEPTH: usize = 128;

/// The encoding of `value`.
///
/// # Errors
/// [`EvalError::TooDeep`] for a value nested deeper than 128 levels.
pub(super) fn encode(value: &Value) -> Result<Vec<u8>, EvalError> {
    let mut out = Vec::with_capacity(64);
    encode_into(value, MAX_DEPTH, &mut out)?;
    Ok(out)
}

fn encode_into(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), EvalError> {
    let depth = depth.checked_sub(1).ok_or(EvalError::TooDeep)?;
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::Number(number) => encode_number(number, out),
        Value::String(text) => encode_text(text, out),
        Value::Array(items) => {
            head(4, items.len() as u64, out);
            for item in items {
                encode_into(item, depth, out)?;
            }
        }
        Value::Object(members) => {
            head(5, members.len() as u64, out);
            let mut encoded = Vec::with_capacity(members.len());
            for (name, member) in members {
                let mut key = Vec::with_capacity(name.len() + 9);
                encode_text(name, &mut key);
                encoded.push((key, member));
            }
            encoded.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, member) in encoded {
                out.extend_from_slice(&key);
                encode_into(member, depth, out)?;
            }
        }
    }
    Ok(())
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    head(3, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The head of an item: three bits of major type and the shortest form of its argument (RFC 8949 §3).
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    let [.., b4, b5, b6, b7] = bytes;
    match argument {
        0..=23 => out.push(major + b7),
        24..=0xff => out.extend_from_slice(&[major + 24, b7]),
        0x100..=0xffff => out.extend_from_slice(&[major + 25, b6, b7]),
        0x1_0000..=0xffff_ffff => out.extend_from_slice(&[major + 26, b4, b5, b6, b7]),
        _ => {
            out.push(major + 27);
            out.extend_from_slice(&bytes);
        }
    }
}

fn encode_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(unsigned) = number.as_u64() {
        head(0, unsigned, out);
    } else if let Some(signed) = number.as_i64() {
        // A negative integer -1 - n is stored as n, which is its bitwise complement.
        head(1, (!signed).cast_unsigned(), out);
    } else if let Some(float) = number.as_f64() {
        encode_float(float, out);
    }
}

/// 2^63 and 2^64, the ends of what a CBOR integer holds here.
const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ranges are checked on the same lines")]
fn encode_float(float: f64, out: &mut Vec<u8>) {
    let integral = float.fract() == 0.0;
    if integral && (0.0..TWO_POW_64).contains(&float) {
        head(0, float as u64, out);
    } else if integral && (-TWO_POW_63..0.0).contains(&float) {
        head(1, (!(float as i64)).cast_unsigned(), out);
    } else if let Some(half) = exact_half(float) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else if f64::from(float as f32).to_bits() == float.to_bits() {
        out.push(0xfa);
        out.extend_from_slice(&(float as f32).to_bits().to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&float.to_bits().to_be_bytes());
    }
}

/// The bits of the IEEE 754 half-precision number equal to `float`, if there is one. JSON has no NaN and no infinity.
#[allow(clippy::cast_possible_truncation, reason = "sign, exponent and mantissa are masked to their widths")]
fn exact_half(float: f64) -> Option<u16> {
    let bits = float.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = bits & ((1 << 52) - 1);
    if (-14..=15).contains(&exponent) {
        let exact = mantissa.trailing_zeros() >= 42;
        return exact.then(|| sign | (((exponent + 15).cast_unsigned() as u16) << 10) | (mantissa >> 42) as u16);
    }
    if (-24..=-15).contains(&exponent) {
        // A subnormal half is a multiple of 2^-24: the implicit bit moves into the mantissa.
        let full = mantissa | (1 << 52);
        let shift = (28 - exponent).cast_unsigned();
        return (full.trailing_zeros() >= shift).then(|| sign | (full >> shift) as u16);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(value: &Value, expected: &str) {
        let bytes = encode(value).unwrap();
        assert_eq!(base16ct::lower::encode_string(&bytes), expected, "{value}");
    }

    #[test]
    fn rfc_8949_appendix_a_examples() {
        check(&json!(0), "00");
        check(&json!(23), "17");
        check(&json!(24), "1818");
        check(&json!(100), "1864");
        check(&json!(1000), "1903e8");
        check(&json!(1_000_000), "1a000f4240");
        check(&json!(1_000_000_000_000_u64), "1b000000e8d4a51000");
        check(&json!(18_446_744_073_709_551_615_u64), "1bffffffffffffffff");
        check(&json!(-1), "20");
        check(&json!(-1000), "3903e7");
        check(&json!(i64::MIN), "3b7fffffffffffffff");
        check(&json!(1.1), "fb3ff199999999999a");
        check(&json!(1.5), "f93e00");
        check(&json!(100_000.5), "fa47c35040");
        check(&json!(3.402_823_466_385_288_6e38), "fa7f7fffff");
        check(&json!(1.0e300), "fb7e37e43c8800759c");
        check(&json!(5.960_464_477_539_063e-8), "f90001");
        check(&json!(0.000_061_035_156_25), "f90400");
        check(&json!(-4.1), "fbc010666666666666");
        check(&json!("ü"), "62c3bc");
        check(&json!([1, [2, 3], [4, 5]]), "8301820203820405");
        check(&json!({"a": 1, "b": [2, 3]}), "a26161016162820203");
        check(&json!([true, false, null]), "83f5f4f6");
    }

    #[test]
    fn a_float_without_a_fraction_is_its_integer() {
        for (float, integer) in [(1.0, 1_i64), (-0.0, 0), (65504.0, 65504), (-4.0, -4)] {
            assert_eq!(encode(&json!(float)), encode(&json!(integer)));
        }
        check(&json!(-9_223_372_036_854_775_808.0), "3b7fffffffffffffff");
        check(&json!(18_446_744_073_709_551_616.0), "fa5f800000");
    }

    #[test]
    fn map_keys_are_sorted_by_their_encoding() {
        check(&json!({"b": 1, "aa": 2, "a": 3}), "a361610361620162616102");
    }

    #[test]
    fn a_value_too_deep_is_refused() {
        let mut value = json!(1);
        for _ in 0..200 {
            value = json!([value]);
        }
        assert_eq!(encode(&value), Err(EvalError::TooDeep));
    }
}
