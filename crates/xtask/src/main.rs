//! Developer commands: `cargo xtask {test,promises,ci,bench,tidy}`.
//!
//! Each command is one file (or folder) with a `run`; this file only chooses. Nothing of the product may depend on
//! this crate, and it depends on nothing of the product: it builds and drives it from outside.

mod bench;
mod ci;
mod clock;
mod promises;
mod run;
mod steps;
mod tidy;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  test       every test; installs the programs that they need
  promises   the promises at full figures, written to docs/promises.md
  ci         formatting, lints, tidy, test: what CI runs
  bench      side by side with other balancers, written to bench/results/; see `cargo xtask bench --help`
  tidy       the floors of the workspace and the style that a compiler does not check";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", arguments.as_slice()),
    };
    let result = match command {
        "test" => no_arguments(rest).and_then(|()| steps::test()),
        "promises" => no_arguments(rest).and_then(|()| promises::run()),
        "ci" => no_arguments(rest).and_then(|()| ci::run()),
        "bench" => bench::run(rest),
        "tidy" => no_arguments(rest).and_then(|()| tidy::run()),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        "" => Err(USAGE.to_owned()),
        other => Err(format!("there is no command {other:?}\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn no_arguments(rest: &[String]) -> Result<(), String> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("this command takes no arguments, got {:?}", rest.join(" ")))
    }
}
