//! P3 backends that are dead in quieter ways: unreachable, stopped, too full to answer, closing at once.

use crate::{SOON, first_of, ms};
use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, FullQueue, Place};
use ringway_tests::backend_process::BackendProcess;
use ringway_tests::client::short_connection;
use ringway_tests::namespace::Namespace;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::steady::{Attempt, Steady};
use ringway_tests::wire::Dial;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What scheduling on a busy machine may add.
const SLACK: Duration = Duration::from_millis(300);

/// From the moment when a backend stops answering: until a probe begins, `fails` probes that begin `interval` apart,
/// each give or take a tenth, and the last one's timeout.
fn until_out(interval: Duration, fails: u32, timeout: Duration) -> Duration {
    interval.mul_f64(1.1) * fails + timeout + SLACK
}

fn errors<T>(attempts: &[Attempt<T>]) -> Vec<&String> {
    attempts
        .iter()
        .filter_map(|attempt| attempt.result.as_ref().err())
        .collect()
}

#[test]
fn p3_a_black_hole_costs_one_connect_timeout() {
    if !is_root("p3_a_black_hole_costs_one_connect_timeout") {
        return;
    }
    let _turn = Turn::start("p3_a_black_hole_costs_one_connect_timeout", Duration::from_secs(90));
    let mut promise = Promise::new("P3", "packets to a backend are dropped (nftables)");
    let namespace = Namespace::new();
    let start = |host| {
        let address = Some(Address::Inet(SocketAddr::from(([127, 0, 0, host], 0))));
        let place = Place {
            address,
            namespace: Some(&namespace),
            ..Place::default()
        };
        Backend::start_at(Behaviour::Echo, &place)
    };
    let backends = [start(2), start(3), start(4)];
    let (far, connect_timeout) = (&backends[1].address, Duration::from_millis(400));
    let (interval, timeout, fails) = (Duration::from_secs(1), Duration::from_millis(500), 3);
    for (how, out, keys) in [
        (
            "probes",
            "down",
            [
                ("passive", "off"),
                ("health_check", "{ interval: 1s, timeout: 500ms, fails: 3 }"),
            ],
        ),
        (
            "connections",
            "ejected",
            [("passive", "{ eject: 1s }"), ("health_check", "off")],
        ),
    ] {
        let addresses: Vec<_> = backends.iter().map(|backend| &backend.address).collect();
        let (mut setup, front) = Setup::simple("round_robin", &addresses);
        setup = setup.pool_key("connect_timeout", "400ms").pool_key("tries", "2");
        for (key, value) in keys {
            setup = setup.pool_key(key, value);
        }
        let ringway = Ringway::start_in(&setup, &namespace);
        let dial = Dial::to(&front);
        let load = Steady::start(Some(&namespace), 200, move || short_connection(dial.clone()));
        std::thread::sleep(Duration::from_millis(500));
        namespace.drop_packets("ip daddr 127.0.0.3");
        let dropped = Instant::now();
        ringway.wait_for_condition(far, out, Duration::from_secs(10));
        let found = dropped.elapsed();
        std::thread::sleep(Duration::from_millis(500));
        let ended = Instant::now();
        let packets = namespace.drop_nothing();
        assert!(packets > 0, "the rule has dropped packets");
        ringway.wait_for_condition(far, "up", Duration::from_secs(10));
        let attempts = load.stop();
        let lost = errors(&attempts);
        promise.figure(
            format!("0 of {} lost, found by {how}", attempts.len()),
            first_of(&lost),
            lost.is_empty(),
        );
        // Those that a backend served already have bytes under way when packets vanish; TCP sends them again for as
        // long as that lasts.
        let new = attempts
            .iter()
            .filter(|attempt| attempt.began > dropped && attempt.began < ended);
        let slowest = new.map(|attempt| attempt.took).max().unwrap_or_default();
        let limit = connect_timeout + SLACK;
        promise.at_most(
            "ms for the slowest new one (connect_timeout 400)",
            ms(slowest),
            ms(limit),
        );
        let limit = match out {
            "down" => until_out(interval, fails, timeout),
            _ => connect_timeout + SLACK,
        };
        promise.at_most(&format!("ms until it is {out}"), ms(found), ms(limit));
        ringway.finish();
    }
    promise.finish();
}

