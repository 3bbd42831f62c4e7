//! The life of one connection.

use super::books::Books;
use super::cancel;
use super::close::close;
use super::head::Head;
use super::header;
use super::relay::{Heads, Limits, Relay};
use super::routing::{self, Routed, Said, StartsTls, Target};
use super::tap::Tap;
use crate::session::Session;
use crate::state::WorkerState;
use crate::upstream::{self, Connected, Greeting, Seeker};
use ringway_core::backend::Reservation;
use ringway_core::balance::ClientKey;
use ringway_core::gate::Permit;
use ringway_core::model::{Listener, Pool, PoolIndex, Speech};
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Address, Stream};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Serves one accepted connection from here to its end: find out where to, choose and connect, relay, close, book.
#[expect(
    clippy::manual_async_fn,
    reason = "the arguments of an async fn take their room twice in every idle connection"
)]
pub(super) fn serve(session: Session, client: Stream, permit: Permit) -> impl Future<Output = ()> + 'static {
    async move {
        let listener = &session.worker().snapshot.model.listeners[session.listener()];
        // Boxed, so that what is needed only before the relay costs nothing while it runs. Each apart, so that who needs little
        // gets little.
        let opened = if listener.preface.is_none() {
            Box::pin(open(&session, &client, listener.only_pool())).await
        } else {
            // Whoever waits here may be one of thousands.
            match Box::pin(routing::route(&session, &client)).await {
                Ok(routed) => Box::pin(open_routed(&session, &client, routed)).await,
                Err(reason) => Err(reason),
            }
        };
        match opened {
            Ok(opened) => {
                let Opened {
                    connected:
                        Connected {
                            stream: backend,
                            reservation,
                            connect_time,
                            ..
                        },
                    heads,
                } = *opened;
                #[cfg(feature = "faults")]
                crate::injected::panic_if_asked();
                // Not in a function of its own: what a future is given takes its room twice, and relays are most of what an
                // idle connection costs.
                let mut relay = Relay::new(session.worker(), client, backend, connect_time, heads);
                let reason = poll_fn(|context| poll(&session, &reservation, &mut relay, context)).await;
                Box::pin(finish(&session, &reservation, relay, reason)).await;
                if reservation.is_trial() && active(Fault::TrialNotGivenBack) {
                    std::mem::forget(reservation);
                } else {
                    drop(reservation);
                }
            }
            Err(EndReason::Finished) => {
                drop(client);
                session.end(EndReason::Finished);
            }
            Err(reason) => {
                client.abort();
                session.end(reason);
            }
        }
        drop(permit);
    }
}

/// A connection to a backend, and what its relay begins with. Boxed: what is handed from one to the next would take its room
/// in every idle connection.
struct Opened {
    connected: Connected,
    heads: Heads,
}

/// Connects a client of which it is known where it goes. `Err(Finished)`: there is nothing to relay.
async fn open_routed(session: &Session, client: &Stream, routed: Box<Routed>) -> Result<Box<Opened>, EndReason> {
    let listener = &session.worker().snapshot.model.listeners[session.listener()];
    let Routed { target, said, mut head } = *routed;
    let (pool, starts_tls, backend) = match target {
        Target::Pool(pool, starts_tls) => (pool, starts_tls == StartsTls::Yes, None),
        Target::Backend(pool, backend) => (pool, false, Some(backend)),
        Target::CancelAtAll(request) => {
            // With the buffer that it came in.
            drop(head);
            return Err(cancel::at_all((session, client), listener, &said, &request).await);
        }
    };
    session.set_pool(pool);
    let worker = session.worker();
    let (seeker, addresses) = seeker(session, client, pool, &said)?;
    let own = own_header(session, pool, addresses, &said);
    let greeting = match starts_tls {
        // The header comes before the greeting, which is before what the client has said.
        true => Greeting::PostgresTls(own),
        false => {
            head.put_before(own, worker.handle.no_leases());
            Greeting::None
        }
    };
    let mut connected = {
        let connecting = pin!(async {
            match &backend {
                Some(backend) => upstream::connect_to(session, pool, backend, &seeker).await,
                None => upstream::connect(session, pool, &seeker, &greeting).await,
            }
        });
        keeping_buffers(worker, &mut head, connecting).await?
    };
    let taps = listener.preface.speech == Speech::Postgres;
    let heads = Heads {
        up: Some(head),
        // A server ends a cancel request without a word (PostgreSQL documentation, 54.2.8).
        unanswered: backend.is_some(),
        down: connected.head.take(),
        tap: taps
            .then(|| Tap::new(session, connected.reservation.backend()))
            .flatten(),
    };
    Ok(Box::new(Opened { connected, heads }))
}

