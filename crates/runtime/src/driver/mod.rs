//! The seam between the runtime and whatever performs operations: the kernel's ring, or the simulated network.
//!
//! A driver starts operations named by a token, reports completions, and performs the short socket calls directly. It
//! never decides anything and knows no futures. A descriptor number given to a driver stays reserved until `close`.

#[cfg(feature = "sim")]
pub mod sim;
pub(crate) mod uring;

use crate::address::{Address, Source};
use crate::buffer_ring::{BufferRing, Links};
use crate::datagram::{DatagramOptions, Departure, Prefix};
use crate::errno::Errno;
use crate::slab::Token;
#[cfg(feature = "sim")]
use crate::socket::ListenOptions;
use crate::socket::{SendRoom, SocketOptions, TcpInfo};
use crate::time::Time;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Pieces of one send: a longer queue goes out in several turns. Far below the kernel's UIO_MAXIOV.
pub(crate) const SEND_PIECES_MAX: usize = 64;

/// A descriptor owned by the runtime's socket table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fd(pub(crate) i32);

/// What to start. Borrowed parts need to live until `start` returns; buffers until the completion.
pub(crate) enum Operation<'a> {
    /// Accept again and again until cancelled or failed, or `once`.
    Accept { fd: Fd, once: bool },
    /// Receive into published buffers: again and again, at most `BufferRing::bundle_max` bytes at a time; or `once`, at most
    /// so many bytes (rounded to whole buffers, at least one).
    Receive { fd: Fd, once: Option<u32> },
    /// Connect once.
    Connect { fd: Fd, address: &'a Address },
    /// Send what fits now, never wait. Without `report`, nothing is reported when everything fitted: no completion by
    /// the end of the turn then means success.
    Send { fd: Fd, links: &'a Links, report: bool },
    /// The same for bytes outside of the buffer ring.
    SendBytes { fd: Fd, bytes: &'a [u8], report: bool },
    /// Receive datagrams into buffers published for them, again and again.
    ReceiveDatagrams { fd: Fd },
    /// Send one datagram or train, now or not at all; only a failure is reported. `is_ipv6`: the socket's family.
    SendDatagram {
        fd: Fd,
        is_ipv6: bool,
        prefix: Option<Prefix<'a>>,
        links: &'a Links,
        departure: &'a Departure,
    },
    /// Report once when there is room to send, or the connection broke.
    Writable { fd: Fd },
    /// Report once when there is something to receive: bytes, the end, or an error.
    Readable { fd: Fd },
    /// Report once when another thread called.
    Notified,
    /// Cancel what this token names. Never reported itself.
    Cancel { target: Token },
}

/// What a driver reports.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// As in a completion queue entry: negative errno, or a count.
    pub(crate) result: i32,
    /// More completions of the same operation will follow.
    pub(crate) more: bool,
    /// Received bytes.
    pub(crate) links: Links,
    /// They are in a buffer for datagrams.
    pub(crate) is_datagram: bool,
}

/// How long a turn may wait for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    For(Duration),
    /// Until something happens.
    Forever,
}

/// A pipe: both its ends, and the bytes that it holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeEnds {
    pub(crate) read: Fd,
    pub(crate) write: Fd,
    pub(crate) size: u32,
}

/// Counters of a driver, monotonic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DriverStats {
    pub(crate) enters: u64,
    pub(crate) direct_calls: u64,
    pub(crate) overflows: u64,
}

/// Kind of a socket to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Ipv4,
    Ipv6,
    Unix,
}

impl Domain {
    pub(crate) const fn of(address: &Address) -> Self {
        match address {
            Address::Inet(std::net::SocketAddr::V4(_)) => Self::Ipv4,
            Address::Inet(std::net::SocketAddr::V6(_)) => Self::Ipv6,
            Address::Unix(_) => Self::Unix,
        }
    }
}

pub(crate) enum Driver {
    Uring(Box<uring::Uring>),
    #[cfg(feature = "sim")]
    Sim(sim::Sim),
}

/// Calls the same method of whichever driver it is.
macro_rules! delegate {
    ($self:ident, $driver:ident => $call:expr) => {
        match $self {
            Driver::Uring($driver) => $call,
            #[cfg(feature = "sim")]
            Driver::Sim($driver) => $call,
        }
    };
}

impl Driver {
    pub(crate) fn buffer_ring(&self) -> &Rc<BufferRing> {
        delegate!(self, driver => driver.buffer_ring())
    }

    /// The buffers for datagrams, where there are any.
    pub(crate) fn datagram_ring(&self) -> Option<&Rc<BufferRing>> {
        delegate!(self, driver => driver.datagram_ring())
    }

    /// Whether a receive that goes on is set aside after a completion of so many bytes: the kernel does that when a bundle
    /// has reached its limit, or after 32 completions (which full buffers alone can make at once).
    pub(crate) fn is_set_aside_after(&self, bytes: u32) -> bool {
        let bundles = match self {
            Self::Uring(driver) => driver.uses_bundles(),
            #[cfg(feature = "sim")]
            Self::Sim(_) => true,
        };
        let buffer_ring = self.buffer_ring();
        bytes
            >= if bundles {
                buffer_ring.bundle_max()
            } else {
                buffer_ring.buffer_size()
            }
    }

    pub(crate) fn stats(&self) -> DriverStats {
        delegate!(self, driver => driver.stats())
    }

    /// The clock.
    pub(crate) fn now(&self) -> Time {
        delegate!(self, driver => driver.now())
    }

    /// CPU time of this thread, in the kernel and outside.
    pub(crate) fn cpu_time(&mut self) -> Duration {
        delegate!(self, driver => driver.cpu_time())
    }

