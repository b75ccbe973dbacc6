//! Goal: replicas report, choose, repair and forget as their module head says. Method: three switchable stores on one
//! clock. What stale caches do to it is tested in the simulator.

use kv_patterns::background::Deferred;
use kv_patterns::clock::ManualClock;
use kv_patterns::kv::{Meter, Metered};
use kv_patterns::patterns::replica::{
    Content, Error, Found, HandOff, ReadPolicy, Replica, Replicas, SETTLE_SECONDS, TOMBSTONE_SECONDS, Verdict,
    WritePolicy, Written,
};
use kv_patterns::random::SeededRandom;
use kv_patterns::stamp::Stamps;

use crate::faulty::{Faulty, Mode, clock};
use crate::support::{block_on, tenant, without_stamp};

struct World {
    clock: ManualClock,
    stores: [Faulty; 3],
    meter: Meter,
    background: Deferred,
    stamps: Stamps,
    replicas: Replicas<Metered<Faulty>, ManualClock>,
}

const US: usize = 0;
const EU: usize = 1;
const ASIA: usize = 2;

fn world() -> World {
    let (clock, meter) = (clock(), Meter::default());
    let stores = [Faulty::new(&clock), Faulty::new(&clock), Faulty::new(&clock)];
    let replica = |index: usize, name, continents| Replica {
        name,
        continents,
        store: Metered::new(stores[index].clone(), meter.clone()),
    };
    let replicas =
        vec![replica(US, "us", &["NA", "SA"]), replica(EU, "eu", &["EU", "AF"]), replica(ASIA, "asia", &["AS", "OC"])];
    let replicas = Replicas::new(replicas, clock.clone(), &tenant("acme"));
    World {
        clock,
        stores,
        meter,
        background: Deferred::default(),
        stamps: Stamps::new(&SeededRandom::new(1)),
        replicas,
    }
}

impl World {
    fn put(&self, text: &str, policy: WritePolicy) -> Written {
        let content = Content { bytes: text.as_bytes().to_vec(), content_type: Some("text/plain".to_owned()) };
        block_on(self.replicas.put("k", content, None, policy, &self.stamps))
    }

    fn delete(&self) -> Written {
        block_on(self.replicas.delete("k", WritePolicy::All, &self.stamps))
    }

    fn get(&self, policy: ReadPolicy, continent: &str) -> Result<Option<Found>, Error> {
        block_on(self.replicas.get("k", policy, Some(continent), &self.background))
    }

    /// The text and the replica it came from.
    #[track_caller]
    fn check(&self, policy: ReadPolicy, continent: &str, expected: Option<(&str, &str)>) {
        let found = self.get(policy, continent).unwrap();
        let found = found
            .as_ref()
            .map(|found| (std::str::from_utf8(&found.value.content.as_ref().unwrap().bytes).unwrap(), found.replica));
        assert_eq!(found, expected);
    }

    /// What a replica holds.
    fn raw(&self, replica: usize) -> Option<Vec<u8>> {
        self.stores[replica].memory.raw("acme/replicated/k")
    }

    fn repair(&self) {
        block_on(self.background.run());
    }

    fn settle(&self) {
        self.clock.advance_seconds(SETTLE_SECONDS + 1);
    }
}

#[test]
fn a_value_is_read_from_the_nearest_replica() {
    let world = world();
    assert_eq!(world.put("1", WritePolicy::All).verdict, Verdict::Everywhere);
    world.check(ReadPolicy::Nearest, "SA", Some(("1", "us")));
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "eu")));
    world.check(ReadPolicy::Nearest, "OC", Some(("1", "asia")));
    world.check(ReadPolicy::Nearest, "AN", Some(("1", "us")));
    let found = world.get(ReadPolicy::Newest, "EU").unwrap().unwrap();
    assert_eq!(found.value.content.unwrap().content_type.as_deref(), Some("text/plain"));
}

#[test]
fn any_bytes_come_back_as_they_were() {
    let world = world();
    for bytes in [vec![], b"\n\n".to_vec(), (0..=255).collect::<Vec<u8>>()] {
        let content = Content { bytes, content_type: None };
        block_on(world.replicas.put("k", content.clone(), None, WritePolicy::All, &world.stamps));
        assert_eq!(world.get(ReadPolicy::Nearest, "EU").unwrap().unwrap().value.content, Some(content));
    }
}

