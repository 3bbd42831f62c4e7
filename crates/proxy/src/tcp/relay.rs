//! Moving bytes between the two sides of a relay, both directions at once, in one task.
//!
//! Each direction receives as bytes come and sends as there is room; what the sink does not take is queued up to a
//! bound, then receiving pauses and TCP holds the sender. Half-close is kept; a broken side ends the relay. Owns
//! neither the connection's books (`state`) nor how it is closed (`close`). Called by `serve` and, later, by every
//! service that has two streams to join.

use super::queue::Queue;
use crate::state::{SpillGuard, StreamGuard, WorkerState};
use ringway_core::model::Keepalive;
use ringway_core::reason::{EndReason, Side};
use ringway_core::stats::Counter;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Errno, Once, Receive, Send, SendOutcome, Sleep, Stream, TcpInfo, Time};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes queued in one direction at which receiving pauses; resumed when all have gone.
const QUEUE_MAX: u32 = 256 * 1024;
/// The same while less than half of the worker's buffers is left.
const QUEUE_MAX_CROWDED: u32 = 64 * 1024;
/// Bytes of one receive of a stream, as long as the sink has room for them. Each batch wakes the other side once, which
/// costs more than the bytes do: the longest that still leaves in one send.
const BATCH_MAX: u32 = 1024 * 1024;
/// Short receives in a row after which a direction is not a stream any more.
const SHORT_MAX: u8 = 4;
/// How often a relay that cannot make progress looks at its connections, and when a new one sets keepalive.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Unanswered probes or retransmissions without which silence proves nothing: the kernel may not have asked lately.
const UNANSWERED_MIN: u32 = 2;

/// The time limits of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No byte in either direction.
    pub idle_timeout: Duration,
    /// No byte after one side has ended.
    pub half_closed_timeout: Duration,
    /// A client that blocks us and is not heard of.
    pub client_dead_timeout: Duration,
    /// A backend that blocks us and is not heard of.
    pub backend_dead_timeout: Duration,
    /// Keepalive towards the backend.
    pub backend_keepalive: Keepalive,
}

/// Two joined streams.
#[derive(Debug)]
pub struct Relay {
    pub(super) client: Stream,
    pub(super) backend: Stream,
    /// From the client to the backend.
    pub(super) up: Direction,
    /// From the backend to the client.
    pub(super) down: Direction,
    timer: Sleep,
    /// The timer will wake this task at its deadline: until then it need not be asked.
    timer_runs: bool,
    active_at: Time,
    keepalive_set: bool,
}

/// One direction of a relay.
#[derive(Debug)]
pub(super) struct Direction {
    receive: Receive,
    pub(super) queue: Queue,
    sending: Sending,
    /// Receiving was paused because the queue is full.
    paused: bool,
    /// The source has ended; nothing will be received any more.
    ended: bool,
    /// The end was passed on.
    end_sent: bool,
    /// A stream: received in batches of what the sink has room for, so that nothing is queued for a sink that stops.
    streaming: Option<StreamGuard>,
    /// Counts what of the queue was copied out of buffers; boxed because few ever have any.
    spilled: Option<Box<SpillGuard>>,
    /// Room was waited for: what is there now is taken, be it little.
    roomy: bool,
    /// Short receives in a row while streaming.
    short: u8,
    /// In which round of `WorkerState::note_blocked` this was noted; 0: not noted.
    noted: u32,
}

#[derive(Debug)]
enum Sending {
    Idle,
    /// Known by the end of the turn; this many bytes.
    Started(Send, u32),
    /// The sink is full.
    Full(Blocked),
}

#[derive(Debug)]
struct Blocked {
    room: Once,
    since: Time,
    /// What the kernel held for the sink when it was looked at last.
    outgoing: u32,
}

/// Which side broke, and how the kernel put it.
type Broken = (Side, Errno);

