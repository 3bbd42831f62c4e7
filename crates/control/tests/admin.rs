//! The admin port over real sockets: what it answers, and that nobody can hurt it.

mod common;

use common::{busy, live};
use ringway_control::admin::{Admin, CONNECTIONS_MAX};
use ringway_control::readiness::{Phase, Readiness};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn start() -> (SocketAddr, Readiness) {
    let admin = Admin::bind(([127, 0, 0, 1], 0).into()).expect("binds");
    let address = admin.address().expect("is bound");
    let readiness = Readiness::default();
    tokio::spawn(admin.serve(live(busy(), readiness.clone())));
    (address, readiness)
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("connects");
    client.write_all(bytes).await.expect("sends");
    client
}

/// Everything until the end of the connection, however it ends.
async fn rest(mut client: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(30), client.read_to_end(&mut answer))
        .await
        .expect("ends in time");
    String::from_utf8(answer).expect("UTF-8")
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n");
    let answer = rest(send(address, request.as_bytes()).await).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("has a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_served_with_their_content_type() {
    let (address, _) = start();
    let (status, head, body) = ask(address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    assert_eq!(body, ringway_control::metrics::page(&busy()));
}

#[tokio::test]
async fn readiness_follows_the_phase_and_liveness_does_not() {
    let (address, readiness) = start();
    for (phase, status, word) in [
        (Phase::Starting, 503, "starting"),
        (Phase::Ready, 200, "ready"),
        (Phase::Draining, 503, "draining"),
    ] {
        readiness.enter(phase);
        for path in ["/health/ready", "/health/ready?verbose"] {
            let answer = ask(address, "GET", path).await;
            let body = format!("{{\"status\":\"{word}\"}}");
            assert_eq!((answer.0, answer.2), (status, body), "{path}");
        }
        let answer = ask(address, "GET", "/health").await;
        let body: serde_json::Value = serde_json::from_str(&answer.2).expect("JSON");
        assert_eq!((answer.0, body["status"].as_str()), (status, Some(word)));
        assert_eq!(body["pools"]["postgres"]["usable"], 2);
        let live = ask(address, "GET", "/health/live").await;
        assert_eq!((live.0, &*live.2), (200, "{\"status\":\"alive\"}"));
    }
}

#[tokio::test]
async fn the_status_names_what_is_configured_and_counted() {
    let (address, readiness) = start();
    readiness.enter(Phase::Ready);
    let (code, head, body) = ask(address, "GET", "/api/v1/status").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let status: ringway_control::status::Status = serde_json::from_str(&body).expect("a status");
    assert_eq!(status.phase, "ready");
    let listener = &status.listeners[0];
    // 4 by one worker, 40 by the other; 1 and 10 are open.
    assert_eq!(
        (&*listener.name, listener.connections_total, listener.connections),
        ("postgres", 44, 11)
    );
    assert_eq!(listener.ended.get("finished"), Some(&22));
    let backend = &status.pools[0].backends[1];
    assert_eq!((&*backend.label, &*backend.condition), ("10.0.0.11:5433", "up"));
    assert_eq!(
        (backend.connections, backend.connections_total, backend.connect_errors),
        (1, 3, 6)
    );
}

#[tokio::test]
async fn anything_else_is_404_and_other_methods_405_with_a_sentence() {
    let (address, _) = start();
    for path in ["/", "/metrics/", "/health/../metrics", "/%2e%2e/etc/passwd", "/reload"] {
        let (status, _, body) = ask(address, "GET", path).await;
        assert_eq!(status, 404, "{path}");
        assert!(body.contains("/metrics") && body.ends_with('\n'), "{body}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let (status, head, body) = ask(address, method, "/metrics").await;
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get,head"), "{head}");
        assert_eq!(body, "this port only reads: use GET or HEAD\n");
    }
    // A body is refused without waiting for it.
    let unfinished = b"POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 10000000\r\n\r\n{";
    let answer = timeout(Duration::from_secs(2), rest(send(address, unfinished).await))
        .await
        .expect("at once");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let (status, _, body) = ask(address, "HEAD", "/metrics").await;
    assert_eq!((status, &*body), (200, ""));
}

#[tokio::test]
async fn one_request_per_connection() {
    let (address, _) = start();
    let request = "GET /health/live HTTP/1.1\r\nHost: admin\r\n\r\n".repeat(3);
    let answer = rest(send(address, request.as_bytes()).await).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn garbage_and_oversized_heads_end_the_connection_and_nothing_else() {
    let (address, _) = start();
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: admin\r\n\r\n", "x".repeat(64 * 1024));
    let many_headers = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    let every_byte: Vec<u8> = (0..=255).collect();
    let bad: [&[u8]; 5] = [
        b"\r\n\r\n\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0",
        &every_byte,
        long_path.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in bad {
        let mut client = TcpStream::connect(address).await.expect("connects");
        let _ = client.write_all(bytes).await; // may be cut off while it still sends
        let _ = client.shutdown().await;
        let answer = rest(client).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(ask(address, "GET", "/health/live").await.0, 200);
    }
}

#[tokio::test]
async fn silent_clients_make_room_for_the_next_one() {
    let (address, _) = start();
    let mut silent = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        silent.push(send(address, b"GET /metrics HTT").await);
    }
    assert_eq!(ask(address, "GET", "/health/live").await.0, 200);
    // The oldest were closed without an answer, long before any time limit.
    let oldest = timeout(Duration::from_secs(1), rest(silent.remove(0)))
        .await
        .expect("was closed");
    assert_eq!(oldest, "");
}

/// Time is paused: it jumps to the next timer as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_client_that_drips_its_head_is_cut_at_the_same_moment_as_a_silent_one() {
    let (address, _) = start();
    let start = tokio::time::Instant::now();
    let mut client = TcpStream::connect(address).await.expect("connects");
    let mut ended_at = None;
    for _ in 0..200 {
        let dripped = client.write_all(b"G").await;
        let mut byte = [0];
        let read = timeout(Duration::from_millis(100), client.read(&mut byte)).await;
        if dripped.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
            ended_at = Some(start.elapsed());
            break;
        }
    }
    let ended_at = ended_at.expect("was cut");
    assert!(
        (2_900..=3_300).contains(&ended_at.as_millis()),
        "cut after {ended_at:?}"
    );
}

#[tokio::test]
async fn a_port_in_use_is_a_sentence() {
    let (address, _) = start();
    let sentence = Admin::bind(address).expect_err("in use");
    assert!(
        sentence.starts_with(&format!("admin: cannot listen on {address}: ")),
        "{sentence}"
    );
    assert!(
        sentence.contains("another process listens there") && sentence.contains("--admin"),
        "{sentence}"
    );
    let foreign = Admin::bind(([192, 0, 2, 1], 9900).into()).expect_err("RFC 5737: nobody's address");
    assert!(foreign.contains("does not have that address"), "{foreign}");
}
