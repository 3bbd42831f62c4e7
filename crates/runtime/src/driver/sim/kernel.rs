//! The simulated kernel's tables and its events: connections, listeners, descriptors, and what arrives when.
//!
//! Owns everything that the runtimes and actors of one network share. Knows TCP as far as a socket shows it, and
//! nothing of operations (`operations`) or actors' scripts (`peers`). Whoever breaks the kernel's rules in a way that
//! the real one would not forgive (closes a descriptor with operations in flight, uses a closed one) is reported by a
//! panic, and remembered.

use super::datagrams::{DatagramSocket, Packet};
use super::operations::Ring;
use super::peers::{Peer, PeerListening};
use super::random::Random;
use super::settings::{Chances, Seen};
use super::wire::{Connection, End, EndId, Owner, Pipe};
use crate::address::{Address, Source};
use crate::errno::Errno;
use crate::slab::{Slab, Token};
use crate::socket::SocketOptions;
use crate::time::Time;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

/// After this long without an acknowledgement the kernel gives a connection up (tcp(7), tcp_retries2).
const RETRANSMISSION_MAX: Duration = Duration::from_secs(924);
/// After this long without an answer to its SYN (tcp(7), tcp_syn_retries).
pub(super) const SYN_MAX: Duration = Duration::from_secs(127);

/// What happens at some time without anybody asking.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// Something arrives at an end.
    Deliver(EndId),
    /// A connect operation learns its fate.
    Connect { ring: usize, op: u64 },
    /// An end gives up on a peer that was cut off.
    Expire(EndId),
    /// A datagram arrives.
    Packet(u64),
}

struct Scheduled {
    at: Time,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// Reversed, so that the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// A listening socket of a runtime.
pub(super) struct Listening {
    pub(super) fd: i32,
    pub(super) address: Address,
    pub(super) options: SocketOptions,
    pub(super) backlog_max: usize,
    /// The server's ends of connections that wait for being accepted.
    pub(super) queue: VecDeque<EndId>,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Listener(Token),
    Stream(EndId),
    /// A socket that is not connected.
    Unconnected,
    /// An end of a pipe.
    Pipe(Token),
    Datagrams(Token),
}

pub(super) struct Descriptor {
    pub(super) ring: usize,
    pub(super) object: Object,
    pub(super) options: SocketOptions,
    /// What it was bound to before it connects; any address may be.
    pub(super) source: Option<Source>,
    /// Operations that were started and whose last completion has not been posted.
    pub(super) in_flight: u32,
    /// Of these, those that wait for something to happen.
    pub(super) waiting: Vec<u64>,
}

pub(super) struct Kernel {
    pub(super) random: Random,
    pub(super) chances: Chances,
    pub(super) seen: Seen,
    pub(super) now: Time,
    events: BinaryHeap<Scheduled>,
    sequence: u64,
    pub(super) connections: Slab<Connection>,
    pub(super) listeners: Slab<Listening>,
    /// What pipes hold.
    pub(super) pipes: Slab<VecDeque<u8>>,
    pub(super) datagram_sockets: Slab<DatagramSocket>,
    /// Datagrams under way, by the order in which they were sent.
    pub(super) packets: BTreeMap<u64, Packet>,
    pub(super) packet_sequence: u64,
    pub(super) descriptors: Vec<Option<Descriptor>>,
    pub(super) descriptors_open: usize,
    pub(super) descriptors_max: usize,
    pub(super) rings: Vec<Ring>,
    pub(super) peers: Vec<Peer>,
    pub(super) peer_listeners: Vec<PeerListening>,
    /// Actors that have news since they were last asked for.
    pub(super) woken: Vec<usize>,
    /// Turns never wait; the clock moves only when the network is told to.
    pub(super) hold_clock: bool,
    pub(super) next_port: u16,
    /// The first rule that was broken.
    pub(super) violation: Option<String>,
}

impl Kernel {
    pub(super) fn new(seed: u64, chances: Chances) -> Self {
        Self {
            random: Random::new(seed),
            chances,
            seen: Seen::default(),
            now: Time::from_nanos(1_000_000_000),
            events: BinaryHeap::new(),
            sequence: 0,
            connections: Slab::new(),
            listeners: Slab::new(),
            pipes: Slab::new(),
            datagram_sockets: Slab::new(),
            packets: BTreeMap::new(),
            packet_sequence: 0,
            descriptors: Vec::new(),
            descriptors_open: 0,
            descriptors_max: usize::MAX,
            rings: Vec::new(),
            peers: Vec::new(),
            peer_listeners: Vec::new(),
            woken: Vec::new(),
            hold_clock: false,
            next_port: 40_000,
            violation: None,
        }
    }

