//! Locks on the simulator: clients that are paused past their lease, objects that restart, answers that get lost; beside
//! the lock on KV of the tutorials, and beside this library's own demonstration of it.

use std::cell::RefCell;
use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Read, Store, Tenant, Write};
use kv_patterns::patterns::lock::exact::{self, Acquire, Answer, Queue, Request, State};
use kv_patterns::patterns::lock::fence::Fence;
use kv_patterns::patterns::lock::{hash, kv_demo, new_lock_id};
use kv_patterns::random::Random;
use kv_patterns::sim::linear::{Operation, is_linearizable};
use kv_patterns::sim::{History, Isolate, Object, Objects, Plan, Profile, Setup, Shape, What, World, check};

use super::lock_queue::{self, Line};
use super::{Code, Picture, Promise, Run, Scenario, Statistic, Unit};

const NAMESPACE: &str = "LOCKS";
const RESOURCE: &str = "resource";
/// The naive code's lock lives at least so long: KV takes no less.
const TTL_SECONDS: u64 = 60;
const SUBJECT: &str = "lock";

/// How long the holder works before it releases, in milliseconds; or it is gone and never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Work(u64),
    Vanish,
}

pub(crate) fn plan(setup: Setup) -> Plan<Act> {
    let shape = Shape { clients_max: 6, steps_max: 25, wait_millis_max: 40_000 };
    Plan::generate(setup, shape, |below| match below(8) {
        0 => Act::Vanish,
        // Longer than the lease: a paused holder.
        1 => Act::Work(TTL_SECONDS * 1000 + below(20_000)),
        _ => Act::Work(below(15_000)),
    })
}

/// Which lock is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exact,
    Demo,
    Naive,
}

/// The lock's object, as its class runs it; the queue is its memory. It forgets itself when it may.
#[derive(Default)]
struct ExactLock {
    queue: Queue,
}

impl Object for ExactLock {
    type Storage = State;
    type Request = Request;
    type Reply = Answer;

    fn handle(&mut self, state: &mut State, request: Request, now: Timestamp) -> Answer {
        exact::decide(state, &mut self.queue, &request, now).0
    }

    fn alarm_at(state: &State) -> Option<Timestamp> {
        (*state != State::default()).then(|| state.forget_at(Timestamp::default()))
    }

    fn alarm(&mut self, state: &mut State, now: Timestamp) {
        if state.may_forget(now) {
            *state = State::default();
        }
    }
}

/// What was asked of a lock, and what it answered; times are true ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It was granted with this token; the lease began when it was granted.
    Granted(u64),
    /// Somebody holds it.
    Held,
    /// What was held with this token was given back.
    Released(u64),
    /// The token holds nothing any more, and somebody else does.
    NotHeld(u64),
}

/// One lock as one place sees it: the greatest token, and who holds it from when to when at least and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    token: u64,
    holder: Option<(u64, Timestamp, Timestamp)>,
}

/// What the lock may answer, and what it is then. The moment is only known to be between request and answer, so a lease
/// may be over for one answer and not yet for the next.
pub(crate) fn step(seen: &Seen, operation: &Operation<Asked>) -> Option<Seen> {
    let Operation { began, ended, is_certain, what } = *operation;
    let may_be_held =
        |except: Option<u64>| seen.holder.is_some_and(|(token, _, latest)| Some(token) != except && began <= latest);
    let may_be_free = seen.holder.is_none_or(|(_, earliest, _)| earliest <= ended);
    match what {
        Asked::Granted(_) if !is_certain => {
            // The token nobody heard of is greater than those before it.
            let token = seen.token + 1;
            may_be_free.then_some(Seen { token, holder: Some((token, lease(began), lease(ended))) })
        }
        Asked::Granted(token) if may_be_free && token > seen.token => {
            Some(Seen { token, holder: Some((token, lease(began), lease(ended))) })
        }
        Asked::Held => may_be_held(None).then_some(*seen),
        Asked::Released(token) if seen.holder.is_some_and(|(holder, ..)| holder == token) => {
            Some(Seen { holder: None, ..*seen })
        }
        Asked::Released(_) if may_be_free => Some(*seen),
        Asked::NotHeld(token) => may_be_held(Some(token)).then_some(*seen),
        Asked::Granted(_) | Asked::Released(_) => None,
    }
}

fn lease(granted: Timestamp) -> Timestamp {
    granted.plus_seconds(TTL_SECONDS)
}

/// A grant as its client knows it.
struct Grant {
    id: String,
    fence: u64,
}

struct Bench {
    world: World,
    kind: Kind,
    isolates: Vec<Isolate>,
    objects: Objects<ExactLock>,
    history: History,
    fence: RefCell<Fence>,
    samples: RefCell<u64>,
    asked: RefCell<Vec<Operation<Asked>>>,
}

fn tenant() -> Tenant {
    Tenant::new("acme").expect("a valid tenant id")
}

