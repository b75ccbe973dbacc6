//! Workers KV turned into what applications need: sessions, caches, flags, counters, limits, locks and more.
//!
//! The modules, in reading order: [`clock`], [`random`] and [`background`] are what the platform gives as arguments;
//! [`json`] is strict JSON; [`kv`] is Workers KV as a contract; [`patterns`] is the product; [`sim`] is a hostile KV to
//! test it on. `worker` adapts the platform and `routes` is the HTTP service; both exist on wasm32 only. The feature
//! `service`, on by default, exports the service's entry points; a Worker of your own that uses the patterns turns it off.

pub mod background;
pub mod clock;
pub mod json;
pub mod kv;
pub mod patterns;
pub mod random;
#[cfg(target_arch = "wasm32")]
pub mod routes;
pub mod sim;
#[cfg(target_arch = "wasm32")]
pub mod worker;

/// Answers every HTTP request.
#[cfg(all(target_arch = "wasm32", feature = "service"))]
#[::worker::event(fetch)]
async fn fetch(
    request: ::worker::Request,
    env: ::worker::Env,
    context: ::worker::Context,
) -> ::worker::Result<web_sys::Response> {
    routes::handle(request, env, context).await
}

/// Makes a panic say what it was before it ends the instance.
#[cfg(all(target_arch = "wasm32", feature = "service"))]
#[::worker::event(start)]
fn start() {
    console_error_panic_hook::set_once();
}
