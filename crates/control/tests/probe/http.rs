//! The HTTP probe.

use super::peers::{
    ask, ask_named, assert_passed, backend, check, check_within, drip, failed, fails_after, heard, refusing, reset,
    stay_silent, told, unix_backend, until_the_end,
};
use ringway_control::probe::{ProbeError, Prober};
use ringway_core::model::{Address, HealthCheck, Probe, ProbeHttp};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) fn http() -> ProbeHttp {
    ProbeHttp {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        status: vec![(200, 399)],
        body: None,
        tls: None,
    }
}

fn containing(text: &str) -> HealthCheck {
    check(Probe::Http(ProbeHttp {
        body: Some(text.into()),
        ..http()
    }))
}

/// The head of a request.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(bytes).expect("text")
}

/// Reads the head of the request, answers, and closes in order.
pub(crate) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: Vec<u8>) -> String {
    let head = head(&mut stream).await;
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    head
}

/// A backend that answers everything alike, and the heads that it was sent.
async fn answering(bytes: impl Into<Vec<u8>>) -> (Address, UnboundedReceiver<String>) {
    let (tell, heads) = told();
    let bytes = bytes.into();
    let address = backend(move |stream| {
        let (tell, bytes) = (tell.clone(), bytes.clone());
        async move { drop(tell.send(answer(stream, bytes).await)) }
    });
    (address.await, heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";

#[tokio::test]
async fn the_request_is_the_one_that_was_asked_for() {
    let (address, mut heads) = answering(OK).await;
    let plain = check(Probe::Http(http()));
    assert_passed(&ask(&plain, &address).await, "HTTP status 200 in ");
    assert_eq!(
        heard(&mut heads).await,
        format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ringway/{}\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_passed(
        &ask_named(&plain, &address, Some("db.example")).await,
        "HTTP status 200 in ",
    );
    let Address::Inet(inet) = &address else { unreachable!() };
    let host = format!("\r\nHost: db.example:{}\r\n", inet.port());
    assert!(heard(&mut heads).await.contains(&host));

    let other = check(Probe::Http(ProbeHttp {
        method: "OPTIONS".into(),
        path: "/health/ready?deep=1".into(),
        host: Some("web.example".into()),
        ..http()
    }));
    assert_passed(
        &ask_named(&other, &address, Some("db.example")).await,
        "HTTP status 200 in ",
    );
    let head = heard(&mut heads).await;
    assert!(
        head.starts_with("OPTIONS /health/ready?deep=1 HTTP/1.1\r\nHost: web.example\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn the_status_decides() {
    for (status, ranges, expected) in [
        (200, vec![(200, 399)], Ok("HTTP status 200 in ")),
        (399, vec![(200, 399)], Ok("HTTP status 399 in ")),
        (400, vec![(200, 399)], Err("HTTP status 400, expected 200-399")),
        (200, vec![(201, 299)], Err("HTTP status 200, expected 201-299")),
        (
            503,
            vec![(200, 204), (404, 404)],
            Err("HTTP status 503, expected 200-204, 404"),
        ),
        (404, vec![(200, 204), (404, 404)], Ok("HTTP status 404 in ")),
    ] {
        let (address, _heads) = answering(format!("HTTP/1.1 {status} Words\r\nContent-Length: 0\r\n\r\n")).await;
        let probe = Probe::Http(ProbeHttp {
            status: ranges,
            ..http()
        });
        let result = ask(&check(probe), &address).await;
        match expected {
            Ok(words) => assert_passed(&result, words),
            Err(words) => assert_eq!(result, failed(words)),
        }
    }
}

#[tokio::test]
async fn an_early_hint_is_not_the_answer() {
    let (address, _heads) = answering(format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}")).await;
    assert_passed(&ask(&check(Probe::Http(http())), &address).await, "HTTP status 200 in ");
}

#[tokio::test]
async fn the_body_must_contain_the_text_however_it_is_framed() {
    for bytes in [
        OK,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nnot yet ready",
        "HTTP/1.0 200 OK\r\n\r\nready",
    ] {
        let (address, _heads) = answering(bytes).await;
        assert_passed(&ask(&containing("ready"), &address).await, "HTTP status 200 in ");
        assert_eq!(
            ask(&containing("Ready\n"), &address).await,
            failed(r#"HTTP status 200, but the body does not contain "Ready\n""#)
        );
    }
}

#[tokio::test]
async fn only_the_first_64_kib_of_the_body_are_looked_at() {
    let body = |before: usize| [vec![b'a'; before], b"ready".to_vec(), vec![b'a'; 200_000]].concat();
    let answer = |before| [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), body(before)].concat();
    let (within, _heads) = answering(answer(65_536 - 5)).await;
    assert_passed(&ask(&containing("ready"), &within).await, "HTTP status 200 in ");
    let (beyond, _heads) = answering(answer(65_536 - 4)).await;
    assert_eq!(
        ask(&containing("ready"), &beyond).await,
        failed(r#"HTTP status 200, but the first 64 KiB of the body do not contain "ready""#)
    );
}

#[tokio::test]
async fn head_has_no_body() {
    let (address, mut heads) = answering("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n").await;
    let head = ProbeHttp {
        method: "HEAD".into(),
        ..http()
    };
    assert_passed(
        &ask(&check(Probe::Http(head.clone())), &address).await,
        "HTTP status 200 in ",
    );
    assert!(heard(&mut heads).await.starts_with("HEAD / HTTP/1.1\r\n"));
    let with_body = ProbeHttp {
        body: Some("ready".into()),
        ..head
    };
    assert_eq!(
        Prober::new(&check(Probe::Http(with_body)), None).expect_err("cannot be"),
        "the answer to a HEAD request has no body that could contain anything; write GET"
    );
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    let (late, _heads) = answering("SSH-2.0-OpenSSH_9.9\r\n").await;
    assert_eq!(
        ask(&check(Probe::Http(http())), &late).await,
        failed("the answer is not HTTP")
    );
    // Its bytes come before the request or after it, as it happens.
    let early = backend(|mut stream| async move {
        drop(stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await);
        stay_silent(stream).await;
    });
    let early = early.await;
    for _ in 0..20 {
        let result = ask(&check(Probe::Http(http())), &early).await;
        let Err(ProbeError::Failed(words)) = result else {
            panic!("{result:?}")
        };
        assert!(words.starts_with("the answer is not HTTP"), "{words}");
    }
    let (chunk, _heads) = answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    let result = ask(&containing("ready"), &chunk).await;
    let Err(ProbeError::Failed(words)) = result else {
        panic!("{result:?}")
    };
    assert!(words.starts_with("HTTP status 200, but "), "{words}");
}

#[tokio::test]
async fn long_heads_are_told() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(101));
    for bytes in [long, many] {
        let (address, _heads) = answering(bytes).await;
        assert_eq!(
            ask(&check(Probe::Http(http())), &address).await,
            failed("the head of the answer is longer than 16 KiB or has more than 100 headers")
        );
    }
    let allowed = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(100));
    let (address, _heads) = answering(allowed).await;
    assert_passed(&ask(&check(Probe::Http(http())), &address).await, "HTTP status 200 in ");
}

#[tokio::test]
async fn early_ends_are_told() {
    for bytes in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let (address, _heads) = answering(bytes).await;
        assert_eq!(
            ask(&check(Probe::Http(http())), &address).await,
            failed("ended by the backend before the answer was complete"),
            "{bytes}"
        );
    }
    let at_once = backend(|stream| async move { drop(stream) }).await;
    assert!(ask(&check(Probe::Http(http())), &at_once).await.is_err());
    let (in_the_body, _heads) = answering("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nrea").await;
    assert_eq!(
        ask(&containing("ready"), &in_the_body).await,
        failed("HTTP status 200, but ended by the backend before the answer was complete")
    );
}

#[tokio::test]
async fn a_reset_is_told() {
    let address = backend(|mut stream| async move {
        head(&mut stream).await;
        reset(&stream);
    });
    assert_eq!(
        ask(&check(Probe::Http(http())), &address.await).await,
        failed("reset by the backend before the answer was complete")
    );
}

#[tokio::test]
async fn silence_and_single_bytes_fail_on_time() {
    let check = check_within(
        Probe::Http(ProbeHttp {
            body: Some("ready".into()),
            ..http()
        }),
        300,
    );
    let silent = backend(stay_silent).await;
    fails_after(300, &check, &silent, "no answer within 300ms").await;
    let head_drips = backend(|mut stream| async move {
        head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await);
        drip(stream, b'x').await;
    });
    fails_after(300, &check, &head_drips.await, "no answer within 300ms").await;
    let body_drips = backend(|mut stream| async move {
        head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
        drip(stream, b'x').await;
    });
    let words = "HTTP status 200, but no complete body within 300ms";
    fails_after(300, &check, &body_drips.await, words).await;
}

#[tokio::test]
async fn the_backend_sees_an_orderly_end_even_of_a_body_that_nobody_asked_for() {
    let (tell, mut ends) = told();
    let address = backend(move |mut stream| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n";
            drop(stream.write_all(&[&head[..], &[b'a'; 40_000]].concat()).await);
            drop(tell.send(until_the_end(&mut stream).await));
        }
    });
    assert_passed(
        &ask(&check(Probe::Http(http())), &address.await).await,
        "HTTP status 200 in ",
    );
    assert_eq!(heard(&mut ends).await, Ok(vec![]));
}

