//! The cache: how often a value is computed when it is cold, expires or is purged, and that none is served past its life.
//!
//! Several isolates share each location. A calm world counts computations under a rate drawn from the seed; a hostile one
//! watches what is served. The naive code is the usual recipe: keep the value while `random() > age / ttl`, no single flight,
//! purge by deleting the key. [`Guard::Nothing`], the same without that condition, is for comparison by the tests.

use std::cell::RefCell;
use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::codec::{self, Record};
use kv_patterns::kv::{Key, Read, Store, Tenant, Write};
use kv_patterns::patterns::cache::{
    Bucket, Computed, Flights, Host, Json, Life, MEMORY_SECONDS, Memory, Policy, ReadThrough, Resources, Scope,
    Severity, SharedLauncher, Tiers,
};
use kv_patterns::random::Random;
use kv_patterns::sim::check::Violation;
use kv_patterns::sim::{
    Edge, Faults, Isolate, Profile, Setup, SimBackground, SimClock, SimRandom, SimStore, World, stream,
};
use serde::{Deserialize, Serialize};

use super::register::{Wrapped, wrapped};
use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

/// Isolates of each location, which share its copy of KV but no memory.
const ISOLATES: usize = 4;
/// How long one computation takes, in milliseconds: δ.
const COMPUTE_MILLIS: u64 = 1000;
/// For how long a stale value may be served while it is refreshed, in seconds.
const STALE_SECONDS: u64 = 10;
/// How long before and after its expiry a value is asked for in a calm world, in milliseconds.
const BEFORE_EXPIRY_MILLIS: u64 = 15_000;
const AFTER_EXPIRY_MILLIS: u64 = 5_000;
/// The life of a value in a calm world and in a hostile one, in seconds.
pub(crate) const CALM_TTL_SECONDS: u64 = 60;
const HOSTILE_TTL_SECONDS: u64 = 300;
/// When a hostile world's value is purged, and until when it is asked for, in milliseconds.
const PURGE_MILLIS: u64 = 100_000;
const HOSTILE_MILLIS: u64 = 420_000;

/// What keeps everybody from computing at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The pattern.
    Ours,
    /// The recipe.
    Recipe,
    /// Nothing: whoever finds no fresh value computes.
    Nothing,
}

/// A value: when its computation ended, in true time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    made: Timestamp,
}

impl Record for Page {
    const KIND: &'static str = "page";
    const VERSION: u32 = 1;
}

/// What all isolates ask, and when which location did.
#[derive(Clone)]
struct Origin {
    world: World,
    calls: Rc<RefCell<Vec<(usize, Timestamp)>>>,
}

impl Origin {
    async fn compute(&self, location: usize, clock: &SimClock) -> Page {
        self.calls.borrow_mut().push((location, self.world.now()));
        clock.sleep(COMPUTE_MILLIS).await;
        Page { made: self.world.now() }
    }

    /// Calls by location from one moment to another.
    fn counts(&self, locations: usize, from: Timestamp, to: Timestamp) -> Vec<u64> {
        let calls = self.calls.borrow();
        let count =
            |at| calls.iter().filter(|(location, when)| *location == at && (from..to).contains(when)).map(|_| 1).sum();
        (0..locations).map(count).collect()
    }
}

type Through = ReadThrough<Wrapped, Json<Page>, (), SimClock, SimRandom, SharedLauncher<SimBackground>>;

enum Kind {
    Ours(Box<Through>),
    Naive { store: SimStore, key: Key, guard: Guard, random: SimRandom, ttl_millis: u64 },
}

/// One isolate's memory.
struct Program {
    kind: Kind,
    location: usize,
    clock: SimClock,
    origin: Origin,
}

