//! `source: client`: backends see the clients' own addresses, by the lines of the how-to page; and what is said when
//! something is missing. A client, a balancer and a backend, each in a network namespace of its own.

use ringway_tests::namespace::Namespace;
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch};
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::setup::Setup;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

// As in the how-to page. Each namespace is a network of its own, so every port is free.
const CLIENT: &str = "203.0.113.7";
const CLIENT_V6: &str = "2001:db8:7::7";
const FRONT: &str = "203.0.113.1:5432";
const FRONT_V6: &str = "[2001:db8:7::1]:5432";
const BACKEND: &str = "10.0.1.11:5432";
const BACKEND_V6: &str = "[2001:db8:1::11]:5432";

/// The picture of the how-to page.
struct Networks {
    client: Namespace,
    balancer: Namespace,
    backend: Namespace,
}

impl Networks {
    fn new() -> Self {
        let [client, balancer, backend] = [(); 3].map(|()| Namespace::new());
        client.connect(
            ("eth0", &["203.0.113.7/24", "203.0.113.8/24", "2001:db8:7::7/64"]),
            &balancer,
            ("eth0", &["203.0.113.1/24", "2001:db8:7::1/64"]),
        );
        balancer.connect(
            ("eth1", &["10.0.1.1/24", "2001:db8:1::1/64"]),
            &backend,
            ("eth0", &["10.0.1.11/24", "10.0.1.12/24", "2001:db8:1::11/64"]),
        );
        backend.shell("ip route replace default via 10.0.1.1; ip -6 route replace default via 2001:db8:1::1");
        // A new namespace may have the settings of this machine.
        balancer.shell("for name in all eth0 eth1; do sysctl -qw net.ipv4.conf.$name.rp_filter=0; done");
        let networks = Self {
            client,
            balancer,
            backend,
        };
        networks.wait_for_neighbours();
        networks
    }

    /// IPv6 of a fresh cable may take a second: until somebody refuses there.
    fn wait_for_neighbours(&self) {
        for (from, to) in [
            (&self.balancer, "[2001:db8:1::11]:9"),
            (&self.client, "[2001:db8:7::1]:9"),
        ] {
            let to: SocketAddr = to.parse().expect("an address");
            let refused = || match TcpStream::connect_timeout(&to, Duration::from_millis(100)) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(()),
                _ => None,
            };
            from.inside(|| wait_for(SOON, refused)).expect("the network comes up");
        }
    }

    fn listen(&self, address: &str) -> TcpListener {
        let listener = self.backend.inside(|| TcpListener::bind(address));
        patient(listener)
    }

    /// Connects from this address of the client's.
    fn connect(&self, from: &str, to: &str) -> io::Result<TcpStream> {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let to = address(to);
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        let stream: TcpStream = self.client.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect(&to.into())?;
            Ok::<_, io::Error>(socket.into())
        })?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    }

    /// Whom the backend sees when this client connects, after bytes went both ways.
    fn seen(&self, client: &str, front: &str, listener: &TcpListener) -> IpAddr {
        let mut stream = self.connect(client, front).expect("somebody listens there");
        let (mut served, from) = wait_for(SOON, || listener.accept().ok()).expect("the backend is connected");
        served.set_nonblocking(false).expect("a socket");
        served.set_read_timeout(Some(SOON)).expect("a socket");
        let mut bytes = [0; 4];
        stream.write_all(b"ping").expect("it is open");
        served.read_exact(&mut bytes).expect("bytes from the client");
        assert_eq!(&bytes, b"ping");
        served.write_all(b"pong").expect("it is open");
        stream.read_exact(&mut bytes).expect("bytes from the backend");
        assert_eq!(&bytes, b"pong");
        from.ip()
    }

    /// A client is closed or reset, having reached nobody.
    fn reaches_nobody(&self, client: &str, front: &str) {
        let mut stream = self.connect(client, front).expect("somebody listens there");
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("{other:?} instead of an end"),
        }
    }
}

