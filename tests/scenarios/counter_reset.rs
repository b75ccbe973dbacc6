//! Resets of counters on the simulator: an approximate counter that is set to zero while four other locations count on, and
//! an exact one whose answers must be those of one place; beside resets as they are usually written.
//!
//! Isolates live and writes succeed here: what is lost otherwise is measured by [`super::counter`].

use std::cell::RefCell;
use std::rc::Rc;

use kv_patterns::background::Background;
use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Key, Read, Store, Tenant, Write};
use kv_patterns::patterns::counter::exact::{Answer, Request};
use kv_patterns::patterns::counter::{Counters, Gather};
use kv_patterns::random::Random;
use kv_patterns::sim::linear::{Operation, is_linearizable};
use kv_patterns::sim::{
    Edge, Fault, Faults, Isolate, Objects, Profile, Setup, SimBackground, SimClock, SimRandom, SimStore, World,
    check::Violation,
};

use super::counter::ExactCounter;
use super::{Code, Run};

const NAMESPACE: &str = "COUNTERS";
const NAME: &str = "hits";
/// How long increments come, in milliseconds, and how many there are at each location.
const RUN_MILLIS: u64 = 90_000;
const INCREMENTS: u64 = 40;
const RESETS: u64 = 3;
/// How long increments are gathered before they are written, in milliseconds: they may be taken as later than a reset that
/// came in that time.
const GATHER_MILLIS: u64 = 1000;

/// How the counter is set to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The pattern's own.
    Ours,
    /// By what comes to mind: read the total, and add its negation.
    BySubtracting,
    /// Ten keys, each set to zero.
    Naive,
}

/// One isolate's program.
enum Worker {
    Ours { counters: Counters<SimStore, SimClock, SimRandom>, background: SimBackground, reset: Reset },
    Naive { store: SimStore, clock: SimClock, random: SimRandom },
}

fn tenant() -> Tenant {
    Tenant::new("acme").expect("a valid tenant id")
}

fn shard(number: u64) -> Key {
    tenant().space("naive").key(&[NAME, &number.to_string()])
}

async fn number(store: &SimStore, key: &Key) -> Option<i64> {
    let found = store.get(key, Read::default()).await.ok()?;
    Some(found.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0))
}

async fn write(store: &SimStore, key: &Key, value: i64) -> Option<()> {
    store.put(key, value.to_string().as_bytes(), Write::default()).await.ok()
}

impl Worker {
    fn new(reset: Reset, isolate: &Isolate) -> Self {
        let (store, random) = (isolate.store(NAMESPACE), isolate.random());
        if reset == Reset::Naive {
            return Self::Naive { store, clock: isolate.clock(), random };
        }
        let counters = Counters::new(store, isolate.clock(), random, tenant(), Gather::default());
        Self::Ours { counters, background: isolate.background(), reset }
    }

    async fn add(&self, delta: i64) -> Option<()> {
        match self {
            Self::Ours { counters, background, .. } => counters.add(NAME, delta, background).ok(),
            Self::Naive { store, random, .. } => {
                let key = shard(random.below(10));
                write(store, &key, number(store, &key).await? + delta).await
            }
        }
    }

    async fn read(&self) -> Option<i64> {
        match self {
            Self::Ours { counters, .. } => counters.read(NAME).await.ok().map(|reading| reading.value),
            Self::Naive { store, .. } => {
                let mut total = 0;
                for place in 0..10 {
                    total += number(store, &shard(place)).await?;
                }
                Some(total)
            }
        }
    }

    async fn reset(&self) -> Option<()> {
        match self {
            Self::Ours { counters, reset: Reset::Ours, .. } => counters.reset(NAME).await.ok(),
            Self::Ours { counters, background, .. } => {
                let total = counters.read(NAME).await.ok()?.value;
                counters.add(NAME, -total, background).ok()
            }
            Self::Naive { store, clock, .. } => {
                for place in 0..10 {
                    // Whoever means it tries again: the key may have been written less than a second ago.
                    let mut tries = 0;
                    while write(store, &shard(place), 0).await.is_none() {
                        tries += 1;
                        if tries > 5 {
                            return None;
                        }
                        clock.sleep(1000).await;
                    }
                }
                Some(())
            }
        }
    }
}

/// What was done when, in true time; a reset that failed may have happened.
#[derive(Clone, Copy, Debug)]
struct Done {
    began: Timestamp,
    ended: Timestamp,
    /// What was added; nothing for a reset.
    delta: Option<i64>,
    is_certain: bool,
}

