//! Goal: the simulated KV is as kind and as hostile as its module head says. Method: each trait provoked on its own.

use kv_patterns::background::Background;
use kv_patterns::clock::Clock;
use kv_patterns::kv::{Error, Key, PageRequest, Policy, Read, Resilient, Store, Write};
use kv_patterns::random::Random;
use kv_patterns::sim::{
    Delay, Edge, Fault, Faults, Isolate, Object, Objects, Plan, Profile, START, Setup, Shape, World,
};

use crate::kv_contract::contract;
use crate::support::tenant;

/// Two locations and no delay but this: a fetch is answered by a replica that lags by so many seconds.
fn two_locations(lag_seconds: u64) -> World {
    let mut setup = Setup { locations: 2, ..Setup::ideal(1) };
    if lag_seconds > 0 {
        setup.profile.propagation.millis_max = lag_seconds * 1000;
        setup.faults = Faults::none().with(Fault::StepsBack, 1000);
    }
    World::new(setup)
}

fn key(name: &str) -> Key {
    tenant("t").space("sim").key(&[name])
}

async fn get(isolate: &Isolate, name: &str) -> Option<Vec<u8>> {
    isolate.store("KV").get(&key(name), Read::FRESHEST).await.unwrap()
}

async fn put(isolate: &Isolate, name: &str, value: &str) -> Result<(), Error> {
    isolate.store("KV").put(&key(name), value.as_bytes(), Write::default()).await
}

#[test]
fn without_faults_it_keeps_the_contract() {
    for (locations, seed) in [(1, 1), (5, 2)] {
        let world = World::new(Setup { locations, ..Setup::ideal(seed) });
        let isolate = world.isolate(locations - 1);
        let pass = |seconds| world.executor().skip_seconds(seconds);
        world.block_on(contract(&isolate.store("KV"), pass)).unwrap();
    }
}

#[test]
fn a_location_keeps_what_it_read_for_as_long_as_that_read_said() {
    let world = two_locations(0);
    let (here, there) = (world.isolate(0), world.isolate(1));
    let done = world.block_on(async {
        put(&here, "x", "1").await.unwrap();
        let patient = Read { cache_ttl_seconds: Some(100) };
        there.store("KV").get(&key("x"), patient).await.unwrap();
        world.sleep(2000).await;
        put(&here, "x", "2").await.unwrap();
        assert_eq!(get(&here, "x").await.unwrap(), b"2", "the writing location sees its write");
        world.sleep(97_000).await;
        assert_eq!(get(&there, "x").await.unwrap(), b"1", "a later, more impatient read does not shorten it");
        world.sleep(2000).await;
        assert_eq!(get(&there, "x").await.unwrap(), b"2");
    });
    done.unwrap();
}

#[test]
fn a_read_of_an_absent_key_hides_it_from_its_creator() {
    let world = two_locations(0);
    let (here, there) = (world.isolate(0), world.isolate(1));
    let done = world.block_on(async {
        assert_eq!(get(&there, "x").await, None);
        put(&here, "x", "1").await.unwrap();
        world.sleep(29_000).await;
        assert_eq!(get(&there, "x").await, None, "the miss is kept like a hit");
        world.sleep(2000).await;
        assert!(get(&there, "x").await.is_some());
    });
    done.unwrap();
}

#[test]
fn another_location_sees_a_change_when_it_has_propagated() {
    let world = two_locations(20);
    let (here, there) = (world.isolate(0), world.isolate(1));
    let done = world.block_on(async {
        put(&here, "x", "1").await.unwrap();
        world.sleep(19_000).await;
        assert_eq!(get(&there, "x").await, None);
        world.sleep(2000 + 30_000).await;
        assert!(get(&there, "x").await.is_some());
    });
    done.unwrap();
}

#[test]
fn a_second_write_within_a_second_is_throttled_and_a_third_after_it_is_not() {
    let world =
        World::new(Setup { profile: Profile { deletes_are_throttled: true, ..Profile::IDEAL }, ..Setup::ideal(1) });
    let isolate = world.isolate(0);
    let done = world.block_on(async {
        put(&isolate, "x", "1").await.unwrap();
        world.sleep(999).await;
        assert_eq!(put(&isolate, "x", "2").await, Err(Error::Throttled));
        assert_eq!(isolate.store("KV").delete(&key("x")).await, Err(Error::Throttled));
        assert_eq!(put(&isolate, "y", "1").await, Ok(()), "another key is not");
        world.sleep(1).await;
        assert_eq!(put(&isolate, "x", "3").await, Ok(()));
        assert_eq!(get(&isolate, "x").await.unwrap(), b"3");
    });
    done.unwrap();
}

