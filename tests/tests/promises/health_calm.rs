//! P3 what is this machine's own trouble is never held against a backend: no time to run, no descriptors.

use crate::{SOON, first_of};
use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, Health};
use ringway_tests::client::{run, short_connection};
use ringway_tests::program::{self, Launch, Program};
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::steady::Steady;
use ringway_tests::wire::Dial;
use std::path::Path;
use std::time::{Duration, Instant};

/// Twenty well backends of each kind whose probes are under way for a good part of the time, judged by one failure.
struct Watched {
    backends: Vec<Backend>,
    setup: Setup,
    front: Address,
}

impl Watched {
    const EACH: usize = 20;

    fn new() -> Self {
        let mut backends = Vec::new();
        let front = free_v4();
        let mut setup = Setup::new().top("workers", "2").listener("front", &front, "echo");
        // Answers take a fifth of the timeout, and a TCP probe holds its connection for as long.
        let well = Health::well_after(Duration::from_millis(100));
        for (name, behaviour, probe) in [
            ("echo", Behaviour::Echo, "protocol: tcp"),
            ("http", Behaviour::Health(well), "protocol: http"),
            (
                "exchange",
                Behaviour::Echo,
                "protocol: send_expect, send: 'PING', expect: 'PING'",
            ),
        ] {
            let own: Vec<_> = (0..Self::EACH).map(|_| Backend::start(behaviour.clone())).collect();
            let addresses: Vec<_> = own.iter().map(|backend| &backend.address).collect();
            setup = setup.pool(name, "round_robin", &addresses);
            setup = setup.pool_key("connect_timeout", "500ms");
            setup = setup.pool_key(
                "health_check",
                &format!("{{ {probe}, interval: 1s, timeout: 500ms, fails: 1 }}"),
            );
            backends.extend(own);
        }
        Self { backends, setup, front }
    }
}

/// A figure: nothing was told of any backend, and all are up; and what probes made of it.
fn calm(promise: &mut Promise, how: &str, ringway: &Ringway) {
    let told: Vec<_> = ringway.told().into_iter().map(|told| told.message).collect();
    promise.figure(format!("{how}: no condition changes"), first_of(&told), told.is_empty());
    let others = ringway.not_up();
    promise.figure("all are up", first_of(&others), others.is_empty());
    let probes = |result| ringway.count("ringway_health_checks_total", &[("result", result)]);
    let words = format!(
        "{} passed, {} failed, {} did not count",
        probes("passed"),
        probes("failed"),
        probes("local")
    );
    promise.figure("no probe counts as failed", words, probes("failed") == 0);
}

#[test]
fn p3_nothing_flaps_when_the_process_is_stopped() {
    let _turn = Turn::start("p3_nothing_flaps_when_the_process_is_stopped", Duration::from_secs(200));
    let mut promise = Promise::new("P3", "nothing flaps when the process is stopped for 3 s, or for less");
    let watched = Watched::new();
    let ringway = Ringway::start(&watched.setup);
    let dial = Dial::to(&watched.front);
    let load = Steady::start(None, 100, move || short_connection(dial.clone()));
    // Shorter ones hit the time between a probe's timeout and what is called starved.
    for _ in 0..figure(1, 5) {
        for stopped in [3_000, 550, 650, 800].map(Duration::from_millis) {
            std::thread::sleep(Duration::from_millis(1_300));
            ringway.process.signal(Signal::SIGSTOP);
            std::thread::sleep(stopped);
            ringway.process.signal(Signal::SIGCONT);
        }
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let attempts = load.stop();
    let lost: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| attempt.result.as_ref().err())
        .collect();
    calm(&mut promise, "SIGSTOP and SIGCONT", &ringway);
    promise.figure(
        format!("0 of {} connections lost", attempts.len()),
        first_of(&lost),
        lost.is_empty(),
    );
    promise.finish();
    drop(watched.backends);
    ringway.finish();
}

