//! Goal: the flag document keeps the promises of `patterns/flag/store.rs`. Method: the pattern on the memory store with
//! a clock moved by hand, a meter on every operation, several isolates, and a store that fails on demand.

use std::cell::RefCell;
use std::rc::Rc;

use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::kv::{self, Key, MemoryStore, Meter, Metered, Page, PageRequest, Prefix, Read, Store, Write};
use kv_patterns::patterns::flag::{
    Edit, Error, EvaluationContext, Flags, HISTORY_MAX, Memory, Outcome, POINTER_SECONDS, Problem, Snapshot,
    TENANTS_MAX, flag_of,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{START, block_on, store, tenant};

/// A memory store that a test can make fail, and that notes the order of writes.
#[derive(Clone)]
struct Scripted {
    store: MemoryStore<ManualClock>,
    fail: Rc<RefCell<Option<&'static str>>>,
    writes: Rc<RefCell<Vec<String>>>,
}

impl Scripted {
    fn check(&self, operation: &str, key: &str) -> Result<(), kv::Error> {
        let failing = self.fail.borrow().is_some_and(|fail| format!("{operation} {key}").starts_with(fail));
        if failing { Err(kv::Error::Unavailable("as told".to_owned())) } else { Ok(()) }
    }
}

impl Store for Scripted {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, kv::Error> {
        self.check("get", key.as_str())?;
        self.store.get(key, read).await
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, kv::Error> {
        self.store.get_many(keys, read).await
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), kv::Error> {
        self.check("put", key.as_str())?;
        self.writes.borrow_mut().push(key.as_str().to_owned());
        self.store.put(key, value, write).await
    }

    async fn delete(&self, key: &Key) -> Result<(), kv::Error> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, kv::Error> {
        self.store.list(prefix, request).await
    }
}

struct World {
    clock: ManualClock,
    scripted: Scripted,
    meter: Meter,
}

/// One isolate: its memory, and the flags of tenant `acme` seen through it.
struct Isolate<'w> {
    world: &'w World,
    flags: Flags<Metered<Scripted>>,
}

fn world() -> World {
    let (clock, memory) = store();
    let scripted = Scripted { store: memory, fail: Rc::default(), writes: Rc::default() };
    World { clock, scripted, meter: Meter::default() }
}

impl World {
    fn isolate(&self) -> Isolate<'_> {
        self.isolate_of("acme", Memory::default())
    }

    fn isolate_of(&self, name: &str, memory: Memory) -> Isolate<'_> {
        let metered = Metered::new(self.scripted.clone(), self.meter.clone());
        Isolate { world: self, flags: Flags::new(metered, &tenant(name), memory) }
    }

    fn fail(&self, what: Option<&'static str>) {
        *self.scripted.fail.borrow_mut() = what;
    }

    /// What `action` cost.
    fn cost<T>(&self, action: impl FnOnce() -> T) -> (T, String) {
        let before = (self.meter.reads(), self.meter.writes(), self.meter.deletes(), self.meter.lists());
        let result = action();
        let (reads, writes) = (self.meter.reads() - before.0, self.meter.writes() - before.1);
        assert_eq!((self.meter.deletes(), self.meter.lists()), (before.2, before.3), "flags delete and list nothing");
        (result, format!("r={reads} w={writes}"))
    }
}

impl Isolate<'_> {
    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn newest(&self) -> Option<Rc<Snapshot>> {
        block_on(self.flags.newest(self.now())).unwrap()
    }

    fn try_commit(&self, edit: Edit) -> Result<Rc<Snapshot>, Error> {
        let base = self.newest();
        block_on(self.flags.commit(base.as_ref(), edit, self.now()))
    }

    #[track_caller]
    fn commit(&self, edit: Edit) -> Rc<Snapshot> {
        self.try_commit(edit).unwrap()
    }

    fn rollback(&self, revision: &str) -> Result<Rc<Snapshot>, Error> {
        let base = self.newest().unwrap();
        block_on(self.flags.rollback(&base, revision, self.now()))
    }

    fn snapshot(&self) -> Result<Option<Rc<Snapshot>>, Error> {
        block_on(self.flags.snapshot(self.now()))
    }

    /// The variant that flag `f` has for nobody in particular; `-` without a document or value.
    fn variant(&self) -> String {
        let Some(snapshot) = self.snapshot().unwrap() else { return "-".to_owned() };
        match snapshot.flags().evaluate("f", &EvaluationContext::default(), self.now()).outcome {
            Outcome::Value { variant, .. } => variant.to_owned(),
            _ => "-".to_owned(),
        }
    }
}

