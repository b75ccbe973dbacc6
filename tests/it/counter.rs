//! Goal: counters conserve every increment and cost what they promise. Method: isolates by hand on the reference
//! store, properties over generated histories of the exact decision.

use kv_patterns::background::Deferred;
use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::kv::{Error, Key, MemoryStore, Meter, Metered, Page, PageRequest, Prefix, Read, Store, Tenant, Write};
use kv_patterns::patterns::counter::exact::{self, Answer, KEY_SECONDS, KEYS_MAX, Request, Seen, State};
use kv_patterns::patterns::counter::fold::{self, SETTLE_SECONDS};
use kv_patterns::patterns::counter::{Counters, Gather, Refused, VALUE_MAX};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::support::{START, SharedRandom, block_on, store, tenant};

const HOUR_SECONDS: u64 = 3600;

/// A store whose next writes fail, with or without effect.
#[derive(Clone, Debug)]
struct Faulty<S> {
    store: S,
    fail: Rc<Cell<Option<Failure>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Before,
    After,
    Throttled,
}

impl<S: Store> Store for Faulty<S> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        self.store.get(key, read).await
    }
    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.store.get_many(keys, read).await
    }
    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        match self.fail.get() {
            Some(Failure::Throttled) => return Err(Error::Throttled),
            Some(Failure::Before) => return Err(Error::Unavailable("before".to_owned())),
            _ => {}
        }
        self.store.put(key, value, write).await?;
        if self.fail.get().is_some() { Err(Error::Unavailable("after".to_owned())) } else { Ok(()) }
    }
    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.store.delete(key).await
    }
    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        self.store.list(prefix, request).await
    }
}

type TestStore = Faulty<Metered<MemoryStore<ManualClock>>>;

/// One isolate on a shared store and clock.
struct Isolate {
    counters: Counters<TestStore, ManualClock, SharedRandom>,
    gather: Gather,
    background: Deferred,
    meter: Meter,
    fail: Rc<Cell<Option<Failure>>>,
}

impl Isolate {
    fn new(clock: &ManualClock, store: &MemoryStore<ManualClock>, tenant: &Tenant, seed: u64) -> Self {
        let (meter, fail, gather) = (Meter::default(), Rc::<Cell<Option<Failure>>>::default(), Gather::default());
        let store = Faulty { store: Metered::new(store.clone(), meter.clone()), fail: fail.clone() };
        let random = SharedRandom::new(seed);
        let counters = Counters::new(store, clock.clone(), random, tenant.clone(), gather.clone());
        Self { counters, gather, background: Deferred::default(), meter, fail }
    }

    fn add(&self, name: &str, delta: i64) {
        self.counters.add(name, delta, &self.background).unwrap();
    }

    fn flush(&self) {
        block_on(self.background.run());
    }

    fn value(&self, name: &str) -> i64 {
        block_on(self.counters.read(name)).unwrap().value
    }

    fn reset(&self, name: &str) {
        block_on(self.counters.reset(name)).unwrap();
    }
}

/// A clock, its store, and so many isolates of one tenant.
fn isolates(count: u64) -> (ManualClock, MemoryStore<ManualClock>, Vec<Isolate>) {
    let (clock, store) = store();
    let isolates = (0..count).map(|seed| Isolate::new(&clock, &store, &tenant("t"), seed)).collect();
    (clock, store, isolates)
}

fn fold_all(store: &MemoryStore<ManualClock>, clock: &ManualClock) -> fold::Report {
    block_on(fold::run(store, &tenant("t"), None, clock.now())).unwrap()
}

#[test]
fn an_increment_costs_the_request_nothing_and_a_reading_one_list() {
    let (clock, _, isolates) = isolates(1);
    let isolate = &isolates[0];
    for _ in 0..100 {
        isolate.add("hits", 1);
    }
    assert_eq!(isolate.meter.to_string(), "r=0 w=0 d=0 l=0");
    assert_eq!(isolate.background.len(), 1, "one flush for all of them");
    isolate.flush();
    assert_eq!(isolate.meter.to_string(), "r=0 w=1 d=0 l=1", "one write, and one look for resets");
    clock.advance_seconds(2);
    isolate.add("hits", 1);
    isolate.flush();
    assert_eq!(isolate.meter.to_string(), "r=0 w=2 d=0 l=1");
    assert_eq!(isolate.value("hits"), 101);
    assert_eq!(isolate.meter.to_string(), "r=0 w=2 d=0 l=2");
}

