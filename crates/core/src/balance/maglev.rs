//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4):
//! one look into a table, however many backends there are, at the price that a change of backends also moves a few
//! clients of the others.

use super::Eligible;
use super::client::ClientKey;
use super::hash::{self, Purpose};
use super::rendezvous::by_hash;

/// Slots of the table; a prime, so that every step through it visits every slot.
pub(crate) const SLOTS: u32 = 65_537;

/// Slots that one choice draws at most; half the backends' share tried, one in 65,536 choices needs more.
const LOOKS_MAX: usize = 16;

/// The table of one set of eligible backends.
pub(crate) struct Maglev {
    seed: u64,
    /// Positions among the eligible backends; [`SLOTS`] of them, or none when nothing is eligible.
    table: Box<[u32]>,
    /// How many backends are eligible.
    backends: usize,
}

/// One backend's walk through the table while it is filled.
struct Walk {
    /// Next slot it would like, 0 to `SLOTS - 1`.
    slot: u32,
    /// Distance between the slots it likes, 1 to `SLOTS - 1`.
    skip: u32,
    weight: u64,
    at: u32,
}

impl Maglev {
    /// Fills the table: backends take turns in hash order, in each turn one takes the next slot it likes that is
    /// free. In round `r` those take a turn whose `r * weight / greatest weight` reaches a new whole number, so the
    /// heaviest takes one in every round.
    ///
    /// Each backend gets its share of the slots to within about one. One whose share is below one slot (weight 1
    /// among more than 65 of weight 1000) may get none, and then no client.
    pub(crate) fn new(eligible: &[Eligible], seed: u64) -> Self {
        let mut walks: Vec<Walk> = by_hash(eligible, seed)
            .map(|(_, at)| Walk::new(&eligible[at], at, seed))
            .collect();
        let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap_or(0);
        if heaviest == 0 {
            return Self {
                seed,
                table: Box::default(),
                backends: 0,
            };
        }
        let mut table = vec![FREE; SLOTS as usize];
        let mut filled = 0;
        let mut round = 0;
        while filled < SLOTS {
            round += 1;
            for walk in &mut walks {
                if filled < SLOTS && round * walk.weight / heaviest > (round - 1) * walk.weight / heaviest {
                    walk.take_slot(&mut table);
                    filled += 1;
                }
            }
        }
        Self {
            seed,
            table: table.into_boxed_slice(),
            backends: walks.len(),
        }
    }

    /// The backend in the client's slot. If that is not usable, the one in the slot to which the hash of the hash leads,
    /// and so on: going to the next slot of the table instead would favour some backends by a fifth, because two walks
    /// meet in a pattern. After [`LOOKS_MAX`] looks the next slots are taken all the same; and last of all any backend,
    /// as one may be too light for a slot.
    pub(crate) fn choose(&self, client: ClientKey, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut hash = client.hash(self.seed);
        let mut slot = 0;
        for _ in 0..LOOKS_MAX {
            slot = (hash % u64::from(SLOTS)) as usize;
            let at = *self.table.get(slot)? as usize;
            if usable(at) {
                return Some(at);
            }
            hash = hash::split_mix(hash);
        }
        // A pool in which everything is full must not walk the table each time.
        let any = (0..self.backends).find(|&at| usable(at))?;
        let (before, after) = self.table.split_at_checked(slot)?;
        let mut slots = after.iter().chain(before).map(|&at| at as usize);
        Some(slots.find(|&at| usable(at)).unwrap_or(any))
    }

    #[cfg(test)]
    pub(crate) fn table(&self) -> &[u32] {
        &self.table
    }
}

impl Walk {
    fn new(backend: &Eligible, at: usize, seed: u64) -> Self {
        let bytes = hash::address_bytes(&backend.state.address);
        let slots = u64::from(SLOTS);
        Self {
            slot: (hash::keyed(seed, Purpose::MaglevOffset, &bytes) % slots) as u32,
            skip: (hash::keyed(seed, Purpose::MaglevSkip, &bytes) % (slots - 1)) as u32 + 1,
            weight: u64::from(backend.weight),
            at: at as u32,
        }
    }

    /// Takes the next slot that is free; there must be one.
    fn take_slot(&mut self, table: &mut [u32]) {
        // SLOTS is prime, so the walk comes by every slot before it comes to the same one again.
        while table[self.slot as usize] != FREE {
            self.slot = (self.slot + self.skip) % SLOTS;
        }
        table[self.slot as usize] = self.at;
    }
}

const FREE: u32 = u32::MAX;
