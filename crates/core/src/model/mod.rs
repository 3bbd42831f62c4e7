//! The checked configuration: what listeners, pools and backends exist and how they behave.
//!
//! Values of these types are correct by construction or by `ringway-config`'s check; nothing below re-validates them.
//! Absent here on purpose: text, positions in files, defaults of the file format (those live in `ringway-config`). The
//! functions `new` give something plain to start from to whoever builds a model in code: the demo and tests.

mod listener;
mod source;

pub use self::listener::{Affinity, Listener, Preface, Protocol, ProxyProtocol, Speech, StartTls, Tls, Udp};
pub use self::source::Source;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The whole configuration of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// How many workers to start.
    pub workers: Workers,
    /// Whether each worker is pinned to one core of the inherited affinity mask.
    pub pin: bool,
    /// Where the read-only admin port listens; `None` switches it off.
    pub admin: Option<SocketAddr>,
    /// The receive buffers of each worker.
    pub buffers: Buffers,
    /// How long relays may finish after a stop was asked for; the rest is reset.
    pub drain_timeout: Duration,
    /// How long readiness is already off before accepting stops.
    pub drain_delay: Duration,
    /// Connections of which it is not known yet where they go, over all workers; beyond it the oldest go. `None`: half of
    /// those that may be open.
    pub max_unrouted: Option<u32>,
    /// Where a line for each finished session goes; `None`: nowhere.
    pub session_log: Option<SessionLog>,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file; `Listener::pool` indexes this.
    pub pools: Vec<Pool>,
}

impl Model {
    /// One worker that is not pinned, the fewest buffers, no admin port, no session log, and no time to drain.
    pub const fn new(listeners: Vec<Listener>, pools: Vec<Pool>) -> Self {
        Self {
            workers: Workers::Count(1),
            pin: false,
            admin: None,
            buffers: Buffers { count: 16, size: 1024 },
            drain_timeout: Duration::ZERO,
            drain_delay: Duration::ZERO,
            max_unrouted: None,
            session_log: None,
            listeners,
            pools,
        }
    }
}

/// How many workers to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core of the inherited affinity mask, capped by the cgroup's CPU quota.
    Auto,
    /// Exactly this many, 1 to 1024.
    Count(u16),
}

/// A line for each finished session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLog {
    /// Where to.
    pub to: LogTarget,
    /// How lines look.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, beside the other lines of the log.
    Stderr,
    /// Appended to this file, which is opened anew when it was moved away.
    File(PathBuf),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// `key=value` pairs for people.
    Text,
}

/// Size of one worker's provided-buffer ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Number of buffers, a power of two, 16 to 32,768.
    pub count: u16,
    /// Bytes of one buffer, a power of two, 1 KiB to 1 MiB.
    pub size: u32,
}

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Inet(SocketAddr),
    /// The path of a UNIX stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Position of a pool in [`Model::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// Position of a backend in [`Pool::backends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// TCP keepalive (tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, whole seconds.
    pub idle: Duration,
    /// Between probes, whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the peer is gone, 1 to 127.
    pub count: u8,
}

impl Keepalive {
    /// A peer that is gone is noticed after two minutes.
    pub const USUAL: Self = Self {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 6,
    };
}

/// Backends, how one is chosen, how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique among pools; a metric label.
    pub name: Arc<str>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// Applies to [`Balance::IpHash`].
    pub hash: HashRule,
    /// For one try.
    pub connect_timeout: Duration,
    /// Backends tried for one connection, 1 to 16.
    pub tries: u8,
    /// Where connections to its backends come from.
    pub source: Source,
    /// Backends are told who the client is; `None`: they are not.
    pub send_proxy: Option<SendProxy>,
    /// Keepalive probes towards the backend.
    pub keepalive: Keepalive,
    /// A backend that blocks us and is not heard of for this long is reset.
    pub dead_peer_timeout: Duration,
    /// Where connections wait while every usable backend has reached its `max_connections`; `None`: they are reset.
    pub queue: Option<Queue>,
    /// How it is found out which backends are well, and what follows.
    pub health: Health,
    /// What becomes of open sessions when backends go and come.
    pub sessions: Sessions,
    /// How names among the backends are resolved.
    pub resolve: Resolve,
    /// In the order of the file, at least one, no address or name twice.
    pub backends: Vec<Backend>,
}

