//! P2 churn, P7 no descriptors left, P8 a burst of connects.

use crate::{SOON, ms};
use ringway_tests::backend::{Backend, Behaviour, Place};
use ringway_tests::client::{Seen, churn, many, open_relays, run};
use ringway_tests::namespace::Namespace;
use ringway_tests::process::wait_for;
use ringway_tests::program::{self, Launch};
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, Wire};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[test]
fn p2_churn_loses_nothing() {
    let _turn = Turn::start("p2_churn_loses_nothing", Duration::from_secs(180));
    let mut promise = Promise::new("P2", "churn loses nothing");
    let count = figure(3_000, 30_000);
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let descriptors = ringway.process.descriptors();
    // In turns, so that what the machine does besides meets both paths; the medians are compared.
    const ROUNDS: usize = 3;
    let (mut paths, mut errors) = ([Vec::new(), Vec::new()], Vec::new());
    run(None, async {
        for _ in 0..ROUNDS {
            let mut direct = churn(&Dial::to(&backend.address), 500, 500).await;
            let mut seen = churn(&Dial::to(&front), count / ROUNDS as u64, 500).await;
            paths[0].push(direct.percentile(99));
            paths[1].push(seen.percentile(99));
            errors.append(&mut seen.errors);
        }
    });
    ringway.settle();
    let [direct, through] = paths.map(|mut p99| {
        p99.sort();
        p99[ROUNDS / 2]
    });
    let figure = format!("{} of {count} {:?}", errors.len(), errors.first());
    promise.figure("0 errors", figure, errors.is_empty());
    let limit = ms(direct * 3 / 2).max(5.0);
    let figure = format!(
        "p99 at 500/s below 5 ms or 1.5 times the direct path ({} ms)",
        ms(direct)
    );
    promise.figure(figure, format!("{} ms", ms(through)), ms(through) < limit);
    // The admin port may still be closing the request that saw all settled.
    wait_for(SOON, || (ringway.process.descriptors() <= descriptors).then_some(()));
    promise.at_most("descriptors at the end", ringway.process.descriptors(), descriptors);
    promise.finish();
    ringway.finish();
}

/// Wants 300 connections of a process that can have 200 descriptors; what it was like then.
fn out_of_descriptors(promise: &mut Promise, how: &str, setup: &Setup, front: &Dial, ringway: &Ringway) {
    let (served, cpu, alive, room) = run(None, async {
        let (mut served, mut waiting) = (Vec::new(), Vec::new());
        for wire in many(300, 300, |_| attempt(front.clone(), Duration::from_secs(2))).await {
            match wire {
                Some((wire, true)) => served.push(wire),
                Some((wire, false)) => waiting.push(wire),
                None => {}
            }
        }
        let cpu = ringway.process.cpu_percent_over(Duration::from_secs(2));
        let mut alive = 0;
        for wire in &mut served {
            alive += usize::from(wire.ping(b"still here", SOON).await.is_ok());
        }
        assert!(ringway.is_ready(), "admin answers with {setup:?}");
        let count = served.len();
        let began = Instant::now();
        served.truncate(count - 20);
        let room = first_served(waiting, front).await.then(|| began.elapsed());
        (count, cpu, alive, room)
    });
    promise.at_least(&format!("served ({how})"), served, 40);
    promise.figure("below 5 % CPU", format!("{cpu:.1} %"), cpu < 5.0);
    promise.figure(
        "established ones go on",
        format!("{alive} of {served}"),
        alive == served,
    );
    let room = room.map_or(f64::INFINITY, |room| room.as_secs_f64());
    promise.at_most("seconds until accepting again", (room * 1000.0).round() / 1000.0, 0.5);
}

/// A connection and whether it was served within the limit; `None` if it was refused or reset.
async fn attempt(dial: Dial, limit: Duration) -> Option<(Wire, bool)> {
    let mut wire = dial.connect_within(limit).await.ok()?;
    match wire.ping(b"?", limit).await {
        Ok(()) => Some((wire, true)),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Some((wire, false)),
        Err(_) => None,
    }
}

