//! Waiting for a lock on the simulator: clients that stand in line, holders that vanish, restarts that send everybody
//! home. Nobody may be served before somebody who came earlier and still waits.

use std::cell::RefCell;
use std::rc::Rc;

use kv_patterns::clock::Timestamp;
use kv_patterns::patterns::lock::exact::{self, Acquire, Answer, Queue, Request, State};
use kv_patterns::patterns::lock::{hash, new_lock_id};
use kv_patterns::random::Random;
use kv_patterns::sim::{Event, History, Isolate, Object, Objects, Setup, What, World, check};

use super::Run;

const RESOURCE: &str = "resource";
/// How long a grant lasts, and how long a client waits for one, in seconds.
const TTL_SECONDS: u64 = 10;
const WAIT_SECONDS: u64 = 20;
/// How often one who waits asks, in milliseconds.
const POLL_MILLIS: u64 = 50;
const CLIENTS: usize = 5;
const TURNS: u64 = 8;

/// Whether there is a line at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The pattern's own.
    Kept,
    /// The bug planted for the judge: a free lock goes to whoever asks next, whoever waits.
    Jumped,
    /// As it is usually written: who is refused tries again.
    None,
}

/// What the object is asked: a caller's request, or one who waits looks again.
#[derive(Clone, Debug)]
enum Ask {
    Request(Request, Line),
    Poll(Place),
}

/// A ticket, and in which life of the object it was given: those who wait end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    ticket: u64,
    life: Timestamp,
}

/// The lock's object. On the platform a caller who waits is a request inside the object; here it asks from outside, by
/// its place.
#[derive(Default)]
struct LockObject {
    queue: Queue,
    /// When this life began.
    life: Option<Timestamp>,
}

impl Object for LockObject {
    type Storage = State;
    type Request = Ask;
    type Reply = (Option<Answer>, Option<Place>);

    fn handle(&mut self, state: &mut State, ask: Ask, now: Timestamp) -> Self::Reply {
        let born = *self.life.get_or_insert(now);
        match ask {
            Ask::Request(request, line) => {
                if line != Line::Kept {
                    let (answer, ticket) = exact::decide(state, &mut Queue::default(), &request, now);
                    if ticket.is_none() {
                        return (Some(answer), None);
                    }
                }
                let (answer, ticket) = exact::decide(state, &mut self.queue, &request, now);
                (Some(answer), ticket.map(|ticket| Place { ticket, life: born }))
            }
            Ask::Poll(place) if place.life == born => (Some(self.queue.poll(state, place.ticket, now)), Some(place)),
            Ask::Poll(_) => (None, None),
        }
    }
}

/// One who waited: from when on it stood in line, and when it last asked and was still in it, or was served.
#[derive(Clone, Copy, Debug)]
struct Waited {
    client: usize,
    life: Timestamp,
    stood: Timestamp,
    last_asked: Timestamp,
}

/// One who was served: when it had asked for the lock, and when it got it.
#[derive(Clone, Copy, Debug)]
struct Served {
    client: usize,
    asked: Timestamp,
    got: Timestamp,
}

/// Who was served although somebody who stood in line before it asked was in it still.
fn out_of_turn(waited: &[Waited], served: &[Served]) -> Vec<check::Violation> {
    let jumps = served.iter().filter_map(|served| {
        let passed = waited.iter().find(|waited| waited.stood < served.asked && served.got < waited.last_asked)?;
        let text = format!("{served:?} while {passed:?}");
        Some(check::Violation { checker: "first come, first served", text })
    });
    jumps.collect()
}

struct Bench {
    world: World,
    objects: Objects<LockObject>,
    line: Line,
    history: History,
    waited: RefCell<Vec<Waited>>,
    served: RefCell<Vec<Served>>,
}

