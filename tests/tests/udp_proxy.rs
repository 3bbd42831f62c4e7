//! The PROXY protocol over UDP: what backends are told, whom is believed, and dnsdist and unbound on either side.

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use ringway_tests::address::Address;
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::setup::Setup;
use ringway_tests::udp::{LONGEST, ask, free_udp, inet};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of UDP over IPv4 (proxy-protocol.txt, section 2.2) with room for so many bytes of TLVs.
fn header(source: SocketAddr, destination: SocketAddr, tlvs: u8) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        unreachable!("these tests use IPv4");
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let addresses = [source.ip().octets(), destination.ip().octets()].concat();
    [SIGNATURE, &[0x21, 0x12, 0, 12 + tlvs], &addresses, &ports].concat()
}

/// CRC32c bit by bit (RFC 3720, appendix B.4: polynomial 0x1EDC6F41, reflected).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    let fold = |crc: u32, &byte: &u8| (0..8).fold(crc ^ u32::from(byte), step);
    !bytes.iter().fold(!0, fold)
}

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("a free port");
    socket.set_read_timeout(Some(SOON)).expect("SO_RCVTIMEO");
    socket
}

fn address_of(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

fn setup(front: &Address, backends: &[&UdpSocket]) -> Setup {
    let addresses: Vec<Address> = backends.iter().map(|it| Address::Inet(address_of(it))).collect();
    Setup::new()
        .top("workers", "2")
        .udp_listener("front", front, "pool")
        // Longer than a test looks at its sessions, and short enough to await their end.
        .listener_key("session_timeout", "1500ms")
        .listener_key("unanswered_timeout", "1500ms")
        .pool("pool", "round_robin", &addresses.iter().collect::<Vec<_>>())
}

/// A train, as programs with UDP_SEGMENT send it.
fn send_train(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], segment: u16) {
    let to = SockaddrStorage::from(to);
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &control,
        MsgFlags::empty(),
        Some(&to),
    );
    assert_eq!(sent, Ok(bytes.len()));
}

/// The lines of the session log, once they are `all`.
fn logged(file: &Path, all: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let found = wait_for(SOON * 2, || Some(lines()).filter(|lines| all(lines)));
    found.unwrap_or_else(|| panic!("lines are missing: {:?}", lines()))
}

/// In front of the first datagram alone, with all that may be told; and again when another backend takes over.
#[test]
fn a_backend_is_told_once_and_another_one_as_well() {
    let _turn = Turn::start("a_backend_is_told_once_and_another_one_as_well", SOON * 6);
    let backends = [socket("127.0.0.1"), socket("127.0.0.1")];
    let dir = Dir::new();
    let log = dir.path("sessions");
    let port = inet(&free_udp()).port();
    let front = Address::Inet(SocketAddr::from(([0, 0, 0, 0], port)));
    let setup = setup(&front, &[&backends[0], &backends[1]])
        .pool_key("send_proxy", "{ version: v2, tlvs: unique_id, checksum: true }")
        .top("session_log", &format!("{{ to: \"{}\", format: json }}", log.display()));
    let ringway = Ringway::start(&setup);
    let client = socket("127.0.0.9");
    // One of several addresses of a wildcard bind.
    let asked = SocketAddr::from(([127, 0, 0, 5], port));
    client.send_to(b"one", asked).expect("send");
    let (first, _) = next(&backends[0]);
    let told = header(address_of(&client), asked, 3 + 32 + 3 + 4);
    assert_eq!(first[..28], told);
    assert_eq!(
        (&first[28..31], &first[63..66]),
        (&b"\x05\0\x20"[..], &b"\x03\0\x04"[..])
    );
    assert_eq!(&first[70..], b"one");
    let zeroed = [&first[..66], &[0; 4]].concat();
    assert_eq!(first[66..70], crc32c(&zeroed).to_be_bytes());
    client.send_to(b"two", asked).expect("send");
    assert_eq!(next(&backends[0]).0, b"two");
    let [gone, other] = backends;
    drop(gone);
    other
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("SO_RCVTIMEO");
    let moved = wait_for(SOON, || {
        client.send_to(b"three", asked).expect("send");
        let mut buffer = [0; 200];
        other.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    });
    assert_eq!(
        moved.as_deref(),
        Some(&[&first[..70], b"three"].concat()[..]),
        "the same name too"
    );
    drop(client);
    ringway.wait_for_count("ringway_udp_sessions", &[], 0);
    let line = &logged(&log, |lines| !lines.is_empty())[0];
    let id = String::from_utf8(first[31..63].to_vec()).expect("hexadecimal");
    assert_eq!(
        (line["id"].as_str(), line["tries"].as_u64()),
        (Some(&*id), Some(2)),
        "{line}"
    );
    ringway.finish();
}

