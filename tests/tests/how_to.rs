//! The how-to pages: their configurations are valid, and do with real servers what the pages say.
//!
//! A configuration is taken out of its page as it stands; only addresses, ports and the interval of probes are replaced,
//! and each replacement must find something, so that page and test cannot drift apart.

use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program, run};
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::server::{
    create_postgres, postgres_owner, postgres_program, start_nginx, start_postgres, start_redis, stop_postgres,
};
use ringway_tests::setup::Setup;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// One command of a client.
const LIMIT: Duration = Duration::from_secs(20);
/// From the death of a server until everything goes to another one; probes come every 200 ms.
const FAILOVER: Duration = Duration::from_secs(10);

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The configurations of a page: its YAML blocks that begin with `listeners:`.
fn configurations(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let blocks = text.split("\n```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("\n```").expect("a block has an end").0.to_owned());
    blocks.filter(|block| block.starts_with("listeners:")).collect()
}

/// The n-th configuration of a page, with probes that come often.
fn configuration(page: &str, index: usize) -> String {
    let all = configurations(&docs().join(page));
    let text = all
        .get(index)
        .unwrap_or_else(|| panic!("{page} has {} configurations", all.len()));
    assert!(text.contains("interval: 2s"), "{text}");
    text.replace("interval: 2s", "interval: 200ms")
}

/// The text with other addresses.
fn placed(text: &str, places: &[(&str, &Address)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in places {
        let mut parts = text.split(from).peekable();
        let mut moved = parts.next().unwrap_or_default().to_owned();
        assert!(parts.peek().is_some(), "{from} is not in {text}");
        for part in parts {
            // `10.0.0.1:80` is also the beginning of `10.0.0.1:8080`.
            let longer = part.starts_with(|next: char| next.is_ascii_digit());
            moved += &if longer { (*from).to_owned() } else { to.to_string() };
            moved += part;
        }
        text = moved;
    }
    assert!(
        !text.contains("0.0.0.0:") && !text.contains("10.0.0."),
        "not everything was placed: {text}"
    );
    text
}

/// 127.0.0.2, 127.0.0.3 and 127.0.0.4 with one port that is free on all of them: three machines.
fn machines() -> [Address; 3] {
    for _ in 0..100 {
        let at = |last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        let port = free_v4().port();
        let places = [2, 3, 4].map(|last| {
            let mut place = at(last);
            place.set_port(port);
            place
        });
        if places.iter().all(|place| TcpListener::bind(place).is_ok()) {
            return places.map(Address::Inet);
        }
    }
    panic!("no port was free on three addresses in 100 tries");
}

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

/// Runs a client; what it said, or what it said when it failed.
fn ask(program: &str, args: &[&str]) -> Result<String, String> {
    let (status, said) = run(&Launch::default(), program, args, LIMIT);
    if status.success() {
        Ok(said.trim().to_owned())
    } else {
        Err(said)
    }
}

fn ip(address: &Address) -> String {
    match address {
        Address::Inet(address) => address.ip().to_string(),
        Address::Unix(path) => panic!("{} has no address", path.display()),
    }
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
    assert!(pages.len() >= 4, "PostgreSQL, MySQL, Redis, HTTP: {pages:?}");
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

/// Two servers of user `postgres` that know nothing of each other, on the first two machines.
struct Databases {
    owner: Launch,
    dir: Dir,
}

impl Databases {
    fn create() -> Self {
        let (owner, dir) = (postgres_owner(), Dir::new());
        let folder = dir.path("").display().to_string();
        let (status, said) = run(&Launch::default(), "chown", &["postgres", &folder], LIMIT);
        assert!(status.success(), "chown: {said}");
        let databases = Self { owner, dir };
        create_postgres(&databases.owner, &databases.cluster("a"));
        let copy = ["-a", &databases.cluster("a"), &databases.cluster("b")];
        let (status, said) = run(&databases.owner, "cp", &copy, LIMIT);
        assert!(status.success(), "cp: {said}");
        databases
    }

    fn cluster(&self, name: &str) -> String {
        self.dir.path(name).display().to_string()
    }

    fn start(&self, name: &str, at: &Address) -> Program {
        start_postgres(&self.owner, &self.cluster(name), at)
    }
}

fn psql_args<'a>(host: &'a str, port: &'a str, query: &'a str) -> [&'a str; 10] {
    ["-X", "-A", "-t", "-h", host, "-p", port, "-U", "postgres", query]
}

/// The answer of one query on a connection of its own.
fn query(at: &Address, query: &str) -> Result<String, String> {
    let (host, port) = (ip(at), at.port().to_string());
    let query = format!("--command={query}");
    ask(&postgres_program("psql"), &psql_args(&host, &port, &query))
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

/// Runs a query of 30 s through the balancer, waits until a server executes it, presses Ctrl-C.
fn cancelled(front: &Address, servers: &[Address], limit: Duration) -> (Option<Duration>, Program) {
    let port = front.port().to_string();
    let args = psql_args("127.0.0.1", &port, "--command=select pg_sleep(30)");
    let mut psql = Program::start(&Launch::default(), Path::new(&postgres_program("psql")), &args);
    let runs = wait_for(LIMIT, || (sleeping(servers) == 1).then_some(()));
    assert!(runs.is_some(), "the query never ran: {}", psql.stderr());
    let pressed = Instant::now();
    let ended = psql.stop(Signal::SIGINT, limit).map(|_| pressed.elapsed());
    (ended, psql)
}

/// Sessions that execute the query, over all servers.
fn sleeping(servers: &[Address]) -> u32 {
    let count = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(30)'";
    let counts = servers
        .iter()
        .map(|server| query(server, count).expect("the server runs"));
    counts.map(|count| count.parse::<u32>().expect("a number")).sum()
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
    let (ringway, front) = start(&text);
    for _ in 0..3 {
        let (ended, psql) = cancelled(&front, servers, Duration::from_secs(2));
        assert!(ended.is_some(), "Ctrl-C has no effect within 2 s: {}", psql.stderr());
        let said = psql.stderr();
        assert!(said.contains("canceling statement due to user request"), "{said}");
        assert_eq!(sleeping(servers), 0, "the server stopped too");
    }
    ringway.finish();
    // What the page warns of: in turn, the second connection reaches the other server, which ignores it.
    assert!(text.contains("balance: ip_hash"), "{text}");
    let (ringway, front) = start(&text.replace("balance: ip_hash", "balance: round_robin"));
    let (ended, psql) = cancelled(&front, servers, Duration::from_secs(1));
    assert_eq!(ended, None, "{}", psql.stderr());
    assert_eq!(sleeping(servers), 1, "the query runs on");
    for server in servers {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(30)'";
        query(server, end).expect("the server runs");
    }
    drop(psql);
    ringway.finish();
}

fn redis(at: &Address, command: &[&str]) -> Result<String, String> {
    let (host, port) = (ip(at), at.port().to_string());
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
