//! Scripted clients and backends: actors that use the simulated network directly, without a runtime.
//!
//! Their calls never wait and never fail by chance; what is unkind happens on the way to the runtimes.

use super::kernel::{Kernel, Listening};
use super::random::Random;
use super::wire::{EndId, Owner};
use super::{Network, PeerId};
use crate::address::Address;
use crate::errno::Errno;
use crate::slab::Token;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How a scripted listener meets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// The connection is established.
    Accept,
    /// The same, but later.
    Late(Duration),
    /// Answered with a reset: ECONNREFUSED.
    Refuse,
    /// Never answered.
    Silence,
    /// A router says that there is no way: EHOSTUNREACH.
    Unreachable,
    /// Established, and reset at once.
    Reset,
}

/// What an actor reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing has arrived.
    Nothing,
    /// The other end has ended in order.
    End,
    /// The connection was reset or has timed out.
    Broken,
}

/// Names a scripted listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerListener(pub(super) usize);

pub(super) struct Peer {
    pub(super) end: EndId,
    /// Bytes of its own that have arrived at the other end.
    pub(super) arrived: u64,
}

type Decide = Box<dyn FnMut(&mut Random) -> Welcome>;

pub(super) struct PeerListening {
    address: Address,
    decide: Decide,
    accepted: VecDeque<usize>,
}

impl fmt::Debug for PeerListening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerListening")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// How whoever listens there meets a connection.
    pub(super) fn welcome(&mut self, address: &Address) -> Welcome {
        if let Some(listening) = self
            .peer_listeners
            .iter_mut()
            .find(|listening| listening.address == *address)
        {
            return (listening.decide)(&mut self.random);
        }
        let known = self
            .listeners
            .iter_mut()
            .any(|(_, listening)| listening.address == *address);
        if known { Welcome::Accept } else { Welcome::Refuse }
    }

    /// A scripted listener holds the address.
    pub(super) fn is_scripted(&self, address: &Address) -> bool {
        self.peer_listeners
            .iter()
            .any(|listening| listening.address == *address)
    }

    /// Makes a connection from `client`, as far as the other side lets it.
    pub(super) fn establish(
        &mut self,
        client: Owner,
        source: Option<Address>,
        address: &Address,
        welcome: Welcome,
    ) -> Result<Token, Errno> {
        match welcome {
            Welcome::Refuse => return Err(Errno(libc::ECONNREFUSED)),
            Welcome::Silence => return Err(Errno(libc::ETIMEDOUT)),
            Welcome::Unreachable => return Err(Errno(libc::EHOSTUNREACH)),
            Welcome::Accept | Welcome::Late(_) | Welcome::Reset => {}
        }
        let source = source.unwrap_or_else(|| self.any_source(address));
        if let Some(listener) = self
            .peer_listeners
            .iter()
            .position(|listening| listening.address == *address)
        {
            let connection = self.join((source, client), (address.clone(), Owner::Nobody));
            let end = EndId { connection, end: 1 };
            if welcome == Welcome::Reset {
                self.close_end(end, true);
            } else {
                let peer = self.add_peer(end);
                self.peer_listeners[listener].accepted.push_back(peer);
            }
            return Ok(connection);
        }
        let group: Vec<Token> = self
            .listeners
            .iter_mut()
            .filter(|(_, listening)| listening.address == *address)
            .map(|(token, _)| token)
            .collect();
        if group.is_empty() {
            return Err(Errno(libc::ECONNREFUSED));
        }
        // SO_REUSEPORT: by a hash of addresses that nobody outside of the kernel can foresee.
        let listener = group[self.random.below(group.len() as u64) as usize];
        if self
            .listeners
            .get_mut(listener)
            .is_none_or(|it| it.queue.len() >= it.backlog_max)
        {
            return Err(Errno::AGAIN);
        }
        let connection = self.join((source, client), (address.clone(), Owner::Queued));
        if let Some(Listening { fd, queue, .. }) = self.listeners.get_mut(listener) {
            queue.push_back(EndId { connection, end: 1 });
            let fd = *fd;
            self.wake_descriptor(fd);
        }
        Ok(connection)
    }

    fn any_source(&mut self, address: &Address) -> Address {
        let port = self.free_port();
        match address {
            Address::Inet(SocketAddr::V6(_)) => Address::Inet(([0, 0, 0, 0, 0, 0, 0, 1], port).into()),
            Address::Inet(SocketAddr::V4(_)) => Address::Inet(([10, 0, 0, 1], port).into()),
            Address::Unix(_) => Address::Unix(std::path::PathBuf::new()),
        }
    }

    fn add_peer(&mut self, end: EndId) -> usize {
        let peer = self.peers.len();
        self.peers.push(Peer { end, arrived: 0 });
        if let Some(connection) = self.connection(end) {
            connection.ends[end.end].owner = Owner::Peer(peer);
            connection.ends[end.end].peer = Some(peer);
        }
        self.woken.push(peer);
        peer
    }
}

impl Network {
    /// Connects a scripted client to a listening socket of some runtime, at once.
    ///
    /// # Errors
    /// ECONNREFUSED if nobody listens, EAGAIN if the backlog is full (the real client would try again by itself).
    pub fn connect(&self, address: &Address) -> Result<PeerId, Errno> {
        self.connect_as(None, address)
    }