impl Bench {
    /// Notes what was asked since `began`, for the order of all answers.
    fn ask(&self, began: Timestamp, what: Asked, is_certain: bool) {
        let operation = Operation { began, ended: self.world.now(), is_certain, what };
        self.asked.borrow_mut().push(operation);
    }

    async fn acquire(&self, isolate: &Isolate) -> Option<Grant> {
        let id = new_lock_id(&isolate.random());
        let (store, clock, t) = (isolate.store(NAMESPACE), isolate.clock(), tenant());
        let fence = match self.kind {
            Kind::Exact => self.acquire_exact(isolate, &id).await?,
            Kind::Demo => match kv_demo::acquire(&store, &clock, &t, RESOURCE, &id, None, TTL_SECONDS).await.ok()? {
                kv_demo::Outcome::Granted { fencing_token, .. } => fencing_token,
                kv_demo::Outcome::Held { .. } => return None,
            },
            Kind::Naive => {
                let key = t.space("naive").key(&[RESOURCE]);
                if store.get(&key, Read::default()).await.ok()?.is_some() {
                    return None;
                }
                store.put(&key, id.as_bytes(), Write::expiring_in(TTL_SECONDS)).await.ok()?;
                clock.sleep(100).await;
                let seen = store.get(&key, Read::default()).await.ok()?;
                if seen? != id.as_bytes() {
                    return None;
                }
                // It has no token; the holder's clock is the best there is.
                clock.now().millis()
            }
        };
        Some(Grant { id, fence })
    }

    /// Asks until it is answered, with an idempotency key: an answer that got lost is given again.
    async fn acquire_exact(&self, isolate: &Isolate, id: &str) -> Option<u64> {
        let acquire = Acquire {
            ttl_seconds: TTL_SECONDS,
            owner: None,
            id: hash(id),
            key: Some(hash(&isolate.random().next_u64().to_string())),
            wait_seconds: 0,
        };
        let mut lost = Vec::new();
        for _ in 0..5 {
            let began = self.world.now();
            match self.objects.call(isolate, RESOURCE, Request::Acquire(acquire.clone())).await {
                Ok(Answer::Granted { fencing_token, .. }) => {
                    // All attempts are one: the first that arrived was it.
                    let token = fencing_token.parse().ok()?;
                    self.ask(lost.first().map_or(began, |(first, _)| *first), Asked::Granted(token), true);
                    return Some(token);
                }
                Ok(_) => {
                    self.ask(began, Asked::Held, true);
                    break;
                }
                Err(_) => {
                    lost.push((began, self.world.now()));
                    self.world.sleep(100).await;
                }
            }
        }
        // One of those that failed may hold it.
        let ended = lost.last().map(|(_, ended)| *ended);
        if let (Some((began, _)), Some(ended)) = (lost.first(), ended) {
            let what = Asked::Granted(0);
            self.asked.borrow_mut().push(Operation { began: *began, ended, is_certain: false, what });
        }
        None
    }

    async fn release(&self, isolate: &Isolate, grant: &Grant) {
        let (store, clock, t) = (isolate.store(NAMESPACE), isolate.clock(), tenant());
        match self.kind {
            Kind::Exact => {
                let began = self.world.now();
                let request = Request::Release { id: hash(&grant.id) };
                match self.objects.call(isolate, RESOURCE, request).await {
                    Ok(Answer::NotHeld) => self.ask(began, Asked::NotHeld(grant.fence), true),
                    outcome => self.ask(began, Asked::Released(grant.fence), outcome.is_ok()),
                }
            }
            Kind::Demo => drop(kv_demo::release(&store, &clock, &t, RESOURCE, &grant.id).await),
            Kind::Naive => {
                let key = t.space("naive").key(&[RESOURCE]);
                if store.get(&key, Read::default()).await.is_ok_and(|seen| seen.as_deref() == Some(grant.id.as_bytes()))
                {
                    drop(store.delete(&key).await);
                }
            }
        }
    }

    async fn act(&self, client: usize, location: usize, act: Act) {
        let isolate = &self.isolates[location];
        let began = self.world.now();
        let Some(grant) = self.acquire(isolate).await else { return };
        *self.samples.borrow_mut() += 1;
        // The lease is counted from when it was asked for, so no clock's error makes it longer than the object's.
        let until = began.plus_seconds(TTL_SECONDS);
        if self.kind != Kind::Exact {
            self.ask(began, Asked::Granted(grant.fence), true);
        }
        let what = What::Acquired { fence: grant.fence, until };
        self.history.note(client, SUBJECT, began, self.world.now(), what);
        let Act::Work(millis) = act else { return };
        self.world.sleep(millis).await;
        // The holder may have been away for longer than its lease, and does not know it.
        let admitted = self.fence.borrow().admit(grant.fence);
        if self.kind != Kind::Naive
            && let Ok(next) = admitted
        {
            *self.fence.borrow_mut() = next;
            self.history.note(client, SUBJECT, self.world.now(), self.world.now(), What::Guarded(grant.fence));
        }
        if self.kind == Kind::Naive {
            self.history.note(client, SUBJECT, self.world.now(), self.world.now(), What::Guarded(grant.fence));
        }
        let now = self.world.now();
        self.release(isolate, &grant).await;
        self.history.note(client, SUBJECT, now, self.world.now(), What::Released(grant.fence));
        if self.kind != Kind::Exact {
            self.ask(now, Asked::Released(grant.fence), false);
        }
    }
}

