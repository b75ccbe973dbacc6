//! `Cache-Control` as it is really sent: quoted strings, white space in the wrong place, duplicates, nonsense (RFC 9111 §5.2).
//!
//! Limits: the first 64 directives of a message count. A delta beyond 2^31 seconds is 2^31 (RFC 9111 §1.2.2).

use super::headers::{Headers, is_token, list_members};

/// The greatest lifetime anything can have: 2^31 seconds (RFC 9111 §1.2.2).
pub const MAX_DELTA_SECONDS: u64 = 1 << 31;
const MAX_DIRECTIVES: usize = 64;

/// What follows a directive's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing: the directive stands alone.
    Absent,
    /// A token or a quoted string, unquoted; both forms mean the same (RFC 9111 §5.2).
    Text(String),
    /// White space around `=`, a quote that does not close, or characters no token has.
    Malformed,
}

/// One directive, its name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Lower case.
    pub name: String,
    /// What follows it.
    pub argument: Argument,
}

impl Argument {
    /// A non-negative number of seconds, or `None` if it is anything else.
    pub fn delta_seconds(&self) -> Option<u64> {
        match self {
            Self::Text(text) => delta_seconds(text),
            Self::Absent | Self::Malformed => None,
        }
    }
}

/// `1*DIGIT`, at most [`MAX_DELTA_SECONDS`] (RFC 9111 §1.2.2).
pub fn delta_seconds(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only digits: it can fail by overflow alone.
    Some(text.parse().unwrap_or(u64::MAX).min(MAX_DELTA_SECONDS))
}

/// The directives of `name`'s lines, in order, duplicates included.
pub fn parse(headers: &Headers, name: &str) -> Vec<Directive> {
    headers.values(name).flat_map(list_members).take(MAX_DIRECTIVES).filter_map(directive).collect()
}

fn directive(member: &str) -> Option<Directive> {
    let (name, argument) = match member.split_once('=') {
        None => (member, Argument::Absent),
        Some((name, value)) if name.ends_with([' ', '\t']) || value.starts_with([' ', '\t']) => {
            (name.trim_end_matches([' ', '\t']), Argument::Malformed)
        }
        Some((name, value)) => (name, argument(value)),
    };
    is_token(name).then(|| Directive { name: name.to_ascii_lowercase(), argument })
}

fn argument(value: &str) -> Argument {
    match value.strip_prefix('"') {
        Some(rest) => unquote(rest).map_or(Argument::Malformed, Argument::Text),
        None if is_token(value) => Argument::Text(value.to_owned()),
        None => Argument::Malformed,
    }
}

/// The text of a quoted string whose opening quote is gone; `None` unless it ends exactly at the closing one.
fn unquote(rest: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '\\' => text.push(characters.next()?),
            '"' => return characters.next().is_none().then_some(text),
            character => text.push(character),
        }
    }
}

/// What a client asks of a cache (RFC 9111 §5.2.1, and RFC 5861 §4 for `stale-if-error`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Neither keep nor look anything up for this request.
    pub no_store: bool,
    /// Validate before reuse.
    pub no_cache: bool,
    /// Answer from the cache or not at all.
    pub only_if_cached: bool,
    /// The greatest acceptable age, in seconds.
    pub max_age_seconds: Option<u64>,
    /// How long the answer must still be fresh, in seconds.
    pub min_fresh_seconds: Option<u64>,
    /// How stale the answer may be, in seconds.
    pub max_stale_seconds: Option<u64>,
    /// How stale an answer may be that replaces an error, in seconds.
    pub stale_if_error_seconds: Option<u64>,
}

impl RequestDirectives {
    /// Reads a request's `Cache-Control`. What is malformed asks for nothing, but a malformed `max-age` asks for a
    /// validated answer, as the most careful reading. `Pragma` is ignored: RFC 9111 §5.4 deprecates it.
    pub fn read(headers: &Headers) -> Self {
        let mut asked = Self::default();
        if added_by_fetch(headers) {
            return asked;
        }
        for Directive { name, argument } in parse(headers, "cache-control") {
            let delta = argument.delta_seconds();
            match name.as_str() {
                "no-store" => asked.no_store = true,
                "no-cache" => asked.no_cache = true,
                "only-if-cached" => asked.only_if_cached = true,
                "max-age" => asked.max_age_seconds = asked.max_age_seconds.or(Some(delta.unwrap_or(0))),
                "min-fresh" => asked.min_fresh_seconds = asked.min_fresh_seconds.or(delta),
                // Without a value any staleness will do (§5.2.1.2).
                "max-stale" if argument == Argument::Absent => asked.max_stale_seconds = Some(MAX_DELTA_SECONDS),
                "max-stale" => asked.max_stale_seconds = asked.max_stale_seconds.or(delta),
                "stale-if-error" => asked.stale_if_error_seconds = asked.stale_if_error_seconds.or(delta),
                _ => {}
            }
        }
        asked
    }
}

