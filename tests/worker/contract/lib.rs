//! A Worker that runs the store's contract over the KV namespace bound as `CACHE`: the cases of `tests/it`, in workerd.
//!
//! `GET /` names the cases, one a line; `GET /<case>` runs one. A case that fails panics: its message is logged, and the
//! request fails.
#![cfg(target_arch = "wasm32")]

#[path = "../../it/kv_contract/suite.rs"]
mod suite;

use kv_patterns::worker::kv::WorkersKv;
use worker::{Context, Env, Request, Response, Result, event};

#[event(start)]
fn start() {
    console_error_panic_hook::set_once();
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> Result<Response> {
    let path = request.path();
    let case = path.trim_start_matches('/');
    if case.is_empty() {
        return Response::ok(suite::CASES.join("\n"));
    }
    let Some(store) = WorkersKv::bound(&env, "CACHE") else { return Response::error("CACHE is not bound", 503) };
    suite::run(case, &store, &|_| ()).await;
    Response::ok("kept")
}
