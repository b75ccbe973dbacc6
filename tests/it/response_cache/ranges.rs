//! Ranges cut from stored responses, and stored parts (RFC 9110 §14, RFC 9111 §3.3).

use super::world::{From, World};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[track_caller]
fn check(world: &mut World, asked: &[(&str, &str)], expected: (u16, &str, Option<&str>)) {
    let got = world.get(asked);
    assert_eq!((got.status, got.text().as_str(), got.header("content-range").as_deref()), expected, "{asked:?}");
    assert_eq!(got.from, From::Cache, "{asked:?}");
    if got.status == 206 {
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string()));
    }
}

#[test]
fn rfc_9110_14_2_ranges_come_out_of_a_complete_response() {
    let mut world = World::new();
    world.origin(200, &[FRESH, ("A", "1"), ("Content-Length", "11")], "0123456789A").get(&[]);
    check(&mut world, &[("Range", "bytes=0-1")], (206, "01", Some("bytes 0-1/11")));
    check(&mut world, &[("Range", "bytes=1-")], (206, "123456789A", Some("bytes 1-10/11")));
    check(&mut world, &[("Range", "bytes=-1")], (206, "A", Some("bytes 10-10/11")));
    check(&mut world, &[("Range", "bytes=-50")], (206, "0123456789A", Some("bytes 0-10/11")));
    check(&mut world, &[("Range", "bytes=9-50")], (206, "9A", Some("bytes 9-10/11")));
    check(&mut world, &[("Range", "bytes=11-")], (416, "", Some("bytes */11")));
    check(&mut world, &[("Range", "bytes=-0")], (416, "", Some("bytes */11")));
    for ignored in ["bytes=2-1", "bytes=0-1,3-4", "lines=0-1", "nonsense"] {
        check(&mut world, &[("Range", ignored)], (200, "0123456789A", None));
    }
    assert_eq!(world.get(&[("Range", "bytes=0-1")]).header("a").as_deref(), Some("1"));
}

#[test]
fn rfc_9110_14_2_range_means_nothing_but_for_get_and_200() {
    let mut world = World::new();
    world.origin(404, &[FRESH], "not here").get(&[]);
    check(&mut world, &[("Range", "bytes=0-1")], (404, "not here", None));
    let mut world = World::new();
    world.origin(200, &[FRESH], "body").get(&[]);
    let got = world.send("HEAD", super::world::PAGE, &[("Range", "bytes=0-1")]);
    assert_eq!((got.status, got.from, got.body.len()), (200, From::Cache, 0));
}

#[test]
fn rfc_9110_13_1_5_if_range_needs_a_strong_match() {
    let modified = World::new().date(-3000);
    let stored = |etag: &'static str| {
        let mut world = World::new();
        world.origin(200, &[FRESH, ("ETag", etag), ("Last-Modified", &modified)], "0123").get(&[]);
        world
    };
    let range = ("Range", "bytes=0-1");
    let (part, whole) = ((206, "01", Some("bytes 0-1/4")), (200, "0123", None));
    check(&mut stored("\"a\""), &[range, ("If-Range", "\"a\"")], part);
    check(&mut stored("\"a\""), &[range, ("If-Range", "\"b\"")], whole);
    check(&mut stored("\"a\""), &[range, ("If-Range", "W/\"a\"")], whole);
    check(&mut stored("W/\"a\""), &[range, ("If-Range", "W/\"a\"")], whole);
    check(&mut stored("\"a\""), &[range, ("If-Range", &modified)], part);
    check(&mut stored("\"a\""), &[range, ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT")], whole);
    check(&mut stored("\"a\""), &[range, ("If-Range", "nonsense")], whole);
    let mut just_modified = World::new();
    let now = just_modified.date(0);
    just_modified.origin(200, &[FRESH, ("Last-Modified", &now), ("Date", &now)], "0123").get(&[]);
    check(&mut just_modified, &[range, ("If-Range", &now)], whole);
}

#[test]
fn rfc_9110_13_2_2_if_none_match_goes_before_range() {
    let mut world = World::new();
    world.origin(200, &[FRESH, ("ETag", "\"a\"")], "0123").get(&[]);
    check(&mut world, &[("Range", "bytes=0-1"), ("If-None-Match", "\"a\"")], (304, "", None));
}

#[test]
fn rfc_9111_3_3_a_part_answers_what_lies_within_it_and_nothing_else() {
    let mut world = World::new();
    let got = world.origin(206, &[FRESH, ("Content-Range", "bytes 5-9/10")], "56789").get(&[("Range", "bytes=-5")]);
    assert_eq!((got.status, got.from), (206, From::Origin));
    assert_eq!(world.origin_saw[0].headers.single("range"), Some("bytes=-5"), "the range goes to the origin as it is");
    check(&mut world, &[("Range", "bytes=-5")], (206, "56789", Some("bytes 5-9/10")));
    check(&mut world, &[("Range", "bytes=6-8")], (206, "678", Some("bytes 6-8/10")));
    check(&mut world, &[("Range", "bytes=6-")], (206, "6789", Some("bytes 6-9/10")));
    check(&mut world, &[("Range", "bytes=-1")], (206, "9", Some("bytes 9-9/10")));
    let asked: [&[(&str, &str)]; 4] =
        [&[("Range", "bytes=4-6")], &[("Range", "bytes=20-")], &[], &[("Range", "bytes=6-8"), ("If-Range", "\"x\"")]];
    for fields in asked {
        assert_eq!(world.origin(503, &[], "").get(fields).from, From::Origin, "{fields:?}");
    }
}

#[test]
fn rfc_9111_3_3_a_part_is_never_taken_for_the_whole() {
    let mut world = World::new();
    world.origin(206, &[FRESH, ("Content-Range", "bytes 0-4/10")], "01234").get(&[("Range", "bytes=0-4")]);
    let got = world.origin(200, &[FRESH], "0123456789").get(&[]);
    assert_eq!((got.from, got.status), (From::Origin, 200));
    check(&mut world, &[], (200, "0123456789", None));
}

#[test]
fn rfc_9111_3_3_a_part_that_is_everything_is_the_whole() {
    let mut world = World::new();
    world.origin(206, &[FRESH, ("Content-Range", "bytes 0-4/5")], "01234").get(&[("Range", "bytes=0-")]);
    check(&mut world, &[], (200, "01234", None));
}

#[test]
fn rfc_9111_3_3_a_part_of_another_length_than_announced_is_not_stored() {
    let mut world = World::new();
    // Twice: what is cut off is asked for once more.
    for _ in 0..2 {
        world.origin(206, &[FRESH, ("Content-Range", "bytes 4-9/10")], "01234");
    }
    world.get(&[("Range", "bytes=4-9")]);
    assert_eq!(world.origin(503, &[], "").get(&[("Range", "bytes=4-9")]).from, From::Origin);
}

#[test]
fn what_answers_a_range_that_cannot_be_served_is_not_stored_for_all() {
    for status in [400, 404, 416, 500] {
        let mut world = World::new();
        world.origin(status, &[FRESH], "").get(&[("Range", "bytes=99-")]);
        assert_eq!(world.origin(200, &[], "page").get(&[]).text(), "page", "{status}");
    }
}

#[test]
fn an_origin_that_ignores_the_range_fills_the_cache() {
    let mut world = World::new();
    world.origin(200, &[FRESH], "0123").get(&[("Range", "bytes=0-1")]);
    check(&mut world, &[("Range", "bytes=2-3")], (206, "23", Some("bytes 2-3/4")));
}
