//! Users' data on the simulator: one client owns each record and changes it, everybody reads it, and when all writes
//! have stopped every location must see the same, and nothing acknowledged may be lost. What differs between patterns
//! is a [`Register`]: `preference`, `document`, `replica` and `setting`, beside the naive code of tutorials.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use kv_patterns::clock::Timestamp;
use kv_patterns::kv::{Breaker, Policy, Resilient, Tenant};
use kv_patterns::sim::{
    Edge, Fault, History, Isolate, Plan, Profile, Setup, Shape, SimClock, SimRandom, SimStore, What, World, check,
};

use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

/// Records in a run; client `n` owns record `n`, clients beyond own none.
pub(crate) const SUBJECTS: usize = 4;
/// How long a client waits for an answer, in milliseconds.
const CLIENT_MILLIS_MAX: u64 = 30_000;
/// Rounds of upkeep at every location when writes have stopped.
const CLOSING_ROUNDS: usize = 3;

/// What an isolate can do to records. Nothing: no answer, so that it may or may not have happened.
pub(crate) trait Register: Sized + 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    /// Misfortunes against which nothing is promised.
    const NOT_PROMISED: &'static [Fault];
    /// Milliseconds after which a difference may be told from a stale cache.
    const SETTLE_MILLIS: u64 = 0;

    /// `slips` counts answers that should have been better, by the pattern's own measure.
    fn new(code: Code, isolate: &Isolate, tenant: &Tenant, slips: Rc<Cell<u64>>) -> Self;
    async fn write(&self, subject: usize, version: u64) -> Option<()>;
    async fn delete(&self, subject: usize) -> Option<()>;
    async fn read(&self, subject: usize) -> Option<Option<u64>>;
    /// Sweeps, repairs: what a timer would do.
    async fn tend(&self) {}
}

/// A store as the service wraps it.
pub(crate) type Wrapped = Resilient<SimStore, SimClock, SimRandom>;

pub(crate) fn wrapped(isolate: &Isolate, namespace: &'static str) -> Wrapped {
    let (store, clock, random) = (isolate.store(namespace), isolate.clock(), isolate.random());
    Resilient::new(store, clock, random, Policy::default(), Breaker::default())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The next version of the client's own record.
    Write,
    /// Removes it.
    Delete,
    Read(usize),
    Tend,
}

pub(crate) fn plan(setup: Setup) -> Plan<Act> {
    let shape = Shape { clients_max: 8, steps_max: 25, wait_millis_max: 90_000 };
    Plan::generate(setup, shape, |below| match below(16) {
        0..=6 => Act::Write,
        7 => Act::Delete,
        8 => Act::Tend,
        _ => Act::Read(usize::try_from(below(SUBJECTS as u64)).unwrap_or(0)),
    })
}

struct Bench<R> {
    world: World,
    edges: Vec<Rc<Edge<R>>>,
    /// Changes, and the reads at the end.
    changes: History,
    /// Per record: the last acknowledged change and when that was acknowledged.
    latest: RefCell<BTreeMap<usize, (Option<u64>, Timestamp)>>,
    versions: RefCell<BTreeMap<usize, u64>>,
    lags: RefCell<Vec<u64>>,
    slips: Rc<Cell<u64>>,
}

impl<R: Register> Bench<R> {
    fn new(code: Code, setup: Setup) -> Rc<Self> {
        let (world, slips) = (World::new(setup), Rc::new(Cell::new(0)));
        let counted = slips.clone();
        let edges = Edge::everywhere(&world, move |isolate| {
            R::new(code, isolate, &Tenant::new("acme").expect("a valid tenant id"), counted.clone())
        });
        Rc::new(Self {
            world,
            edges,
            changes: History::default(),
            latest: RefCell::default(),
            versions: RefCell::default(),
            lags: RefCell::default(),
            slips,
        })
    }

