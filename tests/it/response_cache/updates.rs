//! What later exchanges do to stored responses: 304, `HEAD`, and unsafe methods (RFC 9111 §3.2, §4.3.4, §4.3.5, §4.4).

use kv_patterns::patterns::response_cache::policy::{OriginPolicy, SetCookie};

use super::world::{From, PAGE, World};

/// Stored with `old`; two seconds of freshness later a 304 brings `new`. The world after that.
fn after_304(old: &[(&str, &str)], new: &[(&str, &str)]) -> (World, super::world::Got) {
    let mut world = World::with_policy(OriginPolicy { set_cookie: SetCookie::Store, ..OriginPolicy::default() });
    let first: Vec<_> = [("ETag", "\"a\"")].into_iter().chain(old.iter().copied()).collect();
    world.origin(200, &first, "body").get(&[]);
    world.wait(3);
    let got = world.origin(304, new, "").get(&[]);
    (world, got)
}

#[test]
fn rfc_9111_3_2_a_304_updates_fields_but_not_those_the_bytes_depend_on() {
    for (name, old, new, updated) in [
        ("Test", "1", "2", true),
        ("X-Content-Foo", "1", "2", true),
        ("Content-Foo", "1", "2", true),
        ("Content-Location", "/a", "/b", true),
        ("Content-Security-Policy", "a", "b", true),
        ("Content-Type", "text/plain", "text/plain;charset=utf-8", true),
        ("Expires", "Fri, 01 Jan 2038 01:01:01 GMT", "Mon, 11 Jan 2038 11:11:11 GMT", true),
        ("Set-Cookie", "a=b", "a=c", true),
        ("X-Frame-Options", "deny", "sameorigin", true),
        ("Content-Length", "4", "10", false),
        ("Content-Encoding", "a", "b", false),
        ("Content-Range", "a", "b", false),
    ] {
        let fresh = ("Cache-Control", "max-age=2");
        let (mut world, got) = after_304(&[fresh, (name, old)], &[fresh, (name, new)]);
        let expected = if updated { new } else { old };
        let lower = name.to_ascii_lowercase();
        assert_eq!((got.from, got.header(&lower).as_deref()), (From::Validated, Some(expected)), "{name}");
        let hit = world.get(&[]);
        assert_eq!(
            (hit.from, hit.header(&lower).as_deref(), hit.text().as_str()),
            (From::Cache, Some(expected), "body"),
            "{name}"
        );
    }
}

#[test]
fn rfc_9111_3_2_a_304_keeps_what_it_does_not_name_and_starts_the_age_anew() {
    let (mut world, got) = after_304(&[("Cache-Control", "max-age=60"), ("Age", "59"), ("Test", "1")], &[]);
    assert_eq!((got.header("test").as_deref(), got.header("age").as_deref()), (Some("1"), Some("0")));
    world.wait(5);
    let hit = world.get(&[]);
    assert_eq!((hit.from, hit.header("age").as_deref()), (From::Cache, Some("5")));
    let (_, got) = after_304(&[("Cache-Control", "max-age=2")], &[("Connection", "x"), ("X", "1"), ("Age", "1")]);
    assert_eq!((got.header("connection"), got.header("x"), got.header("age").as_deref()), (None, None, Some("1")));
}

#[test]
fn rfc_9111_4_3_4_a_304_about_another_representation_updates_nothing() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=2"), ("ETag", "\"a\"")], "old").get(&[]);
    world.wait(3);
    world.origin(304, &[("ETag", "\"b\"")], "").origin(
        200,
        &[("ETag", "\"b\""), ("Cache-Control", "max-age=9")],
        "new",
    );
    let got = world.get(&[]);
    assert_eq!((got.from, got.text().as_str()), (From::Origin, "new"));
    assert!(!world.origin_saw[2].headers.contains("if-none-match"), "asked again without conditions");
}

#[test]
fn rfc_9111_4_3_3_a_full_answer_to_a_validation_replaces_what_is_stored() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=2"), ("ETag", "\"a\"")], "old").get(&[]);
    world.wait(3);
    world.origin(200, &[("Cache-Control", "max-age=60")], "new").get(&[]);
    let hit = world.get(&[]);
    assert_eq!((hit.from, hit.text().as_str()), (From::Cache, "new"));
}

#[test]
fn a_304_that_forbids_storing_takes_the_stored_response_away() {
    for value in ["no-store", "private"] {
        let (mut world, got) = after_304(&[("Cache-Control", "max-age=2")], &[("Cache-Control", value)]);
        assert_eq!((got.from, got.text().as_str()), (From::Validated, "body"));
        world.origin(200, &[], "new");
        assert_eq!(world.get(&[]).text(), "new");
        assert!(!world.origin_saw[2].headers.contains("if-none-match"), "{value}");
    }
}

