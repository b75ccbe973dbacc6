//! An isolate: one Worker's memory at one location, with the clock, randomness and background work it is given; and
//! the [`Edge`] that sends requests to a location's isolates and replaces those that die.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::select;

use super::executor::{Died, Group, Handle};
use super::faults::{Fault, stream};
use super::store::SimStore;
use super::world::World;
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::random::{Random, SeededRandom};

/// How long background work may go on, in milliseconds.
/// Source: <https://developers.cloudflare.com/workers/runtime-apis/context/>
const BACKGROUND_MILLIS_MAX: u64 = 30_000;

/// How long a pause may be, in milliseconds.
const PAUSE_MILLIS_MAX: u64 = 20_000;

/// How far into a request an isolate dies, in milliseconds at most.
const DEATH_MILLIS_MAX: u64 = 2000;

/// One isolate. Clones are the same isolate.
#[derive(Clone)]
pub struct Isolate(Rc<Inner>);

struct Inner {
    world: World,
    location: usize,
    id: u64,
    group: Group,
    /// What the isolate's clock shows: the moment of the last answer it got.
    frozen: Cell<Timestamp>,
    random: SeededRandom,
}

impl Isolate {
    pub(super) fn new(world: World, location: usize, id: u64) -> Self {
        let random = stream(world.setup().seed.wrapping_add(id), "isolate");
        let (group, frozen) = (world.executor().group(), Cell::new(world.now()));
        Self(Rc::new(Inner { world, location, id, group, frozen, random }))
    }

    /// The world it is in.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// Where it is.
    pub fn location(&self) -> usize {
        self.0.location
    }

    /// Its number, never used twice in a world.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The namespace bound as `namespace`, as this location sees it. It exists as soon as it is named.
    pub fn store(&self, namespace: &'static str) -> SimStore {
        SimStore::new(self.clone(), namespace)
    }

    /// The isolate's clock: it stands still between I/O and may be off by the profile's skew.
    pub fn clock(&self) -> SimClock {
        SimClock(self.clone())
    }

    /// The isolate's randomness.
    pub fn random(&self) -> SimRandom {
        SimRandom(self.clone())
    }

    /// The isolate's `waitUntil`.
    pub fn background(&self) -> SimBackground {
        SimBackground(self.clone())
    }

    /// Starts a task that dies with the isolate.
    pub fn spawn<F: Future + 'static>(&self, task: F) -> Handle<F::Output> {
        self.0.world.executor().spawn(self.0.group, task)
    }

    /// Ends the isolate: its tasks stop where they stand. What it sent to KV before goes on.
    pub fn kill(&self) {
        self.0.world.executor().kill(self.0.group);
    }

    /// An answer reached the isolate: its clock moves to now.
    pub(super) fn hears(&self) {
        self.0.frozen.set(self.0.world.now());
    }

    /// Some time in which the isolate is suspended without its clock moving, or none.
    pub(super) async fn may_pause(&self) {
        if self.0.world.strikes(Fault::Pauses) {
            self.0.world.sleep(self.0.world.chance(PAUSE_MILLIS_MAX)).await;
        }
    }
}

impl fmt::Debug for Isolate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Isolate({} at {})", self.0.id, self.0.location)
    }
}

/// An isolate's clock.
#[derive(Clone, Debug)]
pub struct SimClock(Isolate);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.world().skewed(self.0.location(), self.0.0.frozen.get())
    }

    async fn sleep(&self, millis: u64) {
        self.0.world().sleep(millis).await;
        self.0.hears();
    }
}

/// An isolate's randomness. Clones draw from one stream.
#[derive(Clone, Debug)]
pub struct SimRandom(Isolate);

impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.0.random.fill(bytes);
    }
}

/// An isolate's background work: ended after 30 seconds, or with the isolate, or lost before it starts.
#[derive(Clone, Debug)]
pub struct SimBackground(Isolate);

impl Background for SimBackground {
    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let isolate = &self.0;
        if isolate.world().strikes(Fault::BackgroundLost) {
            return;
        }
        let limit = isolate.world().sleep(BACKGROUND_MILLIS_MAX);
        isolate.spawn(async move {
            select(pin!(work), limit).await;
        });
    }
}

/// A Worker deployed at one location: requests run in an isolate that keeps the state `S` between them, until it dies.
pub struct Edge<S> {
    world: World,
    location: usize,
    start: Box<dyn Fn(&Isolate) -> S>,
    current: RefCell<Option<(Isolate, Rc<S>)>>,
}

impl<S: 'static> Edge<S> {
    /// A Worker at `location`; `start` makes the memory of each new isolate, such as a pattern on its store.
    pub fn new(world: &World, location: usize, start: impl Fn(&Isolate) -> S + 'static) -> Rc<Self> {
        Rc::new(Self { world: world.clone(), location, start: Box::new(start), current: RefCell::default() })
    }

    /// One Worker at every location.
    pub fn everywhere(world: &World, start: impl Fn(&Isolate) -> S + Clone + 'static) -> Vec<Rc<Self>> {
        (0..world.setup().locations).map(|location| Self::new(world, location, start.clone())).collect()
    }

    /// The isolate that takes the next request, and its memory.
    pub fn isolate(&self) -> (Isolate, Rc<S>) {
        let mut current = self.current.borrow_mut();
        let (isolate, state) = current.get_or_insert_with(|| {
            let isolate = self.world.isolate(self.location);
            let state = Rc::new((self.start)(&isolate));
            (isolate, state)
        });
        (isolate.clone(), state.clone())
    }

    /// Ends the current isolate; the next request gets a new one.
    pub fn kill(&self) {
        let killed = self.current.borrow_mut().take();
        if let Some((isolate, _)) = killed {
            isolate.kill();
        }
    }

    /// Runs one request.
    ///
    /// # Errors
    ///
    /// The isolate died before it answered; what the request did is unknown.
    pub async fn request<T: 'static>(
        self: &Rc<Self>,
        handler: impl AsyncFnOnce(Rc<S>) -> T + 'static,
    ) -> Result<T, Died> {
        let (isolate, state) = self.isolate();
        isolate.hears();
        if self.world.strikes(Fault::IsolateDies) {
            let (edge, id) = (self.clone(), isolate.id());
            let wait = self.world.sleep(self.world.chance(DEATH_MILLIS_MAX));
            self.world.spawn(async move {
                wait.await;
                let is_same = edge.current.borrow().as_ref().is_some_and(|(current, _)| current.id() == id);
                if is_same {
                    edge.kill();
                }
            });
        }
        isolate.spawn(async move { handler(state).await }).await
    }
}

impl<S> fmt::Debug for Edge<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Edge({})", self.location)
    }
}
