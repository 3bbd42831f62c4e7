//! The configuration as written: every value has its type and its place, nothing is filled in, nothing is related yet.
//!
//! `decode` makes these from YAML, `flags` from the command line; `check` turns them into the model.

use crate::source::{At, Span};
use ringway_core::access::Network;
use ringway_core::model::{
    Address, Affinity, Balance, Failback, HashAlgorithm, LogFormat, LogTarget, OnBackendDown, Protocol, ProxyVersion,
    StartTls, Target, Workers,
};
use ringway_core::route::Names;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A key that may be there.
#[derive(Debug)]
pub(crate) struct Field<T> {
    /// Where the key stands, if it is there.
    pub(crate) key: Option<Span>,
    /// Its value, if that could be used; `None` with a key means that a problem was reported.
    pub(crate) value: Option<At<T>>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { key: None, value: None }
    }
}

impl<T> Field<T> {
    /// Nothing was written.
    pub(crate) fn is_absent(&self) -> bool {
        self.key.is_none()
    }

    /// Something was written but could not be used, which was reported.
    pub(crate) fn is_unusable(&self) -> bool {
        self.key.is_some() && self.value.is_none()
    }
}

impl<T: Copy> Field<T> {
    /// What was written, or `default`.
    pub(crate) fn or(&self, default: T) -> T {
        self.value.as_ref().map_or(default, |at| at.value)
    }
}

/// All files together.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) workers: Field<Workers>,
    pub(crate) pin: Field<bool>,
    pub(crate) admin: Field<Admin>,
    pub(crate) buffers: Field<Buffers>,
    pub(crate) drain_timeout: Field<Duration>,
    pub(crate) drain_delay: Field<Duration>,
    pub(crate) max_unrouted: Field<u32>,
    /// `None`: off.
    pub(crate) session_log: Field<Option<SessionLog>>,
    pub(crate) listeners: Section<Listener>,
    pub(crate) pools: Section<Pool>,
    /// A file, or a whole section of one, could not be read, which was reported: what seems to be missing may be there.
    pub(crate) partial: bool,
}

/// `listeners` or `pools` of all files.
#[derive(Debug)]
pub(crate) struct Section<T> {
    /// Where the first one stands.
    pub(crate) key: Option<Span>,
    /// In the order of the files.
    pub(crate) entries: Vec<T>,
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self {
            key: None,
            entries: Vec::new(),
        }
    }
}

/// The admin port.
#[derive(Debug)]
pub(crate) enum Admin {
    /// Switched off.
    Off,
    /// Where it listens.
    On(Field<SocketAddr>),
}

/// Receive buffers.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) count: Field<u16>,
    pub(crate) size: Field<u32>,
}

/// Lines for finished sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    pub(crate) to: Field<LogTarget>,
    pub(crate) format: Field<LogFormat>,
}

/// Keepalive of one side.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    pub(crate) idle: Field<Duration>,
    pub(crate) interval: Field<Duration>,
    pub(crate) count: Field<u8>,
}

/// One of `listeners`.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: At<String>,
    pub(crate) bind: Field<Vec<At<Address>>>,
    pub(crate) protocol: Field<Protocol>,
    pub(crate) pool: Field<String>,
    pub(crate) preface: Preface,
    pub(crate) backlog: Field<u32>,
    pub(crate) routing_timeout: Field<Duration>,
    pub(crate) idle_timeout: Field<Duration>,
    pub(crate) half_closed_timeout: Field<Duration>,
    pub(crate) keepalive: Field<Keepalive>,
    pub(crate) dead_peer_timeout: Field<Duration>,
    pub(crate) max_connections: Field<u32>,
    pub(crate) access: Access,
    pub(crate) affinity_group: Field<String>,
    pub(crate) udp: Udp,
}

/// The keys of a listener about what is read before a backend is chosen.
#[derive(Debug, Default)]
pub(crate) struct Preface {
    pub(crate) routes: Field<Routes>,
    pub(crate) fallback: Field<Fallback>,
    pub(crate) hello_max: Field<u32>,
    pub(crate) starttls: Field<StartTls>,
    pub(crate) protocol_hint: Field<Hint>,
    pub(crate) proxy_protocol: Field<Option<ProxyProtocol>>,
}