/// In front of each, also of those of a train; what has no room for it is dropped and counted.
#[test]
fn each_datagram_has_a_header() {
    let _turn = Turn::start("each_datagram_has_a_header", SOON * 6);
    let backend = socket("127.0.0.1");
    let front = free_udp();
    let setup = setup(&front, &[&backend]).pool_key("send_proxy", "{ version: v2, per: datagram }");
    let ringway = Ringway::start(&setup);
    let client = socket("127.0.0.1");
    let told = header(address_of(&client), inet(&front), 0);
    for len in [0, 1, 1_472, 9_000, LONGEST - 28] {
        client.send_to(&vec![7; len], inet(&front)).expect("send");
        assert_eq!(next(&backend).0, [&told[..], &vec![7; len]].concat(), "{len} bytes");
    }
    let load: Vec<u8> = (0..4_500_u32).map(|n| n as u8).collect();
    send_train(&client, inet(&front), &load, 1_000);
    for piece in load.chunks(1_000) {
        assert_eq!(next(&backend).0, [&told[..], piece].concat());
    }
    for len in [LONGEST - 27, LONGEST] {
        client.send_to(&vec![7; len], inet(&front)).expect("send");
    }
    ringway.wait_for_count("ringway_udp_dropped_total", &[("reason", "too_long")], 2);
    assert_eq!(ringway.count("ringway_udp_dropped_total", &[]), 2);
    assert_eq!(ringway.count("ringway_udp_datagrams_total", &[("direction", "in")]), 10);
    ringway.finish();
}

/// A train whose first datagram has the header, as a balancer with UDP_SEGMENT would pass it on.
#[test]
fn a_train_is_a_clients_whom_its_first_datagram_names() {
    let _turn = Turn::start("a_train_is_a_clients_whom_its_first_datagram_names", SOON * 6);
    let backend = socket("127.0.0.1");
    let front = free_udp();
    let setup = setup(&front, &[&backend]).pool_key("send_proxy", "v2");
    let setup = setup.listener_key("proxy_protocol", "{ from: 127.0.0.1 }");
    let ringway = Ringway::start(&setup);
    let balancer = socket("127.0.0.1");
    let told = header(
        "203.0.113.7:4000".parse().expect("an address"),
        "198.51.100.1:53".parse().expect("an address"),
        0,
    );
    let load: Vec<u8> = (0..3_200_u32).map(|n| n as u8).collect();
    send_train(&balancer, inet(&front), &[&told[..], &load].concat(), 1_000);
    let lengths = [972, 1_000, 1_000, 228];
    let mut rest = &load[..];
    for (n, len) in lengths.into_iter().enumerate() {
        let (piece, behind) = rest.split_at(len);
        rest = behind;
        let before = if n == 0 { &told[..] } else { &[] };
        assert_eq!(next(&backend).0, [before, piece].concat(), "datagram {n}");
    }
    // Then as ever.
    send_train(&balancer, inet(&front), &load, 1_000);
    for piece in load.chunks(1_000) {
        assert_eq!(next(&backend).0, piece);
    }
    assert_eq!(ringway.count("ringway_udp_dropped_total", &[]), 0);
    ringway.finish();
}