#[tokio::test]
async fn an_endless_body_that_nobody_asked_for_does_not_keep_the_probe() {
    let address = backend(|mut stream| async move {
        head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
        drip(stream, b'x').await;
    });
    let address = address.await;
    let started = std::time::Instant::now();
    assert_passed(&ask(&check(Probe::Http(http())), &address).await, "HTTP status 200 in ");
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// The port of Patroni's REST API stands beside PostgreSQL's own and says who leads.
#[tokio::test]
async fn another_port_tells_which_backend_leads() {
    let (_held, postgres) = refusing();
    let (leader, _heads) = answering("HTTP/1.0 200 OK\r\n\r\n{\"role\": \"primary\"}").await;
    let (replica, _heads) = answering("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"role\": \"replica\"}").await;
    for (api, expected) in [(leader, None), (replica, Some("HTTP status 503, expected 200"))] {
        let Address::Inet(inet) = api else { unreachable!() };
        let check = HealthCheck {
            port: Some(inet.port()),
            ..check(Probe::Http(ProbeHttp {
                path: "/primary".into(),
                status: vec![(200, 200)],
                ..http()
            }))
        };
        let result = ask(&check, &postgres).await;
        match expected {
            None => assert_passed(&result, "HTTP status 200 in "),
            Some(words) => assert_eq!(result, failed(words)),
        }
    }
}

#[tokio::test]
async fn unix_sockets_are_asked_too() {
    let (tell, mut heads) = told();
    let address = unix_backend(move |stream| {
        let tell = tell.clone();
        async move { drop(tell.send(answer(stream, OK.into()).await)) }
    });
    assert_passed(&ask(&containing("ready"), &address).await, "HTTP status 200 in ");
    assert!(heard(&mut heads).await.contains("\r\nHost: localhost\r\n"));
}

#[test]
fn requests_that_cannot_be_sent_are_refused_beforehand() {
    let refused = |probe: ProbeHttp| Prober::new(&check(Probe::Http(probe)), None).expect_err("cannot be");
    assert_eq!(
        refused(ProbeHttp {
            path: "/a b".into(),
            ..http()
        }),
        "\"/a b\" cannot be sent as an HTTP path; write one that begins with / and has %20 in place of spaces"
    );
    assert_eq!(
        refused(ProbeHttp {
            host: Some("a\r\nX: b".into()),
            ..http()
        }),
        "\"a\\r\\nX: b\" cannot be sent as the header Host; write a name"
    );
    assert_eq!(
        refused(ProbeHttp {
            method: "G T".into(),
            ..http()
        }),
        "\"G T\" is no HTTP method; write GET, HEAD or OPTIONS"
    );
}
