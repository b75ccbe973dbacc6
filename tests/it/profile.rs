//! Goal: profiles keep the promises of their module head. Method: the pattern on the memory store with a meter.
#![allow(clippy::needless_pass_by_value, reason = "a JSON literal is handed over at the place where it stands")]

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{Error as KvError, MemoryStore, Meter, Metered};
use kv_patterns::patch::{Patch, PatchError};
use kv_patterns::patterns::profile::{Change, Error, Profile, Profiles};
use serde_json::{Value, json};

use crate::support::{block_on, store, tenant};

struct World {
    clock: ManualClock,
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    profiles: Profiles<Metered<MemoryStore<ManualClock>>>,
}

fn world() -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let profiles = Profiles::new(Metered::new(memory.clone(), meter.clone()), &tenant("acme"));
    World { clock, memory, meter, profiles }
}

impl World {
    fn change(&self, change: &Change) -> Result<Profile, Error> {
        block_on(self.profiles.change("ada", change, &Precondition::default(), self.clock.now()))
    }

    fn read(&self) -> Result<Option<Profile>, Error> {
        block_on(self.profiles.read("ada"))
    }
}

fn replace(value: Value) -> Change {
    Change::Replace(value.as_object().unwrap().clone())
}

fn merge(value: Value) -> Change {
    Change::Patch(Patch::Merge(value))
}

#[test]
fn a_profile_is_replaced_patched_selected_and_removed() {
    let world = world();
    assert_eq!(world.read(), Ok(None));
    world.change(&replace(json!({"name":"Ada","city":"London","age":36}))).unwrap();
    let profile = world.change(&merge(json!({"city":null,"name":"Ada L."}))).unwrap();
    assert_eq!(world.read(), Ok(Some(profile.clone())));
    assert_eq!(Value::Object(profile.fields().clone()), json!({"name":"Ada L.","age":36}));
    assert_eq!(Value::Object(profile.select(&["age", "absent"])), json!({"age":36}));
    block_on(world.profiles.delete("ada", &Precondition::default())).unwrap();
    assert_eq!(world.read(), Ok(None));
}

#[test]
fn patching_what_is_not_there_starts_from_nothing() {
    let world = world();
    let profile = world.change(&merge(json!({"name":"Ada","gone":null}))).unwrap();
    assert_eq!(Value::Object(profile.fields().clone()), json!({"name":"Ada"}));
}

#[test]
fn a_precondition_guards_every_change() {
    let world = world();
    let first = world.change(&replace(json!({"a":1}))).unwrap();
    let stale = Precondition { if_match: Some(first.etag()), if_none_match: None };
    world.change(&replace(json!({"a":2}))).unwrap();
    for change in [replace(json!({"a":3})), merge(json!({"a":3}))] {
        let refused = block_on(world.profiles.change("ada", &change, &stale, world.clock.now()));
        assert_eq!(refused, Err(Error::PreconditionFailed));
    }
    assert_eq!(block_on(world.profiles.delete("ada", &stale)), Err(Error::PreconditionFailed));
    let create = Precondition { if_match: None, if_none_match: Some("*".to_owned()) };
    let refused = block_on(world.profiles.change("ada", &replace(json!({})), &create, world.clock.now()));
    assert_eq!(refused, Err(Error::PreconditionFailed));
}

#[test]
fn size_and_shape_are_bounded() {
    let world = world();
    let large = world.change(&replace(json!({"a":"x".repeat(70_000)})));
    assert_eq!(large, Err(Error::Patch(PatchError::TooLarge(65_536))));
    let deep = (0..20).fold(json!(1), |inner, _| json!({"a":inner}));
    assert_eq!(world.change(&merge(deep)), Err(Error::Patch(PatchError::TooDeep(16))));
    assert_eq!(world.change(&merge(json!([]))), Err(Error::NotAnObject));
    assert_eq!(
        world.change(&merge(json!({"__proto__":{}}))),
        Err(Error::Patch(PatchError::ForbiddenName("__proto__")))
    );
}

#[test]
fn an_unreadable_profile_is_neither_served_nor_patched_but_can_be_replaced() {
    let world = world();
    world.memory.plant("acme/profile/ada", b"junk");
    assert!(matches!(world.read(), Err(Error::Kv(KvError::Corrupt(_)))));
    assert!(matches!(world.change(&merge(json!({"a":1}))), Err(Error::Kv(KvError::Corrupt(_)))));
    assert_eq!(world.memory.raw("acme/profile/ada").unwrap(), b"junk");
    assert!(world.change(&replace(json!({"a":1}))).is_ok());
}

#[test]
fn what_calls_cost() {
    let world = world();
    world.change(&replace(json!({"a":1}))).unwrap();
    assert_eq!(world.meter.to_string(), "r=0 w=1 d=0 l=0", "a replacement is blind");
    world.read().unwrap();
    assert_eq!(world.meter.to_string(), "r=1 w=1 d=0 l=0");
    world.change(&merge(json!({"b":1}))).unwrap();
    assert_eq!(world.meter.to_string(), "r=2 w=2 d=0 l=0");
    block_on(world.profiles.delete("ada", &Precondition::default())).unwrap();
    assert_eq!(world.meter.to_string(), "r=2 w=2 d=1 l=0");
}
