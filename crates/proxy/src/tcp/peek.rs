//! A client's first bytes, looked at before they are passed on.
//!
//! One short receive at a time, so that whoever sends much before it is known where to fills no buffers. What comes whole
//! stays in the worker's buffer and leaves from there; who makes us wait for more holds memory of its own, and no buffer.
//! Knows nothing of what the bytes mean.

use crate::tcp::head::Head;
use crate::unrouted::Waiting;
use ringway_core::reason::EndReason;
use ringway_runtime::{Leases, Receive, Stream};

/// What was received and not passed on yet.
#[derive(Debug)]
pub(super) struct Peek<'a> {
    waiting: &'a Waiting,
    receive: Receive,
    held: Held,
    /// Its first receive was started with it.
    is_new: bool,
}

#[derive(Debug)]
enum Held {
    Nothing,
    /// In one piece.
    Buffer(Leases),
    Copied(Vec<u8>),
}

impl<'a> Peek<'a> {
    /// Starts to receive.
    pub(super) fn new(client: &Stream, waiting: &'a Waiting) -> Self {
        Self {
            waiting,
            receive: client.receive_once(1),
            held: Held::Nothing,
            is_new: true,
        }
    }

    /// What has come so far, without what was skipped.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Nothing => &[],
            Held::Buffer(leases) => leases.slices().next().unwrap_or_default(),
            Held::Copied(bytes) => bytes,
        }
    }

    /// Waits for more bytes.
    pub(super) async fn more(&mut self) -> Result<(), EndReason> {
        match &self.held {
            // All was skipped: what comes next may come whole.
            Held::Buffer(leases) if leases.is_empty() => self.held = Held::Nothing,
            Held::Copied(bytes) if bytes.is_empty() => {
                self.held = Held::Nothing;
                self.tell();
            }
            Held::Buffer(leases) => {
                self.held = Held::Copied(joined(leases));
                self.tell();
            }
            Held::Copied(_) | Held::Nothing => {}
        }
        if !std::mem::take(&mut self.is_new) {
            self.receive.resume_once(1);
        }
        match self.receive.next().await {
            Ok(Some(leases)) => self.hold(leases),
            Ok(None) => return Err(EndReason::ClientLeft),
            Err(errno) if errno.is_timed_out() => return Err(EndReason::ClientGone),
            Err(_) => return Err(EndReason::ClientReset),
        }
        Ok(())
    }

    fn hold(&mut self, leases: Leases) {
        match &mut self.held {
            Held::Nothing if leases.buffers() == 1 => self.held = Held::Buffer(leases),
            Held::Nothing | Held::Buffer(_) => {
                self.held = Held::Copied(joined(&leases));
                self.tell();
            }
            Held::Copied(bytes) => {
                leases.slices().for_each(|slice| bytes.extend_from_slice(slice));
                self.tell();
            }
        }
    }

    /// Takes this many of the first bytes away; they are not passed on.
    pub(super) fn skip(&mut self, count: usize) {
        match &mut self.held {
            Held::Nothing => {}
            Held::Buffer(leases) => leases.advance(count as u32),
            Held::Copied(bytes) => {
                bytes.drain(..count.min(bytes.len()));
                self.tell();
            }
        }
    }

    /// Memory that is held for it.
    fn tell(&self) {
        let bytes = match &self.held {
            Held::Nothing | Held::Buffer(_) => 0,
            Held::Copied(bytes) => bytes.capacity(),
        };
        self.waiting.hold(bytes);
    }

    /// What is passed on, and the receive that goes on behind it.
    pub(super) fn into_head(self, empty: Leases) -> Head {
        let (bytes, leases) = match self.held {
            Held::Nothing => (Vec::new(), empty),
            Held::Buffer(leases) => (Vec::new(), leases),
            Held::Copied(bytes) => (bytes, empty),
        };
        Head::new(self.receive, bytes, leases)
    }
}

fn joined(leases: &Leases) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(leases.bytes() as usize);
    leases.slices().for_each(|slice| bytes.extend_from_slice(slice));
    bytes
}
