//! Work that several requests wait for, each on a promise of its own.
//!
//! What is chained to a promise runs in the context of the request that made the promise, and a request may do no I/O in
//! another one's context. So nobody awaits the promise of the work itself but who started it: whoever else waits makes a
//! promise, which the end of the work resolves. The platform carries that over to the request that made it
//! (`handle_cross_request_promise_resolution`; tests/recovery and bench/soak.mjs run with it, Vitest's runner without).

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Function, Promise};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

use super::background::WaitUntil;
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

/// Those who wait for work; nothing once it is done.
#[derive(Clone, Debug)]
pub struct Landing(Rc<RefCell<Option<Vec<Function>>>>);

impl Landing {
    fn land(&self) {
        for resolve in self.0.take().into_iter().flatten() {
            // It never throws: it is a promise's own.
            let _ = resolve.call0(&JsValue::UNDEFINED);
        }
    }
}

impl Launcher for PromiseLauncher {
    type Landing = Landing;

    fn launch(&self, work: impl Future<Output = ()> + 'static) -> Landing {
        let landing = Landing(Rc::new(RefCell::new(Some(Vec::new()))));
        let waited_for = landing.clone();
        let promise = future_to_promise(async move {
            work.await;
            waited_for.land();
            Ok(JsValue::UNDEFINED)
        });
        let landed = Settled::of(&promise);
        // Without this the work ends with its request, for instance when the client goes away.
        self.0.spawn(async move {
            // It never throws: see above.
            let _ = landed.await;
        });
        landing
    }

    async fn landed(&self, landing: &Landing) {
        let own = Promise::new(&mut |resolve, _| {
            if let Some(waiting) = landing.0.borrow_mut().as_mut() {
                waiting.push(resolve);
            } else {
                let _ = resolve.call0(&JsValue::UNDEFINED);
            }
        });
        let _ = Settled::of(&own).await;
    }
}
