//! Nobody gets what is another's: keys, poisoning, deception, and random pairs of users against a model.

use kv_patterns::patterns::response_cache::forward::{Conditions, to_origin};
use kv_patterns::patterns::response_cache::key::material;
use kv_patterns::patterns::response_cache::policy::OriginPolicy;
use kv_patterns::patterns::response_cache::target::Target;
use kv_patterns::random::{Random, SeededRandom};
use proptest::prelude::*;

use super::world::{From, PAGE, World, request};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

fn key(uri: &str, policy: &OriginPolicy) -> Vec<u8> {
    material(&["tenant"], &Target::parse(uri).unwrap(), policy)
}

#[test]
fn rfc_9111_2_the_key_is_the_uri_and_nothing_is_decoded() {
    let policy = OriginPolicy::default();
    let uris = [
        "https://a/x",
        "http://a/x",
        "https://b/x",
        "https://a:8443/x",
        "https://a/X",
        "https://a/x/",
        "https://a/x?",
        "https://a/x?a=1",
        "https://a/x?a=1&b=2",
        "https://a/x?b=2&a=1",
        "https://a/%78",
        "https://a/x%2f",
        "https://a/x?A=1",
        "https://a/x?a=1;b=2",
    ];
    for (at, one) in uris.iter().enumerate() {
        for (other_at, other) in uris.iter().enumerate() {
            assert_eq!(key(one, &policy) == key(other, &policy), at == other_at, "{one} {other}");
        }
    }
    assert_eq!(key("https://A:443/x#y", &policy), key("https://a/x", &policy));
    let target = Target::parse("https://a/x").unwrap();
    assert_ne!(material(&["ab", "c"], &target, &policy), material(&["a", "bc"], &target, &policy));
}

#[test]
fn an_operator_may_call_parameters_irrelevant() {
    let sorted = OriginPolicy { sort_query: true, ..OriginPolicy::default() };
    assert_eq!(key("https://a/?b=2&a=1&a=0", &sorted), key("https://a/?a=1&b=2&a=0", &sorted));
    assert_ne!(key("https://a/?a=0&a=1", &sorted), key("https://a/?a=1&a=0", &sorted));
    let ignoring = OriginPolicy { ignored_query_parameters: vec!["utm".into()], ..OriginPolicy::default() };
    assert_eq!(key("https://a/?utm=1", &ignoring), key("https://a/", &ignoring));
    assert_eq!(key("https://a/?x=1&utm", &ignoring), key("https://a/?x=1", &ignoring));
    assert_ne!(key("https://a/?utm=1;x=2", &ignoring), key("https://a/?x=2", &ignoring), "a semicolon hides nothing");
    assert_ne!(key("https://a/?x=1;utm=2", &ignoring), key("https://a/?x=1", &ignoring));
}

#[test]
fn fields_that_could_poison_never_reach_the_origin() {
    for name in [
        "Forwarded",
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "Host",
        "Connection",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "Proxy-Authorization",
        "Keep-Alive",
        "Content-Length",
        "Proxy",
        "X-Url",
        "Http_Host",
        "X-Real-IP",
        "X-Matched-Path",
        "X-Invoke-Path",
        "X-Middleware-Subrequest",
        "X-Accel-Redirect",
    ] {
        let sent = to_origin(&request("GET", PAGE, &[(name, "x")]), Conditions::Clients);
        assert_eq!(names(&sent), ["via"], "{name}");
    }
    let sent = to_origin(
        &request(
            "GET",
            PAGE,
            &[("Connection", "foo, cookie, authorization"), ("Foo", "1"), ("Cookie", "a"), ("Authorization", "b")],
        ),
        Conditions::Clients,
    );
    assert_eq!(names(&sent), ["cookie", "authorization", "via"]);
    let post = to_origin(
        &request("POST", PAGE, &[("Content-Type", "text/plain"), ("X-HTTP-Method-Override", "DELETE")]),
        Conditions::Clients,
    );
    assert_eq!(names(&post), ["content-type", "via"]);
}

fn names(sent: &kv_patterns::patterns::response_cache::RequestHead) -> Vec<&str> {
    sent.headers.iter().map(|(name, _)| name).collect()
}

