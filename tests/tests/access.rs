//! Who may use a listener, and how much of it, from outside: what is refused is reset, counted by its reason, and seen by
//! no backend. Clients are told apart by their addresses: 127.0.0.0/8 has many, and a namespace more.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour, Place};
use ringway_tests::namespace::{Namespace, run as command};
use ringway_tests::process::wait_for;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root, say};
use ringway_tests::setup::Setup;
use ringway_tests::udp::{self, Server, free_udp, inet};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// A connection from this address.
fn connect(source: IpAddr, front: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(front), Type::STREAM, None)?;
    // Whoever is refused has no TIME_WAIT, but others have: ports must not run out.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&front.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// An answer of the echo behind the listener, or `None` for a reset. Everything else fails the test.
fn ask(source: &str, front: &Address) -> Option<TcpStream> {
    let source = source.parse().expect("an address");
    let answer = connect(source, inet(front)).and_then(|mut stream| {
        stream.write_all(b"x")?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        assert_eq!(byte, *b"x", "{source}: the echo");
        Ok(stream)
    });
    match answer {
        Ok(stream) => Some(stream),
        // Written after the reset has arrived: EPIPE.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
        Err(error) => panic!("{source}: neither an answer nor a reset: {error}"),
    }
}

fn refused(ringway: &Ringway, reason: &str) -> u64 {
    ringway.count("ringway_refused_total", &[("listener", "front"), ("reason", reason)])
}

#[test]
fn who_is_denied_is_reset_and_counted_and_no_backend_hears_of_it() {
    let _turn = Turn::start(
        "who_is_denied_is_reset_and_counted_and_no_backend_hears_of_it",
        SOON * 6,
    );
    let backend = Backend::start(Behaviour::Echo);
    let front = free_v4();
    let setup = Setup::new()
        .top("workers", "2")
        .top("session_log", "stderr")
        .listener("front", &front, "pool")
        .listener_key("allow", "[127.0.0.1, 127.0.1.0/24, 127.0.1.7]")
        .listener_key("deny", "127.0.1.6/31")
        .pool("pool", "round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let mut accepted = 0;
    for (source, may) in [
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("127.0.1.0", true),
        ("127.0.1.5", true),
        // The longer prefix wins, whichever list it is in.
        ("127.0.1.6", false),
        ("127.0.1.7", true),
        ("127.0.1.8", true),
        ("127.0.2.0", false),
        ("127.9.9.9", false),
    ] {
        for _ in 0..5 {
            assert_eq!(ask(source, &front).is_some(), may, "{source}");
            accepted += u64::from(may);
        }
    }
    assert_eq!(backend.accepted(), accepted, "connections that the backend has seen");
    assert_eq!(refused(&ringway, "denied"), 20);
    assert_eq!(ringway.count("ringway_refused_total", &[]), 20, "for no other reason");
    assert_eq!(ringway.count("ringway_listener_connections_total", &[]), accepted);
    let (_, status) = ringway.get("/api/v1/status").expect("the admin port answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["listeners"][0]["refused"], serde_json::json!({ "denied": 20 }));
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "finished")], accepted);
    let sessions = || ringway.log().matches("\"event\":\"session\"").count() as u64;
    assert!(
        wait_for(SOON, || (sessions() == accepted).then_some(())).is_some(),
        "{}",
        ringway.log()
    );
    assert!(!ringway.log().contains("127.0.0.2"), "{}", ringway.log());
    ringway.finish();
}

#[test]
fn one_client_has_so_many_connections_and_others_have_theirs() {
    let _turn = Turn::start("one_client_has_so_many_connections_and_others_have_theirs", SOON * 6);
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let setup = setup.listener_key("max_connections_per_client", "10");
    let ringway = Ringway::start(&setup);
    // Over both workers together.
    let mut open: Vec<TcpStream> = (0..10)
        .map(|n| ask("127.0.0.5", &front).unwrap_or_else(|| panic!("connection {n} is within the bound")))
        .collect();
    for _ in 0..5 {
        assert!(ask("127.0.0.5", &front).is_none(), "the 11th");
    }
    assert_eq!(refused(&ringway, "client_connections"), 5);
    let other = ask("127.0.0.6", &front).expect("another client");
    assert_eq!(backend.accepted(), 11);
    // One leaves, and there is room for one.
    drop(open.pop());
    let again = wait_for(SOON, || ask("127.0.0.5", &front));
    assert!(again.is_some(), "the place of one that has left");
    assert!(ask("127.0.0.5", &front).is_none());
    drop((open, other, again));
    ringway.finish();
}

#[test]
fn one_client_connects_so_fast_and_others_as_fast() {
    let _turn = Turn::start("one_client_connects_so_fast_and_others_as_fast", SOON * 6);
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    // A tenth at once is 3; then one every 2 s.
    let setup = setup.listener_key("connection_rate", "30/m");
    let ringway = Ringway::start(&setup);
    let began = Instant::now();
    for n in 0..3 {
        assert!(ask("127.0.0.5", &front).is_some(), "{n} of the burst");
    }
    for _ in 0..5 {
        assert!(ask("127.0.0.5", &front).is_none(), "after {:?}", began.elapsed());
    }
    assert_eq!(refused(&ringway, "client_rate"), 5);
    assert!(ask("127.0.0.6", &front).is_some(), "another client");
    // What is refused does not make the wait longer.
    let again = wait_for(SOON, || ask("127.0.0.5", &front));
    let waited = began.elapsed();
    assert!(again.is_some(), "its time has come");
    // A worker's clock is that of its turn, which may have begun before the client's.
    let (soonest, latest) = (Duration::from_millis(1_900), Duration::from_millis(2_900));
    assert!(waited > soonest && waited < latest, "allowed again after {waited:?}");
    assert!(ask("127.0.0.5", &front).is_none(), "one, not more");
    drop(again);
    ringway.finish();
}

