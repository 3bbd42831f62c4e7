//! The driver of the product: one io_uring per worker thread.
//!
//! Owns the ring, the memory that queued operations point to until they are submitted, and the buffer ring shared with the
//! kernel. Never decides anything; never touches a buffer between its submission and its completion. Unsafe module:
//! pushes submission entries, calls io_uring_enter(2), and closes descriptors.

mod departures;
mod setup;

use self::departures::Departures;
use self::setup::{register, restrict};
use super::{Completion, Domain, DriverStats, Fd, Operation, PipeEnds, SEND_PIECES_MAX, Wait};
use crate::address::{Address, Source};
use crate::buffer_ring::{BufferOptions, BufferRing, DATAGRAM_FIRST, Links};
use crate::capabilities::{Capabilities, Unavailable};
use crate::datagram::{CONTROL_MAX, DatagramOptions, NAME_MAX};
use crate::datagram_socket::connect_datagrams;
use crate::errno::{Errno, outcome};
use crate::remote::EventFd;
use crate::slab::Token;
use crate::socket::{
    SendRoom, SocketOptions, TcpInfo, bind_source, bound_receive_buffer, errno_of, from_sock_addr, leave_bbr,
    send_room, set_connection_options, tcp_info, to_sock_addr,
};
use crate::sys;
use crate::time::Time;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd as RingFd;
use io_uring::{IoUring, cqueue, opcode};
use socket2::{Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries of the submission queue; a burst beyond it costs one more system call.
pub(crate) const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue. A burst of one completion for each of 8,192 sockets, twice over, fits.
const COMPLETIONS: u32 = 16_384;
/// The worker's provided buffers for streams.
pub(crate) const BUFFER_GROUP: u16 = 0;
/// The worker's provided buffers for datagrams.
const DATAGRAM_GROUP: u16 = 1;
/// Vectors, headers and addresses that may wait for one submission.
const VECTORS_MAX: usize = 4096;
const HEADERS_MAX: usize = SUBMISSIONS as usize;
const ADDRESSES_MAX: usize = 64;
/// Token of operations whose completion nobody waits for.
const IGNORED: u64 = u64::MAX;

pub(crate) struct Uring {
    /// Dropped before the ring, whose descriptor it names.
    enter: sys::EnterTarget,
    /// Dropped before the memory that the kernel writes into.
    ring: IoUring,
    buffer_ring: Rc<BufferRing>,
    datagram_ring: Option<Rc<BufferRing>>,
    /// How much is asked for with each received datagram. Boxed: receives of datagrams point to it while they are in
    /// flight.
    datagram_header: Box<libc::msghdr>,
    capabilities: Capabilities,
    /// What queued entries point to; emptied once they are submitted (the kernel copies them at submission,
    /// IORING_FEAT_SUBMIT_STABLE). Capacities are reserved once, so that nothing moves.
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
    addresses: Vec<SockAddr>,
    departures: Departures,
    /// Completions that were reaped while making room in a full submission queue.
    early: Vec<Completion>,
    event: Arc<EventFd>,
    /// Where the kernel stores the counter of `event`.
    event_value: Box<u64>,
    start: Instant,
    stats: DriverStats,
}

impl Uring {
    /// Creates the ring on the thread that will use it.
    pub(crate) fn new(
        capabilities: &Capabilities,
        buffers: BufferOptions,
        datagram_buffers: Option<u16>,
        event: Arc<EventFd>,
    ) -> Result<Self, Unavailable> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .setup_r_disabled()
            .dontfork()
            .build(SUBMISSIONS)
            .map_err(|error| Unavailable::from_setup(errno_of(&error)))?;
        let buffer_ring = BufferRing::shared(buffers)
            .map_err(|error| Unavailable::new("mapping the receive buffers", errno_of(&error)))?;
        register(&ring, &buffer_ring, BUFFER_GROUP)?;
        let datagram_ring = datagram_buffers
            .map(|count| {
                let buffers = BufferRing::for_datagrams(count)
                    .map_err(|error| Unavailable::new("mapping the buffers of datagrams", errno_of(&error)))?;
                register(&ring, &buffers, DATAGRAM_GROUP)?;
                Ok(Rc::new(buffers))
            })
            .transpose()?;
        let mut datagram_header = Box::new(sys::message_header(&mut []));
        datagram_header.msg_namelen = NAME_MAX as libc::socklen_t;
        datagram_header.msg_controllen = CONTROL_MAX as _;
        restrict(&ring).map_err(|error| Unavailable::new("restricting the ring", errno_of(&error)))?;
        ring.submitter()
            .register_enable_rings()
            .map_err(|error| Unavailable::new("enabling the ring", errno_of(&error)))?;
        let enter = sys::EnterTarget::register(ring.as_raw_fd());
        Ok(Self {
            enter,
            ring,
            buffer_ring: Rc::new(buffer_ring),
            datagram_ring,
            datagram_header,
            capabilities: *capabilities,
            vectors: Vec::with_capacity(VECTORS_MAX),
            headers: Vec::with_capacity(HEADERS_MAX),
            addresses: Vec::with_capacity(ADDRESSES_MAX),
            departures: Departures::new(datagram_buffers.is_some()),
            early: Vec::new(),
            event,
            event_value: Box::new(0),
            start: Instant::now(),
            stats: DriverStats::default(),
        })
    }

    pub(crate) const fn buffer_ring(&self) -> &Rc<BufferRing> {
        &self.buffer_ring
    }

    pub(crate) const fn datagram_ring(&self) -> Option<&Rc<BufferRing>> {
        self.datagram_ring.as_ref()
    }

    pub(crate) const fn uses_bundles(&self) -> bool {
        self.capabilities.bundles
    }

    pub(crate) const fn stats(&self) -> DriverStats {
        self.stats
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn cpu_time(&mut self) -> Duration {
        self.stats.direct_calls += 1;
        sys::thread_cpu_time()
    }

    pub(crate) fn start(&mut self, operation: Operation<'_>, token: Token) {
        // Before the entry is built: emptying the queue forgets what its entries point to, and this one's is not in it.
        if self.ring.submission().is_full() {
            self.flush();
        }
        let entry = match operation {
            Operation::Accept { fd, once: false } => opcode::AcceptMulti::new(RingFd(fd.0))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(token.pack()),
            Operation::Accept { fd, once: true } => {
                let accept = opcode::Accept::new(RingFd(fd.0), std::ptr::null_mut(), std::ptr::null_mut());
                accept.flags(libc::SOCK_CLOEXEC).build().user_data(token.pack())
            }
            Operation::Receive { fd, once } => self.receive_entry(fd, once).user_data(token.pack()),
            Operation::Connect { fd, address } => self.connect_entry(fd, address).user_data(token.pack()),
            Operation::Send { fd, links, report } => self
                .send_entry(fd, links)
                .flags(report_flags(report))
                .user_data(token.pack()),
            Operation::SendBytes { fd, bytes, report } => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let entry = opcode::Send::new(RingFd(fd.0), bytes.as_ptr(), len)
                    .flags(sys::SEND_FLAGS)
                    .build();
                entry.flags(report_flags(report)).user_data(token.pack())
            }
            Operation::ReceiveDatagrams { fd } => {
                opcode::RecvMsgMulti::new(RingFd(fd.0), &raw const *self.datagram_header, DATAGRAM_GROUP)
                    .build()
                    .user_data(token.pack())
            }
            Operation::SendDatagram {
                fd,
                is_ipv6,
                prefix,
                links,
                departure,
            } => return self.send_datagrams((fd, is_ipv6), prefix, links, departure, token),
            Operation::Writable { fd } => opcode::PollAdd::new(RingFd(fd.0), libc::POLLOUT as u32)
                .build()
                .user_data(token.pack()),
            Operation::Readable { fd } => opcode::PollAdd::new(RingFd(fd.0), (libc::POLLIN | libc::POLLRDHUP) as u32)
                .build()
                .user_data(token.pack()),
            Operation::Notified => {
                let value: *mut u64 = &mut *self.event_value;
                opcode::Read::new(RingFd(self.event.as_raw_fd()), value.cast(), 8)
                    .build()
                    .user_data(token.pack())
            }
            Operation::Cancel { target } => opcode::AsyncCancel::new(target.pack())
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(IGNORED),
        };
        self.push(&entry);
    }

    /// A bundle's first buffer must always be allowed whole: kernels up to 6.18 would otherwise shorten its entry in the
    /// ring and leave it so if nothing came (io_ring_buffers_peek).
    fn receive_entry(&self, fd: Fd, once: Option<u32>) -> Entry {
        let fd = RingFd(fd.0);
        let size = self.buffer_ring.buffer_size();
        let max = once
            .unwrap_or_else(|| self.buffer_ring.bundle_max())
            .min(self.buffer_ring.bytes());
        let max = (max - max % size).max(size);
        match (once, self.capabilities.bundles) {
            (None, true) => {
                let mut entry = opcode::RecvMultiBundle::new(fd, BUFFER_GROUP).build();
                sys::set_entry_len(&mut entry, max);
                entry
            }
            (None, false) => opcode::RecvMulti::new(fd, BUFFER_GROUP).build(),
            (Some(_), true) => {
                let mut entry = opcode::RecvBundle::new(fd, BUFFER_GROUP).build();
                // A byte beyond whole buffers: the kernel leaves out the buffer that it may not fill, and then does not
                // try again for what came meanwhile, which is not bounded by `max`.
                sys::set_entry_len(&mut entry, max + 1);
                entry
            }
            (Some(_), false) => {
                let receive = opcode::Recv::new(fd, std::ptr::null_mut(), size).buf_group(BUFFER_GROUP);
                receive.build().flags(Flags::BUFFER_SELECT)
            }
        }
    }

    fn connect_entry(&mut self, fd: Fd, address: &Address) -> Entry {
        if self.addresses.len() == ADDRESSES_MAX {
            self.flush();
        }
        // A path that is too long was refused by the configuration's check; the empty path makes connect fail.
        let address = to_sock_addr(address).unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)).into());
        self.addresses.push(address);
        let address = &self.addresses[self.addresses.len() - 1];
        opcode::Connect::new(RingFd(fd.0), address.as_ptr().cast(), address.len()).build()
    }

    fn send_entry(&mut self, fd: Fd, links: &Links) -> Entry {
        let buffer_ring = self.buffer_ring.clone();
        let mut slices = buffer_ring.slices(links).take(SEND_PIECES_MAX).peekable();
        let first = slices.next().unwrap_or_default();
        if slices.peek().is_none() {
            return opcode::Send::new(RingFd(fd.0), first.as_ptr(), first.len() as u32)
                .flags(sys::SEND_FLAGS)
                .build();
        }
        if self.vectors.len() + SEND_PIECES_MAX > VECTORS_MAX || self.headers.len() == HEADERS_MAX {
            self.flush();
        }
        let start = self.vectors.len();
        for slice in std::iter::once(first).chain(slices) {
            self.vectors.push(libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            });
        }
        self.headers.push(sys::message_header(&mut self.vectors[start..]));
        let header = &self.headers[self.headers.len() - 1];
        opcode::SendMsg::new(RingFd(fd.0), header)
            .flags(sys::SEND_FLAGS as u32)
            .build()
    }

    /// There must be room in the queue.
    fn push(&mut self, entry: &Entry) {
        // SAFETY: every address in the entry outlives its use: vectors, headers, addresses and departures (with the bytes in
        // front of datagrams) stay in `self` until the queue was submitted; send buffers stay in the in-flight table until the turn that submitted them is
        // over (MSG_DONTWAIT: the kernel is done with them when io_uring_enter returns); receive buffers belong to the
        // buffer ring; `event_value` is boxed in `self`.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "no room was made in the submission queue");
    }

    /// Submits what is queued without waiting, to make room. Completions that appear are kept for the turn.
    fn flush(&mut self) {
        let mut early = std::mem::take(&mut self.early);
        while !self.ring.submission().is_empty() {
            self.enter(Wait::No);
            self.reap(&mut early);
        }
        self.early = early;
        self.forget_submitted();
    }

    fn forget_submitted(&mut self) {
        self.vectors.clear();
        self.headers.clear();
        self.addresses.clear();
        self.departures.clear();
    }

    pub(crate) fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) {
        self.buffer_ring.publish();
        if let Some(ring) = &self.datagram_ring {
            ring.publish();
        }
        completions.append(&mut self.early);
        let wait = if completions.is_empty() { wait } else { Wait::No };
        self.enter(wait);
        self.reap(completions);
        // An overflow is kept by the kernel (IORING_FEAT_NODROP) and flushed by the next call; entries that were not
        // consumed (ENOMEM for a request) are submitted by it too. Their memory must stay until then.
        while self.ring.submission().cq_overflow() || !self.ring.submission().is_empty() {
            self.stats.overflows += u64::from(self.ring.submission().cq_overflow());
            self.enter(Wait::No);
            self.reap(completions);
        }
        self.forget_submitted();
    }

    fn enter(&mut self, wait: Wait) {
        self.stats.enters += 1;
        let queued = self.ring.submission().len() as u32;
        match self.enter.enter(queued, wait) {
            // ETIME: the wait was over. EINTR: a signal; the loop comes back. EBUSY and EAGAIN: completions must be
            // reaped first, or memory is short; what was not submitted stays queued.
            Ok(()) | Err(Errno(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(errno) => panic!("io_uring_enter failed: {errno}; the ring cannot be used any more"),
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            if entry.user_data() == IGNORED {
                continue;
            }
            let first = cqueue::buffer_select(entry.flags());
            let is_datagram = first.is_some_and(|first| first >= DATAGRAM_FIRST);
            let ring = match &self.datagram_ring {
                Some(ring) if is_datagram => ring,
                _ => &self.buffer_ring,
            };
            let links = match first {
                Some(first) => {
                    let links = ring.received(first, u32::try_from(entry.result()).unwrap_or(0));
                    if entry.result() > 0 {
                        links
                    } else {
                        ring.release(links);
                        Links::EMPTY
                    }
                }
                None => Links::EMPTY,
            };
            completions.push(Completion {
                token: Token::unpack(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(entry.flags()),
                links,
                is_datagram,
            });
        }
    }

    pub(crate) fn open(&mut self, domain: Domain, source: Option<Source>) -> Result<Fd, Errno> {
        self.stats.direct_calls += 1;
        let (domain, protocol) = match domain {
            Domain::Ipv4 => (socket2::Domain::IPV4, Some(Protocol::TCP)),
            Domain::Ipv6 => (socket2::Domain::IPV6, Some(Protocol::TCP)),
            Domain::Unix => (socket2::Domain::UNIX, None),
        };
        // Blocking on purpose: with O_NONBLOCK the kernel would report EAGAIN instead of waiting for us.
        let socket = Socket::new_raw(domain, Type::STREAM.cloexec(), protocol).map_err(|error| errno_of(&error))?;
        if let Some(source) = source {
            self.stats.direct_calls += 1;
            sys::bind_address_no_port(&socket).map_err(|error| errno_of(&error))?;
            bind_source(&socket, source, &mut self.stats.direct_calls).map_err(|error| errno_of(&error))?;
        }
        Ok(Fd(socket.into_raw_fd()))
    }

    pub(crate) fn connect_datagrams(
        &mut self,
        to: SocketAddr,
        source: Option<Source>,
        options: &DatagramOptions,
    ) -> Result<Fd, Errno> {
        let socket = connect_datagrams(to, source, options, &mut self.stats.direct_calls);
        Ok(Fd(socket.map_err(|error| errno_of(&error))?.into_raw_fd()))
    }

    pub(crate) fn close(&mut self, fd: Fd, abort: bool) {
        self.stats.direct_calls += 1;
        // SAFETY: the runtime's socket table owns the descriptor, gives it up with this call, and made sure that no
        // operation on it is in flight.
        let socket = unsafe { Socket::from_raw_fd(fd.0) };
        if abort {
            self.stats.direct_calls += 1;
            // Linger zero makes close(2) send a reset (socket(7)). Fails on UNIX sockets, which have no resets.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        drop(socket);
    }

    pub(crate) fn shutdown_write(&mut self, fd: Fd) -> Result<(), Errno> {
        self.direct(fd, |socket| socket.shutdown(std::net::Shutdown::Write))
    }

    pub(crate) fn peer_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        self.direct(fd, |socket| socket.peer_addr())
            .map(|address| from_sock_addr(&address))
    }

    pub(crate) fn local_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        self.direct(fd, |socket| socket.local_addr())
            .map(|address| from_sock_addr(&address))
    }

    pub(crate) fn set_options(&mut self, fd: Fd, options: &SocketOptions) -> Result<(), Errno> {
        self.direct(fd, |socket| set_connection_options(socket, options))
    }

    pub(crate) fn send_room(&mut self, fd: Fd) -> Option<SendRoom> {
        self.stats.direct_calls += 1;
        // SAFETY: the socket table keeps the descriptor open for the duration of this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.0) };
        send_room(fd)
    }

    pub(crate) fn leave_bbr(&mut self, fd: Fd) -> Result<(), Errno> {
        self.direct(fd, leave_bbr)
    }

    pub(crate) fn bound_receive_buffer(&mut self, fd: Fd, bytes: u32) -> Result<(), Errno> {
        self.direct(fd, |socket| bound_receive_buffer(socket, bytes))
    }

    pub(crate) fn tcp_info(&mut self, fd: Fd) -> Option<TcpInfo> {
        self.stats.direct_calls += 1;
        // SAFETY: the socket table keeps the descriptor open for the duration of this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.0) };
        tcp_info(fd)
    }

    pub(crate) fn open_pipe(&mut self, size: u32) -> Result<PipeEnds, Errno> {
        self.stats.direct_calls += 2;
        let (read, write, size) = sys::open_pipe(size)?;
        Ok(PipeEnds {
            read: Fd(read),
            write: Fd(write),
            size,
        })
    }

    pub(crate) fn close_pipe(&mut self, pipe: PipeEnds) {
        self.stats.direct_calls += 2;
        sys::close_pipe(pipe.read.0, pipe.write.0);
    }

    pub(crate) fn fill_pipe(&mut self, socket: Fd, pipe: PipeEnds, max: u32) -> Result<u32, Errno> {
        self.stats.direct_calls += 3;
        outcome(sys::splice_nonblocking(socket.0, pipe.write.0, max, socket.0))
    }

    pub(crate) fn drain_pipe(&mut self, pipe: PipeEnds, socket: Fd, max: u32) -> Result<u32, Errno> {
        self.stats.direct_calls += 3;
        outcome(sys::splice_nonblocking(pipe.read.0, socket.0, max, socket.0))
    }

    pub(crate) fn accept_queued(&mut self, fd: Fd) -> Result<Fd, Errno> {
        self.stats.direct_calls += 1;
        outcome(sys::accept_nonblocking(fd.0)).map(|fd| Fd(fd as i32))
    }

    fn direct<T>(&mut self, fd: Fd, call: impl FnOnce(&Socket) -> io::Result<T>) -> Result<T, Errno> {
        self.stats.direct_calls += 1;
        // SAFETY: the socket table keeps the descriptor open; `ManuallyDrop` leaves closing it to the table.
        let socket = ManuallyDrop::new(unsafe { Socket::from_raw_fd(fd.0) });
        call(&socket).map_err(|error| errno_of(&error))
    }

    /// Before `self` is dropped: if operations are still in flight, their memory must outlive them.
    pub(crate) fn retire(&mut self, in_flight: usize) {
        if in_flight == 0 {
            return;
        }
        match Rc::get_mut(&mut self.buffer_ring) {
            Some(buffer_ring) => buffer_ring.leak(),
            None => std::mem::forget(self.buffer_ring.clone()),
        }
        if let Some(ring) = &mut self.datagram_ring {
            match Rc::get_mut(ring) {
                Some(ring) => ring.leak(),
                None => std::mem::forget(ring.clone()),
            }
        }
        let header = Box::new(sys::message_header(&mut []));
        std::mem::forget(std::mem::replace(&mut self.datagram_header, header));
        std::mem::forget(std::mem::take(&mut self.event_value));
    }
}

/// Sends report only failures and short counts unless asked.
const fn report_flags(report: bool) -> Flags {
    if report { Flags::empty() } else { Flags::SKIP_SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread has 16 places for registered rings; one that was not given back keeps its ring alive.
    #[test]
    fn rings_in_turn_on_one_thread_are_all_registered() {
        let capabilities = Capabilities::probe().expect("io_uring");
        for n in 0..40 {
            let event = Arc::new(EventFd::new().expect("eventfd"));
            let driver =
                Uring::new(&capabilities, BufferOptions { count: 16, size: 1024 }, Some(16), event).expect("io_uring");
            assert!(driver.enter.is_registered(), "ring {n} found no place");
        }
    }
}
