//! From text to the model, value by value; expected values are written out, not taken from the code.

use ringway_config::{Checked, Flags, Severity, Source, from_flags, parse};
use ringway_core::access::{Access, Network, NetworkSet};
use ringway_core::model::*;
use ringway_core::session::ClientLimits;
use std::time::Duration;

fn check(text: &str) -> Checked {
    let source = Source {
        name: "test.yaml".to_owned(),
        text: text.to_owned(),
    };
    parse(&[source], &|name| (name == "PORT").then(|| "5432".to_owned()))
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn inet(text: &str) -> Address {
    Address::Inet(text.parse().expect("an address in the test"))
}

fn networks(list: &[(&str, u8)]) -> NetworkSet {
    let network = |&(address, prefix): &(&str, u8)| {
        Network::containing(address.parse().expect("an address in the test"), prefix).expect("a network in the test")
    };
    list.iter().map(network).collect()
}

fn at(text: &str) -> Target {
    Target::Address(inet(text))
}

fn backend(target: Target, label: &str) -> Backend {
    Backend {
        target,
        label: label.into(),
        weight: 1,
        max_connections: None,
        backup: false,
    }
}

const MINIMAL: &str = "
listeners:
  web: { bind: 0.0.0.0:80, protocol: tcp, pool: web }
pools:
  web: { backends: [10.0.0.1:80] }
";

#[test]
fn a_minimal_file_has_the_documented_defaults() {
    let keepalive = Keepalive {
        idle: secs(60),
        interval: secs(10),
        count: 6,
    };
    let expected = Model {
        workers: Workers::Auto,
        pin: true,
        admin: Some("127.0.0.1:9900".parse().expect("an address")),
        buffers: Buffers {
            count: 1_024,
            size: 16_384,
        },
        drain_timeout: secs(30),
        drain_delay: secs(0),
        max_unrouted: None,
        session_log: None,
        listeners: vec![Listener {
            name: "web".into(),
            bind: vec![inet("0.0.0.0:80")],
            protocol: Protocol::Tcp,
            pool: Some(PoolIndex(0)),
            preface: Preface::default(),
            backlog: None,
            routing_timeout: secs(5),
            idle_timeout: secs(3_600),
            half_closed_timeout: secs(60),
            keepalive,
            dead_peer_timeout: secs(60),
            max_connections: None,
            access: Access::default(),
            clients: ClientLimits::default(),
            affinity_group: None,
            udp: Udp::default(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            hash: HashRule {
                algorithm: HashAlgorithm::Rendezvous,
                seed: 0,
                max_load: None,
            },
            connect_timeout: secs(5),
            tries: 3,
            source: ringway_core::model::Source::Kernel,
            send_proxy: None,
            keepalive,
            dead_peer_timeout: secs(60),
            queue: None,
            health: Health {
                check: None,
                passive: Some(Passive {
                    fails: 1,
                    eject: secs(1),
                    max_ejected: 50,
                }),
                silence: None,
                slow_start: None,
                fail_open: false,
            },
            sessions: Sessions {
                on_backend_down: OnBackendDown::Keep,
                failback: Failback::Auto,
                max_lifetime: None,
            },
            resolve: Resolve {
                servers: vec![],
                interval_min: secs(1),
                interval_max: secs(60),
            },
            backends: vec![Backend {
                target: at("10.0.0.1:80"),
                label: "10.0.0.1:80".into(),
                weight: 1,
                max_connections: None,
                backup: false,
            }],
        }],
    };
    let checked = check(MINIMAL);
    assert_eq!(checked.model, expected);
    assert!(checked.warnings.is_empty());
}

#[test]
fn every_key_of_the_file_and_of_a_listener_arrives_in_the_model() {
    let model = check(
        "
workers: 2
pin: false
admin: { bind: '[::1]:9901' }
buffers: { count: 16, size: 4KiB }
drain_timeout: 1m30s
drain_delay: 250ms
session_log: { to: /var/log/ringway.log, format: text }
listeners:
  first:
    bind: [':${PORT}', '[::]:5432', 'unix:/run/x.sock']
    protocol: tcp
    pool: second
    backlog: 128
    hello_timeout: 700ms
    idle_timeout: 2h
    half_closed_timeout: 2m
    tcp_keepalive: { idle: 5s, interval: 2s, count: 3 }
    dead_peer_timeout: 90s
    max_connections: 1000
    max_connections_per_client: 50
    connection_rate: 90/m
    allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32']
    deny: 10.6.6.0/24
pools:
  first: { backends: 10.0.0.1:80 }
  second: { backends: 10.0.0.1:80 }
",
    );
    let log = SessionLog {
        to: LogTarget::File("/var/log/ringway.log".into()),
        format: LogFormat::Text,
    };
    let model = model.model;
    assert_eq!(model.session_log, Some(log));
    assert_eq!(
        (model.workers, model.pin, model.admin),
        (
            Workers::Count(2),
            false,
            Some("[::1]:9901".parse().expect("an address"))
        )
    );
    assert_eq!(model.buffers, Buffers { count: 16, size: 4_096 });
    assert_eq!(
        (model.drain_timeout, model.drain_delay),
        (secs(90), Duration::from_millis(250))
    );
    let expected = Listener {
        name: "first".into(),
        bind: vec![
            inet("0.0.0.0:5432"),
            inet("[::]:5432"),
            Address::Unix("/run/x.sock".into()),
        ],
        protocol: Protocol::Tcp,
        pool: Some(PoolIndex(1)),
        preface: Preface::default(),
        backlog: Some(128),
        routing_timeout: Duration::from_millis(700),
        idle_timeout: secs(7_200),
        half_closed_timeout: secs(120),
        keepalive: Keepalive {
            idle: secs(5),
            interval: secs(2),
            count: 3,
        },
        dead_peer_timeout: secs(90),
        max_connections: Some(1_000),
        access: Access {
            allow: Some(networks(&[("10.0.0.0", 8), ("192.0.2.7", 32), ("2001:db8::", 32)])),
            deny: networks(&[("10.6.6.0", 24)]),
        },
        clients: ClientLimits {
            sessions: Some(50),
            // 60 s / 90; a tenth of 90 at once.
            interval: Some(Duration::from_nanos(666_666_666)),
            burst: 9,
        },
        affinity_group: None,
        udp: Udp::default(),
    };
    assert_eq!(model.listeners, [expected]);
}

#[test]
fn every_key_of_a_pool_arrives_in_the_model() {
    let model = check(
        "
listeners: { web: { bind: 0.0.0.0:80, protocol: tcp, pool: second } }
pools:
  second:
    balance: source
    hash: { algorithm: maglev, seed: 18446744073709551615, max_load: 1.25 }
    connect_timeout: 750ms
    tries: 16
    source: [10.0.0.5, 2001:db8::5]
    tcp_keepalive: { count: 4 }
    dead_peer_timeout: 1h
    queue: { max: 7, timeout: 10ms }
    health_check: { protocol: tls, port: 8443, interval: 200ms, timeout: 1m, fails: 100, passes: 1 }
    passive: { fails: 5, eject: 10m, max_ejected: 0% }
    fail_open: true
    on_backend_down: close
    failback: manual
    max_lifetime: 30m
    resolve: { servers: [10.0.0.53, '[2001:db8::53]:5353'], min_interval: 2s, max_interval: 1d }
    backends:
      - { weight: 1000, address: '10.0.0.2:${PORT}' }
      - DB.Example.com.:${PORT}
      - { address: 'srv:_pg._tcp.Example.com', max_connections: 1000000 }
      - { backup: true, address: '[2001:DB8::0:2]:80' }
",
    )
    .model;
    let expected = Pool {
        name: "second".into(),
        balance: Balance::IpHash,
        hash: HashRule {
            algorithm: HashAlgorithm::Maglev,
            seed: u64::MAX,
            max_load: Some(125),
        },
        connect_timeout: Duration::from_millis(750),
        tries: 16,
        source: ringway_core::model::Source::Addresses(vec![
            "10.0.0.5".parse().expect("IPv4"),
            "2001:db8::5".parse().expect("IPv6"),
        ]),
        send_proxy: None,
        keepalive: Keepalive {
            idle: secs(60),
            interval: secs(10),
            count: 4,
        },
        dead_peer_timeout: secs(3_600),
        queue: Some(Queue {
            max: 7,
            timeout: Duration::from_millis(10),
        }),
        health: Health {
            check: Some(HealthCheck {
                probe: Probe::Tls(ProbeTls::default()),
                port: Some(8_443),
                interval: Duration::from_millis(200),
                timeout: secs(60),
                fails: 100,
                passes: 1,
            }),
            passive: Some(Passive {
                fails: 5,
                eject: secs(600),
                max_ejected: 0,
            }),
            silence: None,
            slow_start: None,
            fail_open: true,
        },
        sessions: Sessions {
            on_backend_down: OnBackendDown::Close,
            failback: Failback::Manual,
            max_lifetime: Some(secs(1_800)),
        },
        resolve: Resolve {
            servers: vec![
                "10.0.0.53:53".parse().expect("IPv4"),
                "[2001:db8::53]:5353".parse().expect("IPv6"),
            ],
            interval_min: secs(2),
            interval_max: secs(86_400),
        },
        backends: vec![
            Backend {
                weight: 1_000,
                ..backend(at("10.0.0.2:5432"), "10.0.0.2:5432")
            },
            backend(
                Target::Name(Name {
                    host: "db.example.com".into(),
                    records: Records::Addresses(5_432),
                }),
                "DB.Example.com.:5432",
            ),
            Backend {
                max_connections: Some(1_000_000),
                ..backend(
                    Target::Name(Name {
                        host: "_pg._tcp.example.com".into(),
                        records: Records::Services,
                    }),
                    "srv:_pg._tcp.Example.com",
                )
            },
            Backend {
                backup: true,
                ..backend(at("[2001:db8::2]:80"), "[2001:DB8::0:2]:80")
            },
        ],
    };
    assert_eq!(model.pools[0], expected, "the label is the address as written");
}

#[test]
fn admin_off_and_aliases_of_algorithms() {
    assert_eq!(check(&format!("admin: off\n{MINIMAL}")).model.admin, None);
    for (word, balance) in [
        ("round_robin", Balance::RoundRobin),
        ("weighted_round_robin", Balance::RoundRobin),
        ("least_response_time", Balance::LeastResponseTime),
        ("least_time", Balance::LeastResponseTime),
        ("ewma", Balance::LeastResponseTime),
        ("least_bandwidth", Balance::LeastBandwidth),
        ("random", Balance::Random),
        ("random_two_choices", Balance::Random),
        ("least_connections", Balance::LeastConnections),
        ("leastconn", Balance::LeastConnections),
        ("least_conn", Balance::LeastConnections),
        ("ip_hash", Balance::IpHash),
        ("source", Balance::IpHash),
    ] {
        let text = MINIMAL.replace("{ backends", &format!("{{ balance: {word}, backends"));
        assert_eq!(check(&text).model.pools[0].balance, balance, "{word}");
    }
}

#[test]
fn a_session_log_may_be_a_word_or_a_path() {
    let log = |text: &str| check(&format!("session_log: {text}\n{MINIMAL}")).model.session_log;
    let expected = |to, format| Some(SessionLog { to, format });
    assert_eq!(log("off"), None);
    assert_eq!(log("stderr"), expected(LogTarget::Stderr, LogFormat::Json));
    assert_eq!(
        log("/var/log/s.json"),
        expected(LogTarget::File("/var/log/s.json".into()), LogFormat::Json)
    );
    assert_eq!(log("{ to: stderr }"), expected(LogTarget::Stderr, LogFormat::Json));
    assert_eq!(
        log("{ to: ./s.log, format: text }"),
        expected(LogTarget::File("./s.log".into()), LogFormat::Text)
    );
}

#[test]
fn several_files_are_one_configuration_and_keep_their_order() {
    let file = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let checked = parse(
        &[
            file(
                "b",
                "pools: { p2: { backends: 10.0.0.2:80 }, p1: { backends: 10.0.0.1:80 } }",
            ),
            file("empty", "# nothing here\n"),
            file(
                "a",
                "workers: 3\nlisteners: { l: { bind: 0.0.0.0:80, protocol: tcp, pool: p1 } }",
            ),
        ],
        &|_| None,
    )
    .expect("valid together");
    let names: Vec<&str> = checked.model.pools.iter().map(|pool| &*pool.name).collect();
    assert_eq!(
        (names.as_slice(), checked.model.listeners[0].pool),
        (["p2", "p1"].as_slice(), Some(PoolIndex(1)))
    );
    assert_eq!(checked.model.workers, Workers::Count(3));
    assert_eq!(
        checked
            .warnings
            .iter()
            .map(|warning| warning.severity)
            .collect::<Vec<_>>(),
        [Severity::Warning]
    );
}

#[test]
fn no_text_at_all_is_a_problem_with_a_place() {
    let diagnostics = parse(&[], &|_| None).expect_err("nothing to serve");
    assert!(
        diagnostics
            .to_string()
            .starts_with("configuration:1:1: there are no listeners\n"),
        "{diagnostics}"
    );
}

#[test]
fn flags_make_the_same_model_as_a_file() {
    let tcp = [
        "0.0.0.0:5432=10.0.0.11:5432,DB.example.com:5432,srv:_pg._tcp.db".to_owned(),
        "unix:/run/x.sock=unix:/run/y.sock".to_owned(),
    ];
    let flags = Flags {
        tcp: &tcp,
        balance: Some("least_conn"),
        admin: Some("off"),
        workers: Some("2"),
    };
    let file = check(
        "
workers: 2
admin: off
listeners:
  tcp-5432: { bind: 0.0.0.0:5432, protocol: tcp, pool: tcp-5432 }
  unix-1: { bind: unix:/run/x.sock, protocol: tcp, pool: unix-1 }
pools:
  tcp-5432: { balance: least_connections, backends: [10.0.0.11:5432, DB.example.com:5432, 'srv:_pg._tcp.db'] }
  unix-1: { balance: least_connections, backends: unix:/run/y.sock }
",
    );
    assert_eq!(from_flags(flags).expect("valid flags"), file);
}

#[test]
fn names_from_flags_are_unique() {
    let tcp = [
        "10.0.0.1:80=10.0.1.1:80".to_owned(),
        "10.0.0.2:80=10.0.1.1:80".to_owned(),
    ];
    let model = from_flags(Flags {
        tcp: &tcp,
        ..Flags::default()
    })
    .expect("valid flags")
    .model;
    let names: Vec<&str> = model.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["tcp-80", "tcp-80-2"]);
}

#[test]
fn problems_in_flags_point_into_what_was_typed() {
    let tcp = [
        "0.0.0.0:5432=10.0.0.300:5432,10.0.0.12".to_owned(),
        "0.0.0.0:81".to_owned(),
        ":82=10.0.0.1:80,10.0.0.1:80".to_owned(),
        "127.0.0.1:82=".to_owned(),
    ];
    let flags = Flags {
        tcp: &tcp,
        balance: Some("leastcon"),
        admin: Some("localhost"),
        workers: Some("0"),
    };
    let expected = r#"--workers:1:1: --workers 0 is out of range
   |
   | 0
   | ^ write auto, or 1 to 1024
--balance:1:1: --balance "leastcon" is not known
   |
   | leastcon
   | ^^^^^^^^ did you mean "least_connections"?
--admin:1:1: --admin "localhost" is not an address
   |
   | localhost
   | ^^^^^^^^^ names are not looked up here; write 127.0.0.1:5432
--tcp:1:14: backend "10.0.0.300:5432" is not an address
   |
   | 0.0.0.0:5432=10.0.0.300:5432,10.0.0.12
   |              ^^^^^^^^^^ an IPv4 address is four numbers from 0 to 255 without leading zeros
--tcp:1:30: backend "10.0.0.12" has no port
   |
   | 0.0.0.0:5432=10.0.0.300:5432,10.0.0.12
   |                              ^^^^^^^^^ write 10.0.0.12:5432
--tcp:1:1: --tcp has no =
   |
   | 0.0.0.0:81
   | ^^^^^^^^^^ write BIND=BACKEND,BACKEND, such as 0.0.0.0:5432=10.0.0.11:5432
--tcp:1:17: backend 10.0.0.1:80 is in pool "tcp-82" twice
   |
   | :82=10.0.0.1:80,10.0.0.1:80
   |                 ^^^^^^^^^^^ remove one; to give it a larger share, set its weight
--tcp:1:5: note: it is here first
   |
   | :82=10.0.0.1:80,10.0.0.1:80
   |     ^^^^^^^^^^^
--tcp:1:1: 127.0.0.1:82 collides with 0.0.0.0:82 of listener "tcp-82"
   |
   | 127.0.0.1:82=
   | ^^^^^^^^^^^^ 0.0.0.0:82 includes 127.0.0.1:82: keep one, or use another port
--tcp:1:1: note: it is bound here first
   |
   | :82=10.0.0.1:80,10.0.0.1:80
   | ^^^
--tcp:1:14: backend is empty
   |
   | 127.0.0.1:82=
   |              ^ write an address and a port, such as 10.0.0.11:5432
"#;
    let said = from_flags(flags).expect_err("all wrong").to_string();
    assert!(said == expected, "{said}");
    let nothing = from_flags(Flags::default())
        .expect_err("nothing to listen on")
        .to_string();
    assert!(
        nothing.starts_with("--tcp:1:1: there is nothing to listen on\n"),
        "{nothing}"
    );
}

#[test]
fn problems_beyond_a_hundred_are_counted() {
    let keys: String = (0..150).map(|number| format!("key{number:03}: 1\n")).collect();
    let source = Source {
        name: "many.yaml".to_owned(),
        text: keys,
    };
    let diagnostics = parse(&[source], &|_| None).expect_err("unknown keys");
    assert_eq!(diagnostics.iter().count(), 100);
    assert_eq!(diagnostics.len(), 152, "150 keys, no listeners, no pools");
    assert!(diagnostics.to_string().ends_with("\n52 more problems are not shown\n"));
}
