//! Real programs over TLS through one listener that passes it on: each reaches the backend of the name it asks for, and
//! verifies that backend's own certificate.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::client::run;
use ringway_tests::databases::ask as command;
use ringway_tests::program::{Dir, Program};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::Turn;
use ringway_tests::server::start_nginx;
use ringway_tests::setup::Setup;
use ringway_tests::tls::{Authority, TlsServer, ask};
use ringway_tests::udp::inet;
use rustls::NamedGroup;
use std::path::Path;
use std::time::Duration;

/// Asks over TLS as an ordinary program of Python does.
const PYTHON: &str = r#"
import socket, ssl, sys
ip, port, name, authority, *alpn = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if alpn:
    context.set_alpn_protocols(alpn)
with socket.create_connection((ip, port)) as plain, context.wrap_socket(plain, server_hostname=name) as tls:
    tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := tls.recv(4096):
        answer += chunk
print(answer.decode().split("\r\n\r\n", 1)[1])
"#;

/// The same with OpenSSL's own client; the shell gives it the request.
const S_CLIENT: &str = r#"
printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -quiet -connect "$1" -servername "$2" -verify_hostname "$2" \
    -CAfile "$3" -verify_return_error ${4:+-alpn "$4"}
"#;

/// A name that clients ask for, and what the backend of that name answers.
type Expected = (&'static str, &'static str);

/// Every name that has a route of its own.
const NAMES: [Expected; 4] = [
    ("api.example.com", "api saw api.example.com"),
    ("www.example.com", "web saw www.example.com"),
    ("deep.below.example.com", "web saw deep.below.example.com"),
    ("mail.example.org", "mail saw mail.example.org"),
];

/// The protocol that routes whatever has no route by name (RFC 8737 uses it in this way).
const ACME: &str = "acme-tls/1";

/// Four backends with certificates of their own; `web` is nginx.
struct Stage {
    authority: Authority,
    api: TlsServer,
    mail: TlsServer,
    acme: TlsServer,
    web: Address,
    _nginx: Program,
    _dir: Dir,
}

impl Stage {
    fn start() -> Self {
        let (authority, dir) = (Authority::new(), Dir::new());
        let web = free_v4();
        let of_web = authority.sign(&["www.example.com", "deep.below.example.com"]);
        let lines = format!(
            "listen {web} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ return 200 \"web saw \
             $ssl_server_name\"; }}",
            of_web.certificate.display(),
            of_web.key.display()
        );
        let server = |name, host, alpn: &[&str]| TlsServer::start(name, &authority.sign(&[host]), alpn);
        Self {
            api: server("api", "api.example.com", &["http/1.1"]),
            mail: server("mail", "mail.example.org", &["http/1.1"]),
            acme: server("acme", "challenged.example.net", &[ACME]),
            _nginx: start_nginx(&dir.path("nginx"), &free_v4(), &lines),
            authority,
            web,
            _dir: dir,
        }
    }

    fn setup(&self, front: &Address) -> Setup {
        let routes = [
            "{ sni: [api.example.com, api.example.net], pool: api }",
            "{ sni: \"*.example.com\", pool: web }",
            "{ sni: mail.example.org, pool: mail }",
            &format!("{{ alpn: {ACME}, pool: acme }}"),
        ];
        let setup = Setup::new().top("workers", "2").tls_listener("edge", front, &routes);
        setup
            .pool("api", "round_robin", &[&self.api.address])
            .pool("web", "round_robin", &[&self.web])
            .pool("mail", "round_robin", &[&self.mail.address])
            .pool("acme", "round_robin", &[&self.acme.address])
    }

    fn connections(&self) -> u64 {
        self.api.connections() + self.mail.connections() + self.acme.connections()
    }
}

