//! Several variants of one URI (RFC 9111 §4.1).

use kv_patterns::patterns::response_cache::entry::MAX_VARIANTS;

use super::world::{From, PAGE, World, request};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// The response to `first` carries `response`; does it answer `second`?
#[track_caller]
fn check(first: Fields<'_>, response: Fields<'_>, second: Fields<'_>, reused: bool) {
    let mut world = World::new();
    let headers: Vec<_> = [("Cache-Control", "max-age=5000")].into_iter().chain(response.iter().copied()).collect();
    world.origin(200, &headers, "").get(first);
    world.origin(200, &headers, "");
    assert_eq!(world.get(second).from == From::Cache, reused, "{first:?} {response:?} {second:?}");
}

#[test]
fn rfc_9111_4_1_every_field_named_by_vary_must_match() {
    let foo = &[("Vary", "Foo")][..];
    check(&[("Foo", "1")], foo, &[("Foo", "1")], true);
    check(&[("Foo", "1")], foo, &[("Foo", "2")], false);
    check(&[("Foo", "1")], foo, &[], false);
    check(&[], foo, &[("Foo", "1")], false);
    check(&[("Foo", "1"), ("Other", "2")], foo, &[("Other", "3"), ("Foo", "1")], true);
    let three = &[("Vary", "Foo, bar"), ("Vary", "BAZ")][..];
    let (a, b) = ([("Foo", "1"), ("Bar", "abc"), ("Baz", "789")], [("Baz", "789"), ("Bar", "abc"), ("Foo", "1")]);
    check(&a, three, &b, true);
    check(&a, three, &[("Foo", "1"), ("Bar", "abcde"), ("Baz", "789")], false);
    check(&a, three, &[("Foo", "1"), ("Baz", "789")], false);
    check(&[("Foo", "1"), ("Baz", "789")], three, &[("Baz", "789"), ("Foo", "1")], true);
}

#[test]
fn rfc_9111_4_1_a_star_never_matches_wherever_it_stands() {
    for lines in [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"]] {
        let vary: Vec<_> = lines.iter().map(|line| ("Vary", *line)).collect();
        check(&[("Foo", "1")], &vary, &[("Foo", "1")], false);
    }
}

#[test]
fn rfc_9111_4_1_values_are_normalised() {
    check(&[("Foo", "1, 2")], &[("Vary", "Foo")], &[("Foo", "1"), ("Foo", "2")], true);
    check(&[("Foo", "1,2")], &[("Vary", "Foo")], &[("Foo", " 1, 2 ")], true);
    let language = &[("Vary", "Accept-Language")][..];
    for other in ["de, en", "eN, De", " en ,   de"] {
        check(&[("Accept-Language", "en, de")], language, &[("Accept-Language", other)], true);
    }
    check(&[("Accept-Language", "en, de")], language, &[("Accept-Language", "en, de;q=0.1")], false);
}

#[test]
fn rfc_9110_12_5_4_the_language_a_client_wants_most_selects_what_is_in_it() {
    let german = &[("Vary", "Accept-Language, Foo"), ("Content-Language", "de")][..];
    let first = &[("Accept-Language", "en, de"), ("Foo", "1")][..];
    check(first, german, &[("Accept-Language", "fr;q=0.5, de;q=1.0"), ("Foo", "1")], true);
    check(first, german, &[("Accept-Language", "fr;q=0.5, de;q=1.0"), ("Foo", "2")], false);
    check(first, german, &[("Accept-Language", "fr, de;q=0.5"), ("Foo", "1")], false);
    check(first, german, &[("Accept-Language", "fr, de"), ("Foo", "1")], false);
    check(first, german, &[("Foo", "1")], false);
}

#[test]
fn rfc_9111_4_1_variants_live_side_by_side() {
    let mut world = World::new();
    let headers = [("Cache-Control", "max-age=5000"), ("Vary", "Foo")];
    for value in ["1", "2"] {
        assert_eq!(world.origin(200, &headers, value).get(&[("Foo", value)]).from, From::Origin);
    }
    for value in ["1", "2"] {
        let got = world.get(&[("Foo", value)]);
        assert_eq!((got.from, got.text().as_str()), (From::Cache, value));
    }
}

#[test]
fn rfc_9111_4_1_of_several_matches_the_newest_is_used() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=5000"), ("Vary", "Foo")], "old").get(&[("Foo", "1")]);
    world.wait(1);
    world.origin(200, &[("Cache-Control", "max-age=5000")], "new").get(&[("Foo", "2")]);
    assert_eq!(world.get(&[("Foo", "1")]).text(), "new");
}

#[test]
fn the_number_of_variants_is_bounded_and_the_oldest_go() {
    let mut world = World::new();
    let headers = [("Cache-Control", "max-age=5000"), ("Vary", "Foo")];
    for value in 0..20 {
        world.origin(200, &headers, "").get(&[("Foo", &value.to_string())]);
        world.wait(1);
    }
    let record = world.record(&request("GET", PAGE, &[]).target);
    assert_eq!(record.entries().len(), MAX_VARIANTS);
    assert_eq!(world.get(&[("Foo", "19")]).from, From::Cache);
    assert_eq!(world.origin(200, &headers, "").get(&[("Foo", "0")]).from, From::Origin);
}

#[test]
fn responses_that_vary_by_client_are_not_stored() {
    for vary in ["Cookie", "User-Agent, Foo", "range", "a,b,c,d,e,f,g,h,i", "foo bar", "foo;q=1", "\"foo\""] {
        check(&[("Foo", "1")], &[("Vary", vary)], &[("Foo", "1")], false);
    }
}

#[test]
fn a_field_that_never_reaches_the_origin_selects_nothing() {
    check(&[("X-Forwarded-Host", "evil")], &[("Vary", "X-Forwarded-Host")], &[], true);
}
