//! What a response says about its own caching: a targeted field (RFC 9213) if there is a valid one, else `Cache-Control`.

use super::directives::{self, Argument, Directive, MAX_DELTA_SECONDS};
use super::headers::{Headers, is_token, list_members};
use super::structured::{self, Value};

/// Targeted fields this cache obeys, the first valid one alone (RFC 9213 §2.2).
pub const TARGET_LIST: [&str; 3] = ["kv-patterns-cache-control", "cloudflare-cdn-cache-control", "cdn-cache-control"];
/// Targeted fields meant for this cache alone; they are not passed on (RFC 9213 §2.2 leaves the choice to the cache).
pub const CONSUMED: [&str; 2] = ["kv-patterns-cache-control", "cloudflare-cdn-cache-control"];
/// Fields without which a stored response could not be understood; a directive that withholds one of them
/// (`private="vary"`) counts as its unqualified form, the stricter reading.
const ESSENTIAL: [&str; 9] = [
    "age",
    "cache-control",
    "cdn-cache-control",
    "cloudflare-cdn-cache-control",
    "date",
    "expires",
    "kv-patterns-cache-control",
    "vary",
    "content-range",
];

/// To what a `private` or `no-cache` applies (RFC 9111 §5.2.2.4 and §5.2.2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is absent.
    #[default]
    Nothing,
    /// The named fields, in lower case.
    Fields(Vec<String>),
    /// The whole response.
    Response,
}

impl Scope {
    fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Response, _) | (_, Self::Nothing) => {}
            (Self::Fields(held), Self::Fields(more)) => held.extend(more),
            (_, wider) => *self = wider,
        }
    }

    /// The fields it withholds, without the whole response.
    pub fn fields(&self) -> &[String] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Response => &[],
        }
    }

    fn of_list(list: &str) -> Self {
        let names: Vec<String> = list_members(list).into_iter().map(str::to_ascii_lowercase).collect();
        let usable = names.iter().all(|name| is_token(name) && !ESSENTIAL.contains(&name.as_str()));
        // An empty or unreadable list withholds everything: the strict reading.
        if names.is_empty() || !usable { Self::Response } else { Self::Fields(names) }
    }
}

/// The directives of one response that matter to a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a directive of its own that is there or not")]
pub struct ResponseControls {
    /// A targeted field was valid, so `Cache-Control` and `Expires` do not count (RFC 9213 §2.2).
    pub targeted: bool,
    /// RFC 9111 §5.2.2.5
    pub no_store: bool,
    /// RFC 9111 §5.2.2.4
    pub no_cache: Scope,
    /// RFC 9111 §5.2.2.7
    pub private: Scope,
    /// RFC 9111 §5.2.2.9
    pub public: bool,
    /// RFC 9111 §5.2.2.2
    pub must_revalidate: bool,
    /// RFC 9111 §5.2.2.8
    pub proxy_revalidate: bool,
    /// RFC 9111 §5.2.2.3
    pub must_understand: bool,
    /// RFC 8246 §2
    pub immutable: bool,
    /// RFC 9111 §5.2.2.1; an invalid value is 0, so that the response is stale (§4.2.1).
    pub max_age_seconds: Option<u64>,
    /// RFC 9111 §5.2.2.10; an invalid value is 0.
    pub s_maxage_seconds: Option<u64>,
    /// RFC 5861 §3; an invalid value is no permission.
    pub stale_while_revalidate_seconds: Option<u64>,
    /// RFC 5861 §4; an invalid value is no permission.
    pub stale_if_error_seconds: Option<u64>,
}

impl ResponseControls {
    /// Reads the first valid field of [`TARGET_LIST`], else `Cache-Control`.
    pub fn read(headers: &Headers) -> Self {
        TARGET_LIST
            .iter()
            .find_map(|name| Self::from_targeted(&headers.joined(name)?))
            .unwrap_or_else(|| Self::from_cache_control(&directives::parse(headers, "cache-control")))
    }

    /// Whether an origin forbids every use of the response once it is stale: RFC 9111 §4.2.4, and §5.2.2.10 for `s-maxage`,
    /// which implies `proxy-revalidate`.
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage_seconds.is_some()
            || self.no_cache == Scope::Response
    }

    /// Duplicates: the first value counts (RFC 9111 §4.2.1); flags add up, so conflicts end in the strictest reading.
    fn from_cache_control(directives: &[Directive]) -> Self {
        let mut controls = Self::default();
        for Directive { name, argument } in directives {
            let delta = argument.delta_seconds();
            match name.as_str() {
                "max-age" => keep_first(&mut controls.max_age_seconds, Some(delta.unwrap_or(0))),
                "s-maxage" => keep_first(&mut controls.s_maxage_seconds, Some(delta.unwrap_or(0))),
                "stale-while-revalidate" => keep_first(&mut controls.stale_while_revalidate_seconds, delta),
                "stale-if-error" => keep_first(&mut controls.stale_if_error_seconds, delta),
                "no-cache" => controls.no_cache.widen(scope_of(argument)),
                "private" => controls.private.widen(scope_of(argument)),
                flag => controls.raise(flag),
            }
        }
        controls
    }

    /// `None` when the field is empty, malformed, or gives a known directive a value of the wrong type (RFC 9213 §2.1).
    fn from_targeted(field: &str) -> Option<Self> {
        let members = structured::parse_dictionary(field).filter(|members| !members.is_empty())?;
        let mut controls = Self { targeted: true, ..Self::default() };
        for (name, value) in members {
            match name.as_str() {
                "max-age" => controls.max_age_seconds = Some(seconds_of(&value)?),
                "s-maxage" => controls.s_maxage_seconds = Some(seconds_of(&value)?),
                "stale-while-revalidate" => controls.stale_while_revalidate_seconds = Some(seconds_of(&value)?),
                "stale-if-error" => controls.stale_if_error_seconds = Some(seconds_of(&value)?),
                "no-cache" => controls.no_cache = scope_of_value(value)?,
                "private" => controls.private = scope_of_value(value)?,
                flag if is_flag(flag) => match value {
                    Value::Boolean(true) => controls.raise(flag),
                    Value::Boolean(false) => {}
                    _ => return None,
                },
                _ => {}
            }
        }
        Some(controls)
    }

    fn raise(&mut self, flag: &str) {
        match flag {
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            _ => {}
        }
    }
}

