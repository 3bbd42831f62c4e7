//! PostgreSQL over TLS by the server's name, and cancel requests that find the server that issued their key.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::client::run;
use ringway_tests::databases::{Databases, assert_cancelled, machines, plain, psql, verified};
use ringway_tests::program::Program;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::tls::{Authority, TlsServer, ask, ask_over};
use ringway_tests::udp::inet;
use ringway_tests::wire::{Dial, End};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(5);
/// Which server answers, and whether over TLS.
const WHO: &str = "select host(inet_server_addr()), ssl from pg_stat_ssl where pid = pg_backend_pid()";
const NAMES: [&str; 2] = ["a.db.example.com", "b.db.example.com"];

/// SSLRequest and GSSENCRequest (PostgreSQL's documentation, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x30];

/// Two servers, each with a certificate for a name of its own, on 127.0.0.2 and 127.0.0.3.
struct Stage {
    authority: Authority,
    servers: [Address; 2],
    front: Address,
    _programs: [Program; 2],
    _databases: Databases,
}

impl Stage {
    fn start() -> Self {
        let (authority, databases) = (Authority::new(), Databases::create());
        let [a, b, _] = machines();
        let programs = [("a", &a, NAMES[0]), ("b", &b, NAMES[1])]
            .map(|(name, at, host)| databases.start_with_tls(name, at, &authority.sign(&[host])));
        Self {
            authority,
            servers: [a, b],
            front: free_v4(),
            _programs: programs,
            _databases: databases,
        }
    }

    /// A listener that tells the servers apart by name.
    fn by_name(&self) -> Setup {
        let routes = [0, 1].map(|index| format!("{{ sni: {}, pool: p{index} }}", NAMES[index]));
        let setup =
            Setup::new()
                .top("workers", "2")
                .tls_listener("pg", &self.front, &routes.each_ref().map(String::as_str));
        let setup = setup.listener_key("starttls", "postgres");
        setup
            .pool("p0", "round_robin", &[&self.servers[0]])
            .pool("p1", "round_robin", &[&self.servers[1]])
    }

    /// A listener with one pool, whose servers have their turns.
    fn in_turn(&self, keys: &[(&str, &str)], protocol: &str) -> Setup {
        let setup = Setup::new().top("workers", "2");
        let setup = match protocol {
            "tls" => setup.tls_listener("pg", &self.front, &["{ sni: \"*.db.example.com\", pool: pool }"]),
            _ => setup.listener("pg", &self.front, "pool"),
        };
        let setup = keys
            .iter()
            .fold(setup, |setup, (key, value)| setup.listener_key(key, value));
        setup.pool("pool", "round_robin", &[&self.servers[0], &self.servers[1]])
    }

    fn verified(&self, name: &str) -> String {
        verified(&self.front, name, &self.authority.file)
    }
}

#[test]
fn psql_verifies_the_server_that_it_names() {
    if !is_root("psql_verifies_the_server_that_it_names") {
        return;
    }
    let _turn = Turn::start("psql_verifies_the_server_that_it_names", Duration::from_secs(120));
    let stage = Stage::start();
    let ringway = Ringway::start(&stage.by_name());
    for _ in 0..2 {
        assert_eq!(psql(&stage.verified(NAMES[0]), WHO).as_deref(), Ok("127.0.0.2|t"));
        assert_eq!(psql(&stage.verified(NAMES[1]), WHO).as_deref(), Ok("127.0.0.3|t"));
    }
    // TLS is asked for with the first byte from version 17 on.
    let direct = format!("{} sslnegotiation=direct", stage.verified(NAMES[1]));
    match psql(&direct, WHO) {
        Err(said) if said.contains("invalid connection option") => println!("this psql has no sslnegotiation"),
        Err(said) if said.contains("SSL error") || said.contains("closed the connection") => {
            println!("this server takes no direct TLS: {said}");
        }
        told => assert_eq!(told.as_deref(), Ok("127.0.0.3|t")),
    }
    let wrong = psql(&stage.verified("c.db.example.com"), WHO);
    assert!(wrong.is_err(), "a name without a route: {wrong:?}");
    let labels = [("listener", "pg"), ("reason", "no_route")];
    ringway.wait_for_count("ringway_sessions_ended_total", &labels, 1);
    ringway.finish();
}