/// What OpenSSL's client was told, after everything that it says about certificates.
fn s_client(at: &Address, name: &str, authority: &Path, alpn: &str) -> Result<String, String> {
    let (at, authority) = (at.to_string(), authority.display().to_string());
    let said = command("sh", &["-c", S_CLIENT, "sh", &at, name, &authority, alpn])?;
    let (_, body) = said.split_once("\r\n\r\n").ok_or(format!("no HTTP: {said}"))?;
    // Standard error, with what was verified, comes after standard output.
    Ok(body
        .lines()
        .next()
        .unwrap_or_default()
        .split("depth=")
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn curl(at: &Address, name: &str, authority: &Path) -> Result<String, String> {
    let at = inet(at);
    let (port, authority) = (at.port(), authority.display().to_string());
    let (resolve, url) = (format!("{name}:{port}:{}", at.ip()), format!("https://{name}:{port}/"));
    let args = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "5",
        "--cacert",
        &authority,
    ];
    command("curl", &[&args[..], &["--resolve", &resolve, &url]].concat())
}

fn python(at: &Address, name: &str, authority: &Path, alpn: &[&str]) -> Result<String, String> {
    let at = inet(at);
    let (ip, port, authority) = (
        at.ip().to_string(),
        at.port().to_string(),
        authority.display().to_string(),
    );
    command(
        "python3",
        &[&["-c", PYTHON, &ip, &port, name, &authority][..], alpn].concat(),
    )
}

/// Every client asks for every name at this place.
fn everybody_asks(stage: &Stage, at: impl Fn(&str) -> Address, names: &[Expected]) {
    let authority = &stage.authority.file;
    for &(name, answer) in names {
        let at = at(name);
        assert_eq!(
            s_client(&at, name, authority, "").as_deref(),
            Ok(answer),
            "openssl s_client, {name}"
        );
        assert_eq!(curl(&at, name, authority).as_deref(), Ok(answer), "curl, {name}");
        assert_eq!(
            python(&at, name, authority, &[]).as_deref(),
            Ok(answer),
            "Python, {name}"
        );
        let told = run(None, ask(&stage.authority.client(&["http/1.1"]), &at, name));
        let told = told.unwrap_or_else(|error| panic!("rustls, {name}: {error}"));
        assert_eq!(told.body, answer, "rustls, {name}");
        if !answer.starts_with("web") {
            // Its OpenSSL may be too old for it.
            assert_eq!(told.group, Some(NamedGroup::X25519MLKEM768), "{name}");
        }
    }
}

#[test]
fn every_client_reaches_the_backend_of_its_name() {
    let _turn = Turn::start("every_client_reaches_the_backend_of_its_name", Duration::from_secs(120));
    let (stage, front) = (Stage::start(), free_v4());
    let ringway = Ringway::start(&stage.setup(&front));
    everybody_asks(&stage, |_| front.clone(), &NAMES);
    // The library sees the name as it was sent; the route does not mind how it was written.
    assert_eq!(
        curl(&front, "API.Example.COM", &stage.authority.file).as_deref(),
        Ok("api saw api.example.com")
    );
    ringway.finish();
}

#[test]
fn a_protocol_routes_what_no_name_does() {
    let _turn = Turn::start("a_protocol_routes_what_no_name_does", Duration::from_secs(60));
    let (stage, front) = (Stage::start(), free_v4());
    let ringway = Ringway::start(&stage.setup(&front));
    let (name, authority) = ("challenged.example.net", &stage.authority.file);
    let expected = "acme saw challenged.example.net";
    assert_eq!(s_client(&front, name, authority, ACME).as_deref(), Ok(expected));
    assert_eq!(python(&front, name, authority, &["h2", ACME]).as_deref(), Ok(expected));
    let told = run(None, ask(&stage.authority.client(&[ACME]), &front, name)).expect("rustls");
    assert_eq!(
        (told.body.as_str(), told.alpn.as_deref()),
        (expected, Some(ACME.as_bytes()))
    );
    ringway.finish();
}

#[test]
fn who_has_no_route_is_closed() {
    let _turn = Turn::start("who_has_no_route_is_closed", Duration::from_secs(60));
    let (stage, front) = (Stage::start(), free_v4());
    let ringway = Ringway::start(&stage.setup(&front));
    let authority = &stage.authority.file;
    for (count, name) in ["example.com", "api.example.org", "xapi.example.net"]
        .into_iter()
        .enumerate()
    {
        let told = [
            curl(&front, name, authority),
            python(&front, name, authority, &["http/1.1"]),
        ];
        assert!(told.iter().all(Result::is_err), "{name}: {told:?}");
        let labels = [("listener", "edge"), ("reason", "no_route")];
        ringway.wait_for_count("ringway_sessions_ended_total", &labels, 2 * (count as u64 + 1));
    }
    let bare = "openssl s_client -quiet -noservername -connect \"$1\" < /dev/null";
    let told = command("sh", &["-c", bare, "sh", &front.to_string()]);
    assert!(told.is_err(), "{told:?}");
    let labels = [("listener", "edge"), ("reason", "no_route")];
    ringway.wait_for_count("ringway_sessions_ended_total", &labels, 7);
    assert_eq!(stage.connections(), 0, "no backend was bothered");
    assert_eq!(ringway.count("ringway_backend_connections_total", &[]), 0);
    ringway.finish();
}

/// A certificate is the backend's: whoever is sent to the wrong one finds out.
#[test]
fn certificates_are_the_backends_own() {
    let _turn = Turn::start("certificates_are_the_backends_own", Duration::from_secs(60));
    let (stage, front) = (Stage::start(), free_v4());
    let setup = Setup::new()
        .tls_listener("edge", &front, &["{ sni: api.example.com, pool: mail }"])
        .pool("mail", "round_robin", &[&stage.mail.address]);
    let ringway = Ringway::start(&setup);
    let (name, authority) = ("api.example.com", &stage.authority.file);
    for (client, told) in [
        ("openssl s_client", s_client(&front, name, authority, "")),
        ("curl", curl(&front, name, authority)),
        ("Python", python(&front, name, authority, &[])),
    ] {
        let said = told.expect_err(client).to_lowercase();
        assert!(
            said.contains("mismatch") || said.contains("does not match") || said.contains("no alternative"),
            "{client}: {said}"
        );
    }
    assert_eq!(stage.mail.connections(), 3);
    ringway.finish();
}
