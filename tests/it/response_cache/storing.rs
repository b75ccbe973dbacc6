//! What may be stored, by whom it may be read, and which fields stay out (RFC 9111 §3).

use std::rc::Rc;

use kv_patterns::patterns::response_cache::policy::{OriginPolicy, SetCookie};
use kv_patterns::patterns::response_cache::store_rule::{Refusal, decide_store};
use kv_patterns::patterns::response_cache::{Exchange, RequestHead, ResponseHead};

use super::world::{From, PAGE, START, World, check_reuse, check_reuse_of, request, response};

#[track_caller]
fn check(request: &RequestHead, response: &ResponseHead, expected: Option<Refusal>) {
    let exchange = Exchange { request, response, requested_at: START, received_at: START };
    assert_eq!(decide_store(exchange, &OriginPolicy::default()).err(), expected, "{request:?} {response:?}");
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[test]
fn rfc_9111_3_a_lifetime_of_its_own_makes_any_final_status_storable() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599] {
        check_reuse_of(status, &[FRESH], true);
        check_reuse_of(status, &[("Cache-Control", "max-age=2")], false);
    }
}

#[test]
fn rfc_9111_3_statuses_that_answer_one_request_alone_are_never_stored() {
    for status in [206, 304, 412, 416, 428, 429, 431, 511, 100, 101, 103, 600] {
        check(&request("GET", PAGE, &[]), &response(status, &[FRESH]), Some(Refusal::Status));
    }
}

#[test]
fn rfc_9110_9_3_only_get_and_some_posts_are_stored() {
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "M-SEARCH", "get", "POST"] {
        check(&request(method, PAGE, &[]), &response(200, &[FRESH]), Some(Refusal::Method));
    }
    let post = request("POST", PAGE, &[]);
    check(&post, &response(200, &[FRESH, ("Content-Location", "/page")]), None);
    check(&post, &response(200, &[FRESH, ("Content-Location", "/other")]), Some(Refusal::Method));
    check(&post, &response(200, &[("ETag", "\"a\""), ("Content-Location", "/page")]), Some(Refusal::Method));
    check(&post, &response(201, &[FRESH, ("Content-Location", "/page")]), Some(Refusal::Method));
}

#[test]
fn rfc_9110_9_3_3_a_stored_post_answers_a_get() {
    let mut world = World::new();
    world.origin(200, &[FRESH, ("Content-Location", PAGE)], "made by post");
    world.send("POST", PAGE, &[]);
    let got = world.get(&[]);
    assert_eq!((got.from, got.text().as_str()), (From::Cache, "made by post"));
}