#[test]
fn a_304_to_an_authorized_request_answers_it_alone() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=2"), ("ETag", "\"a\""), ("User", "nobody")], "body").get(&[]);
    world.wait(3);
    world.origin(304, &[("Cache-Control", "max-age=60"), ("User", "alice")], "");
    assert_eq!(world.get(&[("Authorization", "Bearer x")]).header("user").as_deref(), Some("alice"));
    let next = world.origin(304, &[], "").get(&[]);
    assert_eq!((next.from, next.header("user").as_deref()), (From::Validated, Some("nobody")));
}

#[test]
fn rfc_9110_9_3_2_head_is_answered_from_a_stored_get() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=60"), ("Content-Length", "4"), ("ETag", "\"a\"")], "body").get(&[]);
    let got = world.send("HEAD", PAGE, &[]);
    assert_eq!((got.from, got.status, got.body.len()), (From::Cache, 200, 0));
    assert_eq!(got.header("content-length").as_deref(), Some("4"));
    assert_eq!(world.send("HEAD", PAGE, &[("If-None-Match", "\"a\"")]).status, 304);
}

#[test]
fn rfc_9111_4_3_5_head_freshens_or_outdates_a_stored_get() {
    let check = |stored: &[(&str, &str)], status: u16, head: &[(&str, &str)], expected: From| {
        let mut world = World::new();
        let first: Vec<_> =
            [("Cache-Control", "max-age=2"), ("A", "1")].into_iter().chain(stored.iter().copied()).collect();
        let second: Vec<_> =
            [("Cache-Control", "max-age=1000"), ("A", "2")].into_iter().chain(head.iter().copied()).collect();
        world.origin(200, &first, "body").get(&[]);
        world.wait(3);
        world.origin(status, &second, "");
        assert_eq!(world.send("HEAD", PAGE, &[]).from, From::Origin);
        assert_eq!(world.origin_saw[1].method, "HEAD");
        world.origin(200, &[], "");
        let got = world.get(&[]);
        assert_eq!(got.from, expected, "{stored:?} {status} {head:?}");
        if expected == From::Cache {
            assert_eq!((got.header("a").as_deref(), got.text().as_str()), (Some("2"), "body"));
        }
    };
    check(&[], 200, &[], From::Cache);
    check(&[("ETag", "\"a\"")], 200, &[("ETag", "\"a\""), ("Content-Length", "4")], From::Cache);
    check(&[("ETag", "\"a\"")], 200, &[("ETag", "\"b\"")], From::Origin);
    check(&[], 200, &[("ETag", "\"b\"")], From::Origin);
    check(&[], 200, &[("Content-Length", "5")], From::Origin);
    check(&[], 410, &[], From::Origin);
}

#[test]
fn rfc_9111_4_3_5_a_head_is_never_stored() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=60")], "").send("HEAD", PAGE, &[]);
    assert_eq!(world.origin(200, &[], "body").get(&[]).text(), "body");
}

#[test]
fn rfc_9111_4_4_a_successful_unsafe_request_invalidates_its_uri_and_those_it_names() {
    let fresh = [("Cache-Control", "max-age=3600")];
    let (other, third, foreign) =
        ("https://shop.example/a/b?c", "https://shop.example/x", "https://other.example/page");
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "post"] {
        for (status, gone) in [(200, true), (201, true), (302, true), (404, false), (500, false)] {
            let mut world = World::new();
            for uri in [PAGE, other, third, foreign] {
                world.origin(200, &fresh, "").send("GET", uri, &[]);
            }
            world.origin(status, &[("Location", "/a/b?c"), ("Content-Location", third)], "").send(method, PAGE, &[]);
            for uri in [PAGE, other, third] {
                world.origin(200, &[], "");
                let from = world.send("GET", uri, &[]).from;
                world.answers.clear();
                assert_eq!(from == From::Origin, gone, "{method} {status} {uri}");
            }
            assert_eq!(world.send("GET", foreign, &[]).from, From::Cache);
        }
    }
}

#[test]
fn rfc_9111_4_4_other_hosts_and_safe_methods_invalidate_nothing() {
    let mut world = World::new();
    let foreign = "https://other.example/page";
    world.origin(200, &[("Cache-Control", "max-age=3600")], "").send("GET", foreign, &[]);
    world.origin(200, &[("Cache-Control", "max-age=3600")], "").get(&[]);
    world.origin(200, &[("Location", foreign), ("Content-Location", "//other.example/page")], "");
    world.send("PUT", "https://shop.example/x", &[]);
    assert_eq!(world.send("GET", foreign, &[]).from, From::Cache);
    for method in ["OPTIONS", "TRACE"] {
        world.origin(200, &[], "").send(method, PAGE, &[]);
        assert_eq!(world.get(&[]).from, From::Cache, "{method}");
    }
}
