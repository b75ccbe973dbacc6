//! The world: the executor, the namespaces, the chances, and the record of what happened.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use super::executor::{Executor, Group, Stuck};
use super::faults::{Fault, Profile, Setup, fnv, stream};
use super::isolate::Isolate;
use super::namespace::{Fetch, Namespace, Spread};
use crate::clock::Timestamp;
use crate::random::{Random, SeededRandom};

/// Where simulated time begins: 2026-01-01 00:00:00 UTC.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// How late a late expiry may be, in milliseconds.
const LATE_EXPIRY_MILLIS_MAX: u64 = 60_000;

/// One simulated Workers KV, with everything around it. Clones share it.
#[derive(Clone)]
pub struct World(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) executor: Executor,
    pub(super) setup: Setup,
    pub(super) namespaces: RefCell<BTreeMap<&'static str, Namespace>>,
    /// Draws of delays.
    pub(super) delays: SeededRandom,
    /// Draws of faults.
    pub(super) chances: SeededRandom,
    skew_millis: Vec<i64>,
    isolates: Cell<u64>,
    operations: Cell<u64>,
    throttled: RefCell<BTreeMap<String, u64>>,
    fingerprint: Cell<u64>,
    trace: RefCell<Option<Vec<String>>>,
}

impl World {
    /// The world of this setup, at [`START`], empty.
    pub fn new(setup: Setup) -> Self {
        let skews = stream(setup.seed, "skew");
        let reach = setup.profile.clock_skew_millis_max;
        let skew = |_| i64::try_from(skews.below(2 * reach + 1)).unwrap_or(0) - i64::try_from(reach).unwrap_or(0);
        Self(Rc::new(Inner {
            executor: Executor::at(START),
            skew_millis: (0..setup.locations).map(skew).collect(),
            namespaces: RefCell::default(),
            delays: stream(setup.seed, "delays"),
            chances: stream(setup.seed, "chances"),
            isolates: Cell::new(0),
            operations: Cell::new(0),
            throttled: RefCell::default(),
            fingerprint: Cell::new(0xCBF2_9CE4_8422_2325),
            trace: RefCell::new(None),
            setup,
        }))
    }

    /// The executor, for tasks and sleeps of the world's own.
    pub fn executor(&self) -> &Executor {
        &self.0.executor
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.0.executor.now()
    }

    /// What the world was made from.
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// A fresh isolate at `location`, with empty memory. [`Edge`](super::Edge) makes them by itself.
    pub fn isolate(&self, location: usize) -> Isolate {
        self.0.isolates.set(self.0.isolates.get() + 1);
        Isolate::new(self.clone(), location, self.0.isolates.get())
    }

    /// Starts a task of the world, such as a client; no fault kills it.
    pub fn spawn<F: Future + 'static>(&self, task: F) -> super::Handle<F::Output> {
        self.0.executor.spawn(Group::WORLD, task)
    }

    /// Waits in true time.
    pub fn sleep(&self, millis: u64) -> super::Sleep {
        self.0.executor.sleep(millis)
    }

    /// Runs until nothing is left to happen.
    ///
    /// # Errors
    ///
    /// Tasks kept waking each other without letting time pass.
    pub fn run(&self) -> Result<(), Stuck> {
        self.0.executor.run()
    }

    /// Runs everything until `future` is done.
    ///
    /// # Errors
    ///
    /// The future waits for what never comes.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        self.0.executor.block_on(future)
    }

    /// The value in the central store, past every cache: the truth, for checkers.
    pub fn truth(&self, namespace: &'static str, name: &str) -> Option<Vec<u8>> {
        let namespaces = self.0.namespaces.borrow();
        namespaces.get(namespace)?.truth(name, self.now()).map(|stored| stored.bytes.clone())
    }

    /// Every name with a live value in the central store.
    pub fn names(&self, namespace: &'static str) -> Vec<String> {
        self.0.namespaces.borrow().get(namespace).map(|keys| keys.names(self.now())).unwrap_or_default()
    }

    /// How many KV operations and object calls were made.
    pub fn operations(&self) -> u64 {
        self.0.operations.get()
    }

    /// How many writes KV refused with 429, by the name of the key.
    pub fn throttled(&self) -> BTreeMap<String, u64> {
        self.0.throttled.borrow().clone()
    }

    /// A hash over everything that happened: equal histories, equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        self.0.fingerprint.get()
    }

    /// Keeps a line per operation from now on.
    pub fn keep_trace(&self) {
        *self.0.trace.borrow_mut() = Some(Vec::new());
    }

    /// The lines kept since [`World::keep_trace`], one per operation.
    pub fn trace(&self) -> Vec<String> {
        self.0.trace.borrow().clone().unwrap_or_default()
    }

    pub(super) fn skewed(&self, location: usize, moment: Timestamp) -> Timestamp {
        let skew = self.0.skew_millis.get(location).copied().unwrap_or(0);
        Timestamp::from_millis(moment.millis().saturating_add_signed(skew))
    }

    pub(super) fn strikes(&self, fault: Fault) -> bool {
        self.0.setup.faults.strikes(fault, &self.0.chances)
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.0.setup.profile
    }

    /// A number below `bound`, from the stream of chances.
    pub(super) fn chance(&self, bound: u64) -> u64 {
        self.0.chances.below(bound)
    }

    /// How a read is answered now.
    pub(super) fn fetch(&self, location: usize, cache_ttl_seconds: u32) -> Fetch {
        let late = self.strikes(Fault::LateExpiry);
        Fetch {
            location,
            now: self.now(),
            cache_ttl_seconds,
            evicted: self.strikes(Fault::CacheEvicted),
            steps_back: self.strikes(Fault::StepsBack),
            late_millis: if late { self.chance(LATE_EXPIRY_MILLIS_MAX + 1) } else { 0 },
        }
    }

    /// When a write made now at `location` becomes visible where; `is_new` when nobody has looked for the key before.
    pub(super) fn spread(&self, location: usize, is_new: bool) -> Spread {
        let (profile, delays) = (self.profile(), &self.0.delays);
        let own_is_hidden = delays.below(1000) < profile.own_write_hidden_permille;
        let is_everywhere = is_new && profile.new_keys_are_seen_at_once;
        let visible_at = |reader| {
            let at_once = is_everywhere || (reader == location && !own_is_hidden);
            self.now().plus_millis(if at_once { 0 } else { profile.propagation.sample(delays) })
        };
        Spread {
            visible_at: (0..self.0.setup.locations).map(visible_at).collect(),
            list_lag_millis: profile.list_lag.sample(delays),
        }
    }

    /// Works on a namespace; it exists as soon as it is named.
    pub(super) fn with<T>(&self, namespace: &'static str, work: impl FnOnce(&mut Namespace) -> T) -> T {
        work(self.0.namespaces.borrow_mut().entry(namespace).or_default())
    }

    /// Notes that a write of `name` was refused with 429.
    pub(super) fn note_throttled(&self, name: &str) {
        *self.0.throttled.borrow_mut().entry(name.to_owned()).or_default() += 1;
    }

    /// Takes an operation into the fingerprint, and into the trace if one is kept.
    pub(super) fn record(&self, line: fmt::Arguments<'_>) {
        self.0.operations.set(self.0.operations.get() + 1);
        let line = format!("{} {line}", self.now().millis_since(START));
        self.0.fingerprint.set(line.bytes().fold(self.0.fingerprint.get(), fnv));
        if let Some(trace) = self.0.trace.borrow_mut().as_mut() {
            trace.push(line);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "World({:?}, {} operations)", self.0.executor, self.operations())
    }
}
