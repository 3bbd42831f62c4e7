//! The in-flight table: every operation, every socket, and what becomes of them when completions arrive.
//!
//! An operation's entry exists until the kernel's last completion for it *and* its owner lost interest; the entry owns
//! the buffers, and a socket's descriptor is closed only when no operation on it is in flight. Dropping an owner
//! cancels the operation; what still arrives is given back. Nobody but this file frees an entry or closes a
//! socket; `receive` starts again what the kernel ended, `datagrams` does
//! so for datagrams, `op` has the table's types, `pipes` owns pipes. Called by the futures in
//! `ops` and by the loop in `lib`.

mod datagrams;
mod op;
mod pipes;
mod receive;

pub(crate) use self::datagrams::Arrival;
use self::datagrams::Queue;
use self::op::{Closing, Kind, NO_SOCKET, Op, Phase, SocketEntry, keep, wake};
pub(crate) use self::op::{Received, Sent, SocketSlot};
use self::pipes::Pipes;
use crate::buffer_ring::{BufferRing, Links};
use crate::datagram::Departure;
use crate::driver::{Completion, Driver, Fd, Operation, Wait};
use crate::errno::{Errno, outcome};
use crate::slab::{Slab, Token};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

pub(crate) struct Reactor {
    pub(crate) driver: Driver,
    pub(crate) buffer_ring: Rc<BufferRing>,
    pub(crate) datagram_ring: Option<Rc<BufferRing>>,
    ops: Slab<Op>,
    sockets: Slab<SocketEntry>,
    pipes: Pipes,
    /// Receives that wait for buffers, first come first served.
    starved: VecDeque<Token>,
    /// The same of datagrams.
    starved_datagrams: VecDeque<Token>,
    /// Where datagrams go.
    queues: Slab<Queue>,
    /// Receives to be armed again.
    rearming: Vec<Token>,
    /// Sends that report nothing on success, started since the last turn.
    silent_sends: Vec<Token>,
    /// Trains among them, and how they were to leave.
    trains: Vec<(Token, Departure)>,
    completions: Vec<Completion>,
    /// Completions with a token that names nothing. Cancels make some; anything else would be a bug.
    pub(crate) stray: u64,
    /// Receives that found the ring dry.
    pub(crate) dry: u64,
    pub(crate) reaped: u64,
    /// Another thread called since this was last cleared.
    pub(crate) notified: bool,
    /// The runtime has ended: operations are over before they start, with ECANCELED.
    ended: bool,
}

impl Reactor {
    pub(crate) fn new(driver: Driver) -> Self {
        let buffer_ring = driver.buffer_ring().clone();
        let datagram_ring = driver.datagram_ring().cloned();
        Self {
            driver,
            buffer_ring,
            datagram_ring,
            ops: Slab::new(),
            sockets: Slab::new(),
            pipes: Pipes::default(),
            starved: VecDeque::new(),
            starved_datagrams: VecDeque::new(),
            queues: Slab::new(),
            rearming: Vec::new(),
            silent_sends: Vec::new(),
            trains: Vec::new(),
            completions: Vec::with_capacity(256),
            stray: 0,
            dry: 0,
            reaped: 0,
            notified: false,
            ended: false,
        }
    }

    /// Takes ownership of a descriptor.
    pub(crate) fn adopt(&mut self, fd: Fd) -> SocketSlot {
        SocketSlot(
            self.sockets
                .insert(SocketEntry {
                    fd,
                    in_flight: 0,
                    closing: None,
                })
                .slot,
        )
    }

    pub(crate) fn fd(&self, socket: &SocketSlot) -> Fd {
        self.sockets
            .slot(socket.0)
            .expect("its owner keeps the socket in the table")
            .fd
    }

    /// Gives a socket up: it is closed as soon as nothing of it is in flight.
    pub(crate) fn close(&mut self, socket: &SocketSlot, abort: bool) {
        let closing = if abort { Closing::Abort } else { Closing::Orderly };
        let entry = self
            .sockets
            .slot_mut(socket.0)
            .expect("its owner keeps the socket in the table");
        entry.closing = Some(closing);
        self.close_if_idle(socket.0);
    }

    fn close_if_idle(&mut self, slot: u32) {
        let Some(entry) = self.sockets.slot_mut(slot) else {
            return;
        };
        let over = entry.in_flight == 0 || crate::faults::active(crate::faults::Fault::ClosedInFlight);
        if let (Some(closing), true) = (entry.closing, over) {
            let fd = entry.fd;
            self.sockets.remove_slot(slot);
            self.driver.close(fd, closing == Closing::Abort);
        }
    }

