//! Counters on the simulator: increments from one to twenty locations, one to a hundred a second, approximate and exact,
//! beside the tutorial's sharded counter (a random one of ten keys, read, add one, write).
//!
//! Half of all runs meet every fault of the swarm except the death of isolates, and must keep every increment. The other
//! half meets no fault but isolates that are killed, and may lose what each had not written.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use kv_patterns::clock::Timestamp;
use kv_patterns::kv::{Key, Read, Store, Tenant, Write};
use kv_patterns::patterns::counter::exact::{self, Answer, Request, Seen, State};
use kv_patterns::patterns::counter::{Counters, Gather, LOSS_SECONDS};
use kv_patterns::random::Random;
use kv_patterns::sim::{
    Edge, Fault, Faults, Isolate, Object, Objects, Plan, Profile, Setup, Shape, SimBackground, SimClock, SimRandom,
    SimStore, World, check::Violation,
};

use super::counter_reset::{self, Reset, run_approximate};
use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

const NAMESPACE: &str = "COUNTERS";
const NAME: &str = "hits";
/// How long increments come, in milliseconds.
const RUN_MILLIS: u64 = 60_000;
/// Locations and increments a second of all of them together, one pair per run.
const LOADS: [(usize, u64); 6] = [(1, 1), (5, 1), (1, 20), (5, 20), (20, 20), (20, 100)];
/// How long a write may be on its way, in milliseconds, beyond the second that is promised: what a dying isolate had
/// sent may not have arrived.
const WRITE_MILLIS: u64 = 8000;

/// One increment, or the end of an isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Add(i64),
    Kill,
}

/// An approximate plan: even seeds meet faults, odd ones deaths.
pub(crate) fn plan(seed: u64, profile: Profile) -> Plan<Act> {
    let (locations, rate) = LOADS[usize::try_from(seed / 2).unwrap_or(0) % LOADS.len()];
    let faults = if seed.is_multiple_of(2) {
        Setup::swarm(seed, profile).faults.without(Fault::IsolateDies)
    } else {
        Faults::none()
    };
    let setup = Setup { seed, profile, faults, locations };
    let kills = !seed.is_multiple_of(2);
    let steps = RUN_MILLIS * rate / 1000;
    // One client per location, each with its share of the rate.
    let shape = Shape { clients_max: 1, steps_max: 1, wait_millis_max: 1 };
    let mut plan = Plan::generate(setup, shape, |_| Act::Add(1));
    let each = steps / u64::try_from(locations).unwrap_or(1);
    let random = kv_patterns::sim::stream(seed, "increments");
    plan.clients = (0..locations)
        .map(|location| {
            let wait = RUN_MILLIS / each.max(1);
            let step = |_| {
                let operation = if kills && random.below(40) == 0 { Act::Kill } else { Act::Add(draw(&random)) };
                kv_patterns::sim::Step { wait_millis: random.below(2 * wait + 1), operation }
            };
            kv_patterns::sim::Client { location, steps: (0..each.max(1)).map(step).collect() }
        })
        .collect();
    plan
}

/// Mostly one more; sometimes one less, or several.
fn draw(random: &impl Random) -> i64 {
    match random.below(10) {
        0 => -1,
        1 => 5,
        _ => 1,
    }
}

/// One isolate's program.
pub(crate) enum Worker {
    Ours { counters: Counters<SimStore, SimClock, SimRandom>, background: SimBackground },
    Naive { store: SimStore, random: SimRandom },
}

impl Worker {
    fn new(code: Code, isolate: &Isolate) -> Self {
        let (store, clock, random) = (isolate.store(NAMESPACE), isolate.clock(), isolate.random());
        match code {
            Code::Ours => {
                let counters = Counters::new(store, clock, random, tenant(), Gather::default());
                Self::Ours { counters, background: isolate.background() }
            }
            Code::Naive => Self::Naive { store, random },
        }
    }

    /// Whether the increment was accepted.
    async fn add(&self, delta: i64) -> bool {
        match self {
            Self::Ours { counters, background } => counters.add(NAME, delta, background).is_ok(),
            Self::Naive { store, random } => {
                let key = naive_key(random.below(10));
                let Ok(found) = store.get(&key, Read::default()).await else { return false };
                let value = number(found.as_deref()) + delta;
                store.put(&key, value.to_string().as_bytes(), Write::default()).await.is_ok()
            }
        }
    }

