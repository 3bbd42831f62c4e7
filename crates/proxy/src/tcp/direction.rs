//! One direction of a relay: receives as bytes come, sends as there is room, keeps what is left within a bound.
//!
//! A stream's bytes stay in the kernel where they can (`piped`). Knows neither the other direction nor time limits (`relay`), nor how an end is passed on after a reset (`close`).

mod piped;

use self::piped::Piped;
use super::books::Tally;
use super::head::Head;
use super::queue::Queue;
use super::tap::Tap;
use crate::state::{SpillGuard, StreamGuard, WorkerState};
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Errno, Once, Receive, Send, SendOutcome, SocketOptions, Stream, TcpInfo, Time};
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
/// Unanswered probes or retransmissions without which silence proves nothing: the kernel may not have asked lately.
const UNANSWERED_MIN: u32 = 2;

/// One direction of a relay.
#[derive(Debug)]
pub(super) struct Direction {
    receive: Receive,
    pub(super) queue: Queue,
    sending: Sending,
    no_delay: NoDelay,
    /// Receiving was paused because the queue is full.
    paused: bool,
    /// The source has ended; nothing will be received any more.
    pub(super) ended: bool,
    /// The end was passed on.
    pub(super) end_sent: bool,
    /// Bytes passed on.
    pub(super) moved: u64,
    /// A stream: received in batches of what the sink has room for, so that nothing is queued for a sink that stops.
    streaming: Option<StreamGuard>,
    /// Counts what of the queue was copied out of buffers; boxed because few ever have any.
    spilled: Option<Box<SpillGuard>>,
    /// A stream that is spliced.
    piped: Option<Box<Piped>>,
    /// This stream cannot be spliced.
    copies: bool,
    /// Room was waited for: what is there now is taken, be it little.
    roomy: bool,
    /// Short receives in a row while streaming.
    short: u8,
    /// Bytes at the front of the queue that are our own: they count as nobody's.
    own: u32,
    /// Who listens to what is received.
    tap: Option<Box<Tap>>,
    /// In which round of `WorkerState::note_blocked` this was noted; 0: not noted.
    noted: u32,
}

/// When small sends to the sink are told to leave at once (TCP_NODELAY). The first finds nothing unacknowledged that it
/// would wait for; short connections never send a second.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoDelay {
    /// The sink has had it from the start.
    Set,
    BeforeSecondSend,
    BeforeNextSend,
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

/// What a look at a blocked direction found.
pub(super) enum Found {
    Nothing,
    /// The sink has acknowledged something.
    Progress,
    SourceReset,
    SinkReset,
    /// The sink does not answer any more.
    SinkGone,
}

impl Direction {
    pub(super) fn new(
        worker: &WorkerState,
        source: &Stream,
        no_delay: NoDelay,
        (head, tap): (Option<Box<Head>>, Option<Box<Tap>>),
    ) -> Self {
        let (receive, queue, own) = match head {
            Some(head) => {
                let (mut receive, queue, own) = head.into_parts();
                receive.resume();
                (receive, queue, own)
            }
            None => (source.receive(), Queue::new(worker.handle.no_leases()), 0),
        };
        Self {
            receive,
            queue,
            sending: Sending::Idle,
            no_delay,
            paused: false,
            ended: false,
            end_sent: false,
            moved: 0,
            streaming: None,
            spilled: None,
            piped: None,
            copies: false,
            roomy: false,
            short: 0,
            own,
            tap,
            noted: 0,
        }
    }

    pub(super) const fn is_blocked(&self) -> bool {
        matches!(self.sending, Sending::Full(_))
    }

    /// A send was started whose outcome is not known yet.
    pub(super) const fn is_sending(&self) -> bool {
        matches!(self.sending, Sending::Started(..))
    }

    fn count(&mut self, tally: Tally<'_>, bytes: u32) {
        let own = bytes.min(self.own);
        self.own -= own;
        let bytes = if active(Fault::OwnHeaderCounted) {
            bytes
        } else {
            bytes - own
        };
        self.moved += u64::from(bytes);
        tally.add(bytes);
    }

