//! Goal: stored experiments keep the promises of `patterns/experiment`. Method: the pattern on the memory store with a
//! clock moved by hand, a meter on every operation, and several isolates.

use std::collections::BTreeMap;
use std::rc::Rc;

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::kv::{MemoryStore, Meter, Metered, PageRequest, codec};
use kv_patterns::patterns::experiment::assign::{LAYER_SLOTS, Slots, Variant};
use kv_patterns::patterns::experiment::{
    Definition, EXPERIMENTS_MAX, EXPOSURE, Error, Events, Experiment, Experiments, FRESH_SECONDS, Memory, PAGES_MAX,
    PHASES_MAX, Reason, Refused, Report, Status, Tally,
};
use kv_patterns::random::SeededRandom;
use proptest::prelude::*;

use crate::faulty::{Faulty, Mode, clock};
use crate::support::{START, block_on, store, tenant};

type Stored = Metered<MemoryStore<ManualClock>>;

struct World {
    clock: ManualClock,
    config: MemoryStore<ManualClock>,
    counters: MemoryStore<ManualClock>,
    meter: Meter,
    random: SeededRandom,
}

/// One isolate of tenant `acme`.
struct Isolate<'w> {
    world: &'w World,
    experiments: Experiments<Stored>,
    events: Events<Stored>,
}

fn world() -> World {
    let (clock, config) = store();
    let counters = MemoryStore::new(clock.clone());
    World { clock, config, counters, meter: Meter::default(), random: SeededRandom::new(7) }
}

impl World {
    fn isolate(&self) -> Isolate<'_> {
        let (memory, tenant) = (Memory::default(), tenant("acme"));
        let metered = |store: &MemoryStore<ManualClock>| Metered::new(store.clone(), self.meter.clone());
        Isolate {
            world: self,
            experiments: Experiments::new(metered(&self.config), &tenant, memory.clone()),
            events: Events::new(metered(&self.counters), &tenant, memory),
        }
    }

    /// What `action` cost.
    fn cost<T>(&self, action: impl FnOnce() -> T) -> (T, String) {
        let count = || [self.meter.reads(), self.meter.writes(), self.meter.deletes(), self.meter.lists()];
        let before = count();
        let result = action();
        let [reads, writes, deletes, lists] = std::array::from_fn(|at| count()[at] - before[at]);
        (result, format!("r={reads} w={writes} d={deletes} l={lists}"))
    }
}

impl Isolate<'_> {
    fn try_put(&self, name: &str, definition: Definition, allow: bool) -> Result<Rc<Experiment>, Error> {
        let now = self.world.clock.now();
        let base = block_on(self.experiments.newest(name, now))?;
        block_on(self.experiments.put(base.as_ref(), name, definition, allow, now, &self.world.random))
    }

    #[track_caller]
    fn put(&self, definition: Definition) -> Rc<Experiment> {
        self.try_put("test", definition, true).unwrap()
    }

    #[track_caller]
    fn current(&self) -> Rc<Experiment> {
        block_on(self.experiments.current("test", self.world.clock.now())).unwrap().unwrap()
    }

    fn variant(&self, user: &str) -> String {
        self.current().place(user, None).variant.to_owned()
    }

    #[track_caller]
    fn event(&self, user: &str, token: Option<&str>, metric: &str, value: Option<f64>) -> bool {
        let experiment = self.current();
        let placement = experiment.place(user, token);
        block_on(self.events.record(&experiment, &placement, user, metric, value)).unwrap()
    }

    fn tally(&self) -> Tally {
        block_on(self.events.tally(&self.current())).unwrap()
    }
}

fn weights(weights: &[(&str, u64)]) -> Definition {
    let variants = weights.iter().map(|(name, weight)| Variant { name: (*name).to_owned(), weight: *weight });
    Definition {
        variants: variants.collect(),
        status: Status::Running,
        salt: Some("s".to_owned()),
        sticky: false,
        overrides: BTreeMap::new(),
        slots: None,
    }
}

fn users(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|user| format!("user-{user}"))
}

