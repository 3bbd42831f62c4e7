//! The task that serves a UDP listener: takes what arrives, finds or opens its session, passes it on.
//!
//! Established sessions come first: what would open a session waits until everything else that came with it is passed on,
//! and what is too much of it is dropped. Nothing is ever answered by us. Owns the table of sessions; decides nothing that
//! `ringway_core::session` can decide.

use super::Bound;
use super::loss::{Settled, to_end};
use super::open::{Newcomer, Request};
use super::own::Own;
use super::proxied::{Met, is_too_long};
use super::session::{Session, datagrams, onward};
use super::train::{Sent, Train, Way};
use crate::state::WorkerState;
use ringway_core::health::Report;
use ringway_core::model::{Balance, Listener, Pool};
use ringway_core::reason::{DropReason, EndReason};
use ringway_core::session::{Closed, Entry, Id, Key, Names, Table};
use ringway_runtime::{Arrived, DatagramSocket, Datagrams, Departure, Errno, Event, Handle, Leases, Sleep, Time};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Arrivals of one poll; then other tasks have their turn.
const ARRIVALS_MAX: usize = 1_024;
/// Sessions that end in one poll because their time is over: each closes a socket.
const EXPIRED_MAX: usize = 256;
/// How often a worker without sessions looks, while it stops, whether others still have some.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// One listener of one worker.
pub(super) struct Relay {
    pub(super) worker: Rc<WorkerState>,
    pub(super) index: usize,
    pub(super) datagrams: Datagrams,
    pub(super) sockets: Vec<Front>,
    pub(super) own: Rc<Own>,
    pub(super) table: Table<Session, RandomState>,
    pub(super) newcomers: VecDeque<Newcomer>,
    /// Clients that balancers name in front of each datagram.
    pub(super) names: Names<RandomState>,
    /// Towards clients, by bound socket.
    answers: Train<u16>,
    wake: Option<(Time, Sleep)>,
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct Front {
    socket: DatagramSocket,
    /// Answers must say which address they come from: it has several.
    pub(super) is_wildcard: bool,
    /// Where it listens.
    pub(super) address: SocketAddr,
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
            address,
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

/// Serves until told to stop and the last session has ended. `own`: addresses that nothing may come from.
pub async fn serve(worker: Rc<WorkerState>, index: usize, fronts: Fronts, own: Rc<Own>) {
    let Fronts { datagrams, sockets } = fronts;
    let rules = worker.snapshot.model.listeners[index].udp.rules;
    let mut relay = Relay {
        table: Table::new(rules, RandomState::new(), now(&worker)),
        datagrams,
        worker,
        index,
        sockets,
        own,
        newcomers: VecDeque::new(),
        names: Names::new(RandomState::new()),
        answers: Train::new(),
        wake: None,
    };
    poll_fn(|context| relay.poll(context)).await;
}

/// Keys of bound sockets count down from the top; those of sessions are their packed ids.
pub const fn front_key(n: usize) -> u64 {
    u64::MAX - n as u64
}

pub(super) fn now(worker: &WorkerState) -> Duration {
    Duration::from_nanos(worker.handle.now().as_nanos())
}

impl Drop for Relay {
    /// Also when it panics. Its task is still in the table now: the main task looks in the turn after this one.
    fn drop(&mut self) {
        self.worker.wake_main();
    }
}

impl Relay {
    pub(super) fn listener(&self) -> &Listener {
        &self.worker.snapshot.model.listeners[self.index]
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.worker.snapshot.model.pools[self.listener().only_pool().0]
    }

    fn drop_for(&self, reason: DropReason) {
        self.drop_all(reason, 1);
    }

    /// Counts as many datagrams, a train's, that go nowhere.
    pub(super) fn drop_all(&self, reason: DropReason, count: u64) {
        self.worker.stats.listeners[self.index].dropped[reason.index()].add(count);
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
        if self.expire() {
            context.waker().wake_by_ref();
        }
        if self.worker.orders.is_resetting() {
            self.close_all(EndReason::DrainDeadline);
        }
        // Not before the other workers' sessions are over: with one socket less at this address the kernel would send
        // their clients' datagrams to other sockets than before (SO_REUSEPORT).
        if self.worker.orders.is_stopping() && self.worker.gates.open(self.index) == 0 {
            return Poll::Ready(());
        }
        self.sleep(context);
        Poll::Pending
    }

    /// Ends sessions whose time is over. `true`: there may be more.
    fn expire(&mut self) -> bool {
        let (worker, index) = (self.worker.clone(), self.index);
        let model = &worker.snapshot.model;
        let pool = &model.pools[model.listeners[index].only_pool().0];
        let (time, moment) = (now(&worker), worker.moment());
        for _ in 0..EXPIRED_MAX {
            let to_end = |entry: &Entry<Session>| to_end(entry, pool, time, moment);
            let Some((Closed { entry, .. }, reason)) = self.table.expire(time, to_end) else {
                return false;
            };
            self.trial_over(&entry.state, entry.unanswered(time));
            entry.state.end(reason);
        }
        true
    }

    /// Has itself polled when the next session may be over.
    fn sleep(&mut self, context: &mut Context<'_>) {
        let deadline = self.table.next_deadline();
        let deadline = deadline.map(|at| Time::from_nanos(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)));
        // Nobody tells when the last session of another worker is over.
        let look = || self.worker.handle.now() + LOOK_INTERVAL;
        let waits = self.worker.orders.is_stopping() && self.table.is_empty();
        let Some(deadline) = deadline.or_else(|| waits.then(look)) else {
            self.wake = None;
            return;
        };
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
                Event::TrainRefused(departure, leases) => self.answer_apart(front as u16, departure, leases),
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
            Event::TrainRefused(departure, leases) => self.forward_apart(id, departure, leases),
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
        self.place(Request {
            front,
            from,
            count: datagrams(&arrived, leases.bytes()),
            is_metered: false,
            met: Met::Not,
            first: None,
            arrived,
            leases,
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

    /// Passes a client's datagram on in its session.
    pub(super) fn forward(&mut self, mut id: Id, mut request: Request) {
        let time = now(&self.worker);
        let Some(entry) = self.table.get(id) else { return };
        // Before anything that costs more than this, and once for each.
        if let Some(client) = entry.state.client.as_ref().filter(|_| !request.is_metered)
            && !client.may_send(request.count, self.worker.moment())
        {
            return self.drop_all(DropReason::Rate, request.count);
        }
        request.is_metered = true;
        match self.settle(id, time) {
            Settled::Here(settled) => id = settled,
            Settled::Nowhere(reason) => return self.drop_all(reason, request.count),
            Settled::Over(reason) => {
                self.part(id, &mut request);
                self.close(id, reason);
                return self.place_again(request);
            }
        }
        let Some(entry) = self.table.get_mut(id) else { return };
        let session = &mut entry.state;
        let Request {
            count,
            arrived,
            leases,
            first,
            ..
        } = request;
        let Session { upstream, proxied, .. } = session;
        let prefix = proxied.as_ref().and_then(|it| it.prefix(upstream.is_fresh));
        let mut departure = onward(&arrived, upstream.apart, None, None);
        if let Some(prefix) = prefix
            && is_too_long(prefix, arrived.segment.map_or(u32::MAX, u32::from).min(leases.bytes()))
        {
            return self.drop_all(DropReason::TooLong, count);
        }
        // Its datagrams are of different lengths now.
        departure.apart |= prefix.is_some() || first.is_some();
        departure.first = first;
        let bytes = leases.bytes();
        upstream.socket.send_behind(prefix, leases, &departure);
        upstream.is_fresh = false;
        session.count_request(bytes, count);
        self.table.request(id, count, time);
    }

    /// A session is over before its client's datagram could go on in it: the next one is the same client's.
    fn part(&self, id: Id, request: &mut Request) {
        if request.met == Met::InSession
            && let Some(entry) = self.table.get(id)
        {
            request.met = entry.state.named().map_or(Met::Sender, Met::Named);
        }
    }

    /// A backend's datagram.
    fn response(&mut self, id: Id, arrived: &Arrived, leases: Leases) {
        let Some(entry) = self.table.get_mut(id) else {
            return self.drop_for(DropReason::Late);
        };
        let sender = entry.key.sender();
        let waited = entry.unanswered(now(&self.worker));
        let session = &mut entry.state;
        let count = datagrams(arrived, leases.bytes());
        session.count_response(leases.bytes(), count);
        let way = Way {
            socket: session.socket,
            departure: onward(arrived, session.apart, Some(sender), session.ours),
        };
        let pool = self.worker.snapshot.model.listeners[self.index].only_pool();
        if !session.upstream.answered {
            session.backend_stats().first_byte_seconds.observe(waited);
        }
        let upstream = &mut session.upstream;
        (upstream.failed, upstream.answered) = (false, true);
        if let Some(dropped) = arrived.dropped {
            let more = dropped.wrapping_sub(upstream.dropped);
            upstream.dropped = dropped;
            let stats = &self.worker.stats.listeners[self.index];
            stats.dropped[DropReason::ReceiveFull.index()].add(more.into());
        }
        let backend = upstream.backend();
        // What it sends by itself says nothing of how fast it answers.
        let is_timed = self.worker.snapshot.model.pools[pool.0].balance == Balance::LeastResponseTime;
        if is_timed && !waited.is_zero() {
            backend.note_response(waited, self.worker.moment());
        }
        if backend.orders.take_watch() {
            self.worker.observer.met(pool, backend, Report::Answered);
        }
        if let Some(before) = self.answers.add(way, leases) {
            self.send_answer(before);
        }
        if self.table.response(id, count, now(&self.worker)) {
            self.close(id, EndReason::Finished);
        }
    }

    fn send_answer(&self, (way, leases): Sent<u16>) {
        let front = &self.sockets[usize::from(way.socket)];
        front.socket.send(leases, &way.departure);
    }

    /// A train towards a backend was refused: it and those behind it leave as single datagrams.
    fn forward_apart(&mut self, id: Id, departure: Departure, leases: Leases) {
        let Some(entry) = self.table.get_mut(id) else {
            return self.drop_for(DropReason::SendFailed);
        };
        let upstream = &mut entry.state.upstream;
        upstream.apart = true;
        upstream.socket.send(
            leases,
            &Departure {
                apart: true,
                ..departure
            },
        );
    }

    /// The same towards a client.
    fn answer_apart(&mut self, front: u16, departure: Departure, leases: Leases) {
        let key = departure.to.map(|sender| Key::new(sender, front, Key::ANY_BACKEND));
        // Sessions that are not found so (balanced by datagram, of a named client, or over their `requests`) learn it anew
        // each time.
        let id = key.and_then(|key| self.table.find(&key));
        if let Some(entry) = id.and_then(|id| self.table.get_mut(id)) {
            entry.state.apart = true;
        }
        let socket = &self.sockets[usize::from(front)].socket;
        socket.send(
            leases,
            &Departure {
                apart: true,
                ..departure
            },
        );
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
