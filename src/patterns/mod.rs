//! The product: one file per pattern, pure decisions over a [`Store`](crate::kv::Store), a clock and randomness.

pub mod counter;
pub mod lock;
pub mod rate_limit;
pub mod session;
