//! What several tests need: a runtime without threads, and the usual fakes.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use kv_patterns::clock::{ManualClock, Timestamp};
use kv_patterns::kv::{MemoryStore, Tenant};
use kv_patterns::random::{Random, SeededRandom};

/// 2026-01-01 00:00:00 UTC.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Runs a future that never waits for anything outside this thread.
#[track_caller]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future waits for something that never comes");
}

/// A clock at [`START`] and an empty store on it.
pub(crate) fn store() -> (ManualClock, MemoryStore<ManualClock>) {
    let clock = ManualClock::at(START);
    (clock.clone(), MemoryStore::new(clock))
}

/// Seeded randomness whose clones draw from one stream, as the platform's do.
#[derive(Clone, Debug)]
pub(crate) struct SharedRandom(Rc<SeededRandom>);

impl SharedRandom {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(SeededRandom::new(seed)))
    }
}

impl Random for SharedRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// The tenant `name`.
pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a valid tenant id")
}

/// Stored bytes as text, with the only stamp in them left out: it holds a random writer's id.
pub(crate) fn without_stamp(stored: &[u8]) -> String {
    let text = String::from_utf8_lossy(stored);
    let (before, rest) = text.split_once("\"stamp\":\"").expect("a stamp");
    let (_, after) = rest.split_once('"').expect("the end of the stamp");
    format!("{before}\"stamp\":\"\"{after}")
}
