//! Raw configuration -> model: which keys of a health check go together, and what follows from them.

use crate::limits::{
    EJECT, HEALTH_FAILS_DEFAULT, HEALTH_INTERVAL, HEALTH_PASSES_DEFAULT, HEALTH_TIMEOUT, MAX_EJECTED_DEFAULT,
    PASSIVE_FAILS_DEFAULT, STATUS_DEFAULT,
};
use crate::problem::Problems;
use crate::raw::{self, Field, ProbeProtocol};
use crate::source::{At, Span};
use ringway_core::model::{
    Address, Health, HealthCheck, Passive, Probe, ProbeDatagram, ProbeExchange, ProbeHttp, ProbeTls, Target,
};

/// Everything that can be said about a pool's health check.
pub(super) fn check(pool: &raw::Pool, problems: &mut Problems) {
    let Some(At {
        value: Some(check),
        span,
    }) = &pool.health_check.value
    else {
        return;
    };
    // What goes together depends on what was meant.
    if !check.protocol.is_unusable() {
        belongs(check, problems);
        exchange(check, *span, problems);
    }
    if check.method.or("GET") == "HEAD"
        && let Some(key) = check.body.key
    {
        let message = "health_check.body looks for a text, but the answer to HEAD has none";
        problems.error(key, message, "use method: GET");
    }
    tls(check, problems);
    let is_socket = |backend: &&raw::Backend| matches!(backend.target.value, Target::Address(Address::Unix(_)));
    if let (Some(key), Some(socket)) = (check.port.key, pool.backends().find(is_socket)) {
        let message = format!("health_check.port has no effect for backend {}", socket.label);
        problems.warning(key, message, "a UNIX socket has no port");
    }
}

/// Keys of one protocol have no effect with another.
fn belongs(check: &raw::HealthCheck, problems: &mut Problems) {
    use ProbeProtocol::{Http, Https, SendExpect, Tcp, Tls, Udp};
    let protocol = check.protocol.or(Tcp);
    let http: &[ProbeProtocol] = &[Http, Https];
    let keys = [
        ("method", written(&check.method), http, "http"),
        ("path", written(&check.path), http, "http"),
        ("host", written(&check.host), http, "http"),
        ("status", written(&check.status), http, "http"),
        ("body", written(&check.body), http, "http"),
        ("send", written(&check.send), &[SendExpect, Udp], "send_expect or udp"),
        (
            "expect",
            written(&check.expect),
            &[SendExpect, Udp],
            "send_expect or udp",
        ),
        (
            "tls",
            written(&check.tls),
            &[Https, Tls, SendExpect],
            tls_with(protocol),
        ),
    ];
    for (name, key, allowed, with) in keys {
        let Some(key) = key.filter(|_| !allowed.contains(&protocol)) else {
            continue;
        };
        let by_default = if check.protocol.is_absent() {
            ", which is the default"
        } else {
            ""
        };
        let message = format!(
            "health_check.{name} has no effect with protocol: {}{by_default}",
            protocol.name()
        );
        problems.error(key, message, format!("write it with protocol: {with}"));
    }
}

/// Where a key stands whose value is fine; of others something was said already.
fn written<T>(field: &Field<T>) -> Option<Span> {
    field.value.as_ref().and(field.key)
}

/// The protocol that is meant by somebody who adds TLS.
const fn tls_with(protocol: ProbeProtocol) -> &'static str {
    match protocol {
        ProbeProtocol::Http | ProbeProtocol::Https => "https",
        ProbeProtocol::Tcp | ProbeProtocol::Tls => "tls",
        ProbeProtocol::SendExpect => "send_expect",
        // DTLS is not spoken.
        ProbeProtocol::Udp | ProbeProtocol::Dns | ProbeProtocol::A2s | ProbeProtocol::Quake3 => "tls",
    }
}

/// An exchange of nothing for nothing would not ask anything.
fn exchange(check: &raw::HealthCheck, whole: Span, problems: &mut Problems) {
    let says_nothing = |field: &Field<Vec<u8>>| match &field.value {
        Some(at) => at.value.is_empty(),
        None => field.is_absent(),
    };
    if check.protocol.or(ProbeProtocol::Tcp) == ProbeProtocol::SendExpect
        && says_nothing(&check.send)
        && says_nothing(&check.expect)
    {
        let at = check.protocol.key.unwrap_or(whole);
        let help = "add what is sent, what is expected, or both, such as send: 'PING\\r\\n' and expect: '+PONG'";
        problems.error(at, "protocol: send_expect needs send or expect", help);
    }
    // Nobody answers what was not sent.
    if check.protocol.or(ProbeProtocol::Tcp) == ProbeProtocol::Udp && says_nothing(&check.send) {
        let at = check.protocol.key.unwrap_or(whole);
        let help = "add what is sent, such as send: '\\xff\\xff\\xff\\xffgetinfo', or use protocol: dns, a2s or quake3";
        problems.error(at, "protocol: udp needs send", help);
    }
}

