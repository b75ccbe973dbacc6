//! A host for Durable Objects: one request at a time per object, storage that survives, memory that does not.
//!
//! An [`Object`] is a pure decision on its stored state; the host adds the queue, the network, restarts, overload,
//! eviction and alarms. A request's answer leaves only when its writes are durable (the platform's output gate), so
//! a restart in the middle undoes all of it or loses only the answer.
//! Source: <https://developers.cloudflare.com/durable-objects/reference/in-memory-state/>

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::faults::Fault;
use super::isolate::Isolate;
use super::world::World;
use crate::clock::Timestamp;

/// The location at which all objects live; its clock is theirs.
const HOME: usize = 0;

/// What one request costs an object, in milliseconds, its durable write included.
const SERVICE_MILLIS: u64 = 2;

/// How long a request waits in the queue before the platform refuses it, in milliseconds.
const QUEUE_MILLIS_MAX: u64 = 10_000;

/// How long an object without requests keeps its memory, in milliseconds.
const IDLE_MILLIS_MAX: u64 = 70_000;

/// What a Durable Object does. The value itself is its memory, made anew by `Default` after every restart.
pub trait Object: Default + 'static {
    /// What survives a restart; the default is what a new object finds.
    type Storage: Default + Clone + 'static;
    /// What it is asked.
    type Request: fmt::Debug + 'static;
    /// What it answers.
    type Reply: fmt::Debug + 'static;

    /// Decides, and changes the storage all at once or not at all.
    fn handle(&mut self, storage: &mut Self::Storage, request: Self::Request, now: Timestamp) -> Self::Reply;

    /// When the object wants to be woken, given what it stored.
    fn alarm_at(_storage: &Self::Storage) -> Option<Timestamp> {
        None
    }

    /// Runs when that time has come. Alarms are delivered at least once.
    fn alarm(&mut self, _storage: &mut Self::Storage, _now: Timestamp) {}
}

/// Why a call to an object failed, in the runtime's words. Whether it took effect is unknown, unless `overloaded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailed {
    /// The error's message.
    pub message: &'static str,
    /// The error's `retryable` property.
    pub retryable: bool,
    /// The error's `overloaded` property: the object refused, and a retry makes it worse.
    pub overloaded: bool,
}

const OVERLOADED: CallFailed = CallFailed {
    message: "Durable Object is overloaded. Requests queued for too long.",
    retryable: true,
    overloaded: true,
};
const RESET: CallFailed =
    CallFailed { message: "Durable Object reset because its code was updated.", retryable: true, overloaded: false };
const LOST: CallFailed = CallFailed { message: "Network connection lost.", retryable: true, overloaded: false };

/// All objects of one class, by name. Clones share them.
pub struct Objects<O: Object> {
    world: World,
    live: Rc<RefCell<BTreeMap<String, Live<O>>>>,
}

struct Live<O: Object> {
    memory: O,
    storage: O::Storage,
    /// When the last request in the queue will be done.
    busy_until: Timestamp,
    alarm_at: Option<Timestamp>,
}

impl<O: Object> Default for Live<O> {
    fn default() -> Self {
        Self { memory: O::default(), storage: O::Storage::default(), busy_until: Timestamp::default(), alarm_at: None }
    }
}

