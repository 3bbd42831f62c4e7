//! Names as backends: thousands of them, DNS servers in trouble, addresses that come and go.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{Seen, churn, many, open_relays, run};
use ringway_tests::dns::{Answer, Dns, Service};
use ringway_tests::process::wait_for;
use ringway_tests::program::Launch;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// 127.9.x.y.
fn loopback(n: u16) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, (n >> 8) as u8, n as u8)
}

/// A port on every address of this machine.
fn everywhere() -> Address {
    Address::Inet((Ipv4Addr::UNSPECIFIED, free_v4().port()).into())
}

/// Listener `front` in front of pool `named`, which has these backends and asks this server.
fn named_pool(dns: &Dns, intervals: &str, balance: &str, backends: &[String]) -> (String, String, Address) {
    let front = free_v4();
    let listener = format!("  front: {{ bind: \"{front}\", protocol: tcp, pool: named }}");
    let lines: Vec<_> = backends
        .iter()
        .map(|backend| format!("      - \"{backend}\""))
        .collect();
    let pool = format!(
        "  named:\n    balance: {balance}\n    resolve: {{ servers: \"{}\", {intervals} }}\n    backends:\n{}",
        dns.address,
        lines.join("\n")
    );
    (listener, pool, front)
}

/// Asks again every second.
const OFTEN: &str = "min_interval: 1s, max_interval: 1s";

fn start(dns: &Dns, balance: &str, backends: &[String]) -> (Setup, Ringway, Address) {
    let (listener, pool, front) = named_pool(dns, OFTEN, balance, backends);
    let setup = Setup::verbatim(&format!("listeners:\n{listener}\npools:\n{pool}"));
    let ringway = Ringway::start(&setup);
    (setup, ringway, front)
}

/// Waits until pool `named` has so many backends that can be chosen.
fn wait_for_usable(ringway: &Ringway, wanted: u64) {
    let usable = || ringway.count("ringway_pool_backends_usable", &[("pool", "named")]);
    let found = wait_for(SOON * 2, || (usable() == wanted).then_some(()));
    assert!(found.is_some(), "{} backends are usable, not {wanted}", usable());
}

fn status(ringway: &Ringway) -> Value {
    let (code, document) = ringway.get("/api/v1/status").expect("the admin port answers");
    assert_eq!(code, 200, "{document}");
    serde_json::from_str(&document).expect("JSON")
}

