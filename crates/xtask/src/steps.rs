//! `cargo xtask test`: every test of the workspace, in the order in which failures are cheapest to find.
//!
//! Edit [`STEPS`] to add or change a step. A step that fails does not stop the ones after it.

use crate::{run, tools};
use std::time::{Duration, Instant};

struct Step {
    name: &'static str,
    /// Arguments of cargo.
    cargo: &'static [&'static str],
    /// A step that takes longer is killed and counts as failed.
    limit: Duration,
}

const fn step(name: &'static str, cargo: &'static [&'static str]) -> Step {
    Step {
        name,
        cargo,
        limit: Duration::from_secs(1_200),
    }
}

/// End-to-end tests run one program at a time: several of them measure, and all of them share two cores.
const STEPS: &[Step] = &[
    step(
        "unit tests",
        &[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--exclude=ringway-proxy",
            "--exclude=ringway-tests",
            "--exclude=naive-tokio-uring",
            // Compiles the simulated kernel and its own tests.
            "--features=ringway-runtime/sim",
        ],
    ),
    step(
        "simulation",
        &["test", "--profile=fast", "--no-fail-fast", "--package=ringway-proxy"],
    ),
    step(
        "mutants are caught",
        &[
            "test",
            "--profile=fast",
            "--no-fail-fast",
            "--package=ringway-proxy",
            "--features=mutants",
            "--test=sim",
            "--test=routing",
            "--",
            "mutants",
        ],
    ),
    step("release build", &["build", "--release", "--package=ringway"]),
    step(
        "end to end",
        &[
            "test",
            "--profile=fast",
            "--no-fail-fast",
            "--package=ringway-tests",
            "--",
            "--test-threads=1",
        ],
    ),
];

/// What came of all steps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Tests that say they could not do their work here (without root, say) and passed without.
    skipped: usize,
}

/// Runs all steps; the last line printed is `N passed, N failed`.
pub(crate) fn test() -> Result<(), String> {
    let started = Instant::now();
    tools::ensure_for_tests()?;
    let mut total = Tally::default();
    let mut summary = Vec::new();
    for step in STEPS {
        println!("\n== {} ({} s since the start)", step.name, started.elapsed().as_secs());
        let step_started = Instant::now();
        let (tally, trouble) = run_step(step);
        let verdict = trouble.as_deref().unwrap_or("ok");
        let seconds = step_started.elapsed().as_secs_f64();
        let skipped = if tally.skipped > 0 {
            format!(", {} skipped", tally.skipped)
        } else {
            String::new()
        };
        summary.push(format!(
            "{:<20} {seconds:>6.1} s  {:>5} passed {:>4} failed  {verdict}{skipped}",
            step.name, tally.passed, tally.failed
        ));
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    println!(
        "\n{}\nall steps in {} s",
        summary.join("\n"),
        started.elapsed().as_secs()
    );
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 {
        Ok(())
    } else {
        Err("not all tests passed".to_owned())
    }
}

fn run_step(step: &Step) -> (Tally, Option<String>) {
    let mut tally = Tally::default();
    let outcome = run::follow(run::cargo().args(step.cargo), step.limit, |line| tally.count(line));
    let trouble = tally.conclude(outcome);
    (tally, trouble)
}

impl Tally {
    /// What is wrong with a step that ended so; `None`: nothing. A step that fails without a failed test (it does not
    /// compile, say) counts as one failure.
    fn conclude(&mut self, outcome: Result<bool, String>) -> Option<String> {
        let trouble = match outcome {
            Ok(true) if self.failed == 0 => return None,
            Ok(_) => "FAILED".to_owned(),
            Err(message) => format!("FAILED: {message}"),
        };
        self.failed = self.failed.max(1);
        Some(trouble)
    }

    /// Understands `test result: ok. 12 passed; 0 failed; 1 ignored; ...` and `SKIPPED|test|why`, and ignores every
    /// other line.
    fn count(&mut self, line: &str) {
        self.skipped += usize::from(line.contains("SKIPPED|"));
        let Some((_, counts)) = line.split_once("test result:") else {
            return;
        };
        let words: Vec<&str> = counts.split_whitespace().collect();
        let before = |word: &str| {
            let at = words.iter().position(|w| w.trim_end_matches(';') == word)?;
            words.get(at.checked_sub(1)?)?.parse::<usize>().ok()
        };
        self.passed += before("passed").unwrap_or(0);
        self.failed += before("failed").unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let mut tally = Tally::default();
        tally.count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        tally.count("test a_test_of_failed_things ... ok");
        tally.count("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count("SKIPPED|p15_loss|needs root (network namespaces)");
        assert_eq!(
            tally,
            Tally {
                passed: 15,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_step_that_fails_without_a_failed_test_is_a_failure() {
        let mut compiles_not = Tally::default();
        assert_eq!(compiles_not.conclude(Ok(false)).as_deref(), Some("FAILED"));
        assert_eq!(compiles_not.failed, 1);
        let mut killed = Tally {
            passed: 5,
            ..Tally::default()
        };
        assert!(
            killed
                .conclude(Err("killed".to_owned()))
                .is_some_and(|t| t.contains("killed"))
        );
        assert_eq!(
            killed,
            Tally {
                passed: 5,
                failed: 1,
                skipped: 0
            }
        );
        let mut two_tests = Tally {
            passed: 5,
            failed: 2,
            skipped: 0,
        };
        assert!(two_tests.conclude(Ok(false)).is_some());
        assert_eq!(two_tests.failed, 2);
        assert_eq!(
            Tally {
                passed: 5,
                ..Tally::default()
            }
            .conclude(Ok(true)),
            None
        );
    }
}
