//! UDP: answers from where they were asked for, sessions that move, and datagrams of every length.

use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::process::wait_for;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::setup::Setup;
use ringway_tests::udp::{LONGEST, Server, ask, free_udp, inet};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);
fn client(front: SocketAddr) -> UdpSocket {
    ringway_tests::udp::client(front, SOON)
}

fn start(servers: &[&Server], keys: &[(&str, &str)]) -> (Ringway, SocketAddr) {
    let front = free_udp();
    let addresses: Vec<Address> = servers.iter().map(|server| server.as_address()).collect();
    let addresses: Vec<&Address> = addresses.iter().collect();
    let mut setup = Setup::new().top("workers", "2").udp_listener("front", &front, "pool");
    for (key, value) in keys {
        setup = setup.listener_key(key, value);
    }
    if !keys.iter().any(|(key, _)| *key == "session_timeout") {
        // Longer than a test looks at its sessions, and short enough to await their end.
        setup = setup
            .listener_key("session_timeout", "1500ms")
            .listener_key("unanswered_timeout", "1500ms");
    }
    let setup = setup.pool("pool", "round_robin", &addresses);
    (Ringway::start(&setup), inet(&front))
}

#[test]
fn every_length_is_answered_by_one_backend_for_each_client() {
    let _turn = Turn::start("every_length_is_answered_by_one_backend_for_each_client", SOON * 6);
    let servers = [Server::start(b'a'), Server::start(b'b')];
    let (ringway, front) = start(&[&servers[0], &servers[1]], &[]);
    for _ in 0..8 {
        let client = client(front);
        let mut letters = Vec::new();
        for len in [0, 1, 100, 1_472, 9_000, LONGEST - 1] {
            let question = vec![b'x'; len];
            let answer = ask(&client, &question).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
            assert_eq!(answer[1..], question, "{len} bytes came back changed");
            letters.push(answer[0]);
        }
        letters.dedup();
        assert_eq!(letters.len(), 1, "a client's datagrams were spread: {letters:?}");
    }
    assert_eq!(
        (servers[0].served(), servers[1].served()),
        (24, 24),
        "round robin over sessions"
    );
    let count = |name: &str, labels: &[(&str, &str)]| ringway.count(name, labels);
    assert_eq!(count("ringway_udp_sessions", &[]), 8);
    assert_eq!(count("ringway_udp_datagrams_total", &[("direction", "in")]), 48);
    assert_eq!(count("ringway_udp_datagrams_total", &[("direction", "out")]), 48);
    assert_eq!(count("ringway_udp_dropped_total", &[]), 0);
    for server in &servers {
        let label = server.address.to_string();
        for direction in ["in", "out"] {
            let labels = [("backend", &*label), ("direction", direction)];
            assert_eq!(count("ringway_udp_backend_datagrams_total", &labels), 24, "{labels:?}");
        }
    }
    ringway.finish();
}

/// One of two servers takes its time: with `least_response_time` it is asked less.
#[test]
fn the_faster_server_is_preferred() {
    let _turn = Turn::start("the_faster_server_is_preferred", SOON * 6);
    let slow = Server::start_slow(b's', Duration::from_millis(20));
    let fast = Server::start(b'f');
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("front", &front, "pool")
        .listener_key("responses", "1")
        .pool("pool", "least_response_time", &[&slow.as_address(), &fast.as_address()]);
    let ringway = Ringway::start(&setup);
    for _ in 0..60 {
        ask(&client(inet(&front)), b"hello").expect("an answer");
    }
    assert!(
        slow.served() * 4 < fast.served(),
        "slow {}, fast {}",
        slow.served(),
        fast.served()
    );
    ringway.finish();
}