/// Without `fallback` nobody gets in without TLS.
#[test]
fn without_tls_there_is_only_the_fallback() {
    if !is_root("without_tls_there_is_only_the_fallback") {
        return;
    }
    let _turn = Turn::start("without_tls_there_is_only_the_fallback", Duration::from_secs(120));
    let stage = Stage::start();
    let ringway = Ringway::start(&stage.by_name());
    let told = psql(&plain(&stage.front), WHO);
    assert!(told.is_err(), "{told:?}");
    let label = stage.servers.each_ref().map(Address::to_string);
    for backend in &label {
        let count = ringway.count("ringway_backend_connections_total", &[("backend", backend)]);
        assert_eq!(count, 0, "{backend}");
    }
    ringway.finish();
    let ringway = Ringway::start(&stage.by_name().listener_key("fallback", "p1"));
    assert_eq!(psql(&plain(&stage.front), WHO).as_deref(), Ok("127.0.0.3|f"));
    assert_eq!(psql(&stage.verified(NAMES[0]), WHO).as_deref(), Ok("127.0.0.2|t"));
    ringway.finish();
}

/// What comes before the hello, by hand: every answer is one byte, and nothing that a client sends early is lost.
#[test]
fn the_way_to_tls_is_the_documented_one() {
    if !is_root("the_way_to_tls_is_the_documented_one") {
        return;
    }
    let _turn = Turn::start("the_way_to_tls_is_the_documented_one", Duration::from_secs(120));
    let stage = Stage::start();
    let ringway = Ringway::start(&stage.by_name());
    run(None, async {
        let at = inet(&stage.front);
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        for (request, answer) in [(GSSENC_REQUEST, b'N'), (SSL_REQUEST, b'S')] {
            stream.write_all(&request).await.expect("it reads");
            assert_eq!(stream.read_u8().await.expect("one byte"), answer);
        }
        // Closed by PostgreSQL, which takes this for a startup message: over TLS, with the right certificate.
        let told = ask_over(&stage.authority.client(&[]), stream, NAMES[0]).await;
        let told = told.map_err(|error| error.to_string());
        assert!(told.as_ref().is_err_and(|said| said.contains("no HTTP")), "{told:?}");
        let mut wire = Dial::to(&stage.front).connect().await.expect("it listens");
        wire.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
        let (seen, end) = wire.read_to_end_of(SOON).await;
        assert!(
            seen == 0 && matches!(end, End::Orderly | End::Reset),
            "{seen} bytes, {end:?}"
        );
    });
    let labels = [("listener", "pg"), ("reason", "bad_startup")];
    ringway.wait_for_count("ringway_sessions_ended_total", &labels, 1);
    ringway.finish();
}

/// A backend that says no to TLS is not spoken to in the clear.
#[test]
fn a_server_without_tls_gets_nothing() {
    if !is_root("a_server_without_tls_gets_nothing") {
        return;
    }
    let _turn = Turn::start("a_server_without_tls_gets_nothing", Duration::from_secs(120));
    let (databases, [a, ..], front) = (Databases::create(), machines(), free_v4());
    let _server = databases.start("a", &a);
    let setup = Setup::new()
        .tls_listener("pg", &front, &["{ sni: a.db.example.com, pool: pool }"])
        .listener_key("starttls", "postgres")
        .pool("pool", "round_robin", &[&a]);
    let ringway = Ringway::start(&setup);
    let told = psql(&verified(&front, NAMES[0], &Authority::new().file), WHO);
    assert!(told.is_err(), "{told:?}");
    let labels = [("listener", "pg"), ("reason", "starttls_refused")];
    ringway.wait_for_count("ringway_sessions_ended_total", &labels, 1);
    ringway.finish();
}