fn flag(default: &str) -> Value {
    json!({ "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": default })
}

fn put(default: &str) -> Edit {
    Edit::PutFlag { key: "f".to_owned(), flag: flag(default) }
}

/// A document too large to travel with its pointer.
fn large(default: &str) -> Edit {
    let text = "x".repeat(60 << 10);
    let mut document = json!({ "flags": { "f": flag(default) } });
    for number in 0..10 {
        document["flags"][format!("text{number}")] =
            json!({ "state": "ENABLED", "variants": { "a": text }, "defaultVariant": "a" });
    }
    Edit::Replace(document)
}

#[test]
fn a_warm_isolate_evaluates_without_kv_and_a_cold_one_with_one_read() {
    let world = world();
    let editor = world.isolate();
    editor.commit(put("on"));
    assert_eq!(world.cost(|| editor.variant()), ("on".to_owned(), "r=0 w=0".to_owned()));
    let cold = world.isolate();
    assert_eq!(world.cost(|| cold.variant()), ("on".to_owned(), "r=1 w=0".to_owned()));
    assert_eq!(world.cost(|| cold.variant()), ("on".to_owned(), "r=0 w=0".to_owned()));
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(world.cost(|| cold.variant()).1, "r=1 w=0");
    assert_eq!(world.cost(|| cold.variant()).1, "r=0 w=0");
}

#[test]
fn a_tenant_without_flags_costs_no_more() {
    let world = world();
    let isolate = world.isolate();
    assert_eq!(world.cost(|| isolate.variant()), ("-".to_owned(), "r=1 w=0".to_owned()));
    assert_eq!(world.cost(|| isolate.variant()), ("-".to_owned(), "r=0 w=0".to_owned()));
}

#[test]
fn a_large_document_is_read_once_per_isolate_and_revision() {
    let world = world();
    let editor = world.isolate();
    assert_eq!(world.cost(|| editor.commit(large("on"))).1, "r=1 w=2");
    let cold = world.isolate();
    assert_eq!(world.cost(|| cold.variant()), ("on".to_owned(), "r=2 w=0".to_owned()));
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(world.cost(|| cold.variant()).1, "r=1 w=0");
    editor.commit(large("off"));
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(world.cost(|| cold.variant()), ("off".to_owned(), "r=2 w=0".to_owned()));
}

#[test]
fn edits_and_rollbacks_cost_what_the_head_says() {
    let world = world();
    let editor = world.isolate();
    let (first, cost) = world.cost(|| editor.commit(put("on")));
    assert_eq!(cost, "r=1 w=2");
    editor.commit(put("off"));
    let (rolled, cost) = world.cost(|| editor.rollback(&first.current().revision).unwrap());
    assert_eq!((rolled.current().revision.as_str(), cost.as_str()), (first.current().revision.as_str(), "r=2 w=1"));
    assert_eq!(editor.variant(), "on");
}

#[test]
fn an_edit_is_seen_elsewhere_within_the_pointers_time() {
    let world = world();
    let (editor, other) = (world.isolate(), world.isolate());
    editor.commit(put("on"));
    assert_eq!(other.variant(), "on");
    editor.commit(put("off"));
    assert_eq!(editor.variant(), "off", "at once where it was made");
    assert_eq!(other.variant(), "on", "what is known stays good for some seconds");
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(other.variant(), "off");
}