#[test]
fn lists_lag_and_their_pages_may_be_empty_while_more_follow() {
    let list_lag = Delay { usual_millis_max: 0, millis_max: 10_000, tail_permille: 1000 };
    let faults = Faults::none().with(Fault::ShortPages, 700);
    let world = World::new(Setup { profile: Profile { list_lag, ..Profile::IDEAL }, faults, ..Setup::ideal(3) });
    let isolate = world.isolate(0);
    let done = world.block_on(async {
        let store = isolate.store("KV");
        for number in 0..50 {
            put(&isolate, &format!("{number:02}"), "").await.unwrap();
        }
        let prefix = tenant("t").space("sim").all();
        let at_once = store.list(&prefix, &PageRequest::default()).await.unwrap();
        assert!(at_once.keys.len() < 50, "nothing lagged");
        world.sleep(10_000).await;
        let (mut request, mut names, mut empty) = (PageRequest::first(10), Vec::new(), 0);
        loop {
            let page = store.list(&prefix, &request).await.unwrap();
            assert!(page.keys.len() <= 10);
            empty += u32::from(page.keys.is_empty() && page.cursor.is_some());
            names.extend(page.keys.into_iter().map(|key| key.name));
            let Some(cursor) = page.cursor else { break };
            request = PageRequest::first(10).after(cursor);
        }
        assert!(empty > 0, "no empty page");
        assert_eq!(names, (0..50).map(|n| format!("t/sim/{n:02}")).collect::<Vec<_>>(), "each key once, in order");
    });
    done.unwrap();
}

/// What a write under one certain fault answers, and whether it happened.
#[track_caller]
fn check_write(fault: Fault, happens_at_once: bool, happens_later: bool) {
    let world = World::new(Setup { faults: Faults::none().with(fault, 1000), ..Setup::ideal(5) });
    let isolate = world.isolate(0);
    let outcome = world.block_on(put(&isolate, "x", "1")).unwrap();
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{fault:?}: {outcome:?}");
    assert_eq!(world.truth("KV", "t/sim/x").is_some(), happens_at_once, "{fault:?}");
    world.run().unwrap();
    assert_eq!(world.truth("KV", "t/sim/x").is_some(), happens_later, "{fault:?}");
}

#[test]
fn a_failed_write_may_have_happened_before_after_or_never() {
    check_write(Fault::WriteFailsBefore, false, false);
    check_write(Fault::WriteFailsAfter, true, true);
    check_write(Fault::LateWrite, false, true);
}

#[test]
fn a_hanging_operation_is_given_up_by_the_deadline_of_the_resilient_store() {
    let world = World::new(Setup { faults: Faults::none().with(Fault::Hangs, 1000), ..Setup::ideal(5) });
    let isolate = world.isolate(0);
    let policy = Policy::default();
    let store = Resilient::new(
        isolate.store("KV"),
        isolate.clock(),
        isolate.random(),
        policy,
        kv_patterns::kv::Breaker::default(),
    );
    let outcome = world.block_on(store.get(&key("x"), Read::default())).unwrap();
    assert!(matches!(outcome, Err(Error::Unavailable(_))));
    assert!(world.now().millis_since(START) <= policy.deadline_millis);
    assert!(
        world.block_on(isolate.store("KV").get(&key("x"), Read::default())).is_err(),
        "alone it would hang for ever"
    );
}

#[test]
fn an_isolate_that_dies_loses_its_memory_and_its_work() {
    let world = World::new(Setup::ideal(1));
    let edge = Edge::new(&world, 0, |isolate| (isolate.clone(), std::cell::Cell::new(0)));
    let done = world.block_on(async {
        let count = async |state: std::rc::Rc<(Isolate, std::cell::Cell<u32>)>| state.1.replace(state.1.get() + 1);
        assert_eq!(edge.request(count).await, Ok(0));
        assert_eq!(edge.request(count).await, Ok(1));
        let (doomed, isolate) = (edge.clone(), edge.isolate().0);
        let store = isolate.store("KV");
        let clock = isolate.clock();
        isolate.background().spawn(async move {
            clock.sleep(1000).await;
            store.put(&key("x"), b"1", Write::default()).await.unwrap();
        });
        let killer = world.spawn({
            let wait = world.sleep(500);
            async move {
                wait.await;
                doomed.kill();
            }
        });
        let clock = isolate.clock();
        assert!(edge.request(async move |_| clock.sleep(2000).await).await.is_err(), "the client gets no answer");
        killer.await.unwrap();
        assert_eq!(edge.request(count).await, Ok(0), "memory is gone");
        world.sleep(5000).await;
        assert_eq!(world.truth("KV", "t/sim/x"), None, "background work too");
    });
    done.unwrap();
}

#[test]
fn the_clock_stands_still_until_an_answer_comes() {
    let world = World::new(Setup::ideal(1));
    let isolate = world.isolate(0);
    let done = world.block_on(async {
        world.sleep(5000).await;
        assert_eq!(isolate.clock().now(), START, "nothing was heard since the isolate began");
        get(&isolate, "x").await;
        assert_eq!(isolate.clock().now(), START.plus_seconds(5));
    });
    done.unwrap();
}

#[derive(Default)]
struct Counter {
    handled: u32,
}

impl Object for Counter {
    type Storage = u32;
    type Request = ();
    type Reply = (u32, u32);

    fn handle(&mut self, storage: &mut u32, (): (), _: kv_patterns::clock::Timestamp) -> (u32, u32) {
        *storage += 1;
        self.handled += 1;
        (*storage, self.handled)
    }

