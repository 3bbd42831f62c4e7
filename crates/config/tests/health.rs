//! Health checks and what belongs to them, from text to the model; expected values are written out, not taken from the
//! code.

use ringway_config::{Source, parse};
use ringway_core::model::*;
use std::time::Duration;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pool with these keys, whose backends make none of them useless.
fn pool_with(keys: &str) -> Pool {
    let text = format!(
        "listeners: {{ web: {{ bind: 0.0.0.0:80, protocol: tcp, pool: web }} }}\npools:\n  web:\n{keys}\n    \
         backends: [10.0.0.1:80, {{ address: 10.0.0.2:80, max_connections: 9 }}, {{ address: db.example.com:80, backup: true }}]\n"
    );
    let source = Source {
        name: "test.yaml".to_owned(),
        text: text.clone(),
    };
    let checked = parse(&[source], &|_| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(checked.warnings.to_string(), "", "{text}");
    checked.model.pools[0].clone()
}

fn health_check(keys: &str) -> HealthCheck {
    pool_with(&format!("    health_check: {keys}"))
        .health
        .check
        .expect("a health check")
}

#[test]
fn a_protocol_alone_is_a_health_check_with_defaults() {
    let expected = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: secs(5),
        timeout: secs(2),
        fails: 3,
        passes: 2,
    };
    assert_eq!(health_check("tcp"), expected);
    assert_eq!(health_check("{}"), expected);
    assert_eq!(health_check("{ type: tcp }"), expected);
    assert_eq!(pool_with("    health_check: off").health.check, None);
    assert_eq!(
        health_check("{ inter: 1s, fall: 4, rise: 5 }"),
        HealthCheck {
            interval: secs(1),
            fails: 4,
            passes: 5,
            ..expected.clone()
        }
    );
    assert_eq!(
        health_check("{ unhealthy_threshold: 6, healthy_threshold: 7 }"),
        HealthCheck {
            fails: 6,
            passes: 7,
            ..expected
        }
    );
}

#[test]
fn http_checks_say_what_is_asked_and_which_answer_is_well() {
    let plain = ProbeHttp {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        status: vec![(200, 399)],
        body: None,
        tls: None,
    };
    assert_eq!(health_check("http").probe, Probe::Http(plain.clone()));
    assert_eq!(
        health_check("https").probe,
        Probe::Http(ProbeHttp {
            tls: Some(ProbeTls {
                server_name: None,
                verify: false,
                authorities: None
            }),
            ..plain
        })
    );
    let written = health_check(
        "{ protocol: https, method: OPTIONS, path: '/health?deep=1', host: 'www.example.com:8443', \
         status: [204, 300-307], body: '\"ok\"', tls: { server_name: WWW.example.com, verify: true, ca: /etc/ca.pem } }",
    );
    let expected = ProbeHttp {
        method: "OPTIONS".into(),
        path: "/health?deep=1".into(),
        host: Some("www.example.com:8443".into()),
        status: vec![(204, 204), (300, 307)],
        body: Some("\"ok\"".into()),
        tls: Some(ProbeTls {
            server_name: Some("www.example.com".into()),
            verify: true,
            authorities: Some("/etc/ca.pem".into()),
        }),
    };
    assert_eq!(written.probe, Probe::Http(expected));
    let one = health_check("{ protocol: http, status: 200, method: HEAD }");
    assert!(matches!(one.probe, Probe::Http(http) if http.status == [(200, 200)] && &*http.method == "HEAD"));
}

#[test]
fn bytes_to_send_and_to_expect_are_decoded_once() {
    let exchange = |keys: &str| match health_check(keys).probe {
        Probe::Exchange(exchange) => exchange,
        other => panic!("{other:?}"),
    };
    // Single quotes leave escapes to Ringway, double quotes resolve them before.
    for text in [r"'PING\r\n'", r#""PING\r\n""#, r"PING\x0d\x0a", r#""PING\\r\\n""#] {
        let probe = exchange(&format!("{{ protocol: send_expect, send: {text}, expect: +PONG }}"));
        assert_eq!(
            (&*probe.send, &*probe.expect),
            (b"PING\r\n".as_slice(), b"+PONG".as_slice()),
            "{text}"
        );
        assert_eq!(probe.tls, None);
    }
    let binary = exchange(r"{ protocol: send_expect, expect: '\x00\xff\\', tls: true }");
    assert_eq!(
        (&*binary.send, &*binary.expect),
        (b"".as_slice(), b"\x00\xff\\".as_slice())
    );
    assert_eq!(binary.tls, Some(ProbeTls::default()));
}

#[test]
fn what_can_be_switched_off() {
    let pool = pool_with(
        "    passive: off\n    slow_start: off\n    max_lifetime: off\n    queue: off\n    hash: { max_load: off }\n    balance: ip_hash",
    );
    assert_eq!(pool.health, Health::default());
    assert_eq!(
        (pool.sessions.max_lifetime, pool.queue, pool.hash.max_load),
        (None, None, None)
    );
    let pool = pool_with("    slow_start: 30s\n    queue: { max: 1 }\n    passive: { max_ejected: 20 }");
    assert_eq!(pool.health.slow_start, Some(secs(30)));
    assert_eq!(
        pool.queue,
        Some(Queue {
            max: 1,
            timeout: secs(5)
        })
    );
    let expected = Passive {
        fails: 1,
        eject: secs(1),
        max_ejected: 20,
    };
    assert_eq!(pool.health.passive, Some(expected));
}
