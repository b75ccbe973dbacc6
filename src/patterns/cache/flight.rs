//! Single flight: of many callers who want the same thing at once, one does the work and all get the outcome.
//!
//! - **Nobody depends on the one who works.** The work goes on when its caller goes away, and each follower waits on its
//!   own timer: when the work does not land in time, because its leader is slow, dead or panicked, the follower stops
//!   waiting, and a flight older than its patience is replaced, so that the next one works anew.
//! - It knows only this isolate.
//! - Work that only its own request may do, such as sending a stream, is led with a [`Lead`]: the flight lasts as long.
//!
//! On Workers a future of one request cannot be awaited by another, but a JavaScript promise can (measured on workerd:
//! shared futures and channels across requests fail with "code had hung" or "Cannot perform I/O on behalf of a different
//! request"; the compatibility flag is `handle_cross_request_promise_resolution`). So how work is started and awaited is an
//! argument, [`Launcher`]: `worker::flight` does it with promises, [`SharedLauncher`] with futures for tests and the
//! simulator.
//!
//! Reusable for any work whose outcome can be cloned.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};

use crate::background::Background;
use crate::clock::{Clock, Timestamp};

/// From how many flights on those are swept out whose leader is gone without a trace, as when the platform ended its request.
const SWEPT_FROM: usize = 256;

/// Starts work that several requests can wait for, and that outlives the request that started it.
#[allow(async_fn_in_trait, reason = "isolates have one thread, so futures need not be Send")]
pub trait Launcher: Clone + 'static {
    /// A handle on started work that any request may wait on.
    type Landing: Clone + 'static;

    /// Starts `work`. It goes on although nobody waits, as long as background work may.
    fn launch(&self, work: impl Future<Output = ()> + 'static) -> Self::Landing;

    /// Waits until the work is done. It may never return: when the work's isolate is gone, or its code panicked.
    async fn landed(&self, landing: &Self::Landing);
}

/// [`Launcher`] for one thread without requests, such as tests: a future that everybody who waits for it drives.
#[derive(Clone, Debug)]
pub struct SharedLauncher<B>(pub B);

impl<B: Background + Clone + 'static> Launcher for SharedLauncher<B> {
    type Landing = Shared<Pin<Box<dyn Future<Output = ()>>>>;

    fn launch(&self, work: impl Future<Output = ()> + 'static) -> Self::Landing {
        let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
        let shared = work.shared();
        self.0.spawn(shared.clone());
        shared
    }

    async fn landed(&self, landing: &Self::Landing) {
        landing.clone().await;
    }
}

/// The flights of one isolate. Clones share them.
pub struct Flights<T, L: Launcher>(Rc<Inner<T, L::Landing>>);

struct Inner<T, Landing> {
    open: RefCell<BTreeMap<String, Flight<T, Landing>>>,
    serial: Cell<u64>,
}

struct Flight<T, Landing> {
    id: u64,
    since: Timestamp,
    outcome: Rc<RefCell<Option<T>>>,
    progress: Progress,
    landing: Landing,
}

/// Whether the work has got so far that it will end well, if slowly.
type Progress = Rc<Cell<bool>>;

impl<T, L: Launcher> Clone for Flights<T, L> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T, L: Launcher> Default for Flights<T, L> {
    fn default() -> Self {
        Self(Rc::new(Inner { open: RefCell::default(), serial: Cell::new(0) }))
    }
}

impl<T, L: Launcher> fmt::Debug for Flights<T, L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Flights({} open)", self.0.open.borrow().len())
    }
}

/// A place on a flight.
pub struct Ticket<T, L: Launcher> {
    outcome: Rc<RefCell<Option<T>>>,
    progress: Progress,
    landing: L::Landing,
    launcher: L,
    /// Whether this caller started the work.
    pub leads: bool,
}

impl<T, L: Launcher> fmt::Debug for Ticket<T, L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ticket(leads: {})", self.leads)
    }
}