#[test]
fn a_session_moves_when_its_backend_is_gone() {
    let _turn = Turn::start("a_session_moves_when_its_backend_is_gone", SOON * 6);
    let stays = Server::start(b's');
    let goes = Server::start(b'g');
    let (ringway, front) = start(&[&stays, &goes], &[]);
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(front)).collect();
    for client in &clients {
        ask(client, b"hello").expect("an answer");
    }
    assert_eq!((stays.served(), goes.served()), (3, 3));
    drop(goes);
    for client in &clients {
        client
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("SO_RCVTIMEO");
        // The first question meets nobody, which its answer by ICMP tells; the next ones reach the other backend.
        let answered = wait_for(SOON, || ask(client, b"again").ok());
        assert_eq!(answered.map(|answer| answer[0]), Some(b's'));
    }
    assert_eq!(ringway.count("ringway_udp_sessions_moved_total", &[]), 3);
    assert_eq!(ringway.count("ringway_udp_sessions", &[]), 6, "none was opened anew");
    ringway.finish();
}

#[test]
fn a_session_leaves_a_backend_that_is_silent() {
    let _turn = Turn::start("a_session_leaves_a_backend_that_is_silent", SOON * 6);
    let servers = [Server::start(b'a'), Server::start(b'b')];
    let front = free_udp();
    let addresses = [servers[0].as_address(), servers[1].as_address()];
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("front", &front, "pool")
        .listener_key("session_timeout", "3s")
        .pool("pool", "round_robin", &[&addresses[0], &addresses[1]])
        .pool_key("silence", "300ms");
    let ringway = Ringway::start(&setup);
    let client = client(inet(&front));
    let first = ask(&client, b"hello").expect("an answer")[0];
    let silent = &servers[usize::from(first == b'b')];
    silent.fall_silent();
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("SO_RCVTIMEO");
    let began = Instant::now();
    let answered = wait_for(SOON, || ask(&client, b"again").ok());
    assert_ne!(answered.map(|answer| answer[0]), Some(first));
    let taken = began.elapsed();
    assert!(
        taken >= Duration::from_millis(250) && taken < Duration::from_secs(2),
        "{taken:?}"
    );
    assert_eq!(ringway.count("ringway_udp_sessions_moved_total", &[]), 1);
    ringway.finish();
}

