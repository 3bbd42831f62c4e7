//! The run as JSON, as a Markdown page, and as the table of README.md.

use super::balancers::Balancer;
use super::figures::{Against, Bound, Spread, Verdict};
use super::host::Facts;
use super::measure::Settings;
use super::results::{Metric, Sample, median_of, number};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A row of the table: title, metric, key.
const ROWS: &[(&str, Metric, &str)] = &[
    ("bulk up, Gbit/s", Metric::BulkUp, "gbit_per_second"),
    ("bulk up, CPU-s per GB", Metric::BulkUp, "cpu_s_per_gb"),
    ("bulk down, Gbit/s", Metric::BulkDown, "gbit_per_second"),
    ("bulk down, CPU-s per GB", Metric::BulkDown, "cpu_s_per_gb"),
    ("64 connections, requests/s", Metric::Small64, "per_second"),
    ("64 connections, CPU µs per request", Metric::Small64, "cpu_us"),
    ("64 connections, p50 µs", Metric::Small64, "p50_us"),
    ("64 connections, p99 µs", Metric::Small64, "p99_us"),
    ("1 connection, requests/s", Metric::Small1, "per_second"),
    ("1 connection, CPU µs per request", Metric::Small1, "cpu_us"),
    ("1 connection, p50 µs", Metric::Small1, "p50_us"),
    ("1 connection, p99 µs", Metric::Small1, "p99_us"),
    ("short connections, per second", Metric::Short, "per_second"),
    ("short connections, CPU µs each", Metric::Short, "cpu_us"),
    ("short connections, p99 µs", Metric::Short, "p99_us"),
    ("short connections, errors", Metric::Short, "errors"),
    ("TLS connections by name, per second", Metric::Tls, "per_second"),
    ("TLS connections by name, CPU µs each", Metric::Tls, "cpu_us"),
    ("TLS connections by name, p99 µs", Metric::Tls, "p99_us"),
    ("TLS connections by name, errors", Metric::Tls, "errors"),
    (
        "TLS relay after the hello, CPU µs per request",
        Metric::TlsRelay,
        "cpu_us",
    ),
    (
        "TLS relay after the hello, CPU to that of plain TCP",
        Metric::TlsRelay,
        "cpu_ratio",
    ),
    ("UDP round trips, per second", Metric::Udp, "per_second"),
    ("UDP round trips, CPU µs each", Metric::Udp, "cpu_us"),
    ("UDP round trips, p50 µs", Metric::Udp, "p50_us"),
    ("UDP round trips, p99 µs", Metric::Udp, "p99_us"),
    ("UDP round trips, datagrams lost", Metric::Udp, "lost"),
    ("UDP round trips, stalls", Metric::Udp, "stalls"),
    (
        "UDP trains of eight, datagrams per second",
        Metric::UdpTrain,
        "per_second",
    ),
    ("UDP trains of eight, CPU µs per datagram", Metric::UdpTrain, "cpu_us"),
    ("UDP trains of eight, datagrams lost", Metric::UdpTrain, "lost"),
    (
        "short connections with the session log, CPU to those without",
        Metric::SessionLog,
        "cpu_ratio",
    ),
    (
        "idle connection, bytes of process memory",
        Metric::Idle,
        "process_bytes",
    ),
    (
        "idle connection, bytes of kernel slab (all ends)",
        Metric::Idle,
        "slab_bytes",
    ),
    (
        "idle connection, bytes of kernel socket buffers (all ends)",
        Metric::Idle,
        "sockstat_bytes",
    ),
];

const README_BEGIN: &str = "<!-- bench:begin -->";
const README_END: &str = "<!-- bench:end -->";

