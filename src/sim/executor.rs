//! A discrete-event executor on one thread: tasks, groups of tasks that die together, and virtual time.
//!
//! Time moves only when no task can run, and then straight to the next timer, so a simulated hour costs what happens
//! in it. Tasks run in the order in which they were woken, timers in the order of their moment and then of their
//! making, and nothing here depends on an address, a hash seed or a real clock: one program, one history.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::Timestamp;

/// Polls after which a run counts as stuck in a loop that never lets time pass.
const POLLS_MAX: u64 = 200_000_000;

/// The task that [`Executor::block_on`] runs.
const ROOT: u64 = 0;

/// Tasks that can be killed together, such as those of one isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(u64);

impl Group {
    /// The group of the world itself and of its clients; it is never killed.
    pub const WORLD: Self = Self(0);
}

/// Why a future did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// The task was killed before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died;

/// Runs tasks in virtual time. Clones share everything.
#[derive(Clone)]
pub struct Executor(Rc<Shared>);

struct Shared {
    now: Cell<Timestamp>,
    serial: Cell<u64>,
    polls: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    timers: RefCell<BTreeMap<(Timestamp, u64), Waker>>,
    dead: RefCell<BTreeSet<Group>>,
    woken: Arc<Woken>,
}

struct Task {
    group: Group,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// The tasks to run next. A lock because wakers must be `Sync`; nothing ever waits for it.
#[derive(Default)]
struct Woken(Mutex<VecDeque<u64>>);

impl Woken {
    fn push(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    fn pop(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct Alarm {
    task: u64,
    woken: Arc<Woken>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.push(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.push(self.task);
    }
}

impl Executor {
    /// An executor whose time stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Rc::new(Shared {
            now: Cell::new(now),
            serial: Cell::new(ROOT),
            polls: Cell::new(0),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            dead: RefCell::default(),
            woken: Arc::default(),
        }))
    }

    /// The true time of the simulation.
    pub fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    /// Moves time on without running anything; timers that fall due fire late. For tests that are a task themselves.
    pub fn skip_seconds(&self, seconds: u64) {
        self.0.now.set(self.now().plus_seconds(seconds));
    }

    /// A group of its own.
    pub fn group(&self) -> Group {
        Group(self.serial())
    }

    /// Waits for `millis` milliseconds of virtual time.
    pub fn sleep(&self, millis: u64) -> Sleep {
        Sleep { executor: self.clone(), deadline: self.now().plus_millis(millis), timer: None }
    }

    /// Runs `future` as a task of `group`. Dropping the handle lets it run on.
    pub fn spawn<F: Future + 'static>(&self, group: Group, future: F) -> Handle<F::Output> {
        let slot = Rc::new(RefCell::new(Slot { output: None, closed: false, waiting: None }));
        let done = Done(slot.clone());
        if !self.0.dead.borrow().contains(&group) {
            let id = self.serial();
            let waker = self.waker(id);
            let future = Box::pin(async move {
                let output = future.await;
                done.0.borrow_mut().output = Some(output);
            });
            self.0.tasks.borrow_mut().insert(id, Task { group, waker, future });
            self.0.woken.push(id);
        }
        Handle(slot)
    }

    /// Ends every task of `group`, at once and wherever it stands; what it held in memory is gone.
    pub fn kill(&self, group: Group) {
        if group == Group::WORLD || !self.0.dead.borrow_mut().insert(group) {
            return;
        }
        let mut tasks = self.0.tasks.borrow_mut();
        let ids: Vec<u64> = tasks.iter().filter(|(_, task)| task.group == group).map(|(id, _)| *id).collect();
        let killed: Vec<Task> = ids.iter().filter_map(|id| tasks.remove(id)).collect();
        // Futures may touch the executor while they are dropped, so the borrow ends before.
        drop(tasks);
        drop(killed);
    }

    /// Runs until nothing is left to happen: every task is done, or waits for what never comes.
    ///
    /// # Errors
    ///
    /// Tasks kept waking each other without letting time pass.
    pub fn run(&self) -> Result<(), Stuck> {
        loop {
            self.poll_woken()?;
            if !self.advance() {
                return Ok(());
            }
        }
    }

    /// Runs everything until `future` is done.
    ///
    /// # Errors
    ///
    /// The future waits for what never comes, or tasks kept waking each other without letting time pass.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        let mut future = pin!(future);
        let waker = self.waker(ROOT);
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            // Every round lets all tasks run; the root is polled again when it was woken or time has moved.
            if !self.poll_woken()? && !self.advance() {
                return Err(Stuck);
            }
        }
    }

    /// Polls what was woken, until nothing is; tells whether the root was among it.
    fn poll_woken(&self) -> Result<bool, Stuck> {
        let mut root = false;
        while let Some(id) = self.0.woken.pop() {
            if id == ROOT {
                root = true;
                continue;
            }
            self.0.polls.set(self.0.polls.get() + 1);
            if self.0.polls.get() > POLLS_MAX {
                return Err(Stuck);
            }
            let Some(mut task) = self.0.tasks.borrow_mut().remove(&id) else { continue };
            let waker = task.waker.clone();
            let pending = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            if pending && !self.0.dead.borrow().contains(&task.group) {
                self.0.tasks.borrow_mut().insert(id, task);
            }
        }
        Ok(root)
    }

    /// Moves time to the next timer; false when there is none.
    fn advance(&self) -> bool {
        let Some(((moment, _), waker)) = self.0.timers.borrow_mut().pop_first() else { return false };
        self.0.now.set(self.now().max(moment));
        waker.wake();
        true
    }

    fn serial(&self) -> u64 {
        self.0.serial.set(self.0.serial.get() + 1);
        self.0.serial.get()
    }

    fn waker(&self, task: u64) -> Waker {
        Waker::from(Arc::new(Alarm { task, woken: self.0.woken.clone() }))
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = self.0.tasks.try_borrow().map_or(0, |tasks| tasks.len());
        write!(formatter, "Executor({}, {tasks} tasks)", self.now().millis())
    }
}

/// A wait in virtual time. Dropped early, it leaves no timer behind.
#[derive(Debug)]
pub struct Sleep {
    executor: Executor,
    deadline: Timestamp,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.deadline {
            return Poll::Ready(());
        }
        let serial = self.timer.unwrap_or_else(|| self.executor.serial());
        self.timer = Some(serial);
        let shared = self.executor.0.clone();
        shared.timers.borrow_mut().insert((self.deadline, serial), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(serial) = self.timer {
            self.executor.0.timers.borrow_mut().remove(&(self.deadline, serial));
        }
    }
}

struct Slot<T> {
    output: Option<T>,
    closed: bool,
    waiting: Option<Waker>,
}

/// Tells the waiting handle, when a task is done and also when it is dropped before.
struct Done<T>(Rc<RefCell<Slot<T>>>);

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        let mut slot = self.0.borrow_mut();
        slot.closed = true;
        if let Some(waker) = slot.waiting.take() {
            waker.wake();
        }
    }
}

/// The result of a task, to be awaited.
pub struct Handle<T>(Rc<RefCell<Slot<T>>>);

impl<T> Future for Handle<T> {
    type Output = Result<T, Died>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.borrow_mut();
        match slot.output.take() {
            Some(output) => Poll::Ready(Ok(output)),
            None if slot.closed => Poll::Ready(Err(Died)),
            None => {
                slot.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Handle")
    }
}