#[test]
fn a_key_is_written_at_most_once_a_second() {
    let (clock, _, isolates) = isolates(1);
    let started = clock.now();
    for _ in 0..5 {
        isolates[0].add("hits", 1);
        isolates[0].flush();
    }
    assert_eq!(isolates[0].meter.writes(), 5);
    assert!(clock.now().millis_since(started) >= 4000, "the flushes waited for each other's second");
}

#[test]
fn what_several_isolates_count_adds_up_and_each_sees_its_own_at_once() {
    let (_, _, isolates) = isolates(3);
    isolates[0].add("hits", 5);
    isolates[1].add("hits", -2);
    assert_eq!(isolates[0].value("hits"), 5);
    assert_eq!(isolates[2].value("hits"), 0);
    isolates.iter().for_each(Isolate::flush);
    for isolate in &isolates {
        assert_eq!(isolate.value("hits"), 3);
    }
    assert_eq!(isolates[0].value("hits:s"), 0, "a name that starts alike is another counter");
}

#[test]
fn a_reset_forgets_what_came_before_and_counts_what_comes_after() {
    let (clock, _, isolates) = isolates(2);
    isolates[0].add("hits", 5);
    isolates[1].add("hits", 7);
    isolates.iter().for_each(Isolate::flush);
    clock.advance_seconds(10);
    isolates[0].add("hits", 1);
    isolates[0].reset("hits");
    assert_eq!((isolates[0].value("hits"), isolates[1].value("hits")), (0, 0));
    isolates[0].flush();
    isolates[0].add("hits", 2);
    isolates[0].flush();
    assert_eq!(isolates[1].value("hits"), 2);
}

#[test]
fn a_writer_that_hears_of_a_reset_late_recovers_what_it_counted_since() {
    let (clock, _, isolates) = isolates(2);
    let (writer, other) = (&isolates[0], &isolates[1]);
    writer.add("hits", 100);
    writer.flush();
    clock.advance_seconds(5);
    other.reset("hits");
    clock.advance_seconds(1);
    for _ in 0..10 {
        writer.add("hits", 1);
        writer.flush();
        clock.advance_seconds(2);
    }
    assert_eq!(other.value("hits"), 0, "they hide in a shard begun before the reset");
    clock.advance_seconds(30);
    writer.add("hits", 1);
    writer.flush();
    assert_eq!((writer.value("hits"), other.value("hits")), (11, 11));
}

/// What a shard that began after the reset took in is counted already, also when the shard was finished since.
#[test]
fn a_writer_that_hears_of_a_reset_late_counts_nothing_twice() {
    let (clock, _, isolates) = isolates(2);
    let (writer, other) = (&isolates[0], &isolates[1]);
    let add = |fails| {
        writer.fail.set(fails);
        writer.add("hits", 1);
        writer.flush();
        writer.fail.set(None);
        clock.advance_seconds(3);
    };
    add(None);
    other.reset("hits");
    clock.advance_seconds(1);
    // A write whose outcome is unknown ends its shard: of these increments the first is in one begun before the reset,
    // the others are in two begun after it.
    add(Some(Failure::After));
    add(Some(Failure::After));
    add(None);
    clock.advance_seconds(30);
    add(None);
    assert_eq!((writer.value("hits"), other.value("hits")), (4, 4));
}

#[test]
fn a_write_whose_outcome_is_unknown_counts_once() {
    for failure in [Failure::Before, Failure::After, Failure::Throttled] {
        let (clock, _, isolates) = isolates(2);
        let isolate = &isolates[0];
        isolate.add("hits", 5);
        isolate.flush();
        clock.advance_seconds(2);
        isolate.fail.set(Some(failure));
        isolate.add("hits", 3);
        isolate.flush();
        let tried = isolate.meter.writes();
        assert!(tried <= 6, "{failure:?}: {tried} attempts");
        isolate.fail.set(None);
        clock.advance_seconds(20);
        isolate.add("hits", 2);
        isolate.flush();
        assert_eq!(isolates[1].value("hits"), 10, "{failure:?}");
    }
}

