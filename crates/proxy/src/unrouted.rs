//! Connections of which it is not known yet where they go.
//!
//! Who has to make room is decided in `core::unrouted`, for all workers together; here they are told.

use crate::state::WorkerState;
use ringway_core::unrouted::{Place, Unrouted};
use ringway_runtime::faults::{Fault, active};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// Memory that those of one worker may hold together. Many times what honest clients need: a hello is 2 KiB and comes in
/// one piece.
const BYTES_MAX: u64 = 64 << 20;

/// Those of all workers.
pub type UnroutedConnections = Arc<Unrouted<Arc<Ticket>>>;

/// Nobody yet; at most so many connections of so many workers.
pub fn unrouted(connections_max: u32, workers: usize) -> UnroutedConnections {
    Arc::new(Unrouted::new(connections_max, BYTES_MAX, workers))
}

/// Whoever has waited for less may be about to say where it goes.
const CAMPS_AFTER: Duration = Duration::from_secs(1);

/// What it takes to end one, from any worker.
#[derive(Debug)]
pub struct Ticket {
    listener: usize,
    is_displaced: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Ticket {
    fn new(listener: usize) -> Self {
        Self {
            listener,
            is_displaced: AtomicBool::new(false),
            waker: Mutex::default(),
        }
    }

    fn displace(&self) {
        // Before the waker is looked for: who keeps one looks at this afterwards.
        self.is_displaced.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker.filter(|_| !active(Fault::DisplacedNotWoken)) {
            waker.wake();
        }
    }
}

/// A listener has as many connections as it may: the oldest of those that have not said for a while where they go makes room
/// for somebody who does.
pub(crate) fn displace_camper(worker: &WorkerState, listener: usize) {
    let before = worker.moment().saturating_sub(CAMPS_AFTER);
    if let Some(camper) = worker.unrouted.take(before, |ticket| ticket.listener == listener) {
        camper.displace();
    }
}

/// One that waits; has left when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    worker: Rc<WorkerState>,
    place: Place,
    ticket: Arc<Ticket>,
}

impl Waiting {
    /// One more. The oldest has to go if there are too many.
    pub(crate) fn enter(worker: &Rc<WorkerState>, listener: usize) -> Self {
        let ticket = Arc::new(Ticket::new(listener));
        let (place, displaced) = worker.unrouted.enter(worker.index, worker.moment(), ticket.clone());
        if let Some(displaced) = displaced {
            displaced.displace();
        }
        Self {
            worker: worker.clone(),
            place,
            ticket,
        }
    }

    /// It holds this much memory now.
    pub(crate) fn hold(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let displaced = self.worker.unrouted.hold(self.place, bytes);
        displaced.iter().for_each(|ticket| ticket.displace());
    }

    /// Whether it has to go. Who asks is woken when it has.
    pub(crate) fn is_displaced(&self, context: &Context<'_>) -> bool {
        let mut waker = self.ticket.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        self.ticket.is_displaced.load(Ordering::SeqCst)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !active(Fault::PlaceNotLeft) {
            self.worker.unrouted.leave(self.place);
        }
    }
}