fn patient(listener: io::Result<TcpListener>) -> TcpListener {
    let listener = listener.expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    listener
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A listener for each of `fronts`, and a transparent pool with these backends; `keys` are the pool's.
fn setup(protocol: &str, fronts: &[&str], backends: &[&str], keys: &str) -> Setup {
    let mut text = "listeners:\n".to_owned();
    for (n, front) in fronts.iter().enumerate() {
        let short = if protocol == "udp" { ", session_timeout: 1s" } else { "" };
        text += &format!("  front{n}: {{ bind: \"{front}\", protocol: {protocol}, pool: pool{short} }}\n");
    }
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    text += &format!(
        "pools:\n  pool:\n    source: client\n    passive: off\n    {keys}\n    backends: [{}]\n",
        backends.join(", ")
    );
    Setup::verbatim(&text)
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to-transparent-source.md");
    std::fs::read_to_string(&page).expect("the page")
}

/// The lines of the block of the how-to page that has this in it.
fn documented(part: &str) -> String {
    let text = page();
    let block = text
        .split("\n```")
        .find(|block| block.contains(part) && block.starts_with('\n'));
    block.unwrap_or_else(|| panic!("no block has {part}")).trim().to_owned()
}

/// The warning about a backend, if there is one.
fn warning(ringway: &Ringway, backend: &str) -> Option<String> {
    let log = ringway.log();
    let about = format!("\"backend\":\"{backend}\"");
    let line = log
        .lines()
        .find(|line| line.contains(&about) && line.contains("source: client"))?;
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    text(&line["message"]).or_else(|| text(&line["fields"]["message"]))
}

/// What a warning tells to type.
fn lines(warning: &str) -> Vec<String> {
    let part = |rest: &str| rest.split(';').next().unwrap_or_default().to_owned();
    warning.split("type: ").skip(1).map(part).collect()
}

/// Without warnings, too.
#[test]
fn the_configuration_of_the_page_is_valid() {
    let text = page();
    let block = text
        .split("\n```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("\n```").next());
    let files = Dir::new();
    let file = files
        .write("ringway.yaml", block.expect("a configuration"))
        .display()
        .to_string();
    let (code, said, errors) = run_to_end(&Launch::default(), &["check", &file], SOON);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(!(said + &errors).contains("warning"), "no warnings");
}

/// With nothing but CAP_NET_RAW: it is all that this takes.
#[test]
fn backends_see_the_clients_own_addresses() {
    if !is_root("backends_see_the_clients_own_addresses") {
        return;
    }
    let _turn = Turn::start("backends_see_the_clients_own_addresses", LIMIT);
    let networks = Networks::new();
    networks.balancer.shell(&documented("ip rule add from"));
    networks.balancer.shell(&documented("ip -6 rule add from"));
    let setup = setup("tcp", &[FRONT], &[BACKEND], "");
    let listener = networks.listen(BACKEND);
    let ringway = Ringway::start_with_capability(&setup, &networks.balancer, "net_raw");
    for client in [CLIENT, "203.0.113.8", CLIENT] {
        assert_eq!(networks.seen(client, FRONT, &listener), ip(client));
    }
    assert_eq!(warning(&ringway, BACKEND), None, "nothing is missing");
    ringway.finish();

    let setup = self::setup("tcp", &[FRONT_V6], &[BACKEND_V6], "");
    let listener = networks.listen(BACKEND_V6);
    let ringway = Ringway::start_with_capability(&setup, &networks.balancer, "net_raw");
    assert_eq!(networks.seen(CLIENT_V6, FRONT_V6, &listener), ip(CLIENT_V6));
    assert_eq!(warning(&ringway, BACKEND_V6), None, "nothing is missing");
    ringway.finish();
}

#[test]
fn marks_serve_as_well() {
    if !is_root("marks_serve_as_well") {
        return;
    }
    let _turn = Turn::start("marks_serve_as_well", LIMIT);
    let networks = Networks::new();
    networks.balancer.shell(&documented("nft add table"));
    let listener = networks.listen(BACKEND);
    let ringway = Ringway::start_in(&setup("tcp", &[FRONT], &[BACKEND], ""), &networks.balancer);
    assert_eq!(networks.seen(CLIENT, FRONT, &listener), ip(CLIENT));
    let told = warning(&ringway, BACKEND).expect("what cannot be checked is told");
    assert!(told.contains("marks them with 0x1;"), "{told}");
    ringway.finish();
}

/// Without a line of the page there is a warning, and what it tells to type is all that is missing: with the process that
/// runs already.
#[test]
fn what_is_missing_is_told_with_its_cure() {
    if !is_root("what_is_missing_is_told_with_its_cure") {
        return;
    }
    let _turn = Turn::start("what_is_missing_is_told_with_its_cure", LIMIT);
    let rule = "ip rule add from 10.0.1.11 ipproto tcp sport 5432 iif eth1 lookup";
    let rule_v6 = "ip -6 rule add from 2001:db8:1::11 ipproto tcp sport 5432 iif eth1 lookup";
    let v4 = (CLIENT, FRONT, BACKEND);
    let v6 = (CLIENT_V6, FRONT_V6, BACKEND_V6);
    for ((client, front, backend), before, told) in [
        (
            v4,
            "true",
            format!("{rule} 100 && ip route add local 0.0.0.0/0 dev lo table 100"),
        ),
        (
            v4,
            "sysctl -qw net.ipv4.ip_forward=1",
            format!("{rule} 100 && ip route add local 0.0.0.0/0 dev lo table 100"),
        ),
        (v4, "ip route add local 0.0.0.0/0 dev lo table 70", format!("{rule} 70")),
        (
            v4,
            "ip rule add from 10.0.1.0/24 iif eth1 lookup 7",
            "ip route add local 0.0.0.0/0 dev lo table 7".to_owned(),
        ),
        // As a VPN has it: a route in that table would swallow everything.
        (
            v4,
            "ip rule add from all lookup 220",
            format!("{rule} 100 && ip route add local 0.0.0.0/0 dev lo table 100"),
        ),
        (
            v4,
            "ip rule add from 10.0.1.12 iif eth1 lookup 7",
            format!("{rule} 100 && ip route add local 0.0.0.0/0 dev lo table 100"),
        ),
        (
            v6,
            "true",
            format!("{rule_v6} 100 && ip -6 route add local ::/0 dev lo table 100"),
        ),
        (
            v6,
            "ip -6 rule add from 2001:db8:1::/64 iif eth1 lookup 7",
            "ip -6 route add local ::/0 dev lo table 7".to_owned(),
        ),
    ] {
        let networks = Networks::new();
        networks.balancer.shell(before);
        let setup = setup("tcp", &[front], &[backend], "connect_timeout: 300ms");
        let listener = networks.listen(backend);
        let ringway = Ringway::start_in(&setup, &networks.balancer);
        let sentence = warning(&ringway, backend).unwrap_or_else(|| panic!("{before}: no warning"));
        assert_eq!(lines(&sentence), [told], "after {before}: {sentence}");
        networks.reaches_nobody(client, front);
        networks.balancer.shell(&lines(&sentence)[0]);
        // Connections of the attempts that failed have not been accepted, or are dead.
        while listener.accept().is_ok() {}
        assert_eq!(networks.seen(client, front, &listener), ip(client), "after {before}");
        ringway.finish();
    }
}

/// A backend of the balancer's own machine answers through loopback.
#[test]
fn a_backend_beside_ringway_is_reached_too() {
    if !is_root("a_backend_beside_ringway_is_reached_too") {
        return;
    }
    let _turn = Turn::start("a_backend_beside_ringway_is_reached_too", LIMIT);
    let networks = Networks::new();
    let listener = patient(networks.balancer.inside(|| TcpListener::bind("127.0.0.1:5433")));
    let setup = setup("tcp", &[FRONT], &["127.0.0.1:5433"], "connect_timeout: 300ms");
    let ringway = Ringway::start_in(&setup, &networks.balancer);
    let sentence = warning(&ringway, "127.0.0.1:5433").expect("a warning");
    let told = "ip rule add from 127.0.0.1 ipproto tcp sport 5433 iif lo lookup 100 && ip route add local 0.0.0.0/0 dev lo table 100";
    assert_eq!(lines(&sentence), [told]);
    networks.balancer.shell(told);
    assert_eq!(networks.seen(CLIENT, FRONT, &listener), ip(CLIENT));
    ringway.finish();
}

/// Clients of one network leave for the backend by another way than others, and a strict filter expects answers there.
#[test]
fn a_strict_filter_of_reverse_paths_is_named() {
    if !is_root("a_strict_filter_of_reverse_paths_is_named") {
        return;
    }
    let _turn = Turn::start("a_strict_filter_of_reverse_paths_is_named", LIMIT);
    let networks = Networks::new();
    networks
        .balancer
        .connect(("eth2", &[]), &networks.backend, ("eth2", &[]));
    networks.balancer.shell(&documented("ip rule add from"));
    networks.balancer.shell(
        "ip rule add from 192.0.2.0/24 to 10.0.1.11 lookup 50; ip route add 10.0.1.0/24 dev eth2 table 50; \
         sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
    );
    let setup = setup("tcp", &[FRONT], &[BACKEND], "");
    let ringway = Ringway::start_in(&setup, &networks.balancer);
    let sentence = warning(&ringway, BACKEND).expect("a warning");
    let told = lines(&sentence);
    assert_eq!(told, ["sysctl -w net.ipv4.conf.eth1.rp_filter=2"], "{sentence}");
    ringway.finish();
    networks.balancer.shell(&told[0]);
    let ringway = Ringway::start_in(&setup, &networks.balancer);
    assert_eq!(warning(&ringway, BACKEND), None);
    ringway.finish();
}

#[test]
fn without_the_capability_it_does_not_start() {
    if !is_root("without_the_capability_it_does_not_start") {
        return;
    }
    let _turn = Turn::start("without_the_capability_it_does_not_start", LIMIT);
    let namespace = Namespace::new();
    let files = Dir::new();
    let setup = setup("tcp", &["127.0.0.1:5432"], &["127.0.0.1:5433"], "");
    let file = files.write("ringway.yaml", &setup.yaml()).display().to_string();
    let launch = Launch {
        netns: Some(namespace.name.clone()),
        user: Some("nobody".to_owned()),
        ..Launch::default()
    };
    let (code, _, said) = run_to_end(&launch, &["run", "--config", &file], SOON);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("pool pool has source: client, which takes the capability CAP_NET_RAW (or CAP_NET_ADMIN)"),
        "{said}"
    );
}

/// Datagrams too, large ones in pieces included; each client is told from others.
#[test]
fn backends_of_udp_see_the_clients_own_addresses() {
    if !is_root("backends_of_udp_see_the_clients_own_addresses") {
        return;
    }
    let _turn = Turn::start("backends_of_udp_see_the_clients_own_addresses", LIMIT);
    let networks = Networks::new();
    let backend = networks
        .backend
        .inside(|| UdpSocket::bind(BACKEND))
        .expect("a free port");
    backend.set_read_timeout(Some(SOON)).expect("a socket");
    let ringway = Ringway::start_in(&setup("udp", &[FRONT], &[BACKEND], ""), &networks.balancer);
    let sentence = warning(&ringway, BACKEND).expect("a warning");
    let told =
        "ip rule add from 10.0.1.11 ipproto udp iif eth1 lookup 100 && ip route add local 0.0.0.0/0 dev lo table 100";
    assert_eq!(lines(&sentence), [told]);
    networks.balancer.shell(told);
    for client in [CLIENT, "203.0.113.8"] {
        let asker = networks
            .client
            .inside(|| UdpSocket::bind((client, 0)))
            .expect("a free port");
        asker.set_read_timeout(Some(SOON)).expect("a socket");
        for length in [20, 1_400, 9_000] {
            let question = vec![b'q'; length];
            asker.send_to(&question, FRONT).expect("a way");
            let mut bytes = vec![0; 65_536];
            let (received, from) = backend.recv_from(&mut bytes).expect("the question comes");
            assert_eq!((received, from.ip()), (length, ip(client)));
            let answer = vec![b'a'; length];
            backend.send_to(&answer, from).expect("a way");
            let (received, front) = asker.recv_from(&mut bytes).expect("the answer comes");
            assert_eq!((received, front.to_string().as_str()), (length, FRONT));
        }
    }
    ringway.finish();
}

/// IPv4 clients get no further than IPv4 backends; backends of the other family cost them no try.
#[test]
fn backends_of_another_family_are_passed_over() {
    if !is_root("backends_of_another_family_are_passed_over") {
        return;
    }
    let _turn = Turn::start("backends_of_another_family_are_passed_over", LIMIT);
    let networks = Networks::new();
    networks.balancer.shell(&documented("ip rule add from"));
    networks.balancer.shell(&documented("ip -6 rule add from"));
    let (four, six) = (networks.listen(BACKEND), networks.listen(BACKEND_V6));
    let setup = setup("tcp", &[FRONT, FRONT_V6], &[BACKEND, BACKEND_V6], "tries: 1");
    let ringway = Ringway::start_in(&setup, &networks.balancer);
    for _ in 0..4 {
        // Twice, so that taking turns does not spare anybody the wrong choice.
        assert_eq!(networks.seen(CLIENT, FRONT, &four), ip(CLIENT));
        assert_eq!(networks.seen(CLIENT, FRONT, &four), ip(CLIENT));
        assert_eq!(networks.seen(CLIENT_V6, FRONT_V6, &six), ip(CLIENT_V6));
    }
    let errors = |reason| ringway.count("ringway_backend_connect_errors_total", &[("reason", reason)]);
    assert!(errors("local") > 0, "some choices fall on the other family");
    assert_eq!(errors("timeout") + errors("other") + errors("unreachable"), 0);
    let told = ringway.log().matches("passed over").count();
    assert!((1..=2).contains(&told), "told {told} times: {}", ringway.log());
    ringway.finish();
}
