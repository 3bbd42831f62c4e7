//! Looking at all backends of a pool, or at two drawn by weight when there are many.

use super::Eligible;
use super::hash::split_mix;
use std::iter::Chain;
use std::ops::Range;

/// Pools up to this size are scanned whole; greater ones are sampled.
pub(crate) const SCANNED_MAX: usize = 256;

/// Where to look.
pub(crate) type Positions = Chain<Range<usize>, Range<usize>>;

/// What is prepared for drawing; nothing for pools that are scanned.
pub(crate) struct Sample {
    /// Sums of the weights up to and including each backend. Empty: scanned.
    weight_ends: Box<[u64]>,
}

impl Sample {
    /// Scans up to [`SCANNED_MAX`] backends and samples more.
    pub(crate) fn new(eligible: &[Eligible]) -> Self {
        if eligible.len() <= SCANNED_MAX {
            return Self {
                weight_ends: Box::default(),
            };
        }
        Self::always(eligible)
    }

    /// Samples from two backends on.
    pub(crate) fn always(eligible: &[Eligible]) -> Self {
        if eligible.len() < 2 {
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

    /// What is looked at with this ticket: all of `len` backends in an order that turns with the ticket, so that of
    /// equal ones each is first in its turn, or two.
    pub(crate) fn positions(&self, len: usize, ticket: u64) -> Positions {
        if self.is_sampled() {
            let (first, second) = self.two(ticket);
            return (first..first + 1).chain(second..second + 1);
        }
        all(len, ticket)
    }

    /// The backend with the least load of those that are looked at with this ticket, and the load. `load` is given
    /// positions and says `None` for whoever is not usable; of equal ones the first stays.
    pub(crate) fn least<L>(
        &self,
        len: usize,
        ticket: u64,
        load: impl Fn(usize) -> Option<L>,
        lighter: impl Fn(&L, &L) -> bool,
    ) -> Option<(usize, L)> {
        let least = least_of(self.positions(len, ticket), &load, &lighter);
        if least.is_none() && self.is_sampled() {
            // Neither is usable, which is rare enough to look at everything.
            return least_of(all(len, ticket), load, lighter);
        }
        least
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

fn all(len: usize, ticket: u64) -> Positions {
    let start = ticket.checked_rem(len as u64).unwrap_or(0) as usize;
    (start..len).chain(0..start)
}

fn least_of<L>(
    positions: Positions,
    load: impl Fn(usize) -> Option<L>,
    lighter: impl Fn(&L, &L) -> bool,
) -> Option<(usize, L)> {
    let mut least: Option<(usize, L)> = None;
    // Not a `for`: inside a chain, this one loop becomes two simple ones.
    positions.for_each(|at| {
        if let Some(found) = load(at)
            && least.as_ref().is_none_or(|(_, least)| lighter(&found, least))
        {
            least = Some((at, found));
        }
    });
    least
}

/// A number from 0 to `end - 1` from 64 random bits, by multiplication (the bias is below `end / 2^64`).
fn below(end: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(end)) >> 64) as u64
}
