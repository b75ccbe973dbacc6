//! What answers a request: the stored response, the origin, or a refusal (RFC 9111 §4).

use std::rc::Rc;

use super::RequestHead;
use super::controls::Scope;
use super::directives::RequestDirectives;
use super::entry::{Entry, Record};
use super::freshness::{self, Freshness};
use super::guard;
use super::invalidation::is_safe;
use super::policy::OriginPolicy;
use super::range::{Cut, cut};
use super::status::Forwarded;
use super::vary::{self, Selected};
use crate::clock::Timestamp;

/// Why the cache takes no part in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The client said `no-store` (RFC 9111 §5.2.1.5).
    RequestNoStore,
    /// Cache and origin may read the path differently.
    SuspiciousPath,
    /// `If-Match` or `If-Unmodified-Since`, which only the origin can evaluate (RFC 9111 §4.3.2).
    OriginsCondition,
}

impl Bypass {
    /// A token for `Cache-Status: detail`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::RequestNoStore => "request-no-store",
            Self::SuspiciousPath => "suspicious-path",
            Self::OriginsCondition => "precondition",
        }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer from the cache: fresh, or as stale as the client says it may be.
    Serve(Rc<Entry>, Freshness),
    /// Answer from the cache and refresh in the background: inside the stale-while-revalidate window, or shortly before the end.
    ServeAndRefresh(Rc<Entry>, Freshness),
    /// Ask the origin whether this is still right, with [`super::forward::Conditions::Validate`].
    Revalidate(Rc<Entry>, Freshness, Forwarded),
    /// Ask the origin. What is stored, if anything, can still replace an error.
    Fetch(Option<(Rc<Entry>, Freshness)>, Forwarded),
    /// The method must reach the origin; nothing but a `POST` with a lifetime may be stored, see [`super::store_rule`].
    Forward {
        /// Whether success makes stored responses wrong, see [`super::invalidation`].
        invalidates: bool,
    },
    /// The client wants only what is cached, and nothing is: 504 (RFC 9111 §5.2.1.7).
    GatewayTimeout,
    /// Ask the origin and store nothing.
    Bypass(Bypass),
}

/// Decides over what is stored for the request's URI. `unit` is random, uniform in \[0, 1).
pub fn decide_request(
    request: &RequestHead,
    record: &Record,
    policy: &OriginPolicy,
    now: Timestamp,
    unit: f64,
) -> Decision {
    if !request.is_get() && !request.is_head() {
        return Decision::Forward { invalidates: !is_safe(&request.method) };
    }
    if policy.guard_paths && guard::suspicious(&request.target) {
        return Decision::Bypass(Bypass::SuspiciousPath);
    }
    if request.headers.contains("if-match") || request.headers.contains("if-unmodified-since") {
        return Decision::Bypass(Bypass::OriginsCondition);
    }
    let asked = if policy.respect_request_directives {
        RequestDirectives::read(&request.headers)
    } else {
        RequestDirectives::default()
    };
    if asked.no_store {
        return Decision::Bypass(Bypass::RequestNoStore);
    }
    let decision = match vary::select(record, &request.headers) {
        Selected::Nothing => Decision::Fetch(None, Forwarded::UriMiss),
        Selected::OtherVariants => Decision::Fetch(None, Forwarded::VaryMiss),
        Selected::Match(entry) => decide_match(request, entry, &asked, policy, now, unit),
    };
    let from_cache = matches!(decision, Decision::Serve(..) | Decision::ServeAndRefresh(..));
    if asked.only_if_cached && !from_cache { Decision::GatewayTimeout } else { decision }
}

fn decide_match(
    request: &RequestHead,
    entry: &Rc<Entry>,
    asked: &RequestDirectives,
    policy: &OriginPolicy,
    now: Timestamp,
    unit: f64,
) -> Decision {
    let life = Freshness::of(entry, policy, now);
    let is_part = entry.stored().part.is_some();
    if is_part && !matches!(cut(request, entry), Cut::Bytes { .. }) {
        return Decision::Fetch(None, Forwarded::Partial);
    }
    match reuse(entry, &life, asked, policy) {
        Reuse::Fresh => {
            let beta = policy.early_refresh_beta;
            // A part is not refreshed early: the next one asked for is as likely another.
            let early = request.is_get()
                && !is_part
                && freshness::refreshes_early(&life, entry.stored().cost_millis, beta, unit);
            if early { Decision::ServeAndRefresh(entry.clone(), life) } else { Decision::Serve(entry.clone(), life) }
        }
        Reuse::AcceptedStale => Decision::Serve(entry.clone(), life),
        Reuse::WhileRevalidating => Decision::ServeAndRefresh(entry.clone(), life),
        // A HEAD passes through as it is: its answer freshens what is stored (§4.3.5).
        Reuse::No(why) if request.is_get() && !is_part && entry.has_validator() => {
            Decision::Revalidate(entry.clone(), life, why)
        }
        Reuse::No(why) => Decision::Fetch(Some((entry.clone(), life)), why),
    }
}

