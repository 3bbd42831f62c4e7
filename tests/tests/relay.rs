//! The TCP relay from outside: bytes, ends, resets, time limits.

use ringway_tests::address::{ANY_V4, ANY_V6, Address, free_v4, free_v6};
use ringway_tests::backend::{Backend, Behaviour, Place};
use ringway_tests::client::{many, run};
use ringway_tests::exchange::{Order, Plan, run_many};
use ringway_tests::namespace::Namespace;
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, run as run_program};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(5);

/// Both directions at once between `bind` and `backend`, exact to the byte; returns when all is given back.
fn exact(setup: &Setup, bind: &Address, backends: &[&Backend], namespace: Option<&Namespace>, count: u64, bytes: u64) {
    let ringway = namespace.map_or_else(
        || Ringway::start(setup),
        |namespace| Ringway::start_in(setup, namespace),
    );
    let plan = Plan {
        stream: 1,
        up: bytes,
        down: bytes,
        order: Order::Together,
        pauses: true,
    };
    let failed = run_many(namespace, &Dial::to(bind), count, plan);
    assert!(
        failed.is_empty(),
        "{} of {count} streams failed: {failed:#?}",
        failed.len()
    );
    // The last bytes up may still be on their way when the client has everything.
    let orderly = || {
        backends
            .iter()
            .map(|backend| backend.counts.orderly.load(SeqCst))
            .sum::<u64>()
    };
    wait_for(SOON, || (orderly() == count).then_some(()));
    assert_eq!(orderly(), count, "every backend's side was exact too");
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "finished")], count);
    let total = count * (bytes + 32);
    let counted = ringway.count("ringway_listener_bytes_total", &[("listener", "front")]);
    assert_eq!(counted, total + count * bytes, "bytes of both directions");
    ringway.finish();
}

#[test]
fn bytes_are_exact() {
    let _turn = Turn::start("bytes_are_exact", Duration::from_secs(180));
    let backend = Backend::start(Behaviour::Exchange);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    exact(
        &setup,
        &front,
        &[&backend],
        None,
        figure(40, 200),
        figure(512 << 10, 2_000_000),
    );
}

#[test]
fn bytes_are_exact_with_sixteen_small_buffers() {
    let _turn = Turn::start("bytes_are_exact_with_sixteen_small_buffers", Duration::from_secs(180));
    let backend = Backend::start(Behaviour::Exchange);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let setup = setup.top("buffers", "{ count: 16, size: 4KiB }");
    exact(
        &setup,
        &front,
        &[&backend],
        None,
        figure(40, 200),
        figure(512 << 10, 2_000_000),
    );
}

#[test]
fn bytes_are_exact_with_lost_packets() {
    if !is_root("bytes_are_exact_with_lost_packets") {
        return;
    }
    let _turn = Turn::start("bytes_are_exact_with_lost_packets", Duration::from_secs(240));
    let namespace = Namespace::new();
    let backend = Backend::start_at(
        Behaviour::Exchange,
        &Place {
            namespace: Some(&namespace),
            ..Place::default()
        },
    );
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    // Not on the admin port: what is tried is the relay.
    namespace.drop_packets(&format!(
        "tcp sport != {0} tcp dport != {0} numgen random mod 100 < 3",
        setup.admin.port()
    ));
    exact(
        &setup,
        &front,
        &[&backend],
        Some(&namespace),
        figure(40, 200),
        figure(512 << 10, 2_000_000),
    );
    assert!(namespace.drop_nothing() > 100, "packets were lost");
}

#[test]
fn every_address_family_at_either_side_and_half_closes() {
    let _turn = Turn::start(
        "every_address_family_at_either_side_and_half_closes",
        Duration::from_secs(120),
    );
    let dir = Dir::new();
    let binds = [free_v4(), free_v6(), Address::Unix(dir.path("front"))];
    let backends = [ANY_V4, ANY_V6, Address::Unix(dir.path("backend"))];
    let backends = backends.map(|address| Backend::start_on(Behaviour::Exchange, address));
    let mut fronts = Vec::new();
    let mut setup = Setup::new();
    for (b, backend) in backends.iter().enumerate() {
        for (f, bind) in binds.iter().enumerate() {
            let bind = match bind {
                Address::Inet(address) if address.is_ipv4() => free_v4(),
                Address::Inet(_) => free_v6(),
                Address::Unix(path) => Address::Unix(path.with_extension(b.to_string())),
            };
            setup = setup.listener(&format!("front{f}{b}"), &bind, &format!("pool{b}"));
            fronts.push(bind);
        }
        setup = setup.pool(&format!("pool{b}"), "round_robin", &[&backend.address]);
    }
    let ringway = Ringway::start(&setup);
    let mut done = 0;
    for bind in &fronts {
        for order in [Order::Together, Order::ClientEndsFirst, Order::BackendEndsFirst] {
            // The second to send is empty once: a half-close without an answer must arrive as well.
            for (up, down) in [(200_000, 300_000), (1, 0), (0, 1)] {
                let failed = run_many(
                    None,
                    &Dial::to(bind),
                    4,
                    Plan {
                        stream: done,
                        up,
                        down,
                        order,
                        pauses: false,
                    },
                );
                assert!(
                    failed.is_empty(),
                    "{bind}, {order:?}, {up} up, {down} down: {failed:#?}"
                );
                done += 4;
            }
        }
    }
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "finished")], done);
    ringway.finish();
}

