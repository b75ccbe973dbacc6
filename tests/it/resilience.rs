//! Goal: `Resilient` gives up in time, retries only what may be retried, and stops hammering. Method: a store that
//! answers from a script, on a clock that moves when somebody waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::kv::{
    Breaker, Error, Key, Meter, Metered, Page, PageRequest, Policy, Prefix, Read, Resilient, Store, Write,
};
use kv_patterns::random::SeededRandom;

use crate::support::{START, block_on, tenant};

#[derive(Clone, Debug)]
enum Answer {
    Value,
    Fails(Error),
    Hangs,
}

/// Answers from a script; when that is at its end, with a value.
#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<VecDeque<Answer>>>);

impl Scripted {
    async fn next(&self) -> Result<(), Error> {
        let answer = self.0.borrow_mut().pop_front().unwrap_or(Answer::Value);
        match answer {
            Answer::Value => Ok(()),
            Answer::Fails(error) => Err(error),
            Answer::Hangs => std::future::pending().await,
        }
    }
}

impl Store for Scripted {
    async fn get(&self, _: &Key, _: Read) -> Result<Option<Vec<u8>>, Error> {
        self.next().await.map(|()| None)
    }
    async fn get_many(&self, keys: &[Key], _: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.next().await.map(|()| vec![None; keys.len()])
    }
    async fn put(&self, _: &Key, _: &[u8], _: Write) -> Result<(), Error> {
        self.next().await
    }
    async fn delete(&self, _: &Key) -> Result<(), Error> {
        self.next().await
    }
    async fn list(&self, _: &Prefix, _: &PageRequest) -> Result<Page, Error> {
        self.next().await.map(|()| Page::default())
    }
}

type Tested = Resilient<Metered<Scripted>, ManualClock, SeededRandom>;

struct World {
    script: Scripted,
    clock: ManualClock,
    meter: Meter,
    store: Tested,
    key: Key,
}

fn world() -> World {
    let (script, clock, meter) = (Scripted::default(), ManualClock::at(START), Meter::default());
    let metered = Metered::new(script.clone(), meter.clone());
    let store = Resilient::new(metered, clock.clone(), SeededRandom::new(1), Policy::default(), Breaker::default());
    World { script, clock, meter, store, key: tenant("t").space("r").key(&["x"]) }
}

impl World {
    fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.0.borrow_mut().extend(answers);
    }

    fn get(&self) -> Result<Option<Vec<u8>>, Error> {
        block_on(self.store.get(&self.key, Read::default()))
    }

    fn put(&self) -> Result<(), Error> {
        block_on(self.store.put(&self.key, b"", Write::default()))
    }

    fn waited_millis(&self) -> u64 {
        self.clock.now().millis_since(START)
    }
}

fn down() -> Answer {
    Answer::Fails(Error::Unavailable("down".to_owned()))
}

#[test]
fn a_passing_fault_is_not_seen_by_the_caller() {
    let world = world();
    world.script([down(), down()]);
    assert_eq!(world.get(), Ok(None));
    assert_eq!(world.meter.reads(), 3);
}

#[test]
fn a_throttled_write_waits_for_its_second() {
    let world = world();
    world.script([Answer::Fails(Error::Throttled)]);
    assert_eq!(world.put(), Ok(()));
    assert!((1000..1200).contains(&world.waited_millis()), "{}", world.waited_millis());
}

#[test]
fn a_broken_limit_is_not_tried_again() {
    let world = world();
    world.script([Answer::Fails(Error::Invalid("413".to_owned()))]);
    assert!(matches!(world.put(), Err(Error::Invalid(_))));
    assert_eq!((world.meter.writes(), world.waited_millis()), (1, 0));
}

#[test]
fn a_hanging_store_is_given_up_within_the_deadline() {
    let world = world();
    world.script([Answer::Hangs, Answer::Hangs, Answer::Hangs, Answer::Hangs]);
    assert!(matches!(world.get(), Err(Error::Unavailable(_))));
    assert!(world.waited_millis() <= Policy::default().deadline_millis, "{}", world.waited_millis());
    assert!(world.meter.reads() >= 2);
}

#[test]
fn retries_end_when_their_budget_is_spent() {
    let world = world();
    world.script((0..24).map(|_| Answer::Fails(Error::Throttled)));
    for _ in 0..8 {
        let _ = world.get();
    }
    // Throttling is an answer, so the breaker stays closed; ten retries are paid for, the rest are not made.
    let made = world.meter.reads();
    assert!((16..=20).contains(&made), "{made}");
}

#[test]
fn what_succeeds_pays_for_retries_again() {
    let world = world();
    let spend = || {
        let before = world.meter.reads();
        world.script((0..24).map(|_| Answer::Fails(Error::Throttled)));
        for _ in 0..8 {
            let _ = world.get();
        }
        world.meter.reads() - before
    };
    let rich = spend();
    // What is left of the script has to be used up before anything can succeed.
    while world.get().is_err() {}
    let poor = world.meter.reads();
    for _ in 0..100 {
        assert_eq!(world.get(), Ok(None));
    }
    assert_eq!(world.meter.reads() - poor, 100);
    assert_eq!(spend(), rich, "a hundred successes have paid for ten retries");
}

#[test]
fn the_breaker_opens_refuses_probes_and_closes() {
    let world = world();
    world.script((0..30).map(|_| down()));
    while world.meter.reads() < 30 {
        assert!(world.get().is_err());
    }
    assert!(world.get().is_err(), "open: refused");
    assert_eq!(world.meter.reads(), 30, "and KV was not asked");
    world.clock.advance_seconds(2);
    assert_eq!(world.get(), Ok(None), "the probe finds KV well");
    assert_eq!(world.get(), Ok(None), "so the breaker is closed");
}

#[test]
fn a_failed_probe_keeps_the_breaker_open_for_longer() {
    let world = world();
    world.script((0..31).map(|_| down()));
    while world.meter.reads() < 30 {
        let _ = world.get();
    }
    world.clock.advance_millis(1100);
    assert!(world.get().is_err());
    assert_eq!(world.meter.reads(), 31);
    world.clock.advance_millis(1100);
    assert!(world.get().is_err(), "two seconds now");
    assert_eq!(world.meter.reads(), 31);
    world.clock.advance_millis(1100);
    assert_eq!(world.get(), Ok(None));
}

#[test]
fn a_spent_quota_stops_its_kind_of_operation_until_midnight() {
    let world = world();
    world.script([Answer::Fails(Error::QuotaSpent)]);
    assert_eq!(world.put(), Err(Error::QuotaSpent));
    assert_eq!(world.put(), Err(Error::QuotaSpent));
    assert_eq!(world.meter.writes(), 1);
    assert_eq!(world.get(), Ok(None), "reads have a quota of their own");
    world.clock.advance_seconds(86_400);
    assert_eq!(world.put(), Ok(()));
}
