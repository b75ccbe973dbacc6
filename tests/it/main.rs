//! All native tests, in one binary because linking many is slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

mod counter;
mod exact_and_approximate_sim;
mod guarantees;
mod keys;
mod kv_contract;
mod lock;
mod rate_limit;
mod resilience;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod session;
mod session_sim;
mod sim;
mod support;
mod tidy;