/// All samples of all rounds, with what was made of them.
pub(super) fn json(facts: &Facts, samples: &[Sample], verdicts: &[Verdict], settings: &Settings) -> String {
    let facts: BTreeMap<&str, &str> = facts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let all: Vec<Value> = samples.iter().map(json_sample).collect();
    let mut medians = BTreeMap::<&str, BTreeMap<&str, BTreeMap<&str, f64>>>::new();
    for sample in samples {
        for &key in sample.outcome.iter().flat_map(|values| values.keys()) {
            if let Some(median) = median_of(samples, sample.metric, sample.balancer, key) {
                let of_metric = medians.entry(sample.metric.name()).or_default();
                of_metric
                    .entry(sample.balancer.option())
                    .or_default()
                    .insert(key, median);
            }
        }
    }
    let settings = json!({
        "bulk_seconds": settings.bulk_seconds,
        "small_seconds": settings.small_seconds,
        "small1_seconds": settings.small1_seconds,
        "short_connections": settings.short_connections,
        "logged_connections": settings.logged_connections,
        "tls_connections": settings.tls_connections,
        "relayed_requests": settings.relayed_requests,
        "idle_connections": settings.idle_connections,
    });
    let report = json!({
        "run": facts,
        "settings": settings,
        "figures": verdicts.iter().map(json_verdict).collect::<Vec<_>>(),
        "medians": medians,
        "samples": all,
    });
    // A tree of strings and numbers always has a text.
    format!("{report:#}\n")
}

fn json_sample(sample: &Sample) -> Value {
    let mut entry = json!({
        "round": sample.round + 1,
        "metric": sample.metric.name(),
        "balancer": sample.balancer.option(),
    });
    match &sample.outcome {
        Ok(values) => entry["values"] = json!(values),
        Err(message) => entry["error"] = json!(message),
    }
    entry
}

fn json_verdict(verdict: &Verdict) -> Value {
    let spread = |s: Option<Spread>| s.map(|s| json!({ "median": s.median, "low": s.low, "high": s.high }));
    json!({
        "name": verdict.figure.name,
        "required": requirement(verdict),
        "against_haproxy": spread(verdict.haproxy),
        "against_nginx": spread(verdict.nginx),
        "seen": verdict.seen,
        "passed": verdict.passed,
    })
}

/// The whole page.
pub(super) fn page(facts: &Facts, samples: &[Sample], verdicts: &[Verdict], stem: &str) -> String {
    let mut page = "# Ringway beside other balancers\n\nWritten by the command below; do not edit.\n\n".to_owned();
    for (name, value) in facts {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            page,
            "- {name}: {}",
            if *name == "command" {
                format!("`{value}`")
            } else {
                value.clone()
            }
        );
    }
    let rounds = samples.iter().map(|s| s.round + 1).max().unwrap_or(0);
    let _ = write!(
        page,
        "- rounds: {rounds}\n\n![plot]({stem}.svg)\n\n{}",
        tables(samples, verdicts)
    );
    let failures: Vec<String> = samples.iter().filter_map(Sample::failure).collect();
    if !failures.is_empty() {
        let _ = write!(page, "\n## Not measured\n\n- {}\n", failures.join("\n- "));
    }
    page
}

/// Both tables: what was measured, and how it stands to what is required.
pub(super) fn tables(samples: &[Sample], verdicts: &[Verdict]) -> String {
    format!(
        "Medians over the rounds. CPU is that of all processes of the balancer.\n\n{}\n\
         Medians of the paired ratios, Ringway divided by the peer, with the lowest and highest round.\n\n{}",
        values_table(samples),
        figures_table(verdicts)
    )
}

fn values_table(samples: &[Sample]) -> String {
    let columns: Vec<Balancer> = Balancer::ALL
        .iter()
        .copied()
        .filter(|b| samples.iter().any(|s| s.balancer == *b))
        .collect();
    let titles: Vec<&str> = columns.iter().map(|b| b.title()).collect();
    let mut table = format!("| | {} |\n|---|{}\n", titles.join(" | "), "---:|".repeat(columns.len()));
    for (title, metric, key) in ROWS {
        let medians: Vec<Option<f64>> = columns.iter().map(|b| median_of(samples, *metric, *b, key)).collect();
        if medians.iter().any(Option::is_some) {
            let cells: Vec<String> = medians
                .into_iter()
                .map(|m| m.map_or_else(|| "–".to_owned(), number))
                .collect();
            let _ = writeln!(table, "| {title} | {} |", cells.join(" | "));
        }
    }
    table
}

fn figures_table(verdicts: &[Verdict]) -> String {
    let mut table = "| figure | to HAProxy | to nginx | required | |\n|---|---|---|---|---|\n".to_owned();
    for verdict in verdicts {
        let cell = |spread: Option<Spread>| {
            spread.map_or_else(
                || "–".to_owned(),
                |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.low, s.high),
            )
        };
        let word = match verdict.passed {
            Some(true) => "pass",
            Some(false) => "**missed**",
            None => "not measured",
        };
        let (name, required) = (verdict.figure.name, requirement(verdict));
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {required} | {word} |",
            cell(verdict.haproxy),
            cell(verdict.nginx)
        );
    }
    table
}

