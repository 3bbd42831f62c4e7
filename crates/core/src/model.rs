//! The checked configuration: what listeners, pools and backends exist and how they behave.
//!
//! Values of these types are correct by construction or by `ringway-config`'s check; nothing below re-validates them.
//! Absent here on purpose: text, positions in files, defaults of the file format (those live in `ringway-config`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
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
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file; `Listener::pool` indexes this.
    pub pools: Vec<Pool>,
}

/// How many workers to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core of the inherited affinity mask, capped by the cgroup's CPU quota.
    Auto,
    /// Exactly this many, 1 to 1024.
    Count(u16),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolIndex(pub usize);

/// Position of a backend in [`Pool::backends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendIndex(pub usize);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes are relayed as they come.
    Tcp,
}

/// A bound address (or several), its protocol, the pool it feeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique among listeners; a metric label.
    pub name: Arc<str>,
    /// At least one.
    pub bind: Vec<Address>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The pool that its connections go to.
    pub pool: PoolIndex,
    /// Queue of connections that the kernel completed and nobody accepted yet; `None`: `net.core.somaxconn`.
    pub backlog: Option<u32>,
    /// From accept until routed; no byte extends it.
    pub routing_timeout: Duration,
    /// A relay without a byte in either direction for this long ends.
    pub idle_timeout: Duration,
    /// After one side ended, the other may stay silent this long.
    pub half_closed_timeout: Duration,
    /// Keepalive probes towards the client.
    pub keepalive: Keepalive,
    /// A peer that blocks us and is not heard of for this long is reset.
    pub dead_peer_timeout: Duration,
    /// Connections open at the same time over all workers; `None`: what the descriptor limit allows.
    pub max_connections: Option<u32>,
}

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
    /// Addresses to connect from; empty: the kernel's choice.
    pub source: Vec<IpAddr>,
    /// Keepalive probes towards the backend.
    pub keepalive: Keepalive,
    /// A backend that blocks us and is not heard of for this long is reset.
    pub dead_peer_timeout: Duration,
    /// In the order of the file, at least one, no address twice.
    pub backends: Vec<Backend>,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight, over a schedule that all workers share.
    RoundRobin,
    /// The fewest connections per weight.
    LeastConnections,
    /// The same client address always reaches the same backend.
    IpHash,
}

/// How [`Balance::IpHash`] maps addresses to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRule {
    /// Rendezvous unless asked otherwise; never changes by itself with the size of the pool.
    pub algorithm: HashAlgorithm,
    /// Balancers that must agree use the same seed.
    pub seed: u64,
}

/// The two consistent hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Highest random weight (Thaler and Ravishankar, 1998): a lost backend moves only its own clients.
    Rendezvous,
    /// Maglev (Eisenbud et al., NSDI 2016), table of 65,537: constant time whatever the size of the pool.
    Maglev,
}

/// One address that can be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Where it listens.
    pub address: Address,
    /// The address as the operator wrote it; a metric label.
    pub label: Arc<str>,
    /// Share relative to the others of the pool, 1 to 1000.
    pub weight: u16,
}