    /// Enters an operation into the table. The driver is to start it, unless the runtime has ended.
    fn begin(&mut self, mut kind: Kind, socket: Option<&SocketSlot>) -> (Token, Fd) {
        let in_flight = !self.ended;
        if let (Kind::Receive { phase, .. } | Kind::Datagrams { phase, .. }, false) = (&mut kind, in_flight) {
            *phase = Phase::Ended;
        }
        let (socket, fd) = match socket {
            Some(&SocketSlot(slot)) => {
                let found = self.sockets.slot_with_generation(slot);
                let (generation, entry) = found.expect("its owner keeps the socket in the table");
                entry.in_flight += u32::from(in_flight);
                (Token { slot, generation }, entry.fd)
            }
            None => (NO_SOCKET, Fd(-1)),
        };
        let result = if in_flight { 0 } else { -Errno::CANCELED.0 };
        let op = Op {
            kind,
            socket,
            in_flight,
            orphaned: false,
            result,
            waker: None,
        };
        (self.ops.insert(op), fd)
    }

    fn start(&mut self, operation: Operation<'_>, token: Token) {
        if !self.ended {
            self.driver.start(operation, token);
        }
    }

    pub(crate) fn accept(&mut self, socket: &SocketSlot, once: bool) -> Token {
        let (token, fd) = self.begin(
            Kind::Accept {
                accepted: Box::default(),
            },
            Some(socket),
        );
        self.start(Operation::Accept { fd, once }, token);
        token
    }

    pub(crate) fn connect(&mut self, socket: &SocketSlot, address: &crate::Address) -> Token {
        let (token, fd) = self.begin(Kind::Connect, Some(socket));
        self.start(Operation::Connect { fd, address }, token);
        token
    }

    pub(crate) fn writable(&mut self, socket: &SocketSlot) -> Token {
        let (token, fd) = self.begin(Kind::Ready, Some(socket));
        self.start(Operation::Writable { fd }, token);
        token
    }

    pub(crate) fn readable(&mut self, socket: &SocketSlot) -> Token {
        let (token, fd) = self.begin(Kind::Ready, Some(socket));
        self.start(Operation::Readable { fd }, token);
        token
    }

    pub(crate) fn watch_notifications(&mut self) {
        let (token, _) = self.begin(Kind::Notified, None);
        self.driver.start(Operation::Notified, token);
    }

    /// Sends what fits. With `report` the owner is woken by success too, not only when something is left.
    pub(crate) fn send(&mut self, socket: &SocketSlot, links: Links, report: bool) -> Token {
        // What is beyond the pieces of one send would otherwise be taken for sent.
        let report = report || links.pieces() > crate::driver::SEND_PIECES_MAX as u16;
        let (token, fd) = self.begin(Kind::Send { links }, Some(socket));
        let op = self.ops.get_mut(token).expect("it was just inserted");
        if let (Kind::Send { links }, true) = (&op.kind, op.in_flight) {
            self.driver.start(Operation::Send { fd, links, report }, token);
        }
        self.note_send(token, report);
        token
    }

    /// The same for bytes outside of the buffer ring, of which the first `sent` are done already.
    pub(crate) fn send_bytes(&mut self, socket: &SocketSlot, bytes: Box<[u8]>, sent: u32, report: bool) -> Token {
        let (token, fd) = self.begin(Kind::SendBytes { bytes, sent }, Some(socket));
        let op = self.ops.get_mut(token).expect("it was just inserted");
        if let (Kind::SendBytes { bytes, sent }, true) = (&op.kind, op.in_flight) {
            self.driver.start(
                Operation::SendBytes {
                    fd,
                    bytes: &bytes[*sent as usize..],
                    report,
                },
                token,
            );
        }
        self.note_send(token, report);
        token
    }

    fn note_send(&mut self, token: Token, report: bool) {
        if !report {
            self.silent_sends.push(token);
        }
    }

    /// One system call: submits, waits as `wait` says, and handles what completed. `ready` tells after the completions
    /// were handled whether any task became ready, which is not this file's concern.
    pub(crate) fn turn(&mut self, wait: Wait) {
        self.feed_rearming();
        self.feed_starved();
        self.feed_starved_datagrams();
        // Readers that wait for buffers must not wait for an event that only they could cause: silent sends hold their
        // buffers until the call returns, and those that were just armed may have nothing to receive.
        let next_is_due = !self.silent_sends.is_empty() || self.buffer_ring.available() > 0;
        let datagrams_are_due = !self.silent_sends.is_empty() || self.has_datagram_buffers();
        let is_due = !self.starved.is_empty() && next_is_due || !self.starved_datagrams.is_empty() && datagrams_are_due;
        let wait = if is_due { Wait::No } else { wait };
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.turn(wait, &mut completions);
        self.reaped += completions.len() as u64;
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        self.settle_sends();
    }

