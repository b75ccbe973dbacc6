//! Puts the OpenAPI document together from `openapi/*.json`, so that the Worker carries one text and no code for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a build that cannot go on ends, and says why"
)]

use std::path::Path;
use std::{env, fs};

use serde_json::{Map, Value};

fn main() {
    println!("cargo::rerun-if-changed=openapi");
    let mut files: Vec<_> =
        fs::read_dir("openapi").expect("openapi/ is there").map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut document = Value::Object(Map::new());
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable file");
        let part = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        merge(&mut document, part, &file.display().to_string());
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("openapi.json"), document.to_string()).expect("OUT_DIR can be written");
}

/// Objects are merged, lists joined; anything else may stand in one file only.
fn merge(whole: &mut Value, part: Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                match whole.get_mut(&key) {
                    Some(known) => merge(known, value, &format!("{at} {key}")),
                    None => drop(whole.insert(key, value)),
                }
            }
        }
        (Value::Array(whole), Value::Array(part)) => whole.extend(part),
        _ => panic!("{at} stands in two files"),
    }
}