/// Tries until it is served; how often it was not.
async fn first_served(front: &Address) -> u64 {
    let mut refused = 0;
    loop {
        let ping = async {
            let mut wire = Dial::to(front).connect_within(SOON).await?;
            wire.ping(b"first", SOON).await
        };
        match ping.await {
            Ok(()) => return refused,
            Err(_) => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn two_thousand_names_are_ready_and_serve_within_2_s() {
    let _turn = Turn::start(
        "two_thousand_names_are_ready_and_serve_within_2_s",
        Duration::from_secs(60),
    );
    let mut promise = Promise::new("names", "a pool of 2,000 names is ready and serves within 2 s of start");
    let dns = Dns::start();
    let backend = Backend::start_on(Behaviour::Echo, everywhere());
    let names: Vec<_> = (0..2_000)
        .map(|n| format!("n{n}.test:{}", backend.address.port()))
        .collect();
    for n in 0..2_000 {
        dns.set(&format!("n{n}.test"), Answer::Addresses(vec![loopback(n)]));
    }
    let (listener, pool, front) = named_pool(&dns, "min_interval: 1m, max_interval: 1m", "round_robin", &names);
    let setup = Setup::verbatim(&format!("listeners:\n{listener}\npools:\n{pool}"));
    ringway_tests::binary::ringway();
    let began = Instant::now();
    let ringway = Ringway::start(&setup);
    let ready = began.elapsed().as_secs_f64();
    let refused = run(None, first_served(&front));
    let served = began.elapsed().as_secs_f64();
    wait_for_usable(&ringway, 2_000);
    let all = began.elapsed().as_secs_f64();
    promise.figure("ready within 2 s", format!("{ready:.2} s"), ready < 2.0);
    promise.figure(
        "serves within 2 s",
        format!("{served:.2} s ({refused} tries before)"),
        served < 2.0,
    );
    // All of them: 4,000 questions, for which the test's own server has to be fast as well.
    promise.figure("all names have addresses within 4 s", format!("{all:.2} s"), all < 4.0);
    assert_eq!(ringway.count("ringway_names_unresolved", &[]), 0);
    // Each of them is served to: in round robin each gets one of 2,000 connections, the first went before.
    let dial = Dial::to(&front);
    let failed = run(
        None,
        many(2_000, 32, |_| ringway_tests::client::short_connection(dial.clone())),
    );
    assert_eq!(
        failed.into_iter().filter_map(Result::err).count(),
        0,
        "connections that failed"
    );
    let metrics = ringway.metrics();
    let is_unused = |n: &u16| {
        let label = format!("n{n}.test:{0}/{1}:{0}", backend.address.port(), loopback(*n));
        metrics.count("ringway_backend_connections_total", &[("backend", &label)]) == 0
    };
    // A look through the page for each of a few.
    let unused: Vec<_> = (0..2_000).step_by(97).filter(is_unused).collect();
    assert!(unused.is_empty(), "names without a connection: {unused:?}");
    promise.finish();
    ringway.finish();
}

fn name(n: u16) -> String {
    format!("n{n}.test")
}

/// What the name with a number is answered with.
type Trouble = fn(u16) -> Answer;

/// Short connections straight to the backend and to both listeners, in turns so that what the machine does besides
/// meets all of them.
struct Paths<'a> {
    dials: [Dial; 3],
    ringway: &'a Ringway,
    count: u64,
}

impl Paths<'_> {
    /// Of each path the median of the rounds' p99, and the slowest connection of all, milliseconds.
    fn measure(&self) -> [(f64, f64); 3] {
        const ROUNDS: usize = 3;
        let mut seen: [Vec<Seen>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (dial, seen) in self.dials.iter().zip(&mut seen) {
                seen.push(run(None, churn(dial, self.count, 300)));
            }
        }
        seen.map(|rounds| {
            let of_round = |mut seen: Seen| {
                assert_eq!(seen.errors, Vec::<String>::new(), "failed: {}", self.ringway.log());
                [99, 100].map(|percent| (seen.percentile(percent).as_secs_f64() * 1e5).round() / 100.0)
            };
            let rounds: Vec<_> = rounds.into_iter().map(of_round).collect();
            let mut p99: Vec<_> = rounds.iter().map(|round| round[0]).collect();
            p99.sort_by(f64::total_cmp);
            (p99[ROUNDS / 2], rounds.iter().map(|round| round[1]).fold(0.0, f64::max))
        })
    }
}

#[test]
fn a_dns_server_in_trouble_delays_no_connection() {
    let _turn = Turn::start("a_dns_server_in_trouble_delays_no_connection", Duration::from_secs(240));
    let mut promise = Promise::new(
        "names",
        "a DNS server that is late, wrong or silent delays no connection",
    );
    let dns = Dns::start();
    let backend = Backend::start_on(Behaviour::Echo, everywhere());
    let port = backend.address.port();
    let names: Vec<_> = (0..20).map(|n| format!("{}:{port}", name(n))).collect();
    (0..20).for_each(|n| dns.set(&name(n), Answer::Addresses(vec![loopback(n)])));
    let (listener, pool, front) = named_pool(&dns, OFTEN, "round_robin", &names);
    let plain = free_v4();
    let setup = Setup::verbatim(&format!(
        "listeners:\n{listener}\n  plain: {{ bind: \"{plain}\", protocol: tcp, pool: plain }}\npools:\n{pool}\n  \
         plain: {{ backends: [\"127.0.0.1:{port}\"] }}"
    ));
    let ringway = Ringway::start(&setup);
    wait_for_usable(&ringway, 20);
    let direct = Address::Inet((Ipv4Addr::LOCALHOST, port).into());
    let paths = Paths {
        dials: [&direct, &plain, &front].map(Dial::to),
        ringway: &ringway,
        count: figure(100, 1_000),
    };
    let troubles: [(&str, Trouble); 5] = [
        ("silent", |_| Answer::Silence),
        ("late", |n| Answer::Late(Duration::from_secs(3), loopback(n))),
        ("garbage", |_| Answer::Garbage),
        ("other questions answered", |_| Answer::Wrong),
        ("SERVFAIL", |_| Answer::Failure),
    ];
    for (words, trouble) in troubles {
        (0..20).for_each(|n| dns.set(&name(n), trouble(n)));
        let asked = dns.asked();
        let heard = wait_for(SOON * 3, || (dns.asked() > asked).then_some(()));
        assert!(heard.is_some(), "{words}: nobody asks any more");
        let [(direct, _), plain, named] = paths.measure();
        for (pool, (p99, most)) in [("addresses", plain), ("names", named)] {
            promise.figure(
                format!(
                    "{words}, {pool}: p99 below 10 ms or 1.5 times the direct path ({direct} ms), none above 250 ms"
                ),
                format!("{p99} ms, {most} ms"),
                p99 < (direct * 1.5).max(10.0) && most < 250.0,
            );
        }
        // What was known of the names stays.
        assert_eq!(
            ringway.count("ringway_pool_backends_usable", &[("pool", "named")]),
            20,
            "{words}: {}",
            ringway.log()
        );
    }
    promise.finish();
    ringway.finish();
}

#[test]
fn a_name_without_an_address_starts_as_down_and_says_so() {
    let _turn = Turn::start(
        "a_name_without_an_address_starts_as_down_and_says_so",
        Duration::from_secs(60),
    );
    let dns = Dns::start();
    let backend = Backend::start_on(Behaviour::Echo, everywhere());
    let name = format!("missing.test:{}", backend.address.port());
    let (setup, ringway, front) = start(&dns, "round_robin", std::slice::from_ref(&name));
    let said = "missing.test does not exist (NXDOMAIN)";
    let logged = wait_for(SOON, || ringway.log().contains(said).then_some(()));
    assert!(logged.is_some(), "the log says it: {}", ringway.log());
    run(None, async {
        assert_eq!(Dial::to(&front).end_without_a_byte(SOON).await, End::Reset);
    });
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "no_backend")], 1);
    assert_eq!(ringway.count("ringway_names_unresolved", &[("pool", "named")]), 1);
    let document = status(&ringway);
    let pool = &document["pools"][0];
    assert_eq!(pool["usable"], 0, "{pool}");
    assert_eq!(pool["names"][0]["name"], name, "{pool}");
    assert_eq!(pool["names"][0]["outcome"], said, "{pool}");
    let admin = setup.admin.to_string();
    let (code, table, _) = run_to_end(&Launch::default(), &["status", "--admin", &admin], SOON);
    assert_eq!(code, Some(0));
    assert!(table.contains(&name) && table.contains(said), "{table}");
    // It is asked for again, and serves as soon as there is an address.
    dns.set("missing.test", Answer::Addresses(vec![loopback(1)]));
    wait_for_usable(&ringway, 1);
    run(None, first_served(&front));
    assert_eq!(ringway.count("ringway_names_unresolved", &[]), 0);
    ringway.finish();
}

