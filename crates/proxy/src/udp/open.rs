//! Opening sessions: who may, which backend, and the socket towards it.

use super::listener::{Front, Relay, now};
use super::proxied::{Met, Named, Proxied, header};
use super::session::{Session, Upstream};
use crate::session::Session as Booked;
use crate::upstream::{source, tell_passed_over};
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::health::Report;
use ringway_core::model::{Address, Affinity, SendProxy};
use ringway_core::reason::{ConnectError, DropReason};
use ringway_core::session::{Id, Key};
use ringway_runtime::Address::Inet;
use ringway_runtime::{Arrived, DatagramOptions, Errno, Leases, Source, is_own_address};
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
    /// Who that is.
    pub(super) met: Met,
    /// Of a train that is to leave apart, bytes of its first datagram, which had a header in front.
    pub(super) first: Option<u16>,
    /// Datagrams in it.
    pub(super) count: u64,
    /// It counts against its client's rate.
    pub(super) is_metered: bool,
    pub(super) arrived: Arrived,
    pub(super) leases: Leases,
}

impl Request {
    /// The sender, or whom it named.
    fn client(&self) -> SocketAddr {
        self.named().map_or(self.from, |named| named.client)
    }

    const fn named(&self) -> Option<Named> {
        match self.met {
            Met::Named(named) => Some(named),
            Met::Not | Met::InSession | Met::Sender => None,
        }
    }
}

/// A datagram that would open a session.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) request: Request,
    /// Its backend, where each datagram is balanced by itself.
    reservation: Option<Reservation>,
}

/// Where a client's datagram belongs.
enum Found {
    Session(Id),
    /// It would open a session; with its backend, where each datagram is balanced by itself.
    Newcomer(Option<Reservation>),
    Nowhere(DropReason),
}

impl Relay {
    /// Passes a client's datagram on in its session, or has it wait to open one.
    pub(super) fn place(&mut self, mut request: Request) {
        if let Err(reason) = self.meet(&mut request) {
            return self.drop_all(reason, request.count);
        }
        let reservation = match self.find(&request) {
            Found::Session(id) => return self.forward(id, request),
            Found::Newcomer(reservation) => reservation,
            Found::Nowhere(reason) => return self.drop_all(reason, request.count),
        };
        // At once: a flood shall not have buffers.
        if self.worker.gates.free(self.index) == 0 {
            return self.drop_all(DropReason::MaxSessions, request.count);
        }
        if self.newcomers.len() >= NEWCOMERS_MAX {
            return self.drop_all(DropReason::Burst, request.count);
        }
        self.newcomers.push_back(Newcomer { request, reservation });
    }

    /// The same for a client whose session has just ended: it is no newcomer, and does not stand in line with a flood.
    pub(super) fn place_again(&mut self, request: Request) {
        match self.find(&request) {
            Found::Session(id) => self.forward(id, request),
            Found::Newcomer(reservation) => self.admit(Newcomer { request, reservation }),
            Found::Nowhere(reason) => self.drop_all(reason, request.count),
        }
    }

    fn find(&self, request: &Request) -> Found {
        let client = request.client().ip();
        let may_open = || self.listener().access.permits(client);
        let reservation = match self.listener().udp.affinity {
            Affinity::Session | Affinity::ClientIp => None,
            Affinity::None if !may_open() => return Found::Nowhere(DropReason::Denied),
            Affinity::None => match self.reserve(client, &Tried::default()) {
                Ok(reservation) => Some(reservation),
                Err(reason) => return Found::Nowhere(reason),
            },
        };
        match self.session_of(request, reservation.as_ref()) {
            Some(id) => Found::Session(id),
            None if self.worker.orders.is_stopping() => Found::Nowhere(DropReason::Draining),
            // Whether its client may is asked of the one before it.
            None if request.met == Met::InSession => Found::Newcomer(reservation),
            // Before it waits: a flood shall not have buffers.
            None if !may_open() => Found::Nowhere(DropReason::Denied),
            None => Found::Newcomer(reservation),
        }
    }

    /// The session that a datagram belongs to, if it is open.
    fn session_of(&self, request: &Request, reservation: Option<&Reservation>) -> Option<Id> {
        let key = sender_key(request, reservation);
        let key = match self.named_in_each(request) {
            Some(named) => key.of_named(self.names.find(named.client)?),
            None => key,
        };
        self.table.find(&key)
    }

    /// Whom its sender named in front of it, where one sender's datagrams may be of many clients.
    fn named_in_each(&self, request: &Request) -> Option<Named> {
        let proxy = self.listener().preface.proxy.as_ref()?;
        request.named().filter(|_| proxy.each_datagram)
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
        let Newcomer { request, reservation } = newcomer;
        // One that came behind another of the same client finds its session.
        let id = match self.session_of(&request, reservation.as_ref()) {
            Some(id) => Ok(id),
            // The one with the header opened none.
            None if request.met == Met::InSession => Err(DropReason::BadProxyHeader),
            None => self.open(&request, reservation),
        };
        match id {
            Ok(id) => self.forward(id, request),
            Err(reason) => self.drop_all(reason, request.count),
        }
    }