/// Whether a stored response may be used without asking the origin.
enum Reuse {
    Fresh,
    AcceptedStale,
    WhileRevalidating,
    No(Forwarded),
}

fn reuse(entry: &Entry, life: &Freshness, asked: &RequestDirectives, policy: &OriginPolicy) -> Reuse {
    let controls = entry.controls();
    // RFC 9111 §5.2.2.4: unqualified no-cache, however fresh.
    if policy.respect_cache_control && controls.no_cache == Scope::Response {
        return Reuse::No(Forwarded::Stale);
    }
    let fresh = life.is_fresh();
    // RFC 8246 §2: a reload of an immutable response that is fresh needs no-cache to reach the origin.
    let reload_ignored = fresh && controls.immutable;
    // §5.2.1.1: 0 asks for a validated answer, also of what arrived this very second.
    let too_old =
        asked.max_age_seconds.is_some_and(|limit| life.age_seconds() > limit || limit == 0) && !reload_ignored;
    let not_fresh_enough =
        asked.min_fresh_seconds.is_some_and(|wanted| life.remaining_millis() < wanted.saturating_mul(1000));
    if asked.no_cache || too_old || not_fresh_enough {
        return Reuse::No(if fresh { Forwarded::Request } else { Forwarded::Stale });
    }
    if fresh {
        return Reuse::Fresh;
    }
    // Both windows are open only if the origin does not forbid stale answers (§4.2.4).
    if life.stale_within(life.stale_while_revalidate_millis) {
        return Reuse::WhileRevalidating;
    }
    // §5.2.1.2: max-stale=N is inclusive.
    let accepted = asked.max_stale_seconds.map_or(0, |seconds| seconds.saturating_mul(1000).saturating_add(1));
    if life.stale_within(accepted) { Reuse::AcceptedStale } else { Reuse::No(Forwarded::Stale) }
}

/// What went wrong at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginFailure {
    /// No usable answer: no connection, a timeout, a body cut off.
    Unreachable,
    /// An answer with this status.
    Status(u16),
}

/// What answers the client after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The stored response.
    ServeStored,
    /// The failure itself: the status as received, or 502 or 504 if there is none.
    PassOn,
    /// 504: what is stored must be validated first (RFC 9111 §5.2.2.2), and the origin cannot be reached.
    CannotValidate,
}

/// Whether a stored response replaces a failure (RFC 5861 §4; RFC 9111 §4.2.4 for origins that cannot be reached).
pub fn on_origin_error(
    request: &RequestHead,
    entry: &Entry,
    failure: OriginFailure,
    policy: &OriginPolicy,
    now: Timestamp,
) -> OnError {
    let life = Freshness::of(entry, policy, now);
    let asked = if policy.respect_request_directives {
        RequestDirectives::read(&request.headers)
    } else {
        RequestDirectives::default()
    };
    let window = match failure {
        OriginFailure::Unreachable => life.stale_if_unreachable_millis,
        OriginFailure::Status(500 | 502 | 503 | 504) => life.stale_if_error_millis,
        OriginFailure::Status(_) => return OnError::PassOn,
    };
    let window = window.max(asked.stale_if_error_seconds.map_or(0, |seconds| seconds.saturating_mul(1000)));
    let is_fresh = life.is_fresh() && !(policy.respect_cache_control && entry.controls().no_cache == Scope::Response);
    if (is_fresh || life.stale_within(window)) && !asked.no_cache {
        OnError::ServeStored
    } else if !is_fresh && life.forbids_stale && failure == OriginFailure::Unreachable {
        OnError::CannotValidate
    } else {
        OnError::PassOn
    }
}
