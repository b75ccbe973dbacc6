//! Changes of one document in one isolate, one after the other: what one of them read is still so when it writes.
//!
//! KV has no compare-and-set, so of two changes that cross in different isolates the later wins, and a condition may hold for
//! both; each pattern says so. Within an isolate nothing forces that. Limits: who works for longer than [`PATIENCE_MILLIS`]
//! loses its turn, and who has waited for [`WAIT_MILLIS_MAX`] is told 503.

use super::App;
use super::problem::Problem;
use crate::patterns::cache::{Flights, Lead, Seat};
use crate::worker::flight::PromiseLauncher;

/// How long one change may keep the others waiting, in milliseconds.
const PATIENCE_MILLIS: u64 = 5_000;
/// How long a change waits at most, in milliseconds.
const WAIT_MILLIS_MAX: u64 = 15_000;

thread_local! {
    static TURNS: Flights<(), PromiseLauncher> = Flights::default();
}

/// The right to change something; dropping it lets the next one.
pub(super) type Turn = Lead<()>;

/// Waits for the turn to change what the caller's tenant has at `place`, ids that hold no control characters.
///
/// # Errors
///
/// 401 on an open route; 503 after [`WAIT_MILLIS_MAX`].
pub(super) async fn take(app: &App, place: &[&str]) -> Result<Turn, Problem> {
    let key = format!("{}\n{}", app.caller()?.tenant.id(), place.join("\n"));
    let launcher = PromiseLauncher::new(app.background.clone());
    let give_up_at = app.now().plus_millis(WAIT_MILLIS_MAX);
    loop {
        let now = app.now();
        match TURNS.with(|turns| turns.board(&key, now, PATIENCE_MILLIS, &launcher, ())) {
            Seat::Lead(turn) => return Ok(turn),
            Seat::Follow(_) if now >= give_up_at => return Err(Problem::unavailable(1)),
            Seat::Follow(ticket) => {
                ticket.wait(&app.clock, PATIENCE_MILLIS).await;
            }
        }
    }
}