#[test]
fn every_policy_counts_the_replicas_that_took_the_value() {
    let world = world();
    let check = |down: &[usize], policy, expected| {
        for (index, store) in world.stores.iter().enumerate() {
            store.set(if down.contains(&index) { Mode::Down } else { Mode::Up });
        }
        let written = world.put("x", policy);
        assert_eq!(written.verdict, expected, "{down:?} {policy:?}");
        let failed: Vec<usize> = (0..3).filter(|index| written.outcomes[*index].failure.is_some()).collect();
        assert_eq!(failed, down);
    };
    for policy in [WritePolicy::Any, WritePolicy::Quorum, WritePolicy::All] {
        check(&[], policy, Verdict::Everywhere);
        check(&[US, EU, ASIA], policy, Verdict::TooFew);
    }
    check(&[US], WritePolicy::Quorum, Verdict::Enough);
    check(&[US, EU], WritePolicy::Quorum, Verdict::TooFew);
    check(&[US, EU], WritePolicy::Any, Verdict::Enough);
    check(&[ASIA], WritePolicy::All, Verdict::TooFew);
}

#[test]
fn a_replica_that_fails_or_lacks_the_key_is_passed_over() {
    let world = world();
    world.stores[EU].set(Mode::Down);
    world.put("1", WritePolicy::Quorum);
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "us")));
    world.stores[EU].set(Mode::Up);
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "us")));
}

#[test]
fn a_slow_replica_does_not_keep_a_reader_waiting() {
    let world = world();
    world.put("1", WritePolicy::All);
    world.stores[EU].set(Mode::Slow(60_000));
    let before = kv_patterns::clock::Clock::now(&world.clock);
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "us")));
    assert!(kv_patterns::clock::Clock::now(&world.clock).millis_since(before) < 1000);
}

#[test]
fn the_newest_value_wins_wherever_it_is() {
    let world = world();
    world.put("old", WritePolicy::All);
    world.stores[US].set(Mode::Down);
    world.stores[EU].set(Mode::Down);
    world.put("new", WritePolicy::Any);
    world.stores[US].set(Mode::Up);
    world.stores[EU].set(Mode::Up);
    world.check(ReadPolicy::Nearest, "EU", Some(("old", "eu")));
    world.check(ReadPolicy::Newest, "EU", Some(("new", "asia")));
    world.check(ReadPolicy::Quorum, "EU", Some(("new", "asia")));
}

#[test]
fn a_quorum_needs_more_than_half_and_the_newest_needs_one() {
    let world = world();
    world.put("1", WritePolicy::All);
    world.stores[US].set(Mode::Down);
    world.check(ReadPolicy::Quorum, "NA", Some(("1", "eu")));
    world.stores[EU].set(Mode::Down);
    assert!(matches!(world.get(ReadPolicy::Quorum, "NA"), Err(Error::TooFew(_))));
    world.check(ReadPolicy::Newest, "NA", Some(("1", "asia")));
    world.stores[ASIA].set(Mode::Down);
    assert!(matches!(world.get(ReadPolicy::Nearest, "NA"), Err(Error::TooFew(_))));
}

#[test]
fn an_unreachable_replica_is_not_an_absent_key() {
    let world = world();
    world.check(ReadPolicy::Nearest, "EU", None);
    for store in &world.stores {
        store.set(Mode::Down);
    }
    assert!(world.get(ReadPolicy::Nearest, "EU").is_err());
}

#[test]
fn a_missed_write_is_repaired_behind_the_answer_once_it_is_no_stale_cache() {
    let world = world();
    world.put("old", WritePolicy::All);
    world.stores[EU].set(Mode::Down);
    world.put("new", WritePolicy::Quorum);
    world.stores[EU].set(Mode::Up);
    world.get(ReadPolicy::Newest, "EU").unwrap();
    assert!(world.background.is_empty(), "too early to tell from a stale cache");
    world.settle();
    world.get(ReadPolicy::Newest, "EU").unwrap();
    world.repair();
    world.check(ReadPolicy::Nearest, "EU", Some(("new", "eu")));
    world.get(ReadPolicy::Newest, "EU").unwrap();
    assert!(world.background.is_empty(), "nothing is left to repair");
}

#[test]
fn a_repair_looks_again_and_leaves_a_newer_value_alone() {
    let world = world();
    world.stores[EU].set(Mode::Down);
    world.put("middle", WritePolicy::Quorum);
    world.stores[EU].set(Mode::Up);
    world.settle();
    world.get(ReadPolicy::Newest, "EU").unwrap();
    world.put("newest", WritePolicy::All);
    world.repair();
    world.check(ReadPolicy::Nearest, "EU", Some(("newest", "eu")));
}

#[test]
fn a_damaged_copy_is_repaired_and_one_of_a_newer_format_is_not() {
    let world = world();
    world.put("1", WritePolicy::All);
    world.settle();
    world.stores[EU].memory.plant("acme/replicated/k", b"junk");
    world.stores[ASIA].memory.plant("acme/replicated/k", b"replica.2\n{}\n");
    world.check(ReadPolicy::Newest, "EU", Some(("1", "us")));
    world.repair();
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "eu")));
    assert_eq!(world.stores[ASIA].memory.raw("acme/replicated/k").unwrap(), b"replica.2\n{}\n");
}