impl Pool {
    /// In turn, with the usual time limits and three tries, no queue, and nobody who judges the backends.
    pub fn new(name: &str, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            balance: Balance::RoundRobin,
            hash: HashRule::default(),
            connect_timeout: Duration::from_secs(5),
            tries: 3,
            source: Source::Kernel,
            send_proxy: None,
            keepalive: Keepalive::USUAL,
            dead_peer_timeout: Duration::from_secs(60),
            queue: None,
            health: Health::default(),
            sessions: Sessions::default(),
            resolve: Resolve::default(),
            backends,
        }
    }
}

/// The header that tells a pool's backends who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendProxy {
    /// Its form.
    pub version: ProxyVersion,
    /// With the name that the client asked for (TLV 0x02).
    pub authority: bool,
    /// With the first protocol that the client offered (TLV 0x01).
    pub alpn: bool,
    /// With a name of the connection that no other one has (TLV 0x05).
    pub unique_id: bool,
    /// With a checksum (TLV 0x03).
    pub checksum: bool,
    /// UDP: in front of each datagram, not only of a session's first.
    pub each_datagram: bool,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Connections that wait for a backend with room; over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait at the same time, 1 to 1,000,000; whoever comes then is reset.
    pub max: u32,
    /// Longest wait.
    pub timeout: Duration,
}

/// How it is found out which backends are well, and what follows for new connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Active probes; `None`: none, and a backend counts as well until connections fail.
    pub check: Option<HealthCheck>,
    /// Judgement by what connections meet; `None`: none.
    pub passive: Option<Passive>,
    /// UDP: a client that sends for this long without any answer has lost its backend; `None`: that says nothing.
    pub silence: Option<Duration>,
    /// A backend that comes (back) up starts with a small share that grows to its whole weight over this time.
    pub slow_start: Option<Duration>,
    /// With no backend left that is well, all are used instead of none.
    pub fail_open: bool,
}

/// What becomes of open TCP sessions when backends go and come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// When their backend goes down.
    pub on_backend_down: OnBackendDown,
    /// When backends that are no backups come back.
    pub failback: Failback,
    /// A session older than this (give or take 10 %) is ended; `None`: never.
    pub max_lifetime: Option<Duration>,
}

/// What becomes of open sessions when their backend goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBackendDown {
    /// They go on for as long as the backend answers them.
    #[default]
    Keep,
    /// They are closed, so that clients connect anew and reach another backend.
    Close,
    /// UDP: they go on with another backend. TCP connections, which cannot, are kept.
    Move,
}

/// What happens when backends that are no backups are well again while backups serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// New connections go to them at once; sessions on backups are closed, spread over a minute, unless
    /// [`Sessions::max_lifetime`] moves them.
    #[default]
    Auto,
    /// Backups serve until none of them is well.
    Manual,
}

/// Judgement by what connections meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Failed connects in a row after which a backend is ejected, 1 to 100.
    pub fails: u32,
    /// For the first ejection; the n-th in a row lasts n times as long, at most 30 s (or this, if it is longer).
    pub eject: Duration,
    /// Of the pool's backends, at most this many percent are out at once, 0 to 100.
    pub max_ejected: u8,
}

/// Active probes of the backends of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked and which answer is well.
    pub probe: Probe,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// Between the starts of two probes, give or take 10 %; while the condition is changing at most 1 s.
    pub interval: Duration,
    /// For one probe in all.
    pub timeout: Duration,
    /// Failures in a row that make a backend down, 1 to 100.
    pub fails: u32,
    /// Passes in a row that make it up again, 1 to 100.
    pub passes: u32,
}

/// What one probe asks, and which answer is well.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// The connection stands and is not ended from the other side within 100 ms.
    Tcp,
    /// A TLS handshake succeeds.
    Tls(ProbeTls),
    /// Sends bytes and awaits an answer that contains others.
    Exchange(ProbeExchange),
    /// An HTTP request is answered as expected; with TLS if `tls` is there.
    Http(ProbeHttp),
    /// A datagram is answered by one that begins as expected. Silence is no answer.
    Datagram(ProbeDatagram),
}

/// A datagram to send, and how its answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeDatagram {
    /// Sent up to three times, because datagrams may be lost.
    pub send: Arc<[u8]>,
    /// What answers begin with; empty: any answer will do.
    pub expect: Arc<[u8]>,
    /// The answer is looked at as one of DNS: it must be to our question, and not say that the server failed.
    pub is_dns: bool,
}

