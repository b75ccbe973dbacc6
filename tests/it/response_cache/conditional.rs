//! Conditional requests of clients, answered from what is stored (RFC 9111 §4.3.2), and the ones this cache sends (§4.3.1).

use super::world::{From, PAGE, World};

/// Stored with `stored` and an hour of freshness; a client asks with `asked`. Is a 304 the answer?
#[track_caller]
fn check(stored: &[(&str, &str)], asked: &[(&str, &str)], not_modified: bool) {
    let mut world = World::new();
    let headers: Vec<_> = [("Cache-Control", "max-age=3600")].into_iter().chain(stored.iter().copied()).collect();
    world.origin(200, &headers, "body").get(&[]);
    let got = world.get(asked);
    let expected = if not_modified { (304, "") } else { (200, "body") };
    assert_eq!(
        (got.status, got.text().as_str(), got.from),
        (expected.0, expected.1, From::Cache),
        "{stored:?} {asked:?}"
    );
}

#[test]
fn rfc_9110_13_1_2_if_none_match_compares_weakly_in_lists() {
    let tag = &[("ETag", "\"abc\"")][..];
    for (asked, not_modified) in [
        ("\"abc\"", true),
        ("W/\"abc\"", true),
        ("\"abc\", \"x\"", true),
        ("\"x\", \"abc\", \"y\"", true),
        ("\"x\" ,\"abc\"", true),
        ("*", true),
        ("\"x\"", false),
        ("abc", false),
        ("w/\"abc\"", false),
        ("", false),
    ] {
        check(tag, &[("If-None-Match", asked)], not_modified);
    }
    check(&[("ETag", "W/\"abc\"")], &[("If-None-Match", "\"abc\"")], true);
    check(&[("ETag", "\"a,b\"")], &[("If-None-Match", "\"x\", \"a,b\"")], true);
    check(&[("ETag", "\"ab\u{fc}\"")], &[("If-None-Match", "\"ab\u{fc}\"")], true);
    check(tag, &[("If-None-Match", "\"x\""), ("If-None-Match", "\"abc\"")], true);
    check(&[], &[("If-None-Match", "\"abc\"")], false);
    check(&[], &[("If-None-Match", "*")], true);
}

#[test]
fn rfc_9110_13_1_3_if_modified_since() {
    let world = World::new();
    let (earlier, modified, later) = (world.date(-4000), world.date(-3000), world.date(-2000));
    let stored = &[("Last-Modified", modified.as_str())][..];
    check(stored, &[("If-Modified-Since", &modified)], true);
    check(stored, &[("If-Modified-Since", &later)], true);
    check(stored, &[("If-Modified-Since", &earlier)], false);
    check(stored, &[("If-Modified-Since", "yesterday")], false);
    check(&[], &[("If-Modified-Since", &later)], false);
    check(&[], &[("If-Modified-Since", &world.date(0))], true);
    check(
        &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT")],
        true,
    );
    check(
        &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("If-Modified-Since", "Sun Nov  6 08:49:37 1994")],
        true,
    );
}