#[test]
fn only_unreadable_copies_are_an_error_and_not_an_absence() {
    let world = world();
    for store in &world.stores {
        store.memory.plant("acme/replicated/k", b"junk");
    }
    assert!(matches!(world.get(ReadPolicy::Newest, "EU"), Err(Error::Corrupt(_))));
}

#[test]
fn a_deleted_key_does_not_come_back_from_a_replica_that_missed_it() {
    let world = world();
    world.put("1", WritePolicy::All);
    let old = world.raw(EU).unwrap();
    world.stores[EU].set(Mode::Down);
    assert_eq!(block_on(world.replicas.delete("k", WritePolicy::Quorum, &world.stamps)).verdict, Verdict::Enough);
    world.stores[EU].set(Mode::Up);
    let tombstone = world.raw(US).unwrap();
    assert_ne!(tombstone, old);
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "eu")));
    world.check(ReadPolicy::Newest, "EU", None);
    world.check(ReadPolicy::Quorum, "EU", None);
    world.settle();
    // However often the one that missed it is read, its value is carried nowhere; the tombstone is carried to it.
    for _ in 0..3 {
        world.get(ReadPolicy::Nearest, "EU").unwrap();
        world.repair();
    }
    assert_eq!(
        [US, EU, ASIA].map(|index| world.raw(index).unwrap()),
        [tombstone.clone(), old.clone(), tombstone.clone()]
    );
    world.check(ReadPolicy::Newest, "EU", None);
    world.repair();
    assert_eq!(world.raw(EU).unwrap(), tombstone);
    for store in [US, ASIA] {
        world.stores[store].set(Mode::Down);
    }
    world.check(ReadPolicy::Nearest, "EU", None);
    for store in [US, ASIA] {
        world.stores[store].set(Mode::Up);
    }
    // A write of the old value that was on its way all the time is undone again.
    world.stores[EU].memory.plant("acme/replicated/k", &old);
    world.check(ReadPolicy::Quorum, "EU", None);
    world.repair();
    assert_eq!(world.raw(EU).unwrap(), tombstone);
    world.clock.advance_seconds(TOMBSTONE_SECONDS);
    for policy in [ReadPolicy::Nearest, ReadPolicy::Newest, ReadPolicy::Quorum] {
        world.check(policy, "EU", None);
    }
}

#[test]
fn a_hint_carries_a_deletion_as_it_carries_a_value() {
    let world = world();
    world.put("1", WritePolicy::All);
    world.stores[EU].set(Mode::Down);
    block_on(world.replicas.delete("k", WritePolicy::Quorum, &world.stamps));
    world.stores[EU].set(Mode::Up);
    let (handed, failures) = block_on(world.replicas.hand_off_all(10));
    assert_eq!((handed.done, handed.kept, failures), (0, 1, Vec::new()), "the write is only known when it is seen");
    assert_eq!(world.raw(EU), world.raw(US));
    world.check(ReadPolicy::Nearest, "EU", None);
    assert_eq!(block_on(world.replicas.hand_off_all(10)).0.done, 1);
}

#[test]
fn a_write_after_a_delete_is_seen() {
    let world = world();
    world.put("1", WritePolicy::All);
    world.delete();
    world.check(ReadPolicy::Nearest, "EU", None);
    world.put("2", WritePolicy::All);
    world.check(ReadPolicy::Nearest, "EU", Some(("2", "eu")));
}

#[test]
fn a_value_ends_everywhere_at_its_time_and_a_repair_does_not_prolong_it() {
    let world = world();
    world.stores[EU].set(Mode::Down);
    let content = Content { bytes: b"1".to_vec(), content_type: None };
    block_on(world.replicas.put("k", content, Some(SETTLE_SECONDS + 100), WritePolicy::Quorum, &world.stamps));
    world.stores[EU].set(Mode::Up);
    world.settle();
    world.get(ReadPolicy::Newest, "EU").unwrap();
    world.repair();
    world.check(ReadPolicy::Nearest, "EU", Some(("1", "eu")));
    world.clock.advance_seconds(100);
    for policy in [ReadPolicy::Nearest, ReadPolicy::Newest] {
        world.check(policy, "EU", None);
    }
}

#[test]
fn a_hint_carries_a_write_to_the_replica_that_missed_it_without_a_reader() {
    let world = world();
    world.stores[EU].set(Mode::Down);
    world.put("1", WritePolicy::Any);
    world.put("2", WritePolicy::Any);
    let order = HandOff { budget: 10, cursor: None };
    let handed = block_on(world.replicas.hand_off(US, &order)).unwrap();
    assert_eq!((handed.done, handed.kept), (0, 2), "the replica is still down");
    world.stores[EU].set(Mode::Up);
    block_on(world.replicas.hand_off(US, &order)).unwrap();
    world.check(ReadPolicy::Nearest, "EU", Some(("2", "eu")));
    let handed = block_on(world.replicas.hand_off(US, &order)).unwrap();
    assert_eq!((handed.done, handed.kept), (2, 0), "dropped only when all were seen to have it");
    assert!(world.stores.iter().all(|store| store.memory.names() == ["acme/replicated/k"]));
}

