//! Workers KV turned into what applications need: sessions, caches, flags, counters, limits, locks and more.
//!
//! The modules, in reading order: [`clock`], [`random`] and [`background`] are what the platform gives as arguments;
//! [`json`] is strict JSON, [`patch`] changes it, [`etag`] names what it is; [`stamp`] orders the writes of many places, and
//! [`recent`] is what an isolate remembers; [`kv`] is Workers KV as a contract; [`patterns`] is the product; [`sim`] is a
//! hostile KV to test it on. `worker` adapts the platform and `routes` is the HTTP service; both exist on wasm32 only. The feature
//! `service`, on by default, exports the service's entry points; a Worker of your own that uses the patterns turns it off.

pub mod background;
pub mod clock;
pub mod etag;
pub mod json;
pub mod kv;
pub mod patch;
pub mod patterns;
pub mod random;
pub mod recent;
#[cfg(target_arch = "wasm32")]
pub mod routes;
pub mod sim;
pub mod stamp;
#[cfg(target_arch = "wasm32")]
pub mod worker;

/// Answers every HTTP request, given as `seen` in `entry.js` shows it: with a `Response` where nothing had to be waited for,
/// otherwise with a promise of one.
#[cfg(all(target_arch = "wasm32", feature = "service"))]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn fetch(
    request: web_sys::Request,
    env: ::worker::Env,
    context: ::worker::worker_sys::Context,
) -> wasm_bindgen::JsValue {
    worker::http::at_once(routes::handle(request.into(), env, ::worker::Context::new(context)))
}

/// Does what the cron trigger of `wrangler.toml` asks for.
#[cfg(all(target_arch = "wasm32", feature = "service"))]
#[::worker::event(scheduled)]
async fn scheduled(_: ::worker::ScheduledEvent, env: ::worker::Env, _: ::worker::ScheduleContext) {
    routes::chores::run(&env).await;
}

/// Makes a panic say what it was before it ends the instance. The platform crate's own hook stays in line behind it: that
/// one marks the instance as not to be used again.
#[cfg(all(target_arch = "wasm32", feature = "service"))]
#[::worker::event(start)]
fn start() {
    let platform = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        console_error_panic_hook::hook(panic);
        platform(panic);
    }));
}
