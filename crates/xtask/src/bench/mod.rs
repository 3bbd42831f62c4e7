//! `cargo xtask bench`: Ringway beside other balancers, in alternating rounds of one run.
//!
//! The balancer runs on one core, load and backends on another, everything on loopback. In each round each metric is
//! taken for every balancer in turn, so that a ratio always compares neighbours in time. Follow one run:
//! [`run`] → [`measure`] (one balancer, one metric) → [`results`] (medians, paired ratios) → [`figures`] (what must be
//! shown) → [`report`] and [`plot`]. This folder measures from outside and knows nothing of Ringway but its command
//! line.

mod balancers;
mod figures;
mod guard;
mod host;
mod load;
mod measure;
mod options;
mod plot;
mod report;
mod results;
mod scrape;

use crate::{run as program, tools};
use balancers::{Balancer, Plan, Running};
use measure::{Bench, Settings};
use options::Options;
use results::{Metric, Sample};
use std::path::Path;
use std::time::Instant;

/// More than this share of the two cores in use by others makes figures doubtful.
const OTHER_LOAD_MAX: f64 = 0.1;

/// Fails when something could not be measured, or when a full run misses a figure that must be shown.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{}", options::USAGE);
        return Ok(());
    };
    let started = Instant::now();
    tools::ensure_for_bench()?;
    guard::clean_up_on_signals()?;
    let cores = host::two_cores()?;
    let root = program::root()?;
    build(&options)?;
    // Load, backends and this process share a core; `guard` moves each balancer to the other one.
    host::pin_to(cores.load)?;
    host::raise_descriptor_limit()?;

    let directory = guard::TemporaryDirectory::create()?;
    let settings = if options.quick { Settings::QUICK } else { Settings::FULL };
    let bench = Bench::start(
        &program::target_directory()?.join("release"),
        directory.path(),
        cores,
        settings,
    )?;
    let mut facts = host::facts(cores, options.command());
    let other_load = host::share_in_use(cores);
    facts.push((
        "quiet",
        format!(
            "the two cores were {:.0} % busy before the first round",
            100.0 * other_load
        ),
    ));
    for (name, value) in &facts {
        println!("{name:<10} {value}");
    }
    if other_load > OTHER_LOAD_MAX {
        println!("warning: other programs keep these cores busy; CPU figures will be too high and rates too low");
    }
    let samples = all_rounds(&bench, &options);
    drop(bench);

    let verdicts = figures::judge(&samples);
    let out = options.out.clone().unwrap_or_else(|| root.join("bench/results"));
    write(&out, options.stem(), &facts, &samples, &verdicts, &settings)?;
    if options.is_complete() {
        report::refresh_readme(&root.join("README.md"), &facts, &samples, &verdicts)?;
    }
    println!("{} s in all", started.elapsed().as_secs());
    conclude(&options, &samples, &verdicts)
}

fn build(options: &Options) -> Result<(), String> {
    let mut packages = vec!["--package=ringway-bench-load"];
    if options.balancers.contains(&Balancer::Ringway) {
        packages.push("--package=ringway");
    }
    if options.balancers.contains(&Balancer::Naive) {
        packages.push("--package=naive-tokio-uring");
    }
    program::show(program::cargo().args(["build", "--release"]).args(packages))
}

/// A measurement that fails becomes a sample that says so; the others go on.
fn all_rounds(bench: &Bench, options: &Options) -> Vec<Sample> {
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        let mut order = options.balancers.clone();
        let count = order.len();
        order.rotate_left(round % count);
        // The balancers of one round live through it side by side; an idle one costs nothing.
        let mut running: Vec<(Balancer, Result<Running, String>)> = Vec::new();
        for metric in options.metrics.iter().copied() {
            if metric == Metric::Idle {
                // Memory is read on a quiet machine and on fresh processes.
                running.clear();
                bench.wait_for_quiet_kernel();
            } else if running.is_empty() {
                running = order
                    .iter()
                    .map(|&b| (b, bench.start_balancer(Plan::fresh(b))))
                    .collect();
            }
            if metric == Metric::Tls {
                bench.wait_for_room_in_time_wait();
            }
            for &balancer in order.iter().filter(|&&balancer| metric.is_taken_of(balancer)) {
                let outcome = match running.iter().find(|(b, _)| *b == balancer) {
                    Some((_, Ok(running))) => bench.measure(metric, running),
                    Some((_, Err(message))) => Err(message.clone()),
                    None => bench
                        .start_balancer(Plan::fresh(balancer))
                        .and_then(|running| bench.measure(metric, &running)),
                };
                let sample = Sample::new(round, metric, balancer, outcome);
                println!("round {}/{}  {}", round + 1, options.rounds, sample.line());
                samples.push(sample);
            }
        }
    }
    samples
}

fn write(
    out: &Path,
    stem: &str,
    facts: &host::Facts,
    samples: &[Sample],
    verdicts: &[figures::Verdict],
    settings: &Settings,
) -> Result<(), String> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
    let files = [
        ("json", report::json(facts, samples, verdicts, settings)),
        ("md", report::page(facts, samples, verdicts, stem)),
        ("svg", plot::svg(facts, samples)),
    ];
    for (extension, text) in files {
        let file = out.join(format!("{stem}.{extension}"));
        std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        println!("wrote {}", file.display());
    }
    println!("\n{}", report::tables(samples, verdicts));
    Ok(())
}

fn conclude(options: &Options, samples: &[Sample], verdicts: &[figures::Verdict]) -> Result<(), String> {
    let failures: Vec<String> = samples.iter().filter_map(Sample::failure).collect();
    if !failures.is_empty() {
        return Err(format!(
            "not everything could be measured:\n  {}",
            failures.join("\n  ")
        ));
    }
    let missed: Vec<&str> = verdicts
        .iter()
        .filter(|v| v.passed == Some(false))
        .map(|v| v.figure.name)
        .collect();
    if options.is_complete() && !missed.is_empty() {
        return Err(format!("missed: {}", missed.join(", ")));
    }
    Ok(())
}
