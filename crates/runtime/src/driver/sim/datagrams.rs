//! Datagrams in the simulated network: sockets, actors, loss, and what comes back when nobody listens.
//!
//! As measured of the kernel: a connected socket is found before one that is only bound; sockets that share an address are
//! chosen by a hash of both ends; an error is told before what has arrived; an empty datagram ends a multishot receive;
//! what finds no room is dropped and counted. Datagrams from one socket to another stay in order.

use super::kernel::{Event, Kernel, Object};
use super::operations::Posted;
use super::{Network, Sim};
use crate::address::Source;
use crate::datagram::{Arrived, DatagramOptions, Departure, HEADER, header};
use crate::driver::Fd;
use crate::errno::Errno;
use crate::slab::Token;
use crate::socket::SocketOptions;
use crate::time::Time;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// net.core.rmem_default of most systems.
const RECEIVE_BUFFER: usize = 212_992;
/// What a datagram takes of a receive buffer beyond its bytes (`struct sk_buff` and its data's rounding), roughly.
const OVERHEAD: usize = 512;
/// Where sockets that are connected without a source send from.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A datagram, or a train of them, under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: Option<u16>,
    class: u8,
    /// It says that nobody listened where the receiver of this had sent to.
    unreachable: bool,
}

impl Packet {
    /// Datagrams in it.
    fn count(&self) -> u64 {
        match self.segment {
            Some(segment) if segment > 0 => self.bytes.len().div_ceil(segment.into()).max(1) as u64,
            _ => 1,
        }
    }
}

/// A datagram socket of a runtime or of an actor.
pub(super) struct DatagramSocket {
    /// `None`: an actor's.
    fd: Option<i32>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    room: usize,
    /// It is given no trains (UDP_GRO is off).
    apart: bool,
    arrived: VecDeque<Packet>,
    error: Option<Errno>,
    dropped: u32,
    /// When the last datagram to it arrives.
    last: Time,
}

impl DatagramSocket {
    /// Takes what has come to it, if there is room.
    fn take(&mut self, packet: Packet) -> Result<(), u64> {
        if self.used() + packet.bytes.len() + OVERHEAD > self.room {
            self.dropped += packet.count() as u32;
            return Err(packet.count());
        }
        match packet.segment.filter(|&segment| self.apart && segment > 0) {
            None => self.arrived.push_back(packet),
            Some(segment) => {
                let pieces = packet.bytes.chunks(segment.into()).map(|bytes| Packet {
                    bytes: bytes.to_vec(),
                    segment: None,
                    ..packet
                });
                self.arrived.extend(pieces);
            }
        }
        Ok(())
    }

    fn used(&self) -> usize {
        self.arrived.iter().map(|packet| packet.bytes.len() + OVERHEAD).sum()
    }

    /// How well it fits a datagram: the kernel's compute_score.
    fn fits(&self, packet: &Packet) -> Option<u8> {
        let bound = self.local.port() == packet.to.port()
            && (self.local.ip() == packet.to.ip() || self.local.ip().is_unspecified());
        match self.peer {
            _ if !bound => None,
            Some(peer) => (peer == packet.from).then_some(2),
            None => Some(1),
        }
    }
}

impl Kernel {
    fn open_datagrams(
        &mut self,
        fd: Option<i32>,
        (local, peer): (SocketAddr, Option<SocketAddr>),
        (room, apart): (usize, bool),
    ) -> Token {
        self.datagram_sockets.insert(DatagramSocket {
            fd,
            local,
            peer,
            room,
            apart,
            arrived: VecDeque::new(),
            error: None,
            dropped: 0,
            last: Time::from_nanos(0),
        })
    }

    pub(super) fn free_port(&mut self) -> u16 {
        self.next_port = self.next_port.wrapping_add(1).max(1024);
        self.next_port
    }

    fn find_datagrams(&mut self, packet: &Packet) -> Option<Token> {
        let mut found: Vec<(u8, Token)> = self
            .datagram_sockets
            .iter_mut()
            .filter_map(|(token, socket)| Some((socket.fits(packet)?, token)))
            .collect();
        let best = found.iter().map(|(score, _)| *score).max()?;
        found.retain(|(score, _)| *score == best);
        let mut hasher = DefaultHasher::new();
        (packet.from, packet.to).hash(&mut hasher);
        let chosen = hasher.finish() % found.len() as u64;
        Some(found[chosen as usize].1)
    }

    /// Sends a packet on its way.
    pub(super) fn send_packet(&mut self, packet: Packet) {
        if self.random.chance(self.chances.datagram_lost) {
            self.seen.datagrams_lost += packet.count();
            return;
        }
        let latency = self.delay(self.chances.latency_max);
        let mut at = self.now + latency;
        if let Some(to) = self.find_datagrams(&packet)
            && let Some(socket) = self.datagram_sockets.get_mut(to)
        {
            at = at.max(socket.last);
            socket.last = at;
        }
        self.packet_sequence += 1;
        let name = self.packet_sequence;
        self.packets.insert(name, packet);
        self.schedule(at, Event::Packet(name));
    }