    fn complete(&mut self, completion: Completion) {
        let Completion {
            token,
            result,
            more,
            links,
            is_datagram,
        } = completion;
        let Some(op) = self.ops.get_mut(token) else {
            self.stray += 1;
            self.release_from(is_datagram, links);
            return;
        };
        if op.orphaned {
            match &self.datagram_ring {
                Some(ring) if is_datagram => ring.release(links),
                _ => self.buffer_ring.release(links),
            }
            if let (Kind::Accept { .. }, Ok(fd)) = (&op.kind, outcome(result)) {
                self.driver.close(Fd(fd as i32), true);
            }
            if !more {
                self.finish(token, result);
            }
            return;
        }
        match &mut op.kind {
            Kind::Accept { accepted } => {
                if let Ok(fd) = outcome(result) {
                    accepted.push_back(Fd(fd as i32));
                }
                wake(op);
                if !more {
                    self.finish(token, result);
                }
            }
            Kind::Receive {
                phase: Phase::Pausing { .. },
                ..
            } if more && crate::faults::active(crate::faults::Fault::BytesAfterPauseLost) => {
                self.buffer_ring.release(links);
            }
            Kind::Receive { received, .. } => {
                self.buffer_ring.append(received, links);
                if result > 0 {
                    wake(op);
                }
                if !more {
                    self.receive_ended(token, result);
                } else if self.driver.is_set_aside_after(u32::try_from(result).unwrap_or(0)) {
                    self.renew_receive(token);
                }
            }
            Kind::Datagrams { .. } => self.datagram_completed(token, result, more, links),
            Kind::SendDatagram { .. } => self.datagram_not_sent(token, result),
            Kind::Connect | Kind::Ready => {
                wake(op);
                self.finish(token, result);
            }
            Kind::Send { .. } | Kind::SendBytes { .. } => self.send_completed(token, result),
            Kind::Notified => {
                self.finish(token, result);
                self.ops.remove(token);
                self.notified = true;
                self.watch_notifications();
            }
        }
    }

    /// The driver will say no more about this operation.
    fn finish(&mut self, token: Token, result: i32) {
        let Some(op) = self.ops.get_mut(token) else { return };
        assert!(op.in_flight, "an operation completed twice");
        op.in_flight = false;
        op.result = result;
        let (socket, orphaned) = (op.socket, op.orphaned);
        if orphaned && let Some(op) = self.ops.remove(token) {
            self.discard(op);
        }
        if socket != NO_SOCKET {
            let entry = self
                .sockets
                .get_mut(socket)
                .expect("a socket outlives its operations in flight");
            entry.in_flight -= 1;
            self.close_if_idle(socket.slot);
        }
    }

