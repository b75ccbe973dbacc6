//! The gateway as a whole: costs, tiers, faults, streams, purges, and that tenants share nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use kv_patterns::background::Deferred;
use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::kv::{Error, Key, MemoryStore, Meter, Metered, Page, PageRequest, Prefix, Read, Store, Write};
use kv_patterns::patterns::cache::{Flights, Host, Severity, SharedLauncher};
use kv_patterns::patterns::response_cache::gateway::{BODY_BYTES_MAX, Gateway, Payload};
use kv_patterns::patterns::response_cache::isolate::Isolate;
use kv_patterns::patterns::response_cache::policy::{OriginPolicy, SetCookie};
use kv_patterns::patterns::response_cache::purge::{Scope, purge};
use kv_patterns::patterns::response_cache::site::Site;
use proptest::prelude::*;

use super::world::{Always, Answer, START, Script};
use crate::support::{block_on, tenant};

/// KV that can be told to fail.
#[derive(Clone)]
struct Shaky {
    store: MemoryStore<ManualClock>,
    reads_fail: Rc<RefCell<bool>>,
    writes_fail: Rc<RefCell<bool>>,
    bulk_reads: Rc<RefCell<u32>>,
}

fn down() -> Error {
    Error::Unavailable("down".to_owned())
}

impl Store for Shaky {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        if *self.reads_fail.borrow() { Err(down()) } else { self.store.get(key, read).await }
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        *self.bulk_reads.borrow_mut() += 1;
        if *self.reads_fail.borrow() { Err(down()) } else { self.store.get_many(keys, read).await }
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        if *self.writes_fail.borrow() { Err(down()) } else { self.store.put(key, value, write).await }
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        if *self.writes_fail.borrow() { Err(down()) } else { self.store.delete(key).await }
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        self.store.list(prefix, request).await
    }
}

/// A location: one KV, one origin, and the isolate that answers.
struct Place {
    clock: ManualClock,
    kv: Shaky,
    script: Script,
    isolate: Isolate,
    policy: OriginPolicy,
    tenant: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: u16,
    word: &'static str,
    body: String,
    cost: String,
}

const FRESH: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

impl Place {
    fn new(policy: OriginPolicy) -> Self {
        let clock = ManualClock::at(START);
        let store = MemoryStore::new(clock.clone());
        let kv = Shaky { store, reads_fail: Rc::default(), writes_fail: Rc::default(), bulk_reads: Rc::default() };
        let script = Script {
            clock: clock.clone(),
            delay_millis: 0,
            answers: Rc::new(RefCell::new(VecDeque::new())),
            seen: Rc::default(),
        };
        Self { clock, kv, script, isolate: Isolate::new(64 << 20), policy, tenant: "acme" }
    }

