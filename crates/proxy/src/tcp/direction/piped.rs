//! A stream that is spliced: its bytes go from the source into a pipe and from there to the sink without passing through
//! us (docs/decisions/D2-bundles-and-sends.md).
//!
//! Part of `direction`, whose order it keeps: a pipe is filled only when nothing is left to send, with no more than the
//! sink has room for, and the end is passed on behind what it holds. A pipe is leased for one batch; nobody keeps one
//! while nothing comes.

use super::{Direction, Sending};
use crate::state::WorkerState;
use crate::tcp::books::Tally;
use crate::tcp::near;
use ringway_core::limits::PIPES_PER_WORKER;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Errno, Once, Pipe, Stream};
use std::pin::Pin;
use std::task::Context;

/// The least that is asked for at a time, however little the sink says it has room for.
const FILL_MIN: u32 = 4096;
/// A batch is short when it is less than this part of a receive that makes a stream: it is taken as soon as it comes.
const SHORT_SHARE: u32 = 4;

/// What a spliced stream needs.
#[derive(Debug, Default)]
pub(super) struct Piped {
    /// With bytes on their way.
    pipe: Option<Pipe>,
    arrival: Arrival,
    /// This batch is copied: there is time for it.
    copied: bool,
}

#[derive(Debug, Default)]
enum Arrival {
    #[default]
    NotAwaited,
    Awaited(Once),
    /// Something is there to be received, or has been.
    Seen,
}

impl Direction {
    /// Whether it is time to receive: for a spliced stream when something has come, for others always, because their
    /// receive waits by itself.
    pub(super) fn has_arrived(
        &mut self,
        source: &Stream,
        sink: &Stream,
        worker: &WorkerState,
        context: &mut Context<'_>,
    ) -> bool {
        if self.copies {
            return true;
        }
        if self.piped.is_none() {
            // UNIX sockets are not worth it: there is no room to ask for, and no reset to be told.
            let (Some(from), Some(to)) = (source.tcp_info(), sink.tcp_info()) else {
                self.copies = true;
                return true;
            };
            near::receive_less_ahead(source, from);
            near::send_without_timers(sink, to);
            self.piped = Some(Box::default());
        }
        let Some(piped) = &mut self.piped else { return true };
        match &mut piped.arrival {
            Arrival::Seen => true,
            Arrival::NotAwaited => {
                piped.copied = worker.has_time_to_spare();
                let copied = piped.copied;
                if !copied {
                    self.await_arrival(source, context);
                }
                copied
            }
            // An error is the next splice's to tell.
            Arrival::Awaited(arrival) => {
                let seen = Pin::new(arrival).poll(context).is_ready();
                if seen {
                    piped.arrival = Arrival::Seen;
                }
                seen
            }
        }
    }

    fn await_arrival(&mut self, source: &Stream, context: &mut Context<'_>) {
        let Some(piped) = &mut self.piped else { return };
        let mut arrival = source.readable();
        // Registers interest.
        let early = Pin::new(&mut arrival).poll(context);
        debug_assert!(early.is_pending(), "an arrival was known before its turn was over");
        piped.arrival = Arrival::Awaited(arrival);
    }

    /// Takes as much as the sink has room for into a pipe. `None`: it cannot be done, this batch is copied.
    /// `Some(true)`: something was received.
    pub(super) fn fill(&mut self, source: &Stream, room: u32, worker: &WorkerState) -> Result<Option<bool>, Errno> {
        let Some(piped) = &mut self.piped else { return Ok(None) };
        piped.arrival = Arrival::NotAwaited;
        if std::mem::take(&mut piped.copied) {
            return Ok(None);
        }
        let Some(mut pipe) = worker.handle.pipe(PIPES_PER_WORKER) else {
            return Ok(None);
        };
        match source.fill(&mut pipe, room.max(FILL_MIN)) {
            Ok(0) => self.ended = true,
            Ok(bytes) => {
                piped.pipe = Some(pipe);
                if bytes >= worker.handle.bundle_max() / SHORT_SHARE {
                    self.short = 0;
                } else {
                    self.note_short();
                }
                return Ok(Some(true));
            }
            // Something is there, but cannot be spliced: an urgent byte. Waiting for it again would never end.
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) if errno.is_refusal() => {
                self.piped = None;
                self.copies = true;
                return Ok(None);
            }
            Err(errno) if active(Fault::ResetSentAsEnd) && errno.is_reset() => self.ended = true,
            Err(errno) => return Err(errno),
        }
        Ok(Some(false))
    }

    /// Sends what the pipe holds and sees to what comes next. `true`: the sink took something.
    pub(in crate::tcp) fn drain(
        &mut self,
        source: &Stream,
        sink: &Stream,
        worker: &WorkerState,
        tally: Tally<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        if !self.holds_pipe() || self.is_blocked() {
            return Ok(false);
        }
        let taken = self.empty_pipe(sink, worker, tally, context)?;
        if self.holds_pipe() {
            return Ok(taken);
        }
        if self.streaming.is_none() {
            self.leave_stream();
        } else if worker.has_time_to_spare() {
            // Decided again when this is polled next, which is soon.
            context.waker().wake_by_ref();
        } else {
            self.await_arrival(source, context);
        }
        Ok(taken)
    }

    /// Sends what the pipe holds; waits for room if it must. `true`: the sink took something.
    pub(in crate::tcp) fn empty_pipe(
        &mut self,
        sink: &Stream,
        worker: &WorkerState,
        tally: Tally<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, Errno> {
        if !self.holds_pipe() || !matches!(self.sending, Sending::Idle) {
            return Ok(false);
        }
        self.set_no_delay(sink);
        let Some(pipe) = self.piped.as_mut().and_then(|piped| piped.pipe.as_mut()) else {
            return Ok(false);
        };
        let taken = match sink.drain(pipe) {
            Err(Errno::AGAIN) => 0,
            taken => taken?,
        };
        let emptied = pipe.is_empty();
        self.count(tally, taken);
        worker.stats.runtime.bytes_spliced.add(u64::from(taken));
        if emptied {
            self.lose_pipe();
        } else {
            self.note_full(sink, worker, context);
        }
        Ok(taken > 0)
    }

    /// Gives the pipe back, with what it holds.
    pub(in crate::tcp) fn lose_pipe(&mut self) {
        if let Some(piped) = &mut self.piped {
            piped.pipe = None;
        }
    }

    fn holds_pipe(&self) -> bool {
        self.piped.as_ref().is_some_and(|piped| piped.pipe.is_some())
    }

    /// Nothing is on its way in a pipe.
    pub(super) fn is_pipe_empty(&self) -> bool {
        !self.holds_pipe() || active(Fault::EndOvertakesPipe)
    }
}
