//! Operations as the simulated kernel performs them: what a turn submits, what waits, what is posted.
//!
//! Follows io_uring: submissions are executed in order and at once; what has to wait is tried again when something
//! happened at its descriptor; a multishot stays armed until it fails, is cancelled, or the kernel ends it for reasons
//! of its own. Completions are posted with the number of the first buffer only.

use super::kernel::{Event, Kernel, Object, SYN_MAX};
use super::peers::Welcome;
use super::wire::{EndId, Owner};
use crate::address::Address;
use crate::buffer_ring::BufferRing;
use crate::datagram::Departure;
use crate::driver::Wait;
use crate::errno::Errno;
use crate::time::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// As the kernel's MULTISHOT_MAX_RETRY: then others have their turn.
const MULTISHOT_ROUNDS_MAX: usize = 32;
const POLLIN: i32 = 1;
const POLLOUT: i32 = 4;
const POLLERR_POLLHUP: i32 = 8 + 16;

/// What a runtime has queued until its next turn.
pub(super) enum Submission {
    Accept {
        fd: i32,
        once: bool,
    },
    Receive {
        fd: i32,
        once: Option<u32>,
    },
    Connect {
        fd: i32,
        address: Address,
    },
    /// `buffers` must still be lent when the send is performed.
    Send {
        fd: i32,
        bytes: Vec<u8>,
        buffers: Vec<u16>,
        report: bool,
    },
    ReceiveDatagrams {
        fd: i32,
    },
    /// `buffer` must still be lent when the send is performed.
    SendDatagram {
        fd: i32,
        bytes: Vec<u8>,
        buffer: Option<u16>,
        departure: Departure,
    },
    Writable {
        fd: i32,
    },
    Readable {
        fd: i32,
    },
    Cancel {
        target: u64,
    },
}

#[derive(Clone, Debug)]
enum Waiting {
    Accept {
        once: bool,
    },
    Receive {
        once: Option<u32>,
    },
    /// `result` once it is known.
    Connect {
        address: Address,
        welcome: Welcome,
        result: Option<i32>,
    },
    Datagrams,
    Writable,
    Readable,
}

struct Op {
    fd: i32,
    waiting: Waiting,
    /// When to try again; `None`: when something happens.
    due: Option<Time>,
    /// When a cancel takes effect.
    cancel: Option<Time>,
}

/// A completion queue entry.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) op: u64,
    pub(super) result: i32,
    pub(super) more: bool,
    /// The first of the buffers that were filled.
    pub(super) buffer: Option<u16>,
}

/// The simulated kernel's side of one runtime's ring.
pub(super) struct Ring {
    pub(super) buffer_ring: Rc<BufferRing>,
    pub(super) datagram_ring: Option<Rc<BufferRing>>,
    pub(super) submitted: Vec<(u64, Submission)>,
    ops: BTreeMap<u64, Op>,
    pub(super) posted: Vec<Posted>,
    pub(super) turns: u64,
    pub(super) direct_calls: u64,
    /// The last turn was allowed to wait and found nothing to do.
    pub(super) idle: bool,
}

impl Ring {
    pub(super) const fn new(buffer_ring: Rc<BufferRing>, datagram_ring: Option<Rc<BufferRing>>) -> Self {
        Self {
            buffer_ring,
            datagram_ring,
            submitted: Vec::new(),
            ops: BTreeMap::new(),
            posted: Vec::new(),
            turns: 0,
            direct_calls: 0,
            idle: false,
        }
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.ops.values().filter_map(|op| op.due).min()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.ops.len() + self.submitted.len()
    }
}

