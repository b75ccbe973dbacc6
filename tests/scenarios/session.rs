//! Sessions on the simulator: clients all over the world create, use, refresh, rotate and revoke each other's sessions,
//! and whoever holds a revoked token goes on trying it at every location.
//!
//! The naive code is that of the usual tutorial: a UUID as the key, JSON as the value, delete to revoke, list and
//! delete to revoke all, get and put to refresh.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Breaker, KeySpace, PageRequest, Policy, Read, Resilient, Store, Tenant, Write};
use kv_patterns::patterns::session::{NewSession, RECENT_MAX, Rotation, Sessions, Verdict};
use kv_patterns::random::Random;
use kv_patterns::recent::Recent;
use kv_patterns::sim::{
    Edge, Fault, Faults, History, Isolate, Plan, Profile, Setup, Shape, SimClock, SimRandom, SimStore, What, World,
    check, hot_or_cold,
};
use serde_json::{Value, json};

use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

/// The limits of every session here, in seconds: short, so that runs of minutes meet both.
pub(crate) const IDLE_SECONDS: u64 = 300;
pub(crate) const ABSOLUTE_SECONDS: u64 = 600;

/// What the pattern asks locations to keep its reads for.
const CACHE_TTL_SECONDS: u32 = 30;

/// Places for sessions; sessions in places with the same remainder belong to the same user.
const SLOTS: u64 = 6;
const USERS: u64 = 3;

/// How long a client waits for an answer, in milliseconds.
const CLIENT_MILLIS_MAX: u64 = 30_000;

/// Revoked sessions that are tried on at every location, per run, and how often each.
const PROBED_MAX: u32 = 6;
const PROBES: u64 = 60;

/// What taking back a refresh may take beyond two stale times, in milliseconds: deadlines and retries.
const TAKE_BACK_MILLIS: u64 = 10_000;

const NAMESPACE: &str = "SESSIONS";

/// What a client does, to the session in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Create(u64),
    Verify(u64),
    Refresh(u64),
    Rotate(u64),
    Revoke(u64),
    RevokeAll(u64),
}

pub(crate) fn plan(setup: Setup) -> Plan<Act> {
    let shape = Shape { clients_max: 8, steps_max: 30, wait_millis_max: 60_000 };
    Plan::generate(setup, shape, |below| {
        let slot = hot_or_cold(below, SLOTS);
        match below(12) {
            0 | 1 => Act::Create(slot),
            2..=5 => Act::Verify(slot),
            6..=8 => Act::Refresh(slot),
            9 => Act::Rotate(slot),
            10 => Act::Revoke(slot),
            _ => Act::RevokeAll(slot % USERS),
        }
    })
}

/// One isolate's program.
pub(crate) enum Worker {
    Ours { sessions: Sessions<Resilient<SimStore, SimClock, SimRandom>>, clock: SimClock, random: SimRandom },
    Naive { store: SimStore, keys: KeySpace, clock: SimClock, random: SimRandom },
}

/// A rotation that worked.
pub(crate) struct Rotated {
    token: String,
    old_is_ended: bool,
}

impl Worker {
    pub(crate) fn new(code: Code, isolate: &Isolate) -> Option<Self> {
        let tenant = Tenant::new("acme").ok()?;
        let (store, clock, random) = (isolate.store(NAMESPACE), isolate.clock(), isolate.random());
        Some(match code {
            Code::Ours => {
                let policy = Policy::default();
                let store = Resilient::new(store, clock.clone(), random.clone(), policy, Breaker::default());
                Self::Ours { sessions: Sessions::new(store, &tenant, 0, Recent::new(RECENT_MAX)), clock, random }
            }
            Code::Naive => Self::Naive { store, keys: tenant.space("session"), clock, random },
        })
    }