fn run_kind(kind: Kind, plan: &Plan<Act>) -> Run {
    let world = World::new(plan.setup.clone());
    let bench = Rc::new(Bench {
        isolates: (0..plan.setup.locations).map(|location| world.isolate(location)).collect(),
        objects: Objects::new(&world),
        history: History::default(),
        fence: RefCell::default(),
        samples: RefCell::default(),
        asked: RefCell::default(),
        kind,
        world,
    });
    let acting = bench.clone();
    let ran = plan.run(&bench.world, move |client, location, act| {
        let bench = acting.clone();
        async move { bench.act(client, location, act).await }
    });
    assert!(ran.is_ok(), "the run got stuck: {plan}");
    let events = bench.history.events();
    let (overlaps, disorder) = (check::overlaps(&events), check::unfenced(&events));
    let mut run =
        Run { operations: bench.world.operations(), fingerprint: bench.world.fingerprint(), ..Run::default() };
    let acquired = usize::try_from(*bench.samples.borrow()).unwrap_or(0);
    // One sample per acquisition: whether it overlapped another.
    let mut overlapped = vec![1; overlaps.len()];
    overlapped.resize(acquired.max(overlaps.len()), 0);
    let count = |violations: &[check::Violation]| vec![u64::try_from(violations.len()).unwrap_or(u64::MAX)];
    let is_explained = is_linearizable(&bench.asked.borrow(), Seen::default(), step);
    match kind {
        Kind::Demo => {
            run.samples.insert("kv-demo: overlapped", overlapped);
        }
        Kind::Exact | Kind::Naive => {
            run.samples.insert("no order explains", vec![u64::from(!is_explained)]);
            run.samples.insert("overlapped", overlapped);
            run.samples.insert("overlaps", count(&overlaps));
            run.samples.insert("out of order", count(&disorder));
        }
    }
    if kind == Kind::Exact {
        run.violations = [overlaps, disorder].concat();
        if !is_explained {
            let text = format!("no order explains the answers to {} requests", bench.asked.borrow().len());
            run.violations.push(check::Violation { checker: "linearizability", text });
        }
    }
    run
}

pub(crate) fn run_plan(code: Code, plan: &Plan<Act>) -> Run {
    run_kind(if code == Code::Ours { Kind::Exact } else { Kind::Naive }, plan)
}

/// The library's own demonstration.
pub(crate) fn run_demo(plan: &Plan<Act>) -> Run {
    run_kind(Kind::Demo, plan)
}

/// Locks.
pub(crate) struct LockScenario;

impl Scenario for LockScenario {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run {
        let plan = plan(Setup::swarm(seed, profile));
        let mut run = run_plan(code, &plan);
        if code == Code::Ours {
            run.absorb(run_demo(&plan));
            run.absorb(lock_queue::run(Setup::swarm(seed, profile), Line::Kept));
        } else {
            run.absorb(lock_queue::run(Setup::swarm(seed, profile), Line::None));
            let overlapped = run.samples.get("overlapped").cloned().unwrap_or_default();
            run.samples.insert("kv-demo: overlapped", overlapped);
        }
        run
    }

    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String {
        let plan = plan(Setup::swarm(seed, profile));
        kv_patterns::sim::shrink(plan, |plan| !run_plan(code, plan).violations.is_empty()).to_string()
    }

    fn promises(&self) -> Vec<Promise> {
        let never = |what, figure| Promise {
            what,
            figure,
            statistic: Statistic::Sum,
            unit: Unit::Count,
            promised: |_| Some(0),
        };
        let share = |what, figure, promised| Promise {
            what,
            figure,
            statistic: Statistic::PermilleNotZero,
            unit: Unit::Permille,
            promised,
        };
        vec![
            never("exact: acquisitions while another held it", "overlaps"),
            never("exact: fencing tokens out of order, writes with an older one taken", "out of order"),
            share("exact: runs whose answers no order of requests explains", "no order explains", |_| Some(0)),
            never("exact: granted to somebody who came after one who waits", "out of turn"),
            share("acquisitions that overlapped another", "overlapped", |_| None),
            share("kv-demo: acquisitions that overlapped another", "kv-demo: overlapped", |_| None),
        ]
    }

    fn picture(&self) -> Picture {
        Picture {
            title: "Locks: acquisitions that overlapped another holder, per run",
            figure: "overlaps",
            unit: Unit::Count,
            x: "overlaps in one run",
            y: "runs with more",
            promised: |_| None,
        }
    }
}