#[test]
fn an_hour_that_ends_loses_nothing() {
    let (clock, _, isolates) = isolates(2);
    let isolate = &isolates[0];
    for hour in 0..4 {
        isolate.fail.set((hour == 2).then_some(Failure::After));
        isolate.add("hits", 1);
        isolate.flush();
        clock.advance_seconds(if hour == 2 { 300 } else { HOUR_SECONDS });
    }
    clock.advance_seconds(HOUR_SECONDS - 300);
    assert_eq!(isolates[1].value("hits"), 4);
}

#[test]
fn work_that_the_platform_cut_off_is_done_with_the_next_increment() {
    let (clock, _, isolates) = isolates(2);
    let isolate = &isolates[0];
    let lost = Deferred::default();
    isolate.counters.add("a", 3, &lost).unwrap();
    drop(lost);
    clock.advance_seconds(30);
    isolate.add("b", 1);
    isolate.flush();
    assert_eq!(isolates[1].value("a"), 3);
}

#[test]
fn folding_changes_no_total_whenever_it_is_cut_off() {
    let (clock, store, isolates) = isolates(4);
    let mut expected = 0;
    for hour in 0..8 {
        for (number, isolate) in isolates.iter().enumerate() {
            let delta = i64::try_from(number * 3 + hour).unwrap() - 4;
            isolate.add("hits", delta);
            isolate.flush();
            expected += delta;
        }
        let report = fold_all(&store, &clock);
        assert_eq!(report.failed, 0);
        assert_eq!(isolates[0].value("hits"), expected, "after hour {hour}");
        // Half an hour later a second run deletes what the first folded.
        clock.advance_seconds(SETTLE_SECONDS);
        fold_all(&store, &clock);
        assert_eq!(isolates[1].value("hits"), expected, "deleted, hour {hour}");
        clock.advance_seconds(HOUR_SECONDS - SETTLE_SECONDS);
    }
    let shards = store.names().iter().filter(|name| name.contains("/s/")).count();
    assert!(shards <= 4 * 3, "{shards} shards are left of 32");
}

#[test]
fn a_fold_that_dies_between_deletions_is_finished_by_the_next() {
    let (clock, store, isolates) = isolates(5);
    for isolate in &isolates {
        isolate.add("hits", 10);
        isolate.flush();
    }
    clock.advance_seconds(3 * HOUR_SECONDS);
    assert_eq!(fold_all(&store, &clock).folded, 1);
    clock.advance_seconds(SETTLE_SECONDS);
    let shards: Vec<String> = store.names().into_iter().filter(|name| name.contains("/s/")).collect();
    let prefix = tenant("t").space("counter").all();
    for (gone, name) in shards.iter().enumerate() {
        block_on(store.delete(&prefix.key(name).unwrap())).unwrap();
        assert_eq!(isolates[0].value("hits"), 50, "{gone} shards deleted");
    }
    assert_eq!(fold_all(&store, &clock).failed, 0);
    assert_eq!(isolates[0].value("hits"), 50);
}

#[test]
fn a_reset_holds_through_folding_and_an_empty_counter_is_forgotten() {
    let (clock, store, isolates) = isolates(2);
    isolates[0].add("hits", 9);
    isolates[0].flush();
    clock.advance_seconds(3 * HOUR_SECONDS);
    fold_all(&store, &clock);
    isolates[1].reset("hits");
    for _ in 0..6 {
        clock.advance_seconds(HOUR_SECONDS);
        fold_all(&store, &clock);
        assert_eq!(isolates[1].value("hits"), 0);
    }
    assert_eq!(store.names(), Vec::<String>::new());
}

#[test]
fn a_damaged_shard_is_reported_not_counted_and_a_reset_heals() {
    let (clock, store, isolates) = isolates(1);
    isolates[0].add("hits", 9);
    isolates[0].flush();
    let hour = clock.now().seconds() / HOUR_SECONDS;
    store.plant(&format!("t/counter/hits/s/{hour}/damaged"), b"NaN");
    assert!(matches!(block_on(isolates[0].counters.read("hits")), Err(Error::Corrupt(_))));
    clock.advance_seconds(3 * HOUR_SECONDS);
    let report = fold_all(&store, &clock);
    assert_eq!((report.failed, report.folded), (1, 0), "folding it would lose its count for good");
    isolates[0].reset("hits");
    isolates[0].add("hits", 4);
    isolates[0].flush();
    assert_eq!(isolates[0].value("hits"), 4);
}

