//! Real programs through the shipped binary: redis, PostgreSQL, nginx with wrk, iperf3; none of them may see an error.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::program::{Dir, Launch, run};
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure, is_root};
use ringway_tests::server::{
    create_postgres, postgres_owner, postgres_program, serve, start_nginx, start_postgres, start_redis, stop_postgres,
};
use ringway_tests::setup::Setup;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn rounds() -> u32 {
    figure(1, 10)
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
    let dir = Dir::new();
    let _server = start_redis(&dir.path("redis"), &address, &[]);
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
    create_postgres(owner, &first);
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

#[test]
fn postgresql_with_three_backends() {
    if !is_root("postgresql_with_three_backends") {
        return;
    }
    let _turn = Turn::start("postgresql_with_three_backends", Duration::from_secs(400));
    let owner = postgres_owner();
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
        let location = format!("location / {{ return 200 \"{body}\"; }}");
        servers.push(start_nginx(&dir.path(&address.port().to_string()), address, &location));
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
