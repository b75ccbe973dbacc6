//! The functions of `glue.js`, typed: the crossings that are worth a function of their own (docs/performance.md). For single
//! properties and values other files of this layer use `js_sys` and `web_sys`.

use js_sys::Promise;
use wasm_bindgen::prelude::{Closure, wasm_bindgen};
use wasm_bindgen::{JsCast, JsValue};

/// What JavaScript calls when a promise has ended: which await, whether it was fulfilled, with what.
pub(super) type Settled = Closure<dyn FnMut(u32, bool, JsValue)>;

#[wasm_bindgen(module = "/src/worker/glue.js")]
extern "C" {
    pub(super) fn settle(promise: &Promise, id: u32, settled: &Settled);
    pub(super) fn follow(promise: &Promise) -> Promise;
    #[wasm_bindgen(js_name = startTimer)]
    pub(super) fn start_timer(millis: u32, id: u32, settled: &Settled) -> i32;
    #[wasm_bindgen(js_name = stopTimer)]
    pub(super) fn stop_timer(timer: i32);
    #[wasm_bindgen(js_name = requestCf)]
    pub(super) fn request_cf(request: &web_sys::Request, name: &str) -> String;
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
    #[wasm_bindgen(js_name = askObject)]
    pub(super) fn ask_object(namespace: &JsValue, name: &str, call: &str) -> Promise;
    #[wasm_bindgen(catch, js_name = sqlJson)]
    pub(super) fn sql_json(sql: &JsValue, query: &str) -> Result<Option<String>, JsValue>;
    #[wasm_bindgen(catch, js_name = sqlRun)]
    pub(super) fn sql_run(sql: &JsValue, query: &str, text: &str) -> Result<(), JsValue>;
    #[wasm_bindgen(js_name = headerFields)]
    pub(super) fn header_fields(message: &JsValue) -> String;
    #[wasm_bindgen(js_name = originFetch)]
    pub(super) fn origin_fetch(
        url: &str,
        method: &str,
        fields: &str,
        upload: Option<&web_sys::Request>,
        timeout_millis: f64,
    ) -> Promise;
    #[wasm_bindgen(js_name = gatherBody)]
    pub(super) fn gather_body(response: &web_sys::Response, limit: f64, idle_millis: f64) -> Promise;
    #[wasm_bindgen(catch, js_name = copyBody)]
    pub(super) fn copy_body(
        response: &web_sys::Response,
        limit: f64,
        length: Option<f64>,
        idle_millis: f64,
        done: &JsValue,
    ) -> Result<Option<web_sys::ReadableStream>, JsValue>;
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
