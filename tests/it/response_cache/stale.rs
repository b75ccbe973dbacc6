//! Stale responses: while they are refreshed, instead of an error, and never against the origin's word (RFC 5861, RFC 9111 §4.2.4).

use kv_patterns::patterns::response_cache::freshness::Freshness;
use kv_patterns::patterns::response_cache::policy::OriginPolicy;

use super::world::{From, World};

#[derive(Clone, Copy, Debug)]
enum Failure {
    Down,
    Status(u16),
}

/// Stored with `cache_control`; `wait` seconds later the origin fails. Who answers?
#[track_caller]
fn check(policy: OriginPolicy, cache_control: &str, wait: u64, failure: Failure, asked: &str, expected: From) {
    let mut world = World::with_policy(policy);
    world.origin(200, &[("Cache-Control", cache_control), ("ETag", "\"a\"")], "good").get(&[]);
    world.wait(wait);
    match failure {
        Failure::Down => world.origin_down(),
        Failure::Status(status) => world.origin(status, &[], "bad"),
    };
    let got = world.get(&[("Cache-Control", asked)]);
    assert_eq!(got.from, expected, "{cache_control} {wait} {failure:?} {asked}");
}

fn default() -> OriginPolicy {
    OriginPolicy::default()
}

#[test]
fn rfc_5861_3_inside_the_window_the_stale_response_answers_and_is_refreshed() {
    let mut world = World::new();
    let headers = [("Cache-Control", "max-age=1, stale-while-revalidate=4"), ("ETag", "\"a\"")];
    world.origin(200, &headers, "old").get(&[]);
    world.wait(3);
    let got = world.origin(200, &headers, "new").get(&[]);
    assert_eq!((got.from, got.text().as_str()), (From::StaleCache, "old"));
    assert_eq!(world.origin_saw.len(), 2, "refreshed in the background");
    assert_eq!(world.get(&[]).text(), "new");
}

#[test]
fn a_background_refresh_asks_for_the_whole_whatever_the_client_asked_for() {
    let mut world = World::new();
    let headers = [("Cache-Control", "max-age=1, stale-while-revalidate=60")];
    world.origin(200, &headers, "old").get(&[]);
    world.wait(3);
    let asked =
        [("Range", "bytes=0-0"), ("If-None-Match", "\"x\""), ("If-Range", "\"x\""), ("Cache-Control", "max-stale")];
    world.origin(200, &headers, "new").send("HEAD", super::world::PAGE, &asked);
    let sent = &world.origin_saw[1];
    let names: Vec<&str> = sent.headers.iter().map(|(name, _)| name).collect();
    assert_eq!((sent.method.as_str(), names), ("GET", vec!["via"]));
    assert_eq!(world.get(&[]).text(), "new");
}

#[test]
fn rfc_5861_3_after_the_window_the_origin_answers() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=1, stale-while-revalidate=4")], "old").get(&[]);
    world.wait(5);
    assert_eq!(world.origin(200, &[], "new").get(&[]).text(), "new");
}

#[test]
fn rfc_5861_3_the_window_is_shut_where_stale_is_forbidden() {
    for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
        let mut world = World::new();
        let value = format!("max-age=1, stale-while-revalidate=60, {strict}");
        world.origin(200, &[("Cache-Control", &value)], "old").get(&[]);
        world.wait(3);
        assert_eq!(world.origin(200, &[], "new").get(&[]).text(), "new", "{strict}");
    }
}

#[test]
fn an_operator_can_open_a_window_for_responses_that_name_none() {
    let mut world = World::with_policy(OriginPolicy { stale_seconds: 10, ..default() });
    world.origin(200, &[("Cache-Control", "max-age=1")], "old").get(&[]);
    world.wait(3);
    assert_eq!(
        world.origin(200, &[("Cache-Control", "max-age=1, stale-while-revalidate=0")], "new").get(&[]).text(),
        "old"
    );
    world.wait(3);
    assert_eq!(world.origin(200, &[], "newest").get(&[]).text(), "newest", "the response's own window wins");
}

