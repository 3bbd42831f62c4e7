//! The how-to pages: their configurations are valid, and do with real servers what the pages say.
//!
//! A configuration is taken out of its page as it stands; only addresses, ports and the interval of probes are replaced,
//! and each replacement must find something, so that page and test cannot drift apart.

use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::databases::{
    Databases, SLEEP, ask, assert_cancelled, cancelled, machines, plain, psql, query, sleeping, verified,
};
use ringway_tests::pages::{configuration, configurations, docs, placed};
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program};
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::server::{start_nginx, start_redis, stop_postgres};
use ringway_tests::setup::Setup;
use ringway_tests::tls::Authority;
use ringway_tests::udp::inet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// One command of a client.
const LIMIT: Duration = Duration::from_secs(20);
/// From the death of a server until everything goes to another one; probes come every 200 ms.
const FAILOVER: Duration = Duration::from_secs(10);

/// Waits until a gauge is what it should be.
fn wait_for_gauge(ringway: &Ringway, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let seen = || ringway.metrics().sum(name, labels);
    let reached = wait_for(FAILOVER, || (seen() == Some(wanted)).then_some(()));
    assert!(
        reached.is_some(),
        "{name}{labels:?} is {:?}, not {wanted}: {}",
        seen(),
        ringway.log()
    );
}

fn wait_for_usable(ringway: &Ringway, pool: &str, wanted: f64) {
    wait_for_gauge(ringway, "ringway_pool_backends_usable", &[("pool", pool)], wanted);
}

/// Asks until the answer is this one.
fn wait_for_answer(wanted: &str, mut ask: impl FnMut() -> Result<String, String>) {
    let mut last = Ok(String::new());
    let answered = wait_for(FAILOVER, || {
        last = ask();
        (last.as_deref() == Ok(wanted)).then_some(())
    });
    assert!(answered.is_some(), "{last:?}, not {wanted:?}");
}

#[test]
fn every_configuration_is_valid() {
    let _turn = Turn::start("every_configuration_is_valid", Duration::from_secs(60));
    let dir = Dir::new();
    let mut pages: Vec<_> = std::fs::read_dir(docs())
        .expect("the folder docs can be read")
        .map(|entry| entry.expect("the folder docs can be read").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("how-to-") && name.ends_with(".md")
        })
        .collect();
    pages.sort();
    assert!(
        pages.len() >= 6,
        "PostgreSQL, MySQL, Redis, HTTP, TLS, client addresses: {pages:?}"
    );
    for page in pages {
        let all = configurations(&page);
        assert!(!all.is_empty(), "{} shows no configuration", page.display());
        for text in all {
            let file = dir.write("ringway.yaml", &text).display().to_string();
            let (code, out, err) = run_to_end(&Launch::default(), &["check", &file], LIMIT);
            assert_eq!(code, Some(0), "{}: {text}\n{out}{err}", page.display());
            assert_eq!(err, "", "{}: {text}\nit works, with warnings", page.display());
        }
    }
}

/// Tells which server answers.
const WHO: &str = "select host(inet_server_addr())";

/// Answers as Patroni does on one machine: who has which role.
struct Patroni {
    address: SocketAddr,
    primary: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Patroni {
    fn start(at: &Address, primary: bool) -> Self {
        let Address::Inet(address) = *at else {
            panic!("{at} has no port")
        };
        let listener = TcpListener::bind(address).expect("the port was drawn");
        let (primary, ended) = (Arc::new(AtomicBool::new(primary)), Arc::new(AtomicBool::new(false)));
        let (role, stop) = (primary.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    break;
                }
                // A probe that hangs up is no concern of ours.
                let _ = stream.and_then(|stream| Self::answer(&stream, role.load(SeqCst)));
            }
        });
        Self {
            address,
            primary,
            ended,
            thread: Some(thread),
        }
    }

    fn answer(mut stream: &TcpStream, primary: bool) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let status = match (request.split(' ').nth(1), primary) {
            (Some("/primary"), true) | (Some("/replica"), false) => "200 OK",
            _ => "503 Service Unavailable",
        };
        write!(stream, "HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n")
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        // Wakes the thread; if it is gone already, that is what was wanted.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

