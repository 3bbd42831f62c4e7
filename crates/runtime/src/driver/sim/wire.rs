//! What two ends of a simulated connection hold: bytes under way, bytes arrived, and how it ended.
//!
//! Values only: no events, descriptors or chance. `kernel` decides when something arrives and who is told.

use crate::address::Address;
use crate::errno::Errno;
use crate::socket::Keepalive;
use crate::time::Time;
use std::collections::VecDeque;

/// One direction, read by the end that it is named after.
pub(super) struct Pipe {
    /// Arrived bytes first, then those under way.
    bytes: VecDeque<u8>,
    arrived: usize,
    receive_max: usize,
    send_max: usize,
    /// The sender has ended in order, behind the bytes.
    pub(super) fin: bool,
    pub(super) fin_arrived: bool,
    /// The sender has reset; overtakes what is under way.
    pub(super) reset: bool,
    /// A delivery is due.
    pub(super) scheduled: bool,
}

impl Pipe {
    pub(super) const fn new(send_max: usize, receive_max: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            arrived: 0,
            receive_max,
            send_max,
            fin: false,
            fin_arrived: false,
            reset: false,
            scheduled: false,
        }
    }

    /// Bytes that the receiver could read now.
    pub(super) const fn arrived(&self) -> usize {
        self.arrived
    }

    /// Bytes that the sender's kernel still holds.
    pub(super) fn in_transit(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// Size of the sender's buffer.
    pub(super) const fn send_max(&self) -> usize {
        self.send_max
    }

    /// Bytes that the sender could send now.
    pub(super) fn room(&self) -> usize {
        self.send_max.saturating_sub(self.in_transit())
    }

    /// As the kernel's sk_stream_is_writeable: not for every single byte of room.
    pub(super) fn is_writable(&self) -> bool {
        self.room() >= self.send_max.div_ceil(3)
    }

    /// Bytes that could arrive now.
    pub(super) fn deliverable(&self) -> usize {
        self.in_transit().min(self.receive_max.saturating_sub(self.arrived))
    }

    /// Something could arrive now.
    pub(super) fn has_news(&self) -> bool {
        self.reset || self.deliverable() > 0 || (self.fin && !self.fin_arrived && self.in_transit() == 0)
    }

    pub(super) fn deliver(&mut self, n: usize) {
        self.arrived += n;
        if self.fin && self.in_transit() == 0 {
            self.fin_arrived = true;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Fills `into` from the arrived bytes, as far as they go.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let n = into.len().min(self.arrived);
        let (first, second) = self.bytes.as_slices();
        let split = n.min(first.len());
        into[..split].copy_from_slice(&first[..split]);
        into[split..n].copy_from_slice(&second[..n - split]);
        self.bytes.drain(..n);
        self.arrived -= n;
        n
    }

    /// The sender's kernel drops what it holds. `true` if there was anything.
    pub(super) fn lose_transit(&mut self) -> bool {
        let lost = self.in_transit() > 0;
        self.bytes.truncate(self.arrived);
        lost
    }

    /// Both kernels drop everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.arrived = 0;
    }
}

/// Who is told of news at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A descriptor of some runtime.
    Descriptor(i32),
    /// An actor.
    Peer(usize),
    /// Waits in a backlog.
    Queued,
    /// Closed.
    Nobody,
}

pub(super) struct End {
    pub(super) owner: Owner,
    /// The actor that has or had this end.
    pub(super) peer: Option<usize>,
    pub(super) address: Address,
    /// Of a broken connection, until it was reported to whoever asked first.
    pub(super) error: Option<Errno>,
    /// Reset or timed out: nothing goes out or comes in any more; what arrived can still be read.
    pub(super) broken: bool,
    /// FIN was sent.
    pub(super) shut: bool,
    pub(super) closed: bool,
    pub(super) keepalive: Option<Keepalive>,
    /// When the other end was last heard of.
    pub(super) heard: Time,
}

pub(super) struct Connection {
    /// `false`: a UNIX socket pair, which has no resets on request.
    pub(super) tcp: bool,
    pub(super) ends: [End; 2],
    /// `pipes[i]` is read by `ends[i]`.
    pub(super) pipes: [Pipe; 2],
    /// Nothing gets through any more, and nobody is told.
    pub(super) cut: Option<Time>,
}

impl Connection {
    /// A receive at this end would find something: bytes, the end, or an error.
    pub(super) fn is_readable(&self, end: usize) -> bool {
        self.pipes[end].arrived() > 0 || self.pipes[end].fin_arrived || self.ends[end].broken
    }

    pub(super) fn is_writable(&self, end: usize) -> bool {
        self.ends[end].broken || self.ends[end].shut || self.pipes[1 - end].is_writable()
    }
}

/// Names an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    pub(super) connection: crate::slab::Token,
    pub(super) end: usize,
}

impl EndId {
    pub(super) const fn other(self) -> Self {
        Self {
            connection: self.connection,
            end: 1 - self.end,
        }
    }
}