#[test]
fn the_revision_is_written_before_the_pointer() {
    let world = world();
    let snapshot = world.isolate().commit(put("on"));
    let revision = format!("acme/flag/revision/{}", snapshot.current().revision);
    assert_eq!(*world.scripted.writes.borrow(), [revision, "acme/flag/head".to_owned()]);
}

#[test]
fn a_write_that_fails_half_way_changes_no_answer() {
    for what in ["put acme/flag/revision", "put acme/flag/head"] {
        let world = world();
        let editor = world.isolate();
        editor.commit(put("on"));
        world.fail(Some(what));
        assert!(matches!(editor.try_commit(put("off")), Err(Error::Store(_))), "{what}");
        world.fail(None);
        assert_eq!((editor.variant(), world.isolate().variant()), ("on".to_owned(), "on".to_owned()), "{what}");
        editor.commit(put("off"));
        assert_eq!(world.isolate().variant(), "off");
    }
}

#[test]
fn a_pointer_write_of_unknown_outcome_is_looked_up_at_once() {
    let world = world();
    let editor = world.isolate();
    editor.commit(put("on"));
    world.fail(Some("put acme/flag/head"));
    editor.try_commit(put("off")).unwrap_err();
    world.fail(None);
    assert_eq!(world.cost(|| editor.variant()).1, "r=1 w=0");
}

#[test]
fn without_kv_an_isolate_goes_on_with_the_last_document() {
    let world = world();
    let isolate = world.isolate();
    isolate.commit(put("on"));
    world.fail(Some("get"));
    world.clock.advance_seconds(86_400);
    assert_eq!(world.cost(|| isolate.variant()), ("on".to_owned(), "r=1 w=0".to_owned()));
    assert_eq!(world.cost(|| isolate.variant()).1, "r=0 w=0", "a failing KV is not asked by every request");
    assert!(matches!(world.isolate().snapshot(), Err(Error::Store(kv::Error::Unavailable(_)))));
}

#[test]
fn an_unreadable_head_is_reported_and_never_served() {
    for bytes in ["flag-head.2\n{}", "flag-head.1\n{\"history\":[],\"document\":null}", "junk", "flag-head.1\n{"] {
        let world = world();
        world.scripted.store.plant("acme/flag/head", bytes.as_bytes());
        assert!(matches!(world.isolate().snapshot(), Err(Error::Store(kv::Error::Corrupt(_)))), "{bytes}");
        assert!(matches!(world.isolate().try_commit_on_nothing(), Err(Error::Store(_))), "{bytes}");
        assert_eq!(world.scripted.store.raw("acme/flag/head").unwrap(), bytes.as_bytes(), "it is kept");
    }
}

impl Isolate<'_> {
    fn try_commit_on_nothing(&self) -> Result<Rc<Snapshot>, Error> {
        let base = block_on(self.flags.newest(self.now()))?;
        block_on(self.flags.commit(base.as_ref(), put("on"), self.now()))
    }
}

#[test]
fn a_reader_never_steps_back() {
    let world = world();
    let (editor, reader) = (world.isolate(), world.isolate());
    editor.commit(put("on"));
    let stale = world.scripted.store.raw("acme/flag/head").unwrap();
    world.clock.advance_seconds(2);
    let newest = editor.commit(put("off"));
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(reader.variant(), "off");
    // Another replica of KV answers with what it still has.
    world.scripted.store.plant("acme/flag/head", &stale);
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(reader.variant(), "off");
    assert_eq!(reader.newest().unwrap().current(), newest.current(), "an edit starts from it as well");
}

