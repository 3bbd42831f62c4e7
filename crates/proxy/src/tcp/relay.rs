//! Moving bytes between the two sides of a relay, both directions at once, in one task.
//!
//! Half-close is kept; a broken side ends the relay, and so do time limits and orders. Owns neither how one direction
//! moves (`direction`), nor the connection's books (`books`), nor how it is closed (`close`). Called by `serve` and,
//! later, by every service that has two streams to join.

use super::books::Books;
use super::direction::{Direction, Found, NoDelay};
use super::head::Head;
use super::near;
use super::opening::{Opening, Seen};
use super::tap::Tap;
use crate::state::WorkerState;
use ringway_core::model::{Keepalive, OnBackendDown};
use ringway_core::reason::{EndReason, Side};
use ringway_core::session::spread;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Errno, Sleep, Stream, Time};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How often a relay that cannot make progress looks at its connections, and when a new one sets keepalive.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes both ways by the first check that make a connection worth some calls more.
const BUSY_BYTES: u64 = 16 * 1024;

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
    /// Since accept, give or take a tenth.
    pub max_lifetime: Option<Duration>,
    /// When it was accepted.
    pub started: Time,
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
    /// When the backend was chosen. What was ordered before is not about this session, however long it had waited.
    chosen_at: Time,
    /// It has lasted: what only longer connections are worth was set.
    stood: bool,
    pub(super) opening: Opening,
}

/// What the two directions begin with.
#[derive(Debug, Default)]
pub struct Heads {
    /// From the client; `None`: with what it sends from now on.
    pub(super) up: Option<Box<Head>>,
    /// From the backend.
    pub(super) down: Option<Box<Head>>,
    /// What is listened for in the bytes of the backend.
    pub(super) tap: Option<Box<Tap>>,
    /// The backend is not expected to answer: that it ends without a word says nothing against it.
    pub(super) unanswered: bool,
}

/// Which side broke, and how the kernel put it.
type Broken = (Side, Errno);

impl Relay {
    /// Joins two connected streams and starts to receive from both.
    pub fn new(worker: &WorkerState, client: Stream, backend: Stream, connect_time: Duration, heads: Heads) -> Self {
        let now = worker.handle.now();
        let asked = heads.up.as_ref().is_some_and(|head| head.has_spoken()).then_some(now);
        Self {
            up: Direction::new(worker, &client, NoDelay::BeforeSecondSend, (heads.up, None)),
            // Accepted connections have it from their listener.
            down: Direction::new(worker, &backend, NoDelay::Set, (heads.down, heads.tap)),
            client,
            backend,
            timer: worker.handle.sleep_until(now + CHECK_INTERVAL),
            timer_runs: false,
            active_at: now,
            chosen_at: Time::from_nanos(now.as_nanos().saturating_sub(connect_time.as_nanos() as u64)),
            stood: false,
            opening: match heads.unanswered {
                true => Opening::over(),
                false => Opening::new(connect_time, asked),
            },
        }
    }

    /// Moves what can be moved. Ready with the reason when the relay is over; how to close follows from it.
    pub fn poll(
        &mut self,
        worker: &WorkerState,
        limits: &Limits,
        books: &Books<'_>,
        context: &mut Context<'_>,
    ) -> Poll<EndReason> {
        if worker.orders.is_resetting() {
            return Poll::Ready(EndReason::DrainDeadline);
        }
        match self.poll_directions(worker, books, context) {
            Ok(false) => {}
            Ok(true) => return Poll::Ready(EndReason::Finished),
            Err(broken) => return Poll::Ready(reason(broken)),
        }
        if let Some(reason) = self.ordered_end(worker, limits, books) {
            return Poll::Ready(reason);
        }
        self.poll_timer(worker, limits, books, context)
    }

    /// `true` when both directions have ended in order.
    fn poll_directions(
        &mut self,
        worker: &WorkerState,
        books: &Books<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        let now = worker.handle.now();
        // Outcomes first, of both directions: when a reset made a send fail, the receive of that side may report an
        // orderly end afterwards, and must not be believed.
        let up = self
            .up
            .settle(&self.backend, worker, books.up, context)
            .or_else(|errno| learnt(Side::Backend, errno))?;
        let down = self
            .down
            .settle(&self.client, worker, books.down, context)
            .or_else(|errno| learnt(Side::Client, errno))?;
        let client_spoke = self
            .up
            .pump(&self.client, &self.backend, self.down.end_sent, worker, context)
            .map_err(|errno| (Side::Client, errno))?;
        let backend_spoke = self
            .down
            .pump(&self.backend, &self.client, self.up.end_sent, worker, context)
            .map_err(|errno| (Side::Backend, errno))?;
        let up = up | self.drain_up(worker, books, context)?;
        let down = down | self.drain_down(worker, books, context)?;
        if up || down || client_spoke || backend_spoke {
            self.active_at = now;
        }
        if !self.opening.is_over() {
            let seen = Seen {
                client_spoke,
                backend_spoke,
                client_ended: self.up.ended,
                backend_ended: self.down.ended,
            };
            self.opening.note(seen, worker, books);
        }
        if active(Fault::HalfCloseForgotten) && (self.up.end_sent || self.down.end_sent) {
            return Ok(true);
        }
        Ok(self.up.end_sent && self.down.end_sent)
    }

