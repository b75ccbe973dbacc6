//! Goal: preferences keep the promises of their module head. Method: the pattern on the memory store with a meter, the
//! join's laws as properties, and two locations modelled as two reads before two writes. Staleness is the simulator's.

use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{MemoryStore, Meter, Metered, PageRequest, Store, Write};
use kv_patterns::patch::{Patch, PatchError};
use kv_patterns::patterns::preference::{
    Change, Entry, Error, Found, Overrides, Preferences, Refusal, Schema, TOMBSTONE_SECONDS, View, decide,
};
use kv_patterns::patterns::setting;
use kv_patterns::random::SeededRandom;
use kv_patterns::recent::Recent;
use kv_patterns::stamp::{Stamp, Stamps};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{START, block_on, store, tenant, without_stamp};

struct World {
    clock: ManualClock,
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    stamps: Stamps,
    preferences: Preferences<Metered<MemoryStore<ManualClock>>>,
}

fn world() -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let metered = Metered::new(memory.clone(), meter.clone());
    let preferences = Preferences::new(metered, &tenant("acme"), Recent::new(8));
    World { clock, memory, meter, stamps: Stamps::new(&SeededRandom::new(1)), preferences }
}

impl World {
    fn read(&self) -> Value {
        Value::Object(block_on(self.preferences.read("ada")).unwrap().document)
    }

    fn change(&self, change: &Change) -> Result<View, Error> {
        self.change_if(change, &Precondition::default())
    }

    fn change_if(&self, change: &Change, precondition: &Precondition) -> Result<View, Error> {
        block_on(self.preferences.change("ada", change, precondition, self.clock.now(), &self.stamps))
    }

    fn defaults(&self, defaults: &Value) {
        let bytes = format!("setting.1\n{}", json!({ "value": defaults }));
        block_on(self.memory.put(
            &setting::key(&tenant("acme"), "preference-defaults"),
            bytes.as_bytes(),
            Write::default(),
        ))
        .unwrap();
    }
}

fn merge(patch: Value) -> Change {
    Change::Patch(Patch::Merge(patch))
}

fn operations(patch: Value) -> Change {
    Change::Patch(Patch::operations(patch).unwrap())
}

fn built_in() -> Value {
    json!({"theme":"light","language":"en","notifications":true,"timezone":"UTC"})
}

#[test]
fn a_new_user_has_the_defaults_and_nothing_is_stored() {
    let world = world();
    assert_eq!(world.read(), built_in());
    assert!(world.memory.names().is_empty());
}

#[test]
fn a_changed_default_reaches_everyone_who_never_set_the_field() {
    let world = world();
    world.change(&merge(json!({"theme":"dark"}))).unwrap();
    world.defaults(&json!({"theme":"system","language":"fr"}));
    assert_eq!(world.read(), json!({"theme":"dark","language":"fr","notifications":true,"timezone":"UTC"}));
}

#[test]
fn null_gives_a_field_back_to_its_default() {
    let world = world();
    world.change(&merge(json!({"theme":"dark","timezone":"Europe/Paris"}))).unwrap();
    let view = world.change(&merge(json!({"theme":null}))).unwrap();
    assert_eq!(view.document["theme"], "light");
    assert_eq!(world.read(), json!({"theme":"light","language":"en","notifications":true,"timezone":"Europe/Paris"}));
}

#[test]
fn replacing_and_clearing_leave_nothing_of_before() {
    let world = world();
    world.change(&merge(json!({"theme":"dark","language":"de"}))).unwrap();
    let fields = |value: Value| value.as_object().unwrap().clone();
    world.change(&Change::Replace(fields(json!({"notifications":false})))).unwrap();
    assert_eq!(world.read(), json!({"theme":"light","language":"en","notifications":false,"timezone":"UTC"}));
    world.change(&Change::Clear).unwrap();
    assert_eq!(world.read(), built_in());
    world.clock.advance_seconds(TOMBSTONE_SECONDS + 1);
    let listed = block_on(world.memory.list(&tenant("acme").everything(), &PageRequest::default())).unwrap();
    assert!(listed.keys.is_empty());
}

#[test]
fn a_json_patch_sees_the_whole_document_and_stores_only_what_it_changes() {
    let world = world();
    world.defaults(&json!({"layout":{"side":"left","columns":2}}));
    world
        .change(&operations(json!([
            {"op":"test","path":"/theme","value":"light"},
            {"op":"replace","path":"/layout/side","value":"right"},
        ])))
        .unwrap();
    world.defaults(&json!({"layout":{"side":"left","columns":3}}));
    let read = world.read();
    assert_eq!(read["layout"], json!({"side":"right","columns":3}), "the default member was not frozen");
    assert_eq!(world.memory.names().iter().filter(|name| name.contains("/preference/")).count(), 1);
    let failed = world.change(&operations(json!([{"op":"test","path":"/theme","value":"dark"}])));
    assert_eq!(failed, Err(Refusal::Patch(PatchError::TestFailed(0)).into()));
}

