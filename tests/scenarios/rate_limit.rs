//! Rate limits on the simulator: clients at five locations ask more than the limit allows, exact and approximate, beside
//! the tutorial's limiter (read the count, refuse at the limit, write it back with the rest of the window to live).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::LazyLock;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Error, Read, Store, Tenant, Write};
use kv_patterns::patterns::rate_limit::approximate::{Approximate, Counts, LEARN_SECONDS};
use kv_patterns::patterns::rate_limit::exact::{self, Answer, Question, Request, State, Taken};
use kv_patterns::patterns::rate_limit::{Algorithm, Mode, OnFailure, Policy, several};
use kv_patterns::random::Random;
use kv_patterns::sim::{
    Edge, Fault, Isolate, Object, Objects, Plan, Profile, START, Setup, Shape, SimBackground, SimClock, SimRandom,
    SimStore, World, check::Violation,
};

use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

const NAMESPACE: &str = "COUNTERS";
const LIMIT: u64 = 60;
const WINDOW_SECONDS: u64 = 3600;
/// How long clients ask, in seconds: two windows and the time to learn.
const RUN_SECONDS: u64 = 2 * WINDOW_SECONDS + 1200;
/// Clients, and the longest wait between the requests of each, in milliseconds.
const CLIENTS: u64 = 5;
const WAIT_MILLIS: u64 = 30_000;
/// Requests of each client.
const STEPS: u64 = RUN_SECONDS * 1000 / (WAIT_MILLIS / 2);
/// What the approximate limit is put to, for people.
static ASKED: LazyLock<String> = LazyLock::new(|| {
    let (asked, minutes) = (CLIENTS * STEPS, RUN_SECONDS / 60);
    format!("a limit of {LIMIT} an hour, asked {asked} times in {minutes} minutes")
});
static ROW: LazyLock<String> = LazyLock::new(|| format!("approximate: above {}", *ASKED));

fn policy(limit: u64, window_seconds: u64, mode: Mode) -> Policy {
    let algorithm = Algorithm::SlidingWindow;
    Policy { limit, window_seconds, algorithm, mode, on_failure: OnFailure::Deny, updated_at: START }
}

/// The swarm without what the promise excludes: a writer that dies, or whose writes fail, tells nobody what it admitted.
fn setup(seed: u64, profile: Profile) -> Setup {
    let setup = Setup::swarm(seed, profile);
    let silencing = [
        Fault::IsolateDies,
        Fault::BackgroundLost,
        Fault::Hangs,
        Fault::LateWrite,
        Fault::WriteFailsBefore,
        Fault::ReadFails,
        Fault::Pauses,
    ];
    let faults = silencing.into_iter().fold(setup.faults, kv_patterns::sim::Faults::without);
    Setup { faults, ..setup }
}

pub(crate) fn plan(seed: u64, profile: Profile) -> Plan<()> {
    let mut plan =
        Plan::generate(setup(seed, profile), Shape { clients_max: 1, steps_max: 1, wait_millis_max: 1 }, |_| ());
    let random = kv_patterns::sim::stream(seed, "checks");
    let step = |_| kv_patterns::sim::Step { wait_millis: random.below(WAIT_MILLIS), operation: () };
    plan.clients = (0..CLIENTS)
        .map(|client| {
            let location = usize::try_from(client).unwrap_or(0) % plan.setup.locations;
            kv_patterns::sim::Client { location, steps: (0..STEPS).map(step).collect() }
        })
        .collect();
    plan
}

/// One isolate's program.
enum Worker {
    Ours { limits: Approximate<SimStore, SimClock, SimRandom>, background: SimBackground },
    Naive { store: SimStore, clock: SimClock },
}

fn tenant() -> Tenant {
    Tenant::new("acme").expect("a valid tenant id")
}

impl Worker {
    fn new(code: Code, isolate: &Isolate) -> Self {
        let (store, clock, random) = (isolate.store(NAMESPACE), isolate.clock(), isolate.random());
        match code {
            Code::Ours => {
                let limits = Approximate::new(store, clock, random, tenant(), Counts::default());
                Self::Ours { limits, background: isolate.background() }
            }
            Code::Naive => Self::Naive { store, clock },
        }
    }

    /// Whether the request may go on. The naive code swallows its own errors: else it would be an outage.
    async fn check(&self) -> bool {
        match self {
            Self::Ours { limits, background } => {
                let policy = policy(LIMIT, WINDOW_SECONDS, Mode::Approximate);
                limits.check(("p", &policy), "client", 1, false, background).allowed
            }
            Self::Naive { store, clock } => naive(store, clock.now()).await.unwrap_or(true),
        }
    }
}