#[test]
fn rfc_5861_4_errors_inside_the_window_are_replaced() {
    let value = "max-age=2, stale-if-error=60";
    for failure in
        [Failure::Down, Failure::Status(500), Failure::Status(502), Failure::Status(503), Failure::Status(504)]
    {
        check(default(), value, 61, failure, "", From::StaleCache);
    }
    for status in [400, 404, 410, 501, 505] {
        check(default(), value, 10, Failure::Status(status), "", From::Origin);
    }
    check(default(), value, 62, Failure::Status(503), "", From::Origin);
    check(default(), value, 62, Failure::Down, "", From::Nowhere);
    check(default(), "max-age=2, stale-if-error=0", 3, Failure::Status(503), "", From::Origin);
}

#[test]
fn rfc_9111_4_2_4_without_a_window_of_its_own_the_operators_counts() {
    check(default(), "max-age=2", 3, Failure::Down, "", From::StaleCache);
    check(default(), "max-age=2", 3, Failure::Status(503), "", From::StaleCache);
    check(default(), "max-age=2", 86_402, Failure::Down, "", From::Nowhere);
    let strict = || OriginPolicy { stale_if_error_seconds: 0, ..default() };
    check(strict(), "max-age=2", 3, Failure::Status(503), "", From::Origin);
    let reachable = || OriginPolicy { stale_on_connection_failure: false, ..default() };
    check(reachable(), "max-age=2", 3, Failure::Down, "", From::Nowhere);
    check(reachable(), "max-age=2", 3, Failure::Status(503), "", From::StaleCache);
    check(reachable(), "max-age=2, stale-if-error=60", 3, Failure::Down, "", From::StaleCache);
}

#[test]
fn rfc_9111_4_2_4_some_directives_forbid_stale_answers_whatever_happens() {
    for strict in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"] {
        let value = format!("max-age=2, stale-if-error=60, {strict}");
        check(default(), &value, 3, Failure::Down, "", From::Nowhere);
        check(default(), &value, 3, Failure::Status(503), "", From::Origin);
    }
    check(default(), "max-age=60, no-cache", 3, Failure::Down, "", From::Nowhere);
}

#[test]
fn how_long_a_response_is_of_use_decides_how_long_it_is_kept() {
    let check = |cache_control: &str, expected_seconds: u64| {
        let mut world = World::new();
        world.origin(200, &[("Cache-Control", cache_control)], "").get(&[]);
        world.wait(5);
        let record = world.record(&super::world::request("GET", super::world::PAGE, &[]).target);
        let life = Freshness::of(&record.entries()[0], &world.policy, world.now);
        assert_eq!(life.useful_millis(), expected_seconds * 1000, "{cache_control}");
    };
    check("max-age=60", 55 + 86_400);
    check("max-age=60, stale-if-error=10, stale-while-revalidate=20", 55 + 20);
    check("max-age=60, stale-if-error=10, must-revalidate", 55);
}

#[test]
fn rfc_5861_4_a_client_may_ask_for_a_window_too() {
    let strict = || OriginPolicy { stale_if_error_seconds: 0, ..default() };
    check(strict(), "max-age=2", 3, Failure::Status(503), "stale-if-error=60", From::StaleCache);
    check(strict(), "max-age=2, must-revalidate", 3, Failure::Status(503), "stale-if-error=60", From::Origin);
    check(strict(), "max-age=60", 3, Failure::Status(503), "no-cache", From::Origin);
    check(strict(), "max-age=60", 3, Failure::Status(503), "max-age=0", From::StaleCache);
}

#[test]
fn an_error_that_was_replaced_does_not_replace_what_is_stored() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=2")], "good").get(&[]);
    world.wait(3);
    world.origin(503, &[("Cache-Control", "max-age=60")], "bad").get(&[]);
    assert_eq!(world.origin_down().get(&[]).text(), "good");
}
