//! Streams, listeners and the futures of their operations.
//!
//! Everything here borrows from the in-flight table by token and is cancelled when dropped. A `Stream` owns its socket;
//! its operations hold the runtime, not the stream, so that a relay can keep both in one struct.

use crate::address::{Address, Source};
use crate::buffer_ring::Leases;
use crate::driver::{Domain, Fd, PipeEnds};
use crate::errno::Errno;
use crate::reactor::{Received, Sent, SocketSlot};
use crate::slab::Token;
use crate::socket::{SendRoom, SocketOptions, TcpInfo};
use crate::{Handle, Inner};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A connected stream socket. Dropping it closes it in order (FIN), as soon as its operations are over; dropped by a
/// panic it sends a reset, because its peer must not take what it got for the whole.
pub struct Stream {
    runtime: Rc<Inner>,
    socket: SocketSlot,
    /// Dropping sends a reset.
    abort: bool,
}

impl Stream {
    pub(crate) fn new(runtime: Rc<Inner>, fd: Fd) -> Self {
        let socket = runtime.reactor.borrow_mut().adopt(fd);
        Self {
            runtime,
            socket,
            abort: false,
        }
    }

    /// Starts to receive into the worker's buffers, as often as bytes come.
    pub fn receive(&self) -> Receive {
        let token = self.runtime.reactor.borrow_mut().receive(&self.socket, None);
        Receive {
            runtime: self.runtime.clone(),
            token,
        }
    }

    /// Starts to receive into the worker's buffers, but only once: at most `max` bytes (rounded to whole buffers, at least
    /// one). Then it is paused, until [`Receive::resume`] or [`Receive::resume_once`].
    pub fn receive_once(&self, max: u32) -> Receive {
        let token = self.runtime.reactor.borrow_mut().receive(&self.socket, Some(max));
        Receive {
            runtime: self.runtime.clone(),
            token,
        }
    }

    /// Starts to send as much as there is room for now. With `report`, whoever polls is woken by success too; without,
    /// only when something was left: success is then seen by whoever polls later. The whole of `leases` counts as one
    /// send up to 64 pieces; what is beyond comes back as rest. Panics if they come from another runtime.
    ///
    /// One at a time: of two whose outcomes are not known yet, the second may overtake the rest of the first.
    pub fn send(&self, leases: Leases, report: bool) -> Send {
        let links = leases.into_links(&self.runtime.buffer_ring);
        let token = self.runtime.reactor.borrow_mut().send(&self.socket, links, report);
        Send {
            runtime: self.runtime.clone(),
            token,
        }
    }

    /// The same for bytes outside of the worker's buffers, the first `sent` of which are done already (at most all).
    pub fn send_bytes(&self, bytes: Box<[u8]>, sent: u32, report: bool) -> Send {
        assert!(
            sent as usize <= bytes.len(),
            "{sent} bytes of {} are done already",
            bytes.len()
        );
        let token = self
            .runtime
            .reactor
            .borrow_mut()
            .send_bytes(&self.socket, bytes, sent, report);
        Send {
            runtime: self.runtime.clone(),
            token,
        }
    }

    /// Resolves when there is room to send, or the connection broke (the next send will tell).
    pub fn writable(&self) -> Once {
        let token = self.runtime.reactor.borrow_mut().writable(&self.socket);
        Once {
            runtime: self.runtime.clone(),
            token,
            spent: false,
        }
    }

    /// Resolves when there is something to receive: bytes, the end, or an error.
    pub fn readable(&self) -> Once {
        let token = self.runtime.reactor.borrow_mut().readable(&self.socket);
        Once {
            runtime: self.runtime.clone(),
            token,
            spent: false,
        }
    }