impl<O: Object> Objects<O> {
    /// The class, with no object yet: one exists as soon as it is called.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), live: Rc::default() }
    }

    /// Calls the object `name` from an isolate.
    ///
    /// # Errors
    ///
    /// The object was restarted or overloaded, or the connection was lost; see [`CallFailed`].
    pub async fn call(&self, from: &Isolate, name: &str, request: O::Request) -> Result<O::Reply, CallFailed> {
        let world = &self.world;
        let delay = if from.location() == HOME { world.profile().near } else { world.profile().far };
        world.sleep(delay.sample(&world.0.delays)).await;
        let line = format!("{from:?} calls {name} {request:?}");
        // The object goes on when the caller dies, so its turn is a task of the world.
        let (objects, name) = (self.clone(), name.to_owned());
        let turn = world.spawn(async move { objects.turn(&name, request).await });
        let outcome = turn.await.unwrap_or(Err(LOST));
        world.record(format_args!("{line}: {outcome:?}"));
        world.sleep(delay.sample(&world.0.delays)).await;
        from.hears();
        from.may_pause().await;
        outcome
    }

    /// What the object has stored, past its queue: the truth, for checkers.
    pub fn storage(&self, name: &str) -> Option<O::Storage> {
        self.live.borrow().get(name).map(|live| live.storage.clone())
    }

    /// Takes the object's memory away, as an eviction or a deployment does; what it stored stays.
    pub fn restart(&self, name: &str) {
        self.with(name, |live| live.memory = O::default());
    }

    async fn turn(&self, name: &str, request: O::Request) -> Result<O::Reply, CallFailed> {
        let world = &self.world;
        let now = world.now();
        let start = self.with(name, |live| {
            if now.millis_since(live.busy_until) > IDLE_MILLIS_MAX {
                live.memory = O::default();
            }
            let start = live.busy_until.max(now);
            if start.millis_since(now) <= QUEUE_MILLIS_MAX {
                live.busy_until = start.plus_millis(SERVICE_MILLIS);
            }
            start
        });
        let wait = start.millis_since(now);
        if wait > QUEUE_MILLIS_MAX || world.strikes(Fault::ObjectOverloaded) {
            return Err(OVERLOADED);
        }
        world.sleep(wait).await;
        let restart = world.strikes(Fault::ObjectRestarts).then(|| world.chance(3));
        let moment = world.skewed(HOME, world.now());
        let reply = self.with(name, |live| match restart {
            // Before the request, or in it: nothing of it stays.
            Some(0) => {
                live.memory = O::default();
                Err(RESET)
            }
            // After it: the change is durable, the answer and the memory are gone.
            Some(1) => {
                live.memory.handle(&mut live.storage, request, moment);
                live.memory = O::default();
                Err(RESET)
            }
            // Unnoticed, between two requests.
            Some(_) => {
                live.memory = O::default();
                Ok(live.memory.handle(&mut live.storage, request, moment))
            }
            None => Ok(live.memory.handle(&mut live.storage, request, moment)),
        });
        self.plan_alarm(name);
        world.sleep(SERVICE_MILLIS).await;
        reply
    }

    /// Wakes the object when it wants to be, unless that is planned already.
    fn plan_alarm(&self, name: &str) {
        let wanted = self.with(name, |live| {
            let wanted = O::alarm_at(&live.storage);
            (wanted != live.alarm_at).then(|| live.alarm_at = wanted).and(wanted)
        });
        let Some(alarm_at) = wanted else { return };
        let (objects, name) = (self.clone(), name.to_owned());
        let wait = self.world.sleep(alarm_at.millis_since(self.world.skewed(HOME, self.world.now())));
        self.world.spawn(async move {
            wait.await;
            let moment = objects.world.skewed(HOME, objects.world.now());
            let is_due = objects
                .with(&name, |live| live.alarm_at == Some(alarm_at) && O::alarm_at(&live.storage) == Some(alarm_at));
            if is_due {
                objects.with(&name, |live| {
                    live.alarm_at = None;
                    live.memory.alarm(&mut live.storage, moment);
                });
                objects.plan_alarm(&name);
            }
        });
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Live<O>) -> T) -> T {
        work(self.live.borrow_mut().entry(name.to_owned()).or_default())
    }
}

impl<O: Object> Clone for Objects<O> {
    fn clone(&self) -> Self {
        Self { world: self.world.clone(), live: self.live.clone() }
    }
}

impl<O: Object> fmt::Debug for Objects<O> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Objects({})", self.live.borrow().len())
    }
}