    /// The same from a given address.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_from(&self, source: SocketAddr, address: &Address) -> Result<PeerId, Errno> {
        self.connect_as(Some(Address::Inet(source)), address)
    }

    fn connect_as(&self, source: Option<Address>, address: &Address) -> Result<PeerId, Errno> {
        let mut kernel = self.0.borrow_mut();
        let welcome = kernel.welcome(address);
        let connection = kernel.establish(Owner::Nobody, source, address, welcome)?;
        Ok(PeerId(kernel.add_peer(EndId { connection, end: 0 })))
    }

    /// Listens with a script: `decide` says how each connection is met.
    pub fn listen_peer(&self, address: &Address, decide: impl FnMut(&mut Random) -> Welcome + 'static) -> PeerListener {
        let mut kernel = self.0.borrow_mut();
        let listening = PeerListening {
            address: address.clone(),
            decide: Box::new(decide),
            accepted: VecDeque::new(),
        };
        kernel.peer_listeners.push(listening);
        PeerListener(kernel.peer_listeners.len() - 1)
    }

    /// The next connection that was made to a scripted listener.
    pub fn accept_peer(&self, listener: PeerListener) -> Option<PeerId> {
        self.0.borrow_mut().peer_listeners[listener.0]
            .accepted
            .pop_front()
            .map(PeerId)
    }

    /// Sends as much as there is room for.
    ///
    /// # Errors
    /// EPIPE or ECONNRESET once the connection is broken.
    pub fn send(&self, peer: PeerId, bytes: &[u8]) -> Result<usize, Errno> {
        let mut kernel = self.0.borrow_mut();
        let end = kernel.peers[peer.0].end;
        kernel.write(end, bytes, bytes.len())
    }

    /// Reads at most `most` bytes into the end of `into`.
    pub fn receive(&self, peer: PeerId, most: usize, into: &mut Vec<u8>) -> Read {
        let mut kernel = self.0.borrow_mut();
        let id = kernel.peers[peer.0].end;
        let Some(connection) = kernel.connection(id) else {
            return Read::Broken;
        };
        let pipe = &mut connection.pipes[id.end];
        let n = pipe.arrived().min(most);
        if n > 0 {
            let start = into.len();
            into.resize(start + n, 0);
            pipe.read(&mut into[start..]);
            kernel.after_read(id);
            return Read::Bytes(n);
        }
        if pipe.fin_arrived {
            return Read::End;
        }
        if connection.ends[id.end].broken {
            Read::Broken
        } else {
            Read::Nothing
        }
    }

    /// Bytes that this actor sent and that have arrived in the other end's receive buffer.
    pub fn arrived(&self, peer: PeerId) -> u64 {
        self.0.borrow().peers[peer.0].arrived
    }

    /// Where a scripted backend's connection comes from; `None` once it is gone.
    pub fn address_of_other_end(&self, peer: PeerId) -> Option<Address> {
        let mut kernel = self.0.borrow_mut();
        let end = kernel.peers.get(peer.0)?.end;
        let connection = kernel.connection(end)?;
        Some(connection.ends[1 - end.end].address.clone())
    }

    /// Whether the connection was reset or has timed out, also if its end was read before.
    pub fn is_broken(&self, peer: PeerId) -> bool {
        let mut kernel = self.0.borrow_mut();
        let id = kernel.peers[peer.0].end;
        kernel
            .connection(id)
            .is_none_or(|connection| connection.ends[id.end].broken)
    }

    /// Ends the sending direction in order (FIN).
    ///
    /// # Errors
    /// ENOTCONN once the connection is broken.
    pub fn shutdown_write(&self, peer: PeerId) -> Result<(), Errno> {
        let mut kernel = self.0.borrow_mut();
        let end = kernel.peers[peer.0].end;
        kernel.shutdown(end)
    }

    /// Closes: in order, or with a reset if bytes were left unread.
    pub fn close(&self, peer: PeerId) {
        self.close_peer(peer, false);
    }

    /// Closes with a reset.
    pub fn reset(&self, peer: PeerId) {
        self.close_peer(peer, true);
    }

    fn close_peer(&self, peer: PeerId, abort: bool) {
        let mut kernel = self.0.borrow_mut();
        let end = kernel.peers[peer.0].end;
        kernel.close_end(end, abort);
    }

    /// Cuts the line: nothing gets through any more in either direction, and nobody is told.
    pub fn cut(&self, peer: PeerId) {
        let mut kernel = self.0.borrow_mut();
        let end = kernel.peers[peer.0].end;
        kernel.cut(end);
    }

    /// Some actor has news that nobody asked for yet.
    pub fn has_woken(&self) -> bool {
        !self.0.borrow().woken.is_empty()
    }

    /// Actors that have news since the last call, each perhaps several times.
    pub fn take_woken(&self) -> Vec<PeerId> {
        std::mem::take(&mut self.0.borrow_mut().woken)
            .into_iter()
            .map(PeerId)
            .collect()
    }
}
