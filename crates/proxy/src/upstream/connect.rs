//! The tries of one connection: choose, connect within `connect_timeout`, count, tell, and on failure choose another.

use super::greet;
use super::queue::wait_for_room;
use super::source::{NotTaken, source, tell_passed_over};
use crate::convert;
use crate::session::Session;
use crate::state::WorkerState;
use crate::tcp::Head;
use ringway_core::backend::{BackendState, Reservation};
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::health::Report;
use ringway_core::model::{self, Pool, PoolIndex};
use ringway_core::reason::{Blame, ConnectError, EndReason};
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Connect, Errno, Sleep, SocketOptions, Source, Stream, Time};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Who wants a backend, as far as that matters for choosing and connecting one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeker {
    /// What it is recognised by.
    pub(crate) key: ClientKey,
    /// Its address, where that was asked for and it has one; it matters with `source: client`.
    pub(crate) address: Option<IpAddr>,
}

impl Seeker {
    /// Nobody asked, or it has no address.
    pub(crate) const UNKNOWN: Self = Self {
        key: ClientKey::UNIX,
        address: None,
    };
}

/// What is said to a backend, and awaited from it, before bytes are relayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Nothing.
    #[default]
    None,
    /// An SSLRequest, which it answers by `S`: the client has had that answer from us. Bytes of our own come before it.
    PostgresTls(Vec<u8>),
}

/// A backend that was chosen and reached.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// Its place in the backend's count.
    pub reservation: Reservation,
    /// How long the connect took, the greeting included.
    pub connect_time: Duration,
    /// What goes on behind the greeting, if there was one.
    pub(crate) head: Option<Box<Head>>,
}

/// Connects a session to a backend of its pool, trying others on refusal or timeout. Each try chooses from the pool as it
/// is then. `client` is where it comes from, if that is known and an address; it matters with `source: client`.
///
/// # Errors
/// Why the connection ends: no backend could be chosen, every try failed, or this machine lacks something.
pub(crate) async fn connect(
    session: &Session,
    pool: PoolIndex,
    seeker: &Seeker,
    greeting: &Greeting,
) -> Result<Connected, EndReason> {
    let worker = &**session.worker();
    let model = &worker.snapshot.model.pools[pool.0];
    let mut tried = Tried::default();
    let mut failed = EndReason::NoBackend;
    let mut left = model.tries;
    while left > 0 {
        let reservation = match choose(worker, (session.listener(), pool), seeker.key, &tried).await {
            Ok(reservation) => reservation,
            Err(Some(reason)) => return Err(reason),
            Err(None) => break,
        };
        let is_new = tried.insert(reservation.backend().index);
        let Ok(source) = source_for(worker, model, reservation.backend(), seeker) else {
            // No try: nothing is sent.
            failed = EndReason::LocalError;
            if is_new {
                continue;
            }
            break;
        };
        left -= 1;
        let started = worker.handle.now();
        let mut making = begin(session, pool, reservation.backend(), source);
        let reached = match &mut making {
            Ok(making) => reach(worker, making, greeting).await,
            Err(error) => Err(*error),
        };
        match conclude(session, pool, reservation, started, reached) {
            Ok(connected) => return Ok(connected),
            Err(EndReason::DrainDeadline) => return Err(EndReason::DrainDeadline),
            Err(reason) => failed = reason,
        }
    }
    Err(failed)
}

/// Connects a session to this very backend, even one that has as many connections as it may: who wants to cancel a query
/// must get through where all is busy.
///
/// # Errors
/// Why it could not be connected.
pub(crate) async fn connect_to(
    session: &Session,
    pool: PoolIndex,
    backend: &Arc<BackendState>,
    seeker: &Seeker,
) -> Result<Connected, EndReason> {
    let worker = &**session.worker();
    let model = &worker.snapshot.model.pools[pool.0];
    let source = source_for(worker, model, backend, seeker).map_err(|_| EndReason::LocalError)?;
    let (reservation, started) = (backend.reserve_beyond(), worker.handle.now());
    let mut making = begin(session, pool, backend, source);
    let reached = match &mut making {
        Ok(making) => reach(worker, making, &Greeting::None).await,
        Err(error) => Err(*error),
    };
    conclude(session, pool, reservation, started, reached)
}

/// Where to connect from to this backend. That the client cannot be taken to it is told.
fn source_for(
    worker: &WorkerState,
    pool: &Pool,
    backend: &BackendState,
    seeker: &Seeker,
) -> Result<Option<Source>, NotTaken> {
    let model::Address::Inet(address) = &backend.address else {
        return Ok(None);
    };
    // Nanoseconds have few random low bits on some clocks; the multiplication spreads them (Knuth, 6.4).
    let spread = worker.handle.now().as_nanos().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let source = source(pool, address.ip(), seeker.address, spread.rotate_left(32));
    if source.is_err() {
        tell_passed_over(pool, backend, seeker.address);
        backend.workers[worker.index].connect_errors[ConnectError::Local.index()].add(1);
    }
    source
}