#[test]
fn one_network_of_64_bits_is_one_client() {
    let _turn = Turn::start("one_network_of_64_bits_is_one_client", SOON * 6);
    if !is_root("one_network_of_64_bits_is_one_client") {
        return;
    }
    let namespace = Namespace::new();
    for address in [
        "2001:db8:0:1::1",
        "2001:db8:0:1::2",
        "2001:db8:0:1:ffff::3",
        "2001:db8:0:2::1",
        "2001:db8:f::1",
    ] {
        let network = format!("{address}/128");
        command(
            "ip",
            &["-n", &namespace.name, "addr", "add", &network, "dev", "lo", "nodad"],
        );
    }
    let backend = Backend::start_at(
        Behaviour::Echo,
        &Place {
            namespace: Some(&namespace),
            ..Place::default()
        },
    );
    let front = Address::Inet("[2001:db8:0:1::1]:5432".parse().expect("an address"));
    let setup = Setup::new()
        .top("workers", "2")
        .listener("front", &front, "pool")
        .listener_key("max_connections_per_client", "2")
        .listener_key("deny", "\"2001:db8:f::/48\"")
        .pool("pool", "round_robin", &[&backend.address]);
    let ringway = Ringway::start_in(&setup, &namespace);
    namespace.inside(|| {
        let first = ask("2001:db8:0:1::1", &front).expect("the first of the network");
        let second = ask("2001:db8:0:1::2", &front).expect("the second of the network");
        assert!(
            ask("2001:db8:0:1:ffff::3", &front).is_none(),
            "the third of the network"
        );
        let other = ask("2001:db8:0:2::1", &front).expect("another network");
        assert!(ask("2001:db8:f::1", &front).is_none(), "one that is denied");
        drop((first, second, other));
    });
    assert_eq!(refused(&ringway, "client_connections"), 1);
    assert_eq!(refused(&ringway, "denied"), 1);
    ringway.finish();
}

#[test]
fn datagrams_of_who_is_denied_open_no_session() {
    let _turn = Turn::start("datagrams_of_who_is_denied_open_no_session", SOON * 6);
    let server = Server::start(b'a');
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("front", &front, "pool")
        .listener_key("deny", "127.0.0.2")
        .listener_key("session_timeout", "1s")
        .pool("pool", "round_robin", &[&server.as_address()]);
    let ringway = Ringway::start(&setup);
    let denied = UdpSocket::bind("127.0.0.2:0").expect("127.0.0.0/8 is local");
    for _ in 0..10 {
        denied.send_to(b"hello", inet(&front)).expect("send");
    }
    let client = udp::client(inet(&front), SOON);
    assert_eq!(udp::ask(&client, b"hello").expect("an answer"), b"ahello");
    let dropped = || ringway.count("ringway_udp_dropped_total", &[("reason", "denied")]);
    assert!(
        wait_for(SOON, || (dropped() == 10).then_some(())).is_some(),
        "{}",
        dropped()
    );
    assert_eq!(server.served(), 1, "what the server has seen");
    assert_eq!(ringway.count("ringway_refused_total", &[]), 0, "that is of connections");
    ringway.finish();
}

/// CPU time of the process for each of `count` connections from `source`, each over when the next one begins.
fn cost(ringway: &Ringway, front: &Address, source: &str, count: u32, is_served: bool) -> Duration {
    const THREADS: u32 = 2;
    let before = ringway.process.cpu_time();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..count / THREADS {
                    let stream = ask(source, front);
                    assert_eq!(stream.is_some(), is_served, "{source}");
                    if let Some(stream) = stream {
                        // By reset: no port of its own or of the balancer's is kept from the next one.
                        let socket = Socket::from(stream);
                        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
                    }
                }
            });
        }
    });
    // What ends last is paid for as well.
    ringway.settle();
    (ringway.process.cpu_time() - before) / count
}

#[test]
fn a_refused_connection_costs_less_than_an_accepted_one() {
    let _turn = Turn::start("a_refused_connection_costs_less_than_an_accepted_one", SOON * 30);
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let setup = setup
        .listener_key("deny", "[127.0.0.2, 127.0.3.0/24]")
        .listener_key("max_connections_per_client", "100")
        .listener_key("connection_rate", "1000000/s");
    let ringway = Ringway::start(&setup);
    let count = figure(10_000, 100_000);
    let accepted = cost(&ringway, &front, "127.0.0.1", count / 5, true);
    let denied = cost(&ringway, &front, "127.0.0.2", count, false);
    assert_eq!(refused(&ringway, "denied"), u64::from(count));
    assert_eq!(backend.accepted(), u64::from(count / 5));
    say(&format!(
        "CPU of the process per connection: {accepted:?} accepted with one byte echoed, {denied:?} denied ({count} of them)\n"
    ));
    assert!(denied < accepted, "{denied:?} denied, {accepted:?} accepted");
    ringway.finish();
}