impl Kernel {
    /// Submits, performs what is due, and waits if it may.
    pub(super) fn turn(&mut self, ring: usize, wait: Wait) {
        self.seen.turns += 1;
        self.rings[ring].turns += 1;
        let deadline = match wait {
            Wait::No => self.now,
            Wait::For(time) => self.now + time,
            Wait::Forever => Time::from_nanos(u64::MAX),
        };
        for (op, submission) in std::mem::take(&mut self.rings[ring].submitted) {
            self.submit(ring, op, submission);
        }
        loop {
            self.pump();
            self.work(ring);
            if !self.rings[ring].posted.is_empty() || self.now >= deadline || self.hold_clock {
                break;
            }
            let next = [self.next_event(), self.rings[ring].next_due()]
                .into_iter()
                .flatten()
                .min();
            if next.is_none() && wait == Wait::Forever {
                self.violated(format!("runtime {ring} waits for ever"));
            }
            self.now = next.map_or(deadline, |next| next.min(deadline)).max(self.now);
        }
        self.rings[ring].idle = self.rings[ring].posted.is_empty() && wait != Wait::No;
    }

    fn submit(&mut self, ring: usize, op: u64, submission: Submission) {
        match submission {
            Submission::Accept { fd, once } => self.arm(ring, op, fd, Waiting::Accept { once }),
            Submission::Receive { fd, once } => self.arm(ring, op, fd, Waiting::Receive { once }),
            Submission::ReceiveDatagrams { fd } => self.arm(ring, op, fd, Waiting::Datagrams),
            Submission::SendDatagram {
                fd,
                bytes,
                buffer,
                departure,
            } => self.submit_datagram(ring, op, fd, (bytes, buffer), &departure),
            Submission::Writable { fd } => self.arm(ring, op, fd, Waiting::Writable),
            Submission::Readable { fd } => self.arm(ring, op, fd, Waiting::Readable),
            Submission::Connect { fd, address } => self.begin_connect(ring, op, fd, address),
            Submission::Send {
                fd,
                bytes,
                buffers,
                report,
            } => {
                if let Some(buffer) = buffers
                    .iter()
                    .find(|&&buffer| !self.rings[ring].buffer_ring.is_lent(buffer))
                {
                    self.violated(format!("buffer {buffer} was given back before its send was submitted"));
                }
                let result = self.send(ring, fd, &bytes);
                if report || result != bytes.len() as i32 {
                    self.rings[ring].posted.push(Posted {
                        op,
                        result,
                        more: false,
                        buffer: None,
                    });
                }
                self.land(fd);
            }
            Submission::Cancel { target } => self.cancel(ring, target),
        }
    }

    /// One operation less in flight on this descriptor.
    pub(super) fn land(&mut self, fd: i32) {
        if let Some(Some(descriptor)) = self.descriptors.get_mut(fd as usize) {
            descriptor.in_flight -= 1;
        }
    }

    fn arm(&mut self, ring: usize, op: u64, fd: i32, waiting: Waiting) {
        if let Some(descriptor) = self.descriptor(ring, fd, "an operation") {
            descriptor.waiting.push(op);
        }
        // The kernel looks for a buffer before it looks for bytes.
        let dry = match waiting {
            Waiting::Receive { .. } => !self.rings[ring].buffer_ring.has_published(),
            Waiting::Datagrams => self.is_dry_of_datagrams(ring),
            _ => false,
        };
        self.rings[ring].ops.insert(
            op,
            Op {
                fd,
                waiting,
                due: None,
                cancel: None,
            },
        );
        if dry {
            self.seen.buffers_dry += 1;
            self.finish(ring, op, -libc::ENOBUFS);
        } else if self.random.chance(self.chances.late) {
            self.note_work(ring, op);
        } else {
            self.try_op(ring, op);
        }
    }

