//! The classes as JavaScript sees them: `entry.js` makes one for each, asks it with one text and gets one, at once where
//! nothing had to be waited for. What the platform crate's macro exports instead takes a request and answers a response.

use std::rc::Rc;

use futures_util::TryFutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use worker::worker_sys::DurableObjectState;
use worker::{Env, Result, State};

use super::Call;
use crate::worker::http::at_once;

/// What a class does.
pub(super) trait Object: Sized + 'static {
    /// What it is asked.
    type Request: DeserializeOwned;
    /// What it answers.
    type Answer: Serialize;

    /// One object, made when it is first called and again whenever the platform moved it.
    fn new(state: State, env: Env) -> Self;

    /// Answers a call.
    async fn ask(&self, call: Call<Self::Request>) -> Result<Self::Answer>;

    /// Does what it set an alarm for.
    async fn alarm(&self) -> Result<()>;
}

fn ask<T: Object>(object: &Rc<T>, call: &str) -> JsValue {
    let object = Rc::clone(object);
    let call = serde_json::from_slice(call.as_bytes());
    let answer = async move { Ok(JsValue::from(serde_json::to_string(&object.ask(call?).await?)?)) };
    at_once(answer.map_err(|error: worker::Error| error.into()))
}

fn alarm<T: Object>(object: &Rc<T>) -> JsValue {
    let object = Rc::clone(object);
    at_once(async move { object.alarm().await }.map_ok(|()| JsValue::UNDEFINED).map_err(JsValue::from))
}

macro_rules! class {
    ($Class:ident, $Object:ty) => {
        /// A class of objects, as `entry.js` knows it.
        #[wasm_bindgen]
        #[derive(Debug)]
        pub struct $Class(Rc<$Object>);

        #[wasm_bindgen]
        impl $Class {
            /// One object.
            #[wasm_bindgen(constructor)]
            pub fn new(state: DurableObjectState, env: Env) -> Self {
                Self(Rc::new(Object::new(state.into(), env)))
            }

            /// The answer to `call`, or a promise of it.
            pub fn ask(&self, call: &str) -> JsValue {
                ask(&self.0, call)
            }

            /// A promise of the alarm's end, or nothing where it has ended.
            pub fn alarm(&self) -> JsValue {
                alarm(&self.0)
            }
        }
    };
}

class!(Counter, super::counter::Counter);
class!(Limiter, super::limiter::Limiter);
class!(Lock, super::lock::Lock);
class!(Preference, super::preference::Preference);