    async fn read(&self) -> Option<i64> {
        match self {
            Self::Ours { counters, .. } => counters.read(NAME).await.ok().map(|reading| reading.value),
            Self::Naive { store, .. } => {
                let mut total = 0;
                for shard in 0..10 {
                    total += number(store.get(&naive_key(shard), Read::default()).await.ok()?.as_deref());
                }
                Some(total)
            }
        }
    }
}

fn tenant() -> Tenant {
    Tenant::new("acme").expect("a valid tenant id")
}

fn naive_key(shard: u64) -> Key {
    tenant().space("naive").key(&[NAME, &shard.to_string()])
}

fn number(bytes: Option<&[u8]>) -> i64 {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}

/// What was accepted, and what an isolate that died may have taken with it.
#[derive(Default)]
struct Ledger {
    attempted: Cell<u64>,
    /// The sum of all that was accepted, and the largest magnitude it may differ by for the dead.
    accepted: Cell<i64>,
    excused: Cell<i64>,
    /// By location: when the present isolate accepted what, in the last seconds.
    recent: RefCell<BTreeMap<usize, VecDeque<(Timestamp, i64)>>>,
}

/// Runs one approximate plan to its end.
pub(crate) fn run_plan(code: Code, plan: &Plan<Act>) -> Run {
    let world = World::new(plan.setup.clone());
    let edges = Rc::new(Edge::everywhere(&world, move |isolate| Worker::new(code, isolate)));
    let ledger = Rc::new(Ledger::default());
    let (acting, book, clock) = (edges.clone(), ledger.clone(), world.clone());
    let ran = plan.run(&world, move |_, location, act| {
        let (edges, ledger, world) = (acting.clone(), book.clone(), clock.clone());
        async move { act_on(&edges, &ledger, &world, location, act).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let totals = finish(&world, &edges);
    judge(code, &world, &ledger, &totals)
}

async fn act_on(edges: &[Rc<Edge<Worker>>], ledger: &Rc<Ledger>, world: &World, location: usize, act: Act) {
    let Act::Add(delta) = act else {
        edges[location].kill();
        let lost = ledger.recent.borrow_mut().remove(&location).unwrap_or_default();
        let since = world.now().millis().saturating_sub(LOSS_SECONDS * 1000 + WRITE_MILLIS);
        let unwritten = lost.iter().filter(|(at, _)| at.millis() >= since).map(|(_, delta)| delta.abs()).sum::<i64>();
        ledger.excused.set(ledger.excused.get() + unwritten);
        return;
    };
    ledger.attempted.set(ledger.attempted.get() + 1);
    if edges[location].request(async move |worker| worker.add(delta).await).await == Ok(true) {
        ledger.accepted.set(ledger.accepted.get() + delta);
        let mut recent = ledger.recent.borrow_mut();
        let recent = recent.entry(location).or_default();
        recent.push_back((world.now(), delta));
        if recent.len() > 5000 {
            recent.pop_front();
        }
    }
}

/// Later requests carry over what a lost background task left; then everything is waited for and read everywhere.
fn finish(world: &World, edges: &Rc<Vec<Rc<Edge<Worker>>>>) -> Vec<i64> {
    let totals = Rc::new(RefCell::new(Vec::new()));
    let (task, edges, found) = (world.clone(), edges.clone(), totals.clone());
    world.spawn(async move {
        for _ in 0..6 {
            task.sleep(45_000).await;
            for edge in edges.iter() {
                // Adds nothing, but is reason enough to write what is left.
                let _ = edge.request(async |worker| worker.add(0).await).await;
            }
        }
        task.sleep(60_000 + 2 * task.setup().profile.list_stale_millis_max()).await;
        for edge in edges.iter() {
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

fn judge(code: Code, world: &World, ledger: &Ledger, totals: &[i64]) -> Run {
    let (accepted, excused) = (ledger.accepted.get(), ledger.excused.get());
    let quiet = world.setup().faults == Faults::none();
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    let attempted = i64::try_from(ledger.attempted.get()).unwrap_or(i64::MAX);
    for total in totals {
        let wrong = (accepted - total).abs();
        let beyond = u64::try_from((wrong - excused).max(0)).unwrap_or(0);
        run.samples.entry("wrong beyond the dead").or_default().push(beyond);
        if !quiet {
            run.samples.entry("wrong, nobody died").or_default().push(wrong.unsigned_abs());
        }
        let kept = total.clamp(&0, &attempted.max(1)) * 1000 / attempted.max(1);
        run.samples.entry("not counted").or_default().push(u64::try_from(1000 - kept.min(1000)).unwrap_or(0));
        if beyond > 0 && code == Code::Ours {
            let text = format!("{total} instead of {accepted}; {excused} are excused");
            run.violations.push(Violation { checker: "conservation", text });
        }
    }
    if quiet {
        run.samples.entry("429").or_default().push(world.throttled().values().sum());
    }
    run
}

/// The exact counter's object, as its class runs it.
#[derive(Default)]
pub(crate) struct ExactCounter;

impl Object for ExactCounter {
    type Storage = (State, BTreeMap<String, Seen>);
    type Request = Request;
    type Reply = Answer;

    fn handle(&mut self, (state, keys): &mut Self::Storage, request: Request, now: Timestamp) -> Answer {
        let key = match &request {
            Request::Add { key: Some(key), .. } => Some(key.clone()),
            _ => None,
        };
        let decision = exact::decide(state, key.as_ref().and_then(|key| keys.get(key).copied()), &request, now);
        *state = decision.state;
        keys.extend(key.zip(decision.remember));
        decision.answer
    }
}

/// Clients that repeat each increment, with its key, until it is answered, through restarts and overload.
pub(crate) fn run_exact(setup: Setup) -> Run {
    let world = World::new(setup);
    let objects = Objects::<ExactCounter>::new(&world);
    let expected = Rc::new(Cell::new(0_i64));
    for client in 0..6_usize {
        let (objects, world_of_client, expected) = (objects.clone(), world.clone(), expected.clone());
        let isolate = world.isolate(client % world.setup().locations);
        world.spawn(async move {
            for number in 0..40 {
                let random = isolate.random();
                world_of_client.sleep(random.below(3000)).await;
                let (delta, key) = (draw(&random), Some(format!("{client}/{number}")));
                expected.set(expected.get() + delta);
                loop {
                    let request = Request::Add { delta, key: key.clone() };
                    // Some answers are believed lost although they came: the duplicates of a network.
                    if objects.call(&isolate, NAME, request).await.is_ok() && random.below(4) > 0 {
                        break;
                    }
                    world_of_client.sleep(200).await;
                }
            }
        });
    }
    assert!(world.run().is_ok(), "the exact run got stuck");
    let total = objects.storage(NAME).map_or(0, |(state, _)| state.value);
    let wrong = (total - expected.get()).unsigned_abs();
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    run.samples.insert("exact: wrong", vec![wrong]);
    if wrong > 0 {
        let text = format!("{total} instead of {}", expected.get());
        run.violations.push(Violation { checker: "exact conservation", text });
    }
    run
}

/// Counters.
pub(crate) struct CounterScenario;

impl Scenario for CounterScenario {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        let mut run = run_plan(code, &plan(seed, profile));
        if code == Code::Ours {
            run.absorb(run_exact(Setup::swarm(seed, profile)));
            run.absorb(run_approximate(Reset::Ours, seed, profile));
        } else {
            run.absorb(run_approximate(Reset::Naive, seed, profile));
            // The naive code has one way to count, which stands beside both of ours.
            let wrong = run.samples.get("wrong beyond the dead").cloned().unwrap_or_default();
            run.samples.insert("exact: wrong", wrong);
        }
        run.absorb(counter_reset::run_exact(code, Setup::swarm(seed, profile)));
        run
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        kv_patterns::sim::shrink(plan(seed, profile), |plan| !run_plan(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let never = |what, figure| Promise {
            what,
            figure,
            statistic: Statistic::Max,
            unit: Unit::Count,
            promised: |_| Some(0),
        };
        vec![
            never("approximate: off by, while no isolate dies", "wrong, nobody died"),
            never("approximate: off by, beyond what the dead had not written", "wrong beyond the dead"),
            never("writes refused with 429, without faults", "429"),
            never("approximate: off by, once a reset was heard of everywhere", "wrong after resets"),
            never("exact: off by, under retries, duplicates, restarts", "exact: wrong"),
            Promise {
                what: "exact: runs with resets whose answers no order of requests explains",
                figure: "exact: no order explains",
                statistic: Statistic::PermilleNotZero,
                unit: Unit::Permille,
                promised: |_| Some(0),
            },
            Promise {
                what: "increments that are not in the total, half of all runs at most",
                figure: "not counted",
                statistic: Statistic::Median,
                unit: Unit::Permille,
                promised: |_| None,
            },
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Counters: share of increments missing from the total",
            figure: "not counted",
            unit: Unit::Permille,
            x: "share of increments missing",
            y: "readings that miss more",
            promised: |_| None,
        }
    }
}
