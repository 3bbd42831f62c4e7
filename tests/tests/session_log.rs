//! The session log: one line for each session, with the right fields, and a file that is moved away meanwhile.

use ringway_tests::address::{Address, free_v4};
use ringway_tests::backend::{Backend, Behaviour};
use ringway_tests::client::{churn, run};
use ringway_tests::dns::Dns;
use ringway_tests::exchange::{Order, Plan};
use ringway_tests::process::wait_for;
use ringway_tests::program::Dir;
use ringway_tests::ringway::Ringway;
use ringway_tests::scope::{Turn, figure};
use ringway_tests::setup::Setup;
use ringway_tests::wire::{Dial, End, Wire};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(5);

/// Every line so far; each must be one JSON object.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // A line that is being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(parse).collect()
}

/// The next line after the `seen` first ones; fails the test if more than one comes.
fn next_line(file: &Path, seen: usize) -> Value {
    let found = wait_for(SOON, || Some(lines(file)).filter(|lines| lines.len() > seen));
    let lines = found.unwrap_or_else(|| panic!("no line after the first {seen}"));
    assert_eq!(lines.len(), seen + 1, "one line per session: {lines:?}");
    lines[seen].clone()
}

/// Demands these fields of a line.
fn assert_fields(line: &Value, expected: &Value) {
    for (key, value) in expected.as_object().expect("fields") {
        assert_eq!(&line[key], value, "{key} of {line}");
    }
}

fn client_of(wire: &Wire) -> String {
    match wire {
        Wire::Tcp(stream) => stream.local_addr().expect("it is connected").to_string(),
        Wire::Unix(_) => "unix".to_owned(),
    }
}

async fn connect(front: &Address) -> Wire {
    Dial::to(front).connect().await.expect("the listener accepts")
}

/// A client of this address that is reset, perhaps before it knows its port.
async fn reset_from(ip: [u8; 4], front: &Address) {
    let dial = Dial {
        from: Some(ip.into()),
        ..Dial::to(front)
    };
    assert_eq!(dial.end_without_a_byte(SOON).await, End::Reset);
}

fn assert_client(line: &Value, ip: &str) {
    let client: Option<SocketAddr> = line["client"].as_str().and_then(|client| client.parse().ok());
    assert_eq!(
        client.map(|client| client.ip().to_string()).as_deref(),
        Some(ip),
        "{line}"
    );
}

/// A listener and a pool of the same name, and lines of YAML for the pool.
fn pair(name: &str, pool: &str) -> (Address, String, String) {
    let bind = free_v4();
    let listener = format!("  {name}: {{ bind: \"{bind}\", protocol: tcp, pool: {name} }}\n");
    (bind, listener, format!("  {name}: {{ {pool} }}\n"))
}

/// A process with a listener for each way to end.
struct Stage {
    ringway: Ringway,
    file: PathBuf,
    exchange: Backend,
    echo: Backend,
    resetting: Backend,
    /// Where nobody listens.
    nobody: Address,
    /// Listeners `exchange`, `echo`, `resetting`, `refusing`, `nameless`, `full`.
    fronts: [Address; 6],
    _files: (Dir, Dns),
}

impl Stage {
    fn start() -> Self {
        let (dir, dns) = (Dir::new(), Dns::start());
        let file = dir.path("sessions.log");
        let [exchange, echo, resetting] =
            [Behaviour::Exchange, Behaviour::Echo, Behaviour::ResetAfterOneByte].map(Backend::start);
        let nobody = free_v4();
        let pairs = [
            pair("exchange", &format!("backends: [\"{}\"]", exchange.address)),
            pair("echo", &format!("backends: [\"{}\"]", echo.address)),
            pair("resetting", &format!("backends: [\"{}\"]", resetting.address)),
            pair("refusing", &format!("passive: off, backends: [\"{nobody}\"]")),
            pair(
                "nameless",
                &format!(
                    "resolve: {{ servers: \"{}\" }}, backends: [\"missing.test:80\"]",
                    dns.address
                ),
            ),
            pair(
                "full",
                &format!(
                    "queue: {{ max: 10, timeout: 200ms }}, backends: [{{ address: \"{}\", max_connections: 1 }}]",
                    echo.address
                ),
            ),
        ];
        let listeners: String = pairs.iter().map(|pair| pair.1.as_str()).collect();
        let pools: String = pairs.iter().map(|pair| pair.2.as_str()).collect();
        let setup = Setup::verbatim(&format!("listeners:\n{listeners}pools:\n{pools}"));
        let log = format!("\"{}\"", file.display());
        Self {
            ringway: Ringway::start(&setup.top("session_log", &log)),
            file,
            exchange,
            echo,
            resetting,
            nobody,
            fronts: pairs.map(|pair| pair.0),
            _files: (dir, dns),
        }
    }