#[test]
fn rfc_9110_7_6_3_a_request_says_by_which_way_it_came() {
    for (before, via) in [(vec![], "1.1 kv-patterns"), (vec![("Via", "1.0 fred")], "1.0 fred, 1.1 kv-patterns")] {
        let sent = to_origin(&request("POST", PAGE, &before), Conditions::Clients);
        assert_eq!(sent.headers.joined("via").as_deref(), Some(via));
    }
}

#[test]
fn suspicious_paths_are_never_cached() {
    for path in ["/account%2fx.css", "/account;x.css", "/account%00.css", "//account.css", "/account%3fx.css"] {
        let mut world = World::new();
        let uri = format!("https://shop.example{path}");
        world.origin(200, &[FRESH], "alice's").send("GET", &uri, &[("Cookie", "alice")]);
        assert_eq!(world.origin(200, &[], "bob's").send("GET", &uri, &[("Cookie", "bob")]).text(), "bob's", "{path}");
        world.policy.guard_paths = false;
        world.origin(200, &[FRESH], "").send("GET", &uri, &[]);
        assert_eq!(world.send("GET", &uri, &[]).from, From::Cache, "the operator may allow it: {path}");
    }
}

#[test]
fn an_explicitly_public_response_answers_requests_with_cookies() {
    let mut world = World::new();
    world.origin(200, &[FRESH], "").get(&[]);
    assert_eq!(world.get(&[("Cookie", "a=b")]).from, From::Cache);
}

/// The model: an origin whose every answer names the user, the language and the URI it was made for. A client may get one made for another
/// user only if the origin said that all may have it.
#[test]
fn no_answer_made_for_one_user_reaches_another_unless_the_origin_allows_it() {
    let policies = [
        "",
        "max-age=60",
        "private, max-age=60",
        "no-store",
        "no-cache",
        "public, max-age=60",
        "s-maxage=60",
        "must-revalidate, max-age=60",
        "max-age=0, stale-while-revalidate=60",
    ];
    for seed in 0..40 {
        let random = SeededRandom::new(seed);
        let pick = |count: u64| usize::try_from(random.next_u64() % count).unwrap();
        let mut world = World::new();
        for step in 0..200 {
            let uri = ["https://a.example/p?q=1", "https://a.example/p?q=2", "https://b.example/p?q=1"][pick(3)];
            let user = ["alice", "bob", ""][pick(3)];
            let by_cookie = pick(2) == 0;
            let language = ["en", "de"][pick(2)];
            let cache_control = policies[pick(9)];
            let method = ["GET", "GET", "GET", "HEAD", "POST"][pick(5)];
            let mut asked = vec![("Accept-Language", language)];
            if !user.is_empty() {
                asked.push((if by_cookie { "Cookie" } else { "Authorization" }, user));
            }
            let made_for =
                format!("{uri}|{language}|{}|{by_cookie}|{cache_control}", if user.is_empty() { "-" } else { user });
            let etag = format!("\"{seed}-{step}\"");
            let mut answer = vec![("Vary", "Accept-Language"), ("X-Made-For", &made_for), ("ETag", &etag)];
            if !cache_control.is_empty() {
                answer.push(("Cache-Control", cache_control));
            }
            world.answers.clear();
            world.origin(200, &answer, &made_for);
            let got = world.send(method, uri, &asked);
            let body = got.header("x-made-for").unwrap();
            let parts: Vec<&str> = body.split('|').collect();
            assert_eq!((parts[0], parts[1]), (uri, language), "seed {seed} step {step}");
            if got.from != From::Origin && parts[2] != "-" && parts[2] != user {
                let shared = ["public", "s-maxage", "must-revalidate"].iter().any(|word| parts[4].contains(word));
                let cookie_with_lifetime =
                    parts[3] == "true" && parts[4].contains("max-age=") && !parts[4].contains("private");
                assert!(shared || cookie_with_lifetime, "seed {seed} step {step}: {user} got {body}");
            }
            world.wait(random.next_u64() % 40);
        }
    }
}

proptest! {
    #[test]
    fn different_uris_never_share_a_key(one in "https?://[ab]{1,2}(:[0-9]{4})?/[ab/%?&=;]{0,8}", other in "https?://[ab]{1,2}(:[0-9]{4})?/[ab/%?&=;]{0,8}") {
        let policy = OriginPolicy::default();
        prop_assert_eq!(key(&one, &policy) == key(&other, &policy), one == other);
    }
}
