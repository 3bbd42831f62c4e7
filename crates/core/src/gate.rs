//! Admission: how many connections may be open at the same time, per listener and in the whole process.
//!
//! A permit is a reservation like a backend's: taken before the connection costs anything, given back when dropped,
//! also when the task that holds it unwinds. Exact over all workers. Never waits; whoever is refused tries again when
//! room may have appeared.

use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;

/// One counter with a cap.
#[derive(Debug)]
struct Gate {
    open: AtomicU32,
    max: u32,
}

impl Gate {
    const fn free(&self, open: u32) -> u32 {
        self.max.saturating_sub(open)
    }

    fn take(&self) -> bool {
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < self.max).then_some(open + 1)
            })
            .is_ok()
    }

    fn give_back(&self) {
        let before = self.open.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a permit was given back twice");
    }
}

/// The caps of the process and of each listener; shared by all workers.
#[derive(Debug)]
pub struct Gates {
    process: Gate,
    listeners: Box<[Gate]>,
}

impl Gates {
    /// `listeners` are the caps of the listeners in the model's order; `None`: only the process' cap counts.
    pub fn new(connections_max: u32, listeners: impl IntoIterator<Item = Option<u32>>) -> Self {
        let gate = |max| Gate {
            open: AtomicU32::new(0),
            max,
        };
        Self {
            process: gate(connections_max),
            listeners: listeners.into_iter().map(|max| gate(max.unwrap_or(u32::MAX))).collect(),
        }
    }

    /// Connections that this listener could still open now.
    pub fn free(&self, listener: usize) -> u32 {
        let own = &self.listeners[listener];
        own.free(own.open.load(Ordering::Acquire))
            .min(self.process.free(self.process.open.load(Ordering::Acquire)))
    }

    /// Admits one connection of a listener, if both caps allow it.
    pub fn admit(self: &Arc<Self>, listener: usize) -> Option<Permit> {
        // The listener's first: a full listener must not take room from the others, not even for a moment.
        if !self.listeners[listener].take() {
            return None;
        }
        if !self.process.take() {
            self.listeners[listener].give_back();
            return None;
        }
        Some(Permit {
            gates: self.clone(),
            listener: listener as u32,
        })
    }
}

/// One open connection, counted until dropped.
#[derive(Debug)]
pub struct Permit {
    gates: Arc<Gates>,
    listener: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gates.listeners[self.listener as usize].give_back();
        self.gates.process.give_back();
    }
}
