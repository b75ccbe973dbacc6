//! The functions of `glue.js`, typed. Nothing else in the project talks to JavaScript about requests, replies or KV.

use js_sys::Promise;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

#[wasm_bindgen(module = "/src/worker/glue.js")]
extern "C" {
    #[wasm_bindgen(js_name = requestHead)]
    pub(super) fn request_head(request: &web_sys::Request) -> String;
    #[wasm_bindgen(js_name = requestBody)]
    pub(super) fn request_body(request: &web_sys::Request, limit: f64) -> Promise;
    #[wasm_bindgen(catch)]
    pub(super) fn response(status: u16, fields: &str, body: Option<&[u8]>) -> Result<web_sys::Response, JsValue>;
    #[wasm_bindgen(catch, js_name = streamResponse)]
    pub(super) fn stream_response(
        status: u16,
        fields: &str,
        stream: &web_sys::ReadableStream,
    ) -> Result<web_sys::Response, JsValue>;
    #[wasm_bindgen(js_name = configIfChanged)]
    pub(super) fn config_if_changed(env: &JsValue, have: bool) -> Option<String>;
    #[wasm_bindgen(js_name = kvGet)]
    pub(super) fn kv_get(namespace: &JsValue, key: &str, ttl: u32) -> Promise;
    #[wasm_bindgen(js_name = kvGetMany)]
    pub(super) fn kv_get_many(namespace: &JsValue, keys: &str, ttl: u32) -> Promise;
    #[wasm_bindgen(catch, js_name = kvPut)]
    pub(super) fn kv_put(
        namespace: &JsValue,
        key: &str,
        value: &[u8],
        ttl: u32,
        metadata: &str,
    ) -> Result<Promise, JsValue>;
    #[wasm_bindgen(catch, js_name = kvDelete)]
    pub(super) fn kv_delete(namespace: &JsValue, key: &str) -> Result<Promise, JsValue>;
    #[wasm_bindgen(js_name = kvList)]
    pub(super) fn kv_list(namespace: &JsValue, prefix: &str, cursor: &str, limit: u32) -> Promise;
}

/// The message of a thrown value, and whether the runtime calls it retryable.
pub(super) fn describe(thrown: &JsValue) -> (String, bool) {
    let message = thrown.dyn_ref::<js_sys::Error>().map_or_else(
        || thrown.as_string().unwrap_or_else(|| "an unknown exception".to_owned()),
        |error| format!("{}: {}", String::from(error.name()), String::from(error.message())),
    );
    let retryable = js_sys::Reflect::get(thrown, &JsValue::from_str("retryable")).is_ok_and(|flag| flag.is_truthy());
    (message, retryable)
}