#[test]
fn an_edit_made_on_a_stale_document_still_counts_as_later() {
    let world = world();
    let (first, second) = (world.isolate(), world.isolate());
    first.commit(put("on"));
    let stale = second.newest();
    for default in ["off", "on", "off"] {
        world.clock.advance_seconds(2);
        first.commit(put(default));
    }
    world.clock.advance_seconds(2);
    block_on(second.flags.commit(stale.as_ref(), put("off"), world.clock.now())).unwrap();
    let edit = Edit::PutFlag { key: "g".to_owned(), flag: flag("on") };
    let last = block_on(second.flags.commit(stale.as_ref(), edit, world.clock.now().plus_seconds(1))).unwrap();
    world.clock.advance_seconds(POINTER_SECONDS);
    let seen = first.snapshot().unwrap().unwrap();
    assert_eq!(seen.current(), last.current(), "the last write wins everywhere, whole");
}

#[test]
fn a_switch_is_thrown_although_a_stale_reader_believes_it_is_so_already() {
    let world = world();
    let (first, second) = (world.isolate(), world.isolate());
    let off = first.commit(put("off"));
    let stale = second.newest();
    world.clock.advance_seconds(2);
    first.commit(put("on"));
    world.clock.advance_seconds(2);
    block_on(second.flags.commit(stale.as_ref(), put("off"), world.clock.now())).unwrap();
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(first.variant(), "off");
    world.clock.advance_seconds(2);
    first.commit(put("on"));
    block_on(second.flags.rollback(&off, &off.current().revision, world.clock.now().plus_seconds(2))).unwrap();
    world.clock.advance_seconds(POINTER_SECONDS);
    assert_eq!(first.variant(), "off", "nor does a rollback");
}

#[test]
fn history_and_rollback() {
    let world = world();
    let editor = world.isolate();
    let mut revisions = Vec::new();
    for number in 0..HISTORY_MAX + 5 {
        world.clock.advance_seconds(1);
        let flag = json!({ "state": "ENABLED", "variants": { "v": number }, "defaultVariant": "v" });
        let snapshot = editor.commit(Edit::PutFlag { key: "f".to_owned(), flag });
        revisions.push(snapshot.current().revision.clone());
    }
    let newest = editor.newest().unwrap();
    let named: Vec<_> = newest.history().iter().map(|entry| entry.revision.clone()).collect();
    assert_eq!(named, revisions.iter().rev().take(HISTORY_MAX).cloned().collect::<Vec<_>>());
    assert!(newest.history().windows(2).all(|pair| pair[0].sequence > pair[1].sequence));

    let flag = json!({ "state": "ENABLED", "variants": { "v": HISTORY_MAX + 4 }, "defaultVariant": "v" });
    for _ in 0..HISTORY_MAX {
        world.clock.advance_seconds(1);
        editor.commit(Edit::PutFlag { key: "f".to_owned(), flag: flag.clone() });
    }
    let again = editor.newest().unwrap();
    let still: Vec<_> = again.history().iter().map(|entry| entry.revision.clone()).collect();
    assert_eq!(still, named, "what changes nothing pushes nothing out of the history");

    let before = again.current().sequence;
    editor.rollback(&revisions[20]).unwrap();
    let rolled = editor.newest().unwrap();
    assert_eq!(rolled.current().revision, revisions[20]);
    assert!(rolled.current().sequence > before, "a rollback is a change of its own");
    assert_eq!(flag_of(&rolled.value().unwrap(), "f").unwrap()["variants"]["v"], json!(20));
    assert_eq!(editor.rollback(&revisions[0]).unwrap_err(), Error::NoSuchRevision, "beyond the history");
    assert_eq!(editor.rollback("nonsense").unwrap_err(), Error::NoSuchRevision);
}

#[test]
fn a_fault_is_told_by_its_place_in_the_body_that_was_sent() {
    let told = |edit: &Edit, path: &str| {
        let (place, member) = edit.place().unwrap();
        let fault = Problem { path: path.to_owned(), message: String::new() };
        fault.within(&place, member).path
    };
    let flag = Edit::PutFlag { key: "a/b".to_owned(), flag: json!({}) };
    assert_eq!(told(&flag, "/flags/a~1b/state"), "state");
    assert_eq!(told(&flag, "/flags/a~1b/variants/on"), "variants/on");
    assert_eq!(told(&flag, "/flags/a~1b"), "");
    assert_eq!(told(&flag, "/flags/a~1bc/state"), "/flags/a~1bc/state", "another flag's");
    let user = Edit::PutOverride { key: "f".to_owned(), user: "u".to_owned(), variant: "nope".to_owned() };
    assert_eq!(told(&user, "/flags/f/overrides/u"), "variant");
    assert_eq!(told(&user, "/flags/f/overrides/u2"), "/flags/f/overrides/u2");
    assert_eq!(told(&user, "/flags/f/overrides"), "/flags/f/overrides");
    assert_eq!(Edit::Replace(json!({})).place(), None, "the body was the document");
}