/// In words: `at most 0.70 × the better one (aim 0.50)`.
fn requirement(verdict: &Verdict) -> String {
    let figure = verdict.figure;
    let (word, bound) = match figure.bound {
        Bound::AtMost(bound) => ("at most", bound),
        Bound::AtLeast(bound) => ("at least", bound),
    };
    let peer = match figure.against {
        Against::Better => "the better one".to_owned(),
        Against::One(peer) => peer.title().to_owned(),
        Against::Nothing => {
            let seen = verdict
                .seen
                .map_or_else(String::new, |seen| format!(", seen {}", number(seen)));
            return format!("{word} {}{seen}", number(bound));
        }
    };
    let aim = figure.aim.map_or_else(String::new, |aim| format!(" (aim {aim:.2})"));
    format!("{word} {bound:.2} × {peer}{aim}")
}

/// Replaces what stands between the two markers, if the file has them.
pub(super) fn refresh_readme(
    file: &Path,
    facts: &Facts,
    samples: &[Sample],
    verdicts: &[Verdict],
) -> Result<(), String> {
    let Ok(old) = std::fs::read_to_string(file) else {
        return Ok(());
    };
    let fact = |name: &str| {
        facts
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let text = format!(
        "{}\nMade by `{}` on {} ({}, {}; Ringway at {}; {}; {}). Every round is in `bench/results/latest.json`.\n",
        tables(samples, verdicts),
        fact("command"),
        fact("date"),
        fact("cpu"),
        fact("kernel"),
        fact("ringway"),
        fact("haproxy"),
        fact("nginx"),
    );
    let Some(new) = between_markers(&old, &text) else {
        return Ok(());
    };
    std::fs::write(file, new).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    println!("refreshed the table in {}", file.display());
    Ok(())
}

fn between_markers(old: &str, text: &str) -> Option<String> {
    let begin = old.find(README_BEGIN)? + README_BEGIN.len();
    let end = begin + old[begin..].find(README_END)?;
    Some(format!("{}\n\n{text}\n{}", &old[..begin], &old[end..]))
}

#[cfg(test)]
mod tests {
    use super::super::figures::judge;
    use super::super::results::Values;
    use super::*;

    fn samples() -> Vec<Sample> {
        let sample = |balancer, cpu| Sample::new(0, Metric::Short, balancer, Ok(Values::from([("cpu_us", cpu)])));
        vec![
            sample(Balancer::Ringway, 55.0),
            sample(Balancer::Haproxy, 61.0),
            sample(Balancer::Nginx, 59.0),
        ]
    }

    #[test]
    fn tables_show_values_ratios_and_verdict() {
        let text = tables(&samples(), &judge(&samples()));
        assert!(text.contains("| | Ringway | HAProxy | nginx |\n"), "{text}");
        assert!(
            text.contains("| short connections, CPU µs each | 55.0 | 61.0 | 59.0 |"),
            "{text}"
        );
        let row = "| short connections, CPU each | 0.90 (0.90–0.90) | 0.93 (0.93–0.93) \
                   | at most 1.00 × the better one (aim 0.93) | pass |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let old = format!("before\n{README_BEGIN}\nold\n{README_END}\nafter\n");
        let new = between_markers(&old, "new\n").expect("both markers are there");
        assert_eq!(new, format!("before\n{README_BEGIN}\n\nnew\n\n{README_END}\nafter\n"));
        assert_eq!(between_markers("no markers", "new"), None);
        assert_eq!(between_markers(README_BEGIN, "new"), None);
    }

    #[test]
    fn the_json_can_be_read_back() {
        let mut samples = samples();
        samples.push(Sample::new(
            0,
            Metric::Idle,
            Balancer::Nginx,
            Err("it said \"no\"".to_owned()),
        ));
        let text = json(
            &vec![("command", "cargo xtask bench".to_owned())],
            &samples,
            &judge(&samples),
            &Settings::QUICK,
        );
        let back: Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(back["medians"]["short"]["ringway"]["cpu_us"], 55.0);
        assert_eq!(back["samples"][3]["error"], "it said \"no\"");
        assert_eq!(back["run"]["command"], "cargo xtask bench");
    }
}
