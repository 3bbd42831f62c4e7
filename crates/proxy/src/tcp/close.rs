//! Ending a relay the way its reason asks: in order, or with a reset after what was received has been delivered.
//!
//! The only place that decides between FIN and RST. Called by `serve` once the relay is over.

use super::relay::{Direction, Relay};
use crate::state::WorkerState;
use ringway_core::reason::EndReason;
use ringway_core::stats::Counter;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Sleep, Stream};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long bytes received before a reset may take to reach the healthy side.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether it has delivered them.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// Closes both sides.
pub(super) async fn close(worker: &WorkerState, relay: Relay, reason: EndReason, up: &Counter, down: &Counter) {
    match reason {
        EndReason::Finished if active(Fault::EndSentAsReset) => abort(relay),
        EndReason::Finished => drop(relay),
        EndReason::IdleTimeout | EndReason::HalfClosedTimeout if relay.is_drained() => drop(relay),
        EndReason::ClientReset | EndReason::ClientGone => {
            let Relay {
                client,
                backend,
                up: direction,
                down: other,
                ..
            } = relay;
            // Nobody will ever want what it receives meanwhile.
            drop(other);
            deliver(worker, direction, client, backend, reason, up).await;
        }
        EndReason::BackendReset | EndReason::BackendGone => {
            let Relay {
                client,
                backend,
                down: direction,
                up: other,
                ..
            } = relay;
            drop(other);
            deliver(worker, direction, backend, client, reason, down).await;
        }
        EndReason::IdleTimeout
        | EndReason::HalfClosedTimeout
        | EndReason::ConnectFailed
        | EndReason::NoBackend
        | EndReason::LocalError
        | EndReason::DrainDeadline
        | EndReason::Panicked => abort(relay),
    }
}

fn abort(relay: Relay) {
    let Relay { client, backend, .. } = relay;
    client.abort();
    backend.abort();
}

/// Hands what had come from the broken side to the healthy one, within a limit, then resets it.
async fn deliver(
    worker: &WorkerState,
    mut direction: Direction,
    source: Stream,
    sink: Stream,
    reason: EndReason,
    counter: &Counter,
) {
    if active(Fault::BytesBeforeResetDropped) {
        return sink.abort();
    }
    if active(Fault::LeasesLeaked) {
        std::mem::forget(std::mem::replace(
            &mut direction.queue,
            super::queue::Queue::new(worker.handle.no_leases()),
        ));
    }
    // The kernel does not call it broken when the other end is merely not heard of: nothing would end the receive.
    direction.finish_up(matches!(reason, EndReason::ClientGone | EndReason::BackendGone));
    let mut limit = worker.handle.sleep(FLUSH_MAX);
    poll_fn(|context| poll_deliver(worker, &mut direction, &sink, counter, &mut limit, context)).await;
    source.abort();
    // A reset makes the kernel forget what it has not delivered. Its own limit: the loop above may have used all.
    let deadline = limit.deadline();
    while worker.handle.now() < deadline && !worker.orders.is_resetting() {
        match sink.tcp_info() {
            Some(info) if info.outgoing > 0 && !info.closed => worker.handle.sleep(FLUSH_STEP).await,
            _ => break,
        }
    }
    sink.abort();
}

fn poll_deliver(
    worker: &WorkerState,
    direction: &mut Direction,
    sink: &Stream,
    counter: &Counter,
    limit: &mut Sleep,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        if direction.settle(sink, worker, counter, context).is_err() {
            return Poll::Ready(());
        }
        direction.take_rest(worker, context);
        if direction.is_over() || worker.orders.is_resetting() {
            return Poll::Ready(());
        }
        if !direction.start_send(sink, worker, context) {
            break;
        }
    }
    Pin::new(limit).poll(context)
}
