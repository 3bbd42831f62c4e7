//! `cargo xtask promises`: runs the promises at their full figures and writes docs/promises.md.
//!
//! The tests judge; this file only collects what they print, one line per figure:
//! `PROMISE|P1|the promise|figure required|figure seen|pass`.

use crate::{clock, run, tools};
use std::fmt::Write;
use std::time::Duration;

/// Promises that must have at least one line.
const REQUIRED: &[&str] = &[
    "P1", "P2", "P3", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P15", "P16", "P17", "P19", "P22", "P23", "P24",
];

const LIMIT: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// `P1`, `P2`, ...
    id: String,
    promise: String,
    required: String,
    seen: String,
    passed: bool,
}

/// Fails when a test fails, a figure is missed, or a promise has no figure; the page is written in any case.
pub(crate) fn run() -> Result<(), String> {
    tools::ensure_for_tests()?;
    run::show(run::cargo().args(["build", "--release", "--package=ringway"]))?;
    let mut lines = Vec::new();
    let arguments = [
        "test",
        "--release",
        "--no-fail-fast",
        "--package=ringway-tests",
        "--test=promises",
    ];
    let outcome = run::follow(
        run::cargo()
            .args(arguments)
            .args(["--", "--test-threads=1", "--nocapture"])
            .env("RINGWAY_PROMISES", "full"),
        LIMIT,
        |line| lines.extend(parse(line)),
    );
    lines.sort_by_key(|line| line.id.trim_start_matches('P').parse::<u32>().unwrap_or(u32::MAX));
    let file = run::root()?.join("docs/promises.md");
    std::fs::write(&file, page(&lines, &machine())).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    println!("wrote {}", file.display());

    let mut troubles: Vec<String> = lines
        .iter()
        .filter(|l| !l.passed)
        .map(|l| format!("{} missed", l.id))
        .collect();
    let has_line = |id: &str| lines.iter().any(|line| line.id == id);
    troubles.extend(
        REQUIRED
            .iter()
            .filter(|id| !has_line(id))
            .map(|id| format!("{id} has no figure")),
    );
    match outcome {
        Ok(true) => {}
        Ok(false) => troubles.push("a test failed".to_owned()),
        Err(message) => troubles.push(message),
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        Err(troubles.join("; "))
    }
}

/// The test program prints its own words on the same line before ours.
fn parse(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line[line.find("PROMISE|")?..]
        .trim_end()
        .split('|')
        .map(str::trim)
        .collect();
    let [_, id, promise, required, seen, verdict] = fields[..] else {
        return None;
    };
    let own = |text: &str| text.to_owned();
    Some(Line {
        id: own(id),
        promise: own(promise),
        required: own(required),
        seen: own(seen),
        passed: verdict == "pass",
    })
}

fn page(lines: &[Line], machine: &str) -> String {
    let mut page = format!(
        "# Promises, as last measured\n\n\
         Written by `cargo xtask promises` on {}, {machine}. Do not edit: run the command again.\n\n\
         | # | promise | figure required | figure seen | |\n|---|---|---|---|---|\n",
        clock::now_utc()
    );
    for line in lines {
        let verdict = if line.passed { "pass" } else { "**MISSED**" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {verdict} |",
            line.id, line.promise, line.required, line.seen
        );
    }
    page
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned());
    format!("{cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_behind_the_words_of_the_test_program() {
        let line = parse("test p16 ... PROMISE|P16|half-close is kept|both exact|200 of 200|pass").expect("a promise");
        assert_eq!(
            (line.id.as_str(), line.seen.as_str(), line.passed),
            ("P16", "200 of 200", true)
        );
        assert!(
            !parse("PROMISE|P16|half-close is kept|both exact|199 of 200|fail")
                .expect("a promise")
                .passed
        );
        assert_eq!(parse("PROMISE|P16|half a line"), None);
        assert_eq!(parse("test result: ok. 1 passed"), None);
    }

    #[test]
    fn a_missed_promise_stands_out_on_the_page() {
        let line = parse("PROMISE|P1|cheap|1280 B|1400 B|fail").expect("a promise");
        let page = page(&[line], "2 cores");
        assert!(page.contains("| P1 | cheap | 1280 B | 1400 B | **MISSED** |"), "{page}");
    }
}