#[test]
fn the_stored_bytes_are_golden() {
    let world = world();
    world.isolate().put(weights(&[("a", 1), ("b", 1)]));
    let bytes = world.config.raw("acme/experiment/test").unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let (head, body) = text.split_once('\n').unwrap();
    assert_eq!(head, "experiment.1");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "name": "test", "id": body["id"], "secret": body["secret"], "sequence": START.millis(),
        "createdAt": START.millis(), "updatedAt": START.millis(), "status": "running", "sticky": false, "overrides": {},
        "phase": { "number": 1, "served": true, "allocation":
            { "salt": "s", "variants": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 1 }] } },
        "history": []
    });
    assert_eq!(body, expected);
    let read: Experiment = codec::decode(&bytes).unwrap();
    assert!(!format!("{read:?}").contains(body["secret"].as_str().unwrap()), "the secret is printed");
    let broken = text.replace("\"weight\":1", "\"weight\":0");
    assert!(codec::decode::<Experiment>(broken.as_bytes()).is_err(), "stored weights are checked again");
}

#[test]
fn the_bytes_of_an_event_are_golden_and_its_metadata_fits() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 1)]));
    isolate.event("u", None, "purchase", Some(2.5));
    let name = world.counters.names().remove(0);
    assert_eq!(
        world.counters.raw(&name).unwrap(),
        b"experiment-event.1\n{\"m\":\"purchase\",\"v\":\"a\",\"p\":1,\"n\":2.5}"
    );
    assert!(name.starts_with("acme/experiment-event/") && name.ends_with("/0000000001/purchase"), "{name}");
    // The longest names there are, of characters that JSON escapes; the store refuses metadata above 1024 bytes.
    isolate.put(weights(&[(&"\"".repeat(128), 1)]));
    assert!(isolate.event("u", None, &"\\".repeat(128), Some(-1.234_567_890_123_456e-300)));
}

#[test]
fn the_cost_table() {
    let world = world();
    let isolate = world.isolate();
    assert_eq!(world.cost(|| isolate.put(weights(&[("a", 1), ("b", 1)]))).1, "r=1 w=1 d=0 l=0");
    assert_eq!(world.cost(|| isolate.put(weights(&[("a", 1), ("b", 1)]))).1, "r=1 w=0 d=0 l=0");
    assert_eq!(world.cost(|| isolate.variant("u")).1, "r=0 w=0 d=0 l=0");
    assert_eq!(world.cost(|| world.isolate().variant("u")).1, "r=1 w=0 d=0 l=0");
    world.clock.advance_seconds(FRESH_SECONDS);
    assert_eq!(world.cost(|| isolate.variant("u")).1, "r=1 w=0 d=0 l=0");
    assert_eq!(world.cost(|| isolate.event("u", None, EXPOSURE, None)).1, "r=0 w=1 d=0 l=0");
    assert_eq!(world.cost(|| isolate.event("u", None, EXPOSURE, None)).1, "r=0 w=0 d=0 l=0");
    assert_eq!(world.cost(|| isolate.tally()).1, "r=0 w=0 d=0 l=1");
    let list = || block_on(isolate.experiments.list(&PageRequest::first(10))).unwrap();
    let (listed, cost) = world.cost(list);
    assert_eq!((listed.experiments.len(), cost.as_str()), (1, "r=1 w=0 d=0 l=1"));
    assert_eq!(world.cost(|| block_on(isolate.experiments.delete("test"))).1, "r=0 w=0 d=1 l=0");
}

#[test]
fn raising_a_from_ten_to_twenty_percent_takes_nobody_from_b_to_c() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 10), ("b", 45), ("c", 45)]));
    let before: Vec<String> = users(20_000).map(|user| isolate.variant(&user)).collect();
    let after = weights(&[("a", 20), ("b", 40), ("c", 40)]);
    let Err(Error::Refused(Refused::WouldMove(share))) = isolate.try_put("test", after.clone(), false) else {
        panic!("the edit was not refused");
    };
    assert!((share - 0.1).abs() < 1e-12, "{share}");
    isolate.put(after);
    let moved: Vec<_> = users(20_000).zip(before).filter(|(user, before)| isolate.variant(user) != *before).collect();
    assert!(moved.iter().all(|(user, _)| isolate.variant(user) == "a"), "somebody moved between b and c");
    assert!((1_800..2_200).contains(&moved.len()), "{}", moved.len());
}