    /// Moves what was received into a pipe, at most `max` bytes, without copying and without waiting; 0: the end. TCP
    /// only, and not while a [`Receive`] of the stream is under way.
    ///
    /// # Errors
    /// EAGAIN when nothing has come; the error that broke the connection; EINVAL, ENOSYS or EPERM when the system does
    /// not let us.
    pub fn fill(&self, pipe: &mut Pipe, max: u32) -> Result<u32, Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        // Asked for nothing, the kernel would seem to say that the end has come.
        let max = max.min(pipe.ends.size - pipe.bytes).max(1);
        match reactor.driver.fill_pipe(fd, pipe.ends, max) {
            Ok(moved) => {
                pipe.bytes += moved;
                Ok(moved)
            }
            Err(errno) => {
                if errno.is_refusal() {
                    reactor.refuse_pipes();
                }
                Err(errno)
            }
        }
    }

    /// Sends what a pipe holds, as much as there is room for, without waiting. Not while a [`Send`] is under way.
    ///
    /// # Errors
    /// EAGAIN when there is no room: wait for [`Stream::writable`]; the error that broke the connection.
    pub fn drain(&self, pipe: &mut Pipe) -> Result<u32, Errno> {
        if pipe.bytes == 0 {
            return Ok(0);
        }
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        let moved = reactor.driver.drain_pipe(pipe.ends, fd, pipe.bytes)?;
        pipe.bytes -= moved;
        Ok(moved)
    }

    /// Ends the sending direction (FIN), at once: a send whose outcome is not known yet would come too late. An error
    /// means that the connection is gone already.
    ///
    /// # Errors
    /// The error of shutdown(2).
    pub fn shutdown_write(&self) -> Result<(), Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.shutdown_write(fd)
    }

    /// Closes with a reset instead of an orderly end, where the protocol has resets (TCP).
    pub fn abort(mut self) {
        self.abort = true;
    }

    /// The other end's address.
    ///
    /// # Errors
    /// ENOTCONN when the connection is gone already.
    pub fn peer_address(&self) -> Result<Address, Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.peer_address(fd)
    }

    /// Our own end's address: the one that the other end speaks to.
    ///
    /// # Errors
    /// The error of getsockname(2).
    pub fn local_address(&self) -> Result<Address, Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.local_address(fd)
    }

    /// Sets socket options; those that the protocol does not have are refused.
    ///
    /// # Errors
    /// The error of setsockopt(2).
    pub fn set_options(&self, options: &SocketOptions) -> Result<(), Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.set_options(fd, options)
    }

    /// How much could be sent without waiting; `None` if the kernel does not say.
    pub fn send_room(&self) -> Option<SendRoom> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.send_room(fd)
    }

    /// Bounds what the kernel receives ahead of us, in bytes with the kernel's own overhead, for good: it does not grow
    /// the buffer by itself any more. Nothing happens where net.core.rmem_max allows less (socket(7)): shorter than asked
    /// would only be slower.
    ///
    /// # Errors
    /// The error of setsockopt(2).
    pub fn bound_receive_buffer(&self, bytes: u32) -> Result<(), Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.bound_receive_buffer(fd, bytes)
    }

    /// Puts Reno in BBR's place, for good; any other congestion control stays. BBR sends at the rate that it has
    /// measured, by timers. The kernel goes on with its timers, but at Reno's rate, 1.2 to 2 times what the window
    /// allows: one that is seldom reached. For a peer so near that timers cost more than they spare.
    ///
    /// # Errors
    /// The error of getsockopt(2) or setsockopt(2) with TCP_CONGESTION (tcp(7)); EPERM if Reno is not allowed here
    /// (net.ipv4.tcp_allowed_congestion_control).
    pub fn leave_bbr(&self) -> Result<(), Errno> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.leave_bbr(fd)
    }

    /// What the kernel knows of the connection; `None` if it is not TCP.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        let mut reactor = self.runtime.reactor.borrow_mut();
        let fd = reactor.fd(&self.socket);
        reactor.driver.tcp_info(fd)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let abort = self.abort || std::thread::panicking();
        self.runtime.reactor.borrow_mut().close(&self.socket, abort);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.socket).finish()
    }
}

/// Bytes on their way from one socket to another that never leave the kernel. Dropping it loses what it still holds; an
/// empty one is used again.
pub struct Pipe {
    runtime: Rc<Inner>,
    ends: PipeEnds,
    bytes: u32,
}

impl Pipe {
    pub(crate) fn lease(handle: &Handle, max: u32) -> Option<Self> {
        let runtime = handle.0.clone();
        let ends = runtime.reactor.borrow_mut().lease_pipe(max)?;
        Some(Self {
            runtime,
            ends,
            bytes: 0,
        })
    }

    /// Bytes that it holds.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().return_pipe(self.ends, self.bytes);
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Receiving, until the end, an error, or a pause. Dropping it cancels; bytes not taken by then are lost.
pub struct Receive {
    runtime: Rc<Inner>,
    token: Token,
}

impl Receive {
    /// What has arrived since the last time: `Some` bytes, or `None` at the end. Bytes come before the end or the error
    /// behind them.
    ///
    /// # Errors
    /// The error that broke the connection.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Leases>, Errno>> {
        let received = self
            .runtime
            .reactor
            .borrow_mut()
            .poll_receive(self.token, context.waker());
        match received {
            Received::Bytes(links) => Poll::Ready(Ok(Some(Leases::new(&self.runtime.buffer_ring, links)))),
            Received::End => Poll::Ready(Ok(None)),
            Received::Failed(errno) => Poll::Ready(Err(errno)),
            Received::Pending => Poll::Pending,
        }
    }