impl Relay {
    /// Joins two connected streams and starts to receive from both.
    pub fn new(worker: &WorkerState, client: Stream, backend: Stream) -> Self {
        let now = worker.handle.now();
        Self {
            up: Direction::new(worker, &client),
            down: Direction::new(worker, &backend),
            client,
            backend,
            timer: worker.handle.sleep_until(now + CHECK_INTERVAL),
            timer_runs: false,
            active_at: now,
            keepalive_set: false,
        }
    }

    /// Moves what can be moved. Ready with the reason when the relay is over; how to close follows from it.
    pub fn poll(
        &mut self,
        worker: &WorkerState,
        limits: &Limits,
        from_clients: &Counter,
        from_backends: &Counter,
        context: &mut Context<'_>,
    ) -> Poll<EndReason> {
        if worker.orders.is_resetting() {
            return Poll::Ready(EndReason::DrainDeadline);
        }
        match self.poll_directions(worker, from_clients, from_backends, context) {
            Ok(false) => {}
            Ok(true) => return Poll::Ready(EndReason::Finished),
            Err(broken) => return Poll::Ready(reason(broken)),
        }
        self.poll_timer(worker, limits, context)
    }

    /// `true` when both directions have ended in order.
    fn poll_directions(
        &mut self,
        worker: &WorkerState,
        from_clients: &Counter,
        from_backends: &Counter,
        context: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        let now = worker.handle.now();
        // Outcomes first, of both directions: when a reset made a send fail, the receive of that side may report an
        // orderly end afterwards, and must not be believed.
        let up = self
            .up
            .settle(&self.backend, worker, from_clients, context)
            .or_else(|errno| learnt(Side::Backend, errno))?;
        let down = self
            .down
            .settle(&self.client, worker, from_backends, context)
            .or_else(|errno| learnt(Side::Client, errno))?;
        let up = self
            .up
            .pump(&self.backend, worker, context)
            .map_err(|errno| (Side::Client, errno))?
            | up;
        let down = self
            .down
            .pump(&self.client, worker, context)
            .map_err(|errno| (Side::Backend, errno))?
            | down;
        if up || down {
            self.active_at = now;
        }
        if active(Fault::HalfCloseForgotten) && (self.up.end_sent || self.down.end_sent) {
            return Ok(true);
        }
        Ok(self.up.end_sent && self.down.end_sent)
    }

    fn poll_timer(&mut self, worker: &WorkerState, limits: &Limits, context: &mut Context<'_>) -> Poll<EndReason> {
        let now = worker.handle.now();
        if self.is_blocked() && self.timer.deadline() > now + CHECK_INTERVAL {
            self.timer.reset(now + CHECK_INTERVAL);
            self.timer_runs = false;
        }
        if self.timer_runs && now < self.timer.deadline() {
            return Poll::Pending;
        }
        while Pin::new(&mut self.timer).poll(context).is_ready() {
            if let Some(reason) = self.check(now, limits) {
                return Poll::Ready(reason);
            }
            let next = if self.is_blocked() {
                now + CHECK_INTERVAL
            } else {
                self.silence_limit(limits).0
            };
            self.timer.reset(next);
        }
        self.timer_runs = true;
        Poll::Pending
    }

    /// What only time tells.
    fn check(&mut self, now: Time, limits: &Limits) -> Option<EndReason> {
        if !self.keepalive_set {
            // Fails on UNIX sockets, which need none, and on a connection that broke, which its receive will tell.
            let _ = self
                .backend
                .set_options(&crate::convert::connection(&limits.backend_keepalive));
            self.keepalive_set = true;
        }
        let up = self
            .up
            .check(&self.client, &self.backend, now, limits.backend_dead_timeout);
        let down = self
            .down
            .check(&self.backend, &self.client, now, limits.client_dead_timeout);
        for (found, source, sink) in [(up, Side::Client, Side::Backend), (down, Side::Backend, Side::Client)] {
            match found {
                Found::Nothing => {}
                Found::Progress => self.active_at = now,
                Found::SourceReset => return Some(reason((source, Errno::CONNECTION_RESET))),
                Found::SinkReset => return Some(reason((sink, Errno::CONNECTION_RESET))),
                Found::SinkGone => return Some(reason((sink, Errno::TIMED_OUT))),
            }
        }
        let (limit, ended) = self.silence_limit(limits);
        (now >= limit).then_some(ended)
    }

