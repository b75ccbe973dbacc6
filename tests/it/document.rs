//! Goal: documents keep the promises of their module head. Method: schemas and documents on the memory store with a
//! meter; golden records of every version; two locations modelled as reads before writes.
#![allow(clippy::needless_pass_by_value, reason = "a JSON literal is handed over at the place where it stands")]

use kv_patterns::background::Deferred;
use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{Error as KvError, MemoryStore, Meter, Metered};
use kv_patterns::patch::Patch;
use kv_patterns::patterns::document::{
    Chain, Collection, Collections, Documents, Error, First, Migrate, Next, Served, Sweep, SweepError, SweepReport,
    Typed, WRITE_BACK_SECONDS,
};
use kv_patterns::random::SeededRandom;
use kv_patterns::recent::Recent;
use kv_patterns::stamp::Stamps;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{block_on, store, tenant, without_stamp};

type Tested = Metered<MemoryStore<ManualClock>>;

struct World {
    clock: ManualClock,
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    background: Deferred,
    stamps: Stamps,
    documents: Documents<Tested>,
    collections: Collections<Tested>,
}

fn world() -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let metered = Metered::new(memory.clone(), meter.clone());
    let documents = Documents::new(metered.clone(), &tenant("acme"), "users", Recent::new(8));
    let collections = Collections::new(metered, &tenant("acme"), Recent::new(8));
    let stamps = Stamps::new(&SeededRandom::new(1));
    World { clock, memory, meter, background: Deferred::default(), stamps, documents, collections }
}

impl World {
    fn publish(&self, name: &str, collection: Collection) -> Collection {
        let before = block_on(self.collections.newest(name)).unwrap();
        block_on(self.collections.publish(name, before.as_ref(), collection, self.clock.now())).unwrap()
    }

    fn put(&self, schema: &impl Migrate, id: &str, data: Value) -> Result<Served, Error> {
        self.put_if(schema, id, data, None, &Precondition::default())
    }

    fn put_if(
        &self,
        schema: &impl Migrate,
        id: &str,
        data: Value,
        ttl: Option<u64>,
        condition: &Precondition,
    ) -> Result<Served, Error> {
        block_on(self.documents.put(schema, id, data, ttl, condition, self.clock.now(), &self.stamps))
    }

    fn get(&self, schema: &impl Migrate, id: &str) -> Result<Option<Served>, Error> {
        block_on(self.documents.read(schema, id, self.clock.now(), &self.background))
    }

    fn patch(&self, schema: &impl Migrate, id: &str, patch: Value) -> Result<Served, Error> {
        let (patch, none) = (Patch::Merge(patch), Precondition::default());
        block_on(self.documents.patch(schema, id, &patch, None, &none, self.clock.now(), &self.stamps))
    }

    fn sweep(&self, schema: &impl Migrate, dry_run: bool, cursor: Option<String>) -> SweepReport {
        block_on(self.documents.sweep(schema, &Sweep { dry_run, budget: 3, cursor }, self.clock.now())).unwrap()
    }

    fn behind(&self) {
        block_on(self.background.run());
    }
}

fn schema(version: u32) -> Collection {
    let all = json!([
        {"from":1,"to":2,"steps":[
            {"rename":{"from":"mail","to":"email"}},
            {"add":{"field":"active","default":true}},
            {"convert":{"field":"age","to":"number"}},
        ]},
        {"from":2,"to":3,"steps":[
            {"wrap":{"field":"street","into":"address"}},
            {"move":{"from":"/city","to":"/address/city"}},
            {"remove":{"field":"legacy"}},
        ]},
    ]);
    let migrations: Vec<Value> = all.as_array().unwrap().iter().take(version as usize - 1).cloned().collect();
    Collection::new(version, Value::Array(migrations)).unwrap()
}

fn ada() -> Value {
    json!({"mail":"a@x","age":"36","street":"S","city":"L","legacy":1})
}

fn ada_now() -> Value {
    json!({"email":"a@x","age":36,"active":true,"address":{"street":"S","city":"L"}})
}

#[test]
fn a_read_answers_in_the_newest_version() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    let served = world.get(&schema(3), "ada").unwrap().unwrap();
    assert_eq!((served.data, served.version, served.migrated_from, served.read_only), (ada_now(), 3, Some(1), false));
    assert_eq!(world.get(&schema(3), "absent"), Ok(None));
}

