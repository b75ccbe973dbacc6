//! Freshness lifetime and age: `max-age`, `s-maxage`, `Expires`, `Age`, heuristics, targeted fields.

use kv_patterns::patterns::response_cache::policy::OriginPolicy;

use super::world::{From, World, check_reuse, check_reuse_of};

#[test]
fn rfc_9111_5_2_2_1_max_age() {
    for (value, reused) in [
        ("max-age=3600", true),
        ("MaX-aGe=3600", true),
        ("max-age=\"3600\"", true),
        ("max-age=003600", true),
        ("foobar, max-age=3600", true),
        ("max-age=2147483648", true),
        ("max-age=99999999999", true),
        ("max-age=0", false),
        ("max-age=2", false),
        ("max-age=-3600", false),
        ("max-age='3600'", false),
        ("max-age=a3600", false),
        ("max-age=3600a", false),
        ("max-age=3600.0", false),
        ("max-age =3600", false),
        ("max-age= 3600", false),
        ("max-age", false),
        (r#"ext="max-age=3600", max-age=1"#, false),
        (r#"max-age=1, ext="max-age=3600""#, false),
        (r#"ext="max-age=3600""#, false),
    ] {
        check_reuse(&[("Cache-Control", value)], reused);
    }
}

#[test]
fn rfc_9111_5_2_2_10_s_maxage_wins_over_max_age_in_any_order() {
    check_reuse(&[("Cache-Control", "s-maxage=3600")], true);
    check_reuse(&[("Cache-Control", "max-age=1, s-maxage=3600")], true);
    check_reuse(&[("Cache-Control", "max-age=3600, s-maxage=1")], false);
    check_reuse(&[("Cache-Control", "s-maxage=1"), ("Cache-Control", "max-age=3600")], false);
    check_reuse(&[("Cache-Control", "max-age=3600, s-maxage=x")], false);
}

#[test]
fn rfc_9111_5_3_expires_counts_from_date_and_only_without_max_age() {
    let world = World::new();
    let date = |seconds| world.date(seconds);
    check_reuse(&[("Date", &date(0)), ("Expires", &date(3600))], true);
    check_reuse(&[("Date", &date(0)), ("Expires", &date(0))], false);
    check_reuse(&[("Date", &date(0)), ("Expires", &date(-3600))], false);
    check_reuse(&[("Date", &date(400)), ("Expires", &date(300))], false);
    check_reuse(&[("Date", "foo"), ("Expires", &date(10))], true);
    check_reuse(&[("Expires", &date(10))], true);
    check_reuse(&[("Expires", "0"), ("Last-Modified", &date(-864_000)), ("ETag", "\"a\"")], false);
    check_reuse(&[("Cache-Control", "max-age=3600"), ("Expires", &date(-3600))], true);
    check_reuse(&[("Cache-Control", "max-age=3600"), ("Expires", "0")], true);
    check_reuse(&[("Cache-Control", "max-age=0"), ("Expires", &date(3600))], false);
}

#[test]
fn rfc_9111_5_3_expires_is_a_date_in_one_of_three_formats() {
    for (value, reused) in [
        ("Thu, 18 Aug 2050 02:01:18 GMT", true),
        ("THU, 18 Aug 2050 02:01:18 GMT", true),
        ("Thu, 18 AUG 2050 02:01:18 GMT", true),
        ("Thu, 18 Aug 2050 02:01:18 gMT", true),
        ("Thursday, 18-Aug-50 02:01:18 GMT", true),
        ("Thu Aug  8 02:01:18 2050", true),
        ("Tue, 19 Jan 2038 14:14:08 GMT", true),
        ("Sun, 21 Nov 2286 04:46:39 GMT", true),
        ("Thu, 18 Aug 2050 02:01:18 UTC", false),
        ("Thu, 18 Aug 2050 02:01:18 AEST", false),
        ("Thu, 18 Aug 50 02:01:18 GMT", false),
        ("Thu 18 Aug 2050 02:01:18 GMT", false),
        ("Thu, 18  Aug  2050 02:01:18 GMT", false),
        ("Thu, 18-Aug-2050 02:01:18 GMT", false),
        ("Thu, 18 Aug 2050 02.01.18 GMT", false),
        ("Thu, 18 Aug 2050 2:01:18 GMT", false),
    ] {
        check_reuse(&[("Expires", value)], reused);
    }
    let valid = "Thu, 18 Aug 2050 02:01:18 GMT";
    check_reuse(&[("Expires", valid), ("Expires", valid)], false);
}

#[test]
fn rfc_9111_5_1_age_is_the_first_member_and_must_be_a_number() {
    for (lines, reused) in [
        (&["7200"][..], false),
        (&["1800"], true),
        (&["abc"], true),
        (&["-7200"], true),
        (&["7200.0"], true),
        (&["7200,0"], false),
        (&["7200", "0"], false),
        (&["0,7200"], true),
        (&["0", "7200"], true),
        (&["0, 0"], true),
        (&["7200, 7200"], false),
    ] {
        let mut headers = vec![("Cache-Control", "max-age=3600")];
        headers.extend(lines.iter().map(|line| ("Age", *line)));
        check_reuse(&headers, reused);
    }
}

#[test]
fn rfc_9111_4_2_3_age_is_the_greater_of_what_clock_and_field_say_and_grows() {
    let check = |date_seconds: i64, age: Option<&str>, delay_millis: u64, expected: &str| {
        let mut world = World::new();
        world.response_delay_millis = delay_millis;
        let date = world.date(date_seconds);
        let mut headers = vec![("Cache-Control", "max-age=600"), ("Date", &date)];
        headers.extend(age.map(|age| ("Age", age)));
        world.origin(200, &headers, "").get(&[]);
        world.wait(7);
        let got = world.get(&[]);
        assert_eq!(got.header("age").as_deref(), Some(expected), "{date_seconds} {age:?} {delay_millis}");
        assert_eq!(got.header("date").as_deref(), Some(date.as_str()), "Date stays");
    };
    check(0, None, 0, "7");
    check(0, Some("30"), 0, "37");
    check(-50, Some("30"), 0, "57");
    check(50, None, 0, "7");
    check(0, Some("30"), 4000, "41");
}

#[test]
fn rfc_9111_4_2_a_response_is_stale_once_its_age_reaches_its_lifetime() {
    let mut world = World::new();
    world.origin(200, &[("Cache-Control", "max-age=10")], "first").get(&[]);
    world.wait(9);
    assert_eq!(world.get(&[]).from, From::Cache);
    world.wait(1);
    assert_eq!(world.origin(200, &[], "second").get(&[]).text(), "second");
}

#[test]
fn rfc_9111_4_2_2_heuristic_freshness_is_a_tenth_of_the_time_since_modification() {
    let world = World::new();
    let day_ago = world.date(-86_400);
    for (status, reused) in [
        (200, true),
        (203, true),
        (204, true),
        (300, true),
        (301, true),
        (308, true),
        (404, true),
        (405, true),
        (410, true),
        (414, true),
        (501, true),
        (201, false),
        (202, false),
        (302, false),
        (307, false),
        (400, false),
        (403, false),
        (500, false),
        (502, false),
        (503, false),
        (504, false),
        (599, false),
    ] {
        check_reuse_of(status, &[("Last-Modified", &day_ago)], reused);
    }
    check_reuse_of(599, &[("Last-Modified", &day_ago), ("Cache-Control", "public")], true);
    check_reuse(&[("Last-Modified", &world.date(-20))], false);
    check_reuse(&[("Last-Modified", &world.date(-60))], true);
    check_reuse(&[("Last-Modified", "yesterday")], false);
    check_reuse(&[("Last-Modified", &day_ago), ("Content-Disposition", "attachment; filename=a.txt")], true);
    check_reuse(&[], false);
    check_reuse(&[("Cache-Control", "public")], false);
}

#[test]
fn rfc_9111_4_2_2_the_heuristic_ends_after_a_day() {
    let mut world = World::new();
    let long_ago = world.date(-1_000_000_000);
    world.origin(200, &[("Last-Modified", &long_ago)], "first").get(&[]);
    world.wait(86_399);
    assert_eq!(world.get(&[]).from, From::Cache);
    world.wait(1);
    assert_eq!(world.origin(304, &[], "").get(&[]).from, From::Validated);
}

#[test]
fn rfc_9213_cdn_cache_control_takes_the_place_of_cache_control_and_expires() {
    let world = World::new();
    let (past, future) = (world.date(-3600), world.date(3600));
    for (targeted, others, reused) in [
        ("max-age=3600", &[][..], true),
        ("max-age=99999999999", &[], true),
        ("foobar, max-age=3600", &[], true),
        ("max-age=3600", &[("Age", "7200")], false),
        ("max-age=0", &[("Expires", future.as_str())], false),
        ("max-age=3600", &[("Expires", past.as_str())], true),
        ("max-age=3600", &[("Expires", "0")], true),
        ("max-age=3600", &[("Cache-Control", "max-age=1")], true),
        ("max-age=1", &[("Cache-Control", "max-age=3600")], false),
        ("private", &[("Cache-Control", "max-age=3600")], false),
        ("no-cache", &[("Cache-Control", "max-age=3600")], false),
        ("no-store", &[("Cache-Control", "max-age=3600")], false),
        ("max-age=3600", &[("Cache-Control", "no-store")], true),
        ("max-age=3600, &&&", &[("Cache-Control", "no-store")], false),
        ("max-age=\"3600\"", &[("Cache-Control", "no-store")], false),
        ("max-age =3600", &[("Cache-Control", "max-age=1")], false),
        ("max-age= 3600", &[("Cache-Control", "max-age=1")], false),
        ("MaX-aGe=3600", &[("Cache-Control", "max-age=1")], false),
        ("foo", &[("Expires", future.as_str())], false),
    ] {
        let mut headers = vec![("CDN-Cache-Control", targeted)];
        headers.extend(others);
        check_reuse(&headers, reused);
    }
}

#[test]
fn rfc_9213_2_2_the_targeted_field_is_passed_on_unless_it_is_meant_for_this_cache_alone() {
    let mut world = World::new();
    let headers = [("CDN-Cache-Control", "max-age=60"), ("Cloudflare-CDN-Cache-Control", "max-age=90")];
    for _ in 0..2 {
        world.origin(200, &headers, "");
        let got = world.get(&[]);
        assert_eq!(got.header("cdn-cache-control").as_deref(), Some("max-age=60"));
        assert_eq!(got.header("cloudflare-cdn-cache-control"), None);
    }
    world.wait(80);
    assert_eq!(world.get(&[]).from, From::Cache, "the first field of the list counts");
}

#[test]
fn an_operator_gives_a_lifetime_to_responses_without_one_or_to_all() {
    let check = |fresh: Option<u64>, respect: bool, status: u16, headers: &[(&str, &str)], reused: bool| {
        let policy = OriginPolicy { fresh_seconds: fresh, respect_cache_control: respect, ..OriginPolicy::default() };
        let mut world = World::with_policy(policy);
        world.origin(status, headers, "first").get(&[]);
        world.wait(3);
        world.origin(200, &[], "second");
        assert_eq!(world.get(&[]).from == From::Cache, reused, "{fresh:?} {respect} {status} {headers:?}");
    };
    check(Some(60), true, 200, &[], true);
    check(Some(60), true, 200, &[("Cache-Control", "max-age=1")], false);
    check(Some(60), true, 405, &[], false);
    check(Some(60), true, 500, &[], false);
    check(Some(60), false, 200, &[("Cache-Control", "max-age=1")], true);
    check(Some(60), false, 200, &[("Cache-Control", "no-cache")], true);
    check(None, false, 200, &[("Cache-Control", "max-age=1")], true);
    check(Some(60), false, 200, &[("Cache-Control", "no-store")], false);
    check(Some(60), false, 200, &[("Cache-Control", "private")], false);
    check(Some(60), false, 500, &[("Cache-Control", "max-age=60")], false);
}