/// A connection being made.
struct Making {
    connect: Connect,
    limit: Sleep,
    /// In somebody else's name.
    is_foreign: bool,
}

fn begin(
    session: &Session,
    pool: PoolIndex,
    backend: &Arc<BackendState>,
    source: Option<Source>,
) -> Result<Making, ConnectError> {
    let worker = session.worker();
    session.note(|entry| {
        entry.tries += 1;
        entry.backend = Some(backend.clone());
    });
    let is_foreign = matches!(source, Some(Source::Foreign(_)));
    // The relay sets options once it has lived a little: short connections never need them.
    let options = SocketOptions::default();
    let connect = worker
        .handle
        .connect(&convert::address(&backend.address), source, &options);
    Ok(Making {
        connect: connect.map_err(|errno| classify_from(is_foreign, errno))?,
        limit: worker.handle.sleep(worker.snapshot.model.pools[pool.0].connect_timeout),
        is_foreign,
    })
}

/// Waits for the connection, and greets, within `connect_timeout` in all.
async fn reach(
    worker: &WorkerState,
    making: &mut Making,
    greeting: &Greeting,
) -> Result<(Stream, Option<Box<Head>>), ConnectError> {
    let connected = poll_fn(|context| poll_limited(&mut making.connect, &mut making.limit, worker, context)).await?;
    let stream = connected.map_err(|errno| classify_from(making.is_foreign, errno))?;
    match greeting {
        Greeting::None => Ok((stream, None)),
        // Boxed: few greet.
        Greeting::PostgresTls(first) => {
            let mut greeted = Box::pin(greet::postgres(worker, &stream, first));
            let head = poll_fn(|context| poll_limited(&mut greeted, &mut making.limit, worker, context)).await??;
            drop(greeted);
            Ok((stream, Some(head)))
        }
    }
}

/// Books how a try went.
fn conclude(
    session: &Session,
    pool: PoolIndex,
    mut reservation: Reservation,
    started: Time,
    reached: Result<(Stream, Option<Box<Head>>), ConnectError>,
) -> Result<Connected, EndReason> {
    let worker = session.worker();
    let backend = reservation.backend().clone();
    let stats = &backend.workers[worker.index];
    match reached {
        Ok((stream, head)) => {
            let connect_time = worker.handle.now().since(started);
            stats.connections_total.add(1);
            stats.connect_seconds.observe(connect_time);
            session.note(|entry| entry.connect_time = Some(connect_time));
            if backend.orders.take_connect_watch() && !active(Fault::SuccessNotTold) {
                worker.observer.met(pool, &backend, Report::Connected);
            }
            Ok(Connected {
                stream,
                reservation,
                connect_time,
                head,
            })
        }
        // It looks like a timeout, and is not one.
        Err(_) if worker.orders.is_resetting() => Err(EndReason::DrainDeadline),
        Err(error) => {
            stats.connect_errors[error.index()].add(1);
            let failed = tell_failure(worker, pool, &mut reservation, error);
            if active(Fault::ReservationLeaked) {
                std::mem::forget(reservation);
            }
            Err(failed)
        }
    }
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
            match error {
                ConnectError::NoTls => EndReason::StarttlsRefused,
                _ => EndReason::ConnectFailed,
            }
        }
    }
}

fn poll_limited<F: Future + Unpin>(
    what: &mut F,
    limit: &mut Sleep,
    worker: &WorkerState,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output, ConnectError>> {
    if let Poll::Ready(result) = Pin::new(what).poll(context) {
        return Poll::Ready(Ok(result));
    }
    if worker.orders.is_resetting() || Pin::new(limit).poll(context).is_ready() {
        return Poll::Ready(Err(ConnectError::Timeout));
    }
    Poll::Pending
}

/// What the kernel has against a foreign address is not the backend's doing. It lacks the capability (EPERM), or has no way
/// that such a packet may take (EINVAL).
fn classify_from(is_foreign: bool, errno: Errno) -> ConnectError {
    if is_foreign && errno.is_refusal() {
        ConnectError::Local
    } else {
        classify(errno)
    }
}

/// Which of our reasons an error of connect(2) is. ETIMEDOUT is the kernel's own limit on SYN retries.
pub(super) fn classify(errno: Errno) -> ConnectError {
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

    #[test]
    fn what_is_wrong_with_a_foreign_address_is_local() {
        for (errno, foreign, own) in [
            (1, ConnectError::Local, ConnectError::Other),
            (22, ConnectError::Local, ConnectError::Other),
            (99, ConnectError::Local, ConnectError::Local),
            (111, ConnectError::Refused, ConnectError::Refused),
            (110, ConnectError::Timeout, ConnectError::Timeout),
        ] {
            assert_eq!(classify_from(true, Errno(errno)), foreign, "errno {errno}");
            assert_eq!(classify_from(false, Errno(errno)), own, "errno {errno}");
        }
    }
}
