//! From accept until it is known where a connection goes: PROXY header, TLS hello, PostgreSQL start-up.
//!
//! The one deadline of all that is here, and nowhere else: `routing_timeout` from accept. No byte extends it, and nothing
//! that is read on the way (`header`, `hello`, `postgres`) knows of it.

use super::head::Head;
use super::peek::Peek;
use super::{header, hello, postgres};
use crate::session::Session;
use crate::unrouted::Waiting;
use ringway_core::backend::BackendState;
use ringway_core::model::{PoolIndex, Speech, StartTls, Tls};
use ringway_core::reason::EndReason;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Address, Stream};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// Where a connection goes, and what was learnt on the way.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) target: Target,
    pub(super) said: Said,
    pub(super) head: Box<Head>,
}

/// Where it goes.
#[derive(Debug)]
pub(super) enum Target {
    /// To a backend of this pool.
    Pool(PoolIndex, StartsTls),
    /// To this very backend.
    Backend(PoolIndex, Arc<BackendState>),
    /// To every backend that may have issued the key of this CancelRequest; nothing else follows.
    CancelAtAll(Box<[u8]>),
}

/// Whether the backend is asked for TLS as the client has asked us, and has had the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartsTls {
    No,
    Yes,
}

/// What a client said of itself, or the balancer in front of it.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Who it is and whom it spoke to, by a PROXY header.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The name it asked for.
    pub(super) server_name: Option<Box<str>>,
    /// The first protocol that it offered.
    pub(super) alpn: Option<Box<[u8]>>,
}

/// Reads what there is to read before it is known where a connection goes.
pub(super) async fn route(session: &Session, client: &Stream) -> Result<Box<Routed>, EndReason> {
    let worker = session.worker();
    let listener = &worker.snapshot.model.listeners[session.listener()];
    if worker.logs_sessions {
        // Before anybody can make it go: whoever reads of it wants to know who it was.
        let peer = client.peer_address().map_err(|_| EndReason::ClientReset)?;
        session.note(|entry| entry.client = Some(peer));
    }
    let waiting = Waiting::enter(worker, session.listener());
    let mut limit = pin!(worker.handle.sleep_until(session.started() + listener.routing_timeout));
    let mut reading = pin!(read(session, client, &waiting));
    poll_fn(|context| {
        if waiting.is_displaced(context) {
            return Poll::Ready(Err(EndReason::Displaced));
        }
        if let Poll::Ready(routed) = reading.as_mut().poll(context) {
            return Poll::Ready(routed);
        }
        if worker.orders.is_resetting() {
            return Poll::Ready(Err(EndReason::DrainDeadline));
        }
        let over = limit.as_mut().poll(context);
        if over.is_pending() && active(Fault::DeadlineExtended) {
            limit.as_mut().reset(worker.handle.now() + listener.routing_timeout);
        }
        over.map(|()| Err(EndReason::RoutingTimeout))
    })
    .await
}

async fn read(session: &Session, client: &Stream, waiting: &Waiting) -> Result<Box<Routed>, EndReason> {
    let worker = session.worker();
    let listener = &worker.snapshot.model.listeners[session.listener()];
    let mut said = Said::default();
    let mut peek = Peek::new(client, waiting);
    if let Some(proxy) = &listener.preface.proxy {
        said.addresses = header::read(proxy, &mut peek).await?;
        meet(session, client, said.addresses)?;
    }
    let target = match &listener.preface.speech {
        Speech::Any => Ok(Target::Pool(listener.only_pool(), StartsTls::No)),
        Speech::Tls(tls) => read_tls((client, tls, listener.pool), &mut peek, &mut said).await,
        Speech::Postgres => postgres::start(session, listener.only_pool(), &mut peek).await,
    };
    // Also where nothing is routed to that name: whoever looks for the reason wants to know it.
    if let Some(name) = &said.server_name {
        session.note(|entry| entry.seldom().server_name = Some(name.clone()));
    }
    let target = target?;
    Ok(Box::new(Routed {
        target,
        said,
        head: Box::new(peek.into_head(worker.handle.no_leases())),
    }))
}

async fn read_tls(
    (client, tls, fallback): (&Stream, &Tls, Option<PoolIndex>),
    peek: &mut Peek<'_>,
    said: &mut Said,
) -> Result<Target, EndReason> {
    match tls.starttls {
        None => Ok(Target::Pool(
            hello::read(tls, fallback, peek, said).await?,
            StartsTls::No,
        )),
        Some(StartTls::Postgres) => postgres::start_tls((client, tls, fallback), peek, said).await,
    }
}

/// It is known now who the client is: the log is told, and whether it may connect is asked.
fn meet(session: &Session, client: &Stream, addresses: Option<(SocketAddr, SocketAddr)>) -> Result<(), EndReason> {
    let worker = session.worker();
    let Some((source, _)) = addresses else {
        // The balancer itself, as for its probes.
        return match client.peer_address() {
            Ok(Address::Inet(peer)) => worker.admit_named(session, peer.ip()),
            Ok(Address::Unix(_)) => Ok(()),
            Err(_) => Err(EndReason::ClientReset),
        };
    };
    session.note(|entry| entry.seldom().proxy = entry.client.replace(Address::Inet(source)));
    worker.admit_named(session, source.ip())
}
