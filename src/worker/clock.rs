//! The platform's clock. It stands still between I/O operations.

use crate::clock::{Clock, Timestamp};

/// `Date.now()` and `setTimeout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerClock;

impl Clock for WorkerClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one file that reads the platform's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(worker::Date::now().as_millis())
    }

    async fn sleep(&self, millis: u64) {
        worker::Delay::from(std::time::Duration::from_millis(millis)).await;
    }
}
