//! A CancelRequest whose key nobody knows: it was issued inside TLS, or past another balancer.
//!
//! Every backend that may have is asked; those that have not say nothing and do nothing (PostgreSQL documentation, 54.2.8:
//! the server does not answer a CancelRequest, whether it succeeds or not). Older clients cancel like that: libpq before 17
//! never encrypts it.

use super::routing::Said;
use super::serve::{own_header, seeker};
use crate::convert;
use crate::session::Session;
use crate::state::WorkerState;
use crate::upstream::{Seeker, source};
use ringway_core::backend::BackendState;
use ringway_core::model::{Listener, PoolIndex};
use ringway_core::reason::EndReason;
use ringway_runtime::{Address, SendOutcome, SocketOptions, Stream, Time};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// The most backends that are asked for one request: a client could multiply what it sends.
const BACKENDS_MAX: usize = 32;
/// Requests that one worker passes on at the same time: their connections are in nobody's limits.
const REQUESTS_MAX: u32 = 8;

/// From one such request to the next, and how many may come at once: each costs every server a process for a moment, and
/// nobody has asked yet who sends them.
const INTERVAL: Duration = Duration::from_millis(10);
const AT_ONCE: u32 = 20;
/// Those that would have to wait longer are dropped.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// When the next one may be passed on (GCRA, ITU-T I.371): `None` if that is too late. `due` is when the one before would
/// have been on time.
fn turn(due: &Cell<Time>, now: Time) -> Option<Time> {
    let next = due.get().max(now);
    let ahead = next.since(now);
    let wait = ahead.saturating_sub(INTERVAL * (AT_ONCE - 1));
    if wait > WAIT_MAX {
        return None;
    }
    due.set(next + INTERVAL);
    Some(now + wait)
}

/// Passes a request to every usable backend of a listener, and ends when each has closed or the time for connecting is
/// over. Returns why the connection ends.
pub(super) async fn at_all(
    (session, client): (&Session, &Stream),
    listener: &Listener,
    said: &Said,
    request: &[u8],
) -> EndReason {
    let worker = session.worker();
    let Some(turn) = turn(&worker.cancels_due, worker.handle.now()) else {
        return EndReason::Refused;
    };
    if !wait(worker, turn).await {
        return EndReason::DrainDeadline;
    }
    let Some(_passing) = Passing::begin(&worker.cancels_passing) else {
        return EndReason::Refused;
    };
    let mut asked: Vec<(PoolIndex, Arc<BackendState>)> = Vec::new();
    for pool in listener.pools() {
        worker.with_view(pool, |view| {
            let usable = view.selector.candidates().map(|(backend, _)| (pool, backend.clone()));
            asked.extend(usable);
        });
    }
    asked.truncate(BACKENDS_MAX);
    let mut pending: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for (pool, backend) in asked {
        // Gone already: whoever cannot be told the answer may still want the query to end.
        let (seeker, addresses) = seeker(session, client, pool, said).unwrap_or((Seeker::UNKNOWN, None));
        let mut bytes = own_header(session, pool, addresses, said);
        bytes.extend_from_slice(request);
        pending.push(Box::pin(ask(session, (pool, backend), seeker.address, bytes)));
    }
    poll_fn(|context| {
        pending.retain_mut(|asking| asking.as_mut().poll(context).is_pending());
        if pending.is_empty() {
            Poll::Ready(EndReason::Finished)
        } else if worker.orders.is_resetting() {
            Poll::Ready(EndReason::DrainDeadline)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// A request that is being passed on.
struct Passing<'a>(&'a Cell<u32>);

impl<'a> Passing<'a> {
    fn begin(count: &'a Cell<u32>) -> Option<Self> {
        let begun = count.get() < REQUESTS_MAX;
        begun.then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// `false`: what is left is to be reset.
async fn wait(worker: &WorkerState, until: Time) -> bool {
    let mut sleep = worker.handle.sleep_until(until);
    poll_fn(|context| match Pin::new(&mut sleep).poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if worker.orders.is_resetting() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One backend. What goes wrong is not told: it is not known to be this one's.
async fn ask(
    session: &Session,
    (pool, backend): (PoolIndex, Arc<BackendState>),
    client: Option<IpAddr>,
    request: Vec<u8>,
) {
    let worker = session.worker();
    let address = convert::address(&backend.address);
    let pool = &worker.snapshot.model.pools[pool.0];
    let source = match &address {
        Address::Inet(address) => source(pool, address.ip(), client, 0),
        Address::Unix(_) => Ok(None),
    };
    let Ok(source) = source else { return };
    let Ok(connect) = worker.handle.connect(&address, source, &SocketOptions::default()) else {
        return;
    };
    let mut limit = worker.handle.sleep(pool.connect_timeout);
    let mut asking = std::pin::pin!(async move {
        if let Ok(stream) = connect.await {
            hand_over(&stream, request).await;
        }
    });
    poll_fn(|context| match asking.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => Pin::new(&mut limit).poll(context),
    })
    .await;
}

async fn hand_over(stream: &Stream, request: Vec<u8>) {
    if let SendOutcome::All = stream.send_bytes(request.into(), 0, true).await {
        // The server closes when it has done what it does: the client may rely on that.
        let _ = stream.receive_once(1).next().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 at once, then one each 10 ms, and none that would have to wait for more than two seconds.
    #[test]
    fn requests_take_turns() {
        let (due, start) = (Cell::default(), Time::from_nanos(1_000_000_000));
        let waits: Vec<u64> = (0..230)
            .filter_map(|_| Some(turn(&due, start)?.since(start).as_millis() as u64))
            .collect();
        assert_eq!(waits[..20], [0; 20]);
        assert_eq!(waits[20..23], [10, 20, 30]);
        assert_eq!((waits.len(), waits[waits.len() - 1]), (220, 2_000));
        let later = start + Duration::from_secs(60);
        assert_eq!(turn(&due, later), Some(later));
    }
}