#[test]
fn rfc_9110_13_2_2_if_none_match_goes_before_if_modified_since() {
    let world = World::new();
    let (modified, later) = (world.date(-3000), world.date(-1));
    let stored = &[("ETag", "\"abc\""), ("Last-Modified", modified.as_str())][..];
    check(stored, &[("If-None-Match", "\"x\""), ("If-Modified-Since", &later)], false);
    check(stored, &[("If-None-Match", "\"abc\""), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")], true);
}

#[test]
fn rfc_9110_15_4_5_a_304_has_the_fields_a_client_needs_and_none_of_the_contents() {
    let mut world = World::new();
    let headers = [
        ("Cache-Control", "max-age=3600"),
        ("ETag", "\"abc\""),
        ("Vary", "Foo"),
        ("Content-Location", "/p"),
        ("Content-Type", "text/plain"),
        ("Content-Length", "4"),
        ("Access-Control-Allow-Origin", "*"),
    ];
    world.origin(200, &headers, "body").get(&[]);
    let got = world.get(&[("If-None-Match", "\"abc\"")]);
    for name in ["cache-control", "etag", "vary", "content-location", "access-control-allow-origin", "date", "age"] {
        assert!(got.header(name).is_some(), "{name}");
    }
    assert_eq!((got.header("content-type"), got.header("content-length")), (None, None));
}

#[test]
fn rfc_9111_4_3_2_conditions_apply_to_responses_that_are_200_only() {
    let mut world = World::new();
    world.origin(404, &[("Cache-Control", "max-age=3600"), ("ETag", "\"abc\"")], "gone").get(&[]);
    assert_eq!(world.get(&[("If-None-Match", "\"abc\"")]).status, 404);
}

#[test]
fn rfc_9111_4_3_2_conditions_for_the_origin_are_forwarded() {
    for name in ["If-Match", "If-Unmodified-Since"] {
        let mut world = World::new();
        world.origin(200, &[("Cache-Control", "max-age=3600")], "").get(&[]);
        world.origin(412, &[("Cache-Control", "max-age=3600")], "");
        assert_eq!(world.get(&[(name, "\"x\"")]).status, 412);
        assert!(world.origin_saw[1].headers.contains(&name.to_ascii_lowercase()));
        assert_eq!(world.get(&[]).status, 200, "the 412 was not stored");
    }
}

#[test]
fn rfc_9111_4_3_2_without_a_stored_response_the_clients_conditions_go_to_the_origin() {
    let mut world = World::new();
    let got = world.origin(304, &[("ETag", "\"abc\"")], "").get(&[("If-None-Match", "\"abc\"")]);
    assert_eq!((got.status, got.from), (304, From::Origin));
    assert_eq!(world.origin_saw[0].headers.single("if-none-match"), Some("\"abc\""));
    world.origin(200, &[], "");
    assert_eq!(world.get(&[]).from, From::Origin, "a 304 is not stored");
}

#[test]
fn rfc_9111_4_3_1_both_validators_are_sent_and_the_clients_own_are_not() {
    let mut world = World::new();
    let modified = world.date(-3000);
    let headers =
        [("Cache-Control", "max-age=1"), ("ETag", "W/\"abc\""), ("Last-Modified", modified.as_str()), ("Vary", "Foo")];
    world.origin(200, &headers, "body").get(&[("Foo", "1")]);
    world.wait(3);
    world.origin(304, &[], "");
    let got =
        world.get(&[("Foo", "1"), ("If-None-Match", "\"client\""), ("Range", "bytes=0-1"), ("If-Range", "\"client\"")]);
    assert_eq!((got.from, got.status, got.text().as_str()), (From::Validated, 200, "body"));
    let sent = &world.origin_saw[1].headers;
    assert_eq!(sent.single("if-none-match"), Some("W/\"abc\""));
    assert_eq!(sent.single("if-modified-since"), Some(modified.as_str()));
    assert_eq!(sent.single("foo"), Some("1"));
    assert!(!sent.contains("range") && !sent.contains("if-range"));
}

#[test]
fn rfc_9111_4_1_another_variants_tag_is_not_sent() {
    let mut world = World::new();
    world
        .origin(200, &[("Cache-Control", "max-age=60"), ("ETag", "\"abc\""), ("Vary", "Foo")], "")
        .get(&[("Foo", "1")]);
    world.origin(200, &[], "").get(&[("Foo", "2")]);
    assert!(!world.origin_saw[1].headers.contains("if-none-match"));
}

#[test]
fn a_stale_response_is_validated_and_then_answers_the_clients_condition() {
    let mut world = World::new();
    let modified = world.date(-3000);
    world.origin(200, &[("Cache-Control", "max-age=2"), ("Last-Modified", &modified)], "body").get(&[]);
    world.wait(3);
    world.origin(304, &[("Cache-Control", "max-age=2")], "");
    let got = world.get(&[("If-Modified-Since", &modified)]);
    assert_eq!((got.status, got.from), (304, From::Validated));
}

#[test]
fn a_client_that_has_what_replaces_the_stored_response_gets_a_304() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=2"), ("ETag", "\"a\"")], "old").get(&[]);
    world.wait(3);
    world.origin(200, &[("Cache-Control", "max-age=60"), ("ETag", "\"b\"")], "new");
    let got = world.get(&[("If-None-Match", "\"b\"")]);
    assert_eq!((got.status, got.from), (304, From::Origin));
    assert_eq!(world.get(&[]).text(), "new");
}

