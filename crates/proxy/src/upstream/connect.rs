//! The tries of one connection: choose, connect within `connect_timeout`, count, tell, and on failure choose another.

use super::queue::wait_for_room;
use crate::convert;
use crate::session::Session;
use crate::state::WorkerState;
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::health::Report;
use ringway_core::model::{Pool, PoolIndex};
use ringway_core::reason::{Blame, ConnectError, EndReason};
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Address, Connect, Errno, Sleep, SocketOptions, Stream};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A backend that was chosen and reached.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// Its place in the backend's count.
    pub reservation: Reservation,
    /// How long the connect took.
    pub connect_time: Duration,
}

/// Connects a session to a backend of its pool, trying others on refusal or timeout. Each try chooses from the pool as it
/// is then.
///
/// # Errors
/// Why the connection ends: no backend could be chosen, every try failed, or this machine lacks something.
pub(crate) async fn connect(session: &Session, pool: PoolIndex, client: ClientKey) -> Result<Connected, EndReason> {
    let worker = &**session.worker();
    let model = &worker.snapshot.model.pools[pool.0];
    let mut tried = Tried::default();
    let mut failed = EndReason::NoBackend;
    for _ in 0..model.tries {
        let mut reservation = match choose(worker, (session.listener(), pool), client, &tried).await {
            Ok(reservation) => reservation,
            Err(Some(reason)) => return Err(reason),
            Err(None) => break,
        };
        let backend = reservation.backend().clone();
        tried.insert(backend.index);
        session.note(|entry| {
            entry.tries += 1;
            entry.backend = Some(backend.clone());
        });
        let stats = &backend.workers[worker.index];
        let started = worker.handle.now();
        match attempt(worker, model, &backend.address).await {
            Ok(stream) => {
                let connect_time = worker.handle.now().since(started);
                stats.connections_total.add(1);
                stats.connect_seconds.observe(connect_time);
                session.note(|entry| entry.connect_time = Some(connect_time));
                if backend.orders.take_connect_watch() && !active(Fault::SuccessNotTold) {
                    worker.observer.met(pool, &backend, Report::Connected);
                }
                return Ok(Connected {
                    stream,
                    reservation,
                    connect_time,
                });
            }
            // It looks like a timeout, and is not one.
            Err(_) if worker.orders.is_resetting() => return Err(EndReason::DrainDeadline),
            Err(error) => {
                stats.connect_errors[error.index()].add(1);
                failed = tell_failure(worker, pool, &mut reservation, error);
                if active(Fault::ReservationLeaked) {
                    std::mem::forget(reservation);
                }
            }
        }
    }
    Err(failed)
}

/// The backend for the next try. `Err(None)`: there is no other left to try, or the others are kept for trials.
async fn choose(
    worker: &WorkerState,
    (listener, pool): (usize, PoolIndex),
    client: ClientKey,
    tried: &Tried,
) -> Result<Reservation, Option<EndReason>> {
    let line = worker.snapshot.pools[pool.0].line.as_ref();
    // Whoever comes first is served first: a newcomer does not pass those that wait.
    let crowded = tried.is_empty() && line.is_some_and(|line| line.is_crowded());
    if !crowded {
        match worker.choose(listener, pool, client, tried) {
            Ok(choice) => return Ok(choice.reservation),
            Err(NoChoice::Exhausted) => return Err(None),
            Err(NoChoice::OnTrial) if line.is_none() => return Err(None),
            Err(NoChoice::Full | NoChoice::OnTrial) => {}
        }
    }
    match line {
        None => Err(Some(EndReason::BackendsFull)),
        // Boxed: few ever wait.
        Some(line) => Box::pin(wait_for_room(worker, (listener, pool), line, client, tried)).await,
    }
}

/// Tells of a failed try, unless it was ours. Returns why the session ends if it was the last.
fn tell_failure(
    worker: &WorkerState,
    pool: PoolIndex,
    reservation: &mut Reservation,
    error: ConnectError,
) -> EndReason {
    match error.blame() {
        Blame::Local => EndReason::LocalError,
        Blame::Nobody | Blame::Client | Blame::Backend | Blame::Operator => {
            if !active(Fault::FailureNotTold) {
                worker.observer.met(pool, reservation.backend(), Report::ConnectFailed);
                reservation.leave_trial();
            }
            EndReason::ConnectFailed
        }
    }
}

async fn attempt(
    worker: &WorkerState,
    pool: &Pool,
    address: &ringway_core::model::Address,
) -> Result<Stream, ConnectError> {
    let address = convert::address(address);
    let source = match &address {
        // Nanoseconds have few random low bits on some clocks; the multiplication spreads them (Knuth, 6.4).
        Address::Inet(address) => {
            let spread = worker.handle.now().as_nanos().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            source(pool, address.ip(), spread.rotate_left(32))
        }
        Address::Unix(_) => None,
    };
    // The relay sets options once it has lived a little: short connections never need them.
    let options = SocketOptions::default();
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
pub(crate) fn source(pool: &Pool, address: IpAddr, spread: u64) -> Option<IpAddr> {
    let matching = || {
        pool.source
            .iter()
            .filter(|source| source.is_ipv4() == address.is_ipv4())
    };
    let count = matching().count() as u64;
    let at = spread.checked_rem(count)?;
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