    /// Queues an operation; it reaches the kernel with the next turn at the latest.
    #[inline]
    pub(crate) fn start(&mut self, operation: Operation<'_>, token: Token) {
        delegate!(self, driver => driver.start(operation, token));
    }

    /// Submits everything queued, waits, and appends what completed. One system call.
    pub(crate) fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        delegate!(self, driver => driver.turn(wait, completions));
    }

    /// Opens a stream socket, bound to `source` if given.
    pub(crate) fn open(&mut self, domain: Domain, source: Option<Source>) -> Result<Fd, Errno> {
        delegate!(self, driver => driver.open(domain, source))
    }

    /// Opens a datagram socket that is connected, from `source` if given.
    pub(crate) fn connect_datagrams(
        &mut self,
        to: SocketAddr,
        source: Option<Source>,
        options: &DatagramOptions,
    ) -> Result<Fd, Errno> {
        delegate!(self, driver => driver.connect_datagrams(to, source, options))
    }

    /// Binds a datagram socket that shares its address with other workers' sockets. Returns the address as bound.
    #[cfg(feature = "sim")]
    pub(crate) fn bind_datagrams(
        &mut self,
        address: SocketAddr,
        options: &DatagramOptions,
    ) -> Result<(Fd, SocketAddr), Errno> {
        match self {
            Self::Uring(_) => {
                let (fd, bound) = crate::bind_datagrams(address, options).map_err(|error| error.errno)?;
                Ok((Fd(std::os::fd::IntoRawFd::into_raw_fd(fd)), bound))
            }
            Self::Sim(driver) => driver.bind_datagrams(address, options),
        }
    }

    /// Opens a listening socket that shares its address with other workers' sockets. Returns the address as bound.
    #[cfg(feature = "sim")]
    pub(crate) fn listen(&mut self, address: &Address, options: &ListenOptions) -> Result<(Fd, Address), Errno> {
        match self {
            Self::Uring(_) => {
                let (fd, bound) = crate::socket::listen(address, options).map_err(|error| error.errno)?;
                Ok((Fd(std::os::fd::IntoRawFd::into_raw_fd(fd)), bound))
            }
            Self::Sim(driver) => driver.listen(address, options),
        }
    }

    /// Gives a descriptor back; `abort` sends a reset where there is a connection.
    pub(crate) fn close(&mut self, fd: Fd, abort: bool) {
        delegate!(self, driver => driver.close(fd, abort));
    }

    /// Ends the sending direction (FIN).
    pub(crate) fn shutdown_write(&mut self, fd: Fd) -> Result<(), Errno> {
        delegate!(self, driver => driver.shutdown_write(fd))
    }

    pub(crate) fn peer_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        delegate!(self, driver => driver.peer_address(fd))
    }

    pub(crate) fn local_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        delegate!(self, driver => driver.local_address(fd))
    }

    pub(crate) fn set_options(&mut self, fd: Fd, options: &SocketOptions) -> Result<(), Errno> {
        delegate!(self, driver => driver.set_options(fd, options))
    }

    pub(crate) fn send_room(&mut self, fd: Fd) -> Option<SendRoom> {
        delegate!(self, driver => driver.send_room(fd))
    }

    /// Reno instead of BBR.
    pub(crate) fn leave_bbr(&mut self, fd: Fd) -> Result<(), Errno> {
        delegate!(self, driver => driver.leave_bbr(fd))
    }

    /// Bounds what the kernel receives ahead of us.
    pub(crate) fn bound_receive_buffer(&mut self, fd: Fd, bytes: u32) -> Result<(), Errno> {
        delegate!(self, driver => driver.bound_receive_buffer(fd, bytes))
    }

    /// `None` for sockets that are not TCP.
    pub(crate) fn tcp_info(&mut self, fd: Fd) -> Option<TcpInfo> {
        delegate!(self, driver => driver.tcp_info(fd))
    }

    /// Makes an empty pipe for `size` bytes.
    pub(crate) fn open_pipe(&mut self, size: u32) -> Result<PipeEnds, Errno> {
        delegate!(self, driver => driver.open_pipe(size))
    }

    /// Closes both ends; what it holds is lost.
    pub(crate) fn close_pipe(&mut self, pipe: PipeEnds) {
        delegate!(self, driver => driver.close_pipe(pipe));
    }

    /// Moves what a socket has received into a pipe, at most `max` bytes (at least one), and never waits. 0: the end.
    pub(crate) fn fill_pipe(&mut self, socket: Fd, pipe: PipeEnds, max: u32) -> Result<u32, Errno> {
        delegate!(self, driver => driver.fill_pipe(socket, pipe, max))
    }

    /// Sends at most `max` bytes of what a pipe holds, and never waits.
    pub(crate) fn drain_pipe(&mut self, pipe: PipeEnds, socket: Fd, max: u32) -> Result<u32, Errno> {
        delegate!(self, driver => driver.drain_pipe(pipe, socket, max))
    }

    /// Accepts one queued connection without waiting.
    pub(crate) fn accept_queued(&mut self, fd: Fd) -> Result<Fd, Errno> {
        delegate!(self, driver => driver.accept_queued(fd))
    }

    /// Called once nothing of this driver is in flight any more, or when waiting for that was given up.
    pub(crate) fn retire(&mut self, in_flight: usize) {
        match self {
            Self::Uring(driver) => driver.retire(in_flight),
            #[cfg(feature = "sim")]
            Self::Sim(_) => assert_eq!(in_flight, 0, "the simulated kernel lost operations"),
        }
    }
}
