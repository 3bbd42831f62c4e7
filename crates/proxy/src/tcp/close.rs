//! Ending a relay the way its reason asks: in order, or with a reset after what was received has been delivered.
//!
//! The only place that decides between FIN and RST. Called by `serve` once the relay is over.

use super::books::{Books, Tally};
use super::direction::Direction;
use super::relay::Relay;
use crate::state::WorkerState;
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Sleep, Stream};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long bytes received before a reset may take to reach the healthy side.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Over in the next turn at the earliest; no time at all would be over at once.
const NEXT_TURN: Duration = Duration::from_nanos(1);
/// How often the kernel is asked whether it has delivered them.
const FLUSH_STEP: Duration = Duration::from_millis(5);

/// How both sides are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Both have ended.
    InOrder,
    /// In order if nothing is left to pass on, otherwise what was passed on must not be taken for the whole.
    InOrderIfDrained,
    /// The client broke: the backend gets what had come from it, then a reset.
    AfterClient,
    /// The backend broke.
    AfterBackend,
    /// Both are reset.
    Reset,
}

const fn manner(reason: EndReason) -> Manner {
    match reason {
        EndReason::Finished => Manner::InOrder,
        EndReason::IdleTimeout
        | EndReason::HalfClosedTimeout
        | EndReason::MaxLifetime
        | EndReason::BackendDown
        | EndReason::BackendRemoved
        | EndReason::Failback => Manner::InOrderIfDrained,
        EndReason::ClientReset | EndReason::ClientGone => Manner::AfterClient,
        EndReason::BackendReset | EndReason::BackendGone => Manner::AfterBackend,
        EndReason::SessionTimeout
        | EndReason::ConnectFailed
        | EndReason::NoBackend
        | EndReason::BackendsFull
        | EndReason::QueueFull
        | EndReason::QueueTimeout
        | EndReason::LocalError
        | EndReason::RoutingTimeout
        | EndReason::ClientLeft
        | EndReason::BadHello
        | EndReason::HelloTooLarge
        | EndReason::NoRoute
        | EndReason::BadProxyHeader
        | EndReason::BadStartup
        | EndReason::StarttlsRefused
        | EndReason::Displaced
        | EndReason::Refused
        | EndReason::DrainDeadline
        | EndReason::Panicked => Manner::Reset,
    }
}

/// Closes both sides. Returns how many bytes were passed on in all: from the client, from the backend.
pub(super) async fn close(worker: &WorkerState, relay: Relay, reason: EndReason, books: &Books<'_>) -> (u64, u64) {
    let (mut up, mut down) = (relay.up.moved, relay.down.moved);
    match manner(reason) {
        Manner::InOrder if active(Fault::EndSentAsReset) => (up, down) = abort(worker, relay, books).await,
        Manner::InOrder => drop(relay),
        Manner::InOrderIfDrained if relay.is_drained() => drop(relay),
        Manner::AfterClient => {
            let Relay {
                client,
                backend,
                up: direction,
                down: other,
                ..
            } = relay;
            // Nobody will ever want what it receives meanwhile.
            down = leave(worker, other, &client, books.down).await;
            up = deliver(worker, direction, client, backend, reason, books.up).await;
        }
        Manner::AfterBackend => {
            let Relay {
                client,
                backend,
                down: direction,
                up: other,
                mut opening,
                ..
            } = relay;
            let client_ended = other.ended;
            up = leave(worker, other, &backend, books.up).await;
            down = deliver(worker, direction, backend, client, reason, books.down).await;
            // Not sooner: a send may learn of the reset before what the backend had said is received.
            if down == 0 || active(Fault::AnswerTakenForEarlyEnd) {
                opening.backend_ended(client_ended, worker, books);
            }
        }
        Manner::InOrderIfDrained | Manner::Reset => (up, down) = abort(worker, relay, books).await,
    }
    (up, down)
}

async fn abort(worker: &WorkerState, relay: Relay, books: &Books<'_>) -> (u64, u64) {
    let Relay {
        client,
        backend,
        up,
        down,
        ..
    } = relay;
    let up = leave(worker, up, &backend, books.up).await;
    let down = leave(worker, down, &client, books.down).await;
    client.abort();
    backend.abort();
    (up, down)
}

/// Gives a direction up. What its last send passed on still counts, and is known a turn after it was started.
async fn leave(worker: &WorkerState, mut direction: Direction, sink: &Stream, tally: Tally<'_>) -> u64 {
    while direction.is_sending() {
        // An error is of no more interest, only what went before it.
        let settled = poll_fn(|context| Poll::Ready(direction.settle(sink, worker, tally, context))).await;
        if settled.is_ok() && direction.is_sending() {
            worker.handle.sleep(NEXT_TURN).await;
        }
    }
    direction.moved
}

/// Hands what had come from the broken side to the healthy one, within a limit, then resets it. Returns how many bytes of
/// this direction were passed on in all.
async fn deliver(
    worker: &WorkerState,
    mut direction: Direction,
    source: Stream,
    sink: Stream,
    reason: EndReason,
    tally: Tally<'_>,
) -> u64 {
    if active(Fault::BytesBeforeResetDropped) {
        sink.abort();
        return direction.moved;
    }
    if active(Fault::LeasesLeaked) {
        std::mem::forget(std::mem::replace(
            &mut direction.queue,
            super::queue::Queue::new(worker.handle.no_leases()),
        ));
    }
    if active(Fault::PipeLostAtReset) {
        direction.lose_pipe();
    }
    // The kernel does not call it broken when the other end is merely not heard of: nothing would end the receive.
    direction.finish_up(matches!(reason, EndReason::ClientGone | EndReason::BackendGone));
    let before = direction.moved;
    let mut limit = worker.handle.sleep(FLUSH_MAX);
    poll_fn(|context| poll_deliver(worker, &mut direction, &sink, tally, &mut limit, context)).await;
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
    if active(Fault::BytesAfterResetNotRecorded) {
        return before;
    }
    direction.moved
}

fn poll_deliver(
    worker: &WorkerState,
    direction: &mut Direction,
    sink: &Stream,
    tally: Tally<'_>,
    limit: &mut Sleep,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        if direction.settle(sink, worker, tally, context).is_err() {
            return Poll::Ready(());
        }
        if direction.empty_pipe(sink, worker, tally, context).is_err() {
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