#[test]
fn postgresql_follows_patroni() {
    if !is_root("postgresql_follows_patroni") {
        return;
    }
    let _turn = Turn::start("postgresql_follows_patroni", Duration::from_secs(120));
    let (databases, servers, agents) = (Databases::create(), machines(), machines());
    let a = databases.start("a", &servers[0]);
    let _b = databases.start("b", &servers[1]);
    let agent_a = Patroni::start(&agents[0], true);
    let agent_b = Patroni::start(&agents[1], false);
    let (writing, reading) = (free_v4(), free_v4());
    let text = configuration("how-to-postgresql.md", 0);
    assert!(text.contains("port: 8008"), "{text}");
    let text = text.replace("port: 8008", &format!("port: {}", agents[0].port()));
    let places = [
        ("0.0.0.0:5432", &writing),
        ("0.0.0.0:5433", &reading),
        ("10.0.0.11:5432", &servers[0]),
        ("10.0.0.12:5432", &servers[1]),
        ("10.0.0.13:5432", &servers[2]),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&text, &places)));
    for pool in ["primary", "replicas"] {
        // Nobody is on the third machine.
        wait_for_usable(&ringway, pool, 1.0);
    }
    assert_eq!(query(&writing, WHO).as_deref(), Ok("127.0.0.2"));
    assert_eq!(query(&reading, WHO).as_deref(), Ok("127.0.0.3"));
    drop(agent_a);
    stop_postgres(a);
    agent_b.primary.store(true, SeqCst);
    wait_for_answer("127.0.0.3", || query(&writing, WHO));
    wait_for_usable(&ringway, "replicas", 0.0);
    assert!(query(&reading, WHO).is_err(), "the primary is not read from");
    assert!(ringway.ended("no_backend") >= 1, "and the client was told so at once");
    ringway.finish();
}

#[test]
fn postgresql_with_a_standby_that_stays() {
    if !is_root("postgresql_with_a_standby_that_stays") {
        return;
    }
    let _turn = Turn::start("postgresql_with_a_standby_that_stays", Duration::from_secs(120));
    let (databases, servers) = (Databases::create(), machines());
    let a = databases.start("a", &servers[0]);
    let _b = databases.start("b", &servers[1]);
    let front = free_v4();
    let text = configuration("how-to-postgresql.md", 1);
    let places = [
        ("0.0.0.0:5432", &front),
        ("10.0.0.11:5432", &servers[0]),
        ("10.0.0.12:5432", &servers[1]),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&text, &places)));
    for _ in 0..3 {
        assert_eq!(query(&front, WHO).as_deref(), Ok("127.0.0.2"), "the backup is spared");
    }
    stop_postgres(a);
    wait_for_answer("127.0.0.3", || query(&front, WHO));
    let label = servers[0].to_string();
    let condition = |word| [("pool", "postgres"), ("backend", label.as_str()), ("condition", word)];
    wait_for_gauge(&ringway, "ringway_backend_condition", &condition("down"), 1.0);
    let _a = databases.start("a", &servers[0]);
    wait_for_gauge(&ringway, "ringway_backend_condition", &condition("up"), 1.0);
    for _ in 0..3 {
        assert_eq!(query(&front, WHO).as_deref(), Ok("127.0.0.3"), "failback is manual");
    }
    ringway.finish();
}

