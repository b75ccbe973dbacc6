//! Goal: every checker finds what it is there for. Method: for each, a pattern that is known to be wrong, run on the
//! simulator with seeds in order until it is caught, and the right one beside it, which passes the same seeds. The seed
//! that catches it is pinned, so that a checker or a world that goes soft is noticed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Key, Read, Store, Write};
use kv_patterns::sim::check::{self, Violation};
use kv_patterns::sim::{
    Client, Edge, Event, Fault, Faults, History, Isolate, Object, Objects, Plan, Profile, Setup, Shape, SimStore, Step,
    What, World, shrink,
};

use crate::support::tenant;

const SEEDS: u64 = 200;

/// Runs seeds in order. The wrong variant must be caught first at `seed`, by `checker`; the right one never.
#[track_caller]
fn check(seed: u64, checker: &str, run: impl Fn(u64, Variant) -> Vec<Violation>) {
    let caught = (0..SEEDS).find(|seed| run(*seed, Variant::Wrong).iter().any(|found| found.checker == checker));
    assert_eq!(caught, Some(seed), "the seed that catches it");
    for seed in 0..SEEDS.min(60) {
        let found = run(seed, Variant::Right);
        assert!(found.is_empty(), "seed {seed} accuses the innocent: {}", found[0]);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    Wrong,
    Right,
}

/// The documented profile, without faults unless said otherwise: three locations.
fn setup(seed: u64) -> Setup {
    Setup { seed, profile: Profile::DOCUMENTED, faults: Faults::none(), locations: 3 }
}

fn key(name: &str) -> Key {
    tenant("t").space("planted").key(&[name])
}

fn number(bytes: Option<Vec<u8>>) -> Option<u64> {
    String::from_utf8(bytes?).ok()?.parse().ok()
}

async fn read(store: &SimStore, name: &str, ttl: Option<u32>) -> Option<u64> {
    number(store.get(&key(name), Read { cache_ttl_seconds: ttl }).await.ok()?)
}

async fn write(store: &SimStore, name: &str, value: u64) -> bool {
    store.put(&key(name), value.to_string().as_bytes(), Write::default()).await.is_ok()
}

/// A world, an isolate per location, a history, and a way to start clients.
struct Stage {
    world: World,
    isolates: Vec<Isolate>,
    history: History,
}

impl Stage {
    fn new(setup: Setup) -> Rc<Self> {
        let world = World::new(setup);
        let isolates = (0..world.setup().locations).map(|location| world.isolate(location)).collect();
        Rc::new(Self { world, isolates, history: History::default() })
    }

    fn store(&self, location: usize) -> SimStore {
        self.isolates[location].store("KV")
    }

    /// Does `work` and notes what it says came of it.
    async fn note(&self, client: usize, subject: &str, work: impl Future<Output = What>) {
        let began = self.world.now();
        let what = work.await;
        self.history.note(client, subject, began, self.world.now(), what);
    }

    fn events(&self) -> Vec<Event> {
        self.world.run().unwrap();
        self.history.events()
    }

    /// A number below `bound`, different for every seed and place.
    fn draw(&self, place: u64, bound: u64) -> u64 {
        use kv_patterns::random::Random;
        kv_patterns::sim::stream(self.world.setup().seed.wrapping_mul(31).wrapping_add(place), "planted").below(bound)
    }
}

/// Creates a record after looking whether it is there, while its reader waits elsewhere. The look is remembered.
fn read_before_create(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    let creator = stage.clone();
    stage.world.spawn(async move {
        let store = creator.store(0);
        creator.world.sleep(2000).await;
        if variant == Variant::Wrong {
            // "Is the name free?", asked where the reader is.
            read(&creator.store(1), "x", None).await;
        }
        creator.note(0, "x", async { if write(&store, "x", 1).await { What::Wrote(1) } else { What::Failed } }).await;
        creator.world.sleep(500).await;
        creator.note(1, "x", async { What::Read(read(&creator.store(1), "x", None).await) }).await;
    });
    check::lost_writes(&stage.events(), 0)
}

#[test]
fn a_read_before_create_is_caught_as_a_lost_write() {
    check(0, "no lost acknowledged write", read_before_create);
}

/// A refresh that writes back what it read, against a delete elsewhere.
fn blind_write_back(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    let (owner, other) = (stage.clone(), stage.clone());
    stage.world.spawn(async move {
        owner
            .note(0, "x", async { if write(&owner.store(0), "x", 1).await { What::Wrote(1) } else { What::Failed } })
            .await;
        owner.world.sleep(20_000).await;
        let done = async { owner.store(0).delete(&key("x")).await.map_or(What::MaybeDeleted, |()| What::Deleted) };
        owner.note(0, "x", done).await;
        owner.world.sleep(300_000).await;
        owner.note(0, "x", async { What::Read(read(&owner.store(0), "x", None).await) }).await;
    });
    stage.world.spawn(async move {
        other.world.sleep(15_000 + other.draw(1, 60_000)).await;
        let found = read(&other.store(1), "x", None).await;
        if let (Variant::Wrong, Some(value)) = (variant, found) {
            write(&other.store(1), "x", value).await;
        }
    });
    check::resurrections(&stage.events(), 120_000)
}

#[test]
fn a_blind_write_back_is_caught_as_a_resurrection() {
    check(5, "no resurrected delete", blind_write_back);
}

/// A token check that asks KV to keep what it read for an hour.
fn long_cache(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    let holder = stage.clone();
    let ttl = if variant == Variant::Wrong { 3600 } else { 30 };
    stage.world.spawn(async move {
        write(&holder.store(0), "x", 1).await;
        read(&holder.store(1), "x", Some(ttl)).await;
        holder.world.sleep(5000).await;
        holder
            .note(0, "x", async { holder.store(0).delete(&key("x")).await.map_or(What::Failed, |()| What::Revoked) })
            .await;
        for _ in 0..20 {
            holder.world.sleep(10_000).await;
            let verdict = async {
                let found = read(&holder.store(1), "x", Some(ttl)).await;
                if found.is_some() { What::Accepted } else { What::Refused }
            };
            holder.note(1, "x", verdict).await;
        }
    });
    check::late_acceptances(&stage.events(), Profile::DOCUMENTED.stale_millis_max(Some(30)))
}

#[test]
fn a_long_cache_ttl_is_caught_as_revocation_lag() {
    check(0, "revocation lag", long_cache);
}

/// A reader that believes each answer, against one that keeps the newest it saw.
fn forgetful_reader(seed: u64, variant: Variant) -> Vec<Violation> {
    let faults = Faults::none().with(Fault::StepsBack, 300).with(Fault::CacheEvicted, 500);
    let stage = Stage::new(Setup { faults, ..setup(seed) });
    let (writer, reader) = (stage.clone(), stage.clone());
    stage.world.spawn(async move {
        for version in 1..10 {
            write(&writer.store(0), "x", version).await;
            writer.world.sleep(20_000).await;
        }
    });
    stage.world.spawn(async move {
        let newest = Cell::new(None);
        for _ in 0..20 {
            reader.world.sleep(7000).await;
            let look = async {
                let found = read(&reader.store(1), "x", Some(30)).await;
                newest.set(newest.get().max(found));
                What::Read(if variant == Variant::Wrong { found } else { newest.get() })
            };
            reader.note(1, "x", look).await;
        }
    });
    check::backward_reads(&stage.events())
}

#[test]
fn a_reader_without_memory_is_caught_going_back_in_time() {
    check(0, "monotonic reads per client", forgetful_reader);
}

/// The sharded counter everybody writes first: get, add one, put; against one key per writer.
fn read_modify_write(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    for location in 0..3 {
        let stage = stage.clone();
        stage.clone().world.spawn(async move {
            let name = if variant == Variant::Wrong { "n".to_owned() } else { format!("n{location}") };
            let store = stage.store(location);
            for count in 1..=10 {
                let add = async {
                    let before = if variant == Variant::Wrong {
                        read(&store, &name, None).await.unwrap_or(0)
                    } else {
                        count - 1
                    };
                    if write(&store, &name, before + 1).await { What::Added(1) } else { What::Failed }
                };
                stage.note(location, "n", add).await;
                stage.world.sleep(2000 + stage.draw(count, 3000)).await;
            }
            if location > 0 {
                return;
            }
            stage.world.sleep(400_000).await;
            let total = async {
                let mut total = 0;
                for name in ["n", "n0", "n1", "n2"] {
                    total += read(&store, name, None).await.unwrap_or(0);
                }
                What::Total(i64::try_from(total).unwrap())
            };
            stage.note(0, "n", total).await;
        });
    }
    check::unconserved(&stage.events(), 120_000, 0)
}

#[test]
fn a_read_modify_write_counter_is_caught_losing() {
    check(0, "conservation", read_modify_write);
}

/// Ten a minute, counted per location and joined through KV; against a tenth of the limit for each writer.
fn limit_per_location(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    for location in 0..3 {
        let stage = stage.clone();
        stage.clone().world.spawn(async move {
            let own = Cell::new(0);
            for _ in 0..20 {
                let store = stage.store(location);
                let ask = async {
                    let counted = if variant == Variant::Wrong {
                        read(&store, "hits", None).await.unwrap_or(0)
                    } else {
                        own.get()
                    };
                    let most = if variant == Variant::Wrong { 10 } else { 3 };
                    if counted >= most {
                        return What::Denied;
                    }
                    own.set(own.get() + 1);
                    write(&store, "hits", counted + 1).await;
                    What::Admitted(1)
                };
                stage.note(location, "hits", ask).await;
                stage.world.sleep(1500 + stage.draw(1, 1000)).await;
            }
        });
    }
    check::overshoots(&stage.events(), 10, 60_000, 0)
}

#[test]
fn a_limit_counted_in_kv_is_caught_overshooting() {
    check(0, "overshoot", limit_per_location);
}

/// A lock as an object. `None` is free.
#[derive(Default)]
struct LockObject;

#[derive(Clone, Default)]
struct LockState {
    holder: Option<(usize, Timestamp)>,
    fence: u64,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Acquire(usize),
    /// By this client; checked only by the right variant.
    Release(usize, bool),
}

impl Object for LockObject {
    type Storage = LockState;
    type Request = Ask;
    type Reply = Option<(u64, Timestamp)>;

    fn handle(&mut self, state: &mut LockState, ask: Ask, now: Timestamp) -> Self::Reply {
        match ask {
            Ask::Acquire(client) => {
                if state.holder.is_some_and(|(_, until)| now < until) {
                    return None;
                }
                let until = now.plus_seconds(10);
                state.fence += 1;
                state.holder = Some((client, until));
                Some((state.fence, until))
            }
            Ask::Release(client, is_checked) => {
                if !is_checked || state.holder.is_some_and(|(holder, _)| holder == client) {
                    state.holder = None;
                }
                None
            }
        }
    }
}

/// Clients that hold the lock for longer than its lease now and then, and release it without asking whose it is.
fn release_without_ownership(seed: u64, variant: Variant) -> Vec<Violation> {
    let profile = Profile { clock_skew_millis_max: 0, ..Profile::DOCUMENTED };
    let stage = Stage::new(Setup { profile, ..setup(seed) });
    let locks = Objects::<LockObject>::new(&stage.world);
    for client in 0..3 {
        let (stage, locks) = (stage.clone(), locks.clone());
        stage.clone().world.spawn(async move {
            let isolate = &stage.isolates[client];
            for round in 0..10 {
                stage.world.sleep(stage.draw(round + 100, 4000)).await;
                let began = stage.world.now();
                let Ok(Some((fence, until))) = locks.call(isolate, "lock", Ask::Acquire(client)).await else {
                    continue;
                };
                let ended = stage.world.now();
                stage.history.note(client, "lock", began, ended, What::Acquired { fence, until });
                stage.world.sleep(stage.draw(round + 200, 14_000)).await;
                let began = stage.world.now();
                let _ = locks.call(isolate, "lock", Ask::Release(client, variant == Variant::Right)).await;
                stage.history.note(client, "lock", began, stage.world.now(), What::Released(fence));
            }
        });
    }
    check::overlaps(&stage.events())
}

#[test]
fn a_release_without_ownership_is_caught_as_an_overlap() {
    check(2, "mutual exclusion", release_without_ownership);
}

/// A holder that is suspended past its lease and then writes to what the lock guards, which looks at no token.
fn unguarded_resource(seed: u64, variant: Variant) -> Vec<Violation> {
    let faults = Faults::none().with(Fault::Pauses, 200);
    let stage = Stage::new(Setup { faults, ..setup(seed) });
    let locks = Objects::<LockObject>::new(&stage.world);
    let largest = Rc::new(Cell::new(0));
    for client in 0..3 {
        let (stage, locks, largest) = (stage.clone(), locks.clone(), largest.clone());
        stage.clone().world.spawn(async move {
            let isolate = &stage.isolates[client];
            for round in 0..10 {
                stage.world.sleep(stage.draw(round, 4000)).await;
                let Ok(Some((fence, until))) = locks.call(isolate, "lock", Ask::Acquire(client)).await else {
                    continue;
                };
                // The clock stood still while the isolate was suspended, so this look does not help.
                if isolate.clock().now() < until && (variant == Variant::Wrong || fence >= largest.get()) {
                    largest.set(fence);
                    let now = stage.world.now();
                    stage.history.note(client, "resource", now, now, What::Guarded(fence));
                }
            }
        });
    }
    check::unfenced(&stage.events())
}

#[test]
fn a_resource_without_fencing_is_caught_taking_an_old_token() {
    check(4, "fencing order", unguarded_resource);
}

/// Two replicas, each written by whoever is near, never compared; against copying the newer one in the end.
fn replicas_never_compared(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(Setup { faults: Faults::none().with(Fault::WriteFailsBefore, 100), ..setup(seed) });
    let writer = stage.clone();
    stage.world.spawn(async move {
        let replicas = [writer.isolates[0].store("US"), writer.isolates[0].store("EU")];
        for version in 1..5 {
            for replica in &replicas {
                write(replica, "x", version).await;
            }
            writer.note(0, "x", async { What::MaybeWrote(version) }).await;
            writer.world.sleep(5000).await;
        }
        writer.world.sleep(300_000).await;
        let mut found = Vec::new();
        for replica in &replicas {
            found.push(read(replica, "x", None).await);
        }
        let newest = found.iter().max().copied().flatten();
        for (number, found) in found.into_iter().enumerate() {
            writer
                .note(number, "x", async { What::Read(if variant == Variant::Wrong { found } else { newest }) })
                .await;
        }
    });
    check::divergences(&stage.events(), 120_000)
}

#[test]
fn replicas_that_are_never_compared_are_caught_diverging() {
    check(2, "convergence", replicas_never_compared);
}

/// A record touched at every request; against once a minute.
fn unthrottled_refresh(seed: u64, variant: Variant) -> Vec<Violation> {
    let stage = Stage::new(setup(seed));
    let user = stage.clone();
    stage.world.spawn(async move {
        let store = user.store(0);
        for round in 0..10 {
            let refresh = async {
                let value = format!("{round}");
                match store.put(&key("x"), value.as_bytes(), Write::default()).await {
                    Err(kv_patterns::kv::Error::Throttled) => What::Throttled,
                    _ => What::Wrote(round),
                }
            };
            user.note(0, "x", refresh).await;
            user.world.sleep(if variant == Variant::Wrong { user.draw(round, 1500) } else { 60_000 }).await;
        }
    });
    check::throttled(&stage.events())
}

#[test]
fn an_unthrottled_refresh_is_caught_drawing_429() {
    check(0, "no throttling", unthrottled_refresh);
}

/// Isolate memory as the only store; against KV. Deaths come from the plan's faults.
fn memory_only_plan(seed: u64) -> Plan<u64> {
    // Deaths are frequent, so that one still comes when most of the plan is gone.
    let faults = Faults::all().with(Fault::IsolateDies, 300);
    let shape = Shape { clients_max: 6, steps_max: 40, wait_millis_max: 4000 };
    let mut next = 0;
    Plan::generate(Setup { faults, locations: 1, ..setup(seed) }, shape, |below| {
        next += 1;
        if below(2) == 0 { next } else { 0 }
    })
}

fn memory_only(plan: &Plan<u64>) -> Vec<Violation> {
    let world = World::new(plan.setup.clone());
    let history = History::default();
    let edge = Edge::new(&world, 0, |_| RefCell::new(None::<u64>));
    let (noted, timed) = (history.clone(), world.clone());
    plan.run(&world, move |client, _, version| {
        let (edge, history, world) = (edge.clone(), noted.clone(), timed.clone());
        async move {
            let began = world.now();
            let answer = edge.request(async move |memory: Rc<RefCell<Option<u64>>>| {
                if version > 0 {
                    let newer = memory.borrow().max(Some(version));
                    *memory.borrow_mut() = newer;
                }
                *memory.borrow()
            });
            let what = match answer.await {
                Ok(_) if version > 0 => What::Wrote(version),
                Ok(seen) => What::Read(seen),
                Err(_) => What::Failed,
            };
            history.note(client, "x", began, world.now(), what);
        }
    })
    .unwrap();
    check::lost_writes(&history.events(), 0)
}

#[test]
fn a_failing_plan_shrinks_to_its_core() {
    let seed = (0..SEEDS).find(|seed| !memory_only(&memory_only_plan(*seed)).is_empty()).unwrap();
    let plan = memory_only_plan(seed);
    let small = shrink(plan.clone(), |plan| !memory_only(plan).is_empty());
    assert!(!memory_only(&small).is_empty(), "it still fails");
    assert!(small.steps() < plan.steps(), "{small}");
    assert_eq!(small.setup.faults.kinds().collect::<Vec<_>>(), [Fault::IsolateDies], "{small}");
    // A write, the request in which the isolate dies, the read that misses the write, and what keeps the draws in step.
    assert!(small.steps() <= 5 && plan.steps() > 20, "{} of {}: {small}", small.steps(), plan.steps());
}

#[test]
fn shrinking_keeps_what_cannot_be_left_out() {
    let step = |operation| Step { wait_millis: 1, operation };
    let client = |operations: &[u32]| Client { location: 0, steps: operations.iter().copied().map(step).collect() };
    let clients = vec![client(&[1, 2, 3]), client(&[4, 5]), client(&[6, 7, 8, 9])];
    let plan = Plan { setup: Setup { faults: Faults::all(), ..setup(1) }, clients };
    let fails = |plan: &Plan<u32>| {
        let all: Vec<u32> =
            plan.clients.iter().flat_map(|client| client.steps.iter().map(|step| step.operation)).collect();
        all.contains(&2) && all.contains(&8) && plan.setup.faults.kinds().any(|fault| fault == Fault::Slow)
    };
    let small = shrink(plan, fails);
    let left: Vec<u32> =
        small.clients.iter().flat_map(|client| client.steps.iter().map(|step| step.operation)).collect();
    assert_eq!(left, [2, 8]);
    assert_eq!(small.setup.faults.kinds().collect::<Vec<_>>(), [Fault::Slow]);
    assert_eq!(small.clients[2].steps[0].wait_millis, 3, "the waits of what went are kept");
}
