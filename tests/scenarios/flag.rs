//! Flags on the simulator: an operator throws a switch again and again, each time from another location, and readers
//! all over the world evaluate it; each asks what it got, and how long after somebody was told that it changed.
//!
//! The naive code is that of the usual tutorial: one key of JSON, read with KV's own cache, edited by get and put.
//! Editors that cross each other are not part of this: the later edit wins whole, as the pattern's head says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Breaker, KeySpace, Policy, Read, Resilient, Store, Tenant, Write};
use kv_patterns::patterns::flag::{Edit, EvaluationContext, Flags, Memory, Outcome, POINTER_SECONDS};
use kv_patterns::random::Random;
use kv_patterns::sim::{
    Edge, Fault, Faults, Isolate, Plan, Profile, Setup, Shape, SimClock, SimRandom, SimStore, World, check, stream,
};
use serde_json::{Value, json};

use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

/// What the pattern asks locations to keep its reads for.
const CACHE_TTL_SECONDS: u32 = 30;
/// Switches thrown in one run.
const EDITS: u64 = 12;
/// How long an operator waits after an answer, in milliseconds: above the difference of two clocks, so that the order
/// of edits is that of their sequence numbers.
const EDIT_WAIT_MILLIS: u64 = 20_000;
/// How long an operator waits who got no answer, in milliseconds: longer than what was sent can still take effect.
const UNANSWERED_MILLIS: u64 = 120_000;
/// One request's own time, retries included, in milliseconds.
const REQUEST_MILLIS: u64 = 10_000;

const NAMESPACE: &str = "CONFIG";
const LAG: &str = "switch unseen";
const BACK: &str = "isolate stepped back";
const SILENT: &str = "no answer";

/// A reader's only act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evaluate;

pub(crate) fn plan(setup: Setup) -> Plan<Evaluate> {
    let shape = Shape { clients_max: 8, steps_max: 120, wait_millis_max: 20_000 };
    Plan::generate(setup, shape, |_| Evaluate)
}

/// One isolate's program; `seen` is the newest switch it has answered with.
struct Worker {
    program: Program,
    clock: SimClock,
    seen: Cell<u64>,
}

enum Program {
    Ours(Flags<Resilient<SimStore, SimClock, SimRandom>>),
    Naive(SimStore, KeySpace),
}

/// A document whose one flag says how often the switch was thrown.
fn document(number: u64) -> Value {
    json!({ "flags": { "switch": { "state": "ENABLED", "variants": { "v": number }, "defaultVariant": "v" } } })
}

impl Worker {
    fn new(code: Code, isolate: &Isolate) -> Option<Self> {
        let tenant = Tenant::new("acme").ok()?;
        let (store, clock, random) = (isolate.store(NAMESPACE), isolate.clock(), isolate.random());
        let program = match code {
            Code::Ours => {
                let store = Resilient::new(store, clock.clone(), random, Policy::default(), Breaker::default());
                Program::Ours(Flags::new(store, &tenant, Memory::default()))
            }
            Code::Naive => Program::Naive(store, tenant.space("flags")),
        };
        Some(Self { program, clock, seen: Cell::new(0) })
    }

    async fn throw(&self, number: u64) -> Option<()> {
        match &self.program {
            Program::Ours(flags) => {
                let now = self.clock.now();
                let base = flags.newest(now).await.ok()?;
                flags.commit(base.as_ref(), Edit::Replace(document(number)), now).await.ok().map(drop)
            }
            Program::Naive(store, keys) => {
                let key = keys.key(&["default"]);
                let found = store.get(&key, Read::default()).await.ok()?;
                let mut flags: Value = found.map_or(Ok(json!({})), |bytes| serde_json::from_slice(&bytes)).ok()?;
                flags["switch"] = json!(number);
                store.put(&key, flags.to_string().as_bytes(), Write::default()).await.ok()
            }
        }
    }

    /// How often the switch was thrown, as far as this isolate knows, and whether it knew better before.
    async fn evaluate(&self) -> Option<(u64, bool)> {
        let number = match &self.program {
            Program::Ours(flags) => {
                let now = self.clock.now();
                match flags.snapshot(now).await.ok()? {
                    None => 0,
                    Some(snapshot) => {
                        let evaluated = snapshot.flags().evaluate("switch", &EvaluationContext::default(), now);
                        match evaluated.outcome {
                            Outcome::Value { value, .. } => value.as_u64()?,
                            _ => return None,
                        }
                    }
                }
            }
            Program::Naive(store, keys) => match store.get(&keys.key(&["default"]), Read::default()).await.ok()? {
                None => 0,
                Some(bytes) => serde_json::from_slice::<Value>(&bytes).ok()?["switch"].as_u64()?,
            },
        };
        let stepped_back = number < self.seen.get();
        self.seen.set(number);
        Some((number, stepped_back))
    }
}

struct Bench {
    world: World,
    edges: Vec<Rc<Edge<Worker>>>,
    /// When each throw was acknowledged, in true time, by its number.
    thrown: RefCell<BTreeMap<u64, Timestamp>>,
    samples: RefCell<BTreeMap<&'static str, Vec<u64>>>,
    noted: Cell<u64>,
}