impl<T: Clone + 'static, L: Launcher> Flights<T, L> {
    /// Whether somebody works for `key`, and not for longer than `patience_millis`.
    pub fn is_open(&self, key: &str, now: Timestamp, patience_millis: u64) -> bool {
        self.0.open.borrow().get(key).is_some_and(|flight| now.millis_since(flight.since) < patience_millis)
    }

    /// A place on the flight for `key`; when there is none, or only one that is older than `patience_millis`, `work` is
    /// started.
    pub fn join<W: Future<Output = T> + 'static>(
        &self,
        key: &str,
        now: Timestamp,
        patience_millis: u64,
        launcher: &L,
        work: impl FnOnce() -> W,
    ) -> Ticket<T, L> {
        if self.is_open(key, now, patience_millis)
            && let Some(flight) = self.0.open.borrow().get(key)
        {
            let (outcome, progress) = (Rc::clone(&flight.outcome), Rc::clone(&flight.progress));
            let landing = flight.landing.clone();
            return Ticket { outcome, progress, landing, launcher: launcher.clone(), leads: false };
        }
        let id = self.0.serial.get() + 1;
        self.0.serial.set(id);
        let (outcome, progress) = (Rc::new(RefCell::new(None)), Progress::default());
        let (flights, slot, name) = (self.clone(), Rc::clone(&outcome), key.to_owned());
        let work = work();
        let landing = launcher.launch(async move {
            let landed = work.await;
            slot.replace(Some(landed));
            flights.close(&name, id);
        });
        // Work that was done at once is over already.
        if outcome.borrow().is_none() {
            let mut open = self.0.open.borrow_mut();
            if open.len() >= SWEPT_FROM {
                open.retain(|_, flight| now.millis_since(flight.since) < patience_millis);
            }
            let (outcome, progress) = (Rc::clone(&outcome), Rc::clone(&progress));
            let flight = Flight { id, since: now, outcome, progress, landing: landing.clone() };
            open.insert(key.to_owned(), flight);
        }
        Ticket { outcome, progress, landing, launcher: launcher.clone(), leads: true }
    }

    /// The same for work that the caller does itself: the flight for `key` to follow, or the right to lead a new one,
    /// which lands with `outcome` unless its [`Lead`] says something else.
    pub fn board(&self, key: &str, now: Timestamp, patience_millis: u64, launcher: &L, outcome: T) -> Seat<T, L> {
        let (sender, receiver) = oneshot::channel();
        let unsaid = outcome.clone();
        let work = || async move { receiver.await.unwrap_or(unsaid) };
        let ticket = self.join(key, now, patience_millis, launcher, work);
        if !ticket.leads {
            return Seat::Follow(ticket);
        }
        let (flights, key, id) = (self.clone(), key.to_owned(), self.0.serial.get());
        let close: Box<dyn FnOnce()> = Box::new(move || flights.close(&key, id));
        Seat::Lead(Lead { landing: Some((sender, outcome)), progress: ticket.progress, close: Some(close) })
    }

    /// The flight is over; a later one under the same key stays.
    fn close(&self, key: &str, id: u64) {
        let mut open = self.0.open.borrow_mut();
        if open.get(key).is_some_and(|flight| flight.id == id) {
            open.remove(key);
        }
    }
}

/// What somebody gets who works himself when nobody else does.
#[derive(Debug)]
pub enum Seat<T, L: Launcher> {
    /// Nobody works for this key: the caller does.
    Lead(Lead<T>),
    /// Somebody does.
    Follow(Ticket<T, L>),
}

/// The right to work for one key. Dropping it lands the flight.
pub struct Lead<T> {
    landing: Option<(oneshot::Sender<T>, T)>,
    progress: Progress,
    close: Option<Box<dyn FnOnce()>>,
}

impl<T: fmt::Debug> fmt::Debug for Lead<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lead({:?})", self.landing.as_ref().map(|(_, outcome)| outcome))
    }
}

impl<T> Lead<T> {
    /// The flight lands with `outcome`, whenever it does.
    pub fn will_land_with(&mut self, outcome: T) {
        if let Some((_, planned)) = &mut self.landing {
            *planned = outcome;
        }
    }

    /// Tells those who follow that the work will end well, if slowly.
    pub fn makes_progress(&self) {
        self.progress.set(true);
    }
}

impl<T> Drop for Lead<T> {
    fn drop(&mut self) {
        // At once, so that nobody boards what is over, whenever those who follow wake up.
        if let Some(close) = self.close.take() {
            close();
        }
        if let Some((sender, outcome)) = self.landing.take() {
            // An error means that nobody can be told any more.
            drop(sender.send(outcome));
        }
    }
}

impl<T: Clone, L: Launcher> Ticket<T, L> {
    /// Whether the work was seen to make progress.
    pub fn saw_progress(&self) -> bool {
        self.progress.get()
    }

    /// The outcome; nothing when it is not there within `millis`.
    pub async fn wait(&self, clock: &impl Clock, millis: u64) -> Option<T> {
        let landed = self.launcher.landed(&self.landing);
        if let Either::Right(_) = select(pin!(landed), pin!(clock.sleep(millis))).await {
            // Both may have happened at once.
            return self.outcome.borrow().clone();
        }
        self.outcome.borrow().clone()
    }
}
