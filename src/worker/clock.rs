//! The platform's clock. It stands still between I/O operations.

use super::promise::Settled;
use crate::clock::{Clock, Timestamp};

/// `Date.now()` and `setTimeout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerClock;

impl Clock for WorkerClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one file that reads the platform's clock")]
    fn now(&self) -> Timestamp {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole milliseconds since 1970")]
        Timestamp::from_millis(js_sys::Date::now() as u64)
    }

    async fn sleep(&self, millis: u64) {
        // A timer of more than 2^31 ms would ring at once.
        let millis = u32::try_from(millis).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
        // A timer has no outcome but its end.
        let _ = Settled::after(millis).await;
    }
}
