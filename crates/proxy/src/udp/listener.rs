//! The task that serves a UDP listener: takes what arrives, finds or opens its session, passes it on.
//!
//! Established sessions come first: what would open a session waits until everything else that came with it is passed on,
//! and what is too much of it is dropped. Nothing is ever answered by us. Owns the table of sessions; decides nothing that
//! `ringway_core::session` can decide.

use super::Bound;
use super::own::Own;
use super::session::{Session, Upstream, datagrams, onward};
use super::train::{Sent, Train, Way};
use crate::session::Session as Booked;
use crate::state::WorkerState;
use ringway_core::backend::Reservation;
use ringway_core::balance::{ClientKey, NoChoice, Tried};
use ringway_core::health::Report;
use ringway_core::model::{Address, Affinity, Listener, OnBackendDown, Pool};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::{Clients, Closed, Id, Key, Table};
use ringway_runtime::{Arrived, DatagramOptions, DatagramSocket, Datagrams, Errno, Event, Handle, Leases, Sleep, Time};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Arrivals of one poll; then other tasks have their turn.
const ARRIVALS_MAX: usize = 1_024;
/// Sessions that are opened in one poll: each costs a socket.
const OPENED_MAX: usize = 64;
/// Datagrams that wait to open a session; they hold buffers.
const NEWCOMERS_MAX: usize = 256;

/// A datagram that would open a session.
#[derive(Debug)]
struct Newcomer {
    key: Key,
    from: SocketAddr,
    arrived: Arrived,
    leases: Leases,
    /// Its backend, where each datagram is balanced by itself.
    reservation: Option<Reservation>,
}

/// One listener of one worker.
struct Relay {
    worker: Rc<WorkerState>,
    index: usize,
    datagrams: Datagrams,
    sockets: Vec<Front>,
    own: Own,
    table: Table<Session, RandomState>,
    clients: Option<Arc<Clients<RandomState>>>,
    newcomers: VecDeque<Newcomer>,
    /// Towards clients, by bound socket.
    answers: Train<u16>,
    wake: Option<(Time, Sleep)>,
}

/// A bound socket.
#[derive(Debug)]
struct Front {
    socket: DatagramSocket,
    /// Answers must say which address they come from: it has several.
    is_wildcard: bool,
    /// Datagrams that the kernel had dropped when it last said so.
    dropped: u32,
}

/// The bound sockets of a listener, and the queue that they feed.
#[derive(Debug)]
pub struct Fronts {
    datagrams: Datagrams,
    sockets: Vec<Front>,
}

impl Fronts {
    /// The `n`-th socket has the key [`front_key`] of `n`.
    pub fn new(datagrams: Datagrams, sockets: Vec<(DatagramSocket, SocketAddr)>) -> Self {
        let front = |(socket, address): (DatagramSocket, SocketAddr)| Front {
            socket,
            is_wildcard: address.ip().is_unspecified(),
            dropped: 0,
        };
        Self {
            datagrams,
            sockets: sockets.into_iter().map(front).collect(),
        }
    }

    pub(crate) fn adopt(handle: &Handle, sockets: Vec<Bound>) -> Self {
        let datagrams = handle.datagrams();
        let adopt = |(n, (socket, address)): (usize, Bound)| {
            let adopted = datagrams.adopt(socket, address.is_ipv6(), front_key(n));
            (adopted, address)
        };
        let sockets = sockets.into_iter().enumerate().map(adopt).collect();
        Self::new(datagrams, sockets)
    }
}

/// Serves until told to stop and the last session has ended. `clients`: the bounds on client addresses, shared by all
/// workers; `own`: addresses that nothing may come from.
pub async fn serve(
    worker: Rc<WorkerState>,
    index: usize,
    fronts: Fronts,
    own: Vec<SocketAddr>,
    clients: Option<Arc<Clients<RandomState>>>,
) {
    let Fronts { datagrams, sockets } = fronts;
    let rules = worker.snapshot.model.listeners[index].udp.rules;
    let mut relay = Relay {
        table: Table::new(rules, RandomState::new(), now(&worker)),
        datagrams,
        worker,
        index,
        sockets,
        own: Own::new(own),
        clients,
        newcomers: VecDeque::new(),
        answers: Train::new(),
        wake: None,
    };
    poll_fn(|context| relay.poll(context)).await;
}

/// Keys of bound sockets count down from the top; those of sessions are their packed ids.
pub const fn front_key(n: usize) -> u64 {
    u64::MAX - n as u64
}