    /// When silence ends the relay, and as what.
    fn silence_limit(&self, limits: &Limits) -> (Time, EndReason) {
        let idle = (self.active_at + limits.idle_timeout, EndReason::IdleTimeout);
        let half_closed = (
            self.active_at + limits.half_closed_timeout,
            EndReason::HalfClosedTimeout,
        );
        if self.up.end_sent != self.down.end_sent && half_closed.0 < idle.0 {
            half_closed
        } else {
            idle
        }
    }

    const fn is_blocked(&self) -> bool {
        self.up.is_blocked() || self.down.is_blocked()
    }

    /// Everything received was passed on.
    pub(super) fn is_drained(&self) -> bool {
        self.up.is_drained() && self.down.is_drained()
    }
}

/// What a look at a blocked direction found.
enum Found {
    Nothing,
    /// The sink has acknowledged something.
    Progress,
    SourceReset,
    SinkReset,
    /// The sink does not answer any more.
    SinkGone,
}

impl Direction {
    fn new(worker: &WorkerState, source: &Stream) -> Self {
        Self {
            receive: source.receive(),
            queue: Queue::new(worker.handle.no_leases()),
            sending: Sending::Idle,
            paused: false,
            ended: false,
            end_sent: false,
            streaming: None,
            spilled: None,
            roomy: false,
            short: 0,
            noted: 0,
        }
    }

    const fn is_blocked(&self) -> bool {
        matches!(self.sending, Sending::Full(_))
    }

    /// Looks at how the last send went, and whether a full sink has room again. `true`: the sink took something.
    pub(super) fn settle(
        &mut self,
        sink: &Stream,
        worker: &WorkerState,
        counter: &Counter,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        match &mut self.sending {
            Sending::Idle => Ok(false),
            Sending::Full(blocked) => {
                // An error is the next send's to tell.
                if Pin::new(&mut blocked.room).poll(context).is_ready() {
                    self.sending = Sending::Idle;
                    self.roomy = true;
                }
                Ok(false)
            }
            Sending::Started(send, len) => {
                let len = *len;
                let Poll::Ready(outcome) = send.poll_outcome(context) else {
                    return Ok(false);
                };
                self.sending = Sending::Idle;
                let held = self.queue.bytes();
                let (unsent, failed) = match outcome {
                    SendOutcome::All => {
                        // Spilled bytes go first, so what went now was all of them.
                        self.spilled = None;
                        counter.add(u64::from(len));
                        return Ok(true);
                    }
                    SendOutcome::Full(unsent) => (unsent, None),
                    SendOutcome::Failed(unsent, errno) => (unsent, Some(errno)),
                };
                self.queue.put_back(unsent, worker.handle.no_leases());
                let taken = len - (self.queue.bytes() - held);
                counter.add(u64::from(taken));
                if let Some(errno) = failed {
                    return Err(errno);
                }
                self.note_full(sink, worker, context);
                Ok(taken > 0)
            }
        }
    }

    fn note_full(&mut self, sink: &Stream, worker: &WorkerState, context: &mut Context<'_>) {
        if active(Fault::ShortSendNotResumed) {
            self.queue = Queue::new(worker.handle.no_leases());
            return;
        }
        let mut room = sink.writable();
        if !active(Fault::WritableNotAwaited) {
            // Registers interest: nobody else may come by before there is room.
            let early = Pin::new(&mut room).poll(context);
            debug_assert!(early.is_pending(), "room was known before its turn was over");
        }
        self.sending = Sending::Full(Blocked {
            room,
            since: worker.handle.now(),
            outgoing: 0,
        });
    }