    /// Looks at how the last send went, and whether a full sink has room again. `true`: the sink took something.
    pub(super) fn settle(
        &mut self,
        sink: &Stream,
        worker: &WorkerState,
        tally: Tally<'_>,
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
                        self.count(tally, len);
                        return Ok(true);
                    }
                    SendOutcome::Full(unsent) => (unsent, None),
                    SendOutcome::Failed(unsent, errno) => (unsent, Some(errno)),
                };
                self.queue.put_back(unsent, worker.handle.no_leases());
                let taken = len - (self.queue.bytes() - held);
                self.count(tally, taken);
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

    /// Takes what was received, starts to send, and keeps the bound. `true`: something was received. With `last`, the
    /// other direction is over: the sink is closed as soon as this one is.
    pub(super) fn pump(
        &mut self,
        source: &Stream,
        sink: &Stream,
        last: bool,
        worker: &WorkerState,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        let mut received = self.take_received(worker, context)?;
        self.start_send(sink, worker, context);
        self.keep_bound(worker, context);
        received |= self.go_on_receiving(source, sink, worker, context)?;
        if self.ended && !self.end_sent && self.is_drained() {
            self.end_sent = true;
            // Closing says the same; nothing unread is left that would make it say something else.
            if !last {
                // Fails when the sink is gone already, which its receive tells.
                let _ = sink.shutdown_write();
            }
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
                    if let Some(tap) = &mut self.tap {
                        tap.hear(&leases);
                        if tap.is_over() {
                            self.tap = None;
                        }
                    }
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
            self.note_short();
        }
    }

    fn note_short(&mut self) {
        self.short += 1;
        if self.short >= SHORT_MAX {
            self.short = 0;
            self.streaming = None;
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        self.receive.pause();
    }

    /// Sends what is queued, if the last send is over. `true` if one was started.
    pub(super) fn start_send(&mut self, sink: &Stream, worker: &WorkerState, context: &mut Context<'_>) -> bool {
        if !matches!(self.sending, Sending::Idle) || self.queue.is_empty() {
            return false;
        }
        self.set_no_delay(sink);
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

    fn set_no_delay(&mut self, sink: &Stream) {
        self.no_delay = match self.no_delay {
            NoDelay::BeforeSecondSend => NoDelay::BeforeNextSend,
            NoDelay::BeforeNextSend => {
                // Fails as keepalive does, see `Relay::check`.
                let _ = sink.set_options(&SocketOptions {
                    no_delay: true,
                    keepalive: None,
                });
                NoDelay::Set
            }
            NoDelay::Set => return,
        };
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
            self.piped = None;
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
    /// `true`: something was received at once.
    fn go_on_receiving(
        &mut self,
        source: &Stream,
        sink: &Stream,
        worker: &WorkerState,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        if !self.paused || self.ended || !self.is_drained() || active(Fault::PauseNotResumed) {
            return Ok(false);
        }
        if self.streaming.is_none() {
            self.leave_stream();
            return Ok(false);
        }
        // While a pause is under way, bytes may still come; the receive tells when it is over.
        if !self.receive.is_paused() || !self.has_arrived(source, sink, worker, context) {
            return Ok(false);
        }
        let room = sink.send_room();
        if !std::mem::take(&mut self.roomy) && room.is_some_and(|room| !room.is_writable()) {
            self.note_full(sink, worker, context);
            return Ok(false);
        }
        let room = room.map_or(BATCH_MAX, |room| room.free);
        if let Some(filled) = self.fill(source, room, worker)? {
            return Ok(filled);
        }
        self.receive
            .resume_once(room.min(batch_max(worker.buffer_bytes(), worker.streams())));
        Ok(false)
    }

    /// Not a stream any more: received as it comes.
    fn leave_stream(&mut self) {
        self.piped = None;
        self.copies = false;
        self.paused = false;
        self.receive.resume();
    }

    /// Everything received was taken by the sink.
    pub(super) fn is_drained(&self) -> bool {
        active(Fault::EndOvertakesBytes)
            || (self.queue.is_empty() && matches!(self.sending, Sending::Idle) && self.is_pipe_empty())
    }

    pub(super) fn check(&mut self, source: &Stream, sink: &Stream, now: Time, dead_timeout: Duration) -> Found {
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

#[cfg(test)]
#[path = "direction_tests.rs"]
mod tests;