#[test]
fn who_is_not_trusted_names_nobody() {
    let _turn = Turn::start("who_is_not_trusted_names_nobody", SOON * 6);
    let backend = socket("127.0.0.1");
    let dir = Dir::new();
    let log = dir.path("sessions");
    let front = free_udp();
    let setup = setup(&front, &[&backend])
        .listener_key("proxy_protocol", "{ from: 127.0.0.1, per: datagram }")
        .listener_key("max_sessions_per_client", "1")
        .listener_key("deny", "203.0.113.66")
        .top("session_log", &format!("{{ to: \"{}\", format: json }}", log.display()));
    let ringway = Ringway::start(&setup);
    let dropped = |reason| ringway.wait_for_count("ringway_udp_dropped_total", &[("reason", reason)], 1);
    let named = |client: &str| header(client.parse().expect("an address"), inet(&front), 0);
    let say = |socket: &UdpSocket, header: &[u8], payload: &[u8]| {
        socket.send_to(&[header, payload].concat(), inet(&front)).expect("send");
    };
    let (balancer, stranger) = (socket("127.0.0.1"), socket("127.0.0.2"));
    say(&stranger, &named("203.0.113.7:4000"), b"hello");
    dropped("untrusted_proxy");
    say(&balancer, b"", b"hello");
    dropped("bad_proxy_header");
    say(&balancer, &named("203.0.113.66:4000"), b"hello");
    dropped("denied");
    say(&balancer, &named("203.0.113.7:4000"), b"one");
    let (bytes, session) = next(&backend);
    assert_eq!(bytes, b"one");
    say(&balancer, &named("203.0.113.7:4001"), b"hello");
    dropped("client_sessions");
    say(&balancer, &named("203.0.113.8:4000"), b"two");
    let (bytes, other) = next(&backend);
    assert_eq!(bytes, b"two");
    assert_ne!(session, other);
    // Two clients' datagrams in one train.
    let train = [&named("203.0.113.7:4000")[..], b"3", &named("203.0.113.8:4000"), b"4"].concat();
    send_train(&balancer, inet(&front), &train, 29);
    let got = BTreeSet::from([next(&backend), next(&backend)]);
    assert_eq!(got, BTreeSet::from([(b"3".to_vec(), session), (b"4".to_vec(), other)]));
    backend.send_to(b"answer", session).expect("send");
    assert_eq!(next(&balancer), (b"answer".to_vec(), inet(&front)), "without a header");
    assert_eq!(ringway.count("ringway_udp_dropped_total", &[]), 4);
    ringway.wait_for_count("ringway_udp_sessions", &[], 0);
    let proxy = address_of(&balancer).to_string();
    let lines = logged(&log, |lines| lines.len() >= 2);
    let clients: BTreeSet<_> = lines.iter().filter_map(|line| line["client"].as_str()).collect();
    assert_eq!(clients, BTreeSet::from(["203.0.113.7:4000", "203.0.113.8:4000"]));
    assert!(lines.iter().all(|line| line["proxy"] == *proxy), "{lines:?}");
    ringway.finish();
}

/// A question for the A records of `h1.example.com` (RFC 1035, section 4.1), and the address in its answer.
fn resolve(client: &UdpSocket) -> Option<[u8; 4]> {
    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02h1\x07example\x03com\0\0\x01\0\x01";
    let answer = ask(client, QUESTION).ok()?;
    let is_good = answer.starts_with(b"\x12\x34") && answer[3] & 0x0f == 0 && answer[6..8] == [0, 1];
    let record = answer.get(QUESTION.len()..)?;
    // Name (a pointer), type, class, time to live, length of the data, data.
    is_good.then(|| record.get(12..16)?.try_into().ok()).flatten()
}

fn asker(ip: &str, front: SocketAddr) -> UdpSocket {
    let socket = socket(ip);
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("SO_RCVTIMEO");
    socket.connect(front).expect("connect");
    socket
}

fn start(program: &str, args: &[&str]) -> Program {
    Program::start(&Launch::default(), Path::new(program), args)
}

fn dnsdist(dir: &Dir, name: &str, config: &str) -> Program {
    let usual = "setSecurityPollSuffix(\"\")\nsetVerboseHealthChecks(true)\nsetACL({\"127.0.0.0/8\"})\n";
    let file = dir.write(name, &format!("{usual}{config}"));
    start(
        "dnsdist",
        &["--supervised", "--disable-syslog", "-C", &file.display().to_string()],
    )
}

/// Answers by the client that a header names: 192.0.2.N to 127.0.3.N, 192.0.2.1 to everybody else. Who sends no header is
/// not answered (`setProxyProtocolACL`).
fn dnsdist_behind(dir: &Dir, at: SocketAddr) -> Program {
    let mut config = format!("setLocal(\"{at}\")\nsetProxyProtocolACL({{\"127.0.0.0/8\"}})\n");
    for n in 11..14 {
        config += &format!(
            "local its{n} = newNMG()\nits{n}:addMask(\"127.0.3.{n}/32\")\n\
             addAction(NetmaskGroupRule(its{n}), SpoofAction(\"192.0.2.{n}\"))\n"
        );
    }
    config += "addAction(AllRule(), SpoofAction(\"192.0.2.1\"))\n";
    dnsdist(dir, "behind.conf", &config)
}

/// Knows 127.0.3.11 and .12 alone, if a balancer that it knows as well (127.0.0.1) says so (`proxy-protocol-port`).
fn unbound_behind(dir: &Dir, at: SocketAddr) -> Program {
    let config = format!(
        "server:\n  interface: {}@{}\n  proxy-protocol-port: {}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  access-control: 127.0.0.0/8 refuse\n  access-control: \
         127.0.0.1/32 allow\n  access-control: 127.0.3.11/32 allow\n  access-control: 127.0.3.12/32 allow\n  local-zone: \"example.com.\" static\n  local-data: \
         \"h1.example.com. A 192.0.2.99\"\nremote-control:\n  control-enable: no\n",
        at.ip(),
        at.port(),
        at.port()
    );
    let file = dir.write("unbound.conf", &config);
    start("unbound", &["-d", "-p", "-c", &file.display().to_string()])
}