#[test]
fn pausing_and_editing_does_not_get_around_the_guard() {
    let world = world();
    let isolate = world.isolate();
    let (one, two) = (weights(&[("a", 1), ("b", 1)]), weights(&[("a", 1), ("b", 3)]));
    let with = |definition: &Definition, status| Definition { status, ..definition.clone() };
    // Before the first start nobody has been served anything.
    isolate.try_put("test", with(&two, Status::Draft), false).unwrap();
    isolate.try_put("test", one.clone(), false).unwrap();
    for status in [Status::Draft, Status::Paused, Status::Ended] {
        isolate.try_put("test", with(&two, status), false).unwrap();
        isolate.try_put("test", with(&weights(&[("c", 1)]), status), false).unwrap();
        let resumed = isolate.try_put("test", two.clone(), false);
        assert!(matches!(resumed, Err(Error::Refused(Refused::WouldMove(_)))), "{status:?}");
        isolate.try_put("test", one.clone(), false).unwrap();
    }
    // The same shares in other numbers, and another order, move nobody.
    isolate.try_put("test", weights(&[("b", 5), ("a", 5)]), false).unwrap();
    isolate.put(two.clone());
    isolate.try_put("test", two, false).unwrap();
}

fn confined(start: u64, end: u64) -> Definition {
    let slots = Some(Slots::new("page", start, end).unwrap());
    Definition { slots, sticky: true, ..weights(&[("a", 1), ("b", 3)]) }
}

#[test]
fn experiments_of_one_layer_share_no_user_and_refuse_each_others_slots() {
    let world = world();
    let isolate = world.isolate();
    let put = |name: &str, definition| isolate.try_put(name, definition, false);
    let one = put("one", confined(0, 500_000)).unwrap();
    assert_eq!(put("two", confined(499_999, 700_000)), Err(Error::Refused(Refused::Overlaps("one".to_owned()))));
    let (two, cost) = world.cost(|| put("two", confined(500_000, 700_000)).unwrap());
    // One for the experiment, one for the list's only item.
    assert_eq!(cost, "r=2 w=1 d=0 l=1");
    for user in users(5_000) {
        let placements = [one.place(&user, None), two.place(&user, None)];
        assert!(placements.iter().any(|placement| placement.reason == Reason::NotInLayer), "{user} is in both");
        for placement in placements.iter().filter(|placement| placement.reason == Reason::NotInLayer) {
            assert_eq!((placement.variant, placement.phase), ("a", None));
        }
    }
    // Slots come before tokens, and after testers.
    let is_inside = |user: &String| one.place(user, None).reason != Reason::NotInLayer;
    let (inside, outside) = (users(100).find(is_inside).unwrap(), users(100).find(|user| !is_inside(user)).unwrap());
    let token = one.sticky_token(&inside, &one.place(&inside, None)).unwrap();
    assert_eq!(one.place(&inside, Some(&token)).reason, Reason::Sticky);
    let overrides = BTreeMap::from([(outside.clone(), "b".to_owned())]);
    let tested = put("one", Definition { overrides, ..confined(0, 500_000) }).unwrap();
    assert_eq!((tested.place(&outside, None).variant, tested.place(&outside, None).reason), ("b", Reason::Assigned));
    // What has ended holds nothing; another layer is independent.
    assert_eq!(put("one", confined(0, 600_000)).map(|_| ()), Err(Error::Refused(Refused::Overlaps("two".to_owned()))));
    put("two", Definition { status: Status::Ended, ..confined(500_000, 700_000) }).unwrap();
    put("one", confined(0, LAYER_SLOTS)).unwrap();
    let slots = Some(Slots::new("mail", 0, LAYER_SLOTS).unwrap());
    put("three", Definition { slots, ..weights(&[("a", 1)]) }).unwrap();
}