#[test]
fn postgresql_cancel_requests_reach_the_right_server() {
    if !is_root("postgresql_cancel_requests_reach_the_right_server") {
        return;
    }
    let _turn = Turn::start(
        "postgresql_cancel_requests_reach_the_right_server",
        Duration::from_secs(120),
    );
    let (databases, servers) = (Databases::create(), machines());
    let servers = &servers[..2];
    let _a = databases.start("a", &servers[0]);
    let _b = databases.start("b", &servers[1]);
    let text = configuration("how-to-postgresql.md", 2);
    let start = |text: &str| {
        let front = free_v4();
        let places = [
            ("0.0.0.0:5434", &front),
            ("10.0.0.21:5432", &servers[0]),
            ("10.0.0.22:5432", &servers[1]),
        ];
        (Ringway::start(&Setup::verbatim(&placed(text, &places))), front)
    };
    // In turn, every second connection would reach the other server.
    assert!(text.contains("balance: least_connections"), "{text}");
    let text = text.replace("balance: least_connections", "balance: round_robin");
    let (ringway, front) = start(&text);
    for _ in 0..3 {
        assert_cancelled(&plain(&front), servers);
    }
    ringway.finish();
    // What the page warns of: without the hint it does, and that server ignores it.
    let hint = text.lines().find(|line| line.contains("protocol_hint: postgres"));
    let (ringway, front) = start(&text.replace(hint.expect("the page says how"), ""));
    let (ended, psql) = cancelled(&plain(&front), servers, Duration::from_secs(1));
    assert_eq!(ended, None, "{}", psql.stderr());
    assert_eq!(sleeping(servers), 1, "the query runs on");
    for server in servers {
        let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where query = '{SLEEP}'");
        query(server, &end).expect("the server runs");
    }
    drop(psql);
    ringway.finish();
}

#[test]
fn postgresql_over_tls_by_name() {
    if !is_root("postgresql_over_tls_by_name") {
        return;
    }
    let _turn = Turn::start("postgresql_over_tls_by_name", Duration::from_secs(120));
    let (authority, databases, servers, front) = (Authority::new(), Databases::create(), machines(), free_v4());
    let servers = &servers[..2];
    let orders = authority.sign(&["orders.db.example.com"]);
    let people = authority.sign(&["people.db.example.com", "hr.db.example.com"]);
    let _a = databases.start_with_tls("a", &servers[0], &orders);
    let _b = databases.start_with_tls("b", &servers[1], &people);
    let places = [
        ("0.0.0.0:5435", &front),
        ("10.0.0.31:5432", &servers[0]),
        ("10.0.0.32:5432", &servers[1]),
    ];
    let text = placed(&configuration("how-to-postgresql.md", 3), &places);
    let ringway = Ringway::start(&Setup::verbatim(&text));
    let to = |name| verified(&front, name, &authority.file);
    for (name, server) in [
        ("orders.db.example.com", "127.0.0.2"),
        ("people.db.example.com", "127.0.0.3"),
        ("hr.db.example.com", "127.0.0.3"),
    ] {
        assert_eq!(psql(&to(name), WHO).as_deref(), Ok(server), "{name}");
        assert_cancelled(&to(name), servers);
    }
    assert!(psql(&to("stock.db.example.com"), WHO).is_err(), "it has no route");
    assert!(psql(&plain(&front), WHO).is_err(), "it has no name");
    let unrouted = [("listener", "postgres-tls"), ("reason", "no_route")];
    ringway.wait_for_count("ringway_sessions_ended_total", &unrouted, 2);
    ringway.finish();
}

fn redis(at: &Address, command: &[&str]) -> Result<String, String> {
    let (host, port) = (inet(at).ip().to_string(), at.port().to_string());
    // `-e`: an answer that is an error makes it fail.
    ask("redis-cli", &[&["-e", "-h", &host, "-p", &port][..], command].concat())
}

fn kill(mut server: Program) {
    let ended = server.stop(Signal::SIGKILL, LIMIT);
    assert!(ended.is_some(), "SIGKILL ends everything");
}

