//! The product: a file or a folder for each pattern, pure decisions and thin I/O over a [`Store`](crate::kv::Store), a clock
//! and randomness.

pub mod cache;
pub mod counter;
pub mod document;
pub mod experiment;
pub mod flag;
pub mod hierarchy;
pub mod lock;
pub mod preference;
pub mod profile;
pub mod rate_limit;
pub mod replica;
pub mod response_cache;
pub mod session;
pub mod setting;
