//! Real programs through the shipped binary: redis, PostgreSQL, nginx with wrk, iperf3; none of them may see an error.

use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_v4};
use ringway_tests::process::wait_for;
use ringway_tests::program::{Dir, Launch, Program, run};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::setup::Setup;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn rounds() -> u32 {
    figure(1, 10)
}

fn inet(address: &Address) -> SocketAddr {
    match address {
        Address::Inet(address) => *address,
        Address::Unix(path) => panic!("{} has no port", path.display()),
    }
}

/// Starts a server and waits until its port accepts.
fn serve(launch: &Launch, program: &str, args: &[&str], address: &Address) -> Program {
    let mut server = Program::start(launch, Path::new(program), args);
    let up = wait_for(Duration::from_secs(20), || {
        let ended = server.ended();
        assert!(
            ended.is_none(),
            "{program} ended at start ({ended:?}); is it installed? {}",
            server.stderr()
        );
        TcpStream::connect(inet(address)).ok()
    });
    assert!(
        up.is_some(),
        "{program} does not accept on {address} after 20 s: {}",
        server.stderr()
    );
    server
}

/// Runs a client program that must succeed and must not say any of `bad_words`.
fn succeed(program: &str, args: &[&str], bad_words: &[&str]) -> String {
    let (status, said) = run(&Launch::default(), program, args, LIMIT);
    assert!(status.success(), "{program} {args:?}: {status}: {said}");
    for word in bad_words {
        assert!(!said.contains(word), "{program} {args:?} said {word:?}: {said}");
    }
    said
}

#[test]
fn redis() {
    let _turn = Turn::start("redis", Duration::from_secs(300));
    let address = free_v4();
    let port = address.port().to_string();
    let server = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let _server = serve(&Launch::default(), "redis-server", &server, &address);
    let (setup, front) = Setup::simple("round_robin", &[&address]);
    let ringway = Ringway::start(&setup);
    let port = front.port().to_string();
    let benchmark = ["-h", "127.0.0.1", "-p", &port, "-n", "20000", "-c", "50", "-q"];
    let bad_words = ["rror", "Could not", "reset", "closed"];
    for _ in 0..rounds() {
        succeed(
            "redis-benchmark",
            &[&benchmark[..], &["-t", "ping,set,get,lrange_100"]].concat(),
            &bad_words,
        );
        // Pipelined, and values larger than one receive buffer.
        succeed(
            "redis-benchmark",
            &[&benchmark[..], &["-t", "set,get", "-P", "16"]].concat(),
            &bad_words,
        );
        let large = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-n",
            "500",
            "-c",
            "8",
            "-q",
            "-t",
            "set,get",
            "-d",
            "300000",
        ];
        succeed("redis-benchmark", &large, &bad_words);
    }
    assert!(
        ringway.count("ringway_listener_connections_total", &[]) >= 100,
        "it went through us"
    );
    ringway.finish();
}

/// A directory that holds three equal PostgreSQL clusters of user `postgres`, initialised for pgbench.
fn postgres_clusters(owner: &Launch) -> (Dir, [PathBuf; 3]) {
    let dir = Dir::new();
    let (status, said) = run(
        &Launch::default(),
        "chown",
        &["postgres", &dir.path("").display().to_string()],
        LIMIT,
    );
    assert!(status.success(), "chown: {said}");
    let clusters = ["a", "b", "c"].map(|name| dir.path(name));
    let first = clusters[0].display().to_string();
    let as_owner = |program: &str, args: &[&str]| {
        let (status, said) = run(owner, &postgres_program(program), args, LIMIT);
        assert!(status.success(), "{program} {args:?}: {status}: {said}");
    };
    as_owner(
        "initdb",
        &[
            "--pgdata",
            &first,
            "--auth",
            "trust",
            "--no-sync",
            "--username",
            "postgres",
        ],
    );
    let address = free_v4();
    let server = start_postgres(owner, &first, &address);
    let port = address.port().to_string();
    as_owner(
        "pgbench",
        &["-h", "127.0.0.1", "-p", &port, "-i", "-s", "1", "-q", "postgres"],
    );
    stop_postgres(server);
    for other in &clusters[1..] {
        as_owner("cp", &["-a", &first, &other.display().to_string()]);
    }
    (dir, clusters)
}

/// Debian keeps the server's programs out of the path.
fn postgres_program(name: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists());
    found.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn start_postgres(owner: &Launch, cluster: &str, address: &Address) -> Program {
    let port = address.port().to_string();
    let settings = [
        "-D",
        cluster,
        "-p",
        &port,
        "-h",
        "127.0.0.1",
        "-k",
        cluster,
        "-c",
        "fsync=off",
    ];
    let more = ["-c", "max_connections=60", "-c", "shared_buffers=16MB"];
    let server = serve(
        owner,
        &postgres_program("postgres"),
        &[&settings[..], &more].concat(),
        address,
    );
    let probe = postgres_program("pg_isready");
    let ready = wait_for(LIMIT, || {
        let (status, _) = run(
            &Launch::default(),
            &probe,
            &["-q", "-h", "127.0.0.1", "-p", &port],
            LIMIT,
        );
        status.success().then_some(())
    });
    assert!(ready.is_some(), "PostgreSQL is not ready: {}", server.stderr());
    server
}