    /// A packet arrives.
    pub(super) fn packet_due(&mut self, name: u64) {
        let Some(packet) = self.packets.remove(&name) else {
            return;
        };
        let Some(token) = self.find_datagrams(&packet) else {
            if !packet.unreachable {
                self.seen.datagrams_unreachable += packet.count();
                self.send_packet(Packet {
                    from: packet.to,
                    to: packet.from,
                    bytes: Vec::new(),
                    segment: None,
                    class: 0,
                    unreachable: true,
                });
            }
            return;
        };
        let Some(socket) = self.datagram_sockets.get_mut(token) else {
            return;
        };
        let fd = socket.fd;
        if packet.unreachable {
            // Who is not connected is not told (ip(7), IP_RECVERR).
            if socket.peer.is_none() {
                return;
            }
            socket.error = Some(Errno(libc::ECONNREFUSED));
        } else if let Err(dropped) = socket.take(packet) {
            self.seen.datagrams_dropped += dropped;
            return;
        }
        if let Some(fd) = fd {
            self.wake_descriptor(fd);
        }
    }

    pub(super) fn is_dry_of_datagrams(&self, ring: usize) -> bool {
        let buffers = self.rings[ring].datagram_ring.as_ref();
        buffers.is_none_or(|buffers| !buffers.has_published())
    }

    /// Only a failure is posted.
    pub(super) fn submit_datagram(
        &mut self,
        ring: usize,
        op: u64,
        fd: i32,
        (bytes, buffer): (Vec<u8>, Option<u16>),
        departure: &Departure,
    ) {
        let buffers = self.rings[ring].datagram_ring.clone();
        if let (Some(buffers), Some(buffer)) = (buffers, buffer)
            && !buffers.is_lent(buffer)
        {
            self.violated(format!(
                "buffer {buffer} was given back before its datagram was submitted"
            ));
        }
        let result = self.send_datagram(ring, fd, bytes, departure);
        if result < 0 {
            self.rings[ring].posted.push(Posted {
                op,
                result,
                more: false,
                buffer: None,
            });
        }
        self.land(fd);
    }

    /// Sends from a runtime's socket.
    fn send_datagram(&mut self, ring: usize, fd: i32, bytes: Vec<u8>, departure: &Departure) -> i32 {
        let Some(descriptor) = self.descriptor(ring, fd, "a datagram's send") else {
            return -libc::EBADF;
        };
        let Object::Datagrams(token) = descriptor.object else {
            return -libc::ENOTSOCK;
        };
        let full = self.random.chance(self.chances.full_send);
        let refuses = departure.segment.is_some() && self.random.chance(self.chances.train_refused);
        let Some(socket) = self.datagram_sockets.get_mut(token) else {
            return -libc::EBADF;
        };
        // Told to whoever asks first, a sender too.
        if let Some(errno) = socket.error.take() {
            return -errno.0;
        }
        if full {
            self.seen.full_sends += 1;
            return -libc::EAGAIN;
        }
        if refuses {
            self.seen.trains_refused += 1;
            return -libc::EINVAL;
        }
        let Some(to) = departure.to.or(socket.peer) else {
            return -libc::EDESTADDRREQ;
        };
        let ip = departure.from.unwrap_or_else(|| socket.local.ip());
        let ip = if ip.is_unspecified() { LOCAL } else { ip };
        let packet = Packet {
            from: SocketAddr::new(ip, socket.local.port()),
            to,
            bytes,
            segment: departure.segment,
            class: departure.class.unwrap_or(0),
            unreachable: false,
        };
        let sent = packet.bytes.len() as i32;
        self.send_packet(packet);
        sent
    }