/// The totals that may be seen once all is quiet: for each reset that may have been the last one, the least and the
/// most that came after it. What came within `slack` milliseconds of it may be on either side.
fn admissible(done: &[Done], slack: u64) -> Vec<(i64, i64)> {
    let before = |one: &Done, other: &Done, slack: u64| one.ended.plus_millis(slack) < other.began;
    let resets: Vec<&Done> = done.iter().filter(|done| done.delta.is_none()).collect();
    let is_last = |reset: &&&Done| !resets.iter().any(|other| other.is_certain && before(reset, other, slack));
    let never = resets.iter().all(|reset| !reset.is_certain);
    let range = |reset: Option<&Done>| {
        let mut range = (0, 0);
        for (delta, done) in done.iter().filter_map(|done| Some((done.delta?, done))) {
            if reset.is_some_and(|reset| before(done, reset, slack)) {
                continue;
            }
            let surely = done.is_certain && reset.is_none_or(|reset| before(reset, done, slack));
            range.0 += if surely { delta } else { delta.min(0) };
            range.1 += if surely { delta } else { delta.max(0) };
        }
        range
    };
    let last = resets.iter().filter(is_last).map(|reset| range(Some(reset)));
    last.chain(never.then(|| range(None))).collect()
}

/// Five locations count while resets come from any of them; then everything is waited for and read everywhere.
pub(crate) fn run_approximate(reset: Reset, seed: u64, profile: Profile) -> Run {
    let kept = [Fault::ReadFails, Fault::CacheEvicted, Fault::StepsBack, Fault::ShortPages, Fault::LateExpiry];
    let swarm = Setup::swarm(seed, profile);
    let gone = Fault::ALL.into_iter().filter(|fault| !kept.contains(fault));
    let faults = gone.fold(swarm.faults.clone(), Faults::without);
    let world = World::new(Setup { faults, ..swarm });
    let edges = Edge::everywhere(&world, move |isolate| Worker::new(reset, isolate));
    let log = Rc::<RefCell<Vec<Done>>>::default();
    let plan = kv_patterns::sim::stream(seed, "resets");
    for (edge, is_reset) in edges.iter().flat_map(|edge| [(edge, false), (edge, true)]) {
        let count = if is_reset { plan.below(RESETS) } else { INCREMENTS };
        for _ in 0..count {
            // Resets come early, so that much comes after the last of them.
            let wait = world.sleep(plan.below(if is_reset { RUN_MILLIS / 2 } else { RUN_MILLIS }));
            let delta = (!is_reset).then(|| if plan.below(5) == 0 { -2 } else { 1 });
            let (edge, log, world_of_client) = (edge.clone(), log.clone(), world.clone());
            world.spawn(async move {
                wait.await;
                let began = world_of_client.now();
                let act = async move |worker: Rc<Worker>| match delta {
                    Some(delta) => worker.add(delta).await,
                    None => worker.reset().await,
                };
                let is_certain = matches!(edge.request(act).await, Ok(Some(())));
                log.borrow_mut().push(Done { began, ended: world_of_client.now(), delta, is_certain });
            });
        }
    }
    let totals = finish(&world, &edges);
    let far = 8 * world.setup().profile.far.millis_max;
    let slack = 2 * world.setup().profile.clock_skew_millis_max + GATHER_MILLIS + far;
    let ranges = admissible(&log.borrow(), slack);
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    for total in totals {
        let off = |(least, most): &(i64, i64)| (least - total).max(total - most).max(0).unsigned_abs();
        let wrong = ranges.iter().map(off).min().unwrap_or(0);
        run.samples.entry("wrong after resets").or_default().push(wrong);
        if wrong > 0 && reset != Reset::Naive {
            let text = format!("{total}, which must lie in one of {ranges:?}");
            run.violations.push(Violation { checker: "conservation after resets", text });
        }
    }
    run
}

fn finish(world: &World, edges: &[Rc<Edge<Worker>>]) -> Vec<i64> {
    assert!(world.run().is_ok(), "the run got stuck");
    let totals = Rc::new(RefCell::new(Vec::new()));
    let (task, edges, found) = (world.clone(), edges.to_vec(), totals.clone());
    world.spawn(async move {
        let lag = 60_000 + task.setup().profile.list_stale_millis_max();
        // Once resets can be heard of, writers look for them with whatever they write next.
        for wait in [lag, 45_000, 45_000, lag] {
            task.sleep(wait).await;
            for edge in &edges {
                let _ = edge.request(async |worker| touch(&worker)).await;
            }
        }
        task.sleep(lag).await;
        for edge in &edges {
            for _ in 0..20 {
                if let Ok(Some(total)) = edge.request(async |worker| worker.read().await).await {
                    found.borrow_mut().push(total);
                    break;
                }
            }
        }
    });
    assert!(world.run().is_ok(), "the end got stuck");
    totals.take()
}

