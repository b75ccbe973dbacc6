//! Experiments on the simulator: an owner edits one experiment again and again, pauses included, each time from another
//! location; users are placed all over the world, and what they saw and did is counted while isolates die.
//!
//! Every second run is sticky: each user has one token, as a browser would keep it, and sends the last one it got. The
//! naive code is the tutorial's: a hash of the user alone, modulo 100, against running shares; the variant kept in a key
//! per user that is read first; exposures in ten counters that are read, added to and written.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::future::join;
use kv_patterns::background::Background;
use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Breaker, KeySpace, Policy, Read, Resilient, Store, Tenant, Write};
use kv_patterns::patterns::experiment::assign::{Allocation, Variant};
use kv_patterns::patterns::experiment::{
    Definition, EXPOSURE, Events, Experiments, FRESH_SECONDS, Memory, Reason, Status, Tally,
};
use kv_patterns::patterns::flag::bucketing::sha256_bucket;
use kv_patterns::random::Random;
use kv_patterns::sim::{
    Edge, Fault, Faults, Isolate, Plan, Profile, Setup, Shape, SimBackground, SimClock, SimRandom, SimStore, World,
    check::Violation, stream,
};

use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

/// What the pattern asks locations to keep its reads for.
const CACHE_TTL_SECONDS: u32 = 30;
/// Edits in one run; fewer than the phases that are remembered.
const EDITS: u64 = 8;
const USERS: u64 = 12;
/// One request's own time, retries included, in milliseconds.
const REQUEST_MILLIS: u64 = 10_000;
/// How much longer the owner waits who got no answer, in milliseconds: what was sent can still take effect.
const UNANSWERED_MILLIS: u64 = 120_000;
/// How often a client sends an event that is not acknowledged, and how long it waits between, in milliseconds.
const TRIES: u32 = 6;
const RETRY_MILLIS: u64 = 3000;

const NAME: &str = "checkout";
const VARIANTS: [&str; 3] = ["control", "a", "b"];
const LAG: &str = "edit unseen";
const SPLIT: &str = "two variants";
const MOVED: &str = "sticky users moved";
const MISCOUNTED: &str = "exposed users miscounted";
const SILENT: &str = "no answer";

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Asks for a user's variant.
    Visit(u64),
    /// Says that a user saw it.
    Expose(u64),
    /// Ends the isolate at its location.
    Kill,
}

/// A bug put in on purpose, to see that the checkers find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// None.
    Nothing,
    /// An isolate takes what it read first for the newest for ever.
    NeverAsksAgain,
    /// An event is acknowledged before KV has it.
    AnswersBeforeKv,
}

pub(crate) fn plan(setup: Setup) -> Plan<Act> {
    // Half of all waits are a hundredth: on average the clients are at it for as long as the owner.
    let wait_millis_max = window_millis(&setup.profile) * 4 / 5;
    let shape = Shape { clients_max: 8, steps_max: 120, wait_millis_max };
    Plan::generate(setup, shape, |below| match below(20) {
        0 => Act::Kill,
        1..=9 => Act::Expose(below(USERS)),
        _ => Act::Visit(below(USERS)),
    })
}

/// One version of the experiment, as its owner meant it.
#[derive(Clone, Debug)]
struct Version {
    weights: [u64; 3],
    is_running: bool,
    sent: Timestamp,
    acknowledged: Option<Timestamp>,
}

impl Version {
    fn drawn(random: &impl Random, number: u64, sent: Timestamp) -> Self {
        let weights = [0; 3].map(|_: u64| 1 + random.below(100));
        Self { weights, is_running: number == 1 || random.below(4) > 0, sent, acknowledged: None }
    }

    fn definition(&self, sticky: bool) -> Definition {
        Definition {
            variants: self.variants(),
            status: if self.is_running { Status::Running } else { Status::Paused },
            salt: Some(NAME.to_owned()),
            sticky,
            overrides: BTreeMap::new(),
            slots: None,
        }
    }

    fn variants(&self) -> Vec<Variant> {
        VARIANTS.iter().zip(self.weights).map(|(name, weight)| Variant { name: (*name).to_owned(), weight }).collect()
    }

    /// What this version alone gives to a user without a token.
    fn place(&self, code: Code, user: &str) -> String {
        match code {
            _ if !self.is_running => VARIANTS[0].to_owned(),
            Code::Ours => Allocation::new(NAME, self.variants()).expect("valid weights").assign(user).to_owned(),
            Code::Naive => naive_variant(user, self.shares()).to_owned(),
        }
    }