#[test]
fn p3_nothing_flaps_when_the_processor_is_taken() {
    if !is_root("p3_nothing_flaps_when_the_processor_is_taken") {
        return;
    }
    let _turn = Turn::start("p3_nothing_flaps_when_the_processor_is_taken", Duration::from_secs(120));
    let mut promise = Promise::new(
        "P3",
        "nothing flaps when two busy processes of high priority take the core",
    );
    let watched = Watched::new();
    let ringway = Ringway::start(&watched.setup);
    let pid = ringway.process.0.to_string();
    let pin = ["--all-tasks", "--cpu-list", "--pid", "0", &pid];
    let (status, said) = program::run(&Launch::default(), "taskset", &pin, SOON);
    assert!(status.success(), "taskset: {said}");
    for _ in 0..figure(1, 5) {
        let spin = [
            "-n",
            "-40",
            "taskset",
            "--cpu-list",
            "0",
            "sh",
            "-c",
            "while :; do :; done",
        ];
        let busy = [0, 1].map(|_| Program::start(&Launch::default(), Path::new("nice"), &spin));
        std::thread::sleep(Duration::from_secs(3));
        drop(busy);
        std::thread::sleep(Duration::from_millis(1_500));
    }
    calm(&mut promise, "two busy processes", &ringway);
    promise.finish();
    drop(watched.backends);
    ringway.finish();
}

#[test]
fn p3_errors_of_our_own_count_against_nobody() {
    let _turn = Turn::start("p3_errors_of_our_own_count_against_nobody", Duration::from_secs(60));
    let mut promise = Promise::new("P3", "out of descriptors: no backend is held responsible");
    let backends = [0, 1, 2].map(|_| Backend::start(Behaviour::Echo));
    let (setup, front) = Setup::simple(
        "round_robin",
        &[&backends[0].address, &backends[1].address, &backends[2].address],
    );
    let check = "{ interval: 200ms, timeout: 500ms, fails: 1 }";
    let setup = setup
        .pool_key("health_check", check)
        .pool_key("passive", "{ fails: 1, eject: 10s }");
    let launch = Launch {
        nofile: Some(4_000),
        ..Launch::default()
    };
    let ringway = Ringway::start_with(&setup, &launch);
    let pid = ringway.process.0.to_string();
    let limit_to = |count: usize| {
        let limit = format!("--nofile={count}:4000");
        let (status, said) = program::run(&Launch::default(), "prlimit", &["--pid", &pid, &limit], SOON);
        assert!(status.success(), "prlimit: {said}");
    };
    let local = || {
        let errors = ringway.count("ringway_backend_connect_errors_total", &[("reason", "local")]);
        let probes = ringway.count("ringway_health_checks_total", &[("result", "local")]);
        (errors, probes)
    };
    let dial = Dial::to(&front);
    // From none at all to room for the client's side alone, and a little more. The fewest over a round of probes and
    // more: a probe that is under way holds a descriptor.
    let looked = Instant::now();
    let mut open = usize::MAX;
    while looked.elapsed() < Duration::from_millis(500) {
        open = open.min(ringway.process.descriptors());
    }
    for more in [0, 1, 2, 3] {
        limit_to(open + more);
        let load = Steady::start(None, 50, {
            let dial = dial.clone();
            move || {
                let dial = dial.clone();
                async move {
                    let _ = tokio::time::timeout(Duration::from_millis(500), short_connection(dial)).await;
                    Ok(())
                }
            }
        });
        std::thread::sleep(Duration::from_millis(1_000));
        limit_to(4_000);
        load.stop();
    }
    ringway.wait_for_count("ringway_health_checks_total", &[("result", "passed")], 3);
    let (errors, probes) = local();
    promise.at_least("connects that failed for it", errors, 1);
    promise.at_least("probes that failed for it", probes, 1);
    calm(&mut promise, "out of descriptors", &ringway);
    let served = run(None, short_connection(dial));
    promise.figure("served when there is room again", format!("{served:?}"), served.is_ok());
    promise.finish();
    ringway.finish();
}