#[test]
fn an_address_that_leaves_drains_and_its_series_go() {
    let _turn = Turn::start(
        "an_address_that_leaves_drains_and_its_series_go",
        Duration::from_secs(60),
    );
    let dns = Dns::start();
    let port = free_v4().port();
    let at = |n| Backend::start_on(Behaviour::Echo, Address::Inet((loopback(n), port).into()));
    let (leaving, staying) = (at(2), at(3));
    dns.set("db.test", Answer::Addresses(vec![loopback(2), loopback(3)]));
    let (_, ringway, front) = start(&dns, "round_robin", &[format!("db.test:{port}")]);
    wait_for_usable(&ringway, 2);
    let label = format!("db.test:{port}/{}:{port}", loopback(2));
    let series = || {
        let (_, page) = ringway.get("/metrics").expect("the admin port answers");
        page.lines().filter(|line| line.contains(&label)).count()
    };
    run(None, async {
        let dial = Dial::to(&front);
        let mut held = open_relays(&dial, 10, 1).await.expect("both serve");
        assert_eq!((leaving.open(), staying.open()), (5, 5));
        assert!(series() > 40, "{} series of {label}", series());
        dns.set("db.test", Answer::Addresses(vec![loopback(3)]));
        wait_for_usable(&ringway, 1);
        let more = open_relays(&dial, 10, 1).await.expect("one serves");
        assert_eq!((leaving.open(), staying.open()), (5, 15), "new sessions go elsewhere");
        for wire in &mut held {
            wire.ping(b"still here", SOON).await.expect("open sessions go on");
        }
        let document = status(&ringway);
        let backends = document["pools"][0]["backends"].as_array().expect("a list");
        let row = backends.iter().find(|row| row["label"] == label.as_str());
        assert_eq!(row.map(|row| &row["condition"]), Some(&"draining".into()), "{document}");
        assert_eq!(
            ringway.count(
                "ringway_backend_condition",
                &[("backend", &label), ("condition", "draining")]
            ),
            1
        );
        assert!(series() > 40, "its series stay while it drains");
        drop((held, more));
    });
    let gone = wait_for(SOON, || (series() == 0).then_some(()));
    assert!(gone.is_some(), "{} series of {label}", series());
    assert_eq!(leaving.open(), 0);
    // It comes back as a new one.
    dns.set("db.test", Answer::Addresses(vec![loopback(2), loopback(3)]));
    wait_for_usable(&ringway, 2);
    assert_eq!(
        ringway.count("ringway_backend_connections_total", &[("backend", &label)]),
        0
    );
    ringway.finish();
}

/// Weights 1 and 3 of the lowest priority: of 40 connections 10 and 30. The other priority gets none.
#[test]
fn srv_records_bring_ports_and_weights() {
    let _turn = Turn::start("srv_records_bring_ports_and_weights", Duration::from_secs(60));
    let dns = Dns::start();
    let backends: Vec<_> = (0..3)
        .map(|n| Backend::start_on(Behaviour::Echo, Address::Inet((loopback(n + 1), 0).into())))
        .collect();
    let service = |n: usize, priority, weight, target| Service {
        priority,
        weight,
        port: backends[n].address.port(),
        target,
    };
    dns.set(
        "_db._tcp.test",
        Answer::Services(vec![
            service(0, 5, 1, "one.test"),
            service(1, 5, 3, "two.test"),
            service(2, 6, 9, "spare.test"),
        ]),
    );
    for (n, name) in ["one.test", "two.test", "spare.test"].into_iter().enumerate() {
        dns.set(name, Answer::Addresses(vec![loopback(n as u16 + 1)]));
    }
    let (_, ringway, front) = start(&dns, "round_robin", &["srv:_db._tcp.test".to_owned()]);
    wait_for_usable(&ringway, 2);
    let held = run(None, open_relays(&Dial::to(&front), 40, 4)).expect("both serve");
    let accepted: Vec<_> = backends.iter().map(Backend::accepted).collect();
    assert_eq!(accepted, [10, 30, 0]);
    drop(held);
    ringway.finish();
}