    /// Takes what was received, starts to send, and keeps the bound. `true`: something was received.
    pub(super) fn pump(
        &mut self,
        sink: &Stream,
        worker: &WorkerState,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        let received = self.take_received(worker, context)?;
        self.start_send(sink, worker, context);
        self.keep_bound(worker, context);
        self.go_on_receiving(sink, worker, context);
        if self.ended && !self.end_sent && self.is_drained() {
            self.end_sent = true;
            // Fails when the sink is gone already, which its receive tells.
            let _ = sink.shutdown_write();
        }
        Ok(received)
    }

    fn take_received(&mut self, worker: &WorkerState, context: &mut Context<'_>) -> Result<bool, Errno> {
        let mut received = false;
        let held = self.queue.bytes();
        while !self.ended {
            match self.receive.poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(leases))) => {
                    received = true;
                    self.queue.push(leases);
                }
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(errno)) if active(Fault::ResetSentAsEnd) && errno.is_reset() => self.ended = true,
                Poll::Ready(Err(errno)) => return Err(errno),
            }
        }
        if received {
            self.note_batch(self.queue.bytes() - held, worker);
        }
        Ok(received)
    }

    /// A receive as long as it could be makes a stream; several short ones unmake it.
    fn note_batch(&mut self, bytes: u32, worker: &WorkerState) {
        if bytes >= worker.handle.bundle_max() {
            self.short = 0;
            if self.streaming.is_none() {
                self.streaming = Some(worker.count_stream());
                self.pause();
            }
        } else if self.streaming.is_some() {
            self.short += 1;
            if self.short >= SHORT_MAX {
                self.short = 0;
                self.streaming = None;
            }
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.receive.pause();
    }

    /// Sends what is queued, if the last send is over. `true` if one was started.
    pub(super) fn start_send(&mut self, sink: &Stream, worker: &WorkerState, context: &mut Context<'_>) -> bool {
        if !matches!(self.sending, Sending::Idle) {
            return false;
        }
        // Success needs no report while nothing waits for it; the outcome is then seen with the next event.
        let report = self.ended || self.paused;
        let Some((mut send, len)) = self.queue.send(sink, report, worker.handle.no_leases()) else {
            return false;
        };
        // Registers interest in a failure, and in success if reported.
        let outcome = send.poll_outcome(context);
        debug_assert!(outcome.is_pending(), "a send was known before its turn was over");
        self.sending = Sending::Started(send, len);
        true
    }

    /// From now on whoever drives the queue waits for the outcome of each send. With `give_up`, nothing is received any
    /// more either.
    pub(super) const fn finish_up(&mut self, give_up: bool) {
        self.paused = true;
        self.ended |= give_up;
    }

    /// Takes what a source that broke has left with the kernel: bytes first, and in the end the error.
    pub(super) fn take_rest(&mut self, worker: &WorkerState, context: &mut Context<'_>) {
        if !self.ended && self.take_received(worker, context).is_err() {
            self.ended = true;
        }
        if !self.ended && self.is_drained() && self.receive.is_paused() {
            self.receive
                .resume_once(batch_max(worker.buffer_bytes(), worker.streams()));
        }
    }

    /// Everything that the source sent was taken by the sink.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.is_drained()
    }

    /// Bounds what is queued for a full sink, and keeps it out of the worker's buffers when those are short.
    fn keep_bound(&mut self, worker: &WorkerState, context: &Context<'_>) {
        if !self.is_blocked() {
            return;
        }
        if !self.paused && !self.ended && self.queue.bytes() >= queue_max(worker.handle.buffers()) {
            self.pause();
        }
        if self.queue.holds_leases() && !active(Fault::BuffersHoarded) {
            if worker.buffers_short() {
                self.queue.spill(worker.handle.no_leases());
                self.spilled = Some(Box::new(worker.count_spilled(self.queue.bytes())));
            } else {
                self.noted = worker.note_blocked(context.waker(), self.noted);
            }
        }
    }

    /// Receives again once everything has been taken: a stream as much as the sink has room for, others as it comes.
    fn go_on_receiving(&mut self, sink: &Stream, worker: &WorkerState, context: &mut Context<'_>) {
        if !self.paused || self.ended || !self.is_drained() || active(Fault::PauseNotResumed) {
            return;
        }
        if self.streaming.is_none() {
            self.paused = false;
            self.receive.resume();
            return;
        }
        // While a pause is under way, bytes may still come; the receive tells when it is over.
        if !self.receive.is_paused() {
            return;
        }
        let room = sink.send_room();
        if !std::mem::take(&mut self.roomy) && room.is_some_and(|room| !room.is_writable()) {
            self.note_full(sink, worker, context);
            return;
        }
        let room = room.map_or(BATCH_MAX, |room| room.free);
        self.receive
            .resume_once(room.min(batch_max(worker.buffer_bytes(), worker.streams())));
    }

    /// Everything received was taken by the sink.
    pub(super) fn is_drained(&self) -> bool {
        active(Fault::EndOvertakesBytes) || (self.queue.is_empty() && matches!(self.sending, Sending::Idle))
    }

    fn check(&mut self, source: &Stream, sink: &Stream, now: Time, dead_timeout: Duration) -> Found {
        let Sending::Full(blocked) = &mut self.sending else {
            return Found::Nothing;
        };
        // Not every connection that is over was reset: the source may have been told of the other direction's end and have
        // ended its own, all of which has arrived while it waits here for the sink.
        let is_reset = |info: TcpInfo| info.broken || (info.closed && active(Fault::EndTakenForReset));
        if self.paused && source.tcp_info().is_some_and(is_reset) {
            return Found::SourceReset;
        }
        let Some(info) = sink.tcp_info() else {
            return Found::Nothing;
        };
        if info.closed {
            return Found::SinkReset;
        }
        let silent = info.last_heard >= dead_timeout && info.unanswered >= UNANSWERED_MIN;
        if silent && now.since(blocked.since) >= dead_timeout {
            return Found::SinkGone;
        }
        let before = std::mem::replace(&mut blocked.outgoing, info.outgoing);
        if info.outgoing < before {
            Found::Progress
        } else {
            Found::Nothing
        }
    }
}

