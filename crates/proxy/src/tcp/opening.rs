//! How a relay begins: whether the backend answers, and how soon.
//!
//! Measures the time to the first byte for choosing and metrics, and tells of backends that end connections without a
//! word. Knows no sockets. Called by `relay`.

use super::books::Books;
use crate::state::WorkerState;
use ringway_core::health::Report;
use ringway_runtime::Time;
use std::time::Duration;

/// What is known of the backend's first byte.
#[derive(Debug)]
pub(super) struct Opening {
    phase: Phase,
    /// Microseconds that the connect took; saturated.
    connect_us: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has said anything.
    Silent,
    /// Nobody has said anything, and the connection has stood for a second.
    Stood,
    /// The client's first byte came then.
    Asked(Time),
    /// The backend has answered, or has ended without.
    Over,
}

/// What one poll of a relay has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) client_spoke: bool,
    pub(super) backend_spoke: bool,
    pub(super) client_ended: bool,
    pub(super) backend_ended: bool,
}

impl Opening {
    /// `asked`: when the relay began with what the client had said already.
    pub(super) fn new(connect_time: Duration, asked: Option<Time>) -> Self {
        Self {
            phase: asked.map_or(Phase::Silent, Phase::Asked),
            connect_us: u32::try_from(connect_time.as_micros()).unwrap_or(u32::MAX),
        }
    }

    /// Nothing is to be found out.
    pub(super) const fn over() -> Self {
        Self {
            phase: Phase::Over,
            connect_us: 0,
        }
    }

    /// Whether there is nothing left to find out.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn note(&mut self, seen: Seen, worker: &WorkerState, books: &Books<'_>) {
        let now = worker.handle.now();
        if seen.client_spoke && matches!(self.phase, Phase::Silent | Phase::Stood) {
            self.phase = Phase::Asked(now);
        }
        if seen.backend_spoke {
            let time = match self.phase {
                Phase::Asked(asked) => now.since(asked),
                // The server speaks first: what it takes to begin is the connect.
                Phase::Silent | Phase::Stood | Phase::Over => Duration::from_micros(u64::from(self.connect_us)),
            };
            self.phase = Phase::Over;
            books.stats.first_byte_seconds.observe(time);
            if books.times_responses {
                books.backend.note_response(time, worker.moment());
            }
            self.went_well(worker, books);
        } else if seen.backend_ended {
            self.backend_ended(seen.client_ended, worker, books);
        }
    }

    /// The backend has ended or reset the connection. Before its first byte that is a failure, unless the client had ended
    /// first: then it may have had nothing to say. Nor is it one that a backend tires of a client that asks for nothing.
    pub(super) fn backend_ended(&mut self, client_ended: bool, worker: &WorkerState, books: &Books<'_>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        if !client_ended && matches!(phase, Phase::Silent | Phase::Asked(_)) {
            books.stats.ended_early.add(1);
            worker.observer.met(books.pool, books.backend, Report::EndedEarly);
        }
    }

    /// The connection has stood for a second.
    pub(super) fn stood(&mut self, worker: &WorkerState, books: &Books<'_>) {
        if self.phase == Phase::Silent {
            self.phase = Phase::Stood;
        }
        self.went_well(worker, books);
    }

    /// The connection has stood for a second, or was answered.
    fn went_well(&self, worker: &WorkerState, books: &Books<'_>) {
        if books.backend.orders.take_watch() {
            worker.observer.met(books.pool, books.backend, Report::Answered);
        }
    }
}