#[test]
fn changes_of_different_fields_made_at_the_same_time_are_both_kept() {
    let world = world();
    // Two locations have both read the same empty state before either writes.
    let Found { schema, overrides: seen, .. } = block_on(world.preferences.find("ada")).unwrap();
    let (here, there) = (Stamps::new(&SeededRandom::new(2)), Stamps::new(&SeededRandom::new(3)));
    let none = Precondition::default();
    let now = world.clock.now();
    let first = decide(&seen, &schema, &merge(json!({"theme":"dark"})), &none, here.next(now, None)).unwrap();
    let second = decide(&seen, &schema, &merge(json!({"language":"de"})), &none, there.next(now, None)).unwrap();
    block_on(world.preferences.write("ada", &first.entries)).unwrap();
    block_on(world.preferences.write("ada", &second.entries)).unwrap();
    assert_eq!(world.read(), json!({"theme":"dark","language":"de","notifications":true,"timezone":"UTC"}));
}

#[test]
fn a_patch_writes_the_fields_it_names_even_if_they_seem_to_keep_their_value() {
    let (schema, seen) = (Schema::default(), Overrides::default());
    let stamp = Stamp::next(START, None, 1);
    for patch in
        [merge(json!({"theme":"light"})), operations(json!([{"op":"replace","path":"/theme","value":"light"}]))]
    {
        let decision = decide(&seen, &schema, &patch, &Precondition::default(), stamp).unwrap();
        let fields: Vec<_> = decision.entries.iter().map(|(field, _)| field.to_owned()).collect();
        assert_eq!(fields, ["theme"], "the copy that was read may be old");
    }
}

#[track_caller]
fn check_refused(change: &Change, field: &str) {
    let refused = world().change(change);
    assert!(
        matches!(&refused, Err(Error::Refused(Refusal::Field(error))) if error.field == field),
        "{change:?}: {refused:?}"
    );
}

#[test]
fn wrong_fields_and_values_are_named() {
    check_refused(&merge(json!({"theme":"purple"})), "theme");
    check_refused(&merge(json!({"theme":7})), "theme");
    check_refused(&merge(json!({"notifications":"yes"})), "notifications");
    for language in ["", "e", "english_GB", "en-", "-en", "de-toolongsubtag", "en-Ü"] {
        check_refused(&merge(json!({"language":language})), "language");
    }
    for timezone in ["", "/", "Europe/", "Europe/Paris/x/y", "Europe Paris", "../etc", "1/2"] {
        check_refused(&merge(json!({"timezone":timezone})), "timezone");
    }
    check_refused(&merge(json!({"colour":"red"})), "colour");
    check_refused(&merge(json!({"colour":null})), "colour");
    check_refused(&operations(json!([{"op":"add","path":"/colour","value":1}])), "colour");
    check_refused(&operations(json!([{"op":"replace","path":"","value":[]}])), "");
    check_refused(&merge(json!("dark")), "");
    check_refused(&Change::Replace(Map::from_iter([("theme".to_owned(), Value::Null)])), "theme");
}

#[test]
fn right_values_are_taken() {
    let world = world();
    for patch in [
        json!({"theme":"system"}),
        json!({"language":"zh-Hant-TW"}),
        json!({"language":"pt-BR"}),
        json!({"timezone":"America/Argentina/Buenos_Aires"}),
        json!({"timezone":"Etc/GMT+5"}),
        json!({"timezone":"UTC"}),
    ] {
        assert!(world.change(&merge(patch.clone())).is_ok(), "{patch}");
    }
}

#[test]
fn a_tenants_own_fields_take_values_of_their_defaults_type() {
    let world = world();
    world.defaults(&json!({"density":"cosy","tags":[],"anything":null,"bad name":1,"theme":"purple"}));
    let read = world.read();
    assert_eq!((&read["density"], &read["theme"]), (&json!("cosy"), &json!("light")), "a bad default is left out");
    assert!(read.get("bad name").is_none());
    world.change(&merge(json!({"density":"dense","tags":["x"],"anything":{"a":1}}))).unwrap();
    assert_eq!(world.read()["tags"], json!(["x"]));
    assert!(world.change(&merge(json!({"density":7}))).is_err());
    world.defaults(&json!({"density":5}));
    let read = world.read();
    assert_eq!(read["density"], 5, "a value that no longer fits gives way to the default");
    assert!(read.get("tags").is_none(), "a field that was dropped is gone");
}

