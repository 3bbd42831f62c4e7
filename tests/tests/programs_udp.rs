//! Real programs over UDP through the shipped binary: DNS servers with dnsperf, iperf3, OpenVPN; none may lose anything.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::namespace::{Namespace, run as command};
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program, run};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::server::serve;
use ringway_tests::setup::Setup;
use ringway_tests::udp::{ask, client, free_udp, inet};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const NAMES: u32 = 500;

/// A question for the A records of `h1.example.com`, and how an answer without an error begins (RFC 1035, section 4.1).
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02h1\x07example\x03com\x00\x00\x01\x00\x01";

fn answers(address: SocketAddr) -> bool {
    let asker = client(address, Duration::from_millis(200));
    ask(&asker, QUESTION).is_ok_and(|answer| answer.starts_with(b"\x12\x34") && answer[3] & 0x0f == 0 && answer[7] > 0)
}

/// Starts a DNS server and waits for its first answer.
fn dns_server(program: &str, args: &[&str], address: &Address) -> Program {
    let mut server = Program::start(&Launch::default(), Path::new(program), args);
    let up = wait_for(SOON, || {
        assert!(
            server.ended().is_none(),
            "{program} ended: {}{}",
            server.stdout(),
            server.stderr()
        );
        answers(inet(address)).then_some(())
    });
    assert!(
        up.is_some(),
        "{program} does not answer on {address}: {}",
        server.stderr()
    );
    server
}

fn zone() -> String {
    let mut text = "$ORIGIN example.com.\n$TTL 60\n@ SOA ns admin 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\n".to_owned();
    for n in 1..=NAMES {
        text += &format!("h{n} A 192.0.2.{}\n", n % 250 + 1);
    }
    text
}

fn nsd(dir: &Dir, address: &Address) -> Program {
    let folder = dir.path("nsd");
    std::fs::create_dir_all(&folder).expect("the temporary directory can be written");
    let (at, folder) = (inet(address), folder.display());
    let config = format!(
        "server:\n  ip-address: {}@{}\n  username: \"\"\n  pidfile: {folder}/pid\n  database: \"\"\n  zonesdir: {folder}/..\n  \
         zonelistfile: {folder}/zones\n  xfrdfile: {folder}/xfrd\n  xfrdir: {folder}\n  server-count: 1\n  \
         rrl-ratelimit: 0\nremote-control:\n  control-enable: no\nzone:\n  name: example.com\n  zonefile: zone\n",
        at.ip(),
        at.port()
    );
    let file = dir.write("nsd.conf", &config);
    dns_server("nsd", &["-d", "-c", &file.display().to_string()], address)
}

fn knot(dir: &Dir, address: &Address) -> Program {
    let folder = dir.path("knot");
    std::fs::create_dir_all(&folder).expect("the temporary directory can be written");
    let (at, folder) = (inet(address), folder.display());
    let config = format!(
        "server:\n  listen: {}@{}\n  rundir: {folder}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {folder}\nzone:\n  - domain: example.com\n    file: {folder}/../zone\n    storage: \
         {folder}\n    zonefile-sync: -1\n",
        at.ip(),
        at.port()
    );
    let file = dir.write("knot.conf", &config);
    dns_server("knotd", &["-c", &file.display().to_string()], address)
}

/// Refuses what it would have to ask the Internet for: of the root, which probes ask about, a test machine may know nothing.
fn unbound(dir: &Dir, address: &Address) -> Program {
    let at = inet(address);
    let mut config = format!(
        "server:\n  interface: {}@{}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         do-daemonize: no\n  num-threads: 1\n  ip-ratelimit: 0\n  access-control: 127.0.0.0/8 allow\n  local-zone: \
         \".\" refuse\n  local-zone: \"example.com.\" static\n",
        at.ip(),
        at.port()
    );
    for n in 1..=NAMES {
        config += &format!("  local-data: \"h{n}.example.com. A 192.0.2.{}\"\n", n % 250 + 1);
    }
    config += "remote-control:\n  control-enable: no\n";
    let file = dir.write("unbound.conf", &config);
    dns_server("unbound", &["-d", "-p", "-c", &file.display().to_string()], address)
}