#[test]
fn slots_taken_from_a_served_experiment_are_guarded_and_slots_given_are_not() {
    let world = world();
    let isolate = world.isolate();
    let put = |definition| isolate.try_put("test", definition, false);
    put(confined(0, 400_000)).unwrap();
    let moved = |result: Result<_, Error>| match result {
        Err(Error::Refused(Refused::WouldMove(share))) => share,
        _ => panic!("the edit was not refused"),
    };
    // Three of four of those who leave had b, and get control.
    assert!((moved(put(confined(0, 300_000)).map(|_| ())) - 0.1 * 0.75).abs() < 1e-12);
    assert!((moved(put(confined(200_000, 500_000)).map(|_| ())) - 0.2 * 0.75).abs() < 1e-12);
    let everybody = Definition { slots: None, ..confined(0, 1) };
    put(everybody.clone()).unwrap();
    assert!((moved(put(confined(0, 400_000)).map(|_| ())) - 0.6 * 0.75).abs() < 1e-12);
    // Nor does a pause get around it.
    put(Definition { status: Status::Paused, ..confined(0, 100_000) }).unwrap();
    assert!((moved(put(confined(0, 100_000)).map(|_| ())) - 0.9 * 0.75).abs() < 1e-12);
    put(everybody).unwrap();
}

#[test]
fn the_stored_bytes_of_a_layer_are_golden_and_checked_again() {
    let world = world();
    world.isolate().put(confined(0, 500_000));
    let text = String::from_utf8(world.config.raw("acme/experiment/test").unwrap()).unwrap();
    assert!(text.contains(r#""slots":{"layer":"page","start":0,"end":500000}"#), "{text}");
    assert!(codec::decode::<Experiment>(text.as_bytes()).is_ok());
    assert!(codec::decode::<Experiment>(text.replace("500000", "5000000").as_bytes()).is_err());
}

#[test]
fn status_comes_before_tokens_and_overrides() {
    let world = world();
    let isolate = world.isolate();
    let overrides = BTreeMap::from([("eve".to_owned(), "b".to_owned())]);
    let running = Definition { sticky: true, overrides, ..weights(&[("a", 0), ("b", 1)]) };
    let experiment = isolate.put(running.clone());
    let token = experiment.sticky_token("u", &experiment.place("u", None)).unwrap();
    for status in [Status::Draft, Status::Paused, Status::Ended] {
        let experiment = isolate.put(Definition { status, ..running.clone() });
        for (user, token) in [("u", None), ("u", Some(token.as_str())), ("eve", None)] {
            let placement = experiment.place(user, token);
            assert_eq!((placement.variant, placement.reason, placement.phase), ("a", Reason::NotRunning, None));
            assert_eq!(experiment.sticky_token(user, &placement), None);
        }
    }
}

#[test]
fn a_token_keeps_its_user_until_its_phase_or_its_variant_is_gone() {
    let world = world();
    let isolate = world.isolate();
    let sticky = |pairs: &[(&str, u64)]| Definition { sticky: true, ..weights(pairs) };
    let first = isolate.put(sticky(&[("a", 1), ("b", 0)]));
    let token = first.sticky_token("u", &first.place("u", None)).unwrap();
    let kept = |experiment: &Experiment| {
        let placement = experiment.place("u", Some(&token));
        (placement.variant.to_owned(), placement.reason)
    };
    assert_eq!(kept(&isolate.put(sticky(&[("a", 0), ("b", 1)]))), ("a".to_owned(), Reason::Sticky));
    assert_eq!(kept(&isolate.put(weights(&[("a", 0), ("b", 1)]))), ("b".to_owned(), Reason::Assigned));
    assert_eq!(kept(&isolate.put(sticky(&[("b", 1)]))), ("b".to_owned(), Reason::Assigned));
    let mut last = isolate.put(sticky(&[("a", 1), ("b", 1)]));
    assert_eq!(kept(&last).1, Reason::Sticky);
    for weight in 0..PHASES_MAX as u64 {
        last = isolate.put(sticky(&[("a", 1), ("b", weight + 2)]));
    }
    assert_eq!(kept(&last).1, Reason::Assigned, "the phase is forgotten");
    assert_eq!(first.place("other", Some(&token)).reason, Reason::Assigned);
}

#[test]
fn an_isolate_remembers_a_bounded_number_and_never_steps_back() {
    let world = world();
    let isolate = world.isolate();
    for number in 0..=EXPERIMENTS_MAX {
        isolate.try_put(&format!("e{number}"), weights(&[("a", 1)]), false).unwrap();
    }
    let read =
        |name: &str| world.cost(|| block_on(isolate.experiments.current(name, world.clock.now())).unwrap().is_some());
    assert_eq!(read(&format!("e{EXPERIMENTS_MAX}")), (true, "r=0 w=0 d=0 l=0".to_owned()));
    assert_eq!(read("e0"), (true, "r=1 w=0 d=0 l=0".to_owned()));
    // A location that shows what was there before.
    isolate.put(weights(&[("a", 1)]));
    let old = world.config.raw("acme/experiment/test").unwrap();
    isolate.put(Definition { status: Status::Ended, ..weights(&[("a", 1)]) });
    world.config.plant("acme/experiment/test", &old);
    world.clock.advance_seconds(FRESH_SECONDS);
    assert_eq!(isolate.current().place("u", None).reason, Reason::NotRunning);
}

#[test]
fn a_user_counts_once_per_metric_whatever_repeats_it() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 1), ("b", 1)]));
    for _ in 0..3 {
        // Every repetition comes through another isolate, which remembers nothing.
        let other = world.isolate();
        for user in users(10) {
            assert!(other.event(&user, None, EXPOSURE, None));
            assert!(other.event(&user, None, "purchase", Some(2.5)));
        }
        other.event("lurker", None, "purchase", None);
    }
    let tally = isolate.tally();
    let sum = |of: fn(&Tally) -> Vec<u64>| of(&tally).iter().sum::<u64>();
    assert_eq!(sum(|tally| tally.arms.values().map(|arm| arm.exposures).collect()), 10);
    assert_eq!(sum(|tally| tally.arms.values().map(|arm| arm.conversions["purchase"].users).collect()), 10);
    let values: f64 = tally.arms.values().map(|arm| arm.conversions["purchase"].value_sum).sum();
    assert!((values - 25.0).abs() < 1e-9, "{values}");
    assert_eq!((tally.unexposed, tally.switched, tally.truncated), (1, 0, false));
    assert!(world.counters.names().iter().all(|name| !name.contains("user-")), "a user's id is in a key");
}