/// Records as each version of a collection was stored; they must stay readable.
#[test]
fn golden_records_of_every_version_are_read() {
    for (record, from) in [
        (
            r#"{"version":1,"stamp":"019b76daec00-0000-000000000001","data":{"mail":"a@x","age":"36","street":"S","city":"L","legacy":1}}"#,
            Some(1),
        ),
        (
            r#"{"version":2,"stamp":"019b76daec00-0000-000000000001","expiresAt":9999999999999,"data":{"email":"a@x","age":36,"active":true,"street":"S","city":"L","legacy":1}}"#,
            Some(2),
        ),
        (
            r#"{"version":3,"stamp":"019b76daec00-0000-000000000001","data":{"email":"a@x","age":36,"active":true,"address":{"street":"S","city":"L"}}}"#,
            None,
        ),
    ] {
        let world = world();
        world.memory.plant("acme/document/users/ada/own", format!("document.1\n{record}").as_bytes());
        let served = world.get(&schema(3), "ada").unwrap().unwrap();
        assert_eq!((served.data, served.migrated_from), (ada_now(), from));
    }
}

#[test]
fn the_stored_bytes_and_metadata_are_golden() {
    let world = world();
    world.put_if(&schema(1), "ada", json!({"a":1}), Some(3600), &Precondition::default()).unwrap();
    let text = without_stamp(&world.memory.raw("acme/document/users/ada/own").unwrap());
    assert_eq!(text, "document.1\n{\"version\":1,\"stamp\":\"\",\"expiresAt\":1767229200000,\"data\":{\"a\":1}}");
}

#[test]
fn a_migrated_document_is_written_back_behind_the_answer_and_once() {
    let world = world();
    world.put_if(&schema(1), "ada", ada(), Some(3600), &Precondition::default()).unwrap();
    let original = world.memory.raw("acme/document/users/ada/own");
    world.get(&schema(3), "ada").unwrap();
    world.get(&schema(3), "ada").unwrap();
    assert_eq!(world.background.len(), 1, "at most one a minute");
    world.behind();
    let reads = world.meter.reads();
    let served = world.get(&schema(3), "ada").unwrap().unwrap();
    assert_eq!((served.data, served.migrated_from), (ada_now(), None), "it is known to be stored");
    world.clock.advance_seconds(WRITE_BACK_SECONDS);
    world.get(&schema(3), "ada").unwrap();
    assert!(world.background.is_empty(), "which is not asked again");
    assert_eq!(world.meter.reads(), reads + 2);
    assert_eq!(world.memory.raw("acme/document/users/ada/own"), original, "what the user wrote is untouched");
}

#[test]
fn a_copy_that_is_there_is_not_written_again() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    world.sweep(&schema(3), false, None);
    let writes = world.meter.writes();
    assert_eq!(world.get(&schema(3), "ada").unwrap().unwrap().migrated_from, Some(1));
    world.behind();
    assert_eq!(world.get(&schema(3), "ada").unwrap().unwrap().migrated_from, None);
    assert_eq!(world.meter.writes(), writes);
    // A corrected migration has its effect at once, whatever copies there are.
    let corrected = Collection::new(2, json!([{"from":1,"to":2,"steps":[{"remove":{"field":"mail"}}]}])).unwrap();
    let served = world.get(&corrected, "ada").unwrap().unwrap();
    assert_eq!((served.data.get("mail"), served.data.get("email")), (None, None));
}

#[test]
fn a_failed_write_back_is_tried_again_after_a_minute() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    for (seconds, expected) in [(0, 1), (59, 0), (1, 1)] {
        world.clock.advance_seconds(seconds);
        let background = Deferred::default();
        block_on(world.documents.read(&schema(3), "ada", world.clock.now(), &background)).unwrap();
        assert_eq!(background.len(), expected, "{seconds}");
    }
}