#[test]
fn counters_are_listed_by_the_start_of_their_names_whatever_the_page_size() {
    let (_, _, isolates) = isolates(2);
    let long = format!("page/{}", "x".repeat(200));
    let names = ["page/a", "page/b%", "other", &long, "page", "page/z"];
    for (number, name) in (1..).zip(names) {
        for isolate in &isolates {
            isolate.add(name, number);
        }
    }
    isolates.iter().for_each(Isolate::flush);
    isolates[0].add("page/gone", 1);
    isolates[0].flush();
    isolates[0].reset("page/gone");
    for limit in [1, 2, 3, 1000] {
        let (mut found, mut cursor) = (BTreeMap::new(), None::<String>);
        for _ in 0..100 {
            let page = block_on(isolates[0].counters.list("page/", limit, cursor.as_deref())).unwrap();
            assert!(page.items.len() <= limit as usize, "{} of {limit}", page.items.len());
            found.extend(page.items.into_iter().map(|item| (item.name, item.value)));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected = [("page/a", 2), ("page/b%", 4), (long.as_str(), 8), ("page/z", 12)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into(), "limit {limit}");
    }
}

#[test]
fn what_is_out_of_range_is_refused_and_what_is_too_much_waits() {
    let (_, _, isolates) = isolates(1);
    let isolate = &isolates[0];
    let add = |delta| isolate.counters.add("hits", delta, &isolate.background);
    assert_eq!(add(VALUE_MAX + 1), Err(Refused::OutOfRange));
    assert_eq!(add(i64::MIN), Err(Refused::OutOfRange));
    assert_eq!(add(VALUE_MAX), Ok(()));
    assert_eq!(add(1), Err(Refused::OutOfRange), "until it is written");
    isolate.flush();
    assert_eq!(add(1), Ok(()));
    isolate.flush();
    assert_eq!(isolate.value("hits"), VALUE_MAX, "kept within the range");
    assert_eq!(add(-3), Ok(()));
    assert_eq!(isolate.value("hits"), VALUE_MAX - 2, "and nothing was lost beyond it");
}

#[test]
fn memory_is_bounded_and_only_written_counters_make_room() {
    let (_, _, isolates) = isolates(2);
    let isolate = &isolates[0];
    let mut refused = 0;
    for number in 0..1100 {
        refused += u32::from(isolate.counters.add(&number.to_string(), 1, &isolate.background).is_err());
    }
    assert_eq!((isolate.gather.len(), refused), (1000, 100));
    isolate.flush();
    isolate.add("one more", 1);
    isolate.flush();
    assert_eq!(isolate.gather.len(), 1000);
    assert_eq!((isolates[1].value("one more"), isolates[1].value("0")), (1, 1));
}

#[test]
fn tenants_do_not_share_counters() {
    let (clock, store) = store();
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, seed)| Isolate::new(&clock, &store, &tenant(name), seed));
    a.add("hits", 1);
    a.flush();
    assert_eq!((a.value("hits"), b.value("hits")), (1, 0));
}

/// What an approximate history does.
#[derive(Clone, Debug)]
enum Move {
    Add(usize, i64),
    Flush(usize),
    Fail(usize, u8),
    Wait(u64),
    Fold,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..3_usize, -5..9_i64).prop_map(|(isolate, delta)| Move::Add(isolate, delta)),
        3 => (0..3_usize).prop_map(Move::Flush),
        1 => (0..3_usize, 0..4_u8).prop_map(|(isolate, how)| Move::Fail(isolate, how)),
        2 => (1..400_u64).prop_map(Move::Wait),
        1 => (1000..9000_u64).prop_map(Move::Wait),
        1 => Just(Move::Fold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Failures end before an hour's grace does here; the promise excludes longer outages.
    #[test]
    fn every_increment_counts_once_through_failures_hours_and_folds(moves in vec(moves(), 1..60)) {
        let (clock, store, isolates) = isolates(3);
        let mut expected = 0;
        let heal = || {
            for isolate in &isolates {
                isolate.fail.set(None);
                isolate.flush();
                clock.advance_seconds(11);
                isolate.add("other", 1);
                isolate.flush();
            }
        };
        for next in moves {
            match next {
                Move::Add(isolate, delta) => {
                    isolates[isolate].add("hits", delta);
                    expected += delta;
                }
                Move::Flush(isolate) => isolates[isolate].flush(),
                Move::Fail(isolate, how) => isolates[isolate].fail.set(match how {
                    0 => Some(Failure::Before),
                    1 => Some(Failure::After),
                    2 => Some(Failure::Throttled),
                    _ => None,
                }),
                Move::Wait(seconds) => {
                    heal();
                    clock.advance_seconds(seconds);
                }
                Move::Fold => { fold_all(&store, &clock); }
            }
        }
        heal();
        for isolate in &isolates {
            prop_assert_eq!(isolate.value("hits"), expected);
        }
        clock.advance_seconds(3 * HOUR_SECONDS);
        fold_all(&store, &clock);
        clock.advance_seconds(SETTLE_SECONDS);
        fold_all(&store, &clock);
        prop_assert_eq!(isolates[0].value("hits"), expected);
    }
}