fn now(worker: &WorkerState) -> Duration {
    Duration::from_nanos(worker.handle.now().as_nanos())
}

impl Drop for Relay {
    /// Also when it panics. Its task is still in the table now: the main task looks in the turn after this one.
    fn drop(&mut self) {
        self.worker.wake_main();
    }
}

impl Relay {
    fn listener(&self) -> &Listener {
        &self.worker.snapshot.model.listeners[self.index]
    }

    fn pool(&self) -> &Pool {
        &self.worker.snapshot.model.pools[self.listener().pool.0]
    }

    fn drop_for(&self, reason: DropReason) {
        self.worker.stats.listeners[self.index].dropped[reason.index()].add(1);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut left = ARRIVALS_MAX;
        while left > 0
            && let Poll::Ready((key, event)) = self.datagrams.poll_next(context)
        {
            left -= 1;
            self.handle(key, event);
        }
        if let Some(last) = self.answers.take() {
            self.send_answer(last);
        }
        self.admit_newcomers();
        if left == 0 || !self.newcomers.is_empty() {
            context.waker().wake_by_ref();
        }
        while let Some(Closed { entry, .. }) = self.table.expire(now(&self.worker)) {
            entry.state.end(EndReason::SessionTimeout);
        }
        if self.worker.orders.is_resetting() {
            self.close_all(EndReason::DrainDeadline);
        }
        if self.worker.orders.is_stopping() && self.table.is_empty() {
            return Poll::Ready(());
        }
        self.sleep(context);
        Poll::Pending
    }