    /// Hundredths of users in `a` and in `b`.
    fn shares(&self) -> [u64; 2] {
        let [control, a, b] = self.weights;
        let total = control + a + b;
        if self.is_running { [a * 100 / total, b * 100 / total] } else { [0, 0] }
    }
}

/// The tutorial's assignment: the salt is nothing.
fn naive_variant(user: &str, [a, b]: [u64; 2]) -> &'static str {
    let percentage = sha256_bucket("", user, 100);
    match percentage {
        percentage if percentage < a => VARIANTS[1],
        percentage if percentage < a + b => VARIANTS[2],
        _ => VARIANTS[0],
    }
}

/// A user's variant, as a client hears of it.
struct Seen {
    variant: String,
    is_running: bool,
    token: Option<String>,
}

type Hardened = Resilient<SimStore, SimClock, SimRandom>;

/// One isolate's program.
struct Worker {
    program: Program,
    clock: SimClock,
    random: SimRandom,
    background: SimBackground,
    started: Timestamp,
    planted: Planted,
}

enum Program {
    Ours { experiments: Experiments<Hardened>, events: Rc<Events<Hardened>> },
    Naive { store: SimStore, keys: KeySpace },
}

impl Worker {
    fn new(code: Code, planted: Planted, isolate: &Isolate) -> Self {
        let tenant = Tenant::new("acme").expect("a valid tenant id");
        let (clock, random, background) = (isolate.clock(), isolate.random(), isolate.background());
        let hardened = |namespace| {
            let store = isolate.store(namespace);
            Resilient::new(store, clock.clone(), random.clone(), Policy::default(), Breaker::default())
        };
        let program = match code {
            Code::Ours => {
                let memory = Memory::default();
                let experiments = Experiments::new(hardened("CONFIG"), &tenant, memory.clone());
                Program::Ours { experiments, events: Rc::new(Events::new(hardened("COUNTERS"), &tenant, memory)) }
            }
            Code::Naive => Program::Naive { store: isolate.store("CONFIG"), keys: tenant.space("naive") },
        };
        Self { program, started: clock.now(), clock, random, background, planted }
    }

    fn now(&self) -> Timestamp {
        if self.planted == Planted::NeverAsksAgain { self.started } else { self.clock.now() }
    }

    /// Nothing where no answer can be given, here and below.
    async fn edit(&self, version: Version, sticky: bool) -> Option<()> {
        match &self.program {
            Program::Ours { experiments, .. } => {
                let now = self.clock.now();
                let base = experiments.newest(NAME, now).await.ok()?;
                let definition = version.definition(sticky);
                let put = experiments.put(base.as_ref(), NAME, definition, true, now, &self.random);
                put.await.ok().map(drop)
            }
            Program::Naive { store, keys } => {
                let bytes = serde_json::to_vec(&version.shares()).ok()?;
                store.put(&keys.key(&[NAME, "config"]), &bytes, Write::default()).await.ok()
            }
        }
    }

    async fn place(&self, user: &str, token: Option<&str>) -> Option<Seen> {
        match &self.program {
            Program::Ours { experiments, .. } => {
                let experiment = experiments.current(NAME, self.now()).await.ok()??;
                let placement = experiment.place(user, token);
                let token = experiment.sticky_token(user, &placement);
                let is_running = placement.reason != Reason::NotRunning;
                Some(Seen { variant: placement.variant.to_owned(), is_running, token })
            }
            Program::Naive { store, keys } => {
                let kept = keys.key(&[NAME, "user", user]);
                if let Some(bytes) = store.get(&kept, Read::default()).await.ok()? {
                    let variant = String::from_utf8(bytes).ok()?;
                    return Some(Seen { variant, is_running: true, token: None });
                }
                let config = store.get(&keys.key(&[NAME, "config"]), Read::default()).await.ok()??;
                let variant = naive_variant(user, serde_json::from_slice(&config).ok()?);
                store.put(&kept, variant.as_bytes(), Write::expiring_in(30 * 86_400)).await.ok()?;
                Some(Seen { variant: variant.to_owned(), is_running: true, token: None })
            }
        }
    }