fn is_flag(name: &str) -> bool {
    ["no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "immutable"].contains(&name)
}

fn keep_first(slot: &mut Option<u64>, value: Option<u64>) {
    *slot = slot.or(value);
}

fn scope_of(argument: &Argument) -> Scope {
    match argument {
        Argument::Text(list) => Scope::of_list(list),
        Argument::Absent | Argument::Malformed => Scope::Response,
    }
}

fn scope_of_value(value: Value) -> Option<Scope> {
    match value {
        Value::Boolean(true) => Some(Scope::Response),
        Value::Boolean(false) => Some(Scope::Nothing),
        Value::String(list) | Value::Token(list) => Some(Scope::of_list(&list)),
        Value::List(items) => {
            let mut names = Vec::with_capacity(items.len());
            for item in items {
                match item {
                    Value::String(name) | Value::Token(name) => names.push(name),
                    _ => return None,
                }
            }
            Some(Scope::of_list(&names.join(",")))
        }
        _ => None,
    }
}

/// A negative number of seconds is of the right type but means nothing; it counts as 0, that is stale.
fn seconds_of(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(seconds) => Some(u64::try_from(*seconds).unwrap_or(0).min(MAX_DELTA_SECONDS)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> ResponseControls {
        ResponseControls::read(&Headers::from_pairs(pairs.iter().copied()).unwrap())
    }

    #[test]
    fn rfc_9111_4_2_1_the_first_of_several_values_counts_and_an_invalid_one_is_stale() {
        for (value, expected) in [
            ("max-age=1800, max-age=1", Some(1800)),
            ("max-age=1, max-age=1800", Some(1)),
            ("max-age=x", Some(0)),
            ("max-age =5", Some(0)),
            ("max-age", Some(0)),
            ("max-age=-5", Some(0)),
            ("max-age=\"5\"", Some(5)),
            ("x", None),
        ] {
            assert_eq!(read(&[("Cache-Control", value)]).max_age_seconds, expected, "{value}");
        }
        assert_eq!(read(&[("Cache-Control", "max-age=7"), ("Cache-Control", "max-age=9")]).max_age_seconds, Some(7));
    }

    #[test]
    fn rfc_9111_5_2_2_4_qualified_and_unqualified_forms() {
        let fields = |names: &[&str]| Scope::Fields(names.iter().map(|name| (*name).to_owned()).collect());
        for (value, expected) in [
            ("no-cache", Scope::Response),
            (r#"no-cache="a, B""#, fields(&["a", "b"])),
            ("no-cache=a", fields(&["a"])),
            (r#"no-cache="""#, Scope::Response),
            (r#"no-cache="a", no-cache"#, Scope::Response),
            (r#"no-cache="a", no-cache="c""#, fields(&["a", "c"])),
            (r#"no-cache="vary""#, Scope::Response),
            (r#"no-cache="a b""#, Scope::Response),
            ("max-age=1", Scope::Nothing),
        ] {
            assert_eq!(read(&[("Cache-Control", value)]).no_cache, expected, "{value}");
        }
    }

    #[test]
    fn rfc_9213_2_2_a_valid_targeted_field_replaces_cache_control() {
        let controls = read(&[("CDN-Cache-Control", "max-age=60, foo"), ("Cache-Control", "no-store, max-age=1")]);
        assert!(controls.targeted && !controls.no_store);
        assert_eq!(controls.max_age_seconds, Some(60));
        let both = read(&[("CDN-Cache-Control", "max-age=60"), ("Cloudflare-CDN-Cache-Control", "max-age=9")]);
        assert_eq!(both.max_age_seconds, Some(9));
        let lines = read(&[("CDN-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "private=\"a\"")]);
        assert_eq!((lines.max_age_seconds, lines.private.fields().len()), (Some(60), 1));
    }

    #[test]
    fn rfc_9213_2_1_an_unusable_targeted_field_is_ignored() {
        for value in [
            "",
            "max-age=10, &&&",
            "max-age=\"10\"",
            "max-age",
            "max-age=1.5",
            "MAX-AGE=10",
            "max-age =10",
            "no-store=1",
            "private=7",
            "max-age=10,",
        ] {
            let controls = read(&[("CDN-Cache-Control", value), ("Cache-Control", "no-store")]);
            assert!(controls.no_store && !controls.targeted, "{value}");
        }
        assert_eq!(read(&[("CDN-Cache-Control", "max-age=-1")]).max_age_seconds, Some(0));
        assert!(!read(&[("CDN-Cache-Control", "no-store=?0, max-age=1")]).no_store);
    }

    #[test]
    fn rfc_9111_4_2_4_what_forbids_stale() {
        for (value, expected) in [
            ("max-age=1, must-revalidate", true),
            ("proxy-revalidate", true),
            ("s-maxage=5", true),
            ("no-cache", true),
            ("max-age=1", false),
            (r#"no-cache="a""#, false),
            ("immutable, public", false),
        ] {
            assert_eq!(read(&[("Cache-Control", value)]).forbids_stale(), expected, "{value}");
        }
    }
}
