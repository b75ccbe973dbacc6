//! Goal: a setting is answered whenever there is anything to answer with. Method: a store that is switched off, records
//! that are damaged, and the pure decision over all its inputs.
#![allow(clippy::needless_pass_by_value, reason = "a JSON literal is handed over at the place where it stands")]

use kv_patterns::etag::entity_tag;
use kv_patterns::kv::{Corrupt, Meter, Metered};
use kv_patterns::patterns::setting::{Error, Failure, Settings, Source, answer};
use kv_patterns::recent::Recent;
use serde_json::{Value, json};

use crate::faulty::{Faulty, Mode, clock};
use crate::support::{block_on, tenant};

struct World {
    main: Faulty,
    shadow: Faulty,
    meter: Meter,
    settings: Settings<Metered<Faulty>, Metered<Faulty>>,
}

fn isolate(main: &Faulty, shadow: &Faulty, meter: &Meter) -> Settings<Metered<Faulty>, Metered<Faulty>> {
    let metered = |store: &Faulty| Metered::new(store.clone(), meter.clone());
    Settings::new(metered(main), metered(shadow), tenant("acme"), Recent::new(8))
}

fn world() -> World {
    let clock = clock();
    let (main, shadow, meter) = (Faulty::new(&clock), Faulty::new(&clock), Meter::default());
    let settings = isolate(&main, &shadow, &meter);
    World { main, shadow, meter, settings }
}

impl World {
    fn read(&self, default: Option<Value>) -> Result<(Value, Source), Failure> {
        block_on(self.settings.read("limits", default.as_ref())).map(|answer| (answer.value, answer.source))
    }

    fn write(&self, value: Value, fallback: bool) {
        block_on(self.settings.write("limits", value, fallback)).unwrap();
    }

    /// The same stores, seen by an isolate that remembers nothing.
    fn restart(&mut self) {
        self.settings = isolate(&self.main, &self.shadow, &self.meter);
    }
}

#[test]
fn a_stored_object_lies_over_the_default_field_by_field() {
    let world = world();
    world.write(json!({"a":{"x":1},"n":null}), false);
    let default = json!({"a":{"x":0,"y":0},"b":2,"n":3});
    assert_eq!(world.read(Some(default)), Ok((json!({"a":{"x":1,"y":0},"b":2,"n":null}), Source::Stored)));
}

#[test]
fn the_tag_is_that_of_what_is_stored_whatever_the_default() {
    let world = world();
    let tag = |default: Option<Value>| block_on(world.settings.read("limits", default.as_ref())).unwrap().etag;
    assert_eq!(tag(Some(json!({"a":1}))), None, "nothing is stored");
    world.write(json!({"a":1}), false);
    let stored = tag(None);
    assert_eq!(stored, Some(entity_tag(&json!({"a":1}))));
    assert_eq!(tag(Some(json!({"b":2}))), stored);
    world.main.set(Mode::Down);
    assert_eq!(tag(Some(json!({"b":2}))), None, "the last known value may not be the one that is stored");
}

#[test]
fn missing_gives_the_default_or_says_so() {
    let world = world();
    assert_eq!(world.read(Some(json!(7))), Ok((json!(7), Source::Default)));
    assert_eq!(world.read(None), Err(Failure::Missing));
}

#[test]
fn a_stored_null_is_not_missing() {
    let world = world();
    world.write(json!(null), false);
    assert_eq!(world.read(Some(json!(7))), Ok((json!(null), Source::Stored)));
}

#[test]
fn the_last_known_value_is_served_while_kv_is_down() {
    let mut world = world();
    world.write(json!({"a":1}), false);
    world.main.set(Mode::Down);
    assert_eq!(world.read(Some(json!({"b":2}))), Ok((json!({"a":1,"b":2}), Source::Stale)));
    world.restart();
    assert_eq!(world.read(Some(json!({"b":2}))), Ok((json!({"b":2}), Source::Default)), "this isolate knows nothing");
    assert!(matches!(world.read(None), Err(Failure::Unreachable(_))));
}

#[test]
fn a_shadow_serves_isolates_that_know_nothing() {
    let mut world = world();
    world.write(json!(1), true);
    world.restart();
    world.main.set(Mode::Down);
    assert_eq!(world.read(None), Ok((json!(1), Source::Stale)));
    world.shadow.set(Mode::Down);
    assert!(matches!(world.read(None), Err(Failure::Unreachable(_))));
}

#[test]
fn a_corrupt_setting_is_told_apart_and_kept() {
    let mut world = world();
    world.write(json!(1), false);
    world.main.memory.plant("acme/setting/limits", b"setting.1\n{");
    assert_eq!(world.read(None), Ok((json!(1), Source::Stale)));
    world.restart();
    assert_eq!(world.read(None), Err(Failure::Corrupt(Corrupt::Damaged)));
    assert_eq!(world.main.memory.raw("acme/setting/limits").unwrap(), b"setting.1\n{");
}

#[test]
fn a_deleted_setting_does_not_come_back_when_kv_fails() {
    let world = world();
    world.write(json!(1), true);
    block_on(world.settings.delete("limits")).unwrap();
    world.main.set(Mode::Down);
    assert!(matches!(world.read(None), Err(Failure::Unreachable(_))));
}

#[test]
fn a_setting_that_vanished_is_forgotten() {
    let world = world();
    world.write(json!(1), false);
    block_on(isolate(&world.main, &world.shadow, &world.meter).delete("limits")).unwrap();
    assert_eq!(world.read(None), Err(Failure::Missing));
    world.main.set(Mode::Down);
    assert!(world.read(None).is_err());
}

#[test]
fn a_setting_too_large_is_refused_and_one_too_large_to_remember_is_not_remembered() {
    let world = world();
    let refused = block_on(world.settings.write("limits", json!("x".repeat(70_000)), false));
    assert!(matches!(refused, Err(Error::Value(_))));
    world.write(json!(1), false);
    world.write(json!("x".repeat(20_000)), false);
    world.main.set(Mode::Down);
    assert!(world.read(None).is_err(), "above all not the value before it");
}

#[test]
fn every_combination_is_decided() {
    let down = || Failure::Unreachable(kv_patterns::kv::Error::Throttled);
    for (found, known, default, expected) in [
        (Ok(json!(1)), Some(json!(2)), Some(json!(3)), Some((1, Source::Stored))),
        (Err(Failure::Missing), Some(json!(2)), Some(json!(3)), Some((3, Source::Default))),
        (Err(Failure::Missing), Some(json!(2)), None, None),
        (Err(Failure::Corrupt(Corrupt::Foreign)), Some(json!(2)), Some(json!(3)), Some((2, Source::Stale))),
        (Err(down()), Some(json!(2)), None, Some((2, Source::Stale))),
        (Err(down()), None, Some(json!(3)), Some((3, Source::Default))),
        (Err(down()), None, None, None),
    ] {
        let got = answer(found, known, default.as_ref()).ok().map(|answer| (answer.value, answer.source));
        assert_eq!(got, expected.map(|(value, source)| (json!(value), source)));
    }
}

#[test]
fn what_calls_cost() {
    let world = world();
    world.write(json!(1), false);
    assert_eq!(world.meter.to_string(), "r=0 w=1 d=0 l=0");
    world.read(None).unwrap();
    assert_eq!(world.meter.to_string(), "r=1 w=1 d=0 l=0");
    world.write(json!(1), true);
    assert_eq!(world.meter.to_string(), "r=1 w=3 d=0 l=0");
}