/// The TLS of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTls {
    /// Sent as SNI; `None`: the backend's name if it has one, else none.
    pub server_name: Option<Arc<str>>,
    /// Whether the certificate must be valid for the name. Off by default: a probe asks whether the backend lives.
    pub verify: bool,
    /// PEM file of the authorities to trust with `verify`; `None`: those of the system.
    pub authorities: Option<PathBuf>,
}

/// Bytes to send and bytes to expect; at least one of the two is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeExchange {
    /// Sent after connecting; empty: the backend speaks first.
    pub send: Arc<[u8]>,
    /// The answer must contain this within its first 16 KiB; empty: any byte will do.
    pub expect: Arc<[u8]>,
    /// Over TLS.
    pub tls: Option<ProbeTls>,
}

/// One HTTP/1.1 request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeHttp {
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: Arc<str>,
    /// Begins with `/`.
    pub path: Arc<str>,
    /// The header `Host`; `None`: the backend's address.
    pub host: Option<Arc<str>>,
    /// Status codes that are well, as inclusive ranges; at least one.
    pub status: Vec<(u16, u16)>,
    /// The first 64 KiB of the body must contain this; `None`: not looked at.
    pub body: Option<Arc<str>>,
    /// HTTPS.
    pub tls: Option<ProbeTls>,
}

/// How names among the backends are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolve {
    /// DNS servers to ask; empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// Answers are asked for again after their TTL, but not sooner than this.
    pub interval_min: Duration,
    /// And not later than this.
    pub interval_max: Duration,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight, over a schedule that all workers share.
    RoundRobin,
    /// The fewest connections per weight.
    LeastConnections,
    /// The shortest expected time to the first byte: peak EWMA of past ones times the connections that are open now.
    LeastResponseTime,
    /// The fewest bytes per second and weight, over a sliding window.
    LeastBandwidth,
    /// The same client address always reaches the same backend.
    IpHash,
    /// The better by connections of two that are drawn at random by weight.
    Random,
}

impl Balance {
    /// The word in configurations and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::LeastResponseTime => "least_response_time",
            Self::LeastBandwidth => "least_bandwidth",
            Self::IpHash => "ip_hash",
            Self::Random => "random",
        }
    }
}

/// How [`Balance::IpHash`] maps addresses to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashRule {
    /// Rendezvous unless asked otherwise; never changes by itself with the size of the pool.
    pub algorithm: HashAlgorithm,
    /// Balancers that must agree use the same seed.
    pub seed: u64,
    /// Bounded load (Mirrokni, Thorup and Zadimoghaddam, 2018): no backend has more than this many percent of its
    /// share of the pool's connections, at least 101; a client whose backend is full goes to its next one. `None`: off.
    pub max_load: Option<u16>,
}

/// The two consistent hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Highest random weight (Thaler and Ravishankar, 1998): a lost backend moves only its own clients.
    #[default]
    Rendezvous,
    /// Maglev (Eisenbud et al., NSDI 2016), table of 65,537: constant time whatever the size of the pool.
    Maglev,
}

/// One address that can be chosen, or a name that stands for several.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Where it listens.
    pub target: Target,
    /// The address or name as the operator wrote it; a metric label.
    pub label: Arc<str>,
    /// Share relative to the others of the pool, 1 to 1000; of a name: of each of its addresses.
    pub weight: u16,
    /// Connections open at the same time over all workers; of a name: for each of its addresses. `None`: no limit.
    pub max_connections: Option<u32>,
    /// Used only while no other backend of the pool is usable.
    pub backup: bool,
}

impl Backend {
    /// One like the others: weight 1, no limit on connections, no backup.
    pub fn new(target: Target, label: &str) -> Self {
        Self {
            target,
            label: label.into(),
            weight: 1,
            max_connections: None,
            backup: false,
        }
    }

    /// The same at an address, which is its label.
    pub fn at(address: Address) -> Self {
        let label = address.to_string();
        Self::new(Target::Address(address), &label)
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// At this address.
    Address(Address),
    /// At every address that DNS gives for this name.
    Name(Name),
}

/// A name that DNS resolves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// In lower case, without a dot at its end.
    pub host: Arc<str>,
    /// Whether ports come from the configuration or from DNS.
    pub records: Records,
}

/// Which DNS records a name is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Records {
    /// A and AAAA (RFC 1035, RFC 3596), with this port.
    Addresses(u16),
    /// SRV (RFC 2782): ports and weights come with it; of several priorities the lowest number counts.
    Services,
}
