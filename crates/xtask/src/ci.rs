//! `cargo xtask ci`: what CI runs. The tests come last, so that their count is the last line.

use crate::{run, steps, tidy};

/// Every check runs even if an earlier one failed.
pub(crate) fn run() -> Result<(), String> {
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let checks: [(&str, Result<(), String>); 3] = [
        ("formatting", run::show(run::cargo().args(["fmt", "--all", "--check"]))),
        ("lints", run::show(run::cargo().args(lints))),
        ("tidy", tidy::run()),
    ];
    let mut failed = Vec::new();
    for (name, result) in checks {
        match result {
            Ok(()) => println!("{name}: ok"),
            Err(message) => {
                println!("{name}: FAILED: {message}");
                failed.push(name);
            }
        }
    }
    if let Err(message) = steps::test() {
        eprintln!("{message}");
        failed.push("tests");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")))
    }
}
