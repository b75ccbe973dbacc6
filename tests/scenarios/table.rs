//! The table of promises: measured, never typed. As Markdown for the README and as JSON.

use std::fmt::Write;

use kv_patterns::sim::Profile;
use serde_json::{Value, json};

use super::{Code, Run, Scenario, run_seeds};

/// Seeds behind every figure that is published.
pub(crate) const SEEDS: u64 = 60;

/// One promise under one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) pattern: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) profile: &'static str,
    pub(crate) promised: Option<String>,
    pub(crate) measured: String,
    pub(crate) naive: String,
    /// Whether the measured figure is within the promise.
    pub(crate) is_kept: bool,
}

/// Everything measured about one scenario: per profile, ours and the naive code's.
pub(crate) struct Measured {
    pub(crate) runs: Vec<(Profile, Run, Run)>,
}

impl Measured {
    pub(crate) fn of(scenario: &dyn Scenario) -> Self {
        let measure = |profile| {
            let of = |code| run_seeds(scenario, code, profile, 0..SEEDS);
            (profile, of(Code::Ours), of(Code::Naive))
        };
        Self { runs: Profile::ALL.into_iter().map(measure).collect() }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.runs.iter().map(|(_, ours, naive)| ours.operations + naive.operations).sum()
    }

    pub(crate) fn rows(&self, scenario: &dyn Scenario) -> Vec<Row> {
        let mut rows = Vec::new();
        for promise in scenario.promises() {
            for (profile, ours, naive) in &self.runs {
                let value =
                    |run: &Run| promise.statistic.of(run.samples.get(promise.figure).map_or(&[], Vec::as_slice));
                let promised = (promise.promised)(profile);
                rows.push(Row {
                    pattern: scenario.name(),
                    promise: promise.what,
                    profile: profile.name,
                    promised: promised.map(|most| promise.unit.show(most)),
                    measured: promise.unit.show(value(ours)),
                    naive: promise.unit.show(value(naive)),
                    is_kept: promised.is_none_or(|most| value(ours) <= most),
                });
            }
        }
        rows
    }
}

/// Rows as a Markdown table.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text =
        String::from("| pattern | promise | profile | promised | measured | naive code |\n|---|---|---|---|---|---|\n");
    for Row { pattern, promise, profile, promised, measured, naive, .. } in rows {
        let promised = promised.as_deref().unwrap_or("-");
        let _ = writeln!(text, "| {pattern} | {promise} | {profile} | {promised} | {measured} | {naive} |");
    }
    text
}

/// Rows as JSON.
pub(crate) fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "pattern": row.pattern,
            "promise": row.promise,
            "profile": row.profile,
            "promised": row.promised,
            "measured": row.measured,
            "naive": row.naive,
            "isKept": row.is_kept,
        })
    };
    json!({"seeds": SEEDS, "rows": rows.iter().map(row).collect::<Vec<_>>()})
}

/// The start and the end of the generated part of the README.
pub(crate) const BEGIN: &str = "<!-- guarantees:begin -->";
pub(crate) const END: &str = "<!-- guarantees:end -->";

/// What stands between the markers of `readme`; nothing when they are not there.
pub(crate) fn between_markers(readme: &str) -> Option<&str> {
    let (_, rest) = readme.split_once(BEGIN)?;
    rest.split_once(END).map(|(inside, _)| inside.trim())
}