/// TCP and UDP of one client reach the same host, whatever the ports and the algorithms.
#[test]
fn a_group_keeps_a_client_at_one_host() {
    let _turn = Turn::start("a_group_keeps_a_client_at_one_host", SOON * 6);
    let hosts = ["127.0.0.11", "127.0.0.12", "127.0.0.13"];
    let servers = hosts.map(|ip| Server::start_at(ip.as_bytes()[9], ip));
    let listeners = hosts.map(|ip| TcpListener::bind((ip, 0)).expect("a free port"));
    let accepted: Arc<[AtomicU64; 3]> = Arc::default();
    for (n, listener) in listeners.iter().enumerate() {
        let (listener, accepted) = (listener.try_clone().expect("dup"), accepted.clone());
        // Ends with the process.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Whoever ends before the first byte is taken for broken.
                stream.write_all(b"x").expect("a new connection has room");
                accepted[n].fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    let udp: Vec<Address> = servers.iter().map(Server::as_address).collect();
    let tcp: Vec<Address> = listeners
        .iter()
        .map(|it| Address::Inet(it.local_addr().expect("bound")))
        .collect();
    let (udp_front, tcp_front) = (free_udp(), free_v4());
    // In another order, as it may be in another file.
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("udp", &udp_front, "udp")
        .listener_key("affinity_group", "match")
        .listener_key("session_timeout", "1s")
        .listener("tcp", &tcp_front, "tcp")
        .listener_key("affinity_group", "match")
        .pool("udp", "round_robin", &[&udp[0], &udp[1], &udp[2]])
        .pool("tcp", "least_connections", &[&tcp[2], &tcp[0], &tcp[1]]);
    let ringway = Ringway::start(&setup);
    let mut used = [0; 3];
    for last in 1..=12 {
        let ip = format!("127.0.1.{last}");
        let socket = UdpSocket::bind((&*ip, 0)).expect("a free port");
        socket.set_read_timeout(Some(SOON)).expect("SO_RCVTIMEO");
        socket.connect(inet(&udp_front)).expect("connect");
        let host = usize::from(ask(&socket, b"where").expect("an answer")[0] - b'1');
        used[host] += 1;
        let before = accepted[host].load(Ordering::Acquire);
        let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        stream
            .bind(&SocketAddr::new(ip.parse().expect("an address"), 0).into())
            .expect("bind");
        stream.connect(&inet(&tcp_front).into()).expect("connect");
        let came = wait_for(SOON, || {
            (accepted[host].load(Ordering::Acquire) == before + 1).then_some(())
        });
        assert!(came.is_some(), "{ip}: UDP at host {host}, TCP elsewhere: {accepted:?}");
    }
    assert!(
        used.iter().filter(|&&count| count > 0).count() > 1,
        "all clients at one host: {used:?}"
    );
    ringway.finish();
}

#[test]
fn sessions_end_by_timeout_and_by_responses() {
    let _turn = Turn::start("sessions_end_by_timeout_and_by_responses", SOON * 6);
    let server = Server::start(b'a');
    let keys = [("session_timeout", "300ms"), ("unanswered_timeout", "200ms")];
    let (ringway, front) = start(&[&server], &keys);
    ask(&client(front), b"hello").expect("an answer");
    let ended = || ringway.count("ringway_sessions_ended_total", &[("reason", "session_timeout")]);
    assert!(
        wait_for(SOON, || (ended() == 1).then_some(())).is_some(),
        "{} ended",
        ended()
    );
    assert_eq!(ringway.count("ringway_udp_sessions", &[]), 0);
    ringway.finish();

    let (ringway, front) = start(&[&server], &[("responses", "1")]);
    let client = client(front);
    for _ in 0..5 {
        ask(&client, b"hello").expect("an answer");
    }
    let ended = || ringway.count("ringway_sessions_ended_total", &[("reason", "finished")]);
    assert!(
        wait_for(SOON, || (ended() == 5).then_some(())).is_some(),
        "{} ended",
        ended()
    );
    ringway.finish();
}

#[test]
fn bounds_on_sessions_and_rates_hold() {
    let _turn = Turn::start("bounds_on_sessions_and_rates_hold", SOON * 6);
    let server = Server::start(b'a');
    let (ringway, front) = start(&[&server], &[("max_sessions", "3"), ("rate", "10/s")]);
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(front)).collect();
    for client in &clients {
        // One at once is within the rate of all of them together only if they are spaced out.
        let answered = wait_for(SOON, || {
            client
                .set_read_timeout(Some(Duration::from_millis(150)))
                .expect("SO_RCVTIMEO");
            ask(client, b"hello").ok()
        });
        assert!(answered.is_some());
    }
    let late = client(front);
    late.send(b"hello").expect("send");
    let dropped = |reason| ringway.count("ringway_udp_dropped_total", &[("reason", reason)]);
    assert!(wait_for(SOON, || (dropped("max_sessions") == 1).then_some(())).is_some());
    for _ in 0..50 {
        clients[0].send(b"flood").expect("send");
    }
    assert!(
        wait_for(SOON, || (dropped("rate") >= 40).then_some(())).is_some(),
        "{}",
        dropped("rate")
    );
    ringway.finish();
}