#[test]
fn the_time_to_live_survives_migration_and_patch() {
    let world = world();
    let start = world.clock.now();
    world.put_if(&schema(1), "ada", ada(), Some(3600), &Precondition::default()).unwrap();
    world.clock.advance_seconds(600);
    let served = world.get(&schema(3), "ada").unwrap().unwrap();
    assert_eq!((served.expires_at, served.updated_at), (Some(start.plus_seconds(3600)), start));
    world.behind();
    world.patch(&schema(3), "ada", json!({"age":37})).unwrap();
    world.clock.advance_seconds(2999);
    assert!(world.get(&schema(3), "ada").unwrap().is_some());
    world.clock.advance_seconds(1);
    assert_eq!(world.get(&schema(3), "ada"), Ok(None));
    world.clock.advance_seconds(120);
    assert!(
        block_on(world.documents.list(&schema(3), 10, None, world.clock.now())).unwrap().items.is_empty(),
        "the copy ended with its original"
    );
}

#[test]
fn a_write_back_that_comes_late_cannot_cover_a_newer_write() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    world.get(&schema(3), "ada").unwrap();
    let newer = json!({"email":"new@x"});
    world.put(&schema(3), "ada", newer.clone()).unwrap();
    world.behind();
    assert_eq!(world.get(&schema(3), "ada").unwrap().unwrap().data, newer);
    let old = json!({"mail":"old-style@x"});
    world.put(&schema(1), "ada", old).unwrap();
    let served = world.get(&schema(3), "ada").unwrap().unwrap();
    assert_eq!(
        (served.data, served.migrated_from),
        (json!({"email":"old-style@x","active":true}), Some(1)),
        "the old copy does not count"
    );
}

#[test]
fn a_write_back_that_comes_late_does_not_bring_back_a_deleted_document() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    world.get(&schema(3), "ada").unwrap();
    block_on(world.documents.delete(&schema(3), "ada", &Precondition::default(), world.clock.now())).unwrap();
    world.behind();
    assert_eq!(world.get(&schema(3), "ada"), Ok(None));
    assert!(block_on(world.documents.list(&schema(3), 10, None, world.clock.now())).unwrap().items.is_empty());
    let report = world.sweep(&schema(3), false, None);
    assert_eq!(report.orphans, 0, "the original may only be listed late");
    world.clock.advance_seconds(3601);
    assert_eq!(world.sweep(&schema(3), true, None).orphans, 1);
    assert_eq!(world.sweep(&schema(3), false, None).orphans, 1);
    assert!(world.memory.names().is_empty());
}

#[test]
fn a_record_newer_than_the_schema_is_served_and_never_changed() {
    let world = world();
    let publish = |version| world.publish("users", schema(version));
    publish(3);
    world.put(&schema(3), "ada", ada_now()).unwrap();
    let back = publish(2);
    assert_eq!((back.version(), back.version_highest()), (2, 3));
    let served = world.get(&back, "ada").unwrap().unwrap();
    assert_eq!((served.data, served.version, served.read_only), (ada_now(), 3, true));
    assert_eq!(world.put(&back, "ada", json!({})), Err(Error::Newer(3)));
    assert_eq!(world.patch(&back, "ada", json!({})), Err(Error::Newer(3)));
    let delete = block_on(world.documents.delete(&back, "ada", &Precondition::default(), world.clock.now()));
    assert_eq!(delete, Err(Error::Newer(3)));
    assert!(world.put(&back, "bob", json!({})).is_ok());
}

#[test]
fn lists_and_sweeps_count_no_copy_of_a_version_that_was_taken_back() {
    let world = world();
    let newest = |schema: &Collection| {
        let listing = block_on(world.documents.list(schema, 10, None, world.clock.now())).unwrap();
        (listing.items[0].version, listing.items[0].migrated_at.is_some())
    };
    world.put(&schema(1), "ada", ada()).unwrap();
    world.publish("users", schema(3));
    world.get(&schema(3), "ada").unwrap();
    world.behind();
    assert_eq!(newest(&schema(3)), (Some(3), true));
    let back = world.publish("users", schema(2));
    let served = world.get(&back, "ada").unwrap().unwrap();
    assert_eq!((served.version, served.migrated_from), (2, Some(1)));
    assert_eq!(newest(&back), (Some(1), false), "as the read says");
    let swept = world.sweep(&back, false, None);
    assert_eq!((swept.versions, swept.migrated), ([(1, 1)].into(), 1));
    assert_eq!(newest(&back), (Some(2), true));
    let swept = world.sweep(&back, false, None);
    assert_eq!((swept.versions, swept.migrated), ([(2, 1)].into(), 0));
}