/// The object as its host runs it: the state and the remembered keys, and nothing else.
#[derive(Default)]
struct Object {
    state: State,
    seen: BTreeMap<String, Seen>,
}

impl Object {
    fn ask(&mut self, request: &Request, now: Timestamp) -> Answer {
        let key = match request {
            Request::Add { key: Some(key), .. } => Some(key.clone()),
            _ => None,
        };
        let seen = key.as_ref().and_then(|key| self.seen.get(key).copied());
        let decision = exact::decide(&self.state, seen, request, now);
        self.state = decision.state;
        self.seen.extend(key.zip(decision.remember));
        decision.answer
    }
}

fn add(delta: i64, key: Option<&str>) -> Request {
    Request::Add { delta, key: key.map(str::to_owned) }
}

const fn value(value: i64) -> Answer {
    Answer::Value { value }
}

#[test]
fn an_idempotency_key_counts_once_a_day_and_belongs_to_one_delta() {
    let mut object = Object::default();
    assert_eq!(object.ask(&add(5, Some("k")), START), value(5));
    assert_eq!(object.ask(&add(1, None), START), value(6));
    assert_eq!(KEY_SECONDS, 24 * 3600, "as documented");
    assert_eq!(object.ask(&add(5, Some("k")), START.plus_seconds(KEY_SECONDS - 1)), value(5), "the first answer");
    assert_eq!(object.ask(&add(6, Some("k")), START), Answer::KeyReused);
    assert_eq!(object.ask(&Request::Reset, START), value(0));
    assert_eq!(object.ask(&add(5, Some("k")), START), value(5), "a reset does not make it count again");
    assert_eq!(object.ask(&Request::Read, START), value(0));
    assert_eq!(object.ask(&add(5, Some("k")), START.plus_seconds(KEY_SECONDS)), value(5), "a day later it counts");
    assert_eq!(object.ask(&Request::Read, START), value(5));
    assert_eq!(object.state.keys, 1);
}

#[test]
fn overflow_is_refused_and_changes_nothing() {
    let mut object = Object::default();
    assert_eq!(object.ask(&add(VALUE_MAX, None), START), value(VALUE_MAX));
    for delta in [1, VALUE_MAX, i64::MAX, i64::MIN, -VALUE_MAX - 1] {
        assert_eq!(object.ask(&add(delta, Some("k")), START), Answer::OutOfRange, "{delta}");
    }
    assert_eq!(object.ask(&add(-VALUE_MAX, None), START), value(0));
    assert_eq!(object.ask(&add(-VALUE_MAX, None), START), value(-VALUE_MAX));
    assert!(object.seen.is_empty());
}

#[test]
fn keys_are_bounded_and_never_forgotten_early() {
    let full = State { keys: KEYS_MAX, ..State::default() };
    let decision = exact::decide(&full, None, &add(1, Some("new")), START);
    assert_eq!((decision.answer, &decision.state), (Answer::TooManyKeys, &full));
    assert_eq!(exact::decide(&full, None, &add(1, None), START).answer, value(1), "without a key it goes on");
}

