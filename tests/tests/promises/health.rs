//! P3 a backend's death: killed, ejected and tried again, and how soon every worker knows.

use crate::{SOON, first_of, ms};
use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, HOLD, Health};
use ringway_tests::backend_process::BackendProcess;
use ringway_tests::client::{many, open_relays, run, short_connection};
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::steady::Steady;
use ringway_tests::wire::{Dial, End, Wire};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const PER_SECOND: u32 = 500;

#[test]
fn p3_a_killed_backend_costs_no_new_connection_with_probes() {
    let _turn = Turn::start(
        "p3_a_killed_backend_costs_no_new_connection_with_probes",
        Duration::from_secs(300),
    );
    let keys = [
        ("passive", "off"),
        (
            "health_check",
            "{ interval: 200ms, timeout: 500ms, fails: 2, passes: 2 }",
        ),
    ];
    killed("kill -9 under 500/s, active health only", &keys, "down");
}

#[test]
fn p3_a_killed_backend_costs_no_new_connection_with_passive_health() {
    let _turn = Turn::start(
        "p3_a_killed_backend_costs_no_new_connection_with_passive_health",
        Duration::from_secs(300),
    );
    killed("kill -9 under 500/s, passive health only", &[], "ejected");
}

/// Relays of one round: idle ones, which end with FIN, and ones with bytes that the backend has not read, which end
/// with RST.
struct Relays {
    idle: Vec<Wire>,
    unread: Vec<Wire>,
}

impl Relays {
    const EACH: u64 = 5;

    async fn open(dial: &Dial) -> Self {
        let idle = open_relays(dial, Self::EACH, 5).await.expect("relays open");
        let mut unread = open_relays(dial, Self::EACH, 5).await.expect("relays open");
        for wire in &mut unread {
            wire.write_all(&[HOLD]).await.expect("the relay stands");
        }
        // Two reads, if it is quick: the second one is never made.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for wire in &mut unread {
            wire.write_all(b"unread").await.expect("the relay stands");
        }
        Self { idle, unread }
    }

    /// How each ended, and when; for a second at most.
    async fn ends(self) -> Vec<(End, End, Instant)> {
        let expected = |wires: Vec<Wire>, end| wires.into_iter().map(move |wire| (wire, end));
        let mut wires = expected(self.idle, End::Orderly).chain(expected(self.unread, End::Reset));
        many(2 * Self::EACH, usize::MAX, |_| {
            let (mut wire, expected) = wires.next().expect("as many as were opened");
            async move {
                let (_, end) = wire.read_to_end_of(Duration::from_secs(1)).await;
                (expected, end, Instant::now())
            }
        })
        .await
    }
}

/// What the relays of all rounds saw.
#[derive(Default)]
struct Ends {
    wrong: Vec<(End, End)>,
    slowest: Duration,
}

impl Ends {
    fn add(&mut self, ends: &[(End, End, Instant)], killed: Instant) {
        for &(expected, end, at) in ends {
            self.slowest = self.slowest.max(at.saturating_duration_since(killed));
            if expected != end {
                self.wrong.push((expected, end));
            }
        }
    }
}