#[test]
fn a_patch_starts_from_the_migrated_document() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    let served = world.patch(&schema(3), "ada", json!({"address":{"city":"Paris"}})).unwrap();
    assert_eq!(served.data["address"], json!({"street":"S","city":"Paris"}));
    assert_eq!(world.get(&schema(3), "ada").unwrap().unwrap().migrated_from, None);
    assert_eq!(world.patch(&schema(3), "absent", json!({})), Err(Error::Missing));
}

#[test]
fn preconditions_guard_writes() {
    let world = world();
    let served = world.put(&schema(1), "ada", ada()).unwrap();
    let only_new = Precondition { if_match: None, if_none_match: Some("*".to_owned()) };
    assert_eq!(world.put_if(&schema(1), "ada", json!({}), None, &only_new), Err(Error::PreconditionFailed));
    assert!(world.put_if(&schema(1), "bob", json!({}), None, &only_new).is_ok());
    let same = Precondition { if_match: Some(served.etag), if_none_match: None };
    assert!(world.put_if(&schema(1), "ada", json!({"mail":"b@x"}), None, &same).is_ok());
    assert_eq!(world.put_if(&schema(1), "ada", json!({}), None, &same), Err(Error::PreconditionFailed));
    assert_eq!(world.put_if(&schema(1), "carol", json!({}), None, &same), Err(Error::PreconditionFailed));
}

#[test]
fn a_document_that_a_migration_cannot_handle_says_why_and_stays() {
    let world = world();
    for (data, why) in [
        (json!({"age":"old"}), "age cannot be converted"),
        (json!({"mail":"a","email":"b"}), "email is already there"),
        (json!([1]), "the document is not an object"),
    ] {
        world.put(&schema(1), "ada", data.clone()).unwrap();
        let failed = world.get(&schema(3), "ada");
        assert!(matches!(&failed, Err(Error::Migration(error)) if error.why == why && error.from == 1), "{failed:?}");
        assert_eq!(world.get(&schema(1), "ada").unwrap().unwrap().data, data);
    }
}

#[test]
fn an_unreadable_original_is_an_error_and_an_unreadable_copy_is_not() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    world.memory.plant("acme/document/users/ada/migrated", b"junk");
    assert_eq!(world.get(&schema(3), "ada").unwrap().unwrap().data, ada_now());
    world.behind();
    assert_ne!(world.memory.raw("acme/document/users/ada/migrated").unwrap(), b"junk", "it was replaced");
    world.memory.plant("acme/document/users/ada/own", b"junk");
    assert!(matches!(world.get(&schema(3), "ada"), Err(Error::Kv(KvError::Corrupt(_)))));
}

#[test]
fn lists_know_version_and_times_without_reading_values() {
    let world = world();
    let start = world.clock.now();
    let long = "x".repeat(200);
    for id in ["a", "a!", "a/b", &long] {
        world.put(&schema(1), id, ada()).unwrap();
    }
    world.clock.advance_seconds(10);
    world.get(&schema(3), "a").unwrap();
    world.behind();
    let before = world.meter.reads();
    for limit in 1..6 {
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let page = block_on(world.documents.list(&schema(3), limit, cursor.as_deref(), world.clock.now())).unwrap();
            assert!(page.items.len() <= limit as usize, "limit {limit}");
            items.extend(page.items);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let mut ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a", "a!", "a/b", &long], "limit {limit}");
        let a = items.iter().find(|item| item.id == "a").unwrap();
        assert_eq!(
            (a.version, a.updated_at, a.migrated_at),
            (Some(3), Some(start), Some(start.plus_seconds(10))),
            "limit {limit}"
        );
        let other = items.iter().find(|item| item.id == "a!").unwrap();
        assert_eq!((other.version, other.migrated_at), (Some(1), None));
    }
    assert_eq!(world.meter.reads(), before);
}