    /// Nothing where no answer can be given, here and below.
    pub(crate) async fn create(&self, user: &str) -> Option<String> {
        match self {
            Self::Ours { sessions, clock, random } => {
                let new = NewSession {
                    user_id: user.to_owned(),
                    email: None,
                    roles: Vec::new(),
                    data: Value::Null,
                    idle_seconds: IDLE_SECONDS,
                    absolute_seconds: ABSOLUTE_SECONDS,
                };
                Some(sessions.create(new, clock.now(), random).await.ok()?.token.secret().to_owned())
            }
            Self::Naive { random, .. } => {
                let id = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
                self.naive_put(&id, user).await.map(|()| id)
            }
        }
    }

    pub(crate) async fn verify(&self, token: &str) -> Option<bool> {
        match self {
            Self::Ours { sessions, clock, .. } => {
                Some(matches!(sessions.verify(token, clock.now()).await.ok()?, Verdict::Valid(_)))
            }
            Self::Naive { .. } => Some(self.naive_get(token).await?.is_some()),
        }
    }

    pub(crate) async fn refresh(&self, token: &str) -> Option<bool> {
        match self {
            Self::Ours { sessions, clock, .. } => {
                Some(matches!(sessions.refresh(token, clock.now()).await.ok()?, Verdict::Valid(_)))
            }
            Self::Naive { .. } => {
                let Some(user) = self.naive_get(token).await? else { return Some(false) };
                self.naive_put(token, &user).await.map(|()| true)
            }
        }
    }

    /// Nothing inside: the token proves nothing.
    pub(crate) async fn rotate(&self, token: &str) -> Option<Option<Rotated>> {
        match self {
            Self::Ours { sessions, clock, random } => {
                let rotated = |issued: kv_patterns::patterns::session::Issued, old_is_ended| {
                    Some(Rotated { token: issued.token.secret().to_owned(), old_is_ended })
                };
                Some(match sessions.rotate(token, clock.now(), random).await.ok()? {
                    Rotation::Rotated(issued) => rotated(issued, true),
                    Rotation::OldStillValid(issued) => rotated(issued, false),
                    Rotation::Refused(_) => None,
                })
            }
            Self::Naive { .. } => {
                let Some(user) = self.naive_get(token).await? else { return Some(None) };
                let new = Box::pin(self.create(&user)).await?;
                self.revoke(token).await.map(|()| Some(Rotated { token: new, old_is_ended: true }))
            }
        }
    }

    pub(crate) async fn revoke(&self, token: &str) -> Option<()> {
        match self {
            Self::Ours { sessions, .. } => sessions.revoke(token).await.ok(),
            Self::Naive { store, keys, .. } => store.delete(&keys.key(&[token])).await.ok(),
        }
    }

    pub(crate) async fn revoke_all(&self, user: &str) -> Option<()> {
        match self {
            Self::Ours { sessions, clock, .. } => sessions.revoke_all(user, clock.now()).await.ok(),
            Self::Naive { store, keys, .. } => {
                let prefix = keys.all();
                // Without a cursor: the first thousand, as usually written.
                for key in store.list(&prefix, &PageRequest::default()).await.ok()?.keys {
                    let id = prefix.rest(&key.name)?.to_owned();
                    if self.naive_get(&id).await?.is_some_and(|owner| owner == user) {
                        store.delete(&keys.key(&[&id])).await.ok()?;
                    }
                }
                Some(())
            }
        }
    }

    async fn naive_get(&self, id: &str) -> Option<Option<String>> {
        let Self::Naive { store, keys, clock, .. } = self else { return None };
        let Some(bytes) = store.get(&keys.key(&[id]), Read::default()).await.ok()? else { return Some(None) };
        let session: Value = serde_json::from_slice(&bytes).ok()?;
        let is_over = session["expiresAt"].as_u64()? < clock.now().millis();
        Some((!is_over).then(|| session["userId"].as_str().unwrap_or_default().to_owned()))
    }

    async fn naive_put(&self, id: &str, user: &str) -> Option<()> {
        let Self::Naive { store, keys, clock, .. } = self else { return None };
        let session = json!({"userId": user, "expiresAt": clock.now().plus_seconds(IDLE_SECONDS).millis()});
        let bytes = session.to_string().into_bytes();
        store.put(&keys.key(&[id]), &bytes, Write::expiring_in(IDLE_SECONDS)).await.ok()
    }
}

