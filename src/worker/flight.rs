//! Work that several requests wait for, each on a promise of its own.
//!
//! A request may do no I/O, and make no answer, in the context of another one. What is chained to a promise that this request
//! has made comes back to it, whoever resolves it, as long as the runtime can tell whose promise it is; `glue::follow` makes
//! one of which it always can. What is chained to the work's own promise comes back only until the engine has optimized the
//! code that makes such promises (`tests/recovery`; Vitest's runner switches `handle_cross_request_promise_resolution` off).

use js_sys::Promise;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

use super::background::WaitUntil;
use super::glue;
use super::promise::Settled;
use crate::background::Background;
use crate::patterns::cache::Launcher;

/// Starts work that lives as long as the background work of the invocation that starts it.
#[derive(Clone, Debug)]
pub struct PromiseLauncher(WaitUntil);

impl PromiseLauncher {
    /// A launcher for the invocation that `background` belongs to.
    pub const fn new(background: WaitUntil) -> Self {
        Self(background)
    }
}

impl Launcher for PromiseLauncher {
    type Landing = Promise;

    fn launch(&self, work: impl Future<Output = ()> + 'static) -> Promise {
        let promise = future_to_promise(async move {
            work.await;
            Ok(JsValue::UNDEFINED)
        });
        let landed = Settled::of(&promise);
        // Without this the work ends with its request, for instance when the client goes away.
        self.0.spawn(async move {
            // It never throws: see above.
            let _ = landed.await;
        });
        promise
    }

    async fn landed(&self, landing: &Promise) {
        let _ = Settled::of(&glue::follow(landing)).await;
    }
}
