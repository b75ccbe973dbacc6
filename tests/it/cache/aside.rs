//! The cache that callers fill themselves.

use kv_patterns::kv::codec::Record;
use kv_patterns::kv::{Error, MemoryStore, Meter, Metered};
use kv_patterns::patterns::cache::{
    Cache, Freshness, Json, Life, Lookup, Memory, Object, Scope, Severity, Tier, Tiers, Value,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

use super::{Name, World, bucket, name, usable, world, world_of};
use crate::support::{block_on, store, tenant};

impl World {
    fn set(&self, key: &str, value: &str, seconds: u64) {
        self.put(key, value, Life::seconds(seconds), &[]);
    }

    fn put(&self, key: &str, value: &str, life: Life, tags: &[&str]) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        block_on(self.cache.set(key, Some(name(value)), life, tags, self.now())).unwrap();
    }

    fn purge(&self, scope: Scope<'_>) {
        block_on(self.cache.invalidate(scope, Severity::Hard, self.now())).unwrap();
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

#[test]
fn every_call_costs_what_its_head_says() {
    let world = world();
    assert_eq!(world.cost(|| drop(world.get("none"))), "r=1 w=0 d=0", "an absent key");
    assert_eq!(world.cost(|| world.put("a/b", "x", Life::seconds(300), &["t", "u"])), "r=0 w=1 d=0");
    // Memory has the entry; its marks are those of the bucket, of `a`, of both tags.
    assert_eq!(world.cost(|| drop(world.get("a/b"))), "r=4 w=0 d=0", "the marks, once");
    assert_eq!(world.cost(|| drop(world.get("a/b"))), "r=0 w=0 d=0", "a warm hit");
    let other = world.other_isolate();
    let read = || drop(block_on(other.get("a/b", world.now())).unwrap());
    assert_eq!(world.cost(read), "r=5 w=0 d=0", "from KV, with the marks");
    world.clock.advance_seconds(30);
    world.put("flat", "x", Life::seconds(300), &[]);
    assert_eq!(world.cost(|| drop(world.get("flat"))), "r=1 w=0 d=0", "one mark for a flat key");
    assert_eq!(
        world.cost(|| drop(world.get("a/b"))),
        "r=4 w=0 d=0",
        "after 30 s: the entry, and the three other marks"
    );
    assert_eq!(world.cost(|| block_on(world.cache.delete("a/b", world.now())).unwrap()), "r=0 w=0 d=1");
    for scope in [Scope::Tag("t"), Scope::Prefix("a/"), Scope::All] {
        assert_eq!(world.cost(|| world.purge(scope)), "r=0 w=1 d=0");
    }
    assert_eq!(world.cost(|| world.purge(Scope::Prefix("a"))), "r=0 w=1 d=1", "and the key of that name");
    let absent: Vec<String> = (0..150).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = absent.iter().map(String::as_str).collect();
    let many = || drop(block_on(world.cache.get_many(&keys, world.now())));
    assert_eq!(world.cost(many), "r=150 w=0 d=0", "absent texts are not read again one by one");
}

#[test]
fn freshness_is_exact_and_age_is_carried_through_the_tiers() {
    let world = world();
    let life = Life { ttl_seconds: 100, stale_while_revalidate_seconds: 20, stale_if_error_seconds: 50 };
    world.put("x", "v", life, &[]);
    let expected = [
        (0, Freshness::Fresh),
        (99_999, Freshness::Fresh),
        (100_000, Freshness::Stale),
        (119_999, Freshness::Stale),
        (120_000, Freshness::IfError),
        (149_999, Freshness::IfError),
    ];
    let mut passed = 0;
    for (millis, freshness) in expected {
        world.clock.advance_millis(millis - passed);
        passed = millis;
        // Twice here, so that the second comes from memory, and once in an isolate that has nothing.
        for _ in 0..2 {
            assert_eq!(world.get("x"), Some((name("v"), freshness)), "after {millis} ms");
        }
        let lookup = block_on(world.other_isolate().get("x", world.now())).unwrap();
        let found = lookup.found().unwrap();
        assert_eq!((found.freshness(world.now()), found.tier), (freshness, Tier::Kv));
        assert_eq!(found.entry.head.age_millis(world.now()), millis);
    }
    world.clock.advance_millis(1);
    assert!(!world.has("x"));
}

#[test]
fn one_second_is_a_time_to_live() {
    let world = world();
    world.set("x", "v", 1);
    world.clock.advance_millis(999);
    assert!(world.has("x"));
    world.clock.advance_millis(1);
    assert!(!world.has("x"));
}

#[test]
fn nothing_and_empty_things_are_values() {
    let world = world();
    block_on(world.cache.set("null", Some(Json(Name(None))), Life::seconds(9), Vec::new(), world.now())).unwrap();
    assert_eq!(world.get("null"), Some((Json(Name(None)), Freshness::Fresh)));
    world.set("empty", "", 9);
    assert_eq!(world.get("empty"), Some((name(""), Freshness::Fresh)));
    block_on(world.cache.set("nothing", None, Life::seconds(9), Vec::new(), world.now())).unwrap();
    for cache in [&world.cache, &world.other_isolate()] {
        let found = block_on(cache.get("nothing", world.now())).unwrap().found().unwrap();
        assert_eq!((found.freshness(world.now()), found.entry.value.clone()), (Freshness::Fresh, None));
    }
}

#[test]
fn bytes_of_any_kind_come_back_from_kv() {
    let (_, memory) = store();
    let isolate = || Cache::new(Tiers::new(memory.clone(), Memory::<Object>::new(1 << 20), 30), bucket());
    let now = crate::support::START;
    for bytes in [Vec::new(), (0..=255).collect::<Vec<u8>>(), b"\n\n\n".to_vec()] {
        let object = Object { content_type: "x/y".to_owned(), etag: "\"e\"".to_owned(), bytes: Rc::new(bytes) };
        block_on(isolate().set("k", Some(object.clone()), Life::seconds(9), Vec::new(), now)).unwrap();
        let read = isolate();
        let found = block_on(read.get("k", now)).unwrap().found().unwrap();
        assert_eq!(found.entry.value, Some(object.clone()));
        let many = block_on(isolate().get_many(&["k", "absent"], now));
        assert!(matches!(&many[..], [Lookup::Found(found), Lookup::Absent] if found.entry.value == Some(object)));
    }
}

#[test]
fn a_write_a_deletion_and_a_purge_are_seen_at_once_also_within_one_millisecond() {
    let world = world();
    for round in 0..3 {
        world.put("a/x", &format!("v{round}"), Life::seconds(300), &["t"]);
        assert_eq!(world.get("a/x").unwrap().0, name(&format!("v{round}")));
        world.put("a/x", "again", Life::seconds(300), &["t"]);
        assert_eq!(world.get("a/x").unwrap().0, name("again"));
        block_on(world.cache.delete("a/x", world.now())).unwrap();
        assert!(!world.has("a/x"));
        for scope in [Scope::Tag("t"), Scope::Prefix("a"), Scope::Prefix("a/"), Scope::All] {
            world.put("a/x", "back", Life::seconds(300), &["t"]);
            assert!(world.has("a/x"), "put after a purge, in the same millisecond");
            world.purge(scope);
            assert!(!world.has("a/x"), "{scope:?}");
        }
    }
}

#[test]
fn a_purge_covers_what_it_names_and_nothing_else() {
    let world = world();
    let put_all = || {
        for (key, tags) in [("a/1", vec!["red"]), ("a/2", vec!["red", "blue"]), ("ab/1", vec![]), ("b", vec!["blue"])] {
            world.put(key, "v", Life::seconds(300), &tags);
        }
    };
    let left = || ["a/1", "a/2", "ab/1", "b"].into_iter().filter(|key| world.has(key)).collect::<Vec<_>>();
    for (scope, expected) in [
        (Scope::Tag("red"), vec!["ab/1", "b"]),
        (Scope::Tag("blue"), vec!["a/1", "ab/1"]),
        (Scope::Prefix("a"), vec!["ab/1", "b"]),
        (Scope::Prefix("b"), vec!["a/1", "a/2", "ab/1"]),
        (Scope::Prefix("b/"), vec!["a/1", "a/2", "ab/1", "b"]),
        (Scope::Prefix("a/1"), vec!["a/2", "ab/1", "b"]),
        (Scope::All, vec![]),
    ] {
        put_all();
        world.purge(scope);
        assert_eq!(left(), expected, "{scope:?}");
    }
    let foreign = Cache::new(
        super::tiers(&world.under),
        kv_patterns::patterns::cache::Bucket::new(
            &tenant("other"),
            kv_patterns::patterns::cache::Resources::CACHE,
            "shop",
        ),
    );
    put_all();
    assert!(matches!(block_on(foreign.get("b", world.now())), Ok(Lookup::Absent)));
    block_on(foreign.invalidate(Scope::All, Severity::Hard, world.now())).unwrap();
    assert_eq!(left().len(), 4, "another tenant's purge is its own");
}

#[test]
fn another_isolate_sees_a_purge_when_its_memory_lapses() {
    let world = world();
    world.set("x", "v", 300);
    let other = world.other_isolate();
    let sees = || usable(block_on(other.get("x", world.now())).unwrap(), world.now()).is_some();
    assert!(sees());
    world.clock.advance_seconds(1);
    world.purge(Scope::All);
    world.clock.advance_millis(28_999);
    assert!(sees(), "within its 30 seconds");
    world.clock.advance_millis(1);
    assert!(!sees(), "and not after");
}

#[test]
fn a_soft_purge_makes_stale_and_cannot_undo_a_hard_one() {
    let world = world_of(bucket().with_soft_marks());
    let life = Life { ttl_seconds: 300, stale_while_revalidate_seconds: 10, stale_if_error_seconds: 20 };
    let soft = || block_on(world.cache.invalidate(Scope::Tag("t"), Severity::Soft, world.now())).unwrap();
    world.put("x", "v", life, &["t"]);
    world.clock.advance_seconds(5);
    soft();
    assert_eq!(world.get("x"), Some((name("v"), Freshness::Stale)));
    world.clock.advance_seconds(10);
    assert_eq!(world.get("x"), Some((name("v"), Freshness::IfError)));
    world.clock.advance_seconds(10);
    assert!(!world.has("x"));
    world.put("x", "v", life, &["t"]);
    world.purge(Scope::Tag("t"));
    soft();
    assert!(!world.has("x"));
}

#[test]
fn a_soft_purge_of_a_prefix_makes_the_key_of_that_name_stale_too() {
    for (bucket, expected) in [(bucket().with_soft_marks(), Some((name("v"), Freshness::Stale))), (bucket(), None)] {
        let world = world_of(bucket);
        let life = Life { ttl_seconds: 300, stale_while_revalidate_seconds: 10, stale_if_error_seconds: 0 };
        for key in ["a", "a/b"] {
            world.put(key, "v", life, &[]);
        }
        world.clock.advance_seconds(1);
        block_on(world.cache.invalidate(Scope::Prefix("a"), Severity::Soft, world.now())).unwrap();
        assert_eq!((world.get("a"), world.get("a/b")), (expected.clone(), expected));
    }
}

#[test]
fn an_expired_key_is_stale_everywhere_and_keeps_its_age() {
    let world = world();
    let life = Life { ttl_seconds: 300, stale_while_revalidate_seconds: 10, stale_if_error_seconds: 0 };
    world.put("x", "v", life, &[]);
    world.clock.advance_seconds(100);
    block_on(world.cache.expire("x", world.now())).unwrap();
    block_on(world.cache.expire("absent", world.now())).unwrap();
    for cache in [&world.cache, &world.other_isolate()] {
        let found = block_on(cache.get("x", world.now())).unwrap().found().unwrap();
        assert_eq!(found.freshness(world.now()), Freshness::Stale);
        assert_eq!(found.entry.head.age_millis(world.now()), 100_000);
    }
    world.clock.advance_seconds(10);
    assert!(!world.has("x"));
}

#[test]
fn while_kv_fails_memory_is_used_until_the_entrys_own_end() {
    let world = world();
    world.set("x", "v", 300);
    assert!(world.has("x"));
    world.under.reads_fail.set(true);
    world.clock.advance_seconds(299);
    assert!(world.has("x"), "long after memory would ask KV again");
    world.clock.advance_seconds(1);
    assert!(!world.has("x"), "and never past its end");
    assert!(matches!(block_on(world.cache.get("unknown", world.now())), Err(Error::Unavailable(_))));
}

#[test]
fn an_entry_whose_marks_cannot_be_read_is_not_served() {
    let world = world();
    world.set("x", "v", 300);
    let mark = world.memory.names();
    assert_eq!(mark.len(), 1);
    world.memory.plant("acme/cache-mark/shop/hard/all", b"cache-mark.2\n{}");
    assert!(matches!(block_on(world.cache.get("x", world.now())), Err(Error::Corrupt(_))));
}

#[test]
fn a_failed_write_fails_the_call() {
    let world = world();
    world.under.writes_fail.set(true);
    let now = world.now();
    assert!(block_on(world.cache.set("x", Some(name("v")), Life::seconds(9), Vec::new(), now)).is_err());
    assert!(block_on(world.cache.delete("x", now)).is_err());
    assert!(block_on(world.cache.invalidate(Scope::All, Severity::Hard, now)).is_err());
}

#[test]
fn a_location_that_still_serves_the_old_copy_cannot_undo_a_write_or_a_deletion() {
    let world = world();
    world.set("x", "old", 300);
    let stored = world.memory.names().into_iter().find(|name| name.contains("/cache/")).unwrap();
    let old = world.memory.raw(&stored).unwrap();
    world.clock.advance_seconds(1);
    block_on(world.cache.delete("x", world.now())).unwrap();
    *world.under.frozen.borrow_mut() = Some(old);
    assert!(!world.has("x"), "the copy is older than the deletion");
    world.set("x", "new", 300);
    assert_eq!(world.get("x").unwrap().0, name("new"));
}

#[test]
fn unreadable_records_are_absent_and_kept() {
    let world = world();
    world.set("x", "v", 300);
    let stored = world.memory.names().pop().unwrap();
    let cases: [&[u8]; 4] = [b"", b"cache.9\n{}\n", b"session.1\n{}", b"cache.1\n{\"value\":\"name.1\"}\nx"];
    for bytes in cases {
        world.memory.plant(&stored, bytes);
        let lookup = block_on(world.other_isolate().get("x", world.now())).unwrap();
        assert!(matches!(lookup, Lookup::Unreadable(_)), "{lookup:?}");
        assert_eq!(world.memory.raw(&stored), Some(bytes.to_vec()));
    }
}

/// What `Name` looked like before: version 1 was a bare number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    cents: u64,
}

impl Record for Price {
    const KIND: &'static str = "price";
    const VERSION: u32 = 1;
}

#[derive(Clone, Debug, PartialEq)]
struct Money {
    cents: u64,
    currency: String,
}

impl Value for Money {
    const KIND: &'static str = "price";
    const VERSION: u32 = 2;
    const IS_TEXT: bool = true;

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        bytes.extend_from_slice(format!("{} {}", self.cents, self.currency).as_bytes());
        Ok(())
    }

    fn read(version: u32, bytes: &[u8]) -> Option<Self> {
        if version == 1 {
            let old: Price = serde_json::from_slice(bytes).ok()?;
            return Some(Self { cents: old.cents, currency: "EUR".to_owned() });
        }
        let (cents, currency) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        // Validation: only currencies of three letters are believed.
        (currency.len() == 3).then_some(Self { cents: cents.parse().ok()?, currency: currency.to_owned() })
    }
}

