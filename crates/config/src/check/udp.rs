//! What a listener's protocol allows: keys of one have no effect with the other.

use super::source::Clients;
use crate::diagnostic::quote;
use crate::limits::{RECEIVE_BUFFER_DEFAULT, SESSION_TIMEOUT, UNANSWERED_TIMEOUT};
use crate::problem::Problems;
use crate::raw::{self, Field};
use crate::source::Span;
use ringway_core::model::{Address, Affinity, Listener, Protocol, Target, Udp, Workers};
use ringway_core::session::{ClientLimits, Rules};
use std::time::Duration;

/// A burst after a pause is a tenth of what is allowed in a second.
const BURST_PART: u32 = 10;

/// Where a key stands whose value is fine; of others something was said already.
pub(super) fn written<T>(field: &Field<T>) -> Option<Span> {
    field.value.as_ref().and(field.key)
}

/// Keys that belong to another protocol than the listener's, and addresses that it cannot have.
pub(super) fn check(listener: &raw::Listener, pool: Option<&raw::Pool>, workers: Workers, problems: &mut Problems) {
    let Some(protocol) = listener.protocol.value.as_ref().map(|at| at.value) else {
        return;
    };
    let udp = &listener.udp;
    let of_udp = [
        ("session_timeout", written(&udp.session_timeout), "idle_timeout"),
        ("unanswered_timeout", written(&udp.unanswered_timeout), ""),
        ("max_sessions", written(&udp.max_sessions), "max_connections"),
        (
            "max_sessions_per_client",
            written(&udp.max_sessions_per_client),
            "max_connections_per_client",
        ),
        ("rate", written(&udp.rate), "connection_rate"),
        ("requests", written(&udp.requests), ""),
        ("responses", written(&udp.responses), ""),
        ("keep_port", written(&udp.keep_port), ""),
        ("affinity", written(&udp.affinity), ""),
        ("receive_buffer", written(&udp.receive_buffer), ""),
    ];
    let of_tcp = [
        ("backlog", written(&listener.backlog), ""),
        ("routing_timeout", written(&listener.routing_timeout), ""),
        ("idle_timeout", written(&listener.idle_timeout), "session_timeout"),
        ("half_closed_timeout", written(&listener.half_closed_timeout), ""),
        ("tcp_keepalive", written(&listener.keepalive), ""),
        ("dead_peer_timeout", written(&listener.dead_peer_timeout), ""),
        ("max_connections", written(&listener.max_connections), "max_sessions"),
        (
            "max_connections_per_client",
            written(&listener.access.max_connections_per_client),
            "max_sessions_per_client",
        ),
        ("connection_rate", written(&listener.access.connection_rate), "rate"),
    ];
    let (strange, name): (&[_], _) = match protocol {
        Protocol::Tcp => (&of_udp, "tcp"),
        Protocol::Tls => (&of_udp, "tls"),
        Protocol::Udp => (&of_tcp, "udp"),
    };
    for &(key, at, instead) in strange {
        let Some(at) = at else { continue };
        let message = format!("{key} has no effect with protocol: {name}");
        let help = if instead.is_empty() {
            "remove it".to_owned()
        } else {
            format!("use {instead}")
        };
        problems.error(at, message, help);
    }
    if protocol == Protocol::Udp {
        sockets(listener, pool, problems);
        timeouts(udp, problems);
        share(udp, workers, problems);
        room(udp, pool, problems);
    }
}

/// Where each datagram is balanced by itself, each would need room of its own, also those of sessions that are there.
fn room(udp: &raw::Udp, pool: Option<&raw::Pool>, problems: &mut Problems) {
    let (Some(key), Affinity::None) = (written(&udp.affinity), udp.affinity.or(Affinity::Session)) else {
        return;
    };
    let backends = || pool.iter().flat_map(|pool| pool.backends());
    if let Some(at) = backends().find_map(|backend| written(&backend.max_connections)) {
        let help = "remove max_connections, or use affinity: session";
        let note = (at, "this backend has a limit");
        problems.error_with_note(
            key,
            "affinity: none does not go with max_connections of backends",
            help,
            note,
        );
    }
}

/// Sessions are shared out among workers by the kernel's hash: with fewer than one each some clients would never get one.
fn share(udp: &raw::Udp, workers: Workers, problems: &mut Problems) {
    if let (Some(key), Some(at), Workers::Count(workers)) =
        (written(&udp.max_sessions), &udp.max_sessions.value, workers)
        && at.value < u32::from(workers)
    {
        let message = format!("max_sessions is {}, but there are {workers} workers", at.value);
        problems.error(key, message, format!("write {workers} or more"));
    }
}

/// Which protocols feed a pool, and which clients.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FedBy {
    clients: Clients,
    tcp: bool,
    udp: bool,
    /// By a listener whose protocol is not known.
    unknown: bool,
}