/// Clients that begin with the hello are passed on as they are.
#[test]
fn tls_may_come_at_once() {
    let _turn = Turn::start("tls_may_come_at_once", Duration::from_secs(60));
    let (authority, front) = (Authority::new(), free_v4());
    let server = TlsServer::start("a", &authority.sign(&[NAMES[0]]), &["postgresql"]);
    let setup = Setup::new()
        .tls_listener("pg", &front, &["{ sni: a.db.example.com, pool: pool }"])
        .listener_key("starttls", "postgres")
        .pool("pool", "round_robin", &[&server.address]);
    let ringway = Ringway::start(&setup);
    let told = run(None, ask(&authority.client(&["postgresql"]), &front, NAMES[0])).expect("it is passed on");
    assert_eq!(told.body, "a saw a.db.example.com");
    ringway.finish();
}

/// In turn, the connection of a cancel request would reach the other server every time.
#[test]
fn ctrl_c_finds_its_server_in_the_clear() {
    if !is_root("ctrl_c_finds_its_server_in_the_clear") {
        return;
    }
    let _turn = Turn::start("ctrl_c_finds_its_server_in_the_clear", Duration::from_secs(120));
    let stage = Stage::start();
    let ringway = Ringway::start(&stage.in_turn(&[("protocol_hint", "postgres")], "tcp"));
    for _ in 0..4 {
        assert_cancelled(&plain(&stage.front), &stage.servers);
    }
    // Servers end cancel requests without a word, which is no failure of theirs.
    assert_eq!(ringway.count("ringway_backend_ended_early_total", &[]), 0);
    ringway.finish();
    let keys = [("starttls", "postgres"), ("fallback", "pool")];
    let ringway = Ringway::start(&stage.in_turn(&keys, "tls"));
    for _ in 0..4 {
        assert_cancelled(&plain(&stage.front), &stage.servers);
    }
    ringway.finish();
}

/// libpq before version 17 sends the request in the clear, whatever the session was; later ones send it over TLS.
#[test]
fn ctrl_c_finds_its_server_over_tls() {
    if !is_root("ctrl_c_finds_its_server_over_tls") {
        return;
    }
    let _turn = Turn::start("ctrl_c_finds_its_server_over_tls", Duration::from_secs(120));
    let stage = Stage::start();
    let ringway = Ringway::start(&stage.by_name());
    for name in [NAMES[0], NAMES[1], NAMES[0], NAMES[1]] {
        assert_cancelled(&stage.verified(name), &stage.servers);
    }
    ringway.finish();
}

/// A key that nobody issued ends no query, and whoever sends it is closed as a server itself does it.
#[test]
fn a_forged_cancel_request_ends_nothing() {
    if !is_root("a_forged_cancel_request_ends_nothing") {
        return;
    }
    let _turn = Turn::start("a_forged_cancel_request_ends_nothing", Duration::from_secs(120));
    let stage = Stage::start();
    // CancelRequest for process 7 with key 9.
    let request = [0, 0, 0, 16, 0x04, 0xD2, 0x16, 0x2E, 0, 0, 0, 7, 0, 0, 0, 9];
    let plain_only = stage.in_turn(&[("protocol_hint", "postgres")], "tcp");
    for setup in [stage.by_name(), plain_only] {
        let ringway = Ringway::start(&setup);
        let (seen, end) = run(None, async {
            let mut wire = Dial::to(&stage.front).connect().await.expect("it listens");
            wire.write_all(&request).await.expect("it reads");
            wire.read_to_end_of(SOON).await
        });
        assert!(
            seen == 0 && matches!(end, End::Orderly | End::Reset),
            "{seen} bytes, {end:?}"
        );
        ringway.finish();
    }
    for server in &stage.servers {
        assert!(psql(&plain(server), WHO).is_ok(), "it runs on");
    }
}
