//! The how-to pages on TLS by name and on client addresses: their configurations do with real programs what the pages say.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::run;
use ringway_tests::databases::{ask, machines};
use ringway_tests::pages::{configuration, placed};
use ringway_tests::process::wait_for;
use ringway_tests::program::Dir;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::server::{start_haproxy, start_nginx};
use ringway_tests::setup::Setup;
use ringway_tests::tls::{self, Authority, TlsServer};
use ringway_tests::udp::inet;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const TLS_PAGE: &str = "how-to-tls.md";
const ADDRESSES_PAGE: &str = "how-to-client-addresses.md";

fn curl(args: &[&str]) -> Result<String, String> {
    let always = ["--silent", "--show-error", "--fail", "--max-time", "5"];
    ask("curl", &[&always[..], args].concat())
}

/// Asks for a name at a listener of TLS, and verifies the certificate.
fn curl_by_name(authority: &Authority, at: &Address, name: &str) -> Result<String, String> {
    let (ip, port, file) = (inet(at).ip(), at.port(), authority.file.display().to_string());
    let resolve = format!("{name}:{port}:{ip}");
    curl(&[
        "--cacert",
        &file,
        "--resolve",
        &resolve,
        &format!("https://{name}:{port}/"),
    ])
}

fn wait_for_usable(ringway: &Ringway, pool: &str, wanted: f64) {
    let seen = || ringway.metrics().sum("ringway_pool_backends_usable", &[("pool", pool)]);
    let reached = wait_for(SOON, || (seen() == Some(wanted)).then_some(()));
    assert!(
        reached.is_some(),
        "{pool}: {:?}, not {wanted}: {}",
        seen(),
        ringway.log()
    );
}

/// The first line of a session log of which this is true.
fn wait_for_line(file: &Path, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let text = || std::fs::read_to_string(file).unwrap_or_default();
    let find = || {
        let text = text();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|line| is_it(line))
    };
    wait_for(SOON, find).unwrap_or_else(|| panic!("no {what} in {}", text()))
}

#[test]
fn tls_goes_where_its_name_says() {
    let _turn = Turn::start("tls_goes_where_its_name_says", Duration::from_secs(60));
    let (authority, front, nobody) = (Authority::new(), free_v4(), machines());
    let server = |name, hosts: &[&str], alpn: &[&str]| TlsServer::start(name, &authority.sign(hosts), alpn);
    let api = server("api", &["api.example.com", "api.example.net"], &["http/1.1"]);
    let web = server("web", &["www.example.com", "a.b.example.com"], &["http/1.1"]);
    let acme = server("acme", &["shop.example.org", "www.example.com"], &["acme-tls/1"]);
    let places = [
        ("0.0.0.0:443", &front),
        ("10.0.0.11:443", &api.address),
        ("10.0.0.12:443", &nobody[0]),
        ("10.0.0.21:443", &web.address),
        ("10.0.0.22:443", &nobody[1]),
        ("10.0.0.31:443", &acme.address),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&configuration(TLS_PAGE, 0), &places)));
    for pool in ["api", "web"] {
        wait_for_usable(&ringway, pool, 1.0);
    }
    for (name, answer) in [
        ("api.example.com", "api saw api.example.com"),
        ("api.example.net", "api saw api.example.net"),
        ("www.example.com", "web saw www.example.com"),
        ("a.b.example.com", "web saw a.b.example.com"),
    ] {
        assert_eq!(curl_by_name(&authority, &front, name).as_deref(), Ok(answer));
    }
    assert!(curl_by_name(&authority, &front, "example.com").is_err());
    let challenged = |at: &Address, name| run(None, tls::ask(&authority.client(&["acme-tls/1"]), at, name));
    let answer = challenged(&front, "shop.example.org").expect("a route for the protocol");
    assert_eq!(answer.body, "acme saw shop.example.org");
    let before = acme.connections();
    // The more specific name wins, and that server knows nothing of challenges.
    let told = challenged(&front, "www.example.com");
    assert!(told.is_err(), "{told:?}");
    assert_eq!(acme.connections(), before);
    let unrouted = [("listener", "edge"), ("reason", "no_route")];
    ringway.wait_for_count("ringway_sessions_ended_total", &unrouted, 1);
    ringway.finish();

    let front = free_v4();
    let places = [
        ("0.0.0.0:8443", &front),
        ("10.0.0.11:443", &api.address),
        ("10.0.0.21:443", &web.address),
        ("10.0.0.31:443", &acme.address),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&configuration(TLS_PAGE, 1), &places)));
    let answer = challenged(&front, "www.example.com").expect("a route for the name and the protocol");
    assert_eq!(answer.body, "acme saw www.example.com");
    let told = curl_by_name(&authority, &front, "www.example.com");
    assert_eq!(told.as_deref(), Ok("web saw www.example.com"));
    ringway.finish();
}

