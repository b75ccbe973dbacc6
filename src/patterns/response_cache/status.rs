//! How this cache handled a request: `Cache-Status` (RFC 9211) and the older one-word `X-Cache`.

use std::fmt::Write as _;

use super::headers::{Headers, is_token};
use super::structured;

/// This cache's name in `Cache-Status`.
pub const CACHE_NAME: &str = "kv-patterns";

/// Why a request went to the origin (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The cache was told not to handle it.
    Bypass,
    /// The method must go to the origin.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Only other variants are stored.
    VaryMiss,
    /// The client's directives demanded it.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only other bytes of the representation are stored.
    Partial,
    /// Nothing that is stored could answer, for one of these reasons.
    Miss,
}

impl Forwarded {
    /// The token of RFC 9211 §2.2.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Miss => "miss",
        }
    }
}

/// One cache's member of `Cache-Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Why it was forwarded; `None` is a hit (RFC 9211 §2.1: never both).
    pub forwarded: Option<Forwarded>,
    /// The origin's status, if it differs from the one sent (§2.3).
    pub forwarded_status: Option<u16>,
    /// What is left of the freshness in seconds, negative when stale (§2.4).
    pub ttl_seconds: Option<i64>,
    /// Whether the response was stored (§2.5), or will be when its body is there: a head that waited for the end would be no
    /// stream. Of a body that breaks off the client sees that too.
    pub stored: bool,
    /// Whether the request waited for another's (§2.6).
    pub collapsed: bool,
    /// The key, for debugging only (§2.7).
    pub key: Option<String>,
    /// Anything else (§2.8).
    pub detail: Option<String>,
}

impl CacheStatus {
    /// The member as a structured-field item with parameters.
    pub fn render(&self) -> String {
        let mut text = CACHE_NAME.to_owned();
        match self.forwarded {
            None => text.push_str("; hit"),
            Some(reason) => add(&mut text, "fwd", reason.token()),
        }
        if let Some(status) = self.forwarded_status.filter(|_| self.forwarded.is_some()) {
            add(&mut text, "fwd-status", &status.to_string());
        }
        if let Some(ttl) = self.ttl_seconds {
            // A structured integer has at most 15 digits.
            add(&mut text, "ttl", &ttl.clamp(-999_999_999_999_999, 999_999_999_999_999).to_string());
        }
        if self.stored && self.forwarded.is_some() {
            text.push_str("; stored");
        }
        if self.collapsed {
            // Who had to ask all the same was not served by the other's answer (§2.6).
            text.push_str(if self.forwarded.is_some() { "; collapsed=?0" } else { "; collapsed" });
        }
        for (name, value) in [("key", &self.key), ("detail", &self.detail)] {
            if let Some(value) = value.as_deref().and_then(|value| item(value, name == "detail")) {
                add(&mut text, name, &value);
            }
        }
        text
    }

    /// Adds the member behind those of the caches nearer to the origin (§2).
    pub fn append_to(&self, headers: &mut Headers) {
        headers.append("cache-status", self.render());
    }
}

fn add(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, "; {name}={value}");
}

/// `detail` may be a token; everything else is a string. What fits neither is left out.
fn item(value: &str, token_allowed: bool) -> Option<String> {
    let starts_like_a_token = value.starts_with(|first: char| first.is_ascii_alphabetic());
    if token_allowed && starts_like_a_token && is_token(value) {
        Some(value.to_owned())
    } else {
        structured::string(value)
    }
}

/// `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheWord {
    /// From the cache, fresh or just validated.
    Hit,
    /// From the origin.
    Miss,
    /// From the cache, past its freshness.
    Stale,
    /// The cache was not involved.
    Bypass,
}

impl CacheWord {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::Bypass => "BYPASS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9211_2_members_and_their_parameters() {
        let hit = CacheStatus { ttl_seconds: Some(42), stored: true, ..CacheStatus::default() };
        assert_eq!(hit.render(), "kv-patterns; hit; ttl=42");
        let stale = CacheStatus { ttl_seconds: Some(-5), forwarded_status: Some(500), ..CacheStatus::default() };
        assert_eq!(stale.render(), "kv-patterns; hit; ttl=-5");
        let miss = CacheStatus {
            forwarded: Some(Forwarded::Stale),
            forwarded_status: Some(304),
            ttl_seconds: Some(60),
            stored: true,
            collapsed: true,
            key: Some("https://a/\"".into()),
            detail: Some("origin-down".into()),
        };
        assert_eq!(
            miss.render(),
            r#"kv-patterns; fwd=stale; fwd-status=304; ttl=60; stored; collapsed=?0; key="https://a/\""; detail=origin-down"#
        );
        let odd = CacheStatus { detail: Some("1 x".into()), key: Some("\u{e9}".into()), ..CacheStatus::default() };
        assert_eq!(odd.render(), r#"kv-patterns; hit; detail="1 x""#);
    }

    #[test]
    fn rfc_9211_2_the_member_goes_behind_those_nearer_to_the_origin() {
        let mut headers = Headers::from_pairs([("Cache-Status", "Origin; hit")]).unwrap();
        CacheStatus::default().append_to(&mut headers);
        assert_eq!(headers.joined("cache-status").as_deref(), Some("Origin; hit, kv-patterns; hit"));
    }
}