    /// Has itself polled when the next session may be over.
    fn sleep(&mut self, context: &mut Context<'_>) {
        let Some(deadline) = self.table.next_deadline() else {
            self.wake = None;
            return;
        };
        let deadline = Time::from_nanos(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
        if self.wake.as_ref().is_none_or(|(at, _)| *at != deadline) {
            self.wake = Some((deadline, self.worker.handle.sleep_until(deadline)));
        }
        if let Some((_, sleep)) = &mut self.wake
            && Pin::new(sleep).poll(context).is_ready()
        {
            self.wake = None;
            context.waker().wake_by_ref();
        }
    }

    fn handle(&mut self, key: u64, event: Event) {
        let front = (u64::MAX - key) as usize;
        if front < self.sockets.len() {
            match event {
                Event::Datagram(arrived, leases) => self.request(front as u16, arrived, leases),
                // Of an answer to a client: nobody is held responsible for what a client's host says.
                Event::Failed(_) => {}
                Event::SendFailed(errno) => self.drop_for(sending(errno)),
                Event::Ended(errno) => panic!("a listening socket receives no more: {errno}"),
            }
            return;
        }
        let id = Id::unpack(key);
        match event {
            Event::Datagram(arrived, leases) => self.response(id, &arrived, leases),
            Event::Failed(errno) => self.failed(id, errno),
            Event::SendFailed(errno) if errno.is_of_network() => {
                self.drop_for(DropReason::SendFailed);
                self.failed(id, errno);
            }
            Event::SendFailed(errno) => self.drop_for(sending(errno)),
            Event::Ended(_) => self.close(id, EndReason::LocalError),
        }
    }

    /// A client's datagram.
    fn request(&mut self, front: u16, arrived: Arrived, leases: Leases) {
        self.count_kernel_drops(front, &arrived);
        let Some(from) = arrived.from else { return };
        if arrived.truncated {
            return self.drop_for(DropReason::Truncated);
        }
        if self.own.has(from, arrived.to) {
            return self.drop_for(DropReason::Loop);
        }
        let (key, reservation) = match self.listener().udp.affinity {
            Affinity::Session | Affinity::ClientIp => (Key::new(from, front, Key::ANY_BACKEND), None),
            Affinity::None => match self.reserve(from.ip(), &Tried::default()) {
                Ok(reservation) => {
                    let backend = reservation.backend().index.0 as u32;
                    (Key::new(from, front, backend), Some(reservation))
                }
                Err(reason) => return self.drop_for(reason),
            },
        };
        if let Some(id) = self.table.find(&key) {
            return self.forward(id, &arrived, leases);
        }
        if self.worker.orders.is_stopping() {
            return self.drop_for(DropReason::MaxSessions);
        }
        if self.newcomers.len() >= NEWCOMERS_MAX {
            return self.drop_for(DropReason::Burst);
        }
        self.newcomers.push_back(Newcomer {
            key,
            from,
            arrived,
            leases,
            reservation,
        });
    }

    fn count_kernel_drops(&mut self, front: u16, arrived: &Arrived) {
        let front = &mut self.sockets[usize::from(front)];
        if let Some(dropped) = arrived.dropped {
            let more = dropped.wrapping_sub(front.dropped);
            front.dropped = dropped;
            let stats = &self.worker.stats.listeners[self.index];
            stats.dropped[DropReason::ReceiveFull.index()].add(more.into());
        }
    }

    fn admit_newcomers(&mut self) {
        for _ in 0..OPENED_MAX {
            let Some(Newcomer {
                key,
                from,
                arrived,
                leases,
                reservation,
            }) = self.newcomers.pop_front()
            else {
                return;
            };
            // One that came behind another of the same client finds its session.
            let id = match self.table.find(&key) {
                Some(id) => Some(id),
                None => match self.open(key, from, &arrived, reservation) {
                    Ok(id) => Some(id),
                    Err(reason) => {
                        self.drop_for(reason);
                        None
                    }
                },
            };
            if let Some(id) = id {
                self.forward(id, &arrived, leases);
            }
        }
    }

    fn open(
        &mut self,
        key: Key,
        from: SocketAddr,
        arrived: &Arrived,
        reservation: Option<Reservation>,
    ) -> Result<Id, DropReason> {
        let permit = self.worker.gates.admit(self.index).ok_or(DropReason::MaxSessions)?;
        let client = match &self.clients {
            Some(clients) => Some(clients.open(from.ip()).map_err(|_| DropReason::ClientSessions)?),
            None => None,
        };
        // Named before it is opened: the socket needs the name.
        let id = self.table.next_id();
        let upstream = self.choose(from.ip(), &Tried::default(), id, reservation)?;
        let booked = Booked::begin(&self.worker, self.index);
        booked.note(|entry| {
            entry.client = Some(ringway_runtime::Address::Inet(from));
            entry.backend = Some(upstream.backend().clone());
            entry.tries = 1;
        });
        let front = &self.sockets[usize::from(key.socket())];
        let ours = arrived.to.filter(|_| front.is_wildcard);
        let session = Session::new(upstream, booked, permit, client, (key.socket(), ours));
        let opened = self.table.open(key, session, now(&self.worker));
        assert_eq!(opened, id, "a session has another name than was foretold");
        Ok(id)
    }

    /// Chooses a backend.
    fn reserve(&self, client: IpAddr, tried: &Tried) -> Result<Reservation, DropReason> {
        let (pool, key) = (self.listener().pool, ClientKey::from(client));
        match self.worker.choose(self.index, pool, key, tried) {
            Ok(choice) => Ok(choice.reservation),
            Err(NoChoice::Exhausted | NoChoice::OnTrial) => Err(DropReason::NoBackend),
            Err(NoChoice::Full) => Err(DropReason::MaxSessions),
        }
    }

    /// Opens a socket to a backend, `chosen` or to be chosen; others are tried where there is no way to it.
    fn choose(
        &self,
        client: IpAddr,
        tried: &Tried,
        id: Id,
        mut chosen: Option<Reservation>,
    ) -> Result<Upstream, DropReason> {
        let worker = &self.worker;
        let mut tried = *tried;
        for _ in 0..self.pool().tries {
            let reservation = match chosen.take() {
                Some(chosen) => chosen,
                None => self.reserve(client, &tried)?,
            };
            let backend = reservation.backend().clone();
            tried.insert(backend.index);
            let Address::Inet(address) = backend.address else {
                return Err(DropReason::NoBackend);
            };
            let options = DatagramOptions {
                receive_buffer: self.listener().udp.receive_buffer,
                send_buffer: 0,
            };
            match self.datagrams.connect(address, None, &options, id.pack()) {
                Ok(socket) => {
                    backend.workers[worker.index].connections_total.add(1);
                    return Ok(Upstream {
                        reservation,
                        socket,
                        chosen: worker.shared_nanos(worker.handle.now()),
                        failed: false,
                    });
                }
                Err(errno) if errno.is_local() => return Err(DropReason::LocalError),
                // No route: others may be reached.
                Err(_) => worker
                    .observer
                    .met(self.listener().pool, &backend, Report::ConnectFailed),
            }
        }
        Err(DropReason::NoBackend)
    }

    /// Passes a client's datagram on in its session.
    fn forward(&mut self, id: Id, arrived: &Arrived, leases: Leases) {
        let time = now(&self.worker);
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.state.client.as_ref().is_some_and(|client| !client.may_send(time)) {
            return self.drop_for(DropReason::Rate);
        }
        let (is_left, unanswered) = (entry.state.upstream.failed, entry.unanswered(time));
        if !is_left && self.pool().health.silence.is_some_and(|silence| unanswered >= silence) {
            self.lost(id);
        }
        let Some(entry) = self.table.get(id) else { return };
        if entry.state.upstream.is_to_be_left() && !self.leave(id) {
            return self.drop_for(DropReason::NoBackend);
        }
        let Some(entry) = self.table.get_mut(id) else { return };
        let session = &mut entry.state;
        session.count_request(leases.bytes(), datagrams(arrived, leases.bytes()));
        session.upstream.socket.send(leases, &onward(arrived, None, None));
        self.table.request(id, time);
    }

    /// The backend of a session is not to be used any more. `false`: the session has no other; its client's datagrams are
    /// lost for now.
    fn leave(&mut self, id: Id) -> bool {
        match self.pool().sessions.on_backend_down {
            OnBackendDown::Keep => return true,
            OnBackendDown::Close => {
                self.close(id, EndReason::BackendDown);
                return false;
            }
            // Nothing stays with a backend: the next datagram chooses by itself.
            OnBackendDown::Move if self.listener().udp.affinity == Affinity::None => {
                self.close(id, EndReason::BackendDown);
                return false;
            }
            OnBackendDown::Move => {}
        }
        let Some(entry) = self.table.get(id) else { return false };
        let mut tried = Tried::default();
        if entry.state.upstream.failed {
            tried.insert(entry.state.upstream.backend().index);
        }
        let client = entry.key.client().ip();
        let Ok(upstream) = self.choose(client, &tried, id, None) else {
            return false;
        };
        let Some(entry) = self.table.get_mut(id) else {
            return false;
        };
        let backend = upstream.backend().clone();
        entry.forgive();
        entry.state.upstream = upstream;
        entry.state.booked.note(|entry| {
            entry.tries = entry.tries.saturating_add(1);
            entry.backend = Some(backend);
        });
        self.worker.stats.listeners[self.index].moved.add(1);
        true
    }

    /// A backend's datagram.
    fn response(&mut self, id: Id, arrived: &Arrived, leases: Leases) {
        let Some(entry) = self.table.get_mut(id) else {
            return self.drop_for(DropReason::Late);
        };
        let first = entry.responses == 0;
        let client = entry.key.client();
        let session = &mut entry.state;
        session.count_response(leases.bytes(), datagrams(arrived, leases.bytes()));
        let way = Way {
            socket: session.socket,
            departure: onward(arrived, Some(client), session.ours),
        };
        let backend = session.upstream.backend();
        if first && backend.orders.take_watch() {
            let pool = self.worker.snapshot.model.listeners[self.index].pool;
            self.worker.observer.met(pool, backend, Report::Answered);
        }
        if let Some(before) = self.answers.add(way, leases) {
            self.send_answer(before);
        }
        if self.table.response(id, now(&self.worker)) {
            self.close(id, EndReason::Finished);
        }
    }

    fn send_answer(&self, (way, leases): Sent<u16>) {
        let front = &self.sockets[usize::from(way.socket)];
        front.socket.send(leases, &way.departure);
    }

    /// The network says that a session's backend is not there.
    fn failed(&mut self, id: Id, errno: Errno) {
        if errno.is_refused() || errno.is_unreachable() {
            self.lost(id);
        }
    }

    /// A session has lost its backend, which is told once.
    fn lost(&mut self, id: Id) {
        let pool = self.listener().pool;
        let Some(entry) = self.table.get_mut(id) else { return };
        let upstream = &mut entry.state.upstream;
        if !upstream.failed {
            upstream.failed = true;
            upstream.reservation.leave_trial();
            self.worker
                .observer
                .met(pool, upstream.backend(), Report::ConnectFailed);
        }
    }

    fn close(&mut self, id: Id, reason: EndReason) {
        if let Some(Closed { entry, .. }) = self.table.close(id) {
            entry.state.end(reason);
        }
    }

    fn close_all(&mut self, reason: EndReason) {
        let ids: Vec<Id> = self.table.ids().collect();
        ids.into_iter().for_each(|id| self.close(id, reason));
    }
}

/// Why a datagram could not be sent.
const fn sending(errno: Errno) -> DropReason {
    if errno.is_local() || errno.0 == Errno::AGAIN.0 {
        DropReason::SendFull
    } else {
        DropReason::SendFailed
    }
}