/// Two Ringways of the page, one behind the other: the second believes the first, the first tells it.
#[test]
fn a_client_keeps_its_address_behind_two() {
    let _turn = Turn::start("a_client_keeps_its_address_behind_two", Duration::from_secs(60));
    let (dir, outer, inner, nobody) = (Dir::new(), free_v4(), free_v4(), machines());
    let log = dir.path("sessions.log");
    let backend = Backend::start(Behaviour::Http("well".to_owned()));
    let places = [
        ("0.0.0.0:443", &inner),
        ("10.0.0.11:443", &backend.address),
        ("10.0.0.12:443", &nobody[0]),
    ];
    let text = configuration(ADDRESSES_PAGE, 0);
    assert!(text.contains("10.0.9.0/24"), "{text}");
    let text = placed(&text.replace("10.0.9.0/24", "127.0.0.1"), &places);
    let setup = Setup::verbatim(&text).top("session_log", &format!("\"{}\"", log.display()));
    let second = Ringway::start(&setup);
    let places = [("0.0.0.0:80", &outer), ("10.0.0.21:8080", &inner)];
    let first = Ringway::start(&Setup::verbatim(&placed(&configuration(ADDRESSES_PAGE, 1), &places)));
    wait_for_usable(&second, "web", 1.0);
    // Its probes go through the second one, and begin with a header.
    wait_for_usable(&first, "shop", 1.0);
    let url = format!("http://{outer}/");
    let came_from = "%{local_ip}:%{local_port}";
    let told = curl(&["--interface", "127.0.0.77", "--write-out", came_from, &url]).expect("it is served");
    let client = told.strip_prefix("well").expect("the backend's answer").to_owned();
    assert!(client.starts_with("127.0.0.77:"), "{client}");
    let line = wait_for_line(&log, &client, |line| line["client"] == *client);
    let proxy = line["proxy"].as_str().unwrap_or_default();
    assert!(proxy.starts_with("127.0.0.1:"), "{line}");
    // The probes are for nobody: their client is the first Ringway.
    let probe = wait_for_line(&log, "probe", |line| line["client"] != *client);
    assert!(probe.get("proxy").is_none(), "{probe}");

    let before = backend.accepted();
    let strange = curl(&[
        "--interface",
        "127.0.0.2",
        "--haproxy-protocol",
        &format!("http://{inner}/"),
    ]);
    assert!(strange.is_err(), "{strange:?}");
    second.wait_for_count("ringway_refused_total", &[("reason", "untrusted_proxy")], 1);
    let bare = curl(&[&format!("http://{inner}/")]);
    assert!(bare.is_err(), "{bare:?}");
    second.wait_for_count("ringway_sessions_ended_total", &[("reason", "bad_proxy_header")], 1);
    assert!(backend.accepted() >= before, "only probes came meanwhile");
    first.finish();
    second.finish();
}

/// What goes before the hello: HAProxy reads it, and the session log has the same identifier.
#[test]
fn a_line_is_found_by_its_identifier() {
    let _turn = Turn::start("a_line_is_found_by_its_identifier", Duration::from_secs(60));
    let (dir, authority, front, at) = (Dir::new(), Authority::new(), free_v4(), free_v4());
    let log = dir.path("sessions.log");
    let identity = authority.sign(&["www.example.com"]);
    let read = |path: &Path| std::fs::read_to_string(path).expect("it was just written");
    let pem = dir.write("both.pem", &(read(&identity.certificate) + &read(&identity.key)));
    let sections = format!(
        "frontend web\n  mode http\n  bind {at} accept-proxy ssl crt {}\n  http-request return status 200 content-type \
         text/plain lf-string \"%[fc_pp_authority] %[fc_pp_unique_id]\"",
        pem.display()
    );
    let _haproxy = start_haproxy(&dir.path("haproxy"), &at, &sections);
    let places = [("0.0.0.0:8443", &front), ("10.0.0.31:443", &at)];
    let setup = Setup::verbatim(&placed(&configuration(ADDRESSES_PAGE, 2), &places));
    let ringway = Ringway::start(&setup.top("session_log", &format!("\"{}\"", log.display())));
    wait_for_usable(&ringway, "gateway", 1.0);
    let passed = [("result", "passed")];
    let probed = || ringway.metrics().sum("ringway_health_checks_total", &passed);
    let probed = wait_for(SOON, || probed().filter(|&count| count >= 1.0));
    assert!(
        probed.is_some(),
        "HAProxy takes the header of a probe: {}",
        ringway.log()
    );
    let told = curl_by_name(&authority, &front, "www.example.com").expect("it is served");
    let (name, identifier) = told.split_once(' ').expect("two words");
    assert_eq!(name, "www.example.com");
    assert_eq!(identifier.len(), 32, "{identifier}");
    let line = wait_for_line(&log, identifier, |line| line["id"] == *identifier);
    assert_eq!(line["sni"], "www.example.com", "{line}");
    ringway.finish();
}

/// nginx as the page has it, asked by a pool as the page has it.
#[test]
fn nginx_is_told_and_probed() {
    let _turn = Turn::start("nginx_is_told_and_probed", Duration::from_secs(60));
    let (dir, front, at) = (Dir::new(), free_v4(), free_v4());
    let lines = format!(
        "listen {at} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol; location / {{ return \
         200 \"$remote_addr\"; }}"
    );
    let _nginx = start_nginx(&dir.path("nginx"), &free_v4(), &lines);
    let places = [("0.0.0.0:80", &front), ("10.0.0.21:8080", &at)];
    let text = placed(&configuration(ADDRESSES_PAGE, 1), &places);
    for version in ["v2", "v1"] {
        assert!(text.contains("send_proxy: v2"), "{text}");
        let text = text.replace("send_proxy: v2", &format!("send_proxy: {version}"));
        let ringway = Ringway::start(&Setup::verbatim(&text));
        let passed = [("result", "passed")];
        let probed = || ringway.metrics().sum("ringway_health_checks_total", &passed);
        let probed = wait_for(SOON, || probed().filter(|&count| count >= 2.0));
        assert!(probed.is_some(), "{version}: {}", ringway.log());
        let told = curl(&["--interface", "127.0.0.77", &format!("http://{front}/")]);
        assert_eq!(told.as_deref(), Ok("127.0.0.77"), "{version}");
        ringway.finish();
    }
}
