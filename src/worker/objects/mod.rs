//! Durable Objects: one place that decides, one request at a time. Each class loads, asks the pattern's pure decision,
//! and stores; no rule is here.
//!
//! Loading, deciding and storing happen in one synchronous block of SQLite calls, so no other request comes between, and
//! the runtime lets no answer out before what was stored is durable.
//! Source: <https://developers.cloudflare.com/durable-objects/best-practices/rules-of-durable-objects/>
//!
//! The calls are internal: no route reaches an object. A caller sends `Call` and gets the answer as JSON, by RPC.

// The classes are exported, so a Worker that only uses the patterns must not compile them.
#[cfg(feature = "service")]
pub mod class;
#[cfg(feature = "service")]
mod counter;
#[cfg(feature = "service")]
mod kept;
#[cfg(feature = "service")]
mod limiter;
#[cfg(feature = "service")]
mod lock;
#[cfg(feature = "service")]
mod preference;

use std::pin::pin;

use futures_util::future::{Either, select};
use js_sys::Reflect;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use worker::Env;

use crate::clock::Clock;
use crate::worker::clock::WorkerClock;
use crate::worker::glue;
use crate::worker::promise::Settled;

/// Longest time one attempt may take, in milliseconds, beside what the caller lets the object wait.
const ATTEMPT_MILLIS: u64 = 5000;

/// What an object is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call<T> {
    /// Whose object it is, and of what: an object does not know its own name after an alarm.
    pub(super) tenant: String,
    /// The counter, the policy and identifier, or the resource.
    pub(super) name: String,
    /// What is asked.
    pub(super) request: T,
}

/// Why an object gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It has more to do than it can: come back later.
    #[error("the object is overloaded")]
    Overloaded,
    /// It was reset, could not be reached, or failed. What was asked may have happened.
    #[error("the object gave no answer: {0}")]
    Lost(String),
}

/// An object of one of the classes, by name.
#[derive(Debug)]
pub struct Remote<'a> {
    env: &'a Env,
    binding: &'static str,
    object: String,
    attempt_millis: u64,
}

impl<'a> Remote<'a> {
    /// The object `object` of the class bound as `binding`.
    pub const fn new(env: &'a Env, binding: &'static str, object: String) -> Self {
        Self { env, binding, object, attempt_millis: ATTEMPT_MILLIS }
    }

    /// The same, for a question that the object may take `seconds` longer to answer.
    #[must_use]
    pub fn waiting(self, seconds: u64) -> Self {
        Self { attempt_millis: ATTEMPT_MILLIS + seconds * 1000, ..self }
    }

    /// Asks the object. When `repeatable` (asking twice does no harm), it is asked once more after a failure that the
    /// runtime calls retryable.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        (tenant, name): (&str, &str),
        request: T,
        repeatable: bool,
    ) -> std::result::Result<A, CallError> {
        let call = Call { tenant: tenant.to_owned(), name: name.to_owned(), request };
        let body = serde_json::to_string(&call).map_err(|error| CallError::Lost(error.to_string()))?;
        match self.attempt::<A>(&body).await {
            Err((CallError::Lost(_), true)) if repeatable => self.attempt(&body).await.map_err(|(error, _)| error),
            outcome => outcome.map_err(|(error, _)| error),
        }
    }

    /// One attempt within its time.
    async fn attempt<A: DeserializeOwned>(&self, body: &str) -> std::result::Result<A, (CallError, bool)> {
        match select(pin!(self.send::<A>(body)), pin!(WorkerClock.sleep(self.attempt_millis))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err((CallError::Lost("it took too long".to_owned()), false)),
        }
    }

    /// Asks, with a new stub: one that failed may stay broken. The flag says whether to try again.
    async fn send<A: DeserializeOwned>(&self, body: &str) -> std::result::Result<A, (CallError, bool)> {
        let namespace = Reflect::get(self.env, &JsValue::from_str(self.binding)).map_err(|thrown| classify(&thrown))?;
        let answer = Settled::of(&glue::ask_object(&namespace, &self.object, body)).await;
        let text = answer.map_err(|thrown| classify(&thrown))?.as_string().unwrap_or_default();
        serde_json::from_slice(text.as_bytes()).map_err(|error| (CallError::Lost(error.to_string()), false))
    }
}

/// What the runtime's error means. Source: <https://developers.cloudflare.com/durable-objects/best-practices/error-handling/>
fn classify(thrown: &JsValue) -> (CallError, bool) {
    if Reflect::get(thrown, &JsValue::from_str("overloaded")).is_ok_and(|flag| flag.is_truthy()) {
        return (CallError::Overloaded, false);
    }
    let (message, retryable) = glue::describe(thrown);
    (CallError::Lost(message), retryable)
}
