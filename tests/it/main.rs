//! All native tests, in one binary because linking many is slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

mod experiment;
mod experiment_store;
mod flag;
mod flag_store;
mod guarantees;
mod keys;
mod kv_contract;
mod resilience;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod session;
mod session_sim;
mod sim;
mod support;
mod tidy;
