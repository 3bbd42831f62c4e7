//! P19 a session log that cannot be written. What one costs that can is measured by `cargo xtask bench --only log`: that
//! needs a core of its own, and a load that fills it.

use crate::{SOON, ms};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{churn, many, run, short_connection};
use ringway_tests::process::wait_for;
use ringway_tests::program::{self, Dir, Launch};
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use std::time::Duration;

/// Records that may wait (docs/session-log.md), as many in the writer's hands, and lines that fit into a pipe of 64 KiB.
const WAITING_MAX: u64 = 2 * 16_384 + 512;

/// A process with this session log, or without.
fn start(backend: &Backend, log: &str) -> (Ringway, Dial) {
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    (Ringway::start(&setup.top("session_log", log)), Dial::to(&front))
}

fn flood(dial: &Dial, count: u64) -> usize {
    let results = run(None, many(count, 64, |_| short_connection(dial.clone())));
    results.into_iter().filter_map(Result::err).count()
}

fn ended(ringway: &Ringway) -> u64 {
    ringway.count("ringway_sessions_ended_total", &[])
}

#[test]
fn p19_a_log_that_cannot_be_written_costs_no_connection() {
    let _turn = Turn::start(
        "p19_a_log_that_cannot_be_written_costs_no_connection",
        Duration::from_secs(180),
    );
    let mut promise = Promise::new("P19", "a full disk or stuck log reader costs no connection");
    let dir = Dir::new();
    let pipe = dir.path("pipe").display().to_string();
    let (status, said) = program::run(&Launch::default(), "mkfifo", &[&pipe], SOON);
    assert!(status.success(), "mkfifo: {said}");
    let backend = Backend::start(Behaviour::Echo);
    let (without, plain) = start(&backend, "off");
    for (words, log) in [("full disk", "/dev/full"), ("stuck reader", &*pipe)] {
        let (ringway, dial) = start(&backend, &format!("\"{log}\""));
        // More than may wait, so that lines are dropped while the figures are taken.
        let count = WAITING_MAX + figure(2_000, 50_000);
        let mut lost = flood(&dial, count);
        let dropped = || ringway.count("ringway_session_log_dropped_total", &[]);
        let counted = wait_for(SOON, || (ended(&ringway) == count && dropped() > 0).then_some(()));
        assert!(
            counted.is_some(),
            "{words}: {} ended, {} dropped",
            ended(&ringway),
            dropped()
        );
        // In turns, so that what the machine does besides meets both; the medians are compared.
        const ROUNDS: usize = 9;
        let mut p99 = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (dial, p99) in [&plain, &dial].into_iter().zip(&mut p99) {
                let mut seen = run(None, churn(dial, figure(250, 2_500), 1_000));
                lost += seen.errors.len();
                p99.push(seen.percentile(99));
            }
        }
        let [without, with] = p99.map(|mut p99| {
            p99.sort();
            p99[ROUNDS / 2]
        });
        promise.figure(format!("{words}: 0 connections lost"), lost.to_string(), lost == 0);
        let limit = (without + Duration::from_millis(1)).max(without * 3 / 2);
        promise.figure(
            format!(
                "{words}: p99 at 1,000/s at most 1 ms or half more than without a log ({} ms)",
                ms(without)
            ),
            format!("{} ms", ms(with)),
            with <= limit,
        );
        let waiting = ended(&ringway) - dropped();
        promise.figure(
            format!("{words}: what is not counted as dropped waits, at most {WAITING_MAX}"),
            format!("{waiting}, {} dropped", dropped()),
            waiting <= WAITING_MAX && dropped() > 0,
        );
        // Also at its end it waits for nobody.
        ringway.finish();
    }
    promise.finish();
    without.finish();
}
