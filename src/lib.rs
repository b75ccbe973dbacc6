//! Workers KV turned into what applications need: sessions, caches, flags, counters, limits, locks and more.
//!
//! The modules, in reading order: [`clock`], [`random`] and [`background`] are what the platform gives as arguments;
//! [`json`] is strict JSON and [`patch`] changes it; [`stamp`] orders writes of many places, [`recent`] is what an isolate
//! remembers; [`kv`] is Workers KV as a contract; [`patterns`] is the product; `routes` and `worker` are
//! the HTTP service and exist only on wasm32.

pub mod background;
pub mod clock;
pub mod json;
pub mod kv;
pub mod patch;
pub mod patterns;
pub mod random;
pub mod recent;
pub mod stamp;