    fn alarm_at(storage: &u32) -> Option<kv_patterns::clock::Timestamp> {
        (*storage == 3).then(|| START.plus_seconds(60))
    }

    fn alarm(&mut self, storage: &mut u32, _: kv_patterns::clock::Timestamp) {
        *storage = 100;
    }
}

#[test]
fn an_object_keeps_its_storage_loses_its_memory_and_hears_its_alarm() {
    let world = World::new(Setup::ideal(1));
    let (objects, isolate) = (Objects::<Counter>::new(&world), world.isolate(0));
    let done = world.block_on(async {
        assert_eq!(objects.call(&isolate, "a", ()).await, Ok((1, 1)));
        assert_eq!(objects.call(&isolate, "a", ()).await, Ok((2, 2)));
        objects.restart("a");
        assert_eq!(objects.call(&isolate, "a", ()).await, Ok((3, 1)));
        assert_eq!(objects.call(&isolate, "b", ()).await, Ok((1, 1)), "another object");
        world.sleep(61_000).await;
        assert_eq!(objects.storage("a"), Some(100));
    });
    done.unwrap();
}

#[test]
fn an_object_that_restarts_does_a_request_once_or_not_at_all() {
    let faults = Faults::none().with(Fault::ObjectRestarts, 500).with(Fault::ObjectOverloaded, 100);
    let world = World::new(Setup { faults, ..Setup::ideal(9) });
    let (objects, isolate) = (Objects::<Counter>::new(&world), world.isolate(0));
    let done = world.block_on(async {
        let (mut acknowledged, mut unknown) = (0, 0);
        for _ in 0..200 {
            match objects.call(&isolate, "a", ()).await {
                Ok(_) => acknowledged += 1,
                Err(failed) if failed.overloaded => {}
                Err(_) => unknown += 1,
            }
        }
        let stored = objects.storage("a").unwrap();
        assert!((acknowledged..=acknowledged + unknown).contains(&stored), "{stored}, {acknowledged} + {unknown}");
        assert!(stored > acknowledged && stored < acknowledged + unknown, "both kinds of restart happened");
    });
    done.unwrap();
}

#[test]
fn a_hundred_requests_at_once_are_handled_one_at_a_time_and_a_flood_is_refused() {
    let world = World::new(Setup::ideal(1));
    let (objects, isolate) = (Objects::<Counter>::new(&world), world.isolate(0));
    let calls: Vec<_> = (0..6000)
        .map(|_| {
            let (objects, isolate) = (objects.clone(), isolate.clone());
            world.spawn(async move { objects.call(&isolate, "a", ()).await })
        })
        .collect();
    world.run().unwrap();
    let mut stored = Vec::new();
    let mut refused = 0;
    for call in calls {
        match world.block_on(call).unwrap().unwrap() {
            Ok((number, _)) => stored.push(number),
            Err(failed) => refused += u32::from(failed.overloaded),
        }
    }
    assert_eq!(stored, (1..=u32::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
    assert!(stored.len() >= 5000 && refused > 0, "{} done, {refused} refused", stored.len());
}

/// A busy run with every fault there is: clients that read, write, delete and list a few keys.
fn busy_run(seed: u64) -> World {
    let setup = Setup { faults: Faults::all(), ..Setup::swarm(seed, Profile::DOCUMENTED) };
    let shape = Shape { clients_max: 20, steps_max: 100, wait_millis_max: 5000 };
    let plan = Plan::generate(setup.clone(), shape, |below| (below(4), below(5)));
    let world = World::new(setup);
    world.keep_trace();
    let edges = Edge::everywhere(&world, |isolate| isolate.store("KV"));
    let ran = plan.run(&world, move |_, location, (kind, name)| {
        let edge = edges[location].clone();
        async move {
            let name = name.to_string();
            let request = edge.request(async move |store| match kind {
                0 => store.put(&key(&name), b"1", Write::default()).await.is_ok(),
                1 => store.delete(&key(&name)).await.is_ok(),
                2 => store.list(&tenant("t").space("sim").all(), &PageRequest::first(3)).await.is_ok(),
                _ => store.get(&key(&name), Read::default()).await.is_ok(),
            });
            let _ = request.await;
        }
    });
    ran.unwrap();
    world
}

#[test]
fn the_same_seed_gives_the_same_history_byte_for_byte() {
    for seed in 0..20 {
        let (one, two) = (busy_run(seed), busy_run(seed));
        assert_eq!(one.trace(), two.trace(), "seed {seed}");
        assert_eq!(one.fingerprint(), two.fingerprint(), "seed {seed}");
        assert_eq!(one.operations(), u64::try_from(one.trace().len()).unwrap());
    }
    assert_ne!(busy_run(1).fingerprint(), busy_run(2).fingerprint());
}

#[test]
fn isolates_draw_different_random_numbers_and_clones_share_one_stream() {
    let world = World::new(Setup::ideal(1));
    let (one, two) = (world.isolate(0), world.isolate(0));
    let drawn = [one.random().next_u64(), one.random().clone().next_u64(), two.random().next_u64()];
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2]);
}