#[test]
fn bad_defaults_are_refused_with_the_field() {
    let check = |value: Value, field: &str| {
        let error = Schema::check_defaults(&value).unwrap_err();
        assert_eq!(error.field, field, "{value}");
    };
    check(json!([]), "");
    check(json!({"theme":"purple"}), "theme");
    check(json!({"a b":1}), "a b");
    check(json!({"a":{"__proto__":1}}), "");
    check(Value::Object((0..65).map(|n| (format!("f{n}"), json!(1))).collect()), "");
    assert_eq!(Schema::check_defaults(&json!({"theme":"dark","density":"cosy"})), Ok(()));
}

#[test]
fn the_tag_changes_with_the_document_and_guards_it() {
    let world = world();
    let etag = block_on(world.preferences.read("ada")).unwrap().etag;
    let on = |etag: &str| Precondition { if_match: Some(etag.to_owned()), if_none_match: None };
    let view = world.change_if(&merge(json!({"theme":"dark"})), &on(&etag)).unwrap();
    assert_ne!(view.etag, etag);
    assert_eq!(block_on(world.preferences.read("ada")).unwrap().etag, view.etag);
    let lost = world.change_if(&merge(json!({"theme":"system"})), &on(&etag));
    assert_eq!(lost, Err(Refusal::PreconditionFailed.into()));
    assert_eq!(world.read()["theme"], "dark");
}

#[test]
fn an_unreadable_field_spoils_only_itself_and_the_next_change_heals_it() {
    let world = world();
    world.change(&merge(json!({"theme":"dark","language":"de"}))).unwrap();
    world.memory.plant("acme/preference/ada/theme", b"preference.1\n{");
    let view = block_on(world.preferences.read("ada")).unwrap();
    assert_eq!((&view.document["theme"], &view.document["language"]), (&json!("light"), &json!("de")));
    assert_eq!(view.unreadable, ["theme"]);
    let view = world.change(&merge(json!({"theme":"system"}))).unwrap();
    assert_eq!((&view.document["theme"], view.unreadable.len()), (&json!("system"), 0));
}

#[test]
fn the_stored_bytes_are_golden() {
    let world = world();
    world.change(&merge(json!({"theme":"dark"}))).unwrap();
    world.change(&merge(json!({"language":null}))).unwrap();
    let read = |field: &str| without_stamp(&world.memory.raw(&format!("acme/preference/ada/{field}")).unwrap());
    assert_eq!(read("theme"), "preference.1\n{\"stamp\":\"\",\"value\":\"dark\"}");
    assert_eq!(read("language"), "preference.1\n{\"stamp\":\"\"}");
}

#[test]
fn what_calls_cost() {
    let world = world();
    world.read();
    assert_eq!(world.meter.to_string(), "r=5 w=0 d=0 l=0", "one bulk read: the defaults and four fields");
    world.change(&merge(json!({"theme":"dark"}))).unwrap();
    assert_eq!(world.meter.to_string(), "r=10 w=1 d=0 l=0", "one bulk read, one write");
    world.change(&merge(json!({"theme":"dark","language":"de"}))).unwrap();
    assert_eq!(world.meter.to_string(), "r=15 w=3 d=0 l=0");
    world.change(&Change::Clear).unwrap();
    assert_eq!(world.meter.to_string(), "r=20 w=7 d=0 l=0");
    world.defaults(&json!({"density":"cosy"}));
    world.read();
    assert_eq!(world.meter.reads(), 26, "this isolate did not know the field yet: a second bulk read of one key");
    world.read();
    assert_eq!(world.meter.reads(), 32, "now it does");
}

fn entries() -> impl Strategy<Value = Overrides> {
    let entry = ("[a-c]", 0_u64..3, 0_u64..2, prop::option::of(0..3));
    prop::collection::vec(entry, 0..6).prop_map(|entries| {
        let mut overrides = Overrides::default();
        for (field, millis, writer, value) in entries {
            let stamp = Stamp::next(Timestamp::from_millis(millis), None, writer);
            overrides.put(field, value.map_or(Entry::unset(stamp), |value| Entry::set(stamp, json!(value))));
        }
        overrides
    })
}

fn joined(mut left: Overrides, right: &Overrides) -> Overrides {
    left.merge(right.clone());
    left
}

proptest! {
    #[test]
    fn joining_is_commutative_associative_and_idempotent(a in entries(), b in entries(), c in entries()) {
        prop_assert_eq!(joined(a.clone(), &b), joined(b.clone(), &a));
        prop_assert_eq!(joined(joined(a.clone(), &b), &c), joined(a.clone(), &joined(b, &c)));
        prop_assert_eq!(joined(a.clone(), &a), a);
    }
}
