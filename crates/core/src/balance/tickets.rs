//! The shared counter that puts choices of all workers into one order.

use crate::sync::{AtomicU64, Ordering};

/// Tickets of one pool: consecutive numbers, each given out once over all workers.
///
/// Made once per pool and kept across its selectors, so that a change of eligible backends does not start the
/// schedule over. Pools must not share one: each would see gaps where the other took tickets.
///
/// Aligned to two cache lines because every choice of every worker writes it, and a neighbour would pay for that.
#[derive(Debug)]
#[repr(align(128))]
pub struct Tickets(AtomicU64);

impl Tickets {
    /// Starts at 0.
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// Starts at `first`; for simulations that must not all begin alike.
    pub fn starting_at(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// The next ticket. At a billion a second the counter lasts for five centuries.
    pub(crate) fn take(&self) -> u64 {
        // Relaxed: the number itself is all that is shared; nothing is published with it.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}