    /// The variant that an exposure was counted for; an empty one when it does not count.
    async fn expose(&self, user: &str, token: Option<&str>) -> Option<String> {
        match &self.program {
            Program::Ours { experiments, events } => {
                let experiment = experiments.current(NAME, self.now()).await.ok()??;
                let placement = experiment.place(user, token);
                if self.planted == Planted::AnswersBeforeKv {
                    let (events, experiment, user) = (events.clone(), experiment.clone(), user.to_owned());
                    let token = token.map(str::to_owned);
                    self.background.spawn(async move {
                        let placement = experiment.place(&user, token.as_deref());
                        let _ = events.record(&experiment, &placement, &user, EXPOSURE, None).await;
                    });
                    return Some(placement.phase.map_or("", |_| placement.variant).to_owned());
                }
                let counts = events.record(&experiment, &placement, user, EXPOSURE, None).await.ok()?;
                Some(if counts { placement.variant } else { "" }.to_owned())
            }
            Program::Naive { store, keys } => {
                let variant = self.place(user, token).await?.variant;
                let mark = keys.key(&[NAME, "exposed", user]);
                if store.get(&mark, Read::default()).await.ok()?.is_none() {
                    let counter = keys.key(&[NAME, "count", &self.random.below(10).to_string()]);
                    let count = number(store.get(&counter, Read::default()).await.ok()?.as_deref()) + 1;
                    store.put(&counter, count.to_string().as_bytes(), Write::default()).await.ok()?;
                    store.put(&mark, b"1", Write::default()).await.ok()?;
                }
                Some(variant)
            }
        }
    }

    /// How many users were exposed, and, of ours, by variant.
    async fn count(&self) -> Option<(u64, BTreeMap<String, u64>)> {
        match &self.program {
            Program::Ours { experiments, events } => {
                let experiment = experiments.current(NAME, self.clock.now()).await.ok()??;
                let Tally { arms, switched, removed, .. } = events.tally(&experiment).await.ok()?;
                let arms: BTreeMap<String, u64> = arms.into_iter().map(|(name, arm)| (name, arm.exposures)).collect();
                Some((arms.values().sum::<u64>() + switched + removed, arms))
            }
            Program::Naive { store, keys } => {
                let mut total = 0;
                for shard in 0..10 {
                    let counter = keys.key(&[NAME, "count", &shard.to_string()]);
                    total += number(store.get(&counter, Read::default()).await.ok()?.as_deref());
                }
                Some((total, BTreeMap::new()))
            }
        }
    }
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}

fn name_of(user: u64) -> String {
    format!("user-{user}")
}

/// Variants somebody saw, and whether the experiment ran.
type Variants = BTreeSet<(String, bool)>;

/// Everything known about one user.
#[derive(Default)]
struct Known {
    token: Option<String>,
    /// Variants an exposure was acknowledged for.
    surely: BTreeSet<String>,
    /// Whether an exposure was sent that nobody ever acknowledged: it may count, for any variant.
    doubtful: bool,
}

struct Bench {
    code: Code,
    sticky: bool,
    world: World,
    edges: Vec<Rc<Edge<Worker>>>,
    versions: RefCell<Vec<Version>>,
    users: RefCell<BTreeMap<u64, Known>>,
    /// Since when the last edit is older than the window; nothing between an edit and then.
    quiet: Cell<Option<u64>>,
    /// By quiet time and user.
    seen: RefCell<BTreeMap<(u64, u64), Variants>>,
    samples: RefCell<BTreeMap<&'static str, Vec<u64>>>,
    violations: RefCell<Vec<Violation>>,
    noted: Cell<u64>,
}