#[test]
fn redis_follows_the_role() {
    let _turn = Turn::start("redis_follows_the_role", Duration::from_secs(120));
    let (dir, servers) = (Dir::new(), machines());
    let port = servers[0].port().to_string();
    let a = start_redis(&dir.path("a"), &servers[0], &["--repl-diskless-sync-delay", "0"]);
    let _b = start_redis(&dir.path("b"), &servers[1], &["--replicaof", "127.0.0.2", &port]);
    let (writing, reading) = (free_v4(), free_v4());
    let start = |index: usize, bind: &str, front: &Address| {
        let places = [
            (bind, front),
            ("10.0.0.11:6379", &servers[0]),
            ("10.0.0.12:6379", &servers[1]),
            ("10.0.0.13:6379", &servers[2]),
        ];
        let text = placed(&configuration("how-to-redis.md", index), &places);
        Ringway::start(&Setup::verbatim(&text))
    };
    let writers = start(0, "0.0.0.0:6379", &writing);
    let readers = start(1, "0.0.0.0:6380", &reading);
    wait_for_usable(&writers, "redis-primary", 1.0);
    let label = servers[1].to_string();
    wait_for_usable(&readers, "redis-replicas", 1.0);
    wait_for_gauge(&readers, "ringway_backend_up", &[("backend", &label)], 1.0);
    let answers = redis(&reading, &["info", "replication"]);
    assert!(
        answers.as_ref().is_ok_and(|said| said.contains("role:slave")),
        "{answers:?}"
    );
    assert_eq!(redis(&writing, &["set", "key", "one"]).as_deref(), Ok("OK"));
    wait_for_answer("one", || redis(&reading, &["get", "key"]));
    kill(a);
    assert_eq!(redis(&servers[1], &["replicaof", "no", "one"]).as_deref(), Ok("OK"));
    wait_for_answer("OK", || redis(&writing, &["set", "key", "two"]));
    // Nobody follows anybody now; fail_open asks whoever is there.
    wait_for_answer("two", || redis(&reading, &["get", "key"]));
    writers.finish();
    readers.finish();
}

#[test]
fn redis_as_a_cache() {
    let _turn = Turn::start("redis_as_a_cache", Duration::from_secs(60));
    let (dir, servers) = (Dir::new(), machines());
    let mut caches = vec![
        start_redis(&dir.path("a"), &servers[0], &[]),
        start_redis(&dir.path("b"), &servers[1], &[]),
    ];
    let front = free_v4();
    let places = [
        ("0.0.0.0:6381", &front),
        ("10.0.0.21:6379", &servers[0]),
        ("10.0.0.22:6379", &servers[1]),
    ];
    let text = placed(&configuration("how-to-redis.md", 2), &places);
    let ringway = Ringway::start(&Setup::verbatim(&text));
    wait_for_usable(&ringway, "cache", 2.0);
    assert_eq!(redis(&front, &["set", "key", "one"]).as_deref(), Ok("OK"));
    for _ in 0..5 {
        assert_eq!(
            redis(&front, &["get", "key"]).as_deref(),
            Ok("one"),
            "one client, one cache"
        );
    }
    let has_it = |server: &Address| redis(server, &["exists", "key"]).as_deref() == Ok("1");
    let at = if has_it(&servers[0]) { 0 } else { 1 };
    assert!(has_it(&servers[at]) && !has_it(&servers[1 - at]));
    kill(caches.remove(at));
    // The next command, not some later one: the refused try goes on to the other cache.
    assert_eq!(redis(&front, &["set", "key", "two"]).as_deref(), Ok("OK"));
    assert!(has_it(&servers[1 - at]));
    wait_for_usable(&ringway, "cache", 1.0);
    ringway.finish();
}

fn curl(args: &[&str]) -> Result<String, String> {
    ask(
        "curl",
        &[&["--silent", "--show-error", "--fail", "--max-time", "5"][..], args].concat(),
    )
}

/// The lines of a web server that answers with its name, and on `/healthz` as the page has it.
fn web(name: &str, serve: &Path) -> String {
    format!(
        "location / {{ return 200 \"{name}\"; }}\n\
         location = /healthz {{ if (!-f {}) {{ return 503; }} return 200 \"ok\"; }}",
        serve.display()
    )
}

