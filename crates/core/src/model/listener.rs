//! A listener: what it speaks, what is read before a backend is chosen, its limits.

use super::{Address, Keepalive, PoolIndex};
use crate::access::{Access, NetworkSet};
use crate::route::Routes;
use crate::session::{ClientLimits, Rules};
use std::sync::Arc;
use std::time::Duration;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes are relayed as they come.
    Tcp,
    /// Datagrams are relayed in sessions.
    Udp,
    /// Bytes are relayed as they come, to where the client's TLS hello says.
    Tls,
}

impl Protocol {
    /// As it is written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
        }
    }

    /// Whether it has connections, and not datagrams.
    pub const fn has_connections(self) -> bool {
        match self {
            Self::Tcp | Self::Tls => true,
            Self::Udp => false,
        }
    }
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
    /// The pool that its connections go to unless a route names another one; `None` (TLS only): those are closed.
    pub pool: Option<PoolIndex>,
    /// What is read from its connections before their backend is chosen.
    pub preface: Preface,
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
    /// Who may use it.
    pub access: Access,
    /// What one client address may do.
    pub clients: ClientLimits,
    /// Clients of all listeners of a group are sent to the same host; `None`: of no group.
    pub affinity_group: Option<Arc<str>>,
    /// What is particular to UDP.
    pub udp: Udp,
}

/// What is read from a connection before its backend is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preface {
    /// A balancer in front says who the client is; `None`: nobody does.
    pub proxy: Option<ProxyProtocol>,
    /// What follows.
    pub speech: Speech,
}

impl Preface {
    /// Nothing is read.
    pub const fn is_none(&self) -> bool {
        self.proxy.is_none() && matches!(self.speech, Speech::Any)
    }
}

/// What clients say first, as far as it bears on where they go.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Speech {
    /// Anything: it is not looked at.
    #[default]
    Any,
    /// A TLS hello.
    Tls(Tls),
    /// PostgreSQL without TLS: a client that wants to cancel a query goes to the server that runs it.
    Postgres,
}

/// Where a TLS client goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// By name and protocol.
    pub routes: Routes,
    /// The longest hello, bytes of the handshake message, 1 KiB to 64 KiB.
    pub hello_max: u32,
    /// What comes before TLS.
    pub starttls: Option<StartTls>,
}

/// How a client asks for TLS on a connection that begins without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// An SSLRequest, answered by `S`.
    Postgres,
}

/// A balancer in front that says in a header who the client is (PROXY protocol).
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyProtocol {
    /// Version 1, text.
    pub v1: bool,
    /// Version 2, binary.
    pub v2: bool,
    /// Who is believed; whoever else connects is closed.
    pub from: NetworkSet,
    /// UDP: it puts a header in front of each datagram, not only of a session's first.
    pub each_datagram: bool,
}

/// What is particular to UDP listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// When sessions end.
    pub rules: Rules,
    /// What belongs to the same session.
    pub affinity: Affinity,
    /// Datagrams go to the backend's port of the same number as they came to here.
    pub keep_port: bool,
    /// What the kernel keeps for each socket until it is taken, bytes of its own accounting.
    pub receive_buffer: u32,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            rules: Rules {
                timeout: Duration::from_secs(60),
                unanswered_timeout: Duration::from_secs(5),
                requests: None,
                responses: None,
            },
            affinity: Affinity::Session,
            keep_port: false,
            receive_buffer: 1 << 20,
        }
    }
}

/// Which datagrams of a client go to the same backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Those from one address and port, for as long as their session lives.
    #[default]
    Session,
    /// All from one address, by rendezvous hashing.
    ClientIp,
    /// Each is balanced by itself.
    None,
}

impl Listener {
    /// Whether some clients may not do what others may, so that it must be asked who one is.
    pub const fn tells_clients_apart(&self) -> bool {
        !self.access.is_open() || !self.clients.is_none()
    }

    /// The pool of a listener that has but one, because nothing is read before.
    pub fn only_pool(&self) -> PoolIndex {
        self.pool.expect("only listeners of TLS may have no pool of their own")
    }

    /// Every pool that its connections may go to, each once.
    pub fn pools(&self) -> Vec<PoolIndex> {
        let mut pools: Vec<PoolIndex> = match &self.preface.speech {
            Speech::Tls(tls) => tls.routes.pools().collect(),
            Speech::Any | Speech::Postgres => Vec::new(),
        };
        pools.extend(self.pool);
        pools.sort_unstable();
        pools.dedup();
        pools
    }

    /// Whether a client's address alone decides which host it is sent to.
    pub fn stays_at_host(&self) -> bool {
        self.affinity_group.is_some() || (self.protocol == Protocol::Udp && self.udp.affinity == Affinity::ClientIp)
    }

    /// At one address, with the usual time limits and no limit on connections of its own.
    pub fn new(name: &str, bind: Address, pool: PoolIndex) -> Self {
        Self {
            name: name.into(),
            bind: vec![bind],
            protocol: Protocol::Tcp,
            pool: Some(pool),
            preface: Preface::default(),
            backlog: None,
            routing_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(3_600),
            half_closed_timeout: Duration::from_secs(60),
            keepalive: Keepalive::USUAL,
            dead_peer_timeout: Duration::from_secs(60),
            max_connections: None,
            access: Access::default(),
            clients: ClientLimits::default(),
            affinity_group: None,
            udp: Udp::default(),
        }
    }
}
