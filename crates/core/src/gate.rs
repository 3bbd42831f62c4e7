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

    fn take(&self, count: u32) -> bool {
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                open.checked_add(count).filter(|&more| more <= self.max)
            })
            .is_ok()
    }

    fn give_back(&self, count: u32) {
        let before = self.open.fetch_sub(count, Ordering::AcqRel);
        assert!(before >= count, "a permit was given back twice");
    }
}

/// What a listener may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Connections or sessions at the same time.
    pub max: u32,
    /// What each takes of what the process has.
    pub descriptors: u32,
    /// Whether each takes one of the local ports that all share.
    pub shares_ports: bool,
}

/// The caps of the process and of each listener; shared by all workers.
#[derive(Debug)]
pub struct Gates {
    /// Of descriptors.
    process: Gate,
    /// Local ports of UDP.
    ports: Gate,
    listeners: Box<[(Gate, Cap)]>,
}

impl Gates {
    /// `descriptors` and `ports` are what the process has for clients; `listeners` are the caps of the listeners in the
    /// model's order.
    pub fn new(descriptors: u32, ports: u32, listeners: impl IntoIterator<Item = Cap>) -> Self {
        let gate = |max| Gate {
            open: AtomicU32::new(0),
            max,
        };
        let listener = |cap: Cap| (gate(cap.max), cap);
        Self {
            process: gate(descriptors),
            ports: gate(ports),
            listeners: listeners.into_iter().map(listener).collect(),
        }
    }

    /// Connections or sessions of this listener that are open now.
    pub fn open(&self, listener: usize) -> u32 {
        self.listeners[listener].0.open.load(Ordering::Acquire)
    }

    /// Connections or sessions that this listener could still open now.
    pub fn free(&self, listener: usize) -> u32 {
        let free = |gate: &Gate| gate.free(gate.open.load(Ordering::Acquire));
        let (own, cap) = &self.listeners[listener];
        let of_process = free(&self.process) / cap.descriptors.max(1);
        let ports = if cap.shares_ports { free(&self.ports) } else { u32::MAX };
        free(own).min(of_process).min(ports)
    }

    /// Admits one connection or session of a listener, if all caps allow it.
    pub fn admit(self: &Arc<Self>, listener: usize) -> Option<Permit> {
        let (own, cap) = &self.listeners[listener];
        // The listener's first: a full listener must not take room from the others, not even for a moment.
        if !own.take(1) {
            return None;
        }
        if !self.process.take(cap.descriptors) {
            own.give_back(1);
            return None;
        }
        if cap.shares_ports && !self.ports.take(1) {
            self.process.give_back(cap.descriptors);
            own.give_back(1);
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
        let (own, cap) = &self.gates.listeners[self.listener as usize];
        own.give_back(1);
        self.gates.process.give_back(cap.descriptors);
        if cap.shares_ports {
            self.gates.ports.give_back(1);
        }
    }
}
