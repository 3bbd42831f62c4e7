//! The tries of one connection: choose, connect within `connect_timeout`, count, and on failure choose another.

use crate::convert;
use crate::state::WorkerState;
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, Tried};
use ringway_core::model::{BackendIndex, Pool, PoolIndex};
use ringway_core::reason::{Blame, ConnectError, EndReason};
use ringway_runtime::{Address, Connect, Errno, Sleep, SocketOptions, Stream};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A backend that was chosen and reached.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// Its place in the backend's count.
    pub reservation: Reservation,
    /// Position in the pool.
    pub backend: BackendIndex,
}

/// Connects to a backend of the pool for this client, trying others on refusal or timeout.
///
/// # Errors
/// Why the connection ends: no backend could be chosen, every try failed, or this machine lacks something.
pub async fn connect(worker: &WorkerState, pool: PoolIndex, client: ClientKey) -> Result<Connected, EndReason> {
    let model = &worker.snapshot.model.pools[pool.0];
    let state = &worker.snapshot.pools[pool.0];
    let mut tried = Tried::default();
    let mut failed = EndReason::NoBackend;
    for _ in 0..model.tries {
        let Some(choice) = state.selector.choose(client, &tried) else {
            break;
        };
        tried.insert(choice.index);
        let stats = &choice.reservation.backend().workers[worker.index];
        let started = worker.handle.now();
        match attempt(worker, model, choice.index).await {
            Ok(stream) => {
                stats.connections_total.add(1);
                stats.connect_seconds.observe(worker.handle.now().since(started));
                return Ok(Connected {
                    stream,
                    reservation: choice.reservation,
                    backend: choice.index,
                });
            }
            Err(error) => {
                stats.connect_errors[error.index()].add(1);
                failed = match error.blame() {
                    Blame::Local => EndReason::LocalError,
                    Blame::Nobody | Blame::Client | Blame::Backend | Blame::Operator => EndReason::ConnectFailed,
                };
                if ringway_runtime::faults::active(ringway_runtime::faults::Fault::ReservationLeaked) {
                    std::mem::forget(choice.reservation);
                }
            }
        }
        if worker.orders.is_resetting() {
            return Err(EndReason::DrainDeadline);
        }
    }
    Err(failed)
}

async fn attempt(worker: &WorkerState, pool: &Pool, backend: BackendIndex) -> Result<Stream, ConnectError> {
    let address = convert::address(&pool.backends[backend.0].address);
    let source = source(pool, &address, worker.handle.now().as_nanos());
    // Keepalive is set once the relay has lived a little: short connections never need it.
    let options = SocketOptions {
        no_delay: true,
        keepalive: None,
    };
    let mut connect = worker.handle.connect(&address, source, &options).map_err(classify)?;
    let mut limit = worker.handle.sleep(pool.connect_timeout);
    poll_fn(|context| poll_attempt(&mut connect, &mut limit, worker, context)).await
}

fn poll_attempt(
    connect: &mut Connect,
    limit: &mut Sleep,
    worker: &WorkerState,
    context: &mut Context<'_>,
) -> Poll<Result<Stream, ConnectError>> {
    if let Poll::Ready(result) = Pin::new(connect).poll(context) {
        return Poll::Ready(result.map_err(classify));
    }
    if worker.orders.is_resetting() || Pin::new(limit).poll(context).is_ready() {
        return Poll::Ready(Err(ConnectError::Timeout));
    }
    Poll::Pending
}

/// One of the pool's source addresses of the backend's family; which one hardly matters as long as all are used.
fn source(pool: &Pool, address: &Address, spread: u64) -> Option<IpAddr> {
    let Address::Inet(address) = address else { return None };
    let matching = || {
        pool.source
            .iter()
            .filter(|source| source.is_ipv4() == address.is_ipv4())
    };
    let count = matching().count() as u64;
    // Nanoseconds have few random low bits on some clocks; the multiplication spreads them (Knuth, 6.4).
    let at = spread
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(32)
        .checked_rem(count)?;
    matching().nth(at as usize).copied()
}

/// Which of our reasons an error of connect(2) is. ETIMEDOUT is the kernel's own limit on SYN retries.
fn classify(errno: Errno) -> ConnectError {
    match errno {
        _ if errno.is_local() => ConnectError::Local,
        _ if errno.is_refused() => ConnectError::Refused,
        _ if errno.is_timed_out() => ConnectError::Timeout,
        _ if errno.is_unreachable() => ConnectError::Unreachable,
        _ if errno.is_reset() => ConnectError::Reset,
        _ => ConnectError::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of errno(3) on Linux.
    #[test]
    fn errors_of_our_own_are_local() {
        for (errno, expected) in [
            (24, ConnectError::Local),
            (23, ConnectError::Local),
            (99, ConnectError::Local),
            (105, ConnectError::Local),
            (12, ConnectError::Local),
            (111, ConnectError::Refused),
            (2, ConnectError::Refused),
            (110, ConnectError::Timeout),
            (113, ConnectError::Unreachable),
            (101, ConnectError::Unreachable),
            (104, ConnectError::Reset),
            (22, ConnectError::Other),
        ] {
            assert_eq!(classify(Errno(errno)), expected, "errno {errno}");
        }
    }
}
