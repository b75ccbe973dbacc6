//! The platform's randomness: the runtime's `crypto.getRandomValues`.

use crate::random::Random;

/// A cryptographic generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerRandom;

impl Random for WorkerRandom {
    /// The runtime's generator does not fail inside a handler, the only place this is called from; if it ever does,
    /// going on with predictable bytes would be worse than ending the request.
    #[allow(clippy::disallowed_methods, clippy::expect_used, reason = "the one file that draws randomness; see above")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the runtime has randomness inside a handler");
    }
}
