//! The short socket calls that go around the ring: socket, bind and listen, close, shutdown, and questions.

use super::Sim;
use super::kernel::{Kernel, Listening, Object};
use super::wire::EndId;
use crate::address::{Address, Source};
use crate::driver::{Domain, Fd};
use crate::errno::Errno;
use crate::socket::{ListenOptions, SendRoom, SocketOptions, TcpInfo};
use std::collections::VecDeque;
use std::time::Duration;

/// Window probes of a receiver that does not read are answered at least this often (TCP_RTO_MAX is 120 s; a peer that
/// lives is heard more often than that).
const PROBE_MAX: Duration = Duration::from_secs(20);

impl Sim {
    pub(crate) fn open(&mut self, _domain: Domain, source: Option<Source>) -> Result<Fd, Errno> {
        let mut kernel = self.call();
        let exhausted = kernel.chances.open_exhausted;
        if kernel.random.chance(exhausted) {
            kernel.seen.opens_exhausted += 1;
            return Err(Errno(libc::EMFILE));
        }
        let fd = kernel.allocate(self.ring, Object::Unconnected, SocketOptions::default())?;
        if let Some(descriptor) = kernel.descriptor(self.ring, fd, "bind") {
            descriptor.source = source;
        }
        Ok(Fd(fd))
    }

    pub(crate) fn listen(&mut self, address: &Address, options: &ListenOptions) -> Result<(Fd, Address), Errno> {
        let mut kernel = self.call();
        if kernel.is_scripted(address) {
            return Err(Errno(libc::EADDRINUSE));
        }
        let mut bound = address.clone();
        if let Address::Inet(inet) = &mut bound
            && inet.port() == 0
        {
            kernel.next_port = kernel.next_port.wrapping_add(1).max(1024);
            inet.set_port(kernel.next_port);
        }
        let fd = kernel.allocate(self.ring, Object::Unconnected, options.connection)?;
        let backlog_max = usize::try_from(options.backlog)
            .unwrap_or(0)
            .min(kernel.chances.backlog);
        let listening = Listening {
            fd,
            address: bound.clone(),
            options: options.connection,
            backlog_max,
            queue: VecDeque::new(),
        };
        let token = kernel.listeners.insert(listening);
        if let Some(descriptor) = kernel.descriptor(self.ring, fd, "listen") {
            descriptor.object = Object::Listener(token);
        }
        Ok((Fd(fd), bound))
    }

    pub(crate) fn close(&mut self, fd: Fd, abort: bool) {
        let mut kernel = self.call();
        let Some(descriptor) = kernel.descriptor(self.ring, fd.0, "close") else {
            return;
        };
        let (object, in_flight) = (descriptor.object, descriptor.in_flight);
        if in_flight > 0 {
            kernel.violated(format!(
                "descriptor {} was closed with {in_flight} operations in flight",
                fd.0
            ));
            return;
        }
        kernel.descriptors[fd.0 as usize] = None;
        kernel.descriptors_open -= 1;
        match object {
            Object::Unconnected => {}
            Object::Pipe(_) => kernel.violated(format!("descriptor {} was closed, which is an end of a pipe", fd.0)),
            Object::Stream(end) => kernel.close_end(end, abort),
            Object::Datagrams(token) => kernel.close_datagrams(token),
            Object::Listener(token) => {
                // Whoever still waits in the queue is reset.
                let queue = kernel
                    .listeners
                    .remove(token)
                    .map(|listening| listening.queue)
                    .unwrap_or_default();
                for end in queue {
                    kernel.close_end(end, true);
                }
            }
        }
    }

    pub(crate) fn shutdown_write(&mut self, fd: Fd) -> Result<(), Errno> {
        let mut kernel = self.call();
        let end = kernel.stream_of(self.ring, fd, "shutdown")?;
        kernel.shutdown(end)
    }