#[test]
fn a_sweep_migrates_in_steps_counts_and_tells_errors() {
    let world = world();
    for id in ["a", "b", "c", "d", "e"] {
        world.put(&schema(1), id, ada()).unwrap();
    }
    world.put(&schema(1), "bad", json!({"age":"old"})).unwrap();
    world.put(&schema(2), "two", json!({"street":"S"})).unwrap();
    world.put(&schema(3), "three", json!({})).unwrap();
    let run = |dry_run| {
        let (mut total, mut cursor, mut steps) = (SweepReport::default(), None, 0);
        loop {
            let report = world.sweep(&schema(3), dry_run, cursor);
            for (version, count) in report.versions {
                *total.versions.entry(version).or_default() += count;
            }
            total.scanned += report.scanned;
            total.migrated += report.migrated;
            total.failed += report.failed;
            total.errors.extend(report.errors);
            (cursor, steps) = (report.cursor, steps + 1);
            if cursor.is_none() {
                return (total, steps);
            }
        }
    };
    let names = world.memory.names();
    let (dry, steps) = run(true);
    assert!(steps > 1);
    assert_eq!(world.memory.names(), names, "a dry run writes nothing");
    assert_eq!((dry.scanned, dry.migrated, dry.failed), (8, 6, 1));
    assert_eq!(dry.versions, [(1, 6), (2, 1), (3, 1)].into());
    let reason = "the migration from version 1 failed: age cannot be converted".to_owned();
    assert_eq!(dry.errors, [SweepError { id: "bad".to_owned(), reason }]);
    let (real, _) = run(false);
    assert_eq!((real.migrated, real.failed), (6, 1));
    let (again, _) = run(false);
    assert_eq!((again.migrated, again.failed), (0, 1));
    assert_eq!(again.versions, [(1, 1), (3, 7)].into());
}

#[test]
fn a_page_has_no_more_items_than_were_asked_for() {
    let world = world();
    for id in ["a", "b", "c"] {
        world.put(&schema(1), id, ada()).unwrap();
    }
    world.sweep(&schema(3), false, None);
    world.put(&schema(3), "d", ada_now()).unwrap();
    for limit in [1, 2, 3, 8] {
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let page = block_on(world.documents.list(&schema(3), limit, cursor.as_deref(), world.clock.now())).unwrap();
            assert!(page.items.len() <= limit as usize, "{limit}");
            ids.extend(page.items.into_iter().map(|item| (item.id, item.version.unwrap())));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected = ["a", "b", "c", "d"].map(|id| (id.to_owned(), 3));
        assert_eq!(ids, expected, "{limit}");
    }
    let order = |budget| Sweep { dry_run: true, budget, cursor: None };
    assert_eq!(block_on(world.documents.sweep(&schema(3), &order(1), world.clock.now())).unwrap().scanned, 0, "a copy");
    assert!(block_on(world.documents.sweep(&schema(3), &order(4), world.clock.now())).unwrap().scanned <= 4);
}

#[test]
fn a_timer_sweeps_all_collections_in_steps_and_one_that_fails_stops_no_other() {
    let world = world();
    let metered = Metered::new(world.memory.clone(), world.meter.clone());
    let long = "l".repeat(200);
    for (name, version) in [("a", 2), ("b", 1), ("broken", 2), ("c", 3), (long.as_str(), 3)] {
        world.publish(name, schema(version));
        let documents = Documents::new(metered.clone(), &tenant("acme"), name, Recent::new(8));
        for n in 0..3 {
            let (id, none) = (n.to_string(), Precondition::default());
            block_on(documents.put(&schema(1), &id, ada(), None, &none, world.clock.now(), &world.stamps)).unwrap();
        }
    }
    world.memory.plant("acme/collection/broken", b"junk");
    // The remembered schemas end.
    world.clock.advance_seconds(31);
    let step = |budget| block_on(world.collections.sweep_all(budget, world.clock.now())).unwrap();
    let (mut migrated, mut failed) = (0, 0);
    for _ in 0..20 {
        let swept = step(2);
        assert!(swept.scanned <= 2);
        (migrated, failed) = (migrated + swept.migrated, failed + swept.collections_failed);
    }
    assert_eq!(migrated, 9, "a, c and the long one, each document once");
    assert!(failed > 0);
    let whole = step(250);
    assert_eq!((whole.migrated, whole.failed), (0, 0));
}

