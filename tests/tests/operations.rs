//! What an operator does and sees: checking a file, starting on a bad machine, the admin port.

use nix::sys::signal::Signal;
use ringway_tests::address::{Address, free_privileged, free_v4};
use ringway_tests::backend::{Backend, Behaviour, Place};
use ringway_tests::client::{open_relays, run};
use ringway_tests::namespace::Namespace;
use ringway_tests::program::{Dir, Launch, Program};
use ringway_tests::ringway::{Ringway, run_to_end};
use ringway_tests::scope::{Turn, is_root};
use ringway_tests::setup::Setup;
use ringway_tests::wire::Dial;
use ringway_tests::{binary, metrics};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// `check` on this text; exit code and everything it said.
fn check(text: &str) -> (Option<i32>, String) {
    let dir = Dir::new();
    let file = dir.write("edge.yaml", text).display().to_string();
    let (code, out, err) = run_to_end(&Launch::default(), &["check", &file], SOON);
    (code, (out + &err).replace(&file, "edge.yaml"))
}

/// `run` with this configuration, which must be refused; what it said.
fn refused(setup: &Setup, launch: &Launch) -> String {
    let dir = Dir::new();
    let file = dir.write("edge.yaml", &setup.yaml()).display().to_string();
    let (code, out, err) = run_to_end(launch, &["run", "--config", &file], SOON);
    let said = out + &err;
    assert!(code.is_some_and(|code| code != 0), "exit code {code:?}, said: {said}");
    said
}

/// Fails unless `said` contains every one of `words`, in any case.
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "{word:?} is not in: {said}"
        );
    }
}

#[test]
fn check_accepts_a_good_file() {
    let _turn = Turn::start("check_accepts_a_good_file", Duration::from_secs(30));
    let (setup, _) = Setup::simple("least_connections", &[&free_v4(), &free_v4()]);
    let (code, said) = check(&setup.yaml());
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn check_reports_every_problem_with_its_place() {
    let _turn = Turn::start("check_reports_every_problem_with_its_place", Duration::from_secs(30));
    let lines = [
        "listeners:",
        "  edge:",
        "    bind: 127.0.0.1:5432",
        "    protocol: tcp",
        "    pool: pg",
        "    idle_timeot: 5s",
        "pools:",
        "  postgres:",
        "    backends:",
        "      - { address: 10.0.0.11:5432, weight: 0 }",
        "      - 10.0.0.12:5432",
        "      - 10.0.0.12:5432",
        "  empty:",
        "    backends: []",
    ];
    let (code, said) = check(&lines.join("\n"));
    assert_eq!(code, Some(1), "{said}");
    // The form of design and manual: file:line:column, the line, a caret, a suggestion.
    says(
        &said,
        &[
            "edge.yaml:5:11: pool \"pg\" is not defined",
            "    pool: pg",
            "^^",
            "did you mean \"postgres\"?",
        ],
    );
    says(
        &said,
        &["edge.yaml:6:5:", "idle_timeot", "did you mean \"idle_timeout\"?"],
    );
    says(
        &said,
        &[
            "edge.yaml:10:",
            "weight 0",
            "edge.yaml:12:",
            "10.0.0.12:5432",
            "edge.yaml:14:",
            "empty",
        ],
    );
}

#[test]
fn check_tells_a_bad_file_from_none() {
    let _turn = Turn::start("check_tells_a_bad_file_from_none", Duration::from_secs(30));
    for text in [
        "",
        "listeners: [",
        "\u{0}",
        "a: b",
        "- 1\n- 2",
        "listeners: {}\npools: {}\nlisteners: {}",
    ] {
        let (code, said) = check(text);
        assert_eq!(code, Some(1), "{text:?}: {said}");
        says(&said, &["edge.yaml"]);
    }
    let dir = Dir::new();
    let missing = dir.path("missing.yaml").display().to_string();
    let (code, out, err) = run_to_end(&Launch::default(), &["check", &missing], SOON);
    assert_eq!(code, Some(2), "{out}{err}");
    says(&(out + &err), &[&missing]);
}

#[test]
fn an_unreadable_file_is_named() {
    if !is_root("an_unreadable_file_is_named") {
        return;
    }
    let _turn = Turn::start("an_unreadable_file_is_named", Duration::from_secs(30));
    let dir = Dir::new();
    let (setup, _) = Setup::simple("round_robin", &[&free_v4()]);
    let file = dir.write("secret.yaml", &setup.yaml());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).expect("an own file's rights can be changed");
    let file = file.display().to_string();
    let nobody = Launch {
        user: Some("nobody".to_owned()),
        ..Launch::default()
    };
    let (code, out, err) = run_to_end(&nobody, &["check", &file], SOON);
    assert_eq!(code, Some(2), "{out}{err}");
    says(&(out + &err), &[&file, "permission"]);
    let (code, out, err) = run_to_end(&nobody, &["run", "--config", &file], SOON);
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {out}{err}");
    says(&(out + &err), &[&file, "permission"]);
}

#[test]
fn a_port_in_use_is_found() {
    let _turn = Turn::start("a_port_in_use_is_found", Duration::from_secs(60));
    for reuse_port in [false, true] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(reuse_port).expect("SO_REUSEPORT can be set");
        socket
            .bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
            .expect("a port is free");
        socket.listen(16).expect("a bound socket listens");
        let holder: TcpListener = socket.into();
        let taken = Address::Inet(holder.local_addr().expect("it is bound"));
        let setup = Setup::new()
            .listener("front", &taken, "pool")
            .pool("pool", "round_robin", &[&free_v4()]);
        let said = refused(&setup, &Launch::default());
        says(&said, &[&taken.to_string(), "in use", "front"]);
        // The same for the admin port.
        let (mut setup, _) = Setup::simple("round_robin", &[&free_v4()]);
        setup.admin = holder.local_addr().expect("it is bound");
        says(&refused(&setup, &Launch::default()), &[&taken.to_string(), "in use"]);
    }
}

