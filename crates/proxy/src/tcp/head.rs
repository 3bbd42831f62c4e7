//! What a direction of a relay begins with: bytes that came before it was a relay, bytes of our own in front of them, and
//! the receive that goes on behind.

use super::queue::Queue;
use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Leases, Receive};

/// The beginning of one direction.
#[derive(Debug)]
pub(crate) struct Head {
    receive: Receive,
    bytes: Vec<u8>,
    leases: Leases,
    /// Of `bytes`, those that are ours and count as nobody's.
    own: u32,
}

impl Head {
    /// Bytes that were copied, then those in the worker's buffers, then what is received.
    pub(crate) const fn new(receive: Receive, bytes: Vec<u8>, leases: Leases) -> Self {
        Self {
            receive,
            bytes,
            leases,
            own: 0,
        }
    }

    /// Whether its source has said something.
    pub(super) const fn has_spoken(&self) -> bool {
        self.bytes.len() > self.own as usize || !self.leases.is_empty()
    }

    /// Whether it keeps buffers of the worker.
    pub(super) const fn holds_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Copies what is in the worker's buffers and gives those back.
    pub(super) fn spill(&mut self, empty: Leases) {
        let leases = std::mem::replace(&mut self.leases, empty);
        leases.slices().for_each(|slice| self.bytes.extend_from_slice(slice));
        if active(Fault::HeadLeasesLeaked) {
            std::mem::forget(leases);
        }
    }

    /// Puts bytes of our own in front, which leave in one piece with the others.
    pub(super) fn put_before(&mut self, mut own: Vec<u8>, empty: Leases) {
        if own.is_empty() {
            return;
        }
        self.spill(empty);
        self.own = own.len() as u32;
        own.append(&mut self.bytes);
        self.bytes = own;
    }

    /// The receive, what is to be sent first, and how many bytes of that are our own.
    pub(super) fn into_parts(self) -> (Receive, Queue, u32) {
        (self.receive, Queue::begin(self.bytes, self.leases), self.own)
    }
}
