//! Runs every scenario on the simulator, seed after seed, and stops at the first promise that is broken.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 100000          # goes on where it was interrupted; --fresh starts anew
//! cargo run --release --example simulate -- --only session --profile documented --seed 7      # one run, whole story
//! ```
//!
//! `--naive` runs the usual naive code instead, to see it fail.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a program for the terminal")]
#![allow(clippy::indexing_slicing, reason = "the scenarios are test code")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kv_patterns::sim::Profile;

#[path = "../tests/scenarios/mod.rs"]
mod scenarios;

use scenarios::{Code, Scenario, all, report};

struct Options {
    seeds: u64,
    seed: Option<u64>,
    only: Option<String>,
    profiles: Vec<Profile>,
    code: Code,
    fresh: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seeds: 1000,
        seed: None,
        only: None,
        profiles: Profile::ALL.to_vec(),
        code: Code::Ours,
        fresh: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is not a number"));
        match argument.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--seed" => options.seed = Some(number(value()?)?),
            "--only" => options.only = Some(value()?),
            "--profile" => {
                let name = value()?;
                options.profiles = vec![Profile::named(&name).ok_or(format!("there is no profile {name}"))?];
            }
            "--naive" => options.code = Code::Naive,
            "--fresh" => options.fresh = true,
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}; options: --seeds N, --seed N, --only NAME, --profile NAME, --naive, --fresh");
            return ExitCode::from(2);
        }
    };
    let mut scenarios = all();
    scenarios.retain(|scenario| options.only.as_deref().is_none_or(|name| name == scenario.name()));
    if scenarios.is_empty() {
        eprintln!(
            "there is no such scenario; there are: {}",
            all().iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::from(2);
    }
    let failure = match options.seed {
        Some(seed) => one_seed(&scenarios, &options, seed),
        None => many_seeds(&scenarios, &options),
    };
    match failure {
        None => ExitCode::SUCCESS,
        Some(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one seed and tells everything about it.
fn one_seed(scenarios: &[Box<dyn Scenario>], options: &Options, seed: u64) -> Option<String> {
    let mut failure = None;
    for scenario in scenarios {
        for profile in &options.profiles {
            let run = scenario.run(options.code, *profile, seed);
            let (name, operations) = (scenario.name(), run.operations);
            println!(
                "{name}, {}, seed {seed}: {operations} operations, fingerprint {:016x}",
                profile.name, run.fingerprint
            );
            for (figure, samples) in &run.samples {
                println!("  {figure}: {samples:?}");
            }
            if !run.violations.is_empty() {
                failure.get_or_insert_with(|| report(scenario.as_ref(), options.code, *profile, seed, &run));
            }
        }
    }
    failure
}

/// Runs seeds from where the last run of the same kind stopped.
fn many_seeds(scenarios: &[Box<dyn Scenario>], options: &Options) -> Option<String> {
    let place = Place::of(options);
    let first = if options.fresh { 0 } else { place.load().min(options.seeds) };
    if first > 0 {
        eprintln!("going on at seed {first}; --fresh starts anew");
    }
    let mut bar = Bar::new(first, options.seeds);
    for seed in first..options.seeds {
        for scenario in scenarios {
            for profile in &options.profiles {
                let run = scenario.run(options.code, *profile, seed);
                bar.operations += run.operations;
                if !run.violations.is_empty() {
                    eprintln!();
                    // The next run begins with this seed again, until it passes.
                    place.save(seed);
                    return Some(report(scenario.as_ref(), options.code, *profile, seed, &run));
                }
            }
        }
        if bar.step(seed + 1) {
            place.save(seed + 1);
        }
    }
    eprintln!();
    place.forget();
    None
}

/// Where an interrupted run is remembered.
struct Place(PathBuf);

impl Place {
    fn of(options: &Options) -> Self {
        let profiles: Vec<&str> = options.profiles.iter().map(|profile| profile.name).collect();
        let only = options.only.as_deref().unwrap_or("all");
        Self(PathBuf::from(format!("target/simulate-{only}-{}-{:?}.seed", profiles.join("-"), options.code)))
    }

    fn load(&self) -> u64 {
        fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn save(&self, seed: u64) {
        // A lost place costs only time.
        let _ = fs::write(&self.0, seed.to_string());
    }

    fn forget(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A progress bar, drawn a few times a second.
struct Bar {
    first: u64,
    seeds: u64,
    operations: u64,
    began: Instant,
    drawn: Option<Instant>,
}

#[allow(clippy::disallowed_methods, reason = "the bar shows real time; the simulation never sees it")]
fn real_now() -> Instant {
    Instant::now()
}

impl Bar {
    fn new(first: u64, seeds: u64) -> Self {
        Self { first, seeds, operations: 0, began: real_now(), drawn: None }
    }

    /// Draws when it is time to; then also the place is worth saving.
    fn step(&mut self, done: u64) -> bool {
        let now = real_now();
        let is_due = self.drawn.is_none_or(|drawn| now.duration_since(drawn) > Duration::from_millis(250));
        if is_due || done == self.seeds {
            self.drawn = Some(now);
            self.draw(done);
        }
        is_due
    }

    fn draw(&self, done: u64) {
        let elapsed = real_now().duration_since(self.began).as_millis().max(1);
        let rate = u128::from(self.operations) * 1000 / elapsed;
        let left = u128::from(self.seeds - done) * elapsed / u128::from(done - self.first).max(1) / 1000;
        let filled = usize::try_from(done * 30 / self.seeds.max(1)).unwrap_or(0);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30_usize.saturating_sub(filled)));
        eprint!(
            "\r[{bar}] {done}/{} seeds, {} operations, {rate} per second, {left} s left   ",
            self.seeds, self.operations
        );
    }
}