/// SIGINT is PostgreSQL's fast shutdown.
fn stop_postgres(mut server: Program) {
    assert!(
        server.stop(Signal::SIGINT, LIMIT).is_some(),
        "PostgreSQL does not stop: {}",
        server.stderr()
    );
}

#[test]
fn postgresql_with_three_backends() {
    if !is_root("postgresql_with_three_backends") {
        return;
    }
    let _turn = Turn::start("postgresql_with_three_backends", Duration::from_secs(400));
    let owner = Launch {
        user: Some("postgres".to_owned()),
        ..Launch::default()
    };
    let (_dir, clusters) = postgres_clusters(&owner);
    let servers = clusters.map(|cluster| {
        let address = free_v4();
        (
            start_postgres(&owner, &cluster.display().to_string(), &address),
            address,
        )
    });
    let (setup, front) = Setup::simple("least_connections", &[&servers[0].1, &servers[1].1, &servers[2].1]);
    let ringway = Ringway::start(&setup);
    let port = front.port().to_string();
    let bad_words = ["rror", "failed transactions: 1", "aborted", "reset", "closed"];
    for _ in 0..rounds() {
        let place = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-n", "-j", "2"];
        for load in [&["-c", "30", "-T", "3"][..], &["-c", "8", "-t", "30", "-C", "-S"][..]] {
            let said = succeed("pgbench", &[&place[..], load, &["postgres"]].concat(), &bad_words);
            assert!(said.contains("number of failed transactions: 0"), "{said}");
        }
    }
    let through = |address: &Address| {
        let label = address.to_string();
        ringway.count("ringway_backend_connections_total", &[("backend", &label)])
    };
    let through = servers.each_ref().map(|(_, address)| through(address));
    assert!(
        through.iter().all(|&count| count >= 10),
        "every backend was used: {through:?}"
    );
    ringway.finish();
    for (server, _) in servers {
        stop_postgres(server);
    }
}

#[test]
fn nginx_with_wrk() {
    let _turn = Turn::start("nginx_with_wrk", Duration::from_secs(300));
    let dir = Dir::new();
    let addresses = [free_v4(), free_v4()];
    let mut servers = Vec::new();
    for address in &addresses {
        let body = "x".repeat(600);
        let prefix = dir.path(&address.port().to_string());
        std::fs::create_dir_all(&prefix).expect("the temporary directory can be written");
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {0}/pid; worker_rlimit_nofile 4096;\n\
             events {{ worker_connections 2048; }}\n\
             http {{ access_log off; keepalive_requests 1000000;\n\
             client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; \
             scgi_temp_path {0}/s;\n\
             server {{ listen {address}; location / {{ return 200 \"{body}\"; }} }} }}\n",
            prefix.display()
        );
        let file = prefix.join("nginx.conf");
        std::fs::write(&file, config).expect("the temporary directory can be written");
        let args = ["-c".to_owned(), file.display().to_string()];
        servers.push(serve(&Launch::default(), "nginx", &[&args[0], &args[1]], address));
    }
    let (setup, front) = Setup::simple("round_robin", &[&addresses[0], &addresses[1]]);
    let ringway = Ringway::start(&setup);
    let url = format!("http://{front}/");
    let bad_words = ["Socket errors", "Non-2xx", "unable"];
    for _ in 0..rounds() {
        succeed("wrk", &["-t", "1", "-c", "64", "-d", "2s", &url], &bad_words);
        // A connection for every request.
        succeed(
            "wrk",
            &["-t", "1", "-c", "16", "-d", "1s", "-H", "Connection: close", &url],
            &bad_words,
        );
    }
    ringway.finish();
}

#[test]
fn iperf3_in_every_direction() {
    let _turn = Turn::start("iperf3_in_every_direction", Duration::from_secs(300));
    let address = free_v4();
    let port = address.port().to_string();
    let server = ["-s", "-B", "127.0.0.1", "-p", &port];
    let _server = serve(&Launch::default(), "iperf3", &server, &address);
    let (setup, front) = Setup::simple("round_robin", &[&address]);
    let ringway = Ringway::start(&setup);
    let port = front.port().to_string();
    for _ in 0..rounds() {
        for direction in [&[][..], &["-R"][..], &["--bidir"][..]] {
            let load = ["-c", "127.0.0.1", "-p", &port, "-P", "4", "-t", "2"];
            let said = succeed(
                "iperf3",
                &[&load[..], direction].concat(),
                &["rror", "unable", "interrupt"],
            );
            assert!(said.contains("iperf Done."), "{said}");
        }
    }
    ringway.finish();
}