    fn open(&mut self, request: &Request, reservation: Option<Reservation>) -> Result<Id, DropReason> {
        let &Request { front, from, .. } = request;
        let to = request.arrived.to;
        if self.is_own(from, to) {
            return Err(DropReason::Loop);
        }
        let permit = self.worker.gates.admit(self.index).ok_or(DropReason::MaxSessions)?;
        let address = request.client().ip();
        let client = match &self.worker.clients[self.index] {
            Some(clients) => {
                let client = clients.open(address, self.worker.moment());
                Some(client.map_err(|_| DropReason::ClientSessions)?)
            }
            None => None,
        };
        let key = sender_key(request, reservation.as_ref());
        // Named before it is opened: the socket needs the name.
        let id = self.table.next_id();
        let upstream = match reservation {
            Some(reservation) => self
                .connect(reservation, (address, front), id)
                .map_err(|(reason, _)| reason)?,
            None => self.choose((address, front), &Tried::default(), id)?,
        };
        let booked = Booked::begin(&self.worker, self.index);
        booked.note(|entry| {
            entry.client = Some(Inet(request.client()));
            if request.named().is_some() {
                entry.seldom().proxy = Some(Inet(from));
            }
            entry.backend = Some(upstream.backend().clone());
            entry.tries = 1;
        });
        let name = self.named_in_each(request).map(|named| self.names.take(named.client));
        let key = name.as_ref().map_or(key, |name| key.of_named(name.number()));
        let proxied = Proxied::new(request.named(), name, self.own_header(&booked, request));
        let ours = to.filter(|_| self.sockets[usize::from(front)].is_wildcard);
        let session = Session::new(upstream, booked, permit, (client, proxied), (front, ours));
        let opened = self.table.open(key, session, now(&self.worker));
        assert_eq!(opened, id, "a session has another name than was foretold");
        Ok(id)
    }

    /// What backends are told of a new session, if anything.
    fn own_header(&self, booked: &Booked, request: &Request) -> Option<(Box<[u8]>, SendProxy)> {
        let send = self.pool().send_proxy?;
        let told = request.named().unwrap_or_else(|| {
            let Front {
                is_wildcard, address, ..
            } = self.sockets[usize::from(request.front)];
            let ip = request.arrived.to.filter(|_| is_wildcard);
            Named {
                client: request.from,
                destination: SocketAddr::new(ip.unwrap_or_else(|| address.ip()), address.port()),
            }
        });
        let id = if send.unique_id {
            self.worker.next_id()
        } else {
            String::new()
        };
        let header = header(send, told, &id);
        if send.unique_id {
            booked.note(|entry| entry.seldom().id = Some(id.into_boxed_str()));
        }
        Some((header, send))
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
        let (pool, key) = (self.listener().only_pool(), ClientKey::from(client));
        match self.worker.choose(self.index, pool, key, tried) {
            Ok(choice) => Ok(choice.reservation),
            Err(NoChoice::Exhausted | NoChoice::OnTrial) => Err(DropReason::NoBackend),
            Err(NoChoice::Full) => Err(DropReason::BackendsFull),
        }
    }

    /// Opens a socket to a backend that is chosen; others are tried where there is no way to it.
    pub(super) fn choose(&self, (client, front): (IpAddr, u16), tried: &Tried, id: Id) -> Result<Upstream, DropReason> {
        let mut tried = *tried;
        let (mut left, mut failed) = (self.pool().tries, DropReason::NoBackend);
        while left > 0 {
            let reservation = match self.reserve(client, &tried) {
                Ok(reservation) => reservation,
                Err(DropReason::NoBackend) => return Err(failed),
                Err(reason) => return Err(reason),
            };
            let is_new = tried.insert(reservation.backend().index);
            match self.connect(reservation, (client, front), id) {
                Ok(upstream) => return Ok(upstream),
                Err((reason, Tries::PassedOver)) => {
                    failed = reason;
                    if !is_new {
                        break;
                    }
                }
                Err((reason, Tries::Others)) => (left, failed) = (left - 1, reason),
                Err((reason, Tries::End)) => return Err(reason),
            }
        }
        Err(failed)
    }

    /// Opens a socket to this backend.
    fn connect(
        &self,
        reservation: Reservation,
        (client, front): (IpAddr, u16),
        id: Id,
    ) -> Result<Upstream, (DropReason, Tries)> {
        let worker = &self.worker;
        let backend = reservation.backend().clone();
        let Address::Inet(mut address) = backend.address else {
            return Err((DropReason::NoBackend, Tries::Others));
        };
        let listener = self.listener();
        if listener.udp.keep_port {
            address.set_port(self.sockets[usize::from(front)].address.port());
        }
        let options = DatagramOptions {
            receive_buffer: listener.udp.receive_buffer,
            ..DatagramOptions::default()
        };
        let time = worker.handle.now();
        // By the session's number, so that all are used.
        let Ok(source) = source(self.pool(), address.ip(), Some(client), id.pack()) else {
            tell_passed_over(self.pool(), &backend, Some(client));
            backend.workers[worker.index].connect_errors[ConnectError::Local.index()].add(1);
            return Err((DropReason::LocalError, Tries::PassedOver));
        };
        let is_foreign = matches!(source, Some(Source::Foreign(_)));
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
                    is_fresh: true,
                })
            }
            // EAGAIN: the kernel found no local port (connect(2)).
            // Of a foreign source: it lacks the capability, or there is no way that such a datagram may take.
            Err(errno) if errno.is_local() || errno == Errno::AGAIN || is_foreign && errno.is_refusal() => {
                Err((DropReason::LocalError, Tries::End))
            }
            // No route: others may be reached.
            Err(_) => {
                worker
                    .observer
                    .met(listener.only_pool(), &backend, Report::ConnectFailed);
                Err((DropReason::NoBackend, Tries::Others))
            }
        }
    }
}

/// What its session is recognised by where no balancer names many clients; `reservation`: its backend, where each datagram is
/// balanced by itself.
fn sender_key(request: &Request, reservation: Option<&Reservation>) -> Key {
    let backend = reservation.map_or(Key::ANY_BACKEND, |it| it.backend().index.0 as u32);
    Key::new(request.from, request.front, backend)
}

/// Whether trying another backend may help.
enum Tries {
    Others,
    /// It costs no try: this client cannot be taken to that backend.
    PassedOver,
    End,
}