#[track_caller]
fn check_schema(version: u32, migrations: Value, field: &str) {
    let text = migrations.to_string();
    let error = Collection::new(version, migrations).expect_err(&text);
    assert_eq!(error.field, field, "{text}: {error}");
}

fn steps(steps: Value) -> Value {
    json!([{"from":1,"to":2,"steps":steps}])
}

#[test]
fn schemas_with_gaps_cycles_and_contradictions_are_refused_with_their_place() {
    check_schema(0, json!([]), "version");
    check_schema(101, json!([]), "version");
    check_schema(2, json!({}), "migrations");
    check_schema(2, json!([]), "migrations");
    check_schema(3, json!([{"from":1,"to":2,"steps":[]}]), "migrations");
    check_schema(1, steps(json!([])), "migrations/0");
    for (from, to) in [(1, 3), (2, 1), (1, 1), (0, 1), (4_294_967_295_u64, 0), (5, 6)] {
        check_schema(2, json!([{"from":from,"to":to,"steps":[]}]), "migrations/0");
    }
    check_schema(2, json!([{"from":1,"to":2,"steps":[]},{"from":1,"to":2,"steps":[]}]), "migrations/1");
    check_schema(2, steps(json!(vec![json!({"remove":{"field":"a"}}); 51])), "migrations/0/steps");
    for step in [
        json!({"explode":{"field":"a"}}),
        json!({}),
        json!({"remove":{"field":"a"},"add":{"field":"b","default":1}}),
        json!({"rename":{"from":"a","to":"a"}}),
        json!({"remove":{"field":""}}),
        json!({"rename":{"from":"a","to":"__proto__"}}),
        json!({"add":{"field":"a","default":{"constructor":1}}}),
        json!({"move":{"from":"a","to":"/b"}}),
        json!({"move":{"from":"","to":"/b"}}),
        json!({"move":{"from":"/a","to":"/a/b"}}),
        json!({"move":{"from":"/a","to":"/a"}}),
        json!({"move":{"from":"/a/b","to":"/a"}}),
        json!({"move":{"from":"/a/b/c","to":"/a"}}),
        json!({"move":{"from":"/a","to":"/__proto__/b"}}),
        json!({"move":{"from":"/~2","to":"/b"}}),
        json!({"move":{"from":"/a".repeat(17),"to":"/b"}}),
        json!("remove"),
        json!(null),
    ] {
        check_schema(2, steps(json!([step])), "migrations/0/steps/0");
    }
    for contradiction in [
        json!([{"rename":{"from":"a","to":"b"}},{"rename":{"from":"b","to":"a"}}]),
        json!([{"rename":{"from":"a","to":"c"}},{"rename":{"from":"b","to":"c"}}]),
        json!([{"remove":{"field":"a"}},{"convert":{"field":"a","to":"string"}}]),
        json!([{"remove":{"field":"a"}},{"rename":{"from":"a","to":"b"}}]),
        json!([{"move":{"from":"/a","to":"/b/c"}},{"move":{"from":"/b/c","to":"/a"}}]),
        json!([{"add":{"field":"a","default":1}},{"add":{"field":"a","default":2}}]),
    ] {
        check_schema(2, steps(contradiction), "migrations/0/steps/1");
    }
    let beside = json!([{"move":{"from":"/a/b","to":"/ab"}},{"move":{"from":"/ab2","to":"/a/c"}}]);
    assert!(Collection::new(2, steps(beside)).is_ok(), "one name may begin as the other");
    let again = json!([{"remove":{"field":"a"}},{"add":{"field":"a","default":0}}]);
    assert!(Collection::new(2, steps(again)).is_ok(), "a field may be filled anew");
}

