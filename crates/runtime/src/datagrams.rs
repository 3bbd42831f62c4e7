//! Datagram sockets and the one queue that they all feed.
//!
//! Many sockets, one owner: whoever serves UDP polls one queue instead of a future for each socket, and a session costs no
//! task. What arrives carries the key that its socket was given.

use crate::address::Source;
use crate::buffer_ring::Leases;
use crate::datagram::{DatagramOptions, Departure, Event, PREFIX_MAX, Prefix};
use crate::driver::Fd;
use crate::errno::Errno;
use crate::reactor::{Arrival, SocketSlot};
use crate::slab::Token;
use crate::{Handle, Inner};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

/// Datagrams that may be joined to a train (the kernel's UDP_MAX_SEGMENTS was 64 at first).
pub const TRAIN_MAX: u16 = crate::driver::SEND_PIECES_MAX as u16;

/// What arrives at the sockets of one owner.
pub struct Datagrams {
    runtime: Rc<Inner>,
    queue: Token,
}

impl Datagrams {
    pub(crate) fn new(handle: &Handle) -> Self {
        let runtime = handle.0.clone();
        let queue = runtime.reactor.borrow_mut().open_queue();
        Self { runtime, queue }
    }

    /// The next event, with the key of its socket. Those of one socket come in order. What came before its socket was
    /// dropped still comes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(u64, Event)> {
        let arrival = self
            .runtime
            .reactor
            .borrow_mut()
            .poll_queue(self.queue, context.waker());
        let Some((key, arrival)) = arrival else {
            return Poll::Pending;
        };
        let event = match arrival {
            Arrival::Datagram(arrived, links) => {
                let ring = self.runtime.datagram_ring.as_ref().expect("it came in its buffers");
                Event::Datagram(arrived, Leases::new(ring, links))
            }
            Arrival::Failed(errno) => Event::Failed(errno),
            Arrival::Ended(errno) => Event::Ended(errno),
            Arrival::SendFailed(errno) => Event::SendFailed(errno),
            Arrival::TrainRefused(departure, links) => {
                let ring = self.runtime.datagram_ring.as_ref().expect("it came in its buffers");
                Event::TrainRefused(departure, Leases::new(ring, links))
            }
        };
        Poll::Ready((key, event))
    }

    /// The same as a future.
    pub async fn next(&mut self) -> (u64, Event) {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Takes over a socket that was bound by [`crate::bind_datagrams`], and receives from it.
    pub fn adopt(&self, socket: OwnedFd, is_ipv6: bool, key: u64) -> DatagramSocket {
        self.start(Fd(socket.into_raw_fd()), is_ipv6, key)
    }

    /// Opens a socket that is connected, from `source` if given, and receives from it.
    ///
    /// # Errors
    /// What kept it from being made: descriptors, ports, an address that is not ours, no route.
    pub fn connect(
        &self,
        to: SocketAddr,
        source: Option<Source>,
        options: &DatagramOptions,
        key: u64,
    ) -> Result<DatagramSocket, Errno> {
        let fd = self
            .runtime
            .reactor
            .borrow_mut()
            .driver
            .connect_datagrams(to, source, options)?;
        Ok(self.start(fd, to.is_ipv6(), key))
    }

    /// Binds a socket in the simulated network, and receives from it.
    ///
    /// # Errors
    /// As bind(2).
    #[cfg(feature = "sim")]
    pub fn bind(
        &self,
        address: SocketAddr,
        options: &DatagramOptions,
        key: u64,
    ) -> Result<(DatagramSocket, SocketAddr), Errno> {
        let (fd, bound) = self
            .runtime
            .reactor
            .borrow_mut()
            .driver
            .bind_datagrams(address, options)?;
        Ok((self.start(fd, address.is_ipv6(), key), bound))
    }

    fn start(&self, fd: Fd, is_ipv6: bool, key: u64) -> DatagramSocket {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let socket = reactor.adopt(fd);
        let receive = reactor.receive_datagrams(&socket, self.queue, key);
        drop(reactor);
        DatagramSocket {
            runtime: self.runtime.clone(),
            socket,
            receive,
            is_ipv6,
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().close_queue(self.queue);
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Datagrams").field(&self.queue).finish()
    }
}

/// A datagram socket that receives. Dropping it closes it, as soon as its operations are over.
pub struct DatagramSocket {
    runtime: Rc<Inner>,
    socket: SocketSlot,
    receive: Token,
    is_ipv6: bool,
}

impl DatagramSocket {
    /// Sends a datagram, or a train of them, by the end of this turn or not at all; of a failure the queue hears. Sends of
    /// one socket stay in order. Panics if the leases come from another runtime, or are several datagrams without being a
    /// train, or more than [`TRAIN_MAX`].
    pub fn send(&self, leases: Leases, departure: &Departure) {
        self.send_behind(None, leases, departure);
    }

    /// The same with bytes in front. Panics also if those are too many, or if the datagrams of a train do not leave apart:
    /// as a train they would have to be of one length.
    pub fn send_behind(&self, prefix: Option<Prefix<'_>>, leases: Leases, departure: &Departure) {
        if let Some(prefix) = prefix {
            assert!(
                prefix.bytes.len() <= PREFIX_MAX,
                "{} bytes in front",
                prefix.bytes.len()
            );
            assert!(
                departure.segment.is_none() || departure.apart,
                "a train behind a prefix"
            );
        }
        let is_train = departure.segment.is_some() && leases.buffers() <= TRAIN_MAX;
        assert!(leases.buffers() <= 1 || is_train, "datagrams that are no train");
        let ring = self.runtime.datagram_ring.as_ref().expect("it receives datagrams");
        let links = leases.into_links(ring);
        let mut reactor = self.runtime.reactor.borrow_mut();
        let way = (&self.socket, self.is_ipv6, self.receive);
        reactor.send_datagram(way, prefix, links, departure);
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        let mut reactor = self.runtime.reactor.borrow_mut();
        reactor.abandon(self.receive);
        reactor.close(&self.socket, false);
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramSocket").field(&self.socket).finish()
    }
}
