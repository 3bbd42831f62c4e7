//! Bytes received from one side that the other has not taken yet.
//!
//! Normally leases on the worker's buffers; when buffers are short, bytes that cannot be sent are copied into memory of
//! their own (`spill`), so that one slow reader never keeps buffers from the others. Knows no sockets.

use ringway_runtime::faults::{Fault, active};
use ringway_runtime::{Leases, Stream, Unsent};

/// The bytes in order: first those that were spilled, then leases.
#[derive(Debug)]
pub(crate) struct Queue {
    spilled: Option<Box<Spilled>>,
    leases: Leases,
}

#[derive(Debug)]
struct Spilled {
    bytes: Box<[u8]>,
    sent: u32,
}

impl Queue {
    pub(crate) const fn new(empty: Leases) -> Self {
        Self {
            spilled: None,
            leases: empty,
        }
    }

    /// Bytes in memory of their own, then leases.
    pub(super) fn begin(bytes: Vec<u8>, leases: Leases) -> Self {
        let spilled = (!bytes.is_empty()).then(|| {
            Box::new(Spilled {
                bytes: bytes.into(),
                sent: 0,
            })
        });
        Self { spilled, leases }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u32 {
        self.spilled_bytes() + self.leases.bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spilled.is_none() && self.leases.is_empty()
    }

    /// Whether worker buffers are held.
    pub(crate) const fn holds_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    fn spilled_bytes(&self) -> u32 {
        self.spilled
            .as_ref()
            .map_or(0, |spilled| spilled.bytes.len() as u32 - spilled.sent)
    }

    pub(crate) fn push(&mut self, leases: Leases) {
        self.leases.append(leases);
    }

    /// Puts back what a send left, in front of what has come since.
    pub(crate) fn put_back(&mut self, unsent: Unsent, empty: Leases) {
        match unsent {
            Unsent::Leases(mut front) => {
                front.append(std::mem::replace(&mut self.leases, empty));
                self.leases = front;
            }
            Unsent::Bytes { bytes, sent } => self.spilled = Some(Box::new(Spilled { bytes, sent })),
        }
    }

    /// Starts to send the front of the queue. `None` if there is nothing.
    pub(crate) fn send(
        &mut self,
        stream: &Stream,
        report: bool,
        empty: Leases,
    ) -> Option<(ringway_runtime::Send, u32)> {
        let overtakes = active(Fault::HeadOvertaken) && !self.leases.is_empty();
        if let Some(spilled) = self.spilled.take_if(|_| !overtakes) {
            let Spilled { bytes, sent } = *spilled;
            let len = bytes.len() as u32 - sent;
            return Some((stream.send_bytes(bytes, sent, true), len));
        }
        if self.leases.is_empty() {
            return None;
        }
        let len = self.leases.bytes();
        Some((stream.send(std::mem::replace(&mut self.leases, empty), report), len))
    }

    /// Copies what is in worker buffers into memory of its own and gives the buffers back.
    pub(crate) fn spill(&mut self, empty: Leases) {
        if self.leases.is_empty() {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes() as usize);
        if let Some(spilled) = &self.spilled {
            bytes.extend_from_slice(&spilled.bytes[spilled.sent as usize..]);
        }
        self.leases.slices().for_each(|slice| bytes.extend_from_slice(slice));
        self.leases = empty;
        self.spilled = Some(Box::new(Spilled {
            bytes: bytes.into(),
            sent: 0,
        }));
    }
}