/// dnsperf against three servers of different make: at a rate that each of them sustains not one query is lost.
#[test]
fn dnsperf_loses_nothing() {
    let _turn = Turn::start("dnsperf_loses_nothing", Duration::from_secs(180));
    let dir = Dir::new();
    dir.write("zone", &zone());
    let addresses = [free_udp(), free_udp(), free_udp()];
    let _servers = [
        nsd(&dir, &addresses[0]),
        knot(&dir, &addresses[1]),
        unbound(&dir, &addresses[2]),
    ];
    let front = free_udp();
    let setup = Setup::new()
        .top("workers", "2")
        .udp_listener("dns", &front, "dns")
        .listener_key("responses", "1")
        .listener_key("session_timeout", "2s")
        .listener_key("unanswered_timeout", "2s")
        .pool("dns", "round_robin", &[&addresses[0], &addresses[1], &addresses[2]])
        .pool_key("health_check", "{ protocol: dns, interval: 1s }");
    let ringway = Ringway::start(&setup);
    let questions: String = (1..=NAMES).map(|n| format!("h{n}.example.com A\n")).collect();
    let questions = dir.write("questions", &questions).display().to_string();
    let (port, seconds, rate) = (front.port().to_string(), figure("4", "60"), figure("2000", "20000"));
    let args = [
        "-s",
        "127.0.0.1",
        "-p",
        &port,
        "-d",
        &questions,
        "-l",
        seconds,
        "-Q",
        rate,
        "-c",
        "20",
        "-T",
        "1",
    ];
    let (status, said) = run(&Launch::default(), "dnsperf", &args, Duration::from_secs(120));
    assert!(status.success(), "{said}");
    let line = |what: &str| {
        said.lines()
            .find(|line| line.trim_start().starts_with(what))
            .unwrap_or_default()
    };
    println!(
        "{}\n{}\n{}",
        line("Queries sent"),
        line("Queries lost"),
        line("Queries per second")
    );
    assert!(line("Queries lost").contains("0 (0.00%)"), "{said}");
    assert!(
        line("Response codes").contains("NOERROR") && line("Response codes").contains("(100.00%)"),
        "{said}"
    );
    for address in &addresses {
        let label = address.to_string();
        let count = ringway.count("ringway_backend_connections_total", &[("backend", &label)]);
        assert!(count > 100, "{label} had {count} sessions");
    }
    assert_eq!(ringway.count("ringway_udp_dropped_total", &[("reason", "late")]), 0);
    assert!(ringway.not_up().is_empty(), "{:?}: {}", ringway.not_up(), ringway.log());
    ringway.finish();
}

/// iperf3 controls a test over TCP and measures over UDP: an affinity group takes both to the same server.
#[test]
fn iperf3_finds_its_server_for_datagrams() {
    let _turn = Turn::start("iperf3_finds_its_server_for_datagrams", Duration::from_secs(120));
    let port = free_v4().port();
    let hosts = ["127.0.0.31", "127.0.0.32"];
    let address = |host: &str| Address::Inet(SocketAddr::new(host.parse().expect("an address"), port));
    let addresses = hosts.map(address);
    let port = port.to_string();
    let _servers = hosts.map(|host| {
        serve(
            &Launch::default(),
            "iperf3",
            &["-s", "-B", host, "-p", &port],
            &address(host),
        )
    });
    let front = free_v4();
    let [first, second] = &addresses;
    let setup = Setup::new()
        .top("workers", "2")
        .listener("tcp", &front, "tcp")
        .listener_key("affinity_group", "iperf")
        .udp_listener("udp", &front, "udp")
        .listener_key("affinity_group", "iperf")
        .listener_key("session_timeout", "2s")
        .listener_key("unanswered_timeout", "2s")
        .pool("tcp", "round_robin", &[first, second])
        .pool("udp", "round_robin", &[second, first]);
    let ringway = Ringway::start(&setup);
    let port = front.port().to_string();
    for n in 1..=4 {
        let from = format!("127.0.2.{n}");
        for direction in [&[][..], &["-R"][..]] {
            let load = [
                "-u",
                "-c",
                "127.0.0.1",
                "-p",
                &port,
                "-B",
                &from,
                "-b",
                "20M",
                "-l",
                "1200",
                "-t",
                "1",
            ];
            let (status, said) = run(&Launch::default(), "iperf3", &[&load[..], direction].concat(), SOON);
            assert!(status.success() && said.contains("iperf Done."), "{said}");
        }
    }
    let used = |address: &Address| {
        ringway.count(
            "ringway_backend_connections_total",
            &[("backend", &address.to_string())],
        )
    };
    let used = [used(first), used(second)];
    assert!(
        used.iter().all(|&count| count > 0),
        "one server did everything: {used:?}"
    );
    ringway.finish();
}

/// A namespace, and its veth to the hub.
fn spoke(hub: &Namespace, number: usize) -> Namespace {
    let spoke = Namespace::new();
    let (near, far) = (format!("h{number}"), format!("s{number}"));
    command(
        "ip",
        &[
            "-n",
            &hub.name,
            "link",
            "add",
            &near,
            "type",
            "veth",
            "peer",
            &far,
            "netns",
            &spoke.name,
        ],
    );
    for (name, end, last) in [(&hub.name, &near, 1), (&spoke.name, &far, 2)] {
        let address = format!("10.77.{number}.{last}/24");
        command("ip", &["-n", name, "address", "add", &address, "dev", end]);
        command("ip", &["-n", name, "link", "set", end, "up"]);
    }
    spoke
}

