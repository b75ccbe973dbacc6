//! Goal: listing and deletion see exactly what they should, in bounded steps. Method: trees in the memory store, walked
//! with every page size and compared with a plain computation.

use std::collections::BTreeSet;

use kv_patterns::clock::ManualClock;
use kv_patterns::kv::{MemoryStore, Meter, Metered, Store, Write};
use kv_patterns::patterns::hierarchy::{DELETES_MAX, Error, HIDDEN, Hierarchy, LISTS_MAX, Listing, Query};
use serde_json::{Value, json};

use crate::support::{block_on, store, tenant};

struct World {
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    hierarchy: Hierarchy<Metered<MemoryStore<ManualClock>>>,
}

fn world() -> World {
    let (_, memory) = store();
    let meter = Meter::default();
    let hierarchy = Hierarchy::new(Metered::new(memory.clone(), meter.clone()), tenant("acme"), HIDDEN);
    World { memory, meter, hierarchy }
}

impl World {
    fn put(&self, owner: &str, resource: &'static str, segments: &[&str], metadata: Option<Value>) {
        let write = Write { ttl_seconds: None, metadata: metadata.map(|value| value.to_string()) };
        block_on(self.memory.put(&tenant(owner).space(resource).key(segments), b"", write)).unwrap();
    }

    fn list(&self, query: &Query) -> Result<Listing, Error> {
        block_on(self.hierarchy.list(query))
    }

    /// All pages: keys, and prefixes with a mark.
    fn walk(&self, query: &Query) -> Vec<String> {
        let (mut query, mut all) = (query.clone(), Vec::new());
        for _ in 0..10_000 {
            let page = self.list(&query).unwrap();
            assert!(page.items.len() + page.prefixes.len() <= query.limit as usize);
            all.extend(page.items.into_iter().map(|item| item.key));
            all.extend(page.prefixes.into_iter().map(|prefix| format!("{prefix}*")));
            match page.cursor {
                None => return all,
                cursor => query.cursor = cursor,
            }
        }
        panic!("the pages do not end");
    }
}

fn query(prefix: &str, roll_up: bool, limit: u32) -> Query {
    Query { prefix: prefix.to_owned(), roll_up, limit, ..Query::default() }
}

fn tree() -> World {
    let world = world();
    for segments in [
        &["1", "profile"][..],
        &["1", "settings", "a"],
        &["1", "settings", "b"],
        &["12"],
        &["1"],
        &["a/b", "c"],
        &["é"],
    ] {
        world.put("acme", "user", segments, None);
    }
    world.put("acme", "session", &["secret-hash"], None);
    world.put("acme", "epoch", &["ada"], None);
    world.put("acme", "flag", &["x"], None);
    world.put("acme2", "user", &["1", "other"], None);
    world
}

#[track_caller]
fn check(prefix: &str, roll_up: bool, expected: &[&str]) {
    let world = tree();
    for limit in 1..8 {
        let found: BTreeSet<String> = world.walk(&query(prefix, roll_up, limit)).into_iter().collect();
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(found, expected, "limit {limit}");
        assert_eq!(
            world.walk(&query(prefix, roll_up, limit)).len(),
            expected.len(),
            "limit {limit}: something came twice"
        );
    }
}

#[test]
fn a_prefix_is_whole_segments_and_only_the_tenants_own() {
    check("user/1/", false, &["user/1/profile", "user/1/settings/a", "user/1/settings/b"]);
    check("user/1", false, &["user/1/profile", "user/1/settings/a", "user/1/settings/b"]);
    check("user/1/settings/", false, &["user/1/settings/a", "user/1/settings/b"]);
    check("user/a%2Fb/", false, &["user/a%2Fb/c"]);
    check("nothing/", false, &[]);
}

#[test]
fn deeper_keys_roll_up_into_prefixes() {
    check("", true, &["user/*", "flag/*"]);
    check("user/", true, &["user/1", "user/1/*", "user/12", "user/a%2Fb/*", "user/é"]);
    check("user/1/", true, &["user/1/profile", "user/1/settings/*"]);
}

