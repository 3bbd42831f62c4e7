//! Two PostgreSQL servers that know nothing of each other, and psql against them.

use crate::address::{Address, free_v4};
use crate::process::wait_for;
use crate::program::{Dir, Launch, Program, run};
use crate::server::{create_postgres, postgres_owner, postgres_program, start_postgres, start_postgres_with};
use crate::tls::Identity;
use crate::udp::inet;
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

/// One command of a client.
const LIMIT: Duration = Duration::from_secs(20);

/// Two clusters of user `postgres`, `a` and `b`, that anybody may use without a password.
#[derive(Debug)]
pub struct Databases {
    owner: Launch,
    dir: Dir,
}

impl Databases {
    /// Makes both; needs root.
    pub fn create() -> Self {
        let (owner, dir) = (postgres_owner(), Dir::new());
        must("chown", &["postgres", &dir.path("").display().to_string()]);
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

    /// Starts one of them.
    pub fn start(&self, name: &str, at: &Address) -> Program {
        start_postgres(&self.owner, &self.cluster(name), at)
    }

    /// Starts one of them with this certificate; it takes sessions with TLS and without.
    pub fn start_with_tls(&self, name: &str, at: &Address, identity: &Identity) -> Program {
        let cluster = self.cluster(name);
        let (certificate, key) = (format!("{cluster}/server.pem"), format!("{cluster}/server.key"));
        for (from, to) in [(&identity.certificate, &certificate), (&identity.key, &key)] {
            std::fs::copy(from, to).expect("root may write there");
            must("chown", &["postgres", to]);
            // The server refuses a key that others may read.
            must("chmod", &["600", to]);
        }
        let [certificate, key] =
            [("ssl_cert_file", certificate), ("ssl_key_file", key)].map(|(k, v)| format!("{k}={v}"));
        let more = ["-c", "ssl=on", "-c", &certificate, "-c", &key];
        start_postgres_with(&self.owner, &cluster, at, &more)
    }
}

fn must(program: &str, args: &[&str]) {
    let (status, said) = run(&Launch::default(), program, args, LIMIT);
    assert!(status.success(), "{program} {args:?}: {said}");
}

/// 127.0.0.2, 127.0.0.3 and 127.0.0.4 with one port that is free on all of them: three machines.
pub fn machines() -> [Address; 3] {
    for _ in 0..100 {
        let port = free_v4().port();
        let places = [2, 3, 4].map(|last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)));
        if places.iter().all(|place| TcpListener::bind(place).is_ok()) {
            return places.map(Address::Inet);
        }
    }
    panic!("no port was free on three addresses in 100 tries");
}

/// Runs a client; what it said, or what it said when it failed.
///
/// # Errors
/// Its status was not 0.
pub fn ask(program: &str, args: &[&str]) -> Result<String, String> {
    let (status, said) = run(&Launch::default(), program, args, LIMIT);
    if status.success() {
        Ok(said.trim().to_owned())
    } else {
        Err(said)
    }
}

/// How libpq is told to go to this address without TLS.
pub fn plain(at: &Address) -> String {
    format!("host={} port={} sslmode=disable", inet(at).ip(), at.port())
}

/// How libpq is told to go to this address as to the host of that name, and to believe only its certificate.
pub fn verified(at: &Address, name: &str, authority: &Path) -> String {
    let (at, authority) = (inet(at), authority.display());
    format!(
        "host={name} hostaddr={} port={} sslmode=verify-full sslrootcert={authority}",
        at.ip(),
        at.port()
    )
}

fn psql_args(connection: &str, query: &str) -> [String; 5] {
    let connection = format!("--dbname={connection} user=postgres dbname=postgres connect_timeout=10");
    let query = format!("--command={query}");
    [
        connection,
        query,
        "--no-psqlrc".into(),
        "--no-align".into(),
        "--tuples-only".into(),
    ]
}

/// The answer of one query on a connection of its own.
///
/// # Errors
/// What psql said when it failed.
pub fn psql(connection: &str, query: &str) -> Result<String, String> {
    let args = psql_args(connection, query);
    ask(&postgres_program("psql"), &args.each_ref().map(String::as_str))
}

/// The same over a connection without TLS.
///
/// # Errors
/// What psql said when it failed.
pub fn query(at: &Address, query: &str) -> Result<String, String> {
    psql(&plain(at), query)
}

/// The query that [`cancelled`] runs: 30 s long.
pub const SLEEP: &str = "select pg_sleep(30)";

/// Runs a query of 30 s, waits until a server executes it, presses Ctrl-C.
pub fn cancelled(connection: &str, servers: &[Address], limit: Duration) -> (Option<Duration>, Program) {
    let args = psql_args(connection, SLEEP);
    let args = args.each_ref().map(String::as_str);
    let mut psql = Program::start(&Launch::default(), Path::new(&postgres_program("psql")), &args);
    let runs = wait_for(LIMIT, || (sleeping(servers) == 1).then_some(()));
    assert!(runs.is_some(), "the query never ran: {}", psql.stderr());
    let pressed = Instant::now();
    let ended = psql.stop(Signal::SIGINT, limit).map(|_| pressed.elapsed());
    (ended, psql)
}

/// Demands that Ctrl-C ends the query at psql and at its server.
pub fn assert_cancelled(connection: &str, servers: &[Address]) {
    let (ended, psql) = cancelled(connection, servers, Duration::from_secs(2));
    let said = psql.stderr();
    assert!(ended.is_some(), "Ctrl-C has no effect within 2 s: {said}");
    assert!(said.contains("canceling statement due to user request"), "{said}");
    assert_eq!(sleeping(servers), 0, "the server stopped too");
}

/// Sessions that execute the query, over all servers.
pub fn sleeping(servers: &[Address]) -> u32 {
    let count = format!("select count(*) from pg_stat_activity where state = 'active' and query = '{SLEEP}'");
    let counts = servers
        .iter()
        .map(|server| query(server, &count).expect("the server runs"));
    counts.map(|count| count.parse::<u32>().expect("a number")).sum()
}
