//! All native tests, in one binary because linking many is slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

mod cache;
mod cache_sim;
mod counter;
mod document;
mod exact_and_approximate_sim;
mod experiment;
mod experiment_sim;
mod experiment_store;
mod faulty;
mod flag;
mod flag_sim;
mod flag_store;
mod guarantees;
mod hierarchy;
mod keys;
mod kv_contract;
mod lock;
mod patch;
mod preference;
mod preference_strong;
mod preference_strong_sim;
mod profile;
mod rate_limit;
mod rate_limit_several;
mod register_sim;
mod replica;
mod resilience;
mod response_cache;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod session;
mod session_sim;
mod setting;
mod sim;
mod support;
mod tidy;
