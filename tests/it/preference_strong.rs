//! Goal: strong mode keeps the promises of its head. Method: the pure decision with states passed on by hand, as the
//! object passes them on, beside the preferences in KV.

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{MemoryStore, Meter, Metered};
use kv_patterns::patch::Patch;
use kv_patterns::patterns::preference::strong::{COPY_MILLIS, IDLE_SECONDS, Request, SETTLE_SECONDS, State, decide};
use kv_patterns::patterns::preference::{Change, Error, Preferences, Refusal, TOMBSTONE_SECONDS, View};
use kv_patterns::random::SeededRandom;
use kv_patterns::recent::Recent;
use kv_patterns::stamp::Stamps;
use serde_json::{Value, json};

use crate::support::{block_on, store, tenant};

struct World {
    clock: ManualClock,
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    preferences: Preferences<Metered<MemoryStore<ManualClock>>>,
    /// The writer's clock of calls that go around the object.
    stamps: Stamps,
    object: State,
    object_stamps: Stamps,
}

fn world() -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let preferences = Preferences::new(Metered::new(memory.clone(), meter.clone()), &tenant("acme"), Recent::new(8));
    let stamps = |seed| Stamps::new(&SeededRandom::new(seed));
    World { clock, memory, meter, preferences, stamps: stamps(1), object: State::default(), object_stamps: stamps(2) }
}

fn theme(value: &str) -> Change {
    Change::Patch(Patch::Merge(json!({ "theme": value })))
}

fn if_match(etag: &str) -> Precondition {
    Precondition { if_match: Some(etag.to_owned()), if_none_match: None }
}

impl World {
    fn ask(&mut self, change: Option<(Change, Precondition)>) -> Result<View, Error> {
        let found = block_on(self.preferences.find("ada"))?;
        let request = Request::new(&found, change);
        let (state, answer) = decide(&self.object, &request, self.clock.now(), &self.object_stamps);
        self.object = state;
        request.view(answer, found.unreadable, self.clock.now(), &self.stamps)
    }

    fn read(&mut self) -> Value {
        Value::Object(self.ask(None).unwrap().document)
    }

    fn change(&mut self, change: Change) -> View {
        self.ask(Some((change, Precondition::default()))).unwrap()
    }

    /// A change without strong mode.
    fn go_around(&self, change: &Change) {
        let none = Precondition::default();
        block_on(self.preferences.change("ada", change, &none, self.clock.now(), &self.stamps)).unwrap();
    }

    fn theme_in_kv(&self) -> Value {
        block_on(self.preferences.read("ada")).unwrap().document["theme"].clone()
    }

    /// What the object's alarm does when something is due. How many fields it wrote.
    fn copy(&mut self) -> usize {
        let due = self.object.to_copy();
        block_on(self.preferences.write("ada", &due)).unwrap();
        self.object.copied(&due, self.clock.now());
        due.iter().count()
    }
}

#[test]
fn of_many_who_name_the_same_version_one_succeeds() {
    let mut world = world();
    let before = world.ask(None).unwrap();
    let outcomes: Vec<_> = (0..20)
        .map(|n| {
            let change = theme(if n % 2 == 0 { "dark" } else { "system" });
            world.ask(Some((change, if_match(&before.etag))))
        })
        .collect();
    let winner = outcomes[0].as_ref().unwrap();
    assert_eq!(winner.document["theme"], "dark");
    for outcome in &outcomes[1..] {
        assert_eq!(outcome, &Err(Refusal::PreconditionFailed.into()));
    }
    assert_eq!(world.read()["theme"], "dark");
}

#[test]
fn a_refusal_has_the_reason_it_has_without_strong_mode_and_changes_nothing() {
    let mut world = world();
    let before = world.object.clone();
    let purple = world.ask(Some((theme("purple"), Precondition::default()))).unwrap_err();
    assert!(matches!(&purple, Error::Refused(Refusal::Field(error)) if error.field == "theme"), "{purple:?}");
    let test = Patch::operations(json!([{"op":"test","path":"/theme","value":"dark"}])).unwrap();
    let failed = world.ask(Some((Change::Patch(test), Precondition::default()))).unwrap_err();
    assert!(matches!(failed, Error::Refused(Refusal::Patch(_))), "{failed:?}");
    assert_eq!(world.object, before);
}

#[test]
fn what_was_set_without_strong_mode_counts_and_what_is_set_with_it_reaches_kv() {
    let mut world = world();
    world.go_around(&theme("dark"));
    assert_eq!(world.read()["theme"], "dark");
    world.clock.advance_millis(1);
    let view = world.change(theme("system"));
    assert_eq!((view.document["theme"].clone(), world.theme_in_kv()), (json!("system"), json!("dark")));
    assert_eq!(world.object.next_alarm(world.clock.now()), world.clock.now(), "at once");
    assert_eq!(world.copy(), 1);
    assert_eq!(world.theme_in_kv(), "system");
    assert_eq!(block_on(world.preferences.read("ada")).unwrap().etag, view.etag, "a tag is a tag in both modes");
}

#[test]
fn a_later_change_that_went_around_the_object_is_taken_up() {
    let mut world = world();
    world.change(theme("dark"));
    world.copy();
    let tag = world.ask(None).unwrap().etag;
    world.clock.advance_millis(5);
    world.go_around(&theme("system"));
    let refused = world.ask(Some((theme("light"), if_match(&tag))));
    assert!(matches!(refused, Err(Error::Refused(Refusal::PreconditionFailed))), "{refused:?}");
    assert_eq!(world.read()["theme"], "system");
}

