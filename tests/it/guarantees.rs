//! Goal: the table of promises in the README is measured, not typed, and every promise in it is kept. Method: measure it
//! anew, on the same fixed seeds, and compare.

use std::fs;

use crate::scenarios::table::{self, Measured};
use crate::scenarios::{all, picture};

/// A file of the project.
fn project(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default()
}

#[test]
fn what_is_published_is_what_is_measured_and_every_promise_is_kept() {
    let mut rows = Vec::new();
    for scenario in all() {
        let measured = Measured::of(scenario.as_ref());
        rows.extend(measured.rows(scenario.as_ref()));
        let svg = project(&format!("docs/guarantees/{}.svg", scenario.name()));
        assert!(svg == picture::svg(&scenario.picture(), &measured), "{}.svg is stale: {AGAIN}", scenario.name());
    }
    for row in &rows {
        assert!(row.is_kept, "not kept: {row:?}");
    }
    let readme = project("README.md");
    let published = table::between_markers(&readme).unwrap_or_default();
    assert_eq!(published, table::markdown(&rows).trim(), "the README's table is stale: {AGAIN}");
    let json = format!("{:#}\n", table::to_json(&rows));
    assert!(project("docs/guarantees/guarantees.json") == json, "the JSON is stale: {AGAIN}");
}

const AGAIN: &str = "cargo run --release --example guarantees -- --write";