async fn naive(store: &SimStore, now: Timestamp) -> Result<bool, Error> {
    let window = now.seconds() / WINDOW_SECONDS;
    let key = tenant().space("naive").key(&["client", &window.to_string()]);
    let found = store.get(&key, Read::default()).await?;
    let count: u64 = found.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0);
    if count >= LIMIT {
        return Ok(false);
    }
    let left = (window + 1) * WINDOW_SECONDS - now.seconds();
    let write = Write { ttl_seconds: Some(left), metadata: None };
    store.put(&key, (count + 1).to_string().as_bytes(), write).await?;
    Ok(true)
}

/// The most that was admitted beyond `limit` in any window.
fn overshoot(admitted: &[Timestamp], limit: u64, window_millis: u64) -> u64 {
    let (mut inside, mut worst) = (VecDeque::new(), 0);
    for at in admitted {
        inside.push_back(*at);
        while inside.front().is_some_and(|first: &Timestamp| first.plus_millis(window_millis) <= *at) {
            inside.pop_front();
        }
        worst = worst.max(u64::try_from(inside.len()).unwrap_or(0).saturating_sub(limit));
    }
    worst
}

/// The most that arrived in any span so long.
fn arrivals(asked: &[Timestamp], span_millis: u64) -> u64 {
    overshoot(asked, 0, span_millis)
}

/// How long a writer may not know of another, in milliseconds: what the pattern says, with what the profile makes of
/// "60 seconds".
fn learn_millis(profile: &Profile) -> u64 {
    let documented = LEARN_SECONDS * 1000 - 60_000;
    documented + profile.list_stale_millis_max() + 8 * profile.far.millis_max + 2 * WAIT_MILLIS
}

pub(crate) fn run_plan(code: Code, plan: &Plan<()>) -> Run {
    let world = World::new(plan.setup.clone());
    let edges = Rc::new(Edge::everywhere(&world, move |isolate| Worker::new(code, isolate)));
    let (asked, admitted, denied) =
        (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<Vec<_>>>::default(), Rc::new(Cell::new(0_u64)));
    let (ask, admit, deny, clock) = (asked.clone(), admitted.clone(), denied.clone(), world.clone());
    let ran = plan.run(&world, move |_, location, ()| {
        let (edge, ask, admit, deny, world) =
            (edges[location].clone(), ask.clone(), admit.clone(), deny.clone(), clock.clone());
        async move {
            ask.borrow_mut().push(world.now());
            match edge.request(async |worker| worker.check().await).await {
                Ok(true) => admit.borrow_mut().push(world.now()),
                Ok(false) => deny.set(deny.get() + 1),
                Err(_) => {}
            }
        }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let over = overshoot(&admitted.borrow(), LIMIT, WINDOW_SECONDS * 1000);
    // A sixtieth of the window is forgotten late, never early; what arrives while nobody knows may pass.
    let allowed = arrivals(&asked.borrow(), learn_millis(&plan.setup.profile));
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    run.samples.insert("approximate: above the limit", vec![over]);
    run.samples.insert("approximate: beyond the bound", vec![over.saturating_sub(allowed)]);
    run.samples.insert("denied", vec![denied.get()]);
    run.samples.insert("never denied", vec![u64::from(denied.get() == 0)]);
    if code == Code::Ours && over > allowed {
        let text = format!("{over} above the limit of {LIMIT}; {allowed} are allowed for");
        run.violations.push(Violation { checker: "approximate overshoot", text });
    }
    run
}

/// The exact limiter's object, as its class runs it.
#[derive(Default)]
struct ExactLimiter;

impl Object for ExactLimiter {
    type Storage = Option<State>;
    type Request = Request;
    type Reply = Option<Answer>;

    fn handle(&mut self, state: &mut Option<State>, request: Request, now: Timestamp) -> Option<Answer> {
        let (next, answer) = match request {
            Request::Check(question) => {
                let (next, answer) = exact::decide(state.as_ref(), &question, now);
                (Some(next), Some(answer))
            }
            Request::GiveBack(taken) => (state.take().map(|known| exact::give_back(known, &taken, now)), None),
        };
        *state = next.filter(|state| !state.usage.is_empty(&state.policy, now));
        answer
    }
}

/// The objects as one isolate calls them; it notes when each count gave what the present check holds.
struct Called<'a> {
    objects: &'a Objects<ExactLimiter>,
    isolate: &'a Isolate,
    gave: RefCell<Vec<(String, Timestamp)>>,
    give_back: GiveBack,
}

/// How what a refused check had taken is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveBack {
    Once,
    /// The bug planted for the judge: a retry that forgets that the first may have happened.
    Twice,
}