/// One more and one less: changes nothing, and is reason enough to look for resets and to write.
fn touch(worker: &Worker) {
    if let Worker::Ours { counters, background, .. } = worker {
        let _ = counters.add(NAME, 1, background);
        background.spawn({
            let (counters, background) = (counters.clone(), background.clone());
            async move {
                let _ = counters.add(NAME, -1, &background);
            }
        });
    }
}

/// What is asked of an exact counter, and what it answered.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Add(i64, i64),
    Read(i64),
    Reset,
}

fn step(value: i64, operation: &Operation<Asked>) -> Option<i64> {
    match operation.what {
        Asked::Add(delta, _) if !operation.is_certain => Some(value + delta),
        Asked::Add(delta, answered) => (value + delta == answered).then_some(answered),
        Asked::Read(seen) => (seen == value).then_some(seen),
        Asked::Reset => Some(0),
    }
}

/// Clients that add (with a key, until it is answered), read and reset; the answers must be linearizable. The naive
/// counter is one key, read and written back; its writes are refused with 429 or performed, so that what has no answer has
/// not happened, and what is wrong is not for want of knowing.
pub(crate) fn run_exact(code: Code, setup: Setup) -> Run {
    let unclear = [Fault::WriteFailsBefore, Fault::WriteFailsAfter, Fault::LateWrite, Fault::Hangs];
    let gone = if code == Code::Naive { unclear.as_slice() } else { &[] };
    let faults = gone.iter().fold(setup.faults, |faults, fault| faults.without(*fault));
    let world = World::new(Setup { faults, ..setup });
    let objects = Objects::<ExactCounter>::new(&world);
    let history = Rc::<RefCell<Vec<Operation<Asked>>>>::default();
    for client in 0..5_usize {
        let (objects, world_of_client, history) = (objects.clone(), world.clone(), history.clone());
        let isolate = world.isolate(client % world.setup().locations);
        world.spawn(async move {
            for turn in 0..20 {
                let random = isolate.random();
                world_of_client.sleep(random.below(1500)).await;
                let began = world_of_client.now();
                let (delta, kind) = (i64::try_from(random.below(9)).unwrap_or(0) - 4, random.below(10));
                let note = |what, is_certain| {
                    let ended = world_of_client.now();
                    history.borrow_mut().push(Operation { began, ended, is_certain, what });
                };
                let what = match kind {
                    0 => Asked::Reset,
                    1..4 => Asked::Read(0),
                    _ => Asked::Add(delta, 0),
                };
                let answer = match code {
                    Code::Ours => {
                        let request = match what {
                            Asked::Add(delta, _) => Request::Add { delta, key: Some(format!("{client}/{turn}")) },
                            Asked::Read(_) => Request::Read,
                            Asked::Reset => Request::Reset,
                        };
                        ask(&objects, &isolate, &world_of_client, request).await
                    }
                    Code::Naive => naive(&isolate.store(NAMESPACE), what).await,
                };
                match (what, answer) {
                    (Asked::Add(delta, _), Some(value)) => note(Asked::Add(delta, value), true),
                    (Asked::Read(_), Some(value)) => note(Asked::Read(value), true),
                    (Asked::Reset, Some(_)) => note(what, true),
                    (Asked::Read(_), None) => {}
                    (_, None) if code == Code::Naive => {}
                    (_, None) => note(what, false),
                }
            }
        });
    }
    assert!(world.run().is_ok(), "the exact run got stuck");
    let is_wrong = !is_linearizable(&history.borrow(), 0, |value, operation| step(*value, operation));
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    run.samples.insert("exact: no order explains", vec![u64::from(is_wrong)]);
    if is_wrong && code == Code::Ours {
        let text = format!("no order explains the answers to {} requests", history.borrow().len());
        run.violations.push(Violation { checker: "linearizability", text });
    }
    run
}

/// Asks until it is answered; without a key, as resets and reads are, once.
async fn ask(objects: &Objects<ExactCounter>, isolate: &Isolate, world: &World, request: Request) -> Option<i64> {
    let is_keyed = matches!(request, Request::Add { .. });
    loop {
        match objects.call(isolate, NAME, request.clone()).await {
            Ok(Answer::Value { value }) => return Some(value),
            Err(_) if is_keyed => world.sleep(200).await,
            Ok(_) | Err(_) => return None,
        }
    }
}

async fn naive(store: &SimStore, what: Asked) -> Option<i64> {
    let key = tenant().space("naive").key(&["exact"]);
    match what {
        Asked::Add(delta, _) => {
            let value = number(store, &key).await? + delta;
            write(store, &key, value).await.map(|()| value)
        }
        Asked::Read(_) => number(store, &key).await,
        Asked::Reset => write(store, &key, 0).await.map(|()| 0),
    }
}
