//! `Vary`: which request fields chose a response, compared on normalised values (RFC 9111 §4.1).
//!
//! Limits: at most 8 names; responses that vary by cookie, user agent or range are not stored, because practically every
//! request would be a variant of its own.

use std::rc::Rc;

use super::entry::{Entry, Record};
use super::forward::reaches_origin;
use super::headers::{Headers, is_token, list_members};

const MAX_NAMES: usize = 8;
/// Fields that give (nearly) every client its own variant, or that this cache rewrites.
const REFUSED: [&str; 6] = ["cookie", "user-agent", "range", "if-range", "if-none-match", "if-modified-since"];
/// Fields whose members have weights and no order (RFC 9110 §12.5).
const WEIGHTED: [&str; 4] = ["accept", "accept-charset", "accept-encoding", "accept-language"];

/// The request fields that selected a response: lower-case names in alphabetical order with their normalised values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Vec<(String, Option<String>)>);

/// Why no selector can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unselectable {
    /// `Vary: *` never matches (RFC 9111 §4.1).
    Star,
    /// Too many names, or one that makes every request a variant.
    TooVarious,
}

impl Selector {
    /// The selector of a response with these fields to a request with those.
    ///
    /// # Errors
    /// [`Unselectable::Star`] or [`Unselectable::TooVarious`].
    pub fn of(request: &Headers, response: &Headers) -> Result<Self, Unselectable> {
        let mut names: Vec<String> =
            response.values("vary").flat_map(list_members).map(str::to_ascii_lowercase).collect();
        names.sort_unstable();
        names.dedup();
        if names.iter().any(|name| name == "*") {
            return Err(Unselectable::Star);
        }
        // What is no name may have been meant to be one or two.
        let is_refused = |name: &String| REFUSED.contains(&name.as_str()) || !is_token(name);
        if names.len() > MAX_NAMES || names.iter().any(is_refused) {
            return Err(Unselectable::TooVarious);
        }
        let values = names.into_iter().map(|name| {
            let value = normalised(request, &name);
            (name, value)
        });
        Ok(Self(values.collect()))
    }

    /// The selector with these fields, as [`Selector::fields`] gave them.
    pub fn from_fields(fields: Vec<(String, Option<String>)>) -> Self {
        Self(fields)
    }

    /// Names and values; `None` for a field the request did not have.
    pub fn fields(&self) -> &[(String, Option<String>)] {
        &self.0
    }

    fn matches(&self, request: &Headers) -> bool {
        self.0.iter().all(|(name, value)| normalised(request, name) == *value)
    }

    /// Whether only the language differs, and the client's one most wanted language is the stored one: then the origin
    /// would choose it again (RFC 9111 §4.1 lets a cache normalise by a field's semantics; RFC 9110 §12.5.4).
    fn matches_by_language(&self, request: &Headers, response: &Headers) -> bool {
        let Some(language) = response.single("content-language") else { return false };
        let wanted = normalised(request, "accept-language");
        self.0.iter().any(|(name, _)| name == "accept-language")
            && self.0.iter().all(|(name, value)| name == "accept-language" || normalised(request, name) == *value)
            && wanted
                .as_deref()
                .and_then(only_favourite)
                .is_some_and(|favourite| favourite.eq_ignore_ascii_case(language))
    }
}

/// What is stored for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected<'a> {
    /// This response.
    Match(&'a Rc<Entry>),
    /// Only responses to other variants.
    OtherVariants,
    /// Nothing.
    Nothing,
}

/// The stored response for a request: the newest whose selecting fields match (RFC 9111 §4.1).
pub fn select<'a>(record: &'a Record, request: &Headers) -> Selected<'a> {
    let entries = record.entries();
    let exact = entries.iter().find(|entry| entry.stored().selector.matches(request));
    let found = exact.or_else(|| {
        let by_language =
            |entry: &&Rc<Entry>| entry.stored().selector.matches_by_language(request, &entry.stored().headers);
        entries.iter().find(by_language)
    });
    match found {
        Some(entry) => Selected::Match(entry),
        None if entries.is_empty() => Selected::Nothing,
        None => Selected::OtherVariants,
    }
}

