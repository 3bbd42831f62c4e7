//! Waiting for a backend with room, in line with those that came before.

use crate::state::WorkerState;
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::model::PoolIndex;
use ringway_core::queue::{Line, Place};
use ringway_core::reason::EndReason;
use ringway_runtime::Sleep;
use ringway_runtime::faults::{Fault, active};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Waits in line until a backend has room, at most the queue's timeout. `Err(None)`: there is no backend left to try.
pub(super) async fn wait_for_room(
    worker: &WorkerState,
    (listener, pool): (usize, PoolIndex),
    line: &Arc<Line>,
    client: ClientKey,
    tried: &Tried,
) -> Result<Reservation, Option<EndReason>> {
    let queue = worker.snapshot.model.pools[pool.0].queue;
    let timeout = queue.map_or(Duration::ZERO, |queue| queue.timeout);
    let mut waiting = Waiting {
        worker,
        pool,
        listener,
        client,
        tried,
        limit: worker.handle.sleep(timeout),
    };
    let enter = |context: &mut Context<'_>| match active(Fault::QueueWakerLost) {
        true => line.enter(Waker::noop()),
        false => line.enter(context.waker()),
    };
    let place = poll_fn(|context| Poll::Ready(enter(context))).await;
    let Some(place) = place else {
        return Err(Some(EndReason::QueueFull));
    };
    let outcome = poll_fn(|context| waiting.poll(&place, context)).await;
    if active(Fault::PlaceLeaked) {
        std::mem::forget(place);
    }
    outcome
}

struct Waiting<'a> {
    worker: &'a WorkerState,
    listener: usize,
    pool: PoolIndex,
    client: ClientKey,
    tried: &'a Tried,
    limit: Sleep,
}

impl Waiting<'_> {
    fn poll(&mut self, place: &Place, context: &mut Context<'_>) -> Poll<Result<Reservation, Option<EndReason>>> {
        let worker = self.worker;
        if worker.orders.is_resetting() {
            return Poll::Ready(Err(Some(EndReason::DrainDeadline)));
        }
        if place.is_first() {
            match worker.choose(self.listener, self.pool, self.client, self.tried) {
                Ok(choice) => return Poll::Ready(Ok(choice.reservation)),
                Err(NoChoice::Exhausted) => return Poll::Ready(Err(None)),
                // There may be room for others where this one has been already.
                Err(NoChoice::Full | NoChoice::OnTrial) if !self.tried.is_empty() => place.stand_aside(),
                Err(NoChoice::Full | NoChoice::OnTrial) => {}
            }
        }
        Pin::new(&mut self.limit)
            .poll(context)
            .map(|()| Err(Some(EndReason::QueueTimeout)))
    }
}