/// The bound of a direction's queue by the buffers that are left: with few left, nothing is received while something
/// waits to be sent.
const fn queue_max((available, count): (u16, u16)) -> u32 {
    if available >= count / 2 {
        QUEUE_MAX
    } else if available >= count / 4 {
        QUEUE_MAX_CROWDED
    } else {
        0
    }
}

/// The longest batch of a stream: its share of half the worker's buffers, so that all streams together can hold no more
/// than that even if all their sinks stop at once (the kernel may lack memory for what it had room for).
fn batch_max(buffer_bytes: u64, streams: u32) -> u32 {
    let share = buffer_bytes / 2 / u64::from(streams.max(1));
    u32::try_from(share).unwrap_or(BATCH_MAX).min(BATCH_MAX)
}

/// A send has learnt that this side is broken.
fn learnt(side: Side, errno: Errno) -> Result<bool, Broken> {
    if active(Fault::ResetTakenForEnd) {
        Ok(false)
    } else {
        Err((side, errno))
    }
}

const fn reason((side, errno): Broken) -> EndReason {
    match (side, errno.is_timed_out()) {
        (Side::Client, false) => EndReason::ClientReset,
        (Side::Client, true) => EndReason::ClientGone,
        (Side::Backend, false) => EndReason::BackendReset,
        (Side::Backend, true) => EndReason::BackendGone,
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