#[test]
fn http_leaves_out_who_wants_to_be() {
    let _turn = Turn::start("http_leaves_out_who_wants_to_be", Duration::from_secs(120));
    let (dir, plain, secure) = (Dir::new(), machines(), machines());
    let (key, certificate) = (dir.path("key.pem"), dir.path("certificate.pem"));
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=www.example.com";
    let request: Vec<_> = request.split(' ').collect();
    let made = ask(
        "openssl",
        &[&request[..], &["-keyout", &key, "-out", &certificate]].concat(),
    );
    assert!(made.is_ok(), "{made:?}");
    let serves = ["a", "b"].map(|name| dir.write(&format!("serve-{name}"), ""));
    let tls = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
    let mut servers = Vec::new();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let lines = format!("listen {} ssl; {tls} {}", secure[index], web(name, &serves[index]));
        servers.push(start_nginx(&dir.path(name), &plain[index], &lines));
    }
    let (front, secure_front) = (free_v4(), free_v4());
    let places = [
        ("0.0.0.0:80", &front),
        ("0.0.0.0:443", &secure_front),
        ("10.0.0.11:80", &plain[0]),
        ("10.0.0.12:80", &plain[1]),
        ("10.0.0.13:80", &plain[2]),
        ("10.0.0.11:443", &secure[0]),
        ("10.0.0.12:443", &secure[1]),
        ("10.0.0.13:443", &secure[2]),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&configuration("how-to-http.md", 0), &places)));
    let (url, secure_url) = (format!("http://{front}/"), format!("https://{secure_front}/"));
    // Nobody is on the third machine.
    wait_for_usable(&ringway, "http", 2.0);
    wait_for_usable(&ringway, "https", 2.0);
    let names = [Ok("a".to_owned()), Ok("b".to_owned())];
    for _ in 0..4 {
        assert!(names.contains(&curl(&[&url])));
        assert!(names.contains(&curl(&["--insecure", &secure_url])));
    }
    std::fs::remove_file(&serves[0]).expect("the test wrote it");
    wait_for_usable(&ringway, "http", 1.0);
    wait_for_usable(&ringway, "https", 1.0);
    for _ in 0..10 {
        assert_eq!(curl(&[&url]).as_deref(), Ok("b"), "a is being taken out");
    }
    assert_eq!(curl(&["--insecure", &secure_url]).as_deref(), Ok("b"));
    std::fs::write(&serves[0], "").expect("the temporary directory can be written");
    wait_for_usable(&ringway, "http", 2.0);
    kill(servers.remove(1));
    for _ in 0..10 {
        assert_eq!(
            curl(&[&url]).as_deref(),
            Ok("a"),
            "no request after the death of b fails"
        );
    }
    ringway.finish();
}

#[test]
fn http_with_a_spare() {
    let _turn = Turn::start("http_with_a_spare", Duration::from_secs(60));
    let (dir, servers) = (Dir::new(), machines());
    let serve = dir.write("serve", "");
    let shop = start_nginx(&dir.path("shop"), &servers[0], &web("shop", &serve));
    let _spare = start_nginx(&dir.path("spare"), &servers[2], &web("spare", &serve));
    let front = free_v4();
    let places = [
        ("0.0.0.0:8080", &front),
        ("10.0.0.21:8080", &servers[0]),
        ("10.0.0.22:8080", &servers[1]),
        ("10.0.0.31:8080", &servers[2]),
    ];
    let ringway = Ringway::start(&Setup::verbatim(&placed(&configuration("how-to-http.md", 1), &places)));
    let url = format!("http://{front}/");
    for _ in 0..5 {
        assert_eq!(curl(&[&url]).as_deref(), Ok("shop"), "the spare is spared");
    }
    kill(shop);
    wait_for_answer("spare", || curl(&[&url]));
    ringway.finish();
}