/// How a session was ended, and the figures of its lag: without a refresh that came after, and with one.
#[derive(Clone, Copy, Debug)]
struct Kind {
    quiet: &'static str,
    raced: &'static str,
}

const REVOKE: Kind = Kind { quiet: "revoke", raced: "revoke, refreshed after" };
const REVOKE_ALL: Kind = Kind { quiet: "revoke-all", raced: "revoke-all" };
const ROTATE: Kind = Kind { quiet: "rotate", raced: "rotate, refreshed after" };

/// A session as its clients know it.
#[derive(Clone, Debug)]
struct Known {
    token: String,
    subject: String,
    user: u64,
    /// When the login was sent, in true time; rotation keeps it.
    login: Timestamp,
    /// When this token was handed out, in true time.
    issued: Timestamp,
}

/// The world with its clients' shared knowledge.
struct Bench {
    world: World,
    edges: Vec<Rc<Edge<Worker>>>,
    history: History,
    slots: RefCell<BTreeMap<u64, Known>>,
    /// Every session there ever was.
    known: RefCell<Vec<Known>>,
    /// Sessions that somebody tried to end, with or without success.
    doubtful: RefCell<BTreeSet<String>>,
    /// When a refresh or a rotation of a session was last answered.
    refreshed: RefCell<BTreeMap<String, Timestamp>>,
    /// Revoke-alls by user: when they were sent.
    epochs: RefCell<Vec<(u64, Timestamp)>>,
    samples: RefCell<BTreeMap<&'static str, Vec<u64>>>,
    probed: Cell<u32>,
    past_the_limit: Cell<u64>,
}

