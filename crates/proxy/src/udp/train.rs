//! Datagrams that follow each other on the same way are sent as one train: one pass through the kernel's stack instead of
//! one for each (UDP_SEGMENT, udp(7)). Nothing waits for it: a train is what has arrived by the end of a poll.

use ringway_runtime::{Departure, Leases, TRAIN_MAX};

/// Bytes of a train: what one datagram may have over IPv4.
const BYTES_MAX: u32 = 65_507;
/// Longer ones would not fit the MTU of most ways, and the kernel refuses to cut trains smaller than they are.
const SEGMENT_MAX: u32 = 1_472 - 20;

/// A way on which a datagram leaves: which socket, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way<S> {
    pub(super) socket: S,
    pub(super) departure: Departure,
}

/// The last datagram, or the train that it is the end of, kept until it is known what comes next.
#[derive(Debug)]
pub(super) struct Train<S> {
    kept: Option<Kept<S>>,
}

#[derive(Debug)]
struct Kept<S> {
    way: Way<S>,
    leases: Leases,
    /// Bytes of each datagram.
    segment: u32,
    count: u16,
    /// Its last datagram is shorter: nothing may follow.
    is_closed: bool,
}

/// What is to be sent.
pub(super) type Sent<S> = (Way<S>, Leases);

impl<S: Copy + PartialEq> Train<S> {
    pub(super) const fn new() -> Self {
        Self { kept: None }
    }

    /// Adds what leaves on this way. Returns what is to be sent before it.
    pub(super) fn add(&mut self, way: Way<S>, leases: Leases) -> Option<Sent<S>> {
        let bytes = leases.bytes();
        let joins = |kept: &Kept<S>| {
            !kept.is_closed
                && kept.way == way
                && bytes > 0
                && bytes <= kept.segment
                && kept.count < TRAIN_MAX
                && kept.leases.bytes() + bytes <= BYTES_MAX
        };
        match &mut self.kept {
            Some(kept) if joins(kept) => {
                kept.leases.append(leases);
                kept.count += 1;
                kept.is_closed = bytes < kept.segment;
                None
            }
            _ => {
                let before = self.take();
                // A train as it came, or one that is too long or empty, stays by itself.
                let Departure { segment, apart, .. } = way.departure;
                let is_closed = segment.is_some() || apart || bytes == 0 || bytes > SEGMENT_MAX;
                self.kept = Some(Kept {
                    way,
                    leases,
                    segment: bytes,
                    count: 1,
                    is_closed,
                });
                before
            }
        }
    }

    /// What is left to be sent.
    pub(super) fn take(&mut self) -> Option<Sent<S>> {
        let Kept {
            mut way,
            leases,
            segment,
            count,
            ..
        } = self.kept.take()?;
        if count > 1 {
            way.departure.segment = u16::try_from(segment).ok();
        }
        Some((way, leases))
    }
}
