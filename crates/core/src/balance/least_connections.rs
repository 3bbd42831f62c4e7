//! Least connections: the fewest connections per weight, exact over all workers because choosing reserves.

use super::sample::Sample;
use super::{Attempt, Eligible};
use std::cmp;

/// The usable backend with the fewest connections per weight, reserved. `connections` says `None` for whoever is not
/// usable.
///
/// The claim only succeeds at the count that was compared. While nothing but opening happens, the counts of the
/// others can only have grown since, so the claimed one is still a minimum, whatever other workers do: no backend
/// is ever more than one connection ahead of its share. A connection that closes between look and claim may leave
/// a better choice unused, once.
pub(crate) fn attempt(
    sample: &Sample,
    eligible: &[Eligible],
    ticket: u64,
    connections: impl Fn(usize) -> Option<u32>,
) -> Attempt {
    let load = |at| Some(Load::of(&eligible[at], connections(at)?));
    match sample.least(eligible.len(), ticket, load, Load::is_lighter) {
        None => Attempt::Nobody,
        Some((at, load)) => Attempt::of(at, eligible[at].state.reserve_if(load.connections)),
    }
}

/// Connections as seen, and the weight they are compared by.
pub(crate) struct Load {
    pub(crate) connections: u32,
    pub(crate) weight: u32,
}

impl Load {
    pub(crate) const fn of(backend: &Eligible, connections: u32) -> Self {
        Self {
            connections,
            weight: backend.weight,
        }
    }

    pub(crate) fn is_lighter(&self, other: &Self) -> bool {
        self.compare(other).is_lt()
    }

    /// (connections + 1) / weight against (other's + 1) / other's weight; 33 + 20 bits fit.
    pub(crate) fn compare(&self, other: &Self) -> cmp::Ordering {
        let ours = (u64::from(self.connections) + 1) * u64::from(other.weight);
        ours.cmp(&((u64::from(other.connections) + 1) * u64::from(self.weight)))
    }
}