#[test]
fn what_is_wrong_is_not_written() {
    let world = world();
    let editor = world.isolate();
    editor.commit(put("on"));
    let writes = world.scripted.writes.borrow().len();
    let wrong = json!({ "state": "ENABLED", "variants": { "on": true }, "targeting": { "if": [{ "nonsense": [] }] } });
    let refused = editor.try_commit(Edit::PutFlag { key: "a/b".to_owned(), flag: wrong }).unwrap_err();
    let Error::Invalid(problems) = refused else { panic!("{refused:?}") };
    assert_eq!(problems[0].path, "/flags/a~1b/targeting/if/0/nonsense");
    let user = Edit::PutOverride { key: "f".to_owned(), user: "u".to_owned(), variant: "nope".to_owned() };
    let refused = editor.try_commit(user).unwrap_err();
    let Error::Invalid(problems) = refused else { panic!("{refused:?}") };
    assert_eq!(problems[0].path, "/flags/f/overrides/u");
    for edit in [
        Edit::RemoveFlag { key: "g".to_owned() },
        Edit::PutOverride { key: "g".to_owned(), user: "u".to_owned(), variant: "on".to_owned() },
        Edit::RemoveOverride { key: "g".to_owned(), user: "u".to_owned() },
    ] {
        assert_eq!(editor.try_commit(edit).unwrap_err(), Error::NoSuchFlag);
    }
    assert_eq!(world.scripted.writes.borrow().len(), writes);
}

#[test]
fn overrides_live_in_the_document_and_collide_with_nothing() {
    let world = world();
    let editor = world.isolate();
    editor.commit(put("off"));
    for user in ["default", "config", "f", "a:b", "../x", "targetingKey"] {
        let (key, user_id) = ("f".to_owned(), user.to_owned());
        editor.commit(Edit::PutOverride { key: key.clone(), user: user_id.clone(), variant: "on".to_owned() });
        let context = EvaluationContext::new(json!({ "targetingKey": user })).unwrap();
        let snapshot = editor.snapshot().unwrap().unwrap();
        let chosen = snapshot.flags().evaluate("f", &context, editor.now()).outcome;
        assert!(matches!(chosen, Outcome::Value { variant: "on", .. }), "{user}");
        assert_eq!(editor.variant(), "off", "others are not touched by {user}");
        let without = editor.commit(Edit::RemoveOverride { key, user: user_id });
        assert_eq!(flag_of(&without.value().unwrap(), "f"), Some(&flag("off")));
    }
}

#[test]
fn an_array_of_flags_is_kept_as_an_object() {
    let world = world();
    let editor = world.isolate();
    let mut keyed = flag("on");
    keyed["key"] = json!("f");
    let stored = editor.commit(Edit::Replace(json!({ "flags": [keyed] })));
    assert_eq!(stored.value().unwrap(), json!({ "flags": { "f": flag("on") } }));
    let twice = Edit::Replace(json!({ "flags": [keyed, keyed] }));
    assert!(matches!(editor.try_commit(twice), Err(Error::Invalid(_))));
}

