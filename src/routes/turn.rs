//! Changes of one document in one isolate, one after the other: what one of them read is still so when it writes.
//!
//! KV has no compare-and-set, so of two changes that cross in different isolates the later wins, and a condition may hold for
//! both; each pattern says so. Within an isolate nothing forces that. Limits: who works for longer than [`PATIENCE_MILLIS`]
//! loses its turn, who has waited for [`WAIT_MILLIS_MAX`] is told 503, and those who wait are served in no order: each looks
//! again on its own timer, and so depends on no other request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::App;
use super::problem::Problem;
use crate::clock::{Clock, Timestamp};

/// How long one change may keep the others waiting, in milliseconds.
const PATIENCE_MILLIS: u64 = 5_000;
/// How long a change waits at most, in milliseconds.
const WAIT_MILLIS_MAX: u64 = 15_000;
/// How often one that waits looks again, in milliseconds.
const LOOK_MILLIS: u64 = 5;
/// From how many turns on those are swept out whose request the platform ended without a trace.
const SWEPT_FROM: usize = 256;

thread_local! {
    /// Who has the turn at each place, and since when.
    static TURNS: RefCell<BTreeMap<String, (u64, Timestamp)>> = const { RefCell::new(BTreeMap::new()) };
    static SERIAL: Cell<u64> = const { Cell::new(0) };
}

/// The right to change something; dropping it lets the next one.
#[derive(Debug)]
pub(super) struct Turn {
    key: String,
    serial: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURNS.with_borrow_mut(|turns| {
            // Whoever has replaced a change that took too long keeps its own turn.
            if turns.get(&self.key).is_some_and(|(serial, _)| *serial == self.serial) {
                turns.remove(&self.key);
            }
        });
    }
}

/// The turn at `key`, unless somebody has it and has not had it for too long.
fn try_take(key: &str, now: Timestamp) -> Option<Turn> {
    TURNS.with_borrow_mut(|turns| {
        if turns.get(key).is_some_and(|(_, since)| now.millis_since(*since) < PATIENCE_MILLIS) {
            return None;
        }
        if turns.len() >= SWEPT_FROM {
            turns.retain(|_, (_, since)| now.millis_since(*since) < PATIENCE_MILLIS);
        }
        let serial = SERIAL.get().wrapping_add(1);
        SERIAL.set(serial);
        turns.insert(key.to_owned(), (serial, now));
        Some(Turn { key: key.to_owned(), serial })
    })
}

/// Waits for the turn to change what the caller's tenant has at `place`, ids that hold no control characters.
///
/// # Errors
///
/// 401 on an open route; 503 after [`WAIT_MILLIS_MAX`].
pub(super) async fn take(app: &App, place: &[&str]) -> Result<Turn, Problem> {
    let key = format!("{}\n{}", app.caller()?.tenant.id(), place.join("\n"));
    let give_up_at = app.now().plus_millis(WAIT_MILLIS_MAX);
    loop {
        let now = app.now();
        match try_take(&key, now) {
            Some(turn) => return Ok(turn),
            None if now >= give_up_at => return Err(Problem::unavailable(1)),
            None => app.clock.sleep(LOOK_MILLIS).await,
        }
    }
}