/// More datagrams at once than there are buffers (256): the ring runs dry, and all of them are answered nevertheless. Few
/// enough for the default buffers of the servers' and the clients' sockets.
#[test]
fn a_dry_ring_loses_nothing_and_sessions_go_on() {
    const EACH: u64 = 75;
    let _turn = Turn::start("a_dry_ring_loses_nothing_and_sessions_go_on", SOON * 6);
    let servers = [Server::start(b'a'), Server::start(b'b')];
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "1")
        .udp_listener("front", &front, "pool")
        .listener_key("session_timeout", "3s")
        .pool(
            "pool",
            "round_robin",
            &[&servers[0].as_address(), &servers[1].as_address()],
        );
    let ringway = Ringway::start(&setup);
    let clients: Vec<UdpSocket> = (0..4).map(|_| client(inet(&front))).collect();
    for client in &clients {
        ask(client, b"hello").expect("an answer");
    }
    ringway.process.signal(Signal::SIGSTOP);
    for n in 0..EACH {
        for client in &clients {
            client.send(&n.to_be_bytes()).expect("send");
        }
    }
    ringway.process.signal(Signal::SIGCONT);
    let mut buffer = [0; 100];
    for client in &clients {
        for n in 0..EACH {
            let len = client
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("answer {n}: {error}"));
            assert_eq!(buffer[1..len], n.to_be_bytes(), "out of order");
        }
    }
    assert!(
        ringway.count("ringway_runtime_buffers_dry_total", &[]) > 0,
        "the ring never ran dry"
    );
    assert_eq!(ringway.count("ringway_udp_dropped_total", &[]), 0);
    ask(&clients[0], b"again").expect("an answer");
    ringway.finish();
}

/// Nobody else is there to move to: the session finds its server again as soon as it is back.
#[test]
fn an_only_backend_that_comes_back_is_found_by_its_sessions() {
    let _turn = Turn::start("an_only_backend_that_comes_back_is_found_by_its_sessions", SOON * 6);
    let server = Server::start(b'a');
    let address = server.address;
    let (ringway, front) = start(&[&server], &[]);
    let client = ringway_tests::udp::client(front, Duration::from_millis(100));
    ask(&client, b"hello").expect("an answer");
    drop(server);
    for _ in 0..3 {
        ask(&client, b"anybody?").expect_err("nobody is there");
    }
    let _server = Server::start_on(b'b', UdpSocket::bind(address).expect("its port"));
    let answered = wait_for(SOON, || ask(&client, b"again").ok());
    assert_eq!(answered.map(|answer| answer[0]), Some(b'b'));
    assert_eq!(ringway.count("ringway_udp_sessions", &[]), 1, "it is the same session");
    assert_eq!(ringway.count("ringway_udp_sessions_moved_total", &[]), 0);
    ringway.finish();
}

/// Two neighbouring ports, free here and at 127.0.0.2.
fn neighbours() -> (u16, [UdpSocket; 2]) {
    let found = (0..1_000).find_map(|_| {
        let first = UdpSocket::bind("127.0.0.2:0").ok()?;
        let port = first.local_addr().ok()?.port();
        let second = UdpSocket::bind(("127.0.0.2", port.checked_add(1)?)).ok()?;
        UdpSocket::bind(("127.0.0.1", port)).ok()?;
        UdpSocket::bind(("127.0.0.1", port + 1)).ok()?;
        Some((port, [first, second]))
    });
    found.expect("two free ports side by side")
}