/// Runs one plan to its end.
pub(crate) fn run_plan(code: Code, plan: &Plan<Evaluate>) -> Run {
    let world = World::new(plan.setup.clone());
    let edges = Edge::everywhere(&world, move |isolate| Worker::new(code, isolate).expect("a valid tenant id"));
    let (thrown, samples, noted) = (RefCell::default(), RefCell::default(), Cell::new(0));
    let bench = Rc::new(Bench { world, edges, thrown, samples, noted });
    let operator = bench.clone();
    bench.world.spawn(async move { operator.throw_switches().await });
    let reading = bench.clone();
    let ran = plan.run(&bench.world, move |_, location, Evaluate| {
        let bench = reading.clone();
        async move { bench.evaluate(location).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    bench.judge()
}

impl Bench {
    async fn throw_switches(&self) {
        let random = stream(self.world.setup().seed, "operator");
        for number in 1..=EDITS {
            let location = usize::try_from(random.below(self.edges.len() as u64)).unwrap_or(0);
            let answer = self.edges[location].request(async move |worker| worker.throw(number).await).await;
            let wait = if matches!(answer, Ok(Some(()))) {
                self.thrown.borrow_mut().insert(number, self.world.now());
                EDIT_WAIT_MILLIS
            } else {
                UNANSWERED_MILLIS
            };
            self.world.sleep(wait + random.below(4 * EDIT_WAIT_MILLIS)).await;
        }
    }

    async fn evaluate(&self, location: usize) {
        let began = self.world.now();
        let answer = self.edges[location].request(async |worker: Rc<Worker>| worker.evaluate().await).await;
        let Some((number, stepped_back)) = answer.ok().flatten() else { return self.sample(SILENT, 1) };
        self.sample(SILENT, 0);
        self.sample(BACK, u64::from(stepped_back));
        // The first throw after the one it got that was acknowledged before it asked.
        let missed = self.thrown.borrow().range(number + 1..).map(|(_, at)| *at).min();
        let lag = missed.filter(|at| *at < began).map_or(0, |at| began.millis_since(at));
        self.sample(LAG, lag);
        self.noted.set(self.noted.get().rotate_left(5) ^ number ^ (began.millis() << 8));
    }

    fn sample(&self, figure: &'static str, value: u64) {
        self.samples.borrow_mut().entry(figure).or_default().push(value);
    }

    fn judge(&self) -> Run {
        let samples = self.samples.borrow().clone();
        let largest = |figure| Statistic::Max.of(samples.get(figure).map_or(&[], Vec::as_slice));
        let bound = lag_millis_max(&self.world.setup().profile);
        let mut violations = Vec::new();
        if largest(LAG) > bound {
            let text = format!("unseen {} ms after it was acknowledged", largest(LAG));
            violations.push(check::Violation { checker: "kill switch", text });
        }
        if largest(BACK) > 0 {
            let text = "an isolate answered with an older document than before".to_owned();
            violations.push(check::Violation { checker: "stepped back", text });
        }
        let fingerprint = self.world.fingerprint() ^ self.noted.get();
        Run { operations: self.world.operations(), fingerprint, violations, samples }
    }
}

/// What KV keeps, what an isolate keeps, and the request itself.
fn lag_millis_max(profile: &Profile) -> u64 {
    profile.stale_millis_max(Some(CACHE_TTL_SECONDS)) + POINTER_SECONDS * 1000 + REQUEST_MILLIS
}

/// The swarm of this seed without what the promise excludes: a write that lands later than the one after it, and a KV
/// that does not answer, with which an isolate goes on with what it knows for as long as that lasts.
fn promised_setup(seed: u64, profile: Profile) -> Setup {
    let setup = Setup::swarm(seed, profile);
    let excluded = [Fault::LateWrite, Fault::ReadFails, Fault::Hangs, Fault::Slow];
    Setup { faults: excluded.into_iter().fold(setup.faults, Faults::without), ..setup }
}

/// Flags.
pub(crate) struct FlagScenario;

impl Scenario for FlagScenario {
    fn name(&self) -> &'static str {
        "flag"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        run_plan(code, &plan(promised_setup(seed, profile)))
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        let plan = plan(promised_setup(seed, profile));
        kv_patterns::sim::shrink(plan, |plan| !run_plan(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        vec![
            Promise {
                what: "a switch thrown: unseen elsewhere for at most",
                figure: LAG,
                statistic: Statistic::Max,
                unit: Unit::Millis,
                promised: |profile| Some(lag_millis_max(profile)),
            },
            Promise {
                what: "answers older than one the same isolate gave before",
                figure: BACK,
                statistic: Statistic::Sum,
                unit: Unit::Count,
                promised: |_| Some(0),
            },
            Promise {
                what: "evaluations without an answer",
                figure: SILENT,
                statistic: Statistic::PermilleNotZero,
                unit: Unit::Permille,
                promised: |_| None,
            },
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Flags: how long a thrown switch is still unseen somewhere",
            figure: LAG,
            unit: Unit::Millis,
            x: "seconds since the change was acknowledged",
            y: "evaluations that miss it",
            promised: |profile| Some(lag_millis_max(profile)),
        }
    }
}