    fn drain_up(&mut self, worker: &WorkerState, books: &Books<'_>, context: &mut Context<'_>) -> Result<bool, Broken> {
        self.up
            .drain(&self.client, &self.backend, worker, books.up, context)
            .or_else(|errno| learnt(Side::Backend, errno))
    }

    fn drain_down(
        &mut self,
        worker: &WorkerState,
        books: &Books<'_>,
        context: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        self.down
            .drain(&self.backend, &self.client, worker, books.down, context)
            .or_else(|errno| learnt(Side::Client, errno))
    }

    /// What the control plane wants of the sessions of this backend.
    fn ordered_end(&mut self, worker: &WorkerState, limits: &Limits, books: &Books<'_>) -> Option<EndReason> {
        let since = if active(Fault::StaleOrderObeyed) {
            limits.started
        } else {
            self.chosen_at
        };
        let chosen = worker.shared_nanos(since);
        if active(Fault::OrdersForgotten) {
            return None;
        }
        let (ordered, index) = books.backend.orders.closes(chosen)?;
        let reason = EndReason::ALL[index];
        let sessions = &worker.snapshot.model.pools[books.pool.0].sessions;
        let is_for_udp = match reason {
            // A connection cannot go on with another backend.
            EndReason::BackendDown => sessions.on_backend_down == OnBackendDown::Move,
            // Connections end by themselves.
            EndReason::BackendRemoved => true,
            _ => false,
        };
        if is_for_udp {
            return None;
        }
        if reason != EndReason::Failback {
            return Some(reason);
        }
        let due = spread::failback(Duration::from_nanos(ordered), since_start(limits.started));
        let left = due.saturating_sub(worker.moment());
        if left.is_zero() {
            return Some(reason);
        }
        let due = worker.handle.now() + left;
        if self.timer.deadline() > due {
            self.timer.reset(due);
            self.timer_runs = false;
        }
        None
    }

    fn poll_timer(
        &mut self,
        worker: &WorkerState,
        limits: &Limits,
        books: &Books<'_>,
        context: &mut Context<'_>,
    ) -> Poll<EndReason> {
        let now = worker.handle.now();
        if self.is_blocked() && self.timer.deadline() > now + CHECK_INTERVAL {
            self.timer.reset(now + CHECK_INTERVAL);
            self.timer_runs = false;
        }
        if self.timer_runs && now < self.timer.deadline() {
            return Poll::Pending;
        }
        while Pin::new(&mut self.timer).poll(context).is_ready() {
            if let Some(reason) = self.check(now, worker, limits, books) {
                return Poll::Ready(reason);
            }
            let next = if self.is_blocked() {
                now + CHECK_INTERVAL
            } else {
                self.limit(limits).0
            };
            self.timer.reset(next);
            if let Some(reason) = self.ordered_end(worker, limits, books) {
                return Poll::Ready(reason);
            }
        }
        self.timer_runs = true;
        Poll::Pending
    }

    /// What only time tells.
    fn check(&mut self, now: Time, worker: &WorkerState, limits: &Limits, books: &Books<'_>) -> Option<EndReason> {
        if !self.stood {
            self.opening.stood(worker, books);
            // Fails on UNIX sockets, which need none, and on a connection that broke, which its receive will tell.
            let _ = self
                .backend
                .set_options(&crate::convert::connection(&limits.backend_keepalive));
            // Not for those that do little: thousands that idle would pay for it at the same time.
            if self.up.moved + self.down.moved >= BUSY_BYTES {
                for peer in [&self.client, &self.backend] {
                    if let Some(info) = peer.tcp_info() {
                        near::send_without_timers(peer, info);
                    }
                }
            }
            self.stood = true;
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
        let (limit, ended) = self.limit(limits);
        (now >= limit).then_some(ended)
    }

    /// When time ends the relay, and as what.
    fn limit(&self, limits: &Limits) -> (Time, EndReason) {
        let silence = self.silence_limit(limits);
        if self.is_blocked() && active(Fault::LifetimeIgnoredWhileBlocked) {
            return silence;
        }
        let lifetime = limits.max_lifetime.map(|lifetime| {
            let lifetime = spread::lifetime(lifetime, since_start(limits.started));
            (limits.started + lifetime, EndReason::MaxLifetime)
        });
        lifetime.filter(|lifetime| lifetime.0 < silence.0).unwrap_or(silence)
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

fn since_start(moment: Time) -> Duration {
    Duration::from_nanos(moment.as_nanos())
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
