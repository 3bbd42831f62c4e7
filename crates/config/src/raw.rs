//! The configuration as written: every value has its type and its place, nothing is filled in, nothing is related yet.
//!
//! `decode` makes these from YAML, `flags` from the command line; `check` turns them into the model.

use crate::source::{At, Span};
use ringway_core::model::{Address, Balance, HashAlgorithm, Protocol, Workers};
use std::net::{IpAddr, SocketAddr};
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
    pub(crate) backlog: Field<u32>,
    pub(crate) routing_timeout: Field<Duration>,
    pub(crate) idle_timeout: Field<Duration>,
    pub(crate) half_closed_timeout: Field<Duration>,
    pub(crate) keepalive: Field<Keepalive>,
    pub(crate) dead_peer_timeout: Field<Duration>,
    pub(crate) max_connections: Field<u32>,
}

impl Listener {
    /// A listener with nothing but a name.
    pub(crate) fn new(name: At<String>) -> Self {
        Self {
            name,
            bind: Field::default(),
            protocol: Field::default(),
            pool: Field::default(),
            backlog: Field::default(),
            routing_timeout: Field::default(),
            idle_timeout: Field::default(),
            half_closed_timeout: Field::default(),
            keepalive: Field::default(),
            dead_peer_timeout: Field::default(),
            max_connections: Field::default(),
        }
    }
}

/// One of `pools`.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: At<String>,
    pub(crate) balance: Field<Balance>,
    pub(crate) hash: Field<Hash>,
    pub(crate) connect_timeout: Field<Duration>,
    pub(crate) tries: Field<u8>,
    pub(crate) source: Field<Vec<At<IpAddr>>>,
    pub(crate) keepalive: Field<Keepalive>,
    pub(crate) dead_peer_timeout: Field<Duration>,
    pub(crate) backends: Field<Vec<Backend>>,
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
            keepalive: Field::default(),
            dead_peer_timeout: Field::default(),
            backends: Field::default(),
        }
    }
}

/// How clients are mapped.
#[derive(Debug, Default)]
pub(crate) struct Hash {
    pub(crate) algorithm: Field<HashAlgorithm>,
    pub(crate) seed: Field<u64>,
}

/// One of `backends` whose address could be read.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: At<Address>,
    /// The address as written.
    pub(crate) label: String,
    pub(crate) weight: Field<u16>,
}
