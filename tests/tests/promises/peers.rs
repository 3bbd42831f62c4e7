//! P10 half-open peers, P11 aborts.

use crate::SOON;
use ringway_tests::address::{ANY_V4, Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, Place, listen};
use ringway_tests::client::{many, open_relays, run};
use ringway_tests::exchange::{Order, Plan, receive};
use ringway_tests::namespace::Namespace;
use ringway_tests::process::wait_for;
use ringway_tests::promise::Promise;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// A listening socket whose queue is full: the kernel answers no further SYN.
struct BlackHole {
    address: Address,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let Address::Inet(any) = ANY_V4 else {
            unreachable!("it is an IPv4 address")
        };
        let listener = listen(any, 0, None).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(10).collect();
        assert!(queue.len() < 10, "a queue of length 0 is full after a few");
        Self {
            address: Address::Inet(address),
            _listener: listener,
            _queue: queue,
        }
    }
}

#[test]
fn p10_a_black_hole_costs_one_connect_timeout() {
    let _turn = Turn::start("p10_a_black_hole_costs_one_connect_timeout", Duration::from_secs(60));
    let mut promise = Promise::new("P10", "half-open peers are found: connecting to a black hole");
    let (hole, backend) = (BlackHole::new(), Backend::start(Behaviour::Name("alive".to_owned())));
    let (setup, front) = Setup::simple("round_robin", &[&hole.address, &backend.address]);
    let ringway = Ringway::start(&setup.pool_key("connect_timeout", "500ms"));
    let served = run(
        None,
        many(20, 20, |_| {
            let dial = Dial::to(&front);
            async move {
                let began = Instant::now();
                let name = dial.connect().await?.line(SOON).await?;
                assert_eq!(name, "alive");
                Ok::<_, std::io::Error>(began.elapsed())
            }
        }),
    );
    let errors = served.iter().filter(|result| result.is_err()).count();
    let slowest = served.iter().flatten().max().copied().unwrap_or_default();
    let label = hole.address.to_string();
    let timeouts = [("backend", label.as_str()), ("reason", "timeout")];
    promise.at_most("client errors of 20", errors, 0);
    promise.at_most(
        "seconds for the slowest (connect_timeout 0.5 s)",
        slowest.as_secs_f64(),
        1.5,
    );
    promise.at_least(
        "time-outs counted",
        ringway.count("ringway_backend_connect_errors_total", &timeouts),
        10,
    );
    promise.finish();
    ringway.finish();
}

/// Host part of 127.0.0.0/8 of the clients and of the backend that vanish.
const GONE_CLIENTS: [u8; 4] = [127, 0, 0, 2];
const GONE_BACKEND: [u8; 4] = [127, 0, 0, 3];