#[test]
fn a_mistake_in_a_migration_names_its_member() {
    for (migration, member, expected) in [
        (json!(7), "", "must be an object"),
        (json!({"to":2,"steps":[]}), "/from", "is missing"),
        (json!({"from":1,"to":"2","steps":[]}), "/to", "must be the number of a version"),
        (json!({"from":1,"to":2}), "/steps", "is missing"),
        (json!({"from":1,"to":2,"steps":{}}), "/steps", "must be an array"),
        (json!({"from":1,"to":2,"steps":[],"more":1}), "/more", "is unknown"),
        (json!({"from":1,"to":2,"steps":[{"rename":{"from":"a"}}]}), "/steps/0/rename/to", "is missing"),
        (json!({"from":1,"to":2,"steps":[{"rename":["a"]}]}), "/steps/0/rename", "must be an object"),
        (json!({"from":1,"to":2,"steps":[{"remove":{"field":1}}]}), "/steps/0/remove/field", "must be a string"),
        (json!({"from":1,"to":2,"steps":[{"remove":{"field":"a","x":1}}]}), "/steps/0/remove/x", "is unknown"),
        (json!({"from":1,"to":2,"steps":[{"add":{"field":"a"}}]}), "/steps/0/add/default", "is missing"),
        (json!({"from":1,"to":2,"steps":[{"wrap":{"field":"a"}}]}), "/steps/0/wrap/into", "is missing"),
        (
            json!({"from":1,"to":2,"steps":[{"convert":{"field":"a","to":"date"}}]}),
            "/steps/0/convert/to",
            "must be string, number or boolean",
        ),
    ] {
        let error = Collection::new(2, json!([migration])).unwrap_err();
        assert_eq!((error.field, error.expected.as_str()), (format!("migrations/0{member}"), expected));
    }
}

#[track_caller]
fn check_step(step: Value, before: Value, expected: Result<Value, &str>) {
    let schema = Collection::new(2, steps(json!([step]))).unwrap();
    let after = schema.migrate(1, before).map_err(|error| error.why);
    assert_eq!(after, expected.map_err(str::to_owned));
}

#[test]
fn each_step_does_what_it_says() {
    check_step(json!({"rename":{"from":"a","to":"b"}}), json!({"a":1}), Ok(json!({"b":1})));
    check_step(json!({"rename":{"from":"a","to":"b"}}), json!({"c":1}), Ok(json!({"c":1})));
    check_step(json!({"rename":{"from":"a/b","to":"~c"}}), json!({"a/b":1}), Ok(json!({"~c":1})));
    check_step(json!({"add":{"field":"a","default":0}}), json!({"a":null}), Ok(json!({"a":null})));
    check_step(json!({"remove":{"field":"a"}}), json!({}), Ok(json!({})));
    check_step(
        json!({"move":{"from":"/a/b","to":"/c/d/e"}}),
        json!({"a":{"b":1}}),
        Ok(json!({"a":{},"c":{"d":{"e":1}}})),
    );
    check_step(json!({"move":{"from":"/a~1b","to":"/c"}}), json!({"a/b":1}), Ok(json!({"c":1})));
    check_step(json!({"move":{"from":"/a","to":"/c/d"}}), json!({"a":1,"c":2}), Err("c is not an object"));
    check_step(json!({"move":{"from":"/a","to":"/c/d"}}), json!({"a":1,"c":{"d":2}}), Err("d is already there"));
    check_step(json!({"wrap":{"field":"a","into":"b"}}), json!({"a":1,"b":{"c":2}}), Ok(json!({"b":{"a":1,"c":2}})));
    check_step(json!({"wrap":{"field":"a","into":"a"}}), json!({"a":1}), Ok(json!({"a":{"a":1}})));
    check_step(json!({"wrap":{"field":"a","into":"b"}}), json!({}), Ok(json!({})));
    for (to, before, after) in [
        ("number", json!(" 1.5 "), Some(json!(1.5))),
        ("number", json!(true), Some(json!(1))),
        ("number", json!("x"), None),
        ("number", json!("9007199254740993"), Some(json!(9_007_199_254_740_993_u64))),
        ("number", json!([]), None),
        ("string", json!(7), Some(json!("7"))),
        ("string", json!(false), Some(json!("false"))),
        ("string", json!({}), None),
        ("boolean", json!("true"), Some(json!(true))),
        ("boolean", json!(0), Some(json!(false))),
        ("boolean", json!(2), None),
        ("boolean", json!("yes"), None),
        ("string", json!(null), Some(json!(null))),
    ] {
        let expected = after.map(|value| json!({"a":value})).ok_or("a cannot be converted");
        check_step(json!({"convert":{"field":"a","to":to}}), json!({"a":before}), expected);
    }
}