/// Kills one of three backends after the other while new connections come.
fn killed(words: &'static str, keys: &[(&str, &str)], out: &str) {
    let mut promise = Promise::new("P3", words);
    let rounds = figure(3, 20);
    let addresses = [free_v4(), free_v4(), free_v4()];
    let mut backends = addresses
        .each_ref()
        .map(|address| Some(BackendProcess::start("echo-or-hold", address)));
    let (mut setup, front) = Setup::simple("round_robin", &addresses.each_ref());
    for (key, value) in keys {
        setup = setup.pool_key(key, value);
    }
    // One extra attempt at most.
    setup = setup.pool_key("tries", "2");
    let alone = [free_v4(), free_v4(), free_v4()];
    for (n, (bind, address)) in alone.iter().zip(&addresses).enumerate() {
        let name = format!("alone-{n}");
        setup = setup
            .listener(&name, bind, &name)
            .pool(&name, "round_robin", &[address]);
    }
    let ringway = Ringway::start(&setup);
    let dial = Dial::to(&front);
    let load = Steady::start(None, PER_SECOND, move || short_connection(dial.clone()));
    let (mut through, mut direct, mut deaths) = (Ends::default(), Ends::default(), Vec::new());
    for round in 0..rounds {
        let victim = round % 3;
        let ends = run(None, async {
            let relays = Relays::open(&Dial::to(&alone[victim])).await;
            let beside = Relays::open(&Dial::to(&addresses[victim])).await;
            let ends = tokio::spawn(async { tokio::join!(relays.ends(), beside.ends()) });
            let killing = backends[victim].take().expect("it was started again");
            let death = tokio::task::spawn_blocking(move || killing.kill());
            (ends.await.expect("no panic"), death.await.expect("no panic"))
        });
        let ((seen, beside), death) = ends;
        through.add(&seen, death.0);
        direct.add(&beside, death.0);
        deaths.push(death);
        ringway.wait_for_condition(&addresses[victim], out, SOON);
        backends[victim] = Some(BackendProcess::start("echo-or-hold", &addresses[victim]));
        ringway.wait_for_condition(&addresses[victim], "up", SOON);
    }
    let attempts = load.stop();
    let (mut lost, mut with_it) = (Vec::new(), 0);
    for attempt in &attempts {
        let Err(error) = &attempt.result else { continue };
        let under_way =
            |&(sent, gone): &(Instant, Instant)| attempt.began <= gone && attempt.began + attempt.took >= sent;
        if deaths.iter().any(under_way) {
            with_it += 1;
        } else {
            lost.push(error.clone());
        }
    }
    promise.figure(
        format!(
            "0 of {} new connections lost in {rounds} deaths, with at most one extra attempt",
            attempts.len()
        ),
        first_of(&lost),
        lost.is_empty(),
    );
    // They were accepted by the dying backend, and had sent bytes by then.
    promise.at_most(
        "ended with their backend, of those begun before its end",
        with_it,
        4 * rounds,
    );
    let limit = ms(direct.slowest * 3 / 2).max(100.0);
    promise.figure(
        format!(
            "open relays end within 100 ms or 1.5 times the direct path ({} ms)",
            ms(direct.slowest)
        ),
        format!("{} ms", ms(through.slowest)),
        ms(through.slowest) <= limit,
    );
    promise.figure(
        "FIN stays FIN, RST stays RST",
        first_of(&through.wrong),
        through.wrong.is_empty(),
    );
    assert!(
        direct.wrong.is_empty(),
        "the backend's kernel itself: {:?}",
        direct.wrong
    );
    promise.finish();
    ringway.finish();
}

/// Connections that a dead backend got while ejected, by window between trials.
#[test]
fn p3_an_ejected_backend_is_tried_by_one_connection() {
    let _turn = Turn::start(
        "p3_an_ejected_backend_is_tried_by_one_connection",
        Duration::from_secs(120),
    );
    let mut promise = Promise::new("P3", "an ejected backend is tried by one connection at a time");
    let well = Backend::start(Behaviour::Echo);
    let (dead, label) = {
        let dead = free_v4();
        let label = dead.to_string();
        (dead, label)
    };
    let (setup, front) = Setup::simple("round_robin", &[&dead, &well.address]);
    let ringway = Ringway::start(&setup.pool_key("passive", "{ eject: 500ms }"));
    let refused = || ringway.count("ringway_backend_connect_errors_total", &[("backend", &label)]);
    let dial = Dial::to(&front);
    let load = Steady::start(None, 1_000, move || short_connection(dial.clone()));
    ringway.wait_for_condition(&dead, "ejected", SOON);
    std::thread::sleep(Duration::from_millis(100));
    let (mut before, mut trials) = (refused(), Vec::new());
    // The n-th ejection lasts n times as long; trial n fails at the end of it.
    for _ in 0..figure(4, 8) {
        let tried = wait_for(Duration::from_secs(8), || (refused() > before).then_some(()));
        assert!(tried.is_some(), "no trial within 8 s: {}", ringway.log());
        // What else slips through does so at once.
        std::thread::sleep(Duration::from_millis(200));
        let now = refused();
        trials.push(now - before);
        before = now;
    }
    promise.figure(
        format!("{} trials by one connection each", trials.len()),
        format!("{trials:?}"),
        trials.iter().all(|&connections| connections == 1),
    );
    // Back: the next trial goes well, and the backend serves.
    let back = Backend::start_on(Behaviour::Echo, dead.clone());
    ringway.wait_for_condition(&dead, "up", Duration::from_secs(10));
    wait_for(SOON, || (back.accepted() >= 10).then_some(()));
    let attempts = load.stop();
    let lost: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| attempt.result.as_ref().err())
        .collect();
    promise.figure(
        format!("0 of {} lost", attempts.len()),
        first_of(&lost),
        lost.is_empty(),
    );
    promise.at_least("served by it when it is back", back.accepted(), 10);
    promise.finish();
    ringway.finish();
}