#[test]
fn a_range_of_ports_keeps_the_port() {
    let _turn = Turn::start("a_range_of_ports_keeps_the_port", SOON * 6);
    let (port, [first, second]) = neighbours();
    let mut servers = vec![Server::start_on(b'1', first), Server::start_on(b'2', second)];
    let setup = Setup::verbatim(&format!(
        "listeners:\n  range: {{ bind: \"127.0.0.1:{port}-{}\", protocol: udp, pool: range, keep_port: true, \
         session_timeout: 1s, unanswered_timeout: 1s }}\npools:\n  range: {{ passive: {{ max_ejected: 100% }}, backends: [\"127.0.0.2:9\"] }}\n",
        port + 1
    ));
    let ringway = Ringway::start(&setup);
    for (port, letter) in [(port, b'1'), (port + 1, b'2'), (port, b'1')] {
        let client = client(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(ask(&client, b"who").expect("an answer")[0], letter, "port {port}");
    }
    // Nobody listens at the second port any more. That is no fault of the host, whose first port serves on.
    drop(servers.pop());
    let lost = ringway_tests::udp::client(SocketAddr::from(([127, 0, 0, 1], port + 1)), Duration::from_millis(100));
    for _ in 0..3 {
        ask(&lost, b"who").expect_err("nobody is there");
    }
    let served = client(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(ask(&served, b"who").expect("an answer")[0], b'1');
    assert_eq!(ringway.count("ringway_backend_condition", &[("condition", "up")]), 1);
    assert!(
        ringway.log().contains(&format!("127.0.0.1:{port}-{}", port + 1)),
        "{}",
        ringway.log()
    );
    ringway.finish();
}

/// Whoever claims to be a backend, or one of our listeners, gets no session: the two would answer each other for ever.
#[test]
fn our_own_addresses_get_no_session() {
    let _turn = Turn::start("our_own_addresses_get_no_session", SOON * 6);
    let backend = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("front", &front, "pool")
        .pool(
            "pool",
            "round_robin",
            &[&Address::Inet(backend.local_addr().expect("bound"))],
        );
    let ringway = Ringway::start(&setup);
    backend.send_to(b"echo", inet(&front)).expect("send");
    let dropped = || ringway.count("ringway_udp_dropped_total", &[("reason", "loop")]);
    assert!(wait_for(SOON, || (dropped() == 1).then_some(())).is_some());
    assert_eq!(ringway.count("ringway_udp_sessions", &[]), 0);
    ringway.finish();
}

/// Binds to every address of both families: an answer comes from the address that was asked, or a connected client would
/// not take it.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    let _turn = Turn::start("answers_come_from_the_address_that_was_asked", SOON * 6);
    let servers = [Server::start_at(b'4', "127.0.0.1"), Server::start_at(b'6', "::1")];
    let port = free_udp().port();
    let setup = Setup::verbatim(&format!(
        "listeners:\n  all: {{ bind: [\"0.0.0.0:{port}\", \"[::]:{port}\"], protocol: udp, pool: all, session_timeout: 1s, \
         unanswered_timeout: 1s }}\npools:\n  all: {{ backends: [\"{}\", \"{}\"] }}\n",
        servers[0].address, servers[1].address
    ));
    let ringway = Ringway::start(&setup);
    for ip in ["127.0.0.9", "127.0.0.1", "::1", "127.0.0.200"] {
        let any = if ip.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).expect("a free port");
        socket.set_read_timeout(Some(SOON)).expect("SO_RCVTIMEO");
        socket.connect((ip, port)).expect("connect");
        for question in [&b"hello"[..], b"again"] {
            let answer = ask(&socket, question).unwrap_or_else(|error| panic!("{ip}: {error}"));
            assert_eq!(&answer[1..], question, "{ip}");
        }
    }
    assert!(servers.iter().all(|server| server.served() > 0), "{servers:?}");
    ringway.finish();
}

/// With one socket less the kernel would send clients' datagrams to other workers than before.
#[test]
fn sessions_of_all_workers_go_on_while_it_stops() {
    let _turn = Turn::start("sessions_of_all_workers_go_on_while_it_stops", SOON * 6);
    let server = Server::start(b'a');
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "4")
        .top("drain_timeout", "20s")
        .udp_listener("front", &front, "pool")
        .listener_key("session_timeout", "1s")
        .listener_key("unanswered_timeout", "1s")
        .pool("pool", "round_robin", &[&server.as_address()]);
    let mut ringway = Ringway::start(&setup);
    // Few enough that some worker has none, and ends at once if it may.
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(inet(&front))).collect();
    for client in &clients {
        ask(client, b"hello").expect("an answer");
    }
    ringway.process.signal(Signal::SIGTERM);
    wait_for(SOON, || (!ringway.is_ready()).then_some(())).expect("it stops");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        for client in &clients {
            ask(client, b"again").expect("an answer while it drains");
        }
    }
    drop(clients);
    let status = ringway.wait(SOON).expect("it ends when the last session is over");
    assert_eq!(status.code(), Some(0));
}