#[test]
fn of_one_event_with_several_values_the_last_one_counts() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 1)]));
    isolate.event("u", None, EXPOSURE, None);
    let value = || isolate.tally().arms["a"].conversions["purchase"].value_sum;
    for sent in [1.0, 2.0, 1.0, 2.0, 2.0] {
        isolate.event("u", None, "purchase", Some(sent));
        assert!((value() - sent).abs() < 1e-9, "{sent}");
    }
    let again = || isolate.event("u", None, "purchase", Some(2.0));
    assert_eq!(world.cost(again), (true, "r=0 w=0 d=0 l=0".to_owned()), "what is there is not written again");
}

#[test]
fn an_event_that_kv_did_not_take_is_written_when_it_is_repeated() {
    let (world, down) = (world(), Faulty::new(&clock()));
    let isolate = world.isolate();
    let experiment = isolate.put(weights(&[("a", 1)]));
    let events = Events::new(down.clone(), &tenant("acme"), Memory::default());
    let send = |value| block_on(events.record(&experiment, &experiment.place("u", None), "u", "purchase", Some(value)));
    let stored = || {
        let name = down.memory.names().remove(0);
        String::from_utf8(down.memory.raw(&name).unwrap()).unwrap()
    };
    send(1.0).unwrap();
    down.set(Mode::ReadOnly);
    send(2.0).unwrap_err();
    // What failed may have happened, so that what was there before is not known to be there either.
    down.set(Mode::Up);
    down.memory.plant(&down.memory.names().remove(0), b"of the write that failed");
    send(1.0).unwrap();
    assert!(stored().ends_with("\"n\":1.0}"), "{}", stored());
    // Of a key that was written a moment ago nobody knows with which value.
    down.set(Mode::Throttled);
    send(3.0).unwrap();
    down.set(Mode::Up);
    send(3.0).unwrap();
    assert!(stored().ends_with("\"n\":3.0}"), "{}", stored());
}