    /// Something happened that this operation may wait for.
    pub(super) fn note_work(&mut self, ring: usize, op: u64) {
        let late = self.random.chance(self.chances.late);
        let delay = if late {
            self.delay(self.chances.late_max)
        } else {
            std::time::Duration::ZERO
        };
        self.seen.late += u64::from(late);
        let at = self.now + delay;
        if let Some(op) = self.rings[ring].ops.get_mut(&op) {
            op.due = Some(op.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Performs what is due, each operation once.
    fn work(&mut self, ring: usize) {
        let now = self.now;
        let due = self.rings[ring]
            .ops
            .iter()
            .filter(|(_, op)| op.due.is_some_and(|due| due <= now));
        let mut due: Vec<u64> = due.map(|(&op, _)| op).collect();
        if self.random.chance(self.chances.shuffled) {
            self.random.shuffle(&mut due);
        }
        for op in due {
            self.try_op(ring, op);
        }
    }

    fn try_op(&mut self, ring: usize, id: u64) {
        let now = self.now;
        let Some(op) = self.rings[ring].ops.get_mut(&id) else {
            return;
        };
        op.due = None;
        let (fd, waiting, cancel) = (op.fd, op.waiting.clone(), op.cancel);
        let cancelled = cancel.is_some_and(|at| at <= now);
        if !cancelled || self.random.chance(self.chances.data_after_cancel) {
            let posted = self.rings[ring].posted.len();
            match waiting {
                Waiting::Accept { once } => self.try_accept(ring, id, fd, once),
                Waiting::Receive { once } => self.try_receive(ring, id, fd, once),
                Waiting::Connect {
                    result: Some(result), ..
                } => self.finish(ring, id, result),
                Waiting::Connect { result: None, .. } => {}
                Waiting::Datagrams => self.try_datagrams(ring, id, fd),
                Waiting::Writable => self.try_writable(ring, id, fd),
                Waiting::Readable => self.try_readable(ring, id, fd),
            }
            let data = self.rings[ring].posted.len() > posted;
            self.seen.data_after_cancel += u64::from(cancelled && data);
        }
        if cancelled {
            self.finish(ring, id, -libc::ECANCELED);
        } else if let (Some(at), Some(op)) = (cancel, self.rings[ring].ops.get_mut(&id)) {
            op.due = Some(op.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Posts the last completion of an operation, if it has not been.
    pub(super) fn finish(&mut self, ring: usize, id: u64, result: i32) {
        self.retire_op(
            ring,
            id,
            Posted {
                op: id,
                result,
                more: false,
                buffer: None,
            },
        );
    }

    pub(super) fn retire_op(&mut self, ring: usize, id: u64, last: Posted) {
        let Some(op) = self.rings[ring].ops.remove(&id) else {
            return;
        };
        if let Some(Some(descriptor)) = self.descriptors.get_mut(op.fd as usize) {
            descriptor.waiting.retain(|waiting| *waiting != id);
        }
        self.rings[ring].posted.push(last);
        self.land(op.fd);
    }

    fn cancel(&mut self, ring: usize, target: u64) {
        let late = self.random.chance(self.chances.late_cancel);
        let delay = if late {
            self.delay(self.chances.late_max)
        } else {
            std::time::Duration::ZERO
        };
        let at = self.now + delay;
        match self.rings[ring].ops.get_mut(&target) {
            Some(op) => {
                op.cancel = Some(op.cancel.map_or(at, |cancel| cancel.min(at)));
                op.due = Some(op.due.map_or(at, |due| due.min(at)));
                self.seen.late_cancels += u64::from(late);
            }
            None => self.seen.cancels_that_found_nothing += 1,
        }
    }

    fn stream(&self, fd: i32) -> Option<EndId> {
        match self.descriptors.get(fd as usize) {
            Some(Some(descriptor)) => match descriptor.object {
                Object::Stream(end) => Some(end),
                Object::Listener(_) | Object::Unconnected | Object::Pipe(_) | Object::Datagrams(_) => None,
            },
            _ => None,
        }
    }

    fn send(&mut self, ring: usize, fd: i32, bytes: &[u8]) -> i32 {
        if self.descriptor(ring, fd, "a send").is_none() {
            return -libc::EBADF;
        }
        match self.stream(fd) {
            Some(end) => self.send_from(end, bytes),
            None => -libc::ENOTCONN,
        }
    }

    /// Sends what fits, or what chance lets fit.
    pub(super) fn send_from(&mut self, end: EndId, bytes: &[u8]) -> i32 {
        let room = self
            .connection(end)
            .map_or(0, |connection| connection.pipes[1 - end.end].room())
            .min(bytes.len());
        let mut most = bytes.len();
        if room > 0 && self.random.chance(self.chances.full_send) {
            most = 0;
        } else if room > 1 && self.random.chance(self.chances.partial_send) {
            most = self.random.size(1, room - 1);
        }
        match self.write(end, bytes, most) {
            Ok(0) if !bytes.is_empty() => {
                self.seen.full_sends += 1;
                -libc::EAGAIN
            }
            Ok(n) => {
                self.seen.partial_sends += u64::from(n < bytes.len());
                n as i32
            }
            Err(errno) => -errno.0,
        }
    }

    fn try_writable(&mut self, ring: usize, id: u64, fd: i32) {
        let Some(end) = self.stream(fd) else {
            return self.finish(ring, id, POLLOUT | POLLERR_POLLHUP);
        };
        let Some(connection) = self.connection(end) else { return };
        if connection.is_writable(end.end) {
            let broken = connection.ends[end.end].broken;
            self.finish(ring, id, if broken { POLLOUT | POLLERR_POLLHUP } else { POLLOUT });
        }
    }

    fn try_readable(&mut self, ring: usize, id: u64, fd: i32) {
        let Some(end) = self.stream(fd) else {
            return self.finish(ring, id, POLLIN | POLLERR_POLLHUP);
        };
        let Some(connection) = self.connection(end) else { return };
        if connection.is_readable(end.end) {
            let broken = connection.ends[end.end].broken;
            self.finish(ring, id, if broken { POLLIN | POLLERR_POLLHUP } else { POLLIN });
        }
    }

    fn try_receive(&mut self, ring: usize, id: u64, fd: i32, once: Option<u32>) {
        let Some(end) = self.stream(fd) else {
            return self.finish(ring, id, -libc::ENOTCONN);
        };
        for _ in 0..MULTISHOT_ROUNDS_MAX {
            let Some(connection) = self.connections.get_mut(end.connection) else {
                return;
            };
            if !connection.is_readable(end.end) {
                return;
            }
            let arrived = connection.pipes[end.end].arrived();
            let error = connection.ends[end.end].error;
            if !self.rings[ring].buffer_ring.has_published() {
                self.seen.buffers_dry += 1;
                return self.finish(ring, id, -libc::ENOBUFS);
            }
            if arrived == 0 {
                // Whoever asks first learns the error; the others see an end (tcp_recvmsg, sock_error).
                let Some(connection) = self.connection(end) else { return };
                connection.ends[end.end].error = None;
                return self.finish(ring, id, error.map_or(0, |errno| -errno.0));
            }
            let buffer_ring = &self.rings[ring].buffer_ring;
            let max = once.map_or_else(|| buffer_ring.bundle_max(), |max| max.max(buffer_ring.buffer_size()));
            let mut amount = arrived.min(max as usize);
            let partial = amount > 1 && self.random.chance(self.chances.partial_receive);
            if partial {
                amount = self.random.size(1, amount - 1);
                self.seen.partial_receives += 1;
            }
            let (buffer, received) = self.fill_buffers(ring, end, amount);
            self.after_read(end);
            let last = Posted {
                op: id,
                result: received as i32,
                more: false,
                buffer,
            };
            let ended = self.random.chance(self.chances.receive_ended);
            if ended || once.is_some() {
                self.seen.receives_ended += u64::from(ended);
                return self.retire_op(ring, id, last);
            }
            self.rings[ring].posted.push(Posted { more: true, ..last });
            if partial {
                break;
            }
        }
        self.note_work(ring, id);
    }

    /// Moves arrived bytes into published buffers, as far as both go.
    fn fill_buffers(&mut self, ring: usize, end: EndId, amount: usize) -> (Option<u16>, usize) {
        let single = self.random.chance(self.chances.single_buffer);
        let buffer_ring = self.rings[ring].buffer_ring.clone();
        let Some(connection) = self.connections.get_mut(end.connection) else {
            return (None, 0);
        };
        let pipe = &mut connection.pipes[end.end];
        let (mut first, mut received) = (None, 0);
        while received < amount {
            let buffer = buffer_ring.kernel_receive(|bytes| {
                let n = bytes.len().min(amount - received);
                received += pipe.read(&mut bytes[..n]);
            });
            let Some(buffer) = buffer else { break };
            self.seen.bundles += u64::from(first.is_some());
            first = first.or(Some(buffer));
            if single {
                break;
            }
        }
        (first, received)
    }

    fn try_accept(&mut self, ring: usize, id: u64, fd: i32, once: bool) {
        for _ in 0..MULTISHOT_ROUNDS_MAX {
            match self.accept_one(ring, fd) {
                Err(Errno(libc::EAGAIN)) => return,
                Err(errno) => return self.finish(ring, id, -errno.0),
                Ok(accepted) => {
                    let last = Posted {
                        op: id,
                        result: accepted,
                        more: false,
                        buffer: None,
                    };
                    let ended = self.random.chance(self.chances.accept_ended);
                    self.seen.accepts_ended += u64::from(ended && !once);
                    if once || ended {
                        return self.retire_op(ring, id, last);
                    }
                    self.rings[ring].posted.push(Posted { more: true, ..last });
                }
            }
        }
        self.note_work(ring, id);
    }

    fn begin_connect(&mut self, ring: usize, id: u64, fd: i32, address: Address) {
        let welcome = self.welcome(&address);
        self.arm(
            ring,
            id,
            fd,
            Waiting::Connect {
                address,
                welcome,
                result: None,
            },
        );
        if self.random.chance(self.chances.connect_local) {
            self.seen.connects_local += 1;
            return self.finish(ring, id, -libc::EADDRNOTAVAIL);
        }
        let latency = self.delay(self.chances.latency_max);
        let after = match welcome {
            Welcome::Late(delay) => latency + delay,
            Welcome::Silence => SYN_MAX,
            Welcome::Accept | Welcome::Refuse | Welcome::Unreachable | Welcome::Reset => latency,
        };
        self.schedule(self.now + after, Event::Connect { ring, op: id });
    }

    /// A connect learns its fate, if anybody still waits for it.
    pub(super) fn connect_due(&mut self, ring: usize, id: u64) {
        let Some(op) = self.rings[ring].ops.get(&id) else {
            return;
        };
        let Waiting::Connect {
            address,
            welcome,
            result: None,
        } = &op.waiting
        else {
            return;
        };
        let (fd, address, welcome) = (op.fd, address.clone(), *welcome);
        let source = self.descriptors[fd as usize].as_ref().and_then(|it| it.source);
        let source = source.map(|source| Address::Inet(SocketAddr::new(source.ip(), self.free_port())));
        let outcome = match self.establish(Owner::Descriptor(fd), source, &address, welcome) {
            Ok(connection) => {
                let end = EndId { connection, end: 0 };
                let options = self.descriptors[fd as usize]
                    .as_ref()
                    .map(|it| it.options)
                    .unwrap_or_default();
                self.attach(fd, end, options);
                0
            }
            Err(errno) => {
                self.seen.connects_refused += 1;
                -errno.0
            }
        };
        if let Some(Op {
            waiting: Waiting::Connect { result, .. },
            ..
        }) = self.rings[ring].ops.get_mut(&id)
        {
            *result = Some(outcome);
        }
        self.note_work(ring, id);
    }
}