    /// The same as a future.
    ///
    /// # Errors
    /// The error that broke the connection.
    pub async fn next(&mut self) -> Result<Option<Leases>, Errno> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Stops receiving; what the kernel has under way still arrives, nothing is lost.
    pub fn pause(&mut self) {
        self.runtime.reactor.borrow_mut().pause_receive(self.token);
    }

    /// Receives again after a pause, as often as bytes come.
    pub fn resume(&mut self) {
        self.runtime.reactor.borrow_mut().resume_receive(self.token, None);
    }

    /// Receives again after a pause, but only once: at most `max` bytes (rounded to whole buffers, at least one), then it
    /// is paused again. For streams whose receiver shall never be sent more than it has room for.
    pub fn resume_once(&mut self, max: u32) {
        self.runtime.reactor.borrow_mut().resume_receive(self.token, Some(max));
    }

    /// Whether nothing is received until resumed: a pause is over, or the one receive is.
    pub fn is_paused(&self) -> bool {
        self.runtime.reactor.borrow_mut().is_receive_paused(self.token)
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().abandon(self.token);
    }
}

impl fmt::Debug for Receive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receive").field(&self.token).finish()
    }
}

/// What a send left.
#[derive(Debug)]
pub enum Unsent {
    /// From the worker's buffers.
    Leases(Leases),
    /// From memory of its own; the first `sent` bytes are done.
    Bytes {
        /// The whole, as given to `send_bytes`.
        bytes: Box<[u8]>,
        /// How many of the first are done.
        sent: u32,
    },
}

/// The outcome of a send, known by the end of the turn in which it was started.
#[derive(Debug)]
pub enum SendOutcome {
    /// The kernel took everything.
    All,
    /// There was no room for the rest: wait for [`Stream::writable`].
    Full(Unsent),
    /// The connection is broken.
    Failed(Unsent, Errno),
}

/// A send under way. Dropping it forgets the outcome; the bytes are sent all the same.
pub struct Send {
    runtime: Rc<Inner>,
    token: Token,
}

impl Send {
    /// The outcome, once; polling again says `All`.
    pub fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<SendOutcome> {
        let sent = self.runtime.reactor.borrow_mut().poll_send(self.token, context.waker());
        let (unsent, error) = match sent {
            Sent::Pending => return Poll::Pending,
            Sent::All => return Poll::Ready(SendOutcome::All),
            Sent::Rest { links, error } => (Unsent::Leases(Leases::new(&self.runtime.buffer_ring, links)), error),
            Sent::RestBytes { bytes, sent, error } => (Unsent::Bytes { bytes, sent }, error),
        };
        Poll::Ready(match error {
            Some(errno) => SendOutcome::Failed(unsent, errno),
            None => SendOutcome::Full(unsent),
        })
    }
}

impl Future for Send {
    type Output = SendOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<SendOutcome> {
        self.poll_outcome(context)
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        self.runtime.reactor.borrow_mut().abandon(self.token);
    }
}

impl fmt::Debug for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Send").field(&self.token).finish()
    }
}

/// An operation with one result. Dropping it cancels.
pub struct Once {
    runtime: Rc<Inner>,
    token: Token,
    spent: bool,
}

impl Future for Once {
    type Output = Result<u32, Errno>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.spent, "polled after its result");
        let result = self.runtime.reactor.borrow_mut().poll_once(self.token, context.waker());
        match result {
            Some(result) => {
                self.spent = true;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        if !self.spent {
            self.runtime.reactor.borrow_mut().abandon(self.token);
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.token).finish()
    }
}

/// A connection being made. Dropping it gives up.
#[derive(Debug)]
pub struct Connect {
    stream: Option<Stream>,
    once: Once,
}

impl Connect {
    pub(crate) fn start(
        handle: &Handle,
        address: &Address,
        source: Option<Source>,
        options: &SocketOptions,
    ) -> Result<Self, Errno> {
        let runtime = handle.0.clone();
        let fd = runtime.reactor.borrow_mut().driver.open(Domain::of(address), source)?;
        let stream = Stream::new(runtime.clone(), fd);
        if *options != SocketOptions::default() && matches!(address, Address::Inet(_)) {
            stream.set_options(options)?;
        }
        let token = runtime.reactor.borrow_mut().connect(&stream.socket, address);
        Ok(Self {
            stream: Some(stream),
            once: Once {
                runtime,
                token,
                spent: false,
            },
        })
    }
}

impl Future for Connect {
    type Output = Result<Stream, Errno>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.once).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(self.stream.take().ok_or(Errno::CANCELED)),
            Poll::Ready(Err(errno)) => Poll::Ready(Err(errno)),
        }
    }
}