impl FedBy {
    /// One more listener.
    pub(super) fn add(&mut self, listener: &raw::Listener) {
        self.clients.add(listener);
        match listener.protocol.value.as_ref().map(|at| at.value) {
            Some(Protocol::Tcp | Protocol::Tls) => self.tcp = true,
            Some(Protocol::Udp) => self.udp = true,
            None => self.unknown = true,
        }
    }

    /// Whether a UDP listener feeds it; `None`: that is not known.
    pub(super) fn udp(self) -> Option<bool> {
        (!self.unknown).then_some(self.udp)
    }

    /// Keys of the pool that change nothing for these protocols, or do not go with these clients.
    pub(super) fn check(self, pool: &raw::Pool, problems: &mut Problems) {
        self.clients.check(pool, problems);
        let of_tcp = [
            ("connect_timeout", written(&pool.connect_timeout)),
            ("tcp_keepalive", written(&pool.keepalive)),
            ("dead_peer_timeout", written(&pool.dead_peer_timeout)),
            (
                "queue",
                written(&pool.queue).filter(|_| pool.queue.value.as_ref().is_some_and(|at| at.value.is_some())),
            ),
        ];
        let silence = written(&pool.silence).filter(|_| pool.silence.or(None).is_some());
        let (strange, only): (&[_], _) = match (self.tcp, self.udp) {
            _ if self.unknown => return,
            (false, true) => (&of_tcp, "UDP"),
            (true, false) => (&[("silence", silence)], "TCP"),
            _ => return,
        };
        for &(key, at) in strange {
            if let Some(at) = at {
                let message = format!("{key} has no effect here");
                problems.warning(at, message, format!("only {only} listeners use this pool"));
            }
        }
    }
}

/// A UNIX socket has no datagrams here.
fn sockets(listener: &raw::Listener, pool: Option<&raw::Pool>, problems: &mut Problems) {
    for bind in listener.bind.value.iter().flat_map(|at| &at.value) {
        if let Address::Unix(_) = bind.value {
            let message = format!("protocol: udp cannot listen on {}", bind.value);
            problems.error(bind.span, message, "write an address and a port, such as 0.0.0.0:53");
        }
    }
    for backend in pool.iter().flat_map(|pool| pool.backends()) {
        if let Target::Address(Address::Unix(_)) = backend.target.value {
            let name = quote(&listener.name.value);
            let message = format!("backend {} cannot take datagrams", backend.label);
            let note = (listener.name.span, "this listener speaks UDP");
            problems.error_with_note(
                backend.target.span,
                message,
                format!("write an address and a port, or another pool for listener {name}"),
                note,
            );
        }
    }
}

fn timeouts(udp: &raw::Udp, problems: &mut Problems) {
    let (timeout, unanswered) = (
        udp.session_timeout.or(SESSION_TIMEOUT.default),
        udp.unanswered_timeout.or(UNANSWERED_TIMEOUT.default),
    );
    if let Some(key) = written(&udp.unanswered_timeout)
        && unanswered > timeout
    {
        problems.error(
            key,
            "unanswered_timeout is longer than session_timeout",
            "a session without an answer cannot outlive one that has some",
        );
    }
}

/// Which of so many pools serve a UDP listener.
pub(super) fn pools(listeners: &[Listener], count: usize) -> Vec<bool> {
    let mut serve = vec![false; count];
    for listener in listeners.iter().filter(|it| it.protocol == Protocol::Udp) {
        if let Some(serves) = listener.pool.and_then(|pool| serve.get_mut(pool.0)) {
            *serves = true;
        }
    }
    serve
}

/// What one client address may do.
pub(super) fn clients(raw: &raw::Udp) -> ClientLimits {
    let value = |field: &Field<u32>| field.value.as_ref().map(|at| at.value);
    let rate = value(&raw.rate);
    ClientLimits {
        sessions: value(&raw.max_sessions_per_client),
        interval: rate.map(|rate| Duration::from_secs(1) / rate),
        burst: rate.map_or(1, |rate| rate.div_ceil(BURST_PART)),
    }
}

/// With defaults filled in.
pub(super) fn model(raw: &raw::Udp) -> Udp {
    let value = |field: &Field<u32>| field.value.as_ref().map(|at| at.value);
    Udp {
        rules: Rules {
            timeout: raw.session_timeout.or(SESSION_TIMEOUT.default),
            unanswered_timeout: raw.unanswered_timeout.or(UNANSWERED_TIMEOUT.default),
            requests: value(&raw.requests),
            responses: value(&raw.responses),
        },
        keep_port: raw.keep_port.or(false),
        affinity: raw.affinity.or(Affinity::Session),
        receive_buffer: raw.receive_buffer.or(RECEIVE_BUFFER_DEFAULT),
    }
}
