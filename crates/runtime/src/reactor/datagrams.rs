//! Datagrams: receives of many sockets that all feed one queue, and sends of which only failures are told.

use super::Reactor;
use super::op::{Kind, Phase, SocketSlot, keep};
use crate::buffer_ring::Links;
use crate::datagram::{Arrived, Departure, HEADER, Prefix, parse};
use crate::driver::Operation;
use crate::errno::{Errno, outcome};
use crate::slab::Token;
use std::collections::VecDeque;
use std::task::Waker;

/// What arrived at the sockets of one owner, in order for each of them.
#[derive(Default)]
pub(super) struct Queue {
    arrivals: VecDeque<(u64, Arrival)>,
    waker: Option<Waker>,
}

/// What arrived at a socket.
pub(crate) enum Arrival {
    Datagram(Arrived, Links),
    /// It goes on receiving.
    Failed(Errno),
    /// It receives no more.
    Ended(Errno),
    SendFailed(Errno),
    TrainRefused(Departure, Links),
}

impl Reactor {
    /// A queue, for one owner.
    pub(crate) fn open_queue(&mut self) -> Token {
        self.queues.insert(Queue::default())
    }

    /// Forgets what is in it. Sockets that still feed it feed nobody.
    pub(crate) fn close_queue(&mut self, queue: Token) {
        let Some(queue) = self.queues.remove(queue) else { return };
        for (_, arrival) in queue.arrivals {
            self.release_arrival(arrival);
        }
    }

    fn release_arrival(&self, arrival: Arrival) {
        if let Arrival::Datagram(_, links) | Arrival::TrainRefused(_, links) = arrival {
            self.release_from(true, links);
        }
    }

    /// The next arrival, with the key of its socket; otherwise the owner is woken by the next one.
    pub(crate) fn poll_queue(&mut self, queue: Token, waker: &Waker) -> Option<(u64, Arrival)> {
        let queue = self.queues.get_mut(queue)?;
        let next = queue.arrivals.pop_front();
        if next.is_none() {
            keep(&mut queue.waker, waker);
        }
        next
    }

    /// Receives datagrams of a socket from now on.
    pub(crate) fn receive_datagrams(&mut self, socket: &SocketSlot, queue: Token, key: u64) -> Token {
        let (token, fd) = self.begin(
            Kind::Datagrams {
                queue,
                key,
                phase: Phase::Armed,
            },
            Some(socket),
        );
        self.start(Operation::ReceiveDatagrams { fd }, token);
        token
    }

    /// Sends a datagram or a train, now or not at all. `receive`: the receive of the same socket.
    pub(crate) fn send_datagram(
        &mut self,
        (socket, is_ipv6, receive): (&SocketSlot, bool, Token),
        prefix: Option<Prefix<'_>>,
        links: Links,
        departure: &Departure,
    ) {
        if self.ended {
            self.release_from(true, links);
            return;
        }
        let (token, fd) = self.begin(Kind::SendDatagram { links, receive }, Some(socket));
        let op = self.ops.get_mut(token).expect("it was just inserted");
        if let Kind::SendDatagram { links, .. } = &op.kind {
            let operation = Operation::SendDatagram {
                fd,
                is_ipv6,
                prefix,
                links,
                departure,
            };
            self.driver.start(operation, token);
        }
        self.silent_sends.push(token);
        if departure.segment.is_some() && !departure.apart {
            self.trains.push((token, *departure));
        }
    }

    /// Something came in through a receive of datagrams.
    pub(super) fn datagram_completed(&mut self, token: Token, result: i32, more: bool, mut links: Links) {
        if links.bytes() >= HEADER as u32 {
            let ring = self.datagram_ring.clone().expect("it came in one of its buffers");
            let arrived = ring.slices(&links).next().and_then(parse);
            ring.advance(&mut links, HEADER as u32);
            match arrived {
                Some(arrived) => self.deliver(token, Arrival::Datagram(arrived, links)),
                None => ring.release(links),
            }
        } else {
            self.release_from(true, links);
        }
        if !more {
            self.datagrams_ended(token, result);
        }
    }

    fn deliver(&mut self, receive: Token, arrival: Arrival) {
        let queue = match self.ops.get_mut(receive).map(|op| &op.kind) {
            Some(&Kind::Datagrams { queue, key, .. }) => self.queues.get_mut(queue).map(|queue| (queue, key)),
            _ => None,
        };
        let Some((queue, key)) = queue else {
            self.release_arrival(arrival);
            return;
        };
        queue.arrivals.push_back((key, arrival));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// A multishot receive is over: a dry ring, an empty datagram, an error of the network, a reason of the kernel's own.
    fn datagrams_ended(&mut self, token: Token, result: i32) {
        self.finish(token, result);
        let result = outcome(result);
        let told = match result {
            Ok(_) | Err(Errno::CANCELED | Errno::NOBUFS) => None,
            Err(errno) if errno.is_of_network() => Some(Arrival::Failed(errno)),
            Err(errno) => Some(Arrival::Ended(errno)),
        };
        let is_over = matches!(told, Some(Arrival::Ended(_)));
        if let Some(told) = told {
            self.deliver(token, told);
        }
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Datagrams { phase, .. } = &mut op.kind else {
            return;
        };
        match result {
            _ if is_over => *phase = Phase::Ended,
            Err(Errno::NOBUFS) => {
                *phase = Phase::Starved;
                self.starved_datagrams.push_back(token);
                self.dry += 1;
                if let Some(ring) = &self.datagram_ring {
                    ring.ran_dry();
                }
            }
            _ => {
                *phase = Phase::Rearming;
                self.rearming.push(token);
            }
        }
    }

    /// Arms a receive again, unless its socket was given up meanwhile.
    pub(super) fn arm_datagrams(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(token) else { return };
        let Kind::Datagrams { phase, .. } = &mut op.kind else {
            return;
        };
        let Some(entry) = self.sockets.get_mut(op.socket).filter(|entry| entry.closing.is_none()) else {
            *phase = Phase::Ended;
            return;
        };
        *phase = Phase::Armed;
        op.in_flight = true;
        entry.in_flight += 1;
        let fd = entry.fd;
        self.driver.start(Operation::ReceiveDatagrams { fd }, token);
    }

    /// Arms as many of the receives that wait for buffers as there are buffers, oldest first.
    pub(super) fn feed_starved_datagrams(&mut self) {
        let mut room = self.datagram_ring.as_ref().map_or(0, |ring| ring.available());
        while room > 0 {
            let Some(token) = self.starved_datagrams.pop_front() else {
                break;
            };
            if self.ops.get_mut(token).is_some() {
                self.arm_datagrams(token);
                room -= 1;
            }
        }
    }

    /// A send failed.
    pub(super) fn datagram_not_sent(&mut self, token: Token, result: i32) {
        let Some(op) = self.ops.get_mut(token) else { return };
        op.orphaned = true;
        let Kind::SendDatagram { receive, links } = &mut op.kind else {
            return;
        };
        let receive = *receive;
        if let Err(errno) = outcome(result) {
            let train = self
                .trains
                .iter()
                .find(|(sent, _)| *sent == token && errno.refuses_train());
            let told = match train {
                Some(&(_, departure)) => Arrival::TrainRefused(departure, std::mem::replace(links, Links::EMPTY)),
                None => Arrival::SendFailed(errno),
            };
            self.deliver(receive, told);
        }
        self.finish(token, result);
    }
}