#[test]
fn rfc_9111_5_2_2_no_store_private_and_no_cache() {
    for (value, reused) in [
        ("no-store", false),
        ("No-StOrE, max-age=3600", false),
        ("private, max-age=3600", false),
        ("max-age=3600, no-cache", false),
        ("max-age=3600, No-CaChE", false),
        (r#"max-age=3600, private="x""#, true),
        (r#"max-age=3600, no-cache="x""#, true),
        (r#"max-age=3600, private="""#, false),
        ("max-age=3600, must-revalidate", true),
        ("max-age=3600, immutable", true),
        (r#"max-age=3600, x="no-store""#, true),
        (r#"x="y, no-store"#, false),
    ] {
        check_reuse(&[("Cache-Control", value)], reused);
    }
    check_reuse(&[FRESH, ("Pragma", "no-cache")], true);
}

#[test]
fn rfc_9111_5_2_2_3_must_understand_takes_the_place_of_no_store_for_known_statuses() {
    let value = ("Cache-Control", "max-age=3600, no-store, must-understand");
    check_reuse_of(200, &[value], true);
    check_reuse_of(404, &[value], true);
    check_reuse_of(599, &[value], false);
    check_reuse_of(599, &[("Cache-Control", "max-age=3600, must-understand")], false);
}

#[test]
fn rfc_9111_5_2_2_4_fields_named_by_no_cache_or_private_are_not_stored() {
    let mut world = World::new();
    let headers = [
        ("Cache-Control", "max-age=60, no-cache=\"a, B\", private=\"Set-Cookie\""),
        ("A", "1"),
        ("B", "2"),
        ("C", "3"),
        ("Set-Cookie", "u=1"),
    ];
    let first = world.origin(200, &headers, "").get(&[]);
    assert_eq!(first.header("a").as_deref(), Some("1"), "the first client gets everything");
    let hit = world.get(&[]);
    assert_eq!(hit.from, From::Cache);
    assert_eq!((hit.header("a"), hit.header("b"), hit.header("set-cookie")), (None, None, None));
    assert_eq!(hit.header("c").as_deref(), Some("3"));
}

#[test]
fn rfc_9111_3_1_fields_of_one_connection_are_not_stored_and_others_are() {
    let mut world = World::with_policy(OriginPolicy { set_cookie: SetCookie::Store, ..OriginPolicy::default() });
    let dropped = [
        ("Connection", "a, cache-control"),
        ("a", "1"),
        ("Keep-Alive", "x"),
        ("Proxy-Authenticate", "x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Authorization", "x"),
        ("Proxy-Connection", "x"),
        ("TE", "x"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "x"),
        ("Upgrade", "x"),
    ];
    let kept = [
        ("Test", "1"),
        ("Content-Type", "text/plain"),
        ("Content-Encoding", "x"),
        ("Content-Location", "/foo"),
        ("Content-MD5", "x"),
        ("Content-Range", "x"),
        ("Content-Security-Policy", "x"),
        ("Clear-Site-Data", "cookies"),
        ("ETag", "\"a\""),
        ("Set-Cookie", "a=b"),
        ("X-Frame-Options", "deny"),
        ("Strict-Transport-Security", "max-age=1"),
        ("WWW-Authenticate", "Basic"),
    ];
    let all: Vec<_> = [FRESH].into_iter().chain(dropped).chain(kept).collect();
    world.origin(200, &all, "").get(&[]);
    let hit = world.get(&[]);
    assert_eq!(hit.from, From::Cache, "naming cache-control in Connection changes nothing");
    for (name, _) in dropped {
        assert_eq!(hit.header(&name.to_ascii_lowercase()), None, "{name}");
    }
    for (name, value) in kept {
        assert_eq!(hit.header(&name.to_ascii_lowercase()).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn rfc_9111_3_5_authorization_needs_permission_to_share() {
    let authorized = request("GET", PAGE, &[("Authorization", "Bearer x")]);
    for (value, expected) in [
        ("max-age=60", Some(Refusal::Authorization)),
        ("max-age=60, public", None),
        ("max-age=60, must-revalidate", None),
        ("s-maxage=60", None),
        ("max-age=60, proxy-revalidate", Some(Refusal::Authorization)),
        ("max-age=60, private", Some(Refusal::Private)),
    ] {
        check(&authorized, &response(200, &[("Cache-Control", value)]), expected);
    }
    let mut world = World::new();
    world.origin(200, &[FRESH], "mine").send("GET", PAGE, &[("Authorization", "Bearer x")]);
    assert_eq!(world.origin(200, &[], "anybody's").get(&[]).text(), "anybody's");
}

#[test]
fn a_cookie_set_by_the_response_is_refused_stripped_or_stored() {
    for (set_cookie, from, cookie) in [
        (SetCookie::Refuse, From::Origin, Some("u=2")),
        (SetCookie::Strip, From::Cache, None),
        (SetCookie::Store, From::Cache, Some("u=1")),
    ] {
        let mut world = World::with_policy(OriginPolicy { set_cookie, ..OriginPolicy::default() });
        assert_eq!(
            world.origin(200, &[FRESH, ("Set-Cookie", "u=1")], "").get(&[]).header("set-cookie").as_deref(),
            Some("u=1")
        );
        world.origin(200, &[FRESH, ("Set-Cookie", "u=2")], "");
        let got = world.get(&[]);
        assert_eq!((got.from, got.header("set-cookie").as_deref()), (from, cookie), "{set_cookie:?}");
    }
}

#[test]
fn rfc_9111_5_2_1_5_a_request_with_no_store_is_neither_answered_from_the_cache_nor_kept() {
    let mut world = World::new();
    world.origin(200, &[FRESH], "first").get(&[]);
    let no_store = [("Cache-Control", "no-store")];
    assert_eq!(world.origin(200, &[FRESH], "second").send("GET", PAGE, &no_store).text(), "second");
    assert_eq!(world.get(&[]).text(), "first");
    check(&request("GET", PAGE, &no_store), &response(200, &[FRESH]), Some(Refusal::RequestNoStore));
}

#[test]
fn a_newer_response_that_may_not_be_stored_leaves_the_older_one() {
    let mut world = World::new();
    world.origin(200, &[FRESH], "first").get(&[]);
    world.origin(200, &[("Cache-Control", "no-store")], "second").get(&[("Cache-Control", "no-cache")]);
    assert_eq!(world.get(&[]).text(), "first");
}

#[test]
fn rfc_9111_3_what_could_never_be_used_is_not_stored() {
    let get = request("GET", PAGE, &[]);
    check(&get, &response(200, &[]), Some(Refusal::Useless));
    check(&get, &response(200, &[("Cache-Control", "max-age=0")]), Some(Refusal::Useless));
    check(&get, &response(200, &[("Cache-Control", "max-age=60, no-cache")]), Some(Refusal::Useless));
    check(&get, &response(200, &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")]), None);
    check(&get, &response(200, &[("ETag", "\"a\"")]), None);
    check(&get, &response(200, &[("Cache-Control", "max-age=0, stale-while-revalidate=5")]), None);
    check(&get, &response(302, &[("ETag", "\"a\"")]), Some(Refusal::NoPermission));
}

#[test]
fn without_a_lifetime_personal_and_disguised_pages_are_not_stored() {
    let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let with_cookie = request("GET", PAGE, &[("Cookie", "u=1")]);
    check(&with_cookie, &response(200, &[modified]), Some(Refusal::Personal));
    check(&with_cookie, &response(200, &[FRESH]), None);
    check(&with_cookie, &response(200, &[modified, ("Cache-Control", "public")]), None);
    let html = ("Content-Type", "text/html");
    let disguised = request("GET", "https://shop.example/account/x.css", &[]);
    check(&disguised, &response(200, &[modified, html]), Some(Refusal::Disguised));
    check(&disguised, &response(200, &[FRESH, html]), None);
    check(&disguised, &response(200, &[modified, ("Content-Type", "text/css")]), None);
}

#[test]
fn rfc_9111_3_3_a_truncated_body_is_not_stored() {
    let (get, head) = (request("GET", PAGE, &[]), response(200, &[FRESH, ("Content-Length", "5")]));
    let exchange = Exchange { request: &get, response: &head, requested_at: START, received_at: START };
    let draft = decide_store(exchange, &OriginPolicy::default()).unwrap();
    assert_eq!(draft.expected_length(), Some(5));
    assert_eq!(draft.clone().finish(Rc::from(*b"1234")).err(), Some(Refusal::Truncated));
    assert!(draft.finish(Rc::from(*b"12345")).is_ok());
}

#[test]
fn tags_come_from_the_operator_and_the_response() {
    let (get, head) =
        (request("GET", PAGE, &[]), response(200, &[FRESH, ("Cache-Tag", "a, b"), ("Cache-Tag", "shop")]));
    let policy = OriginPolicy { tags: vec!["shop".into()], ..OriginPolicy::default() };
    let exchange = Exchange { request: &get, response: &head, requested_at: START, received_at: START };
    let entry = decide_store(exchange, &policy).unwrap().finish(Rc::from([])).unwrap();
    assert_eq!(entry.stored().tags, ["shop", "a", "b"]);
}