#[test]
fn p10_vanished_peers_go_and_slow_ones_stay() {
    if !is_root("p10_vanished_peers_go_and_slow_ones_stay") {
        return;
    }
    let _turn = Turn::start("p10_vanished_peers_go_and_slow_ones_stay", Duration::from_secs(200));
    let mut promise = Promise::new("P10", "half-open peers are found: a peer vanishes, a slow one is kept");
    let count = figure(100, 1_000);
    // In full, longer than any look at a blocked direction may be put off.
    let stopped = Duration::from_secs(figure(7, 80));
    let namespace = Namespace::new();
    let backend = |behaviour, ip: [u8; 4]| {
        let address = Some(Address::Inet(SocketAddr::from((ip, 0))));
        Backend::start_at(
            behaviour,
            &Place {
                address,
                namespace: Some(&namespace),
                ..Place::default()
            },
        )
    };
    let near = backend(Behaviour::Echo, [127, 0, 0, 1]);
    let far = backend(Behaviour::Echo, GONE_BACKEND);
    let source = backend(Behaviour::Exchange, [127, 0, 0, 1]);
    let (front, to_far, slow) = (free_v4(), free_v4(), free_v4());
    let keepalive = "{ idle: 1s, interval: 1s, count: 2 }";
    let mut setup = Setup::new().top("workers", "2");
    for (name, bind, pool) in [
        ("front", &front, &near),
        ("far", &to_far, &far),
        ("slow", &slow, &source),
    ] {
        setup = setup
            .listener(name, bind, name)
            .listener_key("tcp_keepalive", keepalive);
        setup = setup
            .listener_key("dead_peer_timeout", "2s")
            .pool(name, "round_robin", &[&pool.address]);
        setup = setup
            .pool_key("tcp_keepalive", keepalive)
            .pool_key("dead_peer_timeout", "2s");
    }
    let ringway = Ringway::start_in(&setup, &namespace);
    let (aborted, slow_reader) = run(Some(&namespace), async {
        let from = Dial {
            from: Some(GONE_CLIENTS.into()),
            ..Dial::to(&front)
        };
        let clients = open_relays(&from, count, 100).await.expect("relays open");
        let orphans = open_relays(&Dial::to(&to_far), count, 100).await.expect("relays open");
        let ip = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}");
        namespace.drop_packets(&format!("ip saddr {{ {}, {} }}", ip(GONE_CLIENTS), ip(GONE_BACKEND)));
        let mut orphans = orphans.into_iter();
        let ends = many(count, usize::MAX, |_| {
            let mut wire = orphans.next().expect("as many as were opened");
            async move { wire.read_to_end_of(Duration::from_secs(15)).await }
        });
        let wait = async { ends.await.into_iter().filter(|end| *end == (0, End::Reset)).count() as u64 };
        let slow = Dial {
            receive_buffer: Some(16 << 10),
            ..Dial::to(&slow)
        };
        let results = tokio::join!(wait, stop_and_resume(slow, stopped));
        drop(clients);
        results
    });
    promise.figure(
        "a reader that stops and acknowledges is never cut",
        format!("{slow_reader:?} after {stopped:?}"),
        slow_reader.is_ok(),
    );
    wait_for(Duration::from_secs(15), || (near.open() == 0).then_some(()));
    promise.at_most(
        &format!("backend connections left of {count} vanished clients"),
        near.open(),
        0,
    );
    promise.figure(
        format!("clients of {count} vanished backends reset"),
        format!("{aborted}"),
        aborted == count,
    );
    for (reason, listener) in [("client_gone", "front"), ("backend_gone", "far")] {
        let labels = [("listener", listener), ("reason", reason)];
        let counted = ringway.count("ringway_sessions_ended_total", &labels);
        promise.figure(
            format!("ended as {reason}: {count}"),
            format!("{counted}"),
            counted == count,
        );
    }
    ringway.settle();
    promise.figure("0 leaked", "0 sessions, buffers and descriptors left", true);
    promise.finish();
    ringway.finish();
}

/// Asks for 4 MiB, reads nothing for so long, then everything.
async fn stop_and_resume(dial: Dial, stopped: Duration) -> Result<(), String> {
    let plan = Plan {
        stream: 77,
        up: 0,
        down: 4 << 20,
        order: Order::Together,
        pauses: false,
    };
    let work = async {
        let mut wire = dial.connect().await?;
        plan.open(&mut wire).await?;
        tokio::time::sleep(stopped).await;
        receive(&mut wire, !plan.stream, plan.down, false).await?;
        wire.shutdown().await
    };
    work.await.map_err(|error: std::io::Error| error.to_string())
}