#[test]
fn who_saw_two_variants_counts_nowhere_and_the_sample_ratio_is_that_of_the_current_weights() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 9), ("b", 1)]));
    for user in users(400) {
        isolate.event(&user, None, EXPOSURE, None);
    }
    isolate.put(weights(&[("a", 1), ("b", 1)]));
    for user in users(400) {
        isolate.event(&user, None, EXPOSURE, None);
    }
    let tally = isolate.tally();
    let exposures: u64 = tally.arms.values().map(|arm| arm.exposures).sum();
    assert_eq!(exposures + tally.switched, 400);
    assert!((130..190).contains(&tally.switched), "{}", tally.switched);
    let report = Report::of(&isolate.current(), &tally);
    assert_eq!(report.sample_ratio.exposures, 400);
    assert!(!report.sample_ratio.mismatch, "a change of weights is taken for lost users");
}

#[test]
fn results_beyond_the_bound_are_a_fair_sample_and_say_so() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 1), ("b", 1)]));
    let count = PAGES_MAX * 1000 + 5_000;
    for user in users(count) {
        isolate.event(&user, None, EXPOSURE, None);
    }
    let (tally, cost) = world.cost(|| isolate.tally());
    assert_eq!(cost, format!("r=0 w=0 d=0 l={PAGES_MAX}"));
    let exposures: u64 = tally.arms.values().map(|arm| arm.exposures).sum();
    assert_eq!((tally.truncated, exposures), (true, u64::from(PAGES_MAX) * 1000 - 1));
    assert!((tally.sampled_share - 0.8).abs() < 0.02, "{}", tally.sampled_share);
    assert!(!Report::of(&isolate.current(), &tally).sample_ratio.mismatch);
}

#[test]
fn an_experiment_made_anew_has_no_events_and_honours_no_token() {
    let world = world();
    let isolate = world.isolate();
    let sticky = Definition { sticky: true, ..weights(&[("a", 1), ("b", 1)]) };
    let first = isolate.put(sticky.clone());
    let token = first.sticky_token("u", &first.place("u", None)).unwrap();
    isolate.event("u", None, EXPOSURE, None);
    block_on(isolate.experiments.delete("test")).unwrap();
    let second = isolate.put(sticky);
    assert_eq!(second.place("u", Some(&token)).reason, Reason::Assigned);
    assert_eq!(isolate.tally().arms.values().map(|arm| arm.exposures).sum::<u64>(), 0);
}

#[test]
fn an_unreadable_event_is_reported_and_the_others_count() {
    let world = world();
    let isolate = world.isolate();
    isolate.put(weights(&[("a", 1), ("b", 1)]));
    isolate.event("u", None, EXPOSURE, None);
    let name = world.counters.names().remove(0);
    // Below the same experiment, without metadata.
    let (experiment, _) = name.split_once("/0000000001/").unwrap();
    world.counters.plant(&format!("{experiment}x/0000000001/exposure"), b"junk");
    let tally = isolate.tally();
    assert_eq!(tally.unreadable, 1);
    assert_eq!(tally.arms.values().map(|arm| arm.exposures).sum::<u64>(), 1);
}

proptest! {
    /// Whatever is edited and however often it is paused: without the owner's word no user who was served one variant is
    /// ever served another.
    #[test]
    fn without_permission_nobody_is_moved(edits in prop::collection::vec((0_u64..4, 0_u64..4, 0_u64..4, 0_usize..4), 1..12)) {
        let world = world();
        let isolate = world.isolate();
        let mut served: BTreeMap<String, String> = BTreeMap::new();
        for (a, b, c, status) in edits {
            let status = [Status::Draft, Status::Running, Status::Paused, Status::Ended][status];
            let _ = isolate.try_put("test", Definition { status, ..weights(&[("a", a), ("b", b), ("c", c)]) }, false);
            let Ok(Some(experiment)) = block_on(isolate.experiments.current("test", world.clock.now())) else { continue };
            for user in users(60) {
                let placement = experiment.place(&user, None);
                if placement.reason != Reason::NotRunning {
                    let before = served.entry(user).or_insert_with(|| placement.variant.to_owned());
                    prop_assert_eq!(before.as_str(), placement.variant);
                }
            }
        }
    }
}