fn vpn(namespace: &Namespace, key: &str, ours: &str, theirs: &str, more: &[&str]) -> Program {
    let launch = Launch {
        netns: Some(namespace.name.clone()),
        ..Launch::default()
    };
    let args = [
        "--dev",
        "tun",
        "--secret",
        key,
        "--ifconfig",
        ours,
        theirs,
        "--cipher",
        "AES-256-CBC",
        "--ping",
        "1",
    ];
    Program::start(&launch, Path::new("openvpn"), &[&args[..], more].concat())
}

/// What runs inside a VPN goes on while a server dies that is not the VPN's.
#[test]
fn openvpn_goes_on_while_another_backend_dies() {
    let name = "openvpn_goes_on_while_another_backend_dies";
    if !is_root(name) {
        return;
    }
    let _turn = Turn::start(name, Duration::from_secs(180));
    let dir = Dir::new();
    let key = dir.path("key").display().to_string();
    command("openvpn", &["--genkey", "secret", &key]);
    let hub = Namespace::new();
    let (here, spokes) = (spoke(&hub, 0), [1, 2, 3].map(|number| spoke(&hub, number)));
    let mut servers = spokes.each_ref().map(|namespace| {
        let server = vpn(
            namespace,
            &key,
            "10.99.0.1",
            "10.99.0.2",
            &["--port", "1194", "--float"],
        );
        Some(server)
    });
    let _measured = spokes.each_ref().map(|namespace| {
        let launch = Launch {
            netns: Some(namespace.name.clone()),
            ..Launch::default()
        };
        Program::start(&launch, Path::new("iperf3"), &["-s"])
    });
    let setup = Setup::verbatim(
        "listeners:\n  vpn: { bind: \"10.77.0.1:1194\", protocol: udp, pool: vpn, session_timeout: 2s, \
         unanswered_timeout: 2s }\npools:\n  vpn: { backends: [\"10.77.1.2:1194\", \"10.77.2.2:1194\", \
         \"10.77.3.2:1194\"] }\n",
    );
    let ringway = Ringway::start_in(&setup, &hub);
    let _tunnel = vpn(
        &here,
        &key,
        "10.99.0.2",
        "10.99.0.1",
        &["--remote", "10.77.0.1", "1194", "--nobind"],
    );
    let launch = Launch {
        netns: Some(here.name.clone()),
        ..Launch::default()
    };
    let reaches = || {
        let measured = SocketAddr::from(([10, 99, 0, 1], 5201));
        here.inside(|| TcpStream::connect_timeout(&measured, Duration::from_secs(1)).is_ok())
    };
    let up = wait_for(SOON * 2, || reaches().then_some(()));
    assert!(up.is_some(), "the VPN does not come up");
    let holds = |n: usize| {
        let label = format!("10.77.{n}.2:1194");
        ringway.count("ringway_backend_connections", &[("backend", &label)]) > 0
    };
    let ours = (1..=3).find(|&n| holds(n)).expect("a session");
    let other = (1..=3).find(|&n| n != ours).expect("three of them") - 1;
    // One session at each of the others, so that the death is noticed.
    let probers: Vec<UdpSocket> = here.inside(|| {
        let prober = |_| {
            let socket = UdpSocket::bind("10.77.0.2:0").expect("a free port");
            socket.connect("10.77.0.1:1194").expect("connect");
            socket
        };
        (0..3).map(prober).collect()
    });
    let probe = || probers.iter().for_each(|prober| drop(prober.send(b"hello")));
    probe();
    let seconds = figure("4", "20");
    let mut load = Program::start(
        &launch,
        Path::new("iperf3"),
        &["-c", "10.99.0.1", "-t", seconds, "-i", "0.5", "-J"],
    );
    let carried = || ringway.count("ringway_listener_bytes_total", &[("direction", "in")]);
    assert!(
        wait_for(SOON, || (carried() > 5_000_000).then_some(())).is_some(),
        "nothing goes through"
    );
    drop(servers[other].take());
    let ejected = || {
        probe();
        ringway.log().contains("backend is ejected").then_some(())
    };
    assert!(wait_for(SOON, ejected).is_some(), "nobody noticed: {}", ringway.log());
    let status = load.wait(Duration::from_secs(60)).expect("iperf3 ends");
    let said = load.stdout();
    assert!(status.success(), "{said}{}", load.stderr());
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let intervals = report["intervals"].as_array().expect("intervals");
    let bytes: Vec<u64> = intervals
        .iter()
        .filter_map(|each| each["sum"]["bytes"].as_u64())
        .collect();
    assert!(bytes.iter().all(|&bytes| bytes > 0), "it stood still: {bytes:?}");
    println!(
        "{:.0} Mbit/s through the VPN",
        report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
    );
    assert!(holds(ours), "the VPN's session is elsewhere");
    drop(load);
    drop(ringway);
}
