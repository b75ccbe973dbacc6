//! What the operator of an origin may decide; everything has a default that is safe and follows the RFCs.

use serde::{Deserialize, Serialize};

use super::directives::MAX_DELTA_SECONDS;

/// Freshness given to a response when its own `Cache-Control` does not count and the operator names no other, in seconds.
pub const DEFAULT_FRESH_SECONDS: u64 = 300;
/// The longest time to wait for an origin, in seconds.
pub const MAX_TIMEOUT_SECONDS: u64 = 300;
const MAX_LIST: usize = 64;
const MAX_TEXT_BYTES: usize = 256;

/// What to do with a response that sets a cookie. One user's cookie must not reach the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// Do not store the response.
    #[default]
    Refuse,
    /// Store it without the cookie; only the client that caused the fetch gets it.
    Strip,
    /// Store it with the cookie, as RFC 9111 §7.3 allows and plain HTTP caches do.
    Store,
}

/// The settings of one origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own on the wire")]
pub struct OriginPolicy {
    /// How long an isolate's memory may answer without asking KV again, in seconds.
    pub memory_seconds: u64,
    /// Freshness of a response that says nothing itself, in seconds; absent means the heuristic of RFC 9111 §4.2.2.
    pub fresh_seconds: Option<u64>,
    /// The stale-while-revalidate window of a response that names none, in seconds.
    pub stale_seconds: u64,
    /// The stale-if-error window of a response that names none, in seconds (RFC 9111 §4.2.4 allows it by configuration).
    pub stale_if_error_seconds: u64,
    /// Whether an origin that cannot be reached counts as an error even if the response names no window (RFC 9111 §4.2.4).
    pub stale_on_connection_failure: bool,
    /// XFetch's beta: 0 switches early refresh off, more than 1 refreshes earlier.
    pub early_refresh_beta: f64,
    /// Tags every response of this origin carries, for purging.
    pub tags: Vec<String>,
    /// Whether the origin's lifetimes count. Without them `fresh_seconds` does, but `no-store`, `private` and the rules for
    /// `Authorization` still hold, because they protect users.
    pub respect_cache_control: bool,
    /// Whether clients may ask for validation, freshness and the like; a client that can do so can also wear out an origin.
    pub respect_request_directives: bool,
    /// What to do with responses that set cookies.
    pub set_cookie: SetCookie,
    /// How long to wait for the origin, in seconds.
    pub timeout_seconds: u64,
    /// Whether the order of query parameters is irrelevant to this origin.
    pub sort_query: bool,
    /// Query parameters that never change the answer, such as tracking marks; they are dropped from the key only.
    pub ignored_query_parameters: Vec<String>,
    /// Whether paths that cache and origin may read differently are never cached (web cache deception).
    pub guard_paths: bool,
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self {
            memory_seconds: 30,
            fresh_seconds: None,
            stale_seconds: 0,
            stale_if_error_seconds: 86_400,
            stale_on_connection_failure: true,
            early_refresh_beta: 1.0,
            tags: Vec::new(),
            respect_cache_control: true,
            respect_request_directives: true,
            set_cookie: SetCookie::Refuse,
            timeout_seconds: 30,
            sort_query: false,
            ignored_query_parameters: Vec::new(),
            guard_paths: true,
        }
    }
}

/// A setting out of its range; `field` is its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
pub struct PolicyError {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl OriginPolicy {
    /// Checks every range.
    ///
    /// # Errors
    /// [`PolicyError`] names the first field out of its range.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let durations = [
            ("memorySeconds", self.memory_seconds),
            ("freshSeconds", self.fresh_seconds.unwrap_or(0)),
            ("staleSeconds", self.stale_seconds),
            ("staleIfErrorSeconds", self.stale_if_error_seconds),
        ];
        for (field, seconds) in durations {
            if seconds > MAX_DELTA_SECONDS {
                return Err(PolicyError { field, expected: "at most 2147483648 seconds" });
            }
        }
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&self.timeout_seconds) {
            return Err(PolicyError { field: "timeoutSeconds", expected: "1 to 300 seconds" });
        }
        if !(0.0..=100.0).contains(&self.early_refresh_beta) {
            return Err(PolicyError { field: "earlyRefreshBeta", expected: "0 to 100" });
        }
        for (field, list) in [("tags", &self.tags), ("ignoredQueryParameters", &self.ignored_query_parameters)] {
            if list.len() > MAX_LIST || list.iter().any(|text| text.is_empty() || text.len() > MAX_TEXT_BYTES) {
                return Err(PolicyError { field, expected: "at most 64 entries of 1 to 256 bytes" });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_the_wire_names_are_camel_case() {
        assert_eq!(OriginPolicy::default().validate(), Ok(()));
        let policy: OriginPolicy =
            serde_json::from_slice(br#"{"freshSeconds": 5, "setCookie": "strip", "staleOnConnectionFailure": false}"#)
                .unwrap();
        assert_eq!((policy.fresh_seconds, policy.set_cookie), (Some(5), SetCookie::Strip));
        assert!(!policy.stale_on_connection_failure && policy.respect_cache_control);
        assert!(serde_json::from_slice::<OriginPolicy>(br#"{"fresh": 5}"#).is_err());
    }

    #[test]
    fn every_range_is_checked_and_named() {
        let check = |change: fn(&mut OriginPolicy), field: &str| {
            let mut policy = OriginPolicy::default();
            change(&mut policy);
            assert_eq!(policy.validate().unwrap_err().field, field);
        };
        check(|policy| policy.stale_seconds = u64::MAX, "staleSeconds");
        check(|policy| policy.timeout_seconds = 0, "timeoutSeconds");
        check(|policy| policy.early_refresh_beta = f64::NAN, "earlyRefreshBeta");
        check(|policy| policy.tags = vec![String::new()], "tags");
        check(|policy| policy.ignored_query_parameters = vec!["x".into(); 65], "ignoredQueryParameters");
    }
}
