//! The PROXY protocol with real programs on the other side: nginx and HAProxy are told by Ringway who the client is, and
//! Ringway is told by HAProxy.

use ringway_tests::address::{Address, free_v4, free_v6};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::databases::ask as command;
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Program};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::server::{start_haproxy, start_nginx};
use ringway_tests::setup::Setup;
use ringway_tests::tls::Authority;
use ringway_tests::udp::inet;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
/// Only the balancer in front may say who the client is.
const FROM_US: &str = "{ accept: [v1, v2], from: [127.0.0.1/32] }";

/// What curl was told, and the address that it came from: `ANSWER IP:PORT`.
fn curl(from: &str, url: &str, more: &[&str]) -> Result<String, String> {
    let came_from = "\n%{local_ip} %{local_port}";
    let args = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "5",
        "--interface",
        from,
    ];
    command("curl", &[&args[..], more, &["--write-out", came_from, url]].concat())
}

/// Demands that the server answered with the address that curl came from; gives it as a log would have it.
fn assert_seen(told: Result<String, String>, from: &str, what: &str) -> String {
    let told = told.unwrap_or_else(|said| panic!("{what}: {said}"));
    let (seen, came_from) = told.split_once('\n').expect("two lines");
    assert_eq!(seen, came_from, "{what}");
    let (ip, port) = seen.split_once(' ').expect("two words");
    assert_eq!(ip, from, "{what}");
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// nginx that believes headers, and answers and logs the address of the client.
fn nginx(dir: &Dir, at: &Address) -> (Program, PathBuf) {
    let log = dir.path("access.log");
    let lines = format!(
        "listen {at} proxy_protocol; set_real_ip_from 127.0.0.1; set_real_ip_from ::1; real_ip_header proxy_protocol; \
         access_log {} combined; location / {{ return 200 \"$remote_addr $proxy_protocol_port\"; }}",
        log.display()
    );
    (start_nginx(&dir.path("nginx"), &free_v4(), &lines), log)
}

const TELL: &str = "http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\"";

/// HAProxy that believes headers, and answers and logs the address of the client.
fn haproxy(dir: &Dir, at: &Address) -> Program {
    let sections = format!("frontend web\n  mode http\n  option httplog\n  bind {at} accept-proxy\n  {TELL}");
    start_haproxy(&dir.path("haproxy"), at, &sections)
}

fn wait_for_text(what: &str, wanted: &str, read: impl Fn() -> String) {
    let found = wait_for(SOON, || read().contains(wanted).then_some(()));
    assert!(found.is_some(), "{what}: no {wanted} in {}", read());
}

#[test]
fn nginx_and_haproxy_log_the_true_client() {
    let _turn = Turn::start("nginx_and_haproxy_log_the_true_client", Duration::from_secs(60));
    let (dir, at_nginx, at_haproxy) = (Dir::new(), free_v4(), free_v4());
    let (_nginx, access_log) = nginx(&dir, &at_nginx);
    let haproxy = haproxy(&dir, &at_haproxy);
    for version in ["v1", "v2", "{ version: v2, tlvs: [unique_id], checksum: true }"] {
        let fronts = [free_v4(), free_v4(), free_v6(), free_v6()];
        let [to_nginx, to_haproxy, to_nginx_v6, to_haproxy_v6] = &fronts;
        let setup = Setup::new()
            .top("workers", "2")
            .listener("n4", to_nginx, "nginx")
            .listener("h4", to_haproxy, "haproxy")
            .listener("n6", to_nginx_v6, "nginx")
            .listener("h6", to_haproxy_v6, "haproxy")
            .pool("nginx", "round_robin", &[&at_nginx])
            .pool_key("send_proxy", version)
            .pool("haproxy", "round_robin", &[&at_haproxy])
            .pool_key("send_proxy", version);
        let ringway = Ringway::start(&setup);
        for (from, n, h) in [
            ("127.0.0.77", to_nginx, to_haproxy),
            ("::1", to_nginx_v6, to_haproxy_v6),
        ] {
            assert_seen(
                curl(from, &format!("http://{n}/"), &[]),
                from,
                &format!("nginx, {version}"),
            );
            let address = assert_seen(
                curl(from, &format!("http://{h}/"), &[]),
                from,
                &format!("HAProxy, {version}"),
            );
            let logged = address.replace(['[', ']'], "");
            wait_for_text("HAProxy", &logged, || haproxy.stdout());
        }
        ringway.finish();
    }
    let lines = || std::fs::read_to_string(&access_log).unwrap_or_default();
    for from in ["127.0.0.77 - ", "::1 - "] {
        let count = || lines().lines().filter(|line| line.starts_with(from)).count();
        assert!(wait_for(SOON, || (count() == 3).then_some(())).is_some(), "{}", lines());
    }
}

/// Lines of the session log so far.
fn sessions(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// HAProxy in front, with both versions on two ports.
fn haproxy_in_front(dir: &Dir, front: &Address) -> (Program, [Address; 2]) {
    let ports = [free_v4(), free_v4()];
    let section = |index: usize, option: &str| {
        let at = &ports[index];
        format!("listen l{index}\n  mode tcp\n  bind {at}\n  server ringway {front} {option}\n")
    };
    let sections = section(0, "send-proxy") + &section(1, "send-proxy-v2");
    (start_haproxy(&dir.path("front"), &ports[1], &sections), ports)
}

#[test]
fn ringway_believes_haproxy() {
    let _turn = Turn::start("ringway_believes_haproxy", Duration::from_secs(60));
    let (dir, front) = (Dir::new(), free_v4());
    let file = dir.path("sessions.log");
    let backend = Backend::start(Behaviour::Http("well".to_owned()));
    let setup = Setup::new()
        .top("workers", "2")
        .top("session_log", &format!("\"{}\"", file.display()))
        .listener("front", &front, "pool")
        .listener_key("proxy_protocol", FROM_US)
        .pool("pool", "round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let (_haproxy, ports) = haproxy_in_front(&dir, &front);
    for (index, port) in ports.iter().enumerate() {
        let told = curl("127.0.0.78", &format!("http://{port}/"), &[]).expect("it is served");
        let (body, came_from) = told.split_once('\n').expect("two lines");
        assert_eq!(body, "well");
        let client = came_from.replace(' ', ":");
        let line = || {
            sessions(&file)
                .into_iter()
                .find(|line| line["client"] == client.as_str())
        };
        let line = wait_for(SOON, line);
        let line = line.unwrap_or_else(|| panic!("version {}: no {client} in {:#?}", index + 1, sessions(&file)));
        let proxy = line["proxy"].as_str().unwrap_or_default();
        assert!(proxy.starts_with("127.0.0.1:"), "{line}");
    }
    ringway.finish();
}

/// HAProxy tells Ringway, Ringway tells nginx and HAProxy: the client stays who it is.
#[test]
fn the_client_is_handed_on() {
    let _turn = Turn::start("the_client_is_handed_on", Duration::from_secs(60));
    let (dir, front, at_nginx) = (Dir::new(), free_v4(), free_v4());
    let (_nginx, _) = nginx(&dir, &at_nginx);
    let setup = Setup::new()
        .listener("front", &front, "pool")
        .listener_key("proxy_protocol", FROM_US)
        .pool("pool", "round_robin", &[&at_nginx])
        .pool_key("send_proxy", "v2");
    let ringway = Ringway::start(&setup);
    let (_haproxy, ports) = haproxy_in_front(&dir, &front);
    for port in &ports {
        assert_seen(
            curl("127.0.0.79", &format!("http://{port}/"), &[]),
            "127.0.0.79",
            "two hops",
        );
    }
    ringway.finish();
}

/// Whoever is not trusted is closed, with a header and without.
#[test]
fn a_forged_header_is_worth_nothing() {
    let _turn = Turn::start("a_forged_header_is_worth_nothing", Duration::from_secs(60));
    let front = free_v4();
    let backend = Backend::start(Behaviour::Http("well".to_owned()));
    let setup = Setup::new()
        .listener("front", &front, "pool")
        .listener_key("proxy_protocol", FROM_US)
        .pool("pool", "round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let url = format!("http://{front}/");
    let told = curl("127.0.0.1", &url, &["--haproxy-protocol"]).expect("it is trusted");
    assert!(told.starts_with("well\n"), "{told}");
    let before = backend.accepted();
    for more in [&["--haproxy-protocol"][..], &[]] {
        let told = curl("127.0.0.2", &url, more);
        assert!(told.is_err(), "{told:?}");
    }
    let labels = [("listener", "front"), ("reason", "untrusted_proxy")];
    ringway.wait_for_count("ringway_refused_total", &labels, 2);
    assert_eq!(backend.accepted(), before, "no backend was bothered");
    // Trusted, and without a header: there is nobody to believe.
    let told = curl("127.0.0.1", &url, &[]);
    assert!(told.is_err(), "{told:?}");
    ringway.wait_for_count("ringway_sessions_ended_total", &[("reason", "bad_proxy_header")], 1);
    assert_eq!(backend.accepted(), before);
    ringway.finish();
}

/// HAProxy reads the name and the identifier that go before the hello, and checks the sum over the header.
#[test]
fn what_the_hello_said_goes_before_it() {
    let _turn = Turn::start("what_the_hello_said_goes_before_it", Duration::from_secs(60));
    let (dir, authority, front, at) = (Dir::new(), Authority::new(), free_v4(), free_v4());
    let identity = authority.sign(&["www.example.com"]);
    let read = |path: &Path| std::fs::read_to_string(path).expect("it was just written");
    let pem = dir.write("both.pem", &(read(&identity.certificate) + &read(&identity.key)));
    let sections = format!(
        "frontend web\n  mode http\n  bind {at} accept-proxy ssl crt {}\n  http-request return status 200 content-type \
         text/plain lf-string \"%[fc_pp_authority] %[fc_pp_unique_id] %[src] %[src_port]\"",
        pem.display()
    );
    let _haproxy = start_haproxy(&dir.path("haproxy"), &at, &sections);
    let setup = Setup::new()
        .tls_listener("edge", &front, &["{ sni: \"*.example.com\", pool: pool }"])
        .pool("pool", "round_robin", &[&at])
        .pool_key(
            "send_proxy",
            "{ version: v2, tlvs: [sni, alpn, unique_id], checksum: true }",
        );
    let ringway = Ringway::start(&setup);
    let port = inet(&front).port();
    let resolve = format!("www.example.com:{port}:127.0.0.1");
    let authority = authority.file.display().to_string();
    let more = ["--cacert", &authority, "--resolve", &resolve];
    let mut identifiers = Vec::new();
    for _ in 0..3 {
        let told = curl("127.0.0.80", &format!("https://www.example.com:{port}/"), &more).expect("it is served");
        let (body, came_from) = told.split_once('\n').expect("two lines");
        let [name, identifier, ip, port] = body.split(' ').collect::<Vec<_>>()[..] else {
            panic!("four words: {body}")
        };
        assert_eq!((name, format!("{ip} {port}").as_str()), ("www.example.com", came_from));
        assert!(!identifier.is_empty(), "{body}");
        identifiers.push(identifier.to_owned());
    }
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), 3, "each connection has its own");
    ringway.finish();
}
