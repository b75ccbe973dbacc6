//! Goal: keys cannot be confused or forged, whatever the ids. Method: properties over generated segments.

use kv_patterns::kv::{Key, KeyTooLong, Tenant, escape, limits, unescape};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::tenant;

/// Segments made of what separates, escapes and nests, so that confusion would show.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab/%:~=.\\-\u{7f}\u{0}é]{0,6}",
        "[a-c]{0,3}",
        ".{0,300}",
        Just("%2F".to_owned()),
        Just("%~".to_owned()),
        Just("%=".to_owned()),
        Just("..".to_owned()),
        Just("123".to_owned()),
    ]
}

fn key(tenant: &Tenant, segments: &[String]) -> Key {
    tenant.space("test").key(&segments.iter().map(String::as_str).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn equal_keys_come_from_equal_segments(a in vec(segment(), 1..6), b in vec(segment(), 1..6)) {
        prop_assert_eq!(key(&tenant("t"), &a) == key(&tenant("t"), &b), a == b);
    }

    #[test]
    fn a_prefix_matches_exactly_its_descendants(a in vec(segment(), 1..4), b in vec(segment(), 1..6)) {
        let space = tenant("t").space("test");
        let Ok(prefix) = space.below(&a.iter().map(String::as_str).collect::<Vec<_>>()) else { return Ok(()) };
        let matches = prefix.rest(key(&tenant("t"), &b).as_str()).is_some();
        prop_assert_eq!(matches, b.len() > a.len() && b.starts_with(&a));
    }

    #[test]
    fn keys_keep_the_platforms_rules(segments in vec(segment(), 1..12)) {
        let key = key(&tenant("t"), &segments);
        prop_assert!(key.as_str().len() <= limits::KEY_BYTES_MAX);
        prop_assert!(key.as_str().contains('/') && key.as_str().parse::<u64>().is_err());
        prop_assert!(!key.as_str().chars().any(|c| c.is_ascii_control()));
    }

    #[test]
    fn no_tenant_forms_the_key_of_another(
        a in "[a-c/%:]{1,4}", b in "[a-c/%:]{1,4}", x in vec(segment(), 1..4), y in vec(segment(), 1..4),
    ) {
        prop_assume!(a != b);
        prop_assert_ne!(key(&tenant(&a), &x), key(&tenant(&b), &y));
        prop_assert!(tenant(&a).everything().rest(key(&tenant(&b), &y).as_str()).is_none());
    }

    #[test]
    fn escaping_is_undone(text in segment()) {
        prop_assert_eq!(unescape(&escape(&text)), Some(text));
    }

    #[test]
    fn unescaping_takes_anything_without_panic(text in ".{0,40}") {
        let _ = unescape(&text);
    }
}

#[test]
fn keys_are_readable_and_golden() {
    let space = tenant("acme").space("session");
    assert_eq!(space.key(&["user:1", "a/b%", ""]).as_str(), "acme/session/user:1/a%2Fb%25/%-");
    let long = "x".repeat(129);
    assert_eq!(space.key(&[&long]).as_str(), "acme/session/%~DsnrM-dFELzdHy6lUgboLyFknFwr7L8rQz60dbNMAb0");
}

#[test]
fn a_prefix_too_deep_to_follow_is_refused() {
    let segment = "x".repeat(120);
    let space = tenant("acme").space("test");
    assert!(space.below(&[&segment, &segment]).is_ok());
    assert_eq!(space.below(&[&segment, &segment, &segment]), Err(KeyTooLong));
}

#[test]
fn tenant_ids_are_bounded() {
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert!(Tenant::new(bad).is_err(), "{bad:?}");
    }
}