#[test]
fn a_replica_that_is_down_keeps_no_other_from_what_it_missed() {
    let world = world();
    world.stores[US].set(Mode::Down);
    world.stores[EU].set(Mode::Down);
    world.put("1", WritePolicy::Any);
    world.stores[EU].set(Mode::Up);
    let handed = block_on(world.replicas.hand_off(ASIA, &HandOff { budget: 10, cursor: None })).unwrap();
    assert_eq!((handed.done, handed.kept), (0, 1));
    assert_eq!(world.raw(EU), world.raw(ASIA));
}

#[test]
fn a_hint_never_carries_its_value_over_a_newer_one() {
    let world = world();
    world.stores[EU].set(Mode::ReadOnly);
    world.put("older", WritePolicy::Any);
    world.stores[EU].set(Mode::Up);
    world.put("newer", WritePolicy::All);
    let handed = block_on(world.replicas.hand_off(US, &HandOff { budget: 10, cursor: None })).unwrap();
    assert_eq!(handed.done, 1);
    for continent in ["NA", "EU", "AS"] {
        let found = world.get(ReadPolicy::Nearest, continent).unwrap().unwrap();
        assert_eq!(found.value.content.unwrap().bytes, b"newer");
    }
}

#[test]
fn a_timer_goes_through_all_hints_in_steps_and_one_replica_that_fails_stops_no_other() {
    let world = world();
    let names = |index: usize| world.stores[index].memory.names();
    world.stores[EU].set(Mode::Down);
    for n in 0..5 {
        let content = Content { bytes: vec![n], content_type: None };
        block_on(world.replicas.put(&format!("k{n}"), content, None, WritePolicy::Any, &world.stamps));
    }
    let (handed, failures) = block_on(world.replicas.hand_off_all(2));
    assert_eq!((handed.kept, failures.len()), (2, 1), "EU can neither take values nor show its hints");
    world.stores[EU].set(Mode::Up);
    // Each step goes on where the one before ended: three for a round, and a second round sees what the first one did.
    for _ in 0..6 {
        assert!(block_on(world.replicas.hand_off_all(2)).1.is_empty());
    }
    let values: Vec<String> = (0..5).map(|n| format!("acme/replicated/k{n}")).collect();
    assert_eq!(names(EU), values);
    assert!(names(US).iter().all(|name| !name.contains("hint/")), "{:?}", names(US));
}

#[test]
fn hints_of_long_keys_find_their_key() {
    let world = world();
    let key = "k".repeat(250);
    world.stores[EU].set(Mode::Down);
    let content = Content { bytes: b"1".to_vec(), content_type: None };
    block_on(world.replicas.put(&key, content, None, WritePolicy::Any, &world.stamps));
    world.stores[EU].set(Mode::Up);
    block_on(world.replicas.hand_off(US, &HandOff { budget: 1, cursor: None })).unwrap();
    let found = block_on(world.replicas.get(&key, ReadPolicy::Nearest, Some("EU"), &world.background)).unwrap();
    assert_eq!(found.unwrap().replica, "eu");
}

#[test]
fn what_calls_cost() {
    let world = world();
    world.put("1", WritePolicy::All);
    assert_eq!(world.meter.to_string(), "r=0 w=3 d=0 l=0");
    world.get(ReadPolicy::Nearest, "EU").unwrap();
    assert_eq!(world.meter.to_string(), "r=1 w=3 d=0 l=0");
    world.get(ReadPolicy::Newest, "EU").unwrap();
    assert_eq!(world.meter.to_string(), "r=4 w=3 d=0 l=0");
    world.stores[EU].set(Mode::Down);
    world.put("2", WritePolicy::Any);
    assert_eq!(world.meter.to_string(), "r=4 w=7 d=0 l=0", "three tried, and a hint");
}

#[test]
fn the_stored_bytes_are_golden() {
    let world = world();
    block_on(world.replicas.put(
        "k",
        Content { bytes: b"\xFF\n".to_vec(), content_type: Some("a/b".to_owned()) },
        Some(60),
        WritePolicy::All,
        &world.stamps,
    ));
    let raw = world.stores[US].memory.raw("acme/replicated/k").unwrap();
    let text = without_stamp(&raw);
    assert_eq!(text, "replica.1\n{\"stamp\":\"\",\"expiresAt\":1767225660000,\"contentType\":\"a/b\"}\n\u{FFFD}\n");
}
