//! The life of one connection.

use super::close::close;
use super::relay::{Limits, Relay};
use crate::state::Session;
use crate::upstream::{self, Connected};
use ringway_core::balance::ClientKey;
use ringway_core::gate::Permit;
use ringway_core::model::{Listener, Pool};
use ringway_core::reason::EndReason;
use ringway_runtime::{Address, Stream};
use std::future::poll_fn;

/// Serves one accepted connection from here to its end: choose and connect, relay, close, book.
pub(super) async fn serve(session: Session, client: Stream, permit: Permit) {
    // Boxed, so that what is needed only before the relay costs nothing while it runs.
    match Box::pin(route(&session, &client)).await {
        Ok(Connected {
            stream: backend,
            reservation,
            ..
        }) => {
            #[cfg(feature = "faults")]
            crate::injected::panic_if_asked();
            let relay = Relay::new(session.worker(), client, backend);
            run(&session, relay).await;
            drop(reservation);
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
    let key = match client.peer_address() {
        Ok(Address::Inet(address)) => ClientKey::from(address.ip()),
        Ok(Address::Unix(_)) => ClientKey::UNIX,
        // Gone before it was served.
        Err(_) => return Err(EndReason::ClientReset),
    };
    upstream::connect(session.worker(), listener(session).pool, key).await
}

/// Relays until the end, closes both sides as the end asks, and books it.
async fn run(session: &Session, mut relay: Relay) {
    let worker = &**session.worker();
    let stats = session.stats();
    let (up, down) = (&stats.bytes_from_clients, &stats.bytes_from_backends);
    let reason = poll_fn(|context| relay.poll(worker, &limits(session), up, down, context)).await;
    Box::pin(close(worker, relay, reason, up, down)).await;
    session.end(reason);
}

fn listener(session: &Session) -> &Listener {
    &session.worker().snapshot.model.listeners[session.listener()]
}

fn limits(session: &Session) -> Limits {
    let listener = listener(session);
    let pool: &Pool = &session.worker().snapshot.model.pools[listener.pool.0];
    Limits {
        idle_timeout: listener.idle_timeout,
        half_closed_timeout: listener.half_closed_timeout,
        client_dead_timeout: listener.dead_peer_timeout,
        backend_dead_timeout: pool.dead_peer_timeout,
        backend_keepalive: pool.keepalive,
    }
}