    /// A receive of datagrams: takes what is there.
    pub(super) fn try_datagrams(&mut self, ring: usize, id: u64, fd: i32) {
        let token = match self.descriptors.get(fd as usize) {
            Some(Some(descriptor)) => match descriptor.object {
                Object::Datagrams(token) => token,
                _ => return self.finish(ring, id, -libc::ENOTSOCK),
            },
            _ => return,
        };
        loop {
            let Some(socket) = self.datagram_sockets.get_mut(token) else {
                return;
            };
            let error = socket.error;
            if error.is_none() && socket.arrived.is_empty() {
                return;
            }
            let Some(buffers) = self.rings[ring].datagram_ring.clone() else {
                return;
            };
            if !buffers.has_published() {
                self.seen.buffers_dry += 1;
                return self.finish(ring, id, -libc::ENOBUFS);
            }
            if let Some(errno) = error {
                socket.error = None;
                return self.finish(ring, id, -errno.0);
            }
            let Some(packet) = socket.arrived.pop_front() else {
                return;
            };
            let arrived = Arrived {
                from: Some(packet.from),
                to: Some(packet.to.ip()),
                segment: packet.segment,
                class: packet.class,
                dropped: (socket.dropped > 0).then_some(socket.dropped),
                truncated: false,
            };
            let len = packet.bytes.len();
            let buffer = buffers.kernel_receive(|place| {
                place[..HEADER].copy_from_slice(&header(&arrived, len as u32));
                place[HEADER..][..len].copy_from_slice(&packet.bytes);
            });
            let last = Posted {
                op: id,
                result: (HEADER + len) as i32,
                more: false,
                buffer,
            };
            let ended = self.random.chance(self.chances.receive_ended);
            if len == 0 || ended {
                self.seen.receives_ended += 1;
                return self.retire_op(ring, id, last);
            }
            self.rings[ring].posted.push(Posted { more: true, ..last });
        }
    }

    pub(super) fn close_datagrams(&mut self, token: Token) {
        self.datagram_sockets.remove(token);
    }
}

impl Sim {
    pub(crate) fn bind_datagrams(
        &mut self,
        address: SocketAddr,
        options: &DatagramOptions,
    ) -> Result<(Fd, SocketAddr), Errno> {
        let mut kernel = self.call();
        let mut local = address;
        if local.port() == 0 {
            local.set_port(kernel.free_port());
        }
        let fd = kernel.allocate(self.ring, Object::Unconnected, SocketOptions::default())?;
        let token = kernel.open_datagrams(Some(fd), (local, None), (room(options), options.apart));
        kernel.stands_for(self.ring, fd, Object::Datagrams(token));
        Ok((Fd(fd), local))
    }

    pub(crate) fn connect_datagrams(
        &mut self,
        to: SocketAddr,
        source: Option<Source>,
        options: &DatagramOptions,
    ) -> Result<Fd, Errno> {
        let mut kernel = self.call();
        let exhausted = kernel.chances.open_exhausted;
        if kernel.random.chance(exhausted) {
            kernel.seen.opens_exhausted += 1;
            return Err(Errno(libc::EMFILE));
        }
        let fd = kernel.allocate(self.ring, Object::Unconnected, SocketOptions::default())?;
        let local = SocketAddr::new(source.map_or(LOCAL, Source::ip), kernel.free_port());
        let token = kernel.open_datagrams(Some(fd), (local, Some(to)), (room(options), options.apart));
        kernel.stands_for(self.ring, fd, Object::Datagrams(token));
        Ok(Fd(fd))
    }
}

fn room(options: &DatagramOptions) -> usize {
    match options.receive_buffer {
        0 => RECEIVE_BUFFER,
        bytes => bytes as usize,
    }
}

/// A scripted client or server of datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramPeer(Token);

impl fmt::Debug for DatagramPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramPeer").field(&self.0.slot).finish()
    }
}

/// A datagram, or a train, that an actor received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// A train: bytes of each but the last.
    pub segment: Option<u16>,
    /// Its traffic class.
    pub class: u8,
}

impl Network {
    /// An actor that receives what is sent to this address.
    pub fn datagram_peer(&self, address: SocketAddr) -> DatagramPeer {
        let mut kernel = self.0.borrow_mut();
        DatagramPeer(kernel.open_datagrams(None, (address, None), (usize::MAX, false)))
    }

    /// It is gone: what is sent to it from now on is answered by an error.
    pub fn close_datagram_peer(&self, peer: DatagramPeer) {
        self.0.borrow_mut().close_datagrams(peer.0);
    }

    /// An actor sends a datagram; with `segment`, a train of them.
    pub fn send_letter(&self, peer: DatagramPeer, to: SocketAddr, bytes: &[u8], segment: Option<u16>, class: u8) {
        let mut kernel = self.0.borrow_mut();
        let Some(from) = kernel.datagram_sockets.get_mut(peer.0).map(|socket| socket.local) else {
            return;
        };
        kernel.send_packet(Packet {
            from,
            to,
            bytes: bytes.to_vec(),
            segment,
            class,
            unreachable: false,
        });
    }

    /// What has arrived next for an actor.
    pub fn receive_letter(&self, peer: DatagramPeer) -> Option<Letter> {
        let mut kernel = self.0.borrow_mut();
        let packet = kernel.datagram_sockets.get_mut(peer.0)?.arrived.pop_front()?;
        Some(Letter {
            from: packet.from,
            bytes: packet.bytes,
            segment: packet.segment,
            class: packet.class,
        })
    }

    /// Lets a datagram's latency pass for everything that is under way.
    pub fn settle_datagrams(&self) {
        let latency = self.0.borrow().chances.latency_max;
        self.advance(latency + Duration::from_micros(1));
    }
}