/// Waits for a connection. What its client has said stays in the worker's buffer only as long as buffers are not short: a
/// backend that does not answer must not keep them from others.
async fn keeping_buffers<T>(
    worker: &WorkerState,
    head: &mut Head,
    mut connecting: Pin<&mut impl Future<Output = T>>,
) -> T {
    let mut noted = 0;
    poll_fn(|context| {
        let polled = connecting.as_mut().poll(context);
        if polled.is_pending() && head.holds_leases() && !active(Fault::HeadHoarded) {
            if worker.buffers_short() {
                head.spill(worker.handle.no_leases());
            } else {
                noted = worker.note_blocked(context.waker(), noted);
            }
        }
        polled
    })
    .await
}

/// The same where nothing is read before.
async fn open(session: &Session, client: &Stream, pool: PoolIndex) -> Result<Box<Opened>, EndReason> {
    let (seeker, addresses) = seeker(session, client, pool, &Said::default())?;
    let own = own_header(session, pool, addresses, &Said::default());
    let connected = upstream::connect(session, pool, &seeker, &Greeting::None).await?;
    let mut heads = Heads::default();
    if !own.is_empty() {
        let empty = || session.worker().handle.no_leases();
        let mut head = Box::new(Head::new(client.receive(), Vec::new(), empty()));
        head.put_before(own, empty());
        heads.up = Some(head);
    }
    Ok(Box::new(Opened { connected, heads }))
}

/// Who it is with the port, and whom it speaks to.
type Addresses = (SocketAddr, SocketAddr);

/// Who wants a backend of this pool, as far as that matters there, and what backends are told of it.
pub(super) fn seeker(
    session: &Session,
    client: &Stream,
    pool: PoolIndex,
    said: &Said,
) -> Result<(Seeker, Option<Addresses>), EndReason> {
    let worker = session.worker();
    let of = |address: SocketAddr| Seeker {
        key: ClientKey::from(address.ip()),
        address: Some(address.ip()),
    };
    if let Some(addresses) = said.addresses {
        return Ok((of(addresses.0), Some(addresses)));
    }
    let told = worker.snapshot.model.pools[pool.0].send_proxy.is_some();
    // Who it is costs a system call.
    if !worker.asks_for_client(session.listener(), pool) && !worker.logs_sessions && !told {
        return Ok((Seeker::UNKNOWN, None));
    }
    // Gone before it was served.
    let peer = client.peer_address().map_err(|_| EndReason::ClientReset)?;
    let found = match &peer {
        Address::Inet(address) if told => (of(*address), Some((*address, spoken_to(client)?))),
        Address::Inet(address) => (of(*address), None),
        Address::Unix(_) => (Seeker::UNKNOWN, None),
    };
    session.note(|entry| entry.client = Some(peer));
    Ok(found)
}

/// The address that a client of an IP listener speaks to.
fn spoken_to(client: &Stream) -> Result<SocketAddr, EndReason> {
    match client.local_address() {
        Ok(Address::Inet(address)) => Ok(address),
        Ok(Address::Unix(_)) | Err(_) => Err(EndReason::ClientReset),
    }
}

/// What backends of the pool are told of the client.
pub(super) fn own_header(session: &Session, pool: PoolIndex, addresses: Option<Addresses>, said: &Said) -> Vec<u8> {
    let worker = session.worker();
    let Some(send) = worker.snapshot.model.pools[pool.0].send_proxy else {
        return Vec::new();
    };
    let id = if send.unique_id {
        worker.next_id()
    } else {
        String::new()
    };
    let header = header::write(send, addresses, said, id.as_bytes());
    if send.unique_id {
        session.note(|entry| entry.seldom().id = Some(id.into_boxed_str()));
    }
    header
}

fn poll(session: &Session, reservation: &Reservation, relay: &mut Relay, context: &mut Context<'_>) -> Poll<EndReason> {
    let books = Books::new(session, reservation);
    relay.poll(session.worker(), &limits(session), &books, context)
}

/// Closes both sides as the end asks, and books it.
async fn finish(session: &Session, reservation: &Reservation, relay: Relay, reason: EndReason) {
    let books = Books::new(session, reservation);
    let moved = close(session.worker(), relay, reason, &books).await;
    session.note(|entry| (entry.bytes_from_client, entry.bytes_from_backend) = moved);
    session.end(reason);
}

fn limits(session: &Session) -> Limits {
    let model = &session.worker().snapshot.model;
    let listener: &Listener = &model.listeners[session.listener()];
    let pool: &Pool = &model.pools[session.relayed_pool().0];
    Limits {
        idle_timeout: listener.idle_timeout,
        half_closed_timeout: listener.half_closed_timeout,
        client_dead_timeout: listener.dead_peer_timeout,
        backend_dead_timeout: pool.dead_peer_timeout,
        backend_keepalive: pool.keepalive,
        max_lifetime: pool.sessions.max_lifetime,
        started: session.started(),
    }
}
