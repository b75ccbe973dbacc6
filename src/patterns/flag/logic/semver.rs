//! `sem_ver`: Semantic Versioning 2.0.0 precedence with flagd's leniency: a leading `v`, numbers, and `1` or `1.2`.
//!
//! What is no version, or no operator, answers null. `~` means the same major and minor, `^` the same major.
//! Sources: <https://semver.org/>, <https://flagd.dev/reference/custom-operations/semver-operation/>.

use std::cmp::Ordering;

use serde_json::Value;

use super::coerce;

/// Longer texts are no versions.
const MAX_BYTES: usize = 256;

#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    major: u64,
    minor: u64,
    patch: u64,
    pre_release: Option<&'a str>,
}

/// Whether `sign` is one of the eight comparisons.
pub(super) fn is_sign(sign: &Value) -> bool {
    matches!(sign.as_str(), Some("=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "^"))
}

/// The comparison's result; null when an argument is missing or no version, or `sign` no comparison.
pub(super) fn compare(arguments: &[&Value]) -> Value {
    let [a, sign, b] = arguments else { return Value::Null };
    let (Some(a_text), Some(b_text), Some(sign)) = (version_text(a), version_text(b), sign.as_str()) else {
        return Value::Null;
    };
    let (Some(a), Some(b)) = (parse(&a_text), parse(&b_text)) else { return Value::Null };
    let order = precedence(&a, &b);
    Value::Bool(match sign {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "^" => a.major == b.major,
        "~" => a.major == b.major && a.minor == b.minor,
        _ => return Value::Null,
    })
}

fn version_text(value: &Value) -> Option<std::borrow::Cow<'_, str>> {
    let is_version = value.is_number() || value.as_str().is_some_and(|text| text.len() <= MAX_BYTES);
    is_version.then(|| coerce::text(value))
}

fn parse(text: &str) -> Option<Version<'_>> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let (text, build) = split(text, '+');
    let (core, pre_release) = split(text, '-');
    let mut parts = core.split('.').map(number);
    let major = parts.next()??;
    let (minor, patch) = match (parts.next(), parts.next(), parts.next()) {
        // Partial versions carry nothing after the numbers.
        (minor, None, None) if pre_release.is_none() && build.is_none() => (minor.unwrap_or(Some(0))?, 0),
        (Some(minor), Some(patch), None) => (minor?, patch?),
        _ => return None,
    };
    let identifiers_hold = pre_release.is_none_or(|text| text.split('.').all(is_pre_release_identifier))
        && build.is_none_or(|text| text.split('.').all(is_identifier));
    identifiers_hold.then_some(Version { major, minor, patch, pre_release })
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// A number without a leading zero.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (text == "0" || !text.starts_with('0')) { text.parse().ok() } else { None }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_pre_release_identifier(text: &str) -> bool {
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit());
    is_identifier(text) && (!numeric || text == "0" || !text.starts_with('0'))
}

/// §11: numbers first, then a pre-release is less than none; build metadata does not count.
fn precedence(a: &Version<'_>, b: &Version<'_>) -> Ordering {
    let numbers = (a.major, a.minor, a.patch).cmp(&(b.major, b.minor, b.patch));
    numbers.then_with(|| match (a.pre_release, b.pre_release) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.split('.').map(Identifier::from).cmp(b.split('.').map(Identifier::from)),
    })
}

/// §11.4: numeric identifiers are less than others; a number too large for 64 bits compares by length, then digits,
/// which is its value because leading zeros are refused.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Numeric(usize, &'a str),
    Text(&'a str),
}

impl<'a> From<&'a str> for Identifier<'a> {
    fn from(text: &'a str) -> Self {
        if text.bytes().all(|byte| byte.is_ascii_digit()) { Self::Numeric(text.len(), text) } else { Self::Text(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, sign: &str, b: &str, expected: Option<bool>) {
        let result = compare(&[&Value::from(a), &Value::from(sign), &Value::from(b)]);
        assert_eq!(result, expected.map_or(Value::Null, Value::Bool), "{a} {sign} {b}");
    }

    #[test]
    fn precedence_is_the_specifications_example() {
        let rising = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ];
        for (low, high) in rising.iter().zip(rising.iter().skip(1)) {
            check(low, "<", high, Some(true));
            check(high, "<=", low, Some(false));
        }
    }

    #[test]
    fn what_is_no_version_or_no_sign_answers_null() {
        for text in [
            "",
            "v",
            "1.",
            "1..2",
            "01.0.0",
            "1.0.0.0",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0+",
            "1.2-beta",
            "-1",
            "1.0.0 ",
            "latest",
            "99999999999999999999.0.0",
        ] {
            check(text, "=", "1.0.0", None);
        }
        check("1.0.0", "==", "1.0.0", None);
    }

    #[test]
    fn ranges_compare_major_or_minor() {
        check("1.9.0", "^", "1.0.0", Some(true));
        check("2.0.0", "^", "1.0.0", Some(false));
        check("1.0.9", "~", "1.0", Some(true));
        check("1.1.0", "~", "1.0", Some(false));
        check("V1.0.0+linux", "=", "1", Some(true));
    }
}
