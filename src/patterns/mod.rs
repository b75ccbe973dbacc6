//! The product: one file per pattern, pure decisions over a [`Store`](crate::kv::Store), a clock and randomness.

pub mod response_cache;
pub mod session;
