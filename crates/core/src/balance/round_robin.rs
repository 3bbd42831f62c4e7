//! Round robin: one schedule that all workers walk together, a ticket per step.

use super::tickets::Tickets;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Slots of a schedule at most; 4 MiB. Every pool whose weights, divided by their greatest common divisor, add up to
/// no more gets its exact shares: a thousand backends of weight 1000 do.
///
/// Heavier pools are scaled down to about this length, where each backend is off by less than one slot.
pub(crate) const SLOTS_MAX: u64 = 1 << 20;

/// Tickets that one choice takes at most before it goes on along the schedule without taking more.
pub(crate) const TICKETS_PER_CHOICE_MAX: usize = 16;

/// The order in which backends take their turns, over and over.
pub(crate) struct Schedule {
    /// Positions among the eligible backends; never empty when there is an eligible backend.
    slots: Box<[u32]>,
    /// How many backends are eligible.
    backends: usize,
}

impl Schedule {
    /// A schedule for backends of these weights (each at least 1): smooth, each backend within one turn of its share
    /// in every prefix of it.
    pub(crate) fn new(weights: &[u32]) -> Self {
        Self {
            slots: smooth(&turns(weights)),
            backends: weights.len(),
        }
    }

    /// The backend whose turn it is: each choice takes a ticket, so over all workers the turns come in schedule order.
    ///
    /// If it is that of a backend that is not usable (tried already for this connection, or full), that backend's turn
    /// is forfeited and the next ticket taken. So the tickets of all other backends still serve one connection each,
    /// and the load of one that refuses spreads over the others by weight instead of falling on its neighbour. After
    /// [`TICKETS_PER_CHOICE_MAX`] forfeited turns (a heavy backend among light ones) the nearest usable backend in
    /// the schedule is taken without its ticket; then its turns are a little denser until health takes the refusing
    /// one out.
    ///
    /// `claim` reserves a backend if it is usable, so that one look is enough where all is well; `usable` only looks.
    pub(crate) fn choose<T>(
        &self,
        tickets: &Tickets,
        claim: impl Fn(usize) -> Option<T>,
        usable: impl Fn(usize) -> bool,
    ) -> Option<(usize, T)> {
        let len = self.slots.len();
        if len == 0 {
            return None;
        }
        let mut slot = 0;
        for taken in 0..TICKETS_PER_CHOICE_MAX {
            slot = (tickets.take() % len as u64) as usize;
            let position = self.slots[slot] as usize;
            if let Some(claimed) = claim(position) {
                return Some((position, claimed));
            }
            // A pool in which everything is full must not walk the schedule each time, nor forfeit anybody's turns.
            if taken == 0 && !(0..self.backends).any(&usable) {
                return None;
            }
        }
        let (before, after) = self.slots.split_at(slot);
        after
            .iter()
            .chain(before)
            .map(|&position| position as usize)
            .find_map(|position| Some((position, claim(position)?)))
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// Turns of each backend in one schedule: the weights in lowest terms, scaled to about [`SLOTS_MAX`] in all if they
/// add up to more; at least 1 each.
fn turns(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, weight)).max(1);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    let scaled = |weight: u64| {
        if total > SLOTS_MAX {
            (weight * SLOTS_MAX / total).max(1)
        } else {
            weight
        }
    };
    weights
        .iter()
        .map(|&weight| scaled(u64::from(weight / divisor)))
        .collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Spreads the turns evenly: the `k`-th of a backend's `w` turns may be placed from slot `k * total / w` on and must
/// be placed before `(k + 1) * total / w`; of those that may, the one that must be first is. On one lane with integer
/// windows that always succeeds (earliest deadline first; Baruah et al., "Proportionate progress", 1996, for the
/// windows), so after any number of slots no backend is a whole turn from its share. O(total log backends).
fn smooth(turns: &[u64]) -> Box<[u32]> {
    let total: u64 = turns.iter().sum();
    let window = |position: usize, turn: u64| {
        let share = turns[position];
        (turn * total / share, ((turn + 1) * total).div_ceil(share))
    };
    // Waiting: (opens, position, turn). Open: (closes, position, turn).
    let mut waiting: BinaryHeap<_> = (0..turns.len()).map(|position| Reverse((0, position, 0))).collect();
    let mut open = BinaryHeap::with_capacity(turns.len());
    let mut slots = Vec::with_capacity(total as usize);
    for slot in 0..total {
        while let Some(&Reverse((opens, position, turn))) = waiting.peek()
            && opens <= slot
        {
            waiting.pop();
            open.push(Reverse((window(position, turn).1, position, turn)));
        }
        let Some(Reverse((closes, position, turn))) = open.pop() else {
            unreachable!("a schedule that uses every slot has a turn open in each");
        };
        assert!(slot < closes, "turn {turn} of backend {position} missed its window");
        slots.push(position as u32);
        if turn + 1 < turns[position] {
            waiting.push(Reverse((window(position, turn + 1).0, position, turn + 1)));
        }
    }
    slots.into_boxed_slice()
}