#[test]
fn an_older_format_is_migrated_and_what_is_not_valid_is_refused() {
    let (_, memory) = store();
    let now = crate::support::START;
    let old = Cache::new(Tiers::new(memory.clone(), Memory::<Json<Price>>::new(1 << 20), 30), bucket());
    let new = || Cache::new(Tiers::new(memory.clone(), Memory::<Money>::new(1 << 20), 30), bucket());
    block_on(old.set("p", Some(Json(Price { cents: 5 })), Life::seconds(60), Vec::new(), now)).unwrap();
    let found = block_on(new().get("p", now)).unwrap().found().unwrap();
    assert_eq!(found.entry.value, Some(Money { cents: 5, currency: "EUR".to_owned() }));
    let invalid = Money { cents: 5, currency: "?".to_owned() };
    block_on(new().set("p", Some(invalid), Life::seconds(60), Vec::new(), now)).unwrap();
    assert!(matches!(block_on(new().get("p", now)).unwrap(), Lookup::Unreadable(_)));
}

#[test]
fn many_texts_take_two_bulk_reads() {
    let world = world();
    for number in 0..5 {
        world.put(&format!("k{number}"), &number.to_string(), Life::seconds(300), &["t"]);
    }
    let other = world.other_isolate();
    let keys = ["k3", "absent", "k0", "k3"];
    let values = |lookups: Vec<Lookup<Json<Name>>>| -> Vec<Option<Json<Name>>> {
        lookups.into_iter().map(|lookup| usable(lookup, world.now()).map(|(value, _)| value)).collect()
    };
    let mut found = Vec::new();
    let cost = world.cost(|| found = values(block_on(other.get_many(&keys, world.now()))));
    assert_eq!(found, [Some(name("3")), None, Some(name("0")), Some(name("3"))]);
    assert_eq!(cost, "r=5 w=0 d=0", "three different keys, then the marks of bucket and tag");
}