#[test]
fn p3_all_workers_know_within_50_ms() {
    let _turn = Turn::start("p3_all_workers_know_within_50_ms", Duration::from_secs(120));
    let mut promise = Promise::new("P3", "all workers see a change of health");
    let rounds = figure(3, 20);
    // The same ports on two addresses, so that one key names the port of both health checks.
    let ip = |host| SocketAddr::from(([127, 0, 0, host], 0)).ip();
    let at = |host, port| Address::Inet(SocketAddr::new(ip(host), port));
    let (service, checked) = (free_v4().port(), free_v4().port());
    let health = [2, 3].map(|_| Health::well_after(Duration::ZERO));
    let _checks = [2, 3].map(|host| {
        let health = health[usize::from(host) - 2].clone();
        Backend::start_on(Behaviour::Health(health), at(host, checked))
    });
    let backends = [2, 3].map(|host| Backend::start_on(Behaviour::Name(host.to_string()), at(host, service)));
    let (setup, front) = Setup::simple("round_robin", &[&backends[0].address, &backends[1].address]);
    let check = format!("{{ protocol: http, port: {checked}, interval: 200ms, timeout: 1s, fails: 1, passes: 1 }}");
    let ringway = Ringway::start(&setup.pool_key("health_check", &check));
    let (changing, label) = (&backends[0].address, backends[0].address.to_string());
    let dial = Dial::to(&front);
    let load = Steady::start(None, 1_000, move || {
        let dial = dial.clone();
        async move { dial.connect().await?.line(SOON).await }
    });
    for _ in 0..rounds {
        for (status, condition) in [(503, "down"), (200, "up")] {
            health[0].set(status);
            ringway.wait_for_condition(changing, condition, SOON);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let attempts = load.stop();
    let told = ringway.told();
    let changes: Vec<_> = told.iter().filter(|told| told.backend == label).collect();
    // From each change to down until it is up again.
    let downs: Vec<_> = changes
        .windows(2)
        .filter(|pair| pair[0].message.contains("is down"))
        .map(|pair| (pair[0].at, pair[1].at))
        .collect();
    let mut late: Vec<Duration> = Vec::new();
    for &(down, up) in &downs {
        let there = |heard: &Result<String, String>| heard.as_ref().is_ok_and(|name| name == "2");
        let within = attempts.iter().filter(|attempt| {
            // A connection chooses after it began; those that end before the change chose before it.
            attempt.began_at + attempt.took >= down && attempt.began_at < up
        });
        let sent = within.filter(|attempt| there(&attempt.result) && attempt.began_at + attempt.took < up);
        late.extend(sent.filter_map(|attempt| attempt.began_at.duration_since(down).ok()));
    }
    let lost: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| attempt.result.as_ref().err())
        .collect();
    promise.figure(
        format!("{rounds} changes seen in the log"),
        format!("{}", downs.len()),
        downs.len() == rounds,
    );
    let before = attempts
        .iter()
        .filter(|attempt| attempt.result.as_deref() == Ok("2"))
        .count();
    promise.at_least("connections that went there while it was up", before, 50 * rounds);
    promise.at_most(
        "ms from the change to the last connection that went there",
        ms(late.iter().max().copied().unwrap_or_default()),
        50.0,
    );
    promise.figure(
        format!("0 of {} lost", attempts.len()),
        first_of(&lost),
        lost.is_empty(),
    );
    promise.finish();
    ringway.finish();
}