    pub(crate) fn peer_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        let mut kernel = self.call();
        let end = kernel.stream_of(self.ring, fd, "getpeername")?;
        let connection = kernel.connection(end).ok_or(Errno(libc::ENOTCONN))?;
        if connection.ends[end.end].broken {
            return Err(Errno(libc::ENOTCONN));
        }
        Ok(connection.ends[1 - end.end].address.clone())
    }

    pub(crate) fn local_address(&mut self, fd: Fd) -> Result<Address, Errno> {
        let mut kernel = self.call();
        let end = kernel.stream_of(self.ring, fd, "getsockname")?;
        let connection = kernel.connection(end).ok_or(Errno(libc::EBADF))?;
        Ok(connection.ends[end.end].address.clone())
    }

    pub(crate) fn set_options(&mut self, fd: Fd, options: &SocketOptions) -> Result<(), Errno> {
        let mut kernel = self.call();
        let descriptor = kernel
            .descriptor(self.ring, fd.0, "setsockopt")
            .ok_or(Errno(libc::EBADF))?;
        descriptor.options = *options;
        if let Object::Stream(end) = descriptor.object
            && let Some(connection) = kernel.connection(end)
        {
            connection.ends[end.end].keepalive = options.keepalive;
        }
        Ok(())
    }

    pub(crate) fn send_room(&mut self, fd: Fd) -> Option<SendRoom> {
        let mut kernel = self.call();
        let end = kernel.stream_of(self.ring, fd, "SO_MEMINFO").ok()?;
        let pipe = &kernel.connection(end)?.pipes[1 - end.end];
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(SendRoom {
            free: bytes(pipe.room()),
            size: bytes(pipe.send_max()),
        })
    }

    /// Busy first, then idle, in turns so long that the worker sees both.
    pub(crate) fn cpu_time(&mut self) -> Duration {
        const HALF_SECOND: u64 = 500_000_000;
        const TURN: u64 = 3 * HALF_SECOND;
        let kernel = self.call();
        let (now, busy) = (kernel.now.as_nanos(), u64::from(kernel.chances.busy) * HALF_SECOND);
        Duration::from_nanos(now / TURN * busy + (now % TURN).min(busy))
    }

    /// There is no congestion here, and no control of it.
    pub(crate) fn leave_bbr(&mut self, fd: Fd) -> Result<(), Errno> {
        let mut kernel = self.call();
        kernel.stream_of(self.ring, fd, "TCP_CONGESTION").map(|_| ())
    }

    /// Windows are as long as the scenario says.
    pub(crate) fn bound_receive_buffer(&mut self, fd: Fd, _bytes: u32) -> Result<(), Errno> {
        let mut kernel = self.call();
        kernel.stream_of(self.ring, fd, "SO_RCVBUF").map(|_| ())
    }

    pub(crate) fn tcp_info(&mut self, fd: Fd) -> Option<TcpInfo> {
        let mut kernel = self.call();
        let end = kernel.stream_of(self.ring, fd, "TCP_INFO").ok()?;
        let now = kernel.now;
        let connection = kernel.connection(end).filter(|connection| connection.tcp)?;
        let outgoing = connection.pipes[1 - end.end].in_transit();
        let silent = now.since(connection.ends[end.end].heard);
        // A peer that merely does not read still acknowledges; one that was cut off does not.
        let (last_heard, unanswered) = match connection.cut {
            Some(_) if outgoing > 0 => (silent, 1 + silent.as_secs().min(14) as u32),
            Some(_) => (silent, 0),
            None if outgoing > 0 => (silent.min(PROBE_MAX), 0),
            None => (silent, 0),
        };
        let broken = connection.ends[end.end].broken;
        // Also when both ends have ended in order: the kernel keeps no connection then (tcp_time_wait, tcp_done).
        let over = connection.pipes[0].fin_arrived && connection.pipes[1].fin_arrived;
        Some(TcpInfo {
            closed: broken || over,
            broken,
            last_heard,
            unanswered,
            outgoing: u32::try_from(outgoing).unwrap_or(u32::MAX),
            round_trip_min: Duration::ZERO,
            round_trip: Duration::ZERO,
        })
    }

    pub(crate) fn accept_queued(&mut self, fd: Fd) -> Result<Fd, Errno> {
        self.call().accept_one(self.ring, fd.0).map(Fd)
    }

    pub(super) fn call(&self) -> std::cell::RefMut<'_, Kernel> {
        let mut kernel = self.network.0.borrow_mut();
        kernel.rings[self.ring].direct_calls += 1;
        kernel
    }
}

impl Kernel {
    /// Takes a connection out of a listener's queue.
    pub(super) fn accept_one(&mut self, ring: usize, fd: i32) -> Result<i32, Errno> {
        let Some(descriptor) = self.descriptor(ring, fd, "an accept") else {
            return Err(Errno(libc::EBADF));
        };
        let Object::Listener(token) = descriptor.object else {
            return Err(Errno(libc::EINVAL));
        };
        let Some(listening) = self.listeners.get_mut(token) else {
            return Err(Errno(libc::EINVAL));
        };
        let options = listening.options;
        let Some(&end) = listening.queue.front() else {
            return Err(Errno::AGAIN);
        };
        let accepted = if self.random.chance(self.chances.accept_exhausted) {
            Err(Errno(libc::EMFILE))
        } else {
            self.allocate(ring, Object::Stream(end), options)
        };
        match accepted {
            Ok(fd) => {
                if let Some(listening) = self.listeners.get_mut(token) {
                    listening.queue.pop_front();
                }
                self.attach(fd, end, options);
                Ok(fd)
            }
            Err(errno) => {
                // The real kernel reserves the descriptor first: the client stays in the queue.
                self.seen.accepts_exhausted += 1;
                Err(errno)
            }
        }
    }

    pub(super) fn stream_of(&mut self, ring: usize, fd: Fd, what: &str) -> Result<EndId, Errno> {
        match self.descriptor(ring, fd.0, what).ok_or(Errno(libc::EBADF))?.object {
            Object::Stream(end) => Ok(end),
            Object::Listener(_) | Object::Unconnected | Object::Pipe(_) | Object::Datagrams(_) => {
                Err(Errno(libc::ENOTCONN))
            }
        }
    }
}