/// Whether nobody asked for `no-cache`: a script that sets a condition of its own gets `Pragma` and `Cache-Control` added by every
/// implementation of the Fetch standard (HTTP-network-or-cache fetch, the steps on cache mode `no-store`). Its condition can be
/// answered from what is stored (RFC 9111 §4.3.2), as for any other client; a reload by the user sends no such pair with a condition.
fn added_by_fetch(headers: &Headers) -> bool {
    let conditions = ["if-none-match", "if-modified-since", "if-unmodified-since", "if-match", "if-range"];
    ["pragma", "cache-control"].iter().all(|name| headers.single(name) == Some("no-cache"))
        && conditions.iter().any(|name| headers.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &[(&str, Argument)]) {
        let headers = Headers::from_pairs([("cache-control", value)]).unwrap();
        let found = parse(&headers, "cache-control");
        let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.argument.clone())).collect();
        assert_eq!(found, expected, "{value}");
    }

    fn text(value: &str) -> Argument {
        Argument::Text(value.to_owned())
    }

    #[test]
    fn rfc_9111_5_2_tokens_quoted_strings_and_nonsense() {
        check("Max-Age=5, PUBLIC", &[("max-age", text("5")), ("public", Argument::Absent)]);
        check(r#"max-age="5""#, &[("max-age", text("5"))]);
        check(
            r#"ext="max-age=9, no-store", max-age=1"#,
            &[("ext", text("max-age=9, no-store")), ("max-age", text("1"))],
        );
        check(r#"a="b\"c""#, &[("a", text("b\"c"))]);
        check("max-age =5", &[("max-age", Argument::Malformed)]);
        check("max-age= 5", &[("max-age", Argument::Malformed)]);
        check("max-age=", &[("max-age", Argument::Malformed)]);
        check(r#"a="b"c"#, &[("a", Argument::Malformed)]);
        check(r#"a="b, no-store"#, &[("a", Argument::Malformed), ("no-store", Argument::Absent)]);
        check("two words, =5, ,", &[]);
    }

    #[test]
    fn rfc_9111_1_2_2_delta_seconds_are_digits_and_saturate() {
        for (value, expected) in [
            ("3600", Some(3600)),
            ("003600", Some(3600)),
            ("0", Some(0)),
            ("2147483648", Some(1 << 31)),
            ("99999999999", Some(1 << 31)),
            ("99999999999999999999999", Some(1 << 31)),
            ("-1", None),
            ("3600.0", None),
            ("3600a", None),
            ("a3600", None),
            ("'3600'", None),
            ("", None),
            ("+5", None),
        ] {
            assert_eq!(delta_seconds(value), expected, "{value}");
        }
    }

    #[test]
    fn rfc_9111_5_2_1_request_directives() {
        let headers =
            Headers::from_pairs([("Cache-Control", "no-cache, max-age=5, max-stale, min-fresh=7, x")]).unwrap();
        let asked = RequestDirectives::read(&headers);
        assert!(asked.no_cache && !asked.no_store && !asked.only_if_cached);
        assert_eq!((asked.max_age_seconds, asked.min_fresh_seconds), (Some(5), Some(7)));
        assert_eq!(asked.max_stale_seconds, Some(MAX_DELTA_SECONDS));
        let pair = [("Pragma", "no-cache"), ("Cache-Control", "no-cache")];
        let by_fetch = Headers::from_pairs([pair[0], pair[1], ("If-None-Match", "\"a\"")]).unwrap();
        assert_eq!(RequestDirectives::read(&by_fetch), RequestDirectives::default());
        assert!(RequestDirectives::read(&Headers::from_pairs(pair).unwrap()).no_cache);
        let by_script = Headers::from_pairs([pair[1], ("If-None-Match", "\"a\"")]).unwrap();
        assert!(RequestDirectives::read(&by_script).no_cache);
        let pragma = Headers::from_pairs([("Pragma", "no-cache")]).unwrap();
        assert_eq!(RequestDirectives::read(&pragma), RequestDirectives::default());
    }
}
