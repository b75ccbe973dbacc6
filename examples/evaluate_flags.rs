//! Evaluates flags from standard input, one case a line: `{"document": ..., "key": ..., "context": ..., "now": seconds}`;
//! a line without `document` uses the one before. Prints one line each: `{"variant", "reason"}` or `{"error"}`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

use kv_patterns::clock::Timestamp;
use kv_patterns::patterns::flag::{EvaluationContext, FlagSet, Outcome};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match evaluate_lines() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn evaluate_lines() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = stdout().lock();
    let mut set = FlagSet::load(&json!({ "flags": {} })).map_err(|problem| problem.to_string())?;
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        if let Some(document) = case.get("document") {
            set = FlagSet::load(document).map_err(|problem| problem.to_string())?;
        }
        let key = case.get("key").and_then(Value::as_str).unwrap_or_default();
        let now = Timestamp::from_seconds(case.get("now").and_then(Value::as_u64).unwrap_or(0));
        let context = EvaluationContext::new(case.get("context").cloned().unwrap_or(json!({})))?;
        let answer = match set.evaluate(key, &context, now).outcome {
            Outcome::Value { variant, reason, .. } => json!({ "variant": variant, "reason": reason.as_str() }),
            Outcome::CodeDefault { reason } => json!({ "variant": null, "reason": reason.as_str() }),
            Outcome::Error { code, .. } => json!({ "error": code.as_str() }),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