/// One dnsdist in front, which says in front of each query whose it is; another one, and an unbound, behind.
#[test]
fn dnsdist_and_unbound_understand_and_are_understood() {
    let _turn = Turn::start(
        "dnsdist_and_unbound_understand_and_are_understood",
        Duration::from_secs(60),
    );
    let dir = Dir::new();
    let log = dir.path("sessions");
    let [outside, to_dnsdist, to_unbound, behind, unbound_at] = std::array::from_fn(|_| free_udp());
    let sends = "{ version: v2, per: datagram }";
    let setup = Setup::new()
        .top("workers", "2")
        .top("session_log", &format!("{{ to: \"{}\", format: json }}", log.display()))
        .udp_listener("chain", &to_dnsdist, "dnsdist")
        .listener_key("proxy_protocol", "{ from: 127.0.0.1, per: datagram }")
        .listener_key("session_timeout", "1s")
        .listener_key("unanswered_timeout", "1s")
        .udp_listener("unbound", &to_unbound, "unbound")
        .listener_key("session_timeout", "1s")
        .listener_key("unanswered_timeout", "1s")
        .pool("dnsdist", "round_robin", &[&behind])
        .pool_key("send_proxy", sends)
        .pool("unbound", "round_robin", &[&unbound_at])
        .pool_key("send_proxy", sends);
    let ringway = Ringway::start(&setup);
    let mut servers = [
        dnsdist_behind(&dir, inet(&behind)),
        unbound_behind(&dir, inet(&unbound_at)),
        dnsdist(
            &dir,
            "front.conf",
            &format!(
                "setLocal(\"{outside}\")\nnewServer({{address=\"{to_dnsdist}\", useProxyProtocol=true, sockets=1}})\n"
            ),
        ),
    ];
    let said = |servers: &mut [Program; 3]| -> String {
        let each = servers
            .iter_mut()
            .map(|it| format!("{:?} {}{}", it.ended(), it.stdout(), it.stderr()));
        each.collect::<Vec<_>>().join("\n")
    };
    // Its health check is a query of its own, without a client (LOCAL); then it takes clients' ones.
    let clients = ["127.0.3.11", "127.0.3.12", "127.0.3.13", "127.0.3.14"].map(|ip| asker(ip, inet(&outside)));
    let up = wait_for(SOON * 4, || resolve(&clients[0]));
    assert!(up.is_some(), "{}\n{}", said(&mut servers), ringway.log());
    for _ in 0..3 {
        for (client, last) in clients.iter().zip([11, 12, 13, 1]) {
            assert_eq!(resolve(client), Some([192, 0, 2, last]), "{}", said(&mut servers));
        }
    }
    let direct = ["127.0.3.11", "127.0.3.12", "127.0.3.13"].map(|ip| asker(ip, inet(&to_unbound)));
    let up = wait_for(SOON * 2, || resolve(&direct[0]));
    assert!(up.is_some(), "{}\n{}", said(&mut servers), ringway.log());
    for (client, answer) in direct.iter().zip([Some([192, 0, 2, 99]), Some([192, 0, 2, 99]), None]) {
        assert_eq!(resolve(client), answer, "{}", said(&mut servers));
    }
    drop(servers);
    ringway.wait_for_count("ringway_udp_sessions", &[], 0);
    // Of four clients behind one port of dnsdist each had a session of its own, and so had its health check; three were
    // unbound's.
    let is_own = |line: &Value| line["listener"] == "chain" && line["proxy"].is_null();
    let lines = logged(&log, |lines| lines.len() >= 8 && lines.iter().any(is_own));
    for client in &clients {
        let client = address_of(client).to_string();
        let line = lines
            .iter()
            .find(|line| line["client"] == *client && line["listener"] == "chain");
        let proxy = line.unwrap_or_else(|| panic!("{client} is not in {lines:?}"))["proxy"].as_str();
        assert!(proxy.is_some_and(|it| it.starts_with("127.0.0.1:")), "{proxy:?}");
    }
    assert_eq!(
        ringway.count("ringway_udp_dropped_total", &[("reason", "bad_proxy_header")]),
        0
    );
    ringway.finish();
}
