//! The response cache from outside: a scripted origin, one cache, a clock moved by hand, and one test per rule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that goes wrong should fail loudly"
)]

mod conditional;
mod core_types;
mod early_refresh;
mod flights;
mod freshness;
mod gateway;
mod isolation;
mod ranges;
mod stale;
mod storing;
mod updates;
mod vary;
mod world;