/// Waits until one that waited in the backlog is answered, or a new one is served.
async fn first_served(waiting: Vec<Wire>, dial: &Dial) -> bool {
    use tokio::io::AsyncReadExt;
    let mut running = JoinSet::new();
    for mut wire in waiting {
        running.spawn(async move { matches!(wire.read(&mut [0; 8]).await, Ok(n) if n > 0) });
    }
    let dial = dial.clone();
    running.spawn(async move {
        let began = Instant::now();
        while began.elapsed() < SOON {
            if attempt(dial.clone(), Duration::from_millis(200))
                .await
                .is_some_and(|(_, served)| served)
            {
                return true;
            }
        }
        false
    });
    while let Some(served) = running.join_next().await {
        if served.expect("a client does not panic") {
            return true;
        }
    }
    false
}

#[test]
fn p7_out_of_descriptors_is_degraded_not_dead() {
    let _turn = Turn::start("p7_out_of_descriptors_is_degraded_not_dead", Duration::from_secs(90));
    let mut promise = Promise::new("P7", "out of descriptors: degraded, not dead");
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let dial = Dial::to(&front);

    // It knows its limit of 200 ...
    let ringway = Ringway::start_with(
        &setup,
        &Launch {
            nofile: Some(200),
            ..Launch::default()
        },
    );
    out_of_descriptors(&mut promise, "limit of 200 known at start", &setup, &dial, &ringway);
    ringway.finish();

    // ... or is taken by surprise. Started with 4,000, it has so little room that it accepts one by one; an accept that
    // goes on by itself would keep the limit under which it was armed.
    let ringway = Ringway::start_with(
        &setup,
        &Launch {
            nofile: Some(4_000),
            ..Launch::default()
        },
    );
    let pid = ringway.process.0.to_string();
    let lower = ["--pid", &pid, "--nofile=200:4000"];
    let (status, said) = program::run(&Launch::default(), "prlimit", &lower, SOON);
    assert!(status.success(), "prlimit: {said}");
    out_of_descriptors(&mut promise, "lowered to 200 while running", &setup, &dial, &ringway);
    let shed = ringway.count("ringway_shed_total", &[("reason", "descriptors")]);
    let local = ringway.count("ringway_backend_connect_errors_total", &[("reason", "local")]);
    promise.at_least("counted as shed for descriptors or as local errors", shed + local, 1);
    promise.finish();
    ringway.finish();
}

/// ListenOverflows and ListenDrops of this thread's network namespace.
fn listen_overflows() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("the counters can be read");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        lines.next().expect("a line of names"),
        lines.next().expect("a line of values"),
    );
    let named = names.split(' ').zip(values.split(' '));
    let wanted = named.filter(|(name, _)| ["ListenOverflows", "ListenDrops"].contains(name));
    wanted.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

#[test]
fn p8_a_burst_of_connects_is_not_refused() {
    // In a namespace of its own, so that the kernel's counters are ours alone.
    if !is_root("p8_a_burst_of_connects_is_not_refused") {
        return;
    }
    let _turn = Turn::start("p8_a_burst_of_connects_is_not_refused", Duration::from_secs(90));
    let mut promise = Promise::new("P8", "a burst of connects is not refused");
    let count = 4_000;
    let namespace = Namespace::new();
    let backend = Backend::start_at(
        Behaviour::Echo,
        &Place {
            namespace: Some(&namespace),
            ..Place::default()
        },
    );
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start_in(&setup, &namespace);
    let before = namespace.inside(listen_overflows);
    let mut seen = Seen::default();
    for round in 0..figure(1, 5) {
        let results = run(Some(&namespace), async {
            // All are open at the same time before the first is closed.
            let began = Instant::now();
            open_relays(&Dial::to(&front), count, usize::MAX)
                .await
                .map(|_| began.elapsed())
        });
        seen.add(results);
        assert!(seen.errors.is_empty(), "round {round}: {:?}", seen.errors);
        wait_for(SOON, || {
            (ringway.count("ringway_listener_connections", &[]) == 0).then_some(())
        });
    }
    promise.figure(
        format!("0 of {count} at once refused"),
        format!("{} refused", seen.errors.len()),
        true,
    );
    promise.figure("all served", format!("within {} ms", ms(seen.percentile(100))), true);
    promise.at_most("listen overflows", namespace.inside(listen_overflows) - before, 0);
    promise.finish();
    ringway.finish();
}