#[test]
fn resets_are_relayed_as_resets() {
    let _turn = Turn::start("resets_are_relayed_as_resets", Duration::from_secs(60));
    let (echo, resetting) = (
        Backend::start(Behaviour::Echo),
        Backend::start(Behaviour::ResetAfterOneByte),
    );
    let (front, back) = (free_v4(), free_v4());
    let setup = Setup::new()
        .listener("front", &front, "echo")
        .listener("back", &back, "resetting");
    let setup = setup.pool("echo", "round_robin", &[&echo.address]);
    let setup = setup.pool("resetting", "round_robin", &[&resetting.address]);
    let ringway = Ringway::start(&setup);
    run(None, async {
        let mut wire = Dial::to(&front).connect().await.expect("the listener accepts");
        wire.ping(b"a", SOON).await.expect("the relay stands");
        wire.reset();
        let mut wire = Dial::to(&back).connect().await.expect("the listener accepts");
        wire.ping(b"a", SOON).await.expect("the relay stands");
        wire.write_all(b"b").await.expect("the relay stands");
        assert_eq!(
            wire.read_to_end_of(SOON).await,
            (0, End::Reset),
            "the backend's reset reaches the client"
        );
    });
    let seen = wait_for(SOON, || (echo.resets() == 1).then_some(()));
    assert!(
        seen.is_some(),
        "the client's reset reaches the backend: {:?}",
        echo.counts
    );
    ringway.wait_for_count(
        "ringway_sessions_ended_total",
        &[("reason", "client_reset"), ("listener", "front")],
        1,
    );
    ringway.wait_for_count(
        "ringway_sessions_ended_total",
        &[("reason", "backend_reset"), ("listener", "back")],
        1,
    );
    ringway.finish();
}

#[test]
fn the_backend_may_speak_first() {
    let _turn = Turn::start("the_backend_may_speak_first", Duration::from_secs(60));
    let backend = Backend::start(Behaviour::Name("hello".to_owned()));
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup.listener_key("routing_timeout", "1s"));
    run(None, async {
        let mut wire = Dial::to(&front).connect().await.expect("the listener accepts");
        assert_eq!(wire.line(SOON).await.expect("a line comes"), "hello");
        // A client that says nothing is legitimate once its backend is connected.
        assert_eq!(
            wire.read_to_end_of(Duration::from_millis(2500)).await,
            (0, End::StillOpen)
        );
    });
    ringway.finish();
}

#[test]
fn a_backend_that_refuses_costs_no_client() {
    let _turn = Turn::start("a_backend_that_refuses_costs_no_client", Duration::from_secs(60));
    let (backend, dead) = (Backend::start(Behaviour::Name("alive".to_owned())), free_v4());
    for balance in ["round_robin", "least_connections", "ip_hash"] {
        let (setup, front) = Setup::simple(balance, &[&dead, &backend.address]);
        let ringway = Ringway::start(&setup);
        let names = run(
            None,
            many(200, 16, |index| {
                let from = Some([127, 0, 1, index as u8 + 1].into());
                let dial = Dial {
                    from,
                    ..Dial::to(&front)
                };
                async move { dial.connect().await?.line(SOON).await }
            }),
        );
        for name in names {
            assert_eq!(name.expect("no client notices"), "alive", "{balance}");
        }
        let label = dead.to_string();
        let refused = [("pool", "pool"), ("backend", label.as_str()), ("reason", "refused")];
        assert!(
            ringway.count("ringway_backend_connect_errors_total", &refused) > 0,
            "{balance}: refusals are counted"
        );
        ringway.finish();
    }
}