#[test]
fn kv_gets_one_write_a_second_and_what_changed_meanwhile_stays_due() {
    let mut world = world();
    world.change(theme("dark"));
    let due = world.object.to_copy();
    world.clock.advance_millis(1);
    world.change(theme("system"));
    world.object.copied(&due, world.clock.now());
    assert_eq!(world.object.next_alarm(world.clock.now()), world.clock.now().plus_millis(COPY_MILLIS));
    assert_eq!(world.copy(), 1, "the second change was not in that copy");
    assert_eq!(world.copy(), 0);
    assert_eq!(world.theme_in_kv(), "system");
}

#[test]
fn an_older_value_that_stays_in_kv_is_written_over_once_it_cannot_be_late() {
    let mut world = world();
    world.go_around(&theme("light"));
    let old = world.memory.raw("acme/preference/ada/theme").unwrap();
    world.clock.advance_seconds(1);
    world.change(theme("dark"));
    world.copy();
    // A write that was on its way for long arrives after the copy.
    world.memory.plant("acme/preference/ada/theme", &old);
    world.clock.advance_seconds(60);
    assert_eq!(world.read()["theme"], "dark", "the object keeps the greater stamp");
    assert_eq!(world.copy(), 0, "it may be a stale cache");
    world.clock.advance_seconds(SETTLE_SECONDS);
    world.read();
    assert_eq!((world.copy(), world.theme_in_kv()), (1, json!("dark")));
    world.memory.plant("acme/preference/ada/theme", &old);
    world.read();
    assert_eq!(world.copy(), 0, "not again before that copy can be seen");
}

#[test]
fn a_day_later_everything_is_forgotten_if_kv_has_it() {
    let mut world = world();
    world.change(theme("dark"));
    world.clock.advance_seconds(IDLE_SECONDS);
    assert!(!world.object.is_idle(world.clock.now()), "the copy is due");
    world.copy();
    assert!(world.object.is_idle(world.clock.now()));
    let found = block_on(world.preferences.find("ada")).unwrap();
    let known = world.object.clone();
    world.object.join(&found.schema, &found.overrides, world.clock.now());
    assert_eq!(world.object, known, "nothing is left to do");

    block_on(kv_patterns::kv::Store::delete(&world.memory, &tenant("acme").space("preference").key(&["ada", "theme"])))
        .unwrap();
    let found = block_on(world.preferences.find("ada")).unwrap();
    world.clock.advance_seconds(SETTLE_SECONDS);
    world.object.join(&found.schema, &found.overrides, world.clock.now());
    assert!(!world.object.is_idle(world.clock.now()), "KV lost it");
    assert_eq!((world.copy(), world.theme_in_kv()), (1, json!("dark")));
}

#[test]
fn cleared_preferences_do_not_come_back_when_their_tombstones_end() {
    let mut world = world();
    world.change(theme("dark"));
    world.copy();
    world.clock.advance_seconds(1);
    world.change(Change::Clear);
    world.copy();
    world.clock.advance_seconds(TOMBSTONE_SECONDS + 1);
    assert_eq!(world.read()["theme"], "light");
    assert_eq!((world.copy(), world.object.to_copy().is_empty()), (0, true), "and nothing is left of it");
    assert!(!serde_json::to_string(&world.object).unwrap().contains("theme"));
}

#[test]
fn only_what_does_no_harm_twice_is_asked_twice() {
    let found = block_on(world().preferences.find("ada")).unwrap();
    let check = |change: Option<(Change, Precondition)>, expected| {
        assert_eq!(Request::new(&found, change.clone()).is_repeatable(), expected, "{change:?}");
    };
    check(None, true);
    check(Some((theme("dark"), Precondition::default())), true);
    check(Some((Change::Clear, Precondition::default())), true);
    check(Some((theme("dark"), if_match("\"x\""))), false);
    check(Some((Change::Patch(Patch::operations(json!([])).unwrap()), Precondition::default())), false);
}

#[test]
fn a_question_reaches_the_object_as_it_was_asked() {
    let found = block_on(world().preferences.find("ada")).unwrap();
    let operations = json!([
        {"op":"test","path":"/theme","value":null}, {"op":"add","path":"/a~1b","value":{"c":[1]}}, {"op":"remove","path":"/x"},
        {"op":"replace","path":"","value":{}}, {"op":"move","from":"/x","path":"/y"}, {"op":"copy","from":"/x","path":"/-"},
    ]);
    for patch in [Patch::operations(operations).unwrap(), Patch::Merge(json!({"theme":null})), Patch::Merge(json!(7))] {
        let request = Request::new(&found, Some((Change::Patch(patch), if_match("\"x\""))));
        let text = serde_json::to_string(&request).unwrap();
        let again: Request = serde_json::from_str(&text).unwrap();
        assert_eq!(again, request, "{text}");
    }
}

#[test]
fn what_it_costs_and_what_the_object_keeps() {
    let mut world = world();
    world.read();
    assert_eq!(world.meter.to_string(), "r=5 w=0 d=0 l=0");
    world.change(theme("dark"));
    assert_eq!(world.meter.to_string(), "r=10 w=0 d=0 l=0", "the write comes behind");
    world.copy();
    assert_eq!(world.meter.to_string(), "r=10 w=1 d=0 l=0");
    let text = serde_json::to_string(&world.object).unwrap();
    let millis = world.clock.now().millis();
    let (before, after) = text.split_once("\"stamp\":\"").unwrap();
    assert_eq!(before, "{\"overrides\":{\"theme\":{");
    let expected = format!("\"value\":\"dark\"}}}},\"due\":[],\"copiedAt\":{millis},\"changedAt\":{millis}}}");
    assert_eq!(after.split_once("\",").unwrap().1, expected);
}
