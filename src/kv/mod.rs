//! What Workers KV is, as a Rust contract.