#[test]
fn without_any_backend_the_client_is_reset() {
    let _turn = Turn::start("without_any_backend_the_client_is_reset", Duration::from_secs(60));
    let dir = Dir::new();
    let dead = [free_v4(), free_v6(), Address::Unix(dir.path("nobody"))];
    let (setup, front) = Setup::simple("round_robin", &[&dead[0], &dead[1], &dead[2]]);
    // Nobody is left out of the choice: each connection tries all three.
    let ringway = Ringway::start(&setup.pool_key("passive", "off"));
    run(None, async {
        for _ in 0..20 {
            // The reset may be faster than our look at the connection.
            match Dial::to(&front).connect().await {
                Ok(mut wire) => assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Reset)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    });
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "connect_failed")], 20);
    ringway.wait_for_count("ringway_backend_connect_errors_total", &[("reason", "refused")], 60);
    ringway.finish();
}

#[test]
fn idle_and_half_closed_relays_end_in_time() {
    let _turn = Turn::start("idle_and_half_closed_relays_end_in_time", Duration::from_secs(60));
    let (silent, echo) = (Backend::start(Behaviour::Silent), Backend::start(Behaviour::Echo));
    let (idle, half, busy) = (free_v4(), free_v4(), free_v4());
    let setup = Setup::new()
        .listener("idle", &idle, "silent")
        .listener_key("idle_timeout", "1s")
        .listener("half", &half, "silent")
        .listener_key("half_closed_timeout", "1s")
        .listener("busy", &busy, "echo")
        .listener_key("idle_timeout", "1s")
        .pool("silent", "round_robin", &[&silent.address])
        .pool("echo", "round_robin", &[&echo.address]);
    let ringway = Ringway::start(&setup);
    run(None, async {
        let is_idle = async {
            let mut wire = Dial::to(&idle).connect().await.expect("the listener accepts");
            let began = Instant::now();
            let (_, end) = wire.read_to_end_of(SOON).await;
            (began.elapsed(), end)
        };
        let is_half_closed = async {
            let mut wire = Dial::to(&half).connect().await.expect("the listener accepts");
            wire.write_all(b"half").await.expect("the relay stands");
            wire.shutdown().await.expect("a client may end");
            let began = Instant::now();
            let (_, end) = wire.read_to_end_of(SOON).await;
            (began.elapsed(), end)
        };
        let is_busy = async {
            let mut wire = Dial::to(&busy).connect().await.expect("the listener accepts");
            for _ in 0..12 {
                wire.ping(b"still here", SOON).await.expect("a busy relay is not idle");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        let (idle, half, ()) = tokio::join!(is_idle, is_half_closed, is_busy);
        for (what, (after, end)) in [("idle", idle), ("half closed", half)] {
            assert_ne!(end, End::StillOpen, "{what}");
            let in_time = Duration::from_millis(950)..Duration::from_millis(2200);
            assert!(
                in_time.contains(&after),
                "{what}: ended after {after:?}, the limit was 1 s"
            );
        }
    });
    ringway.wait_for_count(
        "ringway_sessions_ended_total",
        &[("listener", "idle"), ("reason", "idle_timeout")],
        1,
    );
    ringway.wait_for_count(
        "ringway_sessions_ended_total",
        &[("listener", "half"), ("reason", "half_closed_timeout")],
        1,
    );
    ringway.finish();
}

#[test]
fn a_connection_aborted_before_its_backend_answers_leaks_nothing() {
    let _turn = Turn::start(
        "a_connection_aborted_before_its_backend_answers_leaks_nothing",
        Duration::from_secs(60),
    );
    let backend = Backend::start(Behaviour::CloseAtOnce);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    run(
        None,
        many(500, 50, |index| {
            let dial = Dial::to(&front);
            async move {
                let mut wire = dial.connect().await.expect("the listener accepts");
                match index % 3 {
                    0 => wire.reset(),
                    1 => drop(wire),
                    _ => match wire.read_u8().await {
                        Ok(byte) => panic!("byte {byte} came from nowhere"),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "an orderly end stays orderly")
                        }
                    },
                }
            }
        }),
    );
    ringway.finish();
}

/// What the kernel says of the connections that this filter finds: receive buffer and congestion control.
fn sockets(filter: &str) -> Vec<(usize, String)> {
    let filters: Vec<&str> = filter.split_whitespace().collect();
    let launch = Launch::default();
    let args = [&["-tinmOH", "state", "established"], &*filters].concat();
    let (status, out) = run_program(&launch, "ss", &args, SOON);
    assert!(status.success(), "ss: {out}");
    out.lines()
        .filter_map(|line| {
            let (_, memory) = line.split_once("skmem:(")?;
            let (memory, rest) = memory.split_once(')')?;
            let buffer = memory.split(',').find_map(|field| field.strip_prefix("rb"))?;
            Some((buffer.parse().ok()?, rest.split_whitespace().next()?.to_owned()))
        })
        .collect()
}

