//! What each pattern promises, as workloads on the simulator; shared by the native tests and the examples.
//!
//! A scenario runs a pattern, and the same job done naively, in one simulated world per seed and profile, and gives
//! back what the checkers found and what was measured. To add one: a file here, its `mod` line, and a line in [`all`].

#![allow(dead_code, reason = "each of the three programs that share this uses a part of it")]

use std::collections::BTreeMap;

use kv_patterns::sim::Profile;
use kv_patterns::sim::check::Violation;

pub(crate) mod cache;
pub(crate) mod counter;
pub(crate) mod counter_reset;
pub(crate) mod document;
pub(crate) mod experiment;
pub(crate) mod flag;
pub(crate) mod lock;
pub(crate) mod lock_queue;
pub(crate) mod picture;
pub(crate) mod preference;
pub(crate) mod rate_limit;
pub(crate) mod register;
pub(crate) mod replica;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod table;

/// Every scenario there is.
pub(crate) fn all() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(session::SessionScenario),
        Box::new(flag::FlagScenario),
        Box::new(experiment::ExperimentScenario),
        Box::new(register::RegisterScenario::<preference::Preference>::new()),
        Box::new(register::RegisterScenario::<document::Document>::new()),
        Box::new(register::RegisterScenario::<replica::Replicated>::new()),
        Box::new(register::RegisterScenario::<setting::Setting>::new()),
        Box::new(cache::CacheScenario),
        Box::new(counter::CounterScenario),
        Box::new(rate_limit::RateLimitScenario),
        Box::new(lock::LockScenario),
    ]
}

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Code {
    /// The pattern.
    Ours,
    /// The same job as it is usually written.
    Naive,
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// KV operations and object calls.
    pub(crate) operations: u64,
    /// Of the world and everything that clients noted.
    pub(crate) fingerprint: u64,
    /// What must not have happened.
    pub(crate) violations: Vec<Violation>,
    /// What was measured, by the name of the figure.
    pub(crate) samples: BTreeMap<&'static str, Vec<u64>>,
}

impl Run {
    /// Adds the samples and violations of another run.
    pub(crate) fn absorb(&mut self, other: Run) {
        self.operations += other.operations;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
        self.violations.extend(other.violations);
        for (figure, samples) in other.samples {
            self.samples.entry(figure).or_default().extend(samples);
        }
    }
}

/// How samples become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// The largest; zero of none.
    Max,
    /// The value that half of all samples do not exceed.
    Median,
    /// All added up.
    Sum,
    /// How many of a thousand are not zero.
    PermilleNotZero,
}

impl Statistic {
    pub(crate) fn of(self, samples: &[u64]) -> u64 {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        match self {
            Self::Max => sorted.last().copied().unwrap_or(0),
            Self::Median => sorted.get(sorted.len() / 2).copied().unwrap_or(0),
            Self::Sum => sorted.iter().sum(),
            Self::PermilleNotZero => {
                let count = sorted.iter().filter(|sample| **sample > 0).count();
                u64::try_from((count * 1000).div_ceil(sorted.len().max(1))).unwrap_or(0)
            }
        }
    }
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds, shown as seconds.
    Millis,
    /// Things.
    Count,
    /// Thousandths, shown as per cent.
    Permille,
}

impl Unit {
    pub(crate) fn show(self, value: u64) -> String {
        match self {
            Self::Millis => format!("{}.{} s", value / 1000, value % 1000 / 100),
            Self::Count => value.to_string(),
            Self::Permille => format!("{}.{} %", value / 10, value % 10),
        }
    }
}

/// One row of the table of promises.
#[derive(Clone, Copy)]
pub(crate) struct Promise {
    /// What is promised, for people.
    pub(crate) what: &'static str,
    /// The samples it is about.
    pub(crate) figure: &'static str,
    pub(crate) statistic: Statistic,
    pub(crate) unit: Unit,
    /// The most that may be measured under a profile; nothing where no promise is made.
    pub(crate) promised: fn(&Profile) -> Option<u64>,
}

/// The picture of a scenario: for each profile, the share of samples still above each value.
#[derive(Clone, Copy)]
pub(crate) struct Picture {
    pub(crate) title: &'static str,
    pub(crate) figure: &'static str,
    /// Of the x axis.
    pub(crate) unit: Unit,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// A line to draw: what is promised.
    pub(crate) promised: fn(&Profile) -> Option<u64>,
}

/// One pattern under test.
pub(crate) trait Scenario {
    /// The pattern's file name.
    fn name(&self) -> &'static str;

    /// One run. Equal arguments give equal runs.
    fn run(&self, code: Code, profile: Profile, seed: u64) -> Run;

    /// The smallest plan that still fails as this run does, for people.
    fn shrink(&self, code: Code, profile: Profile, seed: u64) -> String;

    fn promises(&self) -> Vec<Promise>;

    fn picture(&self) -> Picture;
}

/// The runs of many seeds, put together.
pub(crate) fn run_seeds(scenario: &dyn Scenario, code: Code, profile: Profile, seeds: std::ops::Range<u64>) -> Run {
    let mut all = Run::default();
    for seed in seeds {
        all.absorb(scenario.run(code, profile, seed));
    }
    all
}

/// The command that repeats one run.
pub(crate) fn command(scenario: &dyn Scenario, profile: Profile, seed: u64) -> String {
    format!(
        "cargo run --release --example simulate -- --only {} --profile {} --seed {seed}",
        scenario.name(),
        profile.name
    )
}

/// What to print about a run that failed: the violations, the seed, the command, the smallest plan.
pub(crate) fn report(scenario: &dyn Scenario, code: Code, profile: Profile, seed: u64, run: &Run) -> String {
    let violations: Vec<String> = run.violations.iter().take(5).map(ToString::to_string).collect();
    let violations = violations.join("\n  ");
    let plan = scenario.shrink(code, profile, seed);
    let command = command(scenario, profile, seed);
    format!("seed {seed} under {} fails:\n  {violations}\nrepeat: {command}\nsmallest plan: {plan}", profile.name)
}