    fn send_completed(&mut self, token: Token, result: i32) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let taken = outcome(result).unwrap_or(0);
        match &mut op.kind {
            Kind::Send { links }
                if taken < links.bytes() && crate::faults::active(crate::faults::Fault::ShortSendRestarted) => {}
            Kind::Send { links } => self.buffer_ring.advance(links, taken),
            Kind::SendBytes { sent, .. } => *sent += taken,
            _ => {}
        }
        wake(op);
        self.finish(token, result);
    }

    /// After a turn in which everything queued was submitted: sends that reported nothing are done.
    fn settle_sends(&mut self) {
        let mut sends = std::mem::take(&mut self.silent_sends);
        for token in sends.drain(..) {
            let Some(op) = self.ops.get_mut(token) else { continue };
            if !op.in_flight {
                continue;
            }
            op.orphaned = true;
            self.finish(token, 0);
        }
        self.silent_sends = sends;
        self.trains.clear();
    }

    /// How a send went; once it is over the token is spent.
    pub(crate) fn poll_send(&mut self, token: Token, waker: &Waker) -> Sent {
        let Some(op) = self.ops.get_mut(token) else {
            return Sent::All;
        };
        if op.in_flight {
            keep(&mut op.waker, waker);
            return Sent::Pending;
        }
        let error = outcome(op.result).err().filter(|errno| *errno != Errno::AGAIN);
        match self.ops.remove(token).map(|op| op.kind) {
            Some(Kind::Send { links }) if !links.is_empty() => Sent::Rest { links, error },
            Some(Kind::SendBytes { bytes, sent }) if (sent as usize) < bytes.len() => {
                Sent::RestBytes { bytes, sent, error }
            }
            _ => Sent::All,
        }
    }

    /// The result of a connect or a wait for room; once it is there the token is spent.
    pub(crate) fn poll_once(&mut self, token: Token, waker: &Waker) -> Option<Result<u32, Errno>> {
        let Some(op) = self.ops.get_mut(token) else {
            return Some(Err(Errno::CANCELED));
        };
        if op.in_flight {
            keep(&mut op.waker, waker);
            return None;
        }
        let result = op.result;
        self.ops.remove(token);
        Some(outcome(result))
    }

    /// The next accepted descriptor, or the error that ended accepting.
    pub(crate) fn poll_accept(&mut self, token: Token, waker: &Waker) -> Option<Result<Fd, Errno>> {
        let Some(op) = self.ops.get_mut(token) else {
            return Some(Err(Errno::CANCELED));
        };
        let Kind::Accept { accepted } = &mut op.kind else {
            unreachable!("a token of another kind")
        };
        if let Some(fd) = accepted.pop_front() {
            return Some(Ok(fd));
        }
        if op.in_flight {
            keep(&mut op.waker, waker);
            return None;
        }
        Some(Err(outcome(op.result).err().unwrap_or(Errno::AGAIN)))
    }

    /// Its owner lost interest: cancels what is in flight and gives back what was gathered.
    pub(crate) fn abandon(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(token) else { return };
        if !op.in_flight {
            if let Some(op) = self.ops.remove(token) {
                self.discard(op);
            }
            return;
        }
        op.orphaned = true;
        op.waker = None;
        match &mut op.kind {
            Kind::Receive { received, .. } => {
                let links = std::mem::replace(received, Links::EMPTY);
                self.buffer_ring.release(links);
            }
            Kind::Accept { accepted } => {
                for fd in accepted.drain(..) {
                    self.driver.close(fd, true);
                }
            }
            // Over by the end of the turn, whatever happens; the buffers must stay until then.
            Kind::Send { .. } | Kind::SendBytes { .. } | Kind::SendDatagram { .. } => return,
            // What has arrived is in its queue.
            Kind::Datagrams { .. } | Kind::Connect | Kind::Ready | Kind::Notified => {}
        }
        self.driver.start(Operation::Cancel { target: token }, token);
    }

    /// Cancels, but leaves the owner to see what still arrives.
    pub(crate) fn cancel(&mut self, token: Token) {
        if self.ops.get_mut(token).is_some_and(|op| op.in_flight) {
            self.driver.start(Operation::Cancel { target: token }, token);
        }
    }

    fn discard(&mut self, op: Op) {
        match op.kind {
            Kind::Receive { received: links, .. } | Kind::Send { links } => self.buffer_ring.release(links),
            Kind::Accept { accepted } => {
                for fd in *accepted {
                    self.driver.close(fd, true);
                }
            }
            Kind::SendDatagram { links, .. } => self.release_from(true, links),
            Kind::Datagrams { .. } | Kind::Connect | Kind::SendBytes { .. } | Kind::Ready | Kind::Notified => {}
        }
    }

    /// Cancels everything that is in flight and lets nothing start any more. For the end of a runtime, after its tasks
    /// were dropped; what outlives it finds its operations gone.
    pub(crate) fn end(&mut self) {
        let tokens: Vec<Token> = self.ops.iter_mut().map(|(token, _)| token).collect();
        for token in tokens {
            self.abandon(token);
        }
        self.ended = true;
        self.close_spare_pipes();
    }

    /// Operations that the driver has not finished with.
    pub(crate) fn in_flight(&mut self) -> usize {
        self.ops.iter_mut().filter(|(_, op)| op.in_flight).count()
    }

    /// Sockets that are open.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Operations in the table.
    pub(crate) fn operations(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn starved(&self) -> usize {
        self.starved.len() + self.starved_datagrams.len()
    }

    /// Gives buffers back to the ring that they are of.
    fn release_from(&self, is_datagram: bool, links: Links) {
        match &self.datagram_ring {
            Some(ring) if is_datagram => ring.release(links),
            _ => self.buffer_ring.release(links),
        }
    }

    fn has_datagram_buffers(&self) -> bool {
        self.datagram_ring.as_ref().is_some_and(|ring| ring.available() > 0)
    }
}
