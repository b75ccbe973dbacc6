//! A deterministic, hostile Workers KV: virtual time, one seed, and the misfortunes the platform allows.
//!
//! Local KV is one strongly consistent store that never throttles, so tests on it say nothing about production. This
//! is the wind tunnel: any pattern runs on it unchanged, because it implements [`Store`](crate::kv::Store),
//! [`Clock`](crate::clock::Clock), [`Random`](crate::random::Random) and [`Background`](crate::background::Background).
//! Nothing in here knows a pattern.
//!
//! # Use
//!
//! ```
//! use kv_patterns::kv::{Read, Store, Tenant, Write};
//! use kv_patterns::sim::{Edge, Profile, Setup, World};
//!
//! let world = World::new(Setup::swarm(7, Profile::DOCUMENTED));
//! // A Worker at every location; the closure makes the memory of each isolate (here only a store).
//! let edges = Edge::everywhere(&world, |isolate| isolate.store("SESSIONS"));
//! let key = Tenant::new("acme").unwrap().space("demo").key(&["x"]);
//! let (edge, name) = (edges[0].clone(), key.clone());
//! let write = world.spawn(async move {
//!     edge.request(async move |store| store.put(&name, b"1", Write::default()).await).await
//! });
//! world.run().unwrap();
//! # drop((write, key));
//! ```
//!
//! A client is a task of the world ([`World::spawn`]) that sends requests through an [`Edge`], waits in true time
//! ([`World::sleep`]) and notes what it did and saw in a [`History`], which the checkers of [`check`] judge afterwards.
//! [`Plan`] generates such clients from a seed and [`shrink`](shrink()) makes a failing plan small.
//! An [`Objects`] host runs Durable Objects in the same world.
//!
//! # What is modelled
//!
//! - **One central store per namespace**, in which the last write to arrive wins.
//! - **Propagation.** Each write draws, per location, when it can be fetched there ([`Profile::propagation`]); the
//!   writing location usually sees it at once, and so does everybody when the key is new and nobody has looked for it
//!   ([`Profile::new_keys_are_seen_at_once`]). KV publishes no distribution, hence three profiles.
//! - **Read caches per location, hits and misses alike.** What was fetched is kept for the `cacheTtl` of the read that
//!   fetched it; a later read with a shorter one does not shorten that. A location's own visible write drops its copy.
//!   So a change can stay unseen for propagation plus `cacheTtl`: [`Profile::stale_millis_max`].
//! - **Lists** lag behind reads, and pages can be cut short or empty while more follow.
//! - **One write a second per key**, refused with the runtime's text, which goes through
//!   [`Error::classify`](crate::kv::Error::classify) like every other error here. Whether deletes count is not
//!   documented, so it is a parameter.
//! - **Limits and expiry**: keys, values, metadata, bulk sizes, at least 60 seconds to live, bulk reads that decode
//!   text; expired values can be served for up to a minute more.
//! - **Failures** of each kind in [`Fault`]: before the effect, after it, long after it (a write that was given up and
//!   lands over a newer one), never an answer, a slow one.
//! - **Isolates** that die in a request and lose memory and background work; a clock that stands still between I/O,
//!   may be off from location to location, and does not notice that its isolate was suspended.
//! - **Durable Objects**: one request at a time each, durable storage, memory that goes, restarts before, in and after
//!   a request, overload, alarms.
//!
//! # What is not modelled, and why
//!
//! - **Several caches inside one location, regional tiers, refresh of hot keys**: each would only make a copy
//!   disappear earlier or keep it within the same bound; early disappearance is [`Fault::CacheEvicted`].
//! - **The race between KV's two backends**: seen from a Worker it is a read that steps back
//!   ([`Fault::StepsBack`]), within the propagation time.
//! - **Quotas per day and 1,000 operations per request**: patterns bound their operations, which [`Meter`](crate::kv::Meter)
//!   asserts; [`Resilient`](crate::kv::Resilient)'s handling of quotas has its own tests.
//! - **Corrupted bytes**: KV checks its own; what foreign code writes is a matter of [`codec`](crate::kv::codec).
//! - **Bandwidth and CPU**: an operation's time does not depend on its size; benchmarks measure that.
//! - **Correlated outages** of a whole location: each operation meets its faults on its own.
//!
//! # Determinism
//!
//! One thread, ordered maps only, one stream of random numbers per subsystem: the same [`Setup`] and the same tasks give
//! the same [`World::fingerprint`], and a test runs everything twice.

pub mod check;
mod executor;
mod faults;
mod history;
mod isolate;
pub mod linear;
mod namespace;
mod objects;
mod shrink;
mod store;
mod workload;
mod world;

pub use executor::{Died, Executor, Group, Handle, Sleep, Stuck};
pub use faults::{Delay, Fault, Faults, Profile, Setup, stream};
pub use history::{Event, History, What};
pub use isolate::{Edge, Isolate, SimBackground, SimClock, SimRandom};
pub use objects::{CallFailed, Object, Objects};
pub use shrink::shrink;
pub use store::SimStore;
pub use workload::{Client, Plan, Shape, Step, hot_or_cold};
pub use world::{START, World};