/// One that cannot be written to any more: keepalive is silent while bytes are under way, so only a look at what the
/// peer acknowledges can find it.
#[test]
fn p10_a_blocked_peer_that_vanishes_is_found() {
    if !is_root("p10_a_blocked_peer_that_vanishes_is_found") {
        return;
    }
    let _turn = Turn::start("p10_a_blocked_peer_that_vanishes_is_found", Duration::from_secs(120));
    let mut promise = Promise::new("P10", "half-open peers are found: a blocked peer vanishes");
    let namespace = Namespace::new();
    let source = Backend::start_at(
        Behaviour::Exchange,
        &Place {
            namespace: Some(&namespace),
            ..Place::default()
        },
    );
    let (setup, front) = Setup::simple("round_robin", &[&source.address]);
    let ringway = Ringway::start_in(&setup.listener_key("dead_peer_timeout", "2s"), &namespace);
    run(Some(&namespace), async {
        let dial = Dial {
            from: Some(GONE_CLIENTS.into()),
            receive_buffer: Some(16 << 10),
            ..Dial::to(&front)
        };
        let mut wire = dial.connect().await.expect("the listener accepts");
        let plan = Plan {
            stream: 78,
            up: 0,
            down: 64 << 20,
            order: Order::Together,
            pauses: false,
        };
        plan.open(&mut wire).await.expect("the relay stands");
        tokio::time::sleep(Duration::from_secs(1)).await;
        namespace.drop_packets("ip saddr 127.0.0.2");
        let began = Instant::now();
        wait_for(Duration::from_secs(20), || (source.open() == 0).then_some(()));
        promise.at_most(
            "seconds until it is gone (dead_peer_timeout 2 s)",
            began.elapsed().as_secs_f64(),
            10.0,
        );
    });
    promise.at_least("ended as client_gone", ringway.ended("client_gone"), 1);
    promise.finish();
    ringway.finish();
}

#[test]
fn p11_an_abort_stays_an_abort() {
    let _turn = Turn::start("p11_an_abort_stays_an_abort", Duration::from_secs(180));
    let mut promise = Promise::new("P11", "an abort stays an abort");
    let count: u64 = figure(1_000, 10_000);
    let (echo, resetting) = (
        Backend::start(Behaviour::Echo),
        Backend::start(Behaviour::ResetAfterOneByte),
    );
    let (front, back) = (free_v4(), free_v4());
    let setup = Setup::new()
        .top("workers", "2")
        .listener("front", &front, "echo")
        .listener("back", &back, "resetting");
    let setup = setup.pool("echo", "round_robin", &[&echo.address]);
    let ringway = Ringway::start(&setup.pool("resetting", "round_robin", &[&resetting.address]));
    let (by_clients, by_backends) = run(None, async {
        let by_clients = many(count, 32, |_| {
            let dial = Dial::to(&front);
            async move {
                let mut wire = dial.connect().await?;
                wire.ping(b"a", SOON).await?;
                wire.reset();
                Ok::<_, std::io::Error>(())
            }
        });
        let by_clients = by_clients.await;
        let by_backends = many(count, 32, |_| {
            let dial = Dial::to(&back);
            async move {
                let mut wire = dial.connect().await?;
                wire.ping(b"a", SOON).await?;
                wire.write_all(b"b").await?;
                Ok::<_, std::io::Error>(wire.read_to_end_of(SOON).await.1)
            }
        });
        (by_clients, by_backends.await)
    });
    assert!(
        by_clients.iter().all(Result::is_ok),
        "{:?}",
        by_clients.iter().find(|result| result.is_err())
    );
    wait_for(SOON, || (echo.open() == 0).then_some(()));
    let relayed = |seen: u64| seen * 100 >= count * 99;
    promise.figure(
        format!("99 % of {count} client resets reach backends as resets"),
        format!("{}", echo.resets()),
        relayed(echo.resets()),
    );
    let seen = by_backends.iter().filter(|end| matches!(end, Ok(End::Reset))).count() as u64;
    promise.figure(
        format!("99 % of {count} backend resets reach clients as resets"),
        format!("{seen}"),
        relayed(seen),
    );
    ringway.settle();
    let counted = ringway.ended("client_reset") + ringway.ended("backend_reset");
    promise.figure(
        "counted as resets",
        format!("{counted} of {}", 2 * count),
        relayed(counted / 2),
    );
    promise.figure("nothing leaks", "0 sessions, buffers and descriptors left", true);
    promise.finish();
    ringway.finish();
}
