//! The life of one connection.

use super::books::Books;
use super::close::close;
use super::relay::{Limits, Relay};
use crate::session::Session;
use crate::upstream::{self, Connected};
use ringway_core::backend::Reservation;
use ringway_core::balance::ClientKey;
use ringway_core::gate::Permit;
use ringway_core::model::{Listener, Pool};
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Address, Stream};
use std::future::poll_fn;
use std::task::{Context, Poll};

/// Serves one accepted connection from here to its end: choose and connect, relay, close, book.
pub(super) async fn serve(session: Session, client: Stream, permit: Permit) {
    // Boxed, so that what is needed only before the relay costs nothing while it runs.
    match Box::pin(route(&session, &client)).await {
        Ok(Connected {
            stream: backend,
            reservation,
            connect_time,
        }) => {
            #[cfg(feature = "faults")]
            crate::injected::panic_if_asked();
            // Not in a function of its own: what a future is given takes its room twice, and relays are most of what an
            // idle connection costs.
            let mut relay = Relay::new(session.worker(), client, backend, connect_time);
            let reason = poll_fn(|context| poll(&session, &reservation, &mut relay, context)).await;
            Box::pin(finish(&session, &reservation, relay, reason)).await;
            if reservation.is_trial() && active(Fault::TrialNotGivenBack) {
                std::mem::forget(reservation);
            } else {
                drop(reservation);
            }
        }
        Err(reason) => {
            client.abort();
            session.end(reason);
        }
    }
    drop(permit);
}

/// Chooses a backend for this client and connects to it.
async fn route(session: &Session, client: &Stream) -> Result<Connected, EndReason> {
    let worker = session.worker();
    // Who it is costs a system call.
    if !worker.asks_for_client(session.listener(), session.pool()) && !worker.logs_sessions {
        return upstream::connect(session, session.pool(), ClientKey::UNIX).await;
    }
    // Gone before it was served.
    let peer = client.peer_address().map_err(|_| EndReason::ClientReset)?;
    let key = match &peer {
        Address::Inet(address) => ClientKey::from(address.ip()),
        Address::Unix(_) => ClientKey::UNIX,
    };
    session.note(|entry| entry.client = Some(peer));
    upstream::connect(session, session.pool(), key).await
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
    let pool: &Pool = &model.pools[listener.pool.0];
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