impl Program {
    fn new(guard: Guard, isolate: &Isolate, origin: &Origin, ttl_seconds: u64) -> Self {
        let tenant = Tenant::new("acme").expect("a valid tenant");
        let kind = if guard == Guard::Ours {
            let bucket = Bucket::new(&tenant, Resources::CACHE, "pages");
            let tiers = Tiers::new(wrapped(isolate, "CACHE"), Memory::new(1 << 20), MEMORY_SECONDS);
            let launcher = SharedLauncher(isolate.background());
            let host = Host { clock: isolate.clock(), random: isolate.random(), launcher };
            let life = Life { ttl_seconds, stale_while_revalidate_seconds: STALE_SECONDS, stale_if_error_seconds: 0 };
            let policy = Policy { life, jitter_permille: 0, ..Policy::default() };
            Kind::Ours(Box::new(ReadThrough::new(tiers, bucket, Flights::default(), host, policy)))
        } else {
            let (store, key) = (isolate.store("CACHE"), tenant.space("cache").key(&["page"]));
            Kind::Naive { store, key, guard, random: isolate.random(), ttl_millis: ttl_seconds * 1000 }
        };
        Self { kind, location: isolate.location(), clock: isolate.clock(), origin: origin.clone() }
    }

    async fn get(&self) -> Option<Page> {
        let (origin, location, clock) = (self.origin.clone(), self.location, self.clock.clone());
        match &self.kind {
            Kind::Ours(through) => {
                let compute = async move || {
                    let page = origin.compute(location, &clock).await;
                    Ok(Computed { tags: vec!["pages".to_owned()], ..Computed::of(Some(Json(page))) })
                };
                let answer = through.get_or_compute("page", compute).await.ok()?;
                answer.entry.value.clone().map(|Json(page)| page)
            }
            Kind::Naive { store, key, guard, random, ttl_millis } => {
                let found = store.get(key, Read::default()).await.ok().flatten();
                let found = found.and_then(|bytes| codec::decode::<Page>(&bytes).ok());
                if let Some(page) = found {
                    let age = clock.now().millis_since(page.made);
                    #[allow(clippy::cast_precision_loss, reason = "milliseconds of minutes are exact in a double")]
                    let ratio = age as f64 / *ttl_millis as f64;
                    let is_kept = match guard {
                        Guard::Nothing => ratio < 1.0,
                        _ => ratio < 0.8 || random.unit() > ratio,
                    };
                    if is_kept {
                        return Some(page);
                    }
                }
                let page = origin.compute(location, &clock).await;
                let bytes = codec::encode(&page).ok()?;
                let _ = store.put(key, &bytes, Write::expiring_in(ttl_millis / 1000)).await;
                Some(page)
            }
        }
    }

    /// Whether the purge was acknowledged.
    async fn purge(&self) -> bool {
        match &self.kind {
            Kind::Ours(through) => {
                let now = self.clock.now();
                through.cache().invalidate(Scope::Tag("pages"), Severity::Hard, now).await.is_ok()
            }
            Kind::Naive { store, key, .. } => store.delete(key).await.is_ok(),
        }
    }
}

/// One world with its edges, several at each location.
struct Site {
    world: World,
    origin: Origin,
    edges: Vec<Vec<Rc<Edge<Program>>>>,
    /// What was served: when it was asked for, and when it was made.
    served: Rc<RefCell<Vec<(Timestamp, Page)>>>,
}

impl Site {
    fn new(guard: Guard, setup: Setup, ttl_seconds: u64) -> Self {
        let world = World::new(setup);
        let origin = Origin { world: world.clone(), calls: Rc::default() };
        let edge = |location| {
            let origin = origin.clone();
            Edge::new(&world, location, move |isolate| Program::new(guard, isolate, &origin, ttl_seconds))
        };
        let edges = (0..world.setup().locations).map(|at| (0..ISOLATES).map(|_| edge(at)).collect()).collect();
        Self { world, origin, edges, served: Rc::default() }
    }