#[test]
fn snapshots_come_at_most_once_a_second_and_an_empty_counter_forgets_itself() {
    let mut object = Object::default();
    object.ask(&add(1, None), START);
    assert_eq!(exact::next_alarm(&object.state, START), Some(START));
    assert_eq!(object.state.listed(), Some(1));
    object.state.is_snapshot_due = false;
    object.state.snapshot_at = START;
    assert_eq!(exact::next_alarm(&object.state, START), None, "a counter with a value stays");
    object.ask(&add(-1, None), START);
    assert_eq!(exact::next_alarm(&object.state, START), Some(START.plus_millis(1000)));
    assert!(!exact::chores(&object.state, START).forget, "the snapshot comes first");
    object.state.is_snapshot_due = false;
    let chores = exact::chores(&object.state, START);
    assert!(chores.unlist && !chores.forget, "nobody may find it in lists when it is gone");
    object.state = object.state.reset();
    assert!(!exact::chores(&object.state, START).forget, "first the snapshot goes");
    object.state.is_snapshot_due = false;
    assert!(exact::chores(&object.state, START).forget);
}

#[test]
fn a_counter_at_zero_is_listed_until_it_is_reset() {
    let mut object = Object::default();
    let mut settled = |request: &Request| {
        object.ask(request, START);
        (object.state.listed(), std::mem::take(&mut object.state.is_snapshot_due))
    };
    assert_eq!(settled(&Request::Read), (None, false));
    assert_eq!(settled(&Request::Reset), (None, false), "nothing was there to be reset");
    assert_eq!(settled(&add(5, Some("k"))), (Some(5), true));
    assert_eq!(settled(&add(-5, None)), (Some(0), true));
    assert_eq!(settled(&add(0, None)), (Some(0), false));
    assert_eq!(settled(&Request::Reset), (None, true), "also while keys are remembered");
    assert_eq!(settled(&add(0, None)), (Some(0), true));
}

#[test]
fn a_counter_stored_before_use_was_noted_is_read() {
    let stored = br#"{"value":5,"keys":0,"isSnapshotDue":false,"snapshotAt":1,"purgedAt":2}"#;
    let state: State = serde_json::from_slice(stored).unwrap();
    assert_eq!((state.listed(), state.reset().is_snapshot_due), (Some(5), true));
}

#[test]
fn a_snapshot_is_one_read_and_is_listed() {
    let (_, store) = store();
    let meter = Meter::default();
    let metered = Metered::new(store, meter.clone());
    block_on(exact::write_snapshot(&metered, &tenant("t"), "a/b", 7, START)).unwrap();
    let reading = block_on(exact::read_snapshot(&metered, &tenant("t"), "a/b")).unwrap().unwrap();
    assert_eq!((reading.value, reading.as_of), (7, START));
    let page = block_on(exact::list(&metered, &tenant("t"), "a", 10, None)).unwrap();
    assert_eq!((page.items[0].name.as_str(), page.items[0].value), ("a/b", 7));
    assert_eq!(block_on(exact::read_snapshot(&metered, &tenant("u"), "a/b")).unwrap(), None);
    assert_eq!(meter.to_string(), "r=2 w=1 d=0 l=1");
    block_on(exact::delete_snapshot(&metered, &tenant("t"), "a/b")).unwrap();
    assert_eq!(block_on(exact::read_snapshot(&metered, &tenant("t"), "a/b")).unwrap(), None);
}

proptest! {
    /// Requests are repeated, their answers lost; whoever asks with a key until answered is counted once.
    #[test]
    fn exact_counters_conserve_under_retries_and_duplicates(
        steps in vec((0..20_u8, -100..100_i64, 1..4_u8, any::<bool>(), 0..500_u64), 1..80),
    ) {
        let (mut object, mut now) = (Object::default(), START);
        let (mut deltas, mut expected) = (BTreeMap::new(), 0);
        for (key, delta, times, keyed, wait) in steps {
            now = now.plus_millis(wait);
            let key = key.to_string();
            // A key belongs to the delta it was first used with.
            let first = !keyed || !deltas.contains_key(&key);
            let delta = if keyed { *deltas.entry(key.clone()).or_insert(delta) } else { delta };
            expected += if first { delta } else { 0 };
            for _ in 0..if keyed { times } else { 1 } {
                let is_value = matches!(object.ask(&add(delta, keyed.then_some(&key)), now), Answer::Value { .. });
                prop_assert!(is_value);
            }
            prop_assert_eq!(object.ask(&Request::Read, now), value(expected));
        }
        prop_assert_eq!(object.state.keys as usize, object.seen.len());
    }
}
