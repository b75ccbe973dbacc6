//! Measures what every pattern promises, under every profile, beside the usual naive code, on fixed seeds.
//!
//! Prints the table of the README; `--json` prints JSON instead; `--write` also writes one picture per pattern and the
//! JSON into `docs/guarantees/` and the table between the README's markers. Nothing of it is typed by hand.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a program for the terminal")]
#![allow(clippy::indexing_slicing, reason = "the scenarios are test code")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

#[path = "../tests/scenarios/mod.rs"]
mod scenarios;

use scenarios::table::{self, BEGIN, END, Measured};
use scenarios::{all, picture};

/// Where pictures and JSON go.
const FOLDER: &str = "docs/guarantees";

fn main() -> ExitCode {
    let options: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| options.iter().any(|given| given == option);
    let mut rows = Vec::new();
    let mut pictures = Vec::new();
    for scenario in all() {
        let measured = Measured::of(scenario.as_ref());
        eprintln!("{}: {} operations", scenario.name(), measured.operations());
        rows.extend(measured.rows(scenario.as_ref()));
        pictures.push((scenario.name(), picture::svg(&scenario.picture(), &measured)));
    }
    let json = format!("{:#}\n", table::to_json(&rows));
    if has("--json") {
        print!("{json}");
    } else {
        print!("{}", table::markdown(&rows));
    }
    let written = if has("--write") { write(&json, &pictures, &table::markdown(&rows)) } else { Ok(()) };
    if let Err(error) = written {
        eprintln!("nothing or not everything was written: {error}");
        return ExitCode::FAILURE;
    }
    if rows.iter().all(|row| row.is_kept) {
        return ExitCode::SUCCESS;
    }
    eprintln!("a promise is not kept");
    ExitCode::FAILURE
}

fn write(json: &str, pictures: &[(&str, String)], table: &str) -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    fs::write(Path::new(FOLDER).join("guarantees.json"), json)?;
    for (name, svg) in pictures {
        fs::write(Path::new(FOLDER).join(format!("{name}.svg")), svg)?;
    }
    let readme = fs::read_to_string("README.md")?;
    let missing = || io::Error::other("README.md has no markers for the table");
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    fs::write("README.md", format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}
