//! PROXY headers in front of datagrams: taken off those of a balancer in front, put before those for backends.
//!
//! Owns what a session tells its backends. Never guesses whether a header is one: where one must be, it is read; where none
//! may be, none is.

use super::listener::Relay;
use super::open::Request;
use ringway_core::model::{ProxyProtocol, SendProxy};
use ringway_core::reason::DropReason;
use ringway_core::session::{Key, Name};
use ringway_runtime::{PREFIX_MAX, Prefix};
use ringway_wire::proxy::{self, Accept, Addresses, HEADER_MAX, Outgoing, SIGNATURE, Transport, Version};
use std::hash::RandomState;
use std::net::SocketAddr;

/// The longest datagram over IPv4 (RFC 768, RFC 791), bytes.
const LONGEST: usize = 65_507;

/// Whom a balancer in front named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) client: SocketAddr,
    /// What the client sent to.
    pub(super) destination: SocketAddr,
}

/// What is known of who a datagram is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Nothing was asked yet.
    Not,
    /// It belongs to a session that is open, or about to be: that one knows.
    InSession,
    /// The sender is the client.
    Sender,
    /// A balancer's client.
    Named(Named),
}

/// What only sessions have that a PROXY header belongs to.
#[derive(Debug)]
pub(super) struct Proxied {
    pub(super) named: Option<Named>,
    /// Its share in the number that its key has.
    _name: Option<Name<RandomState>>,
    /// What backends are told; empty: they are not.
    header: Box<[u8]>,
    /// In front of each datagram.
    each: bool,
}

impl Proxied {
    /// `None`: there is nothing to keep.
    pub(super) fn new(
        named: Option<Named>,
        name: Option<Name<RandomState>>,
        header: Option<(Box<[u8]>, SendProxy)>,
    ) -> Option<Box<Self>> {
        if named.is_none() && name.is_none() && header.is_none() {
            return None;
        }
        let each = header.as_ref().is_some_and(|(_, send)| send.each_datagram);
        Some(Box::new(Self {
            named,
            _name: name,
            header: header.map(|(header, _)| header).unwrap_or_default(),
            each,
        }))
    }

    /// What goes in front of a datagram, or of a train, that is the first one for its backend or not.
    pub(super) fn prefix(&self, is_first: bool) -> Option<Prefix<'_>> {
        let is_due = (self.each || is_first) && !self.header.is_empty();
        is_due.then_some(Prefix {
            bytes: &self.header,
            each: self.each,
        })
    }
}

/// Whether `bytes`, behind a prefix, are more than a datagram can have.
pub(super) const fn is_too_long(prefix: Prefix<'_>, bytes: u32) -> bool {
    prefix.bytes.len() + bytes as usize > LONGEST
}

/// What a backend is told of a client; `id`: the session's own name.
pub(super) fn header(send: SendProxy, told: Named, id: &str) -> Box<[u8]> {
    let outgoing = Outgoing {
        version: Version::V2,
        source: Some(told.client),
        destination: Some(told.destination),
        transport: Transport::Datagram,
        local: false,
        authority: None,
        alpn: None,
        unique_id: send.unique_id.then_some(id.as_bytes()),
        checksum: send.checksum,
    };
    let mut header = Vec::new();
    outgoing.write(&mut header);
    assert!(header.len() <= PREFIX_MAX, "{} bytes of a header", header.len());
    header.into()
}

impl Relay {
    /// Finds out who a datagram is from, and takes its header off.
    pub(super) fn meet(&self, request: &mut Request) -> Result<(), DropReason> {
        if request.met != Met::Not {
            return Ok(());
        }
        request.met = match &self.listener().preface.proxy {
            None => Met::Sender,
            Some(proxy) if proxy.each_datagram => take_off(proxy, request)?,
            Some(_) if self.is_in_session(request) => in_session(request)?,
            Some(proxy) => {
                let met = take_off(proxy, request)?;
                // What follows in the same train must be payload.
                if datagrams(request).skip(1).any(begins_with_header) {
                    return Err(DropReason::BadProxyHeader);
                }
                met
            }
        };
        Ok(())
    }

    /// Whether the session of a sender that has but one is open, or waits to be opened.
    fn is_in_session(&self, request: &Request) -> bool {
        let &Request { from, front, .. } = request;
        let waits = |it: &Request| (it.from, it.front) == (from, front) && it.met != Met::InSession;
        self.table.find(&Key::new(from, front, Key::ANY_BACKEND)).is_some()
            || self.newcomers.iter().any(|newcomer| waits(&newcomer.request))
    }
}

/// Takes the header off a datagram that must have one, or off the first of a train.
fn take_off(proxy: &ProxyProtocol, request: &mut Request) -> Result<Met, DropReason> {
    if !proxy.from.contains(request.from.ip()) {
        return Err(DropReason::UntrustedProxy);
    }
    // Sockets of such listeners take no trains.
    if proxy.each_datagram && request.count > 1 {
        return Err(DropReason::BadProxyHeader);
    }
    let accept = Accept {
        v1: proxy.v1,
        v2: proxy.v2,
    };
    let header = match proxy::read(datagrams(request).next().unwrap_or_default(), accept, HEADER_MAX) {
        Ok(Some(header)) => header,
        Ok(None) | Err(_) => return Err(DropReason::BadProxyHeader),
    };
    let (len, addresses) = (header.len, header.addresses);
    let met = match addresses {
        // TCP as well: a client of DNS over HTTPS may be served by asking over UDP.
        Addresses::Udp { source, destination } | Addresses::Tcp { source, destination } => Met::Named(Named {
            client: source,
            destination,
        }),
        Addresses::Unknown | Addresses::Unix { .. } => Met::Sender,
    };
    request.leases.advance(len as u32);
    match request.arrived.segment {
        Some(segment) if request.count > 1 => request.first = Some(segment - len as u16),
        _ => request.arrived.segment = None,
    }
    Ok(met)
}

/// A later datagram of a session, whose sender puts a header in front of the first alone. One that begins with a header is
/// a client's forgery, or means that the sender puts one in front of each: then it may be another client's.
fn in_session(request: &Request) -> Result<Met, DropReason> {
    if datagrams(request).any(begins_with_header) {
        return Err(DropReason::BadProxyHeader);
    }
    Ok(Met::InSession)
}

fn begins_with_header(datagram: &[u8]) -> bool {
    datagram.starts_with(&SIGNATURE)
}

/// The datagrams of what came: one, or those of a train. The first may have lost its header.
fn datagrams(request: &Request) -> impl Iterator<Item = &[u8]> {
    // A datagram is in one buffer, and so is a train as it came.
    let bytes = request.leases.slices().next().unwrap_or_default();
    let each = request.arrived.segment.map_or(bytes.len(), usize::from);
    let (first, rest) = bytes.split_at(request.first.map_or(each, usize::from).min(bytes.len()));
    std::iter::once(first).chain(rest.chunks(each.max(1)))
}