#[test]
fn p3_a_stopped_backend_is_found_by_asking_it() {
    let _turn = Turn::start("p3_a_stopped_backend_is_found_by_asking_it", Duration::from_secs(90));
    let mut promise = Promise::new("P3", "a backend is stopped (SIGSTOP), its kernel still accepts");
    let (interval, timeout, fails) = (Duration::from_millis(500), Duration::from_millis(400), 3);
    let check = "interval: 500ms, timeout: 400ms, fails: 3, passes: 2";
    for (probe, behaviour) in [
        ("protocol: http", "http"),
        ("protocol: send_expect, send: 'PING', expect: 'PING'", "echo"),
    ] {
        let stopped = BackendProcess::start(behaviour, &free_v4());
        let other = BackendProcess::start(behaviour, &free_v4());
        let (setup, front) = Setup::simple("round_robin", &[&stopped.address, &other.address]);
        let ringway = Ringway::start(&setup.pool_key("health_check", &format!("{{ {probe}, {check} }}")));
        // Probes are under way.
        ringway.wait_for_count("ringway_health_checks_total", &[("result", "passed")], 4);
        stopped.process().signal(Signal::SIGSTOP);
        let took = ringway.wait_for_condition(&stopped.address, "down", Duration::from_secs(10));
        let limit = until_out(interval, fails, timeout);
        promise.at_most(&format!("ms until it is down ({probe})"), ms(took), ms(limit));
        let dial = Dial::to(&front);
        let load = Steady::start(None, 200, move || {
            let dial = dial.clone();
            async move { dial.connect_within(SOON).await.map(drop) }
        });
        let label = stopped.address.to_string();
        let connections = || ringway.count("ringway_backend_connections_total", &[("backend", &label)]);
        let before = connections();
        std::thread::sleep(Duration::from_millis(500));
        let attempts = load.stop();
        promise.at_most(
            &format!("of {} new connections sent there then", attempts.len()),
            connections() - before,
            0,
        );
        stopped.process().signal(Signal::SIGCONT);
        let back = ringway.wait_for_condition(&stopped.address, "up", Duration::from_secs(10));
        // Two passes, and a timeout if it wakes within a probe.
        let limit = interval.mul_f64(1.1) * 3 + timeout + SLACK;
        promise.at_most("ms until it is up when it goes on", ms(back), ms(limit));
        ringway.finish();
    }
    promise.finish();
}

#[test]
fn p3_a_full_listen_queue_is_found() {
    let _turn = Turn::start("p3_a_full_listen_queue_is_found", Duration::from_secs(60));
    let mut promise = Promise::new("P3", "a backend's listen queue is full");
    for (how, out, passive, check) in [
        ("probes", "down", "off", "{ interval: 300ms, timeout: 300ms, fails: 2 }"),
        ("connections", "ejected", "{ eject: 1s }", "off"),
    ] {
        let (full, other) = (FullQueue::new(), Backend::start(Behaviour::Echo));
        let (setup, front) = Setup::simple("round_robin", &[&full.address, &other.address]);
        let setup = setup.pool_key("connect_timeout", "400ms").pool_key("passive", passive);
        let ringway = Ringway::start(&setup.pool_key("health_check", check));
        let dial = Dial::to(&front);
        let load = Steady::start(None, 100, move || short_connection(dial.clone()));
        let took = ringway.wait_for_condition(&full.address, out, Duration::from_secs(5));
        // Longer than any connect that began before.
        std::thread::sleep(Duration::from_millis(500));
        let attempts = load.stop();
        let lost = errors(&attempts);
        promise.figure(
            format!("0 of {} lost, found by {how}", attempts.len()),
            first_of(&lost),
            lost.is_empty(),
        );
        let limit =
            until_out(Duration::from_millis(300), 2, Duration::from_millis(300)).max(Duration::from_millis(900));
        promise.at_most(&format!("ms until it is {out}"), ms(took), ms(limit));
        ringway.finish();
    }
    promise.finish();
}

#[test]
fn p3_a_backend_that_hangs_up_at_once_is_found() {
    let _turn = Turn::start("p3_a_backend_that_hangs_up_at_once_is_found", Duration::from_secs(60));
    let mut promise = Promise::new("P3", "a backend accepts and hangs up at once");
    for behaviour in [Behaviour::CloseAtOnce, Behaviour::ResetAtOnce] {
        let words = format!("{behaviour:?}");
        let (closing, other) = (Backend::start(behaviour), Backend::start(Behaviour::Echo));
        let backends = [&closing.address, &other.address];

        // By the TCP probe: nobody connects meanwhile.
        let (setup, front) = Setup::simple("round_robin", &backends);
        let check = "{ protocol: tcp, interval: 300ms, timeout: 300ms, fails: 3 }";
        let setup = setup.pool_key("passive", "off").pool_key("health_check", check);
        let ringway = Ringway::start(&setup);
        let took = ringway.wait_for_condition(&closing.address, "down", Duration::from_secs(5));
        let limit = until_out(Duration::from_millis(300), 3, Duration::from_millis(100));
        promise.at_most(
            &format!("{words}: ms until the TCP probe has found it"),
            ms(took),
            ms(limit),
        );
        let dial = Dial::to(&front);
        let load = Steady::start(None, 200, move || short_connection(dial.clone()));
        std::thread::sleep(Duration::from_millis(500));
        let attempts = load.stop();
        let lost = errors(&attempts);
        promise.figure(
            format!("0 of {} lost then", attempts.len()),
            first_of(&lost),
            lost.is_empty(),
        );
        ringway.finish();

        // By connections: three in a row tell it, and each trial costs one more.
        let (setup, front) = Setup::simple("round_robin", &backends);
        let ringway = Ringway::start(&setup.pool_key("passive", "{ eject: 10s }"));
        let dial = Dial::to(&front);
        let load = Steady::start(None, 200, move || short_connection(dial.clone()));
        ringway.wait_for_condition(&closing.address, "ejected", SOON);
        std::thread::sleep(Duration::from_millis(500));
        let attempts = load.stop();
        let lost = errors(&attempts).len();
        // One or two more may be under way when the third tells it.
        promise.figure(
            format!(
                "{words}: 3 to 5 of {} lost until connections have found it",
                attempts.len()
            ),
            format!("{lost}"),
            (3..=5).contains(&lost),
        );
        ringway.finish();
    }
    promise.finish();
}
