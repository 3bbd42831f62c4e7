//! Least connections: the fewest connections per weight, exact over all workers because choosing reserves.

use super::hash::split_mix;
use super::tickets::Tickets;
use super::{Eligible, Tried};
use crate::backend::Reservation;

/// Pools up to this size are scanned whole; greater ones are sampled.
pub(crate) const SCANNED_MAX: usize = 256;

/// Lost races after which a choice stops being exact. A loss means that another worker counted a connection between
/// our look and our claim, so this many in a row do not happen to a thread that runs at all.
pub(crate) const RESCANS_MAX: u32 = 1_000;

/// What is prepared for choosing by connections.
pub(crate) struct LeastConnections {
    /// Beyond [`SCANNED_MAX`] backends: sums of the weights up to and including each backend. Empty: scanned.
    weight_ends: Box<[u64]>,
}

impl LeastConnections {
    pub(crate) fn new(eligible: &[Eligible]) -> Self {
        if eligible.len() <= SCANNED_MAX {
            return Self {
                weight_ends: Box::default(),
            };
        }
        let sums = eligible.iter().scan(0, |sum, backend| {
            *sum += u64::from(backend.weight);
            Some(*sum)
        });
        Self {
            weight_ends: sums.collect(),
        }
    }

    /// Whether two random backends are compared instead of all.
    pub(crate) fn is_sampled(&self) -> bool {
        !self.weight_ends.is_empty()
    }

    /// The untried backend with the fewest connections per weight, reserved.
    ///
    /// The claim only succeeds at the count that was compared. While nothing but opening happens, the counts of the
    /// others can only have grown since, so the claimed one is still a minimum, whatever other workers do: no backend
    /// is ever more than one connection ahead of its share. A connection that closes between look and claim may leave
    /// a better choice unused, once.
    pub(crate) fn choose(
        &self,
        eligible: &[Eligible],
        tickets: &Tickets,
        tried: &Tried,
    ) -> Option<(usize, Reservation)> {
        self.choose_within(RESCANS_MAX, eligible, tickets, tried)
    }

    /// As [`Self::choose`], with the number of looks as an argument for tests.
    pub(crate) fn choose_within(
        &self,
        looks_max: u32,
        eligible: &[Eligible],
        tickets: &Tickets,
        tried: &Tried,
    ) -> Option<(usize, Reservation)> {
        let ticket = tickets.take();
        for _ in 0..looks_max {
            let (at, seen) = self.least(eligible, ticket, tried)?;
            if let Some(reservation) = eligible[at].state.reserve_if(seen) {
                return Some((at, reservation));
            }
        }
        let (at, _) = self.least(eligible, ticket, tried)?;
        Some((at, eligible[at].state.reserve()))
    }

    /// Position of the least loaded backend, and the connections it was seen with.
    fn least(&self, eligible: &[Eligible], ticket: u64, tried: &Tried) -> Option<(usize, u32)> {
        if self.is_sampled() {
            let (first, second) = self.two(ticket);
            // Both tried: this connection is on its third try at least, and may look at everything.
            if let Some(least) = least_of([first, second].into_iter(), eligible, tried) {
                return Some(least);
            }
        }
        // Ties go to whoever is looked at first; turning the start lets an idle pool be used evenly.
        let start = ticket.checked_rem(eligible.len() as u64)? as usize;
        least_of((start..eligible.len()).chain(0..start), eligible, tried)
    }

    /// Two different backends, each drawn by weight, from the ticket alone.
    pub(crate) fn two(&self, ticket: u64) -> (usize, usize) {
        let last = self.weight_ends.len() - 1;
        let total = self.weight_ends[last];
        let at = |weight| self.weight_ends.partition_point(|&end| end <= weight);
        let first = at(below(total, split_mix(ticket.wrapping_mul(2))));
        // The second is drawn as if the first were not there.
        let begin = if first == 0 { 0 } else { self.weight_ends[first - 1] };
        let width = self.weight_ends[first] - begin;
        let drawn = below(total - width, split_mix(ticket.wrapping_mul(2) + 1));
        (first, at(if drawn < begin { drawn } else { drawn + width }))
    }
}

/// The first of these with the fewest connections per weight, and the connections it was seen with.
fn least_of(positions: impl Iterator<Item = usize>, eligible: &[Eligible], tried: &Tried) -> Option<(usize, u32)> {
    let mut least: Option<(usize, u32)> = None;
    for at in positions {
        let backend = &eligible[at];
        if tried.contains(backend.index) {
            continue;
        }
        let seen = backend.state.connections();
        let lighter = least.is_none_or(|(other, other_seen)| {
            // (seen + 1) / weight < (other_seen + 1) / other_weight; 33 + 10 bits fit.
            (u64::from(seen) + 1) * u64::from(eligible[other].weight)
                < (u64::from(other_seen) + 1) * u64::from(backend.weight)
        });
        if lighter {
            least = Some((at, seen));
        }
    }
    least
}

/// A number from 0 to `end - 1` from 64 random bits, by multiplication (the bias is below `end / 2^64`).
fn below(end: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(end)) >> 64) as u64
}