fn tls(check: &raw::HealthCheck, problems: &mut Problems) {
    let Some(At { value: tls, .. }) = &check.tls.value else {
        return;
    };
    if let Some(key) = tls.authorities.key.filter(|_| !tls.verify.or(false))
        && !tls.verify.is_unusable()
    {
        let message = "health_check.tls.ca has no effect without verify: true";
        problems.warning(key, message, "add verify: true, or remove it");
    }
}

/// Health as it is, with defaults for what is absent.
pub(super) fn model(pool: &raw::Pool) -> Health {
    let check = pool.health_check.value.as_ref().and_then(|at| at.value.as_ref());
    let standard = raw::Passive::default();
    let passive = match &pool.passive.value {
        Some(at) => at.value.as_ref(),
        None => Some(&standard),
    };
    Health {
        check: check.map(model_check),
        passive: passive.map(|raw| Passive {
            fails: raw.fails.or(PASSIVE_FAILS_DEFAULT),
            eject: raw.eject.or(EJECT.default),
            max_ejected: raw.max_ejected.or(MAX_EJECTED_DEFAULT),
        }),
        silence: pool.silence.or(None),
        slow_start: pool.slow_start.or(None),
        fail_open: pool.fail_open.or(false),
    }
}

fn model_check(raw: &raw::HealthCheck) -> HealthCheck {
    HealthCheck {
        probe: probe(raw),
        port: raw.port.value.as_ref().map(|at| at.value),
        interval: raw.interval.or(HEALTH_INTERVAL.default),
        timeout: raw.timeout.or(HEALTH_TIMEOUT.default),
        fails: raw.fails.or(HEALTH_FAILS_DEFAULT),
        passes: raw.passes.or(HEALTH_PASSES_DEFAULT),
    }
}

fn probe(raw: &raw::HealthCheck) -> Probe {
    let tls = || model_tls(raw.tls.value.as_ref().map(|at| &at.value));
    let bytes = |field: &Field<Vec<u8>>| field.value.as_ref().map_or_else(Vec::new, |at| at.value.clone()).into();
    match raw.protocol.or(ProbeProtocol::Tcp) {
        ProbeProtocol::Tcp => Probe::Tcp,
        ProbeProtocol::Tls => Probe::Tls(tls()),
        ProbeProtocol::Http => Probe::Http(http(raw, None)),
        ProbeProtocol::Https => Probe::Http(http(raw, Some(tls()))),
        ProbeProtocol::Udp => Probe::Datagram(ProbeDatagram {
            send: bytes(&raw.send),
            expect: bytes(&raw.expect),
            is_dns: false,
        }),
        ProbeProtocol::Dns => datagram(DNS_QUESTION, b"", true),
        ProbeProtocol::A2s => datagram(A2S_INFO, CONNECTIONLESS, false),
        ProbeProtocol::Quake3 => datagram(QUAKE3_STATUS, QUAKE3_ANSWER, false),
        ProbeProtocol::SendExpect => Probe::Exchange(ProbeExchange {
            send: bytes(&raw.send),
            expect: bytes(&raw.expect),
            tls: raw.tls.value.as_ref().map(|_| tls()),
        }),
    }
}

/// The name servers of the root, a question that every server has an answer to, if only a refusal (RFC 1035, section 4):
/// an id, recursion desired, one question: the empty name, type NS, class IN.
const DNS_QUESTION: &[u8] = b"\x52\x57\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
/// Valve's server query A2S_INFO (Source and GoldSource). Its answer is the information, or a challenge.
const A2S_INFO: &[u8] = b"\xff\xff\xff\xffTSource Engine Query\0";
/// What packets outside of a connection begin with, in the protocols of Quake and Valve.
const CONNECTIONLESS: &[u8] = b"\xff\xff\xff\xff";
/// The status query of Quake III Arena and its relatives.
const QUAKE3_STATUS: &[u8] = b"\xff\xff\xff\xffgetstatus\n";
const QUAKE3_ANSWER: &[u8] = b"\xff\xff\xff\xffstatusResponse";

fn datagram(send: &[u8], expect: &[u8], is_dns: bool) -> Probe {
    Probe::Datagram(ProbeDatagram {
        send: send.into(),
        expect: expect.into(),
        is_dns,
    })
}

fn http(raw: &raw::HealthCheck, tls: Option<ProbeTls>) -> ProbeHttp {
    let text = |field: &Field<String>| field.value.as_ref().map(|at| at.value.as_str().into());
    let status = raw.status.value.as_ref();
    ProbeHttp {
        method: raw.method.or("GET").into(),
        path: text(&raw.path).unwrap_or_else(|| "/".into()),
        host: text(&raw.host),
        status: status.map_or_else(
            || vec![STATUS_DEFAULT],
            |at| at.value.iter().map(|range| range.value).collect(),
        ),
        body: text(&raw.body),
        tls,
    }
}

fn model_tls(raw: Option<&raw::ProbeTls>) -> ProbeTls {
    let Some(raw) = raw else {
        return ProbeTls::default();
    };
    ProbeTls {
        server_name: raw.server_name.value.as_ref().map(|at| at.value.clone()),
        verify: raw.verify.or(false),
        authorities: raw.authorities.value.as_ref().map(|at| at.value.clone()),
    }
}