#[test]
fn secret_resources_are_not_there() {
    check(
        "",
        false,
        &[
            "flag/x",
            "user/1",
            "user/1/profile",
            "user/1/settings/a",
            "user/1/settings/b",
            "user/12",
            "user/a%2Fb/c",
            "user/é",
        ],
    );
    check("session/", false, &[]);
    let world = tree();
    assert_eq!(block_on(world.hierarchy.delete("session/", None)).unwrap().deleted, 0);
    assert!(world.memory.raw("acme/session/secret-hash").is_some());
}

#[test]
fn metadata_filters_and_comes_along() {
    let world = world();
    for n in 0..10 {
        world.put("acme", "document", &[&n.to_string()], Some(json!({"version": n % 3, "n": n})));
    }
    world.put("acme", "document", &["none"], None);
    let mut filtered = query("document/", false, 2);
    filtered.metadata = vec![("version".to_owned(), json!(2))];
    assert_eq!(world.walk(&filtered), ["document/2", "document/5", "document/8"]);
    let page = world.list(&query("document/", false, 1)).unwrap();
    assert_eq!(page.items[0].metadata, json!({"version":0,"n":0}));
}

#[test]
fn a_page_stops_at_its_work_budget_and_goes_on_from_there() {
    let world = world();
    let many = LISTS_MAX as usize * 1000 + 500;
    for n in 0..many {
        world.put("acme", "deep", &["x", &format!("{n:06}")], None);
    }
    world.put("acme", "deep", &["y"], None);
    let first = world.list(&query("deep/", true, 100)).unwrap();
    assert_eq!((first.prefixes.as_slice(), first.scanned), (&["deep/x/".to_owned()][..], LISTS_MAX * 1000));
    assert_eq!(world.meter.lists(), LISTS_MAX);
    let second = world.list(&Query { cursor: first.cursor, ..query("deep/", true, 100) }).unwrap();
    assert_eq!(second.prefixes, Vec::<String>::new(), "the prefix was told before");
    assert_eq!((second.items.len(), second.cursor), (1, None));
}

#[test]
fn a_subtree_is_deleted_in_bounded_steps_and_nothing_beside_it() {
    let world = tree();
    let many = DELETES_MAX * 2 + 7;
    for n in 0..many {
        world.put("acme", "user", &["1", "many", &n.to_string()], None);
    }
    let (mut deleted, mut cursor, mut calls) = (0, None, 0);
    loop {
        let step = block_on(world.hierarchy.delete("user/1/", cursor.as_deref())).unwrap();
        assert!(step.deleted <= DELETES_MAX);
        (deleted, cursor, calls) = (deleted + step.deleted, step.cursor, calls + 1);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((deleted, calls), (many + 3, 3));
    assert_eq!(world.meter.deletes(), deleted);
    let left = world.walk(&query("user/", false, 100));
    assert_eq!(left, ["user/1", "user/12", "user/a%2Fb/c", "user/é"]);
    assert!(world.memory.raw("acme2/user/1/other").is_some());
}

#[test]
fn what_is_not_a_prefix_or_cursor_is_refused() {
    let world = tree();
    for prefix in ["user/%zz/", "user/%", &"x/".repeat(400)] {
        assert_eq!(world.list(&query(prefix, false, 10)), Err(Error::PrefixInvalid), "{prefix}");
        assert_eq!(block_on(world.hierarchy.delete(prefix, None)), Err(Error::PrefixInvalid));
    }
    for cursor in ["", "{}", "x", "{\"after\":1}", "{\"after\":\"\",\"more\":1}"] {
        let query = Query { cursor: Some(cursor.to_owned()), ..query("user/", false, 10) };
        assert_eq!(world.list(&query), Err(Error::CursorInvalid), "{cursor}");
    }
}

#[test]
fn another_tenants_keys_cannot_be_named() {
    let world = tree();
    for prefix in ["../acme2/", "acme2/", "/acme2/", "%2E%2E/acme2/"] {
        assert!(world.walk(&query(prefix, false, 10)).is_empty(), "{prefix}");
    }
}