/// Runs one plan to its end.
pub(crate) fn run_plan(code: Code, plan: &Plan<Act>) -> Run {
    let bench = Bench::new(code, plan.setup.clone());
    let acting = bench.clone();
    let ran = plan.run(&bench.world, move |client, location, act| {
        let bench = acting.clone();
        async move { bench.act(client, location, act).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let last = bench.clone();
    bench.world.spawn(async move { last.try_what_is_over().await });
    assert!(bench.world.run().is_ok(), "the end got stuck: {plan}");
    bench.judge()
}

impl Bench {
    fn new(code: Code, setup: Setup) -> Rc<Self> {
        let world = World::new(setup);
        // A tenant id of four letters is always valid, so no worker is ever missing.
        let edges = Edge::everywhere(&world, move |isolate| Worker::new(code, isolate).expect("a valid tenant id"));
        Rc::new(Self {
            world,
            edges,
            history: History::default(),
            slots: RefCell::default(),
            known: RefCell::default(),
            doubtful: RefCell::default(),
            refreshed: RefCell::default(),
            epochs: RefCell::default(),
            samples: RefCell::default(),
            probed: Cell::new(0),
            past_the_limit: Cell::new(0),
        })
    }

    async fn act(self: &Rc<Self>, client: usize, location: usize, act: Act) {
        let at = |slot| self.slots.borrow().get(&slot).cloned();
        match act {
            Act::Create(slot) => self.create(location, slot).await,
            Act::RevokeAll(user) => self.revoke_all(client, location, user).await,
            Act::Verify(slot) | Act::Refresh(slot) => {
                if let Some(known) = at(slot) {
                    self.prove(client, location, &known, matches!(act, Act::Refresh(_))).await;
                }
            }
            Act::Rotate(slot) => {
                if let Some(known) = at(slot) {
                    self.rotate(client, location, slot, known).await;
                }
            }
            Act::Revoke(slot) => {
                if let Some(known) = at(slot) {
                    self.revoke(client, location, known).await;
                }
            }
        }
    }

    /// A request with the patience of a client.
    async fn ask<T: 'static>(
        &self,
        location: usize,
        handler: impl AsyncFnOnce(Rc<Worker>) -> Option<T> + 'static,
    ) -> Option<T> {
        let edge = &self.edges[location];
        match select(pin!(edge.request(handler)), self.world.sleep(CLIENT_MILLIS_MAX)).await {
            Either::Left((answer, _)) => answer.ok().flatten(),
            Either::Right(_) => None,
        }
    }

    fn keep(&self, slot: u64, token: String, login: Timestamp) {
        let subject = format!("s{}", self.known.borrow().len());
        let known = Known { token, subject, user: slot % USERS, login, issued: self.world.now() };
        let skew = 2 * self.world.setup().profile.clock_skew_millis_max;
        // A revoke-all just before, by a clock that is ahead, may rightly include it.
        let is_doubtful = |(user, sent): &(u64, Timestamp)| *user == known.user && login <= sent.plus_millis(skew);
        if self.epochs.borrow().iter().any(is_doubtful) {
            self.doubtful.borrow_mut().insert(known.subject.clone());
        }
        self.slots.borrow_mut().insert(slot, known.clone());
        self.known.borrow_mut().push(known);
    }

    async fn create(&self, location: usize, slot: u64) {
        let (login, user) = (self.world.now(), format!("user {}", slot % USERS));
        if let Some(token) = self.ask(location, async move |worker| worker.create(&user).await).await {
            self.keep(slot, token, login);
        }
    }

    /// Verifies or refreshes, and judges a refusal on the spot.
    async fn prove(&self, client: usize, location: usize, known: &Known, refresh: bool) -> Option<bool> {
        let (began, token) = (self.world.now(), known.token.clone());
        let handler = async move |worker: Rc<Worker>| {
            if refresh { worker.refresh(&token).await } else { worker.verify(&token).await }
        };
        let accepted = self.ask(location, handler).await;
        if refresh {
            self.refreshed.borrow_mut().insert(known.subject.clone(), self.world.now());
        }
        let what = match accepted {
            Some(true) => What::Accepted,
            Some(false) => What::Refused,
            None => What::Failed,
        };
        self.history.note(client, &known.subject, began, self.world.now(), what);
        let skew = 2 * self.world.setup().profile.clock_skew_millis_max;
        let limit = known.login.plus_seconds(ABSOLUTE_SECONDS).plus_millis(skew);
        if accepted == Some(true) && began > limit {
            self.past_the_limit.set(self.past_the_limit.get() + 1);
        }
        let is_valid = began.plus_millis(skew) < known.issued.plus_seconds(IDLE_SECONDS).min(limit)
            && !self.doubtful.borrow().contains(&known.subject);
        if accepted == Some(false) && is_valid {
            self.sample("refused although valid, after", began.millis_since(known.issued));
        }
        accepted
    }

    async fn rotate(self: &Rc<Self>, client: usize, location: usize, slot: u64, known: Known) {
        let (began, token) = (self.world.now(), known.token.clone());
        self.doubtful.borrow_mut().insert(known.subject.clone());
        let answer = self.ask(location, async move |worker| worker.rotate(&token).await).await;
        let Some(Some(rotated)) = answer else { return };
        self.keep(slot, rotated.token, known.login);
        if rotated.old_is_ended {
            self.ended(client, began, &known, ROTATE);
        }
    }

    async fn revoke(self: &Rc<Self>, client: usize, location: usize, known: Known) {
        let (began, token) = (self.world.now(), known.token.clone());
        self.doubtful.borrow_mut().insert(known.subject.clone());
        if self.ask(location, async move |worker| worker.revoke(&token).await).await.is_some() {
            self.ended(client, began, &known, REVOKE);
        }
    }

    async fn revoke_all(self: &Rc<Self>, client: usize, location: usize, user: u64) {
        let (began, name) = (self.world.now(), format!("user {user}"));
        self.epochs.borrow_mut().push((user, began));
        let skew = 2 * self.world.setup().profile.clock_skew_millis_max;
        let of_user = |known: &&Known| known.user == user;
        let theirs: Vec<Known> = self.known.borrow().iter().filter(of_user).cloned().collect();
        self.doubtful.borrow_mut().extend(theirs.iter().map(|known| known.subject.clone()));
        if self.ask(location, async move |worker| worker.revoke_all(&name).await).await.is_some() {
            // Logins within the clocks' difference may be taken for later ones.
            for known in theirs.iter().filter(|known| known.login.plus_millis(skew) < began) {
                self.ended(client, began, known, REVOKE_ALL);
            }
        }
    }

    /// A revocation was acknowledged: from now on its holder tries the token at every location.
    fn ended(self: &Rc<Self>, client: usize, began: Timestamp, known: &Known, how: Kind) {
        let ended = self.world.now();
        self.history.note(client, &known.subject, began, ended, What::Revoked);
        let is_over = ended >= known.login.plus_seconds(ABSOLUTE_SECONDS);
        if self.probed.get() >= PROBED_MAX || is_over {
            return;
        }
        self.probed.set(self.probed.get() + 1);
        for location in 0..self.edges.len() {
            let (bench, known) = (self.clone(), known.clone());
            self.world.spawn(async move { bench.probe(location, known, ended, how).await });
        }
    }

    async fn probe(&self, location: usize, known: Known, ended: Timestamp, how: Kind) {
        let horizon = horizon_millis(&self.world.setup().profile);
        let mut lag = 0;
        for _ in 0..PROBES {
            self.world.sleep(horizon / PROBES).await;
            let began = self.world.now();
            if self.prove(usize::MAX - location, location, &known, false).await == Some(true) {
                lag = began.millis_since(ended);
            }
        }
        let is_raced = self.refreshed.borrow().get(&known.subject).is_some_and(|refreshed| *refreshed >= ended);
        self.sample(if is_raced { how.raced } else { how.quiet }, lag);
        self.sample("after any revocation", lag);
    }

    /// In the end every token ever handed out is tried once more, when its absolute limit has passed.
    async fn try_what_is_over(&self) {
        let skew = 2 * self.world.setup().profile.clock_skew_millis_max;
        self.world.sleep(ABSOLUTE_SECONDS * 1000 + skew + 1).await;
        let all = self.known.borrow().clone();
        for (number, known) in all.iter().enumerate() {
            self.prove(number, number % self.edges.len(), known, false).await;
        }
    }

    fn sample(&self, figure: &'static str, value: u64) {
        self.samples.borrow_mut().entry(figure).or_default().push(value);
    }

    fn judge(&self) -> Run {
        let events = self.history.events();
        let profile = self.world.setup().profile;
        let bound = profile.stale_millis_max(Some(CACHE_TTL_SECONDS));
        let mut violations = check::late_acceptances(&events, raced_millis_max(&profile));
        let alive_again: BTreeSet<&str> =
            violations.iter().filter_map(|violation| violation.text.split(':').next()).collect();
        self.sample("alive again", u64::try_from(alive_again.len()).unwrap_or(0));
        let past = self.past_the_limit.get();
        self.sample("past the absolute limit", past);
        if past > 0 {
            let text = format!("{past} acceptances");
            violations.push(check::Violation { checker: "past the absolute limit", text });
        }
        let samples = self.samples.borrow().clone();
        let late = samples.get("refused although valid, after").into_iter().flatten().max().copied().unwrap_or(0);
        if late > bound {
            let text = format!("{late} ms after it was handed out");
            violations.push(check::Violation { checker: "refused although valid", text });
        }
        let noted = self.history.to_string();
        let fingerprint = noted
            .bytes()
            .fold(self.world.fingerprint(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        Run { operations: self.world.operations(), fingerprint, violations, samples }
    }
}

/// The longest time for which a location may still believe what it read.
#[allow(clippy::unnecessary_wraps, reason = "the signature of a promise")]
fn bound(profile: &Profile) -> Option<u64> {
    Some(profile.stale_millis_max(Some(CACHE_TTL_SECONDS)))
}

/// The same when a location that has not heard of the revocation refreshes the session: what it wrote is taken back, but
/// was there to be read, and is believed for as long again.
#[allow(clippy::unnecessary_wraps, reason = "the signature of a promise")]
fn bound_raced(profile: &Profile) -> Option<u64> {
    Some(raced_millis_max(profile))
}

fn raced_millis_max(profile: &Profile) -> u64 {
    2 * profile.stale_millis_max(Some(CACHE_TTL_SECONDS)) + TAKE_BACK_MILLIS
}

/// The swarm of this seed without the one fault against which nothing is promised: a write that KV refuses and performs
/// later all the same can bring a revoked record back (`tests/it/session_sim.rs` shows it).
fn promised_setup(seed: u64, profile: Profile) -> Setup {
    let setup = Setup::swarm(seed, profile);
    Setup { faults: setup.faults.without(Fault::LateWrite), ..setup }
}

/// How long a revoked token is tried on: longer than either code can excuse.
fn horizon_millis(profile: &Profile) -> u64 {
    2 * profile.stale_millis_max(None) + 2 * TAKE_BACK_MILLIS
}

/// One client that refreshes its one session at one location again and again, each time when it has the answer to the
/// time before, until past its absolute limit. No write fails and no read steps back here, so every 429 is the code's
/// own doing, also where the profile hides a client's own writes from it.
pub(crate) fn run_alone(code: Code, setup: Setup) -> Run {
    let faults = [
        Fault::WriteFailsBefore,
        Fault::WriteFailsAfter,
        Fault::LateWrite,
        Fault::Hangs,
        Fault::Slow,
        Fault::StepsBack,
    ];
    let faults = faults.into_iter().fold(setup.faults, Faults::without);
    let bench = Bench::new(code, Setup { faults, ..setup });
    let client = bench.clone();
    bench.world.spawn(async move {
        client.create(0, 0).await;
        let Some(known) = client.slots.borrow().get(&0).cloned() else { return };
        let end = known.login.plus_seconds(ABSOLUTE_SECONDS * 5 / 4);
        while client.world.now() < end {
            // Three in a row, as a page with three requests makes them.
            for _ in 0..3 {
                client.prove(0, 0, &known, true).await;
            }
            client.world.sleep(20_000).await;
        }
    });
    assert!(bench.world.run().is_ok(), "a client alone got stuck");
    let refused = bench.world.throttled().values().sum();
    bench.samples.borrow_mut().clear();
    let mut run = bench.judge();
    run.samples = BTreeMap::from([("alone, refused with 429", vec![refused])]);
    let past = bench.past_the_limit.get();
    run.samples.insert("past the absolute limit", vec![past]);
    run
}

/// Sessions.
pub(crate) struct SessionScenario;

impl Scenario for SessionScenario {
    fn name(&self) -> &'static str {
        "session"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        let plan = plan(promised_setup(seed, profile));
        let mut run = run_plan(code, &plan);
        run.absorb(run_alone(code, plan.setup));
        run
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        let plan = plan(promised_setup(seed, profile));
        kv_patterns::sim::shrink(plan, |plan| !run_plan(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let lag =
            |what, figure| Promise { what, figure, statistic: Statistic::Max, unit: Unit::Millis, promised: bound };
        let raced = |what, figure| Promise { promised: bound_raced, ..lag(what, figure) };
        let never = |what, figure| Promise {
            what,
            figure,
            statistic: Statistic::Sum,
            unit: Unit::Count,
            promised: |_| Some(0),
        };
        vec![
            lag("revoked: accepted elsewhere for at most", "revoke"),
            raced("revoked, then refreshed elsewhere: accepted for at most", "revoke, refreshed after"),
            lag("revoke-all: accepted elsewhere for at most", "revoke-all"),
            lag("rotated: old token accepted elsewhere for at most", "rotate"),
            raced("rotated, then refreshed elsewhere: accepted for at most", "rotate, refreshed after"),
            never("sessions alive again after that", "alive again"),
            never("tokens accepted past the absolute limit", "past the absolute limit"),
            lag("valid token refused, at most so long after login", "refused although valid, after"),
            never("429s that a client draws who refreshes alone", "alone, refused with 429"),
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Sessions: how long a revoked token is still accepted somewhere",
            figure: "after any revocation",
            unit: Unit::Millis,
            x: "seconds after the revocation was acknowledged",
            y: "locations that still accept it",
            promised: bound_raced,
        }
    }
}
