//! Opening sessions: who may, which backend, and the socket towards it.

use super::listener::{Relay, now};
use super::session::{Session, Upstream};
use crate::session::Session as Booked;
use crate::upstream::source;
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::health::Report;
use ringway_core::model::{Address, Affinity};
use ringway_core::reason::DropReason;
use ringway_core::session::{Id, Key};
use ringway_runtime::{Arrived, DatagramOptions, Errno, Leases, is_own_address};
use std::net::{IpAddr, SocketAddr};

/// Sessions that are opened in one poll: each costs a socket.
const OPENED_MAX: usize = 64;
/// Datagrams that wait to open a session. They hold buffers, which established sessions need as well.
const NEWCOMERS_MAX: usize = 64;

/// What a client sent.
#[derive(Debug)]
pub(super) struct Request {
    /// Which bound socket it came in through.
    pub(super) front: u16,
    pub(super) from: SocketAddr,
    /// Datagrams in it.
    pub(super) count: u64,
    /// It counts against its client's rate.
    pub(super) is_metered: bool,
    pub(super) arrived: Arrived,
    pub(super) leases: Leases,
}

/// A datagram that would open a session.
#[derive(Debug)]
pub(super) struct Newcomer {
    key: Key,
    request: Request,
    /// Its backend, where each datagram is balanced by itself.
    reservation: Option<Reservation>,
}

/// Where a client's datagram belongs.
enum Found {
    Session(Id),
    /// It would open a session; with its backend, where each datagram is balanced by itself.
    Newcomer(Key, Option<Reservation>),
    Nowhere(DropReason),
}

impl Relay {
    /// Passes a client's datagram on in its session, or has it wait to open one.
    pub(super) fn place(&mut self, request: Request) {
        let (key, reservation) = match self.find(&request) {
            Found::Session(id) => return self.forward(id, request),
            Found::Newcomer(key, reservation) => (key, reservation),
            Found::Nowhere(reason) => return self.drop_all(reason, request.count),
        };
        // At once: a flood shall not have buffers.
        if self.worker.gates.free(self.index) == 0 {
            return self.drop_all(DropReason::MaxSessions, request.count);
        }
        if self.newcomers.len() >= NEWCOMERS_MAX {
            return self.drop_all(DropReason::Burst, request.count);
        }
        self.newcomers.push_back(Newcomer {
            key,
            request,
            reservation,
        });
    }

    /// The same for a client whose session has just ended: it is no newcomer, and does not stand in line with a flood.
    pub(super) fn place_again(&mut self, request: Request) {
        match self.find(&request) {
            Found::Session(id) => self.forward(id, request),
            Found::Newcomer(key, reservation) => self.admit(Newcomer {
                key,
                request,
                reservation,
            }),
            Found::Nowhere(reason) => self.drop_all(reason, request.count),
        }
    }

    fn find(&self, request: &Request) -> Found {
        let &Request { front, from, .. } = request;
        let (key, reservation) = match self.listener().udp.affinity {
            Affinity::Session | Affinity::ClientIp => (Key::new(from, front, Key::ANY_BACKEND), None),
            Affinity::None => match self.reserve(from.ip(), &Tried::default()) {
                Ok(reservation) => {
                    let backend = reservation.backend().index.0 as u32;
                    (Key::new(from, front, backend), Some(reservation))
                }
                Err(reason) => return Found::Nowhere(reason),
            },
        };
        match self.table.find(&key) {
            Some(id) => Found::Session(id),
            None if self.worker.orders.is_stopping() => Found::Nowhere(DropReason::Draining),
            None => Found::Newcomer(key, reservation),
        }
    }

    /// Opens sessions for those that wait for one.
    pub(super) fn admit_newcomers(&mut self) {
        for _ in 0..OPENED_MAX {
            let Some(newcomer) = self.newcomers.pop_front() else {
                return;
            };
            self.admit(newcomer);
        }
    }

    fn admit(&mut self, newcomer: Newcomer) {
        let Newcomer {
            key,
            request,
            reservation,
        } = newcomer;
        // One that came behind another of the same client finds its session.
        let id = match self.table.find(&key) {
            Some(id) => Ok(id),
            None => self.open(key, &request, reservation),
        };
        match id {
            Ok(id) => self.forward(id, request),
            Err(reason) => self.drop_all(reason, request.count),
        }
    }