impl several::Counts for Called<'_> {
    type Lost = ();

    async fn check(&self, identifier: &str, question: &Question) -> Result<Answer, ()> {
        let called = self.objects.call(self.isolate, identifier, Request::Check(question.clone())).await;
        let answer = called.ok().flatten().ok_or(())?;
        self.gave.borrow_mut().extend(answer.taken.map(|taken| (identifier.to_owned(), taken.at)));
        Ok(answer)
    }

    async fn give_back(&self, identifier: &str, taken: Taken) {
        for _ in 0..=u8::from(self.give_back == GiveBack::Twice) {
            drop(self.objects.call(self.isolate, identifier, Request::GiveBack(taken)).await);
        }
    }
}

/// What each client names in its checks: what it shares with others, and itself.
const NAMED: [&[&str]; 6] =
    [&["client"], &["a", "client"], &["b", "client"], &["a", "b"], &["client"], &["client", "z"]];

/// Clients far above exact limits, one or two identifiers each, through restarts and overload.
pub(crate) fn run_exact(setup: Setup, give_back: GiveBack) -> Run {
    let world = World::new(setup);
    let objects = Objects::<ExactLimiter>::new(&world);
    let let_on = Rc::<RefCell<BTreeMap<String, Vec<Timestamp>>>>::default();
    let policy = policy(10, 20, Mode::Exact);
    for (client, identifiers) in NAMED.into_iter().enumerate() {
        let (objects, world_of_client, let_on) = (objects.clone(), world.clone(), let_on.clone());
        let (isolate, policy) = (world.isolate(client % world.setup().locations), policy.clone());
        world.spawn(async move {
            for _ in 0..60 {
                world_of_client.sleep(isolate.random().below(2000)).await;
                let question = Question { policy: policy.clone(), cost: 1, peek: false, beside_others: false };
                let called = Called { objects: &objects, isolate: &isolate, gave: RefCell::default(), give_back };
                // Without an answer the policy says deny.
                let outcome = several::check(&called, identifiers, &question).await;
                if outcome.is_some_and(|outcome| outcome.decision.allowed) {
                    for (identifier, at) in called.gave.take() {
                        let_on.borrow_mut().entry(identifier).or_default().push(at);
                    }
                }
            }
        });
    }
    assert!(world.run().is_ok(), "the exact run got stuck");
    let mut run = Run { operations: world.operations(), fingerprint: world.fingerprint(), ..Run::default() };
    for (identifier, admitted) in &mut *let_on.borrow_mut() {
        // In the order of the counts, which is not that of the answers.
        admitted.sort_unstable();
        let over = overshoot(admitted, policy.limit, policy.window_millis());
        run.samples.entry("exact: above the limit").or_default().push(over);
        if over > 0 {
            let text = format!("{identifier}: {over} above the limit");
            run.violations.push(Violation { checker: "exact overshoot", text });
        }
    }
    run
}

/// Rate limits.
pub(crate) struct RateLimitScenario;

impl Scenario for RateLimitScenario {
    fn name(&self) -> &'static str {
        "rate_limit"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        let mut run = run_plan(code, &plan(seed, profile));
        if code == Code::Ours {
            run.absorb(run_exact(Setup::swarm(seed, profile), GiveBack::Once));
        } else {
            // The naive code has one way to limit, which stands beside both of ours.
            let above = run.samples.get("approximate: above the limit").cloned().unwrap_or_default();
            run.samples.insert("exact: above the limit", above);
        }
        run
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        kv_patterns::sim::shrink(plan(seed, profile), |plan| !run_plan(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let most =
            |what, figure, promised| Promise { what, figure, statistic: Statistic::Max, unit: Unit::Count, promised };
        vec![
            most("exact: admitted above the limit in any window", "exact: above the limit", |_| Some(0)),
            most("approximate: above the limit beyond what arrives unseen", "approximate: beyond the bound", |_| {
                Some(0)
            }),
            most(&ROW, "approximate: above the limit", |_| None),
            Promise {
                what: "runs in which nothing was ever denied",
                figure: "never denied",
                statistic: Statistic::PermilleNotZero,
                unit: Unit::Permille,
                promised: |_| Some(0),
            },
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Approximate limit of 60 an hour: what is let through above it",
            figure: "approximate: above the limit",
            unit: Unit::Count,
            x: "requests above the limit in one hour",
            y: "runs that let more through",
            promised: |_| None,
        }
    }
}