proptest! {
    /// What the cache should answer, without any cache: the last thing done to each key, by name.
    #[test]
    fn one_isolate_is_always_consistent_with_itself(
        acts in proptest::collection::vec((0_u8..8, 0_usize..4, 0_u64..40), 1..60),
    ) {
        const KEYS: [(&str, &[&str]); 4] = [("a/1", &["red"]), ("a/2", &["red", "blue"]), ("ab", &[]), ("b", &["blue"])];
        let world = world();
        let mut model: [Option<(u64, u64)>; 4] = [None; 4];
        for (number, (act, at, seconds)) in (0_u64..).zip(acts) {
            let now = world.now().millis();
            let (key, tags) = KEYS[at];
            let mut drop_where = |covered: &dyn Fn(usize) -> bool| {
                for (at, slot) in model.iter_mut().enumerate() {
                    if covered(at) {
                        *slot = None;
                    }
                }
            };
            match act {
                0..=2 => {
                    world.put(key, &number.to_string(), Life::seconds(seconds + 1), tags);
                    model[at] = Some((number, now + (seconds + 1) * 1000));
                }
                3 => {
                    block_on(world.cache.delete(key, world.now())).unwrap();
                    model[at] = None;
                }
                4 => {
                    world.purge(Scope::Tag("red"));
                    drop_where(&|at| KEYS[at].1.contains(&"red"));
                }
                5 => {
                    world.purge(Scope::Prefix("a"));
                    drop_where(&|at| KEYS[at].0.starts_with("a/"));
                }
                6 => world.clock.advance_seconds(seconds),
                _ => {}
            }
            let now = world.now().millis();
            for (slot, (key, _)) in model.iter().zip(KEYS) {
                let expected = slot.filter(|(_, until)| now < *until).map(|(number, _)| name(&number.to_string()));
                prop_assert_eq!(world.get(key).map(|(value, _)| value), expected, "{}", key);
            }
        }
    }
}

#[test]
fn two_versions_of_a_bucket_do_not_meet() {
    let (clock, memory) = store();
    let meter = Meter::default();
    let metered = || Metered::new(MemoryStore::clone(&memory), meter.clone());
    let resources = kv_patterns::patterns::cache::Resources::CACHE;
    let of = |version| {
        let bucket = bucket().version(&tenant("acme"), resources, version);
        Cache::new(Tiers::new(metered(), Memory::<Json<Name>>::new(1 << 20), 30), bucket)
    };
    let now = kv_patterns::clock::Clock::now(&clock);
    block_on(of(1).set("x", Some(name("old")), Life::seconds(60), Vec::new(), now)).unwrap();
    assert!(matches!(block_on(of(2).get("x", now)), Ok(Lookup::Absent)));
    assert!(matches!(block_on(of(1).get("x", now)), Ok(Lookup::Found(_))));
}