impl Bench {
    /// Asks for the lock and waits for it as the line allows; gives the token, and when it asked for the last time.
    async fn acquire(&self, client: usize, isolate: &Isolate, id: &str) -> Option<(u64, Timestamp)> {
        let wait_seconds = if self.line == Line::None { 0 } else { WAIT_SECONDS };
        let key = Some(hash(&format!("{id} key")));
        let acquire = Acquire { ttl_seconds: TTL_SECONDS, owner: None, id: hash(id), key, wait_seconds };
        let asked = self.world.now();
        let mut waited: Option<Waited> = None;
        let mut next = Ask::Request(Request::Acquire(acquire.clone()), self.line);
        let until = asked.plus_seconds(WAIT_SECONDS);
        loop {
            let began = self.world.now();
            let (answer, place) = self.objects.call(isolate, RESOURCE, next).await.ok()?;
            let now = self.world.now();
            if let (Some(place), Some(Answer::Queued | Answer::Offered)) = (place, &answer) {
                let new = Waited { client, life: place.life, stood: now, last_asked: began };
                waited.get_or_insert(new).last_asked = began;
            }
            next = match (answer, place) {
                (Some(Answer::Granted { fencing_token, .. }), _) => {
                    self.waited.borrow_mut().extend(waited);
                    self.served.borrow_mut().push(Served { client, asked, got: now });
                    return fencing_token.parse().ok().map(|token| (token, began));
                }
                (Some(Answer::Queued), Some(place)) => Ask::Poll(place),
                (Some(Answer::Offered), _) => {
                    Ask::Request(Request::Renew { id: hash(id), ttl_seconds: TTL_SECONDS }, self.line)
                }
                // Who has no line to stand in asks again, and has waited all the same.
                (Some(Answer::Held { .. }), _) if self.line == Line::None && now < until => {
                    waited.get_or_insert(Waited { client, life: asked, stood: now, last_asked: began }).last_asked =
                        began;
                    Ask::Request(Request::Acquire(acquire.clone()), self.line)
                }
                _ => {
                    self.waited.borrow_mut().extend(waited);
                    return None;
                }
            };
            self.world.sleep(POLL_MILLIS).await;
        }
    }

    async fn turn(&self, client: usize, isolate: &Isolate) {
        let id = new_lock_id(&isolate.random());
        let Some((fence, asked)) = self.acquire(client, isolate, &id).await else { return };
        // The lease began no earlier than when it was last asked for.
        let until = asked.plus_seconds(TTL_SECONDS);
        if self.world.now() >= until {
            // The answer took longer than the lease: there is nothing to use.
            return;
        }
        self.history.note(client, RESOURCE, asked, self.world.now(), What::Acquired { fence, until });
        self.world.sleep(isolate.random().below(1500)).await;
        // One of eight is gone, and its lease must end by itself.
        if isolate.random().below(8) > 0 {
            let began = self.world.now();
            let release = Ask::Request(Request::Release { id: hash(&id) }, self.line);
            drop(self.objects.call(isolate, RESOURCE, release).await);
            self.history.note(client, RESOURCE, began, self.world.now(), What::Released(fence));
        }
    }
}

/// Clients that stand in line for one lock.
pub(crate) fn run(setup: Setup, line: Line) -> Run {
    let world = World::new(setup);
    let bench = Rc::new(Bench {
        objects: Objects::new(&world),
        line,
        history: History::default(),
        waited: RefCell::default(),
        served: RefCell::default(),
        world,
    });
    for client in 0..CLIENTS {
        let bench = bench.clone();
        let isolate = bench.world.isolate(client % bench.world.setup().locations);
        bench.world.clone().spawn(async move {
            for _ in 0..TURNS {
                bench.world.sleep(isolate.random().below(4000)).await;
                bench.turn(client, &isolate).await;
            }
        });
    }
    assert!(bench.world.run().is_ok(), "the line got stuck");
    let events: Vec<Event> = bench.history.events();
    let jumps = out_of_turn(&bench.waited.borrow(), &bench.served.borrow());
    let mut run =
        Run { operations: bench.world.operations(), fingerprint: bench.world.fingerprint(), ..Run::default() };
    run.samples.insert("out of turn", vec![u64::try_from(jumps.len()).unwrap_or(u64::MAX)]);
    run.samples.insert("waited", vec![u64::try_from(bench.waited.borrow().len()).unwrap_or(0)]);
    if line != Line::None {
        run.violations = [jumps, check::overlaps(&events), check::unfenced(&events)].concat();
    }
    run
}