/// The receive buffer that this system grants for half a mebibyte, which it doubles (socket(7)).
fn granted() -> usize {
    let scratch = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    scratch
        .set_recv_buffer_size(512 * 1024)
        .expect("granted in part at least");
    scratch.recv_buffer_size().expect("getsockopt")
}

/// The congestion control of the system, and the one between peers on one machine, where nothing is gained by timers.
fn congestion_controls() -> (String, String) {
    let system = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").expect("a sysctl");
    let system = system.trim().to_owned();
    let near = if system.starts_with("bbr") { "reno" } else { &system };
    if near == system {
        println!("the congestion control here is {system}, which must stay: this half of the test cannot fail");
    }
    (near.to_owned(), system)
}

/// Listens on a port of its own and reads what comes; nothing is answered.
fn sink() -> Address {
    let sink = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = Address::Inet(sink.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in sink.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    address
}

/// A connection that is no stream leaves BBR as well, on both sides, once it has lasted a second and done something. One
/// that does little does not: thousands that idle would all be asked at once.
#[test]
fn a_connection_that_lasts_leaves_bbr_between_near_peers() {
    let _turn = Turn::start(
        "a_connection_that_lasts_leaves_bbr_between_near_peers",
        Duration::from_secs(60),
    );
    let backend = sink();
    let (setup, front) = Setup::simple("round_robin", &[&backend]);
    let ringway = Ringway::start(&setup);
    let (near, system) = congestion_controls();
    let to_backend = format!("dport = :{}", backend.port());
    let to_client = format!("sport = :{}", front.port());
    let is_checked = || {
        let (_, out) = run_program(&Launch::default(), "ss", &["-tonH", &to_backend], SOON);
        out.contains("timer:(keepalive").then_some(())
    };
    // Both sides' once the relay was a second old, which the backend's keepalive tells.
    let after_a_second = |bytes: &[u8]| {
        let mut client = std::net::TcpStream::connect(front.to_string()).expect("connects");
        client.write_all(bytes).expect("room");
        wait_for(SOON, is_checked).expect("keepalive is set");
        let seen = [&to_backend, &to_client].map(|side| sockets(side).pop().expect("it is connected").1);
        drop(client);
        wait_for(SOON, || sockets(&to_backend).is_empty().then_some(())).expect("the relay is over");
        seen
    };
    assert_eq!(after_a_second(&[1]), [system.clone(), system], "it does little");
    // One whose handshake was held up by a busy machine is not near.
    let found = (0..5).any(|_| after_a_second(&[1; 32 * 1024]) == [near.clone(), near.clone()]);
    assert!(found, "wanted {near} on both sides");
    ringway.finish();
}

/// Between peers on one machine nothing is gained by a long window either.
#[test]
fn a_stream_to_a_near_sink_leaves_bbr_and_its_source_has_a_short_window() {
    const WINDOW: usize = 1024 * 1024;
    let _turn = Turn::start(
        "a_stream_to_a_near_sink_leaves_bbr_and_its_source_has_a_short_window",
        Duration::from_secs(60),
    );
    let backend = sink();
    let (setup, front) = Setup::simple("round_robin", &[&backend]);
    let ringway = Ringway::start(&setup);
    let to_backend = format!("dport = :{}", backend.port());
    let from_client = format!("sport = :{}", front.port());
    let (near, _) = congestion_controls();
    let is_bounded = granted() >= WINDOW;
    if !is_bounded {
        println!("net.core.rmem_max is below what is asked for, so that no window must be bounded");
    }
    // One whose handshake was held up by a busy machine is not near.
    let mut seen = Vec::new();
    let found = (0..5).any(|_| {
        let mut client = std::net::TcpStream::connect(front.to_string()).expect("connects");
        client.write_all(&[1]).expect("room");
        let look = || Some((sockets(&to_backend).pop()?, sockets(&from_client).pop()?));
        let (_, source) = wait_for(SOON, look).expect("the relay is connected");
        assert_ne!(source.0, WINDOW, "before it is a stream");
        let chunk = vec![7; 4 * WINDOW];
        let found = (0..10).any(|_| {
            client.write_all(&chunk).expect("the relay takes it");
            let (sink, source) = look().expect("both are there");
            let is_it = sink.1 == near && (source.0 == WINDOW) == is_bounded;
            seen.push((sink, source));
            is_it
        });
        drop(client);
        wait_for(SOON, || sockets(&to_backend).is_empty().then_some(())).expect("the relay is over");
        found
    });
    assert!(found, "wanted {near} and a window of {WINDOW}: {seen:?}");
    ringway.finish();
}