#[test]
fn rfc_9111_5_2_1_request_directives() {
    let check = |stored: &[(&str, &str)], wait: u64, asked: &str, expected: From| {
        let mut world = World::new();
        world.origin(200, stored, "").get(&[]);
        world.wait(wait);
        world.origin(200, stored, "");
        assert_eq!(world.send("GET", PAGE, &[("Cache-Control", asked)]).from, expected, "{stored:?} {wait} {asked}");
    };
    let hour = &[("Cache-Control", "max-age=3600")][..];
    let second = &[("Cache-Control", "max-age=1")][..];
    check(hour, 0, "max-age=0", From::Origin);
    check(hour, 3, "max-age=1", From::Origin);
    check(hour, 3, "max-age=3", From::Cache);
    check(&[("Cache-Control", "max-age=3600"), ("Age", "1800")], 0, "max-age=600", From::Origin);
    check(hour, 0, "no-cache", From::Origin);
    check(hour, 0, "min-fresh=4000", From::Origin);
    check(hour, 0, "min-fresh=3600", From::Cache);
    check(&[("Cache-Control", "max-age=1500"), ("Age", "1000")], 0, "min-fresh=1000", From::Origin);
    check(second, 3, "max-stale=1000", From::StaleCache);
    check(second, 3, "max-stale", From::StaleCache);
    check(second, 3, "max-stale=2", From::StaleCache);
    check(second, 3, "max-stale=1", From::Origin);
    check(&[("Cache-Control", "max-age=1500"), ("Age", "2000")], 0, "max-stale=1000", From::StaleCache);
    check(second, 3, "max-stale=1000, max-age=1", From::Origin);
    for strict in ["max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1"] {
        check(&[("Cache-Control", strict)], 3, "max-stale=1000", From::Origin);
    }
    check(hour, 0, "only-if-cached", From::Cache);
    check(second, 3, "only-if-cached", From::Nowhere);
    check(second, 3, "only-if-cached, max-stale", From::StaleCache);
}

#[test]
fn rfc_9111_5_2_1_7_only_if_cached_without_anything_is_504() {
    let mut world = World::new();
    let got = world.get(&[("Cache-Control", "only-if-cached")]);
    assert_eq!((got.status, world.origin_saw.len()), (504, 0));
}

#[test]
fn rfc_9111_5_4_pragma_means_nothing() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=3600")], "").get(&[]);
    assert_eq!(world.get(&[("Pragma", "no-cache")]).from, From::Cache);
}

#[test]
fn rfc_8246_2_a_reload_of_a_fresh_immutable_response_stays_in_the_cache() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=60, immutable"), ("ETag", "\"a\"")], "").get(&[]);
    assert_eq!(world.get(&[("Cache-Control", "max-age=0")]).from, From::Cache);
    assert_eq!(world.origin(304, &[], "").get(&[("Cache-Control", "no-cache")]).from, From::Validated);
    world.wait(60);
    assert_eq!(world.origin(304, &[], "").get(&[]).from, From::Validated);
}

#[test]
fn an_operator_can_take_directives_away_from_clients() {
    let mut world = World::new();
    world.policy.respect_request_directives = false;
    world.origin(200, &[("Cache-Control", "max-age=3600")], "").get(&[]);
    for asked in ["no-cache", "no-store", "max-age=0", "min-fresh=9999"] {
        assert_eq!(world.get(&[("Cache-Control", asked)]).from, From::Cache, "{asked}");
    }
}