/// A field's value with everything removed that does not change its meaning: several lines are one list (RFC 9110 §5.3), white
/// space around commas goes, and weighted lists are sorted.
///
/// A field that never reaches the origin selects nothing, whatever the client sent.
fn normalised(headers: &Headers, name: &str) -> Option<String> {
    if !reaches_origin(name) {
        return None;
    }
    let joined = headers.joined(name)?;
    let members = list_members(&joined);
    if WEIGHTED.contains(&name) { Some(weighted(&members)) } else { Some(members.join(",")) }
}

/// `name;q=thousandths`, the heaviest first, equals in alphabetical order, in lower case.
fn weighted(members: &[&str]) -> String {
    let mut weighted: Vec<(u16, String)> = members.iter().map(|member| weigh(member)).collect();
    weighted.sort_by(|(weight, text), (other_weight, other)| other_weight.cmp(weight).then_with(|| text.cmp(other)));
    weighted.dedup();
    let texts: Vec<String> = weighted.into_iter().map(|(weight, text)| format!("{text};q={weight}")).collect();
    texts.join(",")
}

/// The weight in thousandths (RFC 9110 §12.4.2) and the rest, without white space around its semicolons.
fn weigh(member: &str) -> (u16, String) {
    let mut weight = 1000;
    let mut kept = Vec::new();
    for part in member.split(';').map(str::trim) {
        match part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")) {
            Some((_, value)) => weight = thousandths(value.trim()).unwrap_or(weight),
            None => kept.push(part.to_ascii_lowercase()),
        }
    }
    (weight, kept.join(";"))
}

fn thousandths(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !digits(fraction) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    Some(if whole == "1" { 1000 } else { fraction })
}

/// The first member of a normalised list, if it outweighs every other and is not a wildcard.
fn only_favourite(list: &str) -> Option<&str> {
    let mut members = list.split(',');
    let (first, weight) = members.next()?.rsplit_once(";q=")?;
    let rival = members.next().is_some_and(|next| next.rsplit_once(";q=").is_some_and(|(_, other)| other == weight));
    (!rival && first != "*" && weight != "0").then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(name: &str, one: &[&str], other: &[&str], expected: bool) {
        let value =
            |lines: &[&str]| normalised(&Headers::from_pairs(lines.iter().map(|line| (name, *line))).unwrap(), name);
        assert_eq!(value(one) == value(other), expected, "{one:?} {other:?}");
    }

    #[test]
    fn rfc_9111_4_1_values_are_compared_without_what_means_nothing() {
        same("foo", &["1, 2"], &["1", "2"], true);
        same("foo", &["1,2"], &[" 1 ,\t2 "], true);
        same("foo", &["1,2"], &["2,1"], false);
        same("foo", &["A"], &["a"], false);
        same("foo", &["\"a, b\""], &["\"a,b\""], false);
        same("foo", &[], &[""], false);
        same("accept-language", &["en, de"], &["De ,EN"], true);
        same("accept-language", &["en, de;q=0.5"], &["de;q=0.5,en;q=1.0"], true);
        same("accept-language", &["en, de;q=0.5"], &["de, en;q=0.5"], false);
        same("accept-encoding", &["gzip, br"], &["br,gzip;q=1"], true);
        same("accept", &["text/html;level=1"], &["text/html"], false);
        same("accept-encoding", &["gzip;q=0"], &["gzip"], false);
    }

    #[test]
    fn a_favourite_language_must_be_alone() {
        for (list, expected) in [
            ("de;q=1000,fr;q=500", Some("de")),
            ("de;q=1000", Some("de")),
            ("de;q=1000,en;q=1000", None),
            ("*;q=1000", None),
            ("de;q=0", None),
        ] {
            assert_eq!(only_favourite(list), expected, "{list}");
        }
    }
}
