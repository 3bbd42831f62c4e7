//! What is kept for a session, and where it is counted.

use super::proxied::{Named, Proxied};
use crate::session::Session as Booked;
use ringway_core::backend::{BackendState, Reservation};
use ringway_core::gate::Permit;
use ringway_core::reason::EndReason;
use ringway_core::session::policy::Cause;
use ringway_core::session::{Client, spread};
use ringway_core::stats::BackendStats;
use ringway_runtime::{Arrived, DatagramSocket, Departure};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A session's state; its timing is the table's.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) upstream: Upstream,
    /// Our address that the client spoke to: answers come from it. `None`: the socket has only one.
    pub(super) ours: Option<IpAddr>,
    /// Which bound socket answers leave through.
    pub(super) socket: u16,
    /// On the way to the client trains are refused.
    pub(super) apart: bool,
    /// Its share of the client's bounds, if there are any.
    pub(super) client: Option<Client>,
    pub(super) bytes_from_client: u64,
    pub(super) bytes_from_backend: u64,
    pub(super) datagrams_from_client: u64,
    pub(super) datagrams_from_backend: u64,
    pub(super) booked: Booked,
    /// Where a PROXY header says who the client is, to us or to backends.
    pub(super) proxied: Option<Box<Proxied>>,
    _permit: Permit,
}

/// The way to a backend; another one when the session moves.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) reservation: Reservation,
    pub(super) socket: DatagramSocket,
    /// When the backend was chosen, nanoseconds of the workers' clock.
    pub(super) chosen: u64,
    /// It was said that nobody is there.
    pub(super) failed: bool,
    /// It has answered this session.
    pub(super) answered: bool,
    /// Answers that the kernel had dropped when it last said so.
    pub(super) dropped: u32,
    /// On this way trains are refused.
    pub(super) apart: bool,
    /// Nothing has been sent yet.
    pub(super) is_fresh: bool,
}

impl Upstream {
    pub(super) fn backend(&self) -> &Arc<BackendState> {
        self.reservation.backend()
    }

    /// Whether it finds out if the backend is well again, and has not yet.
    pub(super) fn is_tried(&self) -> bool {
        self.reservation.is_trial() && !self.answered
    }

    /// Why this backend is to be left now, if it is. `moment`: now, on the clock of all workers.
    pub(super) fn cause(&self, moment: Duration) -> Option<Cause> {
        let ordered = self.backend().orders.closes(self.chosen);
        let ordered = ordered.and_then(|(ordered, reason)| match EndReason::ALL[reason] {
            EndReason::BackendDown => Some(Cause::Down),
            EndReason::BackendRemoved => Some(Cause::Removed),
            EndReason::Failback => {
                let (ordered, chosen) = (Duration::from_nanos(ordered), Duration::from_nanos(self.chosen));
                (spread::failback(ordered, chosen) <= moment).then_some(Cause::Failback)
            }
            _ => None,
        });
        // An order to go comes before what the session met itself: with `keep` it would stay for that.
        ordered.or_else(|| self.failed.then_some(Cause::Down))
    }
}

impl Session {
    pub(super) fn new(
        upstream: Upstream,
        booked: Booked,
        permit: Permit,
        (client, proxied): (Option<Client>, Option<Box<Proxied>>),
        (socket, ours): (u16, Option<IpAddr>),
    ) -> Self {
        Self {
            upstream,
            ours,
            socket,
            apart: false,
            client,
            bytes_from_client: 0,
            bytes_from_backend: 0,
            datagrams_from_client: 0,
            datagrams_from_backend: 0,
            booked,
            proxied,
            _permit: permit,
        }
    }

    /// Who the client of a session with this sender is.
    pub(super) fn client_of(&self, sender: SocketAddr) -> SocketAddr {
        self.named().map_or(sender, |named| named.client)
    }

    /// The client, if a balancer in front named it.
    pub(super) fn named(&self) -> Option<Named> {
        self.proxied.as_ref().and_then(|proxied| proxied.named)
    }

    pub(super) fn backend_stats(&self) -> &BackendStats {
        &self.upstream.backend().workers[self.booked.worker().index]
    }

    /// Counts what the client sent.
    pub(super) fn count_request(&mut self, bytes: u32, datagrams: u64) {
        self.bytes_from_client += u64::from(bytes);
        self.datagrams_from_client += datagrams;
        let (listener, backend) = (self.booked.stats(), self.backend_stats());
        listener.bytes_from_clients.add(bytes.into());
        listener.datagrams_from_clients.add(datagrams);
        backend.bytes_from_clients.add(bytes.into());
        backend.datagrams_from_clients.add(datagrams);
    }

    /// Counts what the backend sent.
    pub(super) fn count_response(&mut self, bytes: u32, datagrams: u64) {
        self.bytes_from_backend += u64::from(bytes);
        self.datagrams_from_backend += datagrams;
        let (listener, backend) = (self.booked.stats(), self.backend_stats());
        listener.bytes_from_backends.add(bytes.into());
        listener.datagrams_from_backends.add(datagrams);
        backend.bytes_from_backends.add(bytes.into());
        backend.datagrams_from_backends.add(datagrams);
    }

    /// Books its end.
    pub(super) fn end(self, reason: EndReason) {
        self.booked.note(|entry| {
            entry.bytes_from_client = self.bytes_from_client;
            entry.bytes_from_backend = self.bytes_from_backend;
            entry.datagrams = Some((self.datagrams_from_client, self.datagrams_from_backend));
        });
        self.booked.end(reason);
    }
}

/// DSCP without ECN: congestion marks concern each half of the way by itself (RFC 3168, section 5).
const DSCP: u8 = 0xfc;

/// How what `arrived` goes on: as the same train or `apart`, with the same DSCP.
pub(super) fn onward(arrived: &Arrived, apart: bool, to: Option<SocketAddr>, from: Option<IpAddr>) -> Departure {
    let class = arrived.class & DSCP;
    Departure {
        to,
        from,
        segment: arrived.segment,
        apart,
        first: None,
        class: (class != 0).then_some(class),
    }
}

/// Datagrams in what arrived.
pub(super) fn datagrams(arrived: &Arrived, bytes: u32) -> u64 {
    match arrived.segment {
        Some(segment) if segment > 0 => u64::from(bytes.div_ceil(u32::from(segment)).max(1)),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_counts_as_its_datagrams() {
        let arrived = |segment| Arrived {
            segment,
            ..Arrived::default()
        };
        for (segment, bytes, count) in [
            (None, 0, 1),
            (None, 65_507, 1),
            (Some(1_200), 9_600, 8),
            (Some(1_200), 9_601, 9),
            (Some(1_200), 1, 1),
            (Some(0), 5, 1),
        ] {
            assert_eq!(datagrams(&arrived(segment), bytes), count, "{segment:?} {bytes}");
        }
    }

    #[test]
    fn ecn_stays_behind_and_dscp_goes_on() {
        let arrived = |class| Arrived {
            class,
            ..Arrived::default()
        };
        assert_eq!(onward(&arrived(0xb8 | 3), false, None, None).class, Some(0xb8));
        assert_eq!(onward(&arrived(2), false, None, None).class, None);
    }
}