#[test]
fn numbers_keep_their_kind_through_storage() {
    let world = world();
    let variants = json!({ "a": 1, "b": 1.0, "c": 9_007_199_254_740_993_u64, "d": 1e-7 });
    let flag = json!({ "state": "ENABLED", "variants": variants, "defaultVariant": "b" });
    world.isolate().commit(Edit::PutFlag { key: "f".to_owned(), flag });
    let read = world.isolate().newest().unwrap();
    assert!(read.text().contains(r#""variants":{"a":1,"b":1.0,"c":9007199254740993,"d":1e-7}"#), "{}", read.text());
}

#[test]
fn memory_is_bounded_and_tenants_do_not_meet() {
    let world = world();
    let memory = Memory::default();
    for number in 0..=TENANTS_MAX {
        let default = if number % 2 == 0 { "on" } else { "off" };
        world.isolate_of(&format!("t{number}"), memory.clone()).commit(put(default));
    }
    let isolate = |number: usize| world.isolate_of(&format!("t{number}"), memory.clone());
    assert_eq!(world.cost(|| isolate(TENANTS_MAX).variant()), ("on".to_owned(), "r=0 w=0".to_owned()));
    assert_eq!(world.cost(|| isolate(1).variant()), ("off".to_owned(), "r=0 w=0".to_owned()));
    assert_eq!(world.cost(|| isolate(0).variant()), ("on".to_owned(), "r=1 w=0".to_owned()), "the oldest is forgotten");
}

#[test]
fn what_rules_may_read_is_known() {
    #[track_caller]
    fn check(rule: &Value, time: bool, place: bool) {
        let world = world();
        let mut flag = flag("on");
        flag["targeting"] = rule.clone();
        let snapshot = world.isolate().commit(Edit::PutFlag { key: "f".to_owned(), flag });
        assert_eq!((snapshot.reads_time(), snapshot.reads_place()), (time, place), "{rule}");
    }
    check(&json!({ "if": [{ "==": [{ "var": "plan" }, "pro"] }, "on", "off"] }), false, false);
    check(&json!({ "if": [{ ">": [{ "var": "$flagd.timestamp" }, 1] }, "on", "off"] }), true, false);
    check(&json!({ "if": [{ "==": [{ "var": "$flagd.flagKey" }, "f"] }, "on", "off"] }), false, false);
    check(&json!({ "if": [{ "==": [{ "var": "cf.country" }, "NZ"] }, "on", "off"] }), false, true);
    check(&json!({ "if": [{ "==": [{ "var": ["plan", { "var": "cf.colo" }] }, "x"] }, "on", "off"] }), false, true);
    check(&json!({ "if": [{ "==": [{ "var": [{ "var": "which" }] }, "x"] }, "on", "off"] }), true, true);
    check(&json!({ "if": [{ "missing": ["cf.country"] }, "on", "off"] }), true, true);
    check(&json!({ "if": [{ "some": [{ "var": "list" }, { "==": [{ "var": "" }, 1] }] }, "on", "off"] }), true, true);
}

proptest! {
    #[test]
    fn however_isolates_edit_and_read_no_reader_steps_back(
        steps in prop::collection::vec((0..3_usize, 0..4_u8, 0..15_u64), 1..60),
    ) {
        let world = world();
        let isolates = [world.isolate(), world.isolate(), world.isolate()];
        let mut seen = [0_u64; 3];
        let mut old_heads: Vec<Vec<u8>> = Vec::new();
        for (who, what, seconds) in steps {
            world.clock.advance_seconds(seconds);
            let isolate = &isolates[who];
            match what {
                0 | 1 => {
                    isolate.commit(put(if what == 0 { "on" } else { "off" }));
                    old_heads.extend(world.scripted.store.raw("acme/flag/head"));
                }
                2 if !old_heads.is_empty() => {
                    let stale = &old_heads[usize::try_from(seconds).unwrap() % old_heads.len()];
                    world.scripted.store.plant("acme/flag/head", stale);
                }
                _ => {}
            }
            let sequence = isolate.snapshot().unwrap().map_or(0, |snapshot| snapshot.current().sequence);
            prop_assert!(sequence >= seen[who]);
            prop_assert!(sequence == 0 || sequence >= START.millis());
            seen[who] = sequence;
        }
    }
}