#[test]
fn a_collection_is_remembered_for_a_while() {
    let world = world();
    assert_eq!(block_on(world.collections.read("users", world.clock.now())), Ok(None));
    world.publish("users", schema(2));
    let reads = world.meter.reads();
    let read = || block_on(world.collections.read("users", world.clock.now())).unwrap().unwrap();
    assert_eq!((read(), world.meter.reads()), (schema(2), reads));
    world.clock.advance_seconds(31);
    assert_eq!((read(), world.meter.reads()), (schema(2), reads + 1));
}

#[test]
fn what_calls_cost() {
    let world = world();
    world.put(&schema(1), "ada", ada()).unwrap();
    assert_eq!(world.meter.to_string(), "r=0 w=1 d=0 l=0", "a write is blind");
    world.get(&schema(1), "ada").unwrap();
    assert_eq!(world.meter.to_string(), "r=1 w=1 d=0 l=0", "current: one read");
    world.get(&schema(3), "ada").unwrap();
    assert_eq!(world.meter.to_string(), "r=2 w=1 d=0 l=0", "older: one read too");
    world.behind();
    assert_eq!(world.meter.to_string(), "r=3 w=2 d=0 l=0", "and behind it one read and one write");
    world.get(&schema(3), "ada").unwrap();
    assert_eq!((world.meter.to_string().as_str(), world.background.len()), ("r=4 w=2 d=0 l=0", 0));
    world.patch(&schema(3), "ada", json!({"age":1})).unwrap();
    assert_eq!(world.meter.to_string(), "r=5 w=3 d=0 l=0");
    world.get(&schema(3), "ada").unwrap();
    assert_eq!(world.meter.to_string(), "r=6 w=3 d=0 l=0");
    block_on(world.documents.list(&schema(3), 10, None, world.clock.now())).unwrap();
    assert_eq!(world.meter.to_string(), "r=6 w=3 d=0 l=1");
    block_on(world.documents.delete(&schema(3), "ada", &Precondition::default(), world.clock.now())).unwrap();
    assert_eq!(world.meter.to_string(), "r=6 w=3 d=2 l=1");
}

#[derive(Deserialize)]
struct V1 {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct V2 {
    first: String,
    last: String,
}

#[derive(Serialize, Deserialize)]
struct V3 {
    last: String,
}

impl TryFrom<V1> for V2 {
    type Error = &'static str;
    fn try_from(old: V1) -> Result<Self, &'static str> {
        let (first, last) = old.name.split_once(' ').ok_or("a name of one word")?;
        Ok(Self { first: first.to_owned(), last: last.to_owned() })
    }
}

impl From<V2> for V3 {
    fn from(old: V2) -> Self {
        Self { last: format!("{}, {}", old.last, old.first) }
    }
}

type People = Next<Next<First<V1>, V2>, V3>;

#[test]
fn a_chain_of_types_is_a_schema_too() {
    let world = world();
    assert_eq!(People::VERSION, 3);
    world.put(&schema(1), "ada", json!({"name":"Ada Lovelace"})).unwrap();
    let served = world.get(&Typed::<People>::new(), "ada").unwrap().unwrap();
    assert_eq!((served.data, served.version), (json!({"last":"Lovelace, Ada"}), 3));
    let error = People::read(1, json!({"name":"Ada"})).map(|_| ()).unwrap_err();
    assert_eq!((error.version, error.why.as_str()), (2, "a name of one word"));
    assert!(People::read(4, json!({})).is_err() && People::read(0, json!({})).is_err());
}

proptest! {
    #[test]
    fn migrating_is_pure_and_goes_through_every_version(
        mail in "[a-z]{0,3}", age in prop_oneof![Just(json!("7")), Just(json!(7)), Just(json!("x")), Just(json!(null))], city: bool,
    ) {
        let mut data = json!({"mail":mail,"age":age});
        if city {
            data["city"] = json!("L");
        }
        let at_once = schema(3).migrate(1, data.clone());
        prop_assert_eq!(&schema(3).migrate(1, data.clone()), &at_once);
        let in_steps = schema(2).migrate(1, data).and_then(|two| schema(3).migrate(2, two));
        prop_assert_eq!(in_steps, at_once);
    }
}