/// Runs one plan to its end.
pub(crate) fn run_plan(code: Code, planted: Planted, plan: &Plan<Act>) -> Run {
    let world = World::new(plan.setup.clone());
    let edges = Edge::everywhere(&world, move |isolate| Worker::new(code, planted, isolate));
    let bench = Rc::new(Bench {
        code,
        sticky: !plan.setup.seed.is_multiple_of(2),
        world,
        edges,
        versions: RefCell::default(),
        users: RefCell::default(),
        quiet: Cell::new(None),
        seen: RefCell::default(),
        samples: RefCell::default(),
        violations: RefCell::default(),
        noted: Cell::new(0),
    });
    let owner = bench.clone();
    bench.world.spawn(async move { owner.edit_and_look().await });
    let acting = bench.clone();
    let ran = plan.run(&bench.world, move |_, location, act| {
        let bench = acting.clone();
        async move { bench.act(location, act).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let last = bench.clone();
    bench.world.spawn(async move { last.compare_counts().await });
    assert!(bench.world.run().is_ok(), "the end got stuck: {plan}");
    bench.judge()
}

impl Bench {
    async fn edit_and_look(&self) {
        let random = stream(self.world.setup().seed, "owner");
        let window = window_millis(&self.world.setup().profile);
        for number in 1..=EDITS {
            self.quiet.set(None);
            let version = Version::drawn(&random, number, self.world.now());
            self.versions.borrow_mut().push(version.clone());
            let location = usize::try_from(random.below(self.edges.len() as u64)).unwrap_or(0);
            let sticky = self.sticky;
            let answer = self.edges[location].request(async move |worker| worker.edit(version, sticky).await).await;
            let is_acknowledged = matches!(answer, Ok(Some(())));
            if let Some(version) = self.versions.borrow_mut().last_mut().filter(|_| is_acknowledged) {
                version.acknowledged = Some(self.world.now());
            }
            let unanswered = if is_acknowledged { 0 } else { UNANSWERED_MILLIS };
            self.world.sleep(window + unanswered + 1).await;
            self.quiet.set(Some(number));
            for user in (0..USERS).step_by(2) {
                for location in 0..self.edges.len() {
                    // Two at once: the first ones wake an isolate that has slept, and only one of them asks KV.
                    join(self.visit(location, user), self.visit(location, user + 1)).await;
                }
            }
            self.world.sleep(random.below(window)).await;
        }
    }

    async fn act(&self, location: usize, act: Act) {
        match act {
            Act::Visit(user) => self.visit(location, user).await,
            Act::Expose(user) => self.expose(location, user).await,
            Act::Kill => self.edges[location].kill(),
        }
    }

    fn token(&self, user: u64) -> Option<String> {
        self.users.borrow().get(&user)?.token.clone()
    }

    async fn visit(&self, location: usize, user: u64) {
        let (began, quiet) = (self.world.now(), self.quiet.get());
        let (name, token) = (name_of(user), self.token(user));
        let handler = async move |worker: Rc<Worker>| worker.place(&name, token.as_deref()).await;
        let answer = self.edges[location].request(handler).await.ok().flatten();
        self.sample(SILENT, u64::from(answer.is_none()));
        let Some(seen) = answer else { return };
        let lag = self.lag(&name_of(user), &seen.variant, began);
        if !self.sticky || self.code == Code::Naive {
            self.sample(LAG, lag);
        }
        if quiet.is_some() && quiet == self.quiet.get() {
            let mut all = self.seen.borrow_mut();
            all.entry((quiet.unwrap_or(0), user)).or_default().insert((seen.variant.clone(), seen.is_running));
        }
        if seen.token.is_some() {
            self.users.borrow_mut().entry(user).or_default().token = seen.token;
        }
        let letters = seen.variant.bytes().fold(0, |sum, letter| sum * 31 + u64::from(letter));
        self.noted.set(self.noted.get().rotate_left(5) ^ letters ^ (began.millis() << 8));
    }

    /// How long after it was replaced the youngest version is still seen that gives this user this variant.
    fn lag(&self, user: &str, variant: &str, began: Timestamp) -> u64 {
        let versions = self.versions.borrow();
        let mut replaced: Option<Timestamp> = None;
        for version in versions.iter().rev() {
            if version.place(self.code, user) == variant {
                break;
            }
            if let Some(at) = version.acknowledged.filter(|at| *at < began) {
                replaced = Some(at);
            }
        }
        replaced.map_or(0, |at| began.millis_since(at))
    }

    /// Sends an exposure until it is acknowledged, or the client has had enough.
    async fn expose(&self, location: usize, user: u64) {
        for _ in 0..TRIES {
            let (name, token) = (name_of(user), self.token(user));
            let handler = async move |worker: Rc<Worker>| worker.expose(&name, token.as_deref()).await;
            if let Ok(Some(variant)) = self.edges[location].request(handler).await {
                let mut users = self.users.borrow_mut();
                let known = users.entry(user).or_default();
                if !variant.is_empty() {
                    known.surely.insert(variant);
                }
                return;
            }
            self.users.borrow_mut().entry(user).or_default().doubtful = true;
            self.world.sleep(RETRY_MILLIS).await;
        }
    }

    /// When everything has settled, what is counted must be what happened, wherever one asks.
    async fn compare_counts(&self) {
        let profile = self.world.setup().profile;
        self.world.sleep(window_millis(&profile) + 2 * profile.list_stale_millis_max() + 60_000).await;
        for edge in &self.edges {
            for _ in 0..TRIES {
                let answer = edge.request(async |worker: Rc<Worker>| worker.count().await).await;
                if let Ok(Some((total, arms))) = answer {
                    self.compare(total, &arms);
                    break;
                }
                self.world.sleep(RETRY_MILLIS).await;
            }
        }
    }

    fn compare(&self, total: u64, arms: &BTreeMap<String, u64>) {
        let users = self.users.borrow();
        let count = |holds: &dyn Fn(&Known) -> bool| {
            u64::try_from(users.values().filter(|known| holds(known)).count()).unwrap_or(0)
        };
        let least = count(&|known| !known.surely.is_empty());
        let most = count(&|known| !known.surely.is_empty() || known.doubtful);
        let off = least.saturating_sub(total) + total.saturating_sub(most);
        self.sample(MISCOUNTED, off);
        if off > 0 {
            self.violate("exposures", format!("{total} users exposed instead of {least} to {most}"));
        }
        for (name, counted) in arms {
            let alone = BTreeSet::from([name.clone()]);
            let least = count(&|known| known.surely == alone && !known.doubtful);
            let most = count(&|known| known.surely == alone || (known.surely.is_empty() && known.doubtful));
            if !(least..=most).contains(counted) {
                self.violate("exposures", format!("{counted} users exposed to {name} instead of {least} to {most}"));
            }
        }
    }

    fn sample(&self, figure: &'static str, value: u64) {
        self.samples.borrow_mut().entry(figure).or_default().push(value);
    }

    fn violate(&self, checker: &'static str, text: String) {
        self.violations.borrow_mut().push(Violation { checker, text });
    }

    fn judge(&self) -> Run {
        let mut kept: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        let seen = self.seen.borrow();
        for ((number, user), variants) in seen.iter() {
            self.sample(SPLIT, u64::from(variants.len() > 1));
            if variants.len() > 1 {
                self.violate("two variants", format!("{} saw {variants:?} long after edit {number}", name_of(*user)));
            }
            let while_running = variants.iter().filter(|(_, is_running)| *is_running);
            kept.entry(*user).or_default().extend(while_running.map(|(variant, _)| variant.as_str()));
        }
        // The naive code keeps everybody's variant, in KV.
        for (user, variants) in kept.iter().filter(|_| self.sticky || self.code == Code::Naive) {
            self.sample(MOVED, u64::from(variants.len() > 1));
            if variants.len() > 1 {
                self.violate("sticky", format!("{} was moved: {variants:?}", name_of(*user)));
            }
        }
        let samples = self.samples.borrow().clone();
        let lag = Statistic::Max.of(samples.get(LAG).map_or(&[], Vec::as_slice));
        if lag > window_millis(&self.world.setup().profile) {
            self.violate("edit", format!("unseen {lag} ms after it was acknowledged"));
        }
        let fingerprint = self.world.fingerprint() ^ self.noted.get();
        Run { operations: self.world.operations(), fingerprint, violations: self.violations.take(), samples }
    }
}

/// What KV keeps, what an isolate keeps, and the request itself.
fn window_millis(profile: &Profile) -> u64 {
    profile.stale_millis_max(Some(CACHE_TTL_SECONDS)) + FRESH_SECONDS * 1000 + REQUEST_MILLIS
}

/// The swarm of this seed without what the promise excludes: a write that lands later than the one after it, and a KV
/// that does not answer, with which an isolate goes on with what it knows for as long as that lasts.
pub(crate) fn promised_setup(seed: u64, profile: Profile) -> Setup {
    let setup = Setup::swarm(seed, profile);
    let excluded = [Fault::LateWrite, Fault::ReadFails, Fault::Hangs, Fault::Slow];
    Setup { faults: excluded.into_iter().fold(setup.faults, Faults::without), ..setup }
}

/// Experiments.
pub(crate) struct ExperimentScenario;

impl Scenario for ExperimentScenario {
    fn name(&self) -> &'static str {
        "experiment"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        run_plan(code, Planted::Nothing, &plan(promised_setup(seed, profile)))
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        let fails = |plan: &Plan<Act>| !run_plan(code, Planted::Nothing, plan).violations.is_empty();
        kv_patterns::sim::shrink(plan(promised_setup(seed, profile)), fails).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let never = |what, figure| Promise {
            what,
            figure,
            statistic: Statistic::Sum,
            unit: Unit::Count,
            promised: |_| Some(0),
        };
        vec![
            Promise {
                what: "an edit (a pause too): users are placed by an older one for at most",
                figure: LAG,
                statistic: Statistic::Max,
                unit: Unit::Millis,
                promised: |profile| Some(window_millis(profile)),
            },
            never("users who see two variants later than that", SPLIT),
            never("users with a sticky token whom an edit moves", MOVED),
            never("exposed users not counted, or counted twice, while isolates die", MISCOUNTED),
            Promise {
                what: "assignments without an answer",
                figure: SILENT,
                statistic: Statistic::PermilleNotZero,
                unit: Unit::Permille,
                promised: |_| None,
            },
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Experiments: how long users are still placed by the version before an edit",
            figure: LAG,
            unit: Unit::Millis,
            x: "seconds since the edit was acknowledged",
            y: "share of assignments by an older version",
            promised: |profile| Some(window_millis(profile)),
        }
    }
}