    /// Requests at every location, `gap_millis` apart on average, from `from_millis` on until `to_millis`.
    fn ask(&self, gap_millis: f64, from_millis: u64, to_millis: u64) {
        let random = stream(self.world.setup().seed.wrapping_add(from_millis), "arrivals");
        for isolates in &self.edges {
            #[allow(clippy::cast_precision_loss, reason = "minutes in milliseconds")]
            let (mut at, end) = (from_millis as f64, to_millis as f64);
            loop {
                // Independent arrivals: exponential gaps.
                at -= gap_millis * (1.0 - random.unit()).ln();
                if at >= end {
                    break;
                }
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
                let wait = self.world.sleep(at as u64);
                let edge = isolates[usize::try_from(random.below(ISOLATES as u64)).expect("small")].clone();
                let (world, served) = (self.world.clone(), self.served.clone());
                self.world.spawn(async move {
                    wait.await;
                    let began = world.now();
                    if let Ok(Some(page)) = edge.request(async |program| program.get().await).await {
                        served.borrow_mut().push((began, page));
                    }
                });
            }
        }
    }

    /// Purges at the first location after `millis`; gives when that began and when it was acknowledged.
    fn purge(&self, millis: u64) -> Rc<RefCell<Option<(Timestamp, Timestamp)>>> {
        let purged = Rc::new(RefCell::new(None));
        let (world, edge, noted) = (self.world.clone(), self.edges[0][0].clone(), purged.clone());
        self.world.spawn(async move {
            world.sleep(millis).await;
            for _ in 0..5 {
                let began = world.now();
                if edge.request(async |program| program.purge().await).await == Ok(true) {
                    *noted.borrow_mut() = Some((began, world.now()));
                    return;
                }
                world.sleep(1500).await;
            }
        });
        purged
    }
}

/// How often a value was computed, by location.
pub(crate) struct Stampede {
    pub(crate) cold: Vec<u64>,
    pub(crate) expiry: Vec<u64>,
    pub(crate) purge: Vec<u64>,
    operations: u64,
    fingerprint: u64,
}

/// A value that is cold, then expires, under `rate` requests a second and location, and is purged under at most ten. No faults.
pub(crate) fn stampede(guard: Guard, setup: Setup, rate: f64) -> Stampede {
    let site = Site::new(guard, setup, CALM_TTL_SECONDS);
    let begin = site.world.now();
    let at = |millis: u64| begin.plus_millis(millis);
    let expiry = CALM_TTL_SECONDS * 1000;
    let (from, to) = (expiry - BEFORE_EXPIRY_MILLIS, expiry + AFTER_EXPIRY_MILLIS);
    // Together with whoever asks for it while it is being computed.
    site.ask(1000.0 / rate, 0, 2 * COMPUTE_MILLIS);
    site.ask(1000.0 / rate, from, to);
    site.purge(to + 2 * COMPUTE_MILLIS);
    // Less than what makes the value expire once more.
    site.ask(1000.0 / rate.min(10.0), to, to + 35_000);
    site.world.run().expect("every request ends");
    let counts = |from, to| site.origin.counts(site.edges.len(), at(from), at(to));
    Stampede {
        cold: counts(0, 10_000),
        // The recipe throws the last fifth of a life away, so its stampede comes before these requests begin.
        expiry: counts(from, to),
        purge: counts(to + 2 * COMPUTE_MILLIS, to + 35_000),
        operations: site.world.operations(),
        fingerprint: site.world.fingerprint(),
    }
}