    async fn ask<T: 'static>(
        &self,
        location: usize,
        handler: impl AsyncFnOnce(Rc<R>) -> Option<T> + 'static,
    ) -> Option<T> {
        match select(pin!(self.edges[location].request(handler)), self.world.sleep(CLIENT_MILLIS_MAX)).await {
            Either::Left((answer, _)) => answer.ok().flatten(),
            Either::Right(_) => None,
        }
    }

    async fn act(&self, client: usize, location: usize, act: Act) {
        let (began, subject) = (self.world.now(), client);
        match act {
            Act::Write if client < SUBJECTS => {
                let version = {
                    let mut versions = self.versions.borrow_mut();
                    let version = versions.entry(subject).or_default();
                    *version += 1;
                    *version
                };
                let done =
                    self.ask(location, async move |register: Rc<R>| register.write(subject, version).await).await;
                let what = if done.is_some() { What::Wrote(version) } else { What::MaybeWrote(version) };
                self.changed(client, began, what);
            }
            Act::Delete if client < SUBJECTS => {
                let done = self.ask(location, async move |register: Rc<R>| register.delete(subject).await).await;
                let what = if done.is_some() { What::Deleted } else { What::MaybeDeleted };
                self.changed(client, began, what);
            }
            Act::Tend => {
                self.ask(location, async |register: Rc<R>| -> Option<()> {
                    register.tend().await;
                    Some(())
                })
                .await;
            }
            Act::Read(subject) => self.observe(location, subject).await,
            Act::Write | Act::Delete => self.observe(location, client % SUBJECTS).await,
        }
    }

    /// Notes a change; after one without an answer nothing is known of the record until the next.
    fn changed(&self, client: usize, began: Timestamp, what: What) {
        let ended = self.world.now();
        self.changes.note(client, &format!("r{client}"), began, ended, what);
        let mut latest = self.latest.borrow_mut();
        match what {
            What::Wrote(version) => latest.insert(client, (Some(version), ended)),
            What::Deleted => latest.insert(client, (None, ended)),
            _ => latest.remove(&client),
        };
    }

    /// A read while others write: how long after the last acknowledged change it still gives something older.
    async fn observe(&self, location: usize, subject: usize) {
        let began = self.world.now();
        let before = self.latest.borrow().get(&subject).copied();
        let Some(seen) = self.ask(location, async move |register: Rc<R>| register.read(subject).await).await else {
            return;
        };
        // Compared only where nothing changed meanwhile.
        if let Some((state, at)) = before.filter(|before| self.latest.borrow().get(&subject) == Some(before)) {
            self.lags.borrow_mut().push(if seen == state { 0 } else { began.millis_since(at) });
        }
    }

    /// When writes have stopped: upkeep, and then every location reads everything.
    async fn close(&self) {
        let profile = self.world.setup().profile;
        let stale = profile.stale_millis_max(None) + 60_000;
        self.world.sleep(R::SETTLE_MILLIS + stale).await;
        for _ in 0..CLOSING_ROUNDS {
            for location in 0..self.edges.len() {
                self.act(usize::MAX, location, Act::Tend).await;
                for subject in 0..SUBJECTS {
                    self.observe(location, subject).await;
                }
            }
            self.world.sleep(stale.max(profile.list_stale_millis_max())).await;
        }
        for location in 0..self.edges.len() {
            for subject in 0..SUBJECTS {
                self.read_finally(location, subject).await;
            }
        }
    }

    async fn read_finally(&self, location: usize, subject: usize) {
        for _ in 0..10 {
            let began = self.world.now();
            let seen = self.ask(location, async move |register: Rc<R>| register.read(subject).await).await;
            if let Some(seen) = seen {
                self.changes.note(
                    usize::MAX - location,
                    &format!("r{subject}"),
                    began,
                    self.world.now(),
                    What::Read(seen),
                );
                return;
            }
            self.world.sleep(5000).await;
        }
    }

    fn judge(&self) -> Run {
        let events = self.changes.events();
        let (lost, back) = (check::lost_writes(&events, 0), check::resurrections(&events, 0));
        let apart = check::divergences(&events, 0);
        let subjects = |violations: &[check::Violation]| {
            let names: BTreeSet<_> = violations.iter().filter_map(|v| v.text.split(':').next()).collect();
            vec![u64::try_from(names.len()).unwrap_or(0)]
        };
        let slips = self.slips.get();
        let samples = BTreeMap::from([
            ("lost", subjects(&lost)),
            ("back", subjects(&back)),
            ("apart", subjects(&apart)),
            ("slips", vec![slips]),
            ("lag", self.lags.borrow().clone()),
        ]);
        let mut violations: Vec<_> = lost.into_iter().chain(back).chain(apart).collect();
        if slips > 0 {
            violations.push(check::Violation { checker: "worse than known", text: format!("{slips} answers") });
        }
        let noted = self.changes.to_string();
        let fingerprint = noted
            .bytes()
            .fold(self.world.fingerprint(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        Run { operations: self.world.operations(), fingerprint, violations, samples }
    }
}

fn run_plan<R: Register>(code: Code, plan: &Plan<Act>) -> Run {
    let bench = Bench::<R>::new(code, plan.setup.clone());
    let acting = bench.clone();
    let ran = plan.run(&bench.world, move |client, location, act| {
        let bench = acting.clone();
        async move { bench.act(client, location, act).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let last = bench.clone();
    bench.world.spawn(async move { last.close().await });
    assert!(bench.world.run().is_ok(), "the end got stuck: {plan}");
    bench.judge()
}

/// The scenario of one pattern.
pub(crate) struct RegisterScenario<R>(PhantomData<R>);

impl<R: Register> RegisterScenario<R> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }

    fn setup(seed: u64, profile: Profile) -> Setup {
        let setup = Setup::swarm(seed, profile);
        let faults = R::NOT_PROMISED.iter().fold(setup.faults, |faults, fault| faults.without(*fault));
        Setup { faults, ..setup }
    }
}

impl<R: Register> Scenario for RegisterScenario<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        run_plan::<R>(code, &plan(Self::setup(seed, profile)))
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        let plan = plan(Self::setup(seed, profile));
        kv_patterns::sim::shrink(plan, |plan| !run_plan::<R>(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let never = |what, figure| Promise {
            what,
            figure,
            statistic: Statistic::Sum,
            unit: Unit::Count,
            promised: |_| Some(0),
        };
        let mut promises = vec![
            never("records that lost an acknowledged change", "lost"),
            never("deleted records that came back", "back"),
            never("records that locations see differently in the end", "apart"),
        ];
        if R::NAME == "setting" {
            promises.push(never("answers worse than what the isolate knew", "slips"));
        }
        promises
    }

    fn picture(&self) -> Picture {
        Picture {
            title: R::TITLE,
            figure: "lag",
            unit: Unit::Millis,
            x: "seconds after a change was acknowledged",
            y: "reads that give something older",
            promised: |_| None,
        }
    }
}