    /// Lines 0 to 2: sessions that had a backend.
    async fn relayed(&self) {
        let [at_exchange, at_echo, at_resetting, ..] = &self.fronts;
        // The plan of an exchange is 32 bytes.
        let plan = Plan {
            stream: 1,
            up: 123_456,
            down: 654_321,
            order: Order::Together,
            pauses: false,
        };
        let wire = connect(at_exchange).await;
        let client = client_of(&wire);
        plan.run_client(wire).await.expect("exact");
        let line = next_line(&self.file, 0);
        let expected = json!({
            "event": "session", "listener": "exchange", "client": client, "pool": "exchange",
            "backend": self.exchange.address.to_string(), "tries": 1, "bytes_in": 123_488, "bytes_out": 654_321,
            "reason": "finished", "by": "nobody", "text": "both sides ended in order",
        });
        assert_fields(&line, &expected);
        let [connect_ms, duration_ms] = ["connect_ms", "duration_ms"].map(|key| line[key].as_f64().expect("a number"));
        assert!(connect_ms > 0.0 && connect_ms <= duration_ms, "{line}");

        let mut wire = connect(at_echo).await;
        let client = client_of(&wire);
        wire.ping(b"hello", SOON).await.expect("it echoes");
        wire.reset();
        let expected = json!({
            "listener": "echo", "client": client, "pool": "echo", "backend": self.echo.address.to_string(), "tries": 1,
            "bytes_in": 5, "bytes_out": 5, "reason": "client_reset", "by": "client",
        });
        assert_fields(&next_line(&self.file, 1), &expected);

        let mut wire = connect(at_resetting).await;
        let client = client_of(&wire);
        wire.ping(b"1", SOON).await.expect("the first byte comes back");
        wire.write_all(b"2").await.expect("it still listens");
        assert_eq!(wire.read_to_end_of(SOON).await, (0, End::Reset));
        let expected = json!({
            "listener": "resetting", "client": client, "backend": self.resetting.address.to_string(), "tries": 1,
            "bytes_in": 2, "bytes_out": 1, "reason": "backend_reset", "by": "backend",
        });
        assert_fields(&next_line(&self.file, 2), &expected);
    }

    /// Lines 3 to 6: sessions that had none, and the one because of which the last of them waited.
    async fn not_served(&self) {
        let [.., at_refusing, at_nameless, at_full] = &self.fronts;
        reset_from([127, 8, 0, 1], at_refusing).await;
        let line = next_line(&self.file, 3);
        assert_client(&line, "127.8.0.1");
        let expected = json!({
            "listener": "refusing", "pool": "refusing", "backend": self.nobody.to_string(), "tries": 1,
            "connect_ms": null, "bytes_in": 0, "bytes_out": 0, "reason": "connect_failed", "by": "backend",
        });
        assert_fields(&line, &expected);

        reset_from([127, 8, 0, 2], at_nameless).await;
        let line = next_line(&self.file, 4);
        assert_client(&line, "127.8.0.2");
        let expected = json!({
            "listener": "nameless", "pool": "nameless", "backend": null, "tries": 0, "connect_ms": null, "bytes_in": 0,
            "bytes_out": 0, "reason": "no_backend", "by": "backend",
        });
        assert_fields(&line, &expected);

        let mut first = connect(at_full).await;
        first.ping(b"first", SOON).await.expect("one is served");
        let mut second = connect(at_full).await;
        let client = client_of(&second);
        assert_eq!(second.read_to_end_of(SOON).await, (0, End::Reset));
        let line = next_line(&self.file, 5);
        let expected = json!({
            "listener": "full", "client": client, "pool": "full", "backend": null, "connect_ms": null, "bytes_in": 0,
            "bytes_out": 0, "reason": "queue_timeout", "by": "backend",
        });
        assert_fields(&line, &expected);
        let waited = line["duration_ms"].as_f64().expect("a number");
        assert!((200.0..1_000.0).contains(&waited), "{line}");
        drop(first);
        let expected = json!({ "listener": "full", "reason": "finished", "bytes_in": 5, "bytes_out": 5 });
        assert_fields(&next_line(&self.file, 6), &expected);
    }
}

#[test]
fn every_session_has_one_line_with_the_right_fields() {
    let _turn = Turn::start(
        "every_session_has_one_line_with_the_right_fields",
        Duration::from_secs(60),
    );
    let stage = Stage::start();
    run(None, async {
        stage.relayed().await;
        stage.not_served().await;
    });
    assert_eq!(stage.ringway.count("ringway_session_log_dropped_total", &[]), 0);
    stage.ringway.finish();
}

#[test]
fn no_line_is_lost_when_the_file_is_moved_away() {
    // Twice 30 s of churn at full figures.
    let _turn = Turn::start("no_line_is_lost_when_the_file_is_moved_away", Duration::from_secs(120));
    let dir = Dir::new();
    let (file, moved) = (dir.path("sessions.log"), dir.path("sessions.log.1"));
    let backend = Backend::start(Behaviour::Echo);
    let (setup, front) = Setup::simple("round_robin", &[&backend.address]);
    let ringway = Ringway::start(&setup.top("session_log", &format!("\"{}\"", file.display())));
    // It is looked at once a second.
    let count = figure(1_500, 15_000);
    run(None, async {
        let first = churn(&Dial::to(&front), count, 500).await;
        std::fs::rename(&file, &moved).expect("the file is there");
        let second = churn(&Dial::to(&front), count, 500).await;
        assert_eq!(
            (first.errors, second.errors),
            (Vec::new(), Vec::new()),
            "connections that failed"
        );
    });
    let all = usize::try_from(2 * count).expect("it fits");
    let written = || [&moved, &file].map(|file| lines(file).len());
    let found = wait_for(SOON, || (written().iter().sum::<usize>() == all).then_some(()));
    let [before, after] = written();
    assert!(found.is_some(), "{before} lines and {after}, not {all} in all");
    assert!(
        before >= all / 2 - 100 && after > 0,
        "{before} lines before, {after} after"
    );
    assert_eq!(ringway.count("ringway_session_log_dropped_total", &[]), 0);
    ringway.finish();
}