/// `routes` of a listener.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Those that could be read, in the order of the file.
    pub(crate) list: Vec<Route>,
    /// Others could not, which was reported.
    pub(crate) partial: bool,
}

/// One of `routes`.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where it stands.
    pub(crate) span: Span,
    pub(crate) sni: Field<Vec<At<Names>>>,
    pub(crate) alpn: Field<Vec<At<Box<[u8]>>>>,
    pub(crate) pool: Field<String>,
}

/// Where connections go that no route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    Close,
    Pool(String),
}

/// What a client's first bytes are expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    Postgres,
}

/// A balancer in front.
#[derive(Debug, Default)]
pub(crate) struct ProxyProtocol {
    pub(crate) accept: Field<Vec<At<ProxyVersion>>>,
    pub(crate) from: Field<Vec<At<Network>>>,
    pub(crate) per: Field<Per>,
}

/// What backends are told.
#[derive(Debug, Default)]
pub(crate) struct SendProxy {
    pub(crate) version: Field<ProxyVersion>,
    pub(crate) tlvs: Field<Vec<At<Tlv>>>,
    pub(crate) checksum: Field<bool>,
    pub(crate) per: Field<Per>,
}

/// What a PROXY header may tell besides addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tlv {
    Sni,
    Alpn,
    UniqueId,
}

/// How often it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Session,
    Datagram,
}

/// Who may use a listener, and how much of it.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) allow: Field<Vec<At<Network>>>,
    pub(crate) deny: Field<Vec<At<Network>>>,
    pub(crate) max_connections_per_client: Field<u32>,
    pub(crate) connection_rate: Field<Rate>,
}

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) per: Duration,
}

/// The keys of a listener that are particular to UDP.
#[derive(Debug, Default)]
pub(crate) struct Udp {
    pub(crate) session_timeout: Field<Duration>,
    pub(crate) unanswered_timeout: Field<Duration>,
    pub(crate) max_sessions: Field<u32>,
    pub(crate) max_sessions_per_client: Field<u32>,
    pub(crate) rate: Field<u32>,
    pub(crate) requests: Field<u32>,
    pub(crate) responses: Field<u32>,
    pub(crate) keep_port: Field<bool>,
    pub(crate) affinity: Field<Affinity>,
    pub(crate) receive_buffer: Field<u32>,
}

impl Listener {
    /// A listener with nothing but a name.
    pub(crate) fn new(name: At<String>) -> Self {
        Self {
            name,
            bind: Field::default(),
            protocol: Field::default(),
            pool: Field::default(),
            preface: Preface::default(),
            backlog: Field::default(),
            routing_timeout: Field::default(),
            idle_timeout: Field::default(),
            half_closed_timeout: Field::default(),
            keepalive: Field::default(),
            dead_peer_timeout: Field::default(),
            max_connections: Field::default(),
            access: Access::default(),
            affinity_group: Field::default(),
            udp: Udp::default(),
        }
    }
}

/// One entry of a pool's `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An address of this machine.
    Address(IpAddr),
    /// The client's own.
    Client,
}

/// One of `pools`.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: At<String>,
    pub(crate) balance: Field<Balance>,
    pub(crate) hash: Field<Hash>,
    pub(crate) connect_timeout: Field<Duration>,
    pub(crate) tries: Field<u8>,
    pub(crate) source: Field<Vec<At<Source>>>,
    /// `None`: off.
    pub(crate) send_proxy: Field<Option<SendProxy>>,
    pub(crate) keepalive: Field<Keepalive>,
    pub(crate) dead_peer_timeout: Field<Duration>,
    /// `None`: off.
    pub(crate) queue: Field<Option<Queue>>,
    /// `None`: off.
    pub(crate) health_check: Field<Option<HealthCheck>>,
    /// `None`: off.
    pub(crate) passive: Field<Option<Passive>>,
    /// `None`: off.
    pub(crate) slow_start: Field<Option<Duration>>,
    pub(crate) fail_open: Field<bool>,
    /// `None`: off.
    pub(crate) silence: Field<Option<Duration>>,
    pub(crate) on_backend_down: Field<OnBackendDown>,
    pub(crate) failback: Field<Failback>,
    /// `None`: off.
    pub(crate) max_lifetime: Field<Option<Duration>>,
    pub(crate) resolve: Field<Resolve>,
    pub(crate) backends: Field<Backends>,
}