#[test]
fn two_processes_cannot_share_a_port() {
    let _turn = Turn::start("two_processes_cannot_share_a_port", Duration::from_secs(60));
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup);
    let again = Setup::new()
        .listener("front", &front, "pool")
        .pool("pool", "round_robin", &[&backend.address]);
    says(&refused(&again, &Launch::default()), &[&front.to_string(), "in use"]);
    let held = run(None, async {
        open_relays(&Dial::to(&front), 20, 20).await.map(|wires| wires.len())
    });
    assert_eq!(held.expect("the first goes on"), 20);
    ringway.finish();
}

#[test]
fn a_unix_socket_in_use_is_kept_and_a_stale_one_replaced() {
    let _turn = Turn::start(
        "a_unix_socket_in_use_is_kept_and_a_stale_one_replaced",
        Duration::from_secs(60),
    );
    let dir = Dir::new();
    let front = Address::Unix(dir.path("front"));
    let backend = Backend::start(Behaviour::Echo);
    let setup = || {
        Setup::new()
            .listener("front", &front, "pool")
            .pool("pool", "round_robin", &[&backend.address])
    };
    let mut first = Ringway::start(&setup());
    says(&refused(&setup(), &Launch::default()), &[&front.to_string(), "in use"]);
    // Killed, it cannot remove its socket; the next start must not need a hand.
    first.process.signal(Signal::SIGKILL);
    assert!(first.wait(SOON).is_some(), "SIGKILL ends it");
    let second = Ringway::start(&setup());
    run(None, async { open_relays(&Dial::to(&front), 5, 5).await.map(drop) }).expect("the second serves");
    second.finish();
}

#[test]
fn a_privileged_port_needs_rights() {
    if !is_root("a_privileged_port_needs_rights") {
        return;
    }
    let _turn = Turn::start("a_privileged_port_needs_rights", Duration::from_secs(30));
    let front = free_privileged();
    let setup = Setup::new()
        .listener("front", &front, "pool")
        .pool("pool", "round_robin", &[&free_v4()]);
    let nobody = Launch {
        user: Some("nobody".to_owned()),
        ..Launch::default()
    };
    says(
        &refused(&setup, &nobody),
        &[&front.to_string(), "front", "1024", "CAP_NET_BIND_SERVICE"],
    );
}

#[test]
fn limits_that_do_not_fit_are_refused_with_the_arithmetic() {
    let _turn = Turn::start(
        "limits_that_do_not_fit_are_refused_with_the_arithmetic",
        Duration::from_secs(30),
    );
    let (setup, _) = Setup::simple("round_robin", &[&free_v4()]);
    let setup = setup.listener_key("max_connections", "50000");
    // `check` looks at the file alone.
    assert_eq!(check(&setup.yaml()).0, Some(0));
    let said = refused(
        &setup,
        &Launch {
            nofile: Some(20_000),
            ..Launch::default()
        },
    );
    let digits = said.replace(',', "");
    // Two descriptors a connection: 100,000 and a reserve against 20,000.
    says(&digits, &["50000", "20000", "max_connections"]);
}

#[test]
fn flags_serve_without_a_file() {
    // The admin port of the flags' default is fixed: a namespace makes it free.
    if !is_root("flags_serve_without_a_file") {
        return;
    }
    let _turn = Turn::start("flags_serve_without_a_file", Duration::from_secs(30));
    let namespace = Namespace::new();
    let inside = || Place {
        namespace: Some(&namespace),
        ..Place::default()
    };
    let backends = ["a", "b"].map(|name| Backend::start_at(Behaviour::Name(name.to_owned()), &inside()));
    let front = free_v4();
    let tcp = format!("{front}={},{}", backends[0].address, backends[1].address);
    let launch = Launch {
        netns: Some(namespace.name.clone()),
        ..Launch::default()
    };
    let args = ["run", "--tcp", &tcp, "--balance", "least_connections"];
    let mut ringway = Program::start(&launch, binary::ringway(), &args);
    let dial = Dial::to(&front);
    let names = run(Some(&namespace), async {
        let mut held = Vec::new();
        let began = Instant::now();
        while held.len() < 4 {
            match dial.connect().await {
                Ok(mut wire) => held.push((wire.line(SOON).await.expect("a name comes"), wire)),
                Err(error) => assert!(began.elapsed() < SOON, "not serving after 5 s: {error}"),
            }
        }
        held.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    });
    let of_a = names.iter().filter(|name| *name == "a").count();
    assert_eq!(of_a, 2, "four held connections over two backends: {names:?}");
    let status = ringway.stop(Signal::SIGINT, SOON).expect("SIGINT ends it");
    assert_eq!(status.code(), Some(0), "{}", ringway.stderr());
}

#[test]
fn the_admin_port_only_reads() {
    let _turn = Turn::start("the_admin_port_only_reads", Duration::from_secs(30));
    let (setup, _) = Setup::simple("round_robin", &[&free_v4()]);
    let ringway = Ringway::start(&setup);
    for (path, status) in [
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/metrics", 200),
        ("/nothing", 404),
    ] {
        assert_eq!(ringway.get(path).expect("the admin port answers").0, status, "{path}");
    }
    let page = ringway.get("/metrics").expect("the admin port answers").1;
    metrics::Metrics::parse(&page).expect("every line is a sample or a comment");
    for name in [
        "ringway_build_info",
        "ringway_listener_connections_total",
        "ringway_session_seconds_bucket",
    ] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
    ringway.finish();
}
