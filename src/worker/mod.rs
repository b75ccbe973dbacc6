//! The platform: bindings, clock, randomness, background work, and the crossings to JavaScript. wasm32 only.
//!
//! No rule of a pattern is here; everything is an adapter for a trait of a lower layer.

pub mod background;
pub mod clock;
pub mod config;
pub mod flight;
mod glue;
pub mod http;
pub mod kv;
pub mod objects;
pub mod origin;
pub mod promise;
pub mod random;