/// What a hostile world serves around a purge and an expiry.
fn hostile(guard: Guard, setup: Setup, run: &mut Run) {
    let profile = setup.profile;
    let site = Site::new(guard, setup, HOSTILE_TTL_SECONDS);
    site.ask(3000.0, 0, HOSTILE_MILLIS);
    let purged = site.purge(PURGE_MILLIS);
    site.world.run().expect("every request ends");
    let reach = 2 * profile.clock_skew_millis_max;
    let life = (HOSTILE_TTL_SECONDS + STALE_SECONDS) * 1000;
    let (mut past, mut seen) = (0, 0);
    for (asked, page) in site.served.borrow().iter() {
        past = past.max(asked.millis_since(page.made.plus_millis(life)));
        if *asked > page.made.plus_millis(life + reach) {
            let text = format!("made at {}, asked for at {}", page.made.millis(), asked.millis());
            run.violations.push(Violation { checker: "no value past its life", text });
        }
        let Some((began, acknowledged)) = *purged.borrow() else { continue };
        // What was made within the reach of the clocks before the purge may count as made after it.
        if page.made.plus_millis(reach + COMPUTE_MILLIS) < began {
            seen = seen.max(asked.millis_since(acknowledged));
        }
    }
    if seen > purge_bound_millis(&profile) {
        run.violations
            .push(Violation { checker: "purge lag", text: format!("still served {seen} ms after the purge") });
    }
    run.samples.entry("past its life").or_default().push(past);
    run.samples.entry("purged and served").or_default().push(seen);
    run.operations += site.world.operations();
    run.fingerprint = run.fingerprint.rotate_left(1) ^ site.world.fingerprint();
}

/// An isolate's memory, then KV's.
fn purge_bound_millis(profile: &Profile) -> u64 {
    u64::from(MEMORY_SECONDS) * 1000 + profile.stale_millis_max(Some(MEMORY_SECONDS))
}

pub(crate) fn calm(seed: u64, profile: Profile, locations: usize) -> Setup {
    Setup { seed, profile, faults: Faults::none(), locations }
}

pub(crate) struct CacheScenario;

impl Scenario for CacheScenario {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        let guard = if code == Code::Ours { Guard::Ours } else { Guard::Recipe };
        let rate = [1.0, 3.0, 10.0, 10.0, 30.0, 100.0][usize::try_from(seed % 6).expect("small")];
        let counted = stampede(guard, calm(seed, profile, 2), rate);
        let mut run = Run { operations: counted.operations, fingerprint: counted.fingerprint, ..Run::default() };
        for (figure, counts) in [("cold", counted.cold), ("expiry", counted.expiry), ("purge", counted.purge)] {
            run.samples.insert(figure, counts);
        }
        hostile(guard, Setup { locations: 3, ..Setup::swarm(seed, profile) }, &mut run);
        run
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        // Clients only ask, so the plan is the set of faults: without which ones does it still fail?
        let guard = if code == Code::Ours { Guard::Ours } else { Guard::Recipe };
        let mut setup = Setup { locations: 3, ..Setup::swarm(seed, profile) };
        for fault in setup.faults.kinds().collect::<Vec<_>>() {
            let less = Setup { faults: setup.faults.clone().without(fault), ..setup.clone() };
            let mut run = Run::default();
            hostile(guard, less.clone(), &mut run);
            if !run.violations.is_empty() {
                setup = less;
            }
        }
        format!("faults: {}", setup.faults)
    }

    fn promises(&self) -> Vec<Promise> {
        let promise = |what, figure, statistic, unit, promised| Promise { what, figure, statistic, unit, promised };
        vec![
            promise(
                "computations of a cold value in a location of four isolates",
                "cold",
                Statistic::Max,
                Unit::Count,
                |_| Some(ISOLATES as u64),
            ),
            promise(
                "computations of an expiring value in a location, half of all are below",
                "expiry",
                Statistic::Median,
                Unit::Count,
                |_| Some(ISOLATES as u64),
            ),
            promise(
                "computations of a purged value in a location of four isolates",
                "purge",
                Statistic::Max,
                Unit::Count,
                |_| Some(2 * ISOLATES as u64),
            ),
            promise("a value is served past its life for", "past its life", Statistic::Max, Unit::Millis, |profile| {
                Some(2 * profile.clock_skew_millis_max)
            }),
            promise(
                "a purged value is still served for",
                "purged and served",
                Statistic::Max,
                Unit::Millis,
                |profile| Some(purge_bound_millis(profile)),
            ),
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Cache: how often one location computes an expiring value",
            figure: "expiry",
            unit: Unit::Count,
            x: "computations",
            y: "share of expiries with more",
            promised: |_| None,
        }
    }
}