    /// A rule was broken that the real kernel would punish in ways that are hard to see.
    pub(super) fn violated(&mut self, rule: String) {
        // Some violations are met while unwinding from another one; the first is the one that matters.
        let first = self.violation.is_none();
        let message = format!("simulated kernel: {rule}");
        if first {
            self.violation = Some(message.clone());
        }
        if !std::thread::panicking() {
            panic!("{message}");
        }
    }

    pub(super) fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Scheduled {
            at,
            sequence: self.sequence,
            event,
        });
    }

    /// A draw between zero and `most`.
    pub(super) fn delay(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64 + 1))
    }

    /// Performs every event that is due.
    pub(super) fn pump(&mut self) {
        while self.events.peek().is_some_and(|next| next.at <= self.now) {
            let Some(Scheduled { event, .. }) = self.events.pop() else {
                return;
            };
            self.seen.events += 1;
            match event {
                Event::Deliver(end) => self.deliver(end),
                Event::Connect { ring, op } => self.connect_due(ring, op),
                Event::Expire(end) => self.expire(end),
                Event::Packet(name) => self.packet_due(name),
            }
        }
    }

    pub(super) fn next_event(&self) -> Option<Time> {
        self.events.peek().map(|next| next.at)
    }

    /// Two ends, nothing under way yet.
    pub(super) fn join(&mut self, client: (Address, Owner), server: (Address, Owner)) -> Token {
        let tcp = matches!(server.0, Address::Inet(_));
        let now = self.now;
        let (send, receive) = (self.chances.send_buffer, self.chances.receive_buffer);
        let random = &mut self.random;
        let mut pipe = || Pipe::new(random.size(send.0, send.1), random.size(receive.0, receive.1));
        let pipes = [pipe(), pipe()];
        let end = |(address, owner)| End {
            owner,
            peer: None,
            address,
            error: None,
            broken: false,
            shut: false,
            closed: false,
            keepalive: None,
            heard: now,
        };
        self.connections.insert(Connection {
            tcp,
            ends: [end(client), end(server)],
            pipes,
            cut: None,
        })
    }

    pub(super) fn connection(&mut self, id: EndId) -> Option<&mut Connection> {
        self.connections.get_mut(id.connection)
    }

    /// Lets what `from` sent reach the other end after the latency of the day.
    fn schedule_delivery(&mut self, to: EndId) {
        let latency = self.delay(self.chances.latency_max);
        let at = self.now + latency;
        let Some(connection) = self.connection(to) else { return };
        if connection.pipes[to.end].scheduled || connection.cut.is_some() {
            return;
        }
        connection.pipes[to.end].scheduled = true;
        self.schedule(at, Event::Deliver(to));
    }

    fn deliver(&mut self, to: EndId) {
        let partial = self.random.chance(self.chances.partial_delivery);
        let draw = self.random.bits();
        let now = self.now;
        let Some(connection) = self.connections.get_mut(to.connection) else {
            return;
        };
        let pipe = &mut connection.pipes[to.end];
        pipe.scheduled = false;
        if connection.cut.is_some() {
            return;
        }
        if pipe.reset {
            self.seen.resets_received += 1;
            self.seen.resets_with_bytes_lost += u64::from(pipe.lose_transit());
            self.break_end(to, Errno(libc::ECONNRESET));
            return;
        }
        if connection.ends[to.end].closed {
            let data = pipe.in_transit() > 0;
            pipe.clear();
            if data {
                // Bytes for a socket that is gone are answered with a reset.
                self.send_reset(to);
            }
            return;
        }
        let deliverable = pipe.deliverable();
        let n = if partial && deliverable > 1 {
            1 + (draw % deliverable as u64) as usize
        } else {
            deliverable
        };
        pipe.deliver(n);
        if let Some(peer) = connection.ends[1 - to.end].peer {
            self.peers[peer].arrived += n as u64;
        }
        let more = pipe.has_news();
        connection.ends[0].heard = now;
        connection.ends[1].heard = now;
        self.wake(to);
        self.wake(to.other());
        if more {
            self.schedule_delivery(to);
        }
    }

    /// The connection is over for this end, not in order.
    fn break_end(&mut self, id: EndId, errno: Errno) {
        let Some(connection) = self.connections.get_mut(id.connection) else {
            return;
        };
        if connection.ends[id.end].closed || connection.ends[id.end].broken {
            return;
        }
        // After the other end's FIN the kernel says EPIPE instead (tcp_reset of tcp_input.c).
        let after_end = connection.pipes[id.end].fin_arrived;
        connection.ends[id.end].broken = true;
        connection.ends[id.end].error = Some(if after_end { Errno(libc::EPIPE) } else { errno });
        connection.pipes[1 - id.end].lose_transit();
        self.wake(id);
    }

    fn send_reset(&mut self, from: EndId) {
        let to = from.other();
        if let Some(connection) = self.connection(to) {
            connection.pipes[to.end].reset = true;
            self.schedule_delivery(to);
        }
    }

    fn expire(&mut self, id: EndId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id.connection) else {
            return;
        };
        let Some(cut) = connection.cut else { return };
        // While bytes are not acknowledged, keepalive does not ask; retransmission does, and is more patient.
        if connection.pipes[1 - id.end].in_transit() > 0 && now < cut + RETRANSMISSION_MAX {
            self.schedule(cut + RETRANSMISSION_MAX, Event::Expire(id));
            return;
        }
        self.break_end(id, Errno(libc::ETIMEDOUT));
    }

    /// From now on nothing gets through, and nobody is told.
    pub(super) fn cut(&mut self, id: EndId) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id.connection) else {
            return;
        };
        connection.cut = Some(now);
        let times = [0, 1].map(|end| {
            connection.ends[end]
                .keepalive
                .map_or(now + RETRANSMISSION_MAX, |keepalive| {
                    connection.ends[end].heard + keepalive.idle + keepalive.interval * u32::from(keepalive.count)
                })
        });
        for (end, at) in times.into_iter().enumerate() {
            self.schedule(at.max(now), Event::Expire(EndId { end, ..id }));
        }
    }

    /// Sends as much as there is room for, at most `most`.
    pub(super) fn write(&mut self, id: EndId, bytes: &[u8], most: usize) -> Result<usize, Errno> {
        let Some(connection) = self.connection(id) else {
            return Err(Errno(libc::ENOTCONN));
        };
        let end = &mut connection.ends[id.end];
        if let Some(errno) = end.error.take() {
            return Err(errno);
        }
        if end.broken || end.shut || end.closed {
            return Err(Errno(libc::EPIPE));
        }
        let pipe = &mut connection.pipes[1 - id.end];
        let n = bytes.len().min(pipe.room()).min(most);
        if n > 0 {
            pipe.write(&bytes[..n]);
            self.schedule_delivery(id.other());
        }
        Ok(n)
    }

    /// Bytes were taken out of an end's receive buffer: the window is open again.
    pub(super) fn after_read(&mut self, id: EndId) {
        if self
            .connection(id)
            .is_some_and(|connection| connection.pipes[id.end].has_news())
        {
            self.schedule_delivery(id);
        }
    }

    pub(super) fn shutdown(&mut self, id: EndId) -> Result<(), Errno> {
        let Some(connection) = self.connection(id) else {
            return Err(Errno(libc::ENOTCONN));
        };
        let end = &mut connection.ends[id.end];
        if end.broken || end.closed {
            return Err(Errno(libc::ENOTCONN));
        }
        if !end.shut {
            end.shut = true;
            connection.pipes[1 - id.end].fin = true;
            self.schedule_delivery(id.other());
        }
        Ok(())
    }

    /// Closes an end: in order, or with a reset if asked for or if bytes are left unread.
    pub(super) fn close_end(&mut self, id: EndId, abort: bool) {
        let Some(connection) = self.connections.get_mut(id.connection) else {
            return;
        };
        let unread = connection.pipes[id.end].arrived() > 0;
        let undelivered = connection.pipes[1 - id.end].in_transit() > 0;
        let ended = connection.pipes[id.end].fin_arrived;
        connection.ends[id.end].owner = Owner::Nobody;
        connection.ends[id.end].closed = true;
        if connection.ends[1 - id.end].closed {
            self.connections.remove(id.connection);
            return;
        }
        let end = &mut connection.ends[id.end];
        if end.broken {
            return;
        }
        // Both directions ended and everything is acknowledged: there is nothing left to reset.
        let over = end.shut && ended && !undelivered;
        if unread || (abort && connection.tcp && !over) {
            end.broken = true;
            connection.pipes[id.end].clear();
            self.send_reset(id);
        } else if !end.shut {
            end.shut = true;
            connection.pipes[1 - id.end].fin = true;
            self.schedule_delivery(id.other());
        }
    }

    /// Tells whoever owns an end that something changed there.
    pub(super) fn wake(&mut self, id: EndId) {
        let Some(connection) = self.connection(id) else { return };
        match connection.ends[id.end].owner {
            Owner::Descriptor(fd) => self.wake_descriptor(fd),
            Owner::Peer(peer) => self.woken.push(peer),
            Owner::Queued | Owner::Nobody => {}
        }
    }

    pub(super) fn wake_descriptor(&mut self, fd: i32) {
        let Some(Some(descriptor)) = self.descriptors.get(fd as usize) else {
            return;
        };
        let ring = descriptor.ring;
        for n in 0..descriptor.waiting.len() {
            let Some(op) = self.descriptors[fd as usize]
                .as_ref()
                .and_then(|it| it.waiting.get(n).copied())
            else {
                return;
            };
            self.note_work(ring, op);
        }
    }

    /// The lowest free number, as the real kernel gives it.
    pub(super) fn allocate(&mut self, ring: usize, object: Object, options: SocketOptions) -> Result<i32, Errno> {
        if self.descriptors_open >= self.descriptors_max {
            return Err(Errno(libc::EMFILE));
        }
        let descriptor = Descriptor {
            ring,
            object,
            options,
            source: None,
            in_flight: 0,
            waiting: Vec::new(),
        };
        let free = self.descriptors.iter().position(Option::is_none).unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[free] = Some(descriptor);
        self.descriptors_open += 1;
        Ok(free as i32)
    }

    /// The descriptor, which must be open and belong to this ring.
    pub(super) fn descriptor(&mut self, ring: usize, fd: i32, what: &str) -> Option<&mut Descriptor> {
        let owner = match self.descriptors.get(usize::try_from(fd).unwrap_or(usize::MAX)) {
            Some(Some(descriptor)) => descriptor.ring,
            _ => {
                self.violated(format!("{what} on descriptor {fd}, which is not open"));
                return None;
            }
        };
        if owner != ring {
            self.violated(format!(
                "{what} by runtime {ring} on descriptor {fd}, which belongs to runtime {owner}"
            ));
            return None;
        }
        self.descriptors[fd as usize].as_mut()
    }

    /// What a descriptor is, once that is known.
    pub(super) fn stands_for(&mut self, ring: usize, fd: i32, object: Object) {
        if let Some(descriptor) = self.descriptor(ring, fd, "bind") {
            descriptor.object = object;
        }
    }

    /// An end becomes a descriptor's.
    pub(super) fn attach(&mut self, fd: i32, end: EndId, options: SocketOptions) {
        if let Some(connection) = self.connection(end) {
            connection.ends[end.end].owner = Owner::Descriptor(fd);
            connection.ends[end.end].keepalive = options.keepalive;
        }
        if let Some(Some(descriptor)) = self.descriptors.get_mut(fd as usize) {
            descriptor.object = Object::Stream(end);
        }
    }
}