    fn origin(&self, status: u16, headers: &[(&str, &str)], body: &str) -> &Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.script.answers.borrow_mut().push_back(Answer::Response {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        });
        self
    }

    fn origin_cut(&self, headers: &[(&str, &str)], body: &str) -> &Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.script.answers.borrow_mut().push_back(Answer::Cut { headers, body: body.as_bytes().to_vec() });
        self
    }

    fn origin_down(&self) -> &Self {
        self.script.answers.borrow_mut().push_back(Answer::Unreachable);
        self
    }

    fn site(&self) -> Rc<Site> {
        let tenant = tenant(self.tenant);
        let site =
            Site::new(tenant.space("response"), "shop", "https://shop.example/base", self.policy.clone()).unwrap();
        Rc::new(site.purgeable(tenant.space("response-purge")))
    }

    fn get(&self, path: &str) -> Got {
        self.send("GET", path, &[])
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Got {
        self.send_full(method, path, headers).0
    }

    fn send_full(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (Got, kv_patterns::patterns::response_cache::headers::Headers) {
        let meter = Meter::default();
        let background = Deferred::default();
        let site = self.site();
        let mut request = super::world::request(method, "https://x/", headers);
        request.target = site.target(path).unwrap();
        let gateway = Gateway {
            store: Metered::new(self.kv.clone(), meter.clone()),
            origin: self.script.clone(),
            host: Host { clock: self.clock.clone(), random: Always(0.0), launcher: SharedLauncher(background.clone()) },
            isolate: self.isolate.clone(),
            flights: Flights::default(),
            site,
        };
        let answer = block_on(gateway.answer(&request, None));
        let body = match answer.payload {
            Payload::Nothing | Payload::Failed(_) => Ok(Vec::new()),
            Payload::Held(bytes, range) => Ok(bytes[range].to_vec()),
            Payload::Stream(stream) => stream.read(),
        };
        block_on(background.run());
        let body = body.map_or_else(|_| "(broken)".to_owned(), |bytes| String::from_utf8(bytes).unwrap());
        (Got { status: answer.status, word: answer.word.as_str(), body, cost: meter.to_string() }, answer.headers)
    }

    /// Another isolate of the same location.
    fn forget(&mut self) {
        self.isolate = Isolate::new(64 << 20);
    }
}

#[track_caller]
fn check(got: &Got, word: &str, body: &str, cost: &str) {
    assert_eq!((got.word, got.body.as_str(), got.cost.as_str()), (word, body, cost), "{got:?}");
}

#[test]
fn a_miss_writes_once_a_hit_from_memory_reads_nothing_and_one_from_kv_reads_once() {
    let mut place = Place::new(OriginPolicy { memory_seconds: 30, ..OriginPolicy::default() });
    check(&place.origin(200, FRESH, "one").get("/a"), "MISS", "one", "r=1 w=1 d=0 l=0");
    check(&place.get("/a"), "HIT", "one", "r=0 w=0 d=0 l=0");
    place.clock.advance_seconds(31);
    // The entry, and one bulk read of the purge marks, hard and soft, of the origin and of the path.
    check(&place.get("/a"), "HIT", "one", "r=5 w=0 d=0 l=0");
    place.forget();
    check(&place.get("/a"), "HIT", "one", "r=5 w=0 d=0 l=0");
    check(&place.get("/a"), "HIT", "one", "r=0 w=0 d=0 l=0");
}

#[test]
fn all_marks_of_a_response_with_33_tags_are_one_bulk_read() {
    let mut place = Place::new(OriginPolicy::default());
    let tags: Vec<String> = (0..33).map(|tag| format!("tag-{tag}")).collect();
    let path = "/a".repeat(20);
    place.origin(200, &[("Cache-Control", "max-age=3600"), ("Cache-Tag", &tags.join(","))], "one").get(&path);
    place.forget();
    check(&place.get(&path), "HIT", "one", "r=101 w=0 d=0 l=0");
    assert_eq!(*place.kv.bulk_reads.borrow(), 1);
}

#[test]
fn a_refresh_writes_once_and_one_that_changes_nothing_of_use_writes_nothing() {
    let place = Place::new(OriginPolicy::default());
    let stale = [("Cache-Control", "max-age=1"), ("ETag", "\"a\"")];
    place.origin(200, &stale, "one").get("/a");
    place.clock.advance_seconds(3);
    check(&place.origin(304, &[("ETag", "\"a\"")], "").get("/a"), "HIT", "one", "r=0 w=1 d=0 l=0");
    let never = [("Cache-Control", "no-cache"), ("ETag", "\"b\"")];
    place.origin(200, &never, "two").get("/b");
    check(&place.origin(304, &[("ETag", "\"b\"")], "").get("/b"), "HIT", "two", "r=0 w=0 d=0 l=0");
}

/// An answer that may not be stored has taken the place of the stored one all the same (RFC 9111 §4.3.3).
#[test]
fn what_the_origin_has_answered_otherwise_is_not_shown_again() {
    let stale = [("Cache-Control", "max-age=1, stale-while-revalidate=600, stale-if-error=600")];
    let answers: [(u16, &[(&str, &str)]); 6] = [
        (404, &[]),
        (404, &[("Cache-Control", "no-store")]),
        (200, &[("Cache-Control", "private")]),
        (200, &[]),
        (301, &[("Location", "/b")]),
        (200, &[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")]),
    ];
    for (status, headers) in answers {
        let place = Place::new(OriginPolicy::default());
        place.origin(200, &stale, "old").get("/a");
        place.clock.advance_seconds(3);
        let got = place.origin(status, headers, "new").get("/a");
        assert_eq!((got.word, got.body.as_str()), ("STALE", "old"), "while the origin is asked");
        let got = place.origin(status, headers, "new").get("/a");
        assert_eq!((got.status, got.word, got.body.as_str()), (status, "MISS", "new"), "{headers:?}");
        assert_eq!(place.origin_down().get("/a").status, 502, "{headers:?}");
    }
}

#[test]
fn an_origin_that_only_puts_off_has_not_answered() {
    let stale = [("Cache-Control", "max-age=1, stale-while-revalidate=600")];
    for status in [408, 425, 429, 500, 503] {
        let place = Place::new(OriginPolicy::default());
        place.origin(200, &stale, "old").get("/a");
        place.clock.advance_seconds(3);
        place.origin(status, &[], "later").get("/a");
        place.clock.advance_seconds(6);
        assert_eq!(place.origin(200, &stale, "new").get("/a").body, "old", "{status}");
    }
}

#[test]
fn a_refresh_in_the_background_goes_without_the_cookies_of_who_caused_it() {
    let place = Place::new(OriginPolicy::default());
    let stale = [("Cache-Control", "max-age=1, stale-while-revalidate=60")];
    place.origin(200, &stale, "one").send("GET", "/a", &[("Cookie", "user=ada")]);
    place.clock.advance_seconds(3);
    let grace = [("Cookie", "user=grace"), ("Accept-Language", "en")];
    check(&place.origin(200, &stale, "two").send("GET", "/a", &grace), "STALE", "one", "r=0 w=1 d=0 l=0");
    let seen = place.script.seen.borrow();
    let cookies: Vec<_> = seen.iter().map(|request| request.headers.single("cookie")).collect();
    assert_eq!(cookies, [Some("user=ada"), None]);
    assert_eq!(seen[1].headers.single("accept-language"), Some("en"));
}

#[test]
fn a_body_of_unknown_length_is_stored_when_the_client_has_it_and_a_broken_one_is_not() {
    let place = Place::new(OriginPolicy::default());
    assert_eq!(place.origin_cut(FRESH, "hal").get("/a").body, "(broken)");
    check(&place.origin(200, FRESH, "whole").get("/a"), "MISS", "whole", "r=1 w=1 d=0 l=0");
    assert_eq!(place.get("/a").word, "HIT");
    // With a length that is not reached.
    let announced = [("Cache-Control", "max-age=3600"), ("Content-Length", "10")];
    // Asked twice before the client is told.
    place.origin(200, &announced, "short");
    assert_eq!(place.origin(200, &announced, "short").get("/b").status, 502);
    assert_eq!(place.origin(200, FRESH, "whole").get("/b").word, "MISS");
}

/// The platform decodes what is read, and cannot decode a part, or nothing.
#[test]
fn coded_content_is_read_only_where_it_is_whole_and_not_empty() {
    let place = Place::new(OriginPolicy::default());
    let part = [("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-9/99"), ("Cache-Control", "max-age=60")];
    for _ in 0..2 {
        let got = place.origin(206, &part, "part").send("GET", "/a", &[("Range", "bytes=0-9")]);
        assert_eq!((got.status, got.word, got.body.as_str()), (206, "MISS", "part"));
    }
    let empty = [("Content-Encoding", "gzip"), ("Content-Length", "0"), ("Cache-Control", "max-age=60")];
    check(&place.origin_cut(&empty, "").get("/b"), "MISS", "", "r=1 w=1 d=0 l=0");
    check(&place.get("/b"), "HIT", "", "r=0 w=0 d=0 l=0");
}

#[test]
fn a_body_that_breaks_is_replaced_by_what_is_stale() {
    let place = Place::new(OriginPolicy::default());
    place.origin(200, &[("Cache-Control", "max-age=1")], "old").get("/a");
    place.clock.advance_seconds(3);
    let got = place.origin_cut(FRESH, "ne").get("/a");
    assert_eq!((got.word, got.body.as_str()), ("STALE", "old"));
}

#[test]
fn a_body_too_large_streams_through_and_is_not_stored() {
    let place = Place::new(OriginPolicy::default());
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    // Of the first nobody can know; the second is believed to be as large.
    for told in ["stored", "detail=too-large"] {
        let (got, headers) = place.origin(200, FRESH, &large).send_full("GET", "/a", &[]);
        assert_eq!((got.word, got.body.len()), ("MISS", large.len()));
        let status = headers.single("cache-status").unwrap();
        assert!(status.ends_with(told), "{status}");
    }
    let announced = [("Cache-Control", "max-age=3600"), ("Content-Length", &*large.len().to_string())];
    assert_eq!(place.origin(200, &announced, &large).get("/b").body.len(), large.len());
    assert!(place.kv.store.names().is_empty());
}

#[test]
fn kv_failing_is_a_miss_and_never_an_error() {
    let place = Place::new(OriginPolicy { memory_seconds: 5, ..OriginPolicy::default() });
    *place.kv.reads_fail.borrow_mut() = true;
    *place.kv.writes_fail.borrow_mut() = true;
    assert_eq!(place.origin(200, FRESH, "one").get("/a").body, "one");
    assert_eq!(place.get("/a").word, "HIT", "from memory");
    place.clock.advance_seconds(60);
    assert_eq!(place.get("/a").word, "HIT", "memory is all there is");
    place.clock.advance_seconds(3600);
    let got = place.origin_down().get("/a");
    assert_eq!((got.word, got.body.as_str()), ("STALE", "one"));
}

#[test]
fn a_damaged_or_older_envelope_is_a_miss_that_the_next_answer_replaces() {
    let mut place = Place::new(OriginPolicy::default());
    place.origin(200, FRESH, "one").get("/a");
    let name = place.kv.store.names().remove(0);
    let good = place.kv.store.raw(&name).unwrap();
    let mut older = good.clone();
    older[4] = 0;
    for damaged in [&good[..good.len() - 1], b"", b"garbage", &older] {
        place.forget();
        place.kv.store.plant(&name, damaged);
        assert_eq!(place.origin(200, FRESH, "one").get("/a").word, "MISS");
        place.forget();
        assert_eq!(place.get("/a").word, "HIT");
    }
}

#[test]
fn an_origin_that_fails_is_left_alone_for_a_while() {
    let place = Place::new(OriginPolicy::default());
    place.origin(200, &[("Cache-Control", "max-age=1")], "old").get("/a");
    place.clock.advance_seconds(3);
    assert_eq!(place.origin_down().get("/a").word, "STALE");
    assert_eq!(place.get("/a").word, "STALE", "the origin is not asked again");
    place.clock.advance_seconds(6);
    assert_eq!(place.origin(200, FRESH, "new").get("/a").body, "new");
}

/// With `control` stored, `wait` seconds later a request that the origin does not answer.
#[track_caller]
fn unanswered(control: &str, wait: u64, method: &str, fields: &[(&str, &str)], expected: &str) {
    // What has no validator either is not stored with `no-cache`.
    for with_validator in if control.contains("no-cache") { &[true][..] } else { &[true, false] } {
        let place = Place::new(OriginPolicy::default());
        let mut stored = vec![("Cache-Control", control), ("Vary", "Accept")];
        stored.extend(with_validator.then_some(("ETag", "\"a\"")));
        if !control.is_empty() {
            place.origin(200, &stored, "old").get("/a");
        }
        place.clock.advance_seconds(wait);
        let (got, headers) = place.origin_down().origin_down().send_full(method, "/a", fields);
        let said = format!("{} {} {}", got.status, got.word, headers.single("cache-status").unwrap());
        assert_eq!(said.replace("kv-patterns; ", ""), expected, "{control} {method} {fields:?}");
    }
}

/// RFC 9211 §2.2 for each way to the origin; RFC 9111 §5.2.2.2: 504 where what is stored and stale must be validated.
#[test]
fn what_nobody_can_answer_says_why_the_origin_was_asked() {
    for method in ["GET", "HEAD"] {
        unanswered("", 0, method, &[], "502 MISS fwd=uri-miss");
        unanswered("max-age=1, stale-if-error=1", 9, method, &[], "502 MISS fwd=stale");
        for control in
            ["max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1", "max-age=60, no-cache"]
        {
            unanswered(control, 9, method, &[], "504 MISS fwd=stale");
        }
    }
    let anew = [("Cache-Control", "no-cache")];
    unanswered("max-age=1, stale-if-error=1", 9, "GET", &anew, "502 MISS fwd=stale");
    unanswered("max-age=1, stale-if-error=1", 9, "GET", &[("Accept", "text/plain")], "502 MISS fwd=vary-miss");
    // Fresh, so that only the client demands it.
    unanswered("max-age=60, must-revalidate", 9, "GET", &anew, "502 MISS fwd=request");
    let bypassed = "502 BYPASS fwd=bypass; detail=";
    unanswered("max-age=60", 9, "GET", &[("Cache-Control", "no-store")], &format!("{bypassed}request-no-store"));
    unanswered("max-age=60", 9, "GET", &[("If-Match", "\"a\"")], &format!("{bypassed}precondition"));
    unanswered("max-age=60", 9, "POST", &[], "502 BYPASS fwd=method");
    unanswered("max-age=60", 9, "OPTIONS", &[], "502 BYPASS fwd=method");
}

#[test]
fn rfc_9110_6_6_1_what_comes_without_a_date_goes_on_with_the_time_of_arrival() {
    let place = Place::new(OriginPolicy::default());
    let arrived = kv_patterns::patterns::response_cache::date::format(START);
    for (method, control) in [("GET", "max-age=60"), ("GET", "no-store"), ("HEAD", "max-age=60"), ("POST", "")] {
        for (sent, expected) in
            [(None, &*arrived), (Some("Sun, 06 Nov 1994 08:49:37 GMT"), "Sun, 06 Nov 1994 08:49:37 GMT")]
        {
            let fields: Vec<_> =
                sent.map(|date| ("Date", date)).into_iter().chain([("Cache-Control", control)]).collect();
            let path = format!("/{method}-{control}-{}", sent.is_some());
            let (_, headers) = place.origin(200, &fields, "").send_full(method, &path.replace('=', ""), &[]);
            assert_eq!(headers.single("date"), Some(expected), "{method} {control}");
        }
    }
}

#[test]
fn an_unsafe_request_deletes_once_and_what_was_asked_before_it_is_not_stored_after() {
    let mut place = Place::new(OriginPolicy::default());
    place.origin(200, FRESH, "old").get("/a");
    check(&place.origin(200, &[], "done").send("POST", "/a", &[]), "BYPASS", "done", "r=0 w=0 d=1 l=0");
    assert!(place.kv.store.names().is_empty());
    check(&place.origin(200, FRESH, "new").get("/a"), "MISS", "new", "r=0 w=1 d=0 l=0");
    place.forget();
    assert_eq!(place.get("/a").body, "new");
    let posted = [("Cache-Control", "max-age=60"), ("Content-Location", "/base/a")];
    check(&place.origin(200, &posted, "posted").send("POST", "/a", &[]), "BYPASS", "posted", "r=0 w=1 d=0 l=0");
    assert_eq!(place.get("/a").body, "posted");
}

#[test]
fn a_request_whose_answer_cannot_be_shared_hides_nothing_from_the_next() {
    let mut place = Place::new(OriginPolicy::default());
    place.origin(200, FRESH, "one").get("/a");
    place.forget();
    place.origin(500, &[], "failed").send("POST", "/a", &[]);
    assert_eq!(place.get("/a").word, "HIT", "from KV");
    place.origin(200, &[("Cache-Control", "no-store")], "two").get("/b");
    check(&place.origin(200, FRESH, "three").get("/b"), "MISS", "three", "r=0 w=1 d=0 l=0");
}

#[test]
fn purges_by_tag_prefix_and_all_are_one_write_and_seen_at_once() {
    let tagged = [("Cache-Control", "max-age=3600"), ("Cache-Tag", "red, blue")];
    for (scope, paths) in [
        (Scope::Tag("red"), vec!["/x/1", "/x/2", "/y"]),
        (Scope::Prefix("/x"), vec!["/x/1", "/x/2"]),
        (Scope::Prefix("x/1/"), vec!["/x/1"]),
        (Scope::All, vec!["/x/1", "/x/2", "/y"]),
        (Scope::Tag("green"), vec![]),
        (Scope::Prefix("/x/"), vec!["/x/1", "/x/2"]),
        (Scope::Prefix("/base"), vec![]),
        (Scope::Prefix("/"), vec!["/x/1", "/x/2", "/y"]),
    ] {
        let place = Place::new(OriginPolicy::default());
        for path in ["/x/1", "/x/2", "/y"] {
            place.origin(200, &tagged, "one").get(path);
            assert_eq!(place.get(path).word, "HIT");
        }
        place.clock.advance_millis(1);
        let meter = Meter::default();
        let store = Metered::new(place.kv.clone(), meter.clone());
        block_on(purge(&store, &place.isolate, &place.site(), (scope, Severity::Hard), place.clock.now())).unwrap();
        assert_eq!(meter.to_string(), "r=0 w=1 d=0 l=0");
        place.clock.advance_millis(1);
        for path in ["/x/1", "/x/2", "/y"] {
            place.origin(200, &tagged, "two");
            let got = place.get(path);
            let expected = if paths.contains(&path) { "two" } else { "one" };
            assert_eq!(got.body, expected, "{scope:?} {path}");
            place.script.answers.borrow_mut().clear();
            assert_eq!(place.get(path).word, "HIT");
        }
    }
}

#[test]
fn a_soft_purge_is_one_write_and_leaves_what_may_be_served_stale() {
    let windowed = [("Cache-Control", "max-age=3600, stale-while-revalidate=60"), ("Cache-Tag", "red")];
    for scope in [Scope::Tag("red"), Scope::Prefix("/x"), Scope::All] {
        let place = Place::new(OriginPolicy::default());
        place.origin(200, &windowed, "one").get("/x/1");
        place.origin(200, FRESH, "strict").get("/y");
        place.clock.advance_millis(1);
        let meter = Meter::default();
        let store = Metered::new(place.kv.clone(), meter.clone());
        block_on(purge(&store, &place.isolate, &place.site(), (scope, Severity::Soft), place.clock.now())).unwrap();
        assert_eq!(meter.to_string(), "r=0 w=1 d=0 l=0");
        // Served while it is refreshed in the background, whose answer is fresh again.
        place.clock.advance_seconds(2);
        place.origin(200, &windowed, "two");
        assert_eq!((place.get("/x/1").word, place.get("/x/1").body.as_str()), ("STALE", "two"), "{scope:?}");
        assert_eq!(place.get("/x/1").word, "HIT");
        // What has no window is asked for, and replaces an error.
        if scope == Scope::All {
            let got = place.origin_down().get("/y");
            assert_eq!((got.word, got.body.as_str()), ("STALE", "strict"));
        }
    }
}

#[test]
fn after_its_window_what_was_purged_softly_is_asked_for() {
    let place = Place::new(OriginPolicy::default());
    place.origin(200, &[("Cache-Control", "max-age=3600, stale-while-revalidate=60")], "one").get("/x");
    place.clock.advance_millis(1);
    block_on(purge(&place.kv, &place.isolate, &place.site(), (Scope::All, Severity::Soft), place.clock.now())).unwrap();
    place.clock.advance_seconds(61);
    assert_eq!(place.origin(200, FRESH, "two").get("/x").body, "two");
}

#[test]
fn a_purge_reaches_another_isolate_when_its_memory_has_run_out() {
    let mut place = Place::new(OriginPolicy { memory_seconds: 30, ..OriginPolicy::default() });
    place.origin(200, FRESH, "one").get("/a");
    let other = Isolate::new(1 << 20);
    let here = std::mem::replace(&mut place.isolate, other.clone());
    place.get("/a");
    place.clock.advance_millis(1);
    block_on(purge(&place.kv, &here, &place.site(), (Scope::All, Severity::Hard), place.clock.now())).unwrap();
    assert_eq!(place.get("/a").word, "HIT", "within its memory");
    place.clock.advance_seconds(30);
    assert_eq!(place.origin(200, FRESH, "two").get("/a").body, "two");
}

#[test]
fn a_stripped_cookie_reaches_only_who_caused_it() {
    let place = Place::new(OriginPolicy { set_cookie: SetCookie::Strip, ..OriginPolicy::default() });
    let setting = [("Cache-Control", "max-age=1"), ("ETag", "\"a\""), ("Set-Cookie", "id=1")];
    let cookie = |got: (Got, kv_patterns::patterns::response_cache::headers::Headers)| got.1.joined("set-cookie");
    assert_eq!(cookie(place.origin(200, &setting, "x").send_full("GET", "/a", &[])).as_deref(), Some("id=1"));
    assert_eq!(cookie(place.send_full("GET", "/a", &[])), None);
    place.clock.advance_seconds(3);
    place.origin(304, &[("ETag", "\"a\""), ("Set-Cookie", "id=2")], "");
    assert_eq!(cookie(place.send_full("GET", "/a", &[])).as_deref(), Some("id=2"));
    assert_eq!(cookie(place.send_full("GET", "/a", &[])), None);
    place.clock.advance_seconds(3);
    place.origin(200, &[("Cache-Control", "max-age=9"), ("ETag", "\"b\""), ("Set-Cookie", "id=3")], "y");
    let (got, headers) = place.send_full("GET", "/a", &[("If-None-Match", "\"b\"")]);
    assert_eq!((got.status, headers.joined("set-cookie").as_deref()), (304, Some("id=3")));
}

#[test]
fn tenants_share_nothing_in_memory_or_in_kv() {
    let mut place = Place::new(OriginPolicy::default());
    place.origin(200, FRESH, "acme's").get("/a");
    place.tenant = "other";
    check(&place.origin(200, FRESH, "other's").get("/a"), "MISS", "other's", "r=1 w=1 d=0 l=0");
    place.tenant = "acme";
    assert_eq!(place.get("/a").body, "acme's");
}

/// One request of somebody, and what the origin says to it.
#[derive(Clone, Debug)]
struct Step {
    user: u8,
    tenant: bool,
    with: u8,
    path: u8,
    vary: u8,
    control: u8,
    wait: u8,
}

const CONTROLS: [&str; 7] = [
    "max-age=60",
    "public, max-age=60",
    "private, max-age=60",
    "no-store",
    "s-maxage=60",
    "max-age=1, stale-while-revalidate=60",
    "no-cache",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// The origin names in every body for whom it was made, and what it allowed. Nobody else may get it unless that allows sharing.
    #[test]
    fn no_answer_made_for_one_reaches_another_unless_the_rules_allow_it(steps in proptest::collection::vec(
        (0_u8..3, any::<bool>(), 0_u8..4, 0_u8..3, 0_u8..3, 0_u8..7, 0_u8..3).prop_map(|(user, tenant, with, path, vary, control, wait)| {
            Step { user, tenant, with, path, vary, control, wait }
        }), 1..40)) {
        let mut place = Place::new(OriginPolicy { stale_if_error_seconds: 0, ..OriginPolicy::default() });
        for Step { user, tenant, with, path, vary, control, wait } in steps {
            place.tenant = if tenant { "acme" } else { "other" };
            place.clock.advance_seconds(u64::from(wait));
            let user = format!("user{user}");
            let headers: Vec<(&str, &str)> = match with {
                0 => vec![("Authorization", &user)],
                1 => vec![("Cookie", &user)],
                2 => vec![("X-User", &user)],
                _ => vec![],
            };
            let vary = ["", "X-User", "Cookie"][usize::from(vary)];
            let control = CONTROLS[usize::from(control)];
            // Twice, for a background refresh.
            for _ in 0..2 {
                let body = format!("{}|{user}|{with}|{vary}|{control}", place.tenant);
                place.origin(200, &[("Cache-Control", control), ("Vary", vary)], &body);
            }
            let got = place.send("GET", ["/a", "/b", "/a?x"][usize::from(path)], &headers);
            place.script.answers.borrow_mut().clear();
            let made: Vec<&str> = got.body.split('|').collect();
            let [for_tenant, for_user, for_with, for_vary, allowed] = made[..] else { panic!("{got:?}") };
            prop_assert_eq!(for_tenant, place.tenant);
            let own = for_user == user && for_with == with.to_string();
            if !own {
                prop_assert!(!allowed.contains("private") && !allowed.contains("no-store") && !allowed.contains("no-cache"), "{:?}", got);
                prop_assert!(for_with != "0" || allowed.contains("public") || allowed.contains("s-maxage"), "{:?}", got);
                prop_assert!(for_vary != "Cookie", "{:?}", got);
                let sees_user = with == 2 || for_with == "2";
                prop_assert!(for_vary != "X-User" || !sees_user, "{:?}", got);
            }
        }
    }
}