    fn open(&mut self, key: Key, request: &Request, reservation: Option<Reservation>) -> Result<Id, DropReason> {
        let Request {
            front, from, arrived, ..
        } = request;
        if self.is_own(*from, arrived.to) {
            return Err(DropReason::Loop);
        }
        let permit = self.worker.gates.admit(self.index).ok_or(DropReason::MaxSessions)?;
        let client = match &self.clients {
            Some(clients) => {
                let client = clients.open(from.ip(), self.worker.moment());
                Some(client.map_err(|_| DropReason::ClientSessions)?)
            }
            None => None,
        };
        // Named before it is opened: the socket needs the name.
        let id = self.table.next_id();
        let upstream = match reservation {
            Some(reservation) => self.connect(reservation, *front, id).map_err(|(reason, _)| reason)?,
            None => self.choose((from.ip(), *front), &Tried::default(), id)?,
        };
        let booked = Booked::begin(&self.worker, self.index);
        booked.note(|entry| {
            entry.client = Some(ringway_runtime::Address::Inet(*from));
            entry.backend = Some(upstream.backend().clone());
            entry.tries = 1;
        });
        let ours = arrived.to.filter(|_| self.sockets[usize::from(*front)].is_wildcard);
        let session = Session::new(upstream, booked, permit, client, (*front, ours));
        let opened = self.table.open(key, session, now(&self.worker));
        assert_eq!(opened, id, "a session has another name than was foretold");
        Ok(id)
    }

    /// Whether a sender is one of our own listeners or backends: what comes from there would go round.
    fn is_own(&self, from: SocketAddr, to: Option<IpAddr>) -> bool {
        let is_backend = |pool| {
            self.worker.with_view(pool, |view| {
                let is_from = |address: &Address| match address {
                    Address::Inet(address) => *address == from || self.own.is_kept(address.ip(), from),
                    Address::Unix(_) => false,
                };
                view.backends.iter().any(|backend| is_from(&backend.address))
            })
        };
        let is_wildcard_of_ours = || self.own.is_at_wildcard_port(from) && is_own_address(from.ip());
        self.own.has(from, to) || is_wildcard_of_ours() || self.own.named.iter().any(|&pool| is_backend(pool))
    }

    /// Chooses a backend.
    pub(super) fn reserve(&self, client: IpAddr, tried: &Tried) -> Result<Reservation, DropReason> {
        let (pool, key) = (self.listener().pool, ClientKey::from(client));
        match self.worker.choose(self.index, pool, key, tried) {
            Ok(choice) => Ok(choice.reservation),
            Err(NoChoice::Exhausted | NoChoice::OnTrial) => Err(DropReason::NoBackend),
            Err(NoChoice::Full) => Err(DropReason::BackendsFull),
        }
    }

    /// Opens a socket to a backend that is chosen; others are tried where there is no way to it.
    pub(super) fn choose(&self, (client, front): (IpAddr, u16), tried: &Tried, id: Id) -> Result<Upstream, DropReason> {
        let mut tried = *tried;
        for _ in 0..self.pool().tries {
            let reservation = self.reserve(client, &tried)?;
            tried.insert(reservation.backend().index);
            match self.connect(reservation, front, id) {
                Ok(upstream) => return Ok(upstream),
                Err((_, Tries::Others)) => {}
                Err((reason, Tries::End)) => return Err(reason),
            }
        }
        Err(DropReason::NoBackend)
    }

    /// Opens a socket to this backend.
    fn connect(&self, reservation: Reservation, front: u16, id: Id) -> Result<Upstream, (DropReason, Tries)> {
        let worker = &self.worker;
        let backend = reservation.backend().clone();
        let Address::Inet(mut address) = backend.address else {
            return Err((DropReason::NoBackend, Tries::Others));
        };
        let listener = self.listener();
        if listener.udp.keep_port {
            address.set_port(self.sockets[usize::from(front)].port);
        }
        let options = DatagramOptions {
            receive_buffer: listener.udp.receive_buffer,
            send_buffer: 0,
        };
        let time = worker.handle.now();
        // By the session's number, so that all are used.
        let source = source(self.pool(), address.ip(), id.pack()).map(|ip| SocketAddr::new(ip, 0));
        match self.datagrams.connect(address, source, &options, id.pack()) {
            Ok(socket) => {
                backend.workers[worker.index].connections_total.add(1);
                Ok(Upstream {
                    reservation,
                    socket,
                    chosen: worker.shared_nanos(time),
                    failed: false,
                    answered: false,
                    dropped: 0,
                    apart: false,
                })
            }
            // EAGAIN: the kernel found no local port (connect(2)).
            Err(errno) if errno.is_local() || errno == Errno::AGAIN => Err((DropReason::LocalError, Tries::End)),
            // No route: others may be reached.
            Err(_) => {
                worker.observer.met(listener.pool, &backend, Report::ConnectFailed);
                Err((DropReason::NoBackend, Tries::Others))
            }
        }
    }
}

/// Whether trying another backend may help.
enum Tries {
    Others,
    End,
}
