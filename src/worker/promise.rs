//! Awaiting promises and timers with one JavaScript callback per instance.
//!
//! `wasm_bindgen_futures::JsFuture` makes two JavaScript closures for every await, each registered for finalisation;
//! here an await is a number. See docs/performance.md. The platform ends a request whose client has gone by never settling what
//! it waits for; such awaits, and with them the request's futures, are given up after `LIFE_MILLIS`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use js_sys::Promise;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::Closure;

use super::clock::WorkerClock;
use super::glue;
use crate::clock::{Clock, Timestamp};

/// What a promise became: its value, or what it was rejected with.
pub type Outcome = Result<JsValue, JsValue>;

/// Longer than any wait within a request, in milliseconds: that for an origin ends after five minutes.
const LIFE_MILLIS: u64 = 900_000;
/// So many awaits are given up together.
const GENERATION: u32 = 1024;

enum Await {
    New,
    Waiting(Waker),
    Over(Outcome),
}

thread_local! {
    static NEXT: Cell<u32> = const { Cell::new(0) };
    static AWAITS: RefCell<BTreeMap<u32, Await>> = const { RefCell::new(BTreeMap::new()) };
    /// The first await of each generation, and when that began.
    static GENERATIONS: RefCell<VecDeque<(u32, Timestamp)>> = const { RefCell::new(VecDeque::new()) };
    static SETTLED: glue::Settled = Closure::new(settled);
}

fn settled(id: u32, fulfilled: bool, value: JsValue) {
    let outcome = if fulfilled { Ok(value) } else { Err(value) };
    // Nobody waits any more when the future was dropped.
    let before = AWAITS
        .with_borrow_mut(|awaits| awaits.get_mut(&id).map(|waiting| std::mem::replace(waiting, Await::Over(outcome))));
    if let Some(Await::Waiting(waker)) = before {
        waker.wake();
    }
}

/// A number no live await has: they are given in turn, and one that wraps around meets none that old.
fn new_await() -> u32 {
    let id = NEXT.get();
    NEXT.set(id.wrapping_add(1));
    if id.is_multiple_of(GENERATION) {
        give_up_old(id, WorkerClock.now());
    }
    AWAITS.with_borrow_mut(|awaits| awaits.insert(id, Await::New));
    id
}

/// Drops what waits since before [`LIFE_MILLIS`].
fn give_up_old(id: u32, now: Timestamp) {
    let old = GENERATIONS.with_borrow_mut(|generations| {
        generations.push_back((id, now));
        // A generation's last await is as old as the next one's first.
        let count = generations.iter().skip(1).take_while(|(_, since)| now.millis_since(*since) > LIFE_MILLIS).count();
        generations.drain(..count).collect::<Vec<_>>()
    });
    for (first, _) in old {
        let last = first.wrapping_add(GENERATION - 1);
        // Outside of the borrow: a waker may be all that holds a future, which then takes its other awaits with it.
        let given_up: Vec<Await> = AWAITS.with_borrow_mut(|awaits| {
            let ids: Vec<u32> = awaits.range(first..=last).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| awaits.remove(id)).collect()
        });
        drop(given_up);
    }
}

/// The end of a promise, or of a timer.
#[derive(Debug)]
pub struct Settled {
    id: u32,
    timer: Option<i32>,
}

impl Settled {
    /// The end of `promise`.
    pub fn of(promise: &Promise) -> Self {
        let id = new_await();
        SETTLED.with(|settled| glue::settle(promise, id, settled));
        Self { id, timer: None }
    }

    /// The moment in `millis` milliseconds. Dropping it stops the timer.
    pub fn after(millis: u32) -> Self {
        let id = new_await();
        let timer = SETTLED.with(|settled| glue::start_timer(millis, id, settled));
        Self { id, timer: Some(timer) }
    }
}

impl Future for Settled {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        AWAITS.with_borrow_mut(|awaits| match awaits.insert(self.id, Await::Waiting(context.waker().clone())) {
            Some(Await::Over(outcome)) => Poll::Ready(outcome),
            _ => Poll::Pending,
        })
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        let last = AWAITS.with_borrow_mut(|awaits| awaits.remove(&self.id));
        if let (Some(timer), Some(Await::New | Await::Waiting(_))) = (self.timer, last) {
            glue::stop_timer(timer);
        }
    }
}