impl Pool {
    /// A pool with nothing but a name.
    pub(crate) fn new(name: At<String>) -> Self {
        Self {
            name,
            balance: Field::default(),
            hash: Field::default(),
            connect_timeout: Field::default(),
            tries: Field::default(),
            source: Field::default(),
            send_proxy: Field::default(),
            keepalive: Field::default(),
            dead_peer_timeout: Field::default(),
            queue: Field::default(),
            health_check: Field::default(),
            passive: Field::default(),
            slow_start: Field::default(),
            silence: Field::default(),
            fail_open: Field::default(),
            on_backend_down: Field::default(),
            failback: Field::default(),
            max_lifetime: Field::default(),
            resolve: Field::default(),
            backends: Field::default(),
        }
    }

    /// The backends whose address could be read.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.value.iter().flat_map(|at| &at.value.list)
    }
}

/// How clients are mapped.
#[derive(Debug, Default)]
pub(crate) struct Hash {
    pub(crate) algorithm: Field<HashAlgorithm>,
    pub(crate) seed: Field<u64>,
    /// Percent; `None`: off.
    pub(crate) max_load: Field<Option<u16>>,
}

/// Connections that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) max: Field<u32>,
    pub(crate) timeout: Field<Duration>,
}

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeProtocol {
    Tcp,
    Http,
    Https,
    Tls,
    SendExpect,
    Udp,
    Dns,
    A2s,
    Quake3,
}

impl ProbeProtocol {
    /// The word in configurations.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::SendExpect => "send_expect",
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::A2s => "a2s",
            Self::Quake3 => "quake3",
        }
    }
}

/// Active probes, of whatever protocol.
#[derive(Debug, Default)]
pub(crate) struct HealthCheck {
    pub(crate) protocol: Field<ProbeProtocol>,
    pub(crate) port: Field<u16>,
    pub(crate) interval: Field<Duration>,
    pub(crate) timeout: Field<Duration>,
    pub(crate) fails: Field<u32>,
    pub(crate) passes: Field<u32>,
    pub(crate) method: Field<&'static str>,
    pub(crate) path: Field<String>,
    pub(crate) host: Field<String>,
    pub(crate) status: Field<Vec<At<(u16, u16)>>>,
    pub(crate) body: Field<String>,
    pub(crate) send: Field<Vec<u8>>,
    pub(crate) expect: Field<Vec<u8>>,
    pub(crate) tls: Field<ProbeTls>,
}

/// The TLS of a probe.
#[derive(Debug, Default)]
pub(crate) struct ProbeTls {
    pub(crate) server_name: Field<Arc<str>>,
    pub(crate) verify: Field<bool>,
    pub(crate) authorities: Field<PathBuf>,
}

/// Judgement by what connections meet.
#[derive(Debug, Default)]
pub(crate) struct Passive {
    pub(crate) fails: Field<u32>,
    pub(crate) eject: Field<Duration>,
    /// Percent.
    pub(crate) max_ejected: Field<u8>,
}

/// How names are looked up.
#[derive(Debug, Default)]
pub(crate) struct Resolve {
    pub(crate) servers: Field<Vec<At<SocketAddr>>>,
    pub(crate) min_interval: Field<Duration>,
    pub(crate) max_interval: Field<Duration>,
}

/// `backends` of a pool.
#[derive(Debug)]
pub(crate) struct Backends {
    /// Those whose address could be read, in the order of the file.
    pub(crate) list: Vec<Backend>,
    /// Others could not, which was reported: what seems to be missing may be there.
    pub(crate) partial: bool,
}

/// One of `backends` whose address could be read.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) target: At<Target>,
    /// The address or name as written.
    pub(crate) label: String,
    pub(crate) weight: Field<u16>,
    pub(crate) max_connections: Field<u32>,
    pub(crate) backup: Field<bool>,
}

impl Backend {
    /// A backend with nothing but an address or a name.
    pub(crate) fn new(target: At<Target>, label: String) -> Self {
        Self {
            target,
            label,
            weight: Field::default(),
            max_connections: Field::default(),
            backup: Field::default(),
        }
    }
}
