//! Whether a client may use a listener now: by its address, by how many connections it has, by how fast they come.
//!
//! Judges by rules that `core` has; counts what is refused. Never closes anything itself. Called for each connection as
//! soon as it is accepted, and again when a header says who the client really is.

use crate::session::Session;
use crate::state::WorkerState;
use ringway_core::model::{Listener, Model};
use ringway_core::reason::{EndReason, RefuseReason};
use ringway_core::session::{ClientGuard, Clients, Exceeded};
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Address, Stream};
use std::hash::RandomState;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// The bounds on client addresses of each listener, over all workers; parallel to `Model::listeners`.
pub type ClientBounds = Arc<[Option<Clients<RandomState>>]>;

/// Nobody has a session yet.
pub fn client_bounds(model: &Model) -> ClientBounds {
    let bounds = |listener: &Listener| {
        let limits = listener.clients;
        (!limits.is_none()).then(|| Clients::new(limits, RandomState::new()))
    };
    model.listeners.iter().map(bounds).collect()
}

/// A connection is to be reset, which is in the books already.
#[derive(Debug)]
pub(crate) struct Unwelcome;

impl WorkerState {
    /// Whether a client at this address may have one more connection of a listener; if so, it counts until the guard is
    /// dropped. Counts nothing under a reason: whoever asks does.
    pub(crate) fn admit(&self, listener: usize, client: IpAddr) -> Result<Option<ClientGuard>, RefuseReason> {
        if !self.snapshot.model.listeners[listener].access.permits(client) {
            return Err(RefuseReason::Denied);
        }
        let Some(clients) = &self.clients[listener] else {
            return Ok(None);
        };
        clients.admit(client, self.moment()).map_err(|exceeded| match exceeded {
            Exceeded::Connections => RefuseReason::ClientConnections,
            Exceeded::Rate => RefuseReason::ClientRate,
        })
    }

    /// The same for the peer of a connection that was just accepted, and books what is refused. A UNIX socket's clients
    /// have no addresses: all are welcome.
    pub(crate) fn admit_peer(
        self: &Rc<Self>,
        listener: usize,
        client: &Stream,
    ) -> Result<Option<ClientGuard>, Unwelcome> {
        let model = &self.snapshot.model.listeners[listener];
        // Who it is costs a system call.
        if !model.tells_clients_apart() && model.preface.proxy.is_none() {
            return Ok(None);
        }
        match client.peer_address() {
            Ok(Address::Inet(address)) => {
                let admitted = match &model.preface.proxy {
                    None => self.admit(listener, address.ip()),
                    // Who the client is will be known behind the header.
                    Some(proxy) if proxy.from.contains(address.ip()) => Ok(None),
                    Some(_) => Err(RefuseReason::UntrustedProxy),
                };
                admitted.map_err(|reason| {
                    self.count_refused(listener, reason);
                    Unwelcome
                })
            }
            Ok(Address::Unix(_)) => Ok(None),
            // Gone before anybody could ask who it was.
            Err(_) => {
                Session::begin(self, listener).end(EndReason::ClientReset);
                Err(Unwelcome)
            }
        }
    }

    /// The same for the client that a PROXY header names, of a session that has begun.
    pub(crate) fn admit_named(&self, session: &Session, client: IpAddr) -> Result<(), EndReason> {
        if !self.snapshot.model.listeners[session.listener()].tells_clients_apart() {
            return Ok(());
        }
        match self.admit(session.listener(), client) {
            Ok(_) if active(Fault::GuardNotKept) => Ok(()),
            Ok(guard) => {
                session.keep(guard);
                Ok(())
            }
            Err(reason) => {
                self.count_refused(session.listener(), reason);
                Err(EndReason::Refused)
            }
        }
    }

    fn count_refused(&self, listener: usize, reason: RefuseReason) {
        self.stats.listeners[listener].refused[reason.index()].add(1);
    }
}
