//! Workers KV turned into what applications need: sessions, caches, flags, counters, limits, locks and more.
//!
//! The modules, in reading order: [`clock`], [`random`] and [`background`] are what the platform gives as arguments;
//! [`json`] is strict JSON; [`kv`] is Workers KV as a contract; [`patterns`] is the product. `worker` adapts the
//! platform and `routes` is the HTTP service; both exist on wasm32 only.

pub mod background;
pub mod clock;
pub mod json;
pub mod kv;
pub mod patterns;
pub mod random;
#[cfg(target_arch = "wasm32")]
pub mod routes;
#[cfg(target_arch = "wasm32")]
pub mod worker;

/// Answers every HTTP request: with a `Response` where nothing had to be waited for, otherwise with a promise of one.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn fetch(
    request: web_sys::Request,
    env: ::worker::Env,
    context: ::worker::worker_sys::Context,
) -> wasm_bindgen::JsValue {
    worker::http::at_once(routes::handle(request.into(), env, ::worker::Context::new(context)))
}
